//! A provider, a swarm that obeys the estimate, and a script that nobody knows of, in steps of a tenth of a second.

use proptest::prelude::*;

use super::super::id::NodeId;
use super::*;

const STEP: Duration = Duration::from_millis(100);
/// 600 units a minute: one each step.
const AMOUNT: u64 = 600;

fn rate(burst: u64) -> Quota {
    Quota::Rate(Rate::new(AMOUNT, Duration::from_secs(60), burst).unwrap())
}

fn window(seconds: u64) -> Quota {
    Quota::Window { amount: AMOUNT, length: Duration::from_secs(seconds) }
}

/// All in thousandths of a unit.
struct World {
    estimate: Unreported,
    step: u64,
    provider: u64,
    /// The provider's bucket holds so much.
    depth: u64,
    /// What the swarm may spend at once, and what it may spend now.
    burst: u64,
    level: u64,
    /// Admitted: when, how much. Counted by the provider `flight` steps later, known `lag` steps later.
    admitted: Vec<(u64, u64)>,
    flight: u64,
    lag: u64,
    /// Steps between observations.
    every: u64,
    script_owes: u64,
}

impl World {
    fn new(burst: u64, depth: u64) -> Self {
        Self {
            estimate: Unreported::new(rate(burst)),
            step: 0,
            provider: depth * 1_000,
            depth: depth * 1_000,
            burst: burst * 1_000,
            level: burst * 1_000,
            admitted: Vec::new(),
            flight: 3,
            lag: 10,
            every: 10,
            script_owes: 0,
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + Duration::from_secs(1_000) + STEP * self.step as u32
    }

    fn reserve(&self) -> u32 {
        self.estimate.reserve(self.now())
    }

    /// One step, in which the swarm wants so many units and the script takes this many millionths of the rate. What the
    /// provider refuses is taken back.
    fn step(&mut self, wanted: u64, script: u64) {
        self.step += 1;
        let kept = u64::from(1_000_000 - self.reserve());
        self.provider = (self.provider + 1_000).min(self.depth);
        self.level = (self.level + kept / 1_000).min(self.burst);
        self.script_owes += script / 1_000;
        while self.script_owes >= 1_000 && self.provider >= 1_000 {
            self.script_owes -= 1_000;
            self.provider -= 1_000;
        }
        self.script_owes = self.script_owes.min(1_000);
        let units = wanted.min(self.level / 1_000);
        if units > 0 {
            self.level -= units * 1_000;
            self.admitted.push((self.step, units));
        }
        let arriving = self.step - self.flight.min(self.step);
        for (step, units) in &mut self.admitted {
            if *step == arriving {
                *units = (*units).min(self.provider / 1_000);
                self.provider -= *units * 1_000;
            }
        }
        let known = |lag: u64| -> u64 {
            let known = self.admitted.iter().filter(|(step, _)| step + lag <= self.step);
            known.map(|(_, units)| units).sum()
        };
        let (used, flown) = (known(self.lag), known(self.flight));
        let in_flight = known(0) - flown;
        let seen = Observation {
            remaining: self.provider / 1_000,
            limit: None,
            used,
            swarm_remaining: 0,
            in_flight,
        };
        let now = self.now();
        if self.step.is_multiple_of(self.every) {
            self.estimate.observe(seen, now);
        }
        self.estimate.settle(used, now);
    }

    fn run(&mut self, seconds: u64, wanted: u64, script: u64) {
        (0..seconds * 10).for_each(|_| self.step(wanted, script));
    }
}

#[test]
fn a_rate_converges_to_what_a_script_takes_and_goes_back() {
    for script in [200_000, 300_000, 500_000] {
        let mut world = World::new(AMOUNT, AMOUNT);
        world.run(30, 2, 0);
        assert_eq!(world.reserve(), 0);
        world.run(180, 2, script);
        let (low, high) = (script * 8 / 10, script * 12 / 10);
        let settled = u64::from(world.reserve());
        assert!((low..=high).contains(&settled), "{settled} of {script}");
        world.run(120, 2, script);
        let later = u64::from(world.reserve());
        assert!((low..=high).contains(&later), "{later} of {script} later");
        world.run(240, 2, 0);
        assert_eq!(world.reserve(), 0, "after {script}");
    }
}

#[test]
fn a_script_is_noticed_within_half_a_minute() {
    let mut world = World::new(AMOUNT, AMOUNT);
    world.run(60, 1, 0);
    world.run(30, 1, 500_000);
    assert!(world.reserve() >= 100_000, "{}", world.reserve());
}

#[test]
fn a_full_bucket_that_is_smaller_than_configured_is_no_use_at_all() {
    let mut world = World::new(AMOUNT, 50);
    world.run(300, 0, 0);
    assert_eq!(world.reserve(), 0);
}

#[test]
fn a_lower_limit_of_the_provider_is_taken_out_and_a_higher_one_changes_nothing() {
    let mut estimate = Unreported::new(rate(AMOUNT));
    let seen = Observation { remaining: 400, limit: Some(450), used: 0, swarm_remaining: 600, in_flight: 0 };
    let at = |step: u64| Instant::ZERO + Duration::from_secs(10 * step);
    estimate.observe(seen, at(0));
    assert_eq!(estimate.reserve(at(0)), 0, "a single word moves nothing");
    (1..10).for_each(|step| estimate.observe(seen, at(step)));
    let reserve = estimate.reserve(at(9));
    assert!((249_000..=250_000).contains(&reserve), "{reserve}");
    (10..40).for_each(|step| estimate.observe(Observation { limit: Some(9_000), ..seen }, at(step)));
    assert_eq!(estimate.reserve(at(39)), 0);
}

/// Observes a window every five seconds, for so many times.
fn observe_window(estimate: &mut Unreported, start: u64, times: u64, seen: Observation) -> Instant {
    let at = |step| Instant::ZERO + Duration::from_secs(start + 5 * step);
    (0..times).for_each(|step| estimate.observe(seen, at(step)));
    at(times - 1)
}

#[test]
fn a_window_shows_the_whole_gap_and_forgets_it_in_the_next_ones() {
    let mut estimate = Unreported::new(window(60));
    let seen = Observation { remaining: 300, limit: None, used: 120, swarm_remaining: 480, in_flight: 0 };
    let now = observe_window(&mut estimate, 0, 2, seen);
    assert_eq!(estimate.reserve(now), 0, "one measurement is none");
    let now = observe_window(&mut estimate, 10, 4, seen);
    let reserve = estimate.reserve(now);
    assert!((260_000..=300_000).contains(&reserve), "{reserve}: 180 of 600");
    let nothing = Observation { remaining: 480, ..seen };
    let now = observe_window(&mut estimate, 30, 24, nothing);
    assert_eq!(estimate.reserve(now), 0);
}

#[test]
fn a_window_that_ends_later_at_the_provider_is_no_gap() {
    let mut estimate = Unreported::new(window(60));
    let before = Observation { remaining: 0, limit: None, used: 600, swarm_remaining: 0, in_flight: 0 };
    observe_window(&mut estimate, 0, 4, before);
    // The swarm's window is new, the provider's is not: one observation long.
    observe_window(&mut estimate, 20, 1, Observation { swarm_remaining: 600, ..before });
    let now =
        observe_window(&mut estimate, 25, 6, Observation { remaining: 600, swarm_remaining: 600, ..before });
    assert_eq!(estimate.reserve(now), 0);
}

#[test]
fn an_estimate_without_evidence_fades() {
    let mut world = World::new(AMOUNT, AMOUNT);
    world.run(150, 2, 400_000);
    let (known, then) = (world.reserve(), world.now());
    assert!(known > 300_000);
    assert_eq!(world.estimate.reserve(then + Duration::from_secs(110)), known);
    let half = world.estimate.reserve(then + Duration::from_secs(135));
    assert!(half < known * 6 / 10, "{half}");
    assert_eq!(world.estimate.reserve(then + Duration::from_secs(300)), 0);
    assert_eq!(world.estimate.reserve(Instant::from_nanos(u64::MAX)), 0);
}

#[test]
fn halving_is_even() {
    let half = |seconds| halved(1_000, Duration::from_secs(seconds), Duration::from_secs(10));
    assert_eq!([0, 5, 10, 20, 1_000].map(half), [1_000, 750, 500, 250, 0]);
}

proptest! {
    #[test]
    fn an_honest_swarm_is_never_lowered(
        wants in proptest::collection::vec((0..40_u64, 1..200_u64), 1..20), burst in 20..1_200_u64,
        flight in 0..20_u64, lag in 0..30_u64, every in 1..100_u64,
    ) {
        let mut world = World::new(burst, burst);
        (world.flight, world.lag, world.every) = (flight, lag, every);
        for (wanted, steps) in wants {
            for _ in 0..steps {
                world.step(wanted, 0);
                // A unit or so of rounding at most, far below what counts.
                prop_assert!(world.estimate.smooth <= 5_000, "{} in step {}", world.estimate.smooth, world.step);
            }
        }
    }

    #[test]
    fn whatever_is_observed_the_reserve_is_within_its_bounds_and_rises_by_half_at_most(
        seen in proptest::collection::vec((any::<u64>(), proptest::option::of(any::<u64>()), any::<u64>(), 0..20_u64), 1..40),
        is_window in any::<bool>(),
    ) {
        let mut estimate = Unreported::new(if is_window { window(60) } else { rate(AMOUNT) });
        let mut now = Instant::ZERO;
        for (remaining, limit, used, seconds) in seen {
            now = now + Duration::from_secs(seconds);
            let (smooth, known) = (estimate.smooth, estimate.samples);
            estimate.observe(Observation { remaining, limit, used, swarm_remaining: used, in_flight: used % 7 }, now);
            prop_assert!(estimate.reserve(now) <= RESERVE_MAX);
            prop_assert!(estimate.smooth <= smooth + (RESERVE_MAX - smooth).div_ceil(2));
            prop_assert!(estimate.samples <= known + 1 && estimate.points.len() <= SPANS + 1);
        }
    }

    #[test]
    fn one_liar_among_three_observers_moves_nothing_beyond_what_honest_ones_say(
        honest in (0..RESERVE_MAX, 0..RESERVE_MAX), lie in any::<u32>(),
    ) {
        let mut all = Estimates::default();
        for (id, reserve) in [honest.0, honest.1, lie].into_iter().enumerate() {
            all.hear(NodeId([id as u8; 32]), Estimate { reserve, samples: 1 }, Instant::ZERO);
        }
        let agreed = all.agreed(|_| 5, Instant::ZERO);
        prop_assert!(honest.0.min(honest.1) <= agreed && agreed <= honest.0.max(honest.1));
        prop_assert!(reserved(agreed) <= ONE);
    }
}
