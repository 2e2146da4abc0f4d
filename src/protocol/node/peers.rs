//! What is remembered of each link, and when something should be said over it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Duration;

use super::IDLE_SILENCE;
use crate::protocol::gossip::Delta;
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::lease::TTL;
use crate::protocol::message::Digest;
use crate::protocol::time::Instant;

/// News that is not about leases waits this long for more of it.
const SPACING: Duration = Duration::from_millis(2);

/// A lease ends by a moment of the borrower's clock that was half a round trip old when the lender heard it, and is under way for the
/// other half.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(TTL.as_millis() as u64 * 3 / 4);

/// A link to a peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) up_at: Instant,
    /// The peer's life, once it said something.
    pub(super) incarnation: Option<Incarnation>,
    /// The newest moment of its clock, and when it was heard on ours.
    pub(super) clock: Instant,
    pub(super) clock_at: Instant,
    pub(super) heard_at: Instant,
    pub(super) has_ledger: bool,
    /// It is known to belong to another ledger, which neither will leave.
    pub(super) is_foreign: bool,
    pub(super) silence: Duration,
    pub(super) round_trip: Option<Duration>,
    /// The version of our page that it knows, by its own word.
    pub(super) confirmed: u64,
    /// The version of its own page, by its own word.
    pub(super) version: u64,
    /// The version of our page that was sent to it.
    pub(super) sent: u64,
    pub(super) sent_at: Option<Instant>,
    /// The oldest news that it has not confirmed yet: when they were sent, and up to which version. Over a long link there is
    /// always something under way that was sent later.
    pub(super) unconfirmed: Option<(Instant, u64)>,
    /// How often they were lost.
    losses: u32,
    /// When it will be surprised to have heard nothing more, by our own last promise.
    pub(super) promised_at: Option<Instant>,
    /// Limits whose leases with it changed: send at once.
    pub(super) owed: BTreeSet<usize>,
    /// Limits whose returns it should hear of with the next message …
    pub(super) words: BTreeSet<usize>,
    /// … and once more in the next round: nobody confirms a return, and share whose return was lost serves nobody.
    pub(super) words_again: BTreeSet<usize>,
    /// By when it should hear what changed on our page.
    pub(super) news_by: Option<Instant>,
    /// Something should be said now.
    pub(super) beat: bool,
    /// Something of its page is missing, and it has not been told so since that was noticed.
    pub(super) lacks: bool,
    pub(super) digest: Digest,
    pub(super) full_at: Option<Instant>,
    pub(super) compared_at: Option<Instant>,
    pub(super) deltas: Vec<Delta>,
    pub(super) join: bool,
    /// For which version of its row level was given to it, by limit.
    pub(super) levelled: BTreeMap<usize, u64>,
    pub(super) closed: bool,
    /// Its time among those of all links.
    planned: Option<Instant>,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            up_at: now,
            incarnation: None,
            clock: Instant::ZERO,
            clock_at: now,
            heard_at: now,
            has_ledger: false,
            is_foreign: false,
            silence: IDLE_SILENCE,
            round_trip: None,
            confirmed: 0,
            version: 0,
            sent: 0,
            sent_at: None,
            unconfirmed: None,
            losses: 0,
            promised_at: None,
            owed: BTreeSet::new(),
            words: BTreeSet::new(),
            words_again: BTreeSet::new(),
            news_by: None,
            beat: true,
            lacks: false,
            digest: Digest::None,
            full_at: None,
            compared_at: None,
            deltas: Vec::new(),
            join: false,
            levelled: BTreeMap::new(),
            closed: false,
            planned: None,
        }
    }

    /// Another life of the peer was heard: what was known of the former is void.
    pub(super) fn begin_life(&mut self, incarnation: Incarnation, now: Instant) {
        let (incarnation, news_by) = (Some(incarnation), Some(now));
        *self = Self { incarnation, news_by, planned: self.planned, ..Self::new(now) };
    }

    /// Whether a lease would arrive there long enough before its end.
    pub(super) fn is_in_reach(&self) -> bool {
        self.round_trip.is_none_or(|round_trip| round_trip <= ROUND_TRIP_MAX)
    }

    /// Something of this limit goes back to this peer.
    pub(super) fn owes(&mut self, place: usize) {
        self.owed.insert(place);
        self.words.insert(place);
        self.words_again.insert(place);
    }

    /// Something of this limit was lent to this peer. Among few, what went back to it lately is told again with that.
    pub(super) fn is_lent(&mut self, place: usize, few: bool) {
        if few {
            self.owes(place);
        } else {
            self.owed.insert(place);
        }
    }

    /// The limit at this place is another one from now on.
    pub(super) fn forget_limit(&mut self, place: usize) {
        self.owed.remove(&place);
        self.words.remove(&place);
        self.words_again.remove(&place);
        self.levelled.remove(&place);
    }

    /// Whether it has heard what was sent at `clock`, and lacks something that was sent before.
    pub(super) fn lost_something(&mut self, clock: Instant) -> bool {
        self.unconfirmed = self.unconfirmed.filter(|(_, upto)| self.confirmed < *upto);
        if self.unconfirmed.is_none() {
            self.losses = 0;
        }
        let heard = |at: Instant| clock >= at;
        self.confirmed < self.sent
            && (self.unconfirmed.is_some_and(|(at, _)| heard(at)) || self.sent_at.is_some_and(heard))
    }

    /// It should hear all that it has not confirmed once more.
    pub(super) fn tell_again(&mut self, now: Instant) {
        (self.sent, self.unconfirmed, self.losses) = (self.confirmed, None, self.losses + 1);
        self.tell(now);
    }

    /// Whether every message should have what is not confirmed: it was lost again and again.
    pub(super) fn repeats(&self) -> bool {
        self.losses > 1
    }

    /// It should hear our news by then at the latest.
    pub(super) fn tell(&mut self, by: Instant) {
        self.news_by = Some(self.news_by.map_or(by, |known| known.min(by)));
    }

    pub(super) fn ask_to_join(&mut self) {
        self.join = true;
        self.beat = true;
    }

    /// Nothing of our page counts as known to it.
    pub(super) fn start_over(&mut self) {
        (self.sent, self.confirmed, self.unconfirmed, self.news_by) = (0, 0, None, Some(Instant::ZERO));
    }

    /// Whether something should be said at `now`.
    fn is_due(&self, now: Instant) -> bool {
        self.beat
            || !self.owed.is_empty()
            || !self.deltas.is_empty()
            || self.digest != Digest::None
            || self.send_at().is_some_and(|at| now >= at)
    }

    /// When at the latest to look whether something should be said, so that our promise is kept.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.promised_at.map(|at| at - super::ROUND)
    }

    /// When the news should go out, if there is some.
    fn send_at(&self) -> Option<Instant> {
        let spaced = self.sent_at.map_or(Instant::ZERO, |at| at + SPACING);
        self.news_by.map(|by| by.max(spaced))
    }
}

/// All links. To read, it is a map; [`due`](Self::due) looks at those that somebody may have changed since, and at those
/// whose time has come.
#[derive(Debug, Default)]
pub(super) struct Peers {
    links: BTreeMap<NodeId, Peer>,
    /// May have changed since the last [`settle`](Self::settle); some may be named twice.
    touched: Vec<NodeId>,
    all_touched: bool,
    /// When something is to be said to whom, as of the last [`settle`](Self::settle).
    times: BTreeSet<(Instant, NodeId)>,
}

impl Peers {
    pub(super) fn insert(&mut self, node: NodeId, peer: Peer) {
        self.remove(&node);
        self.touched.push(node);
        self.links.insert(node, peer);
    }

    pub(super) fn remove(&mut self, node: &NodeId) -> Option<Peer> {
        let peer = self.links.remove(node)?;
        if let Some(at) = peer.planned {
            self.times.remove(&(at, *node));
        }
        Some(peer)
    }

    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Peer> {
        let peer = self.links.get_mut(node);
        if peer.is_some() && self.touched.last() != Some(node) {
            self.touched.push(*node);
        }
        peer
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&NodeId, &mut Peer)> {
        self.all_touched = true;
        self.links.iter_mut()
    }

    /// The peers to say something to at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Vec<NodeId> {
        if self.all_touched {
            return self.links.iter().filter(|(_, peer)| peer.is_due(now)).map(|(node, _)| *node).collect();
        }
        let come = self.times.iter().take_while(|(at, _)| *at <= now).map(|(_, node)| *node);
        let mut due: Vec<NodeId> = self.touched.iter().copied().chain(come).collect();
        due.sort_unstable();
        due.dedup();
        due.retain(|node| self.links.get(node).is_some_and(|peer| peer.is_due(now)));
        due
    }

    /// Everything that was due has been said.
    pub(super) fn settle(&mut self) {
        let times = &mut self.times;
        let mut plan = |node: &NodeId, peer: &mut Peer| {
            let at = peer.send_at();
            if at == peer.planned {
                return;
            }
            if let Some(before) = std::mem::replace(&mut peer.planned, at) {
                times.remove(&(before, *node));
            }
            times.extend(at.map(|at| (at, *node)));
        };
        if std::mem::take(&mut self.all_touched) {
            self.links.iter_mut().for_each(|(node, peer)| plan(node, peer));
        } else {
            for node in &self.touched {
                if let Some(peer) = self.links.get_mut(node) {
                    plan(node, peer);
                }
            }
        }
        self.touched.clear();
    }

    /// When something is to be said next, as of the last [`settle`](Self::settle).
    pub(super) fn send_at(&self) -> Option<Instant> {
        self.times.first().map(|(at, _)| *at)
    }
}

impl Deref for Peers {
    type Target = BTreeMap<NodeId, Peer>;

    fn deref(&self) -> &Self::Target {
        &self.links
    }
}
