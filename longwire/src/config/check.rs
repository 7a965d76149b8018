//! What must fit together: rules that concern more than one setting, or more than the form of a value.
//!
//! Called by `raw` when every value by itself is right. What must stay true: a rule names all keys it is
//! about and the origin of the one that somebody set, and nothing that passes here makes the server fail.

use super::raw::{Origin, Sources, place};
use super::{ChannelOptions, format_duration};
use std::collections::BTreeSet;

/// Shortest secret that may sign tokens (RFC 7518 section 3.2: at least as long as the hash).
const MIN_SECRET_BYTES: usize = 32;

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
    if server.listen.is_empty() {
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

    if let Some(secret) = &config.auth.hmac_secret
        && secret.len() < MIN_SECRET_BYTES
    {
        refuse(
            &["auth.hmac_secret"],
            format!("`auth.hmac_secret`: must have at least {MIN_SECRET_BYTES} bytes, not {}", secret.len()),
        );
    }

    if let Err(problem) = tracing_subscriber::EnvFilter::builder().parse(&config.log.level) {
        refuse(&["log.level"], format!("`log.level`: {:?} is no filter: {problem}", config.log.level));
    }

    check_channel("channel", &config.channel, &mut refuse);
    for (name, options) in &config.namespaces {
        check_channel(&format!("namespaces.{name}"), options, &mut refuse);
    }
    problems
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
        (options.force_recovery, "force_recovery"),
        (options.allow_recovery, "allow_recovery"),
        (options.force_positioning, "force_positioning"),
        (options.allow_positioning, "allow_positioning"),
    ];
    for (is_on, option) in needs_history {
        if is_on && !options.has_history() {
            let key = &format!("{section}.{option}");
            refuse(&[key, size, ttl], format!("`{key}` needs history: set `{size}` and `{ttl}`"));
        }
    }
}
