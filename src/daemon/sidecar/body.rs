//! Bodies of requests, read with the patience of someone who wants to be understood: every mistake names its member and
//! what to write instead.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::api::Problem;
use crate::daemon::config::PoolConfig;
use crate::protocol::limit::{AMOUNT_MAX, Cost, Limit, NAME_MAX};

/// The most commas and opening brackets of a body, four times what the longest sensible one has. Two bytes of a list take 32
/// of memory, eight of an object more than 600: in 64 KiB there would be room for mebibytes.
const PARTS_MAX: usize = 512;

/// The members of a JSON object in a body.
pub struct Members<'a> {
    members: &'a Map<String, Value>,
    /// Where the object is, such as `items[0].`; empty for the body itself.
    place: String,
}

/// The JSON object that a body is. Nothing at all is an empty one, if `optional`.
///
/// # Errors
/// The answer to give: 400.
pub fn object(body: &[u8], optional: bool, example: &str) -> Result<Map<String, Value>, Problem> {
    if optional && body.is_empty() {
        return Ok(Map::new());
    }
    let parts = body.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if parts > PARTS_MAX {
        let detail = format!(
            "the body has {parts} commas and brackets, at most {PARTS_MAX} are read; send less at once"
        );
        return Err(bad(None, detail));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| bad(None, format!("the body is no JSON: {error}; send for example {example}")))?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(bad(None, format!("the body must be a JSON object; send for example {example}"))),
    }
}

impl<'a> Members<'a> {
    /// The members of the object at `place`, all of which must be `known`.
    ///
    /// # Errors
    /// 400 for the first that is not.
    pub fn new(
        members: &'a Map<String, Value>,
        place: impl Into<String>,
        known: &[&str],
    ) -> Result<Self, Problem> {
        let members = Self { members, place: place.into() };
        match members.members.keys().find(|member| !known.contains(&member.as_str())) {
            Some(unknown) => {
                let hint = nearest(unknown, known.iter().copied());
                Err(members.bad(unknown, format!("there is no member {:?}{hint}", cut(unknown))))
            }
            None => Ok(members),
        }
    }

    /// A member's value, unless it is absent or null.
    pub fn get(&self, member: &str) -> Option<&'a Value> {
        self.members.get(member).filter(|value| !value.is_null())
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// 400.
    pub fn number(&self, member: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(value) = self.get(member) else { return Ok(None) };
        let number = value.as_u64().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            let (least, most, value) = (range.start(), range.end(), cut(&value.to_string()));
            let name = cut(member);
            self.bad(member, format!("{name} must be a whole number from {least} to {most}, not {value}"))
        })
    }

    /// A time in milliseconds.
    ///
    /// # Errors
    /// 400.
    pub fn millis(&self, member: &str, range: RangeInclusive<Duration>) -> Result<Option<Duration>, Problem> {
        let (least, most) = (range.start().as_millis() as u64, range.end().as_millis() as u64);
        Ok(self.number(member, least..=most)?.map(Duration::from_millis))
    }

    /// A text of at most `most` bytes.
    ///
    /// # Errors
    /// 400.
    pub fn text(&self, member: &str, most: usize) -> Result<Option<&'a str>, Problem> {
        match self.get(member) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= most => Ok(Some(text)),
            Some(_) => Err(self.bad(member, format!("{member} must be a string of at most {most} bytes"))),
        }
    }

    /// What one of these words stands for.
    ///
    /// # Errors
    /// 400.
    pub fn choice<T: Copy>(&self, member: &str, known: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(value) = self.get(member) else { return Ok(None) };
        let meant = known.iter().find(|(word, _)| value.as_str() == Some(word));
        meant.map(|(_, meant)| Some(*meant)).ok_or_else(|| {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            self.bad(member, format!("{member} must be one of {}", words.join(", ")))
        })
    }

    /// The place of the pool that a member names.
    ///
    /// # Errors
    /// 400, or 404 if there is no such pool.
    pub fn pool(&self, member: &str, pools: &[PoolConfig]) -> Result<usize, Problem> {
        match self.get(member) {
            Some(Value::String(name)) => pool_named(name, pools)
                .map_err(|problem| Problem { field: Some(self.field(member)), ..problem }),
            Some(_) => Err(self.bad(member, format!("{member} must be a string"))),
            None => {
                let known: Vec<&str> = pools.iter().map(|pool| pool.pool.name()).take(8).collect();
                Err(self.bad(member, format!("{member} is missing; there is {}", known.join(", "))))
            }
        }
    }

    /// The place in `pool` of the limit that a member names.
    ///
    /// # Errors
    /// 400.
    pub fn limit(&self, member: &str, pool: &PoolConfig) -> Result<Option<usize>, Problem> {
        let Some(name) = self.text(member, NAME_MAX)? else { return Ok(None) };
        let limits = pool.pool.limits();
        let place = limits.iter().position(|limit| limit.name == name);
        place.map(Some).ok_or_else(|| {
            let hint = nearest(name, limits.iter().map(|limit| limit.name.as_str()));
            let pool = pool.pool.name();
            self.bad(member, format!("pool {pool} has no limit {:?}{hint}", cut(name)))
        })
    }

    /// What is said of a call's cost by `requests`, `tokens` and `cost`, for these pools; and whether anything is.
    ///
    /// # Errors
    /// 400, also where `cost` names what none of the pools has.
    pub fn cost(&self, pools: &[&PoolConfig]) -> Result<(Cost, bool), Problem> {
        let mut cost = Cost { units: [].into(), limits: [].into() };
        for unit in ["requests", "tokens"] {
            if let Some(units) = self.number(unit, 0..=AMOUNT_MAX)? {
                cost.units.insert(unit.to_owned(), units);
            }
        }
        match self.get("cost") {
            None => {}
            Some(Value::Object(named)) => {
                let named = Members { members: named, place: format!("{}cost.", self.place) };
                let limits: Vec<&Limit> = pools.iter().flat_map(|pool| pool.pool.limits()).collect();
                for name in named.members.keys() {
                    let units = named.number(name, 0..=AMOUNT_MAX)?.unwrap_or(0);
                    if limits.iter().any(|limit| limit.name == *name) {
                        cost.limits.insert(name.clone(), units);
                    } else if limits.iter().any(|limit| limit.unit == *name) {
                        cost.units.insert(name.clone(), units);
                    } else {
                        let known = limits.iter().flat_map(|limit| [limit.name.as_str(), &limit.unit]);
                        let pools: Vec<&str> = pools.iter().map(|pool| pool.pool.name()).collect();
                        let (pools, hint) = (pools.join(" and "), nearest(name, known));
                        return Err(
                            named.bad(name, format!("pool {pools} has no limit {:?}{hint}", cut(name)))
                        );
                    }
                }
            }
            Some(_) => {
                return Err(self.bad("cost", "cost must be an object of limits and numbers".to_owned()));
            }
        }
        let said = self.get("requests").or_else(|| self.get("tokens")).or_else(|| self.get("cost")).is_some();
        Ok((cost, said))
    }

    /// The answer that names `member` as wrong.
    pub fn bad(&self, member: &str, detail: String) -> Problem {
        bad(Some(self.field(member)), detail)
    }

    fn field(&self, member: &str) -> String {
        format!("{}{}", self.place, cut(member))
    }
}

/// The place of the pool with this name.
///
/// # Errors
/// 404 with the nearest name.
pub fn pool_named(name: &str, pools: &[PoolConfig]) -> Result<usize, Problem> {
    let names = || pools.iter().map(|pool| pool.pool.name());
    names().position(|known| known == name).ok_or_else(|| Problem {
        title: "no such pool".to_owned(),
        status: 404,
        detail: format!("there is no pool {:?}{}", cut(name), nearest(name, names())),
        field: None,
        reason: None,
    })
}

fn bad(field: Option<String>, detail: String) -> Problem {
    Problem { title: "malformed request".to_owned(), status: 400, detail, field, reason: None }
}

/// What a caller wrote, short enough to be shown to it.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    let wanted = cut(wanted);
    let best = known
        .map(|name| (strsim::jaro_winkler(&wanted, name), name))
        .max_by(|one, other| one.0.total_cmp(&other.0));
    best.map_or_else(String::new, |(_, name)| format!("; did you mean {name:?}?"))
}
