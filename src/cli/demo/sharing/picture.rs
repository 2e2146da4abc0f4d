//! The picture: who was admitted and who held what over time, and the systems beside each other.

use std::time::Duration;

use crate::cli::demo::chart::{
    HEADING, INK, LABEL, LEFT, NOTE, RIGHT, TITLE, WIDTH, scale, tick_step, time_axis, x,
};
use crate::cli::demo::figures::milliseconds;
use crate::cli::demo::nodes::node_name;
use crate::cli::demo::svg::{Style, Svg};

use super::provider::Hit;
use super::summary::System;
use super::watch::{EVERY, Event, Sample};
use super::{COLOURS, script};

const HEIGHT: f64 = 888.0;
const RATES: [f64; 2] = [170.0, 400.0];
const SHARES: [f64; 2] = [466.0, 636.0];
const BARS: f64 = 738.0;
const BAR_STEP: f64 = 46.0;
const BAR_LEFT: f64 = 150.0;
const BAR_RIGHT: f64 = 700.0;

const ADMITTED: &str = "#2f9e7f";
const REFUSED: &str = "#d64545";

/// Calls are counted in bins of this length.
const BIN: Duration = Duration::from_millis(250);
/// Event labels that would be nearer than this stand in two rows.
const LABEL_WIDTH: f64 = 96.0;

/// What is drawn.
pub struct Picture<'a> {
    /// The limit in words.
    pub limit: &'a str,
    /// The limit in calls per second.
    pub per_second: f64,
    /// What may be admitted at once.
    pub burst: u64,
    /// How long the shared system was watched.
    pub length: Duration,
    /// What arrived at its provider.
    pub hits: &'a [Hit],
    /// What its nodes said of themselves.
    pub samples: &'a [Sample],
    /// What happened to it.
    pub events: &'a [Event],
    /// Since when a node is gone that keeps its own share, and which.
    pub gone: Option<(Duration, usize)>,
    /// The figures of all systems.
    pub systems: &'a [System],
}

/// Points over time, one line per node, stacked.
struct Stack {
    times: Vec<f64>,
    nodes: Vec<Vec<f64>>,
}

/// Draws it.
pub fn draw(picture: &Picture) -> Svg {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    let title = "Five machines, one limit, no server in the middle";
    svg.text(24.0, 38.0, title, TITLE);
    svg.text(24.0, 60.0, picture.limit, Style { size: 13.0, ..NOTE });
    legend(&mut svg);
    rates(&mut svg, picture);
    shares(&mut svg, picture);
    events(&mut svg, picture);
    comparison(&mut svg, picture);
    svg
}

fn legend(svg: &mut Svg) {
    for (node, habit) in script::HABITS.iter().enumerate() {
        let x = 24.0 + 153.0 * node as f64;
        svg.rect([x, 78.0, 12.0, 12.0], colour(node));
        svg.text(x + 18.0, 88.5, &format!("{}: {}", node_name(node), habit.name()), LABEL);
    }
}

fn rates(svg: &mut Svg, picture: &Picture) {
    let [top, bottom] = RATES;
    let stack = admitted(picture.hits, picture.length);
    let high = picture.per_second * 1.5;
    let y = |rate: f64| bottom - (bottom - top) * rate.min(high) / high;
    svg.text(24.0, top - 38.0, "Calls that the provider admitted, per second", HEADING);
    let step = tick_step(high, 7);
    for tick in (0..).map(|tick| f64::from(tick) * step).take_while(|tick| *tick <= high) {
        scale(svg, y(tick), &format!("{tick:.0}"));
    }
    stack.draw(svg, picture.length, y);
    let limit = y(picture.per_second);
    svg.line([LEFT, limit, RIGHT, limit], INK, 1.6, "7 4");
    let label = format!("limit {:.1}/s", picture.per_second);
    svg.text(RIGHT - 4.0, limit - 7.0, &label, Style { anchor: "end", bold: true, ..LABEL });
    if stack.peak() > high {
        let note = format!("burst of {}", picture.burst);
        svg.text(x(BIN.as_secs_f64() * 3.0, picture.length), top + 10.0, &note, NOTE);
    }
    time_axis(svg, picture.length, bottom);
}

fn shares(svg: &mut Svg, picture: &Picture) {
    let [top, bottom] = SHARES;
    let stack = held(picture.samples, picture.length);
    let y = |share: f64| bottom - (bottom - top) * share.min(1.0);
    svg.text(24.0, top - 14.0, "Who holds which part of the limit", HEADING);
    for percent in [0, 25, 50, 75, 100] {
        scale(svg, y(f64::from(percent) / 100.0), &format!("{percent} %"));
    }
    stack.draw(svg, picture.length, y);
    if let Some((since, node)) = picture.gone {
        let (from, until) = ((since + 4 * EVERY).as_secs_f64(), picture.length.as_secs_f64());
        let free = 1.0 - stack.highest_total(from, until);
        if (bottom - top) * free > 18.0 {
            // Right of the last event, whose line would run through it.
            let last = picture.events.last().map_or(from, |event| event.at.as_secs_f64().max(from));
            let x = f64::midpoint(x(last, picture.length), RIGHT);
            let label = format!("kept for {}, in case it returns", node_name(node));
            svg.text(x, y(1.0 - free / 2.0) + 4.0, &label, Style { anchor: "middle", ..NOTE });
        }
    }
    time_axis(svg, picture.length, bottom);
}

fn events(svg: &mut Svg, picture: &Picture) {
    let mut last = f64::NEG_INFINITY;
    let mut row = 0.0;
    for event in picture.events {
        let x = x(event.at.as_secs_f64(), picture.length);
        row = if x - last < LABEL_WIDTH { 1.0 - row } else { 0.0 };
        last = x;
        let top = RATES[0] - 8.0 - 15.0 * row;
        svg.line([x, top - 9.0, x, RATES[1]], INK, 1.0, "2 3");
        svg.line([x, SHARES[0], x, SHARES[1]], INK, 1.0, "2 3");
        svg.text(x + 5.0, top, &event.what, LABEL);
    }
}

fn comparison(svg: &mut Svg, picture: &Picture) {
    let calls = |system: &System| (system.all.admitted + system.all.refused).max(system.central);
    let most = picture.systems.iter().map(calls).max().unwrap_or(0).max(1) as f64;
    let length = |calls: usize| (BAR_RIGHT - BAR_LEFT) * calls as f64 / most;
    svg.text(24.0, BARS - 36.0, "Beside the same load without sharing", HEADING);
    for (fill, x, label) in
        [(ADMITTED, 364.0, "admitted"), (REFUSED, 456.0, "refused by the provider"), (INK, 634.0, "")]
    {
        if label.is_empty() {
            svg.rect([x + 5.0, BARS - 49.0, 2.5, 16.0], fill);
            svg.text(x + 18.0, BARS - 36.0, "one central limiter would have admitted", LABEL);
        } else {
            svg.rect([x, BARS - 47.0, 12.0, 12.0], fill);
            svg.text(x + 18.0, BARS - 36.0, label, LABEL);
        }
    }
    for (row, system) in picture.systems.iter().enumerate() {
        let y = BARS - 12.0 + BAR_STEP * row as f64;
        let (all, good) = (&system.all, length(system.all.admitted));
        svg.text(BAR_LEFT - 12.0, y + 19.0, system.name, Style { anchor: "end", size: 13.0, ..LABEL });
        svg.rect([BAR_LEFT, y, good, 28.0], ADMITTED);
        svg.rect([BAR_LEFT + good, y, length(all.refused), 28.0], REFUSED);
        let central = BAR_LEFT + length(system.central);
        svg.rect([central - 1.2, y - 4.0, 2.5, 36.0], INK);
        let used = format!(
            "{:.1} % used, {}",
            system.utilisation() * 100.0,
            if all.refused == 0 { "none refused".to_owned() } else { format!("{} refused", all.refused) }
        );
        svg.text(BAR_RIGHT + 24.0, y + 12.0, &used, Style { bold: true, ..LABEL });
        let wait =
            format!("wait p50 {} ms, p99 {} ms", milliseconds(all.wait_p50), milliseconds(all.wait_p99));
        svg.text(BAR_RIGHT + 24.0, y + 27.0, &wait, NOTE);
    }
}

fn colour(node: usize) -> &'static str {
    COLOURS[node % COLOURS.len()].0
}

/// The admitted rate of each node, smoothed over the neighbouring bins.
fn admitted(hits: &[Hit], length: Duration) -> Stack {
    let bins = ((length.as_nanos() / BIN.as_nanos()) as usize).max(1);
    let mut counts = vec![vec![0.0; bins]; script::HABITS.len()];
    for hit in hits.iter().filter(|hit| hit.admitted && hit.at < length) {
        let bin = (hit.at.as_nanos() / BIN.as_nanos()) as usize;
        if let Some(count) = counts.get_mut(hit.node).and_then(|node| node.get_mut(bin)) {
            *count += 1.0 / BIN.as_secs_f64();
        }
    }
    let smooth = |counts: Vec<f64>| {
        let at = |bin: usize| counts.get(bin).or(counts.last()).copied().unwrap_or(0.0);
        (0..bins)
            .map(|bin| f64::midpoint(at(bin), f64::midpoint(at(bin.saturating_sub(1)), at(bin + 1))))
            .collect()
    };
    let times = (0..bins).map(|bin| (bin as f64 + 0.5) * BIN.as_secs_f64()).collect();
    Stack { times, nodes: counts.into_iter().map(smooth).collect() }
}

/// The share that each node held, from its latest sample that is not stale.
fn held(samples: &[Sample], length: Duration) -> Stack {
    let steps = (length.as_nanos() / EVERY.as_nanos()) as u32 + 1;
    let times: Vec<_> = (0..steps).map(|step| EVERY * step).collect();
    let line = |node: usize| {
        let samples: Vec<_> = samples.iter().filter(|sample| sample.node == node).collect();
        let at = |time: &Duration| {
            // A reading counts from half a step before it: the first ones come just after the start.
            let next = samples.partition_point(|sample| sample.at <= *time + EVERY / 2);
            let last = next.checked_sub(1).map(|last| samples[last]);
            last.filter(|sample| sample.at + 5 * EVERY > *time).map_or(0.0, |sample| sample.held)
        };
        times.iter().map(at).collect()
    };
    let nodes = (0..script::HABITS.len()).map(line).collect();
    Stack { times: times.iter().map(Duration::as_secs_f64).collect(), nodes }
}

impl Stack {
    fn total(&self, step: usize) -> f64 {
        self.nodes.iter().map(|node| node[step]).sum()
    }

    fn peak(&self) -> f64 {
        (0..self.times.len()).map(|step| self.total(step)).fold(0.0, f64::max)
    }

    /// The highest total between two moments; 1 if there is none.
    fn highest_total(&self, from: f64, until: f64) -> f64 {
        let inside = (0..self.times.len()).filter(|step| (from..=until).contains(&self.times[*step]));
        inside.map(|step| self.total(step)).reduce(f64::max).unwrap_or(1.0)
    }

    /// Draws the areas, the first node's at the bottom, out to both ends of the time axis.
    fn draw(&self, svg: &mut Svg, length: Duration, y: impl Fn(f64) -> f64) {
        let points = |heights: &[f64]| {
            let mut points: Vec<_> =
                self.times.iter().zip(heights).map(|(time, height)| (x(*time, length), y(*height))).collect();
            if let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) {
                points.insert(0, (LEFT, first.1));
                points.push((RIGHT, last.1));
            }
            points
        };
        let mut below = vec![0.0; self.times.len()];
        for (node, values) in self.nodes.iter().enumerate() {
            let above: Vec<_> = below.iter().zip(values).map(|(below, value)| below + value).collect();
            svg.area(&points(&above), &points(&below), colour(node));
            below = above;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::Counts;
    use super::*;
    use crate::cli::demo::svg::assert_well_formed;

    const SECOND: Duration = Duration::from_secs(1);

    fn system(name: &'static str, admitted: usize, refused: usize) -> System {
        let all = Counts { admitted, refused, wait_p50: Some(SECOND), ..Counts::default() };
        System { name, all, nodes: Vec::new(), central: 100 }
    }

    #[test]
    fn the_document_is_well_formed_with_everything_and_with_nothing() {
        let hits: Vec<_> = (0..800)
            .map(|call| Hit { at: SECOND * call / 100, node: call as usize % 5, admitted: call % 7 > 0 })
            .collect();
        let samples: Vec<_> = (0..200)
            .map(|step| Sample {
                at: EVERY * (step / 5),
                node: step as usize % 5,
                held: 0.15,
                ..Sample::default()
            })
            .collect();
        let events = [Event { at: SECOND, what: "a <b> & c".to_owned() }];
        let systems = [system("one & all", 80, 30), system("two", 0, 0)];
        let mut picture = Picture {
            limit: "limit < more",
            per_second: 83.3,
            burst: 44,
            length: 8 * SECOND,
            hits: &hits,
            samples: &samples,
            events: &events,
            gone: Some((2 * SECOND, 2)),
            systems: &systems,
        };
        let document = draw(&picture).finish("");
        assert_well_formed(&document);
        assert!(document.contains("a &lt;b&gt; &amp; c") && document.contains("kept for node-3"));
        assert!(!document.contains("NaN") && !document.contains("inf"));
        (picture.hits, picture.samples, picture.events, picture.systems) = (&[], &[], &[], &[]);
        picture.length = SECOND / 10;
        let empty = draw(&picture).finish("");
        assert_well_formed(&empty);
        assert!(!empty.contains("NaN") && !empty.contains("inf"));
    }

    #[test]
    fn the_area_of_the_rates_is_the_number_of_calls() {
        let hits: Vec<_> = (0..300)
            .map(|call| Hit { at: SECOND + SECOND * call / 100, node: 1, admitted: call % 3 > 0 })
            .collect();
        let stack = admitted(&hits, 6 * SECOND);
        let calls: f64 = stack.nodes[1].iter().sum::<f64>() * BIN.as_secs_f64();
        assert!((calls - 200.0).abs() < 1e-6, "{calls}");
        assert!(stack.nodes[0].iter().all(|rate| *rate < 1e-9));
    }

    #[test]
    fn a_node_that_says_nothing_any_more_holds_nothing() {
        let samples: Vec<_> = (0..10)
            .map(|step| Sample { at: EVERY * step, node: 0, held: 0.5, ..Sample::default() })
            .collect();
        let stack = held(&samples, 6 * SECOND);
        assert!((stack.total(0) - 0.5).abs() < 1e-9);
        assert!(stack.total(stack.times.len() - 1) < 1e-9);
        assert!((stack.highest_total(4.0, 6.0)).abs() < 1e-9);
    }
}
