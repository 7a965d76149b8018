//! The settings that longwire runs with: nothing optional that has a default, durations and sizes typed.
//!
//! [`Config`] is what the program needs. Each setting is declared once, below, with its default and its
//! documentation; `section` makes of it what `raw` (merging flag, environment, file and default), `check`
//! (what must fit together) and `document` (`docs/config.md`, and the output of `longwire check`) need. What
//! must stay true: code below this module never sees a file, a flag or an environment variable, and every
//! field here is valid with every other.

mod check;
mod document;
mod event_type;
mod kind;
mod listener;
mod pattern;
mod queue;
mod raw;
mod section;
mod stomp;
mod words;

pub use document::markdown;
pub use event_type::EventType;
pub use kind::{Answered, StatusTransform};
pub(crate) use kind::{format_duration, parse_duration};
pub use listener::{Listener, Tls};
pub use queue::{QueueOptions, QueueSettings, QueueStore};
pub(crate) use raw::edit_distance;
pub use raw::{ConfigError, Origin, Sources, demo, load};
pub use stomp::{Destination, Stomp, User};
pub use words::{
    Anonymous, DataFormat, FirstPacket, Framing, LengthCounts, LengthOrder, PlainFormat, Protocol,
    SecondConnection, WhenFull,
};

use longwire_protocol::heartbeat;
use section::{Section, fields, section};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Length of a queue's name, prefixes of the server's own included.
pub const MAX_QUEUE_NAME_BYTES: usize = 255;

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
    /// All that is listened on: the addresses of `server.listen`, then the sections `[listeners.NAME]` by name.
    pub listeners: Vec<Listener>,
    /// The sections `[listeners.NAME]`, of which [`listeners`](Self::listeners) is made.
    listener_sections: BTreeMap<String, ListenerSection>,
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
    /// Clients of the plain dialect.
    pub plain: Plain,
    /// Limits of one client.
    pub client: Client,
    /// Tokens of connections.
    pub auth: Auth,
    /// Tokens of subscriptions, where they have rules of their own.
    pub subscription_auth: SubscriptionAuth,
    /// What the backend is told.
    pub events: Events,
    /// What histories may take of the disk.
    pub history: History,
    /// What holds for queues.
    pub queues: QueueSettings,
    /// Clients that speak STOMP.
    pub stomp: Stomp,
    /// Users that have rights of their own, by name.
    pub users: BTreeMap<String, User>,
    /// Options of channels without a namespace.
    pub channel: ChannelOptions,
    /// Options of the channels `NAME:...`.
    pub namespaces: BTreeMap<String, ChannelOptions>,
    /// What all webhooks have in common.
    pub webhook: Webhooks,
    /// The webhooks that are asked where no other one is named, in the order of [`WEBHOOKS`].
    pub default_webhooks: [Webhook; WEBHOOKS.len()],
    /// The webhooks that namespaces name.
    pub webhooks: BTreeMap<String, Webhook>,
    /// Who answers the methods `NAME:...` of clients.
    pub rpc_namespaces: BTreeMap<String, RpcNamespace>,
    /// What is logged, and how.
    pub log: Log,
}

section! {
    /// Where and how many connections are accepted, and how they are given away on a shutdown.
    pub struct Server {
        /// Addresses to listen on for HTTP: short for a section `[listeners.NAME]` each that has only its address;
        /// they are named `http`, `http2` and so on. The default holds where no `[listeners.NAME]` has the protocol
        /// `http`. For `longwire demo`, a flag or variable replaces its TCP listener, too, unless another one names a
        /// listener.
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
        /// Connections from one address, and as many sessions of its clients that are away; loopback is exempt. Of IPv6,
        /// all addresses of a /64 are one.
        pub max_connections_per_ip: usize = LIMIT(1000),
        /// Streams (WebSocket, SSE, polls of clients that have no session and the like) that one address may open a
        /// second, sustained; above, another is answered 429. Loopback is exempt. 0 means no limit.
        pub connects_per_second_per_ip: usize = COUNT(0),
        /// Streams that one address may open at once, above the sustained rate.
        pub connect_burst_per_ip: usize = LIMIT(20),
        /// Origins that browsers may connect from, `scheme://host[:port]`; empty means the host itself.
        pub allowed_origins: Vec<String> = ORIGINS(Vec::new()),
        /// Addresses whose `X-Forwarded-For` and `Forwarded` headers are believed. Name each proxy in front of longwire:
        /// without that all of its clients share its address, and over STOMP none of them is anonymous for being on this machine.
        /// Where both headers come, `X-Forwarded-For` counts: let a proxy that writes only `Forwarded` remove it from what
        /// its clients send.
        pub trusted_proxies: Vec<IpAddr> = HOSTS(Vec::new()),
        /// On a shutdown, clients are told one by one to come back, spread over this span.
        pub drain_over: Duration = DURATION(secs(10)),
        /// On a shutdown, what is left is cut after this time.
        pub drain_deadline: Duration = TIMEOUT(secs(30)),
        /// The directory for what must outlive a restart, such as events and revoked tokens; made once something
        /// needs it. One process at a time may use it: another that needs it does not start.
        pub data_dir: PathBuf = PATH(PathBuf::from("longwire-data")),
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
        /// Serve it. Where it is off, `/api` answers 404; `/metrics` and `/health` stay.
        pub enabled: bool = FLAG(true),
        /// The key that callers show in `X-API-Key`; without one only loopback is served.
        pub key: Option<String> = SECRET(None),
        /// Serve everybody without a key.
        pub insecure: bool = FLAG(false),
        /// Channels in one broadcast call.
        pub max_broadcast_channels: usize = LIMIT(1000),
        /// How long an idempotency key is remembered: a publish that is repeated within that time publishes nothing.
        pub idempotency_ttl: Duration = TIMEOUT(secs(300)),
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
    /// Clients of the plain dialect: what is kept for one that is away for a moment, and what it may send.
    pub struct Plain {
        /// How long the session of a client with a name (`?client=NAME`) is kept when its connection breaks: whoever
        /// returns within it goes on as if nothing had happened. 0 turns it off.
        pub grace: Duration = DURATION(secs(15)),
        /// What becomes of a second connection of the same user with the same name: `replace`, it goes on and the
        /// first is closed; `refuse`, it is refused.
        pub second_connection: SecondConnection = SECOND_CONNECTION(SecondConnection::Replace),
        /// Bytes kept for one client that is away: publications of channels without history, and what is sent to it
        /// directly; of those that is beyond, it is dropped, and the client is told `recovered: false`. Joins and
        /// leaves are kept as long as half of it is left.
        pub max_away_bytes: usize = SIZE_OR_ZERO(64 * KIB),
        /// How long a long-poll waits for something to tell, if it says nothing else.
        pub poll_wait: Duration = TIMEOUT(secs(25)),
        /// The longest that a long-poll may ask to wait.
        pub max_poll_wait: Duration = TIMEOUT(secs(60)),
        /// Messages of one client that wait for the backend; above, nothing more is read of its connection, and
        /// `POST /send` is answered 429.
        pub max_waiting_messages: usize = LIMIT(64),
        /// Bytes of one client's messages that wait for the backend; above, as with `max_waiting_messages`.
        pub max_waiting_bytes: usize = SIZE(256 * KIB),
        /// How long a message is tried at the backend. Then the connection is closed, because the next messages must
        /// not overtake it.
        pub retry_for: Duration = TIMEOUT(secs(30)),
        /// Size of one message that is sent with `POST /send`; `websocket.max_message_bytes` and
        /// `max_packet_bytes` of a listener hold for the others.
        pub max_message_bytes: usize = SIZE(64 * KIB),
        /// Size of the session data that the backend keeps with one connection.
        pub max_session_data_bytes: usize = SIZE(16 * KIB),
    }
}

section! {
    /// Something to listen on. An `http` listener serves all that is spoken over HTTP (WebSocket, SSE, HTTP stream,
    /// long-poll, the API), a `tcp` listener packets of the plain dialect, a `stomp` listener STOMP over TCP. Heartbeats,
    /// idle limit and ping interval hold for clients of the plain dialect; those of the centrifuge dialect have
    /// `[heartbeat]`, and clients of STOMP ask for theirs (`[stomp]`).
    pub struct ListenerSection {
        /// The address and port; required.
        pub address: Option<SocketAddr> = ADDRESS(None),
        /// `http`, `tcp` or `stomp`.
        pub protocol: Protocol = PROTOCOL(Protocol::Http),
        /// The file with the certificate and those between it and the root, in PEM; with `tls_key`, everything on
        /// this listener is TLS. Both files are read again when they change, within a minute or upon SIGHUP.
        pub tls_certificate: Option<PathBuf> = OPTIONAL_PATH(None),
        /// The file with the certificate's key, in PEM (PKCS #8, PKCS #1 or SEC1).
        pub tls_key: Option<PathBuf> = OPTIONAL_PATH(None),
        /// How long a WebSocket or TCP client may be silent before it is closed; any byte counts, also the answer to a
        /// ping. 0 turns it off.
        pub idle_timeout: Duration = DURATION(secs(30)),
        /// Time between pings: ping frames on a WebSocket, `ping_packet` on TCP. 0 turns them off. Those of SSE and HTTP
        /// stream are `heartbeat.interval` apart.
        pub ping_interval: Duration = DURATION(secs(25)),
        /// What is sent as a ping over TCP; nothing if empty.
        pub ping_packet: String = TEXT(String::new()),
        /// Messages of clients that are signs of life and nothing else, such as `ping`: the backend is not told.
        pub heartbeat_messages: Vec<String> = TEXTS(Vec::new()),
        /// What each of `heartbeat_messages` is answered with; nothing if empty.
        pub heartbeat_answer: String = TEXT(String::new()),
        /// What clients get: `json`, each publication within an object that names its channel, or `bare`, its data alone.
        /// Clients of WebSocket and HTTP stream may choose by `?format=`.
        pub format: PlainFormat = PLAIN_FORMAT(PlainFormat::Json),
        /// How a TCP packet ends: at a `terminator`, or where a `length` field says.
        pub framing: Framing = FRAMING(Framing::Terminator),
        /// The 1 to 8 bytes that end a packet, which are no part of it. Unless `format` is `bare`, they need a control
        /// character: anything else can stand within JSON.
        pub terminator: String = TEXT("\n".to_owned()),
        /// Size of the length field: 1, 2 or 4 bytes.
        pub length_bytes: usize = LENGTH_BYTES(4),
        /// The order of its bytes: `big` (the most significant first) or `little`.
        pub length_order: LengthOrder = LENGTH_ORDER(LengthOrder::Big),
        /// Bytes of a packet before the length field.
        pub length_offset: usize = COUNT(0),
        /// Where in a packet the body begins; if not set, right behind the length field.
        pub body_offset: Option<usize> = OPTIONAL_COUNT(None),
        /// What the length counts: the `body`, or the whole `packet`.
        pub length_counts: LengthCounts = LENGTH_COUNTS(LengthCounts::Body),
        /// Messages are whole packets with all that is before the body, and what the backend sends goes out as it is:
        /// for heads that say more than a length.
        pub whole_packets: bool = FLAG(false),
        /// Size of one TCP packet of a client, all included.
        pub max_packet_bytes: usize = SIZE(64 * KIB),
        /// What the first TCP packet of a client is: `none`, a message as the others; `client`, its name; `token`, its
        /// token; `json`, an object with `token`, `client`, `channels`, `since` and `data`.
        pub first_packet: FirstPacket = FIRST_PACKET(FirstPacket::None),
    }
}

section! {
    /// Who may connect, and what one connection may cost.
    pub struct Client {
        /// Accept connections without a token as the anonymous user.
        pub allow_anonymous: bool = FLAG(false),
        /// Accept tokens that name no user, whose connections are the anonymous user's too.
        pub allow_anonymous_tokens: bool = FLAG(true),
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
        /// Commands of all connections of one user a second, sustained; beyond, the connection is closed. The
        /// anonymous user is exempt. 0 means no limit.
        pub commands_per_second_per_user: usize = COUNT(0),
        /// Commands of all connections of one user at once, above the sustained rate.
        pub command_burst_per_user: usize = LIMIT(400),
        /// Publications of all connections of one user a second, sustained; beyond, a publish is answered with error
        /// 111. The anonymous user is exempt. 0 means no limit.
        pub publishes_per_second_per_user: usize = COUNT(0),
        /// Publications of all connections of one user at once, above the sustained rate.
        pub publish_burst_per_user: usize = LIMIT(50),
        /// Connections of one user; the anonymous user is exempt. 0 means no limit.
        pub max_connections_per_user: usize = COUNT(10),
        /// Time after a token's expiry within which a refresh is still accepted.
        pub expired_close_delay: Duration = DURATION(secs(25)),
        /// Publications in one answer of the history command.
        pub max_history_publications: usize = LIMIT(300),
        /// Publications that one recovery may bring.
        pub max_recovery_publications: usize = LIMIT(300),
        /// Subscribe every user who is not anonymous to the channel `#USER`, which is the user's own.
        pub personal_channel: bool = FLAG(false),
        /// The namespace of personal channels: they are named `NAMESPACE:#USER`.
        pub personal_channel_namespace: Option<String> = OPTIONAL_TEXT(None),
        /// A connection that is subscribed to its user's personal channel closes the older ones in it.
        pub personal_channel_single_connection: bool = FLAG(false),
    }
}

/// A section about tokens: what it has of its own, and then what every such section has.
macro_rules! token_section {
    ($(#[doc = $doc:literal])+ pub struct $name:ident { $($own:tt)* }) => {
        section! {
            $(#[doc = $doc])+
            pub struct $name {
                $($own)*
                /// Secret of HS256, HS384 and HS512 tokens, at least 32 bytes. Without any key every token is
                /// refused.
                pub hmac_secret: Option<String> = SECRET(None),
                /// The secret before `hmac_secret`: tokens that it signed are accepted too, for as long as it stands
                /// here.
                pub hmac_previous_secret: Option<String> = SECRET(None),
                /// Public key of RS256, RS384 and RS512 tokens: PEM, or `file:` and the path of a PEM file that is
                /// read at the start. At least 2048 bits.
                pub rsa_public_key: Option<String> = PUBLIC_KEY(None),
                /// Public key of ES256 (curve P-256) or ES384 (curve P-384) tokens: PEM, or `file:` and a path. ES512
                /// is not supported.
                pub ecdsa_public_key: Option<String> = PUBLIC_KEY(None),
                /// Public key of EdDSA tokens (Ed25519): PEM, or `file:` and a path.
                pub ed25519_public_key: Option<String> = PUBLIC_KEY(None),
                /// Where the issuer publishes its keys (JWKS). Tokens must then name theirs (header `kid`); only its
                /// keys for the algorithms of the former three are used, no secrets. Placeholders, by which
                /// Centrifugo puts claims of the token into it, are refused: no claim can be believed before the key
                /// is there (CVE-2026-32301).
                pub jwks_url: Option<String> = OPTIONAL_TEXT(None),
                /// How often the issuer's keys are fetched. They are fetched between, too, when a token names
                /// another one, at most every 10 s. While the issuer cannot be reached those that it gave last are
                /// used.
                pub jwks_refresh: Duration = INTERVAL(secs(3600)),
                /// Fetch the issuer's keys over plain HTTP from another host than this one. Whoever stands between
                /// can then make tokens.
                pub jwks_allow_http: bool = FLAG(false),
                /// What the claim `aud` must be or contain; unchecked if not set.
                pub audience: Option<String> = OPTIONAL_TEXT(None),
                /// The same as a pattern, in which `*` stands for any text, also none: `https://*.example.com`. It is
                /// no regular expression.
                pub audience_pattern: Option<String> = OPTIONAL_TEXT(None),
                /// What the claim `iss` must be; unchecked if not set.
                pub issuer: Option<String> = OPTIONAL_TEXT(None),
                /// The same as a pattern, in which `*` stands for any text, also none.
                pub issuer_pattern: Option<String> = OPTIONAL_TEXT(None),
                /// The claim that says who the user is, instead of `sub`; it must then be there and be text.
                pub user_claim: Option<String> = OPTIONAL_TEXT(None),
                /// Refuse tokens without the claim `exp`: a leaked one would be good for ever.
                pub require_exp: bool = FLAG(true),
            }
        }
    };
}

token_section! {
    /// Tokens that say who a client is, and, unless `subscription_auth.enabled` is on, those that let it subscribe.
    /// Which algorithms are accepted follows from the keys that are configured, never from the token alone.
    pub struct Auth {}
}

token_section! {
    /// Tokens that let a client subscribe to one channel, where they have other keys and rules than those of `[auth]`.
    pub struct SubscriptionAuth {
        /// Judge subscription tokens by this section alone. Where it is off, `[auth]` serves both.
        pub enabled: bool = FLAG(false),
    }
}

impl Auth {
    /// Whether any token can be accepted.
    pub fn has_key(&self) -> bool {
        let keys = [
            &self.hmac_secret,
            &self.rsa_public_key,
            &self.ecdsa_public_key,
            &self.ed25519_public_key,
            &self.jwks_url,
        ];
        keys.iter().any(|key| key.is_some())
    }
}

impl SubscriptionAuth {
    /// The settings in the form of those of `[auth]`; `None` if that serves subscription tokens too.
    pub fn settings(&self) -> Option<Auth> {
        let SubscriptionAuth {
            enabled,
            hmac_secret,
            hmac_previous_secret,
            rsa_public_key,
            ecdsa_public_key,
            ed25519_public_key,
            jwks_url,
            jwks_refresh,
            jwks_allow_http,
            audience,
            audience_pattern,
            issuer,
            issuer_pattern,
            user_claim,
            require_exp,
        } = self.clone();
        enabled.then_some(Auth {
            hmac_secret,
            hmac_previous_secret,
            rsa_public_key,
            ecdsa_public_key,
            ed25519_public_key,
            jwks_url,
            jwks_refresh,
            jwks_allow_http,
            audience,
            audience_pattern,
            issuer,
            issuer_pattern,
            user_claim,
            require_exp,
        })
    }
}

section! {
    /// What the backend is told of clients and channels, at least once and in order; docs/events.md has the payloads
    /// and the guarantees. Off unless `endpoint` is set.
    pub struct Events {
        /// Where events are posted to, `http://` or `https://`. Without it nothing is recorded.
        pub endpoint: Option<String> = ENDPOINT(None),
        /// Signs each delivery with HMAC-SHA256, in the header `x-longwire-signature`; at least 32 bytes.
        pub secret: Option<String> = SECRET(None),
        /// The types that are sent: `connected`, `disconnected`, `subscribed`, `unsubscribed`, `occupied`, `vacated`.
        pub types: Vec<EventType> = EVENT_TYPES(EventType::ALL.to_vec()),
        /// Time for one attempt to deliver.
        pub timeout: Duration = TIMEOUT(secs(10)),
        /// The longest pause between attempts; the first is up to 100 ms, and each may be twice the one before.
        pub max_backoff: Duration = TIMEOUT(secs(20)),
        /// How long events are collected before they are written to the disk together, and sent.
        pub max_delay: Duration = DURATION(Duration::from_millis(50)),
        /// Events in one delivery.
        pub max_batch: usize = LIMIT(100),
        /// Size of one delivery's body; a larger event goes alone.
        pub max_batch_bytes: usize = SIZE(256 * KIB),
        /// Memory for events that wait for the disk. Beyond it nothing is recorded of clients that come, and no
        /// subscriptions; ends of what was recorded have as much again.
        pub max_queue_bytes: usize = SIZE(16 * MIB),
        /// Disk that events may take. Beyond it the oldest undelivered ones are dropped; at least 4 MiB.
        pub max_disk_bytes: usize = SIZE(1024 * MIB),
        /// How long a channel must be without subscribers to be `vacated`; whoever subscribes within it prevents both
        /// `vacated` and another `occupied`.
        pub vacated_delay: Duration = DURATION(secs(5)),
        /// Start although events on the disk are damaged, without those that are lost.
        pub past_damage: bool = FLAG(false),
    }
}

section! {
    /// Histories that outlive the process, of channels with `history_on_disk`.
    pub struct History {
        /// How long publications are collected before they are written to the disk together, 10 ms to 1 s: what a
        /// killed process loses at most.
        pub max_delay: Duration = TIMEOUT(Duration::from_millis(50)),
        /// Disk that histories may take; at least 4 MiB. Beyond it the oldest publications are in memory only, which is
        /// logged. Twice what is retained is best: the disk has room, too, for what is not retained any more.
        pub max_disk_bytes: usize = SIZE(1024 * MIB),
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
        /// History is kept in `server.data_dir`, too, so that a restart is recovered from like a loss of the network. What
        /// was kept is removed at the first start without it.
        pub history_on_disk: bool = FLAG(false),
        /// Every subscription is positioned.
        pub force_positioning: bool = FLAG(false),
        /// A subscription is positioned if the client asks.
        pub allow_positioning: bool = FLAG(false),
        /// Every subscription is recoverable.
        pub force_recovery: bool = FLAG(false),
        /// A subscription is recoverable if the client asks.
        pub allow_recovery: bool = FLAG(false),
        /// What a recovery brings: `stream`, all that was missed; `cache`, the newest publication.
        pub force_recovery_mode: RecoveryMode = RECOVERY_MODE(RecoveryMode::Stream),
        /// In the mode `cache` every subscription begins with the newest publication, asked for or not.
        pub auto_cache_recover: bool = FLAG(false),
        /// What clients may agree upon to be sent differences: `fossil` is the only one. Needs history.
        pub allowed_delta_types: Vec<String> = DELTA_TYPES(Vec::new()),
        /// Clients may choose publications by their tags.
        pub allow_tags_filter: bool = FLAG(false),
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
        /// Subscribers may be given the difference between a publication and the one before it, whether the
        /// publisher asks for that or not.
        pub delta_publish: bool = FLAG(false),
        /// What may be published: any JSON (empty, or `json`), JSON objects only (`json_object`), or anything
        /// (`binary`), which clients that are sent JSON get as a string if it is text.
        pub publication_data_format: DataFormat = DATA_FORMAT(DataFormat::Any),
        /// Which webhook decides who may subscribe without a token: `default` is `[webhook.subscribe]`, another
        /// name `[webhooks.NAME]`; empty asks none.
        pub subscribe_webhook: String = TEXT(String::new()),
        /// Which webhook decides what clients may publish: `default` is `[webhook.publish]`.
        pub publish_webhook: String = TEXT(String::new()),
        /// Which webhook prolongs subscriptions that the subscribe webhook granted for a time: `default` is
        /// `[webhook.sub_refresh]`.
        pub sub_refresh_webhook: String = TEXT(String::new()),
    }
}

section! {
    /// What all webhooks have in common. A webhook is a request to a backend that decides something:
    /// docs/webhooks.md describes each.
    pub struct Webhooks {
        /// Signs the requests' bodies (header `X-Longwire-Signature`), at least 32 bytes; unsigned if not set.
        pub secret: Option<String> = SECRET(None),
        /// Requests of one webhook that may be under way.
        pub max_in_flight: usize = LIMIT(256),
        /// Requests of one webhook that may wait for their turn; above, clients get the temporary error at once.
        pub max_waiting: usize = COUNT(10_000),
    }
}

section! {
    /// One webhook. `[webhook.connect]` says who a client without a token is, `[webhook.refresh]` prolongs such
    /// connections, `[webhook.rpc]` answers methods without a namespace; `[webhook.open]`, `[webhook.message]` and
    /// `[webhook.close]` are told of connections of the plain dialect; the others are asked where
    /// `[channel]` or a namespace says `default`. Options and namespaces may name `[webhooks.NAME]` instead.
    pub struct Webhook {
        /// The address that is asked, `http://` or `https://`; the webhook is off without one.
        pub endpoint: Option<String> = ENDPOINT(None),
        /// Time for an answer; a request waits as long for its turn before that.
        pub timeout: Duration = TIMEOUT(secs(1)),
        /// Headers of the client's own HTTP request that are handed on, such as `cookie`.
        pub http_headers: Vec<String> = HEADER_NAMES(Vec::new()),
        /// Headers inside the connect command that are handed on. A client can forge them.
        pub emulated_headers: Vec<String> = HEADER_NAMES(Vec::new()),
        /// Headers of every request, each `name: value`. Their values are secret.
        pub static_headers: Vec<(String, String)> = HEADERS(Vec::new()),
        /// Send `meta`, which the token or the connect webhook gave and the client does not see.
        pub include_connection_meta: bool = FLAG(false),
        /// Send payloads in base64, as `b64data`.
        pub binary_encoding: bool = FLAG(false),
        /// What other statuses than 2xx mean, each `STATUS error CODE [temporary] MESSAGE` or
        /// `STATUS disconnect CODE REASON`, such as `402 disconnect 4500 no credit`.
        pub status_transforms: Vec<StatusTransform> = STATUS_TRANSFORMS(Vec::new()),
        /// Refuse to ask private, loopback and other addresses that are not public, whatever the name resolves to.
        pub public_addresses_only: bool = FLAG(false),
    }
}

section! {
    /// Who answers the methods `NAME:...` that clients call. A method of a namespace that is not configured does
    /// not exist.
    pub struct RpcNamespace {
        /// Which webhook: `default` is `[webhook.rpc]`, another name `[webhooks.NAME]`; empty asks none.
        pub webhook: String = TEXT(DEFAULT_WEBHOOK.to_owned()),
    }
}

/// What the webhooks decide: the sections `[webhook.NAME]`.
pub const WEBHOOKS: [&str; 9] =
    ["connect", "refresh", "subscribe", "publish", "sub_refresh", "rpc", "open", "message", "close"];

/// The name that stands for the section `[webhook.…]` of what is decided.
pub const DEFAULT_WEBHOOK: &str = "default";

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

/// What a recovery brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoveryMode {
    /// All that was missed, or nothing.
    Stream,
    /// The newest publication.
    Cache,
}

/// The one way to send differences that there is.
pub const DELTA_TYPE: &str = "fossil";

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
            listeners: listener::of_addresses(&Server::default().listen),
            listener_sections: BTreeMap::new(),
            http: Http::default(),
            api: Api::default(),
            heartbeat: heartbeat::Intervals::defaults(),
            websocket: WebSocket::default(),
            event_stream: EventStream::default(),
            plain: Plain::default(),
            client: Client::default(),
            auth: Auth::default(),
            subscription_auth: SubscriptionAuth::default(),
            events: Events::default(),
            history: History::default(),
            queues: QueueSettings::default(),
            stomp: Stomp::default(),
            users: BTreeMap::new(),
            channel: ChannelOptions::default(),
            namespaces: BTreeMap::new(),
            webhook: Webhooks::default(),
            default_webhooks: Default::default(),
            webhooks: BTreeMap::new(),
            rpc_namespaces: BTreeMap::new(),
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
        for (name, listener) in &mut self.listener_sections {
            visitor.section(&format!("listeners.{name}"), listener);
        }
        visitor.section("http", &mut self.http);
        visitor.section("api", &mut self.api);
        visitor.section("heartbeat", &mut self.heartbeat);
        visitor.section("websocket", &mut self.websocket);
        visitor.section("event_stream", &mut self.event_stream);
        visitor.section("plain", &mut self.plain);
        visitor.section("client", &mut self.client);
        visitor.section("auth", &mut self.auth);
        visitor.section("subscription_auth", &mut self.subscription_auth);
        visitor.section("events", &mut self.events);
        visitor.section("history", &mut self.history);
        visitor.section("queue", &mut self.queues.options);
        for (pattern, options) in &mut self.queues.named {
            visitor.section(&format!("queues.{pattern}"), options);
        }
        visitor.section("queue_store", &mut self.queues.store);
        visitor.section("stomp", &mut self.stomp);
        for (name, user) in &mut self.users {
            visitor.section(&format!("users.{name}"), user);
        }
        visitor.section("log", &mut self.log);
        visitor.section("channel", &mut self.channel);
        for (name, options) in &mut self.namespaces {
            visitor.section(&format!("namespaces.{name}"), options);
        }
        visitor.section("webhook", &mut self.webhook);
        for (name, webhook) in WEBHOOKS.iter().zip(&mut self.default_webhooks) {
            visitor.section(&format!("webhook.{name}"), webhook);
        }
        for (name, webhook) in &mut self.webhooks {
            visitor.section(&format!("webhooks.{name}"), webhook);
        }
        for (name, namespace) in &mut self.rpc_namespaces {
            visitor.section(&format!("rpc_namespaces.{name}"), namespace);
        }
    }

    /// Whether some webhook is to get this header of a client's HTTP request.
    pub fn hands_on_header(&self, name: &str) -> bool {
        let has = |allowed: &[String]| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        self.all_webhooks().any(|webhook| has(&webhook.http_headers))
    }

    /// Whether some webhook is to get this header of a connect command.
    pub fn hands_on_emulated_header(&self, name: &str) -> bool {
        let has = |allowed: &[String]| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        self.all_webhooks().any(|webhook| has(&webhook.emulated_headers))
    }

    /// Whether some webhook is to get what connections keep as `meta`.
    pub fn hands_on_meta(&self) -> bool {
        self.all_webhooks().any(|webhook| webhook.include_connection_meta)
    }

    /// Whether a webhook says who clients without a token are.
    pub fn has_connect_webhook(&self) -> bool {
        let [connect, ..] = &self.default_webhooks;
        connect.endpoint.is_some()
    }

    /// Whether there may be a method of this name: for one without a namespace, whether anybody is asked at all.
    pub fn has_method(&self, method: &str) -> bool {
        let [_, _, _, _, _, rpc, ..] = &self.default_webhooks;
        method.contains(':') || rpc.endpoint.is_some()
    }

    fn all_webhooks(&self) -> impl Iterator<Item = &Webhook> {
        self.default_webhooks.iter().chain(self.webhooks.values())
    }

    /// Whether anybody may do something without a key or token, and only because nobody else than this
    /// machine's programs can connect.
    pub fn is_open_on_loopback_only(&self) -> bool {
        (self.client.insecure || self.api.insecure)
            && self.listeners.iter().all(|listener| listener.address.ip().is_loopback())
    }

    /// Listens on these addresses for HTTP, and on nothing else.
    pub fn listen_on(&mut self, addresses: Vec<SocketAddr>) {
        self.listeners = listener::of_addresses(&addresses);
        self.listener_sections.clear();
        self.server.listen = addresses;
    }

    /// The options of the queue `name`.
    pub fn queue_options(&self, name: &str) -> &QueueOptions {
        self.queues.options_of(name)
    }

    /// The options of the channel `name`, or `None` if its namespace is not configured.
    pub fn channel_options(&self, name: &str) -> Option<&ChannelOptions> {
        match longwire_protocol::name::ChannelName::parse(name).namespace {
            Some(namespace) => self.namespaces.get(namespace),
            None => Some(&self.channel),
        }
    }
}
