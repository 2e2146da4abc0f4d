//! What was spent and comes back later: amounts with the moment at which each returns.

use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::time::Instant;

/// So many entries are kept apart at most; beyond, neighbours are joined and return with the later of them. A window
/// that is spent evenly has its units back late by less than one in 256 of its length.
const SPANS_MAX: u64 = 256;

/// Atoms that are spent, by when they return. In order of time.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    spans: VecDeque<(Instant, u128)>,
    sum: u128,
    /// Entries nearer than this to one another are joined.
    grain: Duration,
}

impl Spans {
    /// Nothing spent; what is spent returns `length` nanoseconds later.
    pub fn new(length: u64) -> Self {
        Self { grain: Duration::from_nanos(length / SPANS_MAX), ..Self::default() }
    }

    /// All that is spent, in atoms.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Adds `atoms` that return at `at`. A moment before the latest known counts as that.
    pub fn push(&mut self, at: Instant, atoms: u128) {
        if atoms == 0 {
            return;
        }
        self.sum = self.sum.saturating_add(atoms);
        // The last two are joined, counted from the first of them, so that no entry returns later than by a grain.
        let places = self.spans.len();
        let since = places.checked_sub(2).map(|place| self.spans[place].0);
        match self.spans.back_mut() {
            Some(last) if at <= last.0 || since.is_some_and(|since| at.since(since) <= self.grain) => {
                *last = (at.max(last.0), last.1.saturating_add(atoms));
            }
            _ => self.spans.push_back((at, atoms)),
        }
    }

    /// Drops what has returned by `now`.
    pub fn expire(&mut self, now: Instant) {
        while let Some((_, atoms)) = self.spans.front().copied().filter(|(at, _)| *at <= now) {
            self.spans.pop_front();
            self.sum -= atoms;
        }
    }

    /// Drops up to `atoms`, the last to return first. Gives back what was dropped.
    pub fn drop_latest(&mut self, atoms: u128) -> u128 {
        let mut left = atoms.min(self.sum);
        let dropped = left;
        self.sum -= left;
        while let Some((_, last)) = self.spans.back_mut().filter(|_| left > 0) {
            let part = left.min(*last);
            *last -= part;
            left -= part;
            if *last == 0 {
                self.spans.pop_back();
            }
        }
        dropped
    }

    /// Drops up to `atoms`, the first to return first. Gives back what was dropped.
    pub fn drop_earliest(&mut self, atoms: u128) -> u128 {
        let mut left = atoms.min(self.sum);
        let dropped = left;
        self.sum -= left;
        while let Some((_, first)) = self.spans.front_mut().filter(|_| left > 0) {
            let part = left.min(*first);
            *first -= part;
            left -= part;
            if *first == 0 {
                self.spans.pop_front();
            }
        }
        dropped
    }

    /// Drops up to `atoms` of what returns at `at` or before, what returns at `at` first. Gives back what was dropped.
    ///
    /// Never what returns later: if the unit meant has gone elsewhere meanwhile, as spent, it counts there until `at` at
    /// least, and whatever is dropped here in its place must not need longer.
    pub fn drop_until(&mut self, at: Instant, atoms: u128) -> u128 {
        let mut dropped = 0;
        let place = self.spans.partition_point(|(returns, _)| *returns < at);
        if let Some((returns, span)) = self.spans.get_mut(place)
            && *returns == at
        {
            dropped = atoms.min(*span);
            *span -= dropped;
            self.sum -= dropped;
            if *span == 0 {
                self.spans.remove(place);
            }
        }
        let before: u128 =
            self.spans.iter().take_while(|(returns, _)| *returns <= at).map(|(_, span)| span).sum();
        dropped + self.drop_earliest((atoms - dropped).min(before))
    }

    /// When at most `left` of it is still spent; none if that is so already.
    pub fn falls_to(&self, left: u128) -> Option<Instant> {
        let mut sum = self.sum;
        if sum <= left {
            return None;
        }
        for (at, atoms) in &self.spans {
            sum -= atoms;
            if sum <= left {
                return Some(*at);
            }
        }
        None
    }

    /// When at most `left` of this and `other` together is still spent; none if that is so already.
    pub fn falls_to_with(&self, other: &Self, left: u128) -> Option<Instant> {
        let (mut one, mut two) = (self.spans.iter().peekable(), other.spans.iter().peekable());
        let mut sum = self.sum.saturating_add(other.sum);
        let mut at = None;
        while sum > left {
            let first = match (one.peek(), two.peek()) {
                (Some(mine), Some(theirs)) if mine.0 > theirs.0 => two.next(),
                (Some(_), _) => one.next(),
                (None, _) => two.next(),
            };
            let (returns, atoms) = first?;
            sum = sum.saturating_sub(*atoms);
            at = Some(*returns);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn what_is_spent_evenly_is_kept_in_few_entries_and_never_returns_early() {
        let mut spans = Spans::new(256_000);
        (0..256_000).for_each(|nano| spans.push(at(nano + 256_000), 1));
        assert!(spans.spans.len() <= 300, "{}", spans.spans.len());
        for now in (256_000..512_000).step_by(777) {
            let due = u128::from(511_999 - now);
            spans.expire(at(now));
            assert!(spans.sum() >= due && spans.sum() <= due + 1_001, "{now}: {} {due}", spans.sum());
        }
    }

    #[test]
    fn a_refund_takes_nothing_that_returns_later() {
        let mut spans = Spans::new(10);
        [(10, 5), (20, 5), (30, 5)].into_iter().for_each(|(nano, atoms)| spans.push(at(nano), atoms));
        assert_eq!(spans.drop_until(at(20), 7), 7);
        assert_eq!(spans.spans, [(at(10), 3), (at(30), 5)]);
        assert_eq!(spans.drop_until(at(20), 7), 3);
        assert_eq!(spans.sum(), 5);
    }

    #[test]
    fn leaves_from_either_end() {
        let mut spans = Spans::new(10);
        [(10, 5), (20, 5)].into_iter().for_each(|(nano, atoms)| spans.push(at(nano), atoms));
        assert_eq!((spans.falls_to(7), spans.falls_to(10)), (Some(at(10)), None));
        assert_eq!((spans.drop_latest(6), spans.drop_earliest(1), spans.sum()), (6, 1, 3));
        assert_eq!((spans.drop_latest(9), spans.sum()), (3, 0));
    }
}
