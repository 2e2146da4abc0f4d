//! What will happen, in order of true time, and of planning where that is equal.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use aquifer::protocol::permit::PermitId;
use aquifer::protocol::time::Instant;

use super::machine::Party;
use crate::time::Nanos;

/// Something that will happen.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A message arrives.
    Deliver { to: Party, from: Party, bytes: Vec<u8> },
    /// The timer of a life goes off.
    Timer { node: usize, life: u64 },
    /// A link comes up at one end.
    Up(LinkEnd),
    /// A link breaks at one end.
    Down(LinkEnd),
    /// A node tries to reach a peer again.
    Dial { node: usize, peer: usize, life: u64 },
    /// A node reads its wall clock.
    Wall { node: usize, life: u64 },
    /// A call is over, and its caller settles.
    Settle { node: usize, life: u64, permit: PermitId, used: u64, expires: Instant },
    /// It is time for a liar to speak.
    Lie { node: usize, life: u64 },
    /// A node starts.
    Start(usize),
    /// How the limit is divided is written down.
    Sample,
    /// News is put out.
    Probe,
    /// A step of the scenario.
    Step(usize),
}

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkEnd {
    pub(super) node: usize,
    pub(super) peer: usize,
    pub(super) link: u64,
    /// The lives of the node and of the peer that it is between.
    pub(super) lives: (u64, u64),
}

impl Event {
    /// The node that it happens to, if it can be put off while that stands still.
    pub(super) fn node(&self) -> Option<usize> {
        match self {
            Self::Deliver { to, .. } => Some(to.node()),
            Self::Timer { node, .. }
            | Self::Dial { node, .. }
            | Self::Wall { node, .. }
            | Self::Lie { node, .. }
            | Self::Settle { node, .. } => Some(*node),
            Self::Up(end) | Self::Down(end) => Some(end.node),
            Self::Start(_) | Self::Sample | Self::Probe | Self::Step(_) => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: BinaryHeap<Planned>,
    planned: u64,
}

impl Agenda {
    pub(super) fn push(&mut self, at: Nanos, event: Event) {
        self.planned += 1;
        self.events.push(Planned { at, number: self.planned, event });
    }

    pub(super) fn next_at(&self) -> Option<Nanos> {
        self.events.peek().map(|planned| planned.at)
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.events.pop().map(|planned| planned.event)
    }
}

#[derive(Debug)]
struct Planned {
    at: Nanos,
    number: u64,
    event: Event,
}

impl Ord for Planned {
    /// The heap gives the greatest first, so the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Planned {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_planning() {
        let mut agenda = Agenda::default();
        for (at, step) in [(5, 0), (3, 1), (5, 2), (1, 3), (5, 4)] {
            agenda.push(at, Event::Step(step));
        }
        assert_eq!(agenda.next_at(), Some(1));
        let steps = std::iter::from_fn(|| agenda.pop()).map(|event| match event {
            Event::Step(step) => step,
            _ => unreachable!("only steps were planned"),
        });
        assert_eq!(steps.collect::<Vec<_>>(), [3, 1, 0, 2, 4]);
    }
}
