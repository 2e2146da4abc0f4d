//! Links, and what they do to messages.

use serde::{Deserialize, Serialize};

/// What a link does to messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSpec {
    /// The mean time that a message takes one way, in milliseconds.
    pub hop_ms: f64,
}
