//! Text in shared memory: a slice of the message that it came in.
//!
//! What decoders give where a `String` would be an allocation for each publication. What must stay true: the bytes
//! are UTF-8, which is checked where a [`Text`] is made.

use bytes::Bytes;
use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

/// UTF-8 in shared memory. It keeps all of the message that it is a part of.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// Takes bytes that are UTF-8; `None` if they are not.
    pub fn from_utf8(bytes: Bytes) -> Option<Text> {
        simdutf8::basic::from_utf8(&bytes).ok()?;
        Some(Text(bytes))
    }

    /// The part of `message` that `part` is. `part` must lie within it.
    pub(crate) fn slice_of(message: &Bytes, part: &str) -> Text {
        Text(message.slice_ref(part.as_bytes()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        simdutf8::basic::from_utf8(&self.0).expect("only UTF-8 is ever stored")
    }

    /// The same text in memory of its own, if it is only a part of something larger.
    pub fn to_owned_text(&self) -> Text {
        Text(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

// As `str` hashes, so that a map by texts can be asked for a `&str`.
impl std::hash::Hash for Text {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Text> for Bytes {
    fn from(text: Text) -> Bytes {
        text.0
    }
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        text.as_str().to_owned()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_text_is_a_part_of_its_message_and_no_copy() {
        let message = Bytes::from_static("say \u{e9} twice".as_bytes());
        let text = Text::slice_of(&message, std::str::from_utf8(&message[4..6]).unwrap());
        assert_eq!(text, "\u{e9}");
        assert_eq!(text.as_bytes().as_ptr(), message[4..].as_ptr());
        assert_ne!(text.to_owned_text().as_bytes().as_ptr(), text.as_bytes().as_ptr());
        assert_eq!(format!("{text} {text:?}"), "\u{e9} \"\u{e9}\"");
    }

    #[test]
    fn what_is_not_utf_8_is_no_text() {
        assert_eq!(Text::from_utf8(Bytes::from_static(b"\xff")), None);
        assert_eq!(Text::from_utf8(Bytes::from_static(b"ok")), Some(Text::from("ok")));
    }

    #[test]
    fn a_set_of_texts_is_asked_for_a_str() {
        let texts: HashSet<Text> = ["a", "b"].map(Text::from).into();
        assert!(texts.contains("a") && !texts.contains("c"));
    }
}
