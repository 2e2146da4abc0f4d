//! The bounds of a scenario's fields.

use std::fmt::Display;

use aquifer::protocol::limit::Kind as LimitKind;

use super::{Invalid, Scenario, StartSpec};
use crate::fault::Nodes;
use crate::workload::callers::THINK_MS_MIN;
use crate::workload::{ARRIVALS_MAX, Cost, Kind, Workload};

/// A week: enough for calendars, and true time in nanoseconds stays far inside 64 bits.
const SECONDS_MAX: f64 = 604_800.0;
/// The shortest time in which demand changes, in seconds. It bounds how many pieces a workload is made of.
const PERIOD_MIN: f64 = 0.1;
/// The most made-up identities for each honest node.
const SYBILS_MAX: usize = 1_000;
/// An hour.
const WAIT_MS_MAX: u64 = 3_600_000;

/// Checks every field, in the order of the file.
pub(super) fn check(scenario: &Scenario) -> Result<(), Invalid> {
    within("nodes", scenario.nodes, 1, 10_000)?;
    within("seconds", scenario.seconds, 0.001, SECONDS_MAX)?;
    within("warmup", scenario.warmup, 0.0, SECONDS_MAX)?;
    scenario.limit.of(scenario.nodes)?;
    valid("links", scenario.links.check())?;
    valid("clocks", scenario.clocks.check())?;
    for (index, weight) in scenario.weights.iter().enumerate() {
        within(&format!("weights[{index}]"), *weight, 1, 1_000_000)?;
    }
    within("probe_every", scenario.probe_every, 0.0, SECONDS_MAX)?;
    check_liars(scenario)?;
    if scenario.workload.is_empty() {
        return invalid("workload", "empty", "at least one");
    }
    for (index, workload) in scenario.workload.iter().enumerate() {
        check_workload(&format!("workload[{index}]"), workload, scenario)?;
    }
    let requests: f64 = scenario.workload.iter().map(|workload| workload.expected(scenario)).sum();
    if requests > ARRIVALS_MAX {
        let bound = format!(
            "at most {ARRIVALS_MAX}: lower load, callers, seconds, per_second or nodes, or raise cost or think_ms"
        );
        return invalid("workload", format!("{requests:.0} requests in all"), bound);
    }
    check_steps(scenario)
}

fn check_liars(scenario: &Scenario) -> Result<(), Invalid> {
    within("liars", scenario.liars, 0.0, 1.0)?;
    within("auto_vouch", scenario.auto_vouch, 0.0, 1.0)?;
    for (index, liar) in scenario.liar.iter().enumerate() {
        check_nodes(&format!("liar[{index}].nodes"), &liar.nodes, scenario.nodes)?;
    }
    within("sybils", scenario.sybils, 0, SYBILS_MAX)?;
    if scenario.sybils > 0 && (scenario.liar.is_empty() || scenario.start != StartSpec::Formed) {
        return invalid("sybils", scenario.sybils, "0 unless there is a [[liar]] in a formed swarm to vouch");
    }
    Ok(())
}

fn check_workload(field: &str, workload: &Workload, scenario: &Scenario) -> Result<(), Invalid> {
    let of = |name: &str| format!("{field}.{name}");
    check_kind(&of("kind"), &workload.kind, scenario.nodes)?;
    check_nodes(&of("nodes"), &workload.nodes, scenario.nodes)?;
    within(&of("load"), workload.load, 0.0, 1e6)?;
    let burst = scenario.limit().capacity();
    match workload.cost {
        Cost::Units(units) if !(1..=burst).contains(&units) => {
            return invalid(&of("cost"), units, format!("from 1 to the burst, {burst}"));
        }
        Cost::Units(_) => {}
        Cost::Sizes(sizes) => {
            within(&of("cost.median"), sizes.median, 1.0, 1e12)?;
            within(&of("cost.sigma"), sizes.sigma, 0.0, 5.0)?;
            within(&of("cost.max"), sizes.max, 0.0, 1.0)?;
        }
    }
    if let Some(row) = workload.rows.iter().find(|row| row.units > burst) {
        return invalid(
            &of("kind.trace"),
            format!("{} units in one line", row.units),
            format!("at most {burst}"),
        );
    }
    within(&of("wait_ms"), workload.wait_ms, 0, WAIT_MS_MAX)?;
    let holds = matches!(scenario.limit(), LimitKind::Concurrency(_));
    within(&of("hold_ms"), workload.hold_ms, if holds { 1.0 } else { 0.0 }, WAIT_MS_MAX as f64)?;
    within(&of("forget"), workload.forget, 0.0, 1.0)?;
    within(&of("refund"), workload.refund, 0.0, if holds { 0.0 } else { 1.0 })?;
    within(&of("agents"), workload.agents, 1, 1_000)?;
    within(&of("callers"), workload.callers, 0, 1_000)?;
    within(&of("think_ms"), workload.think_ms, THINK_MS_MIN, WAIT_MS_MAX as f64)?;
    if workload.callers > 0 && (workload.regular || matches!(workload.kind, Kind::Trace(_))) {
        let bound = "0 where requests are regular or a trace says who asks when";
        return invalid(&of("callers"), workload.callers, bound);
    }
    let from = workload.from.unwrap_or(-scenario.warmup);
    within(&of("from"), from, -SECONDS_MAX, SECONDS_MAX)?;
    match workload.until {
        Some(until) if until <= from => invalid(&of("until"), until, format!("after from, {from}")),
        until => within(&of("until"), until.unwrap_or(0.0), -SECONDS_MAX, SECONDS_MAX),
    }
}

fn check_kind(field: &str, kind: &Kind, nodes: usize) -> Result<(), Invalid> {
    let of = |name: &str| format!("{field}.{name}");
    match kind {
        Kind::Steady | Kind::Trace(_) => Ok(()),
        Kind::Zipf { exponent } => within(&of("zipf.exponent"), *exponent, 0.0, 10.0),
        Kind::Greedy { nodes: greedy, times } => {
            check_nodes(&of("greedy.nodes"), greedy, nodes)?;
            within(&of("greedy.times"), *times, 0.0, 1e6)
        }
        Kind::OnOff { on, off } => {
            within(&of("on_off.on"), *on, PERIOD_MIN, SECONDS_MAX)?;
            within(&of("on_off.off"), *off, PERIOD_MIN, SECONDS_MAX)
        }
        Kind::Rotating { period } => within(&of("rotating.period"), *period, PERIOD_MIN, SECONDS_MAX),
        Kind::Flash { at, share } => {
            within(&of("flash.at"), *at, 0.0, SECONDS_MAX)?;
            within(&of("flash.share"), *share, 0.0, 1.0)
        }
        Kind::Diurnal { period } => within(&of("diurnal.period"), *period, PERIOD_MIN, SECONDS_MAX),
        Kind::Halves { period, busy } => {
            within(&of("halves.period"), *period, PERIOD_MIN, SECONDS_MAX)?;
            within(&of("halves.busy"), *busy, 0.0, 1.0)
        }
    }
}

fn check_steps(scenario: &Scenario) -> Result<(), Invalid> {
    let mut last = 0.0;
    for (index, step) in scenario.step.iter().enumerate() {
        let of = |name: &str| format!("step[{index}].{name}");
        within(&of("at"), step.at, 0.0, scenario.seconds)?;
        if step.at < last {
            return invalid(&of("at"), step.at, format!("in order of time: the one before is at {last}"));
        }
        last = step.at;
        valid(&of("do"), step.fault.check(scenario.nodes))?;
    }
    Ok(())
}

fn check_nodes(field: &str, nodes: &Nodes, count: usize) -> Result<(), Invalid> {
    valid(field, nodes.check(count))
}

/// What another part says of its own fields.
fn valid<E: Display>(field: &str, checked: Result<(), E>) -> Result<(), Invalid> {
    checked.map_err(|error| Invalid { field: field.to_owned(), problem: error.to_string() })
}

fn within<T: Copy + PartialOrd + Display>(field: &str, value: T, least: T, most: T) -> Result<(), Invalid> {
    // False for what is not a number.
    if value >= least && value <= most {
        return Ok(());
    }
    invalid(field, value, format!("from {least} to {most}"))
}

fn invalid(field: &str, value: impl Display, bound: impl Into<String>) -> Result<(), Invalid> {
    Err(Invalid { field: field.to_owned(), problem: format!("it is {value}, must be {}", bound.into()) })
}
