//! T6: nobody who waits goes without for ever.

use super::{Property, Violation};
use crate::time::{MS, Nanos, SEC, seconds};

/// The longest turn at the full rate: on links of 62 ms there and back and more.
const TURN_MAX: Nanos = 2 * SEC;
/// How far ahead a turn may begin, at the full rate.
const TURN_MIN: Nanos = 100 * MS;

/// Who waits without pause, and since when it has gone without.
///
/// **The bound.** Where a limit is too small for everybody at once, lots of whole requests take turns. A turn serves what
/// the whole limit earns in two seconds, and one request more, which takes `2 s + largest / rate` however many take their
/// turns at once. It may begin 0.1 s ahead of the least served. A round of turns, one for each of `n` nodes, takes `n` times the sum. A node whose weight is the smallest
/// may have to wait until the heaviest was served in proportion: up to 16 times as often. Twice that, for whoever is one
/// turn further ahead when faults end, which is the most that is not forgiven; and ten seconds for everything to settle.
#[derive(Clone, Debug)]
pub struct NoStarvation {
    since: Vec<Option<Nanos>>,
    bound: Nanos,
}

impl NoStarvation {
    /// Nobody waits yet. `largest` is the largest request of the run, in units, of a limit of so many units in each `per`;
    /// `back` is how much later than the next unit those of a request may come back, where all come back at once;
    /// `weights` is the ratio of the greatest to the least fairness weight.
    pub fn new(nodes: usize, largest: u64, (amount, per): (u64, Nanos), back: Nanos, weights: u64) -> Self {
        let of_request = u128::from(per) * u128::from(largest) / u128::from(amount.max(1)) + u128::from(back);
        let round = nodes as u128 * (u128::from(TURN_MIN + TURN_MAX) + of_request);
        let bound = 10 * u128::from(SEC) + 2 * round * u128::from(weights.clamp(1, 16));
        Self { since: vec![None; nodes], bound: u64::try_from(bound).unwrap_or(u64::MAX) }
    }

    /// How long somebody who waits may go without, in calm times.
    pub fn bound(&self) -> Nanos {
        self.bound
    }

    /// Somebody waits at a node now, or nobody does.
    pub fn waits(&mut self, node: usize, waits: bool, now: Nanos) {
        match (waits, self.since[node]) {
            (true, None) => self.since[node] = Some(now),
            (false, _) => self.since[node] = None,
            _ => {}
        }
    }

    /// A node admits what has waited the longest there. Whatever overtakes that does not count: large requests must not
    /// wait for ever while small ones pass them.
    pub fn served(&mut self, node: usize, now: Nanos) {
        if let Some(since) = &mut self.since[node] {
            *since = now;
        }
    }

    /// Looks at all nodes. Nothing has gone wrong since `calm`.
    ///
    /// # Errors
    /// If a node goes without for longer than the bound.
    pub fn check(&self, calm: Nanos, now: Nanos) -> Result<(), Violation> {
        let without = |since: Nanos| now.saturating_sub(since.max(calm));
        let starves = |node: &usize| self.since[*node].is_some_and(|since| without(since) > self.bound);
        match (0..self.since.len()).find(starves) {
            None => Ok(()),
            Some(node) => {
                let bound = seconds(self.bound);
                let what = format!("node {node} waits all the time and was not served for {bound} s");
                Err(Violation::new(Property::NoStarvation, now, what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> NoStarvation {
        // Twice a round of 4 × (0.1 + 2 + 0.4) s.
        let mut check = NoStarvation::new(4, 4, (10, SEC), 0, 1);
        assert_eq!(check.bound(), 30 * SEC);
        check.waits(3, true, SEC);
        check
    }

    #[test]
    fn who_is_served_now_and_then_does_not_starve() {
        let mut check = check();
        check.check(0, 31 * SEC).unwrap();
        check.served(3, 31 * SEC);
        check.waits(3, true, 40 * SEC);
        check.check(0, 61 * SEC).unwrap();
        check.waits(3, false, 61 * SEC);
        check.check(0, 900 * SEC).unwrap();
    }

    #[test]
    fn who_goes_without_for_too_long_does() {
        let violation = check().check(0, 31 * SEC + 1).unwrap_err();
        assert!(violation.property == Property::NoStarvation && violation.what.starts_with("node 3 "));
        check().check(20 * SEC, 50 * SEC).expect("only calm times count");
        assert!(check().check(20 * SEC, 51 * SEC).is_err());
    }
}
