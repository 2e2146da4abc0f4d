//! What is measured: the servers, the loads that are put on them, and what is hoped for; a file in TOML.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::codec::{Call, Command};
use crate::grpc::Service;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What can be asked, by the names that the rest of the plan uses.
    pub targets: BTreeMap<String, Target>,
    /// What goes on meanwhile.
    #[serde(default)]
    pub background: Vec<Background>,
    /// One table each.
    pub measurements: Vec<Measurement>,
}

/// A server, and how it is asked.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What tables call it.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// A file that holds the server's process id: whose processor time is counted, and who is moved to a core.
    pub pid: Option<PathBuf>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// `unix:PATH`, or HOST:PORT of TCP.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(String),
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Tcp(text),
        }
    }
}

/// How one decision is asked for.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// 32 bytes there and back.
    Echo,
    /// A command of the Redis protocol.
    Resp(Command),
    /// A POST of HTTP/1.1.
    Http(Call),
    /// A unary call of gRPC.
    Grpc(Service),
}

/// A load that runs beside the measurements.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Background {
    /// The target's name.
    pub target: String,
    /// Connections, with one request in flight on each: how fast they are, the server must say.
    pub connections: usize,
    /// For how many seconds it runs and rests, in turn.
    pub seconds: f64,
}

/// The same load on several servers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// What the table and the summary call it.
    pub title: String,
    /// Connections, and what goes over them.
    #[serde(flatten)]
    pub load: Load,
    /// The targets' names. Ratios are to the first.
    pub targets: Vec<String>,
    /// What is hoped for.
    #[serde(default)]
    pub goals: Vec<Goal>,
}

/// How requests come.
#[derive(Clone, Deserialize)]
pub struct Load {
    /// Connections that are open.
    pub connections: usize,
    /// Closed loop: requests in flight on each of them; the next ones go out together when all are answered.
    #[serde(default = "one")]
    pub depth: usize,
    /// Open loop: requests a second over all connections, Poisson. Latency counts from the instant at which a request was
    /// due, so that a server is charged for all that it delayed.
    pub rate: Option<f64>,
    /// The core that server and generator share, where they do: no core that sleeps has to be woken then, and what is left
    /// is the software's own cost.
    pub core: Option<usize>,
    /// How long is measured, in seconds.
    #[serde(default = "second")]
    pub seconds: f64,
}

fn one() -> usize {
    1
}

fn second() -> f64 {
    1.0
}

/// One figure of one server, against the same of another one in the same round.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// The target that has the goal.
    pub of: String,
    /// What is compared.
    pub figure: Figure,
    /// The target that it is compared to.
    pub to: String,
    /// At least (`rate`) or at most (all others) so many times the other's.
    pub ratio: f64,
    /// What is to be known of it.
    #[serde(default)]
    pub note: String,
}

/// What is measured of a server in a round.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Figure {
    /// Decisions a second.
    Rate,
    /// Half of the answers came within so many microseconds.
    P50,
    /// 99 % of the answers came within so many microseconds.
    P99,
    /// Processor time of the server for a decision, in microseconds.
    Cpu,
}

impl Plan {
    /// Reads and checks the file.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let plan: Self = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let known = |name: &String| {
            ensure!(plan.targets.contains_key(name), "in {}: there is no target {name:?}", path.display());
            Ok(())
        };
        plan.background.iter().try_for_each(|background| known(&background.target))?;
        for measurement in &plan.measurements {
            measurement.targets.iter().try_for_each(known)?;
            for goal in &measurement.goals {
                for name in [&goal.of, &goal.to] {
                    ensure!(
                        measurement.targets.contains(name),
                        "in {}: a goal of {:?} names {name:?}, which is not measured there",
                        path.display(),
                        measurement.title
                    );
                }
            }
        }
        Ok(plan)
    }
}
