//! What callers were answered since the start, by pool: for metrics and events. Any server may count, on any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::{Reason, ThrottleSummary};

/// Upper bounds of the waits that are counted together, in seconds.
pub const WAIT_BOUNDS: [f64; 10] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Counters for each pool, by its place.
#[derive(Debug)]
pub struct Tally {
    pools: Vec<Counters>,
    throttles: [AtomicU64; 3],
}

/// What became of the requests for one pool since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were admitted.
    pub admitted: u64,
    /// Requests that were refused, by [`Reason::ALL`].
    pub refused: [u64; Reason::ALL.len()],
    /// Admitted requests by how long they waited: up to each of [`WAIT_BOUNDS`], each counted once; longer ones are in none.
    pub waits: [u64; WAIT_BOUNDS.len()],
    /// How long the admitted ones waited together.
    pub waited: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    admitted: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    waits: [AtomicU64; WAIT_BOUNDS.len()],
    /// Nanoseconds; they last for 584 years of waiting.
    waited: AtomicU64,
}

impl Tally {
    /// Nothing was answered yet.
    pub fn new(pools: usize) -> Self {
        Self { pools: (0..pools).map(|_| Counters::default()).collect(), throttles: Default::default() }
    }

    /// How many pools there are: those of the configuration. What agents have of their own comes after them in the core.
    pub fn pools(&self) -> usize {
        self.pools.len()
    }

    /// A request passed this pool.
    pub fn admitted(&self, pool: usize, waited: Duration) {
        let counters = &self.pools[pool];
        add(&counters.admitted, 1);
        add(&counters.waited, u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
        let seconds = waited.as_secs_f64();
        if let Some(bucket) = WAIT_BOUNDS.iter().position(|bound| seconds <= *bound) {
            add(&counters.waits[bucket], 1);
        }
    }

    /// A request did not pass this pool.
    pub fn refused(&self, pool: usize, reason: Reason) {
        add(&self.pools[pool].refused[reason as usize], 1);
    }

    /// These were answered since they were last counted.
    pub fn throttled(&self, answered: ThrottleSummary) {
        let ThrottleSummary { admitted, refused, failed } = answered;
        for (counter, n) in self.throttles.iter().zip([admitted, refused, failed]) {
            if n > 0 {
                add(counter, n);
            }
        }
    }

    /// What became of requests for limits that callers brought along.
    pub fn throttles(&self) -> ThrottleSummary {
        let [admitted, refused, failed] = self.throttles.each_ref().map(get);
        ThrottleSummary { admitted, refused, failed }
    }

    /// The counts so far.
    pub fn counts(&self, pool: usize) -> Counts {
        let Counters { admitted, refused, waits, waited } = &self.pools[pool];
        Counts {
            admitted: get(admitted),
            refused: refused.each_ref().map(get),
            waits: waits.each_ref().map(get),
            waited: Duration::from_nanos(get(waited)),
        }
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_counted_once() {
        let tally = Tally::new(2);
        for millis in [0, 1, 2, 100, 300_000, 300_001] {
            tally.admitted(1, Duration::from_millis(millis));
        }
        for reason in Reason::ALL {
            (0..=reason as usize).for_each(|_| tally.refused(1, reason));
        }
        let counts = tally.counts(1);
        assert_eq!((counts.admitted, counts.waits), (6, [2, 1, 1, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(counts.waited, Duration::from_millis(600_104));
        assert_eq!(counts.refused.to_vec(), (1..=Reason::ALL.len() as u64).collect::<Vec<_>>());
        assert_eq!(tally.counts(0), Counts::default());
        let throttles = ThrottleSummary { admitted: 3, refused: 0, failed: 1 };
        (0..2).for_each(|_| tally.throttled(throttles));
        assert_eq!(tally.throttles(), ThrottleSummary { admitted: 6, refused: 0, failed: 2 });
    }
}
