//! Workloads: who asks for how much, and when. Open loop, where who is refused does not ask less for it, unless there are
//! callers who wait for their answers.

mod call;
pub mod callers;
mod cost;
mod shape;
mod trace;

use serde::{Deserialize, Serialize};

pub use self::cost::{Cost, Sizes};
pub use self::shape::Kind;
pub use self::trace::{Row, TraceError};

use self::shape::{Segment, Shape};
use crate::fault::Nodes;
use crate::random::{Purpose, Stream};
use crate::record::{Arrival, Mark};
use crate::scenario::Scenario;
use crate::time::{MS, nanos, seconds};

/// The most requests that a run may be expected to have: they are all kept, 72 bytes each.
pub const ARRIVALS_MAX: f64 = 20_000_000.0;

/// One kind of load on some of the nodes.
///
/// ```toml
/// [[workload]]
/// kind = { on_off = { on = 10, off = 10 } }
/// nodes = { part = [2, 0] }
/// load = 1.5
/// cost = { median = 400, sigma = 1.0, max = 0.5 }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// How demand is spread over nodes and time.
    pub kind: Kind,
    /// On which nodes.
    pub nodes: Nodes,
    /// What these nodes offer together, in units per second, as a multiple of the whole limit's rate: what
    /// it lets through in the long run, with calls as long as these where that matters. Each kind says
    /// when; a trace says itself how much, and ignores this.
    pub load: f64,
    /// What a request takes.
    pub cost: Cost,
    /// How long calls take on average, in milliseconds, log-normally distributed. A caller settles when its call is over. With
    /// 0 nothing is heard of a call once it is admitted, unless some give units back: those do at once.
    pub hold_ms: f64,
    /// The part of the callers who never settle, of 1.
    pub forget: f64,
    /// The part of the calls that use less than they reserved, of 1: anything from nothing to all of it.
    pub refund: f64,
    /// How many requests are critical, high, normal and low, in proportion. All are normal if there are none.
    pub classes: [u32; 4],
    /// How long a request waits before it gives up, in milliseconds.
    pub wait_ms: u64,
    /// On how many agents of its node a request can be.
    pub agents: u32,
    /// So many on each node wait for an answer, make their call and think before they ask again; with 0 requests come
    /// whatever becomes of those before. With callers `load` says nothing but when a node is busy: while its own is not 0.
    pub callers: u32,
    /// How long callers think on average, in milliseconds, exponentially distributed.
    pub think_ms: f64,
    /// When it begins, in seconds after the warm-up; with the run if it does not say.
    pub from: Option<f64>,
    /// When it ends, in seconds after the warm-up; with the run if it does not say.
    pub until: Option<f64>,
    /// Requests come at equal distances instead of at random ones (Poisson).
    pub regular: bool,
    /// The rows of a trace, read along with the scenario.
    #[serde(skip)]
    pub rows: Vec<Row>,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            kind: Kind::Steady,
            nodes: Nodes::All,
            load: 1.0,
            cost: Cost::Units(1),
            hold_ms: 0.0,
            forget: 0.0,
            refund: 0.0,
            classes: [0; 4],
            wait_ms: 2_000,
            agents: 1,
            callers: 0,
            think_ms: 1.0,
            from: None,
            until: None,
            regular: false,
            rows: Vec::new(),
        }
    }
}

/// All requests of a run that come whatever becomes of them, in order of time, and of nodes where times are equal.
pub fn arrivals(scenario: &Scenario, seed: u64) -> Vec<Arrival> {
    let mut all = Vec::new();
    for (number, workload) in scenario.workload.iter().enumerate().filter(|(_, it)| it.callers == 0) {
        let mut stream = Stream::new(seed, Purpose::Workload, number as u64);
        let before = all.len();
        workload.draw(scenario, &mut stream, &mut all);
        workload.draw_calls(&mut Stream::new(seed, Purpose::Calls, number as u64), &mut all[before..]);
    }
    all.sort_by_key(|arrival| (arrival.at, arrival.node));
    all
}

/// The moments of the measured span at which demand changes for many at once, for pictures and reaction times.
pub fn marks(scenario: &Scenario) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for workload in &scenario.workload {
        let mut mark = |at: f64, say: &str| {
            if at > 0.0 && at < scenario.seconds {
                marks.push(Mark { at: nanos(scenario.warmup + at), say: say.to_owned(), step: true });
            }
        };
        let (from, until) = workload.span(scenario);
        mark(from, "A workload begins.");
        mark(until, "A workload ends.");
        workload.kind.changes(from, until).into_iter().for_each(|(at, say)| mark(at, say));
    }
    marks.sort_by_key(|mark| mark.at);
    marks
}

impl Workload {
    /// How many requests it is expected to make in a run, at most.
    pub fn expected(&self, scenario: &Scenario) -> f64 {
        if matches!(self.kind, Kind::Trace(_)) {
            return self.rows.len() as f64;
        }
        let (from, until) = self.span(scenario);
        let (rate, burst) = self.capacity(scenario);
        if self.callers > 0 {
            // Under a scheme that gives every node the whole limit.
            let nodes = match self.kind {
                Kind::Rotating { .. } => 1.0,
                _ => scenario.nodes as f64,
            };
            let callers = f64::from(self.callers) * nodes;
            let think = self.think_ms / 1e3;
            let admitted = rate / self.cost.mean(burst) * nodes;
            let refused = callers / (seconds(callers::TRY_AGAIN) + think);
            return (callers / think).min(admitted + refused) * (until - from).max(0.0);
        }
        rate * self.kind.most(self.load) * (until - from).max(0.0) / self.cost.mean(burst)
    }

    /// Units that the limit lets through in a second, and at once.
    fn capacity(&self, scenario: &Scenario) -> (f64, f64) {
        (scenario.capacity(self.hold_ms / 1e3), scenario.limit().capacity() as f64)
    }

    /// When it runs, in seconds after the warm-up.
    fn span(&self, scenario: &Scenario) -> (f64, f64) {
        let from = self.from.unwrap_or(-scenario.warmup).max(-scenario.warmup);
        (from, self.until.unwrap_or(scenario.seconds).min(scenario.seconds))
    }

    fn shape(&self, scenario: &Scenario, nodes: usize, stream: &mut Stream) -> Shape<'_> {
        Shape::new(&self.kind, self.load, nodes, self.span(scenario), stream)
    }

    fn draw(&self, scenario: &Scenario, stream: &mut Stream, all: &mut Vec<Arrival>) {
        let nodes = chosen(&self.nodes, scenario.nodes, stream);
        if nodes.is_empty() {
            // A part of more parts than there are nodes.
            return;
        }
        let (rate, burst) = self.capacity(scenario);
        let (from, until) = self.span(scenario);
        if let Kind::Trace(_) = self.kind {
            let rows = self.rows.iter().filter(|row| from + row.at < until);
            all.extend(rows.map(|row| {
                let (at, node) = (nanos(scenario.warmup + from + row.at), nodes[row.node % nodes.len()]);
                Arrival { agent: row.agent, ..Arrival::new(at, node, row.units, self.wait_ms * MS) }
            }));
            return;
        }
        let shape = self.shape(scenario, nodes.len(), stream);
        let requests_per_second = rate / self.cost.mean(burst);
        for (position, node) in nodes.into_iter().enumerate() {
            let segments = shape.segments(position, stream);
            let gap = |stream: &mut Stream| if self.regular { 1.0 } else { stream.exponential(1.0) };
            // Regular requests of different nodes do not all come at once.
            let mut owed = if self.regular { stream.unit() } else { gap(stream) };
            for Segment { from, until, load } in segments {
                let rate = load * requests_per_second;
                let mut at = from;
                while owed < (until - at) * rate {
                    at += owed / rate;
                    owed = gap(stream);
                    let agent = stream.below(u64::from(self.agents)) as u32;
                    let units = self.cost.draw(burst, stream);
                    let at = nanos(scenario.warmup + at);
                    all.push(Arrival { agent, ..Arrival::new(at, node, units, self.wait_ms * MS) });
                }
                owed -= (until - at).max(0.0) * rate;
            }
        }
    }
}

/// The nodes of a selection among `count`, in ascending order.
fn chosen(nodes: &Nodes, count: usize, stream: &mut Stream) -> Vec<usize> {
    nodes.resolve(count, stream, |_| true)
}

#[cfg(test)]
mod tests;
