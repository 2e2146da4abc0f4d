//! T2: conservation, to the part.

use aquifer::protocol::share::{ONE, Share};

use super::{Property, Violation};
use crate::time::Nanos;

/// The sum of what all nodes run on, kept up to date as each changes.
#[derive(Clone, Debug)]
pub struct Conservation {
    held: Vec<u64>,
    sum: u64,
}

impl Conservation {
    /// Nobody runs on anything yet.
    pub fn new(nodes: usize) -> Self {
        Self { held: vec![0; nodes], sum: 0 }
    }

    /// A node runs on this share from now on; one that is down or stands still spends nothing and runs on none.
    pub fn hold(&mut self, node: usize, share: Share) {
        self.sum = self.sum - self.held[node] + share.0;
        self.held[node] = share.0;
    }

    /// The share that a node runs on.
    pub fn held(&self, node: usize) -> Share {
        Share(self.held[node])
    }

    /// Checks that shares sum to at most the whole, without those of nodes that are `due`: their deadline has come, so
    /// that they end their leases before they do anything else. Looks at single nodes only where the sum is too great.
    ///
    /// # Errors
    /// If they sum to more.
    pub fn check(&self, now: Nanos, due: impl Fn(usize) -> bool) -> Result<(), Violation> {
        if self.sum <= ONE.0 {
            return Ok(());
        }
        let holders = (0..self.held.len()).filter(|node| self.held[*node] > 0);
        let sum: u64 = holders.filter(|node| !due(*node)).map(|node| self.held[node]).sum();
        if sum <= ONE.0 {
            return Ok(());
        }
        let what = format!("nodes run on {sum} parts of {}", ONE.0);
        Err(Violation::new(Property::Conservation, now, what))
    }

    /// Checks base shares as one node sees them.
    ///
    /// # Errors
    /// If they sum to more than the whole.
    pub fn check_bases(node: usize, bases: Share, now: Nanos) -> Result<(), Violation> {
        if bases <= ONE {
            return Ok(());
        }
        let what = format!("base shares are {} parts of {} as node {node} sees it", bases.0, ONE.0);
        Err(Violation::new(Property::Conservation, now, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_too_many_is_seen() {
        let mut check = Conservation::new(3);
        check.hold(0, ONE.scale(1, 2));
        check.hold(1, ONE.scale(1, 2));
        check.check(1, |_| false).unwrap();
        check.hold(2, Share(1));
        assert_eq!(check.check(2, |_| false).unwrap_err().property, Property::Conservation);
        check.check(3, |node| node == 2).expect("the lease of a node that is due is over");
        check.hold(0, ONE.scale(1, 2) - Share(1));
        check.check(4, |_| false).unwrap();
        assert_eq!(check.held(2), Share(1));
    }

    #[test]
    fn base_shares_of_more_than_the_whole_are_seen() {
        Conservation::check_bases(1, ONE, 0).unwrap();
        let violation = Conservation::check_bases(1, ONE + Share(1), 7).unwrap_err();
        assert!(violation.what.ends_with("as node 1 sees it") && violation.at == 7);
    }
}
