//! The limits of a keyed pool on one node: once per key, for very many keys, without a word to anybody.
//!
//! A node with base share `h` has `h` of every limit, so also of every key's limit. A key that was never used here
//! needs no memory: its buckets are those of the *virgin*, which never spends and to which every change of base share
//! is applied. A key is written down when it first spends, as a copy of the virgin, and forgotten when it equals the
//! virgin again. A key whose share should follow demand is *promoted*: it leaves for meters of its own, which lend
//! and borrow.
//!
//! # Why no key is ever over its limit
//!
//! Take one key and one limit `B + R·t` of it. On each node the key has a balance, written down or not: the virgin's
//! where it is not. Let `P` be the sum over the nodes of what is unspent.
//!
//! 1. *A balance is that of a leaky bucket on the node's base share.* With base share `h` it earns `R·h` and stops at
//!    `B·h`. A smaller base share cuts it to what that can hold; a greater one brings nothing with it, and the level
//!    that the ledger sends with a gift is not counted here. Base shares sum to at most the whole at every moment:
//!    who gives stops using before who receives begins. So without spending `P` grows at most at `R` and never
//!    exceeds `B`.
//! 2. *No balance is above the virgin's.* It began as a copy; both took the same monotone steps since, the key's
//!    spending only lowers it, and what is given back ([`refund`](Keys::refund), [`demote`](Keys::demote)) is cut to
//!    the virgin's. So to forget a key that equals the virgin, and to write it down again as a copy of the virgin,
//!    changes no balance: `P` is the same before and after.
//! 3. *A key is brought up to date late, but by the same steps.* The last [`CHANGES_MAX`] changes of base share are
//!    kept with their times, and a key takes those at or after its own time in their order. One at its own time it
//!    may have taken before; taken again it only cuts, and to what the key was cut to. A key that missed changes
//!    which are not kept any more counts as empty when the last of those happened: not above any balance that it can
//!    have had.
//! 4. *A clock that stands still or goes back earns nothing:* the latest time seen counts, and nanoseconds are earned
//!    once.
//! 5. *A promoted key is not written down here* until its meters hold the base share and nothing else, so that no
//!    share of a key runs in two places.
//!
//! 6. *What is given back was never taken.* It comes back only while nothing else has happened to the key, and as far as
//!    the key has had room for it all the time: then its balance is what it would be had the units not been taken.
//!
//! So `P` falls by what is admitted and grows at most at `R`, from at most `B`: what all nodes admit of one key in `[s,
//! t]`, and do not give back, is at most `B + R·(t−s)`. After a restart nothing is written down and the virgin is empty:
//! never above what was there before.
//!
//! # At the bound
//!
//! With as many keys as may be written down, a new key is refused ([`Taken::Full`]) until one can be forgotten. To
//! make room by forgetting a key that is not full would give it its whole burst again: whoever could make keys up
//! could clear any key's record. Refusing strangers is the lesser harm, and ends by itself as keys fill up.

mod balance;
mod hashes;
mod history;
mod table;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use balance::Balance;
use balance::Terms;
pub(super) use hashes::Hashes;
pub use history::{CHANGES_MAX, History};
use table::Table;

use super::limit::{Fingerprint, Left, Rate};
use super::share::Share;
use super::time::Instant;

/// How many keys a pool writes down on one node where the configuration does not say.
pub const KEYS_MAX_DEFAULT: usize = 1_000_000;
/// The most that the configuration can ask for: with two limits a gibibyte.
pub const KEYS_MAX: usize = 1 << 24;
/// The most keys of one pool that are promoted at once: each has meters, and rows that are gossiped.
pub const PROMOTED_MAX: usize = 1_024;
/// How many keys a call that adds one looks at to forget them: the table stays within about twice of what cannot be forgotten.
const SWEEP_STEPS: usize = 2;
/// A call forgets no key that was used so lately: it would soon be written down again. Most keys are full again when they are
/// used next.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// How many more a call looks at that finds the table full.
const FULL_STEPS: usize = 16;

/// Names a key of a pool: the first 128 bits of a SHA-256 digest, so that keys themselves (users, tenants) are neither
/// gossiped nor written down; a bounded table remembers the last ones that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub u128);

impl KeyHash {
    /// The name of `key` in the pool called `pool`, the same on every node.
    pub fn of(pool: &str, key: impl AsRef<[u8]>) -> Self {
        let mut hash = Sha256::new();
        for text in ["key".as_bytes(), pool.as_bytes(), key.as_ref()] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        Self(hash.finalize()[..16].iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }

    /// Names `limit` as a limit of this key alone, the same on every node.
    pub fn fingerprint(&self, limit: Fingerprint) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update(limit.0.to_be_bytes());
        hash.update(self.0.to_be_bytes());
        Fingerprint(hash.finalize()[..8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

/// What became of a request for units of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All units were taken.
    Admitted,
    /// Nothing was taken: a limit has too little.
    Lacking {
        /// The place in the pool of the limit that has enough last.
        limit: usize,
        /// When all limits have enough if the base share stays as it is and nobody else asks for the key. None if it
        /// can never hold that much: the key must be promoted, to borrow.
        ready_at: Option<Instant>,
    },
    /// Nothing was taken: the key is promoted, ask its meters.
    Promoted,
    /// Nothing was taken: the key is new, and all that may be written down are, of which none looked at can be
    /// forgotten.
    Full,
}

/// All keys of one keyed pool on one node. A `now` that goes back counts as standing still.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The limits on the base share.
    terms: Vec<Terms>,
    keys_max: usize,
    /// The latest time seen.
    now: Instant,
    history: History,
    /// The balances of every key that is not written down, as of `now`.
    virgin: Vec<Balance>,
    table: Table,
    promoted: BTreeSet<KeyHash>,
    admitted: Vec<u64>,
    /// The place that is swept next.
    sweep_at: usize,
}

impl Keys {
    /// No keys yet, on a node without a base share. At most `keys_max` (1 to [`KEYS_MAX`], else the nearer of these)
    /// are ever written down, at 36 to 40 bytes and 16 for each limit.
    pub fn new(rates: Vec<Rate>, keys_max: usize, now: Instant) -> Self {
        Self::since(History::new(now), rates, keys_max, now)
    }

    /// The same as if it had been there through all of `history`, without a key that was used.
    pub fn since(history: History, rates: Vec<Rate>, keys_max: usize, now: Instant) -> Self {
        let keys_max = keys_max.clamp(1, KEYS_MAX);
        let base = history.base();
        Self {
            keys_max,
            now,
            virgin: rates.iter().map(|rate| history.unused(rate, now)).collect(),
            history,
            table: Table::new(keys_max, rates.len()),
            promoted: BTreeSet::new(),
            admitted: vec![0; rates.len()],
            sweep_at: 0,
            terms: rates.into_iter().map(|rate| Terms::new(rate, base)).collect(),
        }
    }

    /// The node's base share that may be used is `base` from now on. What comes is empty, whatever level a gift had.
    pub fn set_base(&mut self, base: Share, now: Instant) {
        self.advance(now);
        self.history.set_base(base, self.now);
        for (virgin, terms) in self.virgin.iter_mut().zip(&mut self.terms) {
            *terms = Terms::new(terms.rate, base);
            *virgin = (*virgin).min(terms.full);
        }
    }

    /// The node founded the ledger, with base share `base`: nothing was ever spent of any key, so all are full.
    ///
    /// # Panics
    /// If anything was admitted or promoted before.
    pub fn start_full(&mut self, base: Share, now: Instant) {
        let untouched = self.table.len() == 0 && self.promoted.is_empty();
        assert!(untouched && self.admitted.iter().all(|units| *units == 0), "BUG! founded after spending");
        self.advance(now);
        self.history = History::full(base, self.now);
        for (virgin, terms) in self.virgin.iter_mut().zip(&mut self.terms) {
            *terms = Terms::new(terms.rate, base);
            *virgin = terms.full;
        }
    }

    /// Takes `units` of each limit for `key`, in the pool's order: all or nothing. A debt refuses even a request for
    /// no units.
    pub fn acquire(&mut self, key: KeyHash, units: &[u64], now: Instant) -> Taken {
        let place = match self.look(key, units, now) {
            Err(answer) => return answer,
            Ok(Some(place)) => {
                self.catch_up(place);
                place
            }
            Ok(None) => self.add(key),
        };
        self.take(place, units);
        for (admitted, units) in self.admitted.iter_mut().zip(units) {
            *admitted = admitted.saturating_add(*units);
        }
        Taken::Admitted
    }

    /// What [`acquire`](Self::acquire) would answer, without taking anything.
    pub fn peek(&mut self, key: KeyHash, units: &[u64], now: Instant) -> Taken {
        self.look(key, units, now).err().unwrap_or(Taken::Admitted)
    }

    /// Gives back `units` of each limit that were taken for `key` at `taken_at` and not used, as far as they would have
    /// fitted ever since. False, and nothing comes back, if the key was taken from or given back to since, or the base
    /// share changed, or the key is promoted or forgotten.
    ///
    /// Had the units not been taken, the bucket might have overflowed meanwhile. Whoever gave all of them back would let a
    /// caller reserve the burst, wait until it is there again, spend it, and get it back to spend it once more. How much
    /// room there was at least is known only while the room has done nothing but shrink: it is what there is now. To
    /// know more would take a record of the room for every key.
    pub fn refund(&mut self, key: KeyHash, units: &[u64], taken_at: Instant, now: Instant) -> bool {
        self.advance(now);
        let Some(place) = self.table.find(key) else { return false };
        if self.table.get(place).0 != taken_at || self.history.changed_since(taken_at) {
            return false;
        }
        self.catch_up(place);
        let (_, balances) = self.table.get_mut(place);
        for (place, units) in units.iter().enumerate() {
            let more = balances[place].plus(self.terms[place].of(*units));
            balances[place] = more.min(self.virgin[place]);
        }
        true
    }

    /// Writes down that `units` of each limit were used for `key` beyond what was taken. False, and nothing is written
    /// down, if the key is promoted, or new and there is no room for it.
    pub fn owe(&mut self, key: KeyHash, units: &[u64], now: Instant) -> bool {
        self.advance(now);
        if self.promoted.contains(&key) {
            return false;
        }
        let Some(place) = self.find_or_insert(key) else { return false };
        self.take(place, units);
        true
    }

    /// Takes `key` out, with its exact balance of each limit, to run in meters of its own from now on, on the same
    /// base share; changes of base share reach them as they reach `Keys`, without the level of a gift. None, and
    /// nothing changes, if it is promoted already or [`PROMOTED_MAX`] others are.
    pub fn promote(&mut self, key: KeyHash, now: Instant) -> Option<Vec<Balance>> {
        self.advance(now);
        if self.promoted.len() >= PROMOTED_MAX || !self.promoted.insert(key) {
            return None;
        }
        let Some(place) = self.find(key) else { return Some(self.virgin.clone()) };
        let balances = self.table.get(place).1.to_vec();
        self.table.remove(place);
        Some(balances)
    }

    /// Takes a promoted key back with at most these balances. Its meters must have ended all leases, in both
    /// directions, and must not be used any more; `held` is what they ran on. False, and the key stays promoted, if
    /// it is not, if `held` is not the base share, or if there is no room to write it down.
    #[must_use = "a key that stays promoted needs its meters"]
    pub fn demote(&mut self, key: KeyHash, held: Share, balances: &[Balance], now: Instant) -> bool {
        assert_eq!(balances.len(), self.terms.len(), "BUG! balances of another pool");
        self.advance(now);
        if held != self.base() || !self.promoted.contains(&key) {
            return false;
        }
        if balances.iter().zip(&self.virgin).any(|(balance, virgin)| balance < virgin) {
            let Some(place) = self.find_or_insert(key) else { return false };
            let (_, kept) = self.table.get_mut(place);
            for (kept, balance) in kept.iter_mut().zip(balances) {
                *kept = (*kept).min(*balance);
            }
        }
        self.promoted.remove(&key);
        true
    }

    /// Whether `key` runs in meters of its own.
    pub fn is_promoted(&self, key: KeyHash) -> bool {
        self.promoted.contains(&key)
    }

    /// The keys that run in meters of their own, in their order.
    pub fn promoted(&self) -> impl Iterator<Item = KeyHash> {
        self.promoted.iter().copied()
    }

    /// Looks at the next `steps` keys and forgets those that are idle and full. Tells how many it forgot. Whoever adds a key
    /// looks at two, so this is for keys that nobody follows.
    pub fn sweep(&mut self, steps: usize, now: Instant) -> usize {
        self.advance(now);
        self.sweep_on(steps, Duration::ZERO)
    }

    /// How many keys are written down.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no key is written down.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the keys are written down in, at most: a part of it may never have been touched.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// The base share that every key runs on that is not promoted.
    pub fn base(&self) -> Share {
        self.history.base()
    }

    /// The node has no base share any more, nor did it ever spend any: the ledger is another one. What is promoted stays
    /// so, and its meters must begin anew, too.
    pub fn start_over(&mut self, now: Instant) {
        let rates = self.terms.iter().map(|terms| terms.rate).collect();
        let fresh = Self::new(rates, self.keys_max, now.max(self.now));
        let (promoted, admitted) = (std::mem::take(&mut self.promoted), std::mem::take(&mut self.admitted));
        *self = Self { promoted, admitted, ..fresh };
    }

    /// From now on at most so many keys are written down; those that are stay.
    pub(super) fn set_keys_max(&mut self, keys_max: usize) {
        self.keys_max = keys_max.clamp(1, KEYS_MAX);
        self.table.grow(self.keys_max);
    }

    /// Whether a key is written down or promoted.
    pub(super) fn knows(&self, key: KeyHash) -> bool {
        self.is_promoted(key) || self.table.find(key).is_some()
    }

    /// What is left of the limit at this place of the pool for a key that is not promoted, as if nothing of it was spent
    /// elsewhere.
    #[expect(
        clippy::inline_always,
        reason = "moved whole right after it was written in parts, it takes as long as its sums"
    )]
    #[inline(always)]
    pub(super) fn left(&mut self, limit: usize, key: KeyHash, now: Instant) -> Left {
        self.advance(now);
        let terms = &self.terms[limit];
        let balance = self.table.find(key).map_or(self.virgin[limit], |place| {
            let (at, balances) = self.table.get(place);
            self.at_present(limit, balances[limit], at)
        });
        let held = balance.units(terms.unit);
        let has_all = terms.elsewhere == Balance::ZERO;
        Left {
            held,
            remaining: if has_all { held } else { terms.elsewhere.plus(balance).units(terms.unit) },
            reset_in: Duration::from_nanos(balance.wait_for(terms.full, terms).unwrap_or(u64::MAX)),
        }
    }

    /// Whole units of the limit at this place of the pool that a key has which was never used.
    pub fn units(&mut self, limit: usize, now: Instant) -> u64 {
        self.advance(now);
        self.virgin[limit].units(self.terms[limit].unit)
    }

    /// Units of the limit at this place of the pool that were ever admitted here, for all keys together. Neither what
    /// was given back nor what was owed changes it, nor what promoted keys spend.
    pub fn admitted(&self, limit: usize) -> u64 {
        self.admitted[limit]
    }

    /// Brings the virgin up to `now`.
    fn advance(&mut self, now: Instant) {
        let nanos = now.as_nanos().saturating_sub(self.now.as_nanos());
        if nanos == 0 {
            return;
        }
        self.now = now;
        for (virgin, terms) in self.virgin.iter_mut().zip(&self.terms) {
            *virgin = virgin.earn_on(terms, nanos);
        }
    }

    /// What a balance of this limit that was true at `at` is now.
    fn at_present(&self, limit: usize, balance: Balance, at: Instant) -> Balance {
        let terms = &self.terms[limit];
        if self.history.changed_since(at) {
            self.history.at_present(balance, at, &terms.rate, self.now)
        } else {
            balance.earn_on(terms, self.now.as_nanos().saturating_sub(at.as_nanos()))
        }
    }

    /// Whether `units` can be taken for `key`, and where it is written down, if it is; there is room if it is not.
    fn look(&mut self, key: KeyHash, units: &[u64], now: Instant) -> Result<Option<usize>, Taken> {
        assert_eq!(units.len(), self.terms.len(), "BUG! units for another pool");
        self.advance(now);
        if self.promoted.contains(&key) {
            return Err(Taken::Promoted);
        }
        // Who is refused leaves no trace: a key that is only looked at can still be given back to.
        let found = self.table.find(key);
        let (at, balances) = found.map_or((self.now, &*self.virgin), |place| self.table.get(place));
        // The limit with the longest wait; there is none longer than `None`.
        let mut longest: Option<(usize, Option<u64>)> = None;
        for (place, terms) in self.terms.iter().enumerate() {
            let balance = self.at_present(place, balances[place], at);
            let wait = balance.wait_for(terms.of(units[place]), terms);
            let is_longer = |known: u64| wait.is_none_or(|wait| wait > known);
            if wait != Some(0) && longest.is_none_or(|(_, known)| known.is_some_and(is_longer)) {
                longest = Some((place, wait));
            }
        }
        if let Some((limit, wait)) = longest {
            let ready_at = wait.map(|nanos| self.now + Duration::from_nanos(nanos));
            return Err(Taken::Lacking { limit, ready_at });
        }
        if found.is_none() && !self.has_room() { Err(Taken::Full) } else { Ok(found) }
    }

    fn take(&mut self, place: usize, units: &[u64]) {
        let (_, balances) = self.table.get_mut(place);
        for ((balance, terms), units) in balances.iter_mut().zip(&self.terms).zip(units) {
            *balance = balance.minus(terms.of(*units));
        }
    }

    /// The place of `key`, brought up to date.
    fn find(&mut self, key: KeyHash) -> Option<usize> {
        let place = self.table.find(key)?;
        self.catch_up(place);
        Some(place)
    }

    fn find_or_insert(&mut self, key: KeyHash) -> Option<usize> {
        if let Some(place) = self.find(key) {
            return Some(place);
        }
        self.has_room().then(|| self.add(key))
    }

    /// Writes down a key that is not, and for which there is room.
    fn add(&mut self, key: KeyHash) -> usize {
        self.sweep_on(SWEEP_STEPS, KEPT_FOR);
        self.table.insert(key, self.now, &self.virgin)
    }

    /// Whether one more key can be written down, after looking for some to forget.
    fn has_room(&mut self) -> bool {
        if self.table.len() >= self.keys_max {
            self.sweep_on(FULL_STEPS, Duration::ZERO);
        }
        self.table.len() < self.keys_max
    }

    /// Brings the key at `place` from its own time to `now`.
    fn catch_up(&mut self, place: usize) {
        for limit in 0..self.terms.len() {
            let (at, balances) = self.table.get(place);
            let balance = self.at_present(limit, balances[limit], at);
            self.table.get_mut(place).1[limit] = balance;
        }
        *self.table.get_mut(place).0 = self.now;
    }

    /// Forgets keys that are full, and were not used for so long.
    fn sweep_on(&mut self, steps: usize, idle: Duration) -> usize {
        let mut forgotten = 0;
        for _ in 0..steps {
            if self.table.len() == 0 {
                break;
            }
            if self.sweep_at >= self.table.len() {
                self.sweep_at = 0;
            }
            let (at, balances) = self.table.get(self.sweep_at);
            let is_idle = self.now.since(at) >= idle;
            let mut limits = balances.iter().zip(&self.virgin).enumerate();
            if is_idle
                && limits.all(|(limit, (balance, virgin))| self.at_present(limit, *balance, at) == *virgin)
            {
                self.table.remove(self.sweep_at);
                forgotten += 1;
            } else {
                self.sweep_at += 1;
            }
        }
        forgotten
    }
}

#[cfg(test)]
mod tests;
