//! Fixed batches of tokens from one central store, as global admission control of Amazon `DynamoDB` hands them out
//! (Elhemali et al., USENIX ATC 2022) and as the leases of `ThrottleKit` do, whose batch of 20 this is.
//!
//! A node asks when its tokens are fewer than half a batch, or fewer than the next request takes; the store answers at once,
//! and who got nothing asks again. So a node gets at most a batch per round trip. Tokens are good for a while after they
//! were handed out, and then gone: a store that let nodes hoard them would be over its limit when they all spend.
//!
//! Two choices made here decide much where nodes are many: the store gives a whole batch or nothing (one that gave out
//! remainders would strand far less), and how long tokens are good.

use super::bucket::{Bucket, WHOLE};
use super::engine::Outbox;
use super::{Rule, Verdict};
use crate::record::Arrival;
use crate::scenario::Scenario;
use crate::time::{MS, Nanos, SEC};

/// Tokens in a batch.
const BATCH: u64 = 20;
/// How long tokens are good for.
const GOOD_FOR: Nanos = 2 * SEC;

pub(super) struct Batches {
    nodes: Vec<Client>,
    store: Bucket,
    /// The most that can be asked for at once.
    burst: u64,
}

#[derive(Clone, Default)]
struct Client {
    /// Tokens, and until when they are good; in order of time.
    tokens: Vec<(u64, Nanos)>,
    /// An answer is on its way.
    is_asking: bool,
    /// The last answer was that there is nothing: it asks no more before its next tick.
    is_refused: bool,
}

pub(super) enum Message {
    Ask(u64),
    /// Tokens, and until when they are good.
    Grant(u64, Nanos),
}

impl Batches {
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            nodes: vec![Client::default(); scenario.nodes],
            store: Bucket::full(scenario, WHOLE),
            burst: scenario.limit().capacity(),
        }
    }
}

impl Client {
    fn units(&self) -> u64 {
        self.tokens.iter().map(|(units, _)| units).sum()
    }

    fn expire(&mut self, now: Nanos) {
        self.tokens.retain(|(units, until)| *units > 0 && *until > now);
    }

    /// Takes units if they are there, those that expire first at first.
    fn take(&mut self, units: u64) -> bool {
        if self.units() < units {
            return false;
        }
        let mut left = units;
        for (tokens, _) in &mut self.tokens {
            let taken = left.min(*tokens);
            *tokens -= taken;
            left -= taken;
        }
        true
    }
}

impl Rule for Batches {
    type Message = Message;
    /// How often a node that got too little asks again.
    const TICK: Option<Nanos> = Some(50 * MS);

    fn admit(&mut self, request: &Arrival, now: Nanos, out: &mut Outbox<Message>) -> Verdict {
        let store = self.nodes.len();
        let client = &mut self.nodes[request.node];
        client.expire(now);
        let admitted = client.take(request.units);
        let missing = if admitted { 0 } else { request.units - client.units() };
        if !(client.is_asking || client.is_refused) && (missing > 0 || client.units() < BATCH / 2) {
            client.is_asking = true;
            // A request that takes more than a batch needs several.
            let units = missing.div_ceil(BATCH).max(1) * BATCH;
            out.reliable(request.node, store, 16, Message::Ask(units.min(self.burst)));
        }
        if admitted { Verdict::Admitted } else { Verdict::Later }
    }

    fn tick(&mut self, node: usize, _: Nanos, _: &mut Outbox<Message>) {
        // Whoever waits is tried next, and asks.
        self.nodes[node].is_refused = false;
    }

    fn hear(&mut self, to: usize, from: usize, message: Message, now: Nanos, out: &mut Outbox<Message>) {
        match message {
            Message::Ask(units) => {
                self.store.refill(now);
                let granted = if self.store.take(units) { units } else { 0 };
                out.reliable(to, from, 16, Message::Grant(granted, now + GOOD_FOR));
            }
            Message::Grant(units, until) => {
                let client = &mut self.nodes[to];
                client.is_asking = false;
                client.is_refused = units == 0;
                client.tokens.push((units, until));
            }
        }
    }
}
