//! A circuit breaker (Nygard, *Release It!*, 2007) for one pool, one for the whole swarm.
//!
//! **Outcomes** of calls are counted by every life of every node in two grow-only counters ([`Outcomes`]) on its
//! page. Each node sorts the growth that it hears into time buckets by its own clock and opens the breaker when, over
//! the window, at least `min_count` calls ended and at least `failure_rate` of them failed. Nodes that hear the same
//! growth within the same bucket decide the same.
//!
//! **Verdicts** are numbered: every change of mind is a new [`Verdict::epoch`], and the greatest verdict counts
//! everywhere. `max` is commutative, associative and idempotent, so all agree in the end, in whatever order they
//! hear. Everybody publishes the verdict that it goes by ([`Breaker::verdict`]), its own or another's, so newcomers
//! hear of it even if its author is gone. How long the breaker has been open each counts from its own hearing.
//!
//! **One probe.** After `open_for` the breaker is half-open: one call in the swarm tries whether the provider is
//! well. That it is one is not decided here but by a right that only one can have, a concurrency limit of one: take
//! it if [`Breaker::wants_probe`], admit the call, give the right back once the new verdict is published, so that the
//! next holder knows of it. A verdict on an epoch that has passed is no verdict. Where a partition makes two rights
//! of one, two probes may disagree: the one that failed counts, and the next probe decides.
//!
//! **Flapping** is bounded: between two openings lie at least `open_for` and `min_count` more outcomes. Closing
//! empties the window, so what failed before does not count again.
//!
//! **Liars.** Growth counts for at most [`CLAMP`] times `min_count` calls per node and bucket, keeping its
//! proportions, so nobody can overflow anything. But a member can open the breaker alone, by its counters or by a
//! verdict, and as often as it likes: what a member says of the provider is believed, as it must be where one node
//! makes all the calls. Epochs that are more than [`STEP_MAX`] ahead are not believed, so nobody can use them up.

mod outcomes;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::id::{NodeId, Replica};
use super::time::Instant;
use outcomes::Heard;
pub use outcomes::{CLAMP, NODES_MAX, Outcomes};

/// All of something, in millionths.
pub const MILLION: u32 = 1_000_000;
/// The shortest and the longest window: 1 second, 1 hour.
pub const WINDOW_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60 * 60));
/// The shortest and the longest time that the breaker is open at first: 100 ms, 1 hour.
pub const OPEN_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60 * 60));
/// The largest `min_count`.
pub const MIN_COUNT_MAX: u32 = 1_000_000;
/// An epoch further ahead than this is a lie. Honest ones take `min_count` calls or `open_for` each.
pub const STEP_MAX: u64 = 1 << 32;

/// How often the time that the breaker is open doubles when probes fail.
const DOUBLINGS: u8 = 3;

/// When the breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// It opens when at least this part of the calls failed, in millionths: 1 to [`MILLION`].
    pub failure_rate: u32,
    /// How far back calls count, within [`WINDOW_RANGE`].
    pub window: Duration,
    /// It never opens with fewer calls in the window: 1 to [`MIN_COUNT_MAX`].
    pub min_count: u32,
    /// How long it is open, within [`OPEN_RANGE`]; twice as long with every failed probe, up to eight times.
    pub open_for: Duration,
}

impl Default for BreakerConfig {
    /// Half of at least 20 calls in 30 seconds; open for 15 seconds.
    fn default() -> Self {
        Self {
            failure_rate: MILLION / 2,
            window: Duration::from_secs(30),
            min_count: 20,
            open_for: Duration::from_secs(15),
        }
    }
}

/// A number of the configuration is outside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BreakerError {
    /// See [`BreakerConfig::failure_rate`].
    #[error("failure_rate is {0} millionths, must be from 1 to {MILLION}")]
    FailureRate(u32),
    /// See [`BreakerConfig::window`].
    #[error("window is {0:?}, must be from 1s to 1h")]
    Window(Duration),
    /// See [`BreakerConfig::min_count`].
    #[error("min_count is {0}, must be from 1 to {MIN_COUNT_MAX}")]
    MinCount(u32),
    /// See [`BreakerConfig::open_for`].
    #[error("open_for is {0:?}, must be from 100ms to 1h")]
    OpenFor(Duration),
}

impl BreakerConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// The first one that is outside its range.
    pub fn validate(&self) -> Result<(), BreakerError> {
        let within = |duration, (least, most)| least <= duration && duration <= most;
        if !(1..=MILLION).contains(&self.failure_rate) {
            return Err(BreakerError::FailureRate(self.failure_rate));
        }
        if !within(self.window, WINDOW_RANGE) {
            return Err(BreakerError::Window(self.window));
        }
        if !(1..=MIN_COUNT_MAX).contains(&self.min_count) {
            return Err(BreakerError::MinCount(self.min_count));
        }
        if !within(self.open_for, OPEN_RANGE) {
            return Err(BreakerError::OpenFor(self.open_for));
        }
        Ok(())
    }
}

/// How one call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallOutcome {
    /// The provider did what was asked.
    Ok,
    /// The provider refused: too much. A failure.
    Throttled,
    /// Anything else went wrong. A failure.
    Error,
}

/// What the swarm thinks of the provider. The greatest verdict counts: the latest epoch, of these an open one, of
/// these the one after more failed probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Verdict {
    /// Grows with every change of mind. Zero is the beginning: closed.
    pub epoch: u64,
    /// Whether calls are refused.
    pub open: bool,
    /// How many probes have failed since the breaker was last closed.
    pub failed_probes: u8,
}

/// What the breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It lets them pass.
    Closed,
    /// It refuses them before this moment.
    Open(Instant),
    /// It refuses them, except one probe.
    HalfOpen,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    id: u64,
    epoch: u64,
    deadline: Instant,
}

/// The breaker of one pool, as one node sees it.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    me: Replica,
    own: Outcomes,
    heard: Heard,
    verdict: Verdict,
    /// When the verdict was taken up.
    since: Instant,
    probe: Option<Probe>,
}

impl Breaker {
    /// A closed breaker.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn new(config: BreakerConfig, me: Replica, now: Instant) -> Result<Self, BreakerError> {
        config.validate()?;
        let mut heard = Heard::new(config.window, config.min_count, now);
        heard.merge(me, Outcomes::default(), now);
        let (own, verdict) = (Outcomes::default(), Verdict::default());
        Ok(Self { config, me, own, heard, verdict, since: now, probe: None })
    }

    /// Goes by other numbers from now on. Another window begins empty, as after closing; verdicts stand.
    ///
    /// # Errors
    /// A number outside its range; nothing is changed then.
    pub fn set_config(&mut self, config: BreakerConfig, now: Instant) -> Result<(), BreakerError> {
        config.validate()?;
        if (config.window, config.min_count) != (self.config.window, self.config.min_count) {
            self.heard.restart(config.window, config.min_count, now);
        }
        self.config = config;
        Ok(())
    }

    /// What it does with calls.
    pub fn state(&self, now: Instant) -> BreakerState {
        if !self.verdict.open {
            return BreakerState::Closed;
        }
        let until = self.since + self.config.open_for * (1 << self.verdict.failed_probes.min(DOUBLINGS));
        if now < until { BreakerState::Open(until) } else { BreakerState::HalfOpen }
    }

    /// What this node publishes of its calls.
    pub fn outcomes(&self) -> Outcomes {
        self.own
    }

    /// What this node goes by, and publishes.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Calls in the window, of all nodes as far as heard.
    pub fn recent(&mut self, now: Instant) -> Outcomes {
        self.heard.recent(now)
    }

    /// Counts a call of this node that was no probe. Gives back the verdict if there is a new one to publish.
    pub fn record(&mut self, outcome: CallOutcome, now: Instant) -> Option<Verdict> {
        let one = match outcome {
            CallOutcome::Ok => Outcomes { ok: 1, failed: 0 },
            CallOutcome::Throttled | CallOutcome::Error => Outcomes { ok: 0, failed: 1 },
        };
        self.own = self.own.plus(one);
        self.merge(self.me, self.own, now)
    }

    /// Counts what another life of a node published; what is known or older changes nothing. What is first heard of a
    /// life is where its counting begins: nobody knows how old it is. Gives back the verdict if there is a new one to
    /// publish. Nobody else's word moves this node's own counters.
    pub fn hear_outcomes(&mut self, replica: Replica, outcomes: Outcomes, now: Instant) -> Option<Verdict> {
        if replica.node == self.me.node { None } else { self.merge(replica, outcomes, now) }
    }

    /// Forgets the outcomes of a node that is gone for good, to make room.
    pub fn forget(&mut self, node: &NodeId) {
        self.heard.forget(node);
    }

    /// Merges a verdict. Gives back whether it is the one to go by, and to publish, from now on.
    pub fn hear_verdict(&mut self, verdict: Verdict, now: Instant) -> bool {
        let verdict = Verdict { failed_probes: verdict.failed_probes.min(DOUBLINGS), ..verdict };
        let credible = verdict.epoch.saturating_sub(self.verdict.epoch) <= STEP_MAX;
        if !credible || verdict <= self.verdict {
            return false;
        }
        self.verdict = verdict;
        self.since = now;
        if !verdict.open {
            self.heard.empty();
        }
        true
    }

    /// Whether this node should try to get the right to probe.
    pub fn wants_probe(&self, now: Instant) -> bool {
        self.state(now) == BreakerState::HalfOpen && self.probe.is_none()
    }

    /// A call with the right to probe is about to begin, and fails if it has not ended at `deadline`. Gives back
    /// whether it may: the right took its time to come, and a probe may no longer be wanted.
    #[must_use]
    pub fn probe_started(&mut self, id: u64, deadline: Instant, now: Instant) -> bool {
        let wanted = self.wants_probe(now);
        if wanted {
            self.probe = Some(Probe { id, epoch: self.verdict.epoch, deadline });
        }
        wanted
    }

    /// The probe ended: only now may the right be given back. Gives back the verdict to publish; none if `id` names
    /// no probe that runs, or others have reached a verdict meanwhile.
    pub fn probe_ended(&mut self, id: u64, outcome: CallOutcome, now: Instant) -> Option<Verdict> {
        let probe = self.probe.take_if(|probe| probe.id == id)?;
        if probe.epoch != self.verdict.epoch || !self.verdict.open {
            return None;
        }
        match outcome {
            CallOutcome::Ok => self.decide(false, 0, now),
            CallOutcome::Throttled | CallOutcome::Error => {
                self.decide(true, self.verdict.failed_probes.saturating_add(1), now)
            }
        }
    }

    /// Fails the probe if its time is over. Gives back the verdict to publish.
    pub fn expire(&mut self, now: Instant) -> Option<Verdict> {
        let probe = self.probe.filter(|probe| probe.deadline <= now)?;
        self.probe_ended(probe.id, CallOutcome::Error, now)
    }

    /// When the state changes by itself, or [`expire`](Self::expire) has something to do.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let opens = match self.state(now) {
            BreakerState::Open(until) => Some(until),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        };
        self.probe.map(|probe| probe.deadline).into_iter().chain(opens).min()
    }

    fn merge(&mut self, replica: Replica, outcomes: Outcomes, now: Instant) -> Option<Verdict> {
        if !self.heard.merge(replica, outcomes, now) || self.verdict.open {
            return None;
        }
        let recent = self.heard.recent(now);
        let rate = u128::from(self.config.failure_rate) * u128::from(recent.total());
        let failing = u128::from(recent.failed) * u128::from(MILLION) >= rate;
        if recent.total() < u64::from(self.config.min_count) || !failing {
            return None;
        }
        self.decide(true, 0, now)
    }

    fn decide(&mut self, open: bool, failed_probes: u8, now: Instant) -> Option<Verdict> {
        let verdict = Verdict { epoch: self.verdict.epoch.saturating_add(1), open, failed_probes };
        self.hear_verdict(verdict, now).then_some(self.verdict)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::id::Incarnation;
    use super::*;

    fn replica(node: u8) -> Replica {
        Replica { node: NodeId([node; 32]), incarnation: Incarnation(1) }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(100_000 + millis)
    }

    fn breaker(me: u8) -> Breaker {
        Breaker::new(BreakerConfig::default(), replica(me), at(0)).unwrap()
    }

    /// Opens at `now` because of 20 failures.
    fn opened(now: Instant) -> Breaker {
        let mut breaker = breaker(1);
        let verdicts: Vec<_> = (0..20).filter_map(|_| breaker.record(CallOutcome::Error, now)).collect();
        assert_eq!(verdicts, [Verdict { epoch: 1, open: true, failed_probes: 0 }]);
        breaker
    }

    fn probe(breaker: &mut Breaker, outcome: CallOutcome, now: Instant) -> Option<Verdict> {
        assert!(breaker.probe_started(7, now + Duration::from_secs(60), now));
        breaker.probe_ended(7, outcome, now)
    }

    #[test]
    fn numbers_outside_their_ranges_are_named() {
        let fine = BreakerConfig::default();
        assert_eq!(fine.validate(), Ok(()));
        let refused = |config: BreakerConfig| config.validate().unwrap_err().to_string();
        let text = refused(BreakerConfig { failure_rate: 0, ..fine });
        assert_eq!(text, "failure_rate is 0 millionths, must be from 1 to 1000000");
        assert!(refused(BreakerConfig { window: Duration::ZERO, ..fine }).contains("window is 0ns"));
        assert!(refused(BreakerConfig { min_count: 0, ..fine }).contains("min_count is 0"));
        assert!(refused(BreakerConfig { open_for: Duration::MAX, ..fine }).contains("open_for is"));
    }

    #[test]
    fn opens_exactly_at_the_rate_and_refuses_until_a_probe_is_due() {
        let mut breaker = breaker(1);
        for step in 0..10 {
            assert_eq!(breaker.record(CallOutcome::Ok, at(step)), None);
        }
        for step in 10..19 {
            assert_eq!(breaker.record(CallOutcome::Throttled, at(step)), None, "below min_count");
        }
        assert_eq!(breaker.record(CallOutcome::Error, at(19)).map(|verdict| verdict.open), Some(true));
        assert_eq!(breaker.state(at(20)), BreakerState::Open(at(15_019)));
        assert!(!breaker.wants_probe(at(15_018)));
        assert_eq!(breaker.state(at(15_019)), BreakerState::HalfOpen);
        assert!(breaker.wants_probe(at(15_019)));
        assert_eq!(breaker.record(CallOutcome::Error, at(15_020)), None, "stragglers are no news");
    }

    #[test]
    fn what_left_the_window_does_not_count() {
        let mut breaker = breaker(1);
        for _ in 0..19 {
            assert_eq!(breaker.record(CallOutcome::Error, at(0)), None);
        }
        assert_eq!(breaker.record(CallOutcome::Error, at(34_000)), None);
        assert_eq!(breaker.recent(at(34_000)), Outcomes { ok: 0, failed: 1 });
    }

    #[test]
    fn failures_of_all_nodes_count_together() {
        let (mut one, mut other) = (breaker(1), breaker(2));
        assert_eq!(one.hear_outcomes(replica(2), other.outcomes(), at(0)), None);
        for _ in 0..10 {
            assert_eq!(one.record(CallOutcome::Error, at(1)), None);
            assert_eq!(other.record(CallOutcome::Error, at(1)), None);
        }
        assert!(one.hear_outcomes(replica(2), other.outcomes(), at(2)).is_some());
        assert!(other.hear_verdict(one.verdict(), at(3)));
        assert_eq!(other.state(at(3)), BreakerState::Open(at(15_003)));
        assert_eq!(one.hear_outcomes(replica(1), Outcomes { ok: 9, failed: 9 }, at(4)), None);
        assert_eq!(one.recent(at(4)), Outcomes { ok: 0, failed: 20 }, "nobody moves another's counters");
    }

    #[test]
    fn one_success_closes_and_old_failures_do_not_open_again() {
        let mut breaker = opened(at(0));
        let closed = probe(&mut breaker, CallOutcome::Ok, at(15_000)).unwrap();
        assert_eq!(closed, Verdict { epoch: 2, open: false, failed_probes: 0 });
        assert_eq!(breaker.recent(at(15_000)), Outcomes::default());
        for _ in 0..19 {
            assert_eq!(breaker.record(CallOutcome::Error, at(15_001)), None);
        }
        assert!(breaker.record(CallOutcome::Error, at(15_001)).is_some());
    }

    #[test]
    fn failed_probes_double_the_time_up_to_eight_times() {
        let mut breaker = opened(at(0));
        let mut now = at(15_000);
        for open_for in [30, 60, 120, 120, 120] {
            let verdict = probe(&mut breaker, CallOutcome::Throttled, now).unwrap();
            assert!(verdict.open && !breaker.wants_probe(now));
            let until = now + Duration::from_secs(open_for);
            assert_eq!(breaker.state(now), BreakerState::Open(until));
            assert_eq!(breaker.next_deadline(now), Some(until));
            now = until;
        }
        assert_eq!(probe(&mut breaker, CallOutcome::Ok, now).map(|verdict| verdict.failed_probes), Some(0));
    }

    #[test]
    fn a_probe_that_never_reports_has_failed_and_one_of_a_former_epoch_is_void() {
        let mut breaker = opened(at(0));
        let now = at(15_000);
        assert!(breaker.probe_started(7, at(20_000), now));
        assert!(!breaker.wants_probe(now) && !breaker.probe_started(8, at(20_000), now));
        assert_eq!(breaker.probe_ended(8, CallOutcome::Ok, now), None, "no such probe");
        assert_eq!((breaker.next_deadline(now), breaker.expire(at(19_999))), (Some(at(20_000)), None));
        assert_eq!(breaker.expire(at(20_000)).map(|verdict| verdict.failed_probes), Some(1));
        assert_eq!(breaker.probe_ended(7, CallOutcome::Ok, at(20_001)), None, "too late");

        assert!(breaker.probe_started(9, at(99_000), at(50_000)));
        assert!(breaker.hear_verdict(Verdict { epoch: 3, open: true, failed_probes: 2 }, at(50_001)));
        assert_eq!(breaker.probe_ended(9, CallOutcome::Ok, at(50_002)), None, "somebody else decided");
        assert!(breaker.verdict().open);
    }

    #[test]
    fn epochs_cannot_be_used_up() {
        let mut breaker = breaker(1);
        assert!(!breaker.hear_verdict(Verdict { epoch: u64::MAX, open: true, failed_probes: 0 }, at(0)));
        assert!(breaker.hear_verdict(Verdict { epoch: STEP_MAX, open: true, failed_probes: u8::MAX }, at(0)));
        assert_eq!(breaker.state(at(0)), BreakerState::Open(at(120_000)), "no longer than eight times");
        assert!(probe(&mut breaker, CallOutcome::Ok, at(120_000)).is_some());
    }

    #[test]
    fn a_provider_that_only_likes_probes_makes_it_flap_no_faster_than_it_may() {
        let mut breaker = breaker(1);
        let mut opened = 0;
        for millis in 0..300_000 {
            let now = at(millis);
            match breaker.state(now) {
                BreakerState::Closed => {
                    opened += u64::from(breaker.record(CallOutcome::Error, now).is_some());
                }
                BreakerState::HalfOpen => assert!(probe(&mut breaker, CallOutcome::Ok, now).is_some()),
                BreakerState::Open(_) => {}
            }
        }
        assert_eq!(opened, 20, "every 15 seconds and 20 calls");
    }

    fn verdicts() -> impl Strategy<Value = Vec<Verdict>> {
        let verdict = (0..6_u64, any::<bool>(), 0..6_u8).prop_map(|(epoch, open, failed_probes)| Verdict {
            epoch,
            open,
            failed_probes,
        });
        proptest::collection::vec(verdict, 0..12)
    }

    proptest! {
        #[test]
        fn verdicts_merge_in_any_order_and_however_often(heard in verdicts(), turn in 0..12_usize) {
            let merged = |verdicts: &[Verdict]| {
                let mut breaker = breaker(1);
                for verdict in verdicts {
                    let before = breaker.verdict();
                    let changed = breaker.hear_verdict(*verdict, at(0));
                    assert_eq!(changed, breaker.verdict() > before, "monotone");
                }
                breaker.verdict()
            };
            let mut other = heard.clone();
            other.rotate_left(turn % heard.len().max(1));
            other.reverse();
            other.extend_from_slice(&heard);
            prop_assert_eq!(merged(&heard), merged(&other));
        }

        #[test]
        fn nodes_that_hear_the_same_in_another_order_agree(
            calls in proptest::collection::vec((2..6_u8, any::<bool>(), 0..3_000_u64), 1..120), turn in any::<usize>(),
        ) {
            // What each node published after each call, heard by two others within one bucket of time.
            let mut published = Vec::new();
            let mut cells = [Outcomes::default(); 6];
            for (node, ok, millis) in &calls {
                let cell = &mut cells[usize::from(*node)];
                *(if *ok { &mut cell.ok } else { &mut cell.failed }) += 1;
                published.push((*node, *cell, *millis));
            }
            let hear = |published: &[(u8, Outcomes, u64)]| {
                let mut breaker = breaker(1);
                (2..6).for_each(|node| assert_eq!(breaker.hear_outcomes(replica(node), Outcomes::default(), at(0)), None));
                let mut opened = false;
                for (node, outcomes, _) in published {
                    opened |= breaker.hear_outcomes(replica(*node), *outcomes, at(100)).is_some();
                }
                (breaker.recent(at(100)), opened)
            };
            let mut other = published.clone();
            other.rotate_left(turn % published.len());
            other.reverse();
            other.extend_from_slice(&published);
            let ((recent, opened), (same, also)) = (hear(&published), hear(&other));
            prop_assert_eq!(recent, same);
            prop_assert_eq!(recent.ok + recent.failed, calls.len() as u64);
            // In the end both would open, or neither, whatever they saw on the way.
            let failing = recent.failed * 2 >= calls.len() as u64 && calls.len() >= 20;
            prop_assert!(!failing || (opened && also), "{recent:?}");
            if calls.len() < 20 {
                prop_assert!(!opened && !also, "below min_count");
            }
        }
    }
}
