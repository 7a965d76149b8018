//! The settings that longwire runs with: nothing optional that has a default, durations and sizes typed.
//!
//! [`Config`] is what the program needs. Each setting is declared once, below, with its default and its
//! documentation; `section` makes of it what `raw` (merging flag, environment, file and default), `check`
//! (what must fit together) and `document` (`docs/config.md`, and the output of `longwire check`) need. What
//! must stay true: code below this module never sees a file, a flag or an environment variable, and every
//! field here is valid with every other.

mod check;
mod document;
mod kind;
mod raw;
mod section;

pub use document::markdown;
pub(crate) use kind::{format_duration, parse_duration};
pub use raw::{ConfigError, Origin, Sources, demo, load};

use longwire_protocol::heartbeat;
use section::{Section, fields, section};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Everything that can be configured, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where and how many connections are accepted.
    pub server: Server,
    /// Limits of HTTP requests.
    pub http: Http,
    /// The HTTP API for backends.
    pub api: Api,
    /// Signs of life.
    pub heartbeat: heartbeat::Intervals,
    /// The WebSocket transport.
    pub websocket: WebSocket,
    /// The SSE transport.
    pub event_stream: EventStream,
    /// Limits of one client.
    pub client: Client,
    /// Tokens.
    pub auth: Auth,
    /// Options of channels without a namespace.
    pub channel: ChannelOptions,
    /// Options of the channels `NAME:...`.
    pub namespaces: BTreeMap<String, ChannelOptions>,
    /// What is logged, and how.
    pub log: Log,
}

section! {
    /// Where and how many connections are accepted, and how they are given away on a shutdown.
    pub struct Server {
        /// Addresses to listen on.
        pub listen: Vec<SocketAddr> = ADDRESSES(vec![SocketAddr::from(([127, 0, 0, 1], 8000))]),
        /// Shards: threads that hold connections; 0 means one for each core.
        pub shards: usize = COUNT(0),
        /// Connections this process holds at most; above, another is answered 503. Where it is not set, it is at
        /// most 80 % of the files that the process may open.
        pub max_connections: usize = LIMIT(50_000),
        /// Connections accepted a second, sustained; above, they wait to be accepted. 0 means no limit.
        pub accepts_per_second: usize = COUNT(2000),
        /// Connections accepted at once, above the sustained rate.
        pub accept_burst: usize = LIMIT(10_000),
        /// Connections from one address; loopback is exempt.
        pub max_connections_per_ip: usize = LIMIT(1000),
        /// Origins that browsers may connect from, `scheme://host[:port]`; empty means the host itself.
        pub allowed_origins: Vec<String> = ORIGINS(Vec::new()),
        /// Addresses whose `X-Forwarded-For` and `Forwarded` headers are believed.
        pub trusted_proxies: Vec<IpAddr> = HOSTS(Vec::new()),
        /// On a shutdown, clients are told one by one to come back, spread over this span.
        pub drain_over: Duration = DURATION(secs(10)),
        /// On a shutdown, what is left is cut after this time.
        pub drain_deadline: Duration = TIMEOUT(secs(30)),
    }
}

section! {
    /// Limits of HTTP requests.
    pub struct Http {
        /// Size of request line and headers together.
        pub max_head_bytes: usize = SIZE(16 * KIB),
        /// Number of headers.
        pub max_headers: usize = LIMIT(100),
        /// Time until a head must be complete.
        pub head_timeout: Duration = TIMEOUT(secs(10)),
        /// Size of a request's body.
        pub max_body_bytes: usize = SIZE(MIB),
        /// Time until a body must be complete.
        pub body_timeout: Duration = TIMEOUT(secs(30)),
    }
}

section! {
    /// The HTTP API for backends.
    pub struct Api {
        /// The key that callers show in `X-API-Key`; without one only loopback is served.
        pub key: Option<String> = SECRET(None),
        /// Serve everybody without a key.
        pub insecure: bool = FLAG(false),
        /// Channels in one broadcast call.
        pub max_broadcast_channels: usize = LIMIT(1000),
    }
}

section! {
    /// The WebSocket transport.
    pub struct WebSocket {
        /// Size of one inbound message, inflated and all fragments together.
        pub max_message_bytes: usize = SIZE(64 * KIB),
        /// Offer permessage-deflate (RFC 7692).
        pub compression: bool = FLAG(false),
        /// Publications smaller than this are not compressed.
        pub compression_min_bytes: usize = SIZE_OR_ZERO(128),
    }
}

section! {
    /// The SSE transport.
    pub struct EventStream {
        /// The delay that a browser is advised to wait before it reconnects (`retry:`).
        pub retry: Duration = TIMEOUT(secs(2)),
    }
}

section! {
    /// Who may connect, and what one connection may cost.
    pub struct Client {
        /// Accept connections without a token as the anonymous user.
        pub allow_anonymous: bool = FLAG(false),
        /// Accept any token or none, and allow everything everywhere. For development.
        pub insecure: bool = FLAG(false),
        /// Time until a connection must have sent its connect command.
        pub connect_timeout: Duration = TIMEOUT(secs(10)),
        /// Subscriptions of one connection.
        pub max_subscriptions: usize = LIMIT(128),
        /// Length of a channel's name.
        pub max_channel_bytes: usize = SIZE(255),
        /// Bytes that may wait for one connection before it is closed as slow.
        pub max_outbox_bytes: usize = SIZE(MIB),
        /// Time in which a write must make progress.
        pub write_timeout: Duration = TIMEOUT(secs(5)),
        /// Commands a second, sustained.
        pub commands_per_second: u32 = RATE(100),
        /// Commands at once, above the sustained rate.
        pub command_burst: u32 = RATE(200),
        /// Connections of one user; the anonymous user is exempt. 0 means no limit.
        pub max_connections_per_user: usize = COUNT(10),
        /// Time after a token's expiry within which a refresh is still accepted.
        pub expired_close_delay: Duration = DURATION(secs(25)),
        /// Publications in one answer of the history command.
        pub max_history_publications: usize = LIMIT(300),
        /// Publications that one recovery may bring.
        pub max_recovery_publications: usize = LIMIT(300),
    }
}

section! {
    /// Tokens that say who a client is.
    pub struct Auth {
        /// Secret of HS256, HS384 and HS512 tokens, at least 32 bytes. Without it every token is refused.
        pub hmac_secret: Option<String> = SECRET(None),
        /// What the claim `aud` must be or contain; unchecked if not set.
        pub audience: Option<String> = OPTIONAL_TEXT(None),
        /// What the claim `iss` must be; unchecked if not set.
        pub issuer: Option<String> = OPTIONAL_TEXT(None),
        /// Refuse tokens without the claim `exp`: a leaked one would be good for ever.
        pub require_exp: bool = FLAG(true),
    }
}

section! {
    /// What is logged, and how. Logs go to standard error.
    pub struct Log {
        /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,longwire::shard=debug`.
        pub level: String = TEXT("info".to_owned()),
        /// One JSON object a line rather than text.
        pub json: bool = FLAG(false),
    }
}

section! {
    /// What a channel offers and who may do what with it. `[channel]` holds for channels without a namespace,
    /// `[namespaces.NAME]` for those named `NAME:...`; a namespace inherits nothing from `[channel]`. Names and
    /// meanings are those of Centrifugo's namespaces.
    pub struct ChannelOptions {
        /// Keep who is there.
        pub presence: bool = FLAG(false),
        /// Publish joins and leaves.
        pub join_leave: bool = FLAG(false),
        /// Push joins and leaves to every subscriber, asked for or not.
        pub force_push_join_leave: bool = FLAG(false),
        /// Publications that history keeps; 0 turns history off.
        pub history_size: usize = COUNT(0),
        /// How long history keeps a publication; 0 turns history off.
        pub history_ttl: Duration = DURATION(Duration::ZERO),
        /// How long the position of a channel without publications is remembered.
        pub history_meta_ttl: Duration = DURATION(secs(720 * 3600)),
        /// Every subscription is positioned.
        pub force_positioning: bool = FLAG(false),
        /// A subscription is positioned if the client asks.
        pub allow_positioning: bool = FLAG(false),
        /// Every subscription is recoverable.
        pub force_recovery: bool = FLAG(false),
        /// A subscription is recoverable if the client asks.
        pub allow_recovery: bool = FLAG(false),
        /// Clients may subscribe without a token.
        pub allow_subscribe_for_client: bool = FLAG(false),
        /// Anonymous clients too.
        pub allow_subscribe_for_anonymous: bool = FLAG(false),
        /// Clients may publish.
        pub allow_publish_for_client: bool = FLAG(false),
        /// Subscribers of the channel may publish.
        pub allow_publish_for_subscriber: bool = FLAG(false),
        /// Anonymous clients too, if one of the former holds.
        pub allow_publish_for_anonymous: bool = FLAG(false),
        /// Clients may ask for presence.
        pub allow_presence_for_client: bool = FLAG(false),
        /// Subscribers of the channel may ask for presence.
        pub allow_presence_for_subscriber: bool = FLAG(false),
        /// Anonymous clients too, if one of the former holds.
        pub allow_presence_for_anonymous: bool = FLAG(false),
        /// Clients may ask for history.
        pub allow_history_for_client: bool = FLAG(false),
        /// Subscribers of the channel may ask for history.
        pub allow_history_for_subscriber: bool = FLAG(false),
        /// Anonymous clients too, if one of the former holds.
        pub allow_history_for_anonymous: bool = FLAG(false),
        /// The list after `#` in a channel's name says who may subscribe.
        pub allow_user_limited_channels: bool = FLAG(false),
    }
}

fields! {
    /// Signs of life in both directions, on every transport.
    heartbeat::Intervals {
        /// Time between beats.
        interval = INTERVAL(secs(25)),
        /// How long a client may take to answer a beat; less than `heartbeat.interval`.
        timeout = TIMEOUT(secs(8)),
        /// How long a client may be silent while a beat to it still waits to be written; more than
        /// `heartbeat.interval` plus `heartbeat.timeout`.
        max_silence = INTERVAL(secs(35)),
    }
}

impl ChannelOptions {
    /// Whether the channel keeps publications.
    pub fn has_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            // One shard, as `load` would choose for one core: a default must not depend on the machine.
            server: Server { shards: 1, ..Server::default() },
            http: Http::default(),
            api: Api::default(),
            heartbeat: heartbeat::Intervals::defaults(),
            websocket: WebSocket::default(),
            event_stream: EventStream::default(),
            client: Client::default(),
            auth: Auth::default(),
            channel: ChannelOptions::default(),
            namespaces: BTreeMap::new(),
            log: Log::default(),
        }
    }
}

/// What is done with each section in turn: reading it, printing it, listing its keys.
trait Visitor {
    fn section<S: Section>(&mut self, name: &str, section: &mut S);
}

impl Config {
    /// The settings of `longwire demo`, for one core: open to everybody who reaches 127.0.0.1.
    pub fn demo() -> Config {
        demo(std::iter::empty(), &[], u64::MAX, 1).expect("a test loads the embedded demo settings").0
    }

    /// Shows every section to `visitor`. This is the one list of them.
    fn visit(&mut self, visitor: &mut impl Visitor) {
        visitor.section("server", &mut self.server);
        visitor.section("http", &mut self.http);
        visitor.section("api", &mut self.api);
        visitor.section("heartbeat", &mut self.heartbeat);
        visitor.section("websocket", &mut self.websocket);
        visitor.section("event_stream", &mut self.event_stream);
        visitor.section("client", &mut self.client);
        visitor.section("auth", &mut self.auth);
        visitor.section("log", &mut self.log);
        visitor.section("channel", &mut self.channel);
        for (name, options) in &mut self.namespaces {
            visitor.section(&format!("namespaces.{name}"), options);
        }
    }

    /// Whether anybody may do something without a key or token, and only because nobody else than this
    /// machine's programs can connect.
    pub fn is_open_on_loopback_only(&self) -> bool {
        (self.client.insecure || self.api.insecure)
            && self.server.listen.iter().all(|address| address.ip().is_loopback())
    }

    /// The options of the channel `name`, or `None` if its namespace is not configured.
    pub fn channel_options(&self, name: &str) -> Option<&ChannelOptions> {
        match longwire_protocol::name::ChannelName::parse(name).namespace {
            Some(namespace) => self.namespaces.get(namespace),
            None => Some(&self.channel),
        }
    }
}
