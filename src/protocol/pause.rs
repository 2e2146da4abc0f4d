//! Pauses: everybody stops calling for a pool, until a moment or until somebody resumes it.
//!
//! Each node writes at most two [`PauseMark`]s per pool on its page, one per [`PauseReason`]. Everybody keeps the
//! greatest mark of each author, so the marks are a map of last-writer-wins registers (Shapiro et al. 2011) and merge
//! in any order. What counts is computed from the map alone:
//!
//! - the operators' mark with the greatest (stamp, author) says whether the pool is paused or resumed;
//! - marks of throttled callers only add up: the one that ends last counts, and none of them shortens or replaces
//!   what an operator said. A resume voids those with smaller stamps.
//!
//! **Stamps** are Lamport's (1978): greater than every one heard, so whoever has seen a pause can undo it. A liar
//! with the greatest stamp there is would have the last word for ever. So a mark counts only if its stamp is at most
//! [`STEP_MAX`] above the next smaller stamp of the pool (the smallest: above zero). An author's mark replaces its
//! former one, so *k* liars reach at most *k* steps above the greatest honest stamp, and the next honest mark is one
//! above theirs. With [`AUTHORS_MAX`] liars, honest nodes would have to answer 2²² times before the stamps run out.
//! Honest stamps alone stay below one step, and all of them count.
//!
//! **Time.** `until` is read off the author's wall clock, so a pause ends early or late by as much as the clocks
//! differ. Whatever it says, a mark ends [`PAUSE_MAX`] or [`THROTTLE_MAX`] after it was first heard; only a mark
//! without an end has none. This bound is each node's own and no part of what is merged.
//!
//! A member can pause a pool again and again: that is seen in [`Paused::by`], and is a matter of membership.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::NodeId;
use super::limit::Fingerprint;

/// The longest pause with an end: 7 days. An operator who wants more pauses without an end.
pub const PAUSE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The longest pause because a caller was throttled: 10 minutes. A provider that asks for more is asked again.
pub const THROTTLE_MAX: Duration = Duration::from_secs(10 * 60);
/// The most authors whose marks are kept for a pool: those with the greatest stamps.
pub const AUTHORS_MAX: usize = 1_024;
/// How far a stamp may be above the next smaller one and count. See the [module](self).
pub const STEP_MAX: u64 = 1 << 32;

/// A throttled caller is news only if it must wait for so many milliseconds longer than is known: many callers are
/// throttled at once, each a little later than the other, and the spreading after a pause is coarser.
const THROTTLE_GRAIN: i64 = 250;
/// The least time over which calls are spread after a pause.
const RAMP_MIN: Duration = Duration::from_secs(1);

/// Why a pool is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PauseReason {
    /// Somebody said so.
    Operator,
    /// The provider told a caller to come back later.
    Throttled,
}

/// What one author says of one pool, for one reason. The greater of two marks is the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PauseMark {
    /// Greater than every stamp that the author had heard for the pool.
    pub stamp: u64,
    /// Paused, or resumed.
    pub paused: bool,
    /// When the pause ends, in Unix milliseconds by the author's wall clock; none: when it is resumed.
    pub until: Option<i64>,
    /// Why. A page has one mark for each reason.
    pub reason: PauseReason,
}

/// How a pool is paused now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paused {
    /// How much longer, by this node's wall clock; none: until it is resumed.
    pub left: Option<Duration>,
    /// How long it is in all, as of when it was first heard; none: until it is resumed. For [`stagger`].
    pub length: Option<Duration>,
    /// Why; an operator's pause hides one that is there because of throttling.
    pub reason: PauseReason,
    /// Whose mark counts.
    pub by: NodeId,
    /// That mark's stamp, for [`stagger`].
    pub stamp: u64,
}

/// The marks of all authors for the pools of one node.
#[derive(Clone, Debug)]
pub struct Pauses {
    pools: BTreeMap<Fingerprint, Marks>,
}

impl Pauses {
    /// Nothing is paused. Marks for pools that are not among these (named by a digest of the pool's name) are
    /// ignored.
    pub fn new(pools: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self { pools: pools.into_iter().map(|pool| (pool, Marks::default())).collect() }
    }

    /// Takes up what an author says, at `wall_now` (Unix milliseconds). Gives back whether it was news.
    pub fn merge(&mut self, author: NodeId, pool: Fingerprint, mark: PauseMark, wall_now: i64) -> bool {
        self.pools.get_mut(&pool).is_some_and(|marks| marks.merge(author, mark, wall_now))
    }

    /// Pauses a pool for `length`, at most [`PAUSE_MAX`], or until it is resumed. Gives back the mark to publish;
    /// none if there is no such pool.
    pub fn pause(
        &mut self,
        me: NodeId,
        pool: Fingerprint,
        length: Option<Duration>,
        wall_now: i64,
    ) -> Option<PauseMark> {
        let until = length.map(|length| after(wall_now, length.min(PAUSE_MAX)));
        self.pools.get_mut(&pool)?.write(me, true, until, PauseReason::Operator, wall_now)
    }

    /// Ends every pause of a pool that is known here, whatever its reason. Gives back the mark to publish; none if
    /// there is no such pool.
    pub fn resume(&mut self, me: NodeId, pool: Fingerprint, wall_now: i64) -> Option<PauseMark> {
        self.pools.get_mut(&pool)?.write(me, false, None, PauseReason::Operator, wall_now)
    }

    /// A caller was told to come back after `length`, of which at most [`THROTTLE_MAX`] counts. Gives back the mark
    /// to publish; none if the pool is paused for about as long already, or there is no such pool.
    pub fn throttle(
        &mut self,
        me: NodeId,
        pool: Fingerprint,
        length: Duration,
        wall_now: i64,
    ) -> Option<PauseMark> {
        let marks = self.pools.get_mut(&pool)?;
        let until = after(wall_now, length.min(THROTTLE_MAX));
        let news = match marks.state(wall_now) {
            None => until > wall_now,
            Some(Paused { left: None, .. }) => false,
            Some(Paused { left: Some(left), .. }) => {
                until > after(wall_now, left).saturating_add(THROTTLE_GRAIN)
            }
        };
        if !news {
            return None;
        }
        marks.write(me, true, Some(until), PauseReason::Throttled, wall_now)
    }

    /// Repeats the operators' mark that counts as one's own, with the stamp that it has, for when its author left or
    /// begins another life: its page is then void, and newcomers would not hear of it. None if no operator said
    /// anything, if the pause is over, or if it is one's own already.
    pub fn carry(&mut self, me: NodeId, pool: Fingerprint, wall_now: i64) -> Option<PauseMark> {
        let marks = self.pools.get_mut(&pool)?;
        let (author, said) = marks.operator?;
        let over = said.mark.paused && said.ends.is_some_and(|ends| ends <= wall_now);
        (author != me && !over && marks.merge(me, said.mark, wall_now)).then_some(said.mark)
    }

    /// How a pool is paused at `wall_now` (Unix milliseconds); none if it is not.
    pub fn state(&self, pool: Fingerprint, wall_now: i64) -> Option<Paused> {
        self.pools.get(&pool)?.state(wall_now)
    }
}

/// How long after the end of a pause a node begins to call again, so that not all do at once: its place among all
/// members, as a part of the ramp of a tenth of the pause and at least a second. Each node's calls belong into the
/// ramp's part that follows. `stamp` is the pause's, so that another node is the first each time.
pub fn stagger(
    me: NodeId,
    others: impl IntoIterator<Item = NodeId>,
    length: Option<Duration>,
    stamp: u64,
) -> Duration {
    let (mut rank, mut nodes) = (0_u64, 1_u64);
    for other in others.into_iter().filter(|other| *other != me) {
        nodes += 1;
        rank += u64::from(other < me);
    }
    let ramp = length.map_or(RAMP_MIN, |length| (length / 10).max(RAMP_MIN)).min(PAUSE_MAX);
    let place = (rank + stamp % nodes) % nodes;
    let nanos = ramp.as_nanos() * u128::from(place) / u128::from(nodes);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A mark, with what this node makes of its end.
#[derive(Clone, Copy, Debug)]
struct Said {
    mark: PauseMark,
    heard: i64,
    ends: Option<i64>,
}

/// The marks for one pool.
#[derive(Clone, Debug, Default)]
struct Marks {
    by_author: BTreeMap<(NodeId, PauseReason), Said>,
    /// The greatest stamp that counts.
    stamp: u64,
    /// The operators' mark that counts.
    operator: Option<(NodeId, Said)>,
    /// Of the throttled callers' marks that count, the one that ends last.
    throttled: Option<(NodeId, Said)>,
}

impl Marks {
    fn merge(&mut self, author: NodeId, mark: PauseMark, wall_now: i64) -> bool {
        let place = (author, mark.reason);
        if self.by_author.get(&place).is_some_and(|known| known.mark >= mark) {
            return false;
        }
        let longest = longest(mark.reason);
        let ends = match (mark.until, mark.reason) {
            (None, PauseReason::Operator) => None,
            (until, _) => Some(until.unwrap_or(i64::MAX).min(after(wall_now, longest))),
        };
        self.by_author.insert(place, Said { mark, heard: wall_now, ends });
        let mut kept = true;
        if self.by_author.len() > 2 * AUTHORS_MAX {
            // The least of all that were ever heard, in whatever order: so the rest is the same everywhere.
            let least = self.by_author.iter().min_by_key(|((author, _), said)| (said.mark, *author));
            let least = *least.expect("BUG! there are some").0;
            self.by_author.remove(&least);
            kept = least != place;
        }
        self.count();
        kept
    }

    fn write(
        &mut self,
        me: NodeId,
        paused: bool,
        until: Option<i64>,
        reason: PauseReason,
        wall_now: i64,
    ) -> Option<PauseMark> {
        let own = self.by_author.get(&(me, reason)).map_or(0, |said| said.mark.stamp);
        let stamp = self.stamp.max(own).saturating_add(1);
        let mark = PauseMark { stamp, paused, until, reason };
        self.merge(me, mark, wall_now).then_some(mark)
    }

    /// Finds out which marks count.
    fn count(&mut self) {
        let mut marks: Vec<_> =
            self.by_author.iter().map(|((author, _), said)| (said.mark.stamp, *author, *said)).collect();
        marks.sort_unstable_by_key(|(stamp, author, said)| (*stamp, *author, said.mark.reason));
        self.stamp = 0;
        let mut counting = 0;
        for (stamp, _, _) in &marks {
            if stamp - self.stamp > STEP_MAX {
                break;
            }
            self.stamp = *stamp;
            counting += 1;
        }
        marks.truncate(counting);
        let said_by = |reason| {
            move |(stamp, author, said): &(u64, NodeId, Said)| {
                (said.mark.reason == reason).then_some((*stamp, *author, *said))
            }
        };
        let operator = marks.iter().rev().find_map(said_by(PauseReason::Operator));
        let resumed = operator.filter(|(_, _, said)| !said.mark.paused);
        let voided = resumed.map(|(stamp, author, _)| (stamp, author));
        let throttled = marks.iter().filter_map(said_by(PauseReason::Throttled));
        self.throttled = throttled
            .filter(|(stamp, author, said)| {
                said.mark.paused && voided.is_none_or(|void| (*stamp, *author) > void)
            })
            .max_by_key(|(stamp, author, said)| (said.ends, *stamp, *author))
            .map(|(_, author, said)| (author, said));
        self.operator = operator.map(|(_, author, said)| (author, said));
    }

    fn state(&self, wall_now: i64) -> Option<Paused> {
        let lasts = |said: &Said| said.mark.paused && said.ends.is_none_or(|ends| ends > wall_now);
        let operator = self.operator.filter(|(_, said)| lasts(said));
        let throttled = self.throttled.filter(|(_, said)| lasts(said));
        let (by, said) = operator.or(throttled)?;
        let later = throttled.filter(|(_, other)| said.ends.is_some_and(|ends| other.ends > Some(ends)));
        let last = later.map_or(said, |(_, other)| other);
        // A wall clock that was set back must not make a pause longer than any may be.
        let from = |moment: i64| last.ends.map(|ends| between(moment, ends).min(longest(last.mark.reason)));
        Some(Paused {
            left: from(wall_now),
            length: from(last.heard),
            reason: said.mark.reason,
            by,
            stamp: said.mark.stamp,
        })
    }
}

fn longest(reason: PauseReason) -> Duration {
    match reason {
        PauseReason::Operator => PAUSE_MAX,
        PauseReason::Throttled => THROTTLE_MAX,
    }
}

fn after(wall: i64, length: Duration) -> i64 {
    wall.saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX))
}

fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POOL: Fingerprint = Fingerprint(7);
    const NOW: i64 = 1_800_000_000_000;

    fn node(id: u8) -> NodeId {
        NodeId([id; 32])
    }

    fn pauses() -> Pauses {
        Pauses::new([POOL])
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn reason(pauses: &Pauses, wall_now: i64) -> Option<PauseReason> {
        pauses.state(POOL, wall_now).map(|paused| paused.reason)
    }

    #[test]
    fn a_pause_reaches_others_ends_by_itself_and_can_be_resumed_by_anybody() {
        let (mut one, mut other) = (pauses(), pauses());
        let mark = one.pause(node(1), POOL, Some(seconds(60)), NOW).unwrap();
        assert!(other.merge(node(1), POOL, mark, NOW + 500));
        assert!(!other.merge(node(1), POOL, mark, NOW + 600), "heard twice");
        let paused = other.state(POOL, NOW + 1_000).unwrap();
        assert_eq!((paused.left, paused.by), (Some(seconds(59)), node(1)));
        assert_eq!(other.state(POOL, NOW + 60_000), None);

        let mark = other.resume(node(2), POOL, NOW + 2_000).unwrap();
        one.merge(node(2), POOL, mark, NOW + 2_000);
        assert_eq!(one.state(POOL, NOW + 2_000), None);
        one.pause(node(1), POOL, None, NOW + 3_000);
        assert_eq!(one.state(POOL, i64::MAX).unwrap().left, None, "until resumed");
        assert_eq!(one.pause(node(1), Fingerprint(8), None, NOW), None, "no such pool");
    }

    #[test]
    fn throttling_only_adds_to_what_an_operator_said() {
        let mut all = pauses();
        all.pause(node(1), POOL, Some(seconds(10)), NOW);
        assert_eq!(all.throttle(node(2), POOL, seconds(10), NOW), None, "covered");
        assert!(all.throttle(node(2), POOL, seconds(30), NOW).is_some());
        assert!(all.throttle(node(3), POOL, seconds(20), NOW).is_none(), "covered by the longer");
        let paused = all.state(POOL, NOW).unwrap();
        assert_eq!((paused.reason, paused.left), (PauseReason::Operator, Some(seconds(30))));
        assert_eq!(reason(&all, NOW + 15_000), Some(PauseReason::Throttled));
        all.resume(node(1), POOL, NOW + 15_000);
        assert_eq!(reason(&all, NOW + 15_000), None, "what the operator knew is over");
        assert!(all.throttle(node(2), POOL, seconds(5), NOW + 15_000).is_some());
        assert_eq!(reason(&all, NOW + 16_000), Some(PauseReason::Throttled), "what came later is not");
    }

    #[test]
    fn absurd_ends_are_cut() {
        let mut all = pauses();
        let throttled =
            PauseMark { stamp: 1, paused: true, until: Some(i64::MAX), reason: PauseReason::Throttled };
        all.merge(node(1), POOL, throttled, NOW);
        assert_eq!(all.state(POOL, NOW).unwrap().left, Some(THROTTLE_MAX));
        assert!(!all.merge(node(1), POOL, throttled, NOW + 300_000), "hearing it again does not prolong it");
        assert_eq!(all.state(POOL, NOW + 600_000), None);
        all.merge(node(1), POOL, PauseMark { stamp: 2, until: None, ..throttled }, NOW);
        assert_eq!(all.state(POOL, NOW - 3_600_000).unwrap().left, Some(THROTTLE_MAX), "clock set back");
        all.merge(node(1), POOL, PauseMark { reason: PauseReason::Operator, ..throttled }, NOW);
        assert_eq!(all.state(POOL, NOW).unwrap().left, Some(PAUSE_MAX));
    }

    #[test]
    fn no_stamp_is_unbeatable() {
        let lie = |stamp| PauseMark { stamp, paused: true, until: None, reason: PauseReason::Operator };
        let mut all = pauses();
        all.merge(node(9), POOL, lie(u64::MAX), NOW);
        assert_eq!(all.state(POOL, NOW), None, "too far ahead to count");
        // Two liars on each other's shoulders, as far as they get.
        all.merge(node(9), POOL, lie(u64::MAX - 1), NOW);
        all.merge(node(8), POOL, lie(STEP_MAX), NOW);
        assert!(all.state(POOL, NOW).is_some());
        let resume = all.resume(node(1), POOL, NOW).unwrap();
        assert_eq!((resume.stamp, all.state(POOL, NOW)), (STEP_MAX + 1, None));
        all.merge(node(8), POOL, lie(2 * STEP_MAX), NOW);
        all.resume(node(1), POOL, NOW);
        assert_eq!(all.state(POOL, NOW), None);
    }

    #[test]
    fn what_an_author_of_a_former_life_said_is_carried_on_and_can_still_be_undone() {
        let (mut one, mut late) = (pauses(), pauses());
        let mark = one.pause(node(1), POOL, None, NOW).unwrap();
        assert_eq!(one.carry(node(1), POOL, NOW), None, "one's own");
        assert_eq!(one.carry(node(2), POOL, NOW), Some(mark));
        late.merge(node(2), POOL, mark, NOW);
        assert!(late.state(POOL, NOW).is_some());
        let resume = late.resume(node(3), POOL, NOW).unwrap();
        one.merge(node(3), POOL, resume, NOW);
        assert_eq!(one.state(POOL, NOW), None);
    }

    #[test]
    fn marks_are_bounded() {
        let mut all = pauses();
        for stamp in 1..=2 * AUTHORS_MAX as u64 + 10 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&stamp.to_be_bytes());
            let mark = PauseMark { stamp, paused: true, until: None, reason: PauseReason::Operator };
            all.merge(NodeId(id), POOL, mark, NOW);
        }
        assert_eq!(all.pools[&POOL].by_author.len(), 2 * AUTHORS_MAX);
        assert!(all.resume(node(1), POOL, NOW).is_some(), "a new mark always has room");
        assert_eq!(all.state(POOL, NOW), None);
    }

    #[test]
    fn wake_ups_are_spread_and_take_turns() {
        let nodes: Vec<_> = (0..10).map(node).collect();
        let offsets = |length, stamp| -> Vec<_> {
            nodes.iter().map(|me| stagger(*me, nodes.iter().copied(), length, stamp)).collect()
        };
        let mut minute = offsets(Some(seconds(60)), 3);
        assert_eq!(minute[7], Duration::ZERO, "the first is another one each time");
        minute.sort_unstable();
        let even: Vec<_> = (0..10).map(|place| Duration::from_millis(600 * place)).collect();
        assert_eq!(minute, even);
        assert_eq!(offsets(None, 0)[9], Duration::from_millis(900));
        assert_eq!(stagger(node(1), [], Some(PAUSE_MAX), u64::MAX), Duration::ZERO);
    }

    fn marks() -> impl Strategy<Value = (NodeId, PauseMark)> {
        let stamp = prop_oneof![0..8_u64, Just(STEP_MAX), Just(3 * STEP_MAX), Just(u64::MAX)];
        let until =
            prop_oneof![Just(None), (-5..5_i64).prop_map(|by| Some(NOW + by * 1_000)), Just(Some(i64::MAX))];
        let reason = prop_oneof![Just(PauseReason::Operator), Just(PauseReason::Throttled)];
        (0..4_u8, stamp, any::<bool>(), until, reason).prop_map(|(id, stamp, paused, until, reason)| {
            (node(id), PauseMark { stamp, paused, until, reason })
        })
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            heard in proptest::collection::vec(marks(), 0..20), shuffle in any::<u64>(),
        ) {
            let merged = |marks: &[(NodeId, PauseMark)]| {
                let mut all = pauses();
                for (author, mark) in marks {
                    all.merge(*author, POOL, *mark, NOW);
                }
                let of: Vec<_> = all.pools[&POOL].by_author.iter().map(|(key, said)| (*key, said.mark)).collect();
                let states: Vec<_> = (-6..6).map(|by| all.state(POOL, NOW + by * 1_000)).collect();
                (of, states, all.pools[&POOL].stamp)
            };
            let mut other = heard.clone();
            let mut seed = shuffle;
            for place in (1..other.len()).rev() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                other.swap(place, (seed >> 33) as usize % (place + 1));
            }
            other.extend_from_slice(&heard);
            prop_assert_eq!(merged(&heard), merged(&other));
        }

        #[test]
        fn an_operator_always_has_the_last_word(
            heard in proptest::collection::vec(marks(), 0..20), pause in any::<bool>(),
        ) {
            let mut all = pauses();
            for (author, mark) in &heard {
                all.merge(*author, POOL, *mark, NOW);
            }
            // The author itself said nothing absurd.
            let me = node(9);
            if pause {
                all.pause(me, POOL, None, NOW);
                prop_assert_eq!(all.state(POOL, NOW).map(|paused| (paused.by, paused.left)), Some((me, None)));
            } else {
                all.resume(me, POOL, NOW);
                prop_assert_eq!(all.state(POOL, NOW), None);
            }
        }
    }
}
