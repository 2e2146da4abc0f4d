//! Policy `majority`: partitions, cuts in one direction and sleepers. The cluster checks T1 and T2 at every event.

#[path = "support/cluster.rs"]
mod cluster;

use std::time::Duration;

use aquifer::protocol::node::{Phase, Policy};
use aquifer::protocol::share::{ONE, Share};
use cluster::{Cluster, Faults, LOOPBACK, MS, Nanos, SEC, Setup, node_id};

const NODES: usize = 5;
const AMOUNT: u64 = 200;
/// What the cluster configures.
const FORGET_AFTER: Nanos = 15 * SEC;

/// A swarm whose members have been members for so long that their votes count.
fn swarm(seed: u64) -> Cluster {
    let faults = Faults { drift_ppm: 200, timers_late: 5 * MS, ..LOOPBACK };
    let setup = Setup { amount: AMOUNT, burst: 40, nodes: NODES, policy: Policy::Majority, faults, seed };
    let mut cluster = Cluster::formed(setup);
    spend(&mut cluster, 2 * FORGET_AFTER + SEC);
    cluster
}

/// Everybody spends whatever it has, all the time. Gives back what each was admitted.
fn spend(cluster: &mut Cluster, time: Nanos) -> Vec<u64> {
    let before: Vec<u64> = (0..NODES).map(|node| cluster.admitted(node)).collect();
    let end = cluster.now + time;
    while cluster.now < end {
        cluster.run_for(20 * MS);
        for node in cluster.live() {
            if !cluster.is_paused(node) {
                let level = cluster.level(node);
                cluster.ask(node, level.max(1), Duration::ZERO);
            }
        }
    }
    (0..NODES).map(|node| cluster.admitted(node) - before[node]).collect()
}

fn used(admitted: &[u64], time: Nanos) -> f64 {
    admitted.iter().sum::<u64>() as f64 / (AMOUNT * time / SEC) as f64
}

/// Everybody is a member that is served, knows the same ledger, and all base share is there.
fn all_is_well(cluster: &mut Cluster) {
    let served = spend(cluster, 10 * SEC);
    assert!(used(&served, 10 * SEC) > 0.9, "{served:?}");
    assert!(served.iter().all(|units| *units > 0), "{served:?}");
    for (node, other) in (0..NODES).flat_map(|node| (0..NODES).map(move |other| (node, other))) {
        let held = cluster.node(node).case(&node_id(other));
        assert!(held.is_none(), "node {node} holds against {other}: {held:?}");
    }
    let bases = cluster.node(0).bases().clone();
    assert_eq!(bases.values().copied().sum::<Share>(), ONE);
    for node in 0..NODES {
        assert_eq!(cluster.node(node).phase(), Phase::Ready);
        assert_eq!(*cluster.node(node).bases(), bases, "node {node}");
        let fair = bases[&node_id(node)].fraction() * NODES as f64;
        assert!((0.9..1.3).contains(&fair), "node {node} has {fair} of its part");
    }
}

#[test]
fn the_majority_takes_over_and_the_minority_has_stopped() {
    for seed in 0..20 {
        let mut cluster = swarm(seed);
        let (one, other) = (seed as usize % NODES, (seed as usize / NODES + 1 + seed as usize) % NODES);
        cluster.cut_off(|node| node == one || node == other);
        spend(&mut cluster, 2 * FORGET_AFTER);
        let served = spend(&mut cluster, 10 * SEC);
        let minority = served[one] + served[other];
        assert!(used(&served, 10 * SEC) > 0.9 && minority == 0, "seed {seed}: {served:?}");
        cluster.heal();
        spend(&mut cluster, 30 * SEC);
        all_is_well(&mut cluster);
    }
}

#[test]
fn whoever_is_heard_by_nobody_stops_and_whoever_hears_nobody_does_too() {
    for seed in 0..10 {
        for deaf in [false, true] {
            let mut cluster = swarm(seed);
            let one = seed as usize % NODES;
            for other in 0..NODES {
                let (from, to) = if deaf { (other, one) } else { (one, other) };
                cluster.cut_one_way(from, to);
            }
            spend(&mut cluster, 2 * FORGET_AFTER);
            let served = spend(&mut cluster, 10 * SEC);
            assert_eq!(served[one], 0, "seed {seed}: {served:?}");
            cluster.heal();
            spend(&mut cluster, 30 * SEC);
            all_is_well(&mut cluster);
        }
    }
}

#[test]
fn a_laptop_that_slept_for_hours_wakes_up_with_nothing() {
    for seed in 0..10 {
        let mut cluster = swarm(seed);
        let sleeper = seed as usize % NODES;
        cluster.pause(sleeper, 8 * 3_600 * SEC);
        spend(&mut cluster, 2 * FORGET_AFTER);
        let served = spend(&mut cluster, 10 * SEC);
        assert!(used(&served, 10 * SEC) > 0.9, "seed {seed}: {served:?}");
        // It wakes up where nobody hears it.
        cluster.cut_off(|node| node == sleeper);
        cluster.wake(sleeper);
        let alone = spend(&mut cluster, 20 * SEC);
        assert_eq!(alone[sleeper], 0, "seed {seed}");
        cluster.heal();
        spend(&mut cluster, 30 * SEC);
        all_is_well(&mut cluster);
    }
}

#[test]
fn no_sequence_of_cuts_sleeps_and_crashes_breaks_the_limit() {
    for seed in 0..40 {
        let mut cluster = swarm(seed);
        for _ in 0..12 {
            let (one, other) = (cluster.random(5) as usize, cluster.random(5) as usize);
            let time = 100 * MS + cluster.random(12 * SEC);
            match cluster.random(9) {
                0 => cluster.cut_off(|node| node == one),
                1 | 2 => cluster.cut_off(|node| node == one || node == other),
                3 => cluster.cut_one_way(one, other),
                4 => (0..NODES).for_each(|node| cluster.cut_one_way(one, node)),
                5 => cluster.pause(one, time * 2),
                6 => cluster.crash(one),
                7 => cluster.start(one),
                _ => cluster.heal(),
            }
            spend(&mut cluster, time);
        }
        (0..NODES).for_each(|node| cluster.start(node));
        cluster.heal();
        spend(&mut cluster, 30 * SEC + 3 * FORGET_AFTER);
        all_is_well(&mut cluster);
    }
}
