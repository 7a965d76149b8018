//! Heads of HTTP/1 requests and responses: parsed strictly, borrowed from the bytes they came in.
//!
//! The server's front door parses every request here before it decides who serves it: a stream of its own or
//! the general HTTP server. The WebSocket handshake reads both kinds of head.
//!
//! What it is not: it reads no request's body and serves nothing ([`mod@body`] reads those of responses). It only says
//! what follows the head, and refuses every head about which two readers could disagree (request smuggling): two
//! lengths, a length and a transfer coding, folded lines, bare line feeds, no or several hosts.
//!
//! What must stay true: a head is bounded in bytes and in headers; the search for its end is linear, so that
//! bytes that dribble in one by one cost at most the square of a small bound at the speed of `memchr`.

pub mod body;

use std::borrow::Cow;
use std::mem::MaybeUninit;

/// The most headers a head can have, whatever the caller's limit.
pub const MAX_HEADERS: usize = 128;

/// A parsed request head.
#[derive(Clone, Debug)]
pub struct RequestHead<'b> {
    /// The method, as it came: methods are case-sensitive.
    pub method: &'b str,
    /// The request target as it came: origin form (`/path?query`), absolute form, or `*`.
    pub target: &'b str,
    /// The target's path, raw: percent-encoded as it came, never empty.
    pub path: &'b str,
    /// What follows the path's `?`, raw; empty if absent.
    pub query: &'b str,
    /// Who is asked: the authority of a target in absolute form, else the `Host` header; empty only in
    /// HTTP/1.0.
    pub host: &'b str,
    /// HTTP/1.1, not 1.0.
    pub is_http_11: bool,
    /// What follows the head.
    pub body: Body,
    /// The header fields in their order.
    pub headers: Headers<'b>,
}

/// What follows a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Nothing, or zero bytes.
    Empty,
    /// That many bytes, never 0.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Why a head is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct HeadError {
    /// The HTTP status to answer: 400, 431 or 505.
    pub status: u16,
    /// The rule that was broken.
    pub what: &'static str,
}

/// Parses the request head at the front of `bytes` and says how many bytes it took; `None` if its end has
/// not come. Empty lines before the head are skipped (RFC 9112 section 2.2).
///
/// # Errors
///
/// The head, or what there is of it, is malformed (400), larger than `max_head_bytes`, has more headers than
/// `max_headers` or [`MAX_HEADERS`] (431), or is of another version than HTTP/1.0 and HTTP/1.1 (505).
pub fn parse_request_head(
    bytes: &[u8],
    max_head_bytes: usize,
    max_headers: usize,
) -> Result<Option<(RequestHead<'_>, usize)>, HeadError> {
    let Some((head, consumed)) = split_head(bytes, max_head_bytes)? else { return Ok(None) };
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let fields = &mut fields[..max_headers.min(MAX_HEADERS)];
    let parsed = request.parse_with_uninit_headers(head, fields).map_err(head_error)?;
    let (httparse::Status::Complete(_), Some(method), Some(target), Some(version)) =
        (parsed, request.method, request.path, request.version)
    else {
        return Err(bad("the request line is malformed"));
    };
    let headers = Headers::from_fields(request.headers);
    let is_http_11 = version == 1;
    let (authority, path, query) = split_target(method, target)?;
    let host_header = host_header(&headers, is_http_11)?;
    // RFC 9112 section 3.2.2: the target's authority replaces the Host header.
    let host = authority.unwrap_or(host_header);
    let body = body(&headers, is_http_11)?;
    Ok(Some((RequestHead { method, target, path, query, host, is_http_11, body, headers }, consumed)))
}

impl<'b> RequestHead<'b> {
    /// The query's parameters, decoded; see [`query_pairs`].
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'b, str>, Cow<'b, str>)> + use<'b> {
        query_pairs(self.query)
    }
}

/// A parsed response head.
#[derive(Clone, Debug)]
pub struct ResponseHead<'b> {
    /// The status code.
    pub status: u16,
    /// HTTP/1.1, not 1.0.
    pub is_http_11: bool,
    /// The header fields in their order.
    pub headers: Headers<'b>,
}

/// Parses the response head at the front of `bytes` and says how many bytes it took; `None` if its end has
/// not come.
///
/// # Errors
///
/// As for [`parse_request_head`]; the statuses then only tell the cases apart.
pub fn parse_response_head(
    bytes: &[u8],
    max_head_bytes: usize,
    max_headers: usize,
) -> Result<Option<(ResponseHead<'_>, usize)>, HeadError> {
    let Some((head, consumed)) = split_head(bytes, max_head_bytes)? else { return Ok(None) };
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut fields[..max_headers.min(MAX_HEADERS)]);
    let parsed = response.parse(head).map_err(head_error)?;
    let (httparse::Status::Complete(_), Some(status), Some(version)) =
        (parsed, response.code, response.version)
    else {
        return Err(bad("the status line is malformed"));
    };
    let headers = Headers::from_fields(response.headers);
    Ok(Some((ResponseHead { status, is_http_11: version == 1, headers }, consumed)))
}

/// The header fields of a head, in their order. Names are compared without regard to case.
#[derive(Clone, Debug)]
pub struct Headers<'b> {
    fields: Vec<(&'b str, &'b [u8])>,
}

impl<'b> Headers<'b> {
    fn from_fields(fields: &[httparse::Header<'b>]) -> Headers<'b> {
        Headers { fields: fields.iter().map(|field| (field.name, field.value.trim_ascii())).collect() }
    }

    /// Every field: its name as it came, its value without surrounding blanks.
    pub fn iter(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + '_ {
        self.fields.iter().copied()
    }

    /// The values of all fields of that name.
    pub fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'b [u8]> + 'h {
        self.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of the first field of that name.
    pub fn first(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// The value of the first field of that name, if it is UTF-8.
    pub fn first_str(&self, name: &str) -> Option<&'b str> {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of the only field of that name; an error if there are several.
    ///
    /// # Errors
    ///
    /// There is more than one such field.
    pub fn at_most_one(&self, name: &str) -> Result<Option<&'b [u8]>, Repeated> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Repeated),
        }
    }

    /// The elements of the comma-separated lists in all fields of that name, without blanks and empty ones.
    pub fn list<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'b [u8]> + 'h {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Whether a list of that name holds `token`, without regard to case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// A header that may come only once came more often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repeated;

/// Splits a query, or a form body, into decoded names and values (the `application/x-www-form-urlencoded`
/// parser of the URL standard): `+` is a blank, a `%` that begins no escape stands for itself, and bytes that
/// are not UTF-8 become U+FFFD.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(name), form_decode(value))
    })
}

/// Decodes `%XX` escapes; what is no escape stands for itself, bytes that are not UTF-8 become U+FFFD.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    decode(text, false)
}

/// Whether the bytes are a token (RFC 9110 section 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// Whether the bytes can be a header's value (RFC 9110 section 5.5): no control characters but the tab.
pub fn is_header_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f)
}

/// Whether a `host[:port]` names this machine to itself: `localhost` or a loopback address.
pub fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The phrase of a status line (RFC 9110 section 15); of no meaning to programs.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// Which pages may open connections: the same-host rule, or an exact list.
///
/// A browser tells in `Origin` whose page is asking, and nothing else protects a user's cookies or an
/// intranet server from a foreign page (cross-site WebSocket hijacking). The list knows no wildcards.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllowedOrigins {
    list: Vec<Origin>,
}

impl AllowedOrigins {
    /// Reads a list of `scheme://host[:port]` or `null`. An empty list means that the origin's host and port
    /// must be those of the request.
    ///
    /// # Errors
    ///
    /// The first entry that is not an origin.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<AllowedOrigins, BadOrigin> {
        let parse = |entry: &S| {
            let entry = entry.as_ref();
            Origin::parse(entry).ok_or_else(|| BadOrigin { entry: entry.to_owned() })
        };
        Ok(AllowedOrigins { list: entries.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// Whether the request may go on: it has no `Origin`, so it comes from no page, or an allowed one. A
    /// malformed or repeated `Origin` is never allowed; `null` only if it is listed.
    pub fn allow(&self, head: &RequestHead<'_>) -> bool {
        match head.headers.at_most_one("origin") {
            Ok(None) => true,
            Ok(Some(origin)) => self.allow_origin(origin, head.host),
            Err(Repeated) => false,
        }
    }

    /// Whether a page of `origin` may talk to `host`, the request's `host[:port]`.
    pub fn allow_origin(&self, origin: &[u8], host: &str) -> bool {
        let Some(origin) = std::str::from_utf8(origin).ok().and_then(Origin::parse) else { return false };
        if !self.list.is_empty() {
            return self.list.contains(&origin);
        }
        // A host without a port is reached at the default port of the page's scheme: TLS may end in front.
        let Origin::Tuple { scheme, host: origin_host, port: Some(origin_port) } = &origin else {
            return false;
        };
        let Some(default_port) = default_port(scheme) else { return false };
        split_host(host).is_some_and(|(host, port)| {
            host.eq_ignore_ascii_case(origin_host) && port.unwrap_or(default_port) == *origin_port
        })
    }
}

/// An entry of an origin list that is not an origin.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{entry}\" is not an origin: expected scheme://host[:port] or null")]
pub struct BadOrigin {
    /// The entry.
    pub entry: String,
}

/// An origin, normalised: lower case, the default port written out.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Origin {
    Null,
    Tuple { scheme: String, host: String, port: Option<u16> },
}

impl Origin {
    fn parse(text: &str) -> Option<Origin> {
        if text == "null" {
            return Some(Origin::Null);
        }
        let (scheme, authority) = text.split_once("://")?;
        let scheme_is_valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if !scheme_is_valid {
            return None;
        }
        let (host, port) = split_host(authority)?;
        let scheme = scheme.to_ascii_lowercase();
        let port = port.or(default_port(&scheme));
        Some(Origin::Tuple { scheme, host: host.to_ascii_lowercase(), port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Splits `host[:port]`; `None` if it is not one. An IPv6 address keeps its brackets.
fn split_host(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_len = match authority.strip_prefix('[') {
        Some(rest) => {
            let address_len = rest.find(']')?;
            rest[..address_len].parse::<std::net::Ipv6Addr>().ok()?;
            address_len + 2
        }
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_len);
    // RFC 3986 section 3.2.2: unreserved, sub-delimiters (but no comma, which would join two headers), escapes.
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=[]:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host_byte) {
        return None;
    }
    if !host.starts_with('[') && host.contains(['[', ']']) {
        return None;
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Some((host, None)),
        None => None,
        Some("") => Some((host, None)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some((host, Some(digits.parse().ok()?)))
        }
        Some(_) => None,
    }
}

/// Finds the head's end. Returns the head without empty lines before it, and how many bytes both took.
fn split_head(bytes: &[u8], max_head_bytes: usize) -> Result<Option<(&[u8], usize)>, HeadError> {
    let mut start = 0;
    while bytes[start..].starts_with(b"\r\n") {
        start += 2;
    }
    let head = &bytes[start..];
    // What cannot begin a head, a TLS handshake for one, is refused at its first byte.
    if head.first().is_some_and(|byte| !is_token_byte(*byte) && *byte != b'\r') {
        return Err(bad("this is not HTTP/1"));
    }
    let within_limit = &bytes[..bytes.len().min(max_head_bytes)];
    for line_end in memchr::memchr_iter(b'\n', within_limit).filter(|position| *position >= start) {
        if line_end == start || bytes[line_end - 1] != b'\r' {
            return Err(bad("a line ends without a carriage return"));
        }
        if within_limit[line_end + 1..].starts_with(b"\r\n") {
            let consumed = line_end + 3;
            return Ok(Some((&bytes[start..consumed], consumed)));
        }
    }
    match bytes.len() >= max_head_bytes {
        true => Err(HeadError { status: 431, what: "the head is larger than the limit" }),
        false => Ok(None),
    }
}

/// Splits a request target into authority (absolute form only), path and query.
fn split_target<'b>(method: &str, target: &'b str) -> Result<(Option<&'b str>, &'b str, &'b str), HeadError> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(bad("the request target holds bytes that it must not"));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((None, target, ""));
    }
    let (authority, path_and_query) = if target.starts_with('/') {
        (None, target)
    } else {
        let rest = strip_scheme(target).ok_or(bad("the request target is malformed"))?;
        let (authority, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if split_host(authority).is_none() {
            return Err(bad("the request target's host is malformed"));
        }
        (Some(authority), path_and_query)
    };
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    Ok((authority, if path.is_empty() { "/" } else { path }, query))
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    ["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some(rest)
}

/// Reads the one `Host` header (RFC 9112 section 3.2).
fn host_header<'b>(headers: &Headers<'b>, is_http_11: bool) -> Result<&'b str, HeadError> {
    match headers.at_most_one("host") {
        Err(Repeated) => Err(bad("there is more than one host header")),
        Ok(None) if is_http_11 => Err(bad("the host header is missing")),
        Ok(None) => Ok(""),
        Ok(Some(value)) => std::str::from_utf8(value)
            .ok()
            .filter(|host| split_host(host).is_some())
            .ok_or(bad("the host header is malformed")),
    }
}

/// Says what follows the head, if all readers agree on it (RFC 9112 section 6).
fn body(headers: &Headers<'_>, is_http_11: bool) -> Result<Body, HeadError> {
    let Ok(content_length) = headers.at_most_one("content-length") else {
        return Err(bad("there is more than one content-length"));
    };
    let Ok(transfer_encoding) = headers.at_most_one("transfer-encoding") else {
        return Err(bad("there is more than one transfer-encoding"));
    };
    match (content_length, transfer_encoding) {
        (None, None) => Ok(Body::Empty),
        (Some(_), Some(_)) => Err(bad("there are both a content-length and a transfer-encoding")),
        (Some(digits), None) => {
            let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let length =
                std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
            match length {
                Some(0) => Ok(Body::Empty),
                Some(length) => Ok(Body::Length(length)),
                None => Err(bad("the content-length is malformed")),
            }
        }
        (None, Some(_)) if !is_http_11 => Err(bad("HTTP/1.0 has no transfer-encoding")),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Body::Chunked),
        (None, Some(_)) => Err(bad("the transfer-encoding is not chunked")),
    }
}

fn head_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError { status: 431, what: "there are too many headers" },
        httparse::Error::Version => {
            HeadError { status: 505, what: "the version is not HTTP/1.1 or HTTP/1.0" }
        }
        httparse::Error::HeaderName => bad("a header's name is malformed"),
        httparse::Error::HeaderValue => bad("a header's value is malformed"),
        httparse::Error::NewLine => bad("a line's end is malformed"),
        httparse::Error::Status => bad("the status line is malformed"),
        httparse::Error::Token => bad("the request line is malformed"),
    }
}

fn bad(what: &'static str) -> HeadError {
    HeadError { status: 400, what }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn form_decode(text: &str) -> Cow<'_, str> {
    decode(text, true)
}

fn decode(text: &str, plus_is_blank: bool) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_blank && byte == b'+')) {
        return Cow::Borrowed(text);
    }
    let hex =
        |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8);
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match (byte, hex(bytes.get(at)), hex(bytes.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 2;
            }
            (b'+', ..) if plus_is_blank => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    match String::from_utf8(decoded) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<(RequestHead<'_>, usize)>, HeadError> {
        parse_request_head(text.as_bytes(), 16 * 1024, 100)
    }

    fn status(text: &str) -> u16 {
        parse(text).map(|parsed| parsed.map(|(head, _)| head.method.to_owned())).expect_err(text).status
    }

    #[test]
    fn a_head_is_taken_apart_and_what_follows_is_left() {
        let text =
            "GET /sse?channels=a%2Cb&x HTTP/1.1\r\nHost: example.com\r\nX-A:  1 \r\nx-a: 2\r\n\r\nrest";
        let (head, consumed) = parse(text).expect("valid").expect("whole");
        assert_eq!(&text[consumed..], "rest");
        assert_eq!((head.method, head.path, head.query), ("GET", "/sse", "channels=a%2Cb&x"));
        assert_eq!((head.host, head.is_http_11, head.body), ("example.com", true, Body::Empty));
        assert_eq!(head.headers.all("X-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(head.headers.first_str("x-A"), Some("1"));
        assert_eq!(head.headers.at_most_one("x-a"), Err(Repeated));
        let pairs: Vec<_> = head.query_pairs().collect();
        assert_eq!(
            pairs,
            [("channels".into(), "a,b".into()), ("x".into(), "".into())] as [(Cow<str>, Cow<str>); 2]
        );
    }

    #[test]
    fn a_head_split_anywhere_needs_more_and_is_then_the_same() {
        let text = "\r\nPOST /api/publish HTTP/1.1\r\nHost: a:8000\r\nContent-Length: 12\r\n\r\n";
        for len in 0..text.len() {
            assert!(parse(&text[..len]).expect("not wrong yet").is_none(), "{len}");
        }
        let (head, consumed) = parse(text).expect("valid").expect("whole");
        assert_eq!((head.method, head.body, consumed), ("POST", Body::Length(12), text.len()));
    }

    #[test]
    fn a_head_about_which_two_readers_could_disagree_is_refused() {
        let with = |fields: &str| status(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 0x1",
            "Content-Length:",
            "Content-Length: 1 1",
            "Content-Length: 18446744073709551616",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: \u{b}chunked",
            "Host: b",
            "X: folded\r\n line",
            "X : blank before the colon",
            "X: nul \0",
            "X: bare \r return",
            "no colon",
            ": no name",
            "X\u{e9}: name not ASCII",
        ] {
            assert_eq!(with(fields), 400, "{fields:?}");
        }
    }

    #[test]
    fn request_lines_that_are_wrong_are_refused() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
            ("GET path HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\nHost: a\r\n\r\n", 400),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\nHost: a\n\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ] {
            assert_eq!(status(text), expected, "{text:?}");
        }
        assert_eq!(parse_request_head(b"\x16\x03\x01", 1000, 10).expect_err("TLS").status, 400);
    }

    #[test]
    fn targets_have_three_forms() {
        let head = |text: &'static str| parse(text).expect("valid").expect("whole").0;
        let absolute = head("GET http://other.example:81?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((absolute.host, absolute.path, absolute.query), ("other.example:81", "/", "x=1"));
        let absolute = head("GET WS://[::1]/ws HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((absolute.host, absolute.path), ("[::1]", "/ws"));
        assert_eq!(head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path, "*");
        let old = head("GET /x HTTP/1.0\r\n\r\n");
        assert_eq!((old.host, old.is_http_11), ("", false));
        assert_eq!(
            head("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n").body,
            Body::Chunked
        );
        assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 000\r\n\r\n").body, Body::Empty);
    }

    #[test]
    fn a_head_is_bounded_in_bytes_and_in_headers() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(2000));
        let error =
            |bytes: &[u8]| parse_request_head(bytes, 1024, 10).map(|_| ()).expect_err("too large").status;
        assert_eq!(error(long.as_bytes()), 431);
        assert_eq!(error(&long.as_bytes()[..1024]), 431);
        assert!(parse_request_head(&long.as_bytes()[..1023], 1024, 10).expect("not yet").is_none());
        assert_eq!(error("\r\n".repeat(600).as_bytes()), 431);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(10));
        assert_eq!(error(many.as_bytes()), 431);
        assert!(parse_request_head(many.as_bytes(), 1024, 11).expect("eleven").is_some());
        let too_many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        let result = parse_request_head(too_many.as_bytes(), 16 * 1024, usize::MAX);
        assert_eq!(result.map(|_| ()).expect_err("129 headers").status, 431);
        // The limit counts the head's last byte.
        let exact = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(parse_request_head(exact.as_bytes(), exact.len(), 10).expect("fits").is_some());
        assert!(parse_request_head(exact.as_bytes(), exact.len() - 1, 10).is_err());
    }

    #[test]
    fn lists_are_read_over_several_headers_and_without_case() {
        let text =
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive,\t Upgrade ,\r\nconnection: x\r\n\r\n";
        let (head, _) = parse(text).expect("valid").expect("whole");
        assert!(head.headers.has_token("CONNECTION", "upgrade") && head.headers.has_token("connection", "X"));
        assert!(!head.headers.has_token("connection", "up"));
        assert_eq!(head.headers.list("connection").count(), 3);
    }

    #[test]
    fn queries_are_decoded_as_browsers_encode_them() {
        let pairs =
            |query: &'static str| query_pairs(query).map(|(n, v)| format!("{n}|{v}")).collect::<Vec<_>>();
        assert_eq!(pairs("a=1&b=x%20y+z&&c&=d&e=f=g"), ["a|1", "b|x y z", "c|", "|d", "e|f=g"]);
        assert_eq!(pairs("a=%C3%A9&b=%ff&c=%4&d=%zz&e=%2"), ["a|é", "b|\u{fffd}", "c|%4", "d|%zz", "e|%2"]);
        assert_eq!(pairs(""), [""; 0]);
        assert_eq!(percent_decode("a+b%2Bc"), "a+b+c");
    }

    #[test]
    fn without_a_list_a_page_may_talk_to_its_own_host_only() {
        let same_host = AllowedOrigins::default();
        for (origin, host, allowed) in [
            ("http://example.com", "example.com", true),
            ("http://example.com:80", "example.com", true),
            ("http://example.com", "example.com:80", true),
            ("https://example.com", "example.com", true),
            ("https://example.com", "example.com:443", true),
            ("https://example.com", "example.com:80", false),
            ("HTTP://EXAMPLE.com:8000", "example.COM:8000", true),
            ("http://[::1]:8000", "[::1]:8000", true),
            ("http://127.0.0.1:8000", "127.0.0.1:8000", true),
            ("http://example.com:8000", "example.com", false),
            ("http://example.com.evil.example", "example.com", false),
            ("http://evil.example", "example.com", false),
            ("http://sub.example.com", "example.com", false),
            ("http://example.com/", "example.com", false),
            ("http://example.com/path", "example.com", false),
            ("http://user@example.com", "example.com", false),
            ("http://example.com http://evil.example", "example.com", false),
            ("http://", "", false),
            ("example.com", "example.com", false),
            ("//example.com", "example.com", false),
            ("app://example.com", "example.com", false),
            ("null", "null", false),
            ("", "", false),
            ("http://example.com:99999", "example.com", false),
            ("http://[::1", "[::1", false),
            ("http://[::1]x", "[::1]", false),
        ] {
            assert_eq!(same_host.allow_origin(origin.as_bytes(), host), allowed, "{origin} to {host}");
        }
        assert!(!same_host.allow_origin(b"http://ex\xffample.com", "example.com"));
    }

    #[test]
    fn a_list_is_exact() {
        let list = ["https://App.example", "http://localhost:3000", "capacitor://localhost"];
        let allowed = AllowedOrigins::parse(&list).expect("origins");
        for (origin, expected) in [
            ("https://app.example", true),
            ("HTTPS://APP.EXAMPLE:443", true),
            ("http://app.example", false),
            ("https://app.example:444", false),
            ("https://x.app.example", false),
            ("http://localhost:3000", true),
            ("http://localhost", false),
            ("capacitor://localhost", true),
            ("https://own.host", false),
            ("null", false),
        ] {
            assert_eq!(allowed.allow_origin(origin.as_bytes(), "own.host"), expected, "{origin}");
        }
        let null = AllowedOrigins::parse(&["null"]).expect("null can be listed");
        assert!(null.allow_origin(b"null", "own.host"));
        for entry in ["*", "https://*.example/", "example.com", "https://a.example/", "", "1a://x"] {
            assert!(AllowedOrigins::parse(&[entry]).is_err(), "{entry}");
        }
    }

    #[test]
    fn a_request_without_an_origin_comes_from_no_page_and_one_with_two_is_refused() {
        let rules = AllowedOrigins::default();
        let allow = |origins: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{origins}\r\n");
            rules.allow(&parse(&text).expect("valid").expect("whole").0)
        };
        assert!(allow("") && allow("Origin: http://a\r\n"));
        assert!(!allow("Origin: http://b\r\n") && !allow("Origin: http://a\r\nOrigin: http://a\r\n"));
        assert!(!allow("Origin:\r\n"));
    }

    #[test]
    fn a_response_head_is_read_with_the_same_care() {
        let text = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00";
        let (head, consumed) = parse_response_head(text, 1024, 10).expect("valid").expect("whole");
        assert_eq!((head.status, head.is_http_11, consumed), (101, true, text.len() - 2));
        assert_eq!(head.headers.first("upgrade"), Some(&b"websocket"[..]));
        assert!(parse_response_head(b"HTTP/1.1 abc\r\n\r\n", 1024, 10).is_err());
        assert!(parse_response_head(b"HTTP/1.1 101 Sw", 1024, 10).expect("not wrong yet").is_none());
    }
}
