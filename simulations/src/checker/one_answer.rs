//! T4: exactly one answer, none admitted after its deadline.

use std::collections::VecDeque;

use aquifer::protocol::node::{SettleError, Settling};

use super::{Property, Violation};
use crate::time::Nanos;

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What it takes.
    pub units: u64,
    /// When it was asked, in true time.
    pub asked: Nanos,
    /// When it must have its answer, on the node's clock.
    pub deadline: u64,
    /// Which of the run's requests it is.
    pub number: usize,
}

/// The requests that wait at one node. Tickets grow, so they are kept in order.
#[derive(Clone, Debug, Default)]
pub struct OneAnswer {
    requests: VecDeque<(u64, Option<Waiting>)>,
    last: u64,
    waiting: usize,
}

impl OneAnswer {
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether this request has waited the longest of all.
    pub fn is_oldest(&self, ticket: u64) -> bool {
        self.requests.front().is_some_and(|(oldest, _)| *oldest == ticket)
    }

    /// A request begins to wait under this ticket.
    ///
    /// # Errors
    /// If there was such a ticket before.
    pub fn wait(&mut self, ticket: u64, request: Waiting) -> Result<(), Violation> {
        if ticket <= self.last {
            return Err(violation(request.asked, format!("ticket {ticket} was given twice")));
        }
        self.last = ticket;
        self.waiting += 1;
        self.requests.push_back((ticket, Some(request)));
        Ok(())
    }

    /// A request is answered, at `now` and when the node's clock shows `local`.
    ///
    /// # Errors
    /// If nobody waits under this ticket, or it is admitted and its time is over.
    pub fn answer(
        &mut self,
        ticket: u64,
        admitted: bool,
        local: u64,
        now: Nanos,
    ) -> Result<Waiting, Violation> {
        let place = self.requests.binary_search_by_key(&ticket, |(ticket, _)| *ticket);
        let request = place.ok().and_then(|place| self.requests[place].1.take());
        let Some(request) = request else {
            return Err(violation(now, format!("ticket {ticket} has an answer that nobody waits for")));
        };
        self.waiting -= 1;
        while self.requests.front().is_some_and(|(_, request)| request.is_none()) {
            self.requests.pop_front();
        }
        if admitted && local >= request.deadline {
            let late = local - request.deadline;
            return Err(violation(now, format!("ticket {ticket} was admitted {late} ns after its deadline")));
        }
        Ok(request)
    }

    /// Looks whether anybody still waits when the clock shows `local`, who should have had an answer before.
    ///
    /// # Errors
    /// If somebody does.
    pub fn overdue(&self, local: u64, now: Nanos) -> Result<(), Violation> {
        let mut waiting = self.requests.iter().filter_map(|(ticket, request)| request.map(|it| (ticket, it)));
        match waiting.find(|(_, request)| request.deadline < local) {
            None => Ok(()),
            Some((ticket, request)) => {
                let late = local - request.deadline;
                Err(violation(now, format!("ticket {ticket} has no answer {late} ns after its deadline")))
            }
        }
    }

    /// A permit was settled for the first time, before its time was over or after.
    ///
    /// # Errors
    /// If the node says that it was settled before, knows nothing of it, or calls it over too early.
    pub fn check_settled(
        settled: &Result<Settling, SettleError>,
        in_time: bool,
        now: Nanos,
    ) -> Result<(), Violation> {
        match settled {
            Ok(settling) if !settling.repeated => Ok(()),
            Err(SettleError::Expired) if !in_time => Ok(()),
            other => Err(violation(now, format!("a permit was settled once, and the node says {other:?}"))),
        }
    }

    /// The node has left.
    ///
    /// # Errors
    /// If somebody still waits.
    pub fn left(&self, now: Nanos) -> Result<(), Violation> {
        match self.waiting {
            0 => Ok(()),
            waiting => {
                Err(violation(now, format!("{waiting} requests have no answer, and the node has left")))
            }
        }
    }

    /// Takes out everybody: their node was killed, and they will get no answer.
    pub fn abandon(&mut self) -> Vec<Waiting> {
        let requests = std::mem::take(self).requests;
        requests.into_iter().filter_map(|(_, request)| request).collect()
    }
}

fn violation(now: Nanos, what: String) -> Violation {
    Violation::new(Property::OneAnswer, now, what)
}

#[cfg(test)]
mod tests {
    use aquifer::protocol::permit::{How, Settlement};

    use super::*;

    fn waiting() -> OneAnswer {
        let mut check = OneAnswer::default();
        for ticket in [1, 2, 4] {
            check.wait(ticket, Waiting { units: ticket, asked: 10, deadline: 100, number: 0 }).unwrap();
        }
        check
    }

    #[test]
    fn one_answer_each_in_any_order_is_right() {
        let mut check = waiting();
        assert!(check.is_oldest(1) && !check.is_oldest(2));
        assert_eq!(check.answer(2, true, 99, 20).unwrap().units, 2);
        assert_eq!(check.answer(4, false, 100, 20).unwrap().units, 4);
        assert_eq!(check.answer(1, true, 50, 20).unwrap().units, 1);
        assert!(check.waiting() == 0 && !check.is_oldest(1));
        check.left(30).unwrap();
        check.overdue(1_000, 30).unwrap();
    }

    #[test]
    fn a_permit_is_settled_once_and_in_its_time() {
        let (how, settlement) = (How::Committed, Settlement::default());
        let settled = |repeated| Ok(Settling { how, repeated, settlement: settlement.clone() });
        OneAnswer::check_settled(&settled(false), true, 1).unwrap();
        OneAnswer::check_settled(&Err(SettleError::Expired), false, 1).unwrap();
        assert!(OneAnswer::check_settled(&settled(true), true, 1).is_err());
        assert!(OneAnswer::check_settled(&Err(SettleError::Expired), true, 1).is_err());
        assert!(OneAnswer::check_settled(&Err(SettleError::Unknown), false, 1).is_err());
    }

    #[test]
    fn every_wrong_answer_is_seen() {
        let mut check = waiting();
        check.answer(2, true, 20, 20).unwrap();
        assert!(check.answer(2, true, 21, 21).is_err(), "answered twice");
        assert!(check.answer(3, false, 21, 21).is_err(), "never asked");
        assert!(check.answer(4, true, 100, 21).is_err(), "admitted at its deadline");
        assert!(
            check.wait(4, Waiting { units: 1, asked: 0, deadline: 5, number: 0 }).is_err(),
            "a ticket used twice"
        );
        assert!(
            check.overdue(100, 22).is_ok() && check.overdue(101, 22).is_err(),
            "left beyond its deadline"
        );
        assert!(check.left(23).is_err(), "left without an answer");
        assert_eq!((check.abandon().len(), check.waiting()), (1, 0));
    }
}
