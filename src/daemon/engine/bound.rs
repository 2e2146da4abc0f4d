//! Permits that end with the connection on which they were asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Engine;
use crate::protocol::permit::PermitId;

/// From so many on, those that have ended meanwhile are looked for.
const PRUNE_FROM: usize = 64;

/// One connection's permits, as whoever asks on it names them.
#[derive(Clone, Default)]
pub struct Bound(Weak<Permits>);

/// One connection's permits, as the connection owns them: dropping it ends those that are still out.
pub struct Binding(Arc<Permits>);

struct Permits {
    engine: Engine,
    /// Permits, and how many must be there to look for those that have ended.
    out: Mutex<(BTreeSet<PermitId>, usize)>,
}

impl Binding {
    /// A connection without permits.
    pub fn new(engine: &Engine) -> Self {
        Self(Arc::new(Permits { engine: engine.clone(), out: Mutex::new((BTreeSet::new(), PRUNE_FROM)) }))
    }

    /// The name for requests that come on this connection.
    pub fn name(&self) -> Bound {
        Bound(Arc::downgrade(&self.0))
    }

    /// Whether no permit is out that would end with the connection.
    pub fn is_empty(&self) -> bool {
        if self.0.out().0.is_empty() {
            return true;
        }
        self.0.prune();
        self.0.out().0.is_empty()
    }
}

impl Bound {
    /// Binds a permit. If the connection is gone already, the permit ends now.
    pub(super) fn add(&self, permit: PermitId, engine: &Engine) {
        let Some(permits) = self.0.upgrade() else { return engine.close(permit) };
        let full = {
            let mut out = permits.out();
            out.0.insert(permit);
            out.0.len() >= out.1
        };
        if full {
            permits.prune();
        }
    }
}

impl Permits {
    fn out(&self) -> MutexGuard<'_, (BTreeSet<PermitId>, usize)> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prune(&self) {
        let (out, prune_from) = &mut *self.out();
        self.engine.look(|node, _| out.retain(|permit| node.permit_pools(*permit).is_some()));
        *prune_from = PRUNE_FROM.max(2 * out.len());
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        for permit in mem::take(&mut self.out().0) {
            self.engine.close(permit);
        }
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bound")
    }
}
