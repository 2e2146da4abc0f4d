//! One machine: a clock, a disk, and a node while it is up.

use std::collections::{BTreeMap, BTreeSet};

use aquifer::protocol::calendar::UnixNanos;
use aquifer::protocol::id::NodeId;
use aquifer::protocol::node::Node;

use crate::checker::OneAnswer;
use crate::clock::{Clock, ClockSpec, any_drift, any_wall_offset, unix};
use crate::liar::Liar;
use crate::random::{Purpose, Stream};
use crate::time::Nanos;

/// The streams of wall clocks have numbers from here on.
const WALLS: u64 = 1 << 32;

/// Who a machine is in the swarm: which machine, and which of its identities. It gets another when its disk is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Party {
    node: u32,
    identity: u32,
}

impl Party {
    pub(super) fn node(self) -> usize {
        self.node as usize
    }
}

/// Its public identity.
pub(super) fn node_id(party: Party) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&(party.node + 1).to_be_bytes());
    id[4..8].copy_from_slice(&party.identity.to_be_bytes());
    NodeId(id)
}

/// The inverse of [`node_id`]; a machine that there is not for an id that nobody has.
pub(super) fn party_of(id: NodeId) -> Party {
    let word = |from: usize| u32::from_be_bytes([id.0[from], id.0[from + 1], id.0[from + 2], id.0[from + 3]]);
    Party { node: word(0).wrapping_sub(1), identity: word(4) }
}

pub(super) struct Machine {
    pub(super) node: Option<Node>,
    /// In the place of a node, where the machine lies.
    pub(super) liar: Option<Box<Liar>>,
    place: usize,
    identity: u32,
    /// How often it was started: the incarnation of its node.
    pub(super) lives: u64,
    pub(super) clock: Clock,
    ppm: i32,
    /// The origins of its clock.
    origins: Stream,
    /// How many nanoseconds its wall clock is fast; slow, if negative.
    pub(super) wall_offset: i64,
    /// What is on its disk.
    pub(super) saved: Option<Vec<u8>>,
    /// When the timer that counts goes off; others on the agenda are void.
    pub(super) timer: Option<Nanos>,
    pub(super) paused_until: Nanos,
    /// It does not even hear while it stands still.
    pub(super) suspended: bool,
    /// It left of its own accord; that it is down is no fault.
    pub(super) left: bool,
    pub(super) requests: OneAnswer,
    /// Somebody waits, as the checkers know it.
    pub(super) waits: bool,
    /// Outputs after which it is killed.
    pub(super) dies_after: Option<usize>,
    /// The link to each peer as this node sees it: its number, and to whom it is.
    pub(super) links: BTreeMap<usize, (u64, Party)>,
    /// Numbers of the links that come up.
    pub(super) connecting: BTreeMap<usize, u64>,
    /// Peers that it was told to reach.
    pub(super) wanted: BTreeSet<usize>,
    /// Peers that it was told to forget.
    pub(super) forgotten: BTreeSet<usize>,
    /// Peers that it will dial again.
    pub(super) redialling: BTreeSet<usize>,
}

impl Machine {
    pub(super) fn new(place: usize, clocks: &ClockSpec, seed: u64) -> Self {
        // Number 0 is the lateness of all timers.
        let mut stream = Stream::new(seed, Purpose::Clocks, place as u64 + 1);
        Self {
            node: None,
            liar: None,
            place,
            identity: 0,
            lives: 0,
            ppm: any_drift(clocks, &mut stream),
            clock: Clock::new(0, 0),
            origins: stream,
            wall_offset: any_wall_offset(
                clocks,
                &mut Stream::new(seed, Purpose::Clocks, WALLS | place as u64),
            ),
            saved: None,
            timer: None,
            paused_until: 0,
            suspended: false,
            left: false,
            requests: OneAnswer::default(),
            waits: false,
            dies_after: None,
            links: BTreeMap::new(),
            connecting: BTreeMap::new(),
            wanted: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            redialling: BTreeSet::new(),
        }
    }

    /// Begins another life, whose clock has another origin; the node is put in by the caller.
    pub(super) fn begin_life(&mut self) {
        self.lives += 1;
        self.clock = Clock::any(self.ppm, &mut self.origins);
        (self.left, self.dies_after, self.timer) = (false, None, None);
    }

    /// Ends its life; what is on disk stays.
    pub(super) fn end_life(&mut self) {
        (self.node, self.liar) = (None, None);
        (self.paused_until, self.suspended, self.timer, self.dies_after) = (0, false, None, None);
        self.links.clear();
        self.connecting.clear();
        self.wanted.clear();
        self.forgotten.clear();
        self.redialling.clear();
    }

    /// Its disk is lost, and who it was.
    pub(super) fn wipe(&mut self) {
        self.saved = None;
        self.identity += 1;
    }

    /// Whether its disk was never lost.
    pub(super) fn is_first_identity(&self) -> bool {
        self.identity == 0
    }

    /// What its wall clock reads.
    pub(super) fn wall(&self, now: Nanos) -> UnixNanos {
        UnixNanos(unix(now).0 + self.wall_offset)
    }

    pub(super) fn party(&self) -> Party {
        Party { node: self.place as u32, identity: self.identity }
    }

    pub(super) fn is_up(&self) -> bool {
        self.node.is_some() || self.liar.is_some()
    }

    /// Whether its deadline has come: it ends what is over before it does anything else.
    pub(super) fn is_due(&self, now: Nanos) -> bool {
        self.node.as_ref().is_some_and(|node| node.next_deadline() <= self.clock.local(now))
    }

    /// One more output is to be carried out: whether it is killed before that.
    pub(super) fn dies_now(&mut self) -> bool {
        match &mut self.dies_after {
            Some(0) => true,
            Some(outputs) => {
                *outputs -= 1;
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_machines_and_come_back() {
        let mut machine = Machine::new(255, &ClockSpec::default(), 1);
        let first = node_id(machine.party());
        assert_eq!(party_of(first), machine.party());
        machine.wipe();
        assert!(node_id(machine.party()) > first, "another identity");
        assert_eq!(party_of(node_id(machine.party())).node(), 255);
        assert!(node_id(Party { node: 256, identity: 0 }) > node_id(machine.party()));
        assert!(party_of(NodeId([0; 32])).node() > 1 << 20, "nobody");
    }
}
