//! Permits: what was really used, said after the call; and those of which nothing is said.

use super::{FEW_LINKS, Node, Phase, Scope};
use crate::protocol::agents::AgentIndex;
use crate::protocol::limit::{Cost, Kind, Limit};
use crate::protocol::permit::{Correction, How, Permit, PermitId, Settled, Settlement, Taken};
use crate::protocol::time::Instant;

use smallvec::SmallVec;
use thiserror::Error;

/// How a permit was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settling {
    /// How it ended: as asked for now, or otherwise before.
    pub how: How,
    /// It had ended before, and this is what came of it then.
    pub repeated: bool,
    /// What came back, and what was used beyond what was reserved.
    pub settlement: Settlement,
}

/// Why a permit could not be settled. Nothing was changed; what it reserved counts as used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SettleError {
    /// Its time was over.
    #[error("its time to live was over before; what it reserved counts as used. Ask for a longer ttl_ms")]
    Expired,
    /// It ended so long ago that nobody remembers how.
    #[error("it has ended, too long ago to tell how")]
    Forgotten,
    /// The node was restarted since; what it reserved counts as used.
    #[error("this node was restarted since; what the permit reserved counts as used")]
    Former,
    /// This node never issued it.
    #[error("this node never issued it")]
    Unknown,
}

impl Node {
    /// Tells what a call really used, by limit or unit; of limits that are not named, as reserved. What was reserved beyond
    /// it is free at once; what was used beyond what was reserved is paid before the next admission.
    ///
    /// # Errors
    /// If the permit cannot be settled any more. Saying it again changes nothing and gives the same answer.
    pub fn commit(&mut self, id: PermitId, used: &Cost, now: Instant) -> Result<Settling, SettleError> {
        self.settle(id, How::Committed, |limit, reserved| used.said(limit).unwrap_or(reserved), now)
    }

    /// Tells that a call used nothing.
    ///
    /// # Errors
    /// If the permit cannot be settled any more. Saying it again changes nothing and gives the same answer.
    pub fn release(&mut self, id: PermitId, now: Instant) -> Result<Settling, SettleError> {
        self.settle(id, How::Released, |_, _| 0, now)
    }

    /// The connection that a permit is bound to is gone: what it reserved counts as used, but its slots are free.
    pub fn close(&mut self, id: PermitId, now: Instant) {
        // Whoever has settled it before has nothing to settle now.
        let _ = self.settle(id, How::Closed, |_, reserved| reserved, now);
    }

    /// Counts what was used of a pool, or of a key of it, without having been asked for: what there is no room for is debt,
    /// which is paid before the next admission.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn charge(&mut self, pool: usize, key: Option<&str>, used: &Cost, now: Instant) {
        self.expire(now);
        let key = self.key_of(pool, key);
        let taken = SmallVec::new();
        // As if an empty permit had been committed; there is none, and nobody's slots are at stake.
        let permit = Permit { pool: pool as u32, key, agent: 0, taken, since: now, expires: now };
        let used = |limit: &Limit, _| used.of(limit);
        match key {
            Some(key) => self.settle_key(&permit, key, used, now),
            None => self.settle_limits(&permit, used, now),
        };
        self.stale = true;
        self.finish(now);
    }

    fn settle(
        &mut self,
        id: PermitId,
        how: How,
        used: impl Fn(&Limit, u64) -> u64,
        now: Instant,
    ) -> Result<Settling, SettleError> {
        self.expire(now);
        let permit = match self.permits.settle(id, how, now) {
            Settled::Now(permit) => permit,
            Settled::Late(permit) => {
                self.permit_ended(&permit);
                self.finish(now);
                return Err(SettleError::Expired);
            }
            Settled::Already { how: How::Expired, .. } => return Err(SettleError::Expired),
            Settled::Already { how, settlement } => return Ok(Settling { how, repeated: true, settlement }),
            Settled::Forgotten => return Err(SettleError::Forgotten),
            Settled::Former => return Err(SettleError::Former),
            Settled::Unknown => return Err(SettleError::Unknown),
        };
        let settlement = match permit.key {
            Some(key) => self.settle_key(&permit, key, used, now),
            None => self.settle_limits(&permit, used, now),
        };
        self.permit_ended(&permit);
        self.permits.remember(id, &settlement);
        if settlement.corrections.is_empty() && !self.stale {
            // All was used as reserved: nothing came back, and nobody has to know.
            return Ok(Settling { how, repeated: false, settlement });
        }
        self.stale = true;
        if self.waiters.is_empty() && matches!(self.phase, Phase::Ready) {
            // Nobody here waits for what came back: peers are told right after the caller has its answer.
            self.share_at = if self.peers.len() <= FEW_LINKS { now } else { self.share_at.max(now) };
        } else {
            self.finish(now);
        }
        Ok(Settling { how, repeated: false, settlement })
    }

    fn settle_limits(
        &mut self,
        permit: &Permit,
        used: impl Fn(&Limit, u64) -> u64,
        now: Instant,
    ) -> Settlement {
        let mut settlement = Settlement::default();
        for pool in self.pools_of(permit.borrowed()) {
            let meters = self.pools[pool].meters();
            for (place, meter) in (meters.start as u32..).zip(&mut self.meters[meters]) {
                if matches!(meter.limit.kind, Kind::Concurrency(_)) {
                    continue;
                }
                let reserved = permit.taken.iter().find(|taken| taken.meter == place);
                let reserved = reserved.map_or(0, |taken| taken.units);
                let used = used(&meter.limit, reserved);
                if used == reserved {
                    continue;
                }
                meter.refill(now);
                settlement.corrections.push(if used < reserved {
                    meter.refund(reserved - used, permit.since);
                    Correction::Refund { meter: place, units: reserved - used }
                } else {
                    meter.take(used - reserved, self.replica, self.config.weight);
                    Correction::Debt { meter: place, units: used - reserved }
                });
            }
        }
        settlement
    }

    /// The pools that the permit passed, as far as it tells.
    fn pools_of(&self, permit: Permit<&[Taken]>) -> SmallVec<[usize; 4]> {
        let mut pools = SmallVec::<[usize; 4]>::new();
        pools.push(permit.pool as usize);
        for place in permit.taken.iter().map(|taken| taken.meter as usize) {
            if !pools.iter().any(|pool| self.pools[*pool].meters().contains(&place)) {
                pools.push(self.pool_of(place).0);
            }
        }
        pools
    }

    /// Counts a permit that names meters of promoted keys: these stay as long as it is out.
    pub(super) fn count_permit(&mut self, permit: Permit<&[Taken]>, by: isize) {
        if permit.key.is_some() || self.pools.len() == self.config.pools.len() {
            return;
        }
        for pool in self.pools_of(permit) {
            if let Scope::Key(promoted) = &mut self.pools[pool].scope {
                promoted.permits =
                    promoted.permits.checked_add_signed(by).expect("BUG! a permit ends that was not counted");
            }
        }
    }

    /// The permit of one pool as that of its key, if it is one of a promoted key.
    pub(super) fn of_key(&self, permit: &Permit<&[Taken]>) -> Option<Permit> {
        let state = &self.pools[permit.pool as usize];
        let Scope::Key(promoted) = &state.scope else { return None };
        let first = state.first as u32;
        let taken = permit.taken.iter().map(|taken| Taken { meter: taken.meter - first, ..*taken }).collect();
        Some(Permit {
            pool: promoted.template as u32,
            key: Some(promoted.key),
            agent: permit.agent,
            taken,
            since: permit.since,
            expires: permit.expires,
        })
    }

    /// Ends the permits whose time is over.
    pub(super) fn expire_permits(&mut self, now: Instant) {
        while let Some((_, permit)) = self.permits.expire(now) {
            self.permit_ended(&permit);
        }
    }

    /// A permit is out no longer: its slots are free.
    pub(super) fn permit_ended(&mut self, permit: &Permit) {
        self.agents.let_go(AgentIndex(permit.agent));
        if permit.key.is_some() {
            return;
        }
        self.count_permit(permit.borrowed(), -1);
        let mut slots = false;
        for taken in &permit.taken {
            let meter = &mut self.meters[taken.meter as usize];
            meter.open = meter.open.saturating_sub(taken.units);
            if matches!(meter.limit.kind, Kind::Concurrency(_)) {
                meter.refund(taken.units, permit.since);
                slots = true;
            }
        }
        self.slots_out -= usize::from(slots);
        self.stale |= slots;
    }

    /// When the first permit ends that holds a slot; the others may end a little later.
    pub(super) fn next_permit_expiry(&self) -> Option<Instant> {
        if self.slots_out > 0 { self.permits.next_expiry() } else { None }
    }
}
