//! Pictures of sweeps: how a figure grows with the parameter.

use super::bars::colour;
use super::number::{shown, tick, unit};
use super::svg::{Frame, Svg};
use super::{Group, Report};
use crate::measure::{FIGURES, Figure, Unit};
use crate::scheme::Scheme;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 280.0;

/// A curve for each scheme: the medians, and the spread over the seeds as upright lines; nothing if no group has the
/// figure, or nothing is swept.
pub fn curves(report: &Report, key: &str) -> Option<String> {
    let over = report.over.as_deref()?;
    let figure = FIGURES.iter().find(|figure| figure.key == key)?;
    let groups = report.groups();
    let summaries = || groups.iter().filter_map(|group| group.figures.get(key));
    let most = summaries().map(|summary| summary.max).reduce(f64::max)?;
    let least = summaries().map(|summary| summary.min).fold(most, f64::min);
    let mut values: Vec<&str> = Vec::new();
    for value in groups.iter().filter_map(|group| group.value.as_deref()) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    let places = places(&values);
    let mut schemes: Vec<Scheme> = Vec::new();
    for group in &groups {
        if !schemes.contains(&group.scheme) {
            schemes.push(group.scheme);
        }
    }
    // Room at both ends, so that the first and last points are not on the edge.
    let (first, last) = (places[0], places[places.len() - 1]);
    let margin = if last > first { (last - first) * 0.05 } else { 1.0 };
    let frame = Frame {
        edges: [86.0, 34.0, WIDTH - 110.0, HEIGHT - 56.0],
        across: (first - margin, last + margin),
        up: heights(figure, least, most),
    };
    let name = format!("{}{}", figure.title, unit(figure.unit));
    let mut svg = Svg::new(WIDTH, HEIGHT, &capital(&format!("{name} against {over}")));
    frame.draw_up(&mut svg, &name, |value| tick(value, figure.unit, frame.up.1));
    draw_values(&mut svg, &frame, over, &values, &places);
    if figure.unit == Unit::Rounds && over == "nodes" {
        draw_log2(&mut svg, &frame, &values, &places);
    }
    for (number, scheme) in schemes.iter().enumerate() {
        let of = |group: &&Group| group.scheme == *scheme;
        let points: Vec<(f64, &Group)> = groups
            .iter()
            .filter(of)
            .filter(|group| group.figures.contains_key(key))
            .filter_map(|group| {
                let place = values.iter().position(|value| Some(*value) == group.value.as_deref())?;
                Some((frame.x(places[place]), group))
            })
            .collect();
        draw_curve(&mut svg, &frame, figure, &points);
        let y = 44.0 + 20.0 * number as f64;
        svg.rect([WIDTH - 100.0, y - 10.0, 12.0, 12.0], colour(*scheme), "");
        svg.text((WIDTH - 83.0, y), "start", "", scheme.name());
    }
    Some(svg.element())
}

fn draw_curve(svg: &mut Svg, frame: &Frame, figure: &Figure, points: &[(f64, &Group)]) {
    let Some((_, group)) = points.first() else { return };
    let colour = colour(group.scheme);
    let line: Vec<(f64, f64)> =
        points.iter().map(|(x, group)| (*x, frame.y(group.figures[figure.key].median))).collect();
    svg.curve(&line, colour);
    for ((x, group), (_, y)) in points.iter().zip(&line) {
        let summary = &group.figures[figure.key];
        svg.line([*x, frame.y(summary.min), *x, frame.y(summary.max)], "limit");
        let show = |value| shown(value, figure.unit);
        let hover = format!(
            "{} at {}: median {}, from {} to {} over {} runs",
            group.scheme,
            group.value.as_deref().unwrap_or_default(),
            show(summary.median),
            show(summary.min),
            show(summary.max),
            summary.runs
        );
        svg.disc((*x, *y), 4.0, colour, &hover);
    }
}

fn draw_values(svg: &mut Svg, frame: &Frame, over: &str, values: &[&str], places: &[f64]) {
    let [left, _, right, bottom] = frame.edges;
    svg.line([left, bottom, right, bottom], "line");
    let mut last = f64::NEG_INFINITY;
    for (value, place) in values.iter().zip(places) {
        let x = frame.x(*place);
        svg.line([x, bottom, x, bottom + 4.0], "line");
        let half = value.chars().count() as f64 * 3.5 + 4.0;
        if x - half > last {
            svg.text((x, bottom + 18.0), "middle", "", value);
            last = x + half;
        }
    }
    svg.text((f64::midpoint(left, right), bottom + 38.0), "middle", "", over);
}

/// What news takes if everybody who has it tells one more in each round (Frieze and Grimmett 1985), to compare with.
fn draw_log2(svg: &mut Svg, frame: &Frame, values: &[&str], places: &[f64]) {
    let nodes = values.iter().filter_map(|value| value.parse().ok()).map(f64::log2);
    let points: Vec<(f64, f64)> = nodes
        .zip(places)
        .filter(|(rounds, _)| *rounds <= frame.up.1)
        .map(|(rounds, place)| (frame.x(*place), frame.y(rounds)))
        .collect();
    for pair in points.windows(2) {
        svg.line([pair[0].0, pair[0].1, pair[1].0, pair[1].1], "mark");
    }
    if let Some((x, y)) = points.last() {
        svg.text((*x, y - 6.0), "middle", "", "log2 N");
    }
}

/// From zero to a little more than the most; parts that are all large are seen from closer by.
fn heights(figure: &Figure, least: f64, most: f64) -> (f64, f64) {
    let large = matches!(figure.unit, Unit::Part | Unit::Index) && least > 0.5;
    if large {
        let margin = ((most - least) * 0.15).max(0.002);
        return (least - margin, most + margin);
    }
    (0.0, if most > 0.0 { most * 1.08 } else { 1.0 })
}

/// The text with a capital letter.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Where values are across: by their logarithm if they are ascending numbers of very different size, by themselves if
/// they are ascending numbers, else one after the other.
fn places(values: &[&str]) -> Vec<f64> {
    let numbers: Option<Vec<f64>> = values.iter().map(|value| value.parse().ok()).collect();
    let ascending = numbers.filter(|numbers| numbers.windows(2).all(|pair| pair[0] < pair[1]));
    match ascending {
        Some(numbers) if numbers[0] > 0.0 && numbers[numbers.len() - 1] / numbers[0] >= 20.0 => {
            numbers.into_iter().map(f64::log10).collect()
        }
        Some(numbers) if numbers.iter().all(|number| number.is_finite()) => numbers,
        _ => (0..values.len()).map(|place| place as f64).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{report, run};
    use super::*;

    #[test]
    fn values_are_placed_by_their_size_if_they_have_one() {
        assert_eq!(places(&["1", "2", "4"]), [1.0, 2.0, 4.0]);
        assert_eq!(places(&["1", "10", "100"]), [0.0, 1.0, 2.0]);
        assert_eq!(places(&["0", "100"]), [0.0, 100.0]);
        assert_eq!(places(&["lan", "wan"]), [0.0, 1.0]);
        assert_eq!(places(&["4", "2"]), [0.0, 1.0]);
    }

    #[test]
    fn every_value_has_a_point() {
        let values = [("2", 0.9), ("10", 0.8), ("100", 0.7)];
        let runs = values.map(|(value, used)| run(Scheme::Aquifer, Some(value), 1, used)).to_vec();
        let mut report = report(runs);
        assert_eq!(curves(&report, "utilisation"), None, "nothing is swept");
        report.over = Some("nodes".to_owned());
        let picture = curves(&report, "utilisation").unwrap();
        for (value, used) in ["2", "10", "100"].iter().zip(["90.00 %", "80.00 %", "70.00 %"]) {
            assert!(picture.contains(&format!("aquifer at {value}: median {used}")), "{picture}");
        }
        assert_eq!(curves(&report, "jain"), None);
    }
}
