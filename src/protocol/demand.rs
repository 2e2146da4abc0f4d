//! How much of a limit a node's callers ask for.

use std::time::Duration;

use super::time::Instant;

/// What arrived in the last [`WINDOW`], in whole slots: integers only, so that every machine computes the same.
#[derive(Clone, Debug)]
pub struct Demand {
    slots: [u64; SLOTS],
    slot: u64,
    largest: u64,
    last: Instant,
}

const SLOTS: usize = 8;
const SLOT: Duration = Duration::from_millis(125);

/// How far back arrivals count: long enough to see ten a second as ten a second, short enough that a node which fell
/// silent gives its share back within a second.
pub const WINDOW: Duration = Duration::from_millis(SLOTS as u64 * SLOT.as_millis() as u64);

/// Arrivals have not ceased before so long a pause, however dense they were.
const CEASED_MIN: Duration = Duration::from_millis(20);

impl Demand {
    /// Nothing was asked for yet.
    pub fn new() -> Self {
        Self { slots: [0; SLOTS], slot: 0, largest: 0, last: Instant::ZERO }
    }

    /// Counts an arrival of `units`, admitted or not.
    pub fn arrive(&mut self, units: u64, now: Instant) {
        self.advance(now);
        let place = (self.slot % SLOTS as u64) as usize;
        self.slots[place] = self.slots[place].saturating_add(units);
        self.largest = self.largest.max(units);
        self.last = self.last.max(now);
    }

    /// Units that arrived in the last [`WINDOW`]; none if arrivals have ceased, that is, if the last one is longer ago
    /// than eight times their mean distance (one in 3,000 pauses of a Poisson stream is). So a burst that is over
    /// frees its share long before the window is empty.
    pub fn recent(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let recent = self.sum();
        if now > self.last + self.patience(recent) { 0 } else { recent }
    }

    /// When arrivals will have ceased if none comes any more; none if they have at `now`.
    pub fn ceases_at(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        let at = self.last + self.patience(self.sum());
        (self.largest > 0 && at >= now).then_some(at + Duration::from_nanos(1))
    }

    fn sum(&self) -> u64 {
        self.slots.iter().fold(0_u64, |sum, units| sum.saturating_add(*units))
    }

    /// How long after the last arrival more are expected.
    fn patience(&self, recent: u64) -> Duration {
        let arrivals = recent / self.largest.max(1);
        (WINDOW * 8 / u32::try_from(arrivals.max(1)).unwrap_or(u32::MAX)).max(CEASED_MIN)
    }

    /// The largest arrival since the window was last empty.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    fn advance(&mut self, now: Instant) {
        let slot = now.as_nanos() / SLOT.as_nanos() as u64;
        let passed = slot.saturating_sub(self.slot).min(SLOTS as u64);
        for step in 1..=passed {
            self.slots[((self.slot + step) % SLOTS as u64) as usize] = 0;
        }
        if passed == SLOTS as u64 {
            self.slots = [0; SLOTS];
        }
        self.slot = self.slot.max(slot);
        if self.slots.iter().all(|units| *units == 0) {
            self.largest = 0;
        }
    }
}

impl Default for Demand {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn arrivals_count_for_a_second_and_no_longer() {
        let mut demand = Demand::new();
        demand.arrive(3, at(100_000));
        demand.arrive(4, at(100_500));
        assert_eq!((demand.recent(at(100_900)), demand.largest()), (7, 4));
        assert_eq!(demand.recent(at(101_100)), 4);
        assert_eq!((demand.recent(at(101_600)), demand.largest()), (0, 0));
    }

    #[test]
    fn dense_arrivals_that_cease_stop_counting_soon() {
        let mut demand = Demand::new();
        (0..500).for_each(|milli| demand.arrive(1, at(1_000 + milli)));
        assert_eq!(demand.recent(at(1_515)), 500);
        assert_eq!(demand.recent(at(1_525)), 0);
    }

    #[test]
    fn time_that_stands_still_or_jumps_far_is_no_trouble() {
        let mut demand = Demand::new();
        demand.arrive(u64::MAX, at(500));
        demand.arrive(1, at(400));
        assert_eq!(demand.recent(at(500)), u64::MAX);
        assert_eq!(demand.recent(Instant::from_nanos(u64::MAX)), 0);
    }
}
