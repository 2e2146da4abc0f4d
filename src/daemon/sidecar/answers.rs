//! What programs are answered before and after a call.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use smallvec::SmallVec;

use crate::api::{AcquireAnswer, AllowAnswer, LimitState, Problem, Reason, SettleAnswer};
use crate::daemon::config::{Config, PoolConfig};
use crate::daemon::engine::{Engine, Wanted};
use crate::protocol::limit::{Limit, Pool};
use crate::protocol::node::{self, Left, LimitView, Node, Outcome, Refusal, SettleError, Settling};
use crate::protocol::permit::{Correction, How};
use crate::protocol::policy::Policy;
use crate::protocol::time::Instant;

/// What was asked of a pool, as far as answers show it.
pub struct Passed {
    /// The place of the pool.
    pub pool: usize,
    /// Whose limits, in a keyed pool.
    pub key: Option<String>,
}

/// What answers say beside the outcome: looked at while the core has just decided, and made words of when others may ask.
pub struct Told {
    policy: Policy,
    worst_case_factor: f64,
    /// What is left of the limits of the pools, in their order.
    left: SmallVec<[Left; 4]>,
    /// How many wait for the pool for which most do, if that is why.
    waiting: usize,
}

impl Told {
    /// What the core says of these pools, each there once, after this outcome.
    pub fn by(node: &mut Node, passed: &[Passed], outcome: Outcome, now: Instant) -> Self {
        let mut left = SmallVec::new();
        for Passed { pool, key } in passed {
            let key = key.as_deref().unwrap_or_default();
            left.extend(
                (0..node.pool_at(*pool).limits().len()).map(|limit| node.left(*pool, limit, key, now)),
            );
        }
        let is_crowded =
            matches!(outcome, Outcome::Refused(refusal) if refusal.reason == node::Reason::QueueFull);
        let waiting = if is_crowded {
            let waiting = passed.iter().map(|of| node.pool_view(of.pool, now).waiting.iter().sum());
            waiting.max().unwrap_or(0)
        } else {
            0
        };
        Self { policy: node.policy(), worst_case_factor: node.worst_case_factor(), left, waiting }
    }
}

/// Answer to `POST /v1/acquire` for these of the pools, each there once.
pub fn acquired(pools: &[PoolConfig], passed: &[Passed], outcome: Outcome, told: Told) -> AcquireAnswer {
    let pool_of = |of: &Passed| &pools[of.pool].pool;
    let limits =
        passed.iter().map(pool_of).flat_map(|pool| pool.limits().iter().map(move |limit| (pool, limit)));
    let state = |((pool, limit), left): ((&Pool, &Limit), Left)| {
        state(called(pool, limit, passed.len() > 1), limit.kind.capacity(), left)
    };
    let mut answer = AcquireAnswer {
        allowed: false,
        permit: None,
        pool: pool_of(&passed[0]).name().to_owned(),
        waited_ms: 0,
        expires_in_ms: None,
        guarantee: told.policy.name().to_owned(),
        worst_case_factor: told.worst_case_factor,
        limits: limits.zip(told.left).map(state).collect(),
        retry_after_ms: None,
        reason: None,
        limited_by: None,
        detail: None,
        title: None,
        status: None,
    };
    match outcome {
        Outcome::Admitted { waited, permit, ttl } => {
            answer.allowed = true;
            answer.permit = Some(permit.to_string());
            answer.waited_ms = millis(waited);
            answer.expires_in_ms = Some(millis(ttl));
        }
        Outcome::Refused(refusal) => refused(&mut answer, refusal, pools, passed, told.waiting),
    }
    answer
}

/// `pool/limit` where there are several pools, else `limit`.
fn called(pool: &Pool, limit: &Limit, several: bool) -> String {
    if several { format!("{}/{}", pool.name(), limit.name) } else { limit.name.clone() }
}

fn refused(
    answer: &mut AcquireAnswer,
    refusal: Refusal,
    pools: &[PoolConfig],
    passed: &[Passed],
    waiting: usize,
) {
    let limit = refusal.limit.filter(|(pool, _)| passed.iter().any(|of| of.pool == *pool));
    let limit = limit.map(|(pool, limit)| (&pools[pool].pool, &pools[pool].pool.limits()[limit]));
    let limited_by = limit.map(|(pool, limit)| called(pool, limit, passed.len() > 1));
    let name = limited_by.as_deref().unwrap_or("the pool");
    let detail = match refusal.reason {
        node::Reason::Limit => format!("{name} has no room now, and the caller would not wait"),
        node::Reason::Deadline => format!("{name} had no room until the caller's deadline"),
        node::Reason::TooManyKeys => {
            "this node knows as many keys as it may, and none of them is idle and full".to_owned()
        }
        node::Reason::QueueFull => {
            format!("{waiting} requests wait already, as many as may; {name} is short")
        }
        node::Reason::Paused => "the pool is paused, on all nodes".to_owned(),
        node::Reason::Breaker => {
            "too many calls of the pool failed lately, so none is made for a while".to_owned()
        }
        node::Reason::Leaving => "this node is leaving the swarm; ask another one".to_owned(),
        node::Reason::Never => {
            let most = limit.map_or(0, |(_, limit)| limit.kind.capacity());
            format!("{name} can never hold that much at once, but {most} at most; split the request")
        }
    };
    answer.waited_ms = millis(refusal.waited);
    answer.retry_after_ms = refusal.retry_after.map(|after| millis(after).max(1));
    answer.reason = Some(reason(refusal.reason));
    answer.detail = Some(detail);
    answer.limited_by = limited_by;
    answer.title = Some("limited".to_owned());
    answer.status = Some(429);
}

/// The core's reason as callers are told it.
pub fn reason(reason: node::Reason) -> Reason {
    match reason {
        node::Reason::Limit => Reason::Limit,
        node::Reason::Deadline => Reason::Deadline,
        node::Reason::QueueFull => Reason::QueueFull,
        node::Reason::Paused | node::Reason::Leaving => Reason::Paused,
        node::Reason::Breaker => Reason::Breaker,
        node::Reason::Never => Reason::Never,
        node::Reason::TooManyKeys => Reason::TooManyKeys,
    }
}

/// What a refusal becomes if the request would have waited, had its user not as many waiting as one may.
pub fn not_queued(answer: &mut AcquireAnswer, most: usize) {
    let detail = format!(
        "this user has {most} requests waiting for the pool, as many as one may, and there was no room at once; wait \
         for some of them, or raise [access] max_waiting_per_user"
    );
    answer.reason = Some(Reason::UserQueueFull);
    answer.detail = Some(detail);
}

/// What is used of the limit that counts what was asked of one pool, and how much of it there is.
pub fn used(node: &mut Node, wanted: &Wanted, now: Instant) -> (u64, u64) {
    let limits = node.pool_at(wanted.pool).limits();
    let counted = limits.iter().position(|limit| wanted.cost.of(limit) > 0).unwrap_or(0);
    let max = limits[counted].kind.capacity();
    let left = node.left(wanted.pool, counted, wanted.key.as_deref().unwrap_or_default(), now);
    (max - left.remaining.min(max), max)
}

/// Answer to `POST /allow`, of which so much is [`used`] now.
pub fn allow((count, max): (u64, u64), outcome: Outcome) -> AllowAnswer {
    let (allowed, retry_after) = match outcome {
        Outcome::Admitted { .. } => (true, 0.0),
        Outcome::Refused(refusal) => (false, refusal.retry_after.map_or(-1.0, |after| after.as_secs_f64())),
    };
    AllowAnswer { allowed, count, max, retry_after }
}

/// Answer to `POST /v1/permits/{id}/commit` and `/release`.
///
/// # Errors
/// Why the permit cannot be settled: 404 if there never was such a permit, 410 if it is over.
pub fn settled(engine: &Engine, settled: Result<Settling, SettleError>) -> Result<SettleAnswer, Problem> {
    let Settling { how, repeated, settlement } = settled.map_err(unsettled)?;
    let (mut refunded, mut debt) = (BTreeMap::new(), BTreeMap::new());
    engine.look(|node, _| {
        let place = |correction: &Correction| match correction {
            Correction::Refund { meter, .. } | Correction::Debt { meter, .. } => *meter as usize,
        };
        let of_key = settlement.keyed.map(|pool| node.pool_at(pool as usize).limits());
        let pool_of = |correction| node.limit_at(place(correction)).0;
        let several = of_key.is_none()
            && settlement.corrections.windows(2).any(|pair| pool_of(&pair[0]) != pool_of(&pair[1]));
        for correction in &settlement.corrections {
            let name = if let Some(limits) = of_key {
                limits[place(correction)].name.clone()
            } else {
                let (pool, limit) = node.limit_at(place(correction));
                called(node.pool_at(pool), limit, several)
            };
            match correction {
                Correction::Refund { units, .. } => refunded.insert(name, *units),
                Correction::Debt { units, .. } => debt.insert(name, *units),
            };
        }
    });
    let ended = match how {
        How::Committed => "committed",
        How::Released => "released",
        How::Closed => "closed",
        How::Expired => "expired",
    };
    Ok(SettleAnswer { refunded, debt, ended: ended.to_owned(), repeated })
}

fn unsettled(error: SettleError) -> Problem {
    let (status, title) = match error {
        SettleError::Unknown => (404, "no such permit"),
        SettleError::Expired | SettleError::Forgotten | SettleError::Former => (410, "permit is over"),
    };
    Problem { title: title.to_owned(), status, detail: format!("{error}"), field: None, reason: None }
}

/// The headers that HTTP clients know: `Retry-After` (RFC 9110), `retry-after-ms` (as the providers' SDKs read it), and
/// `RateLimit` with `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
pub fn headers(config: &Config, passed: &[Passed], answer: &AcquireAnswer, headers: &mut HeaderMap) {
    if let Some(after) = answer.retry_after_ms {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.div_ceil(1_000)));
        headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(after));
    }
    let (mut policies, mut now) = (String::with_capacity(64), String::with_capacity(64));
    let limits = passed.iter().flat_map(|of| config.pools[of.pool].pool.limits());
    // The answer has the same limits in the same order.
    for (limit, state) in limits.zip(&answer.limits) {
        for list in [&mut policies, &mut now] {
            list.push_str(if list.is_empty() { "\"" } else { ", \"" });
            quoted(&state.name, list);
        }
        let per = limit.kind.per().as_secs().max(1);
        parameters(&mut policies, [(";q=", limit.kind.amount()), (";w=", per)]);
        parameters(&mut now, [(";r=", state.remaining), (";t=", state.reset_in_ms.div_ceil(1_000))]);
    }
    for (name, value) in [("ratelimit-policy", policies), ("ratelimit", now)] {
        // Names of limits need not be ASCII, a structured field must be; then the header is left out.
        let value = Some(value).filter(|value| value.is_ascii());
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// A structured field's parameters (RFC 9651), without the library's formatting, which takes as long as a decision.
fn parameters(list: &mut String, parameters: [(&str, u64); 2]) {
    for (name, value) in parameters {
        list.push_str(name);
        list.push_str(itoa::Buffer::new().format(value));
    }
}

/// The rest of a structured field's string (RFC 9651), after its first quotation mark.
fn quoted(text: &str, list: &mut String) {
    for character in text.chars() {
        if matches!(character, '\\' | '"') {
            list.push('\\');
        }
        list.push(character);
    }
    list.push('"');
}

/// A limit as listings show it, under this name.
pub fn limit_state(view: &LimitView, name: &str) -> LimitState {
    let left = Left { held: view.held_units, remaining: view.remaining, reset_in: view.reset_in };
    state(name.to_owned(), view.limit.kind.capacity(), left)
}

fn state(name: String, limit: u64, left: Left) -> LimitState {
    let Left { held, remaining, reset_in } = left;
    let used = limit - remaining.min(limit);
    LimitState { name, limit, used, remaining, held, reset_in_ms: ceil_millis(reset_in) }
}

/// `pool/limit`: what the limit at this place is called where there are several pools.
pub fn full_name(node: &Node, limit: usize) -> String {
    let (pool, limit) = node.limit_at(limit);
    called(node.pool_at(pool), limit, true)
}

/// Whole milliseconds, rounded down.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole milliseconds, rounded up.
pub fn ceil_millis(duration: Duration) -> u64 {
    millis(duration + Duration::from_nanos(999_999))
}
