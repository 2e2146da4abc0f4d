//! The least room that a leaky bucket has had since a moment: what a late refund may still bring back.

use std::time::Duration;

use crate::protocol::time::Instant;

/// So many minima are kept; with more, neighbours are joined into the smaller.
const MINIMA_MAX: usize = 64;

/// The minima of a bucket's room, each the least since its moment: a stack in which both times and rooms grow.
///
/// Had a call taken `x` less at `t`, the bucket would have had `x` more ever since, as far as it had room for it: what did
/// not fit at some moment overflowed. So a refund of `x` at a later moment may bring at most the least room since `t`. To
/// give it all back would let a bucket that was full meanwhile spend the same units twice.
#[derive(Clone, Debug, Default)]
pub struct Headroom {
    minima: Vec<(Instant, u128)>,
}

impl Headroom {
    /// The room is so much at `now`.
    pub fn note(&mut self, mut now: Instant, room: u128) {
        while let Some((at, least)) = self.minima.last().copied().filter(|(_, least)| *least >= room) {
            self.minima.pop();
            if least > room {
                // Less room than before at the same moment: that is after whatever was taken at it.
                now = now.max(at + Duration::from_nanos(1));
            }
        }
        if self.minima.len() == MINIMA_MAX {
            // The smaller room of each two of the older half stands for both, at the later moment.
            for place in 0..MINIMA_MAX / 4 {
                self.minima[place] = (self.minima[2 * place + 1].0, self.minima[2 * place].1);
            }
            self.minima.drain(MINIMA_MAX / 4..MINIMA_MAX / 2);
        }
        self.minima.push((now, room));
    }

    /// What was taken at `since` is back in part: so much less room there would have been ever since. Without this the same
    /// moment at which a bucket was nearly full would let one refund after the other pass.
    ///
    /// # Panics
    /// If it is more than the [least room](Self::least_since) since then.
    pub fn fill(&mut self, since: Instant, room: u128) {
        let place = self.minima.partition_point(|(at, _)| *at <= since);
        self.minima[place..].iter_mut().for_each(|(_, least)| *least -= room);
        let Some((_, least)) = self.minima.get(place).copied() else { return };
        let kept = self.minima[..place].partition_point(|(_, earlier)| *earlier < least);
        self.minima.drain(kept..place);
    }

    /// The least room that was noted after `since`; nothing if nothing was.
    pub fn least_since(&self, since: Instant) -> u128 {
        let place = self.minima.partition_point(|(at, _)| *at <= since);
        self.minima.get(place).map_or(0, |(_, room)| *room)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_least_of_all_or_less(
            rooms in proptest::collection::vec((0u64..5, 0u128..1_000), 1..400), since in 0u64..1_000,
        ) {
            let (mut headroom, mut all, mut now) = (Headroom::default(), Vec::new(), 0);
            for (pause, room) in rooms {
                now += pause;
                now += 1;
                headroom.note(Instant::from_nanos(now), room);
                all.push((now, room));
            }
            let least = all.iter().filter(|(at, _)| *at > since).map(|(_, room)| *room).min().unwrap_or(0);
            let said = headroom.least_since(Instant::from_nanos(since));
            prop_assert!(said <= least);
            if all.len() <= MINIMA_MAX {
                prop_assert_eq!(said, least);
            }
        }
    }
}
