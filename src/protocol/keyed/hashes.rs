//! Hashes of the keys that were asked for last: callers ask for the same keys again and again, and a digest costs as much as
//! the rest of a decision.

use super::KeyHash;

/// How many are kept.
const SLOTS: usize = 4_096;
/// So many next to one another take the keys that belong there, the last that came first. With one slot for each, a thousand
/// keys that are in use at once would push one another out at a tenth of all looks.
const WAYS: usize = 4;
/// The longest key whose hash is kept, in bytes: a slot is one line of the cache.
const KEPT_MAX: usize = 47;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: KeyHash,
    /// What is behind its length means nothing.
    key: [u8; KEPT_MAX],
    /// `EMPTY` where nothing is kept.
    length: u8,
}

const EMPTY: u8 = u8::MAX;

impl Slot {
    fn is_of(&self, key: &[u8]) -> bool {
        usize::from(self.length) == key.len() && self.key[..key.len()] == *key
    }
}

/// The hashes of keys of one pool.
#[derive(Clone, Debug)]
pub struct Hashes {
    pool: String,
    /// None before the first.
    slots: Vec<Slot>,
}

impl Hashes {
    /// Of keys of this pool.
    pub fn new(pool: &str) -> Self {
        Self { pool: pool.to_owned(), slots: Vec::new() }
    }

    /// The hash of `key`.
    pub fn of(&mut self, key: &[u8]) -> KeyHash {
        let length = key.len();
        if length > KEPT_MAX {
            return KeyHash::of(&self.pool, key);
        }
        if self.slots.is_empty() {
            let empty = Slot { hash: KeyHash(0), key: [0; KEPT_MAX], length: EMPTY };
            self.slots = vec![empty; SLOTS];
        }
        let place = place_of(key);
        let ways = &mut self.slots[place..place + WAYS];
        if let Some(slot) = ways.iter().find(|slot| slot.is_of(key)) {
            return slot.hash;
        }
        ways.rotate_right(1);
        let slot = &mut ways[0];
        slot.hash = KeyHash::of(&self.pool, key);
        slot.key[..length].copy_from_slice(key);
        slot.length = length as u8;
        slot.hash
    }
}

/// Where the ways of a key begin. Whoever makes keys for the same place only has them digested each time, as without this.
fn place_of(key: &[u8]) -> usize {
    let mut sum = key.len() as u64;
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        sum = mix(sum, u64::from_le_bytes(word.try_into().expect("BUG! eight are eight")));
    }
    let rest = words.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    mix(sum, rest) as usize % (SLOTS / WAYS) * WAYS
}

/// Every bit of both changes the upper half of the product, which comes down by the turn.
fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_is_what_would_be_worked_out(
            keys in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(0), Just(b'a')], 0..52), 1..200),
        ) {
            let mut hashes = Hashes::new("pool");
            for key in keys.iter().chain(&keys) {
                prop_assert_eq!(hashes.of(key), KeyHash::of("pool", key));
            }
        }
    }

    #[test]
    fn nearly_all_of_a_thousand_keys_keep_their_place() {
        let keys: Vec<String> = (0..1_000).map(|number| format!("k:{number:012}")).collect();
        let mut hashes = Hashes::new("pool");
        keys.iter().for_each(|key| _ = hashes.of(key.as_bytes()));
        let is_kept = |key: &&String| hashes.slots.iter().any(|slot| slot.is_of(key.as_bytes()));
        let kept = keys.iter().filter(is_kept).count();
        assert!(kept >= 990, "only {kept}");
    }

    #[test]
    fn keys_that_share_a_place_take_turns() {
        let keys: Vec<String> = (0..20_000).map(|number| format!("key:{number}")).collect();
        let mut hashes = Hashes::new("pool");
        for key in keys.iter().chain(keys.iter().rev()) {
            assert_eq!(hashes.of(key.as_bytes()), KeyHash::of("pool", key));
        }
        let kept = hashes.slots.iter().filter(|slot| slot.length != EMPTY).count();
        assert!(kept > SLOTS * 9 / 10, "only {kept} places are used");
    }
}
