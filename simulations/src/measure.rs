//! Figures of a run, from its record alone.

use serde::Serialize;

pub mod expectation;
pub mod fairness;
mod figure;
pub mod floor;
pub mod load;
pub mod reaction;
pub mod starvation;
pub mod statistics;

pub use self::figure::{FIGURES, Figure, Unit, summarise};

use crate::record::{Answer, Mark, Record};
use crate::time::{Nanos, SEC, seconds};

use self::load::Load;
use self::statistics::{mean, median, quantile, sorted};

/// The length of the windows over which a division is compared with weighted max-min.
pub const WINDOW: Nanos = 10 * SEC;

/// The figures of one run. All of the measured span alone, except [`overshoot`](Self::overshoot). A figure that the run
/// cannot have is absent: the time to an optimum where there was no step, shares of a scheme without any.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measures {
    /// The most units by which any interval of the run exceeded what one central limiter would allow.
    pub overshoot: f64,
    /// Units admitted.
    pub admitted: f64,
    /// Units admitted over those that the ideal admitted of the same requests.
    pub utilisation: Option<f64>,
    /// The distance to weighted max-min over what waited at each node and what came, the median of windows of 10 s.
    pub distance: Option<f64>,
    /// Jain's index of units admitted per weight, over the nodes that asked for at least their fair share.
    pub jain: Option<f64>,
    /// The median time to 95 % of the new optimum after a step, in seconds.
    pub reaction: Option<f64>,
    /// The longest, in seconds, of the steps after which it was reached.
    pub reaction_max: Option<f64>,
    /// Steps after which it was not reached before the next one. A phase too short to tell does not count.
    pub unreached: usize,
    /// Units that the ideal admitted and this scheme did not, in phases that a mark began.
    pub lost: Option<f64>,
    /// Rounds until half of the nodes had heard of a piece of news.
    pub spread: Option<f64>,
    /// Rounds until 99 % had.
    pub spread_p99: Option<f64>,
    /// News that had not reached a node when the run ended, summed over nodes.
    pub missed: usize,
    /// Messages sent per node and second.
    pub messages: f64,
    /// Bytes sent per node and second, without what transport adds.
    pub bytes: f64,
    /// The mean part of the limit that nobody ran on.
    pub in_flight: Option<f64>,
    /// The part that 99 % of the samples were below.
    pub in_flight_p99: Option<f64>,
    /// The median wait of admitted requests, in seconds.
    pub wait: Option<f64>,
    /// The wait that 99 % of the admitted requests were below, in seconds.
    pub wait_p99: Option<f64>,
    /// The part of the answered requests that was not admitted.
    pub refused: Option<f64>,
    /// The longest time that a node which asked all the time went without an admission, in seconds.
    pub starved: Option<f64>,
    /// What the honest node that is worst off had of what its base share is worth, or of what it asked for if that is
    /// less, of 1. Absent where nobody lies.
    pub floor: Option<f64>,
    /// From each mark to the next.
    pub phases: Vec<Phase>,
}

/// The time from one mark to the next.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// When it begins, in seconds after the warm-up.
    pub at: f64,
    /// What happened then, in words.
    pub say: String,
    /// Units admitted over those that the ideal admitted.
    pub utilisation: Option<f64>,
    /// Units that the ideal admitted and this scheme did not.
    pub lost: f64,
    /// Whether demand or the network changed, so that there is a new optimum to be reached.
    pub step: bool,
    /// The time to 95 % of the new optimum, in seconds, if it was reached before the next step.
    pub reaction: Option<f64>,
}

/// Measures a run beside the ideal scheme's run with the same scenario and seed.
pub fn measure(record: &Record, ideal: &Record) -> Measures {
    let load = Load::beside(record, ideal);
    let (begin, end) = (record.begin, record.end);
    let long = seconds(end.saturating_sub(begin));
    let per_node_second = |count: u64| {
        let node_seconds = record.nodes as f64 * long;
        if node_seconds > 0.0 { count as f64 / node_seconds } else { 0.0 }
    };
    let admitted = admitted_between(record, begin, end);
    let phases = phases(record, ideal, &load);
    let reactions = sorted(phases.iter().filter_map(|phase| phase.reaction));
    let (spreads, missed) = spreads(record);
    let in_flight = in_flight(record);
    let answers: Vec<&Answer> =
        record.answers.iter().filter(|answer| (begin..end).contains(&answer.at)).collect();
    let waits = sorted(answers.iter().filter(|answer| answer.admitted).map(|answer| seconds(answer.waited)));
    Measures {
        overshoot: record.overshoot,
        admitted,
        utilisation: ratio(admitted, admitted_between(ideal, begin, end)),
        distance: distance(record, &load),
        jain: jain(record, &load),
        reaction: quantile(&reactions, 0.5),
        reaction_max: reactions.last().copied(),
        unreached: unreached(record, &phases),
        lost: (!phases.is_empty()).then(|| phases.iter().map(|phase| phase.lost).sum()),
        spread: quantile(&spreads, 0.5),
        spread_p99: quantile(&spreads, 0.99),
        missed,
        messages: per_node_second(record.traffic.messages),
        bytes: per_node_second(record.traffic.bytes),
        in_flight: mean(&in_flight),
        in_flight_p99: quantile(&in_flight, 0.99),
        wait: quantile(&waits, 0.5),
        wait_p99: quantile(&waits, 0.99),
        refused: ratio((answers.len() - waits.len()) as f64, answers.len() as f64),
        starved: starvation::starved(record.nodes, load.requests(), begin, end).map(seconds),
        floor: floor::kept(record),
        phases,
    }
}

/// The marks of the measured span; those of the same moment are one.
pub fn moments(record: &Record) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for mark in record.marks.iter().filter(|mark| (record.begin..record.end).contains(&mark.at)) {
        match marks.last_mut().filter(|last| last.at == mark.at) {
            Some(last) => {
                last.say = format!("{} {}", last.say, mark.say);
                last.step |= mark.step;
            }
            None => marks.push(mark.clone()),
        }
    }
    marks
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn admitted_between(record: &Record, from: Nanos, to: Nanos) -> f64 {
    let admitted = record.answers.iter().filter(|answer| answer.admitted && (from..to).contains(&answer.at));
    admitted.map(|answer| answer.units as f64).sum()
}

fn distance(record: &Record, load: &Load) -> Option<f64> {
    let span = record.end.saturating_sub(record.begin);
    let windows = (span / WINDOW).max(1);
    median((0..windows).filter_map(|window| {
        let [from, to] = [window, window + 1].map(|edge| record.begin + span * edge / windows);
        let capacity = record.rate * seconds(to - from);
        let demand: Vec<f64> =
            load.offered(from, to).iter().zip(load.waiting(from)).map(|(new, old)| new + old).collect();
        let optimum = fairness::max_min(capacity, &demand, &record.weights);
        fairness::distance(&load.admitted(from, to), &optimum)
    }))
}

fn jain(record: &Record, load: &Load) -> Option<f64> {
    let weight = |node: usize| f64::from(record.weights.get(node).copied().unwrap_or(1).max(1));
    let weights: f64 = (0..record.nodes).map(weight).sum();
    let capacity = record.rate * seconds(record.end.saturating_sub(record.begin));
    let offered = load.offered(record.begin, record.end);
    let admitted = load.admitted(record.begin, record.end);
    let asks = |node: &usize| offered[*node] >= capacity * weight(*node) / weights;
    let served = (0..record.nodes).filter(asks).map(|node| admitted[node] / weight(node));
    fairness::jain(&served.collect::<Vec<f64>>())
}

fn phases(record: &Record, ideal: &Record, load: &Load) -> Vec<Phase> {
    let marks = moments(record);
    let until = |i: usize, steps: bool| {
        let next = marks[i + 1..].iter().find(|mark| !steps || mark.step);
        next.map_or(record.end, |mark| mark.at)
    };
    let phase = |i: usize| {
        let mark = &marks[i];
        let best = admitted_between(ideal, mark.at, until(i, false));
        let admitted = admitted_between(record, mark.at, until(i, false));
        Phase {
            at: seconds(mark.at - record.begin),
            say: mark.say.clone(),
            utilisation: ratio(admitted, best),
            lost: (best - admitted).max(0.0),
            step: mark.step,
            reaction: mark
                .step
                .then(|| reaction::reaction(record, load, mark.at, until(i, true)))
                .flatten()
                .map(seconds),
        }
    };
    (0..marks.len()).map(phase).collect()
}

fn unreached(record: &Record, phases: &[Phase]) -> usize {
    let steps: Vec<&Phase> = phases.iter().filter(|phase| phase.step).collect();
    let ends = steps.iter().skip(1).map(|phase| phase.at).chain([seconds(record.end - record.begin)]);
    let long = |at: f64, end: f64| end - at >= seconds(reaction::STAYS);
    steps.iter().zip(ends).filter(|(phase, end)| phase.reaction.is_none() && long(phase.at, *end)).count()
}

/// Rounds after which each piece of news reached each node, ascending, and how often one did not.
fn spreads(record: &Record) -> (Vec<f64>, usize) {
    let spreads = record.spreads.iter().filter(|spread| spread.at >= record.begin);
    let rounds = |nanos: &Nanos| *nanos as f64 / record.round.max(1) as f64;
    let missed = spreads.clone().map(|spread| spread.missed).sum();
    (sorted(spreads.flat_map(|spread| spread.reached_after.iter().map(rounds))), missed)
}

/// Ascending.
fn in_flight(record: &Record) -> Vec<f64> {
    let shared = record.samples.iter().filter(|sample| !sample.held.is_empty());
    let measured = shared.filter(|sample| (record.begin..record.end).contains(&sample.at));
    sorted(measured.map(|sample| f64::from(sample.in_flight)))
}

/// Small records for the tests here and below.
#[cfg(test)]
pub(crate) mod examples {
    use super::*;
    use aquifer::protocol::queue::Class;

    use crate::record::{Arrival, Sample, Traffic};

    /// Ten seconds, of which the first is warm-up; 2 units a second.
    pub fn record(nodes: usize) -> Record {
        Record {
            scheme: "aquifer",
            nodes,
            weights: vec![1; nodes],
            rate: 2.0,
            burst: 4.0,
            begin: SEC,
            end: 10 * SEC,
            arrivals: vec![],
            closed_loop: false,
            answers: vec![],
            samples: vec![],
            marks: vec![],
            spreads: vec![],
            round: 100,
            traffic: Traffic::default(),
            overshoot: 0.0,
            floors: vec![],
            trace_hash: 0,
        }
    }

    pub fn arrival(at: Nanos, node: usize, units: u64, wait: Nanos) -> Arrival {
        Arrival::new(at, node, units, wait)
    }

    pub fn answer(at: Nanos, node: usize, units: u64, waited: Nanos, admitted: bool) -> Answer {
        Answer { at, node, units, waited, class: Class::Normal, admitted }
    }

    pub fn sample(at: Nanos, held: &[f32], in_flight: f32) -> Sample {
        Sample { at, held: held.to_vec(), in_flight }
    }
}

#[cfg(test)]
mod tests {
    use super::examples::{answer, record, sample};
    use super::*;
    use crate::record::{Spread, Traffic};

    fn close(value: Option<f64>, expected: f64) {
        assert!(value.is_some_and(|value| (value - expected).abs() < 1e-6), "{value:?} is not {expected}");
    }

    #[test]
    fn a_run_in_which_nothing_happens_has_no_figures() {
        let measures = measure(&record(2), &record(2));
        assert_eq!(measures, Measures::default());
        let empty = Record { nodes: 0, begin: SEC, end: SEC, ..record(0) };
        assert_eq!(measure(&empty, &empty), Measures::default());
    }

    #[test]
    fn a_run_with_one_answer_has_the_figures_of_that_one() {
        let mut run = record(1);
        run.answers = vec![answer(5 * SEC, 0, 3, SEC / 2, true)];
        let measures = measure(&run, &run);
        close(Some(measures.admitted), 3.0);
        close(measures.utilisation, 1.0);
        close(measures.distance, 0.0);
        assert_eq!(measures.jain, None, "3 of 18 units is not its fair share");
        close(measures.wait, 0.5);
        close(measures.wait_p99, 0.5);
        close(measures.refused, 0.0);
        close(measures.starved, 0.5);
        assert!(measures.phases.is_empty());
    }

    #[test]
    fn only_the_measured_span_counts() {
        let mut run = record(2);
        run.answers = vec![
            answer(SEC / 2, 0, 100, 0, true), // in the warm-up
            answer(2 * SEC, 0, 6, SEC, true),
            answer(3 * SEC, 1, 2, 0, true),
            answer(4 * SEC, 1, 50, 2 * SEC, false),
            answer(5 * SEC, 0, 40, 0, false),
            answer(10 * SEC, 1, 100, 0, true), // after it
        ];
        let mut ideal = record(2);
        ideal.answers = vec![answer(2 * SEC, 0, 10, 0, true)];
        let measures = measure(&run, &ideal);
        close(measures.utilisation, 0.8);
        // 18 units for two who want 46 and 52: 9 each. 6 and 2 of them: (3 + 7) / 36.
        close(measures.distance, 10.0 / 36.0);
        // (6 + 2)² / (2 × (36 + 4))
        close(measures.jain, 0.8);
        close(measures.wait, 0.5);
        close(measures.wait_p99, 0.99);
        close(measures.refused, 0.5);
    }

    #[test]
    fn weights_divide() {
        let mut run = Record { weights: vec![3, 1, 1], ..record(3) };
        run.answers = vec![
            answer(2 * SEC, 0, 12, 0, true),
            answer(2 * SEC, 1, 4, 0, true),
            answer(2 * SEC, 2, 1, 0, true),
        ];
        // The fair shares of 18 units are 10.8, 3.6, 3.6: the last did not ask for that much.
        close(measure(&run, &run).jain, 1.0);
        run.answers.push(answer(3 * SEC, 2, 9, 0, false));
        // 4, 4, 1 per weight: 81 / (3 × 33).
        close(measure(&run, &run).jain, 81.0 / 99.0);
    }

    #[test]
    fn a_long_span_is_cut_into_windows_of_ten_seconds() {
        let mut run = Record { end: 31 * SEC, ..record(2) };
        // 30 s: one window in which node 0 alone asks, one that is unfair, one that is empty.
        run.answers = vec![
            answer(2 * SEC, 0, 20, 0, true),
            answer(12 * SEC, 0, 20, 0, true),
            answer(12 * SEC, 1, 20, 0, false),
        ];
        // The second: 10 each is best, 20 and 0 is 20 / 40 away. The median of 0 and ½.
        close(measure(&run, &run).distance, 0.25);
    }

    #[test]
    fn traffic_and_news_are_told_per_node_and_round() {
        let mut run = record(2);
        run.traffic = Traffic { messages: 36, bytes: 1_800 };
        run.spreads = vec![
            Spread { at: 0, reached_after: vec![900], missed: 9 }, // in the warm-up
            Spread { at: 2 * SEC, reached_after: vec![100, 200], missed: 1 },
            Spread { at: 3 * SEC, reached_after: vec![400], missed: 2 },
        ];
        let measures = measure(&run, &run);
        close(Some(measures.messages), 2.0);
        close(Some(measures.bytes), 100.0);
        close(measures.spread, 2.0);
        close(measures.spread_p99, 3.96);
        assert_eq!(measures.missed, 3);
    }

    #[test]
    fn share_in_flight_is_that_of_schemes_with_shares() {
        let mut run = record(2);
        run.samples = vec![sample(0, &[0.0, 0.0], 1.0), sample(SEC, &[0.5, 0.5], 0.0)];
        close(measure(&run, &run).in_flight, 0.0);
        run.samples.push(sample(2 * SEC, &[0.25, 0.5], 0.25));
        let measures = measure(&run, &run);
        close(measures.in_flight, 0.125);
        close(measures.in_flight_p99, 0.2475);
        run.samples = vec![sample(SEC, &[], 0.0)];
        assert_eq!(measure(&run, &run).in_flight, None);
    }

    #[test]
    fn phases_go_from_mark_to_mark() {
        let mark = |at, say: &str, step| Mark { at, say: say.to_owned(), step };
        let mut run = record(1);
        run.marks = vec![
            mark(2 * SEC, "cut", true),
            mark(2 * SEC, "crash", false),
            mark(5 * SEC, "heal", true),
            mark(9 * SEC + 1, "end", true),
        ];
        run.samples =
            (0..100).map(|tenth| sample(tenth * SEC / 10, &[f32::from(tenth >= 52)], 0.0)).collect();
        run.answers = vec![
            answer(2 * SEC, 0, 1, 0, false),
            answer(3 * SEC, 0, 2, 0, true),
            answer(6 * SEC, 0, 9, 0, true),
        ];
        let mut ideal = record(1);
        ideal.answers = vec![answer(3 * SEC, 0, 5, 0, true), answer(6 * SEC, 0, 8, 0, true)];
        let measures = measure(&run, &ideal);
        let short: Vec<_> =
            measures.phases.iter().map(|phase| (phase.at, phase.say.as_str(), phase.lost)).collect();
        assert_eq!(short, [(1.0, "cut crash", 3.0), (4.0, "heal", 0.0), (8.000_000_001, "end", 0.0)]);
        close(measures.phases[0].utilisation, 0.4);
        close(measures.phases[1].utilisation, 1.125);
        assert_eq!(measures.phases[2].utilisation, None);
        assert_eq!(measures.phases[0].reaction, None);
        close(measures.phases[1].reaction, 0.2);
        close(measures.reaction, 0.2);
        close(measures.reaction_max, 0.2);
        // The first had the time and did not; the last had less than a second.
        assert_eq!(measures.unreached, 1);
        close(measures.lost, 3.0);
    }
}
