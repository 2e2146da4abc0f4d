//! Asking and being answered at once. What waits is in [`waiting`](super::waiting), what comes after in
//! [`settling`](super::settling).

use std::mem;
use std::time::Duration;

use super::gates::Passage;
use super::{Node, Phase};
use crate::protocol::agents::AgentIndex;
use crate::protocol::limit::{Cost, Kind};
use crate::protocol::permit::{Permit, PermitId, Taken};
use crate::protocol::queue::{Class, Ticket};
use crate::protocol::time::Instant;

/// What one call asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What it takes, of one pool or of several: all or nothing.
    pub items: &'a [Item<'a>],
    /// Who asks; may be empty.
    pub agent: &'a str,
    /// How urgent it is.
    pub class: Class,
    /// How long it would wait; nothing to be answered at once.
    pub wait: Duration,
    /// How long its permit lives unless it is settled before. A concurrency limit may cut it short.
    pub ttl: Duration,
}

/// What a call takes of one pool.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The place of the pool.
    pub pool: usize,
    /// Units of each of its limits, in their order.
    pub units: &'a [u64],
    /// Whose limits, if the pool is keyed; nobody's in particular are those of the empty key. Else without meaning.
    pub key: Option<&'a str>,
}

/// How long a permit lives where nobody says.
pub const PERMIT_TTL: Duration = Duration::from_secs(120);

/// What became of a request at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It has its answer.
    Now(Outcome),
    /// It waits; the answer will come as [`Output::Answer`](super::Output::Answer) unless it is cancelled.
    Waiting(Ticket),
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All limits were taken.
    Admitted {
        /// How long it waited.
        waited: Duration,
        /// Names what was taken, to settle it.
        permit: PermitId,
        /// How long the permit lives.
        ttl: Duration,
    },
    /// Nothing was taken.
    Refused(Refusal),
}

/// Why nothing was taken, and when asking again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The limit that stood in the way: the places of its pool and of the limit in the pool.
    pub limit: Option<(usize, usize)>,
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
    /// A limit had no room until the deadline, or cannot have any before it.
    Deadline,
    /// As many requests wait as may, or as many permits are out.
    QueueFull,
    /// The pool is paused, everywhere.
    Paused,
    /// The pool's circuit breaker is open: too many calls failed.
    Breaker,
    /// The node leaves.
    Leaving,
    /// The cost is more than the limit can ever hold.
    Never,
    /// The key is new here, or wants more than this node's own share of it, and the node knows as many keys as it may.
    TooManyKeys,
}

/// The longest that a request may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a request that was refused without waiting counts as if it waited, so that pollers too get their turn.
pub(super) const REFUSED_COUNTS: Duration = Duration::from_millis(250);

/// A request as the node sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    /// Units by meter; zero only of limits that are in debt.
    pub needs: Needs,
    /// The pools that it passes; at least one.
    pub pools: Vec<u32>,
    pub agent: AgentIndex,
    pub class: Class,
    /// How long the whole of the limit that needs longest takes to earn it, in nanoseconds; slow limits count only where
    /// there are no others.
    pub cost: u64,
    pub ttl: Duration,
}

/// Units by meter.
pub(super) type Needs = Vec<Taken>;

impl Node {
    /// The place of the pool with this name.
    pub fn pool(&self, name: &str) -> Option<usize> {
        self.config.pools.iter().position(|pool| pool.name() == name)
    }

    /// Asks for `cost` of one pool as nobody in particular: see [`ask`](Self::ask).
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn acquire(&mut self, pool: usize, cost: &Cost, wait: Duration, now: Instant) -> Acquired {
        let units = &self.pools[pool].pool.units(cost);
        let items = &[Item { pool, units, key: None }];
        self.ask(&Ask { items, agent: "", class: Class::Normal, wait, ttl: PERMIT_TTL }, now)
    }

    /// Asks for what a call takes, waiting as long as it would: all of it is taken, or nothing.
    ///
    /// # Panics
    /// If there is no such pool, no item, or an item has not as many units as its pool has limits.
    pub fn ask(&mut self, ask: &Ask<'_>, now: Instant) -> Acquired {
        self.expire(now);
        if matches!(self.phase, Phase::Leaving(_) | Phase::Left) {
            return refuse(Reason::Leaving, None, Some(Duration::from_secs(1)));
        }
        if let Some(answer) = self.ask_keyed(ask, now) {
            return answer;
        }
        let Some(request) = self.request(ask, now) else {
            return refuse(Reason::TooManyKeys, None, Some(Duration::from_secs(1)));
        };
        let answer = self.ask_for(&request, ask, now);
        self.spare = request;
        answer
    }

    /// Asks for what has been put into the node's terms.
    fn ask_for(&mut self, request: &Request, ask: &Ask<'_>, now: Instant) -> Acquired {
        if let Some(place) = self.too_large(request) {
            return refuse(Reason::Never, Some(self.limit_of(place)), None);
        }
        let held_back = match self.passage(ask, request, now) {
            Passage::Free => false,
            Passage::Wait => true,
            Passage::Refused(answer) => return answer,
        };
        self.arrive(request, now);
        if !self.busy {
            self.wake(now);
        }
        if !held_back && self.has_room_now(request, now) {
            for pool in &request.pools {
                let weight = self.agents.weight(request.agent);
                let queue = &mut self.pools[*pool as usize].queue;
                if !queue.is_empty() {
                    queue.passed(request.class, request.agent, weight, request.cost);
                }
            }
            return Acquired::Now(self.admit(request, Duration::ZERO, now));
        }
        let answer = self.answer_later(ask, request, now);
        self.finish(now);
        answer
    }

    /// Asks for what has been put into the node's terms, to be used for good: no permit is put out. Of promoted keys only.
    pub(super) fn spend(&mut self, request: &Request, ask: &Ask<'_>, now: Instant) -> Option<Refusal> {
        self.arrive(request, now);
        if !self.busy {
            self.wake(now);
        }
        if self.lacking(&request.needs).is_none() {
            self.take(request);
            return None;
        }
        let answer = self.answer_later(ask, request, now);
        self.finish(now);
        match answer {
            Acquired::Now(Outcome::Refused(refusal)) => Some(refusal),
            _ => unreachable!("BUG! admitted without room"),
        }
    }

    /// A request of one limit of a promoted key, in the node's terms.
    pub(super) fn request_of(&mut self, place: usize, units: u64) -> Request {
        let mut request = mem::take(&mut self.spare);
        let meter = self.pools[place].first;
        request.needs.clear();
        request.needs.push(Taken { meter: meter as u32, units });
        request.pools.clear();
        request.pools.push(place as u32);
        let cost = (units as f64 * self.meters[meter].unit_nanos) as u64;
        Request { agent: AgentIndex::default(), class: Class::Normal, cost, ttl: Duration::ZERO, ..request }
    }

    /// There is no room at once: refuses, or has it wait.
    fn answer_later(&mut self, ask: &Ask<'_>, request: &Request, now: Instant) -> Acquired {
        let first = request.pools[0] as usize;
        let lacking = self.lacking(&request.needs);
        let blocker = lacking.or_else(|| self.blocker(first)).map(|place| self.limit_of(place));
        let is_full = |pool: &u32| {
            let state = &self.pools[*pool as usize];
            state.queue.len() >= state.pool.max_queue
        };
        if ask.wait.is_zero() {
            for need in &request.needs {
                let meter = &mut self.meters[need.meter as usize];
                if !meter.has(need.units) {
                    let still = if meter.refused.1 > now { meter.refused.0 } else { 0 };
                    meter.refused = (need.units.max(still), now + REFUSED_COUNTS);
                    self.stale = true;
                }
            }
            let after = self.retry_after(request, now);
            refuse(Reason::Limit, blocker, Some(after))
        } else if request.pools.iter().any(is_full) || !self.permits.has_room() {
            let after = self.retry_after(request, now);
            refuse(Reason::QueueFull, blocker, Some(after))
        } else if now + ask.wait < self.earliest(request, now) {
            let after = self.retry_after(request, now);
            refuse(Reason::Deadline, blocker, Some(after))
        } else {
            Acquired::Waiting(self.enqueue(request.clone(), now + ask.wait.min(WAIT_MAX), now))
        }
    }

    /// What is asked for, in the node's terms. None if it takes of a key that cannot be promoted.
    pub(super) fn request(&mut self, ask: &Ask<'_>, now: Instant) -> Option<Request> {
        let Request { mut needs, mut pools, .. } = mem::take(&mut self.spare);
        needs.clear();
        pools.clear();
        let agent = self.agents.intern(ask.agent);
        let mut request = Request { needs, pools, agent, class: ask.class, cost: 1, ttl: ask.ttl };
        let mut slow_cost = 1;
        assert!(!ask.items.is_empty(), "BUG! a request for nothing");
        for item in ask.items {
            let place = match self.key_of(item.pool, item.key) {
                Some(key) => self.promote(item.pool, key, now)?,
                None => item.pool,
            };
            let meters = self.pools[place].meters();
            assert_eq!(meters.len(), item.units.len(), "BUG! not as many units as limits");
            let is_new = !request.pools.contains(&(place as u32));
            if is_new {
                request.pools.push(place as u32);
            }
            for (place, (meter, units)) in
                (meters.start as u32..).zip(self.meters[meters].iter().zip(item.units))
            {
                let units = *units;
                // A call that costs nothing of a limit pays for the debt of those before it all the same.
                if units == 0 && !meter.bucket().in_debt() {
                    continue;
                }
                if let Kind::Concurrency(limit) = &meter.limit.kind {
                    request.ttl = request.ttl.min(limit.ttl());
                }
                let nanos = (units as f64 * meter.unit_nanos) as u64;
                let cost = if meter.is_slow() { &mut slow_cost } else { &mut request.cost };
                *cost = nanos.max(*cost);
                let known =
                    if is_new { None } else { request.needs.iter_mut().find(|need| need.meter == place) };
                match known {
                    Some(need) => need.units = need.units.saturating_add(units),
                    None => request.needs.push(Taken { meter: place, units }),
                }
            }
        }
        // By a day's budget every call would take hours: it says nothing of who is served how much right now.
        if request.cost == 1 {
            request.cost = slow_cost;
        }
        Some(request)
    }

    /// The first limit that can never hold what is asked for.
    pub(super) fn too_large(&self, request: &Request) -> Option<usize> {
        let mut meters = request.needs.iter().map(|need| (need.meter as usize, need.units));
        meters
            .find(|(place, units)| *units > self.meters[*place].limit.kind.capacity())
            .map(|(place, _)| place)
    }

    fn arrive(&mut self, request: &Request, now: Instant) {
        for need in &request.needs {
            let meter = &mut self.meters[need.meter as usize];
            meter.refill(now);
            meter.arrive(need.units, request.class, now);
        }
    }

    /// Whether the request can be admitted at once; its limits are up to `now`.
    pub(super) fn has_room_now(&self, request: &Request, now: Instant) -> bool {
        self.lacking(&request.needs).is_none()
            && request.pools.iter().all(|pool| self.may_pass(*pool as usize, request, now))
            && self.permits.has_room()
    }

    /// Whether nobody who waits in the pool comes before this request.
    fn may_pass(&self, pool: usize, request: &Request, now: Instant) -> bool {
        let queue = &self.pools[pool].queue;
        queue.is_empty() || (queue.may_pass(request.class) && !self.agents.is_over(request.agent, pool, now))
    }

    /// Takes what is there for the request, and names it.
    pub(super) fn admit(&mut self, request: &Request, waited: Duration, now: Instant) -> Outcome {
        self.take(request);
        let mut slots = false;
        for need in &request.needs {
            let meter = &mut self.meters[need.meter as usize];
            meter.open = meter.open.saturating_add(need.units);
            slots |= matches!(meter.limit.kind, Kind::Concurrency(_));
        }
        for pool in &request.pools {
            // What is used of all keys of a pool counts together.
            let pool = self.configured(*pool as usize);
            self.agents.admitted(request.agent, pool, request.cost, now);
        }
        let permit = Permit {
            pool: request.pools[0],
            key: None,
            agent: request.agent.0,
            taken: &request.needs[..],
            since: now,
            expires: now + request.ttl,
        };
        let of_key = if request.pools.len() == 1 { self.of_key(&permit) } else { None };
        let permit = self.issue(of_key.as_ref().map_or(permit, Permit::borrowed), slots);
        Outcome::Admitted { waited, permit, ttl: request.ttl }
    }

    fn take(&mut self, request: &Request) {
        for need in &request.needs {
            self.meters[need.meter as usize].take(need.units, self.replica, self.config.weight);
        }
    }

    /// Puts a permit out, which there is room for; `slots` tells whether it holds one of a concurrency limit.
    pub(super) fn issue(&mut self, permit: Permit<&[Taken]>, slots: bool) -> PermitId {
        self.agents.hold(AgentIndex(permit.agent));
        self.count_permit(permit, 1);
        if let Some((_, evicted)) = self.permits.make_room() {
            self.permit_ended(&evicted);
        }
        let issued = self.permits.issue(permit, slots).expect("BUG! admitted without room for a permit");
        self.slots_out += usize::from(slots);
        self.reserve_ahead();
        issued
    }

    /// The first limit that lacks what is needed of it.
    pub(super) fn lacking(&self, needs: &[Taken]) -> Option<usize> {
        let mut lacking = needs.iter().filter(|need| !self.meters[need.meter as usize].has(need.units));
        lacking.next().map(|need| need.meter as usize)
    }

    /// The first moment at which the whole swarm could admit the request if all of every limit were here: before it, waiting
    /// is in vain.
    fn earliest(&self, request: &Request, now: Instant) -> Instant {
        let mut earliest = now;
        for need in &request.needs {
            let place = need.meter as usize;
            let meter = &self.meters[place];
            let at = match &meter.limit.kind {
                Kind::Rate(rate) => {
                    let ahead: u64 = meter.backlog[..=request.class.index()].iter().sum();
                    let over = ahead.saturating_add(need.units).saturating_sub(rate.burst());
                    now + Duration::from_secs_f64(
                        (over as f64 / rate.per_second()).min(WAIT_MAX.as_secs_f64()),
                    )
                }
                Kind::Calendar(_)
                    if meter.units() == 0 && self.rows(place).all(|(_, row)| row.level == 0) =>
                {
                    // Refunds can bring something back before the period ends; nobody knows of any.
                    meter.bucket().period().map_or(now, |period| period.until)
                }
                _ => now,
            };
            earliest = earliest.max(at);
        }
        earliest
    }

    /// In how long the request could be admitted, as far as is known here.
    pub(super) fn estimate(&self, request: &Request, now: Instant) -> Duration {
        let nobody_waits = request.pools.iter().all(|pool| self.pools[*pool as usize].queue.is_empty());
        let mut longest = Duration::from_millis(1).max(self.earliest(request, now).since(now));
        for need in &request.needs {
            let meter = &self.meters[need.meter as usize];
            let ahead = meter.backlog.iter().sum::<u64>().saturating_add(need.units);
            let wait = match meter.ready_at(need.units) {
                Some(at) if nobody_waits => at.since(now),
                // More than this node's share can hold, or behind others: what the whole limit needs for it.
                _ => Duration::from_secs_f64(
                    (ahead as f64 * meter.unit_nanos / 1e9).min(WAIT_MAX.as_secs_f64()),
                ),
            };
            longest = longest.max(wait);
        }
        longest
    }

    /// The estimate, spread so that refused callers do not come back together.
    pub(super) fn retry_after(&mut self, request: &Request, now: Instant) -> Duration {
        let longest = self.estimate(request, now);
        self.spread(longest)
    }

    /// Up to a tenth more.
    pub(super) fn spread(&mut self, longest: Duration) -> Duration {
        let spread = u64::try_from(longest.as_nanos() / 10).unwrap_or(u64::MAX).max(1_000_000);
        longest + Duration::from_nanos(self.random(spread))
    }
}

pub(super) fn refuse(
    reason: Reason,
    limit: Option<(usize, usize)>,
    retry_after: Option<Duration>,
) -> Acquired {
    Acquired::Now(Outcome::Refused(Refusal { reason, limit, retry_after, waited: Duration::ZERO }))
}
