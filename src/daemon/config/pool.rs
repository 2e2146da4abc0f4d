//! Checks pools and makes the protocol's out of them.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::protocol::limit::{Pool, QUEUE_DEFAULT};
use crate::protocol::node::METERS_MAX;

use super::file::{BreakerSection, PoolSection};
use super::problem::{ConfigError, Set, within_or};
use super::{
    AGEING_DEFAULT, BreakerSettings, DEFAULT_POOL, KEYS_DEFAULT, PoolConfig, QUEUE_TIMEOUT_DEFAULT, flags,
    limit,
};

const QUEUE: RangeInclusive<u64> = 0..=1_000_000;
const QUEUE_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=DAY;
const AGEING: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;
const KEYS: RangeInclusive<u64> = 1..=10_000_000;
const FAILURE_RATE: RangeInclusive<f64> = 0.000_001..=1.0;
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=HOUR;
const MIN_COUNT: RangeInclusive<u64> = 1..=1_000_000;
const OPEN_FOR: RangeInclusive<Duration> = Duration::from_millis(100)..=HOUR;
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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
                    true
                }
            };
        let queue_timeout =
            within_or(section.queue_timeout.as_ref(), &QUEUE_TIMEOUT, QUEUE_TIMEOUT_DEFAULT, errors);
        let ageing = within_or(section.ageing.as_ref(), &AGEING, AGEING_DEFAULT, errors);
        let keyed = keyed(&section, errors);
        let breaker = section.breaker.as_ref().map(|breaker| self::breaker(breaker, errors));
        let so_far: usize = pools.iter().map(|pool: &PoolConfig| pool.pool.limits().len()).sum();
        if so_far + pool.as_ref().map_or(0, |pool| pool.limits().len()) > METERS_MAX {
            let reason =
                format!("with this pool there are more than {METERS_MAX} limits, the most for one node");
            errors.push(name.place.error(format!("{reason}; leave some out")));
            continue;
        }
        if let (Some(pool), true) = (pool, errors.len() == before) {
            pools.push(PoolConfig { pool, overflow_wait, queue_timeout, ageing, keyed, breaker });
        }
    }
    pools
}

fn pool(name: &Set<String>, section: &PoolSection, errors: &mut Vec<ConfigError>) -> Option<Pool> {
    let limits = limit::validate(&section.limits, section.headroom.as_ref(), errors);
    if limits.len() < section.limits.len() || limits.is_empty() {
        return None;
    }
    let mut pool = Pool::new(&name.value, limits)
        .map_err(|error| errors.push(name.place.error(error.to_string())))
        .ok()?;
    pool.max_queue = within_or(section.max_queue.as_ref(), &QUEUE, QUEUE_DEFAULT as u64, errors) as usize;
    Some(pool)
}

/// How many keys the pool may have at a time, if it has a set of limits for each.
fn keyed(section: &PoolSection, errors: &mut Vec<ConfigError>) -> Option<usize> {
    let keyed = section.keyed.as_ref().is_some_and(|keyed| keyed.value);
    if !keyed {
        let reason = "is for pools with limits for each key; add keyed = true, or remove it";
        errors.extend(section.max_keys.as_ref().map(|keys| keys.place.error(reason)));
        return None;
    }
    let others = section.limits.iter().filter(|limit| !limit.is_rate());
    errors.extend(others.map(|limit| {
        let is = format!("is a {} limit; a keyed pool has rate limits only", limit.kind_name());
        limit.name.place.error(format!("{:?} {is}; move it to a pool that is not keyed", limit.name.value))
    }));
    Some(within_or(section.max_keys.as_ref(), &KEYS, KEYS_DEFAULT as u64, errors) as usize)
}

fn breaker(written: &BreakerSection, errors: &mut Vec<ConfigError>) -> BreakerSettings {
    let BreakerSection { failure_rate, window, min_count, open_for } = written;
    let default = BreakerSettings::default();
    BreakerSettings {
        failure_rate: within_or(failure_rate.as_ref(), &FAILURE_RATE, default.failure_rate, errors),
        window: within_or(window.as_ref(), &WINDOW, default.window, errors),
        min_count: within_or(min_count.as_ref(), &MIN_COUNT, default.min_count.into(), errors) as u32,
        open_for: within_or(open_for.as_ref(), &OPEN_FOR, default.open_for, errors),
    }
}
