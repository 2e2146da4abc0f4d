//! Events: what `GET /v1/events` tells, as Server-Sent Events. The `event:` of each is a name of [`Event::name`], its `data:`
//! one of the bodies below; the first of a stream is `status`, with the whole of [`Status`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Guarantee, PauseStatus, Status};

/// Something that happened on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// `status`: how things stood when the stream began.
    Status(Box<Status>),
    /// `summary`: what was answered lately; once a second, unless nothing was asked.
    Summary(SummaryEvent),
    /// `pause`: a pool was paused, or a pause was made longer or shorter, or ended.
    Pause(PauseEvent),
    /// `breaker`: a pool's circuit breaker changed.
    Breaker(BreakerEvent),
    /// `peer`: a member came, or stands otherwise.
    Peer(PeerEvent),
    /// `node`: this node does something else.
    Node(NodeEvent),
    /// `guarantee`: another promise is in force.
    Guarantee(Guarantee),
    /// `lagged`: the reader was too slow.
    Lagged(LaggedEvent),
}

/// Data of `summary`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryEvent {
    /// The time that it is about, up to now.
    pub over_ms: u64,
    /// Pools that were asked for, or for which requests wait.
    pub pools: Vec<PoolSummary>,
    /// Limits that callers brought along (`CL.THROTTLE`), all together.
    #[serde(default)]
    pub throttles: ThrottleSummary,
}

/// What was answered of limits that callers brought along (`CL.THROTTLE`), all keys and numbers together: these are the
/// callers' own, and bounded by nothing that the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleSummary {
    /// Requests that were admitted; those for nothing, which only look, among them.
    pub admitted: u64,
    /// Requests for which there was no room.
    pub refused: u64,
    /// Requests that were not understood, or that the node could not decide.
    pub failed: u64,
}

/// What was answered of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSummary {
    /// The pool.
    pub pool: String,
    /// Requests that were admitted.
    pub admitted: u64,
    /// Requests that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Requests that wait now.
    pub waiting: usize,
}

/// Data of `pause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseEvent {
    /// The pool.
    pub pool: String,
    /// How it is paused; null if it is not any more.
    pub paused: Option<PauseStatus>,
}

/// Data of `breaker`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerEvent {
    /// The pool.
    pub pool: String,
    /// `closed`, `open` or `half-open`.
    pub breaker: String,
}

/// Data of `peer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEvent {
    /// Its public key in hexadecimal.
    pub id: String,
    /// What its configuration calls it.
    pub name: String,
    /// `connected`, `distant`, `lost`, `reclaimed` or `left`.
    pub state: String,
}

/// Data of `node`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEvent {
    /// `joining`, `settling`, `ready` or `leaving`.
    pub state: String,
}

/// Data of `lagged`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaggedEvent {
    /// Events that the reader missed.
    pub missed: u64,
}

impl Event {
    /// The `event:` of the stream.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Summary(_) => "summary",
            Self::Pause(_) => "pause",
            Self::Breaker(_) => "breaker",
            Self::Peer(_) => "peer",
            Self::Node(_) => "node",
            Self::Guarantee(_) => "guarantee",
            Self::Lagged(_) => "lagged",
        }
    }
}
