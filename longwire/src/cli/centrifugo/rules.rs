//! What depends on more than one option of Centrifugo, or on what it does when an option is not set.
//!
//! Called by `mapping` after its walk, with the entries that it made. One function a subject. What must stay
//! true: what a rule decides stands in `table` as a row of kind `rule`, and a default of longwire that is
//! stricter than Centrifugo's is written out, with the reason, so that the file says everything.

use super::convert::{self, span_value};
use super::input::{Node, Value};
use super::mapping::{DEFAULT, Endpoint, Entry, Mapping, Section, endpoint, section};
use super::narrow::{KEYS, pattern};
use super::table::{Group, PINNED};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Commands that a client may send at once in longwire, unless somebody chose a number.
const COMMAND_BURST: i64 = 200;

pub(super) fn apply(root: &Node, mapping: &mut Mapping) {
    listen(root, mapping);
    origins(root, mapping);
    heartbeat(root, mapping);
    drain(root, mapping);
    log_level(root, mapping);
    connections(root, mapping);
    tokens(root, mapping);
    let channels = channels(root);
    for (section, node, shown) in &channels {
        channel_defaults(root, section, mapping);
        channel_webhooks(root, section, *node, shown, mapping);
    }
    calls(root, mapping);
}

/// Ends the API where nobody may call it; after all else, because what lets somebody may have been left out.
pub(super) fn close_api(mapping: &mut Mapping) {
    let section = one("api");
    if !["enabled", "key", "insecure"].iter().any(|key| mapping.has(&section, key)) {
        mapping.set_because(
            &section,
            "enabled",
            toml::Value::Boolean(false),
            0,
            DEFAULT,
            "Without a key Centrifugo serves nobody: write `key` in the place of this line. Without both, longwire serves programs on this machine.",
        );
    }
}

/// The section that a group becomes: the one that the table names, except where other options decide.
pub(super) fn section_of(group: &Group, root: &Node) -> &'static str {
    match group.at {
        // `[webhook.rpc]` answers methods without a namespace, which Centrifugo answers only if told.
        "rpc.proxy" if calls_without_namespace(root).as_deref() != Some("default") => "webhooks.rpc",
        _ => group.section,
    }
}

/// Whether an unknown key is an option of an older Centrifugo, which had no sections.
pub(super) fn is_of_older_version(key: &str) -> bool {
    const OLD: [&str; 12] = [
        "token_hmac_secret_key",
        "token_rsa_public_key",
        "token_jwks_public_endpoint",
        "allowed_origins",
        "api_key",
        "namespaces",
        "admin_password",
        "admin_secret",
        "secret",
        "port",
        "address",
        "presence",
    ];
    OLD.contains(&key) || key.starts_with("proxy_") || key.starts_with("redis_") || key.starts_with("allow_")
}

fn one(name: &str) -> Section {
    vec![name.to_owned()]
}

fn integer(number: i64) -> toml::Value {
    toml::Value::Integer(number)
}

/// Reads an option; what is wrong with it becomes an error.
fn read<T>(
    root: &Node,
    path: &str,
    mapping: &mut Mapping,
    form: fn(&Node) -> Result<T, String>,
) -> Option<(T, usize)> {
    let node = root.get(path)?;
    match form(node) {
        Ok(value) => Some((value, node.at)),
        Err(problem) => {
            mapping.wrong(node.at, path, &problem);
            None
        }
    }
}

fn listen(root: &Node, mapping: &mut Mapping) {
    let port = read(root, "http_server.port", mapping, convert::count).unwrap_or((8000, 0));
    let host = read(root, "http_server.address", mapping, convert::text).unwrap_or((String::new(), 0));
    let Ok(number) = u16::try_from(port.0) else {
        return mapping.wrong(port.1, "http_server.port", "must be a port");
    };
    let (address, comment) = match host.0.as_str() {
        "" => (
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some("All addresses, as with Centrifugo. With a proxy on the same machine, 127.0.0.1 is enough."),
        ),
        "localhost" => (IpAddr::V4(Ipv4Addr::LOCALHOST), None),
        text => match text.trim_matches(['[', ']']).parse() {
            Ok(address) => (address, None),
            Err(_) => {
                let did = "listened on what this name resolves to";
                mapping.missing(host.1, "http_server.address", did, "write the address into `server.listen`");
                (IpAddr::V4(Ipv4Addr::LOCALHOST), None)
            }
        },
    };
    let (from, at) = match (root.get("http_server.address"), root.get("http_server.port")) {
        (Some(_), Some(_)) => ("http_server.address, http_server.port", host.1),
        (Some(_), None) => ("http_server.address", host.1),
        (None, Some(_)) => ("http_server.port", port.1),
        (None, None) => (DEFAULT, 0),
    };
    let value = toml::Value::String(SocketAddr::new(address, number).to_string());
    mapping.set(&one("server"), "listen", toml::Value::Array(vec![value]), at, from);
    if let Some(entry) = mapping.entries.last_mut() {
        entry.comment = comment;
    }
}

fn origins(root: &Node, mapping: &mut Mapping) {
    let path = "client.allowed_origins";
    let (origins, at) = read(root, path, mapping, convert::texts).unwrap_or_default();
    let (patterns, origins): (Vec<String>, Vec<String>) =
        origins.into_iter().filter(|origin| !origin.is_empty()).partition(|origin| origin.contains('*'));
    if !patterns.is_empty() {
        let did = "allowed all origins that match a pattern with `*`";
        let instead = "name each origin in `server.allowed_origins`, as `https://app.example.com`";
        mapping.missing(at, path, did, instead);
    }
    if !origins.is_empty() {
        let origins = origins.into_iter().map(toml::Value::String).collect();
        mapping.set(&one("server"), "allowed_origins", toml::Value::Array(origins), at, path);
    } else if !patterns.iter().any(|pattern| pattern == "*") {
        // An empty list allows pages of the host itself. RFC 2606 section 2: nobody has this one.
        mapping.set_because(
            &one("server"),
            "allowed_origins",
            toml::Value::Array(vec![toml::Value::String("https://no-page.invalid".to_owned())]),
            at,
            if patterns.is_empty() { DEFAULT } else { path },
            "Centrifugo serves no page that it was not told of. Without this line longwire serves those of its own host.",
        );
    }
}

fn heartbeat(root: &Node, mapping: &mut Mapping) {
    let [interval, timeout] = ["client.ping_interval", "client.pong_timeout"].map(|path| {
        let (span, at) = read(root, path, mapping, convert::span)?;
        if span.is_none() {
            let instead = "longwire always notices a connection that died; leave it as it is";
            mapping.missing(at, path, "no signs of life", instead);
        }
        span.filter(|span| !span.is_zero()).map(|span| (span, at, path))
    });
    let section = one("heartbeat");
    for (setting, key) in [(&interval, "interval"), (&timeout, "timeout")] {
        if let Some((span, at, path)) = setting {
            mapping.set(&section, key, span_value(*span), *at, path);
        }
    }
    if let Some((_, at, path)) = interval.as_ref().or(timeout.as_ref()) {
        let interval = interval.as_ref().map_or(Duration::from_secs(25), |(span, ..)| *span);
        let timeout = timeout.as_ref().map_or(Duration::from_secs(8), |(span, ..)| *span);
        // As far beyond both as with the defaults.
        let longest = interval + timeout + Duration::from_secs(2);
        mapping.set(&section, "max_silence", span_value(longest), *at, path);
    }
}

fn drain(root: &Node, mapping: &mut Mapping) {
    let path = "shutdown.timeout";
    if let Some((Some(deadline), at)) = read(root, path, mapping, convert::span)
        && !deadline.is_zero()
    {
        mapping.set(&one("server"), "drain_deadline", span_value(deadline), at, path);
        if deadline < Duration::from_secs(10) {
            mapping.set(&one("server"), "drain_over", span_value(deadline), at, path);
        }
    }
}

fn log_level(root: &Node, mapping: &mut Mapping) {
    let path = "log.level";
    let Some((level, at)) = read(root, path, mapping, convert::text) else { return };
    let level = match level.to_lowercase().as_str() {
        "" => return,
        "none" | "disabled" => "off".to_owned(),
        "fatal" | "panic" => "error".to_owned(),
        "trace" | "debug" | "info" | "warn" | "error" => level.to_lowercase(),
        _ => return mapping.wrong(at, path, "must be trace, debug, info, warn, error, fatal or none"),
    };
    mapping.set(&one("log"), "level", toml::Value::String(level), at, path);
}

/// What one client, user and address may cost.
fn connections(root: &Node, mapping: &mut Mapping) {
    let path = "client.channel_limit";
    if let Some((limit, at)) = read(root, path, mapping, convert::count).filter(|(limit, _)| *limit > 0) {
        mapping.set(&one("client"), "max_subscriptions", integer(limit), at, path);
        if limit > COMMAND_BURST / 2 {
            mapping.set_because(
                &one("client"),
                "command_burst",
                integer(limit.saturating_add(COMMAND_BURST / 2)),
                at,
                path,
                "A client that comes back subscribes to all its channels at once.",
            );
        }
    }
    let path = "client.connection_rate_limit";
    if let Some((limit, at)) = read(root, path, mapping, convert::count).filter(|(limit, _)| *limit > 0) {
        for key in ["accepts_per_second", "accept_burst"] {
            mapping.set(&one("server"), key, integer(limit), at, path);
        }
    }
    let path = "client.user_connection_limit";
    match read(root, path, mapping, convert::count) {
        Some((limit, at)) => {
            mapping.set(&one("client"), "max_connections_per_user", integer(limit), at, path);
        }
        None => mapping.set_because(
            &one("client"),
            "max_connections_per_user",
            integer(0),
            0,
            DEFAULT,
            "Centrifugo has no limit unless told. Without this line longwire allows 10.",
        ),
    }
    for (section, key, value, comment) in PINNED {
        mapping.set_because(&one(section), key, integer(*value), 0, DEFAULT, comment);
    }
}

/// Rules of tokens beyond what a row can say.
fn tokens(root: &Node, mapping: &mut Mapping) {
    for (at, name) in [("client.token", "auth"), ("client.subscription_token", "subscription_auth")] {
        let Some(node) = root.get(at) else { continue };
        if name == "subscription_auth" && !node.get("enabled").is_some_and(Node::is_true) {
            continue;
        }
        let section = one(name);
        if let Some((url, place)) =
            read(node, "jwks_public_endpoint", mapping, convert::text).filter(|(url, _)| !url.is_empty())
        {
            let path = format!("{at}.jwks_public_endpoint");
            if url.contains("{{") {
                let instead = "give one fixed URL: no claim can be believed before the key is there";
                mapping.missing(place, &path, "put claims of a token into the URL of its keys", instead);
            } else {
                // longwire asks for this word only where the way to the host is not its own.
                let host =
                    url.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or(rest));
                let is_risky = host.is_some_and(|host| !["localhost", "127.0.0.1", "["].contains(&host));
                mapping.set(&section, "jwks_url", toml::Value::String(url), place, &path);
                if let Some(entry) = mapping.entries.last_mut() {
                    // It may hold a password.
                    entry.is_secret = true;
                }
                if is_risky {
                    mapping.set_because(
                        &section,
                        "jwks_allow_http",
                        toml::Value::Boolean(true),
                        place,
                        &path,
                        "Whoever stands between can make tokens: better fetch keys over https://.",
                    );
                }
            }
        }
        for (option, key) in [("audience_regex", "audience_pattern"), ("issuer_regex", "issuer_pattern")] {
            let Some((regex, place)) = read(node, option, mapping, convert::text) else { continue };
            let path = format!("{at}.{option}");
            match pattern_of(&regex) {
                _ if regex.is_empty() => {}
                Some(pattern) => mapping.set(&section, key, toml::Value::String(pattern), place, &path),
                None => {
                    let did = "compared a claim with a regular expression";
                    let instead = "write a pattern, in which only `*` stands for any text";
                    mapping.missing(place, &path, did, &format!("{instead}, into `{name}.{key}`"));
                    mapping.lost(&section, &format!("{name}.{key}"), place, &path);
                }
            }
        }
        let key =
            mapping.entries.iter().find(|entry| entry.section == section && KEYS.contains(&&*entry.key));
        if let Some(place) = key.map(|entry| entry.at) {
            mapping.set_because(
                &section,
                "require_exp",
                toml::Value::Boolean(false),
                place,
                DEFAULT,
                "Centrifugo accepts tokens without `exp`, and a leaked one is good for ever: once all tokens have it, take this line out.",
            );
        }
    }
}

/// The pattern with `*` that means what a simple regular expression means; `None` for all others.
fn pattern_of(regex: &str) -> Option<String> {
    let mut pattern = String::new();
    let (rest, is_anchored) = regex.strip_prefix('^').map_or((regex, false), |rest| (rest, true));
    let (rest, is_ended) = match rest.strip_suffix('$') {
        Some(before) if !before.ends_with('\\') => (before, true),
        _ => (rest, false),
    };
    if !is_anchored {
        pattern.push('*');
    }
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '.' if chars.next_if_eq(&'*').is_some() => pattern.push('*'),
            // Alone it stands for any one sign; who writes `example.com` means the dot, and that is the narrower.
            '.' => pattern.push('.'),
            '\\' => pattern.push(chars.next().filter(|c| c.is_ascii_punctuation() && *c != '*')?),
            '^' | '$' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => return None,
            _ => pattern.push(c),
        }
        // A dot with another counter behind it is more than one sign.
        if matches!(chars.peek(), Some('+' | '?' | '{' | '*')) {
            return None;
        }
    }
    if !is_ended {
        pattern.push('*');
    }
    Some(pattern)
}

/// The sections of channels: where each comes from, and how a user calls that.
fn channels(root: &Node) -> Vec<(Section, Option<&Node>, String)> {
    let without = "channel.without_namespace";
    let mut channels = vec![(one("channel"), root.get(without), without.to_owned())];
    for node in root.get("channel.namespaces").map_or(&[][..], Node::items) {
        if let Some(name) = node.get("name").and_then(Node::plain) {
            let shown = format!("channel.namespaces[{name}]");
            channels.push((section("namespaces.NAME", &name), Some(node), shown));
        }
    }
    channels
}

/// What Centrifugo sets for all channels at once.
fn channel_defaults(root: &Node, section: &[String], mapping: &mut Mapping) {
    let path = "channel.history_meta_ttl";
    if let Some((Some(ttl), at)) = read(root, path, mapping, convert::span)
        && !ttl.is_zero()
        && mapping.has(section, "history_size")
        && !mapping.has(section, "history_meta_ttl")
    {
        mapping.set(section, "history_meta_ttl", span_value(ttl), at, path);
    }
    let path = "channel.publication_data_format";
    if let Some((format, at)) = read(root, path, mapping, convert::text)
        && !format.is_empty()
        && !mapping.has(section, "publication_data_format")
    {
        mapping.set(section, "publication_data_format", toml::Value::String(format), at, path);
    }
}

/// Which backends are asked about a channel.
fn channel_webhooks(
    root: &Node,
    section: &[String],
    node: Option<&Node>,
    shown: &str,
    mapping: &mut Mapping,
) {
    let Some(node) = node else { return };
    for event in ["subscribe", "publish", "sub_refresh"] {
        let Some(enabled) = node.get(&format!("{event}_proxy_enabled")).filter(|node| node.is_true()) else {
            continue;
        };
        let (key, path) = (format!("{event}_webhook"), format!("{shown}.{event}_proxy_enabled"));
        let name = proxy_name(node.get(&format!("{event}_proxy_name")));
        let options = if name == "default" {
            root.get(&format!("channel.proxy.{event}"))
        } else {
            named_proxy(root, &name)
        };
        match options.map_or(Endpoint::None, endpoint) {
            Endpoint::Http => mapping.set(section, &key, toml::Value::String(name), enabled.at, &path),
            Endpoint::Other => {
                mapping.lost(section, &format!("{}.{key}", pattern(section)), enabled.at, &path);
            }
            Endpoint::None => mapping.wrong(enabled.at, &path, "asks a proxy that has no endpoint"),
        }
    }
}

/// Who answers methods that clients call.
fn calls(root: &Node, mapping: &mut Mapping) {
    let default = if calls_without_namespace(root).as_deref() == Some("default") { "default" } else { "rpc" };
    if let Some(name) = calls_without_namespace(root).filter(|name| name != "default") {
        // longwire's `[webhook.rpc]` is what the named one is here.
        let named = section("webhooks.NAME", &name);
        let copies: Vec<Entry> = mapping
            .entries
            .iter()
            .filter(|entry| entry.section == named)
            .map(|entry| Entry { section: section("webhook.rpc", ""), ..entry.clone() })
            .collect();
        mapping.entries.extend(copies);
    }
    for node in root.get("rpc.namespaces").map_or(&[][..], Node::items) {
        let Some(name) = node.get("name").and_then(Node::plain) else { continue };
        let Some(enabled) = node.get("proxy_enabled").filter(|node| node.is_true()) else { continue };
        let path = format!("rpc.namespaces[{name}].proxy_enabled");
        let proxy = proxy_name(node.get("proxy_name"));
        let (options, webhook) = match proxy.as_str() {
            "default" => (root.get("rpc.proxy"), default.to_owned()),
            _ => (named_proxy(root, &proxy), proxy),
        };
        match options.map_or(Endpoint::None, endpoint) {
            Endpoint::Http => {
                let section = section("rpc_namespaces.NAME", &name);
                mapping.set(&section, "webhook", toml::Value::String(webhook), enabled.at, &path);
            }
            Endpoint::Other => {}
            Endpoint::None => mapping.wrong(enabled.at, &path, "asks a proxy that has no endpoint"),
        }
    }
}

/// The proxy that answers methods without a namespace, if one does.
fn calls_without_namespace(root: &Node) -> Option<String> {
    let node = root.get("rpc.without_namespace")?;
    node.get("proxy_enabled").filter(|node| node.is_true())?;
    Some(proxy_name(node.get("proxy_name")))
}

fn proxy_name(node: Option<&Node>) -> String {
    node.and_then(Node::plain).filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned())
}

fn named_proxy<'a>(root: &'a Node, name: &str) -> Option<&'a Node> {
    let Value::List(proxies) = &root.get("proxies")?.value else { return None };
    proxies.iter().find(|proxy| proxy.get("name").and_then(Node::plain).as_deref() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_regular_expression_is_a_pattern_and_every_other_is_not() {
        for (regex, pattern) in [
            ("^https://.*\\.example\\.com$", "https://*.example.com"),
            ("^abc$", "abc"),
            ("abc", "*abc*"),
            ("^example.com/.*$", "example.com/*"),
            ("^cost\\$$", "cost$"),
        ] {
            assert_eq!(pattern_of(regex).as_deref(), Some(pattern), "{regex}");
        }
        for regex in ["a|b", "^[a-z]+$", "a.+", "(?P<x>a)", "a.?b", "\\d", "ab*", "\\*", "a$b", "x{2}", "a\\"]
        {
            assert_eq!(pattern_of(regex), None, "{regex}");
        }
    }
}
