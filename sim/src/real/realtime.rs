//! An application around a realtime client: it subscribes, publishes and asks, and tells what it is told.
//!
//! The client's events become those that every client of the simulator tells. What must stay true: it makes up nothing. A
//! subscription is said to have recovered if the client says so, and from where the client last was.

use super::{Program, Told};
use crate::client::{Action, Event, Heard, Kind, Reply, Wanted};
use crate::workload::UserPlan;
use crate::world::World;
use longwire::env::Rng;
use longwire_client::machine::Machine;
use longwire_client::realtime::state::{Answer, Ticket};
use longwire_client::realtime::{
    self as client, ClientEvent, HistoryQuery, Position, Reader, Settings, State, SubscriptionSettings,
};
use longwire_client::{Address, Error, Options, Transition, Transport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

pub(super) struct Realtime {
    state: State,
    wanted: Vec<Wanted>,
    happens: Reader<ClientEvent>,
    subscriptions: BTreeMap<Arc<str>, Subscribed>,
    /// Up to where it was told everything, of each channel.
    seen: BTreeMap<String, (u64, String)>,
    calls: Vec<(Action, Ticket)>,
    told: Vec<Told>,
}

struct Subscribed {
    key: u32,
    events: Reader<client::Event>,
}

impl Realtime {
    pub(super) fn new(number: usize, plan: &UserPlan, mut rng: Rng, world: &World) -> Realtime {
        let (scheme, transport) = match plan.kind {
            Kind::RealtimeStream => ("stream+http", Transport::Stream),
            Kind::RealtimeEventStream => ("sse+http", Transport::EventStream),
            _ => ("ws", Transport::WebSocket),
        };
        let mut servers: Vec<_> =
            world.plan.machines.iter().map(|machine| format!("{scheme}://{machine}")).collect();
        // Not all begin at the same server.
        let first = number % servers.len();
        servers.rotate_left(first);
        let servers =
            servers.iter().map(|url| Arc::new(Address::parse(url).expect("a URL of the simulator's own")));
        let settings = Settings {
            servers: servers.collect(),
            transports: vec![transport],
            token: String::new(),
            token_source: None,
            data: bytes::Bytes::new(),
            name: "sim".into(),
            version: String::new(),
            headers: Vec::new(),
            options: Options {
                seed: Some(rng.bits()),
                offer_deflate: plan.offer_deflate,
                ..Options::default()
            },
        };
        let mut state = State::new(settings).expect("settings of the simulator's own");
        Realtime {
            happens: state.listen(),
            state,
            wanted: plan.wanted.clone(),
            subscriptions: BTreeMap::new(),
            seen: BTreeMap::new(),
            calls: Vec::new(),
            told: Vec::new(),
        }
    }

    fn subscribe(&mut self, now: Instant, wanted: &Wanted) -> bool {
        let channel: Arc<str> = wanted.channel.as_str().into();
        let filter = wanted
            .filter
            .as_ref()
            .map(|choice| serde_json::from_str(&choice.to_json()).expect("a filter of the simulator's own"));
        let settings = SubscriptionSettings {
            join_leave: wanted.join_leave,
            delta: wanted.delta,
            tags_filter: filter.map(Box::new),
            ..SubscriptionSettings::default()
        };
        match self.state.subscribe(now, &channel, settings) {
            Ok((key, events)) => {
                self.seen.remove(&wanted.channel);
                self.subscriptions.insert(channel, Subscribed { key, events });
                true
            }
            Err(_) => false,
        }
    }

    /// Takes what was told of one channel.
    fn tell(&mut self, channel: &str, events: Vec<client::Event>, is_own: bool) {
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            match event {
                client::Event::Subscribed(subscribed) => {
                    // How it stands is told right behind.
                    let before = self.seen.get(channel).cloned();
                    let mut said =
                        Said { channel, position: subscribed.position, since: None, recovered: None };
                    let mut publications = Vec::new();
                    match events.peek() {
                        Some(client::Event::Recovered { publications: count }) => {
                            let count = *count;
                            events.next();
                            (said.since, said.recovered) = (before, Some(true));
                            for _ in 0..count {
                                let Some(client::Event::Publication(publication)) = events.next() else {
                                    panic!("{channel}: {count} recovered publications were announced");
                                };
                                publications.push(self.hear(channel, &publication));
                            }
                        }
                        Some(client::Event::NotRecovered { from, .. }) => {
                            said.since = from.as_ref().map(place);
                            said.recovered = Some(false);
                            events.next();
                        }
                        _ => {}
                    }
                    if let (Some(position), true) = (&said.position, publications.is_empty()) {
                        self.seen.insert(channel.to_owned(), place(position));
                    }
                    let filter = self.wanted.iter().find(|wanted| is_own && wanted.channel == channel);
                    let filter = filter.and_then(|wanted| wanted.filter.clone());
                    self.told.push(Told::Event(said.event(filter, publications)));
                }
                client::Event::Publication(publication) => {
                    let heard = self.hear(channel, &publication);
                    self.told.push(Told::Event(Event::Publication { channel: channel.to_owned(), heard }));
                }
                client::Event::Join(info) => {
                    let (channel, client) = (channel.to_owned(), info.client.to_string());
                    self.told.push(Told::Event(Event::Join { channel, client }));
                }
                client::Event::Leave(info) => {
                    let (channel, client) = (channel.to_owned(), info.client.to_string());
                    self.told.push(Told::Event(Event::Leave { channel, client }));
                }
                client::Event::Unsubscribed { code, is_final, .. } => {
                    let channel = channel.to_owned();
                    // Codes below 2000 are those of refusals.
                    self.told.push(Told::Event(match (is_final, code) {
                        (true, 100..=1999) => Event::Refused { channel: Some(channel), code },
                        _ => Event::Unsubscribed { channel, code },
                    }));
                }
                // Nothing is announced but behind a confirmation.
                other => panic!("{channel}: the client says {other:?} for itself"),
            }
        }
    }

    fn hear(&mut self, channel: &str, publication: &client::Publication) -> Heard {
        let offset = Some(publication.offset).filter(|offset| *offset > 0);
        let epoch = offset.map(|_| publication.epoch.to_string());
        if let (Some(offset), Some(epoch)) = (offset, &epoch) {
            self.seen.insert(channel.to_owned(), (offset, epoch.clone()));
        }
        Heard { offset, epoch, data: text(&publication.data) }
    }

    /// Takes the answers that came.
    fn take_answers(&mut self, now: Instant) {
        let mut cx = Context::from_waker(Waker::noop());
        let calls = std::mem::take(&mut self.calls);
        for (asked, mut ticket) in calls {
            let what = match self.state.poll_call(now, &mut ticket, &mut cx) {
                Poll::Pending => {
                    self.calls.push((asked, ticket));
                    continue;
                }
                Poll::Ready(Ok(Answer::Presence(clients))) => {
                    let mut clients: Vec<_> = clients.iter().map(|info| info.client.to_string()).collect();
                    clients.sort();
                    Reply::Presence(clients)
                }
                Poll::Ready(Ok(Answer::History(history))) => {
                    let heard = |publication: &client::Publication| Heard {
                        offset: Some(publication.offset),
                        epoch: None,
                        data: text(&publication.data),
                    };
                    let publications = history.publications.iter().map(heard).collect();
                    Reply::History { publications, top: place(&history.position) }
                }
                Poll::Ready(Ok(_)) => Reply::Published,
                Poll::Ready(Err(Error::Refused { code, .. })) => Reply::Error(code),
                // It may have been done: as if no answer had come.
                Poll::Ready(Err(_)) => Reply::TimedOut,
            };
            self.told.push(Told::Event(Event::Replied { id: 0, asked, what }));
        }
    }
}

/// How a subscription stands.
struct Said<'a> {
    channel: &'a str,
    position: Option<Position>,
    since: Option<(u64, String)>,
    recovered: Option<bool>,
}

impl Said<'_> {
    fn event(self, filter: Option<crate::client::choice::Choice>, publications: Vec<Heard>) -> Event {
        Event::Subscribed {
            channel: self.channel.to_owned(),
            position: self.position.as_ref().map(place),
            was_recovering: self.recovered.is_some(),
            recovered: self.recovered == Some(true),
            since: self.since,
            filter,
            publications,
        }
    }
}

/// A payload as it was published: some transports escape what is not ASCII.
fn text(data: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(data) {
        Ok(value) => value.to_string(),
        Err(_) => String::from_utf8_lossy(data).into_owned(),
    }
}

fn place(position: &Position) -> (u64, String) {
    (position.offset, position.epoch.to_string())
}

impl Program for Realtime {
    fn machine(&mut self) -> &mut dyn Machine {
        &mut self.state
    }

    fn start(&mut self, now: Instant) {
        for wanted in self.wanted.clone() {
            self.subscribe(now, &wanted);
        }
        self.state.start(now);
    }

    fn act(&mut self, now: Instant, action: Action) -> bool {
        let ticket = match &action {
            Action::Publish { channel, data } => self.state.publish(channel, data.as_bytes(), false),
            Action::History(channel) => self.state.history(channel, &HistoryQuery::all()),
            Action::Presence(channel) => self.state.presence(channel),
            Action::Subscribe(channel) => {
                let wanted = self.wanted.iter().find(|wanted| wanted.channel == *channel);
                let wanted = wanted.cloned().unwrap_or_else(|| Wanted::all(channel));
                return self.subscribe(now, &wanted);
            }
            Action::Unsubscribe(channel) => {
                let Some((channel, Subscribed { key, .. })) =
                    self.subscriptions.remove_entry(channel.as_str())
                else {
                    return false;
                };
                self.state.unsubscribe(now, &channel, key);
                return true;
            }
            _ => return false,
        };
        match ticket {
            Ok(ticket) => {
                self.calls.push((action, ticket));
                self.take_answers(now);
                true
            }
            Err(_) => false,
        }
    }

    fn take_told(&mut self, now: Instant) -> Vec<Told> {
        // What ended is told last: what was heard came before.
        let mut ends = Vec::new();
        let mut of_server: BTreeMap<Arc<str>, Vec<client::Event>> = BTreeMap::new();
        while let Some(event) = self.happens.try_next() {
            match event {
                ClientEvent::Transition(Transition::Connected { .. }) => {
                    // One that was lost with the same bytes has no name any more.
                    if let Some(client) = self.state.client() {
                        self.told.push(Told::Event(Event::Connected { client: client.to_string() }));
                    }
                }
                ClientEvent::Transition(Transition::Disconnected { cause, .. }) => {
                    ends.push(Told::Lost(cause))
                }
                ClientEvent::Transition(Transition::GaveUp { cause, limit }) => {
                    ends.push(Told::GaveUp(format!("{limit}: {cause}")));
                }
                ClientEvent::ServerSide { channel, event } => {
                    of_server.entry(channel).or_default().push(event)
                }
                _ => {}
            }
        }
        for (channel, events) in of_server {
            self.tell(&channel, events, false);
        }
        let channels: Vec<Arc<str>> = self.subscriptions.keys().cloned().collect();
        let mut resumes = self.happens.take_resumes();
        for channel in channels {
            let Some(subscribed) = self.subscriptions.get_mut(&channel) else { continue };
            let mut events = Vec::new();
            while let Some(event) = subscribed.events.try_next() {
                events.push(event);
            }
            resumes |= subscribed.events.take_resumes();
            if events.iter().any(|event| matches!(event, client::Event::Unsubscribed { is_final: true, .. }))
            {
                self.subscriptions.remove(&channel);
            }
            self.tell(&channel, events, true);
        }
        self.told.append(&mut ends);
        if resumes {
            self.state.resume(now);
        }
        self.take_answers(now);
        std::mem::take(&mut self.told)
    }

    fn close(&mut self, now: Instant) {
        self.state.close(now);
    }
}
