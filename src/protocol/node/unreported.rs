//! What the provider counts and nobody reports is taken out of what the shares run on: see
//! [`provider`](crate::protocol::provider).

use super::{Node, Scope};
use crate::protocol::gossip::Page;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::limit::{Fingerprint, Kind};
use crate::protocol::provider::{Estimate, Observation, Quota, Unreported, reserved};
use crate::protocol::record::{Key, Value};
use crate::protocol::share::Share;
use crate::protocol::time::Instant;

impl Node {
    /// Tells what the provider says of a limit: the units that remain, and what the limit is if it says so, in units per
    /// period or window. Of a concurrency limit or a key it says nothing that could be settled.
    ///
    /// # Panics
    /// If there is no such limit.
    pub fn observe_remaining(
        &mut self,
        pool: usize,
        limit: usize,
        remaining: u64,
        said_limit: Option<u64>,
        now: Instant,
    ) {
        self.expire(now);
        if matches!(self.pools[pool].scope, Scope::Keyed(_)) {
            return;
        }
        assert!(limit < self.pools[pool].pool.limits().len(), "BUG! a limit that the pool does not have");
        let place = self.pools[pool].first + limit;
        self.meters[place].refill(now);
        let mut swarm_remaining = self.meters[place].units();
        let mut in_flight = self.meters[place].open;
        for (_, row) in self.rows(place) {
            swarm_remaining = swarm_remaining.saturating_add(row.level);
            in_flight = in_flight.saturating_add(row.open);
        }
        let used = self.used_by_all(place);
        let meter = &mut self.meters[place];
        let quota = match &meter.limit.kind {
            Kind::Rate(rate) => Quota::Rate(*rate),
            Kind::Window(_) | Kind::Calendar(_) => {
                Quota::Window { amount: meter.limit.kind.amount(), length: meter.limit.kind.per() }
            }
            Kind::Concurrency(_) => return,
        };
        let seen = Observation {
            remaining,
            limit: said_limit,
            used,
            swarm_remaining: swarm_remaining.min(meter.limit.kind.capacity()),
            in_flight,
        };
        meter.unreported.get_or_insert_with(|| Box::new(Unreported::new(quota))).observe(seen, now);
        self.wake(now);
        self.finish(now);
    }

    /// A peer's estimate.
    pub(super) fn learn_unreported(
        &mut self,
        author: Replica,
        limit: Fingerprint,
        estimate: Estimate,
        now: Instant,
    ) {
        if let Some(place) = self.place_of(limit).filter(|place| *place < self.configured_meters()) {
            self.meters[place].estimates.hear(author.node, estimate, now);
        }
    }

    /// Units that all nodes have used, by the latest that is known: with what they said themselves and have not signed yet.
    fn used_by_all(&self, place: usize) -> u64 {
        let meter = &self.meters[place];
        let unsigned = |(node, page): (&NodeId, &Page)| {
            let (row, _) = page.row(meter.fingerprint).filter(|_| *node != self.config.id)?;
            let replica = Replica { node: *node, incarnation: page.incarnation() };
            Some(row.used.saturating_sub(meter.used.of(&replica)))
        };
        self.pages.iter().filter_map(unsigned).fold(meter.used_units(), u64::saturating_add)
    }

    /// Once a second: what is known of foreign use is published, and what all agree on is kept out of the shares.
    pub(super) fn settle_unreported(&mut self, now: Instant) {
        let me = self.config.id;
        for place in 0..self.configured_meters() {
            let used = self.meters[place].unreported.is_some().then(|| self.used_by_all(place));
            let meter = &mut self.meters[place];
            if let (Some(unreported), Some(used)) = (&mut meter.unreported, used) {
                unreported.settle(used, now);
                if let Some(estimate) = unreported.estimate(now) {
                    meter.estimates.hear(me, estimate, now);
                    let key = Key::Unreported(meter.fingerprint);
                    if self.pages.publish(key, Value::Unreported(estimate), now) {
                        self.peers_should_hear(now);
                    }
                }
            }
            let reserve = reserved(self.agreed(place, now));
            let frozen = self.meters[place].freeze(reserve, now);
            self.stale |= frozen;
        }
    }

    /// The part of a limit that is kept out of the shares because somebody uses as much without reporting it, by what the
    /// swarm agrees on.
    ///
    /// # Panics
    /// If there is no such limit.
    pub fn unreported(&self, pool: usize, limit: usize, now: Instant) -> Share {
        if matches!(self.pools[pool].scope, Scope::Keyed(_)) {
            return Share::ZERO;
        }
        reserved(self.agreed(self.pools[pool].first + limit, now))
    }

    fn agreed(&self, place: usize, now: Instant) -> u32 {
        self.meters[place].estimates.agreed(|node| self.bases.get(node).map_or(0, |base| base.0), now)
    }
}
