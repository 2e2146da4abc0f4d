//! Between the messages of `aquifer.v1` and the bodies of the Unix socket.

use tonic::{Code, Status};

use crate::daemon::api::{
    AcquireAnswer, AcquireRequest, Bind, CommitRequest, ItemRequest, LimitState, LimitStatus, PoolNames,
    PoolStatus, Priority, Problem, Reason, Status as NodeStatus,
};
use crate::daemon::proto::aquifer::v1 as proto;

/// A request in the words of `POST /v1/acquire`.
///
/// # Errors
/// A number that is no priority or bind.
pub fn acquire(request: proto::AcquireRequest) -> Result<AcquireRequest, Status> {
    let priority = match proto::Priority::try_from(request.priority) {
        Ok(proto::Priority::Unspecified) => None,
        Ok(proto::Priority::Critical) => Some(Priority::Critical),
        Ok(proto::Priority::High) => Some(Priority::High),
        Ok(proto::Priority::Normal) => Some(Priority::Normal),
        Ok(proto::Priority::Low) => Some(Priority::Low),
        Err(_) => return Err(Status::invalid_argument("priority: must be from 0 to 4")),
    };
    let bind = match proto::Bind::try_from(request.bind) {
        Ok(proto::Bind::None) => None,
        Ok(proto::Bind::Connection) => Some(Bind::Connection),
        Err(_) => return Err(Status::invalid_argument("bind: must be 0 or 1")),
    };
    let mut pools = request.pool;
    let pool = match pools.len() {
        0 => PoolNames::default(),
        1 => PoolNames::One(pools.remove(0)),
        _ => PoolNames::FirstOf(pools),
    };
    let items = request.items.into_iter().map(|item| {
        let proto::Item { pool, requests, tokens, cost, key } = item;
        ItemRequest { pool, requests, tokens, cost, key }
    });
    Ok(AcquireRequest {
        pool,
        requests: request.requests,
        tokens: request.tokens,
        cost: request.cost,
        key: request.key,
        items: items.collect(),
        agent: request.agent,
        priority,
        wait_ms: request.wait_ms,
        ttl_ms: request.ttl_ms,
        bind,
    })
}

/// What was used, in the words of `POST /v1/permits/{id}/commit`.
pub fn used(used: proto::Used) -> CommitRequest {
    CommitRequest { requests: used.requests, tokens: used.tokens, cost: used.cost }
}

/// The answer to a request.
pub fn acquired(answer: AcquireAnswer) -> proto::AcquireReply {
    proto::AcquireReply {
        allowed: answer.allowed,
        permit: answer.permit.unwrap_or_default(),
        pool: answer.pool,
        waited_ms: answer.waited_ms,
        expires_in_ms: answer.expires_in_ms,
        guarantee: answer.guarantee,
        worst_case_factor: answer.worst_case_factor,
        limits: answer.limits.into_iter().map(limit).collect(),
        retry_after_ms: answer.retry_after_ms,
        reason: answer.reason.map_or(proto::Reason::Unspecified, reason).into(),
        limited_by: answer.limited_by.unwrap_or_default(),
        detail: answer.detail.unwrap_or_default(),
    }
}

fn reason(reason: Reason) -> proto::Reason {
    match reason {
        Reason::Limit => proto::Reason::Limit,
        Reason::Deadline => proto::Reason::Deadline,
        Reason::QueueFull => proto::Reason::QueueFull,
        Reason::UserQueueFull => proto::Reason::UserQueueFull,
        Reason::Paused => proto::Reason::Paused,
        Reason::Never => proto::Reason::Never,
        Reason::Breaker => proto::Reason::Breaker,
        Reason::TooManyKeys => proto::Reason::TooManyKeys,
    }
}

fn limit(limit: LimitState) -> proto::LimitState {
    let LimitState { name, limit, used, remaining, held, reset_in_ms } = limit;
    proto::LimitState { name, limit, used, remaining, held, reset_in_ms }
}

/// The answer to `WatchStatus`.
pub fn node_status(status: NodeStatus) -> proto::Status {
    proto::Status {
        node: status.node.id,
        name: status.node.name,
        state: status.node.state,
        base_share: status.node.base_share,
        guarantee: status.guarantee.policy,
        worst_case_factor: status.guarantee.worst_case_factor,
        peers_connected: status.peers_connected as u64,
        members: status.members as u64,
        pools: status.pools.into_iter().map(pool_status).collect(),
        warnings: status.warnings,
    }
}

fn pool_status(pool: PoolStatus) -> proto::PoolStatus {
    proto::PoolStatus {
        name: pool.name,
        state: pool.state,
        waiting: pool.waiting as u64,
        opens_in_ms: pool.opens_in_ms,
        limits: pool.limits.into_iter().map(limit_status).collect(),
    }
}

fn limit_status(status: LimitStatus) -> proto::LimitStatus {
    proto::LimitStatus {
        now: Some(limit(status.now)),
        unit: status.unit,
        amount: status.amount,
        per_ms: status.per_ms,
        held_share: status.held_share,
        admitted: status.admitted,
    }
}

/// A problem as gRPC says it, with the field in front.
pub fn status(problem: &Problem) -> Status {
    let code = match problem.status {
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        410 => Code::FailedPrecondition,
        503 => Code::Unavailable,
        400..500 => Code::InvalidArgument,
        _ => Code::Internal,
    };
    let detail = &problem.detail;
    Status::new(
        code,
        problem.field.as_ref().map_or_else(|| detail.clone(), |field| format!("{field}: {detail}")),
    )
}
