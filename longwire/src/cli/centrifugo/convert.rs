//! How the value of one of Centrifugo's options becomes a value of longwire's.
//!
//! Called by `mapping` and `rules`; it knows no option by name. Centrifugo reads leniently (a number in quotes
//! is a number), and so does this. What must stay true: an error says what the value must be and does not
//! repeat the value, which may be a secret.

use super::input::{Node, Value};
use crate::config::format_duration;
use std::time::Duration;

/// What kind of value an option has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// `true` or `false`.
    Flag,
    /// `true` or `false`, where longwire's setting says the opposite.
    Inverse,
    /// A number from 0.
    Count,
    /// A number from 1; 0 means that it is not set.
    Limit,
    /// A span of time.
    Span,
    /// A span of time; 0 means that it is not set.
    Timeout,
    /// Text; empty means that it is not set.
    Text,
    /// Text that nobody may read.
    Secret,
    /// A list of texts.
    Texts,
    /// Header names with values, as a table or as a list of `key` and `value`; nobody may read the values.
    Headers,
    /// What a status of the backend's answer means to the client.
    Transforms,
}

impl Form {
    /// Whether values of this form must not be shown.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Form::Secret | Form::Headers)
    }
}

/// The value for longwire; `None` if the option is not set in effect.
pub(super) fn convert(form: Form, node: &Node) -> Result<Option<toml::Value>, String> {
    if matches!(node.value, Value::Null) {
        return Ok(None);
    }
    Ok(match form {
        // No flag that has a counterpart is on by itself.
        Form::Flag => flag(node)?.then_some(toml::Value::Boolean(true)),
        Form::Inverse => flag(node)?.then_some(toml::Value::Boolean(false)),
        Form::Count => Some(toml::Value::Integer(count(node)?)),
        Form::Limit => Some(count(node)?).filter(|count| *count > 0).map(toml::Value::Integer),
        Form::Span => Some(span_value(span(node)?.unwrap_or_default())),
        Form::Timeout => span(node)?.filter(|span| !span.is_zero()).map(span_value),
        Form::Text | Form::Secret => {
            Some(text(node)?).filter(|text| !text.is_empty()).map(toml::Value::String)
        }
        Form::Texts => not_empty(texts(node)?),
        Form::Headers => not_empty(headers(node)?),
        Form::Transforms => not_empty(node.items().iter().map(transform).collect::<Result<_, _>>()?),
    })
}

fn not_empty(texts: Vec<String>) -> Option<toml::Value> {
    (!texts.is_empty()).then(|| toml::Value::Array(texts.into_iter().map(toml::Value::String).collect()))
}

/// A duration as longwire's file has it.
pub(super) fn span_value(span: Duration) -> toml::Value {
    toml::Value::String(format_duration(span))
}

/// `true` or `false`.
pub(super) fn flag(node: &Node) -> Result<bool, String> {
    match node.plain().as_deref() {
        Some("true" | "TRUE" | "True" | "t" | "T" | "1") => Ok(true),
        Some("false" | "FALSE" | "False" | "f" | "F" | "0" | "") => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// A number from 0.
pub(super) fn count(node: &Node) -> Result<i64, String> {
    let plain = node.plain().unwrap_or_else(|| "none".to_owned());
    plain.parse().ok().filter(|count| *count >= 0).ok_or_else(|| "must be a number from 0".to_owned())
}

/// Text; a number or a flag is its own text.
pub(super) fn text(node: &Node) -> Result<String, String> {
    node.plain().ok_or_else(|| "must be text".to_owned())
}

/// A list of texts; one text alone is a list of one.
pub(super) fn texts(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::List(items) => items.iter().map(text).collect::<Result<_, _>>(),
        Value::Text(text) if text.is_empty() => Ok(Vec::new()),
        Value::Text(text) => Ok(vec![text.clone()]),
        _ => Err("is no list".to_owned()),
    }
    .map_err(|_| "must be a list of texts".to_owned())
}

fn headers(node: &Node) -> Result<Vec<String>, String> {
    let wrong = || "must be a table of header names and texts, or a list of `key` and `value`".to_owned();
    match &node.value {
        Value::Table(table) => table
            .iter()
            .map(|(name, value)| Ok(format!("{name}: {}", value.plain().ok_or_else(wrong)?)))
            .collect(),
        Value::List(items) => items
            .iter()
            .map(|item| {
                let part = |key: &str| item.get(key).and_then(Node::plain);
                Ok(format!("{}: {}", part("key").ok_or_else(wrong)?, part("value").unwrap_or_default()))
            })
            .collect(),
        _ => Err(wrong()),
    }
}

/// `404 error 404 not found`, `401 disconnect 4501 unauthorized`.
fn transform(node: &Node) -> Result<String, String> {
    let wrong = "each must have a `status_code`, and a `to_error` or a `to_disconnect` with its `code`";
    let number = |path: &str| node.get(path).and_then(|node| count(node).ok()).filter(|count| *count > 0);
    let words = |path: &str| node.get(path).and_then(Node::plain).unwrap_or_default();
    let status = number("status_code").ok_or(wrong)?;
    // The order in which Centrifugo looks at them.
    let line = match (number("to_disconnect.code"), number("to_error.code")) {
        (Some(code), _) => format!("{status} disconnect {code} {}", words("to_disconnect.reason")),
        (None, Some(code)) => {
            let is_temporary = node.get("to_error.temporary").is_some_and(Node::is_true);
            let temporary = if is_temporary { "temporary " } else { "" };
            format!("{status} error {code} {temporary}{}", words("to_error.message"))
        }
        (None, None) => return Err(wrong.to_owned()),
    };
    Ok(line.trim_end().to_owned())
}

/// A span of time: text such as `1h30m` or `1.5s`, or a number of nanoseconds. `None` if it is negative.
pub(super) fn span(node: &Node) -> Result<Option<Duration>, String> {
    let wrong = || "must be a duration such as \"25s\", \"300ms\" or \"1h30m\"".to_owned();
    let nanos = match &node.value {
        Value::Number(text) => text.parse::<i64>().ok().map(i128::from),
        Value::Text(text) if text.is_empty() => Some(0),
        Value::Text(text) => parse_span(text),
        _ => None,
    };
    let nanos = nanos.ok_or_else(wrong)?;
    // longwire counts in milliseconds; less than one is still not nothing.
    Ok(u64::try_from(nanos).ok().map(|nanos| Duration::from_millis(nanos.div_ceil(1_000_000))))
}

/// The nanoseconds of a duration as the Go language writes it; a year's worth of digits at most.
fn parse_span(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (whole, fraction) = rest[..digits].split_once('.').unwrap_or((&rest[..digits], ""));
        if (whole.is_empty() && fraction.is_empty()) || whole.len() > 15 || fraction.contains('.') {
            return None;
        }
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit: i128 = match &rest[..letters] {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        rest = &rest[letters..];
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total += whole * unit;
        let mut share = unit;
        for digit in fraction.chars().take(15) {
            share /= 10;
            total += i128::from(digit.to_digit(10)?) * share;
        }
    }
    Some(sign * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: Value) -> Node {
        Node { at: 0, value }
    }

    fn text_node(text: &str) -> Node {
        node(Value::Text(text.to_owned()))
    }

    #[test]
    fn a_duration_is_read_as_go_reads_it() {
        for (text, ms) in [
            ("25s", 25_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            (".5s", 500),
            ("300ms", 300),
            ("10us", 1),
            ("720h", 2_592_000_000),
            ("0", 0),
            ("", 0),
        ] {
            assert_eq!(span(&text_node(text)), Ok(Some(Duration::from_millis(ms))), "{text}");
        }
        assert_eq!(span(&text_node("-1s")), Ok(None));
        assert_eq!(span(&node(Value::Number("-1".into()))), Ok(None));
        assert_eq!(span(&node(Value::Number("2000000000".into()))), Ok(Some(Duration::from_secs(2))));
        for bad in ["25", "1d", "s", "1.2.3s", "1 s", "9999999999999999s", "."] {
            assert!(span(&text_node(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_in_quotes_are_what_they_look_like() {
        assert_eq!(convert(Form::Count, &text_node("8000")), Ok(Some(toml::Value::Integer(8000))));
        assert_eq!(convert(Form::Flag, &text_node("true")), Ok(Some(toml::Value::Boolean(true))));
        assert_eq!(convert(Form::Limit, &node(Value::Number("0".into()))), Ok(None));
        assert_eq!(convert(Form::Text, &text_node("")), Ok(None));
        assert_eq!(convert(Form::Inverse, &text_node("true")), Ok(Some(toml::Value::Boolean(false))));
        assert_eq!(convert(Form::Inverse, &text_node("false")), Ok(None));
        for form in [Form::Flag, Form::Inverse, Form::Count, Form::Span, Form::Headers] {
            let problem = convert(form, &text_node("hunter2")).expect_err("it is refused");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn a_status_becomes_one_line() {
        let table = |entries: Vec<(&str, Value)>| {
            node(Value::Table(entries.into_iter().map(|(k, value)| (k.to_owned(), node(value))).collect()))
        };
        let number = |text: &str| Value::Number(text.to_owned());
        let error = table(vec![("code", number("503")), ("message", Value::Text("come again".into()))]);
        let temporary = table(vec![("code", number("503")), ("temporary", Value::Flag(true))]);
        let end = table(vec![("code", number("4501")), ("reason", Value::Text("unauthorized".into()))]);
        for (key, to, expected) in [
            ("to_error", error, "401 error 503 come again"),
            ("to_error", temporary, "401 error 503 temporary"),
            ("to_disconnect", end, "401 disconnect 4501 unauthorized"),
        ] {
            let line = transform(&table(vec![("status_code", number("401")), (key, to.value)]));
            assert_eq!(line.as_deref(), Ok(expected));
        }
        assert!(transform(&table(vec![("status_code", number("401"))])).is_err());
    }

    #[test]
    fn headers_are_a_table_or_a_list() {
        let table = |entries: &[(&str, &str)]| {
            node(Value::Table(entries.iter().map(|(k, v)| (k.to_string(), text_node(v))).collect()))
        };
        let list = node(Value::List(vec![table(&[("key", "X-A"), ("value", "1")])]));
        for (given, expected) in [(table(&[("x-a", "1")]), "x-a: 1"), (list, "X-A: 1")] {
            let value = convert(Form::Headers, &given).expect("headers");
            assert_eq!(value, Some(toml::Value::Array(vec![toml::Value::String(expected.into())])));
        }
    }
}
