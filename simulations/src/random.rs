//! Randomness: one root seed, and from it a stream of its own for every purpose, so that one draw more for one
//! purpose changes nothing for any other.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream is for. The number of a node or workload is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Delay, loss, duplication of messages.
    Network = 1,
    /// Drift and offsets of clocks, lateness of timers.
    Clocks = 2,
    /// Which faults happen when.
    Faults = 3,
    /// What a swarm run is like.
    Options = 4,
    /// Arrivals, and their costs; one stream for each workload.
    Workload = 5,
    /// The randomness that is handed to each node.
    Nodes = 6,
    /// What is probed and measured.
    Probes = 7,
    /// The draws of rival schemes.
    Rivals = 8,
    /// What comes of requests once they are admitted; one stream for each workload.
    Calls = 9,
    /// Who lies, and what liars draw; a stream for each life of each.
    Liars = 10,
    /// What callers ask for, and how long they think; a stream for each of them.
    Callers = 11,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `seed` for a purpose; `number` tells several streams of one purpose apart.
    pub fn new(seed: u64, purpose: Purpose, number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((purpose as u64) << 48 | number);
        Self(rng)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; zero if that is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Widening multiplication (Lemire 2019) without rejection: the bias is below 2⁻³² for bounds up to 2³².
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 up to but not including 1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Exponentially distributed with this mean: the distance between arrivals that know nothing of one another.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.unit()).ln() * mean
    }

    /// Normally distributed around 0 with deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// 32 bytes to seed a node with.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.draw().to_be_bytes()));
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_the_same_for_the_same_seed_and_different_for_different_purposes() {
        let first = |seed, purpose, number| Stream::new(seed, purpose, number).draw();
        assert_eq!(first(1, Purpose::Network, 0), first(1, Purpose::Network, 0));
        let all = [
            first(1, Purpose::Network, 0),
            first(1, Purpose::Network, 1),
            first(1, Purpose::Clocks, 0),
            first(2, Purpose::Network, 0),
        ];
        assert!((0..all.len()).all(|i| (0..i).all(|j| all[i] != all[j])));
    }

    #[test]
    fn distributions_have_the_moments_that_they_should() {
        let mut stream = Stream::new(7, Purpose::Workload, 0);
        let draws = 100_000;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let exponential: Vec<f64> = (0..draws).map(|_| stream.exponential(3.0)).collect();
        assert!((mean(&exponential) - 3.0).abs() < 0.05);
        let normal: Vec<f64> = (0..draws).map(|_| stream.normal()).collect();
        let square: Vec<f64> = normal.iter().map(|value| value * value).collect();
        assert!(mean(&normal).abs() < 0.02 && (mean(&square) - 1.0).abs() < 0.02);
        let below: Vec<f64> = (0..draws).map(|_| stream.below(10) as f64).collect();
        assert!((mean(&below) - 4.5).abs() < 0.05 && below.iter().all(|value| *value < 10.0));
    }
}
