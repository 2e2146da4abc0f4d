//! What several nodes think is used unreported, made into one number.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::id::NodeId;
use super::super::time::Instant;
use super::RESERVE_MAX;

/// How long an estimate counts after it was heard.
pub const FRESH: Duration = Duration::from_secs(30);
/// The most nodes whose estimates are kept.
const AUTHORS_MAX: usize = 1_024;

/// What a node publishes of one limit, as long as it hears from the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// The part of the limit to take out, in millionths.
    pub reserve: u32,
    /// Measurements behind it: one that does not change while this grows is still fresh.
    pub samples: u64,
}

/// The estimates of all nodes for one limit.
///
/// What counts is their median, each weighed by its author's base share. Each estimate is a lower bound of the same
/// use, so the greatest would be the sharpest; but then any member could take nine tenths of a limit from all others
/// with one number. With the median it needs half the weight of those that observe.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    by_author: BTreeMap<NodeId, (Estimate, Instant)>,
}

impl Estimates {
    /// Takes up what a node published, or this node's own estimate. One that has no new measurement changes nothing.
    pub fn hear(&mut self, author: NodeId, estimate: Estimate, now: Instant) {
        let known = self.by_author.get(&author);
        // Fewer samples: another life, which had none.
        let is_news = known.is_none_or(|(known, _)| known.samples != estimate.samples);
        if !is_news {
            return;
        }
        if known.is_none() && self.by_author.len() >= AUTHORS_MAX {
            self.by_author.retain(|_, (_, heard)| now.since(*heard) < FRESH);
            if self.by_author.len() >= AUTHORS_MAX {
                return;
            }
        }
        let reserve = estimate.reserve.min(RESERVE_MAX);
        self.by_author.insert(author, (Estimate { reserve, ..estimate }, now));
    }

    /// The part of the limit to take out, in millionths; none if nobody has heard from the provider lately. `weight`
    /// is a node's base share in parts; nodes without any share one part of weight each.
    pub fn agreed(&self, weight: impl Fn(&NodeId) -> u64, now: Instant) -> u32 {
        let fresh = self.by_author.iter().filter(|(_, (_, heard))| now.since(*heard) < FRESH);
        let mut weighed: Vec<_> = fresh
            .map(|(author, (estimate, _))| (estimate.reserve, u128::from(weight(author).max(1))))
            .collect();
        weighed.sort_unstable();
        let half = weighed.iter().map(|(_, weight)| weight).sum::<u128>().div_ceil(2);
        let mut below = 0;
        for (reserve, weight) in weighed {
            below += weight;
            if below >= half {
                return reserve;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u8) -> NodeId {
        NodeId([id; 32])
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn estimates(reserves: &[u32]) -> Estimates {
        let mut all = Estimates::default();
        for (id, reserve) in reserves.iter().enumerate() {
            all.hear(node(id as u8), Estimate { reserve: *reserve, samples: 1 }, at(0));
        }
        all
    }

    #[test]
    fn half_the_weight_is_needed_to_move_the_median() {
        assert_eq!(estimates(&[]).agreed(|_| 1, at(0)), 0);
        assert_eq!(estimates(&[300_000]).agreed(|_| 0, at(0)), 300_000, "one observer is enough");
        assert_eq!(estimates(&[0, 900_000]).agreed(|_| 1, at(0)), 0, "the lower of two");
        assert_eq!(estimates(&[300_000, 310_000, u32::MAX]).agreed(|_| 1, at(0)), 310_000);
        let rich = |id: &NodeId| if *id == node(2) { 9 } else { 4 };
        assert_eq!(estimates(&[300_000, 310_000, u32::MAX]).agreed(rich, at(0)), RESERVE_MAX);
    }

    #[test]
    fn an_estimate_counts_as_long_as_it_is_fresh() {
        let mut all = estimates(&[300_000]);
        all.hear(node(0), Estimate { reserve: 400_000, samples: 1 }, at(20));
        assert_eq!(all.agreed(|_| 1, at(29)), 300_000, "no new measurement");
        assert_eq!(all.agreed(|_| 1, at(30)), 0);
        all.hear(node(0), Estimate { reserve: 300_000, samples: 2 }, at(31));
        assert_eq!(all.agreed(|_| 1, at(60)), 300_000);
    }
}
