//! The plain dialect over SSE: from a request's head to a running stream.
//!
//! `GET /sse?channels=a,b` asks for channels; `channel=` names one exactly and may be repeated (a name may
//! hold a comma). `Last-Event-ID`, which a browser sends by itself, or `since=` say where the reader stopped;
//! `token=` or an `Authorization: Bearer` header say who it is. Where the parameters are wrong, the answer is
//! an HTTP error that names the parameter. Whether the channels may be read is decided by the session.

use super::front_door::{Refused, captured_headers};
use super::response;
use crate::config::Config;
use crate::env::net::Stream;
use crate::node::limits::Place;
use crate::shard::Shard;
use longwire_protocol::Connection;
use longwire_protocol::command::{Connect, Subscribe};
use longwire_protocol::http::{Body, RequestHead};
use longwire_protocol::plain::position_token::{self, PositionToken};
use longwire_protocol::{Epoch, Since, name};
use std::net::SocketAddr;
use std::rc::Rc;

/// Where it is served.
pub const PATH: &str = "/sse";

/// A request that is well formed.
pub struct Opening {
    connect: Connect,
    subscribes: Vec<Subscribe>,
    head: String,
    /// Headers that a backend is to get.
    headers: Option<Box<[(String, String)]>>,
}

impl Opening {
    /// Judges a request for this transport.
    pub(super) fn judge(
        head: &RequestHead<'_>,
        consumed: usize,
        config: &Config,
    ) -> Result<Opening, Refused> {
        if head.body != Body::Empty {
            return Err(Refused::new(400, "a request for a stream has no body"));
        }
        let (mut channels, mut since, mut token) = (Vec::new(), None, String::new());
        for (key, value) in head.query_pairs() {
            match &*key {
                "channels" => channels.extend(value.split(',').filter(|c| !c.is_empty()).map(str::to_owned)),
                "channel" => channels.push(value.into_owned()),
                "since" => since = Some(value.into_owned()),
                "token" => token = value.into_owned(),
                // Parameters of the page's own, such as one against caches.
                _ => {}
            }
        }
        if token.is_empty()
            && let Some(authorization) = head.headers.first_str("authorization")
            && let Some((scheme, bearer)) = authorization.split_once(' ')
            && scheme.eq_ignore_ascii_case("bearer")
        {
            token = bearer.trim().to_owned();
        }
        check_channels(&channels, &token, consumed, config)?;
        // The header is newer than the address, which a browser repeats unchanged at every return.
        let seen = match head.headers.first("last-event-id") {
            // A browser sends what it last read, from whichever server: what is not ours recovers nothing.
            Some(id) if !id.is_empty() => Some(PositionToken::parse(id).unwrap_or_default()),
            _ => match since {
                Some(since) => Some(PositionToken::parse(since.as_bytes()).map_err(|error| {
                    Refused::new(400, format!("the parameter \"since\" is no position token: {error}"))
                })?),
                None => None,
            },
        };
        let subscribe = |channel: String| Subscribe {
            recover: seen.as_ref().map(|seen| match seen.get(&channel) {
                Some(position) => position.into(),
                // The reader returns, but does not know where it stood here.
                None => Since { offset: 0, epoch: Some(Epoch::FOREIGN) },
            }),
            recoverable: true,
            positioned: true,
            join_leave: true,
            channel,
            ..Subscribe::default()
        };
        // The token may bring channels too; where the reader stood in them stands in the same position token.
        let named = seen.iter().flat_map(PositionToken::iter).map(|(channel, _)| channel);
        let mut returning: Vec<Subscribe> = named.map(|channel| subscribe(channel.to_owned())).collect();
        let asked = channels.iter().filter(|channel| !returning.iter().any(|sub| sub.channel == **channel));
        let asked: Vec<Subscribe> = asked.map(|channel| subscribe(channel.clone())).collect();
        returning.extend(asked);
        Ok(Opening {
            subscribes: channels.into_iter().map(subscribe).collect(),
            connect: Connect { token, name: "sse".into(), subs: returning, ..Connect::default() },
            // The body ends with the connection: an event costs no chunk header.
            head: response::head(head, "text/event-stream; charset=utf-8", response::Body::UntilEnd),
            headers: captured_headers(head, config),
        })
    }

    /// Lets the stream run.
    pub(super) fn open(self, shard: &Rc<Shard>, stream: Stream, peer: SocketAddr, place: Place) {
        let config = &shard.node.config;
        let (client, spread) = shard.draw();
        let connection = Connection::event_stream(
            self.connect,
            self.subscribes,
            self.head,
            config.event_stream.retry.as_millis() as u64,
            shard.node.env.clock.now(),
            &config.heartbeat,
            spread,
        );
        let link = crate::shard::Link { stream, peer, place };
        shard.open(connection, client, link, self.headers, bytes::Bytes::new(), &[]);
    }
}

fn check_channels(
    channels: &[String],
    token: &str,
    head_bytes: usize,
    config: &Config,
) -> Result<(), Refused> {
    if channels.is_empty() && token.is_empty() {
        return Err(Refused::new(400, "name the channels: /sse?channels=a,b"));
    }
    let limit = config.client.max_subscriptions.min(position_token::MAX_CHANNELS);
    if channels.len() > limit {
        return Err(Refused::new(400, format!("{} channels, at most {limit} are allowed", channels.len())));
    }
    for (index, channel) in channels.iter().enumerate() {
        if !name::is_valid(channel, config.client.max_channel_bytes) {
            return Err(Refused::new(400, format!("the name of channel {} is not allowed", index + 1)));
        }
        if channels[..index].contains(channel) {
            return Err(Refused::new(400, format!("channel {} is named twice", index + 1)));
        }
    }
    // A browser comes back with the same address and the position of all channels in a header: a stream that
    // could not be returned to is refused at once.
    let entries = channels.iter().map(|channel| position_token::longest_entry_bytes(channel));
    let returning = head_bytes + "Last-Event-ID: \r\n".len() + entries.sum::<usize>();
    if returning > config.http.max_head_bytes {
        let what =
            "the names of the channels are too long together: a returning client could not name its position";
        return Err(Refused::new(400, what));
    }
    Ok(())
}
