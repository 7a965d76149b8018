//! What a plain client says, against invented time: no socket, no backend.

use super::*;
use crate::node::control::{Message, Relayed};
use longwire_protocol::Connection;
use longwire_protocol::command::{Command, Connect};
use longwire_protocol::message::{ClientId, ConnectResult, Reply};
use longwire_protocol::plain::framing::{Framing, Terminator};
use longwire_protocol::plain::{Beats, Carrier, FirstPacket, Format, Opening};
use std::sync::Arc;
use std::time::Duration;

struct World {
    config: Config,
    session: Session,
    now: Instant,
}

/// A client over TCP whose packets end at newlines; `ping` is its sign of life.
fn world(change: impl FnOnce(&mut Config)) -> World {
    let mut config = Config::demo();
    change(&mut config);
    let now = Instant::now();
    let terminator = Terminator::new(b"\n").expect("one byte");
    let opening = Opening {
        connect: Connect::default(),
        subscribes: Vec::new(),
        carrier: Carrier::Tcp {
            framing: Framing::Terminator(terminator),
            max_packet_bytes: 65_536,
            first_packet: FirstPacket::None,
        },
        format: Format::Json,
        beats: Arc::new(Beats { messages: vec!["ping".into()], ..Beats::default() }),
    };
    let connection = Connection::plain(opening, now, &config.heartbeat, 0.5);
    let mut world = World { config, session: Session::new(connection, ClientId(7), now), now };
    // As when it is opened: the first commands come from the opening itself.
    world.send(b"");
    world
}

impl World {
    fn send(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(self.now, bytes, &self.config);
    }

    fn deliver(&mut self, text: &'static str) -> Relayed {
        let message = Message::Content { data: text.into(), is_text: true };
        self.session.handle_message(self.now, message, &self.config)
    }

    /// What a driver would do with the connect command.
    fn welcome(&mut self) {
        let request = self.session.poll_request().expect("the connect command");
        assert!(matches!(request.command, Command::Connect(_)));
        self.session.establish("".into(), Bytes::new(), None, None);
        let result = ConnectResult {
            client: ClientId(7),
            version: "",
            ttl_seconds: None,
            data: Bytes::new(),
            subs: Vec::new(),
            ping_seconds: 0,
            pong: false,
            session: "name".into(),
            node: String::new(),
            resumed: false,
            lost: false,
        };
        self.session.answer(request.id, &Reply::Connect(Box::new(result)), &self.config);
        self.session.resume(self.now, &self.config);
        self.read();
    }

    fn read(&mut self) {
        self.session.outbox.clear();
    }

    /// What is told next, whose call begins with that.
    fn tell(&mut self) -> Option<String> {
        let said = self.session.next_message(self.now, &self.config)?;
        self.session.begin_call();
        Some(String::from_utf8(said.data.to_vec()).expect("a test speaks UTF-8"))
    }

    /// Tells all that waits.
    fn tell_all(&mut self) -> Vec<String> {
        let next = || {
            let said = self.tell()?;
            self.session.end_call();
            Some(said)
        };
        std::iter::from_fn(next).collect()
    }
}

#[test]
fn messages_are_told_one_at_a_time_in_order_and_not_before_the_welcome() {
    let mut world = world(|_| {});
    world.send(b"a\nb\nc");
    assert_eq!(world.tell(), None, "the client was not told of its connection");
    world.welcome();
    assert_eq!(world.tell().as_deref(), Some("a"));
    assert_eq!(world.tell(), None, "a call is under way");
    world.send(b"d\n");
    world.session.end_call();
    assert_eq!(world.tell_all(), ["b", "cd"]);
    assert!(world.session.closing().is_none());
}

#[test]
fn what_is_full_pauses_reading_and_goes_on_where_it_stopped() {
    let mut world = world(|config| config.plain.max_waiting_messages = 3);
    world.welcome();
    assert!(world.session.wants_bytes(&world.config));
    world.send(b"1\n2\n3\n4\nping\n5\n6");
    assert!(!world.session.wants_bytes(&world.config));
    assert_eq!(world.session.inbox().map(Inbox::len), Some(3));
    assert_eq!(world.deliver("x"), Relayed::Full);
    assert_eq!(world.tell_all(), ["1", "2", "3", "4", "5"]);
    assert!(world.session.wants_bytes(&world.config));
    world.send(b"7\n");
    assert_eq!(world.tell_all(), ["67"]);
}

#[test]
fn bytes_fill_it_as_messages_do_and_one_may_pass_the_limit() {
    let mut world = world(|config| config.plain.max_waiting_bytes = 10);
    world.welcome();
    world.send(b"123456789\n12345678901234567890\nz\n");
    assert_eq!(world.session.inbox().map(Inbox::len), Some(2));
    assert!(!world.session.wants_bytes(&world.config));
    assert_eq!(world.tell().as_deref(), Some("123456789"));
    assert!(!world.session.wants_bytes(&world.config), "twenty wait");
    world.session.end_call();
    assert_eq!(world.tell_all(), ["12345678901234567890", "z"]);
}

#[test]
fn a_message_by_a_request_of_its_own_waits_with_the_others() {
    let mut world = world(|config| config.plain.max_waiting_messages = 2);
    world.welcome();
    world.send(b"1\n");
    assert_eq!(world.deliver("2"), Relayed::Taken);
    assert_eq!(world.deliver("3"), Relayed::Full);
    assert_eq!(world.tell_all(), ["1", "2"]);
    assert_eq!(world.deliver("ping"), Relayed::Taken);
    assert_eq!(world.tell_all(), Vec::<String>::new(), "a sign of life is no message");
    let commands = Message::Commands("{}".into());
    assert_eq!(world.session.handle_message(world.now, commands, &world.config), Relayed::Unknown);
}

#[test]
fn who_sends_messages_by_requests_too_fast_is_told_to_wait_and_goes_on() {
    let mut world = world(|config| {
        (config.client.commands_per_second, config.client.command_burst) = (10, 5);
        config.plain.max_waiting_messages = 100;
    });
    world.welcome();
    // The connect command was the first of them.
    let taken = (0..100).filter(|_| world.deliver("x") == Relayed::Taken).count();
    assert_eq!(taken, 4);
    assert_eq!(world.deliver("ping"), Relayed::Taken, "a sign of life is free");
    world.now += Duration::from_millis(100);
    assert_eq!(world.deliver("y"), Relayed::Taken);
    assert_eq!(world.deliver("z"), Relayed::Full);
    assert!(world.session.closing().is_none());
    assert_eq!(world.tell_all(), ["x", "x", "x", "x", "y"]);
}

#[test]
fn who_leaves_behind_more_than_it_may_say_is_heard_as_far_as_it_may() {
    let mut world = world(|config| {
        (config.client.commands_per_second, config.client.command_burst) = (10, 20);
        config.plain.max_waiting_messages = 5;
        config.plain.grace = Duration::ZERO;
    });
    world.welcome();
    world.send(&b"x\n".repeat(10));
    world.now += Duration::from_secs(2);
    // Empty packets: many messages in few bytes.
    world.send(&b"\n".repeat(50_000));
    world.session.handle_end(None);
    let inbox = world.session.take_inbox().expect("messages wait");
    assert_eq!(inbox.len(), 5 + 20 + 2 * 10, "five waited, and others arrived within two seconds");
}

#[test]
fn signs_of_life_count_while_the_backend_is_slow() {
    let mut world = world(|_| {});
    world.welcome();
    world.send(b"1\n");
    assert_eq!(world.tell().as_deref(), Some("1"));
    for _ in 0..100 {
        world.now += Duration::from_secs(5);
        world.send(b"ping\n");
        world.session.handle_timeout(world.now, &world.config);
        assert!(world.session.closing().is_none());
        world.read();
    }
    assert_eq!(world.session.inbox().map(Inbox::len), Some(0));
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_told_more() {
    let mut world = world(|_| {});
    world.welcome();
    world.send(b"1\n2\n");
    let half = vec![0; world.config.client.max_outbox_bytes / 2];
    world.session.outbox.push(half.into(), usize::MAX).expect("there is no limit");
    assert_eq!(world.tell(), None);
    world.read();
    assert_eq!(world.tell_all(), ["1", "2"]);
}

#[test]
fn what_was_said_before_the_end_is_given_out_with_its_numbers() {
    let mut world = world(|_| {});
    world.welcome();
    world.send(b"1\n2\n3\n");
    assert_eq!(world.session.begin_call().take_seq(), 0);
    world.session.end_call();
    assert_eq!(world.tell_all().len(), 3);
    world.send(b"4\n5\n");
    world.session.handle_end(None);
    assert_eq!(world.tell(), None, "from here on the shard tells what is left");
    let mut inbox = world.session.take_inbox().expect("something waits");
    let data = std::iter::from_fn(|| inbox.pop()).map(|said| said.data).collect::<Vec<_>>();
    assert_eq!(data, ["4", "5"]);
    assert_eq!(inbox.take_seq(), 1);
}

#[test]
fn what_came_before_the_end_is_told_also_if_there_was_no_room_to_read_it() {
    let mut world = world(|config| config.plain.max_waiting_messages = 2);
    world.welcome();
    world.send(b"1\n2\n3\nping\n4\n5");
    assert_eq!(world.session.inbox().map(Inbox::len), Some(2));
    world.session.close(longwire_protocol::CloseReason::Drain.into(), "");
    let mut inbox = world.session.take_inbox().expect("something waits");
    let data = std::iter::from_fn(|| inbox.pop()).map(|said| said.data).collect::<Vec<_>>();
    assert_eq!(data, ["1", "2", "3", "4"]);
}

#[test]
fn a_session_of_which_nobody_is_told_keeps_nothing_for_it() {
    let mut world = world(|_| {});
    world.welcome();
    world.send(b"ping\n");
    assert!(world.session.inbox().is_none());
}

#[test]
fn links_that_come_and_go_while_the_backend_takes_nothing_leave_no_more_than_a_few_did() {
    let mut world = world(|config| config.plain.max_waiting_messages = 2);
    world.welcome();
    world.send(b"1\n2\n");
    assert!(world.session.is_inbox_full(&world.config));
    // As each link has sent when it is taken over.
    let flood = [b'x'; 1000].map(|byte| [byte, b'\n']).concat();
    let mut unheard = 0;
    for _ in 0..50 {
        world.session.passing.get_or_insert_default().held = Held::of(flood.clone());
        world.session.hear_out();
        unheard += world.session.take_unheard();
    }
    let inbox = world.session.inbox().expect("messages wait");
    assert_eq!((inbox.len(), unheard), (1002, 49_000));
    assert!(inbox.bytes() < MAX_BYTES_BEYOND);
    // And few large ones.
    assert_eq!(world.tell_all().len(), 1002);
    let large = [&vec![b'y'; 60_000][..], b"\n"].concat();
    for _ in 0..50 {
        world.session.passing.get_or_insert_default().held = Held::of(large.clone());
        world.session.hear_out();
    }
    let inbox = world.session.inbox().expect("messages wait");
    assert!((4..=5).contains(&inbox.len()) && inbox.bytes() < MAX_BYTES_BEYOND + 70_000, "{}", inbox.len());
}
