//! Queues, pages and messages stay within their bounds.

use aquifer::protocol::gossip::{FORMER_MAX, PAGES_MAX};
use aquifer::wire::{MESSAGE_MAX, SAVED_MAX, WireError};

use super::{Property, Violation};
use crate::time::Nanos;

/// The bounds of one swarm.
#[derive(Clone, Copy, Debug)]
pub struct Bounded {
    queue: usize,
    outputs: usize,
}

impl Bounded {
    /// A swarm of so many nodes, at each of which so many requests may wait.
    pub fn new(nodes: usize, queue: usize) -> Self {
        // One call answers everybody who waits at most once, says a few things to each peer, and saves a few times.
        Self { queue, outputs: queue + 4 * nodes + 64 }
    }

    /// So many requests wait at a node.
    ///
    /// # Errors
    /// If that is more than may.
    pub fn queue(&self, waiting: usize, now: Nanos) -> Result<(), Violation> {
        within("requests wait", waiting, self.queue, now)
    }

    /// A message has so many bytes.
    ///
    /// # Errors
    /// If that is more than it may have.
    pub fn message(&self, bytes: usize, now: Nanos) -> Result<(), Violation> {
        within("bytes are one message", bytes, MESSAGE_MAX, now)
    }

    /// A saved state has so many bytes.
    ///
    /// # Errors
    /// If that is more than it may have.
    pub fn saved(&self, bytes: usize, now: Nanos) -> Result<(), Violation> {
        within("bytes are one saved state", bytes, SAVED_MAX, now)
    }

    /// A node knows so many pages: of living nodes, of former lives, and of the ledger's writers.
    ///
    /// # Errors
    /// If that is more than it may.
    pub fn pages(&self, pages: usize, now: Nanos) -> Result<(), Violation> {
        within("pages are known", pages, 2 * PAGES_MAX + FORMER_MAX, now)
    }

    /// One call of a node gave so many outputs.
    ///
    /// # Errors
    /// If that is more than it may.
    pub fn outputs(&self, outputs: usize, now: Nanos) -> Result<(), Violation> {
        within("outputs came of one call", outputs, self.outputs, now)
    }

    /// A node was looked after, its clock shows `local`, and its next deadline is this.
    ///
    /// # Errors
    /// If it should be looked after again at once: it would go on for ever.
    pub fn deadline(&self, deadline: u64, local: u64, now: Nanos) -> Result<(), Violation> {
        if deadline > local {
            return Ok(());
        }
        let what = "a node was looked after and still has something to do";
        Err(Violation::new(Property::Bounded, now, what))
    }

    /// A core's own bytes could not be made, or not be read.
    pub fn malformed(error: &WireError, now: Nanos) -> Violation {
        Violation::new(Property::Bounded, now, format!("a core's own bytes: {error}"))
    }
}

fn within(what: &str, count: usize, most: usize, now: Nanos) -> Result<(), Violation> {
    if count <= most {
        return Ok(());
    }
    Err(Violation::new(Property::Bounded, now, format!("{count} {what}, of at most {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_the_bound_is_seen() {
        type Look = fn(&Bounded, usize, Nanos) -> Result<(), Violation>;
        let check = Bounded::new(10, 1_000);
        let checks: [(Look, usize); 5] = [
            (Bounded::queue, 1_000),
            (Bounded::message, MESSAGE_MAX),
            (Bounded::saved, SAVED_MAX),
            (Bounded::pages, 2 * PAGES_MAX + FORMER_MAX),
            (Bounded::outputs, 1_104),
        ];
        for (look, most) in checks {
            look(&check, most, 1).unwrap();
            assert_eq!(look(&check, most + 1, 2).unwrap_err().property, Property::Bounded);
        }
        check.deadline(8, 7, 1).unwrap();
        assert!(check.deadline(7, 7, 1).is_err(), "no end of it");
        assert!(Bounded::malformed(&WireError::Empty, 1).what.ends_with("it is empty"));
    }
}
