//! Bodies of `POST /v1/acquire` and `POST /allow`: what the core is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::body::{Members, object};
use crate::api::Problem;
use crate::daemon::api::KEY_MAX;
use crate::daemon::config::PoolConfig;
use crate::daemon::engine::Wanted;
use crate::protocol::limit::{AMOUNT_MAX, Cost, Limit, NAME_MAX};
use crate::protocol::node::{PERMIT_TTL, WAIT_MAX};
use crate::protocol::queue::Class;

/// A request that the core can be asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// What it takes: lists, each all or nothing, of which one is enough.
    pub choices: Vec<Vec<Wanted>>,
    /// Who asks; may be empty.
    pub agent: String,
    /// How urgent it is.
    pub class: Class,
    /// How long it waits.
    pub wait: Duration,
    /// How long the permit lives.
    pub ttl: Duration,
    /// Whether the permit ends with the connection.
    pub bind: bool,
}

const MEMBERS: [&str; 11] =
    ["pool", "requests", "tokens", "cost", "key", "items", "agent", "priority", "wait_ms", "ttl_ms", "bind"];
const ITEM_MEMBERS: [&str; 5] = ["pool", "requests", "tokens", "cost", "key"];
const ALLOW_MEMBERS: [&str; 2] = ["pool", "cost"];
const BINDS: [(&str, bool); 2] = [("connection", true), ("none", false)];
/// The most pools that one request can name.
const POOLS_MAX: usize = 16;

impl Ask {
    /// Reads the body of `POST /v1/acquire`.
    ///
    /// # Errors
    /// The answer to give: 400, or 404 for a pool that is not there.
    pub fn parse(body: &[u8], pools: &[PoolConfig]) -> Result<Self, Problem> {
        match serde_json::from_slice::<Plain<'_>>(body).ok().and_then(|plain| plain.ask(pools)) {
            Some(ask) => Ok(ask),
            None => Self::parse_patiently(body, pools),
        }
    }

    /// The same for every body, with the mistake named if it is a wrong one.
    fn parse_patiently(body: &[u8], pools: &[PoolConfig]) -> Result<Self, Problem> {
        let body = object(body, false, &format!("{{\"pool\":{:?}}}", pools[0].pool.name()))?;
        let members = Members::new(&body, "", &MEMBERS)?;
        let choices = choices(&body, &members, pools)?;
        let first = choices.iter().flatten().map(|wanted| &pools[wanted.pool]);
        let waits = first.clone().all(|pool| pool.overflow_wait);
        let unsaid = first.map(|pool| pool.queue_timeout).min().filter(|_| waits).unwrap_or_default();
        let priorities = Class::ALL.map(|class| (class.name(), class));
        Ok(Self {
            choices,
            agent: members.text("agent", NAME_MAX)?.unwrap_or_default().to_owned(),
            class: members.choice("priority", &priorities)?.unwrap_or_default(),
            wait: members.millis("wait_ms", Duration::ZERO..=WAIT_MAX)?.unwrap_or(unsaid),
            ttl: members.millis("ttl_ms", Duration::from_millis(1)..=WAIT_MAX)?.unwrap_or(PERMIT_TTL),
            bind: members.choice("bind", &BINDS)?.unwrap_or_default(),
        })
    }

    /// Reads the body of `POST /allow`, which may be empty: the first pool then, and one request. Of a pool that does not
    /// count requests, the cost is of what it counts first.
    ///
    /// # Errors
    /// The answer to give: 400, or 404 for a pool that is not there.
    pub fn parse_allow(body: &[u8], pools: &[PoolConfig]) -> Result<Self, Problem> {
        let body = object(body, true, &format!("{{\"pool\":{:?},\"cost\":1}}", pools[0].pool.name()))?;
        let members = Members::new(&body, "", &ALLOW_MEMBERS)?;
        let pool = members.get("pool").map_or(Ok(0), |_| members.pool("pool", pools))?;
        let units = members.number("cost", 1..=AMOUNT_MAX)?.unwrap_or(1);
        let limits = pools[pool].pool.limits();
        let counted = limits.iter().map(|limit| limit.unit.as_str()).find(|unit| *unit == "requests");
        let counted = counted.unwrap_or(&limits[0].unit).to_owned();
        let cost = Cost { units: [(counted, units)].into(), limits: [].into() };
        Ok(Self {
            choices: vec![vec![Wanted { pool, cost, key: None }]],
            agent: String::new(),
            class: Class::default(),
            wait: Duration::ZERO,
            ttl: PERMIT_TTL,
            bind: false,
        })
    }
}

/// A body as most are: of one pool, all by units, nothing wrong. It is read in place, in a quarter of the time that any body
/// takes; whatever does not fit here is read again, patiently.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    pool: &'a str,
    requests: Option<u64>,
    tokens: Option<u64>,
    key: Option<&'a str>,
    agent: Option<&'a str>,
    priority: Option<Class>,
    wait_ms: Option<u64>,
    ttl_ms: Option<u64>,
    bind: Option<&'a str>,
}

impl Plain<'_> {
    /// The request; none if anything is wrong with it.
    fn ask(self, pools: &[PoolConfig]) -> Option<Ask> {
        let Self { pool, requests, tokens, key, agent, priority, wait_ms, ttl_ms, bind } = self;
        let place = pools.iter().position(|config| config.pool.name() == pool)?;
        let config = &pools[place];
        let said = requests.is_some() || tokens.is_some();
        let amounts = [("requests", requests.or(Some(1))), ("tokens", tokens)];
        let units = amounts.into_iter().filter_map(|(unit, amount)| Some((unit.to_owned(), amount?)));
        let cost = Cost { units: units.collect(), limits: BTreeMap::new() };
        let within = |millis: Option<u64>, least: u64| {
            millis.is_none_or(|millis| (least..=WAIT_MAX.as_millis() as u64).contains(&millis))
        };
        let right = cost.units.values().all(|amount| *amount <= AMOUNT_MAX)
            && (said || config.pool.limits().iter().any(|limit| cost.of(limit) > 0))
            && key.is_some() == config.keyed.is_some()
            && key.is_none_or(|key| key.len() <= KEY_MAX)
            && agent.is_none_or(|agent| agent.len() <= NAME_MAX)
            && within(wait_ms, 0)
            && within(ttl_ms, 1);
        let unsaid = if config.overflow_wait { config.queue_timeout } else { Duration::ZERO };
        let bind = match bind {
            None => Some(false),
            Some(word) => BINDS.iter().find(|(known, _)| *known == word).map(|(_, bind)| *bind),
        };
        right.then_some(Ask {
            choices: vec![vec![Wanted { pool: place, cost, key: key.map(str::to_owned) }]],
            agent: agent.unwrap_or_default().to_owned(),
            class: priority.unwrap_or_default(),
            wait: wait_ms.map_or(unsaid, Duration::from_millis),
            ttl: ttl_ms.map_or(PERMIT_TTL, Duration::from_millis),
            bind: bind?,
        })
    }
}

/// One list of one pool; one of several; or as many lists of one pool as there are to fall back on.
fn choices(
    body: &Map<String, Value>,
    members: &Members<'_>,
    pools: &[PoolConfig],
) -> Result<Vec<Vec<Wanted>>, Problem> {
    match (members.get("items"), members.get("pool")) {
        (None, Some(Value::Array(names))) => {
            is_some_few("pool", names).map_err(|detail| members.bad("pool", detail))?;
            let choice = |name: &Value| {
                let one = Map::from_iter([("pool".to_owned(), name.clone())]);
                let pool = Members::new(&one, "", &["pool"])?.pool("pool", pools)?;
                Ok(vec![wanted(members, pool, pools)?])
            };
            names.iter().map(choice).collect()
        }
        (None, _) => Ok(vec![vec![wanted(members, members.pool("pool", pools)?, pools)?]]),
        (Some(Value::Array(items)), _) => {
            is_some_few("items", items).map_err(|detail| members.bad("items", detail))?;
            if let Some(double) = ITEM_MEMBERS.iter().find(|member| body.contains_key(**member)) {
                return Err(members.bad(double, format!("{double} must be in the items, not beside them")));
            }
            let item = |(place, item): (usize, &Value)| {
                let place = format!("items[{place}]");
                let Value::Object(item) = item else {
                    return Err(members.bad(&place, format!("{place} must be an object")));
                };
                let item = Members::new(item, place + ".", &ITEM_MEMBERS)?;
                wanted(&item, item.pool("pool", pools)?, pools)
            };
            Ok(vec![items.iter().enumerate().map(item).collect::<Result<_, _>>()?])
        }
        (Some(_), _) => Err(members.bad("items", "items must be a list of objects".to_owned())),
    }
}

fn is_some_few(member: &str, list: &[Value]) -> Result<(), String> {
    if (1..=POOLS_MAX).contains(&list.len()) {
        return Ok(());
    }
    Err(format!("{member} has {} entries, must have from 1 to {POOLS_MAX}", list.len()))
}

/// What is taken of one pool.
fn wanted(members: &Members<'_>, pool: usize, pools: &[PoolConfig]) -> Result<Wanted, Problem> {
    let config = &pools[pool];
    let (mut cost, said) = members.cost(&[config])?;
    cost.units.entry("requests".to_owned()).or_insert(1);
    let limits = config.pool.limits();
    if !said && !limits.iter().any(|limit: &Limit| cost.of(limit) > 0) {
        // A forgotten cost would pass every limit of such a pool.
        let mut units: Vec<&str> = limits.iter().map(|limit| limit.unit.as_str()).collect();
        units.dedup();
        let (name, units) = (config.pool.name(), units.join(" and "));
        return Err(members.bad("cost", format!("pool {name} counts {units}; say how many this call takes")));
    }
    let key = key(members, config)?.map(str::to_owned);
    Ok(Wanted { pool, cost, key })
}

/// Whose limits they are, in a pool that has them for each key.
fn key<'a>(members: &Members<'a>, config: &PoolConfig) -> Result<Option<&'a str>, Problem> {
    let key = members.text("key", KEY_MAX)?;
    let name = config.pool.name();
    match (key, config.keyed) {
        (Some(_), None) => Err(members.bad("key", format!("pool {name} is not keyed; leave the key out"))),
        (None, Some(_)) => {
            Err(members.bad("key", format!("pool {name} has its limits for each key; say whose they are")))
        }
        _ => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::{Config, Overrides};

    fn pools() -> Vec<PoolConfig> {
        let pools = vec!["api/one:rpm=500,itpm=4000".to_owned(), "two:tpm=90,overflow=refuse".to_owned()];
        Config::parse("", "", &Overrides { pools, ..Overrides::default() }).unwrap().pools
    }

    fn parse(body: &str) -> Result<Ask, Problem> {
        Ask::parse(body.as_bytes(), &pools())
    }

    fn one(body: &str) -> (Ask, Wanted) {
        let ask = parse(body).unwrap();
        let [items] = &ask.choices[..] else { panic!("{ask:?}") };
        let [wanted] = &items[..] else { panic!("{ask:?}") };
        let wanted = wanted.clone();
        (ask, wanted)
    }

    #[test]
    fn a_pool_is_enough_where_it_counts_requests() {
        let (ask, wanted) = one(r#"{"pool":"api/one"}"#);
        assert_eq!((wanted.pool, wanted.cost, ask.wait), (0, Cost::requests(1), Duration::from_secs(30)));
        assert_eq!(
            (ask.agent.as_str(), ask.class, ask.ttl, ask.bind),
            ("", Class::Normal, PERMIT_TTL, false)
        );
    }

    #[test]
    fn costs_are_found_by_limit_or_by_unit() {
        let (ask, wanted) = one(r#"{"pool":"api/one","requests":2,"cost":{"itpm":7},"wait_ms":0}"#);
        assert_eq!((wanted.cost.units["requests"], wanted.cost.limits["itpm"]), (2, 7));
        assert_eq!(ask.wait, Duration::ZERO);
        let (_, wanted) = one(r#"{"pool":"api/one","cost":{"input_tokens":7}}"#);
        assert_eq!(wanted.cost.units["input_tokens"], 7);
    }

    #[test]
    fn lists_of_pools_are_choices_and_items_are_one() {
        let ask = parse(r#"{"pool":["two","api/one"],"tokens":3,"priority":"high","bind":"connection"}"#);
        let ask = ask.unwrap();
        let pools: Vec<Vec<_>> =
            ask.choices.iter().map(|items| items.iter().map(|item| item.pool).collect()).collect();
        assert_eq!((pools, ask.class, ask.bind), (vec![vec![1], vec![0]], Class::High, true));
        assert_eq!(ask.wait, Duration::ZERO, "one of them refuses");
        let ask = parse(r#"{"items":[{"pool":"two","tokens":3},{"pool":"api/one"}],"agent":"a"}"#).unwrap();
        assert_eq!((ask.choices.len(), ask.choices[0].len(), ask.agent.as_str()), (1, 2, "a"));
    }

    #[test]
    fn plain_bodies_mean_what_they_mean_to_the_patient() {
        let keyed = "[[pool]]\nname = \"k\"\nkeyed = true\nrpm = 5\n";
        let pools = ["a:rpm=5,tpm=5", "t:tpm=5,overflow=refuse"].map(str::to_owned).to_vec();
        let config = Config::parse(keyed, "", &Overrides { pools, ..Overrides::default() }).unwrap();
        let members = [
            ("requests", &["0", "3", "null", "1.5", "18446744073709551615"][..]),
            ("tokens", &["7", "-1"]),
            ("key", &[r#""u""#, "3"]),
            ("agent", &[r#""x""#, r#""\u0041""#, "null"]),
            ("priority", &[r#""high""#, r#""urgent""#, "2"]),
            ("wait_ms", &["0", "5", "86400001"]),
            ("ttl_ms", &["0", "1"]),
            ("bind", &[r#""connection""#, r#""none""#, r#""x""#]),
            ("cost", &[r#"{"rpm":2}"#]),
            ("pool", &[r#""a""#]),
            ("other", &["1"]),
        ];
        let members = members.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let members: Vec<String> = members.map(|(name, value)| format!(",\"{name}\":{value}")).collect();
        let mut plain = 0;
        for pool in ["a", "t", "k", "none"] {
            for one in members.iter().map(String::as_str).chain([""]) {
                for two in members.iter().map(String::as_str).chain([""]) {
                    let body = format!("{{\"pool\":\"{pool}\"{one}{two}}}");
                    let patiently = Ask::parse_patiently(body.as_bytes(), &config.pools);
                    let read = serde_json::from_slice::<Plain<'_>>(body.as_bytes());
                    if let Some(ask) = read.ok().and_then(|read| read.ask(&config.pools)) {
                        plain += 1;
                        assert_eq!(Ok(ask), patiently, "{body}");
                    }
                }
            }
        }
        assert!(plain > 200, "only {plain}");
    }

    #[test]
    fn the_simple_coordinator_needs_no_body() {
        let allow = |body: &str| Ask::parse_allow(body.as_bytes(), &pools());
        let ask = allow("").unwrap();
        assert_eq!((ask.choices[0][0].pool, ask.wait), (0, Duration::ZERO));
        assert_eq!(ask.choices[0][0].cost, Cost::requests(1));
        let two = allow(r#"{"pool":"two","cost":5}"#).unwrap();
        assert_eq!(two.choices[0][0].cost.units["tokens"], 5);
        assert_eq!(allow(r#"{"cost":0}"#).unwrap_err().field.as_deref(), Some("cost"));
        assert_eq!(allow(r#"{"pool":"too"}"#).unwrap_err().status, 404);
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
            (r#"{"pool":"api/one","cost":{"rpm":"1"}}"#, 400, Some("cost.rpm"), "whole number"),
            (r#"{"pool":"api/one","priority":"urgent"}"#, 400, Some("priority"), "critical"),
            (r#"{"pool":"api/one","ttl_ms":0}"#, 400, Some("ttl_ms"), "from 1"),
            (r#"{"pool":"api/one","bind":"process"}"#, 400, Some("bind"), "connection"),
            (r#"{"pool":"api/one","key":"user-1"}"#, 400, Some("key"), "not keyed"),
            (r#"{"pool":"api/one","key":1}"#, 400, Some("key"), "256 bytes"),
            (r#"{"pool":"two"}"#, 400, Some("cost"), "tokens"),
            (r#"{"pool":[]}"#, 400, Some("pool"), "from 1 to 16"),
            (r#"{"pool":["api/one",7]}"#, 400, Some("pool"), "string"),
            (r#"{"pool":["api/one","tow"],"tokens":1}"#, 404, Some("pool"), "\"two\""),
            (r#"{"items":{}}"#, 400, Some("items"), "list"),
            (r#"{"items":[]}"#, 400, Some("items"), "from 1 to 16"),
            (r#"{"items":[7]}"#, 400, Some("items[0]"), "object"),
            (r#"{"items":[{"pool":"api/one"}],"tokens":1}"#, 400, Some("tokens"), "in the items"),
            (r#"{"items":[{"pool":"api/one"},{"pool":"tow"}]}"#, 404, Some("items[1].pool"), "\"two\""),
            (r#"{"items":[{"pool":"api/one","wait_ms":1}]}"#, 400, Some("items[0].wait_ms"), "did you mean"),
            (
                r#"{"items":[{"pool":"api/one","cost":{"x":1}}]}"#,
                400,
                Some("items[0].cost.x"),
                "api/one has no limit",
            ),
        ];
        for (body, status, field, words) in cases {
            let problem = parse(body).unwrap_err();
            assert_eq!((problem.status, problem.field.as_deref()), (status, field), "{body}");
            assert!(problem.detail.contains(words), "{body}: {}", problem.detail);
        }
    }

    #[test]
    fn bodies_of_very_many_parts_are_refused_before_they_take_memory() {
        let pools = pools();
        for part in ["0,", "{\"a\":0},", "[0],"] {
            let body = format!("{{\"items\":[{}0]}}", part.repeat(8_000));
            let mut problem = None;
            let held =
                allocation_counter::measure(|| problem = Ask::parse(body.as_bytes(), &pools).err()).bytes_max;
            assert!(held < 4_096, "{held} bytes for {part}");
            assert!(problem.expect("it is refused").detail.contains("at most 512"));
        }
    }
}
