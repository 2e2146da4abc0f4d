//! Taking back what was vouched: `forget`.
//!
//! A member that is there is asked: the voucher writes how much of its gifts it wants back, ever, and the subject gives it
//! back itself, so that nobody has it twice. From one that is gone it is taken: under `strict` and `majority` that counts up
//! to what this voucher gave ([`ledger`](crate::protocol::ledger)), and its word that the subject is gone is all there is,
//! so if the subject runs on where nobody hears it, both use that share.

use thiserror::Error;

use super::{Node, Phase};
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::ledger::Ledger;
use crate::protocol::record::{Key, Value};
use crate::protocol::share::Share;
use crate::protocol::time::Instant;

/// What came of forgetting a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// It is there, and was asked to give so much back.
    Asked(Share),
    /// It is not there, and so much was taken back: what is left of what this node gave it.
    TakenBack(Share),
}

/// Why a member could not be forgotten. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ForgetError {
    /// This node gave it nothing, or has it back.
    #[error(
        "this node has given it nothing that it did not give back; ask the node that vouched for it (see the ledger)"
    )]
    NothingGiven,
    /// This node is no member itself, or leaves.
    #[error("this node is not a member at the moment; ask again when status says ready")]
    NotReady,
}

impl Node {
    /// Takes back what this node gave to a member, and does not vouch for it by itself again.
    ///
    /// # Errors
    /// If there is nothing to take back, or this node is not [`Phase::Ready`].
    pub fn forget(&mut self, subject: NodeId, now: Instant) -> Result<Forgotten, ForgetError> {
        self.expire(now);
        if self.phase != Phase::Ready {
            return Err(ForgetError::NotReady);
        }
        let me = self.config.id;
        let net = self.ledger.given_net(&me, &subject);
        let Some(gift) = self.ledger.gift(&me, &subject).filter(|_| net > Share::ZERO) else {
            return Err(ForgetError::NothingGiven);
        };
        let total = gift.share;
        self.ledger.merge_revoked(me, subject, total);
        self.pages.publish(Key::Revoked(subject), Value::Share(total), now);
        self.save(false);
        self.peers_should_hear(now);
        let is_there = self.linked().any(|peer| peer.node == subject);
        let done = if is_there {
            Forgotten::Asked(net)
        } else {
            let left = net.min(self.bases.get(&subject).copied().unwrap_or_default());
            self.take_back(subject, left, now);
            Forgotten::TakenBack(left)
        };
        self.finish(now);
        Ok(done)
    }

    /// Everything that is known of the ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Gives back what vouchers want back, as far as it is free.
    pub(super) fn return_revoked(&mut self, now: Instant) {
        let me = self.config.id;
        if self.phase != Phase::Ready {
            return;
        }
        let due = |peer: Replica| {
            let revoked = Some(self.ledger.revoked(&peer.node, &me)).filter(|share| *share > Share::ZERO)?;
            let kept = self.ledger.gift(&peer.node, &me)?.share.saturating_sub(revoked);
            let due = self.ledger.given_net(&peer.node, &me).saturating_sub(kept);
            (due > Share::ZERO).then_some((peer, due))
        };
        for (voucher, due) in self.linked().filter_map(due).collect::<Vec<_>>() {
            self.give(voucher, due, now);
        }
    }

    /// Whether this node wants all its gifts to a member back.
    pub(super) fn is_forgotten(&self, subject: &NodeId) -> bool {
        let revoked = self.ledger.revoked(&self.config.id, subject);
        let gift = || self.ledger.gift(&self.config.id, subject);
        revoked > Share::ZERO && gift().is_some_and(|gift| gift.share <= revoked)
    }
}
