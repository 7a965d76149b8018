//! One link: a transport's framing, a dialect on top of it, and a heartbeat.
//!
//! A [`Connection`] turns inbound bytes into [`Command`](crate::Command)s and replies and pushes into bytes,
//! whichever dialect is spoken; the session above sees no difference. It knows no channel's options and no
//! permission, touches no socket and asks no clock. What must stay true: nothing the peer sends makes it
//! panic or grow past its limits, and a broken rule becomes a [`Fault`] with a named close reason.

use crate::centrifuge::Format;
use crate::centrifuge::link::Link;
use crate::close::{Close, CloseReason};
use crate::command::Numbered;
use crate::encoding::Encoding;
use crate::error_code::ErrorCode;
use crate::heartbeat::{self, Heartbeat, Intervals};
use crate::message::{Push, Reply, ReplyError};
use crate::plain::poll::Poll;
use crate::plain::{self, event_stream, position_token};
use crate::position::Position;
use crate::stomp;
use bytes::Bytes;
use std::fmt;
use std::time::{Duration, Instant};

/// How bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Transport {
    /// RFC 6455.
    WebSocket,
    /// `text/event-stream` over HTTP.
    EventStream,
    /// A response that goes on, a message at a time.
    HttpStream,
    /// RFC 6455, from the server to the client only.
    UniWebSocket,
    /// `text/event-stream`, from the server to the client only.
    UniEventStream,
    /// A response that goes on, from the server to the client only.
    UniHttpStream,
    /// A request that is answered when there is something to say.
    LongPoll,
    /// Packets over TCP.
    Tcp,
}

impl Transport {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All of them.
    pub const ALL: [Transport; Transport::COUNT] = [
        Transport::WebSocket,
        Transport::EventStream,
        Transport::HttpStream,
        Transport::UniWebSocket,
        Transport::UniEventStream,
        Transport::UniHttpStream,
        Transport::LongPoll,
        Transport::Tcp,
    ];

    /// The word in logs, metrics and webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::WebSocket => "websocket",
            Transport::EventStream => "sse",
            Transport::HttpStream => "http_stream",
            Transport::UniWebSocket => "uni_websocket",
            Transport::UniEventStream => "uni_sse",
            Transport::UniHttpStream => "uni_http_stream",
            Transport::LongPoll => "long_poll",
            Transport::Tcp => "tcp",
        }
    }
}

/// What bytes mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Dialect {
    /// Our own, for clients that have no SDK.
    Plain,
    /// The protocol of the centrifuge SDKs.
    Centrifuge,
    /// STOMP, of any version.
    Stomp,
}

impl Dialect {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All of them.
    pub const ALL: [Dialect; Dialect::COUNT] = [Dialect::Plain, Dialect::Centrifuge, Dialect::Stomp];

    /// The word in logs, metrics and webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Plain => "plain",
            Dialect::Centrifuge => "centrifuge",
            Dialect::Stomp => "stomp",
        }
    }
}

/// Something that came from the peer.
#[derive(Clone, PartialEq, Debug)]
pub enum Inbound {
    /// A command.
    Command(Numbered),
    /// The transport itself wants an answer; these bytes are it.
    Transmit(Bytes),
    /// The peer closes in an orderly way, with a code if it gave one.
    Closed(Option<u16>),
}

/// A rule that the peer broke.
#[derive(Clone, PartialEq, Debug)]
pub struct Fault {
    /// The connection is closed for this.
    pub reason: CloseReason,
    /// What was wrong, for the log.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What became of a reply.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The bytes to write; empty if the dialect says nothing here.
    pub bytes: Bytes,
    /// The connection ends with it.
    pub close: Option<CloseReason>,
    /// What was refused, for the log; empty unless the connection ends.
    pub detail: String,
}

/// One link of one peer.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    /// Signs of life.
    pub heartbeat: Heartbeat,
}

#[derive(Debug)]
enum Wire {
    Centrifuge(Link),
    Plain(Box<plain::link::Link>),
    Stomp(Box<stomp::link::Link>),
}

impl Connection {
    /// A connection of the centrifuge dialect, after its handshake or behind the head of its response.
    pub fn centrifuge(link: Link, now: Instant, intervals: &Intervals, spread: f64) -> Connection {
        let kind = if link.answers_beats() { heartbeat::Kind::TwoWay } else { heartbeat::Kind::OneWay };
        let heartbeat = Heartbeat::new(now, intervals, kind, spread);
        Connection { wire: Wire::Centrifuge(link), heartbeat }
    }

    /// A connection of the plain dialect: the connect and the subscribes of its opening are its first commands, all
    /// later ones are messages.
    ///
    /// Nothing is said before all of the first commands are answered, so that a refusal can still be an HTTP
    /// status. The answer to the connect command may take away subscribes that are to follow: whoever decodes
    /// ahead of the answers asks for more than it needs.
    pub fn plain(opening: plain::Opening, now: Instant, intervals: &Intervals, spread: f64) -> Connection {
        let link = plain::link::Link::new(opening, now);
        let heartbeat = Heartbeat::new(now, intervals, link.heartbeat_kind(), spread);
        Connection { wire: Wire::Plain(Box::new(link)), heartbeat }
    }

    /// A connection of the STOMP dialect: its first command is the connect that CONNECT makes, and nothing is said before
    /// that is answered. `spread` (0.0 to 1.0) is for the heartbeat that is agreed upon with it.
    pub fn stomp(opening: stomp::Opening, now: Instant, spread: f64) -> Connection {
        let link = stomp::link::Link::new(opening, spread);
        let heartbeat = Heartbeat::new(now, &link.intervals(), heartbeat::Kind::Idle, spread);
        Connection { wire: Wire::Stomp(Box::new(link)), heartbeat }
    }

    /// How bytes travel.
    pub fn transport(&self) -> Transport {
        match &self.wire {
            Wire::Centrifuge(link) => link.transport(),
            Wire::Plain(link) => link.transport(),
            Wire::Stomp(link) => link.transport(),
        }
    }

    /// What bytes mean.
    pub fn dialect(&self) -> Dialect {
        match self.wire {
            Wire::Centrifuge(_) => Dialect::Centrifuge,
            Wire::Plain(_) => Dialect::Plain,
            Wire::Stomp(_) => Dialect::Stomp,
        }
    }

    /// What messages are made of.
    pub fn format(&self) -> Format {
        match &self.wire {
            Wire::Centrifuge(link) => link.style().format,
            Wire::Plain(_) | Wire::Stomp(_) => Format::Json,
        }
    }

    /// The form of pushes that this connection wants.
    pub fn encoding(&self) -> Encoding {
        match &self.wire {
            Wire::Centrifuge(link) => Encoding::Centrifuge(link.style()),
            Wire::Plain(link) => link.encoding(),
            Wire::Stomp(link) => link.encoding(),
        }
    }

    /// Whether the peer can say more than it said at the beginning: subscribe again, or show another token. One that
    /// cannot has to reconnect.
    pub fn takes_commands(&self) -> bool {
        matches!(&self.wire, Wire::Centrifuge(link) if !link.is_bare())
    }

    /// Whether pushes may be written: not before the head of a stream, nor before the welcome.
    pub fn is_open(&self) -> bool {
        match &self.wire {
            Wire::Centrifuge(_) | Wire::Stomp(_) => true,
            Wire::Plain(link) => link.is_open(),
        }
    }

    /// Whether more of the peer may come by requests of their own: commands, see [`deliver`](Self::deliver), or messages.
    pub fn is_emulated(&self) -> bool {
        match &self.wire {
            Wire::Centrifuge(link) => !link.answers_beats() && !link.is_bare(),
            Wire::Plain(_) => true,
            Wire::Stomp(_) => false,
        }
    }

    /// Whether nothing but pushes is said.
    pub fn is_bare(&self) -> bool {
        matches!(&self.wire, Wire::Centrifuge(link) if link.is_bare())
    }

    /// Whether beats are announced to the peer, and whether it is told to answer them.
    pub fn beat_terms(&self) -> (bool, bool) {
        match &self.wire {
            Wire::Centrifuge(link) => link.beat_terms(),
            Wire::Plain(_) => (true, false),
            Wire::Stomp(_) => (false, false),
        }
    }

    /// Takes commands that came by another way than the link; [`decode`](Self::decode) gives them out. The plain
    /// dialect has none: what comes beside its links is a message as it is.
    pub fn deliver(&mut self, message: Bytes) {
        match &mut self.wire {
            Wire::Centrifuge(link) => link.deliver(message),
            Wire::Plain(_) | Wire::Stomp(_) => {}
        }
    }

    /// What such commands take that wait to be decoded, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        match &self.wire {
            Wire::Centrifuge(link) => link.waiting_bytes(),
            Wire::Plain(_) | Wire::Stomp(_) => 0,
        }
    }

    /// Takes what comes next from what the peer sent, advancing `input`; `None` means that more bytes are
    /// needed and all of `input` was taken.
    ///
    /// A message of several commands is given out one command a call, so a caller that is busy with one
    /// leaves the rest here.
    ///
    /// # Errors
    /// The rule that the peer broke; nothing can be taken after that.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Inbound>, Fault> {
        match &mut self.wire {
            Wire::Centrifuge(link) => link.decode(input),
            Wire::Plain(link) => link.decode(input),
            Wire::Stomp(link) => link.decode(input),
        }
    }

    /// Whether a message that came beside the link is nothing but a sign of life (plain dialect).
    pub fn is_beat(&self, message: &[u8]) -> bool {
        matches!(&self.wire, Wire::Plain(link) if link.is_beat(message))
    }

    /// Makes the answer to such a sign of life, as the link carries it; empty if there is none.
    pub fn beat_answer(&self) -> Bytes {
        match &self.wire {
            Wire::Plain(link) => link.beat_answer(),
            Wire::Centrifuge(_) | Wire::Stomp(_) => Bytes::new(),
        }
    }

    /// Makes the answer to the command `id`.
    pub fn reply(&mut self, id: u32, reply: &Reply) -> Answer {
        match &mut self.wire {
            Wire::Centrifuge(link) => link.reply(id, reply),
            Wire::Plain(link) => link.reply(id, reply),
            Wire::Stomp(link) => {
                let answer = link.reply(id, reply);
                if matches!(reply, Reply::Connect(_)) {
                    self.heartbeat.follow(&link.intervals(), link.spread());
                }
                answer
            }
        }
    }

    /// Makes a push for this connection alone.
    pub fn push(&mut self, channel: &str, push: &Push) -> Bytes {
        match &mut self.wire {
            Wire::Centrifuge(link) => link.push(channel, push),
            Wire::Plain(link) => link.push(channel, push),
            Wire::Stomp(link) => link.push(channel, push),
        }
    }

    /// Makes what must stand before a shared push on this connection: the id of an event on a stream of
    /// several channels. `positions` are those of all its channels, the push included.
    pub fn prefix<'a>(&self, positions: impl Iterator<Item = (&'a str, Position)>) -> Option<Bytes> {
        if self.encoding() != Encoding::EventStreamWithoutId {
            return None;
        }
        let mut token = Vec::new();
        for (channel, position) in positions {
            position_token::write_position(channel, &position, &mut token);
        }
        let mut id = Vec::with_capacity(token.len() + 8);
        if !token.is_empty() {
            event_stream::write_id(&token, &mut id);
        }
        Some(id.into())
    }

    /// Appends to `out` what is written on this connection for a push of `channel` whose wire form `shared` is the same for
    /// all that want it so: that form itself, or, where a connection may be subscribed to a channel several times (STOMP),
    /// each subscription's own head and that form behind it.
    ///
    /// What is for a subscription whose RECEIPT waits for others' goes out behind that, and is not in `out`.
    ///
    /// # Errors
    /// Too much waits so: the connection is closed.
    pub fn copies(&mut self, channel: &str, shared: &Bytes, out: &mut Vec<Bytes>) -> Result<(), Fault> {
        match &mut self.wire {
            Wire::Stomp(link) => return link.copies(channel, shared, out),
            Wire::Centrifuge(_) | Wire::Plain(_) => out.push(shared.clone()),
        }
        Ok(())
    }

    /// The heartbeat that was agreed upon with the peer, or that there is none; `None` where the server alone says how it
    /// is. It changes with the reply to the connect command.
    pub fn intervals(&self) -> Option<Intervals> {
        match &self.wire {
            Wire::Stomp(link) => Some(link.intervals()),
            Wire::Centrifuge(_) | Wire::Plain(_) => None,
        }
    }

    /// Whether so much waits for earlier answers, or something in such a way, that nothing more should be decoded (STOMP).
    pub fn is_behind(&self) -> bool {
        matches!(&self.wire, Wire::Stomp(link) if link.is_behind())
    }

    /// Says that queues have done what the command `id` says, before that is answered: what was to follow it is given out
    /// by [`decode`](Self::decode), even of no bytes (STOMP).
    pub fn carried_out(&mut self, id: u32) {
        if let Wire::Stomp(link) = &mut self.wire {
            link.carried_out(id);
        }
    }

    /// Whether [`decode`](Self::decode) may give something out without further bytes (STOMP).
    pub fn has_more(&self) -> bool {
        matches!(&self.wire, Wire::Stomp(link) if link.has_more())
    }

    /// Says who the peer is, before its connect command is answered: names of durable subscriptions begin with it (STOMP).
    pub fn identify(&mut self, user: &str) {
        if let Wire::Stomp(link) = &mut self.wire {
            link.identify(user);
        }
    }

    /// Makes a beat; empty where there is nothing to say one with.
    pub fn beat(&self) -> Bytes {
        match &self.wire {
            Wire::Centrifuge(link) => link.beat(),
            Wire::Plain(link) => link.beat(),
            Wire::Stomp(link) => link.beat(),
        }
    }

    /// Makes the last words: a close frame, a disconnect event or packet, or the HTTP refusal of a stream that never
    /// began or of a poll that is not answered.
    pub fn farewell(&self, close: &Close) -> Bytes {
        match &self.wire {
            Wire::Centrifuge(link) => link.farewell(close),
            Wire::Plain(link) => link.farewell(close),
            Wire::Stomp(link) => link.farewell(close),
        }
    }

    /// Takes what was made by [`push`](Self::push), or is shared by all readers, as a piece of the answer to a
    /// long-poll. False if this connection is none, or its client is not welcome yet: then the caller writes it, or
    /// keeps it.
    pub fn gather(&mut self, piece: &Bytes) -> bool {
        let poll = self.poll();
        let is_poll = poll.is_some();
        if let Some(poll) = poll {
            poll.gather(piece.clone());
        }
        is_poll
    }

    /// How many bytes of pieces wait for the answer to a long-poll; 0 anywhere else.
    pub fn gathered_bytes(&self) -> usize {
        self.poll_ref().map_or(0, Poll::gathered_bytes)
    }

    /// Makes the answer to a long-poll whose client is welcome, of all that was gathered; nothing if it was given
    /// already. `token` is the position in all channels, everything gathered included, or empty.
    pub fn finish(&mut self, token: &[u8]) -> Vec<Bytes> {
        self.poll().map_or(Vec::new(), |poll| poll.finish(token))
    }

    /// Makes the answer to a long-poll that there is nothing to say: what was gathered is lost, so the caller has
    /// looked that there is nothing.
    pub fn finish_empty(&mut self) -> Bytes {
        self.poll().map_or(Bytes::new(), Poll::finish_empty)
    }

    /// Lets a long-poll wait as long as it asks to, though its client does not say where it stands: it stands nowhere,
    /// and an answer before told it the rest.
    pub fn let_poll_wait(&mut self) {
        if let Some(poll) = self.poll() {
            poll.go_on();
        }
    }

    /// How long a long-poll that was not answered yet may take, from its request; `None` for whatever else.
    pub fn poll_wait(&self) -> Option<Duration> {
        self.poll_ref().filter(|poll| !poll.is_given()).map(Poll::wait)
    }

    /// By when a long-poll that was not answered yet is to be; `None` for whatever else.
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.poll_ref().filter(|poll| !poll.is_given()).map(Poll::deadline)
    }

    /// Whether this is a long-poll that was answered.
    pub fn is_finished(&self) -> bool {
        self.poll_ref().is_some_and(Poll::is_given)
    }

    /// Whether the socket may carry another request after the answer to a long-poll.
    pub fn keeps_alive(&self) -> bool {
        self.poll_ref().is_some_and(Poll::keeps_alive)
    }

    fn poll(&mut self) -> Option<&mut Poll> {
        match &mut self.wire {
            Wire::Plain(link) => link.poll(),
            Wire::Centrifuge(_) | Wire::Stomp(_) => None,
        }
    }

    fn poll_ref(&self) -> Option<&Poll> {
        match &self.wire {
            Wire::Plain(link) => link.poll_ref(),
            Wire::Centrifuge(_) | Wire::Stomp(_) => None,
        }
    }
}

/// The close reason that a refused command amounts to, where refusing it ends the connection.
pub(crate) fn refusal(error: &ReplyError) -> CloseReason {
    let is_meant = |known: &&ErrorCode| known.code() == error.code;
    let exactly = ErrorCode::ALL.iter().find(|known| is_meant(known) && known.text() == error.message);
    let Some(code) = exactly.or_else(|| ErrorCode::ALL.iter().find(is_meant)) else {
        // The backend's own.
        return if error.temporary { CloseReason::InternalError } else { CloseReason::BadRequest };
    };
    match code {
        ErrorCode::Internal => CloseReason::InternalError,
        ErrorCode::NotKept => CloseReason::QueueUnavailable,
        ErrorCode::Unauthorized | ErrorCode::TokenExpired | ErrorCode::Expired => CloseReason::Expired,
        ErrorCode::PermissionDenied => CloseReason::PermissionDenied,
        ErrorCode::LimitExceeded => CloseReason::ChannelLimit,
        ErrorCode::TooManyRequests => CloseReason::TooManyRequests,
        ErrorCode::NotAvailable => CloseReason::NotAvailable,
        ErrorCode::UnrecoverablePosition => CloseReason::InsufficientState,
        ErrorCode::UnknownChannel
        | ErrorCode::MethodNotFound
        | ErrorCode::NotFound
        | ErrorCode::AlreadySubscribed
        | ErrorCode::BadRequest => CloseReason::BadRequest,
    }
}
