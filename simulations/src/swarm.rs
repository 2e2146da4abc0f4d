//! Hunting for faults: swarms of which everything is drawn from the seed, as `TigerBeetle` does with its VOPR.

mod draw;
mod kinds;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::draw::{NODES_MAX, draw};

use crate::checker::Violation;
use crate::lie::TrustSpec;
use crate::parallel;
use crate::record::Record;
use crate::scenario::Scenario;
use crate::time::seconds;
use crate::workload::callers::Requests;
use crate::world;

/// A seed with which something was violated.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// What was drawn from it.
    pub scenario: Scenario,
    /// What a checker found, or the message of a panic.
    pub what: String,
    /// What happened until then; none after a panic.
    pub record: Option<Record>,
}

/// How a hunt went.
#[derive(Clone, Debug, Default)]
pub struct Hunt {
    /// Seeds that were run.
    pub runs: u64,
    /// Simulated time, summed over nodes, in hours.
    pub node_hours: f64,
    /// The lowest seed with which something was violated, if any was.
    pub found: Option<Found>,
}

/// What may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The most nodes of a swarm.
    pub nodes: usize,
    /// The part of the nodes that lie, of 1.
    pub liars: f64,
}

/// Draws a swarm within these bounds and runs it.
///
/// # Errors
/// A property was violated, or something panicked.
pub fn run(seed: u64, bounds: Bounds) -> Result<(Scenario, Record), Box<Found>> {
    // Among members who trust one another a lender can bring level that it never had.
    let trust = if bounds.liars > 0.0 { TrustSpec::Weight } else { TrustSpec::Members };
    let scenario = Scenario { liars: bounds.liars, trust, ..draw(seed, bounds.nodes) };
    let mut until_then = None;
    let run = || {
        let run = world::run_as_far_as_it_goes(&scenario, seed, Requests::new(&scenario, seed));
        run.map_err(|failed| {
            until_then = Some(failed.1);
            failed.0
        })
    };
    match caught(run) {
        Ok(record) => Ok((scenario, record)),
        Err(what) => Err(Box::new(Found { seed, scenario, what, record: until_then })),
    }
}

/// Runs seeds from `first` on, within these bounds, on all cores, until something is violated, `seeds` of them are done, or `go_on` says no;
/// it is asked after each. All seeds below the one that was found were run.
pub fn hunt(first: u64, seeds: u64, bounds: Bounds, mut go_on: impl FnMut(&Hunt) -> bool) -> Hunt {
    let mut hunt = Hunt::default();
    parallel::run(
        seeds,
        |number| run(first.wrapping_add(number), bounds),
        |_, outcome| {
            hunt.runs += 1;
            match outcome {
                Ok((scenario, record)) => {
                    hunt.node_hours += scenario.nodes as f64 * seconds(record.end) / 3_600.0;
                }
                Err(found) if hunt.found.as_ref().is_none_or(|known| found.seed < known.seed) => {
                    hunt.found = Some(*found);
                }
                Err(_) => {}
            }
            hunt.found.is_none() && go_on(&hunt)
        },
    );
    hunt
}

/// What went wrong in a run, in words: a violation, or a panic, which is a fault like any other.
///
/// # Errors
/// Those words.
pub fn caught(run: impl FnOnce() -> Result<Record, Violation>) -> Result<Record, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|violation| violation.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without words");
            Err(format!("panicked: {text}"))
        }
    }
}
