//! The limit of a scenario, as people write it.

use std::fmt;
use std::time::Duration;

use aquifer::protocol::calendar::{Calendar, Every, Zone};
use aquifer::protocol::limit::{Concurrency, Kind, LimitError, Rate, Window};
use serde::{Deserialize, Serialize};

use super::Invalid;

/// The limit. Fields that its kind does not have must be absent.
///
/// ```toml
/// [limit]
/// kind = "calendar"
/// amount = 1000
/// every = "minute"
/// zone = "Europe/Berlin"
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSpec {
    /// Which kind of limit.
    pub kind: KindSpec,
    /// Of a rate: units that come back per second.
    pub per_second: u64,
    /// Of a rate: units that can be spent at once.
    pub burst: u64,
    /// Of the other kinds: units in any window, in each period, or at once.
    pub amount: Option<u64>,
    /// Of a window: its length in seconds.
    pub per: Option<f64>,
    /// Of a calendar: its periods.
    pub every: Option<Every>,
    /// Of a calendar: the zone by whose clocks periods end, UTC if it does not say.
    pub zone: Option<String>,
    /// Of a concurrency limit: the longest that a permit lives, in seconds.
    pub ttl: Option<f64>,
    /// Units are for each node, so that the limit grows with the swarm.
    pub each: bool,
}

/// Kinds of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindSpec {
    /// A leaky bucket: `per_second` and `burst`.
    #[default]
    Rate,
    /// A sliding window: `amount` and `per`.
    Window,
    /// A calendar's periods: `amount`, `every` and `zone`.
    Calendar,
    /// Permits at once: `amount` and `ttl`.
    Concurrency,
}

impl LimitSpec {
    /// A rate of so many units a second, and so many at once.
    pub fn rate(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst, ..Self::default() }
    }

    /// The limit of so many nodes together.
    ///
    /// # Errors
    /// A number is out of its bounds, a field that the kind has is missing, or there is one that it has not.
    pub fn of(&self, nodes: usize) -> Result<Kind, Invalid> {
        let times = if self.each { nodes as u64 } else { 1 };
        let amount =
            || self.amount.map(|amount| amount.saturating_mul(times)).ok_or_else(|| missing("amount"));
        let length = |name: &str, field: Option<f64>| {
            let length = field.ok_or_else(|| missing(name))?;
            Duration::try_from_secs_f64(length).map_err(|error| invalid(name, error))
        };
        let of_all = |error: LimitError| Invalid {
            field: "limit".to_owned(),
            problem: format!("{error} (of all nodes together)"),
        };
        self.check_absent()?;
        match self.kind {
            KindSpec::Rate => {
                let [per_second, burst] =
                    [self.per_second, self.burst].map(|units| units.saturating_mul(times));
                Rate::new(per_second, Duration::from_secs(1), burst).map(Kind::Rate).map_err(of_all)
            }
            KindSpec::Window => {
                Window::new(amount()?, length("per", self.per)?).map(Kind::Window).map_err(of_all)
            }
            KindSpec::Calendar => {
                let zone = self.zone.as_deref().map_or(Ok(Zone::utc()), Zone::new);
                let zone = zone.map_err(|error| invalid("zone", error))?;
                let every = self.every.ok_or_else(|| missing("every"))?;
                Calendar::new(amount()?, every, zone).map(Kind::Calendar).map_err(of_all)
            }
            KindSpec::Concurrency => {
                Concurrency::new(amount()?, length("ttl", self.ttl)?).map(Kind::Concurrency).map_err(of_all)
            }
        }
    }

    fn check_absent(&self) -> Result<(), Invalid> {
        use KindSpec::{Calendar, Concurrency, Rate, Window};
        let fields = [
            ("per_second", self.per_second > 0, [Rate].as_slice()),
            ("burst", self.burst > 0, &[Rate]),
            ("amount", self.amount.is_some(), &[Window, Calendar, Concurrency]),
            ("per", self.per.is_some(), &[Window]),
            ("every", self.every.is_some(), &[Calendar]),
            ("zone", self.zone.is_some(), &[Calendar]),
            ("ttl", self.ttl.is_some(), &[Concurrency]),
        ];
        match fields.into_iter().find(|(_, is_there, kinds)| *is_there && !kinds.contains(&self.kind)) {
            None => Ok(()),
            Some((name, ..)) => {
                Err(invalid(name, format!("{:?} limits have none", self.kind).to_lowercase()))
            }
        }
    }
}

impl fmt::Display for LimitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = self.amount.unwrap_or(0);
        match self.kind {
            KindSpec::Rate => write!(f, "{} units/s and a burst of {}", self.per_second, self.burst)?,
            KindSpec::Window => write!(f, "{amount} units in any {} s", self.per.unwrap_or(0.0))?,
            KindSpec::Calendar => {
                write!(
                    f,
                    "{amount} units each {}",
                    self.every.map(|every| every.to_string()).unwrap_or_default()
                )?;
            }
            KindSpec::Concurrency => write!(f, "{amount} permits at once")?,
        }
        f.write_str(if self.each { " for each node" } else { "" })
    }
}

fn missing(name: &str) -> Invalid {
    invalid(name, "is missing")
}

fn invalid(name: &str, problem: impl fmt::Display) -> Invalid {
    Invalid { field: format!("limit.{name}"), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Kind, String> {
        let spec: LimitSpec = toml::from_str(text).map_err(|error| error.to_string())?;
        spec.of(3).map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_is_written_with_its_own_fields() {
        let second = Duration::from_secs(1);
        let rate = Rate::new(30, second, 6).unwrap();
        assert_eq!(read("per_second = 10\nburst = 2\neach = true"), Ok(rate.into()));
        let window = Window::new(7, second / 2).unwrap();
        assert_eq!(read("kind = 'window'\namount = 7\nper = 0.5"), Ok(Kind::Window(window)));
        let berlin = Calendar::new(7, Every::Hour, Zone::new("Europe/Berlin").unwrap()).unwrap();
        let text = "kind = 'calendar'\namount = 7\nevery = 'hour'\nzone = 'Europe/Berlin'";
        assert_eq!(read(text), Ok(Kind::Calendar(berlin)));
        let permits = Concurrency::new(21, 9 * second).unwrap();
        let text = "kind = 'concurrency'\namount = 7\nttl = 9\neach = true";
        assert_eq!(read(text), Ok(Kind::Concurrency(permits)));
    }

    #[test]
    fn what_is_missing_or_belongs_to_another_kind_is_named() {
        let refused = |text: &str| read(text).expect_err("it is wrong");
        assert_eq!(refused("kind = 'window'\nper = 1"), "limit.amount: is missing");
        assert_eq!(refused("kind = 'calendar'\namount = 1"), "limit.every: is missing");
        assert_eq!(refused("kind = 'concurrency'\namount = 1"), "limit.ttl: is missing");
        assert_eq!(refused("per_second = 1\nburst = 1\nttl = 1"), "limit.ttl: rate limits have none");
        assert!(refused("kind = 'window'\namount = 1\nper = -1").starts_with("limit.per: "));
        let zone = "kind = 'calendar'\namount = 1\nevery = 'day'\nzone = 'Atlantis'";
        assert!(refused(zone).starts_with("limit.zone: "));
        assert!(refused("per_second = 1\nburst = 0").starts_with("limit: burst is 0"));
    }
}
