//! Vouching by hand: `vouch`, with a weight.
//!
//! A weight says what part of the base shares at hand a member should have: twice as much as another of half its weight. It
//! travels with the gift of whoever vouched, and moves nothing that is not the voucher's own: a voucher gives of what it
//! has, whatever weight it writes. Where members even out with all others (`auto_vouch` of one), the greatest weight by any
//! voucher counts; where they do not, each node heeds its own weights alone.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Node, Phase};
use crate::protocol::id::NodeId;
use crate::protocol::ledger::{GIFTS_MAX, WEIGHT_DEFAULT, WEIGHTS};
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::Instant;

/// Why a member was not vouched for. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VouchError {
    /// This node is no member itself, or leaves.
    #[error("this node is not a member at the moment; ask again when status says ready")]
    NotReady,
    /// It is this node itself.
    #[error("a node cannot vouch for itself; ask the node that vouched for it")]
    Own,
    /// There is no link to it.
    #[error("it is not connected to this node, or it leaves; vouch when `aquifer peers` shows it")]
    NotThere,
    /// Something is held against it.
    #[error("something speaks against it; see `aquifer peers --why`")]
    Accused,
    /// The weight is out of range.
    #[error("weight = {} is out of range; write {} to {}", f64::from(*.0) / 1e3,
        f64::from(*WEIGHTS.start()) / 1e3, f64::from(*WEIGHTS.end()) / 1e3)]
    Weight(u32),
    /// All base share of this node is given away or on loan.
    #[error(
        "this node has no base share to give: all of it is on loan or given away; ask again, or ask another node"
    )]
    NothingFree,
    /// This node has vouched for too many.
    #[error("this node has given to {GIFTS_MAX} members, the most that count; ask another node")]
    TooMany,
}

impl Node {
    /// Vouches for a peer that is there, with a weight in thousandths ([`WEIGHT_DEFAULT`] if nobody said one before): gives
    /// it at once what it lacks of its part, as far as that is free here, and at least one part. Returns how much.
    ///
    /// # Errors
    /// See [`VouchError`].
    pub fn vouch(&mut self, subject: NodeId, weight: Option<u32>, now: Instant) -> Result<Share, VouchError> {
        self.expire(now);
        let peer = self.linked().find(|peer| peer.node == subject);
        let peer = match () {
            () if subject == self.config.id => return Err(VouchError::Own),
            () if self.phase != Phase::Ready => return Err(VouchError::NotReady),
            () if self.audit.is_accused(&subject) => return Err(VouchError::Accused),
            () if !self.may_give_to(&subject) => return Err(VouchError::TooMany),
            () => peer.filter(|_| !self.is_leaving(&subject)).ok_or(VouchError::NotThere)?,
        };
        if let Some(weight) = weight.filter(|weight| !WEIGHTS.contains(weight)) {
            return Err(VouchError::Weight(weight));
        }
        if self.free() == Share::ZERO {
            return Err(VouchError::NothingFree);
        }
        let mut weights = self.weights_heeded();
        weights.extend(weight.map(|weight| (subject, weight)));
        let mut group = self.evens_out_with();
        group.retain(|node| *node != subject);
        group.push(subject);
        let parts = self.fair_parts(&group, &weights);
        let fair = parts.last().copied().unwrap_or_default();
        let has = self.bases.get(&subject).copied().unwrap_or_default();
        // A weight counts with a greater gift only, so there is always one.
        let share = fair.saturating_sub(has).min(self.free()).max(Share(1));
        self.give_weighted(peer, share, weight, now);
        self.finish(now);
        Ok(share)
    }

    /// The weights by which this node evens out base shares, in thousandths.
    pub(super) fn weights_heeded(&self) -> BTreeMap<NodeId, u32> {
        let me = self.config.id;
        let by_me = (self.config.vouching.auto_vouch < ONE).then_some(me);
        self.ledger.weights(by_me)
    }

    /// What each of these nodes should have of all that they have together.
    pub(super) fn fair_parts(&self, nodes: &[NodeId], weights: &BTreeMap<NodeId, u32>) -> Vec<Share> {
        let weight = |node: &NodeId| u64::from(weights.get(node).copied().unwrap_or(WEIGHT_DEFAULT));
        let base = |node: &NodeId| self.bases.get(node).copied().unwrap_or_default();
        let total: Share = nodes.iter().map(base).sum();
        let all: u64 = nodes.iter().map(weight).sum();
        nodes.iter().map(|node| total.scale(weight(node), all)).collect()
    }
}
