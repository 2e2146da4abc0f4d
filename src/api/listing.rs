//! Listings: what operators read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LimitState, Priority};

/// Answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`API_VERSION`](super::API_VERSION).
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
    /// The processes of this machine that are connected.
    #[serde(default)]
    pub callers: CallersStatus,
    /// What people should look at: mismatched limits, lost peers, dropped frames.
    pub warnings: Vec<String>,
}

/// Who is connected to the Unix socket, and what was refused to whom. Counts are of this life of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallersStatus {
    /// Connections, that of the request among them.
    pub connections: usize,
    /// The most of them that there may be.
    pub max_connections: usize,
    /// The most that one user may have.
    pub max_connections_per_user: usize,
    /// The users, those with most connections first; at most 16.
    pub users: Vec<UserStatus>,
    /// Connections that were refused because there were too many, of their user or of all.
    pub turned_away: u64,
    /// Requests that were refused instead of queued because their user had too many waiting.
    pub not_queued: u64,
    /// Requests that were denied because of who asked.
    pub denied: u64,
    /// Connections that were closed because their callers were silent, slow or did not read.
    pub timed_out: u64,
}

/// One user of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStatus {
    /// Its id.
    pub uid: u32,
    /// Its connections.
    pub connections: usize,
    /// Its requests that wait, once for each pool that they wait for.
    pub waiting: usize,
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
    /// `open` (a request of one unit would be admitted now), `waiting` (it would wait), `paused` or `broken` (its breaker
    /// refuses calls).
    pub state: String,
    /// How it is paused, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseStatus>,
    /// What its circuit breaker does: `closed`, `open` or `half-open`; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// Requests that wait on this node.
    pub waiting: usize,
    /// The same by class.
    #[serde(default)]
    pub waiting_by_class: ByClass,
    /// The agents that used most of it on this node lately, the greatest first; at most 5.
    #[serde(default)]
    pub top_agents: Vec<TopAgent>,
    /// When a request of one unit could be admitted with what is held now; absent if not with what is held.
    pub opens_in_ms: Option<u64>,
    /// Its limits.
    pub limits: Vec<LimitStatus>,
}

/// How a pool is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseStatus {
    /// `operator` (somebody said so) or `throttled` (the provider told a caller to come back later).
    pub reason: String,
    /// For how much longer; absent if until it is resumed.
    pub for_ms: Option<u64>,
}

/// A number for each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByClass {
    /// Of the most urgent.
    pub critical: usize,
    /// Of the next.
    pub high: usize,
    /// Of those who said nothing.
    pub normal: usize,
    /// Of background work.
    pub low: usize,
}

/// One agent and what it used of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopAgent {
    /// What it calls itself; empty if it does not.
    pub agent: String,
    /// The part of the pool that it used lately, through this node.
    pub share: f64,
    /// Its requests that were admitted here since it is known.
    pub admitted: u64,
}

/// One limit, as `GET /v1/status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// As in an answer.
    #[serde(flatten)]
    pub now: LimitState,
    /// What it counts.
    pub unit: String,
    /// Units that come back every `per_ms`; of a concurrency limit, slots.
    pub amount: u64,
    /// See `amount`; of a window its length, of a calendar limit that of its usual period, of a concurrency limit the
    /// longest life of a permit.
    pub per_ms: u64,
    /// The node's part of the limit now.
    pub held_share: f64,
    /// What of its base is out on loan.
    pub lent_share: f64,
    /// What it has on loan from others.
    pub borrowed_share: f64,
    /// What it should hold by the weighted max-min of all demand.
    pub target_share: f64,
    /// The part that is kept out of all shares because the provider counts as much use that nobody reported.
    #[serde(default)]
    pub unreported_share: f64,
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
    /// [`API_VERSION`](super::API_VERSION).
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
    /// What is held against it, in words; empty of an honest peer.
    #[serde(default)]
    pub evidence: Vec<String>,
}

/// Answer to `GET /v1/ledger`: where base shares come from. Shares are parts of 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerListing {
    /// [`API_VERSION`](super::API_VERSION).
    pub version: u32,
    /// The ledger's id in hexadecimal; absent while the node has none.
    pub id: Option<String>,
    /// All members.
    pub members: Vec<MemberListing>,
    /// Who gave to whom.
    pub gifts: Vec<GiftListing>,
}

/// One member of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberListing {
    /// Its public key in hexadecimal.
    pub id: String,
    /// What its configuration calls it.
    pub name: String,
    /// What it founded with.
    pub founded: f64,
    /// Its base share.
    pub base_share: f64,
}

/// What one member gave to another, ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GiftListing {
    /// The id of who gave.
    pub voucher: String,
    /// The id of whom it was given to.
    pub subject: String,
    /// How much, ever.
    pub given: f64,
    /// How much the subject gave back, ever.
    pub returned: f64,
    /// How much the voucher took back, ever.
    pub reclaimed: f64,
    /// The weight that the voucher gave it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

/// Answer to `GET /v1/limits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// [`API_VERSION`](super::API_VERSION).
    pub version: u32,
    /// Every limit of every pool.
    pub limits: Vec<LimitListing>,
}

/// One limit and who holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitListing {
    /// Its pool.
    pub pool: String,
    /// `rate`, `window`, `calendar` or `concurrency`.
    pub kind: String,
    /// Of a calendar limit: `minute`, `hour`, `day` or `month`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// Of a calendar limit: the IANA name of its time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Of a calendar limit: when the next period begins; absent while the period is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_ends_in_ms: Option<u64>,
    /// Of a concurrency limit: slots that are taken in the whole swarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<u64>,
    /// Names the definition in gossip; nodes that differ here do not share the limit.
    pub fingerprint: String,
    /// As on the status page.
    #[serde(flatten)]
    pub status: LimitStatus,
    /// What each member holds, by node name (and id where names clash).
    pub held_by: BTreeMap<String, f64>,
}

/// Answer to `GET /v1/queue`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queues {
    /// [`API_VERSION`](super::API_VERSION).
    pub version: u32,
    /// The pools for which requests wait here, in the order of the configuration.
    pub pools: Vec<QueueListing>,
}

/// Who waits for one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueListing {
    /// The pool.
    pub pool: String,
    /// How many wait, listed or not.
    pub waiting: usize,
    /// The first of them, in order of service; in all pools together at most 1,000.
    pub requests: Vec<Waiter>,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Its place, from 1: when it is served if nobody comes, leaves or moves up.
    pub position: usize,
    /// Who asks; empty if it did not say.
    pub agent: String,
    /// How urgent it is, as it said.
    pub class: Priority,
    /// How long it has waited.
    pub waited_ms: u64,
    /// When it gives up.
    pub deadline_in_ms: u64,
    /// What it takes, by limit; `pool/limit` for limits of other pools.
    pub units: BTreeMap<String, u64>,
}

/// Answer to `GET /v1/explain/{pool}`: what would become of a request of one unit of everything, by somebody without a
/// name and of class `normal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// [`API_VERSION`](super::API_VERSION).
    pub version: u32,
    /// The pool.
    pub pool: String,
    /// Whether it would be admitted at once.
    pub admitted: bool,
    /// In how long it would be admitted, as far as is known here; absent if never.
    pub opens_in_ms: Option<u64>,
    /// The limit that stands in the way, if it is one.
    pub limited_by: Option<String>,
    /// How the pool is paused, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseStatus>,
    /// What its circuit breaker does: `closed`, `open` or `half-open`; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// Requests that wait on this node, by class.
    pub waiting: ByClass,
    /// The node's own part of every limit.
    pub base_share: f64,
    /// The promise in force.
    pub guarantee: Guarantee,
    /// The limits.
    pub limits: Vec<LimitStatus>,
    /// All of it in sentences.
    pub words: Vec<String>,
}

/// Answer to `GET /v1/token`: what a machine needs to join. Holds the swarm's key: show it to nobody else.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token.
    pub token: String,
    /// The whole command.
    pub command: String,
}
