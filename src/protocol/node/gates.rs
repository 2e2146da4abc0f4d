//! What holds a pool back besides its limits: pauses and the circuit breaker, the same on all nodes.
//!
//! A pause is a mark on its author's page ([`pause`](crate::protocol::pause)), a verdict of the breaker is repeated on
//! everybody's ([`breaker`](crate::protocol::breaker)). The right to probe is the one slot of a hidden concurrency limit of
//! the pool: shares and leases give it to one node at a time. It is kept until the verdict of the probe has spread.

use std::time::Duration;

use super::Node;
use super::admission::{Acquired, Ask, REFUSED_COUNTS, Reason, Request, refuse};
use crate::protocol::breaker::{Breaker, BreakerConfig, BreakerState, CallOutcome};
use crate::protocol::id::Replica;
use crate::protocol::limit::{Concurrency, Fingerprint, Kind, Limit, Pool};
use crate::protocol::pause::{PauseMark, PauseReason, Pauses, stagger};
use crate::protocol::record::{Key, Value};
use crate::protocol::time::Instant;

/// A probe that does not report for so long has failed.
const PROBE_TTL: Duration = Duration::from_secs(60);
/// The right to probe is kept for so long after its verdict, which spreads meanwhile.
const VERDICT_SPREADS: Duration = Duration::from_secs(1);
/// Whoever is refused while a probe runs may ask again after this.
const PROBING: Duration = Duration::from_millis(500);

/// The gate of one pool.
#[derive(Debug)]
pub(super) struct Gate {
    /// Names the pool in gossip.
    name: Fingerprint,
    /// Until when it is paused, until resumed if there is no moment; and why.
    paused: Option<(Option<Instant>, PauseReason)>,
    breaker: Option<Breaker>,
    /// The meter of the right to probe.
    probe_meter: Option<usize>,
    /// When the right to probe was taken, and when it is given back.
    probe: Option<(Instant, Option<Instant>)>,
    /// Outcomes were counted that nobody was told.
    untold: bool,
}

/// What holds a request back.
enum Held {
    /// It may wait, until this moment if there is one.
    Paused(Option<Instant>),
    /// It is refused; probes begin at this moment, or have begun.
    Broken(Option<Instant>),
}

/// What the gates of a request say.
pub(super) enum Passage {
    Free,
    /// It has to wait, whatever its limits have.
    Wait,
    Refused(Acquired),
}

impl Gate {
    pub(super) fn new(pool: &Pool, replica: Replica, probe_meter: Option<usize>, now: Instant) -> Self {
        let breaker = pool.breaker.map(|config| {
            Breaker::new(config, replica, now).expect("BUG! a pool took the numbers of a breaker unchecked")
        });
        let name = Fingerprint::of_pool(pool.name());
        Self { name, paused: None, breaker, probe_meter, probe: None, untold: true }
    }

    /// The gate of one key's pool, at which nothing stops: the keyed pool's own counts.
    pub(super) fn of_key(pool: &Pool) -> Self {
        let name = Fingerprint::of_pool(pool.name());
        Self { name, paused: None, breaker: None, probe_meter: None, probe: None, untold: false }
    }

    /// The breaker goes by other numbers from now on, if there is one.
    pub(super) fn set_breaker(&mut self, config: BreakerConfig, now: Instant) {
        if let Some(breaker) = &mut self.breaker {
            breaker.set_config(config, now).expect("BUG! a pool took the numbers of a breaker unchecked");
        }
    }

    /// The place of the meter of the right to probe.
    pub(super) fn probe_meter(&self) -> Option<usize> {
        self.probe_meter
    }

    /// The hidden limit that makes a probe the only one.
    pub(super) fn probe_limit() -> Limit {
        let one = Concurrency::new(1, PROBE_TTL + VERDICT_SPREADS).expect("BUG! one is enough");
        Limit {
            name: "breaker probe".to_owned(),
            unit: "\u{0}probe".to_owned(),
            kind: Kind::Concurrency(one),
        }
    }

    fn held(&self, now: Instant) -> Option<Held> {
        if let Some((until, _)) = self.paused
            && until.is_none_or(|until| until > now)
        {
            return Some(Held::Paused(until));
        }
        match self.breaker.as_ref()?.state(now) {
            BreakerState::Closed => None,
            BreakerState::Open(until) => Some(Held::Broken(Some(until))),
            BreakerState::HalfOpen => Some(Held::Broken(None)),
        }
    }

    /// When something about it changes by itself.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let paused = self.paused.and_then(|(until, _)| until).filter(|until| *until > now);
        let breaker = self.breaker.as_ref().and_then(|breaker| breaker.next_deadline(now));
        let probe = self.probe.and_then(|(_, release_at)| release_at);
        paused.into_iter().chain(breaker).chain(probe).min()
    }
}

impl Node {
    /// Pauses a pool in the whole swarm, for `length` or until it is [resumed](Self::resume).
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn pause(&mut self, pool: usize, length: Option<Duration>, now: Instant) {
        let (me, name, wall) = (self.config.id, self.pools[pool].gate.name, self.unix_millis(now));
        let mark = self.pauses.pause(me, name, length, wall);
        self.tell_pause(pool, mark, now);
    }

    /// Ends every pause of a pool in the whole swarm.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn resume(&mut self, pool: usize, now: Instant) {
        let (me, name, wall) = (self.config.id, self.pools[pool].gate.name, self.unix_millis(now));
        let mark = self.pauses.resume(me, name, wall);
        self.tell_pause(pool, mark, now);
    }

    /// How a pool is paused: for how much longer, if that is known, and why; none if it is not.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn paused(&self, pool: usize, now: Instant) -> Option<(Option<Duration>, PauseReason)> {
        let (until, reason) =
            self.pools[pool].gate.paused.filter(|(until, _)| until.is_none_or(|until| until > now))?;
        Some((until.map(|until| until.since(now)), reason))
    }

    /// What a pool's circuit breaker does with calls; none if it has none.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn breaker(&self, pool: usize, now: Instant) -> Option<BreakerState> {
        self.pools[pool].gate.breaker.as_ref().map(|breaker| breaker.state(now))
    }

    /// Tells how a call of the pool ended. A failure counts for its breaker; being throttled with a time to come back after
    /// pauses the pool everywhere.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn observe(
        &mut self,
        pool: usize,
        outcome: CallOutcome,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        self.expire(now);
        if let (CallOutcome::Throttled, Some(length)) = (outcome, retry_after) {
            let (me, name, wall) = (self.config.id, self.pools[pool].gate.name, self.unix_millis(now));
            let mark = self.pauses.throttle(me, name, length, wall);
            if mark.is_some() {
                self.tell_pause(pool, mark, now);
            }
        }
        let gate = &mut self.pools[pool].gate;
        let Some(breaker) = &mut gate.breaker else { return };
        let verdict = match &mut gate.probe {
            Some((started, release_at @ None)) => {
                *release_at = Some(now + VERDICT_SPREADS);
                breaker.probe_ended(started.as_nanos(), outcome, now)
            }
            _ => breaker.record(outcome, now),
        };
        gate.untold = true;
        if verdict.is_some() {
            self.tell_verdict(pool, now);
        }
        self.wake(now);
        self.serve_all(now);
        self.finish(now);
    }

    /// Whether the gates of its pools let a request pass. Takes the right to probe, if that is what lets it pass.
    pub(super) fn passage(&mut self, ask: &Ask<'_>, request: &Request, now: Instant) -> Passage {
        let mut passage = Passage::Free;
        for pool in &request.pools {
            let pool = self.configured(*pool as usize);
            match self.pools[pool].gate.held(now) {
                None => {}
                Some(Held::Paused(until)) => {
                    let left = until.map(|until| until.since(now));
                    if ask.wait.is_zero() || left.is_some_and(|left| left > ask.wait) {
                        let after = left.unwrap_or(Duration::from_secs(1));
                        return Passage::Refused(refuse(Reason::Paused, None, Some(self.spread(after))));
                    }
                    passage = Passage::Wait;
                }
                Some(Held::Broken(Some(until))) => {
                    let after = self.spread(until.since(now));
                    return Passage::Refused(refuse(Reason::Breaker, None, Some(after)));
                }
                Some(Held::Broken(None)) if self.take_probe(pool, request, now) => {}
                Some(Held::Broken(None)) => {
                    self.finish(now);
                    let after = self.spread(PROBING);
                    return Passage::Refused(refuse(Reason::Breaker, None, Some(after)));
                }
            }
        }
        passage
    }

    /// For how long the pool's gate is shut, as far as is known; nothing if it is open, none if until it is resumed.
    pub(super) fn held_for(&self, pool: usize, now: Instant) -> Option<Duration> {
        match self.pools[pool].gate.held(now) {
            None => Some(Duration::ZERO),
            Some(Held::Paused(until)) => until.map(|until| until.since(now)),
            Some(Held::Broken(until)) => Some(until.map_or(PROBING, |until| until.since(now))),
        }
    }

    /// Whether a pool's gate is shut for those who wait.
    pub(super) fn is_held_back(&self, pool: usize, now: Instant) -> bool {
        self.pools[self.configured(pool)].gate.held(now).is_some()
    }

    /// Whether waiting for a pool is in vain: its breaker is open.
    pub(super) fn is_broken(&self, pool: usize, now: Instant) -> bool {
        matches!(self.pools[self.configured(pool)].gate.held(now), Some(Held::Broken(_)))
    }

    fn take_probe(&mut self, pool: usize, request: &Request, now: Instant) -> bool {
        for need in &request.needs {
            self.meters[need.meter as usize].refill(now);
        }
        let ready = self.lacking(&request.needs).is_none() && self.permits.has_room();
        let gate = &mut self.pools[pool].gate;
        let (Some(breaker), Some(place)) = (&mut gate.breaker, gate.probe_meter) else { return false };
        let meter = &mut self.meters[place];
        meter.refill(now);
        if !meter.has(1) {
            // Counts as if it waited, so that the right comes here when it is this node's turn.
            meter.refused = (1, now + REFUSED_COUNTS);
            self.stale = true;
            return false;
        }
        if !ready || !breaker.probe_started(now.as_nanos(), now + PROBE_TTL, now) {
            return false;
        }
        meter.take(1, self.replica, self.config.weight);
        gate.probe = Some((now, None));
        true
    }

    /// What is due by the clock. False if nothing was.
    pub(super) fn look_at_gates(&mut self, now: Instant) -> bool {
        let mut changed = false;
        for pool in 0..self.pools.len() {
            let gate = &mut self.pools[pool].gate;
            let Some(breaker) = &mut gate.breaker else { continue };
            if breaker.expire(now).is_some() {
                if let Some((_, release_at)) = &mut gate.probe {
                    *release_at = Some(now + VERDICT_SPREADS);
                }
                self.tell_verdict(pool, now);
                changed = true;
            }
            let gate = &mut self.pools[pool].gate;
            if let Some((taken_at, Some(release_at))) = gate.probe
                && now >= release_at
            {
                gate.probe = None;
                let place = gate.probe_meter.expect("BUG! a probe without its right");
                self.meters[place].refill(now);
                self.meters[place].refund(1, taken_at);
                self.stale = true;
                changed = true;
            }
        }
        changed
    }

    /// Tells with the next round what was counted since the last.
    pub(super) fn tell_outcomes(&mut self, now: Instant) {
        for pool in 0..self.pools.len() {
            if std::mem::take(&mut self.pools[pool].gate.untold) {
                self.publish_breaker(pool, now);
            }
        }
    }

    /// A peer says something of a pool's pause.
    pub(super) fn learn_pause(&mut self, author: Replica, name: Fingerprint, mark: PauseMark, now: Instant) {
        let wall = self.unix_millis(now);
        if self.pauses.merge(author.node, name, mark, wall)
            && let Some(pool) = self.gate_called(name)
        {
            self.look_at_pause(pool, now);
        }
    }

    /// A peer counted outcomes of a pool's calls, or says what its breaker does.
    pub(super) fn learn_breaker(&mut self, author: Replica, name: Fingerprint, value: &Value, now: Instant) {
        let (Some(pool), Value::Breaker(outcomes, verdict)) = (self.gate_called(name), value) else { return };
        let Some(breaker) = &mut self.pools[pool].gate.breaker else { return };
        let heard = breaker.hear_verdict(*verdict, now);
        let reached = breaker.hear_outcomes(author, *outcomes, now).is_some();
        if heard || reached {
            self.tell_verdict(pool, now);
        }
    }

    /// An author of pauses is gone: what it said goes on.
    pub(super) fn carry_pauses(&mut self, now: Instant) {
        let wall = self.unix_millis(now);
        for pool in 0..self.pools.len() {
            let name = self.pools[pool].gate.name;
            if let Some(mark) = self.pauses.carry(self.config.id, name, wall) {
                self.pages.publish(Key::Pause(name, mark.reason), Value::Pause(mark), now);
            }
        }
    }

    fn tell_pause(&mut self, pool: usize, mark: Option<PauseMark>, now: Instant) {
        self.expire(now);
        if let Some(mark) = mark {
            let key = Key::Pause(self.pools[pool].gate.name, mark.reason);
            self.pages.publish(key, Value::Pause(mark), now);
            self.peers_should_hear(now);
        }
        self.look_at_pause(pool, now);
        self.wake(now);
        self.serve_all(now);
        self.finish(now);
    }

    /// Takes up what the marks of all say now: until when, with this node's place in the staggered return.
    fn look_at_pause(&mut self, pool: usize, now: Instant) {
        let wall = self.unix_millis(now);
        let state = self.pauses.state(self.pools[pool].gate.name, wall);
        self.pools[pool].gate.paused = state.map(|paused| {
            let others = self.bases.keys().copied();
            let late = stagger(self.config.id, others, paused.length, paused.stamp);
            (paused.left.map(|left| now + left + late), paused.reason)
        });
        self.stale = true;
    }

    fn tell_verdict(&mut self, pool: usize, now: Instant) {
        self.publish_breaker(pool, now);
        self.peers_should_hear(now);
        self.wake(now);
    }

    fn publish_breaker(&mut self, pool: usize, now: Instant) {
        let gate = &self.pools[pool].gate;
        if let Some(breaker) = &gate.breaker {
            let value = Value::Breaker(breaker.outcomes(), breaker.verdict());
            if self.pages.publish(Key::Breaker(gate.name), value, now) {
                self.peers_should_hear(now);
            }
        }
    }

    fn gate_called(&self, name: Fingerprint) -> Option<usize> {
        self.pools.iter().position(|state| state.gate.name == name)
    }

    /// Wall time in milliseconds; time since the clock's origin where nobody has told it.
    fn unix_millis(&self, now: Instant) -> i64 {
        let nanos = self.wall.as_ref().map_or(now.as_nanos() as i64, |wall| wall.at(now).0);
        nanos / 1_000_000
    }

    /// Marks of all pools, none known yet.
    pub(super) fn no_pauses(pools: &[Pool]) -> Pauses {
        Pauses::new(pools.iter().map(|pool| Fingerprint::of_pool(pool.name())))
    }
}
