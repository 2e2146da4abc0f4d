//! Small honest models of what others do.

use crate::record::Record;
use crate::scenario::Scenario;
use crate::scheme::Scheme;

/// Runs a scenario under a scheme that is not ours.
pub fn run(_scheme: Scheme, _scenario: &Scenario, _seed: u64) -> Record {
    todo!()
}
