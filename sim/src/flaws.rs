//! The self-check: each deliberate flaw must break a promise within a few seeds.

use crate::trace::Failure;
use crate::workload::Options;
use longwire_protocol::flaw::{self, Flaw};

/// Within so many seeds, from 1, a flaw must be caught.
pub const SEEDS: u64 = 50;

/// Turns a flaw on and runs seeds until one fails: which, and how.
pub fn catch(flaw: Flaw) -> Option<(u64, Failure)> {
    flaw::turn_on(Some(flaw));
    let caught =
        (1..=SEEDS).find_map(|seed| Some((seed, crate::run(seed, &Options::default(), false).failure?)));
    flaw::turn_on(None);
    caught
}
