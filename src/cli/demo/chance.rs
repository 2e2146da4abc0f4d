//! Random numbers that are the same in every run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A sequence of random numbers that belongs to its seed.
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number from `low` up to, but not including, `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        let fraction = f64::from(self.0.next_u32()) / (f64::from(u32::MAX) + 1.0);
        low + (high - low) * fraction
    }
}
