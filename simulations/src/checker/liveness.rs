//! T6 and T7: once faults stop, all views agree, and share that nobody uses reaches whoever waits.

use aquifer::protocol::node::{FEW_LINKS, MESH_MAX, ROUND};

use super::{Property, Violation};
use crate::time::{Nanos, SEC, seconds};

/// Up to so many nodes every node knows every other's page. Beyond that views are samples, by design.
pub const VIEWS_MAX: usize = MESH_MAX;

/// After so many rounds without faults whatever was said before them is known everywhere: links come up anew in ten at most,
/// and pages are compared with somebody in each.
const ROUNDS: u32 = 100;

/// How long somebody waits all the time before it is asked where the limit went.
const WINDOW: Nanos = 10 * SEC;

/// What is to be seen of progress.
#[derive(Clone, Debug)]
pub struct Liveness {
    amount: u64,
    per: Nanos,
    /// Units admitted by all, ever.
    admitted: u64,
    /// For each node at which somebody waits: since when, and what all had admitted then.
    waits: Vec<Option<(Nanos, u64)>>,
    /// The largest request there is: what can be on its way at any moment.
    largest: u64,
    bound: Nanos,
}

/// How far somebody's page is known: its life and version.
pub type Version = (u64, u64);

impl Liveness {
    /// Nobody waits yet at a limit of so many units in each `per`.
    pub fn new(nodes: usize, largest: u64, (amount, per): (u64, Nanos)) -> Self {
        Self { amount, per, admitted: 0, waits: vec![None; nodes], largest, bound: Self::bound(nodes) }
    }

    /// How long after the last fault the views of so many nodes must agree. With more than [`FEW_LINKS`] links nobody
    /// confirms rows but in the greetings of idle nodes, half a second for each link apart; one of them may be lost.
    pub fn bound(nodes: usize) -> Nanos {
        let greetings = if nodes > FEW_LINKS { nodes as Nanos * SEC } else { 0 };
        (ROUND * ROUNDS).as_nanos() as Nanos + greetings
    }

    /// Somebody admits so many units.
    pub fn admit(&mut self, units: u64) {
        self.admitted += units;
    }

    /// Somebody waits at a node now, or nobody does.
    pub fn waits(&mut self, node: usize, waits: bool, now: Nanos) {
        match (waits, self.waits[node]) {
            (true, None) => self.waits[node] = Some((now, self.admitted)),
            (false, _) => self.waits[node] = None,
            _ => {}
        }
    }

    /// Something went wrong: who waits is looked at anew from `now` on.
    pub fn start_over(&mut self, now: Nanos) {
        self.waits.iter_mut().flatten().for_each(|wait| *wait = (now, self.admitted));
    }

    /// Units per second of which half must be used: what one bucket with all of the limit gives if whoever waits at it is
    /// looked at late, by half of `late` on the average. What comes in meanwhile beyond a burst is lost to everybody.
    pub fn within_reach(per_second: u64, burst: u64, late: Nanos) -> u64 {
        let fills_in = u128::from(burst) * u128::from(SEC) / u128::from(per_second);
        let given = u128::from(burst) * u128::from(SEC) / (fills_in + u128::from(late / 2)).max(1);
        u64::try_from(given).unwrap_or(u64::MAX).min(per_second)
    }

    /// Looks whether the limit is used while somebody waits: at least half of it, less one request, over every ten seconds
    /// in which somebody waits at one node all the time. (Half: how well it is used is a figure, not a property.)
    ///
    /// # Errors
    /// If it is not.
    pub fn check_work(&mut self, now: Nanos) -> Result<(), Violation> {
        for (node, wait) in self.waits.iter_mut().enumerate() {
            let Some((since, admitted)) = wait else { continue };
            // Where all units come back at once, none may for as long as `per`.
            if now < *since + WINDOW + if self.per > SEC { self.per } else { 0 } {
                continue;
            }
            let due = u128::from(now - *since) * u128::from(self.amount) / (2 * u128::from(self.per));
            let used = self.admitted - *admitted;
            if u128::from(used) + u128::from(self.largest) < due {
                let what = format!(
                    "node {node} waited for {} s, and all together admitted {used} of {} units",
                    seconds(now - *since),
                    due * 2
                );
                return Err(Violation::new(Property::Liveness, now, what));
            }
            *wait = Some((now, self.admitted));
        }
        Ok(())
    }

    /// Looks whether a node knows a page as far as it should.
    ///
    /// # Errors
    /// If it does not.
    pub fn check_view(
        &self,
        node: usize,
        author: usize,
        known: Option<Version>,
        should: Version,
        now: Nanos,
    ) -> Result<(), Violation> {
        if known >= Some(should) {
            return Ok(());
        }
        let what = format!(
            "node {node} knows node {author} as of {known:?}, and not as of {should:?}, {} s after it was so",
            seconds(self.bound)
        );
        Err(Violation::new(Property::Liveness, now, what))
    }

    /// Looks whether a node counts as much, of all lives of all nodes together, as it should.
    ///
    /// # Errors
    /// If it does not.
    pub fn check_total(&self, node: usize, counts: u128, should: u128, now: Nanos) -> Result<(), Violation> {
        if counts >= should {
            return Ok(());
        }
        let what = format!(
            "node {node} counts {counts} of all, and another counted {should} {} s before",
            seconds(self.bound)
        );
        Err(Violation::new(Property::Liveness, now, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MS;

    #[test]
    fn a_limit_that_is_used_while_somebody_waits_is_right() {
        let mut check = Liveness::new(2, 1, (10, SEC));
        check.waits(1, true, 0);
        check.admit(49);
        check.check_work(10 * SEC).unwrap();
        check.waits(1, false, 19 * SEC);
        check.waits(1, true, 19 * SEC + 1);
        check.check_work(21 * SEC).expect("it did not wait all the time");
        check.start_over(25 * SEC);
        check.check_work(34 * SEC).expect("not ten seconds since the fault");
    }

    #[test]
    fn a_limit_that_lies_idle_while_somebody_waits_is_seen() {
        let mut check = Liveness::new(2, 1, (10, SEC));
        check.waits(1, true, 0);
        check.admit(48);
        let violation = check.check_work(10 * SEC).unwrap_err();
        assert_eq!(violation.what, "node 1 waited for 10 s, and all together admitted 48 of 100 units");
    }

    #[test]
    fn no_more_is_asked_for_than_late_timers_leave() {
        assert_eq!(Liveness::within_reach(157, 1, 0), 157);
        assert_eq!(Liveness::within_reach(100, 1, 180 * MS), 10, "one in each 10 ms and 90 ms of lateness");
        assert_eq!(Liveness::within_reach(100, 50, 1_000 * MS), 50);
    }

    #[test]
    fn a_view_that_lags_is_seen() {
        let liveness = Liveness::new(2, 1, (1, SEC));
        liveness.check_view(0, 1, Some((1, 7)), (1, 7), 0).unwrap();
        liveness.check_view(0, 1, Some((2, 1)), (1, 7), 0).expect("a later life is news");
        assert!(liveness.check_view(0, 1, Some((1, 6)), (1, 7), 0).is_err());
        assert!(liveness.check_view(0, 1, None, (1, 1), 0).is_err());
        liveness.check_total(0, 7, 7, 0).unwrap();
        assert!(liveness.check_total(0, 6, 7, 0).is_err());
    }
}
