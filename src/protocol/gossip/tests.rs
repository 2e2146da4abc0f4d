use proptest::prelude::*;

use super::super::audit::Lie;
use super::super::ledger::Gift;
use super::super::limit::Fingerprint;
use super::super::record::{Profile, Row};
use super::super::share::Share;
use super::*;
use crate::wire::signing::Ideal;

const LEDGER: LedgerId = LedgerId(NodeId([1; 32]));

fn node(id: u8) -> NodeId {
    NodeId([id; 32])
}

fn pages_in_life(id: u8, life: u64) -> Pages {
    let mut pages = Pages::new(node(id), Incarnation(life), Arc::new(Ideal), Instant::ZERO);
    pages.set_ledger(LEDGER);
    pages.set_members((1..9).map(node));
    pages
}

fn pages(id: u8) -> Pages {
    pages_in_life(id, 1)
}

fn write(pages: &mut Pages, key: u64, used: u64) {
    let row = Row { used, ..Row::default() };
    pages.publish(Key::Row(Fingerprint(key)), Value::Row(row), Instant::ZERO);
}

fn give(pages: &mut Pages, to: u8, parts: u64) {
    let gift = Gift { share: Share(parts), levels: None, weight: 0 };
    pages.publish(Key::Given(node(to)), Value::Gift(gift), Instant::ZERO);
}

/// One hears all that is news on the other's page.
fn hear(one: &mut Pages, other: &Pages) -> Absorbed {
    let life = other.pages[&other.me].incarnation;
    let known = one.get(&other.me).filter(|page| page.incarnation == life).map_or(0, Page::version);
    let news = other.own_news(known, known, false);
    news.map_or_else(Absorbed::default, |news| one.hear(other.me, life, &news, Instant::ZERO))
}

fn absorb(one: &mut Pages, delta: &Delta) -> Absorbed {
    let mut absorbed = one.absorb_ledger(delta, Instant::ZERO);
    let pages = one.absorb_pages(delta, Instant::ZERO);
    absorbed.changed.extend(pages.changed);
    absorbed.contradictions.extend(pages.contradictions);
    absorbed.forged |= pages.forged;
    absorbed.double |= pages.double;
    absorbed
}

/// One asks the other for what it lacks.
fn pull(one: &mut Pages, other: &Pages) -> usize {
    let (deltas, _) = other.lacking(u64::MAX, &one.digest(), 0);
    deltas.iter().map(|delta| absorb(one, delta).changed.len()).sum()
}

fn used(pages: &Pages, author: u8, key: u64) -> Option<u64> {
    pages.get(&node(author))?.row(Fingerprint(key)).map(|(row, _)| row.used)
}

#[test]
fn push_then_pull_makes_two_nodes_agree() {
    let (mut one, mut other) = (pages(1), pages(2));
    write(&mut one, 1, 10);
    write(&mut other, 1, 20);
    one.sign();
    other.sign();
    assert!(one.lacking(u64::MAX, &other.digest(), 0).1);
    pull(&mut other, &one);
    assert!(!other.lacking(u64::MAX, &one.digest(), 0).1);
    pull(&mut one, &other);
    assert_eq!(one.digest_hash(), other.digest_hash());
    assert_eq!((used(&one, 2, 1), used(&other, 1, 1)), (Some(20), Some(10)));
}

#[test]
fn what_is_not_signed_is_believed_of_its_author_alone_and_not_passed_on() {
    let (mut one, mut other, mut third) = (pages(1), pages(2), pages(3));
    write(&mut one, 1, 10);
    hear(&mut other, &one);
    assert_eq!(used(&other, 1, 1), Some(10));
    assert_eq!(pull(&mut third, &other), 0);
    one.sign();
    hear(&mut other, &one);
    pull(&mut third, &other);
    assert_eq!(used(&third, 1, 1), Some(10));
}

#[test]
fn a_signed_row_that_comes_late_does_not_take_the_place_of_what_its_author_told_since() {
    let (mut one, mut other, mut third) = (pages(1), pages(2), pages(3));
    write(&mut one, 1, 10);
    one.sign();
    pull(&mut third, &one);
    write(&mut one, 1, 30);
    let mut told = one.clone();
    told.pages.get_mut(&node(1)).unwrap().signed = Signed::default();
    hear(&mut other, &told);
    let (deltas, _) = third.lacking(u64::MAX, &other.digest(), 0);
    let changed = absorb(&mut other, &deltas[0]).changed;
    assert!(changed.iter().all(|change| change.signed && !change.latest) && changed.len() == 1);
    assert_eq!(used(&other, 1, 1), Some(30));
}

#[test]
fn a_record_of_the_ledger_counts_signed_or_not_at_all() {
    let (mut one, mut other) = (pages(1), pages(2));
    give(&mut one, 2, 5);
    let mut news = one.own_news(0, 0, false).unwrap();
    for entry in &mut news.entries {
        entry.signature = None;
    }
    assert_eq!(other.hear(node(1), Incarnation(1), &news, Instant::ZERO).changed, []);
    assert_eq!(other.records().count(), 0);
}

#[test]
fn nothing_beyond_a_gap_is_taken_up() {
    let (mut one, mut other) = (pages(1), pages(2));
    (1..4).for_each(|key| write(&mut one, key, 10 * key));
    let late = one.own_news(2, 2, false).unwrap();
    assert_eq!(other.hear(node(1), Incarnation(1), &late, Instant::ZERO), Absorbed::default());
    assert_eq!((used(&other, 1, 3), other.get(&node(1)).map_or(0, Page::version)), (None, 0));
    hear(&mut other, &one);
    assert_eq!(used(&other, 1, 3), Some(30));
}

#[test]
fn a_long_page_comes_in_pieces_that_are_prefixes() {
    let (mut one, mut other) = (pages(1), pages(2));
    (0..700).for_each(|key| write(&mut one, key, key));
    one.sign();
    let mut pieces = 0;
    while one.digest_hash() != other.digest_hash() && pieces < 100 {
        let (deltas, _) = one.lacking(u64::MAX, &other.digest(), 0);
        assert!(deltas.iter().map(Delta::weight).sum::<usize>() < DELTA_BYTES_MAX + 1_024);
        deltas.iter().for_each(|delta| assert!(!absorb(&mut other, delta).forged));
        pieces += 1;
    }
    assert!((3..100).contains(&pieces), "{pieces}");
}

#[test]
fn somebody_elses_page_is_bounded_in_bytes_and_values() {
    let (mut one, mut other) = (pages(1), pages(2));
    (0..2_000).for_each(|key| write(&mut one, key, key));
    let kept = |pages: &Pages| pages.get(&node(1)).map_or(0, |page| page.entries().count());
    let mut known = 0;
    while let Some(news) = one.own_news(known, known, false) {
        other.hear(node(1), Incarnation(1), &news, Instant::ZERO);
        known = news.upto;
    }
    let weight = ENTRY_WEIGHT + Value::Row(Row::default()).weight();
    assert_eq!(kept(&other), PAGE_BYTES_MAX / weight);
    // What is known can still change.
    write(&mut one, 1, 9);
    hear(&mut other, &one);
    assert_eq!(used(&other, 1, 1), Some(9));
}

#[test]
fn whoever_leaves_one_record_out_is_found_out() {
    let (mut one, mut other, mut third) = (pages(1), pages(2), pages(3));
    write(&mut one, 1, 10);
    write(&mut one, 2, 20);
    one.sign();
    // A liar passes on the later record alone: the version says that all is known.
    let (deltas, _) = one.lacking(u64::MAX, &[], 0);
    let censored = Delta { author: node(1), records: deltas[0].records[1..].to_vec() };
    absorb(&mut other, &censored);
    pull(&mut third, &one);
    assert_eq!(other.digest()[0].version, third.digest()[0].version);
    assert_ne!(other.digest_hash(), third.digest_hash());
    pull(&mut other, &third);
    assert_eq!(other.digest_hash(), third.digest_hash());
}

#[test]
fn nobody_else_moves_ones_own_page() {
    let mut one = pages(1);
    write(&mut one, 1, 10);
    let before = one.digest();
    let mut forged = one.own_news(0, 0, false).unwrap();
    forged.upto = 9;
    forged.entries[0].version = 9;
    assert_eq!(one.hear(node(1), Incarnation(1), &forged, Instant::ZERO), Absorbed::default());
    assert_eq!((one.digest(), one.own_version()), (before, 1));
}

#[test]
fn of_former_lives_the_signed_rows_are_kept() {
    let (mut one, mut other, mut third) = (pages(1), pages(2), pages(3));
    write(&mut one, 1, 10);
    one.publish(Key::Profile, Value::Profile(Profile::default()), Instant::ZERO);
    hear(&mut other, &one);
    let mut reborn = pages_in_life(1, 2);
    write(&mut reborn, 2, 1);
    reborn.sign();
    hear(&mut other, &reborn);
    assert_eq!(hear(&mut other, &one), Absorbed::default());
    assert_eq!(other.get(&node(1)).unwrap().entries().count(), 1);
    let (deltas, _) = other.lacking(u64::MAX, &third.digest(), 0);
    let learned: Vec<_> = deltas.iter().flat_map(|delta| absorb(&mut third, delta).changed).collect();
    let row = |life, used| (Incarnation(life), Value::Row(Row { used, ..Row::default() }));
    let learned: Vec<_> = learned.into_iter().map(|change| (change.life, change.value)).collect();
    assert_eq!(learned, [row(2, 1), row(1, 10)]);
}

/// A page that says a row in each of these lives.
fn live(pages: &mut Pages, author: u8, lives: impl Iterator<Item = u64>) {
    for life in lives {
        let mut alive = pages_in_life(author, life);
        write(&mut alive, 1, life);
        alive.sign();
        hear(pages, &alive);
    }
}

#[test]
fn made_up_lives_crowd_out_their_own_and_nobody_elses() {
    let mut one = pages(1);
    live(&mut one, 2, 1..=3);
    live(&mut one, 3, u64::MAX - 2 * FORMER_MAX as u64..u64::MAX);
    live(&mut one, 4, 1..=2);
    let known = |author: u8| one.digest().iter().filter(|life| life.author == node(author)).count();
    assert_eq!(one.former.len(), FORMER_MAX);
    assert_eq!((known(2), known(4)), (3, 2), "the present one and those before");
    let oldest = one.former.iter().map(|(life, _)| *life).find(|life| life.1 == node(3)).unwrap();
    assert_eq!(oldest.0, Incarnation(u64::MAX - 1 - (FORMER_MAX as u64 - 3)), "the latest are kept");
}

#[test]
fn whoever_knows_nothing_is_told_of_the_ledger_first() {
    let mut one = pages(1);
    give(&mut one, 2, 5);
    one.sign();
    live(&mut one, 3, 1..=FORMER_MAX as u64);
    for turn in 0..FORMER_MAX as u64 {
        let (deltas, _) = one.lacking(u64::MAX, &[], turn);
        assert!(deltas.len() < FORMER_MAX, "not all fit");
        assert!(deltas[0].records.iter().all(|record| record.key.is_record()));
    }
}

#[test]
fn strangers_are_heard_and_not_spoken_of() {
    let (mut one, mut other) = (pages(1), pages(2));
    let mut stranger = pages(9);
    write(&mut stranger, 1, 10);
    stranger.sign();
    hear(&mut one, &stranger);
    assert_eq!(used(&one, 9, 1), Some(10));
    assert_eq!(pull(&mut other, &one), 0);
    one.set_members((1..10).map(node));
    other.set_members((1..10).map(node));
    assert_eq!(pull(&mut other, &one), 1);
}

#[test]
fn two_records_for_one_place_are_a_fork_and_all_choose_the_same() {
    let (mut one, mut twin) = (pages(1), pages(1));
    give(&mut one, 2, 5);
    give(&mut twin, 2, 6);
    let (first, second) = (one.lacking(u64::MAX, &[], 0).0, twin.lacking(u64::MAX, &[], 0).0);
    let (mut other, mut third) = (pages(2), pages(3));
    absorb(&mut other, &first[0]);
    absorb(&mut third, &second[0]);
    for absorbed in [absorb(&mut other, &second[0]), absorb(&mut third, &first[0])] {
        assert_eq!(absorbed.contradictions[0].1, Lie::Fork);
    }
    assert_eq!(other.digest(), third.digest());
}

#[test]
fn a_count_that_shrinks_is_found_in_either_order() {
    let (mut one, mut twin) = (pages(1), pages(1));
    write(&mut one, 1, 10);
    one.sign();
    write(&mut twin, 1, 9);
    write(&mut twin, 2, 9);
    write(&mut twin, 1, 8);
    twin.sign();
    let (before, after) = (one.lacking(u64::MAX, &[], 0).0, twin.lacking(u64::MAX, &[], 0).0);
    for deltas in [[&before[0], &after[0]], [&after[0], &before[0]]] {
        let mut other = pages(2);
        let found: Vec<_> =
            deltas.iter().flat_map(|delta| absorb(&mut other, delta).contradictions).collect();
        assert_eq!(found.iter().map(|(_, lie)| *lie).collect::<Vec<_>>(), [Lie::UsedLess]);
    }
}

#[test]
fn a_copy_of_ones_own_key_is_noticed() {
    let mut one = pages(1);
    let mut copy = pages_in_life(1, 2);
    write(&mut copy, 1, 10);
    copy.sign();
    let delta = &copy.lacking(u64::MAX, &[], 0).0[0];
    assert!(absorb(&mut one, delta).double);
    assert_eq!(used(&one, 1, 1), None);
}

/// What a liar may do to a record on its way.
fn spoil(record: &mut Record, author: &mut NodeId, how: u8, by: u64) {
    match how {
        0 => record.version = record.version.wrapping_add(by),
        1 => record.incarnation = Incarnation(record.incarnation.0.wrapping_add(by)),
        2 => record.signature.r[by as usize % 32] ^= 1 << (by % 8),
        3 => record.signature.s[by as usize % 32] ^= 1 << (by % 8),
        4 => *author = node((by % 9) as u8),
        5 => record.key = Key::Row(Fingerprint(by)),
        6 => record.key = Key::Reclaimed(node((by % 9) as u8)),
        7 => record.value = Value::Share(Share(by)),
        _ => record.value = Value::Row(Row { used: by, ..Row::default() }),
    }
}

proptest! {
    #[test]
    fn a_delta_merge_equals_a_full_merge(
        writes in proptest::collection::vec((0u64..6, 0u64..100), 1..40), cuts in proptest::collection::vec(0usize..40, 0..6),
    ) {
        let (mut author, mut by_delta, mut in_full) = (pages(1), pages(2), pages(2));
        let mut all = Vec::new();
        for (step, (key, value)) in writes.iter().enumerate() {
            write(&mut author, *key, 100 * step as u64 + *value);
            if cuts.contains(&step) {
                author.sign();
                let deltas = author.lacking(u64::MAX, &by_delta.digest(), 0).0;
                deltas.iter().for_each(|delta| { absorb(&mut by_delta, delta); });
                all.extend(deltas);
            }
        }
        author.sign();
        let full = author.lacking(u64::MAX, &[], 0).0;
        full.iter().for_each(|delta| { absorb(&mut in_full, delta); absorb(&mut by_delta, delta); });
        for delta in all.iter().rev() {
            prop_assert_eq!(absorb(&mut in_full, delta), Absorbed::default(), "a replay does nothing");
        }
        prop_assert_eq!(by_delta.digest(), in_full.digest());
        let values = |pages: &Pages| {
            pages.get(&node(1)).unwrap().entries().map(|(key, value)| (*key, value.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(values(&by_delta), values(&in_full));
    }

    #[test]
    fn in_any_order_the_same_is_known(
        writes in proptest::collection::vec((1u8..4, 0u64..4, 0u64..100, any::<bool>()), 1..30), seed in any::<u64>(),
    ) {
        let mut authors = [pages(1), pages(2), pages(3)];
        let mut deltas = Vec::new();
        for (author, key, value, ledger) in writes {
            let author = &mut authors[usize::from(author) - 1];
            if ledger { give(author, key as u8 + 4, value) } else { write(author, key, value) }
            author.sign();
            deltas.extend(author.lacking(u64::MAX, &[], 0).0);
        }
        let (mut one, mut other) = (pages(8), pages(7));
        deltas.iter().for_each(|delta| { absorb(&mut one, delta); });
        deltas.sort_by_key(|delta| delta.records.iter().map(|record| u64::from(record.signature.short())).sum::<u64>() ^ seed);
        deltas.iter().for_each(|delta| { absorb(&mut other, delta); });
        prop_assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn spoiled_records_change_nothing(
        honest in proptest::collection::vec((1u8..4, 0u64..4, 1u64..100, any::<bool>()), 1..10),
        lies in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..9, any::<u64>()), 1..20),
    ) {
        let mut authors = [pages(1), pages(2), pages(3)];
        for (author, key, value, ledger) in honest {
            let author = &mut authors[usize::from(author) - 1];
            if ledger { give(author, key as u8 + 4, value) } else { write(author, key, value) }
            author.sign();
        }
        let mut victim = pages(8);
        for author in &authors {
            pull(&mut victim, author);
        }
        let before = victim.digest();
        let records: Vec<_> = victim.lives().flat_map(|life| {
            life.signed.records().map(move |record| (life.summary.author, record.clone())).collect::<Vec<_>>()
        }).collect();
        for (which, how, by) in lies {
            let (mut author, mut record) = which.get(&records).clone();
            let honest = (author, record.clone());
            spoil(&mut record, &mut author, how, by);
            let absorbed = absorb(&mut victim, &Delta { author, records: vec![record.clone()] });
            prop_assert!(absorbed.changed.is_empty());
            prop_assert!(absorbed.contradictions.is_empty());
            prop_assert!(!absorbed.double);
            if (author, record) == honest {
                prop_assert!(!absorbed.forged);
            }
        }
        prop_assert_eq!(victim.digest(), before);
    }
}
