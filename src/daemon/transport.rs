//! Carries opaque frames between nodes: libp2p over TCP with a swarm key, Noise and Yamux.
//!
//! The contract is weak. A frame may be lost, and may overtake another when a peer has two connections for a
//! while; it is never delivered in part. Who must know more than that says it in the frames.
//!
//! Everything is bounded: peers, connections, handshakes, mailboxes, addresses. The transport is driven by
//! [`Transport::next`] and, being polled from one task, only moves bytes.

mod address;
mod backoff;
mod behaviour;
mod counters;
mod dialer;
pub mod frame;
mod handler;
mod identity;
mod links;
mod mailbox;
mod refused;
mod stack;
mod standing;
mod swarm;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::swarm::{self as libp2p_swarm, SwarmEvent};
use libp2p::{Multiaddr, Swarm};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use self::behaviour::Behaviour;
use self::counters::Tally;
use self::dialer::{Dialer, Origin};
use self::refused::Throttle;
use crate::protocol::id::NodeId;
use crate::protocol::share::Share;

pub use self::counters::Counters;
pub use self::frame::FRAME_MAX;
pub use self::identity::{node_id, peer_id};
pub use self::links::Link;
pub use self::refused::RefusedWhy;

/// A connection without streams is kept this long; ours have streams and are kept until they fail.
const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a listener may take to say where it listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Events that one connection may have waiting; then it is not read on.
const EVENTS_PER_CONNECTION: usize = 2;
/// Streams of one connection that may be in negotiation.
const NEGOTIATING_MAX: usize = 2;

/// What a transport starts with.
#[derive(Clone)]
pub struct TransportConfig {
    /// Who we are. Ed25519.
    pub keypair: Keypair,
    /// The pre-shared key: only nodes with the same one can talk to us.
    pub swarm_key: [u8; 32],
    /// Where to listen: `/ip4/…/tcp/N` or `/ip6/…/tcp/N`. Port 0 takes any free one.
    pub listen: Multiaddr,
    /// Where other nodes are: `/ip4|ip6|dns|dns4|dns6/…/tcp/N`, with `/p2p/ID` behind it or not. Names are
    /// looked up in every dial round.
    pub seeds: Vec<Multiaddr>,
    /// Whether to look for peers by multicast on the local network.
    pub mdns: bool,
    /// How many peers may be connected; see [`Transport::set_members`]. Each may have two connections for a while.
    pub max_peers: usize,
}

impl fmt::Debug for TransportConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportConfig")
            .field("listen", &self.listen)
            .field("seeds", &self.seeds)
            .field("mdns", &self.mdns)
            .field("max_peers", &self.max_peers)
            .finish_non_exhaustive()
    }
}

/// Why a transport did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The key pair is of another kind.
    #[error("the node's key is not an Ed25519 key; create a new identity")]
    Identity,
    /// Noise could not use the key pair.
    #[error("the node's key cannot sign the handshake; create a new identity")]
    Noise(#[from] libp2p::noise::Error),
    /// The listen address is of another form.
    #[error("cannot listen on {0}: write /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT")]
    ListenForm(Multiaddr),
    /// A seed is of another form.
    #[error(
        "{0} is no seed: write /ip4/ADDRESS/tcp/PORT or /dns/NAME/tcp/PORT, and /p2p/ID behind it if wanted"
    )]
    Seed(Multiaddr),
    /// Somebody else listens there.
    #[error("{0} is in use: stop the other program (another Aquifer?), or choose another listen address")]
    InUse(Multiaddr),
    /// The system refused to listen there.
    #[error("cannot listen on {address}: {error}; choose an address of this machine and a port above 1023")]
    Listen {
        /// The configured address.
        address: Multiaddr,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// We can be reached at an address.
    Listening(Multiaddr),
    /// We can no longer be reached at an address: the machine has lost it.
    Expired(Multiaddr),
    /// A peer has its first link.
    Up {
        /// The peer.
        peer: NodeId,
        /// Its end of the connection.
        address: Multiaddr,
    },
    /// A peer's last link is gone, or was given up. It is dialled again unless it was forgotten.
    Down {
        /// The peer.
        peer: NodeId,
    },
    /// A frame arrived.
    Frame {
        /// Who sent it, proven by the connection.
        from: NodeId,
        /// What; 1 to [`FRAME_MAX`] bytes.
        bytes: Vec<u8>,
    },
    /// A connection did not come about. Said once a minute per address and reason, and 32 times a minute in
    /// all; [`Counters`] has every one.
    Refused {
        /// Whose; `None` when the address is not known, as of a name that does not resolve.
        address: Option<Multiaddr>,
        /// Why.
        why: RefusedWhy,
    },
}

/// Carries frames between this node and its peers.
pub struct Transport {
    swarm: Box<Swarm<Behaviour>>,
    own: NodeId,
    dialer: Dialer,
    lookups: JoinSet<(usize, io::Result<Vec<SocketAddr>>)>,
    events: VecDeque<Event>,
    throttle: Throttle,
    tally: Arc<Tally>,
    /// Peers that were said to be up, and since when.
    up: BTreeMap<NodeId, Instant>,
    timer: Pin<Box<Sleep>>,
    /// `timer` runs.
    armed: bool,
    /// Links or targets have changed since `timer` was set.
    stale: bool,
}

impl Transport {
    /// Listens, and begins to dial as soon as [`Transport::next`] is polled. Needs a running Tokio runtime.
    ///
    /// # Errors
    ///
    /// When the key, the listen address or a seed is of no use, and when the address cannot be listened on.
    pub async fn start(config: TransportConfig) -> Result<Self, TransportError> {
        let own = node_id(&config.keypair.public()).ok_or(TransportError::Identity)?;
        let own_peer = peer_id(own);
        let socket = address::to_socket(&config.listen)
            .ok_or_else(|| TransportError::ListenForm(config.listen.clone()))?;
        let seeds: Result<Vec<_>, _> = config
            .seeds
            .iter()
            .map(|seed| address::parse_seed(seed).ok_or_else(|| TransportError::Seed(seed.clone())))
            .collect();
        let seeds = seeds?;
        let stack = stack::build(&config.keypair, config.swarm_key)?;
        if socket.port() != 0 {
            stack::probe(socket).map_err(|error| listen_error(&config.listen, error))?;
        }

        let tally = Arc::new(Tally::default());
        let behaviour = Behaviour::new(own_peer, config.max_peers, config.mdns, Arc::clone(&tally));
        let swarm_config = libp2p_swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_per_connection_event_buffer_size(EVENTS_PER_CONNECTION)
            .with_max_negotiating_inbound_streams(NEGOTIATING_MAX);
        let mut transport = Transport {
            swarm: Box::new(Swarm::new(stack, behaviour, own_peer, swarm_config)),
            own,
            dialer: Dialer::new(own_peer, config.max_peers, seeds, Instant::now()),
            lookups: JoinSet::new(),
            events: VecDeque::new(),
            throttle: Throttle::default(),
            tally,
            up: BTreeMap::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: false,
            stale: true,
        };
        transport.listen(config.listen).await?;
        Ok(transport)
    }

    /// The next thing that happens. May be dropped and called again without losing anything. Nothing moves
    /// while nobody waits here.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.stale {
                self.stale = false;
                self.keep_house();
                continue;
            }
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                Some(found) = self.lookups.join_next() => self.on_lookup(found),
                () = &mut self.timer, if self.armed => {
                    self.armed = false;
                    self.stale = true;
                }
            }
        }
    }

    /// Sends a frame of 1 to [`FRAME_MAX`] bytes, or drops it: when it is longer or empty, when the peer has
    /// no link, or later when more than 64 frames or 256 KiB wait for the peer (then the oldest go).
    pub fn send(&mut self, to: NodeId, frame: Vec<u8>) {
        let fits = !frame.is_empty() && frame.len() <= FRAME_MAX;
        match self.swarm.behaviour().carrier.links.best(to) {
            Some(link) if fits => link.mailbox.push(frame),
            _ => self.tally.dropped_frames.add(1),
        }
    }

    /// Remembers where a peer may be reached, and dials it while it has no link. At most 8 literal addresses
    /// are kept of a peer, and four times as many peers as may be connected.
    pub fn learn(&mut self, peer: NodeId, addresses: Vec<Multiaddr>) {
        self.dialer.learn(peer_id(peer), addresses, Origin::Gossip, Instant::now());
        self.stale = true;
    }

    /// Closes the links to a peer and dials it no more: it has left. A seed where it answered is still tried,
    /// twice a minute, since another node may answer there one day.
    pub fn forget(&mut self, peer: NodeId) {
        self.close(peer);
        self.dialer.forget(peer_id(peer), Instant::now());
    }

    /// Closes the links to a peer and dials it again: it has been silent for too long.
    pub fn close(&mut self, peer: NodeId) {
        let links: Vec<_> = self.swarm.behaviour().carrier.links.open(peer).map(|link| link.id).collect();
        for link in links {
            self.cut(peer, link);
        }
    }

    /// Says who is a member, with what base share: where there are not places for all, links are for those who have more.
    pub fn set_members(&mut self, members: BTreeMap<NodeId, Share>) {
        self.swarm.behaviour_mut().carrier.links.standing.set_members(members);
        self.stale = true;
    }

    /// Where we listen: one address per interface, those of the loopback included.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.swarm.listeners().cloned().collect()
    }

    /// The peers that have a link, by id.
    pub fn links(&self) -> Vec<Link> {
        self.swarm.behaviour().carrier.links.listing().collect()
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.tally.counters()
    }

    async fn listen(&mut self, address: Multiaddr) -> Result<(), TransportError> {
        self.swarm.listen_on(address.clone()).map_err(|error| {
            let error = match error {
                libp2p::TransportError::Other(error) => error,
                libp2p::TransportError::MultiaddrNotSupported(_) => io::ErrorKind::Unsupported.into(),
            };
            listen_error(&address, error)
        })?;
        let heard = tokio::time::timeout(LISTEN_TIMEOUT, async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::ListenerError { error, .. } => return Err(error),
                    SwarmEvent::ListenerClosed { reason, .. } => {
                        return Err(reason.err().unwrap_or_else(|| io::ErrorKind::NotConnected.into()));
                    }
                    event => {
                        let done = matches!(event, SwarmEvent::NewListenAddr { .. });
                        self.on_swarm(event);
                        if done {
                            return Ok(());
                        }
                    }
                }
            }
        });
        let heard = heard.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        heard.map_err(|error| listen_error(&address, error))
    }
}

fn listen_error(address: &Multiaddr, error: io::Error) -> TransportError {
    let address = address.clone();
    match error.kind() {
        io::ErrorKind::AddrInUse => TransportError::InUse(address),
        _ => TransportError::Listen { address, error },
    }
}
