//! Connections that wait for their next request.

use std::sync::{Mutex, PoisonError};

/// The most that are kept; the daemon closes them after 5 minutes.
const KEPT: usize = 64;

#[derive(Debug)]
pub(super) struct Idle<C>(Mutex<Vec<C>>);

impl<C> Default for Idle<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C> Idle<C> {
    /// The one that was used last.
    pub fn take(&self) -> Option<C> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps one, if there is room.
    pub fn put(&self, connection: C) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(connection);
        }
    }
}
