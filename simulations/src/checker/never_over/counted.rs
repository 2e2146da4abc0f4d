//! Limits whose units come back one by one: in a sliding window, at the end of a period, with a permit.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use aquifer::protocol::calendar::{Calendar, Period};
use aquifer::protocol::limit::Window;

use crate::clock::unix;
use crate::time::Nanos;

/// At most so many units in any interval of a length: the sum of those in the one that ends now, unit by unit.
#[derive(Clone, Debug)]
pub(super) struct Sliding {
    amount: u64,
    length: Nanos,
    used: VecDeque<(Nanos, u64)>,
    sum: u64,
}

/// At most so many units in each true period.
#[derive(Clone, Debug)]
pub(super) struct Periods {
    calendar: Calendar,
    present: Option<Period>,
    used: u64,
}

/// At most so many permits at once.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    amount: u64,
    /// When calls are over, and their units.
    calls: BinaryHeap<Reverse<(Nanos, u64)>>,
    taken: u64,
}

impl Sliding {
    pub(super) fn new(window: &Window, drift_ppm: u32) -> Self {
        let length = window.per().as_nanos() * u128::from(1_000_000 - drift_ppm) / 1_000_000;
        // Clocks tick in whole nanoseconds: two moments are up to one further apart than they should be.
        let length = u64::try_from(length).unwrap_or(u64::MAX).saturating_sub(2);
        Self { amount: window.amount(), length, used: VecDeque::new(), sum: 0 }
    }

    pub(super) fn admit(&mut self, units: u64, now: Nanos) -> f64 {
        while let Some((_, returned)) = self.used.front().filter(|(at, _)| at + self.length <= now) {
            self.sum -= returned;
            self.used.pop_front();
        }
        self.used.push_back((now, units));
        self.sum += units;
        over(self.sum, self.amount)
    }
}

impl Periods {
    pub(super) fn new(calendar: Calendar) -> Self {
        Self { calendar, present: None, used: 0 }
    }

    pub(super) fn admit(&mut self, units: u64, now: Nanos) -> f64 {
        let now = unix(now);
        if self.present.is_none_or(|period| !period.contains(now)) {
            (self.present, self.used) = (Some(self.calendar.period_at(now)), 0);
        }
        self.used += units;
        over(self.used, self.calendar.amount())
    }
}

impl Slots {
    pub(super) fn new(amount: u64) -> Self {
        Self { amount, calls: BinaryHeap::new(), taken: 0 }
    }

    pub(super) fn admit(&mut self, units: u64, until: Nanos, now: Nanos) -> f64 {
        while let Some(Reverse((_, units))) = self.calls.peek().filter(|Reverse((until, _))| *until <= now) {
            self.taken -= units;
            self.calls.pop();
        }
        self.calls.push(Reverse((until, units)));
        self.taken += units;
        over(self.taken, self.amount)
    }
}

fn over(used: u64, amount: u64) -> f64 {
    used.saturating_sub(amount) as f64
}
