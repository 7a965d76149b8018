//! One client's life across transports: what it read on one it does not read again on the next, and misses nothing.

use super::{Lines, Packets, epoch_of, polled, quoted, since, tcp_server, welcomed};
use crate::harness::{End, Events, Link, Received, TestServer, get, in_seconds, token, until};
use longwire::config::FirstPacket;
use longwire_protocol::CloseReason;
use serde_json::{Value, json};

/// What a client knows, as the documentation says that it should be kept.
#[derive(Default)]
struct Reader {
    /// The last id of each of the two channels.
    ids: [Option<String>; 2],
    /// Offset by offset what was read.
    read: [Vec<u64>; 2],
}

impl Reader {
    fn index(channel: &str) -> usize {
        usize::from(channel == "kept:b")
    }

    /// Takes a publication in its envelope.
    #[track_caller]
    fn take(&mut self, publication: &Value) {
        let channel = publication["channel"].as_str().unwrap_or_else(|| panic!("{publication}"));
        let index = Reader::index(channel);
        self.read[index].push(publication["offset"].as_u64().expect("an offset"));
        if let Some(id) = publication["id"].as_str() {
            self.ids[index] = Some(id.to_owned());
        }
    }

    /// Takes a position in both channels.
    fn stand(&mut self, token: &str) {
        // A poll's says besides which answer it is.
        for entry in token.split(',').filter(|entry| !entry.starts_with('=')) {
            let channel = entry.split('=').next().expect("a name");
            self.ids[Reader::index(channel)] = Some(entry.to_owned());
        }
    }

    fn since(&self) -> String {
        self.ids.iter().flatten().cloned().collect::<Vec<_>>().join(",")
    }
}

#[test]
fn a_client_that_changes_its_transport_in_mid_life_loses_and_doubles_nothing() {
    let (server, tcp) = tcp_server(|_| {}, |listener| listener.first_packet = FirstPacket::Json);
    let _ = (epoch_of(&server, "kept:a"), epoch_of(&server, "kept:b"));
    let mut published = [0u64; 2];
    // While nobody reads, and while somebody does: one into each channel.
    let mut publish = |reader: &Reader| {
        for (count, channel) in published.iter_mut().zip(["kept:a", "kept:b"]) {
            *count += 1;
            assert_eq!(server.publish(channel, *count)["offset"], *count);
        }
        // What was not read by now was published meanwhile.
        published[0] + published[1] - (reader.read[0].len() + reader.read[1].len()) as u64
    };
    let mut reader = Reader::default();
    const CHANNELS: &str = "channels=kept:a,kept:b";

    // Over WebSocket, to begin with.
    let (mut socket, welcome) = welcomed(&server, CHANNELS);
    reader.stand(welcome["id"].as_str().expect("an id"));
    for _ in 0..publish(&reader) {
        reader.take(&socket.value());
    }
    drop(socket);

    // Event streams.
    publish(&reader);
    let missed = publish(&reader);
    let path = format!("/sse?{CHANNELS}&since={}", quoted(&reader.since()));
    let mut events = Events::open(server.address, &path, "");
    assert_eq!(events.next().value()["recovered"], true);
    for _ in 0..missed {
        let event = events.next();
        reader.take(&event.value());
        reader.stand(&event.id.expect("an id"));
    }
    for _ in 0..publish(&reader) {
        let event = events.next();
        reader.take(&event.value());
        reader.stand(&event.id.expect("an id"));
    }
    drop(events);

    // Polls.
    for _ in 0..3 {
        publish(&reader);
        let answer = polled(&server, &format!("{CHANNELS}&since={}", quoted(&reader.since())));
        assert_eq!(answer["recovered"], true, "{answer}");
        for publication in answer["publications"].as_array().expect("a list") {
            reader.take(publication);
        }
        reader.stand(&since(&answer));
    }

    // Lines.
    let missed = publish(&reader);
    let query = format!("{CHANNELS}&since={}", quoted(&reader.since()));
    let mut lines = Lines::open(server.address, &query, "");
    assert_eq!(lines.value()["recovered"], true);
    for _ in 0..missed {
        reader.take(&lines.value());
    }
    for _ in 0..publish(&reader) {
        reader.take(&lines.value());
    }
    drop(lines);

    // Packets.
    let missed = publish(&reader);
    let mut packets = Packets::open(tcp);
    packets.send(&json!({"channels": ["kept:a", "kept:b"], "since": reader.since()}).to_string());
    assert_eq!(packets.value()["recovered"], true);
    for _ in 0..missed {
        reader.take(&packets.value());
    }
    drop(packets);

    // And back.
    let missed = publish(&reader);
    let (mut socket, welcome) = welcomed(&server, &format!("{CHANNELS}&since={}", quoted(&reader.since())));
    assert_eq!(welcome["recovered"], true, "{welcome}");
    for _ in 0..missed {
        reader.take(&socket.value());
    }
    for (read, count) in reader.read.iter().zip(published) {
        assert_eq!(*read, (1..=count).collect::<Vec<u64>>());
    }
}

/// Waits until the one session is kept without a link: what is published from here on is not written to a socket
/// that nobody reads.
#[track_caller]
fn await_away(server: &TestServer) {
    let away = || server.server().node().counters.iter().map(|shard| shard.sessions_away.get()).sum::<u64>();
    until("the session to be away", || away() == 1);
}

#[test]
fn polls_by_the_name_that_was_given_are_one_client() {
    let server = TestServer::start();
    let first = polled(&server, "channels=seen:a,news");
    let name = quoted(first["name"].as_str().expect("a name"));
    assert_eq!(first.get("resumed"), None, "{first}");
    for n in 0..3 {
        await_away(&server);
        // No history has what is published between two polls of these; the session keeps it.
        server.publish("news", n);
        server.publish("seen:a", n);
        let next = polled(&server, &format!("channels=seen:a,news&client={name}"));
        assert_eq!((&next["client"], &next["resumed"]), (&first["client"], &json!(true)), "{next}");
        let data = next["publications"].as_array().expect("a list").iter();
        let data: Vec<&Value> =
            data.filter(|piece| piece.get("type").is_none()).map(|it| &it["data"]).collect();
        assert_eq!(data, [&json!(n), &json!(n)], "{next}");
    }
    let members = server.api("presence", &json!({"channel": "seen:a"}));
    let members = members["result"]["presence"].as_object().expect("members");
    assert_eq!(members.keys().collect::<Vec<_>>(), [first["client"].as_str().expect("an id")]);
}

#[test]
fn a_client_with_a_name_stays_the_same_whatever_carries_it() {
    let (server, tcp) = tcp_server(|_| {}, |listener| listener.first_packet = FirstPacket::Json);
    const QUERY: &str = "channels=news&client=device-42";
    let (socket, welcome) = welcomed(&server, QUERY);
    let client = welcome["client"].clone();
    // A break, not a farewell.
    drop(socket);
    await_away(&server);

    // Published while there is no link, into a channel without history.
    server.publish("news", 1);
    let mut events = Events::open(server.address, &format!("/sse?{QUERY}"), "");
    let first = events.next().value();
    assert_eq!((&first["client"], &first["resumed"]), (&client, &json!(true)), "{first}");
    assert_eq!(events.next().value(), json!({"channel": "news", "data": 1}));
    drop(events);
    await_away(&server);

    server.publish("news", 2);
    let answer = polled(&server, QUERY);
    assert_eq!((&answer["client"], &answer["resumed"]), (&client, &json!(true)), "{answer}");
    assert_eq!(answer["publications"], json!([{"channel": "news", "data": 2}]), "{answer}");

    await_away(&server);
    server.publish("news", 3);
    let mut lines = Lines::open(server.address, QUERY, "");
    let first = lines.value();
    assert_eq!((&first["client"], &first["resumed"]), (&client, &json!(true)), "{first}");
    assert_eq!(lines.value(), json!({"channel": "news", "data": 3}));
    drop(lines);
    await_away(&server);

    server.publish("news", 4);
    let mut packets = Packets::open(tcp);
    packets.send(r#"{"channels":["news"],"client":"device-42"}"#);
    let first = packets.value();
    assert_eq!((&first["client"], &first["resumed"]), (&client, &json!(true)), "{first}");
    assert_eq!(packets.value(), json!({"channel": "news", "data": 4}));

    // One that lives is replaced, and told so.
    let (_socket, welcome) = welcomed(&server, QUERY);
    assert_eq!((&welcome["client"], &welcome["resumed"]), (&client, &json!(true)), "{welcome}");
    let told = packets.value();
    assert_eq!((&told["type"], &told["code"]), (&json!("disconnect"), &json!(3510)), "{told}");
    assert_eq!(packets.link.await_end(), End::Closed);
}

#[test]
fn a_second_client_of_a_name_is_refused_where_that_is_configured() {
    let server = TestServer::with(|config| {
        config.plain.second_connection = longwire::config::SecondConnection::Refuse;
    });
    let (mut socket, _) = welcomed(&server, "channels=news&client=device-42");
    let mut second = super::websocket(&server, "channels=news&client=device-42");
    let reason = CloseReason::ClientInUse;
    assert_eq!(second.next(), Received::Close(Some(reason.code()), reason.text().to_owned()));
    assert_eq!(super::poll(&server, "channels=news&client=device-42").status, reason.http_status());
    server.publish("news", 1);
    assert_eq!(socket.value()["data"], 1);
}

#[test]
fn a_client_that_says_farewell_is_gone_and_one_that_breaks_off_is_not() {
    let server = TestServer::start();
    let subscribers =
        || server.api("channels", &json!({}))["result"]["channels"]["news"]["num_clients"].clone();
    let (mut socket, first) = welcomed(&server, "channels=news&client=device-42");
    socket.send_bytes(&crate::framing_suite::frame(0x88, &1000u16.to_be_bytes()));
    until("nobody to be subscribed", || subscribers() == Value::Null);
    let (socket, second) = welcomed(&server, "channels=news&client=device-42");
    assert_ne!(first["client"], second["client"]);
    assert_eq!(second.get("resumed"), None, "{second}");
    drop(socket);
    let (_socket, third) = welcomed(&server, "channels=news&client=device-42");
    assert_eq!((&third["client"], &third["resumed"]), (&second["client"], &json!(true)), "{third}");
    assert_eq!(subscribers(), 1);
}

#[test]
fn what_is_asked_for_on_a_kept_connection_is_later_than_a_link_that_was_opened_meanwhile() {
    let server = TestServer::start();
    let ask = |path| format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let mut kept = Link::open(server.address);
    kept.send(ask("/health").as_bytes());
    assert_eq!(kept.response().status, 200);
    let (mut first, _) = welcomed(&server, "client=x");
    kept.send(ask("/stream?client=x").as_bytes());
    assert_eq!(kept.response().status, 200);
    assert_eq!(first.next(), Received::Close(Some(CloseReason::Replaced.code()), "replaced".to_owned()));
}

#[test]
fn a_channel_that_the_token_brings_and_since_does_not_name_is_not_recovered() {
    let server = TestServer::start();
    let token =
        token(&json!({"sub": "42", "exp": in_seconds(600), "channels": ["kept:a", "kept:b", "news"]}));
    let (_, welcome) = welcomed(&server, &format!("token={token}"));
    assert_eq!(welcome["type"], "subscribed", "{welcome}");
    let id = |channel: &str| welcome["channels"][channel]["id"].as_str().expect("an id").to_owned();
    let one = quoted(&id("kept:a"));
    let both = quoted(&format!("{},{}", id("kept:a"), id("kept:b")));
    server.publish("kept:a", 1);
    server.publish("kept:b", 1);
    for (since, is_named) in [(one, false), (both, true)] {
        for path in ["ws", "sse", "stream"] {
            let query = format!("token={token}&since={since}");
            let welcome = match path {
                "ws" => welcomed(&server, &query).1,
                "sse" => Events::open(server.address, &format!("/sse?{query}"), "").next().value(),
                _ => Lines::open(server.address, &query, "").value(),
            };
            let recovered = |channel: &str| welcome["channels"][channel].get("recovered");
            assert_eq!(
                (recovered("kept:a"), recovered("kept:b"), recovered("news")),
                (Some(&json!(true)), Some(&json!(is_named)), None),
                "{path} {welcome}"
            );
            assert_eq!(welcome["recovered"], is_named, "{path} {welcome}");
        }
        let answer = polled(&server, &format!("token={token}&since={since}"));
        assert_eq!(answer["recovered"], is_named, "{answer}");
    }
}

#[test]
fn a_client_that_returns_to_its_session_stands_where_the_server_stood_in_what_it_does_not_name() {
    let server = TestServer::start();
    let token = token(&json!({"sub": "42", "exp": in_seconds(600), "channels": ["kept:a", "kept:b"]}));
    let (mut socket, welcome) = welcomed(&server, &format!("client=x&token={token}"));
    let id = welcome["channels"]["kept:a"]["id"].as_str().expect("an id").to_owned();
    socket.send_bytes(&crate::framing_suite::frame(0x88, &1001u16.to_be_bytes()));
    await_away(&server);
    server.publish("kept:b", 1);
    let (mut socket, welcome) = welcomed(&server, &format!("client=x&token={token}&since={}", quoted(&id)));
    assert_eq!((&welcome["resumed"], &welcome["recovered"]), (&json!(true), &json!(true)), "{welcome}");
    assert_eq!(socket.value()["channel"], "kept:b");
}

#[test]
fn nobody_is_given_more_channels_with_positions_than_it_could_return_to() {
    let server = TestServer::with(|config| config.client.max_subscriptions = 500);
    let with =
        |channels: &[String]| token(&json!({"sub": "42", "exp": in_seconds(600), "channels": channels}));
    let short: Vec<String> = (0..129).map(|n| format!("kept:{n}")).collect();
    // Each letter of it takes five bytes in an address.
    let long: Vec<String> = (0..60).map(|n| format!("kept:{n}{}", "@".repeat(100))).collect();
    let status = CloseReason::ChannelLimit.http_status();
    for (channels, expected) in
        [(&short[..128], 200), (&short[..], status), (&long[..20], 200), (&long[..], status)]
    {
        let response = get(server.address, &format!("/poll?token={}", with(channels)), "");
        assert_eq!(response.status, expected, "{} {}", channels.len(), response.text());
        if expected == 200 {
            // It can say so.
            let at = since(&serde_json::from_slice(&response.body).expect("an answer"));
            let again = format!("/poll?token={}&wait=0&since={}", with(&channels[..1]), quoted(&at));
            let response = get(server.address, &again, "");
            assert_eq!(response.status, 200, "{} {}", channels.len(), response.text());
        }
    }
    // By the backend's order, too; what has no position may be more.
    let none: Vec<String> = (0..200).map(|n| format!("none{n}")).collect();
    let channels: Vec<String> = none.iter().chain(&short[..128]).cloned().collect();
    let (mut socket, _) = welcomed(&server, &format!("token={}", with(&channels)));
    server.api("subscribe", &json!({"user": "42", "channel": "one-more"}));
    assert_eq!(socket.value()["type"], "subscribe");
    server.api("subscribe", &json!({"user": "42", "channel": "kept:128"}));
    socket.expect_close(CloseReason::ChannelLimit);
}
