//! A map of few entries: a sorted list. What there is one of for every peer of every node takes no more room than it has
//! entries, where a tree makes room for eleven at once.

/// Entries in order of their names. Looking one up takes `O(log n)`, adding one `O(n)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatMap<K, V> {
    entries: Vec<(K, V)>,
}

impl<K: Ord, V> FlatMap<K, V> {
    /// What has this name.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|place| &self.entries[place].1)
    }

    /// Puts a value in the place of what has this name, which is given back.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.entries[place].1, value)),
            Err(place) => {
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact(self.entries.len() / 2 + 1);
                }
                self.entries.insert(place, (key, value));
                None
            }
        }
    }

    /// The entries whose names are not before this one.
    pub fn from(&self, first: &K) -> impl Iterator<Item = (&K, &V)> {
        let place = self.entries.partition_point(|(key, _)| key < first);
        self.entries[place..].iter().map(|(key, value)| (key, value))
    }

    fn place(&self, key: &K) -> Result<usize, usize> {
        self.entries.binary_search_by(|(known, _)| known.cmp(key))
    }
}

impl<K, V> FlatMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// All entries, in order, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// All values, in order of their names.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// All values, in order of their names.
    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.entries.into_iter().map(|(_, value)| value)
    }
}

impl<K, V> Default for FlatMap<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(entries in proptest::collection::vec((0u8..40, any::<u8>()), 0..60), first in 0u8..40) {
            let (mut flat, mut tree) = (FlatMap::default(), BTreeMap::new());
            for (key, value) in entries {
                prop_assert_eq!(flat.insert(key, value), tree.insert(key, value));
                prop_assert_eq!(flat.get(&key), tree.get(&key));
            }
            prop_assert_eq!((flat.len(), flat.is_empty()), (tree.len(), tree.is_empty()));
            prop_assert!(flat.iter().eq(&tree) && flat.from(&first).eq(tree.range(first..)));
            prop_assert_eq!(flat.get(&first), tree.get(&first));
            flat.iter_mut().for_each(|(_, value)| *value /= 2);
            prop_assert!(flat.values().copied().eq(tree.values().map(|value| value / 2)));
            prop_assert!(flat.clone().into_values().eq(flat.values().copied()));
        }
    }
}
