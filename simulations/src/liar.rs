//! A member that lies: what it remembers, when it speaks, and what every lie has in common.
//!
//! It is lean: no bucket, no queue, no rules. It knows its links and the last word of each, a sample of all that it ever
//! heard, and answers every message and every tick with what its [`Lie`] says.

mod says;

use std::collections::BTreeMap;

use aquifer::protocol::gossip::{Delta, Entry, News, Record};
use aquifer::protocol::id::{Incarnation, LedgerId, NodeId};
use aquifer::protocol::lease::{Grant, Return};
use aquifer::protocol::limit::{Fingerprint, Kind};
use aquifer::protocol::message::{Digest, Echo, Message};
use aquifer::protocol::node::ROUND;
use aquifer::protocol::record::{Key, Profile, Row, Value};
use aquifer::protocol::share::{ONE, Share};
use aquifer::protocol::signature::Statement;
use aquifer::protocol::time::Instant;
use aquifer::wire::signing::Ideal;

use crate::lie::Lie;
use crate::random::Stream;
use crate::time::Nanos;

/// How often a liar speaks unasked: as often as a busy node.
pub const TICK: Nanos = ROUND.as_nanos() as Nanos;
/// The most records and messages that it remembers, to say them again.
const REMEMBERS: usize = 512;

/// What a liar knows when it begins.
pub struct Known {
    /// Who it is.
    pub id: NodeId,
    /// Its life.
    pub life: u64,
    /// The swarm's ledger, if it is a member from the start.
    pub ledger: Option<LedgerId>,
    /// The one limit.
    pub limit: (Fingerprint, Kind),
    /// Its base share.
    pub base: Share,
    /// Liars whose keys it may use.
    pub accomplices: Vec<NodeId>,
}

/// A member that lies.
pub struct Liar {
    known: Known,
    lie: Lie,
    stream: Stream,
    /// Of its own page.
    version: u64,
    /// Ticks so far.
    ticks: u64,
    /// When it began to lend, if it lends more than it has.
    lends_since: Option<Instant>,
    /// The only one that it lends to, if it lends nothing twice.
    only: Option<NodeId>,
    links: BTreeMap<NodeId, Link>,
    records: Vec<(NodeId, Record)>,
    messages: Vec<Message>,
}

/// What it knows of a peer by its own word.
#[derive(Clone, Copy)]
struct Link {
    incarnation: Incarnation,
    clock: Instant,
    heard_at: Instant,
    version: u64,
    /// What the peer lends to it.
    grant: Option<(Fingerprint, Grant)>,
}

/// What a liar says, and to whom.
pub type Said = Vec<(NodeId, Message)>;

impl Liar {
    /// A liar without links.
    pub fn new(known: Known, lie: Lie, stream: Stream) -> Self {
        Self {
            known,
            lie,
            stream,
            version: 0,
            ticks: 0,
            lends_since: None,
            only: None,
            links: BTreeMap::new(),
            records: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// A link came up: it greets whoever is there.
    pub fn up(&mut self, peer: NodeId, now: Instant) -> Said {
        let unknown = Link {
            incarnation: Incarnation(0),
            clock: Instant::ZERO,
            heard_at: now,
            version: 0,
            grant: None,
        };
        self.links.insert(peer, unknown);
        vec![(peer, self.honest(peer, now))]
    }

    /// A link went down.
    pub fn down(&mut self, peer: NodeId) {
        self.links.remove(&peer);
    }

    /// A peer said something; it is remembered, and used.
    pub fn hear(&mut self, from: NodeId, message: &Message, now: Instant) -> Said {
        let Some(link) = self.links.get_mut(&from) else { return Vec::new() };
        (link.incarnation, link.clock, link.heard_at) = (message.incarnation, message.clock, now);
        link.version = message.version;
        let lent = link.grant.map_or(Share::ZERO, |(_, grant)| grant.share);
        link.grant = message.grants.last().copied().or(link.grant);
        let is_lent_more = link.grant.is_some_and(|(_, grant)| grant.share > lent);
        if self.known.ledger.is_none() {
            self.known.ledger = message.ledger;
        }
        self.remember(from, message);
        // At once where it pays: a loan is confirmed, or it would not last.
        if is_lent_more { vec![(from, self.honest(from, now))] } else { Vec::new() }
    }

    /// It is time to speak.
    pub fn tick(&mut self, now: Instant) -> Said {
        self.ticks += 1;
        let peers: Vec<NodeId> = self.links.keys().copied().collect();
        let mut said = Vec::new();
        for (place, peer) in peers.iter().enumerate() {
            for message in self.says(*peer, place, now) {
                said.push((*peer, message));
            }
        }
        said
    }

    fn remember(&mut self, from: NodeId, message: &Message) {
        let incarnation = message.incarnation;
        for entry in message.news.iter().flat_map(|news| &news.entries) {
            let Entry { key, version, value, signature: Some(signature) } = entry.clone() else { continue };
            if matches!(key, Key::Given(subject) if subject == self.known.id)
                && let Value::Gift(gift) = &value
            {
                self.known.base = gift.share;
            }
            self.keep(from, Record { incarnation, version, key, value, signature });
        }
        for delta in &message.deltas {
            delta.records.iter().for_each(|record| self.keep(delta.author, record.clone()));
        }
        if self.messages.len() < REMEMBERS / 8 {
            self.messages.push(message.clone());
        }
    }

    /// The first records are the oldest lives and versions; later ones take the places of others.
    fn keep(&mut self, author: NodeId, record: Record) {
        if self.records.len() < REMEMBERS {
            self.records.push((author, record));
        } else {
            let place = REMEMBERS / 2 + self.stream.below(REMEMBERS as u64 / 2) as usize;
            self.records[place] = (author, record);
        }
    }

    /// What an honest node with nothing to ask for would say.
    fn honest(&mut self, to: NodeId, now: Instant) -> Message {
        let row = Row { base: self.known.base, held: self.known.base, ..Row::default() };
        self.message(to, vec![(Key::Row(self.known.limit.0), Value::Row(row))], now)
    }

    /// A message with these values of its own page, signed.
    fn message(&mut self, to: NodeId, mut values: Vec<(Key, Value)>, now: Instant) -> Message {
        let profile = Profile { name: "liar".to_owned(), ..Profile::default() };
        values.insert(0, (Key::Profile, Value::Profile(profile)));
        let entries: Vec<Entry> = values.into_iter().map(|(key, value)| self.entry(key, &value)).collect();
        let link = self.links.get(&to).copied();
        let echo = link.filter(|link| link.incarnation.0 > 0).map(|link| Echo {
            incarnation: link.incarnation,
            clock: link.clock,
            age: now.since(link.heard_at).as_nanos() as u64,
            version: link.version,
            weight: ONE,
        });
        // It has heard of the loan, and has given nothing back.
        let word = |(limit, grant): (Fingerprint, Grant)| {
            let Grant { sequence, version: heard, .. } = grant;
            (limit, Return { sequence, heard, version: 0, share: Share::ZERO, level: 0 })
        };
        Message {
            incarnation: Incarnation(self.known.life),
            ledger: self.known.ledger,
            join: self.known.base == Share::ZERO,
            clock: now,
            wall: None,
            echo,
            silence_ms: 1_000,
            digest: Digest::None,
            version: self.version,
            news: Some(News { since: 0, upto: self.version, entries }),
            deltas: Vec::new(),
            grants: Vec::new(),
            returns: link.and_then(|link| link.grant).map(word).into_iter().collect(),
        }
    }

    /// A value of its own page at its next version.
    fn entry(&mut self, key: Key, value: &Value) -> Entry {
        self.version += 1;
        let record = self.sign(self.known.id, self.known.life, self.version, key, value);
        let Record { version, key, value, signature, .. } = record;
        Entry { key, version, value, signature: Some(signature) }
    }

    /// A record that one of its own identities signs. [`Ideal`] would sign for anybody: who calls this for an honest
    /// author breaks the simulation.
    fn sign(&self, author: NodeId, life: u64, version: u64, key: Key, value: &Value) -> Record {
        debug_assert!(author == self.known.id || self.known.accomplices.contains(&author));
        let ledger = self.known.ledger.unwrap_or(LedgerId(author));
        let incarnation = Incarnation(life);
        let statement = Statement { ledger, author, incarnation, version, key: &key, value };
        Record::sign(&statement, &Ideal)
    }

    /// Records of one author each, as whoever passes them on would.
    fn pass_on(records: impl IntoIterator<Item = (NodeId, Record)>) -> Vec<Delta> {
        let one = |(author, record)| Delta { author, records: vec![record] };
        records.into_iter().map(one).collect()
    }
}
