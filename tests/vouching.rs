//! Whom base shares come from: founders, vouching, forgetting; and floors that claims of others cannot lower.

#[path = "support/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use aquifer::protocol::message::Message;
use aquifer::protocol::node::{Forgotten, Policy, Trust, Vouching};
use aquifer::protocol::record::Value;
use aquifer::protocol::share::{ONE, Share};
use cluster::{Cluster, LOOPBACK, MS, SEC, Setup, node_id};

fn setup(nodes: usize, seed: u64) -> Setup {
    Setup { amount: 1_000, burst: 500, nodes, policy: Policy::Strict, faults: LOOPBACK, seed }
}

fn formed(setup: Setup, vouching: Vouching) -> Cluster {
    let mut cluster = Cluster::unborn(setup);
    cluster.vouching = vouching;
    cluster.found(0);
    (1..setup.nodes).for_each(|node| cluster.start(node));
    cluster.run_for(10 * SEC);
    cluster
}

fn base(cluster: &Cluster, node: usize) -> f64 {
    cluster.node(0).bases().get(&node_id(node)).copied().unwrap_or_default().fraction()
}

/// Claims endless critical demand with the greatest weight, and never to have been served.
fn lie(message: &mut Message) {
    for entry in message.news.iter_mut().flat_map(|news| &mut news.entries) {
        // What it does not sign it can always say otherwise.
        if let Value::Row(row) = &mut entry.value {
            entry.signature = None;
            (row.demand, row.classes, row.weights) = (ONE, [ONE, Share::ZERO, Share::ZERO], [u32::MAX; 4]);
            (row.waiting, row.need, row.class, row.weight) = (400, 1 << 40, 0, u32::MAX);
            (row.tag, row.turn_end, row.free, row.spare) = (0, u64::MAX, Share::ZERO, 0);
        }
    }
}

#[test]
fn claims_of_others_take_nothing_that_a_node_wants_of_its_own() {
    for seed in 0..5 {
        let setup = setup(10, seed);
        let mut cluster = formed(setup, Vouching { trust: Trust::Weight, ..Vouching::default() });
        cluster.liars = [2, 5, 8].map(|node| (node, lie as fn(&mut Message))).into();
        // The liars have borrowed all that they can before the others begin.
        let spend = |cluster: &mut Cluster, millis: u64, honest: bool| {
            let before: Vec<u64> = (0..10).map(|node| cluster.admitted(node)).collect();
            for _ in 0..millis / 10 {
                cluster.run_for(10 * MS);
                for node in 0..10 {
                    if [2, 5, 8].contains(&node) {
                        let level = cluster.level(node);
                        cluster.ask(node, level.max(1), Duration::ZERO);
                    } else if honest && cluster.waiting(node) < 40 {
                        cluster.ask(node, 2, Duration::from_secs(2));
                    }
                }
            }
            (0..10).map(|node| cluster.admitted(node) - before[node]).collect::<Vec<u64>>()
        };
        spend(&mut cluster, 5_000, false);
        spend(&mut cluster, 5_000, true);
        let served = spend(&mut cluster, 20_000, true);
        for node in [0, 1, 3, 4, 6, 7, 9] {
            let floor = base(&cluster, node) * 1_000.0 * 20.0;
            let kept = served[node] as f64 / floor;
            assert!(kept >= 0.95, "seed {seed}: node {node} keeps {kept:.3} of its floor; {served:?}");
        }
    }
}

#[test]
fn founders_in_the_configuration_begin_with_their_shares_and_the_others_join() {
    let founders: BTreeMap<_, _> = [(node_id(1), ONE.scale(1, 2)), (node_id(2), ONE.scale(1, 4))].into();
    let vouching = Vouching { founders, ..Vouching::default() };
    let ledger = vouching.ledger();
    let cluster = formed(setup(4, 1), vouching);
    let bases = cluster.node(0).bases();
    assert_eq!(bases.values().copied().sum::<Share>(), ONE.scale(3, 4), "{bases:?}");
    for node in 0..4 {
        assert_eq!(cluster.node(node).view(cluster.clock(node)).ledger, ledger);
        assert_eq!(cluster.node(node).bases(), bases, "node {node}");
        let fair = base(&cluster, node) / 0.1875;
        assert!((0.9..1.3).contains(&fair), "node {node} has {fair} of its part");
    }
}

#[test]
fn those_who_join_with_the_token_share_what_is_configured_however_many_they_are() {
    for nodes in [2, 5, 30] {
        let vouching = Vouching { auto_vouch: ONE.scale(1, 5), ..Vouching::default() };
        let mut cluster = formed(setup(nodes, nodes as u64), vouching);
        cluster.run_for(30 * SEC);
        assert!(base(&cluster, 0) >= 0.8, "the founder has {} of {nodes}", base(&cluster, 0));
        assert!((1..nodes).any(|node| base(&cluster, node) > 0.0), "nobody got anything");
    }
}

#[test]
fn a_forgotten_member_gives_back_what_it_was_given() {
    let vouching = Vouching { auto_vouch: ONE.scale(1, 2), ..Vouching::default() };
    let mut cluster = formed(setup(3, 1), vouching);
    let had = base(&cluster, 1);
    assert!(had > 0.0);
    let asked = cluster.forget(0, 1).unwrap();
    assert!(matches!(asked, Forgotten::Asked(_)), "{asked:?}");
    cluster.run_for(5 * SEC);
    assert!(base(&cluster, 1) < had / 100.0, "it kept {} of {had}", base(&cluster, 1));
    // One that is gone is taken from, at once.
    cluster.crash(2);
    cluster.run_for(5 * SEC);
    let left = cluster.forget(0, 2).unwrap();
    assert!(matches!(left, Forgotten::TakenBack(share) if share > Share::ZERO), "{left:?}");
    assert!(cluster.forget(0, 2).is_err(), "there is nothing more to take back");
    assert_eq!(cluster.node(0).bases().values().copied().sum::<Share>(), ONE);
}
