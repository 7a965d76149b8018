//! Reads the head of a fresh connection's request and decides who serves it.
//!
//! The streaming routes are taken here, so that an idle stream costs no HTTP server's buffers; every other
//! request is handed, with the bytes that were read, to the general HTTP server on the other runtime. What
//! must stay true: a head is bounded in size and time before anything is decided, nothing is decided on a
//! head that two readers could understand differently, and no stream is opened for a page of a foreign
//! origin.

use super::listening::Listening;
use super::{forwarded, plain, response, stomp, stream, tcp, websocket};
use crate::config::{Config, Protocol};
use crate::env::net::{Accepted, Stream};
use crate::node::limits::{Full, Place, network_of};
use crate::shard::{Link, Shard};
use longwire_protocol::http::{
    Body, RequestHead, is_header_value, is_loopback_host, parse_request_head, reason_phrase,
};
use longwire_protocol::plain::event_stream;
use longwire_protocol::{CloseReason, Position};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a connection on which a poll was answered may wait for its next request.
const MAX_IDLE: Duration = Duration::from_secs(75);

/// How long a peer that was refused may take to read that.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// A connection on its way to its first decision.
pub struct Newcomer {
    /// The socket.
    pub socket: Accepted,
    /// Bytes of its request that were read before.
    pub prefix: Vec<u8>,
    /// Its place among all connections.
    pub place: Place,
    /// By which listener it came: the index in `Config::listeners`.
    pub listener: u16,
}

/// What all front doors share.
pub struct FrontDoor {
    /// Where requests go that are no streams.
    pub to_http: mpsc::UnboundedSender<Newcomer>,
    /// The listeners, by their index in `Config::listeners`.
    pub listening: Box<[Listening]>,
    /// What holds for all connections of STOMP.
    pub stomp: stomp::Terms,
}

/// What is done before a connection's next request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Visit {
    /// It is the connection's first here.
    First,
    /// A poll was answered on it: with the number of the answer, if the connection is the client's own.
    Again(Option<Position>),
    /// The server drains: only calls are served. Anything else is to be asked for again, elsewhere or later.
    Last,
}

/// A response that refuses a request, and why.
#[derive(Debug)]
pub struct Refused {
    /// The whole response.
    pub response: Vec<u8>,
    /// What was wrong, for the log.
    pub what: String,
}

/// Whether a request is for something that goes on, and so is served here.
pub fn is_streaming(method: &str, path: &str) -> bool {
    match path {
        websocket::PATH | websocket::UNI_PATH => method == "GET",
        plain::WEBSOCKET | plain::EVENT_STREAM | plain::LINES | plain::POLL => method == "GET",
        path if stomp::PATHS.contains(&path) => method == "GET",
        stream::SSE | stream::UNI_SSE => matches!(method, "GET" | "POST"),
        stream::HTTP_STREAM | stream::UNI_HTTP_STREAM => method == "POST",
        _ => false,
    }
}

impl Refused {
    /// A refusal with a line of text.
    pub fn new(status: u16, what: impl Into<String>) -> Refused {
        Refused::with(status, "", what.into())
    }

    /// The same refusal with more header lines, each with its end.
    fn readable_by(mut self, lines: &str) -> Refused {
        if let Some(end) = self.response.windows(4).position(|window| window == b"\r\n\r\n") {
            self.response.splice(end + 2..end + 2, lines.bytes());
        }
        self
    }

    /// A refusal of what may be asked for again after `wait`.
    pub fn for_now(wait: Duration, what: impl Into<String>) -> Refused {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        Refused::with(429, &format!("Retry-After: {seconds}\r\n"), what.into())
    }

    /// A refusal because this server is about to be gone.
    fn at_the_end() -> Refused {
        Refused::with(503, "Retry-After: 1\r\n", "this server is shutting down".to_owned())
    }

    /// The same for a browser's `EventSource`, which comes back from the end of a stream, and never from a status.
    fn at_the_end_of_events(head: &RequestHead<'_>, config: &Config) -> Refused {
        let refused = Refused::at_the_end();
        let mut response =
            response::begin("text/event-stream; charset=utf-8", response::Body::UntilEnd).into_bytes();
        response.extend_from_slice(b"\r\n");
        // The other dialect has nothing to say before a connect was answered.
        if head.path == plain::EVENT_STREAM {
            event_stream::encode_retry(config.event_stream.retry.as_millis() as u64, &mut response);
            event_stream::encode_disconnect(&CloseReason::Drain.into(), &mut response);
        }
        Refused { response, ..refused }
    }

    fn with(status: u16, header: &str, what: String) -> Refused {
        let response = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             {header}{}Cache-Control: no-store\r\nConnection: close\r\n\r\n{what}\n",
            reason_phrase(status),
            what.len() + 1,
            response::NOT_FOR_OTHER_SITES,
        );
        Refused { response: response.into_bytes(), what }
    }
}

/// The headers of a request that some webhook is to get, their names in lower case; `None` if there are none, as on
/// a server that hands none on. A value that is not UTF-8 is left out.
pub(super) fn captured_headers(head: &RequestHead<'_>, config: &Config) -> Option<Box<[(String, String)]>> {
    let captured: Box<[_]> = head
        .headers
        .iter()
        .filter(|(name, value)| config.hands_on_header(name) && is_header_value(value))
        .filter_map(|(name, value)| {
            Some((name.to_ascii_lowercase(), String::from_utf8(value.to_vec()).ok()?))
        })
        .collect();
    (!captured.is_empty()).then_some(captured)
}

/// What is to be done with what was read so far.
enum Decision {
    ReadMore,
    /// The head was judged, and its body is complete with that many bytes.
    AwaitBody(usize),
    WebSocket(websocket::Opening),
    Stream(stream::Opening),
    Plain(Box<plain::Opening>),
    Stomp(stomp::Opening),
    Http,
}

/// Serves a newcomer until it is somebody else's, or until `ending` is ready: who has not asked for
/// anything by then is sent away. While the server drains (`is_draining`) it opens no more streams.
pub async fn serve(
    shard: Rc<Shard>,
    door: Arc<FrontDoor>,
    newcomer: Newcomer,
    is_draining: bool,
    ending: impl Future<Output = ()>,
) {
    let Newcomer { socket, prefix, mut place, listener } = newcomer;
    place.listener = listener;
    if !prefix.is_empty() {
        // Requests were served on it before: what it asks for is later than any connection that was opened meanwhile.
        place.renew();
    }
    let peer = socket.peer;
    let stream = match socket.into_stream() {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%peer, %error, "a socket was lost before it was served"),
    };
    let mut link = Link { stream, peer, place };
    let mut ending = pin!(ending);
    let is_ready = tokio::select! {
        biased;
        is_ready = is_ready(&shard, &mut link.stream) => is_ready,
        () = &mut ending => false,
    };
    if !is_ready {
        return;
    }
    match door.listening.get(usize::from(listener)) {
        Some(listening) if listening.protocol != Protocol::Http => {
            let opening = async {
                match listening.protocol {
                    _ if is_draining => {}
                    Protocol::Stomp => stomp::open(&shard, link, &door.stomp),
                    _ => tcp::open(&shard, link, listening),
                }
            };
            tokio::select! {
                // In this order no connection opens after all were told to end.
                biased;
                () = ending => {}
                () = opening => {}
            }
        }
        Some(listening) => {
            let visit = if is_draining { Visit::Last } else { Visit::First };
            receive(shard, &door, listening, link, prefix, visit, ending).await;
        }
        None => tracing::error!(%peer, listener, "a socket came by a listener that is not configured"),
    }
}

/// Serves the next request on a connection whose poll was answered, by the answer with this number.
pub async fn serve_again(
    shard: Rc<Shard>,
    door: Arc<FrontDoor>,
    link: Link,
    answered: Option<Position>,
    ending: impl Future<Output = ()>,
) {
    // A proxy has read what came by its connection, whatever became of its client.
    let is_proxy = forwarded::is_trusted(link.peer.ip(), &shard.node.config.server.trusted_proxies);
    let answered = answered.filter(|_| !is_proxy);
    if let Some(listening) = door.listening.get(usize::from(link.place.listener)) {
        receive(shard, &door, listening, link, Vec::new(), Visit::Again(answered), ending).await;
    }
}

/// Reads a request over HTTP and hands the connection to whom it is for.
async fn receive(
    shard: Rc<Shard>,
    door: &FrontDoor,
    listening: &Listening,
    mut link: Link,
    mut bytes: Vec<u8>,
    visit: Visit,
    ending: impl Future<Output = ()>,
) {
    let (peer, clock) = (link.peer, shard.node.env.clock);
    let deciding = async {
        // A client that polls may think before it polls again; its next head has its own time.
        if matches!(visit, Visit::Again(_)) && bytes.is_empty() {
            match clock.timeout(MAX_IDLE, read_more(&shard, &mut link.stream, &mut bytes)).await {
                Some(Ok(0) | Err(_)) | None => return Some(Ok(None)),
                Some(Ok(_)) => {}
            }
        }
        if matches!(visit, Visit::Again(_)) {
            // As for one on which requests were served.
            link.place.renew();
        }
        let deciding = read_and_decide(&shard, listening, &mut link, &mut bytes, visit);
        clock.timeout(shard.node.config.http.head_timeout, deciding).await
    };
    let decided = tokio::select! {
        // In this order no stream opens after all streams were told to end.
        biased;
        () = ending => None,
        decided = deciding => Some(decided),
    };
    let refused = match decided {
        Some(Some(Ok(Some(Decision::WebSocket(opening))))) => return opening.open(&shard, link, &bytes),
        Some(Some(Ok(Some(Decision::Stream(opening))))) => return opening.open(&shard, link),
        Some(Some(Ok(Some(Decision::Stomp(opening))))) => {
            return opening.open(&shard, link, &door.stomp, &bytes);
        }
        Some(Some(Ok(Some(Decision::Plain(mut opening))))) => {
            if let Visit::Again(answered) = visit {
                opening.note_carried(answered);
            }
            return opening.open(&shard, link, listening, &bytes);
        }
        Some(Some(Ok(Some(Decision::Http)))) => {
            let Link { stream, peer, place } = link;
            let listener = place.listener;
            return match stream.into_accepted(peer) {
                // An error means that the server is stopping.
                Ok(socket) => drop(door.to_http.send(Newcomer { socket, prefix: bytes, place, listener })),
                Err(error) => tracing::warn!(%peer, %error, "a socket was lost before it was served"),
            };
        }
        // The peer went away before it asked for anything: port scanners and browsers do.
        Some(Some(Ok(Some(Decision::ReadMore | Decision::AwaitBody(_)) | None))) => return,
        Some(Some(Err(refused))) => refused,
        Some(None) | None if bytes.is_empty() => return,
        Some(None) => Refused::new(408, "the request's head did not arrive in time"),
        None => Refused::at_the_end(),
    };
    match visit {
        // All who are told to go may come here once more.
        Visit::Last => tracing::debug!(%peer, what = refused.what, "request refused"),
        Visit::First | Visit::Again(_) => tracing::info!(%peer, what = refused.what, "request refused"),
    }
    refuse(&shard, link.stream, &refused.response).await;
}

/// Waits for the handshake of TLS, where there is one: false if the peer does not do its part, or not in time.
async fn is_ready(shard: &Shard, stream: &mut Stream) -> bool {
    let limit = shard.node.config.http.head_timeout;
    match shard.node.env.clock.timeout(limit, stream.ready()).await {
        Some(Ok(())) => return true,
        Some(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        None => tracing::debug!("a TLS handshake was not done in time"),
    }
    shard.note_tls_failure();
    false
}

/// Reads until the head is complete; `None` if the peer went away.
async fn read_and_decide(
    shard: &Shard,
    listening: &Listening,
    link: &mut Link,
    bytes: &mut Vec<u8>,
    visit: Visit,
) -> Result<Option<Decision>, Refused> {
    // A body that dribbles in is not a reason to judge its head again.
    let mut enough = 1;
    loop {
        if bytes.len() >= enough {
            match decide(shard, listening, bytes, link, visit)? {
                Decision::ReadMore => {}
                Decision::AwaitBody(total) => enough = total,
                decision => return Ok(Some(decision)),
            }
        }
        if let Ok(0) | Err(_) = read_more(shard, &mut link.stream, bytes).await {
            return Ok(None);
        }
    }
}

/// Reads once.
async fn read_more(shard: &Shard, stream: &mut Stream, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
    std::future::poll_fn(|cx| {
        let scratch = &mut *shard.scratch();
        stream.poll_read_into(cx, scratch).map_ok(|n| {
            bytes.extend_from_slice(&scratch[..n]);
            n
        })
    })
    .await
}

fn decide(
    shard: &Shard,
    listening: &Listening,
    bytes: &[u8],
    link: &mut Link,
    visit: Visit,
) -> Result<Decision, Refused> {
    let config = &shard.node.config;
    let (head, consumed) =
        match parse_request_head(bytes, config.http.max_head_bytes, config.http.max_headers) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(Decision::ReadMore),
            Err(error) => return Err(Refused::new(error.status, error.what)),
        };
    // A page that may ask may also read why it is refused, and when to ask again.
    decide_on(shard, listening, &head, (bytes, consumed), link, visit).map_err(|refused| {
        match shard.node.allowed_origins.allow(&head) {
            true => refused.readable_by(&response::cors(&head)),
            false => refused,
        }
    })
}

/// Decides what is to be done with a request, whose head took so many of the bytes.
fn decide_on(
    shard: &Shard,
    listening: &Listening,
    head: &RequestHead<'_>,
    (bytes, consumed): (&[u8], usize),
    link: &mut Link,
    visit: Visit,
) -> Result<Decision, Refused> {
    let config = &shard.node.config;
    // The general server collects what comes in chunks, or only when asked to, and gives it back with its length.
    let is_to_collect =
        head.method == "POST" && (head.body == Body::Chunked || head.headers.first("expect").is_some());
    let is_streaming = is_streaming(head.method, head.path) && !is_to_collect;
    if is_streaming
        && let Some(total) = stream::awaited_bytes(head, consumed, config)?
        && bytes.len() < total
    {
        return Ok(Decision::AwaitBody(total));
    }
    if visit == Visit::Last && (is_streaming || head.method != "POST") {
        require_allowed_origin(head, shard)?;
        let is_event_source =
            head.method == "GET" && matches!(head.path, plain::EVENT_STREAM | stream::SSE | stream::UNI_SSE);
        return Err(match is_event_source {
            true => Refused::at_the_end_of_events(head, config),
            false => Refused::at_the_end(),
        });
    }
    let address = forwarded::client_address(head, link.peer.ip(), &config.server.trusted_proxies);
    match link.place.count_address(address) {
        Ok(()) => {}
        Err(Full::Address | Full::Total) => {
            return Err(Refused::new(503, format!("too many connections from {address}")));
        }
    }
    if !is_streaming {
        return Ok(Decision::Http);
    }
    let is_in_time = || match (&shard.node.rates.connects, link.place.address()) {
        (Some(rates), Some(ip)) => rates
            .allow(shard.node.running_for(), &network_of(ip))
            .map_err(|wait| Refused::for_now(wait, format!("{address} opens streams too fast"))),
        _ => Ok(()),
    };
    // Who polls again on its connection opens no other, if it goes on with its session.
    let may_go_on = matches!(visit, Visit::Again(_)) && head.path == plain::POLL;
    if !may_go_on {
        is_in_time()?;
    }
    if config.is_open_on_loopback_only() && !is_loopback_host(head.host) {
        return Err(Refused::new(403, "in insecure mode the host must be localhost or a loopback address"));
    }
    match head.path {
        websocket::PATH | websocket::UNI_PATH => {
            websocket::Opening::judge(head, consumed, &shard.node).map(Decision::WebSocket)
        }
        path if stomp::PATHS.contains(&path)
            || path == plain::WEBSOCKET && stomp::offered(head).is_some() =>
        {
            link.place.is_hidden = forwarded::is_hidden(head, link.peer.ip(), &config.server.trusted_proxies);
            stomp::Opening::judge(head, consumed, &shard.node).map(Decision::Stomp)
        }
        plain::WEBSOCKET => {
            let opening = plain::Opening::judge(head, consumed, &shard.node, listening)?;
            Ok(Decision::Plain(Box::new(opening)))
        }
        plain::EVENT_STREAM | plain::LINES | plain::POLL => {
            require_allowed_origin(head, shard)?;
            let opening = plain::Opening::judge(head, consumed, &shard.node, listening)?;
            if may_go_on && !shard.node.claims.is_taken(opening.client_name()) {
                is_in_time()?;
            }
            Ok(Decision::Plain(Box::new(opening)))
        }
        _ => {
            require_allowed_origin(head, shard)?;
            stream::Opening::judge(head, &bytes[consumed..], config).map(Decision::Stream)
        }
    }
}

/// Refuses a page that is not allowed, and says how it could be.
pub(super) fn foreign_origin(head: &RequestHead<'_>) -> Refused {
    let origin = String::from_utf8_lossy(head.headers.first("origin").unwrap_or_default());
    let what = format!(
        "pages of the origin {origin:?} may not connect to {:?}: it is not in server.allowed_origins",
        head.host
    );
    Refused::new(403, what)
}

fn require_allowed_origin(head: &RequestHead<'_>, shard: &Shard) -> Result<(), Refused> {
    if !shard.node.allowed_origins.allow(head) {
        return Err(foreign_origin(head));
    }
    match is_link_of_a_page(head) {
        true => {
            Err(Refused::new(403, "a browser may not ask for this by a link, a form, an image or a script"))
        }
        false => Ok(()),
    }
}

/// Whether a browser says that it follows a link, or asks for what a page of another site shows. It sends a user's
/// cookies with that and no `Origin` (Fetch Metadata, sections 2.2 and 2.4); here a mere request takes over a session.
fn is_link_of_a_page(head: &RequestHead<'_>) -> bool {
    let is_foreign = matches!(head.headers.first_str("sec-fetch-site"), Some("cross-site" | "same-site"));
    head.headers.first("origin").is_none() && is_foreign
        || head.headers.first_str("sec-fetch-mode") == Some("navigate")
}

/// Writes a refusal and closes, giving the peer a moment to read it.
async fn refuse(shard: &Shard, mut stream: Stream, response: &[u8]) {
    use tokio::io::AsyncWriteExt;
    let polite = async {
        stream.write_all(response).await?;
        stream.flush().await?;
        stream.shutdown_write();
        shard.discard(&mut stream).await
    };
    if shard.node.env.clock.timeout(REFUSAL_LINGER, polite).await.is_none() {
        stream.abort_on_drop();
    }
}
