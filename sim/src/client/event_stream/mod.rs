//! A page with an `EventSource` on `/sse`: the plain dialect as a browser and a page's handlers see it.
//!
//! A stream that breaks is asked for again with the same address, after the delay that the server named, and
//! with the last event's id in a header. Where the browser gives up, after any status but 200, the page makes
//! another `EventSource` if the status asks for patience (408, 429, 5xx), or when it is told to; that one
//! knows no id, so the page puts the one it remembers into the address (`since=`). A browser notices no
//! silence and waits for a response without end; [`Settings::silence`] makes this the long-lived consumer that
//! does notice. What it judges is each event's form and its id: an id must name exactly what was read, in
//! every channel, or a break right after it would lose or repeat something.

mod events;

use super::event_source::{Item, Parser};
use super::{Action, Client, Event, HangUp, Output, Settings, Wanted};
use events::told;
use longwire_protocol::http::parse_response_head;
use longwire_protocol::plain::position_token::PositionToken;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PATH: &str = "/sse";

/// How long a consumer that watches for silence waits for the response's head.
const PATIENCE: Duration = Duration::from_secs(5);

/// A browser's delay before it connects again, until the server names another.
const DEFAULT_RETRY: Duration = Duration::from_secs(3);

/// However long the delay is that the server names.
const MAX_RETRY: Duration = Duration::from_secs(24 * 3600);

const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 100;

pub(super) struct EventStream {
    settings: Settings,
    phase: Phase,
    retry: Duration,
    /// The address of the `EventSource`; `None` until the page makes one.
    source: Option<Source>,
    /// Where the page stands: what it read last, by the ids.
    seen: PositionToken,
    /// What the request said about where it stopped; `None` if nothing.
    asked: Option<PositionToken>,
    /// The channels of this connection.
    channels: Vec<String>,
    /// When bytes came last, or the request was sent.
    heard: Option<Instant>,
}

/// One `EventSource` object.
struct Source {
    target: String,
    since: String,
    last_event_id: String,
}

enum Phase {
    Idle,
    /// The request is sent.
    Head(Vec<u8>),
    /// The stream runs; whether its first event came.
    Open(Box<Parser>, bool),
    /// The server said that it ends the stream.
    Told,
}

impl Client for EventStream {
    fn opened(&mut self, now: Instant, out: &mut Output) {
        self.lost(now);
        let source = self.source.get_or_insert_with(|| Source::new(&self.settings, &self.seen));
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n",
            source.target, self.settings.host
        );
        if !source.last_event_id.is_empty() {
            request.push_str(&format!("Last-Event-ID: {}\r\n", source.last_event_id));
        }
        request.push_str("\r\n");
        out.bytes.extend_from_slice(request.as_bytes());
        // The header is the newer of the two.
        let asked = [&source.last_event_id, &source.since].into_iter().find(|text| !text.is_empty());
        self.asked = asked.map(|text| PositionToken::parse(text.as_bytes()).unwrap_or_default());
        self.phase = Phase::Head(Vec::new());
        self.heard = Some(now);
    }

    fn handle_bytes(&mut self, now: Instant, bytes: &[u8], out: &mut Output) {
        self.heard = Some(now);
        let mut input = bytes;
        while out.hang_up.is_none() && !input.is_empty() {
            let result = match &mut self.phase {
                Phase::Idle => return,
                Phase::Told => Err("bytes after the disconnect event".to_owned()),
                Phase::Head(_) => self.read_head(&mut input, out),
                Phase::Open(parser, _) => match parser.poll(&mut input) {
                    Ok(Some(item)) => self.handle_item(item, out),
                    Ok(None) => Ok(()),
                    Err(what) => Err(what),
                },
            };
            if let Err(what) = result {
                self.hang_up(HangUp::Nonsense(format!("sse: {what}")), out);
            }
        }
    }

    fn lost(&mut self, _now: Instant) {
        self.end(Phase::Idle);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.settings.silence?;
        let limit = match self.phase {
            Phase::Idle => return None,
            Phase::Head(_) => PATIENCE,
            Phase::Open(..) | Phase::Told => silence,
        };
        Some(self.heard? + limit)
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let is_connecting = matches!(self.phase, Phase::Head(_));
            let why = if is_connecting { HangUp::ConnectTimeout } else { HangUp::NoPing };
            self.hang_up(why, out);
        }
    }

    fn act(&mut self, _now: Instant, action: Action, out: &mut Output) -> bool {
        let is_connected = !matches!(self.phase, Phase::Idle);
        match action {
            // They change the address, so the page makes another `EventSource`.
            Action::Subscribe(channel) => {
                let is_wanted = self.settings.channels.iter().any(|wanted| wanted.channel == channel);
                if is_connected || is_wanted {
                    return false;
                }
                self.settings.channels.push(Wanted::all(&channel));
                self.source = None;
            }
            Action::Unsubscribe(channel) => {
                let before = self.settings.channels.len();
                // Without any channel there is nothing to ask for.
                if is_connected || before == 1 {
                    return false;
                }
                self.settings.channels.retain(|wanted| wanted.channel != channel);
                self.seen.remove(&channel);
                self.source = None;
                return self.settings.channels.len() < before;
            }
            Action::Token(token) => {
                self.settings.token = Some(token);
                // It stands in the address: the present stream goes on, the next object has it.
                if !is_connected {
                    self.source = None;
                }
            }
            Action::Garbage(bytes) if is_connected => out.bytes.extend_from_slice(&bytes),
            Action::Goodbye if is_connected => self.hang_up(HangUp::Done, out),
            _ => return false,
        }
        true
    }

    fn reconnect_delay(&mut self) -> Duration {
        self.retry
    }

    fn name(&self) -> &'static str {
        "plain over sse"
    }

    fn positions(&self) -> BTreeMap<String, (u64, String)> {
        let positions = self.seen.iter();
        positions.map(|(channel, position)| (channel.to_owned(), told(position))).collect()
    }
}

impl EventStream {
    pub(super) fn new(settings: Settings) -> EventStream {
        EventStream::standing(settings, PositionToken::default())
    }

    /// A page that was there before, and stands where `seen` says.
    pub(super) fn standing(settings: Settings, seen: PositionToken) -> EventStream {
        EventStream {
            settings,
            phase: Phase::Idle,
            retry: DEFAULT_RETRY,
            source: None,
            seen,
            asked: None,
            channels: Vec::new(),
            heard: None,
        }
    }

    fn hang_up(&mut self, why: HangUp, out: &mut Output) {
        // A consumer that watches for silence asks again with the id, as the browser does after a break.
        let goes_on = matches!(why, HangUp::NoPing | HangUp::ConnectTimeout);
        out.hang_up = Some(why);
        self.end(Phase::Idle);
        if !goes_on {
            self.source = None;
        }
    }

    /// The stream is over; the id of its last whole event is where the next one begins.
    fn end(&mut self, phase: Phase) {
        if let (Phase::Open(parser, _), Some(source)) = (&self.phase, &mut self.source) {
            parser.last_event_id().clone_into(&mut source.last_event_id);
        }
        self.phase = phase;
    }

    fn read_head(&mut self, input: &mut &[u8], out: &mut Output) -> Result<(), String> {
        let Phase::Head(bytes) = &mut self.phase else { return Ok(()) };
        bytes.extend_from_slice(input);
        let parsed = parse_response_head(bytes, MAX_HEAD_BYTES, MAX_HEADERS);
        let Some((head, consumed)) = parsed.map_err(|error| format!("the response's head: {error}"))? else {
            *input = &[];
            return Ok(());
        };
        *input = &input[input.len() - (bytes.len() - consumed)..];
        let status = head.status;
        match status {
            200 => {
                let kind = head.headers.first_str("content-type").unwrap_or_default();
                if kind.split(';').next().map(str::trim) != Some("text/event-stream") {
                    return Err(format!("the content type is {kind:?}"));
                }
                for framing in ["transfer-encoding", "content-length", "content-encoding"] {
                    if head.headers.first(framing).is_some() {
                        return Err(format!("a stream that ends with its connection has a {framing}"));
                    }
                }
                let last_event_id = self.source.as_ref().map(|source| source.last_event_id.clone());
                let parser = Parser::new(last_event_id.unwrap_or_default());
                self.phase = Phase::Open(Box::new(parser), false);
            }
            204 | 400..=599 => {
                let code = status.into();
                out.events.push(Event::Refused { channel: None, code });
                if status == 401 {
                    out.events.push(Event::WantsToken);
                }
                let reconnect = matches!(status, 408 | 429 | 500..);
                self.hang_up(HangUp::Told { code, reconnect }, out);
            }
            _ => return Err(format!("the status {status}")),
        }
        Ok(())
    }

    fn handle_item(&mut self, item: Item, out: &mut Output) -> Result<(), String> {
        match item {
            Item::Comment => out.events.push(Event::Beat),
            Item::Retry(milliseconds) => self.retry = Duration::from_millis(milliseconds).min(MAX_RETRY),
            Item::Event { name, data, has_id } => {
                let Phase::Open(parser, has_begun) = &mut self.phase else { return Ok(()) };
                let is_first = !std::mem::replace(has_begun, true);
                let id = match has_id {
                    true => Some(
                        PositionToken::parse(parser.last_event_id().as_bytes())
                            .map_err(|error| format!("the id of a {name} event: {error}"))?,
                    ),
                    false => None,
                };
                self.handle_event(&name, &data, id, is_first, out).map_err(|what| {
                    format!("{name}: {what}, in {}", data.chars().take(300).collect::<String>())
                })?;
            }
        }
        Ok(())
    }
}

impl Source {
    fn new(settings: &Settings, seen: &PositionToken) -> Source {
        let mut since = Vec::new();
        seen.write(&mut since);
        let since = String::from_utf8(since).expect("a token is ASCII");
        let names: Vec<&str> = settings.channels.iter().map(|wanted| &*wanted.channel).collect();
        let mut parameters = match names.iter().any(|name| name.contains(',')) {
            false => vec![format!("channels={}", encode(&names.join(",")))],
            true => names.iter().map(|name| format!("channel={}", encode(name))).collect(),
        };
        parameters.extend(settings.token.as_ref().map(|token| format!("token={}", encode(token))));
        if !settings.plain.name.is_empty() {
            parameters.push(format!("client={}", encode(&settings.plain.name)));
        }
        if !settings.plain.proof.is_empty() {
            parameters.push(format!("session={}", encode(&settings.plain.proof)));
        }
        if !since.is_empty() {
            parameters.push(format!("since={}", encode(&since)));
        }
        Source { target: format!("{PATH}?{}", parameters.join("&")), since, last_event_id: String::new() }
    }
}

/// What a page's `encodeURIComponent` does, except that it leaves a few more characters as they are.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
