//! What lies between two hosts: how good it is, and what is wrong with it.
//!
//! Only asked, never acting: a connection asks whether its segment passes at the instant at which it would
//! arrive. So a fault that comes and goes while a segment is under way does it no harm, and one that is there
//! when it arrives takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How good a way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// How long a segment is under way at least.
    pub latency: Duration,
    /// By how much longer a segment may be under way; drawn for each, and order is kept.
    pub jitter: Duration,
    /// How much one direction of one connection carries; unlimited if `None`.
    pub bytes_per_second: Option<u64>,
    /// How many bytes one direction holds that are written and not read: one half in the reader's kernel, the
    /// other in the writer's. At least 2.
    pub window: usize,
}

impl Default for Quality {
    /// A good local network, and Linux-like buffers.
    fn default() -> Quality {
        Quality {
            latency: Duration::from_millis(1),
            jitter: Duration::from_millis(1),
            bytes_per_second: None,
            window: 64 * 1024,
        }
    }
}

/// Whether something that would arrive at an instant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Open,
    /// Not before then.
    Stalled(Instant),
    /// It is lost.
    Dead,
}

#[derive(Default)]
pub(super) struct Links {
    pub(super) default: Quality,
    pub(super) hosts: BTreeMap<IpAddr, Quality>,
    pub(super) pairs: BTreeMap<(IpAddr, IpAddr), Quality>,
    blocked: BTreeSet<(IpAddr, IpAddr)>,
    stalled: BTreeMap<(IpAddr, IpAddr), Instant>,
}

impl Links {
    /// What a direction of a connection is like: as set for the pair, or else the worse of the two hosts with
    /// the reader's window, or else the default.
    pub(super) fn quality(&self, from: IpAddr, to: IpAddr) -> Quality {
        if let Some(quality) = self.pairs.get(&(from.min(to), from.max(to))) {
            return *quality;
        }
        match (self.hosts.get(&from), self.hosts.get(&to)) {
            (None, None) => self.default,
            (Some(one), None) | (None, Some(one)) => *one,
            (Some(from), Some(to)) => Quality {
                latency: from.latency.max(to.latency),
                jitter: from.jitter.max(to.jitter),
                bytes_per_second: match (from.bytes_per_second, to.bytes_per_second) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                },
                window: to.window,
            },
        }
    }

    /// Blocks one direction; whether it was open.
    pub(super) fn block(&mut self, from: IpAddr, to: IpAddr) -> bool {
        self.blocked.insert((from, to))
    }

    /// Lifts the block and the stall of one direction; whether there was a block.
    pub(super) fn repair(&mut self, from: IpAddr, to: IpAddr) -> bool {
        self.stalled.remove(&(from, to));
        self.blocked.remove(&(from, to))
    }

    /// All pairs with a block or a stall.
    pub(super) fn faulty(&self) -> Vec<(IpAddr, IpAddr)> {
        self.blocked.iter().chain(self.stalled.keys()).copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Stalls one direction, for no shorter than it is stalled already.
    pub(super) fn stall(&mut self, from: IpAddr, to: IpAddr, until: Instant, now: Instant) {
        self.stalled.retain(|_, until| *until > now);
        let entry = self.stalled.entry((from, to)).or_insert(until);
        *entry = until.max(*entry);
    }

    pub(super) fn is_blocked(&self, from: IpAddr, to: IpAddr) -> bool {
        self.blocked.contains(&(from, to))
    }

    pub(super) fn path(&self, from: IpAddr, to: IpAddr, now: Instant) -> Path {
        if self.is_blocked(from, to) {
            return Path::Dead;
        }
        match self.stalled.get(&(from, to)) {
            Some(until) if *until > now => Path::Stalled(*until),
            _ => Path::Open,
        }
    }
}
