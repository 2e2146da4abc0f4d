//! What happens to the hosts.
//!
//! Five nodes, of which the first and the last are asked for more than there is and the others for nothing: each busy node
//! needs half of the limit and owns a fifth, so that leases run over every link that a fault cuts.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aquifer::protocol::limit::Rate;
use rustix::process::Signal;

use crate::network::Network;
use crate::process::{Daemon, Load, Setup, monotonic, wait_until_whole};
use crate::report::{AFTERWARDS, Run, Times, judge, until_linked};

const HOSTS: usize = 5;
/// Those that are asked: first the one that the faults hit, or whose side of a partition is the smaller one.
const BUSY: [usize; 2] = [0, 4];
/// The host that the faults of one host hit. It founded the swarm, and is everybody's seed.
const HIT: usize = BUSY[0];
/// The others.
const REST: [usize; 4] = [1, 2, 3, 4];
/// The smaller side of a partition.
const SIDE: [usize; 2] = [0, 1];
const LIMIT: &str = "l";
/// Callers on each busy node.
const CALLERS: usize = 30;
/// How long the swarm is watched before anything happens.
const BEFORE: Duration = Duration::from_secs(4);
/// Half a period of flapping at 1 Hz.
const FLAP: Duration = Duration::from_millis(500);

/// One kind of fault.
pub struct Scenario {
    pub name: &'static str,
    /// In a few words.
    pub what: &'static str,
    /// How long the fault lasts unless another length is asked for.
    fault: Duration,
    act: Act,
}

/// Breaks something, lets it last, and heals it.
type Act = fn(&mut Network, &[Daemon], Duration);

/// All that there are.
#[rustfmt::skip]
pub const SCENARIOS: [Scenario; 13] = [
    scenario("cable", "the cable of one host is pulled", 15, pull_the_cable),
    scenario("interface", "the interface of one host goes down: it gets errors at once", 15, take_it_down),
    scenario("silent", "packets from and to one host get lost", 15, lose_all),
    scenario("silent-long", "the same, for a minute", 60, lose_all),
    scenario("one-way", "one host hears all others and is heard by none", 15, lose_one_way),
    scenario("pair", "the two busy hosts lose each other, and nobody else", 15, lose_a_pair),
    scenario("partition", "two hosts part from three", 15, part),
    scenario("partition-long", "the same, for a minute", 60, part),
    scenario("flap", "the cable of one host is out for half of every second", 15, flap),
    scenario("move", "one host, all others' seed, loses its address and gets another one", 5, change_address),
    scenario("move-bound", "the same, and its node listens on the old address alone", 5, change_address),
    scenario("renumber", "one host gets another address, and loses the first a while later", 5, renumber),
    scenario("stop", "one process stands still", 10, stand_still),
];

const fn scenario(name: &'static str, what: &'static str, seconds: u64, act: Act) -> Scenario {
    Scenario { name, what, fault: Duration::from_secs(seconds), act }
}

fn pull_the_cable(network: &mut Network, _: &[Daemon], time: Duration) {
    network.unplug(HIT);
    thread::sleep(time);
    network.plug(HIT);
}

fn take_it_down(network: &mut Network, _: &[Daemon], time: Duration) {
    network.disable(HIT);
    thread::sleep(time);
    network.enable(HIT);
}

fn lose_all(network: &mut Network, _: &[Daemon], time: Duration) {
    REST.iter().for_each(|other| network.lose(HIT, *other));
    REST.iter().for_each(|other| network.lose(*other, HIT));
    thread::sleep(time);
    REST.iter().for_each(|other| network.carry(HIT, *other));
    REST.iter().for_each(|other| network.carry(*other, HIT));
}

fn lose_one_way(network: &mut Network, _: &[Daemon], time: Duration) {
    REST.iter().for_each(|other| network.lose(HIT, *other));
    thread::sleep(time);
    REST.iter().for_each(|other| network.carry(HIT, *other));
}

fn lose_a_pair(network: &mut Network, _: &[Daemon], time: Duration) {
    let [one, other] = BUSY;
    network.lose(one, other);
    network.lose(other, one);
    thread::sleep(time);
    network.carry(one, other);
    network.carry(other, one);
}

fn part(network: &mut Network, _: &[Daemon], time: Duration) {
    network.split(&SIDE);
    thread::sleep(time);
    network.join(&SIDE);
}

fn flap(network: &mut Network, _: &[Daemon], time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        network.unplug(HIT);
        thread::sleep(FLAP);
        network.plug(HIT);
        thread::sleep(FLAP);
    }
}

/// Where the host that is hit moves to.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

fn change_address(network: &mut Network, _: &[Daemon], time: Duration) {
    network.strip(HIT, network.address(HIT));
    thread::sleep(time);
    network.readdress(HIT, ELSEWHERE);
}

fn renumber(network: &mut Network, _: &[Daemon], time: Duration) {
    let before = network.address(HIT);
    network.readdress(HIT, ELSEWHERE);
    thread::sleep(time);
    network.strip(HIT, before);
}

fn stand_still(_: &mut Network, nodes: &[Daemon], time: Duration) {
    nodes[HIT].signal(Signal::STOP);
    thread::sleep(time);
    nodes[HIT].signal(Signal::CONT);
}

impl Scenario {
    /// Runs it once, on hosts and with nodes of its own. Says what it does.
    pub fn run(&self, fault: Option<Duration>) -> Run {
        let time = fault.unwrap_or(self.fault);
        println!("{}: {}, for {time:?}", self.name, self.what);
        let rate = Rate::new(400, Duration::from_secs(1), 40).unwrap();
        let mut network = Network::new(HOSTS as u8).unwrap();
        let dir = tempfile::tempdir_in("/run").unwrap();
        let mut nodes: Vec<Daemon> = Vec::new();
        for host in 0..HOSTS {
            let pool = format!("{LIMIT}:{LIMIT}={}/1s,burst={}", rate.amount(), rate.burst());
            let any = host == HIT && ["move", "renumber"].contains(&self.name);
            let address = if any { Ipv4Addr::UNSPECIFIED } else { network.address(host) };
            let setup = Setup::new(dir.path(), &format!("n{host}"), &[&pool])
                .arguments(&["--policy", "strict"])
                .environment("AQUIFER_GOSSIP", &format!("/ip4/{address}/tcp/4160"))
                .namespace(&network.namespace(host));
            let setup = match nodes.first() {
                Some(founder) => setup.join(&founder.token()),
                None => setup,
            };
            nodes.push(setup.start());
        }
        wait_until_whole(&nodes);
        let sockets = nodes.iter().map(Daemon::socket).collect();
        let load = Load::start(sockets, LIMIT, CALLERS, |node, _| BUSY.contains(&node));
        thread::sleep(Duration::from_secs(1));
        let watched = monotonic();
        thread::sleep(BEFORE);
        let broken = monotonic();
        let (mut healed, mut start, mut linked) = (broken, Instant::now(), None);
        let missing = links_missed(&nodes, || {
            (self.act)(&mut network, &nodes, time);
            (healed, start) = (monotonic(), Instant::now());
            linked = until_linked(&nodes, start);
        });
        thread::sleep(AFTERWARDS.saturating_sub(start.elapsed()));
        load.finish();
        for (host, node) in nodes.iter().enumerate().filter(|_| self.name != "move-bound") {
            let (says, is) = (node.status().node.addresses, format!("/ip4/{}/", network.address(host)));
            assert!(says.iter().all(|address| address.starts_with(&is)), "{}: {says:?}", node.name());
        }
        let times = Times { watched, broken, healed };
        let (never_over, share, used) = judge(&nodes, &BUSY, LIMIT, &rate, &times);
        Run { never_over, missing, linked, share, used }
    }
}

/// The most links of the others, to one another and to the host that is hit, that were missing at once while `act` ran.
fn links_missed(nodes: &[Daemon], act: impl FnOnce()) -> usize {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut least = usize::MAX;
            while !over.load(Ordering::Relaxed) {
                let links = REST.iter().map(|place| nodes[*place].status().peers_connected).sum();
                least = least.min(links);
                thread::sleep(Duration::from_millis(100));
            }
            (REST.len() * (HOSTS - 1)).saturating_sub(least)
        });
        act();
        over.store(true, Ordering::Relaxed);
        watch.join().expect("a node that does not answer")
    })
}
