//! The bucket of a limit whose units come back one by one: windows, calendar periods, concurrent permits. Knows time and
//! its share, and nothing of other nodes.
//!
//! A share of `h` parts of a limit of `L` units has `L × h` *rights*, in atoms of one [`ONE`]th of a unit. Each right is
//! either unspent (the *level*) or spent, and a spent one comes back when its unit no longer counts: a window's length
//! after it was spent; at the period's end; when its permit is settled.
//!
//! # Why all nodes together stay under the limit
//!
//! Shares sum to at most [`ONE`], so rights sum to at most `L`. Admitting takes a level right for every unit and holds it
//! until the unit no longer counts, so at no moment do more than `L` units count. It remains that moving share mints no
//! right and frees none early. Share that arrives with less level than it could have brings its other rights as spent
//! *at the moment of arrival* ([`grow`](CountedBucket::grow)): they return later than any unit that was spent from them
//! before. So the node that the share leaves may drop any of its spent rights for them
//! ([`shrink`](CountedBucket::shrink)). The same holds for a lease that ends without word: everything in it counts as
//! spent at its end, and the borrower, who stopped before, lets go of as many rights.
//!
//! A calendar's rights come back at the boundary all at once, by the node's own clock. Around it lies a *guard*, wider
//! than clocks differ, in which every unit counts in both periods: a unit that another clock puts on the other side of
//! the boundary is counted there, too. Rights that leave with share in the guard stay counted as spent here, in the
//! next period.
//!
//! Permits live for a bounded time. Where a node has to presume one it cannot see (a lease ended without word), it
//! presumes that it lives as long as permits can.

use super::spans::Spans;
use crate::protocol::limit::{Concurrency, Window};
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::Instant;

use super::Level;

/// Atoms in one unit.
const UNIT: u128 = ONE.0 as u128;

/// A store of rights that come back one by one.
#[derive(Clone, Debug)]
pub struct CountedBucket {
    amount: u64,
    share: Share,
    spent: Spent,
    at: Instant,
}

/// What is spent, by how it comes back.
#[derive(Clone, Debug)]
enum Spent {
    Window {
        length: u64,
        /// What was admitted here.
        own: Spans,
        /// What may have been admitted elsewhere from rights that are here now.
        presumed: Spans,
    },
    Calendar(Periods),
    Concurrency {
        length: u64,
        /// Units of permits that live here.
        live: u64,
        /// Atoms of them that are paid with rights of this node: less than all only after a lease ended under them.
        paid: u128,
        presumed: Spans,
    },
}

/// The period of a calendar limit, in the node's own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Which period; a node never goes back to an earlier one.
    pub number: i64,
    /// From then on what is spent counts in the next period, too.
    pub guard_from: Instant,
    /// From then on the next period is the present one.
    pub until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Periods {
    bounds: Option<Bounds>,
    /// Whatever was spent from then on counts in this period, …
    from: Instant,
    /// … and from then on in the next as well, wherever the guard has begun meanwhile.
    next_from: Instant,
    /// Spent in this period, in atoms …
    current: u128,
    /// … and what of it counts in the next as well.
    next: u128,
}

impl CountedBucket {
    /// A sliding window's bucket without a share.
    pub fn window(window: &Window, now: Instant) -> Self {
        let length = window.per().as_nanos() as u64;
        let spent = Spent::Window { length, own: Spans::new(length), presumed: Spans::new(length) };
        Self { amount: window.amount(), share: Share::ZERO, spent, at: now }
    }

    /// A calendar limit's bucket without a share. Admits nothing before it is told its [period](Self::set_period).
    pub fn calendar(amount: u64, now: Instant) -> Self {
        let (from, next_from) = (Instant::ZERO, Instant::ZERO);
        let periods = Periods { bounds: None, from, next_from, current: 0, next: 0 };
        Self { amount, share: Share::ZERO, spent: Spent::Calendar(periods), at: now }
    }

    /// A concurrency limit's bucket without a share.
    pub fn concurrency(limit: &Concurrency, now: Instant) -> Self {
        let ttl = limit.ttl().as_nanos() as u64;
        // A permit that is presumed runs by another node's clock, which may be slower by twice 200 ppm.
        let length = ttl + ttl / 2_500;
        let spent = Spent::Concurrency { length, live: 0, paid: 0, presumed: Spans::new(length) };
        Self { amount: limit.amount(), share: Share::ZERO, spent, at: now }
    }

    /// The share that it runs on.
    pub fn share(&self) -> Share {
        self.share
    }

    /// What is unspent as of the last call that was given the time.
    pub fn level(&self) -> Level {
        match &self.spent {
            // Before the first period is known nothing may be spent in it.
            Spent::Calendar(Periods { bounds: None, .. }) => Level::ZERO,
            _ => self.depth_of(self.share).saturating_sub(Level(self.spent_atoms())),
        }
    }

    /// What is spent and has not come back, in atoms.
    pub fn spent_atoms(&self) -> u128 {
        match &self.spent {
            Spent::Window { own, presumed, .. } => own.sum() + presumed.sum(),
            Spent::Calendar(periods) => periods.current,
            Spent::Concurrency { paid, presumed, .. } => paid + presumed.sum(),
        }
    }

    /// Whether more was spent than there were rights to, and has not come back since.
    pub fn in_debt(&self) -> bool {
        self.spent_atoms() > self.depth_of(self.share).0
    }

    /// Whether there are rights for so many units, and no debt.
    pub fn has(&self, units: u64) -> bool {
        self.level().0 >= u128::from(units) * UNIT && !self.in_debt()
    }

    /// The rights of `share`.
    pub fn depth_of(&self, share: Share) -> Level {
        Level(u128::from(self.amount) * u128::from(share.0))
    }

    /// The most share all of whose rights are unspent.
    pub fn loaded(&self) -> Share {
        Share(u64::try_from(self.level().0 / u128::from(self.amount)).unwrap_or(u64::MAX)).min(self.share)
    }

    /// The least share with the rights to `units`; more than [`ONE`] if no share has.
    pub fn lot(&self, units: u64) -> Share {
        let parts = (u128::from(units) * UNIT).div_ceil(u128::from(self.amount));
        Share(u64::try_from(parts).unwrap_or(u64::MAX))
    }

    /// Takes back what has returned by `now`. A `now` that is not later changes nothing.
    pub fn refill(&mut self, now: Instant) {
        self.at = self.at.max(now);
        match &mut self.spent {
            Spent::Window { own, presumed, .. } => {
                own.expire(now);
                presumed.expire(now);
            }
            Spent::Concurrency { presumed, .. } => presumed.expire(now),
            // Periods begin when the node says so.
            Spent::Calendar(_) => {}
        }
    }

    /// Takes `units`, for which there must be rights; or more than there are, as a debt: nothing is admitted then before
    /// as much has come back.
    pub fn take(&mut self, units: u64) {
        let atoms = u128::from(units) * UNIT;
        let at = self.at;
        match &mut self.spent {
            Spent::Window { length, own, .. } => own.push(later(at, *length), atoms),
            Spent::Calendar(periods) => periods.spend(atoms, at),
            Spent::Concurrency { live, paid, .. } => {
                *live = live.saturating_add(units);
                *paid += atoms;
            }
        }
    }

    /// Takes back `units` that were taken at `taken_at` and have turned out not to be used.
    pub fn refund(&mut self, units: u64, taken_at: Instant) {
        let atoms = u128::from(units) * UNIT;
        match &mut self.spent {
            Spent::Window { length, own, .. } => {
                own.drop_until(later(taken_at, *length), atoms);
            }
            // Whether they were taken in this period is known by their moment; those of a former one are back already.
            Spent::Calendar(periods) => periods.refund(atoms, taken_at),
            Spent::Concurrency { live, paid, .. } => {
                *live = live.saturating_sub(units);
                *paid = (*paid).min(u128::from(*live) * UNIT);
            }
        }
    }

    /// When there are rights for `units` if the share stays as it is and nobody settles; none if that cannot be known or
    /// the share never has them.
    pub fn ready_at(&self, units: u64) -> Option<Instant> {
        let wanted = Level(u128::from(units) * UNIT);
        let left = self.depth_of(self.share).0.checked_sub(wanted.0)?;
        if self.level() >= wanted && self.spent_atoms() <= left {
            return Some(self.at);
        }
        match &self.spent {
            Spent::Window { own, presumed, .. } => own.falls_to_with(presumed, left),
            // A period that should be over and is not, because the wall clock went back, ends nobody knows when.
            Spent::Calendar(periods) => {
                periods.bounds.map(|bounds| bounds.until).filter(|until| *until > self.at)
            }
            Spent::Concurrency { paid, presumed, .. } => presumed.falls_to(left.checked_sub(*paid)?),
        }
    }

    /// Gains a share and the level that comes with it; its other rights count as spent now.
    pub fn grow(&mut self, share: Share, level: Level) {
        self.share += share;
        let rights = self.depth_of(share);
        let missing = rights.saturating_sub(level).0;
        let more = level.saturating_sub(rights).0;
        let at = self.at;
        match &mut self.spent {
            Spent::Window { length, presumed, .. } | Spent::Concurrency { length, presumed, .. } => {
                presumed.push(later(at, *length), missing);
                // Word that rights which were presumed spent never were. The earliest to return go: the later moments
                // cover whatever was spent of all the others.
                presumed.drop_earliest(more);
            }
            Spent::Calendar(periods) => {
                periods.spend(missing, at);
                periods.current = periods.current.saturating_sub(more);
                // In the guard it cannot be told which period they would have been spent in.
            }
        }
    }

    /// Gives up `share` with at most `level` of its rights unspent, and as much unspent as there is where the rest of the
    /// share has none spent to spare. Gives back the level that left; the other rights of the share leave as spent.
    ///
    /// # Panics
    /// If the bucket does not have that share.
    pub fn shrink(&mut self, share: Share, level: Level) -> Level {
        let before = self.level();
        self.share -= share;
        let rights = self.depth_of(share);
        let forced = rights.saturating_sub(Level(self.spent_atoms()));
        let left = level.max(forced).min(rights).min(before);
        let spent = rights.0 - left.0;
        match &mut self.spent {
            Spent::Window { own, presumed, .. } => {
                let rest = spent - presumed.drop_latest(spent);
                own.drop_latest(rest);
            }
            Spent::Calendar(periods) => periods.current = periods.current.saturating_sub(spent),
            Spent::Concurrency { paid, presumed, .. } => {
                let rest = spent - presumed.drop_latest(spent);
                *paid = paid.saturating_sub(rest);
            }
        }
        left
    }

    /// Tells a calendar limit its period. The present one may be moved a little, as clocks are; an earlier one than the
    /// present is ignored; with a later one the next period begins, in which what was spent in the guard is spent.
    pub fn set_period(&mut self, bounds: Bounds) {
        let Spent::Calendar(periods) = &mut self.spent else { return };
        match periods.bounds {
            Some(known) if bounds.number < known.number => {}
            Some(known) if bounds.number > known.number => {
                let (from, current) = (periods.next_from, periods.next);
                *periods =
                    Periods { bounds: Some(bounds), from, next_from: bounds.guard_from, current, next: 0 };
            }
            _ => {
                periods.bounds = Some(bounds);
                periods.next_from = periods.next_from.max(bounds.guard_from);
            }
        }
    }

    /// What counts in a calendar limit's next period already, in atoms.
    pub fn next_atoms(&self) -> u128 {
        match &self.spent {
            Spent::Calendar(periods) => periods.next,
            _ => 0,
        }
    }

    /// The period of a calendar limit, if it is known.
    pub fn period(&self) -> Option<Bounds> {
        match &self.spent {
            Spent::Calendar(periods) => periods.bounds,
            _ => None,
        }
    }
}

impl Periods {
    fn spend(&mut self, atoms: u128, at: Instant) {
        self.current = self.current.saturating_add(atoms);
        if self.bounds.is_some_and(|bounds| at >= bounds.guard_from) {
            self.next = self.next.saturating_add(atoms);
        }
    }

    fn refund(&mut self, atoms: u128, taken_at: Instant) {
        if taken_at >= self.from {
            self.current = self.current.saturating_sub(atoms);
        }
        if taken_at >= self.next_from && self.bounds.is_some() {
            self.next = self.next.saturating_sub(atoms);
        }
    }
}

fn later(at: Instant, nanos: u64) -> Instant {
    Instant::from_nanos(at.as_nanos().saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn whole(mut bucket: CountedBucket) -> CountedBucket {
        let full = bucket.depth_of(ONE);
        bucket.grow(ONE, full);
        bucket
    }

    fn units(bucket: &CountedBucket) -> u64 {
        (bucket.level().0 / UNIT) as u64
    }

    fn window(amount: u64, millis: u64) -> CountedBucket {
        let window = Window::new(amount, Duration::from_millis(millis)).unwrap();
        CountedBucket::window(&window, Instant::ZERO)
    }

    #[test]
    fn a_window_has_every_unit_back_its_length_after_it_was_spent() {
        let mut bucket = whole(window(10, 1_000));
        bucket.take(4);
        bucket.refill(at(600));
        bucket.take(6);
        assert_eq!(
            (units(&bucket), bucket.ready_at(4), bucket.ready_at(5)),
            (0, Some(at(1_000)), Some(at(1_600)))
        );
        bucket.refill(at(1_000));
        assert_eq!((units(&bucket), bucket.ready_at(11)), (4, None));
    }

    #[test]
    fn share_moves_with_what_is_unspent_and_the_rest_counts_as_spent_on_arrival() {
        let (mut from, mut to) = (whole(window(10, 1_000)), window(10, 1_000));
        from.take(8);
        assert_eq!(from.loaded(), ONE.scale(2, 10));
        let half = ONE.scale(1, 2);
        let level = from.shrink(half, Level(u128::MAX));
        assert_eq!((units(&from), level.0 / UNIT), (0, 2));
        to.refill(at(400));
        to.grow(half, level);
        assert_eq!(units(&to), 2);
        // Five units stayed spent here and are back in time, three left as spent and count from their arrival.
        from.refill(at(1_000));
        to.refill(at(1_399));
        assert_eq!((units(&from), units(&to)), (5, 2));
        to.refill(at(1_400));
        assert_eq!(units(&to), 5);
    }

    #[test]
    fn slots_come_back_when_their_permits_are_settled_or_presumed_to_be_over() {
        let limit = Concurrency::new(3, Duration::from_secs(60)).unwrap();
        let mut bucket = whole(CountedBucket::concurrency(&limit, Instant::ZERO));
        bucket.take(3);
        assert_eq!((units(&bucket), bucket.ready_at(1)), (0, None));
        bucket.refund(1, Instant::ZERO);
        assert_eq!(units(&bucket), 1);
        // A lease ends under two permits: their rights have gone home as spent, and settling them brings nothing here.
        let left = bucket.shrink(ONE, Level(u128::MAX));
        assert_eq!(left.0 / UNIT, 1);
        bucket.refund(2, Instant::ZERO);
        assert_eq!((units(&bucket), bucket.spent_atoms()), (0, 0));
        bucket.grow(ONE, Level::ZERO);
        bucket.refill(at(60_023));
        assert_eq!(units(&bucket), 0);
        bucket.refill(at(60_024));
        assert_eq!(units(&bucket), 3);
    }

    #[test]
    fn what_is_spent_in_the_guard_counts_in_both_periods() {
        let mut bucket = whole(CountedBucket::calendar(10, Instant::ZERO));
        assert_eq!(units(&bucket), 0, "no period, no units");
        bucket.set_period(Bounds { number: 1, guard_from: at(900), until: at(1_100) });
        bucket.take(2);
        bucket.refill(at(950));
        bucket.take(3);
        assert_eq!((units(&bucket), bucket.ready_at(6)), (5, Some(at(1_100))));
        bucket.refill(at(1_100));
        let next = Bounds { number: 2, guard_from: at(1_900), until: at(2_100) };
        bucket.set_period(next);
        assert_eq!(units(&bucket), 7);
        bucket.set_period(Bounds { number: 1, ..next });
        assert_eq!((units(&bucket), bucket.period()), (7, Some(next)), "never back");
        // Of what was spent in the last period only what was spent in the guard can be refunded in this one.
        bucket.refund(2, at(0));
        assert_eq!(units(&bucket), 7);
        bucket.refund(3, at(950));
        assert_eq!(units(&bucket), 10);
    }

    #[test]
    fn more_than_there_is_becomes_a_debt_that_is_paid_first() {
        let mut bucket = whole(window(10, 1_000));
        bucket.take(8);
        bucket.refill(at(500));
        bucket.take(7);
        assert_eq!(units(&bucket), 0);
        bucket.refill(at(1_000));
        assert_eq!(units(&bucket), 3);
    }

    proptest! {
        /// Some buckets of one window that move share to and fro, in flight for a while, spend, refund and lose leases,
        /// never admit more than the window's amount in any interval of its length.
        #[test]
        fn no_interval_of_a_windows_length_sees_more_than_its_amount(
            steps in proptest::collection::vec((0u64..60, 0usize..3, 0usize..3, 0u64..7, 0u8..4, 0u64..40), 1..120),
        ) {
            let mut buckets = [whole(window(12, 100)), window(12, 100), window(12, 100)];
            let mut in_flight: Vec<(u64, usize, Share, Level)> = Vec::new();
            let mut spent: Vec<(u64, usize, u64)> = Vec::new();
            let mut now = 0;
            for (pause, from, to, parts, kind, delay) in steps {
                now += pause;
                for bucket in &mut buckets {
                    bucket.refill(at(now));
                }
                let due = |flight: &(u64, usize, Share, Level)| flight.0 <= now;
                let arrived: Vec<_> = in_flight.iter().copied().filter(due).collect();
                in_flight.retain(|flight| !due(flight));
                for (_, to, share, level) in arrived {
                    buckets[to].grow(share, level);
                }
                let bucket = &mut buckets[from];
                match kind {
                    0 => {
                        let share = ONE.scale(parts, 12).min(bucket.share());
                        let level = bucket.shrink(share, Level(u128::from(delay) * UNIT / 8));
                        // Every third loan loses its level on the way: it counts as spent.
                        let level = if delay % 3 == 0 { Level::ZERO } else { level };
                        in_flight.push((now + delay, to, share, level));
                    }
                    1 => if let Some(place) = spent.iter().rposition(|(_, node, units)| *node == from && *units > 0) {
                        // The call turned out to have used less than was reserved.
                        let (when, _, units) = &mut spent[place];
                        let unused = (*units).min(parts);
                        *units -= unused;
                        bucket.refund(unused, at(*when));
                    },
                    _ => if bucket.level() >= Level(u128::from(parts) * UNIT) {
                        bucket.take(parts);
                        spent.push((now, from, parts));
                    },
                }
                let recent: u64 = spent.iter().filter(|(when, _, _)| when + 100 > now).map(|(_, _, units)| units).sum();
                prop_assert!(recent <= 12, "{} at {}: {:?}", recent, now, spent);
                let all: u64 = buckets.iter().map(|bucket| bucket.share().0).sum::<u64>()
                    + in_flight.iter().map(|flight| flight.2.0).sum::<u64>();
                prop_assert_eq!(all, ONE.0);
            }
        }
    }
}
