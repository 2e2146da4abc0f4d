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
//!   first ([`lease`](super::lease)). If the lender is there and its books do not show within some seconds what it has
//!   lent, or there are none, nothing more is borrowed from it ([`Account`]).
//! - Who writes again and again that more was its own than its base share by the ledger ([`Claims`]) is not borrowed from
//!   either.
//!
//! So a lender that lends to everybody at once either writes it, and is convicted; or counts too little, and each
//! borrower that is not counted turns away; or claims too much, and all do. What is had of it before, within the
//! patience of each, is the loss. Over longer times what it lends is at most a fifth more than it has. What is not in the
//! book: level that goes with a loan, which each borrower bounds for itself (`meter`'s credit), and limits of single
//! keys.

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
/// The same by a borrower's clock, with room for both clocks and for the last book. Longer than anybody's patience with a book.
const SURELY_CLOSED: Duration = Duration::from_secs(56);

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
    pub lent: Vec<Line>,
}

/// What was lent to one borrower since its line was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Whom it is of.
    pub borrower: NodeId,
    /// Another one for each line that the lender has opened: who is named anew begins with nothing.
    pub number: u32,
    /// What was lent.
    pub lent: ShareTime,
}

impl Book {
    /// The line of one borrower, if it is named.
    pub fn line_of(&self, borrower: &NodeId) -> Option<&Line> {
        self.lent.iter().find(|line| line.borrower == *borrower)
    }

    /// What was lent to all.
    pub fn total(&self) -> ShareTime {
        self.lent.iter().fold(self.closed, |sum, line| sum.saturating_add(line.lent))
    }

    /// Whether no honest lender can have signed both in one life, this one first.
    pub fn contradicts(&self, later: &Self) -> bool {
        let grown = |after: ShareTime, before: ShareTime| after.checked_sub(before);
        let goes_on = |line: &Line| later.line_of(&line.borrower).filter(|later| later.number == line.number);
        let shrinks = |line: &Line| goes_on(line).is_some_and(|later| later.lent < line.lent);
        // Who is not named any more, or anew, was closed in between.
        let closed = self.lent.iter().filter(|line| goes_on(line).is_none());
        let closed = closed.fold(0, |sum: ShareTime, line| sum.saturating_add(line.lent));
        let time = ShareTime::from(nanos(later.clock.since(self.clock)));
        let adds_up = || {
            let own = grown(later.own, self.own)?;
            let lent = grown(later.total(), self.total())?;
            let is_closed = grown(later.closed, self.closed)? >= closed;
            Some(
                later.clock >= self.clock && is_closed && lent <= own && own <= time * ShareTime::from(ONE.0),
            )
        };
        self.lent.iter().any(shrinks) || adds_up() != Some(true)
    }
}

/// The lender's side: counts its own loans.
#[derive(Clone, Debug, Default)]
pub struct Loans {
    own: ShareTime,
    closed: ShareTime,
    named: BTreeMap<NodeId, Named>,
    /// The number of the next line.
    next: u32,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Named {
    number: u32,
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
            let line = self.line(borrower, now);
            line.lent += ShareTime::from(share.0) * time;
            total += share.0;
        }
        if total > 0 {
            self.own += ShareTime::from(base.0.max(total)) * time;
        }
    }

    /// Whether there is a line for one more loan to this borrower. Opens it.
    pub fn open(&mut self, borrower: NodeId, now: Instant) -> bool {
        if self.named.len() >= BORROWERS_MAX && !self.named.contains_key(&borrower) {
            self.close(now);
        }
        let fits = self.named.len() < BORROWERS_MAX || self.named.contains_key(&borrower);
        if fits {
            self.line(borrower, now);
        }
        fits
    }

    /// The line of a borrower to whom something is out now.
    fn line(&mut self, borrower: NodeId, now: Instant) -> &mut Named {
        let next = &mut self.next;
        let line = self.named.entry(borrower).or_insert_with(|| {
            *next += 1;
            Named { number: *next, lent: 0, out_at: now }
        });
        line.out_at = now;
        line
    }

    /// Closes the lines of whom nothing was out for [`NAMED`].
    fn close(&mut self, now: Instant) {
        let closed = &mut self.closed;
        self.named.retain(|_, named| {
            let stays = now.since(named.out_at) < NAMED;
            *closed += if stays { 0 } else { named.lent };
            stays
        });
    }

    /// What to sign. Must follow [`count`](Self::count) up to `now`.
    pub fn book(&mut self, now: Instant) -> Book {
        self.close(now);
        let line = |(borrower, named): (&NodeId, &Named)| {
            let Named { number, lent, .. } = *named;
            Line { borrower: *borrower, number, lent }
        };
        let lent = self.named.iter().map(line).collect();
        Book { clock: self.at, own: self.own, closed: self.closed, lent }
    }
}

/// The borrower's side: what it held of one life of a lender, against that lender's books.
///
/// Whatever is held at some moment, the next book that an honest lender signs shows. So the borrower marks from time to
/// time what books have yet to show, and waits until they have shown that much. However short and far between loans are,
/// and whatever else is shown of them later, the wait ends with the mark alone.
#[derive(Clone, Debug)]
pub struct Account {
    /// Share-time since the last book.
    held: ShareTime,
    /// Share-time that books had yet to show then.
    owed: ShareTime,
    /// What of both was to be shown when the wait began.
    marked: ShareTime,
    /// For how long the lender was there since then and did not show it.
    waited: Duration,
    waits_at: Instant,
    /// The line that was shown last, and what it showed.
    shown: (u32, ShareTime),
    /// When something was last held.
    held_at: Instant,
    at: Instant,
}

/// While a lender is there it is heard at least so often.
const HEARD: Duration = Duration::from_secs(1);

impl Account {
    /// Nothing was held before `now`.
    pub fn new(now: Instant) -> Self {
        let (marked, waited) = (0, Duration::ZERO);
        Self { held: 0, owed: 0, marked, waited, waits_at: now, shown: (0, 0), held_at: now, at: now }
    }

    /// Counts up to `now`: since the last time `share` was held, until `until` at most. Must precede every change of
    /// either.
    pub fn count(&mut self, share: Share, until: Instant, now: Instant) {
        let time = nanos(now.min(until).since(self.at));
        if share > Share::ZERO && time > 0 {
            self.held_at = now.min(until);
        }
        self.at = self.at.max(now);
        self.held += ShareTime::from(share.0) * ShareTime::from(time);
    }

    /// The lender is there. To be told as often as it lends, and about once a second while it is heard: time in which it
    /// was not (a cut, a machine that slept) is not held against it.
    pub fn wait(&mut self, now: Instant) {
        if self.marked == 0 {
            (self.marked, self.waited) = (self.due(), Duration::ZERO);
        } else {
            self.waited += now.since(self.waits_at).min(HEARD);
        }
        self.waits_at = now;
    }

    /// Hears the lender's count of it, if its book names this node.
    pub fn hear(&mut self, line: Option<&Line>, now: Instant) {
        // By then an honest lender has closed the line, and its last books may have been lost: this machine slept, say. A lender
        // that was there is not waited for that long.
        if now.since(self.held_at) >= SURELY_CLOSED {
            self.forgive();
        }
        let shown = line.map_or(0, |line| {
            let (number, before) = std::mem::replace(&mut self.shown, (line.number, line.lent));
            line.lent.saturating_sub(if line.number == number { before } else { 0 })
        });
        self.owed = self.due().saturating_sub(shown);
        self.marked = self.marked.saturating_sub(shown);
        self.held = 0;
    }

    /// Begins anew: nothing is owed.
    pub fn forgive(&mut self) {
        (self.held, self.owed, self.marked) = (0, 0, 0);
    }

    /// Whether the lender was there for longer than `patience` without showing what it had to.
    pub fn is_behind(&self, patience: Duration) -> bool {
        self.marked > 0 && self.waited > patience
    }

    /// All that books have yet to show. One part in sixteen is left to clocks, and pays back what a machine that slept
    /// through the end of a lease has counted too much.
    fn due(&self) -> ShareTime {
        self.owed.saturating_add(self.held - self.held / 16)
    }
}

/// What everybody notes of a lender's books: what it says its own share was worth lately, by the time at which it must have
/// signed that.
///
/// A book may be lost and heard from somebody else much later. Its own clock says when it was signed, as far as the fastest
/// book so far shows how that clock runs beside this node's; and never later than when it was heard. A lender that has its
/// clock run fast has no more time by that than has passed here, and one that says to have signed long ago has had less of
/// its own until then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims {
    life: Option<Incarnation>,
    /// By how many nanoseconds this node's clock is ahead of the lender's, less what the fastest book took; modulo 2⁶⁴.
    ahead: u64,
    /// The book from which on it is counted, by when it was signed and what was its own, …
    first: (Instant, ShareTime),
    /// … and the newest.
    last: (Instant, ShareTime),
    exceeded_at: Option<Instant>,
}

/// Claims are compared over times as long as this, or twice as long.
pub const LATELY: Duration = Duration::from_secs(32);
/// So much later than another the first book may be heard, and so much later gifts are heard of than books.
const LATE: Duration = Duration::from_secs(4);
/// So long it counts that more was claimed once.
const ONCE: Duration = Duration::from_secs(128);

impl Claims {
    /// Hears the newest book.
    pub fn hear(&mut self, life: Incarnation, book: &Book, now: Instant) {
        let ahead = now.as_nanos().wrapping_sub(book.clock.as_nanos());
        if self.life != Some(life) {
            let last = (now, book.own);
            *self = Self { life: Some(life), ahead, first: last, last, exceeded_at: self.exceeded_at };
            return;
        }
        let late = ahead.wrapping_sub(self.ahead);
        let signed_at = if late < u64::MAX / 2 {
            Instant::from_nanos(now.as_nanos().saturating_sub(late))
        } else {
            self.ahead = ahead;
            now
        };
        if signed_at.since(self.first.0) >= LATELY {
            self.first = self.last;
        }
        self.last = (signed_at, book.own);
    }

    /// Whether again more than `base` was claimed to be its own. Once that may be so of an honest one: the first book was
    /// old when it was heard, and of a time in which it had more.
    pub fn exceed(&mut self, base: Share) -> bool {
        let (now, own) = self.last;
        let time = now.since(self.first.0);
        let time = nanos(time + time / 16 + LATE);
        if own.saturating_sub(self.first.1) <= ShareTime::from(base.0) * ShareTime::from(time) {
            return false;
        }
        self.first = self.last;
        match self.exceeded_at.map(|at| now.since(at)) {
            Some(ago) if ago <= ONCE => ago >= LATE,
            _ => {
                self.exceeded_at = Some(now);
                false
            }
        }
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

    fn line(borrower: NodeId, number: u32, lent: ShareTime) -> Line {
        Line { borrower, number, lent }
    }

    fn book(seconds: u64, own: Share, lent: &[(NodeId, Share)]) -> Book {
        let millis = seconds * 1_000;
        let lent = lent.iter().map(|(node, share)| line(*node, 1, worth(*share, millis))).collect();
        Book { clock: at(millis), own: worth(own, millis), closed: 0, lent }
    }

    #[test]
    fn lending_the_same_share_twice_shows() {
        let before = book(10, QUARTER, &[(A, QUARTER)]);
        assert!(!before.contradicts(&book(20, QUARTER, &[(A, QUARTER)])));
        let mut twice = book(20, QUARTER, &[(A, QUARTER)]);
        twice.lent.push(line(B, 2, worth(QUARTER, 5_000)));
        assert!(before.contradicts(&twice), "what was lent grew by more than was its own");
        twice.own += worth(QUARTER, 5_000);
        assert!(
            !before.contradicts(&twice),
            "unless it says that it has so much, which it has not by the ledger"
        );
        twice.own = worth(ONE, 20_000);
        assert!(before.contradicts(&twice), "or more than there is");
    }

    /// When a lender is found out that claims to have so much and signs every tenth of a second, with a clock that runs so
    /// many times as fast.
    fn found_out(own: Share, clock: u64, base: Share) -> Option<u64> {
        let mut claims = Claims::default();
        (1..600).find(|tenth| {
            let own = worth(own, tenth * 100);
            let book = Book { clock: at(tenth * 100 * clock), own, ..Book::default() };
            claims.hear(Incarnation(1), &book, at(tenth * 100));
            claims.exceed(base)
        })
    }

    #[test]
    fn whoever_claims_more_than_it_has_is_found_out_and_nobody_else() {
        assert!(matches!(found_out(ONE, 1, QUARTER), Some(..60)));
        assert!(matches!(found_out(ONE, 4, QUARTER), Some(..60)), "whatever its clock says");
        assert!(matches!(found_out(ONE.scale(1, 2), 1, QUARTER), Some(..120)));
        assert!(matches!(found_out(ONE.scale(1, 2), 2, QUARTER), Some(..120)));
        assert_eq!(found_out(QUARTER, 1, QUARTER), None);
    }

    #[test]
    fn a_book_that_is_heard_late_is_held_against_nobody() {
        // Of long ago the first, of a time in which more was its own; of those that follow all but some come late.
        let mut claims = Claims::default();
        let old = Book { clock: at(41_000), ..Book::default() };
        claims.hear(Incarnation(1), &old, at(100_000));
        for signed in (101..400).step_by(10) {
            let own = worth(ONE, 60_000) + worth(QUARTER, (signed - 101) * 1_000);
            let book = Book { clock: at(signed * 1_000), own, ..Book::default() };
            let heard = signed + if signed % 30 == 11 { 0 } else { 9 };
            claims.hear(Incarnation(1), &book, at(heard * 1_000));
            assert!(!claims.exceed(QUARTER), "signed at {signed}");
        }
    }

    #[test]
    fn what_was_lent_is_not_unsaid() {
        let before = book(10, QUARTER, &[(A, QUARTER)]);
        let after = book(20, QUARTER, &[(A, QUARTER)]);
        for (what, later) in [
            ("its own", Book { own: 0, ..after.clone() }),
            ("its clock", Book { clock: at(9_999), ..after.clone() }),
            ("a borrower", Book { lent: vec![line(B, 2, before.total())], ..after.clone() }),
            ("less to a borrower", {
                let lent = vec![line(A, 1, before.total() - 1), line(B, 2, 2)];
                Book { lent, ..after.clone() }
            }),
            ("less of a line, though as much was closed", {
                Book { closed: before.total(), lent: vec![line(A, 1, 1)], ..after.clone() }
            }),
            ("more closed than there was", Book { closed: after.own, ..after.clone() }),
        ] {
            assert!(before.contradicts(&later), "{what}");
        }
        let closed = Book { closed: before.total(), lent: vec![line(A, 2, 1), line(B, 3, 1)], ..after };
        assert!(!before.contradicts(&closed), "closed, and named again");
    }

    /// When a borrower turns away, in tenths of a second, that holds a quarter for the first `lent` tenths of every `every`, from
    /// a lender that shows `shown` tenths of that; the books come every other second.
    fn turns_away(lent: u64, every: u64, shown: u64) -> Option<u64> {
        let (mut account, mut told) = (Account::new(at(0)), 0);
        (1..3_000).find(|tenth| {
            let now = at(tenth * 100);
            let held = if (tenth - 1) % every < lent { QUARTER } else { Share::ZERO };
            account.count(held, at(u64::MAX / 2_000_000), now);
            told += worth(held.scale(shown, 10), 100);
            if tenth % 10 == 0 {
                account.wait(now);
            }
            if tenth % 20 == 0 && shown > 0 {
                account.hear(Some(&line(A, 1, told)), now);
            }
            account.is_behind(PATIENCE)
        })
    }

    #[test]
    fn a_borrower_turns_away_from_whoever_does_not_count_its_loan() {
        assert_eq!(turns_away(1, 1, 10), None, "all of it is shown");
        assert_eq!(turns_away(1, 1, 0), Some(100), "none of it");
        assert_eq!(turns_away(1, 40, 0), Some(100), "nor of loans that are short and far between");
        assert!(matches!(turns_away(1, 1, 5), Some(100..250)), "half of it");
        assert!(matches!(turns_away(1, 40, 5), Some(100..400)));
    }

    #[test]
    fn a_line_that_was_closed_and_opened_again_shows_all_that_it_says() {
        let mut account = Account::new(at(0));
        for (number, lent, lasts) in [(1, 1_000, 1_000), (2, 3_000, 3_000)] {
            let begin = at(u64::from(number) * 100_000);
            account.count(Share::ZERO, begin, begin);
            account.count(QUARTER, begin + Duration::from_millis(lasts), begin + Duration::from_secs(9));
            account.wait(begin + Duration::from_secs(9));
            // The books in between were lost.
            account.hear(Some(&line(A, number, worth(QUARTER, lent))), begin + Duration::from_secs(9));
            assert_eq!((account.owed, account.marked), (0, 0), "line {number}");
        }
    }

    #[test]
    fn who_is_not_there_is_not_waited_for() {
        let mut account = Account::new(at(0));
        account.count(QUARTER, at(2_000), at(3_000));
        account.wait(at(3_000));
        // Cut off for an hour.
        account.wait(at(3_600_000));
        assert!(!account.is_behind(PATIENCE));
        account.hear(Some(&line(A, 1, worth(QUARTER, 2_000))), at(3_600_000));
        (0..100).for_each(|second| account.wait(at(3_600_000 + second * 1_000)));
        assert!(!account.is_behind(PATIENCE));
    }

    #[test]
    fn whoever_slept_does_not_wait_for_lines_that_are_closed() {
        for shown in [None, Some(line(A, 2, 1))] {
            for (heard, owes) in [(3_600_000, false), (10_000, true)] {
                let mut account = Account::new(at(0));
                account.count(QUARTER, at(2_000), at(2_000));
                account.wait(at(2_000));
                account.hear(shown.as_ref(), at(heard));
                (0..100).for_each(|second| account.wait(at(heard + second * 1_000)));
                assert_eq!(account.is_behind(PATIENCE), owes, "heard at {heard}");
            }
        }
    }

    #[test]
    fn a_book_names_so_many_and_closes_those_who_borrow_no_more() {
        let mut loans = Loans::default();
        let node = |place: usize| NodeId([place as u8; 32]);
        for place in 0..BORROWERS_MAX {
            assert!(loans.open(node(place), at(0)));
        }
        loans.count(ONE, [(node(7), QUARTER)].into_iter(), at(1_000));
        let before = loans.book(at(1_000));
        assert!(!loans.open(node(200), at(59_000)), "there is no line for another");
        assert!(loans.open(node(200), at(60_500)), "until some were closed");
        let left: Vec<NodeId> = loans.book(at(60_500)).lent.iter().map(|line| line.borrower).collect();
        assert_eq!(left, [node(7), node(200)]);
        loans.count(ONE, std::iter::empty(), at(70_000));
        for place in 0..BORROWERS_MAX - 2 {
            assert!(loans.open(node(100 + place % 100 + place / 100 * 101), at(70_000)), "{place}");
        }
        assert!(loans.open(node(99), at(140_000)));
        let after = loans.book(at(140_000));
        assert_eq!((after.closed, after.line_of(&node(7))), (worth(QUARTER, 1_000), None));
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
            let (mut books, mut heard) = (Vec::new(), at(0));
            for (step, (borrower, eighths, millis, signs)) in steps.into_iter().enumerate() {
                loans.count(base, out.iter().map(|(node, share)| (*node, *share)), now);
                // The borrower heard of its loan late, or gave back what the lender has not heard of.
                let held = out.get(&NodeId([0; 32])).copied().unwrap_or_default().scale(millis % 5, 4);
                account.count(held.min(out.get(&NodeId([0; 32])).copied().unwrap_or_default()), now, now);
                if step == shrinks_at {
                    base = base.scale(1, 2);
                }
                if signs {
                    let book = loans.book(now);
                    prop_assert!(books.iter().all(|before: &Book| !before.contradicts(&book)));
                    claims.hear(Incarnation(1), &book, now);
                    prop_assert!(!claims.exceed(QUARTER));
                    account.hear(book.line_of(&NodeId([0; 32])), now);
                    heard = now;
                    books.push(book);
                }
                account.wait(now);
                prop_assert!(!account.is_behind(PATIENCE) || now.since(heard) > PATIENCE);
                let node = NodeId([borrower; 32]);
                let others: Share = out.iter().filter(|(other, _)| **other != node).map(|(_, share)| *share).sum();
                out.insert(node, QUARTER.scale(eighths, 8).min(base.saturating_sub(others)));
                now = now + Duration::from_millis(millis);
            }
        }
    }
}
