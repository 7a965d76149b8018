//! Selectors: which messages of a queue a consumer wants, in the part of SQL-92 that JMS has.
//!
//! A [`Selector`] is read once, when the consumer comes (`parse`), into a list of steps for a stack, so that neither
//! asking it nor dropping it recurses; the queue asks it for every message that it could give to the consumer. Names are
//! the message's headers, or fields of it (`JMSPriority`, `JMSMessageID` and their like). Headers are text; one that
//! looks like a number is one where it meets a number, one that says `true` or `false` is that where a condition is
//! wanted. Logic has three values: what a missing header would decide is unknown, and an unknown message is not wanted.
//!
//! What must stay true: text, depth and steps are bounded; the time for one message grows with the sizes of its
//! headers and of the selector, never with their product in characters (`like`); nothing a consumer or a message
//! says panics.

mod like;
mod number;
mod parse;

use crate::queue::Message;
use like::Pattern;
use number::Number;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Bytes that a selector may have.
pub const MAX_TEXT_BYTES: usize = 1024;

/// How deeply parentheses, `NOT` and signs may be nested.
pub const MAX_DEPTH: usize = 32;

/// Which messages a consumer wants.
#[derive(Clone, PartialEq, Debug)]
pub struct Selector {
    steps: Box<[Step]>,
    /// The headers that are looked at, and the place of each one's value.
    headers: BTreeMap<Box<str>, usize>,
}

/// Why a selector cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct SelectorError {
    /// Bytes of the selector before the place.
    pub at: usize,
    /// What is wrong there; never text of the client's.
    pub what: &'static str,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    ///
    /// If it is too long or too deep, or no condition of the language.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        parse::selector(text)
    }

    /// Whether the message is wanted: the condition is true, not only unknown.
    pub fn matches(&self, message: &Message) -> bool {
        let mut headers: Vec<Option<Cow<'_, str>>> = vec![None; self.headers.len()];
        if !headers.is_empty() {
            for (name, value) in message.headers.iter() {
                if let Some(place) = self.headers.get(&*name) {
                    headers[*place].get_or_insert(value);
                }
            }
        }
        let mut stack: Vec<Value<'_>> = Vec::new();
        for step in &self.steps {
            step.run(&mut stack, &headers, message);
        }
        stack.pop().and_then(Value::truth) == Some(true)
    }
}

/// One step of a selector: takes its operands from the stack and leaves its value there.
#[derive(Clone, PartialEq, Debug)]
enum Step {
    Header(usize),
    Field(Field),
    Text(Box<str>),
    Number(Number),
    Truth(bool),
    Compare(Comparison),
    IsBetween,
    IsOneOf(Box<[Literal]>),
    IsLike(Box<Pattern>),
    IsNull,
    Not,
    And,
    Or,
    Add,
    Subtract,
    Multiply,
    Divide,
    Negate,
    /// A sign that changes nothing, but makes a number of what it stands before.
    Affirm,
}

/// What a selector may ask of a message beside its headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Id,
    Priority,
    SentAt,
    Expires,
    IsPersistent,
    DeliveryMode,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Is,
    IsNot,
    IsLess,
    IsAtMost,
    IsGreater,
    IsAtLeast,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Is => order.is_eq(),
            Comparison::IsNot => order.is_ne(),
            Comparison::IsLess => order.is_lt(),
            Comparison::IsAtMost => order.is_le(),
            Comparison::IsGreater => order.is_gt(),
            Comparison::IsAtLeast => order.is_ge(),
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Literal {
    Text(Box<str>),
    Number(Number),
}

impl Literal {
    fn value(&self) -> Value<'_> {
        match self {
            Literal::Text(text) => Value::Text(text),
            Literal::Number(number) => Value::Number(*number),
        }
    }
}

/// What is on the stack.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Value<'a> {
    Unknown,
    Truth(bool),
    Number(Number),
    Text(&'a str),
    /// The text of a header, which may be meant as a number or a truth.
    Header(&'a str),
}

impl<'a> Value<'a> {
    fn truth(self) -> Option<bool> {
        match self {
            Value::Truth(truth) => Some(truth),
            Value::Header(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::Header(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    fn number(self) -> Option<Number> {
        match self {
            Value::Number(number) => Some(number),
            Value::Header(text) => Number::parse(text),
            _ => None,
        }
    }

    fn text(self) -> Option<&'a str> {
        match self {
            Value::Text(text) | Value::Header(text) => Some(text),
            _ => None,
        }
    }

    fn of(truth: Option<bool>) -> Value<'a> {
        truth.map_or(Value::Unknown, Value::Truth)
    }

    /// Compares two values: unknown if one is, false if they are of different kinds.
    fn compare(self, comparison: Comparison, other: Value<'_>) -> Option<bool> {
        if self == Value::Unknown || other == Value::Unknown {
            return None;
        }
        Some(self.order(other).is_some_and(|order| comparison.holds(order)))
    }

    fn order(self, other: Value<'_>) -> Option<Ordering> {
        use Value::{Header, Number, Text, Truth};
        let by_number = || Some(self.number()?.cmp(other.number()?));
        match (self, other) {
            (Truth(_), _) | (_, Truth(_)) => Some(self.truth()?.cmp(&other.truth()?)),
            (Number(_), _) | (_, Number(_)) => by_number(),
            (Header(a), Header(b)) => by_number().or_else(|| Some(a.cmp(b))),
            (Text(a) | Header(a), Text(b) | Header(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// Conjunction with three values.
fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// Disjunction with three values.
fn or(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    and(a.map(|a| !a), b.map(|b| !b)).map(|neither| !neither)
}

impl Step {
    /// A stack that has too little on it, which no parsed selector leads to, reads as unknown.
    fn run<'a>(
        &'a self,
        stack: &mut Vec<Value<'a>>,
        headers: &'a [Option<Cow<'_, str>>],
        message: &'a Message,
    ) {
        let mut pop = || stack.pop().unwrap_or(Value::Unknown);
        let value = match self {
            Step::Header(place) => {
                headers.get(*place).and_then(Option::as_deref).map_or(Value::Unknown, Value::Header)
            }
            Step::Field(field) => field.of(message),
            Step::Text(text) => Value::Text(text),
            Step::Number(number) => Value::Number(*number),
            Step::Truth(truth) => Value::Truth(*truth),
            Step::Compare(comparison) => {
                let (b, a) = (pop(), pop());
                Value::of(a.compare(*comparison, b))
            }
            Step::IsBetween => {
                let (highest, lowest, value) = (pop(), pop(), pop());
                let is_high_enough = value.compare(Comparison::IsAtLeast, lowest);
                Value::of(and(is_high_enough, value.compare(Comparison::IsAtMost, highest)))
            }
            Step::IsOneOf(list) => {
                let value = pop();
                let is_one = |literal: &Literal| value.compare(Comparison::Is, literal.value());
                Value::of(list.iter().map(is_one).fold(Some(false), or))
            }
            Step::IsLike(pattern) => match pop() {
                Value::Unknown => Value::Unknown,
                value => Value::Truth(value.text().is_some_and(|text| pattern.matches(text))),
            },
            Step::IsNull => Value::Truth(pop() == Value::Unknown),
            Step::Not => Value::of(pop().truth().map(|truth| !truth)),
            Step::And => {
                let (b, a) = (pop().truth(), pop().truth());
                Value::of(and(a, b))
            }
            Step::Or => {
                let (b, a) = (pop().truth(), pop().truth());
                Value::of(or(a, b))
            }
            Step::Add | Step::Subtract | Step::Multiply | Step::Divide => {
                let (b, a) = (pop().number(), pop().number());
                let apply = match self {
                    Step::Add => Number::plus,
                    Step::Subtract => Number::minus,
                    Step::Multiply => Number::times,
                    _ => Number::over,
                };
                a.zip(b).and_then(|(a, b)| apply(a, b)).map_or(Value::Unknown, Value::Number)
            }
            Step::Negate => pop()
                .number()
                .and_then(|number| Number::Whole(0).minus(number))
                .map_or(Value::Unknown, Value::Number),
            Step::Affirm => pop().number().map_or(Value::Unknown, Value::Number),
        };
        stack.push(value);
    }
}

impl Field {
    /// The field that a name means, if it is no header's.
    fn named(name: &str) -> Option<Field> {
        Some(match name {
            "JMSMessageID" | "message-id" => Field::Id,
            "JMSPriority" | "priority" => Field::Priority,
            "JMSTimestamp" | "timestamp" => Field::SentAt,
            "JMSExpiration" | "expires" => Field::Expires,
            "persistent" => Field::IsPersistent,
            "JMSDeliveryMode" => Field::DeliveryMode,
            _ => return None,
        })
    }

    fn of(self, message: &Message) -> Value<'_> {
        // Beyond 2^63 no time in milliseconds is meant.
        let time = |millis: u64| Value::Number(Number::Whole(i64::try_from(millis).unwrap_or(i64::MAX)));
        match self {
            Field::Id => Value::Text(&message.id),
            Field::Priority => Value::Number(Number::Whole(message.priority.into())),
            Field::SentAt => time(message.sent_at),
            Field::Expires => time(message.expires),
            Field::IsPersistent => Value::Truth(message.is_persistent),
            Field::DeliveryMode if message.is_persistent => Value::Text("PERSISTENT"),
            Field::DeliveryMode => Value::Text("NON_PERSISTENT"),
        }
    }
}

/// The header that a name of JMS means.
fn header_name(name: &str) -> &str {
    match name {
        "JMSCorrelationID" => "correlation-id",
        "JMSType" => "type",
        "JMSReplyTo" => "reply-to",
        name => name,
    }
}

#[cfg(test)]
mod tests;
