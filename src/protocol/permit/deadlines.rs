//! Whose time is over first.

use crate::protocol::time::Instant;

/// Slots (places of live permits) by deadline: a binary heap that knows the place of every slot in it, so that one can be
/// taken out of the middle.
///
/// Inserting and removing take O(log n), the first is at hand. A heap that leaves the settled in and skips them later
/// would be shorter, but it is swept from time to time, and a sweep over some 100,000 is a pause of the admission path.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    heap: Vec<(Instant, u32)>,
    /// By slot: where it is in the heap. Meaningless for a slot that is not.
    places: Vec<u32>,
}

impl Deadlines {
    /// How many slots have a deadline.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The earliest deadline, and whose it is. Of several at one moment, any.
    pub(super) fn first(&self) -> Option<(Instant, u32)> {
        self.heap.first().copied()
    }

    /// Gives a slot a deadline. It must have none.
    pub(super) fn insert(&mut self, slot: u32, at: Instant) {
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, 0);
        }
        self.heap.push((at, slot));
        self.rise(self.heap.len() - 1);
    }

    /// Takes the deadline from a slot. It must have one.
    pub(super) fn remove(&mut self, slot: u32) {
        let place = self.places[slot as usize] as usize;
        debug_assert_eq!(self.heap[place].1, slot, "BUG! the slot has no deadline");
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// Moves an entry up until its parent is not later; where it then is.
    fn rise(&mut self, mut place: usize) -> usize {
        let entry = self.heap[place];
        while place > 0 && entry < self.heap[(place - 1) / 2] {
            self.put(place, self.heap[(place - 1) / 2]);
            place = (place - 1) / 2;
        }
        self.put(place, entry);
        place
    }

    /// Moves an entry down until no child is earlier.
    fn sink(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let children = 2 * place + 1..self.heap.len().min(2 * place + 3);
            let Some(earliest) = children.min_by_key(|child| self.heap[*child]) else { break };
            if entry <= self.heap[earliest] {
                break;
            }
            self.put(place, self.heap[earliest]);
            place = earliest;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (Instant, u32)) {
        self.heap[place] = entry;
        self.places[entry.1 as usize] = place as u32;
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
            let mut deadlines = Deadlines::default();
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
                prop_assert_eq!(deadlines.first(), model.first().copied());
                prop_assert_eq!(deadlines.len(), model.len());
            }
        }
    }
}
