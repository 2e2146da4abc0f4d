//! Every checker finds the bugs it is for: mistakes that somebody could make in the core are planted one at a time
//! (`planted.toml`), and each must be found within 10,000 seeds. `-- --nocapture` shows the table.

mod bank;
mod copy;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use bank::{Bank, Bug};

/// The most seeds that finding a bug may take.
const SEEDS_MAX: u64 = 10_000;

/// A scenario is run with so many seeds at a time.
const SCENARIO_SEEDS: u64 = 20;

/// Properties that the core itself does not always keep yet. Everything else must hold in all seeds that the bugs needed; a
/// bug counts as found as one of these too only with a seed with which the core without it keeps all.
const NOT_YET: [&str; 2] = ["Liveness", "NoStarvation"];

#[test]
fn every_planted_bug_is_found() {
    let bank = Bank::read(include_str!("../../planted.toml"));
    assert!(bank.bug.len() >= 15, "a bank of {} bugs", bank.bug.len());
    let hunter = Hunter { program: copy::build(&bank) };
    let mut missed = Vec::new();
    let mut needed: BTreeMap<Place, u64> = BTreeMap::new();
    println!("{:<40}  {:<12}  {:>6}  {:>7}", "bug", "found as", "seeds", "seconds");
    for (bug, number) in bank.bug.iter().zip(1..) {
        let began = Instant::now();
        let found = hunter.find(bug, number);
        let (property, seeds) = match &found {
            Some(found) => (found.property(), found.seed.to_string()),
            None => ("-", format!(">{SEEDS_MAX}")),
        };
        println!("{:<40}  {property:<12}  {seeds:>6}  {:>7.1}", bug.name, began.elapsed().as_secs_f64());
        match found {
            Some(found) => {
                let most = needed.entry(Place::of(bug)).or_default();
                *most = found.seed.max(*most);
            }
            None => missed.push(format!("{} ({})", bug.name, bug.what)),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:#?}");
    for (place, most) in needed {
        let mut found = hunter.all(&place, most);
        found.retain(|found| !NOT_YET.contains(&found.property()));
        assert!(found.is_empty(), "{place:?} with no bug planted, {most} seeds: {found:#?}");
    }
}

/// Where bugs are looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The swarm, with so many nodes at most.
    Swarm(u64),
    /// A scenario in `planted`.
    Scenario(String),
}

struct Hunter {
    program: PathBuf,
}

#[derive(Clone, Debug)]
struct Found {
    seed: u64,
    violation: String,
}

impl Place {
    fn of(bug: &Bug) -> Self {
        bug.scenario.clone().map_or(Self::Swarm(bug.nodes), Self::Scenario)
    }
}

impl Hunter {
    /// The first seed with which a bug is found as what it is, and without it nothing is.
    fn find(&self, bug: &Bug, number: u32) -> Option<Found> {
        let place = Place::of(bug);
        let mut from = 1;
        while from <= SEEDS_MAX {
            let found = self.hunt(&place, number, from, SEEDS_MAX)?;
            let is_expected = bug.property.iter().any(|property| property == found.property());
            if is_expected && self.hunt(&place, 0, found.seed, found.seed).is_none() {
                return Some(found);
            }
            from = found.seed + 1;
        }
        None
    }

    /// Everything that is found in seeds from 1 to `last` with no bug planted.
    fn all(&self, place: &Place, last: u64) -> Vec<Found> {
        let mut all = Vec::new();
        let mut from = 1;
        while from <= last {
            let Some(found) = self.hunt(place, 0, from, last) else { break };
            from = found.seed + 1;
            all.push(found);
        }
        all
    }

    /// The first seed of these with which anything is violated while this bug is switched on; none is with 0.
    fn hunt(&self, place: &Place, number: u32, from: u64, to: u64) -> Option<Found> {
        match place {
            Place::Swarm(nodes) => {
                let nodes = nodes.to_string();
                let json = self.run(&["swarm", "--nodes", &nodes, "--from"], number, from, to);
                Found::of(&json["found"])
            }
            Place::Scenario(name) => {
                let file = format!("{}/planted/{name}.toml", env!("CARGO_MANIFEST_DIR"));
                (from..=to).step_by(SCENARIO_SEEDS as usize).find_map(|from| {
                    let to = to.min(from + SCENARIO_SEEDS - 1);
                    let json = self.run(&["run", &file, "--seed"], number, from, to);
                    json["runs"].as_array().expect("runs are a list").iter().find_map(Found::of)
                })
            }
        }
    }

    fn run(&self, words: &[&str], number: u32, from: u64, to: u64) -> Value {
        let output = Command::new(&self.program)
            .args(words)
            .args([&from.to_string(), "--seeds", &(to - from + 1).to_string(), "--json"])
            .env(copy::SWITCH, number.to_string())
            .output()
            .expect("the copy can be run");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("it printed no JSON ({error}): {}", String::from_utf8_lossy(&output.stderr))
        })
    }
}

impl Found {
    fn of(json: &Value) -> Option<Self> {
        let violation = json["violation"].as_str()?.to_owned();
        Some(Self { seed: json["seed"].as_u64().expect("a seed is a number"), violation })
    }

    /// The property that was violated; `panicked:` if it was none.
    fn property(&self) -> &str {
        self.violation.split(' ').next().unwrap_or_default()
    }
}
