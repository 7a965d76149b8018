//! The walk through a Centrifugo configuration, by the rows of `table`, and what it finds.
//!
//! It makes entries for longwire's file and remarks for the user; what depends on several options is made by
//! `rules`, and whether longwire accepts the whole is asked by `output`. What must stay true: every key of the
//! file ends in an entry, a remark, an error or a reason why it has no effect, and no remark repeats a value.

use super::convert::{self, Form};
use super::input::{Node, Value};
use super::narrow::{self, NARROWS};
use super::rules;
use super::table::{Becomes, GROUPS, Group, Off, Row, When};
use crate::config::edit_distance;
use std::collections::{BTreeMap, BTreeSet};

/// What stands behind a setting that no option asked for.
pub(super) const DEFAULT: &str = "Centrifugo's default";

/// A section of longwire's file, by the parts of its name.
pub(super) type Section = Vec<String>;

/// A setting in longwire's file.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) section: Section,
    pub(super) key: String,
    pub(super) value: toml::Value,
    pub(super) is_secret: bool,
    /// The option that it comes from, or why it is there.
    pub(super) from: String,
    /// Where that stands.
    pub(super) at: usize,
    /// What a reader should know, above the setting.
    pub(super) comment: Option<&'static str>,
}

/// Something to say about an option.
pub(super) struct Remark {
    /// Where the option stands.
    pub(super) at: usize,
    /// Whether something is missing; otherwise it only is not needed.
    pub(super) is_missing: bool,
    pub(super) text: String,
}

/// What was found.
#[derive(Default)]
pub(super) struct Mapping {
    pub(super) entries: Vec<Entry>,
    /// Sections that are there without any setting, too.
    pub(super) sections: BTreeSet<Section>,
    pub(super) remarks: Vec<Remark>,
    /// Values that Centrifugo would not accept either, and where.
    pub(super) errors: Vec<(usize, String)>,
    narrowed: Vec<(Section, String, usize, String)>,
}

/// Finds what becomes of each option below `root`.
pub(super) fn map(root: &Node) -> Mapping {
    let mut walk = Walk { root, rows: rows(), mapping: Mapping::default() };
    walk.table(root, "", "", "");
    let mut mapping = walk.mapping;
    rules::apply(root, &mut mapping);
    for (section, key, at, from) in std::mem::take(&mut mapping.narrowed) {
        mapping.leave_out_what_it_narrows(&section, &key, at, &from);
    }
    rules::close_api(&mut mapping);
    mapping
}

/// The rows by where their option stands, `[]` standing for each item of a list.
pub(super) fn rows() -> BTreeMap<String, (&'static Group, &'static Row)> {
    let rows = GROUPS.iter().flat_map(|group| group.rows.iter().map(move |row| (group, row)));
    rows.map(|(group, row)| (join(group.at, row.option), (group, row))).collect()
}

/// The name of a section, `NAME` being the name of a list's item.
pub(super) fn section(pattern: &str, name: &str) -> Section {
    pattern.split('.').map(|part| if part == "NAME" { name } else { part }.to_owned()).collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Mapping {
    pub(super) fn set(&mut self, section: &[String], key: &str, value: toml::Value, at: usize, from: &str) {
        self.entries.push(Entry {
            section: section.to_vec(),
            key: key.to_owned(),
            value,
            is_secret: false,
            from: from.to_owned(),
            at,
            comment: None,
        });
    }

    /// Like [`Mapping::set`], with a comment above the setting.
    pub(super) fn set_because(
        &mut self,
        section: &[String],
        key: &str,
        value: toml::Value,
        at: usize,
        from: &str,
        comment: &'static str,
    ) {
        self.set(section, key, value, at, from);
        if let Some(entry) = self.entries.last_mut() {
            entry.comment = Some(comment);
        }
    }

    pub(super) fn has(&self, section: &[String], key: &str) -> bool {
        self.entries.iter().any(|entry| entry.section == section && entry.key == key)
    }

    pub(super) fn missing(&mut self, at: usize, option: &str, did: &str, instead: &str) {
        let text = format!("`{option}`: {did}; instead: {instead}");
        self.remarks.push(Remark { at, is_missing: true, text });
    }

    pub(super) fn wrong(&mut self, at: usize, option: &str, problem: &str) {
        self.errors.push((at, format!("`{option}` {problem}")));
    }

    /// Notes that `what` of [`NARROWS`], which `option` asked for and which is about `section`, is not there.
    pub(super) fn lost(&mut self, section: &[String], what: &str, at: usize, option: &str) {
        self.narrowed.push((section.to_vec(), what.to_owned(), at, option.to_owned()));
    }

    /// Takes out what `what` narrowed, and what that narrowed in turn, and says so.
    pub(super) fn leave_out_what_it_narrows(
        &mut self,
        section: &[String],
        what: &str,
        at: usize,
        from: &str,
    ) {
        let Some(narrow) = NARROWS.iter().find(|narrow| narrow.without.contains(&what)) else { return };
        let is_out = |entry: &Entry| {
            narrow.out.iter().any(|(place, keys)| {
                place.holds(&entry.section, section)
                    && keys.iter().any(|key| *key == "*" || *key == entry.key)
            })
        };
        let (mut out, kept): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(&mut self.entries).into_iter().partition(is_out);
        self.entries = kept;
        out.sort_by_key(|entry| entry.at);
        if !out.is_empty() {
            let mut names: Vec<String> = out.iter().map(|entry| format!("`{}`", entry.from)).collect();
            names.dedup();
            let text = format!(
                "{} left out too, because without `{from}` more would be allowed than before",
                names.join(", ")
            );
            self.remarks.push(Remark { at, is_missing: true, text });
        }
        for entry in out {
            self.leave_out_what_it_narrows(&entry.section, &entry.name(), entry.at, &entry.from);
        }
    }
}

impl Entry {
    /// The setting's key with its section, `NAME` being the name of a list's item.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", narrow::pattern(&self.section), self.key)
    }
}

struct Walk<'a> {
    root: &'a Node,
    rows: BTreeMap<String, (&'static Group, &'static Row)>,
    mapping: Mapping,
}

impl Walk<'_> {
    /// `pattern` is where the table stands in terms of the rows, `shown` how a user calls that, `name` the name
    /// of the list's item that it lies in.
    fn table(&mut self, node: &Node, pattern: &str, shown: &str, name: &str) {
        let Value::Table(table) = &node.value else {
            self.mapping.wrong(node.at, shown, "must be a table of options");
            return;
        };
        for (key, child) in table {
            if matches!(child.value, Value::Null) {
                continue;
            }
            let (pattern, shown) = (join(pattern, key), join(shown, key));
            if let Some((group, row)) = self.rows.get(&pattern).copied() {
                self.row(group, row, child, &shown, name);
            } else if self.holds_rows(&format!("{pattern}.")) {
                if self.counts(&pattern, child, &shown) {
                    self.table(child, &pattern, &shown, name);
                }
            } else if self.holds_rows(&format!("{pattern}[].")) {
                self.list(child, &format!("{pattern}[]"), &shown);
            } else {
                self.unknown(child, &pattern, &shown);
            }
        }
    }

    fn list(&mut self, node: &Node, pattern: &str, shown: &str) {
        let Value::List(items) = &node.value else {
            self.mapping.wrong(node.at, shown, "must be a list");
            return;
        };
        let mut names = BTreeSet::new();
        for item in items {
            let Some(name) = item.get("name").and_then(Node::plain).filter(|name| !name.is_empty()) else {
                self.mapping.wrong(item.at, shown, "has an item without a `name`");
                continue;
            };
            let shown = format!("{shown}[{name}]");
            if !names.insert(name.clone()) {
                self.mapping.wrong(item.at, &shown, "is there twice");
            } else if self.counts(pattern, item, &shown) {
                // A namespace exists also if it sets nothing.
                if pattern == "channel.namespaces[]" {
                    self.mapping.sections.insert(section("namespaces.NAME", &name));
                }
                self.table(item, pattern, &shown, &name);
            }
        }
    }

    fn holds_rows(&self, prefix: &str) -> bool {
        self.rows.range(prefix.to_owned()..).next().is_some_and(|(first, _)| first.starts_with(prefix))
    }

    /// Whether the options of the group at `pattern` have an effect; says so where they would but cannot.
    fn counts(&mut self, pattern: &str, node: &Node, shown: &str) -> bool {
        let when = GROUPS.iter().find(|group| group.at == pattern).map_or(When::Always, |group| group.when);
        let is_enabled = node.get("enabled").is_some_and(Node::is_true);
        match when {
            When::Always => true,
            When::Enabled => is_enabled,
            When::EnabledEndpoint if !is_enabled => false,
            When::Endpoint | When::EnabledEndpoint => match endpoint(node) {
                Endpoint::None => {
                    if when == When::EnabledEndpoint {
                        self.mapping.wrong(node.at, shown, "is enabled and has no endpoint");
                    }
                    false
                }
                Endpoint::Http => true,
                Endpoint::Other => {
                    let instead = "serve the same events over HTTP, with the same field names, and give an http:// address";
                    let at = node.get("endpoint").map_or(node.at, |endpoint| endpoint.at);
                    let shown = format!("{shown}.endpoint");
                    self.mapping.missing(at, &shown, "asked a backend over gRPC", instead);
                    if let Some(group) = GROUPS.iter().find(|group| group.at == pattern) {
                        let what = format!("{}.endpoint", group.section);
                        self.mapping.lost(&section(group.section, ""), &what, at, &shown);
                    }
                    false
                }
            },
        }
    }

    fn row(&mut self, group: &Group, row: &Row, node: &Node, shown: &str, name: &str) {
        match &row.becomes {
            Becomes::Rule => {}
            Becomes::Setting(key, form) => {
                let value = match convert::convert(*form, node) {
                    Ok(Some(value)) => value,
                    Ok(None) => return,
                    Err(problem) => return self.mapping.wrong(node.at, shown, &problem),
                };
                if *form == Form::Headers && value.to_string().contains("${") {
                    let did = "put variables of the environment into headers";
                    let instead =
                        "write the headers out, or give the list in an environment variable of longwire";
                    return self.mapping.missing(node.at, shown, did, instead);
                }
                let (section, key) = match key.split_once('.') {
                    Some((section, key)) if group.section.is_empty() => (vec![section.to_owned()], key),
                    _ => (section(rules::section_of(group, self.root), name), *key),
                };
                self.mapping.set(&section, key, value, node.at, shown);
                if let Some(entry) = self.mapping.entries.last_mut() {
                    entry.is_secret = form.is_secret();
                }
            }
            Becomes::Unneeded(off, why) => {
                if !is_off(*off, node) {
                    let text = format!("`{shown}`: {why}");
                    self.mapping.remarks.push(Remark { at: node.at, is_missing: false, text });
                }
            }
            Becomes::Missing(off, did, instead) => {
                if !is_off(*off, node) {
                    self.mapping.missing(node.at, shown, did, instead);
                    let (section, what) = (section(group.section, name), join(group.at, row.option));
                    self.mapping.lost(&section, &what, node.at, shown);
                    // A table may hold one that closes more than the rest of it.
                    for what in NARROWS.iter().flat_map(|narrow| narrow.without) {
                        let inner = what.strip_prefix(&join(group.at, row.option));
                        let inner = inner.and_then(|rest| rest.strip_prefix('.'));
                        if let Some(node) =
                            inner.and_then(|path| node.get(path)).filter(|node| !node.is_empty())
                        {
                            let shown = join(shown, inner.unwrap_or_default());
                            self.mapping.lost(&section, what, node.at, &shown);
                        }
                    }
                }
            }
        }
    }

    fn unknown(&mut self, node: &Node, pattern: &str, shown: &str) {
        let nearest = self.rows.keys().map(|known| (edit_distance(pattern, known), known)).min();
        let hint = match nearest {
            // A third of the key: further away lies a different word.
            Some((distance, known)) if distance * 3 <= pattern.len() => {
                let option = known.rsplit('.').next().unwrap_or(known);
                if known.rsplit_once('.').map(|(at, _)| at) == pattern.rsplit_once('.').map(|(at, _)| at) {
                    format!("; did you mean `{option}`?")
                } else {
                    format!("; did you mean `{known}`?")
                }
            }
            _ if rules::is_of_older_version(pattern) => {
                "; it is one of Centrifugo v5 and older: convert the file to v6 with the converter of Centrifugo's migration guide first".to_owned()
            }
            _ => String::new(),
        };
        let text = format!("`{shown}` is no option of Centrifugo v6{hint}");
        self.mapping.remarks.push(Remark { at: node.at, is_missing: true, text });
    }
}

/// What kind of backend a table of options names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    None,
    Http,
    Other,
}

/// Which backend the options in `node` name.
pub(super) fn endpoint(node: &Node) -> Endpoint {
    match node.get("endpoint").and_then(Node::plain).unwrap_or_default() {
        text if text.is_empty() => Endpoint::None,
        text if text.starts_with("http://") || text.starts_with("https://") => Endpoint::Http,
        _ => Endpoint::Other,
    }
}

/// Whether an option has a value at which it does nothing.
fn is_off(off: Off, node: &Node) -> bool {
    let is_enabled = |node: &Node| node.get("enabled").is_some_and(Node::is_true);
    match off {
        Off::Empty => node.is_empty(),
        Off::NotEnabled => !is_enabled(node),
        Off::NoneEnabled => !node.items().iter().any(is_enabled),
        Off::At(value) => {
            let same = Node { at: 0, value: Value::Text(value.to_owned()) };
            node.is_empty()
                || node.plain().as_deref() == Some(value)
                || matches!((convert::span(node), convert::span(&same)), (Ok(a), Ok(b)) if a == b)
        }
    }
}
