//! Promises of `selector`.
//!
//! Text, whatever it is, is refused with its place or is a selector that judges any message. A condition that is made
//! of the data as a tree is written as text, with all its parentheses, and judged as a second implementation does that
//! knows nothing of the first: it goes down the tree, goes back in patterns, and counts in `f64` alone.

use crate::input::Input;
use bytes::Bytes;
use longwire_protocol::queue::{Headers, Message};
use longwire_protocol::selector::{MAX_TEXT_BYTES, Selector};
use std::collections::BTreeMap;

/// Takes the data as a selector, then as what to make a condition and a message of.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let headers = headers(&mut input);
    if let Ok(text) = std::str::from_utf8(data) {
        match Selector::parse(text) {
            Ok(selector) => {
                assert!(text.len() <= MAX_TEXT_BYTES);
                let message = message(&headers);
                let is_wanted = selector.matches(&message);
                assert_eq!(is_wanted, selector.matches(&message), "{text:?}");
                if let Ok(opposite) = Selector::parse(&format!("NOT ({text}\n)")) {
                    assert!(!(is_wanted && opposite.matches(&message)), "{text:?}");
                }
            }
            Err(error) => assert!(text.is_char_boundary(error.at) && !error.what.is_empty(), "{error}"),
        }
    }
    let condition = condition(&mut input, 0);
    let mut text = String::new();
    condition.write(&mut text);
    if text.len() > MAX_TEXT_BYTES {
        assert!(Selector::parse(&text).is_err());
        return;
    }
    let selector = Selector::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(
        selector.matches(&message(&headers)),
        condition.holds(&headers) == Some(true),
        "{text} {headers:?}"
    );
}

type Tags = BTreeMap<&'static str, String>;

fn headers(input: &mut Input<'_>) -> Tags {
    (0..input.byte() % 4).map(|_| (name(input), words(input))).collect()
}

fn message(headers: &Tags) -> Message {
    Message {
        id: "m-1".into(),
        queue: "q".into(),
        headers: Headers::of(headers.iter().map(|(name, value)| (*name, value.as_str()))),
        body: Bytes::new(),
        priority: 4,
        is_persistent: false,
        expires: 0,
        sent_at: 0,
    }
}

fn name(input: &mut Input<'_>) -> &'static str {
    input.choose(&["a", "b", "c", "content-type"])
}

fn words(input: &mut Input<'_>) -> String {
    input
        .choose(&["", "x", "xx", "xyx", "it's", "5", "-5", "5.0", "0.5", "12", "true", "FALSE", "a%b_"])
        .to_owned()
}

fn number(input: &mut Input<'_>) -> f64 {
    // Exact in either arithmetic, and so is what three operations make of them.
    f64::from(input.byte() as i8) / input.choose(&[1.0, 2.0, 4.0])
}

enum Condition {
    Truth(bool),
    Header(&'static str),
    Compare(Side, &'static str, Side),
    Between(Side, Side, Side),
    In(&'static str, Vec<String>),
    Like(&'static str, String),
    IsNull(&'static str),
    Not(Box<Condition>),
    Both(Box<Condition>, Box<Condition>),
    Either(Box<Condition>, Box<Condition>),
}

enum Side {
    Header(&'static str),
    Text(String),
    Number(f64),
    Calculated(Box<Side>, char, Box<Side>),
}

fn condition(input: &mut Input<'_>, depth: usize) -> Condition {
    let deeper = |input: &mut Input<'_>| Box::new(condition(input, depth + 1));
    match input.byte() % 12 {
        1 => Condition::Header(name(input)),
        2 => Condition::Between(side(input, 0), side(input, 0), side(input, 0)),
        3 => Condition::In(name(input), (0..=input.byte() % 3).map(|_| words(input)).collect()),
        4 => Condition::Like(
            name(input),
            input.choose(&["", "%", "x%", "%x", "_", "x_x", "%x%y%", "%%", "5%"]).to_owned(),
        ),
        5 => Condition::IsNull(name(input)),
        6 if depth < 6 => Condition::Not(deeper(input)),
        7 | 8 if depth < 6 => Condition::Both(deeper(input), deeper(input)),
        9 | 10 if depth < 6 => Condition::Either(deeper(input), deeper(input)),
        11 => Condition::Truth(input.flag()),
        _ => {
            let sign = input.choose(&["=", "<>", "<", "<=", ">", ">="]);
            Condition::Compare(side(input, 0), sign, side(input, 0))
        }
    }
}

fn side(input: &mut Input<'_>, depth: usize) -> Side {
    match input.byte() % 6 {
        1 | 2 => Side::Number(number(input)),
        3 if depth == 0 => Side::Text(words(input)),
        4 | 5 if depth < 2 => {
            let sign = input.choose(&['+', '-', '*']);
            Side::Calculated(Box::new(side(input, depth + 1)), sign, Box::new(side(input, depth + 1)))
        }
        _ => Side::Header(name(input)),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Side {
    fn write(&self, out: &mut String) {
        match self {
            Side::Header(name) => *out += &format!("\"{name}\""),
            Side::Text(text) => *out += &quoted(text),
            // `{:?}` of an f64 always has a point: a whole number's own arithmetic is for the unit tests.
            Side::Number(number) => *out += &format!("{number:?}"),
            Side::Calculated(a, sign, b) => {
                out.push('(');
                a.write(out);
                *out += &format!(" {sign} ");
                b.write(out);
                out.push(')');
            }
        }
    }

    fn value(&self, headers: &Tags) -> Option<Value> {
        Some(match self {
            Side::Header(name) => Value {
                text: Some(headers.get(name)?.clone()),
                number: looks(headers.get(name)?),
                is_header: true,
            },
            Side::Text(text) => Value { text: Some(text.clone()), number: None, is_header: false },
            Side::Number(number) => Value { text: None, number: Some(*number), is_header: false },
            Side::Calculated(a, sign, b) => {
                let (a, b) = (a.value(headers)?.number?, b.value(headers)?.number?);
                let result = match sign {
                    '+' => a + b,
                    '-' => a - b,
                    _ => a * b,
                };
                Value { text: None, number: Some(result), is_header: false }
            }
        })
    }
}

/// A value as whatever it may be taken for.
struct Value {
    text: Option<String>,
    number: Option<f64>,
    is_header: bool,
}

fn looks(text: &str) -> Option<f64> {
    text.parse().ok()
}

fn compare(a: Option<Value>, sign: &str, b: Option<Value>) -> Option<bool> {
    let (a, b) = (a?, b?);
    let order = match (&a, &b) {
        (Value { number: Some(x), .. }, Value { number: Some(y), .. }) => x.partial_cmp(y),
        _ => match (&a.text, &b.text) {
            (Some(x), Some(y)) => Some(x.cmp(y)),
            _ => None,
        },
    };
    // A text that is no header's is never a number.
    let is_literal = |value: &Value| !value.is_header && value.text.is_some();
    let order = match (&a.text, &b.text) {
        (Some(x), Some(y)) if is_literal(&a) || is_literal(&b) => Some(x.cmp(y)),
        _ => order,
    };
    Some(order.is_some_and(|order| match sign {
        "=" => order.is_eq(),
        "<>" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }))
}

fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        ([b'%', rest @ ..], text) => (0..=text.len()).any(|taken| is_like(rest, &text[taken..])),
        ([b'_', rest @ ..], [_, text @ ..]) => is_like(rest, text),
        ([char, rest @ ..], [first, text @ ..]) => char == first && is_like(rest, text),
        (_, []) => false,
    }
}

impl Condition {
    fn write(&self, out: &mut String) {
        let two = |out: &mut String, a: &Condition, joint: &str, b: &Condition| {
            out.push('(');
            a.write(out);
            *out += joint;
            b.write(out);
            out.push(')');
        };
        match self {
            Condition::Truth(truth) => *out += if *truth { "TRUE" } else { "false" },
            Condition::Header(name) => *out += &format!("\"{name}\""),
            Condition::Compare(a, sign, b) => {
                a.write(out);
                *out += sign;
                b.write(out);
            }
            Condition::Between(value, lowest, highest) => {
                value.write(out);
                *out += " BETWEEN ";
                lowest.write(out);
                *out += " and ";
                highest.write(out);
            }
            Condition::In(name, list) => {
                let list: Vec<String> = list.iter().map(|text| quoted(text)).collect();
                *out += &format!("\"{name}\" IN ({})", list.join(","));
            }
            Condition::Like(name, pattern) => *out += &format!("\"{name}\" LIKE {}", quoted(pattern)),
            Condition::IsNull(name) => *out += &format!("\"{name}\" IS NULL"),
            Condition::Not(inner) => {
                *out += "NOT (";
                inner.write(out);
                out.push(')');
            }
            Condition::Both(a, b) => two(out, a, " AND ", b),
            Condition::Either(a, b) => two(out, a, " OR ", b),
        }
    }

    fn holds(&self, headers: &Tags) -> Option<bool> {
        match self {
            Condition::Truth(truth) => Some(*truth),
            Condition::Header(name) => match &*headers.get(name)?.to_lowercase() {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
            Condition::Compare(a, sign, b) => compare(a.value(headers), sign, b.value(headers)),
            Condition::Between(value, lowest, highest) => {
                let low = compare(value.value(headers), ">=", lowest.value(headers));
                let high = compare(value.value(headers), "<=", highest.value(headers));
                both(low, high)
            }
            Condition::In(name, list) => headers.get(name).map(|value| list.contains(value)),
            Condition::Like(name, pattern) => {
                headers.get(name).map(|value| is_like(pattern.as_bytes(), value.as_bytes()))
            }
            Condition::IsNull(name) => Some(!headers.contains_key(name)),
            Condition::Not(inner) => inner.holds(headers).map(|holds| !holds),
            Condition::Both(a, b) => both(a.holds(headers), b.holds(headers)),
            Condition::Either(a, b) => match (a.holds(headers), b.holds(headers)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }
}

fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}
