//! Whom to have links with, and what the rest of the swarm takes: everybody has a link to everybody where there are few
//! members, and to some neighbours where there are many.
//!
//! Beyond [`MESH_MAX`] members a node has links to those who suit it best by a hash of both ids, which everybody computes
//! alike (rendezvous hashing, Thaler and Ravishankar 1996): a random graph, a few hops wide. Rows of the others come
//! through neighbours, late. They count for the targets only as one sum, looked at once a second: who wants what moves,
//! what all of them want together hardly does. Leases need a link, so whoever lacks more than its neighbours can spare
//! asks for more links.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{FEW_LINKS, Node, Output};
use crate::protocol::gossip::{DELTA_BYTES_MAX, Delta, Page, affinity};
use crate::protocol::id::NodeId;
use crate::protocol::record::{Key, Row};
use crate::protocol::share::Share;
use crate::protocol::target::{Claim, targets};
use crate::protocol::time::Instant;

/// Up to so many members everybody has a link to everybody.
pub const MESH_MAX: usize = 128;
/// So many neighbours a node chooses where there are more; as many choose it.
const NEIGHBOURS: usize = 16;
/// How long after its start a node should have its links.
const LINKED_BY: Duration = Duration::from_secs(5);
/// So many links more a node asks for at a time when it lacks share.
const WIDEN_BY: usize = 8;
/// To so many neighbours news about a member is passed on at once …
const PASSED_ON_TO: usize = 5;
/// … about so many members in this time. More, as when a whole swarm starts, is found by comparing.
const PASSED_ON_MAX: u32 = 16;
/// See [`PASSED_ON_MAX`].
const PASSED_ON_EVERY: Duration = Duration::from_secs(1);

impl Node {
    /// Whether everybody should have a link to everybody.
    pub(super) fn is_mesh(&self) -> bool {
        self.bases.len() <= MESH_MAX
    }

    /// Whether everybody has a link to everybody, and there are many: each page comes from its author, and comparing all of
    /// them with whoever is greeted would be much of what an idle node sends.
    pub(super) fn is_wide_mesh(&self) -> bool {
        self.is_mesh() && self.peers.len() > FEW_LINKS
    }

    /// Has the driver reach a peer if there should be a link to it.
    pub(super) fn reach(&mut self, peer: NodeId, addresses: Vec<String>) {
        if !self.is_mesh() && !self.peers.contains_key(&peer) {
            let rank = (affinity(&self.config.id, &peer), peer);
            self.chosen.insert(rank);
            if self.chosen.len() > NEIGHBOURS && self.chosen.pop_last() == Some(rank) {
                return;
            }
        }
        self.outputs.push_back(Output::Reach(peer, addresses));
    }

    /// Members of a full mesh without a link to this node, once there was time for one.
    pub(super) fn unlinked(&self, now: Instant) -> BTreeSet<NodeId> {
        if now.since(self.started) < LINKED_BY {
            return BTreeSet::new();
        }
        let has_none = |node: &NodeId| *node != self.config.id && !self.peers.contains_key(node);
        let members = self.bases.iter().filter(|(_, base)| **base > Share::ZERO).map(|(node, _)| node);
        if self.is_mesh() {
            members.filter(|node| has_none(node)).copied().collect()
        } else {
            BTreeSet::new()
        }
    }

    /// Passes on what a member has signed for all to a few neighbours, where not everybody hears it from the member itself.
    pub(super) fn pass_on(&mut self, author: NodeId, keys: &[Key], from: NodeId, now: Instant) {
        if keys.is_empty() {
            return;
        }
        if now.since(self.passed_on.0) >= PASSED_ON_EVERY {
            self.passed_on = (now, 0);
        }
        if self.is_mesh() || self.passed_on.1 >= PASSED_ON_MAX {
            return;
        }
        self.passed_on.1 += 1;
        let delta = self.pages.signed(author, keys);
        let links = self.peers.len();
        let first = self.random(links as u64) as usize;
        let stride = (links / PASSED_ON_TO).max(1);
        for (place, (node, peer)) in self.peers.iter_mut().enumerate() {
            let chosen = (place + links - first).is_multiple_of(stride);
            let waiting: usize = peer.deltas.iter().map(Delta::weight).sum();
            let fits = waiting + delta.weight() <= DELTA_BYTES_MAX;
            if chosen && *node != from && *node != author && fits {
                peer.deltas.push(delta.clone());
            }
        }
    }

    /// Asks for links to more members if this node lacks more than its neighbours can spare: as many as its share would
    /// take to be borrowed from.
    pub(super) fn widen(&mut self, target: Share, held: Share, spare: Share, now: Instant) {
        let lacks = target.saturating_sub(held);
        let fair = self.bases.values().copied().sum::<Share>().scale(1, self.bases.len().max(1) as u64);
        let enough = NEIGHBOURS * 2 + (target.0 / fair.0.max(1)) as usize;
        if self.is_mesh()
            || lacks <= spare.max(target.scale(1, 16))
            || now < self.widen_at
            || self.peers.len() >= enough
        {
            return;
        }
        self.widen_at = now + super::ROUND;
        let more = WIDEN_BY.max(self.peers.len() / 2);
        let known: Vec<NodeId> =
            self.reached_at.keys().filter(|node| !self.peers.contains_key(node)).copied().collect();
        for _ in 0..more.min(known.len()) {
            let node = known[self.random(known.len() as u64) as usize];
            let addresses = self.reached_at[&node].clone();
            self.outputs.push_back(Output::Reach(node, addresses));
        }
    }

    /// Once a second: what the nodes without a link to this one take of each limit, and what is left for the others.
    pub(super) fn look_at_rest(&mut self, now: Instant) {
        for place in (0..self.meters.len()).filter(|place| !self.is_vacant(*place)).collect::<Vec<_>>() {
            self.left_by_rest[place] =
                if self.is_mesh() { None } else { Some(self.left_by_rest_of(place, now)) };
        }
    }

    fn left_by_rest_of(&mut self, place: usize, now: Instant) -> Share {
        let own = self.row(place, now);
        let neighbours = self.neighbours(place);
        let plain = |claim: Claim| Claim { lot: Share::ZERO, ..claim };
        let mut claims = vec![plain(self.claim(place, self.config.id, &own))];
        let near = neighbours.iter().map(|peer| plain(self.claim(place, peer.replica.node, &peer.row)));
        claims.extend(near);
        let linked = claims.len();
        let is_near = |node: &NodeId| neighbours.binary_search_by_key(node, |peer| peer.replica.node).is_ok();
        let far = self.rows_of_all(place).filter(|(node, _)| !is_near(node) && *node != self.config.id);
        claims.extend(far.map(|(node, row)| plain(self.claim(place, node, &row))));
        let unknown = self.bases.len().saturating_sub(claims.len());
        if unknown > 0 {
            // As many again as those who are known, on the average.
            let known = claims.len() as u64;
            let demand = std::array::from_fn(|class| {
                let demand: u128 = claims.iter().map(|claim| u128::from(claim.demand[class].0)).sum();
                Share((demand * unknown as u128 / u128::from(known)) as u64)
            });
            let weights = std::array::from_fn(|class| {
                let weight: u64 = claims.iter().map(|claim| u64::from(claim.weights[class])).sum();
                u32::try_from(weight * unknown as u64 / known).unwrap_or(u32::MAX)
            });
            claims.push(Claim { weights, demand, ..claims[0] });
        }
        let total: Share = self.bases.values().copied().sum();
        let rest: Share = targets(total, &claims)[linked..].iter().copied().sum();
        total.saturating_sub(rest)
    }

    /// The newest row of every node that is known, linked or not.
    fn rows_of_all(&self, place: usize) -> impl Iterator<Item = (NodeId, Row)> + '_ {
        let fingerprint = self.meters[place].fingerprint;
        let row = move |(node, page): (&NodeId, &Page)| Some((*node, *page.row(fingerprint)?.0));
        self.pages.iter().filter_map(row)
    }
}
