//! What went over a connection, a line each: time, direction, text.
//!
//! `>` is what was sent, `<` what came, `*` what happened. Times are UTC. What must stay true: one thing is one line, and no line has a
//! control character of a stranger in it; as JSON, what is no text is there in base64, so that nothing is lost.

use super::super::screen::Screen;
use super::super::{Failure, outcome, printable};
use crate::env::Clock;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longwire_client::Transition;
use longwire_client::raw::Kind;
use serde_json::{Map, Value};

/// Which way something went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Sent,
    Received,
}

/// The lines.
pub(super) struct Log {
    screen: Screen,
    clock: Clock,
    is_json: bool,
}

impl Log {
    /// A log on standard output.
    pub(super) fn new(clock: Clock, is_json: bool) -> Log {
        Log { screen: Screen::new(), clock, is_json }
    }

    /// Has all of it seen.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.screen.flush()
    }

    /// Text that was sent.
    pub(super) fn sent(&mut self, text: &str) -> Result<(), Failure> {
        self.entry(Direction::Sent, None, text.as_bytes())
    }

    /// Text that came.
    pub(super) fn received(&mut self, text: &str) -> Result<(), Failure> {
        self.entry(Direction::Received, None, text.as_bytes())
    }

    /// Data that went this way.
    pub(super) fn data(&mut self, direction: Direction, data: &[u8]) -> Result<(), Failure> {
        self.entry(direction, None, data)
    }

    /// Data that came, with the name of its event, if it had one.
    pub(super) fn named(&mut self, name: Option<&str>, kind: Kind, data: &[u8]) -> Result<(), Failure> {
        let name = name.or(match kind {
            Kind::Text => None,
            Kind::Binary => Some("binary"),
        });
        self.entry(Direction::Received, name, data)
    }

    /// What happened to the connection.
    pub(super) fn transition(&mut self, transition: &Transition) -> Result<(), Failure> {
        if !self.is_json {
            return self.note(&transition.to_string());
        }
        let mut line = outcome::as_json(transition);
        line["at_ms"] = self.clock.unix_millis().into();
        self.screen.line(&printable(&line.to_string()))
    }

    /// A remark of this program.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Failure> {
        match self.is_json {
            true => self.screen.remark(&printable(text)),
            false => {
                for line in text.lines() {
                    let time = time(self.clock.unix_millis());
                    self.screen.line(&format!("{time} * {}", printable(line)))?;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, direction: Direction, name: Option<&str>, data: &[u8]) -> Result<(), Failure> {
        let now = self.clock.unix_millis();
        let line = match self.is_json {
            true => as_json(now, direction, name, data).to_string(),
            false => as_text(now, direction, name, data),
        };
        self.screen.line(&printable(&line))
    }
}

fn as_text(unix_ms: i64, direction: Direction, name: Option<&str>, data: &[u8]) -> String {
    let sign = match direction {
        Direction::Sent => '>',
        Direction::Received => '<',
    };
    let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
    let text = match std::str::from_utf8(data) {
        Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
        Err(_) => format!("{} bytes, base64 {}", data.len(), STANDARD.encode(data)),
    };
    format!("{} {sign} {name}{text}", time(unix_ms))
}

fn as_json(unix_ms: i64, direction: Direction, name: Option<&str>, data: &[u8]) -> Value {
    let mut line = Map::new();
    line.insert("at_ms".to_owned(), unix_ms.into());
    let direction = match direction {
        Direction::Sent => "sent",
        Direction::Received => "received",
    };
    line.insert("direction".to_owned(), direction.into());
    line.extend(name.map(|name| ("name".to_owned(), name.into())));
    match std::str::from_utf8(data) {
        Ok(text) => line.insert("text".to_owned(), text.into()),
        Err(_) => line.insert("b64data".to_owned(), STANDARD.encode(data).into()),
    };
    line.into()
}

/// The time of day.
fn time(unix_ms: i64) -> String {
    let ms = unix_ms.rem_euclid(24 * 60 * 60 * 1000);
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// 2026-11-21 22:03:04.005.
    const AT: i64 = 1_795_298_584_005;

    #[test]
    fn a_line_says_when_and_which_way() {
        assert_eq!(as_text(AT, Direction::Sent, None, b"{\"id\":1}\n"), "22:03:04.005 > {\"id\":1}");
        assert_eq!(
            as_text(AT, Direction::Received, Some("recovered"), b"{}"),
            "22:03:04.005 < recovered: {}"
        );
        assert_eq!(as_text(AT, Direction::Received, None, &[0xff]), "22:03:04.005 < 1 bytes, base64 /w==");
    }

    #[test]
    fn a_script_gets_all_of_it() {
        let text = as_json(AT, Direction::Received, None, b"a\nb");
        assert_eq!(text, json!({"at_ms": AT, "direction": "received", "text": "a\nb"}));
        assert_eq!(as_json(AT, Direction::Sent, Some("binary"), &[0xff])["b64data"], "/w==");
    }
}
