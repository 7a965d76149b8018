//! Heads made of any bytes: never a panic, and the same answer however they arrive.

use longwire_protocol::http::{AllowedOrigins, parse_request_head, parse_response_head, query_pairs};
use longwire_protocol::websocket::handshake;
use proptest::prelude::*;

const MAX_HEAD_BYTES: usize = 512;

/// A handshake with bytes put in, or any bytes.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec![
        "Host",
        "Upgrade",
        "Connection",
        "Origin",
        "Content-Length",
        "Transfer-Encoding",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "X",
    ]);
    let values = prop_oneof![
        prop::sample::select(vec![
            "a",
            "websocket",
            "upgrade",
            "http://a",
            "0",
            "5",
            "chunked",
            "dGhlIHNhbXBsZSBub25jZQ==",
            "13",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; x=\"\\",
            ",;=",
            "[::1]:",
            ":",
        ])
        .prop_map(|value| value.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    let target = prop_oneof![Just("/ws".to_owned()), "[/?#%:@a]{1,12}", "http://[a:@/?]{0,8}"];
    let made = (target, prop::collection::vec((names, values), 0..9)).prop_map(|(target, fields)| {
        let mut bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
        for (name, value) in fields {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\nrest");
        bytes
    });
    prop_oneof![4 => made, 1 => prop::collection::vec(any::<u8>(), 0..300), 1 => "[A-Z/ :\r\n]{0,60}".prop_map(String::into_bytes)]
}

/// What is found out about a request.
fn judge(bytes: &[u8]) -> Option<Result<(String, usize), u16>> {
    match parse_request_head(bytes, MAX_HEAD_BYTES, 20) {
        Ok(None) => None,
        Ok(Some((head, consumed))) => Some(Ok((format!("{head:?}"), consumed))),
        Err(error) => Some(Err(error.status)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_head_is_judged_the_same_however_it_arrives(bytes in head()) {
        let whole = judge(&bytes);
        for len in 0..bytes.len() {
            match judge(&bytes[..len]) {
                None => {}
                // Once there is an answer, later bytes do not change it.
                Some(Ok(early)) => prop_assert_eq!(Some(Ok(early)), whole.clone()),
                Some(Err(_)) => prop_assert!(matches!(whole, Some(Err(_)))),
            }
        }
        if let Some(Ok((_, consumed))) = whole {
            prop_assert!(consumed <= bytes.len().min(MAX_HEAD_BYTES));
        }
    }

    #[test]
    fn any_head_is_accepted_or_refused_with_a_status(bytes in head()) {
        if let Ok(Some((head, _))) = parse_request_head(&bytes, MAX_HEAD_BYTES, 20) {
            let allowed_origins = AllowedOrigins::default();
            let options =
                handshake::Options { allowed_origins: &allowed_origins, subprotocols: &["a"], allow_deflate: true };
            match handshake::accept(&head, &options) {
                Ok(accepted) => {
                    let response = parse_response_head(&accepted.response, 1024, 20).expect("ours is valid");
                    prop_assert_eq!(response.expect("and whole").0.status, 101);
                }
                Err(refusal) => {
                    let bytes = refusal.response();
                    let response = parse_response_head(&bytes, 1024, 20).expect("ours is valid");
                    prop_assert_eq!(response.expect("and whole").0.status, refusal.status);
                }
            }
        }
        let _ = parse_response_head(&bytes, MAX_HEAD_BYTES, 20);
    }

    #[test]
    fn any_query_is_decoded_to_no_more_than_its_escapes_say(query in "[%+&=0-9a-fé]{0,40}") {
        for (name, value) in query_pairs(&query) {
            // U+FFFD has three bytes and may stand for one.
            prop_assert!(name.len() + value.len() <= 3 * query.len());
        }
    }
}

#[test]
fn a_headers_value_has_no_control_characters_but_the_tab() {
    use longwire_protocol::http::is_header_value;
    for good in [&b""[..], b"a b", b"a\tb", "é".as_bytes(), b"\xff", b"~"] {
        assert!(is_header_value(good), "{good:?}");
    }
    for bad in [&b"a\r\nb: c"[..], b"a\nb", b"\0", b"\x1f", b"\x7f"] {
        assert!(!is_header_value(bad), "{bad:?}");
    }
}
