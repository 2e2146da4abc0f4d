//! `swarm` and `replay`: hunting for faults, and looking at one.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use serde_json::json;

use super::COMMAND;
use super::output::{FAILED, fail, print, progress};
use crate::record::Record;
use crate::scenario::Scenario;
use crate::swarm::{self, Bounds, Found, NODES_MAX};
use crate::time::seconds;

const LIARS_BOUNDS: &str = "--liars must be from 0 to 1";

/// Options of `swarm`.
#[derive(Clone, Debug, Args)]
pub struct Swarm {
    /// How many seeds; without an end if neither this nor --minutes is given
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    from: u64,
    /// The most nodes of a swarm; few nodes find most faults, and fastest
    #[arg(long, value_name = "N", default_value_t = NODES_MAX as u64, value_parser = value_parser!(u64).range(2..=NODES_MAX as u64))]
    nodes: u64,
    #[command(flatten)]
    liars: Liars,
    /// Stop after so many minutes
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Who lies.
#[derive(Clone, Copy, Debug, Args)]
struct Liars {
    /// The part of the nodes that lie, of 1; how is drawn from the seed
    #[arg(long = "liars", value_name = "F", default_value_t = 0.0)]
    part: f64,
}

/// Options of `replay`.
#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// The seed
    seed: u64,
    /// The most nodes that were asked of `swarm`
    #[arg(long, value_name = "N", default_value_t = NODES_MAX as u64, value_parser = value_parser!(u64).range(2..=NODES_MAX as u64))]
    nodes: u64,
    #[command(flatten)]
    liars: Liars,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print every answer too
    #[arg(long, conflicts_with = "json")]
    trace: bool,
}

impl Liars {
    fn with(self, nodes: u64) -> Bounds {
        Bounds { nodes: nodes as usize, liars: self.part }
    }

    fn are_fine(self) -> bool {
        (0.0..=1.0).contains(&self.part)
    }

    /// The options as they must be given again.
    fn again(self, nodes: u64) -> String {
        let nodes = if nodes == NODES_MAX as u64 { String::new() } else { format!(" --nodes {nodes}") };
        if self.part > 0.0 { format!("{nodes} --liars {}", self.part) } else { nodes }
    }
}

impl Swarm {
    /// Runs the command.
    pub fn run(&self) -> ExitCode {
        if !self.liars.are_fine() {
            return fail(LIARS_BOUNDS);
        }
        let until = match self.minutes.map(|minutes| Duration::try_from_secs_f64(minutes * 60.0)) {
            Some(Err(_)) => return fail("--minutes must be zero or more"),
            Some(Ok(long)) => Instant::now().checked_add(long),
            None => None,
        };
        if !self.json && print(&format!("seed {}\n\n", self.from)) != ExitCode::SUCCESS {
            return FAILED.into();
        }
        let bar = progress(self.seeds, self.json);
        let began = Instant::now();
        let hunt =
            swarm::hunt(self.from, self.seeds.unwrap_or(u64::MAX), self.liars.with(self.nodes), |hunt| {
                bar.set_position(hunt.runs);
                bar.set_message(format!("({})", rate(hunt.node_hours, began.elapsed())));
                until.is_none_or(|until| Instant::now() < until)
            });
        bar.finish_and_clear();
        let replay = match &hunt.found {
            Some(found) => format!("{COMMAND} replay {}{}", found.seed, self.liars.again(self.nodes)),
            None => {
                format!(
                    "{COMMAND} swarm --from {} --seeds {}{}",
                    self.from,
                    hunt.runs,
                    self.liars.again(self.nodes)
                )
            }
        };
        let text = if self.json {
            let found = hunt.found.as_ref().map(
                |found| json!({ "seed": found.seed, "scenario": found.scenario, "violation": found.what }),
            );
            let took = began.elapsed().as_secs_f64();
            let json = json!({
                "seed": self.from, "runs": hunt.runs, "node_hours": hunt.node_hours, "seconds": took,
                "node_hours_per_core_second": per_core_second(hunt.node_hours, began.elapsed()),
                "found": found, "replay": replay,
            });
            format!("{json:#}\n")
        } else {
            let found = hunt.found.as_ref();
            let found = found.map(|found| format!("{}\n{}\n", options(&found.scenario), told(found)));
            let found = found.unwrap_or_default();
            let sum = format!("{} seeds, {}", hunt.runs, rate(hunt.node_hours, began.elapsed()));
            format!("{found}{sum}\nreplay: {replay}\n")
        };
        match print(&text) {
            ExitCode::SUCCESS if hunt.found.is_some() => FAILED.into(),
            status => status,
        }
    }
}

impl Replay {
    /// Runs the command.
    pub fn run(&self) -> ExitCode {
        if !self.liars.are_fine() {
            return fail(LIARS_BOUNDS);
        }
        let replay = format!("{COMMAND} replay {}{}", self.seed, self.liars.again(self.nodes));
        let outcome = swarm::run(self.seed, self.liars.with(self.nodes));
        if self.json {
            let (scenario, record, what) = match &outcome {
                Ok((scenario, record)) => (scenario, Some(record), None),
                Err(found) => (&found.scenario, found.record.as_ref(), Some(&found.what)),
            };
            let json = json!({
                "seed": self.seed, "scenario": scenario, "record": record, "violation": what, "replay": replay,
            });
            return ended(&format!("{json:#}\n"), outcome.is_ok());
        }
        let story = |record: &Record| {
            let trace = if self.trace { answers(record) } else { String::new() };
            trace + &happened(record)
        };
        let text = match &outcome {
            Ok((scenario, record)) => {
                format!("{}\n{}\nnothing was violated\n", options(scenario), story(record))
            }
            Err(found) => {
                let story = found.record.as_ref().map(story).unwrap_or_default();
                format!("{}\n{story}\n{}", options(&found.scenario), told(found))
            }
        };
        ended(&format!("seed {}\n\n{text}\nreplay: {replay}\n", self.seed), outcome.is_ok())
    }
}

fn ended(text: &str, fine: bool) -> ExitCode {
    match print(text) {
        ExitCode::SUCCESS if !fine => FAILED.into(),
        status => status,
    }
}

fn told(found: &Found) -> String {
    format!("FAILED with seed {}: {}\n", found.seed, found.what)
}

/// What was drawn, as a file would have it.
fn options(scenario: &Scenario) -> String {
    toml::to_string(scenario).unwrap_or_else(|error| format!("{scenario:#?}\n({error})\n"))
}

fn happened(record: &Record) -> String {
    let admitted = record.answers.iter().filter(|answer| answer.admitted);
    let (count, units) = admitted.fold((0, 0), |(count, units), answer| (count + 1, units + answer.units));
    let marks = record.marks.iter();
    let mut text: String =
        marks.map(|mark| format!("{:>12.6} s  {}\n", seconds(mark.at), mark.say)).collect();
    let _ = writeln!(
        text,
        "{} requests, {} answers, {count} admitted with {units} units, {} messages, {} bytes, trace {:016x}",
        record.arrivals.len(),
        record.answers.len(),
        record.traffic.messages,
        record.traffic.bytes,
        record.trace_hash
    );
    text
}

fn answers(record: &Record) -> String {
    let line = |answer: &crate::record::Answer| {
        let outcome = if answer.admitted { "admitted" } else { "refused" };
        let (at, waited) = (seconds(answer.at), seconds(answer.waited));
        format!("{at:>12.6} s  node {} {outcome} {} units after {waited:.6} s\n", answer.node, answer.units)
    };
    record.answers.iter().map(line).collect()
}

fn rate(node_hours: f64, took: Duration) -> String {
    let rate = per_core_second(node_hours, took);
    format!("{node_hours:.2} node-hours, {rate:.3} node-hours per core-second")
}

/// Over all cores, which is what the hunt keeps busy.
fn per_core_second(node_hours: f64, took: Duration) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    node_hours / (took.as_secs_f64() * cores as f64).max(f64::MIN_POSITIVE)
}
