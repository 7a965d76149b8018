//! What is known of the client at the other end, and what its frames become.
//!
//! [`Peer::take`] makes commands of a frame, or does by itself what concerns nobody but the connection: a second
//! subscription of a channel, a transaction's beginning, an acknowledgement that means nothing. Either way the frame has
//! its place among the [receipts](super::receipts). It writes nothing; [`link`](super::link) does.
//!
//! What must stay true: the first frame is a CONNECT and no other is; the first of several headers of a name counts; what
//! is kept for a peer has a bound that is checked before.

use super::connect::{Asked, Refused, Terms};
use super::decode::{Frame, unescape};
use super::destination::{DURABLE, Destination, TEMPORARY, durable_queue, shown, temporary_queue};
use super::encode::{append_to_block, is_position_header};
use super::receipts::Receipts;
use super::subscriptions::{Source, Subscriptions, key};
use super::transaction::{Committed, Transactions, UNKNOWN};
use super::{Limits, Names, Version};
use crate::close::CloseReason;
use crate::command::{Command, Numbered, Subscribe};
use crate::message::ClientId;
use crate::position::{Epoch, Since};
use crate::queue::{
    AckMode, Consume, DEFAULT_PRIORITY, Expiry, Headers, Meant, NewMessage, QueueCommand, Verdict,
    is_frame_header, is_reserved_header,
};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What a client that did not say so is subscribed to its own messages by.
const DIRECT: &str = "/direct";

/// What is known of the client.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) limits: Arc<Limits>,
    pub(crate) names: Arc<Names>,
    stage: Stage,
    /// Spoken since CONNECT. Before that, what has no escapes is read by everybody.
    pub(crate) version: Version,
    pub(crate) terms: Terms,
    /// Which it is; told with the answer to CONNECT.
    client: ClientId,
    /// Who it is.
    user: Box<str>,
    client_id: Option<Box<str>>,
    host: Box<str>,
    pub(crate) subscriptions: Subscriptions,
    transactions: Transactions,
    pub(crate) committed: Committed,
    pub(crate) receipts: Receipts,
    /// Commands that were not given out.
    pub(crate) ready: VecDeque<Numbered>,
    /// Where the last SEND went: the next one mostly goes there, too.
    last: Option<Box<Sent>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing was said.
    New,
    /// CONNECT was.
    Known,
    /// DISCONNECT was.
    Left,
}

/// A destination that was read.
#[derive(Debug)]
struct Sent {
    /// As it stands in the frame.
    raw: Box<str>,
    destination: Arc<str>,
    target: Target,
}

#[derive(Clone, Debug)]
enum Target {
    Channel(Arc<str>),
    Queue(Arc<str>),
}

/// Why a frame is refused. The connection ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wrong {
    pub(crate) reason: CloseReason,
    pub(crate) what: Cow<'static, str>,
}

impl From<&'static str> for Wrong {
    fn from(what: &'static str) -> Wrong {
        Wrong { reason: CloseReason::BadRequest, what: what.into() }
    }
}

impl From<String> for Wrong {
    fn from(what: String) -> Wrong {
        Wrong { reason: CloseReason::BadRequest, what: what.into() }
    }
}

/// What most frames may have, and what is done with them.
#[derive(Default)]
struct Common<'a> {
    receipt: Option<&'a str>,
    transaction: Option<&'a str>,
    destination: Option<&'a str>,
    id: Option<&'a str>,
}

impl<'a> Common<'a> {
    fn of(frame: &'a Frame<'_>, version: Version) -> Common<'a> {
        let mut common = Common::default();
        for (name, value) in frame.headers(version) {
            common.note(name, value);
        }
        common
    }

    fn note(&mut self, name: &str, value: &'a str) {
        let slot = match name {
            "receipt" => &mut self.receipt,
            "transaction" => &mut self.transaction,
            "destination" => &mut self.destination,
            "id" => &mut self.id,
            _ => return,
        };
        slot.get_or_insert(value);
    }
}

impl Peer {
    pub(crate) fn new(limits: Arc<Limits>, names: Arc<Names>) -> Peer {
        Peer {
            limits,
            names,
            stage: Stage::New,
            version: Version::V10,
            terms: Terms::default(),
            client: ClientId(0),
            user: "".into(),
            client_id: None,
            host: "".into(),
            subscriptions: Subscriptions::default(),
            transactions: Transactions::default(),
            committed: Committed::default(),
            receipts: Receipts::new(),
            ready: VecDeque::new(),
            last: None,
        }
    }

    /// Whether CONNECT was said.
    pub(crate) fn is_known(&self) -> bool {
        self.stage != Stage::New
    }

    /// Whether DISCONNECT was said: nothing that follows means anything.
    pub(crate) fn has_left(&self) -> bool {
        self.stage == Stage::Left
    }

    /// Says who the peer is.
    pub(crate) fn identify(&mut self, user: &str) {
        self.user = user.into();
    }

    /// Notes which client it is.
    pub(crate) fn connected(&mut self, client: ClientId) {
        self.client = client;
    }

    /// The destination that a client who did not subscribe to a channel finds in what it is sent of it.
    pub(crate) fn destination_of(&self, channel: &str) -> String {
        match channel {
            "" => DIRECT.to_owned(),
            channel => format!("/topic/{}", channel.strip_prefix(&*self.host).unwrap_or(channel)),
        }
    }

    /// The `receipt` of a frame, for whoever says that it is refused.
    pub(crate) fn receipt_of(&self, frame: &Frame<'_>) -> Option<Box<str>> {
        let receipt = frame.headers(self.version).find(|(name, _)| *name == "receipt")?.1;
        self.is_known().then(|| unescape(self.version, receipt).unwrap_or(receipt.into()).into())
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// Why the connection ends.
    pub(crate) fn take(&mut self, frame: &Frame<'_>) -> Result<(), Wrong> {
        match (self.stage, frame.command()) {
            (Stage::Left, _) => return Ok(()),
            (Stage::New, "CONNECT" | "STOMP") => return self.connect(frame),
            (Stage::New, _) => return Err("the first frame is a CONNECT".into()),
            (Stage::Known, "CONNECT" | "STOMP") => return Err("the client is connected".into()),
            (Stage::Known, _) => {}
        }
        frame.check(self.version)?;
        match frame.command() {
            "SEND" => self.send(frame),
            "ACK" => self.settle(frame, "ACK"),
            "NACK" if self.version > Version::V10 => self.settle(frame, "NACK"),
            "SUBSCRIBE" => self.subscribe(frame),
            "UNSUBSCRIBE" => self.unsubscribe(frame),
            "BEGIN" => self.begin(frame),
            "COMMIT" => self.commit(frame),
            "ABORT" => self.abort(frame),
            "DISCONNECT" => self.disconnect(frame),
            command => Err(format!("unknown command \"{command}\"").into()),
        }?;
        if self.receipts.is_overfull() {
            let what = "too many frames wait for the answers to those before them".into();
            return Err(Wrong { reason: CloseReason::TooManyRequests, what });
        }
        Ok(())
    }

    fn connect(&mut self, frame: &Frame<'_>) -> Result<(), Wrong> {
        let asked = Asked::read(frame, &self.limits).map_err(|refused| match refused {
            Refused::Version => NO_VERSION,
            Refused::HeartBeat => "heart-beat is not two numbers of milliseconds",
        })?;
        self.stage = Stage::Known;
        self.version = asked.version;
        self.terms = asked.terms;
        self.client_id = asked.client_id;
        self.user = asked.connect.login.as_str().into();
        self.host = self.names.hosts.get(&asked.connect.host).map_or("", String::as_str).into();
        let first = self.receipts.add("CONNECT", None, None, 1);
        self.ready.push_back(Numbered { id: first, command: Command::Connect(Box::new(asked.connect)) });
        Ok(())
    }

    /// Gives a frame its place among the receipts, and its commands their numbers.
    fn done(
        &mut self,
        command: &'static str,
        about: Option<Arc<str>>,
        receipt: Option<&str>,
        commands: impl ExactSizeIterator<Item = Command>,
    ) {
        let receipt = receipt.map(|receipt| self.plain(receipt).into());
        if commands.len() == 0 && receipt.is_none() {
            return;
        }
        let first = self.receipts.add(command, about, receipt, commands.len() as u32);
        let numbers = (0..).map(|number: u32| first.wrapping_add(number));
        self.ready.extend(commands.zip(numbers).map(|(command, id)| Numbered { id, command }));
    }

    /// A value without its escapes, which were checked.
    fn plain<'a>(&self, value: &'a str) -> Cow<'a, str> {
        unescape(self.version, value).unwrap_or(Cow::Borrowed(value))
    }

    /// The transaction that a frame names, if it names one.
    fn transaction<'a>(&self, common: &Common<'a>) -> Result<Option<Cow<'a, str>>, Wrong> {
        let Some(name) = common.transaction else { return Ok(None) };
        let name = self.plain(name);
        if !self.transactions.has(&name) {
            return Err(UNKNOWN.into());
        }
        Ok(Some(name))
    }

    fn channel(&self, name: &str) -> Arc<str> {
        format!("{}{name}", self.host).into()
    }

    fn queue(&self, name: &str) -> Arc<str> {
        // Names of the server's own are the same on all hosts.
        if name.starts_with('~') { name.into() } else { format!("{}{name}", self.host).into() }
    }

    /// Reads where a SEND goes.
    fn look_up(&mut self, raw: &str) -> Result<(), Wrong> {
        if self.last.as_ref().is_some_and(|last| *last.raw == *raw) {
            return Ok(());
        }
        let text = self.plain(raw);
        let target = match Destination::parse(&text)? {
            Destination::Channel(name) => Target::Channel(self.channel(name)),
            Destination::Temporary(name) => Target::Queue(temporary_queue(self.client, name).into()),
            Destination::Queue(name) if name.starts_with('~') && !name.starts_with(TEMPORARY) => {
                return Err(OWN_NAME.into());
            }
            Destination::Queue(name) => Target::Queue(self.queue(name)),
        };
        self.last = Some(Box::new(Sent { raw: raw.into(), destination: (&*text).into(), target }));
        Ok(())
    }

    fn send(&mut self, frame: &Frame<'_>) -> Result<(), Wrong> {
        let mut common = Common::default();
        let mut asked = Sending::default();
        // What consumers are given, in its order; most go to queues, so it is made while the rest is read.
        let mut block = Vec::with_capacity(frame.head().len());
        let mut seen = Seen::default();
        for (name, value) in frame.headers(self.version) {
            common.note(name, value);
            asked.note(name, value);
            if !is_reserved_header(name) && name != "reply-to" && seen.is_first(name) {
                append_to_block(self.version, name, value, &mut block);
            }
        }
        let transaction = self.transaction(&common)?;
        self.look_up(common.destination.ok_or("SEND has no destination")?)?;
        let Some((about, target)) = self.last.as_ref().map(|to| (to.destination.clone(), to.target.clone()))
        else {
            return Ok(());
        };
        let reply_to = match asked.reply_to.map(|value| self.plain(value)) {
            Some(text) if text.starts_with("/temp-queue/") => Some(text),
            _ => None,
        };
        let own_queue = match &reply_to {
            None => None,
            Some(text) => match Destination::parse(text)? {
                Destination::Temporary(name) => Some(temporary_queue(self.client, name)),
                _ => None,
            },
        };
        let command = match target {
            Target::Channel(channel) => Command::Publish {
                channel: (*channel).to_owned(),
                data: frame.body.clone(),
                kind: 0,
                tags: self.tags(frame, own_queue.as_deref()),
            },
            Target::Queue(queue) => Command::Queue(QueueCommand::Send(Box::new(NewMessage {
                queue,
                headers: {
                    match (&own_queue, asked.reply_to) {
                        (Some(queue), _) => {
                            append_to_block(Version::V10, "reply-to", &format!("/queue/{queue}"), &mut block);
                        }
                        (None, Some(value)) => append_to_block(self.version, "reply-to", value, &mut block),
                        (None, None) => {}
                    }
                    Headers::from_block(block.into())
                },
                body: frame.body.clone(),
                priority: asked.priority()?,
                is_persistent: asked.persistent.is_none_or(|value| !value.eq_ignore_ascii_case("false")),
                expiry: asked.expiry()?,
                delay: asked.delay()?,
            }))),
        };
        // Whoever wants an answer hears it without a SUBSCRIBE of its own.
        let listen = match (&reply_to, own_queue) {
            (Some(destination), Some(queue)) => self.listen(destination, queue)?,
            _ => None,
        };
        match transaction {
            Some(name) => {
                let bytes = frame.head().len() + frame.body.len();
                self.transactions.keep(&name, command, bytes, &self.limits)?;
                self.done("SEND", Some(about), common.receipt, listen.into_iter());
            }
            None if listen.is_none() => {
                self.done("SEND", Some(about), common.receipt, std::iter::once(command));
            }
            None => {
                let both: Vec<Command> = listen.into_iter().chain([command]).collect();
                self.done("SEND", Some(about), common.receipt, both.into_iter());
            }
        }
        Ok(())
    }

    /// Consumes the connection's own queue for answers, unless that is done. Its messages carry the destination as the id of
    /// their subscription, as RabbitMQ has it.
    fn listen(&mut self, destination: &str, queue: String) -> Result<Option<Command>, Wrong> {
        let is_known = |key: &str| self.subscriptions.named(key).is_some();
        let is_heard = is_known(&key(Some(destination), "")) || is_known(&key(None, destination));
        if is_heard || self.subscriptions.has_queue(&queue) {
            return Ok(None);
        }
        self.check_room()?;
        let queue: Arc<str> = queue.into();
        let source = Source::Queue { name: queue.clone() };
        let consumer =
            self.subscriptions.add(self.version, Some(destination), destination, source, AckMode::Auto);
        Ok(Some(Command::Queue(QueueCommand::Consume(Box::new(Consume {
            consumer,
            queue,
            ack: AckMode::Auto,
            prefetch: None,
            selector: None,
            is_exclusive: false,
            is_browsing: false,
            durable_of: None,
        })))))
    }

    fn check_room(&self) -> Result<(), Wrong> {
        if self.subscriptions.len() < self.limits.max_subscriptions {
            return Ok(());
        }
        Err(Wrong { reason: CloseReason::ChannelLimit, what: "too many subscriptions".into() })
    }

    /// What of a SEND the subscribers of a channel are given, as tags.
    fn tags(&self, frame: &Frame<'_>, own_queue: Option<&str>) -> Vec<(String, String)> {
        let mut tags = Vec::new();
        let mut seen = Seen::default();
        for (name, value) in frame.headers(self.version) {
            if is_frame_header(name) || is_position_header(name) || !seen.is_first(name) {
                continue;
            }
            let value = match own_queue {
                Some(queue) if name == "reply-to" => format!("/queue/{queue}"),
                _ => self.plain(value).into_owned(),
            };
            tags.push((self.plain(name).into_owned(), value));
        }
        tags.sort_unstable();
        tags
    }

    fn settle(&mut self, frame: &Frame<'_>, command: &'static str) -> Result<(), Wrong> {
        let mut common = Common::default();
        let (mut message_id, mut subscription, mut is_rejected) = (None, None, None);
        for (name, value) in frame.headers(self.version) {
            common.note(name, value);
            match name {
                "message-id" => _ = message_id.get_or_insert(value),
                "subscription" => _ = subscription.get_or_insert(value),
                "requeue" => _ = is_rejected.get_or_insert(value.eq_ignore_ascii_case("false")),
                _ => {}
            }
        }
        // 1.2 has the value of the `ack` header as `id`; clients that do not know it send the id of the message.
        let said = match self.version {
            Version::V12 => common.id.or(message_id),
            _ => message_id.or(common.id),
        };
        let said = self.plain(said.ok_or_else(|| format!("{command} does not say of which message"))?);
        let transaction = self.transaction(&common)?;
        let verdict = match (command, is_rejected) {
            ("ACK", _) => Verdict::Ack,
            (_, Some(true)) => Verdict::Reject,
            _ => Verdict::Requeue,
        };
        let settle = self
            .meant(&said, subscription)
            .map(|meant| Command::Queue(QueueCommand::Settle { meant, verdict }));
        match (settle, transaction) {
            (Some(settle), Some(name)) => {
                self.transactions.keep(&name, settle, frame.head().len(), &self.limits)?;
                self.done(command, None, common.receipt, None.into_iter());
            }
            (settle, _) => self.done(command, None, common.receipt, settle.into_iter()),
        }
        Ok(())
    }

    /// Which deliveries an acknowledgement means; `None` if those that it means are not acknowledged.
    fn meant(&self, said: &str, subscription: Option<&str>) -> Option<Meant> {
        if said.starts_with("t-") {
            return None;
        }
        if let Some(number) = said.strip_prefix("d-").and_then(|digits| digits.parse().ok()) {
            return Some(Meant::Delivery(number));
        }
        let subscription =
            subscription.and_then(|id| self.subscriptions.named(&key(Some(&self.plain(id)), "")));
        let is_ignored = match subscription {
            Some(named) => named.ack == AckMode::Auto || matches!(named.source, Source::Channel(_)),
            // Old clients acknowledge everything, whether that is awaited or not.
            None => self.subscriptions.has_automatic && !self.subscriptions.has_acks,
        };
        (!is_ignored).then(|| Meant::Message(said.into(), subscription.map(|named| named.number)))
    }

    fn subscribe(&mut self, frame: &Frame<'_>) -> Result<(), Wrong> {
        let mut common = Common::default();
        let mut asked = Subscribing::default();
        for (name, value) in frame.headers(self.version) {
            common.note(name, value);
            asked.note(name, value);
        }
        let id = common.id.map(|id| self.plain(id));
        let text = self.plain(common.destination.ok_or("SUBSCRIBE has no destination")?);
        let destination = Destination::parse(&text)?;
        let ack = asked.ack()?;
        if self.subscriptions.named(&key(id.as_deref(), &text)).is_some() {
            return Err(match &id {
                Some(id) => format!("subscription \"{}\" exists", shown(id)).into(),
                None => format!("subscription of \"{}\" exists", shown(&text)).into(),
            });
        }
        self.check_room()?;
        let about = Some(Arc::from(&*text));
        let durable = match destination {
            Destination::Channel(_) => asked.durable(id.as_deref(), |value| self.plain(value))?,
            _ => None,
        };
        let (version, receipt) = (self.version, common.receipt);
        let (queue, durable_of) = match (destination, durable) {
            (Destination::Channel(name), None) => {
                if asked.selector.is_some() {
                    return Err("selectors are for queues and durable subscriptions".into());
                }
                let channel = self.channel(name);
                let recover = asked.since()?;
                let is_first = self.subscriptions.of_channel(&channel).is_empty();
                let source = Source::Channel((*channel).into());
                let number = self.subscriptions.add(version, id.as_deref(), &text, source, ack);
                let ask = Subscribe {
                    channel: (*channel).to_owned(),
                    recoverable: true,
                    recover,
                    ..Subscribe::default()
                };
                let command = is_first.then(|| Command::Subscribe(Box::new(ask)));
                self.done("SUBSCRIBE", about, receipt, command.into_iter());
                self.begin_subscription(number, receipt.is_some(), !is_first && recover.is_some());
                return Ok(());
            }
            (Destination::Channel(name), Some(durable)) => {
                let queue = durable_queue(&self.user, self.client_id.as_deref(), &durable);
                (Arc::from(queue), Some(self.channel(name)))
            }
            (Destination::Temporary(name), _) => (temporary_queue(self.client, name).into(), None),
            (Destination::Queue(name), _) => {
                let own = temporary_queue(self.client, "");
                if name.starts_with('~') && !name.starts_with(&*own) {
                    return Err(Wrong { reason: CloseReason::PermissionDenied, what: OWN_NAME.into() });
                }
                (self.queue(name), None)
            }
        };
        let source = Source::Queue { name: queue.clone() };
        let consumer = self.subscriptions.add(version, id.as_deref(), &text, source, ack);
        let consume = Consume {
            consumer,
            queue,
            ack,
            prefetch: asked.prefetch()?,
            selector: asked.selector.map(|selector| Arc::from(&*self.plain(selector))),
            is_exclusive: asked.is_exclusive,
            is_browsing: asked.is_browsing,
            durable_of,
        };
        let command = Command::Queue(QueueCommand::Consume(Box::new(consume)));
        self.done("SUBSCRIBE", about, receipt, std::iter::once(command));
        self.begin_subscription(consumer, receipt.is_some(), false);
        Ok(())
    }

    /// Notes which subscription the frame begins that was added last.
    fn begin_subscription(&mut self, number: u32, has_receipt: bool, is_not_recovered: bool) {
        if let Some(subscription) = self.subscriptions.numbered(number) {
            subscription.awaits_receipt = has_receipt;
            subscription.note = (is_not_recovered && !has_receipt).then_some("recovered:false\n");
        }
        // A second subscription of a channel has no frame there, if it wants no receipt.
        let last = self.receipts.last();
        if let Some(slot) = last.filter(|slot| slot.command == "SUBSCRIBE" && slot.more.is_none()) {
            let more = slot.more.get_or_insert_default();
            more.subscription = Some(number);
            if is_not_recovered {
                more.lines.extend_from_slice(b"recovered:false\n");
            }
        }
    }

    fn unsubscribe(&mut self, frame: &Frame<'_>) -> Result<(), Wrong> {
        let mut common = Common::default();
        let mut asked = Subscribing::default();
        for (name, value) in frame.headers(self.version) {
            common.note(name, value);
            asked.note(name, value);
        }
        let id = common.id.map(|id| self.plain(id));
        let destination = common.destination.map(|text| self.plain(text)).unwrap_or_default();
        let is_forever = asked.is_durable || asked.name.is_some();
        if id.is_none() && destination.is_empty() && asked.name.is_none() {
            return Err("UNSUBSCRIBE does not say which subscription".into());
        }
        let named = self.subscriptions.named(&key(id.as_deref(), &destination)).map(|it| it.number);
        let about = (!destination.is_empty()).then(|| Arc::from(&*destination));
        let Some((subscription, was_last)) = named.and_then(|number| self.subscriptions.remove(number))
        else {
            if !is_forever || destination.is_empty() {
                return Err("no such subscription".into());
            }
            // Its consumer is gone already: one that comes and goes takes it along.
            let commands = self.forget_durable(&asked, id.as_deref(), &destination)?;
            self.done("UNSUBSCRIBE", about, common.receipt, commands.into_iter());
            return Ok(());
        };
        let command = match subscription.source {
            Source::Channel(channel) if was_last => Some(Command::Unsubscribe { channel: channel.into() }),
            Source::Channel(_) => None,
            Source::Queue { name } => {
                let is_forever = is_forever && name.starts_with(DURABLE);
                Some(Command::Queue(QueueCommand::Cancel { consumer: subscription.number, is_forever }))
            }
        };
        self.done("UNSUBSCRIBE", about, common.receipt, command.into_iter());
        Ok(())
    }

    fn forget_durable(
        &mut self,
        asked: &Subscribing<'_>,
        id: Option<&str>,
        destination: &str,
    ) -> Result<[Command; 2], Wrong> {
        let Destination::Channel(name) = Destination::parse(destination)? else {
            return Err("no such subscription".into());
        };
        let durable = asked.durable(id, |value| self.plain(value))?.ok_or("no such subscription")?;
        let consumer = self.subscriptions.next_number();
        let consume = Consume {
            consumer,
            queue: durable_queue(&self.user, self.client_id.as_deref(), &durable).into(),
            ack: AckMode::Individual,
            prefetch: Some(1),
            selector: None,
            is_exclusive: false,
            is_browsing: false,
            durable_of: Some(self.channel(name)),
        };
        Ok([
            Command::Queue(QueueCommand::Consume(Box::new(consume))),
            Command::Queue(QueueCommand::Cancel { consumer, is_forever: true }),
        ])
    }

    fn begin(&mut self, frame: &Frame<'_>) -> Result<(), Wrong> {
        let common = Common::of(frame, self.version);
        let name = self.plain(common.transaction.ok_or("BEGIN names no transaction")?);
        self.transactions.begin(&name, &self.limits)?;
        self.done("BEGIN", None, common.receipt, None.into_iter());
        Ok(())
    }

    fn commit(&mut self, frame: &Frame<'_>) -> Result<(), Wrong> {
        let common = Common::of(frame, self.version);
        let name = self.plain(common.transaction.ok_or("COMMIT names no transaction")?);
        let transaction = self.transactions.end(&name)?;
        let mut commands = Vec::with_capacity(transaction.channels.len() + 1);
        if !transaction.queues.is_empty() {
            commands.push(Command::Queue(QueueCommand::Transaction(transaction.queues)));
        }
        let publications = transaction.channels.len();
        commands.extend(transaction.channels);
        let is_both = publications > 0 && commands.len() > publications;
        self.done("COMMIT", None, common.receipt, commands.into_iter());
        if is_both {
            let publications = self.ready.split_off(self.ready.len() - publications);
            if let Some(before) = self.ready.back() {
                self.committed.keep(before.id, publications);
            }
        }
        Ok(())
    }

    /// Notes that queues have done what a command says: what was to follow it may.
    pub(crate) fn carried_out(&mut self, id: u32) {
        self.ready.append(&mut self.committed.release(id));
    }

    fn abort(&mut self, frame: &Frame<'_>) -> Result<(), Wrong> {
        let common = Common::of(frame, self.version);
        let name = self.plain(common.transaction.ok_or("ABORT names no transaction")?);
        self.transactions.end(&name)?;
        self.done("ABORT", None, common.receipt, None.into_iter());
        Ok(())
    }

    fn disconnect(&mut self, frame: &Frame<'_>) -> Result<(), Wrong> {
        let common = Common::of(frame, self.version);
        self.stage = Stage::Left;
        self.transactions = Transactions::default();
        self.done("DISCONNECT", None, common.receipt, std::iter::once(Command::Disconnect));
        if let Some(slot) = self.receipts.last() {
            slot.more.get_or_insert_default().is_last = true;
        }
        Ok(())
    }
}

/// What is said to a client of whose versions none is known.
pub(crate) const NO_VERSION: &str = "no supported version: there are 1.0, 1.1 and 1.2";

const OWN_NAME: &str = "names of queues that begin with ~ are the server's own";

/// What a SEND to a queue may ask for besides.
#[derive(Default)]
struct Sending<'a> {
    persistent: Option<&'a str>,
    priority: Option<&'a str>,
    expires: Option<&'a str>,
    expiration: Option<&'a str>,
    delay: Option<&'a str>,
    reply_to: Option<&'a str>,
}

impl<'a> Sending<'a> {
    fn note(&mut self, name: &str, value: &'a str) {
        let slot = match name {
            "persistent" => &mut self.persistent,
            "priority" => &mut self.priority,
            "expires" => &mut self.expires,
            "expiration" | "x-message-ttl" => &mut self.expiration,
            "AMQ_SCHEDULED_DELAY" | "x-delay" => &mut self.delay,
            "reply-to" => &mut self.reply_to,
            _ => return,
        };
        slot.get_or_insert(value);
    }

    fn priority(&self) -> Result<u8, Wrong> {
        let priority = self.priority.map(|text| number(text, "priority")).transpose()?;
        Ok(priority.map_or(DEFAULT_PRIORITY, |priority| priority.min(9) as u8))
    }

    fn expiry(&self) -> Result<Option<Expiry>, Wrong> {
        match (self.expires, self.expiration) {
            (Some(text), _) => {
                let at = number(text, "expires")?;
                Ok((at != 0).then_some(Expiry::At(at)))
            }
            (None, Some(text)) => Ok(Some(Expiry::After(Duration::from_millis(number(text, "expiration")?)))),
            (None, None) => Ok(None),
        }
    }

    fn delay(&self) -> Result<Duration, Wrong> {
        let delay = self.delay.map(|text| number(text, "the delay")).transpose()?;
        Ok(Duration::from_millis(delay.unwrap_or_default()))
    }
}

/// What a SUBSCRIBE or UNSUBSCRIBE may ask for besides.
#[derive(Default)]
struct Subscribing<'a> {
    ack: Option<&'a str>,
    prefetch: Option<&'a str>,
    selector: Option<&'a str>,
    since_offset: Option<&'a str>,
    since_epoch: Option<&'a str>,
    /// The name of a durable subscription, where it is not the id.
    name: Option<&'a str>,
    is_durable: bool,
    is_exclusive: bool,
    is_browsing: bool,
}

impl<'a> Subscribing<'a> {
    fn note(&mut self, name: &str, value: &'a str) {
        let is_true = || value.eq_ignore_ascii_case("true");
        let slot = match name {
            "ack" => &mut self.ack,
            "prefetch-count" | "activemq.prefetchSize" => &mut self.prefetch,
            "selector" => &mut self.selector,
            "since-offset" => &mut self.since_offset,
            "since-epoch" => &mut self.since_epoch,
            "activemq.subscriptionName" | "durable-subscription-name" | "durable-subscriber-name" => {
                &mut self.name
            }
            "durable" | "persistent" => return self.is_durable |= is_true(),
            "exclusive" | "activemq.exclusive" => return self.is_exclusive |= is_true(),
            "browser" => return self.is_browsing |= is_true(),
            _ => return,
        };
        slot.get_or_insert(value);
    }

    fn ack(&self) -> Result<AckMode, Wrong> {
        match self.ack {
            None | Some("auto") => Ok(AckMode::Auto),
            Some("client") => Ok(AckMode::Cumulative),
            Some("client-individual") => Ok(AckMode::Individual),
            Some(_) => Err("ack is none of auto, client and client-individual".into()),
        }
    }

    fn prefetch(&self) -> Result<Option<u32>, Wrong> {
        let count = self.prefetch.map(|text| number(text, "the prefetch count")).transpose()?;
        // 0 stands for no limit at the other brokers; here it stands for the server's.
        Ok(count.filter(|count| *count != 0).map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
    }

    fn since(&self) -> Result<Option<Since>, Wrong> {
        let Some(text) = self.since_offset else { return Ok(None) };
        let offset = number(text, "since-offset")?;
        let epoch = self.since_epoch.filter(|epoch| !epoch.is_empty()).map(Epoch::parse);
        Ok(Some(Since { offset, epoch }))
    }

    /// What a durable subscription is named by; `None` if it is none.
    fn durable<'b>(
        &self,
        id: Option<&'b str>,
        plain: impl Fn(&'a str) -> Cow<'a, str>,
    ) -> Result<Option<Cow<'b, str>>, Wrong>
    where
        'a: 'b,
    {
        match (self.name, id) {
            (Some(name), _) => Ok(Some(plain(name))),
            (None, _) if !self.is_durable => Ok(None),
            (None, Some(id)) => Ok(Some(Cow::Borrowed(id))),
            (None, None) => Err("a durable subscription has an id".into()),
        }
    }
}

/// Reads a number.
fn number(text: &str, what: &str) -> Result<u64, Wrong> {
    let digits = text.trim_matches([' ', '\t']);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // One that is longer than any time or place is as good as the longest.
    is_number.then(|| digits.parse().unwrap_or(u64::MAX)).ok_or_else(|| format!("{what} is no number").into())
}

/// Names that were seen, most often few.
#[derive(Default)]
struct Seen<'a> {
    first: [&'a str; 16],
    len: usize,
    more: Vec<&'a str>,
}

impl<'a> Seen<'a> {
    /// Whether a name was not seen; from here on it was.
    fn is_first(&mut self, name: &'a str) -> bool {
        if self.first[..self.len].contains(&name) || self.more.contains(&name) {
            return false;
        }
        match self.first.get_mut(self.len) {
            Some(slot) => {
                *slot = name;
                self.len += 1;
            }
            None => self.more.push(name),
        }
        true
    }
}
