//! The configuration as it is written, before anything is checked but names and types.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::problem::{ConfigError, Place, Set};
use super::source::{Entry, Source};
use super::units::{SHORTHANDS, Shorthand, not_yet, shorthand};

/// Everything that a file says.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub node: NodeSection,
    pub swarm: SwarmSection,
    pub pools: Vec<PoolSection>,
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
}

#[derive(Debug)]
pub(super) struct LimitSection {
    pub name: Set<String>,
    pub unit: Set<String>,
    pub amount: Set<u64>,
    pub per: Set<Duration>,
    pub burst: Option<Set<u64>>,
}

const SECTIONS: [&str; 3] = ["node", "swarm", "pool"];
const NODE_KEYS: [&str; 3] = ["name", "data_dir", "socket"];
const SWARM_KEYS: [&str; 6] = ["gossip", "seeds", "key_file", "policy", "forget_after", "discover"];
pub(super) const POOL_KEYS: [&str; 5] = ["name", "headroom", "overflow", "queue_timeout", "max_queue"];
const LIMIT_KEYS: [&str; 6] = ["name", "kind", "unit", "amount", "per", "burst"];
const AMOUNT_KEYS: [&str; 2] = ["amount", "burst"];

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
                "pool" => {
                    let tables = source.tables(&entry);
                    file.pools = tables.into_iter().map(|(place, pool)| source.pool(place, pool)).collect();
                }
                "agent" => source.errors.push(
                    entry.place.error("[[agent]] is not supported yet by this version; remove the section"),
                ),
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
        }
    }
}

impl LimitSection {
    pub fn short(shorthand: &Shorthand, amount: Set<u64>, burst: Option<Set<u64>>) -> Self {
        let place = &amount.place;
        Self {
            name: Set { value: shorthand.name.to_owned(), place: place.clone() },
            unit: Set { value: shorthand.unit.to_owned(), place: place.clone() },
            per: Set { value: shorthand.per, place: place.clone() },
            amount,
            burst,
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
                _ => self.unknown(&entry, &SWARM_KEYS),
            }
        }
        swarm
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
                "limit" => {
                    for (place, limit) in self.tables(&entry) {
                        pool.limits.extend(self.limit(&place, limit));
                    }
                }
                key => match (shorthand(key), not_yet(key)) {
                    (Some(shorthand), _) => pool.limits.extend(self.short_limit(&entry, shorthand)),
                    (None, Some(reason)) => self.errors.push(entry.place.error(reason)),
                    (None, None) => {
                        let limits = SHORTHANDS.iter().map(|shorthand| shorthand.name);
                        let known: Vec<_> = POOL_KEYS.into_iter().chain(limits).chain(["limit"]).collect();
                        self.unknown(&entry, &known);
                    }
                },
            }
        }
        if pool.limits.is_empty() && self.errors.len() == before {
            self.errors.push(pool.place.error("has no limit; add one, such as rpm = 50"));
        }
        pool
    }

    /// `rpm = 50` or `rpm = { amount = 50, burst = 10 }`.
    fn short_limit(&mut self, entry: &Entry, shorthand: &Shorthand) -> Option<LimitSection> {
        let DeValue::Table(table) = entry.value else {
            return Some(LimitSection::short(shorthand, self.whole(entry)?, None));
        };
        let (mut amount, mut burst) = (None, None);
        let before = self.errors.len();
        for part in self.entries(table, &entry.place.key) {
            match part.key {
                "amount" => amount = self.whole(&part),
                "burst" => burst = self.whole(&part),
                "zone" => {
                    let reason =
                        "limits by the calendar are not supported yet by this version; remove the zone";
                    self.errors.push(part.place.error(reason));
                }
                _ => self.unknown(&part, &AMOUNT_KEYS),
            }
        }
        if amount.is_none() && self.errors.len() == before {
            let example = format!("has no amount; write {} = {{ amount = 50, burst = 10 }}", entry.key);
            self.errors.push(entry.place.error(example));
        }
        Some(LimitSection::short(shorthand, amount?, burst))
    }

    /// A `[[pool.limit]]`.
    fn limit(&mut self, place: &Place, table: &DeTable) -> Option<LimitSection> {
        let (mut name, mut unit, mut amount, mut per, mut burst) = (None, None, None, None, None);
        for entry in self.entries(table, "pool.limit") {
            match entry.key {
                "name" => name = self.string(&entry),
                "kind" => self.kind(&entry),
                "unit" => unit = self.string(&entry),
                "amount" => amount = self.whole(&entry),
                "per" => per = self.duration(&entry),
                "burst" => burst = self.whole(&entry),
                _ => self.unknown(&entry, &LIMIT_KEYS),
            }
        }
        for (key, example) in [("name", "\"per-second\""), ("amount", "10"), ("per", "\"1s\"")] {
            if !table.iter().any(|(written, _)| written.get_ref() == key) {
                self.errors.push(place.at(key).error(format!("is missing; add {key} = {example}")));
            }
        }
        let unit = unit.unwrap_or(Set { value: "requests".to_owned(), place: place.at("unit") });
        Some(LimitSection { name: name?, unit, amount: amount?, per: per?, burst })
    }

    fn kind(&mut self, entry: &Entry) {
        let Some(kind) = self.string(entry) else { return };
        match kind.value.as_str() {
            "rate" => {}
            "window" | "calendar" | "concurrency" => self.errors.push(
                kind.place
                    .error(format!("{:?} is not supported yet by this version; write \"rate\"", kind.value)),
            ),
            other => self.errors.push(kind.place.choice(other, &["rate"])),
        }
    }
}
