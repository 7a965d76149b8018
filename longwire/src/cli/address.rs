//! Where a command goes: every kind of URL, with `http://` as an event stream.
//!
//! `sub`, `pub`, `queue`, `connect` and `bench` take the same URLs. `http://` and `https://` mean longwire's own HTTP server: publishing is
//! done there through its API, listening over SSE. What must stay true: a URL that is refused says which part is wrong and what may
//! stand there; what is shown of one holds no password and no query.

use super::{Failure, http, printable};
use longwire_client::{Address, AddressError, Scheme};

/// What is spoken at a URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spoken {
    /// The centrifuge dialect.
    Centrifuge,
    /// STOMP.
    Stomp,
    /// The plain dialect, over something that only brings publications.
    Plain,
    /// Packets of the plain dialect.
    Packets,
}

/// A server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Server {
    /// As a client takes it.
    pub(super) url: String,
    /// What is in it.
    pub(super) address: Address,
    /// What is spoken there.
    pub(super) spoken: Spoken,
}

impl Server {
    /// Reads a `--url`.
    pub(super) fn parse(text: &str) -> Result<Server, Failure> {
        Server::parse_as("--url ", text)
    }

    /// Reads a URL that stands for itself.
    pub(super) fn parse_argument(text: &str) -> Result<Server, Failure> {
        Server::parse_as("", text)
    }

    fn parse_as(flag: &str, text: &str) -> Result<Server, Failure> {
        let wrong =
            |what: String| Failure::Usage(format!("`{flag}{}`: {}", printable(text), printable(&what)));
        let is_http = text.starts_with("http://") || text.starts_with("https://");
        let url = match is_http {
            // Below the path that the URL has, as behind a proxy.
            true => format!("sse+{}", http::endpoint_as(flag, text, "/sse")?),
            false => text.to_owned(),
        };
        let address = Address::parse(&url).map_err(|error| match text.contains("://") {
            true if matches!(error, AddressError::UnknownScheme(_)) => wrong(format!("{error}, or http(s)")),
            true => wrong(error.to_string()),
            false => wrong(
                "is no URL such as http://127.0.0.1:8000, ws://127.0.0.1:8000 or stomp://127.0.0.1"
                    .to_owned(),
            ),
        })?;
        let spoken = match address.scheme {
            Scheme::WebSocket => Spoken::Centrifuge,
            Scheme::Stomp | Scheme::StompWebSocket => Spoken::Stomp,
            Scheme::Stream | Scheme::EventStream | Scheme::Poll => Spoken::Plain,
            Scheme::Tcp => Spoken::Packets,
        };
        Ok(Server { url, address, spoken })
    }

    /// Reads several, which must speak the same.
    pub(super) fn parse_all(texts: &[String]) -> Result<Vec<Server>, Failure> {
        let servers = texts.iter().map(|text| Server::parse(text)).collect::<Result<Vec<_>, _>>()?;
        match servers.iter().any(|server| server.spoken != servers[0].spoken) {
            true => Err(Failure::Usage("`--url`: several servers must speak the same".to_owned())),
            false => Ok(servers),
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        printable(&self.address.to_string())
    }
}

/// The base of the HTTP API behind a URL, where there is one.
pub(super) fn api_base(text: &str) -> Result<Option<String>, Failure> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Some(text.to_owned()));
    }
    let server = Server::parse(text)?;
    let scheme = match (server.spoken, server.address.is_encrypted) {
        (Spoken::Plain, false) => "http",
        (Spoken::Plain, true) => "https",
        _ => return Ok(None),
    };
    Ok(Some(format!("{scheme}://{}", server.address.authority())))
}

/// The destination of a channel over STOMP; what begins with `/` is one already.
pub(super) fn destination(channel: &str) -> String {
    match channel.starts_with('/') {
        true => channel.to_owned(),
        false => format!("/topic/{channel}"),
    }
}

/// The destination of a queue over STOMP; what begins with `/` is one already.
pub(super) fn queue_destination(queue: &str) -> String {
    match queue.starts_with('/') {
        true => queue.to_owned(),
        false => format!("/queue/{queue}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_an_event_stream_below_its_path() {
        for (text, url) in [
            ("http://127.0.0.1:8000", "sse+http://127.0.0.1:8000/sse"),
            ("https://example.org/live/?x=1", "sse+https://example.org/live/sse"),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!((server.url.as_str(), server.spoken), (url, Spoken::Plain));
        }
    }

    #[test]
    fn each_scheme_says_what_is_spoken() {
        for (text, spoken) in [
            ("ws://127.0.0.1:8000", Spoken::Centrifuge),
            ("stomp://127.0.0.1", Spoken::Stomp),
            ("stomp+wss://example.org", Spoken::Stomp),
            ("stream+http://127.0.0.1:8000", Spoken::Plain),
            ("poll+https://example.org", Spoken::Plain),
            ("tcp://127.0.0.1:9501", Spoken::Packets),
        ] {
            assert_eq!(Server::parse(text).unwrap().spoken, spoken, "{text}");
        }
    }

    #[test]
    fn a_wrong_url_says_what_is_wrong() {
        for (text, says) in [
            ("nonsense", "is no URL such as"),
            ("127.0.0.1:8000", "is no URL such as"),
            ("ftp://host", "unknown scheme \"ftp\""),
            ("tcp://host", "names no port"),
            ("http://", "is no URL"),
        ] {
            let failure = Server::parse(text).unwrap_err();
            assert!(matches!(failure, Failure::Usage(_)) && failure.text().contains(says), "{failure:?}");
            assert!(failure.text().starts_with("`--url "), "{failure:?}");
            let failure = Server::parse_argument(text).unwrap_err();
            assert!(failure.text().starts_with(&format!("`{text}`: ")), "{failure:?}");
        }
        let mixed = ["ws://a".to_owned(), "stomp://b".to_owned()];
        assert!(matches!(Server::parse_all(&mixed), Err(Failure::Usage(_))));
    }

    #[test]
    fn what_is_shown_holds_no_password() {
        let server = Server::parse("stomp://ada:secret@host/vhost?token=x").unwrap();
        assert_eq!(server.shown(), "stomp://host:61613/vhost");
    }

    #[test]
    fn the_api_is_where_http_is() {
        let base = |text: &str| api_base(text).unwrap();
        assert_eq!(base("http://host:1/x").as_deref(), Some("http://host:1/x"));
        assert_eq!(base("poll+http://host:1/poll?x=1").as_deref(), Some("http://host:1"));
        assert_eq!(base("stomp://host"), None);
        assert_eq!(base("ws://host"), None);
    }

    #[test]
    fn names_become_destinations_and_destinations_stay() {
        assert_eq!(destination("news"), "/topic/news");
        assert_eq!(destination("/exchange/amq.topic/x"), "/exchange/amq.topic/x");
        assert_eq!(queue_destination("mails"), "/queue/mails");
    }
}
