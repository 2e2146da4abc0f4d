//! What is left of a limit, for answers that come at every call: [`LimitView`](super::LimitView) without what only listings
//! show.

use std::time::Duration;

use super::admission::Ask;
use super::{Node, Scope};
use crate::protocol::keyed::{KeyHash, Keys, Taken};
use crate::protocol::limit::Units;
use crate::protocol::time::Instant;

/// What is left of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Units that this node may spend now.
    pub held: u64,
    /// Units that the whole swarm may spend now, as far as is known here.
    pub remaining: u64,
    /// When the whole limit would be full again if nobody spent.
    pub reset_in: Duration,
}

impl Node {
    /// What is left of the limit at this place of the pool; of this key's, if the pool is keyed.
    ///
    /// # Panics
    /// If there is no such pool or limit.
    pub fn left(&mut self, pool: usize, limit: usize, key: &str, now: Instant) -> Left {
        let state = &self.pools[pool];
        let place = match &state.scope {
            Scope::Keyed(_) => {
                let key = KeyHash::of(state.pool.name(), key);
                match self.promoted_place(pool, key) {
                    Some(promoted) => promoted,
                    None => return self.left_of_key(pool, limit, key, now),
                }
            }
            _ => pool,
        };
        let meter = self.pools[place].meters().start + limit;
        self.meters[meter].refill(now);
        self.left_of(meter, now)
    }

    /// Whether a request would be admitted at once. Asks for nothing, so it is nobody's demand.
    ///
    /// # Panics
    /// As [`ask`](Self::ask).
    pub fn would_admit(&mut self, ask: &Ask<'_>, now: Instant) -> bool {
        if let [item] = ask.items
            && let Some(key) = self.key_of(item)
            && self.promoted_place(item.pool, key).is_none()
        {
            // An estimate would promote it.
            let open = !self.is_held_back(item.pool, now);
            let Scope::Keyed(keys) = &mut self.pools[item.pool].scope else { return false };
            return open && keys.peek(key, item.units, now) == Taken::Admitted;
        }
        self.estimate_for(ask, now) == Some(Duration::ZERO)
    }

    /// Of the limit at the place of a meter that is up to `now`.
    pub(super) fn left_of(&self, place: usize, now: Instant) -> Left {
        let meter = &self.meters[place];
        let kind = &meter.limit.kind;
        let held = meter.bucket().level().units(kind);
        let remaining = self.rows(place).map(|(_, row)| row.level).fold(held, u64::saturating_add);
        let remaining = remaining.min(kind.capacity());
        Left { held, remaining, reset_in: self.reset_in(place, remaining, now) }
    }

    /// Of a key that is not contended: elsewhere it was not used, or it would be.
    fn left_of_key(&mut self, pool: usize, limit: usize, key: KeyHash, now: Instant) -> Left {
        let state = &mut self.pools[pool];
        let (limits, Scope::Keyed(keys)) = (state.pool.limits(), &mut state.scope) else {
            unreachable!("BUG! a key of a pool without")
        };
        let kind = &limits[limit].kind;
        let (own, capacity) = (keys.units(limit, now), kind.capacity());
        let held = most(keys, key, (limit, limits.len()), own, now);
        let remaining = capacity - own.min(capacity) + held;
        let reset_in = Duration::from_secs_f64((capacity - remaining) as f64 / kind.per_second());
        Left { held, remaining, reset_in }
    }
}

/// The most units of a limit, up to `own`, that would be taken of a key at once.
fn most(keys: &mut Keys, key: KeyHash, (limit, limits): (usize, usize), own: u64, now: Instant) -> u64 {
    let mut units = Units::from_elem(0, limits);
    let (mut least, mut most) = (0, own);
    while least < most {
        let middle = least + (most - least).div_ceil(2);
        units[limit] = middle;
        if keys.peek(key, &units, now) == Taken::Admitted {
            least = middle;
        } else {
            most = middle - 1;
        }
    }
    least
}
