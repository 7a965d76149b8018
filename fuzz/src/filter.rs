//! Promises of `filter`.
//!
//! A filter, as JSON or made of the data, is refused with its place or judges tags as a second implementation
//! does that knows nothing of the first: it asks the tree as it came, and compares numbers as padded text.

use crate::input::Input;
use longwire_protocol::filter::{Filter, MAX_DEPTH, Node};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Takes the data as JSON, then as what to make a filter and tags of.
pub fn run(data: &[u8]) {
    if let Ok(node) = serde_json::from_slice::<Node>(data) {
        judge(&node, &[BTreeMap::new(), tags(&mut Input::new(data))]);
    }
    let mut input = Input::new(data);
    let node = node(&mut input, 0);
    judge(&node, &[tags(&mut input), tags(&mut input), BTreeMap::new()]);
}

type Tags = BTreeMap<String, String>;

fn tags(input: &mut Input<'_>) -> Tags {
    (0..input.byte() % 5).map(|_| (key(input), value(input))).collect()
}

fn key(input: &mut Input<'_>) -> String {
    input.choose(&["a", "b", "c", ""]).to_owned()
}

fn value(input: &mut Input<'_>) -> String {
    match input.byte() % 4 {
        0 => input.text(6),
        1 => format!("{}.{}", input.byte() as i8, input.byte()),
        2 => format!("-000{}0", input.number()),
        _ => input
            .choose(&["", "a", "ab", "b", "0", "-0", "+1", "1.", "1.50", "18446744073709551616"])
            .to_owned(),
    }
}

fn node(input: &mut Input<'_>, depth: usize) -> Node {
    // A byte of zero, which is what comes when nothing is left, is a comparison.
    let op = match input.byte() % 8 {
        1 | 2 if depth <= MAX_DEPTH => "and",
        3 | 4 if depth <= MAX_DEPTH => "or",
        5 | 6 if depth <= MAX_DEPTH => "not",
        7 => return Node { op: input.text(3), key: input.text(3), cmp: input.text(3), ..Node::default() },
        _ => {
            let cmp = input
                .choose(&["eq", "neq", "in", "nin", "ex", "nex", "sw", "ew", "ct", "lt", "lte", "gt", "gte"]);
            let (takes_list, takes_none) = (matches!(cmp, "in" | "nin"), matches!(cmp, "ex" | "nex"));
            return Node {
                key: key(input),
                cmp: cmp.to_owned(),
                val: if takes_list || takes_none { String::new() } else { value(input) },
                vals: if takes_list {
                    (0..input.byte() % 4).map(|_| value(input)).collect()
                } else {
                    Vec::new()
                },
                ..Node::default()
            };
        }
    };
    let count = if op == "not" { 1 } else { input.byte() % 4 };
    let nodes = (0..count).map(|_| node(input, depth + 1)).collect();
    Node { op: op.to_owned(), nodes, ..Node::default() }
}

fn judge(node: &Node, publications: &[Tags]) {
    let opposite = Node { op: "not".to_owned(), nodes: vec![node.clone()], ..Node::default() };
    let opposite = Filter::new(&opposite);
    let filter = match Filter::new(node) {
        Ok(filter) => filter,
        Err(error) => {
            assert!(error.place.starts_with("tf") && !error.what.is_empty(), "{error}");
            assert!(opposite.is_err());
            return;
        }
    };
    for tags in publications {
        let sorted: Vec<(String, String)> = tags.clone().into_iter().collect();
        let matches = filter.matches(&sorted);
        assert_eq!(matches, holds(node, tags), "{node:?} {tags:?}");
        // One level or one node more may be one too many.
        assert!(
            opposite.as_ref().is_ok_and(|opposite| opposite.matches(&sorted) != matches) || opposite.is_err()
        );
    }
}

fn holds(node: &Node, tags: &Tags) -> bool {
    let mut inner = node.nodes.iter().map(|node| holds(node, tags));
    let tag = tags.get(&node.key);
    let is = |test: &dyn Fn(&str) -> bool| tag.is_some_and(|tag| test(tag));
    let order =
        |wanted: &[Ordering]| is(&|tag| compare(tag, &node.val).is_some_and(|order| wanted.contains(&order)));
    match (&*node.op, &*node.cmp) {
        ("and", _) => inner.all(|holds| holds),
        ("or", _) => inner.any(|holds| holds),
        ("not", _) => !inner.all(|holds| holds),
        (_, "eq") => is(&|tag| tag == node.val),
        (_, "neq") => !is(&|tag| tag == node.val),
        (_, "in") => is(&|tag| node.vals.iter().any(|val| val == tag)),
        (_, "nin") => !is(&|tag| node.vals.iter().any(|val| val == tag)),
        (_, "ex") => tag.is_some(),
        (_, "nex") => tag.is_none(),
        (_, "sw") => is(&|tag| tag.starts_with(&node.val)),
        (_, "ew") => is(&|tag| tag.ends_with(&node.val)),
        (_, "ct") => is(&|tag| tag.contains(&node.val)),
        (_, "lt") => order(&[Ordering::Less]),
        (_, "lte") => order(&[Ordering::Less, Ordering::Equal]),
        (_, "gt") => order(&[Ordering::Greater]),
        (_, "gte") => order(&[Ordering::Greater, Ordering::Equal]),
        (op, cmp) => panic!("{op:?} {cmp:?} passed"),
    }
}

/// Compares two decimal numbers as text, padded to one length on both sides of the point.
fn compare(a: &str, b: &str) -> Option<Ordering> {
    let parts = |text: &str| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text).to_owned();
        let (whole, fraction) = match digits.split_once('.') {
            Some((whole, fraction)) => (whole.to_owned(), fraction.to_owned()),
            None => (digits, "0".to_owned()),
        };
        let are_digits = |text: &String| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        (are_digits(&whole) && are_digits(&fraction)).then_some((text.starts_with('-'), whole, fraction))
    };
    let ((minus_a, whole_a, fraction_a), (minus_b, whole_b, fraction_b)) = (parts(a)?, parts(b)?);
    let width = whole_a.len().max(whole_b.len());
    let places = fraction_a.len().max(fraction_b.len());
    let padded = |whole: &str, fraction: &str| format!("{whole:0>width$}{fraction:0<places$}");
    let (a, b) = (padded(&whole_a, &fraction_a), padded(&whole_b, &fraction_b));
    let is_zero = |text: &str| text.chars().all(|c| c == '0');
    Some(match (minus_a && !is_zero(&a), minus_b && !is_zero(&b)) {
        (false, false) => a.cmp(&b),
        (true, true) => b.cmp(&a),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    })
}
