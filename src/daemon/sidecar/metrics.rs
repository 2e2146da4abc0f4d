//! `GET /metrics`: what the node has done and how it stands, for Prometheus.
//!
//! Base units, one prefix, and labels that the configuration bounds: pools, limits and fixed sets of words. Neither agents,
//! nor keys, nor peers are labels.

mod page;

use std::time::Duration;

pub use self::page::Format;
use self::page::{Kind, Page};
use super::listings;
use crate::api::{CallersStatus, Reason, ThrottleSummary};
use crate::daemon::engine::Engine;
use crate::daemon::facts::Facts;
use crate::daemon::tally::{Tally, WAIT_BOUNDS};
use crate::protocol::node::{LimitView, NodeView, PeerView, PoolView, Standing};
use crate::protocol::queue::Class;

const BREAKERS: [&str; 3] = ["closed", "open", "half-open"];
const PHASES: [&str; 4] = ["joining", "settling", "ready", "leaving"];
const STANDINGS: [Standing; 5] =
    [Standing::Connected, Standing::Distant, Standing::Lost, Standing::Reclaimed, Standing::Left];

/// The whole page.
pub fn metrics(
    engine: &Engine,
    facts: &Facts,
    callers: &CallersStatus,
    tally: &Tally,
    format: Format,
) -> String {
    let (node, pools, peers, uptime) = engine
        .look(|node, now| (node.view(now), node.pool_views(now), node.peers(now), now.since(facts.started)));
    let mut page = Page::new(format);
    of_node(&mut page, &node, &peers, uptime, engine.unsaved().is_some());
    of_answers(&mut page, &pools, tally);
    of_throttles(&mut page, tally.throttles());
    of_pools(&mut page, &pools);
    of_limits(&mut page, &pools);
    of_callers(&mut page, callers);
    of_gossip(&mut page, facts);
    page.finish()
}

fn of_node(page: &mut Page, node: &NodeView, peers: &[PeerView], uptime: Duration, unsaved: bool) {
    page.family("aquifer_build", Kind::Info, "The program.");
    page.sample("", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.gauge("aquifer_uptime_seconds", "Time since the start.", uptime.as_secs_f64());
    page.family("aquifer_node_state", Kind::Gauge, "1 for what the node is doing.");
    let state = listings::state(node.phase);
    PHASES.iter().for_each(|one| page.sample("", &[("state", one)], u8::from(*one == state)));
    page.gauge("aquifer_base_share_ratio", "The node's own part of every limit.", node.base.fraction());
    page.gauge("aquifer_members", "Members of the ledger, this node among them.", node.members as f64);
    let factor = "By what factor the swarm can exceed its limits at worst as things stand; 1 is never.";
    page.gauge("aquifer_worst_case_factor", factor, node.worst_case_factor);
    page.gauge("aquifer_warnings", "What people should look at.", node.warnings.len() as f64);
    page.gauge("aquifer_unsaved", "1 while the ledger cannot be saved.", f64::from(u8::from(unsaved)));
    page.family("aquifer_peers", Kind::Gauge, "Other members by how they stand.");
    for standing in STANDINGS {
        let count = peers.iter().filter(|peer| peer.standing == standing).count();
        page.sample("", &[("state", listings::standing(standing))], count);
    }
    let linked = peers.iter().filter(|peer| peer.standing == Standing::Connected);
    let lag = linked.filter_map(|peer| peer.lag).max().unwrap_or_default();
    let help = "Time since the linked peer that was not heard for longest was heard.";
    page.gauge("aquifer_peer_lag_seconds", help, lag.as_secs_f64());
}

fn of_answers(page: &mut Page, pools: &[PoolView], tally: &Tally) {
    let named = pools.iter().map(|pool| pool.pool.name());
    let counts: Vec<_> = named.zip((0..tally.pools()).map(|pool| tally.counts(pool))).collect();
    let help = "Requests for permits that were answered, by the answer and why.";
    page.family("aquifer_acquires", Kind::Counter, help);
    for (pool, counts) in &counts {
        page.sample("", &[("pool", pool), ("result", "admitted"), ("reason", "")], counts.admitted);
        for (reason, refused) in Reason::ALL.iter().zip(counts.refused) {
            page.sample("", &[("pool", pool), ("result", "refused"), ("reason", reason.name())], refused);
        }
    }
    page.family("aquifer_acquire_wait_seconds", Kind::Histogram, "How long admitted requests waited.");
    for (pool, counts) in &counts {
        let mut below = 0;
        for (bound, waits) in WAIT_BOUNDS.iter().zip(counts.waits) {
            below += waits;
            page.sample("_bucket", &[("pool", pool), ("le", &format!("{bound:?}"))], below);
        }
        // Read after the buckets were, or it might be less than they are.
        page.sample("_bucket", &[("pool", pool), ("le", "+Inf")], counts.admitted.max(below));
        page.sample("_count", &[("pool", pool)], counts.admitted.max(below));
        page.sample("_sum", &[("pool", pool)], counts.waited.as_secs_f64());
    }
}

fn of_throttles(page: &mut Page, throttles: ThrottleSummary) {
    let help = "Requests of CL.THROTTLE that were answered, all keys and numbers together.";
    page.family("aquifer_throttles", Kind::Counter, help);
    let ThrottleSummary { admitted, refused, failed } = throttles;
    for (result, count) in [("admitted", admitted), ("refused", refused), ("error", failed)] {
        page.sample("", &[("result", result)], count);
    }
}

fn of_pools(page: &mut Page, pools: &[PoolView]) {
    page.family("aquifer_queue_depth", Kind::Gauge, "Requests that wait here, by class.");
    for pool in pools {
        for class in Class::ALL {
            let labels = [("pool", pool.pool.name()), ("class", class.name())];
            page.sample("", &labels, pool.waiting[class.index()]);
        }
    }
    page.family("aquifer_paused", Kind::Gauge, "1 while the pool is paused.");
    for pool in pools {
        page.sample("", &[("pool", pool.pool.name())], u8::from(pool.paused.is_some()));
    }
    page.family("aquifer_breaker_state", Kind::Gauge, "1 for what the pool's circuit breaker does.");
    for pool in pools {
        let Some(state) = listings::breaker(pool) else { continue };
        for one in BREAKERS {
            page.sample("", &[("pool", pool.pool.name()), ("state", one)], u8::from(one == state));
        }
    }
}

fn of_limits(page: &mut Page, pools: &[PoolView]) {
    let mut each = |name, kind, help, value: fn(&LimitView) -> f64| {
        page.family(name, kind, help);
        for pool in pools {
            for limit in &pool.limits {
                let labels = [("pool", pool.pool.name()), ("limit", limit.limit.name.as_str())];
                page.sample("", &labels, value(limit));
            }
        }
    };
    let mut gauge = |name, help, value| each(name, Kind::Gauge, help, value);
    gauge("aquifer_limit_units", "The most that can be spent at once.", |limit| {
        limit.limit.kind.capacity() as f64
    });
    gauge("aquifer_remaining_units", "Left in the whole swarm; an estimate.", |limit| limit.remaining as f64);
    gauge("aquifer_held_units", "What the node may spend now without asking anyone.", |limit| {
        limit.held_units as f64
    });
    gauge("aquifer_held_share_ratio", "The node's part of the limit now.", |limit| limit.held.fraction());
    gauge("aquifer_lent_share_ratio", "What of its base share is out on loan.", |limit| {
        limit.lent.fraction()
    });
    gauge("aquifer_borrowed_share_ratio", "What it has on loan.", |limit| limit.borrowed.fraction());
    gauge("aquifer_target_share_ratio", "What it should hold by all demand.", |limit| {
        limit.target.fraction()
    });
    gauge("aquifer_unreported_share_ratio", "Kept out of all shares for use that nobody reports.", |limit| {
        limit.unreported.fraction()
    });
    gauge("aquifer_demand_units_per_second", "What the node's callers ask for.", |limit| limit.demand as f64);
    each("aquifer_admitted_units", Kind::Counter, "Admitted by this node in this life.", |limit| {
        limit.admitted as f64
    });
    each("aquifer_swarm_admitted_units", Kind::Counter, "Admitted by all, ever, as far as heard.", |limit| {
        limit.admitted_by_all as f64
    });
}

fn of_callers(page: &mut Page, callers: &CallersStatus) {
    page.gauge("aquifer_connections", "Callers that are connected.", callers.connections as f64);
    let turned_away = "Connections that were refused because there were too many.";
    page.counter("aquifer_connections_refused", turned_away, callers.turned_away);
    let timed_out = "Connections that were closed because their callers were too slow.";
    page.counter("aquifer_connections_timed_out", timed_out, callers.timed_out);
    let denied = "Requests that were denied because of who asked.";
    page.counter("aquifer_requests_denied", denied, callers.denied);
}

fn of_gossip(page: &mut Page, facts: &Facts) {
    let counters = facts.counters();
    page.family("aquifer_gossip_frames", Kind::Counter, "Frames from and to peers.");
    page.sample("", &[("direction", "in")], counters.frames_in);
    page.sample("", &[("direction", "out")], counters.frames_out);
    page.family("aquifer_gossip_bytes", Kind::Counter, "Bytes of the frames from and to peers.");
    page.sample("", &[("direction", "in")], counters.bytes_in);
    page.sample("", &[("direction", "out")], counters.bytes_out);
    let dropped = "Frames to peers that were not sent.";
    page.counter("aquifer_gossip_frames_dropped", dropped, counters.dropped_frames);
    let misunderstood = "Messages from peers that could not be understood.";
    page.counter("aquifer_gossip_messages_misunderstood", misunderstood, facts.misunderstood());
    page.family("aquifer_links_failed", Kind::Counter, "Links to peers that failed, and how.");
    page.sample("", &[("cause", "dial")], counters.failed_dials);
    page.sample("", &[("cause", "malformed")], counters.malformed);
    page.sample("", &[("cause", "rejected")], counters.rejected);
    page.sample("", &[("cause", "stalled")], counters.stalled);
}
