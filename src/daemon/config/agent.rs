//! Checks what is said of agents.

use std::ops::RangeInclusive;

use crate::protocol::limit::{LIMITS_MAX, Limit, NAME_MAX};

use super::file::AgentSection;
use super::problem::{ConfigError, Set, within_or};
use super::{AgentConfig, limit};

/// The most sections: every new name is compared with each.
const AGENTS_MAX: usize = 256;
const WEIGHT: RangeInclusive<f64> = 0.001..=1_000.0;
const WEIGHT_DEFAULT: f64 = 1.0;
const SHARE: RangeInclusive<f64> = 0.000_001..=1.0;

/// Leaves out the agents that are wrong.
pub(super) fn validate(sections: Vec<AgentSection>, errors: &mut Vec<ConfigError>) -> Vec<AgentConfig> {
    if let Some(first) = sections.get(AGENTS_MAX) {
        errors.push(first.place.error(format!("is one of more than {AGENTS_MAX}; leave some out")));
        return Vec::new();
    }
    let mut matches: Vec<Set<String>> = Vec::new();
    let mut agents = Vec::new();
    for section in sections {
        let before = errors.len();
        let weight = within_or(section.weight.as_ref(), &WEIGHT, WEIGHT_DEFAULT, errors);
        let max_share = section.max_share.as_ref().map(|share| share.within(&SHARE));
        let max_share = max_share.transpose().map_err(|error| errors.push(error)).unwrap_or_default();
        let limits = limits(&section, errors);
        // That it is missing was said when the section was read.
        let Some(glob) = section.matches else { continue };
        errors.extend(check_glob(&glob, &matches).err());
        matches.push(glob.clone());
        if errors.len() == before {
            agents.push(AgentConfig {
                matches: glob.value,
                weight_thousandths: (weight * 1e3).round() as u32,
                max_share_millionths: max_share.map(|share| (share * 1e6).round() as u32),
                limits,
            });
        }
    }
    agents
}

/// What is matched `before` must leave something to `glob`.
fn check_glob(glob: &Set<String>, before: &[Set<String>]) -> Result<(), ConfigError> {
    if !(1..=NAME_MAX).contains(&glob.value.len()) || glob.value.chars().any(char::is_control) {
        return Err(glob.place.error(format!("must be 1 to {NAME_MAX} bytes without control characters")));
    }
    let Some(first) = before.iter().find(|first| first.value == "*" || first.value == glob.value) else {
        return Ok(());
    };
    let reason = format!("{:?} never counts: {:?}", glob.value, first.value);
    let reason = format!("{reason} at {} comes first and matches as much", first.place.source);
    Err(glob.place.error(format!("{reason}; remove one or change their order")))
}

/// An agent's own limits, which are one set for each name: a keyed pool by another name.
fn limits(section: &AgentSection, errors: &mut Vec<ConfigError>) -> Vec<Limit> {
    let others = section.limits.iter().filter(|limit| !limit.is_rate());
    errors.extend(others.map(|limit| {
        let is = format!("is a {} limit; agents have rate limits only", limit.kind_name());
        limit.name.place.error(format!("{:?} {is}; move it to a pool", limit.name.value))
    }));
    if section.limits.len() > LIMITS_MAX {
        let reason = format!("has {} limits, may have {LIMITS_MAX}; leave some out", section.limits.len());
        errors.push(section.place.error(reason));
    }
    limit::validate(&section.limits, None, errors)
}
