//! What is different from the last look.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::{
    BreakerEvent, Event, Guarantee, NodeEvent, PauseEvent, PeerEvent, PoolSummary, Reason, SummaryEvent,
    ThrottleSummary,
};
use crate::daemon::engine::Engine;
use crate::daemon::sidecar::answers::millis;
use crate::daemon::sidecar::listings;
use crate::daemon::tally::{Counts, Tally};
use crate::protocol::id::NodeId;
use crate::protocol::node::{PeerView, PoolView};
use crate::protocol::pause::PauseReason;
use crate::protocol::time::Instant;

/// A pause whose end moves by less is the same pause: what is left of it is counted from another moment each time.
const SAME_PAUSE: Duration = Duration::from_millis(500);

/// How things stood at the last look, and what was told as answered.
pub struct Changes {
    state: String,
    guarantee: Guarantee,
    pools: Vec<Pool>,
    peers: BTreeMap<NodeId, (String, String)>,
    answered: Vec<Counts>,
    throttled: ThrottleSummary,
}

struct Pool {
    name: String,
    /// Until when it is paused, if that is known, and why.
    paused: Option<(Option<Instant>, PauseReason)>,
    breaker: Option<String>,
}

impl Changes {
    /// As things stand.
    pub fn new(engine: &Engine, tally: &Tally) -> Self {
        let (state, guarantee, pools, peers) = look(engine);
        let answered = (0..tally.pools()).map(|pool| tally.counts(pool)).collect();
        let pools = pools.into_iter().map(|(pool, _)| pool).collect();
        let (peers, throttled) = (peers.iter().map(named).collect(), tally.throttles());
        Self { state, guarantee, pools, peers, answered, throttled }
    }

    /// What is different now.
    pub fn since_last_look(&mut self, engine: &Engine) -> Vec<Event> {
        let mut events = Vec::new();
        let (state, guarantee, pools, peers) = look(engine);
        if state != self.state {
            events.push(Event::Node(NodeEvent { state: state.clone() }));
        }
        if guarantee != self.guarantee {
            events.push(Event::Guarantee(guarantee.clone()));
        }
        for (last, (pool, view)) in self.pools.iter().zip(&pools) {
            if !same_pause(last.paused, pool.paused) {
                let paused = listings::paused(view);
                events.push(Event::Pause(PauseEvent { pool: pool.name.clone(), paused }));
            }
            if let Some(breaker) = pool.breaker.clone().filter(|_| last.breaker != pool.breaker) {
                events.push(Event::Breaker(BreakerEvent { pool: pool.name.clone(), breaker }));
            }
        }
        let peers: BTreeMap<_, _> = peers.iter().map(named).collect();
        for (id, (name, state)) in &peers {
            if self.peers.get(id).is_none_or(|(_, last)| last != state) {
                let (id, name, state) = (id.to_string(), name.clone(), state.clone());
                events.push(Event::Peer(PeerEvent { id, name, state }));
            }
        }
        let pools = pools.into_iter().map(|(pool, _)| pool).collect();
        (self.state, self.guarantee, self.pools, self.peers) = (state, guarantee, pools, peers);
        events
    }

    /// What was answered since the last summary, if anything was or somebody waits.
    pub fn summary(&mut self, engine: &Engine, tally: &Tally, over: Duration) -> Option<Event> {
        let waiting: Vec<usize> = engine
            .look(|node, _| (0..self.pools.len()).map(|pool| node.waiting(pool).iter().sum()).collect());
        let mut pools = Vec::new();
        for (place, last) in self.answered.iter_mut().enumerate() {
            let now = tally.counts(place);
            let refused: BTreeMap<String, u64> = (Reason::ALL.iter().zip(now.refused).zip(last.refused))
                .filter(|((_, now), last)| now > last)
                .map(|((reason, now), last)| (reason.name().to_owned(), now - last))
                .collect();
            let (pool, admitted) = (self.pools[place].name.clone(), now.admitted - last.admitted);
            *last = now;
            if admitted > 0 || !refused.is_empty() || waiting[place] > 0 {
                pools.push(PoolSummary { pool, admitted, refused, waiting: waiting[place] });
            }
        }
        let now = tally.throttles();
        let last = std::mem::replace(&mut self.throttled, now);
        let throttles = ThrottleSummary {
            admitted: now.admitted - last.admitted,
            refused: now.refused - last.refused,
            failed: now.failed - last.failed,
        };
        let quiet = pools.is_empty() && last == now;
        (!quiet).then(|| Event::Summary(SummaryEvent { over_ms: millis(over), pools, throttles }))
    }
}

fn look(engine: &Engine) -> (String, Guarantee, Vec<(Pool, PoolView)>, Vec<PeerView>) {
    engine.look(|node, now| {
        let view = node.view(now);
        let pool = |view: PoolView| {
            let pool = Pool {
                name: view.pool.name().to_owned(),
                paused: view.paused.map(|(left, why)| (left.map(|left| now + left), why)),
                breaker: listings::breaker(&view),
            };
            (pool, view)
        };
        let pools = node.pool_views(now).into_iter().map(pool).collect();
        (listings::state(view.phase).to_owned(), listings::guarantee(&view), pools, node.peers(now))
    })
}

fn same_pause(
    last: Option<(Option<Instant>, PauseReason)>,
    now: Option<(Option<Instant>, PauseReason)>,
) -> bool {
    match (last, now) {
        (Some((Some(last), why)), Some((Some(now), also))) => {
            why == also && now.since(last).max(last.since(now)) < SAME_PAUSE
        }
        _ => last == now,
    }
}

fn named(peer: &PeerView) -> (NodeId, (String, String)) {
    (peer.node, (peer.name.clone(), listings::standing(peer.standing).to_owned()))
}
