//! What one node may spend of one limit: knows time and its share, and nothing of other nodes.

mod counted;
mod headroom;
mod leaky;
mod spans;

pub use counted::{Bounds, CountedBucket};
pub use leaky::LeakyBucket;

use super::limit::Kind;
use super::share::{ONE, Share};
use super::time::Instant;

/// What a bucket holds unspent, in *atoms*, a fraction of a unit that makes all arithmetic exact.
///
/// For a leaky bucket one unit is `per × ONE` atoms, `per` in nanoseconds: a share of `h` parts gains exactly
/// `amount × h` atoms a nanosecond and holds at most `burst × h × per`. For all other kinds one unit is `ONE` atoms, and a
/// share of `h` parts has `amount × h`. Whole numbers, so refilling, lending and returning round nothing at all. All
/// products stay below 2¹²⁷ by the bounds of [`Rate`](super::limit::Rate).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u128);

impl Level {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The level that `units` of a limit of this kind take.
    pub fn of(units: u64, kind: &Kind) -> Self {
        Self(times(atoms_per_unit(kind), units))
    }

    /// Whole units in it.
    pub fn units(self, kind: &Kind) -> u64 {
        u64::try_from(self.0 / atoms_per_unit(kind)).unwrap_or(u64::MAX)
    }

    /// The difference, or nothing if `other` is the greater.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// `atoms × factor`, at most the greatest: two multiplications where that of the type takes ten instructions more.
pub(super) fn times(atoms: u128, factor: u64) -> u128 {
    let factor = u128::from(factor);
    let (high, low) = ((atoms >> 64) * factor, u128::from(atoms as u64) * factor);
    if high >> 64 == 0 { (high << 64).saturating_add(low) } else { u128::MAX }
}

fn atoms_per_unit(kind: &Kind) -> u128 {
    match kind {
        Kind::Rate(rate) => leaky::atoms_per_unit(rate),
        _ => u128::from(ONE.0),
    }
}

/// The bucket of a limit of any kind.
#[derive(Clone, Debug)]
pub enum Bucket {
    /// Units come back at a rate.
    Leaky(LeakyBucket),
    /// Units come back one by one.
    Counted(CountedBucket),
}

impl Bucket {
    /// A bucket without a share.
    pub fn new(kind: &Kind, now: Instant) -> Self {
        match kind {
            Kind::Rate(rate) => Self::Leaky(LeakyBucket::new(*rate, now)),
            Kind::Window(window) => Self::Counted(CountedBucket::window(window, now)),
            Kind::Calendar(calendar) => Self::Counted(CountedBucket::calendar(calendar.amount(), now)),
            Kind::Concurrency(limit) => Self::Counted(CountedBucket::concurrency(limit, now)),
        }
    }

    /// The share that it runs on.
    pub fn share(&self) -> Share {
        match self {
            Self::Leaky(bucket) => bucket.share(),
            Self::Counted(bucket) => bucket.share(),
        }
    }

    /// What is unspent as of the last call that was given the time.
    pub fn level(&self) -> Level {
        match self {
            Self::Leaky(bucket) => bucket.level(),
            Self::Counted(bucket) => bucket.level(),
        }
    }

    /// The most that `share` can hold unspent.
    pub fn depth_of(&self, share: Share) -> Level {
        match self {
            Self::Leaky(bucket) => bucket.depth_of(share),
            Self::Counted(bucket) => bucket.depth_of(share),
        }
    }

    /// Whether more was spent than there was, and has not come back since.
    pub fn in_debt(&self) -> bool {
        match self {
            Self::Leaky(bucket) => bucket.in_debt(),
            Self::Counted(bucket) => bucket.in_debt(),
        }
    }

    /// Whether there are so many units as of the last call that was given the time, and no debt.
    pub fn has(&self, units: u64) -> bool {
        match self {
            Self::Leaky(bucket) => bucket.has(units),
            Self::Counted(bucket) => bucket.has(units),
        }
    }

    /// The share of its own that it can part with: none while it is in debt; only what is wholly unspent where units come
    /// back to the share that they were spent from.
    pub fn movable(&self) -> Share {
        match self {
            Self::Leaky(bucket) if bucket.in_debt() => Share::ZERO,
            Self::Leaky(bucket) => bucket.share(),
            Self::Counted(bucket) => bucket.loaded(),
        }
    }

    /// The least share that can hold `units` at once; more than [`ONE`] if no share can.
    pub fn lot(&self, units: u64) -> Share {
        match self {
            Self::Leaky(bucket) => bucket.lot(units),
            Self::Counted(bucket) => bucket.lot(units),
        }
    }

    /// Gains what came back since the last call. A `now` that is not later gains nothing.
    pub fn refill(&mut self, now: Instant) {
        match self {
            Self::Leaky(bucket) => bucket.refill(now),
            Self::Counted(bucket) => bucket.refill(now),
        }
    }

    /// Takes `units`. Whoever takes more than the [level](Self::level) goes into debt: nothing is there before as much has
    /// come back.
    pub fn take(&mut self, units: u64) {
        match self {
            Self::Leaky(bucket) => bucket.take(units),
            Self::Counted(bucket) => bucket.take(units),
        }
    }

    /// Takes back `units` that were taken at `taken_at` and have turned out not to be used.
    pub fn refund(&mut self, units: u64, taken_at: Instant) {
        match self {
            Self::Leaky(bucket) => bucket.refund(units, taken_at),
            Self::Counted(bucket) => bucket.refund(units, taken_at),
        }
    }

    /// When there are `units` if the share stays as it is; none if it can never hold them, or nobody knows.
    pub fn ready_at(&self, units: u64) -> Option<Instant> {
        match self {
            Self::Leaky(bucket) => bucket.ready_at(units),
            Self::Counted(bucket) => bucket.ready_at(units),
        }
    }

    /// Gains a share and the level that comes with it. What does not fit a leaky bucket overflows.
    pub fn grow(&mut self, share: Share, level: Level) {
        match self {
            Self::Leaky(bucket) => bucket.grow(share, level),
            Self::Counted(bucket) => bucket.grow(share, level),
        }
    }

    /// Gives up `share` and with it at most `level`, but at least what the remaining share cannot hold. Gives back the level
    /// that left.
    ///
    /// # Panics
    /// If the bucket does not have that share.
    pub fn shrink(&mut self, share: Share, level: Level) -> Level {
        match self {
            Self::Leaky(bucket) => bucket.shrink(share, level),
            Self::Counted(bucket) => bucket.shrink(share, level),
        }
    }

    /// The part of the level that goes with `share`: in proportion in a leaky bucket; as much as it has rights where units
    /// come back to the share that they were spent from.
    pub fn part_of_level(&self, share: Share) -> Level {
        match self {
            Self::Leaky(bucket) => part(bucket.level(), share, bucket.share()),
            Self::Counted(bucket) => bucket.level().min(bucket.depth_of(share)),
        }
    }

    /// How much more level it can hold without more share; nothing where level does not move without share.
    pub fn room(&self) -> Level {
        match self {
            Self::Leaky(bucket) => bucket.room(),
            Self::Counted(_) => Level::ZERO,
        }
    }

    /// Keeps this much of a leaky bucket's depth empty from now on: it belongs to level that left without the share to hold
    /// it and is still on its way.
    pub fn withhold(&mut self, level: Level) {
        if let Self::Leaky(bucket) = self {
            bucket.withhold(level);
        }
    }

    /// The bucket of a limit whose units come back one by one.
    pub fn counted(&self) -> Option<&CountedBucket> {
        match self {
            Self::Leaky(_) => None,
            Self::Counted(bucket) => Some(bucket),
        }
    }

    /// The period of a calendar limit, if it is known.
    pub fn period(&self) -> Option<Bounds> {
        self.counted().and_then(CountedBucket::period)
    }

    /// Tells the bucket of a calendar limit its period.
    pub fn set_period(&mut self, bounds: Bounds) {
        if let Self::Counted(bucket) = self {
            bucket.set_period(bounds);
        }
    }
}

/// `level × share / held`, rounded up: exact enough that neither part exceeds its depth.
fn part(level: Level, share: Share, held: Share) -> Level {
    if held == Share::ZERO {
        return Level::ZERO;
    }
    let (share, held) = (u128::from(share.0.min(held.0)), u128::from(held.0));
    Level(level.0 / held * share + (level.0 % held * share).div_ceil(held))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_is_the_product_or_the_greatest(atoms: u128, by in 0u32..128, factor: u64, less in 0u32..64) {
            let (atoms, factor) = (atoms >> by, factor >> less);
            prop_assert_eq!(times(atoms, factor), atoms.saturating_mul(factor.into()));
        }
    }
}
