//! The figures at the end: waits by class, and what the provider counted and what the swarm did.

mod reuse;

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Priority;
use crate::cli::demo::figures::{json_milliseconds, milliseconds, percentile, round};
use crate::cli::demo::nodes::node_name;

use super::agents::{Call, End};
use super::phases::Seen;
use super::script::{AGENTS, CLASSES, MODELS, SLOT_TTL};
use super::{PER, limits};

use self::reuse::concurrency;
pub use self::reuse::{Reuse, slots};

/// What became of the calls of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassFigures {
    /// Calls that agents wanted to make.
    pub asked: usize,
    /// Those that the nodes admitted.
    pub admitted: usize,
    /// Those that had no permit by the end.
    pub unserved: usize,
    /// How long half of the admitted waited for the permit, at most.
    pub wait_p50: Option<Duration>,
    /// How long 95 of 100 admitted waited for the permit, at most.
    pub wait_p95: Option<Duration>,
}

/// One limit, counted twice.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitFigures {
    model: usize,
    name: &'static str,
    /// Units that the provider counts at the end.
    provider: u64,
    /// Units that the nodes counted; of slots, which come back, they keep no count.
    swarm: Option<u64>,
    /// What the provider counted of what it would have allowed, from 0 to 1.
    used: f64,
    /// Of calls at the same time: the most there were.
    most: Option<u64>,
    /// Calls that the provider refused for it.
    refused: usize,
}

/// All figures of the act.
#[derive(Clone, Debug)]
pub struct Summary {
    /// By class, in the order of [`CLASSES`].
    pub classes: [ClassFigures; CLASSES.len()],
    /// Of every model.
    pub limits: Vec<LimitFigures>,
    /// Of the agent that crashed.
    pub crash: Reuse,
    /// Of the node that was killed.
    pub kill: Reuse,
    length: Duration,
    complaint: Option<String>,
}

impl Summary {
    /// The figures of what was seen.
    pub fn new(seen: &Seen) -> Self {
        let models = 0..MODELS.len();
        Self {
            classes: CLASSES.map(|class| class_figures(&seen.calls, class)),
            limits: models.flat_map(|model| limit_figures(seen, model)).collect(),
            crash: Reuse::new(&seen.visits, seen.crash),
            kill: Reuse::new(&seen.visits, seen.kill),
            length: seen.length,
            complaint: seen.complaint.clone(),
        }
    }

    /// Calls that the provider refused.
    pub fn refused(&self) -> usize {
        self.limits.iter().map(|limit| limit.refused).sum()
    }

    /// What is wrong with the result, in words; empty if nothing is.
    pub fn verdict(&self) -> String {
        let refused: Vec<_> = self.limits.iter().filter(|limit| limit.refused > 0).collect();
        if !refused.is_empty() {
            let by = |limit: &&LimitFigures| {
                format!("{} by {} of {}", limit.refused, limit.name, MODELS[limit.model].name)
            };
            let by: Vec<_> = refused.iter().map(by).collect();
            return format!("the provider refused calls of the second act: {}", by.join(", "));
        }
        if let Some(complaint) = &self.complaint {
            return format!("a call of the second act broke off: {complaint}");
        }
        let [critical, .., low] = &self.classes;
        match (critical.wait_p95, low.wait_p95) {
            (Some(critical), Some(low)) if critical <= low => String::new(),
            (Some(critical), Some(low)) => format!(
                "critical calls waited longer than low ones: {} ms against {} ms (p95)",
                milliseconds(Some(critical)),
                milliseconds(Some(low))
            ),
            (None, _) => "no critical call was admitted".to_owned(),
            (_, None) => "no low call was admitted".to_owned(),
        }
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<10}{:>7}{:>10}{:>10}{:>13}{:>11}",
            "", "asked", "admitted", "unserved", "wait p50", "p95"
        )];
        for (class, figures) in CLASSES.iter().zip(&self.classes) {
            lines.push(format!(
                "{:<10}{:>7}{:>10}{:>10}{:>10} ms{:>8} ms",
                class,
                figures.asked,
                figures.admitted,
                figures.unserved,
                milliseconds(figures.wait_p50),
                milliseconds(figures.wait_p95)
            ));
        }
        lines.push(String::new());
        lines.push(format!(
            "{:<13}{:<16}{:>18}{:>16}{:>11}{:>9}",
            "", "limit", "provider counts", "swarm counts", "used", "refused"
        ));
        for limit in &self.limits {
            lines.push(format!(
                "{:<13}{:<16}{:>18}{:>16}{:>9.1} %{:>9}",
                MODELS[limit.model].name,
                limit.name,
                limit.most.map_or_else(|| limit.provider.to_string(), |most| format!("{most} at most")),
                limit.swarm.map_or_else(|| "-".to_owned(), |units| units.to_string()),
                limit.used * 100.0,
                limit.refused
            ));
        }
        lines.push("used: in parts of what the provider would have allowed in this time".to_owned());
        lines.push(
            "The swarm's counters never go back: they hold what was reserved, until that is used again.\n"
                .to_owned(),
        );
        lines.push(self.crash.sentence(&format!("{} crashed", AGENTS[self.crash.loss.agent].full_name())));
        let killed = format!("{} was killed", node_name(AGENTS[self.kill.loss.agent].node));
        lines.push(self.kill.sentence(&killed));
        lines.push(format!(
            "  (nobody knows what became of its permits: their slots count as used for {} s, their time to live,\n  \
             from when its share is taken over)",
            SLOT_TTL.as_secs()
        ));
        lines
    }

    /// What the provider counted, limit by limit, in short.
    pub fn counts(&self) -> Vec<String> {
        let line = |limit: &LimitFigures| {
            let amount = match (limit.most, limit.name) {
                (Some(most), _) => format!("{most} at the same time at most"),
                (None, "tpm") => format!("{} tokens", limit.provider),
                (None, _) => format!("{} requests", limit.provider),
            };
            let refused = match limit.refused {
                0 => "none refused".to_owned(),
                refused => format!("{refused} refused"),
            };
            format!("{}: {amount}, {:.0} % used, {refused}", MODELS[limit.model].name, limit.used * 100.0)
        };
        self.limits.iter().map(line).collect()
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let class = |(class, figures): (&Priority, &ClassFigures)| {
            json!({
                "class": class,
                "asked": figures.asked,
                "admitted": figures.admitted,
                "unserved": figures.unserved,
                "wait_ms": {
                    "p50": json_milliseconds(figures.wait_p50),
                    "p95": json_milliseconds(figures.wait_p95),
                },
            })
        };
        let limit = |limit: &LimitFigures| {
            json!({
                "pool": MODELS[limit.model].name,
                "limit": limit.name,
                "counted_by_provider": limit.provider,
                "counted_by_swarm": limit.swarm,
                "most_at_once": limit.most,
                "utilisation": round(limit.used, 4),
                "refused_by_provider": limit.refused,
            })
        };
        let model = |model: &super::Model| {
            json!({
                "pool": model.name,
                "limits": limits(model),
                "rpm": model.rpm,
                "tpm": model.tpm,
                "max_concurrent": model.max_concurrent,
            })
        };
        json!({
            "minute_ms": PER.as_millis() as u64,
            "length_ms": self.length.as_millis() as u64,
            "models": MODELS.iter().map(model).collect::<Vec<_>>(),
            "classes": CLASSES.iter().zip(&self.classes).map(class).collect::<Vec<_>>(),
            "limits": self.limits.iter().map(limit).collect::<Vec<_>>(),
            "refused_by_provider": self.refused(),
            "crash": self.crash.json(),
            "kill": self.kill.json(),
        })
    }
}

fn class_figures(calls: &[Call], class: Priority) -> ClassFigures {
    let calls: Vec<_> = calls.iter().filter(|call| AGENTS[call.agent].class == class).collect();
    let mut waits: Vec<_> = calls.iter().filter_map(|call| call.waited()).collect();
    waits.sort_unstable();
    ClassFigures {
        asked: calls.len(),
        admitted: waits.len(),
        unserved: calls.iter().filter(|call| matches!(call.end, End::Unserved | End::Waits)).count(),
        wait_p50: percentile(&waits, 50),
        wait_p95: percentile(&waits, 95),
    }
}

fn limit_figures(seen: &Seen, place: usize) -> [LimitFigures; 3] {
    let model = &MODELS[place];
    let visits: Vec<_> = seen.visits.iter().filter(|visit| visit.model == place).copied().collect();
    let admitted: Vec<_> = visits.iter().filter(|visit| visit.refused_by.is_none()).copied().collect();
    let calls = admitted.len() as u64;
    let tokens: u64 = admitted.iter().map(|visit| visit.tokens).sum();
    let minutes = seen.length.as_secs_f64() / PER.as_secs_f64();
    let whole = |burst: u64, amount: u64| burst as f64 + amount as f64 * minutes;
    let running: f64 = admitted
        .iter()
        .map(|visit| {
            visit.until.unwrap_or(seen.length).min(seen.length).saturating_sub(visit.at).as_secs_f64()
        })
        .sum();
    let slot_time = model.max_concurrent as f64 * seen.length.as_secs_f64();
    let most = concurrency(&admitted).into_iter().map(|(_, running)| running).max().unwrap_or(0);
    let figures = |name: &'static str, provider: u64, used: f64, most: Option<u64>| LimitFigures {
        model: place,
        name,
        provider,
        swarm: seen
            .counted
            .iter()
            .find(|counted| counted.model == place && counted.limit == name)
            .map(|counted| counted.units)
            .filter(|_| most.is_none()),
        used,
        most,
        refused: visits.iter().filter(|visit| visit.refused_by == Some(name)).count(),
    };
    [
        figures("rpm", calls, calls as f64 / whole(model.requests_burst, model.rpm), None),
        figures("tpm", tokens, tokens as f64 / whole(model.tokens_burst, model.tpm), None),
        figures("max_concurrent", calls, running / slot_time, Some(most as u64)),
    ]
}

#[cfg(test)]
pub mod tests {
    use super::super::phases::{Counted, Loss};
    use super::super::provider::Visit;
    use super::super::script::{CRASHES, LOSES_NODE};
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn call(agent: usize, asked: u32, admitted: Option<u32>) -> Call {
        let end = if admitted.is_some() { End::Done } else { End::Unserved };
        let (admitted, ended) = (admitted.map(|at| at * MS), Some((asked + 500) * MS));
        Call { agent, seat: 0, asked: asked * MS, admitted, ended, end }
    }

    fn visit(agent: usize, at: u32, until: u32) -> Visit {
        let model = AGENTS[agent].model;
        Visit { model, agent, at: at * MS, until: Some(until * MS), refused_by: None, tokens: 10 }
    }

    /// Critical calls wait 10 ms and low ones 100 ms; the crash is at 200 ms with two slots held.
    pub fn seen() -> Seen {
        let loss = |agent, at| Loss { agent, at: at * MS, held: 2 };
        let mut visits = vec![visit(CRASHES, 50, 200), visit(CRASHES, 60, 200)];
        visits.extend((0..8).map(|_| visit(4, 100, 900)));
        visits.extend([visit(0, 250, 900), visit(0, 300, 900)]);
        Seen {
            length: 1_000 * MS,
            calls: vec![
                call(0, 0, Some(10)),
                call(2, 0, Some(50)),
                call(4, 0, Some(100)),
                call(4, 300, None),
            ],
            visits,
            crash: loss(CRASHES, 200),
            kill: loss(LOSES_NODE, 950),
            counted: vec![Counted { model: 0, limit: "rpm".to_owned(), units: 12 }],
            complaint: None,
        }
    }

    #[test]
    fn lost_slots_are_used_again_when_others_run_more_than_was_left() {
        let summary = Summary::new(&seen());
        assert_eq!((summary.crash.first, summary.crash.all), (Some(50 * MS), Some(100 * MS)));
        assert_eq!((summary.kill.first, summary.kill.all), (None, None));
        assert_eq!(summary.json()["crash"]["all_used_again_after_ms"], 100.0);
    }

    #[test]
    fn limits_are_counted_as_the_provider_does() {
        let summary = Summary::new(&seen());
        let [requests, tokens, slots] = &summary.limits[..3] else { panic!("three limits") };
        assert_eq!((requests.provider, requests.swarm, tokens.provider), (12, Some(12), 120));
        assert_eq!((slots.most, slots.swarm), (Some(10), None));
        // 150 + 140 + 8 × 800 + 650 + 600 ms of 10 × 1 s.
        assert!((slots.used - 7.94 / 10.0).abs() < 1e-9, "{}", slots.used);
    }

    #[test]
    fn the_verdict_is_bad_for_a_refusal_and_for_critical_calls_that_waited_longer_than_low_ones() {
        let mut seen = seen();
        assert_eq!(Summary::new(&seen).verdict(), "");
        seen.calls.push(call(0, 300, Some(500)));
        assert!(Summary::new(&seen).verdict().contains("waited longer than low ones: 200 ms against 100 ms"));
        seen.visits[3].refused_by = Some("tpm");
        assert!(Summary::new(&seen).verdict().contains("1 by tpm of model/large"));
        seen.visits[3].refused_by = None;
        seen.calls.retain(|call| AGENTS[call.agent].class != Priority::Critical);
        assert_eq!(Summary::new(&seen).verdict(), "no critical call was admitted");
    }
}
