//! The Unix socket: HTTP/1.1 and JSON for programs on this machine.
//!
//! One straight path: a connection is a task, a request goes through `Sidecar::answer` to one function below, which
//! calls the engine and nothing else. A caller that hangs up drops its task, and with it its place in the queue.

mod answers;
mod request;

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::UnixStream;

use self::request::Ask;
use super::api::{Problem, TokenAnswer};
use super::config::PoolConfig;
use super::engine::{Engine, Reply};
use super::facts::Facts;
use super::socket::Socket;
use super::token::Token;
use crate::protocol::node::Phase;

/// The longest body of a request.
const BODY_MAX: usize = 64 * 1024;
/// A request's head must arrive within this; an idle connection is closed after it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// … and its body within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left) the listener rests this long instead of spinning.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the socket serves.
#[derive(Clone)]
pub struct Sidecar {
    inner: Rc<Inner>,
}

struct Inner {
    engine: Engine,
    pools: Vec<PoolConfig>,
    facts: Facts,
    connections: Cell<usize>,
    connections_max: usize,
}

type Reader = Response<Full<Bytes>>;

impl Sidecar {
    /// A sidecar for this engine, with this many callers at once.
    pub fn new(engine: Engine, pools: Vec<PoolConfig>, facts: Facts, connections_max: usize) -> Self {
        let connections = Cell::new(0);
        Self { inner: Rc::new(Inner { engine, pools, facts, connections, connections_max }) }
    }

    /// Accepts callers until dropped. Needs a `LocalSet`.
    pub async fn serve(&self, socket: &Socket) {
        loop {
            if self.inner.connections.get() >= self.inner.connections_max {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
            match socket.listener().accept().await {
                Ok((stream, _)) => {
                    tokio::task::spawn_local(self.clone().connection(stream));
                }
                Err(error) => {
                    tracing::warn!("cannot accept a caller: {error}");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    /// How many callers are connected.
    pub fn connections(&self) -> usize {
        self.inner.connections.get()
    }

    async fn connection(self, stream: UnixStream) {
        let count = &self.inner.connections;
        count.set(count.get() + 1);
        let service = service_fn(|request| async { Ok::<_, Infallible>(self.answer(request).await) });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BODY_MAX)
            .pipeline_flush(true);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!("a caller's connection ended: {error}");
        }
        count.set(count.get() - 1);
    }

    async fn answer(&self, request: Request<Incoming>) -> Reader {
        let path = request.uri().path().to_owned();
        let expected = match path.as_str() {
            "/v1/acquire" => Method::POST,
            "/v1/status" | "/v1/peers" | "/v1/limits" | "/v1/token" | "/livez" | "/readyz" => Method::GET,
            _ => return not_found(&path),
        };
        if *request.method() != expected && !(expected == Method::GET && *request.method() == Method::HEAD) {
            return wrong_method(&path, &expected);
        }
        match path.as_str() {
            "/v1/acquire" => self.acquire(request).await,
            "/v1/status" => json(StatusCode::OK, &answers::status(&self.inner.engine, &self.inner.facts)),
            "/v1/peers" => json(StatusCode::OK, &answers::peers(&self.inner.engine, &self.inner.facts)),
            "/v1/limits" => json(StatusCode::OK, &answers::limits(&self.inner.engine)),
            "/v1/token" => self.token(),
            "/livez" => text(StatusCode::OK, "ok\n"),
            _ => self.ready(),
        }
    }

    async fn acquire(&self, request: Request<Incoming>) -> Reader {
        let engine = &self.inner.engine;
        let body =
            match tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), BODY_MAX).collect())
                .await
            {
                Ok(Ok(body)) => body.to_bytes(),
                Ok(Err(error)) if error.is::<LengthLimitError>() => {
                    return problem(413, "body too long", format!("at most {BODY_MAX} bytes are read"), None);
                }
                Ok(Err(error)) => return problem(400, "unreadable body", error.to_string(), None),
                Err(_) => {
                    return problem(
                        408,
                        "body too slow",
                        format!("the body did not come within {BODY_TIMEOUT:?}"),
                        None,
                    );
                }
            };
        let ask = match Ask::parse(&body, &self.inner.pools) {
            Ok(ask) => ask,
            Err(problem) => return problem_answer(&problem),
        };
        let outcome = match engine.acquire(ask.pool, ask.cost, ask.wait) {
            Reply::Now(outcome) => outcome,
            Reply::Later(pending) => pending.answer().await,
        };
        let answer = answers::acquired(engine, ask.pool, outcome, ask.ttl, &self.inner.facts);
        let status = if answer.allowed { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        let mut response = json(status, &answer);
        answers::headers(engine, ask.pool, &answer, response.headers_mut());
        response
    }

    fn token(&self) -> Reader {
        let addresses = self.inner.facts.addresses();
        let founder = self.inner.engine.look(|node, now| node.view(now).ledger);
        let Some(founder) = founder else {
            return problem(
                503,
                "not joined",
                "this node has not joined a swarm yet; ask again when it has".to_owned(),
                None,
            );
        };
        let token = Token { swarm_key: self.inner.facts.swarm_key, founder: founder.0, addresses };
        let token = token.to_string();
        json(StatusCode::OK, &TokenAnswer { command: format!("aquifer up --join {token}"), token })
    }

    fn ready(&self) -> Reader {
        match self.inner.engine.look(|node, _| node.phase()) {
            Phase::Ready => text(StatusCode::OK, "ready\n"),
            phase => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", answers::state(phase))),
        }
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Reader {
    let bytes = serde_json::to_vec(body).unwrap_or_else(|error| format!("\"BUG! {error}\"").into_bytes());
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let mut response = Response::new(Full::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, body: &str) -> Reader {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn problem(status: u16, title: &str, detail: String, field: Option<String>) -> Reader {
    problem_answer(&Problem { title: title.to_owned(), status, detail, field })
}

fn problem_answer(problem: &Problem) -> Reader {
    json(StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), problem)
}

fn not_found(path: &str) -> Reader {
    let path: String = path.chars().take(100).collect();
    let detail = format!(
        "there is no {path}; there are /v1/acquire, /v1/status, /v1/peers, /v1/limits, /v1/token, /livez and /readyz"
    );
    problem(404, "no such endpoint", detail, None)
}

fn wrong_method(path: &str, expected: &Method) -> Reader {
    let mut response = problem(405, "wrong method", format!("{path} takes {expected}"), None);
    if let Ok(value) = HeaderValue::from_str(expected.as_str()) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}
