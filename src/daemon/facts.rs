//! What the daemon knows of itself that the core does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::Multiaddr;

use super::identity::SwarmKey;
use super::transport::Counters;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::time::Instant;

/// Shared between the task that owns the transport and those that answer callers.
#[derive(Clone)]
pub struct Facts {
    /// Which life of which node this is.
    pub replica: Replica,
    /// Lets nodes speak to one another.
    pub swarm_key: SwarmKey,
    /// When the daemon started.
    pub started: Instant,
    /// What was wrong with its files then.
    pub warnings: Arc<[String]>,
    net: Arc<Mutex<Net>>,
}

#[derive(Default)]
struct Net {
    addresses: Vec<Multiaddr>,
    links: BTreeMap<NodeId, Multiaddr>,
    counters: Counters,
    misunderstood: u64,
}

impl Facts {
    /// Nothing is known of the network yet.
    pub fn new(replica: Replica, swarm_key: SwarmKey, started: Instant, warnings: Vec<String>) -> Self {
        Self { replica, swarm_key, started, warnings: warnings.into(), net: Arc::default() }
    }

    /// Where peers reach this node.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.net().addresses.clone()
    }

    /// Notes where peers reach this node.
    pub fn set_addresses(&self, addresses: Vec<Multiaddr>) {
        self.net().addresses = addresses;
    }

    /// Where a peer's link ends.
    pub fn link(&self, peer: &NodeId) -> Option<Multiaddr> {
        self.net().links.get(peer).cloned()
    }

    /// Notes a link, or that it is gone.
    pub fn set_link(&self, peer: NodeId, address: Option<Multiaddr>) {
        let links = &mut self.net().links;
        match address {
            Some(address) => links.insert(peer, address),
            None => links.remove(&peer),
        };
    }

    /// Messages from peers that were no messages.
    pub fn misunderstood(&self) -> u64 {
        self.net().misunderstood
    }

    /// Counts a message that was none.
    pub fn count_misunderstood(&self) {
        self.net().misunderstood += 1;
    }

    /// What the transport has done.
    pub fn counters(&self) -> Counters {
        self.net().counters
    }

    /// Notes what the transport has done.
    pub fn set_counters(&self, counters: Counters) {
        self.net().counters = counters;
    }

    fn net(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
