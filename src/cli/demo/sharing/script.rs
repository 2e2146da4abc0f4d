//! Who asks for how much and when: the same script for every system that is compared.

use std::time::Duration;

use crate::cli::demo::chance::Chance;

/// How an agent's demand goes over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Always wants more than the whole limit.
    Greedy,
    /// Silent, then many calls at once.
    Bursty,
    /// Silent, then wants two fifths of the limit.
    Wakes,
    /// A small part of the limit, always.
    Steady,
    /// Joins late and wants half of the limit.
    Joins,
}

/// Who asks at the nodes, by the order of the nodes; the last one joins when another one is gone.
pub const HABITS: [Habit; 6] =
    [Habit::Greedy, Habit::Bursty, Habit::Wakes, Habit::Steady, Habit::Steady, Habit::Joins];
/// How many nodes there are from the start.
pub const NODES: usize = 5;
/// The node that is killed: the one that woke, since it holds more than its own share by then.
pub const KILLED: usize = 2;
/// The node that joins.
pub const JOINS: usize = 5;

const BURST_EVERY: Duration = Duration::from_millis(3_500);
const BURST_LASTS: Duration = Duration::from_millis(300);

impl Habit {
    /// In a word or two, for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Bursty => "bursty",
            Self::Wakes => "idle, wakes",
            Self::Steady => "steady",
            Self::Joins => "joins",
        }
    }

    /// Demand in parts of the limit at `at`, where the idle one wakes at `wakes`.
    fn demand(self, at: Duration, wakes: Duration) -> f64 {
        match self {
            Self::Greedy => 1.5,
            Self::Bursty if at.as_millis() % BURST_EVERY.as_millis() < BURST_LASTS.as_millis() => 2.4,
            Self::Wakes if at >= wakes => 0.4,
            Self::Bursty | Self::Wakes => 0.0,
            Self::Steady => 0.1,
            Self::Joins => 0.5,
        }
    }

    /// When the agent asks, from `from` until `until`. `seed` decides the small irregularities.
    pub fn arrivals(
        self,
        per_second: f64,
        wakes: Duration,
        from: Duration,
        until: Duration,
        seed: u64,
    ) -> Vec<Duration> {
        let step = Duration::from_millis(1);
        let mut chance = Chance::new(seed);
        let mut arrivals = Vec::new();
        let (mut due, mut at) = (chance.between(0.0, 1.0), from);
        while at < until {
            due -= self.demand(at, wakes) * per_second * step.as_secs_f64();
            while due <= 0.0 {
                arrivals.push(at);
                due += chance.between(0.5, 1.5);
            }
            at += step;
        }
        arrivals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn count(habit: Habit, from: u32, until: u32) -> usize {
        habit.arrivals(100.0, 7 * SECOND, from * SECOND, until * SECOND, 1).len()
    }

    #[test]
    fn demand_is_what_the_habit_says() {
        assert!((1_490..=1_510).contains(&count(Habit::Greedy, 0, 10)));
        assert!((97..=103).contains(&count(Habit::Steady, 0, 10)));
        assert_eq!(count(Habit::Wakes, 0, 7), 0);
        assert!((274..=286).contains(&count(Habit::Wakes, 0, 14)));
        assert_eq!(count(Habit::Bursty, 1, 3), 0);
        assert!((140..=148).contains(&count(Habit::Bursty, 0, 7)));
    }

    #[test]
    fn the_script_is_the_same_every_time_and_in_order() {
        let once = Habit::Greedy.arrivals(83.3, SECOND, 2 * SECOND, 4 * SECOND, 7);
        assert_eq!(once, Habit::Greedy.arrivals(83.3, SECOND, 2 * SECOND, 4 * SECOND, 7));
        assert_ne!(once, Habit::Greedy.arrivals(83.3, SECOND, 2 * SECOND, 4 * SECOND, 8));
        assert!(once.is_sorted());
        assert!(once.iter().all(|at| (2 * SECOND..4 * SECOND).contains(at)));
    }

    #[test]
    fn the_load_of_five_is_about_twice_the_limit() {
        let total: usize = HABITS[..NODES].iter().map(|habit| count(*habit, 0, 14)).sum();
        let factor = total as f64 / 1_400.0;
        assert!((1.9..2.3).contains(&factor), "{factor}");
    }
}
