//! Whether bytes are JSON that may be handed on.
//!
//! For payloads that did not come as a part of JSON that was read: out of base64, or from a binary protocol.
//! What must stay true: nothing here recurses, whatever the bytes are.

/// Lists and objects within one another, as many as subscribers are made to parse.
const MAX_DEPTH: usize = 64;

/// Whether this is one JSON value whose lists and objects lie at most `MAX_DEPTH` deep.
pub fn is_valid(data: &[u8]) -> bool {
    is_depth_allowed(data)
        && std::str::from_utf8(data)
            .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// Whether lists and objects lie at most `MAX_DEPTH` deep; of text that is no JSON it says something, too.
///
/// The parser of payloads does not recurse, so nothing else bounds what subscribers would have to parse.
pub fn is_depth_allowed(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut is_escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_depth_allowed(nested(MAX_DEPTH).as_bytes()));
        assert!(!is_depth_allowed(nested(MAX_DEPTH + 1).as_bytes()));
        let text = format!("[\"\\\"{}\"]", "[".repeat(500));
        assert!(is_depth_allowed(text.as_bytes()));
        assert!(is_depth_allowed("[]".repeat(500).as_bytes()));
    }

    #[test]
    fn only_one_whole_value_is_json() {
        for (data, expected) in [
            (&b"{}"[..], true),
            (b" 7 ", true),
            (b"\"caf\xc3\xa9\"", true),
            (b"", false),
            (b"{}{}", false),
            (b"{", false),
            (b"\"\xff\"", false),
            (b"\0\x01", false),
        ] {
            assert_eq!(is_valid(data), expected, "{data:?}");
        }
        assert!(!is_valid("[".repeat(100_000).as_bytes()));
    }
}
