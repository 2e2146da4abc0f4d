//! Peers that are out to do harm, against real daemons over the real transport: they hold the swarm's key, and nothing
//! else is right about them.
//!
//! A stranger has a key of its own and is no member; a member was vouched for like anybody who has the token. Daemons must
//! stay up and serve their callers, and what honest nodes have and know of one another must be as before.
#![cfg(feature = "daemon")]

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aquifer::daemon::token::Token;
use aquifer::daemon::transport::FRAME_MAX;
use aquifer::protocol::gossip::{Delta, Record, Summary};
use aquifer::protocol::id::{Incarnation, NodeId};
use aquifer::protocol::lease::Grant;
use aquifer::protocol::ledger::Gift;
use aquifer::protocol::limit::Fingerprint;
use aquifer::protocol::message::{Digest, Message};
use aquifer::protocol::record::{Key, Value};
use aquifer::protocol::share::{ONE, Share};
use aquifer::protocol::signature::Signature;
use aquifer::protocol::time::Instant;
use aquifer::wire;
use hostile::{Hostile, endless};
use process::{Daemon, Setup, wait_until, wait_until_whole};
use tempfile::TempDir;

/// One swarm at a time: two of them would fight for the processor.
static TURN: Mutex<()> = Mutex::new(());
/// The most memory that a daemon may take, whatever it is told. It takes some 20 MiB with nothing to do.
const RSS_MAX_KIB: u64 = 192 * 1024;

struct Swarm {
    nodes: Vec<Daemon>,
    token: Token,
    _dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Swarm {
    /// Three nodes that are linked and have equal base shares; nothing moves among them while nobody asks.
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let mut nodes: Vec<Daemon> = Vec::new();
        for place in 0..3 {
            let setup = Setup::new(dir.path(), &format!("n{place}"), &["api:rps=1000,burst=300"]);
            let setup = setup.environment("AQUIFER_POLICY", "strict");
            let setup = nodes.first().map_or(setup.clone(), |first| setup.join(&first.token()));
            nodes.push(setup.start());
        }
        wait_until_whole(&nodes);
        let token = nodes[0].token().parse().unwrap();
        Self { nodes, token, _dir: dir, _turn: turn }
    }

    /// What every honest node says of itself and of the others, but for what goes on: the time, and how it hears of them.
    fn state(&self) -> Vec<(String, f64, usize, BTreeMap<String, f64>)> {
        let one = |node: &Daemon| {
            let (status, peers) = (node.status(), node.peers());
            let bases = peers.peers.into_iter().map(|peer| (peer.name, peer.base_share)).collect();
            (status.node.state, status.node.base_share, status.members, bases)
        };
        self.nodes.iter().map(one).collect()
    }

    /// The callers of every node are served, and no node has grown too large.
    fn serves(&self) {
        for node in &self.nodes {
            let reply = node.acquire(r#"{"pool":"api","requests":1,"wait_ms":20000}"#);
            assert_eq!(reply.status, 200, "{} does not serve: {}", node.name(), reply.body);
            let rss = node.resident_kib();
            assert!(rss < RSS_MAX_KIB, "{} takes {rss} KiB", node.name());
        }
    }

    /// Base shares are those of the whole at most, in every view.
    fn conserves(&self) {
        for (_, own, _, bases) in self.state() {
            let sum = own + bases.values().sum::<f64>();
            assert!(sum <= 1.0 + 1e-6, "base shares sum to {sum}");
        }
    }

    fn said(&self, what: &str) -> bool {
        self.nodes.iter().any(|node| node.setup.output().contains(what))
    }
}

/// The ways in which a record of somebody else can be wrong.
fn forgeries(author: NodeId, record: &Record, other: &Record, me: &Hostile) -> Vec<(NodeId, Record)> {
    let ledger = me.ledger().expect("it has heard of one");
    let later = Record { version: record.version + 1_000, ..record.clone() };
    let mut bit = later.clone();
    bit.signature.r[5] ^= 1;
    vec![
        (author, Record { signature: Signature { r: [7; 32], s: [7; 32] }, ..later.clone() }),
        (author, bit),
        (author, Record { signature: other.signature, ..later.clone() }),
        (author, Record { incarnation: Incarnation(u64::MAX), ..later.clone() }),
        (author, Record { version: u64::MAX, ..record.clone() }),
        (author, Record { key: Key::Given(me.id), value: Value::Gift(gift(ONE)), ..later.clone() }),
        (author, Record { key: Key::Reclaimed(author), value: Value::Share(ONE), ..later.clone() }),
        // Its own, in another's name.
        (author, me.sign(ledger, later.version, &later.key, &later.value)),
        // A member's, in the name of another.
        (ledger.0, Record { key: Key::Reclaimed(author), value: Value::Share(ONE), ..later }),
    ]
}

fn gift(share: Share) -> Gift {
    Gift { share, levels: None, weight: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn forged_replayed_and_malformed_records_of_a_stranger_change_nothing() {
    let swarm = Swarm::new();
    let before = swarm.state();
    let mut stranger = Hostile::start(&swarm.token).await;
    stranger.until(false, |me| !me.peers().is_empty() && me.ledger().is_some()).await;
    let ledger = stranger.ledger().unwrap();
    // It asks for all that there is, and is told: whoever has the swarm's key may read.
    let asks = Digest::Full(u64::MAX, Vec::new());
    let mut asked = 0;
    while stranger.records.len() < 6 && asked < 100 {
        let peer = stranger.peers()[0];
        let message = Message { digest: asks.clone(), ..stranger.message(peer, Vec::new()) };
        stranger.send(peer, &message);
        stranger.listen(Duration::from_millis(100)).await;
        asked += 1;
    }
    assert!(stranger.records.len() >= 6, "it has heard {} records", stranger.records.len());

    let genuine = stranger.records.clone();
    let (mut forged, mut replayed) = (0, 0);
    for (place, (author, record)) in genuine.iter().enumerate() {
        let other = &genuine[(place + 1) % genuine.len()].1;
        for (author, wrong) in forgeries(*author, record, other, &stranger) {
            // The link that brings one is closed; it comes again.
            stranger.until(false, |me| !me.peers().is_empty()).await;
            let peer = stranger.peers()[place % stranger.peers().len()];
            let message = stranger.message(peer, Vec::new());
            let deltas = vec![Delta { author, records: vec![wrong] }];
            stranger.send(peer, &Message { deltas, ..message });
            forged += 1;
            // What it said of itself in former lives, and others of themselves, is not its own.
            let theirs = stranger.heard.values().next().cloned().unwrap();
            let as_own = Message { incarnation: Incarnation(1), ..theirs };
            let deltas = genuine
                .iter()
                .map(|(author, record)| Delta { author: *author, records: vec![record.clone()] });
            let again = Message { deltas: deltas.collect(), ..as_own };
            stranger.send(peer, &again);
            replayed += genuine.len();
            stranger.listen(Duration::from_millis(5)).await;
        }
        if forged >= 8 {
            break;
        }
    }
    assert!(stranger.downs > 0, "no link was closed");
    assert!(swarm.said("has not signed"), "nobody said that a record was forged");

    // Bytes that are no message, and messages cut at every place.
    let peer = loop {
        stranger.until(false, |me| !me.peers().is_empty()).await;
        if let Some(peer) = stranger.peers().first() {
            break *peer;
        }
    };
    let message = stranger.message(peer, Vec::new());
    let whole = wire::encode_message(&message).unwrap();
    for cut in 1..whole.len() {
        stranger.transport.send(peer, whole[..cut].to_vec());
    }
    for fill in [0, 1, 4, 0x7f, 0xff] {
        let mut junk = vec![fill; FRAME_MAX];
        junk[0] = wire::MESSAGE_VERSION;
        stranger.transport.send(peer, junk);
    }
    stranger.listen(Duration::from_millis(200)).await;
    println!("{forged} forged and {replayed} replayed records, {} links closed", stranger.downs);
    swarm.serves();
    let founder = before.iter().map(|(_, own, ..)| own).copied().fold(0.0, f64::max);
    assert!(founder > 0.0 && ledger == stranger.ledger().unwrap());
    wait_until("honest nodes have what they had", || swarm.state() == before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_member_that_claims_lends_gives_and_takes_what_it_has_not_harms_nobody() {
    let swarm = Swarm::new();
    let mut member = Hostile::start(&swarm.token).await;
    let limit = |me: &Hostile| {
        let rows = me.records.iter().find_map(|(_, record)| match record.key {
            Key::Row(limit) => Some(limit),
            _ => None,
        });
        rows.unwrap_or(Fingerprint(1))
    };
    let me = member.id;
    let is_member = |(_, record): &(NodeId, Record)| record.key == Key::Given(me);
    member.until(true, |me| me.records.iter().any(is_member) && !me.peers().is_empty()).await;
    swarm.serves();
    for round in 0..40_u64 {
        let limit = limit(&member);
        for peer in member.peers() {
            let mut values = vec![
                (Key::Row(limit), Value::Row(endless())),
                (Key::Founded, Value::Share(ONE)),
                (Key::Given(peer), Value::Gift(gift(Share(ONE.0 + round)))),
            ];
            let made_up = (0..20_u8).map(|number| NodeId([number ^ round as u8; 32]));
            values.extend(made_up.map(|node| (Key::Given(node), Value::Gift(gift(Share(1 + round))))));
            let mut message = member.message(peer, values);
            let echo = message.echo.map_or(Instant::ZERO, |echo| echo.clock);
            let grant = Grant { sequence: 1, version: round + 1, share: ONE, level: u128::MAX >> 8, echo };
            message.grants.push((limit, grant));
            member.send(peer, &message);
        }
        member.listen(Duration::from_millis(20)).await;
        swarm.conserves();
    }
    swarm.serves();
    drop(member);
    swarm.conserves();
    swarm.serves();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn floods_and_dozens_of_identities_cost_bounded_memory() {
    const IDENTITIES: usize = 24;
    let swarm = Swarm::new();
    let mut sybils = Vec::new();
    for _ in 0..IDENTITIES {
        sybils.push(Hostile::start(&swarm.token).await);
    }
    for sybil in &mut sybils {
        sybil.listen(Duration::from_millis(100)).await;
    }
    let mut frames = 0;
    for round in 0..20_u64 {
        for (place, sybil) in sybils.iter_mut().enumerate() {
            for link in sybil.transport.links() {
                // Names that nobody has heard of, and summaries of pages that nobody has.
                let name = |number: u64| Fingerprint(number + 1_000 * round + 1_000_000 * place as u64);
                let values = (0..200).map(|number| (Key::Row(name(number)), Value::Row(endless())));
                let message = sybil.message(link.peer, values.collect());
                let author = |number: u64| NodeId([(number + round) as u8; 32]);
                let summary = |number: u64| Summary {
                    author: author(number),
                    incarnation: Incarnation(round + 1),
                    version: u64::MAX,
                    sum: number as u32,
                };
                let digest = Digest::Full(u64::MAX, (0..200).map(summary).collect());
                let message = Message { join: true, digest, ..message };
                for _ in 0..10 {
                    sybil.send(link.peer, &message);
                    frames += 1;
                }
            }
            // Every other one does not read: its mailbox over there must not grow.
            if place % 2 == 0 {
                sybil.listen(Duration::from_millis(2)).await;
            }
        }
    }
    assert!(frames > 1_000, "only {frames} frames were sent");
    println!("{frames} frames of {IDENTITIES} identities");
    swarm.conserves();
    swarm.serves();
    drop(sybils);
    wait_until("the links are gone", || swarm.nodes[0].status().peers_connected <= 2);
    swarm.conserves();
    swarm.serves();
    for node in &swarm.nodes {
        println!("{} takes {} KiB", node.name(), node.resident_kib());
    }
}
