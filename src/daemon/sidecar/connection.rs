//! From a process that connects to requests with a name: who it is, whether it may stay, and for how long.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::patience::{Conversation, Patient};
use super::response::{Answer, json, refusal};
use super::users::{Admittance, Crowd};
use super::{Asked, Content, Sidecar, plain};
use crate::api::Denial;
use crate::daemon::access::Peer;
use crate::daemon::callers::Workers;
use crate::daemon::engine::{Binding, Bound};
use crate::daemon::socket::Socket;

/// After a failed accept (no file descriptors left), or while nobody more can be served, the listener rests this long
/// instead of spinning.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// What hyper buffers of a connection's requests, a whole head among it, at most.
const BUFFER_MAX: usize = 16 * 1024;
/// Whoever is turned away must ask and take the answer within this.
const TURN_AWAY: Duration = Duration::from_secs(2);

/// Who asks, and on what connection.
#[derive(Clone)]
pub struct Caller {
    /// As the kernel says.
    pub peer: Peer,
    /// Names the connection to permits that end with it.
    pub bound: Bound,
}

impl Sidecar {
    /// Accepts callers until dropped.
    pub async fn serve(&self, socket: &Socket, workers: &Workers) {
        loop {
            // More wait in the kernel's queue.
            if self.inner.users.is_full() {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
            match socket.listener().accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = self.receive(stream, workers) {
                        tracing::warn!("a caller was closed: {error}");
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot accept a caller: {error}");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn receive(&self, stream: UnixStream, workers: &Workers) -> io::Result<()> {
        let peer = Peer::of(&stream)?;
        let stream = stream.into_std()?;
        match self.inner.users.connect(peer) {
            Admittance::Welcome(place) => {
                let sidecar = self.clone();
                workers.spawn(async move || {
                    match UnixStream::from_std(stream) {
                        Ok(stream) => sidecar.converse(stream, peer).await,
                        Err(error) => tracing::warn!("a caller was closed: {error}"),
                    }
                    drop(place);
                });
            }
            Admittance::TurnedAway(place, crowd) => {
                workers.spawn(async move || {
                    if let Ok(stream) = UnixStream::from_std(stream) {
                        let _ = timeout(TURN_AWAY, turn_away(stream, crowd)).await;
                    }
                    drop(place);
                });
            }
            Admittance::Ignored => {}
        }
        Ok(())
    }

    /// Serves one caller until it hangs up, or patience with it ends.
    pub async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, peer: Peer) {
        let binding = Binding::new(&self.inner.engine);
        let caller = Caller { peer, bound: binding.name() };
        // Dropped last, when no request of the connection waits any more.
        let conversation = Rc::new(Conversation::new(binding));
        let service = service_fn(|request: Request<Incoming>| async {
            let answering = conversation.answering().await;
            let (head, body) = request.into_parts();
            let accept = head.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
            let (method, path) = (&head.method, head.uri.path());
            let asked = Asked { method, path, accept, content: Content::Coming(body) };
            let mut answer = self.answer(asked, &caller).await;
            answer.body_mut().answers(answering);
            Ok::<_, Infallible>(answer)
        });
        let mut stream = Patient::new(stream, conversation.clone());
        let serving = async {
            let Some(rest) = plain::serve(self, &mut stream, &conversation, &caller).await? else {
                return Ok(());
            };
            stream.unread(rest);
            // Answers are flushed one by one: with `pipeline_flush` they pile up without a bound for a caller that asks on and
            // on, and never reads.
            let stream = TokioIo::new(stream);
            let hypers = http1::Builder::new().max_buf_size(BUFFER_MAX).serve_connection(stream, service);
            hypers.await.map_err(io::Error::other)
        };
        let ended = serving.await;
        if conversation.timed_out() {
            self.inner.users.count_timed_out();
            tracing::debug!("a connection of user {} was closed: its caller was too slow", peer.uid);
        } else if let Err(error) = ended {
            tracing::debug!("a connection of user {} ended: {error}", peer.uid);
        }
    }
}

/// Says to whatever is asked first that there are too many.
async fn turn_away(stream: UnixStream, crowd: Crowd) {
    let answer = || {
        let mut answer = too_many(crowd);
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        answer
    };
    let service = service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(answer()) });
    let serving =
        http1::Builder::new().max_buf_size(BUFFER_MAX).serve_connection(TokioIo::new(stream), service);
    let _ = serving.await;
}

fn too_many(crowd: Crowd) -> Answer {
    let detail = match crowd {
        Crowd::User(count) => format!(
            "this user has {count} connections to the daemon, as many as one may; close some, keep one for many \
             requests, or raise [access] max_connections_per_user"
        ),
        Crowd::All(count) => {
            format!("the daemon has {count} connections, as many as it may; ask again in a second")
        }
    };
    let reason = match crowd {
        Crowd::User(_) => Denial::UserConnections,
        Crowd::All(_) => Denial::Connections,
    };
    json(StatusCode::SERVICE_UNAVAILABLE, &refusal(503, "too many connections", detail, reason))
}
