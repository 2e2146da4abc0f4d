//! The book of loans: what a lender signs of one limit, so that lending the same share twice is found out.
//!
//! Whoever borrows sees its own loan and no other. So a lender counts, in *share-time* (parts lent times the time for
//! which they were out, on its own clock), what it lent to each borrower, and what its own share was worth while
//! anything was out. It signs the counts as one [`Book`] every few seconds, and the book is passed on to everybody.
//!
//! **An honest book adds up.** At every moment the loans out are at most the base share, or what of it is still out
//! since it shrank; `own` grows by the greater of both. So between any two books of one life all loans together grow by
//! at most as much as `own`, nothing shrinks, and no clock runs back. Two books of which that is not true are
//! [proof](super::audit) against whoever signed both; messages that are lost, late or doubled change nothing in it, and
//! a restart begins another life with an empty book.
//!
//! **A book that adds up is not yet true**, but each thing left out of it is seen by somebody, who draws the consequence
//! for itself alone, and for a time ([`audit`](super::audit)'s doubt), as it may be that it only heard late of something:
//! - Each borrower counts what it holds, and an honest lender's count of the same loan is never less: the borrower stops
//!   first ([`lease`](super::lease)). If the lender's books lag behind by more than some seconds' worth, or there are
//!   none, nothing more is borrowed from it ([`Account`]).
//! - Who writes that more was its own than its base share by the ledger ([`Claims`]) is not borrowed from either.
//!
//! So a lender that lends to everybody at once either writes it, and is convicted; or counts too little, and each
//! borrower that is not counted turns away; or claims too much, and all do. What is had of it before, in `PATIENCE`, is
//! the loss. Over longer times what it lends is at most what it has. What is not in the book: level that goes with a
//! loan, which each borrower bounds for itself (`meter`'s credit), and limits of single keys.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bounded;
use super::id::{Incarnation, NodeId};
use super::share::{ONE, Share};
use super::time::{Instant, nanos};

/// The most borrowers that one book names. Nothing is lent to more within [`NAMED`].
pub const BORROWERS_MAX: usize = 128;
/// For how long after its loan ended a borrower is named.
pub const NAMED: Duration = Duration::from_secs(60);

/// Share-time, in parts times nanoseconds.
pub type ShareTime = u128;

/// What a lender signs of its loans of one limit in one life. All counts only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// On the lender's clock.
    pub clock: Instant,
    /// What its own share was worth while any of it was out.
    pub own: ShareTime,
    /// What was lent to borrowers that are not named any more.
    pub closed: ShareTime,
    /// What was lent to each, in order of their ids.
    #[serde(deserialize_with = "bounded::list::<_, _, BORROWERS_MAX>")]
    pub lent: Vec<(NodeId, ShareTime)>,
}

impl Book {
    /// What was lent to one borrower, as far as it is named.
    pub fn lent_to(&self, borrower: &NodeId) -> ShareTime {
        let named = self.lent.iter().find(|(node, _)| node == borrower);
        named.map_or(0, |(_, lent)| *lent)
    }

    /// What was lent to all.
    pub fn total(&self) -> ShareTime {
        self.lent.iter().fold(self.closed, |sum, (_, lent)| sum.saturating_add(*lent))
    }

    /// Whether no honest lender can have signed both in one life, this one first.
    pub fn contradicts(&self, later: &Self) -> bool {
        let grown = |after: ShareTime, before: ShareTime| after.checked_sub(before);
        // Who is not named any more, or anew, was closed in between.
        let closed = self.lent.iter().filter(|(node, lent)| later.lent_to(node) < *lent);
        let closed = closed.fold(0, |sum: ShareTime, (_, lent)| sum.saturating_add(*lent));
        let time = ShareTime::from(nanos(later.clock.since(self.clock)));
        let adds_up = || {
            let own = grown(later.own, self.own)?;
            let lent = grown(later.total(), self.total())?;
            let is_closed = grown(later.closed, self.closed)? >= closed;
            Some(
                later.clock >= self.clock && is_closed && lent <= own && own <= time * ShareTime::from(ONE.0),
            )
        };
        adds_up() != Some(true)
    }
}

/// The lender's side: counts its own loans.
#[derive(Clone, Debug, Default)]
pub struct Loans {
    own: ShareTime,
    closed: ShareTime,
    named: BTreeMap<NodeId, Named>,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Named {
    lent: ShareTime,
    out_at: Instant,
}

impl Loans {
    /// Counts up to `now`: since the last time `base` was its own and `out` was lent. Must precede every change of either.
    pub fn count(&mut self, base: Share, out: impl Iterator<Item = (NodeId, Share)>, now: Instant) {
        let time = ShareTime::from(nanos(now.since(self.at)));
        self.at = self.at.max(now);
        if time == 0 {
            return;
        }
        let mut total = 0;
        for (borrower, share) in out.filter(|(_, share)| *share > Share::ZERO) {
            let named = self.named.entry(borrower).or_insert(Named { lent: 0, out_at: now });
            named.lent += ShareTime::from(share.0) * time;
            named.out_at = now;
            total += share.0;
        }
        if total > 0 {
            self.own += ShareTime::from(base.0.max(total)) * time;
        }
    }

    /// Whether there is a line for one more loan to this borrower. Opens it, and closes those of whom nothing was out
    /// for [`NAMED`].
    pub fn open(&mut self, borrower: NodeId, now: Instant) -> bool {
        if self.named.len() >= BORROWERS_MAX && !self.named.contains_key(&borrower) {
            let closed = &mut self.closed;
            self.named.retain(|_, named| {
                let stays = now.since(named.out_at) < NAMED;
                *closed += if stays { 0 } else { named.lent };
                stays
            });
        }
        let fits = self.named.len() < BORROWERS_MAX || self.named.contains_key(&borrower);
        if fits {
            self.named.entry(borrower).or_insert(Named { lent: 0, out_at: now }).out_at = now;
        }
        fits
    }

    /// What to sign.
    pub fn book(&self) -> Book {
        let lent = self.named.iter().map(|(node, named)| (*node, named.lent)).collect();
        Book { clock: self.at, own: self.own, closed: self.closed, lent }
    }
}

/// The borrower's side: what it held of one life of a lender, against that lender's books.
#[derive(Clone, Debug)]
pub struct Account {
    /// Share-time since the last book.
    held: ShareTime,
    /// Share-time that books have yet to show.
    owed: ShareTime,
    /// The most held since nothing was owed.
    most: Share,
    shown: ShareTime,
    at: Instant,
}

impl Account {
    /// Nothing was held before `now`.
    pub fn new(now: Instant) -> Self {
        Self { held: 0, owed: 0, most: Share::ZERO, shown: 0, at: now }
    }

    /// Counts up to `now`: since the last time `share` was held, until `until` at most. Must precede every change of
    /// either.
    pub fn count(&mut self, share: Share, until: Instant, now: Instant) {
        let time = nanos(now.min(until).since(self.at));
        self.at = self.at.max(now);
        self.held += ShareTime::from(share.0) * ShareTime::from(time);
        self.most = self.most.max(if time > 0 { share } else { Share::ZERO });
    }

    /// Hears the lender's count of it.
    pub fn hear(&mut self, lent: ShareTime) {
        // Less than before: it was closed meanwhile, and named again.
        let shown = lent.checked_sub(self.shown).unwrap_or(lent);
        self.owed = self.due().saturating_sub(shown);
        (self.held, self.shown) = (0, lent);
        if self.owed == 0 {
            self.most = Share::ZERO;
        }
    }

    /// Begins anew: nothing is owed.
    pub fn forgive(&mut self) {
        (self.held, self.owed, self.most) = (0, 0, Share::ZERO);
    }

    /// Whether its books lag behind by more than what was lent is worth in this time.
    pub fn is_behind(&self, patience: Duration) -> bool {
        self.due() > ShareTime::from(self.most.0) * ShareTime::from(nanos(patience))
    }

    /// All that books have yet to show. One part in sixteen is left to clocks, and pays back what a machine that slept
    /// through the end of a lease has counted too much.
    fn due(&self) -> ShareTime {
        self.owed.saturating_add(self.held - self.held / 16)
    }
}

/// What everybody notes of a lender's books: what it says its own share was worth lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims {
    life: Option<Incarnation>,
    /// The book from which on it is counted, by its clock and what was its own, …
    first: (Instant, ShareTime),
    /// … and the newest.
    last: (Instant, ShareTime),
}

/// Claims are compared over times as long as this, or twice as long.
const LATELY: Duration = Duration::from_secs(8);

impl Claims {
    /// Hears the newest book.
    pub fn hear(&mut self, life: Incarnation, book: &Book) {
        let last = (book.clock, book.own);
        if self.life != Some(life) {
            *self = Self { life: Some(life), first: last, last };
        } else if self.last.0.since(self.first.0) >= LATELY {
            self.first = self.last;
        }
        self.last = last;
    }

    /// Whether no more than `base` can have been its own. A second and one part in sixteen are left to what was heard
    /// late.
    pub fn exceed(&self, base: Share) -> bool {
        let time = self.last.0.since(self.first.0);
        let time = nanos(time + time / 16 + Duration::from_secs(1));
        self.last.1.saturating_sub(self.first.1) > ShareTime::from(base.0) * ShareTime::from(time)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);
    const QUARTER: Share = Share(ONE.0 / 4);
    const PATIENCE: Duration = Duration::from_secs(8);

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn worth(share: Share, millis: u64) -> ShareTime {
        ShareTime::from(share.0) * ShareTime::from(millis) * 1_000_000
    }

    fn book(seconds: u64, own: Share, lent: &[(NodeId, Share)]) -> Book {
        let millis = seconds * 1_000;
        let lent = lent.iter().map(|(node, share)| (*node, worth(*share, millis))).collect();
        Book { clock: at(millis), own: worth(own, millis), closed: 0, lent }
    }

    #[test]
    fn lending_the_same_share_twice_shows() {
        let before = book(10, QUARTER, &[(A, QUARTER)]);
        assert!(!before.contradicts(&book(20, QUARTER, &[(A, QUARTER)])));
        let mut twice = book(20, QUARTER, &[(A, QUARTER)]);
        twice.lent.push((B, worth(QUARTER, 5_000)));
        assert!(before.contradicts(&twice), "what was lent grew by more than was its own");
        twice.own += worth(QUARTER, 5_000);
        assert!(!before.contradicts(&twice), "unless it says that it has so much");
        let mut claims = Claims::default();
        claims.hear(Incarnation(1), &before);
        claims.hear(Incarnation(1), &twice);
        assert!(claims.exceed(QUARTER) && !claims.exceed(ONE.scale(1, 2)), "which by the ledger it has not");
        twice.own = worth(ONE, 20_000);
        assert!(before.contradicts(&twice), "or more than there is");
        // However often it signs.
        let mut claims = Claims::default();
        let exceeds = (1..200).find(|tenth| {
            let own = worth(ONE.scale(1, 2), tenth * 100);
            claims.hear(Incarnation(1), &Book { clock: at(tenth * 100), own, ..Book::default() });
            claims.exceed(QUARTER)
        });
        assert!(matches!(exceeds, Some(..25)), "{exceeds:?}");
    }

    #[test]
    fn what_was_lent_is_not_unsaid() {
        let before = book(10, QUARTER, &[(A, QUARTER)]);
        let after = book(20, QUARTER, &[(A, QUARTER)]);
        for (what, later) in [
            ("its own", Book { own: 0, ..after.clone() }),
            ("its clock", Book { clock: at(9_999), ..after.clone() }),
            ("a borrower", Book { lent: vec![(B, before.total())], ..after.clone() }),
            ("less to a borrower", Book { lent: vec![(A, before.total() - 1), (B, 2)], ..after.clone() }),
            ("more closed than there was", Book { closed: after.own, ..after.clone() }),
        ] {
            assert!(before.contradicts(&later), "{what}");
        }
        let closed = Book { closed: before.total(), lent: vec![(A, 1), (B, 1)], ..after };
        assert!(!before.contradicts(&closed), "closed, and named again");
    }

    #[test]
    fn a_borrower_turns_away_from_whoever_does_not_count_its_loan() {
        let mut account = Account::new(at(0));
        account.count(QUARTER, at(u64::MAX / 2_000_000), at(8_000));
        assert!(!account.is_behind(PATIENCE));
        account.count(QUARTER, at(u64::MAX / 2_000_000), at(9_000));
        assert!(account.is_behind(PATIENCE), "no book at all");
        account.hear(worth(QUARTER, 9_000));
        assert!(!account.is_behind(PATIENCE), "all of it");
        let mut told = worth(QUARTER, 9_000);
        let behind = (10..60).find(|second| {
            account.count(QUARTER, at(u64::MAX / 2_000_000), at(second * 1_000));
            told += worth(QUARTER, 500);
            account.hear(told);
            account.is_behind(PATIENCE)
        });
        assert!(matches!(behind, Some(20..40)), "half of it: {behind:?}");
    }

    #[test]
    fn a_book_names_so_many_and_closes_those_who_borrow_no_more() {
        let mut loans = Loans::default();
        let node = |place: usize| NodeId([place as u8; 32]);
        for place in 0..BORROWERS_MAX {
            assert!(loans.open(node(place), at(0)));
        }
        loans.count(ONE, [(node(7), QUARTER)].into_iter(), at(1_000));
        let before = loans.book();
        assert!(!loans.open(node(200), at(59_000)), "there is no line for another");
        assert!(loans.open(node(200), at(60_500)), "until some were closed");
        let left: Vec<NodeId> = loans.book().lent.iter().map(|(node, _)| *node).collect();
        assert_eq!(left, [node(7), node(200)]);
        loans.count(ONE, std::iter::empty(), at(70_000));
        for place in 0..BORROWERS_MAX - 2 {
            assert!(loans.open(node(100 + place % 100 + place / 100 * 101), at(70_000)), "{place}");
        }
        assert!(loans.open(node(99), at(140_000)));
        let after = loans.book();
        assert_eq!((after.closed, after.lent_to(&node(7))), (worth(QUARTER, 1_000), 0));
        assert!(!before.contradicts(&after));
    }

    proptest! {
        /// Whatever is lent, comes back and is signed, in whatever order it is heard, honest books do not contradict
        /// each other, claim no more than the base share, and no borrower turns away.
        #[test]
        fn honest_books_add_up(
            steps in proptest::collection::vec((0..6_u8, 0..=8_u64, 0..4_000_u64, any::<bool>()), 1..80),
            shrinks_at in 0..80_usize,
        ) {
            let mut loans = Loans::default();
            let (mut base, mut now) = (QUARTER, at(0));
            let mut out: BTreeMap<NodeId, Share> = BTreeMap::new();
            let mut account = Account::new(at(0));
            let mut claims = Claims::default();
            let mut books = Vec::new();
            for (step, (borrower, eighths, millis, signs)) in steps.into_iter().enumerate() {
                loans.count(base, out.iter().map(|(node, share)| (*node, *share)), now);
                // The borrower heard of its loan late, or gave back what the lender has not heard of.
                let held = out.get(&NodeId([0; 32])).copied().unwrap_or_default().scale(millis % 5, 4);
                account.count(held.min(out.get(&NodeId([0; 32])).copied().unwrap_or_default()), now, now);
                if step == shrinks_at {
                    base = base.scale(1, 2);
                }
                if signs {
                    let book = loans.book();
                    prop_assert!(books.iter().all(|before: &Book| !before.contradicts(&book)));
                    claims.hear(Incarnation(1), &book);
                    prop_assert!(!claims.exceed(QUARTER));
                    account.hear(book.lent_to(&NodeId([0; 32])));
                    prop_assert!(!account.is_behind(PATIENCE));
                    books.push(book);
                }
                let node = NodeId([borrower; 32]);
                let others: Share = out.iter().filter(|(other, _)| **other != node).map(|(_, share)| *share).sum();
                out.insert(node, QUARTER.scale(eighths, 8).min(base.saturating_sub(others)));
                now = now + Duration::from_millis(millis);
            }
        }
    }
}
