//! The pools of a node: those that are configured, and those of contended keys.

use std::ops::Range;

use super::Node;
use super::gates::Gate;
use super::promoted::Promoted;
use crate::protocol::keyed::{Hashes, Keys};
use crate::protocol::limit::Pool;
use crate::protocol::queue::Queue;
use crate::protocol::time::Instant;

/// A pool and who waits for it.
pub(super) struct PoolState {
    pub pool: Pool,
    /// The place of the pool's first limit among the meters; its limits follow one another.
    pub first: usize,
    pub queue: Queue,
    pub gate: Gate,
    /// When the head can be admitted with what is held, as of the last look.
    pub head_ready: Option<Instant>,
    pub scope: Scope,
    /// What its keys are called, if it is keyed.
    pub hashes: Hashes,
}

/// For whom the limits of a pool hold.
pub(super) enum Scope {
    /// For all callers together.
    Everybody,
    /// For each key: such a pool has no meters, nor does anybody wait in its queue.
    Keyed(Box<Keys>),
    /// For one key of a keyed pool. These pools come after all that are configured.
    Key(Promoted),
    /// For nobody: the place of a key that is not promoted any more.
    Vacant,
    /// For nobody, and without meters: the place of dynamic limits that nobody uses any more.
    Retired,
}

impl PoolState {
    pub fn new(pool: &Pool, first: usize, gate: Gate, now: Instant) -> Self {
        let keys = |keys_max| {
            let rates = pool.rates().expect("BUG! a keyed pool with a limit that is no rate");
            Scope::Keyed(Box::new(Keys::new(rates, keys_max, now)))
        };
        let scope = pool.keyed.map_or(Scope::Everybody, keys);
        let (queue, hashes) = (Queue::new(pool.ageing), Hashes::new(pool.name()));
        Self { pool: pool.clone(), first, queue, gate, head_ready: None, scope, hashes }
    }

    /// The places of its meters.
    pub fn meters(&self) -> Range<usize> {
        let count =
            if matches!(self.scope, Scope::Keyed(_) | Scope::Retired) { 0 } else { self.pool.limits().len() };
        self.first..self.first + count
    }
}

impl Node {
    /// The pool of a meter, and the place of its limit in it.
    pub(super) fn pool_of(&self, place: usize) -> (usize, usize) {
        let pool =
            self.pools.iter().rposition(|state| state.first <= place).expect("BUG! meter without a pool");
        (pool, place - self.pools[pool].first)
    }

    /// The configured pool of a meter, and the place of its limit in it.
    pub(super) fn limit_of(&self, place: usize) -> (usize, usize) {
        let (pool, limit) = self.pool_of(place);
        (self.configured(pool), limit)
    }

    /// The place of a pool as it is configured: of the keyed pool, if it is a key's.
    pub(super) fn configured(&self, pool: usize) -> usize {
        match &self.pools[pool].scope {
            Scope::Key(promoted) => promoted.template,
            _ => pool,
        }
    }
}
