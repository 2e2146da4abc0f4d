//! One limit on one node. The bucket knows time and not replicas, the counter replicas and not time; this joins
//! them, with the leases that move share between nodes.
//!
//! Invariant, after every method: the bucket runs on `base − lent + borrowed`.

mod books;
mod credit;
mod leases;
mod running;

use std::collections::BTreeMap;
use std::time::Duration;

use credit::Credit;
pub use leases::FormerLeases;
use running::Leases;

use super::bucket::{Bounds, Bucket, Level};
use super::counter::GCounter;
use super::demand::{Demand, WINDOW};
use super::id::{NodeId, Replica};
use super::keyed::Balance;
use super::lease::{Borrowed, Lent};
use super::limit::{Fingerprint, Kind, Limit};
use super::loans::{Account, Claims, Loans};
use super::provider::{Estimates, Unreported};
use super::queue::Class;
use super::share::{ONE, Share};
use super::time::Instant;

/// Tags grow by this much per unit at weight 1, so that weights up to 16 divide without rounding to nothing.
pub const TAG_SCALE: u64 = 16;

/// Backlog counts as demand as if it should be gone in this time: short, so that a node which begins to ask has shown its
/// whole demand after a few requests.
pub const BACKLOG_HORIZON: Duration = Duration::from_millis(200);
/// Rights to units that come back one by one are asked for as far ahead as this. What is unspent on loan when a link is cut
/// counts as spent until word of it comes, so it should be little of a day's budget.
const ARRIVAL_HORIZON: Duration = Duration::from_secs(4);

/// A limit that needs so long to fill up is slow.
const SLOW: Duration = Duration::from_secs(600);

/// One limit on one node.
#[derive(Clone, Debug)]
pub struct Meter {
    /// The limit.
    pub limit: Limit,
    /// Its identity in the swarm.
    pub fingerprint: Fingerprint,
    /// Units that everybody has admitted, ever.
    pub used: GCounter,
    /// What callers ask for, …
    pub demand: Demand,
    /// … and by class, once one but the usual has been asked for.
    by_class: Option<Box<[Demand; 4]>>,
    /// Units that wait, by class.
    pub backlog: [u64; 4],
    /// How long the whole limit takes to earn a unit, in nanoseconds.
    pub unit_nanos: f64,
    /// Service received, per weight.
    pub tag: u64,
    /// The tag at which the present turn began.
    pub turn_began: u64,
    /// The tag up to which it lasts, …
    pub turn_end: u64,
    /// … and the moment up to which it does at most.
    pub turn_until: Instant,
    /// What its pool's queue had served when it last waited for another limit.
    served_for_others: u32,
    /// What is out on loan is wanted here: leases are not prolonged.
    pub recalls: bool,
    /// Since when much less is held than the target; or since everybody was told so.
    pub lacks_since: Option<Instant>,
    /// The last target computed, for people.
    pub target: Share,
    /// Units of permits that are out.
    pub open: u64,
    /// What the provider says, if it is told here.
    pub unreported: Option<Box<Unreported>>,
    /// What all nodes make of what the provider says.
    pub estimates: Estimates,
    /// Atoms of the base share's rights that may be missing by what was to be saved last …
    pub reserved: u128,
    /// … and by what is known to be on disk.
    pub stored: u128,
    /// Share that others are due and that is spent here: what comes back to it is theirs first.
    pub due: Share,
    /// Units that were refunded: so many of those taken next were counted as used already.
    unused: u64,
    /// The largest request that was refused without waiting, and until when it counts as if it waited.
    pub refused: (u64, Instant),
    /// Until when level that is here now is kept for it.
    offered_until: Option<Instant>,
    /// Nobody came back for what was offered.
    missed: bool,
    bucket: Bucket,
    /// Share of the base that is kept out of use because somebody uses as much without reporting it.
    frozen: Option<Box<Bucket>>,
    base: Share,
    lent: Leases<Lent>,
    borrowed: Leases<Borrowed>,
    /// What each lender can still bring.
    credits: BTreeMap<NodeId, Credit>,
    /// Since when that is known, if it was not from the beginning: a former life may have had all that there was before.
    pub credited_since: Option<Instant>,
    /// What is lent, as it is signed, …
    loans: Loans,
    /// … what was held of each lender, and its books have to show, …
    accounts: BTreeMap<Replica, Account>,
    /// … and what each lender's books claim to have been its own.
    claims: BTreeMap<NodeId, Claims>,
    sequence: u64,
    /// Peers may drop it at any time.
    is_of_key: bool,
    is_slow: bool,
    /// Up to when loans are counted.
    counted_at: Instant,
    /// When the next lease ends, unless a lease changed since that was looked up.
    next_expiry: Option<Instant>,
    leases_changed: bool,
}

impl Meter {
    /// A limit of `pool` on a node without any share.
    pub fn new(limit: Limit, pool: &str, now: Instant) -> Self {
        Self {
            fingerprint: limit.fingerprint(pool),
            used: GCounter::default(),
            demand: Demand::new(),
            by_class: None,
            backlog: [0; 4],
            unit_nanos: 1e9 / limit.kind.per_second(),
            tag: 0,
            turn_began: 0,
            turn_end: 0,
            turn_until: Instant::ZERO,
            served_for_others: 0,
            recalls: false,
            lacks_since: None,
            target: Share::ZERO,
            open: 0,
            unreported: None,
            estimates: Estimates::default(),
            reserved: 0,
            stored: 0,
            due: Share::ZERO,
            unused: 0,
            refused: (0, Instant::ZERO),
            offered_until: None,
            missed: false,
            bucket: Bucket::new(&limit.kind, now),
            frozen: None,
            base: Share::ZERO,
            lent: Leases::new(),
            borrowed: Leases::new(),
            credits: BTreeMap::new(),
            credited_since: None,
            loans: Loans::default(),
            accounts: BTreeMap::new(),
            claims: BTreeMap::new(),
            sequence: 0,
            is_of_key: false,
            is_slow: is_slow(&limit.kind),
            counted_at: Instant::ZERO,
            next_expiry: None,
            leases_changed: false,
            limit,
        }
    }

    /// One limit of one key on a node that has used the key before: `fingerprint` is the limit's for this key alone, the
    /// bucket has `balance` on `base`. Leases begin after those that the node remembers of this and other keys.
    pub fn of_key(
        limit: Limit,
        fingerprint: Fingerprint,
        base: Share,
        balance: Balance,
        former: &FormerLeases,
        now: Instant,
    ) -> Self {
        let borrowed = former.borrowed.iter().map(|(lender, sequence)| (*lender, Borrowed::after(*sequence)));
        let mut meter = Self {
            fingerprint,
            is_of_key: true,
            sequence: former.lent,
            borrowed: borrowed.collect(),
            credited_since: former.credited_since,
            ..Self::new(limit, "", now)
        };
        meter.set_base(base, balance.level(), now);
        if let Bucket::Leaky(bucket) = &mut meter.bucket {
            bucket.owe(balance.debt());
        }
        meter
    }

    /// The bucket, to read.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Brings the bucket up to `now`.
    pub fn refill(&mut self, now: Instant) {
        self.bucket.refill(now);
    }

    /// Share that the node runs on.
    pub fn held(&self) -> Share {
        self.bucket.share()
    }

    /// Base share that may be used.
    pub fn base(&self) -> Share {
        self.base
    }

    /// Base share that is not out on loan and can be lent or given.
    pub fn free(&self) -> Share {
        self.base.saturating_sub(self.lent() + self.frozen()).min(self.bucket.movable())
    }

    /// Base share that is kept out of use.
    pub fn frozen(&self) -> Share {
        self.frozen.as_ref().map_or(Share::ZERO, |frozen| frozen.share())
    }

    /// Whether it takes so long to have back what was spent that it should outlive a restart.
    pub fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Atoms of the base share's rights that are spent or lent.
    pub fn missing(&self) -> u128 {
        let borrowed = self.bucket.depth_of(self.borrowed());
        let frozen = self.frozen.as_ref().map_or(Level::ZERO, |frozen| frozen.level());
        let own = self.bucket.level().saturating_sub(borrowed).0 + frozen.0;
        self.bucket.depth_of(self.base).0.saturating_sub(own)
    }

    /// Units that all nodes have used, less what is known here to have been taken back.
    pub fn used_units(&self) -> u64 {
        u64::try_from(self.used.total()).unwrap_or(u64::MAX).saturating_sub(self.unused)
    }

    /// Keeps this part of the base share out of use, as far as it is here, in a bucket of its own: moving share to it and
    /// back is like lending it to a node that never spends. True if something moved.
    pub fn freeze(&mut self, part: Share, now: Instant) -> bool {
        let wanted = self.base.scale(part.0, ONE.0);
        let frozen = self.frozen();
        // Small changes are left alone, but not the last of it.
        if wanted == frozen
            || (part > Share::ZERO && wanted.max(frozen) - wanted.min(frozen) < self.base.scale(1, 100))
        {
            return false;
        }
        self.refill(now);
        let store = self.frozen.get_or_insert_with(|| Box::new(Bucket::new(&self.limit.kind, now)));
        store.refill(now);
        if let Some(bounds) = self.bucket.period() {
            store.set_period(bounds);
        }
        let (from, to, share) = if wanted > frozen {
            let free = self
                .base
                .saturating_sub(self.lent.running().map(|(_, lent)| lent.out()).sum::<Share>() + frozen);
            (&mut self.bucket, &mut **store, (wanted - frozen).min(free))
        } else {
            (&mut **store, &mut self.bucket, frozen - wanted)
        };
        let share = share.min(from.share());
        let level = from.part_of_level(share);
        let level = from.shrink(share, level);
        to.grow(share, level);
        if part == Share::ZERO {
            self.frozen = None;
        }
        share > Share::ZERO
    }

    /// Whether there are so many units now that nobody else is due; call [`refill`](Self::refill) first.
    pub fn has(&self, units: u64) -> bool {
        if self.due == Share::ZERO {
            return self.bucket.has(units);
        }
        let level = self.bucket.level().saturating_sub(self.bucket.depth_of(self.due));
        level >= Level::of(units, &self.limit.kind) && !self.bucket.in_debt()
    }

    /// When there are `units` that nobody else is due if the share stays as it is; none if it can never hold them, or nobody
    /// knows.
    pub fn ready_at(&self, units: u64) -> Option<Instant> {
        let due = self.bucket.depth_of(self.due).0.div_ceil(Level::of(1, &self.limit.kind).0);
        self.bucket.ready_at(units.saturating_add(u64::try_from(due).unwrap_or(u64::MAX)))
    }

    /// Whole units that are there.
    pub fn units(&self) -> u64 {
        self.bucket.level().units(&self.limit.kind)
    }

    /// Counts an arrival of `units` of a class, admitted or not.
    pub fn arrive(&mut self, units: u64, class: Class, now: Instant) {
        self.demand.arrive(units, now);
        if self.by_class.is_none() && class != Class::Normal {
            self.by_class = Some(Box::default());
        }
        if let Some(by_class) = &mut self.by_class {
            by_class[class.index()].arrive(units, now);
        }
    }

    /// Of what its pool's queue has `served` since it was last empty, what it served since it last waited for another limit.
    pub fn served_for_it(&mut self, served: u32, waits_for_other: bool) -> u32 {
        let before = if waits_for_other { served } else { self.served_for_others.min(served) };
        self.served_for_others = before;
        served - before
    }

    /// Splits a demand into the parts of the critical, high and low class, as they arrive and wait; the rest is normal.
    pub fn split(&mut self, demand: Share, now: Instant) -> [Share; 3] {
        let Some(by_class) = &mut self.by_class else { return [Share::ZERO; 3] };
        let horizons = u64::try_from(WINDOW.as_nanos() / BACKLOG_HORIZON.as_nanos()).unwrap_or(1);
        let mut units = [0_u64; 4];
        for ((units, demand), backlog) in units.iter_mut().zip(by_class.iter_mut()).zip(self.backlog) {
            *units = demand.latest(now).saturating_add(backlog.saturating_mul(horizons));
        }
        let all = units.iter().fold(0_u64, |sum, units| sum.saturating_add(*units));
        [Class::Critical, Class::High, Class::Low].map(|class| demand.scale(units[class.index()], all))
    }

    /// Spends `units` as `replica`. More than there are becomes a debt.
    pub fn take(&mut self, units: u64, replica: Replica, weight: u32) {
        self.bucket.take(units);
        self.offered_until = None;
        let known = self.unused.min(units);
        self.unused -= known;
        self.used.add(replica, units - known);
        self.tag = self.tag.saturating_add(units.saturating_mul(TAG_SCALE) / u64::from(weight.max(1)));
    }

    /// Takes back `units` that were taken at `taken_at` and have turned out not to be used. What was counted as used stays
    /// counted, because counters only grow, and is not counted again.
    pub fn refund(&mut self, units: u64, taken_at: Instant) {
        self.bucket.refund(units, taken_at);
        self.unused = self.unused.saturating_add(units);
    }

    /// Tells a calendar limit its period.
    pub fn set_period(&mut self, bounds: Bounds) {
        if self.bucket.period().is_some_and(|known| known.number < bounds.number) {
            // What stands on disk is of a period that is over.
            (self.reserved, self.stored) = (0, 0);
        }
        if self.bucket.period().is_none_or(|known| known.number < bounds.number) {
            self.credits.values_mut().for_each(|credit| credit.renew(&self.bucket));
        }
        self.bucket.set_period(bounds);
        if let Some(frozen) = &mut self.frozen {
            frozen.set_period(bounds);
        }
    }

    /// A turn begins that lasts for so much service, and at most twice as long as that takes where all of the rate is used.
    pub fn begin_turn(&mut self, service: u64, lasts: Duration, now: Instant) {
        let fills = self.bucket.depth_of(ONE).units(&self.limit.kind) as f64 * self.unit_nanos;
        self.turn_began = self.tag;
        self.turn_end = self.tag.saturating_add(service);
        self.turn_until = now + lasts.max(Duration::from_nanos(fills.min(u64::MAX as f64 / 4.0) as u64)) * 2;
    }

    /// Whoever cannot use all of the rate in its turn, because its requests come too late to fill it, say, would keep the
    /// others waiting for a multiple of a turn: what it did not use in time counts as used.
    pub fn end_turn_in_time(&mut self, now: Instant) {
        if self.tag < self.turn_end && now >= self.turn_until {
            self.tag = self.turn_end;
        }
    }

    /// Units of the largest request that was refused and counts as if it waited: until its time is over, or until level for
    /// it is here and was [offered](Self::offer).
    pub fn refused(&self, now: Instant) -> u64 {
        let (units, until) = self.refused;
        if until > now && (self.offered_until.is_some() || !self.has(units)) { units } else { 0 }
    }

    /// Keeps level that came for a request that was refused without waiting, for as long as its caller was told to stay
    /// away at most. If nobody came back in that time, the turn in which it was kept counts as used: otherwise this node
    /// would stay the least served, and have all of the share come again and again for nobody.
    pub fn offer(&mut self, now: Instant) {
        if std::mem::take(&mut self.missed) {
            self.tag = self.tag.max(self.turn_end);
        }
        let (units, until) = self.refused;
        if self.offered_until.is_none() && until > now && self.has(units) {
            let seconds = (units as f64 / self.limit.kind.per_second()).min(86_400.0);
            let told = Duration::from_secs_f64(seconds);
            let kept_for = told + (told / 10).max(Duration::from_millis(1));
            self.offered_until = Some(until.min(now + kept_for));
            self.leases_changed = true;
        }
    }

    /// Changes the base share; `level` comes with a greater one. A smaller one leaves the bucket at least what it can
    /// still hold.
    pub fn set_base(&mut self, base: Share, level: Level, now: Instant) {
        self.count_loans(now);
        self.refill(now);
        self.base = base;
        self.reshare(level);
    }

    /// Gives part of the base share away for good, with its part of the level, which is returned.
    ///
    /// # Panics
    /// If more is given than is free.
    pub fn give_base(&mut self, share: Share, now: Instant) -> Level {
        assert!(share <= self.free(), "BUG! gave base share that is out on loan");
        self.count_loans(now);
        self.refill(now);
        let level = self.part_of_level(share);
        self.base -= share;
        self.bucket.shrink(share, level)
    }

    /// Drops base, leases, level, and what others have admitted: the ledger that they belong to is not ours any more.
    pub fn forget_everything(&mut self, me: Replica, now: Instant) {
        self.leases_changed = true;
        self.count_loans(now);
        let own = self.used.of(&me);
        self.used = GCounter::default();
        self.used.merge(me, own);
        self.bucket = Bucket::new(&self.limit.kind, now);
        self.frozen = None;
        (self.base, self.lent, self.borrowed) = (Share::ZERO, Leases::new(), Leases::new());
    }

    /// The part of the level that goes with `share` of what is held.
    pub fn part_of_level(&self, share: Share) -> Level {
        self.bucket.part_of_level(share)
    }

    /// The share that `arriving` units per second and `backlog` units that wait would use; at most 16 times the whole.
    ///
    /// A leaky bucket needs the share that earns what arrives, and the backlog within [`BACKLOG_HORIZON`]. Where units come
    /// back one by one it needs what is spent, what waits, and what will arrive until more share can be here.
    pub fn wanted(&self, arriving: u64, backlog: u64) -> Share {
        let per_second = u128::from(1_000_000_000_u64);
        let (units, whole) = match self.bucket.counted() {
            None => {
                let pressing = u128::from(backlog) * per_second / BACKLOG_HORIZON.as_nanos();
                let units = u128::from(arriving).saturating_add(pressing);
                let per = self.limit.kind.per().as_nanos();
                (units.saturating_mul(per), u128::from(self.limit.kind.amount()) * per_second)
            }
            Some(bucket) => {
                let horizon = match self.limit.kind {
                    // Permits come back: what arrives in a second does not add up.
                    Kind::Concurrency(_) => BACKLOG_HORIZON,
                    _ => self.limit.kind.per().min(ARRIVAL_HORIZON),
                };
                let arriving = (u128::from(arriving) * horizon.as_nanos()).div_ceil(per_second);
                let spent = bucket.spent_atoms().div_ceil(u128::from(ONE.0));
                (spent + arriving + u128::from(backlog), u128::from(self.limit.kind.amount()))
            }
        };
        let parts = units.saturating_mul(u128::from(ONE.0)) / whole;
        Share(u64::try_from(parts).unwrap_or(u64::MAX)).min(Share(ONE.0 << 4))
    }

    fn reshare(&mut self, level: Level) {
        let own = self.base.saturating_sub(self.lent());
        if let Some(frozen) = &mut self.frozen {
            let excess = frozen.share().saturating_sub(own);
            frozen.shrink(excess, Level::ZERO);
        }
        let wanted = own.saturating_sub(self.frozen()) + self.borrowed();
        let held = self.bucket.share();
        if wanted >= held {
            self.bucket.grow(wanted - held, level);
        } else {
            // Base share was reclaimed by others while it was lent: what comes home is theirs.
            self.bucket.shrink(held - wanted, Level::ZERO);
        }
    }
}

fn is_slow(kind: &Kind) -> bool {
    match kind {
        Kind::Rate(rate) => rate.burst() as f64 / rate.per_second() >= SLOW.as_secs_f64(),
        Kind::Calendar(calendar) => calendar.every().nominal() >= SLOW,
        // What is spent of these counts from the restart on as long as it could.
        Kind::Window(_) | Kind::Concurrency(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::{Incarnation, NodeId};
    use super::super::limit::Rate;
    use super::*;

    #[test]
    fn what_was_served_while_another_limit_was_waited_for_does_not_count() {
        let mut meter = meter(ONE);
        assert_eq!(meter.served_for_it(10, false), 10);
        assert_eq!(meter.served_for_it(20, true), 0);
        assert_eq!(meter.served_for_it(25, false), 5);
        // The queue was empty meanwhile.
        assert_eq!(meter.served_for_it(3, false), 0);
        assert_eq!(meter.served_for_it(10, false), 7);
    }

    pub(super) fn replica(id: u8) -> Replica {
        Replica { node: NodeId([id; 32]), incarnation: Incarnation(1) }
    }

    pub(super) fn meter(base: Share) -> Meter {
        let kind = Kind::Rate(Rate::new(100, Duration::from_secs(1), 40).unwrap());
        let limit = Limit { name: "rps".to_owned(), unit: "requests".to_owned(), kind };
        let mut meter = Meter::new(limit, "pool", Instant::ZERO);
        let level = meter.bucket.depth_of(base);
        meter.set_base(base, level, Instant::ZERO);
        meter
    }

    #[test]
    fn level_that_came_for_a_refused_request_is_kept_for_it_once() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut meter = meter(ONE);
        meter.take(40, replica(1), 1);
        (meter.refused, meter.turn_end) = ((10, at(250)), meter.tag + 500);
        meter.offer(at(0));
        assert_eq!((meter.refused(at(0)), meter.next_expiry()), (10, None), "there is nothing to offer");
        meter.refill(at(100));
        meter.offer(at(100));
        // Ten of a hundred a second: the caller was told a tenth of a second, and up to a tenth of it more.
        assert_eq!((meter.refused(at(209)), meter.next_expiry()), (10, Some(at(210))));
        let (tag, end) = (meter.tag, meter.turn_end);
        assert!(meter.expire(at(210)).1);
        assert_eq!((meter.refused(at(210)), meter.next_expiry(), meter.tag), (0, None, tag));
        meter.offer(at(210));
        assert_eq!(meter.tag, end, "the turn counts as used");
    }

    #[test]
    fn whoever_comes_back_in_time_keeps_the_rest_of_its_turn() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut meter = meter(ONE);
        (meter.refused, meter.turn_end) = ((10, at(250)), 500);
        meter.offer(at(0));
        meter.take(10, replica(1), 1);
        meter.expire(at(200));
        meter.offer(at(200));
        assert_eq!((meter.tag, meter.refused(at(200))), (10 * TAG_SCALE, 10));
    }

    #[test]
    fn demand_becomes_a_share_of_the_limit() {
        assert_eq!(meter(ONE).wanted(50, 0), ONE.scale(1, 2));
        assert_eq!(meter(ONE).wanted(u64::MAX, 0), Share(ONE.0 << 4));
    }
}
