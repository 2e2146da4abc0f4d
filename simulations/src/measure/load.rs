//! What was asked and what was admitted, per node and window of time.

use std::collections::BTreeMap;

use crate::record::Record;
use crate::time::Nanos;

/// Requests that reached a node, and what was admitted, both in order of time.
pub struct Load {
    nodes: usize,
    requests: Vec<Request>,
    /// What was offered instead, where that is not those.
    asked: Option<Vec<Request>>,
    /// The longest that one of them waits.
    wait: Nanos,
    admitted: Vec<Units>,
}

/// Units at a node at a moment.
#[derive(Clone, Copy)]
struct Units {
    at: Nanos,
    node: usize,
    units: u64,
}

/// A request that reached a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it came.
    pub from: Nanos,
    /// When it was answered, or the run ended.
    pub to: Nanos,
    /// At which node.
    pub node: usize,
    /// What it asked for.
    pub units: u64,
    /// Whether it was admitted.
    pub admitted: bool,
}

/// The requests that reached a node, in order of their arrival: those that were answered, and those that could still
/// wait when the run ended. The others came to nodes that were down.
fn requests(record: &Record) -> Vec<Request> {
    let mut answered: BTreeMap<(usize, Nanos), usize> = BTreeMap::new();
    let mut requests: Vec<Request> = Vec::with_capacity(record.answers.len());
    for answer in &record.answers {
        let from = answer.at.saturating_sub(answer.waited);
        *answered.entry((answer.node, from)).or_default() += 1;
        let (to, node, units) = (answer.at, answer.node, answer.units);
        requests.push(Request { from, to, node, units, admitted: answer.admitted });
    }
    for arrival in &record.arrivals {
        if arrival.at >= record.end || arrival.at.saturating_add(arrival.wait) < record.end {
            continue;
        }
        match answered.get_mut(&(arrival.node, arrival.at)) {
            Some(count) if *count > 0 => *count -= 1,
            _ => {
                let (from, to) = (arrival.at, record.end);
                let (node, units) = (arrival.node, arrival.units);
                requests.push(Request { from, to, node, units, admitted: false });
            }
        }
    }
    requests.sort_by_key(|request| request.from);
    requests
}

impl Load {
    /// The load of a run.
    pub fn of(record: &Record) -> Self {
        let requests = requests(record);
        let wait = requests.iter().map(|request| request.to - request.from).max().unwrap_or(0);
        let admitted = record.answers.iter().filter(|answer| answer.admitted);
        let admitted =
            admitted.map(|answer| Units { at: answer.at, node: answer.node, units: answer.units }).collect();
        Self { nodes: record.nodes, requests, asked: None, wait, admitted }
    }

    /// The load of a run that is measured beside the ideal's. Callers in a closed loop ask for no more than they were given: what
    /// they offer is what the ideal was asked.
    pub fn beside(record: &Record, ideal: &Record) -> Self {
        Self { asked: record.closed_loop.then(|| requests(ideal)), ..Self::of(record) }
    }

    /// The requests, in order of their arrival.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Units that were offered at each node from one moment up to but not including another.
    pub fn offered(&self, from: Nanos, to: Nanos) -> Vec<f64> {
        let requests = self.asked.as_ref().unwrap_or(&self.requests);
        let first = requests.partition_point(|request| request.from < from);
        let new = requests[first..].iter().take_while(|request| request.from < to);
        self.sums(new.map(|request| (request.node, request.units as f64)))
    }

    /// Units that came to each node before a moment and are not answered at it.
    pub fn waiting(&self, at: Nanos) -> Vec<f64> {
        let first = self.requests.partition_point(|request| request.from.saturating_add(self.wait) <= at);
        let old = self.requests[first..].iter().take_while(|request| request.from < at);
        let open = old.filter(|request| request.to > at);
        self.sums(open.map(|request| (request.node, request.units as f64)))
    }

    /// Units that were admitted at each node from one moment up to but not including another.
    pub fn admitted(&self, from: Nanos, to: Nanos) -> Vec<f64> {
        self.admitted_as(from, to, |units| units)
    }

    /// The squares of the admitted requests' units, summed for each node: the variance of what was admitted, if
    /// requests come as a Poisson process.
    pub fn admitted_squares(&self, from: Nanos, to: Nanos) -> Vec<f64> {
        self.admitted_as(from, to, |units| units * units)
    }

    fn admitted_as(&self, from: Nanos, to: Nanos, value: fn(f64) -> f64) -> Vec<f64> {
        let first = self.admitted.partition_point(|units| units.at < from);
        let admitted = self.admitted[first..].iter().take_while(|units| units.at < to);
        self.sums(admitted.map(|units| (units.node, value(units.units as f64))))
    }

    fn sums(&self, values: impl Iterator<Item = (usize, f64)>) -> Vec<f64> {
        let mut sums = vec![0.0; self.nodes];
        values.for_each(|(node, value)| sums[node] += value);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::examples::{answer, arrival, record};
    use crate::time::SEC;

    #[test]
    fn a_request_counts_if_it_was_answered_or_could_still_wait() {
        let mut record = record(2);
        record.arrivals = vec![
            arrival(SEC, 0, 2, SEC),
            arrival(3 * SEC, 1, 5, SEC),      // came to a node that was down
            arrival(9 * SEC + 5, 0, 7, SEC),  // still waits at the end
            arrival(9 * SEC + 6, 0, 11, SEC), // answered before the end
        ];
        record.answers = vec![answer(SEC + 4, 0, 2, 4, true), answer(9 * SEC + 7, 0, 11, 1, false)];
        let found = requests(&record);
        let short: Vec<_> = found.iter().map(|request| (request.from, request.to, request.units)).collect();
        let expected = [(SEC, SEC + 4, 2), (9 * SEC + 5, 10 * SEC, 7), (9 * SEC + 6, 9 * SEC + 7, 11)];
        assert_eq!(short, expected);
    }

    #[test]
    fn windows_include_their_beginning_and_not_their_end() {
        let mut record = record(2);
        record.answers =
            vec![answer(10, 0, 1, 5, true), answer(20, 1, 2, 0, true), answer(30, 0, 4, 0, false)];
        let load = Load::of(&record);
        assert_eq!(load.admitted(10, 20), [1.0, 0.0]);
        assert_eq!(load.admitted(0, 40), [1.0, 2.0]);
        assert_eq!(load.admitted_squares(0, 40), [1.0, 4.0]);
        assert_eq!(load.offered(0, 10), [1.0, 0.0]);
        assert_eq!(load.offered(6, 31), [4.0, 2.0]);
        assert_eq!(load.offered(31, 31), [0.0, 0.0]);
    }

    #[test]
    fn a_request_waits_after_it_came_and_before_it_is_answered() {
        let mut record = record(2);
        record.answers =
            vec![answer(20, 0, 3, 15, true), answer(30, 1, 5, 5, false), answer(30, 1, 7, 0, true)];
        let load = Load::of(&record);
        let waiting = [5, 6, 19, 20, 26, 29, 30].map(|at| load.waiting(at));
        let expected = [[0.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 5.0], [0.0, 5.0], [0.0, 0.0]];
        assert_eq!(waiting, expected.map(Vec::from));
    }
}
