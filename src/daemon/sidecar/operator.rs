//! Bodies of `POST /v1/pause`, `/v1/resume`, `/v1/vouch`, `/v1/forget`, `/v1/leave` and `/v1/observe`, and what they do.

use std::time::Duration;

use super::body::{Members, object};
use super::response::problem;
use crate::api::{API_VERSION, CallOutcome, LeaveAnswer, Problem};
use crate::daemon::config::PoolConfig;
use crate::daemon::engine::Engine;
use crate::protocol::id::NodeId;
use crate::protocol::limit::{AMOUNT_MAX, NAME_MAX};
use crate::protocol::node::{LimitView, PeerView, Standing, WAIT_MAX};
use crate::protocol::pause::PAUSE_MAX;
use crate::protocol::share::Share;

/// The longest that somebody may wait for a node to leave, which takes a few seconds at most.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const OUTCOMES: [(&str, CallOutcome); 3] =
    [("ok", CallOutcome::Ok), ("throttled", CallOutcome::Throttled), ("error", CallOutcome::Error)];
const OBSERVE_MEMBERS: [&str; 6] = ["pool", "outcome", "retry_after_ms", "limit", "remaining", "limit_value"];

/// Pauses a pool on all nodes.
///
/// # Errors
/// The answer to give: 400, or 404 for a pool that is not there.
pub fn pause(engine: &Engine, body: &[u8], pools: &[PoolConfig]) -> Result<(), Problem> {
    let body = object(body, false, &format!("{{\"pool\":{:?},\"for_ms\":60000}}", pools[0].pool.name()))?;
    let members = Members::new(&body, "", &["pool", "for_ms"])?;
    let pool = members.pool("pool", pools)?;
    let length = members.millis("for_ms", Duration::from_millis(1)..=PAUSE_MAX)?;
    engine.pause(pool, length);
    Ok(())
}

/// Ends all pauses of a pool on all nodes.
///
/// # Errors
/// The answer to give: 400, or 404 for a pool that is not there.
pub fn resume(engine: &Engine, body: &[u8], pools: &[PoolConfig]) -> Result<(), Problem> {
    let body = object(body, false, &format!("{{\"pool\":{:?}}}", pools[0].pool.name()))?;
    let pool = Members::new(&body, "", &["pool"])?.pool("pool", pools)?;
    engine.resume(pool);
    Ok(())
}

/// How long who tells the node to leave waits for what becomes of it; not at all unless it says.
///
/// # Errors
/// The answer to give: 400.
pub fn leave_wait(body: &[u8]) -> Result<Option<Duration>, Problem> {
    let body = object(body, true, "{\"wait_ms\":10000} or nothing")?;
    Members::new(&body, "", &["wait_ms"])?.millis("wait_ms", Duration::ZERO..=LEAVE_WAIT_MAX)
}

/// What is left once the node has left, or after `wait`.
pub async fn left(engine: &Engine, wait: Duration) -> LeaveAnswer {
    let until = engine.now() + wait;
    while !engine.has_left() && engine.now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let (view, pools, peers) =
        engine.look(|node, now| (node.view(now), node.pool_views(now), node.peers(now)));
    let limits = |share: fn(&LimitView) -> Share| -> Vec<String> {
        let limits = pools.iter().flat_map(|pool| pool.limits.iter().map(move |limit| (pool, limit)));
        let some = limits.filter(|(_, limit)| share(limit) > Share::ZERO);
        some.map(|(pool, limit)| format!("{}/{}", pool.pool.name(), limit.limit.name)).collect()
    };
    LeaveAnswer {
        version: API_VERSION,
        left: engine.has_left(),
        base_share: view.base.fraction(),
        peers_connected: peers.iter().filter(|peer| peer.standing == Standing::Connected).count(),
        lent: limits(|limit| limit.lent),
        borrowed: limits(|limit| limit.borrowed),
    }
}

/// Vouches for a peer, perhaps with a weight.
///
/// # Errors
/// The answer to give: 400, 404 for a peer that is not there, or 409 if this node cannot vouch for it.
pub fn vouch(engine: &Engine, body: &[u8], _: &[PoolConfig]) -> Result<(), Problem> {
    let body = object(body, false, "{\"peer\":\"ci-runner-2\",\"weight\":2.0}")?;
    let members = Members::new(&body, "", &["peer", "weight"])?;
    let peer = peer_of(engine, &members)?;
    let weight = members.get("weight").map(|weight| {
        let thousandths = weight.as_f64().map(|weight| (weight * 1e3).round());
        let known = thousandths.filter(|weight| (1.0..=f64::from(u32::MAX)).contains(weight));
        known
            .map(|weight| weight as u32)
            .ok_or_else(|| members.bad("weight", "weight must be a number such as 2.0".to_owned()))
    });
    let done = engine.vouch(peer, weight.transpose()?);
    done.map(|_| ()).map_err(|error| problem(409, "cannot be vouched for", error.to_string()))
}

/// Takes back what this node gave to a member.
///
/// # Errors
/// The answer to give: 400, 404 for a member that is not there, or 409 if there is nothing to take back.
pub fn forget(engine: &Engine, body: &[u8], _: &[PoolConfig]) -> Result<(), Problem> {
    let body = object(body, false, "{\"peer\":\"ci-runner-2\"}")?;
    let members = Members::new(&body, "", &["peer"])?;
    let done = engine.forget(peer_of(engine, &members)?);
    done.map(|_| ()).map_err(|error| problem(409, "cannot be forgotten", error.to_string()))
}

fn peer_of(engine: &Engine, members: &Members) -> Result<NodeId, Problem> {
    let wanted = members.text("peer", NAME_MAX)?;
    let wanted =
        wanted.ok_or_else(|| members.bad("peer", "peer is missing; give its name or id".to_owned()))?;
    engine.look(|node, now| peer_named(wanted, &node.peers(now)))
}

/// The one member that is called so, or whose id begins so.
fn peer_named(wanted: &str, peers: &[PeerView]) -> Result<NodeId, Problem> {
    let is_it = |peer: &&PeerView| peer.name == wanted || peer.node.to_string().starts_with(wanted);
    let found: Vec<&PeerView> = peers.iter().filter(is_it).collect();
    let list = |peers: &mut dyn Iterator<Item = &PeerView>| {
        let words: Vec<String> =
            peers.take(8).map(|peer| format!("{} ({})", peer.name, peer.node.short())).collect();
        words.join(", ")
    };
    let detail = match found.as_slice() {
        [peer] => return Ok(peer.node),
        [] => format!("no member is called so, and no id begins so; there is {}", list(&mut peers.iter())),
        several => format!("several members may be meant; say which: {}", list(&mut several.iter().copied())),
    };
    Err(Problem { field: Some("peer".to_owned()), ..problem(404, "no such peer", detail) })
}

/// Tells how a call ended, what the provider says is left of a limit, or both.
///
/// # Errors
/// The answer to give: 400, or 404 for a pool that is not there.
pub fn observe(engine: &Engine, body: &[u8], pools: &[PoolConfig]) -> Result<(), Problem> {
    let example = format!("{{\"pool\":{:?},\"outcome\":\"ok\"}}", pools[0].pool.name());
    let body = object(body, false, &example)?;
    let members = Members::new(&body, "", &OBSERVE_MEMBERS)?;
    let pool = members.pool("pool", pools)?;
    let outcome = members.choice("outcome", &OUTCOMES)?;
    let retry_after = members.millis("retry_after_ms", Duration::ZERO..=WAIT_MAX)?;
    let remaining = members.number("remaining", 0..=AMOUNT_MAX)?;
    let limit_value = members.number("limit_value", 0..=AMOUNT_MAX)?;
    let limit = members.limit("limit", &pools[pool])?;
    if outcome.is_none() && remaining.is_none() {
        let detail = "outcome is missing; say how the call ended: ok, throttled or error".to_owned();
        return Err(members.bad("outcome", detail));
    }
    if limit.is_some() != remaining.is_some() {
        let (there, missing) = if limit.is_some() { ("limit", "remaining") } else { ("remaining", "limit") };
        return Err(members.bad(missing, format!("{missing} is missing; {there} means nothing without it")));
    }
    if remaining.is_none() && limit_value.is_some() {
        let detail = "limit_value means nothing without limit and remaining".to_owned();
        return Err(members.bad("limit_value", detail));
    }
    if outcome.is_none() && retry_after.is_some() {
        let detail = "retry_after_ms means nothing without outcome".to_owned();
        return Err(members.bad("retry_after_ms", detail));
    }
    if let (Some(limit), Some(remaining)) = (limit, remaining) {
        engine.observe_remaining(pool, limit, remaining, limit_value);
    }
    if let Some(outcome) = outcome {
        engine.observe(pool, outcome, retry_after);
    }
    Ok(())
}
