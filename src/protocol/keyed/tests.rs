mod swarm;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::bucket::{LeakyBucket, Level};
use crate::protocol::limit::Rate;
use crate::protocol::share::ONE;

const SEC: u64 = 1_000_000_000;
const HALF: Share = Share(ONE.0 / 2);

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn rate(amount: u64, burst: u64) -> Rate {
    Rate::new(amount, Duration::from_secs(1), burst).unwrap()
}

/// One limit of ten a second and a burst of 20, founded here.
fn founded(keys_max: usize) -> Keys {
    let mut keys = Keys::new(vec![rate(10, 20)], keys_max, at(0));
    keys.start_full(ONE, at(0));
    keys
}

fn units_of(balance: Balance, rate: &Rate) -> u64 {
    balance.level().units(&(*rate).into())
}

/// Whole units that the key has of the first limit; the key stays as it is.
fn left(keys: &Keys, key: KeyHash, now: Instant) -> u64 {
    units_of(keys.clone().promote(key, now).unwrap()[0], &keys.terms[0].rate)
}

#[test]
fn the_hash_separates_pool_and_key() {
    assert_eq!(KeyHash::of("ab", "c"), KeyHash::of("ab", "c"));
    assert_ne!(KeyHash::of("ab", "c"), KeyHash::of("a", "bc"));
}

#[test]
fn every_key_has_the_whole_limit_and_none_touches_another() {
    let mut keys = founded(10);
    for key in (0..3).map(KeyHash) {
        assert_eq!(keys.acquire(key, &[20], at(0)), Taken::Admitted);
        let ready_at = Some(at(SEC / 10));
        assert_eq!(keys.acquire(key, &[1], at(0)), Taken::Lacking { limit: 0, ready_at });
    }
    let almost = Taken::Lacking { limit: 0, ready_at: Some(at(SEC / 10)) };
    assert_eq!(keys.peek(KeyHash(0), &[1], at(SEC / 10 - 1)), almost);
    assert_eq!(keys.peek(KeyHash(0), &[1], at(SEC / 10)), Taken::Admitted);
    assert_eq!((keys.len(), keys.admitted(0)), (3, 60));
}

#[test]
fn all_limits_are_taken_or_none_and_the_last_to_be_ready_is_named() {
    let rates = vec![rate(10, 10), rate(1, 10), rate(10, 10)];
    let mut keys = Keys::new(rates, 10, at(0));
    keys.start_full(ONE, at(0));
    assert_eq!(keys.acquire(KeyHash(1), &[5, 5, 5], at(0)), Taken::Admitted);
    let lacking = Taken::Lacking { limit: 1, ready_at: Some(at(2 * SEC)) };
    assert_eq!(keys.acquire(KeyHash(1), &[7, 7, 7], at(0)), lacking);
    let never = Taken::Lacking { limit: 2, ready_at: None };
    assert_eq!(keys.acquire(KeyHash(1), &[1, 7, 11], at(0)), never);
    assert_eq!(keys.acquire(KeyHash(1), &[5, 5, 5], at(0)), Taken::Admitted);
    assert_eq!([0, 1, 2].map(|limit| keys.admitted(limit)), [10; 3]);
}

#[test]
fn what_a_share_can_never_hold_has_no_moment() {
    let mut keys = Keys::new(vec![rate(10, 20)], 10, at(0));
    let never = Taken::Lacking { limit: 0, ready_at: None };
    assert_eq!(keys.acquire(KeyHash(1), &[1], at(0)), never);
    keys.set_base(HALF, at(0));
    let soon = Taken::Lacking { limit: 0, ready_at: Some(at(2 * SEC)) };
    assert_eq!(keys.acquire(KeyHash(1), &[10], at(0)), soon, "a share that came is empty");
    assert_eq!(keys.acquire(KeyHash(1), &[11], at(0)), never);
    assert_eq!(keys.len(), 0, "a refused stranger is not written down");
}

#[test]
fn idle_and_full_keys_are_forgotten_and_no_others() {
    let mut keys = founded(100);
    for key in 0..50 {
        keys.acquire(KeyHash(key), &[1 + key as u64 % 2], at(0));
    }
    assert_eq!(keys.sweep(100, at(SEC / 10 - 1)), 0);
    assert_eq!(keys.sweep(100, at(SEC / 10)), 25);
    assert!((0..50).map(KeyHash).all(|key| left(&keys, key, at(SEC / 10)) == 20 - key.0 as u64 % 2));
    assert_eq!((keys.sweep(1_000, at(SEC / 5)), keys.len()), (25, 0));
    assert_eq!(keys.sweep(1_000, at(SEC / 5)), 0);
}

#[test]
fn whoever_adds_a_key_sweeps_along() {
    let mut keys = founded(2_000);
    for key in 0..1_000 {
        assert_eq!(keys.acquire(KeyHash(key), &[1], at(0)), Taken::Admitted);
    }
    for key in 5_000..5_750 {
        assert_eq!(keys.acquire(KeyHash(key), &[20], at(SEC)), Taken::Admitted);
    }
    assert!(keys.len() <= 1_000, "{} keys: it grew, though others could be forgotten", keys.len());
}

#[test]
fn at_the_bound_strangers_are_refused_until_a_key_is_full_again() {
    let mut keys = founded(3);
    for key in (0..3).map(KeyHash) {
        assert_eq!(keys.acquire(key, &[2], at(0)), Taken::Admitted);
    }
    assert_eq!(keys.acquire(KeyHash(3), &[2], at(SEC / 5 - 1)), Taken::Full);
    assert!(!keys.owe(KeyHash(3), &[2], at(SEC / 5 - 1)));
    assert_eq!(keys.acquire(KeyHash(2), &[2], at(SEC / 5 - 1)), Taken::Admitted, "known ones are not");
    assert_eq!(keys.acquire(KeyHash(3), &[2], at(SEC / 5)), Taken::Admitted);
    assert!(keys.len() <= 3);
}

#[test]
fn a_refund_comes_back_but_never_above_full() {
    let mut keys = founded(10);
    keys.acquire(KeyHash(1), &[15], at(0));
    assert!(keys.refund(KeyHash(1), &[5], at(0), at(0)));
    assert_eq!(left(&keys, KeyHash(1), at(0)), 10);
    assert!(keys.refund(KeyHash(1), &[15], at(0), at(0)));
    assert_eq!(left(&keys, KeyHash(1), at(0)), 20);
    assert_eq!(keys.sweep(1, at(0)), 1);
    assert!(!keys.refund(KeyHash(1), &[5], at(0), at(0)));
    assert_eq!((left(&keys, KeyHash(1), at(0)), keys.len()), (20, 0));
}

#[test]
fn a_burst_that_came_again_and_was_spent_is_not_given_back_too() {
    let mut keys = founded(10);
    assert_eq!(keys.acquire(KeyHash(1), &[20], at(0)), Taken::Admitted);
    assert_eq!(keys.acquire(KeyHash(1), &[20], at(2 * SEC)), Taken::Admitted);
    assert!(!keys.refund(KeyHash(1), &[20], at(0), at(2 * SEC)));
    assert_eq!(left(&keys, KeyHash(1), at(2 * SEC)), 0, "20 and 10 a second: no 60 in two seconds");
}

#[test]
fn a_refund_fills_the_room_that_is_left_unless_the_share_changed_meanwhile() {
    for (changes, units) in [(0, 20), (2, 10)] {
        let mut keys = founded(10);
        keys.acquire(KeyHash(1), &[20], at(0));
        keys.acquire(KeyHash(2), &[20], at(SEC / 2));
        keys.peek(KeyHash(1), &[20], at(SEC / 2));
        for change in 0..changes {
            keys.set_base(if change % 2 == 0 { HALF } else { ONE }, at(SEC));
        }
        assert_eq!(keys.refund(KeyHash(1), &[15], at(0), at(SEC)), changes == 0);
        assert_eq!(left(&keys, KeyHash(1), at(SEC)), units);
    }
}

#[test]
fn a_debt_is_paid_first() {
    let mut keys = founded(10);
    assert!(keys.owe(KeyHash(1), &[25], at(0)));
    let paid = Taken::Lacking { limit: 0, ready_at: Some(at(SEC / 2)) };
    assert_eq!(keys.acquire(KeyHash(1), &[0], at(0)), paid);
    assert_eq!(keys.sweep(1, at(SEC / 2)), 0);
    assert_eq!(keys.acquire(KeyHash(1), &[0], at(SEC / 2)), Taken::Admitted);
    assert_eq!(left(&keys, KeyHash(1), at(SEC)), 5);
}

#[test]
fn a_promoted_key_is_in_one_place_only() {
    let mut keys = founded(2);
    keys.acquire(KeyHash(1), &[15], at(0));
    let balances = keys.promote(KeyHash(1), at(SEC / 10)).unwrap();
    assert_eq!((units_of(balances[0], &keys.terms[0].rate), keys.len()), (6, 0));
    assert_eq!(keys.promote(KeyHash(1), at(0)), None);
    assert_eq!(keys.acquire(KeyHash(1), &[0], at(0)), Taken::Promoted);
    assert!(!keys.owe(KeyHash(1), &[1], at(0)));
    assert!(!keys.refund(KeyHash(1), &[1], at(0), at(SEC / 10)));
    assert!(keys.is_empty() && keys.promoted().eq([KeyHash(1)]));

    let now = at(10 * SEC);
    assert!(!keys.demote(KeyHash(1), HALF, &balances, now), "a part is still out");
    assert!(keys.demote(KeyHash(1), ONE, &balances, now));
    assert!(!keys.demote(KeyHash(1), ONE, &balances, now), "once");
    assert!(!keys.is_promoted(KeyHash(1)));
    assert_eq!(left(&keys, KeyHash(1), now), 6);

    keys.promote(KeyHash(1), now).unwrap();
    let many = [Balance::new(Level(u128::MAX), Level::ZERO)];
    assert!(keys.demote(KeyHash(1), ONE, &many, now));
    assert_eq!(left(&keys, KeyHash(1), now), 20, "never more than a key that was never used");
}

#[test]
fn a_key_that_cannot_be_written_down_stays_promoted() {
    let mut keys = founded(1);
    let full = keys.promote(KeyHash(1), at(0)).unwrap();
    keys.acquire(KeyHash(2), &[1], at(0));
    assert!(!keys.demote(KeyHash(1), ONE, &[Balance::ZERO], at(0)) && keys.is_promoted(KeyHash(1)));
    assert!(keys.demote(KeyHash(1), ONE, &full, at(0)), "what is full need not be written down");
    keys.promote(KeyHash(1), at(0)).unwrap();
    assert!(keys.demote(KeyHash(1), ONE, &[Balance::ZERO], at(SEC)));
}

#[test]
fn the_promoted_are_bounded() {
    let mut keys = founded(1);
    assert!((0..PROMOTED_MAX).all(|key| keys.promote(KeyHash(key as u128), at(0)).is_some()));
    assert_eq!(keys.promote(KeyHash(u128::MAX), at(0)), None);
    assert!(!keys.is_promoted(KeyHash(u128::MAX)));
}

/// A key with ten units left and one that owes ten; then the base share halves and comes back so many times, each a
/// millisecond after the other. Gives what both have of the limit then.
fn after_flaps(flaps: usize) -> (Balance, Balance) {
    let mut keys = founded(10);
    keys.acquire(KeyHash(1), &[10], at(0));
    keys.owe(KeyHash(2), &[30], at(0));
    for flap in 0..flaps {
        keys.set_base(if flap % 2 == 0 { HALF } else { ONE }, at((flap as u64 + 1) * SEC / 1_000));
    }
    let now = keys.now;
    (keys.promote(KeyHash(1), now).unwrap()[0], keys.promote(KeyHash(2), now).unwrap()[0])
}

#[test]
fn a_key_that_missed_more_changes_than_are_kept_counts_as_empty_and_still_owes() {
    let rate = rate(10, 20);
    let earned_over = |changes: u64| Balance::ZERO.earn(&rate, Share(ONE.0 / 4 * 3), changes * SEC / 1_000);
    let ten = Balance::of(10, &rate);
    let (full, owing) = after_flaps(CHANGES_MAX);
    // The first millisecond is on the whole, the others on a half and the whole by turns; nothing overflows above ten.
    assert!(full > ten.minus(Balance::of(1, &rate)) && owing < Balance::ZERO.minus(Balance::of(9, &rate)));
    let (full, owing) = after_flaps(CHANGES_MAX + 1);
    assert_eq!(full, earned_over(CHANGES_MAX as u64), "empty at the change that was lost");
    assert_eq!(owing, Balance::ZERO.minus(ten).plus(earned_over(CHANGES_MAX as u64)));
}

#[test]
fn a_key_of_the_very_moment_of_lost_changes_counts_as_empty() {
    let mut keys = founded(10);
    keys.acquire(KeyHash(1), &[1], at(0));
    keys.set_base(Share::ZERO, at(0));
    keys.set_base(ONE, at(0));
    for change in 1..=CHANGES_MAX as u64 {
        keys.set_base(ONE - Share(change), at(1));
    }
    assert_eq!(keys.promote(KeyHash(1), at(1)), keys.promote(KeyHash(2), at(1)));
}

/// One thing that happens to one key on one node.
#[derive(Clone, Debug)]
enum Touch {
    Take(u64),
    Refund(u64),
    Owe(u64),
    Base(u64),
    Sweep,
    Back(u64),
    Look,
}

fn touches() -> impl Strategy<Value = Vec<(u64, Touch)>> {
    let touch = prop_oneof![
        4 => (1..12_u64).prop_map(Touch::Take),
        1 => (1..12_u64).prop_map(Touch::Refund),
        1 => (1..12_u64).prop_map(Touch::Owe),
        3 => prop_oneof![Just(0), Just(ONE.0), 0..=ONE.0].prop_map(Touch::Base),
        2 => Just(Touch::Sweep),
        1 => (1..5 * SEC).prop_map(Touch::Back),
        1 => Just(Touch::Look),
    ];
    vec((prop_oneof![Just(0), 0..SEC / 2, 0..5 * SEC], touch), 1..60)
}

proptest! {
    /// The oracle is the bucket that meters run on.
    #[test]
    fn a_key_is_a_leaky_bucket_whenever_it_is_looked_at(touches in touches(), amount in 1..30_u64, burst in 1..30_u64) {
        let rate = rate(amount, burst);
        let mut keys = Keys::new(vec![rate], 10, at(0));
        let mut virgin = LeakyBucket::new(rate, at(0));
        keys.start_full(ONE, at(0));
        virgin.grow(ONE, virgin.depth_of(ONE));
        let mut bucket = virgin.clone();
        let mut now = 0;
        let key = KeyHash(7);
        // The last take, if it can still be given back.
        let mut taken: Option<(u64, u64)> = None;
        let mut rebased_at = None;
        for (wait, touch) in touches {
            now += wait;
            for bucket in [&mut bucket, &mut virgin] {
                bucket.refill(at(now));
            }
            match touch {
                Touch::Take(units) => {
                    let has = !bucket.in_debt() && bucket.level() >= LeakyBucket::level_of(units, &rate);
                    prop_assert_eq!(keys.acquire(key, &[units], at(now)) == Taken::Admitted, has);
                    if has {
                        bucket.take(units);
                        taken = Some((units, now)).filter(|_| rebased_at != Some(now));
                    }
                }
                Touch::Refund(units) => {
                    // Of the same moment nothing is known to the oracle.
                    if let Some((most, since)) = taken.filter(|(_, since)| *since < now) {
                        let units = units.min(most);
                        // A key that was forgotten is full: there is no room.
                        keys.refund(key, &[units], at(since), at(now));
                        bucket.refund(units, at(since));
                        taken = None;
                    }
                }
                Touch::Owe(units) => {
                    prop_assert!(keys.owe(key, &[units], at(now)));
                    bucket.take(units);
                    taken = None;
                }
                Touch::Base(parts) => {
                    if Share(parts) != keys.base() {
                        (taken, rebased_at) = (None, Some(now));
                    }
                    keys.set_base(Share(parts), at(now));
                    for bucket in [&mut bucket, &mut virgin] {
                        let (share, held) = (Share(parts), bucket.share());
                        if share > held {
                            bucket.grow(share - held, Level::ZERO);
                        } else {
                            bucket.shrink(held - share, Level::ZERO);
                        }
                    }
                }
                Touch::Sweep => {
                    keys.sweep(1, at(now));
                    let is_full = !bucket.in_debt() && bucket.level() == virgin.level();
                    prop_assert_eq!(keys.is_empty() || !is_full, true, "idle and full, and not forgotten");
                }
                Touch::Back(nanos) => {
                    keys.peek(key, &[1], at(now));
                    keys.peek(key, &[1], at(now.saturating_sub(nanos)));
                }
                Touch::Look => {
                    let found = keys.clone().promote(key, at(now)).unwrap()[0];
                    prop_assert_eq!(found.level(), bucket.level());
                    prop_assert_eq!(found.debt() > Level::ZERO, bucket.in_debt());
                }
            }
        }
        let paid_at = match keys.peek(key, &[0], at(now)) {
            Taken::Lacking { ready_at, .. } => ready_at,
            _ => Some(at(now)),
        };
        prop_assert_eq!(paid_at, bucket.ready_at(0));
        prop_assert_eq!(keys.promote(key, at(now)).unwrap()[0].level(), bucket.level());
    }
}
