//! Who came first, of numbers that can leave from anywhere: a doubly linked list through the places of a vector.

/// Some of the numbers below a bound, in the order in which they came in. Every operation takes O(1).
#[derive(Clone, Debug)]
pub(super) struct Recency {
    /// Neighbours of each number in the ring; its own for those that are not in. The first place is the
    /// ring's anchor, number n has place n + 1.
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

const ANCHOR: u32 = 0;

impl Recency {
    pub fn new() -> Self {
        Self { links: vec![Link { before: ANCHOR, after: ANCHOR }] }
    }

    /// Puts a number at the end, wherever it was.
    pub fn push(&mut self, number: u32) {
        self.remove(number);
        let (place, last) = (number + 1, self.links[ANCHOR as usize].before);
        self.links[place as usize] = Link { before: last, after: ANCHOR };
        self.links[last as usize].after = place;
        self.links[ANCHOR as usize].before = place;
    }

    /// Takes a number out, if it is in.
    pub fn remove(&mut self, number: u32) {
        let place = number + 1;
        let known = self.links.len() as u32;
        self.links.extend((known..=place).map(|place| Link { before: place, after: place }));
        let Link { before, after } = self.links[place as usize];
        self.links[before as usize].after = after;
        self.links[after as usize].before = before;
        self.links[place as usize] = Link { before: place, after: place };
    }

    /// The number that has been in longest.
    pub fn first(&self) -> Option<u32> {
        self.links[ANCHOR as usize].after.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_queue_from_which_any_can_leave(
            steps in proptest::collection::vec((0_u32..8, any::<bool>()), 1..100),
        ) {
            let (mut recency, mut model) = (Recency::new(), VecDeque::new());
            for (number, push) in steps {
                model.retain(|other| *other != number);
                if push {
                    recency.push(number);
                    model.push_back(number);
                } else {
                    recency.remove(number);
                }
                prop_assert_eq!(recency.first(), model.front().copied());
            }
        }
    }
}
