//! A client whose driver and broker are the test.

use crate::cause::Cause;
use crate::error::Error;
use crate::machine::{End, Line, Machine, Output};
use crate::options::Options;
use crate::stomp::Builder;
use crate::stomp::calls::Offered;
use crate::stomp::client::Client;
use crate::stomp::frame::Outgoing;
use crate::stomp::message::{AckMode, Received, Settlement, Verdict};
use crate::stomp::outbox::{Action, Confirmed, Entry, Load};
use crate::stomp::state::State;
use crate::stomp::subscriptions::{Queued, Wanted};
use crate::transition::Transition;
use bytes::Bytes;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now: Instant,
    /// The last socket that was dialled, if it was not closed.
    pub(super) line: Option<Line>,
    /// What was written to it and not looked at.
    pub(super) out: Vec<u8>,
    listener: u32,
}

impl Bench {
    pub(super) fn new(tell: impl FnOnce(Builder) -> Builder) -> Bench {
        Bench::with(Options { seed: Some(7), ..Options::default() }, tell)
    }

    pub(super) fn with(options: Options, tell: impl FnOnce(Builder) -> Builder) -> Bench {
        let builder = Client::builder("stomp://ada:pw@mq").options(options);
        let mut state = tell(builder).state().expect("a client");
        let now = Instant::now();
        let listener = state.listen();
        state.start(now);
        let mut bench = Bench { state, now, line: None, out: Vec::new(), listener };
        bench.drive();
        bench
    }

    /// A client that is logged in at longwire.
    pub(super) fn connected() -> Bench {
        let mut bench = Bench::new(|builder| builder);
        bench.log_in("longwire/0.1.0");
        bench
    }

    /// Takes what the client wants done.
    pub(super) fn drive(&mut self) {
        self.state.take_wakes();
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Dial { line, .. } => {
                    assert_eq!(self.line, None, "one connection at a time");
                    self.line = Some(line);
                    self.out.clear();
                }
                Output::Transmit { line, bytes } => {
                    assert_eq!(Some(line), self.line, "nothing is written elsewhere");
                    self.out.extend_from_slice(&bytes);
                }
                Output::Close { line, .. } => {
                    assert_eq!(Some(line), self.line);
                    self.line = None;
                }
            }
        }
        // Written at once.
        if let Some(line) = self.line {
            self.state.handle_unwritten(self.now, line, 0);
            while let Some(Output::Transmit { bytes, .. }) = self.state.poll_output() {
                self.out.extend_from_slice(&bytes);
            }
        }
    }

    /// The frames that were written since this was asked last: command and headers, and the body behind a `=`.
    pub(super) fn frames(&mut self) -> Vec<String> {
        self.drive();
        let text = String::from_utf8(std::mem::take(&mut self.out)).expect("text");
        let mut frames: Vec<&str> = text.split('\0').collect();
        assert_eq!(frames.pop().map(str::trim), Some(""), "a frame has no end");
        frames
            .into_iter()
            .map(|frame| {
                let (head, body) = frame.trim_start_matches('\n').split_once("\n\n").unwrap_or((frame, ""));
                let head = head.trim().replace('\n', " ");
                if body.is_empty() { head } else { format!("{head} = {body}") }
            })
            .collect()
    }

    /// Lets the broker say something.
    pub(super) fn say(&mut self, text: &str) {
        let line = self.line.expect("a connection");
        self.state.handle_bytes(self.now, line, text.as_bytes());
        self.drive();
    }

    pub(super) fn receipt(&mut self, id: &str) {
        self.say(&format!("RECEIPT\nreceipt-id:{id}\n\n\0"));
    }

    /// Accepts the connection; the CONNECT.
    pub(super) fn accept(&mut self) -> String {
        let line = self.line.expect("a connection is dialled");
        self.state.handle_dialled(self.now, line, Ok(()));
        let frames = self.frames();
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.concat()
    }

    pub(super) fn log_in(&mut self, server: &str) {
        self.accept();
        self.say(&format!("CONNECTED\nversion:1.2\nheart-beat:10000,10000\nserver:{server}\n\n\0"));
    }

    /// Breaks the connection.
    pub(super) fn reset(&mut self) {
        let line = self.line.expect("a connection");
        self.state.handle_end(self.now, line, End::Reset);
        self.drive();
    }

    /// Goes on to the next deadline.
    pub(super) fn wait(&mut self) {
        let due = self.state.poll_timeout().expect("something is due");
        self.now = self.now.max(due);
        self.state.handle_timeout(self.now);
        self.drive();
    }

    /// Does what is due for so long.
    pub(super) fn sleep(&mut self, time: Duration) {
        let end = self.now + time;
        while self.state.poll_timeout().is_some_and(|due| due <= end) {
            self.wait();
        }
        self.now = end;
    }

    /// Waits until the client dials again, and logs it in.
    pub(super) fn come_back(&mut self, server: &str) {
        while self.line.is_none() {
            self.wait();
        }
        self.log_in(server);
    }

    pub(super) fn transitions(&mut self) -> Vec<Transition> {
        let mut transitions = Vec::new();
        while let Poll::Ready(Some(transition)) = self.state.poll_transition(self.listener, Waker::noop()) {
            transitions.push(transition);
        }
        transitions
    }

    /// Why the last connection or attempt ended.
    pub(super) fn cause(&mut self) -> Option<Cause> {
        self.transitions().into_iter().rev().find_map(|transition| match transition {
            Transition::Disconnected { cause, .. } => Some(cause),
            _ => None,
        })
    }

    pub(super) fn offer(&mut self, entry: Entry) -> Result<u64, Error> {
        match self.state.offer(self.now, entry, None)? {
            Offered::Taken(number) => Ok(number),
            Offered::Wait(_) => panic!("there is no room"),
        }
    }

    pub(super) fn send(&mut self, body: &str) -> u64 {
        self.offer(Entry::new(message(body), true, true)).expect("it is taken")
    }

    pub(super) fn result(&mut self, call: u64) -> Option<Result<Confirmed, Error>> {
        match self.state.poll_call(call, Waker::noop()) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    pub(super) fn subscribe(&mut self, destination: &str, ack: AckMode) -> u32 {
        self.subscribe_as(Wanted { destination: destination.to_owned(), ack, ..Wanted::default() })
    }

    pub(super) fn subscribe_as(&mut self, wanted: Wanted) -> u32 {
        self.state.subscribe(self.now, wanted).expect("it is taken")
    }

    pub(super) fn next(&mut self, subscription: u32) -> Option<Queued> {
        match self.state.poll_subscription(self.now, subscription, Waker::noop()) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// The events of a subscription that wait, in words.
    pub(super) fn events(&mut self, subscription: u32) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(event) = self.next(subscription) {
            events.push(match event {
                Queued::Subscribed { again: false, .. } => "subscribed".to_owned(),
                Queued::Subscribed { again: true, .. } => "subscribed again".to_owned(),
                Queued::Recovered => "recovered".to_owned(),
                Queued::NotRecovered { from, to } => {
                    let offset = |position: Option<longwire_protocol::Position>| {
                        position.map_or("?".to_owned(), |position| position.offset.to_string())
                    };
                    format!("lost {}..{}", offset(from), offset(to))
                }
                Queued::Message(received) => String::from_utf8_lossy(&received.body).into_owned(),
                Queued::Ended(error) => format!("ended: {error}"),
            });
        }
        events
    }

    /// The next message of a subscription; other events are passed over.
    pub(super) fn message(&mut self, subscription: u32) -> Box<Received> {
        loop {
            if let Queued::Message(received) = self.next(subscription).expect("a message") {
                return received;
            }
        }
    }

    pub(super) fn settle(&mut self, received: &Received, verdict: Verdict) -> Result<Option<u64>, Error> {
        let settlement = received.settlement(verdict)?;
        self.state.settle(self.now, &settlement, false)
    }
}

pub(super) fn message(body: &str) -> Load {
    Load::Message(outgoing(body))
}

pub(super) fn outgoing(body: &str) -> Outgoing {
    Outgoing { is_text: true, ..Outgoing::new("/queue/a", Bytes::from(body.to_owned())) }
}

pub(super) fn transaction(bodies: &[&str], settlements: Vec<Settlement>) -> Entry {
    let sends = bodies.iter().map(|body| Action::Send(outgoing(body)));
    let actions = sends.chain(settlements.into_iter().map(Action::Settle)).collect();
    Entry::new(Load::Transaction(actions), true, true)
}

/// A MESSAGE of a queue.
pub(super) fn delivery(subscription: &str, ack: &str, body: &str) -> String {
    format!(
        "MESSAGE\nsubscription:{subscription}\ndestination:/queue/a\nmessage-id:m{ack}\nack:d-{ack}\n\n{body}\0"
    )
}

/// A MESSAGE of a topic with positions.
pub(super) fn publication(subscription: &str, offset: u64) -> String {
    format!(
        "MESSAGE\nsubscription:{subscription}\ndestination:/topic/a\nmessage-id:t-{offset}\noffset:{offset}\n\
         epoch:abcdefgh\n\np{offset}\0"
    )
}
