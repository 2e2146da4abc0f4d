//! The Unix socket: HTTP/1.1 and JSON for programs on this machine.
//!
//! One straight path: a connection is a task, a request goes through `Sidecar::answer` to one function below, which
//! calls the engine and nothing else. A caller that hangs up drops its task, and with it its place in the queue.

mod answers;
mod body;
mod explain;
mod listings;
mod operator;
mod request;
mod response;
mod route;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};

use self::body::{Members, object, pool_named};
use self::request::Ask;
use self::response::{
    Answer, done_or_problem, json, json_or_problem, not_found, problem, problem_answer, text, wrong_method,
};
use self::route::Route;
use super::api::{Problem, SettleAnswer, TokenAnswer};
use super::config::PoolConfig;
use super::engine::{self, Binding, Bound, Engine, Reply, Wanted};
use super::facts::Facts;
use super::socket::Socket;
use super::token::Token;
use crate::protocol::node::{Outcome, Phase};
use crate::protocol::permit::PermitId;

/// The longest body of a request.
const BODY_MAX: usize = 64 * 1024;
/// A connection on which no request has been answered for this long is closed, unless one is being answered or a permit is
/// bound to it: its holder need not say anything.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// A request's body must arrive within this.
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

/// What a request with a body does that has no answer but that it was done.
type Command = fn(&Engine, &[u8], &[PoolConfig]) -> Result<(), Problem>;

/// What is known of one connection.
struct Caller {
    bound: Bound,
    /// Requests that are being answered; pipelined ones come one after the other.
    answering: Cell<usize>,
    last_answer: Cell<Instant>,
}

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
        // Dropped last, when no request of the connection waits any more.
        let binding = Binding::new(&self.inner.engine);
        let caller =
            Caller { bound: binding.name(), answering: Cell::new(0), last_answer: Cell::new(Instant::now()) };
        let service = service_fn(|request| async {
            let _busy = Busy::new(&caller);
            Ok::<_, Infallible>(self.answer(request, &caller).await)
        });
        let mut http = http1::Builder::new();
        http.max_buf_size(BODY_MAX).pipeline_flush(true);
        let serving = http.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::debug!("a caller's connection ended: {error}");
            },
            () = idle(&caller, &binding) => tracing::debug!("an idle caller's connection was closed"),
        }
        count.set(count.get() - 1);
    }

    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let path = request.uri().path().to_owned();
        let Some(route) = Route::of(&path) else { return not_found(&path) };
        let expected = route.method();
        if *request.method() != expected && !(expected == Method::GET && *request.method() == Method::HEAD) {
            return wrong_method(&path, &expected);
        }
        let Inner { engine, facts, .. } = &*self.inner;
        match route {
            Route::Acquire => self.acquire(request, caller).await,
            Route::Commit(id) => json_or_problem(self.commit(&id, request).await),
            Route::Release(id) => json_or_problem(self.release(&id, request).await),
            Route::Allow => self.allow(request).await,
            Route::Pause => self.command(request, operator::pause).await,
            Route::Resume => self.command(request, operator::resume).await,
            Route::Forget => self.command(request, operator::forget).await,
            Route::Ledger => json(StatusCode::OK, &listings::ledger(engine)),
            Route::Observe => self.command(request, operator::observe).await,
            Route::Status => json(StatusCode::OK, &listings::status(engine, facts)),
            Route::Peers => json(StatusCode::OK, &listings::peers(engine, facts)),
            Route::Limits => json(StatusCode::OK, &listings::limits(engine)),
            Route::Queue => json(StatusCode::OK, &listings::queues(engine)),
            Route::Explain(pool) => {
                let pool = pool_named(&pool, &self.inner.pools);
                json_or_problem(pool.map(|pool| explain::explain(engine, pool)))
            }
            Route::Token => json_or_problem(self.token()),
            Route::Live => text(StatusCode::OK, "ok\n"),
            Route::Ready => self.ready(),
        }
    }

    async fn acquire(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let body = read(request).await;
        let ask = match body.and_then(|body| Ask::parse(&body, &self.inner.pools)) {
            Ok(ask) => ask,
            Err(problem) => return problem_answer(&problem),
        };
        let (items, outcome) = self.ask(ask, caller.bound.clone()).await;
        let mut pools: Vec<usize> = items.iter().map(|item| item.pool).collect();
        let mut seen = BTreeSet::new();
        pools.retain(|pool| seen.insert(*pool));
        let engine = &self.inner.engine;
        let answer = answers::acquired(engine, &pools, outcome);
        let status = if answer.allowed { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        let mut response = json(status, &answer);
        answers::headers(engine, &pools, &answer, response.headers_mut());
        response
    }

    async fn allow(&self, request: Request<Incoming>) -> Answer {
        let body = read(request).await;
        let ask = match body.and_then(|body| Ask::parse_allow(&body, &self.inner.pools)) {
            Ok(ask) => ask,
            Err(problem) => return problem_answer(&problem),
        };
        let (items, outcome) = self.ask(ask, Bound::default()).await;
        json(StatusCode::OK, &answers::allow(&self.inner.engine, &items[0], outcome))
    }

    /// Asks the engine and waits for the answer. Gives back what of the choices was asked for.
    async fn ask(&self, ask: Ask, bound: Bound) -> (Vec<Wanted>, Outcome) {
        let Ask { mut choices, agent, class, wait, ttl, bind } = ask;
        let bound = bind.then_some(bound);
        let request = engine::Request { choices: choices.clone(), agent, class, wait, ttl, bound };
        let (choice, reply) = self.inner.engine.acquire(request);
        let outcome = match reply {
            Reply::Now(outcome) => outcome,
            Reply::Later(pending) => pending.answer().await,
        };
        (choices.swap_remove(choice), outcome)
    }

    async fn commit(&self, id: &str, request: Request<Incoming>) -> Result<SettleAnswer, Problem> {
        let body = read(request).await?;
        let id = permit(id)?;
        let body = object(&body, true, "{\"tokens\":1012}")?;
        let members = Members::new(&body, "", &["requests", "tokens", "cost"])?;
        let engine = &self.inner.engine;
        // Which pools a permit passed is forgotten when it ends; the answer is then what it was, whatever is said now.
        let passed = engine.look(|node, _| node.permit_pools(id));
        let pools: Vec<&PoolConfig> = match passed {
            Some(pools) => pools.into_iter().map(|pool| &self.inner.pools[pool]).collect(),
            None => self.inner.pools.iter().collect(),
        };
        let (used, _) = members.cost(&pools)?;
        answers::settled(engine, engine.commit(id, &used))
    }

    async fn release(&self, id: &str, request: Request<Incoming>) -> Result<SettleAnswer, Problem> {
        let body = read(request).await?;
        let id = permit(id)?;
        Members::new(&object(&body, true, "{} or nothing")?, "", &[])?;
        let engine = &self.inner.engine;
        answers::settled(engine, engine.release(id))
    }

    async fn command(&self, request: Request<Incoming>, command: Command) -> Answer {
        let body = read(request).await;
        done_or_problem(body.and_then(|body| command(&self.inner.engine, &body, &self.inner.pools)))
    }

    fn token(&self) -> Result<TokenAnswer, Problem> {
        let addresses = self.inner.facts.addresses();
        let founder = self.inner.engine.look(|node, now| node.view(now).ledger);
        let founder = founder.ok_or_else(|| {
            let detail = "this node has not joined a swarm yet; ask again when it has".to_owned();
            problem(503, "not joined", detail)
        })?;
        let token = Token { swarm_key: self.inner.facts.swarm_key, founder: founder.0, addresses };
        let token = token.to_string();
        Ok(TokenAnswer { command: format!("aquifer up --join {token}"), token })
    }

    fn ready(&self) -> Answer {
        match self.inner.engine.look(|node, _| node.phase()) {
            Phase::Ready => text(StatusCode::OK, "ready\n"),
            phase => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", listings::state(phase))),
        }
    }
}

/// Ends when nothing has happened on a connection for long, and nothing needs it.
async fn idle(caller: &Caller, binding: &Binding) {
    let mut look = caller.last_answer.get() + IDLE_TIMEOUT;
    loop {
        sleep_until(look).await;
        let now = Instant::now();
        look = caller.last_answer.get() + IDLE_TIMEOUT;
        if caller.answering.get() > 0 || !binding.is_empty() {
            look = now + IDLE_TIMEOUT;
        } else if look <= now {
            return;
        }
    }
}

/// A request of a connection is being answered.
struct Busy<'a>(&'a Caller);

impl<'a> Busy<'a> {
    fn new(caller: &'a Caller) -> Self {
        caller.answering.set(caller.answering.get() + 1);
        Self(caller)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.answering.set(self.0.answering.get() - 1);
        self.0.last_answer.set(Instant::now());
    }
}

/// A request's body.
///
/// # Errors
/// The answer to give: 400, 408 or 413.
async fn read(request: Request<Incoming>) -> Result<Bytes, Problem> {
    match timeout(BODY_TIMEOUT, Limited::new(request.into_body(), BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(problem(413, "body too long", format!("at most {BODY_MAX} bytes are read")))
        }
        Ok(Err(error)) => Err(problem(400, "unreadable body", error.to_string())),
        Err(_) => {
            Err(problem(408, "body too slow", format!("the body did not come within {BODY_TIMEOUT:?}")))
        }
    }
}

fn permit(id: &str) -> Result<PermitId, Problem> {
    id.parse().map_err(|error| problem(400, "malformed permit id", format!("{error}")))
}
