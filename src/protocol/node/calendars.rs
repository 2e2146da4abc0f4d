//! Wall time, as far as limits depend on it: which period each calendar limit is in.

use std::time::Duration;

use super::Node;
use crate::protocol::bucket::Bounds;
use crate::protocol::calendar::UnixNanos;
use crate::protocol::limit::Kind;
use crate::protocol::time::Instant;
use crate::protocol::wall::Wall;

impl Node {
    /// Tells what the machine's wall clock reads; some times a minute. Before the first time, calendar limits admit nothing.
    pub fn set_wall(&mut self, unix: UnixNanos, now: Instant) {
        match &mut self.wall {
            Some(wall) => wall.tell(now, unix),
            None => self.wall = Some(Wall::new(now, unix)),
        }
        self.turn_periods(now);
        self.expire(now);
        self.serve_all(now);
        self.finish(now);
    }

    /// Tells every calendar limit its period: around the boundary it stays in the old one until the guard is over.
    pub(super) fn turn_periods(&mut self, now: Instant) {
        let never = Instant::from_nanos(u64::MAX);
        self.period_ends = never;
        let Some(wall) = &self.wall else { return };
        let unix = wall.at(now);
        for meter in &mut self.meters {
            let Kind::Calendar(calendar) = &meter.limit.kind else { continue };
            // A peer's clock must not widen the guard until every unit counts twice.
            let guard = wall.guard().min(calendar.every().nominal() / 8);
            let guard_nanos = guard.as_nanos() as i64;
            let period = calendar.period_at(UnixNanos(unix.0.saturating_sub(guard_nanos)));
            let until_end = period.end.0.saturating_sub(unix.0);
            let at = |nanos: i64| match u64::try_from(nanos) {
                Ok(nanos) => now + Duration::from_nanos(nanos),
                Err(_) => now - Duration::from_nanos(nanos.unsigned_abs()),
            };
            let bounds = Bounds {
                number: period.number,
                guard_from: at(until_end.saturating_sub(guard_nanos)),
                until: at(until_end.saturating_add(guard_nanos)),
            };
            meter.set_period(bounds);
            let known = meter.bucket().period();
            self.period_ends = known.map_or(never, |known| known.until).min(self.period_ends);
        }
        self.resume_levels(now);
        // A clock that went back is asked again a little later, not at every call.
        if self.period_ends <= now {
            self.period_ends = now + Duration::from_millis(1);
        }
    }
}
