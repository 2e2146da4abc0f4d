//! How calls ended: what nodes publish, and what was heard of it lately.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::id::{Incarnation, NodeId, Replica};
use super::super::time::Instant;

/// The most nodes whose outcomes are counted; those of others are left out.
pub const NODES_MAX: usize = 1_024;
/// A node counts for at most so many times `min_count` calls in one bucket of time.
pub const CLAMP: u64 = 64;

/// Into how many buckets of time the window is divided.
const BUCKETS: usize = 8;

/// How calls ended, in one life of one node: cells of two G-counters. A node publishes them from its start on, as
/// zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Calls that went well, ever.
    pub ok: u64,
    /// Calls that failed, ever.
    pub failed: u64,
}

impl Outcomes {
    pub(super) fn total(self) -> u64 {
        self.ok.saturating_add(self.failed)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { ok: self.ok.saturating_add(other.ok), failed: self.failed.saturating_add(other.failed) }
    }

    fn minus(self, other: Self) -> Self {
        Self { ok: self.ok.saturating_sub(other.ok), failed: self.failed.saturating_sub(other.failed) }
    }

    /// The same proportions, of at most `most` calls.
    fn clamped(self, most: u64) -> Self {
        let total = u128::from(self.ok) + u128::from(self.failed);
        if total <= u128::from(most) {
            return self;
        }
        let failed = (u128::from(self.failed) * u128::from(most) / total) as u64;
        Self { ok: most - failed, failed }
    }
}

/// Growth of all nodes' outcomes, by when it was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    bucket: Duration,
    clamp: u64,
    nodes: BTreeMap<NodeId, Cell>,
    /// Growth of all nodes, each clamped, by bucket; a ring.
    buckets: [Outcomes; BUCKETS],
    /// The number of the present bucket.
    number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    incarnation: Incarnation,
    known: Outcomes,
    /// Growth in the bucket of this number, not clamped.
    number: u64,
    grown: Outcomes,
}

impl Heard {
    /// Nothing yet.
    pub fn new(window: Duration, min_count: u32, now: Instant) -> Self {
        let mut heard = Self {
            bucket: window / BUCKETS as u32,
            clamp: u64::from(min_count) * CLAMP,
            nodes: BTreeMap::new(),
            buckets: [Outcomes::default(); BUCKETS],
            number: 0,
        };
        heard.advance(now);
        heard
    }

    /// Counts what a life of a node published. Gives back whether anything grew.
    pub fn merge(&mut self, replica: Replica, outcomes: Outcomes, now: Instant) -> bool {
        self.advance(now);
        let full = self.nodes.len() >= NODES_MAX;
        let begins = Cell {
            incarnation: replica.incarnation,
            known: outcomes,
            number: self.number,
            grown: Outcomes::default(),
        };
        let Some(cell) = self.nodes.get_mut(&replica.node) else {
            if !full {
                self.nodes.insert(replica.node, begins);
            }
            return false;
        };
        if replica.incarnation > cell.incarnation {
            // All lives of a node have one clamp together.
            *cell = Cell { number: cell.number, grown: cell.grown, ..begins };
            return false;
        }
        let grown = outcomes.minus(cell.known);
        if replica.incarnation < cell.incarnation || grown == Outcomes::default() {
            return false;
        }
        cell.known = cell.known.plus(grown);
        if cell.number != self.number {
            (cell.number, cell.grown) = (self.number, Outcomes::default());
        }
        let counted = cell.grown.clamped(self.clamp);
        cell.grown = cell.grown.plus(grown);
        let present = &mut self.buckets[(self.number % BUCKETS as u64) as usize];
        *present = present.minus(counted).plus(cell.grown.clamped(self.clamp));
        true
    }

    /// Calls in the window.
    pub fn recent(&mut self, now: Instant) -> Outcomes {
        self.advance(now);
        self.buckets.iter().copied().fold(Outcomes::default(), Outcomes::plus)
    }

    /// Forgets what is in the window; what comes later counts anew.
    pub fn empty(&mut self) {
        self.buckets = [Outcomes::default(); BUCKETS];
        self.nodes.values_mut().for_each(|cell| cell.grown = Outcomes::default());
    }

    /// Another window, which begins empty; what was counted of each node does not count again.
    pub fn restart(&mut self, window: Duration, min_count: u32, now: Instant) {
        let nodes = std::mem::take(&mut self.nodes);
        *self = Self::new(window, min_count, now);
        let (number, grown) = (self.number, Outcomes::default());
        self.nodes = nodes.into_iter().map(|(id, cell)| (id, Cell { number, grown, ..cell })).collect();
    }

    /// Makes room for another node.
    pub fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    fn advance(&mut self, now: Instant) {
        let number = now.as_nanos() / (self.bucket.as_nanos() as u64).max(1);
        let passed = number.saturating_sub(self.number).min(BUCKETS as u64);
        self.number = self.number.max(number);
        for back in 0..passed {
            self.buckets[((self.number - back) % BUCKETS as u64) as usize] = Outcomes::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node: u8, life: u64) -> Replica {
        Replica { node: NodeId([node; 32]), incarnation: Incarnation(life) }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(100_000 + millis)
    }

    fn heard() -> Heard {
        Heard::new(Duration::from_secs(8), 1, at(0))
    }

    fn outcomes(ok: u64, failed: u64) -> Outcomes {
        Outcomes { ok, failed }
    }

    #[test]
    fn a_life_counts_from_where_it_was_first_heard_and_never_back() {
        let mut heard = heard();
        assert!(!heard.merge(replica(1, 2), outcomes(1_000, 1_000), at(0)));
        assert!(heard.merge(replica(1, 2), outcomes(1_001, 999), at(0)), "cell by cell");
        assert!(!heard.merge(replica(1, 2), outcomes(5, 1_000), at(0)), "late");
        assert!(!heard.merge(replica(1, 1), outcomes(9_000, 9_000), at(0)), "a former life");
        assert_eq!(heard.recent(at(0)), outcomes(1, 0));
        assert!(!heard.merge(replica(1, 3), outcomes(0, 0), at(0)));
        assert!(heard.merge(replica(1, 3), outcomes(0, 2), at(0)));
        assert_eq!(heard.recent(at(0)), outcomes(1, 2));
    }

    #[test]
    fn a_liar_counts_for_so_much_and_no_more_in_one_bucket() {
        let mut heard = heard();
        for life in 1..9 {
            heard.merge(replica(1, life), outcomes(0, 0), at(0));
            heard.merge(replica(1, life), outcomes(u64::MAX, u64::MAX), at(0));
        }
        let most = heard.recent(at(0));
        assert_eq!(most, outcomes(CLAMP / 2, CLAMP / 2));
        heard.merge(replica(2, 1), outcomes(0, 0), at(0));
        heard.merge(replica(2, 1), outcomes(0, 3), at(0));
        assert_eq!(heard.recent(at(0)).failed, most.failed + 3, "others count as before");
    }

    #[test]
    fn another_window_begins_empty_and_counts_nothing_again() {
        let mut heard = heard();
        heard.merge(replica(1, 1), outcomes(0, 0), at(0));
        heard.merge(replica(1, 1), outcomes(3, 2), at(0));
        heard.restart(Duration::from_secs(800), 1, at(0));
        assert_eq!(heard.recent(at(0)), outcomes(0, 0));
        assert!(!heard.merge(replica(1, 1), outcomes(3, 2), at(0)), "it is known");
        heard.merge(replica(1, 1), outcomes(4, 4), at(100_000));
        assert_eq!(heard.recent(at(600_000)), outcomes(1, 2), "the old window is over by then");
    }

    #[test]
    fn a_busy_node_keeps_its_proportions() {
        let mut heard = heard();
        heard.merge(replica(1, 1), outcomes(0, 0), at(0));
        for calls in 1..=100 {
            heard.merge(replica(1, 1), outcomes(calls * 99, calls), at(0));
        }
        assert_eq!(heard.recent(at(0)), outcomes(CLAMP, 0));
    }

    #[test]
    fn buckets_leave_one_by_one() {
        let mut heard = heard();
        heard.merge(replica(1, 1), outcomes(0, 0), at(0));
        heard.merge(replica(1, 1), outcomes(1, 0), at(0));
        heard.merge(replica(1, 1), outcomes(3, 0), at(1_000));
        let recent = |heard: &mut Heard, millis| heard.recent(at(millis)).ok;
        assert_eq!((recent(&mut heard, 3_999), recent(&mut heard, 7_999)), (3, 3));
        assert_eq!((recent(&mut heard, 8_000), recent(&mut heard, 9_000)), (2, 0));
        heard.merge(replica(1, 1), outcomes(4, 0), Instant::from_nanos(u64::MAX));
        assert_eq!(heard.recent(at(0)).ok, 1, "time that goes back stands still");
    }

    #[test]
    fn nodes_are_bounded() {
        let mut heard = heard();
        for node in 0..=NODES_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&node.to_be_bytes());
            let replica = Replica { node: NodeId(id), incarnation: Incarnation(1) };
            heard.merge(replica, outcomes(0, 0), at(0));
            heard.merge(replica, outcomes(1, 0), at(0));
        }
        assert_eq!(heard.recent(at(0)).ok, NODES_MAX as u64);
    }
}
