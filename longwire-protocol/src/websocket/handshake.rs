//! The opening handshake (RFC 6455 section 4, RFC 7692 section 7): the server's half and the client's.
//!
//! The server gives [`accept`] a parsed request head and sends what comes back, the 101 response or a
//! [`Refusal`]. The client sends [`ClientRequest::encode`] and gives the response head to
//! [`ClientRequest::verify`].
//!
//! What it is not: it reads and writes no socket, draws no key, and knows no routes or users.
//!
//! What must stay true: a head that breaks a rule is refused with the rule's name, never repaired; an offer
//! of permessage-deflate that asks for what this side does not do is declined, never half accepted.

use crate::http::{AllowedOrigins, Body, Headers, Repeated, RequestHead, ResponseHead, is_token};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use std::borrow::Cow;

/// What the server's half depends on.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Which pages may connect.
    pub allowed_origins: &'a AllowedOrigins,
    /// The subprotocols spoken here; the client's order of preference decides.
    pub subprotocols: &'a [&'a str],
    /// Whether permessage-deflate may be agreed on.
    pub allow_deflate: bool,
}

/// A handshake that succeeded.
#[derive(Clone, Debug)]
pub struct Accept<'a> {
    /// The whole 101 response.
    pub response: Vec<u8>,
    /// The subprotocol, if the client asked for one that is spoken here.
    pub subprotocol: Option<&'a str>,
    /// Whether permessage-deflate was agreed on, without context takeover on either side.
    pub deflate: bool,
}

/// A handshake that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The HTTP status to answer.
    pub status: u16,
    /// Headers that the status asks for.
    pub headers: &'static [(&'static str, &'static str)],
    /// The rule that was broken, for the body and the log.
    pub text: &'static str,
}

impl Refusal {
    /// The whole response; the connection is closed after it.
    pub fn response(&self) -> Vec<u8> {
        let phrase = crate::http::reason_phrase(self.status);
        let mut response = format!("HTTP/1.1 {} {phrase}\r\n", self.status);
        for (name, value) in self.headers {
            response.push_str(&format!("{name}: {value}\r\n"));
        }
        // RFC 9110 section 7.8: who sends Upgrade lists it in Connection.
        let connection = if self.status == 426 { "close, Upgrade" } else { "close" };
        response.push_str(&format!(
            "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{}\n",
            self.text.len() + 1,
            self.text,
        ));
        response.into_bytes()
    }
}

/// Whether the request asks for a WebSocket, well or badly: its `Upgrade` header lists `websocket`.
pub fn is_upgrade(head: &RequestHead<'_>) -> bool {
    head.headers.has_token("upgrade", "websocket")
}

/// Judges a client's handshake (RFC 6455 section 4.2).
///
/// # Errors
///
/// The answer to a request that breaks a rule or comes from a page that is not allowed.
pub fn accept<'a>(head: &RequestHead<'_>, options: &Options<'a>) -> Result<Accept<'a>, Refusal> {
    let headers = &head.headers;
    if head.method != "GET" {
        let headers = &[("Allow", "GET")];
        return Err(Refusal { status: 405, headers, text: "a websocket handshake is a GET request" });
    }
    if !head.is_http_11 {
        return Err(refusal("a websocket handshake needs HTTP/1.1"));
    }
    // A body could be read as frames, or frames as a body: a way to smuggle requests.
    if head.body != Body::Empty {
        return Err(refusal("a websocket handshake has no body"));
    }
    if !is_upgrade(head) {
        return Err(refusal("the upgrade header does not list websocket"));
    }
    if !headers.has_token("connection", "upgrade") {
        return Err(refusal("the connection header does not list upgrade"));
    }
    if headers.at_most_one("sec-websocket-version") != Ok(Some(b"13")) {
        // RFC 6455 section 4.4.
        let headers = &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")];
        return Err(Refusal { status: 426, headers, text: "the websocket version must be 13" });
    }
    let key = match headers.at_most_one("sec-websocket-key") {
        Ok(Some(key)) if is_key(key) => key,
        Ok(Some(_)) => return Err(refusal("the sec-websocket-key is not 16 bytes in base64")),
        Ok(None) => return Err(refusal("the sec-websocket-key is missing")),
        Err(Repeated) => return Err(refusal("there is more than one sec-websocket-key")),
    };
    if !options.allowed_origins.allow(head) {
        return Err(Refusal { status: 403, headers: &[], text: "pages of this origin may not connect" });
    }
    let subprotocol = choose_subprotocol(headers, options.subprotocols)?;
    let extension = choose_extension(headers, options.allow_deflate)?;

    let mut response = String::with_capacity(256);
    response.push_str("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    response.push_str("Sec-WebSocket-Accept: ");
    response.push_str(&accept_value(key));
    if let Some(subprotocol) = subprotocol {
        response.push_str("\r\nSec-WebSocket-Protocol: ");
        response.push_str(subprotocol);
    }
    if let Some(extension) = extension {
        response.push_str("\r\nSec-WebSocket-Extensions: ");
        response.push_str(extension);
    }
    response.push_str("\r\n\r\n");
    Ok(Accept { response: response.into_bytes(), subprotocol, deflate: extension.is_some() })
}

/// The client's half.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// `host[:port]` of the server.
    pub host: &'a str,
    /// Path and query, beginning with `/`.
    pub target: &'a str,
    /// 16 random bytes, fresh for each attempt.
    pub key: [u8; 16],
    /// The origin, if the server wants one.
    pub origin: Option<&'a str>,
    /// Subprotocols, the preferred one first.
    pub subprotocols: &'a [&'a str],
    /// Whether to offer permessage-deflate.
    pub offer_deflate: bool,
    /// Further headers, such as `Authorization` or `Cookie`.
    pub headers: &'a [(&'a str, &'a str)],
}

/// What client and server agreed on, as the client reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreement<'a> {
    /// The subprotocol that the server chose.
    pub subprotocol: Option<&'a str>,
    /// Whether permessage-deflate is on, without context takeover on either side.
    pub deflate: bool,
}

/// Why the client's handshake failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeError {
    /// A part of the request cannot be sent: it would break the head's lines.
    #[error("the request's {0} is malformed")]
    Request(&'static str),
    /// The server answered with another status than 101.
    #[error("the server answered with status {0} instead of 101")]
    Status(u16),
    /// The server's answer breaks a rule.
    #[error("{0}")]
    Response(&'static str),
}

impl<'a> ClientRequest<'a> {
    /// The bytes of the request.
    ///
    /// # Errors
    ///
    /// `HandshakeError::Request` with the part that is malformed.
    pub fn encode(&self) -> Result<Vec<u8>, HandshakeError> {
        let is_graphic = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_value = |text: &str| text.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7F));
        if !is_graphic(self.host) {
            return Err(HandshakeError::Request("host"));
        }
        if !is_graphic(self.target) || !self.target.starts_with('/') || self.target.contains('#') {
            return Err(HandshakeError::Request("target"));
        }
        if self.origin.is_some_and(|origin| !is_graphic(origin)) {
            return Err(HandshakeError::Request("origin"));
        }
        if !self.subprotocols.iter().all(|name| is_token(name.as_bytes())) {
            return Err(HandshakeError::Request("subprotocol"));
        }
        if !self.headers.iter().all(|(name, value)| is_token(name.as_bytes()) && is_value(value)) {
            return Err(HandshakeError::Request("header"));
        }
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            self.target,
            self.host,
            STANDARD.encode(self.key),
        );
        let mut line = |name: &str, value: &str| request.push_str(&format!("{name}: {value}\r\n"));
        if let Some(origin) = self.origin {
            line("Origin", origin);
        }
        if !self.subprotocols.is_empty() {
            line("Sec-WebSocket-Protocol", &self.subprotocols.join(", "));
        }
        if self.offer_deflate {
            line("Sec-WebSocket-Extensions", AGREED);
        }
        for (name, value) in self.headers {
            line(name, value);
        }
        request.push_str("\r\n");
        Ok(request.into_bytes())
    }

    /// Judges the server's answer (RFC 6455 section 4.1, RFC 7692 section 7.1).
    ///
    /// # Errors
    ///
    /// `HandshakeError::Status` or `HandshakeError::Response`.
    pub fn verify(&self, head: &ResponseHead<'_>) -> Result<Agreement<'a>, HandshakeError> {
        let headers = &head.headers;
        if head.status != 101 {
            return Err(HandshakeError::Status(head.status));
        }
        if !head.is_http_11 {
            return Err(HandshakeError::Response("the answer is not HTTP/1.1"));
        }
        let upgrade = headers.at_most_one("upgrade");
        if !matches!(upgrade, Ok(Some(value)) if value.eq_ignore_ascii_case(b"websocket")) {
            return Err(HandshakeError::Response("the answer's upgrade header is not websocket"));
        }
        if !headers.has_token("connection", "upgrade") {
            return Err(HandshakeError::Response("the answer's connection header does not list upgrade"));
        }
        let expected = accept_value(STANDARD.encode(self.key).as_bytes());
        if headers.at_most_one("sec-websocket-accept") != Ok(Some(expected.as_bytes())) {
            return Err(HandshakeError::Response("the answer's sec-websocket-accept does not match the key"));
        }
        let subprotocol = match headers.at_most_one("sec-websocket-protocol") {
            Ok(None) => None,
            Ok(Some(chosen)) => {
                let asked = self.subprotocols.iter().find(|name| name.as_bytes() == chosen);
                Some(*asked.ok_or(HandshakeError::Response(
                    "the server chose a subprotocol that was not asked for",
                ))?)
            }
            Err(Repeated) => {
                return Err(HandshakeError::Response("the server chose more than one subprotocol"));
            }
        };
        Ok(Agreement { subprotocol, deflate: self.verify_extensions(headers)? })
    }

    fn verify_extensions(&self, headers: &Headers<'_>) -> Result<bool, HandshakeError> {
        let mut extensions = Vec::new();
        for value in headers.all("sec-websocket-extensions") {
            let parsed = parse_extensions(value);
            extensions.extend(
                parsed.ok_or(HandshakeError::Response("the sec-websocket-extensions are malformed"))?,
            );
        }
        match &extensions[..] {
            [] => Ok(false),
            [extension] if extension.name == PERMESSAGE_DEFLATE && self.offer_deflate => {
                let parameters = Parameters::read(&extension.parameters)
                    .ok_or(HandshakeError::Response("the parameters of permessage-deflate are invalid"))?;
                // RFC 7692 section 7.1.1.1: who accepts the offer repeats this parameter.
                if !parameters.server_no_context_takeover {
                    return Err(HandshakeError::Response(
                        "the server did not agree to server_no_context_takeover",
                    ));
                }
                // RFC 7692 section 7.1.2.2: it may be answered only if it was offered.
                if parameters.client_max_window_bits.is_some() {
                    return Err(HandshakeError::Response("the server set client_max_window_bits unasked"));
                }
                Ok(true)
            }
            _ => Err(HandshakeError::Response("the server chose an extension that was not offered")),
        }
    }
}

const PERMESSAGE_DEFLATE: &str = "permessage-deflate";

/// Both what is offered and what is answered: no side keeps its window from message to message.
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The answer to an offer that names the window's size (RFC 7692 section 7.1.2.1).
const AGREED_WITH_WINDOW: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

/// The constant of RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Base64 whose unused last bits are ignored: some clients send any 22 characters as a key.
const KEY_BASE64: GeneralPurpose =
    GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

fn is_key(key: &[u8]) -> bool {
    let mut decoded = [0; 18];
    key.len() == 24 && KEY_BASE64.decode_slice(key, &mut decoded) == Ok(16)
}

/// The `Sec-WebSocket-Accept` that proves that the key was read.
fn accept_value(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_GUID].concat()))
}

fn choose_subprotocol<'a>(headers: &Headers<'_>, spoken: &[&'a str]) -> Result<Option<&'a str>, Refusal> {
    let mut chosen = None;
    for asked in headers.list("sec-websocket-protocol") {
        if !is_token(asked) {
            return Err(refusal("the sec-websocket-protocol is malformed"));
        }
        chosen = chosen.or(spoken.iter().find(|name| name.as_bytes() == asked).copied());
    }
    Ok(chosen)
}

/// Chooses the answer to the first acceptable offer of permessage-deflate.
fn choose_extension(headers: &Headers<'_>, allow_deflate: bool) -> Result<Option<&'static str>, Refusal> {
    let mut chosen = None;
    for value in headers.all("sec-websocket-extensions") {
        // RFC 6455 section 9.1: a header that is not well-formed fails the handshake.
        let offers = parse_extensions(value).ok_or(refusal("the sec-websocket-extensions are malformed"))?;
        for offer in offers.iter().filter(|offer| allow_deflate && offer.name == PERMESSAGE_DEFLATE) {
            chosen = chosen.or(Parameters::read(&offer.parameters).and_then(|parameters| {
                match parameters.server_max_window_bits {
                    None => Some(AGREED),
                    Some(15) => Some(AGREED_WITH_WINDOW),
                    Some(_) => None,
                }
            }));
        }
    }
    Ok(chosen)
}

/// The parameters of permessage-deflate, each at most once and with a valid value.
#[derive(Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// The inner `None`: named without a value, as only an offer may.
    client_max_window_bits: Option<Option<u8>>,
}

impl Parameters {
    fn read(parameters: &[Parameter<'_>]) -> Option<Parameters> {
        let mut read = Parameters::default();
        for (name, value) in parameters {
            let is_first = match (*name, value.as_deref()) {
                ("server_no_context_takeover", None) => {
                    !std::mem::replace(&mut read.server_no_context_takeover, true)
                }
                ("client_no_context_takeover", None) => {
                    !std::mem::replace(&mut read.client_no_context_takeover, true)
                }
                ("server_max_window_bits", Some(bits)) => {
                    read.server_max_window_bits.replace(window_bits(bits)?).is_none()
                }
                ("client_max_window_bits", Some(bits)) => {
                    read.client_max_window_bits.replace(Some(window_bits(bits)?)).is_none()
                }
                ("client_max_window_bits", None) => read.client_max_window_bits.replace(None).is_none(),
                _ => return None,
            };
            if !is_first {
                return None;
            }
        }
        Some(read)
    }
}

/// Reads 8 to 15, in decimal without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(text: &str) -> Option<u8> {
    match text {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

type Parameter<'b> = (&'b str, Option<Cow<'b, str>>);

struct Extension<'b> {
    name: &'b str,
    parameters: Vec<Parameter<'b>>,
}

/// Reads one `Sec-WebSocket-Extensions` header (RFC 6455 section 9.1); `None` if it is malformed.
fn parse_extensions(value: &[u8]) -> Option<Vec<Extension<'_>>> {
    let mut cursor = Cursor { rest: std::str::from_utf8(value).ok()? };
    let mut extensions = Vec::new();
    loop {
        cursor.skip_blanks();
        if cursor.rest.is_empty() {
            break;
        }
        // A list may hold empty elements (RFC 9110 section 5.6.1.2).
        if cursor.take(',') {
            continue;
        }
        let name = cursor.take_token()?;
        let mut parameters = Vec::new();
        cursor.skip_blanks();
        while cursor.take(';') {
            cursor.skip_blanks();
            let parameter = cursor.take_token()?;
            let value = match cursor.take('=') {
                false => None,
                true if cursor.rest.starts_with('"') => Some(Cow::Owned(cursor.take_quoted()?)),
                true => Some(Cow::Borrowed(cursor.take_token()?)),
            };
            parameters.push((parameter, value));
            cursor.skip_blanks();
        }
        extensions.push(Extension { name, parameters });
        if !cursor.rest.is_empty() && !cursor.take(',') {
            return None;
        }
    }
    // RFC 6455 section 9.1: a header that is there names at least one extension.
    (!extensions.is_empty()).then_some(extensions)
}

struct Cursor<'b> {
    rest: &'b str,
}

impl<'b> Cursor<'b> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn take(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take_token(&mut self) -> Option<&'b str> {
        let len = self.rest.bytes().take_while(|byte| is_token(&[*byte])).count();
        // Tokens are ASCII, so `len` is at a character's border.
        let (token, rest) = self.rest.split_at(len);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    /// Takes a quoted string; what it says must be a token (RFC 6455 section 9.1).
    fn take_quoted(&mut self) -> Option<String> {
        let mut said = String::new();
        let mut characters = self.rest.strip_prefix('"')?.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => said.push(characters.next()?),
                other => said.push(other),
            }
        }
        self.rest = characters.as_str();
        is_token(said.as_bytes()).then_some(said)
    }
}

fn refusal(text: &'static str) -> Refusal {
    Refusal { status: 400, headers: &[], text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{parse_request_head, parse_response_head};

    const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    /// Runs the server's half; `Ok` is the response, whether deflate is on, and the subprotocol.
    fn run(
        request: &str,
        allow_deflate: bool,
    ) -> Result<(String, bool, Option<String>), (u16, &'static str)> {
        let (head, _) =
            parse_request_head(request.as_bytes(), 16 * 1024, 100).expect("valid").expect("whole");
        let options = Options {
            allowed_origins: &AllowedOrigins::default(),
            subprotocols: &["centrifuge-json", "centrifuge-protobuf"],
            allow_deflate,
        };
        match accept(&head, &options) {
            Ok(accepted) => {
                let response = String::from_utf8(accepted.response).expect("ASCII");
                Ok((response, accepted.deflate, accepted.subprotocol.map(str::to_owned)))
            }
            Err(refusal) => Err((refusal.status, refusal.text)),
        }
    }

    fn with_line(line: &str) -> String {
        GOOD.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
    }

    #[test]
    fn the_example_of_rfc_6455_section_1_3_is_accepted() {
        let (response, deflate, subprotocol) = run(GOOD, true).expect("accepted");
        assert_eq!(
            response,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        assert!(!deflate && subprotocol.is_none());
    }

    #[test]
    fn what_is_equivalent_is_accepted() {
        for (from, to) in [
            ("Upgrade: websocket", "upgrade: WebSocket"),
            ("Upgrade: websocket", "Upgrade: h2c, websocket"),
            ("Connection: Upgrade", "Connection: keep-alive, upgrade"),
            ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: UPGRADE"),
            ("GET /ws", "GET http://a.example/ws"),
            ("Host: a.example", "Host: a.example\r\nOrigin: http://a.example"),
            ("Host: a.example", "Host: a.example\r\nContent-Length: 0"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "abcdefghijklmnopqrstuv=="),
        ] {
            assert!(run(&GOOD.replace(from, to), false).is_ok(), "{to}");
        }
    }

    #[test]
    fn every_broken_rule_has_its_status() {
        for (from, to, status) in [
            ("GET", "POST", 405),
            ("GET", "get", 405),
            ("HTTP/1.1", "HTTP/1.0", 400),
            ("Upgrade: websocket\r\n", "", 400),
            ("Upgrade: websocket", "Upgrade: websockets", 400),
            ("Connection: Upgrade\r\n", "", 400),
            ("Connection: Upgrade", "Connection: keep-alive", 400),
            ("Version: 13", "Version: 12", 426),
            ("Version: 13", "Version: 8", 426),
            ("Version: 13", "Version: 013", 426),
            ("Version: 13", "Version: 13, 8", 426),
            ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", 426),
            ("Sec-WebSocket-Version: 13\r\n", "", 426),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZTE=", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!!==", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==, x", 400),
            ("Sec-WebSocket-Key", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Key", 400),
            ("Host: a.example", "Host: a.example\r\nContent-Length: 5", 400),
            ("Host: a.example", "Host: a.example\r\nTransfer-Encoding: chunked", 400),
            ("Host: a.example", "Host: a.example\r\nOrigin: http://b.example", 403),
            ("Host: a.example", "Host: a.example\r\nOrigin: null", 403),
            ("Host: a.example", "Host: a.example\r\nSec-WebSocket-Protocol: a b", 400),
            ("Host: a.example", "Host: a.example\r\nSec-WebSocket-Protocol: caf\u{e9}", 400),
            ("Host: a.example", "Host: a.example\r\nSec-WebSocket-Extensions: a;;b", 400),
            ("Host: a.example", "Host: a.example\r\nSec-WebSocket-Extensions: a; b=", 400),
            ("Host: a.example", "Host: a.example\r\nSec-WebSocket-Extensions: a b", 400),
            ("Host: a.example", "Host: a.example\r\nSec-WebSocket-Extensions: a; b=\"c", 400),
            ("Host: a.example", "Host: a.example\r\nSec-WebSocket-Extensions: a; b=\"c d\"", 400),
            ("Host: a.example", "Host: a.example\r\nSec-WebSocket-Extensions: \u{e9}", 400),
            ("Host: a.example", "Host: a.example\r\nSec-WebSocket-Extensions:", 400),
        ] {
            let refused = run(&GOOD.replacen(from, to, 1), true).map(|_| ()).map_err(|(status, _)| status);
            assert_eq!(refused, Err(status), "{from} replaced by {to}");
        }
    }

    #[test]
    fn a_wrong_version_is_told_the_right_one() {
        let request = GOOD.replace("Version: 13", "Version: 12");
        let (head, _) = parse_request_head(request.as_bytes(), 1024, 100).expect("valid").expect("whole");
        let allowed_origins = AllowedOrigins::default();
        let options = Options { allowed_origins: &allowed_origins, subprotocols: &[], allow_deflate: false };
        let response = accept(&head, &options).expect_err("version 12").response();
        let (head, consumed) = parse_response_head(&response, 1024, 100).expect("valid").expect("whole");
        assert_eq!(head.status, 426);
        assert_eq!(head.headers.first("sec-websocket-version"), Some(&b"13"[..]));
        assert!(
            head.headers.has_token("upgrade", "websocket") && head.headers.has_token("connection", "upgrade")
        );
        let length = head.headers.first_str("content-length").and_then(|length| length.parse().ok());
        assert_eq!(length, Some(response.len() - consumed));
    }

    #[test]
    fn the_clients_first_subprotocol_that_is_spoken_is_chosen() {
        for (asked, chosen) in [
            ("centrifuge-protobuf, centrifuge-json", Some("centrifuge-protobuf")),
            ("other, centrifuge-json", Some("centrifuge-json")),
            ("other", None),
            ("Centrifuge-JSON", None),
            ("other\r\nSec-WebSocket-Protocol: centrifuge-json", Some("centrifuge-json")),
        ] {
            let request = with_line(&format!("Sec-WebSocket-Protocol: {asked}"));
            let (response, _, subprotocol) = run(&request, false).expect("accepted");
            assert_eq!(subprotocol.as_deref(), chosen, "{asked}");
            assert_eq!(response.contains("Sec-WebSocket-Protocol"), chosen.is_some());
        }
    }

    #[test]
    fn permessage_deflate_is_negotiated_to_the_letter() {
        let plain = Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        let window = Some(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15",
        );
        for (offer, answer) in [
            ("permessage-deflate", plain),
            ("permessage-deflate; client_max_window_bits", plain),
            ("permessage-deflate;client_max_window_bits=8", plain),
            ("permessage-deflate; client_max_window_bits=\"15\"", plain),
            ("permessage-deflate; client_max_window_bits=\"1\\5\"", plain),
            ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", plain),
            ("permessage-deflate ; server_max_window_bits=15", window),
            ("permessage-deflate; server_max_window_bits=10", None),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", plain),
            (
                "permessage-deflate; server_max_window_bits=8\r\nSec-WebSocket-Extensions: permessage-deflate",
                plain,
            ),
            ("x-other, , permessage-deflate", plain),
            ("x-other; a=b; c=\"d\"", None),
            ("permessage-deflate; unknown", None),
            ("permessage-deflate; unknown=1, permessage-deflate", plain),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_no_context_takeover=true", None),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", None),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
            ("permessage-deflate; client_max_window_bits=15; client_max_window_bits=15", None),
            ("permessage-deflate; server_max_window_bits=15; server_max_window_bits=15", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=7", None),
            ("permessage-deflate; server_max_window_bits=015", None),
            ("permessage-deflate; client_max_window_bits=16", None),
            ("permessage-deflate; client_max_window_bits=7", None),
            ("permessage-deflate; client_max_window_bits=08", None),
            ("permessage-deflate; client_max_window_bits=abc", None),
            ("permessage-deflate; client_max_window_bits=-8", None),
            ("permessage-deflates", None),
            ("x-webkit-deflate-frame", None),
        ] {
            let request = with_line(&format!("Sec-WebSocket-Extensions: {offer}"));
            let (response, deflate, _) = run(&request, true).expect("a declined offer is no error");
            let answered = response.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
            assert_eq!(answered, answer, "{offer}");
            assert_eq!(deflate, answer.is_some());
            let (response, deflate, _) = run(&request, false).expect("accepted");
            assert!(!deflate && !response.contains("Extensions"));
        }
    }

    fn client<'a>(offer_deflate: bool) -> ClientRequest<'a> {
        ClientRequest {
            host: "a.example:8000",
            target: "/ws?x=1",
            key: *b"the sample nonce",
            origin: None,
            subprotocols: &["centrifuge-json"],
            offer_deflate,
            headers: &[("Authorization", "Bearer x")],
        }
    }

    #[test]
    fn both_halves_understand_each_other() {
        for deflate in [false, true] {
            let request = client(deflate);
            let text = String::from_utf8(request.encode().expect("valid")).expect("ASCII");
            assert!(text.contains("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"));
            let (response, ..) = run(&text, true).expect("accepted");
            let (head, _) =
                parse_response_head(response.as_bytes(), 1024, 100).expect("valid").expect("whole");
            let agreement = Agreement { subprotocol: Some("centrifuge-json"), deflate };
            assert_eq!(request.verify(&head), Ok(agreement));
        }
    }

    #[test]
    fn a_request_that_would_break_its_lines_is_not_sent() {
        let good = client(false);
        for (request, part) in [
            (ClientRequest { host: "a\r\nX: y", ..good }, "host"),
            (ClientRequest { target: "/ HTTP/1.1\r\n", ..good }, "target"),
            (ClientRequest { target: "x", ..good }, "target"),
            (ClientRequest { origin: Some("a b"), ..good }, "origin"),
            (ClientRequest { subprotocols: &["a,b"], ..good }, "subprotocol"),
            (ClientRequest { headers: &[("A", "b\r\nC: d")], ..good }, "header"),
            (ClientRequest { headers: &[("A:", "b")], ..good }, "header"),
        ] {
            assert_eq!(request.encode(), Err(HandshakeError::Request(part)));
        }
    }

    #[test]
    fn an_answer_that_breaks_a_rule_is_refused_by_the_client() {
        let good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let verify = |text: &str, deflate| {
            let (head, _) = parse_response_head(text.as_bytes(), 4096, 100).expect("valid").expect("whole");
            client(deflate).verify(&head)
        };
        assert!(verify(good, true).is_ok_and(|agreement| !agreement.deflate));
        for (from, to) in [
            ("HTTP/1.1", "HTTP/1.0"),
            ("101", "200"),
            ("Upgrade: websocket", "Upgrade: websocket2"),
            ("Upgrade: websocket\r\n", ""),
            ("Connection: Upgrade", "Connection: close"),
            ("s3pP", "S3pP"),
            ("Connection: Upgrade", "Connection: Upgrade\r\nSec-WebSocket-Protocol: other"),
            (
                "Connection: Upgrade",
                "Connection: Upgrade\r\nSec-WebSocket-Protocol: centrifuge-json\r\nSec-WebSocket-Protocol: centrifuge-json",
            ),
        ] {
            assert!(verify(&good.replacen(from, to, 1), true).is_err(), "{from} replaced by {to}");
        }
        for (extension, accepted) in [
            ("permessage-deflate; server_no_context_takeover", true),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9",
                true,
            ),
            ("permessage-deflate", false),
            ("permessage-deflate; client_no_context_takeover", false),
            ("permessage-deflate; server_no_context_takeover; client_max_window_bits=15", false),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", false),
            ("permessage-deflate; server_no_context_takeover; other", false),
            (
                "permessage-deflate; server_no_context_takeover, permessage-deflate; server_no_context_takeover",
                false,
            ),
            ("other", false),
            (";", false),
        ] {
            let line = format!("Sec-WebSocket-Extensions: {extension}\r\n\r\n");
            let text = good.replace("\r\n\r\n", &format!("\r\n{line}"));
            let agreement = verify(&text, true);
            assert_eq!(agreement.is_ok_and(|agreement| agreement.deflate), accepted, "{extension}");
            assert!(verify(&text, false).is_err(), "{extension} was not offered");
        }
    }
}
