//! Where the keys of one pool are kept: a dense array that is swept by place, and a hash table over it.
//!
//! The chains of the hash table run through the entries, and their heads are as many as there may be keys. So nothing is
//! rehashed, unless the configuration says that there may be more, and a forgotten key leaves no tombstone: no call takes
//! longer than its chain, where a general map stops for all of its entries now and then. The heads are there from the first
//! key on, and zeros until a key needs one, which costs address space and no memory. A key's digest is its hash: whoever wants `n` keys in one chain must compute `n`
//! times as many SHA-256 digests as there are heads.

use super::{Balance, KeyHash};
use crate::protocol::time::Instant;

/// One key; its balances are beside it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: KeyHash,
    /// When the balances were true.
    at: Instant,
    /// The next entry of the chain.
    next: Link,
}

/// A place plus one, or zero for none.
type Link = u32;

/// Keys with one balance per limit each.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// None before the first key, then `size`.
    heads: Vec<Link>,
    /// A power of two.
    size: usize,
    entries: Vec<Entry>,
    /// Those of the entry at place `p` begin at `p × width`.
    balances: Vec<Balance>,
    width: usize,
}

impl Table {
    /// Room for `keys_max` keys of `width` limits each. `keys_max` is less than 2³².
    pub(super) fn new(keys_max: usize, width: usize) -> Self {
        Self {
            heads: Vec::new(),
            size: keys_max.next_power_of_two(),
            entries: Vec::new(),
            balances: Vec::new(),
            width,
        }
    }

    /// Makes room for so many keys; takes as long as there are entries.
    pub(super) fn grow(&mut self, keys_max: usize) {
        let size = keys_max.next_power_of_two();
        if size <= self.size {
            return;
        }
        self.size = size;
        if self.heads.is_empty() {
            return;
        }
        self.heads = vec![0; size];
        for place in 0..self.entries.len() {
            let head = self.head_of(self.entries[place].key);
            self.entries[place].next = std::mem::replace(&mut self.heads[head], place as Link + 1);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.heads.capacity() * size_of::<Link>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.balances.capacity() * size_of::<Balance>()
    }

    /// The place of `key`, until the next [`remove`](Self::remove).
    pub(super) fn find(&self, key: KeyHash) -> Option<usize> {
        let mut link = *self.heads.get(self.head_of(key))?;
        while link != 0 {
            let entry = &self.entries[link as usize - 1];
            if entry.key == key {
                return Some(link as usize - 1);
            }
            link = entry.next;
        }
        None
    }

    /// Adds a key that is not there, with balances that are true at `at`. Gives its place.
    pub(super) fn insert(&mut self, key: KeyHash, at: Instant, balances: &[Balance]) -> usize {
        debug_assert!(self.find(key).is_none() && balances.len() == self.width, "BUG! a key twice");
        if self.heads.is_empty() {
            self.heads = vec![0; self.size];
        }
        let head = self.head_of(key);
        self.entries.push(Entry { key, at, next: self.heads[head] });
        self.balances.extend_from_slice(balances);
        self.heads[head] = self.entries.len() as Link;
        self.entries.len() - 1
    }

    /// Removes the key at `place`; the last one takes its place.
    pub(super) fn remove(&mut self, place: usize) {
        let entry = self.entries[place];
        self.relink(entry.key, place, entry.next);
        let last = self.entries.len() - 1;
        if place != last {
            self.relink(self.entries[last].key, last, place as Link + 1);
            self.balances.copy_within(last * self.width.., place * self.width);
        }
        self.entries.swap_remove(place);
        self.balances.truncate(last * self.width);
    }

    /// The balances at `place`, and when they were true.
    pub(super) fn get(&self, place: usize) -> (Instant, &[Balance]) {
        let start = place * self.width;
        (self.entries[place].at, &self.balances[start..start + self.width])
    }

    /// The same, to change.
    pub(super) fn get_mut(&mut self, place: usize) -> (&mut Instant, &mut [Balance]) {
        let start = place * self.width;
        (&mut self.entries[place].at, &mut self.balances[start..start + self.width])
    }

    /// Makes whatever points to `key` at `place` point to `to`.
    fn relink(&mut self, key: KeyHash, place: usize, to: Link) {
        let from = place as Link + 1;
        let head = self.head_of(key);
        if self.heads[head] == from {
            self.heads[head] = to;
            return;
        }
        let mut before = self.heads[head] as usize - 1;
        while self.entries[before].next != from {
            before = self.entries[before].next as usize - 1;
        }
        self.entries[before].next = to;
    }

    fn head_of(&self, key: KeyHash) -> usize {
        key.0 as usize & (self.size - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::bucket::Level;

    proptest! {
        #[test]
        fn it_is_a_map(
            steps in proptest::collection::vec((any::<bool>(), 0..24_u128, any::<u64>()), 0..200),
            grows in 0..200_usize,
        ) {
            // Four heads for up to 24 keys: long chains.
            let mut table = Table::new(4, 2);
            let mut model = BTreeMap::new();
            for (step, (insert, key, value)) in steps.into_iter().enumerate() {
                if step == grows {
                    table.grow(9);
                    prop_assert_eq!(table.size, 16);
                }
                let key = KeyHash(key);
                let balances = [value, value / 2].map(|value| Balance::new(Level(value.into()), Level::ZERO));
                match table.find(key) {
                    Some(place) if insert => {
                        let (at, found) = table.get_mut(place);
                        *at = Instant::from_nanos(value);
                        found.copy_from_slice(&balances);
                        model.insert(key, (Instant::from_nanos(value), balances));
                    }
                    None if insert => {
                        table.insert(key, Instant::from_nanos(value), &balances);
                        model.insert(key, (Instant::from_nanos(value), balances));
                    }
                    Some(place) => {
                        table.remove(place);
                        model.remove(&key);
                    }
                    None => prop_assert!(!model.contains_key(&key)),
                }
                prop_assert_eq!(table.len(), model.len());
                for key in (0..24).map(KeyHash) {
                    let found = table.find(key).map(|place| table.get(place));
                    let known = model.get(&key).map(|(at, balances)| (*at, &balances[..]));
                    prop_assert_eq!(found, known);
                }
            }
        }
    }
}
