//! Whom base shares come from: founders, vouching, forgetting; and floors that claims of others cannot lower.

#[path = "support/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use aquifer::protocol::id::{LedgerId, NodeId};
use aquifer::protocol::message::Message;
use aquifer::protocol::node::{Forgotten, Policy, Trust, VouchError, Vouching};
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

fn bases(cluster: &Cluster, nodes: usize) -> Vec<f64> {
    assert_eq!(cluster.node(0).bases().values().copied().sum::<Share>(), ONE);
    (0..nodes).map(|node| base(cluster, node)).collect()
}

#[test]
fn base_shares_drift_to_the_weights_of_those_who_were_vouched_for_by_hand() {
    let mut cluster = formed(setup(5, 1), Vouching::default());
    // By whom is the same to all.
    cluster.vouch(3, 1, Some(3_000)).unwrap();
    cluster.run_for(20 * SEC);
    let had = bases(&cluster, 5);
    for (node, part) in [1.0, 3.0, 1.0, 1.0, 1.0].into_iter().enumerate() {
        let fair = part / 7.0;
        // Whoever lacks less than a sixteenth of its part is given nothing, and the greatest part is three sevenths.
        assert!((had[node] - fair).abs() <= 3.0 / 7.0 / 16.0, "{node}: {had:?}");
    }
    // Whoever wrote it may write another; and what is wanted back weighs nothing.
    cluster.vouch(3, 1, Some(500)).unwrap();
    cluster.run_for(20 * SEC);
    let had = bases(&cluster, 5);
    assert!((had[1] - 0.5 / 4.5).abs() < 0.02, "{had:?}");
    cluster.forget(3, 1).unwrap();
    cluster.run_for(20 * SEC);
    assert!(cluster.node(0).ledger().weights(None).is_empty());
    // A node that comes back knows the weights from its disk.
    cluster.vouch(4, 2, Some(2_000)).unwrap();
    cluster.crash(0);
    cluster.start(0);
    cluster.run_for(20 * SEC);
    assert_eq!(cluster.node(0).ledger().weights(None), [(node_id(2), 2_000)].into());
    assert!(base(&cluster, 2) > 1.6 * base(&cluster, 4), "{:?}", bases(&cluster, 5));
}

#[test]
fn a_chain_of_vouchers_gives_no_more_than_its_first_had() {
    let mut cluster = Cluster::unborn(setup(4, 2));
    cluster.vouching = Vouching { auto_vouch: ONE.scale(1, 4), ..Vouching::default() };
    cluster.found(0);
    (1..4).for_each(|node| cluster.start(node));
    cluster.run_for(10 * SEC);
    let before = bases(&cluster, 4);
    // Whatever it writes, and in a circle, it is its own that it gives.
    cluster.vouch(1, 2, Some(100_000)).unwrap();
    cluster.run_for(5 * SEC);
    cluster.vouch(2, 3, Some(100_000)).unwrap();
    cluster.run_for(5 * SEC);
    let _ = cluster.vouch(3, 1, Some(100_000));
    cluster.run_for(10 * SEC);
    let after = bases(&cluster, 4);
    assert!(after[0] >= before[0] - 0.01, "{before:?} {after:?}");
    let of_chain = |bases: &[f64]| bases[1..].iter().sum::<f64>();
    assert!(of_chain(&after) <= of_chain(&before) + 0.01, "{before:?} {after:?}");
}

#[test]
fn whoever_cannot_vouch_is_told_why_and_nothing_changes() {
    let mut cluster = formed(setup(3, 3), Vouching::default());
    let ledger = cluster.node(0).ledger().clone();
    assert_eq!(cluster.vouch(0, 0, None), Err(VouchError::Own));
    assert_eq!(cluster.vouch(0, 1, Some(9)), Err(VouchError::Weight(9)));
    assert_eq!(cluster.vouch(0, 1, Some(100_001)), Err(VouchError::Weight(100_001)));
    assert_eq!(*cluster.node(0).ledger(), ledger);
    cluster.crash(1);
    cluster.run_for(10 * SEC);
    assert_eq!(cluster.vouch(0, 1, None), Err(VouchError::NotThere));
    // All that it has is on loan.
    for _ in 0..50 {
        cluster.ask(2, 100, Duration::from_secs(5));
    }
    cluster.run_for(3 * SEC);
    assert!(cluster.held(0) < 0.01, "{}", cluster.held(0));
    assert_eq!(cluster.vouch(0, 2, None), Err(VouchError::NothingFree));
}

#[test]
fn a_lower_ledger_is_joined_among_members_and_not_on_a_strangers_word() {
    for (trust, is_left) in [(Trust::Members, true), (Trust::Weight, false)] {
        let mut cluster = formed(setup(4, 4), Vouching { trust, ..Vouching::default() });
        let had = bases(&cluster, 4);
        let usurp = |message: &mut Message| message.ledger = Some(LedgerId(NodeId([0; 32])));
        cluster.liars = [(2, usurp as fn(&mut Message))].into();
        cluster.promise_nothing();
        cluster.run_for(5 * SEC);
        let left = cluster.node(0).bases().is_empty();
        assert_eq!(left, is_left, "{trust:?}: {had:?} {:?}", cluster.node(0).bases());
        if !is_left {
            assert_eq!(bases(&cluster, 4), had);
        }
    }
}
