//! The established connections, by peer.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;

use super::mailbox::Mailbox;
use super::standing::{Rank, Standing};
use crate::protocol::id::NodeId;

/// The most connections with one peer. One is too few: crossed dials would end each other.
pub(super) const PER_PEER_MAX: usize = 2;
/// How long a stranger keeps its place from other strangers: some times as long as it takes to be vouched for. The longer,
/// the more of those who never will be are before a newcomer.
const STRANGER_FOR: Duration = Duration::from_secs(3);
/// Peers whose connections are ending, beside those that may be connected.
const ENDING_MAX: usize = 32;
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

/// The established connections, oldest first, and who may have more.
#[derive(Debug)]
pub(super) struct Links {
    peers: BTreeMap<NodeId, Vec<Entry>>,
    max_peers: usize,
    pub(super) standing: Standing,
}

impl Links {
    pub(super) fn new(max_peers: usize) -> Self {
        Links { peers: BTreeMap::new(), max_peers, standing: Standing::default() }
    }

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

    /// What a new peer's rank must be above, where all places are taken; `None` while there are some.
    pub(super) fn bar(&self) -> Option<Rank> {
        self.lowest().map(|(rank, _)| rank)
    }

    /// Who would make room for a new peer, if anybody would have to: of the lowest rank, whose link is youngest.
    fn lowest(&self) -> Option<(Rank, NodeId)> {
        let up = self.peers.keys().filter(|peer| self.is_up(**peer));
        if up.clone().count() < self.max_peers {
            return None;
        }
        let now = Instant::now();
        let held = up.map(|peer| {
            let since = self.open(*peer).next().map_or(now, |entry| entry.since);
            let rank = match self.standing.rank(*peer) {
                Rank::Stranger if now - since >= STRANGER_FOR => Rank::Outstayed,
                rank => rank,
            };
            (rank, Reverse(since), *peer)
        });
        held.min().map(|(rank, _, peer)| (rank, peer))
    }

    /// Makes sure that there is a place for a new peer, if its rank allows. `None` if there is none, else the connections
    /// that have to end for it: they no longer count.
    pub(super) fn make_room(&mut self, peer: NodeId) -> Option<Vec<(NodeId, ConnectionId)>> {
        // What is ending takes no place, but memory until it has ended.
        if self.peers.len() >= self.max_peers + ENDING_MAX {
            return None;
        }
        let Some((rank, lowest)) = self.lowest() else { return Some(Vec::new()) };
        if rank >= self.standing.rank(peer) {
            return None;
        }
        let ending: Vec<_> = self.open(lowest).map(|entry| (lowest, entry.id)).collect();
        ending.iter().for_each(|(peer, id)| {
            self.close(*peer, *id);
        });
        Some(ending)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::share::{ONE, Share};

    const MAX: usize = 3;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn connect(links: &mut Links, number: u8, age: Duration) {
        let entry = Entry {
            id: ConnectionId::new_unchecked(number.into()),
            address: "/ip4/10.0.0.1/tcp/1".parse().unwrap(),
            since: Instant::now().checked_sub(age).unwrap(),
            mailbox: Arc::new(Mailbox::new(Arc::default())),
            closing: false,
        };
        links.insert(node(number), entry);
    }

    /// Strangers 1 and 2, and a member with a quarter of all.
    fn full() -> Links {
        let mut links = Links::new(MAX);
        links.standing.set_members(BTreeMap::from([
            (node(10), ONE.scale(1, 4)),
            (node(11), ONE.scale(1, 2)),
            (node(12), ONE.scale(1, 4)),
        ]));
        assert_eq!(links.bar(), None);
        connect(&mut links, 1, Duration::from_secs(2));
        connect(&mut links, 2, Duration::from_secs(1));
        connect(&mut links, 10, Duration::from_secs(60));
        links
    }

    fn gone(links: &mut Links, newcomer: u8) -> Option<Vec<NodeId>> {
        let ending = links.make_room(node(newcomer))?;
        Some(ending.into_iter().map(|(peer, _)| peer).collect())
    }

    #[test]
    fn a_member_takes_the_place_of_the_youngest_stranger_and_then_of_a_member_with_less() {
        let mut links = full();
        assert_eq!(gone(&mut links, 11), Some(vec![node(2)]));
        connect(&mut links, 11, Duration::ZERO);
        assert_eq!(gone(&mut links, 12), Some(vec![node(1)]));
        connect(&mut links, 12, Duration::ZERO);
        assert_eq!(links.bar(), Some(Rank::Member(ONE.scale(1, 4))));
        assert_eq!(gone(&mut links, 13), None, "a stranger takes no member's place");
        links.standing.set_members((10..14).map(|number| (node(number), ONE.scale(1, 4))).collect());
        assert_eq!(gone(&mut links, 13), None, "nor does a member with as much");
    }

    #[test]
    fn a_stranger_takes_the_place_of_one_that_stayed_one_and_a_seed_of_any() {
        let mut links = full();
        assert_eq!(gone(&mut links, 3), None);
        links.standing.set_seed(0, node(3));
        assert_eq!(gone(&mut links, 3), Some(vec![node(2)]));
        connect(&mut links, 4, STRANGER_FOR);
        assert_eq!(links.bar(), Some(Rank::Outstayed));
        assert_eq!(gone(&mut links, 5), Some(vec![node(4)]));
    }

    #[test]
    fn connections_that_do_not_end_are_bounded() {
        let mut links = Links::new(MAX);
        let member = |number: usize| NodeId([number as u8; 32]);
        let base = |number: usize| (member(number), Share(number as u64));
        links.standing.set_members((1..200).map(base).collect());
        let mut held = 0;
        for number in 1..200 {
            if links.make_room(member(number)).is_some() {
                connect(&mut links, number as u8, Duration::ZERO);
                held += 1;
            }
        }
        assert_eq!(held, MAX + ENDING_MAX);
    }
}
