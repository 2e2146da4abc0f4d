//! Push-pull gossip of pages: digest, delta.
//!
//! A page is all that one author says of itself; each of its values carries the version of the page at which it last
//! changed (van Renesse et al. 2008, "scuttlebutt"). A digest says how far one knows each page; a delta brings
//! the values of a page that changed since then, oldest first, so that a cut delta is still a prefix.
//!
//! When an author begins another life, its page begins anew. Of its former lives the rows are kept and gossiped on,
//! because what a life has admitted counts for ever: the counters are of replicas, not of nodes.

mod hashes;
mod page;

use std::collections::BTreeMap;

use super::id::{Incarnation, NodeId};
use super::record::{Key, Value};
use super::time::Instant;
pub use hashes::affinity;
use hashes::{Hashes, bucket};
pub use page::{Absorbed, Delta, Page, Summary};

/// The most authors that are remembered.
pub const PAGES_MAX: usize = 1_024;
/// Into how many parts the pages are divided, by author, to find those that differ.
pub const BUCKETS: usize = 64;
/// The most summaries in a digest, about 12 KiB of them; the rest is compared the next time.
const SUMMARIES_MAX: usize = 256;
/// The most former lives of which the rows are remembered: the latest of all authors.
pub const FORMER_MAX: usize = 128;
/// No life at all: the page of what is known of an author's ledger records. Real lives begin with one.
pub const REMEMBERED: Incarnation = Incarnation(0);
/// The most values on one page.
pub const ENTRIES_MAX: usize = 4_096;
/// The most bytes, by [`Value::weight`], of one's own news in a message, and again of news passed on; the rest goes with
/// the next. One value more may go over it.
pub const DELTA_BYTES_MAX: usize = 12 * 1_024;

/// The most bytes of one's own news that are told once more as long as they are not confirmed.
const AGAIN_BYTES_MAX: usize = 1_024;

/// Bytes of a key and a version, and of a page's head.
const ENTRY_WEIGHT: usize = 48;

/// All pages that a node knows, its own included.
#[derive(Clone, Debug)]
pub struct Pages {
    me: NodeId,
    pages: BTreeMap<NodeId, Page>,
    /// Rows of former lives, the latest first to be kept.
    former: BTreeMap<(Incarnation, NodeId), Page>,
    /// What is known of the ledger, by who wrote it.
    remembered: BTreeMap<NodeId, Page>,
    hashes: Hashes,
}

impl Pages {
    /// Only an empty page of one's own.
    pub fn new(me: NodeId, incarnation: Incarnation, now: Instant) -> Self {
        let mut pages = Self {
            me,
            pages: BTreeMap::from([(me, Page::new(incarnation, now))]),
            former: BTreeMap::new(),
            remembered: BTreeMap::new(),
            hashes: Hashes::new(),
        };
        pages.rehash(me);
        pages
    }

    /// Must follow every change of an author's pages.
    fn rehash(&mut self, author: NodeId) {
        let former = self.former.iter().filter(|((_, node), _)| *node == author).map(|(_, page)| page);
        let pages = self.pages.get(&author).into_iter().chain(self.remembered.get(&author)).chain(former);
        self.hashes.set(author, pages.map(|page| (page.incarnation, page.version)));
    }

    /// Voids everything: there is only an empty page of one's own, whose versions go on.
    pub fn start_over(&mut self, now: Instant) {
        let own = &self.pages[&self.me];
        let (version, fresh) = (own.version, Self::new(self.me, own.incarnation, now));
        *self = fresh;
        self.pages.values_mut().for_each(|page| page.version = version);
        self.rehash(self.me);
    }

    /// Keeps what is known of the ledger records that `author` wrote, as a page beside its own: it outlives the author's
    /// lives, and restarts of whoever knows it.
    pub fn remember(&mut self, author: NodeId, entries: Vec<(Key, Value)>, now: Instant) {
        let parts = |(_, value): &(Key, Value)| match value {
            Value::Share(share) => share.0,
            Value::Gift(gift) => gift.share.0,
            Value::Lost(losses) => losses.iter().map(|loss| loss.share.0.saturating_add(loss.weight.0)).sum(),
            _ => 0,
        };
        // Records only grow, so whoever knows more of them has the greater version.
        let version = entries.iter().map(parts).fold(entries.len() as u64, u64::saturating_add);
        if self.remembered.get(&author).is_some_and(|known| known.version >= version) {
            return;
        }
        let entries = entries.into_iter().map(|(key, value)| (key, (version, value))).collect();
        self.remembered.insert(author, Page { version, entries, ..Page::new(REMEMBERED, now) });
        self.rehash(author);
    }

    fn keep_former(&mut self, author: NodeId, page: Page) {
        let page = page.into_former();
        if page.version > 0 && self.keeps_former((page.incarnation, author)) {
            self.former.insert((page.incarnation, author), page);
            if self.former.len() > FORMER_MAX
                && let Some(((_, forgotten), _)) = self.former.pop_first()
            {
                self.rehash(forgotten);
            }
        }
    }

    /// Whether the rows of a life that is not an author's latest are kept: all nodes decide alike.
    fn keeps_former(&self, life: (Incarnation, NodeId)) -> bool {
        let first = self.former.first_key_value().map(|(first, _)| *first);
        let fits = self.former.len() < FORMER_MAX || first.is_some_and(|first| first <= life);
        life.0 != REMEMBERED && fits
    }

    fn lives(&self) -> impl Iterator<Item = (NodeId, &Page)> {
        let latest = self.pages.iter().map(|(author, page)| (*author, page));
        let former = self.former.iter().map(|((_, author), page)| (*author, page));
        latest.chain(former).chain(self.remembered.iter().map(|(author, page)| (*author, page)))
    }

    fn life(&self, author: NodeId, incarnation: Incarnation) -> Option<&Page> {
        if incarnation == REMEMBERED {
            return self.remembered.get(&author);
        }
        let latest = self.pages.get(&author).filter(|page| page.incarnation == incarnation);
        latest.or_else(|| self.former.get(&(incarnation, author)))
    }

    /// The page of one author.
    pub fn get(&self, author: &NodeId) -> Option<&Page> {
        self.pages.get(author)
    }

    /// All pages, in order of their authors.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Page)> {
        self.pages.iter()
    }

    /// The version of one's own page.
    pub fn own_version(&self) -> u64 {
        self.pages[&self.me].version
    }

    /// The version at which one's own page last changed in anything but rows.
    pub fn own_membership_version(&self) -> u64 {
        let entries = self.pages[&self.me].entries.iter().filter(|(key, _)| key.is_for_all());
        entries.map(|(_, (version, _))| *version).max().unwrap_or(0)
    }

    /// Writes a value on one's own page. True if it is another than before.
    pub fn publish(&mut self, key: Key, value: Value, now: Instant) -> bool {
        let page = self.pages.get_mut(&self.me).expect("BUG! no own page");
        if page.get(&key) == Some(&value) {
            return false;
        }
        page.version += 1;
        page.news_at = now;
        page.entries.insert(key, (page.version, value));
        self.rehash(self.me);
        true
    }

    /// How many pages there are, lives and what is remembered counted apart.
    pub fn count(&self) -> usize {
        self.pages.len() + self.former.len() + self.remembered.len()
    }

    /// How far every page is known.
    pub fn digest(&self) -> Vec<Summary> {
        let summary = |(author, page): (NodeId, &Page)| Summary {
            author,
            incarnation: page.incarnation,
            version: page.version,
        };
        let mut digest: Vec<_> = self.lives().map(summary).collect();
        digest.sort_by_key(|summary| (summary.author, summary.incarnation));
        digest
    }

    /// How far the pages in these buckets are known, as far as they fit a message, and in which buckets those are: from
    /// another one on with every change of one's own page.
    pub fn digest_of(&self, buckets: u64) -> (u64, Vec<Summary>) {
        let mut count = [0_usize; BUCKETS];
        self.lives().for_each(|(author, _)| count[bucket(&author)] += 1);
        let (mut told, mut room) = (0, SUMMARIES_MAX);
        let first = self.own_version() as usize;
        for place in (0..BUCKETS).map(|place| (first + place) % BUCKETS) {
            if buckets & 1 << place != 0 && (count[place] <= room || told == 0) {
                told |= 1 << place;
                room = room.saturating_sub(count[place]);
            }
        }
        let mut digest = self.digest();
        digest.retain(|summary| told & 1 << bucket(&summary.author) != 0);
        (told, digest)
    }

    /// A short form of the digest: two nodes that know the same have the same.
    pub fn digest_hash(&self) -> u64 {
        self.hashes.of_all()
    }

    /// A short form of the digest of each bucket.
    pub fn bucket_hashes(&self) -> Vec<u32> {
        self.hashes.of_buckets()
    }

    /// The buckets in which somebody with these hashes knows something else.
    pub fn differing(&self, theirs: &[u32]) -> u64 {
        let ours = self.bucket_hashes();
        let differs = |place: &usize| theirs.get(*place).is_some_and(|hash| *hash != ours[*place]);
        (0..BUCKETS).filter(differs).fold(0, |buckets, place| buckets | 1 << place)
    }

    /// What changed on one's own page since `sent`, for a peer that is known to know it up to `confirmed`; none if nothing
    /// did. It begins at what is confirmed where that costs little, so that a lost message leaves no gap.
    pub fn own_delta(&self, sent: u64, confirmed: u64) -> Option<Delta> {
        let page = &self.pages[&self.me];
        if page.version <= sent {
            return None;
        }
        let again = page.delta(self.me, confirmed.min(sent), AGAIN_BYTES_MAX);
        if again.upto == page.version && again.weight() <= AGAIN_BYTES_MAX {
            return Some(again);
        }
        Some(page.delta(self.me, sent, DELTA_BYTES_MAX))
    }

    /// What a peer with this digest of these buckets lacks, at most about [`DELTA_BYTES_MAX`] of it, and whether the peer
    /// knows something that is lacking here.
    pub fn lacking(&self, buckets: u64, digest: &[Summary]) -> (Vec<Delta>, bool) {
        let known = |summary: &Summary| ((summary.author, summary.incarnation), summary.version);
        let theirs: BTreeMap<_, _> = digest.iter().map(known).collect();
        let mut deltas = Vec::new();
        let mut room = DELTA_BYTES_MAX;
        let mut pages: Vec<_> =
            self.lives().filter(|(author, _)| buckets & 1 << bucket(author) != 0).collect();
        // From another one on each time: if not all fit, all come in the end.
        let first = self.own_version() as usize % pages.len().max(1);
        pages.rotate_left(first);
        for (author, page) in pages {
            let since = theirs.get(&(author, page.incarnation)).copied().unwrap_or(0);
            if page.version > since && room > 0 {
                // Versions of a former life or of what is remembered are no prefixes: such a page goes as a whole.
                let is_latest = |latest: &Page| latest.incarnation == page.incarnation;
                let delta = if page.incarnation == REMEMBERED {
                    page.sample(author, room, self.own_version())
                } else if self.pages.get(&author).is_some_and(is_latest) {
                    page.delta(author, since, room)
                } else {
                    page.delta(author, 0, usize::MAX)
                };
                room = room.saturating_sub(delta.weight());
                deltas.push(delta);
            }
        }
        let behind = theirs.iter().any(|(&(author, incarnation), version)| {
            let is_latest = match self.pages.get(&author) {
                Some(page) => page.incarnation < incarnation,
                None => self.pages.len() < PAGES_MAX,
            };
            match self.life(author, incarnation) {
                Some(page) => *version > page.version,
                None => *version > 0 && (is_latest || self.keeps_former((incarnation, author))),
            }
        });
        (deltas, behind)
    }

    /// Merges a delta. Nobody else's word moves one's own page, older lives tell only what they admitted, older versions
    /// change nothing, and pages or values beyond the bounds are left out.
    pub fn absorb(&mut self, delta: &Delta, now: Instant) -> Absorbed {
        let absorbed = self.take_up(delta, now);
        self.rehash(delta.author);
        absorbed
    }

    fn take_up(&mut self, delta: &Delta, now: Instant) -> Absorbed {
        let mut absorbed = Absorbed::default();
        if delta.incarnation == REMEMBERED {
            // For the ledger alone, which knows what is news; the author itself knows better.
            let known = self.remembered.get(&delta.author).map_or(0, |page| page.version);
            if delta.author != self.me && delta.upto > known {
                let records = delta.entries.iter().filter(|(key, _, _)| key.is_record());
                absorbed.changed.extend(records.map(|(key, _, value)| (*key, value.clone())));
            }
            return absorbed;
        }
        let latest = self.pages.get(&delta.author).map(|page| page.incarnation);
        let is_former = latest.is_some_and(|latest| delta.incarnation < latest);
        let life = (delta.incarnation, delta.author);
        let mut former = self.former.remove(&life).unwrap_or_else(|| Page::new(delta.incarnation, now));
        let page = if is_former {
            &mut former
        } else {
            if delta.author == self.me || (latest.is_none() && self.pages.len() >= PAGES_MAX) {
                return absorbed;
            }
            if latest != Some(delta.incarnation) {
                // Another life: what the former life said is void, except what it admitted. Ledger records are kept by
                // the ledger.
                if let Some(page) = self.pages.insert(delta.author, Page::new(delta.incarnation, now)) {
                    self.keep_former(delta.author, page);
                }
            }
            self.pages.get_mut(&delta.author).expect("BUG! just inserted")
        };
        if !is_former && delta.since > page.version {
            // Nothing beyond a gap is taken up: what could not be passed on would never be known to all.
            absorbed.gap = true;
            return absorbed;
        }
        for (key, version, value) in &delta.entries {
            if is_former && !matches!(key, Key::Row(_)) {
                continue;
            }
            let known = page.entries.get(key).map_or(0, |(version, _)| *version);
            let fits = known > 0 || page.entries.len() < ENTRIES_MAX;
            if *version > known && *version <= delta.upto && fits {
                page.entries.insert(*key, (*version, value.clone()));
                page.news_at = now;
                absorbed.changed.push((*key, value.clone()));
            }
        }
        if is_former {
            self.keep_former(delta.author, former);
            return absorbed;
        }
        page.version = page.version.max(delta.upto);
        absorbed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::limit::Fingerprint;
    use super::super::share::Share;
    use super::*;

    fn node(id: u8) -> NodeId {
        NodeId([id; 32])
    }

    fn pages(id: u8) -> Pages {
        Pages::new(node(id), Incarnation(1), Instant::ZERO)
    }

    fn write(pages: &mut Pages, key: u64, value: u64) {
        pages.publish(Key::Row(Fingerprint(key)), Value::Share(Share(value)), Instant::ZERO);
    }

    #[test]
    fn push_then_pull_makes_two_nodes_agree() {
        let (mut one, mut other) = (pages(1), pages(2));
        write(&mut one, 1, 10);
        write(&mut other, 1, 20);
        let (deltas, behind) = one.lacking(u64::MAX, &other.digest());
        assert!(behind);
        for delta in &deltas {
            other.absorb(delta, Instant::ZERO);
        }
        let (deltas, behind) = other.lacking(u64::MAX, &one.digest());
        assert!(!behind);
        for delta in &deltas {
            one.absorb(delta, Instant::ZERO);
        }
        assert_eq!(one.digest_hash(), other.digest_hash());
    }

    #[test]
    fn a_lost_delta_shows_as_a_gap_and_is_repaired() {
        let (mut one, mut other) = (pages(1), pages(2));
        write(&mut one, 1, 10);
        write(&mut one, 2, 20);
        write(&mut one, 3, 30);
        let late = one.own_delta(2, 2).unwrap();
        assert!(other.absorb(&late, Instant::ZERO).gap);
        let (deltas, _) = one.lacking(u64::MAX, &other.digest());
        assert_eq!(deltas[0].since, 0);
        assert!(!other.absorb(&deltas[0], Instant::ZERO).gap);
        assert_eq!(one.lacking(u64::MAX, &other.digest()).0, []);
    }

    #[test]
    fn a_long_page_comes_in_pieces_that_are_prefixes() {
        let (mut one, mut other) = (pages(1), pages(2));
        write(&mut other, 1, 1);
        (0..1_000).for_each(|key| write(&mut one, key, key));
        let mut pieces = 0;
        while one.digest_hash() != other.digest_hash() && pieces < 100 {
            let (deltas, _) = one.lacking(u64::MAX, &other.digest());
            assert!(deltas.iter().map(|delta| delta.entries.len()).sum::<usize>() < 400);
            for delta in &deltas {
                assert!(!other.absorb(delta, Instant::ZERO).gap);
            }
            for delta in other.lacking(u64::MAX, &one.digest()).0 {
                one.absorb(&delta, Instant::ZERO);
            }
            pieces += 1;
        }
        assert!((3..100).contains(&pieces), "{pieces}");
    }

    #[test]
    fn nobody_else_moves_ones_own_page_and_old_lives_are_void() {
        let (mut one, mut other) = (pages(1), pages(2));
        write(&mut one, 1, 10);
        let mut forged = one.own_delta(0, 0).unwrap();
        forged.entries[0].2 = Value::Share(Share(99));
        forged.upto = 9;
        assert_eq!(one.absorb(&forged, Instant::ZERO), Absorbed::default());
        assert_eq!(one.own_version(), 1);

        other.absorb(&one.own_delta(0, 0).unwrap(), Instant::ZERO);
        let mut reborn = Pages::new(node(1), Incarnation(2), Instant::ZERO);
        write(&mut reborn, 2, 1);
        other.absorb(&reborn.own_delta(0, 0).unwrap(), Instant::ZERO);
        assert_eq!(other.absorb(&one.own_delta(0, 0).unwrap(), Instant::ZERO), Absorbed::default());
        assert_eq!(other.get(&node(1)).unwrap().entries().count(), 1);
    }

    proptest! {
        #[test]
        fn a_delta_merge_equals_a_full_merge(
            writes in proptest::collection::vec((0u64..6, 0u64..100), 1..40), cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let (mut author, mut by_delta, mut in_full) = (pages(1), pages(2), pages(2));
            let mut deltas = Vec::new();
            for (step, (key, value)) in writes.iter().enumerate() {
                write(&mut author, *key, *value);
                if cuts.contains(&step) {
                    let known = by_delta.get(&node(1)).map_or(0, |page| page.version);
                    deltas.extend(author.own_delta(known, known));
                    by_delta.absorb(deltas.last().unwrap(), Instant::ZERO);
                }
            }
            let full = author.own_delta(0, 0).unwrap();
            in_full.absorb(&full, Instant::ZERO);
            by_delta.absorb(&full, Instant::ZERO);
            for delta in deltas.iter().rev() {
                prop_assert_eq!(in_full.absorb(delta, Instant::ZERO).changed, vec![]);
            }
            prop_assert_eq!(by_delta.digest(), in_full.digest());
            let values = |pages: &Pages| {
                pages.get(&node(1)).unwrap().entries().map(|(key, value)| (*key, value.clone())).collect::<Vec<_>>()
            };
            prop_assert_eq!(values(&by_delta), values(&in_full));
        }
    }
}
