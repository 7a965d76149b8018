//! The application behind the servers: what they call over HTTP, and how those calls fail.
//!
//! It stands behind [`longwire::env::http::Caller`]. A call takes time there and back; it may find nobody, be heard
//! and not answered, be refused before or after it was heard, or be answered by nonsense. What is under way when a
//! process is killed arrives all the same. What a call says is none of its business: [`Application::serve`] hands
//! each to a function. What must stay true: everything follows from the seed, the calls and their times.

use bytes::Bytes;
use longwire::env::http::{Answer, Call, Caller, Calling, Http, HttpError};
use longwire::env::{Clock, Rng};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// How the application behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conduct {
    /// The longest that a call takes in each direction; the shortest is a tenth of it.
    pub latency: Duration,
    /// Nobody listens.
    pub is_dead: bool,
    /// Share of calls that are heard and whose answer is lost (0.0 to 1.0).
    pub losing: f64,
    /// Share of calls that are not heard, nor answered.
    pub silent: f64,
    /// Share of calls that are refused, half of them after they were heard.
    pub refusing: f64,
    /// Share of calls that are heard and answered by nonsense.
    pub babbling: f64,
}

/// An application that does what it should.
pub const WELL: Conduct = Conduct {
    latency: Duration::from_millis(20),
    is_dead: false,
    losing: 0.0,
    silent: 0.0,
    refusing: 0.0,
    babbling: 0.0,
};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    AnswerLost,
    AnswerBroken,
    Silence,
    RefusedUnheard(u16),
    RefusedHeard(u16),
    Nonsense,
}

impl Fate {
    fn is_heard(self) -> bool {
        !matches!(self, Fate::Silence | Fate::RefusedUnheard(_))
    }
}

/// The application; copies are the same one.
#[derive(Clone)]
pub struct Application(Arc<Mutex<Inner>>);

struct Inner {
    clock: Clock,
    rng: Rng,
    conduct: Conduct,
    /// Calls on their way, by the time at which they arrive.
    coming: BTreeMap<(Instant, u64), Arrival>,
    calls: u64,
    changed: Arc<Notify>,
}

struct Arrival {
    machine: usize,
    call: Call,
    answer: oneshot::Sender<Answer>,
}

impl Application {
    /// An application that is well.
    pub fn new(clock: Clock, rng: Rng) -> Application {
        let inner =
            Inner { clock, rng, conduct: WELL, coming: BTreeMap::new(), calls: 0, changed: Arc::default() };
        Application(Arc::new(Mutex::new(inner)))
    }

    /// Changes how it behaves towards calls that come.
    pub fn set_conduct(&self, conduct: Conduct) {
        self.lock().conduct = conduct;
    }

    /// The way from a machine to it.
    pub fn way_from(&self, machine: usize) -> Http {
        Http::of(Arc::new(Way { application: self.clone(), machine }))
    }

    /// Has each call that arrives heard, for ever.
    pub async fn serve(self, mut hear: impl FnMut(usize, &Call) -> Answer) {
        let clock = self.lock().clock;
        let changed = self.lock().changed.clone();
        loop {
            let now = clock.now();
            let due = {
                let mut inner = self.lock();
                match inner.coming.first_key_value().map(|((at, _), _)| *at) {
                    Some(at) if at <= now => inner.coming.pop_first().map(|(_, arrival)| Ok(arrival)),
                    other => other.map(Err),
                }
            };
            match due {
                Some(Ok(Arrival { machine, call, answer })) => {
                    // An error means that who called is gone.
                    let _ = answer.send(hear(machine, &call));
                }
                Some(Err(at)) => drop(clock.timeout(at - now, changed.notified()).await),
                None => changed.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn delay(&mut self) -> Duration {
        self.conduct.latency.mul_f64(0.1 + 0.9 * self.rng.fraction())
    }

    fn draw(&mut self) -> Fate {
        let Conduct { losing, silent, refusing, babbling, .. } = self.conduct;
        let (what, half) = (self.rng.fraction(), self.rng.fraction() < 0.5);
        let status = [500, 503, 404, 429, 302][(self.rng.bits() % 5) as usize];
        let shares = [losing, silent, refusing, babbling];
        let mut end = 0.0;
        let drawn = shares.iter().position(|share| {
            end += share;
            what < end
        });
        match (drawn, half) {
            (Some(0), true) => Fate::AnswerLost,
            (Some(0), false) => Fate::AnswerBroken,
            (Some(1), _) => Fate::Silence,
            (Some(2), true) => Fate::RefusedHeard(status),
            (Some(2), false) => Fate::RefusedUnheard(status),
            (Some(_), _) => Fate::Nonsense,
            (None, _) => Fate::Answered,
        }
    }
}

/// The way from one machine.
struct Way {
    application: Application,
    machine: usize,
}

impl Caller for Way {
    fn call(&self, call: Call) -> Calling {
        let (answer, receiver) = oneshot::channel();
        let inner = &mut *self.application.lock();
        let (clock, timeout) = (inner.clock, call.timeout);
        let (there, back, fate) = (inner.delay(), inner.delay(), inner.draw());
        let is_dead = inner.conduct.is_dead;
        if !is_dead && fate.is_heard() {
            inner.calls += 1;
            let key = (clock.now() + there, inner.calls);
            inner.coming.insert(key, Arrival { machine: self.machine, call, answer });
            inner.changed.notify_one();
        }
        let answering = async move {
            if is_dead {
                clock.sleep(there).await;
                return Err(HttpError::Unreachable("nobody listens there".to_owned()));
            }
            let said = match fate {
                Fate::RefusedUnheard(_) => {
                    clock.sleep(there).await;
                    None
                }
                Fate::Silence => std::future::pending().await,
                _ => receiver.await.ok(),
            };
            clock.sleep(back).await;
            match fate {
                Fate::AnswerLost | Fate::Silence => std::future::pending().await,
                Fate::AnswerBroken => Err(HttpError::Broken("the connection was reset".to_owned())),
                Fate::RefusedUnheard(status) | Fate::RefusedHeard(status) => {
                    Ok(Answer { status, body: Bytes::from_static(b"no") })
                }
                Fate::Nonsense => Ok(Answer { status: 200, body: Bytes::from_static(b"{\"result\":[{") }),
                Fate::Answered => said.ok_or_else(|| HttpError::Broken("the application ended".to_owned())),
            }
        };
        Box::pin(async move {
            clock.timeout(timeout, answering).await.unwrap_or(Err(HttpError::TimedOut(timeout)))
        })
    }
}
