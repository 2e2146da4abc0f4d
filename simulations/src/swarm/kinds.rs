//! Limits of all kinds for swarm runs, with the calls and wall clocks that go with them.
//!
//! They are drawn after everything else and from a stream of their own: a fifth of all seeds have no more than a rate and
//! are what they are without this.

use aquifer::protocol::calendar::Every;

use super::draw::Draw;
use crate::fault::{Fault, Nodes};
use crate::scenario::{KindSpec, LimitSpec, Scenario, Step};
use crate::workload::Cost;

/// The most requests a second that a limit is to let through.
const PER_SECOND: f64 = 300.0;
/// The most units of a calendar's period.
const PERIOD: f64 = 3_000.0;
/// What wall clocks are wrong by at most, in milliseconds: together less than the least guard.
const WALL_MS: f64 = 40.0;
/// The most by which somebody sets a wall clock, in seconds; and for how long, so that it is not believed.
const WALL_STEP: f64 = 30.0;
const WALL_STEP_LASTS: f64 = 45.0;

const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"];

impl Draw {
    /// Gives a scenario another kind of limit, or calls of another kind.
    pub(super) fn kind(&mut self, scenario: &mut Scenario, act_one: f64) {
        let few = self.0.chance(0.4).then(|| 1 + self.0.below(2 * scenario.nodes as u64));
        match self.0.below(5) {
            0 => return,
            1 => {}
            2 => {
                let per = self.magnitude(0.5, 10.0);
                let amount = few.unwrap_or_else(|| self.magnitude(1.0, PER_SECOND * per) as u64);
                let kind = KindSpec::Window;
                scenario.limit =
                    LimitSpec { kind, amount: Some(amount), per: Some(per), ..LimitSpec::default() };
            }
            3 => {
                let amount = few.unwrap_or_else(|| self.magnitude(1.0, PERIOD) as u64);
                self.calendar(scenario, amount, act_one);
            }
            _ => {
                let ttl = self.magnitude(0.5, 10.0);
                let amount = few.unwrap_or_else(|| self.magnitude(1.0, PER_SECOND) as u64);
                let kind = KindSpec::Concurrency;
                scenario.limit =
                    LimitSpec { kind, amount: Some(amount), ttl: Some(ttl), ..LimitSpec::default() };
            }
        }
        self.calls(scenario);
    }

    fn calendar(&mut self, scenario: &mut Scenario, amount: u64, act_one: f64) {
        let (every, minutes) =
            [(Every::Minute, 1.0), (Every::Minute, 1.0), (Every::Hour, 60.0), (Every::Day, 1_440.0)]
                [self.0.below(4) as usize];
        let zone = ZONES[self.0.below(ZONES.len() as u64) as usize].to_owned();
        scenario.limit = LimitSpec {
            kind: KindSpec::Calendar,
            amount: Some(amount),
            every: Some(every),
            zone: Some(zone),
            ..LimitSpec::default()
        };
        // As much is asked for in a run as if it were of a minute.
        scenario.workload.iter_mut().for_each(|workload| workload.load *= minutes);
        scenario.clocks.wall_offset_ms = if self.0.chance(0.7) { self.magnitude(1.0, WALL_MS) } else { 0.0 };
        // A node that starts believes its clock, whatever that reads.
        let starts = |step: &Step| matches!(step.fault, Fault::Start(_));
        let act_two = scenario.step.len() - 3;
        if self.0.chance(0.5) && !scenario.step[..act_two].iter().any(starts) {
            self.wall_steps(scenario, act_one);
        }
    }

    fn wall_steps(&mut self, scenario: &mut Scenario, act_one: f64) {
        let node = self.0.below(scenario.nodes as u64) as usize;
        let from = self.between(0.0, act_one);
        let until = (from + self.magnitude(0.5, WALL_STEP_LASTS)).min(act_one);
        let by = self.magnitude(0.1, WALL_STEP) * if self.0.chance(0.5) { -1.0 } else { 1.0 };
        for (at, seconds) in [(from, by), (until, -by)] {
            let fault = Fault::WallStep { nodes: Nodes::One(node), seconds };
            let place = scenario.step.partition_point(|step| step.at < at);
            scenario.step.insert(place, Step { at, say: format!("{fault:?}"), fault });
        }
    }

    fn calls(&mut self, scenario: &mut Scenario) {
        let capacity = scenario.limit().capacity();
        let permits = scenario.limit.kind == KindSpec::Concurrency;
        for workload in &mut scenario.workload {
            if let Cost::Units(units) = &mut workload.cost {
                *units = (*units - 1) % capacity + 1;
            }
            if self.0.chance(0.3) {
                workload.classes = [0; 4].map(|_: u32| self.0.below(4) as u32);
            }
            if permits {
                let shortest = (capacity as f64 / PER_SECOND * 1e3).max(10.0);
                workload.hold_ms = self.magnitude(shortest, 5_000.0);
            } else if self.0.chance(0.5) {
                workload.hold_ms = self.magnitude(1.0, 3_000.0);
                workload.refund = self.between(0.0, 1.0);
            }
            workload.forget = if self.0.chance(0.3) { self.between(0.0, 0.1) } else { 0.0 };
        }
    }
}
