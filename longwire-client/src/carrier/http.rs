//! Requests of a client and the heads of their answers, as all HTTP carriers need them.

use crate::cause::Cause;
use longwire_protocol::http::body::{BodyDecoder, ResponseBody};
use longwire_protocol::http::{MAX_HEADERS, ResponseHead, is_header_value, is_token, parse_response_head};
use std::time::Duration;

/// How many characters of a refusal are kept.
const MAX_WORDS: usize = 200;

/// The longest head of an answer.
pub(crate) const MAX_HEAD_BYTES: usize = 64 << 10;

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// `GET` or `POST`.
    pub(crate) method: &'static str,
    /// Path and query.
    pub(crate) target: &'a str,
    /// `host[:port]`.
    pub(crate) host: &'a str,
    /// What may be answered.
    pub(crate) accept: &'static str,
    /// The user's own headers.
    pub(crate) headers: &'a [(String, String)],
    /// Type and content.
    pub(crate) body: Option<(&'static str, &'a [u8])>,
}

impl Request<'_> {
    /// Appends the request to `out`.
    ///
    /// # Errors
    ///
    /// Which part cannot be sent, because it would break the head's lines.
    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), Cause> {
        let is_graphic = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_graphic(self.target) || !self.target.starts_with('/') || self.target.contains('#') {
            return Err(malformed("target"));
        }
        if !is_graphic(self.host) {
            return Err(malformed("host"));
        }
        let is_sound =
            |(name, value): &(String, String)| is_token(name.as_bytes()) && is_header_value(value.as_bytes());
        if !self.headers.iter().all(is_sound) {
            return Err(malformed("header"));
        }
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nAccept: {}\r\nCache-Control: no-cache\r\n",
            self.method, self.target, self.host, self.accept
        );
        for (name, value) in self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some((content_type, body)) = self.body {
            head.push_str(&format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        out.extend_from_slice(head.as_bytes());
        if let Some((_, body)) = self.body {
            out.extend_from_slice(body);
        }
        Ok(())
    }
}

/// A request that cannot be sent.
pub(crate) fn malformed(part: &str) -> Cause {
    Cause::Unreachable(format!("the request's {part} is malformed"))
}

/// Gathers the head of an answer.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    kept: Vec<u8>,
}

/// What a head says to whoever reads the body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// What follows.
    pub(crate) body: ResponseBody,
    /// Whether another request may follow on the line.
    pub(crate) keeps_alive: bool,
    /// `Content-Type` without parameters, in lower case.
    pub(crate) content_type: String,
}

impl HeadReader {
    /// Takes the head from the front of `input` and gives it to `read`; `None` once more is needed. Interim answers are
    /// passed over (RFC 9110 section 15.2).
    ///
    /// # Errors
    ///
    /// The head is malformed or too long, or what `read` says.
    pub(crate) fn take<T>(
        &mut self,
        input: &mut &[u8],
        mut read: impl FnMut(&ResponseHead<'_>) -> Result<T, Cause>,
    ) -> Result<Option<T>, Cause> {
        while !input.is_empty() {
            let before = self.kept.len();
            let room = MAX_HEAD_BYTES.saturating_sub(before);
            self.kept.extend_from_slice(&input[..input.len().min(room)]);
            let parsed = parse_response_head(&self.kept, MAX_HEAD_BYTES, MAX_HEADERS)
                .map_err(|error| Cause::Protocol(format!("the answer is not HTTP: {error}")))?;
            let Some((head, consumed)) = parsed else {
                *input = &[];
                return Ok(None);
            };
            // What was kept before held no whole head, so its end is in what was added.
            *input = &input[consumed.saturating_sub(before)..];
            let is_interim = matches!(head.status, 100 | 102..=199);
            let said = *input;
            let result = if is_interim {
                None
            } else {
                Some(read(&head).map_err(|cause| with_words(cause, &head, said))?)
            };
            self.kept = Vec::new();
            if result.is_some() {
                return Ok(result);
            }
        }
        Ok(None)
    }

    /// Whether part of a head is there.
    pub(crate) fn has_begun(&self) -> bool {
        !self.kept.is_empty()
    }
}

impl Answer {
    /// What a head says.
    ///
    /// # Errors
    ///
    /// It does not say how its body ends.
    pub(crate) fn read(head: &ResponseHead<'_>) -> Result<Answer, Cause> {
        let body = head.body().map_err(|error| Cause::Protocol(error.to_string()))?;
        let content_type = head.headers.first_str("content-type").unwrap_or("");
        Ok(Answer {
            body,
            keeps_alive: head.is_http_11
                && !head.headers.has_token("connection", "close")
                && body != ResponseBody::UntilClose,
            content_type: content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase(),
        })
    }

    /// As [`read`](Self::read), where only success is an answer.
    ///
    /// # Errors
    ///
    /// The refusal besides.
    pub(crate) fn granted(head: &ResponseHead<'_>) -> Result<Answer, Cause> {
        if matches!(head.status, 200..=299) { Answer::read(head) } else { Err(refusal(head)) }
    }
}

/// The cause that a status is.
pub(crate) fn refusal(head: &ResponseHead<'_>) -> Cause {
    Cause::Status { status: head.status, retry_after: retry_after(head), text: String::new() }
}

/// Adds to a refusal what was said with it, as far as that came with its head.
fn with_words(cause: Cause, head: &ResponseHead<'_>, said: &[u8]) -> Cause {
    let Cause::Status { status, retry_after, .. } = cause else { return cause };
    let is_page =
        head.headers.first_str("content-type").is_some_and(|of| of.trim_start().starts_with("text/html"));
    let decoder = head.body().ok().and_then(|body| BodyDecoder::new(body, u64::MAX).ok());
    let mut text = String::new();
    if let Some(mut decoder) = decoder.filter(|_| !is_page) {
        let mut content = Vec::new();
        let mut input = &said[..said.len().min(4 * MAX_WORDS)];
        while let Ok(Some(piece)) = decoder.decode(&mut input) {
            content.extend_from_slice(piece);
        }
        let printable = |char: char| if char.is_control() { ' ' } else { char };
        let content: String = String::from_utf8_lossy(&content).chars().map(printable).collect();
        let words: Vec<&str> = content.split_whitespace().collect();
        text = words.join(" ").chars().take(MAX_WORDS).collect();
    }
    Cause::Status { status, retry_after, text }
}

/// `Retry-After`, a number of seconds or a date (RFC 9110 section 10.2.3).
///
/// A date is measured from the answer's own `Date`, by the clock of the server that named both: this machine's may differ.
/// Without a `Date`, which whoever has a clock sends (section 6.6.1), it says nothing.
fn retry_after(head: &ResponseHead<'_>) -> Option<Duration> {
    let text = head.headers.first_str("retry-after")?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let since = httpdate::parse_http_date(head.headers.first_str("date")?.trim()).ok()?;
    // What is past is past: at once.
    Some(until.duration_since(since).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_the_same_however_it_is_cut() {
        let text =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Away\r\nRetry-After: 12\r\nConnection: close\r\n\
            Content-Type: Text/Plain; charset=x\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 0..text.len() {
            let mut reader = HeadReader::default();
            let mut found = None;
            let mut left = Vec::new();
            for mut piece in [&text[..cut], &text[cut..]] {
                if found.is_none() {
                    found = reader.take(&mut piece, Answer::read).unwrap();
                }
                left.extend_from_slice(piece);
            }
            let answer = found.expect("whole");
            assert_eq!((answer.body, answer.keeps_alive), (ResponseBody::Length(3), false));
            assert_eq!((answer.content_type.as_str(), left.as_slice()), ("text/plain", &b"abc"[..]));
        }
    }

    #[test]
    fn a_refusal_says_when_to_ask_again_and_what_came_with_it() {
        let refused = |head: &str, body: &str| {
            let text = format!("HTTP/1.1 403 No\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
            HeadReader::default().take(&mut text.as_bytes(), Answer::granted).unwrap_err()
        };
        let status =
            |retry_after, text: &str| Cause::Status { status: 403, retry_after, text: text.to_owned() };
        let words = refused("Retry-After: 12\r\n", "permission\r\n\x1b[31m denied\n");
        assert_eq!(words, status(Some(Duration::from_secs(12)), "permission [31m denied"));
        assert_eq!(words.to_string(), "the server answered HTTP 403 Forbidden: permission [31m denied");
        let date = "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n";
        for (head, expected) in [
            ("Date: Fri, 31 Dec 1999 23:59:09 GMT\r\n", Some(50)),
            // The forms of old (RFC 9110 section 5.6.7).
            ("Date: Friday, 31-Dec-99 23:59:49 GMT\r\n", Some(10)),
            ("Date: Fri Dec 31 23:58:59 1999\r\n", Some(60)),
            ("Date: Sat, 01 Jan 2000 00:00:00 GMT\r\n", Some(0)),
            ("Date: soon\r\n", None),
            ("", None),
        ] {
            let head = format!("{date}{head}");
            assert_eq!(refused(&head, ""), status(expected.map(Duration::from_secs), ""), "{head}");
        }
        for nonsense in ["", "-1", "1.5", "tomorrow", "Fri, 31 Dec 1999 23:59:59"] {
            let head = format!("Retry-After: {nonsense}\r\nDate: Fri, 31 Dec 1999 23:59:09 GMT\r\n");
            assert_eq!(refused(&head, ""), status(None, ""), "{nonsense}");
        }
        assert_eq!(refused("Content-Type: text/html\r\n", "<html>no</html>"), status(None, ""));
        let Cause::Status { text, .. } = refused("", &"x".repeat(5000)) else { panic!("a status") };
        assert_eq!(text.len(), MAX_WORDS);
        let mut chunked = &b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"[..];
        let error = HeadReader::default().take(&mut chunked, Answer::granted).unwrap_err();
        assert_eq!(error, status(None, "no"));
    }

    #[test]
    fn a_head_without_end_is_given_up() {
        let mut reader = HeadReader::default();
        let mut fed = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        fed.resize(MAX_HEAD_BYTES - 1, b'x');
        assert!(reader.take(&mut &fed[..], Answer::read).unwrap().is_none());
        let error = reader.take(&mut &b"xxx"[..], Answer::read).unwrap_err();
        assert!(matches!(error, Cause::Protocol(_)), "{error}");
        assert!(reader.kept.len() <= MAX_HEAD_BYTES);
    }

    #[test]
    fn what_would_break_a_request_is_not_written() {
        let headers = [("X-Ok".to_owned(), "a\r\nEvil: b".to_owned())];
        let good =
            Request { method: "GET", target: "/a?b", host: "h:1", accept: "*/*", headers: &[], body: None };
        let mut out = Vec::new();
        assert!(good.write(&mut out).is_ok());
        assert!(out.starts_with(b"GET /a?b HTTP/1.1\r\nHost: h:1\r\n") && out.ends_with(b"\r\n\r\n"));
        out.clear();
        for bad in [
            Request { target: "/a b", ..good },
            Request { host: "", ..good },
            Request { headers: &headers, ..good },
        ] {
            assert!(bad.write(&mut out).is_err());
        }
        assert!(out.is_empty());
    }
}
