//! What runs came to: tables for terminals, JSON, CSV, and a page of pictures.

use std::collections::BTreeMap;

use serde::Serialize;

mod bars;
mod curves;
mod division;
mod html;
mod number;
mod svg;
mod table;

pub use self::html::html;
pub use self::table::{Terminal, table};

use crate::measure::statistics::Summary;
use crate::measure::{FIGURES, Measures, summarise};
use crate::record::Record;
use crate::scenario::Scenario;
use crate::scheme::Scheme;

/// One run, and what it came to.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Which scheme answered.
    pub scheme: Scheme,
    /// The value of the parameter that is swept, as it was given.
    pub value: Option<String>,
    /// How many nodes there were.
    pub nodes: usize,
    /// The seed.
    pub seed: u64,
    /// Two runs with the same hash went the same way; in hexadecimal, since JSON's numbers cannot hold it.
    pub trace_hash: Option<String>,
    /// Its figures, unless a checker stopped it.
    pub measures: Option<Measures>,
    /// What a checker found, in words.
    pub violation: Option<String>,
    /// Expectations of the scenario that it did not meet, in words and numbers.
    pub unmet: Vec<String>,
}

impl Run {
    /// Whether nothing was violated and every expectation met.
    pub fn is_fine(&self) -> bool {
        self.violation.is_none() && self.unmet.is_empty()
    }
}

/// Runs of one scenario that belong together. As JSON, the seed comes first and the command that runs it again last:
///
/// ```json
/// {"seed": 1, "seeds": 20, "over": null, "scenario": {"name": "steady", "about": "…", …},
///  "groups": [{"scheme": "aquifer", "value": null, "nodes": 10, "violations": 0,
///              "figures": {"utilisation": {"runs": 20, "min": 0.99, "lower": …, "median": …, "upper": …, "max": …}, …}}, …],
///  "runs": [{"scheme": "aquifer", "value": null, "nodes": 10, "seed": 1, "trace_hash": "…",
///            "measures": {"overshoot": 0, …, "phases": […]}, "violation": null, "unmet": []}, …],
///  "replay": "cargo run …"}
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run; where a parameter is swept, with its first value.
    pub scenario: Scenario,
    /// The first seed.
    pub seed: u64,
    /// How many seeds, from that one on.
    pub seeds: u64,
    /// The parameter that is swept.
    pub over: Option<String>,
    /// All runs, in order of value, scheme and seed.
    pub runs: Vec<Run>,
    /// What happened with the first seed under each scheme: for pictures. Empty if none were asked for.
    pub records: Vec<Record>,
    /// The command that does all this again.
    pub replay: String,
}

/// The runs that differ in their seed alone.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Which scheme answered.
    pub scheme: Scheme,
    /// The value of the parameter that is swept.
    pub value: Option<String>,
    /// How many nodes there were.
    pub nodes: usize,
    /// How many runs a checker stopped; they have no figures.
    pub violations: usize,
    /// Every figure over the seeds, by the name of its field in [`Measures`].
    pub figures: BTreeMap<&'static str, Summary>,
}

impl Report {
    /// The runs by value and scheme, in their order.
    pub fn groups(&self) -> Vec<Group> {
        let same = |a: &Run, b: &Run| a.scheme == b.scheme && a.value == b.value;
        self.runs
            .chunk_by(same)
            .map(|runs| Group {
                scheme: runs[0].scheme,
                value: runs[0].value.clone(),
                nodes: runs[0].nodes,
                violations: runs.iter().filter(|run| run.violation.is_some()).count(),
                figures: summarise(runs.iter().filter_map(|run| run.measures.as_ref())),
            })
            .collect()
    }

    /// Everything as indented JSON with a line feed after it.
    ///
    /// # Errors
    /// None that can be caused: all keys are texts.
    pub fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Json<'a> {
            seed: u64,
            seeds: u64,
            over: Option<&'a str>,
            scenario: Named<'a>,
            groups: Vec<Group>,
            runs: &'a [Run],
            replay: &'a str,
        }
        #[derive(Serialize)]
        struct Named<'a> {
            name: &'a str,
            #[serde(flatten)]
            scenario: &'a Scenario,
        }
        let json = Json {
            seed: self.seed,
            seeds: self.seeds,
            over: self.over.as_deref(),
            scenario: Named { name: &self.scenario.name, scenario: &self.scenario },
            groups: self.groups(),
            runs: &self.runs,
            replay: &self.replay,
        };
        serde_json::to_string_pretty(&json).map(|text| text + "\n")
    }

    /// One row for each run, a column for each figure, empty where the run has none (RFC 4180).
    pub fn csv(&self) -> String {
        let figures = FIGURES.iter().map(|figure| figure.key);
        let head = ["scheme", "value", "nodes", "seed", "trace_hash", "violation", "unmet"].into_iter();
        let mut lines = vec![head.chain(figures).collect::<Vec<_>>().join(",")];
        for run in &self.runs {
            let mut cells = vec![
                run.scheme.to_string(),
                run.value.clone().unwrap_or_default(),
                run.nodes.to_string(),
                run.seed.to_string(),
                run.trace_hash.clone().unwrap_or_default(),
                run.violation.clone().unwrap_or_default(),
                run.unmet.join("; "),
            ];
            cells.extend(FIGURES.iter().map(|figure| {
                let value = run.measures.as_ref().and_then(figure.get);
                value.map(|value| value.to_string()).unwrap_or_default()
            }));
            lines.push(cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(","));
        }
        lines.join("\r\n") + "\r\n"
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    /// A run with these figures.
    pub fn run(scheme: Scheme, value: Option<&str>, seed: u64, utilisation: f64) -> Run {
        Run {
            scheme,
            value: value.map(str::to_owned),
            nodes: 10,
            seed,
            trace_hash: Some("00ff".to_owned()),
            measures: Some(Measures { utilisation: Some(utilisation), ..Measures::default() }),
            violation: None,
            unmet: vec![],
        }
    }

    /// Runs of a scenario without anything in it.
    pub fn report(runs: Vec<Run>) -> Report {
        let scenario = "about = 'Nothing <happens>.'\nnodes = 10\nseconds = 60\nworkload = []\n\
                        [limit]\nper_second = 100\nburst = 10\n";
        Report {
            scenario: Scenario { name: "nothing".to_owned(), ..toml::from_str(scenario).unwrap() },
            seed: 1,
            seeds: 2,
            over: None,
            runs,
            records: vec![],
            replay: "cargo run again".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::examples::{report, run};
    use super::*;

    #[test]
    fn runs_that_differ_in_their_seed_are_one_group() {
        let mut stopped = run(Scheme::Aquifer, None, 2, 0.0);
        (stopped.measures, stopped.violation) = (None, Some("T1".to_owned()));
        let report =
            report(vec![run(Scheme::Aquifer, None, 1, 0.5), stopped, run(Scheme::Ideal, None, 1, 1.0)]);
        let groups = report.groups();
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[0].scheme, groups[0].violations), (Scheme::Aquifer, 1));
        assert_eq!(groups[0].figures["utilisation"].runs, 1);
        assert!((groups[1].figures["utilisation"].median - 1.0).abs() < 1e-9);
    }

    #[test]
    fn json_begins_with_the_seed_and_ends_with_the_command() {
        let text = report(vec![run(Scheme::Aquifer, Some("7"), 1, 0.5)]).json().unwrap();
        assert!(text.starts_with("{\n  \"seed\": 1,"));
        assert!(text.ends_with("\"replay\": \"cargo run again\"\n}\n"));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["scenario"]["name"], "nothing");
        assert_eq!(json["runs"][0]["measures"]["utilisation"], 0.5);
        assert_eq!(json["groups"][0]["figures"]["utilisation"]["median"], 0.5);
    }

    #[test]
    fn csv_has_a_row_for_each_run_and_quotes_what_must_be() {
        let mut odd = run(Scheme::Division, Some("1,5"), 2, 0.25);
        odd.violation = Some("said \"no\"".to_owned());
        let csv = report(vec![run(Scheme::Aquifer, None, 1, 0.5), odd]).csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[0].starts_with("scheme,value,nodes,seed,trace_hash,violation,unmet,overshoot,utilisation,")
        );
        assert!(lines[1].starts_with("aquifer,,10,1,00ff,,,0,0.5,,"));
        assert!(lines[2].starts_with("division,\"1,5\",10,2,00ff,\"said \"\"no\"\"\",,0,0.25,,"));
    }
}
