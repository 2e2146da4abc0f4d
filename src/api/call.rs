//! Asking, settling: what programs send before and after a call, and what they are answered.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CallOutcome, Priority};

/// Body of `POST /v1/acquire`. All but `pool`, or `items` in its place, is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcquireRequest {
    /// The pool to pass; or several, of which the first that admits now counts, else the one likely to admit first.
    #[serde(default, skip_serializing_if = "PoolNames::is_none")]
    pub pool: PoolNames,
    /// Requests to take; one unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Tokens to take; none unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Units of single limits by the limit's own name, or of another unit by the unit's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cost: BTreeMap<String, u64>,
    /// Whose limits they are, in a pool that has them for each key. At most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What it takes of several pools, all or nothing, in the place of `pool` and the members that belong to it. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<ItemRequest>,
    /// Who asks: agents of a class are served in turn, by weight. At most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// How urgent it is: before those who wait in the classes below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// How long to wait for admission; 0 asks and does not wait. Unless said, as the pool's `overflow` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// How long the permit lives unless it is settled before; 120 s unless said. A concurrency limit may cut it short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// With what the permit ends besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<Bind>,
}

impl AcquireRequest {
    /// One request of this pool, or of the first of several.
    pub fn new(pool: impl Into<PoolNames>) -> Self {
        Self { pool: pool.into(), ..Self::default() }
    }

    /// Takes so many requests.
    #[must_use]
    pub fn requests(self, requests: u64) -> Self {
        Self { requests: Some(requests), ..self }
    }

    /// Takes so many tokens.
    #[must_use]
    pub fn tokens(self, tokens: u64) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// Takes so many units of a limit, or of a unit, by its name.
    #[must_use]
    pub fn cost(mut self, name: &str, units: u64) -> Self {
        self.cost.insert(name.to_owned(), units);
        self
    }

    /// Takes it of the limits of this key.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Asks in this agent's name.
    #[must_use]
    pub fn agent(self, agent: impl Into<String>) -> Self {
        Self { agent: Some(agent.into()), ..self }
    }

    /// Is as urgent as this.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority: Some(priority), ..self }
    }

    /// Waits for so long at most; not at all if it is zero. The daemon takes whole milliseconds, a day of them at most.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait_ms: Some(millis(wait)), ..self }
    }

    /// Lets the permit live for so long, from a millisecond to a day.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl_ms: Some(millis(ttl)), ..self }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One pool, or several to fall back on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PoolNames {
    /// This one.
    One(String),
    /// Any of these, at most 16; the first that admits now, else the one likely to admit first.
    FirstOf(Vec<String>),
}

impl PoolNames {
    fn is_none(&self) -> bool {
        matches!(self, Self::One(name) if name.is_empty())
    }
}

impl Default for PoolNames {
    /// None: there are `items`.
    fn default() -> Self {
        Self::One(String::new())
    }
}

impl<T: Into<String>> From<T> for PoolNames {
    fn from(name: T) -> Self {
        Self::One(name.into())
    }
}

/// What a call takes of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemRequest {
    /// The pool to pass.
    pub pool: String,
    /// As in [`AcquireRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// As in [`AcquireRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// As in [`AcquireRequest`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cost: BTreeMap<String, u64>,
    /// As in [`AcquireRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// With what a permit ends besides its time to live and being settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bind {
    /// Nothing.
    None,
    /// The connection on which it was asked for: what was reserved counts as used then, and slots are free.
    Connection,
}

/// Answer to `POST /v1/acquire`: 200 when `allowed`, 429 when not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcquireAnswer {
    /// Whether the call may be made.
    pub allowed: bool,
    /// Names the permit, to settle it; absent when refused.
    pub permit: Option<String>,
    /// The pool that admitted it or refused it; of several items, the first one's.
    pub pool: String,
    /// How long the request waited here.
    pub waited_ms: u64,
    /// When the permit ends; absent when refused.
    pub expires_in_ms: Option<u64>,
    /// The promise that the answer was given under: `strict` or `available`.
    pub guarantee: String,
    /// By what factor the swarm can exceed the limit at worst as things stand: 1 is never.
    #[serde(default = "never_over")]
    pub worst_case_factor: f64,
    /// The pool's limits after the decision; called `pool/limit` where there are items of several pools.
    pub limits: Vec<LimitState>,
    /// When to ask again, jittered; absent when admitted, and when `reason` is `never`.
    pub retry_after_ms: Option<u64>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The limit that stood in the way, called as in `limits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
    /// The refusal in words (RFC 9457).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A short name of the kind of refusal (RFC 9457).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The HTTP status, repeated (RFC 9457).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// What an answer without a factor means: one of an older daemon.
fn never_over() -> f64 {
    1.0
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A limit has no room now, and the caller would not wait.
    Limit,
    /// A limit had no room until the caller's wait was over.
    Deadline,
    /// As many requests wait as may.
    QueueFull,
    /// As many requests of this user of the machine wait as one user may have waiting; others may wait.
    UserQueueFull,
    /// The pool is paused, or the node is leaving.
    Paused,
    /// The cost is more than the limit can ever hold.
    Never,
    /// Calls to the pool failed lately, so that none are made for a while.
    Breaker,
    /// As many keys are there as may be, and none is idle.
    TooManyKeys,
}

impl Reason {
    /// All, in the order of their places.
    pub const ALL: [Self; 8] = [
        Self::Limit,
        Self::Deadline,
        Self::QueueFull,
        Self::UserQueueFull,
        Self::Paused,
        Self::Never,
        Self::Breaker,
        Self::TooManyKeys,
    ];

    /// As JSON spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Deadline => "deadline",
            Self::QueueFull => "queue_full",
            Self::UserQueueFull => "user_queue_full",
            Self::Paused => "paused",
            Self::Never => "never",
            Self::Breaker => "breaker",
            Self::TooManyKeys => "too_many_keys",
        }
    }
}

/// Body of `POST /v1/permits/{id}/commit`: what the call really used. What is not named was used as reserved; a body need
/// not be there. In a permit of several pools, each number is for every pool that counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRequest {
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Units of single limits by the limit's own name, or of another unit by the unit's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cost: BTreeMap<String, u64>,
}

impl CommitRequest {
    /// It used so many requests.
    #[must_use]
    pub fn requests(self, requests: u64) -> Self {
        Self { requests: Some(requests), ..self }
    }

    /// It used so many tokens.
    #[must_use]
    pub fn tokens(self, tokens: u64) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// It used so many units of a limit, or of a unit, by its name.
    #[must_use]
    pub fn cost(mut self, name: &str, units: u64) -> Self {
        self.cost.insert(name.to_owned(), units);
        self
    }
}

/// Answer to `POST /v1/permits/{id}/commit` and `/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleAnswer {
    /// Units that came back at once, by limit; `pool/limit` where limits of several pools are here or in `debt`.
    pub refunded: BTreeMap<String, u64>,
    /// Units used beyond what was reserved, which are paid before the next admission.
    pub debt: BTreeMap<String, u64>,
    /// How the permit ended: `committed`, `released`, or `closed` with its connection.
    pub ended: String,
    /// Whether it had ended before: this is the answer that was given then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// Body of `POST /v1/pause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// The pool, on all nodes of the swarm.
    pub pool: String,
    /// For how long, up to 7 days; until it is resumed unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// Body of `POST /v1/vouch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VouchRequest {
    /// The peer's name, or how its id begins.
    pub peer: String,
    /// What part of the base shares at hand it should have beside others: 0.01 to 100; 1 unless said, here or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

/// Body of `POST /v1/forget`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    /// The member's name, or how its id begins.
    pub peer: String,
}

/// Body of `POST /v1/resume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// The pool, on all nodes of the swarm.
    pub pool: String,
}

/// Body of `POST /v1/observe`: how a call ended, what the provider says is left, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObserveRequest {
    /// The pool of the call.
    pub pool: String,
    /// How the call ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<CallOutcome>,
    /// The time after which a throttled caller was told to come back: the pool is paused for as long on all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The limit that `remaining` is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Units of it that are left, by the provider's own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// What the whole limit is, by the provider's own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_value: Option<u64>,
}

/// Answer to `POST /allow`, the simple coordinator: status 200 in either case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllowAnswer {
    /// Whether the call may be made.
    pub allowed: bool,
    /// Units of the pool's first limit that the cost counts for that are spent now in the whole swarm.
    pub count: u64,
    /// The most of them that can be spent at once.
    pub max: u64,
    /// Seconds until asking again makes sense; 0 if allowed, -1 if it never does.
    pub retry_after: f64,
}

/// One limit of a pool, as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// The limit's name.
    pub name: String,
    /// The most that can be spent at once (the burst).
    pub limit: u64,
    /// Units of `limit` that are spent now in the whole swarm; `limit - remaining`. An estimate.
    pub used: u64,
    /// Units that are left now in the whole swarm. An estimate, as fresh as the last gossip.
    pub remaining: u64,
    /// Units that this node may spend now without asking anyone. Exact.
    pub held: u64,
    /// When the whole limit would be full again if nobody spent.
    pub reset_in_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_called_as_json_calls_them() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(
                (serde_json::to_value(reason).unwrap(), reason as usize),
                (reason.name().into(), place)
            );
        }
    }
}
