//! Faults, as they happen.

use aquifer::protocol::node::Node;

use super::World;
use crate::checker::Violation;
use crate::fault::{Fault, Nodes};
use crate::network::Group;
use crate::record::Answer;
use crate::time::nanos;

impl World<'_> {
    /// A step of the scenario happens.
    pub(super) fn step(&mut self, place: usize) -> Result<(), Violation> {
        self.disturbed();
        let scenario = self.scenario;
        match &scenario.step[place].fault {
            Fault::Crash(nodes) => {
                for node in self.those_up(nodes) {
                    self.kill(node);
                    self.look_at(node)?;
                }
            }
            Fault::CrashAfter { nodes, outputs } => {
                for node in self.those_up(nodes) {
                    self.machines[node].dies_after = Some(*outputs);
                }
            }
            Fault::Wipe(nodes) => {
                for node in self.those(nodes, |world, node| world.machines[node].lives > 0) {
                    self.kill(node);
                    self.machines[node].wipe();
                    // Its share is reserved for somebody who never comes back.
                    self.checks.whole = false;
                    self.look_at(node)?;
                }
            }
            Fault::Start(nodes) => {
                for node in self.those(nodes, |world, node| !world.machines[node].is_up()) {
                    self.start(node)?;
                }
            }
            Fault::Leave(nodes) => {
                for node in self.those_up(nodes) {
                    self.command(node, Node::leave)?;
                }
            }
            Fault::Pause { nodes, seconds } => self.stand_still(nodes, *seconds, false),
            Fault::Step { nodes, seconds } => self.stand_still(nodes, *seconds, true),
            Fault::WallStep { nodes, seconds } => {
                let step = nanos(seconds.abs()) as i64;
                for node in self.those(nodes, |_, _| true) {
                    self.machines[node].wall_offset += if *seconds < 0.0 { -step } else { step };
                }
            }
            Fault::CutOneWay { from, to } => {
                let (from, to) = (self.group(from), self.group(to));
                self.network.cuts.one_way(from, to);
            }
            Fault::Partition(nodes) => {
                let group = self.group(nodes);
                self.network.cuts.split(group);
            }
            Fault::Flap { nodes, seconds } => {
                let group = self.group(nodes);
                self.network.cuts.flap(group, self.now, nanos(*seconds));
            }
            Fault::Heal => self.heal(),
            Fault::Links(spec) => self.network.set_links(spec),
        }
        Ok(())
    }

    /// A command of whoever runs a node, if it is up and does not stand still.
    pub(super) fn command(
        &mut self,
        place: usize,
        command: impl FnOnce(&mut Node, aquifer::protocol::time::Instant),
    ) -> Result<(), Violation> {
        let local = self.local(place);
        let machine = &mut self.machines[place];
        match &mut machine.node {
            Some(node) if machine.paused_until <= self.now => {
                command(node, local);
                self.settle(place)
            }
            _ => Ok(()),
        }
    }

    /// `kill -9`. Callers of a dead node get no answer; their requests have failed.
    pub(super) fn kill(&mut self, place: usize) {
        if !self.machines[place].is_up() {
            return;
        }
        for request in self.machines[place].requests.abandon() {
            let waited = self.now - request.asked;
            let class = self.requests.get(request.number).class;
            let answer =
                Answer { at: self.now, node: place, units: request.units, waited, class, admitted: false };
            self.record.answers.push(answer);
            self.requests.answered(request.number, false, self.now);
        }
        self.break_links(place);
        self.machines[place].end_life();
    }

    /// A node has left: it ends.
    pub(super) fn leave_for_good(&mut self, place: usize) {
        let machine = &self.machines[place];
        let id = super::node_id(machine.party());
        let kept =
            machine.node.as_ref().and_then(|node| node.bases().get(&id)).is_some_and(|base| base.0 > 0);
        // It found nobody to give its share to, and is not coming back.
        self.checks.whole &= !kept;
        self.kill(place);
        self.machines[place].left = true;
    }

    fn stand_still(&mut self, nodes: &Nodes, seconds: f64, suspended: bool) {
        for node in self.those_up(nodes) {
            let machine = &mut self.machines[node];
            machine.paused_until = machine.paused_until.max(self.now + nanos(seconds));
            machine.suspended = suspended;
            // It spends nothing until it goes on, and then it ends what is over before it does anything.
            self.checks.conservation.hold(node, aquifer::protocol::share::Share::ZERO);
        }
    }

    fn those(&mut self, nodes: &Nodes, eligible: impl Fn(&Self, usize) -> bool) -> Vec<usize> {
        let mut stream = self.faults.clone();
        let chosen = nodes.resolve(self.scenario.nodes, &mut stream, |node| eligible(self, node));
        self.faults = stream;
        chosen
    }

    fn those_up(&mut self, nodes: &Nodes) -> Vec<usize> {
        self.those(nodes, |world, node| world.machines[node].is_up())
    }

    fn group(&mut self, nodes: &Nodes) -> Group {
        let members = self.those(nodes, |_, _| true);
        Group::new(self.machines.len(), &members)
    }
}
