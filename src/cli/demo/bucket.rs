//! One central leaky bucket, as a provider has it.

use std::time::Duration;

use crate::protocol::limit::Rate;

/// A leaky bucket in whole numbers: the level is counted in units × `per` nanoseconds, so that what leaks in a
/// nanosecond is exactly `amount`.
pub struct Bucket {
    leak: u128,
    unit: u128,
    depth: u128,
    level: u128,
    last: Duration,
}

impl Bucket {
    /// An empty bucket: the whole burst is free.
    pub fn new(rate: &Rate) -> Self {
        let unit = rate.per().as_nanos();
        Self {
            leak: u128::from(rate.amount()),
            unit,
            depth: unit * u128::from(rate.burst()),
            level: 0,
            last: Duration::ZERO,
        }
    }

    /// Whether `units` fit at `now` (since any fixed moment). A time before the last one counts as the last one.
    pub fn fits(&mut self, units: u64, now: Duration) -> bool {
        self.leak_until(now);
        self.level + self.unit * u128::from(units) <= self.depth
    }

    /// Takes `units` at `now` if there is room.
    pub fn take(&mut self, units: u64, now: Duration) -> bool {
        let fits = self.fits(units, now);
        if fits {
            self.level += self.unit * u128::from(units);
        }
        fits
    }

    /// Puts right at `now` that `taken` units were taken where `used` are: also beyond the depth.
    pub fn correct(&mut self, taken: u64, used: u64, now: Duration) {
        self.leak_until(now);
        let level = self.level + self.unit * u128::from(used);
        self.level = level.saturating_sub(self.unit * u128::from(taken));
    }

    /// The first moment, `now` or later, at which one unit fits.
    pub fn opens(&mut self, now: Duration) -> Duration {
        self.leak_until(now);
        let over = (self.level + self.unit).saturating_sub(self.depth);
        self.last + Duration::from_nanos(over.div_ceil(self.leak) as u64)
    }

    fn leak_until(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.last);
        self.level = self.level.saturating_sub(passed.as_nanos() * self.leak);
        self.last = self.last.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(amount: u64, per_ms: u64, burst: u64) -> Bucket {
        Bucket::new(&Rate::new(amount, Duration::from_millis(per_ms), burst).unwrap())
    }

    #[test]
    fn it_admits_its_burst_and_then_its_rate_to_the_nanosecond() {
        let mut bucket = bucket(3, 1_000, 2);
        let at = Duration::from_nanos;
        assert!(bucket.take(1, at(0)) && bucket.take(1, at(0)));
        assert!(!bucket.take(1, at(0)));
        // A third of a second is not a whole number of nanoseconds: one early is too early.
        assert_eq!(bucket.opens(at(0)), at(333_333_334));
        assert!(!bucket.take(1, at(333_333_333)));
        assert!(bucket.take(1, at(333_333_334)));
        assert!(!bucket.take(1, at(333_333_334)));
    }

    #[test]
    fn it_never_admits_more_than_burst_and_rate_allow() {
        let mut bucket = bucket(500, 6_000, 50);
        let admitted = (0..10_000).filter(|step| bucket.take(1, Duration::from_millis(*step))).count();
        assert_eq!(admitted, 50 + 833);
    }

    #[test]
    fn a_clock_that_stands_still_or_runs_back_gives_nothing() {
        let mut bucket = bucket(1, 1_000, 1);
        assert!(bucket.take(1, Duration::from_secs(5)));
        assert!(!bucket.take(1, Duration::from_secs(3)));
        assert!(!bucket.take(1, Duration::from_millis(5_999)));
        assert!(bucket.take(1, Duration::from_secs(6)));
    }

    #[test]
    fn less_used_than_taken_is_free_at_once_and_more_is_paid_first() {
        let mut bucket = bucket(10, 1_000, 100);
        let now = Duration::from_secs(1);
        assert!(bucket.take(100, now));
        bucket.correct(100, 70, now);
        assert!(bucket.take(30, now) && !bucket.fits(1, now));
        bucket.correct(30, 50, now);
        // 20 over, and one more: 2.1 s at 10 a second.
        assert!(!bucket.fits(1, now + Duration::from_millis(2_099)));
        assert!(bucket.fits(1, now + Duration::from_millis(2_100)));
    }
}
