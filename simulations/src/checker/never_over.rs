//! T1: never over the limit, in any interval, whatever its kind.

mod counted;
mod leaky;

use aquifer::protocol::limit::Kind;

use super::{Property, Violation};
use crate::time::{Nanos, SEC};

use counted::{Periods, Sliding, Slots};
use leaky::Leaky;

/// One central limiter that sees every admission at true time, exactly and as it happens.
#[derive(Clone, Debug)]
pub struct NeverOver {
    rule: Rule,
    most: f64,
}

#[derive(Clone, Debug)]
enum Rule {
    Leaky(Leaky),
    Sliding(Sliding),
    Periods(Periods),
    Slots(Slots),
}

impl NeverOver {
    /// A limit of this kind. Clocks may run fast by the drift: a rate is as much greater then, and a window as much
    /// shorter. Periods and slots are what they are.
    ///
    /// # Panics
    /// If it is a rate whose `per` is not one second.
    pub fn new(kind: &Kind, drift_ppm: u32) -> Self {
        let rule = match kind {
            Kind::Rate(rate) => {
                assert_eq!(rate.per().as_nanos(), u128::from(SEC), "BUG! rates are per second here");
                Rule::Leaky(Leaky::new(rate.amount(), rate.burst(), drift_ppm))
            }
            Kind::Window(window) => Rule::Sliding(Sliding::new(window, drift_ppm)),
            Kind::Calendar(calendar) => Rule::Periods(Periods::new(calendar.clone())),
            Kind::Concurrency(limit) => Rule::Slots(Slots::new(limit.amount())),
        };
        Self { rule, most: 0.0 }
    }

    /// Somebody admitted a call at `now` that really uses so many units, and is over by `until`. That counts for permits
    /// alone: what else was used stays used.
    ///
    /// # Errors
    /// If that was more than the limit allows, in any interval that ends now. It is counted all the same.
    pub fn admit(&mut self, units: u64, until: Nanos, now: Nanos) -> Result<(), Violation> {
        let over = match &mut self.rule {
            Rule::Leaky(rule) => rule.admit(units, now),
            Rule::Sliding(rule) => rule.admit(units, now),
            Rule::Periods(rule) => rule.admit(units, now),
            Rule::Slots(rule) => rule.admit(units, until, now),
        };
        self.most = self.most.max(over);
        if over <= 0.0 {
            return Ok(());
        }
        Err(Violation::new(Property::NeverOver, now, format!("{over} units over the limit")))
    }

    /// The most units by which any interval was over the limit so far.
    pub fn overshoot(&self) -> f64 {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aquifer::protocol::calendar::{Calendar, Every, Zone};
    use aquifer::protocol::limit::{Concurrency, Rate, Window};

    use super::*;

    /// Whether the second of two calls is over, that takes all of the limit so long after the first.
    fn second_is_over(kind: &Kind, first: Nanos, after: Nanos) -> bool {
        let mut check = NeverOver::new(kind, 0);
        check.admit(10, first + 3 * SEC, first).unwrap();
        let second = check.admit(10, u64::MAX, first + after);
        assert!(second.is_ok() || check.overshoot() > 0.0);
        second.is_err()
    }

    #[test]
    fn every_kind_counts_for_as_long_as_it_should() {
        let minute = Calendar::new(10, Every::Minute, Zone::utc()).unwrap();
        let second = Duration::from_secs(1);
        // Time begins half a minute before a full one.
        let kinds: [(Kind, Nanos, Nanos); 4] = [
            (Rate::new(10, second, 10).unwrap().into(), 0, SEC),
            (Kind::Window(Window::new(10, 7 * second).unwrap()), SEC, 7 * SEC),
            (Kind::Calendar(minute), SEC, 29 * SEC),
            (Kind::Concurrency(Concurrency::new(10, 60 * second).unwrap()), SEC, 3 * SEC),
        ];
        for (kind, first, after) in kinds {
            assert!(!second_is_over(&kind, first, after), "{kind:?}");
            assert!(second_is_over(&kind, first, after - 100), "{kind:?}");
        }
    }
}
