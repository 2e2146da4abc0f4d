//! What crosses the Unix socket: the bodies of requests and answers, for the server and for clients.
//!
//! The JSON is a contract: members are added, never renamed or removed, while [`API_VERSION`] stays the same.
//! Times are relative milliseconds (`…_ms`), shares are fractions of the whole limit (`0.0` to `1.0`).

mod call;
mod event;
mod listing;
mod operator;

use serde::{Deserialize, Serialize};

pub use self::call::{
    AcquireAnswer, AcquireRequest, AllowAnswer, Bind, CommitRequest, ForgetRequest, ItemRequest, LimitState,
    ObserveRequest, PauseRequest, PoolNames, Reason, ResumeRequest, SettleAnswer, VouchRequest,
};
pub use self::event::{
    BreakerEvent, Event, LaggedEvent, NodeEvent, PauseEvent, PeerEvent, PoolSummary, SummaryEvent,
    ThrottleSummary,
};
pub use self::listing::{
    ByClass, CallersStatus, Explanation, GiftListing, Guarantee, LedgerListing, LimitListing, LimitStatus,
    Limits, MemberListing, NodeStatus, PauseStatus, PeerStatus, Peers, PoolStatus, QueueListing, Queues,
    Status, TokenAnswer, TopAgent, UserStatus, Waiter,
};
pub use self::operator::{LeaveAnswer, LeaveRequest, ReloadAnswer};
/// How a call ended: `ok`, `throttled` or `error`.
pub use crate::protocol::breaker::CallOutcome;
/// Classes of urgency.
pub use crate::protocol::queue::Class as Priority;

/// The version that every listing carries.
pub const API_VERSION: u32 = 1;

/// The longest key of a keyed pool, in bytes.
pub const KEY_MAX: usize = 256;

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
    /// Why this caller was turned away, if it is about who asks and not about what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Denial>,
}

/// Why a caller was turned away: because of who it is, or how much its user takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// Status 403: this is for operators.
    OperatorsOnly,
    /// Status 403: another user got the permit.
    NotYourPermit,
    /// Status 503: its user has as many connections as one may.
    UserConnections,
    /// Status 503: there are as many connections as may be.
    Connections,
    /// Status 503: as many read events as may.
    Readers,
}
