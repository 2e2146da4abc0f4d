//! The G-counter of one limit: knows replicas, and nothing of time.

use crdts::{CmRDT, Dot, VClock};

use super::id::Replica;

/// The most replicas that one counter keeps apart. A swarm of 1,000 nodes reaches it after four restarts of each;
/// replicas beyond it are not counted, which only makes the shown total too small.
pub const REPLICAS_MAX: usize = 4_096;

/// Units that each replica has admitted, ever: a state-based grow-only counter (Shapiro et al. 2011).
///
/// The vector is `crdts`' [`VClock`], the type inside its `GCounter`; the cached total stands in for `GCounter::read`,
/// which adds up big integers at every call. The cell that grows with every admission is kept outside the vector's tree.
#[derive(Clone, Debug, Default)]
pub struct GCounter {
    cells: VClock<Replica>,
    /// The replica that was [added](Self::add) to last, with its count: that of `cells` may be an older one.
    growing: Option<(Replica, u64)>,
    replicas: usize,
    total: u128,
}

impl GCounter {
    /// Units of all replicas together.
    pub fn total(&self) -> u128 {
        self.total
    }

    /// Units of one replica.
    pub fn of(&self, replica: &Replica) -> u64 {
        match &self.growing {
            Some((growing, count)) if growing == replica => *count,
            _ => self.cells.get(replica),
        }
    }

    /// Counts `units` more of a replica: what merging the sum would do, in constant time for the replica of the last call.
    pub fn add(&mut self, replica: Replica, units: u64) {
        match &mut self.growing {
            Some((growing, count)) if *growing == replica => {
                let units = units.min(u64::MAX - *count);
                *count += units;
                self.total += u128::from(units);
            }
            _ => {
                self.merge(replica, self.of(&replica).saturating_add(units));
                self.keep_growing();
                // A replica that is not counted because there are too many has no cell to stand in for.
                let count = self.cells.get(&replica);
                self.growing = (count > 0).then_some((replica, count));
            }
        }
    }

    /// Merges one cell: `replica` has admitted `count` units ever. Gives back the growth that this is news of:
    /// zero when it was known. Commutative, associative, idempotent and monotone.
    pub fn merge(&mut self, replica: Replica, count: u64) -> u64 {
        let known = self.of(&replica);
        if count <= known || (known == 0 && self.replicas >= REPLICAS_MAX) {
            return 0;
        }
        self.replicas += usize::from(known == 0);
        match &mut self.growing {
            Some((growing, grown)) if *growing == replica => *grown = count,
            _ => self.cells.apply(Dot::new(replica, count)),
        }
        self.total += u128::from(count - known);
        count - known
    }

    /// Every replica that has admitted something, with its units.
    pub fn cells(&self) -> impl Iterator<Item = (Replica, u64)> + '_ {
        self.cells.iter().map(|dot| (*dot.actor, self.of(dot.actor)))
    }

    /// Puts the count that grew outside the vector into it.
    fn keep_growing(&mut self) {
        if let Some((replica, count)) = self.growing.take() {
            self.cells.apply(Dot::new(replica, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::id::{Incarnation, NodeId};
    use super::*;

    fn replica(node: u8, life: u64) -> Replica {
        Replica { node: NodeId([node; 32]), incarnation: Incarnation(life) }
    }

    fn merged(cells: &[(u8, u64)]) -> GCounter {
        let mut counter = GCounter::default();
        for (node, count) in cells {
            counter.merge(replica(node % 5, u64::from(node % 2)), *count);
        }
        counter
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference_in_any_order_and_however_often(
            cells in proptest::collection::vec((0u8..8, 1u64..1_000), 0..30), seed in any::<usize>(),
        ) {
            let mut shuffled = cells.clone();
            shuffled.rotate_left(seed % cells.len().max(1));
            shuffled.extend_from_slice(&cells);
            let (one, other) = (merged(&cells), merged(&shuffled));
            prop_assert_eq!(one.cells().collect::<Vec<_>>(), other.cells().collect::<Vec<_>>());

            let mut reference = crdts::GCounter::new();
            for (replica, count) in one.cells() {
                reference.apply(Dot::new(replica, count));
            }
            prop_assert_eq!(reference.read(), one.total().into());
            prop_assert_eq!(one.total(), other.total());
        }
    }

    proptest! {
        #[test]
        fn adding_is_merging_the_sum(steps in proptest::collection::vec((0u8..4, 0u64..9, any::<bool>()), 0..40)) {
            let (mut added, mut merged) = (GCounter::default(), GCounter::default());
            for (node, units, whole) in steps {
                let replica = replica(node, 1);
                let count = if whole { units } else { merged.of(&replica) + units };
                merged.merge(replica, count);
                if whole { added.merge(replica, count); } else { added.add(replica, units); }
                prop_assert_eq!(added.of(&replica), merged.of(&replica));
                prop_assert_eq!(added.total(), merged.total());
            }
            prop_assert_eq!(added.cells().collect::<Vec<_>>(), merged.cells().collect::<Vec<_>>());
        }
    }

    #[test]
    fn replicas_beyond_the_bound_are_not_counted() {
        let mut counter = GCounter::default();
        for life in 0..=REPLICAS_MAX as u64 {
            counter.merge(replica(1, life), 1);
        }
        assert_eq!(counter.total(), REPLICAS_MAX as u128);
        assert_eq!(counter.merge(replica(1, 0), 5), 4, "known replicas still grow");
        counter.add(replica(2, 0), 1);
        counter.add(replica(2, 0), 1);
        assert_eq!((counter.of(&replica(2, 0)), counter.total()), (0, REPLICAS_MAX as u128 + 4));
    }
}
