//! One connection of the doctor's: bytes with a deadline, and the heads of HTTP answers.
//!
//! What must stay true: nothing waits without a deadline, and what a server sends is kept only up to a bound.

use super::seen::Closing;
use crate::env::Clock;
use crate::env::net::dial::Dialled;
use longwire_protocol::http::body::ResponseBody;
use longwire_protocol::http::{ResponseHead, parse_response_head};
use std::io;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is kept of what nobody has used.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// The longest head of an answer, and its lines.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;

/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;

/// A connection.
pub(super) struct Line {
    stream: Dialled,
    clock: Clock,
    /// What came and was not used.
    pub(super) received: Vec<u8>,
}

/// Why something did not come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Break {
    /// The deadline passed.
    TimedOut,
    /// The peer ended the connection.
    Ended,
    /// It was reset.
    Reset,
    /// More came than is kept, or what came breaks the protocol.
    Wrong(String),
    /// The system's words.
    Failed(String),
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    /// What follows it, or why that is not to be understood.
    pub(super) body: Result<ResponseBody, &'static str>,
    fields: Vec<(String, String)>,
}

impl Line {
    pub(super) fn new(stream: Dialled, clock: Clock) -> Line {
        Line { stream, clock, received: Vec::new() }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Writes all of it.
    pub(super) async fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Break> {
        let span = deadline.saturating_duration_since(self.clock.now());
        let writing = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match self.clock.timeout(span, writing).await {
            None => Err(Break::TimedOut),
            Some(written) => written.map_err(|error| Break::of(&error)),
        }
    }

    /// Reads more; how much came. What came stays complete if this is given up.
    pub(super) async fn read_more(&mut self, deadline: Instant) -> Result<usize, Break> {
        if self.received.len() >= MAX_KEPT_BYTES {
            return Err(Break::Wrong("it sends more than is looked at".to_owned()));
        }
        let span = deadline.saturating_duration_since(self.clock.now());
        let mut scratch = [0; READ_BYTES];
        match self.clock.timeout(span, self.stream.read(&mut scratch)).await {
            None => Err(Break::TimedOut),
            Some(Ok(0)) => Err(Break::Ended),
            Some(Ok(count)) => {
                self.received.extend_from_slice(&scratch[..count]);
                Ok(count)
            }
            Some(Err(error)) => Err(Break::of(&error)),
        }
    }

    /// Reads the head of an answer; what follows it stays.
    pub(super) async fn head(&mut self, deadline: Instant) -> Result<Head, Break> {
        loop {
            // An answer to come (1xx) is none, but for the one that changes the protocol.
            while let Some((head, consumed)) = Head::parse(&self.received)? {
                self.received.drain(..consumed);
                if head.status >= 200 || head.status == 101 || head.status == 100 {
                    return Ok(head);
                }
            }
            self.read_more(deadline).await?;
        }
    }

    /// Reads the beginning of a body, until its end, so many bytes, or the deadline.
    pub(super) async fn beginning(&mut self, head: &Head, max_bytes: usize, deadline: Instant) -> String {
        let length = head.header("content-length").and_then(|text| text.parse::<usize>().ok());
        let enough = length.unwrap_or(max_bytes).min(max_bytes);
        while self.received.len() < enough && self.read_more(deadline).await.is_ok() {}
        String::from_utf8_lossy(&self.received[..self.received.len().min(max_bytes)]).into_owned()
    }

    /// Whether what came first is a record of TLS: an alert.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.received[..], [0x15, 3, ..])
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Break> {
        let parsed = parse_response_head(bytes, MAX_HEAD_BYTES, MAX_HEADERS);
        let parsed = parsed.map_err(|error| Break::Wrong(error.to_string()))?;
        Ok(parsed.map(|(head, consumed)| (Head::of(&head), consumed)))
    }

    /// What is kept of a head.
    pub(super) fn of(head: &ResponseHead<'_>) -> Head {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let fields = head.headers.iter().map(|(name, value)| (name.to_owned(), text(value)));
        Head { status: head.status, body: head.body().map_err(|error| error.what), fields: fields.collect() }
    }

    /// The value of the first header of that name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl Break {
    fn of(error: &io::Error) -> Break {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Break::Reset,
            // TLS that ends without its last word.
            io::ErrorKind::UnexpectedEof => Break::Ended,
            _ => Break::Failed(error.to_string()),
        }
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        match self {
            Break::TimedOut => "nothing came in time".to_owned(),
            Break::Ended => "the connection was ended without a word".to_owned(),
            Break::Reset => "the connection was reset".to_owned(),
            Break::Wrong(what) => format!("what came breaks the protocol: {what}"),
            Break::Failed(what) => what.clone(),
        }
    }

    /// As the end of a connection; none if it goes on.
    pub(super) fn closing(&self) -> Option<Closing> {
        match self {
            Break::TimedOut => None,
            Break::Ended => Some(Closing::Ended),
            Break::Reset => Some(Closing::Reset),
            Break::Wrong(_) | Break::Failed(_) => Some(Closing::Failed(self.text())),
        }
    }
}
