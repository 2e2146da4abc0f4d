//! gRPC, where `[listen] grpc` says: the daemon's own service, Envoy's rate limit service, health and reflection.
//!
//! A connection is a task, as on the Unix socket, and hyper's; a request is dispatched by the name of its service, without a
//! router. On a Unix socket the kernel names the callers; over TCP they are [nobody](Peer::UNKNOWN) in particular. What a
//! request means is the Unix socket's business ([`Sidecar`]) and that of [`Rls`](super::rls::Rls); here it is translated.

mod conversation;
mod convert;
mod health;
mod own;
mod services;
mod streams;

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

use self::conversation::Conversation;
use self::services::{Reflection, Services};
use self::streams::Streams;
use super::access::Peer;
use super::callers::Workers;
use super::config::Listen;
use super::engine::Binding;
use super::sidecar::{Admittance, Caller, Sidecar};
use super::socket::{Socket, SocketError};

/// After a failed accept, or while nobody more can be served, the listener rests this long instead of spinning.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Requests of one connection that may be answered at once; each can wait in a queue.
const STREAMS_MAX: u32 = 256;
/// What a connection may send ahead of what is read.
const WINDOW: u32 = 64 * 1024;
/// The longest head of a request.
const HEAD_MAX: u32 = 16 * 1024;
/// How often a connection is asked for a sign of life, and how long it has for it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that was idle has to notice that it is over.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why gRPC is not served.
#[derive(Debug, Error)]
pub enum GrpcError {
    /// Its Unix socket cannot be made.
    #[error("[listen] grpc: {0}")]
    Socket(#[from] SocketError),
    /// Its address cannot be taken.
    #[error("[listen] grpc: cannot listen on {listen}: {error}; choose another address")]
    Tcp {
        /// The address.
        listen: Listen,
        /// What the system said.
        error: io::Error,
    },
}

/// Serves gRPC; clones share everything.
#[derive(Clone)]
pub struct Grpc {
    sidecar: Sidecar,
    reflection: Reflection,
}

/// Where callers come from.
pub enum Listener {
    /// A Unix socket.
    Unix(Socket),
    /// A TCP port.
    Tcp(TcpListener),
}

impl Listener {
    /// Takes the address, inside the runtime that will serve it; a Unix socket is open to the group with this id too.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn bind(listen: &Listen, group: Option<u32>) -> Result<Self, GrpcError> {
        match listen {
            Listen::Unix(path) => Ok(Self::Unix(Socket::bind(path, group)?)),
            Listen::Tcp(address) => {
                let bound = std::net::TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    TcpListener::from_std(listener)
                });
                bound.map(Self::Tcp).map_err(|error| GrpcError::Tcp { listen: listen.clone(), error })
            }
        }
    }

    /// What people should know of the place that they chose.
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Unix(socket) => socket.warnings(),
            Self::Tcp(_) => &[],
        }
    }

    /// Where it is, as clients are told it: with the port that was taken.
    pub fn address(&self, listen: &Listen) -> String {
        match (self, listen) {
            (Self::Tcp(listener), _) => {
                listener.local_addr().map_or_else(|_| listen.to_string(), |address| address.to_string())
            }
            _ => listen.to_string(),
        }
    }
}

impl Grpc {
    /// A server that answers as this sidecar does.
    pub fn new(sidecar: Sidecar) -> Self {
        Self { sidecar, reflection: Reflection::new() }
    }

    /// Accepts callers until dropped.
    pub async fn serve(&self, listener: &Listener, workers: &Workers) {
        loop {
            // More wait in the kernel's queue.
            if self.sidecar.users().is_full() {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
            let accepted = match listener {
                Listener::Unix(socket) => {
                    let accepted = socket.listener().accept().await;
                    accepted.map(|(stream, _)| self.receive_unix(stream, workers))
                }
                Listener::Tcp(listener) => {
                    let accepted = listener.accept().await;
                    accepted.map(|(stream, _)| self.receive_tcp(stream, workers))
                }
            };
            match accepted {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("a caller of gRPC was closed: {error}"),
                Err(error) => {
                    tracing::warn!("cannot accept a caller of gRPC: {error}");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn receive_unix(&self, stream: UnixStream, workers: &Workers) -> io::Result<()> {
        let peer = Peer::of(&stream)?;
        let stream = stream.into_std()?;
        self.receive(move || UnixStream::from_std(stream), peer, workers);
        Ok(())
    }

    fn receive_tcp(&self, stream: TcpStream, workers: &Workers) -> io::Result<()> {
        // Answers are small, and each is written at once.
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        self.receive(move || TcpStream::from_std(stream), Peer::UNKNOWN, workers);
        Ok(())
    }

    /// Who is turned away finds the connection closed, which gRPC calls unavailable.
    fn receive<S>(
        &self,
        stream: impl FnOnce() -> io::Result<S> + Send + 'static,
        peer: Peer,
        workers: &Workers,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Admittance::Welcome(place) = self.sidecar.users().connect(peer) else { return };
        let grpc = self.clone();
        workers.spawn(async move || {
            match stream() {
                Ok(stream) => grpc.converse(stream, peer).await,
                Err(error) => tracing::warn!("a caller of gRPC was closed: {error}"),
            }
            drop(place);
        });
    }

    /// Serves one caller until it hangs up, is idle for too long, or gives no sign of life.
    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, peer: Peer) {
        let binding = Binding::new(self.sidecar.engine());
        let caller = Caller { peer, bound: binding.name() };
        // Dropped last, when no request of the connection waits any more.
        let conversation = Arc::new(Conversation::new(binding));
        let services = Rc::new(Services::new(&self.sidecar, &caller, &conversation, &self.reflection));
        let service = service_fn(|request: Request<Incoming>| {
            let (services, answering) = (services.clone(), conversation.answering());
            async move {
                let answer = services.answer(request).await;
                drop(answering);
                Ok::<_, Infallible>(answer)
            }
        });
        let mut streams = Streams::default();
        let serving = http2::Builder::new(streams.executor())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(HEAD_MAX)
            .max_send_buf_size(WINDOW as usize)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        tokio::select! {
            ended = streams.run(serving.as_mut()) => {
                if let Err(error) = ended {
                    tracing::debug!("a gRPC connection of user {} ended: {error}", peer.uid);
                }
            }
            () = conversation.idle() => {
                serving.as_mut().graceful_shutdown();
                let _ = timeout(GOODBYE, streams.run(serving)).await;
                self.sidecar.users().count_timed_out();
            }
        }
    }
}
