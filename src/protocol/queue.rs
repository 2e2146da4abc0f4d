//! Who of those that wait for one pool is next: urgent before background, and the agents of a class by
//! weight.
//!
//! **Classes.** The highest class that has waiters is next. A request that has waited long enough moves up
//! one class, up to high: nothing becomes critical by waiting.
//!
//! **Floor.** A class with waiters earns a [`FLOOR`]th of every cost that is served from a class above it,
//! and once that covers its head, the head is next, out of turn (the idea of deficit round robin: M.
//! Shreedhar, G. Varghese, SIGCOMM 1995). Whatever is served from a class pays what it had earned, and a
//! class that has no more waiters loses it. As long as nobody is due, no class has earned its largest
//! request, so every class with waiters earns: it is served at least a [`FLOOR`]th of what is served from the
//! classes above in their turn, less one request. A head that is due but does not fit yet keeps all others
//! waiting until it does, or large requests would never have their turn.
//!
//! **Agents.** Inside a class: start-time fair queueing by weight (in `sfq`). It keeps its bound at any
//! service rate, also at the one that the classes above leave. Accounts are kept by class.
//!
//! **Over.** An agent that has used more than its part is served only when nobody else waits, in any class.
//!
//! Every operation takes O(log n) for n waiters, where nothing else is said; amortised, where agents are
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::sfq::{Sfq, span};
use super::agents::AgentIndex;
use super::time::Instant;

mod sfq;

/// How urgent a request is. The most urgent is the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Somebody would be hurt by waiting. Reached only by asking for it.
    Critical,
    /// Somebody waits for the answer.
    High,
    /// What is said by saying nothing.
    #[default]
    Normal,
    /// Background work.
    Low,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name that callers write.
    pub const fn name(self) -> &'static str {
        ["critical", "high", "normal", "low"][self.index()]
    }

    /// Where waiting leads; none if it leads nowhere.
    fn above(self) -> Option<Self> {
        match self {
            Self::Critical | Self::High => None,
            Self::Normal => Some(Self::High),
            Self::Low => Some(Self::Normal),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Names a waiting request between the driver and the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the order depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The class that was asked for.
    pub class: Class,
    /// Who asks.
    pub agent: AgentIndex,
    /// The agent's weight in thousandths; zero counts as one.
    pub weight: u32,
    /// How long the whole limit needs to earn what is asked, in nanoseconds: of the pool's limits, the one
    /// that needs longest. Zero counts as one.
    pub cost: u64,
    /// When it began to wait.
    pub since: Instant,
}

/// A class that is passed over earns one part in so many.
pub const FLOOR: u32 = 32;

/// The requests that wait for one pool, in order of service. What they ask for and their deadlines are the
/// caller's.
#[derive(Clone, Debug)]
pub struct Queue {
    ageing: Duration,
    waiters: BTreeMap<Ticket, Waiter>,
    /// By the class that a request is in now.
    lanes: [Lane; 4],
    /// When who moves up.
    ages: BTreeSet<(Instant, Ticket)>,
    /// By the class that was asked for.
    waiting: [usize; 4],
    /// Since when somebody has waited all the time, and how many were served since.
    busy: Option<(Instant, u32)>,
}

#[derive(Clone, Debug)]
struct Waiter {
    entry: Entry,
    class: Class,
    /// When it moves up; none if it never does.
    ages_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Lane {
    agents: Sfq,
    /// What it earned by being passed over, in [`FLOOR`]ths of a nanosecond.
    credit: u128,
    /// The largest cost that has waited since the lane was last empty: who has earned that much earns no
    /// more.
    largest: u64,
}

impl Queue {
    /// An empty queue in which a request moves up one class after it has waited for `ageing` in the one
    /// below.
    pub fn new(ageing: Duration) -> Self {
        Self {
            ageing,
            waiters: BTreeMap::new(),
            lanes: std::array::from_fn(|_| Lane { agents: Sfq::new(), credit: 0, largest: 0 }),
            ages: BTreeSet::new(),
            waiting: [0; 4],
            busy: None,
        }
    }

    /// Whoever comes from now on moves up after this time.
    pub fn set_ageing(&mut self, ageing: Duration) {
        self.ageing = ageing;
    }

    /// Adds a request. Tickets must grow: they are the order of arrival.
    ///
    /// # Panics
    /// If the ticket waits already.
    pub fn push(&mut self, ticket: Ticket, entry: Entry) {
        let entry = Entry { cost: entry.cost.max(1), ..entry };
        self.waiting[entry.class.index()] += 1;
        self.busy.get_or_insert((entry.since, 0));
        self.enter(ticket, entry, entry.class, entry.since);
    }

    /// Who is next: a head that is due by the floor, else the head of the highest class.
    ///
    /// Those whose agent is `over` come after all others, of whatever class; takes O(agents that are over)
    /// more.
    pub fn head(&self, over: impl Fn(AgentIndex) -> bool) -> Option<Ticket> {
        self.next(&over).or_else(|| self.next(&|_| false))
    }

    /// A request was admitted: it leaves, and its agent and its class pay for it. None if it does not wait.
    ///
    /// Meant for the [`head`](Self::head); any other is charged in the same way.
    pub fn serve(&mut self, ticket: Ticket) -> Option<Entry> {
        let Waiter { entry, class, .. } = self.leave(ticket)?;
        if let Some((_, served)) = &mut self.busy {
            *served = served.saturating_add(1);
        }
        let lane = &mut self.lanes[class.index()];
        lane.agents.serve(entry.agent, ticket, span(entry.cost, entry.weight));
        lane.credit = lane.credit.saturating_sub(in_floors(entry.cost));
        lane.forfeit();
        self.earn_below(class, entry.cost);
        Some(entry)
    }

    /// A request left unserved, as it had not been there. None if it does not wait.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Entry> {
        let Waiter { entry, class, .. } = self.leave(ticket)?;
        let lane = &mut self.lanes[class.index()];
        lane.agents.remove(entry.agent, ticket);
        lane.forfeit();
        Some(entry)
    }

    /// How many were served while others waited all the time, if that was for at least `patience` until now; else none.
    pub fn served_while_waiting(&self, patience: Duration, now: Instant) -> u32 {
        let (since, served) = self.busy.unwrap_or((now, 0));
        if now >= since + patience { served } else { 0 }
    }

    /// Whether a new request of this class that has room may be admitted before those that wait: if all of
    /// them are in lower classes, and none is due by the floor.
    pub fn may_pass(&self, class: Class) -> bool {
        if self.is_empty() {
            return true;
        }
        let (above, below) = self.lanes.split_at(class.index() + 1);
        let is_due = |lane: &Lane| lane.agents.head(|_| false).is_some_and(|head| self.is_due(lane, head));
        above.iter().all(|lane| lane.agents.is_empty()) && !below.iter().any(is_due)
    }

    /// A new request that [may pass](Self::may_pass) was admitted: its agent is charged for it, and the
    /// classes below earn.
    ///
    /// Allocates nothing for an agent that the class remembers: one that waits in it or is ahead of the others.
    pub fn passed(&mut self, class: Class, agent: AgentIndex, weight: u32, cost: u64) {
        self.lanes[class.index()].agents.charge(agent, span(cost, weight));
        self.earn_below(class, cost);
    }

    /// Moves up who has waited long enough.
    pub fn age(&mut self, now: Instant) {
        while let Some((at, ticket)) = self.ages.first().copied().filter(|(at, _)| *at <= now) {
            self.ages.pop_first();
            let Waiter { entry, class, .. } =
                self.waiters.remove(&ticket).expect("BUG! who moves up does not wait");
            let lane = &mut self.lanes[class.index()];
            lane.agents.remove(entry.agent, ticket);
            lane.forfeit();
            let above = class.above().expect("BUG! who moves up has nothing above");
            self.enter(ticket, entry, above, at);
        }
    }

    /// When [`age`](Self::age) has something to do.
    pub fn next_ageing(&self) -> Option<Instant> {
        self.ages.first().map(|(at, _)| *at)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many wait, by the [index](Class::index) of the class that they asked for.
    pub fn waiting(&self) -> [usize; 4] {
        self.waiting
    }

    /// What the agents that wait weigh together, in thousandths, by the [index](Class::index) of the class that they are in.
    pub fn weights(&self) -> [u64; 4] {
        std::array::from_fn(|class| self.lanes[class].agents.weight())
    }

    /// How many are before this request, as [`iter`](Self::iter) tells it; takes O(that many x log n).
    pub fn position(&self, ticket: Ticket) -> Option<usize> {
        self.waiters
            .contains_key(&ticket)
            .then(|| self.iter().take_while(|(other, _)| *other != ticket).count())
    }

    /// Those that wait, in order of service if nobody came, left, moved up or was over, and but for the
    /// floor.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &Entry)> {
        let entry = |ticket| &self.waiters[&ticket].entry;
        let span = move |ticket| span(entry(ticket).cost, entry(ticket).weight);
        let tickets = self.lanes.iter().flat_map(move |lane| lane.agents.iter(span));
        tickets.map(move |ticket| (ticket, entry(ticket)))
    }

    fn next(&self, over: &impl Fn(AgentIndex) -> bool) -> Option<Ticket> {
        let heads = || self.lanes.iter().filter_map(|lane| Some((lane, lane.agents.head(over)?)));
        let due = heads().find(|(lane, head)| self.is_due(lane, *head));
        due.or_else(|| heads().next()).map(|(_, head)| head)
    }

    fn is_due(&self, lane: &Lane, head: Ticket) -> bool {
        lane.credit >= in_floors(self.waiters[&head].entry.cost)
    }

    fn enter(&mut self, ticket: Ticket, entry: Entry, class: Class, since: Instant) {
        let ages_at = class.above().map(|_| since + self.ageing);
        self.ages.extend(ages_at.map(|at| (at, ticket)));
        let lane = &mut self.lanes[class.index()];
        lane.agents.push(entry.agent, ticket, entry.weight);
        lane.largest = lane.largest.max(entry.cost);
        let before = self.waiters.insert(ticket, Waiter { entry, class, ages_at });
        assert!(before.is_none(), "BUG! a ticket waits twice");
    }

    fn leave(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        waiter.ages_at.inspect(|at| assert!(self.ages.remove(&(*at, ticket)), "BUG! it would never move up"));
        self.waiting[waiter.entry.class.index()] -= 1;
        if self.waiters.is_empty() {
            self.busy = None;
        }
        Some(waiter)
    }

    fn earn_below(&mut self, class: Class, cost: u64) {
        self.lanes[class.index() + 1..].iter_mut().for_each(|lane| lane.earn(cost.max(1)));
    }
}

impl Lane {
    fn earn(&mut self, cost: u64) {
        if !self.agents.is_empty() && self.credit < in_floors(self.largest) {
            self.credit += u128::from(cost);
        }
    }

    /// What was earned for those that waited is not kept for those that may come.
    fn forfeit(&mut self) {
        if self.agents.is_empty() {
            (self.credit, self.largest) = (0, 0);
        }
    }
}

/// What has to be served from the classes above until a request of this cost is due.
fn in_floors(cost: u64) -> u128 {
    u128::from(cost) * u128::from(FLOOR)
}

#[cfg(test)]
mod tests;
