//! From a URL to what is asked for where.
//!
//! Pure. A URL without a path, or with a path of longwire's, stands for all that longwire serves below the same prefix;
//! any other path stands for itself. What must stay true: at a foreign path nothing is asked for but what the URL's
//! scheme says.

use super::super::Failure;
use super::stomp::SUBPROTOCOLS;
use longwire_client::{Address, Scheme};

/// Where the centrifuge dialect is served over WebSocket.
const CENTRIFUGE_WEBSOCKET: &str = "/connection/websocket";

/// The plain dialect's WebSocket.
const PLAIN_WEBSOCKET: &str = "/ws";

/// STOMP over WebSocket.
const STOMP: &str = "/stomp";

/// Paths by which longwire, and for some Centrifugo, is known.
const KNOWN: [&str; 9] = [
    CENTRIFUGE_WEBSOCKET,
    "/connection/sse",
    "/connection/http_stream",
    "/emulation",
    PLAIN_WEBSOCKET,
    "/sse",
    "/stream",
    "/poll",
    STOMP,
];

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Plan {
    /// Whether HTTP is spoken.
    pub(super) is_http: bool,
    /// What stands before the server's paths.
    pub(super) prefix: String,
    /// WebSockets, until one is given.
    pub(super) websockets: Vec<String>,
    pub(super) subprotocols: &'static [&'static str],
    /// Responses that go on.
    pub(super) streams: Vec<StreamAt>,
    /// Where messages go beside a stream.
    pub(super) uplink: Option<String>,
    /// Where STOMP is spoken, on which a connection can be silent.
    pub(super) stomp: Option<StompAt>,
}

/// A stream to be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StreamAt {
    pub(super) path: String,
    pub(super) form: Form,
}

/// What a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// The centrifuge dialect's SSE.
    EventStream,
    /// The centrifuge dialect's HTTP stream.
    HttpStream,
    /// Somebody's SSE.
    ForeignEvents,
    /// Somebody's HTTP stream.
    ForeignStream,
}

/// Where STOMP is spoken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum StompAt {
    /// At the URL's address.
    Tcp,
    /// Over WebSocket.
    WebSocket(String),
}

/// An address with a scheme of HTTP taken for one of WebSocket, for which it usually stands.
pub(super) fn address_of(url: &str) -> Result<Address, Failure> {
    let wrong = |error: longwire_client::AddressError| {
        Failure::Usage(format!(
            "{}; http and https stand for all that is spoken there",
            super::super::printable(&error.to_string())
        ))
    };
    // A host alone is what people type.
    let text = match url.split_once("://") {
        None => format!("ws://{url}"),
        Some(("http", rest)) => format!("ws://{rest}"),
        Some(("https", rest)) => format!("wss://{rest}"),
        Some(_) => url.to_owned(),
    };
    let address = Address::parse(&text).map_err(wrong)?;
    // A path of its own behind http:// is a stream: WebSockets have their scheme.
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    let is_own = prefix_of(path_of(&address.target)).is_none();
    Ok(if is_http && is_own { Address { scheme: Scheme::EventStream, ..address } } else { address })
}

/// Whether the centrifuge dialect is spoken on a WebSocket there.
pub(super) fn is_centrifuge(target: &str) -> bool {
    path_of(target).ends_with(CENTRIFUGE_WEBSOCKET)
}

/// A target without its query.
fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or(target)
}

/// What stands before a path of longwire's; none if it is none.
fn prefix_of(path: &str) -> Option<&str> {
    if path == "/" {
        return Some("");
    }
    KNOWN.iter().find_map(|known| path.strip_suffix(known))
}

impl Plan {
    /// What an address asks for.
    ///
    /// # Errors
    /// There is nothing to look at.
    pub(super) fn of(address: &Address) -> Result<Plan, Failure> {
        let path = path_of(&address.target);
        let prefix = prefix_of(path);
        let mut plan = match prefix {
            Some(prefix) => Plan::whole(prefix, path, &address.target),
            None => Plan::default(),
        };
        plan.is_http = !matches!(address.scheme, Scheme::Stomp | Scheme::Tcp);
        match (address.scheme, prefix) {
            (Scheme::Stomp, _) => {
                let stomp = Some(StompAt::Tcp);
                return Ok(Plan { stomp, ..Plan::default() });
            }
            (Scheme::Tcp, _) => return Ok(Plan::default()),
            (Scheme::StompWebSocket, prefix) => {
                let at = match prefix {
                    Some(prefix) if path == "/" => format!("{prefix}{STOMP}"),
                    _ => address.target.clone(),
                };
                plan.websockets = vec![at.clone()];
                plan.subprotocols = SUBPROTOCOLS;
                plan.streams.clear();
                plan.uplink = None;
                plan.stomp = Some(StompAt::WebSocket(at));
            }
            (Scheme::Poll, _) => {
                return Err(Failure::Usage(
                    "polls are ordinary requests, on which nothing lasts: give the server's address alone"
                        .to_owned(),
                ));
            }
            (_, Some(_)) => {}
            (Scheme::WebSocket, None) => plan.websockets = vec![address.target.clone()],
            (Scheme::EventStream, None) => {
                plan.streams = vec![StreamAt { path: address.target.clone(), form: Form::ForeignEvents }];
            }
            (Scheme::Stream, None) => {
                plan.streams = vec![StreamAt { path: address.target.clone(), form: Form::ForeignStream }];
            }
        }
        Ok(plan)
    }

    /// All that longwire serves below a prefix; `path` is what the URL names.
    fn whole(prefix: &str, path: &str, target: &str) -> Plan {
        let below = |known: &str| format!("{prefix}{known}");
        let mut websockets = vec![below(CENTRIFUGE_WEBSOCKET)];
        if path == "/" {
            // Also the path as it stands, for servers that take WebSockets everywhere.
            websockets.extend([below(PLAIN_WEBSOCKET), target.to_owned()]);
        } else if path.ends_with(PLAIN_WEBSOCKET) || path.ends_with(CENTRIFUGE_WEBSOCKET) {
            websockets = vec![target.to_owned()];
        }
        Plan {
            is_http: true,
            prefix: prefix.to_owned(),
            websockets,
            subprotocols: &[],
            streams: vec![
                StreamAt { path: below("/connection/sse"), form: Form::EventStream },
                StreamAt { path: below("/connection/http_stream"), form: Form::HttpStream },
            ],
            uplink: Some(below("/emulation")),
            stomp: Some(StompAt::WebSocket(below(STOMP))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(url: &str) -> Plan {
        Plan::of(&address_of(url).unwrap()).unwrap()
    }

    #[test]
    fn a_host_alone_stands_for_all_that_is_served_there() {
        let whole = plan("ws://a.example");
        assert_eq!(whole.websockets, ["/connection/websocket", "/ws", "/"]);
        assert_eq!(whole.streams.len(), 2);
        assert_eq!(whole.stomp, Some(StompAt::WebSocket("/stomp".to_owned())));
        for url in
            ["a.example", "a.example:81", "http://a.example/", "https://a.example", "sse+http://a.example"]
        {
            assert_eq!(plan(url), whole, "{url}");
        }
    }

    #[test]
    fn a_path_of_longwires_stands_for_those_below_the_same_prefix() {
        let below = plan("wss://a.example/live/connection/websocket?x=1");
        assert_eq!(below.websockets, ["/live/connection/websocket?x=1"]);
        assert_eq!(below.streams[0].path, "/live/connection/sse");
        assert_eq!(below.uplink.as_deref(), Some("/live/emulation"));
        assert_eq!(plan("https://a.example/live/sse").prefix, "/live");
        assert_eq!(plan("ws://a.example/live/ws?channels=a").websockets, ["/live/ws?channels=a"]);
    }

    #[test]
    fn a_foreign_path_stands_for_itself() {
        let echo = plan("ws://a.example/echo");
        assert_eq!(echo, Plan { is_http: true, websockets: vec!["/echo".to_owned()], ..Plan::default() });
        let events = plan("https://a.example/events?id=1");
        assert_eq!(events.streams, [StreamAt { path: "/events?id=1".to_owned(), form: Form::ForeignEvents }]);
        assert!(events.websockets.is_empty() && events.stomp.is_none());
        assert_eq!(plan("stomp://a.example").stomp, Some(StompAt::Tcp));
        assert!(!plan("stomp://a.example").is_http);
        let over = plan("stomp+ws://a.example");
        assert_eq!(
            (over.websockets, over.stomp),
            (vec!["/stomp".to_owned()], Some(StompAt::WebSocket("/stomp".to_owned())))
        );
        assert_eq!(plan("stomp+ws://a.example/ws-stomp").websockets, ["/ws-stomp"]);
    }

    #[test]
    fn what_cannot_be_looked_at_is_refused_in_words() {
        for url in ["ftp://a", "ws://", "tcp://a"] {
            assert!(matches!(address_of(url), Err(Failure::Usage(_))), "{url}");
        }
        let polls = address_of("poll+http://a/other").unwrap();
        assert!(matches!(Plan::of(&polls), Err(Failure::Usage(_))));
    }
}
