//! What selectors want, and what is none.

use super::*;
use crate::queue::Headers;
use bytes::Bytes;
use proptest::prelude::*;

fn message(headers: &[(&str, &str)]) -> Message {
    Message {
        id: "m-7".into(),
        queue: "q".into(),
        headers: Headers::of(headers.iter().copied()),
        body: Bytes::new(),
        priority: 4,
        is_persistent: true,
        expires: 0,
        sent_at: 1_700_000_000_000,
    }
}

fn example() -> Message {
    message(&[
        ("color", "red"),
        ("weight", "2500"),
        ("price", "9.90"),
        ("urgent", "TRUE"),
        ("content-type", "text/plain"),
        ("correlation-id", "c:1"),
        ("empty", ""),
    ])
}

#[track_caller]
fn wants(selector: &str) -> bool {
    let parsed = Selector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
    parsed.matches(&example())
}

#[track_caller]
fn all_want(selectors: &[&str]) {
    for selector in selectors {
        assert!(wants(selector), "{selector}");
        assert!(!wants(&format!("NOT ({selector})")), "NOT ({selector})");
    }
}

#[track_caller]
fn is_unknown(selectors: &[&str]) {
    for selector in selectors {
        assert!(!wants(selector) && !wants(&format!("NOT ({selector})")), "{selector}");
    }
}

#[test]
fn headers_are_compared_as_text_or_as_numbers() {
    all_want(&[
        "color = 'red'",
        "color <> 'blue'",
        "color < 'rex'",
        "weight = 2500",
        "weight = 2500.0",
        "weight = '2500'",
        "weight <> '2500.0'",
        "weight > 300",
        "price <= 9.9",
        "price * 2 = 19.8",
        "weight > price",
        "urgent",
        "urgent = TRUE",
        "urgent <> false",
        "empty = ''",
        "empty IS NOT NULL",
    ]);
}

#[test]
fn values_of_different_kinds_are_neither_equal_nor_unequal() {
    for selector in ["color = 5", "color <> 5", "color > 5", "'5' = 5", "weight = TRUE", "'true' = TRUE"] {
        assert!(!wants(selector), "{selector}");
        assert!(wants(&format!("NOT {selector}")), "{selector}");
    }
}

#[test]
fn what_a_missing_header_would_decide_is_unknown() {
    is_unknown(&[
        "missing = 'x'",
        "missing <> 'x'",
        "missing = missing",
        "missing BETWEEN 1 AND 2",
        "missing IN ('x')",
        "missing LIKE '%'",
        "missing + 1 > 0",
        "missing",
        "missing AND TRUE",
        "missing OR FALSE",
        "color",
        "color + 1 > 0",
        "weight / 0 > 0",
    ]);
    all_want(&[
        "missing OR TRUE",
        "NOT (missing AND FALSE)",
        "missing IS NULL",
        "missing = 1 OR color = 'red'",
        "NOT (missing IS NOT NULL)",
        "weight BETWEEN 1 AND 3000 AND NOT (weight BETWEEN 1 AND 2) OR missing",
        "NOT (weight BETWEEN 9000 AND missing)",
    ]);
}

#[test]
fn all_of_the_language_is_there() {
    all_want(&[
        "color = 'red' and Not color = 'blue' oR FALSE",
        "color IN ('blue', 'red')",
        "color NOT IN ('blue')",
        "weight IN (-1, +2500, 'x')",
        "weight BETWEEN 2500 AND 2500",
        "weight NOT BETWEEN 1 AND 2499",
        "price BETWEEN 9 AND 10 AND color = 'red'",
        "color LIKE 'r_d'",
        "color NOT LIKE 'r'",
        "'100%' LIKE '100!%' ESCAPE '!'",
        "\"content-type\" LIKE 'text/%'",
        "1 + 2 * 3 - 4 / 2 = 5",
        "-weight = - 2500",
        "(1 + 2) * 3 = 9",
        "7 / 2 = 3 AND 7 / 2. = 3.5 AND 7E0 = 7",
        "'it''s' = 'it''s'",
        "TRUE",
    ]);
    // OR binds less than AND, and that less than NOT.
    assert!(wants("TRUE OR FALSE AND FALSE") && !wants("NOT TRUE OR FALSE") && !wants("NOT FALSE AND FALSE"));
}

#[test]
fn fields_of_the_message_have_the_names_of_jms_and_of_stomp() {
    all_want(&[
        "JMSPriority = 4",
        "priority < 5",
        "JMSMessageID = 'm-7'",
        "JMSTimestamp > 1699999999999",
        "JMSDeliveryMode = 'PERSISTENT'",
        "persistent",
        "JMSCorrelationID = 'c:1'",
        "JMSExpiration = 0",
        "JMSType IS NULL",
    ]);
}

#[test]
fn activemqs_prefixes_are_understood() {
    for selector in [
        "hyphenated_props:content-type = 'text/plain'",
        "convert_string_expressions:weight > 300",
        "convert_string_expressions:hyphenated_props:correlation-id = 'c:1' AND 5 - 3 = 2",
    ] {
        assert!(wants(selector), "{selector}");
    }
    assert!(!wants("content-type = 'text/plain'"), "a difference, without the prefix");
}

#[test]
fn what_is_no_condition_is_refused_with_its_place() {
    for (selector, at, what) in [
        ("", 0, "missing"),
        ("a =", 3, "missing"),
        ("a = 1 b", 6, "more than one"),
        ("a = b = c", 6, "more than one"),
        ("5", 0, "no condition"),
        ("'text'", 0, "no condition"),
        ("NOT 5", 4, "where a condition"),
        ("a AND 'x'", 6, "where a condition"),
        ("'x' OR a", 0, "where a condition"),
        ("a + 'x' = 1", 4, "no number"),
        ("- 'x' = 1", 2, "no number"),
        ("(a = 1", 6, "not closed"),
        ("a = 'x", 4, "does not end"),
        ("a = 1x", 4, "begins like a number"),
        ("a = .", 4, "begins like a number"),
        ("a = 1e999", 4, "begins like a number"),
        ("a ! b", 2, "begins so"),
        ("a IS 5", 5, "follows IS"),
        ("a NOT 5", 6, "behind a value"),
        ("a IN 5", 5, "parentheses"),
        ("a IN ()", 6, "text and numbers"),
        ("a IN ('x' 'y')", 10, "comma"),
        ("a IN (-'x')", 7, "text and numbers"),
        ("a LIKE b", 7, "needs a text"),
        ("a LIKE 'x!y' ESCAPE '!'", 7, "behind the escape"),
        ("a LIKE 'x' ESCAPE 'ab'", 18, "one character"),
        ("(a = 1) LIKE 'x'", 0, "no IN or LIKE"),
        ("a BETWEEN 1 OR 2", 12, "second bound"),
        ("AND", 0, "needed"),
    ] {
        let error = Selector::parse(selector).expect_err(selector);
        assert!(error.at == at && error.what.contains(what), "{selector}: {error}");
    }
}

#[test]
fn a_selector_is_bounded_in_length_and_depth() {
    let nested = |depth: usize| format!("{}TRUE{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Selector::parse(&nested(MAX_DEPTH)).is_ok());
    assert!(Selector::parse(&nested(MAX_DEPTH + 1)).expect_err("too deep").what.contains("32 deep"));
    for (before, after) in [("NOT ", "TRUE"), ("-", "1 = 1")] {
        assert!(Selector::parse(&(before.repeat(MAX_DEPTH) + after)).is_ok());
        assert!(Selector::parse(&(before.repeat(MAX_DEPTH + 1) + after)).is_err());
    }
    let padded = |length: usize| format!("{:length$}", "TRUE");
    assert!(Selector::parse(&padded(MAX_TEXT_BYTES)).is_ok());
    assert!(Selector::parse(&padded(MAX_TEXT_BYTES + 1)).is_err());
    // What is only long nests nothing.
    let long = format!("a{} = 1", "+a".repeat(500));
    assert!(!Selector::parse(&long).unwrap().matches(&example()));
    assert!(Selector::parse(&format!("TRUE{}", " OR a".repeat(200))).unwrap().matches(&example()));
}

proptest! {
    #[test]
    fn nothing_that_a_consumer_says_panics(text in any::<String>()) {
        if let Ok(selector) = Selector::parse(&text) {
            selector.matches(&example());
        }
    }

    #[test]
    fn words_in_any_order_are_judged(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "a", "weight", "'x'", "1", ".5", "(", ")", ",", "=", "<>", "<", "+", "-", "*", "/", "AND", "OR", "NOT",
            "BETWEEN", "IN", "LIKE", "ESCAPE", "IS", "NULL", "TRUE",
        ]),
        0..20,
    )) {
        let text = words.join(" ");
        match Selector::parse(&text) {
            Ok(selector) => drop(selector.matches(&example())),
            Err(error) => prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at)),
        }
    }
}
