//! Every option of Centrifugo v6 and what becomes of it: the whole mapping at a glance.
//!
//! One row an option; options that stand in several places stand in a group for each. A row that is a `rule`
//! is decided in `rules`, because it depends on others. An option that is in no row is unknown. What must stay
//! true: the names on the left are Centrifugo's, those on the right are settings of longwire (a test loads
//! each), what somebody must do by hand is said in the row and nowhere else, and what an option without a
//! counterpart closed stands in `narrow`.

use super::convert::Form::{
    self, Count, Flag, Headers, Inverse, Limit, Secret, Span, Text, Texts, Timeout, Transforms,
};

/// Options that stand together in one table of the file.
pub(super) struct Group {
    /// Where; `[]` stands for each item of a list, which has a `name`.
    pub(super) at: &'static str,
    /// The section of longwire that they become; `NAME` is the item's name.
    pub(super) section: &'static str,
    /// When they count.
    pub(super) when: When,
    pub(super) rows: &'static [Row],
}

/// When the options of a group have an effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    Always,
    /// If the group's option `enabled` is true.
    Enabled,
    /// If the group's option `endpoint` is set; it must be HTTP.
    Endpoint,
    /// Both of them.
    EnabledEndpoint,
}

/// One option.
pub(super) struct Row {
    /// Its name within its group. A row about a table is about all that is in it.
    pub(super) option: &'static str,
    pub(super) becomes: Becomes,
}

/// What becomes of an option.
pub(super) enum Becomes {
    /// This setting of the group's section; in the group of the top, the whole key.
    Setting(&'static str, Form),
    /// What `rules` makes of it.
    Rule,
    /// Nothing, and nothing is missing.
    Unneeded(Off, &'static str),
    /// Nothing, and something is missing: what it did, and what to do instead.
    Missing(Off, &'static str, &'static str),
}

/// At which value an option does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Off {
    /// Empty, zero or false.
    Empty,
    /// This value, or empty.
    At(&'static str),
    /// A table whose option `enabled` is not true.
    NotEnabled,
    /// A list of such tables.
    NoneEnabled,
}

use Off::{At, Empty, NoneEnabled, NotEnabled};

const fn setting(option: &'static str, key: &'static str, form: Form) -> Row {
    Row { option, becomes: Becomes::Setting(key, form) }
}

const fn rule(option: &'static str) -> Row {
    Row { option, becomes: Becomes::Rule }
}

const fn unneeded(option: &'static str, off: Off, why: &'static str) -> Row {
    Row { option, becomes: Becomes::Unneeded(off, why) }
}

const fn missing(option: &'static str, off: Off, did: &'static str, instead: &'static str) -> Row {
    Row { option, becomes: Becomes::Missing(off, did, instead) }
}

const fn group(at: &'static str, section: &'static str, when: When, rows: &'static [Row]) -> Group {
    Group { at, section, when, rows }
}

/// All groups.
pub(super) const GROUPS: &[Group] = &[
    group("", "", When::Always, TOP),
    group("client.token", "auth", When::Always, TOKEN),
    group("client.subscription_token", "subscription_auth", When::Enabled, TOKEN),
    group("client.subscribe_to_user_personal_channel", "client", When::Enabled, PERSONAL_CHANNEL),
    group("client.proxy.connect", "webhook.connect", When::EnabledEndpoint, PROXY),
    group("client.proxy.refresh", "webhook.refresh", When::EnabledEndpoint, PROXY),
    group("channel.proxy.subscribe", "webhook.subscribe", When::Endpoint, PROXY),
    group("channel.proxy.publish", "webhook.publish", When::Endpoint, PROXY),
    group("channel.proxy.sub_refresh", "webhook.sub_refresh", When::Endpoint, PROXY),
    // `webhooks.rpc` if only namespaces ask it: see `rules`.
    group("rpc.proxy", "webhook.rpc", When::Endpoint, PROXY),
    group("proxies[]", "webhooks.NAME", When::Endpoint, PROXY),
    group("channel.without_namespace", "channel", When::Always, CHANNEL),
    group("channel.namespaces[]", "namespaces.NAME", When::Always, CHANNEL),
    group("rpc.without_namespace", "webhook.rpc", When::Always, RPC),
    group("rpc.namespaces[]", "rpc_namespaces.NAME", When::Always, RPC),
];

const TLS_INSTEAD: &str =
    "give [listeners.NAME] tls_certificate and tls_key, or end TLS at the proxy in front of longwire";
const INTERNAL_DID: &str = "a second address for the API, metrics and health";
const INTERNAL_INSTEAD: &str =
    "longwire serves all at one address: let the proxy in front forbid /api and /metrics from outside";
const PREFIX_DID: &str = "another path for this endpoint";
const PREFIX_INSTEAD: &str =
    "use Centrifugo's usual path, which longwire serves, or rewrite the path in the proxy in front";
const ALWAYS_ON: &str = "longwire always serves it";
const BUFFERS: &str = "longwire manages its buffers itself";
const UNI_CODES_DID: &str = "other answers when a unidirectional connect fails";
const UNI_CODES_INSTEAD: &str = "let clients expect the usual disconnect codes (docs/close-codes.md)";
const COMPRESSION_OF_ALL: &str = "`[websocket]` holds for both kinds of WebSocket";
const BODY: &str = "`http.max_body_bytes` (1MiB) bounds the bodies of all requests";
const CLUSTER_DID: &str = "kept channels outside of the process, and joined several nodes";
const CLUSTER_INSTEAD: &str = "nothing yet: longwire is one node; after a restart presence begins empty, and history does unless history_on_disk keeps it";
const GRPC_INSTEAD: &str = "call the HTTP API, which has the same methods";
const MAP: &str = "subscriptions to maps and polled channels";
const MAP_INSTEAD: &str =
    "use a channel with history, or `force_recovery_mode = \"cache\"` for the newest value";
const NAME_SIGN_DID: &str = "another sign in names of channels";
const NAME_SIGN_INSTEAD: &str =
    "name channels with the usual signs: `ns:name`, `$private`, `name#user1,user2`";

/// What stands in one place only.
const TOP: &[Row] = &[
    // Where it listens.
    rule("http_server.address"),
    rule("http_server.port"),
    missing("http_server.internal_address", Empty, INTERNAL_DID, INTERNAL_INSTEAD),
    missing("http_server.internal_port", Empty, INTERNAL_DID, INTERNAL_INSTEAD),
    missing("http_server.tls", NotEnabled, "TLS", TLS_INSTEAD),
    missing("http_server.tls_autocert", NotEnabled, "TLS with certificates from ACME", TLS_INSTEAD),
    unneeded("http_server.tls_external", Empty, "it only divides TLS between two addresses"),
    missing("http_server.internal_tls", NotEnabled, "TLS", TLS_INSTEAD),
    missing("http_server.http3", NotEnabled, "HTTP/3", "clients fall back to HTTP/1.1 by themselves"),
    missing(
        "http_server.h2c_external",
        Empty,
        "HTTP/2 without TLS",
        "let the proxy speak HTTP/1.1 to longwire",
    ),
    // Logs, process.
    rule("log.level"),
    missing("log.file", Empty, "logs in a file", "longwire logs to standard error: send that to the file"),
    rule("shutdown.timeout"),
    missing("pid_file", Empty, "a file with the process id", "let the service manager keep the process id"),
    unneeded("usage_stats", Empty, "longwire sends nobody statistics"),
    unneeded("enable_unreleased_features", Empty, "what is in longwire is released"),
    unneeded("node.name", Empty, "longwire is one node"),
    unneeded("node.info_metrics_aggregate_interval", At("60s"), "longwire is one node"),
    // Where channels live.
    missing("engine.type", At("memory"), CLUSTER_DID, CLUSTER_INSTEAD),
    unneeded("engine.redis", Empty, "`engine.type` decides whether it is used"),
    missing("broker", NotEnabled, CLUSTER_DID, CLUSTER_INSTEAD),
    missing("presence_manager", NotEnabled, "kept presence outside of the process", CLUSTER_INSTEAD),
    missing("map_broker.type", At("memory"), MAP, MAP_INSTEAD),
    unneeded("map_broker.redis", Empty, "`map_broker.type` decides whether it is used"),
    unneeded("map_broker.postgres", Empty, "`map_broker.type` decides whether it is used"),
    missing("controller", NotEnabled, "joined several nodes", CLUSTER_INSTEAD),
    missing("shared_poll", Empty, MAP, MAP_INSTEAD),
    // Clients.
    rule("client.allowed_origins"),
    setting("client.allow_anonymous_connect_without_token", "client.allow_anonymous", Flag),
    setting("client.insecure", "client.insecure", Flag),
    setting("client.expired_close_delay", "client.expired_close_delay", Span),
    setting("client.stale_close_delay", "client.connect_timeout", Timeout),
    setting("client.queue_max_size", "client.max_outbox_bytes", Limit),
    setting("client.connection_limit", "server.max_connections", Limit),
    rule("client.connection_rate_limit"),
    setting("client.history_max_publication_limit", "client.max_history_publications", Limit),
    setting("client.recovery_max_publication_limit", "client.max_recovery_publications", Limit),
    rule("client.channel_limit"),
    rule("client.user_connection_limit"),
    rule("client.ping_interval"),
    rule("client.pong_timeout"),
    unneeded(
        "client.expired_sub_close_delay",
        At("25s"),
        "`client.expired_close_delay` holds for subscriptions too",
    ),
    unneeded(
        "client.presence_update_interval",
        At("27s"),
        "presence ends with the connection, it is not renewed",
    ),
    unneeded("client.concurrency", Empty, "longwire does not wait for one command to begin the next"),
    unneeded(
        "client.channel_position_check_delay",
        At("40s"),
        "longwire checks the position of every publication",
    ),
    unneeded("client.channel_position_max_time_lag", Empty, "within one node there is no lag"),
    setting("client.disallow_anonymous_connection_tokens", "client.allow_anonymous_tokens", Inverse),
    missing(
        "client.connect_include_server_time",
        Empty,
        "the server's time in the connect reply",
        "put the time into publications, or into `data` of the connect webhook",
    ),
    missing(
        "client.insecure_skip_token_signature_verify",
        Empty,
        "accepted tokens that anybody made",
        "sign tokens, also in tests: `longwire token make`",
    ),
    missing(
        "client.user_id_http_header",
        Empty,
        "believed a header about who the user is",
        "let `[webhook.connect]` hand the header on (`http_headers`) and your backend answer with the user",
    ),
    setting("client.subscription_token.enabled", "subscription_auth.enabled", Flag),
    missing("client.connect_code_to_unidirectional_disconnect", NotEnabled, UNI_CODES_DID, UNI_CODES_INSTEAD),
    // Channels.
    rule("channel.history_meta_ttl"),
    rule("channel.publication_data_format"),
    setting("channel.max_length", "client.max_channel_bytes", Limit),
    missing("channel.private_prefix", At("$"), NAME_SIGN_DID, NAME_SIGN_INSTEAD),
    missing("channel.namespace_boundary", At(":"), NAME_SIGN_DID, NAME_SIGN_INSTEAD),
    missing("channel.user_boundary", At("#"), NAME_SIGN_DID, NAME_SIGN_INSTEAD),
    missing("channel.user_separator", At(","), NAME_SIGN_DID, NAME_SIGN_INSTEAD),
    unneeded("channel.proxy.subscribe_stream", Empty, "the namespaces that ask it are named"),
    unneeded("channel.proxy.map_publish", Empty, "the namespaces that ask it are named"),
    unneeded("channel.proxy.map_remove", Empty, "the namespaces that ask it are named"),
    unneeded("channel.proxy.shared_poll_refresh", Empty, "the namespaces that ask it are named"),
    // Calls of clients.
    missing("rpc.ping", NotEnabled, "answered a method by itself", "let `[webhook.rpc]` answer the method"),
    missing("rpc.namespace_boundary", At(":"), "another sign in names of methods", "name methods `ns:name`"),
    // The API.
    setting("http_api.key", "api.key", Secret),
    setting("http_api.insecure", "api.insecure", Flag),
    setting("http_api.disabled", "api.enabled", Inverse),
    missing("http_api.handler_prefix", At("/api"), PREFIX_DID, PREFIX_INSTEAD),
    missing(
        "http_api.error_mode",
        Empty,
        "errors as HTTP statuses",
        "send the header `X-Centrifugo-Error-Mode: transport` with each request",
    ),
    unneeded("http_api.external", Empty, "longwire serves all at one address"),
    missing("grpc_api", NotEnabled, "the API over gRPC", GRPC_INSTEAD),
    missing(
        "consumers",
        NoneEnabled,
        "published what was in Kafka, PostgreSQL, NATS, Redis or a cloud's queue",
        "let a worker read the queue and call `POST /api/publish`, with an `idempotency_key`",
    ),
    // WebSocket.
    missing(
        "websocket.disabled",
        Empty,
        "no WebSocket",
        "forbid /connection/websocket in the proxy in front",
    ),
    missing("websocket.handler_prefix", At("/connection/websocket"), PREFIX_DID, PREFIX_INSTEAD),
    setting("websocket.compression", "websocket.compression", Flag),
    setting("websocket.compression_min_size", "websocket.compression_min_bytes", Count),
    setting("websocket.message_size_limit", "websocket.max_message_bytes", Limit),
    setting("websocket.write_timeout", "client.write_timeout", Timeout),
    unneeded("websocket.compression_level", At("1"), "longwire compresses a publication once for all"),
    unneeded("websocket.read_buffer_size", Empty, BUFFERS),
    unneeded("websocket.use_write_buffer_pool", Empty, BUFFERS),
    unneeded("websocket.write_buffer_size", Empty, BUFFERS),
    unneeded(
        "websocket.decompressed_message_size_limit",
        Empty,
        "`websocket.max_message_bytes` is that limit",
    ),
    // The other transports.
    unneeded("sse.enabled", Empty, ALWAYS_ON),
    missing("sse.handler_prefix", At("/connection/sse"), PREFIX_DID, PREFIX_INSTEAD),
    unneeded("sse.max_request_body_size", At("65536"), BODY),
    unneeded("http_stream.enabled", Empty, ALWAYS_ON),
    missing("http_stream.handler_prefix", At("/connection/http_stream"), PREFIX_DID, PREFIX_INSTEAD),
    unneeded("http_stream.max_request_body_size", At("65536"), BODY),
    missing("emulation.handler_prefix", At("/emulation"), PREFIX_DID, PREFIX_INSTEAD),
    unneeded("emulation.max_request_body_size", At("65536"), BODY),
    unneeded("uni_sse.enabled", Empty, ALWAYS_ON),
    missing("uni_sse.handler_prefix", At("/connection/uni_sse"), PREFIX_DID, PREFIX_INSTEAD),
    unneeded("uni_sse.max_request_body_size", At("65536"), BODY),
    missing("uni_sse.connect_code_to_http_response", NotEnabled, UNI_CODES_DID, UNI_CODES_INSTEAD),
    unneeded("uni_http_stream.enabled", Empty, ALWAYS_ON),
    missing("uni_http_stream.handler_prefix", At("/connection/uni_http_stream"), PREFIX_DID, PREFIX_INSTEAD),
    unneeded("uni_http_stream.max_request_body_size", At("65536"), BODY),
    missing("uni_http_stream.connect_code_to_http_response", NotEnabled, UNI_CODES_DID, UNI_CODES_INSTEAD),
    unneeded("uni_websocket.enabled", Empty, ALWAYS_ON),
    missing("uni_websocket.handler_prefix", At("/connection/uni_websocket"), PREFIX_DID, PREFIX_INSTEAD),
    unneeded("uni_websocket.compression", Empty, COMPRESSION_OF_ALL),
    unneeded("uni_websocket.compression_min_size", Empty, COMPRESSION_OF_ALL),
    unneeded("uni_websocket.compression_level", At("1"), COMPRESSION_OF_ALL),
    unneeded("uni_websocket.read_buffer_size", Empty, BUFFERS),
    unneeded("uni_websocket.use_write_buffer_pool", Empty, BUFFERS),
    unneeded("uni_websocket.write_buffer_size", Empty, BUFFERS),
    unneeded("uni_websocket.write_timeout", At("1s"), "`client.write_timeout` holds for all"),
    unneeded("uni_websocket.message_size_limit", At("65536"), "`websocket.max_message_bytes` holds for both"),
    unneeded(
        "uni_websocket.decompressed_message_size_limit",
        Empty,
        "`websocket.max_message_bytes` holds for both",
    ),
    unneeded("uni_websocket.disable_closing_handshake", Empty, "longwire does not wait for it long"),
    missing(
        "uni_websocket.disable_disconnect_push",
        Empty,
        "no disconnect push before the close frame",
        "let clients skip pushes that they do not know",
    ),
    unneeded("uni_websocket.join_push_messages", Empty, "longwire writes waiting messages together"),
    missing(
        "uni_grpc",
        NotEnabled,
        "clients over gRPC",
        "connect to /connection/uni_sse or /connection/uni_http_stream",
    ),
    missing(
        "webtransport",
        NotEnabled,
        "WebTransport",
        "SDKs fall back to the WebSocket; name it in their list",
    ),
    unneeded("init.enabled", Empty, ALWAYS_ON),
    missing("init.handler_prefix", At("/connection/init"), PREFIX_DID, PREFIX_INSTEAD),
    // Looking at it.
    missing(
        "admin",
        NotEnabled,
        "the admin page",
        "ask the API (`info`, `channels`, `connections`), read /metrics, or try `longwire demo`",
    ),
    unneeded("prometheus.enabled", Empty, "longwire always serves /metrics, under its own names of metrics"),
    missing("prometheus.handler_prefix", At("/metrics"), PREFIX_DID, PREFIX_INSTEAD),
    unneeded("prometheus.instrument_http_handlers", Empty, "longwire's own metrics cover requests"),
    unneeded("prometheus.recovered_publications_histogram", Empty, "longwire's own metrics cover recoveries"),
    unneeded("prometheus.native_histograms", Empty, "longwire's histograms are classic ones"),
    unneeded("health.enabled", Empty, ALWAYS_ON),
    missing("health.handler_prefix", At("/health"), PREFIX_DID, PREFIX_INSTEAD),
    missing(
        "swagger",
        NotEnabled,
        "a page about the API",
        "read docs/ of longwire; the methods are Centrifugo's",
    ),
    missing("debug", NotEnabled, "profiles of a Go program", "use `perf` on the process"),
    missing("opentelemetry", NotEnabled, "traces", "read the logs (`log.json = true`) and /metrics"),
    missing(
        "graphite",
        NotEnabled,
        "metrics sent to Graphite",
        "let a collector read /metrics and send them on",
    ),
];

/// Tokens.
const TOKEN: &[Row] = &[
    setting("hmac_secret_key", "hmac_secret", Secret),
    setting("hmac_previous_secret_key", "hmac_previous_secret", Secret),
    missing(
        "hmac_previous_secret_key_valid_until",
        Empty,
        "an end for the previous secret",
        "put `hmac_previous_secret` in by hand, and take it out when its tokens have expired",
    ),
    setting("rsa_public_key", "rsa_public_key", Text),
    setting("ecdsa_public_key", "ecdsa_public_key", Text),
    rule("jwks_public_endpoint"),
    unneeded(
        "insecure_skip_jwks_endpoint_safety_check",
        Empty,
        "longwire puts nothing of a token into the URL",
    ),
    setting("audience", "audience", Text),
    rule("audience_regex"),
    setting("issuer", "issuer", Text),
    rule("issuer_regex"),
    setting("user_id_claim", "user_claim", Text),
];

/// Personal channels.
const PERSONAL_CHANNEL: &[Row] = &[
    setting("enabled", "personal_channel", Flag),
    setting("personal_channel_namespace", "personal_channel_namespace", Text),
    setting("single_connection", "personal_channel_single_connection", Flag),
];

/// A backend that is asked.
const PROXY: &[Row] = &[
    rule("name"),
    rule("enabled"),
    // It may hold a password.
    setting("endpoint", "endpoint", Secret),
    setting("timeout", "timeout", Timeout),
    setting("http_headers", "http_headers", Texts),
    setting("emulated_headers", "emulated_headers", Texts),
    setting("binary_encoding", "binary_encoding", Flag),
    setting("include_connection_meta", "include_connection_meta", Flag),
    setting("http.static_headers", "static_headers", Headers),
    setting("http.status_to_code_transforms", "status_transforms", Transforms),
    missing(
        "http.tls",
        NotEnabled,
        "certificates of its own for this backend",
        "use a certificate that the system trusts, or a proxy on the same machine",
    ),
    unneeded("grpc_metadata", Empty, "only clients over gRPC send it"),
    unneeded("grpc", Empty, "the endpoint is HTTP"),
];

/// What a channel offers.
const CHANNEL: &[Row] = &[
    rule("name"),
    setting("presence", "presence", Flag),
    setting("join_leave", "join_leave", Flag),
    setting("force_push_join_leave", "force_push_join_leave", Flag),
    setting("history_size", "history_size", Limit),
    setting("history_ttl", "history_ttl", Timeout),
    setting("history_meta_ttl", "history_meta_ttl", Timeout),
    setting("force_positioning", "force_positioning", Flag),
    setting("allow_positioning", "allow_positioning", Flag),
    setting("force_recovery", "force_recovery", Flag),
    setting("allow_recovery", "allow_recovery", Flag),
    setting("force_recovery_mode", "force_recovery_mode", Text),
    setting("auto_cache_recover", "auto_cache_recover", Flag),
    setting("allowed_delta_types", "allowed_delta_types", Texts),
    setting("delta_publish", "delta_publish", Flag),
    setting("allow_tags_filter", "allow_tags_filter", Flag),
    setting("allow_subscribe_for_client", "allow_subscribe_for_client", Flag),
    setting("allow_subscribe_for_anonymous", "allow_subscribe_for_anonymous", Flag),
    setting("allow_publish_for_client", "allow_publish_for_client", Flag),
    setting("allow_publish_for_subscriber", "allow_publish_for_subscriber", Flag),
    setting("allow_publish_for_anonymous", "allow_publish_for_anonymous", Flag),
    setting("allow_presence_for_client", "allow_presence_for_client", Flag),
    setting("allow_presence_for_subscriber", "allow_presence_for_subscriber", Flag),
    setting("allow_presence_for_anonymous", "allow_presence_for_anonymous", Flag),
    setting("allow_history_for_client", "allow_history_for_client", Flag),
    setting("allow_history_for_subscriber", "allow_history_for_subscriber", Flag),
    setting("allow_history_for_anonymous", "allow_history_for_anonymous", Flag),
    setting("allow_user_limited_channels", "allow_user_limited_channels", Flag),
    setting("publication_data_format", "publication_data_format", Text),
    missing(
        "channel_regex",
        Empty,
        "refused channels whose names do not match",
        "let the subscribe webhook, or the maker of subscription tokens, judge the names",
    ),
    rule("subscribe_proxy_enabled"),
    rule("subscribe_proxy_name"),
    rule("publish_proxy_enabled"),
    rule("publish_proxy_name"),
    rule("sub_refresh_proxy_enabled"),
    rule("sub_refresh_proxy_name"),
    missing(
        "subscribe_stream_proxy_enabled",
        Empty,
        "a gRPC stream from the backend for each subscription",
        "use the subscribe webhook, and publish over the HTTP API",
    ),
    unneeded("subscribe_stream_proxy_name", Empty, "`subscribe_stream_proxy_enabled` decides"),
    unneeded("subscribe_stream_proxy_bidirectional", Empty, "`subscribe_stream_proxy_enabled` decides"),
    missing("subscription_type", At("stream"), MAP, MAP_INSTEAD),
    unneeded("map", Empty, "`subscription_type` decides"),
    unneeded("shared_poll", Empty, "`subscription_type` decides"),
    missing(
        "map_clients_presence_channel_prefix",
        Empty,
        "presence in a map",
        "use `presence` and `join_leave`",
    ),
    missing(
        "map_users_presence_channel_prefix",
        Empty,
        "presence in a map",
        "use `presence` and `join_leave`",
    ),
];

/// Who answers calls.
const RPC: &[Row] = &[rule("name"), rule("proxy_enabled"), rule("proxy_name")];

/// What longwire limits and Centrifugo does not: the setting, the value that comes nearest, and the comment.
pub(super) const PINNED: &[(&str, &str, i64, &str)] = &[(
    "server",
    "max_connections_per_ip",
    1_000_000,
    "Centrifugo has no such limit. Name your proxies in `trusted_proxies`, and then take this line out.",
)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_setting_on_the_right_is_one_of_longwire() {
        let mut unknown = Vec::new();
        for group in GROUPS {
            for row in group.rows {
                let Becomes::Setting(key, _) = row.becomes else { continue };
                let key = if group.section.is_empty() {
                    key.to_owned()
                } else {
                    format!("{}.{key}", group.section)
                };
                let (section, setting) = key.rsplit_once('.').expect("a setting stands in a section");
                let file = format!("[{section}]\n{setting} = 0\n");
                let loaded = config::load(Some(("x".into(), file)), std::iter::empty(), &[], u64::MAX, 1);
                let problems = loaded.err().map(|error| error.to_string()).unwrap_or_default();
                if problems.contains("unknown key") {
                    unknown.push(key);
                }
            }
        }
        assert!(unknown.is_empty(), "longwire has no such settings: {unknown:?}");
    }

    #[test]
    fn an_option_stands_in_one_row() {
        let all: usize = GROUPS.iter().map(|group| group.rows.len()).sum();
        assert_eq!(super::super::mapping::rows().len(), all);
    }
}
