//! What a node is given, and what it gives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::durable::Missing;
use super::{Outcome, Policy, Vouching};
use crate::protocol::agents::Agents;
use crate::protocol::gossip::Record;
use crate::protocol::id::{Incarnation, LedgerId, NodeId};
use crate::protocol::ledger::Ledger;
use crate::protocol::limit::Pool;
use crate::protocol::message::Message;
use crate::protocol::queue::Ticket;
use crate::protocol::signature::Keys;
use crate::protocol::time::Instant;

/// What a node is told once.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its public identity.
    pub id: NodeId,
    /// Greater than in every life before.
    pub incarnation: Incarnation,
    /// Shown to people; at most 128 bytes travel.
    pub name: String,
    /// Its pools, the same on all nodes of the swarm; with at most [`METERS_MAX`](super::METERS_MAX) limits in all.
    pub pools: Vec<Pool>,
    /// For members that vanish; the same on all nodes.
    pub policy: Policy,
    /// How long a member must be without a link to anybody, and silent, to count as vanished. Links that hang for a
    /// moment should not outlast it: a minute for real swarms, seconds on one machine.
    pub forget_after: Duration,
    /// How much of a contended limit it should get against the others; at least 1.
    pub weight: u32,
    /// Those who ask, as far as anything is known of them: their rules.
    pub agents: Agents,
    /// Signs for this node, and checks what others signed.
    pub keys: Arc<dyn Keys>,
    /// Whom base shares come from and go to.
    pub vouching: Vouching,
}

/// Where a node's ledger comes from.
#[derive(Clone, Debug)]
pub enum Start {
    /// It founds a swarm and has the whole.
    Found,
    /// It has nothing and asks its first peer to vouch for it. Where founders are configured it knows the ledger, and may
    /// be one of them.
    Join,
    /// It was a member in a former life.
    Resume(Saved),
    /// It ran before, perhaps as a member, and what it knew is lost, what it gave away among it. It asks its first peer as
    /// under `Join`; a base share that it turns out to have had is not used.
    Rejoin,
}

/// What must survive a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The ledger it belongs to.
    pub id: LedgerId,
    /// Everything known of it, by author.
    pub records: Vec<(NodeId, Record)>,
    /// Where its members were reached.
    pub reached_at: BTreeMap<NodeId, Vec<String>>,
    /// No lease of this life is out any more: the next life need not wait for any.
    pub clean: bool,
    /// What may be missing of slow limits.
    pub missing: Vec<Missing>,
    /// A former life lost what it knew: the base share of before is not used.
    pub forfeits: bool,
}

impl Saved {
    /// What the records say. Whoever was handed them has checked their signatures.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for (author, record) in &self.records {
            ledger.merge(self.id, *author, record.key, &record.value);
        }
        ledger
    }
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A link to a peer came up.
    Up(NodeId),
    /// The last link to a peer went down.
    Down(NodeId),
    /// A peer said something. The link proves that it was this peer.
    Message(NodeId, Box<Message>),
    /// The deadline came.
    Timeout,
}

/// What the driver must do, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write this down durably before carrying out anything that follows.
    Save(Box<Saved>),
    /// Send this over the link.
    Send(NodeId, Box<Message>),
    /// A waiting request has its answer; exactly one for each [`Acquired::Waiting`](super::Acquired::Waiting) that was not cancelled.
    Answer(Ticket, Outcome),
    /// A peer is silent: close the link, dial again.
    Close(NodeId),
    /// Peers can be reached here: dial them if there is no link.
    Reach(NodeId, Vec<String>),
    /// A peer left for good: stop dialling it.
    Forget(NodeId),
    /// The node has left: nothing more will be admitted; stop.
    Left,
    /// Something people should know.
    Notice(String),
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no ledger, or nobody has vouched for it yet.
    Joining,
    /// Leases of its former life may still run: it does not use its base share before this moment.
    Settling(Instant),
    /// It is a member.
    Ready,
    /// It gives everything back, until this moment at the latest.
    Leaving(Instant),
    /// It has nothing to do with the swarm any more.
    Left,
}
