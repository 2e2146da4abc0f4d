//! What is told to whom, and when: news, repair of what was lost, leases to prolong.

use std::time::Duration;

use super::{BUSY_SILENCE, FEW_LINKS, IDLE_SILENCE, Node, Output, Phase, ROUND, SILENCE_MAX};
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::message::{Digest, Echo, Message};
use crate::protocol::time::{Instant, nanos};

/// Full digests are sent to one peer at most this often.
const DIGEST_SPACING: Duration = Duration::from_millis(200);
/// What a peer has not confirmed after this long, or after it should have said something, is sent again …
const CONFIRM: Duration = Duration::from_secs(1);
/// … and what concerns the members, or is the last word of an idle node, which is confirmed at once, after this long.
const CONFIRM_IMPORTANT: Duration = Duration::from_millis(200);
/// How often a busy node compares what it knows with some peer; less often the more links it has.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// How many times less often a node of a wide mesh does: much of what differs is on its way from its author.
const COMPARE_LESS: u32 = 4;

/// So many pages at most are compared one by one; more by buckets first.
const FULL_DIGEST_MAX: usize = 32;

impl Node {
    /// Everybody should hear of what changed on our page, by then at the latest.
    pub(super) fn peers_should_hear(&mut self, by: Instant) {
        self.peers.iter_mut().for_each(|(_, peer)| peer.tell(by));
    }

    /// Everybody who was not told all of our page should be told now.
    pub(super) fn peers_should_hear_what_is_new(&mut self, now: Instant) {
        let version = self.pages.own_version();
        self.peers.iter_mut().filter(|(_, peer)| peer.sent < version).for_each(|(_, peer)| peer.tell(now));
    }

    pub(super) fn peer_is_owed(&mut self, peer: NodeId) {
        let places = 0..self.meters.len();
        if let Some(peer) = self.peers.get_mut(&peer) {
            places.for_each(|place| peer.owes(place));
        }
    }

    pub(super) fn answer_digest(&mut self, from: NodeId, digest: &Digest, now: Instant) {
        match digest {
            Digest::None => {}
            Digest::Hash(hash) => {
                if *hash != self.pages.digest_hash() {
                    self.send_digest(from, now);
                }
            }
            Digest::Buckets(hashes) => {
                let differing = self.pages.differing(hashes);
                self.send_full_digest(from, differing, now);
            }
            Digest::Full(buckets, theirs) => {
                self.digests_answered = self.digests_answered.wrapping_add(1);
                let (deltas, behind) = self.pages.lacking(*buckets, theirs, self.digests_answered);
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.deltas = deltas;
                }
                if behind {
                    self.send_full_digest(from, *buckets, now);
                }
            }
        }
    }

    /// Tells a peer how far each page is known, or where there are many, how they differ.
    pub(super) fn send_digest(&mut self, to: NodeId, now: Instant) {
        if self.pages.count() <= FULL_DIGEST_MAX {
            self.send_full_digest(to, u64::MAX, now);
        } else if let Some(peer) = self.peers.get_mut(&to)
            && peer.compared_at.is_none_or(|at| now >= at + DIGEST_SPACING)
        {
            peer.digest = Digest::Buckets(self.pages.bucket_hashes());
            peer.compared_at = Some(now);
        }
    }

    fn send_full_digest(&mut self, to: NodeId, buckets: u64, now: Instant) {
        let (buckets, summaries) = self.pages.digest_of(buckets);
        let digest = Digest::Full(buckets, summaries);
        if let Some(peer) = self.peers.get_mut(&to)
            && peer.full_at.is_none_or(|at| now >= at + DIGEST_SPACING)
        {
            peer.digest = digest;
            peer.full_at = Some(now);
        }
    }

    /// Part of a round: leases to prolong, heartbeats, repair, silent peers.
    pub(super) fn look_after_peers(&mut self, now: Instant) {
        for borrower in self.grants_due(now) {
            if let Some(peer) = self.peers.get_mut(&borrower) {
                peer.beat = true;
            }
        }
        let hash = Digest::Hash(self.pages.digest_hash());
        let wide = self.is_wide_mesh();
        let signed = if self.busy { 0 } else { self.pages.own_signed_version() };
        let important = self.pages.own_membership_version().max(signed);
        // Idle nodes compare with everybody they greet, busy ones (whose pages change all the time) and those of wide meshes
        // with one at random.
        let chosen = if now >= self.compare_at || self.members_changed {
            let every = COMPARE_EVERY.max(COMPARE_EVERY / 25 * self.pages.count() as u32);
            self.compare_at = now + if wide { every * COMPARE_LESS } else { every };
            Some(self.random(self.peers.len() as u64) as usize)
        } else {
            None
        };
        self.members_changed = false;
        let busy = self.busy;
        for (place, (node, peer)) in self.peers.iter_mut().enumerate() {
            let patience =
                if peer.confirmed < important { CONFIRM_IMPORTANT } else { CONFIRM.max(peer.silence) };
            if peer.sent_at.is_some_and(|at| now >= at + patience) && peer.confirmed < peer.sent {
                peer.tell_again(now);
            }
            if peer.sent_at.is_some_and(|at| now >= at + ROUND / 2) {
                peer.beat |= peer.lacks || !peer.words_again.is_empty();
                peer.words.append(&mut peer.words_again);
            }
            let quiet = peer.promised_at.is_none_or(|at| now + ROUND >= at);
            peer.beat |= quiet;
            if ((quiet && !busy && !wide) || chosen == Some(place)) && peer.digest == Digest::None {
                peer.digest = hash.clone();
            }
            let patience = peer.silence * 2 + Duration::from_millis(500);
            if now.since(peer.heard_at.max(peer.up_at)) > patience && !peer.closed {
                peer.closed = true;
                self.outputs.push_back(Output::Close(*node));
            }
        }
    }

    /// The borrowers that should hear of their leases again.
    fn grants_due(&self, now: Instant) -> Vec<NodeId> {
        let is_due = |meter: &super::Meter, borrower: &Replica| {
            let peer = self.peers.get(&borrower.node);
            let peer = peer.filter(|peer| {
                peer.incarnation == Some(borrower.incarnation) && !self.audit.is_accused(&borrower.node)
            });
            peer.is_some_and(|peer| meter.grant_is_due(borrower, peer.clock, now))
        };
        let due = |meter| super::Meter::borrowers(meter).filter(move |borrower| is_due(meter, borrower));
        self.meters.iter().flat_map(due).map(|borrower| borrower.node).collect()
    }

    /// How soon this node promises a peer to say something again: soon where leases run, as they must be prolonged; the
    /// more links there are, the less often for the others.
    fn silence_for(&self, node: NodeId) -> Duration {
        let links = self.peers.len();
        let leases = || {
            let replica = self.peers.get(&node).and_then(|peer| peer.incarnation);
            replica.is_some_and(|incarnation| {
                let replica = Replica { node, incarnation };
                self.meters.iter().any(|meter| meter.has_lease_with(&replica))
            })
        };
        if (self.busy && links <= FEW_LINKS) || leases() {
            BUSY_SILENCE
        } else {
            IDLE_SILENCE.max(IDLE_SILENCE / 10 * links as u32).min(SILENCE_MAX)
        }
    }

    /// Sends what is due.
    pub(super) fn flush(&mut self, now: Instant) {
        for node in self.peers.due(now) {
            let message = self.message_for(node, now);
            self.outputs.push_back(Output::Send(node, Box::new(message)));
        }
        self.peers.settle();
        self.look_at_expiries();
    }

    fn message_for(&mut self, node: NodeId, now: Instant) -> Message {
        let silence = self.silence_for(node);
        let life = self.peers.get(&node).and_then(|peer| peer.incarnation);
        let knows = life.map_or(0, |incarnation| self.knows(&Replica { node, incarnation }));
        let accused = self.audit.is_accused(&node);
        let weight = self.weight_for(&node);
        let peer = self.peers.get_mut(&node).expect("BUG! message for a peer without a link");
        let echo = peer.incarnation.map(|incarnation| Echo {
            incarnation,
            clock: peer.clock,
            age: nanos(now.since(peer.clock_at)),
            version: knows,
            weight,
        });
        let mut grants = Vec::new();
        let mut returns = Vec::new();
        if let Some(incarnation) = peer.incarnation {
            let replica = Replica { node, incarnation };
            let echo = (peer.clock, peer.clock_at);
            for (place, meter) in self.meters.iter_mut().enumerate() {
                // What is out to a liar is not prolonged.
                if !accused
                    && let Some(grant) = meter.grant_for(&replica, echo, peer.owed.contains(&place), now)
                {
                    grants.push((meter.fingerprint, grant));
                }
                if peer.words.contains(&place)
                    && let Some(word) = meter.word_for(&replica)
                {
                    returns.push((meter.fingerprint, word));
                }
            }
        }
        let deltas = std::mem::take(&mut peer.deltas);
        let mut news = None;
        if let Some(own) = self.pages.own_news(peer.sent, peer.confirmed, peer.repeats()) {
            peer.sent = own.upto;
            peer.unconfirmed.get_or_insert((now, own.upto));
            news = Some(own);
        }
        peer.news_by = (peer.sent < self.pages.own_version()).then_some(now);
        let has_calendar = self.period_ends < Instant::from_nanos(u64::MAX);
        let message = Message {
            incarnation: self.config.incarnation,
            ledger: self.ledger_id,
            join: std::mem::take(&mut peer.join) && self.phase == Phase::Joining,
            clock: now,
            wall: self.wall.as_ref().filter(|_| has_calendar).map(|wall| wall.at(now)),
            echo,
            silence_ms: silence.as_millis() as u32,
            digest: std::mem::replace(&mut peer.digest, Digest::None),
            version: self.pages.own_version(),
            news,
            deltas,
            grants,
            returns,
        };
        (peer.beat, peer.lacks) = (false, false);
        peer.owed.clear();
        peer.words.clear();
        peer.sent_at = Some(now);
        peer.promised_at = Some(now + silence);
        message
    }
}
