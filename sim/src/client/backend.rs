//! A backend's HTTP/1.1 connection to the API, kept alive: requests out, responses in, one at a time.
//!
//! What PHP's client library does, without a socket: the caller writes the request's bytes and gives what
//! comes back, cut anywhere. What it is not: it opens no connection, retries nothing and reads no JSON. It
//! takes only what longwire sends, bodies with a length, and refuses every response about which it could be
//! wrong. What must stay true: a response is believed only while a request waits for it.

use longwire_protocol::http::parse_response_head;

const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 100;

/// The longest body that is taken.
const MAX_BODY_BYTES: usize = 64 << 20;

/// One connection of one backend.
#[derive(Debug)]
pub struct Backend {
    host: String,
    /// What came of the response so far.
    received: Vec<u8>,
    is_waiting: bool,
    is_usable: bool,
}

impl Backend {
    /// A connection that was just opened to `host[:port]`.
    pub fn new(host: &str) -> Backend {
        Backend { host: host.to_owned(), received: Vec::new(), is_waiting: false, is_usable: true }
    }

    /// Makes the bytes of a call, such as of `/api/publish`; `None` while a call waits for its response or
    /// after the last one that this connection carries.
    pub fn request(&mut self, path: &str, body: &str, key: Option<&str>) -> Option<Vec<u8>> {
        self.post(path, "application/json", key, body.as_bytes())
    }

    /// As [`request`](Self::request), with any content.
    pub fn post(
        &mut self,
        path: &str,
        content_type: &str,
        key: Option<&str>,
        body: &[u8],
    ) -> Option<Vec<u8>> {
        if self.is_waiting || !self.is_usable {
            return None;
        }
        self.is_waiting = true;
        let key = key.map_or(String::new(), |key| format!("X-API-Key: {key}\r\n"));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{key}\r\n",
            self.host,
            body.len(),
        );
        Some([head.as_bytes(), body].concat())
    }

    /// Takes what came; status and body once the response is whole.
    ///
    /// # Errors
    /// What is wrong with the response. The connection is then good for nothing.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Option<(u16, Vec<u8>)>, String> {
        self.received.extend_from_slice(bytes);
        let outcome = self.read();
        if outcome.is_err() {
            self.is_usable = false;
        }
        outcome.map_err(|what| format!("api: {what}"))
    }

    /// Whether a call waits for its response: if the connection breaks, nobody knows whether it was carried
    /// out.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Whether another call can go over this connection.
    pub fn is_usable(&self) -> bool {
        self.is_usable
    }

    fn read(&mut self) -> Result<Option<(u16, Vec<u8>)>, String> {
        if self.received.is_empty() {
            return Ok(None);
        }
        if !self.is_waiting {
            return Err("bytes that no request asked for".to_owned());
        }
        let parsed = parse_response_head(&self.received, MAX_HEAD_BYTES, MAX_HEADERS);
        let Some((head, consumed)) = parsed.map_err(|error| format!("the response's head: {error}"))? else {
            return Ok(None);
        };
        let status = head.status;
        if !(200..600).contains(&status) {
            return Err(format!("the status {status}"));
        }
        if head.headers.first("transfer-encoding").is_some() {
            return Err("a transfer coding".to_owned());
        }
        let length = match head.headers.at_most_one("content-length") {
            // RFC 9110 section 15.3.5: it has no body.
            Ok(None) if status == 204 => 0,
            Ok(Some(digits)) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                let digits = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                digits.filter(|length| *length <= MAX_BODY_BYTES).ok_or("a body that is too long")?
            }
            _ => return Err("no length that can be relied on".to_owned()),
        };
        let closes = !head.is_http_11 || head.headers.has_token("connection", "close");
        let Some(rest) = self.received.len().checked_sub(consumed + length) else { return Ok(None) };
        if rest > 0 {
            return Err(format!("{rest} bytes behind the response"));
        }
        let body = self.received.split_off(consumed);
        self.received.clear();
        self.is_waiting = false;
        self.is_usable = !closes;
        Ok(Some((status, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"result\":{}}";

    fn waiting() -> Backend {
        let mut backend = Backend::new("api:8000");
        backend.request("/api/publish", "{}", None).unwrap();
        backend
    }

    #[test]
    fn a_request_has_its_form_and_only_one_is_under_way() {
        let mut backend = Backend::new("api:8000");
        let request = backend.request("/api/publish", "{\"channel\":\"\u{e9}\"}", Some("k")).unwrap();
        assert_eq!(
            String::from_utf8(request).unwrap(),
            "POST /api/publish HTTP/1.1\r\nHost: api:8000\r\nContent-Type: application/json\r\n\
             Content-Length: 16\r\nX-API-Key: k\r\n\r\n{\"channel\":\"\u{e9}\"}"
        );
        assert_eq!(backend.request("/api/info", "{}", None), None);
        assert!(backend.is_waiting());
    }

    #[test]
    fn a_response_is_read_however_it_is_cut_and_the_connection_goes_on() {
        for cut in 0..=PUBLISHED.len() {
            let mut backend = waiting();
            let mut answers = Vec::new();
            for part in [&PUBLISHED[..cut], &PUBLISHED[cut..]] {
                answers.extend(backend.handle_bytes(part).unwrap());
            }
            assert_eq!(answers, [(200, b"{\"result\":{}}".to_vec())], "cut at {cut}");
            assert!(!backend.is_waiting() && backend.request("/api/info", "{}", None).is_some());
        }
    }

    #[test]
    fn a_connection_that_the_server_closes_carries_no_other_call() {
        let mut backend = waiting();
        let last = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        assert_eq!(backend.handle_bytes(last), Ok(Some((401, Vec::new()))));
        assert!(!backend.is_usable());
        assert_eq!(backend.request("/api/info", "{}", None), None);
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        for bad in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\ncontent-length: 1x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxy",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            let mut backend = waiting();
            assert!(backend.handle_bytes(bad.as_bytes()).is_err(), "{bad:?}");
            assert!(!backend.is_usable());
        }
        assert!(Backend::new("api").handle_bytes(PUBLISHED).is_err(), "nothing was asked");
    }
}
