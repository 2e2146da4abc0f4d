//! How much of a limit somebody has used lately.

use std::time::Duration;

use crate::protocol::time::Instant;

/// How far back use counts: what is older weighs less, by a factor of e for each such time.
pub const WINDOW: Duration = Duration::from_secs(60);

/// What was used in an exponential [`WINDOW`], in time of the whole limit. Integers only, so that every
/// machine computes the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    nanos: u64,
    /// The tick for which that holds.
    tick: u64,
}

/// Use fades in ticks of a millisecond.
const TICK: Duration = Duration::from_millis(1);

/// What is left after 1, 2, 4, … ticks, in 2⁻⁶⁴: nothing after the last of them.
const FADES: [u64; 23] = {
    let mut fades = [0; 23];
    // exp(-TICK / WINDOW)
    fades[0] = 18_446_436_630_537_023_344;
    let mut power = 1;
    while power < fades.len() {
        fades[power] = fade(fades[power - 1], fades[power - 1]);
        power += 1;
    }
    fades
};

const fn fade(nanos: u64, left: u64) -> u64 {
    ((nanos as u128 * left as u128) >> 64) as u64
}

impl Usage {
    /// Counts `cost` nanoseconds of the whole limit.
    pub fn add(&mut self, cost: u64, now: Instant) {
        let now = tick(now).max(self.tick);
        *self = Self { nanos: self.nanos_at(now).saturating_add(cost), tick: now };
    }

    /// The part of the limit that was used, in millionths. After a steady use of some part for several
    /// [`WINDOW`]s it is that part; it may exceed the whole after a burst.
    pub fn share(&self, now: Instant) -> u32 {
        to_share(self.nanos_at(tick(now)))
    }

    /// When the [`share`](Self::share) is at most so many millionths if nothing is added; none if it is.
    pub fn falls_to(&self, share: u32, now: Instant) -> Option<Instant> {
        let start = tick(now).max(self.tick);
        let mut left = self.nanos_at(start);
        if to_share(left) <= share {
            return None;
        }
        let mut ticks = 0;
        for (power, fades) in FADES.iter().enumerate().rev() {
            let later = fade(left, *fades);
            if to_share(later) > share {
                left = later;
                ticks += 1 << power;
            }
        }
        // Rounding depends on the path: it may take a tick more.
        let mut falls = start + ticks + 1;
        while to_share(self.nanos_at(falls)) > share {
            falls += 1;
        }
        Some(Instant::from_nanos(falls.saturating_mul(TICK.as_nanos() as u64)))
    }

    fn nanos_at(&self, tick: u64) -> u64 {
        let ticks = tick.saturating_sub(self.tick);
        if ticks >> FADES.len() > 0 {
            return 0;
        }
        let (mut nanos, mut ticks) = (self.nanos, ticks);
        while let Some(power) = ticks.checked_ilog2() {
            nanos = fade(nanos, FADES[power as usize]);
            ticks ^= 1 << power;
        }
        nanos
    }
}

fn tick(now: Instant) -> u64 {
    now.as_nanos() / TICK.as_nanos() as u64
}

fn to_share(nanos: u64) -> u32 {
    let millionths = u128::from(nanos) * 1_000_000 / WINDOW.as_nanos();
    u32::try_from(millionths).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn steady_use_of_a_part_becomes_that_part_and_fades() {
        let mut usage = Usage::default();
        // 0.4 of the limit: 40 ms of it in every 100 ms.
        (0..6_000).for_each(|step| usage.add(40_000_000, at(step * 100)));
        let steady = usage.share(at(600_000));
        assert!((399_000..=401_000).contains(&steady), "{steady}");
        let later = f64::from(steady) / std::f64::consts::E;
        assert!((f64::from(usage.share(at(660_000))) - later).abs() < 2.0);
        assert_eq!(usage.share(at(600_000 + 3_600_000)), 0);
        assert_eq!(usage.share(Instant::from_nanos(u64::MAX)), 0);
        assert_eq!(usage.share(Instant::ZERO), usage.share(at(599_900)), "time that runs back stands still");
    }

    #[test]
    fn the_largest_cost_saturates() {
        let mut usage = Usage::default();
        (0..3).for_each(|_| usage.add(u64::MAX, at(1)));
        assert_eq!(usage.share(at(1)), u32::MAX);
        assert!(usage.falls_to(0, at(1)).is_some());
    }

    proptest! {
        #[test]
        fn fades_like_the_exponential(cost in 1_000_000_u64..1 << 47, millis in 0_u64..600_000) {
            let mut usage = Usage::default();
            usage.add(cost, at(5));
            let exact = cost as f64 * (-(millis as f64) / 60_000.0).exp() / 60_000.0;
            prop_assert!((f64::from(usage.share(at(5 + millis))) - exact).abs() <= 1.0 + exact * 1e-9);
        }

        #[test]
        fn falls_when_it_says(cost in 0_u64..1 << 45, share in 0_u32..1_000_000, start in 0_u64..100_000) {
            let mut usage = Usage::default();
            usage.add(cost, at(7));
            let now = at(start);
            match usage.falls_to(share, now) {
                None => prop_assert!(usage.share(now) <= share),
                Some(falls) => {
                    prop_assert!(usage.share(now) > share);
                    prop_assert!(usage.share(falls) <= share);
                    let early = falls - Duration::from_millis(2);
                    prop_assert!(early < at(7) || early < now || usage.share(early) > share);
                }
            }
        }
    }
}
