//! Who went without for how long.

use super::load::Request;
use crate::time::{Nanos, SEC};

/// A node asks all the time while no more than this passes without a request that comes or waits.
pub const ASKING: Nanos = SEC;

/// The longest time that a node which asked all the time went without an admission, between two moments; nothing if
/// nobody asked. The requests are in order of their arrival, as in [`Load::requests`](super::load::Load::requests).
pub fn starved(nodes: usize, requests: &[Request], begin: Nanos, end: Nanos) -> Option<Nanos> {
    let mut per_node: Vec<Vec<Request>> = vec![Vec::new(); nodes];
    for request in requests.iter().filter(|request| request.to >= begin && request.from < end) {
        per_node[request.node].push(*request);
    }
    per_node.iter().filter_map(|requests| longest(requests, begin, end)).max()
}

/// The same of one node.
fn longest(requests: &[Request], begin: Nanos, end: Nanos) -> Option<Nanos> {
    let mut admissions: Vec<Nanos> = requests.iter().filter(|one| one.admitted).map(|one| one.to).collect();
    admissions.sort_unstable();
    let mut worst = 0;
    let mut asking: Option<(Nanos, Nanos)> = None;
    let mut close = |(from, to): (Nanos, Nanos)| {
        let first = admissions.partition_point(|at| *at < from);
        let mut last = from;
        for at in admissions[first..].iter().copied().take_while(|at| *at <= to).chain([to]) {
            worst = worst.max(at - last);
            last = at;
        }
    };
    for request in requests {
        let (from, to) = (request.from.max(begin), request.to.min(end));
        asking = Some(match asking {
            Some((since, until)) if from <= until + ASKING => (since, until.max(to)),
            Some(over) => {
                close(over);
                (from, to)
            }
            None => (from, to),
        });
    }
    close(asking?);
    Some(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(from: Nanos, to: Nanos, node: usize, admitted: bool) -> Request {
        Request { from: from * SEC / 10, to: to * SEC / 10, node, units: 1, admitted }
    }

    fn tenths(requests: &[Request]) -> Option<Nanos> {
        starved(2, requests, SEC, 10 * SEC).map(|nanos| nanos * 10 / SEC)
    }

    #[test]
    fn nobody_starves_who_does_not_ask() {
        assert_eq!(tenths(&[]), None);
        assert_eq!(tenths(&[request(1, 5, 0, false)]), None, "over before the measured span");
        assert_eq!(tenths(&[request(20, 20, 0, true), request(90, 90, 0, true)]), Some(0));
    }

    #[test]
    fn the_longest_wait_of_whoever_keeps_asking_counts() {
        assert_eq!(tenths(&[request(20, 45, 0, true)]), Some(25));
        // Before the span does not count; nor does what is after it.
        assert_eq!(tenths(&[request(0, 30, 0, true)]), Some(20));
        assert_eq!(tenths(&[request(95, 120, 1, false)]), Some(5));
        // Refused at once again and again, admitted at 4 s: 2 s without from 2 s on, and again from 4 s to 5 s.
        let refused: Vec<Request> = (20..=50).step_by(5).map(|at| request(at, at, 1, at == 40)).collect();
        assert_eq!(tenths(&refused), Some(20));
        // The other node's admissions do not help.
        let other = [request(20, 20, 0, true), request(25, 60, 1, false), request(40, 40, 0, true)];
        assert_eq!(tenths(&other), Some(35));
    }
}
