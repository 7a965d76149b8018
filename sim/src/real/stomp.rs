//! An application around a STOMP client: it reads topics, publishes there, sends to a queue and works it off, and tells what
//! it is told.
//!
//! What comes of a topic becomes what every client of the simulator tells; what happens with the queue is told in words of
//! its own. What must stay true: it makes up nothing. A message counts as confirmed, or as done, if the client says so.

use super::{Program, Told};
use crate::checks::QueueEvent;
use crate::client::{Action, Event, Heard, Kind, Reply, Wanted};
use crate::workload::{Dice, QUEUE, STOMP_PORT, UserPlan, Work};
use crate::world::World;
use bytes::Bytes;
use longwire::env::Rng;
use longwire_client::machine::Machine;
use longwire_client::stomp::{self as client, AckMode, Delivery, Position, State};
use longwire_client::{Error, Options, Transition};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Of messages that are acknowledged one by one, how many are given back.
const GIVEN_BACK: f64 = 0.05;

pub(super) struct Stomp {
    state: State,
    observer: u32,
    wanted: Vec<Wanted>,
    work: Work,
    dice: Dice,
    /// The subscriptions of topics, by channel.
    topics: BTreeMap<String, u32>,
    /// Up to where it was told everything, of each channel.
    seen: BTreeMap<String, (u64, String)>,
    consumer: Option<u32>,
    /// Messages of the queue that are being worked on, in the order in which they came, and until when.
    at_work: VecDeque<(Instant, Delivery)>,
    /// What has no answer yet, by the number of the call.
    asked: BTreeMap<u64, Asked>,
    told: Vec<Told>,
}

/// What a call was about.
enum Asked {
    /// Something that was published.
    Publish(Action),
    /// The message of this number.
    Send(u64),
    /// A delivery of the message with this id is done.
    Done(String),
    /// It is given back.
    GiveBack,
}

impl Stomp {
    pub(super) fn new(number: usize, plan: &UserPlan, mut rng: Rng, world: &World) -> Stomp {
        let work = plan.work.clone().expect("a plan says what a client of STOMP works");
        let mut servers: Vec<String> = world
            .plan
            .machines
            .iter()
            .map(|http| match plan.kind {
                Kind::StompWebSocket => format!("stomp+ws://{http}/stomp"),
                _ => format!("stomp://{}:{STOMP_PORT}", http.ip()),
            })
            .collect();
        match work.only {
            Some(machine) => servers = vec![servers.swap_remove(machine)],
            // Not all begin at the same server.
            None => {
                let first = number % servers.len();
                servers.rotate_left(first);
            }
        }
        let beat = world.plan.config.heartbeat.interval;
        let options =
            Options { seed: Some(rng.bits()), offer_deflate: plan.offer_deflate, ..Options::default() };
        let mut builder = client::Client::builder(&servers[0]).heart_beat(beat, beat).options(options);
        for server in &servers[1..] {
            builder = builder.server(server);
        }
        let mut state = builder.state().expect("settings of the simulator's own");
        Stomp {
            observer: state.observe(),
            state,
            wanted: plan.wanted.clone(),
            work,
            dice: Dice(rng.fork("work")),
            topics: BTreeMap::new(),
            seen: BTreeMap::new(),
            consumer: None,
            at_work: VecDeque::new(),
            asked: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    fn subscribe(&mut self, now: Instant, channel: &str) -> bool {
        if self.topics.contains_key(channel) {
            return false;
        }
        let subscribed = self.state.consume(now, &format!("/topic/{channel}"), AckMode::Auto, None);
        let Ok(number) = subscribed else { return false };
        self.seen.remove(channel);
        self.topics.insert(channel.to_owned(), number);
        true
    }

    fn ask(&mut self, call: Result<u64, Error>, what: Asked) -> bool {
        call.map(|call| self.asked.insert(call, what)).is_ok()
    }

    /// Takes what a topic was told.
    fn hear_topic(&mut self, now: Instant, channel: &str, subscription: u32) {
        let told: Vec<client::Told> = std::iter::from_fn(|| self.state.told(now, subscription)).collect();
        let mut told = told.into_iter().peekable();
        while let Some(one) = told.next() {
            match one {
                client::Told::Subscribed { position, .. } => {
                    let before = self.seen.remove(channel);
                    let position = position.as_ref().map(place);
                    // How it stands is told right behind.
                    let (recovered, since) = match told.peek() {
                        Some(client::Told::Recovered) => (Some(true), before),
                        Some(client::Told::NotRecovered { from, .. }) => {
                            (Some(false), from.as_ref().map(place))
                        }
                        _ => (None, None),
                    };
                    if recovered.is_some() {
                        told.next();
                    }
                    self.begin(channel, position, since, recovered);
                }
                client::Told::NotRecovered { from, to } => {
                    // The publication that shows it follows.
                    let at = to.map(|to| (to.offset.saturating_sub(1), to.epoch.to_string()));
                    self.begin(channel, at, from.as_ref().map(place), Some(false));
                }
                client::Told::Message(delivery) => {
                    let at = delivery.position().as_ref().map(place);
                    let (offset, epoch) = at.clone().unzip();
                    self.seen.extend(at.map(|at| (channel.to_owned(), at)));
                    let data = String::from_utf8_lossy(delivery.body()).into_owned();
                    let heard = Heard { offset, epoch, data };
                    self.tell(Event::Publication { channel: channel.to_owned(), heard });
                }
                client::Told::Ended(Error::Closed | Error::GaveUp { .. }) => {
                    self.topics.remove(channel);
                }
                client::Told::Ended(error) => {
                    self.topics.remove(channel);
                    let code = match error {
                        Error::Refused { code, .. } => code,
                        _ => 0,
                    };
                    self.tell(Event::Refused { channel: Some(channel.to_owned()), code });
                }
                // Nothing is announced but behind a confirmation.
                client::Told::Recovered => {
                    panic!("{channel}: the client says out of the blue that it recovered")
                }
            }
        }
    }

    /// Tells that a subscription begins at a place.
    fn begin(
        &mut self,
        channel: &str,
        position: Option<(u64, String)>,
        since: Option<(u64, String)>,
        recovered: Option<bool>,
    ) {
        self.seen.extend(position.clone().map(|position| (channel.to_owned(), position)));
        self.tell(Event::Subscribed {
            channel: channel.to_owned(),
            position,
            was_recovering: recovered.is_some(),
            recovered: recovered == Some(true),
            since,
            filter: None,
            publications: Vec::new(),
        });
    }

    fn tell(&mut self, event: Event) {
        self.told.push(Told::Event(event));
    }

    /// Takes what the queue's consumer was told.
    fn hear_queue(&mut self, now: Instant) {
        let Some(consumer) = self.consumer else { return };
        while let Some(told) = self.state.told(now, consumer) {
            match told {
                client::Told::Message(delivery) => {
                    let received = QueueEvent::Received {
                        body: String::from_utf8_lossy(delivery.body()).into_owned(),
                        id: id_of(&delivery),
                    };
                    self.told.push(Told::Queue(received));
                    let until = now + self.dice.millis(0, self.work.takes.as_millis() as u64);
                    self.at_work.push_back((until, delivery));
                }
                // It is over for the whole client, of which there is word elsewhere.
                client::Told::Ended(Error::Closed | Error::GaveUp { .. }) => self.consumer = None,
                client::Told::Ended(error) => {
                    self.consumer = None;
                    self.told.push(Told::Queue(QueueEvent::Refused { what: error.to_string() }));
                }
                client::Told::Subscribed { .. } => {}
                other => panic!("a queue has no history to recover, and the client says {other:?}"),
            }
        }
    }

    /// Takes the answers that came.
    fn take_answers(&mut self) {
        let calls: Vec<u64> = self.asked.keys().copied().collect();
        for call in calls {
            let Some(result) = self.state.confirmed(call) else { continue };
            let Some(asked) = self.asked.remove(&call) else { continue };
            let told = match (asked, result) {
                (Asked::Publish(asked), Ok(_)) => {
                    Told::Event(Event::Replied { id: 0, asked, what: Reply::Published })
                }
                (Asked::Publish(asked), Err(Error::Refused { code, .. })) => {
                    Told::Event(Event::Replied { id: 0, asked, what: Reply::Error(code) })
                }
                // It may have been done.
                (Asked::Publish(_), Err(_)) => continue,
                (Asked::Send(number), Ok(_)) => Told::Queue(QueueEvent::Confirmed { number }),
                (Asked::Send(number), Err(_)) => Told::Queue(QueueEvent::Unconfirmed { number }),
                (Asked::Done(id), Ok(_)) => Told::Queue(QueueEvent::Done { id }),
                (Asked::Done(_) | Asked::GiveBack, _) => continue,
            };
            self.told.push(told);
        }
    }
}

fn place(position: &Position) -> (u64, String) {
    (position.offset, position.epoch.to_string())
}

fn id_of(delivery: &Delivery) -> String {
    delivery.header("message-id").unwrap_or_default().into_owned()
}

impl Program for Stomp {
    fn machine(&mut self) -> &mut dyn Machine {
        &mut self.state
    }

    fn start(&mut self, now: Instant) {
        let channels: Vec<String> = self.wanted.iter().map(|wanted| wanted.channel.clone()).collect();
        for channel in channels {
            self.subscribe(now, &channel);
        }
        if let Some(ack) = self.work.ack {
            let consumer = self.state.consume(now, QUEUE, ack, Some(self.work.prefetch));
            self.consumer = Some(consumer.expect("a destination of the simulator's own"));
        }
        self.state.start(now);
    }

    fn act(&mut self, now: Instant, action: Action) -> bool {
        match &action {
            Action::Publish { channel, data } => {
                // Where publications have no numbers nobody could tell one that was written twice from two.
                let is_resent = !channel.starts_with("free:");
                let (topic, data) = (format!("/topic/{channel}"), Bytes::from(data.clone()));
                let call = self.state.send(now, &topic, &[], data, is_resent);
                self.ask(call, Asked::Publish(action))
            }
            Action::Send { number, body } => {
                let call = self.state.send(now, QUEUE, &[], Bytes::from(body.clone()), true);
                self.ask(call, Asked::Send(*number))
            }
            Action::Subscribe(channel) => self.subscribe(now, channel),
            Action::Unsubscribe(channel) => match self.topics.remove(channel) {
                Some(subscription) => {
                    self.state.cancel(now, subscription);
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    fn take_told(&mut self, now: Instant) -> Vec<Told> {
        // What ended is told last: what was heard came before.
        let mut ends = Vec::new();
        while let Some(transition) = self.state.transition(self.observer) {
            match transition {
                Transition::Connected { .. } => {
                    // One that was lost with the same bytes has no name any more.
                    if let Some(client) = self.state.session() {
                        let client = client.to_owned();
                        self.tell(Event::Connected { client });
                    }
                }
                Transition::Disconnected { cause, .. } => {
                    // What was being done will come again, to whomever.
                    self.at_work.clear();
                    ends.push(Told::Lost(cause));
                }
                Transition::GaveUp { cause, limit } => ends.push(Told::GaveUp(format!("{limit}: {cause}"))),
                _ => {}
            }
        }
        let topics: Vec<_> = self.topics.iter().map(|(channel, number)| (channel.clone(), *number)).collect();
        for (channel, subscription) in topics {
            self.hear_topic(now, &channel, subscription);
        }
        self.hear_queue(now);
        self.take_answers();
        self.told.append(&mut ends);
        std::mem::take(&mut self.told)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.at_work.front().map(|(until, _)| *until)
    }

    fn handle_timeout(&mut self, now: Instant) {
        while self.at_work.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, delivery)) = self.at_work.pop_front() else { return };
            let is_single = self.work.ack == Some(AckMode::ClientIndividual);
            let is_done = !is_single || !self.dice.chance(GIVEN_BACK);
            let what = if is_done { Asked::Done(id_of(&delivery)) } else { Asked::GiveBack };
            // One from a connection that is gone comes again.
            if let Ok(Some(call)) = self.state.acknowledge(now, &delivery, is_done) {
                self.asked.insert(call, what);
            }
        }
    }

    fn close(&mut self, now: Instant) {
        self.state.close(now);
    }
}
