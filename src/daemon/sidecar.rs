//! The Unix socket: HTTP/1.1 and JSON for programs on this machine.
//!
//! One straight path: a connection is a task (`connection`), a request goes through `Sidecar::answer` to one function
//! below, which calls the engine and nothing else. A caller that hangs up drops its task, and with it its place in the
//! queue. Who may ask for what stands in one table, `Route::needs`.

mod answers;
mod body;
mod connection;
mod explain;
mod listings;
mod operator;
mod patience;
mod request;
mod response;
mod route;
mod users;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode};
use tokio::time::timeout;

use self::body::{Members, object, pool_named};
use self::connection::Caller;
pub use self::request::Ask;
use self::response::{
    Answer, done_or_problem, json, json_or_problem, not_found, problem, problem_answer, refusal, text,
    wrong_method,
};
use self::route::Route;
pub use self::users::Quotas;
use self::users::Users;
use super::access::{Access, Peer};
use super::api::{Denial, Problem, SettleAnswer, TokenAnswer};
use super::config::PoolConfig;
use super::engine::{self, Bound, Engine, Reply, Wanted};
use super::facts::Facts;
use super::token::Token;
use crate::protocol::node::{Outcome, Phase, Reason};
use crate::protocol::permit::PermitId;

/// The longest body of a request.
const BODY_MAX: usize = 64 * 1024;
/// A request's body must arrive within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// What the socket serves.
#[derive(Clone)]
pub struct Sidecar {
    inner: Rc<Inner>,
}

struct Inner {
    engine: Engine,
    pools: Vec<PoolConfig>,
    facts: Facts,
    users: Rc<Users>,
}

/// What a request with a body does that has no answer but that it was done.
type Command = fn(&Engine, &[u8], &[PoolConfig]) -> Result<(), Problem>;

impl Sidecar {
    /// A sidecar for this engine and these users.
    pub fn new(engine: Engine, pools: Vec<PoolConfig>, facts: Facts, access: Access, quotas: Quotas) -> Self {
        let users = Users::new(access, quotas);
        Self { inner: Rc::new(Inner { engine, pools, facts, users }) }
    }

    /// How many callers are connected.
    pub fn connections(&self) -> usize {
        self.inner.users.connections()
    }

    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let path = request.uri().path().to_owned();
        let Some(route) = Route::of(&path) else { return not_found(&path) };
        let expected = route.method();
        if *request.method() != expected && !(expected == Method::GET && *request.method() == Method::HEAD) {
            return wrong_method(&path, &expected);
        }
        let Inner { engine, facts, users, .. } = &*self.inner;
        if !users.access().allows(caller.peer, route.needs()) {
            users.count_denied();
            return problem_answer(&operators_only(&path, caller));
        }
        match route {
            Route::Acquire => self.acquire(request, caller).await,
            Route::Commit(id) => json_or_problem(self.commit(&id, request, caller).await),
            Route::Release(id) => json_or_problem(self.release(&id, request, caller).await),
            Route::Allow => self.allow(request, caller).await,
            Route::Pause => self.command(request, operator::pause).await,
            Route::Resume => self.command(request, operator::resume).await,
            Route::Vouch => self.command(request, operator::vouch).await,
            Route::Forget => self.command(request, operator::forget).await,
            Route::Ledger => json(StatusCode::OK, &listings::ledger(engine)),
            Route::Observe => self.command(request, operator::observe).await,
            Route::Status => json(StatusCode::OK, &listings::status(engine, facts, users.status())),
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
        let (items, outcome, quota) = self.ask(ask, caller).await;
        let mut pools: Vec<usize> = items.iter().map(|item| item.pool).collect();
        let mut seen = BTreeSet::new();
        pools.retain(|pool| seen.insert(*pool));
        let engine = &self.inner.engine;
        let mut answer = answers::acquired(engine, &pools, outcome);
        if let Some(most) = quota {
            answers::not_queued(&mut answer, most);
        }
        let status = if answer.allowed { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        let mut response = json(status, &answer);
        answers::headers(engine, &pools, &answer, response.headers_mut());
        response
    }

    async fn allow(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        let body = read(request).await;
        let ask = match body.and_then(|body| Ask::parse_allow(&body, &self.inner.pools)) {
            Ok(ask) => ask,
            Err(problem) => return problem_answer(&problem),
        };
        let (items, outcome, _) = self.ask(ask, caller).await;
        json(StatusCode::OK, &answers::allow(&self.inner.engine, &items[0], outcome))
    }

    /// Asks the engine and waits for the answer. Gives back what of the choices was asked for; and if it was refused because
    /// its user has as many requests waiting as one may, how many that is.
    async fn ask(&self, ask: Ask, caller: &Caller) -> (Vec<Wanted>, Outcome, Option<usize>) {
        let Ask { mut choices, agent, class, mut wait, ttl, bind } = ask;
        let Inner { engine, users, .. } = &*self.inner;
        let uid = caller.peer.uid;
        let mut quota = None;
        if !wait.is_zero() {
            quota = users.queue_is_full(uid, choices.iter().flatten().map(|wanted| wanted.pool));
        }
        if quota.is_some() {
            wait = Duration::ZERO;
        }
        let bound: Option<Bound> = bind.then(|| caller.bound.clone());
        let request = engine::Request { choices: choices.clone(), agent, class, wait, ttl, bound };
        let (choice, reply) = engine.acquire(request);
        let items = choices.swap_remove(choice);
        let outcome = match reply {
            Reply::Now(outcome) => outcome,
            Reply::Later(pending) => {
                let _place = users.wait(uid, items.iter().map(|wanted| wanted.pool).collect());
                pending.answer().await
            }
        };
        match outcome {
            Outcome::Admitted { permit, .. } => users.issued(permit, uid, engine),
            // It would have waited for this.
            Outcome::Refused(refusal) if matches!(refusal.reason, Reason::Limit | Reason::Paused) => {
                quota.iter().for_each(|_| users.count_not_queued());
                return (items, outcome, quota);
            }
            Outcome::Refused(_) => {}
        }
        (items, outcome, None)
    }

    async fn commit(
        &self,
        id: &str,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<SettleAnswer, Problem> {
        let body = read(request).await?;
        let id = self.permit(id, caller)?;
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

    async fn release(
        &self,
        id: &str,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<SettleAnswer, Problem> {
        let body = read(request).await?;
        let id = self.permit(id, caller)?;
        Members::new(&object(&body, true, "{} or nothing")?, "", &[])?;
        let engine = &self.inner.engine;
        answers::settled(engine, engine.release(id))
    }

    /// The permit that a caller names, if it may settle it.
    fn permit(&self, id: &str, caller: &Caller) -> Result<PermitId, Problem> {
        let id = id.parse().map_err(|error| problem(400, "malformed permit id", format!("{error}")))?;
        let Inner { engine, users, .. } = &*self.inner;
        if users.may_settle(id, caller.peer, engine) {
            return Ok(id);
        }
        users.count_denied();
        let detail = "another user got this permit; only that user or an operator may settle it".to_owned();
        Err(refusal(403, "not permitted", detail, Denial::NotYourPermit))
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

fn operators_only(path: &str, caller: &Caller) -> Problem {
    let Peer { uid, gid } = caller.peer;
    let detail = format!(
        "{path} is for operators, and user {uid} (group {gid}) is none: ask as the daemon's owner or as root, or have \
         its configuration name the user in [access] operators, or a group of it in operator_groups"
    );
    refusal(403, "not permitted", detail, Denial::OperatorsOnly)
}
