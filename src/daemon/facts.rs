//! What the daemon knows of itself that the core does not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use libp2p::Multiaddr;

use super::identity::SwarmKey;
use super::transport::Counters;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::time::Instant;

/// Shared between the task that owns the transport and those that answer callers.
#[derive(Clone)]
pub struct Facts {
    /// What the configuration calls the node.
    pub name: Rc<str>,
    /// Which life of which node this is.
    pub replica: Replica,
    /// Lets nodes speak to one another.
    pub swarm_key: SwarmKey,
    /// When the daemon started.
    pub started: Instant,
    /// What was wrong with its files then.
    pub warnings: Rc<[String]>,
    net: Rc<RefCell<Net>>,
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
    pub fn new(
        name: &str,
        replica: Replica,
        swarm_key: SwarmKey,
        started: Instant,
        warnings: Vec<String>,
    ) -> Self {
        Self { name: name.into(), replica, swarm_key, started, warnings: warnings.into(), net: Rc::default() }
    }

    /// Where peers reach this node.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.net.borrow().addresses.clone()
    }

    /// Notes where peers reach this node.
    pub fn set_addresses(&self, addresses: Vec<Multiaddr>) {
        self.net.borrow_mut().addresses = addresses;
    }

    /// Where a peer's link ends.
    pub fn link(&self, peer: &NodeId) -> Option<Multiaddr> {
        self.net.borrow().links.get(peer).cloned()
    }

    /// Notes a link, or that it is gone.
    pub fn set_link(&self, peer: NodeId, address: Option<Multiaddr>) {
        let links = &mut self.net.borrow_mut().links;
        match address {
            Some(address) => links.insert(peer, address),
            None => links.remove(&peer),
        };
    }

    /// Messages from peers that were no messages.
    pub fn misunderstood(&self) -> u64 {
        self.net.borrow().misunderstood
    }

    /// Counts a message that was none.
    pub fn count_misunderstood(&self) {
        self.net.borrow_mut().misunderstood += 1;
    }

    /// What the transport has done.
    pub fn counters(&self) -> Counters {
        self.net.borrow().counters
    }

    /// Notes what the transport has done.
    pub fn set_counters(&self, counters: Counters) {
        self.net.borrow_mut().counters = counters;
    }
}
