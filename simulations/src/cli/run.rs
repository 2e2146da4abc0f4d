//! `run`, `compare` and `sweep`: one scenario, over seeds, schemes and values.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use super::output::{FAILED, fail, print, progress, shell, terminal};
use super::{COMMAND, Options};
use crate::measure::expectation::unmet;
use crate::measure::measure;
use crate::parallel;
use crate::record::Record;
use crate::report::{Report, Run, html, table};
use crate::scenario::{Scenario, ScenarioError};
use crate::scheme::Scheme;
use crate::swarm::caught;

/// A scenario with one value of the parameter that is swept, if one is.
struct Variant {
    value: Option<String>,
    scenario: Scenario,
}

/// Runs all, and prints and writes what was asked for. `command` is what people called it by, for the last line.
pub fn run(
    options: &Options,
    sweep: Option<(&str, &[String])>,
    schemes: &[Scheme],
    command: &str,
) -> ExitCode {
    let schemes = if options.scheme.is_empty() { schemes } else { &options.scheme };
    let variants = match variants(options, sweep) {
        Ok(variants) => variants,
        Err(error) => return fail(&error.to_string()),
    };
    let mut jobs = Vec::new();
    for variant in &variants {
        for scheme in schemes.iter().filter(|scheme| scheme.suits(&variant.scenario)) {
            jobs.extend(
                (0..options.seeds).map(|number| (variant, *scheme, options.seed.wrapping_add(number))),
            );
        }
    }
    if !options.json && print(&format!("seed {}\n\n", options.seed)) != ExitCode::SUCCESS {
        return FAILED.into();
    }
    let pictures = options.html.is_some() && sweep.is_none();
    let bar = progress(Some(jobs.len() as u64), options.quiet);
    let job = |number: u64| {
        let (variant, scheme, seed) = jobs[number as usize];
        one(variant, scheme, seed, pictures && seed == options.seed)
    };
    let done = parallel::all(jobs.len() as u64, job, |_| bar.inc(1));
    bar.finish_and_clear();

    let (runs, records): (Vec<Run>, Vec<Option<Record>>) = done.into_iter().unzip();
    let replay = match runs.iter().find(|run| !run.is_fine()) {
        Some(bad) => again_failed(options, sweep, bad),
        None => again(options, sweep, schemes, command),
    };
    let fine = runs.iter().all(Run::is_fine);
    let report = Report {
        scenario: variants.into_iter().next().expect("BUG! no variant").scenario,
        seed: options.seed,
        seeds: options.seeds,
        over: sweep.map(|(key, _)| key.to_owned()),
        runs,
        records: records.into_iter().flatten().collect(),
        replay,
    };
    finish(&report, options, fine)
}

fn finish(report: &Report, options: &Options, fine: bool) -> ExitCode {
    let written = write(options.csv.as_deref(), || report.csv())
        .and_then(|()| write(options.html.as_deref(), || html(report)));
    if let Err(error) = written {
        return fail(&error);
    }
    let text = if options.json {
        match report.json() {
            Ok(json) => json,
            Err(error) => return fail(&format!("cannot print JSON: {error}")),
        }
    } else {
        let quiet = Report {
            runs: report.runs.iter().filter(|run| !run.is_fine()).cloned().collect(),
            ..report.clone()
        };
        let table = match (options.quiet, fine) {
            (false, _) => table(report, terminal()) + "\n",
            (true, true) => String::new(),
            (true, false) => table(&quiet, terminal()) + "\n",
        };
        format!("{table}replay: {}\n", report.replay)
    };
    match print(&text) {
        ExitCode::SUCCESS if !fine => FAILED.into(),
        status => status,
    }
}

fn write(file: Option<&Path>, text: impl FnOnce() -> String) -> Result<(), String> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, text()).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// The scenario as the command line wants it, with each value of the parameter that is swept.
fn variants(options: &Options, sweep: Option<(&str, &[String])>) -> Result<Vec<Variant>, ScenarioError> {
    let name = options.scenario.as_str();
    let is_path = Path::new(name).extension().is_some_and(|end| end == "toml") || name.contains('/');
    let mut scenario = if is_path { Scenario::load(Path::new(name)) } else { Scenario::named(name) }?;
    for (key, value) in settings(options) {
        scenario.set(&key, &value)?;
    }
    let Some((key, values)) = sweep else { return Ok(vec![Variant { value: None, scenario }]) };
    let with = |value: &String| {
        let mut scenario = scenario.clone();
        scenario.set(key, value)?;
        Ok(Variant { value: Some(value.clone()), scenario })
    };
    values.iter().map(with).collect()
}

/// What the command line changes in the scenario.
fn settings(options: &Options) -> Vec<(String, String)> {
    let number = |key: &str, value: Option<f64>| value.map(|value| (key.to_owned(), format!("{value:?}")));
    let nodes = options.nodes.map(|nodes| ("nodes".to_owned(), nodes.to_string()));
    let short = [
        nodes,
        number("seconds", options.seconds),
        number("loss", options.loss),
        number("hop_ms", options.hop),
    ];
    short.into_iter().flatten().chain(options.set.iter().cloned()).collect()
}

fn one(variant: &Variant, scheme: Scheme, seed: u64, keep: bool) -> (Run, Option<Record>) {
    let Variant { value, scenario } = variant;
    let mut run = Run {
        scheme,
        value: value.clone(),
        nodes: scenario.nodes,
        seed,
        trace_hash: None,
        measures: None,
        violation: None,
        unmet: vec![],
    };
    let record = match caught(|| scheme.run(scenario, seed)) {
        Ok(record) => record,
        Err(what) => {
            run.violation = Some(what);
            return (run, None);
        }
    };
    let measures = match scheme {
        Scheme::Ideal => Ok(measure(&record, &record)),
        _ => caught(|| Scheme::Ideal.run(scenario, seed)).map(|ideal| measure(&record, &ideal)),
    };
    match measures {
        Ok(measures) => {
            if scheme == Scheme::Aquifer {
                run.unmet = unmet(&scenario.expect, &measures);
            }
            run.measures = Some(measures);
        }
        Err(what) => run.violation = Some(what),
    }
    run.trace_hash = Some(format!("{:016x}", record.trace_hash));
    (run, keep.then_some(record))
}

/// The command that does all of it again.
fn again(options: &Options, sweep: Option<(&str, &[String])>, schemes: &[Scheme], command: &str) -> String {
    let mut words = vec![command.to_owned(), options.scenario.clone()];
    if let Some((key, values)) = sweep {
        words.extend(["--over".to_owned(), key.to_owned(), "--values".to_owned(), values.join(",")]);
    }
    words.extend(["--seed".to_owned(), options.seed.to_string()]);
    if options.seeds > 1 {
        words.extend(["--seeds".to_owned(), options.seeds.to_string()]);
    }
    if !options.scheme.is_empty() {
        words.extend(schemes.iter().flat_map(|scheme| ["--scheme".to_owned(), scheme.to_string()]));
    }
    line(words, settings(options))
}

/// The command that does one run again.
fn again_failed(options: &Options, sweep: Option<(&str, &[String])>, bad: &Run) -> String {
    let mut words =
        vec!["run".to_owned(), options.scenario.clone(), "--seed".to_owned(), bad.seed.to_string()];
    if bad.scheme != Scheme::Aquifer {
        words.extend(["--scheme".to_owned(), bad.scheme.to_string()]);
    }
    let value = sweep.zip(bad.value.clone()).map(|((key, _), value)| (key.to_owned(), value));
    line(words, settings(options).into_iter().chain(value).collect())
}

fn line(words: Vec<String>, settings: Vec<(String, String)>) -> String {
    let set = settings.into_iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
    let words = words.into_iter().chain(set);
    words.fold(COMMAND.to_owned(), |line, word| format!("{line} {}", shell(&word)))
}
