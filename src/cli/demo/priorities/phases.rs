//! What happens one after the other: five nodes share two models; an agent crashes and comes back; a node is killed.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, sleep_until, timeout};

use crate::api::LimitListing;
use crate::cli::demo::nodes::{self, Node, node_name};
use crate::cli::demo::screen::Screen;
use crate::client::Client;

use super::SETTLE;
use super::agents::{self, Call, Load};
use super::provider::{Provider, Visit};
use super::script::{AGENTS, BACK_AFTER, CRASHES, LOSES_NODE, MODELS, NODES, Plan, SLOT_TTL, pools};
use super::table;

/// How long the last calls get to end, and the nodes to tell each other of them.
pub const AFTERMATH: Duration = Duration::from_secs(2);
/// How often the table is drawn.
const EVERY: Duration = Duration::from_millis(200);
/// An agent crashes and a node is killed while so many calls are under way, for which there is this much time.
const HELD_MIN: usize = 2;
const HELD_WITHIN: Duration = Duration::from_secs(1);

/// Something that was lost with slots held.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// The agent that crashed, or whose node was killed.
    pub agent: usize,
    /// When.
    pub at: Duration,
    /// How many slots it held.
    pub held: usize,
}

/// What the swarm says of a limit.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The place of its model.
    pub model: usize,
    /// What it is called.
    pub limit: String,
    /// Units that the nodes have counted as spent.
    pub units: u64,
}

/// What was seen. Times count from the start of the load.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How long agents asked.
    pub length: Duration,
    /// What the agents did.
    pub calls: Vec<Call>,
    /// What arrived at the provider.
    pub visits: Vec<Visit>,
    /// The crash of an agent.
    pub crash: Loss,
    /// The end of a node.
    pub kill: Loss,
    /// What the swarm counted, as one of its nodes said at the end.
    pub counted: Vec<Counted>,
    /// The first request that broke off unasked, in words.
    pub complaint: Option<String>,
}

struct Stage {
    load: Rc<Load>,
    tasks: JoinSet<()>,
}

impl Stage {
    fn agent(&mut self, agent: usize, nodes: &[Node]) -> AbortHandle {
        let socket = nodes[AGENTS[agent].node].socket().to_owned();
        self.tasks.spawn_local(agents::run(agent, socket, Rc::clone(&self.load)))
    }

    async fn until(&self, moment: Duration) {
        sleep_until((self.load.start() + moment).into()).await;
    }

    /// Waits until an agent has calls under way, but not for long.
    async fn until_busy(&self, agent: usize) {
        let busy = async {
            while self.load.running(agent) < HELD_MIN {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // It is told how many there were.
        let _ = timeout(HELD_WITHIN, busy).await;
    }

    fn loss(&self, agent: usize) -> Loss {
        Loss { agent, at: self.load.now(), held: self.load.running(agent) }
    }
}

/// Runs the whole act.
///
/// # Errors
/// A node does not start or does not become ready, or does not say at the end what it counted.
pub async fn play(dir: &Path, plan: Plan, screen: &mut Screen) -> Result<Seen, String> {
    let mut nodes = nodes::swarm(dir, &pools(), NODES, SETTLE).await?;
    let provider = Provider::start(&MODELS).await;
    let provider = provider.map_err(|error| format!("cannot start the provider: {error}"))?;
    let load = Load::new(provider.address(), plan.end);
    let mut stage = Stage { load: Rc::clone(&load), tasks: JoinSet::new() };
    let handles: Vec<_> = (0..AGENTS.len()).map(|agent| stage.agent(agent, &nodes)).collect();

    let event = RefCell::new(String::new());
    let drama = async {
        stage.until(plan.crash).await;
        stage.until_busy(CRASHES).await;
        let crash = stage.loss(CRASHES);
        handles[CRASHES].abort();
        load.agent_crashed(CRASHES);
        let name = AGENTS[CRASHES].full_name();
        event.replace(format!("{name} crashed with {} calls under way", crash.held));
        sleep(BACK_AFTER).await;
        stage.agent(CRASHES, &nodes);

        stage.until(plan.kill).await;
        stage.until_busy(LOSES_NODE).await;
        let kill = stage.loss(LOSES_NODE);
        load.node_killed(AGENTS[LOSES_NODE].node);
        nodes[AGENTS[LOSES_NODE].node].kill().await?;
        event.replace(format!(
            "{} killed with {} slots held: presumed used for up to {} s once its share is taken over",
            node_name(AGENTS[LOSES_NODE].node),
            kill.held,
            SLOT_TTL.as_secs()
        ));
        stage.until(plan.end).await;
        let _ = timeout(AFTERMATH / 2, async { while stage.tasks.join_next().await.is_some() {} }).await;
        sleep(AFTERMATH / 2).await;
        Ok::<_, String>((crash, kill, counted(&nodes[0]).await?))
    };
    let visits = || {
        // The provider started a moment earlier than the load.
        let before = load.start().saturating_duration_since(provider.started());
        let since = |at: Duration| at.saturating_sub(before);
        let visit = |visit: Visit| Visit { at: since(visit.at), until: visit.until.map(since), ..visit };
        provider.visits().into_iter().map(visit).collect::<Vec<_>>()
    };
    let show = async {
        loop {
            table::show(screen, load.now(), plan.end, &load.calls(), &visits(), &event.borrow());
            sleep(EVERY).await;
        }
    };
    let (crash, kill, counted) = tokio::select! {
        ended = drama => ended?,
        () = show => unreachable!("the table is shown for as long as it lasts"),
    };
    table::show(screen, load.now(), plan.end, &load.calls(), &visits(), &event.borrow());

    let (calls, visits, complaint) = (load.calls(), visits(), load.complaint());
    stage.tasks.shutdown().await;
    nodes::stop(nodes).await?;
    Ok(Seen { length: plan.end, calls, visits, crash, kill, counted, complaint })
}

/// What the whole swarm has counted, as `node` knows it.
async fn counted(node: &Node) -> Result<Vec<Counted>, String> {
    let limits = Client::new(node.socket()).limits().await.map_err(|error| error.to_string())?;
    let counted = |listing: LimitListing| {
        let model = MODELS.iter().position(|model| model.name == listing.pool)?;
        let (limit, units) = (listing.status.now.name, listing.status.admitted_by_all);
        Some(Counted { model, limit, units })
    };
    Ok(limits.limits.into_iter().filter_map(counted).collect())
}
