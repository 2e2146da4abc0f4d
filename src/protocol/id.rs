//! Who is who: nodes, their lives, and the ledger that they belong to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node's public identity: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

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
