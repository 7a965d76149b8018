//! One connection of the dialect from its CONNECT to its end, whatever carries it.
//!
//! [`Link`] is where bytes come in and go out: it takes frames from the carrier, has [`Peer`] make commands of them, and
//! writes what answers them. A receipt goes out when everything before it is answered, and with it what was kept for
//! behind it. What must stay true: nothing stands within a frame that does not belong to it; an ERROR is the last that is
//! said; an ERROR never repeats a CONNECT, which has a password.

use super::connect::write_connected;
use super::decode::{Bounds, Decoder, Frame};
use super::destination::shown;
use super::encode::{
    ErrorFrame, SHARED_ID, Style, has_header, write_block, write_body, write_decimal, write_error,
    write_header,
};
use super::peer::{NO_VERSION, Peer, Wrong};
use super::receipts::LastWords;
use super::subscriptions::{Subscription, message_head};
use super::{Carrier, Opening, Version};
use crate::close::{Close, CloseReason};
use crate::connection::{Answer, Fault, Inbound, Transport, refusal};
use crate::encoding::Encoding;
use crate::heartbeat::Intervals;
use crate::message::{Push, Reply, SubscribeResult};
use crate::queue::{AckMode, Delivered, QueueError, QueueErrorKind, QueuePush};
use crate::websocket::{self, Event, Kind, Role, frame};
use bytes::Bytes;

/// One connection of the dialect.
#[derive(Debug)]
pub(crate) struct Link {
    carrier: Live,
    decoder: Decoder,
    peer: Peer,
    spread: f64,
    /// Counts what has no id of its own.
    unnamed: u64,
    /// Something that the client said is wrong: nothing more is heard of it.
    is_deaf: bool,
    /// What, when all before it is answered.
    fault: Option<Box<LastWords>>,
}

#[derive(Debug)]
enum Live {
    Tcp,
    WebSocket {
        frames: websocket::Connection,
        /// What the client's first message was: some clients cannot take the other.
        kind: Kind,
        /// What is left of a message.
        message: Bytes,
    },
}

/// How frames are put on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wire {
    /// With a line feed behind each, as RabbitMQ and ActiveMQ do: PHP's `Stomp` class takes it for part of a frame, and
    /// misreads the next one where there is none.
    Plain,
    /// Messages of this kind, where that can be.
    Messages(Kind),
}

impl Wire {
    /// What a frame of these parts is announced with, which is nothing but for WebSocket messages.
    fn head(self, parts: [&[u8]; 2]) -> Option<frame::FrameHeader> {
        let Wire::Messages(kind) = self else { return None };
        // Neither is cut within a character, if the whole is text.
        let is_text = kind == Kind::Text && parts.iter().all(|part| simdutf8::basic::from_utf8(part).is_ok());
        let kind = if is_text { Kind::Text } else { Kind::Binary };
        Some(frame::header(kind, false, parts[0].len() + parts[1].len()))
    }

    /// Appends a frame that `write` writes.
    fn write(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if self == Wire::Plain {
            write(out);
            return out.push(b'\n');
        }
        let mut payload = Vec::new();
        write(&mut payload);
        if let Some(head) = self.head([&payload, b""]) {
            out.extend_from_slice(head.as_slice());
        }
        out.extend_from_slice(&payload);
    }

    fn one(self, mut frame: Vec<u8>) -> Bytes {
        match self.head([&frame, b""]) {
            None => {
                frame.push(b'\n');
                frame.into()
            }
            Some(head) => [head.as_slice(), &frame].concat().into(),
        }
    }
}

impl Link {
    pub(crate) fn new(opening: Opening, spread: f64) -> Link {
        let Opening { carrier, limits, names } = opening;
        let carrier = match carrier {
            Carrier::Tcp => Live::Tcp,
            Carrier::WebSocket { is_deflated, max_message_bytes } => Live::WebSocket {
                frames: websocket::Connection::new(Role::Server, is_deflated, max_message_bytes),
                kind: Kind::Text,
                message: Bytes::new(),
            },
        };
        let peer = Peer::new(limits, names);
        Link { carrier, decoder: Decoder::default(), peer, spread, unnamed: 0, is_deaf: false, fault: None }
    }

    pub(crate) fn transport(&self) -> Transport {
        match self.carrier {
            Live::Tcp => Transport::Tcp,
            Live::WebSocket { .. } => Transport::WebSocket,
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        Encoding::Stomp(Style { version: self.peer.version })
    }

    pub(crate) fn intervals(&self) -> Intervals {
        self.peer.terms.intervals()
    }

    pub(crate) fn spread(&self) -> f64 {
        self.spread
    }

    pub(crate) fn is_behind(&self) -> bool {
        // What comes behind a COMMIT must not overtake what that publishes.
        self.peer.receipts.is_behind() || !self.peer.committed.is_empty()
    }

    pub(crate) fn carried_out(&mut self, id: u32) {
        self.peer.carried_out(id);
    }

    pub(crate) fn has_more(&self) -> bool {
        let has_message = matches!(&self.carrier, Live::WebSocket { message, .. } if !message.is_empty());
        !self.is_deaf && (has_message || !self.peer.ready.is_empty())
    }

    pub(crate) fn identify(&mut self, user: &str) {
        self.peer.identify(user);
    }

    fn wire(&self) -> Wire {
        match self.carrier {
            Live::Tcp => Wire::Plain,
            Live::WebSocket { kind, .. } => Wire::Messages(kind),
        }
    }

    pub(crate) fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Inbound>, Fault> {
        if self.is_deaf {
            *input = &[];
            return Ok(None);
        }
        loop {
            if let Some(numbered) = self.peer.ready.pop_front() {
                return Ok(Some(Inbound::Command(numbered)));
            }
            let mut receipts = Vec::new();
            self.drain(&mut receipts);
            if !receipts.is_empty() {
                return Ok(Some(Inbound::Transmit(receipts.into())));
            }
            let limits = &self.peer.limits;
            let bounds = if self.peer.is_known() { Bounds::of(limits) } else { Bounds::of_login(limits) };
            if self.peer.has_left()
                && let Live::Tcp = self.carrier
            {
                *input = &[];
                return Ok(None);
            }
            let is_taken = match &mut self.carrier {
                Live::Tcp => match other_protocol(input).filter(|_| !self.peer.is_known()) {
                    Some(what) => {
                        *input = &[];
                        self.broken(CloseReason::BadRequest, what.to_owned(), None, String::new())?
                    }
                    None => {
                        let decoded = self.decoder.decode(input, &bounds);
                        self.take(decoded)?
                    }
                },
                Live::WebSocket { message, .. } if !message.is_empty() => {
                    let whole = std::mem::take(message);
                    let mut rest = &whole[..];
                    let decoded = match self.peer.has_left() {
                        true => Ok(None),
                        false => self.decoder.decode(&mut rest, &bounds),
                    };
                    let left = if decoded.is_ok() && !self.peer.has_left() { rest.len() } else { 0 };
                    *message = whole.slice(whole.len() - left..);
                    // A message is a piece of the stream: where it ends, no frame need end.
                    self.take(decoded)?;
                    true
                }
                Live::WebSocket { frames, kind, message } => match frames.decode(input) {
                    Err(violation) => {
                        self.broken(violation.reason, violation.what.into(), None, String::new())?
                    }
                    Ok(None) => false,
                    Ok(Some(Event::Ping(payload))) => {
                        return Ok(Some(Inbound::Transmit(frame::pong(&payload))));
                    }
                    Ok(Some(Event::Pong(_))) => true,
                    Ok(Some(Event::Close { code, .. })) => return Ok(Some(Inbound::Closed(code))),
                    Ok(Some(Event::Message { kind: its_kind, data })) => {
                        if !self.peer.is_known() {
                            *kind = its_kind;
                        }
                        *message = data;
                        true
                    }
                },
            };
            if !is_taken {
                return Ok(None);
            }
        }
    }

    /// Has the peer take a frame; false if there was none.
    fn take(&mut self, decoded: Result<Option<Frame<'_>>, super::decode::Violation>) -> Result<bool, Fault> {
        let frame = match decoded {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(false),
            Err(violation) => {
                let head = String::from_utf8_lossy(&violation.head).into_owned();
                return self.broken(violation.reason, violation.what.to_owned(), None, head);
            }
        };
        if let Err(Wrong { reason, what }) = self.peer.take(&frame) {
            let receipt = self.peer.receipt_of(&frame);
            let head = shown(frame.head()).to_owned();
            return self.broken(reason, what.into_owned(), receipt, head);
        }
        Ok(true)
    }

    /// Hears no more, and ends the connection when all that was heard before is answered: that is not in doubt.
    fn broken(
        &mut self,
        reason: CloseReason,
        what: String,
        receipt: Option<Box<str>>,
        head: String,
    ) -> Result<bool, Fault> {
        self.is_deaf = true;
        let words =
            Box::new(LastWords { reason, detail: what.clone(), message: what.clone(), receipt, head });
        if !self.peer.receipts.is_empty() {
            self.peer.receipts.add_wrong(words);
            return Ok(false);
        }
        self.fault = Some(words);
        Err(Fault { reason, what })
    }

    /// Writes the receipts whose time has come, and what waits behind them; true if the connection ends with that.
    fn drain(&mut self, out: &mut Vec<u8>) -> bool {
        let wire = self.wire();
        while let Some(slot) = self.peer.receipts.pop() {
            let more = slot.more.map(|more| *more).unwrap_or_default();
            if let Some(receipt) = slot.receipt {
                wire.write(out, |out| {
                    out.extend_from_slice(b"RECEIPT\n");
                    write_header(self.peer.version, "receipt-id", &receipt, out);
                    out.extend_from_slice(&more.lines);
                    out.extend_from_slice(b"\n\0");
                });
            }
            for held in more.held {
                out.extend_from_slice(&held);
            }
            if more.is_last {
                self.fault = more.words;
                return true;
            }
        }
        false
    }

    pub(crate) fn reply(&mut self, id: u32, reply: &Reply) -> Answer {
        let mut out = Vec::new();
        match reply {
            Reply::Error(error) => {
                let detail = format!("{} ({})", error.message, error.code);
                let is_commit = self.peer.receipts.slot(id).is_some_and(|slot| slot.command == "COMMIT");
                let message = match is_commit {
                    true => format!("{}; what the transaction did before that is done", error.message),
                    false => error.message.to_string(),
                };
                return self.refuse(id, refusal(error), message, detail);
            }
            Reply::Queue(Err(error)) => {
                return self.refuse(id, queue_refusal(error), error.to_string(), error.to_string());
            }
            Reply::Connect(result) => {
                self.peer.connected(result.client);
                let wire = self.wire();
                let Peer { version, terms, names, .. } = &self.peer;
                wire.write(&mut out, |out| write_connected(*version, terms, result.client, names, out));
            }
            Reply::Subscribe(result) => self.subscribed(id, result, &mut out),
            Reply::Queue(Ok(())) => self.peer.carried_out(id),
            _ => {}
        }
        self.peer.receipts.answered(id);
        self.answer(out)
    }

    /// Adds what has waited for that, and the last words if the connection ends with it.
    fn answer(&mut self, mut out: Vec<u8>) -> Answer {
        if !self.drain(&mut out) {
            return Answer { bytes: out.into(), close: None, detail: String::new() };
        }
        let (reason, detail) = match &self.fault {
            Some(fault) => (fault.reason, fault.detail.clone()),
            None => (CloseReason::PeerClosed, String::new()),
        };
        out.extend_from_slice(&self.farewell(&reason.into()));
        Answer { bytes: out.into(), close: Some(reason), detail }
    }

    /// Says how a channel stands, and what was missed of it.
    fn subscribed(&mut self, id: u32, result: &SubscribeResult, out: &mut Vec<u8>) {
        let Some(slot) = self.peer.receipts.slot(id) else { return };
        let has_receipt = slot.receipt.is_some();
        let more = slot.more.get_or_insert_default();
        let recovered = if result.recovered { "recovered:true\n" } else { "recovered:false\n" };
        if result.was_recovering {
            more.lines.extend_from_slice(recovered.as_bytes());
        }
        if let Some(position) = result.position {
            more.lines.extend_from_slice(b"offset:");
            write_decimal(position.offset, &mut more.lines);
            more.lines.extend_from_slice(b"\nepoch:");
            more.lines.extend_from_slice(position.epoch.as_str().as_bytes());
            more.lines.push(b'\n');
        }
        let Some(number) = more.subscription else { return };
        let (style, wire) = (Style { version: self.peer.version }, self.wire());
        let Some(subscription) = self.peer.subscriptions.numbered(number) else { return };
        subscription.note = (result.was_recovering && !has_receipt).then_some(recovered);
        for publication in &result.publications {
            let position = result.position.map(|it| crate::Position { offset: publication.offset, ..it });
            let shared = style.shared(&Push::Publication(publication.clone()), position);
            self.unnamed += 1;
            let head = head_of(subscription, &shared, wire, style.version, self.unnamed);
            if has_receipt {
                self.peer.receipts.hold(number, head);
                self.peer.receipts.hold(number, shared);
            } else {
                out.extend_from_slice(&head);
                out.extend_from_slice(&shared);
            }
        }
    }

    /// Ends the connection because of what a command was answered, when all before it is.
    fn refuse(&mut self, id: u32, reason: CloseReason, message: String, detail: String) -> Answer {
        let words = self.peer.receipts.slot(id).map(|slot| {
            let mut head = format!("{}\n", slot.command);
            if let Some(about) = &slot.about {
                head.push_str(&format!("destination:{}\n", shown(about)));
            }
            (slot.receipt.clone(), head)
        });
        let (receipt, head) = words.unwrap_or_default();
        let words = Box::new(LastWords { reason, detail, message, receipt, head });
        self.is_deaf = true;
        self.peer.receipts.fail(id, words);
        self.answer(Vec::new())
    }

    pub(crate) fn push(&mut self, channel: &str, push: &Push) -> Bytes {
        match push {
            Push::Queue(QueuePush::Delivered(delivered)) => self.delivered(delivered),
            Push::Queue(QueuePush::Browsed { consumer }) => self.browsed(*consumer),
            Push::Publication(_) | Push::Delta { .. } | Push::Message { .. } => {
                let position = None;
                let shared = Style { version: self.peer.version }.shared(push, position);
                let mut parts = Vec::new();
                match self.copies(channel, &shared, &mut parts) {
                    Ok(()) => parts.concat().into(),
                    Err(_) => Bytes::new(),
                }
            }
            // There is no frame that says so: the connection ends, or it is not worth a word.
            _ => Bytes::new(),
        }
    }

    pub(crate) fn copies(
        &mut self,
        channel: &str,
        shared: &Bytes,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Fault> {
        if shared.is_empty() {
            return Ok(());
        }
        self.unnamed += 1;
        let (wire, version, unnamed) = (self.wire(), self.peer.version, self.unnamed);
        let shared = match wire {
            Wire::Plain => shared.clone(),
            Wire::Messages(_) => shared.slice(..shared.len() - 1),
        };
        let Peer { subscriptions, receipts, .. } = &mut self.peer;
        let count = subscriptions.of_channel(channel).len();
        for i in 0..count {
            let number = subscriptions.of_channel(channel)[i];
            let Some(subscription) = subscriptions.numbered(number) else { continue };
            let head = head_of(subscription, &shared, wire, version, unnamed);
            if subscription.awaits_receipt {
                if receipts.slot_of_subscription(number).is_some() {
                    receipts.hold(number, head);
                    receipts.hold(number, shared.clone());
                    continue;
                }
                subscription.awaits_receipt = false;
            }
            out.push(head);
            out.push(shared.clone());
        }
        if count == 0 {
            // What is said outside of channels.
            let destination = self.peer.destination_of(channel);
            let id = (version > Version::V10).then_some(&*destination);
            let mut head = message_head(version, id, &destination).to_vec();
            write_unnamed_id(&shared, unnamed, &mut head);
            out.push(with_wire_head(wire, &head, &shared));
            out.push(shared);
        }
        if self.peer.receipts.is_overfull() {
            let what = "too much waits for the receipt of its subscription".to_owned();
            return Err(Fault { reason: CloseReason::Slow, what });
        }
        Ok(())
    }

    /// Makes a MESSAGE of a queue; empty if its consumer is none any more.
    fn delivered(&mut self, delivered: &Delivered) -> Bytes {
        let Delivered { consumer, delivery, message, redeliveries } = delivered;
        let version = self.peer.version;
        let Some(subscription) = self.peer.subscriptions.numbered(*consumer) else { return Bytes::new() };
        let len = subscription.head.len() + message.headers.as_bytes().len() + message.body.len();
        let mut out = Vec::with_capacity(len + message.id.len() + 224);
        out.extend_from_slice(&subscription.head);
        out.extend_from_slice(b"message-id:");
        out.extend_from_slice(message.id.as_bytes());
        out.push(b'\n');
        if version == Version::V12 && subscription.ack != AckMode::Auto {
            out.extend_from_slice(b"ack:d-");
            write_decimal(*delivery, &mut out);
            out.push(b'\n');
        }
        if *redeliveries == 0 {
            out.extend_from_slice(b"redelivered:false\n");
        } else {
            out.extend_from_slice(b"redelivered:true\nx-delivery-count:");
            write_decimal(u64::from(*redeliveries), &mut out);
            out.push(b'\n');
        }
        out.extend_from_slice(if message.is_persistent {
            &b"persistent:true\n"[..]
        } else {
            b"persistent:false\n"
        });
        out.extend_from_slice(b"priority:");
        write_decimal(u64::from(message.priority), &mut out);
        out.push(b'\n');
        if message.expires != 0 {
            out.extend_from_slice(b"expires:");
            write_decimal(message.expires, &mut out);
            out.push(b'\n');
        }
        // A sender may say of its own when something was, as in AMQP.
        if !has_header(&message.headers, b"timestamp:") {
            out.extend_from_slice(b"timestamp:");
            write_decimal(message.sent_at, &mut out);
            out.push(b'\n');
        }
        write_block(version, &message.headers, &mut out);
        write_body(&message.body, &mut out);
        // Queues answer in order: the consumer's own receipt was written before.
        self.wire().one(out)
    }

    fn browsed(&mut self, consumer: u32) -> Bytes {
        self.unnamed += 1;
        let Some(subscription) = self.peer.subscriptions.numbered(consumer) else { return Bytes::new() };
        let mut out = subscription.head.to_vec();
        write_unnamed_id(b"", self.unnamed, &mut out);
        out.extend_from_slice(b"browser:end\n");
        write_body(b"", &mut out);
        self.wire().one(out)
    }

    pub(crate) fn beat(&self) -> Bytes {
        match self.wire() {
            Wire::Plain => Bytes::from_static(b"\n"),
            wire @ Wire::Messages(_) => wire.one(b"\n".to_vec()),
        }
    }

    pub(crate) fn farewell(&self, close: &Close) -> Bytes {
        let mut out = Vec::new();
        // Who closes, or took leave, is not told why.
        if close.reason != CloseReason::PeerClosed {
            let (mut message, mut receipt, mut head) = (&*close.text, None, "");
            if let Some(fault) = &self.fault {
                (message, receipt, head) = (&fault.message, fault.receipt.as_deref(), &fault.head);
            }
            let mut detail =
                format!("{message}\n\n{} ({} {})\n", close.reason.explanation(), close.code, close.text);
            let is_secret = head.starts_with("CONNECT") || head.starts_with("STOMP");
            if !head.is_empty() && !is_secret {
                detail.push_str(&format!("\nIn answer to:\n\n{}", shown(head)));
            }
            let error = ErrorFrame { message, receipt, versions: message == NO_VERSION, detail: &detail };
            self.wire().write(&mut out, |out| write_error(self.peer.version, &error, out));
        }
        if let Live::WebSocket { .. } = self.carrier {
            out.extend_from_slice(&frame::close(websocket_code(close), &close.text));
        }
        out.into()
    }
}

/// What other protocol a peer speaks that says this first.
fn other_protocol(input: &[u8]) -> Option<&'static str> {
    let is_http = || [&b"GET /"[..], b"POST /", b"CONNECT "].iter().any(|word| input.starts_with(word));
    match input {
        // RFC 8446 section 5.1: a handshake record.
        [0x16, 0x03, ..] => Some("a TLS handshake where no TLS is spoken"),
        _ if is_http() => Some("an HTTP request where STOMP is spoken"),
        _ => None,
    }
}

/// Makes what stands before the shared part of a MESSAGE for one subscription, and notes what only its first has.
fn head_of(
    subscription: &mut Subscription,
    shared: &[u8],
    wire: Wire,
    version: Version,
    unnamed: u64,
) -> Bytes {
    let has_ack = version == Version::V12 && subscription.ack != AckMode::Auto;
    let has_id = shared.starts_with(SHARED_ID);
    if wire == Wire::Plain && has_id && !has_ack && subscription.note.is_none() {
        return subscription.head.clone();
    }
    let mut head = Vec::with_capacity(subscription.head.len() + 64);
    head.extend_from_slice(&subscription.head);
    if has_ack {
        // Nothing waits for it: a channel has no acknowledgements.
        head.extend_from_slice(b"ack:t-");
        write_decimal(u64::from(subscription.number), &mut head);
        head.push(b'-');
        write_decimal(unnamed, &mut head);
        head.push(b'\n');
    }
    if let Some(note) = subscription.note.take() {
        head.extend_from_slice(note.as_bytes());
    }
    write_unnamed_id(shared, unnamed, &mut head);
    with_wire_head(wire, &head, shared)
}

/// Gives a message an id on this connection that has none of its own.
fn write_unnamed_id(shared: &[u8], unnamed: u64, head: &mut Vec<u8>) {
    if !shared.starts_with(SHARED_ID) {
        head.extend_from_slice(b"message-id:t-");
        write_decimal(unnamed, head);
        head.push(b'\n');
    }
}

fn with_wire_head(wire: Wire, head: &[u8], shared: &[u8]) -> Bytes {
    match wire.head([head, shared]) {
        None => Bytes::copy_from_slice(head),
        Some(wire_head) => [wire_head.as_slice(), head].concat().into(),
    }
}

/// The close reason that something amounts to that is not done with a queue.
fn queue_refusal(error: &QueueError) -> CloseReason {
    match error.kind {
        QueueErrorKind::PermissionDenied => CloseReason::PermissionDenied,
        QueueErrorKind::QueueFull
        | QueueErrorKind::TooManyQueues
        | QueueErrorKind::NotWritable
        | QueueErrorKind::Exclusive => CloseReason::QueueUnavailable,
        QueueErrorKind::MessageTooBig => CloseReason::MessageTooBig,
        QueueErrorKind::LimitExceeded => CloseReason::ChannelLimit,
        QueueErrorKind::ShuttingDown => CloseReason::Drain,
        QueueErrorKind::BadName
        | QueueErrorKind::NoSuchQueue
        | QueueErrorKind::BadSelector
        | QueueErrorKind::ConsumerInUse
        | QueueErrorKind::NoSuchConsumer
        | QueueErrorKind::UnknownDelivery => CloseReason::BadRequest,
    }
}

/// The code of the close frame: where RFC 6455 section 7.4.1 has one, clients of STOMP know that.
fn websocket_code(close: &Close) -> u16 {
    if close.code != close.reason.code() {
        return close.code;
    }
    match close.reason {
        CloseReason::PeerClosed => 1000,
        CloseReason::Drain => 1001,
        CloseReason::BadRequest | CloseReason::ProtocolError => 1002,
        reason => reason.code(),
    }
}
