//! The configuration as it is written, before anything is checked but names and types.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::access::AccessSection;
use super::listen::ListenSection;
use super::problem::{ConfigError, Place, Set};
use super::rls::RlsSection;
use super::shorthand::{self, shorthand};
use super::source::{Entry, Source, has};

mod limit;

pub(super) use limit::{KindSection, LimitSection};

/// Everything that a file says.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub node: NodeSection,
    pub swarm: SwarmSection,
    pub access: AccessSection,
    pub listen: ListenSection,
    pub pools: Vec<PoolSection>,
    pub agents: Vec<AgentSection>,
    pub rls: Vec<RlsSection>,
}

#[derive(Debug, Default)]
pub(super) struct NodeSection {
    pub name: Option<Set<String>>,
    pub data_dir: Option<PathBuf>,
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct SwarmSection {
    pub gossip: Option<Set<String>>,
    pub seeds: Vec<Set<String>>,
    pub key_file: Option<PathBuf>,
    pub policy: Option<Set<String>>,
    pub forget_after: Option<Set<Duration>>,
    pub discover: Option<Set<String>>,
    pub auto_vouch: Option<Set<f64>>,
    pub trust: Option<Set<String>>,
    pub founders: Vec<FounderSection>,
}

#[derive(Debug)]
pub(super) struct FounderSection {
    pub place: Place,
    pub id: Option<Set<String>>,
    pub share: Option<Set<f64>>,
}

#[derive(Debug)]
pub(super) struct PoolSection {
    pub place: Place,
    pub name: Option<Set<String>>,
    pub limits: Vec<LimitSection>,
    pub headroom: Option<Set<f64>>,
    pub overflow: Option<Set<String>>,
    pub queue_timeout: Option<Set<Duration>>,
    pub max_queue: Option<Set<u64>>,
    pub ageing: Option<Set<Duration>>,
    pub keyed: Option<Set<bool>>,
    pub max_keys: Option<Set<u64>>,
    pub breaker: Option<BreakerSection>,
}

#[derive(Debug, Default)]
pub(super) struct BreakerSection {
    pub failure_rate: Option<Set<f64>>,
    pub window: Option<Set<Duration>>,
    pub min_count: Option<Set<u64>>,
    pub open_for: Option<Set<Duration>>,
}

#[derive(Debug)]
pub(super) struct AgentSection {
    pub place: Place,
    pub matches: Option<Set<String>>,
    pub weight: Option<Set<f64>>,
    pub max_share: Option<Set<f64>>,
    pub limits: Vec<LimitSection>,
}

const SECTIONS: [&str; 7] = ["node", "swarm", "access", "listen", "pool", "agent", "rls"];
const NODE_KEYS: [&str; 3] = ["name", "data_dir", "socket"];
const SWARM_KEYS: [&str; 9] =
    ["gossip", "seeds", "key_file", "policy", "forget_after", "discover", "auto_vouch", "trust", "founder"];
const FOUNDER_KEYS: [&str; 2] = ["id", "share"];
/// The keys of a pool that are one value each.
pub(super) const POOL_KEYS: [&str; 8] =
    ["name", "headroom", "overflow", "queue_timeout", "max_queue", "ageing", "keyed", "max_keys"];
const BREAKER_KEYS: [&str; 4] = ["failure_rate", "window", "min_count", "open_for"];
const AGENT_KEYS: [&str; 3] = ["match", "weight", "max_share"];

impl ConfigFile {
    /// Reads `text`, which errors call `name`. What is wrong is left out.
    pub fn parse(text: &str, name: &str, errors: &mut Vec<ConfigError>) -> Self {
        let mut file = Self::default();
        let mut source = Source { name, text, errors };
        let (table, faults) = DeTable::parse_recoverable(text);
        if !faults.is_empty() {
            // What the parser recovered is a guess; complaints about guesses would mislead.
            for fault in faults {
                let place = source.place(fault.span().map_or(0, |span| span.start), String::new());
                source.errors.push(place.error(fault.message().replace('\n', ", ")));
            }
            return file;
        }
        for entry in source.entries(table.get_ref(), "") {
            match entry.key {
                "node" => file.node = source.table(&entry).map(|node| source.node(node)).unwrap_or_default(),
                "swarm" => {
                    file.swarm = source.table(&entry).map(|swarm| source.swarm(swarm)).unwrap_or_default();
                }
                "access" => {
                    let access = source.table(&entry).map(|access| source.access(access));
                    file.access = access.unwrap_or_default();
                }
                "listen" => {
                    let listen = source.table(&entry).map(|listen| source.listen(listen));
                    file.listen = listen.unwrap_or_default();
                }
                "pool" => {
                    let tables = source.tables(&entry);
                    file.pools = tables.into_iter().map(|(place, pool)| source.pool(place, pool)).collect();
                }
                "agent" => {
                    let tables = source.tables(&entry);
                    let agents = tables.into_iter().map(|(place, agent)| source.agent(place, agent));
                    file.agents = agents.collect();
                }
                "rls" => {
                    let tables = source.tables(&entry);
                    file.rls = tables.into_iter().map(|(place, rls)| source.rls(place, rls)).collect();
                }
                _ => source.unknown(&entry, &SECTIONS),
            }
        }
        file
    }
}

impl PoolSection {
    pub fn new(place: Place) -> Self {
        Self {
            place,
            name: None,
            limits: Vec::new(),
            headroom: None,
            overflow: None,
            queue_timeout: None,
            max_queue: None,
            ageing: None,
            keyed: None,
            max_keys: None,
            breaker: None,
        }
    }
}

impl Source<'_> {
    fn node(&mut self, table: &DeTable) -> NodeSection {
        let mut node = NodeSection::default();
        for entry in self.entries(table, "node") {
            match entry.key {
                "name" => node.name = self.string(&entry),
                "data_dir" => node.data_dir = self.path(&entry),
                "socket" => node.socket = self.path(&entry),
                _ => self.unknown(&entry, &NODE_KEYS),
            }
        }
        node
    }

    fn swarm(&mut self, table: &DeTable) -> SwarmSection {
        let mut swarm = SwarmSection::default();
        for entry in self.entries(table, "swarm") {
            match entry.key {
                "gossip" => swarm.gossip = self.string(&entry),
                "seeds" => swarm.seeds = self.strings(&entry).unwrap_or_default(),
                "key_file" => swarm.key_file = self.path(&entry),
                "policy" => swarm.policy = self.string(&entry),
                "forget_after" => swarm.forget_after = self.duration(&entry),
                "discover" => swarm.discover = self.string(&entry),
                "auto_vouch" => swarm.auto_vouch = self.fraction(&entry),
                "trust" => swarm.trust = self.string(&entry),
                "founder" => {
                    let tables = self.tables(&entry);
                    let founders = tables.into_iter().map(|(place, founder)| self.founder(place, founder));
                    swarm.founders = founders.collect();
                }
                _ => self.unknown(&entry, &SWARM_KEYS),
            }
        }
        swarm
    }

    fn founder(&mut self, place: Place, table: &DeTable) -> FounderSection {
        let mut founder = FounderSection { place, id: None, share: None };
        for entry in self.entries(table, "swarm.founder") {
            match entry.key {
                "id" => founder.id = self.string(&entry),
                "share" => founder.share = self.fraction(&entry),
                _ => self.unknown(&entry, &FOUNDER_KEYS),
            }
        }
        for (key, example) in [("id", "\"<64 hexadecimal digits>\""), ("share", "0.5")] {
            if !has(table, key) {
                self.errors.push(founder.place.at(key).error(format!("is missing; add {key} = {example}")));
            }
        }
        founder
    }

    fn pool(&mut self, place: Place, table: &DeTable) -> PoolSection {
        let mut pool = PoolSection::new(place);
        let before = self.errors.len();
        for entry in self.entries(table, "pool") {
            match entry.key {
                "name" => pool.name = self.string(&entry),
                "headroom" => pool.headroom = self.fraction(&entry),
                "overflow" => pool.overflow = self.string(&entry),
                "queue_timeout" => pool.queue_timeout = self.duration(&entry),
                "max_queue" => pool.max_queue = self.whole(&entry),
                "ageing" => pool.ageing = self.duration(&entry),
                "keyed" => pool.keyed = self.boolean(&entry),
                "max_keys" => pool.max_keys = self.whole(&entry),
                "breaker" => pool.breaker = self.table(&entry).map(|breaker| self.breaker(breaker)),
                _ => self.limits(&entry, &mut pool.limits, &[&POOL_KEYS[..], &["breaker"]].concat()),
            }
        }
        if pool.limits.is_empty() && self.errors.len() == before {
            self.errors.push(pool.place.error("has no limit; add one, such as rpm = 50"));
        }
        pool
    }

    fn breaker(&mut self, table: &DeTable) -> BreakerSection {
        let mut breaker = BreakerSection::default();
        for entry in self.entries(table, "pool.breaker") {
            match entry.key {
                "failure_rate" => breaker.failure_rate = self.fraction(&entry),
                "window" => breaker.window = self.duration(&entry),
                "min_count" => breaker.min_count = self.whole(&entry),
                "open_for" => breaker.open_for = self.duration(&entry),
                _ => self.unknown(&entry, &BREAKER_KEYS),
            }
        }
        breaker
    }

    fn agent(&mut self, place: Place, table: &DeTable) -> AgentSection {
        let mut agent =
            AgentSection { place, matches: None, weight: None, max_share: None, limits: Vec::new() };
        for entry in self.entries(table, "agent") {
            match entry.key {
                "match" => agent.matches = self.string(&entry),
                "weight" => agent.weight = self.fraction(&entry),
                "max_share" => agent.max_share = self.fraction(&entry),
                _ => self.limits(&entry, &mut agent.limits, &AGENT_KEYS),
            }
        }
        if !has(table, "match") {
            let reason = "is missing; add match = \"researcher-*\"";
            self.errors.push(agent.place.at("match").error(reason));
        }
        agent
    }

    /// The limits of an entry that is none of the `other` keys of its section.
    fn limits(&mut self, entry: &Entry, limits: &mut Vec<LimitSection>, other: &[&'static str]) {
        match (entry.key, shorthand(entry.key)) {
            ("limit", _) => {
                for (place, limit) in self.tables(entry) {
                    limits.extend(self.limit(&place, limit));
                }
            }
            (_, Some(shorthand)) => limits.extend(self.short_limit(entry, shorthand)),
            _ => {
                let others = other.iter().copied();
                let known: Vec<_> = others.chain(shorthand::names()).chain(["limit"]).collect();
                self.unknown(entry, &known);
            }
        }
    }
}
