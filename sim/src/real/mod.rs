//! Users whose client is the one that is shipped: `longwire-client`'s own machines, moved over the simulated network.
//!
//! Here is what stands in its driver's place: lines are dialled, written, read and closed as its machine wants, in invented
//! time. [`realtime`] and [`stomp`] are the applications around a client. What befalls such a user is what befalls any other; what it
//! is told is told to the checks in the same words. It decides nothing: which server, when and by which transport is the
//! machine's choice. What must stay true: bytes are given in order, each end once, and nothing is heard of a line that the
//! machine closed.

mod lines;
mod realtime;
mod stomp;

use crate::checks::{Deed, QueueEvent};
use crate::client::{Action, Event, HangUp, Kind};
use crate::user::{ALREADY_SUBSCRIBED, User};
use crate::world::World;
use lines::{Happened, Lines};
use longwire_client::Cause;
use longwire_client::machine::{End, Line, Machine, Output};
use realtime::Realtime;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use stomp::Stomp;

/// A client and the application around it.
pub(crate) trait Program {
    /// The client.
    fn machine(&mut self) -> &mut dyn Machine;

    /// Begins.
    fn start(&mut self, now: Instant);

    /// What the application does; `false` where it is not possible.
    fn act(&mut self, now: Instant, action: Action) -> bool;

    /// What the application was told since it was asked last.
    fn take_told(&mut self, now: Instant) -> Vec<Told>;

    /// When it has something to do of its own.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what is due.
    fn handle_timeout(&mut self, _now: Instant) {}

    /// Ends politely, for ever.
    fn close(&mut self, now: Instant);
}

/// What an application is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// As any other client tells it.
    Event(Event),
    /// What happens with the queue.
    Queue(QueueEvent),
    /// The connection, or an attempt, is over.
    Lost(Cause),
    /// The client gave up.
    GaveUp(String),
}

impl User {
    /// Lives with a real client until it leaves.
    pub(crate) async fn live_real(self: Rc<User>, world: Rc<World>) {
        self.arrive(&world).await;
        while !self.is_leaving() {
            if self.is_off() {
                self.ordered().await;
                continue;
            }
            let (plan, rng) = (self.plan(), self.life_rng());
            let program: Box<dyn Program> = match plan.kind {
                Kind::Stomp | Kind::StompWebSocket => Box::new(Stomp::new(self.number(), plan, rng, &world)),
                _ => Box::new(Realtime::new(self.number(), plan, rng, &world)),
            };
            let number = self.lives();
            let lines = Lines::default();
            let mut life = Life { user: &self, world: &world, program, lines, main: None, number };
            let why = life.live().await;
            life.let_go(&why);
            world.trace.note(format_args!("a life of user {} ended: {why}", self.number()));
            if why == LEFT || why.starts_with(GAVE_UP) {
                return;
            }
            // The program is started again.
            if self.lives() == number {
                self.forget(&world);
            }
        }
    }
}

/// Why lives end that are not followed by others.
const LEFT: &str = "left";
const GAVE_UP: &str = "gave up";

/// One run of a program.
struct Life<'a> {
    user: &'a User,
    world: &'a World,
    program: Box<dyn Program>,
    lines: Lines,
    /// The line over which it hears, which the checks know.
    main: Option<Line>,
    /// Which of its user's lives it is.
    number: u32,
}

impl Life<'_> {
    /// Moves the program until it is over, loses its memory, or its user leaves; says why.
    async fn live(&mut self) -> String {
        let (mut is_leaving, mut is_closing) = (false, false);
        self.program.start(self.now());
        loop {
            if let Some(why) = self.settle() {
                return why;
            }
            if self.program.machine().is_over() && self.lines.is_empty() {
                return if is_leaving { LEFT.to_owned() } else { "closed".to_owned() };
            }
            let now = self.now();
            if self.user.lives() != self.number {
                return "memory lost".to_owned();
            }
            if self.user.is_off() {
                self.lose_power();
                self.user.ordered().await;
                continue;
            }
            if let Some(until) = self.user.frozen_until(now) {
                self.world.checks.borrow_mut().frozen(self.user.number(), true);
                let _ = self.world.clock.timeout(until - now, self.user.ordered()).await;
                self.world.checks.borrow_mut().frozen(self.user.number(), false);
                continue;
            }
            if self.user.is_leaving() && !is_leaving {
                is_leaving = true;
                self.say_goodbye(&mut is_closing);
                continue;
            }
            if let Some(action) = self.user.next_order() {
                if action == Action::Goodbye {
                    self.say_goodbye(&mut is_closing);
                } else {
                    self.act(action);
                }
                continue;
            }
            let timeout = self.program.machine().poll_timeout();
            let own = self.program.poll_timeout();
            let resume = self.user.reading_resumes(now);
            let wake = [timeout, own, resume, self.lines.poll_timeout()].into_iter().flatten().min();
            let machine = self.program.machine();
            let happening = self.lines.next(machine, resume.is_some());
            tokio::select! {
                biased;
                () = self.user.ordered() => {}
                (line, happened) = happening => self.handle(line, happened),
                () = async { self.world.clock.sleep_until(wake.unwrap_or(now)).await }, if wake.is_some() => {
                    let now = self.world.clock.now();
                    self.lines.handle_timeout(now);
                    if timeout.is_some_and(|timeout| timeout <= now) {
                        self.program.machine().handle_timeout(now);
                    }
                    self.program.handle_timeout(now);
                }
            }
        }
    }

    fn now(&self) -> Instant {
        self.world.clock.now()
    }

    /// Tells what the application was told, and does what the machine wants; says why, if the client gave up.
    fn settle(&mut self) -> Option<String> {
        let (now, number) = (self.now(), self.user.number());
        let mut gave_up = None;
        for told in self.program.take_told(now) {
            let mut checks = self.world.checks.borrow_mut();
            match told {
                Told::Event(event) => {
                    checks.told(number, &event);
                    match &event {
                        // The backend's wish; the application asks again when it is told to.
                        Event::Unsubscribed { channel, code } if *code != 0 && *code < 2500 => {
                            checks.wants(number, channel, false);
                        }
                        // The backend's order came first; clients give up where they are told so.
                        Event::Refused { channel: Some(channel), code: ALREADY_SUBSCRIBED } => {
                            checks.gives_up(number, channel);
                        }
                        _ => {}
                    }
                }
                Told::Queue(event) => checks.queue_told(number, event),
                Told::Lost(cause) => {
                    if let Cause::Protocol(what) = &cause {
                        checks.hangs_up(number, &HangUp::Nonsense(what.clone()));
                    }
                    drop(checks);
                    self.let_go(&format!("{cause}"));
                }
                Told::GaveUp(why) => gave_up = Some(format!("{GAVE_UP}: {why}")),
            }
        }
        // Nobody reads what wakes whom: it is polled.
        drop(self.program.machine().take_wakes());
        while let Some(output) = self.program.machine().poll_output() {
            self.apply(output);
        }
        gave_up
    }

    fn apply(&mut self, output: Output) {
        match output {
            Output::Dial { line, address, timeout } => {
                let host = address.host.parse().expect("the servers of a plan are addresses");
                let to = SocketAddr::new(host, address.port);
                let (net, from) = (self.world.net.clone(), self.user.plan().ip);
                self.lines
                    .dial(line, async move { net.connect(from, to, timeout).await.map(|link| (link, to)) });
                // What is dialled beside a line that lives carries requests.
                self.main.get_or_insert(line);
            }
            Output::Transmit { line, bytes } => self.lines.transmit(line, &bytes),
            Output::Close { line, abort } => {
                if self.main == Some(line) {
                    self.let_go("closed");
                }
                self.lines.close(line, abort, self.now() + lines::CLOSE_GRACE);
            }
        }
    }

    /// The line over which it heard is gone.
    fn let_go(&mut self, why: &str) {
        let Some(line) = self.main.take() else { return };
        if self.lines.was_connected(line) {
            let mut checks = self.world.checks.borrow_mut();
            if !self.lines.has_ended(line) {
                // It ends the connection itself, and may say so.
                checks.acts(self.user.number(), Deed::Goodbye);
            }
            checks.parts(self.user.number(), self.lines.is_written(line));
            checks.lost(self.user.number(), why);
        }
    }

    fn handle(&mut self, line: Line, happened: Happened) {
        let now = self.now();
        match happened {
            Happened::Dialled(Ok((local, id, to))) => {
                if self.main == Some(line) {
                    let machine = self.world.plan.machines.iter().position(|http| http.ip() == to.ip());
                    let machine = machine.expect("only machines are dialled");
                    self.world.checks.borrow_mut().dialled(self.user.number(), machine, local, id);
                }
                self.program.machine().handle_dialled(now, line, Ok(()));
            }
            Happened::Dialled(Err(error)) => {
                let cause = match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => Cause::Refused,
                    std::io::ErrorKind::TimedOut => Cause::ConnectTimeout,
                    _ => Cause::Unreachable(error.to_string()),
                };
                self.program.machine().handle_dialled(now, line, Err(cause));
            }
            Happened::Wrote(unwritten) => self.program.machine().handle_unwritten(now, line, unwritten),
            Happened::Read(bytes) => self.program.machine().handle_bytes(now, line, &bytes),
            Happened::Ended(end) => self.program.machine().handle_end(now, line, end),
        }
    }

    /// Everything that was connected is not, and nobody is told before the host is back.
    fn lose_power(&mut self) {
        self.let_go("power lost");
        let now = self.now();
        for line in self.lines.drop_all() {
            self.program.machine().handle_end(now, line, End::Failed("power lost".to_owned()));
        }
    }

    fn say_goodbye(&mut self, is_closing: &mut bool) {
        if !std::mem::replace(is_closing, true) {
            self.world.checks.borrow_mut().acts(self.user.number(), Deed::Goodbye);
            self.program.close(self.now());
        }
    }

    fn act(&mut self, action: Action) {
        let (now, number) = (self.now(), self.user.number());
        let is_done = self.program.act(now, action.clone());
        match &action {
            Action::Subscribe(channel) if is_done => {
                self.world.checks.borrow_mut().wants(number, channel, true)
            }
            Action::Unsubscribe(channel) if is_done => {
                self.world.checks.borrow_mut().wants(number, channel, false);
            }
            Action::Send { number: message, body } if is_done => {
                self.world
                    .checks
                    .borrow_mut()
                    .queue_told(number, QueueEvent::Sent { number: *message, body: body.clone() });
            }
            _ => {}
        }
        self.world.trace.note(format_args!("user {number} does {action:?}: {is_done}"));
    }
}
