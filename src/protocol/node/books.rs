//! Books of loans at work: signed, heard, and whoever they speak against not borrowed from. See
//! [`loans`](crate::protocol::loans).

use std::collections::BTreeMap;
use std::time::Duration;

use super::Node;
use crate::protocol::audit::Doubt;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::limit::Fingerprint;
use crate::protocol::loans::Book;
use crate::protocol::record::{Key, Value};
use crate::protocol::share::Share;
use crate::protocol::time::Instant;

/// For how many times as long as books are apart a lender is believed without one.
const PATIENCE: u32 = 4;
/// So long, and up to twice, a base share that shrank counts for books that were signed before.
const REMEMBERED: Duration = Duration::from_secs(16);

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
            self.meters[place].hear_book(lender, book, &self.config.id, now);
            // Only now: base shares of long ago are not remembered.
            let overdrawn = self.meters[place].is_overdrawn(&lender.node, self.heights.of(&lender.node));
            self.look_at(lender.node, overdrawn.then_some(Doubt::Overdrawn), now);
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
        // Nothing is borrowed from others.
        let lenders: Vec<NodeId> = self.linked().map(|peer| peer.node).collect();
        lenders.into_iter().for_each(|lender| self.look_at(lender, None, now));
    }

    /// Looks whether something speaks against a lender beside what is known to.
    fn look_at(&mut self, lender: NodeId, known: Option<Doubt>, now: Instant) {
        let patience = self.sign_every() * PATIENCE;
        let is_behind = || self.meters.iter().any(|meter| meter.is_behind(&lender, patience));
        let Some(doubt) = known.or_else(|| is_behind().then_some(Doubt::Behind)) else { return };
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
