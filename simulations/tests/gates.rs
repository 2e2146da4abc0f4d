//! Gates in a whole swarm: one probe at a time of a broken pool, and pauses that are everywhere within a second.
//!
//! A small cluster of cores: every message takes as long as every other, one in ten is lost, and clocks are right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aquifer::protocol::agents::Agents;
use aquifer::protocol::breaker::{BreakerConfig, BreakerState, CallOutcome};
use aquifer::protocol::id::{Incarnation, NodeId};
use aquifer::protocol::limit::{Cost, Limit, Pool, Rate};
use aquifer::protocol::message::Message;
use aquifer::protocol::node::{Acquired, Input, Node, NodeConfig, Outcome, Output, Policy, Start, Vouching};
use aquifer::protocol::time::Instant;
use aquifer::wire::signing::Ideal;

const NODES: usize = 5;
const HOP: Duration = Duration::from_millis(20);
const OPEN_FOR: Duration = Duration::from_secs(2);
/// How often somebody asks at each node.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long a probe takes to know how it ended.
const PROBE_TAKES: Duration = Duration::from_millis(300);

struct Cluster {
    now: Instant,
    nodes: Vec<Node>,
    /// Messages under way: sender, receiver.
    mail: BTreeMap<(Instant, u64), (usize, usize, Box<Message>)>,
    sent: u64,
    /// Nothing is heard of it, and it hears nothing.
    cut_off: Option<usize>,
}

impl Cluster {
    /// A swarm that has been up for some seconds.
    fn new() -> Self {
        let now = Instant::ZERO + Duration::from_secs(1);
        let nodes = (0..NODES).map(|place| node(place, now)).collect();
        let mut cluster = Self { now, nodes, mail: BTreeMap::new(), sent: 0, cut_off: None };
        for place in 0..NODES {
            for peer in (0..NODES).filter(|peer| *peer != place) {
                cluster.nodes[place].handle(Input::Up(id(peer)), now);
            }
            cluster.carry_out(place);
        }
        cluster.run_for(Duration::from_secs(5));
        assert!(cluster.nodes.iter().all(|node| node.bases().len() == NODES), "all have joined");
        cluster
    }

    fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        loop {
            let mail = self.mail.first_key_value().map(|((at, _), _)| *at);
            let (due, place) =
                (0..NODES).map(|place| (self.nodes[place].next_deadline(), place)).min().unwrap();
            let next = mail.map_or(due, |at| at.min(due)).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if mail.is_some_and(|at| at <= next) {
                let (_, (from, to, message)) = self.mail.pop_first().unwrap();
                if self.cut_off.is_none_or(|cut_off| ![from, to].contains(&cut_off)) {
                    self.nodes[to].handle(Input::Message(id(from), message), self.now);
                    self.carry_out(to);
                }
            } else {
                self.nodes[place].handle(Input::Timeout, self.now);
                self.carry_out(place);
            }
        }
    }

    fn carry_out(&mut self, place: usize) {
        while let Some(output) = self.nodes[place].poll_output() {
            let Output::Send(to, message) = output else { continue };
            self.sent += 1;
            if !self.sent.is_multiple_of(10) {
                let to = usize::from(to.0[0]) - 1;
                self.mail.insert((self.now + HOP, self.sent), (place, to, message));
            }
        }
    }

    /// Asks once at every node. Gives back those that were admitted.
    fn ask_all(&mut self) -> Vec<usize> {
        (0..NODES).filter(|place| self.ask(*place)).collect()
    }

    fn ask(&mut self, place: usize) -> bool {
        let answer = self.nodes[place].acquire(0, &Cost::requests(1), Duration::ZERO, self.now);
        self.carry_out(place);
        matches!(answer, Acquired::Now(Outcome::Admitted { .. }))
    }

    fn observe(&mut self, place: usize, outcome: CallOutcome, retry_after: Option<Duration>) {
        self.nodes[place].observe(0, outcome, retry_after, self.now);
        self.carry_out(place);
    }

    fn state(&self, place: usize) -> BreakerState {
        self.nodes[place].breaker(0, self.now).expect("the pool has a breaker")
    }

    /// Lets calls fail on two nodes until all nodes know of it.
    fn trip(&mut self) {
        for _ in 0..10 {
            for place in [1, 3] {
                assert!(self.ask(place) || self.state(place) != BreakerState::Closed);
                self.observe(place, CallOutcome::Error, None);
            }
        }
        self.run_for(Duration::from_secs(1));
        assert!((0..NODES).all(|place| matches!(self.state(place), BreakerState::Open(_))));
    }

    /// Asks everywhere until somebody is admitted, once; nobody may be before `earliest`.
    fn next_probe(&mut self, earliest: Instant) -> usize {
        let latest = self.now + Duration::from_secs(40);
        while self.now < latest {
            self.run_for(ASK_EVERY);
            let admitted = self.ask_all();
            assert!(admitted.len() <= 1, "{admitted:?} probe at once at {}", self.now);
            if let Some(place) = admitted.first() {
                assert!(self.now >= earliest, "a probe at {} and none was due before {earliest}", self.now);
                return *place;
            }
        }
        panic!("nobody has probed for 40 s");
    }

    /// Asks everywhere for so long: nobody is admitted.
    fn nobody_for(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.run_for(ASK_EVERY);
            let admitted = self.ask_all();
            assert!(admitted.is_empty(), "{admitted:?} were admitted at {}", self.now);
        }
    }
}

fn id(place: usize) -> NodeId {
    let mut id = [0; 32];
    id[0] = place as u8 + 1;
    NodeId(id)
}

fn node(place: usize, now: Instant) -> Node {
    let rate = Rate::new(10_000, Duration::from_secs(1), 10_000).unwrap();
    let limit = Limit { name: "rps".to_owned(), unit: "requests".to_owned(), kind: rate.into() };
    let mut pool = Pool::new("pool", vec![limit]).unwrap();
    let window = Duration::from_secs(10);
    pool.breaker = Some(BreakerConfig { failure_rate: 500_000, window, min_count: 10, open_for: OPEN_FOR });
    let config = NodeConfig {
        id: id(place),
        incarnation: Incarnation(1),
        name: format!("node-{place}"),
        pools: vec![pool],
        policy: Policy::Strict,
        forget_after: Duration::from_secs(60),
        weight: 1,
        agents: Agents::default(),
        keys: Arc::new(Ideal),
        vouching: Vouching::default(),
    };
    let start = if place == 0 { Start::Found } else { Start::Join };
    Node::new(config, start, [place as u8; 32], now)
}

#[test]
fn there_is_one_probe_in_the_whole_swarm_at_a_time() {
    let mut swarm = Cluster::new();
    let began = swarm.now;
    swarm.trip();
    let mut probers = Vec::new();
    let mut earliest = began + OPEN_FOR;
    for _ in 0..3 {
        let prober = swarm.next_probe(earliest);
        probers.push(prober);
        swarm.nobody_for(PROBE_TAKES);
        swarm.observe(prober, CallOutcome::Error, None);
        // Each failed probe doubles the time until the next.
        earliest = swarm.now + OPEN_FOR * 2;
    }
    let prober = swarm.next_probe(earliest);
    swarm.nobody_for(PROBE_TAKES);
    swarm.observe(prober, CallOutcome::Ok, None);
    swarm.run_for(Duration::from_secs(1));
    assert!((0..NODES).all(|place| swarm.state(place) == BreakerState::Closed));
    assert_eq!(
        swarm.ask_all(),
        (0..NODES).collect::<Vec<_>>(),
        "calls go on everywhere; probes were at {probers:?}"
    );
}

#[test]
fn a_probe_of_which_nothing_is_heard_is_the_only_one_until_its_time_is_over() {
    let mut swarm = Cluster::new();
    swarm.trip();
    let prober = swarm.next_probe(swarm.now);
    swarm.cut_off = Some(prober);
    swarm.nobody_for(Duration::from_secs(55));
    swarm.cut_off = None;
}

#[test]
fn a_pause_is_everywhere_within_a_second_and_so_is_its_end() {
    let mut swarm = Cluster::new();
    assert_eq!(swarm.ask_all(), (0..NODES).collect::<Vec<_>>());
    let now = swarm.now;
    swarm.nodes[2].pause(0, None, now);
    swarm.carry_out(2);
    swarm.run_for(Duration::from_secs(1));
    swarm.nobody_for(Duration::from_secs(5));
    let now = swarm.now;
    swarm.nodes[4].resume(0, now);
    swarm.carry_out(4);
    swarm.run_for(Duration::from_secs(1));
    assert_eq!(swarm.ask_all(), (0..NODES).collect::<Vec<_>>());
}

#[test]
fn a_throttled_call_pauses_everybody_within_a_second_for_as_long_as_the_provider_says() {
    let mut swarm = Cluster::new();
    assert!(swarm.ask(1));
    swarm.observe(1, CallOutcome::Throttled, Some(Duration::from_secs(6)));
    swarm.run_for(Duration::from_secs(1));
    swarm.nobody_for(Duration::from_millis(4_900));
    swarm.run_for(Duration::from_secs(4));
    assert_eq!(swarm.ask_all(), (0..NODES).collect::<Vec<_>>());
}
