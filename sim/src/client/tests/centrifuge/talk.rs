//! What the server says, and what the client says back.

use super::*;

#[test]
fn connect_and_all_subscribes_are_one_message() {
    let mut settings = settings(&["a", "b\"c"]);
    settings.token = Some("t".to_owned());
    settings.channels[1] = Wanted {
        channel: "b\"c".to_owned(),
        token: Some("s".to_owned()),
        recoverable: false,
        positioned: false,
        join_leave: false,
        delta: false,
        filter: None,
    };
    let mut pair = Pair::open(make(Kind::WebSocket, settings), Instant::now());
    let expected = [
        "{\"connect\":{\"token\":\"t\",\"name\":\"js\"},\"id\":1}",
        &subscribe(2, "a", ""),
        "{\"subscribe\":{\"channel\":\"b\\\"c\",\"token\":\"s\",\"flag\":1},\"id\":3}",
    ];
    assert_eq!(pair.texts(), [expected.join("\n")]);
}

/// A connection on which everything happens.
pub(super) fn eventful(settings: Settings) -> Pair {
    let mut pair = Pair::open(make(Kind::WebSocket, settings), Instant::now());
    pair.reply(1, message::Reply::Connect(Box::new(connected(vec![("s".to_owned(), fresh(0))]))));
    pair.line("{\"id\":2,\"subscribe\":{\"recoverable\":true,\"positioned\":true,\"epoch\":\"abcdefgh\",\"offset\":5}}\n{}");
    pair.push("a", Push::Join(info()));
    pair.push("a", Push::Publication(publication(6)));
    pair.push("s", Push::Publication(publication(1)));
    pair.send(b"\x89\x02hi");
    pair.act(Action::Presence("a".to_owned()));
    pair.reply(3, message::Reply::Presence(vec![info()]));
    pair.act(Action::History("a".to_owned()));
    pair.reply(4, message::Reply::History { publications: vec![publication(6)], top: at(6) });
    pair.act(Action::Publish { channel: "a".to_owned(), data: "[1]".to_owned() });
    pair.reply(5, message::Reply::Publish);
    pair.push("a", Push::Leave(info()));
    pair.push("t", Push::Subscribe(Box::new(fresh(3))));
    let (code, reason) = message::unsubscribe::SERVER;
    pair.push("t", Push::Unsubscribe { code, reason });
    pair.close(CloseReason::Drain.into());
    pair
}

/// Runs a script again, the bytes of each step cut into pieces.
fn replay(settings: &Settings, script: &[Step], cut: impl Fn(usize, &[u8]) -> Vec<&[u8]>) -> Output {
    let mut client = make(Kind::WebSocket, settings.clone());
    let (now, mut out) = (Instant::now(), Output::default());
    client.opened(now, &mut out);
    out.bytes.clear();
    for (index, step) in script.iter().enumerate() {
        match step {
            Step::Bytes(bytes) => {
                for piece in cut(index, bytes) {
                    client.handle_bytes(now, piece, &mut out);
                }
            }
            Step::Act(action) => assert!(client.act(now, action.clone(), &mut out)),
        }
    }
    out
}

#[test]
fn the_same_bytes_give_the_same_events_wherever_they_are_cut() {
    for offer_deflate in [false, true] {
        let settings = Settings { offer_deflate, ..settings(&["a"]) };
        let whole = eventful(settings.clone());
        assert_eq!(whole.out.hang_up, Some(HangUp::Told { code: 3001, reconnect: true }));
        assert_eq!(whole.out.events.len(), 14, "{:#?}", whole.out.events);
        let is_compressed = whole.script.iter().any(|step| {
            matches!(step, Step::Bytes(bytes) if bytes.windows(2).any(|pair| pair[0] == 0xC1 && pair[1] > 64))
        });
        assert_eq!(is_compressed, offer_deflate);
        let mut cuts = 0;
        for (index, step) in whole.script.iter().enumerate() {
            let Step::Bytes(bytes) = step else { continue };
            for at in 0..=bytes.len() {
                let out = replay(&settings, &whole.script, |step, bytes| match step == index {
                    true => vec![&bytes[..at], &bytes[at..]],
                    false => vec![bytes],
                });
                assert_eq!(out, whole.out, "step {index} cut at {at}");
                cuts += 1;
            }
        }
        assert!(cuts > 500);
        assert_eq!(replay(&settings, &whole.script, |_, bytes| bytes.chunks(1).collect()), whole.out);
    }
}

#[test]
fn each_thing_the_server_says_is_one_event() {
    let mut pair = eventful(settings(&["a"]));
    let replied = |id, asked, what| Event::Replied { id, asked, what };
    let published =
        |channel: &str, offset| Event::Publication { channel: channel.to_owned(), heard: heard(offset) };
    let publish = Action::Publish { channel: "a".to_owned(), data: "[1]".to_owned() };
    let history = Reply::History { publications: vec![heard(6)], top: told(6).unwrap() };
    let expected = [
        Event::Connected { client: CLIENT.to_owned() },
        begun("s", 0),
        begun("a", 5),
        Event::Beat,
        Event::Join { channel: "a".to_owned(), client: CLIENT.to_owned() },
        published("a", 6),
        published("s", 1),
        replied(3, Action::Presence("a".to_owned()), Reply::Presence(vec![CLIENT.to_owned()])),
        replied(4, Action::History("a".to_owned()), history),
        replied(5, publish, Reply::Published),
        Event::Leave { channel: "a".to_owned(), client: CLIENT.to_owned() },
        begun("t", 3),
        Event::Unsubscribed { channel: "t".to_owned(), code: 2000 },
        Event::Told { code: 3001, text: "shutdown".to_owned() },
    ];
    assert_eq!(pair.events(), expected);
    let commands = [
        "{}",
        "{\"presence\":{\"channel\":\"a\"},\"id\":3}",
        "{\"history\":{\"channel\":\"a\",\"limit\":-1},\"id\":4}",
        "{\"publish\":{\"channel\":\"a\",\"data\":[1]},\"id\":5}",
    ];
    assert_eq!(pair.texts()[1..], commands);
}

#[test]
fn a_reconnect_recovers_from_the_last_publication_and_the_sdk_numbers_on() {
    let mut pair = Pair::subscribed(&["a"]);
    assert_eq!(pair.client.positions(), [("a".to_owned(), told(5).unwrap())].into());
    pair.push("a", Push::Publication(publication(6)));
    pair.push("a", Push::Publication(publication(9)));
    let mut pair = pair.reconnect();
    let connect = "{\"connect\":{\"name\":\"js\"},\"id\":3}";
    let since = ",\"recover\":true,\"offset\":9,\"epoch\":\"abcdefgh\"";
    assert_eq!(pair.texts(), [format!("{connect}\n{}", subscribe(4, "a", since))]);
    pair.reply(3, message::Reply::Connect(Box::new(connected(vec![]))));
    pair.events();
    pair.reply(4, message::Reply::Subscribe(Box::new(recovered(9, 11))));
    let expected = Event::Subscribed {
        channel: "a".to_owned(),
        position: told(9),
        was_recovering: true,
        recovered: true,
        since: told(9),
        filter: None,
        publications: vec![heard(10), heard(11)],
    };
    assert_eq!(pair.events(), [expected]);
    assert_eq!(pair.client.positions(), [("a".to_owned(), told(11).unwrap())].into());
}

#[test]
fn zero_values_are_left_out_of_what_asks_for_recovery() {
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&["a"])), Instant::now());
    pair.reply(1, message::Reply::Connect(Box::new(connected(vec![("s".to_owned(), fresh(0))]))));
    pair.reply(2, message::Reply::Subscribe(Box::new(fresh(0))));
    let mut pair = pair.reconnect();
    let since = "\"recover\":true,\"epoch\":\"abcdefgh\"";
    let connect = format!("{{\"connect\":{{\"name\":\"js\",\"subs\":{{\"s\":{{{since}}}}}}},\"id\":3}}");
    assert_eq!(pair.texts(), [format!("{connect}\n{}", subscribe(4, "a", &format!(",{since}")))]);
    pair.reply(3, message::Reply::Connect(Box::new(connected(vec![]))));
    assert!(pair.events().contains(&Event::Unsubscribed { channel: "s".to_owned(), code: 0 }));
    let mut pair = pair.reconnect();
    assert!(pair.texts()[0].starts_with("{\"connect\":{\"name\":\"js\"},\"id\":5}"), "it is forgotten");
}

#[test]
fn a_subscription_that_cannot_recover_does_not_ask_for_it() {
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&["a"])), Instant::now());
    pair.reply(1, message::Reply::Connect(Box::new(connected(vec![]))));
    pair.reply(2, message::Reply::Subscribe(Box::default()));
    pair.push("a", Push::Publication(publication(4)));
    let unwatched = Heard { epoch: None, ..heard(4) };
    assert_eq!(pair.events()[2..], [Event::Publication { channel: "a".to_owned(), heard: unwatched }]);
    assert!(pair.client.positions().is_empty());
    assert!(!pair.reconnect().texts()[0].contains("recover\":"));
}

#[test]
fn an_unsubscribe_push_is_final_below_2500_and_recovered_from_above() {
    let since = ",\"recover\":true,\"offset\":5,\"epoch\":\"abcdefgh\"";
    let lost = ",\"recover\":true,\"epoch\":\"_\"";
    for (code, more) in
        [(2000, None), (2499, None), (2500, Some(since)), (2501, Some(since)), (2502, Some(lost))]
    {
        let mut pair = Pair::subscribed(&["a"]);
        pair.push("a", Push::Unsubscribe { code, reason: "why" });
        assert_eq!(pair.events(), [Event::Unsubscribed { channel: "a".to_owned(), code }]);
        let expected: Vec<String> = more.map(|more| subscribe(3, "a", more)).into_iter().collect();
        assert_eq!(pair.texts(), expected, "{code}");
        pair.push("a", Push::Publication(publication(6)));
        assert!(pair.nonsense().contains("not subscribed"), "{code}");
    }
}

#[test]
fn a_passing_error_of_subscribe_is_tried_again_after_a_growing_delay() {
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&["a"])), Instant::now());
    pair.reply(1, message::Reply::Connect(Box::new(connected(vec![]))));
    pair.texts();
    pair.events();
    for id in 2..12 {
        pair.refuse(id, ErrorCode::Internal);
        assert_eq!(pair.events(), [Event::Refused { channel: Some("a".to_owned()), code: 100 }]);
        let delay = pair.client.poll_timeout().unwrap() - pair.now;
        assert!(delay >= Duration::from_millis(500) && delay <= Duration::from_secs(20), "{delay:?}");
        // Beats go on meanwhile.
        pair.line("{}");
        pair.texts();
        pair.wait(delay.as_secs_f64() + 1e-6);
        assert_eq!(pair.events(), [Event::Beat]);
        assert_eq!(pair.texts(), [subscribe(id + 1, "a", "")]);
    }
    pair.refuse(12, ErrorCode::PermissionDenied);
    pair.line("{}");
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + Duration::from_secs(35)), "it is not tried again");
    assert!(pair.act(Action::Subscribe("a".to_owned())), "it may be wished for again");
}

#[test]
fn what_still_comes_after_an_unsubscribe_belongs_to_the_subscription_before() {
    let mut pair = Pair::subscribed(&["a"]);
    assert!(pair.act(Action::Unsubscribe("a".to_owned())));
    assert!(!pair.act(Action::Unsubscribe("a".to_owned())));
    assert!(pair.act(Action::Subscribe("a".to_owned())));
    let since = ",\"recover\":true,\"offset\":5,\"epoch\":\"abcdefgh\"";
    let unsubscribe = "{\"unsubscribe\":{\"channel\":\"a\"},\"id\":3}".to_owned();
    assert_eq!(pair.texts(), [unsubscribe, subscribe(4, "a", since)]);
    pair.push("a", Push::Publication(publication(6)));
    pair.push("a", Push::Leave(info()));
    let (code, reason) = message::unsubscribe::INSUFFICIENT_STATE;
    pair.push("a", Push::Unsubscribe { code, reason });
    assert_eq!((pair.events(), pair.texts()), (vec![], vec![]));
    pair.reply(3, message::Reply::Unsubscribe);
    pair.reply(4, message::Reply::Subscribe(Box::new(recovered(5, 6))));
    assert!(
        matches!(&pair.events()[..], [Event::Subscribed { publications, .. }] if publications.len() == 1)
    );
    assert!(pair.act(Action::Unsubscribe("a".to_owned())));
    pair.reply(5, message::Reply::Unsubscribe);
    pair.push("a", Push::Publication(publication(7)));
    assert!(pair.nonsense().contains("not subscribed"));
}

#[test]
fn an_unsubscribe_that_overtakes_the_answer_to_subscribe_holds() {
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&["a"])), Instant::now());
    pair.reply(1, message::Reply::Connect(Box::new(connected(vec![]))));
    let (code, reason) = message::unsubscribe::SERVER;
    pair.push("a", Push::Unsubscribe { code, reason });
    pair.refuse(2, ErrorCode::Internal);
    assert_eq!(pair.out.hang_up, None);
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + Duration::from_secs(35)), "it does not try again");
}

#[test]
fn what_is_possible_depends_on_the_state() {
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&["a"])), Instant::now());
    assert!(!pair.act(Action::Presence("a".to_owned())), "the answer to connect has not come");
    assert!(pair.act(Action::Subscribe("b".to_owned())));
    assert!(!pair.act(Action::Subscribe("b".to_owned())));
    assert_eq!(pair.texts()[1..], [subscribe(3, "b", "")]);
    pair.client.lost(pair.now);
    assert!(!pair.act(Action::Goodbye) && !pair.act(Action::Garbage(vec![0])));
    assert!(pair.act(Action::Unsubscribe("a".to_owned())), "a wish needs no connection");
    let mut pair = pair.reconnect();
    assert!(pair.texts()[0].ends_with(&subscribe(5, "b", "")));
    assert!(pair.act(Action::Garbage(b"\xff\xff".to_vec())));
    assert_eq!(pair.out.bytes, b"\xff\xff");
}
