//! Filters over the tags of publications, as clients send them.
//!
//! A [`Node`] is a filter as it came: a tree in which nothing has been judged. It is decoded by a codec. A
//! [`Filter`] is one that makes sense, in the form that lives as long as its subscription; the session makes it
//! once and asks it for every publication.
//!
//! What must stay true: a filter has a bounded depth, a bounded number of comparisons and of values; two numbers
//! are compared digit by digit, never rounded; [`Filter::matches`] depends on the tags alone.

use serde::Deserialize;
use std::cmp::Ordering;

/// How deeply the comparisons of a filter may be nested; one without `op` has depth 1.
pub const MAX_DEPTH: usize = 16;

/// How many nodes a filter may have.
pub const MAX_NODES: usize = 256;

/// How many values the lists of a filter may have in all.
pub const MAX_VALUES: usize = 1024;

/// A part of a filter as it came, which may be nonsense.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// `and`, `or`, `not`; empty for a comparison.
    pub op: String,
    /// The tag that is compared.
    pub key: String,
    /// How it is compared.
    pub cmp: String,
    /// With what.
    pub val: String,
    /// With which of several.
    pub vals: Vec<String>,
    /// What `op` joins.
    pub nodes: Vec<Node>,
}

/// A filter that makes sense.
#[derive(Clone, PartialEq, Debug)]
pub struct Filter(Box<Rule>);

/// Why a filter makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place} {what}")]
pub struct FilterError {
    /// The node or its field, as a path: `tf.nodes[1].cmp`.
    pub place: String,
    /// What is wrong with it; never text of the client's.
    pub what: &'static str,
}

impl Filter {
    /// Judges a filter as it came.
    ///
    /// # Errors
    ///
    /// If an operation or a comparison is unknown or lacks what it needs, or a limit is exceeded.
    pub fn new(node: &Node) -> Result<Filter, FilterError> {
        let mut judge = Judge { path: Vec::new(), nodes: 0, values: 0 };
        Ok(Filter(Box::new(judge.rule(node)?)))
    }

    /// Whether a publication with these tags, sorted by key, is wanted.
    pub fn matches(&self, tags: &[(String, String)]) -> bool {
        self.0.matches(tags)
    }
}

/// A node of a filter that makes sense.
#[derive(Clone, PartialEq, Debug)]
enum Rule {
    All(Box<[Rule]>),
    Any(Box<[Rule]>),
    Not(Box<Rule>),
    Tag(Box<str>, Test),
}

/// What is asked of one tag.
#[derive(Clone, PartialEq, Debug)]
enum Test {
    Exists,
    IsAbsent,
    Is(Box<str>),
    IsNot(Box<str>),
    /// The values are sorted.
    IsOneOf(Box<[Box<str>]>),
    /// The values are sorted.
    IsNoneOf(Box<[Box<str>]>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    IsLess(Box<str>),
    IsAtMost(Box<str>),
    IsGreater(Box<str>),
    IsAtLeast(Box<str>),
}

impl Rule {
    fn matches(&self, tags: &[(String, String)]) -> bool {
        match self {
            Rule::All(rules) => rules.iter().all(|rule| rule.matches(tags)),
            Rule::Any(rules) => rules.iter().any(|rule| rule.matches(tags)),
            Rule::Not(rule) => !rule.matches(tags),
            Rule::Tag(key, test) => {
                let found = tags.binary_search_by(|(name, _)| name.as_str().cmp(key));
                test.matches(found.ok().map(|at| tags[at].1.as_str()))
            }
        }
    }
}

impl Test {
    fn matches(&self, tag: Option<&str>) -> bool {
        let Some(tag) = tag else {
            return matches!(self, Test::IsAbsent | Test::IsNot(_) | Test::IsNoneOf(_));
        };
        let is_in = |values: &[Box<str>]| values.binary_search_by(|value| (**value).cmp(tag)).is_ok();
        let is = |value: &str, wanted: fn(Ordering) -> bool| {
            let numbers = Decimal::parse(tag).zip(Decimal::parse(value));
            numbers.is_some_and(|(tag, value)| wanted(tag.cmp(&value)))
        };
        match self {
            Test::Exists => true,
            Test::IsAbsent => false,
            Test::Is(value) => tag == &**value,
            Test::IsNot(value) => tag != &**value,
            Test::IsOneOf(values) => is_in(values),
            Test::IsNoneOf(values) => !is_in(values),
            Test::StartsWith(value) => tag.starts_with(&**value),
            Test::EndsWith(value) => tag.ends_with(&**value),
            Test::Contains(value) => tag.contains(&**value),
            Test::IsLess(value) => is(value, Ordering::is_lt),
            Test::IsAtMost(value) => is(value, Ordering::is_le),
            Test::IsGreater(value) => is(value, Ordering::is_gt),
            Test::IsAtLeast(value) => is(value, Ordering::is_ge),
        }
    }
}

/// Judges a filter node by node, and knows where it is.
struct Judge {
    /// Index of each node among its parent's, from the outermost inwards.
    path: Vec<usize>,
    nodes: usize,
    values: usize,
}

impl Judge {
    fn rule(&mut self, node: &Node) -> Result<Rule, FilterError> {
        self.nodes += 1;
        if self.path.len() >= MAX_DEPTH {
            return Err(self.wrong("", "is nested deeper than 16 levels"));
        }
        if self.nodes > MAX_NODES {
            return Err(FilterError { place: "tf".to_owned(), what: "has more than 256 nodes" });
        }
        if node.op.is_empty() {
            return self.comparison(node);
        }
        for (field, is_absent) in [
            (".key", node.key.is_empty()),
            (".cmp", node.cmp.is_empty()),
            (".val", node.val.is_empty()),
            (".vals", node.vals.is_empty()),
        ] {
            if !is_absent {
                return Err(self.wrong(field, "stands beside op, which takes nodes"));
            }
        }
        let is_not = match node.op.as_str() {
            "and" | "or" => false,
            "not" => true,
            _ => return Err(self.wrong(".op", "is none of and, or, not")),
        };
        match node.nodes.len() {
            0 => return Err(self.wrong(".nodes", "is empty")),
            2.. if is_not => return Err(self.wrong(".nodes", "is more than the one that not takes")),
            _ => {}
        }
        // Room is made as nodes are judged, not for as many as came.
        let mut rules = Vec::new();
        for (i, inner) in node.nodes.iter().enumerate() {
            self.path.push(i);
            rules.push(self.rule(inner)?);
            self.path.pop();
        }
        Ok(match node.op.as_str() {
            "and" => Rule::All(rules.into()),
            "or" => Rule::Any(rules.into()),
            _ => Rule::Not(Box::new(rules.pop().expect("not has one node, as checked above"))),
        })
    }

    fn comparison(&mut self, node: &Node) -> Result<Rule, FilterError> {
        if !node.nodes.is_empty() {
            return Err(self.wrong(".nodes", "stands without op"));
        }
        if node.key.is_empty() {
            return Err(self.wrong(".key", "is empty"));
        }
        let takes_list = matches!(node.cmp.as_str(), "in" | "nin");
        let takes_none = matches!(node.cmp.as_str(), "ex" | "nex");
        if !node.val.is_empty() && (takes_list || takes_none) {
            return Err(self.wrong(".val", "stands beside a cmp that does not take it"));
        }
        if !node.vals.is_empty() && !takes_list {
            return Err(self.wrong(".vals", "stands beside a cmp that does not take it"));
        }
        let test = match node.cmp.as_str() {
            "eq" => Test::Is(value(node)),
            "neq" => Test::IsNot(value(node)),
            "in" => Test::IsOneOf(self.values(node)?),
            "nin" => Test::IsNoneOf(self.values(node)?),
            "ex" => Test::Exists,
            "nex" => Test::IsAbsent,
            "sw" => Test::StartsWith(value(node)),
            "ew" => Test::EndsWith(value(node)),
            "ct" => Test::Contains(value(node)),
            "lt" => Test::IsLess(self.number(node)?),
            "lte" => Test::IsAtMost(self.number(node)?),
            "gt" => Test::IsGreater(self.number(node)?),
            "gte" => Test::IsAtLeast(self.number(node)?),
            _ => return Err(self.wrong(".cmp", "is no known comparison")),
        };
        Ok(Rule::Tag(node.key.as_str().into(), test))
    }

    fn values(&mut self, node: &Node) -> Result<Box<[Box<str>]>, FilterError> {
        if node.vals.is_empty() {
            return Err(self.wrong(".vals", "is empty"));
        }
        self.values += node.vals.len();
        if self.values > MAX_VALUES {
            return Err(FilterError { place: "tf".to_owned(), what: "has more than 1024 values" });
        }
        let mut values: Vec<Box<str>> = node.vals.iter().map(|value| value.as_str().into()).collect();
        values.sort_unstable();
        values.dedup();
        Ok(values.into())
    }

    fn number(&self, node: &Node) -> Result<Box<str>, FilterError> {
        match Decimal::parse(&node.val) {
            Some(_) => Ok(value(node)),
            None => Err(self.wrong(".val", "is not a decimal number")),
        }
    }

    fn wrong(&self, field: &str, what: &'static str) -> FilterError {
        let nodes: String = self.path.iter().map(|i| format!(".nodes[{i}]")).collect();
        FilterError { place: format!("tf{nodes}{field}"), what }
    }
}

fn value(node: &Node) -> Box<str> {
    node.val.as_str().into()
}

/// A decimal number of any length as text: a sign or none, digits, a point and digits or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Decimal<'a> {
    /// Never of zero.
    is_negative: bool,
    /// Without leading zeros.
    whole: &'a str,
    /// Without trailing zeros.
    fraction: &'a str,
}

impl Decimal<'_> {
    fn parse(text: &str) -> Option<Decimal<'_>> {
        let is_negative = text.starts_with('-');
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Decimal { is_negative: is_negative && !is_zero, whole, fraction })
    }

    fn cmp(&self, other: &Decimal<'_>) -> Ordering {
        let magnitude = || {
            let whole = self.whole.len().cmp(&other.whole.len()).then_with(|| self.whole.cmp(other.whole));
            // A fraction that is the beginning of another is the smaller one, as text is.
            whole.then_with(|| self.fraction.cmp(other.fraction))
        };
        match (self.is_negative, other.is_negative) {
            (false, false) => magnitude(),
            (true, true) => magnitude().reverse(),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn filter(node: &Value) -> Result<Filter, FilterError> {
        Filter::new(&serde_json::from_value(node.clone()).unwrap())
    }

    fn matches(node: Value, tags: &[(&str, &str)]) -> bool {
        let tags: Vec<_> = tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        assert!(tags.is_sorted());
        filter(&node).unwrap_or_else(|error| panic!("{node}: {error}")).matches(&tags)
    }

    #[test]
    fn every_comparison_asks_what_it_says() {
        let tag = [("a", "x"), ("k", "value"), ("z", "")];
        // cmp, the value that holds, the value that does not, whether it holds without the tag.
        for (cmp, yes, no, absent) in [
            ("eq", "value", "Value", false),
            ("neq", "other", "value", true),
            ("sw", "val", "alue", false),
            ("ew", "lue", "valu", false),
            ("ct", "alu", "vlue", false),
        ] {
            let node = |key: &str, val: &str| json!({"key": key, "cmp": cmp, "val": val});
            assert!(matches(node("k", yes), &tag) && !matches(node("k", no), &tag), "{cmp}");
            assert_eq!(matches(node("b", yes), &tag), absent, "{cmp}");
            assert_eq!(matches(node("b", yes), &[]), absent, "{cmp}");
        }
        for (cmp, expected) in [("in", [true, false, false]), ("nin", [false, true, true])] {
            let node = |key: &str, vals: Value| json!({"key": key, "cmp": cmp, "vals": vals});
            let outcomes = [
                matches(node("k", json!(["w", "value", "a", "a"])), &tag),
                matches(node("k", json!(["w", "values"])), &tag),
                matches(node("b", json!(["value"])), &tag),
            ];
            assert_eq!(outcomes, expected, "{cmp}");
        }
        for key in ["a", "k", "z"] {
            assert!(matches(json!({"key": key, "cmp": "ex"}), &tag));
            assert!(!matches(json!({"key": key, "cmp": "nex"}), &tag));
        }
        assert!(!matches(json!({"key": "b", "cmp": "ex"}), &tag));
        assert!(matches(json!({"key": "b", "cmp": "nex"}), &tag));
        assert!(matches(json!({"key": "z", "cmp": "eq"}), &tag), "an empty value is a value");
    }

    #[test]
    fn numbers_are_compared_exactly() {
        let long = "123456789012345678901234567890";
        let ascending = [
            vec!["-123456789012345678901234567891"],
            vec!["-10.5", "-010.50"],
            vec!["-10"],
            vec!["-0.1"],
            vec!["0", "-0", "+0", "0.00", "-00.0"],
            vec!["0.000000000000000000000000000001"],
            vec!["0.1", "0.10", "+0.1"],
            vec!["0.11"],
            vec!["9", "9.0", "0009"],
            vec!["10"],
            vec!["9007199254740992"],
            vec!["9007199254740993"],
            vec![long],
            vec!["123456789012345678901234567890.1"],
        ];
        for (i, smaller) in ascending.iter().enumerate() {
            for (j, larger) in ascending.iter().enumerate() {
                for (tag, val) in smaller.iter().flat_map(|a| larger.iter().map(move |b| (*a, *b))) {
                    for (cmp, expected) in [("lt", i < j), ("lte", i <= j), ("gt", i > j), ("gte", i >= j)] {
                        let node = json!({"key": "n", "cmp": cmp, "val": val});
                        assert_eq!(matches(node, &[("n", tag)]), expected, "{tag} {cmp} {val}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_is_neither_less_nor_more() {
        for text in [
            "", "-", "+", ".", "1.", ".5", "--1", "1e3", "0x10", " 1", "1 ", "1,5", "1.2.3", "NaN", "\u{661}",
        ] {
            for cmp in ["lt", "lte", "gt", "gte"] {
                assert!(!matches(json!({"key": "n", "cmp": cmp, "val": "0"}), &[("n", text)]), "{text:?}");
                assert!(!matches(json!({"key": "n", "cmp": cmp, "val": "0"}), &[]));
                let error = filter(&json!({"key": "n", "cmp": cmp, "val": text})).expect_err(text);
                assert_eq!(error.to_string(), "tf.val is not a decimal number");
            }
        }
    }

    #[test]
    fn operations_join_comparisons() {
        let is = |key: &str| json!({"key": key, "cmp": "ex"});
        let table = [
            (json!({"op": "and", "nodes": [is("a"), is("b")]}), [false, false, false, true]),
            (json!({"op": "or", "nodes": [is("a"), is("b")]}), [false, true, true, true]),
            (json!({"op": "not", "nodes": [is("a")]}), [true, false, true, false]),
            (json!({"op": "and", "nodes": [is("b")]}), [false, false, true, true]),
            (
                json!({"op": "not", "nodes": [{"op": "or", "nodes": [is("a"), {"op": "not", "nodes": [is("b")]}]}]}),
                [false, false, true, false],
            ),
        ];
        for (node, expected) in table {
            let tags: [&[(&str, &str)]; 4] = [&[], &[("a", "")], &[("b", "")], &[("a", ""), ("b", "")]];
            assert_eq!(tags.map(|tags| matches(node.clone(), tags)), expected, "{node}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_said_with_its_place() {
        let leaf = || json!({"key": "k", "cmp": "ex"});
        let table = [
            (json!({}), "tf.key is empty"),
            (json!({"key": "k"}), "tf.cmp is no known comparison"),
            (json!({"key": "k", "cmp": "EQ"}), "tf.cmp is no known comparison"),
            (json!({"cmp": "eq", "val": "v"}), "tf.key is empty"),
            (json!({"key": "k", "cmp": "in"}), "tf.vals is empty"),
            (
                json!({"key": "k", "cmp": "nin", "val": "v"}),
                "tf.val stands beside a cmp that does not take it",
            ),
            (
                json!({"key": "k", "cmp": "ex", "val": "v"}),
                "tf.val stands beside a cmp that does not take it",
            ),
            (
                json!({"key": "k", "cmp": "eq", "vals": ["v"]}),
                "tf.vals stands beside a cmp that does not take it",
            ),
            (json!({"key": "k", "cmp": "eq", "nodes": [leaf()]}), "tf.nodes stands without op"),
            (json!({"op": "xor", "nodes": [leaf()]}), "tf.op is none of and, or, not"),
            (json!({"op": "and"}), "tf.nodes is empty"),
            (json!({"op": "not", "nodes": [leaf(), leaf()]}), "tf.nodes is more than the one that not takes"),
            (
                json!({"op": "or", "key": "k", "nodes": [leaf()]}),
                "tf.key stands beside op, which takes nodes",
            ),
            (
                json!({"op": "and", "nodes": [leaf(), {"op": "or", "nodes": [leaf(), leaf(), {"key": "k", "cmp": "lt"}]}]}),
                "tf.nodes[1].nodes[2].val is not a decimal number",
            ),
        ];
        for (node, expected) in table {
            assert_eq!(filter(&node).expect_err(expected).to_string(), expected, "{node}");
        }
    }

    #[test]
    fn a_filter_has_limits() {
        let nested = |levels: usize| {
            (1..levels)
                .fold(json!({"key": "k", "cmp": "ex"}), |node, _| json!({"op": "not", "nodes": [node]}))
        };
        assert!(filter(&nested(MAX_DEPTH)).is_ok());
        let error = filter(&nested(MAX_DEPTH + 1)).unwrap_err().to_string();
        assert!(error.ends_with("nodes[0] is nested deeper than 16 levels"), "{error}");

        let wide =
            |nodes: usize| json!({"op": "or", "nodes": vec![json!({"key": "k", "cmp": "ex"}); nodes - 1]});
        assert!(filter(&wide(MAX_NODES)).is_ok());
        assert_eq!(filter(&wide(MAX_NODES + 1)).unwrap_err().to_string(), "tf has more than 256 nodes");

        let list = |values: usize| {
            let half = |count: usize| json!({"key": "k", "cmp": "in", "vals": vec!["v"; count]});
            json!({"op": "or", "nodes": [half(values / 2), half(values - values / 2)]})
        };
        assert!(filter(&list(MAX_VALUES)).is_ok());
        assert_eq!(filter(&list(MAX_VALUES + 1)).unwrap_err().to_string(), "tf has more than 1024 values");
    }

    #[test]
    fn a_filter_is_compact() {
        assert_eq!(size_of::<Option<Filter>>(), size_of::<usize>());
        assert!(size_of::<Rule>() <= 40);
    }

    proptest! {
        #[test]
        fn decimals_are_compared_as_their_values(a in any::<i64>(), b in any::<i64>(), places in 0..19u32) {
            let text = |value: i64| {
                let (sign, digits) = (if value < 0 { "-" } else { "" }, format!("{:020}", value.unsigned_abs()));
                let (whole, fraction) = digits.split_at(20 - places as usize);
                if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
            };
            let (text_a, text_b) = (text(a), text(b));
            let order = Decimal::parse(&text_a).unwrap().cmp(&Decimal::parse(&text_b).unwrap());
            prop_assert_eq!(order, a.cmp(&b));
        }

        #[test]
        fn not_is_the_opposite_of_every_filter(
            cmp in prop::sample::select(vec!["eq", "neq", "sw", "ew", "ct", "lt", "lte", "gt", "gte"]),
            val in "[0-9]{1,3}",
            tag in prop::option::of("[0-9.a]{0,4}"),
        ) {
            let node = json!({"key": "k", "cmp": cmp, "val": val});
            let tags: Vec<(&str, &str)> = tag.iter().map(|tag| ("k", tag.as_str())).collect();
            let opposite = matches(json!({"op": "not", "nodes": [node.clone()]}), &tags);
            prop_assert_eq!(opposite, !matches(node, &tags));
        }
    }
}
