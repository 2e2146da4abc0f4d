//! `[[rls]]`: which descriptors of Envoy's rate limit service are counted against which pool.

use toml::de::DeTable;

use super::PoolConfig;
use super::problem::{ConfigError, Place, Set};
use super::source::{Source, has};
use crate::protocol::limit::{Kind, NAME_MAX};

/// What descriptors of one form are counted against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RlsRule {
    /// The domain that requests name.
    pub domain: String,
    /// The entries of the descriptors, all of them in this order.
    pub entries: Vec<RlsEntry>,
    /// The place of the pool.
    pub pool: usize,
    /// The place of the entry whose value is the key, if the pool is keyed.
    pub key: Option<usize>,
    /// The unit that hits are; `requests` unless said.
    pub unit: String,
    /// Whether hits tell what was used already, so that they count even where there is no room. Else they ask.
    pub charge: bool,
    /// Whether answers carry headers with what is left.
    pub headers: bool,
}

/// An entry of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RlsEntry {
    /// Its key.
    pub key: String,
    /// Its values.
    pub value: RlsValue,
}

/// Values of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RlsValue {
    /// All: no `value` is written.
    Any,
    /// This one.
    Exactly(String),
    /// All that begin so: `value = "/api/*"`.
    Prefix(String),
}

impl RlsValue {
    /// Whether this is one of them.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(exactly) => exactly == value,
            Self::Prefix(prefix) => value.starts_with(prefix),
        }
    }
}

#[derive(Debug)]
pub(super) struct RlsSection {
    place: Place,
    domain: Option<Set<String>>,
    entries: Option<Vec<EntrySection>>,
    pool: Option<Set<String>>,
    key: Option<Set<String>>,
    unit: Option<Set<String>>,
    charge: Option<Set<bool>>,
    headers: Option<Set<bool>>,
}

#[derive(Debug)]
struct EntrySection {
    key: Option<Set<String>>,
    value: Option<Set<String>>,
}

const KEYS: [&str; 7] = ["domain", "entries", "pool", "key", "unit", "charge", "headers"];
const ENTRY_KEYS: [&str; 2] = ["key", "value"];
/// The most rules: each descriptor is compared with all that come before its own.
const RULES_MAX: usize = 256;

impl Source<'_> {
    pub fn rls(&mut self, place: Place, table: &DeTable) -> RlsSection {
        let mut rls = RlsSection {
            place,
            domain: None,
            entries: None,
            pool: None,
            key: None,
            unit: None,
            charge: None,
            headers: None,
        };
        for entry in self.entries(table, "rls") {
            match entry.key {
                "domain" => rls.domain = self.string(&entry),
                "entries" => {
                    let tables = self.tables(&entry);
                    let entries = tables.into_iter().map(|(place, table)| self.rls_entry(&place, table));
                    rls.entries = Some(entries.collect());
                }
                "pool" => rls.pool = self.string(&entry),
                "key" => rls.key = self.string(&entry),
                "unit" => rls.unit = self.string(&entry),
                "charge" => rls.charge = self.boolean(&entry),
                "headers" => rls.headers = self.boolean(&entry),
                _ => self.unknown(&entry, &KEYS),
            }
        }
        for (key, example) in
            [("domain", "\"gateway\""), ("entries", "[{ key = \"path\" }]"), ("pool", "\"search-api\"")]
        {
            if !has(table, key) {
                self.errors.push(rls.place.at(key).error(format!("is missing; add {key} = {example}")));
            }
        }
        rls
    }

    fn rls_entry(&mut self, place: &Place, table: &DeTable) -> EntrySection {
        let mut section = EntrySection { key: None, value: None };
        for entry in self.entries(table, "rls.entries") {
            match entry.key {
                "key" => section.key = self.string(&entry),
                "value" => section.value = self.string(&entry),
                _ => self.unknown(&entry, &ENTRY_KEYS),
            }
        }
        if !has(table, "key") {
            self.errors.push(place.at("key").error("is missing; add key = \"path\""));
        }
        section
    }
}

/// Leaves out the rules that are wrong.
pub(super) fn validate(
    sections: Vec<RlsSection>,
    pools: &[PoolConfig],
    errors: &mut Vec<ConfigError>,
) -> Vec<RlsRule> {
    if let Some(first) = sections.get(RULES_MAX) {
        errors.push(first.place.error(format!("is one of more than {RULES_MAX}; leave some out")));
        return Vec::new();
    }
    let mut rules = Vec::new();
    for section in sections {
        match rule(section, pools) {
            Ok(rule) => rules.extend(rule),
            Err(error) => errors.push(error),
        }
    }
    rules
}

/// None if something is missing, which was said when the section was read.
fn rule(section: RlsSection, pools: &[PoolConfig]) -> Result<Option<RlsRule>, ConfigError> {
    let (Some(domain), Some(entries), Some(named)) = (section.domain, section.entries, section.pool) else {
        return Ok(None);
    };
    if !(1..=NAME_MAX).contains(&domain.value.len()) {
        return Err(domain.place.error(format!("must be 1 to {NAME_MAX} bytes")));
    }
    if entries.is_empty() {
        return Err(section.place.at("entries").error("is empty; add an entry, such as { key = \"path\" }"));
    }
    let entries = entries.into_iter().map(|entry| {
        let value = entry.value.map_or(RlsValue::Any, |value| match value.value.strip_suffix('*') {
            Some(prefix) => RlsValue::Prefix(prefix.to_owned()),
            None => RlsValue::Exactly(value.value),
        });
        Some(RlsEntry { key: entry.key?.value, value })
    });
    let Some(entries) = entries.collect::<Option<Vec<_>>>() else { return Ok(None) };
    let names: Vec<&str> = pools.iter().map(|pool| pool.pool.name()).collect();
    let Some(pool) = names.iter().position(|name| *name == named.value) else {
        return Err(named.place.choice(&named.value, &names));
    };
    let config = &pools[pool];
    let unit = section.unit.as_ref().map_or("requests", |unit| &unit.value);
    if !config.pool.limits().iter().any(|limit| limit.unit == unit) {
        let place = section.unit.as_ref().map_or(&named.place, |unit| &unit.place);
        let units: Vec<&str> = config.pool.limits().iter().map(|limit| limit.unit.as_str()).collect();
        let reason = format!("pool {:?} does not count {unit}; write unit = {:?}", named.value, units[0]);
        return Err(place.error(reason));
    }
    let charge = section.charge.is_some_and(|charge| charge.value);
    let slots = |kind: &Kind| matches!(kind, Kind::Concurrency(_));
    if charge && config.pool.limits().iter().any(|limit| limit.unit == unit && slots(&limit.kind)) {
        let reason =
            format!("pool {:?} limits {unit} at once, which nobody can have used already", named.value);
        return Err(named.place.error(reason));
    }
    Ok(Some(RlsRule {
        key: key(section.key, &entries, config, &named)?,
        domain: domain.value,
        pool,
        unit: unit.to_owned(),
        charge,
        headers: section.headers.is_some_and(|headers| headers.value),
        entries,
    }))
}

/// The place of the entry whose value is the key of a keyed pool: the named one, else the only one that has several values.
fn key(
    named: Option<Set<String>>,
    entries: &[RlsEntry],
    config: &PoolConfig,
    pool: &Set<String>,
) -> Result<Option<usize>, ConfigError> {
    let varies = |entry: &&RlsEntry| !matches!(entry.value, RlsValue::Exactly(_));
    match (named, config.keyed) {
        (None, None) => Ok(None),
        (Some(named), None) => {
            Err(named.place.error(format!("pool {:?} is not keyed; leave the key out", pool.value)))
        }
        (Some(named), Some(_)) => {
            let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
            let place = keys.iter().position(|key| *key == named.value);
            place.map(Some).ok_or_else(|| named.place.choice(&named.value, &keys))
        }
        (None, Some(_)) if entries.iter().filter(varies).count() == 1 => {
            Ok(entries.iter().position(|entry| varies(&entry)))
        }
        (None, Some(_)) => Err(pool.place.error(format!(
            "pool {:?} has its limits for each key; say which entry's value that is: key = {:?}",
            pool.value, entries[0].key
        ))),
    }
}
