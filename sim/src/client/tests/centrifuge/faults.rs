//! Silence, refusals, closes and nonsense.

use super::*;

#[test]
fn a_beat_is_answered_and_its_absence_noticed_ten_seconds_later() {
    let mut pair = Pair::subscribed(&[]);
    pair.wait(20.0);
    let beat = pair.server.connection.beat();
    pair.send(&beat);
    assert_eq!((pair.texts(), pair.events()), (vec!["{}".to_owned()], vec![Event::Beat]));
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + Duration::from_secs(35)));
    pair.wait(34.9);
    assert_eq!(pair.out.hang_up, None);
    pair.wait(0.1);
    assert_eq!(pair.out.hang_up, Some(HangUp::NoPing));
    assert_eq!(pair.client.poll_timeout(), None);
}

#[test]
fn every_message_is_a_sign_of_life_but_only_a_whole_one() {
    let mut pair = Pair::subscribed(&["a"]);
    pair.wait(34.0);
    pair.push("a", Push::Publication(publication(6)));
    pair.wait(34.0);
    pair.send(b"\x81\x02{");
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + Duration::from_secs(1)));
}

#[test]
fn a_beat_without_pong_is_not_answered() {
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&[])), Instant::now());
    let result = message::ConnectResult { pong: false, ..connected(vec![]) };
    pair.reply(1, message::Reply::Connect(Box::new(result)));
    pair.texts();
    pair.line("{}");
    assert_eq!(pair.texts(), Vec::<String>::new());
}

#[test]
fn a_refused_connect_is_final_unless_it_may_pass() {
    for (code, reconnect) in [
        (ErrorCode::Internal, true),
        (ErrorCode::TooManyRequests, true),
        (ErrorCode::TokenExpired, true),
        (ErrorCode::PermissionDenied, false),
    ] {
        let mut pair = Pair::open(make(Kind::WebSocket, settings(&["a"])), Instant::now());
        pair.refuse(1, code);
        let code = code.code();
        let mut expected = vec![Event::Refused { channel: None, code }];
        expected.extend((code == 109).then_some(Event::WantsToken));
        assert_eq!(pair.events(), expected);
        assert_eq!(pair.out.hang_up, Some(HangUp::Told { code, reconnect }));
        pair.out.hang_up = None;
        pair.close(CloseReason::BadRequest.into());
        assert_eq!((pair.events(), &pair.out.hang_up), (vec![], &None), "it hears nothing more");
    }
    let error = ReplyError { code: 4000, message: "custom".into(), temporary: false };
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&[])), Instant::now());
    pair.reply(1, message::Reply::Error(error));
    assert_eq!(pair.out.hang_up, Some(HangUp::Told { code: 4000, reconnect: false }));
}

#[test]
fn the_codes_of_a_close_say_whether_to_come_back() {
    for (code, text, reconnect) in [
        (3001, "shutdown", true),
        (3499, "x", true),
        (3500, "invalid token", false),
        (3999, "x", false),
        (3500, "", true),
        (4000, "x", true),
        (4500, "x", false),
        (4999, "x", false),
        (1009, "", false),
        (1002, "protocol error", true),
    ] {
        let mut pair = Pair::subscribed(&["a"]);
        pair.close(Close::custom(CloseReason::ForceDisconnect, code, text.to_owned()));
        let code = u32::from(code);
        assert_eq!(pair.events(), [Event::Told { code, text: text.to_owned() }]);
        assert_eq!(pair.out.hang_up, Some(HangUp::Told { code, reconnect }), "{code} {text:?}");
        let answer = pair.server.frames.decode(&mut &pair.out.bytes[..]).unwrap();
        assert_eq!(answer, Some(websocket::Event::Close { code: Some(code as u16), reason: String::new() }));
    }
    let mut pair = Pair::subscribed(&["a"]);
    pair.close(CloseReason::StateInvalidated.into());
    assert_eq!(pair.events()[1..], [Event::WantsToken]);
    assert!(pair.reconnect().texts()[0].contains("\"recover\":true,\"epoch\":\"_\""));
}

#[test]
fn a_handshake_that_is_refused_is_tried_again_whatever_the_status() {
    let mut client = make(Kind::WebSocket, settings(&[]));
    let mut out = Output::default();
    client.opened(Instant::now(), &mut out);
    client.handle_bytes(Instant::now(), b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", &mut out);
    assert_eq!(out.events, [Event::Refused { channel: None, code: 403 }]);
    assert_eq!(out.hang_up, Some(HangUp::Told { code: 403, reconnect: true }));
}

#[test]
fn patience_ends_after_five_seconds_and_what_follows_depends_on_what_was_asked() {
    let open = |channels: &[&str]| {
        let mut pair = Pair::open(make(Kind::WebSocket, settings(channels)), Instant::now());
        pair.texts();
        pair
    };
    let mut client = make(Kind::WebSocket, settings(&[]));
    let (now, mut out) = (Instant::now(), Output::default());
    client.opened(now, &mut out);
    assert_eq!(client.poll_timeout(), Some(now + Duration::from_secs(5)));
    client.handle_timeout(now + Duration::from_secs(5), &mut out);
    assert_eq!(out.hang_up, Some(HangUp::ConnectTimeout));

    let mut pair = open(&["a"]);
    pair.wait(5.0);
    assert_eq!(pair.out.hang_up, Some(HangUp::ConnectTimeout));

    let mut pair = open(&["a"]);
    pair.reply(1, message::Reply::Connect(Box::new(connected(vec![]))));
    pair.wait(4.9);
    assert_eq!(pair.out.hang_up, None);
    pair.wait(0.1);
    assert_eq!(pair.out.hang_up, Some(HangUp::CommandTimeout));

    let mut pair = Pair::subscribed(&["a"]);
    let publish = Action::Publish { channel: "a".to_owned(), data: "1".to_owned() };
    pair.act(publish.clone());
    pair.wait(5.0);
    let timed_out = Event::Replied { id: 3, asked: publish, what: Reply::TimedOut };
    assert_eq!((pair.events(), &pair.out.hang_up), (vec![timed_out], &None));
    pair.reply(3, message::Reply::Publish);
    assert_eq!((pair.events(), &pair.out.hang_up), (vec![], &None), "too late, but no surprise");
    pair.reply(3, message::Reply::Publish);
    assert!(pair.nonsense().contains("nothing waits for"));
}

#[test]
fn a_goodbye_waits_for_the_answer_or_five_seconds_and_hears_nothing_more() {
    for is_answered in [true, false] {
        let mut pair = Pair::subscribed(&["a"]);
        assert!(pair.act(Action::Goodbye));
        assert!(!pair.act(Action::Goodbye));
        let said = pair.server.frames.decode(&mut &pair.out.bytes[..]).unwrap();
        assert_eq!(said, Some(websocket::Event::Close { code: None, reason: String::new() }));
        pair.push("a", Push::Publication(publication(6)));
        assert_eq!((pair.events(), &pair.out.hang_up), (vec![], &None));
        if is_answered {
            pair.send(&frame::close(1000, ""));
        } else {
            assert_eq!(pair.client.poll_timeout(), Some(pair.now + Duration::from_secs(5)));
            pair.wait(5.0);
        }
        assert_eq!((pair.events(), pair.out.hang_up), (vec![], Some(HangUp::Done)));
    }
}

#[test]
fn a_token_that_runs_out_is_asked_for_and_refreshed() {
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&[])), Instant::now());
    let result = ConnectResult { ttl_seconds: Some(7), ..connected(vec![]) };
    pair.reply(1, message::Reply::Connect(Box::new(result)));
    assert!(!pair.act(Action::Refresh), "there is no token");
    pair.wait(7.0);
    assert_eq!(pair.events()[1..], [Event::WantsToken]);
    assert!(pair.act(Action::Token("fresh".to_owned())) && pair.act(Action::Refresh));
    assert_eq!(pair.texts()[1..], ["{\"refresh\":{\"token\":\"fresh\"},\"id\":2}"]);
    let refreshed = message::Reply::Refresh { client: client_id(), version: "v", ttl_seconds: Some(60) };
    pair.reply(2, refreshed);
    assert_eq!(pair.events(), [Event::Replied { id: 2, asked: Action::Refresh, what: Reply::Refreshed }]);
    assert!(pair.act(Action::Refresh));
    pair.refuse(3, ErrorCode::Expired);
    assert_eq!(pair.out.hang_up, Some(HangUp::Told { code: 110, reconnect: false }));
}

#[test]
fn what_breaks_the_contract_is_nonsense_and_says_where() {
    let subscribe_result = |more: &str| format!("{{\"id\":3,\"subscribe\":{{{more}}}}}");
    let watched = "\"recoverable\":true,\"positioned\":true,\"epoch\":\"abcdefgh\"";
    let cases = [
        ("".to_owned(), "EOF"),
        ("{}\n\n{}".to_owned(), "EOF"),
        ("nonsense".to_owned(), "expected"),
        ("{\"id\":9,\"publish\":{}}".to_owned(), "nothing waits for"),
        ("{\"id\":3}".to_owned(), "neither a beat"),
        ("{\"id\":3,\"publish\":{},\"error\":{\"code\":1}}".to_owned(), "neither a beat"),
        ("{\"id\":3,\"publish\":{}}".to_owned(), "does not answer subscribe"),
        ("{\"id\":4,\"presence\":{\"presence\":{}}}".to_owned(), "does not answer Publish"),
        ("{\"id\":5,\"error\":{\"code\":102}}".to_owned(), "unsubscribe"),
        (subscribe_result("\"recovered\":true,\"was_recovering\":true"), "not what was asked"),
        (subscribe_result("\"recovered\":true"), "recovered without"),
        (subscribe_result("\"publications\":[{\"data\":1}]"), "publications without"),
        (subscribe_result("\"recoverable\":true"), "epoch"),
        (subscribe_result("\"surprise\":true"), "unknown field"),
        ("{\"push\":{\"channel\":\"z\",\"pub\":{\"data\":1}}}".to_owned(), "\"z\", which is not subscribed"),
        ("{\"push\":{\"channel\":\"a\",\"pub\":{\"data\":1}}}".to_owned(), "without an offset"),
        ("{\"push\":{\"channel\":\"b\",\"pub\":{\"data\":1}}}".to_owned(), "not subscribed"),
        ("{\"push\":{\"channel\":\"z\",\"unsubscribe\":{}}}".to_owned(), "not subscribed"),
        ("{\"push\":{\"channel\":\"a\"}}".to_owned(), "of no kind"),
        ("{\"push\":{\"pub\":{\"data\":1}}}".to_owned(), "without a channel"),
        ("{\"push\":{\"disconnect\":{\"code\":3000}}}".to_owned(), "where the close frame says it"),
    ];
    let prepared = || {
        let mut pair = Pair::subscribed(&["a", "c"]);
        pair.act(Action::Subscribe("b".to_owned()));
        // The id of the subscribe is 4.
        pair.act(Action::Publish { channel: "a".to_owned(), data: "1".to_owned() });
        pair.act(Action::Unsubscribe("c".to_owned()));
        pair
    };
    for (line, what) in cases {
        // Ids 1 to 3 were used before.
        let line = (3..=5)
            .rev()
            .fold(line, |line, id| line.replace(&format!("\"id\":{id}"), &format!("\"id\":{}", id + 1)));
        let mut pair = prepared();
        pair.line(&line);
        assert!(pair.nonsense().contains(what), "{line}: {}", pair.nonsense());
        assert_eq!(pair.client.poll_timeout(), None);
    }
    let mut pair = prepared();
    pair.line(&format!("{{\"id\":4,\"subscribe\":{{{watched}}}}}"));
    assert_eq!(pair.out.hang_up, None, "the frame around the cases is right");

    for (bytes, what) in [
        (&b"\x82\x01x"[..], "not agreed on"),
        (b"\xc1\x01x", "RSV1"),
        (b"\x81\x82abcd", "mask"),
        (b"\x81\x01\xff", "UTF-8"),
        (b"\x88\x04\x0b\xb9{}", "JSON"),
    ] {
        let mut pair = prepared();
        pair.send(bytes);
        assert!(pair.nonsense().contains(what), "{}", pair.nonsense());
    }
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&["a"])), Instant::now());
    pair.line("{}");
    assert!(pair.nonsense().contains("not announced"));
    let mut pair = Pair::open(make(Kind::WebSocket, settings(&["a"])), Instant::now());
    pair.push("a", Push::Publication(publication(1)));
    assert!(pair.nonsense().contains("before the answer to connect"));
}

#[test]
fn the_delay_before_a_reconnect_grows_until_a_connect_succeeds() {
    let mut client = make(Kind::WebSocket, settings(&[]));
    let delays: Vec<Duration> = (0..40).map(|_| client.reconnect_delay()).collect();
    assert!(delays[0] >= Duration::from_millis(500) && delays[0] < Duration::from_secs(1));
    assert!(
        delays.iter().all(|delay| *delay >= Duration::from_millis(500) && *delay <= Duration::from_secs(20))
    );
    assert!(delays[10..].iter().any(|delay| *delay > Duration::from_secs(10)));
    let mut pair = Pair::open(client, Instant::now());
    pair.reply(1, message::Reply::Connect(Box::new(connected(vec![]))));
    assert!(pair.client.reconnect_delay() < Duration::from_secs(1));
}

#[test]
fn a_byte_that_is_changed_anywhere_does_no_worse_than_nonsense() {
    let settings = Settings { offer_deflate: true, ..settings(&["a"]) };
    let script = talk::eventful(settings.clone()).script;
    let mut refused = 0;
    for (index, step) in script.iter().enumerate() {
        let Step::Bytes(bytes) = step else { continue };
        for at in 0..bytes.len() {
            for change in [0x01, 0x20, 0x80] {
                let mut client = make(Kind::WebSocket, settings.clone());
                let (now, mut out) = (Instant::now(), Output::default());
                client.opened(now, &mut out);
                for (step_index, step) in script.iter().enumerate() {
                    match step {
                        Step::Act(action) => drop(client.act(now, action.clone(), &mut out)),
                        Step::Bytes(bytes) => {
                            let mut bytes = bytes.clone();
                            if step_index == index {
                                bytes[at] ^= change;
                            }
                            client.handle_bytes(now, &bytes, &mut out);
                        }
                    }
                }
                refused += u32::from(matches!(out.hang_up, Some(HangUp::Nonsense(_))));
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}
