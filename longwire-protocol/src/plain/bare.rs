//! The bare forms of the plain dialect: data, and nothing else.
//!
//! For devices and programs that speak a format of their own. A JSON string goes out as its text, any other JSON
//! as it is, anything else as the bytes that it is. What it is not: a dialect that can tell who said what; whoever
//! publishes may say anything, and data that holds a line break or a terminator reads as several on links that end
//! their units so.

use crate::json::write_payload;
use crate::message::Push;
use crate::websocket::Kind;

/// Writes the data of a push and tells whether it is text; `None`, and nothing written, if it has none.
///
/// `on_one_line` keeps JSON free of line breaks where those would end it; they mean the same as spaces.
pub fn encode_push(push: &Push, on_one_line: bool, out: &mut Vec<u8>) -> Option<Kind> {
    match push {
        Push::Publication(publication) | Push::Delta { publication, .. } => {
            Some(encode_data(&publication.data, publication.is_json, on_one_line, out))
        }
        Push::Message { data, is_json } => Some(encode_data(data, *is_json, on_one_line, out)),
        Push::Join(_)
        | Push::Leave(_)
        | Push::Unsubscribe { .. }
        | Push::Subscribe(_)
        | Push::Connect(_)
        | Push::Refresh { .. }
        | Push::Queue(_)
        | Push::Disconnect(_) => None,
    }
}

fn encode_data(data: &[u8], is_json: bool, on_one_line: bool, out: &mut Vec<u8>) -> Kind {
    if !is_json {
        out.extend_from_slice(data);
        return Kind::Binary;
    }
    let text = data.trim_ascii_start().first().filter(|first| **first == b'"');
    // A string with half a surrogate pair has no text: it stays what it is.
    match text.and_then(|_| serde_json::from_slice::<String>(data).ok()) {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None if on_one_line => write_payload(data, out),
        None => out.extend_from_slice(data),
    }
    Kind::Text
}
