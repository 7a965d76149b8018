//! Chance: delays, masks, keys.
//!
//! A client that was given a seed has a generator of its own, so that its whole behaviour follows from seed and inputs.
//! The others draw from one that their thread's clients share, for a generator is a tenth of what an idle client may
//! cost. No secret is made of what is drawn: a WebSocket's masks and keys only have to be unpredictable to pages that
//! choose payloads (RFC 6455 section 10.3), and those do not know the seed.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::cell::RefCell;

thread_local! {
    static SHARED: RefCell<ChaCha8Rng> = RefCell::new(seeded_by_the_system());
}

/// A random generator.
#[derive(Clone)]
pub(crate) enum Chance {
    /// Seeded by the operating system.
    Shared,
    Own(Box<ChaCha8Rng>),
}

impl Chance {
    /// A generator whose whole future follows from `seed`; `None`: the operating system seeds it.
    pub(crate) fn new(seed: Option<u64>) -> Chance {
        match seed {
            Some(seed) => Chance::Own(Box::new(ChaCha8Rng::seed_from_u64(seed))),
            None => Chance::Shared,
        }
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.with(|generator| generator.next_u64())
    }

    /// A number from 0.0 up to but not including 1.0.
    pub(crate) fn draw(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The mask of a WebSocket frame, drawn anew for each (RFC 6455 section 5.3).
    pub(crate) fn mask(&mut self) -> [u8; 4] {
        self.with(|generator| generator.next_u32().to_le_bytes())
    }

    /// The key of a WebSocket handshake, drawn anew for each (RFC 6455 section 4.1).
    pub(crate) fn key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        self.with(|generator| generator.fill_bytes(&mut key));
        key
    }

    fn with<T>(&mut self, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        match self {
            Chance::Shared => SHARED.with_borrow_mut(draw),
            Chance::Own(generator) => draw(generator),
        }
    }
}

fn seeded_by_the_system() -> ChaCha8Rng {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).expect("the operating system gives random bytes");
    ChaCha8Rng::from_seed(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        let drawn = |seed| {
            let mut chance = Chance::new(seed);
            (chance.bits(), chance.mask(), chance.key())
        };
        assert_eq!(drawn(Some(7)), drawn(Some(7)));
        assert_ne!(drawn(Some(7)), drawn(Some(8)));
        assert_ne!(drawn(None), drawn(None));
    }

    #[test]
    fn what_is_drawn_is_at_least_nought_and_less_than_one() {
        let mut chance = Chance::new(Some(1));
        let mean = (0..10_000)
            .map(|_| chance.draw())
            .inspect(|drawn| assert!((0.0..1.0).contains(drawn)))
            .sum::<f64>()
            / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }
}
