//! Subscriptions over breaks: positions, what may be lost, acknowledgements, and readers that are behind.

use super::bench::{Bench, delivery, message, publication, transaction};
use crate::error::Error;
use crate::machine::Machine;
use crate::options::{Options, Outbox};
use crate::stomp::message::{AckMode, Verdict};
use crate::stomp::outbox::Entry;
use crate::stomp::subscriptions::Wanted;
use longwire_protocol::{Epoch, Position};
use std::task::{Poll, Waker};
use std::time::Duration;

const SERVER: &str = "longwire/0.1.0";

fn wanted(destination: &str, headers: &[(&str, &str)]) -> Wanted {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Wanted { destination: destination.to_owned(), headers, ..Wanted::default() }
}

#[test]
fn a_topic_goes_on_where_it_stood() {
    let mut bench = Bench::connected();
    let topic = bench.subscribe("/topic/a", AckMode::Auto);
    assert_eq!(bench.frames(), ["SUBSCRIBE id:lw-1 destination:/topic/a ack:auto receipt:1"]);
    bench.say("RECEIPT\nreceipt-id:1\noffset:5\nepoch:abcdefgh\n\n\0");
    bench.say(&publication("lw-1", 6));
    assert_eq!(bench.events(topic), ["subscribed", "p6"]);
    bench.reset();
    bench.come_back(SERVER);
    assert_eq!(
        bench.frames(),
        ["SUBSCRIBE id:lw-1 destination:/topic/a ack:auto since-offset:6 since-epoch:abcdefgh receipt:2"]
    );
    bench.say("RECEIPT\nreceipt-id:2\nrecovered:true\noffset:6\nepoch:abcdefgh\n\n\0");
    bench.say(&publication("lw-1", 7));
    bench.reset();
    assert_eq!(bench.events(topic), ["subscribed again", "recovered", "p7"]);
    // What was to come before the break came is asked for again.
    bench.come_back(SERVER);
    assert!(bench.frames()[0].contains("since-offset:7 "));
}

#[test]
fn a_topic_without_publications_yet_has_a_position_too() {
    let mut bench = Bench::connected();
    bench.subscribe("/topic/a", AckMode::Auto);
    bench.say("RECEIPT\nreceipt-id:1\noffset:0\nepoch:abcdefgh\n\n\0");
    bench.reset();
    bench.come_back(SERVER);
    assert!(bench.frames().iter().any(|frame| frame.contains("since-offset:0 since-epoch:abcdefgh")));
}

#[test]
fn what_was_not_recovered_is_told_with_its_ends() {
    let mut bench = Bench::connected();
    let topic = bench.subscribe("/topic/a", AckMode::Auto);
    bench.say("RECEIPT\nreceipt-id:1\noffset:5\nepoch:abcdefgh\n\n\0");
    bench.reset();
    bench.come_back(SERVER);
    bench.say("RECEIPT\nreceipt-id:2\nrecovered:false\noffset:90\nepoch:abcdefgh\n\n\0");
    bench.say(&publication("lw-1", 91));
    assert_eq!(bench.events(topic), ["subscribed", "lost 5..90", "p91"]);
}

#[test]
fn a_publication_comes_once_and_a_gap_is_told() {
    let mut bench = Bench::connected();
    let topic = bench.subscribe("/topic/a", AckMode::Auto);
    for offset in [1, 2, 2, 1, 3, 7, 8] {
        bench.say(&publication("lw-1", offset));
    }
    assert_eq!(bench.events(topic), ["subscribed", "p1", "p2", "p3", "lost 3..7", "p7", "p8"]);
}

#[test]
fn who_begins_at_a_place_is_told_whether_something_is_missing() {
    let mut bench = Bench::connected();
    let since = Some(Position { offset: 3, epoch: Epoch::parse("abcdefgh") });
    let topic = bench.subscribe_as(Wanted { since, ..wanted("/topic/a", &[]) });
    assert!(bench.frames()[0].contains("since-offset:3 since-epoch:abcdefgh"));
    bench.say("RECEIPT\nreceipt-id:1\nrecovered:true\noffset:3\nepoch:abcdefgh\n\n\0");
    bench.say(&publication("lw-1", 4));
    assert_eq!(bench.events(topic), ["subscribed", "recovered", "p4"]);
}

#[test]
fn where_the_newest_alone_is_recovered_nothing_counts_as_missing() {
    let mut bench = Bench::connected();
    let topic = bench.subscribe("/topic/a", AckMode::Auto);
    bench.say("RECEIPT\nreceipt-id:1\noffset:5\nepoch:abcdefgh\n\n\0");
    bench.reset();
    bench.come_back(SERVER);
    // A channel that recovers the newest publication says with its RECEIPT which that is.
    bench.say("RECEIPT\nreceipt-id:2\nrecovered:true\noffset:9\nepoch:abcdefgh\n\n\0");
    bench.say(&publication("lw-1", 9));
    bench.say(&publication("lw-1", 10));
    assert_eq!(bench.events(topic), ["subscribed", "recovered", "p9", "p10"]);
}

#[test]
fn positions_mean_something_at_longwire_alone() {
    let mut bench = Bench::new(|builder| builder);
    bench.log_in("RabbitMQ/3.10.8");
    let topic = bench.subscribe("/topic/a", AckMode::Auto);
    bench.say(&publication("lw-1", 7));
    bench.say(&publication("lw-1", 7));
    bench.reset();
    bench.come_back("RabbitMQ/3.10.8");
    assert!(!bench.frames().concat().contains("since-offset"));
    bench.receipt("2");
    assert_eq!(bench.events(topic), ["subscribed", "p7", "p7", "subscribed again", "lost ?..?"]);
}

#[test]
fn a_break_costs_a_queue_nothing_that_waits_for_acknowledgements() {
    for (wanted, ack, is_safe) in [
        (wanted("/queue/a", &[]), AckMode::ClientIndividual, true),
        (wanted("/amq/queue/a", &[]), AckMode::Client, true),
        (wanted("/topic/a", &[("durable", "true")]), AckMode::Client, true),
        (wanted("/topic/a", &[("activemq.subscriptionName", "x")]), AckMode::Client, true),
        (wanted("/queue/a", &[]), AckMode::Auto, false),
        (wanted("/topic/a", &[("durable", "true")]), AckMode::Auto, false),
        (wanted("/topic/a", &[]), AckMode::Client, false),
        (wanted("/temp-queue/a", &[]), AckMode::Client, false),
        (wanted("/exchange/a", &[]), AckMode::Client, false),
    ] {
        let shown = format!("{wanted:?} {ack:?}");
        let mut bench = Bench::connected();
        let subscription = bench.subscribe_as(Wanted { ack, ..wanted });
        bench.receipt("1");
        bench.reset();
        bench.come_back(SERVER);
        bench.receipt("2");
        let events = bench.events(subscription);
        let expected: &[&str] = if is_safe { &["subscribed"] } else { &["subscribed", "lost ?..?"] };
        assert_eq!(events, expected, "{shown}");
    }
}

#[test]
fn what_the_broker_delivers_again_is_not_handed_out_twice() {
    let mut bench = Bench::connected();
    let queue = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    bench.say(&delivery("lw-1", "1", "a"));
    bench.say(&delivery("lw-1", "2", "b"));
    let first = bench.message(queue);
    bench.reset();
    assert_eq!(bench.events(queue), [""; 0], "the second comes again");
    assert_eq!(bench.settle(&first, Verdict::Ack), Err(Error::StaleMessage));
    bench.come_back(SERVER);
    assert_eq!(bench.settle(&first, Verdict::Ack), Err(Error::StaleMessage), "not on this connection either");
    bench.say(&delivery("lw-1", "3", "a"));
    let again = bench.message(queue);
    bench.frames();
    assert_eq!(bench.settle(&again, Verdict::Ack), Ok(None));
    assert_eq!(bench.frames(), ["ACK id:d-3"]);
}

#[test]
fn what_a_topic_said_before_the_break_is_still_read() {
    let mut bench = Bench::connected();
    let topic = bench.subscribe("/topic/a", AckMode::Client);
    bench.say(&publication("lw-1", 1));
    bench.reset();
    assert_eq!(bench.events(topic), ["subscribed", "p1"]);
}

#[test]
fn an_acknowledgement_of_all_before_is_said_once() {
    let mut bench = Bench::connected();
    let queue = bench.subscribe("/queue/a", AckMode::Client);
    for number in 1..=3 {
        bench.say(&delivery("lw-1", &number.to_string(), "x"));
    }
    let messages = [bench.message(queue), bench.message(queue), bench.message(queue)];
    bench.frames();
    assert_eq!(bench.settle(&messages[1], Verdict::Ack), Ok(None));
    assert_eq!(bench.settle(&messages[0], Verdict::Ack), Ok(None));
    assert_eq!(bench.frames(), ["ACK id:d-2"]);
    assert_eq!(bench.settle(&messages[2], Verdict::Reject), Ok(None));
    assert_eq!(bench.frames(), ["NACK id:d-3 requeue:false"]);
}

#[test]
fn a_transaction_counts_among_the_acknowledgements_of_all_before() {
    let mut bench = Bench::connected();
    let queue = bench.subscribe("/queue/a", AckMode::Client);
    for number in 1..=5 {
        bench.say(&delivery("lw-1", &number.to_string(), "x"));
    }
    let messages: Vec<_> = (0..5).map(|_| bench.message(queue)).collect();
    bench.frames();
    assert_eq!(bench.settle(&messages[0], Verdict::Ack), Ok(None));
    let settlements =
        |of: &[usize]| of.iter().map(|at| messages[*at].settlement(Verdict::Ack).unwrap()).collect();
    bench.offer(transaction(&[], settlements(&[0, 3, 2]))).unwrap();
    let frames = bench.frames();
    assert_eq!(frames.len(), 4, "{frames:?}");
    assert!(frames[0] == "ACK id:d-1" && frames[2].starts_with("ACK id:d-4 "), "{frames:?}");
    // A broker would end the connection of it.
    assert_eq!(bench.settle(&messages[1], Verdict::Ack), Ok(None));
    assert_eq!(bench.frames(), [""; 0]);
    assert!(matches!(bench.settle(&messages[2], Verdict::Nack), Err(Error::BadArgument { .. })));
    assert_eq!(bench.settle(&messages[4], Verdict::Ack), Ok(None));
    assert_eq!(bench.frames(), ["ACK id:d-5"]);
}

#[test]
fn what_was_said_about_a_later_message_is_not_taken_back() {
    let mut bench = Bench::connected();
    let queue = bench.subscribe("/queue/a", AckMode::Client);
    for number in 1..=4 {
        bench.say(&delivery("lw-1", &number.to_string(), "x"));
    }
    let messages: Vec<_> = (0..4).map(|_| bench.message(queue)).collect();
    bench.frames();
    assert_eq!(bench.settle(&messages[1], Verdict::Ack), Ok(None));
    // A broker would end the connection of it.
    assert!(matches!(bench.settle(&messages[0], Verdict::Nack), Err(Error::BadArgument { .. })));
    assert_eq!(bench.settle(&messages[3], Verdict::Nack), Ok(None));
    // It comes again: nobody is told that it is done.
    assert!(matches!(bench.settle(&messages[2], Verdict::Ack), Err(Error::BadArgument { .. })));
    assert_eq!(bench.frames(), ["ACK id:d-2", "NACK id:d-4"]);
}

#[test]
fn a_confirmed_acknowledgement_is_open_when_the_connection_breaks() {
    let mut bench = Bench::connected();
    let queue = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    bench.receipt("1");
    for number in 1..=2 {
        bench.say(&delivery("lw-1", &number.to_string(), "x"));
    }
    let settlements =
        [bench.message(queue), bench.message(queue)].map(|it| it.settlement(Verdict::Ack).unwrap());
    bench.frames();
    let now = bench.now;
    let calls = settlements.map(|it| bench.state.settle(now, &it, true).unwrap().unwrap());
    assert_eq!(bench.frames(), ["ACK id:d-1 receipt:2", "ACK id:d-2 receipt:3"]);
    bench.receipt("2");
    bench.reset();
    assert!(matches!(bench.result(calls[0]), Some(Ok(_))));
    assert_eq!(bench.result(calls[1]), Some(Err(Error::Unconfirmed)));
}

#[test]
fn a_reader_that_is_far_behind_stops_the_reading_and_no_silence_is_counted() {
    let options = Options { max_buffered: 3, ..Options::default() };
    let mut bench = Bench::with(options, |builder| builder);
    bench.log_in(SERVER);
    let queue = bench.subscribe("/queue/a", AckMode::Auto);
    let line = bench.line.unwrap();
    bench.say(&delivery("lw-1", "1", "a").repeat(2));
    assert!(bench.state.wants_bytes(line));
    bench.say(&delivery("lw-1", "2", "b").repeat(3));
    assert!(!bench.state.wants_bytes(line));
    bench.send("without an answer");
    bench.sleep(Duration::from_secs(300));
    assert_eq!(bench.line, Some(line));
    assert_eq!(bench.events(queue).len(), 6);
    assert!(bench.state.wants_bytes(line));
    bench.sleep(Duration::from_secs(9));
    assert_eq!(bench.line, Some(line), "the answers have their time again");
    bench.sleep(Duration::from_secs(2));
    assert_ne!(bench.line, Some(line));
}

#[test]
fn who_awaits_an_answer_that_cannot_be_read_is_told_in_time() {
    let outbox = Outbox { max_sends: 1, ..Outbox::default() };
    let options = Options { max_buffered: 1, outbox, ..Options::default() };
    let mut bench = Bench::with(options, |builder| builder);
    bench.log_in(SERVER);
    let topic = bench.subscribe("/topic/a", AckMode::Auto);
    bench.receipt("1");
    bench.say(&publication("lw-1", 1));
    let line = bench.line.unwrap();
    assert!(!bench.state.wants_bytes(line));
    // Whoever reads may be the one who waits.
    let call = bench.send("one");
    bench.sleep(Duration::from_secs(9));
    assert_eq!(bench.result(call), None);
    bench.sleep(Duration::from_secs(2));
    assert_eq!(bench.result(call), Some(Err(Error::Timeout)));
    let two = Entry::new(message("two"), true, true);
    assert_eq!(bench.state.offer(bench.now, two, None).err(), Some(Error::OutboxFull));
    assert_eq!(bench.line, Some(line));
    // What it sent is still to be confirmed.
    assert_eq!(bench.events(topic), ["subscribed", "p1"]);
    assert_eq!(bench.state.outbox.len().0, 1);
    bench.receipt(&call.to_string());
    assert_eq!(bench.state.outbox.len().0, 0);
}

#[test]
fn closing_does_not_wait_for_a_reader_that_is_behind() {
    let options = Options { max_buffered: 2, ..Options::default() };
    let mut bench = Bench::with(options, |builder| builder);
    bench.log_in(SERVER);
    let topic = bench.subscribe("/topic/a", AckMode::Auto);
    bench.receipt("1");
    bench.say(&publication("lw-1", 1).repeat(2).replacen("offset:1", "offset:0", 1));
    let line = bench.line.unwrap();
    assert!(!bench.state.wants_bytes(line));
    bench.state.close(bench.now);
    bench.drive();
    assert!(bench.state.wants_bytes(line), "the farewell is to be answered");
    for offset in 2..100 {
        bench.say(&publication("lw-1", offset));
    }
    bench.receipt("2");
    assert_eq!(bench.state.poll_closed(&mut 0, Waker::noop()), Poll::Ready(()));
    assert_eq!(bench.events(topic).len(), 4, "what waited can still be read, and no more than that");
}

#[test]
fn large_messages_stop_the_reading_before_they_are_many() {
    let options = Options { max_message_bytes: 1 << 20, ..Options::default() };
    let mut bench = Bench::with(options, |builder| builder);
    bench.log_in(SERVER);
    let queue = bench.subscribe("/queue/a", AckMode::Auto);
    let line = bench.line.unwrap();
    let body = "x".repeat(600_000);
    bench.say(&delivery("lw-1", "1", &body));
    assert!(bench.state.wants_bytes(line));
    bench.say(&delivery("lw-1", "2", &body));
    assert!(!bench.state.wants_bytes(line));
    bench.message(queue);
    assert!(bench.state.wants_bytes(line));
}

#[test]
fn a_login_is_read_whoever_is_behind() {
    let options = Options { max_buffered: 1, ..Options::default() };
    let mut bench = Bench::with(options, |builder| builder);
    bench.log_in(SERVER);
    bench.subscribe("/topic/a", AckMode::Auto);
    bench.say(&publication("lw-1", 1));
    bench.reset();
    while bench.line.is_none() {
        bench.wait();
    }
    bench.accept();
    let line = bench.line.unwrap();
    assert!(bench.state.wants_bytes(line));
    bench.say("CONNECTED\nversion:1.2\nserver:longwire\n\n\0");
    assert!(!bench.state.wants_bytes(line));
}

#[test]
fn prefetch_is_asked_for_in_the_brokers_words() {
    for (server, words) in [
        ("longwire/0.1.0", "prefetch-count:9 "),
        ("RabbitMQ/3.10.8", "prefetch-count:9 "),
        ("ActiveMQ/5.17.2", "activemq.prefetchSize:9 "),
        ("ActiveMQ-Artemis/2.30.0", ""),
        ("Other", "prefetch-count:9 activemq.prefetchSize:9 "),
    ] {
        let mut bench = Bench::new(|builder| builder);
        bench.log_in(server);
        bench.subscribe_as(Wanted { prefetch: Some(9), ..wanted("/queue/a", &[("selector", "a > 1")]) });
        assert_eq!(
            bench.frames(),
            [format!("SUBSCRIBE id:lw-1 destination:/queue/a ack:auto {words}selector:a > 1 receipt:1")],
            "{server}"
        );
    }
}

#[test]
fn a_subscription_that_is_refused_ends_and_does_not_come_back() {
    let mut bench = Bench::connected();
    let bad = bench.subscribe("/queue/bad", AckMode::Auto);
    let good = bench.subscribe("/queue/good", AckMode::Auto);
    bench.frames();
    bench.say("ERROR\nmessage:no\nreceipt-id:1\n\nno\n\nx (3507 permission denied)\n\0");
    assert_eq!(bench.events(bad), ["ended: the server refused with 3507: no"]);
    bench.come_back(SERVER);
    assert_eq!(bench.frames(), ["SUBSCRIBE id:lw-2 destination:/queue/good ack:auto receipt:3"]);
    bench.receipt("3");
    assert_eq!(bench.events(good), ["subscribed"]);
}

#[test]
fn a_subscription_that_is_refused_for_a_time_is_asked_for_again() {
    let mut bench = Bench::connected();
    let queue = bench.subscribe("/queue/a", AckMode::Auto);
    bench.frames();
    bench.say("ERROR\nmessage:exclusive\nreceipt-id:1\n\nexclusive\n\nx (3018 queue unavailable)\n\0");
    assert_eq!(bench.events(queue), [""; 0]);
    bench.come_back(SERVER);
    assert_eq!(bench.frames(), ["SUBSCRIBE id:lw-1 destination:/queue/a ack:auto receipt:2"]);
}

#[test]
fn who_unsubscribes_gives_back_what_nobody_took() {
    let mut bench = Bench::connected();
    let queue = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    for number in 1..=3 {
        bench.say(&delivery("lw-1", &number.to_string(), "x"));
    }
    bench.message(queue);
    bench.frames();
    let call = bench.state.unsubscribe(bench.now, queue, true, false).unwrap().unwrap();
    assert_eq!(
        bench.frames(),
        ["NACK id:d-2", "NACK id:d-3", &format!("UNSUBSCRIBE id:lw-1 destination:/queue/a receipt:{call}")]
    );
    // What was on its way meanwhile goes back, too.
    bench.say(&delivery("lw-1", "4", "x"));
    assert_eq!(bench.frames(), ["NACK id:d-4"]);
    bench.receipt(&call.to_string());
    assert!(matches!(bench.result(call), Some(Ok(_))));
    bench.reset();
    bench.come_back(SERVER);
    assert_eq!(bench.frames(), [""; 0]);
}

#[test]
fn activemq_is_never_told_that_a_message_is_bad_that_nobody_looked_at() {
    let mut bench = Bench::new(|builder| builder);
    bench.log_in("ActiveMQ/5.17.2");
    let durable = [("activemq.subscriptionName", "x"), ("other", "y")];
    let queue = bench.subscribe_as(Wanted { ack: AckMode::ClientIndividual, ..wanted("/topic/a", &durable) });
    bench.say(&delivery("lw-1", "1", "x"));
    bench.frames();
    bench.state.unsubscribe(bench.now, queue, true, true).unwrap();
    assert_eq!(
        bench.frames(),
        [
            "UNSUBSCRIBE id:lw-1 destination:/topic/a",
            "UNSUBSCRIBE id:lw-1 destination:/topic/a activemq.subscriptionName:x receipt:2",
        ]
    );
    bench.say(&delivery("lw-1", "2", "x"));
    assert_eq!(bench.frames(), [""; 0]);
}

#[test]
fn a_durable_subscription_is_given_up_only_when_the_broker_says_so() {
    let mut bench = Bench::connected();
    let durable = || wanted("/topic/a", &[("durable", "true")]);
    let topic = bench.subscribe_as(durable());
    let call = bench.state.unsubscribe(bench.now, topic, true, true).unwrap().unwrap();
    bench.reset();
    assert_eq!(bench.result(call), Some(Err(Error::Unconfirmed)));
    let topic = bench.subscribe_as(durable());
    let unasked = bench.state.unsubscribe(bench.now, topic, true, true);
    assert!(matches!(unasked, Err(Error::BadArgument { .. })), "{unasked:?}");
    // One that ends with its connection is over.
    bench.come_back(SERVER);
    let queue = bench.subscribe("/queue/a", AckMode::Auto);
    let call = bench.state.unsubscribe(bench.now, queue, true, false).unwrap().unwrap();
    bench.reset();
    assert!(matches!(bench.result(call), Some(Ok(_))));
}

#[test]
fn two_subscriptions_have_two_ids() {
    let mut bench = Bench::connected();
    bench.subscribe_as(Wanted { id: "mine".to_owned(), ..wanted("/queue/a", &[]) });
    let twice = Wanted { id: "mine".to_owned(), ..wanted("/queue/b", &[]) };
    assert!(matches!(bench.state.subscribe(bench.now, twice), Err(Error::BadArgument { .. })));
    assert!(Wanted { id: "lw-1".to_owned(), ..wanted("/queue/b", &[]) }.fault().is_some());
    // Each gets its own.
    let other = bench.subscribe_as(wanted("/queue/b", &[]));
    bench.say(&delivery("mine", "1", "a"));
    bench.say(&delivery(&format!("lw-{other}"), "2", "b"));
    for nobodys in ["lw-1", "lw-x", "lw-+2", "else"] {
        bench.say(&delivery(nobodys, "3", "c"));
    }
    assert_eq!(bench.events(other), ["subscribed", "b"]);
}

#[test]
fn a_reader_that_is_away_finds_many_breaks_as_one() {
    let mut bench = Bench::connected();
    let topic = bench.subscribe("/topic/a", AckMode::Auto);
    bench.say("RECEIPT\nreceipt-id:1\noffset:5\nepoch:abcdefgh\n\n\0");
    let mut last = 5;
    for number in 2..100 {
        bench.reset();
        bench.come_back(SERVER);
        // What is recovered goes on behind the last place, what is not at the newest.
        let (recovered, place) = if number % 2 == 0 { (true, last) } else { (false, number) };
        bench.say(&format!(
            "RECEIPT\nreceipt-id:{number}\nrecovered:{recovered}\noffset:{place}\nepoch:abcdefgh\n\n\0"
        ));
        last = place;
    }
    assert_eq!(bench.events(topic), ["subscribed", "lost 5..99"]);
}

#[test]
fn a_double_is_acknowledged_and_told_to_nobody() {
    let mut bench = Bench::connected();
    let watched = Wanted { ack: AckMode::ClientIndividual, doubles: 10, ..wanted("/queue/a", &[]) };
    let queue = bench.subscribe_as(watched);
    let double = |number: &str, id: &str| {
        delivery("lw-1", number, number).replacen('\n', &format!("\nx-deduplication-id:{id}\n"), 1)
    };
    bench.say(&double("1", "a"));
    bench.say(&double("2", "b"));
    let (done, given_back) = (bench.message(queue), bench.message(queue));
    bench.settle(&done, Verdict::Ack).unwrap();
    bench.settle(&given_back, Verdict::Nack).unwrap();
    bench.frames();
    bench.say(&double("3", "a"));
    assert_eq!(bench.frames(), ["ACK id:d-3"]);
    bench.say(&double("4", "b"));
    bench.say(&double("5", "c"));
    bench.say(&delivery("lw-1", "6", "6"));
    bench.say(&delivery("lw-1", "7", "7"));
    assert_eq!(bench.events(queue), ["4", "5", "6", "7"]);
    // The acknowledgement was lost, the work was not.
    bench.reset();
    bench.come_back(SERVER);
    bench.frames();
    bench.say(&double("8", "a"));
    bench.say(&double("9", "b"));
    assert_eq!(bench.frames(), ["ACK id:d-8"]);
    assert_eq!(bench.events(queue), ["subscribed again", "9"]);
    let cumulative = Wanted { ack: AckMode::Client, doubles: 1, ..wanted("/queue/a", &[]) };
    assert!(cumulative.fault().is_some());
}

#[test]
fn a_double_in_a_topic_leaves_no_gap_behind() {
    let mut bench = Bench::connected();
    let topic = bench.subscribe_as(Wanted { doubles: 10, ..wanted("/topic/a", &[]) });
    for (offset, id) in [(1, "a"), (2, "a"), (3, "b")] {
        let named = format!("\nx-deduplication-id:{id}\n");
        bench.say(&publication("lw-1", offset).replacen('\n', &named, 1));
    }
    assert_eq!(bench.events(topic), ["subscribed", "p1", "p3"]);
}

#[test]
fn what_a_transaction_acknowledged_is_known_as_done() {
    let mut bench = Bench::connected();
    let watched = Wanted { ack: AckMode::ClientIndividual, doubles: 10, ..wanted("/queue/a", &[]) };
    let queue = bench.subscribe_as(watched);
    let double =
        |number: &str| delivery("lw-1", number, number).replacen('\n', "\nx-deduplication-id:a\n", 1);
    bench.say(&double("1"));
    let job = bench.message(queue).settlement(Verdict::Ack).unwrap();
    let call = bench.offer(transaction(&["result"], vec![job])).unwrap();
    bench.receipt(&call.to_string());
    bench.reset();
    bench.come_back(SERVER);
    bench.frames();
    bench.say(&double("2"));
    assert_eq!(bench.frames(), ["ACK id:d-2"]);
    assert_eq!(bench.events(queue), ["subscribed again"]);
}

#[test]
fn a_subscription_of_which_three_connections_end_is_given_up() {
    let mut bench = Bench::new(|builder| builder);
    let bad = bench.subscribe("/exchange/nowhere", AckMode::Auto);
    let good = bench.subscribe("/queue/a", AckMode::Auto);
    bench.log_in("RabbitMQ/3.10.8");
    for _ in 0..3 {
        assert_eq!(bench.events(bad), [""; 0]);
        bench.say("ERROR\nmessage:not_found\n\nNOT_FOUND - no exchange 'nowhere'\n\0");
        bench.come_back("RabbitMQ/3.10.8");
    }
    let text = "the server refused with 0: not_found: NOT_FOUND - no exchange 'nowhere'";
    assert_eq!(bench.events(bad), [format!("ended: {text}")]);
    assert_eq!(bench.frames().len(), 1);
    bench.say(&delivery("lw-2", "1", "a"));
    assert_eq!(bench.events(good), ["subscribed", "a"]);
}
