//! What a node says of its limits, and what it knows of its peers': the input of the targets.

use std::sync::Arc;
use std::time::Duration;

use super::mesh::MESH_MAX;
use super::{FEW_LINKS, Node};
use crate::protocol::agents::WEIGHT_DEFAULT;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::lending::GRAIN;
use crate::protocol::queue::Class;
use crate::protocol::record::{Row, far, far_by};
use crate::protocol::share::{ONE, Share};
use crate::protocol::target::CLASSES;
use crate::protocol::time::Instant;

/// Rows are told again after this long for each link, though little changed: among many not before they are signed again,
/// which tells them, too.
const REFRESH_PER_LINK: Duration = Duration::from_millis(125);
/// … but no sooner than this, …
const REFRESH_MIN: Duration = Duration::from_millis(500);
/// … and no later than this while requests wait and share is lacking.
const REFRESH_IN_NEED: Duration = Duration::from_secs(1);
/// News that does not concern a peer may wait this long for each link.
const LAZY_PER_LINK: Duration = Duration::from_millis(10);

/// Callers that wait for an answer before they ask again ask for no more than is given, however much they would use. So where a
/// queue has lasted for so long …
pub(super) const PROBE_AFTER: Duration = Duration::from_millis(20);
/// … a node claims more than it runs on: one part in so many for each request that was served meanwhile, …
const PROBE_PARTS: u64 = 64;
/// … up to so many times what it runs on. Little at first: most queues of callers that come by themselves are soon over.
const PROBE_MAX: u64 = 16;

/// How often rows are signed, …
const SIGN_EVERY: Duration = Duration::from_secs(2);
/// … at most, for each link.
const SIGN_PER_LINK: Duration = Duration::from_millis(100);

/// The greatest weight of a node's claims of one class, in thousandths: 16 times its own, of up to 64 agents of weight 1.
pub(super) const WEIGHT_MAX: u32 = 16 * 64 * 1_000;

/// A peer as the targets see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    pub(super) replica: Replica,
    pub(super) row: Row,
    pub(super) version: u64,
}

impl Node {
    /// What this node says of one limit now.
    pub(super) fn row(&mut self, place: usize, now: Instant) -> Row {
        let (pool, _) = self.pool_of(place);
        let (head, class) = self.head_of(pool, place).unwrap_or((0, Class::Normal.index()));
        let weights = self.weights(pool);
        let served = self.pools[pool].queue.served_while_waiting(PROBE_AFTER, now);
        let waits = |peer: &Neighbour| peer.row.waiting > 0 && usize::from(peer.row.class) <= class;
        let others_wait = served > 0 && self.neighbours(place).iter().any(waits);
        let waits_for_other = served > 0 && self.blocker(pool).is_some_and(|blocker| blocker != place);
        let even = ONE.scale(1, self.peers.len() as u64 + 1);
        let state = &self.pools[pool];
        let meter = &mut self.meters[place];
        let kind = meter.limit.kind.clone();
        let counted = meter.bucket().counted().is_some();
        // A few nodes follow every change; many would move share all the time for what is chance.
        let few = self.peers.len() <= FEW_LINKS;
        let recent = if few { meter.demand.latest(now) } else { meter.demand.recent(now) };
        let level = meter.bucket().level();
        let units = level.units(&kind);
        // A queue that waits for another limit of the pool does not want more of this one.
        let queued = head > units;
        let refused = meter.refused(now);
        // In its turn a node keeps what large requests take, although a small one is next: share that went and came back with
        // every large one would be under way all the time. Nor does it run on a fraction between its turns, which would last
        // no longer than until the next large one is first. But what is more urgent than most that waits here, and small, need
        // not wait for a turn.
        let bulk = (0..CLASSES).max_by_key(|class| (meter.backlog[*class], *class)).unwrap_or(class);
        let even = meter.bucket().depth_of(even).units(&kind);
        let in_turn = meter.tag < meter.turn_end && !state.queue.is_empty();
        let in_line = queued && class >= bulk;
        let kept = if in_turn || in_line { meter.demand.usual_largest(even) } else { 0 };
        let backlog = if queued { meter.backlog.iter().sum() } else { 0 };
        let depth = meter.bucket().depth_of(meter.held()).units(&kind);
        let usual = meter.demand.largest().saturating_add(recent / 10);
        let reserve = match recent {
            0 => 0,
            _ if few => usual,
            _ => usual.min(depth - depth / 4),
        };

        let demand = meter.wanted(recent, backlog);
        // A bucket that fills up while it is asked needs a little less than what arrives, one that runs dry a little
        // more.
        let lean = if counted { Share::ZERO } else { demand.scale(1, 16) };
        let demand = if units > reserve && backlog == 0 { demand - lean } else { demand + lean };
        let demand = if recent == 0 && backlog == 0 && !counted { Share::ZERO } else { demand };
        // What others wait for is not taken from them on the mere chance that callers here would use it.
        let most = if others_wait { meter.base() } else { ONE };
        let served = meter.served_for_it(served, waits_for_other);
        let served = if queued && !counted { served } else { 0 };
        let demand = demand.max(probe(meter.held(), served).min(most));
        let classes = meter.split(demand, now);
        Row {
            used: meter.used.of(&self.replica),
            level: units,
            base: meter.base().saturating_sub(meter.frozen()),
            held: meter.held(),
            free: meter.free(),
            demand,
            classes,
            weights,
            class: if kept > head { bulk.max(class) } else { class } as u8,
            waiting: if queued { head.max(refused).max(kept) } else { refused.max(kept) },
            need: backlog.saturating_sub(units).min(meter.bucket().room().units(&kind)),
            spare: if state.queue.is_empty() && refused == 0 && !counted {
                units.saturating_sub(reserve)
            } else {
                0
            },
            open: meter.open,
            weight: self.config.weight,
            tag: meter.tag,
            turn_end: meter.turn_end,
        }
    }

    /// What the claims of each class of a pool weigh: this node's weight for each agent of weight one that waits.
    fn weights(&self, pool: usize) -> [u32; CLASSES] {
        let weigh = |agents: u64| {
            let agents = if agents == 0 { u64::from(WEIGHT_DEFAULT) } else { agents };
            u32::try_from(agents.saturating_mul(u64::from(self.config.weight)))
                .unwrap_or(u32::MAX)
                .min(WEIGHT_MAX)
        };
        self.pools[pool].queue.weights().map(weigh)
    }

    /// Puts a row on the page if it says something new enough. Urgent news is told at once to those whom it concerns (to
    /// all, if `concerned` is none), and to everybody where there are few links.
    pub(super) fn publish_row(
        &mut self,
        place: usize,
        row: Row,
        round: bool,
        concerned: Option<&[NodeId]>,
        now: Instant,
    ) {
        let own = self.pages.get(&self.config.id);
        let known = own.and_then(|page| page.row(self.meters[place].fingerprint));
        let known = known.map_or_else(Row::default, |(known, _)| *known);
        if row == known {
            return;
        }
        // Who wants more than its due anyway gets no more for wanting it more.
        let due = self.meters[place].target;
        let sated =
            |row: &Row| row.demand > due + due.scale(1, 4) && row.held + due.scale(1, GRAIN / 4) >= due;
        let demand_counts = !(sated(&row) && sated(&known));
        // Where there are many, what is small beside an equal part of all matters to nobody soon.
        let links = self.peers.len();
        let few = links <= FEW_LINKS;
        let part = if few { Share::ZERO } else { ONE.scale(1, 8 * links as u64) };
        let differs = |one: Share, other: Share, grain| far(one, other, grain) && far_by(one, other, part);
        let urgent = row.is_urgent_after(&known)
            && (demand_counts || !row.is_mere_demand_after(&known))
            && (few || concerned.is_none() || !row.is_mere_share_after(&known));
        let slight = row.base != known.base
            || differs(row.held, known.held, GRAIN)
            || (demand_counts && differs(row.demand, known.demand, 16));
        let in_need = row.waiting > 0 && row.held + due.scale(1, 16) < due;
        let refresh =
            now >= self.rows_due || (in_need && now + self.refresh() >= self.rows_due + REFRESH_IN_NEED);
        self.stale |= round && urgent;
        if urgent || (round && (slight || refresh)) {
            let (key, value) = self.as_entry(place, row);
            self.pages.publish(key, value, now);
            let to_all = few || (urgent && concerned.is_none());
            let lazily = now + LAZY_PER_LINK * links as u32;
            self.peers_should_hear(if to_all { now } else { lazily });
            for node in concerned.unwrap_or_default().iter().filter(|_| urgent && !to_all) {
                if let Some(peer) = self.peers.get_mut(node) {
                    peer.tell(now);
                }
            }
        }
        if round && refresh && place + 1 == self.meters.len() {
            self.rows_due = now + self.refresh();
        }
    }

    /// Whoever hears that its loan has arrived must hear with it that less is lacking here now, or it lends again. The
    /// others hear of it with the next row.
    pub(super) fn publish_loan(&mut self, place: usize, now: Instant) {
        if self.peers.len() > FEW_LINKS {
            self.put_row(place, now);
        }
    }

    /// Signs now and then what changes all the time, for those who hear of it through others: the rarer the more there
    /// are, as each of them hears of all.
    pub(super) fn sign_rows(&mut self, now: Instant) {
        if self.busy {
            if now < self.sign_at {
                return;
            }
            self.publish_rows(now);
            self.rows_due = now + self.refresh();
        }
        self.publish_books(now);
        if self.pages.sign() {
            self.sign_at = now + sign_every(self.peers.len().min(self.bases.len()));
            // At once, or what changes meanwhile is told instead, unsigned.
            self.peers_should_hear(now);
        }
    }

    /// Signs what was admitted in this life: nothing comes after it.
    pub(super) fn sign_last_rows(&mut self, now: Instant) {
        self.publish_rows(now);
        self.publish_books(now);
        self.pages.sign();
        self.peers_should_hear(now);
    }

    fn publish_rows(&mut self, now: Instant) {
        for place in 0..self.meters.len() {
            if !self.is_vacant(place) {
                self.put_row(place, now);
            }
        }
    }

    /// Puts a row on the page as it is now.
    fn put_row(&mut self, place: usize, now: Instant) {
        let row = self.row(place, now);
        let (key, value) = self.as_entry(place, row);
        self.pages.publish(key, value, now);
    }

    /// How often rows are told although little changed.
    fn refresh(&self) -> Duration {
        REFRESH_MIN.max(REFRESH_PER_LINK * self.peers.len() as u32)
    }

    /// A peer's row has news.
    pub(super) fn learn_row(&mut self, place: usize, author: Replica, row: &Row) {
        let fingerprint = self.meters[place].fingerprint;
        let page = self.pages.get(&author.node);
        let version = page.and_then(|page| page.row(fingerprint)).map_or(0, |(_, version)| version);
        let few = self.peers.len() <= FEW_LINKS;
        let Some(neighbours) = &mut self.near[place] else {
            self.stale = true;
            return;
        };
        let found = neighbours.binary_search_by_key(&author, |neighbour| neighbour.replica);
        if let Ok(found) = found {
            let known = &mut Arc::make_mut(neighbours)[found];
            self.stale |= row.is_material_after(&known.row) && (few || !row.is_mere_share_after(&known.row));
            (known.row, known.version) = (*row, version);
        } else {
            self.look_up_neighbour(&author.node);
            self.stale = true;
        }
    }

    /// The rows of peers that leases can be made with: linked, not leaving, not accused, same limit. In order of their ids.
    pub(super) fn neighbours(&mut self, place: usize) -> Arc<Vec<Neighbour>> {
        if let Some(neighbours) = &self.near[place] {
            return Arc::clone(neighbours);
        }
        let linked = self.linked().filter_map(|replica| self.neighbour(place, replica));
        let neighbours = Arc::new(linked.collect());
        self.near[place] = Some(Arc::clone(&neighbours));
        neighbours
    }

    fn neighbour(&self, place: usize, replica: Replica) -> Option<Neighbour> {
        let page = self.pages.get(&replica.node)?;
        let (row, version) = page.row(self.meters[place].fingerprint)?;
        let counts = page.incarnation() == replica.incarnation
            && !self.is_leaving(&replica.node)
            && !self.audit.is_accused(&replica.node);
        counts.then_some(Neighbour { replica, row: *row, version })
    }

    /// A peer's link, its life or whether it leaves changed: its rows must be looked up again.
    pub(super) fn look_up_neighbour(&mut self, node: &NodeId) {
        let life = self.peers.get(node).and_then(|peer| peer.incarnation);
        let replica = life.map(|incarnation| Replica { node: *node, incarnation });
        for place in 0..self.near.len() {
            let found = replica.and_then(|replica| self.neighbour(place, replica));
            let Some(neighbours) = &mut self.near[place] else { continue };
            let known = neighbours.binary_search_by_key(node, |neighbour| neighbour.replica.node);
            match (known, found) {
                (Ok(at), Some(found)) => Arc::make_mut(neighbours)[at] = found,
                (Ok(at), None) => drop(Arc::make_mut(neighbours).remove(at)),
                (Err(at), Some(found)) => Arc::make_mut(neighbours).insert(at, found),
                (Err(_), None) => {}
            }
        }
    }

    /// Who is believed changed, or a limit: all rows that count must be looked up again.
    pub(super) fn forget_neighbours(&mut self) {
        self.near.fill(None);
    }
}

/// What a node claims that runs on `held` and has served so many requests while others waited all the time.
fn probe(held: Share, served: u32) -> Share {
    let parts = u64::from(served).min(PROBE_PARTS * PROBE_MAX);
    if parts == 0 { Share::ZERO } else { held + held.scale(parts, PROBE_PARTS) }
}

/// Whether the claim has grown by much since it was last looked at.
pub(super) fn probe_grows(served: u32) -> bool {
    let much = PROBE_PARTS as u32 / 4;
    served > 0 && served.is_multiple_of(much) && u64::from(served) <= PROBE_PARTS * PROBE_MAX
}

/// How far apart signed rows and books of a busy node with links to so many members are.
pub(super) fn sign_every(links: usize) -> Duration {
    SIGN_EVERY.max(SIGN_PER_LINK * links.min(MESH_MAX) as u32)
}
