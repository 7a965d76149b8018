//! What a client wants of queues, and what it is given of them (STOMP).
//!
//! The part of [`Session`] that concerns [`Command::Queue`](longwire_protocol::command::Command). Such commands keep
//! nothing else waiting: they are collected here, the shard hands all of a turn on at once, and their answers come back
//! in the same order. Nothing here knows a queue. What must stay true: not more than [`MAX_COMMANDS`] or [`MAX_BYTES`] are
//! unanswered, beyond which no more is decoded; what queues give goes out in the order in which it came, and waits here
//! while the outbox has no room, so that nobody is closed as slow for what it may be given; a delivery counts as written
//! when its last byte was given to the socket, and those that never were are told at the end.

use super::{Closing, Initiator, Session};
use crate::config::Config;
use bytes::Bytes;
use longwire_protocol::CloseReason;
use longwire_protocol::connection::{Answer, Dialect, Fault};
use longwire_protocol::message::{Push, Reply};
use longwire_protocol::queue::{AckMode, Meant, QueueCommand, QueueError, QueuePush, Verdict};
use std::collections::VecDeque;
use std::time::Instant;

/// Commands of one connection that may be unanswered.
const MAX_COMMANDS: usize = 1024;

/// What those may take, in bytes; one alone may take more.
const MAX_BYTES: usize = 1024 * 1024;

/// About what a command costs beside what it carries.
const COMMAND_BYTES: usize = 64;

/// Answers that may wait for the outbox, beyond which no more is decoded.
const MAX_ANSWERS: usize = 16 * 1024;

/// The number of a command that the session itself gave: its answer is nobody's. A link numbers its frames from 1.
const OWN: u32 = 0;

/// What a session that uses queues keeps for that.
#[derive(Debug, Default)]
pub(super) struct Queueing {
    /// Commands that nobody carries out yet, with their numbers.
    waiting: Vec<(u32, QueueCommand)>,
    /// Commands that are not answered, in order.
    unanswered: VecDeque<Asked>,
    unanswered_bytes: usize,
    /// Whether anything was handed on, so that the end must be told.
    is_known: bool,
    /// How the connection ends once everything before is answered.
    last: Option<Last>,
    /// The consumers whose deliveries are acknowledged by being written.
    automatic: Vec<u32>,
    /// What waits for room in the outbox.
    kept: VecDeque<Kept>,
    /// How many answers are in that.
    kept_answers: usize,
    /// Bytes that were given to the socket since this began.
    written: u64,
    /// Deliveries in the outbox, in order.
    outgoing: VecDeque<Outgoing>,
    outgoing_bytes: usize,
    /// Deliveries that were written and are acknowledged by that.
    settled: Vec<u64>,
    /// Deliveries that came when nothing was written any more.
    late: Vec<u64>,
}

#[derive(Debug)]
struct Asked {
    /// About how many bytes it takes.
    bytes: usize,
    /// The consumer that it ends: nothing comes for that after the answer.
    ends: Option<u32>,
}

/// What a connection ends with.
#[derive(Debug)]
enum Last {
    /// The client leaves by the command with this number.
    Left(u32),
    /// The command with this number is refused.
    Refused(u32, QueueError),
    /// The client broke a rule.
    Broken(Fault),
}

/// Something for the client.
#[derive(Debug)]
enum Kept {
    Answer(u32, Result<(), QueueError>),
    Push(QueuePush),
}

#[derive(Debug)]
struct Outgoing {
    delivery: u64,
    /// It is written when that much was.
    end: u64,
    bytes: usize,
    is_automatic: bool,
}

impl Queueing {
    fn is_full(&self) -> bool {
        self.unanswered.len() >= MAX_COMMANDS
            || self.unanswered_bytes >= MAX_BYTES
            || self.kept_answers >= MAX_ANSWERS
    }

    fn ask(&mut self, id: u32, command: QueueCommand) {
        let bytes = bytes_of(&command);
        let ends = match &command {
            QueueCommand::Cancel { consumer, .. } => Some(*consumer),
            _ => None,
        };
        if let QueueCommand::Consume(consume) = &command
            && consume.ack == AckMode::Auto
            && !consume.is_browsing
        {
            self.automatic.push(consume.consumer);
        }
        self.unanswered.push_back(Asked { bytes, ends });
        self.unanswered_bytes += bytes;
        self.waiting.push((id, command));
    }

    /// Notes that the command was answered that has waited longest.
    fn note_answer(&mut self) {
        let Some(Asked { bytes, ends }) = self.unanswered.pop_front() else { return };
        self.unanswered_bytes -= bytes;
        if let Some(at) = self.automatic.iter().position(|consumer| Some(*consumer) == ends) {
            self.automatic.swap_remove(at);
        }
    }

    fn keep(&mut self, kept: Kept) {
        self.kept_answers += usize::from(matches!(kept, Kept::Answer(..)));
        self.kept.push_back(kept);
    }

    fn pop(&mut self) -> Option<Kept> {
        let kept = self.kept.pop_front();
        if kept.is_none() {
            self.kept = VecDeque::new();
        }
        self.kept_answers -= usize::from(matches!(kept, Some(Kept::Answer(..))));
        kept
    }

    /// Notes that a delivery of so many bytes is in an outbox that has so many now.
    fn note_outgoing(&mut self, delivery: u64, is_automatic: bool, bytes: usize, waiting: usize) {
        let end = self.written + waiting as u64;
        self.outgoing.push_back(Outgoing { delivery, end, bytes, is_automatic });
        self.outgoing_bytes += bytes;
    }

    /// Notes that so many bytes were written, and with them the deliveries of which the last byte was.
    fn note_written(&mut self, bytes: u64) {
        self.written += bytes;
        while let Some(first) = self.outgoing.front().filter(|first| first.end <= self.written) {
            self.outgoing_bytes -= first.bytes;
            if first.is_automatic {
                self.settled.push(first.delivery);
            }
            self.outgoing.pop_front();
        }
        if self.outgoing.is_empty() {
            self.outgoing = VecDeque::new();
        }
    }
}

impl Session {
    fn queues(&self) -> Option<&Queueing> {
        self.passing.as_ref()?.queues.as_deref()
    }

    fn queues_mut(&mut self) -> Option<&mut Queueing> {
        self.passing.as_mut()?.queues.as_deref_mut()
    }

    fn queueing(&mut self) -> &mut Queueing {
        self.passing.get_or_insert_default().queues.get_or_insert_default()
    }

    /// Whether the client ever wanted something of queues.
    pub fn uses_queues(&self) -> bool {
        self.queues().is_some()
    }

    /// Whether the client may leave unread for long what it was written: it works on what it got before, and acknowledges
    /// that first. What it may be given is bounded, so it is not closed for that.
    pub(super) fn may_stall(&self) -> bool {
        self.connection.dialect() == Dialect::Stomp
    }

    /// Whether the client may write all that it has before it reads on, so that its commands must not wait for that.
    pub fn writes_before_it_reads(&self) -> bool {
        self.connection.dialect() == Dialect::Stomp
    }

    /// Takes a command about queues; the shard hands it on.
    pub fn ask_queues(&mut self, id: u32, command: QueueCommand) {
        if self.closing.is_none() {
            self.queueing().ask(id, command);
        }
    }

    /// Gives out what is to be asked of queues, in order; each is answered by
    /// [`answer_queue`](Self::answer_queue).
    pub fn take_queue_commands(&mut self) -> Vec<(u32, QueueCommand)> {
        let Some(queues) = self.queues_mut() else { return Vec::new() };
        queues.is_known |= !queues.waiting.is_empty();
        std::mem::take(&mut queues.waiting)
    }

    /// Answers the command about queues that has waited longest.
    pub fn answer_queue(&mut self, id: u32, result: Result<(), QueueError>, config: &Config) {
        let is_over = self.closing.is_some();
        if result.is_ok() && !is_over {
            // Whether the client reads what it is answered does not matter for that.
            self.connection.carried_out(id);
        }
        let Some(queues) = self.queues_mut() else { return };
        queues.note_answer();
        if !is_over && id != OWN {
            queues.keep(Kept::Answer(id, result));
        }
        self.give_kept(config);
    }

    /// Refuses a command that was given out. It and the others that were, `dropped` in all, are not carried out; the
    /// refusal comes behind the answers to those before.
    pub fn refuse_queue_command(&mut self, id: u32, error: QueueError, dropped: usize, config: &Config) {
        let queues = self.queueing();
        for _ in 0..dropped {
            queues.unanswered_bytes -= queues.unanswered.pop_back().map_or(0, |asked| asked.bytes);
        }
        self.end_after_answers(Last::Refused(id, error), config);
    }

    /// Notes that the client broke a rule: it is closed for that, behind the answers to what it said before.
    pub(super) fn break_off(&mut self, fault: Fault, config: &Config) {
        self.end_after_answers(Last::Broken(fault), config);
    }

    fn end_after_answers(&mut self, last: Last, config: &Config) {
        // What ends it first counts.
        self.queueing().last.get_or_insert(last);
        self.end_if_answered(config);
    }

    /// Gives the client what a queue has for it.
    pub fn push_queue(&mut self, push: QueuePush, config: &Config) {
        let is_over = self.closing.is_some();
        let queues = self.queueing();
        if !is_over {
            queues.keep(Kept::Push(push));
        } else if let QueuePush::Delivered(delivered) = push {
            queues.late.push(delivered.delivery);
        }
        self.give_kept(config);
    }

    /// Writes what waits, as long as there is room; whatever that ends is ended.
    pub fn give_kept(&mut self, config: &Config) {
        let room = config.client.max_outbox_bytes / 2;
        while self.closing.is_none()
            && self.outbox.len() < room
            && let Some(kept) = self.queues_mut().and_then(|queues| queues.pop())
        {
            match kept {
                Kept::Answer(id, result) => {
                    let answer = self.connection.reply(id, &Reply::Queue(result));
                    self.write_answer(answer, config);
                }
                Kept::Push(push) => self.write_queue_push(push),
            }
        }
        self.end_if_answered(config);
    }

    fn write_queue_push(&mut self, push: QueuePush) {
        let delivered = match &push {
            QueuePush::Delivered(delivered) => Some((delivered.delivery, delivered.consumer)),
            QueuePush::Browsed { .. } => None,
            QueuePush::Cancelled { .. } => {
                // No frame says that a subscription ended.
                let detail = "a queue that the client consumed was removed";
                return self.close(CloseReason::StateInvalidated.into(), detail);
            }
        };
        let bytes = self.connection.push("", &Push::Queue(push));
        let len = bytes.len();
        self.write_unbounded(bytes);
        let waiting = self.outbox.len();
        let (Some((delivery, consumer)), Some(queues)) = (delivered, self.queues_mut()) else { return };
        if len == 0 {
            // The client gave the subscription up meanwhile: somebody else shall have it.
            let (meant, verdict) = (Meant::Delivery(delivery), Verdict::Requeue);
            return queues.ask(OWN, QueueCommand::Settle { meant, verdict });
        }
        let is_automatic = queues.automatic.contains(&consumer);
        queues.note_outgoing(delivery, is_automatic, len, waiting);
    }

    /// Notes that so many bytes of the outbox were given to the socket.
    pub fn note_flushed(&mut self, bytes: u64) {
        if let Some(queues) = self.queues_mut() {
            queues.note_written(bytes);
        }
    }

    /// Gives out the deliveries that are acknowledged by having been written.
    pub fn take_settled(&mut self) -> Vec<u64> {
        self.queues_mut().map(|queues| std::mem::take(&mut queues.settled)).unwrap_or_default()
    }

    /// The session is over: which deliveries never were written, if queues know the session at all. What stands before a
    /// polite end may be written yet, and counts as if it were.
    pub fn end_queues(&mut self) -> Option<Vec<u64>> {
        let is_cut = self.closing.as_ref().is_none_or(|closing| !closing.is_polite);
        let queues = self.queues_mut().filter(|queues| queues.is_known)?;
        let mut unwritten = std::mem::take(&mut queues.late);
        unwritten.extend(queues.kept.drain(..).filter_map(|kept| match kept {
            Kept::Push(QueuePush::Delivered(delivered)) => Some(delivered.delivery),
            _ => None,
        }));
        if is_cut {
            unwritten.extend(queues.outgoing.drain(..).map(|outgoing| outgoing.delivery));
        }
        Some(unwritten)
    }

    /// Goes on with what waited until more might be asked.
    pub fn go_on_asking(&mut self, now: Instant, config: &Config) {
        let has_more = self.held_bytes() > 0 || self.connection.has_more();
        if has_more && !self.is_busy && self.closing.is_none() && !self.are_queues_full() {
            self.take_held(now, config);
        }
    }

    /// Notes that the client leaves: it is answered when everything before is.
    pub(super) fn leave(&mut self, id: u32, config: &Config) {
        self.end_after_answers(Last::Left(id), config);
    }

    fn end_if_answered(&mut self, config: &Config) {
        let is_over = self.closing.is_some();
        let Some(queues) = self.queues_mut().filter(|_| !is_over) else { return };
        if !queues.unanswered.is_empty() || queues.kept_answers > 0 {
            return;
        }
        match queues.last.take() {
            None => {}
            Some(Last::Left(id)) => {
                let answer = self.connection.reply(id, &Reply::Disconnect);
                self.write_unbounded(answer.bytes);
                let (close, initiator) = (CloseReason::PeerClosed.into(), Initiator::Peer);
                let detail = String::new();
                self.end(Closing { close, initiator, detail, unsent_bytes: 0, is_polite: true });
            }
            Some(Last::Refused(id, error)) => {
                let answer = self.connection.reply(id, &Reply::Queue(Err(error)));
                self.write_answer(answer, config);
            }
            Some(Last::Broken(Fault { reason, what })) => self.close(reason.into(), &what),
        }
    }

    /// Whether the connection ends as soon as everything is answered, and nothing more is taken.
    pub(super) fn is_leaving(&self) -> bool {
        self.queues().is_some_and(|queues| queues.last.is_some())
    }

    /// Whether no further command is decoded until one was answered.
    pub(super) fn are_queues_full(&self) -> bool {
        self.connection.is_behind() || self.queues().is_some_and(|queues| queues.is_full())
    }

    /// Whether more is read, as far as queues go: not while many commands are unanswered, nor while many answers wait to
    /// be written. What was delivered does not count: a client that writes before it reads on must not wait for itself.
    pub(super) fn is_reading_queues(&self, config: &Config) -> bool {
        !self.connection.is_behind()
            && self.queues().is_none_or(|queues| {
                let answers = self.outbox.len().saturating_sub(queues.outgoing_bytes);
                !queues.is_full() && answers < config.client.max_outbox_bytes
            })
    }

    /// Writes an answer, and ends the connection if that is what it says.
    pub(super) fn write_answer(&mut self, answer: Answer, config: &Config) {
        let Answer { bytes, close, detail } = answer;
        match self.uses_queues() {
            // How many of these there are is bounded by how many commands may be unanswered.
            true => self.write_unbounded(bytes),
            false => self.write(bytes, config),
        }
        let Some(reason) = close.filter(|_| self.closing.is_none()) else { return };
        // The refusal itself was the farewell.
        let closing = Closing {
            close: reason.into(),
            initiator: Initiator::Server,
            detail: format!("refused: {detail}"),
            unsent_bytes: 0,
            is_polite: true,
        };
        // What a returning client asks for in vain does not cost it what it has.
        match self.is_returning() && self.is_to_be_kept() {
            true => self.part(closing, true),
            false => self.end(closing),
        }
    }

    fn write_unbounded(&mut self, bytes: Bytes) {
        if self.closing.is_none() && !self.is_away() {
            self.outbox.push(bytes, usize::MAX).expect("there is no limit to pass");
        }
    }
}

/// About how many bytes a command takes until it is answered.
fn bytes_of(command: &QueueCommand) -> usize {
    COMMAND_BYTES
        + match command {
            QueueCommand::Send(message) => message.body.len() + message.headers.as_bytes().len(),
            QueueCommand::Transaction(commands) => commands.iter().map(bytes_of).sum(),
            QueueCommand::Settle { .. } | QueueCommand::Consume(_) | QueueCommand::Cancel { .. } => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::outbox::Flushed;
    use longwire_protocol::Connection;
    use longwire_protocol::command::{Command, Connect, Numbered};
    use longwire_protocol::message::{ClientId, ConnectResult};
    use longwire_protocol::queue::{Delivered, Headers, Message, QueueErrorKind};
    use longwire_protocol::stomp::{Carrier, Opening};
    use std::sync::Arc;

    struct World {
        config: Config,
        session: Session,
        now: Instant,
    }

    impl World {
        /// A client that is connected with STOMP 1.2.
        fn connected() -> World {
            let now = Instant::now();
            let opening = Opening { carrier: Carrier::Tcp, limits: Arc::default(), names: Arc::default() };
            let session = Session::new(Connection::stomp(opening, now, 0.5), ClientId(7), now);
            let mut world = World { config: Config::demo(), session, now };
            world.read(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0");
            let Some(Numbered { id, command: Command::Connect(connect) }) = world.session.poll_request()
            else {
                panic!("a CONNECT is a request");
            };
            assert_eq!(*connect.client_name, *Connect::default().client_name);
            world.session.establish("".into(), Bytes::new(), None, None);
            let result = ConnectResult {
                client: ClientId(7),
                version: "test",
                ttl_seconds: None,
                data: Bytes::new(),
                subs: Vec::new(),
                ping_seconds: 0,
                pong: false,
                session: String::new(),
                node: String::new(),
                resumed: false,
                lost: false,
            };
            world.session.answer(id, &Reply::Connect(Box::new(result)), &world.config);
            world.session.resume(now, &world.config);
            assert!(world.written().starts_with("CONNECTED\n"));
            world
        }

        fn read(&mut self, bytes: &[u8]) {
            self.session.handle_bytes(self.now, bytes, &self.config);
        }

        /// Writes up to so many bytes, as a socket would that takes no more.
        fn write(&mut self, limit: usize) -> (String, Flushed) {
            let (mut out, mut written) = (Vec::new(), 0);
            let flushed = self.session.outbox.flush(self.now, &mut written, |slices| {
                let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                let n = all.len().min(limit - out.len());
                out.extend_from_slice(&all[..n]);
                if n == 0 { Err(std::io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
            });
            self.session.note_flushed(written);
            self.session.give_kept(&self.config);
            (String::from_utf8_lossy(&out).into_owned(), flushed.expect("it takes what it takes"))
        }

        fn written(&mut self) -> String {
            self.write(usize::MAX).0
        }

        /// The numbers of what is to be asked of queues.
        fn asked(&mut self) -> Vec<u32> {
            self.session.take_queue_commands().iter().map(|(id, _)| *id).collect()
        }

        fn answer(&mut self, id: u32) {
            self.session.answer_queue(id, Ok(()), &self.config);
        }

        /// Consumes a queue; the consumer's number.
        fn consume(&mut self, ack: &str) -> u32 {
            self.read(format!("SUBSCRIBE\nid:1\ndestination:/queue/a\nack:{ack}\n\n\0").as_bytes());
            let commands = self.session.take_queue_commands();
            let [(id, QueueCommand::Consume(consume))] = &commands[..] else { panic!("{commands:?}") };
            self.answer(*id);
            consume.consumer
        }

        fn deliver(&mut self, consumer: u32, delivery: u64, body: usize) {
            let message = Message {
                id: "m".into(),
                queue: "a".into(),
                headers: Headers::default(),
                body: vec![b'x'; body].into(),
                priority: 4,
                is_persistent: true,
                expires: 0,
                sent_at: 0,
            };
            let delivered = Delivered { consumer, delivery, message: Arc::new(message), redeliveries: 0 };
            self.session.push_queue(QueuePush::Delivered(delivered), &self.config);
        }
    }

    const SEND: &[u8] = b"SEND\ndestination:/queue/a\n\nbody\0";

    #[test]
    fn what_one_read_brings_is_handed_on_at_once_and_in_order() {
        let mut world = World::connected();
        world.read(&SEND.repeat(100));
        let asked = world.asked();
        assert_eq!(asked.len(), 100);
        assert!(asked.is_sorted() && !asked.contains(&OWN));
        assert!(world.asked().is_empty());
    }

    #[test]
    fn beyond_the_bound_nothing_is_decoded_until_something_is_answered() {
        let mut world = World::connected();
        world.read(&SEND.repeat(MAX_COMMANDS + 10));
        let asked = world.asked();
        assert_eq!(asked.len(), MAX_COMMANDS);
        assert!(!world.session.wants_bytes(&world.config));
        asked[..3].iter().for_each(|id| world.answer(*id));
        world.session.go_on_asking(world.now, &world.config);
        assert_eq!(world.asked().len(), 3);
        asked[3..].iter().for_each(|id| world.answer(*id));
        world.session.go_on_asking(world.now, &world.config);
        assert_eq!(world.asked().len(), 7);
        assert!(world.session.wants_bytes(&world.config));
    }

    #[test]
    fn a_delivery_is_settled_when_its_last_byte_is_written() {
        let mut world = World::connected();
        let consumer = world.consume("auto");
        world.deliver(consumer, 1, 10);
        world.deliver(consumer, 2, 10);
        let one = world.session.outbox.len() / 2;
        world.write(one - 1);
        assert!(world.session.take_settled().is_empty());
        world.write(1);
        assert_eq!(world.session.take_settled(), [1]);
        world.session.abort(CloseReason::PeerReset, "");
        world.deliver(consumer, 3, 10);
        assert_eq!(world.session.end_queues(), Some(vec![3, 2]), "what came too late, and what waited");
    }

    #[test]
    fn what_the_client_must_acknowledge_itself_is_not_settled() {
        let mut world = World::connected();
        let consumer = world.consume("client");
        world.deliver(consumer, 1, 10);
        assert!(world.written().starts_with("MESSAGE\n"));
        assert!(world.session.take_settled().is_empty());
        world.session.abort(CloseReason::PeerReset, "");
        assert_eq!(world.session.end_queues(), Some(Vec::new()));
    }

    #[test]
    fn nobody_is_slow_for_what_it_may_be_given() {
        let mut world = World::connected();
        let consumer = world.consume("client");
        let limit = world.config.client.max_outbox_bytes;
        for delivery in 0..10 {
            world.deliver(consumer, delivery, limit);
        }
        assert!(world.session.closing().is_none());
        assert!(world.session.outbox.len() < 2 * limit, "the rest waits as it is");
        let mut messages = 0;
        while !world.session.outbox.is_empty() {
            messages += world.written().matches("MESSAGE\n").count();
        }
        assert_eq!(messages, 10);
    }

    #[test]
    fn a_delivery_for_a_subscription_that_was_given_up_goes_back() {
        let mut world = World::connected();
        let consumer = world.consume("client");
        world.read(b"UNSUBSCRIBE\nid:1\n\n\0");
        world.deliver(consumer, 5, 1);
        let commands = world.session.take_queue_commands();
        let [(cancel, QueueCommand::Cancel { .. }), (OWN, QueueCommand::Settle { meant, verdict })] =
            &commands[..]
        else {
            panic!("{commands:?}");
        };
        assert_eq!((meant, verdict), (&Meant::Delivery(5), &Verdict::Requeue));
        world.answer(*cancel);
        let gone = QueueError::new(QueueErrorKind::UnknownDelivery, "");
        world.session.answer_queue(OWN, Err(gone), &world.config);
        assert!(world.session.closing().is_none() && world.written().is_empty());
    }

    #[test]
    fn who_leaves_is_answered_last_and_nothing_is_taken_after_it() {
        let mut world = World::connected();
        world.read(b"SEND\ndestination:/queue/a\nreceipt:1\n\nx\0DISCONNECT\nreceipt:2\n\n\0");
        world.read(SEND);
        let asked = world.asked();
        assert_eq!(asked.len(), 1);
        assert!(world.written().is_empty() && world.session.closing().is_none());
        world.answer(asked[0]);
        let written = world.written();
        assert!(written.find("receipt-id:1").unwrap() < written.find("receipt-id:2").unwrap(), "{written}");
        let closing = world.session.closing().expect("it left");
        assert!(closing.is_polite && closing.close.reason == CloseReason::PeerClosed);
    }

    #[test]
    fn what_was_said_before_a_broken_rule_is_answered_before_the_error() {
        let mut world = World::connected();
        world.read(b"SEND\ndestination:/queue/a\nreceipt:1\n\nx\0NONSENSE\n\n\0");
        let asked = world.asked();
        assert!(world.written().is_empty() && world.session.closing().is_none());
        world.read(SEND);
        assert!(world.asked().is_empty(), "nothing is taken behind it");
        world.answer(asked[0]);
        let written = world.written();
        assert!(written.starts_with("RECEIPT\n") && written.contains("\0\nERROR\n"), "{written}");
        assert_eq!(world.session.closing().map(|it| it.close.reason), Some(CloseReason::BadRequest));
    }

    #[test]
    fn what_is_not_allowed_is_refused_behind_what_was() {
        let mut world = World::connected();
        world.read(b"SEND\ndestination:/queue/a\nreceipt:1\n\nx\0");
        world.read(&SEND.repeat(2));
        let asked = world.asked();
        let denied = QueueError::new(QueueErrorKind::PermissionDenied, "a");
        world.session.refuse_queue_command(asked[1], denied, 2, &world.config);
        assert!(world.session.closing().is_none());
        world.answer(asked[0]);
        let written = world.written();
        assert!(written.starts_with("RECEIPT\n") && written.contains("\0\nERROR\n"), "{written}");
        assert_eq!(world.session.closing().map(|it| it.close.reason), Some(CloseReason::PermissionDenied));
    }

    #[test]
    fn a_refusal_is_the_last_that_is_said() {
        let mut world = World::connected();
        world.read(&SEND.repeat(2));
        let asked = world.asked();
        let full = QueueError::new(QueueErrorKind::QueueFull, "a");
        world.session.answer_queue(asked[0], Err(full), &world.config);
        world.answer(asked[1]);
        assert_eq!(world.session.closing().map(|it| it.close.reason), Some(CloseReason::QueueUnavailable));
        assert!(world.written().starts_with("ERROR\n"));
        assert_eq!(world.session.end_queues(), Some(Vec::new()));
    }
}
