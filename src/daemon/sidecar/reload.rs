//! `POST /v1/reload` and SIGHUP: reads the configuration again and takes up what can be while the node runs.
//!
//! A file that is wrong changes nothing. Of one that is right everything is taken up that is this node's own, at once; limits
//! and what the swarm is made of (see [`Config::changes_to`]) stay as they were, and are named.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;

use super::Sidecar;
use super::response::problem;
use super::users::Quotas;
use crate::api::{API_VERSION, Problem, ReloadAnswer};
use crate::daemon::access::Access;
use crate::daemon::config::{Changes, Config, ConfigSource};
use crate::daemon::settings;

/// What the node runs with, and where it came from.
pub struct Running {
    config: RwLock<Arc<Config>>,
    source: ConfigSource,
    /// Whoever reads a later configuration takes it up later, too.
    turn: Mutex<()>,
}

impl Running {
    /// A node runs with this.
    pub fn new(config: Config, source: ConfigSource) -> Self {
        Self { config: RwLock::new(Arc::new(config)), source, turn: Mutex::new(()) }
    }

    /// What it runs with now.
    pub fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn load(&self) -> Result<Config, Problem> {
        let source = self.source.clone();
        // Names of users and groups may come from a slow directory.
        let config = tokio::task::spawn_blocking(move || source.load()).await;
        let config = config.map_err(|error| problem(500, "not reloaded", error.to_string()))?;
        config.map_err(|errors| {
            problem(409, "the configuration is wrong", format!("{errors}; the node runs on as it did"))
        })
    }
}

impl Sidecar {
    /// Reads the configuration again and takes up what can be.
    ///
    /// # Errors
    /// 409 if it is wrong; the node runs on as it did.
    pub async fn reload(&self) -> Result<ReloadAnswer, Problem> {
        let running = &self.inner.running;
        let _turn = running.turn.lock().await;
        let wanted = running.load().await?;
        let Changes { config, applied, needs_restart } = running.config().changes_to(&wanted);
        if !applied.is_empty() {
            self.take_up(config);
            tracing::info!("reloaded: {} changed", applied.join(", "));
        }
        if !needs_restart.is_empty() {
            tracing::warn!(
                "not reloaded: {} as before until the node starts again",
                needs_restart.join(", ")
            );
        }
        Ok(ReloadAnswer { version: API_VERSION, applied, needs_restart })
    }

    fn take_up(&self, config: Config) {
        let inner = &*self.inner;
        inner.engine.tune(settings::tuning(&config));
        inner.users.set_terms(Access::of(&config), Quotas::of(&config, inner.users.connections_max()));
        if config.rls != inner.running.config().rls {
            inner.rls.set_rules(config.rls.clone());
        }
        *inner.running.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}
