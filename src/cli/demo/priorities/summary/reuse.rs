//! When slots that were lost in a crash were used again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::demo::figures::{json_milliseconds, milliseconds};

use super::super::phases::Loss;
use super::super::provider::Visit;
use super::super::script::{AGENTS, MODELS};

/// How long after they were lost slots were used again.
#[derive(Clone, Copy, Debug)]
pub struct Reuse {
    /// What was lost.
    pub loss: Loss,
    /// When others first ran more calls than the slots that were left: one of the lost is used again.
    pub first: Option<Duration>,
    /// When others ran as many calls as there are slots: all of the lost are used again.
    pub all: Option<Duration>,
}

impl Reuse {
    /// Looks for the slots of `loss` in what arrived at the provider.
    pub fn new(visits: &[Visit], loss: Loss) -> Self {
        let model = AGENTS[loss.agent].model;
        let max = MODELS[model].max_concurrent as usize;
        let others: Vec<_> = visits
            .iter()
            .filter(|visit| visit.model == model && visit.refused_by.is_none())
            // What comes from the same agent later is another one's.
            .filter(|visit| visit.agent != loss.agent || visit.at > loss.at)
            .copied()
            .collect();
        let running = concurrency(&others);
        let reach = |wanted: usize| {
            let first = running.iter().find(|(at, running)| *at > loss.at && *running >= wanted);
            first.map(|(at, _)| at.saturating_sub(loss.at)).filter(|_| loss.held > 0)
        };
        Self { loss, first: reach((max + 1).saturating_sub(loss.held)), all: reach(max) }
    }

    /// What happened to the slots, where `what` was lost.
    pub fn sentence(&self, what: &str) -> String {
        let Loss { at, held, .. } = self.loss;
        let when = match (self.first, self.all) {
            (None, _) => "none was used again".to_owned(),
            (Some(first), None) => format!("the first was used again after {} ms, not all", millis(first)),
            (Some(first), Some(all)) => {
                format!("others used the first after {} ms, all after {} ms", millis(first), millis(all))
            }
        };
        format!("{what} after {:.1} s with {}: {when}", at.as_secs_f64(), slots(held))
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "at_ms": self.loss.at.as_millis() as u64,
            "agent": AGENTS[self.loss.agent].full_name(),
            "slots_held": self.loss.held,
            "first_used_again_after_ms": json_milliseconds(self.first),
            "all_used_again_after_ms": json_milliseconds(self.all),
        })
    }
}

/// How many of the calls run from each moment on at which that changes, in order.
pub fn concurrency(visits: &[Visit]) -> Vec<(Duration, usize)> {
    let begins = visits.iter().map(|visit| (visit.at, true));
    let ends = visits.iter().filter_map(|visit| Some((visit.until?, false)));
    let mut changes: Vec<_> = begins.chain(ends).collect();
    // Of one moment, ends come first: a slot is free before it is taken again.
    changes.sort_unstable();
    let mut running = 0;
    changes
        .into_iter()
        .map(|(at, begins)| {
            running = if begins { running + 1 } else { running - 1 };
            (at, running)
        })
        .collect()
}

/// So many slots, in words.
pub fn slots(count: usize) -> String {
    if count == 1 { "1 slot held".to_owned() } else { format!("{count} slots held") }
}

fn millis(time: Duration) -> String {
    milliseconds(Some(time))
}
