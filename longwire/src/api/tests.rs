//! The API as a backend sees it: what every path answers, who is refused, how bodies are bounded.
//!
//! The [`World`] is a node whose shards are the test itself; `methods` calls every method in it.

mod inspect;
mod methods;
mod publishing;
mod queues;
mod revocation;
mod rights;

use super::*;
use crate::auth::{Clerk, Verifier};
use crate::broker::{MemoryBroker, Outlets};
use crate::config::{ChannelOptions, Config};
use crate::delivery::Mailbox;
use crate::env::{Clock, Env, Rng};
use crate::journal::DataDir;
use crate::node::control::{Census, Control, Switchboard};
use crate::node::revocation::{Keeper, Revocations};
use crate::node::survey::Reach;
use crate::queue;
use hyper::body::Frame;
use longwire_protocol::message::Except;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

const CLIENT: &str = "00000000-0000-4000-8000-000000000001";
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A node of two shards whose mailboxes nobody empties.
pub(super) fn node_with(change: impl FnOnce(&mut Config)) -> Arc<Node> {
    World::new(change).node
}

/// A node with the receiving ends of its two shards.
struct World {
    node: Arc<Node>,
    outlets: Outlets,
    controls: Vec<Arc<Mailbox<Control>>>,
    /// Not at work until a test sets it to.
    keeper: Option<Keeper>,
    /// Nor are these.
    clerk: Option<Clerk>,
    queue_keeper: Option<queue::Keeper>,
    /// Makes the store of queues fail, or work again.
    fail_queues: Box<dyn Fn(bool)>,
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> World {
        let mut config = Config::demo();
        config.namespaces.insert("plain".into(), ChannelOptions::default());
        change(&mut config);
        let outlets: Outlets = (0..2).map(|_| Arc::new(Mailbox::new(64))).collect();
        let controls: Vec<_> = (0..2).map(|_| Arc::new(Mailbox::new(64))).collect();
        // Wall time goes with the time that a test invents.
        let clock = Clock::starting_at(Duration::from_secs(1_800_000_000));
        let env = Env { clock, rng: Rng::from_seed(7), ..Env::system() };
        let broker = MemoryBroker::new(outlets.clone(), env.clock, Rng::from_seed(8));
        let mut verifier = Verifier::from_config(&config).unwrap();
        let clerk = verifier.take_clerk();
        let switchboard = Switchboard::new(controls.clone());
        let (errands, _) = crate::errands::Errands::new();
        let data_dir = DataDir::new(env.disk.clone(), &config.server.data_dir);
        let (revocations, keeper) = Revocations::load(data_dir, 9, env.clock.unix_seconds()).unwrap();
        let events = crate::events::Events::new(&config.events);
        let outlet = Arc::new(Mailbox::new(64));
        let (queues, queue_keeper, fail_queues) =
            queue::Keeper::in_memory_that_may_fail(&config, env.clock, vec![outlet]);
        let parts = crate::node::Parts {
            verifier,
            broker: Box::new(broker),
            switchboard,
            errands,
            events,
            revocations,
            queues,
            allowed_origins: longwire_protocol::http::AllowedOrigins::parse(&config.server.allowed_origins)
                .expect("a test's origins are valid"),
        };
        let node = Node::new(config, true, env, parts);
        World {
            node: Arc::new(node),
            outlets,
            controls,
            keeper: Some(keeper),
            clerk,
            queue_keeper: Some(queue_keeper),
            fail_queues,
        }
    }

    async fn call(&self, method: &str, body: &str) -> String {
        let answer = call(&self.node, method, &Bytes::copy_from_slice(body.as_bytes())).await;
        match answer.render(false) {
            Rendered::Json(status, json) => {
                assert_eq!(status, 200, "{method} {body}");
                String::from_utf8(json).unwrap()
            }
            Rendered::Text(status, text) => format!("{status} {text}"),
        }
    }

    /// What the first shard was ordered; the second must have been ordered the same.
    fn orders(&self) -> Vec<String> {
        // Both before any is read: ways back are counted in what is shown of them.
        let taken = [0, 1].map(|shard| {
            let mut letters = VecDeque::new();
            self.controls[shard].take(&mut letters);
            letters
        });
        let [orders, others] =
            taken.each_ref().map(|all| all.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>());
        assert_eq!(others, orders);
        orders
    }

    /// Keeps queues, for as long as the test runs.
    fn run_queues(&mut self) {
        let keeper = self.queue_keeper.take().expect("it is run once");
        tokio::spawn(keeper.run(std::future::pending()));
    }

    /// Answers questions as a shard does that holds two connections of user 42 in `chat` and `news`.
    fn run_shards(&self) {
        for mailbox in &self.controls {
            let mailbox = mailbox.clone();
            tokio::spawn(async move {
                loop {
                    mailbox.arrived().await;
                    let mut letters = VecDeque::new();
                    mailbox.take(&mut letters);
                    letters.into_iter().for_each(answer_as_shard);
                }
            });
        }
    }
}

fn answer_as_shard(letter: Control) {
    let held: [Arc<str>; 2] = ["chat".into(), "news".into()];
    match letter {
        Control::Channels { pattern, answer } => {
            let counts: BTreeMap<_, _> =
                held.into_iter().filter(|name| pattern.matches(name)).map(|name| (name, 2)).collect();
            answer.send(counts).unwrap();
        }
        Control::Census { answer } => {
            let users = ["42".into()].into();
            let census =
                Census { clients: 2, users, channels: held.into(), subscriptions: 4, ..Census::default() };
            answer.send(census).unwrap();
        }
        Control::Reach { sent, answer } => {
            let reached = if sent.except == Except::default() { 2 } else { 1 };
            answer.send(Reach { subscribers: 3, reached }).unwrap();
        }
        _ => {}
    }
}

const BAD_REQUEST: &str = r#"{"error":{"code":107,"message":"bad request"}}"#;
const DONE: &str = r#"{"result":{}}"#;

async fn respond(node: &Node, method: &str, target: &str, body: &'static str) -> Response<Full<Bytes>> {
    let request = Request::builder().method(method).uri(target).header("host", "localhost");
    serve(node, request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap(), LOOPBACK).await
}

async fn text_of(response: Response<Full<Bytes>>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn every_path_says_what_it_is_or_how_to_use_it() {
    let demo = node_with(|_| {});
    for (status, method, target, expected) in [
        (200, "GET", "/health", "{}"),
        (200, "GET", "/connection/init", "{}"),
        (405, "POST", "/health", "only GET"),
        (200, "GET", "/metrics", "# HELP"),
        (405, "GET", "/api/info", "only POST"),
        (405, "OPTIONS", "/api/publish", "only POST"),
        (404, "POST", "/api/nothing", "no such method"),
        (404, "POST", "/api", "nothing is here"),
        (404, "GET", "/nowhere", "nothing is here"),
        (400, "GET", "/sse?channels=a", "a GET request without a body"),
        (405, "POST", "/sse", "by GET"),
        (426, "GET", "/connection/websocket", "WebSocket handshake"),
        (200, "GET", "/", "<!doctype html>"),
        (200, "GET", "/demo/app.js", "//"),
        (404, "GET", "/demo/../mod.rs", ""),
        (404, "GET", "/demo/missing", ""),
        (405, "POST", "/demo/app.js", "only GET"),
        (400, "POST", "/demo/cut", "Bad Request"),
        (405, "GET", "/demo/cut", "only POST"),
    ] {
        let response = respond(&demo, method, target, "").await;
        assert_eq!(response.status(), status, "{method} {target}");
        assert_eq!(response.headers().contains_key("allow"), status == 405, "{method} {target}");
        assert!(!response.headers().contains_key("access-control-allow-origin"), "{method} {target}");
        let text = text_of(response).await;
        assert!(text.contains(expected), "{method} {target}: {text}");
    }
}

#[tokio::test]
async fn an_api_that_is_off_is_not_there_and_metrics_are() {
    let node = node_with(|config| config.api.enabled = false);
    for (status, method, target) in [
        (404, "POST", "/api/info"),
        (404, "POST", "/api/batch"),
        (404, "POST", "/api/nothing"),
        (200, "GET", "/metrics"),
        (200, "GET", "/health"),
    ] {
        assert_eq!(respond(&node, method, target, "{}").await.status(), status, "{method} {target}");
    }
}

#[tokio::test]
async fn the_demo_button_cuts_one_connection_or_all() {
    let world = World::new(|_| {});
    let one = format!(r#"{{"client":"{CLIENT}"}}"#).leak();
    for (body, expected, order) in [
        (&*one, DONE, Some("user: None, client: Some(0000")),
        (r#"{"all":true}"#, DONE, Some("user: None, client: None")),
        (r#"{"all":false}"#, BAD_REQUEST, None),
        (r#"{"client":"x"}"#, BAD_REQUEST, None),
    ] {
        let response = respond(&world.node, "POST", "/demo/cut", body).await;
        assert_eq!(text_of(response).await, expected, "{body}");
        let orders = world.orders();
        assert_eq!(orders.len(), usize::from(order.is_some()), "{body}");
        assert!(
            orders.iter().all(|found| found.starts_with("Cut") && found.contains(order.unwrap())),
            "{orders:?}"
        );
    }
}

#[tokio::test]
async fn a_caller_without_the_right_learns_nothing() {
    let node = node_with(|config| {
        config.api.insecure = false;
        config.api.key = Some("secret".into());
    });
    for (status, method, target) in [
        (401, "POST", "/api/info"),
        (401, "POST", "/api/nothing"),
        (401, "GET", "/metrics"),
        (401, "POST", "/demo/cut"),
        (200, "GET", "/health"),
    ] {
        let response = respond(&node, method, target, "{}").await;
        assert_eq!(response.status(), status, "{method} {target}");
        assert_eq!(text_of(response).await.is_empty(), status == 401, "{method} {target}");
    }
}

#[tokio::test]
async fn a_request_with_two_meanings_is_refused() {
    let node = node_with(|_| {});
    let post = || Request::post("/api/publish");
    for (status, request) in [
        (400, post()),
        (400, post().header("host", "localhost").header("host", "localhost")),
        (
            400,
            post().header("host", "a").header("content-length", "2").header("transfer-encoding", "chunked"),
        ),
        (200, post().header("host", "localhost").header("content-length", "2")),
        (200, post().header("host", "localhost").version(Version::HTTP_10)),
    ] {
        let request = request.body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let headers = format!("{:?}", request.headers());
        assert_eq!(serve(&node, request, LOOPBACK).await.status(), status, "{headers}");
    }
}

/// A body whose size nobody announces: so many chunks, then an end or, if `hangs`, silence.
fn chunks(chunk: &'static [u8], count: usize, hangs: bool) -> impl Body<Data = Bytes, Error = Infallible> {
    struct Chunks(&'static [u8], usize, bool);
    impl Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.1 == 0 {
                return if self.2 { Poll::Pending } else { Poll::Ready(None) };
            }
            self.1 -= 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.0)))))
        }
    }
    Chunks(chunk, count, hangs)
}

#[tokio::test]
async fn a_body_is_counted_while_it_is_read() {
    let node = node_with(|config| config.http.max_body_bytes = 100);
    let send = async |body| {
        let request = Request::post("/api/publish").header("host", "localhost").body(body).unwrap();
        serve(&node, request, LOOPBACK).await.status()
    };
    assert_eq!(send(chunks(b"0123456789", 11, true)).await, 413);
    assert_eq!(send(chunks(b"0123456789", usize::MAX, false)).await, 413);
    assert_eq!(send(chunks(b"          ", 10, false)).await, 400, "within the limit, but no JSON");
    let request = Request::post("/api/publish").header("host", "localhost");
    let announced = request.body(Full::new(Bytes::from(vec![b' '; 101]))).unwrap();
    assert_eq!(serve(&node, announced, LOOPBACK).await.status(), 413);
}

#[tokio::test(start_paused = true)]
async fn a_body_must_come_in_time() {
    let node = node_with(|config| config.http.body_timeout = Duration::from_secs(5));
    let request = Request::post("/api/publish").header("host", "localhost");
    let began = node.env.clock.now();
    let response = serve(&node, request.body(chunks(b"{", 1, true)).unwrap(), LOOPBACK).await;
    assert_eq!(response.status(), 408);
    assert_eq!(node.env.clock.now() - began, Duration::from_secs(5));
}
