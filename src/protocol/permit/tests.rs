use std::time::Duration;

use proptest::prelude::*;
use smallvec::smallvec;

use super::*;

const LIFE: Incarnation = Incarnation(7);

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn permit(units: u64, expires: u64) -> Permit {
    let taken = smallvec![Taken { meter: 0, units }];
    Permit { pool: 0, key: None, agent: 0, taken, since: Instant::ZERO, expires: at(expires) }
}

fn refund(units: u64) -> Settlement {
    Settlement { keyed: None, corrections: smallvec![Correction::Refund { meter: 0, units }] }
}

#[test]
fn a_repetition_gets_the_first_answer_whatever_it_asks() {
    let mut permits = Permits::new(LIFE, 10);
    let id = permits.issue(permit(5, 9).borrowed(), false).unwrap();
    assert_eq!(permits.get(id), Some(&permit(5, 9)));
    permits.remember(id, &refund(1));
    assert_eq!(permits.settle(id, How::Committed, at(1)), Settled::Now(permit(5, 9)));
    let nothing = Settled::Already { how: How::Committed, settlement: Settlement::default() };
    let before = permits.settle(id, How::Committed, at(1));
    assert_eq!(before, nothing, "what is said of a live permit is not kept");
    permits.remember(id, &refund(2));
    let answer = Settled::Already { how: How::Committed, settlement: refund(2) };
    assert_eq!(permits.settle(id, How::Released, at(99)), answer);
    assert_eq!(permits.expire(at(99)), None);
    assert_eq!((permits.get(id), permits.len()), (None, 0));
}

#[test]
fn a_commit_after_its_time_is_late_even_if_nobody_looked_at_the_clock() {
    let mut permits = Permits::new(LIFE, 10);
    let id = permits.issue(permit(5, 9).borrowed(), true).unwrap();
    assert_eq!(permits.settle(id, How::Committed, at(9)), Settled::Late(permit(5, 9)));
    let answer = Settled::Already { how: How::Expired, settlement: Settlement::default() };
    assert_eq!(permits.settle(id, How::Committed, at(9)), answer);
}

#[test]
fn ids_of_other_lives_settle_nothing() {
    let mut former = Permits::new(Incarnation(6), 10);
    let mut permits = Permits::new(LIFE, 10);
    let mut later = Permits::new(Incarnation(8), 10);
    let [before, id, after] = [&mut former, &mut permits, &mut later]
        .map(|permits| permits.issue(permit(5, 9).borrowed(), false).unwrap());
    assert_eq!(permits.settle(before, How::Released, at(1)), Settled::Former);
    assert_eq!(permits.settle(after, How::Released, at(1)), Settled::Unknown);
    assert_eq!(permits.settle(PermitId { slot: 1, ..id }, How::Released, at(1)), Settled::Unknown);
    assert_eq!(permits.settle(PermitId { generation: 1, ..id }, How::Released, at(1)), Settled::Unknown);
    assert_eq!(permits.len(), 1);
}

#[test]
fn at_the_bound_the_oldest_that_holds_no_slot_makes_room() {
    let mut permits = Permits::new(LIFE, 2);
    let holds = permits.issue(permit(1, 9).borrowed(), true).unwrap();
    let oldest = permits.issue(permit(2, 9).borrowed(), false).unwrap();
    assert!(permits.has_room());
    assert_eq!(permits.issue(permit(3, 9).borrowed(), true), Err(Full { max: 2 }));
    assert_eq!(permits.make_room(), Some((oldest, permit(2, 9))));
    permits.issue(permit(3, 9).borrowed(), true).unwrap();
    assert_eq!((permits.has_room(), permits.make_room()), (false, None));
    assert_eq!(permits.issue(permit(4, 9).borrowed(), true), Err(Full { max: 2 }));
    assert_eq!(permits.settle(holds, How::Closed, at(1)), Settled::Now(permit(1, 9)));
    assert_eq!(permits.make_room(), None);
    permits.issue(permit(4, 9).borrowed(), true).unwrap();
}

#[test]
fn uses_of_a_slot_are_told_apart() {
    let mut permits = Permits::remembering(LIFE, 1, 1);
    let mut ids = Vec::new();
    for round in 0..10 {
        let id = permits.issue(permit(round, 9).borrowed(), false).unwrap();
        assert_eq!(permits.settle(id, How::Released, at(1)), Settled::Now(permit(round, 9)));
        assert!(!ids.contains(&id));
        ids.push(id);
    }
    let (last, earlier) = ids.split_last().unwrap();
    assert!(matches!(permits.settle(*last, How::Released, at(1)), Settled::Already { .. }));
    for id in earlier {
        assert_eq!(permits.settle(*id, How::Released, at(1)), Settled::Forgotten);
    }
    assert_eq!(permits.slots.len(), 2);
    let unused = permits.free[0];
    let next = permits.id(unused);
    assert_eq!(permits.settle(next, How::Released, at(1)), Settled::Unknown, "not issued yet");
}

/// The same by lists that are searched from end to end.
#[derive(Default)]
struct Model {
    live: Vec<(PermitId, Permit, bool)>,
    ended: Vec<(PermitId, How, Settlement)>,
}

impl Model {
    fn end(&mut self, id: PermitId, how: How) -> Option<Permit> {
        let place = self.live.iter().position(|(live, ..)| *live == id)?;
        self.ended.push((id, how, Settlement::default()));
        Some(self.live.remove(place).1)
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.live.iter().map(|(_, permit, _)| permit.expires).min()
    }

    fn settle(&mut self, id: PermitId, how: How, now: Instant, remembered: usize) -> Settled {
        if let Some(place) = self.ended.iter().position(|(ended, ..)| *ended == id) {
            let (_, how, settlement) = self.ended[place].clone();
            let is_remembered = self.ended.len() - place <= remembered;
            return if is_remembered { Settled::Already { how, settlement } } else { Settled::Forgotten };
        }
        let is_late = self.live.iter().any(|(live, permit, _)| *live == id && permit.expires <= now);
        if is_late {
            Settled::Late(self.end(id, How::Expired).unwrap())
        } else {
            self.end(id, how).map_or(Settled::Unknown, Settled::Now)
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Issue { ttl: u64, keep: bool },
    Settle { which: prop::sample::Index, how: How },
    Expire,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop::sample::select(vec![How::Committed, How::Released, How::Closed, How::Expired]);
    prop_oneof![
        4 => (0u64..20, prop::bool::weighted(0.3)).prop_map(|(ttl, keep)| Step::Issue { ttl, keep }),
        4 => (any::<prop::sample::Index>(), how).prop_map(|(which, how)| Step::Settle { which, how }),
        1 => Just(Step::Expire),
        1 => (0u64..10).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn each_permit_ends_once_as_in_the_model(
        steps in proptest::collection::vec(step(), 0..300), max in 1usize..8, remembered in 1usize..8,
    ) {
        let mut permits = Permits::remembering(LIFE, max, remembered);
        let mut model = Model::default();
        let mut ids = Vec::new();
        let mut now = Instant::ZERO;
        for (step, number) in steps.into_iter().zip(0..) {
            match step {
                Step::Wait(seconds) => now = now + Duration::from_secs(seconds),
                Step::Issue { ttl, keep } => {
                    let permit = Permit { expires: now + Duration::from_secs(ttl), ..permit(number, 0) };
                    let oldest = model.live.iter().find(|(.., keep)| !keep).map(|(id, ..)| *id);
                    let is_full = model.live.len() == max;
                    prop_assert_eq!(permits.has_room(), !is_full || oldest.is_some());
                    let oldest = oldest.filter(|_| is_full);
                    let evicted = permits.make_room();
                    prop_assert_eq!(evicted, oldest.map(|id| (id, model.end(id, How::Expired).unwrap())));
                    let issued = permits.issue(permit.borrowed(), keep);
                    if is_full && oldest.is_none() {
                        prop_assert_eq!(issued, Err(Full { max }));
                        continue;
                    }
                    let id = issued.unwrap();
                    prop_assert!(!ids.contains(&id), "{} was issued twice", id);
                    model.live.push((id, permit, keep));
                    ids.push(id);
                }
                Step::Settle { which, how } if !ids.is_empty() => {
                    let id = *which.get(&ids);
                    let settled = permits.settle(id, how, now);
                    prop_assert_eq!(&settled, &model.settle(id, how, now, remembered));
                    if let Settled::Now(_) = settled {
                        permits.remember(id, &refund(number));
                        model.ended.last_mut().unwrap().2 = refund(number);
                    }
                }
                Step::Settle { .. } => {}
                Step::Expire => {
                    while let Some((id, permit)) = permits.expire(now) {
                        prop_assert!(permit.expires <= now);
                        prop_assert_eq!(Some(permit.expires), model.next_expiry());
                        prop_assert_eq!(Some(permit), model.end(id, How::Expired));
                    }
                    prop_assert!(model.next_expiry().is_none_or(|expires| expires > now));
                }
            }
            prop_assert_eq!(permits.next_expiry(), model.next_expiry());
            prop_assert_eq!(permits.len(), model.live.len());
            prop_assert!(permits.slots.len() <= max + remembered);
            let mut listed: Vec<_> = permits.iter().map(|(id, permit)| (id, permit.clone())).collect();
            let mut expected: Vec<_> = model.live.iter().map(|(id, permit, _)| (*id, permit.clone())).collect();
            listed.sort_by_key(|(id, _)| *id);
            expected.sort_by_key(|(id, _)| *id);
            prop_assert_eq!(listed, expected);
        }
    }
}
