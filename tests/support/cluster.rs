//! A handful of cores in one thread, on a network that loses, doubles, delays and reorders what they say, with clocks
//! of their own and checkers that look after every event. Messages travel as bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use aquifer::protocol::id::{Incarnation, NodeId};
use aquifer::protocol::limit::{Cost, Limit, Pool, Rate};
use aquifer::protocol::node::{Acquired, Input, Node, NodeConfig, Outcome, Output, Phase, Policy, Saved, Start};
use aquifer::protocol::queue::Ticket;
use aquifer::protocol::share::{ONE, Share};
use aquifer::protocol::time::Instant;
use aquifer::wire;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Nanoseconds of true time.
pub type Nanos = u64;
pub const MS: Nanos = 1_000_000;
pub const SEC: Nanos = 1_000 * MS;

/// What can happen to a message, and how wrong clocks are.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub delay: (Nanos, Nanos),
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    /// Clocks run up to so many ppm fast or slow.
    pub drift_ppm: i64,
}

pub const LOOPBACK: Faults =
    Faults { delay: (100_000, 400_000), loss_percent: 0, duplicate_percent: 0, drift_ppm: 0 };

/// One limit, `amount` per second.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub amount: u64,
    pub burst: u64,
    pub nodes: usize,
    pub policy: Policy,
    pub faults: Faults,
    pub seed: u64,
}

#[derive(Debug)]
enum Event {
    Deliver { from: usize, to: usize, bytes: Vec<u8> },
    Timer { node: usize, generation: u64 },
    Up { one: usize, other: usize },
    Down { node: usize, peer: usize },
}

struct Machine {
    node: Option<Node>,
    saved: Option<Saved>,
    lives: u64,
    offset: Nanos,
    ppm: i64,
    generation: u64,
    paused_until: Nanos,
    waiting: BTreeMap<Ticket, Nanos>,
    admitted: u64,
    refused: u64,
    left: bool,
    inbox: Vec<(usize, Vec<u8>)>,
}

pub struct Cluster {
    pub now: Nanos,
    setup: Setup,
    machines: Vec<Machine>,
    queue: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    events: Vec<Option<Event>>,
    rng: ChaCha8Rng,
    /// Which ordered pairs cannot hear each other.
    cut: BTreeMap<(usize, usize), bool>,
    /// A central bucket that sees every admission at true time: the exact check of T1 over every interval. In atoms of
    /// a nanosecond of the rate.
    central: i128,
    central_at: Nanos,
    pub messages: u64,
    pub bytes: u64,
}

pub fn node_id(place: usize) -> NodeId {
    let mut id = [0; 32];
    id[0] = place as u8 + 1;
    NodeId(id)
}

fn place_of(id: NodeId) -> usize {
    usize::from(id.0[0]) - 1
}

impl Cluster {
    /// The founder alone; the others join with [`start`](Self::start).
    pub fn new(setup: Setup) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(setup.seed);
        let machines = (0..setup.nodes)
            .map(|_| {
                let span = 2 * setup.faults.drift_ppm as u64 + 1;
                Machine {
                    node: None,
                    saved: None,
                    lives: 0,
                    offset: rng.next_u64() % (1 << 40),
                    ppm: (rng.next_u64() % span) as i64 - setup.faults.drift_ppm,
                    generation: 0,
                    paused_until: 0,
                    waiting: BTreeMap::new(),
                    admitted: 0,
                    refused: 0,
                    left: false,
                    inbox: Vec::new(),
                }
            })
            .collect();
        let mut cluster = Self {
            now: 0,
            setup,
            machines,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            rng,
            cut: BTreeMap::new(),
            central: i128::from(setup.burst) * i128::from(SEC),
            central_at: 0,
            messages: 0,
            bytes: 0,
        };
        cluster.start(0);
        cluster
    }

    /// Everybody has joined and base shares are even.
    pub fn formed(setup: Setup) -> Self {
        let mut cluster = Self::new(setup);
        for place in 1..setup.nodes {
            cluster.start(place);
        }
        cluster.run_until(cluster.now + 6 * SEC);
        for place in 0..setup.nodes {
            assert_eq!(cluster.node(place).phase(), Phase::Ready, "node {place} has not joined");
        }
        cluster
    }

    pub fn node(&self, place: usize) -> &Node {
        self.machines[place].node.as_ref().expect("node is down")
    }

    pub fn is_up(&self, place: usize) -> bool {
        self.machines[place].node.is_some()
    }

    pub fn admitted(&self, place: usize) -> u64 {
        self.machines[place].admitted
    }

    pub fn waiting(&self, place: usize) -> usize {
        self.machines[place].waiting.len()
    }

    pub fn refused(&self, place: usize) -> u64 {
        self.machines[place].refused
    }

    pub fn total_admitted(&self) -> u64 {
        self.machines.iter().map(|machine| machine.admitted).sum()
    }

    /// The part of the limit that a node runs on.
    pub fn held(&mut self, place: usize) -> f64 {
        let now = self.clock(place);
        let node = self.machines[place].node.as_mut().expect("node is down");
        node.pool_view(0, now).limits[0].held.fraction()
    }

    /// Units that a node may spend now.
    pub fn level(&mut self, place: usize) -> u64 {
        let now = self.clock(place);
        let node = self.machines[place].node.as_mut().expect("node is down");
        node.pool_view(0, now).limits[0].held_units
    }

    fn clock(&self, place: usize) -> Instant {
        let machine = &self.machines[place];
        let drift = i128::from(self.now) * i128::from(machine.ppm) / 1_000_000;
        Instant::from_nanos((i128::from(self.now) + drift) as u64 + machine.offset)
    }

    /// True time of a moment on a node's clock, rounded up.
    fn true_time(&self, place: usize, at: Instant) -> Nanos {
        let machine = &self.machines[place];
        let local = i128::from(at.as_nanos().saturating_sub(machine.offset));
        let time = (local * 1_000_000) / (1_000_000 + i128::from(machine.ppm));
        u64::try_from(time).unwrap_or(0).saturating_add(1)
    }

    /// Starts a node: the first life of the first node founds, other first lives join, later lives resume.
    pub fn start(&mut self, place: usize) {
        if self.machines[place].node.is_some() || self.machines[place].left {
            return;
        }
        let machine = &mut self.machines[place];
        machine.lives += 1;
        let rate = Rate::new(self.setup.amount, Duration::from_secs(1), self.setup.burst).unwrap();
        let limit = Limit { name: "rps".to_owned(), unit: "requests".to_owned(), rate };
        let config = NodeConfig {
            id: node_id(place),
            incarnation: Incarnation(machine.lives),
            name: format!("node-{place}"),
            pools: vec![Pool::new("pool", vec![limit]).unwrap()],
            policy: self.setup.policy,
            forget_after: Duration::from_secs(15),
            weight: 1,
        };
        let start = match machine.saved.take() {
            Some(saved) => Start::Resume(saved),
            None if place == 0 && machine.lives == 1 => Start::Found,
            None => Start::Join,
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
        let now = self.clock(place);
        self.machines[place].node = Some(Node::new(config, start, seed, now));
        for other in 0..self.machines.len() {
            self.connect(place, other);
        }
        self.drain(place);
    }

    fn connect(&mut self, one: usize, other: usize) {
        let blocked = self.cut.contains_key(&(one, other)) || self.cut.contains_key(&(other, one));
        if one != other && self.is_up(one) && self.is_up(other) && !blocked {
            let delay = self.delay();
            self.push(delay, Event::Up { one, other });
        }
    }

    /// `kill -9`: nothing is said, peers notice by the broken connection.
    pub fn crash(&mut self, place: usize) {
        if self.machines[place].node.take().is_none() {
            return;
        }
        // A caller of a dead daemon gets no answer; its request is gone.
        self.machines[place].waiting.clear();
        self.machines[place].inbox.clear();
        for peer in 0..self.machines.len() {
            if peer != place {
                let delay = self.delay();
                self.push(delay, Event::Down { node: peer, peer: place });
            }
        }
    }

    /// Starts to leave gracefully.
    pub fn leave(&mut self, place: usize) {
        let now = self.clock(place);
        if let Some(node) = &mut self.machines[place].node {
            node.leave(now);
            self.drain(place);
        }
    }

    /// SIGSTOP for so long.
    pub fn pause(&mut self, place: usize, nanos: Nanos) {
        self.machines[place].paused_until = self.now + nanos;
    }

    /// Cuts or heals both directions between two nodes. Nobody is told: a silent cut.
    pub fn cut(&mut self, one: usize, other: usize, cut: bool) {
        for pair in [(one, other), (other, one)] {
            if cut {
                self.cut.insert(pair, true);
            } else {
                self.cut.remove(&pair);
            }
        }
        if !cut {
            self.push(0, Event::Down { node: one, peer: other });
            self.push(0, Event::Down { node: other, peer: one });
            self.connect(one, other);
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        for one in 0..self.machines.len() {
            for other in one + 1..self.machines.len() {
                self.push(0, Event::Down { node: one, peer: other });
                self.push(0, Event::Down { node: other, peer: one });
                self.connect(one, other);
            }
        }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.setup.faults = Faults { drift_ppm: self.setup.faults.drift_ppm, ..faults };
    }

    /// A request arrives at a node.
    pub fn ask(&mut self, place: usize, units: u64, wait: Duration) {
        let now = self.clock(place);
        if self.machines[place].paused_until > self.now {
            return;
        }
        let Some(node) = &mut self.machines[place].node else { return };
        match node.acquire(0, &Cost::requests(units), wait, now) {
            Acquired::Now(Outcome::Admitted { .. }) => self.admit(place, units),
            Acquired::Now(Outcome::Refused(_)) => self.machines[place].refused += 1,
            Acquired::Waiting(ticket) => {
                let noted = units << 40 | self.deadline(wait);
                let known = self.machines[place].waiting.insert(ticket, noted);
                assert_eq!(known, None, "a ticket was used twice");
            }
        }
        self.drain(place);
    }

    /// Milliseconds of true time until which an answer may come.
    fn deadline(&self, wait: Duration) -> u64 {
        self.now / MS + wait.as_millis() as u64 + 2
    }

    fn admit(&mut self, place: usize, units: u64) {
        self.machines[place].admitted += units;
        let burst = i128::from(self.setup.burst) * i128::from(SEC);
        // Clocks may run fast by the drift; the limit is kept by the fastest of them.
        let amount = i128::from(self.setup.amount) * (1_000_000 + i128::from(self.setup.faults.drift_ppm));
        let earned = (i128::from(self.now - self.central_at) * amount + 999_999) / 1_000_000;
        self.central = (self.central + earned).min(burst) - i128::from(units) * i128::from(SEC);
        self.central_at = self.now;
        assert!(self.central >= 0, "T1: over the limit by {} units at {} ns", -self.central / i128::from(SEC) + 1, self.now);
    }

    pub fn run_until(&mut self, end: Nanos) {
        while let Some(Reverse((at, _, _))) = self.queue.peek() {
            if *at > end {
                break;
            }
            let Reverse((at, _, slot)) = self.queue.pop().unwrap();
            self.now = at.max(self.now);
            let event = self.events[slot].take().unwrap();
            self.step(event);
            self.check_shares();
        }
        self.now = end;
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, bytes } => {
                if self.machines[to].paused_until > self.now {
                    let later = self.machines[to].paused_until - self.now;
                    self.push(later, Event::Deliver { from, to, bytes });
                } else {
                    let message = wire::decode_message(&bytes).expect("own bytes");
                    self.input(to, Input::Message(node_id(from), Box::new(message)));
                }
            }
            Event::Timer { node, generation } => {
                if self.machines[node].paused_until > self.now {
                    let later = self.machines[node].paused_until - self.now;
                    self.push(later, Event::Timer { node, generation });
                } else if self.machines[node].generation == generation {
                    self.input(node, Input::Timeout);
                }
            }
            Event::Up { one, other } => {
                if self.is_up(one) && self.is_up(other) {
                    self.input(one, Input::Up(node_id(other)));
                    self.input(other, Input::Up(node_id(one)));
                }
            }
            Event::Down { node, peer } => self.input(node, Input::Down(node_id(peer))),
        }
    }

    fn input(&mut self, place: usize, input: Input) {
        let now = self.clock(place);
        if let Some(node) = &mut self.machines[place].node {
            node.handle(input, now);
            self.drain(place);
        }
    }

    fn drain(&mut self, place: usize) {
        while let Some(output) = self.machines[place].node.as_mut().and_then(Node::poll_output) {
            match output {
                Output::Save(saved) => {
                    let bytes = wire::encode_saved(&saved).unwrap();
                    self.machines[place].saved = Some(wire::decode_saved(&bytes).unwrap());
                }
                Output::Send(to, message) => self.send(place, place_of(to), wire::encode_message(&message).unwrap()),
                Output::Answer(ticket, outcome) => {
                    let noted = self.machines[place].waiting.remove(&ticket).expect("an answer that nobody waits for");
                    match outcome {
                        Outcome::Admitted { .. } => {
                            let deadline = noted & ((1 << 40) - 1);
                            assert!(self.now / MS <= deadline, "admitted after its deadline");
                            self.admit(place, noted >> 40);
                        }
                        Outcome::Refused(_) => self.machines[place].refused += 1,
                    }
                }
                Output::Close(peer) => {
                    let other = place_of(peer);
                    self.push(0, Event::Down { node: place, peer: other });
                    self.push(0, Event::Down { node: other, peer: place });
                    self.connect(place, other);
                }
                Output::Left => {
                    self.machines[place].left = true;
                    assert!(self.machines[place].waiting.is_empty(), "left without answering");
                    self.crash(place);
                    return;
                }
                Output::Reach(..) | Output::Forget(_) | Output::Notice(_) => {}
            }
        }
        if let Some(node) = &self.machines[place].node {
            let at = self.true_time(place, node.next_deadline()).max(self.now);
            self.machines[place].generation += 1;
            let generation = self.machines[place].generation;
            self.push(at - self.now, Event::Timer { node: place, generation });
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.messages += 1;
        self.bytes += bytes.len() as u64;
        if self.cut.contains_key(&(from, to)) || self.percent(self.setup.faults.loss_percent) {
            return;
        }
        if self.percent(self.setup.faults.duplicate_percent) {
            let delay = self.delay() * 3;
            self.push(delay, Event::Deliver { from, to, bytes: bytes.clone() });
        }
        let delay = self.delay();
        self.push(delay, Event::Deliver { from, to, bytes });
    }

    /// T2: what all nodes run on sums to at most the whole, and so do base shares, at every moment.
    fn check_shares(&mut self) {
        if self.setup.policy != Policy::Strict {
            return;
        }
        let mut held = Share::ZERO;
        for place in 0..self.machines.len() {
            // A paused node spends nothing, and one whose deadline has come ends its leases before it does anything.
            if self.machines[place].paused_until > self.now {
                continue;
            }
            let Some(node) = &self.machines[place].node else { continue };
            if node.next_deadline() > self.clock(place) {
                held += node.held(0);
            }
        }
        assert!(held <= ONE, "T2: nodes hold {} parts of {}", held.0, ONE.0);
    }

    fn push(&mut self, delay: Nanos, event: Event) {
        let slot = self.events.len();
        self.events.push(Some(event));
        self.queue.push(Reverse((self.now + delay, slot as u64, slot)));
    }

    fn delay(&mut self) -> Nanos {
        let (least, most) = self.setup.faults.delay;
        least + self.rng.next_u64() % (most - least + 1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.rng.next_u64() % 100 < percent
    }

    /// A random number below `bound`, from the cluster's seed.
    pub fn random(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound.max(1)
    }
}
