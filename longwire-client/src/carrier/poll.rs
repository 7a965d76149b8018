//! Long-poll: one request, one answer, and again, on one line for as long as the server lets it be used.
//!
//! Which line that is, is the business of `core`: this reads answers. What must stay true: an answer is bounded; bytes
//! behind it that nobody asked for end the connection.

use super::http::{Answer, HeadReader};
use super::{Inbound, Step};
use crate::cause::Cause;
use bytes::Bytes;
use longwire_protocol::http::body::{BodyDecoder, BodyError, ResponseBody};
use longwire_protocol::websocket::Kind;

/// The answer that is awaited.
#[derive(Debug, Default)]
pub(crate) struct Poll {
    head: HeadReader,
    body: Option<(Answer, BodyDecoder)>,
    content: Vec<u8>,
    max_message_bytes: usize,
    is_awaited: bool,
}

impl Poll {
    pub(crate) fn new(max_message_bytes: usize) -> Poll {
        Poll { max_message_bytes, ..Poll::default() }
    }

    /// Notes that a request was written.
    pub(crate) fn ask(&mut self) {
        *self = Poll { is_awaited: true, ..Poll::new(self.max_message_bytes) };
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Whether part of the answer came.
    pub(crate) fn has_begun(&self) -> bool {
        self.head.has_begun() || self.body.is_some()
    }

    pub(super) fn decode<'a>(&mut self, input: &mut &[u8]) -> Result<Option<Step<'a>>, Cause> {
        let answer = self.take(input)?;
        Ok(answer.map(|(answer, content)| {
            if answer.keeps_alive {
                Step::Inbound(Inbound::Message(Kind::Text, content))
            } else {
                Step::LastAnswer(content)
            }
        }))
    }

    /// Takes the answer from the front of `input`, once all of it is there.
    ///
    /// # Errors
    ///
    /// The answer is a refusal, too long, malformed, or was not asked for.
    pub(crate) fn take(&mut self, input: &mut &[u8]) -> Result<Option<(Answer, Bytes)>, Cause> {
        if input.is_empty() {
            return Ok(None);
        }
        if !self.is_awaited {
            return Err(Cause::Protocol("an answer came that nobody asked for".to_owned()));
        }
        let broken = |error: BodyError| Cause::Protocol(error.to_string());
        if self.body.is_none() {
            let Some(answer) = self.head.take(input, Answer::granted)? else { return Ok(None) };
            if answer.body == ResponseBody::UntilClose {
                return Err(Cause::Protocol("the answer does not say how long it is".to_owned()));
            }
            let decoder = BodyDecoder::new(answer.body, self.max_message_bytes as u64).map_err(broken)?;
            self.body = Some((answer, decoder));
        }
        let Some((_, decoder)) = &mut self.body else { return Ok(None) };
        while let Some(piece) = decoder.decode(input).map_err(broken)? {
            self.content.extend_from_slice(piece);
        }
        if !decoder.is_complete() {
            return Ok(None);
        }
        self.is_awaited = false;
        let content = Bytes::from(std::mem::take(&mut self.content));
        Ok(self.body.take().map(|(answer, _)| (answer, content)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_nothing_however_it_is_cut() {
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        for step in 1..=text.len() {
            let mut poll = Poll::new(5);
            poll.ask();
            let mut answers = Vec::new();
            for mut piece in text.chunks(step) {
                if let Some((answer, content)) = poll.take(&mut piece).unwrap() {
                    answers.push((answer.keeps_alive, content));
                }
            }
            assert_eq!(answers, [(true, Bytes::from_static(b"abcde"))], "in pieces of {step}");
            assert!(!poll.is_awaited());
        }
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for (text, name) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef"[..], "protocol"),
            (b"HTTP/1.1 200 OK\r\n\r\nabc", "protocol"),
            (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "status"),
        ] {
            let mut poll = Poll::new(5);
            poll.ask();
            assert_eq!(poll.take(&mut &text[..]).unwrap_err().name(), name);
        }
        assert!(Poll::new(5).take(&mut &b"HTTP/1.1 200 OK\r\n"[..]).is_err(), "unasked");
    }

    #[test]
    fn an_answer_without_content_is_an_answer() {
        let mut poll = Poll::new(5);
        poll.ask();
        let mut text = &b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"[..];
        let (answer, content) = poll.take(&mut text).unwrap().expect("whole");
        assert!(!answer.keeps_alive && content.is_empty());
    }
}
