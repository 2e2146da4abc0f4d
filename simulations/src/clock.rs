//! The clocks of nodes: each has an origin and a speed of its own, and none is ever compared with another.
//!
//! A clock is the monotonic one that counts suspension: it never goes back, and while a machine stands still it goes on.

use aquifer::protocol::calendar::UnixNanos;
use aquifer::protocol::time::Instant;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::random::Stream;
use crate::time::{MS, Nanos, nanos};

/// The most by which a clock's speed may be wrong, in parts per million: T1 is promised up to here.
pub const DRIFT_MAX_PPM: u32 = 200;

const MILLION: i128 = 1_000_000;

/// True wall time when a run begins: half a minute before a minute, an hour, a day and a month end in UTC, at 23:59:30 on
/// 31 October 2026.
const BEGIN: UnixNanos = UnixNanos(1_793_491_170_000_000_000);

/// True wall time at a moment of true time.
pub fn unix(at: Nanos) -> UnixNanos {
    UnixNanos(BEGIN.0.saturating_add_unsigned(at))
}

/// How wrong clocks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClockSpec {
    /// Clocks run up to so many parts per million fast or slow; at most [`DRIFT_MAX_PPM`].
    pub drift_ppm: u32,
    /// Timers go off up to so many milliseconds late, as on a busy machine.
    pub timers_late_ms: f64,
    /// Wall clocks are up to so many milliseconds fast or slow, each by as much as ever.
    pub wall_offset_ms: f64,
}

/// Clocks that cannot be.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ClockError {
    /// Faster or slower than promised.
    #[error("clocks.drift_ppm is {0}; nothing is promised beyond {DRIFT_MAX_PPM}")]
    Drift(u32),
    /// Not a time.
    #[error("clocks.timers_late_ms is {0}; write milliseconds from 0 to 60000")]
    TimersLate(f64),
    /// Not a time.
    #[error("clocks.wall_offset_ms is {0}; write milliseconds from 0 to 60000")]
    WallOffset(f64),
}

impl ClockSpec {
    /// Checks the numbers.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), ClockError> {
        if self.drift_ppm > DRIFT_MAX_PPM {
            return Err(ClockError::Drift(self.drift_ppm));
        }
        if !(0.0..=60_000.0).contains(&self.timers_late_ms) {
            return Err(ClockError::TimersLate(self.timers_late_ms));
        }
        if !(0.0..=60_000.0).contains(&self.wall_offset_ms) {
            return Err(ClockError::WallOffset(self.wall_offset_ms));
        }
        Ok(())
    }

    /// The most by which a timer is late.
    pub fn timers_late(&self) -> Nanos {
        nanos(self.timers_late_ms / 1e3)
    }

    /// How late the next timer is.
    pub fn lateness(&self, stream: &mut Stream) -> Nanos {
        match self.timers_late() {
            0 => 0,
            most => stream.below(most + 1),
        }
    }
}

/// The clock of one life of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What it shows when the run begins.
    offset: Nanos,
    ppm: i32,
}

impl Clock {
    /// A clock that shows `offset` when the run begins and runs so much fast (or slow, if negative).
    pub fn new(offset: Nanos, ppm: i32) -> Self {
        Self { offset, ppm }
    }

    /// Any clock of this kind: the speed is the machine's, the origin changes with every life.
    pub fn any(ppm: i32, stream: &mut Stream) -> Self {
        // An hour or so: uptimes differ, and no code may rely on which is greater.
        Self::new(stream.below(1 << 42), ppm)
    }

    /// What the clock shows at a moment of true time.
    pub fn local(&self, at: Nanos) -> Instant {
        let elapsed = i128::from(at) * (MILLION + i128::from(self.ppm)) / MILLION;
        Instant::from_nanos(self.offset + elapsed as u64)
    }

    /// The first moment of true time at which the clock shows `local` or more.
    pub fn true_time(&self, local: Instant) -> Nanos {
        let elapsed = i128::from(local.as_nanos().saturating_sub(self.offset));
        let speed = MILLION + i128::from(self.ppm);
        let at = (elapsed * MILLION + speed - 1) / speed;
        u64::try_from(at).unwrap_or(u64::MAX)
    }
}

/// How fast or slow a machine's clock runs, in parts per million.
pub fn any_drift(spec: &ClockSpec, stream: &mut Stream) -> i32 {
    let most = i64::from(spec.drift_ppm);
    (stream.below(2 * most as u64 + 1) as i64 - most) as i32
}

/// How many nanoseconds a machine's wall clock is fast; slow, if negative.
pub fn any_wall_offset(spec: &ClockSpec, stream: &mut Stream) -> i64 {
    let most = nanos(spec.wall_offset_ms / 1e3);
    stream.below(2 * most + 1) as i64 - most as i64
}

/// How long after its deadline a timer has gone off for certain.
pub fn timers_allowance(spec: &ClockSpec) -> Nanos {
    spec.timers_late() + MS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fast_clock_shows_more_than_a_slow_one() {
        let second = 1_000 * MS;
        assert_eq!(Clock::new(7, 200).local(second).as_nanos(), 7 + second + 200_000);
        assert_eq!(Clock::new(7, -200).local(second).as_nanos(), 7 + second - 200_000);
        assert_eq!(Clock::new(7, 0).true_time(Instant::from_nanos(5)), 0, "before the run began");
        assert_eq!(Clock::new(7, 0).true_time(Instant::from_nanos(u64::MAX)), u64::MAX - 7);
    }

    #[test]
    fn impossible_clocks_are_named() {
        let spec = ClockSpec { drift_ppm: 201, ..ClockSpec::default() };
        assert_eq!(spec.check(), Err(ClockError::Drift(201)));
        let spec = ClockSpec { timers_late_ms: -1.0, ..ClockSpec::default() };
        assert!(spec.check().unwrap_err().to_string().starts_with("clocks.timers_late_ms is -1"));
        let spec = ClockSpec { wall_offset_ms: f64::NAN, ..ClockSpec::default() };
        assert!(spec.check().unwrap_err().to_string().starts_with("clocks.wall_offset_ms is NaN"));
        assert_eq!(ClockSpec { drift_ppm: 200, timers_late_ms: 5.0, wall_offset_ms: 40.0 }.check(), Ok(()));
    }

    proptest! {
        #[test]
        fn true_time_is_the_first_moment_at_which_the_clock_shows_it(
            offset in 0u64..1 << 42, ppm in -200i32..=200, local in 0u64..1 << 50,
        ) {
            let clock = Clock::new(offset, ppm);
            let local = Instant::from_nanos(offset + local);
            let at = clock.true_time(local);
            prop_assert!(clock.local(at) >= local);
            prop_assert!(at == 0 || clock.local(at - 1) < local);
        }

        #[test]
        fn clocks_never_go_back(ppm in -200i32..=200, at in 0u64..1 << 50, step in 0u64..1_000) {
            let clock = Clock::new(3, ppm);
            prop_assert!(clock.local(at + step) >= clock.local(at));
        }
    }
}
