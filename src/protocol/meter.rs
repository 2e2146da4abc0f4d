//! One limit on one node. The bucket knows time and not replicas, the counter replicas and not time; this joins
//! them, with the leases that move share between nodes.
//!
//! Invariant, after every method: the bucket runs on `base − lent + borrowed`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bucket::{Bounds, Bucket, Level};
use super::counter::GCounter;
use super::demand::{Demand, WINDOW};
use super::id::Replica;
use super::keyed::Balance;
use super::lease::{Borrowed, Grant, Lent, Moved, Return, TTL};
use super::limit::{Fingerprint, Kind, Limit};
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

/// What must be remembered of leases whose meters are gone, because a message about them may still come.
///
/// A lender never uses a sequence again, and a borrower takes up no sequence that is not greater than all that it knew
/// of the lender when it forgot: a grant that comes late, or once more, finds nobody who believes it, and so does word of
/// a lease that is over. A lease of another meter that was made before and is heard of only now is not believed either;
/// it ends by itself, and the next has a greater sequence.
#[derive(Clone, Debug, Default)]
pub struct FormerLeases {
    /// The greatest sequence that was lent under.
    lent: u64,
    /// The greatest sequence of each lender's life.
    borrowed: BTreeMap<Replica, u64>,
}

impl FormerLeases {
    /// A meter is about to be dropped; it is [at rest](Meter::is_at_rest).
    pub fn remember(&mut self, meter: &Meter) {
        debug_assert!(meter.is_at_rest(), "BUG! a meter is dropped that has leases");
        self.lent = self.lent.max(meter.sequence);
        for (lender, borrowed) in &meter.borrowed {
            let known = self.borrowed.entry(*lender).or_default();
            *known = (*known).max(borrowed.sequence());
        }
    }

    /// Forgets former lives of a node: it is not listened to in them any more.
    pub fn forget_former(&mut self, current: Replica) {
        self.borrowed
            .retain(|lender, _| lender.node != current.node || lender.incarnation >= current.incarnation);
    }
}

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
    /// The tag up to which the present turn lasts.
    pub turn_end: u64,
    /// Units of the largest request that waited in this turn.
    pub turn_units: u64,
    /// The last target computed, for people.
    pub target: Share,
    /// Units of permits that are out.
    pub open: u64,
    /// What the provider says, if it is told here.
    pub unreported: Option<Box<Unreported>>,
    /// What all nodes make of what the provider says.
    pub estimates: Estimates,
    /// Atoms of the base share's rights that may be missing by what stands on disk.
    pub reserved: u128,
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
    lent: BTreeMap<Replica, Lent>,
    borrowed: BTreeMap<Replica, Borrowed>,
    sequence: u64,
    /// Peers may drop it at any time.
    is_of_key: bool,
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
            turn_end: 0,
            turn_units: 0,
            target: Share::ZERO,
            open: 0,
            unreported: None,
            estimates: Estimates::default(),
            reserved: 0,
            due: Share::ZERO,
            unused: 0,
            refused: (0, Instant::ZERO),
            offered_until: None,
            missed: false,
            bucket: Bucket::new(&limit.kind, now),
            frozen: None,
            base: Share::ZERO,
            lent: BTreeMap::new(),
            borrowed: BTreeMap::new(),
            sequence: 0,
            is_of_key: false,
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
        match &self.limit.kind {
            Kind::Rate(rate) => rate.burst() as f64 / rate.per_second() >= SLOW.as_secs_f64(),
            Kind::Calendar(calendar) => calendar.every().nominal() >= SLOW,
            // What is spent of these counts from the restart on as long as it could.
            Kind::Window(_) | Kind::Concurrency(_) => false,
        }
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
            let free = self.base.saturating_sub(self.lent.values().map(Lent::out).sum::<Share>() + frozen);
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

    /// Base share that is out on loan.
    pub fn lent(&self) -> Share {
        self.lent.values().map(Lent::out).sum()
    }

    /// Share on loan from others.
    pub fn borrowed(&self) -> Share {
        self.borrowed.values().map(Borrowed::held).sum()
    }

    /// Share just lent to a borrower that it has not said it heard of.
    pub fn unheard_by(&self, borrower: &Replica) -> Share {
        self.lent.get(borrower).map_or(Share::ZERO, Lent::unheard)
    }

    /// Whether it runs on its base share and nothing else, owes nothing, and no lease has anything out.
    pub fn is_at_rest(&self) -> bool {
        self.held() == self.base
            && !self.bucket.in_debt()
            && self.borrowed() == Share::ZERO
            && self.lent.values().all(|lent| lent.out() == Share::ZERO && lent.overfull() == Level::ZERO)
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
            self.reserved = 0;
        }
        self.bucket.set_period(bounds);
        if let Some(frozen) = &mut self.frozen {
            frozen.set_period(bounds);
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
        self.refill(now);
        let level = self.part_of_level(share);
        self.base -= share;
        self.bucket.shrink(share, level)
    }

    /// Whether share lent now would stay lent for a while: the borrower, whose clock showed `echo.0` when it was last
    /// heard, which was at `echo.1` here, is known to have lived lately.
    pub fn would_last(&self, borrower: &Replica, echo: (Instant, Instant), now: Instant) -> bool {
        let end = match self.lent.get(borrower) {
            Some(lent) => lent.end_with(echo),
            None => echo.1 + TTL,
        };
        end > now + TTL / 2
    }

    /// Lends free base share with about `level` (at least what the remaining share cannot hold).
    ///
    /// # Panics
    /// If more is lent than is free.
    pub fn lend(&mut self, borrower: Replica, share: Share, level: Level, now: Instant) {
        self.leases_changed = true;
        assert!(share <= self.free(), "BUG! lent more than is free");
        self.refill(now);
        // Where units come back to the share that they were spent from, only unspent share is lent.
        let level = if self.bucket.counted().is_some() { self.bucket.part_of_level(share) } else { level };
        let level = self.bucket.shrink(share, level);
        let over = self.lent.get(&borrower).is_none_or(|lent| lent.is_closed() || lent.is_idle(now));
        if over {
            // Later leases have greater sequences even if they are of another meter: see `FormerLeases`.
            self.sequence = self.sequence.max(now.as_nanos()).saturating_add(1);
            self.lent.insert(borrower, Lent::new(self.sequence));
        }
        let lent = self.lent.get_mut(&borrower).expect("BUG! just inserted");
        lent.raise(Moved { share, level }, level.saturating_sub(self.bucket.depth_of(share)), now);
        self.withhold();
    }

    /// Gives up to `share` of what is borrowed back, with about `level` in all. Tells which lenders have word coming.
    pub fn give_back(&mut self, share: Share, level: Level, now: Instant) -> Vec<Replica> {
        self.leases_changed = true;
        self.refill(now);
        let (mut share, mut level) = (share.min(self.returnable()), level);
        let mut told = Vec::new();
        for (lender, borrowed) in &mut self.borrowed {
            let part = share.min(borrowed.held());
            if part == Share::ZERO {
                continue;
            }
            // A lender's bucket has room for no more than the share that comes home can hold.
            let gone = self.bucket.shrink(part, level.min(self.bucket.depth_of(part)));
            borrowed.give_back(Moved { share: part, level: gone });
            share -= part;
            level = level.saturating_sub(gone);
            told.push(*lender);
        }
        told
    }

    /// The share that may go back now. What is spent of a calendar's share is spent wherever it is until the period ends;
    /// a window's or a permit's units come back here.
    fn returnable(&self) -> Share {
        if matches!(self.limit.kind, Kind::Calendar(_)) { self.held() } else { self.bucket.movable() }
    }

    /// Gives one lender all of its share back, even if some of it is spent and comes back to the lender later than it would
    /// here.
    pub fn give_back_to(&mut self, lender: &Replica, now: Instant) -> bool {
        self.leases_changed = true;
        self.refill(now);
        let Some(borrowed) = self.borrowed.get_mut(lender).filter(|lease| lease.held() > Share::ZERO) else {
            return false;
        };
        let share = borrowed.held();
        let level = self.bucket.part_of_level(share);
        let level = self.bucket.shrink(share, level);
        borrowed.give_back(Moved { share, level });
        true
    }

    /// Hears what `lender` has lent to this node.
    pub fn hear_grant(&mut self, lender: Replica, grant: &Grant, now: Instant) {
        self.leases_changed = true;
        self.refill(now);
        let moved = self.borrowed.entry(lender).or_default().hear(grant, now);
        self.bucket.grow(moved.share, moved.level);
    }

    /// Hears what `borrower` has given back. True if something came home.
    pub fn hear_return(&mut self, borrower: Replica, word: &Return, now: Instant) -> bool {
        self.leases_changed = true;
        self.refill(now);
        let Some(lent) = self.lent.get_mut(&borrower) else { return false };
        let moved = lent.hear(word);
        self.withhold();
        if moved.share == Share::ZERO && self.bucket.counted().is_some() {
            // Word of a lease that ended without: these rights were presumed spent and never were.
            self.bucket.grow(Share::ZERO, moved.level);
            return moved.level > Level::ZERO;
        }
        // Level that comes without the share to hold it was late on its way out: its place was filled meanwhile.
        self.reshare(moved.level.min(self.bucket.depth_of(moved.share)));
        moved.share > Share::ZERO
    }

    /// Ends the leases whose time is over. Gives back the lenders that have word coming, and whether anything changed.
    pub fn expire(&mut self, now: Instant) -> (Vec<Replica>, bool) {
        self.leases_changed = true;
        let mut told = Vec::new();
        if self.borrowed.values().any(|lease| lease.expired(now).is_some()) {
            // The share stopped counting at the lease's end; what it would have earned since is not there. The
            // refill up to the earliest end is exact, the moments between several ends are given away.
            let end = self.borrowed.values().filter(|lease| lease.expired(now).is_some());
            let end = end.map(Borrowed::until).min().unwrap_or(now);
            self.refill(end.min(now));
        }
        for (lender, borrowed) in &mut self.borrowed {
            if let Some(share) = borrowed.expired(now) {
                let level = self.bucket.part_of_level(share);
                let level = self.bucket.shrink(share, level);
                borrowed.give_back(Moved { share, level });
                told.push(*lender);
            }
        }
        self.refill(now);
        let home: Share = self.lent.values_mut().filter_map(|lent| lent.expire(now)).sum();
        self.withhold();
        self.reshare(Level::ZERO);
        let offer_is_over = self.offered_until.is_some_and(|end| now >= end);
        if offer_is_over {
            self.offered_until = None;
            // Unless more was refused meanwhile.
            if self.has(self.refused.0) {
                (self.refused, self.missed) = ((0, Instant::ZERO), true);
            }
        }
        let changed = !told.is_empty() || home > Share::ZERO || offer_is_over;
        (told, changed)
    }

    /// The grant to send to a borrower whose clock showed `echo.0` when it was last heard, which was at `echo.1` here, if
    /// one is due or `even_if_not`.
    pub fn grant_for(
        &mut self,
        borrower: &Replica,
        echo: (Instant, Instant),
        even_if_not: bool,
        now: Instant,
    ) -> Option<Grant> {
        let lent = self.lent.get_mut(borrower)?;
        let due = lent.is_due(echo.0, now) || (even_if_not && !lent.is_closed());
        if !due {
            return None;
        }
        self.leases_changed = true;
        // A borrower that dropped the key hears of no lease of it: such a lease must end.
        let lasts = !self.is_of_key || lent.is_confirmed();
        Some(if lasts { lent.send(echo, now) } else { lent.send_again(now) })
    }

    /// Whether a grant should be sent to this borrower at `now`.
    pub fn grant_is_due(&self, borrower: &Replica, echo: Instant, now: Instant) -> bool {
        self.lent.get(borrower).is_some_and(|lent| lent.is_due(echo, now))
    }

    /// To whom something is lent, or was under a lease that has not ended.
    pub fn borrowers(&self) -> impl Iterator<Item = &Replica> {
        self.lent.iter().filter(|(_, lent)| !lent.is_closed()).map(|(borrower, _)| borrower)
    }

    /// Whether share is out on loan between this node and that one, in either direction.
    pub fn has_lease_with(&self, replica: &Replica) -> bool {
        self.lent.get(replica).is_some_and(|lent| lent.out() > Share::ZERO)
            || self.borrowed.get(replica).is_some_and(|lease| lease.held() > Share::ZERO)
    }

    /// What to tell a lender, if it ever lent.
    pub fn word_for(&self, lender: &Replica) -> Option<Return> {
        self.borrowed.get(lender).map(Borrowed::word)
    }

    /// The next moment at which [`expire`](Self::expire) has something to do.
    pub fn next_expiry(&mut self) -> Option<Instant> {
        if std::mem::take(&mut self.leases_changed) {
            let borrowed = self.borrowed.values().filter(|lease| lease.held() > Share::ZERO);
            let runs = |lease: &&Lent| lease.out() > Share::ZERO || lease.overfull() > Level::ZERO;
            let lent = self.lent.values().filter(runs).map(Lent::until);
            let ends = borrowed.map(Borrowed::until).chain(lent);
            self.next_expiry = ends.chain(self.offered_until).min();
        }
        self.next_expiry
    }

    /// Forgets leases with former lives of `node`, once nothing is out.
    pub fn forget_former(&mut self, current: Replica) {
        self.leases_changed = true;
        let former =
            |replica: &Replica| replica.node == current.node && replica.incarnation < current.incarnation;
        let runs = |lent: &Lent| lent.out() > Share::ZERO || lent.overfull() > Level::ZERO;
        self.lent.retain(|replica, lent| !former(replica) || runs(lent));
        self.borrowed.retain(|replica, lease| !former(replica) || lease.held() > Share::ZERO);
    }

    /// Drops base, leases, level, and what others have admitted: the ledger that they belong to is not ours any more.
    pub fn forget_everything(&mut self, me: Replica, now: Instant) {
        self.leases_changed = true;
        let own = self.used.of(&me);
        self.used = GCounter::default();
        self.used.merge(me, own);
        self.bucket = Bucket::new(&self.limit.kind, now);
        self.frozen = None;
        (self.base, self.lent, self.borrowed) = (Share::ZERO, BTreeMap::new(), BTreeMap::new());
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

    fn withhold(&mut self) {
        let overfull = self.lent.values().fold(0_u128, |sum, lease| sum.saturating_add(lease.overfull().0));
        self.bucket.withhold(Level(overfull));
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

#[cfg(test)]
mod tests {
    use super::super::id::{Incarnation, NodeId};
    use super::super::limit::Rate;
    use super::*;

    const ECHO: (Instant, Instant) = (Instant::from_nanos(1), Instant::ZERO);

    fn replica(id: u8) -> Replica {
        Replica { node: NodeId([id; 32]), incarnation: Incarnation(1) }
    }

    fn meter(base: Share) -> Meter {
        let kind = Kind::Rate(Rate::new(100, Duration::from_secs(1), 40).unwrap());
        let limit = Limit { name: "rps".to_owned(), unit: "requests".to_owned(), kind };
        let mut meter = Meter::new(limit, "pool", Instant::ZERO);
        let level = meter.bucket.depth_of(base);
        meter.set_base(base, level, Instant::ZERO);
        meter
    }

    #[test]
    fn a_loan_moves_share_rate_and_level_and_comes_back() {
        let (mut lender, mut borrower) = (meter(ONE), meter(Share::ZERO));
        let half = ONE.scale(1, 2);
        lender.lend(replica(2), half, lender.part_of_level(half), Instant::ZERO);
        let grant = lender.grant_for(&replica(2), ECHO, true, Instant::ZERO).unwrap();
        borrower.hear_grant(replica(1), &grant, Instant::ZERO);
        assert_eq!((lender.held(), borrower.held()), (half, half));
        assert!(borrower.has(20) && !borrower.has(21));
        assert!(lender.has(20) && !lender.has(21));

        borrower.take(15, replica(2), 1);
        assert_eq!(borrower.give_back(ONE, Level(u128::MAX), Instant::ZERO), [replica(1)]);
        assert!(lender.hear_return(replica(2), &borrower.word_for(&replica(1)).unwrap(), Instant::ZERO));
        assert_eq!((lender.held(), borrower.held()), (ONE, Share::ZERO));
        assert!(lender.has(25) && !lender.has(26));
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
    fn a_lease_that_ends_without_word_loses_its_level_but_no_share() {
        let (mut lender, mut borrower) = (meter(ONE), meter(Share::ZERO));
        lender.lend(replica(2), ONE, Level(u128::MAX), Instant::ZERO);
        let grant = lender.grant_for(&replica(2), ECHO, true, Instant::ZERO).unwrap();
        borrower.hear_grant(replica(1), &grant, Instant::ZERO);
        let later = Instant::ZERO + Duration::from_secs(3);
        let (told, _) = borrower.expire(later);
        assert_eq!((told, borrower.held()), (vec![replica(1)], Share::ZERO));
        lender.expire(Instant::ZERO + Duration::from_millis(2_002));
        assert_eq!((lender.held(), lender.bucket().level()), (ONE, Level::ZERO));
        assert!(!lender.hear_return(replica(2), &borrower.word_for(&replica(1)).unwrap(), later));
    }

    fn of_key(like: &Meter, former: &FormerLeases) -> Meter {
        let half = ONE.scale(1, 2);
        Meter::of_key(like.limit.clone(), Fingerprint(1), half, Balance::default(), former, Instant::ZERO)
    }

    #[test]
    fn a_grant_of_before_a_key_was_dropped_is_not_taken_up_after() {
        let (mut lender, part) = (of_key(&meter(ONE), &FormerLeases::default()), ONE.scale(1, 4));
        let (mut borrower, mut former) = (lender.clone(), FormerLeases::default());
        lender.lend(replica(2), part, Level::ZERO, Instant::ZERO);
        let grant = lender.grant_for(&replica(2), ECHO, true, Instant::ZERO).unwrap();
        borrower.hear_grant(replica(1), &grant, Instant::ZERO);
        let again =
            lender.grant_for(&replica(2), (Instant::from_nanos(9), Instant::ZERO), true, Instant::ZERO);
        assert!(!borrower.is_at_rest());
        borrower.give_back(part, Level::ZERO, Instant::ZERO);
        assert!(lender.hear_return(replica(2), &borrower.word_for(&replica(1)).unwrap(), Instant::ZERO));

        former.remember(&borrower);
        let mut borrower = of_key(&borrower, &former);
        for late in [Some(grant), again] {
            borrower.hear_grant(replica(1), &late.unwrap(), Instant::ZERO);
            assert_eq!((borrower.held(), lender.held()), (ONE.scale(1, 2), ONE.scale(1, 2)));
        }
        // The lender drops the key too; what it lends afterwards is believed.
        let mut former = FormerLeases::default();
        former.remember(&lender);
        let mut lender = of_key(&lender, &former);
        lender.lend(replica(2), part, Level::ZERO, Instant::ZERO);
        assert!(!lender.hear_return(replica(2), &borrower.word_for(&replica(1)).unwrap(), Instant::ZERO));
        let grant = lender.grant_for(&replica(2), ECHO, true, Instant::ZERO).unwrap();
        borrower.hear_grant(replica(1), &grant, Instant::ZERO);
        assert_eq!((borrower.held(), lender.held()), (ONE.scale(3, 4), ONE.scale(1, 4)));
    }

    #[test]
    fn a_lease_of_a_key_ends_if_the_borrower_does_not_hear_of_it() {
        let mut lender = of_key(&meter(ONE), &FormerLeases::default());
        lender.lend(replica(2), ONE.scale(1, 4), Level::ZERO, Instant::ZERO);
        for millis in (0..3_000).step_by(100) {
            let now = Instant::ZERO + Duration::from_millis(millis);
            lender.expire(now);
            lender.grant_for(&replica(2), (now + Duration::from_nanos(1), now), true, now);
        }
        assert_eq!(lender.lent(), Share::ZERO);
        assert!(lender.is_at_rest());
    }

    #[test]
    fn demand_becomes_a_share_of_the_limit() {
        assert_eq!(meter(ONE).wanted(50, 0), ONE.scale(1, 2));
        assert_eq!(meter(ONE).wanted(u64::MAX, 0), Share(ONE.0 << 4));
    }
}
