//! Envoy's rate limit service: descriptors, counted against pools as the configuration says.
//!
//! As the reference server (`envoyproxy/ratelimit`) has it: each descriptor counts on its own, whatever becomes of the
//! others, a request is over the limit if any of its descriptors is, and a descriptor that no rule matches is not limited.
//! Nothing waits in a queue: Envoy gives up after 20 ms. Zero hits look and count nothing. Negative hits give back what
//! this service admitted lately for the same user of the machine, and no more, so that nobody can make room that was not
//! taken. Limits that descriptors
//! bring along are not looked at: limits are the pools'.

mod headers;
mod refunds;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;

use self::refunds::{Of, Refunds, Taken};
use super::api::KEY_MAX;
use super::config::{Config, PoolConfig, RlsRule};
use super::engine::{Engine, Reply, Request, Wanted};
use super::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
pub use super::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use super::proto::envoy::service::ratelimit::v3::{
    rate_limit_response::rate_limit::Unit,
    rate_limit_response::{Code, DescriptorStatus, RateLimit},
};
use crate::protocol::limit::{AMOUNT_MAX, Cost, Kind, Limit, Units};
use crate::protocol::node::{Ask, Item, Left, Node, Outcome, PERMIT_TTL, Refusal};
use crate::protocol::queue::Class;
use crate::protocol::time::Instant;

/// The most descriptors of a request.
pub const DESCRIPTORS_MAX: usize = 64;

/// The service; clones share it.
#[derive(Clone)]
pub struct Rls {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    pools: Vec<PoolConfig>,
    rules: RwLock<Arc<Rules>>,
}

/// Rules, and what was admitted by them.
struct Rules {
    rules: Vec<RlsRule>,
    refunds: Mutex<Refunds>,
}

/// A request that says nothing to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RlsError {
    /// It names no domain.
    #[error("domain must not be empty")]
    NoDomain,
    /// It has no descriptors, or too many.
    #[error("descriptors must be 1 to {DESCRIPTORS_MAX}, not {0}")]
    Descriptors(usize),
}

/// What a descriptor is counted against.
struct Counted<'a> {
    rules: &'a Rules,
    rule: &'a RlsRule,
    /// The place of the rule.
    place: usize,
    key: Option<String>,
    /// Who asks.
    user: u32,
}

impl Counted<'_> {
    /// Whose admissions these are.
    fn of(&self) -> Of {
        (self.place, self.user, self.key.clone().unwrap_or_default())
    }

    /// What is left of the limit at this place of the pool.
    fn left(&self, limit: usize, node: &mut Node, now: Instant) -> Left {
        node.left(self.rule.pool, limit, self.key.as_deref().unwrap_or_default(), now)
    }
}

impl Rules {
    fn new(rules: Vec<RlsRule>) -> Arc<Self> {
        Arc::new(Self { rules, refunds: Mutex::default() })
    }

    /// The first rule that a descriptor matches.
    fn counted(&self, domain: &str, descriptor: &RateLimitDescriptor, user: u32) -> Option<Counted<'_>> {
        let matches = |rule: &RlsRule| {
            rule.domain == domain
                && rule.entries.len() == descriptor.entries.len()
                && rule
                    .entries
                    .iter()
                    .zip(&descriptor.entries)
                    .all(|(wanted, entry)| wanted.key == entry.key && wanted.value.matches(&entry.value))
        };
        let place = self.rules.iter().position(matches)?;
        let rule = &self.rules[place];
        let key = rule.key.map(|entry| bounded(&descriptor.entries[entry].value));
        Some(Counted { rules: self, rule, place, key, user })
    }

    fn refunds<T>(&self, act: impl FnOnce(&mut Refunds) -> T) -> T {
        act(&mut self.refunds.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rls {
    /// A service that counts by the rules of this configuration.
    pub fn new(engine: Engine, config: &Config) -> Self {
        let rules = RwLock::new(Rules::new(config.rls.clone()));
        Self { inner: Arc::new(Inner { engine, pools: config.pools.clone(), rules }) }
    }

    /// Counts by other rules of the same pools from now on. What was admitted before cannot be given back any more.
    pub fn set_rules(&self, rules: Vec<RlsRule>) {
        *self.inner.rules.write().unwrap_or_else(PoisonError::into_inner) = Rules::new(rules);
    }

    /// Counts the descriptors of a request of this user.
    ///
    /// # Errors
    /// The request says nothing to count.
    pub async fn should_rate_limit(
        &self,
        request: &RateLimitRequest,
        user: u32,
    ) -> Result<RateLimitResponse, RlsError> {
        if request.domain.is_empty() {
            return Err(RlsError::NoDomain);
        }
        if !(1..=DESCRIPTORS_MAX).contains(&request.descriptors.len()) {
            return Err(RlsError::Descriptors(request.descriptors.len()));
        }
        let rules = self.inner.rules.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut statuses = Vec::with_capacity(request.descriptors.len());
        let mut shown = false;
        for descriptor in &request.descriptors {
            let Some(counted) = rules.counted(&request.domain, descriptor, user) else {
                statuses.push(unlimited());
                continue;
            };
            let unsaid = || u64::from(request.hits_addend.max(1));
            let hits = descriptor.hits_addend.unwrap_or_else(unsaid).min(AMOUNT_MAX);
            shown |= counted.rule.headers;
            statuses.push(if descriptor.is_negative_hits {
                self.give_back(&counted, hits)
            } else if hits == 0 {
                self.look(&counted)
            } else if counted.rule.charge {
                self.charge(&counted, hits)
            } else {
                self.take(&counted, hits).await
            });
        }
        let over = statuses.iter().any(|status| status.code() == Code::OverLimit);
        let code = if over { Code::OverLimit } else { Code::Ok };
        let response_headers_to_add = if shown { headers::draft_03(&statuses) } else { Vec::new() };
        Ok(RateLimitResponse { overall_code: code.into(), statuses, response_headers_to_add })
    }

    async fn take(&self, counted: &Counted<'_>, hits: u64) -> DescriptorStatus {
        let Counted { rule, key, .. } = counted;
        let wanted = Wanted { pool: rule.pool, cost: cost(rule, hits), key: key.clone() };
        let request = Request {
            choices: vec![vec![wanted]],
            agent: String::new(),
            class: Class::default(),
            wait: Duration::ZERO,
            ttl: PERMIT_TTL,
            bound: None,
        };
        let engine = &self.inner.engine;
        let tell = |node: &mut Node, outcome, now| match outcome {
            Outcome::Refused(Refusal { limit: Some((pool, limit)), .. }) if pool == rule.pool => {
                (limit, counted.left(limit, node, now))
            }
            _ => self.least(counted, node, now),
        };
        let (outcome, left) =
            match engine.acquire(request, |node, _, outcome, now| tell(node, outcome, now)).1 {
                Reply::Now(outcome, left) => (outcome, left),
                // What it takes is being put on disk.
                Reply::Later(pending) => {
                    let outcome = pending.answer().await;
                    (outcome, engine.look(|node, now| tell(node, outcome, now)))
                }
            };
        match outcome {
            Outcome::Admitted { permit, .. } => {
                counted.rules.refunds(|refunds| refunds.note(counted.of(), Taken { permit, hits }));
                self.shown(Code::Ok, counted, left, None)
            }
            Outcome::Refused(refusal) => self.shown(Code::OverLimit, counted, left, refusal.retry_after),
        }
    }

    fn charge(&self, counted: &Counted<'_>, hits: u64) -> DescriptorStatus {
        let Counted { rule, key, .. } = counted;
        self.inner.engine.charge(rule.pool, key.as_deref(), &cost(rule, hits));
        self.look(counted)
    }

    /// Whether one more would be admitted.
    fn look(&self, counted: &Counted<'_>) -> DescriptorStatus {
        let Counted { rule, key, .. } = counted;
        let one = cost(rule, 1);
        let admits = self.inner.engine.look(|node, now| {
            let units: Units = node.pool_at(rule.pool).units(&one);
            let items = &[Item { pool: rule.pool, units: &units, key: key.as_deref() }];
            let class = Class::default();
            node.would_admit(&Ask { items, agent: "", class, wait: Duration::ZERO, ttl: PERMIT_TTL }, now)
        });
        self.status(if admits { Code::Ok } else { Code::OverLimit }, counted)
    }

    /// Gives back of the newest of what was taken, and no more than was. An admission of which a part came back is settled:
    /// what is left of it counts as used.
    fn give_back(&self, counted: &Counted<'_>, mut hits: u64) -> DescriptorStatus {
        let (rule, of) = (counted.rule, counted.of());
        let engine = &self.inner.engine;
        while hits > 0 {
            let Some(taken) = counted.rules.refunds(|refunds| refunds.take(&of, hits)) else { break };
            let settled = match taken.hits.checked_sub(hits) {
                None | Some(0) => engine.release(taken.permit),
                Some(used) => engine.commit(taken.permit, &cost(rule, used)),
            };
            if settled.is_ok() {
                hits -= taken.hits.min(hits);
            }
        }
        self.status(Code::Ok, counted)
    }

    fn status(&self, code: Code, counted: &Counted<'_>) -> DescriptorStatus {
        let left = self.inner.engine.look(|node, now| self.least(counted, node, now));
        self.shown(code, counted, left, None)
    }

    /// The limit of those that are counted of which the least is left, by its place in the pool, and what is left of it.
    fn least(&self, counted: &Counted<'_>, node: &mut Node, now: Instant) -> (usize, Left) {
        let rule = counted.rule;
        let limits = self.inner.pools[rule.pool].pool.limits();
        let places = (0..limits.len()).filter(|place| limits[*place].unit == rule.unit);
        let left = places.map(|place| (place, counted.left(place, node, now)));
        left.min_by_key(|(_, left)| left.remaining)
            .expect("BUG! a rule of a pool that does not count its unit")
    }

    fn shown(
        &self,
        code: Code,
        counted: &Counted<'_>,
        (place, left): (usize, Left),
        retry_after: Option<Duration>,
    ) -> DescriptorStatus {
        let limits = self.inner.pools[counted.rule.pool].pool.limits();
        let reset = retry_after.unwrap_or(left.reset_in);
        // Over the limit is over the limit, even if others of the swarm have some left.
        let remaining = if code == Code::OverLimit { 0 } else { left.remaining };
        DescriptorStatus {
            code: code.into(),
            current_limit: Some(rate_limit(&limits[place])),
            limit_remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            duration_until_reset: Some(prost_types::Duration {
                seconds: i64::try_from(reset.as_secs()).unwrap_or(i64::MAX),
                nanos: reset.subsec_nanos() as i32,
            }),
        }
    }
}

fn unlimited() -> DescriptorStatus {
    DescriptorStatus { code: Code::Ok.into(), limit_remaining: u32::MAX, ..DescriptorStatus::default() }
}

fn cost(rule: &RlsRule, hits: u64) -> Cost {
    Cost { units: [(rule.unit.clone(), hits)].into(), limits: [].into() }
}

/// A value as a key. One that is too long for that must not pass unlimited, so its hash stands for it.
fn bounded(value: &str) -> String {
    if value.len() <= KEY_MAX {
        return value.to_owned();
    }
    let digits: String = Sha256::digest(value).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// A limit in Envoy's terms: per second, minute and so on. One per another time is shown per the next longer unit.
fn rate_limit(limit: &Limit) -> RateLimit {
    const DAY: u64 = 24 * 60 * 60;
    const UNITS: [(Unit, u64); 7] = [
        (Unit::Second, 1),
        (Unit::Minute, 60),
        (Unit::Hour, 60 * 60),
        (Unit::Day, DAY),
        (Unit::Week, 7 * DAY),
        (Unit::Month, 2_629_746),
        (Unit::Year, 31_556_952),
    ];
    let (amount, per) = (limit.kind.amount(), limit.kind.per());
    let longer = UNITS.into_iter().find(|(_, seconds)| Duration::from_secs(*seconds) >= per);
    let (unit, amount) = match (&limit.kind, longer) {
        // So many at once are so many per no time at all.
        (Kind::Concurrency(_), _) | (_, None) => (Unit::Unknown, u128::from(amount)),
        (_, Some((unit, seconds))) => {
            let scaled = u128::from(amount) * u128::from(seconds) * 1_000_000_000 / per.as_nanos().max(1);
            (unit, scaled)
        }
    };
    let requests_per_unit = u32::try_from(amount).unwrap_or(u32::MAX);
    RateLimit { name: limit.name.clone(), requests_per_unit, unit: unit.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::{Config, Overrides};

    fn shown(pool: &str) -> (u32, Unit) {
        let pools = vec![format!("p:{pool}")];
        let config = Config::parse("", "", &Overrides { pools, ..Overrides::default() }).unwrap();
        let limit = rate_limit(&config.pools[0].pool.limits()[0]);
        (limit.requests_per_unit, limit.unit())
    }

    #[test]
    fn limits_are_shown_per_a_unit_that_envoy_knows() {
        assert_eq!(shown("rps=5"), (5, Unit::Second));
        assert_eq!(shown("tph=5000000000"), (u32::MAX, Unit::Hour));
        assert_eq!(shown("calls=7/10s"), (42, Unit::Minute));
        assert_eq!(shown("rpd=9"), (9, Unit::Day));
        assert_eq!(shown("max_concurrent=8"), (8, Unit::Unknown));
    }

    #[test]
    fn long_values_are_keys_of_their_own() {
        let (one, two) = (bounded(&"a".repeat(300)), bounded(&"a".repeat(301)));
        assert!(one != two && one.len() <= KEY_MAX, "{one}");
        assert_eq!(bounded("a"), "a");
    }
}
