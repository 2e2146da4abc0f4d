//! How a node's base share went: what every key that was never used has taken part in.

use std::collections::VecDeque;

use super::Balance;
use crate::protocol::limit::Rate;
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::Instant;

/// How many changes of base share are kept for keys that have not been looked at since.
pub const CHANGES_MAX: usize = 64;

/// A change of base share.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: Instant,
    before: Share,
    after: Share,
}

/// The base share that a node could use, as it went. From it follows what a key has now that had nothing spent, or a known
/// balance, at some time before.
#[derive(Clone, Debug)]
pub struct History {
    /// When it begins, and the base share of which all keys were full then.
    began: (Instant, Share),
    base: Share,
    /// The last changes, in their order.
    changes: VecDeque<Change>,
    /// When the last change happened that is not kept any more.
    lost_at: Option<Instant>,
}

impl History {
    /// It begins `now`, without a base share.
    pub fn new(now: Instant) -> Self {
        Self { began: (now, Share::ZERO), base: Share::ZERO, changes: VecDeque::new(), lost_at: None }
    }

    /// It begins `now`, with a base share of a ledger of which nothing was ever spent.
    pub fn full(base: Share, now: Instant) -> Self {
        Self { began: (now, base), base, ..Self::new(now) }
    }

    /// The base share that may be used now.
    pub fn base(&self) -> Share {
        self.base
    }

    /// The base share that may be used is `base` from `now` on, which is not before what happened last. What comes is empty,
    /// whatever level a gift had.
    pub fn set_base(&mut self, base: Share, now: Instant) {
        debug_assert!(base <= ONE, "BUG! more base share than there is");
        if base == self.base {
            return;
        }
        if self.changes.len() == CHANGES_MAX {
            self.lost_at = self.changes.pop_front().map(|change| change.at);
        }
        self.changes.push_back(Change { at: now, before: self.base, after: base });
        self.base = base;
    }

    /// Whether the base share changed at `since` or later.
    pub(super) fn changed_since(&self, since: Instant) -> bool {
        self.changes.back().is_some_and(|change| change.at >= since)
    }

    /// What a key has at `now` that was never used.
    pub(super) fn unused(&self, rate: &Rate, now: Instant) -> Balance {
        let (began, base) = self.began;
        self.at_present(Balance::full(rate, base), began, rate, now)
    }

    /// What a balance of `at` is at `now`, by the steps that the base share took meanwhile. What is from before the changes
    /// that are kept counts as empty when the last of the others happened.
    pub(super) fn at_present(
        &self,
        mut balance: Balance,
        mut at: Instant,
        rate: &Rate,
        now: Instant,
    ) -> Balance {
        if let Some(lost_at) = self.lost_at.filter(|lost_at| at <= *lost_at) {
            at = lost_at;
            balance = balance.min(Balance::ZERO);
        }
        let missed = self.changes.iter().rev().take_while(|change| change.at >= at).count();
        for change in self.changes.range(self.changes.len() - missed..) {
            let nanos = change.at.as_nanos() - at.as_nanos();
            balance = balance.earn(rate, change.before, nanos).fit(rate, change.after);
            at = change.at;
        }
        balance.earn(rate, self.base, now.as_nanos().saturating_sub(at.as_nanos()))
    }
}
