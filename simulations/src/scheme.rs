//! What answers the requests of a run.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::checker::Violation;
use crate::record::Record;
use crate::scenario::{KindSpec, Scenario};
use crate::{rival, world};

/// A way to share one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// This project: conserved shares, lent.
    Aquifer,
    /// One central limiter that answers at once: what cannot be had, and what the others are measured by.
    Ideal,
    /// Every node has the whole limit to itself.
    Alone,
    /// Every node has an equal part of it, always.
    Division,
    /// Every node admits against the sum that gossip tells it.
    Estimate,
    /// Shares in proportion to demand, estimated by gossip (flow proportional share, Raghavan et al. 2007).
    Proportional,
    /// Fixed batches of tokens from one central store.
    Batches,
}

impl Scheme {
    /// All of them, this project first.
    pub const ALL: [Self; 7] = [
        Self::Aquifer,
        Self::Ideal,
        Self::Alone,
        Self::Division,
        Self::Estimate,
        Self::Proportional,
        Self::Batches,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aquifer => "aquifer",
            Self::Ideal => "ideal",
            Self::Alone => "alone",
            Self::Division => "division",
            Self::Estimate => "estimate",
            Self::Proportional => "proportional",
            Self::Batches => "batches",
        }
    }

    /// Whether it can run a scenario: the others divide rates only.
    pub fn suits(self, scenario: &Scenario) -> bool {
        matches!(self, Self::Aquifer | Self::Ideal) || scenario.limit.kind == KindSpec::Rate
    }

    /// Runs a scenario.
    ///
    /// # Errors
    /// What a checker found, with the moment; only [`Scheme::Aquifer`] promises anything that could be violated.
    pub fn run(self, scenario: &Scenario, seed: u64) -> Result<Record, Violation> {
        match self {
            Self::Aquifer => world::run(scenario, seed),
            rival => Ok(rival::run(rival, scenario, seed)),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
