//! Answers that do not come at once: the runtime waits for them, and rings when they are there.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use rustix::fd::OwnedFd;
use rustix::io::{read, write};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::pools::Answered;

/// Where the runtime says whose answer has come.
#[derive(Clone)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Handle,
    bell: OwnedFd,
    /// The place of a connection, and its number.
    arrived: Mutex<Vec<(usize, u64)>>,
}

/// An answer that is waited for; dropping it takes the question back.
pub struct Later {
    task: JoinHandle<()>,
    answer: oneshot::Receiver<Answered>,
}

impl Mailbox {
    /// An empty one, which rings by `bell`, an eventfd. Inside a runtime.
    pub fn new(bell: OwnedFd) -> Self {
        Self { shared: Arc::new(Shared { runtime: Handle::current(), bell, arrived: Mutex::default() }) }
    }

    /// Readable when something has arrived.
    pub fn bell(&self) -> &OwnedFd {
        &self.shared.bell
    }

    /// Whose answers have come.
    pub fn take(&self) -> Vec<(usize, u64)> {
        // It may have rung for what was taken already.
        let _ = read(&self.shared.bell, &mut [0; 8]);
        std::mem::take(&mut *self.shared.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn leave(&self, key: usize, id: u64) {
        self.shared.arrived.lock().unwrap_or_else(PoisonError::into_inner).push((key, id));
        let _ = write(&self.shared.bell, &1_u64.to_ne_bytes());
    }
}

impl Later {
    /// The answer if it is there at once; else it is waited for, and `mailbox` rings for the connection.
    pub fn begin(
        answer: impl Future<Output = Answered> + Send + 'static,
        mailbox: Mailbox,
        key: usize,
        id: u64,
    ) -> Result<Answered, Self> {
        let runtime = mailbox.shared.runtime.clone();
        let _inside = runtime.enter();
        let mut answer = Box::pin(answer);
        if let Poll::Ready(answered) = pin!(&mut answer).poll(&mut Context::from_waker(Waker::noop())) {
            return Ok(answered);
        }
        let (sender, receiver) = oneshot::channel();
        let task = runtime.spawn(async move {
            // If nobody listens, the connection is gone.
            let _ = sender.send(answer.await);
            mailbox.leave(key, id);
        });
        Err(Self { task, answer: receiver })
    }

    /// The answer, if it has come.
    pub fn answered(mut self) -> Option<Answered> {
        self.answer.try_recv().ok()
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.task.abort();
    }
}
