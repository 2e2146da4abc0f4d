use super::*;
use crate::fault::{Fault, Nodes};
use crate::network::LinkSpec;
use crate::scenario::{LimitSpec, Step};
use crate::workload::{Kind, Workload};

/// Ten nodes under a limit of 1,000 a second and 200 at once, on links of 20 ms, for 10 seconds after a warm-up of 5.
fn scenario(kind: Kind, load: f64) -> Scenario {
    Scenario {
        nodes: 10,
        seconds: 10.0,
        limit: LimitSpec::rate(1_000, 200),
        links: LinkSpec { hop_ms: Some(20.0), loss: Some(5.0), ..LinkSpec::default() },
        workload: vec![Workload { kind, load, ..Workload::default() }],
        ..Scenario::default()
    }
}

const RIVALS: [Scheme; 6] =
    [Scheme::Ideal, Scheme::Alone, Scheme::Division, Scheme::Estimate, Scheme::Proportional, Scheme::Batches];

/// Units that were admitted in the measured span, as a part of what comes back in it.
fn utilisation(record: &Record) -> f64 {
    let admitted = record.answers.iter().filter(|answer| answer.admitted && answer.at >= record.begin);
    let units: u64 = admitted.map(|answer| answer.units).sum();
    units as f64 / (record.rate * crate::time::seconds(record.end - record.begin))
}

fn greedy() -> Kind {
    Kind::Greedy { nodes: Nodes::One(0), times: 3.0 }
}

#[test]
fn every_rival_goes_the_same_way_twice_and_another_with_another_seed() {
    for scheme in RIVALS {
        let scenario = scenario(Kind::OnOff { on: 1.0, off: 1.0 }, 1.2);
        let record = run(scheme, &scenario, 1);
        assert_eq!(record, run(scheme, &scenario, 1), "{scheme}");
        assert_ne!(record.trace_hash, run(scheme, &scenario, 2).trace_hash, "{scheme}");
    }
}

#[test]
fn every_request_has_at_most_one_answer_in_time() {
    for scheme in RIVALS {
        let scenario = scenario(greedy(), 0.5);
        let record = run(scheme, &scenario, 1);
        assert!(record.answers.iter().all(|answer| answer.waited <= 2_000 * crate::time::MS), "{scheme}");
        assert!(record.answers.windows(2).all(|pair| pair[0].at <= pair[1].at), "{scheme}");
        let unanswered = record.arrivals.len() - record.answers.len();
        let late = record.arrivals.iter().filter(|arrival| arrival.at + arrival.wait >= record.end).count();
        assert!(unanswered <= late, "{scheme}: {unanswered} without an answer, {late} still wait");
    }
}

#[test]
fn the_ideal_is_never_over_and_wastes_nothing() {
    for kind in [Kind::Steady, greedy(), Kind::Rotating { period: 3.0 }] {
        let record = run(Scheme::Ideal, &scenario(kind, 1.5), 1);
        assert!(record.overshoot <= 0.0, "{}", record.overshoot);
        assert!((0.999..=1.001).contains(&utilisation(&record)), "{}", utilisation(&record));
        assert_eq!(record.traffic, crate::record::Traffic::default());
    }
}

#[test]
fn nodes_alone_admit_as_often_as_there_are_nodes() {
    let record = run(Scheme::Alone, &scenario(Kind::Steady, 20.0), 1);
    assert!((9.99..=10.01).contains(&utilisation(&record)), "{}", utilisation(&record));
    // Nine bursts too many, and nine times the rate too much for 15 seconds.
    assert!(
        (record.overshoot / (9.0 * 200.0 + 9.0 * 1_000.0 * 15.0) - 1.0).abs() < 0.01,
        "{}",
        record.overshoot
    );
}

#[test]
fn division_is_never_over_and_wastes_what_is_not_wanted() {
    let even = run(Scheme::Division, &scenario(Kind::Steady, 2.0), 1);
    assert!(utilisation(&even) > 0.99 && even.overshoot <= 0.0);
    let skewed = run(Scheme::Division, &scenario(greedy(), 0.0), 1);
    assert!(skewed.overshoot <= 0.0);
    assert!((0.09..=0.11).contains(&utilisation(&skewed)), "{}", utilisation(&skewed));
}

#[test]
fn division_admits_nothing_where_a_part_of_the_burst_holds_no_request() {
    let mut scenario = scenario(Kind::Steady, 2.0);
    scenario.limit.burst = 9;
    let record = run(Scheme::Division, &scenario, 1);
    assert!(record.answers.iter().all(|answer| !answer.admitted && answer.waited == 0));
    assert_eq!(record.answers.len(), record.arrivals.len());
}

#[test]
fn estimates_use_what_there_is_and_overshoot_the_more_the_later_they_are() {
    let with_hop = |hop_ms| {
        let mut scenario = scenario(Kind::Steady, 2.0);
        scenario.links.hop_ms = Some(hop_ms);
        run(Scheme::Estimate, &scenario, 1)
    };
    let (near, far) = (with_hop(1.0), with_hop(300.0));
    assert!(utilisation(&near) > 0.95, "{}", utilisation(&near));
    assert!(near.overshoot > 100.0, "{}", near.overshoot);
    assert!(far.overshoot > 1.5 * near.overshoot, "{} {}", far.overshoot, near.overshoot);
}

#[test]
fn in_a_partition_estimates_spend_everything_on_both_sides() {
    let mut scenario = scenario(Kind::Steady, 4.0);
    let step = |at, fault| Step { at, say: "It happens.".to_owned(), fault };
    scenario.step = vec![step(0.0, Fault::Partition(Nodes::Part(2, 0)))];
    let cut = utilisation(&run(Scheme::Estimate, &scenario, 1));
    assert!((1.8..=2.1).contains(&cut), "{cut}");
    scenario.step.push(step(0.0, Fault::Heal));
    let healed = utilisation(&run(Scheme::Estimate, &scenario, 1));
    assert!((0.95..=1.1).contains(&healed), "{healed}");
}

#[test]
fn proportional_shares_follow_demand_but_not_exactly() {
    let even = run(Scheme::Proportional, &scenario(Kind::Steady, 2.0), 1);
    assert!(utilisation(&even) > 0.95, "{}", utilisation(&even));
    let held = &even.samples.last().expect("samples").held;
    assert!(held.iter().all(|held| (0.05..0.2).contains(held)), "{held:?}");

    let skewed = run(Scheme::Proportional, &scenario(greedy(), 0.5), 1);
    let held = skewed.samples.iter().filter(|sample| sample.at >= skewed.begin).map(|sample| sample.held[0]);
    let mean = held.clone().sum::<f32>() / held.count() as f32;
    assert!(mean > 0.2, "the greedy node has {mean}");
    assert!((0.7..0.99).contains(&utilisation(&skewed)), "{}", utilisation(&skewed));

    let mut far = scenario(Kind::Rotating { period: 1.0 }, 2.0);
    (far.links.hop_ms, far.limit.burst) = (Some(300.0), 20);
    let far = run(Scheme::Proportional, &far, 1);
    assert!(far.overshoot > 20.0, "{}", far.overshoot);
}

#[test]
fn batches_cost_a_round_trip_and_are_stranded_where_nodes_are_many() {
    let few = run(Scheme::Batches, &scenario(Kind::Steady, 2.0), 1);
    assert!(utilisation(&few) > 0.95, "{}", utilisation(&few));
    assert!(few.traffic.messages > 0);
    let mut many = scenario(Kind::Steady, 0.9);
    many.nodes = 500;
    many.limit = LimitSpec::rate(500, 50);
    let many = run(Scheme::Batches, &many, 1);
    assert!(utilisation(&many) < 0.4, "{}", utilisation(&many));
}

#[test]
fn a_cut_node_gets_no_batches() {
    let mut scenario = scenario(Kind::Steady, 2.0);
    scenario.step = vec![Step { at: 0.0, say: "Cut.".to_owned(), fault: Fault::Partition(Nodes::One(3)) }];
    let record = run(Scheme::Batches, &scenario, 1);
    let late = record.begin + 3 * crate::time::SEC;
    let admitted =
        |node| record.answers.iter().filter(|it| it.admitted && it.node == node && it.at > late).count();
    assert_eq!(admitted(3), 0);
    assert!(admitted(4) > 100);
}

#[test]
fn whoever_is_down_or_stands_still_gets_no_requests() {
    let mut scenario = scenario(Kind::Steady, 0.9);
    let step = |at, fault| Step { at, say: "It happens.".to_owned(), fault };
    scenario.step = vec![
        step(2.0, Fault::Crash(Nodes::One(1))),
        step(2.0, Fault::Pause { nodes: Nodes::One(2), seconds: 3.0 }),
        step(5.0, Fault::Start(Nodes::One(1))),
    ];
    for scheme in RIVALS {
        let record = run(scheme, &scenario, 1);
        let answers = |node, from: u64, until: u64| {
            let within = record.begin + from * crate::time::SEC..record.begin + until * crate::time::SEC;
            record
                .answers
                .iter()
                .filter(|it| it.node == node && within.contains(&(it.at - it.waited)))
                .count()
        };
        assert_eq!((answers(1, 2, 5), answers(2, 2, 5)), (0, 0), "{scheme}");
        assert!(answers(1, 5, 8) > 100 && answers(2, 5, 8) > 100 && answers(3, 2, 5) > 100, "{scheme}");
    }
}
