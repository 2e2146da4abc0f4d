//! Pictures over time: what each node admits under the limit, and which share each holds.

use super::number::digits;
use super::svg::{Frame, Svg};
use crate::measure::moments;
use crate::record::Record;
use crate::time::{Nanos, seconds};

/// Bands beyond this cannot be told apart: nodes then share one.
const BANDS: usize = 12;
/// Points across a picture.
const POINTS: u64 = 120;
/// From dark blue to light yellow: lightness alone tells neighbours apart, whatever the eye makes of the hues (cividis,
/// Nuñez et al. 2018).
const RAMP: [(u8, u8, u8); 6] =
    [(0, 52, 110), (62, 75, 107), (104, 100, 110), (142, 127, 108), (187, 156, 93), (237, 195, 63)];

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;

/// Values of some nodes over time.
struct Band {
    name: String,
    values: Vec<f64>,
}

/// What each node admitted per second, stacked, and the limit as a line.
pub fn admitted(record: &Record) -> String {
    let slots = slots(record);
    let mut bands = bands(record, slots.len());
    let starts: Vec<Nanos> = slots.iter().map(|(from, _)| *from).collect();
    for answer in record.answers.iter().filter(|answer| answer.admitted && answer.at < record.end) {
        let Some(slot) = starts.partition_point(|from| *from <= answer.at).checked_sub(1) else { continue };
        let long = seconds(slots[slot].1 - slots[slot].0);
        let band = answer.node * bands.len() / record.nodes;
        bands[band].values[slot] += answer.units as f64 / long;
    }
    let most = sums(&bands).into_iter().fold(record.rate, f64::max);
    let title = format!("{}: admitted per node", record.scheme);
    let (mut svg, frame) = sheet(record, &title, most * 1.08);
    frame.draw_up(&mut svg, "units per second", digits);
    let times = middles(record, &slots);
    stack(&mut svg, &frame, &times, &bands, |value| format!("{} units/s", digits(value)));
    let [left, _, right, _] = frame.edges;
    let limit = frame.y(record.rate);
    svg.line([left, limit, right, limit], "limit");
    svg.text((right + 6.0, limit + 4.0), "start", "", "limit");
    finish(svg, &frame, record, &bands)
}

/// Which part of the limit each node ran on, stacked, and what nobody ran on above; nothing without shares.
pub fn held(record: &Record) -> Option<String> {
    let shared = record.samples.iter().filter(|sample| sample.held.len() == record.nodes && record.nodes > 0);
    let samples: Vec<_> = shared.filter(|sample| (record.begin..=record.end).contains(&sample.at)).collect();
    let every = samples.len().div_ceil(2 * POINTS as usize).max(1);
    let samples: Vec<_> = samples.into_iter().step_by(every).collect();
    if samples.len() < 2 {
        return None;
    }
    let mut bands = bands(record, samples.len());
    for (slot, sample) in samples.iter().enumerate() {
        for (node, held) in sample.held.iter().enumerate() {
            let band = node * bands.len() / record.nodes;
            bands[band].values[slot] += f64::from(*held);
        }
    }
    let most = sums(&bands).into_iter().fold(1.0, f64::max);
    let title = format!("{}: share of the limit that each node holds", record.scheme);
    let (mut svg, frame) = sheet(record, &title, if most > 1.001 { most * 1.08 } else { 1.0 });
    frame.draw_up(&mut svg, "share of the limit", |part| format!("{} %", digits(part * 100.0)));
    let times: Vec<f64> = samples.iter().map(|sample| seconds(sample.at) - seconds(record.begin)).collect();
    let flight = Band {
        name: "nobody (in flight, reserved or lost)".to_owned(),
        values: samples.iter().map(|sample| f64::from(sample.in_flight)).collect(),
    };
    let lower = stack(&mut svg, &frame, &times, &bands, |value| format!("{} %", digits(value * 100.0)));
    let top: Vec<f64> = lower.iter().zip(&flight.values).map(|(low, value)| low + value).collect();
    let mean = flight.values.iter().sum::<f64>() / flight.values.len() as f64;
    let hover = format!("{}: {} % on average", flight.name, digits(mean * 100.0));
    svg.area(&points(&frame, &times, &top), &points(&frame, &times, &lower), "flight", &hover);
    Some(finish(svg, &frame, record, &bands))
}

/// The measured span in equal slots.
fn slots(record: &Record) -> Vec<(Nanos, Nanos)> {
    let span = record.end.saturating_sub(record.begin);
    let edge = |slot: u64| record.begin + (u128::from(span) * u128::from(slot) / u128::from(POINTS)) as Nanos;
    (0..POINTS).map(|slot| (edge(slot), edge(slot + 1))).filter(|(from, to)| from < to).collect()
}

/// Where each slot is drawn: in its middle, but for the first and the last, which go up to the edges.
fn middles(record: &Record, slots: &[(Nanos, Nanos)]) -> Vec<f64> {
    let middle = |(place, (from, to)): (usize, &(Nanos, Nanos))| match place {
        0 => 0.0,
        _ if place + 1 == slots.len() => seconds(*to - record.begin),
        _ => f64::midpoint(seconds(*from - record.begin), seconds(*to - record.begin)),
    };
    slots.iter().enumerate().map(middle).collect()
}

fn bands(record: &Record, slots: usize) -> Vec<Band> {
    let count = record.nodes.clamp(1, BANDS);
    let nodes = |band: usize| (0..record.nodes).filter(move |node| node * count / record.nodes == band);
    let name = |band: usize| match (nodes(band).next(), nodes(band).next_back()) {
        (Some(first), Some(last)) if first < last => format!("nodes {first} to {last}"),
        (first, _) => format!("node {}", first.unwrap_or(0)),
    };
    (0..count).map(|band| Band { name: name(band), values: vec![0.0; slots] }).collect()
}

fn sums(bands: &[Band]) -> Vec<f64> {
    let slots = bands.first().map_or(0, |band| band.values.len());
    (0..slots).map(|slot| bands.iter().map(|band| band.values[slot]).sum()).collect()
}

fn sheet(record: &Record, title: &str, top: f64) -> (Svg, Frame) {
    let frame = Frame {
        edges: [76.0, 48.0, WIDTH - 44.0, HEIGHT - 84.0],
        across: (0.0, seconds(record.end.saturating_sub(record.begin))),
        up: (0.0, top),
    };
    (Svg::new(WIDTH, HEIGHT, title), frame)
}

/// Draws bands upon one another; what comes out is where the uppermost ends.
fn stack(
    svg: &mut Svg,
    frame: &Frame,
    times: &[f64],
    bands: &[Band],
    shown: impl Fn(f64) -> String,
) -> Vec<f64> {
    let mut lower = vec![0.0; times.len()];
    for (place, band) in bands.iter().enumerate() {
        let upper: Vec<f64> = lower.iter().zip(&band.values).map(|(low, value)| low + value).collect();
        let mean = band.values.iter().sum::<f64>() / band.values.len().max(1) as f64;
        let hover = format!("{}: {} on average", band.name, shown(mean));
        let (top, bottom) = (points(frame, times, &upper), points(frame, times, &lower));
        svg.area(&top, &bottom, &colour(place, bands.len()), &hover);
        lower = upper;
    }
    lower
}

fn points(frame: &Frame, times: &[f64], values: &[f64]) -> Vec<(f64, f64)> {
    times.iter().zip(values).map(|(at, value)| (frame.x(*at), frame.y(*value))).collect()
}

/// The lower axis, the marks with their numbers, and what the colours mean.
fn finish(mut svg: Svg, frame: &Frame, record: &Record, bands: &[Band]) -> String {
    let [left, top, right, bottom] = frame.edges;
    frame.draw_across(&mut svg, "seconds after the warm-up");
    let mut last = f64::NEG_INFINITY;
    for (number, mark) in moments(record).iter().enumerate() {
        let at = seconds(mark.at - record.begin);
        let x = frame.x(at);
        svg.line([x, top - 8.0, x, bottom], "mark");
        // Where marks are dense, numbers would cover one another.
        if x - last >= 18.0 {
            svg.disc((x, top - 14.0), 8.0, "badge", &format!("{} s: {}", digits(at), mark.say));
            svg.text((x, top - 10.5), "middle", "number", &(number + 1).to_string());
            last = x;
        }
    }
    let room = (right - left) / bands.len() as f64;
    let key = bottom + 56.0;
    if bands.len() <= 6 {
        for (place, band) in bands.iter().enumerate() {
            let x = left + room * place as f64;
            svg.rect([x, key - 10.0, 12.0, 12.0], &colour(place, bands.len()), "");
            svg.text((x + 17.0, key), "start", "", &band.name);
        }
    } else {
        let wide = 22.0;
        let first = left + 96.0;
        for (place, band) in bands.iter().enumerate() {
            svg.rect(
                [first + wide * place as f64, key - 10.0, wide, 12.0],
                &colour(place, bands.len()),
                &band.name,
            );
        }
        svg.text((first - 8.0, key), "end", "", &bands[0].name);
        let end = first + wide * bands.len() as f64 + 8.0;
        svg.text((end, key), "start", "", &bands[bands.len() - 1].name);
    }
    svg.element()
}

/// The colour of one of so many bands.
fn colour(place: usize, count: usize) -> String {
    let along = place as f64 / count.saturating_sub(1).max(1) as f64 * (RAMP.len() - 1) as f64;
    let (low, part) =
        ((along as usize).min(RAMP.len() - 2), along - along.floor().min((RAMP.len() - 2) as f64));
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    let (from, to) = (RAMP[low], RAMP[low + 1]);
    format!("#{:02x}{:02x}{:02x}", mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::examples::{answer, record, sample};
    use crate::time::SEC;

    #[test]
    fn colours_go_from_one_end_to_the_other() {
        assert_eq!(colour(0, 1), "#00346e");
        assert_eq!(colour(11, 12), "#edc33f");
        assert_eq!(colour(1, 11), "#1f406d", "half of the way to the second");
    }

    #[test]
    fn many_nodes_share_bands() {
        let names = |nodes| bands(&record(nodes), 0).into_iter().map(|band| band.name).collect::<Vec<_>>();
        assert_eq!(names(2), ["node 0", "node 1"]);
        assert_eq!(names(24).len(), 12);
        assert_eq!(names(100)[0], "nodes 0 to 8");
        assert_eq!(names(100)[11], "nodes 92 to 99");
    }

    #[test]
    fn what_was_admitted_is_shown_per_second() {
        let mut run = record(2);
        run.answers = (10..100).map(|tenth| answer(tenth * SEC / 10, 1, 3, 0, true)).collect();
        let picture = admitted(&run);
        assert!(picture.contains("<title>node 1: 30 units/s on average</title>"), "{picture}");
        assert!(picture.contains("<title>node 0: 0 units/s on average</title>"));
    }

    #[test]
    fn shares_are_shown_where_there_are_any() {
        let mut run = record(2);
        assert_eq!(held(&run), None);
        run.samples = (0..100).map(|tenth| sample(tenth * SEC / 10, &[0.5, 0.25], 0.25)).collect();
        let picture = held(&run).unwrap();
        assert!(picture.contains("<title>node 1: 25 % on average</title>"), "{picture}");
        assert!(picture.contains("<title>nobody (in flight, reserved or lost): 25 % on average</title>"));
    }
}
