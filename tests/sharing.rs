//! How well shares follow demand, measured on the core in simulated time: exact, so no wall clock is asserted.

#[path = "support/cluster.rs"]
mod cluster;

use std::time::Duration;

use aquifer::protocol::node::Policy;
use cluster::{Cluster, LOOPBACK, MS, Nanos, SEC, Setup};

fn setup(nodes: usize, amount: u64, burst: u64) -> Setup {
    Setup { amount, burst, nodes, policy: Policy::Strict, faults: LOOPBACK, seed: 1 }
}

/// Runs an open-loop load for `seconds`; `demand(node, millis)` is in requests a second. Gives back what was admitted
/// and what one central limiter would have admitted of a load that always exceeds the limit.
fn run(
    cluster: &mut Cluster,
    limit: Setup,
    seconds: u64,
    demand: impl Fn(usize, u64) -> f64,
) -> (Vec<u64>, f64) {
    let start = cluster.now;
    let mut owed = vec![0.0; limit.nodes];
    let before: Vec<u64> = (0..limit.nodes).map(|place| cluster.admitted(place)).collect();
    for step in 0..seconds * 1_000 {
        cluster.run_until(start + step * MS);
        for (place, owed) in owed.iter_mut().enumerate() {
            *owed += demand(place, step) / 1_000.0;
            while *owed >= 1.0 {
                *owed -= 1.0;
                let jitter = cluster.random(2);
                if cluster.waiting(place) < 400 {
                    cluster.ask(place, 1, Duration::from_millis(2_000 + jitter));
                }
            }
        }
    }
    cluster.run_until(start + seconds * SEC);
    let admitted = (0..limit.nodes).map(|place| cluster.admitted(place) - before[place]).collect();
    (admitted, (limit.burst + limit.amount * seconds) as f64)
}

fn utilisation(name: &str, limit: Setup, seconds: u64, demand: impl Fn(usize, u64) -> f64) -> f64 {
    let mut cluster = Cluster::formed(limit);
    let (messages, bytes) = (cluster.messages, cluster.bytes);
    let (admitted, central) = run(&mut cluster, limit, seconds, demand);
    let used = admitted.iter().sum::<u64>() as f64 / central;
    let per_node = |total: u64| total as f64 / limit.nodes as f64 / seconds as f64;
    println!(
        "{name}: utilisation {used:.4}, by node {admitted:?}, {:.0} messages and {:.0} bytes a node and second",
        per_node(cluster.messages - messages),
        per_node(cluster.bytes - bytes),
    );
    used
}

#[test]
fn saturated_swarms_admit_nearly_what_a_central_limiter_would() {
    for (amount, burst) in [(8, 50), (83, 50), (500, 100), (2_000, 200)] {
        let limit = setup(5, amount, burst);
        let rate = amount as f64;
        let mut results = vec![
            utilisation("steady", limit, 20, |_, _| rate * 0.4),
            utilisation("one greedy", limit, 20, |place, _| if place == 0 { rate * 1.6 } else { rate * 0.1 }),
            utilisation("rotating burst", limit, 20, |place, ms| {
                if (ms / 2_000) as usize % 5 == place { rate * 2.0 } else { 0.0 }
            }),
            utilisation("flash crowd", limit, 20, |place, ms| {
                if place == 0 {
                    rate * 1.2
                } else if ms > 8_000 {
                    rate * 0.5
                } else {
                    0.0
                }
            }),
        ];
        results.sort_by(f64::total_cmp);
        // A request is half a per cent of the smallest: with other seeds it is 203 to 205 of 210.
        assert!(results[0] >= 0.965, "{amount} a second, burst {burst}: {results:?}");
    }
}

#[test]
fn limits_smaller_than_the_swarm_take_turns() {
    for (nodes, amount, burst) in [(5, 5, 1), (5, 5, 3), (12, 5, 5), (12, 20, 8), (12, 100, 1), (5, 200, 2)] {
        let limit = setup(nodes, amount, burst);
        let rate = amount as f64;
        let name = format!("{nodes} nodes, {amount} a second, burst {burst}");
        let used = utilisation(&name, limit, 30, |_, _| rate * 2.0 / nodes as f64);
        assert!(used >= 0.90, "{name}: {used}");
    }
}

#[test]
fn equal_demand_gives_equal_admissions() {
    for nodes in [2, 5, 12] {
        let limit = setup(nodes, 600, 120);
        let mut cluster = Cluster::formed(limit);
        let (admitted, _) = run(&mut cluster, limit, 20, |_, _| 1_200.0 / nodes as f64);
        println!("{nodes} nodes: {admitted:?}");
        let (least, most) = (*admitted.iter().min().unwrap(), *admitted.iter().max().unwrap());
        assert!((most - least) as f64 <= 0.03 * most as f64, "{admitted:?}");
    }
}

#[test]
fn a_greedy_node_takes_only_what_the_others_leave() {
    let limit = setup(5, 500, 50);
    let mut cluster = Cluster::formed(limit);
    let (admitted, _) = run(&mut cluster, limit, 20, |place, _| if place == 0 { 2_000.0 } else { 75.0 });
    println!("{admitted:?}");
    for modest in &admitted[1..] {
        assert!(*modest >= 75 * 20 * 98 / 100, "{admitted:?}");
    }
}

#[test]
fn a_node_that_starts_asking_soon_has_its_share() {
    let limit = setup(5, 500, 50);
    let mut cluster = Cluster::formed(limit);
    // Four greedy nodes share everything; then the fifth wakes up.
    run(&mut cluster, limit, 10, |place, _| if place == 4 { 0.0 } else { 300.0 });
    let reached: Nanos = {
        let start = cluster.now;
        let mut step = 0;
        loop {
            step += 1;
            cluster.run_until(start + step * MS);
            for place in 0..5 {
                if step % 3 == 0 && cluster.waiting(place) < 300 {
                    cluster.ask(place, 1, Duration::from_secs(2));
                }
            }
            if cluster.held(4) >= 0.9 * 0.2 || step > 2_000 {
                break step;
            }
        }
    };
    println!("90 % of its share after {reached} ms");
    assert!(reached <= 300);
}

#[test]
fn an_idle_swarm_says_next_to_nothing() {
    let limit = setup(5, 500, 50);
    let mut cluster = Cluster::formed(limit);
    cluster.run_until(cluster.now + 20 * SEC);
    let (messages, bytes) = (cluster.messages, cluster.bytes);
    cluster.run_until(cluster.now + 60 * SEC);
    let (messages, bytes) = ((cluster.messages - messages) / 300, (cluster.bytes - bytes) / 300);
    println!("idle: {messages} messages and {bytes} bytes a node and second");
    assert!(bytes <= 150, "{bytes} bytes a second");
}

#[test]
fn a_link_to_an_idle_swarm_stays() {
    let limit = setup(3, 500, 50);
    let mut cluster = Cluster::formed(limit);
    cluster.run_until(cluster.now + 20 * SEC);
    cluster.crash(2);
    cluster.run_until(cluster.now + SEC);
    cluster.start(2);
    // Woken by the new link, a node promises to speak soon, and has nothing more to say.
    cluster.run_until(cluster.now + 30 * SEC);
    assert_eq!(cluster.closes, 0, "nobody was silent for longer than it had promised");
}

#[test]
fn whoever_asks_without_waiting_does_not_keep_a_small_limit_from_those_who_wait() {
    let limit = setup(3, 60, 1);
    let mut cluster = Cluster::formed(limit);
    let start = cluster.now;
    for step in 0..10_000 {
        cluster.run_until(start + step * MS);
        // Two that ask seven times a second and do not wait, and one that has a queue.
        for place in 0..2 {
            if (step + 70 * place as u64).is_multiple_of(143) {
                cluster.ask(place, 1, Duration::ZERO);
            }
        }
        if cluster.waiting(2) < 20 {
            cluster.ask(2, 1, Duration::from_secs(5));
        }
    }
    let admitted: Vec<u64> = (0..3).map(|place| cluster.admitted(place)).collect();
    println!("without waiting: {admitted:?} of {}", limit.amount * 10);
    assert!(admitted[2] >= limit.amount * 10 * 2 / 5, "{admitted:?}");
}
