//! The agents: each asks its own node's socket by the script and, when admitted, calls the provider.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::api::AcquireRequest;
use crate::cli::demo::chance::Chance;
use crate::client::Client;

use super::provider::Caller;
use super::{JITTER, PATIENCE, POOL};

/// The most requests that an agent has under way. What the script asks for beyond is given up at once.
const UNDER_WAY_MAX: usize = 400;

/// How long a permit is remembered by its node. Nobody settles permits here, and a rate limit counts them as
/// reserved.
const PERMIT_TTL_MS: u64 = 5_000;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Not known yet.
    Open,
    /// Permitted by the node and admitted by the provider.
    Admitted,
    /// Permitted by the node and refused by the provider.
    Refused,
    /// Not permitted by the node for as long as the agent waits, or never asked: too many were under way.
    GaveUp,
    /// The node or the provider broke off.
    Failed,
}

/// One request of an agent. Times count from the start of the load.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// At which node; counted from 0.
    pub node: usize,
    /// When the agent wanted it.
    pub asked: Duration,
    /// How long the agent waited for its permit; absent without one.
    pub waited: Option<Duration>,
    /// From the admission by the node, at the earliest, to the arrival of the provider's answer: how long the
    /// call was on its way at most.
    pub way: Option<Duration>,
    /// What became of it.
    pub end: End,
}

/// The load on one system: what its agents did so far.
pub struct Load {
    start: Instant,
    provider: SocketAddr,
    calls: RefCell<Vec<Call>>,
    complaint: RefCell<Option<String>>,
}

impl Load {
    /// A load that starts now.
    pub fn new(provider: SocketAddr) -> Rc<Self> {
        let (calls, complaint) = (RefCell::default(), RefCell::default());
        Rc::new(Self { start: Instant::now(), provider, calls, complaint })
    }

    /// The zero of all its times.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Every request so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// The first failure in words.
    pub fn complaint(&self) -> Option<String> {
        self.complaint.borrow().clone()
    }

    fn open(&self, node: usize) -> usize {
        let mut calls = self.calls.borrow_mut();
        let asked = self.start.elapsed();
        calls.push(Call { node, asked, waited: None, way: None, end: End::Open });
        calls.len() - 1
    }

    fn close(&self, call: usize, end: End) {
        self.calls.borrow_mut()[call].end = end;
    }
}

/// One agent and its open connections.
struct Agent {
    node: usize,
    socket: PathBuf,
    load: Rc<Load>,
    clients: RefCell<Vec<Client>>,
    callers: RefCell<Vec<Caller>>,
    under_way: Cell<usize>,
}

/// Runs the agent of `node`, whose daemon listens at `socket`, through its script and until its last request has
/// ended. Dropping the future breaks off what is under way.
pub async fn run(node: usize, socket: PathBuf, arrivals: Vec<Duration>, load: Rc<Load>) {
    let (clients, callers) = (RefCell::default(), RefCell::default());
    let start = load.start;
    let agent = Rc::new(Agent { node, socket, load, clients, callers, under_way: Cell::new(0) });
    let mut chance = Chance::new(node as u64);
    let mut requests = JoinSet::new();
    for at in arrivals {
        sleep_until((start + at).into()).await;
        while requests.try_join_next().is_some() {}
        let call = agent.load.open(node);
        if agent.under_way.get() >= UNDER_WAY_MAX {
            agent.load.close(call, End::GaveUp);
            continue;
        }
        agent.under_way.set(agent.under_way.get() + 1);
        let jitter = JITTER.mul_f64(chance.between(0.0, 1.0));
        let agent = Rc::clone(&agent);
        requests.spawn_local(async move {
            let end = agent.request(call, jitter).await.unwrap_or_else(|complaint| {
                agent.load.complaint.borrow_mut().get_or_insert(complaint);
                End::Failed
            });
            agent.load.close(call, end);
            agent.under_way.set(agent.under_way.get() - 1);
        });
    }
    while requests.join_next().await.is_some() {}
}

impl Agent {
    async fn request(&self, call: usize, jitter: Duration) -> Result<End, String> {
        let asked = Instant::now();
        let ask = AcquireRequest {
            pool: POOL.into(),
            wait_ms: Some(PATIENCE.as_millis() as u64),
            ttl_ms: Some(PERMIT_TTL_MS),
            ..AcquireRequest::default()
        };
        let idle = self.clients.borrow_mut().pop();
        let client = idle.unwrap_or_else(|| Client::new(&self.socket));
        let answer = client.acquire(&ask).await.map_err(|error| error.to_string())?;
        self.clients.borrow_mut().push(client);
        if !answer.allowed {
            return Ok(End::GaveUp);
        }
        self.load.calls.borrow_mut()[call].waited = Some(asked.elapsed());

        sleep(jitter).await;
        let idle = self.callers.borrow_mut().pop();
        let mut caller = match idle {
            Some(caller) => caller,
            None => Caller::connect(self.load.provider).await?,
        };
        let admitted = caller.call(self.node).await?;
        self.callers.borrow_mut().push(caller);
        let way = asked.elapsed().saturating_sub(Duration::from_millis(answer.waited_ms));
        self.load.calls.borrow_mut()[call].way = Some(way);
        Ok(if admitted { End::Admitted } else { End::Refused })
    }
}
