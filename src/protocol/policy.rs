//! What becomes of the base share of a member that vanished: the promise that a swarm makes in a partition.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What happens to the base share of a member that vanished. The same on all nodes of a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It stays reserved until the member returns, or whoever vouched for it takes that back. The limit holds in every
    /// partition, and nobody can take what it did not give.
    Strict,
    /// Members that hold more than half of all base shares take it after `forget_after`; a node that they do not hear
    /// has stopped before. See [`node`](super::node)'s majority.
    Majority,
    /// Any side takes it after `forget_after`. Separated sides can then exceed the limit together, and a member that lies
    /// can take the shares of others.
    Available,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Majority => "majority",
            Self::Available => "available",
        })
    }
}
