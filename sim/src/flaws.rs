//! The self-check: each deliberate flaw must break a promise within a few seeds. One that seeds show too seldom is named
//! with the test that shows it every time.

use crate::trace::Failure;
use crate::workload::Options;
use longwire_protocol::flaw::{self, Flaw};

/// Within so many seeds, from 1, a flaw must be caught.
pub const SEEDS: u64 = 50;

/// The test that shows a flaw which seeds do not show within [`SEEDS`], if it is one.
pub fn shown_elsewhere(flaw: Flaw) -> Option<&'static str> {
    match flaw {
        // Two must join one channel of one shard while the broker is asked for it, and a message pass just then.
        Flaw::InterestNotAwaited => Some("longwire/src/shard/interest/tests.rs"),
        // Few of all users are on a link with a way back and silent for longer than the heartbeat's limit.
        Flaw::SilenceForgiven => Some("longwire/tests/it/heartbeat.rs"),
        _ => None,
    }
}

/// Turns a flaw on and runs seeds until one fails: which, and how.
pub fn catch(flaw: Flaw) -> Option<(u64, Failure)> {
    flaw::turn_on(Some(flaw));
    let caught =
        (1..=SEEDS).find_map(|seed| Some((seed, crate::run(seed, &Options::default(), false).failure?)));
    flaw::turn_on(None);
    caught
}
