//! What one key has of one limit: unspent units, or a debt.

use crate::protocol::bucket::{LeakyBucket, Level, times};
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
        self.earn_on(&Terms::new(*rate, share), nanos)
    }

    /// After `nanos` on the share that these terms are of.
    pub(super) fn earn_on(self, terms: &Terms, nanos: u64) -> Self {
        Self(self.0.saturating_add_unsigned(times(terms.speed, nanos))).min(terms.full)
    }

    /// What of it a bucket of `share` can hold.
    pub(super) fn fit(self, rate: &Rate, share: Share) -> Self {
        self.min(Self::full(rate, share))
    }

    /// How many whole `unit`s are unspent.
    pub(super) fn units(self, unit: Self) -> u64 {
        quotient(self.level().0, unit.level().0.max(1))
    }

    /// Nanoseconds on the share that these terms are of until there is `wanted`, rounded up; none if it can never hold that.
    pub(super) fn wait_for(self, wanted: Self, terms: &Terms) -> Option<u64> {
        if self >= wanted {
            return Some(0);
        }
        if wanted > terms.full || terms.speed == 0 {
            return None;
        }
        let lacking = wanted.0.saturating_sub(self.0).unsigned_abs();
        // One less, as the last nanosecond is begun by the first atom of it.
        Some(quotient(lacking - 1, terms.speed).saturating_add(1))
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// A limit, with what follows from its numbers and the node's base share: every decision needs it.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) rate: Rate,
    /// One unit.
    pub(super) unit: Balance,
    /// What a bucket of the share holds when it is full.
    pub(super) full: Balance,
    /// What buckets of all other shares hold when they are full.
    pub(super) elsewhere: Balance,
    /// Atoms gained per nanosecond.
    speed: u128,
}

impl Terms {
    pub(super) fn new(rate: Rate, share: Share) -> Self {
        let full = Balance::full(&rate, share);
        Self {
            unit: Balance::of(1, &rate),
            full,
            elsewhere: Balance::full(&rate, ONE).minus(full),
            speed: speed(&rate, share),
            rate,
        }
    }

    /// What `units` take.
    pub(super) fn of(&self, units: u64) -> Balance {
        if units == 1 { self.unit } else { Balance::of(units, &self.rate) }
    }
}

/// `whole / part`, at most `u64::MAX`. A division of 128 bits costs ten times one of 64, and a unit ends in as many zeros in
/// binary as a period and ONE together, which a quotient does not need.
fn quotient(whole: u128, part: u128) -> u64 {
    let zeros = part.trailing_zeros();
    let (whole, part) = (whole >> zeros, part >> zeros);
    match (u64::try_from(whole), u64::try_from(part)) {
        (Ok(whole), Ok(part)) => whole / part,
        _ => u64::try_from(whole / part).unwrap_or(u64::MAX),
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

    use proptest::prelude::*;

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
        assert_eq!(owing.wait_for(Balance::ZERO, &Terms::new(rate, Share(1))), Some(u64::MAX));
        assert!(owing.earn(&rate, ONE, 1) > owing);
    }

    proptest! {
        #[test]
        fn terms_say_what_the_rate_and_the_share_say(
            amount in 1..=AMOUNT_MAX, millis in 1..=PER_MAX.as_millis() as u64, burst in 1..=AMOUNT_MAX,
            share in prop_oneof![Just(ONE.0), 0..=ONE.0], spent: u64, units in 0..=AMOUNT_MAX, nanos: u64,
        ) {
            let rate = Rate::new(amount, Duration::from_millis(millis), burst).unwrap();
            let terms = Terms::new(rate, Share(share));
            let balance = terms.full.minus(Balance::of(spent, &rate));
            let speed = u128::from(amount) * u128::from(share);
            let earned = balance.0.saturating_add_unsigned(speed.saturating_mul(u128::from(nanos)));
            prop_assert_eq!(balance.earn_on(&terms, nanos).0, earned.min(terms.full.0));
            prop_assert_eq!(terms.of(units), Balance::of(units, &rate));
            let whole = balance.0.max(0) / terms.unit.0;
            prop_assert_eq!(i128::from(balance.units(terms.unit)), whole);
            match balance.wait_for(terms.of(units), &terms) {
                Some(0) => prop_assert!(balance >= terms.of(units)),
                Some(wait) => {
                    prop_assert!(balance.earn_on(&terms, wait - 1) < terms.of(units));
                    prop_assert!(wait == u64::MAX || balance.earn_on(&terms, wait) >= terms.of(units));
                }
                None => prop_assert!(terms.of(units) > terms.full || share == 0),
            }
        }
    }

    #[test]
    fn a_debt_is_waited_for_to_the_nanosecond() {
        let rate = Rate::new(3, Duration::from_secs(1), 3).unwrap();
        let owing = Balance::new(Level::ZERO, LeakyBucket::level_of(7, &rate));
        let terms = Terms::new(rate, ONE);
        let wait = owing.wait_for(Balance::of(1, &rate), &terms).unwrap();
        assert_eq!(wait, 8_000_000_000_u64.div_ceil(3));
        assert!(owing.earn(&rate, ONE, wait) >= Balance::of(1, &rate));
        assert!(owing.earn(&rate, ONE, wait - 1) < Balance::of(1, &rate));
        assert_eq!(owing.wait_for(Balance::ZERO, &Terms::new(rate, Share::ZERO)), None);
        assert_eq!(Balance::ZERO.wait_for(Balance::of(4, &rate), &terms), None);
    }
}
