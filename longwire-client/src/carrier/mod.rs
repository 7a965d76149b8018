//! The bytes of a line to messages and back: one carrier for each transport.
//!
//! A carrier belongs to one connection, and dies with it. It dials nothing, waits for nothing and knows neither dialect
//! nor login: `core` gives it what came and writes what it leaves in `out`. What must stay true: the same bytes give the
//! same messages however they are cut; nothing longer than the client's bound is kept; what a server must not send ends
//! in a [`Cause`], never in a panic.

pub(crate) mod http;
pub(crate) mod poll;
pub(crate) mod stream;
pub(crate) mod websocket;

use crate::cause::Cause;
use crate::chance::Chance;
use bytes::Bytes;
use longwire_protocol::websocket::Kind;

/// One of them.
#[derive(Debug)]
pub(crate) enum Carrier {
    WebSocket(websocket::WebSocket),
    Stream(Box<stream::Stream>),
    Poll(Box<poll::Poll>),
    Tcp,
}

/// What came, for the dialect to understand.
#[derive(Debug)]
pub(crate) enum Inbound<'a> {
    /// A WebSocket message, a line of a stream, the body of a poll's answer, or the data of an event.
    Message(Kind, Bytes),
    /// An event of server-sent events that has a name of its own.
    Event {
        /// Its name.
        name: String,
        /// Its data.
        data: Bytes,
    },
    /// Raw TCP: the dialect has its own decoder.
    Bytes(&'a [u8]),
}

/// What a carrier makes of what came.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// The handshake is done.
    Opened {
        /// The subprotocol that the server chose.
        subprotocol: Option<String>,
    },
    /// Something for the dialect.
    Inbound(Inbound<'a>),
    /// A ping, which wants what it carried back.
    Pinged(Bytes),
    /// A poll was answered on a line that cannot be used again.
    LastAnswer(Bytes),
    /// The server ended it, in whatever words.
    Ended(Cause),
}

impl Carrier {
    /// Takes what it can from the front of `input`; `None` once it needs more.
    ///
    /// # Errors
    ///
    /// The rule that the server broke, or its refusal.
    pub(crate) fn decode<'a>(
        &mut self,
        input: &mut &'a [u8],
        chance: &mut Chance,
        out: &mut Vec<u8>,
    ) -> Result<Option<Step<'a>>, Cause> {
        match self {
            Carrier::WebSocket(carrier) => carrier.decode(input, chance, out),
            Carrier::Stream(carrier) => carrier.decode(input),
            Carrier::Poll(carrier) => carrier.decode(input),
            Carrier::Tcp if input.is_empty() => Ok(None),
            Carrier::Tcp => Ok(Some(Step::Inbound(Inbound::Bytes(std::mem::take(input))))),
        }
    }
}
