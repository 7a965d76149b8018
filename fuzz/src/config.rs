//! Promises of `config::load`: a file, the environment and flags, whatever they hold.
//!
//! A problem names where it is (file and line, variable or flag) and which setting. What was loaded is printed as
//! TOML that loads to the same settings, secrets apart, and no secret is printed anywhere. Every setting that
//! passes fits the others: what the rest of the program relies on holds.

use crate::input::Input;
use longwire::config::{Config, ConfigError, Sources, load};
use std::path::PathBuf;

const SECRET: &str = "Sesam-oeffne-dich-Sesam-oeffne-dich";

/// Takes up to three flags and variables, then the rest as the file.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choices = input.byte();
    let mut flags = Vec::new();
    let mut variables = Vec::new();
    for _ in 0..choices & 3 {
        flags.push((input.text(80), input.text(80)));
    }
    for _ in 0..(choices >> 2) & 3 {
        let name = format!("LONGWIRE_{}", input.text(80));
        variables.push((name, input.text(80)));
    }
    if choices & 16 != 0 {
        variables.push(("LONGWIRE_AUTH__HMAC_SECRET".to_owned(), SECRET.to_owned()));
    }
    let files = if choices & 32 == 0 { 1024 } else { 0 };
    let text = String::from_utf8_lossy(input.rest()).into_owned();

    let load = |text: &str| {
        let file = (PathBuf::from("file.toml"), text.to_owned());
        load(Some(file), variables.clone().into_iter(), &flags, files, 3)
    };
    let loaded = load(&text);
    assert_eq!(loaded, load(&text), "loaded twice");
    match loaded {
        Err(error) => problems(&error, &text),
        Ok((config, sources)) => {
            coherent(&config);
            let elsewhere = [&text].into_iter().chain(flags.iter().map(|(_, value)| value));
            let is_public =
                elsewhere.chain(variables.iter().map(|(name, _)| name)).any(|t| t.contains(SECRET));
            printed(config, &sources, is_public);
        }
    }
}

fn problems(error: &ConfigError, text: &str) {
    assert!(!error.problems().is_empty(), "an error without a problem");
    let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
    for problem in error.problems() {
        assert!(!problem.contains(SECRET) || text.contains(SECRET), "a secret in: {problem}");
        if let Some(rest) = problem.strip_prefix("in file.toml line ") {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            let line: usize = digits.parse().expect("a line has a number");
            assert!((1..=lines).contains(&line), "line {line} of {lines}: {problem}");
            assert!(rest.len() > digits.len() + 2, "a problem that says nothing");
        } else {
            let is_placed =
                problem.starts_with("flag --") || problem.starts_with("environment variable LONGWIRE_");
            assert!(is_placed, "a problem without a place: {problem}");
            assert!(problem.contains('`') || problem.contains("namespace"), "no setting is named: {problem}");
        }
    }
}

fn coherent(config: &Config) {
    let heartbeat = &config.heartbeat;
    assert!(heartbeat.timeout < heartbeat.interval && !heartbeat.timeout.is_zero());
    assert!(heartbeat.max_silence > heartbeat.interval + heartbeat.timeout);
    assert!(config.server.shards > 0 && config.server.max_connections > 0 && !config.listeners.is_empty());
    assert!(config.server.drain_over <= config.server.drain_deadline);
    assert!(config.http.max_head_bytes > 0 && config.http.max_headers > 0);
    assert!(config.client.max_outbox_bytes > 0 && config.client.commands_per_second > 0);
    assert!(config.auth.hmac_secret.as_ref().is_none_or(|secret| secret.len() >= 32));
    for options in config.namespaces.values().chain([&config.channel]) {
        assert_eq!(options.history_size > 0, !options.history_ttl.is_zero());
        assert!(options.has_history() || !(options.force_recovery || options.allow_recovery));
        assert!(options.has_history() || !(options.force_positioning || options.allow_positioning));
    }
}

/// What is printed loads to the same settings; a secret is not printed, so it is put back by hand.
fn printed(mut config: Config, sources: &Sources, is_public: bool) {
    let printed = sources.to_string();
    let debugged = format!("{config:?}{sources:?}");
    // Only this one: an arbitrary secret may be a part of something else.
    if config.auth.hmac_secret.as_deref() == Some(SECRET) && !is_public {
        assert!(!printed.contains(SECRET), "a secret is printed");
        assert!(!debugged.contains(SECRET), "a secret is in the debug form");
    }
    let without_secrets: String = printed
        .lines()
        .filter(|line| !line.starts_with("hmac_secret = ") && !line.starts_with("key = "))
        .flat_map(|line| [line, "\n"])
        .collect();
    config.auth.hmac_secret = None;
    config.api.key = None;
    let file = (PathBuf::from("printed.toml"), without_secrets);
    match load(Some(file), std::iter::empty(), &[], 1024, 3) {
        Ok((again, _)) => assert_eq!(again, config, "printed and loaded:\n{printed}"),
        Err(error) => panic!("what is printed does not load: {error}\n{printed}"),
    }
}
