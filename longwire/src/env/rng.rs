//! Chance: ids, epochs, spreading of beats and delays.
//!
//! A generator is seeded once and forked by name, so that what one part draws does not depend on how much
//! another part drew. The system's seed comes from the operating system; the numbers are good enough for
//! identifiers, and no key is made from them.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::hash::{BuildHasher, Hasher};

/// A random generator; [`fork`](Rng::fork) makes independent ones.
#[derive(Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// A generator that the operating system seeded.
    pub fn system() -> Rng {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).expect("the operating system gives random bytes");
        Rng(ChaCha8Rng::from_seed(seed))
    }

    /// A generator whose whole future follows from `seed`.
    pub fn from_seed(seed: u64) -> Rng {
        Rng(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A generator that follows from this one's seed and `name`; this one is not advanced.
    pub fn fork(&self, name: &str) -> Rng {
        let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
        hasher.write(name.as_bytes());
        let mut seed = self.0.get_seed();
        for (byte, mix) in seed.iter_mut().zip(hasher.finish().to_le_bytes()) {
            *byte ^= mix;
        }
        Rng(ChaCha8Rng::from_seed(seed))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 128 random bits.
    pub fn bits_128(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }

    /// A number from 0.0 up to but not including 1.0.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_differ_by_name_and_follow_from_the_seed() {
        let root = Rng::from_seed(42);
        let (mut a, mut b, mut again) = (root.fork("a"), root.fork("b"), Rng::from_seed(42).fork("a"));
        let first = a.bits();
        assert_eq!(first, again.bits());
        assert_ne!(first, b.bits());
        assert!((0.0..1.0).contains(&a.fraction()));
    }
}
