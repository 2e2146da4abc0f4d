//! The clocks of nodes.

use serde::{Deserialize, Serialize};

/// How wrong clocks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClockSpec {
    /// Clocks run up to so many parts per million fast or slow.
    pub drift_ppm: u32,
}
