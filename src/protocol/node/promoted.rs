//! Contended keys: each runs in a pool and meters of its own, which wait, borrow and lend like all others, until it is
//! calm again.
//!
//! # Why a key is never over its limit
//!
//! A promoted key's meters begin with the exact balance that the key had on this node's base share, and that share, so
//! nothing is there twice: [`Keys`](crate::protocol::keyed::Keys) answers for no key that is promoted. From there on the key is a limit like any other,
//! named by [`KeyHash::fingerprint`], and the same argument holds as for all limits: leases move share and level between
//! nodes and add none. Nodes that have not promoted the key run on their base share of it and lend none. A key is demoted
//! when its meters hold this node's base share, no lease of theirs has anything out, and they owe nothing. Messages about
//! leases of before are then not believed any more: see [`FormerLeases`](crate::protocol::meter::FormerLeases).
//!
//! # Who promotes
//!
//! The node on which a request for the key lacks something; and whoever hears the row of a linked node that wants more of
//! the key than its base share: to lend to it.
//!
//! # Bounds
//!
//! All meters of a node are at most [`METERS_MAX`]. A node at that bound keeps its base share of further keys to itself.
//! Rows of keys have numbered places on a page, which are used again.

use std::time::Duration;

use super::gates::Gate;
use super::{METERS_MAX, Node, PoolState, Scope};
use crate::protocol::bucket::Level;
use crate::protocol::id::Replica;
use crate::protocol::keyed::{Balance, Hashes, KeyHash};
use crate::protocol::limit::Fingerprint;
use crate::protocol::meter::Meter;
use crate::protocol::queue::Queue;
use crate::protocol::record::{Key, KeyRow, Row, Value};
use crate::protocol::time::Instant;

/// A key is demoted after it has been calm for so long.
const CALM: Duration = Duration::from_secs(5);
/// No limit has this identity: of meters that are not in use.
const NOBODYS: Fingerprint = Fingerprint(0);

/// A key of a keyed pool that has a pool and meters of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promoted {
    /// The place of the keyed pool.
    pub(super) template: usize,
    pub(super) key: KeyHash,
    /// When it was promoted.
    pub(super) since: Instant,
    /// Permits out that name its meters.
    pub(super) permits: usize,
    /// Since when nobody has wanted more of it than the own base share.
    calm_since: Option<Instant>,
}

impl Node {
    /// Where the limits of a key run that is promoted.
    pub(super) fn promoted_place(&self, template: usize, key: KeyHash) -> Option<usize> {
        let is_it = |state: &PoolState| matches!(&state.scope, Scope::Key(promoted) if (promoted.template, promoted.key) == (template, key));
        self.pools.iter().position(is_it)
    }

    /// The place of the pool in which the limits of a key run, promoted if it was not. None if no more may be.
    pub(super) fn promote(&mut self, template: usize, key: KeyHash, now: Instant) -> Option<usize> {
        if let Some(place) = self.promoted_place(template, key) {
            return Some(place);
        }
        let pool = self.pools[template].pool.clone();
        let count = pool.limits().len();
        let vacant = self
            .pools
            .iter()
            .position(|state| matches!(state.scope, Scope::Vacant) && state.pool.limits().len() == count);
        if vacant.is_none() && self.meters.len() + count > METERS_MAX {
            return None;
        }
        let Scope::Keyed(keys) = &mut self.pools[template].scope else { return None };
        let base = keys.base();
        let balances = keys.promote(key, now)?;
        let meters = pool.limits().iter().zip(balances).map(|(limit, balance)| {
            let fingerprint = key.fingerprint(limit.fingerprint(pool.name()));
            Meter::of_key(limit.clone(), fingerprint, base, balance, &self.former_leases, now)
        });
        let meters: Vec<Meter> = meters.collect();
        let promoted = Promoted { template, key, since: now, permits: 0, calm_since: None };
        let (queue, hashes) = (Queue::new(pool.ageing), Hashes::new(pool.name()));
        let scope = Scope::Key(promoted);
        let place = vacant.unwrap_or(self.pools.len());
        let first = vacant.map_or(self.meters.len(), |place| self.pools[place].first);
        let gate = Gate::of_key(&pool);
        let state = PoolState { pool, first, queue, gate, head_ready: None, scope, hashes };
        if vacant.is_some() {
            self.pools[place] = state;
            for (place, meter) in (first..).zip(meters) {
                self.meters[place] = meter;
            }
        } else {
            self.pools.push(state);
            self.meters.extend(meters);
            self.near.resize(self.meters.len(), None);
            self.left_by_rest.resize(self.meters.len(), None);
        }
        self.stale = true;
        Some(place)
    }

    /// Takes a key back among those that need no word to anybody, if it has been calm for a while.
    pub(super) fn demote_if_calm(&mut self, pool: usize, now: Instant) {
        let is_calm = self.is_calm(pool, now);
        let state = &mut self.pools[pool];
        let Scope::Key(promoted) = &mut state.scope else { return };
        promoted.calm_since = is_calm.then(|| promoted.calm_since.unwrap_or(now));
        if promoted.calm_since.is_none_or(|since| now.since(since) < CALM) {
            return;
        }
        let promoted = *promoted;
        let (pool_state, meters) = (state.pool.clone(), state.meters());
        let balance = |meter: &Meter| Balance::new(meter.bucket().level(), Level::ZERO);
        let balances: Vec<Balance> = self.meters[meters.clone()].iter().map(balance).collect();
        let held = self.meters[meters.start].held();
        let Scope::Keyed(keys) = &mut self.pools[promoted.template].scope else { return };
        if !keys.demote(promoted.key, held, &balances, now) {
            return;
        }
        for (place, limit) in meters.zip(pool_state.limits()) {
            self.former_leases.remember(&self.meters[place]);
            // It has the base share like all others, so that base share can be given away, but nobody asks it.
            let mut vacant = Meter::new(limit.clone(), pool_state.name(), now);
            vacant.fingerprint = NOBODYS;
            vacant.set_base(held, Level::ZERO, now);
            self.meters[place] = vacant;
            self.near[place] = None;
            self.left_by_rest[place] = None;
            self.peers.iter_mut().for_each(|(_, peer)| peer.forget_limit(place));
            if self.pages.publish(Key::KeyRow(place as u16), Value::KeyRow(None), now) {
                self.peers_should_hear(now + super::ROUND);
            }
        }
        self.pools[pool].scope = Scope::Vacant;
        self.pools[pool].head_ready = None;
    }

    /// Whether nobody wants more of a promoted key than its base share, as far as is known here.
    fn is_calm(&mut self, pool: usize, now: Instant) -> bool {
        let state = &self.pools[pool];
        let Scope::Key(promoted) = &state.scope else { return false };
        if promoted.permits > 0 || !state.queue.is_empty() {
            return false;
        }
        state.meters().all(|place| {
            self.meters[place].refill(now);
            let row = self.row(place, now);
            let neighbours = self.neighbours(place);
            self.meters[place].is_at_rest()
                && !wants_more(&row)
                && !neighbours.iter().any(|peer| wants_more(&peer.row))
        })
    }

    /// Places at the end that are not in use are dropped, so that keys of any pool can have them.
    pub(super) fn drop_vacant_pools(&mut self) {
        let is_unused = |state: &PoolState| matches!(state.scope, Scope::Vacant | Scope::Retired);
        while self.pools.last().is_some_and(is_unused) {
            let first = self.pools.pop().map_or(0, |state| state.first);
            self.meters.truncate(first);
            self.near.truncate(first);
            self.left_by_rest.truncate(first);
        }
    }

    /// A node's row of a key has news, or a number is not in use any more.
    pub(super) fn learn_key_row(&mut self, author: Replica, said: Option<&KeyRow>, now: Instant) {
        let Some(said) = said else {
            self.forget_neighbours_of_keys();
            return;
        };
        let known = self.place_of(said.fingerprint).filter(|place| self.is_of_key(*place));
        if let Some(place) = known {
            self.meters[place].used.merge(author, said.row.used);
            let near = self.near[place].as_ref();
            if !near.is_some_and(|near| near.iter().any(|peer| peer.replica == author)) {
                // The number may have been another key's before.
                self.forget_neighbours_of_keys();
            }
            self.learn_row(place, author, &said.row);
            return;
        }
        if said.key.fingerprint(said.limit) != said.fingerprint
            || !wants_more(&said.row)
            || !self.peers.contains_key(&author.node)
        {
            return;
        }
        let has_limit = |state: &PoolState| {
            let mut limits = state.pool.limits().iter();
            matches!(state.scope, Scope::Keyed(_))
                && limits.any(|limit| limit.fingerprint(state.pool.name()) == said.limit)
        };
        let template = match said.rate {
            None => self.pools[..self.config.pools.len()].iter().position(has_limit),
            Some(rate) if self.bases.contains_key(&author.node) => {
                self.hear_dynamic(rate, said.limit, said.key, author.node, now)
            }
            Some(_) => None,
        };
        if let Some(template) = template {
            self.forget_neighbours_of_keys();
            self.promote(template, said.key, now);
        }
    }

    /// The rows of keys that count must be looked up again.
    fn forget_neighbours_of_keys(&mut self) {
        let first = self.configured_meters();
        self.near[first..].fill(None);
        self.stale = true;
    }

    /// Under which name a row goes on the page.
    pub(super) fn as_entry(&self, place: usize, row: Row) -> (Key, Value) {
        let (pool, limit) = self.pool_of(place);
        let state = &self.pools[pool];
        let fingerprint = self.meters[place].fingerprint;
        match &state.scope {
            Scope::Key(promoted) => {
                let limit = state.pool.limits()[limit].fingerprint(state.pool.name());
                let rate = self.dynamic_rate(promoted.template);
                let row = KeyRow { fingerprint, limit, key: promoted.key, rate, row };
                (Key::KeyRow(place as u16), Value::KeyRow(Some(row)))
            }
            _ => (Key::Row(fingerprint), Value::Row(row)),
        }
    }

    /// How many meters are of limits that are not keyed: the first ones.
    pub(super) fn configured_meters(&self) -> usize {
        let Some(last) = self.config.pools.len().checked_sub(1) else { return 0 };
        let last = &self.pools[last];
        last.gate.probe_meter().map_or(last.meters().end, |probe| probe + 1)
    }

    /// Whether a meter is of a promoted key.
    fn is_of_key(&self, place: usize) -> bool {
        matches!(self.pools[self.pool_of(place).0].scope, Scope::Key(_))
    }

    /// Whether a meter is not in use.
    pub(super) fn is_vacant(&self, place: usize) -> bool {
        self.meters[place].fingerprint == NOBODYS
    }
}

/// Whether a node wants more of a key than its base share.
fn wants_more(row: &Row) -> bool {
    row.waiting > 0 || row.need > 0 || row.demand > row.base
}
