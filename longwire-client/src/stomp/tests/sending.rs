//! The outbox over breaks, refusals and transactions.

use super::bench::{Bench, delivery, message, outgoing, transaction};
use crate::error::Error;
use crate::machine::Machine;
use crate::options::{Options, Outbox, WhenFull};
use crate::stomp::calls::Offered;
use crate::stomp::message::{AckMode, Verdict};
use crate::stomp::outbox::{Confirmed, Entry, Load};
use crate::stomp::state::DEDUPLICATION_HEADER;
use std::task::Waker;

const SERVER: &str = "longwire/0.1.0";

#[test]
fn what_has_no_receipt_is_written_again_in_order_and_before_what_is_new() {
    let mut bench = Bench::connected();
    let calls: Vec<u64> = ["one", "two", "three"].iter().map(|body| bench.send(body)).collect();
    bench.receipt("2");
    assert_eq!(bench.result(calls[1]), Some(Ok(Confirmed { resent: 0 })));
    bench.frames();
    bench.reset();
    let late = bench.send("four");
    bench.come_back(SERVER);
    let bodies: Vec<String> =
        bench.frames().iter().map(|frame| frame[frame.len() - 5..].to_owned()).collect();
    assert_eq!(bodies, ["= one", "three", " four"]);
    for (id, call, resent) in [("1", calls[0], 1), ("3", calls[2], 1), ("4", late, 0)] {
        bench.receipt(id);
        assert_eq!(bench.result(call), Some(Ok(Confirmed { resent })), "{id}");
    }
    assert_eq!(bench.state.outbox.len(), (0, 0));
}

#[test]
fn a_later_receipt_does_not_confirm_what_came_before() {
    let mut bench = Bench::connected();
    let (first, second) = (bench.send("one"), bench.send("two"));
    bench.receipt("2");
    assert_eq!(bench.result(first), None);
    assert_eq!(bench.result(second), Some(Ok(Confirmed { resent: 0 })));
    bench.receipt("77");
    bench.receipt("x");
    assert_eq!(bench.result(first), None);
    bench.receipt("1");
    assert!(matches!(bench.result(first), Some(Ok(_))));
}

#[test]
fn an_error_that_names_a_send_ends_that_one_and_the_rest_goes_on() {
    let mut bench = Bench::connected();
    let (bad, good) = (bench.send("bad"), bench.send("good"));
    bench.frames();
    bench.say("ERROR\nmessage:permission denied\nreceipt-id:1\n\npermission denied\n\nx (3507 permission denied)\n\0");
    let message = "permission denied".to_owned();
    assert_eq!(bench.result(bad), Some(Err(Error::Refused { code: 3507, message, temporary: false })));
    bench.come_back(SERVER);
    assert_eq!(bench.frames(), ["SEND destination:/queue/a receipt:2 = good"]);
    bench.receipt("2");
    assert_eq!(bench.result(good), Some(Ok(Confirmed { resent: 1 })));
}

#[test]
fn a_full_queue_is_a_refusal_that_may_pass() {
    let mut bench = Bench::connected();
    let call = bench.send("one");
    bench.say("ERROR\nmessage:queue full\nreceipt-id:1\n\nqueue full\n\nx (3018 queue unavailable)\n\0");
    let error = bench.result(call).unwrap().unwrap_err();
    assert!(error.is_temporary(), "{error}");
}

#[test]
fn a_send_that_ends_three_connections_without_being_named_is_given_up() {
    let mut bench = Bench::connected();
    let (bad, good) = (bench.send("bad"), bench.send("good"));
    for _ in 0..3 {
        assert_eq!(bench.result(bad), None);
        bench.say("ERROR\nmessage:not allowed\n\n\0");
        bench.come_back(SERVER);
    }
    assert!(matches!(bench.result(bad), Some(Err(Error::Refused { .. }))));
    bench.receipt("2");
    assert_eq!(bench.result(good), Some(Ok(Confirmed { resent: 1 })));
}

#[test]
fn no_other_send_is_taken_for_the_one_of_which_connections_end() {
    let mut bench = Bench::new(|builder| builder);
    let calls: Vec<u64> = ["one", "two", "bad", "four"].iter().map(|body| bench.send(body)).collect();
    bench.log_in("RabbitMQ/3.10.8");
    // It refuses at once, and confirms what is on disk.
    let mut connections = 1;
    loop {
        let frames = bench.frames();
        if frames.is_empty() {
            break;
        }
        if frames.iter().any(|frame| frame.ends_with("= bad")) {
            bench.say("ERROR\nmessage:not allowed\n\n\0");
            bench.come_back("RabbitMQ/3.10.8");
            connections += 1;
            continue;
        }
        for frame in frames {
            let (_, rest) = frame.split_once("receipt:").expect("a receipt is asked for");
            bench.receipt(rest.split(' ').next().unwrap_or_default());
        }
    }
    let results: Vec<_> = calls.iter().map(|call| bench.result(*call).expect("an answer")).collect();
    assert!(matches!(results[2], Err(Error::Refused { .. })), "{results:?}");
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3, "{results:?}");
    assert!(connections <= 5, "{connections}");
}

#[test]
fn a_receipt_confirms_nothing_that_was_not_written() {
    let mut bench = Bench::connected();
    let body = "x".repeat(100_000);
    let calls: Vec<u64> = (0..10).map(|_| bench.send(&body)).collect();
    // The socket took nothing so far, so that the last of them waits.
    let said = format!("RECEIPT\nreceipt-id:{}\n\n\0", calls[9]);
    bench.state.handle_bytes(bench.now, bench.line.unwrap(), said.as_bytes());
    assert_eq!(bench.result(calls[9]), None);
    assert_eq!(bench.state.outbox.len().0, 10);
}

#[test]
fn who_wants_no_receipt_is_done_when_it_is_written() {
    let mut bench = Bench::new(|builder| builder);
    let call = bench.offer(Entry::new(message("one"), false, true)).unwrap();
    assert_eq!(bench.result(call), None);
    bench.log_in(SERVER);
    assert_eq!(bench.frames(), ["SEND destination:/queue/a = one"]);
    assert_eq!(bench.result(call), Some(Ok(Confirmed { resent: 0 })));
    bench.reset();
    bench.come_back(SERVER);
    assert_eq!(bench.frames(), [""; 0]);
}

#[test]
fn who_wants_no_resending_is_told_that_it_is_open() {
    let mut bench = Bench::connected();
    let call = bench.offer(Entry::new(message("one"), true, false)).unwrap();
    bench.reset();
    assert_eq!(bench.result(call), Some(Err(Error::Unconfirmed)));
    bench.come_back(SERVER);
    assert_eq!(bench.frames(), [""; 0]);
}

#[test]
fn the_outbox_gives_up_its_oldest_if_it_is_told_to() {
    let outbox = Outbox { max_sends: 2, when_full: WhenFull::DropOldest, ..Outbox::default() };
    let mut bench = Bench::with(Options { outbox, ..Options::default() }, |builder| builder);
    let calls: Vec<u64> = ["one", "two", "three"].iter().map(|body| bench.send(body)).collect();
    assert_eq!(bench.result(calls[0]), Some(Err(Error::Dropped)));
    bench.log_in(SERVER);
    assert_eq!(bench.frames().len(), 2);
}

#[test]
fn who_waits_for_room_is_called_when_there_is_some() {
    let outbox = Outbox { max_sends: 1, ..Outbox::default() };
    let mut bench = Bench::with(Options { outbox, ..Options::default() }, |builder| builder);
    bench.log_in(SERVER);
    bench.send("one");
    let entry = Entry::new(message("two"), true, true);
    let Ok(Offered::Wait(entry)) = bench.state.offer(bench.now, entry, None) else { panic!("there is room") };
    let mut ticket = None;
    bench.state.outbox.wait(&mut ticket, Waker::noop());
    bench.state.wakes.clear();
    bench.state.outbox.call_next(&mut bench.state.wakes);
    assert!(bench.state.wakes.is_empty(), "nobody is called in vain");
    let line = bench.line.unwrap();
    bench.state.handle_bytes(bench.now, line, b"RECEIPT\nreceipt-id:1\n\n\0");
    assert_eq!(bench.state.wakes.len(), 1);
    assert!(matches!(bench.state.offer(bench.now, entry, ticket), Ok(Offered::Taken(_))));
}

#[test]
fn a_slow_socket_is_given_no_more_than_it_takes() {
    let mut bench = Bench::connected();
    bench.frames();
    let body = "x".repeat(100_000);
    for _ in 0..50 {
        bench.send(&body);
    }
    // The driver could write nothing so far.
    assert!(bench.state.core.unwritten() < 512 << 10, "{}", bench.state.core.unwritten());
    let mut sends = 0;
    for _ in 0..50 {
        sends += bench.frames().len();
    }
    assert_eq!(sends, 50);
}

#[test]
fn a_transaction_is_written_whole_with_one_receipt() {
    let mut bench = Bench::connected();
    let subscription = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    bench.say(&delivery("lw-1", "7", "job"));
    let job = bench.message(subscription).settlement(Verdict::Ack).unwrap();
    bench.frames();
    let call = bench.offer(transaction(&["one", "two"], vec![job])).unwrap();
    assert_eq!(
        bench.frames(),
        [
            "BEGIN transaction:lw-2-0",
            "SEND destination:/queue/a transaction:lw-2-0 = one",
            "SEND destination:/queue/a transaction:lw-2-0 = two",
            "ACK id:d-7 transaction:lw-2-0",
            "COMMIT transaction:lw-2-0 receipt:2",
        ]
    );
    bench.receipt("2");
    assert_eq!(bench.result(call), Some(Ok(Confirmed { resent: 0 })));
}

#[test]
fn a_transaction_of_sends_is_written_again_under_another_name() {
    let mut bench = Bench::connected();
    let call = bench.offer(transaction(&["one"], Vec::new())).unwrap();
    bench.reset();
    bench.come_back(SERVER);
    assert_eq!(bench.frames()[0], "BEGIN transaction:lw-1-1");
    bench.receipt("1");
    assert_eq!(bench.result(call), Some(Ok(Confirmed { resent: 1 })));
}

#[test]
fn acknowledgements_of_a_transaction_do_not_outlive_their_connection() {
    let mut bench = Bench::connected();
    let subscription = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    bench.say(&delivery("lw-1", "7", "a"));
    bench.say(&delivery("lw-1", "8", "b"));
    let mut settle = || bench.message(subscription).settlement(Verdict::Ack).unwrap();
    let (first, second) = (settle(), settle());
    let written = bench.offer(transaction(&["one"], vec![first])).unwrap();
    bench.reset();
    assert_eq!(bench.result(written), Some(Err(Error::Unconfirmed)));
    // One that is committed after the break is of no connection that there is.
    let late = bench.offer(transaction(&["two"], vec![second])).unwrap();
    bench.come_back(SERVER);
    assert_eq!(bench.result(late), Some(Err(Error::StaleMessage)));
    assert!(bench.frames().iter().all(|frame| !frame.starts_with("BEGIN")));
}

#[test]
fn what_is_given_up_without_being_written_leaves_its_room_to_the_next() {
    let outbox = Outbox { max_sends: 1, ..Outbox::default() };
    let mut bench = Bench::with(Options { outbox, ..Options::default() }, |builder| builder);
    bench.log_in(SERVER);
    let subscription = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    bench.say(&delivery("lw-1", "7", "a"));
    let stale = bench.message(subscription).settlement(Verdict::Ack).unwrap();
    bench.reset();
    bench.come_back(SERVER);
    let first = bench.send("one");
    let (mut tickets, mut entries) = (Vec::new(), Vec::new());
    for entry in [transaction(&[], vec![stale]), Entry::new(message("two"), true, true)] {
        let Ok(Offered::Wait(entry)) = bench.state.offer(bench.now, entry, None) else {
            panic!("it is full")
        };
        let mut ticket = None;
        bench.state.outbox.wait(&mut ticket, Waker::noop());
        tickets.push(ticket);
        entries.push(entry);
    }
    bench.receipt(&first.to_string());
    bench.state.wakes.clear();
    let Ok(Offered::Taken(call)) = bench.state.offer(bench.now, entries.remove(0), tickets[0]) else {
        panic!("there is room")
    };
    assert_eq!(bench.result(call), Some(Err(Error::StaleMessage)));
    assert_eq!(bench.state.wakes.len(), 1, "the next in line is called");
}

#[test]
fn a_transaction_says_nothing_about_messages_of_a_subscription_that_is_gone() {
    let mut bench = Bench::new(|builder| builder);
    bench.log_in("RabbitMQ/3.10.8");
    let subscription = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    bench.say(&delivery("lw-1", "7", "a"));
    let late = bench.message(subscription).settlement(Verdict::Ack).unwrap();
    bench.state.unsubscribe(bench.now, subscription, false, false).unwrap();
    bench.frames();
    let call = bench.offer(transaction(&["one"], vec![late])).unwrap();
    assert_eq!(bench.result(call), Some(Err(Error::StaleMessage)));
    assert_eq!(bench.frames(), [""; 0]);
}

#[test]
fn artemis_is_told_the_id_by_which_it_drops_doubles() {
    let mut bench = Bench::new(|builder| builder);
    bench.log_in("ActiveMQ-Artemis/2.30.0");
    let mut double = outgoing("one");
    let id = bench.state.unique_id();
    assert_ne!(id, bench.state.unique_id());
    double.set(DEDUPLICATION_HEADER, &id);
    bench.offer(Entry::new(Load::Message(double), true, true)).unwrap();
    let once = bench.frames();
    assert_eq!(once[0].matches(&*id).count(), 2, "{once:?}");
    bench.reset();
    bench.come_back("ActiveMQ-Artemis/2.30.0");
    assert_eq!(bench.frames(), once);
}
