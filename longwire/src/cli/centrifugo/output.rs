//! longwire's file, made of what `mapping` found, and accepted by longwire itself before anybody sees it.
//!
//! The file is loaded as `longwire serve` would load it. A setting that is refused is taken out and named under
//! the option that it comes from, until the rest is right: so no table here has to repeat what longwire checks
//! (lengths of secrets, origins without `*`, history that recovery needs). What must stay true: the text that is
//! returned loads, and a remark about a secret does not contain it.

use super::mapping::{DEFAULT, Entry, Mapping, Remark, Section};
use crate::auth::Verifier;
use crate::cli::Failure;
use crate::config::{self, Origin};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The order of sections, which is that of docs/config.md; others come last.
const ORDER: [&str; 14] = [
    "server",
    "http",
    "api",
    "heartbeat",
    "websocket",
    "event_stream",
    "client",
    "auth",
    "subscription_auth",
    "webhook",
    "webhooks",
    "rpc_namespaces",
    "channel",
    "namespaces",
];

/// The file's text. What longwire refuses moves from the entries to the remarks.
///
/// # Errors
///
/// longwire refuses something that no entry is to blame for, which would be a mistake of this program.
pub(super) fn file(mapping: &mut Mapping, from: &str) -> Result<String, Failure> {
    loop {
        let (text, lines) = render(mapping, from);
        let path = PathBuf::from("longwire.toml");
        let file = Some((path.clone(), text.clone()));
        let mut refused: BTreeMap<usize, String> = BTreeMap::new();
        let problems = match config::load(file, std::iter::empty(), &[], u64::MAX, 1) {
            Err(error) => {
                for (line, entries) in &lines {
                    let place = format!("in {}: ", Origin::File { path: path.clone(), line: *line });
                    for problem in error.problems().iter().filter_map(|problem| problem.strip_prefix(&place))
                    {
                        refused.extend(entries.iter().map(|index| (*index, problem.to_owned())));
                    }
                }
                error.to_string()
            }
            // Keys are read when the server starts.
            Ok((config, _)) => match Verifier::from_config(&config) {
                Err(error) => {
                    let problem = error.to_string();
                    let is_named = |entry: &Entry| problem.starts_with(&format!("`{}`", full_key(entry)));
                    let named = mapping.entries.iter().position(is_named);
                    refused.extend(named.map(|index| (index, problem.clone())));
                    problem
                }
                Ok(_) => return Ok(text),
            },
        };
        if refused.is_empty() {
            return Err(Failure::Failed(format!(
                "made a configuration that longwire does not accept, which is a mistake in longwire: {problems}"
            )));
        }
        // From behind, so that the indices before stay what they are.
        let taken: Vec<(Entry, String)> = refused
            .into_iter()
            .rev()
            .map(|(index, problem)| (mapping.entries.remove(index), problem))
            .collect();
        for (entry, problem) in taken {
            // A default that cannot be written out leaves longwire's, which is the stricter.
            if entry.from == DEFAULT {
                continue;
            }
            let text =
                format!("`{}`: longwire refuses what it would be: {}", entry.from, told(&entry, &problem));
            if !mapping.remarks.iter().any(|remark| remark.text == text) {
                mapping.remarks.push(Remark { at: entry.at, is_missing: true, text });
            }
            mapping.leave_out_what_it_narrows(&entry.section, &entry.name(), entry.at, &entry.from);
        }
    }
}

/// The setting's key with its section.
fn full_key(entry: &Entry) -> String {
    format!("{}.{}", entry.section.join("."), entry.key)
}

/// A problem as it may be told: what must be, but of a secret not what it is.
fn told(entry: &Entry, problem: &str) -> String {
    if !entry.is_secret {
        return problem.to_owned();
    }
    let told = problem.split(", not \"").next().unwrap_or_default();
    let values = match &entry.value {
        toml::Value::Array(values) => values.as_slice(),
        value => std::slice::from_ref(value),
    };
    let shown = values.iter().filter_map(toml::Value::as_str).any(|value| told.contains(value));
    if shown { format!("`{}` is not right", full_key(entry)) } else { told.to_owned() }
}

/// The text, and which entries each of its lines is about: a setting's its own, a header's all below it.
fn render(mapping: &Mapping, from: &str) -> (String, Vec<(usize, Vec<usize>)>) {
    let rank = |section: &Section| {
        let name = section.first().map_or("", String::as_str);
        (ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len()), section.clone())
    };
    let mut sections: BTreeMap<(usize, Section), Vec<usize>> = BTreeMap::new();
    for section in &mapping.sections {
        sections.entry(rank(section)).or_default();
    }
    for (index, entry) in mapping.entries.iter().enumerate() {
        sections.entry(rank(&entry.section)).or_default().push(index);
    }
    // In the order of Centrifugo's file; what is in none comes last.
    for entries in sections.values_mut() {
        entries.sort_by_key(|index| {
            let entry = &mapping.entries[*index];
            (entry.from == DEFAULT, entry.at)
        });
    }
    let mut text = format!(
        "# What `longwire check --centrifugo` made of {from}. Behind each setting stands the option that it comes\n\
         # from; docs/config.md says what each setting means. This file has secrets in it if that one has.\n"
    );
    let mut lines = Vec::new();
    let line = |text: &str| 1 + text.bytes().filter(|byte| *byte == b'\n').count();
    for ((_, section), entries) in &sections {
        text.push('\n');
        lines.push((line(&text), entries.clone()));
        let name: Vec<String> = section.iter().map(|part| key(part)).collect();
        let _ = writeln!(text, "[{}]", name.join("."));
        for index in entries {
            let entry = &mapping.entries[*index];
            if let Some(comment) = entry.comment {
                let _ = writeln!(text, "# {comment}");
            }
            lines.push((line(&text), vec![*index]));
            let _ =
                writeln!(text, "{} = {} # {}", entry.key, entry.value, crate::cli::printable(&entry.from));
        }
    }
    (text, lines)
}

/// A key as TOML has it: in quotes unless it is plain.
fn key(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_plain) {
        name.to_owned()
    } else {
        toml::Value::String(name.to_owned()).to_string()
    }
}
