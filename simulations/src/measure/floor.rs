//! What honest nodes keep where others lie: the floor of a node is what its base share alone is worth.

use crate::record::Record;
use crate::time::seconds;

/// The least, over all honest nodes, of what it admitted in the measured span over its floor: what its base share
/// earns in that time, or what it was asked for if that is less; at most 1. None where nobody lies.
pub fn kept(record: &Record) -> Option<f64> {
    let long = seconds(record.end.saturating_sub(record.begin));
    let within = |at| (record.begin..record.end).contains(&at);
    let mut asked = vec![0_u64; record.nodes];
    for arrival in record.arrivals.iter().filter(|arrival| within(arrival.at)) {
        asked[arrival.node] += arrival.units;
    }
    let mut had = vec![0_u64; record.nodes];
    for answer in record.answers.iter().filter(|answer| answer.admitted && within(answer.at)) {
        had[answer.node] += answer.units;
    }
    let floors = record
        .floors
        .iter()
        .map(|floor| floor * long)
        .zip(asked)
        .map(|(worth, asked)| worth.min(asked as f64));
    let kept = floors.zip(had).filter(|(floor, _)| *floor >= 1.0);
    kept.map(|(floor, had)| (had as f64 / floor).min(1.0)).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::super::examples::{answer, arrival, record};
    use super::*;
    use crate::time::SEC;

    #[test]
    fn the_worst_off_of_the_honest_counts_and_nobody_is_worse_off_for_asking_little() {
        assert_eq!(kept(&record(3)), None);
        let mut run = record(3);
        // Nine seconds: nine units for each of the first two; the third lies.
        run.floors = vec![1.0, 1.0, 0.0];
        let asked =
            |node: usize, count: u64| (1..=count).map(move |at| arrival(at * SEC / 2 + SEC, node, 1, 0));
        run.arrivals = asked(0, 12).chain(asked(1, 2)).chain(asked(2, 5)).collect();
        let had =
            |node: usize, count: u64| (1..=count).map(move |at| answer(at * SEC / 2 + SEC, node, 1, 0, true));
        run.answers = had(0, 6).chain(had(1, 2)).collect();
        assert_eq!(kept(&run), Some(6.0 / 9.0));
        run.answers = had(0, 12).chain(had(1, 2)).collect();
        assert_eq!(kept(&run), Some(1.0));
    }
}
