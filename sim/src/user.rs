//! One simulated user: a client, the application around it, and its way to a machine.
//!
//! It dials a machine, feeds its client, tells the checks what the client was told, and comes back after a loss
//! when the client says so. What the workload has it do arrives as orders.

use crate::checks::Deed;
use crate::client::{self, Action, Client, Event, HangUp, Kind, Output, PlainSettings, Port, Settings};
use crate::courier::Courier;
use crate::net::Dialled;
use crate::workload::{AUTH_SECRET, CONNECT_TIMEOUT, Dice, PACKET_PORT, UserPlan};
use crate::world::World;
use longwire::env::Rng;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;
use tokio::sync::Notify;

/// How much one read takes.
const READ_BYTES: usize = 16 * 1024;

/// Of the ways of a client with a name, how many lead to the machine where it was: the others are for nothing there.
const FAITHFUL: f64 = 0.85;

/// The error of a subscription that the client has.
pub(crate) const ALREADY_SUBSCRIBED: u32 = 105;

/// A user.
pub struct User {
    number: usize,
    plan: UserPlan,
    /// Unless it has a real one.
    client: Option<RefCell<Box<dyn Client>>>,
    courier: Courier,
    orders: RefCell<VecDeque<Action>>,
    ordered: Notify,
    /// Until when it reads nothing.
    reading_paused: Cell<Option<Instant>>,
    /// Until when it does nothing at all.
    frozen: Cell<Option<Instant>>,
    /// The machine to which a client with a name returns.
    home: Cell<usize>,
    is_off: Cell<bool>,
    is_leaving: Cell<bool>,
    rng: RefCell<Dice>,
    seed: Rng,
    lives: Cell<u32>,
}

impl User {
    /// A user who has not dialled yet.
    pub fn new(number: usize, plan: UserPlan, rng: Rng, begins: Instant) -> User {
        User {
            number,
            client: (!plan.kind.is_real())
                .then(|| RefCell::new(client::make(plan.kind, settings(number, &plan, &rng, 0, begins)))),
            courier: Courier::new(number, plan.ip),
            plan,
            orders: RefCell::default(),
            ordered: Notify::new(),
            reading_paused: Cell::default(),
            frozen: Cell::default(),
            home: Cell::default(),
            is_off: Cell::default(),
            is_leaving: Cell::default(),
            rng: RefCell::new(Dice(rng.fork("user"))),
            seed: rng,
            lives: Cell::new(0),
        }
    }

    /// Has its application do something.
    pub fn order(&self, action: Action) {
        self.orders.borrow_mut().push_back(action);
        self.ordered.notify_one();
    }

    /// Lets it read nothing until then.
    pub fn pause_reading(&self, until: Instant) {
        self.reading_paused.set(self.reading_paused.get().max(Some(until)));
        self.ordered.notify_one();
    }

    /// Lets it do nothing until then.
    pub fn freeze(&self, until: Instant) {
        self.frozen.set(self.frozen.get().max(Some(until)));
        self.ordered.notify_one();
    }

    /// Its host loses power, or gets it back; without memory its client begins anew.
    pub fn set_power(&self, is_on: bool, keeps_memory: bool, world: &World) {
        let was_off = self.is_off.replace(!is_on);
        self.courier.forget();
        if was_off && is_on && !keeps_memory {
            self.forget(world);
        }
        self.ordered.notify_one();
    }

    /// Its client begins anew.
    pub(crate) fn forget(&self, world: &World) {
        self.lives.set(self.lives.get() + 1);
        if let Some(client) = &self.client {
            client.replace(client::make(
                self.plan.kind,
                settings(self.number, &self.plan, &self.seed, self.lives.get(), world.clock.start()),
            ));
        }
        world.checks.borrow_mut().forgot(self.number);
    }

    /// Says goodbye and does not come back.
    pub fn leave(&self) {
        self.is_leaving.set(true);
        self.courier.leave();
        self.ordered.notify_one();
    }

    /// What it was made from.
    pub fn plan(&self) -> &UserPlan {
        &self.plan
    }

    /// Its host has power, and it stands still no longer.
    pub fn thaw(&self, world: &World) {
        self.reading_paused.set(None);
        self.frozen.set(None);
        self.set_power(true, true, world);
    }

    /// Carries what its client says beside its stream, until it leaves.
    pub async fn carry(self: Rc<User>, world: Rc<World>) {
        let dice = Dice(self.seed.fork("courier"));
        let frozen = || self.frozen.get().filter(|until| *until > world.clock.now());
        self.courier.run(&world, dice, frozen).await;
    }

    /// Lives until it leaves.
    pub async fn live(self: Rc<User>, world: Rc<World>) {
        if self.client.is_none() {
            return self.live_real(world).await;
        }
        self.arrive(&world).await;
        while !self.is_leaving.get() {
            if self.is_off.get() {
                self.ordered.notified().await;
                continue;
            }
            let machine = self.choose_machine(&world);
            let http = world.plan.machines[machine];
            let port = self.client().borrow().port();
            let address = match port {
                Port::Http => http,
                Port::Packets => SocketAddr::new(http.ip(), PACKET_PORT),
            };
            if let Ok(mut link) = world.net.connect(self.plan.ip, address, CONNECT_TIMEOUT).await {
                world.checks.borrow_mut().dialled(self.number, machine, link.local, link.id);
                let mut unsent = VecDeque::new();
                let why = self.talk(&world, &mut link, http, &mut unsent).await;
                world.checks.borrow_mut().parts(self.number, unsent.is_empty());
                drop(link);
                self.client().borrow_mut().lost(world.clock.now());
                world.checks.borrow_mut().lost(self.number, &why);
                if why.starts_with("sent away for good") {
                    if !world.checks.borrow().may_be_sent_away(self.number) {
                        return;
                    }
                    // The page is loaded again.
                    self.forget(&world);
                }
            } else {
                self.client().borrow_mut().missed();
            }
            if self.is_off.get() {
                continue;
            }
            let delay = self.client().borrow_mut().reconnect_delay();
            let came_to_leave = async {
                while !self.is_leaving.get() && !self.is_off.get() {
                    self.ordered.notified().await;
                }
            };
            // Leaving or losing power interrupts the wait.
            let _ = world.clock.timeout(delay, came_to_leave).await;
        }
    }

    fn client(&self) -> &RefCell<Box<dyn Client>> {
        self.client.as_ref().expect("who has a real client lives otherwise")
    }

    // What a life with a real client asks.

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Chance for one life.
    pub(crate) fn life_rng(&self) -> Rng {
        self.seed.fork(&format!("client {}", self.lives.get()))
    }

    /// How often its memory was lost.
    pub(crate) fn lives(&self) -> u32 {
        self.lives.get()
    }

    pub(crate) async fn arrive(&self, world: &World) {
        let first = self.rng.borrow_mut().millis(0, world.plan.arrivals.as_millis() as u64);
        world.clock.sleep(first).await;
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    pub(crate) fn is_off(&self) -> bool {
        self.is_off.get()
    }

    /// Waits until something about it changes.
    pub(crate) async fn ordered(&self) {
        self.ordered.notified().await;
    }

    pub(crate) fn next_order(&self) -> Option<Action> {
        self.orders.borrow_mut().pop_front()
    }

    /// Until when it does nothing at all.
    pub(crate) fn frozen_until(&self, now: Instant) -> Option<Instant> {
        self.frozen.get().filter(|until| *until > now)
    }

    /// When it reads again.
    pub(crate) fn reading_resumes(&self, now: Instant) -> Option<Instant> {
        self.reading_paused.get().filter(|until| *until > now)
    }

    fn choose_machine(&self, world: &World) -> usize {
        let mut rng = self.rng.borrow_mut();
        if self.plan.kind == Kind::Plain && rng.chance(FAITHFUL) {
            return self.home.get();
        }
        let machine = rng.below(world.plan.machines.len());
        self.home.set(machine);
        machine
    }

    /// Serves one connection, `unsent` being what is to be written; returns why it ended.
    async fn talk(
        &self,
        world: &World,
        link: &mut Dialled,
        address: SocketAddr,
        unsent: &mut VecDeque<u8>,
    ) -> String {
        let mut scratch = vec![0; READ_BYTES];
        let mut out = Output::default();
        self.client().borrow_mut().opened(world.clock.now(), &mut out);
        loop {
            if let Some(why) = self.settle(world, address, &mut out, unsent) {
                return why;
            }
            if self.is_off.get() {
                return "power lost".into();
            }
            let now = world.clock.now();
            if let Some(until) = self.frozen.get().filter(|until| *until > now) {
                world.checks.borrow_mut().frozen(self.number, true);
                // Thawing or losing power ends it early.
                let _ = world.clock.timeout(until - now, self.ordered.notified()).await;
                world.checks.borrow_mut().frozen(self.number, false);
                continue;
            }
            if self.is_leaving.get() {
                world.checks.borrow_mut().acts(self.number, Deed::Goodbye);
                if !self.client().borrow_mut().act(now, Action::Goodbye, &mut out) {
                    return "left".into();
                }
                self.is_leaving.set(false);
                let said = self.settle(world, address, &mut out, unsent);
                let (front, _) = unsent.as_slices();
                let _ = link.socket.try_write_vectored(&[IoSlice::new(front)]);
                self.is_leaving.set(true);
                return said.unwrap_or_else(|| "said goodbye and left".into());
            }
            if let Some(action) = self.orders.borrow_mut().pop_front() {
                self.act(world, action, &mut out);
                continue;
            }
            let timeout = self.client().borrow().poll_timeout();
            let resume = self.reading_paused.get().filter(|until| *until > now);
            let wake = [timeout, resume].into_iter().flatten().min();
            let writing = poll_fn(|cx| {
                while !unsent.is_empty() {
                    let (front, _) = unsent.as_slices();
                    match link.socket.try_write_vectored(&[IoSlice::new(front)]) {
                        Ok(n) => drop(unsent.drain(..n)),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            match link.socket.poll_write_ready(cx) {
                                Poll::Ready(Ok(())) => {}
                                Poll::Ready(Err(error)) => return Poll::Ready(error),
                                Poll::Pending => return Poll::Pending,
                            }
                        }
                        Err(error) => return Poll::Ready(error),
                    }
                }
                Poll::Pending
            });
            let reading = poll_fn(|cx| match resume {
                Some(_) => Poll::Pending,
                None => link.socket.poll_read(cx, &mut scratch),
            });
            tokio::select! {
                biased;
                () = self.ordered.notified() => {}
                error = writing => return format!("writing failed: {error}"),
                read = reading => match read {
                    Ok(0) => return "the server ended it".into(),
                    Ok(n) => self.client().borrow_mut().handle_bytes(world.clock.now(), &scratch[..n], &mut out),
                    Err(error) => return format!("reading failed: {error}"),
                },
                () = async { world.clock.sleep_until(wake.unwrap_or(now)).await }, if wake.is_some() => {
                    let now = world.clock.now();
                    if timeout.is_some_and(|timeout| timeout <= now) {
                        self.client().borrow_mut().handle_timeout(now, &mut out);
                    }
                }
            }
        }
    }

    /// Does what the client wants done; says why, if the connection is over.
    fn settle(
        &self,
        world: &World,
        address: SocketAddr,
        out: &mut Output,
        unsent: &mut VecDeque<u8>,
    ) -> Option<String> {
        let Output { bytes, posts, events, hang_up } = std::mem::take(out);
        unsent.extend(bytes);
        posts.into_iter().for_each(|post| self.courier.take(address, post));
        let mut checks = world.checks.borrow_mut();
        for event in &events {
            checks.told(self.number, event);
            if let Event::Unsubscribed { channel, code } = event
                && *code != 0
                && *code < 2500
            {
                // The backend's wish; the application asks again when it is told to.
                checks.wants(self.number, channel, false);
            }
            if let Event::Refused { channel: Some(channel), code: ALREADY_SUBSCRIBED } = event {
                // The backend's order came first; SDKs give up where they are told so.
                checks.gives_up(self.number, channel);
            }
        }
        let hang_up = hang_up?;
        checks.hangs_up(self.number, &hang_up);
        Some(match hang_up {
            HangUp::Told { code, reconnect: false } => format!("sent away for good: {code}"),
            why => format!("hung up: {why:?}"),
        })
    }

    fn act(&self, world: &World, action: Action, out: &mut Output) {
        let now = world.clock.now();
        let mut client = self.client().borrow_mut();
        let mut checks = world.checks.borrow_mut();
        match &action {
            Action::Garbage(_) => checks.acts(self.number, Deed::Garbage),
            Action::Goodbye => checks.acts(self.number, Deed::Goodbye),
            _ => {}
        }
        let is_done = client.act(now, action.clone(), out);
        if let Action::Say { number, .. } = action
            && is_done
        {
            let is_beside = out.posts.iter().any(|post| post.number == Some(number));
            checks.says(self.number, number, is_beside);
        }
        match &action {
            Action::Subscribe(channel) if is_done => checks.wants(self.number, channel, true),
            Action::Unsubscribe(channel) if is_done => checks.wants(self.number, channel, false),
            _ => {}
        }
        world.trace.note(format_args!("user {} does {action:?}: {is_done}", self.number));
    }
}

fn settings(number: usize, plan: &UserPlan, rng: &Rng, life: u32, begins: Instant) -> Settings {
    // Who cannot subscribe brings its channels in its token.
    let is_known = plan.kind == Kind::Plain && number.is_multiple_of(2);
    let token = (plan.kind.is_one_way() || is_known).then(|| {
        let channels: Vec<&str> = plan.wanted.iter().map(|wanted| &*wanted.channel).collect();
        let claims = match is_known {
            true => serde_json::json!({ "sub": format!("user {number}") }),
            false => serde_json::json!({ "sub": format!("user {number}"), "channels": channels }),
        };
        longwire::auth::sign(AUTH_SECRET, &claims).expect("the claims are an object")
    });
    Settings {
        host: "longwire.test".into(),
        channels: plan.wanted.clone(),
        token,
        rng: rng.fork(&format!("client {life}")),
        offer_deflate: plan.offer_deflate,
        silence: Some(plan.silence),
        plain: PlainSettings {
            name: match plan.kind {
                // Its name is part of what it remembers.
                Kind::Plain => format!("device {number}.{life}"),
                _ => String::new(),
            },
            barred_until: Some(begins + plan.barred_for),
            ..plan.plain.clone()
        },
    }
}
