//! The plain dialect over HTTP: from a request's head to a running WebSocket, event stream, stream of lines or poll.
//!
//! `GET /ws`, `/sse`, `/stream` and `/poll` read one query: `channels=a,b`, or `channel=` once for each name (a name
//! may hold a comma); `since=` says where the reader stopped, in whichever of the four, and so does the header
//! `Last-Event-ID`, which a browser's `EventSource` sends by itself; `token=` or an `Authorization: Bearer` header say
//! who it is, `client=` by which name it takes its session over after a break, `session=` which one that was. `format=`
//! (`/ws`, `/stream`) chooses between envelopes and bare data, `wait=` (`/poll`) how many seconds an answer may take.
//!
//! Where a parameter is wrong, the answer is an HTTP error that names it. Whether the channels may be read is decided
//! by the session. What must stay true: every value is bounded before anything is opened with it, and whoever is
//! served can return with the position of all channels that it asked for.

use super::front_door::{Refused, captured_headers, foreign_origin};
use super::listening::Listening;
use super::response;
use crate::config::Config;
use crate::node::Node;
use crate::shard::{Link, Shard};
use bytes::Bytes;
use longwire_protocol::command::{Connect, Subscribe};
use longwire_protocol::http::{Body, RequestHead};
use longwire_protocol::plain::position_token::{self, PositionToken};
use longwire_protocol::plain::{self, Asked, Carrier, Format};
use longwire_protocol::websocket::handshake;
use longwire_protocol::{Connection, Position, name};
use std::rc::Rc;
use std::time::Duration;

/// Where WebSockets are served.
pub const WEBSOCKET: &str = "/ws";
/// Where event streams are served.
pub const EVENT_STREAM: &str = "/sse";
/// Where streams of lines are served.
pub const LINES: &str = "/stream";
/// Where polls are answered.
pub const POLL: &str = "/poll";

/// What a query says of the reader.
#[derive(Debug, Default)]
struct Query {
    channels: Vec<String>,
    since: Option<String>,
    token: Option<String>,
    client: Option<String>,
    session: Option<String>,
    format: Option<String>,
    wait: Option<String>,
    /// The parameters of the page's own, as they came.
    others: String,
}

impl Query {
    fn read(head: &RequestHead<'_>) -> Result<Query, Refused> {
        let mut query = Query::default();
        for pair in head.query.split('&').filter(|pair| !pair.is_empty()) {
            for (key, value) in longwire_protocol::http::query_pairs(pair) {
                let place = match &*key {
                    "channels" => {
                        let names = value.split(',').filter(|name| !name.is_empty());
                        query.channels.extend(names.map(str::to_owned));
                        continue;
                    }
                    "channel" => {
                        query.channels.push(value.into_owned());
                        continue;
                    }
                    "since" => &mut query.since,
                    "token" => &mut query.token,
                    "client" => &mut query.client,
                    "session" => &mut query.session,
                    "format" if matches!(head.path, WEBSOCKET | LINES) => &mut query.format,
                    "wait" if head.path == POLL => &mut query.wait,
                    _ => {
                        if !query.others.is_empty() {
                            query.others.push('&');
                        }
                        query.others.push_str(pair);
                        continue;
                    }
                };
                // Two readers could mean different ones.
                if place.replace(value.into_owned()).is_some() {
                    return Err(Refused::new(400, format!("the parameter \"{key}\" stands there twice")));
                }
            }
        }
        Ok(query)
    }

    /// The token, from the query or else from the header.
    fn token(&self, head: &RequestHead<'_>) -> String {
        if let Some(token) = self.token.as_ref().filter(|token| !token.is_empty()) {
            return token.clone();
        }
        let authorization = head.headers.first_str("authorization").unwrap_or_default();
        match authorization.split_once(' ') {
            Some((scheme, bearer)) if scheme.eq_ignore_ascii_case("bearer") => bearer.trim().to_owned(),
            _ => String::new(),
        }
    }

    /// Where the reader stopped, if it returns.
    fn since(&self, head: &RequestHead<'_>) -> Result<Option<PositionToken>, Refused> {
        // The header is newer than the address, which a browser repeats unchanged at every return.
        if let Some(id) = head.headers.first("last-event-id").filter(|id| !id.is_empty()) {
            // A browser sends what it last read, from whichever server: what is not ours recovers nothing.
            return Ok(Some(PositionToken::parse(id).unwrap_or_default()));
        }
        let Some(since) = self.since.as_deref().filter(|since| !since.is_empty()) else { return Ok(None) };
        let parsed = PositionToken::parse(since.as_bytes());
        parsed.map(Some).map_err(|error| {
            Refused::new(400, format!("the parameter \"since\" is no position token: {error}"))
        })
    }

    fn client_name(&self) -> Result<String, Refused> {
        let name = self.client.as_deref().unwrap_or_default();
        if !name.is_empty() {
            plain::check_client_name(name)
                .map_err(|error| Refused::new(400, format!("the parameter \"client\" {error}")))?;
        }
        Ok(name.to_owned())
    }

    fn format(&self, default: Format) -> Result<Format, Refused> {
        match self.format.as_deref() {
            None => Ok(default),
            Some("json") => Ok(Format::Json),
            Some("bare") => Ok(Format::Bare),
            Some(_) => Err(Refused::new(400, "the parameter \"format\" is neither json nor bare")),
        }
    }

    /// How long an answer may take: as long as is asked for, or as is allowed if that is less.
    fn wait(&self, config: &Config) -> Result<Duration, Refused> {
        let Some(wait) = self.wait.as_deref().filter(|wait| !wait.is_empty()) else {
            return Ok(config.plain.poll_wait.min(config.plain.max_poll_wait));
        };
        let is_number = wait.len() <= 9 && wait.bytes().all(|byte| byte.is_ascii_digit());
        match wait.parse::<u32>() {
            Ok(seconds) if is_number => {
                Ok(Duration::from_secs(seconds.into()).min(config.plain.max_poll_wait))
            }
            _ => Err(Refused::new(400, "the parameter \"wait\" is no number of whole seconds")),
        }
    }

    fn check_channels(&self, head_bytes: usize, config: &Config) -> Result<(), Refused> {
        let channels = &self.channels;
        let limit = config.client.max_subscriptions.min(position_token::MAX_CHANNELS);
        if channels.len() > limit {
            let what = format!("{} channels, at most {limit} are allowed", channels.len());
            return Err(Refused::new(400, what));
        }
        for (index, channel) in channels.iter().enumerate() {
            if !name::is_valid(channel, config.client.max_channel_bytes) {
                return Err(Refused::new(400, format!("the name of channel {} is not allowed", index + 1)));
            }
            if channels[..index].contains(channel) {
                return Err(Refused::new(400, format!("channel {} is named twice", index + 1)));
            }
        }
        // A client comes back with the same address and the position of all channels in it or in a header: one that
        // could not return is refused at once.
        let entries = channels.iter().map(|channel| position_token::longest_entry_bytes(channel));
        let returning = head_bytes + "Last-Event-ID: \r\n".len() + entries.sum::<usize>();
        if returning > config.http.max_head_bytes {
            let what = "the names of the channels are too long together: a returning client could not name its \
                        position";
            return Err(Refused::new(400, what));
        }
        Ok(())
    }
}

/// A request that is well formed.
pub struct Opening {
    connect: Connect,
    subscribes: Vec<Subscribe>,
    format: Format,
    carrier: Carrier,
    /// What is written before the connection speaks: the answer to a handshake.
    first_bytes: Bytes,
    /// Headers that a backend is to get.
    headers: Option<Box<[(String, String)]>>,
    /// Where in the bytes that were read the head ends.
    consumed: usize,
}

impl Opening {
    /// Judges a request for one of the four.
    pub(super) fn judge(
        head: &RequestHead<'_>,
        consumed: usize,
        node: &Node,
        listening: &Listening,
    ) -> Result<Opening, Refused> {
        let config = &node.config;
        let mut first_bytes = Bytes::new();
        let mut handshake = None;
        if head.path == WEBSOCKET {
            let accept = accept(head, node)?;
            first_bytes = accept.response.into();
            handshake = Some(accept.deflate);
        } else if head.body != Body::Empty {
            return Err(Refused::new(400, "a request for a stream has no body"));
        }
        let query = Query::read(head)?;
        let token = query.token(head);
        let seen = query.since(head)?;
        let client_name = query.client_name()?;
        query.check_channels(consumed, config)?;
        let carrier = match head.path {
            WEBSOCKET => Carrier::WebSocket {
                is_deflated: handshake == Some(true),
                max_message_bytes: u32::try_from(config.websocket.max_message_bytes).unwrap_or(u32::MAX),
            },
            // The body ends with the connection: an event costs no chunk header.
            EVENT_STREAM => Carrier::EventStream {
                head: response::head(head, "text/event-stream; charset=utf-8", response::Body::UntilEnd),
                retry_milliseconds: config.event_stream.retry.as_millis() as u64,
            },
            // An HTTP/1.0 client knows no chunks.
            LINES if !head.is_http_11 => Carrier::Lines {
                head: response::head(head, "application/x-ndjson", response::Body::UntilEnd),
                is_chunked: false,
            },
            LINES => Carrier::Lines {
                head: response::head(head, "application/x-ndjson", response::Body::Chunked),
                is_chunked: true,
            },
            _ => Carrier::Poll {
                keep_alive: head.is_http_11 && !head.headers.has_token("connection", "close"),
                is_first: seen.is_none(),
                wait: query.wait(config)?,
                head: response::for_pages(head),
            },
        };
        let format = match head.path {
            WEBSOCKET | LINES => query.format(listening.format)?,
            _ => Format::Json,
        };
        let Asked { subscribes, returning } = plain::asked(query.channels, seen.as_ref());
        let name = head.path.trim_start_matches('/').to_owned();
        Ok(Opening {
            connect: Connect {
                token,
                name,
                subs: returning,
                has_since: seen.is_some(),
                answer: seen.as_ref().and_then(PositionToken::answer),
                client_name,
                // What is no session's name is of no consequence.
                session: query.session.unwrap_or_default(),
                query: query.others,
                ..Connect::default()
            },
            subscribes,
            format,
            carrier,
            first_bytes,
            headers: captured_headers(head, config),
            consumed,
        })
    }

    /// What the client calls itself; empty if it does not.
    pub(super) fn client_name(&self) -> &str {
        &self.connect.client_name
    }

    /// Notes which answer to a poll the connection carried last.
    pub(super) fn note_carried(&mut self, answered: Option<Position>) {
        self.connect.carried = answered;
    }

    /// Lets the connection run; `bytes` are those that were read.
    pub(super) fn open(mut self, shard: &Rc<Shard>, link: Link, listening: &Listening, bytes: &[u8]) {
        let (client, spread) = shard.draw();
        let is_poll = matches!(self.carrier, Carrier::Poll { .. });
        if is_poll && self.connect.client_name.is_empty() && !shard.node.config.plain.grace.is_zero() {
            // Between two polls there is no link: only by a name is the next one the same client's. Nobody else can
            // guess it, and it is not the id that others see.
            self.connect.client_name = shard.draw().0.to_string();
        }
        let opening = plain::Opening {
            connect: self.connect,
            subscribes: self.subscribes,
            carrier: self.carrier,
            format: self.format,
            beats: listening.beats.clone(),
        };
        let intervals = match &opening.carrier {
            Carrier::WebSocket { .. } => &listening.intervals,
            _ => &shard.node.config.heartbeat,
        };
        let connection = Connection::plain(opening, shard.node.env.clock.now(), intervals, spread);
        shard.open(connection, client, link, self.headers, self.first_bytes, &bytes[self.consumed..]);
    }
}

/// Judges a WebSocket's handshake.
fn accept<'a>(head: &RequestHead<'_>, node: &'a Node) -> Result<handshake::Accept<'a>, Refused> {
    let options = handshake::Options {
        allowed_origins: &node.allowed_origins,
        subprotocols: &[],
        allow_deflate: node.config.websocket.compression,
    };
    handshake::accept(head, &options).map_err(|refusal| match refusal.status {
        403 => foreign_origin(head),
        _ => Refused { response: refusal.response(), what: refusal.text.into() },
    })
}
