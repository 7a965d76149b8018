//! Promises of `session::Session`: a whole one, over WebSocket or an event stream, under arbitrary orders.
//!
//! The data is a program: the peer sends commands cut anywhere and sometimes garbage, time passes, channels
//! publish, lose and repeat publications, the one request in progress is carried out step by step, the socket
//! takes a part and blocks, the backend subscribes, unsubscribes and closes. Around the session stands what a
//! shard would do, made of the same parts (`History`, `recovery`), in the same order as in `shard/commands`.
//!
//! After every step: how it closes never changes, nothing is written behind the last words, the outbox keeps
//! its bound, a deadline that was served lies in the future, and nobody who was heard is called dead. At the
//! end a peer that stays silent is noticed, one that answers is kept, and `peer` reads everything that was
//! written and finds each subscription's offsets without a gap.

mod peer;

use crate::input::Input;
use bytes::Bytes;
use longwire::config::Config;
use longwire::delivery::{Delivery, What};
use longwire::history::{History, Retention};
use longwire::node::{Denied, Grant};
use longwire::session::recovery;
use longwire::session::subscription::{Subscription, Traits};
use longwire::session::{Closing, Session};
use longwire_protocol::centrifuge::Format;
use longwire_protocol::centrifuge::json;
use longwire_protocol::centrifuge::link::{Beats, Link};
use longwire_protocol::command::{Command, Connect, Numbered, Subscribe};
use longwire_protocol::message::{ClientId, ClientInfo, ConnectResult, SubscribeResult, unsubscribe};
use longwire_protocol::plain;
use longwire_protocol::websocket::Compressor;
use longwire_protocol::websocket::frame::{self, Opcode};
use longwire_protocol::{Close, CloseReason, Connection, Epoch, ErrorCode, Publication, Push, Reply, Since};
use peer::Answered;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// A longer program would only be slower.
const MAX_STEPS: usize = 400;

/// What a socket is read into at once.
const SCRATCH_BYTES: usize = 16 * 1024;

/// The last has no history. The second's name needs escapes in a position token.
const CHANNELS: [&str; 3] = ["a", "b:x,y=%", "c"];

/// More than a farewell, the head of a stream or an error has.
const SMALL_ITEM_BYTES: usize = 1024;

const RETENTION: Retention = Retention {
    size: 20,
    ttl: Duration::from_secs(300),
    meta_ttl: Duration::from_secs(3600),
    is_on_disk: false,
};

static CONFIGS: LazyLock<[Config; 3]> = LazyLock::new(|| {
    let with = |outbox: usize, message: usize, burst: u32| {
        let mut config = Config::demo();
        config.client.max_outbox_bytes = outbox;
        config.client.command_burst = burst;
        config.client.commands_per_second = burst.min(100);
        config.client.max_subscriptions = 3;
        config.client.max_recovery_publications = 10;
        config.websocket.max_message_bytes = message;
        config
    };
    [with(1 << 20, 65_536, 200), with(6000, 4096, 200), with(800, 600, 20)]
});

thread_local! {
    /// As in a shard.
    static COMPRESSOR: RefCell<Option<Box<Compressor>>> = const { RefCell::new(None) };
}

/// Runs the program to its end, and on until the session ended or proved that it lives.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    let mut steps_after_close = 0;
    for _ in 0..MAX_STEPS {
        if input.is_empty() || steps_after_close > 10 {
            break;
        }
        steps_after_close += usize::from(world.session.closing().is_some());
        world.checked(|world| world.step(&mut input));
    }
    world.finish(input.byte());
}

/// Where the request in progress stands.
enum Stage {
    Idle,
    /// In the hub; history was not read yet.
    Joined(u32, Box<Subscribe>),
    /// History was read; the reply is not written yet.
    Read(u32, Box<Subscribe>, Box<SubscribeResult>),
}

struct World {
    config: &'static Config,
    session: Session,
    is_event_stream: bool,
    is_deflated: bool,
    now: Instant,
    histories: [History; 3],
    /// What may be delivered again.
    recent: VecDeque<(usize, Arc<Delivery>)>,
    epochs: u64,
    stage: Stage,
    /// What the peer sent and what did not arrive yet.
    wire: Vec<u8>,
    /// Not everything that the peer sends is well-formed.
    is_wild: bool,
    next_id: u32,
    /// The serial number of the last subscription.
    serial: u32,
    /// What the peer received.
    received: Vec<u8>,
    /// The answers about subscriptions, in their order.
    answered: VecDeque<Answered>,
    /// Writing failed: the peer received something less than was taken out of the outbox.
    is_broken: bool,
    /// The largest item that may have been put into the outbox.
    largest: usize,
    closing: Option<Closing>,
    /// When the last beat was sent, until the peer was heard.
    beat_at: Option<Instant>,
    last_heard: Instant,
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let choices = input.byte();
        let config = &CONFIGS[usize::from(choices >> 3) % 3];
        let start = Instant::now();
        let is_event_stream = choices & 1 == 1;
        let is_deflated = choices & 2 != 0 && !is_event_stream;
        let mut world = World {
            config,
            session: Session::new(
                Connection::centrifuge(
                    Link::websocket(
                        Format::Json,
                        false,
                        Beats::Messages,
                        is_deflated,
                        config.websocket.max_message_bytes as u32,
                    ),
                    start,
                    &config.heartbeat,
                    f64::from(choices) / 255.0,
                ),
                ClientId(7),
                start,
            ),
            is_event_stream,
            is_deflated,
            now: start,
            histories: [1, 2, 3].map(|bits| History::new(start, Epoch::from_random(bits))),
            recent: VecDeque::new(),
            epochs: 3,
            stage: Stage::Idle,
            wire: Vec::new(),
            is_wild: false,
            serial: 0,
            next_id: 1,
            received: Vec::new(),
            answered: VecDeque::new(),
            is_broken: false,
            largest: SMALL_ITEM_BYTES,
            closing: None,
            beat_at: None,
            last_heard: start,
        };
        if is_event_stream {
            let mut subscribes: Vec<Subscribe> = Vec::new();
            for _ in 0..input.byte() % 4 {
                let ask = world.ask(input);
                if subscribes.iter().all(|earlier| earlier.channel != ask.channel) {
                    subscribes.push(ask);
                }
            }
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n".to_owned();
            let opening = plain::Opening {
                connect: Connect::default(),
                subscribes,
                carrier: plain::Carrier::EventStream { head, retry_milliseconds: 1000 },
                format: plain::Format::Json,
                beats: Arc::default(),
            };
            let connection = Connection::plain(opening, start, &config.heartbeat, f64::from(choices) / 255.0);
            world.session = Session::new(connection, ClientId(7), start);
        } else if choices & 4 == 0 {
            world.send(r#"{"id":1,"connect":{}}"#);
        }
        world.checked(|world| world.arrive(usize::MAX));
        world
    }

    /// Does something to the session, and looks at what must be true afterwards.
    fn checked(&mut self, act: impl FnOnce(&mut World)) {
        let had_closed = self.session.closing().is_some();
        let waited = self.session.outbox.len();
        act(self);
        let waits = self.session.outbox.len();
        if had_closed {
            assert_eq!(self.session.closing(), self.closing.as_ref(), "how it closes has changed");
            assert!(waits <= waited, "written behind the last words");
            assert!(self.session.poll_request().is_none(), "a request of a session that is over");
        }
        self.closing = self.session.closing().cloned();
        let limit = self.config.client.max_outbox_bytes;
        let last_words = if self.closing.is_some() { SMALL_ITEM_BYTES } else { 0 };
        assert!(waits < limit + self.largest + last_words, "{waits} bytes wait, {limit} may");
        match &self.closing {
            Some(closing) if !closing.is_polite => assert_eq!(waits, 0, "kept for nobody"),
            _ => {}
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 32 {
            0..=5 => self.send_commands(input),
            6 => self.send_garbage(input),
            7 | 8 => {
                let count = usize::from(input.short());
                self.arrive(count);
            }
            9 => self.arrive(usize::MAX),
            10 => {
                self.now += Duration::from_millis(input.choose(&[1, 100, 1000, 5000, 8000, 25_000, 60_000]));
            }
            11 => self.handle_timeout(),
            12 => {
                self.now = self.now.max(self.session.poll_timeout(self.config).0);
                self.handle_timeout();
            }
            13..=17 => self.publish_or_fail(input),
            18..=21 => self.carry_on(input.byte(), false),
            22 => self.deny(input),
            23 => {
                let channel = input.choose(&CHANNELS);
                let why = input.choose(&[
                    unsubscribe::SERVER,
                    unsubscribe::INSUFFICIENT_STATE,
                    unsubscribe::EXPIRED,
                ]);
                self.session.unsubscribe(channel, why, self.config);
            }
            24 | 25 => self.flush(input),
            26 => self.close(input),
            27 => while self.session.poll_ended().is_some() {},
            28 => self.order_subscribe(input.byte()),
            29 => self.move_someone(input),
            30 => self.expire(input),
            _ => self.arrive(1),
        }
    }

    // The peer.

    fn send(&mut self, text: &str) {
        frame::encode(Opcode::Text, false, Some([1, 2, 3, 4]), text.as_bytes(), &mut self.wire);
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    fn ask(&self, input: &mut Input<'_>) -> Subscribe {
        let index = usize::from(input.byte()) % CHANNELS.len();
        let choices = input.byte();
        let top = self.histories[index].top();
        let since = Since {
            offset: match choices >> 4 {
                15 => u64::MAX,
                back => top.offset.saturating_sub(u64::from(back)),
            },
            epoch: match choices & 3 {
                0 => None,
                1 => Some(Epoch::FOREIGN),
                _ => Some(top.epoch),
            },
        };
        let flags = input.byte();
        Subscribe {
            channel: CHANNELS[index].to_owned(),
            recover: (flags & 1 == 1).then_some(since),
            positioned: flags & 2 != 0,
            recoverable: flags & 4 != 0,
            join_leave: flags & 8 != 0,
            reject_unrecovered: flags & 16 != 0,
            ..Subscribe::default()
        }
    }

    fn send_commands(&mut self, input: &mut Input<'_>) {
        let mut lines = Vec::new();
        for _ in 0..1 + input.byte() % 3 {
            lines.push(self.command(input));
        }
        self.send(&lines.join("\n"));
    }

    fn command(&mut self, input: &mut Input<'_>) -> String {
        let id = self.id();
        let kind = input.byte() % 16;
        let channel = CHANNELS[usize::from(kind) % 3];
        match kind {
            0 => format!(r#"{{"id":{id},"connect":{{}}}}"#),
            1..=6 => {
                let ask = self.ask(input);
                let since = ask.recover.unwrap_or_default();
                format!(
                    r#"{{"id":{id},"subscribe":{{"channel":"{}","recover":{},"offset":{},"epoch":"{}","positioned":{},"recoverable":{},"join_leave":{},"flag":{}}}}}"#,
                    ask.channel,
                    ask.recover.is_some(),
                    since.offset,
                    since.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
                    ask.positioned,
                    ask.recoverable,
                    ask.join_leave,
                    if ask.reject_unrecovered { 2 } else { 0 },
                )
            }
            7 | 8 => format!(r#"{{"id":{id},"unsubscribe":{{"channel":"{channel}"}}}}"#),
            9 | 10 => format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":[{id}]}}}}"#),
            11 => format!(r#"{{"id":{id},"history":{{"channel":"{channel}","limit":3}}}}"#),
            12 => format!(r#"{{"id":{id},"rpc":{{"method":"m","data":{{}}}}}}"#),
            13 => format!(r#"{{"id":{id},"presence":{{"channel":"{channel}"}}}}"#),
            14 => format!(r#"{{"id":{id},"refresh":{{"token":"t"}}}}"#),
            _ => "{}".to_owned(),
        }
    }

    fn send_garbage(&mut self, input: &mut Input<'_>) {
        self.is_wild = true;
        let opcode = input.byte();
        let bytes = input.bytes(300);
        let key = Some([9, 9, 9, 9]);
        match opcode % 5 {
            0 => self.wire.extend_from_slice(bytes),
            1 => frame::encode(Opcode::Text, false, key, bytes, &mut self.wire),
            2 => frame::encode(Opcode::Ping, false, key, bytes, &mut self.wire),
            3 => frame::encode(Opcode::Text, self.is_deflated, key, bytes, &mut self.wire),
            _ => {
                let payload = frame::close_payload(1000, &String::from_utf8_lossy(bytes));
                frame::encode(Opcode::Close, false, key, &payload, &mut self.wire);
            }
        }
    }

    fn arrive(&mut self, count: usize) {
        if self.session.closing().is_some() || !self.session.wants_bytes(self.config) {
            return;
        }
        let count = count.min(self.wire.len()).min(SCRATCH_BYTES);
        let bytes: Vec<u8> = self.wire.drain(..count).collect();
        if !bytes.is_empty() {
            self.beat_at = None;
            self.last_heard = self.now;
        }
        self.session.handle_bytes(self.now, &bytes, self.config);
    }

    // Time.

    fn handle_timeout(&mut self) {
        let intervals = &self.config.heartbeat;
        let had_closed = self.session.closing().is_some();
        let was_unanswered = self.session.connection().heartbeat.is_unanswered();
        if !self.session.wants_bytes(self.config) {
            // What the peer sent waits on this side.
            self.last_heard = self.now;
            self.beat_at = None;
        }
        self.session.handle_timeout(self.now, self.config);
        let is_unanswered = self.session.connection().heartbeat.is_unanswered();
        match self.session.closing() {
            Some(closing) if !had_closed && closing.close.reason == CloseReason::NoHeartbeat => {
                let beat_at = self.beat_at.expect("called dead without an unanswered beat");
                assert!(self.now >= beat_at + intervals.timeout, "called dead before its time");
            }
            Some(_) => {}
            None => {
                let (next, timer) = self.session.poll_timeout(self.config);
                assert!(next > self.now, "{timer:?} is due again at once");
                assert!(next <= self.now + intervals.interval, "{timer:?} is too far away");
                if is_unanswered && (!was_unanswered || self.beat_at.is_none()) {
                    self.beat_at = Some(self.now);
                }
            }
        }
    }

    // The channels.

    fn publish_or_fail(&mut self, input: &mut Input<'_>) {
        let channel = usize::from(input.byte()) % CHANNELS.len();
        match input.byte() % 10 {
            0..=5 => {
                let size = input.choose(&[0, 0, 30, 200, 3000]);
                let delivery = self.publish(channel, size);
                self.deliver(channel, &delivery);
            }
            // Lost on its way.
            6 => drop(self.publish(channel, 0)),
            7 => {
                let at = usize::from(input.byte());
                if let Some((channel, delivery)) =
                    self.recent.get(at % self.recent.len().max(1)).map(|(c, d)| (*c, d.clone()))
                {
                    self.deliver(channel, &delivery);
                }
            }
            8 => self.histories[channel].clear(),
            _ => {
                self.epochs += 1;
                self.histories[channel] = History::new(self.now, Epoch::from_random(self.epochs));
            }
        }
    }

    fn publish(&mut self, channel: usize, size: usize) -> Arc<Delivery> {
        let has_history = channel < 2;
        let epoch = self.histories[channel].top().epoch;
        let publication = |offset: u64| {
            let data = format!(r#"{{"o":{offset},"e":"{epoch}","fill":"{}"}}"#, "x".repeat(size));
            Arc::new(Publication {
                offset,
                data: data.into(),
                info: None,
                tags: Vec::new(),
                except: None,
                is_json: true,
            })
        };
        let (position, publication) = match has_history {
            true => {
                let (position, publication) =
                    self.histories[channel].append(self.now, &RETENTION, publication);
                (Some(position), publication)
            }
            false => (None, publication(0)),
        };
        let what = What::Publication(publication);
        let delivery = Arc::new(Delivery::new(CHANNELS[channel].into(), what, position));
        self.recent.push_back((channel, delivery.clone()));
        if self.recent.len() > 8 {
            self.recent.pop_front();
        }
        delivery
    }

    fn deliver(&mut self, channel: usize, delivery: &Arc<Delivery>) {
        let bytes = match &delivery.what {
            What::Publication(publication) => publication.data.len(),
            _ => 0,
        };
        // With what stands around it, an id of three channels included.
        self.largest = self.largest.max(bytes + SMALL_ITEM_BYTES);
        COMPRESSOR.with_borrow_mut(|compressor| {
            self.session.handle_delivery(channel as u32, delivery, compressor, self.config);
        });
    }

    fn move_someone(&mut self, input: &mut Input<'_>) {
        let channel = usize::from(input.byte()) % CHANNELS.len();
        let info = Arc::new(ClientInfo {
            user: "someone".into(),
            client: ClientId(9),
            conn_info: Bytes::new(),
            chan_info: Bytes::new(),
        });
        let what = if input.flag() { What::Join(info) } else { What::Leave(info) };
        self.deliver(channel, &Arc::new(Delivery::new(CHANNELS[channel].into(), what, None)));
    }

    // What a shard does for a session.

    fn carry_on(&mut self, choices: u8, is_last: bool) {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => {
                let is_behind = self.session.outbox.len() > self.config.client.max_outbox_bytes / 4;
                if (!is_behind || is_last)
                    && let Some(request) = self.session.poll_request()
                {
                    self.begin(request, choices);
                }
            }
            Stage::Joined(id, ask) => match self.read_history(&ask, false) {
                Some(result) if ask.reject_unrecovered && ask.recover.is_some() && !result.recovered => {
                    self.session.forget(&ask.channel);
                    self.refuse(id, ErrorCode::UnrecoverablePosition.into());
                }
                Some(result) => self.stage = Stage::Read(id, ask, Box::new(result)),
                None => self.refuse(id, ErrorCode::Internal.into()),
            },
            Stage::Read(id, ask, result) => {
                if !self.session.is_subscribed(&ask.channel) {
                    return self.refuse(id, ErrorCode::Internal.into());
                }
                self.answer(id, &Reply::Subscribe(result), Some(&ask.channel));
                self.go_live(&ask.channel);
                self.session.resume(self.now, self.config);
            }
        }
    }

    fn begin(&mut self, request: Numbered, choices: u8) {
        let Numbered { id, command } = request;
        match command {
            Command::Connect(_) => {
                self.session.establish("42".into(), Bytes::new(), None, None);
                let mut subs = Vec::new();
                for (index, channel) in CHANNELS.iter().enumerate() {
                    if choices & 8 << index != 0 && choices & 1 == 1 {
                        let ask = Subscribe { channel: (*channel).to_owned(), ..Subscribe::default() };
                        self.join(&ask, true);
                        subs.extend(self.read_history(&ask, true).map(|result| (ask.channel, result)));
                    }
                }
                let channels: Vec<String> = subs.iter().map(|(channel, _)| channel.clone()).collect();
                let result = ConnectResult {
                    client: ClientId(7),
                    version: "fuzz",
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
                self.answer(id, &Reply::Connect(Box::new(result)), None);
                channels.iter().for_each(|channel| self.go_live(channel));
            }
            Command::Subscribe(ask) => {
                if CHANNELS.contains(&&*ask.channel) && self.session.closing().is_none() {
                    self.join(&ask, false);
                    self.stage = Stage::Joined(id, ask);
                    return;
                }
                return self.refuse(id, ErrorCode::PermissionDenied.into());
            }
            Command::Unsubscribe { channel } => {
                self.session.forget(&channel);
                while self.session.poll_ended().is_some() {}
                self.answer(id, &Reply::Unsubscribe, Some(&channel));
            }
            Command::Publish { channel, .. } => {
                if let Some(index) = CHANNELS.iter().position(|known| *known == channel) {
                    let delivery = self.publish(index, 0);
                    self.deliver(index, &delivery);
                }
                self.answer(id, &Reply::Publish, None);
            }
            Command::History(ask) => {
                let index = CHANNELS.iter().position(|known| *known == ask.channel).unwrap_or(0);
                let page = self.histories[index].page(self.now, &recovery::needed(ask.since, 3));
                let reply = Reply::History { publications: page.publications, top: page.top };
                self.answer(id, &reply, None);
            }
            Command::Refresh { .. } => {
                self.session.set_expires((choices & 1 == 1).then(|| self.now + Duration::from_secs(60)));
                let reply = Reply::Refresh { client: ClientId(7), version: "fuzz", ttl_seconds: Some(60) };
                self.answer(id, &reply, None);
            }
            _ => return self.refuse(id, ErrorCode::NotAvailable.into()),
        }
        self.session.resume(self.now, self.config);
    }

    fn deny(&mut self, input: &mut Input<'_>) {
        let denied = match input.byte() % 8 {
            0 => Denied::close(input.choose(CloseReason::ALL), "denied"),
            _ => input.choose(ErrorCode::ALL).into(),
        };
        let id = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Joined(id, ask) | Stage::Read(id, ask, _) => {
                self.session.forget(&ask.channel);
                id
            }
            Stage::Idle => match self.session.poll_request() {
                Some(request) => {
                    if matches!(request.command, Command::Connect(_)) {
                        self.session.refuse_connect(self.now);
                    }
                    request.id
                }
                None => return,
            },
        };
        self.refuse(id, denied);
    }

    fn refuse(&mut self, id: u32, denied: Denied) {
        self.session.deny(id, denied, self.config);
        self.session.resume(self.now, self.config);
    }

    fn answer(&mut self, id: u32, reply: &Reply, channel: Option<&str>) {
        let mut text = Vec::new();
        json::encode_reply(id, reply, &mut text);
        if self.is_event_stream {
            // The first bytes hold all answers, and an id before each publication.
            self.largest += 2 * text.len() + 10 * 200;
        }
        self.largest = self.largest.max(text.len() + SMALL_ITEM_BYTES);
        if let (Some(channel), None) = (channel, self.session.closing()) {
            self.answered.push_back(Answered { id, channel: channel.to_owned() });
        }
        self.session.answer(id, reply, self.config);
    }

    fn join(&mut self, ask: &Subscribe, is_server_side: bool) {
        if self.session.closing().is_some() || self.session.is_subscribed(&ask.channel) {
            return;
        }
        while self.session.poll_ended().is_some() {}
        let Some(index) = CHANNELS.iter().position(|known| *known == ask.channel) else { return };
        let grant = Grant {
            has_history: index < 2,
            allow_positioning: true,
            allow_recovery: true,
            force_positioning: is_server_side,
            may_see_join_leave: true,
            ..Grant::default()
        };
        let traits = Traits::of(&grant, ask, is_server_side);
        self.serial += 1;
        let channel = CHANNELS[index].into();
        let subscription = Subscription::joining(channel, index as u32, self.serial, traits, Bytes::new());
        self.session.subscriptions.push(subscription);
    }

    /// What the client is told of a subscription that joined; `None` if it ended meanwhile.
    fn read_history(&mut self, ask: &Subscribe, is_server_side: bool) -> Option<SubscribeResult> {
        let index = CHANNELS.iter().position(|known| *known == ask.channel)?;
        let subscription = self.session.subscription(&ask.channel)?;
        let traits = subscription.traits.clone();
        if traits.is_server_side != is_server_side {
            return None;
        }
        let mut result = SubscribeResult {
            recoverable: traits.is_recoverable,
            positioned: traits.is_positioned,
            was_recovering: ask.recover.is_some(),
            ..SubscribeResult::default()
        };
        if traits.is_positioned {
            let since = ask.recover.filter(|_| traits.is_recoverable);
            let max = self.config.client.max_recovery_publications;
            let page = self.histories[index].page(self.now, &recovery::needed(since, max));
            let start = recovery::start(since, page, max, self.config.client.max_outbox_bytes / 2);
            subscription.seen = Some(start.seen);
            result.position = Some(start.told);
            result.recovered = start.recovered;
            result.publications = start.publications;
        }
        Some(result)
    }

    fn go_live(&mut self, channel: &str) {
        let serial = self.session.subscription(channel).map(|subscription| subscription.serial);
        let serials = Vec::from_iter(serial);
        COMPRESSOR.with_borrow_mut(|compressor| self.session.go_live(&serials, compressor, self.config));
    }

    /// The backend subscribes the client.
    fn order_subscribe(&mut self, choices: u8) {
        let channel = CHANNELS[usize::from(choices) % CHANNELS.len()];
        let is_busy_with_it = match &self.stage {
            Stage::Joined(_, ask) | Stage::Read(_, ask, _) => ask.channel == channel,
            Stage::Idle => false,
        };
        if is_busy_with_it || !self.session.is_connected() || self.session.is_subscribed(channel) {
            return;
        }
        let ask = Subscribe { channel: channel.to_owned(), ..Subscribe::default() };
        self.join(&ask, true);
        if let Some(result) = self.read_history(&ask, true) {
            self.session.push(channel, &Push::Subscribe(Box::new(result)), self.config);
            self.go_live(channel);
        }
    }

    fn expire(&mut self, input: &mut Input<'_>) {
        let expires = input.flag().then(|| self.now + Duration::from_secs(input.number() % 100));
        match input.byte() % 4 {
            3 => self.session.set_expires(expires),
            index => {
                if let Some(subscription) = self.session.subscription(CHANNELS[usize::from(index)]) {
                    subscription.set_expires(expires);
                }
            }
        }
    }

    fn close(&mut self, input: &mut Input<'_>) {
        let reason = input.choose(CloseReason::ALL);
        match input.byte() % 6 {
            0 => self.session.close(reason.into(), "closed"),
            1 => self.session.abort(reason, "aborted"),
            2 => self.session.handle_end(None),
            3 => self.session.handle_end(Some(ErrorKind::ConnectionReset.into())),
            4 => self.session.handle_end(Some(ErrorKind::TimedOut.into())),
            _ => self.session.close(Close::custom(reason, 4000, input.text(200)), ""),
        }
    }

    // The socket.

    fn flush(&mut self, input: &mut Input<'_>) {
        let room = match input.byte() % 4 {
            0 => usize::from(input.short()) % 4000,
            1 => usize::from(input.byte()),
            _ => usize::MAX,
        };
        let error = match input.byte() {
            254 => Some(ErrorKind::ConnectionReset),
            255 => Some(ErrorKind::TimedOut),
            _ => None,
        };
        self.write(room, error);
    }

    /// Lets the socket take up to `room` bytes, and then block or fail.
    fn write(&mut self, room: usize, error: Option<ErrorKind>) {
        let was_polite = self.session.closing().is_none_or(|closing| closing.is_polite);
        if !was_polite || self.is_broken {
            return;
        }
        let (mut room, mut written) = (room, 0);
        let before = self.received.len();
        let received = &mut self.received;
        let take = |slices: &[IoSlice<'_>]| {
            if room == 0 || error.is_some() {
                return Err(error.unwrap_or(ErrorKind::WouldBlock).into());
            }
            let mut taken = 0;
            for slice in slices {
                let count = slice.len().min(room);
                received.extend_from_slice(&slice[..count]);
                taken += count;
                room -= count;
            }
            Ok(taken)
        };
        match self.session.outbox.flush(self.now, &mut written, take) {
            Ok(_) => {}
            Err(error) => {
                self.is_broken = true;
                self.session.handle_broken_link(error);
            }
        }
        assert_eq!(written, (self.received.len() - before) as u64);
    }

    // The end.

    fn finish(mut self, choice: u8) {
        for _ in 0..1000 {
            self.checked(|world| world.write(usize::MAX, None));
            self.checked(|world| world.carry_on(0, true));
            if self.session.closing().is_some()
                || matches!(self.stage, Stage::Idle) && self.session.wants_bytes(self.config)
            {
                // A turn without a request may still have brought one.
                self.checked(|world| world.carry_on(0, true));
                if matches!(self.stage, Stage::Idle) {
                    break;
                }
            }
        }
        match choice % 3 {
            0 => self.silence(),
            1 => self.answer_beats(),
            _ => {}
        }
        self.checked(|world| world.write(usize::MAX, None));
        peer::judge(self);
    }

    /// Nothing comes and nothing goes: that is noticed.
    fn silence(&mut self) {
        let intervals = &self.config.heartbeat;
        let begin = self.now;
        let limit = intervals.max_silence + intervals.interval + intervals.timeout;
        self.checked(|world| world.write(0, None));
        for _ in 0..200 {
            if self.session.closing().is_some() || self.is_broken {
                let silence = self.now - begin;
                assert!(silence <= limit, "noticed after {silence:?} of silence, {limit:?} allowed");
                return;
            }
            self.checked(|world| {
                world.now = world.now.max(world.session.poll_timeout(world.config).0);
                world.handle_timeout();
            });
            self.checked(|world| world.write(0, None));
        }
        panic!("{:?} of silence, {limit:?} allowed, and nobody noticed", self.now - begin);
    }

    /// The peer reads everything and answers every beat: it is kept, unless something else runs out.
    fn answer_beats(&mut self) {
        self.is_wild |= !self.wire.is_empty();
        if self.is_wild
            || self.is_event_stream
            || !self.session.is_connected()
            || self.session.closing().is_some()
        {
            return;
        }
        let end = self.now + 5 * self.config.heartbeat.interval;
        while self.now < end && self.session.closing().is_none() {
            self.checked(|world| {
                world.now = world.now.max(world.session.poll_timeout(world.config).0);
                world.handle_timeout();
            });
            self.checked(|world| world.write(usize::MAX, None));
            self.now += self.config.heartbeat.timeout - Duration::from_millis(1);
            self.send("{}");
            self.checked(|world| world.arrive(usize::MAX));
        }
        if let Some(closing) = self.session.closing() {
            let reason = closing.close.reason;
            let may_run_out =
                [CloseReason::Expired, CloseReason::SubscriptionExpired, CloseReason::TooManyRequests];
            assert!(may_run_out.contains(&reason), "{reason:?} for a peer that reads and answers");
        }
    }
}
