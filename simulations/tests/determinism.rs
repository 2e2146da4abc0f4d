//! The same seed gives the same run, and what is drawn for one purpose changes nothing for another.

use aquifer_simulations::clock::ClockSpec;
use aquifer_simulations::fault::{Fault, Nodes};
use aquifer_simulations::network::{LinkSpec, Preset};
use aquifer_simulations::record::Record;
use aquifer_simulations::scenario::{LimitSpec, Scenario, StartSpec, Step};
use aquifer_simulations::time::SEC;
use aquifer_simulations::world;

/// Everything at once: bad links, wrong clocks, late timers, a crash in the middle of outputs, a flapping part.
fn scenario() -> Scenario {
    let step = |at, fault| Step { at, say: format!("{fault:?}"), fault };
    let scenario = Scenario {
        nodes: 6,
        seconds: 8.0,
        warmup: 2.0,
        limit: LimitSpec::rate(60, 30),
        links: LinkSpec::preset(Preset::Lossy),
        clocks: ClockSpec { drift_ppm: 200, timers_late_ms: 3.0, wall_offset_ms: 40.0 },
        probe_every: 1.0,
        step: vec![
            step(1.0, Fault::CrashAfter { nodes: Nodes::Some(1), outputs: 7 }),
            step(2.0, Fault::Pause { nodes: Nodes::Some(2), seconds: 0.7 }),
            step(3.0, Fault::Flap { nodes: Nodes::Part(3, 0), seconds: 1.0 }),
            step(4.0, Fault::Start(Nodes::All)),
            step(6.0, Fault::Heal),
        ],
        ..Scenario::default()
    };
    scenario.check().unwrap();
    scenario
}

fn run(scenario: &Scenario, seed: u64) -> Record {
    world::run(scenario, seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"))
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let first = run(&scenario(), 1);
    assert!(first.answers.iter().filter(|answer| answer.admitted).count() > 100);
    assert!(!first.spreads.is_empty());
    assert_eq!(first, run(&scenario(), 1));
    assert_ne!(first.trace_hash, run(&scenario(), 2).trace_hash);
}

#[test]
fn one_event_more_changes_the_hash() {
    let scenario = Scenario { nodes: 3, seconds: 2.0, warmup: 1.0, ..Scenario::default() };
    let arrivals = aquifer_simulations::workload::arrivals(&scenario, 1);
    let whole = world::run_with(&scenario, 1, arrivals.clone().into()).unwrap();
    let less = world::run_with(&scenario, 1, arrivals[1..].to_vec().into()).unwrap();
    assert_ne!(whole.trace_hash, less.trace_hash);
}

#[test]
fn probes_draw_nothing_from_the_network_the_clocks_or_the_workload() {
    let begin = 2 * SEC;
    let with = run(&scenario(), 5);
    let without = run(&Scenario { probe_every: 0.0, ..scenario() }, 5);
    assert!(without.spreads.is_empty() && !with.spreads.is_empty());
    assert_eq!(with.arrivals, without.arrivals);
    // Up to the first probe, at the end of the warm-up, the runs are the same; whatever is different after it comes of the
    // news itself.
    let answers = |record: &Record| -> Vec<_> {
        record.answers.iter().filter(|answer| answer.at < begin).copied().collect()
    };
    assert_eq!(answers(&with), answers(&without));
}

#[test]
fn a_formed_swarm_of_ten_under_load_keeps_the_limit_and_uses_it() {
    let scenario = Scenario { seconds: 10.0, ..Scenario::default() };
    assert_eq!((scenario.nodes, scenario.start), (10, StartSpec::Formed));
    let record = run(&scenario, 1);
    assert!(record.overshoot.abs() < f64::EPSILON);
    let measured = record.answers.iter().filter(|answer| answer.admitted && answer.at >= record.begin);
    let admitted: u64 = measured.map(|answer| answer.units).sum();
    assert!((9_500..=11_000).contains(&admitted), "{admitted} of 10000 units");
}
