//! Links: dialling, breaking, dialling again, as the daemon's transport does it.

use aquifer::protocol::node::{Input, MESH_MAX};

use super::World;
use super::agenda::{Event, LinkEnd};
use super::machine::{Party, node_id};
use crate::checker::Violation;
use crate::time::{MS, Nanos};

/// A link that broke is dialled again after half of this to all of it.
const REDIAL: Nanos = 1_000 * MS;

impl World<'_> {
    /// Makes a link, if there is none yet. False if that cannot be now.
    pub(super) fn dial(&mut self, one: usize, other: usize) -> bool {
        if one == other || !self.machines[one].is_up() || !self.machines[other].is_up() {
            return false;
        }
        if self.is_connected(one, other) {
            return true;
        }
        if self.network.cuts.is_broken(one, other, self.now) {
            return false;
        }
        self.connect(one, other);
        true
    }

    fn is_connected(&self, one: usize, other: usize) -> bool {
        let has = |one: usize, other: &usize| {
            self.machines[one].links.contains_key(other) || self.machines[one].connecting.contains_key(other)
        };
        has(one, &other) && has(other, &one)
    }

    fn connect(&mut self, one: usize, other: usize) {
        self.links += 1;
        let link = self.links;
        for (node, peer) in [(one, other), (other, one)] {
            self.machines[node].connecting.insert(peer, link);
            let lives = (self.machines[node].lives, self.machines[peer].lives);
            let delay = self.network.hop(node, peer);
            self.agenda.push(self.now + delay, Event::Up(LinkEnd { node, peer, link, lives }));
        }
    }

    pub(super) fn link_up(&mut self, end: LinkEnd) -> Result<(), Violation> {
        let LinkEnd { node, peer, link, lives } = end;
        let other = &self.machines[peer];
        let (is_there, party) = (other.is_up() && other.lives == lives.1, other.party());
        let machine = &mut self.machines[node];
        if machine.lives != lives.0 || !machine.is_up() {
            return Ok(());
        }
        if machine.connecting.get(&peer) == Some(&link) {
            machine.connecting.remove(&peer);
        }
        if !is_there || machine.links.get(&peer).is_some_and(|known| known.0 > link) {
            return Ok(());
        }
        machine.links.insert(peer, (link, party));
        machine.forgotten.remove(&peer);
        self.input(node, Input::Up(node_id(party)))
    }

    pub(super) fn link_down(&mut self, end: LinkEnd) -> Result<(), Violation> {
        let LinkEnd { node, peer, link, lives } = end;
        let machine = &mut self.machines[node];
        if machine.lives != lives.0 {
            return Ok(());
        }
        let Some((_, party)) = machine.links.get(&peer).copied().filter(|known| known.0 <= link) else {
            return Ok(());
        };
        machine.links.remove(&peer);
        self.input(node, Input::Down(node_id(party)))?;
        self.redial_soon(node, peer);
        Ok(())
    }

    /// A core gives up a link. The other end hears of it if it hears anything.
    pub(super) fn close(&mut self, node: usize, peer: Party) {
        let peer = peer.node();
        if let Some((link, _)) = self.machines[node].links.get(&peer).copied() {
            self.hang_up(node, peer, link, self.now);
            if !self.network.cuts.is_cut(node, peer, self.now) {
                let at = self.now + self.network.hop(node, peer);
                self.hang_up(peer, node, link, at);
            }
        }
    }

    /// The peers of a node that was killed notice by their broken connections, unless they hear nothing.
    pub(super) fn break_links(&mut self, node: usize) {
        let peers: Vec<_> =
            self.machines[node].links.iter().map(|(peer, (link, _))| (*peer, *link)).collect();
        for (peer, link) in peers {
            if !self.network.cuts.is_cut(node, peer, self.now) {
                let at = self.now + self.network.hop(node, peer);
                self.hang_up(peer, node, link, at);
            }
        }
    }

    fn hang_up(&mut self, node: usize, peer: usize, link: u64, at: Nanos) {
        let lives = (self.machines[node].lives, self.machines[peer].lives);
        self.agenda.push(at, Event::Down(LinkEnd { node, peer, link, lives }));
    }

    /// A core learnt where a peer is.
    pub(super) fn reach(&mut self, node: usize, peer: Party) {
        let peer = peer.node();
        if peer >= self.machines.len() || peer == node {
            return;
        }
        self.machines[node].wanted.insert(peer);
        if !self.dial(node, peer) {
            self.redial_soon(node, peer);
        }
    }

    /// A core knows that a peer has left for good.
    pub(super) fn forget(&mut self, node: usize, peer: Party) {
        self.close(node, peer);
        self.machines[node].wanted.remove(&peer.node());
        self.machines[node].forgotten.insert(peer.node());
    }

    fn wants(&self, node: usize, peer: usize) -> bool {
        let machine = &self.machines[node];
        let known = self.scenario.nodes <= MESH_MAX || machine.wanted.contains(&peer);
        machine.is_up() && known && !machine.forgotten.contains(&peer)
    }

    pub(super) fn redial_soon(&mut self, node: usize, peer: usize) {
        if self.wants(node, peer) && self.machines[node].redialling.insert(peer) {
            let wait = REDIAL / 2 + self.dials.below(REDIAL / 2);
            let life = self.machines[node].lives;
            self.agenda.push(self.now + wait, Event::Dial { node, peer, life });
        }
    }

    pub(super) fn redial(&mut self, node: usize, peer: usize, life: u64) {
        if self.machines[node].lives != life {
            return;
        }
        self.machines[node].redialling.remove(&peer);
        if self.wants(node, peer) && !self.dial(node, peer) {
            self.redial_soon(node, peer);
        }
    }

    /// All cuts heal. Whoever was cut off from somebody dials anew.
    pub(super) fn heal(&mut self) {
        let mut pairs = Vec::new();
        for (node, machine) in self.machines.iter().enumerate() {
            let peers = machine.links.keys().chain(&machine.redialling).chain(machine.connecting.keys());
            let cut = |peer: &&usize| self.network.cuts.is_severed(node, **peer);
            pairs.extend(peers.filter(cut).map(|peer| (node.min(*peer), node.max(*peer))));
        }
        pairs.sort_unstable();
        pairs.dedup();
        self.network.cuts.heal();
        for (one, other) in pairs {
            if self.machines[one].is_up() && self.machines[other].is_up() {
                self.hang_up(one, other, self.links, self.now);
                self.hang_up(other, one, self.links, self.now);
                self.connect(one, other);
            }
        }
    }
}
