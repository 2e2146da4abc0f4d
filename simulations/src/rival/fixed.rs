//! Schemes that say nothing to one another: the ideal, each node alone, static division.

use super::bucket::{Bucket, WHOLE};
use super::engine::Outbox;
use super::{Rule, Verdict};
use crate::record::Arrival;
use crate::scenario::Scenario;

/// One bucket for all nodes, or one for each.
pub(super) struct Fixed<const CENTRAL: bool> {
    buckets: Vec<Bucket>,
    held: Vec<f32>,
}

impl Fixed<true> {
    /// One central limiter that answers at once, in the order of arrival: the central token bucket of Raghavan et al.
    /// (2007) without its network.
    pub fn ideal(scenario: &Scenario) -> Self {
        Self { buckets: vec![Bucket::full(scenario, WHOLE)], held: Vec::new() }
    }
}

impl Fixed<false> {
    /// Every node has the whole limit, as when each process is configured with it and knows of no other.
    pub fn alone(scenario: &Scenario) -> Self {
        Self::each(scenario, WHOLE)
    }

    /// Every node has an equal part, in rate and burst, as people do by hand with N processes. Where a part of the burst
    /// is less than what a request takes, the node refuses it, always.
    pub fn division(scenario: &Scenario) -> Self {
        Self::each(scenario, WHOLE / scenario.nodes as u64)
    }

    fn each(scenario: &Scenario, parts: u64) -> Self {
        let held = vec![(parts as f64 / WHOLE as f64) as f32; scenario.nodes];
        Self { buckets: vec![Bucket::full(scenario, parts); scenario.nodes], held }
    }
}

impl<const CENTRAL: bool> Rule for Fixed<CENTRAL> {
    type Message = ();
    const ONE_QUEUE: bool = CENTRAL;

    fn admit(&mut self, request: &Arrival, now: u64, _: &mut Outbox<()>) -> Verdict {
        let bucket = &mut self.buckets[if CENTRAL { 0 } else { request.node }];
        bucket.refill(now);
        // What a call does not use overflows nobody's bucket here: it is never taken.
        let units = if CENTRAL { request.call.used } else { request.units };
        if bucket.take(units) {
            return Verdict::Admitted;
        }
        bucket.ready_at(units).map_or(Verdict::Never, Verdict::At)
    }

    fn held(&self) -> Vec<f32> {
        self.held.clone()
    }
}
