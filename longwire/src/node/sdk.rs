//! What clients say that they are: name and version of an SDK, kept once for all that say the same.
//!
//! A million connections have few distinct ones. What must stay true: a text from a client is cut to a bounded
//! length, and at most so many distinct ones are kept; where clients invent more, further ones count as unknown.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest name and longest version.
const MAX_BYTES: usize = 64;

/// Distinct ones that are kept.
const MAX_KEPT: usize = 1024;

/// Name and version of a program that connects.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sdk {
    /// What it calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Those that are in use.
#[derive(Debug, Default)]
pub struct Sdks(BTreeSet<Arc<Sdk>>);

impl Sdks {
    /// The one with this name and version; `None` if the client says neither, or too many say something else.
    pub fn keep(&mut self, name: &str, version: &str) -> Option<Arc<Sdk>> {
        if name.is_empty() && version.is_empty() {
            return None;
        }
        let sdk = Sdk { name: cut(name), version: cut(version) };
        if let Some(kept) = self.0.get(&sdk) {
            return Some(kept.clone());
        }
        if self.0.len() >= MAX_KEPT {
            self.0.retain(|kept| Arc::strong_count(kept) > 1);
        }
        if self.0.len() >= MAX_KEPT {
            return None;
        }
        let sdk = Arc::new(sdk);
        self.0.insert(sdk.clone());
        Some(sdk)
    }
}

fn cut(text: &str) -> String {
    let end = (0..=text.len().min(MAX_BYTES)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_kept_once_and_long_texts_are_cut() {
        let mut sdks = Sdks::default();
        let (first, second) = (sdks.keep("js", "5.7.4").unwrap(), sdks.keep("js", "5.7.4").unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(sdks.keep("", ""), None);
        let long = sdks.keep(&"\u{e9}".repeat(100), "").unwrap();
        assert_eq!((long.name.len(), long.name.chars().all(|c| c == '\u{e9}')), (64, true));
    }

    #[test]
    fn invented_names_take_bounded_room_and_give_it_back() {
        let mut sdks = Sdks::default();
        let held: Vec<_> = (0..2 * MAX_KEPT).map(|n| sdks.keep("invented", &n.to_string())).collect();
        assert_eq!(held.iter().flatten().count(), MAX_KEPT);
        assert_eq!(sdks.keep("js", "5"), None);
        drop(held);
        assert!(sdks.keep("js", "5").is_some());
        assert_eq!(sdks.0.len(), 1);
    }
}
