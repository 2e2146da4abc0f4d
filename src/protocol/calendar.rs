//! Calendar limits: at most so many units in each minute, hour, day or month of a time zone.
//!
//! A period is a stretch of *instants*, never a local label, so a local hour that the autumn repeats is two periods and
//! a day of 23 or 25 hours is one. Periods are the gaps between starts:
//!
//! - a day or month starts at the first instant at which local clocks read its first midnight, or jump over it;
//! - a minute or hour starts at every instant at which they read it in full (`:00`), or jump forward over that.
//!
//! The difference is what a clock that goes back past a start does: it begins an hour again, and never a day.
//!
//! Periods tile time: what is computed is the first start after an instant, and a period is from the last start that
//! is not after the instant to the next. So the instants between two starts give the same period, whichever is asked
//! for, and the period's end gives the next. Nodes with the same zone data name the same periods by the same numbers;
//! the zone data is compiled in for that reason.

mod zone;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use zone::{Zone, ZoneError};

use super::limit::{AMOUNT_MAX, LimitError};

/// A limit of at most `amount` units in each period of a calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    amount: u64,
    every: Every,
    zone: Zone,
}

impl Calendar {
    /// At most `amount` units in each `every` of `zone`.
    ///
    /// # Errors
    /// [`LimitError::Amount`] if the amount is outside 1 to [`AMOUNT_MAX`].
    pub fn new(amount: u64, every: Every, zone: Zone) -> Result<Self, LimitError> {
        if !(1..=AMOUNT_MAX).contains(&amount) {
            return Err(LimitError::Amount(amount));
        }
        Ok(Self { amount, every, zone })
    }

    /// Units in each period, however long it is.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Which periods.
    pub fn every(&self) -> Every {
        self.every
    }

    /// Whose midnights and full hours.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Units a second over a period of nominal length.
    pub fn per_second(&self) -> f64 {
        self.amount as f64 / self.every.nominal().as_secs_f64()
    }

    /// The period that `at` lies in.
    ///
    /// This does zone arithmetic: keep the period, and ask again when it no longer [contains](Period::contains) the
    /// time. At the ends of what [`UnixNanos`] can say (1677 and 2262) `start` and `end` saturate.
    pub fn period_at(&self, at: UnixNanos) -> Period {
        let second = at.0.div_euclid(NANOS);
        // No period is as long as two nominal ones: after a change of offset the next start is at most one away.
        let mut start = self.next_start(second - 2 * self.every.longest());
        let mut end = self.next_start(start);
        while end <= second {
            start = end;
            end = self.next_start(start);
        }
        let nanos = |second: i64| UnixNanos(second.saturating_mul(NANOS));
        Period { number: start, start: nanos(start), end: nanos(end) }
    }

    /// The first start after `second`. Starts, like all offsets from UTC, are whole seconds.
    fn next_start(&self, second: i64) -> i64 {
        match self.every {
            Every::Minute | Every::Hour => self.zone.next_full(self.every.longest(), second),
            Every::Day => self.zone.next_first(second, |date| date, |day| day + 1.day()),
            Every::Month => self.zone.next_first(second, Date::first_of_month, |month| month + 1.month()),
        }
    }
}

/// One period of a calendar: from `start` to just before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Period {
    /// Its start in seconds since 1970: later periods have greater numbers, and all nodes the same.
    pub number: i64,
    /// Its first instant.
    pub start: UnixNanos,
    /// The first instant of the next period.
    pub end: UnixNanos,
}

impl Period {
    /// Whether `at` lies in it.
    pub fn contains(&self, at: UnixNanos) -> bool {
        self.start <= at && at < self.end
    }
}

/// Wall time: nanoseconds of UTC since 1970, good from 1677 to 2262.
///
/// Leap seconds are not counted, as in POSIX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixNanos(pub i64);

impl fmt::Display for UnixNanos {
    /// As RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Timestamp::from_nanosecond(self.0.into());
        time.expect("BUG! jiff's years are -9999 to 9999").fmt(f)
    }
}

const NANOS: i64 = 1_000_000_000;

/// How often a calendar limit starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Every {
    /// At full minutes.
    Minute,
    /// At full hours of local time, which in some zones are not those of UTC.
    Hour,
    /// At midnight.
    Day,
    /// At midnight before the first.
    Month,
}

impl Every {
    /// Its usual length; a month's is a twelfth of the mean Gregorian year, 30.436875 days.
    pub fn nominal(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Month => 2_629_746,
        })
    }

    /// The longest without a change of offset, in seconds.
    fn longest(self) -> i64 {
        match self {
            Self::Month => 31 * 86_400,
            shorter => shorter.nominal().as_secs() as i64,
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        })
    }
}

impl FromStr for Every {
    type Err = EveryError;

    fn from_str(text: &str) -> Result<Self, EveryError> {
        let all = [Self::Minute, Self::Hour, Self::Day, Self::Month];
        all.into_iter().find(|every| every.to_string() == text).ok_or_else(|| EveryError(text.to_owned()))
    }
}

/// Not a calendar's period.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a calendar period: use minute, hour, day or month")]
pub struct EveryError(String);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NASTY: [&str; 10] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "Africa/Cairo",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Pacific/Apia",
        "America/St_Johns",
        "America/Havana",
    ];
    const EVERY: [Every; 4] = [Every::Minute, Every::Hour, Every::Day, Every::Month];

    fn unix(text: &str) -> UnixNanos {
        let time: Timestamp = text.parse().unwrap();
        UnixNanos(time.as_nanosecond() as i64)
    }

    fn calendar(every: Every, zone: &str) -> Calendar {
        Calendar::new(1, every, Zone::new(zone).unwrap()).unwrap()
    }

    /// Checks that consecutive periods begin at these local times.
    fn starts(every: Every, zone: &str, expected: &[&str]) {
        let calendar = calendar(every, zone);
        let mut period = calendar.period_at(unix(expected[0]));
        for start in expected {
            assert_eq!(period.start, unix(start), "{every} in {zone}: {} is not {start}", period.start);
            period = calendar.period_at(period.end);
        }
    }

    #[test]
    fn days_and_months_start_with_the_first_instant_of_their_first_day() {
        use Every::{Day, Month};
        starts(Day, "UTC", &["2024-02-28T00:00Z", "2024-02-29T00:00Z", "2024-03-01T00:00Z"]);
        starts(Month, "UTC", &["2024-01-01T00:00Z", "2024-02-01T00:00Z", "2024-03-01T00:00Z"]);
        // 23 and 25 hours.
        starts(Day, "Europe/Berlin", &["2024-03-31T00:00+01", "2024-04-01T00:00+02"]);
        starts(Day, "Europe/Berlin", &["2024-10-27T00:00+02", "2024-10-28T00:00+01"]);
        starts(Month, "Europe/Berlin", &["2024-10-01T00:00+02", "2024-11-01T00:00+01"]);
        starts(Day, "Asia/Kathmandu", &["2024-05-01T00:00+05:45", "2024-05-02T00:00+05:45"]);
        // No midnight: clocks went from 00:00 to 01:00.
        starts(
            Day,
            "America/Sao_Paulo",
            &["2018-11-03T00:00-03", "2018-11-04T01:00-02", "2018-11-05T00:00-02"],
        );
        starts(Day, "Africa/Cairo", &["2024-04-25T00:00+02", "2024-04-26T01:00+03", "2024-04-27T00:00+03"]);
        // Clocks went from 24:00 back to 23:00 of the same day.
        starts(
            Day,
            "America/Sao_Paulo",
            &["2018-02-17T00:00-02", "2018-02-18T00:00-03", "2018-02-19T00:00-03"],
        );
        // Midnight twice, of the same day and after a minute of it.
        starts(Day, "America/Havana", &["2024-11-03T00:00-04", "2024-11-04T00:00-05"]);
        starts(
            Day,
            "America/St_Johns",
            &["2010-11-06T00:00-02:30", "2010-11-07T00:00-02:30", "2010-11-08T00:00-03:30"],
        );
        // A day that was left out.
        starts(Day, "Pacific/Apia", &["2011-12-29T00:00-10", "2011-12-31T00:00+14", "2012-01-01T00:00+14"]);
        starts(Month, "Pacific/Apia", &["2011-12-01T00:00-10", "2012-01-01T00:00+14"]);
        // A midnight inside a jump, from 23:30 to 00:30, is passed when the clocks jump.
        starts(
            Day,
            "America/Toronto",
            &["1919-03-30T00:00-05", "1919-03-31T00:30-04", "1919-04-01T00:00-04"],
        );
    }

    #[test]
    fn hours_start_where_local_clocks_read_a_full_hour() {
        use Every::{Hour, Minute};
        starts(Hour, "Asia/Kathmandu", &["2024-05-01T00:15Z", "2024-05-01T01:15Z"]);
        starts(Minute, "Asia/Kathmandu", &["2024-05-01T00:15Z", "2024-05-01T00:16Z"]);
        // An hour left out and an hour repeated.
        starts(Hour, "Europe/Berlin", &["2024-03-31T01:00+01", "2024-03-31T03:00+02", "2024-03-31T04:00+02"]);
        starts(
            Hour,
            "Europe/Berlin",
            &["2024-10-27T01:00+02", "2024-10-27T02:00+02", "2024-10-27T02:00+01", "2024-10-27T03:00+01"],
        );
        // Half an hour left out: 02:00 is jumped over. Half an hour repeated: it reads no full hour and stays with the
        // one before.
        starts(
            Hour,
            "Australia/Lord_Howe",
            &["2024-10-06T01:00+10:30", "2024-10-06T02:30+11", "2024-10-06T03:00+11"],
        );
        starts(
            Hour,
            "Australia/Lord_Howe",
            &["2024-04-07T01:00+11", "2024-04-07T02:00+10:30", "2024-04-07T03:00+10:30"],
        );
        // From 00:01 to 01:01, and from 00:01 back to 23:01.
        starts(
            Hour,
            "America/St_Johns",
            &["2010-03-14T00:00-03:30", "2010-03-14T01:01-02:30", "2010-03-14T02:00-02:30"],
        );
        starts(
            Hour,
            "America/St_Johns",
            &["2010-11-07T00:00-02:30", "2010-11-07T00:00-03:30", "2010-11-07T01:00-03:30"],
        );
    }

    #[test]
    fn the_ends_of_time_saturate() {
        for (zone, every) in NASTY.into_iter().flat_map(|zone| EVERY.map(|every| (zone, every))) {
            let calendar = calendar(every, zone);
            assert_eq!(calendar.period_at(UnixNanos(i64::MIN)).start, UnixNanos(i64::MIN));
            assert_eq!(calendar.period_at(UnixNanos(i64::MAX)).end, UnixNanos(i64::MAX));
        }
    }

    #[test]
    fn words_and_numbers_are_checked() {
        for every in EVERY {
            assert_eq!(every.to_string().parse(), Ok(every));
        }
        assert_eq!("week".parse::<Every>(), Err(EveryError("week".to_owned())));
        assert_eq!(Calendar::new(0, Every::Day, Zone::utc()), Err(LimitError::Amount(0)));
        let daily = Calendar::new(86_400, Every::Day, Zone::utc()).unwrap();
        assert!((daily.per_second() - 1.0).abs() < 1e-9);
        assert_eq!(unix("2024-02-29T12:00:00.5Z").to_string(), "2024-02-29T12:00:00.5Z");
    }

    proptest! {
        #[test]
        fn periods_contain_their_instants_and_tile_time(
            // From 1990 to 2100, half of the time within some hours of a transition.
            second in 631_152_000_i64..4_102_444_800, near in proptest::option::of(-100_000_i64..100_000),
            nanos in 0..NANOS, zone in proptest::sample::select(&NASTY), every in proptest::sample::select(&EVERY),
        ) {
            let calendar = calendar(every, zone);
            let second = match near {
                Some(away) => calendar.zone.next_transition(second).unwrap_or(second) + away,
                None => second,
            };
            let at = UnixNanos(second * NANOS + nanos);
            let period = calendar.period_at(at);
            prop_assert!(period.contains(at));
            prop_assert_eq!(calendar.period_at(period.start), period);
            prop_assert_eq!(calendar.period_at(UnixNanos(period.end.0 - 1)), period);
            let next = calendar.period_at(period.end);
            prop_assert_eq!(next.start, period.end);
            prop_assert!(next.number > period.number);
            prop_assert_eq!(period.number * NANOS, period.start.0);
        }
    }
}
