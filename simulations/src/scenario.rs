//! Scenarios: what a run is like, as files that people write.

use serde::{Deserialize, Serialize};

use crate::clock::ClockSpec;
use crate::fault::Fault;
use crate::network::LinkSpec;
use crate::workload::Workload;

/// What a run is like. Together with a seed it decides everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name: the file's without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// How many nodes, if the command line does not say.
    pub nodes: usize,
    /// How long the measured span is, in seconds.
    pub seconds: f64,
    /// How long the swarm runs under load before it, in seconds.
    #[serde(default = "default_warmup")]
    pub warmup: f64,
    /// The one limit.
    pub limit: LimitSpec,
    /// What becomes of members that vanish.
    #[serde(default)]
    pub policy: PolicySpec,
    /// How the swarm comes to be.
    #[serde(default)]
    pub start: StartSpec,
    /// The links between all nodes.
    #[serde(default)]
    pub links: LinkSpec,
    /// The nodes' clocks.
    #[serde(default)]
    pub clocks: ClockSpec,
    /// Fairness weights: node `i` has the weight at `i` modulo their number. All 1 if there are none.
    #[serde(default)]
    pub weights: Vec<u32>,
    /// News that is put out at a random node every so many seconds, to measure how it spreads; 0 for none.
    #[serde(default)]
    pub probe_every: f64,
    /// Who asks for how much.
    pub workload: Vec<Workload>,
    /// What happens when.
    #[serde(default)]
    pub step: Vec<Step>,
    /// What must come out, beyond what the checkers see to; in every run with Aquifer.
    #[serde(default)]
    pub expect: Expect,
}

/// The limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// Units that come back per second.
    pub per_second: u64,
    /// Units that can be spent at once.
    pub burst: u64,
    /// Both numbers are for each node, so that the limit grows with the swarm.
    #[serde(default)]
    pub each: bool,
}

/// What becomes of members that vanish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicySpec {
    /// Their share stays reserved. T1 is checked.
    #[default]
    Strict,
    /// Any side takes it after 15 seconds. T1 is not promised where the network separates nodes.
    Available,
}

/// How the swarm comes to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartSpec {
    /// All are members with equal base shares and know one another.
    #[default]
    Formed,
    /// The first node founds; the others join through it, and are up when the warm-up begins.
    Joining,
    /// Only the first node runs; steps start the others.
    Alone,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, in seconds after the warm-up.
    pub at: f64,
    /// In words; shown in reports, and when the run fails after it.
    pub say: String,
    /// What.
    #[serde(rename = "do")]
    pub fault: Fault,
}

/// What must come out; what is absent may be anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The least utilisation against the ideal, of 1.
    pub utilisation: Option<f64>,
    /// The least of Jain's index.
    pub jain: Option<f64>,
    /// The longest time to 95 % of the new optimum after a step, in seconds.
    pub reaction: Option<f64>,
    /// The most bytes per node and second.
    pub bytes: Option<f64>,
    /// Nobody who asks all the time goes without for so many seconds.
    pub starved: Option<f64>,
}

fn default_warmup() -> f64 {
    5.0
}
