//! Swarms of real daemons on several hosts, which are network namespaces: that they never exceed the limit when cables are
//! pulled, packets get lost in one direction, networks part, addresses move and processes stand still, and how long they
//! take to find one another again.
//!
//! T1 is checked exactly, over the merged admission logs. Times are reported and asserted nowhere, except that links come
//! back at all. `scripts/netns` runs all scenarios, `cargo test` a few short ones.
#![cfg(all(feature = "daemon", target_os = "linux"))]

#[path = "../support/process.rs"]
mod process;

mod inside;
mod network;
mod report;
mod scenario;

use std::time::Duration;

use report::Run;
use scenario::{SCENARIOS, Scenario};

/// Names of scenarios, separated by spaces; then it is an error if they cannot run here.
const WANTED: &str = "AQUIFER_NETNS";
/// How often each runs.
const RUNS: &str = "AQUIFER_NETNS_RUNS";
/// How many seconds a fault lasts, instead of the scenario's own length.
const FAULT: &str = "AQUIFER_NETNS_FAULT";
/// What runs when nothing is wanted: a short fault each.
const SHORT: [&str; 2] = ["one-way", "renumber"];
const SHORT_FAULT: Duration = Duration::from_secs(4);

#[test]
fn hosts_that_lose_one_another_never_exceed_the_limit() {
    let wanted = std::env::var(WANTED).ok();
    if inside::is_inside() {
        return all(wanted.as_deref());
    }
    match inside::run("hosts_that_lose_one_another_never_exceed_the_limit") {
        Ok(status) => assert!(status.success(), "what ran in the namespaces says why"),
        Err(why) if wanted.is_some() => panic!("no network namespaces here: {why}"),
        Err(why) => println!("SKIPPED: no network namespaces here: {why}"),
    }
}

fn all(wanted: Option<&str>) {
    inside::mount();
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let fault: Option<u64> = number(FAULT);
    let (names, fault): (Vec<&str>, _) = match wanted {
        Some("all") => {
            (SCENARIOS.iter().map(|scenario| scenario.name).collect(), fault.map(Duration::from_secs))
        }
        Some(names) => (names.split_whitespace().collect(), fault.map(Duration::from_secs)),
        None => (SHORT.to_vec(), Some(SHORT_FAULT)),
    };
    let chosen = |name: &str| SCENARIOS.iter().find(|scenario| scenario.name == name);
    let chosen: Vec<&Scenario> = names
        .iter()
        .map(|name| chosen(name).unwrap_or_else(|| panic!("no scenario {name:?}; there are {}", listing())))
        .collect();
    let mut rows: Vec<(&str, Vec<Run>)> = Vec::new();
    for scenario in chosen {
        let runs = (0..number(RUNS).unwrap_or(1)).map(|_| scenario.run(fault));
        rows.push((scenario.name, runs.collect()));
    }
    println!("\n{}", report::table(&rows));
    for (name, runs) in &rows {
        for run in runs {
            assert_eq!(run.never_over, Ok(()), "{name}");
            assert!(run.used.iter().all(|used| *used > 0.0), "{name}: nothing was logged");
            assert!(run.linked.is_some(), "{name}: links never came back");
            // Half a second is less than a link's patience, and a host with a new address may dial the others before
            // they miss it. All other faults must be noticed.
            assert!(
                run.missing > 0 || ["flap", "renumber"].contains(name),
                "{name}: nobody noticed the fault"
            );
        }
    }
}

fn listing() -> String {
    SCENARIOS.map(|scenario| format!("\n  {:<13} {}", scenario.name, scenario.what)).concat()
}
