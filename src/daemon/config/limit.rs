//! Checks limits and makes the protocol's out of them.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::protocol::calendar::Calendar;
use crate::protocol::limit::{Concurrency, Kind, Limit, LimitError, PER_MAX, Pool, Rate, Window};

use super::file::{KindSection, LimitSection};
use super::problem::{ConfigError, Set};

const TTL: RangeInclusive<Duration> = Duration::from_millis(1)..=PER_MAX;

/// Leaves out the limits that are wrong. `headroom` is the part of each that stays unused.
pub(super) fn validate(
    sections: &[LimitSection],
    headroom: Option<&Set<f64>>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Limit> {
    let kept = kept(headroom, errors);
    let mut limits: Vec<Limit> = Vec::new();
    for written in sections {
        if limits.iter().any(|other| other.name == written.name.value) {
            let reason = format!("limit {:?} is there twice; remove one or rename it", written.name.value);
            errors.push(written.name.place.error(reason));
            continue;
        }
        limits.extend(limit(written, kept).map_err(|error| errors.push(error)));
    }
    limits
}

fn limit(written: &LimitSection, kept: u32) -> Result<Limit, ConfigError> {
    let LimitSection { name, unit, .. } = written;
    // Too large a number is wrong even if what is kept of it is not.
    kind(written, BILLION)?;
    let limit = Limit { name: name.value.clone(), unit: unit.value.clone(), kind: kind(written, kept)? };
    // A pool of this limit alone says whether the names are good, and which one is not.
    for (text, place) in [(&limit.name, &name.place), (&limit.unit, &unit.place)] {
        let alone = Limit { name: text.clone(), unit: text.clone(), kind: limit.kind.clone() };
        Pool::new("pool", vec![alone]).map_err(|error| place.error(error.to_string()))?;
    }
    Ok(limit)
}

/// The numbers of a limit, of which so many billionths are kept.
fn kind(written: &LimitSection, kept: u32) -> Result<Kind, ConfigError> {
    let LimitSection { amount, kind, .. } = written;
    let units = part(amount.value, kept);
    let wrong_amount = |error: LimitError| amount.place.error(error.to_string());
    match kind {
        KindSection::Rate { per, burst } => {
            let burst = burst.as_ref().unwrap_or(amount);
            let rate = Rate::new(units, per.value, part(burst.value, kept));
            let rate = rate.map_err(|error| match error {
                LimitError::Per(_) => per.place.error(error.to_string()),
                LimitError::Burst(_) => burst.place.error(error.to_string()),
                _ => wrong_amount(error),
            });
            rate.map(Kind::Rate)
        }
        KindSection::Window { per } => {
            let window = Window::new(units, per.value);
            let window = window.map_err(|error| match error {
                LimitError::Per(_) => per.place.error(error.to_string()),
                _ => wrong_amount(error),
            });
            window.map(Kind::Window)
        }
        KindSection::Calendar { every, zone } => {
            Calendar::new(units, *every, zone.clone()).map(Kind::Calendar).map_err(wrong_amount)
        }
        KindSection::Concurrency { ttl } => {
            let ttl = ttl.within(&TTL)?;
            Concurrency::new(units, ttl).map(Kind::Concurrency).map_err(wrong_amount)
        }
    }
}

/// What stays of every limit, in billionths: whole numbers, so that every node of a swarm comes to the same
/// limits from the same file.
fn kept(headroom: Option<&Set<f64>>, errors: &mut Vec<ConfigError>) -> u32 {
    let Some(headroom) = headroom else { return BILLION };
    if (0.0..1.0).contains(&headroom.value) {
        #[expect(clippy::cast_sign_loss, reason = "the range was just checked")]
        return ((1.0 - headroom.value) * f64::from(BILLION)).round() as u32;
    }
    let reason =
        format!("is {}, must be from 0.0 to less than 1.0; 0.1 leaves a tenth unused", headroom.value);
    errors.push(headroom.place.error(reason));
    BILLION
}

const BILLION: u32 = 1_000_000_000;

fn part(units: u64, kept: u32) -> u64 {
    let part = u128::from(units) * u128::from(kept) / u128::from(BILLION);
    // None at all is a mistake, which must be seen.
    (part as u64).max(units.min(1))
}
