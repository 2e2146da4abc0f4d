//! Parity: real daemons and the simulator, given the same requests, do about the same.
//!
//! A swarm of real processes on loopback answers the requests of a small scenario in real time. The simulator then gets
//! these requests at the moments at which they were really sent, so that a busy machine, which sends late, is late in
//! both worlds. Both are measured from their answers alone, by the same code. Theorem T1 is checked over the daemons'
//! own admission logs.

#[path = "support/daemons.rs"]
mod daemons;

use aquifer_simulations::checker::NeverOver;
use aquifer_simulations::measure::load::Load;
use aquifer_simulations::measure::measure;
use aquifer_simulations::measure::statistics::median;
use aquifer_simulations::network::{LinkSpec, Preset};
use aquifer_simulations::record::{Answer, Record};
use aquifer_simulations::scenario::{LimitSpec, Scenario};
use aquifer_simulations::scheme::Scheme;
use aquifer_simulations::time::SEC;
use aquifer_simulations::workload::{self, Kind, Row, Workload};
use daemons::{Daemons, Replayed};

/// The most by which utilisation differs, of 1.
const UTILISATION: f64 = 0.02;
/// The most by which reaction differs, of 1: see [`Figures::reactions`]. A twentieth is 50 ms of the limit.
const REACTION: f64 = 0.05;

/// All demand is at one node, half more than there is, and moves on to the next every two seconds. Who waits half a
/// second gives up, so that what is not lent in time is lost, and not hidden by a backlog.
fn scenario() -> Scenario {
    let load =
        Workload { kind: Kind::Rotating { period: 2.0 }, load: 1.5, wait_ms: 500, ..Workload::default() };
    let scenario = Scenario {
        about: "All demand is at one of three nodes, and moves on to the next every two seconds.".to_owned(),
        nodes: 3,
        seconds: 12.0,
        warmup: 2.0,
        limit: LimitSpec::rate(200, 40),
        links: LinkSpec::preset(Preset::Loopback),
        workload: vec![load],
        ..Scenario::default()
    };
    scenario.check().expect("a scenario");
    scenario
}

/// The scenario with the requests as they were sent.
fn as_sent(scenario: &Scenario, replayed: &[Replayed]) -> Scenario {
    let row = |one: &Replayed| Row {
        at: one.arrival.at as f64 / SEC as f64,
        node: one.arrival.node,
        agent: one.arrival.agent,
        units: one.arrival.units,
    };
    let rows = replayed.iter().map(row).collect();
    let load = Workload { kind: Kind::Trace("replayed".to_owned()), rows, ..scenario.workload[0].clone() };
    Scenario { workload: vec![load], ..scenario.clone() }
}

/// The simulator's run, and nothing in it that daemons do not tell.
fn simulate(scheme: Scheme, scenario: &Scenario) -> Record {
    let record = scheme.run(scenario, 1).unwrap_or_else(|violation| panic!("{violation}"));
    Record { samples: vec![], ..record }
}

/// What is compared.
#[derive(Debug)]
struct Figures {
    /// Units admitted of those that the ideal admits of the same requests.
    utilisation: f64,
    /// For each step, units that the node to which all demand moves gets in the second after it, of those that the limit
    /// gives in a second. That is the reaction to the step, told without a clock: a node that gets its share a tenth of a
    /// second later has a tenth less.
    reactions: Vec<f64>,
}

impl Figures {
    fn of(record: &Record, ideal: &Record, scenario: &Scenario) -> Self {
        let load = Load::of(record);
        let reaction = |at| {
            let offered = load.offered(at, at + SEC);
            let asks = (0..record.nodes).max_by(|a, b| offered[*a].total_cmp(&offered[*b]));
            load.admitted(at, at + SEC)[asks.expect("a node")] / record.rate
        };
        Self {
            utilisation: measure(record, ideal).utilisation.expect("something was admitted"),
            reactions: scenario.marks().iter().map(|mark| reaction(mark.at)).collect(),
        }
    }

    /// By how much the other's utilisation and reaction are greater. Of the reactions the median over steps, since a busy
    /// machine may stall a daemon at one of them.
    fn difference(&self, other: &Self) -> (f64, f64) {
        let reactions = self.reactions.iter().zip(&other.reactions).map(|(one, other)| other - one);
        (other.utilisation - self.utilisation, median(reactions).expect("steps"))
    }

    fn is_like(&self, other: &Self) -> bool {
        let (utilisation, reaction) = self.difference(other);
        utilisation.abs() <= UTILISATION && reaction.abs() <= REACTION
    }
}

#[test]
fn real_daemons_do_what_the_simulator_says() {
    let scenario = scenario();
    let swarm = Daemons::start(&scenario);
    let replayed = swarm.replay(&workload::arrivals(&scenario, 1));

    let mut never_over = NeverOver::new(&scenario.limit(), 0);
    let logged = swarm.admissions();
    for (at, units) in &logged {
        never_over.admit(*units, *at, *at).unwrap_or_else(|violation| panic!("{violation}"));
    }
    let admitted = replayed.iter().filter(|one| one.answer.admitted);
    let admitted: u64 = admitted.map(|one| one.answer.units).sum();
    assert_eq!(
        admitted,
        logged.iter().map(|(_, units)| units).sum::<u64>(),
        "every admission was somebody's"
    );

    let sent = as_sent(&scenario, &replayed);
    let simulated = simulate(Scheme::Aquifer, &sent);
    let mut answers: Vec<Answer> = replayed.iter().map(|one| one.answer).collect();
    answers.sort_by_key(|answer| answer.at);
    let real = Record { answers, ..simulated.clone() };
    let ideal = simulate(Scheme::Ideal, &sent);
    let [real, simulated] = [&real, &simulated].map(|record| Figures::of(record, &ideal, &scenario));
    println!("real {real:.3?}, simulated {simulated:.3?}, more by {:.3?}", real.difference(&simulated));
    assert!(real.is_like(&simulated), "real {real:.3?} is not like simulated {simulated:.3?}");
}

/// The bounds notice a simulator that is wrong: they forgive some milliseconds, and not a tenth of a second.
#[test]
fn a_simulator_with_slow_links_is_not_like_one_with_fast_links() {
    let scenario = scenario();
    let ideal = simulate(Scheme::Ideal, &scenario);
    let figures = |hop_ms| {
        let links = LinkSpec { hop_ms: Some(hop_ms), ..scenario.links };
        let record = simulate(Scheme::Aquifer, &Scenario { links, ..scenario.clone() });
        Figures::of(&record, &ideal, &scenario)
    };
    let fast = figures(0.2);
    for hop_ms in [1.0, 5.0] {
        let slow = figures(hop_ms);
        assert!(fast.is_like(&slow), "{fast:.3?} is not like {slow:.3?} at {hop_ms} ms");
    }
    for hop_ms in [100.0, 200.0] {
        let slow = figures(hop_ms);
        assert!(!fast.is_like(&slow), "{fast:.3?} is like {slow:.3?} at {hop_ms} ms");
    }
}
