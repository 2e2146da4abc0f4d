//! The leaky bucket of the rivals, exact to the nanosecond like the core's, but allowed to go into debt.

use aquifer::protocol::limit::Kind;

use crate::scenario::Scenario;
use crate::time::{Nanos, SEC};

/// The whole limit in parts.
pub(super) const WHOLE: u64 = 1 << 32;

/// A bucket on a part of a limit, read upside down as a store of unspent units. One unit is `SEC × WHOLE` of its level.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    per_second: u64,
    burst: u64,
    parts: u64,
    level: i128,
    depth: i128,
    at: Nanos,
}

impl Bucket {
    /// A full bucket on so many parts of a scenario's limit.
    pub fn full(scenario: &Scenario, parts: u64) -> Self {
        let Kind::Rate(rate) = scenario.limit() else {
            unreachable!("BUG! a bucket for another kind of limit")
        };
        let (per_second, burst) = (rate.amount(), rate.burst());
        let depth = i128::from(burst) * i128::from(parts) * i128::from(SEC);
        Self { per_second, burst, parts, level: depth, depth, at: 0 }
    }

    /// Gains what came back since the last call.
    pub fn refill(&mut self, now: Nanos) {
        let earned = i128::from(now.saturating_sub(self.at)) * self.speed();
        self.level = (self.level + earned).min(self.depth);
        self.at = self.at.max(now);
    }

    /// Takes units if they are there.
    pub fn take(&mut self, units: u64) -> bool {
        let there = self.level >= level(units);
        if there {
            self.charge(units);
        }
        there
    }

    /// Takes units whether they are there or not.
    pub fn charge(&mut self, units: u64) {
        self.level -= level(units);
    }

    /// Whole units in it.
    #[cfg(test)]
    pub fn units(&self) -> u64 {
        (self.level.max(0) / level(1)) as u64
    }

    /// The first moment at which units are there, if they ever are.
    pub fn ready_at(&self, units: u64) -> Option<Nanos> {
        let missing = level(units) - self.level;
        if missing <= 0 {
            return Some(self.at);
        }
        if level(units) > self.depth || self.speed() == 0 {
            return None;
        }
        // Rounded up: both are positive.
        let wait = (missing + self.speed() - 1) / self.speed();
        Some(self.at.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    /// Runs on so many parts from now on, and is deep enough for `units` at once whatever they are. What does not fit
    /// overflows.
    pub fn resize(&mut self, parts: u64, units: u64) {
        self.parts = parts;
        self.depth = (i128::from(self.burst) * i128::from(parts) * i128::from(SEC)).max(level(units));
        self.level = self.level.min(self.depth);
    }

    /// The parts that it runs on.
    pub fn parts(&self) -> u64 {
        self.parts
    }

    /// Gained per nanosecond.
    fn speed(&self) -> i128 {
        i128::from(self.per_second) * i128::from(self.parts)
    }
}

fn level(units: u64) -> i128 {
    i128::from(units) * i128::from(SEC) * i128::from(WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::LimitSpec;

    fn half() -> Bucket {
        let limit = LimitSpec::rate(10, 4);
        Bucket::full(&Scenario { limit, ..Scenario::default() }, WHOLE / 2)
    }

    #[test]
    fn it_holds_its_part_and_gains_its_part_to_the_nanosecond() {
        let mut bucket = half();
        assert_eq!((bucket.units(), bucket.ready_at(3)), (2, None));
        assert!(!bucket.take(3) && bucket.take(2));
        assert_eq!(bucket.ready_at(1), Some(SEC / 5));
        bucket.refill(SEC / 5 - 1);
        assert!(!bucket.take(1));
        bucket.refill(SEC / 5);
        assert!(bucket.take(1));
        bucket.refill(100 * SEC);
        assert_eq!(bucket.units(), 2);
    }

    #[test]
    fn debt_is_paid_before_anything_is_there() {
        let mut bucket = half();
        bucket.charge(7);
        assert_eq!((bucket.units(), bucket.ready_at(0)), (0, Some(SEC)));
    }

    #[test]
    fn what_does_not_fit_a_smaller_part_overflows_but_one_request_always_fits() {
        let mut bucket = half();
        bucket.resize(WHOLE / 8, 1);
        assert_eq!((bucket.units(), bucket.parts()), (1, WHOLE / 8));
        assert_eq!(bucket.ready_at(2), None);
    }
}
