//! The settings that longwire runs with: nothing optional that has a default, durations and sizes typed.
//!
//! [`Config`] is what the program needs; [`raw`] mirrors what a user may write. One function makes the
//! former from the latter and its error names the key and where it came from. What must stay true: code
//! below this module never sees a file, a flag or an environment variable, and every field here is valid
//! with every other.

mod raw;

pub use raw::{ConfigError, Origin, Sources, markdown};

use longwire_protocol::heartbeat;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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
    /// Presence.
    pub presence: Presence,
    /// Options of channels without a namespace.
    pub channel: ChannelOptions,
    /// Options of the channels `NAME:...`.
    pub namespaces: BTreeMap<String, ChannelOptions>,
    /// What is logged, and how.
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Shards: threads that hold connections. The number of cores if 0 was given.
    pub shards: usize,
    /// Connections this process holds at most; above, new ones are answered 503.
    pub max_connections: usize,
    /// Connections from one address; loopback is exempt.
    pub max_connections_per_ip: usize,
    /// Origins that browsers may connect from, `scheme://host[:port]`; empty means the host itself.
    pub allowed_origins: Vec<String>,
    /// Addresses whose `X-Forwarded-For` and `Forwarded` headers are believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// On a shutdown, clients are told to come back after a delay drawn from this span.
    pub drain_over: Duration,
    /// On a shutdown, what is left is cut after this time.
    pub drain_deadline: Duration,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Size of request line and headers together.
    pub max_head_bytes: usize,
    /// Number of headers.
    pub max_headers: usize,
    /// Time until a head must be complete.
    pub head_timeout: Duration,
    /// Size of a request's body.
    pub max_body_bytes: usize,
    /// Time until a body must be complete.
    pub body_timeout: Duration,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// The key that callers show; without one only loopback is served.
    pub key: Option<String>,
    /// Serve everybody without a key.
    pub insecure: bool,
    /// Channels in one broadcast call.
    pub max_broadcast_channels: usize,
}

/// `[websocket]`
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocket {
    /// Size of one inbound message, inflated and all fragments together.
    pub max_message_bytes: usize,
    /// Offer permessage-deflate (RFC 7692).
    pub compression: bool,
    /// Publications smaller than this are not compressed.
    pub compression_min_bytes: usize,
}

/// `[event_stream]`
#[derive(Clone, Debug, PartialEq)]
pub struct EventStream {
    /// The delay that a browser is advised to wait before it reconnects (`retry:`).
    pub retry: Duration,
}

/// `[client]`
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// Accept connections without a token as the anonymous user.
    pub allow_anonymous: bool,
    /// Accept any token or none, and allow everything everywhere. For development.
    pub insecure: bool,
    /// Time until a connection must have sent its connect command.
    pub connect_timeout: Duration,
    /// Subscriptions of one connection.
    pub max_subscriptions: usize,
    /// Length of a channel's name.
    pub max_channel_bytes: usize,
    /// Bytes that may wait for one connection before it is closed as slow.
    pub max_outbox_bytes: usize,
    /// Time in which a write must make progress.
    pub write_timeout: Duration,
    /// Commands a second, sustained.
    pub commands_per_second: u32,
    /// Commands at once, above the sustained rate.
    pub command_burst: u32,
    /// Connections of one user; the anonymous user is exempt. 0 means no limit.
    pub max_connections_per_user: usize,
    /// Time after a token's expiry within which a refresh is still accepted.
    pub expired_close_delay: Duration,
    /// Publications in one answer of the history command.
    pub max_history_publications: usize,
    /// Publications that one recovery may bring.
    pub max_recovery_publications: usize,
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Auth {
    /// Secret of HS256, HS384 and HS512 tokens; at least 32 bytes.
    pub hmac_secret: Option<String>,
    /// What `aud` must be.
    pub audience: Option<String>,
    /// What `iss` must be.
    pub issuer: Option<String>,
}

/// `[presence]`
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    /// How often an entry is renewed.
    pub update_interval: Duration,
    /// When an entry that is not renewed disappears.
    pub ttl: Duration,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A `tracing` filter such as `info` or `longwire=debug`.
    pub level: String,
    /// One JSON object a line rather than text.
    pub json: bool,
}

/// `[channel]` and `[namespaces.NAME]`: what a channel offers and who may do what with it.
///
/// The names and meanings are those of Centrifugo's namespaces.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ChannelOptions {
    /// Keep who is there.
    pub presence: bool,
    /// Publish joins and leaves.
    pub join_leave: bool,
    /// Push joins and leaves to every subscriber, asked for or not.
    pub force_push_join_leave: bool,
    /// Publications that history keeps; 0 turns history off.
    pub history_size: usize,
    /// How long history keeps a publication; 0 turns history off.
    pub history_ttl: Duration,
    /// How long the position of a channel without publications is remembered.
    pub history_meta_ttl: Duration,
    /// Every subscription is positioned.
    pub force_positioning: bool,
    /// A subscription is positioned if the client asks.
    pub allow_positioning: bool,
    /// Every subscription is recoverable.
    pub force_recovery: bool,
    /// A subscription is recoverable if the client asks.
    pub allow_recovery: bool,
    /// Clients may subscribe without a token.
    pub allow_subscribe_for_client: bool,
    /// Anonymous clients too.
    pub allow_subscribe_for_anonymous: bool,
    /// Clients may publish.
    pub allow_publish_for_client: bool,
    /// Subscribers of the channel may publish.
    pub allow_publish_for_subscriber: bool,
    /// Anonymous clients too, if one of the former holds.
    pub allow_publish_for_anonymous: bool,
    /// Clients may ask for presence.
    pub allow_presence_for_client: bool,
    /// Subscribers of the channel may ask for presence.
    pub allow_presence_for_subscriber: bool,
    /// Anonymous clients too, if one of the former holds.
    pub allow_presence_for_anonymous: bool,
    /// Clients may ask for history.
    pub allow_history_for_client: bool,
    /// Subscribers of the channel may ask for history.
    pub allow_history_for_subscriber: bool,
    /// Anonymous clients too, if one of the former holds.
    pub allow_history_for_anonymous: bool,
    /// The list after `#` in a channel's name says who may subscribe.
    pub allow_user_limited_channels: bool,
}

impl ChannelOptions {
    /// Whether the channel keeps publications.
    pub fn has_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }
}

impl Config {
    /// The options of the channel `name`, or `None` if its namespace is not configured.
    pub fn channel_options(&self, name: &str) -> Option<&ChannelOptions> {
        match longwire_protocol::name::ChannelName::parse(name).namespace {
            Some(namespace) => self.namespaces.get(namespace),
            None => Some(&self.channel),
        }
    }
}
