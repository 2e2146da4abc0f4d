//! The Unix socket: HTTP/1.1 and JSON for programs on this machine.
//!
//! One straight path: a connection is a task (`connection`), a request goes through `Sidecar::answer` to one function
//! below, which calls the engine and nothing else. A caller that hangs up drops its task, and with it its place in the
//! queue. Who may ask for what stands in one table, `Route::needs`.

mod answers;
mod body;
mod connection;
mod events;
mod explain;
mod listings;
mod metrics;
mod operator;
mod patience;
mod plain;
mod reload;
mod request;
mod response;
mod rls;
mod route;
mod users;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use smallvec::SmallVec;
use tokio::time::timeout;

use self::answers::{Passed, Told};
use self::body::{Members, object, pool_named};
pub use self::connection::Caller;
use self::events::Events;
use self::reload::Running;
pub use self::request::Ask;
use self::response::{
    Answer, document, done_or_problem, json, json_or_problem, not_found, problem, problem_answer, refusal,
    text, wrong_method,
};
use self::route::Route;
pub use self::users::{Admittance, Place, Quotas, Users};
use super::access::Peer;
use super::config::{Config, ConfigSource, PoolConfig};
use super::engine::{self, Bound, Engine, Reply, Wanted};
use super::facts::Facts;
use super::rls::Rls;
use super::tally::Tally;
use super::token::Token;
use crate::api::{self, AcquireAnswer, Denial, Problem, SettleAnswer, Status, TokenAnswer};
use crate::protocol::node::{Node, Outcome, Phase, Reason};
use crate::protocol::permit::PermitId;
use crate::protocol::time::Instant;

/// The longest body of a request.
const BODY_MAX: usize = 64 * 1024;
/// A request's body must arrive within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// What all of this is, for programs.
const OPENAPI: &str = include_str!("../../proto/openapi.json");

/// What the socket serves.
#[derive(Clone)]
pub struct Sidecar {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    facts: Facts,
    users: Arc<Users>,
    tally: Arc<Tally>,
    events: Arc<Events>,
    running: Running,
    rls: Rls,
}

/// A request, whoever has read its head.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    /// The media types that its caller wants.
    accept: &'a str,
    content: Content<'a>,
}

/// The body of a request.
enum Content<'a> {
    /// All of it.
    Here(&'a [u8]),
    /// It is read when it is needed.
    Coming(Incoming),
}

/// What the core answered.
struct Answered<T> {
    /// The pools that were asked, each once.
    passed: Vec<Passed>,
    outcome: Outcome,
    /// How many requests its user has waiting, if it was refused because these are as many as one may.
    quota: Option<usize>,
    /// What was looked at with it.
    told: T,
}

/// What a request with a body does that has no answer but that it was done.
type Command = fn(&Engine, &[u8], &[PoolConfig]) -> Result<(), Problem>;

impl Sidecar {
    /// A sidecar for this engine and these users.
    pub fn new(
        engine: Engine,
        config: Config,
        source: ConfigSource,
        facts: Facts,
        users: Arc<Users>,
        rls: Rls,
    ) -> Self {
        let tally = Arc::new(Tally::new(config.pools.len()));
        let (events, running) = (Arc::default(), Running::new(config, source));
        Self { inner: Arc::new(Inner { engine, facts, users, tally, events, running, rls }) }
    }

    /// The core.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Who is connected.
    pub fn users(&self) -> &Arc<Users> {
        &self.inner.users
    }

    /// What the node runs with.
    fn config(&self) -> Arc<Config> {
        self.inner.running.config()
    }

    /// What callers were answered.
    pub fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    /// Envoy's rate limit service.
    pub fn rls(&self) -> &Rls {
        &self.inner.rls
    }

    /// What `GET /v1/status` answers.
    pub fn status(&self) -> Status {
        let Inner { engine, facts, users, .. } = &*self.inner;
        listings::status(engine, facts, users.status())
    }

    /// How many callers are connected.
    pub fn connections(&self) -> usize {
        self.inner.users.connections()
    }

    async fn answer(&self, asked: Asked<'_>, caller: &Caller) -> Answer {
        let Asked { method, path, accept, content } = asked;
        let Some(route) = Route::of(path) else { return not_found(path) };
        let expected = route.method();
        if *method != expected && !(expected == Method::GET && *method == Method::HEAD) {
            return wrong_method(path, &expected);
        }
        let Inner { engine, facts, users, .. } = &*self.inner;
        if !users.allows(caller.peer, route.needs()) {
            users.count_denied();
            return problem_answer(&operators_only(path, caller));
        }
        match route {
            Route::Acquire => self.acquire(content, caller).await,
            Route::Commit(id) => json_or_problem(self.commit(&id, content, caller).await),
            Route::Release(id) => json_or_problem(self.release(&id, content, caller).await),
            Route::Allow => self.allow(content, caller).await,
            Route::Pause => self.command(content, operator::pause).await,
            Route::Resume => self.command(content, operator::resume).await,
            Route::Vouch => self.command(content, operator::vouch).await,
            Route::Forget => self.command(content, operator::forget).await,
            Route::Ledger => json(StatusCode::OK, &listings::ledger(engine)),
            Route::Observe => self.command(content, operator::observe).await,
            Route::Status => json(StatusCode::OK, &self.status()),
            Route::Peers => json(StatusCode::OK, &listings::peers(engine, facts)),
            Route::Limits => json(StatusCode::OK, &listings::limits(engine)),
            Route::Queue => json(StatusCode::OK, &listings::queues(engine)),
            Route::Explain(pool) => {
                let pool = pool_named(&pool, &self.config().pools);
                json_or_problem(pool.map(|pool| explain::explain(engine, pool)))
            }
            Route::Token => json_or_problem(self.token()),
            Route::Leave => self.leave(content).await,
            Route::Reload => self.reloaded(content).await,
            Route::Metrics => self.metrics(accept),
            Route::Events => self.events(),
            Route::OpenApi => document("application/json", StatusCode::OK, OPENAPI),
            Route::Json => self.should_rate_limit(content, caller).await,
            Route::Live => text(StatusCode::OK, "ok\n"),
            Route::Ready => self.ready(),
        }
    }

    async fn acquire(&self, content: Content<'_>, caller: &Caller) -> Answer {
        let config = self.config();
        let ask = match read(content).await.and_then(|body| Ask::parse(&body, &config.pools)) {
            Ok(ask) => ask,
            Err(problem) => return problem_answer(&problem),
        };
        let (answer, passed) = self.ask_and_tell(ask, caller, &config).await;
        let status = if answer.allowed { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        let mut response = json(status, &answer);
        answers::headers(&config, &passed, &answer, response.headers_mut());
        response
    }

    /// Answers a body of `POST /v1/acquire`.
    ///
    /// # Errors
    /// 400, or 404 for a pool that is not there.
    pub async fn acquired(&self, body: &[u8], caller: &Caller) -> Result<AcquireAnswer, Problem> {
        let config = self.config();
        let ask = Ask::parse(body, &config.pools)?;
        Ok(self.ask_and_tell(ask, caller, &config).await.0)
    }

    /// The answer, and which pools were asked.
    async fn ask_and_tell(&self, ask: Ask, caller: &Caller, config: &Config) -> (AcquireAnswer, Vec<Passed>) {
        let Answered { passed, outcome, quota, told } = self.ask(ask, caller, Told::by).await;
        let mut answer = answers::acquired(&config.pools, &passed, outcome, told);
        if let Some(most) = quota {
            answers::not_queued(&mut answer, most);
        }
        passed.iter().for_each(|of| self.count(of.pool, &outcome, quota));
        (answer, passed)
    }

    fn count(&self, pool: usize, outcome: &Outcome, quota: Option<usize>) {
        let tally = &self.inner.tally;
        match outcome {
            Outcome::Admitted { waited, .. } => tally.admitted(pool, *waited),
            Outcome::Refused(_) if quota.is_some() => tally.refused(pool, api::Reason::UserQueueFull),
            Outcome::Refused(refusal) => tally.refused(pool, answers::reason(refusal.reason)),
        }
    }

    async fn allow(&self, content: Content<'_>, caller: &Caller) -> Answer {
        let body = read(content).await;
        let ask = match body.and_then(|body| Ask::parse_allow(&body, &self.config().pools)) {
            Ok(ask) => ask,
            Err(problem) => return problem_answer(&problem),
        };
        let wanted = ask.choices[0][0].clone();
        let used = |node: &mut Node, _: &[Passed], _, now| answers::used(node, &wanted, now);
        let Answered { outcome, told, .. } = self.ask(ask, caller, used).await;
        self.count(wanted.pool, &outcome, None);
        json(StatusCode::OK, &answers::allow(told, outcome))
    }

    /// Asks the engine and waits for the answer. `tell` looks at the core when it has answered, with the pools that were
    /// passed.
    async fn ask<T>(
        &self,
        ask: Ask,
        caller: &Caller,
        tell: impl Fn(&mut Node, &[Passed], Outcome, Instant) -> T,
    ) -> Answered<T> {
        let Ask { choices, agent, class, mut wait, ttl, bind } = ask;
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
        let of = |wanted: &Wanted| Passed { pool: wanted.pool, key: wanted.key.clone() };
        let mut passed: SmallVec<[Vec<Passed>; 1]> =
            choices.iter().map(|items| items.iter().map(of).collect()).collect();
        for several in passed.iter_mut().filter(|passed| passed.len() > 1) {
            let mut seen = BTreeSet::new();
            several.retain(|of| seen.insert(of.pool));
        }
        let request = engine::Request { choices, agent, class, wait, ttl, bound };
        let (choice, reply) =
            engine.acquire(request, |node, choice, outcome, now| tell(node, &passed[choice], outcome, now));
        let passed = passed.swap_remove(choice);
        let (outcome, told) = match reply {
            Reply::Now(outcome, told) => (outcome, told),
            Reply::Later(pending) => {
                let _place = users.wait(uid, passed.iter().map(|of| of.pool).collect());
                let outcome = pending.answer().await;
                (outcome, engine.look(|node, now| tell(node, &passed, outcome, now)))
            }
        };
        match outcome {
            Outcome::Admitted { permit, .. } => users.issued(permit, uid, engine),
            // It would have waited for this.
            Outcome::Refused(refusal) if matches!(refusal.reason, Reason::Limit | Reason::Paused) => {
                quota.iter().for_each(|_| users.count_not_queued());
                return Answered { passed, outcome, quota, told };
            }
            Outcome::Refused(_) => {}
        }
        Answered { passed, outcome, quota: None, told }
    }

    async fn commit(&self, id: &str, content: Content<'_>, caller: &Caller) -> Result<SettleAnswer, Problem> {
        self.committed(id, &read(content).await?, caller)
    }

    /// Answers a body of `POST /v1/permits/{id}/commit`.
    ///
    /// # Errors
    /// 400, 403 for another user's permit, 404 or 410 for one that is not there.
    pub fn committed(&self, id: &str, body: &[u8], caller: &Caller) -> Result<SettleAnswer, Problem> {
        let id = self.permit(id, caller)?;
        let body = object(body, true, "{\"tokens\":1012}")?;
        let members = Members::new(&body, "", &["requests", "tokens", "cost"])?;
        let engine = &self.inner.engine;
        // Which pools a permit passed is forgotten when it ends; the answer is then what it was, whatever is said now.
        let passed = engine.look(|node, _| node.permit_pools(id));
        let config = self.config();
        let pools: Vec<&PoolConfig> = match passed {
            // Beyond the configured ones are those of single keys, which callers name no cost of.
            Some(pools) => pools.into_iter().filter_map(|pool| config.pools.get(pool)).collect(),
            None => config.pools.iter().collect(),
        };
        let (used, _) = members.cost(&pools)?;
        answers::settled(engine, engine.commit(id, &used))
    }

    async fn release(
        &self,
        id: &str,
        content: Content<'_>,
        caller: &Caller,
    ) -> Result<SettleAnswer, Problem> {
        self.released(id, &read(content).await?, caller)
    }

    /// Answers a body of `POST /v1/permits/{id}/release`.
    ///
    /// # Errors
    /// As [`committed`](Self::committed).
    pub fn released(&self, id: &str, body: &[u8], caller: &Caller) -> Result<SettleAnswer, Problem> {
        let id = self.permit(id, caller)?;
        Members::new(&object(body, true, "{} or nothing")?, "", &[])?;
        let engine = &self.inner.engine;
        answers::settled(engine, engine.release(id))
    }

    /// `POST /json`, as Envoy's reference server has it.
    async fn should_rate_limit(&self, content: Content<'_>, caller: &Caller) -> Answer {
        let request = match read(content).await.and_then(|body| rls::parse(&body)) {
            Ok(request) => request,
            Err(problem) => return problem_answer(&problem),
        };
        match self.inner.rls.should_rate_limit(&request, caller.peer.uid).await {
            Ok(answer) => rls::answer(&answer),
            Err(error) => problem_answer(&problem(400, "malformed request", error.to_string())),
        }
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

    async fn command(&self, content: Content<'_>, command: Command) -> Answer {
        let body = read(content).await;
        done_or_problem(body.and_then(|body| command(&self.inner.engine, &body, &self.config().pools)))
    }

    async fn leave(&self, content: Content<'_>) -> Answer {
        let wait = match read(content).await.and_then(|body| operator::leave_wait(&body)) {
            Ok(wait) => wait,
            Err(problem) => return problem_answer(&problem),
        };
        self.inner.engine.leave();
        match wait {
            Some(wait) => json(StatusCode::OK, &operator::left(&self.inner.engine, wait).await),
            None => done_or_problem(Ok(())),
        }
    }

    async fn reloaded(&self, content: Content<'_>) -> Answer {
        let body = read(content).await.and_then(|body| object(&body, true, "{} or nothing").map(|_| ()));
        match body {
            Ok(()) => match self.reload().await {
                Ok(answer) if !answer.needs_restart.is_empty() => json(StatusCode::OK, &answer),
                done => done_or_problem(done.map(|_| ())),
            },
            Err(problem) => problem_answer(&problem),
        }
    }

    fn metrics(&self, accept: &str) -> Answer {
        let format = metrics::Format::accepted(accept);
        let Inner { engine, facts, users, tally, .. } = &*self.inner;
        let page = metrics::metrics(engine, facts, &users.status(), tally, format);
        document(format.media_type(), StatusCode::OK, page)
    }

    fn events(&self) -> Answer {
        let Inner { engine, tally, events, .. } = &*self.inner;
        if let Some(stream) = events.subscribe(self.status(), engine, tally) {
            return response::events(stream);
        }
        let detail = format!("{} read events already, as many as may", events::READERS_MAX);
        problem_answer(&refusal(503, "too many readers", detail, Denial::Readers))
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
async fn read(content: Content<'_>) -> Result<Cow<'_, [u8]>, Problem> {
    let coming = match content {
        Content::Here(body) => return Ok(Cow::Borrowed(body)),
        Content::Coming(coming) => coming,
    };
    match timeout(BODY_TIMEOUT, Limited::new(coming, BODY_MAX).collect()).await {
        Ok(Ok(body)) => Ok(Cow::Owned(body.to_bytes().into())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(problem(413, "body too long", format!("at most {BODY_MAX} bytes are read")))
        }
        Ok(Err(error)) => Err(problem(400, "unreadable body", error.to_string())),
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> Problem {
    problem(408, "body too slow", format!("the body did not come within {BODY_TIMEOUT:?}"))
}

fn operators_only(path: &str, caller: &Caller) -> Problem {
    let Peer { uid, gid } = caller.peer;
    let detail = format!(
        "{path} is for operators, and user {uid} (group {gid}) is none: ask as the daemon's owner or as root, or have \
         its configuration name the user in [access] operators, or a group of it in operator_groups"
    );
    refusal(403, "not permitted", detail, Denial::OperatorsOnly)
}
