//! The leaky bucket of one node: knows time and its share, and nothing of other nodes.

use super::limit::Rate;
use super::share::{ONE, Share};
use super::time::Instant;

/// What a bucket holds unspent, in *atoms*: one unit is `per × ONE` atoms, `per` in nanoseconds.
///
/// With that unit a share of `h` parts gains exactly `amount × h` atoms a nanosecond and holds at most
/// `burst × h × per`: whole numbers, so refilling, lending and returning round nothing at all. All products stay
/// below 2¹²⁷ by the bounds of [`Rate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u128);

impl Level {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The level that `units` of `rate` take.
    pub fn of(units: u64, rate: &Rate) -> Self {
        Self(u128::from(units).saturating_mul(atoms_per_unit(rate)))
    }

    /// Whole units in it.
    pub fn units(self, rate: &Rate) -> u64 {
        u64::try_from(self.0 / atoms_per_unit(rate)).unwrap_or(u64::MAX)
    }

    /// The difference, or nothing if `other` is the greater.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

fn atoms_per_unit(rate: &Rate) -> u128 {
    u128::from(rate.per_nanos()) * u128::from(ONE.0)
}

/// A leaky bucket read upside down, as a store of unspent units: it gains `rate × share` and overflows at
/// `burst × share`. What is admitted in `[s, t]` is at most `burst × share + rate × share × (t − s)`, and since the
/// shares of all nodes sum to at most [`ONE`], all nodes together stay under `burst + rate × (t − s)`.
#[derive(Clone, Debug)]
pub struct LeakyBucket {
    rate: Rate,
    share: Share,
    level: Level,
    withheld: Level,
    at: Instant,
}

impl LeakyBucket {
    /// A bucket without a share.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, share: Share::ZERO, level: Level::ZERO, withheld: Level::ZERO, at: now }
    }

    /// The limit that it runs a share of.
    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// The share that it runs on.
    pub fn share(&self) -> Share {
        self.share
    }

    /// What is unspent as of the last call that was given the time.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The most that `share` can hold unspent.
    pub fn depth_of(&self, share: Share) -> Level {
        Level(u128::from(self.rate.burst()) * u128::from(share.0) * u128::from(self.rate.per_nanos()))
    }

    /// The least share that can hold `units` at once; more than [`ONE`] if no share can.
    pub fn lot(&self, units: u64) -> Share {
        let parts = (u128::from(units) * u128::from(ONE.0)).div_ceil(u128::from(self.rate.burst()));
        Share(u64::try_from(parts).unwrap_or(u64::MAX))
    }

    /// Gains what the share earned since the last call. A `now` that is not later gains nothing.
    pub fn refill(&mut self, now: Instant) {
        let elapsed = u128::from(now.as_nanos().saturating_sub(self.at.as_nanos()));
        let earned = self.speed().saturating_mul(elapsed);
        self.level = Level(self.level.0.saturating_add(earned)).min(self.depth());
        self.at = self.at.max(now);
    }

    /// Whether `units` could be taken; call [`refill`](Self::refill) first.
    pub fn has(&self, units: u64) -> bool {
        self.level >= Level::of(units, &self.rate)
    }

    /// Takes `units`, which must be there.
    ///
    /// # Panics
    /// If they are not: admitting them would break the limit.
    pub fn take(&mut self, units: u64) {
        let left = self.level.0.checked_sub(Level::of(units, &self.rate).0);
        self.level = Level(left.expect("BUG! taken from a bucket without asking it"));
    }

    /// The first moment at which [`has`](Self::has) holds for `units` if the share stays as it is; none if the
    /// share can never hold them. Exact: one nanosecond earlier it does not hold.
    pub fn ready_at(&self, units: u64) -> Option<Instant> {
        let wanted = Level::of(units, &self.rate);
        if self.level >= wanted {
            return Some(self.at);
        }
        if wanted > self.depth() {
            return None;
        }
        let wait = (wanted.0 - self.level.0).div_ceil(self.speed());
        Some(Instant::from_nanos(self.at.as_nanos().saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))))
    }

    /// Gains a share and the level that comes with it. What does not fit overflows.
    pub fn grow(&mut self, share: Share, level: Level) {
        self.share += share;
        self.level = Level(self.level.0.saturating_add(level.0)).min(self.depth());
    }

    /// Gives up `share` and with it at most `level`, but at least what the remaining share cannot hold. Gives back
    /// the level that left.
    ///
    /// # Panics
    /// If the bucket does not have that share.
    pub fn shrink(&mut self, share: Share, level: Level) -> Level {
        self.share -= share;
        let forced = self.level.saturating_sub(self.depth());
        let left = level.max(forced).min(self.level);
        self.level = Level(self.level.0 - left.0);
        left
    }

    /// How much more level the bucket can hold.
    pub fn room(&self) -> Level {
        self.depth().saturating_sub(self.level)
    }

    /// Keeps this much of the depth empty from now on: it belongs to level that left without the share to hold it and
    /// is still on its way. Were it refilled meanwhile, the same units would be there twice.
    pub fn withhold(&mut self, level: Level) {
        self.withheld = level;
        self.level = self.level.min(self.depth());
    }

    fn depth(&self) -> Level {
        self.depth_of(self.share).saturating_sub(self.withheld)
    }

    /// Atoms gained per nanosecond.
    fn speed(&self) -> u128 {
        u128::from(self.rate.amount()) * u128::from(self.share.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn full(amount: u64, per: Duration, burst: u64, share: Share) -> LeakyBucket {
        let mut bucket = LeakyBucket::new(Rate::new(amount, per, burst).unwrap(), Instant::ZERO);
        let depth = bucket.depth_of(share);
        bucket.grow(share, depth);
        bucket
    }

    #[test]
    fn a_full_bucket_admits_its_burst_and_then_its_rate() {
        let mut bucket = full(500, Duration::from_secs(60), 50, ONE);
        bucket.take(50);
        assert!(!bucket.has(1));
        assert_eq!(bucket.ready_at(1), Some(Instant::from_nanos(120_000_000)));
        assert_eq!(bucket.ready_at(51), None, "more than the burst never fits");
    }

    #[test]
    fn the_largest_limit_does_not_overflow() {
        let per = super::super::limit::PER_MAX;
        let mut bucket = full(1_000_000_000_000, per, 1_000_000_000_000, ONE);
        assert!(bucket.has(1_000_000_000_000));
        bucket.refill(Instant::from_nanos(u64::MAX));
        assert_eq!(bucket.level().units(bucket.rate()), 1_000_000_000_000);
    }

    #[test]
    fn a_lot_is_the_least_share_that_holds_the_units() {
        let mut bucket = full(5, Duration::from_secs(1), 3, ONE);
        let lot = bucket.lot(1);
        bucket.shrink(ONE - lot, Level(u128::MAX));
        assert!(bucket.ready_at(1).is_some());
        bucket.shrink(Share(1), Level::ZERO);
        assert_eq!(bucket.ready_at(1), None);
    }

    proptest! {
        #[test]
        fn ready_exactly_when_promised_and_not_before(
            amount in 1u64..100_000, per in 1u64..10_000, burst in 1u64..1_000, parts in 1u64..=1 << 32, units in 0u64..50,
        ) {
            let mut bucket = full(amount, Duration::from_millis(per), burst, Share(parts));
            bucket.take(bucket.level().units(bucket.rate()));
            if let Some(ready) = bucket.ready_at(units) {
                let mut early = bucket.clone();
                if ready > Instant::ZERO {
                    early.refill(Instant::from_nanos(ready.as_nanos() - 1));
                    prop_assert!(!early.has(units));
                }
                bucket.refill(ready);
                prop_assert!(bucket.has(units));
            } else {
                bucket.refill(Instant::from_nanos(u64::MAX));
                prop_assert!(!bucket.has(units));
            }
        }

        #[test]
        fn moving_share_to_and_fro_mints_no_level(
            parts in 2u64..=1 << 32, moved in 1u64..=1 << 32, wish in 0u128..1 << 80, spent in 0u64..10,
        ) {
            let moved = Share(moved % parts + 1).min(Share(parts));
            let mut lender = full(10, Duration::from_secs(1), 10, Share(parts));
            lender.take(spent.min(lender.level().units(lender.rate())));
            let before = lender.level();
            let mut borrower = LeakyBucket::new(*lender.rate(), Instant::ZERO);
            let level = lender.shrink(moved, Level(wish));
            borrower.grow(moved, level);
            prop_assert!(lender.level().0 + borrower.level().0 <= before.0);
            prop_assert!(lender.level() <= lender.depth_of(lender.share()));
            let level = borrower.shrink(moved, Level(u128::MAX));
            lender.grow(moved, level);
            prop_assert_eq!(borrower.level(), Level::ZERO);
            prop_assert!(lender.level() <= before);
        }
    }
}
