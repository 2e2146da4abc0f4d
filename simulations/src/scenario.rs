//! Scenarios: what a run is like, as files that people write.

mod check;
mod error;
mod library;
mod limit;
mod set;

use std::path::Path;

use aquifer::protocol::limit::Kind as LimitKind;
use aquifer::protocol::policy::Policy;
use serde::{Deserialize, Serialize};

pub use self::error::{Invalid, ScenarioError};
pub use self::limit::{KindSpec, LimitSpec};

use crate::clock::ClockSpec;
use crate::fault::Fault;
use crate::lie::{LiarSpec, TrustSpec};
use crate::network::LinkSpec;
use crate::record::Mark;
use crate::time::{Nanos, nanos};
use crate::workload::{self, Kind, Row, Workload};

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
    /// The part of the nodes that lie, of 1: which and how is drawn from the seed.
    #[serde(default)]
    pub liars: f64,
    /// Further nodes that lie.
    #[serde(default)]
    pub liar: Vec<LiarSpec>,
    /// Identities without base share, for each honest node, that the first liar has made up and vouched for.
    #[serde(default)]
    pub sybils: usize,
    /// How far what others say of their demand counts.
    #[serde(default)]
    pub trust: TrustSpec,
    /// The part of all that a node ever had which it gives to those who join through it.
    #[serde(default = "all")]
    pub auto_vouch: f64,
    /// What must come out, beyond what the checkers see to; in every run with Aquifer.
    #[serde(default)]
    pub expect: Expect,
}

/// What becomes of members that vanish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicySpec {
    /// Their share stays reserved. T1 is checked.
    #[default]
    Strict,
    /// A majority takes it after 15 seconds. T1 is checked.
    Majority,
    /// Any side takes it after 15 seconds. T1 is not promised where the network separates nodes.
    Available,
}

impl From<PolicySpec> for Policy {
    fn from(spec: PolicySpec) -> Self {
        match spec {
            PolicySpec::Strict => Self::Strict,
            PolicySpec::Majority => Self::Majority,
            PolicySpec::Available => Self::Available,
        }
    }
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
    /// The least part of its floor that every honest node has, of 1.
    pub floor: Option<f64>,
}

fn default_warmup() -> f64 {
    5.0
}

fn all() -> f64 {
    1.0
}

impl Default for Scenario {
    /// Ten nodes on good links that all ask for a little more than there is.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            about: "Ten nodes that all ask for a little more than there is.".to_owned(),
            nodes: 10,
            seconds: 30.0,
            warmup: default_warmup(),
            limit: LimitSpec::rate(1_000, 1_000),
            policy: PolicySpec::default(),
            start: StartSpec::default(),
            links: LinkSpec::default(),
            clocks: ClockSpec::default(),
            weights: Vec::new(),
            probe_every: 0.0,
            workload: vec![Workload { load: 1.2, ..Workload::default() }],
            step: Vec::new(),
            liars: 0.0,
            liar: Vec::new(),
            sybils: 0,
            trust: TrustSpec::default(),
            auto_vouch: 1.0,
            expect: Expect::default(),
        }
    }
}

impl Scenario {
    /// Reads a file, and the traces that it names.
    ///
    /// # Errors
    /// It cannot be read, is not a scenario, or a field is out of bounds.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let read = |file: &Path| {
            let error = |source| ScenarioError::Read { file: file.to_owned(), source };
            std::fs::read_to_string(file).map_err(error)
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&name, &path.display().to_string(), &read(path)?, |trace| read(&folder.join(trace)))
    }

    /// One of the library, which is part of the program.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn named(name: &str) -> Result<Self, ScenarioError> {
        let Some((_, text)) = library::FILES.iter().find(|(known, _)| *known == name) else {
            let similar = error::similar(name, Self::library());
            return Err(ScenarioError::Name { name: name.to_owned(), similar });
        };
        Self::parse(name, name, text, library::trace)
    }

    /// The names of all of the library, in alphabetical order.
    pub fn library() -> impl Iterator<Item = &'static str> {
        library::FILES.iter().map(|(name, _)| *name)
    }

    /// The same with another number of nodes.
    ///
    /// # Errors
    /// It has steps or a limit that do not go with this number.
    pub fn with_nodes(mut self, nodes: usize) -> Result<Self, ScenarioError> {
        self.nodes = nodes;
        self.check()?;
        Ok(self)
    }

    /// Checks every field against its bounds; what comes out of [`load`](Self::load), [`named`](Self::named) and
    /// [`set`](Self::set) is checked.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn check(&self) -> Result<(), ScenarioError> {
        self.check_as(&self.name)
    }

    /// The limit of all nodes together.
    ///
    /// # Panics
    /// If the scenario was not [checked](Self::check).
    pub fn limit(&self) -> LimitKind {
        self.limit.of(self.nodes).expect("BUG! a scenario that was not checked")
    }

    /// Whether there are requests that depend on the answers to others.
    pub fn is_closed_loop(&self) -> bool {
        self.workload.iter().any(|workload| workload.callers > 0)
    }

    /// When the measured span begins.
    pub fn begin(&self) -> Nanos {
        nanos(self.warmup)
    }

    /// When the run ends.
    pub fn end(&self) -> Nanos {
        nanos(self.warmup + self.seconds)
    }

    /// The fairness weight of a node.
    pub fn weight(&self, node: usize) -> u32 {
        if self.weights.is_empty() { 1 } else { self.weights[node % self.weights.len()] }
    }

    /// What happens when: its steps, and the moments at which demand changes for many at once, in order of time.
    pub fn marks(&self) -> Vec<Mark> {
        let step = |step: &Step| Mark { at: nanos(self.warmup + step.at), say: step.say.clone(), step: true };
        let mut marks: Vec<Mark> = self.step.iter().map(step).chain(workload::marks(self)).collect();
        marks.sort_by_key(|mark| mark.at);
        marks
    }

    /// Units that the limit of all nodes together lets through in a second, in the long run, if calls take `hold` seconds.
    pub(crate) fn capacity(&self, hold: f64) -> f64 {
        match self.limit() {
            LimitKind::Concurrency(limit) => limit.amount() as f64 / hold.max(1e-3),
            kind => kind.per_second(),
        }
    }

    /// The same if calls take as long as those of the first workload.
    pub(crate) fn per_second(&self) -> f64 {
        self.capacity(self.workload.first().map_or(0.0, |workload| workload.hold_ms) / 1e3)
    }

    fn check_as(&self, origin: &str) -> Result<(), ScenarioError> {
        check::check(self).map_err(|invalid| ScenarioError::Invalid { origin: origin.to_owned(), invalid })
    }

    fn parse(
        name: &str,
        origin: &str,
        text: &str,
        trace: impl Fn(&str) -> Result<String, ScenarioError>,
    ) -> Result<Self, ScenarioError> {
        let error = |source| ScenarioError::Parse { origin: origin.to_owned(), source: Box::new(source) };
        let mut scenario: Self = toml::from_str(text).map_err(error)?;
        name.clone_into(&mut scenario.name);
        for workload in &mut scenario.workload {
            if let Kind::Trace(file) = &workload.kind {
                let rows = Row::read_all(&trace(file)?);
                workload.rows = rows.map_err(|source| ScenarioError::Trace { file: file.clone(), source })?;
            }
        }
        scenario.check_as(origin)?;
        Ok(scenario)
    }
}

#[cfg(test)]
mod tests;
