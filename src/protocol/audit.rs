//! What is held against peers: proof that one lies, kept, shown and passed on.
//!
//! A node signs what it says of itself, in an order that it numbers itself. Two records of one name contradict each other
//! if no honest author can have written both: two values with one number, or a grow-only count that is less in the later
//! one. Such a pair proves its author's lie to anybody, whoever shows it, and proves nothing against anybody else: no
//! honest node can be convicted, whatever others say. What a node has only seen itself, a link that brought a forged
//! record, is held against the peer by this node alone.
//!
//! With whom something is held against there are no loans, in neither direction, and no gifts; what it has borrowed ends
//! within a lease's time. Its base share stays its own: whoever vouched for it can take that back.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gossip::Record;
use super::id::{LedgerId, NodeId};
use super::loans::ShareTime;
use super::record::{Key, Value};
use super::share::ONE;
use super::signature::Keys;
use super::time::Instant;

/// The most peers against whom something is held.
const ACCUSED_MAX: usize = 1_024;

/// Two records that their author has signed and cannot both have meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contradiction {
    /// The one with the smaller number.
    pub first: Box<Record>,
    /// The other.
    pub second: Box<Record>,
}

/// What a contradiction shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It told two nodes different things under one number.
    Fork,
    /// It took back what it had admitted.
    UsedLess,
    /// It took back what it had given or reclaimed.
    GaveLess,
    /// It lent the same share twice, or took back what it had said of its loans.
    LentTwice,
}

impl Contradiction {
    /// What two records of one name and author show, if they contradict each other.
    pub fn between(one: &Record, other: &Record) -> Option<(Self, Lie)> {
        let number = |record: &Record| (record.incarnation, record.version);
        // The signatures decide nothing but that all pairs are written alike.
        let place = |record: &Record| (number(record), record.signature);
        let (first, second) = if place(one) <= place(other) { (one, other) } else { (other, one) };
        let lie = if first.key != second.key || first.value == second.value {
            None
        } else if number(first) == number(second) {
            Some(Lie::Fork)
        } else if first.key.is_record() {
            let less = match (&first.value, &second.value) {
                // A list that is full leaves some out.
                (Value::Lost(before), Value::Lost(after)) => before
                    .iter()
                    .any(|loss| after.iter().any(|later| later.by == loss.by && later.share < loss.share)),
                (before, after) => after.parts() < before.parts(),
            };
            less.then_some(Lie::GaveLess)
        } else {
            match (&first.value, &second.value) {
                // Another life counts from zero again.
                (Value::Row(before), Value::Row(after)) if first.incarnation == second.incarnation => {
                    (after.used < before.used).then_some(Lie::UsedLess)
                }
                (Value::Loans(before), Value::Loans(after)) if first.incarnation == second.incarnation => {
                    before.contradicts(after).then_some(Lie::LentTwice)
                }
                _ => None,
            }
        };
        let pair = || Self { first: Box::new(first.clone()), second: Box::new(second.clone()) };
        lie.map(|lie| (pair(), lie))
    }

    /// What it proves against `accused`; none if the records do not contradict each other or it has not signed both.
    pub fn proves(&self, accused: NodeId, ledger: LedgerId, keys: &dyn Keys) -> Option<Lie> {
        let (_, lie) = Self::between(&self.first, &self.second)?;
        let signed = |record: &Record| record.is_signed_by(accused, ledger, keys);
        (signed(&self.first) && signed(&self.second)).then_some(lie)
    }
}

/// Why nothing is borrowed from a peer for now: what its books of [`loans`](super::loans) say, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// They claim that more was its own than its base share by the ledger.
    Overdrawn,
    /// They do not show what it lent to this node, or there are none.
    Behind,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overdrawn => "counts on more base share than it has by the ledger",
            Self::Behind => "signs no books that show what it lends to this node",
        })
    }
}

/// What is held against one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// Proof that it lied.
    pub contradiction: Option<(Contradiction, Lie)>,
    /// How many messages it sent with records that their authors have not signed.
    pub forged: u64,
    /// Who told of the contradiction; this node itself if it found it.
    pub told_by: Option<NodeId>,
}

impl Case {
    /// In words, one line for each thing.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some((Contradiction { first, second }, lie)) = &self.contradiction {
            let life = first.incarnation.0;
            let (from, to) = (first.version, second.version);
            reasons.push(match (lie, &first.value, &second.value) {
                (Lie::UsedLess, Value::Row(before), Value::Row(after)) => format!(
                    "signed that it had admitted {} (life {life}, version {from}), later only {} (version {to})",
                    before.used, after.used
                ),
                (Lie::GaveLess, before, after) => format!(
                    "signed {} parts of {} (version {from}), later only {} (version {to})",
                    before.parts(),
                    name_of(&first.key),
                    after.parts()
                ),
                (Lie::LentTwice, Value::Loans(before), Value::Loans(after)) => {
                    let share = |time: ShareTime| {
                        let clock = after.clock.since(before.clock).as_nanos().max(1);
                        time as f64 / clock as f64 / ONE.0 as f64
                    };
                    format!(
                        "lent {:.4} of all where it had {:.4} (life {life}, versions {from} to {to})",
                        share(after.total().saturating_sub(before.total())),
                        share(after.own.saturating_sub(before.own)),
                    )
                }
                _ => format!(
                    "signed two different values of {} as version {from} of its life {life}",
                    name_of(&first.key)
                ),
            });
        }
        if self.forged > 0 {
            reasons.push(format!("passed on forged records in {} messages", self.forged));
        }
        reasons
    }
}

fn name_of(key: &Key) -> String {
    match key {
        Key::Given(subject) => format!("what it gave to {}", subject.short()),
        Key::Reclaimed(subject) => format!("what it reclaimed from {}", subject.short()),
        Key::Row(_) | Key::KeyRow(_) => "how it stands with a limit".to_owned(),
        Key::Loans(_) => "what it lent of a limit".to_owned(),
        Key::Profile => "who it is".to_owned(),
        Key::Pause(..) => "a pause".to_owned(),
        _ => "its page".to_owned(),
    }
}

/// For how long a peer is doubted, the first time; each time for twice as long, …
const DOUBT_MIN: Duration = Duration::from_secs(16);
/// … but not after so many times: 68 minutes.
const DOUBLED_MAX: u32 = 8;

#[derive(Clone, Copy, Debug)]
struct Doubted {
    doubt: Doubt,
    times: u32,
    until: Instant,
    lasts: bool,
}

/// The cases of all peers.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    cases: BTreeMap<NodeId, Case>,
    doubts: BTreeMap<NodeId, Doubted>,
}

impl Audit {
    /// What is held against a peer, if anything is.
    pub fn case(&self, peer: &NodeId) -> Option<&Case> {
        self.cases.get(peer)
    }

    /// What is held against a peer, or speaks against it for now, in words.
    pub fn reasons(&self, peer: &NodeId) -> Vec<String> {
        let mut reasons = self.case(peer).map(Case::reasons).unwrap_or_default();
        let doubted = self.doubts.get(peer).filter(|known| known.lasts);
        reasons.extend(doubted.map(|known| format!("{} (for some time)", known.doubt)));
        reasons
    }

    /// Against whom something is held.
    pub fn accused(&self) -> impl Iterator<Item = &NodeId> {
        self.cases.keys()
    }

    /// Something speaks against a peer: nothing is borrowed from it for a time, each time for twice as long. True if that
    /// is news.
    pub fn doubt(&mut self, peer: NodeId, doubt: Doubt, now: Instant) -> bool {
        if self.doubts.len() >= ACCUSED_MAX && !self.doubts.contains_key(&peer) {
            return false;
        }
        let known = self.doubts.entry(peer).or_insert(Doubted { doubt, times: 0, until: now, lasts: false });
        if known.lasts {
            return false;
        }
        let length = DOUBT_MIN * (1 << known.times.min(DOUBLED_MAX));
        *known = Doubted { doubt, times: known.times + 1, until: now + length, lasts: true };
        true
    }

    /// Whom to give another chance now. Who was not doubted again for long after one begins anew.
    pub fn forgive(&mut self, now: Instant) -> Vec<NodeId> {
        self.doubts.retain(|_, known| known.lasts || now.since(known.until) < DOUBT_MIN * (1 << DOUBLED_MAX));
        let over = self.doubts.iter_mut().filter(|(_, known)| known.lasts && now >= known.until);
        over.map(|(peer, known)| {
            known.lasts = false;
            *peer
        })
        .collect()
    }

    /// Whether nothing should be lent to a peer, nor borrowed from it.
    pub fn is_accused(&self, peer: &NodeId) -> bool {
        self.cases.contains_key(peer) || self.doubts.get(peer).is_some_and(|known| known.lasts)
    }

    /// Holds a contradiction against its author. False if one was known.
    pub fn convict(&mut self, accused: NodeId, proof: (Contradiction, Lie), told_by: Option<NodeId>) -> bool {
        let Some(case) = self.open(accused).filter(|case| case.contradiction.is_none()) else { return false };
        (case.contradiction, case.told_by) = (Some(proof), told_by);
        true
    }

    /// A message of this peer held forged records.
    pub fn forged(&mut self, by: NodeId) {
        if let Some(case) = self.open(by) {
            case.forged = case.forged.saturating_add(1);
        }
    }

    fn open(&mut self, accused: NodeId) -> Option<&mut Case> {
        let fits = self.cases.len() < ACCUSED_MAX || self.cases.contains_key(&accused);
        fits.then(|| self.cases.entry(accused).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::Incarnation;
    use crate::protocol::ledger::{Gift, Loss};
    use crate::protocol::limit::Fingerprint;
    use crate::protocol::record::Row;
    use crate::protocol::share::Share;
    use crate::protocol::signature::Statement;
    use crate::wire::signing::{Ed25519, Ideal};

    const LEDGER: LedgerId = LedgerId(NodeId([1; 32]));

    fn node(id: u8) -> NodeId {
        NodeId([id; 32])
    }

    fn record_by(
        keys: &dyn Keys,
        author: NodeId,
        life: u64,
        version: u64,
        key: Key,
        value: &Value,
    ) -> Record {
        let (incarnation, key) = (Incarnation(life), &key);
        Record::sign(&Statement { ledger: LEDGER, author, incarnation, version, key, value }, keys)
    }

    fn row(life: u64, version: u64, used: u64) -> Record {
        let value = Value::Row(Row { used, ..Row::default() });
        record_by(&Ideal, node(2), life, version, Key::Row(Fingerprint(7)), &value)
    }

    fn given(life: u64, version: u64, parts: u64) -> Record {
        let gift = Gift { share: Share(parts), levels: None, weight: 0 };
        record_by(&Ideal, node(2), life, version, Key::Given(node(3)), &Value::Gift(gift))
    }

    fn lie(one: &Record, other: &Record) -> Option<Lie> {
        let found = Contradiction::between(one, other);
        let other_way = Contradiction::between(other, one);
        assert_eq!(found, other_way);
        found.map(|(_, lie)| lie)
    }

    #[test]
    fn what_no_honest_author_writes_is_a_contradiction() {
        assert_eq!(lie(&row(1, 4, 10), &row(1, 4, 11)), Some(Lie::Fork));
        assert_eq!(lie(&row(1, 4, 10), &row(1, 5, 9)), Some(Lie::UsedLess));
        assert_eq!(lie(&given(1, 4, 10), &given(1, 5, 9)), Some(Lie::GaveLess));
        assert_eq!(lie(&given(1, 4, 10), &given(2, 1, 9)), Some(Lie::GaveLess), "gifts outlive lives");
    }

    #[test]
    fn whoever_agrees_to_more_may_weigh_less() {
        let lost = |version, share, weight| {
            let losses = vec![Loss { by: node(4), share: Share(share), weight: Share(weight) }];
            record_by(&Ideal, node(2), 1, version, Key::Lost(node(3)), &Value::Lost(losses))
        };
        assert_eq!(lie(&lost(4, 10, 90), &lost(5, 20, 30)), None);
        assert!(lost(4, 10, 90).value.parts() < lost(5, 20, 30).value.parts(), "and it is the later one");
        assert_eq!(lie(&lost(4, 10, 90), &lost(5, 9, 90)), Some(Lie::GaveLess));
    }

    #[test]
    fn what_honest_authors_write_is_none() {
        assert_eq!(lie(&row(1, 4, 10), &row(1, 5, 10)), None);
        assert_eq!(lie(&row(1, 4, 10), &row(1, 5, 11)), None);
        assert_eq!(lie(&row(1, 9, 10), &row(2, 1, 0)), None, "a restart counts from zero");
        assert_eq!(lie(&given(1, 9, 10), &given(2, 1, 10)), None);
        assert_eq!(lie(&row(1, 4, 10), &given(1, 4, 10)), None);
    }

    #[test]
    fn a_proof_needs_both_signatures() {
        let keys = [Ed25519::new(&[5; 32], [0; 32]), Ed25519::new(&[6; 32], [0; 32])];
        let [accused, other] = [keys[0].id(), keys[1].id()];
        let made = |keys: &Ed25519, version, used| {
            let value = Value::Row(Row { used, ..Row::default() });
            record_by(keys, accused, 1, version, Key::Row(Fingerprint(7)), &value)
        };
        let (proof, _) = Contradiction::between(&made(&keys[0], 4, 10), &made(&keys[0], 5, 9)).unwrap();
        assert_eq!(proof.proves(accused, LEDGER, &keys[1]), Some(Lie::UsedLess));
        assert_eq!(proof.proves(other, LEDGER, &keys[1]), None);
        assert_eq!(proof.proves(accused, LedgerId(other), &keys[1]), None);
        let (framed, _) = Contradiction::between(&made(&keys[0], 4, 10), &made(&keys[1], 5, 9)).unwrap();
        assert_eq!(framed.proves(accused, LEDGER, &keys[1]), None);
    }

    #[test]
    fn whoever_is_doubted_again_is_doubted_for_longer() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut audit = Audit::default();
        assert!(audit.doubt(node(2), Doubt::Behind, at(0)));
        assert!(!audit.doubt(node(2), Doubt::Behind, at(1)) && audit.is_accused(&node(2)));
        assert_eq!(audit.reasons(&node(2)).len(), 1);
        assert_eq!((audit.forgive(at(15)), audit.forgive(at(16))), (vec![], vec![node(2)]));
        assert!(!audit.is_accused(&node(2)) && audit.reasons(&node(2)).is_empty());
        assert!(audit.doubt(node(2), Doubt::Overdrawn, at(20)));
        assert_eq!((audit.forgive(at(51)), audit.forgive(at(52))), (vec![], vec![node(2)]));
        // It did well for long.
        assert_eq!(audit.forgive(at(20_000)), []);
        assert!(audit.doubt(node(2), Doubt::Behind, at(20_000)));
        assert_eq!(audit.forgive(at(20_016)), [node(2)]);
    }

    #[test]
    fn the_first_proof_is_enough() {
        let mut audit = Audit::default();
        let proof = Contradiction::between(&row(1, 4, 10), &row(1, 5, 9)).unwrap();
        assert!(!audit.is_accused(&node(2)));
        assert!(audit.convict(node(2), proof.clone(), None));
        assert!(!audit.convict(node(2), proof, Some(node(3))));
        audit.forged(node(2));
        assert_eq!(
            audit.case(&node(2)).unwrap().reasons(),
            [
                "signed that it had admitted 10 (life 1, version 4), later only 9 (version 5)",
                "passed on forged records in 1 messages",
            ]
        );
    }
}
