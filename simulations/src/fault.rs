//! What can go wrong, as values.

use serde::{Deserialize, Serialize};

use crate::network::LinkSpec;

/// Some nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nodes {
    /// Every node.
    All,
    /// The first of so many equal parts of all nodes: `part = [2, 0]` is the first half.
    Part(usize, usize),
    /// So many nodes, drawn from the seed when it happens.
    Some(usize),
    /// This one.
    One(usize),
}

/// One thing that happens to the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// `kill -9`; what was on disk is still there.
    Crash(Nodes),
    /// `kill -9` at the worst moment: after so many more outputs were carried out.
    CrashAfter { nodes: Nodes, outputs: usize },
    /// `kill -9`, and the disk is gone too.
    Wipe(Nodes),
    /// Starts whoever is down, again or for the first time.
    Start(Nodes),
    /// Starts to leave gracefully.
    Leave(Nodes),
    /// Stands still for so long, as under SIGSTOP.
    Pause { nodes: Nodes, seconds: f64 },
    /// Steps the clocks of nodes forward by so much, as a suspended machine's does.
    Step { nodes: Nodes, seconds: f64 },
    /// What these say does not reach those, silently.
    CutOneWay { from: Nodes, to: Nodes },
    /// Cuts these off from all others, both ways, silently.
    Partition(Nodes),
    /// Cuts these off and heals again, with this period, until healed.
    Flap { nodes: Nodes, seconds: f64 },
    /// All cuts heal and flapping stops; links come up anew.
    Heal,
    /// From here on links are like this.
    Links(LinkSpec),
}
