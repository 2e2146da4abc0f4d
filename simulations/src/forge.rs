//! Records that nobody signed, or that were signed for another place, in great numbers: none may be taken up.
//!
//! A node with a full ledger and a page of every member is handed records one by one, as by a member that passes them on.
//! Each is a genuine one with one thing wrong. Whatever changes its pages is counted as accepted, and is none too many.

use std::sync::Arc;

use aquifer::protocol::gossip::{Delta, Pages, Record};
use aquifer::protocol::id::{Incarnation, LedgerId, NodeId};
use aquifer::protocol::ledger::Gift;
use aquifer::protocol::limit::Fingerprint;
use aquifer::protocol::record::{Key, Profile, Row, Value};
use aquifer::protocol::share::Share;
use aquifer::protocol::signature::{Keys, Signature, Statement};
use aquifer::protocol::time::Instant;
use aquifer::wire::signing::{Ed25519, Ideal};

use crate::random::{Purpose, Stream};

/// Members whose records are forged.
const MEMBERS: u8 = 16;
/// The life in which they all live, and the version of their pages; there were earlier ones of both.
const LIFE: u64 = 5;
const VERSION: u64 = 1_000;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Its signature is any bytes.
    Random,
    /// One bit of its signature is another.
    Flipped,
    /// Its value is another than was signed.
    Value,
    /// It is said to be of a later version.
    Version,
    /// It is said to be of a later life.
    Life,
    /// It stands under another name.
    Name,
    /// It is said to be somebody else's.
    Author,
    /// It has the signature of another record of the same author.
    Spliced,
    /// It was signed by somebody else, in the author's name.
    Signer,
    /// It was signed for another ledger.
    Ledger,
    /// It was signed for another swarm.
    Swarm,
    /// It is genuine, and was heard before.
    Replayed,
    /// It is genuine, and older than what was heard.
    Older,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Random,
        Self::Flipped,
        Self::Value,
        Self::Version,
        Self::Life,
        Self::Name,
        Self::Author,
        Self::Spliced,
        Self::Signer,
        Self::Ledger,
        Self::Swarm,
        Self::Replayed,
        Self::Older,
    ];
}

/// Whose signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheme {
    /// Perfect ones, as proofs assume them: fast, so that many are tried.
    Ideal,
    /// Ed25519, as daemons use it.
    Ed25519,
}

/// How it went with one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// What was wrong.
    pub kind: Kind,
    /// Records that were handed over.
    pub records: u64,
    /// Those that changed something. Must be none.
    pub accepted: u64,
    /// Those that were found out as forged, so that a daemon closes the link.
    pub refused: u64,
}

/// A member's keys, in this swarm and in another one.
struct Member {
    id: NodeId,
    here: Arc<dyn Keys>,
    elsewhere: Arc<dyn Keys>,
}

/// Hands over so many records, of all kinds in turn, drawn from the seed.
///
/// # Panics
/// If the genuine records are not taken up, without which nothing would be shown.
pub fn forge(records: u64, scheme: Scheme, seed: u64) -> Vec<Tried> {
    let mut stream = Stream::new(seed, Purpose::Liars, 0);
    let members: Vec<Member> = (1..=MEMBERS).map(|number| member(number, scheme)).collect();
    let ledger = LedgerId(members[0].id);
    let (mut pages, genuine, older) = victim(&members, ledger);
    let before = state(&pages);
    let mut tried = Kind::ALL.map(|kind| Tried { kind, records: 0, accepted: 0, refused: 0 });
    let mut left = records;
    for turn in 0_usize.. {
        if left == 0 {
            break;
        }
        let tried = &mut tried[turn % Kind::ALL.len()];
        let place = stream.below(genuine.len() as u64) as usize;
        let of = if tried.kind == Kind::Older { &older } else { &genuine };
        let Some((author, record)) = wrong(tried.kind, &members, ledger, of, place, &mut stream) else {
            continue;
        };
        let delta = Delta { author, records: vec![record] };
        let ledger = pages.absorb_ledger(&delta, Instant::ZERO);
        let page = pages.absorb_pages(&delta, Instant::ZERO);
        tried.records += 1;
        left -= 1;
        tried.refused += u64::from(ledger.forged || page.forged);
        let news = ledger.changed.len()
            + page.changed.len()
            + ledger.contradictions.len()
            + page.contradictions.len();
        tried.accepted +=
            u64::from(news > 0 || ledger.double || page.double || pages.digest_hash() != before.1);
    }
    assert!(state(&pages) == before, "BUG! the pages changed, and nobody counted it");
    tried.to_vec()
}

fn member(number: u8, scheme: Scheme) -> Member {
    let (secret, [here, elsewhere]) = ([number; 32], [[1; 32], [2; 32]]);
    match scheme {
        Scheme::Ed25519 => {
            let keys = Ed25519::new(&secret, here);
            Member {
                id: keys.id(),
                here: Arc::new(keys),
                elsewhere: Arc::new(Ed25519::new(&secret, elsewhere)),
            }
        }
        // Its hash is of the statement alone, so that there is no other swarm.
        Scheme::Ideal => Member { id: NodeId(secret), here: Arc::new(Ideal), elsewhere: Arc::new(Ideal) },
    }
}

type Records = Vec<(NodeId, Record)>;

/// The pages of the first member once it has heard everything; what it has heard, and what there was before.
fn victim(members: &[Member], ledger: LedgerId) -> (Pages, Records, Records) {
    let me = &members[0];
    let mut pages = Pages::new(me.id, Incarnation(LIFE), Arc::clone(&me.here), Instant::ZERO);
    pages.set_ledger(ledger);
    pages.set_members(members.iter().map(|member| member.id));
    let (mut genuine, mut older) = (Vec::new(), Vec::new());
    for (place, member) in members.iter().enumerate().skip(1) {
        let subject = members[(place + 1) % members.len()].id;
        let values = |later: u64| {
            let share = Share(1_000 + later);
            [
                (
                    Key::Profile,
                    Value::Profile(Profile { name: format!("member {later}"), ..Profile::default() }),
                ),
                (Key::Row(Fingerprint(7)), Value::Row(Row { used: 500 + later, ..Row::default() })),
                (Key::Given(subject), Value::Gift(Gift { share, levels: None, weight: 0 })),
                (Key::Reclaimed(subject), Value::Share(share)),
            ]
        };
        for later in [0, 100] {
            for ((key, value), version) in values(later).into_iter().zip(VERSION + later..) {
                let statement = Statement {
                    ledger,
                    author: member.id,
                    incarnation: Incarnation(LIFE),
                    version,
                    key: &key,
                    value: &value,
                };
                let record = Record::sign(&statement, &*member.here);
                let list = if later == 0 { &mut older } else { &mut genuine };
                list.push((member.id, record));
            }
        }
    }
    for (author, record) in older.iter().chain(&genuine) {
        let delta = Delta { author: *author, records: vec![record.clone()] };
        let ledger = pages.absorb_ledger(&delta, Instant::ZERO);
        let page = pages.absorb_pages(&delta, Instant::ZERO);
        assert_eq!(ledger.changed.len() + page.changed.len(), 1, "BUG! a genuine record was not taken up");
    }
    (pages, genuine, older)
}

/// One record of a kind, and in whose name; none if it would be genuine by chance.
fn wrong(
    kind: Kind,
    members: &[Member],
    ledger: LedgerId,
    genuine: &[(NodeId, Record)],
    place: usize,
    stream: &mut Stream,
) -> Option<(NodeId, Record)> {
    let (mut author, mut record) = genuine[place].clone();
    let (other_author, other) = genuine[stream.below(genuine.len() as u64) as usize].clone();
    let resign = |record: &Record, ledger: LedgerId, keys: &dyn Keys| {
        let Record { incarnation, version, key, value, .. } = record;
        let (incarnation, version) = (*incarnation, *version);
        Record::sign(&Statement { ledger, author, incarnation, version, key, value }, keys)
    };
    match kind {
        Kind::Random => {
            record.signature = Signature { r: stream.seed(), s: stream.seed() };
            record.version += 1 + stream.below(1_000);
            record.value = more(&record.value);
        }
        Kind::Flipped => {
            record.version += 1;
            record.value = more(&record.value);
            let member = members.iter().find(|member| member.id == author)?;
            record = resign(&record, ledger, &*member.here);
            // Ideal signatures have 64 bits.
            let bit = stream.below(64) as usize;
            record.signature.r[bit / 8] ^= 1 << (bit % 8);
        }
        Kind::Value => {
            // At the same version: it would be a fork, if it were signed.
            record.value = more(&record.value);
            record.version += stream.below(2);
        }
        Kind::Version if !record.key.is_record() => record.version += 1 + stream.below(1 << 40),
        Kind::Life if !record.key.is_record() => record.incarnation.0 += 1 + stream.below(1 << 40),
        // What a record of the ledger says counts whenever it was said; so it says more.
        Kind::Version | Kind::Life => {
            record.version += 1;
            record.value = more(&record.value);
        }
        Kind::Name => {
            record.key = Key::Given(NodeId(stream.seed()));
            record.value =
                Value::Gift(Gift { share: Share(1 + stream.below(1 << 30)), levels: None, weight: 0 });
        }
        Kind::Author => {
            (author, record.version) = (other_author, record.version + 1);
            record.value = more(&record.value);
        }
        Kind::Spliced => {
            if other.signature == record.signature {
                return None;
            }
            (record.signature, record.version) = (other.signature, other.version.max(record.version) + 1);
            record.value = more(&record.value);
        }
        Kind::Signer => {
            let signer = members.iter().find(|member| member.id != author)?;
            record.version += 1;
            record.value = more(&record.value);
            let Record { incarnation, version, key, value, .. } = &record;
            let (incarnation, version) = (*incarnation, *version);
            let statement = Statement { ledger, author: signer.id, incarnation, version, key, value };
            record = Record::sign(&statement, &*signer.here);
        }
        Kind::Ledger | Kind::Swarm => {
            record.version += 1;
            record.value = more(&record.value);
            let member = members.iter().find(|member| member.id == author)?;
            record = if kind == Kind::Ledger {
                resign(&record, LedgerId(NodeId(stream.seed())), &*member.here)
            } else {
                let record = resign(&record, ledger, &*member.elsewhere);
                if record.is_signed_by(author, ledger, &*member.here) && record.signature.s == [0; 32] {
                    // Ideal signatures know no swarms.
                    return None;
                }
                record
            };
        }
        Kind::Replayed | Kind::Older => {}
    }
    Some((author, record))
}

/// Another value of the same kind, worth more to somebody.
fn more(value: &Value) -> Value {
    match value {
        Value::Share(share) => Value::Share(Share(share.0 + 1)),
        Value::Gift(gift) => Value::Gift(Gift { share: Share(gift.share.0 + 1), ..gift.clone() }),
        Value::Row(row) => Value::Row(Row { used: row.used + 1, ..*row }),
        Value::Profile(profile) => Value::Profile(Profile { leaving: true, ..profile.clone() }),
        other => other.clone(),
    }
}

/// All that was taken up, so that a change of anything is seen.
fn state(pages: &Pages) -> (String, u64) {
    let all: Vec<_> = pages.iter().collect();
    let records: Vec<_> = pages.records().collect();
    (format!("{all:?} {records:?} {:?}", pages.digest()), pages.digest_hash())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_wrong_is_taken_up_and_all_that_is_forged_is_found_out() {
        for (scheme, records) in [(Scheme::Ideal, 26_000), (Scheme::Ed25519, 520)] {
            for tried in forge(records, scheme, 1) {
                let Tried { kind, records, accepted, refused } = tried;
                assert_eq!(accepted, 0, "{scheme:?} {tried:?}");
                let none = (scheme, kind) == (Scheme::Ideal, Kind::Swarm);
                assert_eq!(records == 0, none, "{scheme:?} {tried:?}");
                let is_genuine = matches!(kind, Kind::Replayed | Kind::Older);
                assert_eq!(refused, if is_genuine { 0 } else { records }, "{scheme:?} {tried:?}");
            }
        }
    }
}
