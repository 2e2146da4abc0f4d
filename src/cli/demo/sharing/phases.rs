//! What happens one after the other: five nodes share, one is killed, one joins; then the same load without
//! sharing.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{try_join, try_join_all};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, sleep_until};

use crate::cli::demo::nodes::{self, Node, node_name};
use crate::cli::demo::screen::Screen;
use crate::protocol::limit::Rate;

use super::agents::{self, Call, Load};
use super::provider::{Hit, Provider};
use super::script::{HABITS, JOINS, KILLED, NODES};
use super::summary::System;
use super::table::{self, Caption};
use super::watch::{self, EVERY, Event, Sample, Sight};
use super::{caption, config};

/// How long nodes that are ready get to fill their buckets and to even out their shares.
pub const SETTLE: Duration = Duration::from_secs(1);
/// How long the loss of a node is watched before another one joins: its loans end within this.
const MOURNING: Duration = Duration::from_secs(2);

/// How long the kill and the join take, where a system is under load for `length`.
pub fn change(length: Duration) -> Duration {
    (length * 4 / 7).clamp(Duration::from_secs(6), Duration::from_secs(12))
}

/// What was seen of the nodes that share.
pub struct Shared {
    /// How long, the kill and the join included.
    pub length: Duration,
    /// What the agents did.
    pub calls: Vec<Call>,
    /// What arrived at the provider.
    pub hits: Vec<Hit>,
    /// What the nodes said of themselves.
    pub samples: Vec<Sample>,
    /// What happened.
    pub events: Vec<Event>,
    /// When a node was killed.
    pub killed_at: Duration,
    /// The first request that broke off, in words.
    pub complaint: Option<String>,
}

/// A provider with a strict limit and a load on it that has just begun.
struct Stage {
    load: Rc<Load>,
    sight: Rc<Sight>,
    per_second: f64,
    wakes: Duration,
    end: Duration,
    tasks: JoinSet<()>,
}

impl Stage {
    async fn open(limit: &Rate, wakes: Duration, end: Duration) -> Result<Self, String> {
        let provider = Provider::start(limit).await;
        let provider = provider.map_err(|error| format!("cannot start the provider: {error}"))?;
        let load = Load::new(provider.address());
        let sight = Sight::new(load.start(), provider);
        Ok(Self { load, sight, per_second: limit.per_second(), wakes, end, tasks: JoinSet::new() })
    }

    /// Lets the agent of a node ask from `from` on.
    fn agent(&mut self, index: usize, node: &Node, from: Duration) -> AbortHandle {
        let arrivals = HABITS[index].arrivals(self.per_second, self.wakes, from, self.end, index as u64);
        let agent = agents::run(index, node.socket().to_owned(), arrivals, Rc::clone(&self.load));
        self.tasks.spawn_local(agent)
    }

    /// Reads the status page of a node from now on.
    fn watch(&mut self, index: usize, node: &Node) {
        self.tasks.spawn_local(watch::watch(index, node.socket().to_owned(), Rc::clone(&self.sight)));
    }

    async fn until(&self, moment: Duration) {
        sleep_until((self.load.start() + moment).into()).await;
    }
}

/// Five nodes share for `length`; then one is killed and another one joins.
///
/// # Errors
/// A node does not start or does not become ready.
pub async fn share(
    dir: &Path,
    limit: &Rate,
    pool: &Rate,
    length: Duration,
    screen: &mut Screen,
) -> Result<Shared, String> {
    let (wakes, end) = (length / 2, length + change(length));
    let mut nodes = nodes::swarm(dir, &config(pool), NODES, SETTLE).await?;
    let token = nodes[0].token().await?;

    let mut stage = Stage::open(limit, wakes, end).await?;
    let (load, sight) = (Rc::clone(&stage.load), Rc::clone(&stage.sight));
    let mut agents = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        stage.watch(index, node);
        agents.push(stage.agent(index, node, Duration::ZERO));
    }
    sight.note(wakes, format!("{} wakes", node_name(KILLED)));

    let drama = async {
        stage.until(length).await;
        agents[KILLED].abort();
        nodes[KILLED].kill().await?;
        let killed_at = sight.now();
        sight.note(killed_at, format!("{} killed", node_name(KILLED)));

        sleep(MOURNING).await;
        let mut joiner = Node::start(dir, &node_name(JOINS), &config(pool), Some(&token))?;
        joiner.ready(1).await?;
        let joined_at = sight.now();
        stage.watch(JOINS, &joiner);
        stage.agent(JOINS, &joiner, joined_at);
        sight.note(joined_at, format!("{} joins", node_name(JOINS)));
        nodes.push(joiner);

        stage.until(end).await;
        Ok::<_, String>(killed_at)
    };
    let caption = Caption { limit: caption(), per_second: limit.per_second(), length: end };
    let show = async {
        loop {
            table::show(screen, &sight, &caption);
            sleep(EVERY).await;
        }
    };
    let killed_at = tokio::select! {
        killed_at = drama => killed_at?,
        () = show => unreachable!("the table is shown for as long as it lasts"),
    };
    table::show(screen, &sight, &caption);

    let seen = Shared {
        length: end,
        calls: load.calls(),
        hits: sight.hits(),
        samples: sight.samples(),
        events: sight.events(),
        killed_at,
        complaint: load.complaint(),
    };
    stage.tasks.shutdown().await;
    nodes::stop(nodes).await?;
    Ok(seen)
}

/// Nodes that know nothing of each other.
pub struct Lone<'a> {
    /// What the system is called.
    pub name: &'static str,
    /// Where its files go.
    pub dir: &'a Path,
    /// The limit of each node.
    pub pool: &'a Rate,
}

/// Puts both systems under the load that the sharing nodes had, each with a provider of its own.
///
/// # Errors
/// A node does not start or does not become ready, or a request broke off.
pub async fn compare(
    systems: [Lone<'_>; 2],
    limit: &Rate,
    length: Duration,
    screen: &mut Screen,
) -> Result<[System; 2], String> {
    let [first, second] = systems;
    let (nodes, more) =
        try_join(strangers(first.dir, first.pool), strangers(second.dir, second.pool)).await?;
    sleep(SETTLE).await;
    let mut stages =
        [Stage::open(limit, length / 2, length).await?, Stage::open(limit, length / 2, length).await?];
    for (stage, nodes) in stages.iter_mut().zip([&nodes, &more]) {
        for (index, node) in nodes.iter().enumerate() {
            stage.agent(index, node, Duration::ZERO);
        }
    }
    let names = [first.name, second.name];
    while stages.iter().any(|stage| stage.sight.now() < length) {
        table::compare(screen, names, [&stages[0].sight, &stages[1].sight]);
        sleep(EVERY).await;
    }
    for stage in &mut stages {
        stage.tasks.shutdown().await;
    }
    nodes::stop(nodes).await?;
    nodes::stop(more).await?;

    let result = |name: &'static str, stage: &Stage| match stage.load.complaint() {
        Some(complaint) => Err(format!("{name}: {complaint}")),
        None => Ok(System::new(name, limit, NODES, &stage.load.calls(), &stage.sight.hits(), length)),
    };
    Ok([result(names[0], &stages[0])?, result(names[1], &stages[1])?])
}

/// Starts nodes that each found a swarm of their own.
async fn strangers(dir: &Path, pool: &Rate) -> Result<Vec<Node>, String> {
    let nodes: Result<Vec<_>, _> =
        (0..NODES).map(|index| Node::start(dir, &node_name(index), &config(pool), None)).collect();
    let mut nodes = nodes?;
    try_join_all(nodes.iter_mut().map(|node| node.ready(0))).await?;
    Ok(nodes)
}
