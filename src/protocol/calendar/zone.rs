//! Time zones by name, and when their clocks read what.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A time zone by its IANA name, from the database that is compiled in. Cheap to clone.
///
/// Zones are equal when their names are: two names of the same zone differ, as their rules may with newer data.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of that name, for example `Europe/Berlin`; upper and lower case are the same.
    ///
    /// # Errors
    /// If the database has no such zone.
    pub fn new(name: &str) -> Result<Self, ZoneError> {
        let database = TimeZoneDatabase::bundled();
        match database.get(name) {
            // jiff knows `Etc/Unknown` as a stand-in for UTC; it has no name of its own.
            Ok(zone) if zone.iana_name().is_some() => Ok(Self(zone)),
            _ => Err(ZoneError { name: name.to_owned(), nearest: nearest(name, &database) }),
        }
    }

    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Its name as the database spells it.
    pub fn name(&self) -> &str {
        self.0.iana_name().expect("BUG! a zone without a name was let in")
    }

    /// The first second after `second` at which local clocks read a whole number of `unit` (seconds), or jump forward
    /// over one.
    pub(super) fn next_full(&self, unit: i64, mut second: i64) -> i64 {
        loop {
            let full = second + unit - (second + self.offset(second)).rem_euclid(unit);
            match self.next_transition(second) {
                Some(transition) if transition <= full => {
                    let before = transition - 1 + self.offset(transition - 1);
                    let after = transition + self.offset(transition);
                    if after.rem_euclid(unit) == 0 || after.div_euclid(unit) > before.div_euclid(unit) {
                        return transition;
                    }
                    second = transition;
                }
                _ => return full,
            }
        }
    }

    /// The first second after `second` that opens a period of whole days. `first` gives the first date of the period
    /// that a date is in, `next` the first date of the period after that.
    pub(super) fn next_first(&self, second: i64, first: fn(Date) -> Date, next: fn(Date) -> Date) -> i64 {
        let mut date = first(self.0.to_datetime(timestamp(second)).date());
        // More than once where clocks went back past midnight, to the day before, or a day was left out.
        loop {
            let start = self.first_second(date);
            if start > second {
                return start;
            }
            date = next(date);
        }
    }

    /// The first second at which local clocks read `date`'s midnight, or jump over it.
    fn first_second(&self, date: Date) -> i64 {
        let midnight = date.at(0, 0, 0, 0);
        let read_with = |offset: Offset| {
            offset.to_timestamp(midnight).expect("BUG! jiff's years are -9999 to 9999").as_second()
        };
        match self.0.to_ambiguous_timestamp(midnight).offset() {
            AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                read_with(offset)
            }
            // Read with the later, greater offset, midnight is shortly before the jump.
            AmbiguousOffset::Gap { before, after } => {
                self.next_transition(read_with(after)).unwrap_or_else(|| read_with(before))
            }
        }
    }

    /// The first second after `second` that has another offset, or another name for it.
    pub(super) fn next_transition(&self, second: i64) -> Option<i64> {
        self.0.following(timestamp(second)).next().map(|transition| transition.timestamp().as_second())
    }

    /// Seconds that local clocks are ahead of UTC.
    fn offset(&self, second: i64) -> i64 {
        self.0.to_offset(timestamp(second)).seconds().into()
    }
}

fn timestamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("BUG! jiff's years are -9999 to 9999")
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Zone {}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(name: &str) -> Result<Self, ZoneError> {
        Self::new(name)
    }
}

impl TryFrom<String> for Zone {
    type Error = ZoneError;

    fn try_from(name: String) -> Result<Self, ZoneError> {
        Self::new(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_owned()
    }
}

/// A name that the time zone database does not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no time zone {name:?}: {}", advice(self.nearest.as_deref()))]
pub struct ZoneError {
    name: String,
    nearest: Option<String>,
}

impl ZoneError {
    /// A zone that was perhaps meant.
    pub fn nearest(&self) -> Option<&str> {
        self.nearest.as_deref()
    }
}

fn advice(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("did you mean {name:?}?"),
        None => "use an IANA name, such as \"Europe/Berlin\" or \"UTC\"".to_owned(),
    }
}

/// Longer names are not compared with others. The longest zone name has 32 bytes.
const COMPARED_MAX: usize = 64;

/// The zone with the fewest letters changed, in its whole name or its city: at most one in four.
fn nearest(name: &str, database: &TimeZoneDatabase) -> Option<String> {
    if name.len() > COMPARED_MAX {
        return None;
    }
    let wanted = name.to_lowercase().replace(' ', "_");
    let distance = |zone: &str| {
        let zone = zone.to_lowercase();
        let city = zone.rsplit('/').next().unwrap_or(&zone);
        strsim::damerau_levenshtein(&wanted, &zone).min(strsim::damerau_levenshtein(&wanted, city))
    };
    let zones = database.available().map(|zone| (distance(zone.as_str()), zone.as_str().to_owned()));
    zones.min().filter(|(changed, _)| *changed <= wanted.len() / 4).map(|(_, zone)| zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_by_name_and_a_near_miss_is_named() {
        assert_eq!(Zone::new("europe/berlin").unwrap().name(), "Europe/Berlin");
        assert_eq!(Zone::new("UTC").unwrap(), Zone::utc());
        assert_ne!(Zone::new("Etc/UTC").unwrap(), Zone::utc());
        let nearest = |name| Zone::new(name).unwrap_err().nearest().map(str::to_owned);
        assert_eq!(nearest("Europe/Berln").as_deref(), Some("Europe/Berlin"));
        assert_eq!(nearest("new york").as_deref(), Some("America/New_York"));
        assert_eq!(nearest("PST"), None);
        assert_eq!(nearest("Etc/Unknown"), None);
        assert_eq!(nearest(&"x".repeat(1 << 20)), None);
        let error = Zone::new("Berlin").unwrap_err().to_string();
        assert_eq!(error, "no time zone \"Berlin\": did you mean \"Europe/Berlin\"?");
    }

    #[test]
    fn zones_travel_by_name_and_unknown_ones_are_refused() {
        let config = bincode::config::standard();
        let decode = |name: &str| {
            let bytes = bincode::serde::encode_to_vec(name, config).unwrap();
            bincode::serde::decode_from_slice::<Zone, _>(&bytes, config).map(|(zone, _)| zone)
        };
        let zone = Zone::new("Europe/Berlin").unwrap();
        let as_name = bincode::serde::encode_to_vec("Europe/Berlin", config).unwrap();
        assert_eq!(bincode::serde::encode_to_vec(&zone, config).unwrap(), as_name);
        assert_eq!(decode("Europe/Berlin").unwrap(), zone);
        assert!(decode("Europe/Nowhere").is_err());
    }
}
