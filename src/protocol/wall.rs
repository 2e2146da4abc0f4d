//! What a node believes about wall time, for limits whose periods end by the calendar.
//!
//! Wall clocks jump: an operator sets them, a virtual machine wakes, a time server lies. Belief runs on the monotonic
//! clock instead, and follows the *readings* of the wall clock by these rules:
//!
//! - A reading that differs by little moves belief at once: by at most [`SLEW_BURST`] and [`SLEW_PPM`] of the time that
//!   has passed, added up over readings, so that many small lies do not make a large one.
//! - Any other difference is a **step**. It is believed once more than half of the linked peers whose clocks were heard
//!   in the last [`PATIENCE`] agree with the reading, or once it has stood for [`PATIENCE`] of monotonic time.
//!
//! Steps back are treated as steps forward are. A node whose belief is ahead spends the next period's budget in this
//! one; a node whose belief is behind spends the rest of the last period's budget in this one. Either way the provider
//! counts more than it allows. A bucket that never goes back a period prevents neither: it only keeps the same budget
//! from being given out twice when belief goes to and fro. And were a step back believed at once, one wrong reading
//! would leave the node behind for [`PATIENCE`], as the way forward again is a step too.
//!
//! **Bound.** Let readings be right but for stretches shorter than [`PATIENCE`], with time in between to settle, and
//! let no peer be linked. A wrong step has not stood long enough when the stretch ends: the next right reading ends
//! it. What small differences add up to in a stretch is less than `SLEW_BURST + PATIENCE × SLEW_PPM` = 80 ms. So
//! belief errs by less than [`GUARD_MIN`], and a node that counts what it spends within the [guard](Wall::guard) of a
//! boundary in both periods is never early or late by more than it allows for. The rest of [`GUARD_MIN`] is for the
//! drift of the monotonic clock: 100 ppm in twice [`PATIENCE`] is 12 ms.
//!
//! A reading that stays wrong for longer is believed. Peers show it ([`Wall::skew`]); the guard covers up to half of
//! [`GUARD_MAX`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::calendar::UnixNanos;
use super::id::NodeId;
use super::time::{Instant, nanos};

/// How far belief follows readings at once.
pub const SLEW_BURST: Duration = Duration::from_millis(50);
/// How fast belief may follow readings in the long run, in millionths: more than clocks of 200 ppm each can drift
/// apart.
pub const SLEW_PPM: u32 = 500;
/// How long a step must stand to be believed without peers, and how recent a peer's clock must be to confirm one.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The least that spends count on both sides of a boundary.
pub const GUARD_MIN: Duration = Duration::from_millis(100);
/// The most that spends count on both sides of a boundary.
pub const GUARD_MAX: Duration = Duration::from_secs(60);
/// How long the clock of a peer that is no longer linked widens the guard: it may still be spending.
pub const RECENT: Duration = Duration::from_secs(10 * 60);
/// The most peers whose clocks are kept. Those that left make room first; without any, a new peer is not heard.
pub const PEERS_MAX: usize = 256;

/// A node's belief about wall time, and what it knows of its peers' clocks.
///
/// `now` must never go back from call to call; where it does, no time has passed.
#[derive(Clone, Debug)]
pub struct Wall {
    belief: Offset,
    told: Instant,
    /// How far belief may still move at once, in nanoseconds.
    slack: i128,
    step: Option<Step>,
    peers: BTreeMap<NodeId, Heard>,
}

/// A wall clock less the node's monotonic clock, in nanoseconds: as long as neither jumps, it stays the same.
type Offset = i128;

/// A step of the wall clock that is not believed yet.
#[derive(Clone, Copy, Debug)]
struct Step {
    since: Instant,
    to: Offset,
}

/// A peer's clock.
#[derive(Clone, Copy, Debug)]
struct Heard {
    clock: Offset,
    /// How far `clock` may be off, in nanoseconds.
    error: i128,
    at: Instant,
    linked: bool,
}

/// Whether belief follows the wall clock; for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Steady,
    /// The wall clock stepped, and the step is not believed yet.
    Disbelieved {
        /// Nanoseconds that the last reading was ahead of belief; negative if behind.
        by: i64,
    },
}

impl Wall {
    /// A node that has just started, and believes its wall clock: it knows nothing else.
    pub fn new(now: Instant, unix: UnixNanos) -> Self {
        Self {
            belief: offset(now, unix),
            told: now,
            slack: signed(SLEW_BURST),
            step: None,
            peers: BTreeMap::new(),
        }
    }

    /// Takes a reading of the wall clock. To be called several times a minute: the time since the last reading is what
    /// a small difference is measured by.
    pub fn tell(&mut self, now: Instant, unix: UnixNanos) {
        let reading = offset(now, unix);
        let jitter = self.pass(now);
        let moved = (reading - self.belief).abs();
        if moved <= self.slack {
            self.slack -= moved;
            self.belief = reading;
            self.step = None;
            return;
        }
        let stands = self.step.filter(|step| (reading - step.to).abs() <= jitter);
        let since = stands.map_or(now, |step| step.since);
        if now.since(since) >= PATIENCE || self.is_confirmed(reading, now) {
            self.belief = reading;
            self.step = None;
        } else {
            self.step = Some(Step { since, to: reading });
        }
    }

    /// The wall time that the node believes.
    pub fn at(&self, now: Instant) -> UnixNanos {
        UnixNanos(clamp(self.belief + i128::from(now.as_nanos())))
    }

    /// Takes a linked peer's belief `theirs`, as it was when the peer sent it, in a message that arrived at `now`.
    /// Without a `round_trip` the message counts as instant, and its clock as uncertain by half of [`GUARD_MIN`].
    pub fn hear(&mut self, peer: NodeId, theirs: UnixNanos, round_trip: Option<Duration>, now: Instant) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            let left = self.peers.iter().filter(|(_, heard)| !heard.linked);
            let Some((&oldest, _)) = left.min_by_key(|(_, heard)| heard.at) else { return };
            self.peers.remove(&oldest);
        }
        let half = round_trip.map(|time| signed(time) / 2);
        let clock = offset(now, theirs) + half.unwrap_or(0);
        let error = half.unwrap_or(signed(GUARD_MIN) / 2);
        self.peers.insert(peer, Heard { clock, error, at: now, linked: true });
    }

    /// A peer is no longer linked: it confirms nothing and is not shown any more.
    pub fn forget(&mut self, peer: NodeId) {
        if let Some(heard) = self.peers.get_mut(&peer) {
            heard.linked = false;
        }
    }

    /// The most that a linked peer's clock, as last heard, can differ from this node's belief; none without such a
    /// peer.
    pub fn skew(&self) -> Option<Duration> {
        self.largest_skew(|heard| heard.linked)
    }

    /// Nanoseconds that a linked peer's clock, as last heard, is ahead of this node's belief; negative if behind.
    pub fn skew_of(&self, peer: NodeId) -> Option<i64> {
        let heard = self.peers.get(&peer).filter(|heard| heard.linked)?;
        Some(clamp(heard.clock - self.belief))
    }

    /// How long before and after a boundary spends count in both periods: twice the largest skew of the peers that are
    /// linked or were until [`RECENT`]ly, from [`GUARD_MIN`] to [`GUARD_MAX`].
    pub fn guard(&self) -> Duration {
        let skew = self.largest_skew(|_| true).unwrap_or_default();
        skew.saturating_mul(2).clamp(GUARD_MIN, GUARD_MAX)
    }

    /// Whether belief follows the wall clock.
    pub fn state(&self) -> State {
        self.step.map_or(State::Steady, |step| State::Disbelieved { by: clamp(step.to - self.belief) })
    }

    /// Lets the time since the last reading pass, and gives how far the wall clock may have strayed from the monotonic
    /// clock in it without a step.
    fn pass(&mut self, now: Instant) -> i128 {
        let earned = signed(now.since(self.told)) * i128::from(SLEW_PPM) / 1_000_000;
        self.told = self.told.max(now);
        let jitter = earned.max(signed(SLEW_BURST));
        self.slack = (self.slack + earned).min(jitter);
        self.peers.retain(|_, heard| heard.linked || now.since(heard.at) <= RECENT);
        jitter
    }

    /// Whether more than half of the peers agree with a reading. Peers agree within [`GUARD_MIN`], not within the
    /// guard: a single liar can widen that.
    fn is_confirmed(&self, reading: Offset, now: Instant) -> bool {
        let fresh = self.peers.values().filter(|heard| heard.linked && now.since(heard.at) <= PATIENCE);
        let (mut agree, mut all) = (0, 0);
        for heard in fresh {
            agree += usize::from((heard.clock - reading).abs() <= heard.error + signed(GUARD_MIN));
            all += 1;
        }
        2 * agree > all
    }

    fn largest_skew(&self, counts: fn(&Heard) -> bool) -> Option<Duration> {
        let heard = self.peers.values().filter(|heard| counts(heard));
        let largest = heard.map(|heard| (heard.clock - self.belief).abs() + heard.error).max()?;
        Some(Duration::from_nanos(u64::try_from(largest).unwrap_or(u64::MAX)))
    }
}

fn offset(now: Instant, unix: UnixNanos) -> Offset {
    i128::from(unix.0) - i128::from(now.as_nanos())
}

fn signed(duration: Duration) -> i128 {
    i128::from(nanos(duration))
}

fn clamp(nanos: i128) -> i64 {
    nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::calendar::{Calendar, Every, Zone};

    const MS: i64 = 1_000_000;
    const SECOND: i64 = 1_000 * MS;
    const HOUR: i64 = 3_600 * SECOND;

    /// A node whose clocks are right, but for what a test does to its readings.
    struct Run {
        wall: Wall,
        now: Instant,
        /// Wall time at the origin of the monotonic clock.
        origin: i64,
    }

    impl Run {
        fn new(origin: i64) -> Self {
            Self { wall: Wall::new(Instant::ZERO, UnixNanos(origin)), now: Instant::ZERO, origin }
        }

        fn truth(&self) -> i64 {
            self.origin + self.now.as_nanos() as i64
        }

        /// Lets so many milliseconds pass, then reads a wall clock that is wrong by `error` nanoseconds.
        fn read(&mut self, millis: u64, error: i64) -> &mut Self {
            self.now = self.now + Duration::from_millis(millis);
            self.wall.tell(self.now, UnixNanos(self.truth() + error));
            self
        }

        fn hear(&mut self, peer: u8, error: i64) {
            self.wall.hear(
                NodeId([peer; 32]),
                UnixNanos(self.truth() + error),
                Some(Duration::ZERO),
                self.now,
            );
        }

        /// Nanoseconds that belief is ahead of the truth.
        fn error(&self) -> i64 {
            self.wall.at(self.now).0 - self.truth()
        }
    }

    #[test]
    fn small_differences_are_followed_at_once_but_do_not_add_up() {
        let mut run = Run::new(1_700_000_000 * SECOND);
        assert_eq!(run.read(0, 30 * MS).error(), 30 * MS);
        assert_eq!(run.read(0, 10 * MS).error(), 10 * MS, "back as well");
        assert_eq!(run.read(0, 11 * MS).error(), 10 * MS, "nothing is left of the burst");
        assert_eq!(run.wall.state(), State::Disbelieved { by: MS });
        assert_eq!(run.read(2_000, 11 * MS).error(), 11 * MS, "500 ppm of two seconds");
        assert_eq!(run.wall.state(), State::Steady);
    }

    #[test]
    fn a_day_of_drift_is_followed() {
        for ppm in [-200, 200] {
            let mut run = Run::new(1_700_000_000 * SECOND);
            for _ in 0..24 * 60 * 3 {
                let error = run.now.as_nanos() as i64 / 1_000_000 * ppm;
                assert_eq!(run.read(20_000, error).error(), error);
                assert_eq!(run.wall.state(), State::Steady);
            }
        }
    }

    #[test]
    fn a_night_asleep_is_no_step() {
        // The monotonic clock runs on in suspend, here 200 ppm slow.
        let mut run = Run::new(1_700_000_000 * SECOND);
        let error = 8 * HOUR / 1_000_000 * 200;
        assert_eq!(run.read(8 * 3_600_000, error).error(), error);
        assert_eq!(run.wall.state(), State::Steady);
    }

    #[test]
    fn a_step_alone_is_believed_when_it_has_stood() {
        for step in [HOUR, -HOUR, 60 * MS, -60 * MS] {
            let mut run = Run::new(1_700_000_000 * SECOND);
            for _ in 0..6 {
                assert_eq!(run.read(10_000, step).error(), 0);
                assert_eq!(run.wall.state(), State::Disbelieved { by: step });
            }
            assert_eq!(run.read(10_000, step).error(), step);
            assert_eq!(run.wall.state(), State::Steady);
        }
    }

    #[test]
    fn steps_to_and_fro_are_not_believed() {
        let mut run = Run::new(1_700_000_000 * SECOND);
        for _ in 0..100 {
            run.read(30_000, HOUR).read(29_000, HOUR);
            assert_eq!(run.error(), 0, "the step stood for 29 s");
            assert_eq!(run.read(1_000, 0).wall.state(), State::Steady);
            run.read(30_000, -HOUR).read(29_000, HOUR).read(40_000, -HOUR).read(0, 0);
            assert_eq!(run.error(), 0);
        }
    }

    #[test]
    fn a_step_that_most_peers_confirm_is_believed_at_once() {
        for step in [HOUR, -HOUR] {
            let mut run = Run::new(1_700_000_000 * SECOND);
            run.hear(1, step);
            assert_eq!(run.read(10, step).error(), step, "one peer is a majority of one");

            let mut run = Run::new(1_700_000_000 * SECOND);
            run.hear(1, step);
            run.hear(2, step + 99 * MS);
            run.hear(3, 0);
            assert_eq!(run.read(10, step).error(), step);
        }
    }

    #[test]
    fn peers_that_disagree_confirm_nothing() {
        let mut run = Run::new(1_700_000_000 * SECOND);
        run.hear(1, HOUR);
        run.hear(2, 0);
        assert_eq!(run.read(10, HOUR).error(), 0, "half is no majority");
        run.hear(3, HOUR + 101 * MS);
        assert_eq!(run.read(10, HOUR).error(), 0);
        // A liar widens the guard, but not what agreement is.
        run.hear(1, HOUR);
        run.hear(3, 0);
        assert_eq!(run.wall.guard(), GUARD_MAX);
        assert_eq!(run.read(10, 30 * SECOND).error(), 0);
        assert_eq!(run.read(59_000, 30 * SECOND).error(), 0);
        assert_eq!(run.read(1_000, 30 * SECOND).error(), 30 * SECOND, "the readings alone have stood");
    }

    #[test]
    fn peers_that_left_or_fell_silent_confirm_nothing() {
        let mut run = Run::new(1_700_000_000 * SECOND);
        run.hear(1, HOUR);
        run.wall.forget(NodeId([1; 32]));
        assert_eq!(run.read(10, HOUR).error(), 0);
        run.read(10, 0).hear(1, HOUR);
        assert_eq!(run.read(60_001, HOUR).error(), 0);
        run.hear(1, HOUR);
        assert_eq!(run.read(59_999, HOUR).error(), HOUR);
    }

    #[test]
    fn skew_is_measured_and_widens_the_guard() {
        let mut run = Run::new(1_700_000_000 * SECOND);
        let peer = |number| NodeId([number; 32]);
        assert_eq!((run.wall.skew(), run.wall.guard()), (None, GUARD_MIN));
        let sent = UnixNanos(run.truth() - 200 * MS);
        run.wall.hear(peer(1), sent, Some(Duration::from_millis(100)), run.now);
        assert_eq!(run.wall.skew_of(peer(1)), Some(-150 * MS), "half of the round trip later");
        assert_eq!(run.wall.skew(), Some(Duration::from_millis(200)), "and wrong by as much");
        assert_eq!(run.wall.guard(), Duration::from_millis(400));
        run.wall.hear(peer(2), UnixNanos(run.truth()), None, run.now);
        assert_eq!(run.wall.skew_of(peer(2)), Some(0));
        assert_eq!(run.wall.skew(), Some(Duration::from_millis(200)));

        run.wall.forget(peer(1));
        assert_eq!(run.wall.skew_of(peer(1)), None);
        assert_eq!(
            run.wall.skew(),
            Some(GUARD_MIN / 2),
            "an unknown round trip alone does not widen the guard"
        );
        assert_eq!(run.read(600_000, 0).wall.guard(), Duration::from_millis(400), "it may still be spending");
        assert_eq!(run.read(1, 0).wall.guard(), GUARD_MIN);

        run.hear(2, HOUR);
        assert_eq!(run.wall.guard(), GUARD_MAX);
        run.wall.hear(peer(2), UnixNanos(i64::MIN), Some(Duration::MAX), run.now);
        assert_eq!(run.wall.guard(), GUARD_MAX);
    }

    #[test]
    fn the_clocks_of_too_many_peers_are_not_kept() {
        let mut run = Run::new(1_700_000_000 * SECOND);
        let peer = |number: usize| NodeId(std::array::from_fn(|place| (number >> (8 * place.min(7))) as u8));
        let hear = |run: &mut Run, number| run.wall.hear(peer(number), UnixNanos(run.truth()), None, run.now);
        (0..2 * PEERS_MAX).for_each(|number| hear(&mut run, number));
        assert_eq!(run.wall.peers.len(), PEERS_MAX);
        assert_eq!(run.wall.skew_of(peer(PEERS_MAX)), None);
        run.wall.forget(peer(7));
        hear(&mut run, PEERS_MAX);
        assert_eq!(run.wall.skew_of(peer(PEERS_MAX)), Some(0), "who left makes room");
        assert_eq!(run.wall.peers.len(), PEERS_MAX);
    }

    #[test]
    fn the_ends_of_time_saturate() {
        let end = Instant::from_nanos(u64::MAX);
        let mut wall = Wall::new(Instant::ZERO, UnixNanos(i64::MAX));
        assert_eq!(wall.at(end), UnixNanos(i64::MAX));
        wall.tell(end, UnixNanos(i64::MIN));
        assert_eq!(wall.state(), State::Disbelieved { by: i64::MIN });
        wall.tell(Instant::ZERO, UnixNanos(0));
        assert_eq!(wall.at(Instant::ZERO), UnixNanos(i64::MAX));
    }

    #[test]
    fn lies_that_are_small_enough_each_add_up_to_80_ms_a_minute() {
        let mut run = Run::new(1_700_000_000 * SECOND);
        for _ in 0..600 {
            run.read(100, 0);
            let most = run.error() + run.wall.slack as i64;
            run.read(0, most);
        }
        assert!(run.error() <= 80 * MS && run.error() > 79 * MS, "{}", run.error());
    }

    /// A stretch of readings, each with the milliseconds since the one before and what it is wrong by.
    fn lies() -> impl Strategy<Value = Vec<(u64, i64)>> {
        let by = |most: i64| proptest::collection::vec((1_u64..20_000, -most..most), 0..40);
        let creeping = |mut stretch: Vec<(u64, i64)>| {
            stretch.iter_mut().fold(0, |sum, lie| {
                lie.1 = sum + lie.1.abs();
                lie.1
            });
            stretch
        };
        let steady = |stretch: Vec<(u64, i64)>| {
            let by = stretch.first().map_or(0, |lie| lie.1);
            stretch.into_iter().map(|(millis, _)| (millis, by)).collect()
        };
        prop_oneof![
            by(60 * MS),
            by(20 * MS).prop_map(creeping),
            by(30 * HOUR),
            by(30 * HOUR).prop_map(steady)
        ]
    }

    proptest! {
        #[test]
        fn no_day_is_entered_early_by_more_than_the_guard(
            stretches in proptest::collection::vec(lies(), 1..8), before_midnight in 0..900 * SECOND,
            ppm in -100_i64..=100,
        ) {
            let days = Calendar::new(1, Every::Day, Zone::utc()).unwrap();
            let mut run = Run::new(19_676 * 24 * HOUR - before_midnight);
            let drift = |run: &Run| run.now.as_nanos() as i64 / 1_000_000 * ppm;
            let mut entered = days.period_at(run.wall.at(run.now)).number;
            for stretch in stretches {
                let mut wrong_for = 0;
                let short = stretch.into_iter().take_while(|(millis, _)| {
                    wrong_for += millis;
                    wrong_for < PATIENCE.as_millis() as u64
                });
                let settling = std::iter::repeat_n((15_000, 0), 8);
                for (millis, lie) in short.chain(settling) {
                    run.now = run.now + Duration::from_millis(millis);
                    let drifted = drift(&run);
                    run.read(0, drifted + lie);
                    let right = UnixNanos(run.truth() + drift(&run));
                    let error = run.wall.at(run.now).0.abs_diff(right.0);
                    prop_assert!(error <= nanos(GUARD_MIN), "wrong by {error} ns");
                    // A bucket enters a day when belief does, and never goes back.
                    entered = entered.max(days.period_at(run.wall.at(run.now)).number);
                    let latest = UnixNanos(right.0 + nanos(run.wall.guard()) as i64);
                    prop_assert!(entered <= days.period_at(latest).number);
                }
            }
        }
    }
}
