use super::*;
use crate::scenario::LimitSpec;
use crate::time::{SEC, seconds};

const RATE: u64 = 1_000;

fn scenario(nodes: usize, workload: Workload) -> Scenario {
    let limit = LimitSpec::rate(RATE, 100);
    Scenario { nodes, seconds: 100.0, warmup: 10.0, limit, workload: vec![workload], ..Scenario::default() }
}

/// Units per second that each node asks for between two moments after the warm-up.
fn offered(scenario: &Scenario, from: f64, until: f64) -> Vec<f64> {
    let mut units = vec![0.0; scenario.nodes];
    for arrival in arrivals(scenario, 1) {
        let at = seconds(arrival.at) - scenario.warmup;
        if (from..until).contains(&at) {
            units[arrival.node] += arrival.units as f64 / (until - from);
        }
    }
    units
}

fn is_near(value: f64, wanted: f64, part: f64) -> bool {
    (value - wanted).abs() <= wanted * part
}

#[track_caller]
fn assert_near(value: f64, wanted: f64, part: f64) {
    assert!(is_near(value, wanted, part), "{value} is not within {part} of {wanted}");
}

fn of(kind: Kind) -> Workload {
    Workload { kind, ..Workload::default() }
}

#[test]
fn arrivals_are_the_same_for_a_seed_sorted_and_within_the_run() {
    let scenario = scenario(7, Workload { agents: 3, ..of(Kind::OnOff { on: 1.0, off: 2.0 }) });
    let all = arrivals(&scenario, 5);
    assert_eq!(all, arrivals(&scenario, 5));
    assert_ne!(all, arrivals(&scenario, 6));
    assert!(all.windows(2).all(|pair| (pair[0].at, pair[0].node) <= (pair[1].at, pair[1].node)));
    assert!(all.iter().all(|arrival| arrival.at < 110 * SEC && arrival.wait == 2 * SEC && arrival.agent < 3));
}

#[test]
fn a_workload_more_changes_no_other() {
    let mut scenario = scenario(3, of(Kind::Steady));
    let before = arrivals(&scenario, 1);
    scenario.workload.push(Workload {
        agents: 1,
        cost: Cost::Units(2),
        ..of(Kind::Rotating { period: 5.0 })
    });
    let after: Vec<Arrival> =
        arrivals(&scenario, 1).into_iter().filter(|arrival| arrival.units == 1).collect();
    assert_eq!(before, after);
}

#[test]
fn steady_load_is_poisson_at_the_rate_and_regular_load_is_not_random() {
    let random = scenario(2, Workload { load: 0.5, ..of(Kind::Steady) });
    let count = |scenario: &Scenario, second: u64| {
        let within = |arrival: &&Arrival| arrival.at / SEC == second;
        arrivals(scenario, 1).iter().filter(within).count() as f64
    };
    let counts: Vec<f64> = (10..60).map(|second| count(&random, second)).collect();
    let mean = counts.iter().sum::<f64>() / 50.0;
    let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 49.0;
    assert_near(mean, 500.0, 0.02);
    assert!(
        (0.5..2.0).contains(&(variance / mean)),
        "a Poisson count's variance is its mean: {variance} {mean}"
    );
    let regular = scenario(2, Workload { load: 0.5, regular: true, ..of(Kind::Steady) });
    assert!((10..60).all(|second| (499.0..=501.0).contains(&count(&regular, second))));
}

#[test]
fn lumpy_costs_offer_the_same_units() {
    let cost = Cost::Sizes(Sizes { median: 10.0, sigma: 1.0, max: 0.5 });
    let units: f64 =
        offered(&scenario(4, Workload { load: 3.0, cost, ..of(Kind::Steady) }), 0.0, 100.0).iter().sum();
    assert_near(units, 3_000.0, 0.03);
}

#[test]
fn zipf_falls_with_the_rank() {
    let offered = offered(&scenario(4, of(Kind::Zipf { exponent: 1.0 })), 0.0, 100.0);
    let sum = 1.0 + 1.0 / 2.0 + 1.0 / 3.0 + 1.0 / 4.0;
    (0..4).for_each(|rank| assert_near(offered[rank], 1_000.0 / sum / (rank + 1) as f64, 0.05));
}

#[test]
fn the_greedy_ask_for_their_many_times_and_the_others_for_the_load() {
    let greedy = Kind::Greedy { nodes: Nodes::One(2), times: 5.0 };
    let offered = offered(&scenario(5, Workload { load: 0.4, ..of(greedy) }), 0.0, 100.0);
    assert_near(offered[2], 5_000.0, 0.02);
    [0, 1, 3, 4].into_iter().for_each(|node| assert_near(offered[node], 100.0, 0.05));
}

#[test]
fn on_and_off_nodes_offer_the_load_on_average_and_are_off_when_they_should_be() {
    let scenario = scenario(200, of(Kind::OnOff { on: 1.0, off: 3.0 }));
    assert_near(offered(&scenario, 0.0, 100.0).iter().sum(), 1_000.0, 0.05);
    // In 100 ms an on node makes 2 requests: most of those that make none are off.
    let busy = offered(&scenario, 50.0, 50.1).iter().filter(|rate| **rate > 0.0).count();
    assert!((25..85).contains(&busy), "{busy} of 200 are on");
}

#[test]
fn bursts_rotate_and_halves_swap_and_say_when() {
    let rotating = scenario(4, of(Kind::Rotating { period: 5.0 }));
    let at = |from| offered(&rotating, from, from + 5.0);
    assert_near(at(0.0)[0], 1_000.0, 0.05);
    assert_near(at(5.0)[1], 1_000.0, 0.05);
    assert_near(at(20.0)[0], 1_000.0, 0.05);
    assert!(at(5.0)[0] + at(5.0)[2] + at(5.0)[3] < 1.0);
    assert_eq!(marks(&rotating).len(), 19);

    let halves = scenario(3, of(Kind::Halves { period: 10.0, busy: 0.9 }));
    let at = |from| offered(&halves, from, from + 10.0);
    assert_near(at(0.0)[0], 900.0, 0.05);
    assert_near(at(0.0)[1] + at(0.0)[2], 100.0, 0.1);
    assert_near(at(10.0)[1] + at(10.0)[2], 900.0, 0.05);
    assert_eq!(marks(&halves).first().map(|mark| mark.at), Some(20 * SEC));
}

#[test]
fn a_crowd_comes_when_it_should() {
    let flash = scenario(10, Workload { load: 2.0, ..of(Kind::Flash { at: 50.0, share: 0.2 }) });
    assert_near(offered(&flash, 0.0, 50.0).iter().sum(), 400.0, 0.05);
    assert_near(offered(&flash, 50.0, 100.0).iter().sum(), 2_000.0, 0.05);
    assert!(offered(&flash, 0.0, 50.0)[2..].iter().all(|rate| *rate == 0.0));
}

#[test]
fn the_sun_goes_round() {
    let diurnal = scenario(4, of(Kind::Diurnal { period: 40.0 }));
    let at = |from| offered(&diurnal, from, from + 4.0);
    assert_near(at(8.0)[0], 500.0, 0.1);
    assert_near(at(18.0)[1], 500.0, 0.1);
    assert!(at(28.0)[0] < 25.0);
    assert_near(at(8.0).iter().sum(), 1_000.0, 0.05);
}

#[test]
fn a_workload_has_its_nodes_and_its_span() {
    let workload =
        Workload { nodes: Nodes::Part(2, 1), from: Some(20.0), until: Some(30.0), ..of(Kind::Steady) };
    let scenario = scenario(6, workload);
    assert!(offered(&scenario, 0.0, 20.0).iter().all(|rate| *rate == 0.0));
    assert!(offered(&scenario, 30.0, 100.0).iter().all(|rate| *rate == 0.0));
    let within = offered(&scenario, 20.0, 30.0);
    assert!(within[..3].iter().all(|rate| *rate == 0.0));
    assert_near(within.iter().sum(), 1_000.0, 0.05);
    assert_eq!(marks(&scenario).len(), 2);
}

#[test]
fn a_trace_is_replayed_and_its_nodes_go_round() {
    let rows = vec![
        Row { at: 1.0, node: 0, agent: 7, units: 5 },
        Row { at: 2.5, node: 5, agent: 0, units: 1 },
        Row { at: 500.0, node: 0, agent: 0, units: 1 },
    ];
    let trace = Workload { rows, from: Some(0.0), ..of(Kind::Trace(String::new())) };
    let all = arrivals(&scenario(2, trace), 1);
    assert_eq!(all.len(), 2, "what is after the end is left out");
    assert_eq!((all[0].at, all[0].node, all[0].agent, all[0].units), (11 * SEC, 0, 7, 5));
    assert_eq!((all[1].at, all[1].node), (12_500 * MS, 1));
}
