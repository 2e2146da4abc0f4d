//! The core and what it needs of the world, in one thread: the clock, the timer, the disk and the waiting callers.
//!
//! Whoever handles a request calls straight into the core; no channel and no lock lies between. Messages to peers are
//! left in a queue for the task that owns the transport. What must be on disk first is held until it is, by
//! `held`; nothing else waits.

mod asking;
mod bound;
mod held;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use self::asking::Waiting;
pub use self::asking::{Pending, Reply, Request, Wanted};
pub use self::bound::{Binding, Bound};
use self::held::Disk;
use super::admission_log::AdmissionLog;
use super::clock::Clock;
use super::state::store::Store;
use super::timer::Timer;
use crate::protocol::breaker::CallOutcome;
use crate::protocol::id::NodeId;
use crate::protocol::limit::Cost;
use crate::protocol::node::{ForgetError, Forgotten, Input, Node, Output, SettleError, Settling, VouchError};
use crate::protocol::permit::PermitId;
use crate::protocol::queue::Ticket;
use crate::protocol::share::Share;
use crate::protocol::time::Instant;
use crate::wire;

/// What the transport should do.
#[derive(Debug)]
pub enum Errand {
    /// Send these bytes.
    Send(NodeId, Vec<u8>),
    /// Close the links and dial again.
    Close(NodeId),
    /// Peers can be reached there.
    Reach(NodeId, Vec<String>),
    /// Stop dialling.
    Forget(NodeId),
}

/// How often the core is told what the wall clock reads.
const WALL_EVERY: Duration = Duration::from_secs(10);
/// The most errands that wait for the transport; beyond it messages are lost, as the protocol allows.
const ERRANDS_MAX: usize = 4_096;

/// A handle on the core; clones share it. Not for other threads.
#[derive(Clone)]
pub struct Engine {
    shared: Rc<Shared>,
}

struct Shared {
    node: RefCell<Node>,
    waiting: RefCell<BTreeMap<Ticket, Waiting>>,
    errands: RefCell<VecDeque<Errand>>,
    errand: Notify,
    log: RefCell<Option<AdmissionLog>>,
    disk: Disk,
    clock: Clock,
    /// When the core was last told the wall clock.
    wall_told: Cell<Instant>,
    timer: Timer,
    armed: Cell<Option<Instant>>,
    left: Cell<bool>,
    gone: Notify,
}

impl Engine {
    /// An engine for this node.
    pub fn new(mut node: Node, state: Store, log: Option<AdmissionLog>, clock: Clock, timer: Timer) -> Self {
        let now = clock.now();
        node.set_wall(clock.wall(), now);
        let shared = Shared {
            node: RefCell::new(node),
            waiting: RefCell::default(),
            errands: RefCell::default(),
            errand: Notify::new(),
            log: RefCell::new(log),
            disk: Disk::new(state),
            clock,
            wall_told: Cell::new(now),
            timer,
            armed: Cell::new(None),
            left: Cell::new(false),
            gone: Notify::new(),
        };
        let engine = Self { shared: Rc::new(shared) };
        engine.carry_out(now);
        engine
    }

    /// Now, on the node's clock.
    pub fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    /// Tells what a call really used.
    ///
    /// # Errors
    /// If the permit cannot be settled any more.
    pub fn commit(&self, permit: PermitId, used: &Cost) -> Result<Settling, SettleError> {
        self.change(|node, now| node.commit(permit, used, now))
    }

    /// Tells that a call used nothing.
    ///
    /// # Errors
    /// If the permit cannot be settled any more.
    pub fn release(&self, permit: PermitId) -> Result<Settling, SettleError> {
        self.change(|node, now| node.release(permit, now))
    }

    /// Pauses a pool in the whole swarm, until it is resumed if no length is given.
    pub fn pause(&self, pool: usize, length: Option<Duration>) {
        self.change(|node, now| node.pause(pool, length, now));
    }

    /// Ends every pause of a pool in the whole swarm.
    pub fn resume(&self, pool: usize) {
        self.change(|node, now| node.resume(pool, now));
    }

    /// Vouches for a peer, with a weight in thousandths if one is said. Returns what it was given.
    ///
    /// # Errors
    /// See [`VouchError`].
    pub fn vouch(&self, peer: NodeId, weight: Option<u32>) -> Result<Share, VouchError> {
        self.change(|node, now| node.vouch(peer, weight, now))
    }

    /// Takes back what this node gave to a member.
    ///
    /// # Errors
    /// If there is nothing to take back, or this node is no member itself.
    pub fn forget(&self, member: NodeId) -> Result<Forgotten, ForgetError> {
        self.change(|node, now| node.forget(member, now))
    }

    /// Tells how a call of the pool ended.
    pub fn observe(&self, pool: usize, outcome: CallOutcome, retry_after: Option<Duration>) {
        self.change(|node, now| node.observe(pool, outcome, retry_after, now));
    }

    /// Tells what the provider says is left of a limit.
    pub fn observe_remaining(&self, pool: usize, limit: usize, remaining: u64, said_limit: Option<u64>) {
        self.change(|node, now| node.observe_remaining(pool, limit, remaining, said_limit, now));
    }

    /// The connection to which a permit was bound is gone.
    fn close(&self, permit: PermitId) {
        self.change(|node, now| node.close(permit, now));
    }

    /// Tells the core the wall clock if that is due.
    pub fn tell_wall(&self) {
        self.change(|_, _| ());
    }

    /// Something happened in the world.
    pub fn handle(&self, input: Input) {
        self.change(|node, now| node.handle(input, now));
    }

    /// A peer's bytes. An error says why they were not understood.
    ///
    /// # Errors
    /// Malformed bytes; the core never saw them.
    pub fn hear(&self, from: NodeId, bytes: &[u8]) -> Result<(), wire::WireError> {
        let message = wire::decode_message(bytes)?;
        self.handle(Input::Message(from, Box::new(message)));
        Ok(())
    }

    /// Tells the core where it is reached.
    pub fn set_addresses(&self, addresses: Vec<String>) {
        self.change(|node, now| node.set_addresses(addresses, now));
    }

    /// Starts to leave.
    pub fn leave(&self) {
        self.change(Node::leave);
    }

    /// Looks at the core.
    pub fn look<T>(&self, look: impl FnOnce(&mut Node, Instant) -> T) -> T {
        look(&mut self.shared.node.borrow_mut(), self.now())
    }

    /// Waits for the core's deadline and tells it. Cancel-safe.
    pub async fn tick(&self) {
        self.shared.timer.fired().await;
        self.shared.armed.set(None);
        self.handle(Input::Timeout);
    }

    /// Waits until there is something for the transport to do. Cancel-safe.
    pub async fn errands(&self) -> Vec<Errand> {
        loop {
            let errands: Vec<Errand> = self.shared.errands.borrow_mut().drain(..).collect();
            if !errands.is_empty() {
                return errands;
            }
            self.shared.errand.notified().await;
        }
    }

    /// Waits until the node has left.
    pub async fn left(&self) {
        while !self.shared.left.get() {
            self.shared.gone.notified().await;
        }
    }

    /// Whether the node has left or is about to.
    pub fn is_leaving(&self) -> bool {
        use crate::protocol::node::Phase;
        matches!(self.shared.node.borrow().phase(), Phase::Leaving(_) | Phase::Left)
    }

    /// Does something to the core, and carries out what comes of it.
    fn change<T>(&self, change: impl FnOnce(&mut Node, Instant) -> T) -> T {
        let now = self.begin();
        let changed = change(&mut self.shared.node.borrow_mut(), now);
        self.carry_out(now);
        changed
    }

    /// Now; and if the core has not heard of the wall clock for long, as after the machine slept, it does first.
    fn begin(&self) -> Instant {
        let shared = &self.shared;
        let now = self.now();
        if now.since(shared.wall_told.get()) >= WALL_EVERY {
            shared.wall_told.set(now);
            shared.node.borrow_mut().set_wall(shared.clock.wall(), now);
        }
        now
    }

    fn carry_out(&self, now: Instant) {
        let shared = &self.shared;
        loop {
            let output = shared.node.borrow_mut().poll_output();
            let Some(output) = output else { break };
            match output {
                Output::Save(saved) => self.save(Some(saved)),
                Output::Send(to, message) => match wire::encode_message(&message) {
                    Ok(bytes) => self.send(to, bytes),
                    Err(error) => tracing::error!("BUG! a message to {} cannot be sent: {error}", to.short()),
                },
                Output::Answer(ticket, outcome) => {
                    let waiting = shared.waiting.borrow_mut().remove(&ticket);
                    if let Some(waiting) = waiting {
                        self.tell(waiting, outcome, now);
                    }
                }
                Output::Close(peer) => self.errand(Errand::Close(peer)),
                Output::Reach(peer, addresses) => self.errand(Errand::Reach(peer, addresses)),
                Output::Forget(peer) => self.errand(Errand::Forget(peer)),
                Output::Left => {
                    shared.left.set(true);
                    shared.gone.notify_one();
                }
                Output::Notice(text) => tracing::info!("{text}"),
            }
        }
        let deadline = shared.node.borrow().next_deadline();
        if shared.armed.get() != Some(deadline) {
            shared.armed.set(Some(deadline));
            if let Err(error) = shared.timer.arm(deadline) {
                tracing::error!("BUG! the timer cannot be set: {error}");
            }
        }
    }

    fn errand(&self, errand: Errand) {
        let mut errands = self.shared.errands.borrow_mut();
        if errands.len() < ERRANDS_MAX {
            errands.push_back(errand);
        }
        self.shared.errand.notify_one();
    }
}
