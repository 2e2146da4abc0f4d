//! The threads that serve callers over HTTP and gRPC, each with a runtime of its own.
//!
//! Beside gossip, so that a flood of requests does not keep gossip waiting, nor gossip a request: in one runtime each batch of
//! requests had everything polled that gossip waits for. The core is one; whoever is asked takes its lock for the decision,
//! which is a small part of what parsing and writing take.
//!
//! The first thread accepts. A connection stays with the thread that had the fewest when it came, so that nothing of it has
//! to be shared or moved.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::grpc::{Grpc, Listener};
use super::sidecar::Sidecar;
use super::socket::Socket;

/// The most threads. More wait for the core's lock rather than for a processor.
const THREADS_MAX: usize = 8;

/// The server of both; when this is dropped it ends, and with it every connection.
pub struct Callers {
    /// Until their threads have them.
    runtimes: Vec<Detached>,
    /// The threads end when this does.
    stop: Option<watch::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    /// One that serves nobody yet.
    ///
    /// # Errors
    /// If the system has no epoll left.
    pub fn new() -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let runtime =
            |_| Builder::new_current_thread().enable_all().build().map(|runtime| Detached(Some(runtime)));
        let runtimes = (0..threads).map(runtime).collect::<io::Result<_>>()?;
        Ok(Self { runtimes, stop: None, threads: Vec::new() })
    }

    /// As long as this is kept, sockets that are bound are watched by the runtime that will accept from them.
    ///
    /// # Panics
    /// If it serves already.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtimes.first().expect("BUG! sockets are bound too late").runtime().enter()
    }

    /// Serves this socket, and gRPC if there is a place for it.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn serve(&mut self, sidecar: Sidecar, socket: Socket, grpc: Option<Listener>) -> io::Result<()> {
        let (stop, stopped) = watch::channel(());
        self.stop = Some(stop);
        let (workers, inboxes): (Vec<_>, Vec<_>) = self.runtimes.iter().map(|_| Worker::new()).unzip();
        let workers = Workers(workers.into());
        let mut accept = Some(move |local: &LocalSet| {
            let (http, crew) = (sidecar.clone(), workers.clone());
            local.spawn_local(async move { http.serve(&socket, &crew).await });
            if let Some(listener) = grpc {
                let grpc = Grpc::new(sidecar);
                local.spawn_local(async move { grpc.serve(&listener, &workers).await });
            }
        });
        for (runtime, mut inbox) in self.runtimes.drain(..).zip(inboxes) {
            let (accept, mut stopped) = (accept.take(), stopped.clone());
            let run = move || {
                let local = LocalSet::new();
                accept.into_iter().for_each(|accept| accept(&local));
                local.spawn_local(async move {
                    while let Some(start) = inbox.recv().await {
                        start();
                    }
                });
                // An error: nobody is left to wish that it goes on.
                let runtime = runtime.runtime();
                local.block_on(runtime, async move { while stopped.changed().await.is_ok() {} });
                let inside = runtime.enter();
                drop(local);
                drop(inside);
            };
            self.threads.push(thread::Builder::new().name("callers".to_owned()).spawn(run)?);
        }
        Ok(())
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.stop.take();
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// A runtime that is not waited for at its end: inside another one it cannot be, and a lookup of a name that hangs must not
/// hold it up.
struct Detached(Option<Runtime>);

impl Detached {
    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("BUG! a runtime at its end")
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// The threads, for whoever accepts.
#[derive(Clone)]
pub struct Workers(Arc<[Worker]>);

struct Worker {
    /// Bounded by how many connections there may be.
    inbox: mpsc::UnboundedSender<Start>,
    /// One more is held for each task.
    tasks: Arc<()>,
}

type Start = Box<dyn FnOnce() + Send>;

impl Worker {
    fn new() -> (Self, mpsc::UnboundedReceiver<Start>) {
        let (inbox, receiver) = mpsc::unbounded_channel();
        (Self { inbox, tasks: Arc::default() }, receiver)
    }
}

impl Workers {
    /// Runs a task on the thread that has the fewest. What it begins with goes there; the task itself stays.
    pub fn spawn(&self, task: impl AsyncFnOnce() + Send + 'static) {
        let worker = self.0.iter().min_by_key(|worker| Arc::strong_count(&worker.tasks));
        let worker = worker.expect("BUG! nobody serves callers");
        let held = worker.tasks.clone();
        let start = move || {
            tokio::task::spawn_local(async move {
                task().await;
                drop(held);
            });
        };
        // If the thread is gone, so will be this one.
        let _ = worker.inbox.send(Box::new(start));
    }
}
