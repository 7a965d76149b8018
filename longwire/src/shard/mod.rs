//! One thread's share of the connections: its sessions, its hub, its timers.
//!
//! Everything here belongs to one thread and is reached through an [`Rc`]; other threads put letters into
//! its mailboxes. [`Shard::run`] is the loop: take what arrived, give every delivery to its sessions, then
//! write each session that has something, a few hundred at a time. Each session has a small task beside
//! that loop, the driver, which waits for its socket. What must stay true: nothing here locks, nothing
//! awaits while the state is borrowed, and a turn gives way to other work every few hundred writes.

mod bind;
mod calls;
mod commands;
mod directory;
mod driver;
mod goodbye;
mod hub;
mod interest;
mod messages;
mod orders;
mod queues;
mod renewals;
mod reports;
mod survey;
mod takeover;
mod timers;

use crate::broker::Movement;
use crate::config::Config;
use crate::delivery::{Delivery, Mailbox};
use crate::env::Rng;
use crate::env::net::Stream;
use crate::node::claims::Returning;
use crate::node::limits::Place;
use crate::node::sdk::Sdks;
use crate::node::{Control, Identity, Node, Whence};
use crate::queue::Event;
use crate::session::outbox::Flushed;
use crate::session::subscription::Subscription;
use crate::session::{Ended, Initiator, Session};
use crate::telemetry::ShardCounters;
use directory::Directory;
use hub::Hub;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::message::{ClientId, unsubscribe};
use longwire_protocol::websocket::Compressor;
use longwire_protocol::{CloseReason, Connection, Position};
use slab::Slab;
use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker, ready};
use std::time::Instant;
use timers::Wheel;

/// Writes after which a turn gives way to other work.
const BATCH: usize = 256;

/// Size of the buffer that all reads of a shard share.
const SCRATCH_BYTES: usize = 64 * 1024;

/// The mailboxes of one shard.
#[derive(Clone)]
pub struct Mail {
    /// What channels deliver.
    pub deliveries: Arc<Mailbox<Arc<Delivery>>>,
    /// Orders of the backend and questions.
    pub control: Arc<Mailbox<Control>>,
    /// What queues have for sessions.
    pub queues: Arc<Mailbox<Vec<Event>>>,
}

/// Takes a connection whose poll was answered, by the answer with this number.
type ToFrontDoor = Box<dyn Fn(Link, Option<Position>)>;

/// One thread's share of the connections.
pub struct Shard {
    /// The process.
    pub node: Arc<Node>,
    /// The shard's number.
    pub index: usize,
    mail: Mail,
    counters: Arc<ShardCounters>,
    state: RefCell<State>,
    lines: RefCell<interest::Lines>,
    scratch: RefCell<Box<[u8]>>,
    rng: RefCell<Rng>,
    /// Whether everybody was told to leave.
    is_draining: Cell<bool>,
    /// Takes links over whose response is complete and which may carry another request.
    to_front_door: OnceCell<ToFrontDoor>,
}

struct State {
    /// Boxed, so that a growing table moves pointers and not sessions.
    sessions: Slab<Box<Entry>>,
    hub: Hub,
    directory: Directory,
    wheel: Wheel,
    /// Sessions that have something to write or to settle.
    dirty: VecDeque<Key>,
    generation: u32,
    /// The serial number of the last subscription.
    serial: u32,
    /// What clients say that they are.
    sdks: Sdks,
    compressor: Option<Box<Compressor>>,
    /// Links of clients that returned, until their sessions can take them.
    returning: BTreeMap<Key, Box<Returning>>,
    /// Of sessions that ended while a call about them was under way: what the backend is to be told after it.
    unfinished: BTreeMap<Key, calls::Rest>,
}

/// Names a session; a key of a session that is gone names nothing, even if its place is taken again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    index: u32,
    generation: u32,
}

/// A socket, who is at its other end, and its place among all connections.
pub struct Link {
    /// The socket.
    pub stream: Stream,
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// Given back when the link is gone.
    pub place: Place,
}

impl Link {
    /// The client's own address, and the other end of the socket.
    fn addresses(&self) -> (IpAddr, SocketAddr) {
        (self.place.address().unwrap_or(self.peer.ip()), self.peer)
    }
}

/// A session and its link.
struct Entry {
    session: Session,
    /// `None` while the client is away.
    link: Option<Link>,
    generation: u32,
    /// The tick for which the session is armed.
    armed: u32,
    is_dirty: bool,
    /// How much of the outbox is in the shard's gauge.
    counted_bytes: u32,
    told: Told,
    waker: Option<Waker>,
}

/// What the backend is told of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// Its `connected` was not due until here.
    NotYet,
    /// Nothing any more: its `connected` found no room, or its `disconnected` is recorded.
    Nothing,
    /// Everything; the number of its last event.
    Last(u32),
}

impl Shard {
    /// A shard without connections.
    pub fn new(node: Arc<Node>, index: usize, mail: Mail) -> Rc<Shard> {
        let now = node.env.clock.now();
        Rc::new(Shard {
            index,
            mail,
            counters: node.counters[index].clone(),
            state: RefCell::new(State {
                sessions: Slab::new(),
                hub: Hub::default(),
                directory: Directory::default(),
                wheel: Wheel::new(now),
                dirty: VecDeque::new(),
                generation: 0,
                serial: 0,
                sdks: Sdks::default(),
                compressor: None,
                returning: BTreeMap::new(),
                unfinished: BTreeMap::new(),
            }),
            lines: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            rng: RefCell::new(node.env.rng.fork(&format!("shard {index}"))),
            is_draining: Cell::new(false),
            to_front_door: OnceCell::new(),
            node,
        })
    }

    /// Has links whose response is complete, and which may carry another request, given to `returning`; each with the
    /// number of the answer to a poll that it carried.
    pub fn set_returning(&self, returning: impl Fn(Link, Option<Position>) + 'static) {
        let is_first = self.to_front_door.set(Box::new(returning)).is_ok();
        debug_assert!(is_first, "a shard has one front door");
    }

    /// A fresh client id, and where in the first interval its first beat lies (0.0 to 1.0).
    pub fn draw(&self) -> (ClientId, f64) {
        let mut rng = self.rng.borrow_mut();
        (ClientId::from_random(rng.bits_128()), rng.fraction())
    }

    /// Takes a connection whose handshake is done: writes `first_bytes`, then lets it run.
    ///
    /// `headers` are those of its request that a backend is to get; `leftover` is what the peer sent behind its
    /// handshake.
    pub fn open(
        self: &Rc<Shard>,
        connection: Connection,
        client: ClientId,
        link: Link,
        headers: Option<Box<[(String, String)]>>,
        first_bytes: bytes::Bytes,
        leftover: &[u8],
    ) {
        let now = self.node.env.clock.now();
        self.counters.connections_opened.add(1);
        let mut session = Session::new(connection, client, now);
        session.listener = link.place.listener;
        if let Some(headers) = headers {
            session.carry(|baggage| baggage.headers = headers);
        }
        session.outbox.push(first_bytes, usize::MAX).expect("there is no limit to pass");
        // Also without leftover: an event stream's commands come from its request.
        session.handle_bytes(now, leftover, &self.node.config);
        self.drive(session, link, |_| None);
    }

    /// Lets a session run on a link; `begins` gives the work that it begins with, if any.
    fn drive(
        self: &Rc<Shard>,
        session: Session,
        link: Link,
        begins: impl FnOnce(Key) -> Option<driver::Work>,
    ) {
        let key = self.enter(session, link);
        driver::Driver::start(self.clone(), key, begins(key));
    }

    /// Gives a session and its link a place in the table.
    fn enter(&self, session: Session, link: Link) -> Key {
        self.count_link(session.connection(), true);
        let client = session.identity.client;
        let state = &mut *self.state.borrow_mut();
        state.generation = state.generation.wrapping_add(1);
        let generation = state.generation;
        let entry = Entry {
            session,
            link: Some(link),
            generation,
            armed: 0,
            is_dirty: false,
            counted_bytes: 0,
            told: Told::NotYet,
            waker: None,
        };
        let index = state.sessions.insert(Box::new(entry)) as u32;
        state.directory.list(client, index);
        Key { index, generation }
    }

    /// Counts a link that is there, or is not any more.
    fn count_link(&self, connection: &Connection, is_there: bool) {
        let (transport, dialect) = (connection.transport(), connection.dialect());
        let count = &self.counters.connections[transport as usize][dialect as usize];
        if is_there { count.add(1) } else { count.sub(1) }
    }

    /// The buffer that all reads of this shard share; free whenever nobody is reading.
    pub fn scratch(&self) -> RefMut<'_, [u8]> {
        RefMut::map(self.scratch.borrow_mut(), |scratch| &mut **scratch)
    }

    /// Counts a handshake of TLS that came to nothing.
    pub fn note_tls_failure(&self) {
        self.counters.tls_failures.add(1);
    }

    /// Reads and forgets until the peer ends its side.
    ///
    /// Closing with unread bytes makes the kernel answer them with a reset, which can overtake the last words
    /// on their way to the peer.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn discard(&self, stream: &mut Stream) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            while ready!(stream.poll_read_into(cx, &mut self.scratch()))? > 0 {}
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Runs until the process ends.
    pub async fn run(self: Rc<Shard>) {
        let clock = self.node.env.clock;
        if self.node.broker_may_lose() {
            tokio::task::spawn_local(self.clone().look_after_channels());
        }
        let (mut deliveries, mut orders, mut events) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        loop {
            let next_tick = self.state.borrow().wheel.next_tick();
            tokio::select! {
                biased;
                () = self.mail.deliveries.arrived() => {}
                () = self.mail.control.arrived() => {}
                () = self.mail.queues.arrived() => {}
                () = clock.sleep_until(next_tick) => {}
            }
            let began = clock.now();
            loop {
                // Orders are taken before deliveries and carried out after them: whatever was published before an
                // order was given has been handed to its sessions by then. A question how far a publication came
                // relies on that, and so does a backend that publishes and then disconnects.
                self.mail.control.take(&mut orders);
                // Taken anew before each batch of writes: what arrives while a crowd is written goes out
                // with the next write to each of its sessions.
                self.deliver_arrived(&mut deliveries);
                self.hear_queues(&mut events);
                for control in orders.drain(..) {
                    self.obey(control);
                }
                self.turn_wheel();
                if !self.write_dirty() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            self.counters.turn(clock.now() - began);
            // Publishers that never pause must not keep sockets and timers from being looked at.
            tokio::task::yield_now().await;
        }
    }

    /// Gives what channels delivered so far to its sessions; `passing` is empty before and after.
    fn deliver_arrived(&self, passing: &mut VecDeque<Arc<Delivery>>) {
        self.mail.deliveries.take(passing);
        for run in passing.make_contiguous().chunk_by(|a, b| a.channel == b.channel) {
            self.deliver(run);
        }
        passing.clear();
    }

    /// Gives deliveries of one channel to every session that is subscribed to it: all of them to one session
    /// before the next, whose state has to be fetched from memory.
    fn deliver(&self, run: &[Arc<Delivery>]) {
        let state = &mut *self.state.borrow_mut();
        let Some(hub_id) = run.first().and_then(|delivery| state.hub.find(&delivery.channel)) else { return };
        let members = state.hub.members(hub_id);
        self.counters.deliveries.add((members.len() * run.len()) as u64);
        let (now, config) = (self.node.env.clock.now(), &self.node.config);
        for &index in members {
            let Some(entry) = state.sessions.get_mut(index as usize) else { continue };
            for delivery in run {
                entry.session.handle_delivery(hub_id, delivery, &mut state.compressor, config);
                self.make_room(now, entry);
            }
            mark_dirty(&mut state.dirty, index, entry);
        }
    }

    /// Takes what a socket has before a deadline counts.
    ///
    /// A machine that was paused wakes its timers before its sockets: who answered meanwhile is not dead, who sent
    /// its connect command is not stale, and whose socket takes bytes again is not stalled.
    fn look_at_socket(&self, now: Instant, scratch: &mut [u8], entry: &mut Entry) {
        let config = &self.node.config;
        if entry.session.outbox.blocked_since().is_some() {
            self.write(now, entry);
        }
        let is_awaited = |session: &Session| {
            let heartbeat = &session.connection().heartbeat;
            let is_overdue = heartbeat.is_overdue(now, &session.intervals(config));
            let is_silent = heartbeat.is_unanswered() || is_overdue || !session.is_connected();
            is_silent && session.wants_bytes(config) && session.closing().is_none()
        };
        while is_awaited(&entry.session) {
            let Some(link) = &entry.link else { return };
            match link.stream.read_now(scratch) {
                Ok(0) => entry.session.handle_end(None),
                Ok(n) => {
                    self.counters.bytes_in.add(n as u64);
                    entry.session.handle_bytes(now, &scratch[..n], config);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A socket tells its error once: whoever asks next is told that all is over.
                Err(error) => entry.session.handle_end(Some(error)),
            }
        }
    }

    /// Writes what waits if that is much: a peer is slow if its socket takes no more, not because much came at
    /// once.
    fn make_room(&self, now: Instant, entry: &mut Entry) {
        let outbox = &entry.session.outbox;
        if outbox.len() > self.node.config.client.max_outbox_bytes / 2 && outbox.blocked_since().is_none() {
            self.write(now, entry);
        }
    }

    /// Calls the sessions whose time has come.
    fn turn_wheel(self: &Rc<Shard>) {
        let now = self.node.env.clock.now();
        let config = &self.node.config;
        let mut borrowed = self.state.borrow_mut();
        let state = &mut *borrowed;
        let mut ripe = Vec::new();
        let mut scratch = self.scratch.borrow_mut();
        while let Some((tick, keys)) = state.wheel.advance(now) {
            for key in keys {
                let Some(entry) = entry(&mut state.sessions, key) else {
                    if flaw::is_on(Flaw::TimersKept) {
                        state.wheel.arm(tick + 10, key);
                    }
                    continue;
                };
                if entry.armed != tick {
                    continue;
                }
                entry.armed = 0;
                if !flaw::is_on(Flaw::TimersBeforeSockets) {
                    self.look_at_socket(now, &mut scratch, entry);
                }
                entry.session.handle_timeout(now, config);
                ripe.extend(std::iter::from_fn(|| Some((key, entry.session.poll_ripe()?))));
                arm(&mut state.wheel, key, entry, config);
                mark_dirty(&mut state.dirty, key.index, entry);
                entry.wake();
            }
        }
        drop((borrowed, scratch));
        for (key, ripe) in ripe {
            self.run_apart(renewals::renew(self.clone(), key, ripe));
        }
    }

    /// Writes up to [`BATCH`] sessions; true if more are waiting.
    fn write_dirty(&self) -> bool {
        let now = self.node.env.clock.now();
        let config = &self.node.config;
        let state = &mut *self.state.borrow_mut();
        for _ in 0..BATCH {
            let Some(key) = state.dirty.pop_front() else { return false };
            let Some(entry) = entry(&mut state.sessions, key) else { continue };
            entry.is_dirty = false;
            entry.session.answer_poll();
            if entry.needs_driver() || entry.session.has_ended_subscriptions() {
                entry.wake();
            } else if !entry.session.outbox.is_empty() {
                self.write(now, entry);
                self.note_written(key, entry);
                if entry.needs_driver() || !entry.session.outbox.is_empty() {
                    // The driver waits for the socket, or finishes.
                    arm(&mut state.wheel, key, entry, config);
                    entry.wake();
                }
            }
        }
        !state.dirty.is_empty()
    }

    /// Writes what a session's socket takes.
    fn write(&self, now: Instant, entry: &mut Entry) -> Flushed {
        let mut written = 0;
        let Some(Link { stream, .. }) = &entry.link else { return Flushed::All };
        let flushed = entry.session.outbox.flush(now, &mut written, |slices| match slices {
            [one] => stream.try_write(one),
            many => stream.try_write_vectored(many),
        });
        self.counters.bytes_out.add(written);
        entry.session.note_flushed(written);
        entry.count_outbox(&self.counters);
        flushed.unwrap_or_else(|error| {
            entry.session.handle_broken_link(error);
            Flushed::All
        })
    }

    /// Takes a session's ended subscriptions out of the hub and presence.
    fn settle(self: &Rc<Shard>, key: Key) {
        loop {
            let mut borrowed = self.state.borrow_mut();
            let state = &mut *borrowed;
            let Some(entry) = entry(&mut state.sessions, key) else { return };
            let Some(ended) = entry.session.poll_ended() else { return };
            self.report_unsubscribed(entry, &ended);
            let subscription = ended.subscription;
            let leaving = Leaving::new(&mut state.hub, key, &entry.session, subscription);
            drop(borrowed);
            self.counters.subscriptions.sub(1);
            self.run_apart(leaving.run(self.clone()));
        }
    }

    /// Runs a future that nobody waits for; one that is ready at once costs no task.
    fn run_apart(&self, future: impl Future<Output = ()> + 'static) {
        let mut future = Box::pin(future);
        let mut cx = std::task::Context::from_waker(Waker::noop());
        if future.as_mut().poll(&mut cx).is_pending() {
            tokio::task::spawn_local(future);
        }
    }

    /// Takes a closing session out of everything, counts it and says why it ended.
    fn remove(self: &Rc<Shard>, key: Key) -> Option<Box<Entry>> {
        let mut borrowed = self.state.borrow_mut();
        let state = &mut *borrowed;
        entry(&mut state.sessions, key)?;
        let mut entry = state.sessions.remove(key.index as usize);
        let Identity { client, user, .. } = &entry.session.identity;
        state.directory.strike(*client, user, key.index);
        // Every end has a reason. Only a panic comes here before somebody gave one.
        entry.session.abort(CloseReason::InternalError, "a panic in the server");
        self.end_queues(key, &mut entry);
        if state.sessions.is_empty() {
            state.sessions.shrink_to_fit();
        }
        let mut ended: Vec<Ended> = std::iter::from_fn(|| entry.session.poll_ended()).collect();
        let subscriptions = std::mem::take(&mut entry.session.subscriptions);
        let why = unsubscribe::DISCONNECT;
        ended.extend(subscriptions.into_iter().map(|subscription| Ended { subscription, why }));
        ended.iter().for_each(|ended| self.report_unsubscribed(&mut entry, ended));
        self.report_disconnected(&mut entry);
        let mut subscriptions: Vec<Subscription> =
            ended.into_iter().map(|ended| ended.subscription).collect();
        if flaw::is_on(Flaw::PresenceKept) && entry.session.closing().is_some_and(|c| !c.is_polite) {
            subscriptions.iter_mut().for_each(|subscription| subscription.has_entered = false);
        }
        let hub = &mut state.hub;
        let leave = |subscription| Leaving::new(hub, key, &entry.session, subscription);
        let leaving: Vec<Leaving> = subscriptions.into_iter().map(leave).collect();
        drop(borrowed);
        self.counters.subscriptions.sub(leaving.len() as u64);
        for leaving in leaving {
            self.run_apart(leaving.run(self.clone()));
        }
        let connection = entry.session.connection();
        self.node.depart(&entry.session.identity.user, connection.heartbeat.last_seen());
        match &entry.link {
            Some(_) => self.count_link(connection, false),
            None => self.counters.sessions_away.sub(1),
        }
        self.report(&entry);
        // The one place where a session ends for good.
        self.tell_end(key, &mut entry);
        self.counters.outbox_bytes.sub(entry.counted_bytes.into());
        entry.counted_bytes = 0;
        entry.session.release_places();
        Some(entry)
    }

    /// The one log line about a connection's end.
    fn report(&self, entry: &Entry) {
        let session = &entry.session;
        let Some(closing) = session.closing() else { return };
        let reason = closing.close.reason;
        let now = self.node.env.clock.now();
        let mut addresses = entry.link.as_ref().map(Link::addresses);
        let mut kept_for = None;
        if entry.link.is_some() {
            self.count_close(reason);
            if reason == CloseReason::Answered {
                // A client that polls comes and goes all the time.
                return;
            }
        } else if let Some(last) = session.last_break() {
            self.counters.sessions_lapsed.add(1);
            addresses = last.addresses;
            kept_for = last.since.map(|since| format!("{:.1}s", (now - since).as_secs_f64()));
        }
        let connection = session.connection();
        let seconds = |since: Instant| format!("{:.1}s", (now - since).as_secs_f64());
        tracing::info!(
            reason = reason.name(),
            category = reason.category().as_str(),
            began = closing.initiator.as_str(),
            client = %session.identity.client,
            user = ?session.identity.user,
            name = Some(session.client_name()).filter(|name| !name.is_empty()),
            address = addresses.map(|(address, _)| tracing::field::display(address)),
            peer = addresses.map(|(_, peer)| tracing::field::display(peer)),
            transport = connection.transport().as_str(),
            dialect = connection.dialect().as_str(),
            open_for = seconds(session.opened),
            last_seen = format!("{} ago", seconds(connection.heartbeat.last_seen())),
            unsent_bytes = closing.unsent_bytes,
            kept_for,
            dropped = session.last_break().map(|last| last.dropped).filter(|dropped| *dropped > 0),
            code = closing.close.code,
            advice = if closing.initiator == Initiator::Peer { "none" } else { closing.close.advice().as_str() },
            detail = closing.detail,
            "connection closed: {}",
            reason.explanation(),
        );
    }
}

impl Entry {
    /// Brings the gauge of bytes that wait in outboxes up to date.
    fn count_outbox(&mut self, counters: &ShardCounters) {
        let waiting = self.session.outbox.len() as u32;
        counters.outbox_bytes.add(waiting.into());
        counters.outbox_bytes.sub(self.counted_bytes.into());
        self.counted_bytes = waiting;
    }

    /// Whether the session is over, or its link is.
    fn needs_driver(&self) -> bool {
        self.session.closing().is_some() || self.session.is_away() && self.link.is_some()
    }

    /// The client's own address, and the other end of the socket; those of the last link if there is none.
    fn addresses(&self) -> Option<(IpAddr, SocketAddr)> {
        let link = self.link.as_ref().map(Link::addresses);
        link.or_else(|| self.session.last_break().and_then(|last| last.addresses))
    }

    /// The client's own address.
    fn address(&self) -> IpAddr {
        // Whoever has no link had one, and its addresses are kept.
        self.addresses().map_or(IpAddr::from([0, 0, 0, 0]), |(address, _)| address)
    }

    /// Where the client is, as a login wants to know it.
    fn whence(&self) -> Whence {
        let is_hidden = self.link.as_ref().is_some_and(|link| link.place.is_hidden);
        Whence { address: self.address(), is_hidden }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// A subscription on its way out: of the hub already, of presence and the broker not yet.
struct Leaving {
    subscription: Subscription,
    info: Arc<longwire_protocol::message::ClientInfo>,
    is_last: bool,
}

impl Leaving {
    fn new(hub: &mut Hub, key: Key, session: &Session, subscription: Subscription) -> Leaving {
        let is_last = hub.leave(subscription.hub_id, key.index);
        let info = session.identity.info_in_channel(subscription.chan_info());
        Leaving { subscription, info, is_last }
    }

    async fn run(self, shard: Rc<Shard>) {
        let Leaving { subscription, info, is_last } = self;
        shard.counters.leaving.add(1);
        let channel = &subscription.channel;
        if subscription.has_entered {
            // At once, whatever the broker does: the same client may be about to enter again.
            if subscription.traits.presence {
                shard.node.leave(channel, info.client);
            }
            if subscription.traits.join_leave {
                if flaw::is_on(Flaw::LeaveTwice) {
                    shard.announce(channel, Movement::Leave(info.clone())).await;
                }
                shard.announce(channel, Movement::Leave(info)).await;
            }
        }
        if is_last {
            shard.give_up(channel).await;
        }
        shard.counters.leaving.sub(1);
    }
}

fn entry(sessions: &mut Slab<Box<Entry>>, key: Key) -> Option<&mut Entry> {
    let entry = sessions.get_mut(key.index as usize)?;
    (entry.generation == key.generation).then_some(entry)
}

fn mark_dirty(dirty: &mut VecDeque<Key>, index: u32, entry: &mut Entry) {
    if !entry.is_dirty {
        entry.is_dirty = true;
        dirty.push_back(Key { index, generation: entry.generation });
    }
}

/// Arms a session for its next deadline, unless it is armed for an earlier tick.
fn arm(wheel: &mut Wheel, key: Key, entry: &mut Entry, config: &Config) {
    if entry.session.closing().is_some() {
        return;
    }
    let tick = wheel.tick_of(entry.session.poll_timeout(config).0);
    if entry.armed == 0 || tick < entry.armed {
        entry.armed = tick;
        wheel.arm(tick, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be a million of each: a field more is a megabyte more.
    #[test]
    fn an_idle_session_stays_small() {
        assert!(size_of::<Entry>() <= 448, "an entry has {} bytes", size_of::<Entry>());
        assert!(size_of::<driver::Driver>() <= 48, "a driver has {} bytes", size_of::<driver::Driver>());
        assert!(size_of::<Subscription>() <= 80, "a subscription has {} bytes", size_of::<Subscription>());
    }
}
