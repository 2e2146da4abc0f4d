//! Whether a connection is still in use.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::daemon::engine::Binding;

/// The first request must come within this.
const SILENCE: Duration = Duration::from_secs(20);
/// A connection on which nothing has been answered for this long is closed, unless a permit is bound to it.
const IDLE: Duration = Duration::from_secs(300);

/// What is known of a connection.
pub struct Conversation {
    /// Requests that are being answered, and streams that are open.
    answering: AtomicUsize,
    idle_until: Mutex<Instant>,
    binding: Binding,
}

impl Conversation {
    /// It begins now; the permits of `binding` keep it alive.
    pub fn new(binding: Binding) -> Self {
        let idle_until = Mutex::new(Instant::now() + SILENCE);
        Self { answering: AtomicUsize::new(0), idle_until, binding }
    }

    /// It is in use until the value is dropped.
    pub fn answering(self: &Arc<Self>) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// Waits until it has been idle for too long. Looks now and then instead of at each request.
    pub async fn idle(&self) {
        loop {
            let until = *self.idle_until.lock().unwrap_or_else(PoisonError::into_inner);
            if until > Instant::now() {
                sleep_until(until).await;
            } else if self.answering.load(Ordering::Relaxed) == 0 && self.binding.is_empty() {
                return;
            } else {
                sleep_until(Instant::now() + SILENCE).await;
            }
        }
    }
}

/// A request that is being answered.
pub struct Answering(Arc<Conversation>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
        *self.0.idle_until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + IDLE;
    }
}
