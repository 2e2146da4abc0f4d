//! Books of the loans of one limit: kept of one's own, checked of others'. Limits of single keys have none.

use std::time::Duration;

use super::Meter;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::loans::{Account, Book};
use crate::protocol::share::Share;
use crate::protocol::time::Instant;

impl Meter {
    /// Counts what was lent and borrowed up to `now`. Must precede every change of a lease or of the base share.
    pub(super) fn count_loans(&mut self, now: Instant) {
        if self.is_of_key || now <= self.counted_at {
            return;
        }
        self.counted_at = now;
        let out = self.lent.running().map(|(borrower, lent)| (borrower.node, lent.out()));
        self.loans.count(self.base, out, now);
        for (lender, borrowed) in self.borrowed.running() {
            let account = self.accounts.entry(*lender).or_insert_with(|| Account::new(now));
            account.count(borrowed.held(), borrowed.until(), now);
        }
    }

    /// Whether share can be lent to this borrower and be written down.
    pub fn opens_line(&mut self, borrower: NodeId, now: Instant) -> bool {
        self.is_of_key || self.loans.open(borrower, now)
    }

    /// What to sign of the loans, if anything was lent since `signed`.
    pub fn book(&mut self, signed: Option<&Book>, now: Instant) -> Option<Book> {
        self.count_loans(now);
        let book = self.loans.book(now);
        (book.own > signed.map_or(0, |signed| signed.own)).then_some(book)
    }

    /// Hears what `lender` has signed of its loans; `me` is how it calls this node, `base` the most that was its own lately.
    /// True if it claims that more was.
    pub fn hear_book(
        &mut self,
        lender: Replica,
        book: &Book,
        me: &NodeId,
        base: Share,
        now: Instant,
    ) -> bool {
        self.count_loans(now);
        if let Some(account) = self.accounts.get_mut(&lender) {
            account.hear(book.line_of(me), now);
        }
        let claims = self.claims.entry(lender.node).or_default();
        claims.hear(lender.incarnation, book, now);
        claims.exceed(base)
    }

    /// A lender is there, and has to show what it lent.
    pub fn wait_for_book(&mut self, lender: &Replica, now: Instant) {
        if let Some(account) = self.accounts.get_mut(lender) {
            account.wait(now);
        }
    }

    /// Lenders that were there for longer than `patience` without a book that shows what they lent to this node.
    pub fn behind(&self, patience: Duration) -> impl Iterator<Item = NodeId> {
        let behind = self.accounts.iter().filter(move |(_, account)| account.is_behind(patience));
        behind.map(|(lender, _)| lender.node)
    }

    /// Gives a lender another chance: what its books failed to show, or claimed, is forgotten.
    pub fn forgive(&mut self, lender: &NodeId) {
        self.claims.remove(lender);
        self.accounts.range_mut(Replica::lives_of(*lender)).for_each(|(_, account)| account.forgive());
    }

    /// Forgets the books of nodes that are no members any more.
    pub fn retain_books(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.claims.retain(|lender, _| is_member(lender));
    }
}
