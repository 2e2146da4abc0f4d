//! The ideal for limits whose units come back one by one: one central limiter that answers at once and knows what calls
//! really use.

use std::collections::BTreeMap;

use aquifer::protocol::limit::Kind;

use super::engine::Outbox;
use super::{Rule, Verdict};
use crate::clock::unix;
use crate::record::Arrival;
use crate::scenario::Scenario;
use crate::time::Nanos;

/// Units that are taken, by the moment at which they come back.
pub(super) struct Central {
    kind: Kind,
    taken: BTreeMap<Nanos, u64>,
    sum: u64,
}

impl Central {
    pub fn new(scenario: &Scenario) -> Self {
        Self { kind: scenario.limit(), taken: BTreeMap::new(), sum: 0 }
    }

    /// When what a request takes now comes back.
    fn returns_at(&self, request: &Arrival, now: Nanos) -> Nanos {
        let length = self.kind.per().as_nanos() as Nanos;
        match &self.kind {
            Kind::Calendar(calendar) => {
                let now_by_wall = unix(now);
                now + calendar.period_at(now_by_wall).end.0.abs_diff(now_by_wall.0)
            }
            Kind::Concurrency(limit) => request.call.over_at(now, limit.ttl()),
            _ => now + length,
        }
    }
}

impl Rule for Central {
    type Message = ();
    const ONE_QUEUE: bool = true;

    fn admit(&mut self, request: &Arrival, now: Nanos, _: &mut Outbox<()>) -> Verdict {
        let later = self.taken.split_off(&(now + 1));
        self.sum -= std::mem::replace(&mut self.taken, later).into_values().sum::<u64>();
        let units = request.call.used;
        let Some(room) = self.kind.capacity().checked_sub(units) else { return Verdict::Never };
        if self.sum <= room {
            let returns_at = self.returns_at(request, now);
            *self.taken.entry(returns_at).or_default() += units;
            self.sum += units;
            return Verdict::Admitted;
        }
        let mut left = self.sum;
        let mut is_enough = |units: u64| {
            left -= units;
            left <= room
        };
        let at = self.taken.iter().find_map(|(at, units)| is_enough(*units).then_some(*at));
        Verdict::At(at.expect("BUG! not even all is enough"))
    }
}
