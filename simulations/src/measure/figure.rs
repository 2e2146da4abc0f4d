//! The figures by name, for whatever shows all of them.

use std::collections::BTreeMap;

use super::Measures;
use super::statistics::Summary;

/// What a figure counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Units of the limit.
    Units,
    /// A part of a whole.
    Part,
    /// An index from 0 to 1.
    Index,
    /// Seconds.
    Seconds,
    /// Gossip rounds.
    Rounds,
    /// How many.
    Count,
    /// Messages per node and second.
    Messages,
    /// Bytes per node and second.
    Bytes,
}

/// One of the figures: how tables, files and pictures call it.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The name of its field in [`Measures`].
    pub key: &'static str,
    /// A heading.
    pub title: &'static str,
    /// What it counts in.
    pub unit: Unit,
    /// Its value in a run.
    pub get: fn(&Measures) -> Option<f64>,
}

/// All figures, in the order of tables.
pub const FIGURES: [Figure; 21] = {
    const fn figure(
        key: &'static str,
        title: &'static str,
        unit: Unit,
        get: fn(&Measures) -> Option<f64>,
    ) -> Figure {
        Figure { key, title, unit, get }
    }
    [
        figure("overshoot", "overshoot", Unit::Units, |m| Some(m.overshoot)),
        figure("utilisation", "used of ideal", Unit::Part, |m| m.utilisation),
        figure("distance", "from max-min", Unit::Part, |m| m.distance),
        figure("jain", "Jain's index", Unit::Index, |m| m.jain),
        figure("reaction", "reaction", Unit::Seconds, |m| m.reaction),
        figure("reaction_max", "reaction max", Unit::Seconds, |m| m.reaction_max),
        figure("unreached", "steps unreached", Unit::Count, |m| Some(m.unreached as f64)),
        figure("lost", "lost to steps", Unit::Units, |m| m.lost),
        figure("spread", "spread p50", Unit::Rounds, |m| m.spread),
        figure("spread_p99", "spread p99", Unit::Rounds, |m| m.spread_p99),
        figure("missed", "news missed", Unit::Count, |m| Some(m.missed as f64)),
        figure("messages", "messages", Unit::Messages, |m| Some(m.messages)),
        figure("bytes", "traffic", Unit::Bytes, |m| Some(m.bytes)),
        figure("in_flight", "in flight", Unit::Part, |m| m.in_flight),
        figure("in_flight_p99", "in flight p99", Unit::Part, |m| m.in_flight_p99),
        figure("wait", "wait p50", Unit::Seconds, |m| m.wait),
        figure("wait_p99", "wait p99", Unit::Seconds, |m| m.wait_p99),
        figure("refused", "refused", Unit::Part, |m| m.refused),
        figure("starved", "starved", Unit::Seconds, |m| m.starved),
        figure("floor", "floor kept", Unit::Part, |m| m.floor),
        figure("admitted", "admitted", Unit::Units, |m| Some(m.admitted)),
    ]
};

/// Every figure over several runs, by its key; those that no run has are left out.
pub fn summarise<'a>(runs: impl IntoIterator<Item = &'a Measures>) -> BTreeMap<&'static str, Summary> {
    let runs: Vec<&Measures> = runs.into_iter().collect();
    let of = |figure: &Figure| Summary::of(runs.iter().filter_map(|run| (figure.get)(run)));
    FIGURES.iter().filter_map(|figure| Some((figure.key, of(figure)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_leave_out_what_no_run_has() {
        let run = |utilisation| Measures { utilisation, ..Measures::default() };
        let summary = summarise(&[run(Some(0.5)), run(None), run(Some(1.0))]);
        let expected = Summary { runs: 2, min: 0.5, lower: 0.625, median: 0.75, upper: 0.875, max: 1.0 };
        assert_eq!(summary["utilisation"], expected);
        assert_eq!(summary["overshoot"].runs, 3);
        assert!(!summary.contains_key("jain"));
    }

    #[test]
    fn every_figure_is_called_by_its_field() {
        let fields = serde_json::to_value(Measures::default()).unwrap();
        assert!(FIGURES.iter().all(|figure| fields.get(figure.key).is_some()));
        assert_eq!(FIGURES.len() + 1, fields.as_object().unwrap().len(), "all but the phases");
    }
}
