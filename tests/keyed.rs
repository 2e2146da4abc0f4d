//! Keyed pools on several nodes: a key's limit holds for all of them together, follows demand where it is contended, and
//! is forgotten where it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aquifer::protocol::agents::Agents;
use aquifer::protocol::id::{Incarnation, NodeId};
use aquifer::protocol::limit::{Cost, Limit, Pool, Rate};
use aquifer::protocol::node::{
    Acquired, Ask, Input, Item, METERS_MAX, Node, NodeConfig, Outcome, Output, PERMIT_TTL, Policy, RATES_MAX,
    Reason, Saved, Start, ThrottleError, Throttled, Vouching,
};
use aquifer::protocol::permit::PermitId;
use aquifer::protocol::queue::{Class, Ticket};
use aquifer::protocol::time::Instant;
use aquifer::wire;
use aquifer::wire::signing::Ideal;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000 * MS;

/// The keyed pool has ten requests a second and a burst of 20, and twice as many tokens.
const AMOUNTS: [(u64, u64); 2] = [(10, 20), (20, 40)];
const KEYED: usize = 1;
/// Limits that callers bring along: of the keys that begin with these letters.
const DYNAMIC: [(&str, (u64, u64)); 2] = [("early", (10, 20)), ("late", (3, 7))];

fn pools(keys_max: usize) -> Vec<Pool> {
    let limit = |unit: &str, (amount, burst)| {
        let rate = Rate::new(amount, Duration::from_secs(1), burst).unwrap();
        Limit { name: unit.to_owned(), unit: unit.to_owned(), kind: rate.into() }
    };
    let plain = Pool::new("plain", vec![limit("requests", (1_000, 1_000))]).unwrap();
    let limits = vec![limit("requests", AMOUNTS[0]), limit("tokens", AMOUNTS[1])];
    let mut keyed = Pool::new("keyed", limits).unwrap();
    keyed.keyed = Some(keys_max);
    vec![plain, keyed]
}

fn node(place: usize, incarnation: u64, keys_max: usize, start: Start, now: Instant) -> Node {
    let mut id = [0; 32];
    id[0] = place as u8 + 1;
    let config = NodeConfig {
        id: NodeId(id),
        incarnation: Incarnation(incarnation),
        name: format!("node-{place}"),
        pools: pools(keys_max),
        policy: Policy::Strict,
        forget_after: Duration::from_secs(15),
        weight: 1,
        agents: Agents::default(),
        keys: Arc::new(Ideal),
        vouching: Vouching::default(),
    };
    Node::new(config, start, [place as u8; 32], now)
}

fn cost(requests: u64, tokens: u64) -> Cost {
    let mut cost = Cost::requests(requests);
    cost.units.insert("tokens".to_owned(), tokens);
    cost
}

fn ask(node: &mut Node, key: &str, units: [u64; 2], wait: Duration, now: Instant) -> Acquired {
    let items = &[Item { pool: KEYED, units: &units, key: Some(key) }];
    node.ask(&Ask { items, agent: "", class: Class::Normal, wait, ttl: PERMIT_TTL }, now)
}

fn refusal(acquired: Acquired) -> Option<Reason> {
    match acquired {
        Acquired::Now(Outcome::Refused(refusal)) => Some(refusal.reason),
        _ => None,
    }
}

fn permit(acquired: Acquired) -> PermitId {
    match acquired {
        Acquired::Now(Outcome::Admitted { permit, .. }) => permit,
        other => panic!("not admitted: {other:?}"),
    }
}

enum Event {
    Deliver { from: usize, to: usize, bytes: Vec<u8> },
    Timer { node: usize, generation: u64 },
}

/// A permit that can still be settled.
struct Out {
    node: usize,
    id: PermitId,
    key: String,
    /// Its place among the admissions of the key.
    place: usize,
    units: [u64; 2],
}

/// Nodes in one thread on a bad network, and what they admitted.
struct World {
    now: u64,
    nodes: Vec<Node>,
    saved: Vec<Option<Saved>>,
    lives: Vec<u64>,
    offsets: Vec<u64>,
    generations: Vec<u64>,
    events: BTreeMap<(u64, u64), Event>,
    numbers: u64,
    messages: u64,
    rng: ChaCha8Rng,
    /// The most that a message is late.
    late: u64,
    /// In so many of a hundred cases it is lost, or doubled.
    lost: u64,
    cut: BTreeSet<(usize, usize)>,
    waiting: BTreeMap<(usize, Ticket), (String, [u64; 2])>,
    /// By key: when, and units that were not given back.
    admitted: BTreeMap<String, Vec<(u64, [u64; 2])>>,
    outstanding: Vec<Out>,
}

impl World {
    fn new(size: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let offsets: Vec<u64> = (0..size).map(|_| rng.next_u64() >> 24).collect();
        let start = |place| if place == 0 { Start::Found } else { Start::Join };
        let new = |place| node(place, 1, 100, start(place), Instant::from_nanos(offsets[place]));
        let mut world = Self {
            now: 0,
            nodes: (0..size).map(new).collect(),
            saved: vec![None; size],
            lives: vec![1; size],
            generations: vec![0; size],
            events: BTreeMap::new(),
            numbers: 0,
            messages: 0,
            late: MS,
            lost: 0,
            cut: BTreeSet::new(),
            waiting: BTreeMap::new(),
            admitted: BTreeMap::new(),
            outstanding: Vec::new(),
            offsets,
            rng,
        };
        (1..size).for_each(|place| world.link(place, 0..place));
        (0..size).for_each(|place| world.drain(place));
        world.run_for(6 * SEC);
        world
    }

    fn link(&mut self, one: usize, others: impl IntoIterator<Item = usize>) {
        for other in others.into_iter().filter(|other| *other != one) {
            for (node, peer) in [(one, other), (other, one)] {
                let (peer, now) = (self.nodes[peer].id(), self.clock(node));
                self.nodes[node].handle(Input::Down(peer), now);
                self.nodes[node].handle(Input::Up(peer), now);
                self.drain(node);
            }
        }
    }

    /// One more node, which joins.
    fn add(&mut self) {
        let place = self.nodes.len();
        self.offsets.push(self.rng.next_u64() >> 24);
        self.nodes.push(node(place, 1, 100, Start::Join, self.clock(place)));
        self.saved.push(None);
        self.lives.push(1);
        self.generations.push(0);
        self.link(place, 0..place);
    }

    /// Kills a node and starts it again.
    fn restart(&mut self, place: usize) {
        self.lives[place] += 1;
        let saved = self.saved[place].clone().expect("a member has saved something");
        self.nodes[place] = node(place, self.lives[place], 100, Start::Resume(saved), self.clock(place));
        self.waiting.retain(|(node, _), _| *node != place);
        self.link(place, 0..self.nodes.len());
    }

    fn random(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn clock(&self, place: usize) -> Instant {
        Instant::from_nanos(self.now + self.offsets[place])
    }

    fn push(&mut self, after: u64, event: Event) {
        self.numbers += 1;
        self.events.insert((self.now + after, self.numbers), event);
    }

    fn run_for(&mut self, nanos: u64) {
        let until = self.now + nanos;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            match event {
                Event::Deliver { from, to, bytes } => {
                    let message = wire::decode_message(&bytes).expect("it was encoded");
                    let (from, now) = (self.nodes[from].id(), self.clock(to));
                    self.nodes[to].handle(Input::Message(from, Box::new(message)), now);
                    self.drain(to);
                }
                Event::Timer { node, generation } if generation == self.generations[node] => {
                    let now = self.clock(node);
                    self.nodes[node].handle(Input::Timeout, now);
                    self.drain(node);
                }
                Event::Timer { .. } => {}
            }
        }
        self.now = until;
    }

    fn drain(&mut self, place: usize) {
        while let Some(output) = self.nodes[place].poll_output() {
            match output {
                Output::Send(to, message) => {
                    self.messages += 1;
                    let to = self.nodes.iter().position(|node| node.id() == to).expect("it exists");
                    let bytes = wire::encode_message(&message).expect("it fits");
                    for _ in 0..=u64::from(self.random(100) < self.lost) {
                        let after = self.random(self.late);
                        if self.random(100) >= self.lost && !self.cut.contains(&(place, to)) {
                            self.push(after, Event::Deliver { from: place, to, bytes: bytes.clone() });
                        }
                    }
                }
                Output::Save(saved) => self.saved[place] = Some(*saved),
                Output::Answer(ticket, outcome) => {
                    let (key, units) = self.waiting.remove(&(place, ticket)).expect("one answer");
                    self.answered(place, &key, units, outcome);
                }
                _ => {}
            }
        }
        self.generations[place] += 1;
        let at = self.nodes[place].next_deadline().as_nanos().saturating_sub(self.offsets[place]);
        let timer = Event::Timer { node: place, generation: self.generations[place] };
        self.push(at.saturating_sub(self.now), timer);
    }

    fn answered(&mut self, node: usize, key: &str, units: [u64; 2], outcome: Outcome) {
        if let Outcome::Admitted { permit: id, .. } = outcome {
            let admitted = self.admitted.entry(key.to_owned()).or_default();
            admitted.push((self.now, units));
            self.outstanding.push(Out { node, id, key: key.to_owned(), place: admitted.len() - 1, units });
        }
    }

    fn ask(&mut self, place: usize, key: &str, units: [u64; 2], wait: Duration) {
        let now = self.clock(place);
        match ask(&mut self.nodes[place], key, units, wait, now) {
            Acquired::Now(outcome) => self.answered(place, key, units, outcome),
            Acquired::Waiting(ticket) => {
                self.waiting.insert((place, ticket), (key.to_owned(), units));
            }
        }
        self.drain(place);
    }

    /// A call that brings its limit along.
    fn throttle(&mut self, place: usize, key: &str, units: u64) {
        let (amount, burst) = DYNAMIC.iter().find(|(name, _)| key.starts_with(name)).expect("it has one").1;
        let rate = Rate::new(amount, Duration::from_secs(1), burst).unwrap();
        let now = self.clock(place);
        let throttled = self.nodes[place].throttle(key.as_bytes(), rate, units, now).expect("there is room");
        if throttled.allowed {
            self.admitted.entry(key.to_owned()).or_default().push((self.now, [units, 0]));
        }
        self.drain(place);
    }

    /// Settles a permit: so much more or less of each limit was used.
    fn settle(&mut self, which: usize, more: bool, by: u64) {
        let out = self.outstanding.swap_remove(which % self.outstanding.len());
        let used = out.units.map(|units| if more { units + by } else { units.saturating_sub(by) });
        let now = self.clock(out.node);
        if self.nodes[out.node].commit(out.id, &cost(used[0], used[1]), now).is_ok() {
            let kept = &mut self.admitted.get_mut(&out.key).expect("it was admitted")[out.place].1;
            for (kept, used) in kept.iter_mut().zip(used) {
                *kept = (*kept).min(used);
            }
        }
        self.drain(out.node);
    }

    fn total(&self, key: &str) -> u64 {
        self.admitted.get(key).map_or(0, |admitted| admitted.iter().map(|(_, units)| units[0]).sum())
    }

    fn promoted(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.keys(KEYED).unwrap().1).collect()
    }

    /// Every interval that begins and ends with an admission, by the definition of the limit.
    fn check(&self) {
        for (key, admitted) in &self.admitted {
            let dynamic = DYNAMIC.iter().find(|(name, _)| key.starts_with(name));
            let amounts = dynamic.map_or(AMOUNTS, |(_, amounts)| [*amounts, AMOUNTS[1]]);
            for (place, (amount, burst)) in amounts.into_iter().enumerate() {
                for (first, (from, _)) in admitted.iter().enumerate() {
                    let mut units = 0;
                    for (to, more) in &admitted[first..] {
                        units += more[place];
                        let allowed =
                            u128::from(burst) * u128::from(SEC) + u128::from(amount) * u128::from(to - from);
                        let used = u128::from(units) * u128::from(SEC);
                        assert!(used <= allowed, "{key}: {units} of limit {place} from {from} to {to}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_contended_key_borrows_all_of_its_limit_and_is_forgotten_when_it_is_calm() {
    let mut world = World::new(2, 1);
    for round in 0..3 {
        let before = world.total("user-42");
        for _ in 0..100 {
            world.ask(0, "user-42", [2, 1], Duration::from_secs(1));
            world.run_for(100 * MS);
        }
        let admitted = world.total("user-42") - before;
        assert_eq!(world.promoted(), [1, 1]);
        // Half of the limit is 50 and a burst of 10.
        assert!((90..=120).contains(&admitted), "{admitted} in round {round}");
        world.run_for(20 * SEC);
        assert_eq!(world.promoted(), [0, 0], "round {round}");
        assert!(world.nodes.iter().all(|node| node.keys(KEYED) == Some((0, 0))));
    }
    world.check();
}

#[test]
fn a_key_that_is_not_contended_is_nobodys_business() {
    let mut world = World::new(2, 2);
    world.run_for(10 * SEC);
    let begin = world.messages;
    world.run_for(20 * SEC);
    let idle = world.messages - begin;
    for step in 0..40 {
        for user in 0..10 {
            world.ask(step % 2, &format!("user-{user}"), [1, 1], Duration::ZERO);
        }
        world.run_for(SEC / 2);
    }
    assert_eq!((world.total("user-7"), world.promoted()), (40, vec![0, 0]));
    let busy = world.messages - begin - idle;
    // The windows begin at another place between two greetings, and each node greets the other and is answered.
    assert!(busy <= idle + 4, "{busy} messages while keys are asked for, {idle} while none is");
    world.check();
}

#[test]
fn no_key_is_ever_over_its_limit_on_a_bad_network() {
    for seed in 0..12 {
        let mut world = World::new(3, seed);
        (world.late, world.lost) = (300 * MS, 10);
        for step in 0..400 {
            match step {
                150 => world.add(),
                200 | 300 => world.restart(seed as usize % 3),
                _ => {}
            }
            let (place, key) = (world.random(3) as usize, format!("user-{}", world.random(3)));
            let units = [1 + world.random(6), world.random(9)];
            match world.random(20) {
                0..=4 => {
                    let number = world.random(2);
                    let key = if step < 250 { format!("early-{number}") } else { format!("late-{number}") };
                    world.throttle(place, &key, units[0]);
                }
                5..=13 => {
                    let wait = Duration::from_millis(500 * world.random(4));
                    world.ask(place, &key, units, wait);
                }
                14..=15 if !world.outstanding.is_empty() => {
                    let which = world.random(1 << 20) as usize;
                    let (more, by) = (world.random(3) == 0, world.random(6));
                    world.settle(which, more, by);
                }
                16 => {
                    let other = world.random(3) as usize;
                    world.cut.insert((place, other));
                }
                17..=18 => world.cut.clear(),
                _ => {
                    let pause = world.random(9 * SEC);
                    world.run_for(pause);
                }
            }
            let pause = world.random(100 * MS);
            world.run_for(pause);
        }
        world.cut.clear();
        world.run_for(3 * SEC);
        world.check();
        assert!(world.waiting.is_empty(), "seed {seed}");
        world.run_for(60 * SEC);
        assert_eq!(world.promoted(), [0; 4], "seed {seed}");
        // Nothing of what callers brought along is left, once nobody asks for it.
        world.run_for(60 * SEC);
        assert!(world.nodes.iter().all(|node| node.dynamic_limits() == (0, 0)), "seed {seed}");
    }
}

fn alone(keys_max: usize) -> Node {
    node(0, 1, keys_max, Start::Found, Instant::ZERO)
}

#[test]
fn every_key_has_its_own_limit_and_no_key_is_the_empty_one() {
    let mut node = alone(10);
    let now = Instant::ZERO;
    for key in ["a", "b", ""] {
        permit(ask(&mut node, key, [20, 0], Duration::ZERO, now));
    }
    let refused = node.acquire(KEYED, &cost(1, 0), Duration::ZERO, now);
    assert_eq!(refusal(refused), Some(Reason::Limit));
    let never = ask(&mut node, "c", [21, 0], Duration::from_secs(9), now);
    assert_eq!(refusal(never), Some(Reason::Never));
    assert_eq!(node.keys(KEYED), Some((2, 1)), "only the empty one is promoted");
    assert_eq!(node.keys(0), None);
}

#[test]
fn a_request_that_lacks_something_waits_for_its_key_alone() {
    let mut node = alone(10);
    permit(ask(&mut node, "a", [20, 0], Duration::ZERO, Instant::ZERO));
    let Acquired::Waiting(ticket) = ask(&mut node, "a", [5, 0], Duration::from_secs(1), Instant::ZERO) else {
        panic!("it waits");
    };
    permit(ask(&mut node, "b", [20, 0], Duration::ZERO, Instant::ZERO));
    node.handle(Input::Timeout, Instant::ZERO + Duration::from_millis(500));
    let answer = std::iter::from_fn(|| node.poll_output()).find_map(|output| match output {
        Output::Answer(answered, Outcome::Admitted { waited, .. }) => Some((answered, waited)),
        _ => None,
    });
    assert_eq!(answer, Some((ticket, Duration::from_millis(500))));
    assert_eq!(node.pool_view(KEYED, Instant::ZERO).waiting, [0; 4]);
}

#[test]
fn at_the_bounds_strangers_are_refused_and_others_are_not() {
    let mut node = alone(2);
    let now = Instant::ZERO;
    for key in ["a", "b"] {
        permit(ask(&mut node, key, [1, 0], Duration::ZERO, now));
    }
    let refused = ask(&mut node, "c", [1, 0], Duration::from_secs(9), now);
    assert_eq!(refusal(refused), Some(Reason::TooManyKeys));
    permit(ask(&mut node, "a", [1, 0], Duration::ZERO, now));

    let mut node = alone(1_000);
    let most = (METERS_MAX - 1) / AMOUNTS.len();
    for key in 0..most + 5 {
        let key = format!("user-{key}");
        permit(ask(&mut node, &key, [20, 0], Duration::ZERO, now));
        let second = ask(&mut node, &key, [1, 0], Duration::from_secs(9), now);
        let refused = refusal(second);
        assert_eq!(
            refused.is_some(),
            node.keys(KEYED).unwrap().1 == most && refused == Some(Reason::TooManyKeys)
        );
    }
    assert_eq!(node.keys(KEYED), Some((5, most)));
}

#[test]
fn what_was_not_used_comes_back_and_what_was_used_more_is_owed() {
    for promoted in [false, true] {
        let mut node = alone(10);
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        if promoted {
            permit(ask(&mut node, "a", [20, 0], Duration::ZERO, at(0)));
            assert_eq!(refusal(ask(&mut node, "a", [1, 0], Duration::ZERO, at(0))), Some(Reason::Limit));
            node.handle(Input::Timeout, at(2_500));
        }
        let start = if promoted { 2_500 } else { 0 };
        assert_eq!(node.keys(KEYED).unwrap().1, usize::from(promoted));
        let id = permit(ask(&mut node, "a", [20, 3], Duration::ZERO, at(start)));
        let settled = node.commit(id, &cost(5, 3), at(start + 500)).unwrap();
        assert_eq!(settled.settlement.keyed, Some(KEYED as u32));
        assert_eq!(settled.settlement.corrections.len(), 1);
        // 5 came back by themselves, 15 with the commit.
        let id = permit(ask(&mut node, "a", [20, 0], Duration::ZERO, at(start + 500)));
        node.commit(id, &cost(25, 0), at(start + 500)).unwrap();
        assert!(refusal(ask(&mut node, "a", [1, 0], Duration::ZERO, at(start + 1_099))).is_some());
        permit(ask(&mut node, "a", [1, 0], Duration::ZERO, at(start + 1_100)));
    }
}

#[test]
fn what_is_left_of_a_key_is_told_and_what_was_used_already_is_owed() {
    for promoted in [false, true] {
        let mut node = alone(10);
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        if promoted {
            permit(ask(&mut node, "a", [20, 0], Duration::ZERO, at(0)));
            assert_eq!(refusal(ask(&mut node, "a", [1, 0], Duration::ZERO, at(0))), Some(Reason::Limit));
            node.handle(Input::Timeout, at(2_500));
        }
        let start = if promoted { 2_500 } else { 0 };
        let left = |node: &mut Node, limit, millis| {
            let left = node.left(KEYED, limit, "a", at(start + millis));
            assert_eq!(left.held, left.remaining, "it is alone");
            (left.remaining, left.reset_in.as_millis())
        };
        let admits = |node: &mut Node, millis| {
            let items = &[Item { pool: KEYED, units: &[1, 0], key: Some("a") }];
            let (class, wait) = (Class::Normal, Duration::ZERO);
            node.would_admit(&Ask { items, agent: "", class, wait, ttl: PERMIT_TTL }, at(start + millis))
        };
        assert_eq!((left(&mut node, 0, 0), left(&mut node, 1, 0)), ((20, 0), (40, 0)));
        permit(ask(&mut node, "a", [15, 1], Duration::ZERO, at(start)));
        assert_eq!((left(&mut node, 0, 0), left(&mut node, 1, 0)), ((5, 1_500), (39, 50)));
        assert_eq!(left(&mut node, 0, 500), (10, 1_000));
        assert!(admits(&mut node, 500));
        node.charge(KEYED, Some("a"), &cost(30, 0), at(start + 500));
        assert_eq!(left(&mut node, 0, 500).0, 0);
        // 20 are owed, and one is needed: ten a second.
        assert!(!admits(&mut node, 2_599));
        assert!(admits(&mut node, 2_600));
        assert_eq!(node.keys(KEYED).unwrap().1, usize::from(promoted), "a look promotes nothing");
    }
    let mut node = alone(10);
    node.charge(0, None, &Cost::requests(1_500), Instant::ZERO);
    let at = |millis| Instant::ZERO + Duration::from_millis(millis);
    assert_eq!(node.left(0, 0, "", at(0)).remaining, 0);
    assert_eq!(node.left(0, 0, "", at(700)).remaining, 200);
}

#[test]
fn several_pools_and_keys_are_taken_all_or_none() {
    let mut node = alone(10);
    let now = Instant::ZERO;
    let (one, most) = (cost(1, 0), cost(20, 0));
    let both = |node: &mut Node, cost: &Cost| {
        let units = [KEYED, 0].map(|pool| node.pool_at(pool).units(cost));
        let item = |pool, key| Item { pool, units: &units[usize::from(pool == 0)], key };
        let items = &[item(KEYED, Some("a")), item(KEYED, Some("b")), item(0, None)];
        let ask = Ask { items, agent: "", class: Class::Normal, wait: Duration::ZERO, ttl: PERMIT_TTL };
        node.ask(&ask, now)
    };
    let id = permit(both(&mut node, &one));
    assert_eq!(node.keys(KEYED), Some((0, 2)));
    permit(ask(&mut node, "b", [19, 0], Duration::ZERO, now));
    assert_eq!(refusal(both(&mut node, &one)), Some(Reason::Limit));
    permit(ask(&mut node, "a", [19, 0], Duration::ZERO, now));
    assert_eq!(refusal(both(&mut node, &most)), Some(Reason::Limit));
    // While the permit names their meters, the keys keep them.
    for second in 1..30 {
        node.handle(Input::Timeout, now + Duration::from_secs(second));
    }
    assert_eq!(node.keys(KEYED), Some((0, 2)));
    node.release(id, now + Duration::from_secs(30)).unwrap();
    for second in 31..60 {
        node.handle(Input::Timeout, now + Duration::from_secs(second));
    }
    assert_eq!(node.keys(KEYED), Some((0, 0)));
}

fn throttle(node: &mut Node, key: &str, (amount, burst): (u64, u64), units: u64, at: Instant) -> Throttled {
    let rate = Rate::new(amount, Duration::from_secs(1), burst).unwrap();
    node.throttle(key.as_bytes(), rate, units, at).unwrap()
}

/// The generic cell rate algorithm, as redis-cell computes it, in nanoseconds.
#[derive(Default)]
struct Gcra {
    arrival: i64,
}

impl Gcra {
    fn throttle(
        &mut self,
        (amount, burst): (u64, u64),
        units: u64,
        now: i64,
    ) -> (bool, u64, Option<i64>, i64) {
        let interval = SEC as i64 / amount as i64;
        let tolerance = interval * burst as i64;
        let increment = interval * units as i64;
        let arrival = self.arrival.max(now) + increment;
        let early = arrival - tolerance - now;
        let (allowed, until_full) =
            if early > 0 { (false, self.arrival - now) } else { (true, arrival - now) };
        if allowed {
            self.arrival = arrival;
        }
        let retry = (!allowed && increment <= tolerance).then_some(early);
        let left = tolerance - until_full.max(0);
        (allowed, (left / interval) as u64, retry, until_full.max(0))
    }
}

#[test]
fn a_node_alone_answers_as_the_generic_cell_rate_algorithm_does() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for limit in [(1, 5), (10, 1), (20, 40), (1_000, 16)] {
        let (mut node, mut gcra) = (alone(10), Gcra::default());
        let mut now = 0;
        for call in 0..500 {
            let units = rng.next_u64() % 8;
            let is = throttle(&mut node, "a", limit, units, Instant::from_nanos(now));
            let (allowed, remaining, retry, reset) = gcra.throttle(limit, units, now as i64);
            let nanos = |duration: Duration| duration.as_nanos() as i64;
            let is = (is.allowed, is.left.remaining, is.retry_after.map(nanos), nanos(is.left.reset_in));
            assert_eq!(
                is,
                (allowed, remaining, retry, reset),
                "call {call} of {units} at {now} of {limit:?}"
            );
            now += rng.next_u64() % (3 * SEC / limit.0);
        }
        assert_eq!(node.dynamic_limits().0, 1);
    }
}

#[test]
fn a_peer_that_never_heard_of_a_limit_lends_its_share_of_it() {
    let mut world = World::new(3, 5);
    let end = world.now + 10 * SEC;
    while world.now < end {
        world.throttle(0, "early-1", 1);
        world.run_for(20 * MS);
    }
    let admitted = world.total("early-1");
    // A third of the limit would be 33 and a burst of 6.
    assert!((100..=120).contains(&admitted), "{admitted}");
    assert!(world.nodes.iter().all(|node| node.dynamic_limits().0 == 1));
    world.check();
}

#[test]
fn the_same_key_with_other_numbers_is_another_limit_and_reported() {
    let mut world = World::new(2, 6);
    let now = world.clock(0);
    assert!(throttle(&mut world.nodes[0], "a", (10, 20), 5, now).allowed);
    assert_eq!(world.nodes[0].conflicts().count(), 0);
    assert!(throttle(&mut world.nodes[0], "a", (1, 2), 1, now).allowed);
    let conflict = *world.nodes[0].conflicts().next().expect("it was noticed");
    assert_eq!((conflict.ours.burst(), conflict.theirs.burst(), conflict.peer), (2, 20, None));
    // Between nodes only when somebody needs help with the key.
    for _ in 0..30 {
        let now = world.clock(1);
        throttle(&mut world.nodes[1], "a", (5, 9), 1, now);
        world.drain(1);
        world.run_for(20 * MS);
    }
    let (first, second) = (world.nodes[0].id(), world.nodes[1].id());
    let peers: Vec<_> = world.nodes[0].conflicts().map(|conflict| conflict.peer).collect();
    assert_eq!(peers, [Some(second)], "{first:?}");
}

#[test]
fn there_are_only_so_many_numbers_and_unused_ones_make_room() {
    let mut node = alone(10);
    let now = Instant::ZERO;
    for amount in 1..=RATES_MAX as u64 {
        assert!(throttle(&mut node, "a", (amount, 5), 1, now).allowed);
    }
    let rate = Rate::new(999, Duration::from_secs(1), 5).unwrap();
    assert_eq!(node.throttle(b"a", rate, 1, now), Err(ThrottleError::TooManyRates));
    for second in 1..80 {
        node.handle(Input::Timeout, now + Duration::from_secs(second));
    }
    assert_eq!(node.dynamic_limits(), (0, 0));
    let later = now + Duration::from_secs(80);
    // What is made late is as full as it would be had it always been there.
    assert!(node.throttle(b"a", rate, 5, later).unwrap().allowed);
    assert!(!node.throttle(b"a", rate, 5, later).unwrap().allowed);
    assert_eq!(node.throttle(b"a", rate, 6, later).unwrap().retry_after, None);
}
