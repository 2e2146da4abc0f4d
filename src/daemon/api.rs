//! What crosses the Unix socket: the bodies of requests and answers, for the server and for clients.
//!
//! The JSON is a contract: members are added, never renamed or removed, while [`API_VERSION`] stays the same.
//! Times are relative milliseconds (`…_ms`), shares are fractions of the whole limit (`0.0` to `1.0`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version that every listing carries.
pub const API_VERSION: u32 = 1;

/// Body of `POST /v1/acquire`. All but `pool` is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcquireRequest {
    /// The pool to pass.
    pub pool: String,
    /// Requests to take; one unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Tokens to take; none unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Units of single limits by the limit's own name, or of another unit by the unit's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cost: BTreeMap<String, u64>,
    /// Who asks, for people. At most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// How urgent it is; validated, not yet used to order the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// How long to wait for admission; 0 asks and does not wait. Unless said, as the pool's `overflow` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// How long the permit lives; 120 s unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// Classes of urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before everything.
    Critical,
    /// Before normal.
    High,
    /// Unless said.
    #[default]
    Normal,
    /// After everything.
    Low,
}

/// Answer to `POST /v1/acquire`: 200 when `allowed`, 429 when not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcquireAnswer {
    /// Whether the call may be made.
    pub allowed: bool,
    /// Names the admission; absent when refused.
    pub permit: Option<String>,
    /// The pool that was asked.
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
    /// The pool's limits after the decision.
    pub limits: Vec<LimitState>,
    /// When to ask again, jittered; absent when admitted, and when `reason` is `never`.
    pub retry_after_ms: Option<u64>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The limit that stood in the way.
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
    /// The pool is paused, or the node is leaving.
    Paused,
    /// The cost is more than the limit can ever hold.
    Never,
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

/// Any error that is not a refusal: `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A short name of the problem.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// What is wrong and what to do next.
    pub detail: String,
    /// The member of the body that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`API_VERSION`].
    pub version: u32,
    /// This node.
    pub node: NodeStatus,
    /// The promise in force.
    pub guarantee: Guarantee,
    /// Its pools, in the order of the configuration.
    pub pools: Vec<PoolStatus>,
    /// Peers with a live link.
    pub peers_connected: usize,
    /// Members of the ledger that this node knows of, itself included.
    pub members: usize,
    /// What people should look at: mismatched limits, lost peers, dropped frames.
    pub warnings: Vec<String>,
}

/// This node, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its public key in hexadecimal.
    pub id: String,
    /// What its configuration calls it.
    pub name: String,
    /// Which life it is in.
    pub incarnation: u64,
    /// The version of the program.
    pub program: String,
    /// `joining` (no ledger yet), `settling` (a former life's leases may still run), `ready`, or `leaving`.
    pub state: String,
    /// The founder's id; absent while joining.
    pub ledger: Option<String>,
    /// Its own part of every limit.
    pub base_share: f64,
    /// Where peers reach it.
    pub addresses: Vec<String>,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
}

/// Which promise answers are given under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guarantee {
    /// `strict` or `available`.
    pub policy: String,
    /// By what factor the limit can be exceeded at worst: 1 is never.
    pub worst_case_factor: f64,
    /// In words.
    pub detail: String,
}

/// One pool, as `GET /v1/status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// `open` (a request of one unit would be admitted now), `waiting` (it would wait).
    pub state: String,
    /// Requests that wait on this node.
    pub waiting: usize,
    /// When a request of one unit could be admitted with what is held now; absent if not with what is held.
    pub opens_in_ms: Option<u64>,
    /// Its limits.
    pub limits: Vec<LimitStatus>,
}

/// One limit, as `GET /v1/status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// As in an answer.
    #[serde(flatten)]
    pub now: LimitState,
    /// What it counts.
    pub unit: String,
    /// Units that come back every `per_ms`.
    pub amount: u64,
    /// See `amount`.
    pub per_ms: u64,
    /// The node's part of the limit now.
    pub held_share: f64,
    /// What of its base is out on loan.
    pub lent_share: f64,
    /// What it has on loan from others.
    pub borrowed_share: f64,
    /// What it should hold by the weighted max-min of all demand.
    pub target_share: f64,
    /// Units admitted by this node in this life.
    pub admitted: u64,
    /// Units admitted by the whole swarm, ever, as far as heard (the G-counter).
    pub admitted_by_all: u64,
    /// Units per second that this node's callers ask for.
    pub demand_per_second: f64,
}

/// Answer to `GET /v1/peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// [`API_VERSION`].
    pub version: u32,
    /// All members heard of, but this node.
    pub peers: Vec<PeerStatus>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its public key in hexadecimal.
    pub id: String,
    /// What its configuration calls it.
    pub name: String,
    /// `connected`, `distant` (no link, but others have one), `lost`, `reclaimed` or `left`.
    pub state: String,
    /// Its own part of every limit.
    pub base_share: f64,
    /// What it holds of each limit, by `pool/limit`.
    pub held_shares: BTreeMap<String, f64>,
    /// Milliseconds since it was last heard, first-hand or through others; absent if never in this life.
    pub lag_ms: Option<u64>,
    /// Round trip; absent while unknown.
    pub rtt_ms: Option<f64>,
    /// Where it is reached; absent without a link.
    pub address: Option<String>,
}

/// Answer to `GET /v1/limits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// [`API_VERSION`].
    pub version: u32,
    /// Every limit of every pool.
    pub limits: Vec<LimitListing>,
}

/// One limit and who holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitListing {
    /// Its pool.
    pub pool: String,
    /// `rate`.
    pub kind: String,
    /// Names the definition in gossip; nodes that differ here do not share the limit.
    pub fingerprint: String,
    /// As on the status page.
    #[serde(flatten)]
    pub status: LimitStatus,
    /// What each member holds, by node name (and id where names clash).
    pub held_by: BTreeMap<String, f64>,
}

/// Answer to `GET /v1/token`: what a machine needs to join. Holds the swarm's key: show it to nobody else.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token.
    pub token: String,
    /// The whole command.
    pub command: String,
}
