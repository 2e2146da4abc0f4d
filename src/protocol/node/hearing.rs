//! Links, and what is heard over them.

use std::time::Duration;

use super::peers::Peer;
use super::{FEW_LINKS, Node, Output, ROUND, SILENCE_MAX};
use crate::protocol::gossip::{Absorbed, Change, Delta, Page};
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::lease::TTL;
use crate::protocol::message::{Digest, Message};
use crate::protocol::pause::PauseMark;
use crate::protocol::policy::Trust;
use crate::protocol::record::{Key, PROFILE_ADDRESSES_MAX, Profile, Value};
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::Instant;

/// The most nodes that are heard first-hand in one life; further ones are not listened to.
const LIVES_MAX: usize = 4_096;

/// A message holds a record that its author has not signed.
struct Forged;

/// What the news of one message mean for the node as a whole.
#[derive(Default)]
struct Learned {
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
            if peer.lost_something(echo.clock) {
                peer.tell_again(now);
            }
            let round_trip = now.since(echo.clock).saturating_sub(Duration::from_nanos(echo.age));
            // Smoothed as in RFC 6298, with its gain of 1/8.
            peer.round_trip = Some(peer.round_trip.map_or(round_trip, |known| (known * 7 + round_trip) / 8));
            // Whoever would lend must know a recent moment of the borrower's clock.
            let old = now.since(echo.clock) > TTL / 4 && !peer.beat;
            if old && self.waits_for_share() {
                self.peers.get_mut(&from).into_iter().for_each(|peer| peer.beat = true);
            }
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
        if let Some(peer) = self.peers.get_mut(&from) {
            // So that it tells again what was lost; once in a round.
            peer.lacks = lacks;
            peer.beat |= lacks && peer.sent_at.is_none_or(|at| now >= at + ROUND);
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
                if self.meters[place].hear_grant(from, grant, base, worth, now) {
                    self.stale = true;
                    self.publish_loan(place, now);
                }
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
            && self.bases.contains_key(&author.node)
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

    /// Counts what somebody has signed before it was a member: nobody passed it on then.
    pub(super) fn count_signed(&mut self, member: NodeId) {
        let rows: Vec<_> =
            self.pages.signed_rows(member).map(|(life, limit, row)| (life, limit, row.used)).collect();
        for (incarnation, limit, used) in rows {
            if let Some(place) = self.place_of(limit) {
                self.meters[place].used.merge(Replica { node: member, incarnation }, used);
            }
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
}
