//! How much of a limit a node's callers ask for.

use std::time::Duration;

use super::time::Instant;

/// What arrived in the last [`WINDOW`], in whole slots: integers only, so that every machine computes the same.
///
/// Few arrivals come in uneven numbers even if what causes them is steady, and a share that followed each of them would
/// move all the time. So a slower mean counts, as long as the window does not differ from it by more than chance would
/// have it.
#[derive(Clone, Debug)]
pub struct Demand {
    slots: [u64; SLOTS],
    /// Units of all slots.
    sum: u64,
    slot: u64,
    largest: u64,
    /// Of the present generation and of the one before.
    sizes: [Sizes; 2],
    last: Instant,
    /// The mean per window, in 256ths.
    mean: u64,
}

/// The mean follows the slots by one part in so many: over eight seconds.
const INERTIA: u64 = 64;

const SLOTS: usize = 8;
const SLOT: Duration = Duration::from_millis(125);

/// How large the arrivals of a generation were.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    largest: u64,
    /// Units of the arrivals that had so many binary digits.
    units: [u64; u64::BITS as usize + 1],
}

/// So many slots make a generation: 16 s.
const GENERATION: u64 = 128;

/// Large arrivals matter from one in so many of all units on.
const MATTERS: u128 = 2;

/// How far back arrivals count: long enough to see ten a second as ten a second, short enough that a node which fell
/// silent gives its share back within a second.
pub const WINDOW: Duration = Duration::from_millis(SLOTS as u64 * SLOT.as_millis() as u64);

/// Arrivals have not ceased before so long a pause, however dense they were.
const CEASED_MIN: Duration = Duration::from_millis(20);

impl Demand {
    /// Nothing was asked for yet.
    pub fn new() -> Self {
        Self {
            slots: [0; SLOTS],
            sum: 0,
            slot: 0,
            largest: 0,
            sizes: [Sizes::NONE; 2],
            last: Instant::ZERO,
            mean: 0,
        }
    }

    /// Counts an arrival of `units`, admitted or not.
    pub fn arrive(&mut self, units: u64, now: Instant) {
        self.advance(now);
        let place = (self.slot % SLOTS as u64) as usize;
        self.slots[place] = self.slots[place].saturating_add(units);
        self.sum = self.sum.saturating_add(units);
        self.largest = self.largest.max(units);
        self.sizes[0].arrive(units);
        self.last = self.last.max(now);
        self.anchor();
    }

    /// The mean starts anew where the window is above it by more than what chance makes of it, or below it by twice as
    /// much (to ask for too little costs more than to ask for too much): with requests that know nothing of one another,
    /// the variance of their sum is at most the sum times the largest.
    fn anchor(&mut self) {
        let (sum, mean) = (self.sum, self.mean / 256);
        let difference = sum.abs_diff(mean);
        let square = u128::from(difference) * u128::from(difference);
        let variance = u128::from(sum.max(mean)) * u128::from(self.largest);
        if difference > 0 && (if sum > mean { square } else { square / 4 }) >= variance {
            self.mean = self.sum.saturating_mul(256);
        }
    }

    /// Units that arrive in a [`WINDOW`], as of the last one; none if arrivals have ceased, that is, if the last one is longer ago
    /// than eight times their mean distance (one in 3,000 pauses of a Poisson stream is). So a burst that is over
    /// frees its share long before the window is empty.
    pub fn recent(&mut self, now: Instant) -> u64 {
        self.advance(now);
        if now > self.last + self.patience(self.sum) { 0 } else { self.mean.div_ceil(256) }
    }

    /// Units that arrived in the last [`WINDOW`], chance and all; none if arrivals have ceased.
    pub fn latest(&mut self, now: Instant) -> u64 {
        self.advance(now);
        if now > self.last + self.patience(self.sum) { 0 } else { self.sum }
    }

    /// When arrivals will have ceased if none comes any more; none if they have at `now`.
    pub fn ceases_at(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        let at = self.last + self.patience(self.sum);
        (self.largest > 0 && at >= now).then_some(at + Duration::from_nanos(1))
    }

    /// How long after the last arrival more are expected.
    fn patience(&self, recent: u64) -> Duration {
        let arrivals = recent / self.largest.max(1);
        (WINDOW * 8 / u32::try_from(arrivals.max(1)).unwrap_or(u32::MAX)).max(CEASED_MIN)
    }

    /// The largest arrival since the window was last empty.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// How large, within a factor of two, those arrivals of the last 16 to 32 s are of which no more than `fits` fits at once;
    /// none if they matter little: if what they brought, times how many times `fits` they are beyond it, is less than half of
    /// all units.
    pub fn usual_largest(&self, fits: u64) -> u64 {
        let [now, before] = &self.sizes;
        let of = |digits: usize| u128::from(now.units[digits]) + u128::from(before.units[digits]);
        let all: u128 = (0..now.units.len()).map(of).sum();
        let mut units = 0;
        for digits in (digits(fits) + 1..now.units.len()).rev() {
            units += of(digits);
            let size = now.largest.max(before.largest).min(u64::MAX >> (u64::BITS as usize - digits));
            let beyond = units.saturating_mul(u128::from(size.saturating_sub(fits)));
            if units > 0 && beyond.saturating_mul(MATTERS) >= all.saturating_mul(u128::from(fits)) {
                return size;
            }
        }
        0
    }

    fn advance(&mut self, now: Instant) {
        let slot = now.as_nanos() / SLOT.as_nanos() as u64;
        match (slot / GENERATION).saturating_sub(self.slot / GENERATION) {
            0 => {}
            1 => self.sizes = [Sizes::NONE, self.sizes[0]],
            _ => self.sizes = [Sizes::NONE; 2],
        }
        let passed = slot.saturating_sub(self.slot).min(SLOTS as u64);
        for step in 0..passed {
            let ended = self.slots[((self.slot + step) % SLOTS as u64) as usize];
            let per_window = ended.saturating_mul(SLOTS as u64).saturating_mul(256);
            self.mean = self.mean - self.mean / INERTIA + per_window / INERTIA;
            self.slots[((self.slot + step + 1) % SLOTS as u64) as usize] = 0;
        }
        if passed == SLOTS as u64 {
            self.slots = [0; SLOTS];
        }
        self.slot = self.slot.max(slot);
        if passed > 0 {
            self.sum = self.slots.iter().fold(0_u64, |sum, units| sum.saturating_add(*units));
            if self.sum == 0 {
                self.largest = 0;
            }
            self.anchor();
        }
    }
}

impl Sizes {
    const NONE: Self = Self { largest: 0, units: [0; u64::BITS as usize + 1] };

    fn arrive(&mut self, units: u64) {
        self.largest = self.largest.max(units);
        let of_size = &mut self.units[digits(units)];
        *of_size = of_size.saturating_add(units);
    }
}

/// How many binary digits a number has.
fn digits(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()) as usize
}

impl Default for Demand {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn what_arrived_once_is_forgotten_after_a_second() {
        let mut demand = Demand::new();
        demand.arrive(3, at(100_000));
        assert_eq!((demand.recent(at(100_100)), demand.largest()), (3, 3));
        assert_eq!((demand.recent(at(101_600)), demand.largest()), (0, 0));
    }

    #[test]
    fn chance_does_not_count_but_change_does() {
        let mut demand = Demand::new();
        // Five a second, now four and now six of them.
        let times = [0, 200, 400, 600, 1_000, 1_100, 1_300, 1_500, 1_600, 1_900, 2_050, 2_300, 2_500, 2_900];
        times.iter().for_each(|milli| demand.arrive(1, at(50_000 + milli)));
        assert!((4..=6).contains(&demand.recent(at(52_950))), "{}", demand.recent(at(52_950)));
        (0..12).for_each(|step| demand.arrive(1, at(53_000 + step * 50)));
        assert!(demand.recent(at(53_600)) >= 12);
    }

    #[test]
    fn dense_arrivals_that_cease_stop_counting_soon() {
        let mut demand = Demand::new();
        (0..500).for_each(|milli| demand.arrive(1, at(1_000 + milli)));
        assert!((470..=500).contains(&demand.recent(at(1_515))));
        assert_eq!(demand.recent(at(1_525)), 0);
    }

    #[test]
    fn what_is_large_now_and_then_is_not_usual() {
        let mut demand = Demand::new();
        (0..500).for_each(|step| demand.arrive(1, at(step * 10)));
        demand.arrive(60, at(6_000));
        assert_eq!(
            demand.usual_largest(20),
            0,
            "a ninth of all units, in requests twice as large as what fits"
        );
        demand.arrive(50, at(16_500));
        demand.arrive(70, at(17_000));
        assert_eq!(demand.usual_largest(20), 63, "those beyond 31 brought a quarter");
        assert_eq!(demand.usual_largest(32), 0, "50 may fit as well");
        demand.arrive(1, at(49_000));
        assert_eq!(demand.usual_largest(20), 0, "what is older than two generations is forgotten");
    }

    #[test]
    fn time_that_stands_still_or_jumps_far_is_no_trouble() {
        let mut demand = Demand::new();
        demand.arrive(u64::MAX, at(500));
        demand.arrive(1, at(400));
        assert!(demand.recent(at(500)) >= u64::MAX / 256);
        assert_eq!(demand.recent(Instant::from_nanos(u64::MAX)), 0);
    }
}
