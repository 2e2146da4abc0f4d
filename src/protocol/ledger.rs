//! The ledger: where base shares come from. Founding, vouching, leaving, reclaiming.
//!
//! Every record has one writer, is cumulative and only grows, so that records merge by maximum, in any order. A base
//! share is computed from them as in the bounded counter of Balegas et al. (2015): what came in less what went out.
//! Each writer gives only what it knows to have come in; a view that has not heard of that yet lets the gift wait, so
//! that base shares sum to at most [`ONE`] in every view.
//!
//! Returning a base share is vouching in the other direction, and is written as such.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::bounded;
use super::id::{Incarnation, LedgerId, NodeId};
use super::limit::Fingerprint;
use super::record::{Key, Value};
use super::share::{ONE, Share};

/// The most limits of which a gift names the level: more than a node [has](super::node::METERS_MAX).
const LEVELS_MAX: usize = 256;

/// What a voucher has given to one subject so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gift {
    /// Parts of base share, ever.
    pub share: Share,
    /// The level that went with them, for one life of the subject.
    pub levels: Option<GiftLevels>,
}

/// The level that went with gifts. It is for one life of the subject only: a restarted subject starts empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiftLevels {
    /// The life of the voucher that wrote this.
    pub from: Incarnation,
    /// The life of the subject that may use it.
    pub to: Incarnation,
    /// Atoms given between these two lives so far, by limit. Wraps: only differences are used.
    #[serde(deserialize_with = "bounded::list::<_, _, LEVELS_MAX>")]
    pub atoms: Vec<(Fingerprint, u128)>,
}

/// Everything that is known of one ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    founded: BTreeMap<NodeId, Share>,
    given: BTreeMap<(NodeId, NodeId), Gift>,
    reclaimed: BTreeMap<(NodeId, NodeId), Share>,
}

impl Ledger {
    /// The ledger of a new swarm: its founder has the whole.
    pub fn found(founder: NodeId) -> Self {
        Self { founded: BTreeMap::from([(founder, ONE)]), ..Self::default() }
    }

    /// Writes what the author of a record says in the book with this name. True if it is news.
    pub fn merge(&mut self, id: LedgerId, author: NodeId, key: Key, value: &Value) -> bool {
        match (key, value) {
            (Key::Founded, Value::Share(share)) => {
                id == LedgerId(author) && *share <= ONE && self.merge_founded(author, *share)
            }
            (Key::Reclaimed(subject), Value::Share(share)) => self.merge_reclaimed(author, subject, *share),
            (Key::Given(subject), Value::Gift(gift)) => self.merge_given(author, subject, gift),
            _ => false,
        }
    }

    /// Merges that `founder` founded with `share`. True if it is news.
    pub fn merge_founded(&mut self, founder: NodeId, share: Share) -> bool {
        grow(self.founded.entry(founder).or_default(), share)
    }

    /// Merges what `voucher` says that it has given to `subject`. True if it is news.
    pub fn merge_given(&mut self, voucher: NodeId, subject: NodeId, gift: &Gift) -> bool {
        let is_new = !self.given.contains_key(&(voucher, subject));
        let known = self.given.entry((voucher, subject)).or_default();
        // Levels are only ever written together with more share, so the greater share has the newer levels.
        let news = is_new || gift.share > known.share;
        if news {
            known.clone_from(gift);
        }
        news
    }

    /// Merges what `by` says that it has reclaimed from `subject`. True if it is news.
    pub fn merge_reclaimed(&mut self, by: NodeId, subject: NodeId, share: Share) -> bool {
        grow(self.reclaimed.entry((by, subject)).or_default(), share)
    }

    /// What `founder` founded with, if it did.
    pub fn founded(&self, founder: &NodeId) -> Option<Share> {
        self.founded.get(founder).copied()
    }

    /// What `voucher` has given to `subject` so far, if anything was ever written.
    pub fn gift(&self, voucher: &NodeId, subject: &NodeId) -> Option<&Gift> {
        self.given.get(&(*voucher, *subject))
    }

    /// What `by` has reclaimed from `subject` so far.
    pub fn reclaimed(&self, by: &NodeId, subject: &NodeId) -> Share {
        self.reclaimed.get(&(*by, *subject)).copied().unwrap_or_default()
    }

    /// Everybody who wrote something that is known here.
    pub fn writers(&self) -> BTreeSet<NodeId> {
        let pairs = self.given.keys().chain(self.reclaimed.keys()).map(|(writer, _)| writer);
        self.founded.keys().chain(pairs).copied().collect()
    }

    /// All that `writer` wrote of gifts and reclaims, to publish it again after a restart.
    pub fn written_by(
        &self,
        writer: NodeId,
    ) -> (impl Iterator<Item = (NodeId, &Gift)>, impl Iterator<Item = (NodeId, Share)>) {
        let pairs = (writer, NodeId([0; 32]))..=(writer, NodeId([u8::MAX; 32]));
        let (given, reclaimed) = (self.given.range(pairs.clone()), self.reclaimed.range(pairs));
        (
            given.map(|((_, subject), gift)| (*subject, gift)),
            reclaimed.map(|((_, subject), share)| (*subject, *share)),
        )
    }

    /// Whether anybody has vouched for `node`, or it founded.
    pub fn is_member(&self, node: &NodeId) -> bool {
        self.founded.contains_key(node) || self.given.keys().any(|(_, subject)| subject == node)
    }

    /// All members, each with its base share. They sum to at most [`ONE`].
    ///
    /// Where two sides of a partition both reclaimed the share of the same node (policy `available`), only as much
    /// counts as that node had; every view that has heard the same records decides alike.
    pub fn bases(&self) -> BTreeMap<NodeId, Share> {
        let mut balance: BTreeMap<NodeId, i128> =
            self.founded.iter().map(|(node, share)| (*node, i128::from(share.0))).collect();
        for ((voucher, subject), gift) in &self.given {
            *balance.entry(*subject).or_default() += i128::from(gift.share.0);
            *balance.entry(*voucher).or_default() -= i128::from(gift.share.0);
        }
        // What flowed from one to another: gifts in full, reclaims as far as there was something.
        let mut flows: Vec<(NodeId, NodeId, i128)> =
            self.given.iter().map(|((from, to), gift)| (*from, *to, i128::from(gift.share.0))).collect();
        let mut open: Vec<_> = self
            .reclaimed
            .iter()
            .map(|((by, subject), share)| (*by, *subject, i128::from(share.0)))
            .collect();
        // A reclaimed share can itself be reclaimed, in any order of ids: repeat until nothing moves.
        for _ in 0..=self.reclaimed.len() {
            let mut moved = false;
            for (by, subject, left) in &mut open {
                let had = balance.get(subject).copied().unwrap_or(0).max(0);
                let taken = had.min(*left);
                if taken > 0 {
                    *balance.entry(*subject).or_default() -= taken;
                    *balance.entry(*by).or_default() += taken;
                    *left -= taken;
                    flows.push((*subject, *by, taken));
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let_wait(&mut balance, &mut flows);
        balance
            .into_iter()
            .map(|(node, parts)| (node, Share(u64::try_from(parts.max(0)).unwrap_or(0))))
            .collect()
    }
}

/// Undoes what flowed from nodes that are not known to have had it, the latest first, until nobody has less than
/// nothing. A node's own base share never comes out too great in its own view: it knows all that it gave, and here its
/// balance grows up to zero at most.
fn let_wait(balance: &mut BTreeMap<NodeId, i128>, flows: &mut [(NodeId, NodeId, i128)]) {
    while let Some((poor, lack)) =
        balance.iter().find(|(_, parts)| **parts < 0).map(|(node, parts)| (*node, -parts))
    {
        // More went out of it than came in, so there is one.
        let Some((_, to, parts)) = flows.iter_mut().rfind(|(from, _, parts)| *from == poor && *parts > 0)
        else {
            return;
        };
        let waits = lack.min(*parts);
        *parts -= waits;
        *balance.entry(*to).or_default() -= waits;
        *balance.entry(poor).or_default() += waits;
    }
}

fn grow(known: &mut Share, share: Share) -> bool {
    let news = share > *known;
    *known = share.max(*known);
    news
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: u8) -> NodeId {
        NodeId([id; 32])
    }

    fn gift(parts: u64) -> Gift {
        Gift { share: Share(parts), levels: None }
    }

    #[test]
    fn base_is_what_came_in_less_what_went_out() {
        let mut ledger = Ledger::found(node(1));
        ledger.merge_given(node(1), node(2), &gift(1 << 31));
        ledger.merge_given(node(2), node(3), &gift(1 << 30));
        ledger.merge_given(node(3), node(1), &gift(1 << 29));
        let bases = ledger.bases();
        assert_eq!(bases[&node(1)], Share(ONE.0 - (1 << 31) + (1 << 29)));
        assert_eq!(bases[&node(2)], Share(1 << 30));
        assert_eq!(bases[&node(3)], Share(1 << 29));
    }

    #[test]
    fn two_sides_that_reclaim_the_same_share_have_it_once() {
        let mut ledger = Ledger::found(node(1));
        ledger.merge_given(node(1), node(2), &gift(100));
        ledger.merge_reclaimed(node(1), node(2), Share(100));
        ledger.merge_reclaimed(node(3), node(2), Share(100));
        let bases = ledger.bases();
        assert_eq!(bases.values().copied().sum::<Share>(), ONE);
        assert_eq!(bases[&node(2)], Share::ZERO);
    }

    #[test]
    fn a_gift_waits_until_it_is_known_where_it_came_from() {
        let mut ledger = Ledger::found(node(1));
        ledger.merge_given(node(2), node(3), &gift(1 << 30));
        ledger.merge_given(node(3), node(4), &gift(1 << 29));
        let bases = ledger.bases();
        assert_eq!((bases[&node(1)], bases[&node(3)], bases[&node(4)]), (ONE, Share::ZERO, Share::ZERO));
        ledger.merge_given(node(1), node(2), &gift(1 << 31));
        let bases = ledger.bases();
        assert_eq!(bases[&node(3)], Share(1 << 29));
        assert_eq!(bases[&node(4)], Share(1 << 29));
        assert_eq!(bases.values().copied().sum::<Share>(), ONE);
    }

    #[test]
    fn a_gift_of_nothing_makes_a_member() {
        let mut ledger = Ledger::found(node(1));
        assert!(ledger.merge_given(node(1), node(2), &gift(0)));
        assert!(!ledger.merge_given(node(1), node(2), &gift(0)));
        assert!(ledger.is_member(&node(2)) && !ledger.is_member(&node(3)));
    }

    proptest! {
        #[test]
        fn merges_in_any_order_and_mints_nothing(
            steps in proptest::collection::vec((0u8..5, 0u8..5, 1u64..1 << 20, any::<bool>()), 0..40), turn in any::<usize>(),
        ) {
            // A history in which everybody gives only what it has.
            let mut ledger = Ledger::found(node(0));
            let mut records = Vec::new();
            for (from, to, parts, reclaim) in steps {
                let (from, to) = (node(from), node(to));
                let base = ledger.bases().get(&from).copied().unwrap_or_default();
                let parts = Share(parts).min(base);
                if from == to || parts == Share::ZERO {
                    continue;
                }
                if reclaim {
                    let total = ledger.reclaimed(&to, &from) + parts;
                    ledger.merge_reclaimed(to, from, total);
                    records.push((to, from, total, true));
                } else {
                    let total = ledger.gift(&from, &to).map_or(Share::ZERO, |gift| gift.share) + parts;
                    ledger.merge_given(from, to, &Gift { share: total, levels: None });
                    records.push((from, to, total, false));
                }
                prop_assert_eq!(ledger.bases().values().copied().sum::<Share>(), ONE);
            }
            let mut other = Ledger::found(node(0));
            let turn = turn % records.len().max(1);
            records.rotate_left(turn);
            for (by, subject, total, reclaim) in records.iter().chain(&records) {
                prop_assert_eq!(other.bases().values().copied().sum::<Share>(), ONE);
                if *reclaim {
                    other.merge_reclaimed(*by, *subject, *total);
                } else {
                    other.merge_given(*by, *subject, &Gift { share: *total, levels: None });
                }
            }
            prop_assert_eq!(ledger, other);
        }
    }
}
