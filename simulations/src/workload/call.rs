//! What comes of requests once they are admitted: how long the calls take, what they really use, who settles.

use aquifer::protocol::queue::Class;

use super::Workload;
use crate::random::Stream;
use crate::record::{Arrival, Call};
use crate::time::nanos;

/// The deviation of the natural logarithm of how long calls take.
const HOLD_SIGMA: f64 = 1.0;

impl Workload {
    /// Draws the classes and calls of requests, in their order.
    pub(super) fn draw_calls(&self, stream: &mut Stream, arrivals: &mut [Arrival]) {
        if self.classes == [0; 4] && self.hold_ms <= 0.0 && self.refund <= 0.0 {
            return;
        }
        for arrival in arrivals {
            arrival.class = self.draw_class(stream);
            // The mean of a log-normal distribution is the median times this.
            let above_median = (HOLD_SIGMA * HOLD_SIGMA / 2.0).exp();
            let hold = self.hold_ms / 1e3 * (HOLD_SIGMA * stream.normal()).exp() / above_median;
            let settles = !stream.chance(self.forget);
            let corrected = stream.chance(self.refund);
            let used = stream.below(arrival.units + 1);
            let used = if corrected { used } else { arrival.units };
            arrival.call = Call { used, hold: nanos(hold), settles };
        }
    }

    fn draw_class(&self, stream: &mut Stream) -> Class {
        let all: u64 = self.classes.iter().copied().map(u64::from).sum();
        let mut drawn = stream.below(all);
        for (class, weight) in Class::ALL.into_iter().zip(self.classes) {
            match drawn.checked_sub(u64::from(weight)) {
                Some(rest) => drawn = rest,
                None => return class,
            }
        }
        Class::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn drawn(workload: &Workload) -> Vec<Arrival> {
        let mut arrivals = vec![Arrival::new(0, 0, 10, 0); 10_000];
        workload.draw_calls(&mut Stream::new(1, Purpose::Calls, 0), &mut arrivals);
        arrivals
    }

    #[test]
    fn calls_are_as_long_and_as_careful_as_the_workload_says() {
        let workload = Workload {
            hold_ms: 500.0,
            forget: 0.1,
            refund: 0.5,
            classes: [1, 0, 0, 3],
            ..Workload::default()
        };
        let all = drawn(&workload);
        let part =
            |of: fn(&Arrival) -> bool| all.iter().filter(|it| of(it)).count() as f64 / all.len() as f64;
        let mean = all.iter().map(|it| it.call.hold as f64).sum::<f64>() / all.len() as f64;
        assert!((mean / 5e8 - 1.0).abs() < 0.05, "{mean}");
        assert!((part(|it| !it.call.settles) - 0.1).abs() < 0.02);
        assert!((part(|it| it.call.used < it.units) - 0.5 * 10.0 / 11.0).abs() < 0.02);
        assert!((part(|it| it.class == Class::Critical) - 0.25).abs() < 0.02);
        assert!((part(|it| it.class == Class::Low) - 0.75).abs() < 0.02);
    }

    #[test]
    fn nobody_hears_more_of_calls_of_which_nothing_is_said() {
        assert!(drawn(&Workload::default()).iter().all(|it| *it == Arrival::new(0, 0, 10, 0)));
    }
}
