//! Hashes of the keys that were asked for last: callers ask for the same keys again and again, and a digest costs as much as
//! the rest of a decision.

use super::KeyHash;

/// How many are kept. Of a thousand keys in use nine tenths find theirs.
const SLOTS: usize = 4_096;
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

/// The hashes of keys of one pool.
#[derive(Clone, Debug)]
pub struct Hashes {
    pool: &'static str,
    /// None before the first.
    slots: Vec<Slot>,
}

impl Hashes {
    /// Of keys of this pool.
    pub fn new(pool: &'static str) -> Self {
        Self { pool, slots: Vec::new() }
    }

    /// The hash of `key`.
    pub fn of(&mut self, key: &[u8]) -> KeyHash {
        let length = key.len();
        if length > KEPT_MAX {
            return KeyHash::of(self.pool, key);
        }
        if self.slots.is_empty() {
            let empty = Slot { hash: KeyHash(0), key: [0; KEPT_MAX], length: EMPTY };
            self.slots = vec![empty; SLOTS];
        }
        let slot = &mut self.slots[place_of(key)];
        if usize::from(slot.length) != length || slot.key[..length] != *key {
            slot.hash = KeyHash::of(self.pool, key);
            slot.key[..length].copy_from_slice(key);
            slot.length = length as u8;
        }
        slot.hash
    }
}

/// Where a key is kept. Whoever makes keys for the same place only has them digested each time, as without this.
fn place_of(key: &[u8]) -> usize {
    let mut sum = key.len() as u64;
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        sum = mix(sum, u64::from_le_bytes(word.try_into().expect("BUG! eight are eight")));
    }
    let rest = words.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    mix(sum, rest) as usize % SLOTS
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
