//! The core in a world of clocks, links and faults.

use crate::checker::Violation;
use crate::record::Record;
use crate::scenario::Scenario;

/// Runs a scenario with real cores.
///
/// # Errors
/// The first violation that a checker finds.
pub fn run(_scenario: &Scenario, _seed: u64) -> Result<Record, Violation> {
    todo!()
}
