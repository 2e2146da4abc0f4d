//! What is left of a limit, for answers that come at every call: [`LimitView`](super::LimitView) without what only listings
//! show.

use std::time::Duration;

use super::admission::Ask;
use super::{Node, Scope};
use crate::protocol::keyed::{KeyHash, Taken};
pub use crate::protocol::limit::Left;
use crate::protocol::time::Instant;

impl Node {
    /// What is left of the limit at this place of the pool; of this key's, if the pool is keyed.
    ///
    /// # Panics
    /// If there is no such pool or limit.
    pub fn left(&mut self, pool: usize, limit: usize, key: &str, now: Instant) -> Left {
        let place = match self.key_of(pool, Some(key)) {
            Some(key) => match self.promoted_place(pool, key) {
                Some(promoted) => promoted,
                None => return self.left_of_key(pool, limit, key, now),
            },
            None => pool,
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
            && let Some(key) = self.key_of(item.pool, item.key)
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
        let Scope::Keyed(keys) = &mut self.pools[pool].scope else {
            unreachable!("BUG! a key of a pool without")
        };
        keys.left(limit, key, now)
    }
}
