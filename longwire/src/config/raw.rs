//! What a user wrote, from all places where it can be written, and how it becomes a [`Config`].
//!
//! A setting has the same key everywhere: `websocket.max_message_bytes` in the file,
//! `LONGWIRE_WEBSOCKET__MAX_MESSAGE_BYTES` in the environment, `--websocket.max-message-bytes` as a flag. A
//! flag is stronger than the environment, that than the file, that than the default. All entries go into one
//! map with their origin; every section takes its own out of it, and what is left is unknown and refused.
//! This module opens no file and reads no environment: the caller hands their contents in. What must stay
//! true: every problem is reported, not only the first, each with its key and its origin.

use super::kind::Form;
use super::section::Section;
use super::{
    ChannelOptions, Config, DEFAULT_WEBHOOK, ListenerSection, MAX_QUEUE_NAME_BYTES, Protocol, QueueOptions,
    RpcNamespace, User, Visitor, WEBHOOKS, Webhook, check, listener, pattern,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use toml::Value;
use toml::de::{DeTable, DeValue};

/// The prefix of environment variables that are settings.
const ENVIRONMENT_PREFIX: &str = "LONGWIRE_";

/// The share of the files a process may open that connections may take, unless somebody chose a number.
const MAX_SHARE_OF_FILES: f64 = 0.8;

/// Sections that hold sections whose names somebody chose.
const NAMED: [&str; 6] = ["namespaces", "webhooks", "rpc_namespaces", "listeners", "queues", "users"];

/// Takes the name of a section, or a key's beginning, apart: one of [`NAMED`], and the rest.
pub(super) fn named_section(name: &str) -> Option<(&str, &str)> {
    name.split_once('.').filter(|(list, _)| NAMED.contains(list))
}

/// Where a setting's value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The environment variable of this name.
    Environment(String),
    /// The flag of this name, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{} line {line}", path.display()),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Which value came from where; prints the effective configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Sources {
    pub(super) config: Config,
    pub(super) origins: BTreeMap<String, Origin>,
}

impl Sources {
    /// Where the value of the setting `key` came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// The problems, each with its origin and its key.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Merges all sources into a configuration.
///
/// `file` is the file's path and contents, `env` all variables of the process (only those that begin with
/// `LONGWIRE_` and contain `__` count), `flags` pairs of a flag's name, with or without its leading dashes,
/// and its value. `rlimit_nofile` is the number of files that the process may open; `cores` how many shards
/// 0 means.
///
/// # Errors
///
/// All problems of all sources together.
pub fn load(
    file: Option<(PathBuf, String)>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[(String, String)],
    rlimit_nofile: u64,
    cores: usize,
) -> Result<(Config, Sources), ConfigError> {
    let mut entries = Entries::default();
    if let Some((path, contents)) = file {
        entries.add_file(path, &contents);
    }
    entries.add_environment(env);
    entries.add_flags(flags);
    entries.into_config(rlimit_nofile, cores)
}

/// The configuration of `longwire demo`, changed by the environment and `flags`.
///
/// # Errors
///
/// All problems of the flags together.
pub fn demo(
    env: impl Iterator<Item = (String, String)>,
    flags: &[(String, String)],
    rlimit_nofile: u64,
    cores: usize,
) -> Result<(Config, Sources), ConfigError> {
    let mut entries = Entries::default();
    entries.add_environment(env);
    entries.add_flags(flags);
    // Whoever says where the demo listens, and names no listener, means all of it: several demos beside each other
    // would otherwise have one port in common.
    let moves = entries.by_key.contains_key("server.listen");
    let is_moved = moves && !entries.by_key.keys().any(|key| key.starts_with("listeners."));
    let mut demo = Entries::default();
    demo.add_file(PathBuf::from("(demo)"), include_str!("demo.toml"));
    if is_moved {
        demo.named.retain(|(list, _), _| list != "listeners");
        demo.by_key.retain(|key, _| !key.starts_with("listeners."));
    }
    demo.by_key.extend(entries.by_key);
    demo.into_config(rlimit_nofile, cores)
}

/// What somebody gave for one key.
struct Entry {
    given: Given,
    origin: Origin,
}

enum Given {
    Toml(Value),
    /// From a flag or the environment: the kind of the setting decides what it means.
    Text(String),
}

impl Given {
    fn value(&self, form: Form) -> Value {
        match self {
            Given::Toml(value) => value.clone(),
            Given::Text(text) => form.value(text),
        }
    }
}

/// What was given, by key. Later sources replace what earlier ones gave.
#[derive(Default)]
struct Entries {
    by_key: BTreeMap<String, Entry>,
    /// Namespaces and the like that a file names, also without any option: the list and the name.
    named: BTreeMap<(String, String), Origin>,
    problems: Vec<String>,
}

impl Entries {
    fn add_file(&mut self, path: PathBuf, contents: &str) {
        let origin = |at: usize| {
            let lines_before = contents.bytes().take(at).filter(|byte| *byte == b'\n').count();
            Origin::File { path: path.clone(), line: 1 + lines_before }
        };
        let (values, spans) = match (toml::from_str::<toml::Table>(contents), DeTable::parse(contents)) {
            (Ok(values), Ok(spans)) => (values, spans),
            (Err(error), _) | (_, Err(error)) => {
                let start = error.span().map_or(0, |span| span.start);
                self.problems.push(format!("in {}: {}", origin(start), error.message()));
                return;
            }
        };
        for section in children(&values, spans.get_ref()) {
            match section.table() {
                Some(chosen) if NAMED.contains(&section.key) => {
                    for one in chosen {
                        self.named.insert((section.key.to_owned(), one.key.to_owned()), origin(one.at));
                        self.add_section(&format!("{}.{}", section.key, one.key), &one, &origin);
                    }
                }
                // Beside its own settings it holds a section for each of those names.
                Some(parts) if section.key == "webhook" => {
                    for part in parts {
                        let key = format!("webhook.{}", part.key);
                        if WEBHOOKS.contains(&part.key) {
                            self.add_section(&key, &part, &origin);
                        } else {
                            let given = Given::Toml(part.value.clone());
                            self.by_key.insert(key, Entry { given, origin: origin(part.at) });
                        }
                    }
                }
                _ => self.add_section(section.key, &section, &origin),
            }
        }
    }

    fn add_section(&mut self, name: &str, section: &Node<'_>, origin: &impl Fn(usize) -> Origin) {
        let entry =
            |node: &Node<'_>| Entry { given: Given::Toml(node.value.clone()), origin: origin(node.at) };
        match section.table() {
            Some(settings) => {
                for setting in settings {
                    self.by_key.insert(format!("{name}.{}", setting.key), entry(&setting));
                }
            }
            // Kept, to be refused under its own name.
            None => drop(self.by_key.insert(name.to_owned(), entry(section))),
        }
    }

    fn add_environment(&mut self, env: impl Iterator<Item = (String, String)>) {
        // Only names with two underscores in a row: an orchestrator that runs a service called `longwire`
        // sets `LONGWIRE_PORT`, `LONGWIRE_SERVICE_HOST` and more of its own.
        let mut settings: Vec<(String, String)> = env
            .filter(|(name, _)| name.strip_prefix(ENVIRONMENT_PREFIX).is_some_and(|rest| rest.contains("__")))
            .collect();
        settings.sort();
        for (variable, text) in settings {
            let rest = variable[ENVIRONMENT_PREFIX.len()..].to_ascii_lowercase();
            let named = rest.split_once("__").filter(|(list, _)| NAMED.contains(list));
            let key = match named.and_then(|(list, rest)| Some((list, rest.rsplit_once("__")?))) {
                // A namespace's name may itself contain underscores.
                Some((list, (name, option))) => format!("{list}.{name}.{option}"),
                None => rest.replace("__", "."),
            };
            self.by_key
                .insert(key, Entry { given: Given::Text(text), origin: Origin::Environment(variable) });
        }
    }

    fn add_flags(&mut self, flags: &[(String, String)]) {
        for (name, text) in flags {
            let name = name.trim_start_matches('-');
            // Dashes are underscores, except in a namespace's name, where both may stand.
            let named = name.split_once('.').map(|(list, rest)| (list.replace('-', "_"), rest));
            let named = named.filter(|(list, _)| NAMED.contains(&&**list));
            let key = match named.and_then(|(list, rest)| Some((list, rest.rsplit_once('.')?))) {
                Some((list, (name, option))) => format!("{list}.{name}.{}", option.replace('-', "_")),
                None => name.replace('-', "_"),
            };
            let origin = Origin::Flag(format!("--{name}"));
            self.by_key.insert(key, Entry { given: Given::Text(text.clone()), origin });
        }
    }

    fn into_config(mut self, rlimit_nofile: u64, cores: usize) -> Result<(Config, Sources), ConfigError> {
        let mut config = Config::default();
        config.server.shards = 0;
        let mut named = std::mem::take(&mut self.named);
        for (key, entry) in &self.by_key {
            let found = named_section(key).and_then(|(list, rest)| Some((list, rest.rsplit_once('.')?.0)));
            if let Some((list, name)) = found {
                named.entry((list.to_owned(), name.to_owned())).or_insert_with(|| entry.origin.clone());
            }
        }
        for ((list, name), origin) in named {
            let what = match &*list {
                "webhooks" => "webhook",
                "listeners" => "listener",
                _ => "namespace",
            };
            let problem = match &*list {
                "queues" if pattern::is_pattern(&name) => None,
                "queues" => Some(format!(
                    "the name of queues has 1 to 255 bytes and `#` at its end alone, unlike {name:?}"
                )),
                "users" if is_user_name(&name) => None,
                "users" => Some(format!(
                    "a user's name has 1 to 255 bytes and no control characters, unlike {name:?}"
                )),
                _ if check::is_namespace_name(&name) => None,
                _ => Some(format!(
                    "a {what}'s name is two or more of the characters a-z A-Z 0-9 - _ . and not \"{name}\""
                )),
            };
            if let Some(problem) = problem {
                self.problems.push(format!("{}: {problem}", place(&origin)));
                self.by_key.retain(|key, _| !key.starts_with(&format!("{list}.{name}.")));
                continue;
            }
            match &*list {
                "webhooks" if name == DEFAULT_WEBHOOK => {
                    self.problems.push(format!(
                        "{}: the webhook \"{DEFAULT_WEBHOOK}\" is the one in `[webhook.subscribe]` and its like; \
                         choose another name",
                        place(&origin)
                    ));
                    self.by_key.retain(|key, _| !key.starts_with("webhooks.default."));
                }
                "webhooks" => drop(config.webhooks.insert(name, Webhook::default())),
                "rpc_namespaces" => drop(config.rpc_namespaces.insert(name, RpcNamespace::default())),
                "listeners" => drop(config.listener_sections.insert(name, ListenerSection::default())),
                "queues" => drop(config.queues.named.insert(name, QueueOptions::default())),
                "users" => drop(config.users.insert(name, User::default())),
                _ => drop(config.namespaces.insert(name, ChannelOptions::default())),
            }
        }

        let mut reader = Reader {
            entries: self.by_key,
            origins: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            problems: self.problems,
        };
        // What holds for all queues holds for those that are named, too, where they say nothing else.
        reader.section("queue", &mut config.queues.options);
        for options in config.queues.named.values_mut() {
            *options = config.queues.options.clone();
        }
        config.visit(&mut reader);
        let Reader { entries: unknown, origins, unreadable, mut problems } = reader;
        if !unknown.is_empty() {
            let known = known_keys(&mut config);
            for (key, entry) in &unknown {
                problems.push(format!("{}: {}", place(&entry.origin), describe_unknown(key, entry, &known)));
            }
        }

        if config.server.shards == 0 {
            config.server.shards = cores.max(1);
        }
        if !origins.contains_key("server.max_connections") {
            let share = (rlimit_nofile as f64 * MAX_SHARE_OF_FILES) as usize;
            config.server.max_connections = config.server.max_connections.min(share).max(1);
        }
        let has_http = config.listener_sections.values().any(|section| section.protocol == Protocol::Http);
        if has_http && !origins.contains_key("server.listen") {
            config.server.listen.clear();
        }
        config.listeners = listener::resolve(&config.server.listen, &config.listener_sections);
        let sources = Sources { config: config.clone(), origins };
        problems.extend(check::problems(&sources, &unreadable));
        if problems.is_empty() { Ok((config, sources)) } else { Err(ConfigError { problems }) }
    }
}

fn is_user_name(name: &str) -> bool {
    (1..=MAX_QUEUE_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control)
}

/// A key of a file with its value and its place.
struct Node<'a> {
    key: &'a str,
    /// Bytes before the key.
    at: usize,
    value: &'a Value,
    spans: &'a DeValue<'a>,
}

impl<'a> Node<'a> {
    /// What is in it, if it is a table.
    fn table(&self) -> Option<Vec<Node<'a>>> {
        match (self.value, self.spans) {
            (Value::Table(values), DeValue::Table(spans)) => Some(children(values, spans)),
            _ => None,
        }
    }
}

/// Joins a table's values with the places of their keys.
fn children<'a>(values: &'a toml::Table, spans: &'a DeTable<'a>) -> Vec<Node<'a>> {
    let mut nodes = Vec::new();
    for (key, spans) in spans {
        let (at, key) = (key.span().start, key.get_ref().as_ref());
        if let Some(value) = values.get(key) {
            nodes.push(Node { key, at, value, spans: spans.get_ref() });
        }
    }
    nodes
}

/// How an origin begins a problem's line.
pub(super) fn place(origin: &Origin) -> String {
    match origin {
        Origin::File { .. } => format!("in {origin}"),
        _ => origin.to_string(),
    }
}

/// Takes each section's settings out of the entries.
struct Reader {
    entries: BTreeMap<String, Entry>,
    origins: BTreeMap<String, Origin>,
    /// Keys whose value was refused.
    unreadable: BTreeSet<String>,
    problems: Vec<String>,
}

impl Visitor for Reader {
    fn section<S: Section>(&mut self, name: &str, section: &mut S) {
        for field in S::fields() {
            let key = format!("{name}.{}", field.key);
            let Some(Entry { given, origin }) = self.entries.remove(&key) else { continue };
            if let Err(problem) = (field.set)(section, &given.value(field.form)) {
                self.problems.push(format!("{}: `{key}`: {problem}", place(&origin)));
                self.unreadable.insert(key.clone());
            }
            self.origins.insert(key, origin);
        }
    }
}

fn known_keys(config: &mut Config) -> Vec<String> {
    struct Keys(Vec<String>);
    impl Visitor for Keys {
        fn section<S: Section>(&mut self, name: &str, _: &mut S) {
            self.0.extend(S::fields().iter().map(|field| format!("{name}.{}", field.key)));
        }
    }
    let mut keys = Keys(Vec::new());
    config.visit(&mut keys);
    keys.0
}

fn describe_unknown(key: &str, entry: &Entry, known: &[String]) -> String {
    let is_section = |other: &String| other.rsplit_once('.').is_some_and(|(section, _)| section == key);
    if NAMED.contains(&key) || known.iter().any(is_section) {
        return format!("`{key}` is a section: its settings stand in a table `[{key}]`");
    }
    let nearest = known.iter().map(|other| (edit_distance(key, other), other)).min();
    match nearest {
        // A third of the key: further away lies a different word.
        Some((distance, other)) if distance * 3 <= key.len() => {
            format!("unknown key `{key}`; did you mean `{other}`?")
        }
        _ if matches!(entry.origin, Origin::Environment(_)) => {
            format!("unknown key `{key}` (variables are named LONGWIRE_SECTION__KEY)")
        }
        _ => format!("unknown key `{key}`"),
    }
}

/// How many letters must be put in, left out or replaced to make `b` of `a`.
pub(crate) fn edit_distance(a: &str, b: &str) -> usize {
    // Bounded: a key may come from the environment and be as long as it likes.
    let a: Vec<char> = a.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, right) in b.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, left) in a.iter().enumerate() {
            let replaced = diagonal + usize::from(*left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    fn load_all(
        file: &str,
        env: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<(Config, Sources), ConfigError> {
        let file = Some((PathBuf::from("longwire.toml"), file.to_owned()));
        load(file, pairs(env).into_iter(), &pairs(flags), 1_000_000, 4)
    }

    fn problems(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
        load_all(file, env, flags).expect_err("the configuration is wrong").problems().to_vec()
    }

    #[test]
    fn without_any_source_the_defaults_hold() {
        let (config, sources) = load(None, std::iter::empty(), &[], 1_000_000, 4).unwrap();
        let mut expected = Config::default();
        expected.server.shards = 4;
        assert_eq!(config, expected);
        assert_eq!(sources.origin("server.listen"), &Origin::Default);
        assert_eq!(config.server.max_connections, 50_000);
        assert_eq!(config.websocket.max_message_bytes, 65_536);
        assert_eq!(config.heartbeat.max_silence, Duration::from_secs(35));
        assert_eq!(config.channel.history_meta_ttl, Duration::from_secs(720 * 3600));
    }

    #[test]
    fn connections_leave_a_fifth_of_the_files_free_unless_a_number_was_chosen() {
        let (config, _) = load(None, std::iter::empty(), &[], 20_000, 1).unwrap();
        assert_eq!(config.server.max_connections, 16_000);
        let flags = pairs(&[("server.max_connections", "18000")]);
        let (config, _) = load(None, std::iter::empty(), &flags, 20_000, 1).unwrap();
        assert_eq!(config.server.max_connections, 18_000);
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
        let file = "[websocket]\nmax_message_bytes = \"1KiB\"\n";
        let env = [("LONGWIRE_WEBSOCKET__MAX_MESSAGE_BYTES", "2KiB")];
        let flags = [("--websocket.max-message-bytes", "3KiB")];
        let size = |env, flags| {
            let (config, sources) = load_all(file, env, flags).unwrap();
            (config.websocket.max_message_bytes, sources.origin("websocket.max_message_bytes").to_string())
        };
        assert_eq!(size(&[], &[]), (1024, "longwire.toml line 2".to_owned()));
        assert_eq!(
            size(&env, &[]),
            (2048, "environment variable LONGWIRE_WEBSOCKET__MAX_MESSAGE_BYTES".to_owned())
        );
        assert_eq!(size(&env, &flags), (3072, "flag --websocket.max-message-bytes".to_owned()));
    }

    #[test]
    fn a_namespace_can_be_configured_in_every_source() {
        let file = "[namespaces.chat]\njoin_leave = true\n[namespaces.\"a.b-C\"]\n[namespaces.news]\npresence = true";
        let env = [
            ("LONGWIRE_NAMESPACES__CHAT__PRESENCE", "true"),
            ("LONGWIRE_NAMESPACES__MY__CHAT__PRESENCE", "true"),
        ];
        let flags =
            [("namespaces.my-chat.allow-presence-for-client", "true"), ("namespaces.a.b-C.presence", "true")];
        let (config, _) = load_all(file, &env, &flags).unwrap();
        let names: Vec<&str> = config.namespaces.keys().map(String::as_str).collect();
        assert_eq!(names, ["a.b-C", "chat", "my-chat", "my__chat", "news"]);
        assert!(config.namespaces["chat"].presence && config.namespaces["chat"].join_leave);
        assert!(config.namespaces["my-chat"].allow_presence_for_client);
        assert!(config.namespaces["a.b-C"].presence);
    }

    #[test]
    fn webhooks_can_be_configured_in_every_source_and_by_name() {
        let file = "[webhook]\nmax_in_flight = 7\n[webhook.connect]\nendpoint = \"http://a/\"\n\
                    [webhooks.shop]\nendpoint = \"https://b/x\"\nhttp_headers = [\"Cookie\"]\n\
                    static_headers = [\"X-Key: correct-horse\"]\nstatus_transforms = [\"402 disconnect 4500 no credit\"]\n\
                    [rpc_namespaces.cart]\nwebhook = \"shop\"\n[channel]\npublish_webhook = \"shop\"";
        let env = [
            ("LONGWIRE_WEBHOOK__SUB_REFRESH__ENDPOINT", "http://c/"),
            ("LONGWIRE_WEBHOOKS__MY__HOOK__ENDPOINT", "http://d/"),
        ];
        let flags = [
            ("webhook.sub-refresh.timeout", "3s"),
            ("webhooks.my-shop.endpoint", "http://e/"),
            ("rpc-namespaces.my-cart.webhook", "my-shop"),
        ];
        let (config, sources) = load_all(file, &env, &flags).unwrap();
        let [connect, _, _, _, sub_refresh, rpc, ..] = &config.default_webhooks;
        assert_eq!((connect.endpoint.as_deref(), rpc.endpoint.as_deref()), (Some("http://a/"), None));
        assert_eq!((sub_refresh.endpoint.as_deref(), sub_refresh.timeout.as_secs()), (Some("http://c/"), 3));
        let names: Vec<&str> = config.webhooks.keys().map(String::as_str).collect();
        assert_eq!(names, ["my-shop", "my__hook", "shop"]);
        assert_eq!(config.rpc_namespaces["my-cart"].webhook, "my-shop");
        assert_eq!((config.webhook.max_in_flight, &*config.channel.publish_webhook), (7, "shop"));
        assert!(config.hands_on_header("cookie") && !config.hands_on_header("origin"));
        assert!(!config.hands_on_emulated_header("cookie"));
        let printed = sources.to_string();
        for part in
            ["[webhook.connect]", "[webhooks.\"shop\"]", "[rpc_namespaces.\"cart\"]", "x-key: (hidden)"]
        {
            assert!(printed.contains(part), "{part}: {printed}");
        }
        assert!(!printed.contains("correct-horse") && !format!("{config:?}").contains("correct-horse"));
    }

    #[test]
    fn webhooks_that_nobody_could_ask_are_refused() {
        for (file, expected) in [
            ("[webhook.connect]\nendpoint = \"a\"", "`webhook.connect.endpoint`: must be an address"),
            ("[webhook.conect]\nendpoint = \"http://a/\"", "unknown key `webhook.conect`"),
            ("[webhook]\nconnect = 1", "`webhook.connect` is a section"),
            ("[webhook]\nsecret = \"short\"", "`webhook.secret`: must have at least 32 bytes"),
            ("[events]\nsecret = \"short\"", "`events.secret`: must have at least 32 bytes"),
            ("[events]\nendpoint = \"http://u:p@h/\"", "without a user"),
            ("[webhooks.shop]\ntimeout = \"2s\"", "`webhooks.shop.endpoint` is not set"),
            ("[webhooks.shop]", "`webhooks.shop.endpoint` is not set"),
            ("[webhooks.default]\nendpoint = \"http://a/\"", "choose another name"),
            ("[webhooks.x]\nendpoint = \"http://a/\"", "a webhook's name is two or more"),
            ("[channel]\nsubscribe_webhook = \"default\"", "`webhook.subscribe.endpoint` is not set"),
            ("[namespaces.chat]\npublish_webhook = \"shop\"", "there is no section `[webhooks.shop]`"),
            ("[rpc_namespaces.cart]", "`webhook.rpc.endpoint` is not set"),
            (
                "[webhook.rpc]\nstatus_transforms = [\"402 error 7 x\"]",
                "each must be a status and its meaning",
            ),
            ("[webhook.rpc]\nhttp_headers = [\"Host\"]", "each must be the name of a header"),
            ("webhooks = 1", "`webhooks` is a section"),
        ] {
            let all = problems(file, &[], &[]);
            assert!(all.len() == 1 && all[0].contains(expected), "{file}: {all:?}");
        }
    }

    #[test]
    fn variables_that_an_orchestrator_sets_are_no_settings() {
        let env = [
            ("LONGWIRE_PORT", "tcp://10.0.0.1:8000"),
            ("LONGWIRE_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ];
        assert!(load_all("", &env, &[]).is_ok());
    }

    #[test]
    fn every_problem_is_reported_with_its_key_and_origin() {
        let file = "[heartbeat]\ninterval = 25\n\n[server]\nlisten = [\"localhost\"]\n";
        let env = [("LONGWIRE_CLIENT__INSECURE", "yes")];
        let flags = [("http.max-headers", "0")];
        let all = problems(file, &env, &flags);
        assert_eq!(all.len(), 4, "{all:?}");
        let has =
            |start: &str| assert!(all.iter().any(|problem| problem.starts_with(start)), "{start}: {all:?}");
        has("in longwire.toml line 2: `heartbeat.interval`: must be a duration");
        has("in longwire.toml line 5: `server.listen`: each must be an address");
        has(
            "environment variable LONGWIRE_CLIENT__INSECURE: `client.insecure`: must be true or false, not \"yes\"",
        );
        has("flag --http.max-headers: `http.max_headers`: must be at least 1, not 0");
    }

    #[test]
    fn a_contradiction_is_reported_beside_other_problems_unless_they_are_about_the_same_key() {
        let flags = [
            ("srver.listen", "x"),
            ("heartbeat.timeout", "30s"),
            ("channel.history-size", "many"),
            ("channel.history-ttl", "1m"),
        ];
        let all = problems("", &[], &flags);
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(
            all.iter().any(|problem| problem.contains("`heartbeat.timeout` (30s) must be shorter")),
            "{all:?}"
        );
        assert!(
            all.iter().any(|problem| problem.contains("`heartbeat.max_silence` (35s) must be longer")),
            "{all:?}"
        );
        assert!(!all.iter().any(|problem| problem.contains("history_ttl")), "{all:?}");
    }

    #[test]
    fn a_syntax_error_names_file_and_line() {
        let all = problems("[server]\n\nlisten = [\n", &[], &[]);
        assert!(all[0].starts_with("in longwire.toml line "), "{all:?}");
        let all = problems("[server]\nshards = 1\nshards = 2\n", &[], &[]);
        assert!(all[0].starts_with("in longwire.toml line 3: "), "{all:?}");
        let all = problems("# caf\u{e9}\n[server]\nx = \u{e9}\n", &[], &[]);
        assert!(all[0].starts_with("in longwire.toml line 3: "), "{all:?}");
    }

    #[test]
    fn an_unknown_key_is_refused_and_the_nearest_one_suggested() {
        for (file, expected) in [
            (
                "[websocket]\nmax_mesage_bytes = 1",
                "unknown key `websocket.max_mesage_bytes`; did you mean `websocket.max_message_bytes`?",
            ),
            (
                "[web_socket]\ncompression = true",
                "unknown key `web_socket.compression`; did you mean `websocket.compression`?",
            ),
            (
                "[namespaces.chat]\nprecense = true",
                "unknown key `namespaces.chat.precense`; did you mean `namespaces.chat.presence`?",
            ),
            ("entirely_different = 1", "unknown key `entirely_different`"),
            ("server = 1", "`server` is a section"),
            ("namespaces = 1", "`namespaces` is a section"),
            ("namespaces.chat = 1", "`namespaces.chat` is a section"),
        ] {
            let all = problems(file, &[], &[]);
            assert!(all.len() == 1 && all[0].contains(expected), "{file}: {all:?}");
        }
        let all = problems("", &[("LONGWIRE_SERVER__LISTN", "x")], &[]);
        assert!(all[0].contains("did you mean `server.listen`?"), "{all:?}");
        let all = problems("", &[("LONGWIRE_X__Y", "x")], &[]);
        assert!(all[0].contains("LONGWIRE_SECTION__KEY"), "{all:?}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (flags, expected) in [
            (
                vec![("heartbeat.timeout", "25s"), ("heartbeat.max_silence", "60s")],
                "`heartbeat.timeout` (25s) must be shorter than `heartbeat.interval`",
            ),
            (vec![("heartbeat.max-silence", "33s")], "`heartbeat.max_silence` (33s) must be longer"),
            (vec![("heartbeat.interval", "999ms")], "`heartbeat.interval`: must be at least 1s"),
            (vec![("auth.hmac-secret", "short")], "`auth.hmac_secret`: must have at least 32 bytes, not 5"),
            (vec![("auth.hmac-secret", "(hidden)")], "only stands for a secret"),
            (
                vec![("auth.hmac-previous-secret", "an old one of more than 32 bytes")],
                "`auth.hmac_previous_secret` has no effect without `auth.hmac_secret`",
            ),
            (
                vec![("auth.audience", "a"), ("auth.audience-pattern", "a*")],
                "only one of `auth.audience` and `auth.audience_pattern` can hold",
            ),
            (
                vec![("auth.rsa-public-key", "-----BEGIN PRIVATE KEY-----")],
                "`auth.rsa_public_key`: is a private key",
            ),
            (vec![("auth.jwks-url", "http://example.com/jwks")], "`auth.jwks_url`: must begin with https://"),
            (vec![("auth.jwks-url", "ftp://example.com/jwks")], "`auth.jwks_url`: must begin with https://"),
            (vec![("auth.jwks-url", "https://{{iss}}/jwks")], "`auth.jwks_url`: must have no placeholders"),
            (vec![("auth.jwks-url", "https://me:pw@a.b/jwks")], "must have no user and no password"),
            (vec![("auth.jwks-url", "jwks.json")], "`auth.jwks_url`: must be a URL"),
            (vec![("subscription-auth.enabled", "true")], "`subscription_auth.enabled` needs a key"),
            (
                vec![("subscription-auth.enabled", "true"), ("subscription-auth.hmac-secret", "short")],
                "`subscription_auth.hmac_secret`: must have at least 32 bytes",
            ),
            (
                vec![("channel.history-size", "10")],
                "`channel.history_size` has no effect without `channel.history_ttl`",
            ),
            (
                vec![("channel.history-ttl", "1m")],
                "`channel.history_ttl` has no effect without `channel.history_size`",
            ),
            (
                vec![("namespaces.chat.force-recovery", "true")],
                "`namespaces.chat.force_recovery` needs history: set `namespaces.chat.history_size` and `namespaces.chat.history_ttl`",
            ),
            (vec![("channel.allow-positioning", "true")], "`channel.allow_positioning` needs history"),
            (
                vec![
                    ("channel.history-ttl", "2d"),
                    ("channel.history-size", "1"),
                    ("channel.history-meta-ttl", "1d"),
                ],
                "`channel.history_meta_ttl` (24h) must not be shorter",
            ),
            (vec![("server.listen", "")], "`server.listen`: must name at least one"),
            (vec![("server.drain_over", "1m")], "`server.drain_over` (1m) must not be longer"),
            (
                vec![("server.allowed-origins", "https://a.b/c")],
                "`server.allowed_origins`: each must be an origin",
            ),
            (vec![("server.shards", "5000")], "`server.shards`: must be at most 64"),
            (vec![("log.level", "longwire=loud")], "`log.level`"),
            (vec![("client.write_timeout", "0s")], "`client.write_timeout`: must be longer than zero"),
            (vec![("namespaces.x.presence", "true")], "a namespace's name"),
            (vec![("namespaces.a b.presence", "true")], "a namespace's name"),
        ] {
            let all = problems("", &[], &flags);
            assert!(all.len() == 1 && all[0].contains(expected), "{flags:?}: {all:?}");
            assert!(all[0].starts_with("flag --"), "{flags:?}: {all:?}");
        }
    }

    #[test]
    fn keys_are_fetched_over_https_or_from_this_machine() {
        for flags in [
            vec![("auth.jwks-url", "https://example.com/jwks.json?a=b")],
            vec![("auth.jwks-url", "http://127.0.0.1:8080/jwks")],
            vec![("auth.jwks-url", "http://[::1]/jwks")],
            vec![("auth.jwks-url", "http://localhost/jwks")],
            vec![("auth.jwks-url", "http://example.com/jwks"), ("auth.jwks-allow-http", "true")],
        ] {
            assert!(load_all("", &[], &flags).is_ok(), "{flags:?}");
        }
    }

    #[test]
    fn a_secret_is_in_no_output() {
        let secret = "correct-horse-battery-staple-0123456789";
        let flags = [("auth.hmac-secret", secret), ("api.key", secret)];
        let (config, sources) = load_all("", &[], &flags).unwrap();
        assert_eq!(config.auth.hmac_secret.as_deref(), Some(secret));
        for text in [format!("{config:?}"), format!("{sources:?}"), sources.to_string()] {
            assert!(!text.contains(secret) && text.contains("(hidden)"), "{text}");
        }
        for text in ["[auth]\nhmac_secret = 4711", "[api]\nkey = [4711]"] {
            assert!(!problems(text, &[], &[])[0].contains("4711"));
        }
    }

    #[test]
    fn what_is_printed_means_the_same_configuration_and_names_every_origin() {
        let file = "[namespaces.\"a.b\"]\nhistory_size = 10\nhistory_ttl = \"90s\"\n[log]\nlevel = \"warn\"";
        let flags = [
            ("server.allowed-origins", "https://a.b,http://c:81"),
            ("server.trusted-proxies", "::1, 10.0.0.1"),
        ];
        let (config, sources) = load_all(file, &[], &flags).unwrap();
        let printed = sources.to_string();
        let (again, _) = load_all(&printed, &[], &[]).unwrap();
        assert_eq!(again, config);
        for line in [
            "level = \"warn\" # from longwire.toml line 5",
            "allowed_origins = [\"https://a.b\", \"http://c:81\"] # from flag --server.allowed-origins",
            "interval = \"25s\" # from default",
            "# key is not set",
        ] {
            assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
        }
    }

    #[test]
    fn the_demo_is_open_and_keeps_history() {
        let config = Config::demo();
        assert!(config.client.insecure && config.api.insecure && config.channel.force_recovery);
        assert_eq!(
            (config.channel.history_size, config.channel.history_ttl),
            (1000, Duration::from_secs(300))
        );
        assert!(config.listeners.iter().all(|listener| listener.address.ip().is_loopback()));
        let (config, _) =
            demo(std::iter::empty(), &pairs(&[("server.listen", "127.0.0.1:9000")]), 1000, 2).unwrap();
        assert_eq!(config.server.listen[0].port(), 9000);
    }

    #[test]
    fn the_documented_settings_are_the_settings() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.md");
        let documented = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(documented, crate::config::markdown(), "run `longwire docs` to write docs/config.md anew");
    }
}
