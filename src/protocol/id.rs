//! Who is who: nodes, their lives, and the ledger that they belong to.

use std::cmp::Ordering;
use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// A node's public identity: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

// In the order of the bytes, as derived, but eight at a time: maps by node are looked up many times for each message, and
// the first eight bytes of two keys differ.
impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        let word = |bytes: &[u8; 32], place: usize| {
            u64::from_be_bytes(bytes[place..place + 8].try_into().expect("BUG! eight bytes are eight"))
        };
        let compare = |place| word(&self.0, place).cmp(&word(&other.0, place));
        compare(0).then_with(|| compare(8)).then_with(|| compare(16)).then_with(|| compare(24))
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Which life of a node: every start has a greater number than all starts before it.
///
/// A restarted node counts from zero again, and a grow-only counter must never be asked to shrink, so the
/// life is part of the counter's actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// One life of one node: the actor of every counter and the party of every lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// Whose life.
    pub node: NodeId,
    /// Which of them.
    pub incarnation: Incarnation,
}

impl Replica {
    /// All lives of one node.
    pub fn lives_of(node: NodeId) -> RangeInclusive<Self> {
        let life = |incarnation| Self { node, incarnation: Incarnation(incarnation) };
        life(0)..=life(u64::MAX)
    }
}

/// The swarm's book, named after the node that founded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LedgerId(pub NodeId);

impl NodeId {
    /// The first eight hexadecimal digits: enough for people to tell nodes apart.
    pub fn short(&self) -> String {
        self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node.short(), self.incarnation.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_ordered_as_their_bytes(one in any::<[u8; 32]>(), mut other in any::<[u8; 32]>(), same in 0..33_usize) {
            other[..same].copy_from_slice(&one[..same]);
            prop_assert_eq!(NodeId(one).cmp(&NodeId(other)), one.cmp(&other));
        }
    }
}
