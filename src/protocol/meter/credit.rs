//! What one lender can bring: a borrower believes of it no more than its base share could have.
//!
//! A loan and a gift say which level comes with them, and only the lender knows whether it was there. So each borrower
//! keeps for each lender a leaky bucket of the lender's base share, out of which what it brings is taken, and into which
//! what goes back to it returns. What of the base share is on loan to the borrower earns in the borrower's own bucket and
//! nothing here, so whatever a lender says, what the borrower spends of it in `[s, t]` is at most what that base share is
//! worth, `depth + rate × (t - s)`. Base share that a lender was given while that was watched brings nothing but what it
//! earned since: what went with the gift the giver knows, and may have spent before. So does all of a node that was restarted,
//! whose former life may have spent what there was. An honest lender seldom brings more (the level that it has beyond its base share's
//! depth was borrowed); what it does is given back to it.

use crate::protocol::bucket::{Bucket, Level};
use crate::protocol::limit::Kind;
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::{Instant, nanos};

/// A leaky bucket of one lender's base share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    /// The lender's base share, as far as known.
    base: Share,
    left: Level,
    at: Instant,
}

impl Credit {
    /// Full.
    pub(super) fn new(bucket: &Bucket, base: Share, now: Instant) -> Self {
        Self { base, left: bucket.depth_of(base), at: now }
    }

    /// Empty.
    pub(super) fn empty(base: Share, now: Instant) -> Self {
        Self { base, left: Level::ZERO, at: now }
    }

    /// The lender has this base share now.
    pub(super) fn set_base(&mut self, base: Share) {
        self.base = base;
    }

    /// Another period of a calendar begins: everything is there again.
    pub(super) fn renew(&mut self, bucket: &Bucket) {
        self.left = bucket.depth_of(self.base);
    }

    /// Gains what the base share earned, but for what was `held` here: must precede every change of either.
    pub(super) fn earn(&mut self, held: Share, bucket: &Bucket, kind: &Kind, now: Instant) {
        let rest = self.base.saturating_sub(held);
        let earned = earned(kind, rest, nanos(now.since(self.at)));
        self.at = self.at.max(now);
        self.left = Level(self.left.0.saturating_add(earned)).min(bucket.depth_of(rest));
    }

    /// Takes as much of `wanted` as there is.
    pub(super) fn take(&mut self, wanted: Level) -> Level {
        let taken = wanted.min(self.left);
        self.left = self.left.saturating_sub(taken);
        taken
    }

    /// What goes back to the lender may come again.
    pub(super) fn give(&mut self, level: Level) {
        self.left = Level(self.left.0.saturating_add(level.0));
    }
}

/// Atoms that a share earns in so many nanoseconds; those of a calendar come back when the next period begins, and not before.
fn earned(kind: &Kind, share: Share, elapsed: u64) -> u128 {
    if matches!(kind, Kind::Calendar(_)) {
        return 0;
    }
    let per = nanos(kind.per()).max(1);
    // Atoms are a multiple of ONE, so this is exact.
    let whole = Level::of(kind.amount(), kind).0 / u128::from(ONE.0);
    (whole / u128::from(per)).saturating_mul(u128::from(share.0)).saturating_mul(u128::from(elapsed))
        + (whole % u128::from(per)).saturating_mul(u128::from(share.0)).saturating_mul(u128::from(elapsed))
            / u128::from(per)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::limit::{Rate, Window};

    #[test]
    fn brings_what_the_base_share_could_have_and_no_more() {
        for (kind, depth) in [
            (Kind::from(Rate::new(10, Duration::from_secs(1), 20).unwrap()), 20),
            (Kind::Window(Window::new(10, Duration::from_secs(1)).unwrap()), 10),
        ] {
            let start = Instant::from_nanos(7);
            let bucket = Bucket::new(&kind, start);
            let half = ONE.scale(1, 2);
            let units = |units| Level::of(units, &kind);
            let mut credit = Credit::new(&bucket, half, start);
            let mut take = |wanted, at: u64| {
                credit.earn(Share::ZERO, &bucket, &kind, start + Duration::from_secs(at));
                credit.take(units(wanted)).units(&kind)
            };
            assert_eq!(take(100, 0), depth / 2);
            assert_eq!(take(100, 0), 0);
            assert_eq!(take(100, 1), 5, "five a second");
            assert_eq!(take(100, 1_000), depth / 2);
            credit.give(units(3));
            assert_eq!(credit.take(units(100)).units(&kind), 3);
            // What is on loan here earns here.
            credit.earn(half, &bucket, &kind, start + Duration::from_secs(2_000));
            assert_eq!(credit.take(units(100)).units(&kind), 0);
            credit.earn(ONE.scale(1, 4), &bucket, &kind, start + Duration::from_secs(3_000));
            assert_eq!(credit.take(units(100)).units(&kind), depth / 4);
        }
    }
}
