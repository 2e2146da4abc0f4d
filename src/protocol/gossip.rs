//! Push-pull gossip of pages: digest, delta.
//!
//! A page is all that one author says of itself; each of its values carries the version of the page at which it last
//! changed (van Renesse et al. 2008, "scuttlebutt"). The author tells its peers the news of its page over links that
//! prove who it is. What it has *signed*, everybody passes on: what concerns all at once, rows now and then. A digest says
//! how far one knows what each author has signed; a delta brings what was signed since then, oldest first, so that a cut
//! delta is still a prefix. A hash of all records goes with the version, so that whoever passes on everything but one is
//! found out.
//!
//! **Nothing is kept on anybody's word but the author's.** A record is taken up if its author is a member and has signed
//! it, for this ledger, life and place of its page; nobody else's message moves one's own page; older records change
//! nothing, so that replaying is in vain at any age. Cheap checks come first, and the first wrong signature ends the
//! message that brought it.
//!
//! When an author begins another life, its page begins anew. Of its former lives the signed rows are kept and gossiped
//! on, because what a life has admitted counts for ever: the counters are of replicas, not of nodes. Records of the ledger
//! belong to no life: they are kept apart, and outlive restarts of whoever knows them.

mod former;
mod hashes;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::audit::Contradiction;
use super::id::{Incarnation, LedgerId, NodeId};
use super::limit::Fingerprint;
use super::record::{Key, Row, Value};
use super::signature::{Keys, Statement};
use super::time::Instant;
pub use former::FORMER_MAX;
use former::FormerLives;
pub use hashes::affinity;
use hashes::{Hashes, bucket};
use page::Held;
pub use page::{Absorbed, Change, Delta, Entry, News, Page, Record, Signed, Summary};

/// The most authors that are remembered.
pub const PAGES_MAX: usize = 1_024;
/// Into how many parts the pages are divided, by author, to find those that differ.
pub const BUCKETS: usize = 64;
/// The most summaries in a digest, about 12 KiB of them; the rest is compared the next time.
const SUMMARIES_MAX: usize = 256;
/// No life at all: what is known of an author's ledger records. Real lives begin with one.
pub const REMEMBERED: Incarnation = Incarnation(0);
/// The most values on one page, …
pub const ENTRIES_MAX: usize = 1_024;
/// … and the most bytes of them that are remembered of somebody else's, by [`Value::weight`]: of all pages, 128 MiB.
pub const PAGE_BYTES_MAX: usize = 128 * 1_024;
/// The most records of the ledger by one author, …
pub const AUTHOR_RECORDS_MAX: usize = 1_024;
/// … and by all: about 4 MiB.
pub const RECORDS_MAX: usize = 16_384;
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
    keys: Arc<dyn Keys>,
    /// What signatures are for; none while there is no ledger, and nothing is signed.
    ledger: Option<LedgerId>,
    pages: BTreeMap<NodeId, Page>,
    former: FormerLives,
    /// The records of the ledger, by who wrote them.
    remembered: BTreeMap<NodeId, Signed>,
    records: usize,
    /// Whose records are passed on, and taken from others.
    members: BTreeSet<NodeId>,
    hashes: Hashes,
}

/// What one author has signed in one life, or of the ledger, and how far.
struct Life<'a> {
    summary: Summary,
    signed: &'a Signed,
    /// Its versions are those of a page: who knows one knows all before it.
    is_latest: bool,
}

impl Pages {
    /// Only an empty page of one's own.
    pub fn new(me: NodeId, incarnation: Incarnation, keys: Arc<dyn Keys>, now: Instant) -> Self {
        Self {
            me,
            keys,
            ledger: None,
            pages: BTreeMap::from([(me, Page::new(incarnation, now))]),
            former: FormerLives::default(),
            remembered: BTreeMap::new(),
            records: 0,
            members: BTreeSet::new(),
            hashes: Hashes::new(),
        }
    }

    /// Must follow every change of what an author has signed.
    fn rehash(&mut self, author: NodeId) {
        let lives: Vec<Summary> = self.lives_of(author).map(|life| life.summary).collect();
        let known = |summary: &Summary| (summary.incarnation, summary.version, summary.sum);
        self.hashes.set(author, lives.iter().map(known));
    }

    /// Voids everything and belongs to another ledger: there is only one's own page, whose versions go on.
    pub fn start_over(&mut self, ledger: LedgerId, now: Instant) {
        let own = &self.pages[&self.me];
        let (version, incarnation) = (own.version, own.incarnation);
        *self = Self::new(self.me, incarnation, Arc::clone(&self.keys), now);
        self.ledger = Some(ledger);
        self.pages.values_mut().for_each(|page| page.version = version);
    }

    /// Belongs to this ledger from now on.
    pub fn set_ledger(&mut self, ledger: LedgerId) {
        self.ledger = Some(ledger);
        self.sign();
    }

    /// Whose records count from now on. Gives those whose did not before.
    pub fn set_members(&mut self, members: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
        let members: BTreeSet<NodeId> = members.collect();
        let mut changed: Vec<NodeId> = members.symmetric_difference(&self.members).copied().collect();
        self.members = members;
        changed.iter().for_each(|node| self.rehash(*node));
        changed.retain(|node| self.members.contains(node));
        changed
    }

    /// The rows that an author has signed, of all its lives.
    pub fn signed_rows(&self, author: NodeId) -> impl Iterator<Item = (Incarnation, Fingerprint, &Row)> {
        let records = self.lives_of(author).flat_map(|life| life.signed.records());
        records.filter_map(|record| match (&record.key, &record.value) {
            (Key::Row(limit), Value::Row(row)) => Some((record.incarnation, *limit, row)),
            _ => None,
        })
    }

    /// Forgets what a stranger said of itself.
    pub fn forget_stranger(&mut self, node: &NodeId) {
        if !self.members.contains(node) && *node != self.me {
            self.pages.remove(node);
        }
    }

    /// The records of the ledger, by who wrote them.
    pub fn records(&self) -> impl Iterator<Item = (NodeId, &Record)> {
        let all = self.remembered.iter().map(|(author, signed)| (*author, signed));
        all.flat_map(|(author, signed)| signed.records().map(move |record| (author, record)))
    }

    fn keep_former(&mut self, author: NodeId, life: Incarnation, signed: Signed) {
        if let Some(forgotten) = self.former.keep((life, author), signed) {
            self.rehash(forgotten);
        }
    }

    /// Whether the rows of a life that is not an author's latest are kept.
    fn keeps_former(&self, life: (Incarnation, NodeId)) -> bool {
        life.0 != REMEMBERED && self.former.keeps(life)
    }

    /// What is passed on: what members have signed.
    fn lives(&self) -> impl Iterator<Item = Life<'_>> {
        self.lives_in(u64::MAX)
    }

    /// … by authors in these buckets.
    fn lives_in(&self, buckets: u64) -> impl Iterator<Item = Life<'_>> {
        let latest = self.pages.iter().map(|(author, page)| Life::latest(*author, page));
        let former = self.former.iter().map(|((life, author), signed)| Life::whole(*author, *life, signed));
        let remembered =
            self.remembered.iter().map(|(author, signed)| Life::whole(*author, REMEMBERED, signed));
        let is_in =
            move |life: &Life| buckets == u64::MAX || buckets & 1 << bucket(&life.summary.author) != 0;
        latest.chain(former).chain(remembered).filter(move |life| is_in(life) && self.passes_on(life))
    }

    fn lives_of(&self, author: NodeId) -> impl Iterator<Item = Life<'_>> {
        let latest = self.pages.get(&author).map(|page| Life::latest(author, page));
        let remembered = self.remembered.get(&author).map(|signed| Life::whole(author, REMEMBERED, signed));
        let former = self.former.iter().filter(move |((_, node), _)| *node == author);
        let former = former.map(move |((life, _), signed)| Life::whole(author, *life, signed));
        latest.into_iter().chain(remembered).chain(former).filter(|life| self.passes_on(life))
    }

    fn passes_on(&self, life: &Life) -> bool {
        !life.signed.is_empty() && self.members.contains(&life.summary.author)
    }

    fn life(&self, author: NodeId, incarnation: Incarnation) -> Option<Summary> {
        let mut lives = self.lives_of(author).map(|life| life.summary);
        lives.find(|summary| summary.incarnation == incarnation)
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
        let entries = self.pages[&self.me].values.iter().filter(|(key, _)| key.is_for_all());
        entries.map(|(_, held)| held.version).max().unwrap_or(0)
    }

    /// The version at which one last signed something that changed.
    pub fn own_signed_version(&self) -> u64 {
        self.pages[&self.me].signed_version()
    }

    /// Writes a value on one's own page, signed if it is for all. True if it is another than before.
    pub fn publish(&mut self, key: Key, value: Value, now: Instant) -> bool {
        let page = self.pages.get_mut(&self.me).expect("BUG! no own page");
        if page.get(&key) == Some(&value) {
            return false;
        }
        page.version += 1;
        page.news_at = now;
        page.values.insert(key, Held { version: page.version, changed: page.version, value });
        if key.is_for_all() {
            self.sign();
        }
        true
    }

    /// Signs all values of one's own page that have changed. All at once: what is signed is a prefix of the page then, as
    /// deltas suppose. True if there were any.
    pub fn sign(&mut self) -> bool {
        let Some(ledger) = self.ledger else { return false };
        let page = self.pages.get_mut(&self.me).expect("BUG! no own page");
        let remembered = self.remembered.entry(self.me).or_default();
        let mut version = page.version;
        for (key, Held { version: written, value, .. }) in page.values.iter_mut() {
            let signed = if key.is_record() { &mut *remembered } else { &mut page.signed };
            let known = signed.get(key).filter(|record| record.incarnation == page.incarnation);
            if known.is_some_and(|record| record.version == *written) {
                continue;
            }
            version += 1;
            *written = version;
            let incarnation = page.incarnation;
            let statement = Statement { ledger, author: self.me, incarnation, version, key, value };
            self.records += usize::from(key.is_record() && signed.get(key).is_none());
            signed.keep(Record::sign(&statement, &*self.keys));
        }
        let signed = version > page.version;
        page.version = version;
        self.rehash(self.me);
        signed
    }

    /// How many authors and lives there are to compare.
    pub fn count(&self) -> usize {
        self.pages.len() + self.former.len() + self.remembered.len()
    }

    /// How far everything that is passed on is known.
    pub fn digest(&self) -> Vec<Summary> {
        let mut digest: Vec<_> = self.lives().map(|life| life.summary).collect();
        digest.sort_by_key(|summary| (summary.author, summary.incarnation));
        digest
    }

    /// How far the pages in these buckets are known, as far as they fit a message, and in which buckets those are: from
    /// another one on with every change of one's own page.
    pub fn digest_of(&self, buckets: u64) -> (u64, Vec<Summary>) {
        let mut digest = self.digest();
        let mut count = [0_usize; BUCKETS];
        digest.iter().for_each(|summary| count[bucket(&summary.author)] += 1);
        let (mut told, mut room) = (0, SUMMARIES_MAX);
        let first = self.own_version() as usize;
        for place in (0..BUCKETS).map(|place| (first + place) % BUCKETS) {
            if buckets & 1 << place != 0 && (count[place] <= room || told == 0) {
                told |= 1 << place;
                room = room.saturating_sub(count[place]);
            }
        }
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
    /// did. It begins at what is confirmed where that costs little, so that a lost message leaves no gap; with `repeat`
    /// also if nothing changed since.
    pub fn own_news(&self, sent: u64, confirmed: u64, repeat: bool) -> Option<News> {
        let page = &self.pages[&self.me];
        let changed = page.version > sent;
        if !changed && !repeat {
            return None;
        }
        let records = self.remembered.get(&self.me);
        let (again, weight) = page.news(records, confirmed.min(sent), AGAIN_BYTES_MAX);
        if again.upto == page.version && weight <= AGAIN_BYTES_MAX {
            return Some(again);
        }
        changed.then(|| page.news(records, sent, DELTA_BYTES_MAX).0)
    }

    /// What a peer with this digest of these buckets lacks, at most about [`DELTA_BYTES_MAX`] of it, and whether the peer
    /// knows something that is lacking here. `turn` is another number each time.
    ///
    /// The ledger comes first: whoever does not know yet who is a member keeps nothing else, and would be sent the same
    /// again and again.
    pub fn lacking(&self, buckets: u64, digest: &[Summary], turn: u64) -> (Vec<Delta>, bool) {
        let known = |summary: &Summary| ((summary.author, summary.incarnation), *summary);
        let theirs: BTreeMap<_, _> = digest.iter().map(known).collect();
        let mut deltas = Vec::new();
        let mut room = DELTA_BYTES_MAX;
        let lives = self.lives_in(buckets);
        let (mut ledger, mut lives): (Vec<_>, Vec<_>) =
            lives.partition(|life| life.summary.incarnation == REMEMBERED);
        // From another one on each time, far from the last: if not all fit, all come in the end.
        let far = (turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
        for lives in [&mut ledger, &mut lives] {
            let first = far % lives.len().max(1);
            lives.rotate_left(first);
        }
        for Life { summary, signed, is_latest } in ledger.into_iter().chain(lives) {
            let Summary { author, incarnation, version, sum } = summary;
            let theirs = theirs.get(&(author, incarnation));
            let (since, their_sum) = theirs.map_or((0, 0), |theirs| (theirs.version, theirs.sum));
            let delta = if room == 0 || version < since || (version, sum) == (since, their_sum) {
                continue;
            } else if is_latest && version > since {
                signed.delta(author, since, room)
            } else {
                signed.sample(author, room, turn)
            };
            room = room.saturating_sub(delta.weight());
            deltas.push(delta);
        }
        let behind = digest.iter().any(|theirs| self.is_behind(theirs));
        (deltas, behind)
    }

    fn is_behind(&self, theirs: &Summary) -> bool {
        if !self.members.contains(&theirs.author) {
            return false;
        }
        if let Some(ours) = self.life(theirs.author, theirs.incarnation) {
            let more = theirs.version > ours.version;
            return more || (theirs.version == ours.version && theirs.sum != ours.sum);
        }
        let page = self.pages.get(&theirs.author);
        theirs.incarnation == REMEMBERED
            || page.is_none_or(|page| page.incarnation <= theirs.incarnation)
            || self.keeps_former((theirs.incarnation, theirs.author))
    }

    /// What an author has signed under these names.
    pub fn signed(&self, author: NodeId, keys: &[Key]) -> Delta {
        let page = self.pages.get(&author).map(|page| &page.signed);
        let remembered = self.remembered.get(&author);
        let record = |key: &Key| if key.is_record() { remembered } else { page }?.get(key).cloned();
        Delta { author, records: keys.iter().filter_map(record).collect() }
    }

    /// Merges what an author tells of its own page. Nothing beyond a gap is taken up: what could not be passed on would
    /// never be known to all. The author tells it again as soon as it hears how far its page is known.
    pub fn hear(&mut self, author: NodeId, incarnation: Incarnation, news: &News, now: Instant) -> Absorbed {
        let mut absorbed = Absorbed::default();
        let Some(page) = self.page_of(author, incarnation, now) else { return absorbed };
        if news.since > page.version {
            return absorbed;
        }
        for Entry { key, version, value, signature } in &news.entries {
            if *version > news.upto {
                continue;
            }
            if let Some(signature) = *signature {
                // Much is told again, until it is confirmed.
                let is_known = self.known(author, key, incarnation).is_some_and(|known| {
                    (known.incarnation, known.version, known.signature) == (incarnation, *version, signature)
                        && known.value == *value
                });
                if is_known {
                    continue;
                }
                let record =
                    Record { incarnation, version: *version, key: *key, value: value.clone(), signature };
                self.take_up(author, record, now, &mut absorbed);
                if absorbed.forged {
                    return absorbed;
                }
            } else if !key.is_record() {
                let page = self.pages.get_mut(&author).expect("BUG! it was there");
                if page.fits(key, value) && page.learn(*key, *version, value, now) {
                    absorbed.changed.push(Change {
                        life: incarnation,
                        key: *key,
                        value: value.clone(),
                        signed: false,
                        latest: true,
                    });
                }
            }
        }
        let page = self.pages.get_mut(&author).expect("BUG! it was there");
        page.version = page.version.max(news.upto);
        absorbed
    }

    /// Merges the records of the ledger in a delta, if its author is a member.
    pub fn absorb_ledger(&mut self, delta: &Delta, now: Instant) -> Absorbed {
        self.absorb(delta, true, now)
    }

    /// Merges all else in a delta, if its author is a member.
    pub fn absorb_pages(&mut self, delta: &Delta, now: Instant) -> Absorbed {
        self.absorb(delta, false, now)
    }

    fn absorb(&mut self, delta: &Delta, of_ledger: bool, now: Instant) -> Absorbed {
        let mut absorbed = Absorbed::default();
        for record in delta.records.iter().filter(|record| record.key.is_record() == of_ledger) {
            if self.known(delta.author, &record.key, record.incarnation) == Some(record) {
                continue;
            }
            self.take_up(delta.author, record.clone(), now, &mut absorbed);
            if absorbed.forged {
                break;
            }
        }
        absorbed
    }

    /// Takes up one record, if it is news and signed. Values beyond the bounds are left out.
    fn take_up(&mut self, author: NodeId, record: Record, now: Instant, absorbed: &mut Absorbed) {
        let Some(ledger) = self.ledger else { return };
        let own_life = self.pages[&self.me].incarnation;
        let is_own = author == self.me;
        if record.incarnation == REMEMBERED || (is_own && record.incarnation == own_life) {
            return;
        }
        let known = self.known(author, &record.key, record.incarnation);
        if known.is_some_and(|known| *known == record) {
            return;
        }
        let contradiction = known.and_then(|known| Contradiction::between(known, &record));
        let is_news = known.is_none_or(|known| known.rank() < record.rank());
        if !is_news && contradiction.is_none() {
            return;
        }
        if !record.is_signed_by(author, ledger, &*self.keys) {
            absorbed.forged = true;
            return;
        }
        if is_own && record.incarnation > own_life {
            absorbed.double = true;
            return;
        }
        absorbed.contradictions.extend(contradiction);
        if !is_news {
            return;
        }
        let (life, key, value) = (record.incarnation, record.key, record.value.clone());
        let told = self
            .pages
            .get(&author)
            .map(|page| (page.incarnation, page.values.get(&key).map_or(0, |held| held.version)));
        let latest = key.is_record() || told.is_none_or(|told| (life, record.version) >= told);
        if self.keep(author, record, now) {
            absorbed.changed.push(Change { life, key, value, signed: true, latest });
        }
        self.rehash(author);
    }

    /// What is known in the place of a record of this name and life.
    fn known(&self, author: NodeId, key: &Key, life: Incarnation) -> Option<&Record> {
        if key.is_record() {
            return self.remembered.get(&author)?.get(key);
        }
        match self.pages.get(&author) {
            Some(page) if page.incarnation == life => page.signed.get(key),
            _ => self.former.get((life, author))?.get(key),
        }
    }

    /// Keeps a record that is signed and news. False if there is no room for it.
    fn keep(&mut self, author: NodeId, record: Record, now: Instant) -> bool {
        if record.key.is_record() {
            let signed = self.remembered.entry(author).or_default();
            let is_new = signed.get(&record.key).is_none();
            let full = self.records >= RECORDS_MAX || signed.records().count() >= AUTHOR_RECORDS_MAX;
            if is_new && full && author != self.me {
                return false;
            }
            self.records += usize::from(is_new);
            signed.keep(record);
            return true;
        }
        let latest = self.pages.get(&author).map(|page| page.incarnation);
        if author == self.me || latest.is_some_and(|latest| record.incarnation < latest) {
            let life = (record.incarnation, author);
            let keeps = matches!(record.key, Key::Row(_)) && self.keeps_former(life);
            if keeps {
                let mut signed = self.former.remove(life).unwrap_or_default();
                signed.keep(record);
                self.keep_former(author, life.0, signed);
            }
            return keeps;
        }
        let Some(page) = self.page_of(author, record.incarnation, now) else { return false };
        if !page.fits(&record.key, &record.value) {
            return false;
        }
        page.learn(record.key, record.version, &record.value, now);
        page.signed.keep(record);
        true
    }

    /// The page of this life of somebody else, if it is the latest. A new life voids what the former one said, except what
    /// it admitted.
    fn page_of(&mut self, author: NodeId, incarnation: Incarnation, now: Instant) -> Option<&mut Page> {
        let latest = self.pages.get(&author).map(|page| page.incarnation);
        let is_former = latest.is_some_and(|latest| incarnation < latest);
        if author == self.me || is_former || (latest.is_none() && self.pages.len() >= PAGES_MAX) {
            return None;
        }
        if latest != Some(incarnation)
            && let Some(page) = self.pages.insert(author, Page::new(incarnation, now))
        {
            self.keep_former(author, page.incarnation, page.signed.into_former());
            self.rehash(author);
        }
        self.pages.get_mut(&author)
    }
}

impl<'a> Life<'a> {
    fn latest(author: NodeId, page: &'a Page) -> Self {
        let (incarnation, signed) = (page.incarnation, &page.signed);
        let summary = Summary { author, incarnation, version: signed.version(), sum: signed.sum() };
        Self { summary, signed, is_latest: true }
    }

    fn whole(author: NodeId, incarnation: Incarnation, signed: &'a Signed) -> Self {
        let summary = Summary { author, incarnation, version: signed.total(), sum: signed.sum() };
        Self { summary, signed, is_latest: false }
    }
}

#[cfg(test)]
mod tests;
