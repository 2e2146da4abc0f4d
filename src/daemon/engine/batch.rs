//! Decisions that are taken together: one lock and one reading of the clock for all requests that came in one read.

use std::sync::MutexGuard;

use super::{Core, Engine};
use crate::protocol::limit::Rate;
use crate::protocol::node::{ThrottleError, Throttled};
use crate::protocol::time::Instant;

/// The core, for a few decisions in a row. Nobody else is answered meanwhile: drop it before anything that waits.
pub struct Batch<'a> {
    engine: &'a Engine,
    core: MutexGuard<'a, Core>,
    now: Instant,
    /// The core may have something to say.
    moved: bool,
}

impl Engine {
    /// Begins a batch.
    pub fn batch(&self) -> Batch<'_> {
        let mut core = self.core();
        let now = self.now();
        core.tell_wall(self.shared.clock, now);
        Batch { engine: self, core, now, moved: false }
    }
}

impl Batch<'_> {
    /// Takes `units` of a limit that the caller brought along, at once or not at all.
    ///
    /// # Errors
    /// There is no room for one more key or for these numbers, or the node leaves.
    pub fn throttle(&mut self, key: &[u8], rate: Rate, units: u64) -> Result<Throttled, ThrottleError> {
        let Core { node, log, .. } = &mut *self.core;
        let throttled = node.throttle(key, rate, units, self.now);
        // Looked at where it is: to move it costs as much as to look its key up.
        if let Ok(Throttled { allowed, moved, .. }) = &throttled {
            self.moved |= moved;
            if let Some(log) = log
                && *allowed
                && units > 0
            {
                let at = self.engine.shared.clock.monotonic(self.now);
                log.write(at, [(&*key.escape_ascii().to_string(), units)].into_iter());
            }
        }
        throttled
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.moved {
            self.core.carry_out(&self.engine.shared, self.now);
        }
    }
}
