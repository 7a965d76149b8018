//! What must fit together: rules that concern more than one setting, or more than the form of a value.
//!
//! Called by `raw` when every value by itself is right. What must stay true: a rule names all keys it is
//! about and the origin of the one that somebody set, and nothing that passes here makes the server fail.

mod listeners;

use super::raw::{Origin, Sources, place};
use super::{
    Auth, ChannelOptions, Config, DEFAULT_WEBHOOK, MAX_QUEUE_NAME_BYTES, RecoveryMode, WEBHOOKS,
    format_duration,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Shortest secret that may sign tokens (RFC 7518 section 3.2: at least as long as the hash).
const MIN_SECRET_BYTES: usize = 32;

/// What is on a disk lies in several files, and only whole files give room back.
const MIN_DISK_BYTES: usize = 4 << 20;

/// Smaller files of queues would be more trouble than room.
const MIN_SEGMENT_BYTES: u64 = 4 << 10;

/// What a history may be ahead of the disk: less costs too many writes, more loses too much.
const HISTORY_DELAYS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(1);

/// More threads than this is a slip of the finger.
const MAX_SHARDS: usize = 64;

/// Whether a namespace may have this name.
pub(super) fn is_namespace_name(name: &str) -> bool {
    name.len() >= 2 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Everything that does not fit together.
///
/// `unreadable` are the keys whose value was refused. The default stands in their place, so that a rule about
/// them would say nothing.
pub(super) fn problems(sources: &Sources, unreadable: &BTreeSet<String>) -> Vec<String> {
    let config = &sources.config;
    let mut problems = Vec::new();
    let mut refuse = |keys: &[&str], text: String| {
        if keys.iter().any(|key| unreadable.contains(*key)) {
            return;
        }
        // Of several keys the first that somebody set is to blame; one was, or the defaults contradict.
        let origin = keys.iter().map(|key| sources.origin(key)).find(|origin| **origin != Origin::Default);
        problems.push(format!("{}: {text}", place(origin.unwrap_or(&Origin::Default))));
    };

    let server = &config.server;
    if config.listeners.is_empty() {
        refuse(&["server.listen"], "`server.listen`: must name at least one address".to_owned());
    }
    if server.shards > MAX_SHARDS {
        refuse(
            &["server.shards"],
            format!("`server.shards`: must be at most {MAX_SHARDS}, not {}", server.shards),
        );
    }
    if server.drain_over > server.drain_deadline {
        refuse(
            &["server.drain_over", "server.drain_deadline"],
            format!(
                "`server.drain_over` ({}) must not be longer than `server.drain_deadline` ({})",
                format_duration(server.drain_over),
                format_duration(server.drain_deadline)
            ),
        );
    }

    let client = &config.client;
    if let Some(namespace) = &client.personal_channel_namespace
        && !config.namespaces.contains_key(namespace)
    {
        refuse(
            &["client.personal_channel_namespace"],
            format!("`client.personal_channel_namespace`: there is no `[namespaces.{namespace}]`"),
        );
    }
    for (is_on, option) in [
        (client.personal_channel_namespace.is_some(), "client.personal_channel_namespace"),
        (client.personal_channel_single_connection, "client.personal_channel_single_connection"),
    ] {
        if is_on && !client.personal_channel {
            refuse(
                &[option, "client.personal_channel"],
                format!("`{option}` has no effect without `client.personal_channel`"),
            );
        }
    }

    let heartbeat = &config.heartbeat;
    if heartbeat.timeout >= heartbeat.interval {
        refuse(
            &["heartbeat.timeout", "heartbeat.interval"],
            format!(
                "`heartbeat.timeout` ({}) must be shorter than `heartbeat.interval` ({})",
                format_duration(heartbeat.timeout),
                format_duration(heartbeat.interval)
            ),
        );
    }
    if heartbeat.max_silence <= heartbeat.interval + heartbeat.timeout {
        refuse(
            &["heartbeat.max_silence", "heartbeat.interval", "heartbeat.timeout"],
            format!(
                "`heartbeat.max_silence` ({}) must be longer than `heartbeat.interval` plus `heartbeat.timeout` ({})",
                format_duration(heartbeat.max_silence),
                format_duration(heartbeat.interval + heartbeat.timeout)
            ),
        );
    }

    check_auth("auth", &config.auth, &mut refuse);
    if let Some(auth) = config.subscription_auth.settings() {
        if !auth.has_key() {
            refuse(
                &["subscription_auth.enabled"],
                "`subscription_auth.enabled` needs a key: set `subscription_auth.hmac_secret`, `rsa_public_key`, `ecdsa_public_key`, `ed25519_public_key` or `jwks_url`".to_owned(),
            );
        }
        check_auth("subscription_auth", &auth, &mut refuse);
    }

    for (key, bytes) in [
        ("events.max_disk_bytes", config.events.max_disk_bytes),
        ("history.max_disk_bytes", config.history.max_disk_bytes),
    ] {
        if bytes < MIN_DISK_BYTES {
            refuse(&[key], format!("`{key}`: must be at least 4MiB"));
        }
    }
    if config.queues.store.max_segment_bytes < MIN_SEGMENT_BYTES {
        let key = "queue_store.max_segment_bytes";
        refuse(&[key], format!("`{key}`: must be at least 4KiB"));
    }
    check_queues(config, &mut refuse);
    if !HISTORY_DELAYS.contains(&config.history.max_delay) {
        let delay = format_duration(config.history.max_delay);
        refuse(&["history.max_delay"], format!("`history.max_delay`: must be from 10ms to 1s, not {delay}"));
    }

    listeners::check(config, &mut refuse);
    let plain = &config.plain;
    if plain.poll_wait > plain.max_poll_wait {
        refuse(
            &["plain.poll_wait", "plain.max_poll_wait"],
            format!(
                "`plain.poll_wait` ({}) must not be longer than `plain.max_poll_wait` ({})",
                format_duration(plain.poll_wait),
                format_duration(plain.max_poll_wait)
            ),
        );
    }
    if plain.max_message_bytes > config.http.max_body_bytes {
        refuse(
            &["plain.max_message_bytes", "http.max_body_bytes"],
            "`plain.max_message_bytes` must not be more than `http.max_body_bytes`".to_owned(),
        );
    }

    if let Err(problem) = tracing_subscriber::EnvFilter::builder().parse(&config.log.level) {
        refuse(&["log.level"], format!("`log.level`: {:?} is no filter: {problem}", config.log.level));
    }

    check_channel("channel", &config.channel, &mut refuse);
    for (name, options) in &config.namespaces {
        check_channel(&format!("namespaces.{name}"), options, &mut refuse);
    }
    check_webhooks(config, &mut refuse);
    problems
}

fn check_queues(config: &Config, refuse: &mut impl FnMut(&[&str], String)) {
    let named = config.queues.named.iter().map(|(pattern, options)| (format!("queues.{pattern}"), options));
    for (section, options) in named.chain([("queue".to_owned(), &config.queues.options)]) {
        let key = &format!("{section}.dead_letter_queue");
        let name = options.dead_letter_queue.replace("{queue}", "");
        if name.contains(char::is_control) || name.len() > MAX_QUEUE_NAME_BYTES || name.starts_with('~') {
            refuse(&[key], format!("`{key}`: {:?} cannot be the name of a queue", options.dead_letter_queue));
        }
        for (action, is_for_anonymous, is_for_client) in [
            ("send", options.allow_send_for_anonymous, options.allow_send_for_client),
            ("consume", options.allow_consume_for_anonymous, options.allow_consume_for_client),
        ] {
            let key = |who: &str| format!("{section}.allow_{action}_for_{who}");
            if is_for_anonymous && !is_for_client {
                let (set, missing) = (&key("anonymous"), &key("client"));
                refuse(&[set, missing], format!("`{set}` has no effect without `{missing}`"));
            }
        }
    }
    let (shortest, longest) = ("stomp.shortest_heartbeat", "stomp.longest_heartbeat");
    if config.stomp.shortest_heartbeat > config.stomp.longest_heartbeat {
        refuse(&[shortest, longest], format!("`{shortest}` must not be longer than `{longest}`"));
    }
}

fn check_auth(section: &str, auth: &Auth, refuse: &mut impl FnMut(&[&str], String)) {
    let secrets = [("hmac_secret", &auth.hmac_secret), ("hmac_previous_secret", &auth.hmac_previous_secret)];
    for (setting, secret) in secrets {
        let key = &format!("{section}.{setting}");
        if let Some(secret) = secret
            && secret.len() < MIN_SECRET_BYTES
        {
            let len = secret.len();
            refuse(&[key], format!("`{key}`: must have at least {MIN_SECRET_BYTES} bytes, not {len}"));
        }
    }
    if auth.hmac_previous_secret.is_some() && auth.hmac_secret.is_none() {
        let (previous, current) =
            (&format!("{section}.hmac_previous_secret"), &format!("{section}.hmac_secret"));
        refuse(&[previous, current], format!("`{previous}` has no effect without `{current}`"));
    }
    let twice = [
        ("audience", auth.audience.is_some() && auth.audience_pattern.is_some()),
        ("issuer", auth.issuer.is_some() && auth.issuer_pattern.is_some()),
    ];
    for (setting, is_twice) in twice {
        if is_twice {
            let (exact, pattern) = (&format!("{section}.{setting}"), &format!("{section}.{setting}_pattern"));
            refuse(&[exact, pattern], format!("only one of `{exact}` and `{pattern}` can hold"));
        }
    }
    if let Some(url) = &auth.jwks_url
        && let Err(problem) = check_jwks_url(url, auth.jwks_allow_http)
    {
        let key = &format!("{section}.jwks_url");
        let allow_http = &format!("{section}.jwks_allow_http");
        refuse(&[key, allow_http], format!("`{key}`: {problem}"));
    }
}

/// Says what is wrong with an address that keys are fetched from. The address itself is not repeated: it may contain
/// what its owner regards as secret.
fn check_jwks_url(url: &str, allow_http: bool) -> Result<(), &'static str> {
    if url.contains(['{', '}']) {
        // What a token says would decide where the server connects to, before anybody vouches for the token.
        return Err("must have no placeholders: nothing of a token is put into it");
    }
    let url =
        reqwest::Url::parse(url).map_err(|_| "must be a URL such as \"https://example.com/jwks.json\"")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user and no password in it");
    }
    let host = url.host_str().ok_or("must name a host")?;
    let is_loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback || allow_http => Ok(()),
        "http" => Err("must begin with https://: over plain HTTP whoever stands between can make tokens"),
        _ => Err("must begin with https://"),
    }
}

fn check_webhooks(config: &Config, refuse: &mut impl FnMut(&[&str], String)) {
    for (key, secret) in
        [("webhook.secret", &config.webhook.secret), ("events.secret", &config.events.secret)]
    {
        if let Some(secret) = secret
            && secret.len() < MIN_SECRET_BYTES
        {
            let len = secret.len();
            refuse(&[key], format!("`{key}`: must have at least {MIN_SECRET_BYTES} bytes, not {len}"));
        }
    }
    for (name, webhook) in &config.webhooks {
        let endpoint = &format!("webhooks.{name}.endpoint");
        if webhook.endpoint.is_none() {
            let fields = <super::Webhook as super::Section>::fields();
            let keys: Vec<String> =
                fields.iter().map(|field| format!("webhooks.{name}.{}", field.key)).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            refuse(&keys, format!("`{endpoint}` is not set: without it the webhook asks nobody"));
        }
    }
    let mut check = |key: String, event: &str, name: &str| {
        let has_default = || {
            let events = WEBHOOKS.iter().zip(&config.default_webhooks);
            events.into_iter().any(|(other, webhook)| *other == event && webhook.endpoint.is_some())
        };
        match name {
            "" => {}
            DEFAULT_WEBHOOK if has_default() => {}
            DEFAULT_WEBHOOK => {
                let endpoint = &format!("webhook.{event}.endpoint");
                refuse(
                    &[&key, endpoint],
                    format!("`{key}` is \"{DEFAULT_WEBHOOK}\", but `{endpoint}` is not set"),
                );
            }
            _ if config.webhooks.contains_key(name) => {}
            _ => refuse(&[&key], format!("`{key}`: there is no section `[webhooks.{name}]`")),
        }
    };
    let channels = config.namespaces.iter().map(|(name, options)| (format!("namespaces.{name}"), options));
    for (section, options) in channels.chain([("channel".to_owned(), &config.channel)]) {
        check(format!("{section}.subscribe_webhook"), "subscribe", &options.subscribe_webhook);
        check(format!("{section}.publish_webhook"), "publish", &options.publish_webhook);
        check(format!("{section}.sub_refresh_webhook"), "sub_refresh", &options.sub_refresh_webhook);
    }
    for (name, namespace) in &config.rpc_namespaces {
        check(format!("rpc_namespaces.{name}.webhook"), "rpc", &namespace.webhook);
    }
}

fn check_channel(section: &str, options: &ChannelOptions, refuse: &mut impl FnMut(&[&str], String)) {
    let size = &format!("{section}.history_size");
    let ttl = &format!("{section}.history_ttl");
    let meta_ttl = &format!("{section}.history_meta_ttl");
    if (options.history_size > 0) == options.history_ttl.is_zero() {
        let (set, missing) = if options.history_size > 0 { (size, ttl) } else { (ttl, size) };
        refuse(&[set, missing], format!("`{set}` has no effect without `{missing}`: history needs both"));
        return;
    }
    if options.has_history() && options.history_meta_ttl < options.history_ttl {
        refuse(
            &[meta_ttl, ttl],
            format!(
                "`{meta_ttl}` ({}) must not be shorter than `{ttl}` ({}): positions must outlive publications",
                format_duration(options.history_meta_ttl),
                format_duration(options.history_ttl)
            ),
        );
    }
    let needs_history = [
        (options.history_on_disk, "history_on_disk"),
        (options.force_recovery, "force_recovery"),
        (options.allow_recovery, "allow_recovery"),
        (options.force_positioning, "force_positioning"),
        (options.allow_positioning, "allow_positioning"),
        (options.force_recovery_mode == RecoveryMode::Cache, "force_recovery_mode"),
        (!options.allowed_delta_types.is_empty(), "allowed_delta_types"),
        (options.delta_publish, "delta_publish"),
    ];
    if options.auto_cache_recover && options.force_recovery_mode != RecoveryMode::Cache {
        let (key, mode) =
            (&format!("{section}.auto_cache_recover"), &format!("{section}.force_recovery_mode"));
        refuse(&[key, mode], format!("`{key}` has no effect unless `{mode}` is \"cache\""));
    }
    for (is_on, option) in needs_history {
        if is_on && !options.has_history() {
            let key = &format!("{section}.{option}");
            refuse(&[key, size, ttl], format!("`{key}` needs history: set `{size}` and `{ttl}`"));
        }
    }
}
