//! What happened in a run: everything that figures and pictures are made of, the same for every scheme.

use std::time::Duration;

use aquifer::protocol::queue::Class;
use serde::Serialize;

use crate::time::{MS, Nanos, SEC};

/// A request that arrives. All but those of [callers](crate::workload::callers) are drawn before a run begins, so that every
/// scheme gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Arrival {
    /// When, in true time.
    pub at: Nanos,
    /// At which node.
    pub node: usize,
    /// Of which of the node's agents.
    pub agent: u32,
    /// What it takes of the limit.
    pub units: u64,
    /// How long it is willing to wait.
    pub wait: Nanos,
    /// How urgent it is.
    pub class: Class,
    /// What comes of it once it is admitted.
    pub call: Call,
}

/// A call that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Call {
    /// What it really uses: at most what the request asked for.
    pub used: u64,
    /// How long it takes.
    pub hold: Nanos,
    /// Whether its caller settles when it is over. Who does not may hold its permit for as long as that lives.
    pub settles: bool,
}

impl Call {
    /// When it is over if it is admitted at `now` and its permit lives for at most `ttl`.
    pub fn over_at(&self, now: Nanos, ttl: Duration) -> Nanos {
        let ttl = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        now.saturating_add(if self.settles { self.hold.min(ttl) } else { ttl })
    }
}

impl Arrival {
    /// A usual request of a node's first agent, of whose call nothing more is heard.
    pub fn new(at: Nanos, node: usize, units: u64, wait: Nanos) -> Self {
        let call = Call { used: units, hold: 0, settles: false };
        Self { at, node, agent: 0, units, wait, class: Class::Normal, call }
    }
}

/// What became of a request. One for each arrival that reached a node that was up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// When it was answered, in true time.
    pub at: Nanos,
    /// At which node.
    pub node: usize,
    /// What it asked for.
    pub units: u64,
    /// How long it waited.
    pub waited: Nanos,
    /// How urgent it was.
    pub class: Class,
    /// Whether it was admitted; else it was refused, or its time was over.
    pub admitted: bool,
}

/// How the limit is divided at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// When.
    pub at: Nanos,
    /// The part of the limit that each node runs on, of 1. Empty for schemes without shares.
    pub held: Vec<f32>,
    /// The part that nobody runs on because it is on its way, reserved, or lost until a lease ends.
    pub in_flight: f32,
}

/// A piece of news that was put out at one node, and how it spread to all others that could hear of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// When it was put out.
    pub at: Nanos,
    /// How long it took to reach each of the other nodes, in ascending order.
    pub reached_after: Vec<Nanos>,
    /// How many nodes it had not reached when the run ended, five seconds later or more.
    pub missed: usize,
}

/// Something that the scenario did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    /// When.
    pub at: Nanos,
    /// In words.
    pub say: String,
    /// Whether demand or the network changed here, so that the time to the new optimum is counted from it.
    pub step: bool,
}

/// Messages between nodes, or between nodes and whatever stands in the middle, of the measured span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Messages sent.
    pub messages: u64,
    /// Their bytes, without what transport adds.
    pub bytes: u64,
}

/// All of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Which scheme answered.
    pub scheme: &'static str,
    /// How many nodes there are.
    pub nodes: usize,
    /// Fairness weight of each node.
    pub weights: Vec<u32>,
    /// Units that come back per second.
    pub rate: f64,
    /// Units that can be spent at once.
    pub burst: f64,
    /// When the measured span begins; what is before is warm-up.
    pub begin: Nanos,
    /// When the run ends.
    pub end: Nanos,
    /// All requests, in order of time.
    pub arrivals: Vec<Arrival>,
    /// Whether some of them depended on the answers before, so that another scheme has others.
    pub closed_loop: bool,
    /// All answers, in order of time.
    pub answers: Vec<Answer>,
    /// The division of the limit, every so [often](sample_every).
    pub samples: Vec<Sample>,
    /// What the scenario did.
    pub marks: Vec<Mark>,
    /// How news spread.
    pub spreads: Vec<Spread>,
    /// The length of a gossip round, the unit in which spread is told.
    pub round: Nanos,
    /// Traffic of the measured span.
    pub traffic: Traffic,
    /// The most units by which any interval exceeded what one central limiter would allow. Counted over the whole run.
    pub overshoot: f64,
    /// Units per second that the base share of each node is worth, where some lie; zero for those.
    pub floors: Vec<f64>,
    /// Changes with every event of the run: two runs with the same hash went the same way.
    pub trace_hash: u64,
}

/// How often the division of the limit is sampled: every 20 ms, because a reaction takes three hops and a round, 160 ms on
/// links of 20 ms. Every 100 ms where that would be too much to keep: of more than 128 nodes, or in more than ten minutes.
pub fn sample_every(nodes: usize, end: Nanos) -> Nanos {
    let few = nodes <= 128 && end <= 600 * SEC;
    if few { 20 * MS } else { 100 * MS }
}
