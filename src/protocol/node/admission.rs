//! Asking, waiting, being answered.

use std::time::Duration;

use super::{Node, Output, Phase};
use crate::protocol::limit::{Cost, LIMITS_MAX};
use crate::protocol::queue::{Ticket, Waiter};
use crate::protocol::time::Instant;

/// What became of a request at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It has its answer.
    Now(Outcome),
    /// It waits; the answer will come as [`Output::Answer`] unless it is cancelled.
    Waiting(Ticket),
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All limits were taken.
    Admitted {
        /// How long it waited.
        waited: Duration,
    },
    /// Nothing was taken.
    Refused(Refusal),
}

/// Why nothing was taken, and when asking again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The place in the pool of the limit that stood in the way.
    pub limit: Option<usize>,
    /// In how long the request could be admitted: exact as far as this node's own share decides, then spread by up to
    /// a tenth so that refused callers do not come back together. None if never.
    pub retry_after: Option<Duration>,
    /// How long it waited.
    pub waited: Duration,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A limit has no room now, and the caller would not wait.
    Limit,
    /// A limit had no room until the deadline.
    Deadline,
    /// As many requests wait as may.
    QueueFull,
    /// The node leaves.
    Leaving,
    /// The cost is more than the limit can ever hold.
    Never,
}

/// The longest that a request may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a request that was refused without waiting counts as if it waited, so that pollers too get their turn.
const REFUSED_COUNTS: Duration = Duration::from_millis(250);

impl Node {
    /// The place of the pool with this name.
    pub fn pool(&self, name: &str) -> Option<usize> {
        self.pools.iter().position(|state| state.pool.name() == name)
    }

    /// Asks for `cost` of the pool at this place, waiting up to `wait`: all limits are taken, or none.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn acquire(&mut self, pool: usize, cost: &Cost, wait: Duration, now: Instant) -> Acquired {
        self.expire(now);
        let state = &self.pools[pool];
        let mut units = [0; LIMITS_MAX];
        let count = state.pool.limits().len();
        for (units, limit) in units.iter_mut().zip(state.pool.limits()) {
            *units = cost.of(limit);
        }
        let units = &units[..count];
        let refuse = |reason, limit, retry_after| {
            Acquired::Now(Outcome::Refused(Refusal { reason, limit, retry_after, waited: Duration::ZERO }))
        };
        if matches!(self.phase, Phase::Leaving(_) | Phase::Left) {
            return refuse(Reason::Leaving, None, Some(Duration::from_secs(1)));
        }
        let first = state.first;
        let too_large = |place: &usize| units[*place] > self.meters[first + place].limit.kind.capacity();
        if let Some(place) = (0..count).find(too_large) {
            return refuse(Reason::Never, Some(place), None);
        }
        let nobody_waits = state.queue.is_empty();
        for (place, units) in units.iter().enumerate() {
            let meter = &mut self.meters[first + place];
            meter.refill(now);
            if *units > 0 {
                meter.demand.arrive(*units, now);
            }
        }
        if !self.busy {
            self.wake(now);
        }
        let lacking = (0..count).find(|place| !self.meters[first + place].has(units[*place]));
        if nobody_waits && lacking.is_none() {
            self.take(first, units);
            return Acquired::Now(Outcome::Admitted { waited: Duration::ZERO });
        }
        let answer = if wait.is_zero() {
            for (place, units) in units.iter().enumerate() {
                let meter = &mut self.meters[first + place];
                if !meter.has(*units) {
                    let still = if meter.refused.1 > now { meter.refused.0 } else { 0 };
                    meter.refused = ((*units).max(still), now + REFUSED_COUNTS);
                    self.stale = true;
                }
            }
            let after = self.retry_after(pool, units, now);
            refuse(Reason::Limit, lacking.or_else(|| self.blocker(pool)), Some(after))
        } else if self.pools[pool].queue.len() >= self.pools[pool].pool.max_queue {
            let after = self.retry_after(pool, units, now);
            refuse(Reason::QueueFull, lacking.or_else(|| self.blocker(pool)), Some(after))
        } else {
            if nobody_waits {
                self.begin_backlog(pool);
            }
            // News at the first and whenever the queue has doubled: a growing backlog is told a few times, not each time.
            self.stale |= (self.pools[pool].queue.len() + 1).is_power_of_two();
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            let waiter = Waiter { units: units.to_vec(), since: now, deadline: now + wait.min(WAIT_MAX) };
            self.pools[pool].queue.push(ticket, waiter);
            Acquired::Waiting(ticket)
        };
        self.finish(now);
        answer
    }

    /// A caller that waits hung up: it takes nothing and gets no answer. False if it was answered already.
    pub fn cancel(&mut self, ticket: Ticket, now: Instant) -> bool {
        let cancelled = self.pools.iter_mut().any(|state| state.queue.remove(ticket).is_some());
        if cancelled {
            self.expire(now);
            self.stale = true;
            self.finish(now);
        }
        cancelled
    }

    /// Answers whoever can be answered, in every pool.
    pub(super) fn serve_all(&mut self, now: Instant) {
        (0..self.pools.len()).for_each(|pool| self.serve(pool, now));
    }

    /// First those whose time is over, then the heads that have room.
    fn serve(&mut self, pool: usize, now: Instant) {
        while let Some((ticket, waiter)) = self.pools[pool].queue.pop_expired(now) {
            let after = self.retry_after(pool, &waiter.units, now);
            let limit = self.lacking(pool, &waiter.units).or_else(|| self.blocker(pool));
            let waited = now.since(waiter.since);
            let refusal = Refusal { reason: Reason::Deadline, limit, retry_after: Some(after), waited };
            self.outputs.push_back(Output::Answer(ticket, Outcome::Refused(refusal)));
        }
        let first = self.pools[pool].first;
        let limits = self.pools[pool].pool.limits().len();
        let mut served = false;
        loop {
            let state = &self.pools[pool];
            let Some((ticket, waiter)) = state.queue.head() else { break };
            let meters = &mut self.meters[first..first + limits];
            meters.iter_mut().for_each(|meter| meter.refill(now));
            if meters.iter().zip(&waiter.units).any(|(meter, units)| !meter.has(*units)) {
                break;
            }
            let waiter = self.pools[pool].queue.remove(ticket).expect("BUG! the head is not in the queue");
            self.take(first, &waiter.units);
            let waited = now.since(waiter.since);
            self.outputs.push_back(Output::Answer(ticket, Outcome::Admitted { waited }));
            served = true;
        }
        self.pools[pool].head_ready = self.head_ready(pool);
        if served && self.turn_is_over(pool) {
            self.share_out(now);
            self.pools[pool].head_ready = self.head_ready(pool);
        }
    }

    /// Refuses everybody who waits, because the node leaves.
    pub(super) fn refuse_all(&mut self, now: Instant) {
        for state in &mut self.pools {
            while let Some((ticket, _)) = state.queue.head() {
                let waiter = state.queue.remove(ticket).expect("BUG! the head is not in the queue");
                let refusal = Refusal {
                    reason: Reason::Leaving,
                    limit: None,
                    retry_after: Some(Duration::from_secs(1)),
                    waited: now.since(waiter.since),
                };
                self.outputs.push_back(Output::Answer(ticket, Outcome::Refused(refusal)));
            }
            state.head_ready = None;
        }
    }

    fn take(&mut self, first: usize, units: &[u64]) {
        for (place, units) in units.iter().enumerate() {
            if *units > 0 {
                self.meters[first + place].take(*units, self.replica, self.config.weight);
            }
        }
    }

    fn lacking(&self, pool: usize, units: &[u64]) -> Option<usize> {
        let first = self.pools[pool].first;
        (0..units.len()).find(|place| !self.meters[first + place].has(units[*place]))
    }

    /// The limit that the head of the queue waits for.
    fn blocker(&self, pool: usize) -> Option<usize> {
        let (_, head) = self.pools[pool].queue.head()?;
        self.lacking(pool, &head.units)
    }

    /// When the head has room if the shares stay as they are; none if they do not suffice.
    fn head_ready(&self, pool: usize) -> Option<Instant> {
        let state = &self.pools[pool];
        let (_, head) = state.queue.head()?;
        let ready =
            |(place, units): (usize, &u64)| self.meters[state.first + place].bucket().ready_at(*units);
        head.units
            .iter()
            .enumerate()
            .map(ready)
            .try_fold(Instant::ZERO, |latest, at| at.map(|at| latest.max(at)))
    }

    fn retry_after(&mut self, pool: usize, units: &[u64], now: Instant) -> Duration {
        let state = &self.pools[pool];
        let mut longest = Duration::from_millis(1);
        for (place, units) in units.iter().enumerate() {
            let meter = &self.meters[state.first + place];
            let ahead = state.queue.backlog(place).saturating_add(*units);
            let wait = match meter.bucket().ready_at(*units) {
                Some(at) if state.queue.is_empty() => at.since(now),
                // More than this node's share can hold, or behind others: what the whole limit needs for it.
                _ => Duration::from_secs_f64((ahead as f64 / meter.limit.kind.per_second()).min(86_400.0)),
            };
            longest = longest.max(wait);
        }
        let spread = u64::try_from(longest.as_nanos() / 10).unwrap_or(u64::MAX).max(1_000_000);
        longest + Duration::from_nanos(self.random(spread))
    }
}
