//! Makes a failing run small: the command that replays it with the fewest kinds of faults, clients and seconds.
//!
//! Each attempt leaves something out and is kept if the same promise is still broken.

use crate::trace::{Failure, Promise};
use crate::workload::{Fault, Options};
use std::time::Duration;

/// Leaves out what is not needed for `failure`; `replay` runs the seed with options.
pub fn shrink(
    options: &Options,
    failure: &Failure,
    replay: impl Fn(&Options) -> Option<Failure>,
) -> (Options, Failure) {
    let mut best = (options.clone(), failure.clone());
    let attempt = |options: Options, best: &mut (Options, Failure)| {
        let again = replay(&options).filter(|again| again.promise == failure.promise);
        let is_kept = again.is_some();
        if let Some(again) = again {
            *best = (options, again);
        }
        is_kept
    };
    if failure.promise == Promise::Durable {
        return best;
    }
    if failure.promise != Promise::Converges && failure.promise != Promise::NothingLeft {
        let until = Duration::from_secs(failure.at.as_secs() + 1);
        attempt(Options { until: Some(until), ..best.0.clone() }, &mut best);
    }
    for fault in Fault::ALL {
        let mut fewer = best.0.clone();
        if fewer.without.insert(fault) {
            attempt(fewer, &mut best);
        }
    }
    for clients in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256] {
        if best.0.clients.is_some_and(|now| now <= clients)
            || attempt(Options { clients: Some(clients), ..best.0.clone() }, &mut best)
        {
            break;
        }
    }
    best
}

/// The command that replays a run.
pub fn command(seed: u64, options: &Options) -> String {
    let mut command = format!("cargo run --release -p sim -- {seed}");
    if let Some(clients) = options.clients {
        command.push_str(&format!(" --clients {clients}"));
    }
    if let Some(until) = options.until {
        command.push_str(&format!(" --until {}", until.as_secs_f64()));
    }
    for fault in &options.without {
        command.push_str(&format!(" --without {fault:?}"));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_breaks_the_promise_is_kept() {
        let failure = Failure { promise: Promise::NoGap, at: Duration::from_secs(9), what: String::new() };
        let replay = |options: &Options| {
            let needs = !options.without.contains(&Fault::Kill) && options.clients.is_none_or(|n| n >= 3);
            needs.then(|| failure.clone())
        };
        let (small, _) = shrink(&Options::default(), &failure, replay);
        assert_eq!((small.clients, small.until), (Some(3), Some(Duration::from_secs(10))));
        assert_eq!(small.without.len(), Fault::ALL.len() - 1);
        assert!(
            command(7, &small)
                .starts_with("cargo run --release -p sim -- 7 --clients 3 --until 10 --without ")
        );
    }
}
