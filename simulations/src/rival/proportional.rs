//! Flow proportional share (FPS): Raghavan, Vishwanath, Ramabhadran, Yocum, Snoeren, "Cloud control with distributed rate
//! limiting", SIGCOMM 2007.
//!
//! Every 50 ms each node estimates its demand (EWMA, 0.1), makes a weight of it, and takes the part of the limit that its
//! weight is of the sum of all weights. Flows are agents. A node that has not enough weighs as many flows as would, at the
//! speed of its fastest, fill what it has; one that has enough weighs as much as gives it what it wants. Weights are
//! gossiped to two others each time.
//!
//! Choices made here, meant in its favour: the paper's traffic is TCP, which slows down to what it gets, so the fastest flow is
//! measured by what was admitted; a bucket is never so shallow that a request that has arrived does not fit; a node
//! whose limit is just its demand is not taken for one that has not enough as soon as a few requests more come, which
//! would make its weight jump to that of all its flows; and where the paper gossips the sum of weights as an aggregate,
//! here nodes pass on every weight that they know, which is more exact, while the traffic is counted as the aggregate's. A weight is
//! never more than the number of flows.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::bucket::{Bucket, WHOLE};
use super::engine::Outbox;
use super::estimate::others;
use super::{Rule, Verdict};
use crate::random::{Purpose, Stream};
use crate::record::Arrival;
use crate::scenario::Scenario;
use crate::time::{MS, Nanos, seconds};

/// The estimate interval.
const INTERVAL: Nanos = 50 * MS;
/// How much an interval counts in the average.
const EWMA: f64 = 0.1;
/// How many others each node tells in an interval.
const FANOUT: usize = 2;
/// By how much demand must exceed the local limit so that a node has not enough.
const MARGIN: f64 = 1.1;
/// The least weight of a node that wants nothing, so that a sum of weights is never zero.
const WEIGHT_MIN: f64 = 1e-6;

pub(super) struct Proportional {
    nodes: Vec<Limiter>,
    /// Units per second of all nodes together.
    limit: f64,
    stream: Stream,
}

struct Limiter {
    bucket: Bucket,
    /// The largest request that has arrived here.
    largest: u64,
    /// Units that arrived in this interval.
    arrived: u64,
    /// Units per second, averaged.
    demand: f64,
    /// Of each agent: units admitted in this interval, and units per second, averaged.
    flows: BTreeMap<u32, (u64, f64)>,
    /// The weight of every node as far as this one knows, and the number of the interval that it is of.
    weights: Vec<(u32, f64)>,
}

/// All weights that a node knows.
pub(super) type Weights = Rc<[(u32, f64)]>;

impl Proportional {
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let nodes = scenario.nodes;
        let limiter = || Limiter {
            bucket: Bucket::full(scenario, WHOLE / nodes as u64),
            largest: 1,
            arrived: 0,
            demand: 0.0,
            flows: BTreeMap::new(),
            weights: vec![(0, 1.0); nodes],
        };
        Self {
            nodes: (0..nodes).map(|_| limiter()).collect(),
            limit: scenario.limit().per_second(),
            stream: Stream::new(seed, Purpose::Rivals, 0),
        }
    }
}

impl Limiter {
    fn estimate(&mut self) {
        let average = |old: f64, units: u64| old + EWMA * (units as f64 / seconds(INTERVAL) - old);
        self.demand = average(self.demand, std::mem::take(&mut self.arrived));
        for (units, rate) in self.flows.values_mut() {
            *rate = average(*rate, std::mem::take(units));
        }
        // Flows that have ended.
        self.flows.retain(|_, (_, rate)| *rate > 1e-3);
    }

    /// FPS-ESTIMATE of the paper: this node's weight, given the sum of the others'.
    fn weigh(&self, remote: f64, limit: f64) -> f64 {
        let local = limit * self.bucket.parts() as f64 / WHOLE as f64;
        let fastest = self.flows.values().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let weight = if self.demand > local * MARGIN && fastest > 0.0 {
            local / fastest
        } else {
            self.demand * remote / (limit - self.demand).max(limit * WEIGHT_MIN)
        };
        // Not more than the flows there are: `local` runs ahead of what was admitted when it grows.
        weight.clamp(WEIGHT_MIN, self.flows.len().max(1) as f64)
    }
}

impl Rule for Proportional {
    type Message = Weights;
    const TICK: Option<Nanos> = Some(INTERVAL);

    fn arrived(&mut self, request: &Arrival) {
        let limiter = &mut self.nodes[request.node];
        limiter.arrived += request.units;
        if request.units > limiter.largest {
            limiter.largest = request.units;
            limiter.bucket.resize(limiter.bucket.parts(), request.units);
        }
    }

    fn admit(&mut self, request: &Arrival, now: Nanos, _: &mut Outbox<Weights>) -> Verdict {
        let limiter = &mut self.nodes[request.node];
        limiter.bucket.refill(now);
        if limiter.bucket.take(request.units) {
            limiter.flows.entry(request.agent).or_insert((0, 0.0)).0 += request.units;
            return Verdict::Admitted;
        }
        // A part may be next to nothing now and grow with the next estimate.
        limiter.bucket.ready_at(request.units).map_or(Verdict::Later, Verdict::At)
    }

    fn tick(&mut self, node: usize, now: Nanos, out: &mut Outbox<Weights>) {
        let limiter = &mut self.nodes[node];
        limiter.estimate();
        let sum: f64 = limiter.weights.iter().map(|(_, weight)| weight).sum();
        let (version, old) = limiter.weights[node];
        let remote = (sum - old).max(0.0);
        let weight = limiter.weigh(remote, self.limit);
        limiter.weights[node] = (version + 1, weight);
        limiter.bucket.refill(now);
        limiter.bucket.resize((weight / (remote + weight) * WHOLE as f64) as u64, limiter.largest);

        let weights: Weights = limiter.weights.as_slice().into();
        for other in others(node, self.nodes.len(), FANOUT, &mut self.stream) {
            out.datagram(node, other, 16, Rc::clone(&weights));
        }
    }

    fn hear(&mut self, to: usize, _: usize, weights: Weights, _: Nanos, _: &mut Outbox<Weights>) {
        for (mine, theirs) in self.nodes[to].weights.iter_mut().zip(weights.iter()) {
            if theirs.0 > mine.0 {
                *mine = *theirs;
            }
        }
    }

    fn held(&self) -> Vec<f32> {
        self.nodes.iter().map(|limiter| (limiter.bucket.parts() as f64 / WHOLE as f64) as f32).collect()
    }
}
