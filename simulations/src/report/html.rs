//! The page: one file that needs nothing else, no network and no scripts.

use super::number::{digits, shown, unit};
use super::svg::escape;
use super::table::median_phases;
use super::{Group, Report, bars, curves, division};
use crate::measure::{FIGURES, Unit};
use std::fmt::Write as _;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#202124;--soft:#5f6368;--rule:#dadce0;--paper:#fff;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa0a6;--rule:#3c4043;--paper:#17181a;--bad:#f2b8b5}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:800px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin:0}h2{font-size:1.15em;margin:2em 0 .5em}.about{color:var(--soft);margin:.2em 0 1.5em}
svg{width:100%;height:auto;display:block;margin:1em 0}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.25em .8em .25em 0;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child,td.say{text-align:left}td.say{white-space:normal}small{color:var(--soft)}
pre{overflow-x:auto;border:1px solid var(--rule);border-radius:6px;padding:.8em;font-size:13px}.bad{color:var(--bad)}";

/// The page of a report.
pub fn html(report: &Report) -> String {
    let scenario = &report.scenario;
    let last = report.seed.wrapping_add(report.seeds - 1);
    let seeds = if report.seeds == 1 {
        format!("seed {}", report.seed)
    } else {
        format!("seeds {} to {last}", report.seed)
    };
    let mut body = format!(
        "<h1>{}</h1>\n<p class=\"about\">{} {}.</p>\n",
        escape(&scenario.name),
        escape(&scenario.about),
        escape(&seeds)
    );
    body += &failures(report);
    body += &pictures(report);
    body += &phases(report);
    body += &figures(report);
    let text = toml::to_string(scenario).unwrap_or_else(|error| format!("{error}"));
    let _ = writeln!(body, "<h2>The scenario</h2>\n<pre>{}</pre>", escape(&text));
    let _ = writeln!(body, "<h2>Again</h2>\n<pre>{}</pre>", escape(&report.replay));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>\n{STYLE}\n</style>\n</head>\n\
         <body>\n{body}</body>\n</html>\n",
        escape(&scenario.name)
    )
}

fn failures(report: &Report) -> String {
    let mut text = String::new();
    for run in &report.runs {
        for what in run.violation.iter().chain(&run.unmet) {
            let _ = writeln!(text, "<p class=\"bad\">Failed with seed {}: {}</p>", run.seed, escape(what));
        }
    }
    text
}

fn pictures(report: &Report) -> String {
    let mut text = String::new();
    let several = report.groups().len() > 1;
    if report.over.is_some() {
        let keys = ["utilisation", "reaction", "spread_p99", "bytes", "distance", "wait_p99", "overshoot"];
        text.extend(keys.iter().filter_map(|key| curves::curves(report, key)));
    } else if several {
        text.extend(bars::bars(
            report,
            "overshoot",
            "Overshoot: the most units over the limit, in any interval",
        ));
        text.extend(bars::bars(report, "utilisation", "Units admitted, of what the ideal admits"));
        text.extend(bars::bars(report, "distance", "Distance to weighted max-min"));
        text.extend(bars::bars(report, "reaction", "Time to 95 % of the new optimum after a step"));
        text.extend(bars::waits(report));
        text.extend(bars::bars(report, "bytes", "Traffic per node"));
    }
    for record in &report.records {
        text += &division::admitted(record);
        text.extend(division::held(record));
    }
    if !several {
        text.extend(bars::waits(report));
    }
    if report.records.is_empty() {
        text
    } else {
        format!("{text}<p><small>Over time: seed {}.</small></p>\n", report.seed)
    }
}

/// What happened when, by the numbers in the pictures, and what became of it under each scheme.
fn phases(report: &Report) -> String {
    if report.over.is_some() {
        return String::new();
    }
    let groups = report.groups();
    let all: Vec<_> = groups.iter().map(|group| median_phases(report, group.scheme, None)).collect();
    let Some(most) = all.iter().max_by_key(|phases| phases.len()).filter(|phases| !phases.is_empty()) else {
        return String::new();
    };
    let heads: String =
        groups.iter().map(|group| format!("<th>{}: used<th>reaction", group.scheme)).collect();
    let mut text = format!(
        "<h2>What happened</h2>\n<div class=\"scroll\"><table>\n<tr><th>#<th>at<th class=\"say\">what{heads}</tr>\n"
    );
    let cell = |value: Option<f64>, unit| value.map_or_else(|| "-".to_owned(), |value| shown(value, unit));
    for (i, phase) in most.iter().enumerate() {
        let cells: String = all
            .iter()
            .map(|phases| match phases.get(i) {
                Some(phase) => format!(
                    "<td>{}<td>{}",
                    cell(phase.utilisation, Unit::Part),
                    cell(phase.reaction, Unit::Seconds)
                ),
                None => "<td>-<td>-".to_owned(),
            })
            .collect();
        let (at, say) = (digits(phase.at), escape(&phase.say));
        let _ = writeln!(text, "<tr><td>{}<td>{at} s<td class=\"say\">{say}{cells}</tr>", i + 1);
    }
    text + "</table></div>\n"
}

/// Every figure of every group: the median, and the spread below it.
fn figures(report: &Report) -> String {
    let groups = report.groups();
    let head = |group: &Group| match &group.value {
        Some(value) => format!("<th>{} {}", escape(value), group.scheme),
        None => format!("<th>{}", group.scheme),
    };
    let heads: String = groups.iter().map(head).collect();
    let about = if report.seeds > 1 { " <small>(medians, and from least to most)</small>" } else { "" };
    let mut text = format!("<h2>Figures{about}</h2>\n<div class=\"scroll\"><table>\n<tr><th>{heads}</tr>\n");
    for figure in
        FIGURES.iter().filter(|figure| groups.iter().any(|group| group.figures.contains_key(figure.key)))
    {
        let cell = |group: &Group| match group.figures.get(figure.key) {
            Some(summary) if summary.runs > 1 => {
                let show = |value| shown(value, figure.unit);
                let (median, min, max) = (show(summary.median), show(summary.min), show(summary.max));
                format!("<td>{median}<br><small>{min} … {max}</small>")
            }
            Some(summary) => format!("<td>{}", shown(summary.median, figure.unit)),
            None => "<td>-".to_owned(),
        };
        let cells: String = groups.iter().map(cell).collect();
        let _ = writeln!(text, "<tr><td>{}{}{cells}</tr>", escape(figure.title), unit(figure.unit));
    }
    text + "</table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::super::examples::{report, run};
    use super::*;
    use crate::scheme::Scheme;

    #[test]
    fn the_page_has_all_and_refers_to_nothing_outside() {
        let mut bad = run(Scheme::Ideal, None, 1, 1.0);
        bad.violation = Some("T1 & more".to_owned());
        let mut report = report(vec![run(Scheme::Aquifer, None, 1, 0.5), bad]);
        report.replay = "run <x>".to_owned();
        let page = html(&report);
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("<script"));
        for part in
            ["Nothing &lt;happens&gt;.", "seeds 1 to 2", "T1 &amp; more", "run &lt;x&gt;", "per_second = 100"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(page.contains("Units admitted, of what the ideal admits"));
    }
}
