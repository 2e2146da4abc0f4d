//! Swarms of real processes on loopback: that they never exceed the limit, whatever happens to them, and how they form.
//!
//! T1 is checked exactly, over the merged admission logs of all nodes in all their lives. Utilisation is printed, and
//! asserted only so loosely that a busy machine does not fail it.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use aquifer::daemon::api::{Limits, Peers, Reason, Status};
use aquifer::protocol::limit::Rate;
use process::{
    Admission, Daemon, Load, Setup, Tally, admissions, aquifer, checked, never_over, wait_until,
    wait_until_whole,
};
use rustix::process::Signal;
use tempfile::TempDir;

/// One swarm at a time: two of them would fight for the processor.
static TURN: Mutex<()> = Mutex::new(());

struct Swarm {
    nodes: Vec<Daemon>,
    dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

fn rate(amount: u64, burst: u64) -> Rate {
    Rate::new(amount, Duration::from_secs(1), burst).unwrap()
}

/// A pool and its limit of the same name, so that logs tell them apart.
fn pool(name: &str, rate: &Rate) -> String {
    format!("{name}:{name}={}/{}ms,burst={}", rate.amount(), rate.per().as_millis(), rate.burst())
}

impl Swarm {
    /// The first founds, the others join it, and all have linked to all.
    fn new(count: usize, pools: &[&str], arguments: &[&str]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut swarm = Self { nodes: Vec::new(), dir: tempfile::tempdir().unwrap(), _turn: turn };
        for place in 0..count {
            swarm.join(&format!("n{place}"), pools, arguments);
        }
        swarm.is_whole();
        swarm
    }

    /// Another node, which may still be on its way in.
    fn join(&mut self, name: &str, pools: &[&str], arguments: &[&str]) {
        let setup = Setup::new(self.dir.path(), name, pools).arguments(arguments);
        let setup = match self.nodes.first() {
            Some(founder) => setup.join(&founder.token()),
            None => setup,
        };
        self.nodes.push(setup.start());
    }

    fn is_whole(&self) {
        wait_until_whole(&self.nodes);
    }

    fn setups(&self) -> Vec<&Setup> {
        self.nodes.iter().map(|node| &node.setup).collect()
    }

    fn sockets(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(Daemon::socket).collect()
    }

    fn load(
        &self,
        pool: &str,
        callers: usize,
        busy: impl Fn(usize, Duration) -> bool + Send + 'static,
    ) -> Load {
        Load::start(self.sockets(), pool, callers, busy)
    }

    /// Checks T1 for the whole life of the swarm, and that every admission was somebody's; prints how much was used.
    fn check(&self, what: &str, limit: &str, rate: &Rate, tally: &Tally) -> f64 {
        let used = checked(&self.setups(), limit, rate, tally.time);
        println!("{what}: utilisation {used:.3}, {tally:?}");
        used
    }

    fn logged(&self, limit: &str) -> Vec<Admission> {
        admissions(self.setups()).into_iter().filter(|line| line.limit == limit).collect()
    }
}

fn is_one(sum: f64) -> bool {
    (sum - 1.0).abs() < 1e-6
}

fn sum_of_bases(nodes: &[Daemon]) -> f64 {
    nodes.iter().map(|node| node.status().node.base_share).sum()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_saturated_swarm_of_five_never_exceeds_any_limit() {
    let limits = [("a", rate(5, 1)), ("b", rate(20, 3)), ("c", rate(500, 50)), ("d", rate(3_000, 100))];
    let pools: Vec<String> = limits.iter().map(|(name, rate)| pool(name, rate)).collect();
    let pools: Vec<&str> = pools.iter().map(String::as_str).collect();
    let swarm = Swarm::new(5, &pools, &["--policy", "strict"]);
    let greedy = |node: usize, _| node == 2;
    let rotating = |node: usize, time: Duration| time.as_millis() as usize / 700 % 5 == node;
    // The small ones need time, the large ones the processor.
    let loads = [swarm.load("a", 4, |_, _| true), swarm.load("b", 4, rotating)];
    thread::sleep(Duration::from_secs(7));
    let mut tallies: Vec<_> = loads.map(|load| ("small", load.finish())).into();
    let time = Duration::from_secs(4);
    tallies.push(("everybody", swarm.load("c", 20, |_, _| true).run(time).finish()));
    tallies.push(("everybody", swarm.load("d", 40, |_, _| true).run(time).finish()));
    for ((name, rate), (what, tally)) in limits.iter().zip(&tallies) {
        let used = swarm.check(&format!("5 nodes, {what}, {rate:?}"), name, rate, tally);
        assert!(used >= if *name == "d" { 0.25 } else { 0.5 }, "{name}: {used}");
        // Every admission has reached exactly one caller.
        assert_eq!(swarm.logged(name).len() as u64, tally.admitted.iter().sum::<u64>(), "{name}: {tally:?}");
        assert_eq!(tally.failed, 0);
    }
    let uneven = [
        ("one greedy", swarm.load("c", 60, greedy).run(time).finish()),
        ("rotating", swarm.load("c", 60, rotating).run(time).finish()),
    ];
    for (what, tally) in uneven {
        let used = swarm.check(&format!("5 nodes, {what}, {:?}", limits[2].1), "c", &limits[2].1, &tally);
        assert!(used >= 0.5, "{what}: {used}");
    }
    let all = swarm.nodes[0].status().pools[2].limits[0].clone();
    let logged = swarm.logged("c").len() as u64;
    wait_until("everybody knows what was admitted", || {
        swarm.nodes.iter().all(|node| node.status().pools[2].limits[0].admitted_by_all == logged)
    });
    assert!(all.admitted <= logged);
}

#[test]
fn twelve_nodes_form_a_full_mesh_from_one_seed_and_share_a_limit() {
    let limit = rate(100, 20);
    let swarm = Swarm::new(12, &[&pool("l", &limit)], &[]);
    for node in &swarm.nodes {
        let Peers { peers, .. } = node.peers();
        assert_eq!(peers.len(), 11);
        for peer in peers {
            assert_eq!(peer.state, "connected", "{peer:?}");
            assert!((peer.base_share * 12.0 - 1.0).abs() < 0.2 && peer.address.is_some(), "{peer:?}");
        }
        assert_eq!(node.status().members, 12);
    }
    let rotating = |node: usize, time: Duration| time.as_millis() as usize / 500 % 4 == node % 4;
    let tally = swarm.load("l", 6, rotating).run(Duration::from_secs(6)).finish();
    let used = swarm.check("12 nodes, rotating", "l", &limit, &tally);
    assert!(used >= 0.5, "{used}");
    assert_eq!(swarm.logged("l").len() as u64, tally.admitted.iter().sum::<u64>());
    let Limits { limits, .. } = swarm.nodes[3].limits();
    assert_eq!(limits[0].held_by.len(), 12);
    assert!(limits[0].held_by.contains_key("n3"), "{limits:?}");

    let json = |command: &str| {
        let (status, out, error) = swarm.nodes[5].cli(&[command, "--json"]);
        assert_eq!((status, error.as_str()), (0, ""), "{command}");
        out
    };
    assert_eq!(serde_json::from_str::<Peers>(&json("peers")).unwrap().peers.len(), 11);
    assert_eq!(serde_json::from_str::<Limits>(&json("limits")).unwrap().limits[0].fingerprint.len(), 16);
    assert_eq!(serde_json::from_str::<Status>(&json("status")).unwrap().peers_connected, 11);
    let (_, table, _) = swarm.nodes[5].cli(&["peers"]);
    assert_eq!(table.matches("connected").count(), 11, "{table}");
}

#[test]
fn joins_crashes_pauses_and_leaves_under_load_never_exceed_the_limit() {
    let limit = rate(200, 20);
    let pools = [&pool("l", &limit) as &str];
    let strict = ["--policy", "strict"];
    let mut swarm = Swarm::new(3, &pools, &strict);
    let sockets = (0..5).map(|place| swarm.dir.path().join(format!("n{place}.sock")));
    // Callers of nodes that are not there (yet) try again and again.
    let load = Load::start(sockets.collect(), "l", 15, |_, _| true).run(Duration::from_secs(1));
    swarm.join("n3", &pools, &strict);
    swarm.join("n4", &pools, &strict);
    swarm.is_whole();

    let victim = &mut swarm.nodes[2];
    victim.kill();
    thread::sleep(Duration::from_millis(1_500));
    let setup = victim.setup.clone();
    swarm.nodes[2] = setup.join(&swarm.nodes[1].token()).start();
    wait_until("it is back", || swarm.nodes[2].status().node.state == "ready");

    swarm.nodes[1].signal(Signal::STOP);
    thread::sleep(Duration::from_secs(3));
    swarm.nodes[1].signal(Signal::CONT);
    swarm.is_whole();

    // The founder leaves, and comes back as any other.
    assert_eq!(swarm.nodes[0].stop(), 0);
    wait_until("its base went to the others", || is_one(sum_of_bases(&swarm.nodes[1..])));
    let peers = swarm.nodes[4].peers().peers;
    let left = peers.iter().find(|peer| peer.name == "n0").unwrap();
    assert_eq!((left.state.as_str(), left.base_share), ("left", 0.0));
    assert_eq!(swarm.nodes[4].status().members, 4);
    let setup = swarm.nodes[0].setup.clone();
    swarm.nodes[0] = setup.join(&swarm.nodes[1].token()).start();
    swarm.is_whole();
    let tally = load.run(Duration::from_secs(1)).finish();
    let used = swarm.check("5 nodes with faults", "l", &limit, &tally);
    assert!(used >= 0.5, "{used}");
    assert!(tally.admitted.iter().all(|admitted| *admitted > 0), "{tally:?}");
    for node in &swarm.nodes {
        assert_eq!(node.status().warnings, [] as [String; 0]);
    }
}

/// A borrower that stands still for less than its lease lasts goes on with what it borrowed, and serves at once all who
/// wait. Whoever lent it must have waited, although others began to ask meanwhile.
#[test]
fn pauses_shorter_than_a_lease_never_exceed_the_limit() {
    let limit = rate(200, 60);
    let swarm = Swarm::new(5, &[&pool("l", &limit)], &["--policy", "strict"]);
    // The one that asks; or, from 5 on, the one that does not.
    let turn = Arc::new(AtomicUsize::new(0));
    let turns = turn.clone();
    let load = swarm.load("l", 60, move |node, _| {
        let turn = turns.load(Ordering::Relaxed);
        node == turn || (turn >= 5 && node != turn - 5)
    });
    for place in [1, 2, 3, 0] {
        turn.store(place, Ordering::Relaxed);
        let node = &swarm.nodes[place];
        wait_until("it has borrowed", || node.status().pools[0].limits[0].borrowed_share > 0.7);
        node.signal(Signal::STOP);
        turn.store(5 + place, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(800));
        node.signal(Signal::CONT);
        thread::sleep(Duration::from_millis(200));
    }
    let tally = load.finish();
    swarm.check("5 nodes with short pauses", "l", &limit, &tally);
    assert!(tally.failed == 0 && tally.admitted.iter().all(|admitted| *admitted > 0));
}

#[test]
fn a_founder_that_is_killed_is_found_again_without_a_seed() {
    let limit = rate(50, 10);
    // The others know where it was, so it has to listen there again.
    let gossip = format!("/ip4/127.0.0.1/tcp/{}", free_port());
    let mut swarm = Swarm::new(1, &[&pool("l", &limit)], &["--gossip", &gossip]);
    swarm.join("n1", &[&pool("l", &limit)], &[]);
    swarm.is_whole();
    let load = swarm.load("l", 10, |_, _| true).run(Duration::from_secs(1));
    swarm.nodes[0].kill();
    swarm.nodes[0] = swarm.nodes[0].setup.clone().start();
    swarm.is_whole();
    let tally = load.run(Duration::from_secs(1)).finish();
    swarm.check("2 nodes, founder killed", "l", &limit, &tally);
}

#[test]
fn strict_keeps_the_share_of_a_killed_node_reserved() {
    let limit = rate(60, 6);
    let mut swarm = Swarm::new(3, &[&pool("l", &limit)], &["--policy", "strict"]);
    let bases: Vec<f64> = swarm.nodes.iter().map(|node| node.status().node.base_share).collect();
    swarm.nodes[2].kill();
    let lost = |node: &Daemon| node.peers().peers.into_iter().find(|peer| peer.name == "n2").unwrap();
    wait_until("it is missed", || swarm.nodes[..2].iter().all(|node| lost(node).state == "lost"));
    let tally = swarm.load("l", 10, |_, _| true).run(Duration::from_secs(4)).finish();
    let used = swarm.check("3 nodes, one killed, strict", "l", &limit, &tally);
    assert!(used < 0.9, "{used}");
    for node in &swarm.nodes[..2] {
        let status = node.status();
        assert_eq!((status.guarantee.policy.as_str(), status.guarantee.worst_case_factor), ("strict", 1.0));
        let warning = status.warnings.iter().find(|warning| warning.contains("reserved until it returns"));
        assert!(warning.is_some_and(|warning| warning.starts_with("n2 is lost")), "{:?}", status.warnings);
        assert!((lost(node).base_share - bases[2]).abs() < 1e-9, "{:?}", lost(node));
        let answer = node.acquire(r#"{"pool":"l","wait_ms":20000}"#).acquired();
        assert_eq!((answer.guarantee.as_str(), answer.worst_case_factor), ("strict", 1.0));
    }
    assert!((sum_of_bases(&swarm.nodes[..2]) - bases[0] - bases[1]).abs() < 1e-9);
    let setup = swarm.nodes[2].setup.clone();
    swarm.nodes[2] = setup.join(&swarm.nodes[0].token()).start();
    swarm.is_whole();
    swarm.check("3 nodes, one came back, strict", "l", &limit, &tally);
}

#[test]
fn available_gives_the_share_of_a_killed_node_to_the_others() {
    let limit = rate(60, 6);
    let files = tempfile::tempdir().unwrap();
    let config = files.path().join("config.toml");
    fs::write(&config, "[swarm]\npolicy = \"available\"\nforget_after = \"3s\"\n").unwrap();
    let mut swarm = Swarm::new(3, &[&pool("l", &limit)], &["--config", config.to_str().unwrap()]);
    assert!(is_one(swarm.nodes[0].status().guarantee.worst_case_factor));
    let load = swarm.load("l", 10, |_, _| true);
    swarm.nodes[2].kill();
    wait_until("its share is reclaimed", || is_one(sum_of_bases(&swarm.nodes[..2])));
    for node in &swarm.nodes[..2] {
        wait_until("everybody knows that it is reclaimed", || {
            node.peers().peers.iter().any(|peer| peer.name == "n2" && peer.state == "reclaimed")
        });
        let guarantee = node.status().guarantee;
        assert!(guarantee.policy == "available" && guarantee.worst_case_factor > 1.0, "{guarantee:?}");
        let answer = node.acquire(r#"{"pool":"l","wait_ms":20000}"#).acquired();
        assert!(answer.guarantee == "available" && answer.worst_case_factor > 1.0, "{answer:?}");
    }
    let setup = swarm.nodes[2].setup.clone();
    swarm.nodes[2] = setup.join(&swarm.nodes[0].token()).start();
    swarm.is_whole();
    wait_until("the guarantee is whole again", || {
        swarm.nodes.iter().all(|node| is_one(node.status().guarantee.worst_case_factor))
    });
    assert!(swarm.nodes[2].acquire(r#"{"pool":"l","wait_ms":20000}"#).acquired().allowed);
    let tally = load.run(Duration::from_secs(1)).finish();
    // The promise of this policy: the factor of the two sides that there were. On loopback it is 1 all the same.
    never_over(&swarm.logged("l"), "l", &rate(120, 12)).unwrap();
    println!("available, within the limit itself: {:?}", never_over(&swarm.logged("l"), "l", &limit));
    println!("{tally:?}");
}

#[test]
fn a_node_that_cannot_give_its_share_back_still_ends() {
    let mut swarm = Swarm::new(2, &[&pool("l", &rate(50, 10))], &["--policy", "strict"]);
    swarm.nodes[0].signal(Signal::STOP);
    // A second signal does not wait for what the first began.
    swarm.nodes[1].signal(Signal::TERM);
    wait_until("it leaves", || swarm.nodes[1].setup.output().contains("leaving the swarm"));
    swarm.nodes[1].signal(Signal::TERM);
    assert_eq!(swarm.nodes[1].ended(), 0);
    swarm.nodes[0].signal(Signal::CONT);
    // Whatever of its parting words was heard: nothing is lost for ever.
    let setup = swarm.nodes[1].setup.clone();
    swarm.nodes[1] = setup.join(&swarm.nodes[0].token()).start();
    swarm.is_whole();
    swarm.nodes[0].signal(Signal::STOP);
    // One signal, and nobody to take what it gives.
    assert_eq!(swarm.nodes[1].stop(), 0);
    swarm.nodes[0].signal(Signal::CONT);
}

#[test]
fn strangers_and_garbage_change_nothing() {
    let limit = rate(1_000, 10);
    let swarm = Swarm::new(2, &[&pool("l", &limit)], &[]);
    let address = swarm.nodes[0].status().node.addresses[0].split("/p2p/").next().unwrap().to_owned();

    // A node of another swarm, with its key and our address.
    let elsewhere = tempfile::tempdir().unwrap();
    let key = elsewhere.path().join("other.key");
    fs::write(&key, format!("{}\n", "5a".repeat(32))).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let config = elsewhere.path().join("config.toml");
    fs::write(&config, format!("[swarm]\nkey_file = {key:?}\nseeds = [{address:?}]\n")).unwrap();
    let stranger = Setup::new(elsewhere.path(), "stranger", &[&pool("l", &limit)]);
    let stranger = stranger.arguments(&["--config", config.to_str().unwrap()]).start();
    let says = |node: &Daemon| node.setup.output().contains("most likely another swarm key");
    wait_until("both say what is wrong", || says(&stranger) && says(&swarm.nodes[0]));

    // Bytes from nobody: a request for a web page, noise, silence, and a flood.
    let target = address.strip_prefix("/ip4/").unwrap().replace("/tcp/", ":");
    let mut open = Vec::new();
    for round in 0_u8..40 {
        let Ok(mut stream) = TcpStream::connect(&target) else { continue };
        let noise: Vec<u8> = (0_u8..=255).map(|byte| byte.wrapping_mul(31) ^ round).collect();
        let _ = match round % 4 {
            0 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n"),
            1 => stream.write_all(&noise),
            2 => noise.chunks(16).try_for_each(|chunk| stream.write_all(chunk)),
            _ => Ok(()),
        };
        if round % 2 == 1 {
            open.push(stream);
        }
    }
    swarm.is_whole();
    let tally = swarm.load("l", 10, |_, _| true).run(Duration::from_secs(2)).finish();
    assert!(swarm.check("2 nodes and strangers", "l", &limit, &tally) > 0.3);
    for node in &swarm.nodes {
        let status = node.status();
        assert_eq!((status.members, status.peers_connected, status.warnings.len()), (2, 1, 0), "{status:?}");
    }
    // A third still gets in.
    let mut swarm = swarm;
    swarm.join("n2", &[&pool("l", &limit)], &[]);
    swarm.is_whole();
    drop(open);
    let status = stranger.status();
    assert_eq!((status.node.state.as_str(), status.peers_connected, status.members), ("joining", 0, 0));
    let refused = stranger.acquire(r#"{"pool":"l","wait_ms":0}"#).acquired();
    assert_eq!((refused.allowed, refused.reason), (false, Some(Reason::Limit)));
    assert!(admissions([&stranger.setup]).is_empty());
}

#[test]
fn what_cannot_be_saved_is_told_to_nobody() {
    let limit = rate(50, 10);
    let mut swarm = Swarm::new(1, &[&pool("l", &limit)], &["--policy", "strict"]);
    // The file that the next ledger is written to first cannot be opened.
    let file = swarm.nodes[0].setup.data_dir().join("ledger.state");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    swarm.join("n1", &[&pool("l", &limit)], &["--policy", "strict"]);
    wait_until("it says what is wrong", || {
        swarm.nodes[0].status().warnings.iter().any(|warning| warning.contains("cannot be saved"))
    });
    thread::sleep(Duration::from_secs(1));
    assert_eq!(swarm.nodes[1].status().node.state, "joining");
    // What it gave away and nobody heard of is its own again after a crash.
    let address = swarm.nodes[1].status().node.addresses[0].clone();
    swarm.nodes[0].kill();
    let setup = swarm.nodes[0].setup.clone().arguments(&["--seed", &address]);
    swarm.nodes[0] = setup.start();
    assert!(is_one(swarm.nodes[0].status().node.base_share));
    let cannot_save =
        |node: &Daemon| node.status().warnings.iter().any(|warning| warning.contains("cannot be saved"));
    wait_until("it tries to give", || cannot_save(&swarm.nodes[0]));
    fs::remove_dir(&file).unwrap();
    swarm.is_whole();
    wait_until("it is saved again", || !cannot_save(&swarm.nodes[0]));
}

#[test]
fn limits_that_differ_are_shown_and_not_shared() {
    let mut swarm = Swarm::new(1, &["l:l=40/1s,burst=8", "same:same=10/1s,burst=4"], &[]);
    swarm.join("n1", &["l:l=50/1s,burst=8", "same:same=10/1s,burst=4"], &[]);
    wait_until("both warn", || {
        swarm.nodes.iter().all(|node| {
            let warnings = node.status().warnings;
            warnings.len() == 1 && warnings[0].contains("defines l/l otherwise")
        })
    });
    swarm.is_whole();
    for (node, other) in [(0, "n1"), (1, "n0")] {
        assert!(swarm.nodes[node].status().warnings[0].starts_with(other));
        let Limits { limits, .. } = swarm.nodes[node].limits();
        assert_eq!(limits.iter().map(|limit| limit.held_by.len()).collect::<Vec<_>>(), [1, 2], "{limits:?}");
    }
    // Each stays within its own share of its own limit; together they are below both.
    let tally = swarm.load("l", 10, |_, _| true).run(Duration::from_secs(3)).finish();
    assert!(tally.admitted.iter().all(|admitted| *admitted > 0));
    never_over(&swarm.logged("l"), "l", &rate(50, 8)).unwrap();
    for (node, amount) in swarm.nodes.iter().zip([40, 50]) {
        let share = node.status().node.base_share;
        assert!((share - 0.5).abs() < 0.1, "{share}");
        never_over(&node.admissions(), "l", &rate(amount * 6 / 10, 5)).unwrap();
    }
}

/// The command that the token's listing prints is the command that joins.
#[test]
fn the_printed_command_joins() {
    let limit = "l:l=40/1s,burst=8";
    let swarm = Swarm::new(1, &[limit], &[]);
    let (_, line, _) = swarm.nodes[0].cli(&["token"]);
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..3], ["aquifer", "up", "--join"]);
    let dir = swarm.dir.path();
    let mut command = aquifer(&words[1..]);
    command.args(["--no-mdns", "--gossip", "/ip4/127.0.0.1/tcp/0", "--pool", limit]);
    command.arg("--data-dir").arg(dir.join("pasted")).arg("--socket").arg(dir.join("pasted.sock"));
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_until("it is a member", || swarm.nodes[0].status().members == 2);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let mut status: Option<ExitStatus> = None;
    wait_until("it has left", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    wait_until("its share is back", || is_one(sum_of_bases(&swarm.nodes)));
}
