//! What a realtime client can ask of longwire, over each transport, with nothing that breaks.

use crate::harness::{LIMIT, comes_true, free_port, longwire_binary};
use crate::options;
use longwire_client::realtime::{Client, ClientEvent, Event, HistoryQuery, Position, Subscription};
use longwire_client::{Error, Options, Transport};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Everything is allowed, but in `closed:`.
const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:PORT"]
shards = 1
[client]
allow_anonymous = true
[channel]
presence = true
join_leave = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
allow_presence_for_client = true
allow_presence_for_anonymous = true
history_size = 100
history_ttl = "10m"
allow_recovery = true
allow_positioning = true
allow_tags_filter = true
allowed_delta_types = ["fossil"]
delta_publish = true
[namespaces.closed]
presence = false
[api]
insecure = true
"#;

/// A server of its own.
struct Server {
    port: u16,
    child: Child,
    _directory: TempDir,
}

impl Server {
    fn start() -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let (port, path) = (free_port(), directory.path().join("longwire.toml"));
        std::fs::write(&path, CONFIG.replace("PORT", &port.to_string())).expect("a file");
        let child = Command::new(longwire_binary())
            .args(["serve", "--config"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        assert!(comes_true(LIMIT, || TcpStream::connect(("127.0.0.1", port)).is_ok()), "it does not listen");
        Server { port, child, _directory: directory }
    }

    fn client(&self, scheme: &str) -> Client {
        Client::builder(&format!("{scheme}://127.0.0.1:{}", self.port))
            .options(options())
            .build()
            .expect("a client")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

async fn next(subscription: &mut Subscription) -> Event {
    tokio::time::timeout(LIMIT, subscription.next()).await.expect("an event in time").expect("it goes on")
}

/// The data of the next publication, with what stands before it passed over.
async fn data(subscription: &mut Subscription) -> String {
    loop {
        if let Event::Publication(publication) = next(subscription).await {
            return String::from_utf8(publication.data.to_vec()).expect("JSON is text");
        }
    }
}

#[tokio::test]
async fn over_a_websocket_everything_can_be_asked() {
    everything("ws").await;
}

#[tokio::test]
async fn over_an_http_stream_everything_can_be_asked() {
    everything("stream+http").await;
}

#[tokio::test]
async fn over_server_sent_events_everything_can_be_asked() {
    everything("sse+http").await;
}

async fn everything(scheme: &str) {
    let server = Server::start();
    let client = server.client(scheme);
    client.connected().await.expect("a connection");
    let id = client.client().expect("a name").to_string();

    let mut room = client.subscription("room").join_leave(true).start().expect("a subscription");
    let Event::Subscribed(subscribed) = next(&mut room).await else { panic!("the confirmation comes first") };
    assert!(subscribed.recoverable && !subscribed.again);
    let begin = subscribed.position.expect("the channel has a history");

    // The client sees itself come, itself publish, and another come and go.
    let text = "{\"text\":\"caf\u{e9} \\\"1\\\"\",\"n\":[1,2]}";
    client.publish("room", text).await.expect("it may publish");
    // A server may write it otherwise, escaped say, as long as it means the same.
    let meaning = |json: &str| serde_json::from_str::<serde_json::Value>(json).expect("JSON");
    assert_eq!(meaning(&data(&mut room).await), meaning(text));
    let other = server.client("ws");
    let others = other.subscribe("room").expect("a subscription");
    let other_id = loop {
        match next(&mut room).await {
            Event::Join(info) if info.client.as_str() != id => break info.client.to_string(),
            Event::Join(_) => {}
            event => panic!("{event:?}"),
        }
    };
    let presence = client.presence("room").await.expect("it may ask");
    let mut present: Vec<&str> = presence.iter().map(|info| info.client.as_str()).collect();
    present.sort_unstable();
    let mut both = [id.as_str(), other_id.as_str()];
    both.sort_unstable();
    assert_eq!(present, both);
    assert_eq!(client.presence_stats("room").await.expect("it may ask").clients, 2);
    drop(others);
    assert!(matches!(next(&mut room).await, Event::Leave(info) if info.client.as_str() == other_id));

    client.publish("room", "2").await.expect("it may publish");
    client.publish("room", "3").await.expect("it may publish");
    let history =
        client.history("room", HistoryQuery::limit(2).since(begin.clone())).await.expect("it may ask");
    let offsets: Vec<u64> = history.publications.iter().map(|publication| publication.offset).collect();
    assert_eq!((offsets, history.position.offset), (vec![1, 2], 3));
    let newest = client.history("room", HistoryQuery::limit(1).reverse()).await.expect("it may ask");
    assert_eq!(newest.publications[0].data, "3");
    let lost = client
        .history("room", HistoryQuery::all().since(Position { offset: 1, epoch: "zzzzzzzz".into() }))
        .await;
    assert!(matches!(lost, Err(Error::Refused { code: 112, .. })), "{lost:?}");

    // What the server does not do, or does not allow, it refuses; the client goes on.
    assert!(matches!(client.rpc("sum", "[1,2]").await, Err(Error::Refused { .. })));
    let closed = client.publish("closed:room", "1").await;
    assert!(matches!(closed, Err(Error::Refused { code: 103, .. })), "{closed:?}");
    let mut refused = client.subscribe("closed:room").expect("it is the server that refuses");
    assert!(matches!(next(&mut refused).await, Event::Unsubscribed { code: 103, is_final: true, .. }));
    assert_eq!(refused.next().await, None);

    // From where somebody stopped.
    drop(room);
    let since = Position { offset: begin.offset + 1, epoch: begin.epoch };
    let mut room = client.subscription("room").since(since).start().expect("the channel is free again");
    assert!(matches!(next(&mut room).await, Event::Subscribed(_)));
    assert_eq!(next(&mut room).await, Event::Recovered { publications: 2 });
    assert_eq!((data(&mut room).await, data(&mut room).await), ("2".to_owned(), "3".to_owned()));

    client.close().await;
    assert!(matches!(next(&mut room).await, Event::Unsubscribed { is_final: true, .. }));
    assert!(matches!(client.publish("room", "4").await, Err(Error::Closed)));
}

#[tokio::test]
async fn differences_come_as_what_was_published() {
    let server = Server::start();
    let client = server.client("ws");
    let mut prices = client.subscription("prices").delta(true).start().expect("a subscription");
    let Event::Subscribed(subscribed) = next(&mut prices).await else {
        panic!("the confirmation comes first")
    };
    assert!(subscribed.delta);
    let price = |n: u32| {
        format!("{{\"pair\":\"EURUSD\",\"price\":{n},\"venue\":\"\u{20ac} a place with a long name\"}}")
    };
    for n in 0..50 {
        client.publish("prices", price(n * 37)).await.expect("it may publish");
        assert_eq!(data(&mut prices).await, price(n * 37));
    }
}

#[tokio::test]
async fn a_filter_leaves_out_what_is_not_wanted_and_no_more() {
    let server = Server::start();
    let client = server.client("ws");
    let german = "{\"key\":\"lang\",\"cmp\":\"eq\",\"val\":\"de\"}";
    let mut news = client.subscription("news").tags_filter(german).start().expect("a subscription");
    assert!(matches!(next(&mut news).await, Event::Subscribed(_)));
    for (n, lang) in [(1, "de"), (2, "fr"), (3, "de")] {
        publish_tagged(
            server.port,
            &format!("{{\"channel\":\"news\",\"data\":{n},\"tags\":{{\"lang\":\"{lang}\"}}}}"),
        );
    }
    assert_eq!((data(&mut news).await, data(&mut news).await), ("1".to_owned(), "3".to_owned()));
    assert!(client.subscription("x").tags_filter("{\"key\":1}").start().is_err());
}

/// Publishes by the HTTP API: a client's publications have no tags.
fn publish_tagged(port: u16, body: &str) {
    use std::io::{Read as _, Write as _};
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the API");
    let length = body.len();
    write!(
        socket,
        "POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("it takes it");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn over_long_poll_subscriptions_are_kept_and_calls_refused() {
    let server = Server::start();
    let publisher = server.client("ws");
    publisher.publish("news", "1").await.expect("it may publish");
    let begin = publisher.history("news", HistoryQuery::position()).await.expect("it may ask").position;
    publisher.publish("news", "2").await.expect("it may publish");

    let client = server.client("poll+http");
    let mut news = client.subscription("news").since(begin).start().expect("a subscription");
    assert!(matches!(next(&mut news).await, Event::Subscribed(_)));
    assert_eq!(next(&mut news).await, Event::Recovered { publications: 1 });
    assert_eq!(data(&mut news).await, "2");
    for n in 3..20 {
        publisher.publish("news", n.to_string()).await.expect("it may publish");
        assert_eq!(data(&mut news).await, n.to_string());
    }
    let refused = client.publish("news", "1").await;
    assert_eq!(refused, Err(Error::NotAvailable { transport: "poll" }));
    client.close().await;
}

#[tokio::test]
async fn a_server_without_websockets_is_reached_over_the_next_transport() {
    let server = Server::start();
    // The first transport's path is no endpoint here.
    let url = format!("ws://127.0.0.1:{}/nowhere", server.port);
    let client = Client::builder(&url).options(options()).build().expect("a client");
    let mut events = client.events();
    let mut news = client.subscribe("news").expect("a subscription");
    assert!(matches!(next(&mut news).await, Event::Subscribed(_)));
    assert_eq!(client.stats().transport, Some(Transport::Stream));
    let mut told = Vec::new();
    while let Some(ClientEvent::Transition(transition)) = events.try_next() {
        told.push(transition.to_string());
    }
    assert!(told.iter().any(|text| text.contains("HTTP 404")), "{told:?}");
}

#[tokio::test]
async fn a_reader_who_pauses_gets_everything_afterwards() {
    let server = Server::start();
    let publisher = server.client("ws");
    let few = Options { max_buffered: 10, ..options() };
    let url = format!("ws://127.0.0.1:{}", server.port);
    let client = Client::builder(&url).options(few).build().expect("a client");
    let mut news = client.subscribe("news").expect("a subscription");
    assert!(matches!(next(&mut news).await, Event::Subscribed(_)));
    for n in 0..90 {
        publisher.publish("news", n.to_string()).await.expect("it may publish");
    }
    for n in 0..90 {
        assert_eq!(data(&mut news).await, n.to_string());
    }
}
