//! The answer to a long-poll: one JSON object with everything that there is to say.
//!
//! Pushes are gathered as the pieces that all readers share; head, commas and tail are made around them when the
//! answer is given. When that is, the session decides. What must stay true: an answer is given once; its head
//! says how long it is; no cache keeps it; and a connection on which the peer said something meanwhile is not
//! used again, for what it said was not read.

use super::envelope::{self, ChannelState, Welcome, write_token_member, write_welcome_members};
use crate::http::reason_phrase;
use crate::json::{write_key, write_string};
use crate::message::ReplyError;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// One answer, while it is made.
#[derive(Debug)]
pub(crate) struct Poll {
    keep_alive: bool,
    /// The client does not say where it stands.
    is_first: bool,
    wait: Duration,
    /// When the client asked.
    asked: Instant,
    /// Header lines besides our own.
    head: String,
    /// By what name the client comes back.
    name: String,
    /// The first members of the object, once the client is welcome.
    members: Vec<u8>,
    pieces: Vec<Bytes>,
    piece_bytes: usize,
    is_given: bool,
}

impl Poll {
    /// A poll that waits for nothing if it `is_first`.
    pub(super) fn new(
        (keep_alive, is_first): (bool, bool),
        wait: Duration,
        asked: Instant,
        head: String,
        name: String,
    ) -> Poll {
        Poll {
            keep_alive,
            is_first,
            wait,
            asked,
            head,
            name,
            members: Vec::new(),
            pieces: Vec::new(),
            piece_bytes: 0,
            is_given: false,
        }
    }

    /// Notes that bytes came behind the request: a further request, say, which the peer must repeat elsewhere (RFC
    /// 9112 section 9.3.2).
    pub(super) fn hear(&mut self) {
        self.keep_alive = false;
    }

    /// By when the answer is given.
    pub(crate) fn deadline(&self) -> Instant {
        self.asked + self.wait()
    }

    /// Notes that the client, though it does not say where it stands, was told all that a first answer says.
    pub(crate) fn go_on(&mut self) {
        self.is_first = false;
    }

    /// How long the answer may take.
    pub(crate) fn wait(&self) -> Duration {
        if self.is_first { Duration::ZERO } else { self.wait }
    }

    pub(crate) fn is_given(&self) -> bool {
        self.is_given
    }

    pub(crate) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    pub(crate) fn gathered_bytes(&self) -> usize {
        self.piece_bytes
    }

    pub(super) fn welcome(&mut self, welcome: &Welcome, channels: &[ChannelState<'_>]) {
        let mut members = b"{".to_vec();
        write_welcome_members(welcome, channels, &mut members);
        if !self.name.is_empty() {
            write_key("name", &mut members);
            write_string(&self.name, &mut members);
        }
        self.members = members;
    }

    /// Adds a piece; an empty one is nothing. What comes behind the answer is for the next one.
    pub(crate) fn gather(&mut self, piece: Bytes) {
        if !piece.is_empty() && !self.is_given {
            self.piece_bytes += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Makes the answer. `token` says where the reader stands having read it.
    pub(crate) fn finish(&mut self, token: &[u8]) -> Vec<Bytes> {
        if self.is_given {
            return Vec::new();
        }
        self.is_given = true;
        let mut begin = std::mem::take(&mut self.members);
        write_token_member("since", token, &mut begin);
        write_key("publications", &mut begin);
        begin.push(b'[');
        const END: &[u8] = b"]}\n";
        let pieces = std::mem::take(&mut self.pieces);
        let commas = pieces.len().saturating_sub(1);
        let length = begin.len() + self.piece_bytes + commas + END.len();
        self.piece_bytes = 0;
        let mut first = self
            .head("200 OK", &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"))
            .into_bytes();
        first.extend_from_slice(&begin);
        let mut answer = Vec::with_capacity(2 * pieces.len() + 1);
        answer.push(Bytes::from(first));
        for (index, piece) in pieces.into_iter().enumerate() {
            if index > 0 {
                answer.push(Bytes::from_static(b","));
            }
            answer.push(piece);
        }
        answer.push(Bytes::from_static(END));
        answer
    }

    /// Makes the answer that says nothing: the client may ask again, from where it stands.
    pub(crate) fn finish_empty(&mut self) -> Bytes {
        if self.is_given {
            return Bytes::new();
        }
        self.is_given = true;
        // RFC 9110 section 8.6: no Content-Length here.
        self.head("204 No Content", "").into()
    }

    /// Makes the answer to a poll that is refused, or whose session ends.
    pub(super) fn refusal(&self, status: u16, error: &ReplyError) -> Bytes {
        if self.is_given {
            return Bytes::new();
        }
        refusal_response(status, error, &self.head)
    }

    fn head(&self, status: &str, lines: &str) -> String {
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        format!(
            "HTTP/1.1 {status}\r\n{lines}Cache-Control: no-store\r\nConnection: {connection}\r\n{}\r\n",
            self.head
        )
    }
}

/// An HTTP response that refuses a stream or a poll, with the error as JSON. `more` are further header lines.
pub(super) fn refusal_response(status: u16, error: &ReplyError, more: &str) -> Bytes {
    let mut body = b"{\"error\":{\"code\":".to_vec();
    crate::json::write_number(error.code.into(), &mut body);
    write_key("message", &mut body);
    write_string(&error.message, &mut body);
    body.extend_from_slice(b"}}\n");
    let mut response = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n{more}\r\n",
        reason_phrase(status),
        body.len(),
    )
    .into_bytes();
    response.extend_from_slice(&body);
    response.into()
}

/// The object that a piece for one reader alone is.
pub(super) fn error_piece(error: &ReplyError) -> Bytes {
    let mut piece = Vec::new();
    envelope::encode_error(error, &mut piece);
    piece.into()
}
