//! The leaky bucket of one node: knows time and its share, and nothing of other nodes.

use super::headroom::Headroom;
use super::{Level, times};
use crate::protocol::limit::Rate;
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::Instant;

/// Atoms in one unit of `rate`: see [`Level`].
pub(super) fn atoms_per_unit(rate: &Rate) -> u128 {
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
    /// What was spent without being there, in atoms: it is paid before anything is earned.
    debt: u128,
    headroom: Headroom,
    at: Instant,
    /// What follows from the rate, the share and what is withheld; asked for at every admission.
    numbers: Numbers,
}

#[derive(Clone, Copy, Debug)]
struct Numbers {
    /// The most that the bucket can hold.
    depth: Level,
    /// Atoms gained per nanosecond.
    speed: u128,
    /// Atoms in one unit.
    unit: u128,
}

impl LeakyBucket {
    /// A bucket without a share.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            share: Share::ZERO,
            level: Level::ZERO,
            withheld: Level::ZERO,
            debt: 0,
            headroom: Headroom::default(),
            at: now,
            numbers: Numbers { depth: Level::ZERO, speed: 0, unit: atoms_per_unit(&rate) },
        }
    }

    /// The level that `units` of `rate` take.
    pub fn level_of(units: u64, rate: &Rate) -> Level {
        Level(times(atoms_per_unit(rate), units))
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
        if now <= self.at {
            return;
        }
        let earned = times(self.numbers.speed, now.as_nanos() - self.at.as_nanos());
        self.at = now;
        self.gain(earned);
    }

    /// Pays the debt first.
    fn gain(&mut self, atoms: u128) {
        let paid = atoms.min(self.debt);
        self.debt -= paid;
        self.level = Level(self.level.0.saturating_add(atoms - paid)).min(self.numbers.depth);
    }

    /// Whether more was spent than there was, and has not been earned since.
    pub fn in_debt(&self) -> bool {
        self.debt > 0
    }

    /// Takes back `units` that were taken at `taken_at` and have turned out not to be used; less if they would not have
    /// fitted since.
    pub fn refund(&mut self, units: u64, taken_at: Instant) {
        self.note();
        let back = self.atoms(units).min(self.headroom.least_since(taken_at));
        self.headroom.fill(taken_at, back);
        self.gain(back);
    }

    /// Notes the room before anything but time changes it: time alone only makes it less.
    fn note(&mut self) {
        let room = self.room().0.saturating_add(self.debt);
        self.headroom.note(self.at, room);
    }

    /// Takes `units`; more than there are, as a debt that is paid before anything else is earned.
    pub fn take(&mut self, units: u64) {
        self.owe(Level(self.atoms(units)));
    }

    /// Spends `level`, whether it is there or not.
    pub fn owe(&mut self, level: Level) {
        self.note();
        let there = level.min(self.level);
        self.level = self.level.saturating_sub(there);
        self.debt = self.debt.saturating_add(level.saturating_sub(there).0);
    }

    /// The first moment at which there are `units` if the share stays as it is; none if the share can never hold them.
    /// Exact: one nanosecond earlier they are not there.
    pub fn ready_at(&self, units: u64) -> Option<Instant> {
        let wanted = Level(self.atoms(units));
        if self.level >= wanted && self.debt == 0 {
            return Some(self.at);
        }
        if wanted > self.numbers.depth || self.share == Share::ZERO {
            return None;
        }
        let wait = (wanted.0 - self.level.0).saturating_add(self.debt).div_ceil(self.numbers.speed);
        Some(Instant::from_nanos(self.at.as_nanos().saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))))
    }

    /// Gains a share and the level that comes with it, which pays a debt first. What does not fit overflows.
    pub fn grow(&mut self, share: Share, level: Level) {
        self.note();
        self.share += share;
        self.reckon();
        self.gain(level.0);
    }

    /// Gives up `share` and with it at most `level`, but at least what the remaining share cannot hold. Gives back
    /// the level that left.
    ///
    /// # Panics
    /// If the bucket does not have that share.
    pub fn shrink(&mut self, share: Share, level: Level) -> Level {
        self.note();
        self.share -= share;
        self.reckon();
        let forced = self.level.saturating_sub(self.numbers.depth);
        let left = level.max(forced).min(self.level);
        self.level = Level(self.level.0 - left.0);
        left
    }

    /// How much more level the bucket can hold.
    pub fn room(&self) -> Level {
        self.numbers.depth.saturating_sub(self.level)
    }

    /// Keeps this much of the depth empty from now on: it belongs to level that left without the share to hold it and
    /// is still on its way. Were it refilled meanwhile, the same units would be there twice.
    pub fn withhold(&mut self, level: Level) {
        self.note();
        self.withheld = level;
        self.reckon();
        self.level = self.level.min(self.numbers.depth);
    }

    /// Whether there are so many units and no debt.
    pub fn has(&self, units: u64) -> bool {
        self.level.0 >= self.atoms(units) && self.debt == 0
    }

    fn atoms(&self, units: u64) -> u128 {
        times(self.numbers.unit, units)
    }

    /// After the share or what is withheld has changed.
    fn reckon(&mut self) {
        self.numbers.depth = self.depth_of(self.share).saturating_sub(self.withheld);
        self.numbers.speed = u128::from(self.rate.amount()) * u128::from(self.share.0);
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

    fn whole_units(bucket: &LeakyBucket) -> u64 {
        (bucket.level().0 / atoms_per_unit(bucket.rate())) as u64
    }

    fn has(bucket: &LeakyBucket, units: u64) -> bool {
        bucket.level() >= LeakyBucket::level_of(units, bucket.rate())
    }

    #[test]
    fn a_refund_brings_back_only_what_would_have_fitted_ever_since() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut bucket = full(10, Duration::from_secs(1), 10, ONE);
        bucket.take(10);
        bucket.refill(at(200));
        bucket.refund(6, at(0));
        assert_eq!(whole_units(&bucket), 8);
        bucket.take(8);
        bucket.refill(at(1_100));
        assert_eq!(whole_units(&bucket), 9);
        bucket.take(9);
        bucket.refund(8, at(200));
        assert_eq!(whole_units(&bucket), 1, "nine tenths of the room had been filled again");
    }

    #[test]
    fn a_refund_at_the_moment_of_the_taking_brings_all_back_once() {
        let now = Instant::ZERO + Duration::from_millis(7);
        let mut bucket = full(10, Duration::from_secs(1), 10, ONE);
        bucket.refill(now);
        bucket.take(4);
        bucket.refund(4, now);
        assert_eq!(whole_units(&bucket), 10);
        bucket.take(3);
        bucket.take(5);
        bucket.refund(3, now);
        assert_eq!(whole_units(&bucket), 5);
        bucket.refund(5, now);
        bucket.refund(5, now);
        assert_eq!(whole_units(&bucket), 10);
        bucket.take(8);
        // What is lent at the same moment comes back to a bucket that is full without the refund.
        let half = ONE.scale(1, 2);
        bucket.shrink(half, Level::ZERO);
        bucket.grow(half, bucket.depth_of(half));
        bucket.grow(Share::ZERO, bucket.depth_of(half));
        bucket.refund(8, now);
        assert_eq!(whole_units(&bucket), 10);
        bucket.take(10);
        bucket.refund(10, Instant::ZERO);
        assert_eq!(whole_units(&bucket), 0, "it was full since");
    }

    proptest! {
        /// Refunds in any order never let through more than one bucket would that was told the truth at once.
        #[test]
        fn refunds_bring_back_no_more_than_the_truth_told_at_once(
            steps in proptest::collection::vec((0_u64..600, 1_u64..5, 0_u64..5, 0_usize..4, 0_u64..20), 1..80),
        ) {
            let rate = Rate::new(10, Duration::from_secs(1), 8).unwrap();
            let mut bucket = full(10, Duration::from_secs(1), 8, ONE);
            let mut truth = bucket.clone();
            let mut open: Vec<(u64, Instant)> = Vec::new();
            let mut now = Instant::ZERO;
            for (millis, units, used, which, gained) in steps {
                // Much happens at one moment.
                now = now + Duration::from_millis(millis.saturating_sub(200));
                bucket.refill(now);
                truth.refill(now);
                if gained < 4 {
                    bucket.grow(Share::ZERO, LeakyBucket::level_of(gained, &rate));
                    truth.grow(Share::ZERO, LeakyBucket::level_of(gained, &rate));
                }
                let used = used.min(units);
                if has(&bucket, units) {
                    bucket.take(units);
                    prop_assert!(truth.level() >= LeakyBucket::level_of(used, &rate));
                    truth.take(used);
                    open.push((units - used, now));
                }
                if which < open.len() {
                    let (units, taken_at) = open.swap_remove(which);
                    bucket.refund(units, taken_at);
                }
            }
        }
    }

    #[test]
    fn a_debt_is_paid_before_anything_is_there() {
        let mut bucket = full(10, Duration::from_secs(1), 10, ONE);
        bucket.take(15);
        assert!(bucket.in_debt());
        assert_eq!(bucket.ready_at(1), Some(Instant::ZERO + Duration::from_millis(600)));
        bucket.refill(Instant::ZERO + Duration::from_millis(500));
        assert!(!bucket.in_debt() && whole_units(&bucket) == 0);
    }

    #[test]
    fn level_that_comes_pays_a_debt_first() {
        let mut bucket = full(10, Duration::from_secs(1), 10, Share(ONE.0 / 2));
        bucket.take(8);
        bucket.grow(
            Share(ONE.0 / 2),
            LeakyBucket::level_of(5, &Rate::new(10, Duration::from_secs(1), 10).unwrap()),
        );
        assert!(!bucket.in_debt());
        assert_eq!((whole_units(&bucket), bucket.ready_at(1)), (2, Some(Instant::ZERO)));
        bucket.take(4);
        bucket.grow(Share::ZERO, Level(1));
        assert_eq!((bucket.level(), bucket.ready_at(0).is_some()), (Level::ZERO, true));
    }

    #[test]
    fn a_debt_is_never_paid_without_a_share() {
        let mut bucket = full(10, Duration::from_secs(1), 10, ONE);
        bucket.take(15);
        bucket.shrink(ONE, Level::ZERO);
        assert_eq!(bucket.ready_at(0), None);
    }

    #[test]
    fn a_full_bucket_admits_its_burst_and_then_its_rate() {
        let mut bucket = full(500, Duration::from_secs(60), 50, ONE);
        bucket.take(50);
        assert!(!has(&bucket, 1));
        assert_eq!(bucket.ready_at(1), Some(Instant::from_nanos(120_000_000)));
        assert_eq!(bucket.ready_at(51), None, "more than the burst never fits");
    }

    #[test]
    fn the_largest_limit_does_not_overflow() {
        let per = crate::protocol::limit::PER_MAX;
        let mut bucket = full(1_000_000_000_000, per, 1_000_000_000_000, ONE);
        assert!(has(&bucket, 1_000_000_000_000));
        bucket.refill(Instant::from_nanos(u64::MAX));
        assert_eq!(whole_units(&bucket), 1_000_000_000_000);
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
            bucket.take(whole_units(&bucket));
            if let Some(ready) = bucket.ready_at(units) {
                let mut early = bucket.clone();
                if ready > Instant::ZERO {
                    early.refill(Instant::from_nanos(ready.as_nanos() - 1));
                    prop_assert!(!has(&early, units));
                }
                bucket.refill(ready);
                prop_assert!(has(&bucket, units));
            } else {
                bucket.refill(Instant::from_nanos(u64::MAX));
                prop_assert!(!has(&bucket, units));
            }
        }

        #[test]
        fn moving_share_to_and_fro_mints_no_level(
            parts in 2u64..=1 << 32, moved in 1u64..=1 << 32, wish in 0u128..1 << 80, spent in 0u64..10,
        ) {
            let moved = Share(moved % parts + 1).min(Share(parts));
            let mut lender = full(10, Duration::from_secs(1), 10, Share(parts));
            lender.take(spent.min(whole_units(&lender)));
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
