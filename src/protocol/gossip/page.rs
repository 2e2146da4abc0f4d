//! One node's page: named values, each with the version of the page at which it was written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DELTA_BYTES_MAX, ENTRY_WEIGHT};
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::limit::Fingerprint;
use crate::protocol::record::{Key, Row, Value};
use crate::protocol::time::Instant;

/// How far one knows a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Whose page.
    pub author: NodeId,
    /// Of which life.
    pub incarnation: Incarnation,
    /// Up to which version.
    pub version: u64,
}

/// What changed on one page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Whose page.
    pub author: NodeId,
    /// Of which life.
    pub incarnation: Incarnation,
    /// The delta holds every value that changed after this version …
    pub since: u64,
    /// … up to this one.
    pub upto: u64,
    /// The values, each with its version, in ascending order.
    pub entries: Vec<(Key, u64, Value)>,
}

impl Delta {
    /// About how many bytes it takes in a message.
    pub fn weight(&self) -> usize {
        let weight = |(_, _, value): &(Key, u64, Value)| ENTRY_WEIGHT + value.weight();
        ENTRY_WEIGHT + self.entries.iter().map(weight).sum::<usize>()
    }
}

/// What a delta did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absorbed {
    /// The values that are news.
    pub changed: Vec<(Key, Value)>,
    /// Something before the delta is missing: ask for it with a digest.
    pub gap: bool,
}

/// All that one author said of itself, as far as heard.
#[derive(Clone, Debug)]
pub struct Page {
    pub(super) incarnation: Incarnation,
    pub(super) version: u64,
    pub(super) entries: BTreeMap<Key, (u64, Value)>,
    pub(super) news_at: Instant,
}

impl Page {
    pub(super) fn new(incarnation: Incarnation, now: Instant) -> Self {
        Self { incarnation, version: 0, entries: BTreeMap::new(), news_at: now }
    }

    /// The author's life that wrote it.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// When something new was last heard of it, from anybody.
    pub fn news_at(&self) -> Instant {
        self.news_at
    }

    /// The version up to which the page is known without a gap.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version at which a value last changed; zero if it is not there.
    pub fn version_of(&self, key: &Key) -> u64 {
        self.entries.get(key).map_or(0, |(version, _)| *version)
    }

    /// One value.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// The row of the limit with this identity, be it one of a key or not, and the version at which it last changed.
    pub fn row(&self, fingerprint: Fingerprint) -> Option<(&Row, u64)> {
        if let Some((version, Value::Row(row))) = self.entries.get(&Key::Row(fingerprint)) {
            return Some((row, *version));
        }
        let mut of_keys = self.entries.range(Key::KeyRow(0)..=Key::KeyRow(u16::MAX));
        of_keys.find_map(|(_, (version, value))| match value {
            Value::KeyRow(Some(row)) if row.fingerprint == fingerprint => Some((&row.row, *version)),
            _ => None,
        })
    }

    /// All values.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }

    /// All of it, as a delta that leaves no gap wherever it comes.
    pub fn whole(&self, author: NodeId) -> Delta {
        self.delta(author, 0, DELTA_BYTES_MAX)
    }

    /// What outlives its author's life. Nobody can repair a gap in it any more, so its version is no longer "all up to
    /// here" but the sum of what is there: more for whoever knows more.
    pub(super) fn into_former(mut self) -> Self {
        self.entries.retain(|key, _| matches!(key, Key::Row(_)));
        self.version = self.entries.values().map(|(version, _)| *version).fold(0, u64::saturating_add);
        self
    }

    /// All values, or if they do not fit about `room` bytes as many as do, from another place on with every `turn`.
    pub(super) fn sample(&self, author: NodeId, room: usize, turn: u64) -> Delta {
        let mut delta = self.delta(author, 0, usize::MAX);
        let mut weight = 0;
        delta.entries.rotate_left(turn as usize % self.entries.len().max(1));
        delta.entries.retain(|(_, _, value)| {
            let before = weight;
            weight += ENTRY_WEIGHT + value.weight();
            before == 0 || weight <= room
        });
        delta
    }

    /// What changed after `since`, cut to about `room` bytes but to no less than one value.
    pub(super) fn delta(&self, author: NodeId, since: u64, room: usize) -> Delta {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, (version, _))| *version > since)
            .map(|(key, (version, value))| (*key, *version, value.clone()))
            .collect();
        entries.sort_by_key(|(_, version, _)| *version);
        let mut weight = 0;
        let fits = |(_, _, value): &(Key, u64, Value)| {
            let before = weight;
            weight += ENTRY_WEIGHT + value.weight();
            before == 0 || weight <= room
        };
        let count = entries.iter().map(fits).take_while(|fits| *fits).count();
        let cut = entries.len() > count;
        entries.truncate(count);
        let upto = if cut { entries.last().map_or(since, |(_, version, _)| *version) } else { self.version };
        Delta { author, incarnation: self.incarnation, since, upto, entries }
    }
}
