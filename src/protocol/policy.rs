//! What a swarm agrees on beside its limits: what becomes of the base share of a member that vanished, who founds, and
//! how far members are believed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::id::{LedgerId, NodeId};
use super::share::{ONE, Share};

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

impl Policy {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Majority => "majority",
            Self::Available => "available",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far what others say of their demand counts here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// In full: classes and weights count across nodes.
    #[default]
    Members,
    /// As far as this node does not use its own: it never lends below what its own demand wants of its own base share,
    /// whatever others claim.
    Weight,
}

/// Whom base shares come from and go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouching {
    /// Who founds with how much, the same on all nodes; together at most [`ONE`]. If nobody is named, the first node
    /// founds with the whole.
    pub founders: BTreeMap<NodeId, Share>,
    /// The greatest part of all that ever came in that is given to those who joined through this node with the token.
    pub auto_vouch: Share,
    /// How far the others' claims count.
    pub trust: Trust,
}

impl Default for Vouching {
    /// The first node founds, everybody gets as much as everybody else, and is believed.
    fn default() -> Self {
        Self { founders: BTreeMap::new(), auto_vouch: ONE, trust: Trust::Members }
    }
}

impl Vouching {
    /// The ledger of the founders that are named: a hash of them, so that nodes which name others do not mix.
    pub fn ledger(&self) -> Option<LedgerId> {
        if self.founders.is_empty() {
            return None;
        }
        let mut hash = Sha256::new_with_prefix(b"aquifer founders 1");
        for (founder, share) in &self.founders {
            hash.update(founder.0);
            hash.update(share.0.to_be_bytes());
        }
        Some(LedgerId(NodeId(hash.finalize().into())))
    }
}
