//! Start-time fair queueing: the order between the agents of one class.
//!
//! After P. Goyal, H. Vin, H. Cheng, "Start-time fair queueing", SIGCOMM 1996. A request's start tag is the
//! later of the virtual time and its agent's last finish tag; its finish tag is the start tag plus cost over
//! weight; the lowest start tag is served next, and virtual time is the start tag of what was served last.
//! Among equal tags the longest waiting goes first.
//!
//! An agent's requests are served in order of arrival, so only its first one needs a start tag: the next
//! one's is the finish tag of the one before. So there is one tag for each agent, and a request that leaves
//! unserved moves none.
//!
//! **Fair.** Let two agents *f* and *m* wait all through an interval in which virtual time goes from *u* to
//! *v*. The start tags of what *f* is served in it are a chain without gaps (each is the finish tag before
//! it), the first one at most one request after *u* and the last finish at most one request after *v*, so its
//! work over its weight is *v - u* give or take its largest request over its weight. The same holds for *m*;
//! hence `|W_f/w_f - W_m/w_m| <= c_f/w_f + c_m/w_m`, whatever the rate at which the limit lets requests
//! through and however it varies.
//!
//! **No credit for silence.** A start tag is never before the virtual time, neither when an agent begins to
//! wait nor when it is served after it was passed over.
//!
//! **Bounded.** An agent that does not wait and whose finish tag is not after the virtual time is like one
//! never seen. Such accounts are swept out after about as many changes as there are accounts, so sweeping
//! costs O(1) per change; of the others at most [`IDLE_MAX`] outlive a sweep, those with the latest tags.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound::{Excluded, Unbounded};

use super::Ticket;
use crate::protocol::agents::AgentIndex;

/// How many agents that do not wait are remembered, in each class, because they are ahead of the others.
pub(super) const IDLE_MAX: usize = 1024;

/// The least number of changes between two sweeps.
const SWEEP_MIN: usize = 64;

/// Service over weight, in [`SCALE`]ths of a nanosecond for each thousandth of a weight. Good for 2⁴⁴
/// requests of the largest cost at the least weight; it saturates there.
type Tag = u128;

/// So fine that rounding is nothing to the largest weight (one million thousandths).
const SCALE: u128 = 1_000_000;

/// The service over weight that a request is. Nothing is free, or its agent would stay first for ever.
pub(super) fn span(cost: u64, weight: u32) -> Tag {
    u128::from(cost.max(1)) * SCALE / u128::from(weight.max(1))
}

/// The agents that wait in one class, and those that are ahead of them.
#[derive(Clone, Debug)]
pub(super) struct Sfq {
    time: Tag,
    accounts: BTreeMap<AgentIndex, Account>,
    /// The first request of every agent that waits.
    order: BTreeSet<First>,
    /// What the agents that wait weigh together.
    weight: u64,
    changes_until_sweep: usize,
}

/// Start tag, ticket, agent: in order of service.
type First = (Tag, Ticket, AgentIndex);

#[derive(Clone, Debug, Default)]
struct Account {
    /// The start tag of the first ticket; without tickets, the finish tag of what was served last.
    tag: Tag,
    tickets: BTreeSet<Ticket>,
    weight: u32,
}

impl Account {
    fn first(&self, agent: AgentIndex) -> Option<First> {
        self.tickets.first().map(|ticket| (self.tag, *ticket, agent))
    }

    fn charge(&mut self, span: Tag, time: &mut Tag) {
        *time = self.tag.max(*time);
        self.tag = time.saturating_add(span);
    }
}

impl Sfq {
    pub fn new() -> Self {
        Self {
            time: 0,
            accounts: BTreeMap::new(),
            order: BTreeSet::new(),
            weight: 0,
            changes_until_sweep: SWEEP_MIN,
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// What the agents that wait weigh together, in thousandths.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    pub fn push(&mut self, agent: AgentIndex, ticket: Ticket, weight: u32) {
        self.change(agent, |account, time| {
            if account.tickets.is_empty() {
                account.tag = account.tag.max(*time);
            }
            account.tickets.insert(ticket);
            account.weight = weight;
        });
    }

    /// The next request of an agent that is not `over`.
    pub fn head(&self, over: impl Fn(AgentIndex) -> bool) -> Option<Ticket> {
        self.order.iter().find(|(_, _, agent)| !over(*agent)).map(|(_, ticket, _)| *ticket)
    }

    /// A waiting request was served.
    pub fn serve(&mut self, agent: AgentIndex, ticket: Ticket, span: Tag) {
        self.change(agent, |account, time| {
            account.tickets.remove(&ticket);
            account.charge(span, time);
        });
    }

    /// A request was served that did not wait.
    pub fn charge(&mut self, agent: AgentIndex, span: Tag) {
        self.change(agent, |account, time| account.charge(span, time));
    }

    /// A waiting request left unserved.
    pub fn remove(&mut self, agent: AgentIndex, ticket: Ticket) {
        self.change(agent, |account, _| {
            account.tickets.remove(&ticket);
        });
    }

    /// The tickets in the order in which they would be served if nothing changed, `span` being what each is
    /// charged.
    pub fn iter<'a>(&'a self, span: impl Fn(Ticket) -> Tag + 'a) -> impl Iterator<Item = Ticket> + 'a {
        let mut firsts = self.order.iter().copied().peekable();
        let mut later: BinaryHeap<Reverse<First>> = BinaryHeap::new();
        let mut time = self.time;
        std::iter::from_fn(move || {
            let is_first = match (firsts.peek(), later.peek()) {
                (Some(first), Some(Reverse(later))) => first < later,
                (first, _) => first.is_some(),
            };
            let (tag, ticket, agent) = if is_first { firsts.next()? } else { later.pop()?.0 };
            time = time.max(tag);
            let next = self.accounts[&agent].tickets.range((Excluded(ticket), Unbounded)).next();
            later.extend(next.map(|next| Reverse((time.saturating_add(span(ticket)), *next, agent))));
            Some(ticket)
        })
    }

    fn change(&mut self, agent: AgentIndex, change: impl FnOnce(&mut Account, &mut Tag)) {
        let account = self.accounts.entry(agent).or_default();
        let before = account.first(agent);
        self.weight -= before.map_or(0, |_| u64::from(account.weight));
        change(account, &mut self.time);
        let after = account.first(agent);
        self.weight += after.map_or(0, |_| u64::from(account.weight));
        if before != after {
            before.inspect(|first| assert!(self.order.remove(first), "BUG! an agent that waits has no turn"));
            self.order.extend(after);
        }
        self.changes_until_sweep -= 1;
        if self.changes_until_sweep == 0 {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let time = self.time;
        self.accounts.retain(|_, account| !account.tickets.is_empty() || account.tag > time);
        let excess = (self.accounts.len() - self.order.len()).saturating_sub(IDLE_MAX);
        if excess > 0 {
            let idle = self.accounts.iter().filter(|(_, account)| account.tickets.is_empty());
            let mut idle: Vec<_> = idle.map(|(agent, account)| (account.tag, *agent)).collect();
            idle.select_nth_unstable(excess - 1);
            idle[..excess].iter().for_each(|(_, agent)| drop(self.accounts.remove(agent)));
        }
        self.changes_until_sweep = SWEEP_MIN + self.accounts.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(sfq: &Sfq, cost: u64) -> Vec<u64> {
        sfq.iter(|_| span(cost, 1_000)).map(|ticket| ticket.0).collect()
    }

    #[test]
    fn agents_take_turns_and_their_own_come_in_order() {
        let mut sfq = Sfq::new();
        [(0, 1), (0, 2), (0, 3), (1, 4), (1, 5)]
            .iter()
            .for_each(|(agent, ticket)| sfq.push(AgentIndex(*agent), Ticket(*ticket), 1_000));
        assert_eq!(order(&sfq, 10), [1, 4, 2, 5, 3]);
        sfq.remove(AgentIndex(0), Ticket(1));
        assert_eq!(order(&sfq, 10), [2, 4, 3, 5], "who leaves unserved is not charged");
    }

    #[test]
    fn silence_earns_no_credit_and_debt_outlives_it() {
        let (busy, silent) = (AgentIndex(0), AgentIndex(1));
        let mut sfq = Sfq::new();
        (0..1_000).for_each(|_| sfq.charge(busy, span(10, 1_000)));
        (1..=3).for_each(|ticket| sfq.push(busy, Ticket(ticket), 1_000));
        (4..=9).for_each(|ticket| sfq.push(silent, Ticket(ticket), 1_000));
        assert_eq!(order(&sfq, 10), [4, 1, 5, 2, 6, 3, 7, 8, 9]);
        (1..=3).for_each(|ticket| sfq.remove(busy, Ticket(ticket)));
        sfq.push(busy, Ticket(10), 1_000);
        assert_eq!(order(&sfq, 10)[..3], [4, 5, 10], "leaving and returning changes nothing");
    }

    #[test]
    fn who_was_passed_over_does_not_catch_up_all_at_once() {
        let (over, under) = (AgentIndex(0), AgentIndex(1));
        let mut sfq = Sfq::new();
        (1..=20).for_each(|ticket| sfq.push(over, Ticket(ticket), 1_000));
        (21..=60).for_each(|ticket| sfq.push(under, Ticket(ticket), 1_000));
        for _ in 0..30 {
            let ticket = sfq.head(|agent| agent == over).unwrap();
            sfq.serve(under, ticket, span(10, 1_000));
        }
        assert_eq!(order(&sfq, 10)[..6], [1, 2, 51, 3, 52, 4]);
    }

    #[test]
    fn agents_that_no_longer_matter_are_forgotten() {
        let mut sfq = Sfq::new();
        for round in 0..100_000_u32 {
            // Each asks once and never returns; virtual time stands still, so all of them are ahead.
            sfq.charge(AgentIndex(round), span(10, 1_000));
        }
        assert!(sfq.accounts.len() <= 2 * (IDLE_MAX + SWEEP_MIN), "{}", sfq.accounts.len());
        for _ in 0..=2 * (IDLE_MAX + SWEEP_MIN) {
            sfq.charge(AgentIndex(0), span(10, 1_000));
        }
        assert!(sfq.accounts.len() <= SWEEP_MIN, "{}", sfq.accounts.len());
    }

    proptest! {
        /// Goyal et al., theorem 1, over every interval, while a third agent comes and goes.
        #[test]
        fn two_that_wait_are_served_by_weight(
            weights in [1_u32..=1_000_000, 1..=1_000_000, 1..=1_000_000],
            costs in proptest::collection::vec((1_u64..1 << 40, 1_u64..1 << 40, 0_u64..1 << 40), 1..60),
        ) {
            let mut sfq = Sfq::new();
            let mut tickets = BTreeMap::new();
            let mut number = 0;
            let mut push = |sfq: &mut Sfq, tickets: &mut BTreeMap<_, _>, agent: u32, cost| {
                number += 1;
                tickets.insert(Ticket(number), (agent, span(cost, weights[agent as usize])));
                sfq.push(AgentIndex(agent), Ticket(number), 1_000);
            };
            for (first, second, _) in &costs {
                push(&mut sfq, &mut tickets, 0, *first);
                push(&mut sfq, &mut tickets, 1, *second);
            }
            let mut left = [costs.len(); 2];
            let (mut served, mut largest) = ([0_i128; 2], [0_i128; 2]);
            let (mut least, mut most) = (0, 0);
            for step in 0.. {
                if let Some((_, _, cost @ 1..)) = costs.get(step) {
                    push(&mut sfq, &mut tickets, 2, *cost);
                }
                let ticket = sfq.head(|_| false).unwrap();
                let (agent, span) = tickets[&ticket];
                sfq.serve(AgentIndex(agent), ticket, span);
                if agent == 2 {
                    continue;
                }
                let place = agent as usize;
                served[place] += span as i128;
                largest[place] = largest[place].max(span as i128);
                left[place] -= 1;
                least = least.min(served[0] - served[1]);
                most = most.max(served[0] - served[1]);
                prop_assert!(most - least <= largest[0] + largest[1]);
                if left[place] == 0 {
                    break;
                }
            }
        }

        #[test]
        fn the_listing_is_what_happens(
            pushes in proptest::collection::vec((0_u32..5, 1_u64..100), 1..60),
            passed in 0_u32..5,
        ) {
            let mut sfq = Sfq::new();
            sfq.charge(AgentIndex(passed), span(70, 1_000));
            pushes.iter().enumerate().for_each(|(i, (agent, _))| sfq.push(AgentIndex(*agent), Ticket(i as u64), 1_000));
            let span = |ticket: Ticket| span(pushes[ticket.0 as usize].1, 1_000);
            let listed: Vec<_> = sfq.iter(span).collect();
            let mut served = Vec::new();
            while let Some(ticket) = sfq.head(|_| false) {
                sfq.serve(AgentIndex(pushes[ticket.0 as usize].0), ticket, span(ticket));
                served.push(ticket);
            }
            prop_assert_eq!(listed, served);
        }
    }
}
