//! How it happens: the core on a real machine. Reads the clock, keeps files, serves the Unix socket, talks to peers.
//!
//! Gossip runs in one thread, callers have others ([`callers`], [`resp`]). [`run`] starts at the top of this file and reads
//! downwards; a request takes the path of [`sidecar`], a message from a peer that of `Daemon::serve`.

pub mod access;
pub mod admission_log;
pub mod callers;
pub mod clock;
pub mod config;
pub mod digits;
pub mod engine;
pub mod facts;
pub mod grpc;
pub mod identity;
pub mod proto;
pub mod resp;
pub mod rls;
pub mod settings;
pub mod sidecar;
pub mod socket;
pub mod state;
pub mod tally;
pub mod timer;
pub mod token;
pub mod transport;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

pub use crate::api;

use self::access::Access;
use self::admission_log::AdmissionLog;
use self::callers::Callers;
use self::clock::Clock;
use self::config::{Config, ConfigSource};
use self::engine::{Engine, Errand};
use self::facts::Facts;
use self::grpc::{GrpcError, Listener};
use self::identity::{DataDir, IdentityError, SwarmKey, next_life};
use self::resp::{Resp, RespError};
use self::rls::Rls;
use self::sidecar::{Quotas, Sidecar, Users};
use self::socket::{Socket, SocketError};
use self::state::disk::RealDisk;
use self::state::store::Store;
use self::state::{Kept, Loaded, Stamp, StateError, StateFile};
use self::timer::Timer;
use self::token::Token;
use self::transport::{Event, Transport, TransportConfig, TransportError, peer_id};
use crate::protocol::id::{Incarnation, NodeId, Replica};
use crate::protocol::node::{Input, MESH_MAX, Node, Start};

/// Peers that may be linked at once: the largest full mesh, twice.
const PEERS_MAX: usize = 2 * MESH_MAX;
/// Addresses that travel in the token and in gossip.
const ADDRESSES_MAX: usize = 8;
/// How long callers have to take their last answers when the node leaves.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Callers that may be connected at once, if the system lets the process open as many files; more wait in the kernel's
/// queue.
const CALLERS_MAX: usize = 8_192;
/// Files that callers leave to peers and to the disk.
const FILES_KEPT: usize = 256;
/// How often the transport's counters are read and it is told who is a member, and the wall clock may be told.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Why the daemon did not start. Nothing that another daemon uses was touched.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The data directory or a key in it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The socket of gRPC.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The saved ledger.
    #[error(transparent)]
    State(#[from] StateError),
    /// The Redis protocol.
    #[error(transparent)]
    Resp(#[from] RespError),
    /// The gossip address, or a seed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The admission log.
    #[error("{} names a file that cannot be written: {error}", admission_log::VARIABLE)]
    Log {
        /// What the system said.
        error: io::Error,
    },
    /// Nothing can be put on disk, not even that this node begins to exist.
    #[error("{} cannot be written: {what}", path.display())]
    Unsaved {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
    /// The system lacks something that every system has.
    #[error("the system refused {0}: {1}")]
    System(&'static str, io::Error),
}

impl DaemonError {
    /// Whether no other configuration would help.
    pub fn is_bug(&self) -> bool {
        matches!(self, Self::System(..))
    }
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT or `POST /v1/leave`) and has left the swarm; a second signal stops it
/// at once. What `config` was read from is read again on SIGHUP and `POST /v1/reload`. Of a terminal, whose end SIGHUP tells,
/// it means to stop.
///
/// # Errors
/// What keeps it from starting.
pub fn run(config: Config, source: ConfigSource, join: Option<Token>) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| DaemonError::System("a runtime", error))?;
    let ended = LocalSet::new()
        .block_on(&runtime, async { Daemon::start(config, source, join).await?.serve().await });
    // A lookup of a name that hangs must not hold up the end.
    runtime.shutdown_background();
    ended
}

struct Daemon {
    engine: Engine,
    transport: Transport,
    sidecar: Sidecar,
    resp: Option<Resp>,
    facts: Facts,
    _callers: Callers,
    stop: Stop,
    reload: Hangup,
    _data: DataDir,
}

impl Daemon {
    async fn start(config: Config, source: ConfigSource, join: Option<Token>) -> Result<Self, DaemonError> {
        let on_terminal = io::stdin().is_terminal();
        let stop = Stop::new(on_terminal).map_err(|error| DaemonError::System("signals", error))?;
        let reload = Hangup::new(!on_terminal).map_err(|error| DaemonError::System("signals", error))?;
        let files = raise_open_files();
        let callers_max = files.saturating_sub(FILES_KEPT).max(files / 2).min(CALLERS_MAX);
        let data = DataDir::open(&config.data_dir)?;
        let owner = || StateFile::owner(data.path(), &RealDisk);
        let identity = data.identity(owner)?;
        let (id, is_new) = (identity.id, identity.is_new);
        let last_life = data.last_life()?;
        let state = StateFile::new(data.path(), id, RealDisk);
        let Loaded { kept, stamp, mut warnings } = state.load(last_life)?;
        // Whoever names no peer, and never was a member, founds. But not who lost what it knew of its swarm, or once set
        // out to join one: that would give out the whole limit twice.
        let founds = kept == Kept::Nothing && join.is_none() && config.seeds.is_empty();
        let swarm_key = swarm_key(&config, &data, join.as_ref(), founds)?;
        let mut callers = Callers::new().map_err(|error| DaemonError::System("a runtime", error))?;
        let (socket, grpc) = {
            let _inside = callers.enter();
            let socket = Socket::bind(&config.socket, config.access.group)?;
            let grpc = config.listen.grpc.as_ref().map(|listen| Listener::bind(listen, config.access.group));
            (socket, grpc.transpose()?)
        };
        warnings.extend_from_slice(socket.warnings());
        warnings.extend_from_slice(grpc.as_ref().map_or(&[], Listener::warnings));
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let log = AdmissionLog::from_environment().map_err(|error| DaemonError::Log { error })?;
        let mut seeds = config.seeds.clone();
        if let Some(token) = &join {
            seeds.extend(token.addresses.iter().cloned());
        }
        let keys = identity.signing(&swarm_key);
        let transport = Transport::start(TransportConfig {
            keypair: identity.keypair,
            swarm_key: swarm_key.0,
            listen: config.gossip.clone(),
            seeds,
            mdns: config.mdns,
            max_peers: PEERS_MAX,
        });
        let transport = transport.await?;
        let incarnation = next_life(stamp.incarnation.max(last_life.unwrap_or(Incarnation(0))));
        let store = Store::start(state, Stamp { incarnation, ..stamp });
        let store = store.map_err(|error| DaemonError::System("a thread", error))?;

        let clock = Clock::new();
        let now = clock.now();
        let seed = clock::seed().map_err(|error| DaemonError::System("entropy", error.into()))?;
        let timer = Timer::new().map_err(|error| DaemonError::System("a timer", error))?;
        let node = settings::node_config(&config, keys, incarnation);
        let start = match kept {
            Kept::Ledger(saved) => Start::Resume(*saved),
            Kept::Nothing if founds => Start::Found,
            Kept::Nothing | Kept::NoLedger => Start::Join,
            // What was lost was another node's.
            Kept::Lost if is_new => Start::Join,
            Kept::Lost => Start::Rejoin,
        };
        let grpc_address = grpc.as_ref().zip(config.listen.grpc.as_ref());
        let grpc_address = grpc_address.map(|(listener, listen)| listener.address(listen));
        greet(&config, id, &start, grpc_address.as_deref());
        let has_no_ledger = matches!(start, Start::Join);
        let engine = Engine::new(Node::new(node, start, seed, now), store, log, clock, timer);
        if has_no_ledger {
            engine.save_no_ledger();
        }
        // Last of what can fail: from here on the directory is that of a node that ran. First its state, so that no
        // state is older than the life that is known to have run.
        let kept =
            engine.flush().and_then(|()| data.note_life(incarnation).map_err(|error| error.to_string()));
        if let Err(what) = kept {
            if last_life.is_none() {
                return Err(DaemonError::Unsaved { path: data.path().to_owned(), what });
            }
            tracing::warn!("{} cannot be written: {what}", data.path().display());
        }
        let replica = Replica { node: id, incarnation };
        let facts = Facts::new(replica, swarm_key, now, warnings);
        let users = Users::new(Access::of(&config), Quotas::of(&config, callers_max));
        let rls = Rls::new(engine.clone(), &config);
        let (resp_at, group) = (config.listen.resp.clone(), config.access.group);
        let sidecar = Sidecar::new(engine.clone(), config, source, facts.clone(), users, rls);
        let resp = match &resp_at[..] {
            [] => None,
            at => Some(Resp::start(at, group, sidecar.clone())?),
        };
        resp.iter().flat_map(Resp::addresses).for_each(|at| say(&format!("redis    {at}")));
        callers
            .serve(sidecar.clone(), socket, grpc)
            .map_err(|error| DaemonError::System("a thread", error))?;
        let mut daemon =
            Self { engine, transport, sidecar, resp, facts, _callers: callers, stop, reload, _data: data };
        daemon.note_addresses(id);
        Ok(daemon)
    }

    /// One loop over everything that can happen.
    async fn serve(mut self) -> Result<(), DaemonError> {
        let mut count = tokio::time::interval(COUNT_EVERY);
        let mut said = false;
        loop {
            tokio::select! {
                biased;
                () = self.stop.asked() => break,
                () = self.engine.leaves() => break,
                () = self.reload.asked() => self.reload(),
                () = self.engine.tick() => {}
                () = self.engine.stored() => {}
                errands = self.engine.errands() => self.run_errands(errands),
                event = self.transport.next() => self.on_event(event),
                _ = count.tick() => {
                    self.facts.set_counters(self.transport.counters());
                    self.engine.tell_wall();
                    self.note_members();
                }
            }
            if !said {
                said = self.say_how_to_join();
            }
        }
        tracing::info!("leaving the swarm");
        self.engine.leave();
        loop {
            tokio::select! {
                biased;
                () = self.stop.asked() => {
                    tracing::warn!("stopped before everything was given back");
                    break;
                }
                () = self.engine.stored() => {}
                errands = self.engine.errands() => self.run_errands(errands),
                () = self.engine.left() => break,
                () = self.engine.tick() => {}
                event = self.transport.next() => self.on_event(event),
            }
        }
        // The last word waits for the disk, and there is nothing else to do.
        if let Err(error) = self.engine.flush() {
            tracing::error!("the ledger was not saved: {error}");
        }
        // Its clients have their answers: none of them waits.
        self.resp = None;
        self.say_farewell().await;
        Ok(())
    }

    /// Beside everything else: names of users may come from a slow directory.
    fn reload(&self) {
        let sidecar = self.sidecar.clone();
        tokio::task::spawn_local(async move {
            if let Err(problem) = sidecar.reload().await {
                tracing::error!("{}: {}", problem.title, problem.detail);
            }
        });
    }

    /// Lets callers take their answers, and peers the last word.
    async fn say_farewell(&mut self) {
        let end = tokio::time::sleep(LAST_ANSWERS);
        tokio::pin!(end);
        let mut look = tokio::time::interval(Duration::from_millis(20));
        // The first tick comes at once; after the second one what was to be sent is sent.
        let mut looks = 0;
        loop {
            tokio::select! {
                () = &mut end => return,
                errands = self.engine.errands() => self.run_errands(errands),
                _ = self.transport.next() => {}
                _ = look.tick() => looks += 1,
            }
            if looks > 2 && self.sidecar.connections() == 0 {
                return;
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Listening(address) => {
                tracing::info!("listening on {address}");
                self.note_addresses(self.facts.replica.node);
            }
            Event::Expired(address) => {
                tracing::info!("no longer reached at {address}");
                self.note_addresses(self.facts.replica.node);
            }
            Event::Up { peer, address } => {
                tracing::info!("linked to {} at {address}", peer.short());
                self.facts.set_link(peer, Some(address));
                self.note_members();
                self.engine.handle(Input::Up(peer));
            }
            Event::Down { peer } => {
                tracing::info!("link to {} is down", peer.short());
                self.facts.set_link(peer, None);
                self.engine.handle(Input::Down(peer));
            }
            Event::Frame { from, bytes } => {
                if let Err(error) = self.engine.hear(from, &bytes) {
                    self.facts.count_misunderstood();
                    tracing::debug!("a message from {} was dropped: {error}", from.short());
                }
            }
            Event::Refused { address: Some(address), why } => tracing::warn!("{address}: {why}"),
            Event::Refused { address: None, why } => tracing::warn!("{why}"),
        }
    }

    fn run_errands(&mut self, errands: Vec<Errand>) {
        for errand in errands {
            match errand {
                Errand::Send(to, bytes) => self.transport.send(to, bytes),
                Errand::Close(peer) => self.transport.close(peer),
                Errand::Forget(peer) => self.transport.forget(peer),
                Errand::Reach(peer, addresses) => {
                    let addresses = addresses.iter().filter_map(|address| address.parse().ok()).collect();
                    self.transport.learn(peer, addresses);
                }
            }
        }
    }

    /// Tells the transport who is a member. Not at each change, but before links can have become scarce.
    fn note_members(&mut self) {
        self.transport.set_members(self.engine.look(|node, _| node.bases().clone()));
    }

    fn note_addresses(&mut self, own: NodeId) {
        let mut addresses = self.transport.addresses();
        // Loopback reaches nobody else, unless it is all there is.
        let outside = addresses.iter().filter(|address| !is_loopback(address)).cloned().collect::<Vec<_>>();
        if !outside.is_empty() {
            addresses = outside;
        }
        addresses.truncate(ADDRESSES_MAX);
        self.engine.set_addresses(addresses.iter().map(ToString::to_string).collect());
        let with_id = |address: Multiaddr| address.with(Protocol::P2p(peer_id(own)));
        self.facts.set_addresses(addresses.into_iter().map(with_id).collect());
    }

    /// Prints what others need, once: on a terminal only, because the token is a secret and logs are not.
    fn say_how_to_join(&self) -> bool {
        let Some(ledger) = self.engine.look(|node, now| node.view(now).ledger) else { return false };
        let mut out = io::stdout();
        let join = if out.is_terminal() {
            let token = Token {
                swarm_key: self.facts.swarm_key,
                founder: ledger.0,
                addresses: self.facts.addresses(),
            };
            format!("aquifer up --join {token}")
        } else {
            "aquifer token prints the command (it holds the swarm's key)".to_owned()
        };
        let _ = writeln!(out, "join     {join}");
        true
    }
}

fn swarm_key(
    config: &Config,
    data: &DataDir,
    join: Option<&Token>,
    founds: bool,
) -> Result<SwarmKey, IdentityError> {
    if let Some(token) = join {
        data.keep_swarm_key(&token.swarm_key)?;
        return Ok(token.swarm_key);
    }
    match &config.key_file {
        Some(path) => SwarmKey::read_or_make(path, founds),
        None => data.swarm_key(founds),
    }
}

/// Lets the process open as many files as it may ask for, and says how many.
fn raise_open_files() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = Rlimit { current: limit.maximum, ..limit };
        // Fewer will do.
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            limit = wanted;
        }
    }
    limit.current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

fn greet(config: &Config, id: NodeId, start: &Start, grpc: Option<&str>) {
    let socket = config.socket.display();
    let pool = config.pools[0].pool.name();
    let mut out = io::stdout();
    let doing = match start {
        Start::Found => "founds a swarm",
        Start::Join => "joins a swarm",
        Start::Resume(_) => "returns to its swarm",
        Start::Rejoin => "returns to its swarm without what it knew of it",
    };
    // A reader that closed its end does not stop the daemon.
    let _ = writeln!(out, "aquifer {} {} ({}) {doing}", env!("CARGO_PKG_VERSION"), config.name, id.short());
    let _ = writeln!(out, "socket   {socket}");
    if let Some(grpc) = grpc {
        let _ = writeln!(out, "grpc     {grpc}");
    }
    let _ = writeln!(out, "acquire  aquifer --socket {socket} acquire {pool}");
}

fn say(line: &str) {
    // A reader that closed its end does not stop the daemon.
    let _ = writeln!(io::stdout(), "{line}");
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

/// The wish that the daemon stops.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hangup: Hangup,
}

impl Stop {
    fn new(on_hangup: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: Hangup::new(on_hangup)?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = self.hangup.asked() => {}
        }
    }
}

/// SIGHUP, where that means this.
struct Hangup(Option<Signal>);

impl Hangup {
    fn new(heeded: bool) -> io::Result<Self> {
        Ok(Self(heeded.then(|| signal(SignalKind::hangup())).transpose()?))
    }

    async fn asked(&mut self) {
        match &mut self.0 {
            Some(signal) => _ = signal.recv().await,
            None => std::future::pending().await,
        }
    }
}
