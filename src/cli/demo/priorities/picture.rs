//! The picture: who waits while who runs, and the calls at the same time that come of it, for each model.

use std::time::Duration;

use crate::cli::demo::chart::{
    GREY, HEADING, INK, LABEL, LEFT, NOTE, RIGHT, TITLE, WIDTH, scale, time_axis, x,
};
use crate::cli::demo::figures::milliseconds;
use crate::cli::demo::nodes::node_name;
use crate::cli::demo::svg::{Style, Svg};

use super::agents::{Call, End};
use super::phases::Seen;
use super::provider::Visit;
use super::script::{AGENTS, CLASSES, CRASHES, LOSES_NODE, MODELS};
use super::summary::{Reuse, Summary, slots};
use super::{COLOURS, TIME_SCALE, limits};

/// Of waiting, by class: the class's colour, nearly white.
const TINTS: [&str; CLASSES.len()] = ["#f3c4c4", "#f5e0b8", "#cbd8f2"];

/// One call of a seat at a time: a row is a seat.
const ROW: f64 = 9.0;
const BAR: f64 = 7.0;
/// Between the rows of two agents, and of two classes.
const AGENT_GAP: f64 = 4.0;
const CLASS_GAP: f64 = 9.0;
/// From a panel's heading to its first row: without and with two rows of labels.
const LABELS: [f64; 2] = [16.0, 42.0];
/// The height of one call in the chart of calls at the same time.
const CALL: f64 = 11.0;
const FOOT: f64 = 132.0;
const WAITS_LEFT: f64 = 90.0;
const WAITS_RIGHT: f64 = 300.0;

/// Draws it.
pub fn draw(seen: &Seen, summary: &Summary) -> Svg {
    let heights: f64 = (0..MODELS.len()).map(panel_height).sum();
    let mut svg = Svg::new(WIDTH, 104.0 + heights + FOOT);
    svg.text(24.0, 38.0, "Three priorities, two models: who waited for whom", TITLE);
    let note = format!(
        "Each row is one call after the other; time runs {TIME_SCALE} times as fast as the limits say"
    );
    svg.text(24.0, 60.0, &note, Style { size: 13.0, ..NOTE });
    legend(&mut svg);
    let mut top = 122.0;
    for model in 0..MODELS.len() {
        panel(&mut svg, top, model, seen, summary);
        top += panel_height(model);
    }
    waits(&mut svg, top, summary);
    counts(&mut svg, top, summary);
    svg
}

fn legend(svg: &mut Svg) {
    for (class, name) in CLASSES.iter().enumerate() {
        let left = 24.0 + 190.0 * class as f64;
        svg.rect([left, 78.0, 14.0, 12.0], TINTS[class]);
        svg.rect([left + 16.0, 78.0, 14.0, 12.0], COLOURS[class].0);
        svg.text(left + 36.0, 88.5, &format!("{name}: waits, runs"), LABEL);
    }
    cross(svg, 24.0 + 190.0 * CLASSES.len() as f64, 84.0);
    svg.text(36.0 + 190.0 * CLASSES.len() as f64, 88.5, "lost in the crash", LABEL);
}

fn panel_height(model: usize) -> f64 {
    labels_height(model) + rows_height(model) + 24.0 + chart_height(model) + 56.0
}

fn labels_height(model: usize) -> f64 {
    let lost = [CRASHES, LOSES_NODE].iter().any(|agent| AGENTS[*agent].model == model);
    LABELS[usize::from(lost)]
}

fn chart_height(model: usize) -> f64 {
    CALL * (MODELS[model].max_concurrent + 1) as f64
}

/// The agents of a model in a class.
fn agents(model: usize, class: usize) -> impl Iterator<Item = usize> {
    (0..AGENTS.len())
        .filter(move |agent| AGENTS[*agent].model == model && AGENTS[*agent].class == CLASSES[class])
}

fn rows_height(model: usize) -> f64 {
    let class = |class| agents(model, class).map(agent_height).sum::<f64>() + CLASS_GAP;
    (0..CLASSES.len()).map(class).sum()
}

fn agent_height(agent: usize) -> f64 {
    ROW * AGENTS[agent].seats as f64 + AGENT_GAP
}

fn panel(svg: &mut Svg, top: f64, model: usize, seen: &Seen, summary: &Summary) {
    svg.text(24.0, top, MODELS[model].name, HEADING);
    svg.text(128.0, top, &limits(&MODELS[model]), NOTE);
    let rows = top + labels_height(model);
    let chart = rows + rows_height(model) + 24.0;
    let bottom = chart + chart_height(model);

    let mut y = rows;
    for class in 0..CLASSES.len() {
        let name = Style { anchor: "end", bold: true, fill: COLOURS[class].0, ..LABEL };
        svg.text(LEFT - 8.0, y + 10.0, CLASSES[class].name(), name);
        for agent in agents(model, class) {
            let calls: Vec<_> = seen.calls.iter().filter(|call| call.agent == agent).collect();
            for call in calls {
                span(svg, y + ROW * call.seat as f64, class, call, seen.length);
            }
            y += agent_height(agent);
        }
        y += CLASS_GAP;
    }

    svg.text(LEFT, chart - 6.0, "calls at the same time, as the provider counts them", NOTE);
    calls_at_once(svg, [chart, bottom], model, seen);
    // The later one below, where its line does not cross the other's label.
    for (row, (reuse, what)) in [
        (&summary.kill, format!("{} is killed", node_name(AGENTS[summary.kill.loss.agent].node))),
        (&summary.crash, format!("{} crashes", AGENTS[summary.crash.loss.agent].full_name())),
    ]
    .into_iter()
    .enumerate()
    {
        if AGENTS[reuse.loss.agent].model == model {
            lost(svg, [rows - 8.0 - 14.0 * row as f64, bottom], reuse, &what, seen.length);
        }
    }
    time_axis(svg, seen.length, bottom);
}

/// A call: waiting, then running.
fn span(svg: &mut Svg, y: f64, class: usize, call: &Call, length: Duration) {
    let end = call.ended.unwrap_or(length);
    let [asked, admitted, end] =
        [call.asked, call.admitted.unwrap_or(end), end].map(|at| x(at.as_secs_f64(), length));
    svg.rect([asked, y, admitted - asked, BAR], TINTS[class]);
    if call.admitted.is_some() {
        // So that one call is told from the next.
        svg.rect([admitted, y, (end - admitted - 0.8).max(0.8), BAR], COLOURS[class].0);
        if call.end == End::Lost {
            cross(svg, end, y + BAR / 2.0);
        }
    }
}

fn cross(svg: &mut Svg, x: f64, y: f64) {
    svg.line([x - 3.5, y - 3.5, x + 3.5, y + 3.5], INK, 1.8, "");
    svg.line([x - 3.5, y + 3.5, x + 3.5, y - 3.5], INK, 1.8, "");
}

/// What was lost, and when its slots were used again.
fn lost(svg: &mut Svg, [top, bottom]: [f64; 2], reuse: &Reuse, what: &str, length: Duration) {
    let at = x(reuse.loss.at.as_secs_f64(), length);
    svg.line([at, top - 9.0, at, bottom], INK, 1.0, "2 3");
    let again = match reuse.all {
        Some(all) => {
            format!("; all in use again after {} ms", milliseconds(Some(all)))
        }
        None => String::new(),
    };
    svg.text(at + 5.0, top, &format!("{what} with {}{again}", slots(reuse.loss.held)), LABEL);
    if let Some(all) = reuse.all {
        let at = x((reuse.loss.at + all).as_secs_f64(), length);
        svg.line([at, top + 4.0, at, bottom], GREY, 1.0, "1 3");
    }
}

fn calls_at_once(svg: &mut Svg, [top, bottom]: [f64; 2], model: usize, seen: &Seen) {
    let y = |calls: f64| bottom - CALL * calls;
    let most = MODELS[model].max_concurrent;
    for calls in [0, most.div_euclid(2), most] {
        scale(svg, y(calls as f64), &calls.to_string());
    }
    let steps = steps(&seen.visits, model, seen.length);
    for (class, (colour, _)) in COLOURS.iter().enumerate() {
        let edge = |through: usize| -> Vec<(f64, f64)> {
            let mut edge = Vec::with_capacity(2 * steps.len());
            let mut before = 0.0;
            for (at, running) in &steps {
                // The urgent ones stand at the bottom.
                let height = running[..through].iter().sum::<usize>() as f64;
                let at = x(*at, seen.length);
                edge.extend([(at, y(before)), (at, y(height))]);
                before = height;
            }
            edge
        };
        svg.area(&edge(class + 1), &edge(class), colour);
    }
    let limit = y(most as f64);
    svg.line([LEFT, limit, RIGHT, limit], INK, 1.6, "7 4");
    svg.text(RIGHT, top + 4.0, "max_concurrent", Style { anchor: "end", bold: true, ..LABEL });
}

/// How many calls of each class run at a model from each moment on at which that changes, until `length`.
fn steps(visits: &[Visit], model: usize, length: Duration) -> Vec<(f64, [usize; CLASSES.len()])> {
    let mut changes = Vec::new();
    for visit in visits.iter().filter(|visit| visit.model == model && visit.refused_by.is_none()) {
        let class = CLASSES.iter().position(|class| *class == AGENTS[visit.agent].class).unwrap_or(0);
        changes.push((visit.at, true, class));
        changes.extend(visit.until.map(|until| (until, false, class)));
    }
    changes.sort_unstable();
    let mut running = [0_usize; CLASSES.len()];
    let mut steps = vec![(0.0, running)];
    for (at, begins, class) in changes.into_iter().take_while(|(at, ..)| *at < length) {
        running[class] = if begins { running[class] + 1 } else { running[class].saturating_sub(1) };
        steps.push((at.as_secs_f64(), running));
    }
    steps.push((length.as_secs_f64(), running));
    steps
}

fn waits(svg: &mut Svg, top: f64, summary: &Summary) {
    svg.text(24.0, top, "How long calls waited for their permit", HEADING);
    let longest = summary.classes.iter().filter_map(|class| class.wait_p95).max().unwrap_or_default();
    let width = |wait: Option<Duration>| {
        let part = wait.unwrap_or_default().as_secs_f64() / longest.as_secs_f64().max(1e-3);
        (WAITS_RIGHT - WAITS_LEFT) * part
    };
    for (class, figures) in summary.classes.iter().enumerate() {
        let y = top + 16.0 + 30.0 * class as f64;
        svg.text(WAITS_LEFT - 10.0, y + 15.0, CLASSES[class].name(), Style { anchor: "end", ..LABEL });
        svg.rect([WAITS_LEFT, y, width(figures.wait_p95), 20.0], TINTS[class]);
        svg.rect([WAITS_LEFT, y, width(figures.wait_p50), 20.0], COLOURS[class].0);
        let label =
            format!("p50 {} ms, p95 {} ms", milliseconds(figures.wait_p50), milliseconds(figures.wait_p95));
        svg.text(WAITS_LEFT + width(figures.wait_p95) + 8.0, y + 15.0, &label, LABEL);
    }
}

fn counts(svg: &mut Svg, top: f64, summary: &Summary) {
    let left = 520.0;
    svg.text(left, top, "What the provider counted", HEADING);
    for (row, line) in summary.counts().into_iter().enumerate() {
        svg.text(left, top + 20.0 + 16.0 * row as f64, &line, LABEL);
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::seen;
    use super::*;
    use crate::cli::demo::svg::assert_well_formed;

    #[test]
    fn the_document_is_well_formed_with_everything_and_with_nothing() {
        let mut seen = seen();
        seen.calls[0].end = End::Lost;
        let document = draw(&seen, &Summary::new(&seen)).finish("");
        assert_well_formed(&document);
        assert!(document.contains("crashes with 2 slots held; all in use again after 100 ms"));
        (seen.calls, seen.visits, seen.counted) = (Vec::new(), Vec::new(), Vec::new());
        let empty = draw(&seen, &Summary::new(&seen)).finish("");
        assert_well_formed(&empty);
        assert!(!(document + &empty).contains("NaN"));
    }

    #[test]
    fn calls_at_the_same_time_are_counted_by_class() {
        let seen = seen();
        let steps = steps(&seen.visits, 0, seen.length);
        let at = |moment: f64| steps.iter().rev().find(|(at, _)| *at <= moment).unwrap().1;
        assert_eq!(at(0.0), [0, 0, 0]);
        assert_eq!(at(0.15), [0, 0, 10]);
        assert_eq!(at(0.26), [1, 0, 8]);
        assert_eq!(at(0.95), [0, 0, 0]);
    }
}
