//! The thread that serves callers over HTTP and gRPC, with a runtime of its own.
//!
//! Beside gossip, so that a flood of requests does not keep gossip waiting, nor gossip a request: in one runtime each batch of
//! requests had everything polled that gossip waits for. The core is one; whoever is asked takes its lock for the decision.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::grpc::{Grpc, Listener};
use super::sidecar::Sidecar;
use super::socket::Socket;

/// The server of both; when this is dropped it ends, and with it every connection.
pub struct Callers {
    /// Until the thread has it.
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Callers {
    /// One that serves nobody yet.
    ///
    /// # Errors
    /// If the system has no epoll left.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime: Some(runtime), stop: None, thread: None })
    }

    /// As long as this is kept, sockets that are bound are watched by the runtime that will serve them.
    ///
    /// # Panics
    /// If it serves already.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime.as_ref().expect("BUG! sockets are bound too late").enter()
    }

    /// Serves this socket, and gRPC if there is a place for it.
    ///
    /// # Errors
    /// If the system has no thread left.
    ///
    /// # Panics
    /// If it serves already.
    pub fn serve(&mut self, sidecar: Sidecar, socket: Socket, grpc: Option<Listener>) -> io::Result<()> {
        let runtime = self.runtime.take().expect("BUG! callers are served twice");
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            let local = LocalSet::new();
            let http = sidecar.clone();
            local.spawn_local(async move { http.serve(&socket).await });
            if let Some(listener) = grpc {
                let grpc = Grpc::new(sidecar);
                local.spawn_local(async move { grpc.serve(&listener).await });
            }
            // An error is the wish to stop as well: nobody is left to wish it.
            let _: Result<(), _> = local.block_on(&runtime, stopped);
            let inside = runtime.enter();
            drop(local);
            drop(inside);
            // A lookup of a name that hangs must not hold up the end.
            runtime.shutdown_background();
        };
        self.thread = Some(thread::Builder::new().name("callers".to_owned()).spawn(serve)?);
        self.stop = Some(stop);
        Ok(())
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        // A runtime cannot wait for its end inside another one.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
        self.stop.take();
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
