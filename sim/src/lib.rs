//! Whole servers and clients in one thread, in invented time, under a seed.
//!
//! [`run`] is the entry. [`ledger`] runs a journal on a [`disk`] that fails, and [`queues`] runs queues; [`world`] draws a [`workload::Plan`]
//! from the seed, starts real servers ([`machine`]) and clients ([`user`], [`client`]) on a network that fails
//! ([`net`]) and brokers that lose ([`broker`]), and has [`checks`] judge what comes of it against the [`model`].
//! The same seed gives the same run, to the last event, which [`trace`] proves by a digest. What must stay true:
//! nothing here asks the machine for time, chance or a socket, and no order depends on a hash.

pub mod application;
pub mod broker;
pub mod checks;
pub mod client;
pub mod courier;
pub mod disk;
#[cfg(feature = "flaws")]
pub mod flaws;
pub mod ledger;
pub mod machine;
pub mod model;
pub mod net;
pub mod queues;
mod real;
pub mod shrink;
pub mod trace;
pub mod user;
pub mod workload;
pub mod world;

use trace::{Failure, Promise};
use workload::Options;
use world::Outcome;

/// Steps of the ledger in each run.
const LEDGER_STEPS: usize = 300;

/// Steps of the queues in each run.
const QUEUE_STEPS: usize = 300;

/// Runs what a seed stands for: first the ledger and the queues, then the world.
pub fn run(seed: u64, options: &Options, is_loud: bool) -> Outcome {
    let disks = ledger::run(seed, LEDGER_STEPS)
        .and_then(|ledger| Ok(ledger.digest ^ queues::run(seed, QUEUE_STEPS)?.digest.rotate_left(7)));
    match disks {
        Ok(digest) => {
            let run = || world::run(seed, options, is_loud);
            let mut outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                let what = "the simulator itself panicked".to_owned();
                let failure = Failure { promise: Promise::NoPanic, at: std::time::Duration::ZERO, what };
                Outcome { failure: Some(failure), ..Outcome::default() }
            });
            outcome.digest ^= digest.rotate_left(1);
            outcome
        }
        Err(what) => {
            let failure = Failure { promise: Promise::Durable, at: std::time::Duration::ZERO, what };
            Outcome { failure: Some(failure), ..Outcome::default() }
        }
    }
}
