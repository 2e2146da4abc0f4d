//! When to try again: jittered, exponential, for ever.

use std::time::{Duration, Instant};

/// The wait after the first failure, before jitter.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait that anybody may ask for, before jitter.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// Failures after which the wait grows no more.
const STEPS: u32 = 8;

/// The next try of one target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    failures: u32,
    /// Not before this.
    pub(super) at: Instant,
    /// A try is under way; `at` has no meaning until it ends.
    pub(super) busy: bool,
}

impl Backoff {
    /// The first try at `at`.
    pub(super) fn starting(at: Instant) -> Self {
        Backoff { failures: 0, at, busy: false }
    }

    /// Failures since the last link that lasted.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The try failed. The next one comes after `longest` at the latest.
    pub(super) fn failed(&mut self, longest: Duration, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.again(now + jittered(wait(self.failures).min(longest)));
    }

    /// Something gives hope: try at `at` if that is sooner, and go on from there as before.
    pub(super) fn sooner(&mut self, at: Instant) {
        if !self.busy {
            self.at = self.at.min(at);
        }
    }

    /// Try at `at`, which is no failure.
    pub(super) fn again(&mut self, at: Instant) {
        self.at = at;
        self.busy = false;
    }

    /// The try is over and need not be repeated for now. Failures are kept: a link that ends at once must not
    /// be dialled as if it were the first time.
    pub(super) fn connected(&mut self) {
        self.busy = false;
    }

    /// Try at `at`, as if for the first time.
    pub(super) fn afresh(&mut self, at: Instant) {
        self.failures = 0;
        self.again(at);
    }

    /// The next tries are rare.
    pub(super) fn slow(&mut self, now: Instant) {
        self.failures = STEPS;
        self.again(now + jittered(LONGEST));
    }
}

/// Somewhere from half of `wait` to all of it, so that nodes that lost each other together do not meet again
/// and again in the same instant.
pub(super) fn jittered(wait: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    wait.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

fn wait(failures: u32) -> Duration {
    (FIRST * 2_u32.pow(failures.saturating_sub(1).min(STEPS))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_fifth_of_a_second_to_half_a_minute() {
        let now = Instant::now();
        let mut backoff = Backoff::starting(now);
        let mut longest = Duration::ZERO;
        for n in 0..1000 {
            backoff.failed(LONGEST, now);
            let wait = backoff.at - now;
            assert!(wait >= FIRST / 2 && wait <= LONGEST);
            assert!(n > 0 || wait <= FIRST);
            longest = longest.max(wait);
        }
        assert!(longest > LONGEST / 2);
        backoff.failed(Duration::from_secs(3), now);
        assert!(backoff.at <= now + Duration::from_secs(3));
    }
}
