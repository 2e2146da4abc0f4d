//! The agents: each seat asks its node for a permit, calls the provider, and tells the node what the call really used.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::api::{AcquireRequest, Bind, CommitRequest};
use crate::cli::demo::chance::Chance;
use crate::client::Client;

use super::JITTER;
use super::provider::{Caller, Order};
use super::script::{AGENTS, Agent, MODELS};

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It waits for its permit.
    Waits,
    /// It has its permit and runs.
    Runs,
    /// The provider did it.
    Done,
    /// The load ended before it had its permit.
    Unserved,
    /// The provider refused it.
    Refused,
    /// Its agent crashed, or its node was killed while it waited.
    Lost,
    /// The node or the provider broke off unasked.
    Failed,
}

/// One call of an agent. Times count from the start of the load.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The place of the agent.
    pub agent: usize,
    /// Which of the calls that it makes at the same time.
    pub seat: usize,
    /// When it asked.
    pub asked: Duration,
    /// When it had its permit.
    pub admitted: Option<Duration>,
    /// When it was over.
    pub ended: Option<Duration>,
    /// What became of it.
    pub end: End,
}

impl Call {
    /// How long it waited for its permit; absent without one.
    pub fn waited(&self) -> Option<Duration> {
        self.admitted.map(|admitted| admitted.saturating_sub(self.asked))
    }
}

/// The load on the nodes: what the agents did so far.
pub struct Load {
    start: Instant,
    end: Duration,
    provider: SocketAddr,
    calls: RefCell<Vec<Call>>,
    killed: Cell<Option<usize>>,
    complaint: RefCell<Option<String>>,
}

impl Load {
    /// A load that starts now and ends at `end`.
    pub fn new(provider: SocketAddr, end: Duration) -> Rc<Self> {
        let (calls, complaint) = (RefCell::default(), RefCell::default());
        Rc::new(Self { start: Instant::now(), end, provider, calls, killed: Cell::new(None), complaint })
    }

    /// The zero of all its times.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// How many calls of an agent run.
    pub fn running(&self, agent: usize) -> usize {
        self.calls.borrow().iter().filter(|call| call.agent == agent && call.end == End::Runs).count()
    }

    /// The first failure in words.
    pub fn complaint(&self) -> Option<String> {
        self.complaint.borrow().clone()
    }

    /// From now on it is no failure that this node does not answer.
    pub fn node_killed(&self, node: usize) {
        self.killed.set(Some(node));
    }

    /// The agent has crashed: what it had under way is lost.
    pub fn agent_crashed(&self, agent: usize) {
        let now = self.now();
        for call in self.calls.borrow_mut().iter_mut() {
            if call.agent == agent && matches!(call.end, End::Waits | End::Runs) {
                (call.end, call.ended) = (End::Lost, Some(now));
            }
        }
    }

    fn complain(&self, complaint: String) {
        self.complaint.borrow_mut().get_or_insert(complaint);
    }

    fn open(&self, agent: usize, seat: usize) -> usize {
        let mut calls = self.calls.borrow_mut();
        calls.push(Call { agent, seat, asked: self.now(), admitted: None, ended: None, end: End::Waits });
        calls.len() - 1
    }

    fn admit(&self, call: usize) {
        let call = &mut self.calls.borrow_mut()[call];
        (call.end, call.admitted) = (End::Runs, Some(self.now()));
    }

    fn close(&self, call: usize, end: End) {
        let call = &mut self.calls.borrow_mut()[call];
        (call.end, call.ended) = (end, Some(self.now()));
    }
}

/// Runs an agent whose node's daemon listens at `socket`, until the load ends and its last call is over, or its node is
/// gone. Dropping the future closes all its connections, as when its process dies.
pub async fn run(agent: usize, socket: PathBuf, load: Rc<Load>) {
    let mut seats = JoinSet::new();
    for seat in 0..AGENTS[agent].seats {
        let socket = socket.clone();
        let load = Rc::clone(&load);
        seats.spawn_local(async move {
            // A different sequence for each seat, and when it is there again after a crash.
            let seed = (agent * 100 + seat) as u64 + load.now().as_secs() * 1_000;
            let mut seat = Seat { agent, seat, client: Client::new(socket), chance: Chance::new(seed), load };
            seat.run().await;
        });
    }
    while seats.join_next().await.is_some() {}
}

struct Seat {
    agent: usize,
    seat: usize,
    client: Client,
    chance: Chance,
    load: Rc<Load>,
}

impl Seat {
    async fn run(&mut self) {
        let load = Rc::clone(&self.load);
        let mut caller = match Caller::connect(load.provider).await {
            Ok(caller) => caller,
            Err(complaint) => return load.complain(complaint),
        };
        loop {
            sleep(self.draw(AGENTS[self.agent].rests)).await;
            if load.now() >= load.end || load.killed.get() == Some(AGENTS[self.agent].node) {
                return;
            }
            let call = load.open(self.agent, self.seat);
            let end = match self.call(call, &mut caller).await {
                Ok(end) => end,
                Err(_) if load.killed.get() == Some(AGENTS[self.agent].node) => End::Lost,
                Err(complaint) => {
                    load.complain(complaint);
                    End::Failed
                }
            };
            load.close(call, end);
            if !matches!(end, End::Done | End::Refused) {
                return;
            }
        }
    }

    async fn call(&mut self, call: usize, caller: &mut Caller) -> Result<End, String> {
        let Agent { name, class, model, takes, reserves, .. } = &AGENTS[self.agent];
        let reserved = self.chance.between(reserves[0], reserves[1]) as u64;
        let draws = [self.chance.between(0.0, 1.0), self.chance.between(0.0, 1.0)];
        let used = MODELS[*model].used(reserved, draws);
        let takes = self.draw(*takes);
        let order = Order { model: *model, agent: self.agent, reserved, used, takes };

        let left = self.load.end.saturating_sub(self.load.now());
        let ask = AcquireRequest {
            pool: MODELS[*model].name.into(),
            tokens: Some(reserved),
            agent: Some((*name).to_owned()),
            priority: Some(*class),
            wait_ms: Some(left.as_millis() as u64),
            bind: Some(Bind::Connection),
            ..AcquireRequest::default()
        };
        let answer = self.client.acquire(&ask).await.map_err(|error| error.to_string())?;
        let Some(permit) = answer.permit else { return Ok(End::Unserved) };
        self.load.admit(call);

        sleep(self.draw([0.0, JITTER.as_secs_f64() * 1e3])).await;
        let Some(used) = caller.call(order).await? else {
            let released = self.client.release(&permit).await;
            return released.map(|_| End::Refused).map_err(|error| error.to_string());
        };
        let truth = CommitRequest { tokens: Some(used), ..CommitRequest::default() };
        match self.client.commit(&permit, &truth).await {
            Ok(_) => Ok(End::Done),
            // The provider did the call, though its node is gone.
            Err(_) if self.load.killed.get() == Some(AGENTS[self.agent].node) => Ok(End::Done),
            Err(error) => Err(error.to_string()),
        }
    }

    fn draw(&mut self, [low, high]: [f64; 2]) -> Duration {
        Duration::from_micros((self.chance.between(low, high) * 1e3) as u64)
    }
}
