//! Messages in and out, and what is remembered of each link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{IDLE_SILENCE, Node, Output, Phase};
use crate::protocol::gossip::{Delta, Page};
use crate::protocol::id::{Incarnation, NodeId, Replica};
use crate::protocol::lease::TTL;
use crate::protocol::message::{Digest, Echo, Message};
use crate::protocol::record::{Key, Profile, Value};
use crate::protocol::time::{Instant, nanos};

/// News that is not about leases waits this long for more of it.
const SPACING: Duration = Duration::from_millis(2);
/// Full digests are sent to one peer at most this often.
const DIGEST_SPACING: Duration = Duration::from_millis(200);
/// What a peer has not confirmed after this long is sent again.
const CONFIRM: Duration = Duration::from_secs(1);

/// The most nodes that are heard first-hand in one life; further ones are not listened to.
const LIVES_MAX: usize = 4_096;

/// A link to a peer.
#[derive(Debug)]
pub(super) struct Peer {
    up_at: Instant,
    /// The peer's life, once it said something.
    incarnation: Option<Incarnation>,
    /// The newest moment of its clock, and when it was heard on ours.
    clock: Instant,
    clock_at: Instant,
    heard_at: Instant,
    has_ledger: bool,
    silence: Duration,
    round_trip: Option<Duration>,
    /// The version of our page that it knows, by its own word.
    confirmed: u64,
    /// The version of our page that was sent to it.
    sent: u64,
    sent_at: Option<Instant>,
    /// When it will be surprised to have heard nothing more, by our own last promise.
    promised_at: Option<Instant>,
    /// Limits whose leases with it changed: send at once.
    owed: BTreeSet<usize>,
    /// Limits whose returns it should hear of with the next message.
    words: BTreeSet<usize>,
    /// Something should be said soon.
    news: bool,
    /// Something should be said now.
    beat: bool,
    digest: Digest,
    full_at: Option<Instant>,
    deltas: Vec<Delta>,
    join: bool,
    /// For which version of its row level was given to it, by limit.
    pub(super) levelled: BTreeMap<usize, u64>,
    closed: bool,
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            up_at: now,
            incarnation: None,
            clock: Instant::ZERO,
            clock_at: now,
            heard_at: now,
            has_ledger: false,
            silence: IDLE_SILENCE,
            round_trip: None,
            confirmed: 0,
            sent: 0,
            sent_at: None,
            promised_at: None,
            owed: BTreeSet::new(),
            words: BTreeSet::new(),
            news: false,
            beat: true,
            digest: Digest::None,
            full_at: None,
            deltas: Vec::new(),
            join: false,
            levelled: BTreeMap::new(),
            closed: false,
        }
    }

    /// A lease of this limit with this peer changed.
    pub(super) fn owes(&mut self, place: usize) {
        self.owed.insert(place);
        self.words.insert(place);
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Whether it was heard so lately that a lease made now would last a while.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.since(self.clock_at) < TTL / 2
    }

    pub(super) fn has_ledger(&self) -> bool {
        self.has_ledger
    }

    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    pub(super) fn ask_to_join(&mut self) {
        self.join = true;
        self.beat = true;
    }

    /// Nothing of our page counts as known to it.
    pub(super) fn start_over(&mut self) {
        (self.sent, self.confirmed, self.news) = (0, 0, true);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.beat
            || !self.owed.is_empty()
            || !self.deltas.is_empty()
            || self.digest != Digest::None
            || (self.news && self.sent_at.is_none_or(|at| now >= at + SPACING))
    }

    /// When at the latest to look whether something should be said, so that our promise is kept.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.promised_at.map(|at| at - super::ROUND)
    }

    /// When the news should go out, if there is some.
    pub(super) fn send_at(&self) -> Option<Instant> {
        self.news.then(|| self.sent_at.map_or(Instant::ZERO, |at| at + SPACING))
    }
}

impl Node {
    /// Peers with a live link that have said something, each in its present life.
    pub(super) fn linked(&self) -> impl Iterator<Item = Replica> + '_ {
        let replica = |(node, peer): (&NodeId, &Peer)| {
            peer.incarnation.map(|incarnation| Replica { node: *node, incarnation })
        };
        self.peers.iter().filter_map(replica)
    }

    pub(super) fn link_up(&mut self, peer: NodeId, now: Instant) {
        if peer != self.config.id {
            let mut link = Peer::new(now);
            link.digest = Digest::Hash(self.pages.digest_hash());
            self.peers.insert(peer, link);
            self.down_at.remove(&peer);
            self.wake(now);
        }
    }

    pub(super) fn link_down(&mut self, peer: NodeId, now: Instant) {
        if self.peers.remove(&peer).is_some() && self.is_leaving(&peer) {
            self.outputs.push_back(Output::Forget(peer));
        }
        // Only of members, so that strangers cannot fill it.
        if self.bases.contains_key(&peer) {
            self.down_at.insert(peer, now);
        }
        self.stale = true;
    }

    /// Everybody should hear of what changed on our page.
    pub(super) fn peers_should_hear(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.news = true);
    }

    pub(super) fn peer_is_owed(&mut self, peer: NodeId) {
        let places = 0..self.meters.len();
        if let Some(peer) = self.peers.get_mut(&peer) {
            places.for_each(|place| peer.owes(place));
        }
    }

    pub(super) fn hear(&mut self, from: NodeId, message: &Message, now: Instant) {
        // Leases with a former life are forgotten when the next life is heard. A grant of the former life that comes even
        // later would be taken for a new one, with all that was ever lent under it.
        let latest = self.lives.get(&from).copied();
        let is_over = latest.is_some_and(|latest| latest > message.incarnation);
        if is_over || (latest.is_none() && self.lives.len() >= LIVES_MAX) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        self.lives.insert(from, message.incarnation);
        match peer.incarnation {
            Some(known) if known > message.incarnation => return,
            Some(known) if known == message.incarnation => {}
            _ => {
                *peer = Peer { incarnation: Some(message.incarnation), ..Peer::new(now) };
                let replica = Replica { node: from, incarnation: message.incarnation };
                self.meters.iter_mut().for_each(|meter| meter.forget_former(replica));
            }
        }
        let replica = Replica { node: from, incarnation: message.incarnation };
        let to_us = message.echo.filter(|echo| echo.incarnation == self.config.incarnation);
        if message.clock > peer.clock {
            (peer.clock, peer.clock_at) = (message.clock, now);
        }
        peer.heard_at = now;
        peer.has_ledger = message.ledger.is_some();
        peer.silence = Duration::from_millis(u64::from(message.silence_ms)).min(IDLE_SILENCE * 2);
        if let Some(echo) = to_us {
            peer.confirmed = peer.confirmed.max(echo.version.min(self.pages.own_version()));
            let round_trip = now.since(echo.clock).saturating_sub(Duration::from_nanos(echo.age));
            // Smoothed as in RFC 6298, with its gain of 1/8.
            peer.round_trip = Some(peer.round_trip.map_or(round_trip, |known| (known * 7 + round_trip) / 8));
        }
        let same_ledger = self.meet(message.ledger, from, now);
        self.ask_to_join(now);
        if !same_ledger {
            return;
        }
        self.merge(&message.deltas, from, now);
        if to_us.is_some() {
            self.hear_leases(replica, message, now);
        }
        self.answer_digest(from, &message.digest, now);
        if message.join {
            self.vouch_on_request(replica, now);
        }
    }

    fn hear_leases(&mut self, from: Replica, message: &Message, now: Instant) {
        for (fingerprint, word) in &message.returns {
            if let Some(place) = self.place_of(*fingerprint) {
                self.stale |= self.meters[place].hear_return(from, word, now);
            }
        }
        for (fingerprint, grant) in &message.grants {
            if let Some(place) = self.place_of(*fingerprint) {
                self.meters[place].hear_grant(from, grant, now);
                self.stale = true;
                if let Some(peer) = self.peers.get_mut(&from.node) {
                    peer.words.insert(place);
                    peer.news = true;
                }
            }
        }
    }

    fn place_of(&self, fingerprint: crate::protocol::limit::Fingerprint) -> Option<usize> {
        self.meters.iter().position(|meter| meter.fingerprint == fingerprint)
    }

    fn merge(&mut self, deltas: &[Delta], from: NodeId, now: Instant) {
        let mut ledger_changed = false;
        let mut membership = false;
        let mut gap = false;
        for delta in deltas {
            let absorbed = self.pages.absorb(delta, now);
            gap |= absorbed.gap;
            let replica = Replica { node: delta.author, incarnation: delta.incarnation };
            for (key, value) in absorbed.changed {
                membership |= !matches!(key, Key::Row(_));
                ledger_changed |= self.learn(replica, key, &value, now);
            }
        }
        if gap {
            self.send_full_digest(from, now);
        }
        if ledger_changed {
            self.ledger_changed(now);
        }
        if membership {
            self.compare_with_others(from);
        }
    }

    /// Who is a member and where it is reached should be known to everybody soon, not only at the next heartbeat:
    /// asks all peers but the one that told us whether they know it.
    fn compare_with_others(&mut self, except: NodeId) {
        let hash = self.pages.digest_hash();
        for (_, peer) in self.peers.iter_mut().filter(|(node, _)| **node != except) {
            if peer.digest == Digest::None {
                peer.digest = Digest::Hash(hash);
            }
        }
    }

    /// Acts on one news. True if the ledger changed.
    fn learn(&mut self, author: Replica, key: Key, value: &Value, now: Instant) -> bool {
        match (key, value) {
            (Key::Profile, Value::Profile(profile)) => {
                self.learn_addresses(author.node, profile, now);
                self.stale = true;
                false
            }
            (Key::Row(fingerprint), Value::Row(row)) => {
                if let Some(place) = self.place_of(fingerprint) {
                    self.meters[place].used.merge(author, row.used);
                    self.stale = true;
                }
                false
            }
            (Key::Founded, Value::Share(share)) => self.ledger.merge_founded(author.node, *share),
            (Key::Reclaimed(subject), Value::Share(share)) => {
                self.ledger.merge_reclaimed(author.node, subject, *share)
            }
            (Key::Given(subject), Value::Gift(gift)) => {
                let news = self.ledger.merge_given(author.node, subject, gift);
                if news && subject == self.config.id {
                    // A member from here on: the level that came with the gift needs a share to be held by.
                    self.become_member();
                    self.receive_gift(author.node, gift, now);
                }
                news
            }
            _ => false,
        }
    }

    /// Where a peer is reached, linked or not: whoever has the smaller id dials when the link breaks, and after a restart
    /// a node looks for its swarm there.
    fn learn_addresses(&mut self, author: NodeId, profile: &Profile, now: Instant) {
        let addresses: Vec<String> = profile.addresses.iter().take(8).cloned().collect();
        if profile.leaving {
            self.reached_at.remove(&author);
        } else if !addresses.is_empty() && self.reached_at.get(&author) != Some(&addresses) {
            self.reached_at.insert(author, addresses.clone());
            self.outputs.push_back(Output::Reach(author, addresses));
            self.save_soon(now);
        }
    }

    fn answer_digest(&mut self, from: NodeId, digest: &Digest, now: Instant) {
        match digest {
            Digest::None => {}
            Digest::Hash(hash) => {
                if *hash != self.pages.digest_hash() {
                    self.send_full_digest(from, now);
                }
            }
            Digest::Full(theirs) => {
                let (deltas, behind) = self.pages.lacking(theirs);
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.deltas = deltas;
                }
                if behind {
                    self.send_full_digest(from, now);
                }
            }
        }
    }

    fn send_full_digest(&mut self, to: NodeId, now: Instant) {
        let digest = Digest::Full(self.pages.digest());
        if let Some(peer) = self.peers.get_mut(&to)
            && peer.full_at.is_none_or(|at| now >= at + DIGEST_SPACING)
        {
            peer.digest = digest;
            peer.full_at = Some(now);
        }
    }

    /// Part of a round: leases to prolong, heartbeats, repair, silent peers.
    pub(super) fn look_after_peers(&mut self, silence: Duration, now: Instant) {
        let hash = Digest::Hash(self.pages.digest_hash());
        let chosen = self.random(self.peers.len() as u64) as usize;
        for (place, (node, peer)) in self.peers.iter_mut().enumerate() {
            if let Some(incarnation) = peer.incarnation {
                let borrower = Replica { node: *node, incarnation };
                let due = |meter: &super::Meter| meter.grant_is_due(&borrower, peer.clock, now);
                peer.beat |= self.meters.iter().any(due);
            }
            let quiet = peer.promised_at.is_none_or(|at| now + super::ROUND >= at);
            if peer.sent_at.is_some_and(|at| now >= at + CONFIRM) && peer.confirmed < peer.sent {
                peer.sent = peer.confirmed;
                peer.news = true;
            }
            if quiet {
                peer.beat = true;
                // Idle nodes compare with everybody, busy ones (whose pages change all the time) with one at random.
                if (silence == IDLE_SILENCE || place == chosen) && peer.digest == Digest::None {
                    peer.digest = hash.clone();
                }
            }
            let patience = peer.silence * 2 + Duration::from_millis(500);
            if now.since(peer.heard_at.max(peer.up_at)) > patience && !peer.closed {
                peer.closed = true;
                self.outputs.push_back(Output::Close(*node));
            }
        }
    }

    /// Sends what is due.
    pub(super) fn flush(&mut self, now: Instant) {
        let due: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| peer.is_due(now)).map(|(node, _)| *node).collect();
        for node in due {
            let message = self.message_for(node, now);
            self.outputs.push_back(Output::Send(node, Box::new(message)));
        }
        self.look_at_expiries();
    }

    fn message_for(&mut self, node: NodeId, now: Instant) -> Message {
        let silence = if self.idle_rounds == 0 { super::BUSY_SILENCE } else { IDLE_SILENCE };
        let peer = self.peers.get_mut(&node).expect("BUG! message for a peer without a link");
        let echo = peer.incarnation.map(|incarnation| Echo {
            incarnation,
            clock: peer.clock,
            age: nanos(now.since(peer.clock_at)),
            version: self
                .pages
                .get(&node)
                .filter(|page| page.incarnation() == incarnation)
                .map_or(0, Page::version),
        });
        let mut grants = Vec::new();
        let mut returns = Vec::new();
        if let Some(incarnation) = peer.incarnation {
            let replica = Replica { node, incarnation };
            let echo = (peer.clock, peer.clock_at);
            for (place, meter) in self.meters.iter_mut().enumerate() {
                if let Some(grant) = meter.grant_for(&replica, echo, peer.owed.contains(&place), now) {
                    grants.push((meter.fingerprint, grant));
                }
                if peer.words.contains(&place)
                    && let Some(word) = meter.word_for(&replica)
                {
                    returns.push((meter.fingerprint, word));
                }
            }
        }
        let mut deltas = std::mem::take(&mut peer.deltas);
        deltas.retain(|delta| (delta.author, delta.incarnation) != (self.config.id, self.config.incarnation));
        if let Some(own) = self.pages.own_delta(peer.sent, peer.confirmed) {
            peer.sent = own.upto;
            deltas.insert(0, own);
        }
        peer.news = peer.sent < self.pages.own_version();
        let message = Message {
            incarnation: self.config.incarnation,
            ledger: self.ledger_id,
            join: std::mem::take(&mut peer.join) && self.phase == Phase::Joining,
            clock: now,
            echo,
            silence_ms: silence.as_millis() as u32,
            digest: std::mem::replace(&mut peer.digest, Digest::None),
            deltas,
            grants,
            returns,
        };
        peer.beat = false;
        peer.owed.clear();
        peer.words.clear();
        peer.sent_at = Some(now);
        peer.promised_at = Some(now + silence);
        message
    }
}
