//! What operators read, made of what the core shows.

use std::collections::BTreeMap;

use super::answers::{ceil_millis, full_name, limit_state, millis};
use crate::api::{
    API_VERSION, ByClass, CallersStatus, GiftListing, Guarantee, LedgerListing, LimitListing, LimitStatus,
    Limits, MemberListing, NodeStatus, PauseStatus, PeerStatus, Peers, PoolStatus, QueueListing, Queues,
    Status, TopAgent, Waiter,
};
use crate::daemon::engine::Engine;
use crate::daemon::facts::Facts;
use crate::protocol::agents;
use crate::protocol::breaker::BreakerState;
use crate::protocol::calendar::Calendar;
use crate::protocol::id::NodeId;
use crate::protocol::limit::Kind;
use crate::protocol::node::{LimitView, Node, NodeView, Phase, Policy, PoolView, Standing, WaiterView};
use crate::protocol::pause::PauseReason;
use crate::protocol::share::Share;
use crate::protocol::time::Instant;

/// The most waiting requests that a listing shows.
const WAITERS_MAX: usize = 1_000;
/// How many agents the status page shows of each pool.
const TOP: usize = 5;

/// Answer to `GET /v1/status`.
pub fn status(engine: &Engine, facts: &Facts, callers: CallersStatus) -> Status {
    let (view, name, pools, connected, now) = engine.look(|node, now| {
        let connected = node.peers(now).iter().filter(|peer| peer.standing == Standing::Connected).count();
        let pools: Vec<_> = node
            .pool_views(now)
            .into_iter()
            .zip(0..)
            .map(|(view, pool)| (view, top(node, pool, now)))
            .collect();
        (node.view(now), node.name().to_owned(), pools, connected, now)
    });
    let mut warnings = view.warnings.clone();
    warnings.extend(facts.warnings.iter().cloned());
    if let Some(error) = engine.unsaved() {
        warnings.push(format!(
            "the ledger cannot be saved: {error}; until it is, peers are told nothing, and of limits that take long to \
             come back no more is admitted than was put on disk before"
        ));
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
            name,
            incarnation: view.replica.incarnation.0,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            state: state(view.phase).to_owned(),
            ledger: view.ledger.map(|ledger| ledger.0.to_string()),
            base_share: view.base.fraction(),
            addresses: facts.addresses().iter().map(ToString::to_string).collect(),
            uptime_ms: millis(now.since(facts.started)),
        },
        guarantee: guarantee(&view),
        pools: pools.into_iter().map(|(pool, top)| pool_status(&pool, top, now)).collect(),
        peers_connected: connected,
        members: view.members,
        callers,
        warnings,
    }
}

pub(super) fn guarantee(view: &NodeView) -> Guarantee {
    let detail = match view.policy {
        Policy::Strict => {
            "never more than the limit, in any partition; the share of a lost member stays reserved"
        }
        Policy::Majority => {
            "never more than the limit, in any partition; who is not heard by members with more than half of all base \
             shares stops before forget_after, and they take its share then"
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

/// The word for how a member stands.
pub fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Connected => "connected",
        Standing::Distant => "distant",
        Standing::Lost => "lost",
        Standing::Reclaimed => "reclaimed",
        Standing::Left => "left",
    }
}

/// How a pool is paused, if it is.
pub(super) fn paused(view: &PoolView) -> Option<PauseStatus> {
    view.paused.map(|(left, reason)| PauseStatus {
        reason: match reason {
            PauseReason::Operator => "operator",
            PauseReason::Throttled => "throttled",
        }
        .to_owned(),
        for_ms: left.map(ceil_millis),
    })
}

/// The word for what a pool's breaker does, if it has one.
pub(super) fn breaker(view: &PoolView) -> Option<String> {
    view.breaker.map(|state| {
        match state {
            BreakerState::Closed => "closed",
            BreakerState::Open(_) => "open",
            BreakerState::HalfOpen => "half-open",
        }
        .to_owned()
    })
}

fn pool_status(view: &PoolView, top_agents: Vec<TopAgent>, now: Instant) -> PoolStatus {
    let waiting = view.waiting.iter().sum();
    let state = match (view.paused, view.breaker) {
        (Some(_), _) => "paused",
        (_, Some(BreakerState::Open(_) | BreakerState::HalfOpen)) => "broken",
        _ if waiting == 0 && view.opens.is_some_and(|at| at <= now) => "open",
        _ => "waiting",
    };
    PoolStatus {
        name: view.pool.name().to_owned(),
        state: state.to_owned(),
        paused: paused(view),
        breaker: breaker(view),
        waiting,
        waiting_by_class: by_class(view.waiting),
        top_agents,
        opens_in_ms: view.opens.map(|at| ceil_millis(at.since(now))),
        limits: view.limits.iter().map(limit_status).collect(),
    }
}

pub(super) fn limit_status(view: &LimitView) -> LimitStatus {
    LimitStatus {
        now: limit_state(view, &view.limit.name),
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
        unreported_share: view.unreported.fraction(),
    }
}

/// Answer to `GET /v1/peers`.
pub fn peers(engine: &Engine, facts: &Facts) -> Peers {
    let views = engine.look(|node, now| node.peers(now));
    let peers = views.into_iter().map(|view| PeerStatus {
        id: view.node.to_string(),
        name: view.name,
        state: standing(view.standing).to_owned(),
        base_share: view.base.fraction(),
        held_shares: view.held.into_iter().map(|(limit, share)| (limit, share.fraction())).collect(),
        lag_ms: view.lag.map(millis),
        rtt_ms: view.round_trip.map(|time| time.as_secs_f64() * 1_000.0),
        address: facts.link(&view.node).map(|address| address.to_string()),
        evidence: view.evidence,
    });
    Peers { version: API_VERSION, peers: peers.collect() }
}

/// Answer to `GET /v1/limits`.
pub fn limits(engine: &Engine) -> Limits {
    let (pools, names, now) = engine.look(|node, now| (node.pool_views(now), names(node, now), now));
    let listing = |pool: &PoolView, limit: &LimitView| LimitListing {
        pool: pool.pool.name().to_owned(),
        kind: limit.limit.kind.name().to_owned(),
        every: calendar(limit).map(|calendar| calendar.every().to_string()),
        zone: calendar(limit).map(|calendar| calendar.zone().name().to_owned()),
        period_ends_in_ms: limit.period_ends.map(|at| ceil_millis(at.since(now))),
        in_use: matches!(limit.limit.kind, Kind::Concurrency(_))
            .then(|| limit.limit.kind.capacity() - limit.remaining),
        fingerprint: format!("{:016x}", limit.fingerprint.0),
        status: limit_status(limit),
        held_by: limit.held_by.iter().map(|(node, share)| (names[node].clone(), share.fraction())).collect(),
    };
    let limits = pools.iter().flat_map(|pool| pool.limits.iter().map(move |limit| listing(pool, limit)));
    Limits { version: API_VERSION, limits: limits.collect() }
}

/// Answer to `GET /v1/ledger`.
pub fn ledger(engine: &Engine) -> LedgerListing {
    engine.look(|node, now| {
        let (ledger, names) = (node.ledger(), names(node, now));
        let member = |(id, base): (&NodeId, &Share)| MemberListing {
            id: id.to_string(),
            name: names.get(id).cloned().unwrap_or_else(|| id.short()),
            founded: ledger.founded(id).unwrap_or_default().fraction(),
            base_share: base.fraction(),
        };
        let share = |from: &NodeId, to: &NodeId| ledger.gift(from, to).map_or(Share::ZERO, |gift| gift.share);
        let gifts = node.bases().keys().flat_map(|voucher| {
            ledger.gifts(voucher).map(|(subject, gift)| GiftListing {
                voucher: voucher.to_string(),
                subject: subject.to_string(),
                given: gift.share.fraction(),
                returned: share(&subject, voucher).fraction(),
                reclaimed: ledger.reclaimed(voucher, &subject).fraction(),
                weight: (gift.weight > 0).then(|| f64::from(gift.weight) / 1e3),
            })
        });
        LedgerListing {
            version: API_VERSION,
            id: node.view(now).ledger.map(|id| id.0.to_string()),
            members: node.bases().iter().map(member).collect(),
            gifts: gifts.collect(),
        }
    })
}

fn calendar(limit: &LimitView) -> Option<&Calendar> {
    match &limit.limit.kind {
        Kind::Calendar(calendar) => Some(calendar),
        _ => None,
    }
}

/// Answer to `GET /v1/queue`.
pub fn queues(engine: &Engine) -> Queues {
    let mut left = WAITERS_MAX;
    let mut pools = Vec::new();
    engine.look(|node, now| {
        for pool in 0..node.pools() {
            let waiting = node.waiting(pool).iter().sum();
            if waiting == 0 {
                continue;
            }
            let requests: Vec<Waiter> =
                node.queue_view(pool, left, now).into_iter().map(|view| waiter(node, pool, view)).collect();
            left -= requests.len();
            pools.push(QueueListing { pool: node.pool_at(pool).name().to_owned(), waiting, requests });
        }
    });
    Queues { version: API_VERSION, pools }
}

fn waiter(node: &Node, pool: usize, view: WaiterView) -> Waiter {
    let units = view.units.iter().map(|(place, units)| {
        let (of, limit) = node.limit_at(*place);
        let name = if of == pool { limit.name.clone() } else { full_name(node, *place) };
        (name, *units)
    });
    Waiter {
        position: view.position,
        class: view.class,
        waited_ms: millis(view.waited),
        deadline_in_ms: ceil_millis(view.gives_up_in),
        units: units.collect(),
        agent: view.agent,
    }
}

fn top(node: &Node, pool: usize, now: Instant) -> Vec<TopAgent> {
    let agent = |agent: agents::TopAgent<'_>| TopAgent {
        agent: agent.name.to_owned(),
        share: f64::from(agent.share) / f64::from(agents::SHARE_MAX),
        admitted: agent.admitted,
    };
    node.top_agents(pool, TOP, now).into_iter().map(agent).collect()
}

/// Numbers by the index of their class.
pub(super) fn by_class([critical, high, normal, low]: [usize; 4]) -> ByClass {
    ByClass { critical, high, normal, low }
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
