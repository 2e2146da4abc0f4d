//! A leaky bucket: at most `burst + rate × length` in any interval.

use crate::time::{Nanos, SEC};

/// One central bucket that sees every admission at true time.
///
/// It is an exact check of every interval: when its level is below zero by `x`, there is an interval that ends now, and began
/// when it was last full, in which `x` more was admitted than `burst + rate × length`; and the other way round.
#[derive(Clone, Debug)]
pub(super) struct Leaky {
    per_second: u64,
    drift_ppm: u32,
    /// In units of a nanosecond of one unit a second.
    level: i128,
    depth: i128,
    at: Nanos,
}

impl Leaky {
    /// A limit of so many units a second and so many at once. Clocks may run fast by the drift, and so may the limit.
    pub(super) fn new(per_second: u64, burst: u64, drift_ppm: u32) -> Self {
        let depth = i128::from(burst) * i128::from(SEC);
        Self { per_second, drift_ppm, level: depth, depth, at: 0 }
    }

    /// Somebody admitted so many units at `now`. By how many units that was more than any interval that ends now allows.
    pub(super) fn admit(&mut self, units: u64, now: Nanos) -> f64 {
        let speed = i128::from(self.per_second) * (1_000_000 + i128::from(self.drift_ppm));
        let earned = (i128::from(now.saturating_sub(self.at)) * speed + 999_999) / 1_000_000;
        self.level = (self.level + earned).min(self.depth) - i128::from(units) * i128::from(SEC);
        self.at = self.at.max(now);
        if self.level >= -self.tick() { 0.0 } else { -self.level as f64 / SEC as f64 }
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

    fn is_over(over: f64) -> bool {
        over > 0.0
    }

    #[test]
    fn the_burst_and_then_the_rate_is_not_over() {
        let mut check = Leaky::new(10, 5, 0);
        assert!(!is_over(check.admit(5, SEC)));
        assert!((1..100).all(|step| !is_over(check.admit(1, SEC + step * 100 * MS))));
    }

    #[test]
    fn one_unit_a_microsecond_early_is_over() {
        let mut check = Leaky::new(10, 5, 0);
        assert!(!is_over(check.admit(5, 0)));
        assert!((check.admit(1, 100 * MS - 1_000) - 1e-5).abs() < 1e-9);
    }

    #[test]
    fn an_interval_in_the_middle_is_seen_though_the_whole_is_under() {
        let mut check = Leaky::new(10, 5, 0);
        assert!(!is_over(check.admit(1, 0)));
        assert!(!is_over(check.admit(5, 60 * SEC)));
        assert!(is_over(check.admit(1, 60 * SEC + MS)));
    }

    #[test]
    fn fast_clocks_widen_the_limit_by_their_drift() {
        let second = |drift| {
            let mut check = Leaky::new(1_000, 1_000_100, drift);
            assert!(!is_over(check.admit(1_000_100, 0)));
            is_over(check.admit(1_000_100, 1_000 * SEC))
        };
        assert!(second(0) && !second(200));
    }
}
