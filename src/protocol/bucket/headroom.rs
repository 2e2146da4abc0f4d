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
            // Less room than before at the same moment: that is after whatever was taken at it.
            now = now.max(if least > room { at + Duration::from_nanos(1) } else { at });
        }
        if self.minima.len() == MINIMA_MAX {
            // The smaller room of each two of the older half stands for both, at the later moment.
            for place in 0..MINIMA_MAX / 4 {
                self.minima[place] = (self.minima[2 * place + 1].0, self.minima[2 * place].1);
            }
            self.minima.drain(MINIMA_MAX / 4..MINIMA_MAX / 2);
        }
        // Never before what is known: the smaller room of one moment may have been put after it.
        let now = self.minima.last().map_or(now, |(at, _)| now.max(*at));
        self.minima.push((now, room));
    }

    /// What was taken at `since` is back in part: so much less room there would have been ever since. Without this the same
    /// moment at which a bucket was nearly full would let one refund after the other pass.
    ///
    /// # Panics
    /// If it is more than the [least room](Self::least_since) since then.
    pub fn fill(&mut self, since: Instant, room: u128) {
        let Some(place) = self.place_since(since) else { return };
        self.minima[place..].iter_mut().for_each(|(_, least)| *least -= room);
        let least = self.minima[place].1;
        let kept = self.minima[..place].partition_point(|(_, earlier)| *earlier < least);
        self.minima.drain(kept..place);
    }

    /// The least room since something was taken at `since`; nothing if none was noted since.
    pub fn least_since(&self, since: Instant) -> u128 {
        self.place_since(since).map_or(0, |place| self.minima[place].1)
    }

    /// What was noted first after that moment. If nothing was, what was noted last at it: less room at the same moment is
    /// noted as later, but for what [`fill`](Self::fill) left, so nothing but taking came between.
    fn place_since(&self, since: Instant) -> Option<usize> {
        let place = self.minima.partition_point(|(at, _)| *at <= since);
        let last = self.minima.len().checked_sub(1)?;
        if place <= last { Some(place) } else { (self.minima[last].0 == since).then_some(last) }
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
            let after = all.iter().filter(|(at, _)| *at > since).map(|(_, room)| *room).min();
            let last = all.last().filter(|(at, _)| *at == since).map(|(_, room)| *room);
            let least = after.or(last).unwrap_or(0);
            let said = headroom.least_since(Instant::from_nanos(since));
            prop_assert!(said <= least);
            if all.len() <= MINIMA_MAX {
                prop_assert_eq!(said, least);
            }
        }
    }
}
