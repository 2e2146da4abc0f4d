//! What a node has spent of slow limits outlives it: a restart neither spends it again nor loses what was left.
//!
//! A restarted node knows nothing of what its former life spent, so its base share starts spent. Limits that fill within
//! minutes have recovered soon; a day's budget would be gone until midnight. Of those, what may be missing is *reserved
//! ahead*: on disk stands always at least as much as is missing from the base share's rights, so that only one admission in
//! many waits for the disk, and none is forgotten by a crash. The next life starts with the rest.
//!
//! **Nobody waits for the disk.** More is reserved as soon as half of it is used up. The driver says when all that it was
//! given is [on disk](Node::stored); an admission that goes beyond that, as one larger than what is reserved ahead, must
//! not be [answered](Node::outruns_disk) before.
//!
//! **A node that lost what it knew** does not know what it gave away. Its records have one writer, itself, and whoever
//! heard of them last may not be there; so what others say that it has may be in other hands already. It *forfeits* its
//! base share: it learns the ledger back from its peers, its own records too, serves requests by borrowing, and never
//! spends, lends or gives what the ledger says is its own, in no life from then on, until somebody has taken that back
//! from it. What it is given afterwards is its own as anybody's. So whatever was given away before, nobody has twice.

use super::{Node, Phase};
use crate::protocol::bucket::{CountedBucket, Level};
use crate::protocol::limit::Fingerprint;
use crate::protocol::meter::Meter;
use crate::protocol::share::Share;
use crate::protocol::time::Instant;

use serde::{Deserialize, Serialize};

/// What may be missing of a limit's base share, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The limit.
    pub limit: Fingerprint,
    /// The calendar period that it is missing in, the greatest number if it is not known; zero for other kinds.
    pub period: i64,
    /// Atoms.
    pub atoms: u128,
    /// What is missing in the next period, because it was spent around the boundary.
    pub next: u128,
}

/// What is reserved ahead, and how much less may be missing before that is told, in parts of the base share's rights.
const AHEAD: u128 = 32;

impl Node {
    /// Everything that may be missing, with what is reserved ahead; it is on disk once this was saved.
    pub(super) fn missing(&mut self) -> Vec<Missing> {
        // What was not taken up yet of the former life's word is still all that is known.
        let mut missing: Vec<Missing> = self.former.clone();
        // Nothing is admitted any more by a node that has left.
        let ahead = u128::from(self.phase != Phase::Left);
        let known: Vec<Fingerprint> = missing.iter().map(|missing| missing.limit).collect();
        let configured = self.configured_meters();
        let slow = |meter: &&mut Meter| meter.is_slow() && !known.contains(&meter.fingerprint);
        for meter in self.meters[..configured].iter_mut().filter(slow) {
            let whole = meter.bucket().depth_of(meter.base()).0;
            meter.reserved = (meter.missing() + ahead * (whole / AHEAD)).min(whole);
            // Until this is on disk, what stands there is this or what stood there before.
            meter.stored = meter.stored.min(meter.reserved);
            missing.push(Missing {
                limit: meter.fingerprint,
                period: period_of(meter),
                atoms: meter.reserved,
                next: meter.bucket().counted().map_or(0, CountedBucket::next_atoms) + ahead * (whole / AHEAD),
            });
        }
        missing
    }

    /// Saves if soon more may be missing than stands on disk.
    pub(super) fn reserve_ahead(&mut self) {
        let is_due = |meter: &Meter| {
            let whole = meter.bucket().depth_of(meter.base()).0;
            let ahead = if meter.reserved < whole { whole / AHEAD / 2 } else { 0 };
            meter.missing() + ahead > meter.reserved
        };
        if self.has_slow_limits && self.phase != Phase::Left && self.slow_limits().any(is_due) {
            self.save(false);
        }
    }

    /// All that was [to be saved](super::Output::Save) so far is on disk.
    pub fn stored(&mut self) {
        let configured = self.configured_meters();
        for meter in &mut self.meters[..configured] {
            meter.stored = meter.reserved;
        }
    }

    /// The limit of a pool, by its place there, of which more was taken than is on disk by what the driver
    /// [said](Self::stored): no admission may be answered before it is, or a crash would give it out once more.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn outruns_disk(&self, pool: usize) -> Option<usize> {
        if !self.has_slow_limits {
            return None;
        }
        let outruns = |meter: &Meter| meter.is_slow() && meter.missing() > meter.stored;
        self.meters[self.pools[pool].meters()].iter().position(outruns)
    }

    /// What a former life gave away is not known. Its records come back from whoever heard of them.
    pub(super) fn forfeit(&mut self) {
        self.forfeits = true;
    }

    /// Ends it once the ledger says that the base share was taken back.
    pub(super) fn look_at_forfeit(&mut self) {
        if !self.forfeits {
            return;
        }
        // A founder is not vouched for.
        if self.ledger.is_member(&self.config.id) {
            self.become_member();
        }
        if self.ledger.was_reclaimed(&self.config.id) && self.base() == Share::ZERO {
            self.forfeits = false;
            self.save(false);
        }
    }

    /// Keys are not among them: those of a restarted node start spent.
    fn slow_limits(&self) -> impl Iterator<Item = &Meter> {
        self.meters[..self.configured_meters()].iter().filter(|meter| meter.is_slow())
    }

    /// Once a second: what has come back need not stay reserved.
    pub(super) fn reserve_less(&mut self) {
        let is_much_less = |meter: &Meter| {
            let whole = meter.bucket().depth_of(meter.base()).0;
            meter.missing() + 4 * (whole / AHEAD) < meter.reserved
        };
        if self.has_slow_limits && self.slow_limits().any(is_much_less) {
            self.save(false);
        }
    }

    /// Takes up what the former life left, once the base share is there and the period is known.
    pub(super) fn resume_levels(&mut self, now: Instant) {
        if self.former.is_empty() || self.usable_base() == Share::ZERO {
            return;
        }
        let mut former = std::mem::take(&mut self.former);
        former.retain(|missing| {
            let Some(place) = self.place_of(missing.limit) else { return false };
            let meter = &mut self.meters[place];
            let is_known = meter.bucket().counted().is_none_or(|bucket| bucket.period().is_some());
            if !is_known {
                return true;
            }
            let whole = meter.bucket().depth_of(meter.base()).0;
            let is_past = period_of(meter) > missing.period;
            let atoms = if is_past { missing.next } else { missing.atoms }.min(whole);
            // The base came spent; this is word that the rest of it is not.
            meter.set_base(meter.base(), Level(whole - atoms), now);
            (meter.reserved, meter.stored) = (atoms, atoms);
            false
        });
        self.former = former;
    }
}

/// The period of a calendar limit, one that is never over while it is not known; zero for other kinds.
fn period_of(meter: &Meter) -> i64 {
    let period = meter.bucket().counted().map(CountedBucket::period);
    period.map_or(0, |period| period.map_or(i64::MAX, |period| period.number))
}
