//! What waits for the disk.
//!
//! The core says what must be on disk before what: whatever it tells peers after [`Output::Save`], and admissions that go
//! [beyond](Node::outruns_disk) what was reserved there. A thread writes; these are held meanwhile, and nothing else is.
//! While the disk cannot be written, messages are lost, as the protocol allows, and such admissions are taken back and
//! refused: nobody hears of anything that a crash would make this node forget.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use super::asking::Waiting;
use super::{Core, ERRANDS_MAX, Engine, Errand, Shared};
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
    /// What was left to be saved last, and up to where it is.
    last: u64,
    saved: u64,
    held: VecDeque<(u64, Held)>,
    error: Option<String>,
}

enum Held {
    Message(NodeId, Vec<u8>),
    Admission(Waiting, Outcome, Instant),
}

impl Disk {
    pub fn new(store: &Store) -> Self {
        let saved = store.saved();
        Self { last: saved, saved, held: VecDeque::new(), error: None }
    }

    fn is_behind(&self) -> bool {
        self.saved < self.last
    }
}

impl Engine {
    /// Why what must be on disk is not, if it cannot be written.
    pub fn unsaved(&self) -> Option<String> {
        self.core().disk.error.clone()
    }

    /// Waits until the disk has something to say, and acts on it. Cancel-safe.
    pub async fn stored(&self) {
        self.shared.store.tried().await;
        self.look_at_disk();
    }

    /// Notes on disk that this node has no ledger yet.
    pub fn save_no_ledger(&self) {
        self.with(|shared, core, _| core.save(shared, None));
    }

    /// Blocks until all that was to be saved so far is on disk.
    ///
    /// # Errors
    /// Why it is not.
    pub fn flush(&self) -> Result<(), String> {
        let flushed = self.shared.store.flush();
        self.look_at_disk();
        flushed
    }

    fn look_at_disk(&self) {
        self.with(|shared, core, _| core.look_at_disk(shared));
    }
}

impl Core {
    pub(super) fn save(&mut self, shared: &Shared, saved: Option<Box<Saved>>) {
        self.disk.last = shared.store.save(saved);
    }

    /// Sends once all is on disk.
    pub(super) fn send(&mut self, shared: &Shared, to: NodeId, bytes: Vec<u8>) {
        if !self.disk.is_behind() {
            self.errand(shared, Errand::Send(to, bytes));
        } else if self.disk.error.is_none() && self.disk.held.len() < ERRANDS_MAX {
            self.disk.held.push_back((self.disk.last, Held::Message(to, bytes)));
        }
    }

    /// Answers who waits: at once, or if it was admitted beyond what is on disk, once that is there.
    pub(super) fn tell(&mut self, shared: &Shared, waiting: Waiting, outcome: Outcome, now: Instant) {
        match (outcome, self.limit_beyond_disk(&waiting)) {
            (Outcome::Admitted { permit, waited, .. }, limit @ Some(_)) => {
                if self.disk.error.is_some() {
                    let outcome = self.take_back(shared, permit, limit, waited);
                    let _ = waiting.answer.send(outcome);
                } else {
                    self.disk.held.push_back((self.disk.last, Held::Admission(waiting, outcome, now)));
                }
            }
            _ => self.answer(shared, waiting, outcome, now),
        }
    }

    /// The pool, and the limit of it, of which more was taken than is on disk.
    fn limit_beyond_disk(&self, waiting: &Waiting) -> Option<(usize, usize)> {
        waiting.items.iter().find_map(|item| Some((item.pool, self.node.outruns_disk(item.pool)?)))
    }

    fn answer(&mut self, shared: &Shared, waiting: Waiting, outcome: Outcome, now: Instant) {
        let Waiting { answer, items, bound } = waiting;
        self.note(shared, &items, bound, outcome, now);
        // A caller that hung up between the admission and now has spent what it asked for.
        let _ = answer.send(outcome);
    }

    /// Takes back an admission that nobody has heard of.
    fn take_back(
        &mut self,
        shared: &Shared,
        permit: PermitId,
        limit: Option<(usize, usize)>,
        waited: Duration,
    ) -> Outcome {
        let _ = self.node.release(permit, shared.clock.now());
        beyond_disk(limit, waited)
    }

    fn look_at_disk(&mut self, shared: &Shared) {
        self.disk.saved = shared.store.saved();
        if !self.disk.is_behind() {
            self.node.stored();
        }
        let error = shared.store.error();
        match (mem::replace(&mut self.disk.error, error.clone()), &error) {
            (None, Some(error)) => tracing::error!(
                "the ledger cannot be saved; until it is, peers are told nothing and of slow limits no more is \
                 admitted than was put on disk before: {error}"
            ),
            (Some(_), None) => tracing::info!("the ledger is saved again"),
            _ => {}
        }
        // Each on its own: answering may hold something more.
        let is_ready = |disk: &Disk| {
            disk.held.front().is_some_and(|(serial, _)| *serial <= disk.saved || error.is_some())
        };
        while is_ready(&self.disk) {
            let Some((serial, held)) = self.disk.held.pop_front() else { break };
            let is_saved = serial <= self.disk.saved;
            match held {
                Held::Message(to, bytes) if is_saved => self.errand(shared, Errand::Send(to, bytes)),
                Held::Message(..) => {}
                Held::Admission(waiting, Outcome::Admitted { permit, waited, .. }, _)
                    if !is_saved || waiting.answer.is_closed() =>
                {
                    let limit = self.limit_beyond_disk(&waiting);
                    let outcome = self.take_back(shared, permit, limit, waited);
                    let _ = waiting.answer.send(outcome);
                }
                Held::Admission(waiting, outcome, at) => self.answer(shared, waiting, outcome, at),
            }
        }
    }
}

/// The refusal of what would go beyond what is on disk.
pub(super) fn beyond_disk(limit: Option<(usize, usize)>, waited: Duration) -> Outcome {
    let reason = if waited == Duration::ZERO { Reason::Limit } else { Reason::Deadline };
    Outcome::Refused(Refusal { reason, limit, retry_after: Some(ASK_AGAIN), waited })
}
