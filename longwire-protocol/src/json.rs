//! Pieces of JSON text, written by hand where a publication passes.
//!
//! What this is: the few functions with which the dialects write their JSON, and the JSON form of the parts
//! of a publication that all dialects share. What it is not: a serializer; whoever calls these functions
//! opens and closes the braces.
//!
//! What must stay true: nothing written here holds a line feed or a carriage return, whatever a client or
//! the backend put into a payload, a tag or a name. Line-based framings (centrifuge JSON, event streams, TCP
//! with an end-of-line delimiter) rely on it.

use crate::message::ClientInfo;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Writes `text` as a JSON string, quotes included.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, byte) in bytes.iter().enumerate() {
        // RFC 8259 section 7: the quotation mark, the reverse solidus and the control characters.
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match *byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 0xf)]);
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

/// Writes raw JSON that somebody else made, on one line.
///
/// Valid JSON has line breaks only between tokens, where a space means the same.
pub fn write_payload(data: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(data);
    if memchr::memchr2(b'\n', b'\r', data).is_some() {
        for byte in &mut out[start..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

/// Whether data that is no JSON can stand in JSON all the same: as a string.
pub fn is_text(data: &[u8]) -> bool {
    simdutf8::basic::from_utf8(data).is_ok()
}

/// Writes the member `name` of data that may be JSON or not; what is no JSON must be [text](is_text).
pub(crate) fn write_data_member(name: &'static str, data: &[u8], is_json: bool, out: &mut Vec<u8>) {
    if is_json {
        return write_payload_member(name, data, out);
    }
    write_key(name, out);
    write_string(&String::from_utf8_lossy(data), out);
}

/// Turns a JSON text into one of ASCII characters alone that means the same.
///
/// For readers that decode a stream piece by piece and break a character that two pieces share.
pub fn escape_non_ascii(json: &mut Vec<u8>) {
    if json.is_ascii() {
        return;
    }
    let mut out = Vec::with_capacity(json.len() * 2);
    // RFC 8259 section 7: outside of strings there is only ASCII, and in them every character may be escaped.
    for character in String::from_utf8_lossy(json).chars() {
        if character.is_ascii() {
            out.push(character as u8);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            out.extend_from_slice(b"\\u");
            out.extend([12, 8, 4, 0].map(|shift| HEX[usize::from(*unit >> shift & 0xf)]));
        }
    }
    *json = out;
}

/// Writes a whole number in decimal digits.
pub fn write_number(mut number: u64, out: &mut Vec<u8>) {
    // u64::MAX has twenty digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes `"name":`, after a comma unless it is the first of its object.
pub(crate) fn write_key(name: &'static str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes the member `name` if `number` is not 0.
pub(crate) fn write_number_member(name: &'static str, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        write_key(name, out);
        write_number(number, out);
    }
}

/// Writes the member `name` if `flag` is true.
pub(crate) fn write_flag_member(name: &'static str, flag: bool, out: &mut Vec<u8>) {
    if flag {
        write_key(name, out);
        out.extend_from_slice(b"true");
    }
}

/// Writes the member `name` if there is a payload.
pub(crate) fn write_payload_member(name: &'static str, data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        write_key(name, out);
        write_payload(data, out);
    }
}

/// Writes the members of an object whose keys are data rather than names.
pub(crate) fn write_map<T>(
    entries: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut write_entry: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(b'{');
    for (i, entry) in entries.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_entry(entry, out);
    }
    out.push(b'}');
}

/// Writes the member `tags` if there are any.
pub(crate) fn write_tags_member(tags: &[(String, String)], out: &mut Vec<u8>) {
    if tags.is_empty() {
        return;
    }
    write_key("tags", out);
    write_map(tags, out, |(key, value), out| {
        write_string(key, out);
        out.push(b':');
        write_string(value, out);
    });
}

/// Writes a client's identity; `user` and `client` are always present.
pub(crate) fn write_client_info(info: &ClientInfo, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"user\":");
    write_string(&info.user, out);
    write_key("client", out);
    write_string(&info.client.to_string(), out);
    write_payload_member("conn_info", &info.conn_info, out);
    write_payload_member("chan_info", &info.chan_info, out);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_up_to_the_largest() {
        for number in [0, 1, 9, 10, 99, 100, 12_345, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            assert_eq!(written(|out| write_number(number, out)), number.to_string());
        }
    }

    #[test]
    fn every_control_character_is_escaped() {
        let text: String = (0..0x80u8).map(char::from).collect();
        let json = written(|out| write_string(&text, out));
        assert!(json.bytes().all(|byte| byte >= 0x20));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn a_payload_is_written_on_one_line() {
        let json = written(|out| write_payload(b"{\r\n  \"a\": [1,\n2],\r\"b\": \"\\n\"\n}", out));
        assert_eq!(json, "{    \"a\": [1, 2], \"b\": \"\\n\" }");
        assert_eq!(written(|out| write_payload(b"{\"a\":1}", out)), "{\"a\":1}");
    }

    #[test]
    fn earlier_text_keeps_its_line_breaks_when_a_payload_is_compacted() {
        let mut out = b"id: 1\ndata: ".to_vec();
        write_payload(b"[\n]", &mut out);
        assert_eq!(out, b"id: 1\ndata: [ ]");
    }

    #[test]
    fn a_text_of_ascii_is_not_touched() {
        let mut json = b"{\"a\":\"\\u00e9\\n\"}".to_vec();
        let before = (json.clone(), json.as_ptr(), json.capacity());
        escape_non_ascii(&mut json);
        assert_eq!((json.clone(), json.as_ptr(), json.capacity()), before);
    }

    #[test]
    fn what_is_not_ascii_is_escaped() {
        for (text, expected) in [
            ("\"caf\u{e9}\"", "\"caf\\u00e9\""),
            ("[\"\u{43f}\",\"\u{2028}\"]", "[\"\\u043f\",\"\\u2028\"]"),
            ("{\"\u{1f600}\":1}", "{\"\\ud83d\\ude00\":1}"),
            ("\"\u{ffff}\u{10ffff}\"", "\"\\uffff\\udbff\\udfff\""),
        ] {
            let mut json = text.as_bytes().to_vec();
            escape_non_ascii(&mut json);
            assert_eq!(String::from_utf8(json).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_means_the_same_in_ascii(text in any::<String>()) {
            let mut json = written(|out| write_string(&text, out)).into_bytes();
            escape_non_ascii(&mut json);
            prop_assert!(json.is_ascii());
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }

        #[test]
        fn any_text_survives_being_a_string(text in any::<String>()) {
            let json = written(|out| write_string(&text, out));
            prop_assert!(!json.contains(['\n', '\r']));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
