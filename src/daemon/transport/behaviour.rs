//! What the swarm runs: our carrier of frames, and mDNS beside it.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, mdns};

use super::address;
use super::counters::Tally;
use super::handler::{Broken, Handler, Report};
use super::identity::{node_of, peer_id};
use super::links::{Entry, Links, PER_PEER_MAX};
use super::mailbox::Mailbox;
use super::refused::RefusedWhy;
use crate::protocol::id::NodeId;

/// The most handshakes of incoming connections at once.
const PENDING_MAX: usize = 32;
/// The most of them from one address, so that one silent host cannot hold all.
const PENDING_PER_HOST_MAX: usize = 16;
/// How often mDNS asks the network again.
const MDNS_INTERVAL: Duration = Duration::from_secs(60);

/// The behaviours of a swarm.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) carrier: Carrier,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(own: PeerId, max_peers: usize, mdns: bool, tally: Arc<Tally>) -> Self {
        let mdns = mdns.then(|| {
            let config = mdns::Config { query_interval: MDNS_INTERVAL, ..mdns::Config::default() };
            mdns::tokio::Behaviour::new(config, own)
        });
        let mdns = mdns.and_then(|started| {
            started
                .inspect_err(|error| tracing::warn!(%error, "mDNS did not start; use seeds to find peers"))
                .ok()
        });
        Behaviour { carrier: Carrier::new(Links::new(max_peers), tally), mdns: mdns.into() }
    }
}

/// What a connection brought.
#[derive(Debug)]
pub(super) enum Carried {
    /// Frames, in order.
    Frames { from: NodeId, frames: Vec<Vec<u8>> },
    /// Its end: it must be closed.
    Broken { peer: NodeId, id: ConnectionId, why: Broken },
}

/// Carries frames between connections and the daemon, and bounds connections.
pub(super) struct Carrier {
    pub(super) links: Links,
    tally: Arc<Tally>,
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    /// Mailboxes of connections that are admitted and not yet established.
    admitted: HashMap<ConnectionId, Arc<Mailbox>>,
    /// Dials of seeds.
    to_seeds: HashMap<ConnectionId, usize>,
    actions: VecDeque<ToSwarm<Carried, Infallible>>,
}

impl Carrier {
    fn new(links: Links, tally: Arc<Tally>) -> Self {
        Carrier {
            links,
            tally,
            pending: HashMap::new(),
            admitted: HashMap::new(),
            to_seeds: HashMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// The dial `id` is of a seed.
    pub(super) fn dialling_seed(&mut self, id: ConnectionId, seed: usize) {
        self.to_seeds.insert(id, seed);
    }

    fn admit(&mut self, id: ConnectionId, peer: &PeerId) -> Result<Handler, ConnectionDenied> {
        let node = node_of(peer).ok_or_else(|| ConnectionDenied::new(RefusedWhy::Identity))?;
        let held = self.links.held(node).len();
        if held >= PER_PEER_MAX {
            return Err(ConnectionDenied::new(RefusedWhy::Surplus));
        }
        if held == 0 {
            let ending = self.links.make_room(node).ok_or_else(|| ConnectionDenied::new(RefusedWhy::Full))?;
            self.actions.extend(ending.into_iter().map(|(peer, link)| ToSwarm::CloseConnection {
                peer_id: peer_id(peer),
                connection: CloseConnection::One(link),
            }));
        }
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&self.tally)));
        self.admitted.insert(id, Arc::clone(&mailbox));
        Ok(Handler::new(mailbox, Arc::clone(&self.tally)))
    }

    fn forget(&mut self, id: ConnectionId) {
        self.pending.remove(&id);
        self.admitted.remove(&id);
        self.to_seeds.remove(&id);
    }
}

impl NetworkBehaviour for Carrier {
    type ConnectionHandler = Handler;
    type ToSwarm = Carried;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let host = address::ip_of(remote);
        let same = self.pending.values().filter(|other| **other == host).count();
        if self.pending.len() >= PENDING_MAX || same >= PENDING_PER_HOST_MAX {
            return Err(ConnectionDenied::new(RefusedWhy::Busy));
        }
        self.pending.insert(id, host);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.pending.remove(&id);
        self.admit(id, &peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        if let (Some(seed), Some(node)) = (self.to_seeds.remove(&id), node_of(&peer)) {
            self.links.standing.set_seed(seed, node);
        }
        self.admit(id, &peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                let mailbox = self.admitted.remove(&event.connection_id);
                if let (Some(mailbox), Some(node)) = (mailbox, node_of(&event.peer_id)) {
                    let entry = Entry {
                        id: event.connection_id,
                        address: address::without_peer(event.endpoint.get_remote_address().clone()),
                        since: Instant::now(),
                        mailbox,
                        closing: false,
                    };
                    self.links.insert(node, entry);
                }
            }
            FromSwarm::ConnectionClosed(event) => {
                if let Some(node) = node_of(&event.peer_id) {
                    self.links.remove(node, event.connection_id);
                }
            }
            FromSwarm::DialFailure(event) => self.forget(event.connection_id),
            FromSwarm::ListenFailure(event) => self.forget(event.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer_id: PeerId, id: ConnectionId, report: Report) {
        let Some(node) = node_of(&peer_id) else { return };
        self.actions.push_back(ToSwarm::GenerateEvent(match report {
            Report::Frames(frames) => Carried::Frames { from: node, frames },
            Report::Broken(why) => Carried::Broken { peer: node, id, why },
        }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Carried, THandlerInEvent<Self>>> {
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
