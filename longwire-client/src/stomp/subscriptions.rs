//! The subscriptions of a client: what each wants, where it stands, and what waits for its reader.
//!
//! They outlive connections. What must stay true: events are told in the order in which they came; what a break may
//! have cost is told before anything that came after it; a reader that is far behind is seen by
//! [`Table::is_behind`], and nothing more is read for it.

use super::doubles::Doubles;
use super::frame::Writer;
use super::login::Broker;
use super::message::{AckMode, Received};
use super::outbox::MAX_BLAMED;
use crate::error::Error;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::stomp::Version;
use longwire_protocol::{Continuity, Position, continuity};
use std::collections::{BTreeMap, VecDeque};
use std::task::{Poll, Waker};

/// What is asked of a broker.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Empty: the client chooses one.
    pub(super) id: String,
    pub(super) destination: String,
    pub(super) ack: AckMode,
    pub(super) prefetch: Option<u32>,
    pub(super) since: Option<Position>,
    /// Of how many messages doubles are known; 0: none are looked for.
    pub(super) doubles: usize,
    pub(super) headers: Vec<(String, String)>,
}

/// How ids begin that the client chooses.
const OWN_IDS: &str = "lw-";

/// Headers that name a durable subscription.
const DURABLE: [&str; 5] =
    ["durable", "persistent", "auto-delete", "activemq.subscriptionName", "durable-subscription-name"];

impl Wanted {
    /// What of it cannot be asked.
    pub(super) fn fault(&self) -> Option<String> {
        if self.destination.is_empty() {
            return Some("a subscription has no destination".to_owned());
        }
        if self.id.starts_with(OWN_IDS) {
            return Some(format!("the id \"{}\" begins as those do that the client chooses", self.id));
        }
        if self.doubles > 0 && self.ack == AckMode::Client {
            let what = "doubles cannot be dropped where an acknowledgement means all messages before, too";
            return Some(what.to_owned());
        }
        let own = ["destination", "id", "ack", "receipt", "since-offset", "since-epoch"];
        self.headers.iter().find_map(|(name, value)| {
            if name.is_empty() {
                return Some("a header has no name".to_owned());
            }
            if own.contains(&&**name) {
                return Some(format!("the header \"{name}\" is written by the client itself"));
            }
            (name.contains('\0') || value.contains('\0')).then(|| format!("the header \"{name}\" has a NUL"))
        })
    }

    /// Whether the broker keeps what nobody acknowledged, so that a break costs nothing.
    fn is_kept(&self) -> bool {
        let says = |name: &str| self.headers.iter().find(|(its_name, _)| its_name == name);
        let is_true = |name| says(name).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        let is_durable = is_true("durable")
            || is_true("persistent")
            || DURABLE[3..].iter().any(|name| says(name).is_some());
        let is_queue = self.destination.starts_with("/queue/") || self.destination.starts_with("/amq/queue/");
        self.ack != AckMode::Auto && (is_queue || is_durable)
    }
}

/// Where a subscription stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It is to be asked for on the next connection.
    Wanted,
    /// SUBSCRIBE is written.
    Asked,
    /// The broker took it.
    Live,
    /// It is over.
    Ended,
}

/// An event that waits.
#[derive(Debug)]
pub(super) enum Queued {
    Subscribed { again: bool, position: Option<Position> },
    Message(Box<Received>),
    Recovered,
    NotRecovered { from: Option<Position>, to: Option<Position> },
    Ended(Error),
}

/// What a broker says of a subscription with its RECEIPT.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Answer {
    pub(super) recovered: Option<bool>,
    pub(super) position: Option<Position>,
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) wanted: Box<Wanted>,
    id: Box<str>,
    stage: Stage,
    /// It was taken before, on another connection.
    was_live: bool,
    /// How many connections ended with an ERROR that named nobody while it was next to be answered.
    blamed: u8,
    /// The place of the last message, where longwire has one.
    position: Option<Position>,
    events: VecDeque<Queued>,
    /// How many of them are messages.
    messages: usize,
    /// How many came, on all connections.
    received: u64,
    said: SaidUpTo,
    doubles: Option<Box<Doubles>>,
    waker: Option<Waker>,
}

/// How far everything is said, where what is said about a message means those before it, too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SaidUpTo {
    /// The last message of those.
    settled: u64,
    /// The last of them that was not acknowledged but refused.
    refused: u64,
}

impl SaidUpTo {
    /// Adds a message; whether what was said about a later one has said the same.
    ///
    /// # Errors
    /// Something else was said.
    pub(super) fn add(&mut self, message: u64, is_ack: bool) -> Result<bool, Error> {
        if message > self.settled {
            self.settled = message;
            if !is_ack {
                self.refused = message;
            }
            return Ok(false);
        }
        if is_ack && message > self.refused {
            return Ok(true);
        }
        Err(Error::bad_argument("what was said about a later message meant this one, too"))
    }
}

/// All subscriptions of a client.
#[derive(Debug)]
pub(super) struct Table {
    /// Each apart: a node of the map has room for many.
    subscriptions: BTreeMap<u32, Box<Subscription>>,
    /// Those whose ids the application chose.
    by_id: BTreeMap<Box<str>, u32>,
    last: u32,
    max_messages: usize,
    max_bytes: usize,
    /// What waits for all readers together.
    bytes: usize,
    /// How many subscriptions have as many messages as may wait.
    full: usize,
}

impl Table {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Table {
        Table {
            subscriptions: BTreeMap::new(),
            by_id: BTreeMap::new(),
            last: 0,
            max_messages: max_messages.max(1),
            max_bytes,
            bytes: 0,
            full: 0,
        }
    }

    /// Adds a subscription; `None` if there is one with its id.
    pub(super) fn add(&mut self, wanted: Wanted) -> Option<u32> {
        let number = self.last + 1;
        let id: Box<str> = match &*wanted.id {
            "" => format!("{OWN_IDS}{number}").into(),
            id if self.by_id.contains_key(id) => return None,
            id => {
                self.by_id.insert(id.into(), number);
                id.into()
            }
        };
        self.last = number;
        let position = wanted.since;
        let doubles = (wanted.doubles > 0).then(|| Box::new(Doubles::new(wanted.doubles)));
        let subscription = Subscription {
            wanted: Box::new(wanted),
            id,
            stage: Stage::Wanted,
            was_live: false,
            blamed: 0,
            position,
            events: VecDeque::new(),
            messages: 0,
            received: 0,
            said: SaidUpTo::default(),
            doubles,
            waker: None,
        };
        self.subscriptions.insert(number, Box::new(subscription));
        Some(number)
    }

    /// Removes a subscription that nobody reads any more. Its messages that nobody took, if the broker knows of it.
    pub(super) fn remove(&mut self, number: u32) -> Option<(Box<Subscription>, Vec<Received>)> {
        let left = self.take_messages(number);
        let subscription = self.subscriptions.remove(&number)?;
        self.by_id.remove(&subscription.id);
        Some((subscription, left))
    }

    pub(super) fn get(&self, number: u32) -> Option<&Subscription> {
        self.subscriptions.get(&number).map(|subscription| &**subscription)
    }

    /// The subscription that a MESSAGE is for: by the id that it names, or, in 1.0, where it may name none, by its
    /// destination.
    pub(super) fn find(&self, id: Option<&str>, destination: Option<&str>) -> Option<u32> {
        if let Some(id) = id {
            let own = id.strip_prefix(OWN_IDS).and_then(|number| number.parse().ok());
            return match own {
                Some(number) => self.subscriptions.get(&number).filter(|it| &*it.id == id).map(|_| number),
                None => self.by_id.get(id).copied(),
            };
        }
        let mut all = self.subscriptions.iter();
        all.find(|(_, it)| Some(&*it.wanted.destination) == destination).map(|(number, _)| *number)
    }

    /// The subscriptions that are to be asked for, in the order in which they were added.
    pub(super) fn wanted(&self) -> Vec<u32> {
        let all = self.subscriptions.iter();
        all.filter(|(_, it)| it.stage == Stage::Wanted).map(|(number, _)| *number).collect()
    }

    /// Makes the SUBSCRIBE frame of a subscription, which is asked for with that.
    pub(super) fn ask(
        &mut self,
        number: u32,
        version: Version,
        broker: Broker,
        receipt: u64,
    ) -> Option<Vec<u8>> {
        let it = self.subscriptions.get_mut(&number)?;
        it.stage = Stage::Asked;
        let wanted = &it.wanted;
        let mut writer = Writer::new(version, "SUBSCRIBE", 128)
            .header("id", &it.id)
            .header("destination", &wanted.destination)
            .header("ack", wanted.ack.as_str());
        if let Some(prefetch) = wanted.prefetch {
            for name in broker.prefetch_headers() {
                writer = writer.number(name, u64::from(prefetch));
            }
        }
        if let Some(Position { offset, epoch }) = it.position {
            writer = writer.number("since-offset", offset).header("since-epoch", epoch.as_str());
        }
        Some(writer.headers(&wanted.headers).number("receipt", receipt).end())
    }

    /// The broker took a subscription.
    pub(super) fn begin(&mut self, number: u32, answer: Answer, wakes: &mut Vec<Waker>) {
        let Some(it) = self.subscriptions.get_mut(&number) else { return };
        if it.stage != Stage::Asked {
            return;
        }
        it.stage = Stage::Live;
        it.blamed = 0;
        let again = std::mem::replace(&mut it.was_live, true);
        let from = it.position;
        let asked = again || it.wanted.since.is_some();
        let is_assumed = again && from.is_some() && flaw::is_on(Flaw::TopicRecoveryAssumed);
        let recovered = if is_assumed { Some(true) } else { answer.recovered };
        let outcome = match recovered {
            // What was missed follows, from the position on that is known.
            Some(true) => {
                it.position = match (from, answer.position) {
                    // Where a channel recovers the newest publication alone, that is what follows.
                    (Some(from), Some(newest)) if newest != from => {
                        Some(Position { offset: newest.offset.saturating_sub(1), ..newest })
                    }
                    (from, answered) => from.or(answered),
                };
                Some(Queued::Recovered)
            }
            recovered => {
                it.position = answer.position;
                let is_lost = recovered == Some(false) || !it.wanted.is_kept();
                (asked && is_lost).then_some(Queued::NotRecovered { from, to: answer.position })
            }
        };
        it.tell_begin(again, outcome);
        wakes.extend(it.waker.take());
    }

    /// Notes that a connection ends with an ERROR that names nobody while a subscription is next to be answered; whether it
    /// is to be taken for the culprit.
    pub(super) fn blame(&mut self, number: u32) -> bool {
        let Some(it) = self.subscriptions.get_mut(&number) else { return false };
        it.blamed += 1;
        it.blamed >= MAX_BLAMED
    }

    /// Takes a message of a subscription; gives it back if it is a double, which is to be acknowledged.
    pub(super) fn push(&mut self, mut received: Received, wakes: &mut Vec<Waker>) -> Option<Received> {
        let number = received.subscription;
        // Some brokers deliver before they say that they took the subscription.
        self.begin(number, Answer::default(), wakes);
        let it = self.subscriptions.get_mut(&number)?;
        // A double of an earlier one has a place of its own.
        if let Some(next) = received.position {
            match it.position.map(|seen| (seen, continuity(&seen, &next))) {
                Some((_, Continuity::Duplicate)) => return Some(received),
                Some((from, Continuity::Gap | Continuity::OtherEpoch)) => {
                    it.events.push_back(Queued::NotRecovered { from: Some(from), to: Some(next) });
                }
                Some((_, Continuity::Next)) | None => {}
            }
            it.position = Some(next);
        }
        if let Some(doubles) = &mut it.doubles {
            received.is_watched = true;
            if let Some(id) = received.double_id().filter(|id| doubles.note(id)) {
                drop(id);
                return Some(received);
            }
            if let Some(id) = received.double_id().filter(|_| received.ack == AckMode::Auto) {
                doubles.settle(&id, true);
            }
        }
        it.received += 1;
        received.number = it.received;
        self.bytes += received.weight();
        it.messages += 1;
        if it.messages == self.max_messages {
            self.full += 1;
        }
        it.events.push_back(Queued::Message(Box::new(received)));
        wakes.extend(it.waker.take());
        None
    }

    /// Notes that something was said about a message whose doubles are looked for.
    pub(super) fn note_settled(&mut self, number: u32, id: &str, is_done: bool) {
        let doubles = self.subscriptions.get_mut(&number).and_then(|it| it.doubles.as_mut());
        if let Some(doubles) = doubles {
            doubles.settle(id, is_done);
        }
    }

    /// The next event of a subscription; `None` when it is over.
    pub(super) fn poll(&mut self, number: u32, waker: &Waker) -> Poll<Option<Queued>> {
        let Some(it) = self.subscriptions.get_mut(&number) else { return Poll::Ready(None) };
        let Some(event) = it.events.pop_front() else {
            if it.stage == Stage::Ended {
                return Poll::Ready(None);
            }
            it.waker = Some(waker.clone());
            return Poll::Pending;
        };
        if let Queued::Message(received) = &event {
            self.bytes -= received.weight();
            if it.messages == self.max_messages {
                self.full -= 1;
            }
            it.messages -= 1;
        }
        if it.events.is_empty() {
            it.events = VecDeque::new();
        }
        Poll::Ready(Some(event))
    }

    /// Whether a reader is so far behind that nothing more should be read.
    pub(super) fn is_behind(&self) -> bool {
        self.full > 0 || self.bytes > self.max_bytes
    }

    /// Whether the acknowledgement of a later message has said before what is said about this one; notes it otherwise.
    ///
    /// # Errors
    /// Something else was said.
    pub(super) fn is_said(&mut self, number: u32, message: u64, is_ack: bool) -> Result<bool, Error> {
        let Some(mut said) = self.said(number) else { return Ok(false) };
        let is_said = said.add(message, is_ack)?;
        self.set_said(number, said);
        Ok(is_said)
    }

    /// How far everything is said, where what is said about a message means those before it, too.
    pub(super) fn said(&self, number: u32) -> Option<SaidUpTo> {
        self.subscriptions.get(&number).filter(|it| it.wanted.ack == AckMode::Client).map(|it| it.said)
    }

    pub(super) fn set_said(&mut self, number: u32, said: SaidUpTo) {
        if let Some(it) = self.subscriptions.get_mut(&number) {
            it.said = said;
        }
    }

    /// The connection broke: all are to be asked for anew. What the broker will deliver again is forgotten here.
    pub(super) fn disconnected(&mut self) {
        let numbers: Vec<u32> = self.subscriptions.keys().copied().collect();
        for number in numbers {
            let Some(it) = self.subscriptions.get_mut(&number) else { continue };
            if it.stage != Stage::Ended {
                it.stage = Stage::Wanted;
            }
            if let Some(doubles) = &mut it.doubles {
                doubles.disconnected();
            }
            if it.wanted.is_kept() {
                self.take_messages(number);
            }
        }
    }

    /// Ends a subscription: its reader is told why behind what waits for it.
    pub(super) fn end(&mut self, number: u32, error: Error, wakes: &mut Vec<Waker>) {
        let Some(it) = self.subscriptions.get_mut(&number) else { return };
        if it.stage != Stage::Ended {
            it.stage = Stage::Ended;
            it.events.push_back(Queued::Ended(error));
            wakes.extend(it.waker.take());
        }
    }

    /// Ends all of them.
    pub(super) fn end_all(&mut self, error: &Error, wakes: &mut Vec<Waker>) {
        let numbers: Vec<u32> = self.subscriptions.keys().copied().collect();
        for number in numbers {
            self.end(number, error.clone(), wakes);
        }
    }

    /// Takes the messages out that wait for a subscription's reader.
    fn take_messages(&mut self, number: u32) -> Vec<Received> {
        let Some(it) = self.subscriptions.get_mut(&number) else { return Vec::new() };
        if it.messages >= self.max_messages {
            self.full -= 1;
        }
        it.messages = 0;
        let mut taken = Vec::new();
        for event in std::mem::take(&mut it.events) {
            match event {
                Queued::Message(received) => {
                    self.bytes -= received.weight();
                    taken.push(*received);
                }
                other => it.events.push_back(other),
            }
        }
        taken
    }
}

impl Subscription {
    /// Whether the broker was asked for it on this connection.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Live)
    }

    /// Tells that the broker took it, and what became of what was published meanwhile. A reader that takes nothing for long
    /// finds of many breaks one, with all that they cost.
    fn tell_begin(&mut self, mut again: bool, mut outcome: Option<Queued>) {
        let position = self.position;
        while let Some(event) = self.events.pop_back() {
            match (event, &mut outcome) {
                (message @ Queued::Message(_), _) => {
                    self.events.push_back(message);
                    break;
                }
                (Queued::Subscribed { again: false, .. }, _) => again = false,
                (Queued::NotRecovered { from: earlier, .. }, Some(Queued::NotRecovered { from, .. })) => {
                    *from = earlier;
                }
                (loss @ Queued::NotRecovered { .. }, outcome) => *outcome = Some(loss),
                _ => {}
            }
        }
        self.events.push_back(Queued::Subscribed { again, position });
        self.events.extend(outcome);
    }

    /// The UNSUBSCRIBE frame.
    pub(super) fn unsubscribe(&self, version: Version, receipt: Option<u64>, is_forever: bool) -> Vec<u8> {
        let mut writer = Writer::new(version, "UNSUBSCRIBE", 64)
            .header("id", &self.id)
            .header("destination", &self.wanted.destination);
        if is_forever {
            let durable = |(name, _): &&(String, String)| DURABLE.contains(&&**name);
            writer = writer.headers(self.wanted.headers.iter().filter(durable));
        }
        if let Some(receipt) = receipt {
            writer = writer.number("receipt", receipt);
        }
        writer.end()
    }
}

/// Whether something may be said about messages of a subscription that is gone.
pub(super) fn settles_after_the_end(broker: Broker) -> bool {
    // The others answer with an ERROR, or mean something else by it.
    broker == Broker::Longwire
}

/// What a MESSAGE says that the client itself reads.
#[derive(Default)]
pub(super) struct Mentioned<'a> {
    pub(super) subscription: Option<&'a str>,
    pub(super) destination: Option<&'a str>,
    pub(super) redelivered: Option<&'a str>,
    pub(super) offset: Option<&'a str>,
    pub(super) epoch: Option<&'a str>,
    pub(super) recovered: Option<&'a str>,
}

impl<'a> Mentioned<'a> {
    pub(super) fn read(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Mentioned<'a> {
        let mut mentioned = Mentioned::default();
        for (name, value) in headers {
            let slot = match name {
                "subscription" => &mut mentioned.subscription,
                "destination" => &mut mentioned.destination,
                "redelivered" => &mut mentioned.redelivered,
                "offset" => &mut mentioned.offset,
                "epoch" => &mut mentioned.epoch,
                "recovered" => &mut mentioned.recovered,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        mentioned
    }

    /// The place that it names, if the broker is one whose places mean something.
    pub(super) fn position(&self, broker: Broker) -> Option<Position> {
        let (offset, epoch) = (self.offset?, self.epoch?);
        let offset = offset.parse().ok().filter(|_| broker == Broker::Longwire)?;
        Some(Position { offset, epoch: longwire_protocol::Epoch::parse(epoch) })
    }
}
