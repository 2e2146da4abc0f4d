//! A swarm of as many real processes as one machine bears, measured. It takes minutes, so it runs when it is asked for:
//!
//! `AQUIFER_NODES=100 cargo test --release --test large -- --ignored --nocapture`
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use aquifer::protocol::limit::Rate;
use process::{Daemon, Load, Setup, checked};

const RATE: u64 = 1_000;
const BURST: u64 = 1_000;
/// On each node, and each asks again as soon as it is answered.
const CALLERS: usize = 10;
/// A full mesh of many takes long on few cores.
const FORMS_WITHIN: Duration = Duration::from_secs(600);

#[test]
#[ignore = "takes minutes, and measures the machine as much as the program"]
fn many_real_nodes_never_exceed_the_limit_and_use_it() {
    let count: usize = std::env::var("AQUIFER_NODES").map_or(100, |count| count.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let pool = format!("api:rps={RATE},burst={BURST}");
    let start = Instant::now();
    let mut nodes: Vec<Daemon> = Vec::new();
    for place in 0..count {
        let setup = Setup::new(dir.path(), &format!("n{place}"), &[&pool]);
        let setup = setup.environment("AQUIFER_POLICY", "strict").environment("AQUIFER_LOG", "warn");
        let setup = nodes.first().map_or(setup.clone(), |first| setup.join(&first.token()));
        nodes.push(setup.start());
    }
    println!("{count} nodes answer after {:.1?}", start.elapsed());
    while !nodes.iter().all(|node| node.status().peers_connected == count - 1) {
        assert!(start.elapsed() < FORMS_WITHIN, "the mesh is not whole");
        thread::sleep(Duration::from_millis(500));
    }
    println!("all are linked to all after {:.1?}", start.elapsed());
    while !nodes.iter().all(|node| (node.status().node.base_share * count as f64 - 1.0).abs() < 0.3) {
        assert!(start.elapsed() < FORMS_WITHIN, "base shares do not even out");
        thread::sleep(Duration::from_millis(500));
    }
    println!("base shares are within 30 % of even ones after {:.1?}", start.elapsed());

    thread::sleep(Duration::from_secs(60));
    let before = costs(&nodes);
    thread::sleep(Duration::from_secs(60));
    report("idle", &before, &costs(&nodes));

    let setups: Vec<&Setup> = nodes.iter().map(|node| &node.setup).collect();
    let rate = Rate::new(RATE, Duration::from_secs(1), BURST).unwrap();
    let loads: [(&str, Busy); 3] = [
        ("everybody wants more than its part", |_, _| true),
        ("a tenth of the nodes, others every 5 s", |node, second| node as u64 % 10 == second / 5 % 10),
        ("one node, another one every 5 s", |node, second| node as u64 == second / 5),
    ];
    for (what, busy) in loads {
        let before = costs(&nodes);
        let sockets: Vec<PathBuf> = nodes.iter().map(Daemon::socket).collect();
        let load = Load::start(sockets, "api", CALLERS, move |node, time| busy(node, time.as_secs()));
        let tally = load.run(Duration::from_secs(20)).finish();
        let used = checked(&setups, "rps", &rate, tally.time);
        let admitted = tally.admitted.iter().copied().filter(|admitted| *admitted > 0);
        let (least, most) = (admitted.clone().min().unwrap_or(0), admitted.max().unwrap_or(0));
        println!("{what}: {:.1} % used, {least} to {most} admitted on a node that asked", 100.0 * used);
        report(what, &before, &costs(&nodes));
        assert!(used > 0.3, "{what}: {used:.3} of the limit was used");
    }
}

/// Whether a node asks in a second of the load.
type Busy = fn(usize, u64) -> bool;

/// Of one node: when, processor time in seconds, bytes of frames to and from peers, kibibytes of memory.
type Cost = (Instant, f64, u64, u64);

fn costs(nodes: &[Daemon]) -> Vec<Cost> {
    let cost = |node: &Daemon| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
        // After the name, which is in brackets: the 12th and 13th are ticks, of which there are a hundred a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        let metrics = node.http().get("/metrics").body;
        let bytes = metrics.lines().filter(|line| line.starts_with("aquifer_gossip_bytes_total"));
        let bytes = bytes.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum();
        (Instant::now(), ticks as f64 / 100.0, bytes, node.resident_kib())
    };
    nodes.iter().map(cost).collect()
}

fn report(what: &str, before: &[Cost], after: &[Cost]) {
    let each = || before.iter().zip(after);
    let seconds: f64 = each().map(|(before, after)| (after.0 - before.0).as_secs_f64()).sum();
    let processor: f64 = each().map(|(before, after)| after.1 - before.1).sum();
    let bytes: u64 = each().map(|(before, after)| after.2 - before.2).sum();
    let resident = after.iter().map(|cost| cost.3).max().unwrap_or(0);
    println!(
        "{what}: a node takes {:.2} ms of processor time and {:.0} bytes to and from peers a second, \
         {:.1} MB at most",
        1e3 * processor / seconds,
        bytes as f64 / seconds,
        resident as f64 / 1024.0
    );
}
