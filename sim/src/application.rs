//! The application behind the servers: what they call over HTTP, and how those calls fail.
//!
//! It stands behind [`longwire::env::http::Caller`]. A call takes time there and back; it may find nobody, be heard
//! and not answered, be refused before or after it was heard, or be answered by nonsense. What is under way when a
//! process is killed arrives all the same. What a call says is none of its business: [`Application::serve`] hands
//! each to a function. What must stay true: everything follows from the seed, the calls and their times.

use bytes::Bytes;
use longwire::env::http::{Answer, Call, Caller, Calling, Http, HttpError};
use longwire::env::{Clock, Rng};
use std::collections::{BTreeMap, VecDeque};
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
pub enum Fate {
    /// It is heard and answered.
    Answered,
    /// It is heard; who called waits in vain.
    AnswerLost,
    /// It is heard; who called learns that the connection broke.
    AnswerBroken,
    /// It is not heard; who called waits in vain.
    Silence,
    /// It is not heard, and refused with this status.
    RefusedUnheard(u16),
    /// It is heard, and refused with this status.
    RefusedHeard(u16),
    /// It is heard, and answered by what cannot be understood.
    Nonsense,
    /// Nobody listens.
    Dead,
}

/// How far a call came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// It is made; whether its answer, if there is one, comes in time.
    Made(Fate, bool),
    /// The application hears it.
    Heard(Fate),
}

impl Fate {
    fn is_heard(self) -> bool {
        !matches!(self, Fate::Silence | Fate::RefusedUnheard(_) | Fate::Dead)
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
    /// Calls that were just made.
    made: VecDeque<(usize, Call, Stage)>,
    calls: u64,
    changed: Arc<Notify>,
}

struct Arrival {
    machine: usize,
    call: Call,
    fate: Fate,
    answer: oneshot::Sender<Answer>,
}

impl Application {
    /// An application that is well.
    pub fn new(clock: Clock, rng: Rng) -> Application {
        let inner = Inner {
            clock,
            rng,
            conduct: WELL,
            coming: BTreeMap::new(),
            made: VecDeque::new(),
            calls: 0,
            changed: Arc::default(),
        };
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

    /// Has each call told that is made, and heard that arrives, for ever; what is answered to one that is only made is
    /// nothing to anybody.
    pub async fn serve(self, mut hear: impl FnMut(usize, &Call, Stage) -> Answer) {
        let clock = self.lock().clock;
        let changed = self.lock().changed.clone();
        loop {
            let now = clock.now();
            let made = self.lock().made.pop_front();
            if let Some((machine, call, stage)) = made {
                drop(hear(machine, &call, stage));
                continue;
            }
            let due = {
                let mut inner = self.lock();
                match inner.coming.first_key_value().map(|((at, _), _)| *at) {
                    Some(at) if at <= now => inner.coming.pop_first().map(|(_, arrival)| Ok(arrival)),
                    other => other.map(Err),
                }
            };
            match due {
                Some(Ok(Arrival { machine, call, fate, answer })) => {
                    // An error means that who called is gone.
                    let _ = answer.send(hear(machine, &call, Stage::Heard(fate)));
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
        let fate = if inner.conduct.is_dead { Fate::Dead } else { fate };
        inner.made.push_back((self.machine, call.clone(), Stage::Made(fate, there + back < timeout)));
        inner.changed.notify_one();
        if fate.is_heard() {
            inner.calls += 1;
            let key = (clock.now() + there, inner.calls);
            inner.coming.insert(key, Arrival { machine: self.machine, call, fate, answer });
        }
        let answering = async move {
            if fate == Fate::Dead {
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
                Fate::AnswerLost | Fate::Silence | Fate::Dead => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use longwire::env::http::Method;
    use std::cell::Cell;
    use std::rc::Rc;

    fn call(body: &'static str) -> Call {
        Call {
            method: Method::Post,
            url: "http://application.test/x".into(),
            headers: Vec::new(),
            body: body.into(),
            timeout: Duration::from_secs(1),
            max_answer_bytes: 1000,
            must_be_public: false,
        }
    }

    /// What comes of a call, and how many calls were heard.
    fn try_out(conduct: Conduct) -> (Result<Answer, HttpError>, u32) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let clock = Clock::starting_at(Duration::ZERO);
            let application = Application::new(clock, Rng::from_seed(1));
            application.set_conduct(conduct);
            let heard = Rc::<Cell<u32>>::default();
            let counted = heard.clone();
            tokio::task::spawn_local(application.clone().serve(move |machine, call, stage| {
                counted.set(counted.get() + u32::from(matches!(stage, Stage::Heard(_))));
                Answer { status: 200, body: format!("{machine} {:?}", call.body).into() }
            }));
            let answer = application.way_from(3).call(call("hello")).await;
            (answer, heard.get())
        })
    }

    #[test]
    fn a_call_is_heard_and_answered_or_fails_as_its_conduct_says() {
        let (answer, heard) = try_out(WELL);
        assert_eq!((answer.unwrap().body, heard), (Bytes::from_static(b"3 b\"hello\""), 1));
        let (answer, heard) = try_out(Conduct { is_dead: true, ..WELL });
        assert!(matches!(answer, Err(HttpError::Unreachable(_))) && heard == 0);
        let (answer, heard) = try_out(Conduct { silent: 1.0, ..WELL });
        assert_eq!((answer, heard), (Err(HttpError::TimedOut(Duration::from_secs(1))), 0));
        let (answer, heard) = try_out(Conduct { losing: 1.0, ..WELL });
        assert!(answer.is_err() && heard == 1, "heard, and nobody knows");
        let (answer, heard) = try_out(Conduct { babbling: 1.0, ..WELL });
        assert!(serde_json::from_slice::<serde_json::Value>(&answer.unwrap().body).is_err() && heard == 1);
        let (answer, heard) = try_out(Conduct { latency: Duration::from_secs(60), ..WELL });
        assert_eq!((answer, heard), (Err(HttpError::TimedOut(Duration::from_secs(1))), 0));
    }
}
