//! The configuration as text: `docs/config.md`, and the effective settings that `longwire check` prints.
//!
//! Both come from the same table as the parser. What must stay true: what [`Sources`] prints is TOML that
//! means the same configuration, except that no secret is in it.

use super::raw::Sources;
use super::section::Section;
use super::{Config, ListenerSection, RpcNamespace, User, Visitor};
use std::fmt::{self, Write as _};
use toml::Value;

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer = Printer { sources: self, text: String::new() };
        // A visitor may change what it visits; this one does not, but it needs something to borrow.
        self.config.clone().visit(&mut printer);
        f.write_str(printer.text.trim_end())?;
        f.write_str("\n")
    }
}

struct Printer<'a> {
    sources: &'a Sources,
    text: String,
}

impl Visitor for Printer<'_> {
    fn section<S: Section>(&mut self, name: &str, section: &mut S) {
        // A name with a dot in it would otherwise be two tables.
        let header = match super::raw::named_section(name) {
            Some((list, named)) => format!("{list}.{}", quoted(named)),
            None => name.to_owned(),
        };
        let _ = writeln!(self.text, "[{header}]");
        for field in S::fields() {
            let origin = self.sources.origin(&format!("{name}.{}", field.key));
            let _ = match (field.show)(section) {
                Some(value) => {
                    writeln!(self.text, "{} = {} # from {origin}", field.key, on_one_line(&value))
                }
                None => writeln!(self.text, "# {} is not set", field.key),
            };
        }
        self.text.push('\n');
    }
}

/// A value as TOML, line ends and the like in it escaped.
fn on_one_line(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(on_one_line).collect();
            format!("[{}]", values.join(", "))
        }
        Value::String(text) if text.contains(char::is_control) => quoted(text),
        _ => value.to_string(),
    }
}

/// Text as TOML between quotation marks on one line, also where a key stands.
fn quoted(text: &str) -> String {
    let mut line = "\"".to_owned();
    for letter in text.chars() {
        let _ = match letter {
            '\n' => write!(line, "\\n"),
            '\r' => write!(line, "\\r"),
            '\t' => write!(line, "\\t"),
            '"' | '\\' => write!(line, "\\{letter}"),
            _ if letter.is_control() => write!(line, "\\u{:04X}", u32::from(letter)),
            _ => write!(line, "{letter}"),
        };
    }
    line + "\""
}

/// The settings as Markdown: the contents of `docs/config.md`.
pub fn markdown() -> String {
    let mut page = Page(
        "# Configuration\n\n\
         Generated from the declarations in `longwire/src/config/`; a test keeps it true.\n\n\
         longwire needs no configuration file. A setting has the same key everywhere; the first of these places\n\
         that has it wins:\n\n\
         1. a flag: `longwire serve --websocket.max-message-bytes 128KiB`\n\
         2. an environment variable: `LONGWIRE_WEBSOCKET__MAX_MESSAGE_BYTES=128KiB`\n\
         3. the file given with `--config`: `max_message_bytes = \"128KiB\"` under `[websocket]`\n\
         4. the default\n\n\
         A flag without a value means `true`. In flags and variables a list is separated by commas. Variables of\n\
         namespaces are named `LONGWIRE_NAMESPACES__CHAT__PRESENCE`, flags `--namespaces.chat.presence`; the name\n\
         in a variable is put into lower case. Only variables with two underscores in a row are settings.\n\n\
         `longwire check` tells what is wrong with a configuration, and prints the effective one with the source of\n\
         each value.\n\n\
         A duration is a number with a unit, `ms`, `s`, `m`, `h` or `d`, or several of them: `\"25s\"`, `\"1m30s\"`. A\n\
         size is a number of bytes, or text with a unit: `65536`, `\"64KiB\"`, `\"1MiB\"`, `\"1GiB\"`.\n"
            .to_owned(),
    );
    let mut config = Config::default();
    config.server.shards = 0;
    config.listener_sections.insert("NAME".to_owned(), ListenerSection::default());
    config.rpc_namespaces.insert("NAME".to_owned(), RpcNamespace::default());
    config.users.insert("NAME".to_owned(), User::default());
    config.visit(&mut page);
    page.0
}

struct Page(String);

impl Visitor for Page {
    fn section<S: Section>(&mut self, name: &str, section: &mut S) {
        let title = match name {
            "channel" => "[channel] and [namespaces.NAME]",
            "queue" => "[queue] and [queues.\"PATTERN\"]",
            "webhook.connect" => {
                "[webhook.connect], [webhook.refresh], [webhook.subscribe], [webhook.publish], \
                 [webhook.sub_refresh], [webhook.rpc], [webhook.open], [webhook.message], [webhook.close] and \
                 [webhooks.NAME]"
            }
            // Documented with the first.
            _ if name.starts_with("webhook.") => return,
            _ => &format!("[{name}]"),
        };
        let _ = write!(
            self.0,
            "\n## {title}\n\n{}\n\n| key | kind | default | meaning |\n|---|---|---|---|\n",
            S::DOC.trim()
        );
        for field in S::fields() {
            let default = (field.show)(section)
                .map_or_else(|| "not set".to_owned(), |value| format!("`{}`", on_one_line(&value)));
            let _ =
                writeln!(self.0, "| `{}` | {} | {default} | {} |", field.key, field.kind, field.doc.trim());
        }
    }
}
