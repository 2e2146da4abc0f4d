//! Short forms of what is known, by which nodes see whether and where they know different things.

use std::collections::BTreeMap;

use super::BUCKETS;
use crate::protocol::id::{Incarnation, NodeId};

/// A hash of all that is known, in parts and as a whole, kept up with every change: sums, so that the order of changes
/// does not matter.
#[derive(Clone, Debug)]
pub(super) struct Hashes {
    of_author: BTreeMap<NodeId, u64>,
    of_bucket: [u64; BUCKETS],
}

impl Hashes {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self { of_author: BTreeMap::new(), of_bucket: [0; BUCKETS] }
    }

    /// Of an author these lives are known, each up to a version, with this hash of what is known of it.
    pub(super) fn set(&mut self, author: NodeId, lives: impl Iterator<Item = (Incarnation, u64, u32)>) {
        let of_life = |(life, version, sum): (Incarnation, u64, u32)| {
            mix(mix(mix(mix_author(&author) ^ life.0) ^ version) ^ u64::from(sum))
        };
        let hash = lives.map(of_life).fold(0, u64::wrapping_add);
        let known = self.of_author.insert(author, hash).unwrap_or(0);
        let bucket = &mut self.of_bucket[bucket(&author)];
        *bucket = bucket.wrapping_sub(known).wrapping_add(hash);
    }

    /// Of all that is known.
    pub(super) fn of_all(&self) -> u64 {
        self.of_bucket.iter().fold(0, |sum, hash| sum.wrapping_add(*hash))
    }

    /// Of each bucket.
    pub(super) fn of_buckets(&self) -> Vec<u32> {
        self.of_bucket.iter().map(|hash| *hash as u32).collect()
    }
}

/// How well two nodes suit each other as neighbours: random, the same for both, lower is better.
pub fn affinity(one: &NodeId, other: &NodeId) -> u64 {
    mix(mix_author(one) ^ mix_author(other))
}

/// In which part an author's pages are.
pub(super) fn bucket(author: &NodeId) -> usize {
    (mix_author(author) >> (64 - BUCKETS.trailing_zeros())) as usize
}

fn mix_author(author: &NodeId) -> u64 {
    author
        .0
        .chunks_exact(8)
        .fold(0, |hash, word| mix(hash ^ word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))))
}

/// The finalizer of `SplitMix64` (Steele et al. 2014). Collisions delay a repair until the next change; nobody gains by
/// making one.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u8) -> NodeId {
        NodeId([id; 32])
    }

    fn known(lives: &[(u8, u64, u64)]) -> Hashes {
        let mut hashes = Hashes::new();
        for (id, life, version) in lives {
            hashes.set(node(*id), [(Incarnation(*life), *version, 5)].into_iter());
        }
        hashes
    }

    #[test]
    fn what_is_known_counts_and_not_how_it_came() {
        let hashes = known(&[(1, 1, 1), (2, 1, 4), (1, 1, 3)]);
        let same = known(&[(1, 1, 3), (2, 1, 4)]);
        assert_eq!((hashes.of_all(), hashes.of_buckets()), (same.of_all(), same.of_buckets()));
        for other in
            [&[(1, 1, 3)][..], &[(1, 1, 3), (2, 1, 5)], &[(1, 2, 3), (2, 1, 4)], &[(1, 1, 4), (2, 1, 3)]]
        {
            assert_ne!(hashes.of_all(), known(other).of_all(), "{other:?}");
        }
    }

    #[test]
    fn a_change_shows_in_its_authors_bucket_alone() {
        let (before, after) = (known(&[(1, 1, 1)]).of_buckets(), known(&[(1, 1, 2)]).of_buckets());
        let differing: Vec<usize> = (0..BUCKETS).filter(|place| before[*place] != after[*place]).collect();
        assert_eq!(differing, [bucket(&node(1))]);
    }

    #[test]
    fn authors_are_spread_over_the_buckets() {
        let mut count = [0; BUCKETS];
        (0..=u8::MAX).for_each(|id| count[bucket(&node(id))] += 1);
        // Four each on the average.
        assert!(count.iter().all(|count| *count <= 16), "{count:?}");
    }

    #[test]
    fn two_nodes_suit_each_other_alike() {
        assert_eq!(affinity(&node(1), &node(2)), affinity(&node(2), &node(1)));
        assert_ne!(affinity(&node(1), &node(2)), affinity(&node(1), &node(3)));
    }
}
