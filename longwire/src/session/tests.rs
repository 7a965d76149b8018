//! Sessions against invented time: no socket, no node, no clock.

use super::*;
use crate::delivery::What;
use crate::history::Page;
use longwire_protocol::ErrorCode;
use longwire_protocol::centrifuge::Format;
use longwire_protocol::centrifuge::link::{Beats, Link};
use longwire_protocol::command::{Command, Connect, Subscribe};
use longwire_protocol::message::SubscribeResult;
use longwire_protocol::plain;
use longwire_protocol::websocket::frame::{self, Opcode};
use longwire_protocol::{Epoch, Position, Publication, Since};
use std::io::IoSlice;
use std::time::Duration;
use subscription::Traits;

/// A session, its settings and the time, with what a driver would do reduced to a few calls.
struct World {
    config: Config,
    session: Session,
    start: Instant,
    now: Instant,
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn position(offset: u64) -> Position {
    Position { offset, epoch: Epoch::parse("abcdefgh") }
}

fn delivery(channel: &str, offset: u64) -> Arc<Delivery> {
    let publication = Publication {
        offset,
        data: offset.to_string().into(),
        info: None,
        tags: Vec::new(),
        except: None,
        is_json: true,
    };
    Arc::new(Delivery::new(channel.into(), What::Publication(Arc::new(publication)), Some(position(offset))))
}

impl World {
    fn over(connection: impl FnOnce(&Config, Instant) -> Connection) -> World {
        let config = Config::demo();
        let start = Instant::now();
        let session = Session::new(connection(&config, start), ClientId(7), start);
        World { config, session, start, now: start }
    }

    fn websocket() -> World {
        World::over(|config, now| {
            Connection::centrifuge(
                Link::websocket(Format::Json, false, Beats::Messages, false, 65_536),
                now,
                &config.heartbeat,
                0.5,
            )
        })
    }

    fn event_stream(channels: &[&str]) -> World {
        let subscribes = channels
            .iter()
            .map(|channel| Subscribe {
                channel: (*channel).into(),
                recover: Some(Since::from(position(0))),
                ..Subscribe::default()
            })
            .collect();
        World::over(|config, now| {
            let head = "HTTP/1.1 200 OK\r\n".to_owned();
            let opening = plain::Opening {
                connect: Connect::default(),
                subscribes,
                carrier: plain::Carrier::EventStream { head, retry_milliseconds: 1000 },
                format: plain::Format::Json,
                beats: Arc::default(),
            };
            Connection::plain(opening, now, &config.heartbeat, 0.5)
        })
    }

    /// A client's text frame.
    fn send(&mut self, text: &str) {
        let mut bytes = Vec::new();
        frame::encode(Opcode::Text, false, Some([1, 2, 3, 4]), text.as_bytes(), &mut bytes);
        self.session.handle_bytes(self.now, &bytes, &self.config);
    }

    /// Everything that was written, as lossy text.
    fn written(&mut self) -> String {
        let mut out = Vec::new();
        let take = |slices: &[IoSlice<'_>]| {
            let before = out.len();
            slices.iter().for_each(|slice| out.extend_from_slice(slice));
            Ok(out.len() - before)
        };
        self.session.outbox.flush(self.now, &mut 0, take).expect("a vector takes everything");
        String::from_utf8_lossy(&out).into_owned()
    }

    fn connect(&mut self) {
        self.session.poll_request().expect("a connect command is a request");
        self.session.establish("42".into(), Bytes::new(), None, None);
        self.welcome(Vec::new());
        self.session.resume(self.now, &self.config);
    }

    /// Answers the connect command with these channels.
    fn welcome(&mut self, subs: Vec<(String, SubscribeResult)>) {
        let result = longwire_protocol::message::ConnectResult {
            client: ClientId(7),
            version: "test",
            ttl_seconds: None,
            data: Bytes::new(),
            subs,
            ping_seconds: 25,
            pong: true,
            session: String::new(),
            node: String::new(),
            resumed: false,
            lost: false,
        };
        self.session.answer(1, &Reply::Connect(Box::new(result)), &self.config);
    }

    /// Grants the subscribe request in progress at `seen`, with what was `missed`.
    fn subscribe(&mut self, hub_id: u32, traits: Traits, seen: Position, missed: &[u64]) {
        let request = self.session.poll_request().expect("a subscribe command is a request");
        let Command::Subscribe(ask) = request.command else { panic!("{request:?}") };
        let mut subscription =
            Subscription::joining(ask.channel.as_str().into(), hub_id, hub_id, traits, Bytes::new());
        subscription.seen = Some(seen);
        self.session.subscriptions.push(subscription);
        let publications = missed.iter().map(|offset| match &delivery("", *offset).what {
            What::Publication(publication) => publication.clone(),
            other => panic!("{other:?}"),
        });
        let result = SubscribeResult {
            position: Some(Position { offset: missed.first().map_or(seen.offset, |o| o - 1), ..seen }),
            recovered: ask.recover.is_some(),
            was_recovering: ask.recover.is_some(),
            publications: publications.collect(),
            ..SubscribeResult::default()
        };
        self.session.answer(request.id, &Reply::Subscribe(Box::new(result)), &self.config);
        self.session.go_live(&[hub_id], &mut None, &self.config);
        self.session.resume(self.now, &self.config);
    }

    fn deliver(&mut self, hub_id: u32, channel: &str, offset: u64) {
        self.session.handle_delivery(hub_id, &delivery(channel, offset), &mut None, &self.config);
    }

    /// Goes from deadline to deadline until `end` after the start, or until the session closes.
    fn run(&mut self, end: Duration, mut at_each: impl FnMut(&mut World)) {
        while self.session.closing().is_none() {
            let (next, _) = self.session.poll_timeout(&self.config);
            if next > self.start + end {
                return;
            }
            self.now = self.now.max(next);
            self.session.handle_timeout(self.now, &self.config);
            at_each(self);
        }
    }

    fn reason(&self) -> Option<CloseReason> {
        self.session.closing().map(|closing| closing.close.reason)
    }

    fn connected() -> World {
        let mut world = World::websocket();
        world.send(r#"{"id":1,"connect":{}}"#);
        world.connect();
        world.written();
        world
    }

    fn subscribed() -> World {
        let mut world = World::connected();
        world.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
        world.subscribe(0, Traits::default(), position(5), &[]);
        world.written();
        world
    }
}

#[test]
fn commands_of_one_frame_are_taken_one_after_the_other() {
    let mut world = World::websocket();
    world.send(
        "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":3,\"rpc\":{}}",
    );
    assert!(world.session.poll_request().is_some());
    assert!(world.session.poll_request().is_none(), "the second command waits for the first");
    world.session.establish("".into(), Bytes::new(), None, None);
    world.session.resume(world.now, &world.config);
    world.subscribe(0, Traits::default(), position(0), &[]);
    let written = world.written();
    let order: Vec<_> = ["\"id\":2", "\"id\":3"].iter().map(|id| written.find(id).expect(id)).collect();
    assert!(order[0] < order[1], "{written}");
}

#[test]
fn a_command_before_connect_or_a_second_connect_is_a_bad_request() {
    let mut early = World::websocket();
    early.send(r#"{"id":1,"subscribe":{"channel":"a"}}"#);
    assert_eq!(early.reason(), Some(CloseReason::BadRequest));
    let mut second = World::connected();
    second.send(r#"{"id":2,"connect":{}}"#);
    assert_eq!(second.reason(), Some(CloseReason::BadRequest));
    assert!(second.written().contains("bad request"), "the close frame says why");
}

#[test]
fn a_client_that_never_connects_is_stale_even_if_it_answers_pings() {
    let mut world = World::websocket();
    world.run(secs(60), |world| world.send("{}"));
    assert_eq!(world.reason(), Some(CloseReason::Stale));
    assert_eq!(world.now - world.start, secs(10));
}

#[test]
fn a_quiet_client_that_answers_beats_lives_for_twenty_intervals() {
    let mut world = World::connected();
    let mut beats = 0;
    world.run(secs(25 * 20), |world| {
        assert_eq!(world.written(), "\u{fffd}\u{2}{}", "a beat is an empty reply");
        beats += 1;
        world.now += secs(7);
        world.send("{}");
    });
    assert_eq!((world.reason(), beats), (None, 20));
}

#[test]
fn a_vanished_client_is_dead_eight_seconds_after_the_first_beat_and_is_not_said_goodbye() {
    let mut world = World::connected();
    world.run(secs(3600), |world| drop(world.written()));
    assert_eq!(world.reason(), Some(CloseReason::NoHeartbeat));
    assert_eq!(world.now - world.start, Duration::from_millis(18_750) + secs(8));
    assert!(!world.session.closing().expect("it is closing").is_polite);
}

#[test]
fn a_silent_client_to_which_nothing_can_be_written_is_dead_after_the_longest_silence() {
    let mut world = World::connected();
    world.run(secs(3600), |_| {});
    assert_eq!(world.reason(), Some(CloseReason::NoHeartbeat));
    assert_eq!(world.now - world.start, secs(35));
    assert_eq!(world.session.closing().expect("it is closing").unsent_bytes, 4, "the beat was never written");
}

#[test]
fn a_peer_whose_words_wait_unread_behind_a_command_is_not_called_dead() {
    let mut world = World::connected();
    world.send(r#"{"id":2,"presence":{"channel":"a"}}"#);
    let noise = vec![b' '; 70_000];
    world.session.handle_bytes(world.now, &noise, &world.config);
    assert!(!world.session.wants_bytes(&world.config), "enough waits");
    world.run(secs(300), |_| {});
    assert_eq!(world.reason(), None);
}

#[test]
fn publications_pass_in_order_and_duplicates_do_not() {
    let mut world = World::subscribed();
    for offset in [4, 5, 6, 6, 7] {
        world.deliver(0, "a", offset);
    }
    let written = world.written();
    assert_eq!(written.matches("\"pub\"").count(), 2, "{written}");
    assert!(written.find("\"offset\":6") < written.find("\"offset\":7"));
}

#[test]
fn a_gap_ends_the_subscription_with_2500_and_nothing_after_it_is_pushed() {
    let mut world = World::subscribed();
    world.deliver(0, "a", 7);
    world.deliver(0, "a", 8);
    let written = world.written();
    assert!(written.contains(r#""unsubscribe":{"code":2500"#), "{written}");
    assert!(!written.contains("\"pub\""), "{written}");
    assert_eq!(world.reason(), None);
    assert_eq!(&*world.session.poll_ended().expect("it must leave the hub").subscription.channel, "a");
}

#[test]
fn a_gap_in_a_server_side_subscription_closes() {
    let mut world = World::connected();
    world.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    let traits = Traits { is_server_side: true, ..Traits::default() };
    world.subscribe(0, traits, position(5), &[]);
    world.deliver(0, "a", 9);
    assert_eq!(world.reason(), Some(CloseReason::InsufficientState));
}

#[test]
fn what_is_published_while_joining_comes_after_the_reply_and_once() {
    let mut world = World::connected();
    world.send(r#"{"id":2,"subscribe":{"channel":"a","recover":true,"offset":3,"epoch":"abcdefgh"}}"#);
    let request = world.session.poll_request().expect("a request");
    let traits = Traits::default();
    let mut subscription = Subscription::joining("a".into(), 0, 0, traits, Bytes::new());
    subscription.seen = Some(position(5));
    world.session.subscriptions.push(subscription);
    // Offsets 4 and 5 are in history too; 6 is not.
    for offset in [4, 5, 6] {
        world.deliver(0, "a", offset);
    }
    assert_eq!(world.written(), "", "nothing before the reply");
    world.session.answer(request.id, &Reply::Subscribe(Box::default()), &world.config);
    world.session.go_live(&[0], &mut None, &world.config);
    let written = world.written();
    assert_eq!(written.matches("\"pub\"").count(), 1, "{written}");
    assert!(written.find("\"id\":2") < written.find("\"offset\":6"), "{written}");
}

#[test]
fn an_outbox_past_its_limit_closes_as_slow_at_once() {
    let mut world = World::subscribed();
    world.config.client.max_outbox_bytes = 1000;
    for offset in 6..100 {
        world.deliver(0, "a", offset);
    }
    assert_eq!(world.reason(), Some(CloseReason::Slow));
    assert!(world.session.outbox.is_empty(), "what waited is thrown away");
    assert!(world.session.closing().expect("it is closing").unsent_bytes >= 1000);
}

#[test]
fn what_went_live_behind_the_limit_of_the_outbox_is_not_written_after_the_end() {
    let mut world = World::connected();
    world.config.client.max_outbox_bytes = 1000;
    world.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    let request = world.session.poll_request().expect("a request");
    let subscription = Subscription::joining("a".into(), 0, 0, Traits::default(), Bytes::new());
    world.session.subscriptions.push(subscription);
    world.deliver(0, "a", 1);
    world.deliver(0, "a", 2);
    let result =
        SubscribeResult { data: format!("{:?}", "x".repeat(2000)).into(), ..SubscribeResult::default() };
    world.session.answer(request.id, &Reply::Subscribe(Box::new(result)), &world.config);
    world.session.go_live(&[0], &mut None, &world.config);
    assert_eq!(world.reason(), Some(CloseReason::Slow));
    assert_eq!(world.written(), "", "what waited is thrown away, and nothing follows");
}

#[test]
fn more_than_fits_while_a_subscription_begins_makes_the_client_come_again() {
    let mut world = World::connected();
    world.config.client.max_outbox_bytes = 4000;
    world.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    world.session.poll_request().expect("a request");
    world.session.subscriptions.push(Subscription::joining(
        "a".into(),
        0,
        0,
        Traits::default(),
        Bytes::new(),
    ));
    let mut offset = 0;
    while world.reason().is_none() {
        offset += 1;
        world.deliver(0, "a", offset);
        assert!(offset < 20, "the buffer has no bound");
    }
    assert_eq!(world.reason(), Some(CloseReason::InsufficientState));
}

#[test]
fn recoveries_whose_replies_wait_together_share_half_an_outbox() {
    let mut world = World::event_stream(&["a", "b"]);
    let room = world.session.recovery_room(&world.config);
    assert_eq!(room, world.config.client.max_outbox_bytes / 2);
    let mut subscription = Subscription::joining("a".into(), 0, 0, Traits::default(), Bytes::new());
    subscription.note_recovered(room - 100);
    world.session.subscriptions.push(subscription);
    assert_eq!(world.session.recovery_room(&world.config), 100);
}

#[test]
fn no_beat_comes_before_the_reply_to_connect() {
    let mut world = World::over(|config, now| {
        Connection::centrifuge(
            Link::websocket(Format::Json, false, Beats::Messages, false, 65_536),
            now,
            &config.heartbeat,
            0.5,
        )
    });
    world.config.client.connect_timeout = Duration::from_secs(3600);
    for _ in 0..10 {
        world.now = world.session.poll_timeout(&world.config).0;
        world.session.handle_timeout(world.now, &world.config);
    }
    assert_eq!((world.reason(), world.written()), (None, String::new()));
    world.send(r#"{"id":1,"connect":{}}"#);
    world.connect();
    world.written();
    world.now = world.session.poll_timeout(&world.config).0;
    world.session.handle_timeout(world.now, &world.config);
    assert!(world.written().contains("{}"), "beats begin with the reply");
}

#[test]
fn a_connect_command_that_is_being_carried_out_is_not_late() {
    let mut world = World::websocket();
    world.send(r#"{"id":1,"connect":{}}"#);
    let request = world.session.poll_request().expect("a request");
    world.now = world.start + world.config.client.connect_timeout + secs(1);
    world.session.handle_timeout(world.now, &world.config);
    assert_eq!(world.reason(), None);
    world.session.answer(request.id, &ErrorCode::Internal.into(), &world.config);
    world.session.resume(world.now, &world.config);
    world.session.handle_timeout(world.now, &world.config);
    assert_eq!(world.reason(), Some(CloseReason::Stale));
}

#[test]
fn what_the_backend_orders_before_the_reply_to_connect_waits_for_it() {
    let mut world = World::websocket();
    let order = Arc::new(ServerSubscribe { channel: "a".into(), ..ServerSubscribe::default() });
    assert!(world.session.keep_for_later(&order, &world.config));
    assert!(world.session.take_ordered().is_empty());
    world.send(r#"{"id":1,"connect":{}}"#);
    world.connect();
    assert_eq!(world.session.take_ordered().len(), 1);
    assert!(!world.session.keep_for_later(&order, &world.config));
}

#[test]
fn a_subscription_that_the_backend_ends_before_the_client_was_told_of_it_is_not_mentioned() {
    let mut world = World::websocket();
    world.send(r#"{"id":1,"connect":{}}"#);
    world.connect();
    world.written();
    for (channel, is_server_side, is_told) in [("ours", true, false), ("theirs", false, true)] {
        let traits = Traits { is_server_side, ..Traits::default() };
        let joining = Subscription::joining(channel.into(), 1, 1, traits, Bytes::new());
        world.session.subscriptions.push(joining);
        world.session.unsubscribe(channel, unsubscribe::SERVER, &world.config);
        assert_eq!(world.written().contains("unsubscribe"), is_told, "{channel}");
        assert!(!world.session.is_subscribed(channel));
    }
}

#[test]
fn no_more_orders_wait_for_a_client_than_it_may_have_subscriptions() {
    let mut world = World::websocket();
    world.config.client.max_subscriptions = 2;
    let order = Arc::new(ServerSubscribe { channel: "a".into(), ..ServerSubscribe::default() });
    for reason in [None, None, Some(CloseReason::ChannelLimit)] {
        assert!(world.session.keep_for_later(&order, &world.config));
        assert_eq!(world.reason(), reason);
    }
}

#[test]
fn a_write_without_progress_is_stalled_after_five_seconds() {
    let mut world = World::subscribed();
    world.deliver(0, "a", 6);
    let blocked = |_: &[IoSlice<'_>]| Err(std::io::ErrorKind::WouldBlock.into());
    world.session.outbox.flush(world.now, &mut 0, blocked).expect("blocking is no error");
    assert_eq!(world.session.poll_timeout(&world.config), (world.start + secs(5), Timer::Write));
    world.run(secs(60), |_| {});
    assert_eq!(world.reason(), Some(CloseReason::WriteStalled));
}

#[test]
fn too_many_commands_close() {
    let mut world = World::connected();
    for id in 2..=250 {
        world.send(&format!(r#"{{"id":{id},"rpc":{{}}}}"#));
    }
    assert_eq!(world.reason(), Some(CloseReason::TooManyRequests));
}

#[test]
fn a_token_that_is_not_refreshed_closes_after_its_grace() {
    let mut world = World::connected();
    world.session.set_expires(Some(world.now + secs(10)));
    world.run(secs(300), |world| world.send("{}"));
    assert_eq!(world.reason(), Some(CloseReason::Expired));
    assert_eq!(world.now - world.start, secs(35));
}

#[test]
fn what_the_backend_prolongs_is_asked_about_when_its_time_has_come_and_does_not_end_by_itself() {
    let mut world = World::connected();
    world.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    world.subscribe(1, Traits::default(), position(0), &[]);
    let at = world.now + secs(10);
    world.session.set_terms(Terms {
        expires: Some(at),
        ttl_seconds: None,
        is_left_to_backend: true,
        token_channels: 0,
        proof: None,
    });
    let subscription = world.session.subscription("a").expect("subscribed");
    subscription.set_expires(Some(at));
    subscription.leave_to_backend();
    assert!(world.session.is_left_to_backend());
    let mut asked = Vec::new();
    world.run(secs(300), |world| {
        world.send("{}");
        asked.extend(std::iter::from_fn(|| world.session.poll_ripe()));
        world.written();
    });
    let subscription = Ripe::Subscription { channel: "a".into(), serial: 1 };
    assert_eq!(asked, [subscription, Ripe::Connection], "each once, while no answer comes");
    assert_eq!(world.reason(), None);
    // Its answer sets another time, at which it is asked about again.
    world.session.set_expires(Some(world.now + secs(60)));
    let end = world.now - world.start + secs(61);
    world.run(end, |world| world.send("{}"));
    assert_eq!(world.session.poll_ripe(), Some(Ripe::Connection));
    assert_eq!((world.session.poll_ripe(), world.reason()), (None, None));
}

#[test]
fn what_is_handed_on_to_the_backend_is_kept_only_where_there_is_something() {
    let mut world = World::connected();
    world.session.carry(|_| {});
    assert_eq!(world.session.asker().baggage, None);
    world.session.carry(|baggage| baggage.meta = Bytes::from_static(b"1"));
    let asker = world.session.asker();
    world.session.carry(|baggage| baggage.meta = Bytes::new());
    // A request that is under way keeps what it began with.
    assert_eq!((asker.baggage.expect("meta").meta.len(), &*asker.user), (1, "42"));
    assert_eq!(world.session.asker().baggage.expect("it was there").meta, Bytes::new());
}

#[test]
fn an_expired_subscription_ends_with_2501() {
    let mut world = World::subscribed();
    let expires = world.now + secs(10);
    world.session.subscription("a").expect("subscribed").set_expires(Some(expires));
    world.run(secs(36), |world| world.send("{}"));
    assert!(world.written().contains(r#""unsubscribe":{"code":2501"#));
    assert_eq!(world.reason(), None);
}

#[test]
fn the_kernels_verdict_that_nobody_acknowledges_is_a_missed_heartbeat() {
    let mut world = World::subscribed();
    world.session.handle_end(Some(std::io::ErrorKind::TimedOut.into()));
    assert_eq!(world.reason(), Some(CloseReason::NoHeartbeat));
    let mut reset = World::subscribed();
    reset.session.handle_end(Some(std::io::ErrorKind::ConnectionReset.into()));
    assert_eq!(reset.reason(), Some(CloseReason::PeerReset));
}

#[test]
fn an_event_stream_writes_its_head_with_the_last_answer_and_ids_that_name_every_channel() {
    let mut world = World::event_stream(&["a", "b"]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.connect();
    assert_eq!(world.written(), "", "no head before the channels are granted");
    world.subscribe(0, Traits::default(), position(2), &[1, 2]);
    world.subscribe(1, Traits::default(), position(0), &[]);
    let written = world.written();
    assert!(written.starts_with("HTTP/1.1 200 OK\r\n\r\nretry: 1000\n"), "{written}");
    let ids: Vec<_> = written.lines().filter(|line| line.starts_with("id: ")).collect();
    assert_eq!(
        ids,
        ["id: a=0.abcdefgh,b=0.abcdefgh", "id: a=1.abcdefgh,b=0.abcdefgh", "id: a=2.abcdefgh,b=0.abcdefgh"]
    );
    world.deliver(1, "b", 1);
    assert!(world.written().starts_with("id: a=2.abcdefgh,b=1.abcdefgh\ndata: {\"channel\":\"b\""));
}

#[test]
fn channels_of_the_token_and_of_the_request_keep_their_own_positions() {
    let mut world = World::event_stream(&["asked", "both"]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.session.poll_request().expect("a connect command is a request");
    world.session.establish("42".into(), Bytes::new(), None, None);
    let brought = |offset| SubscribeResult { position: Some(position(offset)), ..SubscribeResult::default() };
    let result = longwire_protocol::message::ConnectResult {
        client: ClientId(7),
        version: "test",
        ttl_seconds: None,
        data: Bytes::new(),
        subs: vec![("token".into(), brought(70)), ("both".into(), brought(80))],
        ping_seconds: 25,
        pong: false,
        session: String::new(),
        node: String::new(),
        resumed: false,
        lost: false,
    };
    world.session.answer(1, &Reply::Connect(Box::new(result)), &world.config);
    world.session.resume(world.now, &world.config);
    world.subscribe(0, Traits::default(), position(5), &[5]);
    let written = world.written();
    let ids: Vec<_> = written.lines().filter(|line| line.starts_with("id: ")).collect();
    assert_eq!(
        ids,
        [
            "id: token=70.abcdefgh,both=80.abcdefgh,asked=4.abcdefgh",
            "id: token=70.abcdefgh,both=80.abcdefgh,asked=5.abcdefgh"
        ],
        "{written}"
    );
    assert!(world.session.poll_request().is_none(), "\"both\" is not subscribed twice");
}

#[test]
fn nothing_is_written_before_the_head_of_an_event_stream() {
    let mut world = World::event_stream(&["a", "b"]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.connect();
    world.subscribe(0, Traits::default(), position(2), &[]);
    world.deliver(0, "a", 3);
    world.deliver(0, "a", 4);
    world.session.push("a", &Push::Unsubscribe { code: 2000, reason: "test" }, &world.config);
    assert_eq!(world.written(), "");
    world.subscribe(1, Traits::default(), position(0), &[]);
    let written = world.written();
    assert!(written.starts_with("HTTP/1.1 200 OK"), "{written}");
    // Each event names the position up to it, though both waited for the head.
    let ids: Vec<_> = written.lines().filter(|line| line.starts_with("id: a=")).collect();
    let of = |offset: u64| format!("id: a={offset}.abcdefgh,b=0.abcdefgh");
    assert_eq!(ids, [of(2), of(3), of(4)], "{written}");
}

#[test]
fn a_channel_that_the_backend_ends_before_the_head_is_told_behind_it() {
    let mut world = World::event_stream(&["a", "b"]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.connect();
    world.subscribe(0, Traits::default(), position(2), &[]);
    world.session.unsubscribe("a", unsubscribe::SERVER, &world.config);
    assert_eq!(world.written(), "", "nothing before the head");
    world.subscribe(1, Traits::default(), position(0), &[]);
    let written = world.written();
    assert!(written.find("\"channels\":{\"a\"") < written.find("event: unsubscribe\n"), "{written}");
    assert!(
        written.ends_with("data: {\"channel\":\"a\",\"code\":2000,\"reason\":\"server unsubscribe\"}\n\n")
    );
}

#[test]
fn a_channel_that_the_backend_adds_before_the_head_is_told_behind_it_and_named_in_every_id() {
    let mut world = World::event_stream(&["a"]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.connect();
    let traits = Traits { is_server_side: true, is_positioned: true, ..Traits::default() };
    let mut added = Subscription::joining("added".into(), 7, 7, traits, Bytes::new());
    added.seen = Some(position(1));
    world.session.subscriptions.push(added);
    let result = SubscribeResult { position: Some(position(1)), ..SubscribeResult::default() };
    world.session.push("added", &Push::Subscribe(Box::new(result)), &world.config);
    world.session.go_live(&[7], &mut None, &world.config);
    assert_eq!(world.written(), "", "nothing before the head");
    world.subscribe(0, Traits::default(), position(2), &[]);
    assert!(world.written().ends_with("{\"added\":{\"offset\":1,\"epoch\":\"abcdefgh\"}}}\n\n"));
    world.deliver(0, "a", 3);
    let written = world.written();
    assert!(written.contains("a=3.abcdefgh") && written.contains("added=1.abcdefgh"), "{written}");
}

#[test]
fn the_id_of_an_event_that_waited_for_the_head_names_nothing_behind_it() {
    let mut world = World::event_stream(&["a", "b"]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.connect();
    world.subscribe(0, Traits::default(), position(2), &[]);
    for offset in [3, 4, 5] {
        world.deliver(0, "a", offset);
    }
    world.subscribe(1, Traits::default(), position(0), &[]);
    let written = world.written();
    let ids: Vec<_> = written.lines().filter(|line| line.starts_with("id: ")).skip(1).collect();
    let expected = [3, 4, 5].map(|offset| format!("id: a={offset}.abcdefgh,b=0.abcdefgh"));
    assert_eq!(ids, expected, "a break behind any of them is recovered from");
}

#[test]
fn nothing_follows_the_last_words() {
    let mut world = World::connected();
    world.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    world.session.poll_request().expect("a request");
    let subscription = Subscription::joining("a".into(), 0, 0, Traits::default(), Bytes::new());
    world.session.subscriptions.push(subscription);
    world.deliver(0, "a", 1);
    world.session.close(CloseReason::ForceDisconnect.into(), "");
    world.session.go_live(&[0], &mut None, &world.config);
    assert!(!world.written().contains("\"pub\""));
}

#[test]
fn a_refused_channel_refuses_the_whole_event_stream_with_a_status() {
    let mut world = World::event_stream(&["a"]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.connect();
    let request = world.session.poll_request().expect("a request");
    world.session.deny(request.id, ErrorCode::PermissionDenied.into(), &world.config);
    assert!(world.written().starts_with("HTTP/1.1 403 Forbidden\r\n"));
    assert_eq!(world.reason(), Some(CloseReason::PermissionDenied));
}

#[test]
fn a_gap_on_an_event_stream_closes_so_that_the_browser_comes_back() {
    let mut world = World::event_stream(&["a"]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.connect();
    world.subscribe(0, Traits::default(), position(2), &[]);
    world.deliver(0, "a", 9);
    assert_eq!(world.reason(), Some(CloseReason::InsufficientState));
    assert!(world.written().contains("event: disconnect\n"));
}

#[test]
fn what_is_heard_at_once_does_not_prove_that_a_publication_was_read() {
    let claims = crate::node::claims::Claims::new(1, 1);
    for (pauses, stands) in [(&[0, 1][..], None), (&[0, 10][..], None), (&[0, 10, 10][..], Some(6))] {
        let mut world = World::connected();
        world.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
        let traits = Traits { is_positioned: true, is_recoverable: true, ..Traits::default() };
        world.subscribe(0, traits, position(5), &[]);
        world.session.subscriptions[0].has_entered = true;
        let place = crate::node::session_name::SessionPlace { shard: 0, index: 0, generation: 1 };
        let claim = claims.claim(&"42".into(), "phone", place).expect("it is free");
        world.session.set_claim(claim, true);
        world.deliver(0, "a", 6);
        world.written();
        for pause in pauses {
            world.now += Duration::from_secs(*pause);
            world.send("{}");
        }
        world.session.handle_end(Some(std::io::ErrorKind::ConnectionReset.into()));
        assert!(world.session.is_away());
        let missing = world.session.missing_since(&Connect::default());
        assert_eq!(missing[0].since.map(|since| since.offset), stands, "{pauses:?}");
        world.session.lapse(CloseReason::NoHeartbeat, "");
        world.session.release_places();
    }
}

#[test]
fn what_the_head_brought_does_not_prove_that_what_was_written_behind_it_came() {
    let claims = crate::node::claims::Claims::new(1, 1);
    let place = crate::node::session_name::SessionPlace { shard: 0, index: 0, generation: 1 };
    let mut world = World::event_stream(&[]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.session.poll_request().expect("a connect command is a request");
    world.session.establish("42".into(), Bytes::new(), None, None);
    world.session.set_claim(claims.claim(&"42".into(), "phone", place).expect("it is free"), true);
    for (serial, channel) in [(1, "a"), (2, "added")] {
        let traits =
            Traits { is_positioned: true, is_recoverable: true, is_server_side: true, ..Traits::default() };
        let mut subscription = Subscription::joining(channel.into(), serial, serial, traits, Bytes::new());
        (subscription.seen, subscription.has_entered) = (Some(position(5)), true);
        subscription.note_recovered(100);
        world.session.subscriptions.push(subscription);
    }
    let What::Publication(missed) = &delivery("", 5).what else { panic!("it is one") };
    // The backend joined it to a channel, and what it missed there waits for the head.
    world.session.push("added", &Push::Publication(missed.clone()), &world.config);
    world.session.go_live(&[2], &mut None, &world.config);
    let result = SubscribeResult {
        position: Some(position(4)),
        was_recovering: true,
        recovered: true,
        publications: vec![missed.clone()],
        ..SubscribeResult::default()
    };
    world.welcome(vec![("a".into(), result)]);
    world.session.go_live(&[1], &mut None, &world.config);
    let written = world.written();
    assert!(written.rfind("\"channel\":\"a\"") < written.rfind("\"channel\":\"added\""), "{written}");
    world.session.handle_end(Some(std::io::ErrorKind::ConnectionReset.into()));
    assert!(world.session.is_away());
    // Of two channels the client names the one of which it knows where it stands.
    let recover = Some(Since::from(position(5)));
    let named = Subscribe { channel: "a".into(), recover, ..Subscribe::default() };
    let missing = world.session.missing_since(&Connect { subs: vec![named], ..Connect::default() });
    let since: Vec<_> =
        missing.iter().map(|missing| (&*missing.channel, missing.since.map(|since| since.offset))).collect();
    assert_eq!(since, [("a", Some(5)), ("added", None)]);
    world.session.lapse(CloseReason::NoHeartbeat, "");
    world.session.release_places();
}

#[test]
fn what_a_link_asked_for_that_broke_while_its_client_returned_is_not_asked_again_by_the_next() {
    let claims = crate::node::claims::Claims::new(1, 1);
    let place = crate::node::session_name::SessionPlace { shard: 0, index: 0, generation: 1 };
    let mut world = World::event_stream(&["a"]);
    world.session.handle_bytes(world.now, &[], &world.config);
    world.connect();
    world.session.set_claim(claims.claim(&"42".into(), "phone", place).expect("it is free"), true);
    let traits = Traits { is_positioned: true, is_recoverable: true, ..Traits::default() };
    world.subscribe(0, traits, position(0), &[]);
    world.session.subscriptions[0].has_entered = true;
    world.session.handle_end(None);
    // The first breaks before it is told how its session stands, and the driver goes on; with the second there is an
    // answer.
    for is_answered in [false, true] {
        assert!(world.session.is_away());
        let mut fresh = World::event_stream(&["a"]).session;
        fresh.handle_bytes(world.now, &[], &world.config);
        fresh.poll_request().expect("its connect command");
        let (connection, unsent, held) = fresh.into_link();
        world.session.take_link(connection, 0, unsent, held);
        let missing = world.session.missing_since(&Connect::default());
        if !is_answered {
            world.session.handle_end(None);
            world.session.resume(world.now, &world.config);
            assert!(!world.session.has_request(), "nobody asks any more");
            continue;
        }
        let page = |missing| (missing, Page { publications: Vec::new(), top: position(0) });
        let pages = missing.into_iter().map(page).collect();
        let (serials, subs) = world.session.restore(&[], pages, &world.config);
        world.welcome(subs);
        world.session.go_live(&serials, &mut None, &world.config);
        world.session.resume(world.now, &world.config);
        assert!(!world.session.has_request(), "it was told of its channel");
    }
    world.written();
    world.deliver(0, "a", 1);
    assert!(world.written().contains("\"offset\":1"));
    world.session.handle_end(None);
    world.session.lapse(CloseReason::NoHeartbeat, "");
    world.session.release_places();
}
