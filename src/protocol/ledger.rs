//! The ledger: where base shares come from. Founding, vouching, leaving, reclaiming.
//!
//! Every record has one writer, is cumulative and only grows, so that records merge by maximum, in any order. A base
//! share is computed from them as in the bounded counter of Balegas et al. (2015): what came in less what went out.
//! Each writer gives only what it knows to have come in; a view that has not heard of that yet lets the gift wait, so
//! that base shares sum to at most [`ONE`] in every view.
//!
//! Returning a base share is vouching in the other direction, and is written as such.
//!
//! # What a liar can do
//!
//! A record counts for its writer alone, so a liar writes gifts and reclaims of its own, and nothing else:
//! - It gives more than it has: what is not covered waits, whoever it was for.
//! - It takes back: under [`Policy::Strict`] a reclaim of `s` by `v` undoes a gift and no more. It counts up to what `v`
//!   gave to `s` less what `s` gave to `v`.
//!
//! So whoever never had anything from a liar, neither itself nor through others, keeps what it founded with and was
//! given less what it gave, to the part: nothing that the liar writes flows into or out of it. All others together
//! lose at most what liars gave to honest nodes: every part that a gift lacks is missing from one node in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::bounded;
use super::id::{Incarnation, LedgerId, NodeId};
use super::limit::Fingerprint;
use super::policy::Policy;
use super::record::{Key, Value};
use super::share::{ONE, Share};
use flows::Flows;

mod flows;

/// The most limits of which a gift names the level: more than a node [has](super::node::METERS_MAX).
const LEVELS_MAX: usize = 256;

/// What a voucher has given to one subject so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gift {
    /// Parts of base share, ever.
    pub share: Share,
    /// The level that went with them, for one life of the subject.
    pub levels: Option<GiftLevels>,
    /// What part of the base shares at hand the subject should have beside others, in thousandths: one of [`WEIGHTS`], or
    /// zero if the voucher did not say.
    pub weight: u32,
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

/// What a member agrees that another may reclaim of a third (policy `majority`). It is never taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Who may reclaim.
    pub by: NodeId,
    /// Up to how many parts, ever.
    pub share: Share,
    /// The base share that agrees; [`ONE`] by members who know that it was reclaimed, for those who come later.
    pub weight: Share,
}

/// The weight of whoever was given none, in thousandths.
pub const WEIGHT_DEFAULT: u32 = 1_000;
/// The weights that count, in thousandths.
pub const WEIGHTS: RangeInclusive<u32> = 10..=100_000;

/// The most members that one gives to; gifts to further ones do not count.
pub const GIFTS_MAX: usize = 256;
/// The most members that one agrees may reclaim from another; further ones are left out.
pub const LOSSES_MAX: usize = 16;

/// Everything that is known of one ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    founded: BTreeMap<NodeId, Share>,
    /// By voucher and subject.
    given: BTreeMap<(NodeId, NodeId), Gift>,
    /// By who reclaimed, and from whom.
    reclaimed: BTreeMap<(NodeId, NodeId), Share>,
    /// By voucher and subject: what the subject should give back, or has.
    revoked: BTreeMap<(NodeId, NodeId), Share>,
    /// By whom something is reclaimed from, and who agrees; in order of who may reclaim.
    lost: BTreeMap<(NodeId, NodeId), Vec<Loss>>,
    /// What of `reclaimed` a majority was once seen to have agreed to.
    granted: BTreeMap<(NodeId, NodeId), Share>,
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
                id == LedgerId(author) && *share == ONE && self.merge_founded(author, *share)
            }
            (Key::Reclaimed(subject), Value::Share(share)) => self.merge_reclaimed(author, subject, *share),
            (Key::Given(subject), Value::Gift(gift)) => self.merge_given(author, subject, gift),
            (Key::Revoked(subject), Value::Share(share)) => self.merge_revoked(author, subject, *share),
            (Key::Lost(subject), Value::Lost(losses)) => self.merge_lost(author, subject, losses),
            _ => false,
        }
    }

    /// The ledger of founders that are known from the start.
    pub fn founded_by(founders: &BTreeMap<NodeId, Share>) -> Self {
        Self { founded: founders.clone(), ..Self::default() }
    }

    /// Merges that `founder` founded with `share`. True if it is news.
    pub fn merge_founded(&mut self, founder: NodeId, share: Share) -> bool {
        grow(self.founded.entry(founder).or_default(), share)
    }

    /// Merges what `voucher` says that it has given to `subject`. True if it is news.
    pub fn merge_given(&mut self, voucher: NodeId, subject: NodeId, gift: &Gift) -> bool {
        let is_new = !self.given.contains_key(&(voucher, subject));
        if is_new && self.gifts(&voucher).count() >= GIFTS_MAX {
            // Those to the least ids count, in whatever order they are heard of.
            let last = self.gifts(&voucher).last().map(|(subject, _)| subject);
            if last.is_none_or(|last| last < subject) {
                return false;
            }
            self.given.remove(&(voucher, last.unwrap_or(subject)));
        }
        let known = self.given.entry((voucher, subject)).or_default();
        // Levels and weights are only ever written together with more share, so the greater share has the newer ones.
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

    /// Merges how much of its gifts to `subject` `voucher` says that it wants back. True if it is news.
    pub fn merge_revoked(&mut self, voucher: NodeId, subject: NodeId, share: Share) -> bool {
        // Of gifts that do not count nothing comes back.
        self.given.contains_key(&(voucher, subject))
            && grow(self.revoked.entry((voucher, subject)).or_default(), share)
    }

    /// How much of its gifts to `subject` `voucher` wants back, ever.
    pub fn revoked(&self, voucher: &NodeId, subject: &NodeId) -> Share {
        self.revoked.get(&(*voucher, *subject)).copied().unwrap_or_default()
    }

    /// Merges what `author` agrees that others may reclaim from `subject`. True if it is news.
    pub fn merge_lost(&mut self, author: NodeId, subject: NodeId, losses: &[Loss]) -> bool {
        let known = self.lost.entry((subject, author)).or_default();
        let mut news = false;
        for loss in losses {
            match known.binary_search_by_key(&loss.by, |known| known.by) {
                Ok(place) => {
                    let known = &mut known[place];
                    // The weight is that of the greater share; of the same share, the greater.
                    if (loss.share, loss.weight) > (known.share, known.weight) {
                        *known = *loss;
                        news = true;
                    }
                }
                Err(place) => {
                    known.insert(place, *loss);
                    news = known.len() <= LOSSES_MAX || place < LOSSES_MAX;
                    known.truncate(LOSSES_MAX);
                }
            }
        }
        news
    }

    /// Takes note of what majorities have agreed to, by these base shares. What was granted once stays granted. True if
    /// it is news.
    pub fn grant(&mut self, bases: &BTreeMap<NodeId, Share>) -> bool {
        let open = |((by, subject), share): (&(NodeId, NodeId), &Share)| {
            let is_open = self.granted.get(&(*by, *subject)).is_none_or(|granted| granted < share);
            let agreed = is_open && self.agreed(by, subject, *share, bases) > ONE.scale(1, 2);
            agreed.then_some(((*by, *subject), *share))
        };
        let news: Vec<_> = self.reclaimed.iter().filter_map(open).collect();
        let any = !news.is_empty();
        self.granted.extend(news);
        any
    }

    /// The base share that agrees that `by` may reclaim up to `share` from `subject`.
    pub fn agreed(
        &self,
        by: &NodeId,
        subject: &NodeId,
        share: Share,
        bases: &BTreeMap<NodeId, Share>,
    ) -> Share {
        let weight = |(author, loss): (NodeId, &Loss)| {
            let base = bases.get(&author).copied().unwrap_or_default();
            if loss.by == *by && loss.share >= share { loss.weight.min(base) } else { Share::ZERO }
        };
        self.losses(subject).map(weight).sum()
    }

    /// Who agrees to what being reclaimed from `subject`.
    pub fn losses(&self, subject: &NodeId) -> impl Iterator<Item = (NodeId, &Loss)> {
        let all = (*subject, NodeId([0; 32]))..=(*subject, NodeId([u8::MAX; 32]));
        self.lost.range(all).flat_map(|((_, author), losses)| losses.iter().map(|loss| (*author, loss)))
    }

    /// All of whom somebody agreed that something may be reclaimed.
    pub fn lost(&self) -> BTreeSet<NodeId> {
        self.lost.keys().map(|(subject, _)| *subject).collect()
    }

    /// What `author` agrees that others may reclaim from `subject`.
    pub fn losses_by(&self, author: &NodeId, subject: &NodeId) -> &[Loss] {
        self.lost.get(&(*subject, *author)).map_or(&[], Vec::as_slice)
    }

    /// Up to what a majority let `by` reclaim from `subject`.
    pub fn granted_to(&self, by: &NodeId, subject: &NodeId) -> Share {
        self.granted.get(&(*by, *subject)).copied().unwrap_or_default()
    }

    /// What a majority let members reclaim (by, from whom, up to what), as far as it is known.
    pub fn granted(&self) -> impl Iterator<Item = (NodeId, NodeId, Share)> {
        self.granted.iter().map(|((by, subject), share)| (*by, *subject, *share))
    }

    /// What `founder` founded with, if it did.
    pub fn founded(&self, founder: &NodeId) -> Option<Share> {
        self.founded.get(founder).copied()
    }

    /// All that `voucher` has given, by subject.
    pub fn gifts(&self, voucher: &NodeId) -> impl Iterator<Item = (NodeId, &Gift)> {
        let all = (*voucher, NodeId([0; 32]))..=(*voucher, NodeId([u8::MAX; 32]));
        self.given.range(all).map(|((_, subject), gift)| (*subject, gift))
    }

    /// What `voucher` has given to `subject` and neither has back nor took back.
    pub fn given_net(&self, voucher: &NodeId, subject: &NodeId) -> Share {
        let share = |from, to| self.gift(from, to).map_or(Share::ZERO, |gift| gift.share);
        let back = share(subject, voucher) + self.reclaimed(voucher, subject);
        share(voucher, subject).saturating_sub(back)
    }

    /// What weights members were given, in thousandths, by one voucher or, if `by` is none, by any: then the greatest. Those
    /// of gifts that are wanted back do not count.
    pub fn weights(&self, by: Option<NodeId>) -> BTreeMap<NodeId, u32> {
        let mut weights = BTreeMap::new();
        for ((voucher, subject), gift) in &self.given {
            let counts = WEIGHTS.contains(&gift.weight)
                && by.is_none_or(|by| by == *voucher)
                && self.revoked(voucher, subject) < gift.share;
            if counts {
                let weight = weights.entry(*subject).or_insert(gift.weight);
                *weight = gift.weight.max(*weight);
            }
        }
        weights
    }

    /// All that ever came in: what `node` founded with and was given, less what it gave back to those who gave it.
    pub fn income(&self, node: &NodeId) -> Share {
        let vouchers = self.given.keys().filter(|(_, subject)| subject == node).map(|(voucher, _)| voucher);
        self.founded(node).unwrap_or_default() + vouchers.map(|voucher| self.given_net(voucher, node)).sum()
    }

    /// What `voucher` has given to `subject` so far, if anything was ever written.
    pub fn gift(&self, voucher: &NodeId, subject: &NodeId) -> Option<&Gift> {
        self.given.get(&(*voucher, *subject))
    }

    /// What `by` has reclaimed from `subject` so far.
    pub fn reclaimed(&self, by: &NodeId, subject: &NodeId) -> Share {
        self.reclaimed.get(&(*by, *subject)).copied().unwrap_or_default()
    }

    /// Whether anybody has ever reclaimed something from `subject`.
    pub fn was_reclaimed(&self, subject: &NodeId) -> bool {
        self.reclaimed.iter().any(|((_, of), share)| of == subject && *share > Share::ZERO)
    }

    /// Everybody who wrote something that is known here.
    pub fn writers(&self) -> BTreeSet<NodeId> {
        let pairs = self.given.keys().chain(self.reclaimed.keys()).map(|(writer, _)| writer);
        let agreed = self.lost.keys().map(|(_, author)| author);
        self.founded.keys().chain(pairs).chain(agreed).copied().collect()
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
    pub fn bases(&self, policy: Policy) -> BTreeMap<NodeId, Share> {
        let mut flows = Flows::new(self.founded.iter().map(|(node, share)| (*node, *share)));
        for ((voucher, subject), gift) in &self.given {
            flows.give(*voucher, *subject, gift.share);
        }
        match policy {
            Policy::Strict => {
                for ((by, subject), share) in &self.reclaimed {
                    flows.undo(*by, *subject, *share);
                }
            }
            Policy::Majority => {
                flows.take(self.granted());
                for ((by, subject), share) in &self.reclaimed {
                    let granted = self.granted.get(&(*by, *subject)).copied().unwrap_or_default();
                    flows.undo(*by, *subject, share.saturating_sub(granted));
                }
            }
            Policy::Available => {
                flows.take(self.reclaimed.iter().map(|((by, subject), share)| (*by, *subject, *share)));
            }
        }
        flows.balances()
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
        Gift { share: Share(parts), levels: None, weight: 0 }
    }

    #[test]
    fn base_is_what_came_in_less_what_went_out() {
        let mut ledger = Ledger::found(node(1));
        ledger.merge_given(node(1), node(2), &gift(1 << 31));
        ledger.merge_given(node(2), node(3), &gift(1 << 30));
        ledger.merge_given(node(3), node(1), &gift(1 << 29));
        let shares = bases(&ledger);
        assert_eq!(shares[&node(1)], Share(ONE.0 - (1 << 31) + (1 << 29)));
        assert_eq!(shares[&node(2)], Share(1 << 30));
        assert_eq!(shares[&node(3)], Share(1 << 29));
    }

    fn bases(ledger: &Ledger) -> BTreeMap<NodeId, Share> {
        ledger.bases(Policy::Strict)
    }

    #[test]
    fn two_sides_that_reclaim_the_same_share_have_it_once() {
        let mut ledger = Ledger::found(node(1));
        ledger.merge_given(node(1), node(2), &gift(100));
        ledger.merge_reclaimed(node(1), node(2), Share(100));
        ledger.merge_reclaimed(node(3), node(2), Share(100));
        let bases = ledger.bases(Policy::Available);
        assert_eq!(bases.values().copied().sum::<Share>(), ONE);
        assert_eq!(bases[&node(2)], Share::ZERO);
    }

    #[test]
    fn a_reclaim_undoes_a_gift_and_nothing_else() {
        let mut ledger = Ledger::found(node(1));
        ledger.merge_given(node(1), node(2), &gift(1_000));
        ledger.merge_given(node(1), node(3), &gift(100));
        ledger.merge_given(node(2), node(3), &gift(300));
        ledger.merge_given(node(3), node(2), &gift(50));
        ledger.merge_reclaimed(node(4), node(3), Share(1_000));
        ledger.merge_reclaimed(node(3), node(1), Share(1_000));
        assert_eq!(bases(&ledger)[&node(3)], Share(350), "by whoever gave nothing");
        ledger.merge_reclaimed(node(2), node(3), Share(1_000));
        assert_eq!(bases(&ledger)[&node(3)], Share(100), "what the other voucher gave is left");
        assert_eq!(bases(&ledger)[&node(2)], Share(1_000));
    }

    #[test]
    fn the_weight_of_the_latest_gift_counts_until_it_is_wanted_back() {
        let weighted = |parts, weight| Gift { weight, ..gift(parts) };
        let weight = |ledger: &Ledger, by| ledger.weights(by).get(&node(2)).copied();
        let gifts = [weighted(10, 3_000), weighted(20, 500), weighted(30, 500)];
        let mut ledger = Ledger::found(node(1));
        // In any order, and again.
        for place in [1, 0, 2, 1, 0] {
            ledger.merge_given(node(1), node(2), &gifts[place]);
        }
        assert_eq!(weight(&ledger, None), Some(500));
        ledger.merge_given(node(3), node(2), &weighted(1, 2_000));
        assert_eq!((weight(&ledger, None), weight(&ledger, Some(node(1)))), (Some(2_000), Some(500)));
        ledger.merge_revoked(node(3), node(2), Share(1));
        ledger.merge_given(node(3), node(2), &weighted(1, 2_000));
        assert_eq!(weight(&ledger, None), Some(500), "said again after it was wanted back");
        ledger.merge_given(node(3), node(2), &weighted(2, u32::MAX));
        assert_eq!(weight(&ledger, None), Some(500), "no weight at all");
        ledger.merge_given(node(3), node(2), &weighted(3, 4_000));
        assert_eq!(weight(&ledger, None), Some(4_000), "given anew");
    }

    #[test]
    fn amounts_and_circles_of_liars_cost_no_time() {
        let mut ledger = Ledger::found(node(0));
        ledger.merge_given(node(0), node(1), &gift(7));
        for from in 1..=200 {
            for to in 1..=200 {
                ledger.merge_given(node(from), node(to), &gift(u64::MAX - u64::from(from ^ to)));
                ledger.merge_reclaimed(node(to), node(from), Share(u64::MAX));
            }
        }
        for policy in [Policy::Strict, Policy::Available] {
            let bases = ledger.bases(policy);
            assert_eq!(bases.values().copied().sum::<Share>(), ONE);
            assert_eq!(bases[&node(0)], Share(ONE.0 - 7));
        }
    }

    #[test]
    fn a_gift_waits_until_it_is_known_where_it_came_from() {
        let mut ledger = Ledger::found(node(1));
        ledger.merge_given(node(2), node(3), &gift(1 << 30));
        ledger.merge_given(node(3), node(4), &gift(1 << 29));
        let shares = bases(&ledger);
        assert_eq!((shares[&node(1)], shares[&node(3)], shares[&node(4)]), (ONE, Share::ZERO, Share::ZERO));
        ledger.merge_given(node(1), node(2), &gift(1 << 31));
        let shares = bases(&ledger);
        assert_eq!(shares[&node(3)], Share(1 << 29));
        assert_eq!(shares[&node(4)], Share(1 << 29));
        assert_eq!(shares.values().copied().sum::<Share>(), ONE);
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
                let base = ledger.bases(Policy::Available).get(&from).copied().unwrap_or_default();
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
                    ledger.merge_given(from, to, &Gift { share: total, levels: None, weight: 0 });
                    records.push((from, to, total, false));
                }
                prop_assert_eq!(ledger.bases(Policy::Available).values().copied().sum::<Share>(), ONE);
            }
            let mut other = Ledger::found(node(0));
            let turn = turn % records.len().max(1);
            records.rotate_left(turn);
            for (by, subject, total, reclaim) in records.iter().chain(&records) {
                prop_assert_eq!(other.bases(Policy::Available).values().copied().sum::<Share>(), ONE);
                if *reclaim {
                    other.merge_reclaimed(*by, *subject, *total);
                } else {
                    other.merge_given(*by, *subject, &Gift { share: *total, levels: None, weight: 0 });
                }
            }
            prop_assert_eq!(ledger, other);
        }

        #[test]
        fn whoever_has_nothing_from_liars_loses_nothing_to_them_and_the_others_together_only_what_they_gave(
            steps in proptest::collection::vec((0u8..8, 0u8..8, 1u64..1 << 33, any::<bool>()), 0..60),
            lies in proptest::collection::vec((5u8..8, 0u8..10, any::<u64>(), 0..3_u8), 0..40),
            turn in any::<usize>(),
        ) {
            // 0 to 4 are honest and give what they have; 5 to 7 lie, 8 and 9 are made up.
            let is_honest = |node: &NodeId| node.0[0] < 5;
            let mut ledger = Ledger::found(node(0));
            let (mut records, mut bought) = (Vec::new(), Share::ZERO);
            let mut gifts = BTreeSet::new();
            for (from, to, parts, takes_back) in steps {
                let (from, to) = (node(from), node(to));
                if from == to {
                    continue;
                }
                let had = bases(&ledger);
                let of = |node: &NodeId| had.get(node).copied().unwrap_or_default();
                if takes_back && is_honest(&from) {
                    // An honest voucher takes back what is still there.
                    let gift = |from, to| ledger.gift(from, to).map_or(Share::ZERO, |gift| gift.share);
                    let before = ledger.reclaimed(&from, &to);
                    let net = gift(&from, &to).saturating_sub(gift(&to, &from)).saturating_sub(before);
                    let total = before + net.min(of(&to));
                    ledger.merge_reclaimed(from, to, total);
                    records.push((from, to, total, true));
                } else {
                    let share = Share(parts).min(of(&from));
                    let total = ledger.gift(&from, &to).map_or(Share::ZERO, |gift| gift.share) + share;
                    ledger.merge_given(from, to, &gift(total.0));
                    records.push((from, to, total, false));
                    gifts.insert((from, to));
                    bought += if is_honest(&to) && !is_honest(&from) { share } else { Share::ZERO };
                }
            }
            let honest = bases(&ledger);
            let mut tainted: BTreeSet<NodeId> = (5..8).map(node).collect();
            for _ in 0..8 {
                let through = gifts.iter().filter(|(from, _)| tainted.contains(from)).map(|(_, to)| *to);
                tainted = tainted.iter().copied().chain(through).collect();
            }
            for (from, to, parts, kind) in lies {
                let share = Share(if kind == 0 { parts } else { parts >> 32 });
                records.push((node(from), node(to), share, kind == 2));
            }
            let turn = turn % records.len().max(1);
            records.rotate_left(turn);
            let mut lied = Ledger::found(node(0));
            for (by, subject, total, takes_back) in records {
                if takes_back {
                    lied.merge_reclaimed(by, subject, total);
                } else {
                    lied.merge_given(by, subject, &gift(total.0));
                }
                prop_assert_eq!(bases(&lied).values().copied().sum::<Share>(), ONE);
            }
            let lied = bases(&lied);
            let of = |bases: &BTreeMap<NodeId, Share>, node: NodeId| bases.get(&node).copied().unwrap_or_default();
            let mut lost = Share::ZERO;
            for member in (0..5).map(node) {
                let less = of(&honest, member).saturating_sub(of(&lied, member));
                prop_assert!(less == Share::ZERO || tainted.contains(&member), "{member:?} lost {less:?}");
                lost += less;
            }
            prop_assert!(lost <= bought, "lost {lost:?} of {bought:?}");
        }
    }
}
