//! Requests that wait: bounded, each with a deadline, answered exactly once.
//!
//! A request that passes several pools waits in the queue of each. It is admitted when it is at the head of one of them and
//! all its limits have room: meanwhile that queue stands, so its limits fill up, and it cannot be passed for ever.

use std::time::Duration;

use super::admission::{Outcome, Reason, Refusal, Request};
use super::rows::{PROBE_AFTER, probe_grows};
use super::{Node, Output};
use crate::protocol::queue::{Entry, Ticket};
use crate::protocol::share::Share;
use crate::protocol::time::Instant;

/// A request that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub request: Request,
    pub since: Instant,
    /// When it gives up: it is never admitted at this moment or later.
    pub deadline: Instant,
}

/// What came of serving one queue.
#[derive(Default)]
struct Served {
    /// Somebody was answered, or share moved.
    changed: bool,
    /// Somebody who was answered waited in other queues, too.
    elsewhere: bool,
}

impl Node {
    /// Has a request wait until `deadline`.
    pub(super) fn enqueue(&mut self, request: Request, deadline: Instant, now: Instant) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let entry = Entry {
            class: request.class,
            agent: request.agent,
            weight: self.agents.weight(request.agent),
            cost: request.cost,
            since: now,
        };
        for pool in &request.pools {
            let pool = *pool as usize;
            if self.pools[pool].queue.is_empty() {
                self.begin_backlog(pool);
            }
            let queue = &mut self.pools[pool].queue;
            queue.push(ticket, entry);
            // News at the first and whenever the queue has doubled: a growing backlog is told a few times, not each time.
            self.stale |= queue.len().is_power_of_two();
        }
        for need in &request.needs {
            let backlog = &mut self.meters[need.meter as usize].backlog[request.class.index()];
            *backlog = backlog.saturating_add(need.units);
        }
        self.agents.hold(request.agent);
        self.deadlines.insert((deadline, ticket));
        self.waiters.insert(ticket, Waiter { request, since: now, deadline });
        ticket
    }

    /// Takes a waiting request out of everything.
    fn dequeue(&mut self, ticket: Ticket, served: bool) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        self.deadlines.remove(&(waiter.deadline, ticket));
        for pool in &waiter.request.pools {
            let queue = &mut self.pools[*pool as usize].queue;
            if served {
                queue.serve(ticket);
            } else {
                queue.remove(ticket);
            }
        }
        for need in &waiter.request.needs {
            let backlog = &mut self.meters[need.meter as usize].backlog[waiter.request.class.index()];
            *backlog = backlog.saturating_sub(need.units);
        }
        self.agents.let_go(waiter.request.agent);
        Some(waiter)
    }

    /// A caller that waits hung up: it takes nothing and gets no answer. False if it was answered already.
    pub fn cancel(&mut self, ticket: Ticket, now: Instant) -> bool {
        let cancelled = self.dequeue(ticket, false).is_some();
        if cancelled {
            self.expire(now);
            self.stale = true;
            self.finish(now);
        }
        cancelled
    }

    /// Answers whoever can be answered, in every pool. False if nothing changed: then nothing would if it were called again
    /// at once.
    pub(super) fn serve_all(&mut self, now: Instant) -> bool {
        let mut changed = false;
        while let Some((deadline, ticket)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            debug_assert!(deadline <= now);
            let waiter = self.dequeue(ticket, false).expect("BUG! a deadline of nobody");
            self.give_up(ticket, &waiter, Reason::Deadline, now);
            changed = true;
        }
        // Whoever waited in several queues makes room at the head of others when it goes.
        let mut again = true;
        while again {
            again = false;
            for pool in 0..self.pools.len() {
                let served = self.serve(pool, now);
                again |= served.elsewhere;
                changed |= served.changed;
            }
        }
        changed
    }

    fn give_up(&mut self, ticket: Ticket, waiter: &Waiter, reason: Reason, now: Instant) {
        let after = match reason {
            Reason::Leaving => Duration::from_secs(1),
            _ => self.retry_after(&waiter.request, now),
        };
        let blocker = self.lacking(&waiter.request.needs);
        let blocker = blocker.or_else(|| self.blocker(waiter.request.pools[0] as usize));
        let refusal = Refusal {
            reason,
            limit: if reason == Reason::Leaving { None } else { blocker.map(|place| self.limit_of(place)) },
            retry_after: Some(after),
            waited: now.since(waiter.since),
        };
        self.outputs.push_back(Output::Answer(ticket, Outcome::Refused(refusal)));
    }

    /// Admits the heads that have room.
    fn serve(&mut self, pool: usize, now: Instant) -> Served {
        if self.pools[pool].queue.is_empty() {
            self.pools[pool].head_ready = None;
            return Served::default();
        }
        let mut changed = self.part_with_due(pool, now);
        let (mut served, mut elsewhere) = (false, false);
        while let Some(ticket) = self.head(pool, now) {
            if self.is_broken(pool, now) {
                let waiter = self.dequeue(ticket, false).expect("BUG! the head is not in the queue");
                self.give_up(ticket, &waiter, Reason::Breaker, now);
                changed = true;
                continue;
            }
            let waiter = &self.waiters[&ticket];
            if waiter.request.pools.iter().any(|pool| self.is_held_back(*pool as usize, now)) {
                break;
            }
            for need in &waiter.request.needs {
                self.meters[need.meter as usize].refill(now);
            }
            if self.lacking(&waiter.request.needs).is_some() || !self.permits.has_room() {
                break;
            }
            let waiter = self.dequeue(ticket, true).expect("BUG! the head is not in the queue");
            let waited = now.since(waiter.since);
            elsewhere |= waiter.request.pools.len() > 1;
            let outcome = self.admit(&waiter.request, waited, now);
            self.outputs.push_back(Output::Answer(ticket, outcome));
            served = true;
            self.stale |= probe_grows(self.pools[pool].queue.served_while_waiting(PROBE_AFTER, now));
        }
        self.pools[pool].head_ready = self.head_ready(pool, now);
        if served && self.turn_is_over(pool) {
            self.share_out(now);
            self.pools[pool].head_ready = self.head_ready(pool, now);
        }
        Served { changed: changed || served, elsewhere }
    }

    /// What came back to share that others are due moves on before anybody here is served from it.
    fn part_with_due(&mut self, pool: usize, now: Instant) -> bool {
        let mut returned = false;
        for meter in &mut self.meters[self.pools[pool].meters()] {
            if meter.due > Share::ZERO {
                meter.refill(now);
                returned |= meter.bucket().movable() > Share::ZERO;
            }
        }
        if returned {
            self.share_out(now);
        }
        returned
    }

    /// Who is next in a pool.
    fn head(&mut self, pool: usize, now: Instant) -> Option<Ticket> {
        let (agents, queue) = (&self.agents, &mut self.pools[pool].queue);
        queue.age(now);
        queue.head(|agent| agents.is_over(agent, pool, now))
    }

    /// Refuses everybody who waits, because the node leaves.
    pub(super) fn refuse_all(&mut self, now: Instant) {
        while let Some(ticket) = self.waiters.keys().next().copied() {
            let waiter = self.dequeue(ticket, false).expect("BUG! the first is not there");
            self.give_up(ticket, &waiter, Reason::Leaving, now);
        }
        self.pools.iter_mut().for_each(|state| state.head_ready = None);
    }

    /// The limit that the head of the queue waits for.
    pub(super) fn blocker(&self, pool: usize) -> Option<usize> {
        let head = self.pools[pool].queue.head(|_| false)?;
        self.lacking(&self.waiters[&head].request.needs)
    }

    /// Units of one limit that the next request of its pool takes, and its class.
    pub(super) fn head_of(&self, pool: usize, place: usize) -> Option<(u64, usize)> {
        let head = self.pools[pool].queue.head(|_| false)?;
        let request = &self.waiters[&head].request;
        let need = request.needs.iter().find(|need| need.meter as usize == place);
        Some((need.map_or(0, |need| need.units), request.class.index()))
    }

    /// When the head has room if the shares stay as they are; none if they do not suffice.
    fn head_ready(&mut self, pool: usize, now: Instant) -> Option<Instant> {
        let head = self.head(pool, now)?;
        let request = &self.waiters[&head].request;
        if request.pools.iter().any(|pool| self.is_held_back(*pool as usize, now)) {
            return None;
        }
        request
            .needs
            .iter()
            .map(|need| self.meters[need.meter as usize].ready_at(need.units))
            .try_fold(Instant::ZERO, |latest, at| at.map(|at| latest.max(at)))
    }
}
