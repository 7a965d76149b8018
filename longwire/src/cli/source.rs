//! What is published in channels, over whatever is spoken at a URL.
//!
//! One face for the three clients of the library: the realtime client (WebSocket), STOMP, and feeds of the plain dialect (SSE, HTTP
//! stream, long-poll, packets). `sub` prints what it brings, `bench` counts it. All of them come back by themselves; it only
//! passes on what they say. What must stay true: items of one channel come in their order; a connection's transition comes before
//! what is read over that connection; nothing that the library says is missing is kept back.

use super::address::{Server, Spoken, destination};
use super::connecting::Connecting;
use super::{Failure, outcome, printable};
use bytes::Bytes;
use futures_core::Stream;
use longwire_client::stomp::AckMode;
use longwire_client::{Error, Options, Scheme, Transition, plain, realtime, stomp};
use longwire_protocol::plain::position_token::PositionToken;
use longwire_protocol::plain::{FirstPacket, Framing};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What a source brings.
#[derive(Debug)]
pub(super) enum Item {
    /// The connection took a step.
    Transition(Transition),
    /// A channel is listened to; over the plain dialect all of them are, and none is named.
    Subscribed(Option<String>),
    /// Something was published.
    Publication(Publication),
    /// A message of a queue, over STOMP: to be acknowledged.
    Message(Box<stomp::Message>),
    /// Nothing is missing.
    Recovered,
    /// Something may be missing.
    NotRecovered(Option<String>),
    /// Something else that a person might want to know.
    Remark(String),
    /// A channel cannot be listened to.
    Refused(Failure),
    /// Nothing follows.
    Over,
}

/// A publication.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Publication {
    /// Where.
    pub(super) channel: String,
    /// Its number; 0 in a channel without history.
    pub(super) offset: u64,
    /// What.
    pub(super) data: Bytes,
    /// Tags, as the publisher set them.
    pub(super) tags: Vec<(String, String)>,
}

/// What is to be listened to, and how.
pub(super) struct Wanted<'a> {
    /// Where; tried in turn.
    pub(super) servers: &'a [Server],
    /// The channels.
    pub(super) channels: &'a [String],
    /// Who asks.
    pub(super) connecting: &'a Connecting,
    /// How.
    pub(super) options: Options,
    /// Where to go on.
    pub(super) since: Option<&'a str>,
    /// How packets are told apart.
    pub(super) framing: Framing,
}

/// A client of any kind that listens.
pub(super) struct Source {
    shown: String,
    client: Client,
    /// What happened before anybody could listen.
    first: Option<Transition>,
}

enum Client {
    Realtime {
        client: realtime::Client,
        events: realtime::Events,
        subscriptions: Vec<(String, Option<realtime::Subscription>)>,
        /// Whose turn it is to be asked first.
        turn: usize,
    },
    Stomp {
        client: stomp::Client,
        events: stomp::Events,
        subscriptions: Vec<(String, Option<stomp::Subscription>)>,
        turn: usize,
    },
    Plain(Box<plain::Feed>),
}

impl Source {
    /// Begins to connect and to listen.
    pub(super) fn open(wanted: &Wanted<'_>) -> Result<Source, Failure> {
        let shown = wanted.servers[0].shown();
        let failed = |error: Error| outcome::failed_call(&shown, &error);
        let mut first = None;
        // These begin to connect before they can be listened to; a feed keeps what happens until it is read.
        if matches!(wanted.servers[0].spoken, Spoken::Centrifuge | Spoken::Stomp) {
            let transport = match wanted.servers[0].address.scheme {
                Scheme::Stomp => "tcp",
                _ => "websocket",
            };
            first = Some(Transition::Connecting { server: shown.clone(), transport, failures: 0 });
        }
        let client = match wanted.servers[0].spoken {
            Spoken::Centrifuge => Client::realtime(wanted).map_err(failed)?,
            Spoken::Stomp => Client::stomp(wanted).map_err(failed)?,
            Spoken::Plain | Spoken::Packets => Client::plain(wanted).map_err(failed)?,
        };
        Ok(Source { shown, client, first })
    }

    /// The server that is named first.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// What comes next.
    pub(super) async fn next(&mut self) -> Item {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// What is there already, if anything is.
    pub(super) async fn next_if_ready(&mut self) -> Option<Item> {
        poll_fn(|cx| match self.poll_next(cx) {
            Poll::Ready(item) => Poll::Ready(Some(item)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Item::Transition(first));
        }
        match &mut self.client {
            Client::Realtime { events, subscriptions, turn, .. } => {
                if let Poll::Ready(event) = Pin::new(events).poll_next(cx) {
                    return Poll::Ready(event.map_or(Item::Over, of_client_event));
                }
                poll_in_turn(subscriptions, turn, |channel, subscription| {
                    match Pin::new(subscription).poll_next(cx) {
                        Poll::Ready(Some(event)) => Turn::Item(of_event(channel, event)),
                        Poll::Ready(None) => Turn::Over,
                        Poll::Pending => Turn::Nothing,
                    }
                })
            }
            Client::Stomp { events, subscriptions, turn, .. } => {
                if let Poll::Ready(event) = Pin::new(events).poll_next(cx) {
                    return Poll::Ready(event.map_or(Item::Over, Item::Transition));
                }
                poll_in_turn(subscriptions, turn, |channel, subscription| {
                    match Pin::new(subscription).poll_next(cx) {
                        Poll::Ready(Some(event)) => Turn::Item(of_stomp_event(channel, event)),
                        Poll::Ready(None) => Turn::Over,
                        Poll::Pending => Turn::Nothing,
                    }
                })
            }
            Client::Plain(feed) => {
                Pin::new(&mut **feed).poll_next(cx).map(|event| event.map_or(Item::Over, of_feed_event))
            }
        }
    }

    /// Waits until there is a connection, where that can be told without a subscription.
    pub(super) async fn connected(&self) -> Result<(), Error> {
        match &self.client {
            Client::Realtime { client, .. } => client.connected().await,
            Client::Stomp { client, .. } => client.connected().await,
            // Its welcome is an item.
            Client::Plain(_) => Err(Error::NotAvailable { transport: "a feed" }),
        }
    }

    /// What publishes by the same connection; nothing, where that only listens.
    pub(super) fn publisher(&self) -> Option<Publisher> {
        match &self.client {
            Client::Realtime { client, .. } => Some(Publisher::Realtime(client.clone())),
            Client::Stomp { client, .. } => Some(Publisher::Stomp(client.clone())),
            Client::Plain(_) => None,
        }
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        match self.client {
            Client::Realtime { client, subscriptions, .. } => {
                drop(subscriptions);
                client.close().await;
            }
            Client::Stomp { client, subscriptions, .. } => {
                drop(subscriptions);
                client.close().await;
            }
            Client::Plain(feed) => feed.close(),
        }
    }
}

/// Publishes by the connection of a source.
#[derive(Clone)]
pub(super) enum Publisher {
    Realtime(realtime::Client),
    Stomp(stomp::Client),
}

impl Publisher {
    /// Publishes JSON, and waits until it is confirmed.
    pub(super) async fn publish(&self, channel: &str, data: Bytes) -> Result<(), Error> {
        match self {
            Publisher::Realtime(client) => client.publish(channel, data).await.map(drop),
            Publisher::Stomp(client) => {
                client.send(&destination(channel), data).content_type("application/json").await.map(drop)
            }
        }
    }
}

/// What one of several subscriptions says when it is asked.
enum Turn {
    Item(Item),
    Nothing,
    Over,
}

/// Asks each in turn, so that a busy one does not silence the others.
fn poll_in_turn<S>(
    subscriptions: &mut [(String, Option<S>)],
    turn: &mut usize,
    mut ask: impl FnMut(&str, &mut S) -> Turn,
) -> Poll<Item> {
    let count = subscriptions.len();
    for _ in 0..count {
        *turn = (*turn + 1) % count;
        let (channel, subscription) = &mut subscriptions[*turn];
        let Some(open) = subscription else { continue };
        match ask(channel, open) {
            Turn::Item(item) => return Poll::Ready(item),
            Turn::Nothing => {}
            Turn::Over => *subscription = None,
        }
    }
    Poll::Pending
}

impl Client {
    fn realtime(wanted: &Wanted<'_>) -> Result<Client, Error> {
        let mut builder = realtime::Client::builder(&wanted.servers[0].url).options(wanted.options.clone());
        for server in &wanted.servers[1..] {
            builder = builder.server(&server.url);
        }
        if let Some(token) = &wanted.connecting.token {
            builder = builder.token(token);
        }
        let positions = positions(wanted.since)?;
        let client = builder.build()?;
        let events = client.events();
        let mut subscriptions = Vec::new();
        for channel in wanted.channels {
            let mut subscription = client.subscription(channel);
            if let Some(position) = positions.get(channel) {
                let epoch = position.epoch.as_str().into();
                subscription = subscription.since(realtime::Position { offset: position.offset, epoch });
            }
            subscriptions.push((channel.clone(), Some(subscription.start()?)));
        }
        Ok(Client::Realtime { client, events, subscriptions, turn: 0 })
    }

    fn stomp(wanted: &Wanted<'_>) -> Result<Client, Error> {
        let mut builder = stomp::Client::builder(&wanted.servers[0].url).options(wanted.options.clone());
        for server in &wanted.servers[1..] {
            builder = builder.server(&server.url);
        }
        if let Some((login, passcode)) = wanted.connecting.credentials(&wanted.servers[0].address) {
            builder = builder.login(&login, &passcode);
        }
        for (name, value) in &wanted.connecting.headers {
            builder = builder.header(name, value);
        }
        let positions = positions(wanted.since)?;
        let client = builder.build()?;
        let events = client.events();
        let mut subscriptions = Vec::new();
        for channel in wanted.channels {
            let mut subscription = client.subscribe(&destination(channel));
            if is_queue(channel) {
                subscription = subscription.ack(AckMode::ClientIndividual);
            }
            if let Some(position) = positions.get(channel) {
                subscription = subscription.since(position);
            }
            subscriptions.push((channel.clone(), Some(subscription.start()?)));
        }
        Ok(Client::Stomp { client, events, subscriptions, turn: 0 })
    }

    fn plain(wanted: &Wanted<'_>) -> Result<Client, Error> {
        let mut builder = plain::Feed::builder(&wanted.servers[0].url)
            .channels(wanted.channels.iter().cloned())
            .options(wanted.options.clone())
            .framing(wanted.framing);
        for server in &wanted.servers[1..] {
            builder = builder.server(&server.url);
        }
        if let Some(token) = &wanted.connecting.token {
            builder = builder.token(token.as_str());
        }
        if let Some(since) = wanted.since {
            builder = builder.since(since);
        }
        if wanted.servers[0].spoken == Spoken::Packets && !wanted.channels.is_empty() {
            builder = builder.first_packet(FirstPacket::Json);
        }
        Ok(Client::Plain(Box::new(builder.build()?)))
    }
}

/// Whether a destination is a queue, where each message is for one consumer.
pub(super) fn is_queue(channel: &str) -> bool {
    ["/queue/", "/amq/queue/", "/temp-queue/"].iter().any(|queue| channel.starts_with(queue))
}

fn positions(since: Option<&str>) -> Result<PositionToken, Error> {
    PositionToken::parse(since.unwrap_or_default().as_bytes())
        .map_err(|error| Error::BadArgument { what: format!("`--since`: {error}") })
}

fn of_client_event(event: realtime::ClientEvent) -> Item {
    match event {
        realtime::ClientEvent::Transition(transition) => Item::Transition(transition),
        realtime::ClientEvent::ServerSide { channel, event } => of_event(&channel, event),
        realtime::ClientEvent::Message(data) => {
            Item::Remark(format!("message: {}", printable(&String::from_utf8_lossy(&data))))
        }
        realtime::ClientEvent::Missed { events } => Item::Remark(format!("{events} events were left out")),
        // The type may grow.
        _ => Item::Remark("something happened that this version does not know".to_owned()),
    }
}

fn of_event(channel: &str, event: realtime::Event) -> Item {
    use realtime::Event;
    match event {
        Event::Subscribed(_) => Item::Subscribed(Some(channel.to_owned())),
        Event::Publication(publication) => Item::Publication(Publication {
            channel: channel.to_owned(),
            offset: publication.offset,
            data: publication.data,
            tags: publication
                .tags
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        }),
        Event::Recovered { .. } => Item::Recovered,
        Event::NotRecovered { .. } => Item::NotRecovered(Some(channel.to_owned())),
        Event::Unsubscribed { code, reason, is_final } => {
            let text = format!("{}: {} ({code})", printable(channel), printable(&reason));
            if is_final { Item::Refused(Failure::Refused(text)) } else { Item::Remark(text) }
        }
        Event::Join(info) => {
            Item::Remark(format!("{}: {} joined", printable(channel), who(&info.user, &info.client)))
        }
        Event::Leave(info) => {
            Item::Remark(format!("{}: {} left", printable(channel), who(&info.user, &info.client)))
        }
        _ => Item::Remark(format!("{}: something that this version does not know", printable(channel))),
    }
}

fn of_stomp_event(channel: &str, event: stomp::Event) -> Item {
    use stomp::Event;
    match event {
        Event::Subscribed { .. } => Item::Subscribed(Some(channel.to_owned())),
        Event::Message(message) if is_queue(channel) => Item::Message(Box::new(message)),
        Event::Message(message) => Item::Publication(Publication {
            channel: channel.to_owned(),
            offset: message.position().map_or(0, |position| position.offset),
            data: message.body().clone(),
            tags: Vec::new(),
        }),
        Event::Recovered => Item::Recovered,
        Event::NotRecovered { .. } => Item::NotRecovered(Some(channel.to_owned())),
        Event::Ended(error) => Item::Refused(outcome::failed_call(channel, &error)),
        _ => Item::Remark(format!("{}: something that this version does not know", printable(channel))),
    }
}

fn of_feed_event(event: plain::Event) -> Item {
    use plain::Event;
    match event {
        Event::Transition(transition) => Item::Transition(transition),
        Event::Opened { .. } => Item::Subscribed(None),
        Event::Publication(publication) => Item::Publication(Publication {
            channel: publication.channel,
            offset: publication.offset,
            data: publication.data.bytes().clone(),
            tags: publication.tags.into_iter().collect(),
        }),
        Event::Message(content) => {
            Item::Remark(format!("message: {}", printable(&String::from_utf8_lossy(content.bytes()))))
        }
        Event::Recovered { .. } => Item::Recovered,
        Event::NotRecovered { channel } => Item::NotRecovered(channel),
        Event::Subscribed { channel } => Item::Subscribed(Some(channel)),
        Event::Unsubscribed { channel, code, reason } => Item::Refused(Failure::Refused(format!(
            "{}: {} ({code})",
            printable(&channel),
            printable(&reason)
        ))),
        Event::Refused { code, reason } => Item::Remark(format!("refused: {} ({code})", printable(&reason))),
        Event::Missed { events } => Item::Remark(format!("{events} events were left out")),
        Event::Join { channel, info } => about(&channel, &info, "joined"),
        Event::Leave { channel, info } => about(&channel, &info, "left"),
        _ => Item::Remark("something happened that this version does not know".to_owned()),
    }
}

fn about(channel: &str, info: &[u8], what: &str) -> Item {
    let info: serde_json::Value = serde_json::from_slice(info).unwrap_or_default();
    let of = |member: &str| info[member].as_str().unwrap_or_default();
    Item::Remark(format!("{}: {} {what}", printable(channel), who(of("user"), of("client"))))
}

/// Whom presence speaks of: the user, or the connection of nobody in particular.
fn who(user: &str, client: &str) -> String {
    match (user, client) {
        ("", "") => "somebody".to_owned(),
        ("", client) => printable(client),
        (user, _) => printable(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_is_named_by_user_or_connection() {
        for (info, expected) in [
            (r#"{"user":"ada","client":"c1"}"#, "news: ada joined"),
            (r#"{"user":"","client":"c1"}"#, "news: c1 joined"),
            ("[]", "news: somebody joined"),
        ] {
            let Item::Remark(text) = about("news", info.as_bytes(), "joined") else { panic!("{info}") };
            assert_eq!(text, expected);
        }
    }
}
