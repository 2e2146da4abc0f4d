//! How long admission takes in the core: the time is given, nobody is told, nothing is on disk.
//!
//! `cargo bench --no-default-features --bench admission`. Permits are settled between the measured asks, so that the
//! node is in the state that it has after hours: as many answers remembered as ever are.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use aquifer::protocol::agents::{AgentRule, Agents};
use aquifer::protocol::id::{Incarnation, NodeId};
use aquifer::protocol::keyed::{KEYS_MAX_DEFAULT, KeyHash, Keys, Taken};
use aquifer::protocol::limit::{Concurrency, Cost, Kind, Limit, Pool, Rate};
use aquifer::protocol::node::{
    Acquired, Ask, Input, Item, Node, NodeConfig, Outcome, Output, PERMIT_TTL, Policy, Start, Vouching,
};
use aquifer::protocol::permit::{PermitId, REMEMBERED};
use aquifer::protocol::queue::Class;
use aquifer::protocol::share::ONE;
use aquifer::protocol::time::Instant;
use aquifer::wire::signing::Ideal;
use criterion::{Criterion, criterion_group, criterion_main};

/// Permits that are out at a time.
const OUT: usize = 256;
/// Says nothing of any limit.
const AS_RESERVED: Cost = Cost { units: BTreeMap::new(), limits: BTreeMap::new() };
/// From one request to the next.
const PAUSE: Duration = Duration::from_micros(1);

/// A node that founded a swarm of its own, and the time there.
struct Lone {
    node: Node,
    now: Instant,
}

/// Who asks for what.
#[derive(Clone, Copy)]
struct Call<'a> {
    /// Of each limit of the pool.
    units: &'a [u64],
    agents: &'a [(&'a str, Class)],
}

impl Lone {
    /// With one pool, warm: as many permits have ended as are remembered.
    fn new(limits: Vec<Limit>, call: Call<'_>) -> Self {
        let mut pool = Pool::new("pool", limits).expect("the pool is in bounds");
        pool.max_queue = 20_000;
        let rule = AgentRule {
            matches: "researcher-*".to_owned(),
            weight: 2_000,
            max_share: Some(400_000),
            own_limits: None,
        };
        let config = NodeConfig {
            id: NodeId([1; 32]),
            incarnation: Incarnation(1),
            name: "bench".to_owned(),
            pools: vec![pool],
            policy: Policy::Strict,
            forget_after: Duration::from_secs(60),
            weight: 1,
            agents: Agents::new(vec![rule]).expect("the rule is in bounds"),
            keys: Arc::new(Ideal),
            vouching: Vouching::default(),
        };
        let now = Instant::ZERO + Duration::from_secs(1);
        let mut lone = Self { node: Node::new(config, Start::Found, [7; 32], now), now };
        for number in 0..2 * REMEMBERED {
            let permit = lone.ask(call, number);
            lone.node.commit(permit, &AS_RESERVED, lone.now).expect("it is out");
        }
        lone
    }

    /// Asks for something that is there.
    fn ask(&mut self, call: Call<'_>, number: usize) -> PermitId {
        self.now = self.now + PAUSE;
        let (agent, class) = call.agents[number % call.agents.len()];
        let items = &[Item { pool: 0, units: call.units, key: None }];
        let ask = Ask { items, agent, class, wait: Duration::ZERO, ttl: PERMIT_TTL };
        match self.node.ask(black_box(&ask), self.now) {
            Acquired::Now(Outcome::Admitted { permit, .. }) => permit,
            other => panic!("not admitted: {other:?}"),
        }
    }

    /// What a driver does between calls.
    fn turn(&mut self) {
        self.node.handle(Input::Timeout, self.now);
        while self.node.poll_output().is_some() {}
    }

    /// The time of so many asks alone.
    fn time_asks(&mut self, call: Call<'_>, times: u64) -> Duration {
        let (mut total, mut left) = (Duration::ZERO, times as usize);
        let mut out = Vec::with_capacity(OUT);
        while left > 0 {
            let begin = Clock::now();
            out.extend((0..left.min(OUT)).map(|number| self.ask(call, number)));
            total += begin.elapsed();
            left -= out.len();
            for permit in out.drain(..) {
                self.node.commit(permit, &AS_RESERVED, self.now).expect("it is out");
            }
            self.turn();
        }
        total
    }
}

fn rate(name: &str, unit: &str, per_second: u64, burst: u64) -> Limit {
    let rate = Rate::new(per_second, Duration::from_secs(1), burst).expect("the numbers are in bounds");
    Limit { name: name.to_owned(), unit: unit.to_owned(), kind: Kind::Rate(rate) }
}

fn requests() -> Limit {
    rate("rps", "requests", 2_000_000, 1_000_000)
}

/// Requests, tokens in, tokens out, calls at once.
fn four() -> Vec<Limit> {
    let slots = Concurrency::new(10_000, Duration::from_secs(60)).expect("the numbers are in bounds");
    let slots =
        Limit { name: "concurrent".to_owned(), unit: "requests".to_owned(), kind: Kind::Concurrency(slots) };
    let tokens = |name: &str| rate(name, name, 4_000_000_000, 1_000_000_000);
    vec![requests(), tokens("input_tokens"), tokens("output_tokens"), slots]
}

/// A request.
const ONE_LIMIT: [u64; 1] = [1];
/// What [`tokens`] are of the pool of [`four`].
const FOUR_LIMITS: [u64; 4] = [1, 1_200, 800, 1];

fn tokens() -> Cost {
    let mut cost = Cost::requests(1);
    cost.units.insert("input_tokens".to_owned(), 1_200);
    cost.units.insert("output_tokens".to_owned(), 800);
    cost
}

fn ask(criterion: &mut Criterion) {
    let nobody = [("", Class::Normal)];
    let three =
        [("researcher-1", Class::Normal), ("researcher-2", Class::Low), ("assistant", Class::Critical)];
    let cases = [
        ("one limit", vec![requests()], Call { units: &ONE_LIMIT, agents: &nobody }),
        ("a pool of four", four(), Call { units: &FOUR_LIMITS, agents: &nobody }),
        ("one limit, three agents and classes", vec![requests()], Call { units: &ONE_LIMIT, agents: &three }),
        ("a pool of four, three agents and classes", four(), Call { units: &FOUR_LIMITS, agents: &three }),
    ];
    let mut group = criterion.benchmark_group("ask");
    for (name, limits, call) in cases {
        let mut lone = LazyCell::new(|| Lone::new(limits, call));
        group.bench_function(name, |bencher| bencher.iter_custom(|times| lone.time_asks(call, times)));
    }
    group.finish();
}

fn settle(criterion: &mut Criterion) {
    let (one, tokens) = (Cost::requests(1), tokens());
    let mut less = tokens.clone();
    less.units.insert("output_tokens".to_owned(), 300);
    let nobody = [("", Class::Normal)];
    let mut group = criterion.benchmark_group("ask and commit");
    let cases: [(_, _, &[u64], _); 3] = [
        ("one limit", vec![requests()], &ONE_LIMIT, &one),
        ("a pool of four", four(), &FOUR_LIMITS, &tokens),
        ("a pool of four, a refund", four(), &FOUR_LIMITS, &less),
    ];
    for (name, limits, units, used) in cases {
        let call = Call { units, agents: &nobody };
        let mut state = LazyCell::new(|| {
            let mut lone = Lone::new(limits, call);
            let out: Vec<PermitId> = (0..OUT).map(|number| lone.ask(call, number)).collect();
            (lone, out)
        });
        let mut number = 0;
        group.bench_function(name, |bencher| {
            let (lone, out) = &mut *state;
            bencher.iter(|| {
                number = (number + 1) % OUT;
                let permit = lone.ask(call, number);
                let oldest = std::mem::replace(&mut out[number], permit);
                lone.node.commit(oldest, black_box(used), lone.now).expect("it is out")
            });
            lone.turn();
        });
    }
    group.finish();
}

/// 10,000 wait; one is served and settled, and another comes.
struct Crowd {
    lone: Lone,
    number: usize,
    waiting: usize,
}

impl Crowd {
    const CALLERS: [(&str, Class); 3] =
        [("researcher-1", Class::Normal), ("researcher-2", Class::Low), ("assistant", Class::Critical)];

    fn new(cost: &Cost) -> Self {
        let call = Call { units: &ONE_LIMIT, agents: &Self::CALLERS };
        let lone = Lone::new(vec![rate("rps", "requests", 10_000, 200_000)], call);
        let mut crowd = Self { lone, number: 0, waiting: 0 };
        while crowd.waiting < 10_000 {
            crowd.come(cost);
        }
        crowd
    }

    fn come(&mut self, cost: &Cost) {
        self.number += 1;
        let (agent, class) = Self::CALLERS[self.number % Self::CALLERS.len()];
        let items = &[Item { pool: 0, units: &ONE_LIMIT, key: None }];
        let ask = Ask { items, agent, class, wait: Duration::from_secs(60), ttl: PERMIT_TTL };
        match self.lone.node.ask(&ask, self.lone.now) {
            Acquired::Waiting(_) => self.waiting += 1,
            Acquired::Now(Outcome::Admitted { permit, .. }) => self.settle(permit, cost),
            Acquired::Now(refused) => panic!("{refused:?}"),
        }
        while let Some(output) = self.lone.node.poll_output() {
            if let Output::Answer(_, answer) = output {
                let Outcome::Admitted { permit, .. } = answer else { panic!("{answer:?}") };
                self.waiting -= 1;
                self.settle(permit, cost);
            }
        }
    }

    fn settle(&mut self, permit: PermitId, cost: &Cost) {
        self.lone.node.commit(permit, cost, self.lone.now).expect("it is out");
    }
}

fn queue(criterion: &mut Criterion) {
    let one = Cost::requests(1);
    let mut crowd = LazyCell::new(|| Crowd::new(&one));
    criterion.bench_function("a queue of 10,000: push, serve and commit", |bencher| {
        let crowd = &mut *crowd;
        bencher.iter(|| {
            crowd.lone.now = crowd.lone.now + Duration::from_micros(100);
            crowd.come(&one);
        });
        assert!((9_900..=10_100).contains(&crowd.waiting), "{} wait", crowd.waiting);
    });
}

/// A million keys are written down, and asked for in an order that no cache foresees.
fn keys(criterion: &mut Criterion) {
    let mut state = LazyCell::new(|| {
        let rates = [500, 80_000].map(|amount| {
            Rate::new(amount, Duration::from_secs(60), amount).expect("the numbers are in bounds")
        });
        let mut keys = Keys::new(rates.to_vec(), KEYS_MAX_DEFAULT, Instant::ZERO);
        keys.start_full(ONE, Instant::ZERO);
        let names: Vec<KeyHash> =
            (0..KEYS_MAX_DEFAULT).map(|name| KeyHash::of("pool", format!("user-{name}"))).collect();
        for key in &names {
            // More than comes back while the benchmark runs, so that none is forgotten.
            assert_eq!(keys.acquire(*key, &[250, 100], Instant::ZERO), Taken::Admitted);
        }
        (keys, names)
    });
    let (mut now, mut place) = (Instant::ZERO, 0);
    criterion.bench_function("a million keys, two limits", |bencher| {
        let (keys, names) = &mut *state;
        bencher.iter(|| {
            now = now + Duration::from_nanos(300);
            // A stride that shares no factor with the number of keys visits all.
            place = (place + 611_953) % KEYS_MAX_DEFAULT;
            keys.acquire(black_box(names[place]), &[1, 100], now)
        });
        assert_eq!(keys.len(), KEYS_MAX_DEFAULT, "a key was forgotten");
    });
}

/// What `CL.THROTTLE` asks: callers bring the numbers along, a thousand keys take turns.
fn throttle(criterion: &mut Criterion) {
    let rate =
        Rate::new(1_000_000, Duration::from_secs(1_000_000), 1_000_001).expect("the numbers are in bounds");
    let names: Vec<String> = (0..1_000).map(|name| format!("k:{name:012}")).collect();
    let call = Call { units: &ONE_LIMIT, agents: &[("", Class::Normal)] };
    let mut lone = LazyCell::new(|| Lone::new(vec![requests()], call));
    let mut number = 0;
    criterion.bench_function("a limit that is brought along, a thousand keys", |bencher| {
        let lone = &mut *lone;
        bencher.iter(|| {
            number = (number + 611) % names.len();
            lone.now = lone.now + PAUSE;
            let throttled = lone.node.throttle(black_box(names[number].as_bytes()), rate, 1, lone.now);
            assert!(throttled.expect("there is room").allowed);
        });
    });
}

criterion_group!(benches, ask, settle, queue, keys, throttle);
criterion_main!(benches);
