//! A peer that is out to do harm: it holds the swarm's key, and nothing else is right about it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::time::Duration;

use aquifer::daemon::token::Token;
use aquifer::daemon::transport::{Event, Transport, TransportConfig, node_id};
use aquifer::protocol::gossip::{Entry, News, Record};
use aquifer::protocol::id::{Incarnation, LedgerId, NodeId};
use aquifer::protocol::message::{Digest, Echo, Message};
use aquifer::protocol::record::{Key, Profile, Row, Value};
use aquifer::protocol::share::{ONE, Share};
use aquifer::protocol::signature::Statement;
use aquifer::protocol::time::Instant;
use aquifer::wire;
use aquifer::wire::signing::{Ed25519, swarm_of};
use libp2p::identity::Keypair;

/// No test measures speed; this only ends the ones that hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Demand without end.
pub fn endless() -> Row {
    let all = Share(u64::MAX);
    Row {
        used: u64::MAX,
        base: all,
        demand: all,
        classes: [all, Share::ZERO, Share::ZERO],
        weights: [u32::MAX; 4],
        waiting: u64::MAX,
        need: u64::MAX,
        weight: u32::MAX,
        turn_end: u64::MAX,
        ..Row::default()
    }
}

/// A program that speaks the protocol when it likes.
pub struct Hostile {
    pub transport: Transport,
    pub id: NodeId,
    pub keys: Ed25519,
    pub version: u64,
    /// What was last heard of whom.
    pub heard: BTreeMap<NodeId, Message>,
    pub records: Vec<(NodeId, Record)>,
    pub downs: usize,
}

impl Hostile {
    pub async fn start(token: &Token) -> Self {
        let keypair = Keypair::generate_ed25519();
        let secret = keypair.clone().try_into_ed25519().unwrap().secret();
        let keys = Ed25519::new(secret.as_ref().try_into().unwrap(), swarm_of(&token.swarm_key.0));
        let id = node_id(&keypair.public()).unwrap();
        let config = TransportConfig {
            keypair,
            swarm_key: token.swarm_key.0,
            listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
            seeds: token.addresses.clone(),
            mdns: false,
            max_peers: 64,
        };
        let transport = Transport::start(config).await.unwrap();
        let (heard, records) = (BTreeMap::new(), Vec::new());
        Self { transport, id, keys, version: 0, heard, records, downs: 0 }
    }

    /// Listens until `done`, greeting everybody it is linked to now and then.
    pub async fn until(&mut self, join: bool, mut done: impl FnMut(&Self) -> bool) {
        let all = async {
            while !done(self) {
                for link in self.transport.links() {
                    let message = Message { join, ..self.message(link.peer, Vec::new()) };
                    self.send(link.peer, &message);
                }
                self.listen(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("this takes too long");
    }

    /// Listens for so long.
    pub async fn listen(&mut self, long: Duration) {
        let deadline = tokio::time::Instant::now() + long;
        while let Ok(event) = tokio::time::timeout_at(deadline, self.transport.next()).await {
            match event {
                Event::Frame { from, bytes } => self.hear(from, &bytes),
                Event::Down { .. } => self.downs += 1,
                _ => {}
            }
        }
    }

    pub fn hear(&mut self, from: NodeId, bytes: &[u8]) {
        let message = wire::decode_message(bytes).expect("honest nodes speak properly");
        let incarnation = message.incarnation;
        let own = message.news.iter().flat_map(|news| &news.entries).filter_map(|entry| {
            let Entry { key, version, value, signature } = entry.clone();
            Some((from, Record { incarnation, version, key, value, signature: signature? }))
        });
        self.records.extend(own);
        for delta in &message.deltas {
            self.records.extend(delta.records.iter().map(|record| (delta.author, record.clone())));
        }
        self.heard.insert(from, message);
    }

    pub fn ledger(&self) -> Option<LedgerId> {
        self.heard.values().find_map(|message| message.ledger)
    }

    /// Peers that there are links to, and that have said something.
    pub fn peers(&self) -> Vec<NodeId> {
        let linked = self.transport.links().into_iter().map(|link| link.peer);
        linked.filter(|peer| self.heard.contains_key(peer)).collect()
    }

    pub fn send(&mut self, to: NodeId, message: &Message) {
        if let Ok(bytes) = wire::encode_message(message) {
            self.transport.send(to, bytes);
        }
    }

    /// Its own values, signed, in an otherwise proper message.
    pub fn message(&mut self, to: NodeId, mut values: Vec<(Key, Value)>) -> Message {
        let profile = Profile { name: "hostile".to_owned(), ..Profile::default() };
        values.insert(0, (Key::Profile, Value::Profile(profile)));
        let entries = values.into_iter().map(|(key, value)| {
            self.version += 1;
            let signature =
                self.ledger().map(|ledger| self.sign(ledger, self.version, &key, &value).signature);
            Entry { key, version: self.version, value, signature }
        });
        let entries = entries.collect();
        let heard = self.heard.get(&to);
        Message {
            incarnation: Incarnation(1),
            ledger: self.ledger(),
            join: false,
            clock: Instant::from_nanos(self.version),
            wall: None,
            echo: heard.map(|message| Echo {
                incarnation: message.incarnation,
                clock: message.clock,
                age: 0,
                version: message.version,
                weight: ONE,
            }),
            silence_ms: 10_000,
            digest: Digest::None,
            version: self.version,
            news: Some(News { since: 0, upto: self.version, entries }),
            deltas: Vec::new(),
            grants: Vec::new(),
            returns: Vec::new(),
        }
    }

    pub fn sign(&self, ledger: LedgerId, version: u64, key: &Key, value: &Value) -> Record {
        let (author, incarnation) = (self.id, Incarnation(1));
        Record::sign(&Statement { ledger, author, incarnation, version, key, value }, &self.keys)
    }
}
