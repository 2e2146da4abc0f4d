//! What a node says of itself: named values, each written by one node alone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::audit::Contradiction;
use super::bounded;
use super::breaker::{Outcomes, Verdict};
use super::id::NodeId;
use super::keyed::KeyHash;
use super::ledger::{Gift, LOSSES_MAX, Loss};
use super::lending::GRAIN;
use super::limit::{Fingerprint, Rate};
use super::loans::Book;
use super::pause::{PauseMark, PauseReason};
use super::provider::Estimate;
use super::share::Share;

/// Names one value on its author's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// Who the author is.
    Profile,
    /// What the author founded the ledger with.
    Founded,
    /// What the author has given to a node, ever.
    Given(NodeId),
    /// What the author has reclaimed from a node, ever.
    Reclaimed(NodeId),
    /// How much of its gifts to a node the author wants back, ever.
    Revoked(NodeId),
    /// What the author agrees that members may reclaim from a node, ever.
    Lost(NodeId),
    /// How the author stands with one limit.
    Row(Fingerprint),
    /// What the author says of a pool's pause.
    Pause(Fingerprint, PauseReason),
    /// How the author's calls of a pool ended, and what it thinks of the provider.
    Breaker(Fingerprint),
    /// How much of a limit somebody uses who does not report it, by the author's estimate.
    Unreported(Fingerprint),
    /// How the author stands with one limit of one contended key. Numbered, and used again for another key: keys come
    /// and go, and a page forgets no name.
    KeyRow(u16),
    /// Proof that a node has lied.
    Evidence(NodeId),
    /// What the author has lent of a limit.
    Loans(Fingerprint),
}

impl Key {
    /// Whether it names a record of the ledger.
    pub fn is_record(&self) -> bool {
        matches!(self, Self::Founded | Self::Given(_) | Self::Reclaimed(_) | Self::Revoked(_) | Self::Lost(_))
    }

    /// Whether everybody should know it soon: it is not one of the values that change all the time.
    pub fn is_for_all(&self) -> bool {
        !self.is_row() && !matches!(self, Self::Breaker(_) | Self::Unreported(_) | Self::Loans(_))
    }

    /// Whether it names a row, of a limit or of a key.
    pub fn is_row(&self) -> bool {
        matches!(self, Self::Row(_) | Self::KeyRow(_))
    }
}

/// One value on its author's page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// For [`Key::Profile`].
    Profile(Profile),
    /// For [`Key::Founded`], [`Key::Reclaimed`] and [`Key::Revoked`].
    Share(Share),
    /// For [`Key::Given`].
    Gift(Gift),
    /// For [`Key::Lost`].
    Lost(#[serde(deserialize_with = "bounded::list::<_, _, LOSSES_MAX>")] Vec<Loss>),
    /// For [`Key::Row`].
    Row(Row),
    /// For [`Key::Pause`].
    Pause(PauseMark),
    /// For [`Key::Breaker`].
    Breaker(Outcomes, Verdict),
    /// For [`Key::Unreported`].
    Unreported(Estimate),
    /// For [`Key::KeyRow`]; none while no key uses the number.
    KeyRow(Option<KeyRow>),
    /// For [`Key::Evidence`].
    Evidence(Contradiction),
    /// For [`Key::Loans`].
    Loans(Book),
}

impl Value {
    /// Of a record of the ledger, the parts of base share that it speaks of.
    pub fn parts(&self) -> u64 {
        match self {
            Self::Share(share) => share.0,
            Self::Gift(gift) => gift.share.0,
            // Not the weights: whoever agrees to more may have less then.
            Self::Lost(losses) => losses.iter().map(|loss| loss.share.0).fold(0, u64::saturating_add),
            _ => 0,
        }
    }

    /// About how many bytes it takes in a message; never too few by more than a half.
    pub fn weight(&self) -> usize {
        match self {
            Self::Profile(profile) => {
                let texts = profile.addresses.iter().map(String::len).sum::<usize>()
                    + profile.limits.iter().map(|(name, _)| name.len() + 10).sum::<usize>();
                32 + profile.name.len() + texts + 33 * (profile.unlinked.len() + profile.lost.len())
            }
            Self::Share(_) => 8,
            Self::Gift(gift) => 32 + gift.levels.as_ref().map_or(0, |levels| 26 * levels.atoms.len()),
            Self::Lost(losses) => 8 + 48 * losses.len(),
            Self::Row(_) => 104,
            Self::KeyRow(row) => row.map_or(8, |_| 161),
            Self::Pause(_) | Self::Breaker(..) => 32,
            Self::Unreported(_) => 16,
            Self::Loans(book) => 48 + 54 * book.lent.len(),
            Self::Evidence(proof) => 200 + proof.first.value.weight() + proof.second.value.weight(),
        }
    }
}

/// The most limits that a profile names, and the most characters of each name.
pub const PROFILE_LIMITS_MAX: usize = 48;
/// The most addresses that a profile names.
pub const PROFILE_ADDRESSES_MAX: usize = 8;
/// See [`PROFILE_LIMITS_MAX`].
pub const PROFILE_NAME_MAX: usize = 64;

/// Who a node is, for people and for dialling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// What its configuration calls it.
    pub name: String,
    /// Where it is reached, as multiaddresses.
    #[serde(deserialize_with = "bounded::list::<_, _, PROFILE_ADDRESSES_MAX>")]
    pub addresses: Vec<String>,
    /// Its limits as `pool/limit`, with fingerprints, so that a mismatch of configurations can be shown.
    #[serde(deserialize_with = "bounded::list::<_, _, PROFILE_LIMITS_MAX>")]
    pub limits: Vec<(String, Fingerprint)>,
    /// It leaves: it wants its share back and asks for nothing.
    pub leaving: bool,
    /// Members that it should have a link to, as every node of a full mesh has to all, but has not.
    pub unlinked: BTreeSet<NodeId>,
    /// Members that it has not heard of for `forget_after`.
    pub lost: BTreeSet<NodeId>,
}

/// How a node stands with one limit: the input of everybody's [`targets`](super::target::targets).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Units admitted in this life: the author's own cell of the G-counter.
    pub used: u64,
    /// Units in the author's bucket.
    pub level: u64,
    /// Its base share, if it may use it; zero while it settles after a restart.
    pub base: Share,
    /// Share that it runs on.
    pub held: Share,
    /// Its base share that is not out on loan.
    pub free: Share,
    /// Share that its arrivals and backlog would use, …
    pub demand: Share,
    /// … and what of it is critical, high and low; the rest is normal.
    pub classes: [Share; 3],
    /// What the claims of each class weigh, the most urgent first, in thousandths; zero where there is none.
    pub weights: [u32; 4],
    /// Units of its largest waiting request; zero if none waits.
    pub waiting: u64,
    /// The class of the request that is next; zero is critical.
    pub class: u8,
    /// Units of level that it lacks for what waits, and has room for.
    pub need: u64,
    /// Units of level that it can spare while others wait.
    pub spare: u64,
    /// Units of permits that are out.
    pub open: u64,
    /// Fairness weight.
    pub weight: u32,
    /// Service received, per weight.
    pub tag: u64,
    /// The tag up to which its present turn lasts.
    pub turn_end: u64,
}

/// A row of one limit of one key of a keyed pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// The limit's identity for this key alone: see [`KeyHash::fingerprint`].
    pub fingerprint: Fingerprint,
    /// The limit's identity as configured.
    pub limit: Fingerprint,
    /// The key.
    pub key: KeyHash,
    /// The limit's numbers, if it is a [dynamic](super::node::Node::throttle) one.
    pub rate: Option<Rate>,
    /// How the author stands with it.
    pub row: Row,
}

impl Row {
    /// Whether peers should hear at once that it is no longer the one they know.
    pub fn is_urgent_after(&self, known: &Self) -> bool {
        self.waiting > known.waiting
            || (self.waiting > 0 && self.class < known.class)
            || (self.waiting == 0) != (known.waiting == 0)
            || (self.need == 0) != (known.need == 0)
            || self.base != known.base
            || self.turn_end != known.turn_end
            || (self.tag >= self.turn_end) != (known.tag >= known.turn_end)
            || far(self.held, known.held, GRAIN)
            || self.wants_more_than(known)
    }

    /// Whether all that makes it [urgent](Self::is_urgent_after) is that more is asked for.
    pub fn is_mere_demand_after(&self, known: &Self) -> bool {
        let as_known = Self { demand: known.demand, classes: known.classes, ..*self };
        self.wants_more_than(known) && !as_known.is_urgent_after(known)
    }

    /// Whether all that makes it [urgent](Self::is_urgent_after) is that it runs on more share or less.
    pub fn is_mere_share_after(&self, known: &Self) -> bool {
        let as_known = Self { held: known.held, free: known.free, ..*self };
        !as_known.is_urgent_after(known)
    }

    /// Whether somebody who knew the other may have to lend or give back because of this one.
    pub fn is_material_after(&self, known: &Self) -> bool {
        let sated = |row: &Self| row.waiting > 0 && row.demand > row.held + row.held.scale(1, 4);
        self.is_urgent_after(known)
            || self.free != known.free
            || (!(sated(self) && sated(known)) && far(self.demand, known.demand, 16))
    }

    fn wants_more_than(&self, known: &Self) -> bool {
        let more = |now: Share, before: Share| now > before && far(now, before, 4);
        // More of a more urgent class is news even if less of another makes up for it.
        let urgent = (0..2).any(|class| more(self.classes[class], known.classes[class]));
        self.waiting > 0 && (more(self.demand, known.demand) || urgent)
    }

    /// What is asked for by class, the most urgent first.
    pub fn by_class(&self) -> [Share; 4] {
        let [critical, high, low] = self.classes;
        let normal = self.demand.saturating_sub(critical + high + low);
        [critical, high, normal, low]
    }
}

/// Whether two shares differ by more than a `part` of the greater.
pub fn far(one: Share, other: Share, part: u64) -> bool {
    let (more, less) = (one.max(other), one.min(other));
    more - less > more.scale(1, part)
}

/// Whether two shares differ by more than so much.
pub fn far_by(one: Share, other: Share, part: Share) -> bool {
    one.max(other) - one.min(other) > part
}
