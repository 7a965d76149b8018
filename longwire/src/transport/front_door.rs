//! Reads the head of a fresh connection's request and decides who serves it.
//!
//! The streaming routes are taken here, so that an idle stream costs no HTTP server's buffers; every other
//! request is handed, with the bytes that were read, to the general HTTP server on the other runtime. What
//! must stay true: a head is bounded in size and time before anything is decided, nothing is decided on a
//! head that two readers could understand differently, and no stream is opened for a page of a foreign
//! origin.

use super::{event_stream, forwarded, stream, websocket};
use crate::config::Config;
use crate::env::net::{Accepted, Stream};
use crate::node::limits::{Full, Place, network_of};
use crate::shard::Shard;
use longwire_protocol::http::{
    Body, RequestHead, is_header_value, is_loopback_host, parse_request_head, reason_phrase,
};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

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
}

/// What all front doors share.
pub struct FrontDoor {
    /// Where requests go that are no streams.
    pub to_http: mpsc::UnboundedSender<Newcomer>,
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
        websocket::PATH | websocket::UNI_PATH | event_stream::PATH => method == "GET",
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

    /// A refusal of what may be asked for again after `wait`.
    pub fn for_now(wait: Duration, what: impl Into<String>) -> Refused {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        Refused::with(429, &format!("Retry-After: {seconds}\r\n"), what.into())
    }

    fn with(status: u16, header: &str, what: String) -> Refused {
        let response = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             {header}Cache-Control: no-store\r\nConnection: close\r\n\r\n{what}\n",
            reason_phrase(status),
            what.len() + 1,
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
    EventStream(event_stream::Opening),
    Stream(stream::Opening),
    Http,
}

/// Serves a newcomer until it is somebody else's, or until `draining` is ready: who has not asked for
/// anything by then is sent away.
pub async fn serve(
    shard: Rc<Shard>,
    door: Arc<FrontDoor>,
    newcomer: Newcomer,
    draining: impl Future<Output = ()>,
) {
    let Newcomer { socket, prefix, mut place } = newcomer;
    let peer = socket.peer;
    let mut stream = match socket.into_stream() {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%peer, %error, "a socket was lost before it was served"),
    };
    let clock = shard.node.env.clock;
    let mut bytes = prefix;
    let deciding = clock.timeout(
        shard.node.config.http.head_timeout,
        read_and_decide(&shard, &mut stream, &mut bytes, &mut place, peer.ip()),
    );
    let decided = tokio::select! {
        // In this order no stream opens after all streams were told to end.
        biased;
        () = draining => Some(match bytes.is_empty() {
            true => Ok(None),
            false => Err(Refused::new(503, "this server is shutting down")),
        }),
        decided = deciding => decided,
    };
    let refused = match decided {
        Some(Ok(Some(Decision::WebSocket(opening)))) => {
            return opening.open(&shard, stream, peer, place, &bytes);
        }
        Some(Ok(Some(Decision::EventStream(opening)))) => return opening.open(&shard, stream, peer, place),
        Some(Ok(Some(Decision::Stream(opening)))) => return opening.open(&shard, stream, peer, place),
        Some(Ok(Some(Decision::Http))) => match stream.into_accepted(peer) {
            // An error means that the server is stopping.
            Ok(socket) => return drop(door.to_http.send(Newcomer { socket, prefix: bytes, place })),
            Err(error) => return tracing::warn!(%peer, %error, "a socket was lost before it was served"),
        },
        // The peer went away before it asked for anything: port scanners and browsers do.
        Some(Ok(Some(Decision::ReadMore | Decision::AwaitBody(_)) | None)) => return,
        Some(Err(refused)) => refused,
        None if bytes.is_empty() => return,
        None => Refused::new(408, "the request's head did not arrive in time"),
    };
    tracing::info!(%peer, what = refused.what, "request refused");
    refuse(&shard, stream, &refused.response).await;
}

/// Reads until the head is complete; `None` if the peer went away.
async fn read_and_decide(
    shard: &Shard,
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    place: &mut Place,
    peer: std::net::IpAddr,
) -> Result<Option<Decision>, Refused> {
    // A body that dribbles in is not a reason to judge its head again.
    let mut enough = 1;
    loop {
        if bytes.len() >= enough {
            match decide(shard, bytes, place, peer)? {
                Decision::ReadMore => {}
                Decision::AwaitBody(total) => enough = total,
                decision => return Ok(Some(decision)),
            }
        }
        let read = std::future::poll_fn(|cx| {
            let scratch = &mut *shard.scratch();
            stream.poll_read_into(cx, scratch).map_ok(|n| {
                bytes.extend_from_slice(&scratch[..n]);
                n
            })
        });
        match read.await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

fn decide(
    shard: &Shard,
    bytes: &[u8],
    place: &mut Place,
    peer: std::net::IpAddr,
) -> Result<Decision, Refused> {
    let config = &shard.node.config;
    let (head, consumed) =
        match parse_request_head(bytes, config.http.max_head_bytes, config.http.max_headers) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(Decision::ReadMore),
            Err(error) => return Err(Refused::new(error.status, error.what)),
        };
    // The general server collects what comes in chunks, or only when asked to, and gives it back with its length.
    let is_to_collect =
        head.method == "POST" && (head.body == Body::Chunked || head.headers.first("expect").is_some());
    let is_streaming = is_streaming(head.method, head.path) && !is_to_collect;
    if is_streaming
        && let Some(total) = stream::awaited_bytes(&head, consumed, config)?
        && bytes.len() < total
    {
        return Ok(Decision::AwaitBody(total));
    }
    let address = forwarded::client_address(&head, peer, &config.server.trusted_proxies);
    match place.count_address(address) {
        Ok(()) => {}
        Err(Full::Address | Full::Total) => {
            return Err(Refused::new(503, format!("too many connections from {address}")));
        }
    }
    if !is_streaming {
        return Ok(Decision::Http);
    }
    if let (Some(rates), Some(ip)) = (&shard.node.rates.connects, place.address())
        && let Err(wait) = rates.allow(shard.node.running_for(), &network_of(ip))
    {
        return Err(Refused::for_now(wait, format!("{address} opens streams too fast")));
    }
    if config.is_open_on_loopback_only() && !is_loopback_host(head.host) {
        return Err(Refused::new(403, "in insecure mode the host must be localhost or a loopback address"));
    }
    match head.path {
        websocket::PATH | websocket::UNI_PATH => {
            websocket::Opening::judge(&head, consumed, &shard.node).map(Decision::WebSocket)
        }
        event_stream::PATH => {
            require_allowed_origin(&head, shard)?;
            event_stream::Opening::judge(&head, consumed, config).map(Decision::EventStream)
        }
        _ => {
            require_allowed_origin(&head, shard)?;
            stream::Opening::judge(&head, &bytes[consumed..], config).map(Decision::Stream)
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
    if shard.node.allowed_origins.allow(head) { Ok(()) } else { Err(foreign_origin(head)) }
}

/// Writes a refusal and closes, giving the peer a moment to read it.
async fn refuse(shard: &Shard, mut stream: Stream, response: &[u8]) {
    use tokio::io::AsyncWriteExt;
    let polite = async {
        stream.write_all(response).await?;
        stream.shutdown_write();
        shard.discard(&mut stream).await
    };
    if shard.node.env.clock.timeout(REFUSAL_LINGER, polite).await.is_none() {
        stream.abort_on_drop();
    }
}
