//! T1: never over the limit, in any interval.

use super::{Property, Violation};
use crate::time::{Nanos, SEC};

/// One central bucket that sees every admission at true time.
///
/// It is an exact check of every interval: when its level is below zero by `x`, there is an interval that ends now, and began
/// when it was last full, in which `x` more was admitted than `burst + rate × length`; and the other way round.
#[derive(Clone, Debug)]
pub struct NeverOver {
    per_second: u64,
    drift_ppm: u32,
    /// In units of a nanosecond of one unit a second.
    level: i128,
    depth: i128,
    at: Nanos,
    lowest: i128,
}

impl NeverOver {
    /// A limit of so many units a second and so many at once. Clocks may run fast by the drift, and so may the limit.
    pub fn new(per_second: u64, burst: u64, drift_ppm: u32) -> Self {
        let depth = i128::from(burst) * i128::from(SEC);
        Self { per_second, drift_ppm, level: depth, depth, at: 0, lowest: 0 }
    }

    /// Somebody admitted so many units at `now`.
    ///
    /// # Errors
    /// If that was more than the limit allows, in any interval that ends now. It is counted all the same.
    pub fn admit(&mut self, units: u64, now: Nanos) -> Result<(), Violation> {
        let speed = i128::from(self.per_second) * (1_000_000 + i128::from(self.drift_ppm));
        let earned = (i128::from(now.saturating_sub(self.at)) * speed + 999_999) / 1_000_000;
        self.level = (self.level + earned).min(self.depth) - i128::from(units) * i128::from(SEC);
        self.at = self.at.max(now);
        self.lowest = self.lowest.min(self.level);
        if self.level >= -self.tick() {
            return Ok(());
        }
        let over = -self.level as f64 / SEC as f64;
        Err(Violation::new(Property::NeverOver, now, format!("{over} units over the limit")))
    }

    /// The most units by which any interval was over the limit so far.
    pub fn overshoot(&self) -> f64 {
        if self.lowest >= -self.tick() { 0.0 } else { -self.lowest as f64 / SEC as f64 }
    }

    /// Clocks tick in whole nanoseconds: two moments are up to one further apart than they should be.
    fn tick(&self) -> i128 {
        2 * i128::from(self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MS;

    #[test]
    fn the_burst_and_then_the_rate_is_not_over() {
        let mut check = NeverOver::new(10, 5, 0);
        check.admit(5, SEC).unwrap();
        for step in 1..100 {
            check.admit(1, SEC + step * 100 * MS).unwrap();
        }
        assert!(check.overshoot().abs() < f64::EPSILON);
    }

    #[test]
    fn one_unit_a_microsecond_early_is_over() {
        let mut check = NeverOver::new(10, 5, 0);
        check.admit(5, 0).unwrap();
        let violation = check.admit(1, 100 * MS - 1_000).unwrap_err();
        assert_eq!((violation.property, violation.at), (Property::NeverOver, 100 * MS - 1_000));
        assert!((check.overshoot() - 1e-5).abs() < 1e-9);
    }

    #[test]
    fn an_interval_in_the_middle_is_seen_though_the_whole_is_under() {
        let mut check = NeverOver::new(10, 5, 0);
        check.admit(1, 0).unwrap();
        check.admit(5, 60 * SEC).unwrap();
        assert!(check.admit(1, 60 * SEC + MS).is_err());
    }

    #[test]
    fn fast_clocks_widen_the_limit_by_their_drift() {
        let over = |drift| {
            let mut check = NeverOver::new(1_000, 1, drift);
            check.admit(1, 0).unwrap();
            (1..=100).any(|step| check.admit(1_000_100, step * 1_000 * SEC).is_err())
        };
        let mut wide = NeverOver::new(1_000, 1_000_100, 200);
        wide.admit(1_000_100, 0).unwrap();
        assert!(wide.admit(1_000_100, 1_000 * SEC).is_ok());
        assert!(over(0), "more than the burst at once");
    }
}
