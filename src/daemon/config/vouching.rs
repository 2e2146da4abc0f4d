//! Checks what is said of founders, vouching and trust.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::file::{FounderSection, SwarmSection};
use super::problem::{ConfigError, Set, within_or};
use super::{Trust, Vouching};
use crate::protocol::id::NodeId;
use crate::protocol::share::{ONE, Share};

/// The most founders: everybody holds all of them.
const FOUNDERS_MAX: usize = 128;
const FOUNDED: RangeInclusive<f64> = 0.000_001..=1.0;
const AUTO_VOUCH: RangeInclusive<f64> = 0.0..=1.0;

/// Puts a default in the place of whatever is wrong.
pub(super) fn validate(swarm: &SwarmSection, errors: &mut Vec<ConfigError>) -> Vouching {
    let auto_vouch = within_or(swarm.auto_vouch.as_ref(), &AUTO_VOUCH, 1.0, errors);
    let trust = swarm.trust.as_ref().map_or(Ok(Trust::Members), trust);
    let trust = trust.map_err(|error| errors.push(error)).unwrap_or_default();
    Vouching { founders: founders(&swarm.founders, errors), auto_vouch: part(auto_vouch), trust }
}

fn trust(trust: &Set<String>) -> Result<Trust, ConfigError> {
    match trust.value.as_str() {
        "members" => Ok(Trust::Members),
        "weight" => Ok(Trust::Weight),
        other => Err(trust.place.choice(other, &["members", "weight"])),
    }
}

fn founders(sections: &[FounderSection], errors: &mut Vec<ConfigError>) -> BTreeMap<NodeId, Share> {
    let mut founders = BTreeMap::new();
    if let Some(first) = sections.get(FOUNDERS_MAX) {
        errors.push(first.place.error(format!("is one of more than {FOUNDERS_MAX}; leave some out")));
        return founders;
    }
    let mut sum = Share::ZERO;
    for section in sections {
        // What is missing was said when the section was read.
        let (Some(id), Some(share)) = (&section.id, &section.share) else { continue };
        let checked = share.within(&FOUNDED).and_then(|share| Ok((node_id(id)?, part(share))));
        let (node, parts) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        sum += parts;
        if founders.insert(node, parts).is_some() {
            errors.push(id.place.error("is the id of a founder above; each founds once"));
        } else if sum > ONE {
            errors
                .push(share.place.error("makes the shares of all founders more than 1 together; lower some"));
        }
    }
    founders
}

fn node_id(id: &Set<String>) -> Result<NodeId, ConfigError> {
    let text = id.value.as_bytes();
    let digit = |place: usize| char::from(*text.get(place)?).to_digit(16);
    let byte = |place: usize| Some((digit(2 * place)? * 16 + digit(2 * place + 1)?) as u8);
    let mut bytes = [0; 32];
    let is_whole = text.len() == 64
        && bytes.iter_mut().enumerate().all(|(place, into)| byte(place).map(|byte| *into = byte).is_some());
    if is_whole {
        Ok(NodeId(bytes))
    } else {
        Err(id.place.error(
            "must be the 64 hexadecimal digits that `aquifer status --json` shows as the founder's id",
        ))
    }
}

fn part(part: f64) -> Share {
    // Six digits count, as in the file.
    ONE.scale((part * 1e6).round() as u64, 1_000_000)
}
