//! A Centrifugo configuration as it lies in its file: a tree of values, each with its place.
//!
//! It reads JSON and TOML, and knows nothing of what an option means: `mapping` walks the tree. Keys are put
//! into lower case, as Centrifugo does, which does not tell `Client` from `client`. What must stay true: every
//! value knows where it stands, so that whatever is said about it can name line and column.

use crate::cli::Failure;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The file.
pub(super) struct Input {
    path: PathBuf,
    text: String,
}

/// A value and its place.
pub(super) struct Node {
    /// Bytes before it in the file.
    pub(super) at: usize,
    pub(super) value: Value,
}

/// A value.
pub(super) enum Value {
    Null,
    Flag(bool),
    /// A number, as it is written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Input {
    pub(super) fn new(path: &Path, text: String) -> Input {
        Input { path: path.to_owned(), text }
    }

    /// The file's name without its folder.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// `config.json line 3 column 7`.
    pub(super) fn place(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
        let column = 1 + before.chars().rev().take_while(|c| *c != '\n').count();
        format!("{} line {line} column {column}", self.path.display())
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    /// The tree.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for a format that is not read, [`Failure::Failed`] for text that is not of its format.
    pub(super) fn parse(&self) -> Result<Node, Failure> {
        let extension = self.path.extension().map(|text| text.to_string_lossy().to_ascii_lowercase());
        let node = match extension.as_deref() {
            Some("yaml" | "yml") => {
                return Err(Failure::Usage(format!(
                    "{}: YAML is not read: convert it to JSON first, for example with `yq -o=json . {}`",
                    self.path.display(),
                    self.name()
                )));
            }
            Some("toml") => self.parse_toml()?,
            _ => self.parse_json()?,
        };
        match node.value {
            Value::Table(_) => Ok(node),
            _ => Err(Failure::Failed(format!(
                "{}: a configuration is an object with sections",
                self.place(node.at)
            ))),
        }
    }

    fn parse_json(&self) -> Result<Node, Failure> {
        let wrong = |error: serde_json::Error| {
            let text = error.to_string();
            // The place stands in front, where it stands in every other message.
            let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
            Failure::Failed(format!(
                "{} line {} column {}: this is not JSON: {what}",
                self.path.display(),
                error.line(),
                error.column()
            ))
        };
        // The whole first: its errors have the right places, and it bounds how deep the tree may be.
        serde_json::from_str::<serde_json::Value>(&self.text).map_err(wrong)?;
        let raw: &RawValue = serde_json::from_str(&self.text).map_err(wrong)?;
        json_node(raw, &self.text).map_err(wrong)
    }

    fn parse_toml(&self) -> Result<Node, Failure> {
        let wrong = |error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            Failure::Failed(format!("{}: this is not TOML: {}", self.place(start), error.message()))
        };
        let values: toml::Table = toml::from_str(&self.text).map_err(wrong)?;
        let spans = DeTable::parse(&self.text).map_err(wrong)?;
        Ok(Node { at: 0, value: toml_table(&values, spans.get_ref()) })
    }
}

fn json_node(raw: &RawValue, whole: &str) -> Result<Node, serde_json::Error> {
    let text = raw.get();
    // A raw value borrows from the text it was parsed from.
    let at = (text.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    let value = match text.as_bytes().first() {
        Some(b'{') => {
            let entries: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let mut table = BTreeMap::new();
            for (key, raw) in entries {
                table.insert(key.to_lowercase(), json_node(raw, whole)?);
            }
            Value::Table(table)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            Value::List(items.into_iter().map(|raw| json_node(raw, whole)).collect::<Result<_, _>>()?)
        }
        Some(b'"') => Value::Text(serde_json::from_str(text)?),
        Some(b't') => Value::Flag(true),
        Some(b'f') => Value::Flag(false),
        Some(b'n') => Value::Null,
        _ => Value::Number(text.to_owned()),
    };
    Ok(Node { at, value })
}

fn toml_table(values: &toml::Table, spans: &DeTable<'_>) -> Value {
    let mut table = BTreeMap::new();
    for (key, spans) in spans {
        if let Some(value) = values.get(key.get_ref().as_ref()) {
            let node =
                Node { at: key.span().start, value: toml_value(value, spans.get_ref(), key.span().start) };
            table.insert(key.get_ref().to_lowercase(), node);
        }
    }
    Value::Table(table)
}

fn toml_value(value: &toml::Value, spans: &DeValue<'_>, at: usize) -> Value {
    match (value, spans) {
        (toml::Value::Table(values), DeValue::Table(spans)) => toml_table(values, spans),
        (toml::Value::Array(values), DeValue::Array(spans)) => {
            let items = values.iter().zip(spans.iter());
            Value::List(
                items
                    .map(|(value, spans)| {
                        let at = spans.span().start;
                        Node { at, value: toml_value(value, spans.get_ref(), at) }
                    })
                    .collect(),
            )
        }
        (toml::Value::Boolean(flag), _) => Value::Flag(*flag),
        (toml::Value::Integer(number), _) => Value::Number(number.to_string()),
        (toml::Value::Float(number), _) => Value::Number(number.to_string()),
        (toml::Value::String(text), _) => Value::Text(text.clone()),
        // No option is a date; as text it will be refused where it stands.
        (other, _) => {
            let _ = at;
            Value::Text(other.to_string())
        }
    }
}

impl Node {
    /// What lies below, by a path such as `client.proxy.connect`; a null counts as absent.
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        let mut node = self;
        for key in path.split('.') {
            let Value::Table(table) = &node.value else { return None };
            node = table.get(key)?;
        }
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// The items of a list; empty for everything else.
    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar, as it would stand in a variable of the environment.
    pub(super) fn plain(&self) -> Option<String> {
        match &self.value {
            Value::Flag(flag) => Some(flag.to_string()),
            Value::Number(text) | Value::Text(text) => Some(text.clone()),
            Value::Null => Some(String::new()),
            Value::List(_) | Value::Table(_) => None,
        }
    }

    /// Whether it is `true`, in any of the forms that Centrifugo takes.
    pub(super) fn is_true(&self) -> bool {
        self.plain().is_some_and(|text| matches!(text.as_str(), "true" | "1" | "TRUE" | "True" | "t" | "T"))
    }

    /// Whether it is a value that stands for "not set".
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Flag(flag) => !flag,
            Value::Number(text) => text.parse() == Ok(0.0),
            Value::Text(text) => matches!(text.as_str(), "" | "0" | "false") || text == "0s",
            Value::List(items) => items.is_empty(),
            Value::Table(table) => table.values().all(Node::is_empty),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Node, String> {
        Input::new(Path::new(name), text.to_owned()).parse().map_err(|failure| failure.text().to_owned())
    }

    #[test]
    fn every_value_knows_its_place_in_json_and_toml() {
        let json = "{\n  \"Client\": {\"channel_limit\": 7,\n    \"token\": {\"x\": [\"\\u00e9\", true]}}}";
        let input = Input::new(Path::new("c.json"), json.to_owned());
        let root = input.parse().expect("JSON");
        let limit = root.get("client.channel_limit").expect("it is there");
        assert_eq!(input.place(limit.at), "c.json line 2 column 31");
        let list = root.get("client.token.x").expect("it is there");
        assert_eq!(input.line(list.items()[1].at), 3);
        assert_eq!(list.items()[0].plain().as_deref(), Some("\u{e9}"));

        let toml = "pid_file = \"\"\n[client]\nchannel_limit = 7\n";
        let input = Input::new(Path::new("c.toml"), toml.to_owned());
        let root = input.parse().expect("TOML");
        let limit = root.get("client.channel_limit").expect("it is there");
        assert_eq!(input.place(limit.at), "c.toml line 3 column 1");
        assert_eq!(limit.plain().as_deref(), Some("7"));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_line_and_column() {
        for (name, text, expected) in [
            ("c.json", "{\n \"a\": tru }", "c.json line 2 column 10: this is not JSON: expected ident"),
            ("c.json", "[1]", "c.json line 1 column 1: a configuration is an object"),
            ("c.toml", "a = 1\nb = = 2\n", "c.toml line 2 column 5: this is not TOML"),
            ("c.yml", "a: 1", "c.yml: YAML is not read: convert it to JSON first"),
        ] {
            let problem = read(name, text).err().expect("it is refused");
            assert!(problem.starts_with(expected), "{problem}");
        }
        let deep = "[".repeat(100_000);
        assert!(read("c.json", &deep).is_err());
    }
}
