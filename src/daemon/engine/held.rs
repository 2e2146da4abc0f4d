//! What waits for the disk.
//!
//! The core says what must be on disk before what: whatever it tells peers after [`Output::Save`], and admissions that go
//! [beyond](Node::outruns_disk) what was reserved there. A thread writes; these are held meanwhile, and nothing else is.
//! While the disk cannot be written, messages are lost, as the protocol allows, and such admissions are taken back and
//! refused: nobody hears of anything that a crash would make this node forget.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use super::asking::Waiting;
use super::{ERRANDS_MAX, Engine, Errand};
use crate::daemon::state::store::Store;
use crate::protocol::id::NodeId;
use crate::protocol::node::{Outcome, Reason, Refusal, Saved};
use crate::protocol::permit::PermitId;
use crate::protocol::time::Instant;

#[cfg(doc)]
use crate::protocol::node::{Node, Output};

/// How much later than its deadline an answer may come that waits for the disk.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// When to ask again for what the disk has no word of.
const ASK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Disk {
    store: Store,
    /// What was left to be saved last, and up to where it is.
    last: Cell<u64>,
    saved: Cell<u64>,
    held: RefCell<VecDeque<(u64, Held)>>,
    error: RefCell<Option<String>>,
}

enum Held {
    Message(NodeId, Vec<u8>),
    Admission(Waiting, Outcome, Instant),
}

impl Disk {
    pub fn new(store: Store) -> Self {
        let saved = store.saved();
        Self {
            store,
            last: Cell::new(saved),
            saved: Cell::new(saved),
            held: RefCell::default(),
            error: RefCell::default(),
        }
    }
}

impl Engine {
    /// Why what must be on disk is not, if it cannot be written.
    pub fn unsaved(&self) -> Option<String> {
        self.shared.disk.error.borrow().clone()
    }

    /// Waits until the disk has something to say, and acts on it. Cancel-safe.
    pub async fn stored(&self) {
        self.shared.disk.store.tried().await;
        self.look_at_disk();
    }

    /// Notes on disk that this node has no ledger yet.
    pub fn save_no_ledger(&self) {
        self.save(None);
    }

    /// Blocks until all that was to be saved so far is on disk.
    ///
    /// # Errors
    /// Why it is not.
    pub fn flush(&self) -> Result<(), String> {
        let flushed = self.shared.disk.store.flush();
        self.look_at_disk();
        flushed
    }

    pub(super) fn save(&self, saved: Option<Box<Saved>>) {
        let disk = &self.shared.disk;
        disk.last.set(disk.store.save(saved));
    }

    /// Sends once all is on disk.
    pub(super) fn send(&self, to: NodeId, bytes: Vec<u8>) {
        let disk = &self.shared.disk;
        if disk.saved.get() >= disk.last.get() {
            self.errand(Errand::Send(to, bytes));
        } else {
            let mut held = disk.held.borrow_mut();
            if disk.error.borrow().is_none() && held.len() < ERRANDS_MAX {
                held.push_back((disk.last.get(), Held::Message(to, bytes)));
            }
        }
    }

    /// Answers who waits: at once, or if it was admitted beyond what is on disk, once that is there.
    pub(super) fn tell(&self, waiting: Waiting, outcome: Outcome, now: Instant) {
        let disk = &self.shared.disk;
        match (outcome, self.limit_beyond_disk(&waiting)) {
            (Outcome::Admitted { permit, waited, .. }, limit @ Some(_)) => {
                if disk.error.borrow().is_some() {
                    let _ = waiting.answer.send(self.take_back(permit, limit, waited));
                } else {
                    disk.held
                        .borrow_mut()
                        .push_back((disk.last.get(), Held::Admission(waiting, outcome, now)));
                }
            }
            _ => self.answer(waiting, outcome, now),
        }
    }

    /// The pool, and the limit of it, of which more was taken than is on disk.
    fn limit_beyond_disk(&self, waiting: &Waiting) -> Option<(usize, usize)> {
        let node = self.shared.node.borrow();
        waiting.items.iter().find_map(|item| Some((item.pool, node.outruns_disk(item.pool)?)))
    }

    fn answer(&self, waiting: Waiting, outcome: Outcome, now: Instant) {
        self.note(&waiting.items, waiting.bound.as_ref(), outcome, now);
        // A caller that hung up between the admission and now has spent what it asked for.
        let _ = waiting.answer.send(outcome);
    }

    /// Takes back an admission that nobody has heard of.
    fn take_back(&self, permit: PermitId, limit: Option<(usize, usize)>, waited: Duration) -> Outcome {
        let _ = self.shared.node.borrow_mut().release(permit, self.now());
        beyond_disk(limit, waited)
    }

    fn look_at_disk(&self) {
        let disk = &self.shared.disk;
        disk.saved.set(disk.store.saved());
        if disk.saved.get() >= disk.last.get() {
            self.shared.node.borrow_mut().stored();
        }
        let error = disk.store.error();
        match (disk.error.replace(error.clone()), &error) {
            (None, Some(error)) => tracing::error!(
                "the ledger cannot be saved; until it is, peers are told nothing and of slow limits no more is \
                 admitted than was put on disk before: {error}"
            ),
            (Some(_), None) => tracing::info!("the ledger is saved again"),
            _ => {}
        }
        loop {
            // Each on its own: answering may hold something more.
            let is_ready = |(serial, _): &(u64, Held)| *serial <= disk.saved.get() || error.is_some();
            let mut queue = disk.held.borrow_mut();
            let Some((serial, held)) =
                queue.front().is_some_and(is_ready).then(|| queue.pop_front()).flatten()
            else {
                break;
            };
            drop(queue);
            let is_saved = serial <= disk.saved.get();
            match held {
                Held::Message(to, bytes) if is_saved => self.errand(Errand::Send(to, bytes)),
                Held::Message(..) => {}
                Held::Admission(waiting, Outcome::Admitted { permit, waited, .. }, _)
                    if !is_saved || waiting.answer.is_closed() =>
                {
                    let limit = self.limit_beyond_disk(&waiting);
                    let _ = waiting.answer.send(self.take_back(permit, limit, waited));
                }
                Held::Admission(waiting, outcome, at) => self.answer(waiting, outcome, at),
            }
        }
        // What was taken back may serve others.
        self.carry_out(self.now());
    }
}

/// The refusal of what would go beyond what is on disk.
pub(super) fn beyond_disk(limit: Option<(usize, usize)>, waited: Duration) -> Outcome {
    let reason = if waited == Duration::ZERO { Reason::Limit } else { Reason::Deadline };
    Outcome::Refused(Refusal { reason, limit, retry_after: Some(ASK_AGAIN), waited })
}
