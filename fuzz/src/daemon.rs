//! What callers send over the Unix socket.

use std::path::Path;
use std::sync::LazyLock;

use aquifer::daemon::access::{Access, Peer};
use aquifer::daemon::clock::Clock;
use aquifer::daemon::config::{Config, ConfigSource, Overrides};
use aquifer::daemon::engine::Engine;
use aquifer::daemon::facts::Facts;
use aquifer::daemon::identity::SwarmKey;
use aquifer::daemon::rls::Rls;
use aquifer::daemon::settings::node_config;
use aquifer::daemon::sidecar::{Ask, Quotas, Sidecar, Users};
use aquifer::daemon::state::disk::RealDisk;
use aquifer::daemon::state::store::Store;
use aquifer::daemon::state::{Stamp, StateFile};
use aquifer::daemon::timer::Timer;
use aquifer::protocol::id::{Incarnation, Replica};
use aquifer::protocol::node::{Node, Start};
use aquifer::wire::signing::Ed25519;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::{Builder, Runtime};

use super::bound::Bound;

/// A JSON object takes more than 600 bytes however small it is; how many there may be is bounded.
const BODY: Bound = Bound(2, 192 << 10);
/// A connection's buffers (16 KiB, and as much again as they grow), its answers, and what a node keeps of the calls.
const CONNECTION: Bound = Bound(16, 256 << 10);
/// What a stream holds on its way.
const PIPE: usize = 4 << 10;
pub(super) const OWNER: u32 = 1_000;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = r#"
        [[pool]]
        name = "api"
        rps = { amount = 1_000_000, burst = 1_000_000 }
        tps = 1_000_000
        max_concurrent = { amount = 8, ttl = "10m" }
        breaker = { failure_rate = 0.5, min_count = 20, window = "30s", open_for = "15s" }
        [[pool]]
        name = "model/large"
        rps = { amount = 2, burst = 2 }
        [[pool]]
        name = "users"
        keyed = true
        rps = 5
        [[agent]]
        match = "slow-*"
        rps = 1
    "#;
    Config::parse(text, "fuzzed", &Overrides::default()).expect("it is well formed")
});

/// Bodies of `POST /v1/acquire` and `POST /allow`.
pub fn ask(bytes: &[u8]) {
    let pools = &CONFIG.pools;
    for ask in [Ask::parse, Ask::parse_allow] {
        match BODY.of(bytes.len(), || ask(bytes, pools)) {
            Ok(ask) => assert!(ask.choices.iter().flatten().all(|wanted| wanted.pool < pools.len())),
            Err(problem) => {
                assert!((400..500).contains(&problem.status));
                assert!(problem.detail.len() < 1_000, "an answer as long as the question: {problem:?}");
            }
        }
    }
}

/// All that one caller ever says on its connection; the first byte says who it is. Whatever it says is answered, with
/// HTTP, and then the connection ends.
pub fn http(bytes: &[u8]) {
    let Some((who, said)) = bytes.split_first() else { return };
    let peer = Peer { uid: OWNER + u32::from(who % 2), gid: 100 };
    let heard = RUNTIME.with(|runtime| {
        let _inside = runtime.enter();
        let sidecar = sidecar();
        CONNECTION.of(said.len(), || runtime.block_on(converse(&sidecar, said, peer)))
    });
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1."), "{}", heard.escape_ascii());
    let server_errors = heard.windows(13).filter(|line| line.starts_with(b"HTTP/1.1 50")).count();
    assert_eq!(server_errors, 0, "{}", heard.escape_ascii());
}

async fn converse(sidecar: &Sidecar, said: &[u8], peer: Peer) -> Vec<u8> {
    let (ours, theirs) = duplex(PIPE);
    let (mut reading, mut writing) = tokio::io::split(ours);
    let mut heard = Vec::new();
    let asks = async {
        // A connection that is closed early takes no more.
        let _ = writing.write_all(said).await;
        let _ = writing.shutdown().await;
    };
    let listens = async {
        let _ = reading.read_to_end(&mut heard).await;
    };
    tokio::join!(sidecar.converse(theirs, peer), asks, listens);
    heard
}

thread_local! {
    pub(super) static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("there is a runtime");
}

/// A daemon's, with a node of its own, and nothing on disk.
pub(super) fn sidecar() -> Sidecar {
    let config = &*CONFIG;
    let clock = Clock::new();
    let now = clock.now();
    let keys = Ed25519::new(&[7; 32], [9; 32]);
    let replica = Replica { node: keys.id(), incarnation: Incarnation(1) };
    let node = Node::new(node_config(config, keys, Incarnation(1)), Start::Found, [1; 32], now);
    // There are no peers to tell, so it does no harm that nothing can be saved there.
    let state = StateFile::new(Path::new("/nonexistent"), replica.node, RealDisk);
    let stamp = Stamp { incarnation: replica.incarnation, serial: 0 };
    let store = Store::start(state, stamp).expect("there are threads");
    let timer = Timer::new().expect("there are timers");
    let engine = Engine::new(node, store, None, clock, timer);
    let facts = Facts::new(replica, SwarmKey([3; 32]), now, Vec::new());
    let access = Access {
        owner: OWNER,
        operators: [].into(),
        operator_groups: [].into(),
        observe_needs_operator: false,
    };
    let user_waiting = vec![100; config.pools.len()];
    let rls = Rls::new(engine.clone(), config);
    let quotas = Quotas { connections: 100, user_connections: 100, user_waiting };
    let source = ConfigSource { file: None, overrides: Overrides::default() };
    Sidecar::new(engine, config.clone(), source, facts, Users::new(access, quotas), rls)
}
