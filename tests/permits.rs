//! Permits on the admission path allocate nothing once as many have been live as ever are, and take bounded memory.

use std::time::Duration;

use allocation_counter::measure;
use aquifer::protocol::id::Incarnation;
use aquifer::protocol::permit::{
    Correction, How, INLINE, PERMITS_DEFAULT, Permit, PermitId, Permits, REMEMBERED, Settled, Settlement,
    Taken,
};
use aquifer::protocol::time::Instant;

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

fn issue(permits: &mut Permits, number: u64, limits: usize) -> PermitId {
    let taken = (0..limits as u32).map(|meter| Taken { meter, units: number }).collect();
    let permit = Permit {
        pool: 0,
        key: None,
        agent: 0,
        taken,
        since: at(number),
        expires: at(number + 50 + number % 7),
    };
    permits.make_room();
    permits.issue(permit.borrowed(), number.is_multiple_of(5)).expect("some can make room")
}

fn settle(permits: &mut Permits, id: PermitId, now: Instant) -> bool {
    let Settled::Now(permit) = permits.settle(id, How::Committed, now) else { return false };
    let refund = |taken: &Taken| Correction::Refund { meter: taken.meter, units: taken.units / 2 };
    let corrections = permit.taken.iter().map(refund).collect();
    permits.remember(id, &Settlement { keyed: None, corrections });
    true
}

/// Issues a permit a millisecond, settles two of three ten later and once more at once, and lets the others expire.
fn work(
    permits: &mut Permits,
    numbers: std::ops::Range<u64>,
    recent: &mut [Option<PermitId>; 10],
    limits: usize,
) {
    for number in numbers {
        while permits.expire(at(number)).is_some() {}
        let place = (number % 10) as usize;
        if let Some(id) = recent[place].take().filter(|_| !number.is_multiple_of(3)) {
            assert!(settle(permits, id, at(number)));
            assert!(matches!(permits.settle(id, How::Released, at(number)), Settled::Already { .. }));
        }
        recent[place] = Some(issue(permits, number, limits));
    }
}

#[test]
fn nothing_is_allocated_once_warm() {
    let mut permits = Permits::new(Incarnation(1), PERMITS_DEFAULT);
    let mut recent = [None; 10];
    let warm = 2 * REMEMBERED as u64;
    let cold = measure(|| work(&mut permits, 0..warm, &mut recent, INLINE));
    assert!(cold.count_total > 0, "the allocator does not count");
    let hot = measure(|| work(&mut permits, warm..2 * warm, &mut recent, INLINE));
    assert_eq!(hot.count_total, 0);
    let long = measure(|| work(&mut permits, 2 * warm..2 * warm + 100, &mut recent, INLINE + 1));
    assert!(long.count_total >= 100, "longer lists are on the heap");
}

#[test]
fn nothing_is_allocated_at_the_bound() {
    let mut permits = Permits::new(Incarnation(1), 1_000);
    let warm = 2 * REMEMBERED as u64;
    for number in 0..warm {
        issue(&mut permits, 5 * number + 1, 4);
    }
    let hot = measure(|| {
        for number in warm..warm + 10_000 {
            issue(&mut permits, 5 * number + 1, 4);
        }
    });
    assert_eq!((permits.len(), hot.count_total), (1_000, 0));
}

#[test]
fn a_live_permit_takes_at_most_256_bytes() {
    let mut permits = Permits::new(Incarnation(1), PERMITS_DEFAULT);
    let memory = measure(|| {
        for number in 0..PERMITS_DEFAULT as u64 {
            issue(&mut permits, number, INLINE);
        }
    });
    assert_eq!(permits.len(), PERMITS_DEFAULT);
    let each = memory.bytes_current.unsigned_abs() / PERMITS_DEFAULT as u64;
    assert!((1..=256).contains(&each), "{each} bytes");
}
