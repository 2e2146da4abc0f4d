//! One limit on one node. The bucket knows time and not replicas, the counter replicas and not time; this joins
//! them, with the leases that move share between nodes.
//!
//! Invariant, after every method: the bucket runs on `base − lent + borrowed`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bucket::{LeakyBucket, Level};
use super::counter::GCounter;
use super::demand::Demand;
use super::id::Replica;
use super::lease::{Borrowed, Grant, Lent, Moved, Return, TTL};
use super::limit::{Fingerprint, Limit};
use super::share::{ONE, Share};
use super::time::Instant;

/// Tags grow by this much per unit at weight 1, so that weights up to 16 divide without rounding to nothing.
pub const TAG_SCALE: u64 = 16;

/// One limit on one node.
#[derive(Clone, Debug)]
pub struct Meter {
    /// The limit.
    pub limit: Limit,
    /// Its identity in the swarm.
    pub fingerprint: Fingerprint,
    /// Units that everybody has admitted, ever.
    pub used: GCounter,
    /// What callers ask for.
    pub demand: Demand,
    /// Service received, per weight.
    pub tag: u64,
    /// The tag up to which the present turn lasts.
    pub turn_end: u64,
    /// Units of the largest request that waited in this turn.
    pub turn_units: u64,
    /// The last target computed, for people.
    pub target: Share,
    /// The largest request that was refused without waiting, and until when it counts as if it waited.
    pub refused: (u64, Instant),
    /// Until when level that is here now is kept for it.
    offered_until: Option<Instant>,
    /// Nobody came back for what was offered.
    missed: bool,
    bucket: LeakyBucket,
    base: Share,
    lent: BTreeMap<Replica, Lent>,
    borrowed: BTreeMap<Replica, Borrowed>,
    sequence: u64,
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
            tag: 0,
            turn_end: 0,
            turn_units: 0,
            target: Share::ZERO,
            refused: (0, Instant::ZERO),
            offered_until: None,
            missed: false,
            bucket: LeakyBucket::new(limit.rate, now),
            base: Share::ZERO,
            lent: BTreeMap::new(),
            borrowed: BTreeMap::new(),
            sequence: 0,
            next_expiry: None,
            leases_changed: false,
            limit,
        }
    }

    /// The bucket, to read.
    pub fn bucket(&self) -> &LeakyBucket {
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

    /// Base share that is not out on loan.
    pub fn free(&self) -> Share {
        self.base.saturating_sub(self.lent())
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

    /// Spends `units` that are there, as `replica`.
    pub fn take(&mut self, units: u64, replica: Replica, weight: u32) {
        self.bucket.take(units);
        self.offered_until = None;
        let count = self.used.of(&replica).saturating_add(units);
        self.used.merge(replica, count);
        self.tag = self.tag.saturating_add(units.saturating_mul(TAG_SCALE) / u64::from(weight.max(1)));
    }

    /// Units of the largest request that was refused and counts as if it waited: until its time is over, or until level for
    /// it is here and was [offered](Self::offer).
    pub fn refused(&self, now: Instant) -> u64 {
        let (units, until) = self.refused;
        if until > now && (self.offered_until.is_some() || !self.bucket.has(units)) { units } else { 0 }
    }

    /// Keeps level that came for a request that was refused without waiting, for as long as its caller was told to stay
    /// away at most. If nobody came back in that time, the turn in which it was kept counts as used: otherwise this node
    /// would stay the least served, and have all of the share come again and again for nobody.
    pub fn offer(&mut self, now: Instant) {
        if std::mem::take(&mut self.missed) {
            self.tag = self.tag.max(self.turn_end);
        }
        let (units, until) = self.refused;
        if self.offered_until.is_none() && until > now && self.bucket.has(units) {
            let seconds = (units as f64 / self.limit.rate.per_second()).min(86_400.0);
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
        let level = self.bucket.shrink(share, level);
        let closed = self.lent.get(&borrower).is_none_or(Lent::is_closed);
        if closed {
            self.sequence += 1;
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
        let (mut share, mut level) = (share, level);
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

    /// Gives one lender all of its share back.
    pub fn give_back_to(&mut self, lender: &Replica, now: Instant) -> bool {
        self.leases_changed = true;
        self.refill(now);
        let Some(borrowed) = self.borrowed.get_mut(lender).filter(|lease| lease.held() > Share::ZERO) else {
            return false;
        };
        let share = borrowed.held();
        let level = part(self.bucket.level(), share, self.bucket.share());
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
                let level = part(self.bucket.level(), share, self.bucket.share());
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
            if self.bucket.has(self.refused.0) {
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
        Some(lent.send(echo, now))
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
        self.bucket = LeakyBucket::new(self.limit.rate, now);
        (self.base, self.lent, self.borrowed) = (Share::ZERO, BTreeMap::new(), BTreeMap::new());
    }

    /// The part of the level that goes with `share` of what is held.
    pub fn part_of_level(&self, share: Share) -> Level {
        part(self.bucket.level(), share, self.bucket.share())
    }

    /// `units_per_second` as a share of the limit; at most 16 times the whole.
    pub fn as_share(&self, units_per_second: u64) -> Share {
        let rate = self.bucket.rate();
        let whole = u128::from(rate.amount()) * 1_000_000_000;
        let parts = u128::from(units_per_second)
            .saturating_mul(u128::from(rate.per_nanos()) * u128::from(ONE.0))
            / whole;
        Share(u64::try_from(parts).unwrap_or(u64::MAX)).min(Share(ONE.0 << 4))
    }

    fn withhold(&mut self) {
        let overfull = self.lent.values().fold(0_u128, |sum, lease| sum.saturating_add(lease.overfull().0));
        self.bucket.withhold(Level(overfull));
    }

    fn reshare(&mut self, level: Level) {
        let wanted = self.base.saturating_sub(self.lent()) + self.borrowed();
        let held = self.bucket.share();
        if wanted >= held {
            self.bucket.grow(wanted - held, level);
        } else {
            // Base share was reclaimed by others while it was lent: what comes home is theirs.
            self.bucket.shrink(held - wanted, Level::ZERO);
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
    use super::super::id::{Incarnation, NodeId};
    use super::super::limit::Rate;
    use super::*;

    const ECHO: (Instant, Instant) = (Instant::from_nanos(1), Instant::ZERO);

    fn replica(id: u8) -> Replica {
        Replica { node: NodeId([id; 32]), incarnation: Incarnation(1) }
    }

    fn meter(base: Share) -> Meter {
        let rate = Rate::new(100, Duration::from_secs(1), 40).unwrap();
        let limit = Limit { name: "rps".to_owned(), unit: "requests".to_owned(), rate };
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
        assert!(borrower.bucket().has(20) && !borrower.bucket().has(21));
        assert!(lender.bucket().has(20) && !lender.bucket().has(21));

        borrower.take(15, replica(2), 1);
        assert_eq!(borrower.give_back(ONE, Level(u128::MAX), Instant::ZERO), [replica(1)]);
        assert!(lender.hear_return(replica(2), &borrower.word_for(&replica(1)).unwrap(), Instant::ZERO));
        assert_eq!((lender.held(), borrower.held()), (ONE, Share::ZERO));
        assert!(lender.bucket().has(25) && !lender.bucket().has(26));
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

    #[test]
    fn demand_becomes_a_share_of_the_limit() {
        assert_eq!(meter(ONE).as_share(50), ONE.scale(1, 2));
        assert_eq!(meter(ONE).as_share(u64::MAX), Share(ONE.0 << 4));
    }
}
