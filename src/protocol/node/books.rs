//! Books of loans at work: signed, heard, and whoever they speak against not borrowed from. See
//! [`loans`](crate::protocol::loans).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::rows::sign_every;
use super::sharing::SLOW_ROUND;
use super::{Node, Trust};
use crate::protocol::audit::Doubt;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::limit::Fingerprint;
use crate::protocol::loans::{Book, LATELY};
use crate::protocol::record::{Key, Value};
use crate::protocol::share::Share;
use crate::protocol::time::Instant;

/// For how many times as long as books are apart a lender that is there is believed without one.
const PATIENCE: u32 = 4;
/// So long, and up to twice, a base share that shrank counts for books that were signed before.
const REMEMBERED: Duration = LATELY.saturating_mul(2);

/// The greatest base share that each node had lately, as far as known here.
#[derive(Clone, Debug, Default)]
pub(super) struct Heights {
    recent: BTreeMap<NodeId, Share>,
    before: BTreeMap<NodeId, Share>,
    turned_at: Instant,
}

impl Heights {
    /// These are the base shares now.
    pub(super) fn note(&mut self, bases: &BTreeMap<NodeId, Share>) {
        for (node, base) in bases {
            let height = self.recent.entry(*node).or_default();
            *height = (*height).max(*base);
        }
    }

    fn turn(&mut self, bases: &BTreeMap<NodeId, Share>, now: Instant) {
        if now.since(self.turned_at) >= REMEMBERED {
            self.turned_at = now;
            self.before = std::mem::replace(&mut self.recent, bases.clone());
        }
    }

    fn of(&self, node: &NodeId) -> Share {
        let height = |heights: &BTreeMap<NodeId, Share>| heights.get(node).copied().unwrap_or_default();
        height(&self.recent).max(height(&self.before))
    }
}

impl Node {
    /// Writes down what is lent, to be signed at once.
    pub(super) fn publish_books(&mut self, now: Instant) {
        for place in 0..self.configured_meters() {
            let key = Key::Loans(self.meters[place].fingerprint);
            let own = self.pages.get(&self.config.id).and_then(|page| page.get(&key));
            let signed = if let Some(Value::Loans(book)) = own { Some(book) } else { None };
            if let Some(book) = self.meters[place].book(signed, now) {
                self.pages.publish(key, Value::Loans(book), now);
            }
        }
    }

    /// A lender has signed what it lent.
    pub(super) fn hear_book(&mut self, lender: Replica, limit: Fingerprint, book: &Book, now: Instant) {
        if let Some(place) = self.place_of(limit) {
            let base = self.heights.of(&lender.node);
            if self.meters[place].hear_book(lender, book, &self.config.id, base, now) {
                self.doubt(lender.node, Doubt::Overdrawn, now);
            }
        }
    }

    /// Once a second: who is to be doubted, and who gets another chance.
    pub(super) fn look_at_books(&mut self, now: Instant) {
        self.heights.turn(&self.bases, now);
        let bases = &self.bases;
        self.meters.iter_mut().for_each(|meter| meter.retain_books(|node| bases.contains_key(node)));
        for lender in self.audit.forgive(now) {
            self.meters.iter_mut().for_each(|meter| meter.forgive(&lender));
            self.forget_neighbours();
            self.stale = true;
        }
        let heard_at = |lender: &Replica| self.peers.get(&lender.node).map(|peer| peer.heard_at);
        let is_there = |lender: &Replica| heard_at(lender).is_some_and(|at| now.since(at) < SLOW_ROUND);
        let heard: Vec<Replica> = self.linked().filter(is_there).collect();
        // A lender with more links than this node signs more seldom, but not more seldom than so.
        let patience = sign_every(self.bases.len()) * PATIENCE;
        let mut behind = BTreeSet::new();
        for meter in &mut self.meters {
            heard.iter().for_each(|lender| meter.wait_for_book(lender, now));
            behind.extend(meter.behind(patience));
        }
        behind.into_iter().for_each(|lender| self.doubt(lender, Doubt::Behind, now));
    }

    fn doubt(&mut self, lender: NodeId, doubt: Doubt, now: Instant) {
        if self.audit.doubt(lender, doubt, now) {
            self.notice(format!("{} {doubt}: nothing is borrowed from it for some time", lender.short()));
            self.believe_less(now);
        }
    }

    /// What a lender can have lent, by what is known here.
    pub(super) fn credible_base(&self, lender: &NodeId) -> Share {
        let honest = !self.audit.is_accused(lender);
        self.bases.get(lender).copied().filter(|_| honest).unwrap_or_default()
    }

    /// Members have other base shares than before. Among strangers, those that have more bring no level with it: else one that
    /// was just given some could lend it back as if nothing of it had been spent. How members stood before the ledger was
    /// known is not known, and they are believed to have had their base shares for long.
    pub(super) fn note_gains(&mut self, before: &BTreeMap<NodeId, Share>, now: Instant) {
        if before.is_empty() || self.config.vouching.trust == Trust::Members {
            return;
        }
        for (node, base) in self.bases.iter().filter(|(node, _)| **node != self.config.id) {
            let before = before.get(node).copied().unwrap_or_default();
            if *base > before {
                for meter in &mut self.meters {
                    meter.lender_gains(*node, before, *base, now);
                }
            }
        }
    }

    /// Somebody's word counts for less than before, or its base share is smaller: what is borrowed beyond it goes back.
    pub(super) fn believe_less(&mut self, now: Instant) {
        self.give_back_beyond(now);
        self.forget_neighbours();
        self.stale = true;
    }

    /// Gives back what lenders cannot have lent.
    pub(super) fn give_back_beyond(&mut self, now: Instant) {
        for place in 0..self.meters.len() {
            let lenders = self.meters[place].lenders();
            let base: BTreeMap<_, _> = lenders.map(|lender| (lender, self.credible_base(&lender))).collect();
            for lender in self.meters[place].give_back_beyond(|lender| base[lender], now) {
                if let Some(peer) = self.peers.get_mut(&lender.node) {
                    peer.words.insert(place);
                    peer.tell(now);
                }
            }
        }
    }
}
