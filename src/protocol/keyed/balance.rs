//! What one key has of one limit: unspent units, or a debt.

use crate::protocol::bucket::{LeakyBucket, Level};
use crate::protocol::limit::Rate;
use crate::protocol::share::{ONE, Share};

/// What is unspent of one limit for one key, in atoms (see [`Level`]); below zero it is a debt, which is paid from what
/// the share earns before anything is admitted.
///
/// Every step below (earning, and being cut to what a share can hold) is monotone: of two balances that take the same
/// steps the greater stays at least as great.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Balance(i128);

impl Balance {
    /// Neither anything unspent nor a debt.
    pub const ZERO: Self = Self(0);

    /// `level` unspent, less `debt`.
    pub fn new(level: Level, debt: Level) -> Self {
        Self(atoms(level).saturating_sub(atoms(debt)))
    }

    /// What is unspent; nothing if there is a debt.
    pub fn level(self) -> Level {
        Level(self.0.max(0).unsigned_abs())
    }

    /// What is owed; nothing if something is unspent.
    pub fn debt(self) -> Level {
        Level(self.0.min(0).unsigned_abs())
    }

    /// What a bucket of `share` holds when it is full.
    pub(super) fn full(rate: &Rate, share: Share) -> Self {
        debug_assert!(share <= ONE, "BUG! more share than there is");
        Self((u128::from(rate.burst()) * u128::from(share.0) * u128::from(rate.per_nanos())) as i128)
    }

    /// What `units` of `rate` take.
    pub(super) fn of(units: u64, rate: &Rate) -> Self {
        Self(atoms(LeakyBucket::level_of(units, rate)))
    }

    /// After `nanos` on `share`; what a full bucket cannot hold overflows.
    pub(super) fn earn(self, rate: &Rate, share: Share, nanos: u64) -> Self {
        let earned = speed(rate, share).saturating_mul(u128::from(nanos));
        Self(self.0.saturating_add_unsigned(earned)).fit(rate, share)
    }

    /// What of it a bucket of `share` can hold.
    pub(super) fn fit(self, rate: &Rate, share: Share) -> Self {
        self.min(Self::full(rate, share))
    }

    /// How many whole `unit`s are unspent.
    pub(super) fn units(self, unit: Self) -> u64 {
        let (level, unit) = (self.0.max(0).unsigned_abs(), unit.0.unsigned_abs().max(1));
        // Most limits fit, and a division of 128 bits costs ten times one of 64.
        match (u64::try_from(level), u64::try_from(unit)) {
            (Ok(level), Ok(unit)) => level / unit,
            _ => u64::try_from(level / unit).unwrap_or(u64::MAX),
        }
    }

    /// Nanoseconds on `share` until there is `wanted`, rounded up; none if the share can never hold that.
    pub(super) fn wait_for(self, wanted: Self, rate: &Rate, share: Share) -> Option<u64> {
        if self >= wanted {
            return Some(0);
        }
        if wanted > Self::full(rate, share) || share == Share::ZERO {
            return None;
        }
        let lacking = wanted.0.saturating_sub(self.0).unsigned_abs();
        Some(u64::try_from(lacking.div_ceil(speed(rate, share))).unwrap_or(u64::MAX))
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Levels of real limits are below 2¹²⁴ (see [`Rate`]); what is asked for may be anything.
fn atoms(level: Level) -> i128 {
    i128::try_from(level.0).unwrap_or(i128::MAX)
}

/// Atoms gained per nanosecond.
fn speed(rate: &Rate, share: Share) -> u128 {
    u128::from(rate.amount()) * u128::from(share.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::limit::{AMOUNT_MAX, PER_MAX};

    #[test]
    fn the_largest_limit_and_the_largest_debt_do_not_overflow() {
        let rate = Rate::new(AMOUNT_MAX, PER_MAX, AMOUNT_MAX).unwrap();
        let full = Balance::full(&rate, ONE);
        assert_eq!(full, Balance::of(AMOUNT_MAX, &rate));
        assert_eq!(Balance::ZERO.earn(&rate, ONE, u64::MAX), full);
        let owing = Balance::ZERO.minus(Balance::of(u64::MAX, &rate)).minus(Balance::of(u64::MAX, &rate));
        assert_eq!(owing.level(), Level::ZERO);
        assert_eq!(owing.wait_for(Balance::ZERO, &rate, Share(1)), Some(u64::MAX));
        assert!(owing.earn(&rate, ONE, 1) > owing);
    }

    #[test]
    fn a_debt_is_waited_for_to_the_nanosecond() {
        let rate = Rate::new(3, Duration::from_secs(1), 3).unwrap();
        let owing = Balance::new(Level::ZERO, LeakyBucket::level_of(7, &rate));
        let wait = owing.wait_for(Balance::of(1, &rate), &rate, ONE).unwrap();
        assert_eq!(wait, 8_000_000_000_u64.div_ceil(3));
        assert!(owing.earn(&rate, ONE, wait) >= Balance::of(1, &rate));
        assert!(owing.earn(&rate, ONE, wait - 1) < Balance::of(1, &rate));
        assert_eq!(owing.wait_for(Balance::ZERO, &rate, Share::ZERO), None);
        assert_eq!(Balance::ZERO.wait_for(Balance::of(4, &rate), &rate, ONE), None);
    }
}
