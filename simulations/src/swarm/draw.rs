//! What a swarm run is like: all of it from [`Purpose::Options`].
//!
//! Act one: anything may go wrong at any time, and whatever is done must be safe. Act two: all cuts heal, links are good,
//! everybody is started, nothing goes wrong any more, and it must get going again.

use crate::clock::{ClockSpec, DRIFT_MAX_PPM};
use crate::fault::{Fault, Nodes};
use crate::network::{LinkSpec, Preset};
use crate::random::{Purpose, Stream};
use crate::scenario::{LimitSpec, PolicySpec, Scenario, StartSpec, Step};
use crate::workload::{Cost, Kind, Sizes, Workload};

/// The longest that act one lasts, in seconds.
const ACT_ONE: f64 = 40.0;
/// How long act two lasts, in seconds: several times what views may take to agree, and time to be served after it.
const ACT_TWO: f64 = 45.0;
/// The most faults of act one.
const FAULTS: u64 = 12;
/// The longest that a message takes on average, in milliseconds.
const HOP_MS: f64 = 2_500.0;
/// The most messages that are lost, doubled or overtaken, in percent.
const PERCENT: f64 = 30.0;

/// The most nodes of a swarm.
pub const NODES_MAX: usize = 32;

/// Draws a scenario of at most so many nodes from a seed. It passes [`Scenario::check`].
///
/// # Panics
/// If `most` is not from 2 to [`NODES_MAX`].
pub fn draw(seed: u64, most: usize) -> Scenario {
    assert!((2..=NODES_MAX).contains(&most), "from 2 to {NODES_MAX} nodes, not {most}");
    let mut scenario = Draw(Stream::new(seed, Purpose::Options, 0)).scenario(seed, most);
    // As it was rounded where act two begins: its first step is the last but two.
    let act_one = scenario.step[scenario.step.len() - 3].at;
    Draw(Stream::new(seed, Purpose::Options, 1)).kind(&mut scenario, act_one);
    scenario
}

pub(super) struct Draw(pub(super) Stream);

impl Draw {
    fn scenario(mut self, seed: u64, most: usize) -> Scenario {
        // Few nodes find most faults (Yuan et al. 2014: three are enough for 98 %).
        let nodes = match self.0.below(20) {
            0 => 13 + self.0.below(20) as usize,
            1..=7 => 2 + self.0.below(2) as usize,
            _ => 2 + self.0.below(11) as usize,
        };
        let nodes = nodes.min(most);
        let act_one = self.between(5.0, ACT_ONE);
        let per_second = self.magnitude(1.0, 300.0) as u64;
        let burst = if self.0.chance(0.4) {
            1 + self.0.below(2 * nodes as u64)
        } else {
            self.magnitude(1.0, 10.0 * per_second as f64).max(1.0) as u64
        };
        let start = match self.0.below(4) {
            0 => StartSpec::Joining,
            1 => StartSpec::Alone,
            _ => StartSpec::Formed,
        };
        let workload = (0..=self.0.below(3)).map(|_| self.workload(nodes, burst, act_one)).collect();
        Scenario {
            name: format!("swarm-{seed}"),
            about: format!("What was drawn from the seed {seed}."),
            nodes,
            seconds: act_one + ACT_TWO,
            warmup: self.between(0.0, 5.0),
            limit: LimitSpec::rate(per_second, burst),
            policy: if self.0.chance(0.9) { PolicySpec::Strict } else { PolicySpec::Available },
            start,
            links: self.links(),
            clocks: ClockSpec {
                drift_ppm: self.0.below(u64::from(DRIFT_MAX_PPM) + 1) as u32,
                timers_late_ms: if self.0.chance(0.5) { 0.0 } else { self.magnitude(0.1, 500.0) },
                wall_offset_ms: 0.0,
            },
            weights: if self.0.chance(0.3) { vec![1, 1 + self.0.below(5) as u32] } else { vec![] },
            workload,
            step: self.steps(nodes, start, act_one),
            ..Scenario::default()
        }
    }

    fn workload(&mut self, nodes: usize, burst: u64, act_one: f64) -> Workload {
        let kind = match self.0.below(8) {
            0 => Kind::Zipf { exponent: self.between(0.5, 2.0) },
            1 => Kind::Greedy { nodes: Nodes::Some(1), times: self.between(1.0, 3.0) },
            2 => Kind::OnOff { on: self.magnitude(0.2, 20.0), off: self.magnitude(0.2, 20.0) },
            3 => Kind::Rotating { period: self.magnitude(0.5, 20.0) },
            4 => Kind::Flash { at: self.between(0.0, act_one), share: self.between(0.1, 0.9) },
            5 => Kind::Diurnal { period: self.between(5.0, 40.0) },
            6 => Kind::Halves { period: self.magnitude(0.5, 20.0), busy: self.between(0.5, 1.0) },
            _ => Kind::Steady,
        };
        let cost = match self.0.below(5) {
            0 => Cost::Units(1 + self.0.below(burst)),
            1 => Cost::Sizes(Sizes {
                median: self.between(1.0, (burst as f64 / 2.0).max(1.0)),
                sigma: self.between(0.2, 1.5),
                max: self.between(0.1, 1.0),
            }),
            _ => Cost::Units(1),
        };
        Workload {
            kind,
            nodes: if self.0.chance(0.6) { Nodes::All } else { self.nodes(nodes) },
            load: self.magnitude(0.1, 3.0),
            cost,
            wait_ms: if self.0.chance(0.2) { 0 } else { self.magnitude(50.0, 60_000.0) as u64 },
            agents: 1 + self.0.below(3) as u32,
            regular: self.0.chance(0.1),
            ..Workload::default()
        }
    }

    fn links(&mut self) -> LinkSpec {
        let presets = [
            Preset::Loopback,
            Preset::Lan,
            Preset::Wan,
            Preset::Intercontinental,
            Preset::Satellite,
            Preset::Lossy,
        ];
        let preset = presets[self.0.below(presets.len() as u64) as usize];
        let hop_ms = self.0.chance(0.4).then(|| self.magnitude(0.05, HOP_MS));
        let mut percent = || self.0.chance(0.5).then(|| tenth(self.0.unit() * PERCENT));
        let [loss, duplicate, reorder] = [percent(), percent(), percent()];
        LinkSpec { hop_ms, loss, duplicate, reorder, ..LinkSpec::preset(preset) }
    }

    fn steps(&mut self, nodes: usize, start: StartSpec, act_one: f64) -> Vec<Step> {
        let mut at: Vec<f64> = (0..self.0.below(FAULTS + 1)).map(|_| self.between(0.0, act_one)).collect();
        at.sort_by(f64::total_cmp);
        let mut faults: Vec<(f64, Fault)> = Vec::new();
        let mut lost = false;
        for at in at {
            let fault = self.fault(nodes, act_one - at);
            // The share of whoever is wiped is reserved for ever. So that enough is left to get going again, only one
            // of many equals is, and nobody who left has given it any more.
            let equals = start == StartSpec::Formed && nodes >= 4;
            let loses = matches!(fault, Fault::Wipe(_) | Fault::Leave(_));
            if matches!(fault, Fault::Wipe(_)) && (lost || !equals) || loses && lost {
                continue;
            }
            lost |= loses;
            faults.push((at, fault));
        }
        let good = LinkSpec::preset(if self.0.chance(0.5) { Preset::Lan } else { Preset::Wan });
        faults.extend(
            [Fault::Heal, Fault::Links(good), Fault::Start(Nodes::All)].map(|fault| (act_one, fault)),
        );
        let say = |fault: &Fault| match fault {
            Fault::Links(_) => "Links change".to_owned(),
            other => format!("{other:?}"),
        };
        faults.into_iter().map(|(at, fault)| Step { at, say: say(&fault), fault }).collect()
    }

    /// Any fault, over before `left` seconds have passed.
    fn fault(&mut self, nodes: usize, left: f64) -> Fault {
        match self.0.below(16) {
            0 | 1 => Fault::Crash(self.nodes(nodes)),
            2 | 3 => Fault::CrashAfter { nodes: self.nodes(nodes), outputs: self.0.below(30) as usize },
            4 => Fault::Wipe(Nodes::One(self.0.below(nodes as u64) as usize)),
            5..=7 => Fault::Start(if self.0.chance(0.5) { Nodes::All } else { self.nodes(nodes) }),
            8 => Fault::Leave(Nodes::One(self.0.below(nodes as u64) as usize)),
            9 => Fault::Pause { nodes: self.nodes(nodes), seconds: self.lasting(left) },
            10 => Fault::Step { nodes: self.nodes(nodes), seconds: self.lasting(left) },
            11 => Fault::CutOneWay { from: self.nodes(nodes), to: self.nodes(nodes) },
            12 => Fault::Partition(self.nodes(nodes)),
            13 => Fault::Flap { nodes: self.nodes(nodes), seconds: self.magnitude(0.2, 10.0) },
            14 => Fault::Heal,
            _ => Fault::Links(self.links()),
        }
    }

    fn nodes(&mut self, nodes: usize) -> Nodes {
        match self.0.below(8) {
            0 => Nodes::All,
            1 | 2 => Nodes::Part(2, self.0.below(2) as usize),
            3 | 4 => Nodes::Some(1 + self.0.below(nodes as u64) as usize),
            _ => Nodes::One(self.0.below(nodes as u64) as usize),
        }
    }

    fn lasting(&mut self, left: f64) -> f64 {
        self.magnitude(0.05, 30.0).min(left.max(0.001))
    }

    /// Evenly distributed, to the thousandth, so that people can read it.
    pub(super) fn between(&mut self, from: f64, to: f64) -> f64 {
        ((from + (to - from) * self.0.unit()) * 1_000.0).round() / 1_000.0
    }

    /// Every order of magnitude is as likely as any other.
    pub(super) fn magnitude(&mut self, from: f64, to: f64) -> f64 {
        let drawn = from * (to / from).powf(self.0.unit());
        ((drawn * 1_000.0).round() / 1_000.0).clamp(from, to)
    }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn whatever_is_drawn_is_a_scenario_and_can_be_written_as_one() {
        for seed in 0..1_000 {
            let scenario = draw(seed, NODES_MAX);
            scenario.check().unwrap_or_else(|error| panic!("{error}"));
            let mut again: Scenario = toml::from_str(&toml::to_string(&scenario).unwrap()).unwrap();
            again.name.clone_from(&scenario.name);
            assert_eq!(again, scenario);
            assert_eq!(draw(seed, NODES_MAX), scenario);
            assert!(draw(seed, 4).nodes <= 4 && draw(seed, 4).check().is_ok());
        }
    }

    #[test]
    fn everything_is_drawn_at_some_time() {
        let all: Vec<Scenario> = (0..1_000).map(|seed| draw(seed, NODES_MAX)).collect();
        let word = |text: String| text.split([' ', '(']).next().unwrap_or_default().to_owned();
        let steps = all.iter().flat_map(|scenario| &scenario.step);
        let faults: BTreeSet<String> = steps.map(|step| word(format!("{:?}", step.fault))).collect();
        assert_eq!(faults.len(), 13, "{faults:?}");
        let kinds: BTreeSet<String> =
            workloads_of(&all).map(|load| word(format!("{:?}", load.kind))).collect();
        assert_eq!(kinds.len(), 8, "all but traces: {kinds:?}");
        assert!((2..=12).all(|nodes| all.iter().any(|scenario| scenario.nodes == nodes)));
        assert!(all.iter().any(|scenario| scenario.nodes > 12));
        let small = |scenario: &&Scenario| scenario.limit().capacity() < scenario.nodes as u64;
        assert!(all.iter().filter(small).count() > 100);
        let limits = all.iter().map(|scenario| word(format!("{:?}", scenario.limit.kind)));
        assert_eq!(limits.collect::<BTreeSet<String>>().len(), 4);
        let calls = |of: fn(&Workload) -> bool| workloads_of(&all).filter(|load| of(load)).count();
        assert!(calls(|load| load.refund > 0.0) > 100 && calls(|load| load.forget > 0.0) > 100);
        let strict = all.iter().filter(|scenario| scenario.policy == PolicySpec::Strict).count();
        assert!((850..950).contains(&strict), "{strict}");
    }

    fn workloads_of(all: &[Scenario]) -> impl Iterator<Item = &Workload> {
        all.iter().flat_map(|scenario| &scenario.workload)
    }

    #[test]
    fn act_two_begins_with_everything_in_order_and_stays_so() {
        for scenario in (0..1_000).map(|seed| draw(seed, NODES_MAX)) {
            let [.., heal, links, start] = scenario.step.as_slice() else { panic!("no act two") };
            assert_eq!((&heal.fault, &start.fault), (&Fault::Heal, &Fault::Start(Nodes::All)));
            assert!(matches!(links.fault, Fault::Links(_)));
            assert!((scenario.seconds - start.at - ACT_TWO).abs() < 1e-6);
            for step in &scenario.step {
                if let Fault::Pause { seconds, .. } | Fault::Step { seconds, .. } = step.fault {
                    assert!(step.at + seconds <= start.at + 0.002);
                }
            }
        }
    }
}
