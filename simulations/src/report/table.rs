//! The table for terminals.

use super::number::{shown, unit};
use super::{Group, Report};
use crate::measure::statistics::{Summary, median};
use crate::measure::{FIGURES, Figure, Phase, Unit};
use crate::scheme::Scheme;
use std::fmt::Write as _;

/// What can be shown.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// How many characters fit into a line.
    pub width: usize,
    /// Whether headings are bold and failures red.
    pub colour: bool,
}

impl Terminal {
    fn wrap(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Figures in rows; in columns the spread over the seeds, or the schemes or values side by side.
pub fn table(report: &Report, terminal: Terminal) -> String {
    let groups = report.groups();
    let (about, columns) = match groups.as_slice() {
        [one] if report.seeds > 1 => {
            (format!("{}, over {} seeds", title(report, one), report.seeds), spread(one))
        }
        [one] => (title(report, one), vec![(String::new(), values(one, |summary| summary.median))]),
        several => {
            let column = |group| (heading(report, group), values(group, |summary| summary.median));
            (medians(report), several.iter().map(column).collect())
        }
    };
    let mut text = format!("{}\n", terminal.wrap("1", &about));
    text += &rows(&columns, terminal);
    if let [one] = groups.as_slice() {
        text += &phases(report, one.scheme, terminal);
    }
    text + &failures(report, terminal)
}

type Column = (String, Vec<Option<f64>>);

fn title(report: &Report, group: &Group) -> String {
    let (name, limit) = (&report.scenario.name, &report.scenario.limit);
    format!("{name}: {}, {} nodes, {limit}", group.scheme, group.nodes)
}

fn medians(report: &Report) -> String {
    let over = match &report.over {
        Some(key) => format!("over {key}"),
        None => format!("{} nodes", report.scenario.nodes),
    };
    let seeds = if report.seeds > 1 { format!(", medians of {} seeds", report.seeds) } else { String::new() };
    format!("{}, {over}{seeds}", report.scenario.name)
}

fn heading(report: &Report, group: &Group) -> String {
    let schemes = report.runs.iter().any(|run| run.scheme != group.scheme);
    match &group.value {
        Some(value) if schemes => format!("{value} {}", group.scheme),
        Some(value) => value.clone(),
        None => group.scheme.to_string(),
    }
}

fn values(group: &Group, of: fn(&Summary) -> f64) -> Vec<Option<f64>> {
    FIGURES.iter().map(|figure| group.figures.get(figure.key).map(of)).collect()
}

fn spread(group: &Group) -> Vec<Column> {
    vec![
        ("median".to_owned(), values(group, |summary| summary.median)),
        ("min".to_owned(), values(group, |summary| summary.min)),
        ("quarter".to_owned(), values(group, |summary| summary.lower)),
        ("3 quarters".to_owned(), values(group, |summary| summary.upper)),
        ("max".to_owned(), values(group, |summary| summary.max)),
    ]
}

/// As many blocks of columns as the width takes; figures that no column has are left out.
fn rows(columns: &[Column], terminal: Terminal) -> String {
    let name = |figure: &Figure| format!("{}{}", figure.title, unit(figure.unit));
    let some: Vec<usize> =
        (0..FIGURES.len()).filter(|i| columns.iter().any(|(_, values)| values[*i].is_some())).collect();
    let left = some.iter().map(|i| name(&FIGURES[*i]).chars().count()).max().unwrap_or(0);
    let cell =
        |value: Option<f64>, unit: Unit| value.map_or_else(|| "-".to_owned(), |value| shown(value, unit));
    let width = |(heading, values): &Column| {
        let cells = some.iter().map(|i| cell(values[*i], FIGURES[*i].unit).chars().count());
        2 + cells.chain([heading.chars().count()]).max().unwrap_or(0)
    };
    let mut text = String::new();
    let mut rest = columns;
    while !rest.is_empty() {
        let mut room = terminal.width.saturating_sub(left);
        let fits = rest.iter().take_while(|column| {
            let fits = width(column) <= room;
            room = room.saturating_sub(width(column));
            fits
        });
        let (block, after) = rest.split_at(fits.count().max(1));
        rest = after;
        if block.iter().any(|(heading, _)| !heading.is_empty()) {
            let heads: String =
                block.iter().map(|column| format!("{:>1$}", column.0, width(column))).collect();
            text += &terminal.wrap("1", &format!("{:left$}{heads}", ""));
            text.push('\n');
        }
        for i in &some {
            let figure = &FIGURES[*i];
            let cells =
                block.iter().map(|column| format!("{:>1$}", cell(column.1[*i], figure.unit), width(column)));
            let _ = writeln!(text, "{:left$}{}", name(figure), cells.collect::<String>());
        }
        if !rest.is_empty() {
            text.push('\n');
        }
    }
    text
}

/// What every phase came to, the median over the seeds.
fn phases(report: &Report, scheme: Scheme, terminal: Terminal) -> String {
    let phases = median_phases(report, scheme, None);
    if phases.is_empty() {
        return String::new();
    }
    let head = format!("{:>9}  {:>9}  {:>9}  {:>9}  what happened", "at", "used", "lost", "reaction");
    let mut text = format!("\n{}\n", terminal.wrap("1", &head));
    for phase in phases {
        let cell =
            |value: Option<f64>, unit| value.map_or_else(|| "-".to_owned(), |value| shown(value, unit));
        let _ = writeln!(
            text,
            "{:>9}  {:>9}  {:>9}  {:>9}  {}",
            format!("{} s", super::number::digits(phase.at)),
            cell(phase.utilisation, Unit::Part),
            cell(Some(phase.lost), Unit::Units),
            cell(phase.reaction, Unit::Seconds),
            phase.say
        );
    }
    text
}

/// The phases of a scheme's runs with a value, each figure the median over the runs that have it. Phases are matched by
/// their place: they come from the scenario, not from the seed.
pub fn median_phases(report: &Report, scheme: Scheme, value: Option<&str>) -> Vec<Phase> {
    let runs = report.runs.iter().filter(|run| run.scheme == scheme && run.value.as_deref() == value);
    let all: Vec<&[Phase]> = runs.filter_map(|run| Some(run.measures.as_ref()?.phases.as_slice())).collect();
    let most = all.iter().max_by_key(|phases| phases.len()).copied().unwrap_or_default();
    let of = |i: usize, get: fn(&Phase) -> Option<f64>| {
        median(all.iter().filter_map(|phases| phases.get(i).and_then(get)))
    };
    let phase = |(i, phase): (usize, &Phase)| Phase {
        utilisation: of(i, |phase| phase.utilisation),
        lost: of(i, |phase| Some(phase.lost)).unwrap_or(0.0),
        reaction: of(i, |phase| phase.reaction),
        ..phase.clone()
    };
    most.iter().enumerate().map(phase).collect()
}

fn failures(report: &Report, terminal: Terminal) -> String {
    let mut text = String::new();
    for run in report.runs.iter().filter(|run| !run.is_fine()) {
        let value = match (&report.over, &run.value) {
            (Some(key), Some(value)) => format!(", {key} {value}"),
            _ => String::new(),
        };
        for what in run.violation.iter().chain(&run.unmet) {
            let line = format!("FAILED with seed {}{value}: {what}", run.seed);
            let _ = writeln!(text, "{}", terminal.wrap("31", &line));
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{report, run};
    use super::*;

    const PLAIN: Terminal = Terminal { width: 60, colour: false };

    #[test]
    fn one_run_is_a_list_of_figures() {
        let mut report = report(vec![run(Scheme::Aquifer, None, 1, 0.995)]);
        report.seeds = 1;
        let text = table(&report, PLAIN);
        assert!(text.starts_with("nothing: aquifer, 10 nodes, 100 units/s and a burst of 10\n"), "{text}");
        assert!(text.contains("\nused of ideal      99.50 %\n"), "{text}");
        assert!(!text.contains("Jain"), "no run has it");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn several_seeds_show_their_spread() {
        let runs = vec![run(Scheme::Aquifer, None, 1, 0.5), run(Scheme::Aquifer, None, 2, 1.0)];
        let text = table(&report(runs), Terminal { width: 80, ..PLAIN });
        let row: Vec<&str> =
            text.lines().find(|line| line.starts_with("used")).unwrap().split("  ").collect();
        let cells: Vec<&str> = row.into_iter().map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["used of ideal", "75.00 %", "50.00 %", "62.50 %", "87.50 %", "100.00 %"]);
    }

    #[test]
    fn columns_that_do_not_fit_come_below() {
        let runs = Scheme::ALL.into_iter().map(|scheme| run(scheme, None, 1, 0.5)).collect();
        let text = table(&report(runs), PLAIN);
        assert!(text.lines().all(|line| line.chars().count() <= PLAIN.width), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("overshoot")).count(), 2, "{text}");
        assert!(Scheme::ALL.iter().all(|scheme| text.contains(scheme.name())));
    }

    #[test]
    fn failures_are_named_below() {
        let mut bad = run(Scheme::Aquifer, Some("5"), 3, 0.5);
        bad.unmet = vec!["utilisation is 0.5, expected at least 0.9".to_owned()];
        let mut report = report(vec![bad]);
        report.over = Some("nodes".to_owned());
        let text = table(&report, Terminal { colour: true, ..PLAIN });
        let line = "\x1b[31mFAILED with seed 3, nodes 5: utilisation is 0.5, expected at least 0.9\x1b[0m\n";
        assert!(text.ends_with(line), "{text}");
    }

    #[test]
    fn phases_are_medians_over_the_seeds_that_have_them() {
        let phase = |reaction| Phase {
            at: 2.0,
            say: "cut".to_owned(),
            utilisation: Some(0.5),
            lost: 1.0,
            step: true,
            reaction,
        };
        let runs = [Some(1.0), None, Some(2.0)].into_iter().map(|reaction| {
            let mut run = run(Scheme::Aquifer, None, 1, 0.5);
            run.measures.as_mut().unwrap().phases = vec![phase(reaction)];
            run
        });
        let report = report(runs.collect());
        assert_eq!(median_phases(&report, Scheme::Aquifer, None), [phase(Some(1.5))]);
        assert_eq!(median_phases(&report, Scheme::Ideal, None), []);
    }
}
