//! Messages in and out.

use std::time::Duration;

use super::peers::Peer;
use super::{BUSY_SILENCE, FEW_LINKS, IDLE_SILENCE, Node, Output, Phase, ROUND, SILENCE_MAX};
use crate::protocol::gossip::{Absorbed, Change, Delta, Page};
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::lease::TTL;
use crate::protocol::message::{Digest, Echo, Message};
use crate::protocol::pause::PauseMark;
use crate::protocol::policy::Trust;
use crate::protocol::record::{Key, PROFILE_ADDRESSES_MAX, Profile, Value};
use crate::protocol::share::{ONE, Share};
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

/// The most nodes that are heard first-hand in one life; further ones are not listened to.
const LIVES_MAX: usize = 4_096;

/// A message holds a record that its author has not signed.
struct Forged;

/// What the news of one message mean for the node as a whole.
#[derive(Default)]
struct Learned {
    /// Something before it is missing.
    gap: bool,
    /// The ledger changed.
    of_ledger: bool,
    /// It is for everybody, …
    of_members: bool,
    /// … and the sender's own.
    first_hand: bool,
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
            // Each page comes from its author; what only others know must come from a few of them.
            if self.peers.len() < FEW_LINKS {
                link.digest = Digest::Hash(self.pages.digest_hash());
            }
            link.tell(now);
            self.peers.insert(peer, link);
            self.look_up_neighbour(&peer);
            self.wake(now);
        }
    }

    pub(super) fn link_down(&mut self, peer: NodeId, now: Instant) {
        if let Some(wall) = &mut self.wall {
            wall.forget(peer);
        }
        let link = self.peers.remove(&peer);
        if link.is_some() && self.is_leaving(&peer) {
            self.outputs.push_back(Output::Forget(peer));
        }
        // Only of members, so that strangers cannot fill it, and of links over which something was heard.
        if link.is_some_and(|link| link.incarnation.is_some()) && self.bases.contains_key(&peer) {
            self.down_at.insert(peer, now);
        } else if self.bases.contains_key(&self.config.id) && !self.is_member(&peer) {
            // Whoever does not know the ledger yet does not know who is a stranger.
            self.pages.forget_stranger(&peer);
            self.lives.remove(&peer);
        }
        self.look_up_neighbour(&peer);
        self.stale = true;
    }

    /// Everybody should hear of what changed on our page, by then at the latest.
    pub(super) fn peers_should_hear(&mut self, by: Instant) {
        self.peers.iter_mut().for_each(|(_, peer)| peer.tell(by));
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
        let begins = peer.incarnation.is_none_or(|known| known < message.incarnation);
        match peer.incarnation {
            Some(known) if known > message.incarnation => return,
            Some(known) if known == message.incarnation => {}
            _ => {
                peer.begin_life(message.incarnation, now);
                let replica = Replica { node: from, incarnation: message.incarnation };
                self.meters.iter_mut().for_each(|meter| meter.forget_former(replica));
                self.former_leases.forget_former(replica);
            }
        }
        let replica = Replica { node: from, incarnation: message.incarnation };
        let to_us = message.echo.filter(|echo| echo.incarnation == self.config.incarnation);
        if message.clock > peer.clock {
            (peer.clock, peer.clock_at) = (message.clock, now);
            if let (Some(wall), Some(theirs)) = (&mut self.wall, message.wall) {
                wall.hear(from, theirs, peer.round_trip, now);
            }
        }
        peer.heard_at = now;
        peer.has_ledger = message.ledger.is_some();
        peer.version = peer.version.max(message.version);
        peer.silence = Duration::from_millis(u64::from(message.silence_ms)).min(SILENCE_MAX);
        if let Some(echo) = to_us {
            peer.confirmed = peer.confirmed.max(echo.version.min(self.pages.own_version()));
            if peer.confirmed < peer.sent && peer.sent_at.is_some_and(|at| echo.clock >= at) {
                // It has heard our last message and still lacks something: an earlier one was lost.
                peer.sent = peer.confirmed;
                peer.tell(now);
            }
            let round_trip = now.since(echo.clock).saturating_sub(Duration::from_nanos(echo.age));
            // Smoothed as in RFC 6298, with its gain of 1/8.
            peer.round_trip = Some(peer.round_trip.map_or(round_trip, |known| (known * 7 + round_trip) / 8));
            // Whoever would lend to a node where requests wait must know a recent moment of its clock.
            peer.beat |=
                now.since(echo.clock) > TTL / 4 && self.pools.iter().any(|state| !state.queue.is_empty());
        }
        if begins {
            self.look_up_neighbour(&from);
        }
        let same_ledger = self.meet(message.ledger, from, now);
        if let Some(echo) = to_us.filter(|_| same_ledger) {
            self.confirmed_by(from, echo, now);
        }
        self.ask_to_join(now);
        if !same_ledger {
            return;
        }
        if self.merge(replica, message, now).is_err() {
            self.refuse(from, now);
            return;
        }
        let lacks = self.knows(&replica) < message.version;
        if let Some(peer) = self.peers.get_mut(&from).filter(|_| lacks) {
            // So that it tells again what was lost.
            peer.beat |= peer.sent_at.is_none_or(|at| now >= at + ROUND);
        }
        if to_us.is_some() {
            self.hear_leases(replica, message, now);
        }
        self.answer_digest(from, &message.digest, now);
        if message.join {
            self.vouch_on_request(replica, now);
        }
    }

    /// Nothing of a forged message is acted upon any more, and the link that brought it is closed: honest nodes check what
    /// they pass on.
    fn refuse(&mut self, from: NodeId, now: Instant) {
        self.audit.forged(from);
        self.believe_less(now);
        self.notice(format!(
            "{} sent a record that its author has not signed: closed the link",
            from.short()
        ));
        if let Some(peer) = self.peers.get_mut(&from).filter(|peer| !peer.closed) {
            peer.closed = true;
            self.outputs.push_back(Output::Close(from));
        }
    }

    /// A later life of this node is there: somebody started a copy of its directory. The later one wins, as after a
    /// restart; this one keeps away from what both would spend.
    fn meet_double(&mut self) {
        if !self.doubled {
            self.doubled = true;
            self.stale = true;
            self.notice(
                "another node runs with this node's key: this one uses no base share any more; stop one"
                    .to_owned(),
            );
        }
    }

    fn hear_leases(&mut self, from: Replica, message: &Message, now: Instant) {
        for (fingerprint, word) in &message.returns {
            if let Some(place) = self.place_of(*fingerprint) {
                self.stale |= self.meters[place].hear_return(from, word, now);
            }
        }
        let base = self.credible_base(&from.node);
        // Among strangers a lender brings no more level than its own share could have earned. Members who trust one another
        // gather it: whole requests in turns need the level of many.
        let in_full = self.config.vouching.trust == Trust::Members && base > Share::ZERO;
        let worth = if in_full { ONE } else { base };
        for (fingerprint, grant) in &message.grants {
            if let Some(place) = self.place_of(*fingerprint) {
                self.meters[place].hear_grant(from, grant, base, worth, now);
                self.stale = true;
                self.publish_loan(place, now);
                if let Some(peer) = self.peers.get_mut(&from.node) {
                    peer.words.insert(place);
                    peer.tell(now);
                }
            }
        }
    }

    /// Up to which version the page of this life is known.
    pub(super) fn knows(&self, replica: &Replica) -> u64 {
        let page = self.pages.get(&replica.node).filter(|page| page.incarnation() == replica.incarnation);
        page.map_or(0, Page::version)
    }

    pub(super) fn place_of(&self, fingerprint: crate::protocol::limit::Fingerprint) -> Option<usize> {
        self.meters.iter().position(|meter| meter.fingerprint == fingerprint)
    }

    /// Takes up what a message tells of pages, the sender's own and others'.
    fn merge(&mut self, from: Replica, message: &Message, now: Instant) -> Result<(), Forged> {
        let mut learned = Learned::default();
        if let Some(news) = &message.news {
            let absorbed = self.pages.hear(from.node, from.incarnation, news, now);
            let for_all = self.learn_all(from.node, &absorbed, &mut learned, now)?;
            // What an idle node has signed is its last word for long, and it sends it until it is confirmed. Where greetings
            // are rare that is also if it is known here: the word that confirmed it was lost.
            let is_signed = news.entries.iter().any(|entry| entry.signature.is_some());
            let is_news = absorbed.changed.iter().any(|change| change.signed);
            let last_word = !self.busy && (is_news || (is_signed && self.is_wide_mesh()));
            learned.first_hand = last_word || !for_all.is_empty();
            self.pass_on(from.node, &for_all, from.node, now);
        }
        // Whoever is a member by one of these records may have written another of them.
        let mut left: Vec<&Delta> = message.deltas.iter().collect();
        loop {
            let before = left.len();
            let (known, unknown) = left.into_iter().partition(|delta| self.is_member(&delta.author));
            left = unknown;
            let known: Vec<&Delta> = known;
            for delta in &known {
                let absorbed = self.pages.absorb_ledger(delta, now);
                let for_all = self.learn_all(delta.author, &absorbed, &mut learned, now)?;
                self.pass_on(delta.author, &for_all, from.node, now);
            }
            if left.len() == before {
                break;
            }
        }
        if std::mem::take(&mut learned.of_ledger) {
            self.ledger_changed(now);
        }
        for delta in &message.deltas {
            if !self.is_member(&delta.author) {
                continue;
            }
            let absorbed = self.pages.absorb_pages(delta, now);
            let for_all = self.learn_all(delta.author, &absorbed, &mut learned, now)?;
            self.pass_on(delta.author, &for_all, from.node, now);
        }
        if learned.gap {
            self.send_digest(from.node, now);
        }
        if learned.of_members {
            self.compare_with_others(from.node);
        }
        if learned.first_hand
            && let Some(peer) = self.peers.get_mut(&from.node)
        {
            // Confirms it, so that it need not be told again.
            peer.beat = true;
        }
        Ok(())
    }

    /// Whether its records count: it is a member, or the swarm is its.
    fn is_member(&self, node: &NodeId) -> bool {
        self.bases.contains_key(node)
            || self.ledger.is_member(node)
            || self.ledger_id.is_some_and(|ledger| ledger.0 == *node)
    }

    /// Acts on what was taken up. Gives the names of what is for all.
    fn learn_all(
        &mut self,
        author: NodeId,
        absorbed: &Absorbed,
        learned: &mut Learned,
        now: Instant,
    ) -> Result<Vec<Key>, Forged> {
        learned.gap |= absorbed.gap;
        let mut for_all = Vec::new();
        for change in &absorbed.changed {
            if change.key.is_for_all() {
                for_all.push(change.key);
            }
            learned.of_ledger |= self.learn(author, change, now);
        }
        learned.of_members |= !for_all.is_empty();
        for proof in &absorbed.contradictions {
            self.convict(author, proof.clone(), None, now);
        }
        if absorbed.double {
            self.meet_double();
        }
        if absorbed.forged { Err(Forged) } else { Ok(for_all) }
    }

    /// Who is a member and where it is reached should be known to everybody soon, not only at the next heartbeat:
    /// asks all peers but the one that told us whether they know it. Where there are many, one in the next round.
    fn compare_with_others(&mut self, except: NodeId) {
        let links = self.peers.len();
        if links > FEW_LINKS {
            self.members_changed = self.is_mesh();
            return;
        }
        let hash = self.pages.digest_hash();
        for (_, peer) in self.peers.iter_mut().filter(|(node, _)| **node != except) {
            if peer.digest == Digest::None {
                peer.digest = Digest::Hash(hash);
            }
        }
    }

    /// Acts on one news. True if the ledger changed.
    fn learn(&mut self, author: NodeId, change: &Change, now: Instant) -> bool {
        let author = Replica { node: author, incarnation: change.life };
        // What not everybody will hear of, should the author die now, does not count: all count the same.
        if let (Key::Row(limit), Value::Row(row), true) = (change.key, &change.value, change.signed)
            && let Some(place) = self.place_of(limit)
        {
            self.meters[place].used.merge(author, row.used);
        }
        if !change.latest {
            return false;
        }
        match (change.key, &change.value) {
            (Key::Loans(limit), Value::Loans(book)) => {
                // What is not signed binds nobody.
                if change.signed {
                    self.hear_book(author, limit, book, now);
                }
                false
            }
            (Key::Evidence(accused), Value::Evidence(proof)) => {
                self.hear_evidence(author.node, accused, proof, now);
                false
            }
            (Key::Profile, Value::Profile(profile)) => {
                if profile.leaving {
                    self.leaving.insert(author.node);
                } else {
                    self.leaving.remove(&author.node);
                }
                self.learn_addresses(author.node, profile, now);
                self.look_up_neighbour(&author.node);
                self.stale = true;
                false
            }
            (Key::Row(fingerprint), Value::Row(row)) => {
                if let Some(place) = self.place_of(fingerprint) {
                    self.learn_row(place, author, row);
                }
                false
            }
            (Key::Pause(pool, reason), Value::Pause(mark)) if *mark == (PauseMark { reason, ..*mark }) => {
                self.learn_pause(author, pool, *mark, now);
                false
            }
            (Key::Breaker(pool), Value::Breaker(..)) => {
                self.learn_breaker(author, pool, &change.value, now);
                false
            }
            (Key::Unreported(limit), Value::Unreported(estimate)) => {
                self.learn_unreported(author, limit, *estimate, now);
                false
            }
            (Key::KeyRow(_), Value::KeyRow(row)) => {
                self.learn_key_row(author, row.as_ref(), now);
                false
            }
            (Key::Given(subject), Value::Gift(gift)) if subject == self.config.id => {
                let news = self.merge_record(author.node, change.key, &change.value);
                if news {
                    // A member from here on: the level that came with the gift needs a share to be held by.
                    self.become_member();
                    self.receive_gift(author.node, gift, now);
                }
                news
            }
            _ => self.merge_record(author.node, change.key, &change.value),
        }
    }

    /// Where a peer is reached, linked or not: whoever has the smaller id dials when the link breaks, and after a restart
    /// a node looks for its swarm there.
    fn learn_addresses(&mut self, author: NodeId, profile: &Profile, now: Instant) {
        let addresses: Vec<String> = profile.addresses.iter().take(PROFILE_ADDRESSES_MAX).cloned().collect();
        if profile.leaving {
            self.reached_at.remove(&author);
        } else if !addresses.is_empty() && self.reached_at.get(&author) != Some(&addresses) {
            self.reached_at.insert(author, addresses.clone());
            self.reach(author, addresses);
            self.save_soon(now);
        }
    }

    fn answer_digest(&mut self, from: NodeId, digest: &Digest, now: Instant) {
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
                let (deltas, behind) = self.pages.lacking(*buckets, theirs);
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
    fn send_digest(&mut self, to: NodeId, now: Instant) {
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
                peer.sent = peer.confirmed;
                peer.tell(now);
            }
            if peer.sent_at.is_some_and(|at| now >= at + ROUND / 2) && !peer.words_again.is_empty() {
                peer.words.append(&mut peer.words_again);
                peer.beat = true;
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
        if let Some(own) = self.pages.own_news(peer.sent, peer.confirmed) {
            peer.sent = own.upto;
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
        peer.beat = false;
        peer.owed.clear();
        peer.words.clear();
        peer.sent_at = Some(now);
        peer.promised_at = Some(now + silence);
        message
    }
}
