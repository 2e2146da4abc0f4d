//! What would become of a request now, in numbers and in words.

use std::time::Duration;

use super::answers::ceil_millis;
use super::listings::{breaker, by_class, guarantee, limit_status, paused};
use crate::api::{API_VERSION, ByClass, Explanation, LimitStatus};
use crate::daemon::config::show_duration;
use crate::daemon::engine::Engine;
use crate::protocol::node::{Ask, Item, PERMIT_TTL, Phase, PoolView};
use crate::protocol::queue::Class;
use crate::protocol::time::Instant;

/// Answer to `GET /v1/explain/{pool}`.
pub fn explain(engine: &Engine, pool: usize) -> Explanation {
    let (view, node, opens, now) = engine.look(|node, now| {
        let units = vec![1; node.pool_at(pool).limits().len()];
        let items = &[Item { pool, units: &units, key: None }];
        let ask =
            Ask { items, agent: "", class: Class::default(), wait: Duration::from_secs(1), ttl: PERMIT_TTL };
        (node.pool_view(pool, now), node.view(now), node.estimate_for(&ask, now), now)
    });
    let opens = opens.filter(|_| !matches!(node.phase, Phase::Leaving(_) | Phase::Left));
    let mut explanation = Explanation {
        version: API_VERSION,
        pool: view.pool.name().to_owned(),
        admitted: opens == Some(Duration::ZERO),
        opens_in_ms: opens.map(ceil_millis),
        limited_by: blocker(&view, now),
        paused: paused(&view),
        breaker: breaker(&view),
        waiting: by_class(view.waiting),
        base_share: node.base.fraction(),
        guarantee: guarantee(&node),
        limits: view.limits.iter().map(limit_status).collect(),
        words: Vec::new(),
    };
    explanation.words = words(&explanation, node.phase);
    explanation
}

/// The limit that keeps a request of one unit waiting longest.
fn blocker(view: &PoolView, now: Instant) -> Option<String> {
    let waits = view.limits.iter().filter(|limit| limit.opens.is_none_or(|at| at > now));
    let longest = waits.max_by_key(|limit| limit.opens.map_or(u64::MAX, Instant::as_nanos));
    longest.map(|limit| limit.limit.name.clone())
}

fn words(explanation: &Explanation, phase: Phase) -> Vec<String> {
    let Explanation { pool, waiting, guarantee, base_share, .. } = explanation;
    let mut words = vec![format!("A request of one unit of every limit of {pool} {}.", outcome(explanation))];
    match phase {
        Phase::Joining => words.push("This node has not joined a swarm yet, so it holds nothing.".to_owned()),
        Phase::Settling(_) => words.push(
            "This node was restarted: it uses its own share when the leases of its former life are over."
                .to_owned(),
        ),
        Phase::Leaving(_) | Phase::Left => {
            words.push("This node leaves the swarm and admits nothing.".to_owned());
        }
        Phase::Ready => {}
    }
    words.push(queue(waiting));
    words.extend(explanation.limits.iter().map(|limit| share(limit, *base_share)));
    words.extend(explanation.limits.iter().filter_map(unreported));
    words.push(format!("The guarantee is {}: {}.", guarantee.policy, guarantee.detail));
    words
}

fn outcome(explanation: &Explanation) -> String {
    if explanation.admitted {
        return "would be admitted at once".to_owned();
    }
    let why = match (&explanation.paused, explanation.breaker.as_deref(), &explanation.limited_by) {
        (Some(paused), ..) if paused.reason == "throttled" => {
            "the provider throttled a call, so the pool is paused".to_owned()
        }
        (Some(_), ..) => "the pool is paused".to_owned(),
        (_, Some("open" | "half-open"), _) => return broken(explanation.opens_in_ms),
        (.., Some(limit)) => format!("{limit} stands in the way"),
        _ => "others wait before it".to_owned(),
    };
    match explanation.opens_in_ms {
        Some(millis) => {
            let time = show_duration(Duration::from_millis(millis));
            format!("would have to wait: {why}; as far as is known here, for {time}")
        }
        None if explanation.paused.is_some() => format!("would have to wait until it is resumed: {why}"),
        None => "would be refused".to_owned(),
    }
}

fn broken(opens_in_ms: Option<u64>) -> String {
    let time = show_duration(Duration::from_millis(opens_in_ms.unwrap_or_default()));
    format!("would be refused: too many calls failed; one is let through to try in {time}")
}

fn queue(waiting: &ByClass) -> String {
    let ByClass { critical, high, normal, low } = *waiting;
    let classes = [(critical, "critical"), (high, "high"), (normal, "normal"), (low, "low")];
    let those: Vec<String> = classes
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, class)| format!("{count} {class}"))
        .collect();
    match &those[..] {
        [] => "Nobody waits on this node.".to_owned(),
        _ => format!("On this node wait: {}.", those.join(", ")),
    }
}

fn unreported(limit: &LimitStatus) -> Option<String> {
    let percent = limit.unreported_share * 100.0;
    let words = || {
        format!(
            "{}: {percent:.1} % of it is kept out of all shares, since the provider counts as much use that nobody reports.",
            limit.now.name
        )
    };
    (limit.unreported_share > 0.0).then(words)
}

fn share(limit: &LimitStatus, base: f64) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let (now, held, target) = (&limit.now, percent(limit.held_share), percent(limit.target_share));
    let (base, lent, borrowed) = (percent(base), percent(limit.lent_share), percent(limit.borrowed_share));
    format!(
        "{}: {} {} may be spent here without asking anyone, {} of {} are left in the swarm; this node holds {held} of it \
         (its own {base}, lent {lent}, borrowed {borrowed}) and should hold {target}.",
        now.name, now.held, limit.unit, now.remaining, now.limit
    )
}
