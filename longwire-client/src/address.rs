//! Where a server is and what is spoken there: one URL.
//!
//! The scheme says dialect, transport and encryption at once; the table is in [`Scheme`]. What must stay true: a URL
//! that is refused says which part is wrong, and what is shown of an address never holds its password.

use std::fmt;
use url::{Host, Url};

/// What is spoken at an address, and over what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Scheme {
    /// `ws`, `wss`: the centrifuge dialect over WebSocket.
    WebSocket,
    /// `stream+http`, `stream+https`: over HTTP streaming (the realtime client's second transport).
    Stream,
    /// `sse+http`, `sse+https`: over server-sent events.
    EventStream,
    /// `poll+http`, `poll+https`: the plain dialect over long-poll.
    Poll,
    /// `stomp`, `stomps`: STOMP over TCP.
    Stomp,
    /// `stomp+ws`, `stomp+wss`: STOMP over WebSocket.
    StompWebSocket,
    /// `tcp`, `tls`: packets.
    Tcp,
}

/// One server, as a URL names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// What is spoken.
    pub scheme: Scheme,
    /// Whether TLS covers it.
    pub is_encrypted: bool,
    /// Name or literal address, without the brackets of IPv6.
    pub host: String,
    /// Port; that of the scheme, if the URL names none.
    pub port: u16,
    /// Path and query, beginning with `/`. `/` if the URL has no path: each dialect then takes its own.
    pub target: String,
    /// User of the URL, decoded; empty if it names none.
    pub user: String,
    /// Password of the URL, decoded; empty if it names none.
    pub password: String,
}

/// What is wrong with a URL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// It is no URL.
    #[error("\"{text}\" is not a URL: {what}")]
    Malformed {
        /// What was given.
        text: String,
        /// The parser's words.
        what: String,
    },
    /// Nothing is spoken by this name.
    #[error("unknown scheme \"{0}\": there are {SCHEMES}")]
    UnknownScheme(String),
    /// It names no host.
    #[error("\"{0}\" names no host")]
    NoHost(String),
    /// TCP has no port of its own.
    #[error("\"{0}\" names no port")]
    NoPort(String),
}

/// Every scheme, for texts.
pub const SCHEMES: &str =
    "ws, wss, stream+http(s), sse+http(s), poll+http(s), stomp, stomps, stomp+ws, stomp+wss, tcp, tls";

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// Which part of it is wrong.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        let url = Url::parse(text)
            .map_err(|error| AddressError::Malformed { text: text.to_owned(), what: error.to_string() })?;
        let (scheme, is_encrypted, port) = match url.scheme() {
            "ws" => (Scheme::WebSocket, false, Some(80)),
            "wss" => (Scheme::WebSocket, true, Some(443)),
            "stream+http" => (Scheme::Stream, false, Some(80)),
            "stream+https" => (Scheme::Stream, true, Some(443)),
            "sse+http" => (Scheme::EventStream, false, Some(80)),
            "sse+https" => (Scheme::EventStream, true, Some(443)),
            "poll+http" => (Scheme::Poll, false, Some(80)),
            "poll+https" => (Scheme::Poll, true, Some(443)),
            "stomp" => (Scheme::Stomp, false, Some(61613)),
            "stomps" => (Scheme::Stomp, true, Some(61614)),
            "stomp+ws" => (Scheme::StompWebSocket, false, Some(80)),
            "stomp+wss" => (Scheme::StompWebSocket, true, Some(443)),
            "tcp" => (Scheme::Tcp, false, None),
            "tls" => (Scheme::Tcp, true, None),
            other => return Err(AddressError::UnknownScheme(other.to_owned())),
        };
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => String::new(),
        };
        if host.is_empty() {
            return Err(AddressError::NoHost(text.to_owned()));
        }
        // `port_or_known_default` knows `ws` and `wss` alone.
        let port = url.port().or(port).ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        let mut target = if url.path().is_empty() { "/".to_owned() } else { url.path().to_owned() };
        if let Some(query) = url.query() {
            target.push('?');
            target.push_str(query);
        }
        let decoded = |text: &str| longwire_protocol::http::percent_decode(text).into_owned();
        let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or("")));
        Ok(Address { scheme, is_encrypted, host, port, target, user, password })
    }

    /// `host:port`, as a `Host` header and a log line have it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The virtual host that a URL of STOMP names: its path, over TCP; `/` if there is none. A WebSocket's path is where it is.
    pub fn virtual_host(&self) -> String {
        let path = self.target.split('?').next().unwrap_or("/").trim_start_matches('/');
        if self.scheme != Scheme::Stomp || path.is_empty() {
            return "/".to_owned();
        }
        longwire_protocol::http::percent_decode(path).into_owned()
    }

    /// The URL's scheme.
    pub fn scheme_name(&self) -> &'static str {
        match (self.scheme, self.is_encrypted) {
            (Scheme::WebSocket, false) => "ws",
            (Scheme::WebSocket, true) => "wss",
            (Scheme::Stream, false) => "stream+http",
            (Scheme::Stream, true) => "stream+https",
            (Scheme::EventStream, false) => "sse+http",
            (Scheme::EventStream, true) => "sse+https",
            (Scheme::Poll, false) => "poll+http",
            (Scheme::Poll, true) => "poll+https",
            (Scheme::Stomp, false) => "stomp",
            (Scheme::Stomp, true) => "stomps",
            (Scheme::StompWebSocket, false) => "stomp+ws",
            (Scheme::StompWebSocket, true) => "stomp+wss",
            (Scheme::Tcp, false) => "tcp",
            (Scheme::Tcp, true) => "tls",
        }
    }
}

/// The URL without user, password and query, which may hold secrets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or("");
        write!(f, "{}://{}{}", self.scheme_name(), self.authority(), if path == "/" { "" } else { path })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_says_dialect_transport_encryption_and_port() {
        for (url, scheme, is_encrypted, port) in [
            ("ws://host", Scheme::WebSocket, false, 80),
            ("wss://host:8443/connection/websocket", Scheme::WebSocket, true, 8443),
            ("stream+http://host", Scheme::Stream, false, 80),
            ("sse+https://host", Scheme::EventStream, true, 443),
            ("poll+http://host:8000", Scheme::Poll, false, 8000),
            ("stomp://host", Scheme::Stomp, false, 61613),
            ("stomps://host", Scheme::Stomp, true, 61614),
            ("stomp+wss://host/stomp", Scheme::StompWebSocket, true, 443),
            ("tcp://[::1]:9501", Scheme::Tcp, false, 9501),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(
                (address.scheme, address.is_encrypted, address.port),
                (scheme, is_encrypted, port),
                "{url}"
            );
            assert!(url.starts_with(&format!("{}://", address.scheme_name())), "{url}");
        }
    }

    #[test]
    fn a_virtual_host_is_the_path_over_tcp_alone() {
        for (url, host) in [
            ("stomp://mq", "/"),
            ("stomp://mq/", "/"),
            ("stomps://mq/prod%20one?x=1", "prod one"),
            ("stomp+ws://mq/stomp", "/"),
        ] {
            assert_eq!(Address::parse(url).unwrap().virtual_host(), host, "{url}");
        }
    }

    #[test]
    fn what_is_shown_holds_no_password() {
        let address = Address::parse("stomp://ada:s%40cret@mq.example.org:61613/prod?token=x").unwrap();
        assert_eq!((address.user.as_str(), address.password.as_str()), ("ada", "s@cret"));
        assert_eq!(address.target, "/prod?token=x");
        assert_eq!(address.to_string(), "stomp://mq.example.org:61613/prod");
        assert_eq!(format!("{address:?}"), address.to_string());
        assert_eq!(Address::parse("tcp://[::1]:9").unwrap().authority(), "[::1]:9");
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_is_wrong() {
        for (url, says) in [
            ("nonsense", "is not a URL"),
            ("http://host", "unknown scheme \"http\": there are ws, wss"),
            ("tcp://host", "names no port"),
            ("stomp:///queue", "names no host"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
