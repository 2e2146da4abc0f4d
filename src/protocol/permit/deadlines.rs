//! Whose time is over first.

use crate::protocol::recency::Recency;
use crate::protocol::time::Instant;

/// Slots (places of live permits) by deadline; the first is at hand.
///
/// Most permits live equally long, so most deadlines come in order. Those are a list, in which everything takes constant
/// time. One that comes before the last of the list goes to a binary heap, in which inserting and removing take O(log n);
/// it knows the place of every slot in it, so that one can be taken out of the middle. A heap that leaves the settled in
/// and skips them later would be shorter, but it is swept from time to time, and a sweep over some 100,000 is a pause of
/// the admission path.
#[derive(Clone, Debug)]
pub(super) struct Deadlines {
    in_order: Recency,
    heap: Vec<u32>,
    /// By slot: its deadline, and where it is in the heap, or [`LISTED`]. Meaningless for one without a deadline.
    at: Vec<Instant>,
    places: Vec<u32>,
    len: usize,
}

/// The place of a slot that is in the list.
const LISTED: u32 = u32::MAX;

impl Deadlines {
    /// No deadlines.
    pub(super) fn new() -> Self {
        Self { in_order: Recency::new(), heap: Vec::new(), at: Vec::new(), places: Vec::new(), len: 0 }
    }

    /// How many slots have a deadline.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The earliest deadline, and whose it is. Of several at one moment, any.
    pub(super) fn first(&self) -> Option<(Instant, u32)> {
        let firsts = [self.in_order.first(), self.heap.first().copied()];
        firsts.into_iter().flatten().map(|slot| (self.at[slot as usize], slot)).min()
    }

    /// Gives a slot a deadline. It must have none.
    pub(super) fn insert(&mut self, slot: u32, at: Instant) {
        if self.at.len() <= slot as usize {
            self.at.resize(slot as usize + 1, at);
            self.places.resize(slot as usize + 1, LISTED);
        }
        self.len += 1;
        self.at[slot as usize] = at;
        if self.in_order.last().is_none_or(|last| self.at[last as usize] <= at) {
            self.places[slot as usize] = LISTED;
            self.in_order.push(slot);
        } else {
            self.heap.push(slot);
            self.rise(self.heap.len() - 1);
        }
    }

    /// Takes the deadline from a slot. It must have one.
    pub(super) fn remove(&mut self, slot: u32) {
        self.len -= 1;
        let place = self.places[slot as usize] as usize;
        if place == LISTED as usize {
            self.in_order.remove(slot);
            return;
        }
        debug_assert_eq!(self.heap[place], slot, "BUG! the slot has no deadline");
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// Moves a slot up until its parent is not later; where it then is.
    fn rise(&mut self, mut place: usize) -> usize {
        let slot = self.heap[place];
        while place > 0 && self.at(slot) < self.at(self.heap[(place - 1) / 2]) {
            self.put(place, self.heap[(place - 1) / 2]);
            place = (place - 1) / 2;
        }
        self.put(place, slot);
        place
    }

    /// Moves a slot down until no child is earlier.
    fn sink(&mut self, mut place: usize) {
        let slot = self.heap[place];
        loop {
            let children = 2 * place + 1..self.heap.len().min(2 * place + 3);
            let Some(child) = children.min_by_key(|child| self.at(self.heap[*child])) else { break };
            if self.at(slot) <= self.at(self.heap[child]) {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, slot);
    }

    fn at(&self, slot: u32) -> Instant {
        self.at[slot as usize]
    }

    fn put(&mut self, place: usize, slot: u32) {
        self.heap[place] = slot;
        self.places[slot as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_is_the_earliest_whatever_was_taken_out(steps in proptest::collection::vec((0u32..40, 0u64..30), 0..200)) {
            let mut deadlines = Deadlines::new();
            let mut model = BTreeSet::new();
            for (slot, at) in steps {
                let at = Instant::from_nanos(at);
                let there = model.iter().find(|(_, other)| *other == slot).copied();
                if let Some(entry) = there {
                    deadlines.remove(slot);
                    model.remove(&entry);
                } else {
                    deadlines.insert(slot, at);
                    model.insert((at, slot));
                }
                // Of several at one moment, any.
                prop_assert!(deadlines.first().is_none_or(|first| model.contains(&first)));
                let at = |first: (Instant, u32)| first.0;
                prop_assert_eq!(deadlines.first().map(at), model.first().copied().map(at));
                prop_assert_eq!(deadlines.len(), model.len());
            }
        }
    }
}
