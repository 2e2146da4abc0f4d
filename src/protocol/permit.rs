//! Permits: what admitted calls have reserved, until each is settled, exactly once.
//!
//! A permit ends in one of four ways ([`How`]): the caller commits what it really used, releases what it did not use,
//! its connection closes, or its time is over. The last two count as used as reserved.
//!
//! # Why exactly once
//!
//! A permit lives in a *slot*, and its id names the life of the node, the slot and which use of the slot it is. A slot
//! goes round: free, live, settled, free again, and its number of uses grows on the last step. The reservation is
//! handed out ([`Settled::Now`], [`Settled::Late`], [`Permits::expire`], [`Permits::make_room`]) only by the one step from
//! live to settled. So whoever names the same permit later finds the slot settled, and gets the answer that it
//! remembers; or finds it in a later use, and the permit is [`Settled::Forgotten`]; but never another one's. Uses are
//! counted in 32 bits, and between two uses of a slot at least [`REMEMBERED`] permits end: an id comes again after 2⁴⁸ of
//! them at the earliest, nine years at a million a second, and never in another life.
//!
//! # When the node restarts
//!
//! Permits are not saved. Those of the former life are answered [`Settled::Former`]: what they reserved was counted as
//! used when it was taken, and stays so.
//!
//! # Bounds
//!
//! At most `max` permits are live and at most [`REMEMBERED`] answers are kept, each in an array of its own whose places
//! are used again at once or in turn: the slots, which are used again only after long, are small. Everything takes
//! constant time but deadlines that do not come in order, which take O(log n). A live permit takes 250 bytes with its
//! deadline and its part of the lists (measured at [`PERMITS_DEFAULT`] of them, three in seven out of order), a remembered
//! answer no more. Nothing is allocated once these have grown to what is needed, except for permits of more than
//! [`INLINE`] limits.

mod answers;
mod deadlines;
mod id;

use std::mem;

use smallvec::SmallVec;
use thiserror::Error;

pub use id::{PermitId, PermitIdError};

use super::id::Incarnation;
use super::keyed::KeyHash;
use super::recency::Recency;
use super::time::Instant;
use answers::Answers;
use deadlines::Deadlines;

/// How many permits are live at most where the configuration does not say.
pub const PERMITS_DEFAULT: usize = 262_144;
/// The most permits that a node can be told to keep live: 16,777,216.
pub const PERMITS_MAX: usize = 1 << 24;
/// How many of the permits that ended last are remembered, to answer whoever settles one again.
pub const REMEMBERED: usize = 65_536;
/// Limits of a permit that need no allocation; longer lists are on the heap.
pub const INLINE: usize = 8;

/// What an admitted call has reserved.
///
/// Its list is its own, or where it is issued the caller's: so it is written down in its place at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit<L = SmallVec<[Taken; INLINE]>> {
    /// The place of the pool that admitted it.
    pub pool: u32,
    /// The key, if the pool is keyed and the call passed no other. `taken` then holds the places of limits in the pool
    /// instead of those of meters, because a key's meters come and go.
    pub key: Option<KeyHash>,
    /// Whose call it is: the place of the agent in the node's table.
    pub agent: u32,
    /// What it took of which limits.
    pub taken: L,
    /// When it was admitted.
    pub since: Instant,
    /// When its time is over: at this moment it has ended, whether it was settled or not.
    pub expires: Instant,
}

impl Permit {
    /// The same, with a list that is borrowed.
    pub fn borrowed(&self) -> Permit<&[Taken]> {
        let Self { pool, key, agent, ref taken, since, expires } = *self;
        Permit { pool, key, agent, taken, since, expires }
    }
}

impl Permit<&[Taken]> {
    /// Writes it over another.
    fn write_to(self, other: &mut Permit) {
        let Self { pool, key, agent, taken, since, expires } = self;
        other.taken.clear();
        other.taken.extend_from_slice(taken);
        (other.pool, other.key, other.agent, other.since, other.expires) = (pool, key, agent, since, expires);
    }

    /// The same, with a list of its own.
    pub fn owned(self) -> Permit {
        let Self { pool, key, agent, taken, since, expires } = self;
        Permit { pool, key, agent, taken: taken.into(), since, expires }
    }
}

/// What was reserved of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The place of the limit's meter in the node.
    pub meter: u32,
    /// Units of the limit.
    pub units: u64,
}

/// How a permit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The caller said what it really used.
    Committed,
    /// The caller used nothing.
    Released,
    /// The connection to which it was bound closed: used as reserved.
    Closed,
    /// Its time was over, or it had to make room: used as reserved.
    Expired,
}

/// By how much what was used differed from what was reserved: the answer to the caller, and to its repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// The place of the keyed pool, if the permit was of one key: `meter` is then the limit's place in the pool.
    pub keyed: Option<u32>,
    /// One for each limit where the two differ.
    pub corrections: SmallVec<[Correction; INLINE]>,
}

/// The difference for one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Less was used than reserved, and this came back.
    Refund {
        /// The place of the limit's meter in the node.
        meter: u32,
        /// Units of the limit.
        units: u64,
    },
    /// More was used than reserved, and this is paid before the next admission.
    Debt {
        /// The place of the limit's meter in the node.
        meter: u32,
        /// Units of the limit.
        units: u64,
    },
}

/// What [`Permits::settle`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The permit has ended now, as was asked. The caller applies that to the limits, and says with
    /// [`Permits::remember`] what came of it.
    Now(Permit),
    /// The permit has ended now, but as [`How::Expired`], because its time was over before: whatever was asked, it
    /// counts as used as reserved.
    Late(Permit),
    /// It had ended before, and this was the answer.
    Already {
        /// How it had ended.
        how: How,
        /// What came of it.
        settlement: Settlement,
    },
    /// It had ended before more than [`REMEMBERED`] others did; how is not known any more.
    Forgotten,
    /// It was issued in a former life of this node, and counts as used as reserved.
    Former,
    /// This node never issued it.
    Unknown,
}

/// As many permits are live as may be. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("all {max} permits are out; settle some, or allow more")]
pub struct Full {
    /// How many may be live.
    pub max: usize,
}

/// The permits of one node in one life.
///
/// Which permits are bound to which connection is the driver's to know: it settles each as [`How::Closed`].
#[derive(Clone, Debug)]
pub struct Permits {
    incarnation: Incarnation,
    max: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The live, and places that are vacant.
    live: Vec<Live>,
    vacant: Vec<u32>,
    /// By place, of the live: all.
    deadlines: Deadlines,
    /// By place, of the live: those that may end to make room, oldest first.
    evictable: Recency,
    answers: Answers,
}

#[derive(Clone, Debug)]
struct Slot {
    generation: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free,
    /// By its place among the live.
    Live(u32),
    /// By the place of its answer.
    Settled(u32),
}

#[derive(Clone, Debug)]
struct Live {
    slot: u32,
    permit: Permit,
}

impl Permits {
    /// No permits yet, and room for `max`, which is brought into 1 to [`PERMITS_MAX`]. `incarnation` must exceed that of
    /// every life before.
    pub fn new(incarnation: Incarnation, max: usize) -> Self {
        Self::remembering(incarnation, max, REMEMBERED)
    }

    fn remembering(incarnation: Incarnation, max: usize, remembered: usize) -> Self {
        Self {
            incarnation,
            max: max.clamp(1, PERMITS_MAX),
            slots: Vec::new(),
            free: Vec::new(),
            live: Vec::new(),
            vacant: Vec::new(),
            deadlines: Deadlines::new(),
            evictable: Recency::new(),
            answers: Answers::new(remembered),
        }
    }

    /// How many are live.
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether none is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one more can be issued, once there is [room made](Self::make_room) for it: to be asked before anything is
    /// taken for it.
    pub fn has_room(&self) -> bool {
        self.len() < self.max || self.evictable.first().is_some()
    }

    /// Where as many are live as may be, the oldest that holds no concurrency slot ends as if its time were over, and is
    /// given back. One that holds a slot never does, because its caller still runs and the slot would be given twice.
    pub fn make_room(&mut self) -> Option<(PermitId, Permit)> {
        if self.len() < self.max { None } else { Some(self.end(self.evictable.first()?, How::Expired)) }
    }

    /// Issues a permit; `keep` one that holds a concurrency slot.
    ///
    /// # Errors
    /// [`Full`] where as many are live as may be.
    pub fn issue(&mut self, permit: Permit<&[Taken]>, keep: bool) -> Result<PermitId, Full> {
        if self.len() >= self.max {
            return Err(Full { max: self.max });
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, state: State::Free });
            self.slots.len() as u32 - 1
        });
        let place = if let Some(place) = self.vacant.pop() {
            let live = &mut self.live[place as usize];
            live.slot = slot;
            permit.write_to(&mut live.permit);
            place
        } else {
            self.live.push(Live { slot, permit: permit.owned() });
            self.live.len() as u32 - 1
        };
        self.deadlines.insert(place, permit.expires);
        if !keep {
            self.evictable.push(place);
        }
        self.slots[slot as usize].state = State::Live(place);
        Ok(self.id(slot))
    }

    /// The permit with this id, if it is live.
    pub fn get(&self, id: PermitId) -> Option<&Permit> {
        match self.slot(id)?.state {
            State::Live(place) => Some(&self.live[place as usize].permit),
            State::Free | State::Settled(_) => None,
        }
    }

    /// Ends a permit as `how`, if it has not ended yet.
    pub fn settle(&mut self, id: PermitId, how: How, now: Instant) -> Settled {
        match self.slot(id).map(|slot| slot.state) {
            Some(State::Live(place)) if self.live[place as usize].permit.expires <= now => {
                Settled::Late(self.end(place, How::Expired).1)
            }
            Some(State::Live(place)) => Settled::Now(self.end(place, how).1),
            Some(State::Settled(place)) => {
                let answer = self.answers.get(place);
                Settled::Already { how: answer.how, settlement: answer.settlement.clone() }
            }
            None if id.incarnation < self.incarnation => Settled::Former,
            None if self.was_issued(id) => Settled::Forgotten,
            Some(State::Free) | None => Settled::Unknown,
        }
    }

    /// Says what came of settling a permit, for whoever settles it again. Until then, nothing did. Without effect on a
    /// permit that is live or forgotten.
    pub fn remember(&mut self, id: PermitId, settlement: &Settlement) {
        if let Some(State::Settled(place)) = self.slot(id).map(|slot| slot.state) {
            let known = &mut self.answers.get_mut(place).settlement;
            known.keyed = settlement.keyed;
            // Most have no corrections, and a list that is cloned is copied with all the room that it has.
            known.corrections.clear();
            known.corrections.extend_from_slice(&settlement.corrections);
        }
    }

    /// Ends the permit whose time was over first, if it is over; to be called until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<(PermitId, Permit)> {
        let (expires, place) = self.deadlines.first()?;
        (expires <= now).then(|| self.end(place, How::Expired))
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.deadlines.first().map(|(expires, _)| expires)
    }

    /// The live permits, for listings: in a fixed order, but not in that of their issue. Looks at every slot.
    pub fn iter(&self) -> impl Iterator<Item = (PermitId, &Permit)> {
        self.slots.iter().zip(0..).filter_map(|(slot, number)| match slot.state {
            State::Live(place) => Some((self.id(number), &self.live[place as usize].permit)),
            State::Free | State::Settled(_) => None,
        })
    }

    /// The step from live to settled, the only one that hands out what was reserved.
    fn end(&mut self, place: u32, how: How) -> (PermitId, Permit) {
        self.deadlines.remove(place);
        self.evictable.remove(place);
        let Live { slot, permit } = &mut self.live[place as usize];
        let (slot, permit) = (*slot, Permit { taken: mem::take(&mut permit.taken), ..*permit });
        self.vacant.push(place);
        let id = self.id(slot);
        let (answer, forgotten) = self.answers.push(slot, how);
        self.slots[slot as usize].state = State::Settled(answer);
        if let Some(oldest) = forgotten {
            let forgotten = &mut self.slots[oldest as usize];
            forgotten.generation = forgotten.generation.wrapping_add(1);
            forgotten.state = State::Free;
            self.free.push(oldest);
        }
        (id, permit)
    }

    /// The slot that an id names, if it is still, or again, in the use that the id names.
    fn slot(&self, id: PermitId) -> Option<&Slot> {
        let slot = self.slots.get(id.slot as usize)?;
        (id.incarnation == self.incarnation && id.generation == slot.generation).then_some(slot)
    }

    /// Whether an id names an earlier use of its slot.
    fn was_issued(&self, id: PermitId) -> bool {
        let slot = self.slots.get(id.slot as usize);
        id.incarnation == self.incarnation && slot.is_some_and(|slot| id.generation < slot.generation)
    }

    fn id(&self, slot: u32) -> PermitId {
        let generation = self.slots[slot as usize].generation;
        PermitId { incarnation: self.incarnation, generation, slot }
    }
}

#[cfg(test)]
mod tests;
