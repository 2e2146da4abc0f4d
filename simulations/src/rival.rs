//! Small honest models of what others do, under the same arrivals, or for the same callers in a closed loop, and on the
//! same links.
//!
//! Each is a `Rule`: when a node may admit, and what nodes tell one another so that they know. One
//! event loop (`engine`) serves them all; every node has a queue in the order of arrival, and who waits longer than it is
//! willing to is refused. Clocks are right. Cuts and bad links the rivals feel; a node that is down or stands still gets no
//! requests, but loses nothing that it knew.

mod batches;
mod bucket;
mod central;
mod engine;
mod estimate;
mod fixed;
mod proportional;

use crate::record::{Arrival, Record};
use crate::scenario::{KindSpec, Scenario};
use crate::scheme::Scheme;
use crate::time::Nanos;
use engine::Outbox;

/// Runs a scenario under a scheme that is not ours. Under [`Scheme::Estimate`] and [`Scheme::Proportional`] every node
/// knows a number of every other and merges them with every message: at 1,000 nodes a simulated second takes about half a
/// second, at 10,000 some 40, and their views take over a gigabyte.
///
/// # Panics
/// If the scheme is [`Scheme::Aquifer`], which is not a rival, does not [suit](Scheme::suits) the scenario, or the scenario was not
/// [checked](Scenario::check).
pub fn run(scheme: Scheme, scenario: &Scenario, seed: u64) -> Record {
    match scheme {
        Scheme::Ideal if scenario.limit.kind == KindSpec::Rate => {
            engine::run(fixed::Fixed::ideal(scenario), scheme, scenario, seed)
        }
        Scheme::Ideal => engine::run(central::Central::new(scenario), scheme, scenario, seed),
        Scheme::Alone => engine::run(fixed::Fixed::alone(scenario), scheme, scenario, seed),
        Scheme::Division => engine::run(fixed::Fixed::division(scenario), scheme, scenario, seed),
        Scheme::Estimate => engine::run(estimate::Estimate::new(scenario, seed), scheme, scenario, seed),
        Scheme::Proportional => {
            engine::run(proportional::Proportional::new(scenario, seed), scheme, scenario, seed)
        }
        Scheme::Batches => engine::run(batches::Batches::new(scenario), scheme, scenario, seed),
        Scheme::Aquifer => unreachable!("BUG! the world runs this one"),
    }
}

/// Whether a request can be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is, and what it takes was taken.
    Admitted,
    /// Ask again at this moment, or when something was heard.
    At(Nanos),
    /// Ask again when something was heard.
    Later,
    /// This node can never admit so much at once.
    Never,
}

/// A scheme: all of its nodes, and its store if it has one, which is the node after the last.
trait Rule {
    /// What nodes say.
    type Message;

    /// Whether all nodes share one queue.
    const ONE_QUEUE: bool = false;
    /// How often each node does something by itself.
    const TICK: Option<Nanos> = None;

    /// A request has arrived at its node.
    fn arrived(&mut self, _request: &Arrival) {}

    /// Whether the first request in the queue can be admitted.
    fn admit(&mut self, request: &Arrival, now: Nanos, out: &mut Outbox<Self::Message>) -> Verdict;

    /// A node does what it does by itself.
    fn tick(&mut self, _node: usize, _now: Nanos, _out: &mut Outbox<Self::Message>) {}

    /// A message arrives.
    fn hear(
        &mut self,
        _: usize,
        _from: usize,
        _: Self::Message,
        _now: Nanos,
        _out: &mut Outbox<Self::Message>,
    ) {
    }

    /// The part of the limit that each node runs on, if the scheme has such a thing.
    fn held(&self) -> Vec<f32> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
