//! What was seen of a way: plain data, which the verdict and both reports are made from.
//!
//! Probes fill it in, each its own part; what a probe did not come to is `None`. Times are in seconds or milliseconds, as
//! the name says, because this is printed as JSON too. What must stay true: nothing here is a conclusion, and no secret
//! (token, passcode) ever comes in.

use super::proxy::Proxy;
use serde::Serialize;

/// Everything that was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Seen {
    /// The URL, without a password.
    pub(super) url: String,
    /// Host, as it was dialled.
    pub(super) host: String,
    /// Port.
    pub(super) port: u16,
    /// Whether the URL asks for TLS.
    pub(super) is_encrypted: bool,
    /// The name, if the host is one, into addresses.
    pub(super) resolving: Option<Resolving>,
    /// TCP, address by address, until one connected.
    pub(super) tcp: Vec<Dial>,
    /// TLS.
    pub(super) tls: Option<TlsSeen>,
    /// The end before anything could be asked: what the peer said was no HTTP, or nothing came.
    pub(super) http: Option<Answer>,
    /// Who is on the way.
    pub(super) proxy: Option<ProxySeen>,
    /// HTTP/2.
    pub(super) http2: Option<Http2>,
    /// Becoming a WebSocket; the last of the paths that were asked for.
    pub(super) upgrade: Option<Upgrade>,
    /// The dialect's login.
    pub(super) login: Option<Login>,
    /// A ping of ours.
    pub(super) ping: Option<PingSeen>,
    /// How long a message may be, in bytes.
    pub(super) message: Option<Size>,
    /// How long the body of a request may be, in bytes.
    pub(super) body: Option<Size>,
    /// Responses that go on.
    pub(super) streams: Vec<Stream>,
    /// A connection that was kept as clients keep theirs: beats are answered.
    pub(super) kept: Option<Kept>,
    /// Connections on which nothing was said in either direction.
    pub(super) quiet: Option<Quiet>,
    /// The user ended the run so many seconds after its beginning.
    pub(super) stopped_after_s: Option<f64>,
}

/// A name into addresses.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Resolving {
    pub(super) ms: f64,
    /// None if it failed.
    pub(super) addresses: Vec<String>,
    pub(super) error: Option<String>,
}

/// One address, dialled.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Dial {
    pub(super) address: String,
    pub(super) ms: f64,
    pub(super) outcome: Dialling,
}

/// What came of dialling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Dialling {
    Connected,
    /// Nobody listens there.
    Refused,
    /// Nothing came back.
    TimedOut,
    /// The system's words.
    Failed(String),
}

/// A handshake of TLS.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TlsSeen {
    pub(super) ms: f64,
    /// `TLS 1.3`; none if it failed.
    pub(super) version: Option<String>,
    pub(super) error: Option<TlsError>,
    /// Why the certificate is not trusted.
    pub(super) doubt: Option<String>,
    /// Days for which the certificate is still valid; negative behind its end.
    pub(super) days_left: Option<i64>,
}

/// Why there is no TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TlsError {
    /// What answers there does not speak it.
    NotSpoken,
    /// The peer ended the connection.
    Ended,
    TimedOut,
    Failed(String),
}

/// What a usual request was answered.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Answer {
    pub(super) path: String,
    pub(super) ms: f64,
    /// None if no answer came.
    pub(super) status: Option<u16>,
    /// Why none came.
    pub(super) error: Option<String>,
    /// What came is a record of TLS.
    pub(super) is_tls: bool,
}

/// Who is on the way, and by what that was noticed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ProxySeen {
    pub(super) name: Proxy,
    pub(super) evidence: String,
}

/// Whether HTTP/2 is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Http2 {
    pub(super) is_spoken: bool,
    /// WebSockets within HTTP/2 (RFC 8441).
    pub(super) has_websockets: bool,
}

/// An attempt to make a WebSocket.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Upgrade {
    pub(super) path: String,
    pub(super) ms: f64,
    /// None if no answer came.
    pub(super) status: Option<u16>,
    /// What was wrong with the answer, or why none came.
    pub(super) error: Option<String>,
    /// The beginning of the body of an answer other than 101.
    pub(super) body: String,
    /// Where a redirect leads.
    pub(super) location: Option<String>,
    /// What was answered to an offer of permessage-deflate; none if that was not taken.
    pub(super) compression: Option<String>,
    /// The subprotocol that was chosen.
    pub(super) subprotocol: Option<String>,
}

/// What the dialect's login came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Login {
    /// `centrifuge`, `plain` or `stomp`.
    pub(super) dialect: &'static str,
    pub(super) ms: f64,
    /// What the server calls itself.
    pub(super) server: Option<String>,
    /// How often it says it will beat.
    pub(super) beat_s: Option<f64>,
    /// Why it came to nothing, in the server's words or in ours.
    pub(super) error: Option<String>,
    /// The server said no.
    pub(super) is_refusal: bool,
}

impl Login {
    /// Notes the server's no.
    pub(super) fn refuse(&mut self, text: String) {
        self.error = Some(text);
        self.is_refusal = true;
    }
}

/// A ping, and what came back.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PingSeen {
    /// None if nothing came within the time.
    pub(super) ms: Option<f64>,
    pub(super) waited_s: f64,
    /// After a ping without an answer: whether a close was answered, so that somebody is there.
    pub(super) is_close_answered: Option<bool>,
}

/// The largest that passed, and the smallest that did not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Size {
    pub(super) passed_bytes: u64,
    /// None if all that was tried passed.
    pub(super) refused_bytes: Option<u64>,
    /// How it was refused.
    pub(super) how: Option<String>,
    /// Why it was not found out.
    pub(super) error: Option<String>,
}

/// A response that goes on.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Stream {
    /// `SSE` or `HTTP stream`.
    pub(super) kind: &'static str,
    pub(super) path: String,
    /// Whether the server is known to say something at once.
    pub(super) speaks_at_once: bool,
    /// When the head was there.
    pub(super) head_ms: Option<f64>,
    pub(super) status: Option<u16>,
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    /// The server's `X-Accel-Buffering` came through.
    pub(super) has_accel: bool,
    /// When the first byte of the body was there.
    pub(super) first_ms: Option<f64>,
    /// When, in seconds from the request, something came after that.
    pub(super) came_s: Vec<f64>,
    /// What was asked for on the way back was on the stream after this time.
    pub(super) echo: Option<Echo>,
    /// The server's refusal of the login, said in the stream.
    pub(super) refusal: Option<String>,
    /// How long it was watched.
    pub(super) watched_s: f64,
    /// How it ended while it was watched, and when.
    pub(super) end: Option<(f64, Closing)>,
}

/// Something that was asked for beside a stream.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Echo {
    /// None if it did not come.
    pub(super) ms: Option<f64>,
    pub(super) waited_s: f64,
    /// Why it could not be asked for.
    pub(super) error: Option<String>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Closing {
    /// With the last words of the protocol: a close frame or an ERROR.
    Told(String),
    /// Without a word.
    Ended,
    /// By a reset.
    Reset,
    /// Otherwise.
    Failed(String),
}

/// A connection that was kept.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Kept {
    pub(super) path: String,
    /// What a beat looks like: `ping frame`, `{}`, `newline`, or `message`.
    pub(super) kind: Option<&'static str>,
    /// When beats came, in seconds.
    pub(super) beats_s: Vec<f64>,
    pub(super) watched_s: f64,
    pub(super) end: Option<(f64, Closing)>,
}

/// Connections on which nothing was said.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Quiet {
    /// What they were: `WebSocket /path`, `STOMP`.
    pub(super) on: String,
    /// How each was asked at the end whether it lives: a ping, a receipt, a close; none if it cannot be asked.
    pub(super) asked_by: Option<&'static str>,
    pub(super) max_s: f64,
    pub(super) lines: Vec<QuietLine>,
    /// Why there is nothing to see.
    pub(super) error: Option<String>,
}

/// One connection on which nothing was said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct QuietLine {
    /// How long it was to be silent.
    pub(super) length_s: f64,
    pub(super) outcome: Silence,
}

/// What came of a silence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Silence {
    /// It goes on.
    Lasts,
    /// After it the connection answered.
    Alive,
    /// It is over, the connection did not end, and nobody can be asked more.
    NoEnd,
    /// After it nothing was answered.
    Lost,
    /// The connection was ended.
    Closed { after_s: f64, how: Closing },
    /// The server said something.
    Disturbed { after_s: f64 },
    /// There was no connection.
    NotOpened(String),
}
