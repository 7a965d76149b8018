//! `longwire sub`: prints what is published, over whatever is spoken at the URL, and comes back when the connection breaks.
//!
//! Publications go to standard output, one a line; everything that happens to the connection goes to standard error, and with
//! `--events` to standard output as well, in its place among the publications. What must stay true: what may be missing is said before
//! anything newer is printed; a queue's message is acknowledged after it was printed; it stops only when the user, the reader of its
//! output, a limit that the user set, or the server says so.

use super::address::{Server, Spoken};
use super::connecting::{Connecting, check_channel, duration};
use super::screen::Screen;
use super::source::{Item, Publication, Source, Wanted};
use super::{Failure, http, outcome, printable};
use crate::env::Clock;
use longwire_client::{Cause, Transition};
use longwire_protocol::plain::{ByteOrder, Counts, Framing, LengthField, Terminator};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How often the status line is written.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// What `longwire sub` takes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The channels; over STOMP destinations, or the NAME of /topic/NAME.
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// The server: http(s)://, ws(s)://, stream+http(s)://, sse+http(s)://, poll+http(s)://, stomp(s)://, stomp+ws(s)://, tcp://,
    /// tls://. Given several times, servers are tried in turn.
    #[arg(long = "url", value_name = "URL", default_value = "http://127.0.0.1:8000")]
    urls: Vec<String>,
    #[command(flatten)]
    connecting: Connecting,
    /// A position token: begin with what was published after it.
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    /// Print each publication as one JSON object.
    #[arg(long)]
    json: bool,
    /// With --json: print what happens to the connection, too, as objects that have `event`.
    #[arg(long, requires = "json")]
    events: bool,
    /// End after so many publications.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Silence of the server that counts as a broken connection, where nothing is agreed upon; more than its `heartbeat.interval`.
    #[arg(long, default_value = "60s", value_parser = duration)]
    max_silence: Duration,
    /// tcp://: what ends a packet, or how its length is written.
    #[arg(long, value_enum, default_value_t = Packets::Line)]
    packets: Packets,
}

/// How packets are told apart.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Packets {
    /// A line feed ends each.
    Line,
    /// Carriage return and line feed end each.
    Crlf,
    /// Four bytes before it say its length, the most significant first.
    Length,
}

impl Packets {
    /// The form.
    pub(super) fn framing(self) -> Framing {
        let crlf = || Terminator::new(b"\r\n").unwrap_or(Terminator::LINE_FEED);
        match self {
            Packets::Line => Framing::Terminator(Terminator::LINE_FEED),
            Packets::Crlf => Framing::Terminator(crlf()),
            Packets::Length => Framing::Length(LengthField {
                bytes: 4,
                order: ByteOrder::Big,
                offset: 0,
                body_offset: 4,
                counts: Counts::Body,
                is_whole: false,
            }),
        }
    }
}

/// Prints publications until Ctrl-C, or until the server says no.
pub(super) fn subscribe(arguments: &Arguments) -> Result<(), Failure> {
    let servers = Server::parse_all(&arguments.urls)?;
    arguments.channels.iter().try_for_each(|channel| check_channel(channel))?;
    http::block_on(async {
        tokio::select! {
            biased;
            result = tokio::signal::ctrl_c() => Ok(result?),
            result = follow(&servers, arguments) => result,
        }
    })
}

async fn follow(servers: &[Server], arguments: &Arguments) -> Result<(), Failure> {
    let clock = Clock::system();
    let mut options = arguments.connecting.options();
    options.timeouts.silence = arguments.max_silence;
    let wanted = Wanted {
        servers,
        channels: &arguments.channels,
        connecting: &arguments.connecting,
        options,
        since: arguments.since.as_deref(),
        framing: arguments.packets.framing(),
    };
    let mut source = Source::open(&wanted)?;
    let mut reader = Reader::new(arguments, source.shown().to_owned());
    reader.is_to_say_what_packets_need = servers[0].spoken == Spoken::Packets;
    let mut next_status = clock.now();
    loop {
        if clock.now() >= next_status {
            reader.status(clock.now());
            next_status = clock.now() + STATUS_EVERY;
        }
        let item = match source.next_if_ready().await {
            Some(item) => item,
            None => {
                // All that came together is seen together.
                reader.screen.flush()?;
                let tick = async {
                    match reader.screen.has_status() {
                        true => clock.sleep_until(next_status).await,
                        false => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    item = source.next() => item,
                    () = tick => continue,
                }
            }
        };
        match reader.handle(item, clock.now()).await? {
            Next::GoOn => {}
            Next::Enough => break,
        }
    }
    reader.screen.flush()?;
    source.close().await;
    Ok(())
}

/// What a listener for packets has to be, said once.
const PACKETS_NEED: &str = "over tcp:// and tls:// the listener needs first_packet = \"json\", format = \"json\" and the framing that \
                            --packets names";

/// Whether a login over packets ended as it does where the listener is another one, without saying so itself.
fn may_come_of_settings(transition: &Transition, has_token: bool) -> bool {
    let Transition::Disconnected { cause, was_connected: false, .. } = transition else { return false };
    // 3500 is what a listener says that takes it for a token; or of a token that is none.
    let is_no_token = !has_token && matches!(cause, Cause::Told { code: 3500, .. });
    is_no_token || matches!(cause, Cause::LoginTimeout | Cause::Ended | Cause::Reset | Cause::Protocol(_))
}

/// Whether there is more to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    GoOn,
    Enough,
}

/// What was seen so far.
struct Reader {
    screen: Screen,
    server: String,
    json: bool,
    events: bool,
    left: u64,
    received: u64,
    breaks: u64,
    connected_at: Option<Instant>,
    /// There was a connection, once.
    was_connected: bool,
    /// What is done or waited for meanwhile.
    state: String,
    /// Channels that nobody refused.
    channels_left: usize,
    has_token: bool,
    /// Of a listener for packets, should one not answer as it has to.
    is_to_say_what_packets_need: bool,
}

impl Reader {
    fn new(arguments: &Arguments, server: String) -> Reader {
        Reader {
            screen: Screen::new(),
            server,
            json: arguments.json,
            events: arguments.events,
            left: arguments.max.unwrap_or(u64::MAX),
            received: 0,
            breaks: 0,
            connected_at: None,
            was_connected: false,
            state: "connecting".to_owned(),
            channels_left: arguments.channels.len(),
            has_token: arguments.connecting.token.is_some(),
            is_to_say_what_packets_need: false,
        }
    }

    async fn handle(&mut self, item: Item, now: Instant) -> Result<Next, Failure> {
        match item {
            Item::Transition(transition) => {
                self.note(&transition, now);
                self.event(&outcome::as_json(&transition))?;
                outcome::tell(&mut self.screen, &self.server, &transition, &mut self.was_connected)?;
                if may_come_of_settings(&transition, self.has_token)
                    && std::mem::take(&mut self.is_to_say_what_packets_need)
                {
                    self.screen.remark(PACKETS_NEED);
                }
            }
            Item::Publication(publication) => {
                self.screen.line(&shown(&publication, self.json))?;
                return Ok(self.count());
            }
            Item::Message(message) => {
                let publication = Publication {
                    channel: message.destination().into_owned(),
                    offset: 0,
                    data: message.body().clone(),
                    tags: Vec::new(),
                };
                self.screen.line(&shown(&publication, self.json))?;
                self.screen.flush()?;
                // One of an earlier connection is delivered once more; anything else shows as a transition.
                let _ = message.ack().await;
                return Ok(self.count());
            }
            Item::Subscribed(channel) => self.event(&json!({"event": "subscribed", "channel": channel}))?,
            Item::Recovered => {
                self.event(&json!({"event": "recovered"}))?;
                self.screen.remark("nothing was missed");
            }
            Item::NotRecovered(channel) => {
                self.event(&json!({"event": "not_recovered", "channel": channel}))?;
                let place = channel.map(|channel| format!(" in {}", printable(&channel))).unwrap_or_default();
                self.screen.remark(&format!("something was missed and is lost{place}"));
            }
            Item::Remark(text) => self.screen.remark(&text),
            Item::Refused(failure) => {
                // The others go on; without any there is nothing to wait for.
                self.channels_left = self.channels_left.saturating_sub(1);
                if self.channels_left == 0 {
                    return Err(failure);
                }
                self.screen.remark(failure.text());
            }
            Item::Over => return Err(Failure::Failed(format!("{}: the client ended", self.server))),
        }
        Ok(Next::GoOn)
    }

    fn count(&mut self) -> Next {
        self.received += 1;
        self.left -= 1;
        if self.left == 0 { Next::Enough } else { Next::GoOn }
    }

    /// Prints what happened, where scripts want to know.
    fn event(&mut self, event: &Value) -> Result<(), Failure> {
        match self.events {
            true => self.screen.line(&printable(&event.to_string())),
            false => Ok(()),
        }
    }

    fn note(&mut self, transition: &Transition, now: Instant) {
        match transition {
            Transition::Connected { .. } => self.connected_at = Some(now),
            Transition::Disconnected { was_connected: true, .. } => {
                self.breaks += 1;
                self.connected_at = None;
            }
            _ => self.connected_at = None,
        }
        self.state = transition.to_string();
        self.status(now);
    }

    fn status(&mut self, now: Instant) {
        if self.screen.has_status() {
            let span = self.connected_at.map(|at| span(now - at)).unwrap_or_default();
            // The figures stand first: a narrow terminal shows no more than the beginning.
            let (state, received, breaks) = (&self.state, self.received, self.breaks);
            let plural = if breaks == 1 { "" } else { "s" };
            self.screen.status(&format!("{received} received, {breaks} break{plural} | {state}{span}"));
        }
    }
}

/// A span as a clock shows it.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    format!(" for {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A publication as a line.
fn shown(publication: &Publication, as_json: bool) -> String {
    if !as_json {
        let offset = match publication.offset {
            0 => "-".to_owned(),
            offset => offset.to_string(),
        };
        let data = String::from_utf8_lossy(&publication.data);
        return format!("{} {offset} {}", printable(&publication.channel), printable(&data));
    }
    #[derive(Serialize)]
    struct Line<'a> {
        channel: &'a str,
        data: Box<RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tags: Option<serde_json::Map<String, Value>>,
    }
    let text = String::from_utf8_lossy(&publication.data);
    let data =
        serde_json::from_str(&text).or_else(|_| serde_json::value::to_raw_value(&text)).unwrap_or_default();
    let tags =
        || publication.tags.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let line = Line {
        channel: &publication.channel,
        data,
        offset: Some(publication.offset).filter(|offset| *offset > 0),
        tags: (!publication.tags.is_empty()).then(tags),
    };
    printable(&serde_json::to_string(&line).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn publication(offset: u64, data: &'static str) -> Publication {
        Publication {
            channel: "news".to_owned(),
            offset,
            data: Bytes::from_static(data.as_bytes()),
            tags: Vec::new(),
        }
    }

    #[test]
    fn a_publication_is_one_line_without_control_characters() {
        for (offset, data, text, json) in [
            (7, "{\"a\": 1}", "news 7 {\"a\": 1}", r#"{"channel":"news","data":{"a": 1},"offset":7}"#),
            (0, "{\"a\":\n1}", "news - {\"a\": 1}", r#"{"channel":"news","data":{"a": 1}}"#),
            (0, "a\u{9b}b", "news - a\\u009bb", r#"{"channel":"news","data":"a\u009bb"}"#),
        ] {
            assert_eq!(shown(&publication(offset, data), false), text);
            assert_eq!(shown(&publication(offset, data), true), json);
        }
        let tagged = Publication { tags: vec![("lang".to_owned(), "de".to_owned())], ..publication(1, "1") };
        assert_eq!(shown(&tagged, true), r#"{"channel":"news","data":1,"offset":1,"tags":{"lang":"de"}}"#);
    }

    #[test]
    fn packets_are_of_a_form_that_a_listener_can_have() {
        for packets in [Packets::Line, Packets::Crlf, Packets::Length] {
            let framing = packets.framing();
            assert!(!framing.packet(b"{}").is_empty(), "{packets:?}");
            if let Framing::Length(field) = framing {
                assert_eq!(field.check(), Ok(()));
            }
        }
        assert_ne!(Packets::Line.framing(), Packets::Crlf.framing());
    }

    #[test]
    fn a_span_is_shown_as_a_clock_shows_it() {
        assert_eq!(span(Duration::from_secs(3_723)), " for 01:02:03");
    }
}
