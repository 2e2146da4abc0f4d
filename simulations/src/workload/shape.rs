//! How demand is spread over nodes and time, as pieces of constant load.

use serde::{Deserialize, Serialize};

use super::chosen;
use crate::fault::Nodes;
use crate::random::Stream;

/// How demand is spread over nodes and time. Times are in seconds; moments count from the end of the warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// All the same, all the time.
    Steady,
    /// The node at position k gets a part in proportion to k^-exponent, all the time.
    Zipf {
        /// 0 is steady; the larger, the more the first nodes have of it.
        exponent: f64,
    },
    /// Some want far more than there is; the others offer the load together.
    Greedy {
        /// Who, among the nodes of the workload.
        nodes: Nodes,
        /// What the greedy ones offer together, as a multiple of the whole limit.
        times: f64,
    },
    /// Every node by itself is on or off for exponentially distributed times. On average, all together offer the load.
    OnOff {
        /// How long it is on, on average.
        on: f64,
        /// How long it is off, on average.
        off: f64,
    },
    /// One node after the other offers the whole load, and the others nothing.
    Rotating {
        /// How long it is each one's turn.
        period: f64,
    },
    /// At first only the first nodes offer their part of the load, then all do.
    Flash {
        /// When the others come.
        at: f64,
        /// Which part of the nodes is there before.
        share: f64,
    },
    /// A sine from nothing to twice the mean, at each node a little later, as where the sun goes round: all together
    /// offer the load at any time.
    Diurnal {
        /// How long a day is.
        period: f64,
    },
    /// The first half of the nodes is busy and the other is not, and then they swap. Together they offer the load at
    /// any time.
    Halves {
        /// How long until they swap.
        period: f64,
        /// The busy half's part of the load.
        #[serde(default = "all_of_it")]
        busy: f64,
    },
    /// What a CSV file says; see [`Row`](super::Row). Its path is relative to the scenario's file. Its times count from
    /// where the workload begins, and its nodes go round if there are more than the workload has.
    Trace(String),
}

fn all_of_it() -> f64 {
    1.0
}

/// Pieces of a day in which the sine is taken as constant.
const PIECES: f64 = 96.0;

impl Kind {
    /// The most that it offers on average, given the workload's load.
    pub(super) fn most(&self, load: f64) -> f64 {
        match self {
            Self::Greedy { times, .. } => load + times,
            _ => load,
        }
    }

    /// When demand changes for many at once, within a span, and how.
    pub(super) fn changes(&self, from: f64, until: f64) -> Vec<(f64, &'static str)> {
        let every = |period: f64, say| {
            let first = (from / period).floor() + 1.0;
            let times = (0_u32..).map(move |turn| (first + f64::from(turn)) * period);
            times.take_while(|at| *at < until).map(|at| (at, say)).collect()
        };
        match self {
            Self::Rotating { period } => every(*period, "The burst moves to the next node."),
            Self::Halves { period, .. } => every(*period, "The two halves swap."),
            Self::Flash { at, .. } if (from..until).contains(at) => vec![(*at, "The crowd comes.")],
            _ => Vec::new(),
        }
    }
}

/// A time of constant load at one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Segment {
    /// In seconds after the warm-up.
    pub from: f64,
    pub until: f64,
    /// As a multiple of the whole limit.
    pub load: f64,
}

/// A kind of load on a number of nodes in a span of time.
pub(super) struct Shape<'a> {
    kind: &'a Kind,
    count: usize,
    from: f64,
    until: f64,
    /// What each node offers, as a multiple of the whole limit, where and whenever it is busy.
    loads: Vec<f64>,
}

impl<'a> Shape<'a> {
    pub fn new(kind: &'a Kind, load: f64, count: usize, span: (f64, f64), stream: &mut Stream) -> Self {
        let equal = load / count as f64;
        let loads = match kind {
            Kind::Zipf { exponent } => {
                let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-exponent)).collect();
                let sum: f64 = weights.iter().sum();
                weights.into_iter().map(|weight| load * weight / sum).collect()
            }
            Kind::Greedy { nodes, times } => {
                let greedy = chosen(nodes, count, stream);
                let others = (count - greedy.len()).max(1);
                let mut loads = vec![load / others as f64; count];
                greedy.iter().for_each(|position| loads[*position] = times / greedy.len() as f64);
                loads
            }
            Kind::OnOff { on, off } => vec![equal * (on + off) / on; count],
            Kind::Rotating { .. } => vec![load; count],
            Kind::Halves { .. } if count > 1 => {
                let half = count / 2;
                (0..count).map(|at| load / if at < half { half } else { count - half } as f64).collect()
            }
            Kind::Steady
            | Kind::Flash { .. }
            | Kind::Diurnal { .. }
            | Kind::Halves { .. }
            | Kind::Trace(_) => {
                vec![equal; count]
            }
        };
        Self { kind, count, from: span.0, until: span.1, loads }
    }

    /// The load of the node at this position among the workload's, in order of time.
    pub fn segments(&self, position: usize, stream: &mut Stream) -> Vec<Segment> {
        let load = self.loads[position];
        match *self.kind {
            Kind::Steady | Kind::Zipf { .. } | Kind::Greedy { .. } => self.pieces([(self.from, load)]),
            Kind::OnOff { on, off } => {
                let mut is_on = stream.chance(on / (on + off));
                let mut at = self.from;
                let mut pieces = Vec::new();
                while at < self.until {
                    pieces.push((at, if is_on { load } else { 0.0 }));
                    at += stream.exponential(if is_on { on } else { off });
                    is_on = !is_on;
                }
                self.pieces(pieces)
            }
            Kind::Rotating { period } => {
                let mine = |turn: i64| turn.rem_euclid(self.count as i64) == position as i64;
                self.turns(period, |turn| if mine(turn) { load } else { 0.0 })
            }
            Kind::Flash { at, share } => {
                let there_before = (position as f64) < (self.count as f64 * share).ceil();
                let before = if there_before { load } else { 0.0 };
                self.pieces([(self.from, before), (at.max(self.from), load)])
            }
            Kind::Diurnal { period } => self.turns(period / PIECES, |piece| {
                let day = (piece as f64 + 0.5) / PIECES - position as f64 / self.count as f64;
                load * (1.0 + (std::f64::consts::TAU * day).sin())
            }),
            Kind::Halves { period, busy } => {
                let first = i64::from(position >= self.count / 2);
                self.turns(period, |turn| load * if (turn + first) % 2 == 0 { busy } else { 1.0 - busy })
            }
            Kind::Trace(_) => Vec::new(),
        }
    }

    /// One piece for each turn of a length, numbered from the end of the warm-up.
    fn turns(&self, period: f64, load: impl Fn(i64) -> f64) -> Vec<Segment> {
        let turns = (self.from / period).floor() as i64..(self.until / period).ceil() as i64;
        self.pieces(turns.map(|turn| ((turn as f64 * period).max(self.from), load(turn))))
    }

    /// Segments from where each begins, up to where the next does.
    fn pieces(&self, starts: impl IntoIterator<Item = (f64, f64)>) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        for (from, load) in starts {
            if let Some(last) = segments.last_mut() {
                last.until = from.min(self.until);
            }
            segments.push(Segment { from, until: self.until, load });
        }
        segments.retain(|segment| segment.load > 0.0 && segment.from < segment.until);
        segments
    }
}
