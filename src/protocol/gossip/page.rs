//! One node's page: named values, each with the version of the page at which it was written.

use serde::{Deserialize, Serialize};

use super::{AUTHOR_RECORDS_MAX, DELTA_BYTES_MAX, ENTRIES_MAX, ENTRY_WEIGHT, PAGE_BYTES_MAX};
use crate::protocol::audit::{Contradiction, Lie};
use crate::protocol::bounded;
use crate::protocol::flat::FlatMap;
use crate::protocol::id::{Incarnation, LedgerId, NodeId};
use crate::protocol::limit::Fingerprint;
use crate::protocol::record::{Key, Row, Value};
use crate::protocol::signature::{Keys, Signature, Statement};
use crate::protocol::time::Instant;

/// The most values of one news: no value weighs less than eight bytes, and the last one may go over what fits.
const NEWS_MAX: usize = DELTA_BYTES_MAX / (ENTRY_WEIGHT + 8) + 1;

/// A value as its author passes it on itself, over a link that proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which value.
    pub key: Key,
    /// The version of the page at which it last changed, or was signed.
    pub version: u64,
    /// The value.
    pub value: Value,
    /// For those who pass it on; only now and then where values change all the time.
    pub signature: Option<Signature>,
}

/// What changed on its author's page, from the author itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// The news holds every value that changed after this version …
    pub since: u64,
    /// … up to this one.
    pub upto: u64,
    /// The values, in ascending order of their versions.
    #[serde(deserialize_with = "bounded::list::<_, _, NEWS_MAX>")]
    pub entries: Vec<Entry>,
}

/// A value that its author signed, as anybody passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The author's life that wrote it.
    pub incarnation: Incarnation,
    /// The version of its page then.
    pub version: u64,
    /// Which value.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The author's, of all this.
    pub signature: Signature,
}

impl Record {
    /// What the statement says, signed.
    pub fn sign(statement: &Statement, keys: &dyn Keys) -> Self {
        Self {
            incarnation: statement.incarnation,
            version: statement.version,
            key: *statement.key,
            value: statement.value.clone(),
            signature: keys.sign(statement),
        }
    }

    /// Whether `author` has signed it as part of this ledger.
    pub fn is_signed_by(&self, author: NodeId, ledger: LedgerId, keys: &dyn Keys) -> bool {
        let Self { incarnation, version, .. } = *self;
        let statement =
            Statement { ledger, author, incarnation, version, key: &self.key, value: &self.value };
        keys.verify(&statement, &self.signature)
    }

    /// Orders what an author wrote under one name: the greatest counts. Records of the ledger only grow, so the one with the
    /// most parts, and of two with the same the later one. Of two that were written at once, which no honest author does,
    /// all nodes choose alike.
    pub(super) fn rank(&self) -> (u64, Incarnation, u64, Signature) {
        let parts = if self.key.is_record() { self.value.parts() } else { 0 };
        (parts, self.incarnation, self.version, self.signature)
    }

    /// A number that is greater for each later record of this name by an honest author.
    fn grown(&self) -> u64 {
        if self.key.is_record() { self.value.parts().wrapping_add(1) } else { self.version }
    }

    fn weight(&self) -> usize {
        // Life and signature beside what every entry has.
        ENTRY_WEIGHT + 72 + self.value.weight()
    }
}

/// What one author has signed, passed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Who wrote it all.
    pub author: NodeId,
    /// The records, each for itself.
    #[serde(deserialize_with = "bounded::list::<_, _, AUTHOR_RECORDS_MAX>")]
    pub records: Vec<Record>,
}

impl Delta {
    /// About how many bytes it takes in a message.
    pub fn weight(&self) -> usize {
        ENTRY_WEIGHT + self.records.iter().map(Record::weight).sum::<usize>()
    }
}

/// How far one knows what an author has signed in one life, or of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Whose.
    pub author: NodeId,
    /// Of which life.
    pub incarnation: Incarnation,
    /// Up to which version.
    pub version: u64,
    /// A hash of all of it: who passes on everything but one value is found out.
    pub sum: u32,
}

/// What was taken up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absorbed {
    /// What is news.
    pub changed: Vec<Change>,
    /// A signature is wrong: whoever sent this sends forged records. The rest was not looked at.
    pub forged: bool,
    /// What the author has signed and cannot have meant.
    pub contradictions: Vec<(Contradiction, Lie)>,
    /// Another life of this node is there, later than its own: somebody runs with a copy of its key.
    pub double: bool,
}

/// A value that is news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The author's life that wrote it.
    pub life: Incarnation,
    /// Which value.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The author has signed it: everybody will know it.
    pub signed: bool,
    /// It is the latest that is known, not one that the author itself has told to be over.
    pub latest: bool,
}

/// One value on a page.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The version of the page at which it last changed or was signed, …
    pub(super) version: u64,
    /// … and at which it changed.
    pub(super) changed: u64,
    pub(super) value: Value,
}

/// All that one author said of itself, as far as heard.
#[derive(Clone, Debug)]
pub struct Page {
    pub(super) incarnation: Incarnation,
    /// Up to which version it was heard from the author itself.
    pub(super) version: u64,
    pub(super) values: FlatMap<Key, Held>,
    /// About how many bytes the values take.
    bytes: usize,
    pub(super) signed: Signed,
    pub(super) news_at: Instant,
}

impl Page {
    pub(super) fn new(incarnation: Incarnation, now: Instant) -> Self {
        Self {
            incarnation,
            version: 0,
            values: FlatMap::default(),
            bytes: 0,
            signed: Signed::default(),
            news_at: now,
        }
    }

    /// The author's life that wrote it.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// When something new was last heard of it, from anybody.
    pub fn news_at(&self) -> Instant {
        self.news_at
    }

    /// The version up to which it was heard from the author itself, without a gap.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The latest version that its author has signed, as far as heard.
    pub fn signed_version(&self) -> u64 {
        self.signed.version
    }

    /// One value.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.values.get(key).map(|held| &held.value)
    }

    /// The row of the limit with this identity, be it one of a key or not, and the version at which it last changed.
    pub fn row(&self, fingerprint: Fingerprint) -> Option<(&Row, u64)> {
        if let Some(Held { changed, value: Value::Row(row), .. }) = self.values.get(&Key::Row(fingerprint)) {
            return Some((row, *changed));
        }
        let of_keys = self.values.from(&Key::KeyRow(0));
        let mut of_keys = of_keys.take_while(|(key, _)| matches!(key, Key::KeyRow(_)));
        of_keys.find_map(|(_, held)| match &held.value {
            Value::KeyRow(Some(row)) if row.fingerprint == fingerprint => Some((&row.row, held.changed)),
            _ => None,
        })
    }

    /// All values.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.values.iter().map(|(key, held)| (key, &held.value))
    }

    /// Whether there is room for a value of somebody else's.
    pub(super) fn fits(&self, key: &Key, value: &Value) -> bool {
        let known = self.values.get(key);
        let replaced = known.map_or(0, |held| ENTRY_WEIGHT + held.value.weight());
        (known.is_some() || self.values.len() < ENTRIES_MAX)
            && self.bytes - replaced + ENTRY_WEIGHT + value.weight() <= PAGE_BYTES_MAX
    }

    /// Takes up a value if it is newer than the one that is known. True if it was.
    pub(super) fn learn(&mut self, key: Key, version: u64, value: &Value, now: Instant) -> bool {
        let known = self.values.get(&key);
        if known.is_some_and(|known| version <= known.version) {
            return false;
        }
        let same = known.filter(|known| known.value == *value).map(|known| known.changed);
        let held = Held { version, changed: same.unwrap_or(version), value: value.clone() };
        self.bytes += ENTRY_WEIGHT + value.weight();
        if let Some(known) = self.values.insert(key, held) {
            self.bytes -= ENTRY_WEIGHT + known.value.weight();
        }
        if same.is_none() {
            self.news_at = now;
        }
        same.is_none()
    }

    /// What changed after `since`, cut to about `room` bytes but to no less than one value.
    /// Signatures of ledger records are among `records`. With it, about how many bytes that is.
    pub(super) fn news(&self, records: Option<&Signed>, since: u64, room: usize) -> (News, usize) {
        let mut changed: Vec<_> = self.values.iter().filter(|(_, held)| held.version > since).collect();
        changed.sort_by_key(|(_, held)| held.version);
        let mut weight = ENTRY_WEIGHT;
        let mut entries: Vec<Entry> = Vec::new();
        for (key, Held { version, value, .. }) in &changed {
            let signed = if key.is_record() { records } else { Some(&self.signed) };
            let signature = signed.and_then(|signed| signed.at(key, *version, self.incarnation));
            weight += ENTRY_WEIGHT + value.weight() + signature.map_or(0, |_| 64);
            if weight > room && !entries.is_empty() {
                break;
            }
            entries.push(Entry { key: **key, version: *version, value: value.clone(), signature });
        }
        let cut = entries.len() < changed.len();
        let upto = if cut { entries.last().map_or(since, |entry| entry.version) } else { self.version };
        (News { since, upto, entries }, weight)
    }
}

/// What one author has signed, the latest of each value.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    records: FlatMap<Key, Record>,
    version: u64,
    total: u64,
    sum: u32,
}

impl Signed {
    /// The greatest version among the records of a life, …
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// … or what grows with every record, where nobody can repair a gap in them any more.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn sum(&self) -> u32 {
        self.sum
    }

    /// All of it.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// What is known under this name.
    pub(super) fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// The signature of a value, if it was signed at this version of this life.
    fn at(&self, key: &Key, version: u64, life: Incarnation) -> Option<Signature> {
        let signed = |record: &&Record| (record.version, record.incarnation) == (version, life);
        self.get(key).filter(signed).map(|record| record.signature)
    }

    /// Keeps a record in place of what was known under its name.
    pub(super) fn keep(&mut self, record: Record) {
        let (sum, grown) = (record.signature.short(), record.grown());
        self.version = self.version.max(record.version);
        let known = self.records.insert(record.key, record);
        let (known_sum, known_grown) = known.map_or((0, 0), |known| (known.signature.short(), known.grown()));
        self.sum = self.sum.wrapping_add(sum).wrapping_sub(known_sum);
        self.total = self.total.wrapping_add(grown).wrapping_sub(known_grown);
    }

    /// What outlives its author's life: what it had admitted.
    pub(super) fn into_former(self) -> Self {
        let mut former = Self::default();
        let rows = self.records.into_values().filter(|record| matches!(record.key, Key::Row(_)));
        rows.for_each(|record| former.keep(record));
        former
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What was signed after `since`, oldest first, cut to about `room` bytes but to no less than one record.
    pub(super) fn delta(&self, author: NodeId, since: u64, room: usize) -> Delta {
        let mut records: Vec<&Record> =
            self.records.values().filter(|record| record.version > since).collect();
        records.sort_by_key(|record| record.version);
        Delta { author, records: fitting(&records, room) }
    }

    /// All records, or if they do not fit about `room` bytes as many as do, from another place on with every `turn`.
    pub(super) fn sample(&self, author: NodeId, room: usize, turn: u64) -> Delta {
        let mut records: Vec<&Record> = self.records.values().collect();
        records.rotate_left(turn as usize % self.records.len().max(1));
        Delta { author, records: fitting(&records, room) }
    }
}

fn fitting(records: &[&Record], room: usize) -> Vec<Record> {
    let mut weight = 0;
    let fits = |record: &&&Record| {
        let before = weight;
        weight += record.weight();
        before == 0 || weight <= room
    };
    records.iter().take_while(fits).map(|record| (*record).clone()).collect()
}
