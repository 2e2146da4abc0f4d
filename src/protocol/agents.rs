//! Who asks, by name: what the rules say of each agent, and what it used lately.
//!
//! An agent is known from the first time that its name is heard. At most [`AGENTS_MAX`] names of [`NAME_MAX`]
//! bytes are known at a time, with one record of use for each pool; beyond that, the agent that has been idle
//! longest is forgotten, and with it what it used. An agent with waiting requests or permits is *held* and
//! never forgotten; should all be held, further names share one index, [`OTHERS`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use self::usage::Usage;
pub use self::usage::WINDOW;
use super::limit::NAME_MAX;
use super::recency::Recency;
use super::time::Instant;

mod glob;
mod usage;

/// An agent, as long as it is known. The index of a forgotten agent is given to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentIndex(pub u32);

/// Those that came when all of [`AGENTS_MAX`] agents were held. No rule is about them.
pub const OTHERS: AgentIndex = AgentIndex(0);

/// The most agents that are known at a time.
pub const AGENTS_MAX: usize = 65_536;
/// The most rules.
pub const RULES_MAX: usize = 256;
/// The weight of an agent that no rule names: 1.0 in thousandths.
pub const WEIGHT_DEFAULT: u32 = 1_000;
/// The largest weight, in thousandths.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// The largest part, in millionths: all of a limit.
pub const SHARE_MAX: u32 = 1_000_000;

/// What holds for the agents whose name matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRule {
    /// Up to [`NAME_MAX`] bytes. `*` stands for any text, `?` for any one character.
    pub matches: String,
    /// Thousandths: an agent of weight 2,000 gets twice what one of 1,000 gets when both want more. 1 to
    /// [`WEIGHT_MAX`].
    pub weight: u32,
    /// The part of a limit that an agent may use while others want it, in millionths: 1 to [`SHARE_MAX`].
    /// None is no bound.
    pub max_share: Option<u32>,
    /// The place of the keyed pool of their own limits, one key for each name.
    pub own_limits: Option<usize>,
}

/// Why rules were refused. `rule` is the place of the rule, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgentError {
    /// More than [`RULES_MAX`] rules.
    #[error("there are {0} agent rules, at most {RULES_MAX} are possible; use patterns to join some")]
    Count(usize),
    /// The pattern is longer than any name, or holds a control character.
    #[error("match of agent rule {rule} must be at most {NAME_MAX} bytes without control characters")]
    Match {
        /// Which.
        rule: usize,
    },
    /// The weight is outside 1 to [`WEIGHT_MAX`].
    #[error("weight of agent rule {rule} is {weight} thousandths, must be from 1 to {WEIGHT_MAX}")]
    Weight {
        /// Which.
        rule: usize,
        /// Thousandths.
        weight: u32,
    },
    /// The part is outside 1 to [`SHARE_MAX`].
    #[error("max_share of agent rule {rule} is {share} millionths, must be from 1 to {SHARE_MAX}")]
    MaxShare {
        /// Which.
        rule: usize,
        /// Millionths.
        share: u32,
    },
}

/// One line of [`Agents::top`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopAgent<'a> {
    /// Its name.
    pub name: &'a str,
    /// The part of the limit that it used lately, in millionths.
    pub share: u32,
    /// How many of its requests were admitted since it is known.
    pub admitted: u64,
    /// What they cost: nanoseconds of the whole limit.
    pub cost: u64,
}

/// The agents of one node.
#[derive(Clone, Debug)]
pub struct Agents {
    rules: Vec<AgentRule>,
    // A tree: its order is the same everywhere, and no choice of names makes it slow.
    names: BTreeMap<Arc<str>, AgentIndex>,
    /// By index; the first are the [`OTHERS`].
    agents: Vec<Agent>,
    /// Those that nobody holds.
    idle: Recency,
    /// Who was asked for last, and is likely to be again.
    latest: AgentIndex,
}

#[derive(Clone, Debug)]
struct Agent {
    name: Arc<str>,
    weight: u32,
    max_share: Option<u32>,
    held: u32,
    /// By pool, in their order: agents use few of many.
    records: Vec<(usize, Record)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    usage: Usage,
    admitted: u64,
    cost: u64,
}

impl Default for Agents {
    /// Nobody yet, and no rules.
    fn default() -> Self {
        Self::new(Vec::new()).expect("BUG! no rule is a wrong rule")
    }
}

impl Agents {
    /// Nobody yet. Of the rules, the first that matches a name holds.
    ///
    /// # Errors
    /// Too many rules, or a number outside its bounds: see [`AgentError`].
    pub fn new(rules: Vec<AgentRule>) -> Result<Self, AgentError> {
        check(&rules)?;
        let others = Agent::new("(others)", WEIGHT_DEFAULT, None);
        Ok(Self { rules, names: BTreeMap::new(), agents: vec![others], idle: Recency::new(), latest: OTHERS })
    }

    /// The index of the agent with this name, which may be empty; what is longer than [`NAME_MAX`] bytes is
    /// cut off. Unless it is [held](Self::hold), it is good until the next name comes. Allocates nothing for
    /// a known name.
    pub fn intern(&mut self, name: &str) -> AgentIndex {
        let name = cut(name);
        // Nobody is called as the others are shown: they are never the latest.
        let is_latest = self.latest != OTHERS && &*self.agents[place(self.latest)].name == name;
        let known = if is_latest { Some(self.latest) } else { self.names.get(name).copied() };
        if let Some(index) = known {
            self.latest = index;
            if self.agents[place(index)].held == 0 {
                self.idle.push(index.0);
            }
            return index;
        }
        let (weight, max_share) = numbers(&self.rules, name);
        let agent = Agent::new(name, weight, max_share);
        let index = if self.agents.len() <= AGENTS_MAX {
            AgentIndex(self.agents.len() as u32)
        } else if let Some(idle) = self.idle.first() {
            self.forget(AgentIndex(idle));
            AgentIndex(idle)
        } else {
            return OTHERS;
        };
        self.names.insert(agent.name.clone(), index);
        match self.agents.get_mut(place(index)) {
            Some(forgotten) => *forgotten = agent,
            None => self.agents.push(agent),
        }
        self.idle.push(index.0);
        index
    }

    /// Other rules hold from now on, also for the agents that are known; what these used stays known. Takes some tens of
    /// nanoseconds for every agent and rule.
    ///
    /// # Errors
    /// As [`new`](Self::new); nothing is changed then.
    pub fn set_rules(&mut self, rules: Vec<AgentRule>) -> Result<(), AgentError> {
        check(&rules)?;
        self.rules = rules;
        for agent in self.agents.iter_mut().skip(place(OTHERS) + 1) {
            (agent.weight, agent.max_share) = numbers(&self.rules, &agent.name);
        }
        Ok(())
    }

    /// A request of the agent begins to wait, or a permit of it is out: it is not forgotten until it was
    /// [let go](Self::let_go) as often.
    pub fn hold(&mut self, index: AgentIndex) {
        let agent = &mut self.agents[place(index)];
        agent.held += 1;
        if agent.held == 1 {
            self.idle.remove(index.0);
        }
    }

    /// The opposite of [`hold`](Self::hold).
    ///
    /// # Panics
    /// If it is not held.
    pub fn let_go(&mut self, index: AgentIndex) {
        let agent = &mut self.agents[place(index)];
        agent.held = agent.held.checked_sub(1).expect("BUG! an agent is let go that is not held");
        if agent.held == 0 && index != OTHERS {
            self.idle.push(index.0);
        }
    }

    /// The place of the keyed pool of an agent's own limits, if its rule has any.
    pub fn own_limits(&self, name: &str) -> Option<usize> {
        self.rules.iter().find(|rule| glob::matches(&rule.matches, name))?.own_limits
    }

    /// How many are known, besides the [`OTHERS`].
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The agent's name.
    pub fn name(&self, index: AgentIndex) -> &str {
        &self.agents[place(index)].name
    }

    /// The agent's weight in thousandths.
    pub fn weight(&self, index: AgentIndex) -> u32 {
        self.agents[place(index)].weight
    }

    /// A request of the agent was admitted, which takes the whole limit so many nanoseconds to earn.
    pub fn admitted(&mut self, index: AgentIndex, pool: usize, cost: u64, now: Instant) {
        let records = &mut self.agents[place(index)].records;
        let at = records.binary_search_by_key(&pool, |(pool, _)| *pool).unwrap_or_else(|at| {
            records.insert(at, (pool, Record::default()));
            at
        });
        let (_, record) = &mut records[at];
        record.usage.add(cost, now);
        record.admitted = record.admitted.saturating_add(1);
        record.cost = record.cost.saturating_add(cost);
    }

    /// The part of the pool's limit that the agent used lately, in millionths: in an exponential window of
    /// [`WINDOW`]. It may exceed the whole after a burst.
    pub fn share_of(&self, index: AgentIndex, pool: usize, now: Instant) -> u32 {
        self.usage(index, pool).share(now)
    }

    /// Whether the agent used more than its rule grants it while others want it.
    pub fn is_over(&self, index: AgentIndex, pool: usize, now: Instant) -> bool {
        let max_share = self.agents[place(index)].max_share;
        max_share.is_some_and(|max_share| self.share_of(index, pool, now) > max_share)
    }

    /// When the agent is no longer [over](Self::is_over) if it uses nothing meanwhile; none if it is not.
    pub fn over_until(&self, index: AgentIndex, pool: usize, now: Instant) -> Option<Instant> {
        self.usage(index, pool).falls_to(self.agents[place(index)].max_share?, now)
    }

    /// Up to `n` agents that used most of the pool's limit lately, the greatest first. Takes O(agents).
    pub fn top(&self, pool: usize, n: usize, now: Instant) -> Vec<TopAgent<'_>> {
        let rank = |index| {
            let record = self.record(index, pool)?;
            Some((Reverse(record.usage.share(now)), Reverse(record.cost), index, record.admitted))
        };
        let mut top: Vec<_> = (0..self.agents.len() as u32).map(AgentIndex).filter_map(rank).collect();
        if n < top.len() {
            top.select_nth_unstable(n);
            top.truncate(n);
        }
        top.sort_unstable();
        let line = |(Reverse(share), Reverse(cost), index, admitted)| TopAgent {
            name: self.name(index),
            share,
            admitted,
            cost,
        };
        top.into_iter().map(line).collect()
    }

    fn usage(&self, index: AgentIndex, pool: usize) -> Usage {
        self.record(index, pool).map_or_else(Usage::default, |record| record.usage)
    }

    fn record(&self, index: AgentIndex, pool: usize) -> Option<&Record> {
        let records = &self.agents[place(index)].records;
        records.binary_search_by_key(&pool, |(pool, _)| *pool).ok().map(|at| &records[at].1)
    }

    fn forget(&mut self, index: AgentIndex) {
        self.names.remove(&self.agents[place(index)].name);
        self.idle.remove(index.0);
    }
}

impl Agent {
    fn new(name: &str, weight: u32, max_share: Option<u32>) -> Self {
        Self { name: name.into(), weight, max_share, held: 0, records: Vec::new() }
    }
}

/// The weight and the largest share that the rules say of an agent.
fn numbers(rules: &[AgentRule], name: &str) -> (u32, Option<u32>) {
    let rule = rules.iter().find(|rule| glob::matches(&rule.matches, name));
    rule.map_or((WEIGHT_DEFAULT, None), |rule| (rule.weight, rule.max_share))
}

fn cut(name: &str) -> &str {
    if name.len() <= NAME_MAX {
        return name;
    }
    let end = (0..=NAME_MAX).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

fn place(index: AgentIndex) -> usize {
    index.0 as usize
}

fn check(rules: &[AgentRule]) -> Result<(), AgentError> {
    if rules.len() > RULES_MAX {
        return Err(AgentError::Count(rules.len()));
    }
    for (rule, AgentRule { matches, weight, max_share, .. }) in (1..).zip(rules) {
        if matches.len() > NAME_MAX || matches.chars().any(char::is_control) {
            return Err(AgentError::Match { rule });
        }
        if !(1..=WEIGHT_MAX).contains(weight) {
            return Err(AgentError::Weight { rule, weight: *weight });
        }
        if let Some(share) = max_share.filter(|share| !(1..=SHARE_MAX).contains(share)) {
            return Err(AgentError::MaxShare { rule, share });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn rule(matches: &str, weight: u32, max_share: Option<u32>) -> AgentRule {
        AgentRule { matches: matches.to_owned(), weight, max_share, own_limits: None }
    }

    #[test]
    fn the_first_rule_that_matches_holds() {
        let rules = vec![rule("boss", 5_000, None), rule("b*", 2_000, None), rule("", 10, None)];
        let mut agents = Agents::new(rules).unwrap();
        let weights = ["boss", "bot-7", "", "x"].map(|name| {
            let index = agents.intern(name);
            (agents.name(index).to_owned(), agents.weight(index))
        });
        assert_eq!(
            weights,
            [("boss", 5_000), ("bot-7", 2_000), ("", 10), ("x", 1_000)].map(|(name, w)| (name.to_owned(), w))
        );
        assert_eq!((agents.intern("boss"), agents.len()), (AgentIndex(1), 4));
    }

    #[test]
    fn rules_outside_their_bounds_are_named() {
        let refused = |bad| Agents::new(vec![rule("*", 1, Some(1)), bad]).unwrap_err();
        assert_eq!(refused(rule("*", 0, None)), AgentError::Weight { rule: 2, weight: 0 });
        assert_eq!(
            refused(rule("*", 1, Some(1_000_001))),
            AgentError::MaxShare { rule: 2, share: 1_000_001 }
        );
        assert_eq!(refused(rule(&"x".repeat(129), 1, None)), AgentError::Match { rule: 2 });
        assert_eq!(Agents::new(vec![rule("*", 1, None); 257]).unwrap_err(), AgentError::Count(257));
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let mut agents = Agents::new(Vec::new()).unwrap();
        let index = agents.intern(&format!("{}ü", "x".repeat(127)));
        assert_eq!(agents.name(index), "x".repeat(127));
        assert_eq!(agents.intern(&"x".repeat(127)), index);
    }

    #[test]
    fn who_used_too_much_is_over_until_it_faded() {
        let mut agents = Agents::new(vec![rule("r-*", 1_000, Some(400_000))]).unwrap();
        let (greedy, free) = (agents.intern("r-1"), agents.intern("free"));
        // Thirty seconds of the whole limit at once: half of the window.
        [greedy, free].iter().for_each(|index| agents.admitted(*index, 3, 30_000_000_000, at(100)));
        assert_eq!((agents.share_of(greedy, 3, at(100)), agents.share_of(greedy, 2, at(100))), (500_000, 0));
        assert!(agents.is_over(greedy, 3, at(100)) && !agents.is_over(free, 3, at(100)));
        assert!(!agents.is_over(greedy, 2, at(100)), "each pool for itself");
        let until = agents.over_until(greedy, 3, at(100)).unwrap();
        assert!(!agents.is_over(greedy, 3, until));
        assert!(agents.is_over(greedy, 3, until - Duration::from_millis(2)));
        // 60 s x ln(5 / 4)
        assert_eq!(until.since(at(100)).as_millis(), 13_389);
        assert_eq!((agents.over_until(greedy, 3, until), agents.over_until(free, 3, at(100))), (None, None));
    }

    #[test]
    fn the_greatest_are_on_top() {
        let mut agents = Agents::new(Vec::new()).unwrap();
        for (name, cost) in [("a", 6_000_000_000), ("b", 18_000_000_000), ("c", 6_000_000_000), ("d", 1)] {
            let index = agents.intern(name);
            agents.admitted(index, 0, cost, at(1));
        }
        let top: Vec<_> =
            agents.top(0, 3, at(1)).iter().map(|agent| (agent.name, agent.share, agent.admitted)).collect();
        assert_eq!(top, [("b", 300_000, 1), ("a", 100_000, 1), ("c", 100_000, 1)]);
        assert_eq!((agents.top(0, 9, at(1)).len(), agents.top(7, 9, at(1)).len()), (4, 0));
    }

    #[test]
    fn at_the_bound_the_longest_idle_is_forgotten_and_who_is_held_is_not() {
        let mut agents = Agents::new(vec![rule("*", 7, None)]).unwrap();
        for number in 0..AGENTS_MAX {
            agents.intern(&number.to_string());
        }
        let (zero, one) = (agents.intern("0"), AgentIndex(2));
        agents.hold(one);
        agents.admitted(AgentIndex(3), 0, 1_000_000_000, at(1));
        let new = agents.intern("new");
        assert_eq!((new, agents.len()), (AgentIndex(3), AGENTS_MAX), "0 was heard again, 1 is held");
        assert_eq!((agents.name(new), agents.share_of(new, 0, at(1))), ("new", 0), "nothing is inherited");
        assert_eq!((agents.intern("0"), agents.name(one)), (zero, "1"));

        let all: Vec<_> = (1..=AGENTS_MAX as u32).map(AgentIndex).collect();
        all.iter().for_each(|index| agents.hold(*index));
        let others = agents.intern("late");
        assert_eq!((others, agents.weight(others), agents.intern("later")), (OTHERS, WEIGHT_DEFAULT, OTHERS));
        agents.hold(others);
        agents.let_go(others);
        agents.let_go(one);
        assert_eq!(agents.intern("late"), OTHERS, "held twice, let go once");
        agents.let_go(one);
        assert_eq!(agents.intern("late"), one);
    }
}
