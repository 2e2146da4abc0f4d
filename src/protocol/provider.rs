//! Settling truth from the provider: how much of a limit is used by somebody who does not report it.
//!
//! A provider tells in its answers what remains of a limit. What it counts and the swarm does not is *unreported*
//! use: a colleague's script on the same key, or a lying peer. [`Unreported`] estimates it as a part of the limit, to
//! be taken out of what the shares run on. It only ever lowers a limit.
//!
//! # Why an honest swarm is never lowered
//!
//! Let *U* be what the swarm has admitted and not taken back, ever. At any moment the counters as known lag behind,
//! `used <= U`; every unit is known after [`SETTLE`] at the latest. Of *U*, at most `in_flight` has not reached the
//! provider. *F* is the unreported use.
//!
//! **Rates.** Between two observations, 1 and 2, that are *t* apart, the provider counted at least
//! `P = min(remaining₁ + R·t, top) - remaining₂`, where the bucket never holds more than `top`: exactly that if it
//! was never full, more if it was and what came in was lost. The same holds for the sum over a chain of observations. On
//! the other side `U₂ - U₁ <= used(2 + SETTLE) - used(1)`. So
//!
//! ```text
//! F₂ - F₁  >=  P - (used(2 + SETTLE) - used(1)) - in_flight₁
//! ```
//!
//! and every estimate is a lower bound, that misses what the swarm uses in `SETTLE`, over a horizon of two minutes or
//! more. For `top` stands the most that was ever seen to remain, so that a bucket that is smaller than configured,
//! and full, does not look like one that is being used. Steady unreported use persists in *F*'s slope, which is a
//! part of the rate.
//!
//! **Windows** (sliding or by the calendar) do not refill: the gap is cumulative, and a part of the amount.
//!
//! ```text
//! F  >=  (amount - remaining₁) - (used in the window, 1) - (used(1 + SETTLE) - used(1)) - in_flight₁
//! ```
//!
//! A window that the provider ends a moment later than the swarm looks like a gap for so long; so the smaller of two
//! estimates counts, which are at least `SETTLE` apart.
//!
//! A provider whose own limit is lower than the configured one counts as if the difference were used.
//!
//! Where providers refuse calls, refused calls must be taken back (`release`): counted as used, they would hide as
//! much of the unreported use. A provider that does not refill its buckets all the time has windows, and must be
//! configured so.
//!
//! # Liars
//!
//! An observation changes nothing before another has confirmed that time passed, moves the estimate at most half way,
//! and the estimate ends at [`RESERVE_MAX`]. Across the swarm the weighted median counts ([`Estimates`]).

mod estimates;

use std::collections::VecDeque;
use std::time::Duration;

pub use estimates::{Estimate, Estimates, FRESH};

use super::limit::Rate;
use super::share::{ONE, Share};
use super::time::{Instant, nanos};

/// The most that is ever taken out of a limit, in millionths of it: somebody must go on asking the provider.
pub const RESERVE_MAX: u32 = 900_000;
/// Every unit that any node admitted is known to all after so long, if messages get through.
pub const SETTLE: Duration = Duration::from_secs(3);

/// Less than this, in millionths, is noise: providers round to thousands, answers overtake one another.
const DEAD_BAND: u32 = 20_000;
/// A rate is measured over two periods, but so long at least and at most: what the swarm uses in [`SETTLE`] is
/// missed, and must be little against it.
const HORIZON_RANGE: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(600));
/// Into how many spans the horizon is divided; no more observations are kept.
const SPANS: usize = 32;

/// How a limit's units come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// All the time, as into a bucket.
    Rate(Rate),
    /// Some time after they were used, or at the end of a calendar period.
    Window {
        /// Units in one window.
        amount: u64,
        /// How long it is.
        length: Duration,
    },
}

impl Quota {
    fn amount(&self) -> u64 {
        match self {
            Self::Rate(rate) => rate.amount(),
            Self::Window { amount, .. } => *amount,
        }
    }

    /// How soon the estimate follows.
    fn horizon(&self) -> Duration {
        match self {
            Self::Rate(rate) => (rate.per() * 2).clamp(HORIZON_RANGE.0, HORIZON_RANGE.1),
            Self::Window { length, .. } => (*length).max(SETTLE),
        }
    }

    /// How fast an estimate falls that is too high. That of a rate is a mean over the horizon already.
    fn half_life(&self) -> Duration {
        match self {
            Self::Rate(_) => self.horizon() / 8,
            Self::Window { .. } => self.horizon() / 4,
        }
    }

    /// Between observations that are kept.
    fn span(&self) -> Duration {
        match self {
            Self::Rate(_) => (self.horizon() / SPANS as u32).max(SETTLE),
            Self::Window { .. } => SETTLE,
        }
    }
}

/// What one answer of the provider said, and what was known when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Units that remain, by the provider's word.
    pub remaining: u64,
    /// What the provider says that the limit is: units per period or window.
    pub limit: Option<u64>,
    /// Units that the swarm has used ever, as known here: admitted, less what was taken back.
    pub used: u64,
    /// Units that would remain if the swarm used the whole limit alone, as known here. Only windows need it.
    pub swarm_remaining: u64,
    /// Units that all nodes together have admitted for calls that the provider may not have counted yet. With too
    /// many the estimate is too low by as much, with too few it can be too high.
    pub in_flight: u64,
}

/// An observation in the chain.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: Instant,
    seen: Observation,
    /// At least so much has the provider counted since the chain began.
    provider_used: i128,
    /// What the swarm had used once all that it had used at `at` was known.
    settled: Option<u64>,
}

/// How much of one limit is used without being reported, as this node sees it.
#[derive(Clone, Debug)]
pub struct Unreported {
    quota: Quota,
    points: VecDeque<Point>,
    /// The most that was ever seen to remain.
    top: u64,
    /// The provider's own limit, if it is below what is configured.
    limit: u64,
    /// The newest measurement of a window, in millionths.
    last: u32,
    /// In millionths, as of `measured`.
    smooth: u32,
    measured: Option<Instant>,
    samples: u64,
}

impl Unreported {
    /// Nothing is known.
    pub fn new(quota: Quota) -> Self {
        let limit = quota.amount();
        Self { quota, points: VecDeque::new(), top: 0, limit, last: 0, smooth: 0, measured: None, samples: 0 }
    }

    /// Takes up what an answer of the provider said. Of observations that follow one another closely the first
    /// counts.
    pub fn observe(&mut self, seen: Observation, now: Instant) {
        self.settle(seen.used, now);
        let apart = |point: &Point| point.settled.is_some() && now.since(point.at) >= self.quota.span();
        if !self.points.back().is_none_or(apart) {
            return;
        }
        let (amount, most) = match self.quota {
            Quota::Rate(rate) => (rate.amount(), rate.burst()),
            Quota::Window { amount, .. } => (amount, amount),
        };
        let seen = Observation { remaining: seen.remaining.min(most), ..seen };
        let limit = seen.limit.map_or(amount, |limit| limit.min(amount));
        if limit != self.limit {
            // Another limit is another bucket: nothing of before can be compared.
            self.limit = limit;
            self.points.clear();
            self.top = 0;
        }
        self.top = self.top.max(seen.remaining);
        let provider_used = self.points.back().map_or(0, |before| {
            let refilled = self.refilled(before.seen.remaining, now.since(before.at)).min(self.top.into());
            before.provider_used + refilled as i128 - i128::from(seen.remaining)
        });
        if self.points.len() > SPANS {
            self.points.pop_front();
        }
        self.points.push_back(Point { at: now, seen, provider_used, settled: None });
    }

    /// Tells what the swarm has used ever, as known at `now`. Called often, at least every few seconds, it makes the
    /// estimate sharper; observations do the same.
    pub fn settle(&mut self, used: u64, now: Instant) {
        let Some(point) = self.points.back_mut() else { return };
        if point.settled.is_some() || now.since(point.at) < SETTLE {
            return;
        }
        point.settled = Some(used);
        let measured = match self.quota {
            Quota::Rate(rate) => self.slope(rate),
            Quota::Window { amount, .. } => {
                let gap = self.gap(amount);
                std::mem::replace(&mut self.last, gap).min(gap)
            }
        };
        let amount = self.quota.amount();
        let missing = millionths((amount - self.limit).into(), amount.into());
        self.smooth((measured + missing).min(RESERVE_MAX), now);
    }

    /// The part of the limit to take out of what the shares run on, in millionths: 0 to [`RESERVE_MAX`]. It includes
    /// what the provider's limit is lower than the configured one.
    pub fn reserve(&self, now: Instant) -> u32 {
        let smooth = self.decayed(now);
        if smooth < DEAD_BAND { 0 } else { smooth }
    }

    /// What to publish; none if there is no measurement yet.
    pub fn estimate(&self, now: Instant) -> Option<Estimate> {
        (self.samples > 0).then(|| Estimate { reserve: self.reserve(now), samples: self.samples })
    }

    /// Unreported use per time, in millionths of the rate: the most that can be shown for any part of the horizon
    /// that ends now. Where the bucket was full little can be shown, so the longest part is not always the best.
    fn slope(&self, rate: Rate) -> u32 {
        let newest = self.points.back().expect("BUG! only measured with a point");
        let horizon = self.quota.horizon();
        let since = |first: &Point| {
            let swarm_used = i128::from(newest.settled.unwrap_or(0)) - i128::from(first.seen.used);
            let provider_used = newest.provider_used - first.provider_used;
            let unreported = provider_used - swarm_used.max(0) - i128::from(first.seen.in_flight);
            // Few units in a short time are no rate yet.
            let time = newest.at.since(first.at).max(horizon / 4);
            let whole = u128::from(rate.amount()) * time.as_nanos() / rate.per().as_nanos();
            millionths(u128::try_from(unreported).unwrap_or(0), whole)
        };
        let within = self.points.iter().filter(|first| newest.at.since(first.at) <= horizon);
        within.map(since).max().unwrap_or(0)
    }

    /// Unreported use in the present window, in millionths of the amount.
    fn gap(&self, amount: u64) -> u32 {
        let Point { seen, settled, .. } = self.points.back().expect("BUG! only measured with a point");
        let provider_used = self.limit.saturating_sub(seen.remaining);
        let swarm_used = amount
            .saturating_sub(seen.swarm_remaining)
            .saturating_add(settled.unwrap_or(0).saturating_sub(seen.used))
            .saturating_add(seen.in_flight);
        millionths(provider_used.saturating_sub(swarm_used).into(), amount.into())
    }

    /// Half the way up with every measurement; down by time.
    fn smooth(&mut self, measured: u32, now: Instant) {
        let known = self.decayed(now);
        self.smooth = if measured >= known {
            known + (measured - known).div_ceil(2)
        } else {
            let before = self.measured.unwrap_or(now);
            // What has decayed for want of evidence does not fall for the same time again.
            let apart = now.since(before).min(self.quota.horizon());
            measured + halved(known - measured, apart, self.quota.half_life())
        };
        self.measured = Some(now);
        self.samples += 1;
    }

    /// Without evidence, the estimate holds for one horizon and then falls.
    fn decayed(&self, now: Instant) -> u32 {
        let idle = self.measured.map_or(Duration::ZERO, |at| now.since(at));
        let horizon = self.quota.horizon();
        halved(self.smooth, idle.saturating_sub(horizon), self.quota.half_life())
    }

    fn refilled(&self, remaining: u64, time: Duration) -> u128 {
        match self.quota {
            Quota::Rate(rate) => {
                let refill = u128::from(self.limit) * time.as_nanos() / rate.per().as_nanos();
                refill.saturating_add(remaining.into()).min(u64::MAX.into())
            }
            Quota::Window { .. } => remaining.into(),
        }
    }
}

/// A reserve as a share of the limit.
pub fn reserved(reserve: u32) -> Share {
    ONE.scale(reserve.min(RESERVE_MAX).into(), 1_000_000)
}

/// At most [`RESERVE_MAX`].
fn millionths(part: u128, whole: u128) -> u32 {
    let millionths = part.saturating_mul(1_000_000) / whole.max(1);
    u32::try_from(millionths).unwrap_or(u32::MAX).min(RESERVE_MAX)
}

/// `value × 2^(-time / half_life)`, straight between powers of two: integers, so that all machines compute the same.
fn halved(value: u32, time: Duration, half_life: Duration) -> u32 {
    let (time, half_life) = (nanos(time), nanos(half_life).max(1));
    let value = value.checked_shr(u32::try_from(time / half_life).unwrap_or(u32::MAX)).unwrap_or(0);
    let lost = u128::from(value) * u128::from(time % half_life) / u128::from(half_life) / 2;
    value - lost as u32
}

#[cfg(test)]
mod tests;
