//! Which publications a subscriber wants, by their tags: what it asks for, and what it may be sent.
//!
//! It judges tags by code of its own, with which the checks judge what a server let through.

use std::collections::BTreeMap;

/// A choice by tags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// The tag has this value.
    Is(String, String),
    /// The tag is a number above this.
    MoreThan(String, i64),
    /// Everything else.
    Not(Box<Choice>),
    /// What any of them chooses.
    Any(Vec<Choice>),
}

impl Choice {
    /// Whether a publication with these tags is wanted.
    pub fn takes(&self, tags: &BTreeMap<String, String>) -> bool {
        match self {
            Choice::Is(key, value) => tags.get(key) == Some(value),
            Choice::MoreThan(key, least) => {
                let number = tags.get(key).and_then(|value| value.parse::<i64>().ok());
                number.is_some_and(|number| number > *least)
            }
            Choice::Not(inner) => !inner.takes(tags),
            Choice::Any(all) => all.iter().any(|inner| inner.takes(tags)),
        }
    }

    /// As the JSON of a filter (centrifuge protocol, section 8).
    pub fn to_json(&self) -> String {
        let value = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Choice::Is(key, is) => format!(r#"{{"key":{},"cmp":"eq","val":{}}}"#, value(key), value(is)),
            Choice::MoreThan(key, least) => {
                format!(r#"{{"key":{},"cmp":"gt","val":"{least}"}}"#, value(key))
            }
            Choice::Not(inner) => format!(r#"{{"op":"not","nodes":[{}]}}"#, inner.to_json()),
            Choice::Any(all) => {
                let nodes: Vec<String> = all.iter().map(Choice::to_json).collect();
                format!(r#"{{"op":"or","nodes":[{}]}}"#, nodes.join(","))
            }
        }
    }
}
