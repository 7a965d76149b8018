//! The data of a publication where differences were agreed upon.
//!
//! There every payload is a JSON string: the JSON text itself, or the difference of that text to the one before
//! ([`crate::fossil`]). What must stay true: whoever keeps what [`resolve`] gives as the next base is in step with the
//! server, and an error means that it is not: subscribe again.

use super::{DecodeError, Publication};
use crate::fossil;
use crate::text::Text;
use bytes::Bytes;

/// Gives the JSON of a publication whose data is a string; `base` is what it gave for the publication before.
///
/// # Errors
///
/// If the data is not a string, or no difference to `base`, or of more than `max_bytes`.
pub fn resolve(publication: &Publication, base: &[u8], max_bytes: usize) -> Result<Bytes, DecodeError> {
    let text = string(&publication.data)?;
    if publication.delta {
        let target = fossil::apply(base, text.as_bytes(), max_bytes).map_err(|error| DecodeError {
            what: format!("data is not a difference: {error}").into(),
            at: 0,
        })?;
        // Some servers cut between bytes rather than characters; JSON that is no text is no JSON.
        return Text::from_utf8(target.into())
            .map(Bytes::from)
            .ok_or(DecodeError { what: "data is a difference whose target is not UTF-8".into(), at: 0 });
    }
    if text.len() > max_bytes {
        return Err(DecodeError { what: "data is too long".into(), at: 0 });
    }
    Ok(text.into())
}

/// The text of a JSON string; a part of `raw` where nothing in it is escaped.
fn string(raw: &Bytes) -> Result<Text, DecodeError> {
    let wrong = || DecodeError { what: "data is not a string".into(), at: 0 };
    let inner = raw.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).ok_or_else(wrong)?;
    // Bytes that a string has only escaped are for the parser to judge.
    if inner.iter().all(|byte| *byte >= b' ' && !matches!(byte, b'\\' | b'"')) {
        return Text::from_utf8(raw.slice(1..raw.len() - 1)).ok_or_else(wrong);
    }
    serde_json::from_slice::<String>(raw).map(Text::from).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(data: &'static str, delta: bool) -> Publication {
        Publication { data: Bytes::from_static(data.as_bytes()), delta, ..Publication::default() }
    }

    #[test]
    fn a_quote_or_a_control_character_within_makes_it_no_string() {
        for data in ["", "\"", "1", "\"a\"b\"", "\"a\nb\"", "\"a\\\""] {
            assert!(resolve(&publication(data, false), b"", 10).is_err(), "{data:?}");
        }
    }

    #[test]
    fn a_whole_one_is_the_text_of_its_string() {
        let whole = publication(r#""[1]""#, false);
        let data = resolve(&whole, b"", 10).unwrap();
        assert_eq!(data, "[1]");
        assert_eq!(data.as_ptr(), whole.data[1..].as_ptr(), "nothing is copied");
        assert_eq!(
            resolve(&publication(r#""{\"a\":\"\u00e9\"}""#, false), b"", 10).unwrap(),
            "{\"a\":\"\u{e9}\"}"
        );
    }

    #[test]
    fn a_difference_is_applied_to_the_one_before() {
        let (before, after) =
            (r#"{"price":1.2345,"symbol":"EURUSD"}"#, r#"{"price":1.2346,"symbol":"EURUSD"}"#);
        let delta = String::from_utf8(fossil::create(before.as_bytes(), after.as_bytes())).unwrap();
        let mut text = Vec::new();
        crate::json::write_string(&delta, &mut text);
        let publication = Publication { data: text.into(), delta: true, ..Publication::default() };
        assert_eq!(resolve(&publication, before.as_bytes(), 100).unwrap(), after);
        assert!(resolve(&publication, b"something else of about the same length", 100).is_err());
        assert!(resolve(&publication, before.as_bytes(), 10).is_err());
    }

    #[test]
    fn what_is_no_string_is_refused() {
        for data in ["", "1", "\"", "\"a", "{}", r#""\""#, r#""\x""#] {
            assert!(resolve(&publication(data, false), b"", 100).is_err(), "{data}");
        }
        assert!(resolve(&publication("\"1234\"", false), b"", 3).is_err());
    }
}
