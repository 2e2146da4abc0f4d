//! Limits as they are written: by a shorthand, or in full as a `[[pool.limit]]` or `[[agent.limit]]`.

use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::super::problem::{Place, Set};
use super::super::shorthand::Shorthand;
use super::super::source::{Entry, Source, has};
use crate::protocol::calendar::{Every, Zone};
use crate::protocol::limit::PERMIT_TTL_MAX;

/// One limit. Its numbers are not checked yet.
#[derive(Debug)]
pub struct LimitSection {
    pub name: Set<String>,
    pub unit: Set<String>,
    pub amount: Set<u64>,
    pub kind: KindSection,
}

/// What a limit has besides its amount.
#[derive(Debug)]
pub enum KindSection {
    Rate { per: Set<Duration>, burst: Option<Set<u64>> },
    Window { per: Set<Duration> },
    Calendar { every: Every, zone: Zone },
    Concurrency { ttl: Set<Duration> },
}

const RATE: Form = Form { kind: "rate", period: "per", example: "\"1s\"", keys: &["amount", "per", "burst"] };
const WINDOW: Form = Form { kind: "window", period: "per", example: "\"1m\"", keys: &["amount", "per"] };
const CALENDAR: Form =
    Form { kind: "calendar", period: "every", example: "\"day\"", keys: &["amount", "every", "zone"] };
const CONCURRENCY: Form =
    Form { kind: "concurrency", period: "ttl", example: "\"10m\"", keys: &["amount", "ttl"] };
const FORMS: [&Form; 4] = [&RATE, &WINDOW, &CALENDAR, &CONCURRENCY];
/// The keys of limits of every kind.
const COMMON_KEYS: [&str; 3] = ["name", "kind", "unit"];
/// The keys that say how long, in one kind or another.
const PERIOD_KEYS: [&str; 3] = ["per", "every", "ttl"];
const EVERY: [&str; 4] = ["minute", "hour", "day", "month"];

/// The keys of a kind of limit.
struct Form {
    kind: &'static str,
    /// The key that says how long, and what to write there.
    period: &'static str,
    example: &'static str,
    keys: &'static [&'static str],
}

impl Form {
    /// Why it has no `key`, if another kind of limit has.
    fn refusal(&self, key: &str) -> Option<String> {
        FORMS.iter().find(|form| form.keys.contains(&key))?;
        let kind = self.kind;
        let instead = match key {
            "burst" => "all of its amount may be spent at once; remove burst".to_owned(),
            "zone" => "remove zone, or write kind = \"calendar\"".to_owned(),
            _ => format!("write {} = {}", self.period, self.example),
        };
        Some(format!("a {kind} limit has no {key}: {instead}"))
    }
}

impl LimitSection {
    /// What `amount` for the key `shorthand` says. Nothing more was written.
    pub fn short(shorthand: &Shorthand, amount: Set<u64>) -> Self {
        let place = amount.place.clone();
        let kind = match shorthand.per {
            Some(per) => KindSection::Rate { per: Set { value: per, place: place.clone() }, burst: None },
            None => KindSection::Concurrency { ttl: default_ttl(&place) },
        };
        let [name, unit] =
            [shorthand.name, shorthand.unit].map(|text| Set { value: text.to_owned(), place: place.clone() });
        Self { name, unit, amount, kind }
    }

    /// Whether it is a leaky bucket.
    pub fn is_rate(&self) -> bool {
        matches!(self.kind, KindSection::Rate { .. })
    }

    /// `rate`, `window`, `calendar` or `concurrency`.
    pub fn kind_name(&self) -> &'static str {
        let form = match self.kind {
            KindSection::Rate { .. } => RATE,
            KindSection::Window { .. } => WINDOW,
            KindSection::Calendar { .. } => CALENDAR,
            KindSection::Concurrency { .. } => CONCURRENCY,
        };
        form.kind
    }
}

fn default_ttl(place: &Place) -> Set<Duration> {
    Set { value: PERMIT_TTL_MAX, place: place.at("ttl") }
}

impl Source<'_> {
    /// `rpm = 50`, `rpm = { amount = 50, burst = 10 }`, `tpd = { amount = 50, zone = "UTC" }` or
    /// `max_concurrent = { amount = 8, ttl = "10m" }`.
    pub fn short_limit(&mut self, entry: &Entry, shorthand: &Shorthand) -> Option<LimitSection> {
        let DeValue::Table(table) = entry.value else {
            return Some(LimitSection::short(shorthand, self.whole(entry)?));
        };
        let (mut amount, mut burst, mut zone, mut ttl) = (None, None, None, None);
        let before = self.errors.len();
        let (kind, known): (_, &[_]) = match shorthand.per {
            Some(_) => ("rate", &["amount", "burst", "zone"]),
            None => ("concurrency", &["amount", "ttl"]),
        };
        for part in self.entries(table, &entry.place.key) {
            match part.key {
                "amount" => amount = self.whole(&part),
                "burst" if shorthand.per.is_some() => burst = self.whole(&part),
                "zone" if shorthand.per.is_some() => zone = self.short_zone(&part, shorthand),
                "ttl" if shorthand.per.is_none() => ttl = self.duration(&part),
                key if FORMS.iter().any(|form| form.keys.contains(&key)) => {
                    let keys = known.join(", ");
                    let reason = format!("{} is a {kind} limit, whose keys here are {keys}", shorthand.name);
                    self.errors.push(part.place.error(format!("{reason}; remove {key}")));
                }
                _ => self.unknown(&part, known),
            }
        }
        if !has(table, "amount") && self.errors.len() == before {
            let example = format!("has no amount; write {} = {{ amount = 50 }}", entry.key);
            self.errors.push(entry.place.error(example));
        }
        if let (Some(burst), true) = (&burst, has(table, "zone")) {
            let reason = "with a zone, all of a calendar period's amount may be spent at once";
            self.errors.push(burst.place.error(format!("{reason}; remove burst or zone")));
        }
        let mut limit = LimitSection::short(shorthand, amount?);
        match (&mut limit.kind, zone, ttl) {
            (kind, Some((every, zone)), _) => *kind = KindSection::Calendar { every, zone },
            (KindSection::Concurrency { ttl }, _, Some(written)) => *ttl = written,
            (KindSection::Rate { burst: none, .. }, ..) => *none = burst,
            _ => {}
        }
        Some(limit)
    }

    fn short_zone(&mut self, entry: &Entry, shorthand: &Shorthand) -> Option<(Every, Zone)> {
        let Some(every) = shorthand.every() else {
            let reason = format!("{} counts by the second, which no time zone changes", shorthand.name);
            self.errors.push(entry.place.error(format!("{reason}; remove zone")));
            return None;
        };
        Some((every, self.zone(entry)?))
    }

    /// A `[[pool.limit]]`, or that of another section: `place` is where it begins.
    pub fn limit(&mut self, place: &Place, table: &DeTable) -> Option<LimitSection> {
        let entries = self.entries(table, &place.key);
        let form = self.form(&entries)?;
        let (mut name, mut unit, mut amount, mut burst) = (None, None, None, None);
        let (mut per, mut every, mut zone, mut ttl) = (None, None, None, None);
        for entry in &entries {
            match entry.key {
                "kind" => {}
                "name" => name = self.string(entry),
                "unit" => unit = self.string(entry),
                key if !form.keys.contains(&key) => match form.refusal(key) {
                    Some(reason) => self.errors.push(entry.place.error(reason)),
                    None => self.unknown(entry, &[&COMMON_KEYS, form.keys].concat()),
                },
                "amount" => amount = self.whole(entry),
                "per" => per = self.duration(entry),
                "burst" => burst = self.whole(entry),
                "every" => every = self.every(entry),
                "zone" => zone = self.zone(entry),
                _ => ttl = self.duration(entry),
            }
        }
        let needed = [("name", "\"per-second\""), ("amount", "10"), (form.period, form.example)];
        for (key, example) in needed.into_iter().filter(|(key, _)| *key != "ttl") {
            // Where the period has another kind's key, that was said to be wrong already.
            let other = key == form.period && entries.iter().any(|entry| PERIOD_KEYS.contains(&entry.key));
            if !has(table, key) && !other {
                self.errors.push(place.at(key).error(format!("is missing; add {key} = {example}")));
            }
        }
        let kind = match form.kind {
            "rate" => KindSection::Rate { per: per?, burst },
            "window" => KindSection::Window { per: per? },
            "calendar" => KindSection::Calendar { every: every?, zone: zone.unwrap_or_else(Zone::utc) },
            _ => KindSection::Concurrency { ttl: ttl.unwrap_or_else(|| default_ttl(place)) },
        };
        let unit = unit.unwrap_or(Set { value: "requests".to_owned(), place: place.at("unit") });
        Some(LimitSection { name: name?, unit, amount: amount?, kind })
    }

    /// What the entries of a limit say that it is; a rate if nothing.
    fn form(&mut self, entries: &[Entry]) -> Option<&'static Form> {
        let Some(entry) = entries.iter().find(|entry| entry.key == "kind") else {
            return Some(&RATE);
        };
        let kind = self.string(entry)?;
        let form = FORMS.into_iter().find(|form| form.kind == kind.value);
        if form.is_none() {
            self.errors.push(kind.place.choice(&kind.value, &FORMS.map(|form| form.kind)));
        }
        form
    }

    fn every(&mut self, entry: &Entry) -> Option<Every> {
        let text = self.string(entry)?;
        let every = text.value.parse().ok();
        if every.is_none() {
            self.errors.push(text.place.choice(&text.value, &EVERY));
        }
        every
    }

    fn zone(&mut self, entry: &Entry) -> Option<Zone> {
        let text = self.string(entry)?;
        Zone::new(&text.value).map_err(|error| self.errors.push(text.place.error(error.to_string()))).ok()
    }
}
