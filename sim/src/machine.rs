//! One simulated machine with a longwire process on it, which can be paused, killed and started again.
//!
//! The server is the real one: [`Server::assemble`] gives what its threads do, and each runs here as a task of
//! its own, so that the simulator decides which of them gets on. Killing drops all of them between two of their
//! turns, wherever they are.

use longwire::broker::{Broker, Channels, Outlets};
use longwire::config::Config;
use longwire::env::{Clock, Env, Rng};
use longwire::node::Node;
use longwire::server::{Server, Thread};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::task::LocalSet;

/// Of a thousand turns of a thread, how many are put off behind everybody else's.
const PUT_OFF: f64 = 0.02;

/// A machine.
pub struct Machine {
    clock: Clock,
    process: RefCell<Option<Rc<Process>>>,
}

/// A running process.
pub struct Process {
    server: Server,
    threads: Vec<Rc<Running>>,
    paused_until: Rc<Cell<Option<Instant>>>,
}

/// A thread that runs, until its process is killed.
struct Running {
    tasks: RefCell<Option<LocalSet>>,
    /// Turns until the process dies by itself.
    fuse: Rc<Cell<Option<u64>>>,
}

impl Machine {
    /// A machine without a process.
    pub fn new(clock: Clock) -> Machine {
        Machine { clock, process: RefCell::default() }
    }

    /// Starts the process.
    ///
    /// # Errors
    /// The configuration does not work.
    pub fn start(
        &self,
        config: Config,
        env: Env,
        rng: &Rng,
        broker: impl FnOnce(Outlets, Arc<Channels>) -> Box<dyn Broker>,
    ) -> std::io::Result<()> {
        let (server, threads, _bound) = Server::assemble(config, false, env, broker)?;
        let (paused_until, fuse) = (Rc::<Cell<_>>::default(), Rc::<Cell<_>>::default());
        let start = |Thread { name, begin }: Thread| {
            let tasks = LocalSet::new();
            tasks.spawn_local(async move { begin().await });
            let running = Rc::new(Running { tasks: RefCell::new(Some(tasks)), fuse: fuse.clone() });
            tokio::task::spawn_local(Turns {
                running: running.clone(),
                rng: rng.fork(&format!("turns of {name}")),
                clock: self.clock,
                paused_until: paused_until.clone(),
                pause: None,
            });
            running
        };
        let threads = threads.into_iter().map(start).collect();
        let process = Process { server, threads, paused_until };
        self.process.replace(Some(Rc::new(process)));
        Ok(())
    }

    /// The process that runs.
    pub fn process(&self) -> Option<Rc<Process>> {
        self.process.borrow().clone().filter(|process| process.is_alive())
    }

    /// Whether this process is there, dead or alive.
    pub fn is_running(&self, process: &Rc<Process>) -> bool {
        self.process.borrow().as_ref().is_some_and(|running| Rc::ptr_eq(running, process))
    }

    /// Whether a process is there, dead or alive.
    pub fn is_occupied(&self) -> bool {
        self.process.borrow().is_some()
    }

    /// Ends the process at once, as `kill -9` does.
    pub fn kill(&self) {
        if let Some(process) = self.process.take() {
            process.threads.iter().for_each(|thread| thread.stop());
        }
    }
}

impl Process {
    /// What the process serves.
    pub fn node(&self) -> &Arc<Node> {
        self.server.node()
    }

    /// Lets no thread get on until then.
    pub fn pause(&self, until: Instant) {
        self.paused_until.set(self.paused_until.get().max(Some(until)));
    }

    /// Lets no thread get on after so many turns of all of them; [`Machine::kill`] does the rest.
    pub fn light_fuse(&self, turns: u64) {
        self.threads.iter().for_each(|thread| thread.fuse.set(Some(turns)));
    }

    /// Drains the server, as upon a SIGTERM.
    pub async fn drain(&self) {
        self.server.drained().await;
    }

    /// Whether no fuse has burnt down.
    pub fn is_alive(&self) -> bool {
        self.threads.iter().all(|thread| thread.fuse.get() != Some(0))
    }
}

impl Running {
    fn stop(&self) {
        drop(self.tasks.take());
    }
}

/// The turns of one thread.
struct Turns {
    running: Rc<Running>,
    rng: Rng,
    clock: Clock,
    paused_until: Rc<Cell<Option<Instant>>>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Future for Turns {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let now = this.clock.now();
        while let Some(until) = this.paused_until.get().filter(|until| *until > now) {
            let pause = this.pause.get_or_insert_with(|| Box::pin(this.clock.sleep_until(until)));
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        if this.rng.fraction() < PUT_OFF {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let fuse = &this.running.fuse;
        match fuse.get() {
            // Dead; its sockets close when the machine is told to kill what is left of it.
            Some(0) => return Poll::Pending,
            Some(left) => fuse.set(Some(left - 1)),
            None => {}
        }
        let mut tasks = this.running.tasks.borrow_mut();
        let Some(set) = &mut *tasks else { return Poll::Ready(()) };
        Pin::new(set).poll(cx)
    }
}
