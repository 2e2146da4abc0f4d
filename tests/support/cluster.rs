//! A handful of cores in one thread, on a network that loses, doubles, delays and reorders what they say, with clocks
//! of their own and checkers that look after every event. Messages travel as bytes.

// Each test binary includes this file and uses its own part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aquifer::protocol::agents::Agents;
use aquifer::protocol::id::{Incarnation, NodeId};
use aquifer::protocol::limit::{Cost, Limit, Pool, Rate};
use aquifer::protocol::message::Message;
use aquifer::protocol::node::{
    Acquired, ForgetError, Forgotten, Input, LimitView, Node, NodeConfig, Outcome, Output, Phase, Policy,
    Saved, Start, VouchError, Vouching,
};
use aquifer::protocol::queue::Ticket;
use aquifer::protocol::share::{ONE, Share};
use aquifer::protocol::time::Instant;
use aquifer::wire;
use aquifer::wire::signing::Ideal;
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
    /// Timers go off up to so much late.
    pub timers_late: Nanos,
}

pub const LOOPBACK: Faults =
    Faults { delay: (100_000, 400_000), loss_percent: 0, duplicate_percent: 0, drift_ppm: 0, timers_late: 0 };

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

#[derive(Clone, Debug)]
enum Event {
    Deliver { to: usize, from: usize, bytes: Vec<u8> },
    Timer { node: usize, generation: u64 },
    Up { node: usize, peer: usize, link: u64 },
    Down { node: usize, peer: usize, link: u64 },
}

impl Event {
    fn node(&self) -> usize {
        match self {
            Self::Deliver { to: node, .. }
            | Self::Timer { node, .. }
            | Self::Up { node, .. }
            | Self::Down { node, .. } => *node,
        }
    }
}

struct Waiting {
    units: u64,
    /// On the node's clock.
    deadline: Instant,
}

#[derive(Default)]
struct Machine {
    node: Option<Node>,
    saved: Option<Saved>,
    /// It lost what it had saved once.
    lost: bool,
    lives: u64,
    founds: bool,
    offset: Nanos,
    ppm: i64,
    generation: u64,
    paused_until: Nanos,
    waiting: BTreeMap<Ticket, Waiting>,
    /// The link to each peer as this node sees it: links are numbered, and the end of an old one ends no newer one.
    links: BTreeMap<usize, u64>,
    admitted: u64,
    admitted_in_this_life: u64,
    refused: u64,
    left: bool,
    /// It is killed when it has carried out so many more outputs.
    dies_after: Option<usize>,
}

pub struct Cluster {
    pub now: Nanos,
    setup: Setup,
    machines: Vec<Machine>,
    events: BTreeMap<(Nanos, u64), Event>,
    /// How many events and links there ever were: their numbers.
    numbers: u64,
    rng: ChaCha8Rng,
    /// Which ordered pairs cannot hear each other.
    cut: BTreeSet<(usize, usize)>,
    /// What every node that starts is told of vouching.
    pub vouching: Vouching,
    /// Nodes whose messages are changed before they are sent, and how.
    pub liars: BTreeMap<usize, fn(&mut Message)>,
    /// Whether T1 and T2 are promised.
    strict: bool,
    /// A central bucket that sees every admission at true time: the exact check of T1 over every interval. In atoms of
    /// a nanosecond of the rate.
    central: i128,
    central_at: Nanos,
    /// Links that a node closed because the peer was silent.
    pub closes: u64,
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
        let mut cluster = Self::unborn(setup);
        cluster.found(0);
        cluster
    }

    /// Nobody runs yet.
    pub fn unborn(setup: Setup) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(setup.seed);
        let span = 2 * setup.faults.drift_ppm as u64 + 1;
        let mut ppm = || (rng.next_u64() % span) as i64 - setup.faults.drift_ppm;
        let machines = (0..setup.nodes).map(|_| Machine { ppm: ppm(), ..Machine::default() }).collect();
        Self {
            now: 0,
            setup,
            machines,
            events: BTreeMap::new(),
            numbers: 0,
            rng,
            cut: BTreeSet::new(),
            vouching: Vouching::default(),
            liars: BTreeMap::new(),
            strict: setup.policy != Policy::Available,
            central: i128::from(setup.burst) * i128::from(SEC),
            central_at: 0,
            closes: 0,
            messages: 0,
            bytes: 0,
        }
    }

    /// Everybody has joined and base shares are even.
    pub fn formed(setup: Setup) -> Self {
        let mut cluster = Self::new(setup);
        for place in 1..setup.nodes {
            cluster.start(place);
        }
        cluster.run_for(6 * SEC);
        for place in 0..setup.nodes {
            assert_eq!(cluster.node(place).phase(), Phase::Ready, "node {place} has not joined");
        }
        cluster
    }

    pub fn node(&self, place: usize) -> &Node {
        self.machines[place].node.as_ref().expect("node is down")
    }

    /// The nodes that run.
    pub fn live(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|place| self.is_up(*place)).collect()
    }

    pub fn is_up(&self, place: usize) -> bool {
        self.machines[place].node.is_some()
    }

    pub fn has_left(&self, place: usize) -> bool {
        self.machines[place].left
    }

    pub fn is_paused(&self, place: usize) -> bool {
        self.machines[place].paused_until > self.now
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

    /// How one node sees the limit.
    pub fn limit(&mut self, place: usize) -> LimitView {
        let now = self.clock(place);
        let node = self.machines[place].node.as_mut().expect("node is down");
        node.pool_view(0, now).limits.remove(0)
    }

    /// The part of the limit that a node runs on.
    pub fn held(&mut self, place: usize) -> f64 {
        self.limit(place).held.fraction()
    }

    /// Units that a node may spend now.
    pub fn level(&mut self, place: usize) -> u64 {
        self.limit(place).held_units
    }

    pub fn clock(&self, place: usize) -> Instant {
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

    /// Starts a node for the first time, as the founder of a swarm.
    pub fn found(&mut self, place: usize) {
        self.machines[place].founds = true;
        self.start(place);
    }

    /// Starts a node: the first life of a founder founds, others join, or resume if something was saved.
    pub fn start(&mut self, place: usize) {
        if self.is_up(place) {
            return;
        }
        // Another life may have another clock altogether.
        let offset = self.random(1 << 40);
        let machine = &mut self.machines[place];
        machine.lives += 1;
        machine.offset = offset;
        (machine.admitted_in_this_life, machine.left, machine.dies_after) = (0, false, None);
        let rate = Rate::new(self.setup.amount, Duration::from_secs(1), self.setup.burst).unwrap();
        let limit = Limit { name: "rps".to_owned(), unit: "requests".to_owned(), kind: rate.into() };
        let config = NodeConfig {
            id: node_id(place),
            incarnation: Incarnation(machine.lives),
            name: format!("node-{place}"),
            pools: vec![Pool::new("pool", vec![limit]).unwrap()],
            policy: self.setup.policy,
            forget_after: Duration::from_secs(15),
            weight: 1,
            agents: Agents::default(),
            keys: Arc::new(Ideal),
            vouching: self.vouching.clone(),
        };
        let start = match machine.saved.clone() {
            Some(saved) => Start::Resume(saved),
            None if machine.lost => Start::Rejoin,
            None if machine.founds && machine.lives == 1 => Start::Found,
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
        let blocked = self.cut.contains(&(one, other)) || self.cut.contains(&(other, one));
        if one != other && self.is_up(one) && self.is_up(other) && !blocked {
            self.numbers += 1;
            let link = self.numbers;
            for (node, peer) in [(one, other), (other, one)] {
                let delay = self.delay();
                self.push(delay, Event::Up { node, peer, link });
            }
        }
    }

    /// Ends all links of so far between two nodes, as both will notice after `delay`.
    fn disconnect(&mut self, one: usize, other: usize, delay: Nanos) {
        let link = self.numbers;
        self.push(delay, Event::Down { node: one, peer: other, link });
        self.push(delay, Event::Down { node: other, peer: one, link });
    }

    fn reconnect(&mut self, one: usize, other: usize) {
        self.disconnect(one, other, 0);
        self.connect(one, other);
    }

    /// `kill -9`: nothing is said, peers notice by the broken connection.
    pub fn crash(&mut self, place: usize) {
        if self.machines[place].node.take().is_none() {
            return;
        }
        let machine = &mut self.machines[place];
        // A caller of a dead daemon gets no answer; its request is gone.
        machine.waiting.clear();
        machine.links.clear();
        machine.paused_until = 0;
        self.events.retain(|_, event| event.node() != place || matches!(event, Event::Deliver { .. }));
        for peer in (0..self.machines.len()).filter(|peer| *peer != place) {
            let delay = self.delay();
            self.disconnect(peer, place, delay);
        }
    }

    /// A crash after which nothing is left of what was saved.
    pub fn crash_and_lose_all(&mut self, place: usize) {
        self.crash(place);
        let machine = &mut self.machines[place];
        machine.lost |= machine.lives > 0;
        machine.saved = None;
    }

    /// `kill -9` at the worst moment: after so many more of its outputs were carried out, and none behind them.
    pub fn crash_after(&mut self, place: usize, outputs: usize) {
        self.machines[place].dies_after = Some(outputs);
    }

    /// Starts to leave gracefully.
    pub fn leave(&mut self, place: usize) {
        self.command(place, Node::leave);
    }

    /// Has one node take back what it gave to another.
    pub fn forget(&mut self, place: usize, subject: usize) -> Result<Forgotten, ForgetError> {
        let now = self.clock(place);
        let node = self.machines[place].node.as_mut().expect("node is down");
        let done = node.forget(node_id(subject), now);
        self.drain(place);
        done
    }

    /// Has one node vouch for another by hand.
    pub fn vouch(&mut self, place: usize, subject: usize, weight: Option<u32>) -> Result<Share, VouchError> {
        let now = self.clock(place);
        let node = self.machines[place].node.as_mut().expect("node is down");
        let done = node.vouch(node_id(subject), weight, now);
        self.drain(place);
        done
    }

    /// Listens elsewhere from now on.
    pub fn move_to(&mut self, place: usize, address: &str) {
        self.command(place, |node, now| node.set_addresses(vec![address.to_owned()], now));
    }

    fn command(&mut self, place: usize, command: impl FnOnce(&mut Node, Instant)) {
        let now = self.clock(place);
        if self.is_paused(place) {
            return;
        }
        if let Some(node) = &mut self.machines[place].node {
            command(node, now);
            self.drain(place);
        }
    }

    /// SIGSTOP for so long.
    pub fn pause(&mut self, place: usize, nanos: Nanos) {
        if self.is_up(place) {
            let machine = &mut self.machines[place];
            machine.paused_until = machine.paused_until.max(self.now + nanos);
        }
    }

    /// SIGCONT before the pause is over; what waited for its end still does.
    pub fn wake(&mut self, place: usize) {
        self.machines[place].paused_until = self.now;
    }

    /// What one node says does not reach another. Nobody is told: a silent cut.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        if from != to {
            self.cut.insert((from, to));
        }
    }

    /// Cuts both directions between two nodes, silently.
    pub fn cut(&mut self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts every node of one side from every other node, silently.
    pub fn cut_off(&mut self, side: impl Fn(usize) -> bool) {
        for one in (0..self.machines.len()).filter(|one| side(*one)) {
            for other in (0..self.machines.len()).filter(|other| !side(*other)) {
                self.cut(one, other);
            }
        }
    }

    /// Heals all cuts; everybody dials anew.
    pub fn heal(&mut self) {
        self.cut.clear();
        for one in 0..self.machines.len() {
            for other in one + 1..self.machines.len() {
                self.reconnect(one, other);
            }
        }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.setup.faults = Faults { drift_ppm: self.setup.faults.drift_ppm, ..faults };
    }

    /// A request arrives at a node. Gives back the ticket if it waits.
    pub fn ask(&mut self, place: usize, units: u64, wait: Duration) -> Option<Ticket> {
        let now = self.clock(place);
        if self.is_paused(place) {
            return None;
        }
        let machine = &mut self.machines[place];
        let acquired = machine.node.as_mut()?.acquire(0, &Cost::requests(units), wait, now);
        let ticket = match acquired {
            Acquired::Now(outcome) => {
                self.answered(place, units, outcome);
                None
            }
            Acquired::Waiting(ticket) => {
                let known = machine.waiting.insert(ticket, Waiting { units, deadline: now + wait });
                assert!(known.is_none(), "T4: a ticket was used twice");
                Some(ticket)
            }
        };
        self.drain(place);
        ticket
    }

    /// The caller that has waited longest hangs up.
    pub fn cancel(&mut self, place: usize) {
        let now = self.clock(place);
        if self.is_paused(place) {
            return;
        }
        let machine = &mut self.machines[place];
        if let (Some(node), Some((ticket, _))) = (&mut machine.node, machine.waiting.pop_first()) {
            assert!(node.cancel(ticket, now), "T4: a request without an answer could not be cancelled");
            self.drain(place);
        }
    }

    fn answered(&mut self, place: usize, units: u64, outcome: Outcome) {
        match outcome {
            Outcome::Refused(_) => self.machines[place].refused += 1,
            Outcome::Admitted { .. } => {
                self.machines[place].admitted += units;
                self.machines[place].admitted_in_this_life += units;
                self.check_limit(units);
            }
        }
    }

    /// T1, exactly and for every interval: a bucket that sees everything at true time would have admitted it too.
    fn check_limit(&mut self, units: u64) {
        let burst = i128::from(self.setup.burst) * i128::from(SEC);
        // Clocks may run fast by the drift; the limit is kept by the fastest of them.
        let amount = i128::from(self.setup.amount) * (1_000_000 + i128::from(self.setup.faults.drift_ppm));
        let earned = (i128::from(self.now - self.central_at) * amount + 999_999) / 1_000_000;
        self.central = (self.central + earned).min(burst) - i128::from(units) * i128::from(SEC);
        self.central_at = self.now;
        if self.strict {
            // Clocks tick in whole nanoseconds: two moments are up to one further apart than they should be.
            let tick = 2 * i128::from(self.setup.amount);
            let exact = -self.central as f64 / SEC as f64;
            assert!(self.central >= -tick, "T1: over the limit by {exact} units at {} ns", self.now);
        }
    }

    /// From here on neither T1 nor T2 is promised, as where swarms that were founded apart meet.
    pub fn promise_nothing(&mut self) {
        self.strict = false;
    }

    pub fn run_for(&mut self, nanos: Nanos) {
        self.run_until(self.now + nanos);
    }

    pub fn run_until(&mut self, end: Nanos) {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0.max(self.now);
            let event = entry.remove();
            self.step(event);
            self.check();
        }
        self.now = end;
    }

    fn step(&mut self, event: Event) {
        let place = event.node();
        if self.is_paused(place) {
            let late =
                matches!(event, Event::Timer { .. }).then(|| self.random(self.setup.faults.timers_late + 1));
            let later = self.machines[place].paused_until - self.now;
            self.push(later + late.unwrap_or(0), event);
            return;
        }
        let links = &mut self.machines[place].links;
        match event {
            Event::Deliver { from, bytes, .. } => {
                let message = wire::decode_message(&bytes).expect("own bytes");
                self.input(place, Input::Message(node_id(from), Box::new(message)));
            }
            Event::Timer { generation, .. } => {
                if self.machines[place].generation == generation {
                    self.input(place, Input::Timeout);
                }
            }
            Event::Up { peer, link, .. } => {
                if links.get(&peer).is_none_or(|known| *known < link) {
                    links.insert(peer, link);
                    self.input(place, Input::Up(node_id(peer)));
                }
            }
            Event::Down { peer, link, .. } => {
                if links.get(&peer).is_some_and(|known| *known <= link) {
                    links.remove(&peer);
                    self.input(place, Input::Down(node_id(peer)));
                }
            }
        }
    }

    fn input(&mut self, place: usize, input: Input) {
        let now = self.clock(place);
        if let Some(node) = &mut self.machines[place].node {
            node.handle(input, now);
            assert!(
                node.next_deadline() > now,
                "node {place} was looked after and still has something to do"
            );
            self.drain(place);
        }
    }

    fn drain(&mut self, place: usize) {
        while let Some(output) = self.machines[place].node.as_mut().and_then(Node::poll_output) {
            if let Some(outputs) = &mut self.machines[place].dies_after {
                if *outputs == 0 {
                    self.crash(place);
                    return;
                }
                *outputs -= 1;
            }
            match output {
                Output::Save(saved) => {
                    let bytes = wire::encode_saved(&saved).unwrap();
                    self.machines[place].saved = Some(wire::decode_saved(&bytes).unwrap());
                }
                Output::Send(to, mut message) => {
                    if let Some(lie) = self.liars.get(&place) {
                        lie(&mut message);
                    }
                    self.send(place, place_of(to), wire::encode_message(&message).unwrap());
                }
                Output::Answer(ticket, outcome) => {
                    let waiting = self.machines[place].waiting.remove(&ticket);
                    let waiting = waiting.expect("T4: an answer that nobody waits for");
                    let in_time = self.clock(place) < waiting.deadline;
                    let admitted = matches!(outcome, Outcome::Admitted { .. });
                    assert!(in_time || !admitted, "T4: admitted after its deadline");
                    self.answered(place, waiting.units, outcome);
                }
                Output::Close(peer) => {
                    self.closes += 1;
                    self.reconnect(place, place_of(peer));
                }
                Output::Left => {
                    assert!(self.machines[place].waiting.is_empty(), "T4: left without answering");
                    self.crash(place);
                    self.machines[place].left = true;
                    return;
                }
                Output::Reach(..) | Output::Forget(_) | Output::Notice(_) => {}
            }
        }
        if let Some(node) = &self.machines[place].node {
            let at = self.true_time(place, node.next_deadline()).max(self.now);
            let late = self.random(self.setup.faults.timers_late + 1);
            let machine = &mut self.machines[place];
            machine.generation += 1;
            let generation = machine.generation;
            self.push(at - self.now + late, Event::Timer { node: place, generation });
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.messages += 1;
        self.bytes += bytes.len() as u64;
        if self.cut.contains(&(from, to)) || self.percent(self.setup.faults.loss_percent) {
            return;
        }
        if self.percent(self.setup.faults.duplicate_percent) {
            let delay = self.delay() * 3;
            self.push(delay, Event::Deliver { from, to, bytes: bytes.clone() });
        }
        let delay = self.delay();
        self.push(delay, Event::Deliver { from, to, bytes });
    }

    /// T2: what all nodes run on sums to at most the whole at every moment, and so do base shares in every view.
    fn check(&mut self) {
        let mut held = Share::ZERO;
        for place in 0..self.machines.len() {
            let Some(node) = &self.machines[place].node else { continue };
            let bases: Share = node.bases().values().copied().sum();
            assert!(
                bases <= ONE || !self.strict,
                "T2: base shares of {} parts as node {place} sees it",
                bases.0
            );
            // A paused node spends nothing, and one whose deadline has come ends its leases before it does anything.
            if !self.is_paused(place) && node.next_deadline() > self.clock(place) {
                held += node.held(0);
            }
        }
        assert!(held <= ONE || !self.strict, "T2: nodes hold {} parts of {}", held.0, ONE.0);
    }

    /// T4 and T3 where they can be seen between events: nobody waits beyond the deadline, and a node has counted what
    /// it admitted, whatever the others say.
    pub fn check_answers(&mut self) {
        for place in self.live() {
            if self.is_paused(place) {
                continue;
            }
            let late = self.setup.faults.timers_late + MS;
            let now = self.clock(place);
            let in_time = |waiting: &Waiting| now < waiting.deadline + Duration::from_nanos(late);
            let machine = &self.machines[place];
            let just_woke = machine.paused_until + late > self.now;
            assert!(just_woke || machine.waiting.values().all(in_time), "T4: no answer by the deadline");
            let counted = self.limit(place).admitted;
            assert_eq!(counted, self.machines[place].admitted_in_this_life, "T3: node {place} counts itself");
        }
    }

    fn push(&mut self, delay: Nanos, event: Event) {
        self.numbers += 1;
        self.events.insert((self.now + delay, self.numbers), event);
    }

    fn delay(&mut self) -> Nanos {
        let (least, most) = self.setup.faults.delay;
        least + self.random(most - least + 1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.random(100) < percent
    }

    /// A random number below `bound`, from the cluster's seed.
    pub fn random(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound.max(1)
    }
}
