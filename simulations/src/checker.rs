//! What must hold, one checker for each property, looked at after every event.
//!
//! Checkers know nothing of the world: they are told plain facts, keep as little as they can, and answer in constant
//! time wherever an event asks them.

mod bounded;
mod conservation;
mod counters;
mod liveness;
mod never_over;
mod one_answer;
mod starvation;

use std::fmt;

pub use bounded::Bounded;
pub use conservation::Conservation;
pub use counters::Counters;
pub use liveness::{Liveness, VIEWS_MAX, Version};
pub use never_over::NeverOver;
pub use one_answer::{OneAnswer, Waiting};
pub use starvation::NoStarvation;

use thiserror::Error;

use crate::time::{Nanos, seconds};

/// The properties of the design, by their names there, and the bounds that go with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Property {
    /// T1: never over the limit, in any interval.
    NeverOver,
    /// T2: base shares, and shares held and in flight, sum to at most the whole.
    Conservation,
    /// T3: nobody moves another's counter, and no counter shrinks.
    Counters,
    /// T5: nothing is held against whoever is honest, by anybody honest.
    Innocence,
    /// T4: exactly one answer, none admitted after its deadline.
    OneAnswer,
    /// T6: nobody who waits goes without for ever.
    NoStarvation,
    /// Queues, pages and messages stay within their bounds.
    Bounded,
    /// T6, T7: once faults stop, all views agree, and share that nobody uses reaches whoever waits.
    Liveness,
}

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Error)]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// When.
    pub at: Nanos,
    /// How, with numbers.
    pub what: String,
}

impl Violation {
    fn new(property: Property, at: Nanos, what: impl Into<String>) -> Self {
        Self { property, at, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} violated at {:.9} s: {}", self.property, seconds(self.at), self.what)
    }
}
