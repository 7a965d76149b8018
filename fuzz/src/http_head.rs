//! Promises of `http`: request and response heads, queries, origins.
//!
//! Of a head that is whole, every shorter part asks for more, and whatever follows changes nothing: where
//! the head ends is never in doubt. What is refused early stays refused. A head that is written out again is
//! read as the same, and the limits hold.

use crate::input::Input;
use longwire_protocol::http::{
    AllowedOrigins, Body, HeadError, Headers, MAX_HEADERS, RequestHead, is_loopback_host, parse_request_head,
    parse_response_head, percent_decode, query_pairs,
};

/// Decides the limits with its first bytes; the rest is what the peer sends.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let max_bytes = input.choose(&[16_384, 1024, 100, 20, 1]);
    let max_headers = input.choose(&[100, 3, 1, 0, 1000]);
    let seed = usize::from(input.short());
    let bytes = input.rest();

    let request = |bytes: &[u8]| {
        parse_request_head(bytes, max_bytes, max_headers)
            .map(|parsed| parsed.map(|(head, consumed)| (format!("{head:?}"), consumed)))
    };
    prefixes(bytes, seed, max_bytes, &request);
    let response = |bytes: &[u8]| {
        parse_response_head(bytes, max_bytes, max_headers)
            .map(|parsed| parsed.map(|(head, consumed)| (format!("{head:?}"), consumed)))
    };
    prefixes(bytes, seed, max_bytes, &response);

    if let Ok(Some((head, _))) = parse_request_head(bytes, max_bytes, max_headers) {
        assert!(head.headers.iter().count() <= max_headers.min(MAX_HEADERS));
        judge(&head);
        written_again(&head);
    }
    if let Ok(Some((head, _))) = parse_response_head(bytes, max_bytes, max_headers) {
        assert!(head.headers.iter().count() <= max_headers.min(MAX_HEADERS));
        values(&head.headers);
    }
    text(&String::from_utf8_lossy(bytes));
}

type Parsed = Result<Option<(String, usize)>, HeadError>;

fn prefixes(bytes: &[u8], seed: usize, max_bytes: usize, parse: &dyn Fn(&[u8]) -> Parsed) {
    let whole = parse(bytes);
    if let Ok(Some((_, consumed))) = &whole {
        assert!(*consumed <= bytes.len().min(max_bytes), "a head past the limit");
        assert!(bytes[..*consumed].ends_with(b"\r\n\r\n"), "a head ends with an empty line");
    }
    // All prefixes of what is short, some of what is long, and those around the end.
    let step = (bytes.len() / 64).max(1);
    let mut cuts: Vec<usize> = (seed % step..bytes.len()).step_by(step).collect();
    if let Ok(Some((_, consumed))) = &whole {
        cuts.extend((consumed.saturating_sub(5)..consumed + 2).filter(|cut| *cut < bytes.len()));
    }
    for cut in cuts {
        match (parse(&bytes[..cut]), &whole) {
            (Ok(None), Ok(Some((_, consumed)))) => {
                assert!(cut < *consumed, "more was asked for after the end")
            }
            (Ok(None), _) => {}
            (part @ Ok(Some(_)), whole) => assert_eq!(part, *whole, "what follows changes the head"),
            (Err(error), Ok(_)) => panic!("{error} after {cut} bytes, and then it was right"),
            (Err(_), Err(_)) => {}
        }
    }
}

fn judge(head: &RequestHead<'_>) {
    assert!(!head.path.is_empty() && (head.path.starts_with('/') || head.path == "*"));
    assert!(head.target.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(head.target.contains(head.query));
    assert!(!head.host.is_empty() || !head.is_http_11, "no host in HTTP/1.1");
    let lengths = head.headers.all("content-length").count();
    let codings = head.headers.all("transfer-encoding").count();
    assert!(lengths + codings <= 1, "two readers could disagree about the body");
    match head.body {
        Body::Empty => assert_eq!(codings, 0),
        Body::Length(length) => assert!(length > 0 && lengths == 1),
        Body::Chunked => assert!(codings == 1 && head.is_http_11),
    }
    assert!(head.headers.all("host").count() <= 1);
    values(&head.headers);
    for (name, value) in head.query_pairs() {
        assert!(name.len() + value.len() <= 3 * head.query.len(), "decoding grew more than U+FFFD can");
    }
}

fn values(headers: &Headers<'_>) {
    for (name, value) in headers.iter() {
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0')), "a value with a line's end");
        assert!(headers.first(name).is_some() && headers.all(name).any(|other| other == value));
        for element in headers.list(name) {
            assert!(!element.is_empty() && element.trim_ascii() == element && !element.contains(&b','));
        }
    }
}

fn written_again(head: &RequestHead<'_>) {
    let version = if head.is_http_11 { "1.1" } else { "1.0" };
    let mut again = format!("{} {} HTTP/{version}\r\n", head.method, head.target).into_bytes();
    for (name, value) in head.headers.iter() {
        again.extend_from_slice(name.as_bytes());
        again.extend_from_slice(b": ");
        again.extend_from_slice(value);
        again.extend_from_slice(b"\r\n");
    }
    again.extend_from_slice(b"\r\n");
    match parse_request_head(&again, usize::MAX, MAX_HEADERS) {
        Ok(Some((parsed, consumed))) => {
            assert_eq!(consumed, again.len());
            assert_eq!(format!("{parsed:?}"), format!("{head:?}"), "written again");
        }
        other => panic!("a head that was read cannot be read again: {other:?}"),
    }
}

fn text(text: &str) {
    // One escape of three bytes becomes at most one U+FFFD of three.
    assert!(percent_decode(text).len() <= text.len());
    let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(percent_decode(&escaped), text, "escaped and decoded");
    let query = format!("{escaped}={escaped}&x=%");
    let pairs: Vec<_> = query_pairs(&query).collect();
    assert_eq!(pairs[0], (text.into(), text.into()));
    assert_eq!(pairs[1].1, "%");
    let host = text.lines().next().unwrap_or_default();
    let _ = is_loopback_host(host);
    if let Ok(list) = AllowedOrigins::parse(&[host]) {
        assert!(list.allow_origin(host.as_bytes(), "elsewhere"), "a listed origin is refused");
        assert!(
            !list.allow_origin(b"http://other.example:99", "elsewhere") || host.contains("other.example")
        );
        assert!(!AllowedOrigins::default().allow_origin(host.as_bytes(), ""), "no host is no page's own");
    }
}
