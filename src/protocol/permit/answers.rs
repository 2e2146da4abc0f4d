//! How the permits that ended last have ended.

use super::{How, Settlement};

/// The last answers, up to a bound: a ring, so that one more costs no look at memory that has long left the caches.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    ring: Vec<Answer>,
    bound: usize,
    /// Where the next goes once the ring is full: the oldest is there.
    next: usize,
}

/// What came of one permit.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub slot: u32,
    pub how: How,
    pub settlement: Settlement,
}

impl Answers {
    /// No answers, and room for `bound`, at least one.
    pub(super) fn new(bound: usize) -> Self {
        Self { ring: Vec::new(), bound: bound.max(1), next: 0 }
    }

    /// Adds that the permit in a slot ended as `how`, with no difference. Gives back the place of the answer, and the slot
    /// whose answer was there before and is forgotten.
    pub(super) fn push(&mut self, slot: u32, how: How) -> (u32, Option<u32>) {
        let place = self.next;
        self.next = if place + 1 == self.bound { 0 } else { place + 1 };
        let Some(answer) = self.ring.get_mut(place) else {
            self.ring.push(Answer { slot, how, settlement: Settlement::default() });
            return (place as u32, None);
        };
        let forgotten = answer.slot;
        (answer.slot, answer.how) = (slot, how);
        answer.settlement.corrections.clear();
        (place as u32, Some(forgotten))
    }

    pub(super) fn get(&self, place: u32) -> &Answer {
        &self.ring[place as usize]
    }

    pub(super) fn get_mut(&mut self, place: u32) -> &mut Answer {
        &mut self.ring[place as usize]
    }
}
