//! `POST /v1/reload`: reads the configuration again.
//!
//! Nothing of it can be changed while the node runs: limits are gossiped by what they are, levels and leases belong to them,
//! and the core takes its pools at its start. So this checks what a restart would bring, and says what needs one.

use super::response::problem;
use crate::api::Problem;
use crate::daemon::config::{Config, ConfigSource};

/// What the node runs with, and where it came from.
pub struct Running {
    config: Config,
    source: ConfigSource,
}

impl Running {
    /// A node runs with this.
    pub fn new(config: Config, source: ConfigSource) -> Self {
        Self { config, source }
    }

    /// Nothing, if the configuration is still what the node runs with.
    ///
    /// # Errors
    /// 409 if it is wrong, and 501 if it is different; the node runs on as it did.
    pub async fn reload(&self) -> Result<(), Problem> {
        let source = self.source.clone();
        // Names of users and groups may come from a slow directory.
        let config = tokio::task::spawn_blocking(move || source.load()).await;
        let config = config.map_err(|error| problem(500, "not reloaded", error.to_string()))?;
        let config = config.map_err(|errors| {
            problem(409, "the configuration is wrong", format!("{errors}; the node runs on as it did"))
        })?;
        let differences = config.differences(&self.config);
        if differences.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "the configuration differs in {}, which cannot be changed while the node runs: restart it",
            differences.join(", ")
        );
        Err(problem(501, "needs a restart", detail))
    }
}
