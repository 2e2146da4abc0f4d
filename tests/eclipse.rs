//! Hundreds of identities of one attacker, all of whom hold the swarm's key, against the links of one honest node.
#![cfg(feature = "daemon")]

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/process.rs"]
mod process;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aquifer::daemon::token::Token;
use aquifer::protocol::gossip::Record;
use aquifer::protocol::id::NodeId;
use aquifer::protocol::limit::Rate;
use aquifer::protocol::message::Message;
use aquifer::protocol::record::{Key, Value};
use hostile::{Hostile, PATIENCE, endless};
use process::{Daemon, Load, Setup, admissions, checked, monotonic, wait_until, wait_until_whole};

/// The links that a node has at most.
const LINKS_MAX: usize = 256;
/// Several times as many identities as one node has places for links.
const SYBILS: usize = 1000;

/// Identities that take every link they get, and come back whenever they lose one.
struct Sybils {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sybils {
    /// Each dials the nodes in the token. Those that `join` ask to be vouched for, and then for all that there is.
    fn start(token: &Token, join: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (until, token) = (Arc::clone(&stop), token.clone());
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let tasks = tokio::task::LocalSet::new();
            for _ in 0..SYBILS {
                tasks.spawn_local(harass(token.clone(), join, Arc::clone(&until)));
            }
            runtime.block_on(tasks);
        };
        Self { stop, thread: Some(thread::spawn(run)) }
    }
}

async fn harass(token: Token, join: bool, until: Arc<AtomicBool>) {
    let mut sybil = Hostile::start(&token).await;
    let mut limit = None;
    while !until.load(Ordering::Relaxed) {
        let row = |(_, record): &(NodeId, Record)| matches!(record.key, Key::Row(_)).then_some(record.key);
        limit = limit.or_else(|| sybil.records.iter().find_map(row));
        sybil.records.clear();
        for link in sybil.transport.links() {
            let all = limit.filter(|_| join).map(|key| (key, Value::Row(endless())));
            let message = Message { join, ..sybil.message(link.peer, all.into_iter().collect()) };
            sybil.send(link.peer, &message);
        }
        sybil.listen(Duration::from_secs(1)).await;
    }
}

impl Drop for Sybils {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended || thread::panicking(), "a Sybil has failed");
    }
}

const RATE: u64 = 200;

fn swarm(dir: &Path) -> Vec<Daemon> {
    let mut nodes: Vec<Daemon> = Vec::new();
    for place in 0..3 {
        let setup = Setup::new(dir, &format!("n{place}"), &[&format!("api:rps={RATE},burst=100")]);
        let setup = setup.environment("AQUIFER_POLICY", "strict").config("");
        let setup = nodes.first().map_or(setup.clone(), |first| setup.join(&first.token()));
        nodes.push(setup.start());
    }
    wait_until_whole(&nodes);
    nodes
}

fn is_linked(node: &Daemon, name: &str) -> bool {
    node.peers().peers.iter().any(|peer| peer.name == name && peer.state == "connected")
}

fn wait_until_full(node: &Daemon) {
    let since = Instant::now();
    while node.status().peers_connected < LINKS_MAX {
        assert!(since.elapsed() < PATIENCE, "only {} links were taken", node.status().peers_connected);
        thread::sleep(Duration::from_millis(100));
    }
    println!("all links of {} were taken after {:?}", node.name(), since.elapsed());
}

#[test]
fn strangers_that_take_every_link_of_a_node_keep_neither_members_nor_newcomers_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = swarm(dir.path());
    for node in &mut nodes[..2] {
        node.kill();
    }
    let token = nodes[2].token();
    let _sybils = Sybils::start(&token.parse().unwrap(), false);
    wait_until_full(&nodes[2]);
    for node in &mut nodes[..2] {
        *node = node.setup.start();
    }
    let since = Instant::now();
    wait_until("members are linked", || nodes[..2].iter().all(|node| is_linked(&nodes[2], node.name())));
    println!("both members were linked after {:?}", since.elapsed());

    let newcomer = Setup::new(dir.path(), "new", &[&format!("api:rps={RATE},burst=100")]);
    let newcomer = newcomer.environment("AQUIFER_POLICY", "strict").join(&token).start();
    let since = Instant::now();
    // It comes when a place is free, as each of a thousand does.
    while newcomer.status().node.base_share <= 0.0 {
        assert!(since.elapsed() < 2 * PATIENCE, "nobody has vouched for the newcomer");
        thread::sleep(Duration::from_millis(20));
    }
    println!("somebody vouched for the newcomer after {:?}", since.elapsed());
    nodes.push(newcomer);
    share(&nodes);
}

/// The nodes ask for more than there is: nothing is exceeded, and each has at least most of its base share. Not at
/// once: what an idle node has lent comes back within two seconds.
fn share(nodes: &[Daemon]) {
    let base = |node: &Daemon| node.status().node.base_share;
    let before: Vec<f64> = nodes.iter().map(base).collect();
    let sockets = nodes.iter().map(Daemon::socket).collect();
    let load = Load::start(sockets, "api", 20, |_, _| true).run(Duration::from_secs(3));
    let from = monotonic();
    let tally = load.run(Duration::from_secs(5)).finish();
    let to = tally.time.1;
    let rate = Rate::new(RATE, Duration::from_secs(1), 100).unwrap();
    let setups: Vec<&Setup> = nodes.iter().map(|node| &node.setup).collect();
    checked(&setups, "rps", &rate, tally.time);
    for (node, before) in nodes.iter().zip(before) {
        let during = admissions([&node.setup]).into_iter().filter(|one| (from..to).contains(&one.nanos));
        let admitted: u64 = during.map(|one| one.units).sum();
        let floor = before.min(base(node)) * RATE as f64 * (to - from) as f64 / 1e9;
        let kept = admitted as f64 / floor;
        println!("{} admitted {admitted}, {:.1} % of its floor", node.name(), 100.0 * kept);
        assert!(kept > 0.5, "{} has {kept:.2} of its floor", node.name());
    }
}

#[test]
fn identities_that_were_vouched_for_keep_no_member_from_its_floor() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = swarm(dir.path());
    // From here on who comes by the token shares a twenty-fifth of what each node was ever given.
    for node in &nodes {
        node.setup.clone().config("[swarm]\nauto_vouch = 0.04\ntrust = \"weight\"\n");
        let (status, _, error) = node.cli(&["reload"]);
        assert_eq!(status, 0, "{error}");
    }
    let mut token: Token = nodes[0].token().parse().unwrap();
    for node in &nodes[1..] {
        token.addresses.extend(node.token().parse::<Token>().unwrap().addresses);
    }
    let _sybils = Sybils::start(&token, true);
    wait_until("many were vouched for", || nodes[0].status().members > 250);
    println!("{} members", nodes[0].status().members);
    share(&nodes);
    // Among so many members not everybody has links to everybody.
    nodes[1].kill();
    nodes[1] = nodes[1].setup.start();
    let since = Instant::now();
    wait_until("those who have much are linked", || {
        [0, 2].iter().all(|place| is_linked(&nodes[1], nodes[*place].name()))
    });
    println!("both were linked again after {:?}", since.elapsed());
    share(&nodes);
}
