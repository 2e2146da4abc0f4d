//! Who came first, of numbers that can leave from anywhere: a doubly linked list through the places of a vector.

/// Some of the numbers below a bound, in the order in which they came in. Every operation takes O(1).
#[derive(Clone, Debug)]
pub(super) struct Recency {
    /// Neighbours of each number in the ring; its own for those that are not in.
    links: Vec<Link>,
    /// Where the ring begins and ends. Beside the others, so that numbers below a power of two fill theirs.
    anchor: Link,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

const ANCHOR: u32 = u32::MAX;

impl Recency {
    pub fn new() -> Self {
        Self { links: Vec::new(), anchor: Link { before: ANCHOR, after: ANCHOR } }
    }

    /// Puts a number at the end, wherever it was.
    pub fn push(&mut self, number: u32) {
        let last = self.anchor.before;
        if last == number {
            return;
        }
        self.remove(number);
        self.links[number as usize] = Link { before: last, after: ANCHOR };
        self.link(last).after = number;
        self.anchor.before = number;
    }

    /// Takes a number out, if it is in.
    pub fn remove(&mut self, number: u32) {
        let known = self.links.len() as u32;
        if known <= number {
            self.links.extend((known..=number).map(|number| Link { before: number, after: number }));
            return;
        }
        let Link { before, after } = self.links[number as usize];
        if before == number {
            return;
        }
        self.link(before).after = after;
        self.link(after).before = before;
        self.links[number as usize] = Link { before: number, after: number };
    }

    /// The number that came in last.
    pub fn last(&self) -> Option<u32> {
        Some(self.anchor.before).filter(|last| *last != ANCHOR)
    }

    /// The number that has been in longest.
    pub fn first(&self) -> Option<u32> {
        Some(self.anchor.after).filter(|first| *first != ANCHOR)
    }

    fn link(&mut self, number: u32) -> &mut Link {
        if number == ANCHOR { &mut self.anchor } else { &mut self.links[number as usize] }
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
                prop_assert_eq!((recency.first(), recency.last()), (model.front().copied(), model.back().copied()));
            }
        }
    }
}
