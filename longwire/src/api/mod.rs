//! Everything over HTTP that does not stream: the API for backends, health, metrics and the demo page.
//!
//! [`serve`] answers one request and [`http::serve_connection`] a connection of them; the latter gives the
//! connection back when a browser reuses it for a stream. Nothing here decides what a client may do: a caller
//! of the API is the backend itself (`auth` says who that is), and the node carries its orders out.
//!
//! What must stay true: a body is bounded while it is read, in bytes and in time; but for the requests beside a
//! stream (`emulation`, `send`), no answer carries a CORS header, so a page of another origin cannot read any.

mod answer;
mod assets;
mod auth;
mod emulation;
pub mod http;
mod inspect;
mod methods;
mod metrics;
mod queues;
mod requests;
mod send;
mod sessions;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Rendered};
pub use methods::call;
pub use queues::Refusal;

use crate::env::Clock;
use crate::node::Node;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use std::fmt::Display;
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

/// What `GET /` says where there is no demo page.
const ABOUT: &str = "\
This is longwire: it holds long connections for applications that cannot.

  /connection/websocket   the centrifuge protocol; the same at /connection/sse and
                          /connection/http_stream with /emulation, and, one way only, at
                          /connection/uni_websocket, uni_sse, uni_http_stream
  /ws?channels=a,b        publications over WebSocket; messages to the backend
  /sse?channels=a,b       publications as server-sent events
  /stream?channels=a,b    publications as lines of JSON
  /poll?channels=a,b      publications by long-poll
  /send?session=NAME      a message to the backend (POST), beside /sse, /stream and /poll
  /api/METHOD             HTTP API for backends (POST)
  /health                 200 while this server serves
  /metrics                metrics for Prometheus
";

/// Answers one request. `peer` is the address at the other end of the socket, whatever a proxy says.
pub async fn serve<B>(node: &Node, request: Request<B>, peer: IpAddr) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    let (head, body) = request.into_parts();
    match route(node, &head, body, peer).await {
        Ok(respond) | Err(respond) => respond.into(),
    }
}

/// Says what answers a request; the error is a response, too.
async fn route<B>(node: &Node, head: &Parts, body: B, peer: IpAddr) -> Result<Respond, Respond>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    check_framing(head)?;
    let path = head.uri.path();
    match path {
        "/health" | "/connection/init" => {
            require_get(head)?;
            Ok(Respond::json(200, b"{}".to_vec()))
        }
        "/metrics" => {
            require_get(head)?;
            auth::check(node, head, peer)?;
            Ok(Respond::bytes(200, metrics::CONTENT_TYPE, metrics::text(node).into()))
        }
        "/ws" if head.method == Method::GET => {
            Err(Respond::text(400, "a websocket handshake has no body").with("connection", "close"))
        }
        "/ws" => Err(Respond::text(405, "a websocket is asked for by GET").with("allow", "GET")),
        "/sse" | "/stream" | "/poll" | send::PATH if head.method == Method::OPTIONS => {
            emulation::preflight(node, head)
        }
        "/sse" | "/stream" | "/poll" if head.method == Method::GET => {
            Err(Respond::text(400, "a stream is asked for by a GET request without a body"))
        }
        "/sse" | "/stream" | "/poll" => {
            Err(Respond::text(405, "a stream is asked for by GET").with("allow", "GET, OPTIONS"))
        }
        send::PATH => send::message(node, head, body).await,
        emulation::PATH if head.method == Method::OPTIONS => emulation::preflight(node, head),
        emulation::PATH => emulation::message(node, head, body).await,
        _ if path.starts_with("/connection/") && head.method == Method::OPTIONS => {
            emulation::preflight(node, head)
        }
        "/connection/sse" | "/connection/uni_sse" => {
            Err(Respond::text(405, "a stream is asked for by GET or POST")
                .with("allow", "GET, POST, OPTIONS"))
        }
        "/connection/http_stream" | "/connection/uni_http_stream" => {
            Err(Respond::text(405, "a stream is asked for by POST").with("allow", "POST, OPTIONS"))
        }
        "/connection/websocket" | "/connection/uni_websocket" => {
            require_get(head)?;
            let text = "a WebSocket handshake is expected here (RFC 6455): a GET request without a body, \
                        with the headers Upgrade, Connection, Sec-WebSocket-Version and Sec-WebSocket-Key";
            Err(Respond::text(426, text).with("upgrade", "websocket").with("connection", "close"))
        }
        "/" if node.is_demo => {
            require_get(head)?;
            assets::demo("index.html", &head.headers).ok_or_else(not_found)
        }
        "/" => {
            require_get(head)?;
            Ok(Respond::bytes(200, TEXT, Bytes::from_static(ABOUT.as_bytes())))
        }
        "/demo/cut" if node.is_demo => {
            let body = read_call(node, head, body, peer).await?;
            Ok(render(methods::cut(node, &body).await, &head.headers))
        }
        _ => {
            if let Some(method) = path.strip_prefix("/api/").filter(|_| node.config.api.enabled) {
                let body = read_call(node, head, body, peer).await?;
                return Ok(render(call(node, method, &body).await, &head.headers));
            }
            if let Some(asset) = path.strip_prefix("/demo/").filter(|_| node.is_demo) {
                require_get(head)?;
                return assets::demo(asset, &head.headers).ok_or_else(not_found);
            }
            Err(not_found())
        }
    }
}

fn not_found() -> Respond {
    Respond::text(404, "nothing is here")
}

/// Refuses what two readers could take for different requests.
fn check_framing(head: &Parts) -> Result<(), Respond> {
    let hosts = head.headers.get_all(HOST).iter().count();
    // RFC 9112 section 3.2: exactly one host; HTTP/1.0 had none.
    if hosts > 1 || hosts == 0 && head.version == Version::HTTP_11 {
        return Err(Respond::text(400, "exactly one host header is expected").with("connection", "close"));
    }
    // RFC 9112 section 6.1: both together are an attempt to smuggle a request past a proxy.
    if head.headers.contains_key(CONTENT_LENGTH) && head.headers.contains_key(TRANSFER_ENCODING) {
        let text = "a content length and a transfer coding exclude each other";
        return Err(Respond::text(400, text).with("connection", "close"));
    }
    Ok(())
}

fn require_get(head: &Parts) -> Result<(), Respond> {
    match head.method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Respond::text(405, "only GET is possible here").with("allow", "GET, HEAD")),
    }
}

/// Checks that a request may call something, and reads its body.
async fn read_call<B>(node: &Node, head: &Parts, body: B, peer: IpAddr) -> Result<Bytes, Respond>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    if head.method != Method::POST {
        return Err(Respond::text(405, "only POST is possible here").with("allow", "POST"));
    }
    auth::check(node, head, peer)?;
    read_body(node, body, node.config.http.max_body_bytes).await
}

/// Reads a body of at most `max_bytes`.
async fn read_body<B>(node: &Node, body: B, max_bytes: usize) -> Result<Bytes, Respond>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    let clock = node.env.clock;
    collect(body, max_bytes, clock, clock.now() + node.config.http.body_timeout).await
}

/// How much of a body that is too large is read and thrown away before it is answered.
const MAX_DISCARDED_BYTES: usize = 8 * 1024 * 1024;

/// How long the next part of such a body is waited for.
const MAX_DISCARD_PAUSE: Duration = Duration::from_secs(1);

/// Reads a body into memory of its own, which grows with what has come, not with what was announced.
async fn collect<B>(body: B, max_body_bytes: usize, clock: Clock, deadline: Instant) -> Result<Bytes, Respond>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    let too_large = || {
        let text = format!("the body is larger than {max_body_bytes} bytes");
        Respond::text(413, &text).with("connection", "close")
    };
    let mut body = pin!(body);
    let mut collected = Vec::new();
    let announced = body.size_hint().lower();
    if announced > (max_body_bytes + MAX_DISCARDED_BYTES) as u64 {
        return Err(too_large());
    }
    let mut discarded = usize::from(announced > max_body_bytes as u64);
    loop {
        let left = deadline.saturating_duration_since(clock.now());
        let next = match discarded {
            0 => clock.timeout(left, body.frame()).await.ok_or_else(|| {
                Respond::text(408, "the body did not arrive in time").with("connection", "close")
            })?,
            _ => clock.timeout(left.min(MAX_DISCARD_PAUSE), body.frame()).await.flatten(),
        };
        let Some(frame) = next else { break };
        let frame = frame.map_err(|error| {
            Respond::text(400, &format!("the body ended early: {error}")).with("connection", "close")
        })?;
        if let Ok(data) = frame.into_data() {
            if discarded > 0 || collected.len() + data.len() > max_body_bytes {
                // Closing on a client that is still writing would reset it before it has read why.
                discarded += data.len();
                if discarded > MAX_DISCARDED_BYTES {
                    return Err(too_large());
                }
                continue;
            }
            collected.extend_from_slice(&data);
        }
    }
    if discarded > 0 { Err(too_large()) } else { Ok(collected.into()) }
}

fn render(answer: Answer, headers: &HeaderMap) -> Respond {
    let mode = headers.get("x-centrifugo-error-mode");
    match answer.render(mode.is_some_and(|mode| mode.as_bytes() == b"transport")) {
        Rendered::Json(status, body) => Respond::json(status, body),
        Rendered::Text(status, text) => Respond::bytes(status, TEXT, text.into()),
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// A response in the making.
#[derive(Debug)]
struct Respond {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Respond {
    fn bytes(status: u16, content_type: &str, body: Bytes) -> Respond {
        let respond = Respond { status, headers: Vec::new(), body };
        // Texts may quote the request; nobody shall take them for a page.
        respond.with("content-type", content_type).with("x-content-type-options", "nosniff")
    }

    fn json(status: u16, body: Vec<u8>) -> Respond {
        Respond::bytes(status, "application/json", body.into())
    }

    fn text(status: u16, text: &str) -> Respond {
        Respond::bytes(status, TEXT, format!("{text}\n").into())
    }

    fn empty(status: u16) -> Respond {
        Respond { status, headers: Vec::new(), body: Bytes::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Respond {
        self.headers.push((name, value.into()));
        self
    }

    #[cfg(test)]
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}

impl From<Respond> for Response<Full<Bytes>> {
    fn from(respond: Respond) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(respond.body));
        *response.status_mut() =
            StatusCode::from_u16(respond.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in respond.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}
