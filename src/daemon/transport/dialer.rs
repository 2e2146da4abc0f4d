//! Whom to dial, and when: seeds and learned peers that have no link, again and again.
//!
//! libp2p never dials twice by itself. This part knows no socket: it is told the time and what came of each
//! dial, and says what to do next.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use super::address::{self, Family, Host, Seed};
use super::backoff::{self, Backoff, jittered};
use super::standing::Rank;

/// Addresses that are kept of one peer, and dialled of one name.
const ADDRESSES_MAX: usize = 8;
/// Dials at once.
const DIALS_MAX: usize = 8;
/// Learned peers that are kept, for each peer that may be connected.
const LEARNED_FACTOR: usize = 4;
/// Peers that left, and that mDNS is not believed about.
const FORGOTTEN_MAX: usize = 64;
/// Own addresses that are remembered.
const OWN_MAX: usize = 32;
/// The smaller id dials at once, the greater one this much later: crossed dials can end each other.
const COURTESY: Duration = Duration::from_secs(2);
/// A new address of a peer is tried within this time; not at once, since news can be made up.
const NEWS: Duration = Duration::from_secs(5);
/// The longest wait for each target that has no link, and at least: the fewer are missing, the less it costs to look for
/// them often, and the wait is what a healed network has to wait for. Eight dials of three seconds at once, which is what
/// a silent network allows, are not exceeded by it.
const PATIENCE_EACH: Duration = Duration::from_millis(500);
const PATIENCE_LEAST: Duration = Duration::from_secs(3);
/// When a link comes up, what cut it off may have cut off others that are missing: they are tried within this time.
const HOPE: Duration = Duration::from_millis(500);
/// After this many failures in a row, what mDNS said of a peer is dropped; it will say it again.
const MDNS_TRIES: u32 = 10;

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Look a name up and say what came of it with [`Dialer::resolved`].
    Resolve { seed: usize, name: String, port: u16 },
    /// Dial these addresses in order, expecting `peer` if that is known.
    Dial { target: Target, peer: Option<PeerId>, addresses: Vec<Multiaddr> },
}

/// Who is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Seed(usize),
    Peer(PeerId),
}

/// What came of a dial that did not connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The address is our own.
    Own(Multiaddr),
    /// Somebody else answered.
    OtherPeer(Multiaddr),
    /// A link, or another dial, was quicker.
    Needless,
    /// Nobody answered, or the handshake failed, or a limit stood in the way.
    Failed,
}

/// Who said where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A member; believed until the peer is forgotten.
    Gossip,
    /// Anybody on the local network.
    Mdns,
}

/// The links that exist, as far as dialling needs to know.
pub(super) trait Linked {
    /// Whether the peer has a link.
    fn is_linked(&self, peer: &PeerId) -> bool;
    /// What a peer's rank must be above to get a link; `None` while there are places for all.
    fn bar(&self) -> Option<Rank>;
    /// The rank of a peer.
    fn rank(&self, peer: &PeerId) -> Rank;
}

/// Whom to dial, and when.
#[derive(Debug)]
pub(super) struct Dialer {
    own: PeerId,
    max_peers: usize,
    seeds: Vec<SeedState>,
    peers: BTreeMap<PeerId, Learned>,
    dials: HashMap<ConnectionId, Target>,
    forgotten: VecDeque<PeerId>,
    own_addresses: VecDeque<Multiaddr>,
}

#[derive(Debug)]
struct SeedState {
    seed: Seed,
    /// Who answered last.
    peer: Option<PeerId>,
    /// Addresses of the name that this round has not tried.
    left: VecDeque<Multiaddr>,
    retry: Backoff,
}

#[derive(Debug)]
struct Learned {
    addresses: Vec<Multiaddr>,
    origin: Origin,
    retry: Backoff,
}

impl Dialer {
    pub(super) fn new(own: PeerId, max_peers: usize, seeds: Vec<Seed>, now: Instant) -> Self {
        let seeds = seeds.into_iter().map(|seed| SeedState {
            peer: seed.peer,
            seed,
            left: VecDeque::new(),
            retry: Backoff::starting(now),
        });
        Dialer {
            own,
            max_peers,
            seeds: seeds.collect(),
            peers: BTreeMap::new(),
            dials: HashMap::new(),
            forgotten: VecDeque::new(),
            own_addresses: VecDeque::new(),
        }
    }

    /// The next thing to do now; `None` when there is nothing until [`Dialer::deadline`].
    pub(super) fn due(&mut self, links: &impl Linked, now: Instant) -> Option<Action> {
        if self.dials.len() >= DIALS_MAX {
            return None;
        }
        let bar = links.bar();
        self.due_seed(links, bar, now).or_else(|| self.due_peer(links, bar, now))
    }

    /// When to ask [`Dialer::due`] again, if nothing happens before.
    pub(super) fn deadline(&self, links: &impl Linked) -> Option<Instant> {
        if self.dials.len() >= DIALS_MAX {
            return None;
        }
        let bar = links.bar();
        let seeds =
            self.seeds.iter().filter(|seed| self.wants_seed(seed, links, bar)).map(|seed| seed.retry.at);
        let peers = self.peers.iter().filter(|(peer, learned)| wants_peer(peer, learned, links, bar));
        seeds.chain(peers.map(|(_, learned)| learned.retry.at)).min()
    }

    /// A name was looked up; `false` when nothing came of it.
    pub(super) fn resolved(&mut self, seed: usize, found: &[SocketAddr], now: Instant) -> bool {
        let Some(state) = self.seeds.get_mut(seed) else { return false };
        let family = match &state.seed.host {
            Host::Ip(_) => Family::Any,
            Host::Name { family, .. } => *family,
        };
        let mut left = VecDeque::new();
        for socket in found.iter().filter(|socket| family.admits(socket.ip())) {
            let address = address::from_socket(*socket);
            if left.len() < ADDRESSES_MAX && !left.contains(&address) {
                left.push_back(address);
            }
        }
        let any = !left.is_empty();
        left.retain(|address| !self.own_addresses.contains(address));
        state.left = left;
        if state.left.is_empty() {
            state.retry.failed(backoff::LONGEST, now);
        } else {
            state.retry.again(now);
        }
        any
    }

    /// A dial of `target` has begun as `id`.
    pub(super) fn dialling(&mut self, id: ConnectionId, target: Target) {
        self.dials.insert(id, target);
    }

    /// The connection `id` to `peer` came up, dialled or accepted.
    pub(super) fn connected(&mut self, id: ConnectionId, peer: PeerId, address: &Multiaddr) {
        match self.dials.remove(&id) {
            Some(Target::Seed(seed)) => {
                if let Some(state) = self.seeds.get_mut(seed) {
                    state.peer = Some(peer);
                    state.left.clear();
                    state.retry.connected();
                }
            }
            Some(Target::Peer(_)) => {
                if let Some(learned) = self.peers.get_mut(&peer)
                    && let Some(at) = learned.addresses.iter().position(|known| known == address)
                {
                    learned.addresses[..=at].rotate_right(1);
                }
            }
            None => {}
        }
        if let Some(learned) = self.peers.get_mut(&peer) {
            learned.retry.connected();
        }
    }

    /// A peer that had no link has one: what cut it off may have cut off others, so those that failed are tried soon.
    pub(super) fn hope(&mut self, now: Instant) {
        let seeds = self.seeds.iter_mut().map(|seed| &mut seed.retry);
        let learned = self.peers.values_mut().map(|learned| &mut learned.retry);
        for retry in seeds.chain(learned).filter(|retry| retry.failures() > 0) {
            retry.sooner(now + jittered(HOPE));
        }
    }

    /// The dial `id` did not connect. Returns whom it was for.
    pub(super) fn failed(
        &mut self,
        id: ConnectionId,
        failure: &Failure,
        links: &impl Linked,
        now: Instant,
    ) -> Option<Target> {
        let target = self.dials.remove(&id)?;
        if let Failure::Own(address) = failure {
            self.remember_own(address.clone());
        }
        match target {
            Target::Seed(seed) => self.seed_failed(seed, failure, self.patience(links), now),
            Target::Peer(peer) => self.peer_failed(peer, failure, self.patience(links), now),
        }
        Some(target)
    }

    /// The last link to `peer` is gone. A link that had not lived long counts as a failed dial.
    pub(super) fn lost(&mut self, peer: PeerId, lived_long: bool, now: Instant) {
        let courtesy = self.courtesy(&peer);
        let seeds = self.seeds.iter_mut().filter(|seed| seed.peer == Some(peer)).map(|seed| &mut seed.retry);
        let learned = self.peers.get_mut(&peer).map(|learned| &mut learned.retry);
        for retry in seeds.chain(learned).filter(|retry| !retry.busy) {
            if lived_long {
                retry.afresh(now + jittered(Duration::from_millis(200)) + courtesy);
            } else {
                retry.failed(backoff::LONGEST, now);
                retry.again(retry.at + courtesy);
            }
        }
    }

    /// Where a peer may be reached. What is new comes first when there is too much.
    pub(super) fn learn(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, origin: Origin, now: Instant) {
        let mut fresh: Vec<Multiaddr> =
            addresses.into_iter().filter_map(|address| address::hint(&address)).collect();
        fresh.retain(|address| !self.own_addresses.contains(address));
        // Another host's loopback address is our own loopback: the least likely to lead to the peer.
        fresh.sort_by_key(|hint| address::ip_of(hint).is_some_and(|ip| ip.is_loopback()));
        let forgotten = self.forgotten.iter().position(|left| *left == peer);
        if peer == self.own || fresh.is_empty() || (origin == Origin::Mdns && forgotten.is_some()) {
            return;
        }
        if let Some(at) = forgotten {
            self.forgotten.remove(at);
        }
        if !self.peers.contains_key(&peer) && !self.make_room(origin) {
            return;
        }
        let first = now + self.courtesy(&peer);
        let learned = self.peers.entry(peer).or_insert_with(|| Learned {
            addresses: Vec::new(),
            origin,
            retry: Backoff::starting(first),
        });
        if origin == Origin::Gossip {
            learned.origin = origin;
        }
        let news = fresh.iter().any(|address| !learned.addresses.contains(address));
        if news && !learned.retry.busy && learned.retry.at > now + NEWS {
            learned.retry.again(now + jittered(NEWS));
        }
        let mut merged: Vec<Multiaddr> = Vec::new();
        for address in fresh.into_iter().chain(learned.addresses.drain(..)) {
            if merged.len() < ADDRESSES_MAX && !merged.contains(&address) {
                merged.push(address);
            }
        }
        learned.addresses = merged;
    }

    /// The peer has left: hints about it go, and seeds that led to it are tried rarely.
    pub(super) fn forget(&mut self, peer: PeerId, now: Instant) {
        self.peers.remove(&peer);
        for seed in self.seeds.iter_mut().filter(|seed| seed.peer == Some(peer) && !seed.retry.busy) {
            seed.retry.slow(now);
        }
        if !self.forgotten.contains(&peer) {
            if self.forgotten.len() >= FORGOTTEN_MAX {
                self.forgotten.pop_front();
            }
            self.forgotten.push_back(peer);
        }
    }

    /// Our addresses changed: what was our own may be another's now.
    pub(super) fn forget_own(&mut self) {
        self.own_addresses.clear();
    }

    fn due_seed(&mut self, links: &impl Linked, bar: Option<Rank>, now: Instant) -> Option<Action> {
        let due = |seed: &SeedState| seed.retry.at <= now && self.wants_seed(seed, links, bar);
        let seed = self.seeds.iter().position(due)?;
        let state = &mut self.seeds[seed];
        state.retry.busy = true;
        let port = state.seed.port;
        let address = match (&state.seed.host, state.left.pop_front()) {
            (Host::Ip(ip), _) => address::from_socket(SocketAddr::new(*ip, port)),
            (Host::Name { .. }, Some(address)) => address,
            (Host::Name { name, .. }, None) => {
                return Some(Action::Resolve { seed, name: name.clone(), port });
            }
        };
        // Several nodes may share a name, so a name promises no peer unless the configuration does.
        let peer = match state.seed.host {
            Host::Ip(_) => state.peer,
            Host::Name { .. } => state.seed.peer,
        };
        Some(Action::Dial { target: Target::Seed(seed), peer, addresses: vec![address] })
    }

    fn due_peer(&mut self, links: &impl Linked, bar: Option<Rank>, now: Instant) -> Option<Action> {
        let due = |(peer, learned): &(&PeerId, &mut Learned)| {
            learned.retry.at <= now && wants_peer(peer, learned, links, bar)
        };
        let (peer, learned) = self.peers.iter_mut().find(due)?;
        learned.retry.busy = true;
        let addresses = learned.addresses.clone();
        Some(Action::Dial { target: Target::Peer(*peer), peer: Some(*peer), addresses })
    }

    fn wants_seed(&self, state: &SeedState, links: &impl Linked, bar: Option<Rank>) -> bool {
        let own = state.peer == Some(self.own)
            || matches!(state.seed.host, Host::Ip(ip)
                if self.own_addresses.contains(&address::from_socket(SocketAddr::new(ip, state.seed.port))));
        let rank = state.peer.map_or(Rank::Seed, |peer| links.rank(&peer).max(Rank::Seed));
        !state.retry.busy
            && !own
            && Some(rank) > bar
            && !state.peer.is_some_and(|peer| links.is_linked(&peer))
    }

    /// The longest wait for members that do not answer.
    fn patience(&self, links: &impl Linked) -> Duration {
        let missing = self.peers.keys().filter(|peer| !links.is_linked(peer)).count();
        (PATIENCE_EACH * missing as u32).clamp(PATIENCE_LEAST, backoff::LONGEST)
    }

    fn seed_failed(&mut self, seed: usize, failure: &Failure, patience: Duration, now: Instant) {
        let Some(state) = self.seeds.get_mut(seed) else { return };
        if let Failure::OtherPeer(_) = failure {
            state.peer = state.seed.peer;
        }
        match failure {
            Failure::Needless => state.retry.again(now + jittered(Duration::from_secs(2))),
            // Where nobody has answered yet, perhaps nobody ever will.
            _ if state.left.is_empty() && state.peer.is_none() => state.retry.failed(backoff::LONGEST, now),
            _ if state.left.is_empty() => state.retry.failed(patience, now),
            _ => state.retry.again(now),
        }
    }

    fn peer_failed(&mut self, peer: PeerId, failure: &Failure, patience: Duration, now: Instant) {
        let Some(learned) = self.peers.get_mut(&peer) else { return };
        match failure {
            Failure::Own(address) | Failure::OtherPeer(address) => {
                learned.addresses.retain(|known| known != address);
                learned.retry.again(now);
            }
            Failure::Needless => learned.retry.again(now + jittered(Duration::from_secs(2))),
            Failure::Failed if learned.origin == Origin::Gossip => learned.retry.failed(patience, now),
            Failure::Failed => learned.retry.failed(backoff::LONGEST, now),
        }
        let hopeless = learned.origin == Origin::Mdns && learned.retry.failures() >= MDNS_TRIES;
        if learned.addresses.is_empty() || hopeless {
            self.peers.remove(&peer);
        }
    }

    /// Whether one more peer can be kept. Hints from members displace those of mDNS, and peers that never
    /// answer; hints from mDNS displace nobody and take half of the room at most.
    fn make_room(&mut self, origin: Origin) -> bool {
        let room = self.max_peers.saturating_mul(LEARNED_FACTOR);
        if origin == Origin::Mdns {
            let of_mdns = self.peers.values().filter(|learned| learned.origin == Origin::Mdns).count();
            return self.peers.len() < room && of_mdns < room / 2;
        }
        if self.peers.len() < room {
            return true;
        }
        let worst = self.peers.iter().max_by_key(|(_, l)| (l.origin == Origin::Mdns, l.retry.failures()));
        match worst.map(|(peer, learned)| (*peer, learned.origin, learned.retry.failures())) {
            Some((peer, origin, failures)) if origin == Origin::Mdns || failures >= MDNS_TRIES => {
                self.peers.remove(&peer);
                true
            }
            _ => false,
        }
    }

    fn remember_own(&mut self, address: Multiaddr) {
        if !self.own_addresses.contains(&address) {
            if self.own_addresses.len() >= OWN_MAX {
                self.own_addresses.pop_front();
            }
            self.own_addresses.push_back(address);
        }
    }

    fn courtesy(&self, peer: &PeerId) -> Duration {
        if self.own < *peer { Duration::ZERO } else { jittered(COURTESY) }
    }
}

fn wants_peer(peer: &PeerId, learned: &Learned, links: &impl Linked, bar: Option<Rank>) -> bool {
    !learned.retry.busy && !links.is_linked(peer) && bar.is_none_or(|bar| links.rank(peer) > bar)
}

#[cfg(test)]
#[path = "dialer_tests.rs"]
mod tests;
