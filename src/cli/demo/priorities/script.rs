//! Who shares what: the two models and their limits, the agents, and when things go wrong.

use std::fmt::Write as _;
use std::time::Duration;

use crate::api::Priority;
use crate::cli::demo::nodes::node_name;
use crate::protocol::limit::{LimitError, Rate};

use super::{LATENESS, PER};

/// A model of the provider and what the account may use of it.
#[derive(Debug)]
pub struct Model {
    /// The pool of the nodes, too.
    pub name: &'static str,
    /// Requests a minute.
    pub rpm: u64,
    /// Requests that are admitted at once.
    pub requests_burst: u64,
    /// Tokens a minute.
    pub tpm: u64,
    /// Tokens that are admitted at once.
    pub tokens_burst: u64,
    /// Calls at the same time.
    pub max_concurrent: u64,
    /// The most that a call uses beyond what was reserved for it.
    pub overrun: u64,
}

/// Large calls fill the slots of the first one; the tokens of the second one are used up before its slots.
pub const MODELS: [Model; 2] = [
    Model {
        name: "model/large",
        rpm: 90,
        requests_burst: 30,
        tpm: 150_000,
        tokens_burst: 60_000,
        max_concurrent: 10,
        overrun: 300,
    },
    Model {
        name: "model/small",
        rpm: 120,
        requests_burst: 30,
        tpm: 30_000,
        tokens_burst: 12_000,
        max_concurrent: 8,
        overrun: 150,
    },
];

/// How many nodes there are.
pub const NODES: usize = 5;
/// How long a permit may hold a slot: longer than any call takes.
pub const SLOT_TTL: Duration = Duration::from_secs(4);

/// What asks at a node: a program with a few calls under way at the same time.
#[derive(Debug)]
pub struct Agent {
    /// What it calls itself.
    pub name: &'static str,
    /// How urgent its calls are.
    pub class: Priority,
    /// At which node; counted from 0.
    pub node: usize,
    /// Of which model; its place in [`MODELS`].
    pub model: usize,
    /// How many calls it makes at the same time.
    pub seats: usize,
    /// How long it rests between two calls, in milliseconds.
    pub rests: [f64; 2],
    /// How long a call takes, in milliseconds.
    pub takes: [f64; 2],
    /// Tokens that it reserves for a call.
    pub reserves: [f64; 2],
}

/// The most urgent first.
pub const AGENTS: [Agent; 8] = [
    Agent { seats: 2, rests: [400.0, 1_300.0], ..chat(0, 0) },
    Agent { seats: 2, rests: [400.0, 1_300.0], ..chat(1, 1) },
    Agent { seats: 2, takes: [400.0, 900.0], reserves: [800.0, 1_600.0], ..worker(1, 0) },
    Agent { seats: 2, takes: [200.0, 500.0], reserves: [400.0, 800.0], ..worker(2, 1) },
    Agent { seats: 5, takes: [600.0, 1_400.0], reserves: [1_500.0, 3_000.0], ..batch(2, 0) },
    Agent { seats: 5, takes: [600.0, 1_400.0], reserves: [1_500.0, 3_000.0], ..batch(3, 0) },
    Agent { seats: 5, takes: [600.0, 1_400.0], reserves: [1_500.0, 3_000.0], ..batch(4, 0) },
    Agent { seats: 6, takes: [300.0, 700.0], reserves: [700.0, 1_500.0], ..batch(0, 1) },
];
/// The agent that crashes, and comes back [`BACK_AFTER`] later.
pub const CRASHES: usize = 5;
/// How long a crashed agent is gone.
pub const BACK_AFTER: Duration = Duration::from_millis(2_500);
/// The agent whose node is killed.
pub const LOSES_NODE: usize = 6;

/// The classes that agents have, the most urgent first.
pub const CLASSES: [Priority; 3] = [Priority::Critical, Priority::Normal, Priority::Low];

/// One call in so many uses more than was reserved for it.
const OVERRUNS: f64 = 1.0 / 8.0;
/// What a call uses of what was reserved for it, if it is not more.
const USES: [f64; 2] = [0.4, 1.0];

const fn chat(node: usize, model: usize) -> Agent {
    let (takes, reserves) = ([150.0, 350.0], [300.0, 600.0]);
    Agent { name: "chat", class: Priority::Critical, node, model, seats: 1, rests: [0.0; 2], takes, reserves }
}

const fn worker(node: usize, model: usize) -> Agent {
    Agent { name: "worker", class: Priority::Normal, rests: [50.0, 400.0], ..chat(node, model) }
}

const fn batch(node: usize, model: usize) -> Agent {
    Agent { name: "batch", class: Priority::Low, ..chat(node, model) }
}

impl Agent {
    /// What it calls itself, and where it is.
    pub fn full_name(&self) -> String {
        format!("{} on {}", self.name, node_name(self.node))
    }
}

impl Model {
    /// The limits on requests and on tokens, as the provider has them.
    ///
    /// # Errors
    /// The numbers are out of bounds.
    pub fn rates(&self) -> Result<[Rate; 2], LimitError> {
        Ok([Rate::new(self.rpm, PER, self.requests_burst)?, Rate::new(self.tpm, PER, self.tokens_burst)?])
    }

    /// What calls use beyond what was reserved for `reserved` tokens, if they do.
    pub fn most_used(&self, reserved: u64) -> u64 {
        reserved + (reserved / 10).min(self.overrun)
    }

    /// What a call really uses, where two numbers from 0 up to 1 were drawn.
    pub fn used(&self, reserved: u64, [more, how_much]: [f64; 2]) -> u64 {
        if more < OVERRUNS {
            return self.most_used(reserved);
        }
        let [low, high] = USES;
        (reserved as f64 * (low + (high - low) * how_much)) as u64
    }

    /// The bursts of the nodes' pool: the provider's, less what late calls need, and of the tokens less what the calls
    /// that run at the same time may owe.
    fn pool_bursts(&self) -> [u64; 2] {
        let late = |amount: u64| (u128::from(amount) * LATENESS.as_nanos()).div_ceil(PER.as_nanos()) as u64;
        let owed = self.max_concurrent * self.overrun;
        [self.requests_burst - late(self.rpm), self.tokens_burst - late(self.tpm) - owed]
    }
}

/// The pools of the nodes, as their configuration has them.
pub fn pools() -> String {
    let mut config = String::new();
    for model in &MODELS {
        let (name, slots, per) = (model.name, model.max_concurrent, PER.as_millis());
        let ttl = SLOT_TTL.as_millis();
        let _ = writeln!(config, "[[pool]]\nname = \"{name}\"");
        let _ = writeln!(config, "max_concurrent = {{ amount = {slots}, ttl = \"{ttl}ms\" }}");
        let [requests, tokens] = model.pool_bursts();
        for (limit, unit, amount, burst) in
            [("rpm", "requests", model.rpm, requests), ("tpm", "tokens", model.tpm, tokens)]
        {
            let _ = writeln!(config, "[[pool.limit]]\nname = \"{limit}\"\nunit = \"{unit}\"");
            let _ = writeln!(config, "amount = {amount}\nper = \"{per}ms\"\nburst = {burst}");
        }
    }
    config
}

/// When things happen. Times count from the start of the load.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// When an agent crashes.
    pub crash: Duration,
    /// When a node is killed.
    pub kill: Duration,
    /// When agents stop to ask.
    pub end: Duration,
}

impl Plan {
    /// The act in proportion to the first one, whose systems are under load for `length`.
    pub fn new(length: Duration) -> Self {
        let end = (length * 12 / 7).max(Duration::from_secs(16));
        // What a killed node held is back within 7 s: 3 until the others take over its share, and the slots' time to live.
        let kill = (end * 5 / 12).min(end.saturating_sub(Duration::from_secs(9)));
        Self { crash: kill / 2, kill, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::{Config, Overrides};

    #[test]
    fn calls_end_before_their_slots_do() {
        for agent in &AGENTS {
            assert!(agent.takes[1] * 2.0 < SLOT_TTL.as_secs_f64() * 1e3, "{agent:?}");
        }
    }

    #[test]
    fn a_call_uses_at_most_what_the_pool_leaves_room_for() {
        for agent in &AGENTS {
            let model = &MODELS[agent.model];
            let reserved = agent.reserves[1] as u64;
            assert_eq!(model.used(reserved, [0.0, 0.0]), model.most_used(reserved));
            assert!(model.most_used(reserved) - reserved <= model.overrun, "{agent:?}");
            assert!(model.used(reserved, [0.9, 0.999]) <= reserved);
        }
    }

    #[test]
    fn the_pools_are_a_good_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("demo.toml");
        std::fs::write(&file, pools()).unwrap();
        let config = Config::load(Some(&file), &Overrides::default()).unwrap();
        assert_eq!(config.pools.len(), MODELS.len());
        assert!(config.pools.iter().all(|pool| pool.pool.limits().len() == 3));
    }

    #[test]
    fn what_a_killed_node_held_is_back_before_the_end() {
        for seconds in [4, 14, 600] {
            let Plan { crash, kill, end } = Plan::new(Duration::from_secs(seconds));
            assert!(crash + BACK_AFTER < kill, "{seconds}");
            assert!(kill + Duration::from_secs(3) + SLOT_TTL < end, "{seconds}");
        }
    }
}
