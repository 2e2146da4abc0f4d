//! Bodies of `POST /v1/acquire`, read with the patience of someone who wants to be understood: every mistake names its
//! member and what to write instead.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::daemon::api::Problem;
use crate::daemon::config::PoolConfig;
use crate::protocol::limit::{AMOUNT_MAX, Cost, Limit};
use crate::protocol::node::WAIT_MAX;

/// A request that the core can be asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// The place of the pool.
    pub pool: usize,
    /// What it takes.
    pub cost: Cost,
    /// How long it waits.
    pub wait: Duration,
    /// How long the permit lives.
    pub ttl: Duration,
}

const MEMBERS: [&str; 8] = ["pool", "requests", "tokens", "cost", "agent", "priority", "wait_ms", "ttl_ms"];
const PRIORITIES: [&str; 4] = ["critical", "high", "normal", "low"];
const AGENT_MAX: usize = 128;
const TTL: Duration = Duration::from_secs(120);

impl Ask {
    /// Reads a body.
    ///
    /// # Errors
    /// The answer to give: 400, or 404 for a pool that is not there.
    pub fn parse(body: &[u8], pools: &[PoolConfig]) -> Result<Self, Problem> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            bad(
                None,
                format!(
                    "the body is no JSON: {error}; send for example {{\"pool\":\"{}\"}}",
                    pools[0].pool.name()
                ),
            )
        })?;
        let Value::Object(members) = value else {
            return Err(bad(None, "the body must be a JSON object".to_owned()));
        };
        if let Some(unknown) = members.keys().find(|member| !MEMBERS.contains(&member.as_str())) {
            let hint = nearest(unknown, MEMBERS.into_iter());
            return Err(bad(Some(unknown), format!("there is no member {:?}{hint}", cut(unknown))));
        }
        let pool = pool(&members, pools)?;
        let cost = cost(&members, &pools[pool])?;
        words(&members)?;
        let wait = match number(&members, "wait_ms", WAIT_MAX.as_millis() as u64)? {
            Some(millis) => Duration::from_millis(millis),
            None if pools[pool].overflow_wait => pools[pool].queue_timeout,
            None => Duration::ZERO,
        };
        let ttl = number(&members, "ttl_ms", WAIT_MAX.as_millis() as u64)?.map_or(TTL, Duration::from_millis);
        Ok(Self { pool, cost, wait, ttl })
    }
}

fn pool(members: &Map<String, Value>, pools: &[PoolConfig]) -> Result<usize, Problem> {
    let names = || pools.iter().map(|pool| pool.pool.name());
    let name = match members.get("pool") {
        Some(Value::String(name)) => name,
        Some(_) => return Err(bad(Some("pool"), "pool must be a string".to_owned())),
        None => {
            let known: Vec<&str> = names().take(8).collect();
            return Err(bad(Some("pool"), format!("pool is missing; there is {}", known.join(", "))));
        }
    };
    names().position(|known| known == name).ok_or_else(|| Problem {
        title: "no such pool".to_owned(),
        status: 404,
        detail: format!("there is no pool {:?}{}", cut(name), nearest(name, names())),
        field: Some("pool".to_owned()),
    })
}

fn cost(members: &Map<String, Value>, pool: &PoolConfig) -> Result<Cost, Problem> {
    let mut cost = Cost::default();
    let requests = number(members, "requests", AMOUNT_MAX)?;
    let tokens = number(members, "tokens", AMOUNT_MAX)?;
    for (unit, units) in [("requests", requests), ("tokens", tokens)] {
        if let Some(units) = units {
            cost.units.insert(unit.to_owned(), units);
        }
    }
    match members.get("cost") {
        None | Some(Value::Null) => {}
        Some(Value::Object(named)) => {
            for name in named.keys() {
                let units = number(named, name, AMOUNT_MAX)?.unwrap_or(0);
                let limits = pool.pool.limits();
                if limits.iter().any(|limit| limit.name == *name) {
                    cost.limits.insert(name.clone(), units);
                } else if limits.iter().any(|limit| limit.unit == *name) {
                    cost.units.insert(name.clone(), units);
                } else {
                    let known = limits.iter().flat_map(|limit| [limit.name.as_str(), limit.unit.as_str()]);
                    let detail = format!(
                        "pool {} has no limit {:?}{}",
                        pool.pool.name(),
                        cut(name),
                        nearest(name, known)
                    );
                    return Err(bad(Some(&format!("cost.{}", cut(name))), detail));
                }
            }
        }
        Some(_) => return Err(bad(Some("cost"), "cost must be an object of limits and numbers".to_owned())),
    }
    let takes = |limit: &Limit| cost.of(limit) > 0;
    let said = requests.is_some() || tokens.is_some() || members.contains_key("cost");
    if !said && !pool.pool.limits().iter().any(takes) {
        // A forgotten cost would pass every limit of such a pool.
        let mut units: Vec<&str> = pool.pool.limits().iter().map(|limit| limit.unit.as_str()).collect();
        units.dedup();
        let detail =
            format!("pool {} counts {}; say how many this call takes", pool.pool.name(), units.join(" and "));
        return Err(bad(Some("cost"), detail));
    }
    Ok(cost)
}

/// Checks what is kept for people only.
fn words(members: &Map<String, Value>) -> Result<(), Problem> {
    match members.get("agent") {
        None | Some(Value::Null) => {}
        Some(Value::String(agent)) if agent.len() <= AGENT_MAX => {}
        Some(_) => {
            return Err(bad(Some("agent"), format!("agent must be a string of at most {AGENT_MAX} bytes")));
        }
    }
    match members.get("priority") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(priority)) if PRIORITIES.contains(&priority.as_str()) => Ok(()),
        Some(_) => Err(bad(Some("priority"), format!("priority must be one of {}", PRIORITIES.join(", ")))),
    }
}

/// A whole number from zero to `most`.
fn number(members: &Map<String, Value>, member: &str, most: u64) -> Result<Option<u64>, Problem> {
    match members.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if number <= most => Ok(Some(number)),
            _ => {
                let value = cut(&value.to_string());
                let member = cut(member);
                Err(bad(
                    Some(&member),
                    format!("{member} must be a whole number from 0 to {most}, not {value}"),
                ))
            }
        },
    }
}

fn bad(field: Option<&str>, detail: String) -> Problem {
    Problem { title: "malformed request".to_owned(), status: 400, detail, field: field.map(cut) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::{Config, Overrides};

    fn pools() -> Vec<PoolConfig> {
        let pools = vec!["api/one:rpm=500,itpm=4000".to_owned(), "two:tpm=90".to_owned()];
        Config::parse("", "", &Overrides { pools, ..Overrides::default() }).unwrap().pools
    }

    fn parse(body: &str) -> Result<Ask, Problem> {
        Ask::parse(body.as_bytes(), &pools())
    }

    #[test]
    fn a_pool_is_enough_where_it_counts_requests() {
        let ask = parse(r#"{"pool":"api/one"}"#).unwrap();
        assert_eq!((ask.pool, ask.cost, ask.wait), (0, Cost::requests(1), Duration::from_secs(30)));
    }

    #[test]
    fn costs_are_found_by_limit_or_by_unit() {
        let ask = parse(r#"{"pool":"api/one","requests":2,"cost":{"itpm":7},"wait_ms":0}"#).unwrap();
        assert_eq!((ask.cost.units["requests"], ask.cost.limits["itpm"], ask.wait), (2, 7, Duration::ZERO));
        let ask = parse(r#"{"pool":"api/one","cost":{"input_tokens":7}}"#).unwrap();
        assert_eq!(ask.cost.units["input_tokens"], 7);
    }

    #[test]
    fn mistakes_name_their_member() {
        let cases = [
            ("{", 400, None, "no JSON"),
            ("[]", 400, None, "object"),
            ("{}", 400, Some("pool"), "api/one"),
            (r#"{"pool":7}"#, 400, Some("pool"), "string"),
            (r#"{"pool":"api/on"}"#, 404, Some("pool"), "did you mean \"api/one\""),
            (r#"{"pool":"api/one","request":1}"#, 400, Some("request"), "\"requests\""),
            (r#"{"pool":"api/one","requests":-1}"#, 400, Some("requests"), "not -1"),
            (r#"{"pool":"api/one","requests":1.5}"#, 400, Some("requests"), "whole number"),
            (r#"{"pool":"api/one","requests":1e40}"#, 400, Some("requests"), "1e+40"),
            (r#"{"pool":"api/one","cost":{"rpn":1}}"#, 400, Some("cost.rpn"), "\"rpm\""),
            (r#"{"pool":"api/one","cost":{"rpm":"1"}}"#, 400, Some("rpm"), "whole number"),
            (r#"{"pool":"api/one","priority":"urgent"}"#, 400, Some("priority"), "critical"),
            (r#"{"pool":"two"}"#, 400, Some("cost"), "tokens"),
        ];
        for (body, status, field, words) in cases {
            let problem = parse(body).unwrap_err();
            assert_eq!((problem.status, problem.field.as_deref()), (status, field), "{body}");
            assert!(problem.detail.contains(words), "{body}: {}", problem.detail);
        }
    }
}
