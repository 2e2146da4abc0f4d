//! Limits of every kind, shared by a few cores in simulated time: never over, hardly anything wasted, urgent first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use aquifer::protocol::agents::Agents;
use aquifer::protocol::breaker::{BreakerConfig, BreakerState, CallOutcome};
use aquifer::protocol::calendar::{Calendar, Every, UnixNanos, Zone};
use aquifer::protocol::id::{Incarnation, NodeId};
use aquifer::protocol::limit::{Concurrency, Cost, Kind, Limit, Pool, Rate, Window};
use aquifer::protocol::node::{
    Acquired, Ask, Input, Item, Node, NodeConfig, Outcome, Output, Policy, Reason, Saved, Start, Vouching,
};
use aquifer::protocol::permit::PermitId;
use aquifer::protocol::queue::{Class, Ticket};
use aquifer::protocol::time::Instant;
use aquifer::wire;
use aquifer::wire::signing::Ideal;

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000 * MS;
/// How long a message travels.
const HOP: u64 = 5 * MS;
/// True time zero, in Unix time: a minute begins a little after it.
const EPOCH: i64 = 1_800_000_000_000_000_000 + 57_000_000_000;

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn id(place: usize) -> NodeId {
    NodeId([place as u8 + 1; 32])
}

/// Something that was admitted.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    at: u64,
    node: usize,
    permit: PermitId,
    class: Class,
    waited: Duration,
}

/// A message under way: when it comes, its number, from, to, bytes.
type Letter = (u64, u64, usize, usize, Vec<u8>);

/// Some cores with links of a few milliseconds between all of them.
struct Swarm {
    nodes: Vec<Node>,
    now: u64,
    messages: BinaryHeap<Reverse<Letter>>,
    sent: u64,
    waiting: BTreeMap<(usize, Ticket), Class>,
    admitted: Vec<Admitted>,
    refused: Vec<(u64, usize, Reason)>,
    /// Wall clocks are off by so much.
    offsets: Vec<i64>,
}

impl Swarm {
    fn new(pool: &Pool, offsets: &[i64]) -> Self {
        let node = |place: usize| {
            let config = NodeConfig {
                id: id(place),
                incarnation: Incarnation(1),
                name: format!("node-{place}"),
                pools: vec![pool.clone()],
                policy: Policy::Strict,
                forget_after: Duration::from_secs(60),
                weight: 1,
                agents: Agents::default(),
                keys: Arc::new(Ideal),
                vouching: Vouching::default(),
            };
            let start = if place == 0 { Start::Found } else { Start::Join };
            Node::new(config, start, [place as u8; 32], at(0))
        };
        let nodes = (0..offsets.len()).map(node).collect();
        let mut swarm = Self {
            nodes,
            now: 0,
            messages: BinaryHeap::new(),
            sent: 0,
            waiting: BTreeMap::new(),
            admitted: Vec::new(),
            refused: Vec::new(),
            offsets: offsets.to_vec(),
        };
        for place in 0..offsets.len() {
            swarm.tell_wall(place);
            for other in (0..offsets.len()).filter(|other| *other != place) {
                swarm.nodes[place].handle(Input::Up(id(other)), at(0));
            }
            swarm.carry_out(place);
        }
        // Until everybody is a member with an equal share.
        swarm.run_to(8 * SEC);
        swarm
    }

    fn tell_wall(&mut self, place: usize) {
        let unix = UnixNanos(EPOCH + self.now as i64 + self.offsets[place]);
        self.nodes[place].set_wall(unix, at(self.now));
    }

    fn carry_out(&mut self, place: usize) {
        while let Some(output) = self.nodes[place].poll_output() {
            match output {
                Output::Send(to, message) => {
                    let to = usize::from(to.0[0]) - 1;
                    self.sent += 1;
                    let bytes = wire::encode_message(&message).unwrap();
                    self.messages.push(Reverse((self.now + HOP, self.sent, place, to, bytes)));
                }
                Output::Answer(ticket, outcome) => {
                    let class = self.waiting.remove(&(place, ticket)).expect("answered once");
                    self.note(place, class, outcome);
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, node: usize, class: Class, outcome: Outcome) {
        match outcome {
            Outcome::Admitted { waited, permit, .. } => {
                self.admitted.push(Admitted { at: self.now, node, permit, class, waited });
            }
            Outcome::Refused(refusal) => self.refused.push((self.now, node, refusal.reason)),
        }
    }

    /// Lets everything happen that is due until `end`.
    fn run_to(&mut self, end: u64) {
        loop {
            let message = self.messages.peek().map_or(u64::MAX, |message| message.0.0);
            let timer = self.nodes.iter().map(|node| node.next_deadline().as_nanos()).min().unwrap();
            let next = message.min(timer.max(self.now));
            if next > end {
                break;
            }
            self.now = next;
            if message == next {
                let Reverse((_, _, from, to, bytes)) = self.messages.pop().unwrap();
                let message = wire::decode_message(&bytes).unwrap();
                self.nodes[to].handle(Input::Message(id(from), Box::new(message)), at(next));
                self.carry_out(to);
            } else {
                for place in 0..self.nodes.len() {
                    if self.nodes[place].next_deadline().as_nanos() <= next {
                        self.nodes[place].handle(Input::Timeout, at(next));
                        self.carry_out(place);
                    }
                }
            }
        }
        self.now = end;
    }

    fn ask(&mut self, node: usize, units: u64, class: Class, wait: Duration) {
        let units = self.nodes[node].pool_at(0).units(&Cost::requests(units));
        let items = &[Item { pool: 0, units: &units, key: None }];
        let ask = Ask { items, agent: "", class, wait, ttl: Duration::from_secs(30) };
        match self.nodes[node].ask(&ask, at(self.now)) {
            Acquired::Now(outcome) => self.note(node, class, outcome),
            Acquired::Waiting(ticket) => {
                self.waiting.insert((node, ticket), class);
            }
        }
        self.carry_out(node);
    }

    /// The most that was admitted in any interval of this length.
    fn most_in(&self, length: u64) -> usize {
        let times: Vec<u64> = self.admitted.iter().map(|it| it.at).collect();
        let inside = |from: usize| times[from..].partition_point(|at| *at < times[from] + length);
        (0..times.len()).map(inside).max().unwrap_or(0)
    }
}

fn pool(kind: Kind) -> Pool {
    let limit = Limit { name: "calls".to_owned(), unit: "requests".to_owned(), kind };
    Pool::new("pool", vec![limit]).unwrap()
}

#[test]
fn a_window_is_used_up_by_whoever_asks_and_never_exceeded() {
    let kind = Kind::Window(Window::new(60, Duration::from_secs(2)).unwrap());
    let mut swarm = Swarm::new(&pool(kind), &[0; 3]);
    let start = swarm.now;
    // One node alone wants more than there is, then another.
    for step in 0..4_000_u64 {
        swarm.run_to(start + step * 10 * MS);
        let node = if step < 2_000 { 1 } else { 2 };
        swarm.ask(node, 1, Class::Normal, Duration::from_secs(1));
    }
    swarm.run_to(start + 42 * SEC);
    let most = swarm.most_in(2 * SEC);
    let used = swarm.admitted.len() as f64 / (40.0 * 30.0);
    println!("window: {most} of 60 at most, {:.1} % used", used * 100.0);
    assert!(most <= 60, "{most}");
    assert!(used > 0.9, "{used}");
}

#[test]
fn a_calendar_is_never_exceeded_in_a_true_minute_though_clocks_differ() {
    let calendar = Calendar::new(300, Every::Minute, Zone::utc()).unwrap();
    let offsets = [0, 40 * MS as i64, -40 * MS as i64];
    let mut swarm = Swarm::new(&pool(Kind::Calendar(calendar)), &offsets);
    let start = swarm.now;
    for step in 0..9_000_u64 {
        swarm.run_to(start + step * 20 * MS);
        if step % 500 == 0 {
            (0..3).for_each(|place| swarm.tell_wall(place));
        }
        swarm.ask((step % 3) as usize, 1, Class::Normal, Duration::ZERO);
    }
    let mut by_minute = BTreeMap::new();
    for admitted in &swarm.admitted {
        let minute = (EPOCH + admitted.at as i64).div_euclid(60 * SEC as i64);
        *by_minute.entry(minute).or_insert(0) += 1;
    }
    println!("calendar: {by_minute:?}");
    assert!(by_minute.values().all(|units| *units <= 300), "{by_minute:?}");
    assert!(by_minute.values().filter(|units| **units >= 290).count() >= 3, "{by_minute:?}");
}

#[test]
fn no_more_permits_are_out_than_may_be_though_there_are_fewer_than_nodes() {
    let kind = Kind::Concurrency(Concurrency::new(2, Duration::from_secs(60)).unwrap());
    let mut swarm = Swarm::new(&pool(kind), &[0; 4]);
    let start = swarm.now;
    let mut out: BinaryHeap<Reverse<(u64, usize, PermitId)>> = BinaryHeap::new();
    let (mut most, mut seen, mut busy) = (0, 0, 0);
    for step in 0..6_000_u64 {
        swarm.run_to(start + step * 5 * MS);
        while let Some(Reverse((_, node, permit))) =
            out.peek().copied().filter(|Reverse((end, ..))| *end <= swarm.now)
        {
            out.pop();
            swarm.nodes[node].commit(permit, &Cost::requests(1), at(swarm.now)).unwrap();
            swarm.carry_out(node);
        }
        if step % 10 == 0 {
            (0..4).for_each(|node| swarm.ask(node, 1, Class::Normal, Duration::from_secs(3)));
        }
        for admitted in &swarm.admitted[seen..] {
            out.push(Reverse((admitted.at + 100 * MS, admitted.node, admitted.permit)));
        }
        seen = swarm.admitted.len();
        most = most.max(out.len());
        busy += out.len();
    }
    let used = busy as f64 / 12_000.0;
    let by_node: Vec<usize> =
        (0..4).map(|node| swarm.admitted.iter().filter(|it| it.node == node).count()).collect();
    println!("concurrency: {most} at most, {:.1} % used, {by_node:?}", used * 100.0);
    assert!(most <= 2, "{most}");
    assert!(used > 0.7, "{used}");
    assert!(by_node.iter().all(|count| *count * 8 >= seen), "{by_node:?}");
}

#[test]
fn urgent_calls_of_one_node_are_served_before_background_of_another() {
    let rate = Rate::new(100, Duration::from_secs(1), 20).unwrap();
    let mut swarm = Swarm::new(&pool(rate.into()), &[0; 3]);
    let start = swarm.now;
    for step in 0..2_000_u64 {
        swarm.run_to(start + step * 10 * MS);
        swarm.ask(0, 1, Class::Low, Duration::from_secs(5));
        swarm.ask(1, 1, Class::Low, Duration::from_secs(5));
        // For ten seconds one wants nearly all of it, urgently.
        if (500..1_500).contains(&step) && step % 10 != 0 {
            swarm.ask(2, 1, Class::Critical, Duration::from_secs(5));
        }
    }
    let during = |it: &&Admitted| it.at > start + 6 * SEC && it.at < start + 15 * SEC;
    let (urgent, low): (Vec<&Admitted>, Vec<&Admitted>) =
        swarm.admitted.iter().filter(during).partition(|it| it.class == Class::Critical);
    let waited = urgent.iter().map(|it| it.waited.as_millis()).sum::<u128>() / urgent.len() as u128;
    println!("{} urgent after {waited} ms, {} low", urgent.len(), low.len());
    assert!(urgent.len() >= 780, "{}", urgent.len());
    assert!(waited < 200, "{waited}");
    assert!(low.len() >= 9 * 3, "the floor: {}", low.len());
}

#[test]
fn a_pause_reaches_everybody_and_ends_for_everybody() {
    let rate = Rate::new(100, Duration::from_secs(1), 20).unwrap();
    let mut swarm = Swarm::new(&pool(rate.into()), &[0; 3]);
    let now = swarm.now;
    swarm.nodes[1].pause(0, Some(Duration::from_secs(5)), at(now));
    swarm.carry_out(1);
    swarm.run_to(now + 100 * MS);
    (0..3).for_each(|node| swarm.ask(node, 1, Class::Normal, Duration::ZERO));
    (0..3).for_each(|node| swarm.ask(node, 1, Class::Critical, Duration::from_secs(20)));
    let paused = |it: &(u64, usize, Reason)| it.2 == Reason::Paused;
    assert!(swarm.refused.len() == 3 && swarm.refused.iter().all(paused), "{:?}", swarm.refused);
    swarm.run_to(now + 5 * SEC - MS);
    assert_eq!(swarm.admitted.len(), 0);
    swarm.run_to(now + 6 * SEC + 100 * MS);
    assert_eq!(swarm.admitted.len(), 3, "all are back within the ramp");
    swarm.nodes[2].pause(0, None, at(swarm.now));
    swarm.carry_out(2);
    swarm.run_to(swarm.now + 100 * MS);
    assert!(swarm.nodes[0].paused(0, at(swarm.now)).is_some());
    swarm.nodes[0].resume(0, at(swarm.now));
    swarm.carry_out(0);
    swarm.run_to(swarm.now + 100 * MS);
    assert!((0..3).all(|node| swarm.nodes[node].paused(0, at(swarm.now)).is_none()));
}

#[test]
fn an_open_breaker_lets_one_probe_pass_in_the_whole_swarm() {
    let mut pool = pool(Rate::new(1_000, Duration::from_secs(1), 200).unwrap().into());
    let (window, open_for) = (Duration::from_secs(10), Duration::from_secs(3));
    pool.breaker = Some(BreakerConfig { failure_rate: 500_000, window, min_count: 10, open_for });
    let mut swarm = Swarm::new(&pool, &[0; 3]);
    // No node alone has enough failures to open it.
    for call in 0..12_usize {
        let now = at(swarm.now);
        swarm.nodes[call % 3].observe(0, CallOutcome::Error, None, now);
        swarm.carry_out(call % 3);
        swarm.run_to(swarm.now + 20 * MS);
    }
    swarm.run_to(swarm.now + 300 * MS);
    for node in &swarm.nodes {
        assert!(matches!(node.breaker(0, at(swarm.now)), Some(BreakerState::Open(_))));
    }
    let opened = swarm.now;
    for step in 0..1_000_u64 {
        swarm.run_to(opened + step * 10 * MS);
        (0..3).for_each(|node| swarm.ask(node, 1, Class::Normal, Duration::ZERO));
    }
    assert_eq!(swarm.admitted.len(), 1, "one probe, which has not reported");
    assert!(swarm.refused.iter().all(|it| it.2 == Reason::Breaker));
    let probe = swarm.admitted[0];
    assert!(probe.at >= opened + 2 * SEC);
    swarm.nodes[probe.node].observe(0, CallOutcome::Ok, None, at(swarm.now));
    swarm.carry_out(probe.node);
    swarm.run_to(swarm.now + 100 * MS);
    for node in &swarm.nodes {
        assert_eq!(node.breaker(0, at(swarm.now)), Some(BreakerState::Closed));
    }
    (0..3).for_each(|node| swarm.ask(node, 1, Class::Normal, Duration::ZERO));
    assert_eq!(swarm.admitted.len(), 4);
}

/// One node with one limit, told that it is noon.
fn alone(kind: Kind, start: Start, now: Instant, unix: i64) -> Node {
    let config = NodeConfig {
        id: id(0),
        incarnation: Incarnation(now.as_nanos() + 1),
        name: "alone".to_owned(),
        pools: vec![pool(kind)],
        policy: Policy::Strict,
        forget_after: Duration::from_secs(60),
        weight: 1,
        agents: Agents::default(),
        keys: Arc::new(Ideal),
        vouching: Vouching::default(),
    };
    let mut node = Node::new(config, start, [7; 32], now);
    node.set_wall(UnixNanos(unix), now);
    node
}

/// What stands on disk after everything was carried out.
fn on_disk(node: &mut Node) -> Option<Saved> {
    let saved = |output| if let Output::Save(saved) = output { Some(*saved) } else { None };
    std::iter::from_fn(|| node.poll_output()).filter_map(saved).last()
}

fn takes(node: &mut Node, units: u64, now: Instant) -> bool {
    let outcome = node.acquire(0, &Cost::requests(units), Duration::ZERO, now);
    matches!(outcome, Acquired::Now(Outcome::Admitted { .. }))
}

#[test]
fn a_permit_given_back_at_the_moment_of_its_admission_was_never_there() {
    let second = Duration::from_secs(1);
    let kinds = [
        Kind::from(Rate::new(10, second, 10).unwrap()),
        Kind::Window(Window::new(10, second).unwrap()),
        Kind::Calendar(Calendar::new(10, Every::Day, Zone::utc()).unwrap()),
        Kind::Concurrency(Concurrency::new(10, second).unwrap()),
    ];
    for kind in kinds {
        let now = at(SEC);
        let mut node = alone(kind.clone(), Start::Found, at(0), 1_800_000_000_000_000_000);
        for _ in 0..5 {
            let Acquired::Now(Outcome::Admitted { permit, .. }) =
                node.acquire(0, &Cost::requests(10), Duration::ZERO, now)
            else {
                panic!("{kind:?}: what was taken did not come back");
            };
            node.release(permit, now).unwrap();
        }
        assert!(takes(&mut node, 10, now) && !takes(&mut node, 1, now), "{kind:?}");
    }
}

#[test]
fn a_days_budget_survives_a_crash_and_is_not_spent_twice() {
    let noon = 20_000 * 86_400 * SEC as i64 + 43_200 * SEC as i64;
    let day = || Kind::Calendar(Calendar::new(3_200, Every::Day, Zone::utc()).unwrap());
    let slow = || Kind::Rate(Rate::new(3_200, Duration::from_secs(86_400), 3_200).unwrap());
    for (kind, next_day) in [(day(), 3_100), (slow(), 2_600)] {
        let mut node = alone(kind.clone(), Start::Found, at(0), noon);
        // The first look around puts on disk that nothing is missing.
        node.handle(Input::Timeout, at(SEC));
        let mut saved = on_disk(&mut node).unwrap();
        for _ in 0..10 {
            assert!(takes(&mut node, 50, at(2 * SEC)));
            saved = on_disk(&mut node).unwrap_or(saved);
        }
        // Nothing but the file is left of it.
        let later = at(60 * SEC);
        let mut node = alone(kind.clone(), Start::Resume(saved.clone()), later, noon + 60 * SEC as i64);
        let later = later + Duration::from_secs(3);
        node.handle(Input::Timeout, later);
        assert!(!takes(&mut node, 2_710, later), "{kind:?}: what was spent stays spent");
        assert!(takes(&mut node, 2_590, later), "{kind:?}: what was left is there");
        // And if it had been away until the next day:
        let mut node = alone(kind.clone(), Start::Resume(saved), later, noon + 86_400 * SEC as i64);
        let later = later + Duration::from_secs(3);
        node.handle(Input::Timeout, later);
        node.set_wall(UnixNanos(noon + 86_403 * SEC as i64), later);
        assert!(takes(&mut node, next_day, later), "{kind:?}: a new day");
    }
}

#[test]
fn slots_that_are_freed_on_one_node_are_used_on_others_a_hop_later() {
    let kind = Kind::Concurrency(Concurrency::new(10, Duration::from_secs(60)).unwrap());
    let mut swarm = Swarm::new(&pool(kind), &[0; 5]);
    // One node keeps two slots for five seconds; the others, a fair share of which is two and a half, want all others.
    (0..2).for_each(|_| swarm.ask(0, 1, Class::Normal, Duration::ZERO));
    let kept: Vec<PermitId> = swarm.admitted.drain(..).map(|it| it.permit).collect();
    assert_eq!(kept.len(), 2);
    let start = swarm.now;
    let mut out: BinaryHeap<Reverse<(u64, usize, PermitId)>> = BinaryHeap::new();
    let (mut seen, mut idle) = (0, 0);
    for step in 0..10_000_u64 {
        swarm.run_to(start + step * MS);
        let is_over = |call: &Reverse<(u64, usize, PermitId)>| call.0.0 <= start + step * MS;
        while let Some(Reverse((_, node, permit))) = out.peek().copied().filter(is_over) {
            out.pop();
            swarm.nodes[node].commit(permit, &Cost::requests(1), at(swarm.now)).unwrap();
            swarm.carry_out(node);
        }
        if step % 20 == 0 {
            (1..5).for_each(|node| swarm.ask(node, 1, Class::Normal, Duration::from_secs(3)));
        }
        if step == 5_000 {
            for permit in &kept {
                swarm.nodes[0].close(*permit, at(swarm.now));
                swarm.carry_out(0);
            }
        }
        for admitted in &swarm.admitted[seen..] {
            out.push(Reverse((admitted.at + 300 * MS, admitted.node, admitted.permit)));
        }
        seen = swarm.admitted.len();
        let free = if step < 5_000 { 8 } else { 10 };
        assert!(out.len() <= free, "at {step}");
        idle += if step < 100 { 0 } else { free - out.len() };
    }
    // Two slots for the hop that they take, and what the steps of this loop round up.
    assert!(idle <= 200, "{idle} slot-milliseconds");
}
