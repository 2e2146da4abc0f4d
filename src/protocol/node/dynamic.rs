//! Dynamic limits: the caller brings the numbers along with the key, as with Redis' `CL.THROTTLE`.
//!
//! All keys with the same numbers are a keyed pool that is made when the first of them is used, as if it had been there
//! since the ledger was founded, and forgotten when none of its keys is known any more. A key is first served from this
//! node's base share of its limit; when that does not suffice it is [promoted](super::promoted), and its row carries the
//! numbers, so that peers that never heard of them can lend.
//!
//! # Why a key is never over its limit
//!
//! The unspent units of a key that was never used follow from how the node's base share went
//! ([`History`]), whenever the pool is made: so each node has what it would have, had the pool been configured everywhere
//! from the beginning, and the argument of [`keyed`](crate::protocol::keyed) holds. The same key with other numbers is another
//! limit; that is reported, not merged.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use super::admission::Ask;
use super::gates::Gate;
use super::{Node, Phase, PoolState, Scope};
use crate::protocol::id::NodeId;
use crate::protocol::keyed::{Hashes, History, KEYS_MAX_DEFAULT, KeyHash, Keys, Taken};
use crate::protocol::limit::{Fingerprint, Kind, Left, Limit, Pool, Rate};
use crate::protocol::queue::Class;
use crate::protocol::share::ONE;
use crate::protocol::time::Instant;

/// How many different numbers may be in use at once.
pub const RATES_MAX: usize = 64;
/// How many of these may be there because peers asked for help with them.
const HEARD_MAX: usize = RATES_MAX / 2;
/// How many keys may be written down, of all numbers together.
pub const DYNAMIC_KEYS_MAX: usize = KEYS_MAX_DEFAULT;
/// How many keys with differing numbers are remembered, to be shown.
const CONFLICTS_MAX: usize = 16;
/// Numbers that nobody has used for so long are forgotten once no key of theirs is known.
const IDLE: Duration = Duration::from_secs(60);
/// What dynamic limits are called where limits have names.
const NAME: &str = "dynamic";

/// The dynamic limits of one node.
pub(super) struct Dynamic {
    pub(super) history: History,
    /// The numbers in use, and the places of their pools.
    pools: Vec<DynamicPool>,
    /// The place in `pools` of the last that was asked for: callers tend to use the same again.
    last: usize,
    /// How many keys are written down.
    keys: usize,
    hashes: Hashes,
    conflicts: BTreeMap<KeyHash, Conflict>,
}

struct DynamicPool {
    rate: Rate,
    place: usize,
    fingerprint: Fingerprint,
    used_at: Instant,
    /// A peer asked for help with it; nobody here has used it.
    heard: bool,
}

/// The same key with different numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The numbers used here.
    pub ours: Rate,
    /// The others: by another caller here, or by a peer.
    pub theirs: Rate,
    /// The peer, if it was one.
    pub peer: Option<NodeId>,
}

/// The answer to a call that brought its limit along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// Whether the units were taken.
    pub allowed: bool,
    /// What is left of it: what others have spent is known of contended keys only.
    pub left: Left,
    /// In how long the same call could be allowed; none if it was, or never will be.
    pub retry_after: Option<Duration>,
    /// Peers may have to be told something: drain the outputs.
    pub moved: bool,
}

/// Why there is no answer. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ThrottleError {
    /// As many different numbers are in use as may be.
    #[error("{RATES_MAX} different limits are in use, as many as may be; use the same numbers for more keys")]
    TooManyRates,
    /// As many keys are written down as may be.
    #[error("{DYNAMIC_KEYS_MAX} keys are in use, as many as may be")]
    TooManyKeys,
    /// The node leaves.
    #[error("the node is leaving its swarm")]
    Leaving,
}

impl Dynamic {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            history: History::new(now),
            pools: Vec::new(),
            last: 0,
            keys: 0,
            hashes: Hashes::new(NAME),
            conflicts: BTreeMap::new(),
        }
    }
}

impl Node {
    /// Takes `units` of `rate` for `key`, at once or not at all. No units are a look.
    ///
    /// # Errors
    /// There is no room for one more key or for these numbers, or the node leaves.
    pub fn throttle(
        &mut self,
        key: &[u8],
        rate: Rate,
        units: u64,
        now: Instant,
    ) -> Result<Throttled, ThrottleError> {
        self.expire(now);
        if matches!(self.phase, Phase::Leaving(_) | Phase::Left) {
            return Err(ThrottleError::Leaving);
        }
        let key = self.dynamic.hashes.of(key);
        let index = self.dynamic_pool(rate, false, now).ok_or(ThrottleError::TooManyRates)?;
        let pool = &mut self.dynamic.pools[index];
        (pool.used_at, pool.heard) = (now, false);
        let place = pool.place;
        let Scope::Keyed(keys) = &mut self.pools[place].scope else { unreachable!("BUG! no keys") };
        let before = keys.len();
        keys.set_keys_max(before + (DYNAMIC_KEYS_MAX - self.dynamic.keys.min(DYNAMIC_KEYS_MAX)));
        let taken = if units == 0 { keys.peek(key, &[0], now) } else { keys.acquire(key, &[units], now) };
        let after = keys.len();
        self.dynamic.keys = self.dynamic.keys + after - before;
        let retry_after = match taken {
            Taken::Admitted => None,
            // It would be refused by every node.
            Taken::Lacking { .. } if units > rate.burst() => None,
            Taken::Lacking { ready_at: Some(at), .. } if keys.base() == ONE => Some(at.since(now)),
            // A look wants nothing.
            Taken::Lacking { .. } | Taken::Promoted if units == 0 => None,
            Taken::Lacking { ready_at, .. } => match self.promote(place, key, now) {
                Some(promoted) => return Ok(self.throttle_promoted(promoted, units, now)),
                None => Some(ready_at.map_or(Duration::from_secs(1), |at| at.since(now))),
            },
            Taken::Promoted => {
                let promoted = self.promoted_place(place, key).expect("BUG! promoted to nowhere");
                return Ok(self.throttle_promoted(promoted, units, now));
            }
            Taken::Full => return Err(ThrottleError::TooManyKeys),
        };
        if after > before {
            self.look_for_conflict(key, index, None);
        }
        if let (Taken::Promoted, Some(promoted)) = (taken, self.promoted_place(place, key)) {
            let left = self.promoted_left(promoted, now);
            return Ok(Throttled { allowed: true, left, retry_after, moved: false });
        }
        let Scope::Keyed(keys) = &mut self.pools[place].scope else { unreachable!("BUG! no keys") };
        let left = keys.left(0, key, now);
        let allowed = taken == Taken::Admitted || (units == 0 && taken != Taken::Full);
        Ok(Throttled { allowed, left, retry_after, moved: false })
    }

    /// How many different numbers are in use, and how many keys are written down for them.
    pub fn dynamic_limits(&self) -> (usize, usize) {
        (self.dynamic.pools.len(), self.dynamic.keys)
    }

    /// Keys that are used with different numbers, as far as it was noticed: on this node whenever a key is new, between
    /// nodes when the key is contended.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.dynamic.conflicts.values()
    }

    fn throttle_promoted(&mut self, place: usize, units: u64, now: Instant) -> Throttled {
        let ask =
            Ask { items: &[], agent: "", class: Class::Normal, wait: Duration::ZERO, ttl: Duration::ZERO };
        let request = self.request_of(place, units);
        let refused = self.spend(&request, &ask, now);
        self.spare = request;
        let left = self.promoted_left(place, now);
        let retry_after = refused.and_then(|refusal| refusal.retry_after);
        Throttled { allowed: refused.is_none(), left, retry_after, moved: true }
    }

    fn promoted_left(&mut self, place: usize, now: Instant) -> Left {
        let meter = self.pools[place].meters().start;
        self.meters[meter].refill(now);
        self.left_of(meter, now)
    }

    /// The place in the list of dynamic pools of these numbers; made if there is none, and room for it.
    fn dynamic_pool(&mut self, rate: Rate, heard: bool, now: Instant) -> Option<usize> {
        let dynamic = &self.dynamic;
        if dynamic.pools.get(dynamic.last).is_some_and(|pool| pool.rate == rate) {
            return Some(dynamic.last);
        }
        let index = dynamic.pools.iter().position(|pool| pool.rate == rate);
        let index = index.or_else(|| self.make_dynamic_pool(rate, heard, now))?;
        if !heard {
            self.dynamic.last = index;
        }
        Some(index)
    }

    fn make_dynamic_pool(&mut self, rate: Rate, heard: bool, now: Instant) -> Option<usize> {
        let known = &self.dynamic.pools;
        if known.len() >= RATES_MAX || heard && known.iter().filter(|pool| pool.heard).count() >= HEARD_MAX {
            return None;
        }
        let limit = Limit { name: NAME.to_owned(), unit: "units".to_owned(), kind: Kind::Rate(rate) };
        let fingerprint = limit.fingerprint(NAME);
        let pool = Pool::new(NAME, vec![limit]).expect("BUG! a constant name");
        let keys = Keys::since(self.dynamic.history.clone(), vec![rate], DYNAMIC_KEYS_MAX, now);
        let gate = Gate::of_key(&pool);
        let mut state = PoolState::new(&pool, self.meters.len(), gate, now);
        // Only now: it would have made keys of its own.
        state.pool.keyed = Some(DYNAMIC_KEYS_MAX);
        state.scope = Scope::Keyed(Box::new(keys));
        let retired = self.pools.iter().position(|state| matches!(state.scope, Scope::Retired));
        let place = retired.unwrap_or(self.pools.len());
        if retired.is_some() {
            state.first = self.pools[place].first;
            self.pools[place] = state;
        } else {
            self.pools.push(state);
        }
        self.dynamic.pools.push(DynamicPool { rate, place, fingerprint, used_at: now, heard });
        Some(self.dynamic.pools.len() - 1)
    }

    /// The numbers of a pool, if it is a dynamic one.
    pub(super) fn dynamic_rate(&self, place: usize) -> Option<Rate> {
        self.dynamic.pools.iter().find(|pool| pool.place == place).map(|pool| pool.rate)
    }

    /// A peer wants help with a key of these numbers. Gives the place of their pool, made if there was none.
    pub(super) fn hear_dynamic(
        &mut self,
        rate: Rate,
        limit: Fingerprint,
        key: KeyHash,
        peer: NodeId,
        now: Instant,
    ) -> Option<usize> {
        // What a peer writes down as numbers need be none.
        let rate = Rate::new(rate.amount(), rate.per(), rate.burst()).ok()?;
        let index = self.dynamic_pool(rate, true, now)?;
        let pool = &mut self.dynamic.pools[index];
        if pool.fingerprint != limit {
            return None;
        }
        pool.used_at = now;
        let place = pool.place;
        self.look_for_conflict(key, index, Some(peer));
        Some(place)
    }

    /// Notes if a key is known with other numbers than those of the pool at `index`.
    fn look_for_conflict(&mut self, key: KeyHash, index: usize, peer: Option<NodeId>) {
        let this = self.dynamic.pools[index].rate;
        let other = self.dynamic.pools.iter().enumerate().find_map(|(at, pool)| {
            let Scope::Keyed(keys) = &self.pools[pool.place].scope else { return None };
            (at != index && !pool.heard && keys.knows(key)).then_some(pool.rate)
        });
        let Some(other) = other else { return };
        let conflict = match peer {
            Some(_) => Conflict { ours: other, theirs: this, peer },
            None => Conflict { ours: this, theirs: other, peer },
        };
        let conflicts = &mut self.dynamic.conflicts;
        if conflicts.len() < CONFLICTS_MAX || conflicts.contains_key(&key) {
            conflicts.insert(key, conflict);
        }
    }

    /// Once a second or so: forgets numbers that nobody uses.
    pub(super) fn look_after_dynamic(&mut self, now: Instant) {
        let pools = &mut self.pools;
        let mut keys_left = 0;
        self.dynamic.pools.retain(|pool| {
            let Scope::Keyed(keys) = &pools[pool.place].scope else { return false };
            let is_used = !keys.is_empty() || keys.promoted().next().is_some();
            keys_left += keys.len();
            let stays = is_used || now.since(pool.used_at) < IDLE;
            if !stays {
                pools[pool.place].scope = Scope::Retired;
            }
            stays
        });
        self.dynamic.keys = keys_left;
    }
}
