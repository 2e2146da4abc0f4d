//! Admission against a gossiped estimate: the naive use of a G-counter.
//!
//! Every node keeps a copy of the one bucket and drains it by what it admits and by what it hears that others did: the
//! global token bucket of Raghavan et al. (2007), with the counters of a G-counter (Shapiro et al. 2011) in place of rates.
//! What others did is heard late, so that everybody spends the same last unit.

use std::rc::Rc;

use super::bucket::{Bucket, WHOLE};
use super::engine::Outbox;
use super::{Rule, Verdict};
use crate::random::{Purpose, Stream};
use crate::record::Arrival;
use crate::scenario::Scenario;
use crate::time::{MS, Nanos};

/// How many others each node tells in a round.
const FANOUT: usize = 3;

pub(super) struct Estimate {
    nodes: Vec<View>,
    stream: Stream,
}

struct View {
    /// What every node has used, as far as this one knows.
    used: Vec<u64>,
    bucket: Bucket,
}

/// All counters of one node.
pub(super) struct Counters {
    used: Rc<[u64]>,
    /// Whether they are an answer, which is not answered in turn.
    is_answer: bool,
}

impl Estimate {
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let view = || View { used: vec![0; scenario.nodes], bucket: Bucket::full(scenario, WHOLE) };
        Self {
            nodes: (0..scenario.nodes).map(|_| view()).collect(),
            stream: Stream::new(seed, Purpose::Rivals, 0),
        }
    }

    fn tell(&self, from: usize, to: usize, is_answer: bool, out: &mut Outbox<Counters>) {
        let used: Rc<[u64]> = self.nodes[from].used.as_slice().into();
        // A header, and for each counter that is not zero the replica's name and the count.
        let bytes = 16 + 16 * used.iter().filter(|used| **used > 0).count() as u64;
        out.datagram(from, to, bytes, Counters { used, is_answer });
    }
}

impl Rule for Estimate {
    type Message = Counters;
    const TICK: Option<Nanos> = Some(100 * MS);

    fn admit(&mut self, request: &Arrival, now: Nanos, _: &mut Outbox<Counters>) -> Verdict {
        let View { used, bucket } = &mut self.nodes[request.node];
        bucket.refill(now);
        if bucket.take(request.units) {
            used[request.node] += request.units;
            return Verdict::Admitted;
        }
        bucket.ready_at(request.units).map_or(Verdict::Never, Verdict::At)
    }

    fn tick(&mut self, node: usize, _: Nanos, out: &mut Outbox<Counters>) {
        for other in others(node, self.nodes.len(), FANOUT, &mut self.stream) {
            self.tell(node, other, false, out);
        }
    }

    fn hear(&mut self, to: usize, from: usize, counters: Counters, now: Nanos, out: &mut Outbox<Counters>) {
        let View { used, bucket } = &mut self.nodes[to];
        let mut news = 0;
        for (mine, theirs) in used.iter_mut().zip(counters.used.iter()) {
            news += theirs.saturating_sub(*mine);
            *mine = (*mine).max(*theirs);
        }
        bucket.refill(now);
        bucket.charge(news);
        if !counters.is_answer {
            self.tell(to, from, true, out);
        }
    }
}

/// Up to so many different nodes other than this one.
pub(super) fn others(node: usize, nodes: usize, count: usize, stream: &mut Stream) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    while chosen.len() < count.min(nodes - 1) {
        let other = (node + 1 + stream.below(nodes as u64 - 1) as usize) % nodes;
        if !chosen.contains(&other) {
            chosen.push(other);
        }
    }
    chosen
}
