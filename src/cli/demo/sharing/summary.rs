//! The figures at the end: each system beside the others, in a table, in JSON and in a sentence.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::demo::figures::{json_milliseconds, milliseconds, percentile, round};
use crate::cli::demo::nodes::node_name;
use crate::protocol::limit::Rate;

use super::PATIENCE;
use super::agents::{Call, End};
use super::central::{self, Offer};
use super::provider::Hit;

/// What became of the requests of one window of time, of one node or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that agents wanted to make.
    pub asked: usize,
    /// Calls that the provider admitted.
    pub admitted: usize,
    /// Calls that the provider refused.
    pub refused: usize,
    /// Requests whose agent waited for nothing.
    pub gave_up: usize,
    /// Requests that broke off.
    pub failed: usize,
    /// How long half of the admitted waited for the permit, at most.
    pub wait_p50: Option<Duration>,
    /// How long 99 of 100 admitted waited for the permit, at most.
    pub wait_p99: Option<Duration>,
}

impl Counts {
    fn of(calls: &[&Call], hits: &[&Hit], window: Duration) -> Self {
        let calls: Vec<_> = calls.iter().filter(|call| call.asked < window).collect();
        let ended = |end| calls.iter().filter(|call| call.end == end).count();
        let arrived =
            |admitted| hits.iter().filter(|hit| hit.at < window && hit.admitted == admitted).count();
        let admitted_calls = calls.iter().filter(|call| call.end == End::Admitted);
        let mut waits: Vec<_> = admitted_calls
            .filter_map(|call| call.waited.filter(|waited| call.asked + *waited < window))
            .collect();
        waits.sort_unstable();
        Self {
            asked: calls.len(),
            admitted: arrived(true),
            refused: arrived(false),
            gave_up: ended(End::GaveUp),
            failed: ended(End::Failed),
            wait_p50: percentile(&waits, 50),
            wait_p99: percentile(&waits, 99),
        }
    }

    fn json(&self) -> Value {
        json!({
            "asked": self.asked,
            "admitted": self.admitted,
            "refused_by_provider": self.refused,
            "gave_up": self.gave_up,
            "failed": self.failed,
            "wait_ms": { "p50": json_milliseconds(self.wait_p50), "p99": json_milliseconds(self.wait_p99) },
        })
    }
}

/// One system under the load.
#[derive(Clone, Debug)]
pub struct System {
    /// What it is, for people.
    pub name: &'static str,
    /// All nodes together.
    pub all: Counts,
    /// Each node.
    pub nodes: Vec<Counts>,
    /// What one central limiter would have admitted of the same requests.
    pub central: usize,
}

impl System {
    /// The figures of the first `window` of a load on `nodes` nodes, whose provider allows `limit`.
    pub fn new(
        name: &'static str,
        limit: &Rate,
        nodes: usize,
        calls: &[Call],
        hits: &[Hit],
        window: Duration,
    ) -> Self {
        let counts = |node: Option<usize>| {
            let wanted = |of: usize| node.is_none_or(|node| node == of);
            let calls: Vec<_> = calls.iter().filter(|call| wanted(call.node)).collect();
            let hits: Vec<_> = hits.iter().filter(|hit| wanted(hit.node)).collect();
            Counts::of(&calls, &hits, window)
        };
        let offers: Vec<_> = calls
            .iter()
            .map(|call| Offer { asked: call.asked, deadline: call.asked + PATIENCE })
            .filter(|offer| offer.asked < window)
            .collect();
        Self {
            name,
            all: counts(None),
            nodes: (0..nodes).map(|node| counts(Some(node))).collect(),
            central: central::admitted(limit, &offers, window),
        }
    }

    /// What was admitted, in parts of what one central limiter would have admitted.
    pub fn utilisation(&self) -> f64 {
        self.all.admitted as f64 / self.central.max(1) as f64
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let mut json = self.all.json();
        let node = |(node, counts): (usize, &Counts)| {
            let mut json = counts.json();
            json["name"] = node_name(node).into();
            json
        };
        json["central_would_admit"] = self.central.into();
        json["utilisation"] = round(self.utilisation(), 4).into();
        json["nodes"] = self.nodes.iter().enumerate().map(node).collect();
        json
    }
}

/// The systems beside each other, one per line, under a heading.
pub fn table(systems: &[System]) -> Vec<String> {
    let heading = format!(
        "{:<17}{:>7}{:>10}{:>9}{:>9}{:>11}{:>8}{:>9}",
        "", "asked", "admitted", "refused", "used", "wait p50", "p99", "gave up"
    );
    let row = |system: &System| {
        let all = &system.all;
        format!(
            "{:<17}{:>7}{:>10}{:>9}{:>7.1} %{:>8} ms{:>5} ms{:>9}",
            system.name,
            all.asked,
            all.admitted,
            all.refused,
            system.utilisation() * 100.0,
            milliseconds(all.wait_p50),
            milliseconds(all.wait_p99),
            all.gave_up
        )
    };
    std::iter::once(heading).chain(systems.iter().map(row)).collect()
}

/// What the table says, in words.
pub fn sentence([shared, alone, divided]: &[System; 3]) -> String {
    let refused = match shared.all.refused {
        0 => "were refused nothing".to_owned(),
        refused => format!("were refused {refused} calls"),
    };
    let calls = alone.all.admitted + alone.all.refused;
    format!(
        "Sharing, the five used {:.0} % of what one central limiter would have given them,\n\
         and {refused}. Each alone, the provider refused {:.0} % of their calls.\n\
         With a fifth each, {:.0} % of the limit lay unused.",
        shared.utilisation() * 100.0,
        100.0 * alone.all.refused as f64 / calls.max(1) as f64,
        (1.0 - divided.utilisation()).max(0.0) * 100.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn call(node: usize, asked: u32, waited: Option<u32>, end: End) -> Call {
        Call { node, asked: asked * MS, waited: waited.map(|waited| waited * MS), way: None, end }
    }

    fn hit(node: usize, at: u32, admitted: bool) -> Hit {
        Hit { at: at * MS, node, admitted }
    }

    #[test]
    fn only_what_falls_into_the_window_counts() {
        let limit = Rate::new(10, 1_000 * MS, 2).unwrap();
        let calls = [
            call(0, 0, Some(5), End::Admitted),
            call(1, 10, Some(7), End::Refused),
            call(1, 20, None, End::GaveUp),
            call(0, 90, Some(20), End::Admitted),
            call(0, 100, Some(0), End::Admitted),
        ];
        let hits = [hit(0, 6, true), hit(1, 20, false), hit(0, 115, true), hit(0, 101, true)];
        let system = System::new("x", &limit, 2, &calls, &hits, 100 * MS);
        let Counts { asked, admitted, refused, gave_up, wait_p50, .. } = system.all;
        assert_eq!((asked, admitted, refused, gave_up, wait_p50), (4, 1, 1, 1, Some(5 * MS)));
        assert_eq!((system.nodes[1].asked, system.nodes[1].admitted, system.nodes[1].refused), (2, 0, 1));
        assert_eq!(system.central, 2);
        assert!((system.utilisation() - 0.5).abs() < 1e-9);
        assert_eq!(system.json()["nodes"][1]["name"], "node-2");
        assert_eq!(system.json()["wait_ms"]["p50"], 5.0);
    }

    #[test]
    fn every_line_of_the_table_is_as_wide_as_its_heading() {
        let limit = Rate::new(10, 1_000 * MS, 2).unwrap();
        let system =
            System::new("aquifer, shared", &limit, 1, &[call(0, 0, Some(5), End::Admitted)], &[], MS);
        let lines = table(&[system.clone(), system]);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{lines:#?}");
    }
}
