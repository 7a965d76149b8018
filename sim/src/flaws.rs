//! The self-check: each deliberate flaw must break a promise within a few seeds.
//!
//! A flaw that only certain faults bring to light is looked for among plans that hold nothing else. One that seeds
//! show too seldom is named with the test that shows it every time.

use crate::trace::Failure;
use crate::workload::{Fault, Options};
use longwire_protocol::flaw::{self, Flaw};

/// Within so many seeds, from 1, a flaw must be caught.
pub const SEEDS: u64 = 50;

/// The test that shows a flaw which seeds do not show within [`SEEDS`], if it is one: few of all users are on a link
/// with a way back and silent for longer than the heartbeat's limit.
pub fn shown_elsewhere(flaw: Flaw) -> Option<&'static str> {
    (flaw == Flaw::SilenceForgiven).then_some("longwire/tests/it/heartbeat.rs")
}

/// Turns a flaw on and runs seeds until one fails: which, and how.
pub fn catch(flaw: Flaw) -> Option<(u64, Failure)> {
    let options = match flaw {
        Flaw::InterestNotAwaited => only(&[Fault::Resubscribe, Fault::Orders, Fault::Weather]),
        _ => Options::default(),
    };
    flaw::turn_on(Some(flaw));
    let caught = (1..=SEEDS).find_map(|seed| Some((seed, crate::run(seed, &options, false).failure?)));
    flaw::turn_on(None);
    caught
}

/// Plans without any faults but these.
fn only(faults: &[Fault]) -> Options {
    let without = Fault::ALL.iter().copied().filter(|fault| !faults.contains(fault)).collect();
    Options { without, ..Options::default() }
}
