//! Messages, records and pages made of arbitrary bytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aquifer::protocol::breaker::{Outcomes, Verdict};
use aquifer::protocol::calendar::UnixNanos;
use aquifer::protocol::gossip::{Delta, Entry, News, Pages, Record, Summary};
use aquifer::protocol::id::{Incarnation, LedgerId, NodeId};
use aquifer::protocol::keyed::KeyHash;
use aquifer::protocol::lease::{Grant, Return};
use aquifer::protocol::ledger::{Gift, GiftLevels};
use aquifer::protocol::limit::{Fingerprint, Rate};
use aquifer::protocol::message::{Digest, Echo, Message};
use aquifer::protocol::pause::{PauseMark, PauseReason};
use aquifer::protocol::provider::Estimate;
use aquifer::protocol::record::{Key, KeyRow, Profile, Row, Value};
use aquifer::protocol::share::{ONE, Share};
use aquifer::protocol::signature::{Signature, Statement};
use aquifer::protocol::time::Instant;
use aquifer::wire::signing::Ideal;
use arbitrary::{Arbitrary, Result, Unstructured};

use super::bound::Bound;
use super::swarm::{BOOK, DISTANT, LIFE, ME, PEER, STRANGER, config, sign};

/// The most records, entries, grants and so on that are made of one kind at a time.
const FEW: usize = 6;
/// Pages hold what they hear several times: by name, as signed, and in the answers.
const PAGES: Bound = Bound(256, 256 << 10);

/// A message of the peer to the node, which said `said` last.
pub fn message(u: &mut Unstructured, said: Option<&Message>) -> Result<Message> {
    let incarnation = Incarnation(u64::from(u.int_in_range(1..=3_u8)?.min(2)));
    let ledger = if u.ratio(15, 16)? { Some(BOOK) } else { u.arbitrary::<bool>()?.then_some(LedgerId(PEER)) };
    let echo = match (u.int_in_range(0..=7_u8)?, said) {
        (0, _) | (_, None) => None,
        (1, _) => Some(Echo {
            incarnation: life(u)?,
            clock: Instant::from_nanos(number(u)?),
            age: number(u)?,
            version: number(u)?,
            weight: Share(number(u)?),
        }),
        (_, Some(said)) => Some(Echo {
            incarnation: LIFE,
            clock: said.clock,
            age: number(u)? % 1_000_000_000,
            version: said.version,
            weight: Share(number(u)?),
        }),
    };
    // What the node says that it lent or borrowed is the best to answer.
    let said_grants = said.map_or(&[][..], |said| &said.grants);
    let said_returns = said.map_or(&[][..], |said| &said.returns);
    let mut grants = few(u, |u| Ok((fingerprint(u)?, grant(u, said)?)))?;
    let mut returns = few(u, |u| Ok((fingerprint(u)?, give_back(u)?)))?;
    for (limit, grant) in said_grants.iter().take(if u.arbitrary()? { FEW } else { 0 }) {
        let Grant { sequence, version, share, level, .. } = *grant;
        let (heard, share, level) = (version, share.scale(u.arbitrary::<u8>()?.into(), 255), level / 2);
        returns.push((*limit, Return { sequence, heard, version: number(u)?, share, level }));
    }
    for (limit, word) in said_returns.iter().take(if u.arbitrary()? { FEW } else { 0 }) {
        let mut grant = grant(u, said)?;
        grant.sequence = word.sequence.wrapping_add(u64::from(u.arbitrary::<bool>()?));
        grants.push((*limit, grant));
    }
    Ok(Message {
        incarnation,
        ledger,
        join: u.ratio(1, 8)?,
        clock: Instant::from_nanos(number(u)?),
        wall: option(u, |u| Ok(UnixNanos(number(u)? as i64)))?,
        echo,
        silence_ms: number(u)? as u32,
        digest: digest(u)?,
        version: number(u)?,
        news: option(u, |u| news(u, PEER, incarnation))?,
        deltas: few(u, delta)?,
        grants,
        returns,
    })
}

/// Pages, which hear of themselves, of members and of strangers.
pub fn pages(bytes: &[u8]) {
    PAGES.of(bytes.len(), || {
        let now = Instant::from_nanos(1);
        let mut pages = Pages::new(ME, LIFE, Arc::new(Ideal), now);
        pages.set_ledger(BOOK);
        pages.set_members([ME, PEER, DISTANT].into_iter());
        pages.publish(Key::Founded, Value::Share(ONE), now);
        pages.publish(Key::Profile, Value::Profile(Profile::default()), now);
        let own = |pages: &Pages| -> (u64, Vec<(Key, Value)>) {
            let page = pages.get(&ME).expect("its own page is there");
            (page.version(), page.entries().map(|(key, value)| (*key, value.clone())).collect())
        };
        let before = own(&pages);
        let mut u = Unstructured::new(bytes);
        while !u.is_empty() && pages_hear(&mut u, &mut pages, now).is_ok() {
            assert!(own(&pages) == before, "somebody else wrote on its own page");
        }
        // What is told of them to whoever knows nothing was signed by its author, a member.
        for delta in pages.lacking(u64::MAX, &[], 0).0 {
            assert_ne!(delta.author, STRANGER);
            for record in &delta.records {
                assert!(record.is_signed_by(delta.author, BOOK, &Ideal), "{record:?} was never signed");
            }
        }
    });
}

fn pages_hear(u: &mut Unstructured, pages: &mut Pages, now: Instant) -> Result<()> {
    let authors = [PEER, PEER, DISTANT, STRANGER, ME];
    match u.int_in_range(0..=5_u8)? {
        0 => {
            let (author, life) = (*u.choose(&authors)?, life(u)?);
            pages.hear(author, life, &news(u, author, life)?, now);
        }
        1 => drop(pages.absorb_ledger(&delta(u)?, now)),
        2 | 3 => drop(pages.absorb_pages(&delta(u)?, now)),
        4 => {
            let (buckets, summaries) = (u.arbitrary()?, few(u, summary)?);
            pages.lacking(buckets, &summaries, 0);
            pages.digest_of(buckets);
        }
        _ => {
            pages.differing(&few(u, any)?);
            pages.own_news(number(u)?, number(u)?, u.arbitrary()?);
            pages.forget_stranger(&STRANGER);
        }
    }
    Ok(())
}

fn delta(u: &mut Unstructured) -> Result<Delta> {
    let author = *u.choose(&[PEER, DISTANT, DISTANT, ME, STRANGER])?;
    Ok(Delta { author, records: few(u, |u| record(u, author))? })
}

/// Signed by its author, unless one bit of sixteen cases is wrong.
fn record(u: &mut Unstructured, author: NodeId) -> Result<Record> {
    let (incarnation, version) = (life(u)?, number(u)?);
    let (key, value) = said(u)?;
    let ledger = if u.ratio(1, 32)? { LedgerId(PEER) } else { BOOK };
    let mut record = sign(&Statement { ledger, author, incarnation, version, key: &key, value: &value });
    if u.ratio(1, 32)? {
        record.signature.r[0] ^= 1;
    }
    Ok(record)
}

fn news(u: &mut Unstructured, author: NodeId, incarnation: Incarnation) -> Result<News> {
    let entries = few(u, |u| {
        let (version, (key, value)) = (number(u)?, said(u)?);
        let signature = option(u, |_| {
            Ok(sign(&Statement { ledger: BOOK, author, incarnation, version, key: &key, value: &value })
                .signature)
        })?;
        let forged = u.ratio(1, 32)?.then_some(Signature { r: [1; 32], s: [2; 32] });
        Ok(Entry { key, version, signature: forged.or(signature), value })
    })?;
    let since = if u.arbitrary()? { 0 } else { number(u)? };
    Ok(News { since, upto: number(u)?, entries })
}

/// A name, and mostly a value that it may have.
fn said(u: &mut Unstructured) -> Result<(Key, Value)> {
    let key = match u.int_in_range(0..=8_u8)? {
        0 => Key::Profile,
        1 => Key::Founded,
        2 => Key::Given(node(u)?),
        3 => Key::Reclaimed(node(u)?),
        4 => Key::Row(fingerprint(u)?),
        5 => Key::Pause(fingerprint(u)?, reason(u)?),
        6 => Key::Breaker(fingerprint(u)?),
        7 => Key::Unreported(fingerprint(u)?),
        _ => Key::KeyRow(u.int_in_range(0..=3)?),
    };
    let kind = if u.ratio(1, 32)? { u.int_in_range(0..=8)? } else { kind_of(&key) };
    let value = match kind {
        0 => Value::Profile(profile(u)?),
        1 | 3 => Value::Share(share(u)?),
        2 => Value::Gift(Gift { share: share(u)?, levels: option(u, levels)?, weight: 0 }),
        4 => Value::Row(row(u)?),
        5 => Value::Pause(PauseMark {
            stamp: number(u)?,
            paused: u.arbitrary()?,
            until: option(u, |u| Ok(number(u)? as i64))?,
            reason: reason(u)?,
        }),
        6 => {
            let outcomes = Outcomes { ok: number(u)?, failed: number(u)? };
            let (epoch, open, failed_probes) = (number(u)?, u.arbitrary()?, u.arbitrary()?);
            Value::Breaker(outcomes, Verdict { epoch, open, failed_probes })
        }
        7 => Value::Unreported(Estimate { reserve: number(u)? as u32, samples: number(u)? }),
        _ => Value::KeyRow(option(u, |u| {
            let key = KeyHash::of("users", if u.arbitrary()? { "one" } else { "other" });
            let limit = fingerprint(u)?;
            let fingerprint = if u.ratio(7, 8)? { key.fingerprint(limit) } else { limit };
            let rate = option(u, |u| {
                let (amount, burst) = (u.int_in_range(1..=1_000)?, u.int_in_range(1..=1_000)?);
                Ok(Rate::new(amount, Duration::from_secs(1), burst).expect("within bounds"))
            })?;
            Ok(KeyRow { fingerprint, limit, key, rate, row: row(u)? })
        })?),
    };
    Ok((key, value))
}

fn kind_of(key: &Key) -> u8 {
    match key {
        Key::Profile => 0,
        Key::Founded => 1,
        Key::Given(_) => 2,
        Key::Reclaimed(_) => 3,
        Key::Row(_) => 4,
        Key::Pause(..) => 5,
        Key::Breaker(_) => 6,
        Key::Unreported(_) => 7,
        Key::KeyRow(_) => 8,
        Key::Revoked(_) => 9,
        Key::Lost(_) => 10,
        Key::Evidence(_) => 11,
        Key::Loans(_) => 12,
    }
}

fn profile(u: &mut Unstructured) -> Result<Profile> {
    let nodes = |u: &mut Unstructured| Ok(few(u, node)?.into_iter().collect::<BTreeSet<_>>());
    Ok(Profile {
        name: u.arbitrary()?,
        addresses: few(u, any)?,
        limits: few(u, |u| Ok((u.arbitrary()?, fingerprint(u)?)))?,
        leaving: u.arbitrary()?,
        unlinked: nodes(u)?,
        lost: nodes(u)?,
    })
}

fn row(u: &mut Unstructured) -> Result<Row> {
    Ok(Row {
        used: number(u)?,
        level: number(u)?,
        base: share(u)?,
        held: share(u)?,
        free: share(u)?,
        demand: share(u)?,
        classes: [share(u)?, share(u)?, share(u)?],
        weights: [number(u)? as u32, number(u)? as u32, 0, number(u)? as u32],
        waiting: number(u)?,
        class: u.arbitrary()?,
        need: number(u)?,
        spare: number(u)?,
        open: number(u)?,
        weight: number(u)? as u32,
        tag: number(u)?,
        turn_end: number(u)?,
    })
}

fn levels(u: &mut Unstructured) -> Result<GiftLevels> {
    Ok(GiftLevels { from: life(u)?, to: life(u)?, atoms: few(u, |u| Ok((fingerprint(u)?, atoms(u)?)))? })
}

fn grant(u: &mut Unstructured, said: Option<&Message>) -> Result<Grant> {
    let clock = said.map_or(Instant::ZERO, |said| said.clock);
    let echo = if u.ratio(7, 8)? { clock } else { Instant::from_nanos(number(u)?) };
    Ok(Grant { sequence: number(u)?, version: number(u)?, share: share(u)?, level: atoms(u)?, echo })
}

fn give_back(u: &mut Unstructured) -> Result<Return> {
    let (sequence, heard, version) = (number(u)?, number(u)?, number(u)?);
    Ok(Return { sequence, heard, version, share: share(u)?, level: atoms(u)? })
}

fn digest(u: &mut Unstructured) -> Result<Digest> {
    Ok(match u.int_in_range(0..=3_u8)? {
        0 => Digest::None,
        1 => Digest::Hash(number(u)?),
        2 => Digest::Buckets((0..u.int_in_range(0..=70)?).map(|_| u.arbitrary()).collect::<Result<_>>()?),
        _ => Digest::Full(u.arbitrary()?, few(u, summary)?),
    })
}

fn summary(u: &mut Unstructured) -> Result<Summary> {
    Ok(Summary { author: node(u)?, incarnation: life(u)?, version: number(u)?, sum: u.arbitrary()? })
}

fn node(u: &mut Unstructured) -> Result<NodeId> {
    Ok(*u.choose(&[ME, PEER, DISTANT, STRANGER, NodeId([0; 32]), NodeId([255; 32])])?)
}

fn life(u: &mut Unstructured) -> Result<Incarnation> {
    Ok(Incarnation(*u.choose(&[1, 1, 1, 2, 2, 0, 3, 4, 5, 6, u64::MAX])?))
}

fn reason(u: &mut Unstructured) -> Result<PauseReason> {
    Ok(*u.choose(&[PauseReason::Operator, PauseReason::Throttled])?)
}

/// Those of the node's limits and pools, mostly.
fn fingerprint(u: &mut Unstructured) -> Result<Fingerprint> {
    thread_local! {
        static KNOWN: Vec<Fingerprint> = config(ME, LIFE).pools.iter().flat_map(|pool| {
            let limits = pool.limits().iter().map(|limit| limit.fingerprint(pool.name()));
            limits.chain([Fingerprint::of_pool(pool.name())]).collect::<Vec<_>>()
        }).collect();
    }
    let place = u.int_in_range(0..=7_usize)?;
    Ok(KNOWN.with(|known| known.get(place).copied().unwrap_or(Fingerprint(place as u64))))
}

/// Small ones, powers of two and their neighbours, or any.
fn number(u: &mut Unstructured) -> Result<u64> {
    match u.arbitrary::<u8>()? {
        small @ 0..128 => Ok(small.into()),
        power @ 128..192 => Ok(1 << (power - 128)),
        power @ 192..=254 => Ok((1_u64 << (power - 191)) - 1),
        255 => u.arbitrary(),
    }
}

fn share(u: &mut Unstructured) -> Result<Share> {
    Ok(match u.arbitrary::<u8>()? {
        part @ 0..240 => ONE.scale(part.into(), 120),
        _ => Share(number(u)?),
    })
}

fn atoms(u: &mut Unstructured) -> Result<u128> {
    Ok(if u.arbitrary()? { u128::from(number(u)?) << 64 } else { u128::from(number(u)?) * u128::from(ONE.0) })
}

fn any<T: for<'a> Arbitrary<'a>>(u: &mut Unstructured) -> Result<T> {
    u.arbitrary()
}

fn option<T>(u: &mut Unstructured, some: impl FnOnce(&mut Unstructured) -> Result<T>) -> Result<Option<T>> {
    if u.arbitrary()? { some(u).map(Some) } else { Ok(None) }
}

fn few<T>(u: &mut Unstructured, one: impl Fn(&mut Unstructured) -> Result<T>) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=3 * FEW)?.saturating_sub(2 * FEW);
    (0..count).map(|_| one(u)).collect()
}
