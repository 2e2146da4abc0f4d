//! What people see while it runs.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::demo::nodes::node_name;
use crate::cli::demo::screen::{Screen, paint};

use super::COLOURS;
use super::agents::{Call, End};
use super::provider::Visit;
use super::script::{AGENTS, CLASSES, MODELS};

/// What one agent, or one class, has at the moment.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    waits: usize,
    runs: usize,
    done: usize,
}

/// Shows how it is at `now`.
pub fn show(
    screen: &mut Screen,
    now: Duration,
    length: Duration,
    calls: &[Call],
    visits: &[Visit],
    event: &str,
) {
    screen.show(now, |colour| live(now, length, calls, visits, event, colour), || plain(now, calls, visits));
}

fn live(
    now: Duration,
    length: Duration,
    calls: &[Call],
    visits: &[Visit],
    event: &str,
    colour: bool,
) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{:<70}{:>5.1} / {:.0} s",
            "Who runs (#) and who waits (.)",
            now.as_secs_f64(),
            length.as_secs_f64()
        ),
        String::new(),
        format!("  {:<10}{:<8}{:<8}{:<13}{:<14}{:>6}", "class", "agent", "node", "model", "calls", "done"),
    ];
    for (place, agent) in AGENTS.iter().enumerate() {
        let count = count(calls, |call| call.agent == place);
        let class = CLASSES.iter().position(|class| *class == agent.class).unwrap_or(0);
        let hue = colour.then(|| COLOURS[class].1);
        let under_way = "#".repeat(count.runs) + &".".repeat(count.waits);
        lines.push(format!(
            "  {}{:<8}{:<8}{:<13}{}{:>6}",
            paint(agent.class.name(), 10, hue),
            agent.name,
            node_name(agent.node),
            MODELS[agent.model].name,
            paint(&under_way, 14, hue),
            count.done
        ));
    }
    lines.push(String::new());
    for (place, model) in MODELS.iter().enumerate() {
        let (running, admitted, tokens, refused) = totals(visits, place);
        lines.push(format!(
            "  {} at the provider: {running} of {} at once; {admitted} calls, {tokens} tokens; {refused} refused",
            model.name, model.max_concurrent
        ));
    }
    lines.push(if event.is_empty() { String::new() } else { format!("  {event}") });
    lines
}

fn plain(now: Duration, calls: &[Call], visits: &[Visit]) -> String {
    let mut line = format!("{:>4} s ", now.as_secs());
    let mut refused = 0;
    for (place, model) in MODELS.iter().enumerate() {
        let (running, _, _, no) = totals(visits, place);
        refused += no;
        let _ = write!(line, " {} {running}/{},", model.name, model.max_concurrent);
    }
    let _ = write!(line, " {refused} refused; done (waiting):");
    for class in CLASSES {
        let count = count(calls, |call| AGENTS[call.agent].class == class);
        let _ = write!(line, " {class} {} ({}),", count.done, count.waits);
    }
    line.truncate(line.trim_end_matches(',').len());
    line
}

fn count(calls: &[Call], wanted: impl Fn(&Call) -> bool) -> Count {
    let mut count = Count::default();
    for call in calls.iter().filter(|call| wanted(call)) {
        match call.end {
            End::Waits => count.waits += 1,
            End::Runs => count.runs += 1,
            End::Done => count.done += 1,
            _ => {}
        }
    }
    count
}

/// Calls that run, calls and tokens that were admitted, and calls that were refused, of one model.
fn totals(visits: &[Visit], model: usize) -> (usize, usize, u64, usize) {
    let mut totals = (0, 0, 0, 0);
    for visit in visits.iter().filter(|visit| visit.model == model) {
        totals.0 += usize::from(visit.until.is_none());
        totals.1 += usize::from(visit.refused_by.is_none());
        totals.2 += visit.tokens;
        totals.3 += usize::from(visit.refused_by.is_some());
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::seen;
    use super::*;

    #[test]
    fn a_line_says_who_runs_who_waits_and_what_was_refused() {
        let mut seen = seen();
        seen.calls[3].end = End::Waits;
        seen.visits[7].until = None;
        seen.visits[0].refused_by = Some("rpm");
        let line = plain(Duration::from_secs(3), &seen.calls, &seen.visits);
        assert_eq!(
            line,
            "   3 s  model/large 1/10, model/small 0/8, 1 refused; done (waiting): critical 1 (0), normal 1 (0), low 1 (1)"
        );
    }
}
