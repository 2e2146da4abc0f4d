//! Bodies of what operators ask of one node: to leave, and to read its configuration again.

use serde::{Deserialize, Serialize};

/// Body of `POST /v1/leave`; all of it may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveRequest {
    /// Answer when the node has left, or after this time; at once and without a body unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// Answer to `POST /v1/leave` with `wait_ms`: what is left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaveAnswer {
    /// See [`API_VERSION`](super::API_VERSION).
    pub version: u32,
    /// Whether the node has left; it ends then. Else it goes on leaving.
    pub left: bool,
    /// The part of every limit that is still the node's own: of one that was alone in its swarm all of it, else what no
    /// other member could take.
    pub base_share: f64,
    /// Other members that this node has a link to.
    pub peers_connected: usize,
    /// Limits, as `pool/limit`, of which it still has share out on loan: it is back with its owner when the loan ends.
    pub lent: Vec<String>,
    /// Limits of which it still has share on loan.
    pub borrowed: Vec<String>,
}

/// Answer to `POST /v1/reload` if something of the configuration needs a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// See [`API_VERSION`](super::API_VERSION).
    pub version: u32,
    /// The keys that differed and are in force now.
    pub applied: Vec<String>,
    /// The keys that differ and stay as they were until the node starts again.
    pub needs_restart: Vec<String>,
}
