//! What the core shows, as the API says it.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};

use crate::daemon::api::{
    API_VERSION, AcquireAnswer, Guarantee, LimitListing, LimitState, LimitStatus, Limits, NodeStatus,
    PeerStatus, Peers, PoolStatus, Reason, Status,
};
use crate::daemon::engine::Engine;
use crate::daemon::facts::Facts;
use crate::protocol::id::NodeId;
use crate::protocol::node::{
    self, LimitView, Node, NodeView, Outcome, Phase, Policy, PoolView, Refusal, Standing,
};
use crate::protocol::time::Instant;

/// Answer to `POST /v1/acquire`.
pub fn acquired(
    engine: &Engine,
    pool: usize,
    outcome: Outcome,
    ttl: Duration,
    facts: &Facts,
) -> AcquireAnswer {
    let (view, factor, policy) =
        engine.look(|node, now| (node.pool_view(pool, now), node.worst_case_factor(), node.policy()));
    let mut answer = AcquireAnswer {
        allowed: false,
        permit: None,
        pool: view.pool.name().to_owned(),
        waited_ms: 0,
        expires_in_ms: None,
        guarantee: policy.to_string(),
        worst_case_factor: factor,
        limits: view.limits.iter().map(limit_state).collect(),
        retry_after_ms: None,
        reason: None,
        limited_by: None,
        detail: None,
        title: None,
        status: None,
    };
    match outcome {
        Outcome::Admitted { waited } => {
            answer.allowed = true;
            answer.permit = Some(facts.next_permit());
            answer.waited_ms = millis(waited);
            answer.expires_in_ms = Some(millis(ttl));
        }
        Outcome::Refused(refusal) => refused(&mut answer, &view, refusal),
    }
    answer
}

fn refused(answer: &mut AcquireAnswer, view: &PoolView, refusal: Refusal) {
    let limit = refusal.limit.map(|place| &view.pool.limits()[place]);
    let name = limit.map_or("the pool", |limit| limit.name.as_str());
    let (reason, detail) = match refusal.reason {
        node::Reason::Limit => {
            (Reason::Limit, format!("{name} has no room now, and the caller would not wait"))
        }
        node::Reason::Deadline => {
            (Reason::Deadline, format!("{name} had no room until the caller's deadline"))
        }
        node::Reason::QueueFull => (
            Reason::QueueFull,
            format!("{} requests wait already, as many as may; {name} is short", view.waiting),
        ),
        node::Reason::Leaving => {
            (Reason::Paused, "this node is leaving the swarm; ask another one".to_owned())
        }
        node::Reason::Never => {
            let burst = limit.map_or(0, |limit| limit.kind.capacity());
            (
                Reason::Never,
                format!("{name} can never hold that much at once: its burst is {burst}; split the request"),
            )
        }
    };
    answer.waited_ms = millis(refusal.waited);
    answer.retry_after_ms = refusal.retry_after.map(|after| millis(after).max(1));
    answer.reason = Some(reason);
    answer.limited_by = limit.map(|limit| limit.name.clone());
    answer.detail = Some(detail);
    answer.title = Some("limited".to_owned());
    answer.status = Some(429);
}

/// The headers that HTTP clients know: `Retry-After` (RFC 9110), `retry-after-ms` (as the providers' SDKs read it), and
/// `RateLimit` with `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
pub fn headers(engine: &Engine, pool: usize, answer: &AcquireAnswer, headers: &mut HeaderMap) {
    if let Some(after) = answer.retry_after_ms {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.div_ceil(1_000)));
        headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(after));
    }
    let policies = engine.look(|node, _| {
        let policies = node.pool_at(pool).limits().iter().map(|limit| {
            format!(
                "{};q={};w={}",
                quoted(&limit.name),
                limit.kind.amount(),
                limit.kind.per().as_secs().max(1)
            )
        });
        policies.collect::<Vec<_>>().join(", ")
    });
    let now = answer.limits.iter().map(|limit| {
        format!("{};r={};t={}", quoted(&limit.name), limit.remaining, limit.reset_in_ms.div_ceil(1_000))
    });
    let now = now.collect::<Vec<_>>().join(", ");
    for (name, value) in [("ratelimit-policy", policies), ("ratelimit", now)] {
        // Names of limits need not be ASCII; then the header is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// A structured field's string (RFC 9651).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Answer to `GET /v1/status`.
pub fn status(engine: &Engine, facts: &Facts) -> Status {
    let (view, pools, connected, now) = engine.look(|node, now| {
        let connected = node.peers(now).iter().filter(|peer| peer.standing == Standing::Connected).count();
        (node.view(now), node.pool_views(now), connected, now)
    });
    let mut warnings = view.warnings.clone();
    if let Some(error) = engine.unsaved() {
        warnings.push(format!("the ledger cannot be saved: {error}; peers are told nothing until it is"));
    }
    let counters = facts.counters();
    if counters.malformed > 0 {
        warnings.push(format!("{} malformed frames came from peers and were dropped", counters.malformed));
    }
    if facts.misunderstood() > 0 {
        warnings.push(format!("{} messages from peers could not be understood", facts.misunderstood()));
    }
    Status {
        version: API_VERSION,
        node: NodeStatus {
            id: view.replica.node.to_string(),
            name: facts.name.to_string(),
            incarnation: view.replica.incarnation.0,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            state: state(view.phase).to_owned(),
            ledger: view.ledger.map(|ledger| ledger.0.to_string()),
            base_share: view.base.fraction(),
            addresses: facts.addresses().iter().map(ToString::to_string).collect(),
            uptime_ms: millis(now.since(facts.started)),
        },
        guarantee: guarantee(&view),
        pools: pools.iter().map(|pool| pool_status(pool, now)).collect(),
        peers_connected: connected,
        members: view.members,
        warnings,
    }
}

fn guarantee(view: &NodeView) -> Guarantee {
    let detail = match view.policy {
        Policy::Strict => {
            "never more than the limit, in any partition; the share of a lost member stays reserved"
        }
        Policy::Available if view.worst_case_factor > 1.0 => {
            "members are lost: if they run on separated from each other, each side may come to use the whole limit"
        }
        Policy::Available => {
            "never more than the limit while all members are connected; a lost member's share is reclaimed after \
             forget_after"
        }
    };
    Guarantee {
        policy: view.policy.to_string(),
        worst_case_factor: view.worst_case_factor,
        detail: detail.to_owned(),
    }
}

/// The word for what a node is doing.
pub fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Joining => "joining",
        Phase::Settling(_) => "settling",
        Phase::Ready => "ready",
        Phase::Leaving(_) | Phase::Left => "leaving",
    }
}

fn pool_status(view: &PoolView, now: Instant) -> PoolStatus {
    let open = view.waiting == 0 && view.opens.is_some_and(|at| at <= now);
    PoolStatus {
        name: view.pool.name().to_owned(),
        state: if open { "open" } else { "waiting" }.to_owned(),
        waiting: view.waiting,
        opens_in_ms: view.opens.map(|at| ceil_millis(at.since(now))),
        limits: view.limits.iter().map(limit_status).collect(),
    }
}

fn limit_state(view: &LimitView) -> LimitState {
    let burst = view.limit.kind.capacity();
    LimitState {
        name: view.limit.name.clone(),
        limit: burst,
        used: burst - view.remaining.min(burst),
        remaining: view.remaining,
        held: view.held_units,
        reset_in_ms: ceil_millis(view.reset_in),
    }
}

fn limit_status(view: &LimitView) -> LimitStatus {
    LimitStatus {
        now: limit_state(view),
        unit: view.limit.unit.clone(),
        amount: view.limit.kind.amount(),
        per_ms: millis(view.limit.kind.per()),
        held_share: view.held.fraction(),
        lent_share: view.lent.fraction(),
        borrowed_share: view.borrowed.fraction(),
        target_share: view.target.fraction(),
        admitted: view.admitted,
        admitted_by_all: u64::try_from(view.admitted_by_all).unwrap_or(u64::MAX),
        demand_per_second: view.demand as f64,
    }
}

/// Answer to `GET /v1/peers`.
pub fn peers(engine: &Engine, facts: &Facts) -> Peers {
    let views = engine.look(|node, now| node.peers(now));
    let peers = views.into_iter().map(|view| PeerStatus {
        id: view.node.to_string(),
        name: view.name,
        state: match view.standing {
            Standing::Connected => "connected",
            Standing::Distant => "distant",
            Standing::Lost => "lost",
            Standing::Reclaimed => "reclaimed",
            Standing::Left => "left",
        }
        .to_owned(),
        base_share: view.base.fraction(),
        held_shares: view.held.into_iter().map(|(limit, share)| (limit, share.fraction())).collect(),
        lag_ms: view.lag.map(millis),
        rtt_ms: view.round_trip.map(|time| time.as_secs_f64() * 1_000.0),
        address: facts.link(&view.node).map(|address| address.to_string()),
    });
    Peers { version: API_VERSION, peers: peers.collect() }
}

/// Answer to `GET /v1/limits`.
pub fn limits(engine: &Engine) -> Limits {
    let (pools, names) = engine.look(|node, now| (node.pool_views(now), names(node, now)));
    let listing = |pool: &PoolView, limit: &LimitView| LimitListing {
        pool: pool.pool.name().to_owned(),
        kind: "rate".to_owned(),
        fingerprint: format!("{:016x}", limit.fingerprint.0),
        status: limit_status(limit),
        held_by: limit.held_by.iter().map(|(node, share)| (names[node].clone(), share.fraction())).collect(),
    };
    let limits = pools.iter().flat_map(|pool| pool.limits.iter().map(move |limit| listing(pool, limit)));
    Limits { version: API_VERSION, limits: limits.collect() }
}

/// What people call each member; with its id where two are called the same.
fn names(node: &Node, now: Instant) -> BTreeMap<NodeId, String> {
    let mut names: BTreeMap<NodeId, String> =
        node.peers(now).into_iter().map(|peer| (peer.node, peer.name)).collect();
    names.insert(node.id(), node.name().to_owned());
    let clashes: Vec<NodeId> = names
        .iter()
        .filter(|(id, name)| names.iter().any(|(other, same)| other != *id && same == *name))
        .map(|(id, _)| *id)
        .collect();
    for id in clashes {
        if let Some(name) = names.get_mut(&id) {
            *name = format!("{name} ({})", id.short());
        }
    }
    names
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn ceil_millis(duration: Duration) -> u64 {
    millis(duration + Duration::from_nanos(999_999))
}
