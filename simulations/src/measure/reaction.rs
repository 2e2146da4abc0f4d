//! How long it takes to reach the new optimum after a step.
//!
//! The optimum at a moment is the weighted max-min over what each node is offered per second from the step to the next
//! one, and what waits there at the moment, to be served within a second: after a step the backlog of those who were busy
//! before is demand like any other. How much of it is served is the sum over all nodes of the lesser of what a node can
//! admit and its optimum, over the sum of the optima. Reached is the first moment after the step at which 95 % is served
//! and from which on the mean of the next second is 95 % too.
//!
//! What a node can admit is its share times the rate where the scheme has shares: that is free of the noise of arrivals,
//! and as fine as [samples](sample_every) are. Without shares it is what the node admits in the second that begins at the moment,
//! which is noise even if all is well: if arrivals are a Poisson process, the mean of `min(x, mean)` is 0.4 deviations
//! below the mean, so much is added.

use super::fairness::max_min;
use super::load::Load;
use crate::record::{Record, Sample, sample_every};
use crate::time::{Nanos, SEC, seconds};

/// The part of the optimum that counts as reached.
pub const REACHED: f64 = 0.95;
/// For how long the mean must stay there.
pub const STAYS: Nanos = SEC;
/// The mean of the positive part of a standard normal variable, 1/√(2π): what noise takes, in deviations.
const TAKEN_BY_NOISE: f64 = 0.398_942_280_401_432_7;

/// The time from the step at `from` until the optimum of the phase that ends at `until` was reached; nothing if it was
/// not, or nobody asked for anything. A phase shorter than [`STAYS`] cannot reach it.
pub fn reaction(record: &Record, load: &Load, from: Nanos, until: Nanos) -> Option<Nanos> {
    if until < from + STAYS {
        return None;
    }
    let long = seconds(until - from);
    let offered: Vec<f64> = load.offered(from, until).iter().map(|units| units / long).collect();
    let optimum = |at: Nanos| {
        let waiting = load.waiting(at);
        let demand: Vec<f64> =
            offered.iter().zip(waiting).map(|(new, old)| new + old / seconds(STAYS)).collect();
        max_min(record.rate, &demand, &record.weights)
    };
    if record.samples.iter().all(|sample| sample.held.is_empty()) {
        let mut moments = (from..=until - STAYS).step_by(sample_every(record.nodes, record.end) as usize);
        let reached = moments.find(|at| part_admitted(load, &optimum(*at), *at) >= REACHED);
        return reached.map(|at| at - from);
    }
    let samples = record.samples.iter().filter(|sample| (from..until).contains(&sample.at));
    let served: Vec<(Nanos, f64)> =
        samples.map(|sample| (sample.at, part_held(record.rate, sample, &optimum(sample.at)))).collect();
    let stays = |first: usize| {
        let next = served[first..].iter().take_while(|(at, _)| *at < served[first].0 + STAYS);
        let (count, sum) = next.fold((0.0, 0.0), |(count, sum), (_, part)| (count + 1.0, sum + part));
        sum / count >= REACHED
    };
    (0..served.len())
        .take_while(|i| served[*i].0 + STAYS <= until)
        .find(|i| served[*i].1 >= REACHED && stays(*i))
        .map(|i| served[i].0 - from)
}

/// The part of the optimum that the shares of a moment can serve; not a number if nobody is to have anything.
fn part_held(rate: f64, sample: &Sample, optimum: &[f64]) -> f64 {
    let can = sample.held.iter().map(|held| f64::from(*held) * rate);
    let served: f64 = can.zip(optimum).map(|(can, best)| can.min(*best)).sum();
    served / optimum.iter().sum::<f64>()
}

/// The part of the optimum that is served in the second from `at` on; not a number if nobody is to have anything.
fn part_admitted(load: &Load, optimum: &[f64], at: Nanos) -> f64 {
    let (long, to) = (seconds(STAYS), at + STAYS);
    let admitted = load.admitted(at, to);
    let squares = load.admitted_squares(at, to);
    let served: f64 = admitted.iter().zip(optimum).map(|(units, best)| (units / long).min(*best)).sum();
    let noise: f64 = squares.iter().map(|squares| TAKEN_BY_NOISE * squares.sqrt() / long).sum();
    (served + noise) / optimum.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::examples::{answer, arrival, record, sample};
    use crate::time::MS;

    /// Two nodes that are offered 10 a second each from the third second on; a limit of 10 a second.
    fn both_ask() -> Record {
        let mut record = record(2);
        record.rate = 10.0;
        for tenth in 30..100 {
            record.arrivals.extend((0..2).map(|node| arrival(tenth * 100 * MS, node, 1, 60 * SEC)));
        }
        record
    }

    fn after(record: &Record) -> Option<Nanos> {
        reaction(record, &Load::of(record), 3 * SEC, 10 * SEC).map(|nanos| nanos / MS)
    }

    #[test]
    fn shares_are_compared_with_the_optimum() {
        let mut record = both_ask();
        let held = |tenth: u64| match tenth {
            // One dip back is forgiven if the second after is 95 % in the mean: here it is not until 3.6 s.
            0..=33 | 35 => [1.0, 0.0],
            36..40 => [0.54, 0.46],
            _ => [0.5, 0.5],
        };
        record.samples = (0..100).map(|tenth| sample(tenth * 100 * MS, &held(tenth), 0.0)).collect();
        // From 3.4 s on: (1 + 0.5 + 4 × 0.96 + 4) / 10 = 0.934. From 3.6 s on: (4 × 0.96 + 6) / 10.
        assert_eq!(after(&record), Some(600));
    }

    #[test]
    fn what_is_never_reached_is_nothing() {
        let mut record = both_ask();
        record.samples = (0..100).map(|tenth| sample(tenth * 100 * MS, &[1.0, 0.0], 0.0)).collect();
        assert_eq!(after(&record), None);
        assert_eq!(reaction(&record, &Load::of(&record), 3 * SEC, 3 * SEC), None, "no phase at all");
        record.arrivals.clear();
        assert_eq!(after(&record), None, "nobody asks for anything");
    }

    #[test]
    fn without_shares_what_is_admitted_counts() {
        let mut record = both_ask();
        // Node 0 alone is served until 5 s, then each has 5 a second. Of the second from 4.2 s on, 8 tenths are [10, 0]
        // and two [1, 1]: node 1 has 2 × ½ a second.
        for tenth in 30..100 {
            for node in 0..2 {
                let admitted = if tenth < 50 { node == 0 } else { tenth % 2 == 0 };
                record.answers.push(answer(tenth * 100 * MS, node, 1, 0, admitted));
            }
        }
        // The noise of 5 in a second is 0.4 × √5 = 0.89 for each node: from 4.4 s on node 0 has 5 of 5, node 1 has 3 of
        // its 5 (5.0, 5.2, 5.4 s no more), 8 + 0.4 × (√9 + √3) = 9.8 of 10. From 4.2 s on 7 + 0.4 × (√9 + √2) = 8.8.
        let found = after(&record).unwrap();
        assert!((1_300..=1_500).contains(&found), "{found}");
    }
}
