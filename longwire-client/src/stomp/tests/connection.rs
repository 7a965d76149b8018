//! Login, heartbeats, what ends a connection, and the end of the client.

use super::bench::{Bench, delivery, message};
use crate::cause::Cause;
use crate::error::Error;
use crate::machine::Machine;
use crate::options::{Options, Reconnect, Timeouts};
use crate::stomp::message::{AckMode, Verdict};
use crate::stomp::outbox::{Confirmed, Entry};
use crate::transition::{Limit, Transition};
use longwire_protocol::{Advice, Category};
use std::task::{Poll, Waker};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_connection_begins_with_the_login_then_the_subscriptions_then_what_waits() {
    let mut bench = Bench::new(|builder| builder);
    bench.subscribe("/queue/a", AckMode::ClientIndividual);
    bench.send("one");
    let connect = bench.accept();
    assert_eq!(
        connect,
        "CONNECT accept-version:1.0,1.1,1.2 host:/ login:ada passcode:pw heart-beat:10000,10000"
    );
    assert!(!bench.state.core.is_logged_in());
    bench.say("CONNECTED\nversion:1.2\n\n\0");
    assert!(bench.state.core.is_logged_in());
    assert_eq!(
        bench.frames(),
        [
            "SUBSCRIBE id:lw-1 destination:/queue/a ack:client-individual receipt:2",
            "SEND destination:/queue/a receipt:1 = one",
        ]
    );
}

#[test]
fn a_login_that_is_refused_is_final_and_says_why() {
    let mut bench = Bench::new(|builder| builder);
    let call = bench.send("one");
    let subscription = bench.subscribe("/queue/a", AckMode::Auto);
    bench.accept();
    bench.say("ERROR\nmessage:Bad CONNECT\n\nAccess refused for user 'ada'\n\0");
    let text = "Bad CONNECT: Access refused for user 'ada'".to_owned();
    let cause = Cause::Told { code: 0, text, advice: Advice::Stop, after: None };
    let end = Error::GaveUp { cause: cause.clone(), limit: Limit::Advice };
    assert_eq!(bench.result(call), Some(Err(end.clone())));
    assert_eq!(bench.events(subscription), [format!("ended: {end}")]);
    assert_eq!(bench.state.poll_connected(&mut 0, Waker::noop()), Poll::Ready(Err(end.clone())));
    assert_eq!(bench.offer(Entry::new(message("two"), true, true)), Err(end));
    assert!(bench.transitions().contains(&Transition::GaveUp { cause, limit: Limit::Advice }));
    assert!(bench.state.is_over());
}

#[test]
fn a_broker_that_took_a_login_before_may_refuse_some_on_its_way_down() {
    let mut bench = Bench::new(|builder| builder);
    bench.log_in("ActiveMQ/5.17.2");
    let call = bench.send("one");
    bench.frames();
    let refuse = |bench: &mut Bench, times: usize| {
        for _ in 0..times {
            while bench.line.is_none() {
                bench.wait();
            }
            bench.accept();
            bench.say("ERROR\nmessage:the broker is being stopped\n\n\0");
        }
    };
    bench.reset();
    refuse(&mut bench, 4);
    bench.come_back("ActiveMQ/5.17.2");
    assert_eq!(bench.frames().len(), 1);
    bench.reset();
    refuse(&mut bench, 4);
    assert_eq!(bench.result(call), None);
    refuse(&mut bench, 1);
    assert_eq!(bench.result(call), Some(Err(Error::Unconfirmed)));
    assert!(bench.state.is_over());
}

#[test]
fn this_end_beats_at_half_of_what_was_agreed_upon() {
    let mut bench = Bench::connected();
    let mut beats = Vec::new();
    let start = bench.now;
    for second in 1..=60 {
        bench.sleep(SECOND);
        bench.drive();
        if !bench.out.is_empty() {
            assert_eq!(std::mem::take(&mut bench.out), b"\n");
            beats.push(second);
        }
        bench.say("\n");
    }
    assert_eq!(bench.now - start, 60 * SECOND);
    assert!((11..=12).contains(&beats.len()), "{beats:?}");
    assert!(beats.windows(2).all(|pair| pair[1] - pair[0] <= 6), "{beats:?}");
}

#[test]
fn a_broker_that_says_nothing_is_dead_after_two_and_a_half_intervals() {
    let mut bench = Bench::connected();
    bench.sleep(24 * SECOND);
    bench.say("\n");
    bench.sleep(24 * SECOND);
    assert!(bench.line.is_some());
    bench.sleep(2 * SECOND);
    assert_eq!(bench.cause(), Some(Cause::Silent { silence: 25 * SECOND }));
}

#[test]
fn where_no_heart_beat_is_agreed_upon_silence_means_nothing() {
    let mut bench = Bench::new(|builder| builder);
    bench.accept();
    bench.say("CONNECTED\nversion:1.2\n\n\0");
    bench.sleep(3600 * SECOND);
    assert!(bench.line.is_some() && bench.state.core.is_logged_in());
}

#[test]
fn a_command_without_its_answer_ends_the_connection() {
    let mut bench = Bench::connected();
    let call = bench.send("one");
    bench.frames();
    for _ in 0..9 {
        bench.sleep(SECOND);
        bench.say("\n");
    }
    assert!(bench.line.is_some());
    bench.sleep(SECOND);
    assert_eq!(bench.cause(), Some(Cause::CommandTimeout("SEND")));
    bench.come_back("longwire/0.1.0");
    assert_eq!(bench.frames(), ["SEND destination:/queue/a receipt:1 = one"]);
    bench.receipt("1");
    assert_eq!(bench.result(call), Some(Ok(Confirmed { resent: 1 })));
    bench.say("\n");
    bench.sleep(20 * SECOND);
    assert!(bench.line.is_some(), "nothing is awaited");
}

#[test]
fn an_answer_gives_the_others_their_time_again() {
    let mut bench = Bench::connected();
    for number in 1..=5 {
        bench.send(&number.to_string());
    }
    for number in 1..=4 {
        bench.sleep(8 * SECOND);
        bench.receipt(&number.to_string());
    }
    bench.sleep(8 * SECOND);
    assert!(bench.line.is_some());
    bench.sleep(3 * SECOND);
    assert_eq!(bench.cause(), Some(Cause::CommandTimeout("SEND")));
}

#[test]
fn an_error_ends_the_connection_and_the_client_comes_back() {
    let mut bench = Bench::connected();
    bench.say("ERROR\nmessage:shutdown\n\nshutdown\n\nx (3001 shutdown)\n\0");
    let cause = bench.cause().unwrap();
    assert_eq!(cause.advice(), Advice::ReconnectAfter);
    assert_eq!(cause.category(), Category::Server);
    assert_eq!(cause.to_string(), "the server said 3001: shutdown");
    bench.come_back("longwire/0.1.0");
    assert!(bench.state.core.is_logged_in());
}

#[test]
fn what_is_no_stomp_ends_the_connection() {
    for (said, rule) in [
        ("HTTP/1.1 400 Bad Request\r\nnonsense\r\n", "no colon"),
        ("GREETINGS\n\n\0", "\"GREETINGS\""),
        ("MESSAGE\nsubscription:a\\qb\n\nx\0", "escape"),
        ("MESSAGE\ncontent-length:1\n\nxyz\0", "NUL"),
    ] {
        let mut bench = Bench::connected();
        bench.say(said);
        match bench.cause() {
            Some(Cause::Protocol(what)) => assert!(what.contains(rule), "{what}"),
            other => panic!("{said:?}: {other:?}"),
        }
    }
    let mut bench = Bench::new(|builder| builder);
    bench.accept();
    bench.say("RECEIPT\nreceipt-id:1\n\n\0");
    assert!(
        matches!(bench.cause(), Some(Cause::Protocol(what)) if what.contains("neither CONNECTED nor ERROR"))
    );
}

#[test]
fn half_a_frame_does_not_outlive_its_connection() {
    let mut bench = Bench::connected();
    let subscription = bench.subscribe("/queue/a", AckMode::Auto);
    bench.say("MESSAGE\nsubscription:lw-1\n\nhal");
    bench.reset();
    bench.come_back("longwire/0.1.0");
    bench.say(&delivery("lw-1", "1", "whole"));
    assert_eq!(bench.message(subscription).body, "whole");
}

#[test]
fn closing_waits_for_the_receipts_of_what_was_sent() {
    let mut bench = Bench::connected();
    let call = bench.send("one");
    bench.state.close(bench.now);
    assert_eq!(bench.offer(Entry::new(message("two"), true, true)), Err(Error::Closed));
    // Brokers that confirm what is on disk answer a DISCONNECT before that, and confirm nothing behind it.
    assert_eq!(bench.frames(), ["SEND destination:/queue/a receipt:1 = one"]);
    bench.receipt("1");
    assert_eq!(bench.result(call), Some(Ok(Confirmed { resent: 0 })));
    assert_eq!(bench.frames(), ["DISCONNECT receipt:2"]);
    assert_eq!(bench.state.poll_closed(&mut 0, Waker::noop()), Poll::Pending);
    bench.receipt("2");
    assert_eq!(bench.state.poll_closed(&mut 0, Waker::noop()), Poll::Ready(()));
    assert_eq!(bench.line, None);
    assert!(bench.state.is_over());
    assert_eq!(bench.transitions().last(), Some(&Transition::Closed));
}

#[test]
fn closing_ends_in_time_also_when_the_broker_does_not_answer() {
    let mut bench = Bench::connected();
    let call = bench.send("one");
    bench.state.close(bench.now);
    bench.sleep(11 * SECOND);
    assert_eq!(bench.state.poll_closed(&mut 0, Waker::noop()), Poll::Ready(()));
    assert_eq!(bench.result(call), Some(Err(Error::Unconfirmed)));
    assert!(bench.state.is_over());
}

#[test]
fn closing_ends_in_time_also_when_the_farewell_is_not_answered() {
    let mut bench = Bench::connected();
    bench.state.close(bench.now);
    assert_eq!(bench.frames(), ["DISCONNECT receipt:1"]);
    bench.sleep(11 * SECOND);
    assert_eq!(bench.state.poll_closed(&mut 0, Waker::noop()), Poll::Ready(()));
    assert!(bench.state.is_over());
}

#[test]
fn closing_without_a_connection_ends_at_once() {
    let mut bench = Bench::connected();
    let written = bench.send("one");
    bench.reset();
    let waiting = bench.send("two");
    let subscription = bench.subscribe("/queue/a", AckMode::Auto);
    bench.state.close(bench.now);
    assert_eq!(bench.state.poll_closed(&mut 0, Waker::noop()), Poll::Ready(()));
    assert_eq!(bench.result(written), Some(Err(Error::Unconfirmed)), "the broker may have it");
    assert_eq!(bench.result(waiting), Some(Err(Error::Closed)));
    assert_eq!(bench.events(subscription), ["ended: the client is closed"]);
    assert_eq!(bench.next(subscription).map(drop), None);
}

#[test]
fn who_leaves_says_so() {
    let mut bench = Bench::connected();
    bench.state.leave(bench.now);
    assert_eq!(bench.state.poll_closed(&mut 0, Waker::noop()), Poll::Ready(()));
    let mut written = Vec::new();
    while let Some(output) = bench.state.poll_output() {
        if let crate::machine::Output::Transmit { bytes, .. } = output {
            written.extend_from_slice(&bytes);
        }
    }
    assert_eq!(written, b"DISCONNECT\n\n\0");
}

#[test]
fn when_attempts_are_over_everybody_is_told() {
    let reconnect = Reconnect { max_attempts: Some(2), ..Reconnect::default() };
    let options = Options { reconnect, seed: Some(7), ..Options::default() };
    let mut bench = Bench::with(options, |builder| builder);
    let call = bench.send("one");
    while bench.state.end.is_none() {
        match bench.line {
            Some(line) => {
                bench.state.handle_dialled(bench.now, line, Err(Cause::Refused));
                bench.drive();
            }
            None => bench.wait(),
        }
    }
    let end = Error::GaveUp { cause: Cause::Refused, limit: Limit::Attempts };
    assert_eq!(bench.result(call), Some(Err(end)));
}

#[test]
fn a_slow_listener_loses_the_oldest_transitions_and_the_rest_is_bounded() {
    let mut bench = Bench::connected();
    for _ in 0..1000 {
        bench.reset();
        bench.come_back("longwire/0.1.0");
    }
    let transitions = bench.transitions();
    assert_eq!(transitions.len(), 1024);
    assert!(matches!(transitions.last(), Some(Transition::Connected { again: true, .. })));
}

#[test]
fn frames_that_are_cut_anywhere_mean_the_same() {
    let mut bench = Bench::connected();
    let subscription = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    let call = bench.send("one");
    let said = format!(
        "\n\n{}RECEIPT\r\nreceipt-id:{call}\r\n\r\n\0\n{}",
        delivery("lw-1", "1", "a"),
        delivery("lw-1", "2", "b")
    );
    for byte in said.chars() {
        bench.say(&byte.to_string());
    }
    assert_eq!(bench.events(subscription), ["subscribed", "a", "b"]);
    assert_eq!(bench.result(call), Some(Ok(Confirmed { resent: 0 })));
}

#[test]
fn the_oldest_version_is_spoken_with_whoever_knows_no_other() {
    let mut bench = Bench::new(|builder| builder);
    let subscription = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    bench.accept();
    bench.say("CONNECTED\nsession: x\n\n\0");
    bench.say("MESSAGE\ndestination: /queue/a\nmessage-id: m:1\n\nbody\0");
    bench.frames();
    let received = bench.message(subscription);
    assert_eq!(received.head.get("message-id").as_deref(), Some("m:1"));
    assert!(matches!(bench.settle(&received, Verdict::Nack), Err(Error::BadArgument { .. })));
    assert_eq!(bench.settle(&received, Verdict::Ack), Ok(None));
    assert_eq!(bench.frames(), ["ACK message-id:m:1"]);
}

#[test]
fn a_time_without_an_end_is_one_like_any_other() {
    let mut options = Options { seed: Some(7), ..Options::default() };
    let Options { timeouts, reconnect, .. } = &mut options;
    let never = Duration::MAX;
    *timeouts = Timeouts { connect: never, login: never, write: never, command: never, silence: never };
    (reconnect.first_delay, reconnect.max_delay, reconnect.stable_after) = (never, never, never);
    let mut bench = Bench::with(options, |builder| builder.heart_beat(never, never));
    bench.log_in("longwire/0.1.0");
    let call = bench.send("one");
    bench.sleep(3600 * SECOND);
    assert_eq!(bench.result(call), None);
    bench.reset();
    bench.come_back("longwire/0.1.0");
    assert_eq!(bench.frames().len(), 1);
}

#[test]
fn an_idle_client_is_small() {
    // With its socket and its task it has 4 096 bytes.
    assert!(size_of::<crate::stomp::State>() <= 1792, "{}", size_of::<crate::stomp::State>());
}
