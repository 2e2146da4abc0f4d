//! Who goes first where there are not places for all: members before seeds before strangers, and of members who has more.
//!
//! Whoever holds the swarm's key can make up identities, and take with them every place that a node has for links. What
//! it cannot make up is base share. So links are had by rank, and a peer that comes when all places are taken gets that of
//! the lowest one below it. A stranger that stays one makes room for the next, who may be a newcomer.

use std::collections::BTreeMap;

use crate::protocol::id::NodeId;
use crate::protocol::share::Share;

/// The rank of a peer, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Nobody has vouched for it in all the time that it has had a link.
    Outstayed,
    /// Nobody has vouched for it.
    Stranger,
    /// It answered where the operator said that a node is: how a newcomer finds members.
    Seed,
    /// A member with such a base share.
    Member(Share),
}

/// What is known of peers that decides their rank.
#[derive(Debug, Default)]
pub(super) struct Standing {
    members: BTreeMap<NodeId, Share>,
    /// Who answered last, by seed.
    seeds: BTreeMap<usize, NodeId>,
}

impl Standing {
    pub(super) fn set_members(&mut self, members: BTreeMap<NodeId, Share>) {
        self.members = members;
    }

    pub(super) fn set_seed(&mut self, seed: usize, peer: NodeId) {
        self.seeds.insert(seed, peer);
    }

    pub(super) fn rank(&self, peer: NodeId) -> Rank {
        match self.members.get(&peer) {
            Some(base) if *base > Share::ZERO => Rank::Member(*base),
            _ if self.seeds.values().any(|seed| *seed == peer) => Rank::Seed,
            _ => Rank::Stranger,
        }
    }
}
