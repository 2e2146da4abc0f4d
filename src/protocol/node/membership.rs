//! The ledger at work: joining, vouching, leaving, and members that vanish.

use std::collections::BTreeSet;

use super::majority::Quorum;
use super::sharing::SLOW_ROUND;
use super::{LEAVE_MAX, Node, Output, Phase, Policy, Trust};
use crate::protocol::bucket::Level;
use crate::protocol::gossip::{Delta, PAGES_MAX, Page, Record};
use crate::protocol::id::{LedgerId, NodeId, Replica};
use crate::protocol::keyed::History;
use crate::protocol::ledger::{GIFTS_MAX, Gift, GiftLevels, Ledger};
use crate::protocol::meter::Meter;
use crate::protocol::record::{Key, Value};
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::Instant;

impl Node {
    pub(super) fn is_leaving(&self, node: &NodeId) -> bool {
        self.leaving.contains(node)
    }

    /// Whether base share may be given to a node: it stays, and nothing is held against it.
    pub(super) fn may_be_given(&self, node: &NodeId) -> bool {
        !self.is_leaving(node) && !self.audit.is_accused(node)
    }

    /// Starts to leave: waiting requests are refused, leases and base share go back, then comes [`Output::Left`].
    pub fn leave(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Leaving(_) | Phase::Left) {
            return;
        }
        self.expire(now);
        // A base share that settles still does until then; there is time enough.
        self.phase = Phase::Leaving(now + LEAVE_MAX);
        self.refuse_all(now);
        self.rebase(now);
        self.publish_profile(now);
        self.sign_last_rows(now);
        self.wake(now);
        self.finish(now);
    }

    /// Goes on leaving as far as possible.
    pub(super) fn leave_if_done(&mut self, now: Instant) {
        let Phase::Leaving(deadline) = self.phase else { return };
        let lent = self.meters.iter().any(|meter| meter.lent() > Share::ZERO);
        let borrowed = self.meters.iter().any(|meter| meter.borrowed() > Share::ZERO);
        let settled = self.settles_at.is_none();
        if settled && !lent && !borrowed && self.base() > Share::ZERO {
            // Whoever has least: then the others need not even it out.
            let base = |replica: &Replica| self.bases.get(&replica.node).copied().unwrap_or_default();
            let heirs = self
                .linked()
                .filter(|replica| self.bases.contains_key(&replica.node) && self.may_be_given(&replica.node));
            if let Some(heir) = heirs.min_by_key(|replica| (base(replica), replica.node)) {
                self.give(heir, self.base(), now);
            }
        }
        // Once everybody knows that it leaves nobody gives it anything, and what was given before has come.
        let version = self.pages.own_membership_version().max(self.pages.own_signed_version());
        let known = self.linked().all(|replica| {
            let peer = &self.peers[&replica.node];
            peer.confirmed >= version && self.knows(&replica) >= peer.version
        });
        let done = settled && !lent && !borrowed && known;
        if done || now >= deadline {
            self.phase = Phase::Left;
            self.save(settled && !lent);
            self.outputs.push_back(Output::Left);
        }
    }

    /// Settles which ledger counts between us and a peer. True if both have the same now.
    pub(super) fn meet(&mut self, theirs: Option<LedgerId>, from: NodeId, now: Instant) -> bool {
        match (self.ledger_id, theirs) {
            (_, None) => self.ledger_id.is_some(),
            (Some(ours), Some(theirs)) if ours == theirs => true,
            (Some(ours), Some(theirs)) if ours < theirs => false,
            _ if self.keeps_its_ledger() => {
                self.met_others(from);
                false
            }
            (ours, Some(theirs)) => {
                if ours.is_some() {
                    self.notice(format!(
                        "met a swarm with an older claim through {}; joining its ledger {} with base zero",
                        from.short(),
                        theirs.0.short()
                    ));
                }
                self.adopt(theirs, now);
                true
            }
        }
    }

    /// Whether no other ledger is joined, whatever its name. Where founders are configured nobody's claim is older than
    /// theirs. Where trust weighs, whoever shares its ledger with others does not leave it on a stranger's word, which
    /// costs nothing: anybody can make a key with a lower name, and found with it.
    fn keeps_its_ledger(&self) -> bool {
        let vouching = &self.config.vouching;
        let shares = self.bases.len() > 1 && self.bases.contains_key(&self.config.id);
        !vouching.founders.is_empty() || (vouching.trust == Trust::Weight && shares)
    }

    fn met_others(&mut self, from: NodeId) {
        if let Some(peer) = self.peers.get_mut(&from)
            && !std::mem::replace(&mut peer.is_foreign, true)
        {
            self.notice(format!(
                "{} belongs to another swarm; write the same [[swarm.founder]] on all nodes, or let one join anew",
                from.short()
            ));
        }
    }

    fn adopt(&mut self, ledger: LedgerId, now: Instant) {
        self.ledger_id = Some(ledger);
        self.ledger = Ledger::default();
        self.quorum = Quorum::new(false, now);
        self.former.clear();
        self.gifts_taken.clear();
        let me = self.replica;
        self.meters.iter_mut().for_each(|meter| meter.forget_everything(me, now));
        self.all_keys().for_each(|keys| keys.start_over(now));
        self.dynamic.history = History::new(now);
        self.pages.start_over(ledger, now);
        self.leaving.clear();
        self.forget_neighbours();
        self.peers.iter_mut().for_each(|(_, peer)| peer.start_over());
        if !matches!(self.phase, Phase::Leaving(_) | Phase::Left) {
            self.phase = Phase::Joining;
        }
        self.publish_profile(now);
        self.rebase(now);
        // The former ledger must not come to life again.
        self.save(false);
    }

    /// The ledger has news: base shares may have moved.
    pub(super) fn ledger_changed(&mut self, now: Instant) {
        self.rebase(now);
        self.look_at_losses(now);
        self.return_revoked(now);
        self.save_soon(now);
    }

    /// Somebody vouched for this node.
    pub(super) fn become_member(&mut self) {
        if self.phase == Phase::Joining {
            self.phase = Phase::Ready;
            // On disk before anything is lent: the next life must know that it has to settle.
            self.save(false);
            self.notice("joined the swarm".to_owned());
        }
    }

    /// A peer asks to be vouched for. It gets half of what is free here, at most a fair share; nothing is free for a
    /// member that has a share already, or while this node settles.
    pub(super) fn vouch_on_request(&mut self, subject: Replica, now: Instant) {
        let has = self.bases.get(&subject.node).is_some_and(|base| *base > Share::ZERO);
        if self.phase != Phase::Ready
            || has
            || !self.may_be_given(&subject.node)
            || self.bases.len() >= PAGES_MAX
            || !self.may_give_to(&subject.node)
            || self.is_forgotten(&subject.node)
        {
            return;
        }
        let members = self.bases.len() as u64 + u64::from(!self.bases.contains_key(&subject.node));
        let share = self.free().scale(1, 2).min(ONE.scale(1, members));
        // The next who asks should find something, too.
        let room = self.auto_room();
        let share = share.min(if room < ONE { room.scale(1, 2) } else { room });
        self.give(subject, share, now);
        self.notice(format!("vouched for {} with {share}", subject.node.short()));
    }

    /// How much more this node gives by itself. Below an `auto_vouch` of one, whoever joined through it shares that part of
    /// all that it ever had, however many they are; what they give back is there to be given again.
    pub(super) fn auto_room(&self) -> Share {
        let part = self.config.vouching.auto_vouch;
        if part >= ONE {
            return ONE;
        }
        let me = &self.config.id;
        let given: Share =
            self.ledger.gifts(me).map(|(subject, _)| self.ledger.given_net(me, &subject)).sum();
        self.ledger.income(me).scale(part.0, ONE.0).saturating_sub(given)
    }

    /// Whether one more gift of this node would count.
    pub(super) fn may_give_to(&self, subject: &NodeId) -> bool {
        let me = &self.config.id;
        self.ledger.gift(me, subject).is_some() || self.ledger.gifts(me).count() < GIFTS_MAX
    }

    /// Moves base share, and its part of every bucket's level, to another member. On disk before it is known.
    pub(super) fn give(&mut self, subject: Replica, share: Share, now: Instant) {
        self.give_weighted(subject, share, None, now);
    }

    /// … with another weight than before.
    pub(super) fn give_weighted(
        &mut self,
        subject: Replica,
        share: Share,
        weight: Option<u32>,
        now: Instant,
    ) {
        let share = share.min(self.free());
        let known = self.ledger.gift(&self.config.id, &subject.node).cloned().unwrap_or_default();
        if share == Share::ZERO && self.ledger.is_member(&subject.node) {
            return;
        }
        let lives = (self.config.incarnation, subject.incarnation);
        let before = known.levels.filter(|levels| (levels.from, levels.to) == lives);
        // What a gift brings of a key's limits is empty: levels of all keys would not fit.
        let configured = self.configured_meters();
        let mut atoms = Vec::with_capacity(configured);
        for (place, meter) in self.meters.iter_mut().enumerate() {
            let given = meter.give_base(share, now).0;
            if place >= configured {
                continue;
            }
            let known = before.as_ref().and_then(|levels| {
                levels.atoms.iter().find(|(limit, _)| *limit == meter.fingerprint).map(|(_, atoms)| *atoms)
            });
            atoms.push((meter.fingerprint, known.unwrap_or(0).wrapping_add(given)));
        }
        let levels = Some(GiftLevels { from: lives.0, to: lives.1, atoms });
        let gift = Gift { share: known.share + share, levels, weight: weight.unwrap_or(known.weight) };
        self.quorum.gave(subject.node, share, now);
        self.ledger.merge_given(self.config.id, subject.node, &gift);
        self.pages.publish(Key::Given(subject.node), Value::Gift(gift), now);
        self.save(false);
        self.peers_should_hear(now);
        self.rebase(now);
    }

    /// Takes the level that came with base share given to this life.
    pub(super) fn receive_gift(&mut self, voucher: NodeId, gift: &Gift, now: Instant) {
        let Some(levels) = gift.levels.as_ref().filter(|levels| levels.to == self.config.incarnation) else {
            return;
        };
        let before = self.base();
        self.rebase(now);
        let gained = self.base().saturating_sub(before);
        let voucher = Replica { node: voucher, incarnation: levels.from };
        let meters = self.configured_meters();
        let taken = self.gifts_taken.entry(voucher).or_insert_with(|| vec![0; meters]);
        for (meter, taken) in self.meters.iter_mut().zip(taken) {
            let atoms =
                levels.atoms.iter().find(|(limit, _)| *limit == meter.fingerprint).map(|(_, atoms)| *atoms);
            if let Some(atoms) = atoms {
                // No more than the base share that came with it can hold, whatever the voucher says.
                let level = Level(atoms.wrapping_sub(*taken)).min(meter.bucket().depth_of(gained));
                *taken = atoms;
                meter.set_base(meter.base(), level, now);
            }
        }
    }

    /// Base share that is free at every limit.
    pub(super) fn free(&self) -> Share {
        self.meters.iter().map(Meter::free).fold(self.usable_base(), Share::min)
    }

    /// Once a second: ask to join, even out base shares, take care of members that vanished.
    pub(super) fn look_after_members(&mut self, now: Instant) {
        match self.phase {
            Phase::Joining => self.ask_to_join(now),
            Phase::Ready => {
                self.reclaim(now);
                self.look_at_losses(now);
                self.return_revoked(now);
                self.drift(now);
            }
            _ => {}
        }
    }

    /// Asks one peer at a time to vouch for this node, another each second.
    pub(super) fn ask_to_join(&mut self, now: Instant) {
        if self.phase != Phase::Joining || now < self.join_at {
            return;
        }
        // Whoever is known to have something to give; before anything is known of the ledger, whoever has one.
        let rich = |node: &NodeId| self.bases.get(node).is_some_and(|base| *base > Share::ZERO);
        let linked = || self.linked().map(|replica| replica.node);
        let mut candidates: Vec<NodeId> = linked().filter(rich).collect();
        if candidates.is_empty() {
            candidates = linked().filter(|node| self.peers[node].has_ledger).collect();
        }
        if candidates.is_empty() {
            return;
        }
        self.join_at = now + SLOW_ROUND;
        let chosen = candidates[self.random(candidates.len() as u64) as usize];
        if let Some(peer) = self.peers.get_mut(&chosen) {
            peer.ask_to_join();
        }
    }

    /// Members that nothing was heard of for `forget_after`, first-hand or through others. Only of a full mesh, where
    /// whoever lives is heard: beyond [`MESH_MAX`](super::MESH_MAX) nobody counts as lost.
    pub(super) fn lost_members(&self, now: Instant) -> BTreeSet<NodeId> {
        let silent = |node: &NodeId| {
            let news = self.pages.get(node).map_or(self.started, Page::news_at);
            let heard = self.down_at.get(node).map_or(news, |down| news.max(*down));
            *node != self.config.id
                && self.peers.get(node).is_none_or(|peer| peer.incarnation.is_none())
                && now.since(heard.max(self.started)) >= self.config.forget_after
        };
        let share = |(node, base): (&NodeId, &Share)| (*base > Share::ZERO && silent(node)).then_some(*node);
        if self.is_mesh() { self.bases.iter().filter_map(share).collect() } else { BTreeSet::new() }
    }

    /// The first member (by id) of a side takes the base share of members that its whole side has lost, or under
    /// `majority` proposes to.
    fn reclaim(&mut self, now: Instant) {
        if self.config.policy == Policy::Strict || !self.is_mesh() {
            return;
        }
        let side: Vec<NodeId> =
            self.linked().map(|peer| peer.node).filter(|peer| self.bases.contains_key(peer)).collect();
        if side.iter().any(|peer| *peer < self.config.id && !self.is_leaving(peer)) {
            return;
        }
        for lost in self.lost_members(now) {
            let agree = |peer: &&NodeId| {
                let profile = self.pages.get(peer).and_then(|page| page.get(&Key::Profile));
                matches!(profile, Some(Value::Profile(profile)) if profile.lost.contains(&lost))
            };
            if self.config.policy == Policy::Majority {
                let base = |peer: &NodeId| self.bases.get(peer).copied().unwrap_or_default();
                let agree = side.iter().filter(agree).map(base).sum::<Share>() + self.base();
                if agree > ONE.scale(1, 2) {
                    self.propose(lost, now);
                }
            } else if side.iter().all(|peer| agree(&peer)) {
                self.take_back(lost, self.bases.get(&lost).copied().unwrap_or_default(), now);
            }
        }
    }

    /// Writes that this node took so much more from a member.
    pub(super) fn take_back(&mut self, subject: NodeId, share: Share, now: Instant) {
        if share == Share::ZERO {
            return;
        }
        let total = self.ledger.reclaimed(&self.config.id, &subject) + share;
        self.ledger.merge_reclaimed(self.config.id, subject, total);
        // Under `majority` it counts from here on, so that what is on disk does.
        self.rebase(now);
        self.pages.publish(Key::Reclaimed(subject), Value::Share(total), now);
        self.save(false);
        self.peers_should_hear(now);
        self.notice(format!("reclaimed {share} of {}", subject.short()));
    }

    /// Takes up again what the former life knew of the ledger.
    pub(super) fn resume_ledger(&mut self, records: Vec<(NodeId, Record)>, now: Instant) {
        if self.ledger_id == self.config.vouching.ledger() {
            self.ledger = Ledger::founded_by(&self.config.vouching.founders);
        }
        for (author, record) in records {
            let delta = Delta { author, records: vec![record] };
            for change in self.pages.absorb_ledger(&delta, now).changed {
                self.merge_record(author, change.key, &change.value);
            }
        }
    }

    /// Writes what an author says in the ledger. True if it is news.
    pub(super) fn merge_record(&mut self, author: NodeId, key: Key, value: &Value) -> bool {
        self.ledger_id.is_some_and(|id| self.ledger.merge(id, author, key, value))
    }
}
