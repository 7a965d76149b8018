//! What a realtime client and a subscription are told before they begin.

use super::event::Position;
use super::token::TokenSource;
use crate::address::{Address, Scheme};
use crate::error::Error;
use crate::options::Options;
use crate::transport::Transport;
use bytes::Bytes;
use longwire_protocol::filter::{Filter, Node};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;

/// What a client needs to connect.
#[derive(Clone)]
pub struct Settings {
    /// Tried in turn; at least one.
    pub servers: Vec<Arc<Address>>,
    /// The ladder, best first; empty: as the first server's URL says.
    pub transports: Vec<Transport>,
    /// Connection token; empty for none.
    pub token: String,
    /// Where tokens come from.
    pub token_source: Option<TokenSource>,
    /// Raw JSON for the backend; empty for none.
    pub data: Bytes,
    /// Name of the program, which the server may log.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Headers for the backend, within the connect command.
    pub headers: Vec<(String, String)>,
    /// Everything that all clients have.
    pub options: Options,
}

impl Settings {
    /// Reads the URLs.
    ///
    /// # Errors
    /// If there is none, one is no URL, or none of the realtime client.
    pub fn new<S: AsRef<str>>(urls: &[S]) -> Result<Settings, Error> {
        if urls.is_empty() {
            return Err(Error::bad_argument("a client needs at least one server"));
        }
        let mut servers = Vec::with_capacity(urls.len());
        for url in urls {
            let address = Address::parse(url.as_ref())?;
            if of_scheme(address.scheme).is_empty() {
                let what =
                    format!("\"{address}\" is not for a realtime client: its scheme is none of {SCHEMES}");
                return Err(Error::bad_argument(what));
            }
            servers.push(Arc::new(address));
        }
        Ok(Settings {
            servers,
            transports: Vec::new(),
            token: String::new(),
            token_source: None,
            data: Bytes::new(),
            name: String::new(),
            version: String::new(),
            headers: Vec::new(),
            options: Options::default(),
        })
    }

    /// The ladder that is gone down at each server.
    pub fn ladder(&self) -> Vec<Transport> {
        if self.transports.is_empty() {
            self.servers.first().map_or(&[][..], |first| of_scheme(first.scheme)).to_vec()
        } else {
            self.transports.clone()
        }
    }

    /// Judges what does not depend on a server.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), Error> {
        check_json("data", &self.data)?;
        if self.transports.contains(&Transport::Tcp) {
            return Err(Error::NotAvailable { transport: Transport::Tcp.name() });
        }
        if self.headers.iter().any(|(name, _)| name.is_empty()) {
            return Err(Error::bad_argument("a header has no name"));
        }
        Ok(())
    }
}

const SCHEMES: &str = "ws, wss, stream+http(s), sse+http(s), poll+http(s)";

/// The transports that a URL allows: WebSockets are often cut on the way, so others follow; who names another gets that
/// one alone.
fn of_scheme(scheme: Scheme) -> &'static [Transport] {
    match scheme {
        Scheme::WebSocket => &[Transport::WebSocket, Transport::Stream, Transport::EventStream],
        Scheme::Stream => &[Transport::Stream],
        Scheme::EventStream => &[Transport::EventStream],
        Scheme::Poll => &[Transport::Poll],
        Scheme::Stomp | Scheme::StompWebSocket | Scheme::Tcp => &[],
    }
}

/// What a subscription is told before it begins.
#[derive(Clone, Default)]
pub struct SubscriptionSettings {
    /// Subscription token; empty for none.
    pub token: String,
    /// Where tokens come from.
    pub token_source: Option<TokenSource>,
    /// Raw JSON for the backend; empty for none.
    pub data: Bytes,
    /// Where an earlier reader stopped.
    pub since: Option<Position>,
    /// Ask for joins and leaves.
    pub join_leave: bool,
    /// Offer differences.
    pub delta: bool,
    /// Which publications are wanted, by their tags.
    pub tags_filter: Option<Box<Node>>,
}

impl SubscriptionSettings {
    /// Judges what does not depend on a server.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), Error> {
        check_json("data", &self.data)?;
        if let Some(node) = &self.tags_filter {
            Filter::new(node).map_err(|error| Error::bad_argument(error.to_string()))?;
            if self.delta {
                return Err(Error::bad_argument("differences and a filter exclude each other"));
            }
        }
        Ok(())
    }
}

/// Without what may be secret: token, data, headers.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { servers, transports, name, version, .. } = self;
        f.debug_struct("Settings")
            .field("servers", servers)
            .field("transports", transports)
            .field("name", name)
            .field("version", version)
            .finish_non_exhaustive()
    }
}

/// Without what may be secret: token and data.
impl fmt::Debug for SubscriptionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SubscriptionSettings { since, join_leave, delta, tags_filter, .. } = self;
        f.debug_struct("SubscriptionSettings")
            .field("since", since)
            .field("join_leave", join_leave)
            .field("delta", delta)
            .field("tags_filter", tags_filter)
            .finish_non_exhaustive()
    }
}

/// A payload is raw JSON, or empty: anything else would break the line it stands in.
pub(super) fn check_json(what: &str, data: &[u8]) -> Result<(), Error> {
    if data.is_empty() || serde_json::from_slice::<&RawValue>(data).is_ok() {
        Ok(())
    } else {
        Err(Error::bad_argument(format!("{what} is not JSON")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_that_of_the_first_url_or_the_programs_own() {
        let mut settings = Settings::new(&["ws://a", "ws://b"]).unwrap();
        assert_eq!(settings.ladder(), [Transport::WebSocket, Transport::Stream, Transport::EventStream]);
        settings.transports = vec![Transport::EventStream];
        assert_eq!(settings.ladder(), [Transport::EventStream]);
        assert_eq!(Settings::new(&["stream+http://a"]).unwrap().ladder(), [Transport::Stream]);
    }

    #[test]
    fn what_a_realtime_client_cannot_speak_is_refused_with_a_reason() {
        for (url, says) in [("stomp://a", "not for a realtime client"), ("nonsense", "is not a URL")] {
            let error = Settings::new(&[url]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Settings::new::<&str>(&[]).is_err());
        let mut settings = Settings::new(&["ws://a"]).unwrap();
        settings.transports = vec![Transport::WebSocket, Transport::Tcp];
        assert_eq!(settings.check(), Err(Error::NotAvailable { transport: "tcp" }));
    }

    #[test]
    fn what_is_shown_of_settings_holds_no_secret() {
        let mut options = Options::default();
        options.headers.push(("Authorization".to_owned(), "secret-1".to_owned()));
        let settings = Settings {
            token: "secret-2".to_owned(),
            data: "{\"a\":\"secret-3\"}".into(),
            headers: vec![("x".to_owned(), "secret-4".to_owned())],
            options: options.clone(),
            ..Settings::new(&["ws://ada:secret-5@a?token=secret-6"]).unwrap()
        };
        let subscription = SubscriptionSettings {
            token: "secret-7".to_owned(),
            data: "\"secret-8\"".into(),
            ..SubscriptionSettings::default()
        };
        let builder = crate::realtime::Client::builder("ws://ada:secret-9@a")
            .token("secret-10")
            .header("x", "secret-11")
            .options(options.clone());
        let shown = format!("{settings:?} {subscription:?} {builder:?} {options:?}");
        assert!(shown.contains("ws://a:80") && shown.contains("Authorization"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_payload_is_json_or_nothing() {
        assert_eq!(check_json("data", b""), Ok(()));
        assert_eq!(check_json("data", b"{\"a\":[1]}"), Ok(()));
        for wrong in [&b"{"[..], b"1 2", b"hello", b"{\"a\":1}}", b"\xff"] {
            assert_eq!(check_json("data", wrong), Err(Error::bad_argument("data is not JSON")));
        }
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused_before_it_is_sent() {
        let filter = |cmp: &str| {
            Some(Box::new(Node { key: "a".into(), cmp: cmp.into(), val: "1".into(), ..Node::default() }))
        };
        let mut settings =
            SubscriptionSettings { tags_filter: filter("eq"), ..SubscriptionSettings::default() };
        assert_eq!(settings.check(), Ok(()));
        settings.delta = true;
        assert!(settings.check().is_err());
        settings = SubscriptionSettings { tags_filter: filter("almost"), ..SubscriptionSettings::default() };
        assert!(matches!(settings.check(), Err(Error::BadArgument { .. })));
    }
}
