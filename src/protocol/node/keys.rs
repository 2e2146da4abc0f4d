//! Keyed pools: what a call takes of one key is taken from this node's base share of that key, with a word to nobody.
//! Where that does not suffice the key is [promoted](super::promoted), and the request goes the way of all others.

use std::time::Duration;

use super::admission::{Acquired, Ask, Item, Needs, Outcome, Reason, refuse};
use super::{Node, Scope};
use crate::protocol::keyed::{KeyHash, Keys, Taken as KeyTaken};
use crate::protocol::limit::{Limit, Units};
use crate::protocol::permit::{Correction, Permit, Settlement, Taken};
use crate::protocol::time::Instant;

/// When a request that no more keys could be known for should ask again, unless the key's own limit takes longer.
const CROWDED_RETRY: Duration = Duration::from_secs(1);
/// So many keys are looked at every second or so to forget them, whether or not anybody asks.
const SWEEP_STEPS: usize = 1_000;

impl Node {
    /// How many keys of the pool are written down here, and how many are contended; none if it is not keyed.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn keys(&self, pool: usize) -> Option<(usize, usize)> {
        let Scope::Keyed(keys) = &self.pools[pool].scope else { return None };
        Some((keys.len(), keys.promoted().count()))
    }

    /// What a key of the pool is called: the empty one where a keyed pool is asked without, none where the pool is not keyed.
    pub(super) fn key_of(&mut self, pool: usize, key: Option<&str>) -> Option<KeyHash> {
        let state = &mut self.pools[pool];
        matches!(state.scope, Scope::Keyed(_)).then(|| state.hashes.of(key.unwrap_or_default().as_bytes()))
    }

    /// Answers a call of keyed pools as far as that needs no meters. None if it takes of no key, or has to go the way of all
    /// others.
    pub(super) fn ask_keyed(&mut self, ask: &Ask<'_>, now: Instant) -> Option<Acquired> {
        if let Some(limit) = self.too_large_for_key(ask) {
            return Some(refuse(Reason::Never, Some(limit), None));
        }
        let [item] = ask.items else { return None };
        let key = self.key_of(item.pool, item.key)?;
        // Behind a gate that is shut a key waits as all others do.
        if self.is_held_back(item.pool, now) { None } else { self.ask_key(ask, item, key, now) }
    }

    /// The first item that takes more of a key than its limit can ever hold, by the places of its pool and limit: to be
    /// known before a key is promoted for it.
    pub(super) fn too_large_for_key(&self, ask: &Ask<'_>) -> Option<(usize, usize)> {
        ask.items.iter().filter(|item| matches!(self.pools[item.pool].scope, Scope::Keyed(_))).find_map(
            |item| {
                let limits = self.pools[item.pool].pool.limits().iter().zip(item.units);
                let limit = limits.into_iter().position(|(limit, units)| *units > limit.kind.capacity())?;
                Some((item.pool, limit))
            },
        )
    }

    /// Answers a call that takes of one key and nothing else. None if the key is promoted, or was now.
    fn ask_key(&mut self, ask: &Ask<'_>, item: &Item<'_>, key: KeyHash, now: Instant) -> Option<Acquired> {
        let state = &mut self.pools[item.pool];
        let Scope::Keyed(keys) = &mut state.scope else { return None };
        if keys.is_promoted(key) {
            return None;
        }
        if !self.permits.has_room() {
            return Some(refuse(Reason::QueueFull, None, Some(CROWDED_RETRY)));
        }
        let (limit, ready_at) = match keys.acquire(key, item.units, now) {
            KeyTaken::Admitted => return Some(self.admit_key(ask, item, key, now)),
            KeyTaken::Full => return Some(refuse(Reason::TooManyKeys, None, Some(CROWDED_RETRY))),
            KeyTaken::Promoted => return None,
            KeyTaken::Lacking { limit, ready_at } => (limit, ready_at),
        };
        if self.promote(item.pool, key, now).is_some() {
            return None;
        }
        let reason = if ask.wait.is_zero() { Reason::Limit } else { Reason::TooManyKeys };
        let after = ready_at.map_or(CROWDED_RETRY, |at| at.since(now));
        Some(refuse(reason, Some((item.pool, limit)), Some(self.spread(after))))
    }

    fn admit_key(&mut self, ask: &Ask<'_>, item: &Item<'_>, key: KeyHash, now: Instant) -> Acquired {
        let Item { pool, units, .. } = *item;
        let agent = self.agents.intern(ask.agent);
        let mut cost = 1;
        for (limit, units) in self.pools[pool].pool.limits().iter().zip(units) {
            cost = cost.max((*units as f64 * 1e9 / limit.kind.per_second()) as u64);
        }
        self.agents.admitted(agent, pool, cost, now);
        let taken = (0..).zip(units).filter(|(_, units)| **units > 0);
        let taken: Needs = taken.map(|(meter, units)| Taken { meter, units: *units }).collect();
        let permit = Permit {
            pool: pool as u32,
            key: Some(key),
            agent: agent.0,
            taken: &taken[..],
            since: now,
            expires: now + ask.ttl,
        };
        Acquired::Now(Outcome::Admitted {
            waited: Duration::ZERO,
            permit: self.issue(permit, false),
            ttl: ask.ttl,
        })
    }

    /// Applies what was really used to the key that a permit is of, wherever its limits run now.
    pub(super) fn settle_key(
        &mut self,
        permit: &Permit,
        key: KeyHash,
        used: impl Fn(&Limit, u64) -> u64,
        now: Instant,
    ) -> Settlement {
        let pool = permit.pool as usize;
        let limits = self.pools[pool].pool.limits();
        let (mut less, mut more) = (Units::new(), Units::new());
        for (place, limit) in limits.iter().enumerate() {
            let reserved = permit.taken.iter().find(|taken| taken.meter as usize == place);
            let reserved = reserved.map_or(0, |taken| taken.units);
            let used = used(limit, reserved);
            less.push(reserved.saturating_sub(used));
            more.push(used.saturating_sub(reserved));
        }
        let (refunded, owed) = match self.promoted_place(pool, key) {
            Some(place) => self.correct_promoted(place, &less, &more, permit.since, now),
            None => self.correct_key(pool, key, &less, &more, permit.since, now),
        };
        let mut settlement = Settlement { keyed: Some(permit.pool), ..Settlement::default() };
        for (meter, (less, more)) in (0..).zip(less.into_iter().zip(more)) {
            if less > 0 && refunded {
                settlement.corrections.push(Correction::Refund { meter, units: less });
            } else if more > 0 && owed {
                settlement.corrections.push(Correction::Debt { meter, units: more });
            }
        }
        settlement
    }

    /// Whether the units came back, and whether the debt is written down.
    fn correct_key(
        &mut self,
        pool: usize,
        key: KeyHash,
        less: &Units,
        more: &Units,
        since: Instant,
        now: Instant,
    ) -> (bool, bool) {
        let Scope::Keyed(keys) = &mut self.pools[pool].scope else { return (false, false) };
        let refunded = less.iter().any(|units| *units > 0) && keys.refund(key, less, since, now);
        let owed = more.iter().any(|units| *units > 0) && keys.owe(key, more, now);
        (refunded, owed)
    }

    /// See [`correct_key`](Self::correct_key).
    fn correct_promoted(
        &mut self,
        pool: usize,
        less: &Units,
        more: &Units,
        since: Instant,
        now: Instant,
    ) -> (bool, bool) {
        let Scope::Key(promoted) = &self.pools[pool].scope else { return (false, false) };
        // What room there was before, the meters do not know.
        let refunds = since > promoted.since;
        for (place, (less, more)) in self.pools[pool].meters().zip(less.iter().zip(more)) {
            let meter = &mut self.meters[place];
            meter.refill(now);
            if *less > 0 && refunds {
                meter.refund(*less, since);
            }
            if *more > 0 {
                meter.take(*more, self.replica, self.config.weight);
            }
        }
        (refunds, true)
    }

    /// Once a second or so: forgets keys that nobody asks for, and takes promoted ones back that are calm.
    pub(super) fn look_after_keys(&mut self, now: Instant) {
        for state in &mut self.pools {
            if let Scope::Keyed(keys) = &mut state.scope {
                keys.sweep(SWEEP_STEPS, now);
            }
        }
        for pool in self.config.pools.len()..self.pools.len() {
            self.demote_if_calm(pool, now);
        }
        self.look_after_dynamic(now);
        self.drop_vacant_pools();
    }

    /// The keys of every keyed pool.
    pub(super) fn all_keys(&mut self) -> impl Iterator<Item = &mut Keys> {
        self.pools.iter_mut().filter_map(|state| match &mut state.scope {
            Scope::Keyed(keys) => Some(&mut **keys),
            _ => None,
        })
    }
}
