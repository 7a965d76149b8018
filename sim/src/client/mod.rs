//! The clients of the simulator: what a user agent makes of a server's bytes, without a socket or a clock.
//!
//! One short file for each dialect and transport. A client behaves as the SDK or the browser does that real
//! users have: it connects, subscribes, answers beats, recovers from its positions after a loss, and gives up
//! where they give up. It decides nothing about *what the server promised*: it neither looks for gaps nor
//! drops duplicates, it tells what it was given as [`Event`]s, and the simulator's checks judge those. What it
//! does judge is the contract of each single message: bytes that break it are [`HangUp::Nonsense`].
//!
//! Whoever drives one gives it a fresh [`Output`] with each call, writes `bytes` first, and then, if `hang_up`
//! is set, drops the socket and calls [`Client::lost`]. [`Client::reconnect_delay`] says how long the client
//! waits before it dials again. What must stay true: the same bytes give the same events however they are cut,
//! and nothing a server sends makes a client panic.
//!
//! Another dialect is a file here, a line in [`Kind`] and one in [`make`].

pub mod backend;
mod centrifuge;
pub mod choice;
mod event_source;
mod event_stream;
mod plain;
#[cfg(test)]
mod tests;
mod websocket;

use choice::Choice;
use longwire::env::rng::Rng;
pub use plain::{BEAT, BEAT_ANSWER, PING_PACKET};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One user agent's protocol state over all of its connections; bytes and time go in, bytes and events out.
pub trait Client {
    /// A fresh socket is connected: makes the bytes to send first.
    fn opened(&mut self, now: Instant, out: &mut Output);

    /// Takes what the server sent.
    fn handle_bytes(&mut self, now: Instant, bytes: &[u8], out: &mut Output);

    /// The socket is gone, ended by either side or broken: forgets what belongs to the connection.
    fn lost(&mut self, now: Instant);

    /// No socket could be connected.
    fn missed(&mut self) {}

    /// What the next socket speaks.
    fn port(&self) -> Port {
        Port::Http
    }

    /// When the client wants [`handle_timeout`](Self::handle_timeout).
    fn poll_timeout(&self) -> Option<Instant>;

    /// Does what is due at `now`.
    fn handle_timeout(&mut self, now: Instant, out: &mut Output);

    /// What the application does; ignored, with `false`, where it is not possible on this transport or in
    /// this state.
    fn act(&mut self, now: Instant, action: Action, out: &mut Output) -> bool;

    /// How long to wait before the next attempt to connect; each call counts as one attempt.
    fn reconnect_delay(&mut self) -> Duration;

    /// Transport and dialect, for logs.
    fn name(&self) -> &'static str;

    /// Where it stands in each channel that it can recover, as the SDK holds it: offset and epoch.
    fn positions(&self) -> BTreeMap<String, (u64, String)>;
}

/// What there is of clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// An SDK over WebSocket.
    WebSocket,
    /// The same in Protobuf.
    WebSocketProtobuf,
    /// An SDK over HTTP stream, with a way back beside it.
    HttpStream,
    /// The same in Protobuf.
    HttpStreamProtobuf,
    /// An SDK over SSE, with a way back beside it.
    Sse,
    /// A program that listens to a WebSocket.
    UniWebSocket,
    /// A program that listens to a response in chunks.
    UniHttpStream,
    /// A program that listens to events.
    UniSse,
    /// A browser's `EventSource` on the plain dialect.
    EventStream,
    /// A client of the plain dialect with a name, which falls back from one transport to the next.
    Plain,
    /// `longwire-client`'s realtime client over WebSocket.
    RealtimeWebSocket,
    /// The same over HTTP stream.
    RealtimeStream,
    /// The same over server-sent events.
    RealtimeEventStream,
    /// `longwire-client`'s STOMP client over TCP.
    Stomp,
    /// The same over WebSocket.
    StompWebSocket,
}

impl Kind {
    /// Those that are shipped.
    pub const REAL: [Kind; 5] = [
        Kind::RealtimeWebSocket,
        Kind::RealtimeStream,
        Kind::RealtimeEventStream,
        Kind::Stomp,
        Kind::StompWebSocket,
    ];

    /// Those that are written here.
    pub const ALL: [Kind; 10] = [
        Kind::WebSocket,
        Kind::WebSocketProtobuf,
        Kind::HttpStream,
        Kind::HttpStreamProtobuf,
        Kind::Sse,
        Kind::UniWebSocket,
        Kind::UniHttpStream,
        Kind::UniSse,
        Kind::EventStream,
        Kind::Plain,
    ];

    /// Whether its channels are those that its token brings, and it can ask for nothing else.
    pub fn is_one_way(self) -> bool {
        matches!(self, Kind::UniWebSocket | Kind::UniHttpStream | Kind::UniSse)
    }

    /// Whether it gives signs of life while it lives: of its own, or as answers, or its WebSocket implementation does.
    pub fn answers_beats(self) -> bool {
        matches!(
            self,
            Kind::WebSocket
                | Kind::WebSocketProtobuf
                | Kind::UniWebSocket
                | Kind::RealtimeWebSocket
                | Kind::Stomp
                | Kind::StompWebSocket
        )
    }

    /// Whether it speaks STOMP.
    pub fn is_stomp(self) -> bool {
        matches!(self, Kind::Stomp | Kind::StompWebSocket)
    }

    /// Whether it is shipped.
    pub fn is_real(self) -> bool {
        Kind::REAL.contains(&self)
    }

    /// Whether it speaks the centrifuge dialect and can subscribe.
    pub fn is_sdk(self) -> bool {
        !self.is_one_way() && !self.is_stomp() && !matches!(self, Kind::EventStream | Kind::Plain)
    }
}

/// Makes a client that is not connected yet.
///
/// # Panics
/// Of a [real](Kind::is_real) kind, which is no client of the simulator's own.
pub fn make(kind: Kind, settings: Settings) -> Box<dyn Client> {
    use centrifuge::{Carrier, Format, Route};
    let (carrier, format, is_bare) = match kind {
        Kind::WebSocket => (Carrier::WebSocket, Format::Json, false),
        Kind::WebSocketProtobuf => (Carrier::WebSocket, Format::Protobuf, false),
        Kind::HttpStream => (Carrier::Chunks, Format::Json, false),
        Kind::HttpStreamProtobuf => (Carrier::Chunks, Format::Protobuf, false),
        Kind::Sse => (Carrier::Events, Format::Json, false),
        Kind::UniWebSocket => (Carrier::WebSocket, Format::Json, true),
        Kind::UniHttpStream => (Carrier::Chunks, Format::Json, true),
        Kind::UniSse => (Carrier::Events, Format::Json, true),
        Kind::EventStream => return Box::new(event_stream::EventStream::new(settings)),
        Kind::Plain => return Box::new(plain::Plain::new(settings)),
        Kind::RealtimeWebSocket
        | Kind::RealtimeStream
        | Kind::RealtimeEventStream
        | Kind::Stomp
        | Kind::StompWebSocket => panic!("{kind:?} is not written here"),
    };
    Box::new(centrifuge::Centrifuge::new(Route { carrier, format, is_bare }, settings))
}

/// What a client is made from.
#[derive(Clone)]
pub struct Settings {
    /// `host[:port]` of the server.
    pub host: String,
    /// The channels that the application keeps subscribed.
    pub channels: Vec<Wanted>,
    /// Connection token, if the application has one.
    pub token: Option<String>,
    /// Chance: keys, masks and delays.
    pub rng: Rng,
    /// Whether to offer permessage-deflate (WebSocket).
    pub offer_deflate: bool,
    /// How long an event stream may say nothing before the client gives it up, 2.5 beats for the consumers
    /// that watch at all. `None` is a bare browser: it notices nothing and waits for a response for ever.
    pub silence: Option<Duration>,
    /// What a client of the plain dialect has beside that.
    pub plain: PlainSettings,
}

/// What a client of the plain dialect is made from, if it has a name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlainSettings {
    /// What it calls itself.
    pub name: String,
    /// What its session was called, if it had one.
    pub proof: String,
    /// Its transports, the best first.
    pub ladder: Vec<Transport>,
    /// Until when something on its way lets the best of them not pass.
    pub barred_until: Option<Instant>,
    /// How long it asks polls to wait.
    pub wait_seconds: u64,
    /// How often it says over TCP that it is there.
    pub beat: Duration,
}

/// What carries the plain dialect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Transport {
    /// `/ws`.
    WebSocket,
    /// Packets on a port of their own.
    Tcp,
    /// `/sse`.
    EventStream,
    /// `/stream`.
    Lines,
    /// `/poll`.
    Poll,
}

/// What a socket is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// All that is spoken over HTTP.
    Http,
    /// Packets.
    Packets,
}

/// A channel that the application wants, and what it asks for there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The channel.
    pub channel: String,
    /// Subscription token, if the application has one.
    pub token: Option<String>,
    /// Asks for a recoverable subscription. An event stream always does.
    pub recoverable: bool,
    /// Asks for a positioned subscription. An event stream always does.
    pub positioned: bool,
    /// Asks for joins and leaves. An event stream always does.
    pub join_leave: bool,
    /// Asks for differences. An event stream never does.
    pub delta: bool,
    /// Asks for some publications only. An event stream never does.
    pub filter: Option<Choice>,
}

impl Wanted {
    /// Asks for everything: recovery, positions, joins and leaves.
    pub fn all(channel: &str) -> Wanted {
        Wanted {
            channel: channel.to_owned(),
            token: None,
            recoverable: true,
            positioned: true,
            join_leave: true,
            delta: false,
            filter: None,
        }
    }
}

/// What an application does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Publishes to a channel.
    Publish {
        /// The channel.
        channel: String,
        /// Raw JSON on one line.
        data: String,
    },
    /// Says something to the application behind the server.
    Say {
        /// The message's number, of which there is no second.
        number: u64,
        /// The message.
        data: String,
    },
    /// Sends a message to the queue.
    Send {
        /// The message's number, of which there is no second.
        number: u64,
        /// Its body.
        body: String,
    },
    /// Loses interest in a channel.
    Unsubscribe(String),
    /// Takes interest in a channel, as it was asked for before or else with [`Wanted::all`].
    Subscribe(String),
    /// Asks who is in a channel.
    Presence(String),
    /// Asks for the retained publications of a channel.
    History(String),
    /// Takes this token for the next refresh and the next connection.
    Token(String),
    /// Prolongs the connection with the token.
    Refresh,
    /// Sends these bytes as they are, in the middle of everything.
    Garbage(Vec<u8>),
    /// Closes politely.
    Goodbye,
}

/// What a client wants done.
#[derive(Default, PartialEq, Debug)]
pub struct Output {
    /// To be written, before anything else.
    pub bytes: Vec<u8>,
    /// To be sent by requests of their own, in this order; whether they arrive the client learns from the link.
    pub posts: Vec<Post>,
    /// What the application was told, in order.
    pub events: Vec<Event>,
    /// Drop the socket, and why.
    pub hang_up: Option<HangUp>,
}

/// A message that goes to the server beside the link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Post {
    /// Where it is posted to.
    pub path: String,
    /// The number of a message for the application, if it is one.
    pub number: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
    /// What it is made of.
    pub content_type: &'static str,
}

/// Why a client drops its socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HangUp {
    /// The application said goodbye, and the close is over.
    Done,
    /// The server's beat is overdue.
    NoPing,
    /// The server did not answer the handshake or the connect command in time.
    ConnectTimeout,
    /// The server did not answer a subscribe or an unsubscribe in time: SDKs connect anew.
    CommandTimeout,
    /// The server sends the client away.
    Told {
        /// The code of the close frame or the disconnect event, of the error that answers connect, or the
        /// HTTP status.
        code: u32,
        /// Whether the client comes back by itself.
        reconnect: bool,
    },
    /// It goes on over another socket, at once.
    Changed,
    /// The server's bytes break the protocol: a failure of the server. Says what and where.
    Nonsense(String),
}

/// What an application is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The session is established.
    Connected {
        /// The connection's id.
        client: String,
    },
    /// A subscription is established, by the client's wish or by the server.
    Subscribed {
        /// The channel.
        channel: String,
        /// Where it stands before `publications`; `None` if nobody watches positions.
        position: Option<(u64, String)>,
        /// The server says that recovery was asked for.
        was_recovering: bool,
        /// The server says that nothing is missing.
        recovered: bool,
        /// Where the client said that it stopped; an empty epoch says that it knows none.
        since: Option<(u64, String)>,
        /// Which publications the client asked for, if not for all.
        filter: Option<Choice>,
        /// What was missed, oldest first. An event stream brings it as publications that follow.
        publications: Vec<Heard>,
    },
    /// The server refused to connect (`None`) or to subscribe.
    Refused {
        /// The channel.
        channel: Option<String>,
        /// The error's code, or the HTTP status.
        code: u32,
    },
    /// A publication.
    Publication {
        /// The channel.
        channel: String,
        /// What it says.
        heard: Heard,
    },
    /// A client came.
    Join {
        /// The channel.
        channel: String,
        /// Who.
        client: String,
    },
    /// A client went.
    Leave {
        /// The channel.
        channel: String,
        /// Who.
        client: String,
    },
    /// By what name requests beside the link refer to its session, and whether that was there before.
    Session {
        /// The name.
        session: String,
        /// It goes on from an earlier link.
        resumed: bool,
    },
    /// Something for this client alone.
    Message {
        /// Raw JSON.
        data: String,
    },
    /// The server ended a subscription. From 2500 the client subscribes again by itself where it can.
    Unsubscribed {
        /// The channel.
        channel: String,
        /// Why; 0 for a server-side subscription that a reconnect did not bring back.
        code: u32,
    },
    /// The answer to an action.
    Replied {
        /// The command's number.
        id: u32,
        /// What was asked.
        asked: Action,
        /// What was answered.
        what: Reply,
    },
    /// The server says that it ends the connection.
    Told {
        /// The code.
        code: u32,
        /// The text.
        text: String,
    },
    /// The token runs out or was refused for its age: the SDK asks the application for another.
    WantsToken,
    /// A sign of life.
    Beat,
}

/// The answer to an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The publication was accepted.
    Published,
    /// Who is in the channel, in the order of their ids.
    Presence(Vec<String>),
    /// What is retained, as it was ordered.
    History {
        /// The publications.
        publications: Vec<Heard>,
        /// The newest position.
        top: (u64, String),
    },
    /// The connection lives on.
    Refreshed,
    /// The server refused, with this code.
    Error(u32),
    /// Nothing came within the SDK's patience; an answer that comes later is ignored.
    TimedOut,
}

/// A publication as the client got it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Its number, if it has one.
    pub offset: Option<u64>,
    /// The epoch that the client believes its number to be of, if it knows one.
    pub epoch: Option<String>,
    /// Raw JSON.
    pub data: String,
}

/// The delay of the centrifuge SDKs before attempt number `attempt`, counted from 0: full jitter over a doubling span.
fn backoff(rng: &mut Rng, attempt: u32) -> Duration {
    const MIN: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(20);
    let span = MIN.saturating_mul(2u32.saturating_pow(attempt)).min(MAX);
    (MIN + span.mul_f64(rng.fraction())).min(MAX)
}
