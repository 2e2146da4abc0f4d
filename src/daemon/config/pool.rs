//! Checks pools and makes the protocol's out of them.

use std::time::Duration;

use crate::protocol::limit::{Limit, LimitError, Pool, QUEUE_DEFAULT, Rate};
use crate::protocol::node::METERS_MAX;

use super::file::{LimitSection, PoolSection};
use super::problem::{ConfigError, Set};
use super::units::show_duration;
use super::{DEFAULT_POOL, PoolConfig, QUEUE_TIMEOUT_DEFAULT, flags};

const QUEUE_MAX: u64 = 1_000_000;
const QUEUE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Leaves out the pools that are wrong. None at all is one [`DEFAULT_POOL`].
pub(super) fn validate(mut sections: Vec<PoolSection>, errors: &mut Vec<ConfigError>) -> Vec<PoolConfig> {
    if sections.is_empty() {
        sections.extend(flags::pool(DEFAULT_POOL, errors));
    }
    let mut pools = Vec::new();
    let mut names: Vec<Set<String>> = Vec::new();
    for section in sections {
        let Some(name) = section.name.clone() else {
            errors.push(section.place.at("name").error("is missing; add name = \"…\""));
            continue;
        };
        if let Some(first) = names.iter().find(|other| other.value == name.value) {
            let reason = format!("pool {:?} is there twice, first at {}", name.value, first.place.source);
            errors.push(name.place.error(format!("{reason}; give one of them another name")));
        }
        names.push(name.clone());
        let before = errors.len();
        let pool = pool(&name, &section, errors);
        let overflow_wait =
            match section.overflow.as_ref().map(|overflow| (overflow, overflow.value.as_str())) {
                None | Some((_, "wait")) => true,
                Some((_, "refuse")) => false,
                Some((overflow, other)) => {
                    errors.push(overflow.place.choice(other, &["wait", "refuse"]));
                    continue;
                }
            };
        let queue_timeout = queue_timeout(section.queue_timeout, errors);
        let so_far: usize = pools.iter().map(|pool: &PoolConfig| pool.pool.limits().len()).sum();
        if so_far + pool.as_ref().map_or(0, |pool| pool.limits().len()) > METERS_MAX {
            let reason =
                format!("with this pool there are more than {METERS_MAX} limits, the most for one node");
            errors.push(name.place.error(format!("{reason}; leave some out")));
            continue;
        }
        if let (Some(pool), true) = (pool, errors.len() == before) {
            pools.push(PoolConfig { pool, overflow_wait, queue_timeout });
        }
    }
    pools
}

fn pool(name: &Set<String>, section: &PoolSection, errors: &mut Vec<ConfigError>) -> Option<Pool> {
    let kept = kept(section.headroom.as_ref(), errors);
    let mut limits: Vec<Limit> = Vec::new();
    for written in &section.limits {
        if limits.iter().any(|other| other.name == written.name.value) {
            let reason = format!("limit {:?} is there twice in pool {:?}", written.name.value, name.value);
            errors.push(written.name.place.error(format!("{reason}; remove one or rename it")));
            continue;
        }
        limits.extend(limit(written, kept).map_err(|error| errors.push(error)));
    }
    if limits.len() < section.limits.len() || limits.is_empty() {
        return None;
    }
    let mut pool = Pool::new(&name.value, limits)
        .map_err(|error| errors.push(name.place.error(error.to_string())))
        .ok()?;
    pool.max_queue = max_queue(section.max_queue.as_ref(), errors);
    Some(pool)
}

fn limit(written: &LimitSection, kept: u32) -> Result<Limit, ConfigError> {
    let LimitSection { name, unit, amount, per, burst } = written;
    let burst = burst.as_ref().unwrap_or(amount);
    let rate = Rate::new(amount.value, per.value, burst.value);
    let rate = rate.and_then(|_| {
        // The numbers as written are good, so what is kept of them is too.
        Rate::new(part(amount.value, kept), per.value, part(burst.value, kept))
    });
    let rate = rate.map_err(|error| {
        let place = match error {
            LimitError::Per(_) => &per.place,
            LimitError::Burst(_) => &burst.place,
            _ => &amount.place,
        };
        place.error(error.to_string())
    })?;
    let limit = Limit { name: name.value.clone(), unit: unit.value.clone(), kind: rate.into() };
    // A pool of this limit alone says whether the names are good, and which one is not.
    for (text, place) in [(&limit.name, &name.place), (&limit.unit, &unit.place)] {
        let alone = Limit { name: text.clone(), unit: text.clone(), kind: rate.into() };
        Pool::new("pool", vec![alone]).map_err(|error| place.error(error.to_string()))?;
    }
    Ok(limit)
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
    (part as u64).max(1)
}

fn max_queue(max_queue: Option<&Set<u64>>, errors: &mut Vec<ConfigError>) -> usize {
    match max_queue {
        None => QUEUE_DEFAULT,
        Some(max_queue) if max_queue.value > QUEUE_MAX => {
            let reason = format!("is {}, must be from 0 to {QUEUE_MAX}", max_queue.value);
            errors.push(max_queue.place.error(reason));
            QUEUE_DEFAULT
        }
        Some(max_queue) => max_queue.value as usize,
    }
}

fn queue_timeout(time: Option<Set<Duration>>, errors: &mut Vec<ConfigError>) -> Duration {
    match time {
        None => QUEUE_TIMEOUT_DEFAULT,
        Some(time) if time.value > QUEUE_TIMEOUT_MAX => {
            let (is, most) = (show_duration(time.value), show_duration(QUEUE_TIMEOUT_MAX));
            errors.push(time.place.error(format!("is {is}, must be from 0s to {most}")));
            QUEUE_TIMEOUT_DEFAULT
        }
        Some(time) => time.value,
    }
}
