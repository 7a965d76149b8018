//! CONNECT and what answers it: version, heartbeat, who somebody is.
//!
//! The values of CONNECT and CONNECTED are never escaped, in no version. What must stay true: no interval that is agreed
//! upon is shorter than the server allows, and none that a client names is calculated with before it is bounded.

use super::decode::Frame;
use super::encode::write_decimal;
use super::{Limits, Names, Version};
use crate::command::Connect;
use crate::heartbeat::{Intervals, OFF};
use crate::message::ClientId;
use std::time::Duration;

/// How much longer than twice the interval a peer may be silent.
const MARGIN: Duration = Duration::from_millis(500);

/// What a CONNECT asks for.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Asked {
    pub(crate) version: Version,
    pub(crate) connect: Connect,
    /// By what name its durable subscriptions are told from those of the same user's other clients.
    pub(crate) client_id: Option<Box<str>>,
    pub(crate) terms: Terms,
}

/// What both ends say of heartbeats, in milliseconds; 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Terms {
    client_sends: u64,
    client_wants: u64,
    /// The server's half of the `heart-beat` header.
    server_sends: u64,
    server_wants: u64,
}

/// Why a CONNECT is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// No version of the client's is known.
    Version,
    /// Its `heart-beat` is not two numbers.
    HeartBeat,
}

impl Asked {
    /// Reads a CONNECT or STOMP frame.
    pub(crate) fn read(frame: &Frame<'_>, limits: &Limits) -> Result<Asked, Refused> {
        // In 1.0 there is a blank before values, by its examples.
        let is_old = frame.headers(Version::V12).all(|(name, _)| name != "accept-version");
        let spoken = if is_old { Version::V10 } else { Version::V12 };
        let value =
            |name: &str| frame.headers(spoken).find(|(known, _)| *known == name).map(|(_, value)| value);
        let version = Version::negotiate(value("accept-version")).ok_or(Refused::Version)?;
        let heart_beat = value("heart-beat").filter(|_| version > Version::V10);
        let terms = match heart_beat {
            None => Terms::default(),
            Some(text) => Terms::agree(text, limits).ok_or(Refused::HeartBeat)?,
        };
        let owned = |name: &str| value(name).unwrap_or_default().to_owned();
        let mut connect = Connect {
            name: "stomp".to_owned(),
            version: version.as_str().to_owned(),
            login: owned("login"),
            passcode: owned("passcode"),
            host: owned("host"),
            ..Connect::default()
        };
        for (name, value) in frame.headers(spoken) {
            let is_known = matches!(
                name,
                "accept-version" | "heart-beat" | "login" | "passcode" | "host" | "content-length"
            );
            if !is_known && connect.headers.iter().all(|(known, _)| known != name) {
                connect.headers.push((name.to_owned(), value.to_owned()));
            }
        }
        let client_id = value("client-id").filter(|id| !id.is_empty()).map(Box::from);
        Ok(Asked { version, connect, client_id, terms })
    }
}

impl Terms {
    /// Answers a `heart-beat` header; `None` if it is not two numbers.
    fn agree(text: &str, limits: &Limits) -> Option<Terms> {
        let (sends, wants) = text.split_once(',')?;
        let (client_sends, client_wants) = (milliseconds(sends)?, milliseconds(wants)?);
        let bound = |asked: u64| match asked {
            0 => 0,
            asked => asked
                .max(limits.shortest_heartbeat.as_millis() as u64)
                .min(limits.longest_heartbeat.as_millis() as u64),
        };
        let (server_sends, server_wants) = (bound(client_wants), bound(client_sends));
        Some(Terms { client_sends, client_wants, server_sends, server_wants })
    }

    /// The heartbeat that follows: both ends keep to the longer of what one can and the other wants.
    pub(crate) fn intervals(&self) -> Intervals {
        let between = |sends: u64, wants: u64| match (sends, wants) {
            (0, _) | (_, 0) => None,
            (sends, wants) => Some(Duration::from_millis(sends.max(wants)).min(OFF)),
        };
        let to_client = between(self.server_sends, self.client_wants);
        let from_client = between(self.client_sends, self.server_wants);
        Intervals {
            // What is promised at the latest is sent earlier: timers come late, and networks take their time.
            interval: to_client.map_or(OFF, |interval| interval.mul_f64(0.75)),
            timeout: OFF,
            max_silence: from_client.map_or(OFF, |interval| (2 * interval + MARGIN).min(OFF)),
        }
    }
}

/// Reads a number of milliseconds, however long; blanks around it mean nothing.
fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.trim_matches([' ', '\t']).as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let longest = OFF.as_millis() as u64;
    Some(digits.iter().fold(0, |number: u64, digit| (number * 10 + u64::from(digit - b'0')).min(longest)))
}

/// Writes CONNECTED.
pub(crate) fn write_connected(
    version: Version,
    terms: &Terms,
    client: ClientId,
    names: &Names,
    out: &mut Vec<u8>,
) {
    // Also to a client of 1.0, to which headers that it does not know mean nothing.
    out.extend_from_slice(b"CONNECTED\nversion:");
    out.extend_from_slice(version.as_str().as_bytes());
    out.extend_from_slice(b"\nheart-beat:");
    write_decimal(terms.server_sends, out);
    out.push(b',');
    write_decimal(terms.server_wants, out);
    out.extend_from_slice(b"\nsession:");
    out.extend_from_slice(client.to_string().as_bytes());
    if !names.server.is_empty() {
        out.extend_from_slice(b"\nserver:");
        out.extend_from_slice(names.server.as_bytes());
    }
    out.extend_from_slice(b"\n\n\0");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(text: &str) -> Option<(u64, u64, Duration, Duration)> {
        let terms = Terms::agree(text, &Limits::default())?;
        let intervals = terms.intervals();
        Some((terms.server_sends, terms.server_wants, intervals.interval, intervals.max_silence))
    }

    #[test]
    fn both_ends_keep_to_the_longer_interval_within_bounds() {
        let (secs, millis) = (Duration::from_secs, Duration::from_millis);
        for (text, agreed) in [
            ("0,0", (0, 0, OFF, OFF)),
            ("10000,10000", (10_000, 10_000, millis(7500), millis(20_500))),
            ("0,4000", (4000, 0, secs(3), OFF)),
            (" 4000 , 0", (0, 4000, OFF, millis(8500))),
            // Whoever wants a beat every millisecond is told that there is one every second, and it is 0.75 s.
            ("1,1", (1000, 1000, millis(750), millis(2500))),
            // Whoever beats less often than the server would like is given its time.
            ("600000,600000", (300_000, 300_000, secs(450), millis(1_200_500))),
            ("99999999999999999999999999,1000", (1000, 300_000, millis(750), OFF)),
        ] {
            assert_eq!(agree(text), Some(agreed), "{text}");
        }
        for bad in ["", "1", "1,", ",1", "a,b", "-1,0", "1.5,0", "0x1,0", "1,2,3", "+1,1", "1 0,0"] {
            assert_eq!(agree(bad), None, "{bad:?}");
        }
    }
}
