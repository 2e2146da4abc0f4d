//! Workloads: who asks for how much, and when.

use serde::{Deserialize, Serialize};

use crate::record::Arrival;
use crate::scenario::Scenario;

/// One kind of load on some of the nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {}

/// All requests of a run, in order of time.
pub fn arrivals(_scenario: &Scenario, _seed: u64) -> Vec<Arrival> {
    todo!()
}
