//! How lines, chunks and answers to polls are told apart.
//!
//! It knows nothing of what they say. What must stay true: the same bytes give the same lines however they are cut, and
//! nothing is kept beyond [`MAX_BYTES`].

use longwire_protocol::http::parse_response_head;

/// A longer line or answer ends the link.
const MAX_BYTES: usize = 16 << 20;

const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 100;

/// What comes of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// This status, in place of a stream or an answer.
    Refused(u16),
    /// A line, or a body.
    Text(String),
    /// There is nothing to say.
    Nothing,
    /// The stream is over.
    End,
}

/// Takes a line from the front of `input`, without its end; `None` once all of it was taken.
///
/// # Errors
/// The line is too long, or is no text.
pub(super) fn take_line(held: &mut Vec<u8>, input: &mut &[u8]) -> Result<Option<String>, String> {
    let end = input.iter().position(|byte| *byte == b'\n');
    let taken = end.map_or(input.len(), |end| end + 1);
    held.extend_from_slice(&input[..taken]);
    *input = &input[taken..];
    if held.len() > MAX_BYTES {
        return Err("a line is longer than any client would keep".into());
    }
    if end.is_none() {
        return Ok(None);
    }
    let mut line = std::mem::take(held);
    line.pop();
    String::from_utf8(line).map(Some).map_err(|error| error.to_string())
}

/// The lines of a response in chunks, each of which is one line.
#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    has_begun: bool,
}

impl Lines {
    /// Takes bytes.
    pub(super) fn feed(&mut self, input: &mut &[u8]) {
        self.bytes.extend_from_slice(input);
        *input = &[];
    }

    /// What comes next in the bytes that were taken; `None` if more are needed.
    ///
    /// # Errors
    /// What breaks the rules of HTTP, or a chunk that is not one line.
    pub(super) fn take(&mut self) -> Result<Option<Answer>, String> {
        if self.bytes.len() > MAX_BYTES {
            return Err("a chunk is longer than any client would keep".into());
        }
        if !self.has_begun {
            let parsed = parse_response_head(&self.bytes, MAX_HEAD_BYTES, MAX_HEADERS);
            let Some((head, consumed)) = parsed.map_err(|error| format!("the response's head: {error}"))?
            else {
                return Ok(None);
            };
            if head.status != 200 {
                return Ok(Some(Answer::Refused(head.status)));
            }
            if head.headers.first_str("transfer-encoding") != Some("chunked") {
                return Err("the response does not come in chunks".into());
            }
            self.has_begun = true;
            self.bytes.drain(..consumed);
        }
        let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&self.bytes[..end]).map_err(|error| error.to_string())?;
        let size = usize::from_str_radix(size, 16).map_err(|error| format!("a chunk's size: {error}"))?;
        if size > MAX_BYTES {
            return Err("a chunk is longer than any client would keep".into());
        }
        let start = end + 2;
        if self.bytes.len() < start + size + 2 {
            return Ok(None);
        }
        let mut line = self.bytes[start..start + size].to_vec();
        let behind: Vec<u8> = self.bytes.drain(..start + size + 2).skip(start + size).collect();
        if behind != b"\r\n" {
            return Err("a chunk does not end where it says".into());
        }
        if size == 0 {
            return Ok(Some(Answer::End));
        }
        if line.pop() != Some(b'\n') || line.contains(&b'\n') {
            return Err("a chunk is not one line".into());
        }
        String::from_utf8(line).map(|line| Some(Answer::Text(line))).map_err(|error| error.to_string())
    }
}

/// Reads the answers to polls, one after the other.
#[derive(Default)]
pub(super) struct PollReader {
    bytes: Vec<u8>,
}

impl PollReader {
    /// Takes the answer from `input`, and whether the connection carries another request; `None` while it is not whole.
    ///
    /// # Errors
    /// What breaks the rules of HTTP.
    pub(super) fn poll(&mut self, input: &mut &[u8]) -> Result<Option<(Answer, bool)>, String> {
        self.bytes.extend_from_slice(input);
        *input = &[];
        if self.bytes.len() > MAX_BYTES {
            return Err("an answer is longer than any client would keep".into());
        }
        let parsed = parse_response_head(&self.bytes, MAX_HEAD_BYTES, MAX_HEADERS);
        let Some((head, consumed)) = parsed.map_err(|error| format!("the answer's head: {error}"))? else {
            return Ok(None);
        };
        let (status, keeps_alive) = (head.status, !head.headers.has_token("connection", "close"));
        if matches!(status, 200 | 204) {
            if head.headers.first_str("cache-control") != Some("no-store") {
                return Err("an answer that a cache may keep".into());
            }
            if head.headers.first("etag").is_some() || head.headers.first("transfer-encoding").is_some() {
                return Err("an answer with a tag or a transfer coding".into());
            }
        }
        let length = match head.headers.at_most_one("content-length") {
            Ok(None) if status == 204 => 0,
            Ok(Some(digits)) if status != 204 => {
                let digits = std::str::from_utf8(digits).map_err(|error| error.to_string())?;
                digits.parse::<usize>().map_err(|error| format!("the length {digits}: {error}"))?
            }
            _ => return Err(format!("no length that can be relied on, with {status}")),
        };
        if self.bytes.len() < consumed.saturating_add(length) {
            return Ok(None);
        }
        if self.bytes.len() > consumed + length {
            return Err("bytes behind the answer".into());
        }
        let body = self.bytes.split_off(consumed);
        self.bytes.clear();
        let answer = match status {
            200 => Answer::Text(String::from_utf8(body).map_err(|error| error.to_string())?),
            204 => Answer::Nothing,
            _ => Answer::Refused(status),
        };
        Ok(Some((answer, keeps_alive)))
    }
}
