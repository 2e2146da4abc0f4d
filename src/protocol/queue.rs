//! Requests that wait for one pool on this node: first come, first served, bounded, each with a deadline.

use std::collections::{BTreeMap, BTreeSet};

use super::time::Instant;

/// Names a waiting request between the driver and the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Units it takes of each limit of the pool, in the pool's order.
    pub units: Vec<u64>,
    /// When it began to wait.
    pub since: Instant,
    /// When it gives up: it is never admitted at this moment or later.
    pub deadline: Instant,
}

/// The waiting requests of one pool, in order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    waiters: BTreeMap<Ticket, Waiter>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    /// Units that wait, by limit.
    backlog: Vec<u64>,
}

impl Queue {
    /// A queue for a pool of so many limits.
    pub fn new(limits: usize) -> Self {
        Self { backlog: vec![0; limits], ..Self::default() }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Units that wait for the limit at this place of the pool.
    pub fn backlog(&self, limit: usize) -> u64 {
        self.backlog[limit]
    }

    /// Adds a request at the end. Tickets must grow.
    pub fn push(&mut self, ticket: Ticket, waiter: Waiter) {
        for (backlog, units) in self.backlog.iter_mut().zip(&waiter.units) {
            *backlog = backlog.saturating_add(*units);
        }
        self.deadlines.insert((waiter.deadline, ticket));
        self.waiters.insert(ticket, waiter);
    }

    /// The request that is next.
    pub fn head(&self) -> Option<(Ticket, &Waiter)> {
        self.waiters.first_key_value().map(|(ticket, waiter)| (*ticket, waiter))
    }

    /// Takes a request out, wherever it stands.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        self.deadlines.remove(&(waiter.deadline, ticket));
        for (backlog, units) in self.backlog.iter_mut().zip(&waiter.units) {
            *backlog = backlog.saturating_sub(*units);
        }
        Some(waiter)
    }

    /// Takes out a request whose deadline has come.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(Ticket, Waiter)> {
        let (deadline, ticket) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.remove(ticket).map(|waiter| (ticket, waiter))
    }

    /// The first deadline of all.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn leaves_in_order_of_arrival_or_at_its_deadline() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let waiter = |units, deadline| Waiter { units: vec![units], since: at(0), deadline: at(deadline) };
        let mut queue = Queue::new(1);
        queue.push(Ticket(1), waiter(5, 9));
        queue.push(Ticket(2), waiter(7, 3));
        assert_eq!((queue.head().unwrap().0, queue.backlog(0)), (Ticket(1), 12));
        assert_eq!(queue.pop_expired(at(2)), None);
        assert_eq!(queue.pop_expired(at(3)).unwrap().0, Ticket(2));
        assert_eq!(queue.remove(Ticket(2)), None, "answered once");
        assert_eq!((queue.len(), queue.backlog(0), queue.next_deadline()), (1, 5, Some(at(9))));
    }
}
