//! Who waits, who uses most, which limit an answer is about: what listings and answers are made of.

use std::time::Duration;

use super::Node;
use super::admission::{Ask, Request};
use crate::protocol::agents::TopAgent;
use crate::protocol::limit::Limit;
use crate::protocol::permit::PermitId;
use crate::protocol::queue::Class;
use crate::protocol::time::Instant;

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiterView {
    /// Its place in the queue, from 1: when it is served if nobody comes, leaves or moves up.
    pub position: usize,
    /// Who asks; may be empty.
    pub agent: String,
    /// The class that was asked for.
    pub class: Class,
    /// How long it has waited.
    pub waited: Duration,
    /// In how long it gives up.
    pub gives_up_in: Duration,
    /// Units by limit, those of other pools too: see [`Node::limit_at`].
    pub units: Vec<(usize, u64)>,
}

impl Node {
    /// The first `max` of those that wait for the pool, in order of service.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn queue_view(&self, pool: usize, max: usize, now: Instant) -> Vec<WaiterView> {
        let tickets = self.pools[pool].queue.iter().take(max);
        let view = |(position, (ticket, entry)): (usize, (_, &crate::protocol::queue::Entry))| {
            let waiter = &self.waiters[&ticket];
            WaiterView {
                position,
                agent: self.agents.name(entry.agent).to_owned(),
                class: entry.class,
                waited: now.since(waiter.since),
                gives_up_in: waiter.deadline.since(now),
                units: waiter.request.needs.iter().map(|need| (need.meter as usize, need.units)).collect(),
            }
        };
        (1..).zip(tickets).map(view).collect()
    }

    /// How many wait for the pool, by the [index](Class::index) of the class that they asked for.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn waiting(&self, pool: usize) -> [usize; 4] {
        self.pools[pool].queue.waiting()
    }

    /// Up to `n` agents that used most of the pool lately: see [`Agents::top`](crate::protocol::agents::Agents::top).
    pub fn top_agents(&self, pool: usize, n: usize, now: Instant) -> Vec<TopAgent<'_>> {
        self.agents.top(pool, n, now)
    }

    /// The limit at this place, counted through all pools, with the place of its pool.
    ///
    /// # Panics
    /// If there is none.
    pub fn limit_at(&self, limit: usize) -> (usize, &Limit) {
        (self.limit_of(limit).0, &self.meters[limit].limit)
    }

    /// The place of the keyed pool of an agent's own limits, if it has any.
    pub fn own_limits(&self, agent: &str) -> Option<usize> {
        self.agents.own_limits(agent)
    }

    /// The places of the pools that a permit passed; none if it has ended.
    pub fn permit_pools(&self, id: PermitId) -> Option<Vec<usize>> {
        let permit = self.permits.get(id)?;
        if permit.key.is_some() {
            return Some(vec![permit.pool as usize]);
        }
        let taken = permit.taken.iter().map(|taken| self.limit_of(taken.meter as usize).0);
        let mut pools: Vec<usize> = taken.chain([permit.pool as usize]).collect();
        pools.sort_unstable();
        pools.dedup();
        Some(pools)
    }

    /// In how long a request could be admitted, as far as is known here: nothing if at once, none if never or not before a
    /// pool is resumed. Asks for nothing, so it is nobody's demand.
    ///
    /// # Panics
    /// If there is no such pool, or no item.
    pub fn estimate_for(&mut self, ask: &Ask<'_>, now: Instant) -> Option<Duration> {
        self.expire(now);
        let request = self.request(ask, now)?;
        let estimate = self.estimate_of(&request, now);
        self.spare = request;
        estimate
    }

    fn estimate_of(&mut self, request: &Request, now: Instant) -> Option<Duration> {
        if self.too_large(request).is_some() {
            return None;
        }
        for need in &request.needs {
            self.meters[need.meter as usize].refill(now);
        }
        let mut longest = Duration::ZERO;
        for pool in &request.pools {
            longest = longest.max(self.held_for(*pool as usize, now)?);
        }
        let at_once = self.has_room_now(request, now);
        Some(if at_once { longest } else { longest.max(self.estimate(request, now)) })
    }
}
