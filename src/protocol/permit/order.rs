//! Who came first.

/// Slots (places of live permits) in the order in which they were added, each removable in constant time: a circular doubly linked list through
/// an array by slot. Place 0 is the anchor, the slot `s` has place `s + 1`; what is not in the list links to itself.
#[derive(Clone, Debug)]
pub(super) struct Order {
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

const ANCHOR: u32 = 0;

impl Order {
    /// An empty order.
    pub(super) fn new() -> Self {
        Self { links: vec![Link { before: ANCHOR, after: ANCHOR }] }
    }

    /// The slot that was added first.
    pub(super) fn first(&self) -> Option<u32> {
        self.links[ANCHOR as usize].after.checked_sub(1)
    }

    /// Adds a slot behind all others. It must not be there.
    pub(super) fn push(&mut self, slot: u32) {
        self.cover(slot);
        let place = slot + 1;
        let last = self.links[ANCHOR as usize].before;
        self.links[place as usize] = Link { before: last, after: ANCHOR };
        self.links[last as usize].after = place;
        self.links[ANCHOR as usize].before = place;
    }

    /// Takes a slot out, if it is there.
    pub(super) fn remove(&mut self, slot: u32) {
        self.cover(slot);
        let place = slot + 1;
        let Link { before, after } = self.links[place as usize];
        self.links[before as usize].after = after;
        self.links[after as usize].before = before;
        self.links[place as usize] = Link { before: place, after: place };
    }

    /// Makes the array long enough for a slot.
    fn cover(&mut self, slot: u32) {
        for place in self.links.len() as u32..=slot + 1 {
            self.links.push(Link { before: place, after: place });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_is_the_oldest_that_is_left(steps in proptest::collection::vec((0u32..12, any::<bool>()), 0..100)) {
            let mut order = Order::new();
            let mut model: Vec<u32> = Vec::new();
            for (slot, remove) in steps {
                let there = model.contains(&slot);
                if there || remove {
                    order.remove(slot);
                    model.retain(|other| *other != slot);
                } else {
                    order.push(slot);
                    model.push(slot);
                }
                prop_assert_eq!(order.first(), model.first().copied());
            }
        }
    }
}
