//! T3: nobody moves another's counter, and no counter shrinks.

use super::{Property, Violation};
use crate::time::Nanos;

/// What every life of every node really admitted, and what is said of it.
///
/// Of what was admitted and given back a node may count any part: counters only grow, so it counts what is taken next less
/// instead, and keeps what is left of that to itself.
#[derive(Clone, Debug)]
pub struct Counters {
    /// By node, and then by its life, the first of which is 1.
    admitted: Vec<Vec<u64>>,
    /// Units of the present life that were or will be given back.
    refunded: Vec<u64>,
    /// The most that a node said of its present life.
    said: Vec<u64>,
    /// The most that a node, in its present life, has seen of all together.
    seen: Vec<u128>,
    total: u128,
}

impl Counters {
    /// Nobody has lived yet.
    pub fn new(nodes: usize) -> Self {
        Self {
            admitted: vec![Vec::new(); nodes],
            refunded: vec![0; nodes],
            said: vec![0; nodes],
            seen: vec![0; nodes],
            total: 0,
        }
    }

    /// A node begins its next life.
    pub fn begin(&mut self, node: usize) {
        self.admitted[node].push(0);
        (self.refunded[node], self.said[node], self.seen[node]) = (0, 0, 0);
    }

    /// A node admitted so many units, `refund` of which may be given back.
    pub fn admit(&mut self, node: usize, units: u64, refund: u64) {
        self.refunded[node] += refund;
        *self.admitted[node].last_mut().expect("BUG! admitted before it lived") += units;
        self.total += u128::from(units);
    }

    /// A node says how much it has admitted in its present life.
    ///
    /// # Errors
    /// If that is less than it said before, or more than it admitted.
    pub fn say(&mut self, node: usize, used: u64, now: Nanos) -> Result<(), Violation> {
        if used < self.said[node] {
            let what = format!("node {node} says that it admitted {used} after it said {}", self.said[node]);
            return Err(Violation::new(Property::Counters, now, what));
        }
        self.said[node] = used;
        self.pass_on(node, self.admitted[node].len() as u64, used, now)
    }

    /// Somebody says how much a life of a node has admitted.
    ///
    /// # Errors
    /// If that is more than it did.
    pub fn pass_on(&self, node: usize, life: u64, used: u64, now: Nanos) -> Result<(), Violation> {
        let place = usize::try_from(life).unwrap_or(usize::MAX).wrapping_sub(1);
        let admitted = self.admitted.get(node).and_then(|lives| lives.get(place)).copied().unwrap_or(0);
        if used <= admitted {
            return Ok(());
        }
        let what =
            format!("life {life} of node {node} is said to have admitted {used}, and admitted {admitted}");
        Err(Violation::new(Property::Counters, now, what))
    }

    /// A node knows the page of another as of this life and version, and the page itself is at that.
    ///
    /// # Errors
    /// If it knows more than there is: somebody else wrote it.
    pub fn page(
        &self,
        node: usize,
        author: usize,
        known: Option<(u64, u64)>,
        own: Option<(u64, u64)>,
        now: Nanos,
    ) -> Result<(), Violation> {
        if known <= own {
            return Ok(());
        }
        let what =
            format!("node {node} knows the page of node {author} as of {known:?}, and it is at {own:?}");
        Err(Violation::new(Property::Counters, now, what))
    }

    /// The most that a node, in its present life, was seen to count of all together.
    pub fn seen(&self, node: usize) -> u128 {
        self.seen[node]
    }

    /// A node's own counter shows `own`, and all together in its view `all`.
    ///
    /// # Errors
    /// If the former is more than it admitted in this life, or less than is not given back; or the latter has shrunk or is more than was ever admitted.
    pub fn see(&mut self, node: usize, own: u64, all: u128, now: Nanos) -> Result<(), Violation> {
        let admitted = self.admitted[node].last().copied().unwrap_or(0);
        if own > admitted || own + self.refunded[node] < admitted {
            let what = format!("node {node} counts {own} of its own, and admitted {admitted}");
            return Err(Violation::new(Property::Counters, now, what));
        }
        if all < self.seen[node] || all > self.total {
            let (seen, total) = (self.seen[node], self.total);
            let what = format!("node {node} counts {all} of all, after {seen}; {total} were admitted");
            return Err(Violation::new(Property::Counters, now, what));
        }
        self.seen[node] = all;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> Counters {
        let mut check = Counters::new(2);
        check.begin(0);
        check.begin(1);
        check.admit(0, 5, 0);
        check.say(0, 3, 1).unwrap();
        check.say(0, 5, 2).unwrap();
        check.see(0, 5, 5, 3).unwrap();
        check.see(1, 0, 3, 4).unwrap();
        assert_eq!((check.seen(0), check.seen(1)), (5, 3));
        check
    }

    #[test]
    fn a_node_that_counts_what_it_admitted_is_right() {
        let mut check = history();
        check.begin(0);
        check.say(0, 0, 5).expect("another life counts from zero");
        check.pass_on(0, 1, 5, 6).expect("the former life counts for ever");
        check.admit(1, 1, 0);
        check.see(1, 1, 6, 7).unwrap();
    }

    #[test]
    fn what_was_given_back_may_be_counted_or_not() {
        let mut check = history();
        check.admit(0, 4, 3);
        for own in 6..=9 {
            check.see(0, own, 9, 5).unwrap();
        }
        assert!(check.see(0, 5, 9, 5).is_err() && check.see(0, 10, 9, 5).is_err());
    }

    #[test]
    fn every_wrong_count_is_seen() {
        assert!(history().say(0, 4, 9).is_err(), "shrinks");
        assert!(history().say(0, 6, 9).is_err(), "more than admitted");
        assert!(history().pass_on(0, 1, 6, 9).is_err(), "another moves it");
        assert!(history().pass_on(0, 2, 1, 9).is_err(), "a life that never was");
        assert!(history().pass_on(7, 1, 1, 9).is_err(), "a node that never was");
        assert!(history().page(0, 1, Some((1, 8)), Some((1, 7)), 9).is_err(), "another wrote the page");
        assert!(history().see(0, 4, 5, 9).is_err(), "its own is another");
        assert!(history().see(1, 0, 2, 9).is_err(), "the total shrinks");
        assert!(history().see(1, 0, 6, 9).is_err(), "the total is too great");
    }
}
