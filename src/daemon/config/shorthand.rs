//! The keys that stand for a whole limit: `rpm = 50`.

use std::time::Duration;

use crate::protocol::calendar::Every;

/// A key that stands for a whole limit, which is called like it.
pub(super) struct Shorthand {
    pub name: &'static str,
    pub unit: &'static str,
    /// The period of a rate; none is a limit on concurrency.
    pub per: Option<Duration>,
}

/// Every shorthand, the commonest first: of two as near, it is suggested.
pub(super) const SHORTHANDS: [Shorthand; 11] = [
    Shorthand { name: "rpm", unit: "requests", per: Some(MINUTE) },
    Shorthand { name: "rps", unit: "requests", per: Some(SECOND) },
    Shorthand { name: "rph", unit: "requests", per: Some(HOUR) },
    Shorthand { name: "rpd", unit: "requests", per: Some(DAY) },
    Shorthand { name: "tpm", unit: "tokens", per: Some(MINUTE) },
    Shorthand { name: "tps", unit: "tokens", per: Some(SECOND) },
    Shorthand { name: "tph", unit: "tokens", per: Some(HOUR) },
    Shorthand { name: "tpd", unit: "tokens", per: Some(DAY) },
    Shorthand { name: "itpm", unit: "input_tokens", per: Some(MINUTE) },
    Shorthand { name: "otpm", unit: "output_tokens", per: Some(MINUTE) },
    Shorthand { name: "max_concurrent", unit: "requests", per: None },
];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The limit that `name` is short for.
pub(super) fn shorthand(name: &str) -> Option<&'static Shorthand> {
    SHORTHANDS.iter().find(|shorthand| shorthand.name == name)
}

/// The names of all shorthands.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SHORTHANDS.iter().map(|shorthand| shorthand.name)
}

impl Shorthand {
    /// The calendar's periods of the same length: what it is by with a time zone.
    pub fn every(&self) -> Option<Every> {
        let periods = [Every::Minute, Every::Hour, Every::Day];
        periods.into_iter().find(|every| Some(every.nominal()) == self.per)
    }
}
