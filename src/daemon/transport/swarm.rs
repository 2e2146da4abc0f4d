//! What the swarm says, and what the transport does about it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libp2p::core::ConnectedPoint;
use libp2p::core::transport::TransportError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionDenied, ConnectionId, DialError, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, mdns};
use tokio::task::JoinError;

use super::behaviour::{BehaviourEvent, Carried};
use super::dialer::{Action, Failure, Linked, Origin, Target};
use super::handler::Broken;
use super::identity::node_of;
use super::links::Links;
use super::refused::RefusedWhy;
use super::standing::Rank;
use super::{Event, Transport, address, peer_id, stack};
use crate::protocol::id::NodeId;

/// A link that lasted this long was no failed dial.
const LASTING: Duration = Duration::from_secs(10);
/// A link this old makes room when its peer comes again.
const STALE: Duration = Duration::from_secs(5);

impl Linked for Links {
    fn is_linked(&self, peer: &PeerId) -> bool {
        node_of(peer).is_some_and(|node| self.is_up(node))
    }

    fn bar(&self) -> Option<Rank> {
        self.bar()
    }

    fn rank(&self, peer: &PeerId) -> Rank {
        node_of(peer).map_or(Rank::Stranger, |node| self.standing.rank(node))
    }
}

impl Transport {
    /// Does what is due and sets the timer to what is due next.
    pub(super) fn keep_house(&mut self) {
        let now = Instant::now();
        let (surplus, settle) = self.swarm.behaviour().carrier.links.surplus(self.own, now);
        for (peer, link) in surplus {
            self.cut(peer, link);
        }
        while let Some(action) = self.dialer.due(&self.swarm.behaviour().carrier.links, now) {
            self.act(action);
        }
        let dial = self.dialer.deadline(&self.swarm.behaviour().carrier.links);
        let next = [settle, dial].into_iter().flatten().min();
        self.armed = next.is_some();
        if let Some(next) = next {
            self.timer.as_mut().reset(next.into());
        }
    }

    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Carrier(Carried::Frames { from, frames })) => {
                if self.swarm.behaviour().carrier.links.is_up(from) {
                    self.events.extend(frames.into_iter().map(|bytes| Event::Frame { from, bytes }));
                }
                return;
            }
            SwarmEvent::Behaviour(BehaviourEvent::Carrier(Carried::Broken { peer, id, why })) => {
                match why {
                    Broken::Malformed => self.tally.malformed.add(1),
                    Broken::Stalled => self.tally.stalled.add(1),
                    Broken::Ended => {}
                }
                tracing::debug!(?peer, ?why, "a connection is of no more use");
                self.cut(peer, id);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(event)) => self.on_mdns(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "a connection ended");
                if let Some(peer) = node_of(&peer_id) {
                    self.note_down(peer);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failed(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, peer_id, .. } => {
                self.on_rejected(&send_back_addr, &error, peer_id);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.dialer.forget_own();
                self.events.push_back(Event::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.dialer.forget_own();
                self.events.push_back(Event::Expired(address));
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "accepting failed"),
            SwarmEvent::ListenerClosed { reason, .. } => {
                tracing::error!(?reason, "the listener ended; peers can no longer connect here");
            }
            _ => return,
        }
        self.stale = true;
    }

    pub(super) fn on_lookup(&mut self, done: Result<(usize, io::Result<Vec<SocketAddr>>), JoinError>) {
        let Ok((seed, found)) = done else { return };
        let now = Instant::now();
        let found = found.unwrap_or_default();
        if !self.dialer.resolved(seed, &found, now) {
            self.tally.failed_dials.add(1);
            if self.throttle.outgoing(None, RefusedWhy::Unresolved, now) {
                self.events.push_back(Event::Refused { address: None, why: RefusedWhy::Unresolved });
            }
        }
        self.stale = true;
    }

    /// Ends one link.
    pub(super) fn cut(&mut self, peer: NodeId, link: ConnectionId) {
        if self.swarm.behaviour_mut().carrier.links.close(peer, link) {
            self.swarm.close_connection(link);
            self.note_down(peer);
            self.stale = true;
        }
    }
}

impl Transport {
    fn act(&mut self, action: Action) {
        match action {
            Action::Resolve { seed, name, port } => {
                self.lookups.spawn(async move {
                    let found = tokio::net::lookup_host((name, port)).await;
                    (seed, found.map(Iterator::collect))
                });
            }
            Action::Dial { target, peer, addresses } => self.dial(target, peer, addresses),
        }
    }

    fn dial(&mut self, target: Target, peer: Option<PeerId>, addresses: Vec<Multiaddr>) {
        let Some(address) = addresses.first().cloned() else { return };
        // One address at a time: a second one that also answers would be hung up on in its handshake, which
        // looks like another swarm key over there. New ports, or crossed dials would become one TCP connection
        // with two dialling ends.
        let opts = match peer {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .override_dial_concurrency_factor(std::num::NonZeroU8::MIN)
                .allocate_new_port()
                .build(),
            None => DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build(),
        };
        let id = opts.connection_id();
        self.dialer.dialling(id, target);
        if let Target::Seed(seed) = target {
            self.swarm.behaviour_mut().carrier.dialling_seed(id, seed);
        }
        match self.swarm.dial(opts) {
            Ok(()) => {}
            // libp2p leaves out the addresses that we listen on, and nothing was left.
            Err(DialError::NoAddresses) => self.on_dial_failed(id, &DialError::LocalPeerId { address }),
            Err(error) => self.on_dial_failed(id, &error),
        }
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let address = address::without_peer(endpoint.get_remote_address().clone());
        self.dialer.connected(id, peer, &address);
        let Some(node) = node_of(&peer) else { return };
        if let Entry::Vacant(up) = self.up.entry(node) {
            let now = Instant::now();
            up.insert(now);
            self.dialer.hope(now);
            self.events.push_back(Event::Up { peer: node, address });
        }
    }

    fn note_down(&mut self, peer: NodeId) {
        if self.swarm.behaviour().carrier.links.is_up(peer) {
            return;
        }
        if let Some(since) = self.up.remove(&peer) {
            let now = Instant::now();
            self.dialer.lost(peer_id(peer), now - since >= LASTING, now);
            self.events.push_back(Event::Down { peer });
        }
    }

    fn on_dial_failed(&mut self, id: ConnectionId, error: &DialError) {
        let now = Instant::now();
        let (failure, address, why) = match error {
            DialError::LocalPeerId { address } => own(address),
            DialError::WrongPeerId { obtained, address } if *obtained == peer_id(self.own) => own(address),
            DialError::WrongPeerId { address, .. } => {
                let address = address::without_peer(address.clone());
                (Failure::OtherPeer(address.clone()), Some(address), RefusedWhy::OtherPeer)
            }
            DialError::DialPeerConditionFalse(_) | DialError::NoAddresses | DialError::Aborted => {
                self.dialer.failed(id, &Failure::Needless, &self.swarm.behaviour().carrier.links, now);
                return;
            }
            DialError::Denied { cause } => (Failure::Failed, None, denied(cause)),
            DialError::Transport(errors) => {
                let (address, why) = worst(errors);
                (Failure::Failed, address, why)
            }
        };
        let target = self.dialer.failed(id, &failure, &self.swarm.behaviour().carrier.links, now);
        if why == RefusedWhy::Surplus {
            return;
        }
        self.tally.failed_dials.add(1);
        // Hints may be stale or another network's; only what the operator wrote is worth a word then.
        let hinted = matches!(target, Some(Target::Peer(_)));
        let trifle = matches!(why, RefusedWhy::Own | RefusedWhy::OtherPeer | RefusedWhy::Unreachable);
        if !(hinted && trifle) && self.throttle.outgoing(address.as_ref(), why, now) {
            self.events.push_back(Event::Refused { address, why });
        }
    }

    fn on_rejected(&mut self, from: &Multiaddr, error: &ListenError, peer: Option<PeerId>) {
        let why = match error {
            // The dialling end, which is us, has said so.
            ListenError::LocalPeerId { .. } | ListenError::Aborted => return,
            ListenError::WrongPeerId { .. } => RefusedWhy::OtherPeer,
            ListenError::Denied { cause } => denied(cause),
            ListenError::Transport(error) => why(error),
        };
        let now = Instant::now();
        self.tally.rejected.add(1);
        if why == RefusedWhy::Surplus
            && let Some(peer) = peer.as_ref().and_then(node_of)
        {
            self.make_room_for(peer, now);
        } else if self.throttle.incoming(from, why, now) {
            self.events.push_back(Event::Refused { address: Some(from.clone()), why });
        }
    }

    /// A peer that comes a third time has lost what we hold, for example by losing power twice.
    fn make_room_for(&mut self, peer: NodeId, now: Instant) {
        let oldest = self.swarm.behaviour().carrier.links.open(peer).next();
        if let Some(id) = oldest.filter(|link| now - link.since >= STALE).map(|link| link.id) {
            self.cut(peer, id);
        }
    }

    fn on_mdns(&mut self, event: mdns::Event) {
        // Records expire when packets get lost, too; nothing follows from that.
        let mdns::Event::Discovered(found) = event else { return };
        let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
        for (peer, address) in found.into_iter().filter(|(peer, _)| node_of(peer).is_some()) {
            peers.entry(peer).or_default().push(address);
        }
        let now = Instant::now();
        for (peer, addresses) in peers {
            self.dialer.learn(peer, addresses, Origin::Mdns, now);
        }
    }
}

fn own(address: &Multiaddr) -> (Failure, Option<Multiaddr>, RefusedWhy) {
    let address = address::without_peer(address.clone());
    (Failure::Own(address.clone()), Some(address), RefusedWhy::Own)
}

fn denied(cause: &ConnectionDenied) -> RefusedWhy {
    cause.downcast_ref::<RefusedWhy>().copied().unwrap_or(RefusedWhy::Full)
}

fn why(error: &TransportError<io::Error>) -> RefusedWhy {
    match error {
        TransportError::Other(error) => stack::why(error),
        TransportError::MultiaddrNotSupported(_) => RefusedWhy::Unreachable,
    }
}

/// The address that came furthest, which tells most about what is wrong.
fn worst(errors: &[(Multiaddr, TransportError<io::Error>)]) -> (Option<Multiaddr>, RefusedWhy) {
    let reached = |(address, error): &(Multiaddr, _)| (address::without_peer(address.clone()), why(error));
    let found = errors.iter().map(reached).max_by_key(|(_, why)| match why {
        RefusedWhy::Unreachable => 0,
        RefusedWhy::Silent => 1,
        _ => 2,
    });
    found.map_or((None, RefusedWhy::Unreachable), |(address, why)| (Some(address), why))
}
