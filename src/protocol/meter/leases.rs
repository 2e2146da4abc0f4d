//! The leases of one limit on one node: share that goes out, comes in, goes back and ends.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Meter;
use super::credit::Credit;
use crate::protocol::bucket::{Bucket, Level};
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::lease::{Borrowed, Grant, Lent, Moved, Return, TTL};
use crate::protocol::limit::Kind;
use crate::protocol::loans::Account;
use crate::protocol::share::Share;
use crate::protocol::time::Instant;

/// What must be remembered of leases whose meters are gone, because a message about them may still come.
///
/// A lender never uses a sequence again, and a borrower takes up no sequence that is not greater than all that it knew
/// of the lender when it forgot: a grant that comes late, or once more, finds nobody who believes it, and so does word of
/// a lease that is over. A lease of another meter that was made before and is heard of only now is not believed either;
/// it ends by itself, and the next has a greater sequence.
#[derive(Clone, Debug, Default)]
pub struct FormerLeases {
    /// The greatest sequence that was lent under.
    pub(super) lent: u64,
    /// The greatest sequence of each lender's life.
    pub(super) borrowed: BTreeMap<Replica, u64>,
    /// For new meters: see [`Meter::credited_since`].
    pub credited_since: Option<Instant>,
}

impl FormerLeases {
    /// A meter is about to be dropped; it is [at rest](Meter::is_at_rest).
    pub fn remember(&mut self, meter: &Meter) {
        debug_assert!(meter.is_at_rest(), "BUG! a meter is dropped that has leases");
        self.lent = self.lent.max(meter.sequence);
        for (lender, borrowed) in meter.borrowed.all() {
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

impl Meter {
    /// Base share that is out on loan.
    pub fn lent(&self) -> Share {
        self.lent.running().map(|(_, lent)| lent.out()).sum()
    }

    /// Share on loan from others.
    pub fn borrowed(&self) -> Share {
        self.borrowed.running().map(|(_, lease)| lease.held()).sum()
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
            && self.lent.running().next().is_none()
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
        self.count_loans(now);
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
        let depth = self.bucket.depth_of(share);
        self.lent.change(&borrower, |lent| {
            lent.raise(Moved { share, level }, level.saturating_sub(depth), now);
        });
        self.withhold();
    }

    /// Gives up to `share` of what is borrowed back, with about `level` in all: to the lenders that lack most first. Tells
    /// which lenders have word coming.
    pub fn give_back(
        &mut self,
        share: Share,
        level: Level,
        lacks: impl Fn(&NodeId) -> Share,
        now: Instant,
    ) -> Vec<Replica> {
        self.leases_changed = true;
        self.count_loans(now);
        self.refill(now);
        let (mut left, mut level) = (share.min(self.returnable()), level);
        let mut lenders: Vec<(Share, Replica, Share)> = self
            .borrowed
            .running()
            .map(|(lender, lease)| (lacks(&lender.node), *lender, lease.held()))
            .collect();
        lenders.sort_by_key(|(lack, _, _)| Reverse(*lack));
        let mut told = Vec::new();
        for (_, lender, held) in lenders {
            // The whole of a lease before any of the next: each that goes on running costs messages, and a line of a book.
            let part = left.min(held);
            if part == Share::ZERO {
                break;
            }
            left -= part;
            // A lender's bucket has room for no more than the share that comes home can hold.
            let gone = self.bucket.shrink(part, level.min(self.bucket.depth_of(part)));
            self.borrowed.change(&lender, |borrowed| borrowed.give_back(Moved { share: part, level: gone }));
            if let Some(credit) = self.credits.get_mut(&lender.node) {
                credit.earn(held, &self.bucket, &self.limit.kind, now);
                credit.give(gone);
            }
            level = level.saturating_sub(gone);
            told.push(lender);
        }
        told
    }

    /// The share that may go back now. What is spent of a calendar's share is spent wherever it is until the period ends;
    /// a window's or a permit's units come back here.
    fn returnable(&self) -> Share {
        if matches!(self.limit.kind, Kind::Calendar(_)) { self.held() } else { self.bucket.movable() }
    }

    /// Gives one lender its share back but for `kept`, even if some of it is spent and comes back to the lender later than
    /// it would here. True if there was any.
    pub fn give_back_to(&mut self, lender: &Replica, kept: Share, now: Instant) -> bool {
        let Some(lease) = self.borrowed.get(lender).filter(|lease| lease.held() > kept) else { return false };
        let held = lease.held();
        self.leases_changed = true;
        self.count_loans(now);
        self.refill(now);
        let share = held - kept;
        let level = self.bucket.part_of_level(share);
        let level = self.bucket.shrink(share, level);
        self.borrowed.change(lender, |borrowed| borrowed.give_back(Moved { share, level }));
        if let Some(credit) = self.credits.get_mut(&lender.node) {
            credit.earn(held, &self.bucket, &self.limit.kind, now);
            credit.give(level);
        }
        true
    }

    /// From whom share is borrowed.
    pub fn lenders(&self) -> impl Iterator<Item = NodeId> {
        self.borrowed.running().map(|(lender, _)| lender.node)
    }

    /// Gives back what of the borrowed share no lender can have lent by what it has: `base` tells how much that is. Tells
    /// which lenders have word coming.
    pub fn give_back_beyond(&mut self, base: impl Fn(&NodeId) -> Share, now: Instant) -> Vec<Replica> {
        let mut told = Vec::new();
        let mut left = BTreeMap::new();
        // The latest life first: what an earlier one lent is over soon.
        let lenders: Vec<Replica> = self.borrowed.running().rev().map(|(lender, _)| *lender).collect();
        for lender in lenders {
            let left = left.entry(lender.node).or_insert_with(|| base(&lender.node));
            if self.give_back_to(&lender, *left, now) {
                told.push(lender);
            }
            *left = left.saturating_sub(self.borrowed.get(&lender).map_or(Share::ZERO, Borrowed::held));
        }
        told
    }

    /// A node that had this base share until `now` has more from now on, and may lend it.
    pub fn lender_gains(&mut self, lender: NodeId, before: Share, base: Share, now: Instant) {
        let held: Share = self.borrowed.running_with(lender).map(|(_, borrowed)| borrowed.held()).sum();
        let credit = Self::credit(&mut self.credits, self.credited_since, lender, before, &self.bucket, now);
        credit.earn(held, &self.bucket, &self.limit.kind, now);
        credit.set_base(base);
    }

    /// What a lender can bring that has this base share, as far as is known.
    fn credit<'a>(
        credits: &'a mut BTreeMap<NodeId, Credit>,
        since: Option<Instant>,
        lender: NodeId,
        base: Share,
        bucket: &Bucket,
        now: Instant,
    ) -> &'a mut Credit {
        let new = || since.map_or_else(|| Credit::new(bucket, base, now), |since| Credit::empty(base, since));
        credits.entry(lender).or_insert_with(new)
    }

    /// Hears what `lender` has lent to this node, and gives back at once what it cannot have: share beyond its base share,
    /// which is `base` by what is known here, and level beyond what a share of `worth` could have earned. True if something
    /// came, not only more time for what is there.
    pub fn hear_grant(
        &mut self,
        lender: Replica,
        grant: &Grant,
        base: Share,
        worth: Share,
        now: Instant,
    ) -> bool {
        self.leases_changed = true;
        self.count_loans(now);
        self.refill(now);
        let held: Share = self.borrowed.running_with(lender.node).map(|(_, borrowed)| borrowed.held()).sum();
        if !self.is_of_key {
            let account = self.accounts.entry(lender).or_insert_with(|| Account::new(now));
            // What does not run was not counted.
            account.count(Share::ZERO, now, now);
            account.wait(now);
        }
        if self.borrowed.get(&lender).is_none() {
            self.borrowed.insert(lender, Borrowed::new());
        }
        let moved = self.borrowed.change(&lender, |borrowed| borrowed.hear(grant, now)).unwrap_or_default();
        let credit =
            Self::credit(&mut self.credits, self.credited_since, lender.node, worth, &self.bucket, now);
        credit.earn(held, &self.bucket, &self.limit.kind, now);
        credit.set_base(worth);
        let level = credit.take(moved.level);
        let beyond = Moved {
            share: (held + moved.share).saturating_sub(base).min(moved.share),
            level: moved.level.saturating_sub(level),
        };
        if beyond != Moved::default() {
            self.borrowed.change(&lender, |borrowed| borrowed.give_back(beyond));
        }
        let came = Moved { share: moved.share - beyond.share, level };
        self.bucket.grow(came.share, came.level);
        came != Moved::default()
    }

    /// Hears what `borrower` has given back. True if something came home.
    pub fn hear_return(&mut self, borrower: Replica, word: &Return, now: Instant) -> bool {
        self.leases_changed = true;
        self.count_loans(now);
        self.refill(now);
        let Some(moved) = self.lent.change(&borrower, |lent| lent.hear(word)) else { return false };
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
        self.count_loans(now);
        let mut told = Vec::new();
        let ends = self.borrowed.running().filter(|(_, lease)| lease.expired(now).is_some());
        if let Some(end) = ends.map(|(_, lease)| lease.until()).min() {
            // The share stopped counting at the lease's end; what it would have earned since is not there. The
            // refill up to the earliest end is exact, the moments between several ends are given away.
            self.refill(end.min(now));
        }
        let (bucket, credits, kind) = (&mut self.bucket, &mut self.credits, &self.limit.kind);
        self.borrowed.change_running(|lender, borrowed| {
            if let Some(share) = borrowed.expired(now) {
                let level = bucket.part_of_level(share);
                let level = bucket.shrink(share, level);
                borrowed.give_back(Moved { share, level });
                if let Some(credit) = credits.get_mut(&lender.node) {
                    credit.earn(share, bucket, kind, now);
                    credit.give(level);
                }
                told.push(*lender);
            }
        });
        self.refill(now);
        let mut home = Share::ZERO;
        self.lent.change_running(|_, lent| home += lent.expire(now).unwrap_or_default());
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
        let due = |lent: &Lent| lent.is_due(echo.0, now) || (even_if_not && !lent.is_closed());
        if !self.lent.get(borrower).is_some_and(due) {
            return None;
        }
        self.leases_changed = true;
        // What is lent beyond a base share that shrank meanwhile is somebody else's.
        let is_covered = self.lent() <= self.base;
        let recalls = self.recalls;
        // A borrower that dropped the key hears of no lease of it: such a lease must end.
        let is_of_key = self.is_of_key;
        self.lent.change(borrower, |lent| {
            let lasts = (!is_of_key || lent.is_confirmed()) && !recalls && is_covered;
            if lasts { lent.send(echo, now) } else { lent.send_again(now) }
        })
    }

    /// Whether a grant should be sent to this borrower at `now`.
    pub fn grant_is_due(&self, borrower: &Replica, echo: Instant, now: Instant) -> bool {
        self.lent.get(borrower).is_some_and(|lent| lent.is_due(echo, now))
    }

    /// To whom something is lent, or was under a lease that has not ended.
    pub fn borrowers(&self) -> impl Iterator<Item = &Replica> {
        self.lent.all().filter(|(_, lent)| !lent.is_closed()).map(|(borrower, _)| borrower)
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
            let borrowed = self.borrowed.running().map(|(_, lease)| lease.until());
            let lent = self.lent.running().map(|(_, lease)| lease.until());
            let ends = borrowed.chain(lent);
            self.next_expiry = ends.chain(self.offered_until).min();
        }
        self.next_expiry
    }

    /// Forgets leases with former lives of `node`, once nothing is out.
    pub fn forget_former(&mut self, current: Replica) {
        self.leases_changed = true;
        let former =
            |replica: &Replica| replica.node == current.node && replica.incarnation < current.incarnation;
        self.lent.retain_ended(|replica| !former(replica));
        self.borrowed.retain_ended(|replica| !former(replica));
        self.accounts.retain(|lender, _| self.borrowed.get(lender).is_some());
    }

    fn withhold(&mut self) {
        let overfull = self.lent.running().map(|(_, lease)| lease.overfull().0);
        let overfull = overfull.fold(0_u128, u128::saturating_add);
        self.bucket.withhold(Level(overfull));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{meter, replica};
    use super::*;
    use crate::protocol::keyed::Balance;
    use crate::protocol::limit::Fingerprint;
    use crate::protocol::share::ONE;

    const ECHO: (Instant, Instant) = (Instant::from_nanos(1), Instant::ZERO);

    #[test]
    fn share_goes_back_to_whoever_lacks_it_first() {
        let mut borrower = meter(Share::ZERO);
        for lender in 1..=3 {
            let mut lent = Lent::new(1);
            lent.raise(Moved { share: Share(100), level: Level::ZERO }, Level::ZERO, Instant::ZERO);
            borrower.hear_grant(replica(lender), &lent.send(ECHO, Instant::ZERO), ONE, ONE, Instant::ZERO);
        }
        let lacks = |lender: &NodeId| Share(u64::from(lender.0[0]) * 30 - 30);
        let back = |borrower: &Meter| [1, 2, 3].map(|id| borrower.word_for(&replica(id)).unwrap().share);
        let told = borrower.give_back(Share(70), Level::ZERO, lacks, Instant::ZERO);
        assert_eq!((told, back(&borrower)), (vec![replica(3)], [Share(0), Share(0), Share(70)]));
        let told = borrower.give_back(Share(60), Level::ZERO, lacks, Instant::ZERO);
        assert_eq!(
            (told, back(&borrower)),
            (vec![replica(3), replica(2)], [Share(0), Share(30), Share(100)])
        );
    }

    #[test]
    fn base_share_that_was_just_given_is_lent_back_with_what_it_earned_since() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let (mut giver, half) = (meter(ONE), ONE.scale(1, 2));
        giver.take(40, replica(1), 1);
        let level = giver.give_base(half, at(0));
        assert_eq!(level, Level::ZERO, "all of it was spent");
        giver.lender_gains(replica(2).node, Share::ZERO, half, at(0));
        let full = giver.bucket.depth_of(half);
        let mut lent = Lent::new(1);
        lent.raise(Moved { share: half, level: full }, Level::ZERO, at(0));
        giver.hear_grant(replica(2), &lent.send((at(1), at(1)), at(100)), half, half, at(100));
        assert_eq!(giver.held(), ONE);
        // Of a hundred a second: its own half since then, and as much of the other half.
        assert_eq!(giver.units(), 10);
    }

    #[test]
    fn what_a_former_life_may_have_had_of_a_lender_does_not_come_again() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut lent = Lent::new(1);
        let half = ONE.scale(1, 2);
        lent.raise(Moved { share: half, level: meter(ONE).bucket.depth_of(half) }, Level::ZERO, at(0));
        let grant = lent.send((at(1), at(1)), at(100));
        let [first, restarted] = [None, Some(at(0))].map(|credited_since| {
            let mut meter = Meter { credited_since, ..meter(Share::ZERO) };
            meter.hear_grant(replica(2), &grant, half, half, at(100));
            meter.units()
        });
        assert_eq!((first, restarted), (20, 5), "half of a hundred a second, since the restart");
    }

    #[test]
    fn a_loan_moves_share_rate_and_level_and_comes_back() {
        let (mut lender, mut borrower) = (meter(ONE), meter(Share::ZERO));
        let half = ONE.scale(1, 2);
        lender.lend(replica(2), half, lender.part_of_level(half), Instant::ZERO);
        let grant = lender.grant_for(&replica(2), ECHO, true, Instant::ZERO).unwrap();
        borrower.hear_grant(replica(1), &grant, ONE, ONE, Instant::ZERO);
        assert_eq!((lender.held(), borrower.held()), (half, half));
        assert!(borrower.has(20) && !borrower.has(21));
        assert!(lender.has(20) && !lender.has(21));

        borrower.take(15, replica(2), 1);
        assert_eq!(borrower.give_back(ONE, Level(u128::MAX), |_| Share::ZERO, Instant::ZERO), [replica(1)]);
        assert!(lender.hear_return(replica(2), &borrower.word_for(&replica(1)).unwrap(), Instant::ZERO));
        assert_eq!((lender.held(), borrower.held()), (ONE, Share::ZERO));
        assert!(lender.has(25) && !lender.has(26));
    }

    #[test]
    fn a_lease_that_ends_without_word_loses_its_level_but_no_share() {
        let (mut lender, mut borrower) = (meter(ONE), meter(Share::ZERO));
        lender.lend(replica(2), ONE, Level(u128::MAX), Instant::ZERO);
        let grant = lender.grant_for(&replica(2), ECHO, true, Instant::ZERO).unwrap();
        borrower.hear_grant(replica(1), &grant, ONE, ONE, Instant::ZERO);
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
        borrower.hear_grant(replica(1), &grant, ONE, ONE, Instant::ZERO);
        let again =
            lender.grant_for(&replica(2), (Instant::from_nanos(9), Instant::ZERO), true, Instant::ZERO);
        assert!(!borrower.is_at_rest());
        borrower.give_back(part, Level::ZERO, |_| Share::ZERO, Instant::ZERO);
        assert!(lender.hear_return(replica(2), &borrower.word_for(&replica(1)).unwrap(), Instant::ZERO));

        former.remember(&borrower);
        let mut borrower = of_key(&borrower, &former);
        for late in [Some(grant), again] {
            borrower.hear_grant(replica(1), &late.unwrap(), ONE, ONE, Instant::ZERO);
            assert_eq!((borrower.held(), lender.held()), (ONE.scale(1, 2), ONE.scale(1, 2)));
        }
        // The lender drops the key too; what it lends afterwards is believed.
        let mut former = FormerLeases::default();
        former.remember(&lender);
        let mut lender = of_key(&lender, &former);
        lender.lend(replica(2), part, Level::ZERO, Instant::ZERO);
        assert!(!lender.hear_return(replica(2), &borrower.word_for(&replica(1)).unwrap(), Instant::ZERO));
        let grant = lender.grant_for(&replica(2), ECHO, true, Instant::ZERO).unwrap();
        borrower.hear_grant(replica(1), &grant, ONE, ONE, Instant::ZERO);
        assert_eq!((borrower.held(), lender.held()), (ONE.scale(3, 4), ONE.scale(1, 4)));
    }

    #[test]
    fn whatever_a_lender_says_it_brings_no_more_than_its_base_share_is_worth() {
        // A tenth of 100 a second with a burst of 40; every 100 ms it says that it has lent all of that with all there is.
        let (base, mut borrower) = (ONE.scale(1, 10), meter(ONE.scale(1, 10)));
        let mut spent = 0;
        for tick in 0..1_000_u64 {
            let now = Instant::ZERO + Duration::from_millis(100 * tick);
            borrower.expire(now);
            if tick % 77 == 76 {
                borrower.give_back(ONE, Level::ZERO, |_| Share::ZERO, now);
            }
            let share = base.scale(tick + 1, 1_000);
            let level = borrower.bucket.depth_of(ONE).0.wrapping_mul(u128::from(tick));
            let grant = Grant { sequence: 1, version: tick + 1, share, level, echo: now };
            borrower.hear_grant(replica(1), &grant, base, base, now);
            let units = borrower.units();
            borrower.take(units, replica(2), 1);
            spent += units;
        }
        // Two tenths: its own and the lender's.
        assert!((2_000..=2_000 + 8).contains(&spent), "{spent}");
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
}
