//! The core and what it needs of the world: the clock, the timer, the disk and the waiting callers.
//!
//! Whoever handles a request calls straight into the core, under one lock that is held for the decision and nothing else;
//! no channel and no switch of tasks or threads lies between. Messages to peers are left in a queue for the task that owns
//! the transport. What must be on disk first is held until it is, by `held`; nothing else waits.

mod asking;
mod batch;
mod bound;
mod held;

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use self::asking::Waiting;
pub use self::asking::{Pending, Reply, Request, Wanted};
pub use self::batch::Batch;
pub use self::bound::{Binding, Bound};
use self::held::Disk;
use super::admission_log::AdmissionLog;
use super::clock::Clock;
use super::state::store::Store;
use super::timer::Timer;
use crate::protocol::breaker::CallOutcome;
use crate::protocol::id::NodeId;
use crate::protocol::limit::Cost;
use crate::protocol::node::{
    ForgetError, Forgotten, Input, Node, Output, SettleError, Settling, Tuning, VouchError,
};
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

/// A handle on the core; clones share it, on any thread.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    core: Mutex<Core>,
    store: Store,
    clock: Clock,
    timer: Timer,
    errand: Notify,
    leave: Notify,
    gone: Notify,
}

/// What changes together.
struct Core {
    node: Node,
    waiting: BTreeMap<Ticket, Waiting>,
    errands: VecDeque<Errand>,
    log: Option<AdmissionLog>,
    disk: Disk,
    /// When the core was last told the wall clock.
    wall_told: Instant,
    armed: Option<Instant>,
    /// Permits of connections: bound once the lock is given back, as that may end them.
    to_bind: Vec<(Bound, PermitId)>,
    left: bool,
}

impl Engine {
    /// An engine for this node.
    pub fn new(mut node: Node, state: Store, log: Option<AdmissionLog>, clock: Clock, timer: Timer) -> Self {
        let now = clock.now();
        node.set_wall(clock.wall(), now);
        let core = Core {
            node,
            waiting: BTreeMap::new(),
            errands: VecDeque::new(),
            log,
            disk: Disk::new(&state),
            wall_told: now,
            armed: None,
            to_bind: Vec::new(),
            left: false,
        };
        let shared = Shared {
            core: Mutex::new(core),
            store: state,
            clock,
            timer,
            errand: Notify::new(),
            leave: Notify::new(),
            gone: Notify::new(),
        };
        let engine = Self { shared: Arc::new(shared) };
        engine.change(|_, _| ());
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

    /// Counts what was used of a pool, or of a key of it, without having been asked for.
    pub fn charge(&self, pool: usize, key: Option<&str>, used: &Cost) {
        self.change(|node, now| node.charge(pool, key, used, now));
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

    /// Has the core go by other numbers.
    pub fn tune(&self, tuning: Tuning) {
        self.change(|node, now| node.tune(tuning, now));
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
        self.shared.leave.notify_one();
    }

    /// Looks at the core.
    pub fn look<T>(&self, look: impl FnOnce(&mut Node, Instant) -> T) -> T {
        let mut core = self.core();
        look(&mut core.node, self.now())
    }

    /// Waits for the core's deadline and tells it. Cancel-safe.
    pub async fn tick(&self) {
        self.shared.timer.fired().await;
        self.with(|_, core, now| {
            core.armed = None;
            core.node.handle(Input::Timeout, now);
        });
    }

    /// Waits until there is something for the transport to do. Cancel-safe.
    pub async fn errands(&self) -> Vec<Errand> {
        loop {
            let errands: Vec<Errand> = self.core().errands.drain(..).collect();
            if !errands.is_empty() {
                return errands;
            }
            self.shared.errand.notified().await;
        }
    }

    /// Waits until somebody tells the node to leave. Cancel-safe.
    pub async fn leaves(&self) {
        while !self.is_leaving() {
            self.shared.leave.notified().await;
        }
    }

    /// Waits until the node has left.
    pub async fn left(&self) {
        while !self.has_left() {
            self.shared.gone.notified().await;
        }
    }

    /// Whether the node has left: nothing more will be admitted.
    pub fn has_left(&self) -> bool {
        self.core().left
    }

    /// Whether the node has left or is about to.
    pub fn is_leaving(&self) -> bool {
        use crate::protocol::node::Phase;
        matches!(self.core().node.phase(), Phase::Leaving(_) | Phase::Left)
    }

    /// Does something to the core, and carries out what comes of it.
    fn change<T>(&self, change: impl FnOnce(&mut Node, Instant) -> T) -> T {
        self.with(|_, core, now| change(&mut core.node, now))
    }

    /// The same to all that changes with the core.
    fn with<T>(&self, change: impl FnOnce(&Shared, &mut Core, Instant) -> T) -> T {
        let (changed, to_bind) = {
            let mut core = self.core();
            let now = self.now();
            core.tell_wall(self.shared.clock, now);
            let changed = change(&self.shared, &mut core, now);
            core.carry_out(&self.shared, now);
            (changed, mem::take(&mut core.to_bind))
        };
        for (bound, permit) in to_bind {
            bound.add(permit, self);
        }
        changed
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.shared.core.lock().expect("BUG! the core was left in the middle of a change")
    }
}

impl Core {
    /// If the core has not heard of the wall clock for long, as after the machine slept, it does now.
    fn tell_wall(&mut self, clock: Clock, now: Instant) {
        if now.since(self.wall_told) >= WALL_EVERY {
            self.wall_told = now;
            self.node.set_wall(clock.wall(), now);
        }
    }

    fn carry_out(&mut self, shared: &Shared, now: Instant) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Save(saved) => self.save(shared, Some(saved)),
                Output::Send(to, message) => match wire::encode_message(&message) {
                    Ok(bytes) => self.send(shared, to, bytes),
                    Err(error) => tracing::error!("BUG! a message to {} cannot be sent: {error}", to.short()),
                },
                Output::Answer(ticket, outcome) => {
                    if let Some(waiting) = self.waiting.remove(&ticket) {
                        self.tell(shared, waiting, outcome, now);
                    }
                }
                Output::Close(peer) => self.errand(shared, Errand::Close(peer)),
                Output::Reach(peer, addresses) => self.errand(shared, Errand::Reach(peer, addresses)),
                Output::Forget(peer) => self.errand(shared, Errand::Forget(peer)),
                Output::Left => {
                    self.left = true;
                    shared.gone.notify_one();
                }
                Output::Notice(text) => tracing::info!("{text}"),
            }
        }
        let deadline = self.node.next_deadline();
        if self.armed != Some(deadline) {
            self.armed = Some(deadline);
            if let Err(error) = shared.timer.arm(deadline) {
                tracing::error!("BUG! the timer cannot be set: {error}");
            }
        }
    }

    fn errand(&mut self, shared: &Shared, errand: Errand) {
        if self.errands.len() < ERRANDS_MAX {
            self.errands.push_back(errand);
        }
        shared.errand.notify_one();
    }
}
