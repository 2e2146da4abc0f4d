//! Nodes that start: as founders, as joiners, again, or as members of a swarm that exists already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aquifer::protocol::agents::Agents;
use aquifer::protocol::gossip::Record;
use aquifer::protocol::id::{Incarnation, LedgerId, NodeId};
use aquifer::protocol::ledger::Gift;
use aquifer::protocol::limit::{Limit, Pool};
use aquifer::protocol::node::{MESH_MAX, Node, NodeConfig, Saved, Start, Vouching};
use aquifer::protocol::record::{Key, Value};
use aquifer::protocol::share::{ONE, Share};
use aquifer::protocol::signature::Statement;
use aquifer::wire;
use aquifer::wire::signing::Ideal;

use super::agenda::Event;
use super::machine::{Party, node_id};
use super::{READ_WALL, World};
use crate::checker::Violation;
use crate::random::{Purpose, Stream};
use crate::scenario::StartSpec;
use crate::time::SEC;

/// How long members under `available` must be silent to count as vanished.
const FORGET_AFTER: Duration = Duration::from_secs(15);

/// In a formed swarm without a full mesh every node begins with the addresses of its parent and children in the tree of
/// vouchers, and of so many more.
const STRANGERS: u64 = 4;

impl World<'_> {
    /// Starts whoever runs from the beginning.
    pub(super) fn begin_swarm(&mut self) -> Result<(), Violation> {
        let nodes = self.scenario.nodes;
        match self.scenario.start {
            StartSpec::Alone => self.start(0),
            StartSpec::Joining => {
                for place in 1..nodes {
                    let at = 1 + self.dials.below(2 * SEC);
                    self.agenda.push(at, Event::Start(place));
                }
                self.start(0)
            }
            StartSpec::Formed => {
                let parties: Vec<Party> = self.machines.iter().map(super::Machine::party).collect();
                let id = LedgerId(node_id(parties[0]));
                let records = formed_ledger(id, &parties, self.scenario.nodes, self.voucher());
                for place in 0..self.machines.len() {
                    // The life in which it wrote its part of the ledger: the present one writes its own.
                    self.machines[place].begin_life();
                    self.checks.counters.begin(place);
                    let reached_at = self.first_addresses(place);
                    let saved = Saved {
                        id,
                        records: records.clone(),
                        reached_at,
                        clean: true,
                        missing: Vec::new(),
                        forfeits: false,
                    };
                    self.start_as(place, Start::Resume(saved))?;
                }
                Ok(())
            }
        }
    }

    /// Starts a node that is down, if it is.
    pub(super) fn start(&mut self, place: usize) -> Result<(), Violation> {
        let machine = &self.machines[place];
        if machine.is_up() {
            return Ok(());
        }
        let start = match &machine.saved {
            Some(bytes) => Start::Resume(wire::decode_saved(bytes).map_err(|error| self.malformed(&error))?),
            None if place == 0 && machine.lives == 0 => Start::Found,
            None => Start::Join,
        };
        self.start_as(place, start)
    }

    fn start_as(&mut self, place: usize, start: Start) -> Result<(), Violation> {
        let joins = matches!(start, Start::Join);
        let machine = &mut self.machines[place];
        machine.begin_life();
        self.checks.counters.begin(place);
        let (id, lives) = (node_id(machine.party()), machine.lives);
        let limit =
            Limit { name: "units".to_owned(), unit: "requests".to_owned(), kind: self.scenario.limit() };
        if let Some(lie) = self.lie(place) {
            self.start_liar(place, lie, &limit);
            return Ok(());
        }
        let config = NodeConfig {
            id,
            incarnation: Incarnation(lives),
            name: format!("node-{place}"),
            pools: vec![Pool::new("pool", vec![limit]).expect("BUG! a pool of one good limit")],
            policy: self.scenario.policy.into(),
            forget_after: FORGET_AFTER,
            weight: self.scenario.weight(place),
            agents: Agents::default(),
            keys: Arc::new(Ideal),
            vouching: Vouching {
                trust: self.scenario.trust.into(),
                auto_vouch: ONE.scale((self.scenario.auto_vouch * 1e6).round() as u64, 1_000_000),
                ..Vouching::default()
            },
        };
        // A stream for each life, so that one node's restart changes nothing for the others.
        let seed = Stream::new(self.seed, Purpose::Nodes, (place as u64) << 24 | lives).seed();
        let now = self.local(place);
        let mut node = Node::new(config, start, seed, now);
        node.set_addresses(vec![address(place)], now);
        node.set_wall(self.machines[place].wall(self.now), now);
        self.machines[place].node = Some(node);
        self.agenda.push(self.now + READ_WALL, Event::Wall { node: place, life: lives });
        if self.scenario.nodes <= MESH_MAX {
            // One that is down dials when it starts; one that cannot be heard now must be dialled again.
            for other in 0..self.scenario.nodes {
                if self.machines[other].is_up() {
                    self.reach(place, self.machines[other].party());
                }
            }
        } else if joins {
            let founder = self.machines[0].party();
            self.reach(place, founder);
        }
        self.settle(place)
    }

    /// Whom a member of a formed swarm knows to reach when it begins; in a full mesh that is seen to otherwise.
    fn first_addresses(&self, place: usize) -> BTreeMap<NodeId, Vec<String>> {
        let nodes = self.scenario.nodes;
        if nodes <= MESH_MAX || place >= nodes {
            return BTreeMap::new();
        }
        let mut stream = Stream::new(self.seed, Purpose::Nodes, place as u64);
        let strangers = (0..STRANGERS).map(|_| stream.below(nodes as u64) as usize);
        let family = [place.wrapping_sub(1) / 2, 2 * place + 1, 2 * place + 2];
        let known = family.into_iter().chain(strangers).filter(|other| *other < nodes && *other != place);
        known.map(|other| (node_id(self.machines[other].party()), vec![address(other)])).collect()
    }
}

/// Where a node is reached.
pub(super) fn address(place: usize) -> String {
    format!("/sim/{place}")
}

/// A ledger in which all nodes have equal parts. They vouch in a tree, each for two, so that nobody has many records. All
/// parties beyond the nodes are made up by the voucher, which gives each the least there is.
fn formed_ledger(
    ledger: LedgerId,
    parties: &[Party],
    nodes: usize,
    voucher: Option<usize>,
) -> Vec<(NodeId, Record)> {
    let part = ONE.scale(1, nodes as u64);
    let mut below = vec![1; nodes];
    for place in (1..nodes).rev() {
        below[(place - 1) / 2] += below[place];
    }
    let record = |place: usize, version: usize, key: Key, value: Value| {
        let (author, incarnation, version) = (node_id(parties[place]), Incarnation(1), version as u64);
        let statement = Statement { ledger, author, incarnation, version, key: &key, value: &value };
        (author, Record::sign(&statement, &Ideal))
    };
    let gift = |place: usize| {
        let gift = Gift { share: Share(part.0 * below[place]), levels: None, weight: 0 };
        record((place - 1) / 2, place, Key::Given(node_id(parties[place])), Value::Gift(gift))
    };
    let founded = record(0, nodes, Key::Founded, Value::Share(ONE));
    let sybil = |(voucher, place): (usize, usize)| {
        let gift = Gift { share: Share(1), levels: None, weight: 0 };
        record(voucher, nodes + place, Key::Given(node_id(parties[place])), Value::Gift(gift))
    };
    let sybils =
        voucher.into_iter().flat_map(|voucher| (nodes..parties.len()).map(move |place| (voucher, place)));
    std::iter::once(founded).chain((1..nodes).map(gift)).chain(sybils.map(sybil)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::*;
    use crate::clock::ClockSpec;
    use crate::fault::{Fault, Nodes};
    use crate::scenario::{Scenario, Step};

    #[test]
    fn whoever_starts_while_it_is_cut_off_has_its_links_once_cuts_heal() {
        let step = |at: f64, fault: Fault| Step { at, say: String::new(), fault };
        let step = vec![
            step(0.1, Fault::Partition(Nodes::One(0))),
            step(0.2, Fault::Start(Nodes::All)),
            step(0.3, Fault::Heal),
        ];
        let scenario =
            Scenario { nodes: 3, seconds: 6.0, start: StartSpec::Alone, step, ..Scenario::default() };
        let mut world = World::new(&scenario, 1, Vec::new().into());
        world.begin().unwrap();
        world.run().unwrap();
        for machine in &world.machines {
            assert_eq!(machine.links.len(), 2);
            assert_eq!(machine.node.as_ref().unwrap().bases().len(), 3, "all have joined");
        }
    }

    #[test]
    fn a_formed_ledger_has_equal_parts_of_at_most_the_whole() {
        for nodes in [1, 2, 3, 7, 100] {
            let machines = (0..nodes).map(|place| Machine::new(place, &ClockSpec::default(), 1));
            let parties: Vec<Party> = machines.map(|machine| machine.party()).collect();
            let id = LedgerId(node_id(parties[0]));
            let records = formed_ledger(id, &parties, nodes, None);
            let saved = Saved {
                id,
                records,
                reached_at: BTreeMap::new(),
                clean: true,
                missing: Vec::new(),
                forfeits: false,
            };
            let bases = saved.ledger().bases(aquifer::protocol::policy::Policy::Strict);
            assert_eq!(bases.len(), nodes);
            assert_eq!(bases.values().copied().sum::<Share>(), ONE);
            let part = ONE.scale(1, nodes as u64);
            assert!(parties[1..].iter().all(|party| bases[&node_id(*party)] == part));
        }
    }
}
