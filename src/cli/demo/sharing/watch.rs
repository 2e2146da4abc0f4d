//! What is seen of a system while it runs: its nodes' status pages, the provider's book, and what happened.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::client::Client;

use super::provider::{Hit, Provider};

/// How often the nodes' status pages are read.
pub const EVERY: Duration = Duration::from_millis(200);

/// One reading of one node's status page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// When, since the start of the load.
    pub at: Duration,
    /// Of which node; counted from 0.
    pub node: usize,
    /// Its part of the limit.
    pub held: f64,
    /// Calls a second that its agent wants.
    pub demand: f64,
    /// Requests that wait in its queue.
    pub waiting: usize,
}

/// Something that people should see on the picture.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, since the start of the load.
    pub at: Duration,
    /// In a few words.
    pub what: String,
}

/// Everything that was seen of one system.
pub struct Sight {
    start: Instant,
    provider: Provider,
    samples: RefCell<Vec<Sample>>,
    events: RefCell<Vec<Event>>,
}

impl Sight {
    /// Nothing seen yet; times count from `start`.
    pub fn new(start: Instant, provider: Provider) -> Rc<Self> {
        Rc::new(Self { start, provider, samples: RefCell::default(), events: RefCell::default() })
    }

    /// Time since the start of the load.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The provider's book, with times since the start of the load.
    pub fn hits(&self) -> Vec<Hit> {
        let before = self.start.saturating_duration_since(self.provider.started());
        let since = |hit: Hit| Hit { at: hit.at.saturating_sub(before), ..hit };
        self.provider.hits().into_iter().map(since).collect()
    }

    /// How many calls the provider admitted and refused so far.
    pub fn totals(&self) -> (usize, usize) {
        self.provider.totals()
    }

    /// All readings so far.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.borrow().clone()
    }

    /// The newest reading of a node, if it is fresh.
    pub fn latest(&self, node: usize) -> Option<Sample> {
        let samples = self.samples.borrow();
        let last = samples.iter().rev().find(|sample| sample.node == node).copied();
        last.filter(|sample| sample.at + 5 * EVERY > self.now())
    }

    /// Calls of a node (of all without one) that the provider admitted, per second of the last second.
    pub fn admitted_rate(&self, node: Option<usize>) -> f64 {
        let now = self.now();
        let window = now.min(Duration::from_secs(1)).max(EVERY);
        let wanted = |hit: &&Hit| hit.admitted && node.is_none_or(|node| node == hit.node);
        let hits = self.hits();
        let recent = hits.iter().rev().take_while(|hit| hit.at + window > now).filter(wanted).count();
        recent as f64 / window.as_secs_f64()
    }

    /// Notes something that happens now or will happen at a moment that is known.
    pub fn note(&self, at: Duration, what: impl Into<String>) {
        self.events.borrow_mut().push(Event { at, what: what.into() });
    }

    /// What happened so far, in order.
    pub fn events(&self) -> Vec<Event> {
        let now = self.now();
        let mut events = self.events.borrow().clone();
        events.retain(|event| event.at <= now);
        events.sort_by_key(|event| event.at);
        events
    }
}

/// Reads the status page of one node again and again until it does not answer any more.
pub async fn watch(node: usize, socket: PathBuf, sight: Rc<Sight>) {
    let client = Client::new(socket);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let status = client.status().await;
        let at = sight.now();
        let Ok(status) = status else {
            return sight.samples.borrow_mut().push(Sample { at, node, ..Sample::default() });
        };
        let Some(pool) = status.pools.first() else { continue };
        let Some(limit) = pool.limits.first() else { continue };
        let (held, demand, waiting) = (limit.held_share, limit.demand_per_second, pool.waiting);
        sight.samples.borrow_mut().push(Sample { at, node, held, demand, waiting });
    }
}
