//! Publishing, asking and calling, with and without a connection.

use super::*;
use crate::error::Error;
use crate::options::{Outbox, WhenFull};
use crate::realtime::event::{HistoryQuery, Position, PresenceStats};
use crate::realtime::state::{Answer, Ticket};

fn poll(world: &mut World, ticket: &mut Ticket) -> Poll<Result<Answer, Error>> {
    let polled = world.state.poll_call(world.now, ticket, &mut Context::from_waker(Waker::noop()));
    world.pump();
    polled
}

#[test]
fn what_is_asked_without_a_connection_waits_and_is_said_in_order() {
    let mut world = World::new(settings());
    let mut tickets: Vec<Ticket> =
        (0..3).map(|n| world.state.publish("news", n.to_string().as_bytes(), false).unwrap()).collect();
    for ticket in &mut tickets {
        assert!(poll(&mut world, ticket).is_pending());
    }
    assert_eq!(world.state.unfinished().0, 3);
    world.log_in(json!({}));
    let heard = world.heard();
    let data: Vec<_> = heard.iter().map(|command| command["publish"]["data"].clone()).collect();
    assert_eq!(data, [0, 1, 2]);
    // Answers come in any order.
    for command in heard.iter().rev() {
        world.reply(command, json!({"publish": {}}));
    }
    for ticket in &mut tickets {
        assert_eq!(poll(&mut world, ticket), Poll::Ready(Ok(Answer::Done)));
    }
    assert_eq!(world.state.unfinished(), (0, 0));
}

#[test]
fn what_was_said_and_not_answered_is_unconfirmed_or_said_again_as_the_caller_wishes() {
    let mut world = World::connected(settings());
    let mut once = world.state.publish("news", b"1", false).unwrap();
    let mut often = world.state.publish("news", b"2", true).unwrap();
    let mut question = world.state.presence("news").unwrap();
    for ticket in [&mut once, &mut often, &mut question] {
        assert!(poll(&mut world, ticket).is_pending());
    }
    assert_eq!(world.heard().len(), 3);
    world.come_back(json!({}));
    assert_eq!(poll(&mut world, &mut once), Poll::Ready(Err(Error::Unconfirmed)));
    let heard = world.heard();
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[0]["publish"]["data"], 2);
    world.reply(&heard[0], json!({"publish": {}}));
    world.reply(&heard[1], json!({"presence": {"presence": {"c": {"user": "ada", "client": "c"}}}}));
    assert_eq!(poll(&mut world, &mut often), Poll::Ready(Ok(Answer::Done)));
    let Poll::Ready(Ok(Answer::Presence(clients))) = poll(&mut world, &mut question) else {
        panic!("an answer")
    };
    assert_eq!((clients.len(), clients[0].user.as_str()), (1, "ada"));
}

#[test]
fn a_refusal_and_a_server_that_does_not_answer_are_told_to_the_caller_alone() {
    let mut world = World::connected(settings());
    let mut refused = world.state.publish("news", b"1", false).unwrap();
    assert!(poll(&mut world, &mut refused).is_pending());
    let command = world.only();
    world.reply(&command, json!({"error": {"code": 103, "message": "permission denied"}}));
    let refusal = Error::Refused { code: 103, message: "permission denied".to_owned(), temporary: false };
    assert_eq!(poll(&mut world, &mut refused), Poll::Ready(Err(refusal)));

    let mut unanswered = world.state.rpc("sum", b"[1]", false).unwrap();
    assert!(poll(&mut world, &mut unanswered).is_pending());
    let command = world.only();
    world.seconds(10.1);
    assert_eq!(poll(&mut world, &mut unanswered), Poll::Ready(Err(Error::Timeout)));
    world.reply(&command, json!({"rpc": {"data": 1}}));
    assert!(world.state.is_connected());
}

#[test]
fn answers_say_what_was_asked_for() {
    let mut world = World::connected(settings());
    let since = Position { offset: 2, epoch: "abcd".into() };
    let query = HistoryQuery::limit(5).since(since).reverse();
    let mut history = world.state.history("news", &query).unwrap();
    assert!(poll(&mut world, &mut history).is_pending());
    let command = world.only();
    let asked =
        json!({"channel": "news", "limit": 5, "since": {"offset": 2, "epoch": "abcd"}, "reverse": true});
    assert_eq!(command["history"], asked);
    let publications = json!([{"data": "a", "offset": 3, "tags": {"lang": "de"}}]);
    world.reply(&command, json!({"history": {"publications": publications, "epoch": "abcd", "offset": 4}}));
    let Poll::Ready(Ok(Answer::History(history))) = poll(&mut world, &mut history) else {
        panic!("a history")
    };
    assert_eq!(history.position, Position { offset: 4, epoch: "abcd".into() });
    assert_eq!(history.publications[0].data, "\"a\"");
    assert_eq!(history.publications[0].tags, [("lang".into(), "de".into())]);

    let mut rpc = world.state.rpc("sum", b"", false).unwrap();
    assert!(poll(&mut world, &mut rpc).is_pending());
    let command = world.only();
    assert_eq!(command["rpc"], json!({"method": "sum"}));
    world.reply(&command, json!({"rpc": {"data": {"sum": 3}}}));
    assert_eq!(poll(&mut world, &mut rpc), Poll::Ready(Ok(Answer::Rpc("{\"sum\":3}".into()))));

    let mut stats = world.state.presence_stats("news").unwrap();
    assert!(poll(&mut world, &mut stats).is_pending());
    let command = world.only();
    world.reply(&command, json!({"presence_stats": {"num_clients": 3, "num_users": 2}}));
    let answer = Answer::PresenceStats(PresenceStats { clients: 3, users: 2 });
    assert_eq!(poll(&mut world, &mut stats), Poll::Ready(Ok(answer)));

    let mut confused = world.state.presence_stats("news").unwrap();
    assert!(poll(&mut world, &mut confused).is_pending());
    let command = world.only();
    world.reply(&command, json!({"publish": {}}));
    assert!(matches!(poll(&mut world, &mut confused), Poll::Ready(Err(Error::Protocol(_)))));
}

#[test]
fn what_has_no_answer_is_done_when_it_is_said() {
    let mut world = World::connected(settings());
    let mut send = world.state.send(b"{\"hello\":1}").unwrap();
    assert_eq!(poll(&mut world, &mut send), Poll::Ready(Ok(Answer::Done)));
    assert_eq!(world.only(), json!({"send": {"data": {"hello": 1}}}));
}

#[test]
fn what_is_given_up_before_it_was_said_is_never_said() {
    let mut world = World::new(settings());
    let mut ticket = world.state.publish("news", b"1", false).unwrap();
    assert!(poll(&mut world, &mut ticket).is_pending());
    world.state.cancel_call(&mut ticket);
    world.log_in(json!({}));
    assert_eq!(world.heard(), Vec::<Value>::new());
    assert_eq!(world.state.unfinished(), (0, 0));
}

#[test]
fn what_is_no_json_is_never_said() {
    let mut world = World::connected(settings());
    for wrong in [&b""[..], b"hello", b"{\"a\":1}\n{}", b"1}}"] {
        assert!(matches!(world.state.publish("news", wrong, false), Err(Error::BadArgument { .. })));
    }
    assert!(matches!(world.state.publish("", b"1", false), Err(Error::BadArgument { .. })));
    // JSON over several lines is one command all the same.
    let mut ticket = world.state.publish("news", b"{\n\"a\":\r\n1}", false).unwrap();
    assert!(poll(&mut world, &mut ticket).is_pending());
    assert_eq!(world.only()["publish"]["data"], json!({"a": 1}));
}

#[test]
fn the_end_answers_all_callers() {
    let mut world = World::connected(settings());
    let mut said = world.state.publish("news", b"1", false).unwrap();
    assert!(poll(&mut world, &mut said).is_pending());
    world.break_line();
    let mut waiting = world.state.publish("news", b"2", false).unwrap();
    assert!(poll(&mut world, &mut waiting).is_pending());
    world.state.close(world.now);
    assert_eq!(poll(&mut world, &mut said), Poll::Ready(Err(Error::Unconfirmed)));
    assert_eq!(poll(&mut world, &mut waiting), Poll::Ready(Err(Error::Closed)));
    let mut late = world.state.publish("news", b"3", false).unwrap();
    assert_eq!(poll(&mut world, &mut late), Poll::Ready(Err(Error::Closed)));
}

#[test]
fn what_is_said_again_keeps_the_order_in_which_it_entered() {
    let mut world = World::connected(settings());
    let mut tickets: Vec<Ticket> =
        (0..3).map(|n| world.state.publish("news", n.to_string().as_bytes(), true).unwrap()).collect();
    for n in [2, 0, 1] {
        assert!(poll(&mut world, &mut tickets[n]).is_pending());
    }
    let data = |heard: Vec<Value>| -> Vec<Value> {
        heard.iter().map(|command| command["publish"]["data"].clone()).collect()
    };
    assert_eq!(data(world.heard()), [2, 0, 1]);
    world.come_back(json!({}));
    assert_eq!(data(world.heard()), [2, 0, 1]);
}

#[test]
fn what_is_given_up_during_a_break_is_not_said_again() {
    let mut world = World::connected(settings());
    let mut ticket = world.state.publish("news", b"1", true).unwrap();
    assert!(poll(&mut world, &mut ticket).is_pending());
    assert_eq!(world.heard().len(), 1);
    world.break_line();
    world.state.cancel_call(&mut ticket);
    assert_eq!(world.state.unfinished(), (0, 0));
    world.wait_for_dial();
    world.log_in(json!({}));
    assert_eq!(world.heard(), Vec::<Value>::new());
}

#[test]
fn what_ends_every_connection_is_not_said_for_ever() {
    let mut world = World::connected(settings());
    let mut poison = world.state.publish("news", b"\"more than this server bears\"", true).unwrap();
    let mut other = world.state.publish("news", b"2", true).unwrap();
    assert!(poll(&mut world, &mut poison).is_pending());
    assert!(poll(&mut world, &mut other).is_pending());
    for round in 0..3 {
        assert_eq!(world.heard().len(), 2, "{round}");
        assert!(poll(&mut world, &mut poison).is_pending());
        world.close(3004, "internal server error");
        world.wait_for_dial();
        world.log_in(json!({}));
    }
    assert_eq!(poll(&mut world, &mut poison), Poll::Ready(Err(Error::Unconfirmed)));
    let command = world.only();
    assert_eq!(command["publish"]["data"], 2);
    world.reply(&command, json!({"publish": {}}));
    assert_eq!(poll(&mut world, &mut other), Poll::Ready(Ok(Answer::Done)));
}

#[test]
fn nothing_is_dropped_for_a_call_that_has_no_room_even_then() {
    let outbox = Outbox { max_bytes: 220, when_full: WhenFull::DropOldest, ..Outbox::default() };
    let mut world =
        World::connected(Settings { options: Options { outbox, ..settings().options }, ..settings() });
    let long = format!("\"{}\"", "x".repeat(100));
    let mut written = world.state.publish("news", long.as_bytes(), true).unwrap();
    assert!(poll(&mut world, &mut written).is_pending());
    assert_eq!(world.heard().len(), 1);
    world.break_line();
    let mut waiting = world.state.publish("news", b"1", false).unwrap();
    assert!(poll(&mut world, &mut waiting).is_pending());
    let mut another = world.state.publish("news", long.as_bytes(), false).unwrap();
    assert_eq!(poll(&mut world, &mut another), Poll::Ready(Err(Error::OutboxFull)));
    assert!(poll(&mut world, &mut waiting).is_pending());
    // Where it helps, the oldest goes.
    let mut few: Vec<Ticket> =
        (0..3).map(|_| world.state.publish("news", b"12345678901234567890", false).unwrap()).collect();
    let ends: Vec<_> = few.iter_mut().map(|ticket| poll(&mut world, ticket)).collect();
    assert!(ends.iter().all(Poll::is_pending), "{ends:?}");
    assert_eq!(poll(&mut world, &mut waiting), Poll::Ready(Err(Error::Dropped)));
}
