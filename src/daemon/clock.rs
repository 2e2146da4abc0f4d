//! The one place that reads the system's clock and its entropy.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::protocol::calendar::UnixNanos;
use crate::protocol::time::Instant;

/// The node's monotonic clock: `CLOCK_BOOTTIME`, which goes on while the machine sleeps, so that a laptop that wakes up
/// knows that what it had borrowed is over.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// How far `CLOCK_BOOTTIME` is ahead of `CLOCK_MONOTONIC`: the time that the machine slept before this start.
    ahead: u64,
}

impl Clock {
    /// A clock whose [`monotonic`](Self::monotonic) is exact until the machine sleeps again.
    pub fn new() -> Self {
        // The two are read one after the other, so the difference is off by the time between the readings, unless the
        // machine never slept: then it is known to be nothing.
        let before = read(ClockId::Monotonic);
        let boot = read(ClockId::Boottime);
        let after = read(ClockId::Monotonic);
        let never_slept = before <= boot && boot <= after;
        Self { ahead: if never_slept { 0 } else { boot.saturating_sub(after) } }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(read(ClockId::Boottime))
    }

    /// What the wall clock reads, `CLOCK_REALTIME`. It may jump.
    pub fn wall(&self) -> UnixNanos {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
        UnixNanos(tv_sec.saturating_mul(1_000_000_000).saturating_add(tv_nsec))
    }

    /// The moment on `CLOCK_MONOTONIC`, which all processes of the machine share.
    pub fn monotonic(&self, at: Instant) -> u64 {
        at.as_nanos().saturating_sub(self.ahead)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn read(clock: ClockId) -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    u64::try_from(tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(tv_nsec).unwrap_or(0)
}

/// All the randomness that a core gets.
///
/// # Errors
/// If the system has none to give.
pub fn seed() -> Result<[u8; 32], getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(seed)
}
