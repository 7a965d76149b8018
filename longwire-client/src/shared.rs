//! A machine, shared by its driver and the handles of the application.
//!
//! A handle locks, says something, and lets go; whoever is to be woken by it is woken when no lock is held. No lock is
//! held across an await, and there is no queue between a handle and its machine. What must stay true: nobody but the
//! driver takes outputs, and it is nudged whenever there may be one.

use crate::driver::Driver;
use crate::machine::Machine;
use crate::options::Tls;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

/// A machine and who moves it.
#[derive(Debug)]
pub(crate) struct Shared<M> {
    state: Mutex<State<M>>,
}

#[derive(Debug)]
struct State<M> {
    machine: M,
    driver: Option<Waker>,
}

impl<M: Machine> Shared<M> {
    /// Moves a machine with a task of the current tokio runtime, until it is over.
    ///
    /// # Panics
    /// Outside a tokio runtime, as [`tokio::spawn`] does.
    pub(crate) fn spawn(machine: M, tls: Tls) -> Arc<Shared<M>> {
        let shared = Arc::new(Shared { state: Mutex::new(State { machine, driver: None }) });
        tokio::spawn(Driver::new(Arc::clone(&shared), tls));
        shared
    }

    /// Says something to the machine, and has done what follows from it.
    pub(crate) fn with<R>(&self, say: impl FnOnce(&mut M, Instant) -> R) -> R {
        self.with_nudge(|machine, now| (say(machine, now), true))
    }

    /// As [`with`](Self::with) for what mostly wants nothing done, such as taking an event: `say` tells whether the driver
    /// is to look.
    pub(crate) fn with_nudge<R>(&self, say: impl FnOnce(&mut M, Instant) -> (R, bool)) -> R {
        let mut state = self.lock();
        let (result, nudge) = say(&mut state.machine, now());
        let wakes = state.machine.take_wakes();
        let driver = if nudge { state.driver.take() } else { None };
        drop(state);
        wakes.into_iter().chain(driver).for_each(Waker::wake);
        result
    }

    /// What the driver says: it is nudged by whatever comes after.
    pub(crate) fn drive<R>(&self, driver: &Waker, say: impl FnOnce(&mut M, Instant) -> R) -> R {
        let mut state = self.lock();
        if !state.driver.as_ref().is_some_and(|known| known.will_wake(driver)) {
            state.driver = Some(driver.clone());
        }
        let result = say(&mut state.machine, now());
        let wakes = state.machine.take_wakes();
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        // A panic in somebody's closure leaves the machine as it was between two inputs at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time that machines are told: tokio's, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
