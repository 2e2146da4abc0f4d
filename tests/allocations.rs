//! A request that is admitted at once allocates nothing once the node is warm, nor does settling it.

use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use aquifer::protocol::agents::Agents;
use aquifer::protocol::id::{Incarnation, NodeId};
use aquifer::protocol::limit::{Concurrency, Cost, Kind, Limit, Pool, Rate};
use aquifer::protocol::node::{
    Acquired, Ask, Input, Item, Node, NodeConfig, Outcome, PERMIT_TTL, Policy, Start, Vouching,
};
use aquifer::protocol::permit::REMEMBERED;
use aquifer::protocol::queue::Class;
use aquifer::protocol::time::Instant;
use aquifer::wire::signing::Ideal;

fn rate(unit: &str) -> Limit {
    let rate = Rate::new(1_000_000_000, Duration::from_secs(1), 1_000_000_000).expect("in bounds");
    Limit { name: format!("{unit}/s"), unit: unit.to_owned(), kind: Kind::Rate(rate) }
}

fn slots() -> Limit {
    let slots = Concurrency::new(1_000, Duration::from_secs(60)).expect("in bounds");
    Limit { name: "concurrent".to_owned(), unit: "requests".to_owned(), kind: Kind::Concurrency(slots) }
}

/// A node of its own with these limits, warm; and the units that calls take.
struct Warm {
    node: Node,
    now: Instant,
    asked: Cost,
    used: Cost,
}

impl Warm {
    fn new(limits: Vec<Limit>) -> Self {
        let mut asked = Cost::requests(1);
        asked.units.extend([("input".to_owned(), 1_200), ("output".to_owned(), 800)]);
        let mut used = asked.clone();
        used.units.insert("output".to_owned(), 300);
        let config = NodeConfig {
            id: NodeId([1; 32]),
            incarnation: Incarnation(1),
            name: "warm".to_owned(),
            pools: vec![Pool::new("pool", limits).expect("in bounds")],
            policy: Policy::Strict,
            forget_after: Duration::from_secs(60),
            weight: 1,
            agents: Agents::default(),
            keys: Arc::new(Ideal),
            vouching: Vouching::default(),
        };
        let now = Instant::ZERO + Duration::from_secs(1);
        let node = Node::new(config, Start::Found, [7; 32], now);
        let mut warm = Self { node, now, asked, used };
        warm.work(2 * REMEMBERED);
        warm.node.handle(Input::Timeout, warm.now);
        while warm.node.poll_output().is_some() {}
        warm
    }

    /// Asks and commits, as callers of several agents and classes.
    fn work(&mut self, times: usize) {
        let callers = [("", Class::Normal), ("researcher-1", Class::Low), ("assistant", Class::Critical)];
        for number in 0..times {
            self.now = self.now + Duration::from_micros(100);
            let (agent, class) = callers[number % callers.len()];
            let units = self.node.pool_at(0).units(&self.asked);
            let items = &[Item { pool: 0, units: &units, key: None }];
            let ask = Ask { items, agent, class, wait: Duration::ZERO, ttl: PERMIT_TTL };
            let Acquired::Now(Outcome::Admitted { permit, .. }) = self.node.ask(&ask, self.now) else {
                panic!("not admitted")
            };
            self.node.commit(permit, &self.used, self.now).expect("it is out");
        }
    }
}

#[test]
fn nothing_is_allocated_once_warm() {
    let cold = measure(|| drop(Warm::new(vec![rate("requests")])));
    assert!(cold.count_total > 0, "the allocator does not count");
    for limits in [vec![rate("requests")], vec![rate("requests"), rate("input"), rate("output"), slots()]] {
        let count = limits.len();
        let mut warm = Warm::new(limits);
        let hot = measure(|| warm.work(10_000));
        assert_eq!(hot.count_total, 0, "with {count} limits");
    }
}
