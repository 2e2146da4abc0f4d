//! Asking the core on behalf of a caller, who may hang up while it waits.

use std::time::Duration;

use tokio::sync::oneshot;

use super::held::{GRACE, beyond_disk};
use super::{Bound, Core, Engine, Shared};
use crate::protocol::limit::{Cost, Units};
use crate::protocol::node::{Acquired, Ask, Item, Node, Outcome};
use crate::protocol::queue::{Class, Ticket};
use crate::protocol::time::Instant;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Lists of what it takes, each all or nothing; at least one. The first that is admitted now counts, else the one that
    /// is likely to be admitted first.
    pub choices: Vec<Vec<Wanted>>,
    /// Who asks; may be empty.
    pub agent: String,
    /// How urgent it is.
    pub class: Class,
    /// How long it waits; nothing to be answered at once.
    pub wait: Duration,
    /// How long its permit lives unless it is settled before.
    pub ttl: Duration,
    /// The connection with which the permit ends, if it does.
    pub bound: Option<Bound>,
}

/// What a call takes of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The place of the pool.
    pub pool: usize,
    /// Units of its limits.
    pub cost: Cost,
    /// Whose limits they are, in a keyed pool.
    pub key: Option<String>,
}

impl Wanted {
    fn item<'a>(&'a self, units: &'a Units) -> Item<'a> {
        Item { pool: self.pool, units, key: self.key.as_deref() }
    }
}

/// What became of a request, and until it is answered the right to its answer: dropping it means that the caller hung
/// up, and takes nothing.
pub enum Reply<T> {
    /// It has its answer, with what was to be told with it.
    Now(Outcome, T),
    /// It waits.
    Later(Pending),
}

/// A request that waits.
pub struct Pending {
    engine: Engine,
    /// Its place in the core's queue; none if it waits for the disk alone.
    ticket: Option<Ticket>,
    answer: oneshot::Receiver<Outcome>,
    asked: Instant,
    /// When the core has answered, whatever it says.
    deadline: Instant,
}

/// Who waits for an answer of the core.
pub(super) struct Waiting {
    pub answer: oneshot::Sender<Outcome>,
    pub items: Vec<Wanted>,
    pub bound: Option<Bound>,
}

impl Engine {
    /// Asks the core. Gives back which of the choices it was, and what became of it. If that is known at once, `tell` looks
    /// at the core with both, before anybody else asks.
    pub fn acquire<T>(
        &self,
        request: Request,
        tell: impl FnOnce(&mut Node, usize, Outcome, Instant) -> T,
    ) -> (usize, Reply<T>) {
        self.with(|shared, core, now| {
            let (choice, reply) = core.acquire(shared, request, now);
            let reply = match reply {
                Asked::Now(outcome) => Reply::Now(outcome, tell(&mut core.node, choice, outcome, now)),
                Asked::Later { ticket, answer, asked, deadline } => {
                    let engine = self.clone();
                    Reply::Later(Pending { engine, ticket, answer, asked, deadline })
                }
            };
            (choice, reply)
        })
    }
}

/// What became of a request: a [`Reply`] without the engine.
enum Asked {
    Now(Outcome),
    Later { ticket: Option<Ticket>, answer: oneshot::Receiver<Outcome>, asked: Instant, deadline: Instant },
}

impl Core {
    fn acquire(&mut self, shared: &Shared, request: Request, now: Instant) -> (usize, Asked) {
        let Request { mut choices, agent, class, wait, ttl, bound } = request;
        let node = &mut self.node;
        if let Some(pool) = node.own_limits(&agent) {
            choices.iter_mut().for_each(|items| items.push(own(pool, items, &agent)));
        }
        let units = |item: &Wanted| node.pool_at(item.pool).units(&item.cost);
        let units: Vec<Vec<Units>> = choices.iter().map(|items| items.iter().map(units).collect()).collect();
        let lists = choices.iter().zip(&units);
        let lists: Vec<Vec<Item<'_>>> = lists
            .map(|(items, units)| items.iter().zip(units).map(|(item, units)| item.item(units)).collect())
            .collect();
        let ask = |place: usize| Ask { items: &lists[place], agent: &agent, class, wait, ttl };
        let choice = if lists.len() == 1 { 0 } else { soonest(node, lists.len(), ask, now) };
        let acquired = node.ask(&ask(choice), now);
        let items = choices.swap_remove(choice);
        if let Acquired::Now(outcome) = acquired
            && !(matches!(outcome, Outcome::Admitted { .. }) && self.outruns_disk(&items))
        {
            self.note(shared, &items, bound, outcome, now);
            return (choice, Asked::Now(outcome));
        }
        let (answer, receiver) = oneshot::channel();
        let waiting = Waiting { answer, items, bound };
        let ticket = match acquired {
            Acquired::Now(outcome) => {
                // First what is to be saved, which this is to wait for.
                self.carry_out(shared, now);
                self.tell(shared, waiting, outcome, now);
                None
            }
            Acquired::Waiting(ticket) => {
                self.waiting.insert(ticket, waiting);
                Some(ticket)
            }
        };
        (choice, Asked::Later { ticket, answer: receiver, asked: now, deadline: now + wait })
    }

    fn outruns_disk(&self, items: &[Wanted]) -> bool {
        items.iter().any(|item| self.node.outruns_disk(item.pool).is_some())
    }

    /// Writes down an admission before its caller has the answer, and has its permit bound.
    pub(super) fn note(
        &mut self,
        shared: &Shared,
        items: &[Wanted],
        bound: Option<Bound>,
        outcome: Outcome,
        now: Instant,
    ) {
        let Outcome::Admitted { permit, .. } = outcome else { return };
        if let Some(log) = &mut self.log {
            let node = &self.node;
            let taken = items.iter().flat_map(|Wanted { pool, cost, .. }| {
                node.pool_at(*pool).limits().iter().map(|limit| (limit.name.as_str(), cost.of(limit)))
            });
            log.write(shared.clock.monotonic(now), taken.filter(|(_, units)| *units > 0));
        }
        self.to_bind.extend(bound.map(|bound| (bound, permit)));
    }
}

/// What a call takes of its agent's own limits: as many units as of all pools together.
fn own(pool: usize, items: &[Wanted], agent: &str) -> Wanted {
    let mut cost = Cost { units: [].into(), limits: [].into() };
    for (unit, units) in items.iter().flat_map(|item| &item.cost.units) {
        let sum: &mut u64 = cost.units.entry(unit.clone()).or_default();
        *sum = sum.saturating_add(*units);
    }
    Wanted { pool, cost, key: Some(agent.to_owned()) }
}

/// The first choice that is admitted now, else the one that will be soonest; the first if none ever will.
fn soonest<'a>(node: &mut Node, choices: usize, ask: impl Fn(usize) -> Ask<'a>, now: Instant) -> usize {
    let mut soonest = (None, 0);
    for choice in 0..choices {
        match node.estimate_for(&ask(choice), now) {
            Some(Duration::ZERO) => return choice,
            Some(wait) if soonest.0.is_none_or(|least| wait < least) => soonest = (Some(wait), choice),
            _ => {}
        }
    }
    soonest.1
}

impl Pending {
    /// The answer.
    pub async fn answer(mut self) -> Outcome {
        let left = self.deadline.since(self.engine.now()) + GRACE;
        let answer = tokio::time::timeout(left, &mut self.answer).await;
        let Ok(answer) = answer else {
            // It was admitted, and the disk hangs: as it never heard of it, that is taken back.
            return beyond_disk(None, self.engine.now().since(self.asked));
        };
        answer.expect("BUG! a waiting request lost its answer")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        self.engine.with(|_, core, now| {
            if core.waiting.remove(&ticket).is_some() {
                core.node.cancel(ticket, now);
            }
        });
    }
}
