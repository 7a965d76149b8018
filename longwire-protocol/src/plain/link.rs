//! One connection of the plain dialect from its request to its end, whatever carries it.
//!
//! What the request asks for (connect, then one subscribe a channel) is answered command by command; only then is
//! the client welcomed. So a refusal is an HTTP status, a close frame or a packet, and never a stream that dies in
//! its middle. From then on pushes go out, and whatever comes is a message for the backend, or a sign of life that
//! nobody is told of. What must stay true: every position that is written names that up to which everything before
//! it was written, so that a break at any byte is recovered from; messages come out in the order in which they
//! came.

use super::envelope::{self, ChannelState, Welcome};
use super::framing::Framer;
use super::opening::{Beats, Carrier, FirstPacket, Opening};
use super::poll::{self, Poll};
use super::{Format, Style, Unit, event_stream, position_token};
use crate::close::{Advice, Close, CloseReason};
use crate::command::{Command, Connect, Numbered, Subscribe};
use crate::connection::{Answer, Fault, Inbound, Transport, refusal};
use crate::encoding::{Encoding, encode_push};
use crate::heartbeat;
use crate::message::{ConnectResult, Publication, Push, Reply, ReplyError, SubscribeResult};
use crate::position::Position;
use crate::websocket::{self, Event, Kind, Role, frame};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// One connection of the dialect.
#[derive(Debug)]
pub(crate) struct Link {
    /// Present until the client is welcomed.
    opening: Option<Box<Pending>>,
    carrier: Live,
    format: Format,
    beats: Arc<Beats>,
    has_one_channel: bool,
    /// The server added a channel, before or after the welcome.
    has_gained: bool,
}

/// What is left of a carrier when its opening is taken.
#[derive(Debug)]
enum Live {
    EventStream,
    Lines { is_chunked: bool },
    Poll(Box<Poll>),
    WebSocket { frames: websocket::Connection, is_deflated: bool },
    Tcp(Framer),
}

/// A client that is not welcomed yet.
#[derive(Debug)]
struct Pending {
    /// What the first packet is to say, and what it completes; gone once it came.
    awaited: Option<(FirstPacket, Connect)>,
    commands: VecDeque<Numbered>,
    head: String,
    retry_milliseconds: u64,
    welcome: Option<Welcome>,
    asked: Vec<Asked>,
    answered: Vec<SubscribeResult>,
}

#[derive(Debug)]
struct Asked {
    channel: String,
    was_recovering: bool,
}

impl Link {
    pub(crate) fn new(opening: Opening, now: Instant) -> Link {
        let Opening { connect, subscribes, carrier, format, beats } = opening;
        let name = || connect.client_name.clone();
        let (mut head_lines, mut retry_milliseconds, mut first_packet) =
            (String::new(), 0, FirstPacket::None);
        let (carrier, format) = match carrier {
            Carrier::EventStream { head, retry_milliseconds: retry } => {
                (head_lines, retry_milliseconds) = (head, retry);
                (Live::EventStream, Format::Json)
            }
            Carrier::Lines { head, is_chunked } => {
                head_lines = head;
                (Live::Lines { is_chunked }, format)
            }
            Carrier::Poll { keep_alive, is_first, wait, head } => (
                Live::Poll(Box::new(Poll::new((keep_alive, is_first), wait, now, head, name()))),
                Format::Json,
            ),
            Carrier::WebSocket { is_deflated, max_message_bytes } => {
                let frames = websocket::Connection::new(Role::Server, is_deflated, max_message_bytes);
                (Live::WebSocket { frames, is_deflated }, format)
            }
            Carrier::Tcp { framing, max_packet_bytes, first_packet: first } => {
                first_packet = first;
                (Live::Tcp(Framer::new(framing, max_packet_bytes)), format)
            }
        };
        let mut pending = Pending {
            awaited: None,
            commands: VecDeque::new(),
            head: head_lines,
            retry_milliseconds,
            welcome: None,
            asked: Vec::new(),
            answered: Vec::new(),
        };
        if first_packet == FirstPacket::None {
            pending.ask(connect, subscribes);
        } else {
            pending.awaited = Some((first_packet, connect));
        }
        Link {
            has_one_channel: pending.asked.len() == 1,
            has_gained: false,
            opening: Some(Box::new(pending)),
            carrier,
            format,
            beats,
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        match self.carrier {
            Live::EventStream => Transport::EventStream,
            Live::Lines { .. } => Transport::HttpStream,
            Live::Poll(_) => Transport::LongPoll,
            Live::WebSocket { .. } => Transport::WebSocket,
            Live::Tcp(_) => Transport::Tcp,
        }
    }

    pub(crate) fn heartbeat_kind(&self) -> heartbeat::Kind {
        match self.carrier {
            Live::EventStream | Live::Lines { .. } => heartbeat::Kind::OneWay,
            Live::Poll(_) => heartbeat::Kind::Silent,
            Live::WebSocket { .. } | Live::Tcp(_) => heartbeat::Kind::Idle,
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        match self.unit() {
            None if self.has_one_channel && !self.has_gained => Encoding::EventStream,
            None => Encoding::EventStreamWithoutId,
            Some(unit) => Encoding::Plain(Style { format: self.format, unit }),
        }
    }

    /// `None` on an event stream.
    fn unit(&self) -> Option<Unit> {
        match &self.carrier {
            Live::EventStream => None,
            Live::Lines { is_chunked: true } => Some(Unit::Chunk),
            Live::Lines { is_chunked: false } => Some(Unit::Line),
            Live::Poll(_) => Some(Unit::Piece),
            Live::WebSocket { is_deflated: true, .. } => Some(Unit::Deflated),
            Live::WebSocket { is_deflated: false, .. } => Some(Unit::WebSocket),
            Live::Tcp(framer) => Some(Unit::Packet(*framer.framing())),
        }
    }

    /// Whether a message is nothing but a sign of life.
    pub(crate) fn is_beat(&self, message: &[u8]) -> bool {
        self.beats.is_beat(message)
    }

    /// Whether the client was welcomed.
    pub(crate) fn is_open(&self) -> bool {
        self.opening.is_none()
    }

    pub(crate) fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Inbound>, Fault> {
        if let Some(command) = self.opening.as_mut().and_then(|opening| opening.commands.pop_front()) {
            return Ok(Some(Inbound::Command(command)));
        }
        loop {
            let (message, is_text) = match &mut self.carrier {
                // The request is complete; what follows it on this link means nothing.
                Live::EventStream | Live::Lines { .. } => {
                    *input = &[];
                    return Ok(None);
                }
                Live::Poll(poll) => {
                    if !input.is_empty() {
                        poll.hear();
                    }
                    *input = &[];
                    return Ok(None);
                }
                Live::WebSocket { frames, .. } => {
                    let event = frames.decode(input).map_err(|violation| Fault {
                        reason: violation.reason,
                        what: violation.what.into(),
                    })?;
                    match event {
                        None => return Ok(None),
                        Some(Event::Ping(payload)) => {
                            return Ok(Some(Inbound::Transmit(frame::pong(&payload))));
                        }
                        Some(Event::Pong(_)) => continue,
                        Some(Event::Close { code, .. }) => return Ok(Some(Inbound::Closed(code))),
                        Some(Event::Message { kind, data }) => {
                            let is_beat = self.beats.is_beat(&data);
                            if is_beat && self.beats.answer.is_empty() {
                                continue;
                            }
                            if is_beat {
                                return Ok(Some(Inbound::Transmit(self.personal(kind, &self.beats.answer))));
                            }
                            (data, kind == Kind::Text)
                        }
                    }
                }
                Live::Tcp(framer) => {
                    let framing = *framer.framing();
                    let packet = framer.decode(input).map_err(|violation| Fault {
                        reason: violation.reason,
                        what: violation.what.into(),
                    })?;
                    let Some(packet) = packet else { return Ok(None) };
                    let body = framing.body_of(&packet);
                    if self.beats.is_beat(&body) || self.beats.is_beat(&packet) {
                        if self.beats.answer.is_empty() {
                            continue;
                        }
                        return Ok(Some(Inbound::Transmit(framing.packet(&self.beats.answer))));
                    }
                    if let Some(opening) = &mut self.opening
                        && let Some((first_packet, mut connect)) = opening.awaited.take()
                    {
                        let subscribes = first_packet
                            .take(&body, &mut connect)
                            .map_err(|what| Fault { reason: CloseReason::BadRequest, what })?;
                        opening.ask(connect, subscribes);
                        self.has_one_channel = opening.asked.len() == 1;
                        let command = opening.commands.pop_front();
                        return Ok(command.map(Inbound::Command));
                    }
                    let is_text = simdutf8::basic::from_utf8(&packet).is_ok();
                    (packet, is_text)
                }
            };
            return Ok(Some(message_command(message, is_text)));
        }
    }

    pub(crate) fn reply(&mut self, _id: u32, reply: &Reply) -> Answer {
        let silent = |bytes| Answer { bytes, close: None, detail: String::new() };
        let Some(opening) = &mut self.opening else {
            return silent(match reply {
                Reply::Error(error) => self.error(error),
                _ => Bytes::new(),
            });
        };
        match reply {
            Reply::Error(error) => {
                let reason = refusal(error);
                let detail = opening.describe_refusal(error);
                return Answer { bytes: self.refusal(&reason.into(), error), close: Some(reason), detail };
            }
            Reply::Connect(result) => {
                opening.connected(result);
                self.has_one_channel = opening.asked.len() == 1;
            }
            Reply::Subscribe(result) => opening.answered.push((**result).clone()),
            _ => return silent(Bytes::new()),
        }
        match self.opening.take_if(|opening| opening.is_answered()) {
            Some(opening) => silent(self.first_bytes(&opening)),
            None => silent(Bytes::new()),
        }
    }

    /// Makes a push for this link alone.
    pub(crate) fn push(&mut self, channel: &str, push: &Push) -> Bytes {
        match self.unit() {
            None => {
                if let Push::Subscribe(_) = push {
                    // From here on each event names the position in all channels.
                    self.has_gained = true;
                }
                encode_push(Encoding::EventStreamWithoutId, channel, push, None, &mut None)
            }
            Some(unit) => {
                let encoding = Encoding::Plain(Style { format: self.format, unit }).inflated();
                encode_push(encoding, channel, push, None, &mut None)
            }
        }
    }

    pub(crate) fn beat(&self) -> Bytes {
        match &self.carrier {
            // RFC 6455 section 5.5.2: an empty ping.
            Live::WebSocket { .. } => Bytes::from_static(b"\x89\x00"),
            // Nothing else before what is said first.
            _ if !self.is_open() => Bytes::new(),
            Live::EventStream => Bytes::from_static(event_stream::HEARTBEAT),
            Live::Lines { is_chunked: true } => Bytes::from_static(b"1\r\n\n\r\n"),
            Live::Lines { is_chunked: false } => Bytes::from_static(b"\n"),
            Live::Tcp(_) if self.beats.ping_packet.is_empty() => Bytes::new(),
            Live::Tcp(framer) => framer.framing().packet(&self.beats.ping_packet),
            Live::Poll(_) => Bytes::new(),
        }
    }

    /// Makes the answer to a sign of life that came beside the link; empty if there is none.
    ///
    /// Where messages are told apart by what carries them it is the text itself. Where a client reads JSON it is an
    /// object: the text if that is one, otherwise a direct message of the text.
    pub(crate) fn beat_answer(&self) -> Bytes {
        let answer = &self.beats.answer;
        if answer.is_empty() {
            return Bytes::new();
        }
        match (&self.carrier, self.unit()) {
            (Live::WebSocket { .. }, _) => self.personal(Kind::Text, answer),
            (Live::Tcp(framer), _) => framer.framing().packet(answer),
            (_, unit) => {
                let mut object = Vec::new();
                envelope::encode_beat_answer(answer, &mut object);
                match unit {
                    None => event_stream::message(&object),
                    Some(unit) if self.format == Format::Json => {
                        Style { format: Format::Json, unit }.wrap(Kind::Text, object, &mut None)
                    }
                    Some(unit) => {
                        Style { format: Format::Bare, unit }.wrap(Kind::Text, answer.to_vec(), &mut None)
                    }
                }
            }
        }
    }

    pub(crate) fn farewell(&self, close: &Close) -> Bytes {
        if !self.is_open() {
            let error = ReplyError {
                code: close.code.into(),
                message: close.text.clone(),
                temporary: close.advice() != Advice::Stop,
            };
            return self.refusal(close, &error);
        }
        match &self.carrier {
            Live::EventStream => {
                let mut event = Vec::new();
                event_stream::encode_disconnect(close, &mut event);
                event.into()
            }
            Live::Lines { is_chunked } => {
                let mut last = self.disconnect(close).to_vec();
                if *is_chunked {
                    // The last chunk (RFC 9112 section 7.1).
                    last.extend_from_slice(b"0\r\n\r\n");
                }
                last.into()
            }
            Live::Poll(poll) => {
                let error =
                    ReplyError { code: close.code.into(), message: close.text.clone(), temporary: false };
                poll.refusal(close.reason.http_status(), &error)
            }
            Live::WebSocket { .. } => frame::close(close.code, &close.text),
            Live::Tcp(_) => self.disconnect(close),
        }
    }

    /// The poll that is to be answered, if this is one and the client is welcome.
    pub(crate) fn poll(&mut self) -> Option<&mut Poll> {
        match &mut self.carrier {
            Live::Poll(poll) if self.opening.is_none() => Some(poll),
            _ => None,
        }
    }

    pub(crate) fn poll_ref(&self) -> Option<&Poll> {
        match &self.carrier {
            Live::Poll(poll) => Some(poll),
            _ => None,
        }
    }

    /// Refuses a client that was not welcomed.
    fn refusal(&self, close: &Close, error: &ReplyError) -> Bytes {
        let status = close.reason.http_status();
        match (&self.carrier, &self.opening) {
            (Live::WebSocket { .. }, _) => frame::close(close.code, &close.text),
            (Live::Tcp(_), _) => self.disconnect(close),
            (Live::Poll(poll), _) => poll.refusal(status, error),
            // A browser's EventSource comes back from the end of a stream, and never from a status.
            (Live::EventStream, Some(opening)) if is_worth_returning(close) => {
                let mut stream = opening.head.clone().into_bytes();
                stream.extend_from_slice(b"\r\n");
                event_stream::encode_retry(opening.retry_milliseconds, &mut stream);
                event_stream::encode_disconnect(close, &mut stream);
                stream.into()
            }
            (Live::EventStream | Live::Lines { .. }, opening) => {
                let head = opening.as_ref().map_or("", |opening| &opening.head);
                poll::refusal_response(status, error, &cors_lines(head))
            }
        }
    }

    fn disconnect(&self, close: &Close) -> Bytes {
        match (self.unit(), self.format) {
            (Some(unit), Format::Json) => {
                let style = Style { format: Format::Json, unit };
                style.push("", &Push::Disconnect(close.clone()), None, &mut None)
            }
            _ => Bytes::new(),
        }
    }

    /// Says that something was refused. An event stream has no word for it: `error` is the browser's own.
    fn error(&mut self, error: &ReplyError) -> Bytes {
        match (self.unit(), self.format) {
            (Some(Unit::Piece), _) => {
                if let Some(poll) = self.poll() {
                    poll.gather(poll::error_piece(error));
                }
                Bytes::new()
            }
            (Some(unit), Format::Json) => {
                let mut object = Vec::new();
                envelope::encode_error(error, &mut object);
                Style { format: Format::Json, unit }.inflated().wrap(Kind::Text, object, &mut None)
            }
            _ => Bytes::new(),
        }
    }

    /// A message for this client alone, in WebSocket's framing.
    fn personal(&self, kind: Kind, content: &[u8]) -> Bytes {
        // An answer that is no text cannot go where text was asked.
        let kind = if simdutf8::basic::from_utf8(content).is_ok() { kind } else { Kind::Binary };
        frame::message(kind, content)
    }

    /// What is said first: the head, what is subscribed and recovered, and the missed publications.
    fn first_bytes(&mut self, opening: &Pending) -> Bytes {
        let channels = opening.channels();
        let welcome =
            opening.welcome.as_ref().expect("the first bytes are made after the connect was answered");
        // A recovered channel's position is the asked-for one: it advances with each event that follows.
        let mut positions: Vec<(&str, Option<Position>)> =
            channels.iter().map(|state| (state.channel, state.position)).collect();
        let missed = opening.answered.iter().enumerate();
        let missed = missed.flat_map(|(index, result)| result.publications.iter().map(move |it| (index, it)));
        let mut out = Vec::new();
        if !opening.head.is_empty() {
            out.extend_from_slice(opening.head.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        let Some(unit) = self.unit() else {
            event_stream::encode_retry(opening.retry_milliseconds, &mut out);
            event_stream::encode_subscribed(welcome, &channels, &token(&positions), &mut out);
            for (index, publication) in missed {
                if let Some(position) = &mut positions[index].1 {
                    position.offset = publication.offset;
                }
                event_stream::write_id(&token(&positions), &mut out);
                event_stream::encode_publication_data(positions[index].0, publication, &mut out);
            }
            return out.into();
        };
        let style = Style { format: self.format, unit }.inflated();
        if style.unit != Unit::Piece && style.format == Format::Json {
            let mut object = Vec::new();
            envelope::encode_welcome(welcome, &channels, &token(&positions), &mut object);
            out.extend_from_slice(&style.wrap(Kind::Text, object, &mut None));
        }
        if let Live::Poll(poll) = &mut self.carrier {
            poll.welcome(welcome, &channels);
        }
        for (index, publication) in missed {
            let (channel, position) = positions[index];
            let position = position.map(|position| Position { offset: publication.offset, ..position });
            let push = Push::Publication(publication.clone());
            let piece = style.push(channel, &push, position, &mut None);
            match &mut self.carrier {
                Live::Poll(poll) => poll.gather(piece),
                _ => out.extend_from_slice(&piece),
            }
        }
        out.into()
    }
}

impl Pending {
    /// Makes commands of what is asked.
    fn ask(&mut self, connect: Connect, subscribes: Vec<Subscribe>) {
        let asked = subscribes
            .iter()
            .map(|s| Asked { channel: s.channel.clone(), was_recovering: s.recover.is_some() });
        self.asked = asked.collect();
        let subscribes = subscribes.into_iter().map(|subscribe| Command::Subscribe(Box::new(subscribe)));
        let commands = std::iter::once(Command::Connect(Box::new(connect))).chain(subscribes);
        self.commands = commands.zip(1..).map(|(command, id)| Numbered { id, command }).collect();
    }

    /// Notes what the connect command brought. Channels that the server brings are served like those that were
    /// asked for, and first; one that was asked for too need not be subscribed again.
    fn connected(&mut self, result: &ConnectResult) {
        self.welcome = Some(Welcome::from(result));
        for (channel, _) in &result.subs {
            self.asked.retain(|asked| asked.channel != *channel);
            self.commands.retain(
                |numbered| !matches!(&numbered.command, Command::Subscribe(s) if s.channel == *channel),
            );
        }
        let brought = result.subs.iter().map(|(channel, result)| Asked {
            channel: channel.clone(),
            was_recovering: result.was_recovering,
        });
        self.asked.splice(0..0, brought);
        self.answered.extend(result.subs.iter().map(|(_, result)| result.clone()));
    }

    fn is_answered(&self) -> bool {
        self.welcome.is_some() && self.answered.len() == self.asked.len()
    }

    fn describe_refusal(&self, error: &ReplyError) -> String {
        let channel = self.asked.get(self.answered.len()).filter(|_| self.welcome.is_some());
        let channel = channel.map_or(String::new(), |asked| format!("channel \"{}\": ", asked.channel));
        format!("{channel}{} ({})", error.message, error.code)
    }

    fn channels(&self) -> Vec<ChannelState<'_>> {
        let each = self.asked.iter().zip(&self.answered);
        each.map(|(asked, result)| ChannelState {
            channel: &asked.channel,
            recovered: asked.was_recovering.then_some(result.recovered),
            publications: result.publications.len(),
            position: result.position.map(|position| before(position, &result.publications)),
        })
        .collect()
    }
}

/// Whether the same request, made again by a client that knows of nothing, may be granted: not with a token whose
/// time ran out.
fn is_worth_returning(close: &Close) -> bool {
    close.advice() != Advice::Stop && close.reason.http_status() != 401
}

/// The lines of a head that say which pages may do what with the response, whatever it says.
fn cors_lines(head: &str) -> String {
    const MEANT: [&str; 4] = ["Access-Control-", "Vary:", "X-Content-Type-Options:", "Cross-Origin-"];
    let is_meant = |line: &&str| MEANT.iter().any(|meant| line.starts_with(meant));
    head.split_inclusive("\r\n").filter(is_meant).collect()
}

fn message_command(data: Bytes, is_text: bool) -> Inbound {
    Inbound::Command(Numbered { id: 0, command: Command::Message { data, is_text } })
}

/// Where the reader of a subscription stands before its first publication, which may be the newest alone: an id
/// must not name what was not sent, or a break right behind it would lose that.
fn before(position: Position, publications: &[Arc<Publication>]) -> Position {
    let first = publications.first().map(|publication| publication.offset.saturating_sub(1));
    Position { offset: first.map_or(position.offset, |offset| offset.min(position.offset)), ..position }
}

fn token(positions: &[(&str, Option<Position>)]) -> Vec<u8> {
    let mut token = Vec::new();
    for (channel, position) in positions {
        if let Some(position) = position {
            position_token::write_position(channel, position, &mut token);
        }
    }
    token
}
