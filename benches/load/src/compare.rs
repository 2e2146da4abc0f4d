//! Servers side by side: rounds, medians, ratios, and whether goals are met; as tables in Markdown.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::plan::{Figure, Goal, Measurement, Plan};
use crate::run::{self, Measured};

/// What was measured of each target, round by round.
type Results<'a> = BTreeMap<&'a str, Vec<Measured>>;

/// Runs every measurement that has `only` in its title, and prints a table for each and one for all goals.
///
/// # Errors
///
/// A server that was there when it began has ended, or does not answer.
pub fn compare(plan: &Plan, rounds: usize, only: &str) -> Result<()> {
    let mut missing = BTreeSet::new();
    for (key, target) in &plan.targets {
        if let Err(error) = run::probe(target) {
            println!("Left out: {}; {error:#}.", target.name);
            missing.insert(key.as_str());
        }
    }
    let mut summary = Vec::new();
    for measurement in plan.measurements.iter().filter(|measurement| measurement.title.contains(only)) {
        let present: Vec<&str> =
            measurement.targets.iter().map(String::as_str).filter(|key| !missing.contains(key)).collect();
        let results = measure(plan, measurement, &present, rounds)?;
        print_table(plan, measurement, &present, &results);
        summary.extend(measurement.goals.iter().map(|goal| judge(plan, measurement, goal, &results)));
    }
    println!("\n| measured | goal | figure (least..most) | met |\n| --- | --- | ---: | --- |");
    println!("{}", summary.join("\n"));
    Ok(())
}

/// All rounds: there and back, so that what drifts on the machine falls on all alike.
fn measure<'a>(
    plan: &Plan,
    measurement: &Measurement,
    present: &[&'a str],
    rounds: usize,
) -> Result<Results<'a>> {
    let mut results = Results::new();
    for round in 0..rounds {
        let mut order = present.to_vec();
        if round % 2 == 1 {
            order.reverse();
        }
        for key in order {
            let measured = run::measure(&plan.targets[key], &measurement.load)?;
            results.entry(key).or_default().push(measured);
            eprint!(".");
        }
    }
    eprintln!();
    Ok(results)
}

fn print_table(plan: &Plan, measurement: &Measurement, present: &[&str], results: &Results<'_>) {
    println!("\n**{}**\n", measurement.title);
    println!(
        "| server | decisions/s (least..most) | p50 µs | p99 µs | CPU µs each | x rate | x p50 | x p99 | x CPU |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for key in present {
        let of = |figure| Spread::of(results[key].iter().map(|measured| measured.figure(figure)));
        let to = |figure| ratio(&results[key], &results[present[0]], figure).median;
        let rate = of(Figure::Rate);
        println!(
            "| {} | {:.0} ({:.0}..{:.0}) | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            plan.targets[*key].name,
            rate.median,
            rate.least,
            rate.most,
            of(Figure::P50).median,
            of(Figure::P99).median,
            of(Figure::Cpu).median,
            to(Figure::Rate),
            to(Figure::P50),
            to(Figure::P99),
            to(Figure::Cpu),
        );
    }
    for (key, rounds) in results {
        let not_allowed: u64 = rounds.iter().map(|measured| measured.not_allowed).sum();
        if not_allowed > 0 {
            println!("\n{}: {not_allowed} answers did not allow.", plan.targets[*key].name);
        }
    }
}

/// A row of the summary.
fn judge(plan: &Plan, measurement: &Measurement, goal: &Goal, results: &Results<'_>) -> String {
    let (what, bound) = match goal.figure {
        Figure::Rate => ("decisions/s", "≥"),
        Figure::P50 => ("p50", "≤"),
        Figure::P99 => ("p99", "≤"),
        Figure::Cpu => ("CPU each", "≤"),
    };
    let (figure, met) = match (results.get(goal.of.as_str()), results.get(goal.to.as_str())) {
        (Some(of), Some(to)) => {
            let ratio = ratio(of, to, goal.figure);
            let met = match goal.figure {
                Figure::Rate => ratio.median >= goal.ratio,
                _ => ratio.median <= goal.ratio,
            };
            let figure = format!("{:.2} ({:.2}..{:.2})", ratio.median, ratio.least, ratio.most);
            (figure, if met { "yes" } else { "**no**" })
        }
        _ => (String::new(), "not measured"),
    };
    let note = if goal.note.is_empty() { String::new() } else { format!(" ({})", goal.note) };
    format!(
        "| {}: {what} | {bound} {} x {}{note} | {figure} | {met} |",
        measurement.title, goal.ratio, plan.targets[&goal.to].name
    )
}

/// Round by round, since both had the same machine then.
fn ratio(of: &[Measured], to: &[Measured], figure: Figure) -> Spread {
    Spread::of(of.iter().zip(to).map(|(of, to)| of.figure(figure) / to.figure(figure)))
}

struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { median: f64::midpoint(low, high), least: values[0], most: values[values.len() - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let odd = Spread::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!([odd.median, odd.least, odd.most].map(f64::to_bits), [2.0, 1.0, 3.0].map(f64::to_bits));
        assert_eq!(Spread::of([4.0, 1.0].into_iter()).median.to_bits(), 2.5_f64.to_bits());
    }
}
