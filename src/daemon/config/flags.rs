//! What the command line and the environment say over the file.

use std::path::PathBuf;

use super::file::{ConfigFile, KindSection, LimitSection, POOL_KEYS, PoolSection};
use super::problem::{ConfigError, Place, Set};
use super::shorthand::{self, shorthand};
use super::units::{nearest, parse_duration, parse_whole};

/// What beats the file, as it was typed. The environment is in it where no flag was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--name`.
    pub name: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--gossip`.
    pub gossip: Option<String>,
    /// Every `--seed`; any replaces the file's.
    pub seeds: Vec<String>,
    /// Every `--pool`; one replaces the file's pool of the same name and is added otherwise.
    pub pools: Vec<String>,
    /// `--policy`.
    pub policy: Option<String>,
    /// `--no-mdns`.
    pub no_mdns: bool,
}

/// Puts `overrides` over what `file` says.
pub(super) fn apply(overrides: &Overrides, file: &mut ConfigFile, errors: &mut Vec<ConfigError>) {
    replace(&mut file.node.name, "--name", overrides.name.clone());
    file.node.data_dir = overrides.data_dir.clone().or(file.node.data_dir.take());
    file.node.socket = overrides.socket.clone().or(file.node.socket.take());
    replace(&mut file.swarm.gossip, "--gossip", overrides.gossip.clone());
    replace(&mut file.swarm.policy, "--policy", overrides.policy.clone());
    replace(&mut file.swarm.discover, "--no-mdns", overrides.no_mdns.then(|| "none".to_owned()));
    if !overrides.seeds.is_empty() {
        file.swarm.seeds = overrides.seeds.iter().map(|seed| set("--seed", seed.clone())).collect();
    }
    let pools: Vec<_> = overrides.pools.iter().filter_map(|text| pool(text, errors)).collect();
    let name = |pool: &PoolSection| pool.name.as_ref().map(|name| name.value.clone());
    file.pools.retain(|old| !pools.iter().any(|new| name(new) == name(old)));
    file.pools.extend(pools);
}

/// Reads `NAME:rpm=500,tpm=80000,burst=50`: shorthands, `NAME=AMOUNT/PER` for other limits on requests, `burst`
/// for the limit before it, and the keys of a `[[pool]]` that have one value.
pub(super) fn pool(text: &str, errors: &mut Vec<ConfigError>) -> Option<PoolSection> {
    let place = |key: &str| Place { source: "--pool".to_owned(), key: key.to_owned() };
    // The name may hold colons: the last one before the first `=` ends it.
    let end = text.find('=').and_then(|equals| text[..equals].rfind(':'));
    let Some(end) = end.filter(|end| *end > 0) else {
        errors.push(
            place("")
                .error(format!("{text:?} must be NAME:LIMIT=AMOUNT, such as \"api:rpm=500,tpm=80_000\"")),
        );
        return None;
    };
    let (name, settings) = (&text[..end], &text[end + 1..]);
    let mut pool = PoolSection::new(place(name));
    pool.name = Some(Set { value: name.to_owned(), place: place(name) });
    let before = errors.len();
    for setting in settings.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
        let Some((key, value)) = setting.split_once('=') else {
            errors.push(pool.place.error(format!("{setting:?} must be KEY=VALUE, such as rpm=500")));
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        let place = pool.place.at(key);
        if let Err(reason) = setting_of(&mut pool, key, value, &place) {
            errors.push(place.error(reason));
        }
    }
    if pool.limits.is_empty() && errors.len() == before {
        errors.push(pool.place.error("has no limit; add one, such as rpm=500"));
    }
    (errors.len() == before).then_some(pool)
}

fn setting_of(pool: &mut PoolSection, key: &str, value: &str, place: &Place) -> Result<(), String> {
    let place = place.clone();
    match key {
        "burst" => {
            let limit = pool.limits.last_mut().ok_or("comes before any limit; write rpm=500,burst=50")?;
            let (name, kind) = (&limit.name.value, limit.kind_name());
            match &mut limit.kind {
                KindSection::Rate { burst: Some(_), .. } => return Err(format!("is there twice for {name}")),
                KindSection::Rate { burst, .. } => *burst = Some(Set { value: parse_whole(value)?, place }),
                _ => return Err(format!("follows {name}, a {kind} limit, which has none; remove it")),
            }
        }
        "headroom" => {
            let headroom =
                value.parse().map_err(|_| format!("is {value:?}, must be a number, such as 0.1"))?;
            pool.headroom = Some(Set { value: headroom, place });
        }
        "overflow" => pool.overflow = Some(Set { value: value.to_owned(), place }),
        "queue_timeout" => pool.queue_timeout = Some(Set { value: parse_duration(value)?, place }),
        "max_queue" => pool.max_queue = Some(Set { value: parse_whole(value)?, place }),
        "ageing" => pool.ageing = Some(Set { value: parse_duration(value)?, place }),
        "keyed" => {
            let keyed = value.parse().map_err(|_| format!("is {value:?}, must be true or false"))?;
            pool.keyed = Some(Set { value: keyed, place });
        }
        "max_keys" => pool.max_keys = Some(Set { value: parse_whole(value)?, place }),
        "breaker" => return Err("has several numbers, which only a file can say".to_owned()),
        _ => pool.limits.push(limit(key, value, place)?),
    }
    Ok(())
}

fn limit(key: &str, value: &str, place: Place) -> Result<LimitSection, String> {
    match (shorthand(key), value.split_once('/')) {
        (Some(shorthand), None) => {
            Ok(LimitSection::short(shorthand, Set { value: parse_whole(value)?, place }))
        }
        (Some(shorthand), Some(_)) if shorthand.per.is_none() => {
            Err(format!("has no period; write {key}=AMOUNT"))
        }
        (Some(_), Some(_)) => {
            Err(format!("has a period already; write {key}=AMOUNT, or another name for the limit"))
        }
        (None, Some((amount, per))) => Ok(LimitSection {
            name: Set { value: key.to_owned(), place: place.clone() },
            unit: Set { value: "requests".to_owned(), place: place.clone() },
            amount: Set { value: parse_whole(amount)?, place: place.clone() },
            kind: KindSection::Rate { per: Set { value: parse_duration(per)?, place }, burst: None },
        }),
        (None, None) => {
            let known: Vec<_> = shorthand::names().chain(["burst"]).chain(POOL_KEYS).collect();
            let hint = nearest(key, &known).map(|near| format!("did you mean {near:?}? "));
            Err(format!(
                "unknown key; {}A limit of your own is written with its period: {key}={value}/1m",
                hint.unwrap_or_default()
            ))
        }
    }
}

fn replace(old: &mut Option<Set<String>>, flag: &str, value: Option<String>) {
    if let Some(value) = value {
        *old = Some(set(flag, value));
    }
}

fn set(flag: &str, value: String) -> Set<String> {
    Set { value, place: Place { source: flag.to_owned(), key: String::new() } }
}
