//! A node in a swarm of three, and a peer at the other end of its only link: what comes over that link is fuzzed.

use std::sync::Arc;
use std::time::Duration;

use aquifer::protocol::agents::Agents;
use aquifer::protocol::breaker::BreakerConfig;
use aquifer::protocol::calendar::UnixNanos;
use aquifer::protocol::gossip::Record;
use aquifer::protocol::id::{Incarnation, LedgerId, NodeId};
use aquifer::protocol::ledger::Gift;
use aquifer::protocol::limit::{Concurrency, Cost, Limit, Pool, Rate, Window};
use aquifer::protocol::message::Message;
use aquifer::protocol::node::{Input, Node, NodeConfig, Output, Phase, Policy, Saved, Start, Vouching};
use aquifer::protocol::record::{Key, Value};
use aquifer::protocol::share::{ONE, Share};
use aquifer::protocol::signature::Statement;
use aquifer::protocol::time::Instant;
use aquifer::wire::signing::Ideal;
use aquifer::wire::{decode_saved, encode_message, encode_saved};

/// The node that is fuzzed. It founded the swarm.
pub const ME: NodeId = NodeId([1; 32]);
/// Who sends what is fuzzed: a member.
pub const PEER: NodeId = NodeId([2; 32]);
/// A member without a link.
pub const DISTANT: NodeId = NodeId([3; 32]);
/// Nobody.
pub const STRANGER: NodeId = NodeId([4; 32]);
/// The present life of [`ME`].
pub const LIFE: Incarnation = Incarnation(5);
/// The book of the swarm.
pub const BOOK: LedgerId = LedgerId(ME);

/// Units of the first limit that are admitted at once, and in a second, by the whole swarm.
const BURST: u64 = 40;
const RATE: u64 = 20;
/// When it starts, on its clock.
const START: Duration = Duration::from_secs(1_000);
/// So many inputs at the same moment must be enough for all that is due at it.
const AT_ONCE: usize = 64;

/// A node, and what is known of it from outside.
pub struct Fuzzed {
    node: Node,
    pub now: Instant,
    started: Instant,
    /// What it said last to the peer.
    pub said: Option<Message>,
    /// It closed the link.
    pub closed: bool,
}

impl Fuzzed {
    /// A node that was a member before, with a third of the whole, as its peer and another member have.
    pub fn member() -> Self {
        let third = || Value::Gift(Gift { share: ONE.scale(1, 3), levels: None, weight: 0 });
        let records =
            [(Key::Founded, Value::Share(ONE)), (Key::Given(PEER), third()), (Key::Given(DISTANT), third())];
        let records = records.iter().zip(1..).map(|((key, value), version)| {
            (
                ME,
                sign(&Statement {
                    ledger: BOOK,
                    author: ME,
                    incarnation: Incarnation(1),
                    version,
                    key,
                    value,
                }),
            )
        });
        let records = records.collect();
        let (reached_at, missing) = ([].into(), Vec::new());
        Self::new(Start::Resume(Saved {
            id: BOOK,
            records,
            reached_at,
            clean: true,
            missing,
            forfeits: false,
        }))
    }

    /// A node that starts like this. Two requests wait, so that it wants share, and takes what is lent to it.
    pub fn new(start: Start) -> Self {
        let now = Instant::ZERO + START;
        let mut node = Node::new(config(ME, LIFE), start, [9; 32], now);
        node.set_wall(UnixNanos(1_800_000_000_000_000_000), now);
        let mut fuzzed = Self { node, now, started: now, said: None, closed: false };
        fuzzed.ask(3);
        fuzzed.ask(BURST);
        fuzzed.input(Input::Up(PEER));
        fuzzed
    }

    /// The peer says something.
    pub fn hear(&mut self, message: Message) {
        self.input(Input::Message(PEER, Box::new(message)));
    }

    /// Time passes, with everything that is due in it.
    pub fn pass(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        let mut at_once = 0;
        while self.node.next_deadline() <= until {
            let next = self.node.next_deadline().max(self.now);
            at_once = if next == self.now { at_once + 1 } else { 0 };
            assert!(at_once < AT_ONCE, "its deadline does not move");
            self.now = next;
            self.input(Input::Timeout);
        }
        self.now = until;
        self.input(Input::Timeout);
    }

    /// Somebody asks for so many requests, and waits.
    pub fn ask(&mut self, requests: u64) {
        self.node.acquire(0, &Cost::requests(requests), Duration::from_secs(30), self.now);
        self.drain();
    }

    fn input(&mut self, input: Input) {
        self.node.handle(input, self.now);
        self.drain();
        self.check();
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Send(to, message) => {
                    encode_message(&message).expect("what it says fits a message");
                    if to == PEER {
                        self.said = Some(*message);
                    }
                }
                Output::Save(saved) => {
                    let bytes = encode_saved(&saved).expect("what it saves fits a file");
                    assert_eq!(decode_saved(&bytes).expect("what it saved is well formed"), *saved);
                }
                Output::Close(_) => self.closed = true,
                Output::Answer(..)
                | Output::Reach(..)
                | Output::Forget(_)
                | Output::Left
                | Output::Notice(_) => {}
            }
        }
    }

    /// What holds whatever anybody says.
    fn check(&mut self) {
        let bases: u128 = self.node.bases().values().map(|base| u128::from(base.0)).sum();
        assert!(bases <= u128::from(ONE.0), "base shares sum to {bases}, more than ONE");
        let known = self.node.page_version(&ME).expect("it has a page of its own");
        assert_eq!(known.0, LIFE, "somebody else began a page of its own");
        // However much the peer says that it lends: together they have no more than there is.
        let spent = self.node.admitted(0);
        let nanos = u128::from(self.now.as_nanos() - self.started.as_nanos());
        let most = u128::from(BURST) + u128::from(RATE) * nanos / 1_000_000_000;
        assert!(u128::from(spent) <= most, "it admitted {spent} requests in {nanos} ns, more than {most}");
        let member = self.node.phase() == Phase::Ready;
        for pool in self.node.pool_views(self.now) {
            for limit in &pool.limits {
                assert!(
                    limit.held <= ONE,
                    "{} is held with {:?}, more than ONE",
                    limit.limit.name,
                    limit.held
                );
                let base = Share((limit.held + limit.lent).0.saturating_sub(limit.borrowed.0));
                assert!(!member || base <= ONE, "{} has {base:?} of its own", limit.limit.name);
            }
        }
    }
}

/// What a node of the swarm is told.
pub fn config(id: NodeId, incarnation: Incarnation) -> NodeConfig {
    let second = Duration::from_secs(1);
    let limit = |name: &str, unit: &str, kind| Limit { name: name.to_owned(), unit: unit.to_owned(), kind };
    let rate = Rate::new(RATE, second, BURST).expect("in bounds");
    let window = Window::new(500, 60 * second).expect("in bounds");
    let slots = Concurrency::new(64, 600 * second).expect("in bounds");
    let limits = vec![
        limit("rps", "requests", rate.into()),
        limit("tpm", "tokens", aquifer::protocol::limit::Kind::Window(window)),
        limit("slots", "requests", aquifer::protocol::limit::Kind::Concurrency(slots)),
    ];
    let mut api = Pool::new("api", limits).expect("in bounds");
    let (window, open_for) = (10 * second, second);
    api.breaker = Some(BreakerConfig { failure_rate: 500_000, window, min_count: 20, open_for });
    let mut users = Pool::new("users", vec![limit("rps", "requests", rate.into())]).expect("in bounds");
    users.keyed = Some(100);
    NodeConfig {
        id,
        incarnation,
        name: "fuzzed".to_owned(),
        pools: vec![api, users],
        policy: Policy::Strict,
        forget_after: 15 * second,
        weight: 1,
        agents: Agents::default(),
        keys: Arc::new(Ideal),
        vouching: Vouching::default(),
    }
}

/// A record that its author signed.
pub fn sign(statement: &Statement) -> Record {
    Record::sign(statement, &Ideal)
}
