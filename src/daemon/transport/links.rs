//! The established connections, by peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;

use super::mailbox::Mailbox;
use crate::protocol::id::NodeId;

/// The most connections with one peer. One is too few: crossed dials would end each other.
pub(super) const PER_PEER_MAX: usize = 2;
/// How old the newer of two links is when the smaller id closes the older one.
const SETTLED: Duration = Duration::from_secs(2);
/// How old it is when the greater id does so: the peer seems to know of one link only.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// A live link to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The peer.
    pub peer: NodeId,
    /// The peer's end of the connection that we send on: where we dialled it, or where it dialled from.
    pub address: Multiaddr,
    /// When that connection came up.
    pub since: Instant,
    /// Connections with the peer; two for some seconds after both sides dialled.
    pub connections: usize,
}

/// One established connection.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: ConnectionId,
    pub(super) address: Multiaddr,
    pub(super) since: Instant,
    pub(super) mailbox: Arc<Mailbox>,
    /// We asked for its end; it no longer counts as a link.
    pub(super) closing: bool,
}

/// The established connections, oldest first.
#[derive(Debug, Default)]
pub(super) struct Links {
    peers: BTreeMap<NodeId, Vec<Entry>>,
}

impl Links {
    pub(super) fn insert(&mut self, peer: NodeId, entry: Entry) {
        self.peers.entry(peer).or_default().push(entry);
    }

    pub(super) fn remove(&mut self, peer: NodeId, id: ConnectionId) -> Option<Entry> {
        let entries = self.peers.get_mut(&peer)?;
        let entry = entries.iter().position(|entry| entry.id == id).map(|at| entries.remove(at));
        if entries.is_empty() {
            self.peers.remove(&peer);
        }
        entry
    }

    /// Marks a connection as ending; `false` when it was already, or is unknown.
    pub(super) fn close(&mut self, peer: NodeId, id: ConnectionId) -> bool {
        let entry = self.peers.get_mut(&peer).and_then(|entries| entries.iter_mut().find(|e| e.id == id));
        entry.is_some_and(|entry| !std::mem::replace(&mut entry.closing, true))
    }

    /// Peers with a connection, one that is ending included.
    pub(super) fn peers_held(&self) -> usize {
        self.peers.len()
    }

    /// Connections with a peer, those that are ending included.
    pub(super) fn held(&self, peer: NodeId) -> &[Entry] {
        self.peers.get(&peer).map_or(&[], Vec::as_slice)
    }

    /// Links to a peer, oldest first.
    pub(super) fn open(&self, peer: NodeId) -> impl DoubleEndedIterator<Item = &Entry> {
        self.held(peer).iter().filter(|entry| !entry.closing)
    }

    pub(super) fn is_up(&self, peer: NodeId) -> bool {
        self.open(peer).next().is_some()
    }

    /// Where to send: the newest link that works, or else the newest.
    pub(super) fn best(&self, peer: NodeId) -> Option<&Entry> {
        let newest = self.open(peer).next_back()?;
        Some(self.open(peer).rfind(|entry| entry.mailbox.is_ready()).unwrap_or(newest))
    }

    /// One entry per peer that is up, by id.
    pub(super) fn listing(&self) -> impl Iterator<Item = Link> {
        self.peers.keys().filter_map(|peer| {
            let best = self.best(*peer)?;
            Some(Link {
                peer: *peer,
                address: best.address.clone(),
                since: best.since,
                connections: self.open(*peer).count(),
            })
        })
    }

    /// Links beside a newer one that have to go, and when to look again.
    pub(super) fn surplus(
        &self,
        own: NodeId,
        now: Instant,
    ) -> (Vec<(NodeId, ConnectionId)>, Option<Instant>) {
        let mut surplus = Vec::new();
        let mut again: Option<Instant> = None;
        for peer in self.peers.keys() {
            let mut newest_first = self.open(*peer).rev();
            let (Some(newest), Some(older)) = (newest_first.next(), newest_first.next()) else { continue };
            let due = newest.since + if own < *peer { SETTLED } else { LEFT_BEHIND };
            if due <= now {
                surplus.push((*peer, older.id));
            } else {
                again = Some(again.map_or(due, |again| again.min(due)));
            }
        }
        (surplus, again)
    }
}
