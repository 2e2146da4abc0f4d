//! What is counted while time runs.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::codec::Outcome;

/// When load begins, and what of it counts.
#[derive(Clone, Copy)]
pub struct Window {
    /// From here on requests are sent.
    pub start: Instant,
    /// From here on answers count: caches and connections are warm.
    pub from: Instant,
    /// Nothing is sent from here on.
    pub end: Instant,
}

impl Window {
    const WARM_UP: Duration = Duration::from_millis(300);

    /// Begins now.
    pub fn begin(measured: Duration) -> Self {
        let start = Instant::now();
        let from = start + Self::WARM_UP;
        Self { start, from, end: from + measured }
    }
}

/// Answers that came within the window.
pub struct Tally {
    window: Window,
    /// Nanoseconds.
    latency: Histogram<u64>,
    /// Answers that said no, or nothing that makes sense. There should be none: limits are such that all is allowed.
    pub not_allowed: u64,
}

impl Tally {
    /// Nothing yet.
    pub fn new(window: Window) -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("BUG! the bounds are in order");
        Self { window, latency, not_allowed: 0 }
    }

    /// An answer came `now` to what was sent, or due, at `asked`.
    pub fn answered(&mut self, asked: Instant, now: Instant, outcome: Outcome) {
        if now < self.window.from || now >= self.window.end {
            return;
        }
        self.latency.saturating_record((now - asked).as_nanos() as u64);
        self.not_allowed += u64::from(outcome != Outcome::Allowed);
    }

    /// What was due at `asked` had no answer when time was over: it waited at least until then.
    pub fn unanswered(&mut self, asked: Instant) {
        self.latency.saturating_record(self.window.end.saturating_duration_since(asked).as_nanos() as u64);
    }

    /// How many answers there were.
    pub fn answers(&self) -> u64 {
        self.latency.len()
    }

    /// The latency below which that part of the answers came, in microseconds.
    pub fn quantile(&self, part: f64) -> f64 {
        self.latency.value_at_quantile(part) as f64 / 1e3
    }
}
