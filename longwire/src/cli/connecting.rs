//! Flags with which every command that holds a connection says who it is and when it gives up.
//!
//! What must stay true: a secret can come from the environment, and is never shown; what is not said is as the client library has it.

use super::{Failure, printable};
use crate::config::parse_duration;
use crate::env::disk;
use longwire_client::{Address, Options, Reconnect, Tls};
use std::path::Path;
use std::time::Duration;

/// Who connects, and for how long it tries.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Connecting {
    /// A connection token; over STOMP the passcode.
    #[arg(long, env = "LONGWIRE_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// STOMP: the login; or in the URL, stomp://LOGIN:PASSCODE@HOST.
    #[arg(long)]
    pub(super) login: Option<String>,
    /// STOMP: the passcode of the login.
    #[arg(long, env = "LONGWIRE_PASSCODE", hide_env_values = true)]
    pub(super) passcode: Option<String>,
    /// A header of every HTTP request, the WebSocket handshake included; over STOMP of the CONNECT frame.
    #[arg(long = "connect-header", value_name = "NAME:VALUE", value_parser = header)]
    pub(super) headers: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) trusting: Trusting,
    /// How often in a row connecting may fail. Without it: any number of times; once where only one thing is to be done (`pub`,
    /// `queue send`), and by `queue receive` over http(s)://. `connect` takes it with --reconnect.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) attempts: Option<u32>,
    /// For how long connecting may fail, such as 5m. Without it, as `--attempts` says.
    #[arg(long, value_name = "SPAN", value_parser = duration)]
    pub(super) give_up_after: Option<Duration>,
}

/// Whom it trusts over TLS.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Trusting {
    /// Trust the certificates in this file (PEM), too: your own authority's, or the server's own.
    #[arg(long, value_name = "FILE", value_parser = trusted)]
    ca: Option<Tls>,
    /// Trust any certificate: no protection from whoever is on the way.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

impl Trusting {
    /// The same for a client.
    pub(super) fn tls(&self) -> Tls {
        match &self.ca {
            _ if self.insecure => Tls::Anybody,
            Some(tls) => tls.clone(),
            None => Tls::System,
        }
    }
}

/// Reads certificates.
fn trusted(path: &str) -> Result<Tls, String> {
    let pem = disk::read_to_string(Path::new(path)).map_err(|error| error.to_string())?;
    Tls::trusting(pem.as_bytes()).map_err(|error| error.to_string())
}

impl Connecting {
    /// For a client that keeps its connection.
    pub(super) fn options(&self) -> Options {
        let reconnect = Reconnect {
            max_attempts: self.attempts,
            max_elapsed: self.give_up_after,
            ..Reconnect::default()
        };
        Options { reconnect, tls: self.trusting.tls(), headers: self.headers.clone(), ..Options::default() }
    }

    /// For a client that does one thing and ends: who told it nothing else wants to hear of the first failure.
    pub(super) fn options_of_one_call(&self) -> Options {
        let mut options = self.options();
        options.reconnect.is_on = self.attempts.is_some() || self.give_up_after.is_some();
        options
    }

    /// STOMP's login and passcode, where flags say them rather than the URL. A token alone says nothing against a URL that names
    /// a user: it may be in the environment for another command.
    pub(super) fn credentials(&self, address: &Address) -> Option<(String, String)> {
        let token = self.token.as_ref().filter(|_| self.login.is_some() || address.user.is_empty());
        match (&self.login, self.passcode.as_ref().or(token)) {
            (None, None) => None,
            (login, passcode) => {
                let login = login.clone().unwrap_or_else(|| address.user.clone());
                Some((login, passcode.cloned().unwrap_or_default()))
            }
        }
    }
}

/// Reads a span of time.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        None => Err("must be a duration such as 60s".to_owned()),
        Some(Duration::ZERO) => Err("must be longer than zero".to_owned()),
        Some(duration) => Ok(duration),
    }
}

/// Reads a header; blanks behind the colon do not belong to it.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let wrong = || "must be NAME:VALUE".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    if name.is_empty() || text.contains(['\r', '\n', '\0']) {
        return Err(wrong());
    }
    Ok((name.trim().to_owned(), value.trim_start().to_owned()))
}

/// Refuses a channel that no dialect could name.
pub(super) fn check_channel(name: &str) -> Result<(), Failure> {
    match name.is_empty() || name.contains(['\r', '\n', '\0']) {
        true => Err(Failure::Usage(format!("no channel can be named `{}`", printable(name)))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert_eq!(header("X-Key: a:b"), Ok(("X-Key".to_owned(), "a:b".to_owned())));
        assert_eq!(header("priority:9"), Ok(("priority".to_owned(), "9".to_owned())));
        for bad in ["", "x", ":y", "a:b\nc"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_span_is_longer_than_zero() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert!(duration("0s").is_err() && duration("soon").is_err());
    }

    #[test]
    fn one_call_does_not_wait_unless_it_is_told_to() {
        let mut connecting = Connecting {
            token: Some("T".to_owned()),
            login: None,
            passcode: None,
            headers: Vec::new(),
            trusting: Trusting { ca: None, insecure: false },
            attempts: None,
            give_up_after: None,
        };
        assert!(!connecting.options_of_one_call().reconnect.is_on);
        assert_eq!(connecting.options().reconnect, Reconnect::default());
        let credentials = |connecting: &Connecting, url| {
            connecting
                .credentials(&Address::parse(url).expect("a URL"))
                .map(|it| format!("{}/{}", it.0, it.1))
        };
        assert_eq!(credentials(&connecting, "stomp://host").as_deref(), Some("/T"));
        assert_eq!(credentials(&connecting, "stomp://ada:secret@host"), None);
        connecting.passcode = Some("P".to_owned());
        assert_eq!(credentials(&connecting, "stomp://ada@host").as_deref(), Some("ada/P"));
        connecting.attempts = Some(3);
        assert!(connecting.options_of_one_call().reconnect.is_on);
        assert_eq!(connecting.options().reconnect.max_attempts, Some(3));
    }
}
