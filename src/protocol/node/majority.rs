//! Policy `majority`: members that hold more than half of all base shares take what a vanished member had, and whoever is
//! not heard by that many has stopped using its own before.
//!
//! # Why nothing is used twice
//!
//! Let F be `forget_after`. Four rules:
//!
//! 1. **Stop.** A node uses base share only while members with more than half of it, itself counted, have confirmed
//!    that they heard it: each by an echo of its clock no older than F less [`margin`], with the base share that it had
//!    then. The margin covers the leases that the node has out and the drift of both clocks.
//! 2. **Agree.** A member agrees that `v` may reclaim from `s` (a [`Loss`]) only if it has not heard `s` for F, or `s` has
//!    agreed itself. It agrees with no more than the least base share that it had in the last F, to one `v` at a time, and
//!    for good.
//! 3. **Take.** `v` reclaims once, in its own view of the ledger, more than half of all base share agrees.
//! 4. **Return.** Whoever knows that somebody agreed to the loss of `s` confirms `s` with nothing, until `s` has said that
//!    it knows. When `s` hears of it, it agrees too and uses no base share until it sees the reclaim.
//!
//! Say that `v` reclaims at a moment r, and `s` uses base share at r or later. More than half confirmed `s`, more than half
//! agreed: some part of base share did both. If one member held it for both, it agreed either before it confirmed, against
//! rule 4, or after, and then its confirmation is older than F before r, against rule 1. If it was moved in between, from
//! the one that confirmed to the one that agreed, the latter had it for F already, so the confirmation is older than that;
//! in the other direction, the one that confirmed learned the gift from a page that told of the agreement before it.
//!
//! It assumes honest nodes, clocks that differ by up to 200 ppm and go on while the machine sleeps, and that what a member
//! writes in the ledger reaches all who hear one another within F: a share that was given away within that time before
//! its giver vanished, unknown to the others, is taken from the giver once more. Two members that try to reclaim the
//! same share at the same time may each get too few to agree; then it stays reserved until its node returns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Node, Policy};
use crate::protocol::id::NodeId;
use crate::protocol::lease::SETTLE;
use crate::protocol::ledger::Loss;
use crate::protocol::message::Echo;
use crate::protocol::record::{Key, Value};
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::Instant;

/// What this node knows of who hears it.
#[derive(Debug)]
pub(super) struct Quorum {
    /// By member: the newest moment of this node's clock that it has confirmed, and with how much.
    heard_by: BTreeMap<NodeId, (Instant, Share)>,
    /// More than half confirm it until then, if it [`holds`](Self::holds).
    until: Instant,
    holds: bool,
    /// The least base share of the present span of `forget_after` and of the one before.
    least: (Share, Share),
    span_began: Instant,
    is_fresh: bool,
}

impl Quorum {
    /// `had`: the base share that is counted first was there before this life.
    pub(super) fn new(had: bool, now: Instant) -> Self {
        Self {
            heard_by: BTreeMap::new(),
            until: now,
            holds: false,
            least: (Share::ZERO, Share::ZERO),
            span_began: now,
            is_fresh: had,
        }
    }

    /// What this node gave to one that has confirmed nothing yet was this node's until now.
    pub(super) fn gave(&mut self, subject: NodeId, share: Share, now: Instant) {
        self.heard_by.entry(subject).or_insert((now, share));
    }

    /// Keeps the least base share of the last `forget_after` at least.
    fn follow(&mut self, base: Share, span: Duration, now: Instant) {
        if self.is_fresh {
            // What it begins with it had before.
            (self.is_fresh, self.least) = (false, (base, base));
        }
        if now.since(self.span_began) >= span {
            (self.least.0, self.least.1, self.span_began) = (self.least.1, base, now);
        }
        self.least.1 = self.least.1.min(base);
    }
}

impl Node {
    /// Whether this node may use its base share as far as others must hear it.
    pub(super) fn has_quorum(&self) -> bool {
        self.config.policy != Policy::Majority || self.quorum.holds
    }

    /// When this node must stop unless more is confirmed.
    pub(super) fn quorum_ends(&self) -> Instant {
        let counts = self.config.policy == Policy::Majority && self.quorum.holds;
        if counts { self.quorum.until } else { Instant::from_nanos(u64::MAX) }
    }

    /// The base share with which this node confirms that it hears a peer.
    pub(super) fn weight_for(&self, peer: &NodeId) -> Share {
        if self.config.policy != Policy::Majority {
            return Share::ZERO;
        }
        let knows = self.ledger.losses_by(peer, peer);
        let is_known = |loss: &Loss| knows.iter().any(|own| own.by == loss.by && own.share >= loss.share);
        let known = self.ledger.losses(peer).all(|(_, loss)| is_known(loss));
        if known { self.base() } else { Share::ZERO }
    }

    /// A peer has heard this node.
    pub(super) fn confirmed_by(&mut self, peer: NodeId, echo: Echo, now: Instant) {
        if self.config.policy != Policy::Majority || !self.bases.contains_key(&peer) {
            return;
        }
        let at = echo.clock.min(now);
        let known = self.quorum.heard_by.entry(peer).or_insert((at, echo.weight));
        if at >= known.0 {
            *known = (at, echo.weight);
            if !self.quorum.holds {
                self.look_at_quorum(now);
            }
        }
    }

    /// Stops using the base share, or uses it again.
    pub(super) fn look_at_quorum(&mut self, now: Instant) {
        let held = self.quorum.holds;
        self.count_quorum(now);
        if self.quorum.holds != held {
            self.rebase(now);
        }
    }

    /// Part of every change of the ledger: what majorities have agreed to, and whether this node is heard by one.
    pub(super) fn count_majority(&mut self, now: Instant) {
        if self.config.policy != Policy::Majority {
            return;
        }
        while self.ledger.grant(&self.bases) {
            self.bases = self.ledger.bases(self.config.policy);
        }
        let bases = &self.bases;
        self.quorum.heard_by.retain(|node, _| bases.contains_key(node));
        self.count_quorum(now);
    }

    fn count_quorum(&mut self, now: Instant) {
        let base = self.base();
        self.quorum.follow(base, self.config.forget_after, now);
        let lasts = self.config.forget_after.saturating_sub(margin(self.config.forget_after));
        let confirmed = self.quorum.heard_by.iter().map(|(node, (at, weight))| {
            (*at + lasts, (*weight).min(self.bases.get(node).copied().unwrap_or_default()))
        });
        let mut confirmed: Vec<(Instant, Share)> = confirmed.collect();
        confirmed.push((Instant::from_nanos(u64::MAX), base));
        confirmed.sort_by_key(|(until, _)| std::cmp::Reverse(*until));
        let mut sum = Share::ZERO;
        let last = confirmed.into_iter().find(|(_, weight)| {
            sum += *weight;
            sum > ONE.scale(1, 2)
        });
        self.quorum.until = last.map_or(now, |(until, _)| until);
        self.quorum.holds = now < self.quorum.until && !self.is_given_up();
    }

    /// Whether somebody may reclaim from this node, and has not as far as it knows.
    fn is_given_up(&self) -> bool {
        let me = self.config.id;
        self.ledger.losses(&me).any(|(_, loss)| self.ledger.granted_to(&loss.by, &me) < loss.share)
    }

    /// Proposes to reclaim all that a member has.
    pub(super) fn propose(&mut self, subject: NodeId, now: Instant) {
        let me = self.config.id;
        let base = self.bases.get(&subject).copied().unwrap_or_default();
        if base > Share::ZERO && self.has_quorum() && !self.has_open_loss(&subject) {
            let share = self.ledger.reclaimed(&me, &subject) + base;
            self.agree(
                subject,
                Loss { by: me, share, weight: self.quorum.least.0.min(self.quorum.least.1) },
                now,
            );
            self.look_at_losses(now);
        }
    }

    /// Agrees to what others propose, as far as it may, and takes what enough have agreed to.
    pub(super) fn look_at_losses(&mut self, now: Instant) {
        if self.config.policy != Policy::Majority {
            return;
        }
        let me = self.config.id;
        let lost = self.lost_members(now);
        for subject in self.ledger.lost() {
            let losses: Vec<(NodeId, Loss)> =
                self.ledger.losses(&subject).map(|(author, loss)| (author, *loss)).collect();
            for (author, loss) in losses {
                let granted = self.ledger.granted_to(&loss.by, &subject) >= loss.share;
                let knows = |node: &NodeId| {
                    let own = self.ledger.losses_by(node, &subject);
                    own.iter().any(|own| own.by == loss.by && own.share >= loss.share)
                };
                if granted {
                    // For members who come when nobody remembers who had how much.
                    self.agree(subject, Loss { weight: ONE, ..loss }, now);
                } else if subject == me {
                    if !knows(&me) {
                        self.agree(me, Loss { weight: self.base(), ..loss }, now);
                        self.look_at_quorum(now);
                    }
                } else if author == loss.by && !knows(&me) {
                    let may = lost.contains(&subject) || knows(&subject);
                    if may && !self.has_open_loss(&subject) {
                        let weight = self.quorum.least.0.min(self.quorum.least.1);
                        self.agree(subject, Loss { weight, ..loss }, now);
                    }
                }
                let agreed = self.ledger.agreed(&me, &subject, loss.share, &self.bases);
                let taken = self.ledger.reclaimed(&me, &subject);
                if loss.by == me && taken < loss.share && agreed > ONE.scale(1, 2) && self.has_quorum() {
                    self.take_back(subject, loss.share - taken, now);
                }
            }
        }
    }

    /// Whether this node has agreed to a loss of `subject` that it has not seen reclaimed.
    fn has_open_loss(&self, subject: &NodeId) -> bool {
        let own = self.ledger.losses_by(&self.config.id, subject);
        own.iter().any(|loss| self.ledger.granted_to(&loss.by, subject) < loss.share)
    }

    /// On disk before anybody knows it: it is never taken back.
    fn agree(&mut self, subject: NodeId, loss: Loss, now: Instant) {
        let me = self.config.id;
        if self.ledger.merge_lost(me, subject, &[loss]) {
            let losses = self.ledger.losses_by(&me, &subject).to_vec();
            self.pages.publish(Key::Lost(subject), Value::Lost(losses), now);
            self.save(false);
            self.peers_should_hear(now);
        }
    }
}

/// How much sooner than others forget it a node stops: its leases must have ended by then, and clocks that run 200 ppm fast
/// and slow differ by less than a thousandth.
pub fn margin(forget_after: Duration) -> Duration {
    SETTLE + forget_after / 1_000
}
