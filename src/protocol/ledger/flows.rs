//! Balances out of what flowed: shares that came in less shares that went out, where what went out was there.
//!
//! Gifts to and fro cancel before anything is compared, and so do longer circles if somebody has less than nothing: a
//! circle moves nothing, and without circles there is an order in which whoever gives comes before whoever is given to.
//! In that order, each lets as much of its gifts wait as it lacks; what its subjects lack then is already known when
//! their turn comes. The work depends on how many flows there are, not on the amounts.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::id::NodeId;
use crate::protocol::share::Share;

/// How often reclaims of what was itself reclaimed are followed up.
const ROUNDS_MAX: usize = 64;

/// Founded shares and what flowed between members.
#[derive(Debug, Default)]
pub(super) struct Flows {
    founded: BTreeMap<NodeId, i128>,
    /// What flowed from one to another, less what flowed back: of each pair one direction at most, and never zero.
    net: BTreeMap<NodeId, BTreeMap<NodeId, i128>>,
    /// Everybody who was ever given something, if only nothing.
    members: BTreeSet<NodeId>,
}

impl Flows {
    pub(super) fn new(founded: impl Iterator<Item = (NodeId, Share)>) -> Self {
        let founded: BTreeMap<_, _> = founded.map(|(node, share)| (node, i128::from(share.0))).collect();
        Self { members: founded.keys().copied().collect(), founded, ..Self::default() }
    }

    /// A gift; of nothing, too.
    pub(super) fn give(&mut self, from: NodeId, to: NodeId, share: Share) {
        self.members.insert(to);
        self.flow(from, to, i128::from(share.0));
    }

    /// What `by` takes back of its gifts to `subject`: as far as they were not given back. All gifts must be known.
    pub(super) fn undo(&mut self, by: NodeId, subject: NodeId, share: Share) {
        let given = self.net.get(&by).and_then(|to| to.get(&subject)).copied().unwrap_or(0);
        self.flow(subject, by, given.min(i128::from(share.0)));
    }

    /// What members took (by, from whom, how much) of whatever those had. What was taken can itself be taken, in any
    /// order. All gifts must be known.
    pub(super) fn take(&mut self, claims: impl Iterator<Item = (NodeId, NodeId, Share)>) {
        let mut open: Vec<_> =
            claims.map(|(by, subject, share)| (by, subject, i128::from(share.0))).collect();
        let mut balance = self.raw();
        for _ in 0..open.len().min(ROUNDS_MAX) {
            let mut moved = false;
            for (by, subject, left) in &mut open {
                let had = balance.get(subject).copied().unwrap_or(0).max(0);
                let taken = had.min(*left);
                if taken > 0 {
                    *balance.entry(*subject).or_default() -= taken;
                    *balance.entry(*by).or_default() += taken;
                    *left -= taken;
                    self.flow(*subject, *by, taken);
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
    }

    /// What everybody has. Nobody has less than nothing: gifts of what did not come in wait, those to the greatest ids
    /// first. Together they have what was founded.
    pub(super) fn balances(mut self) -> BTreeMap<NodeId, Share> {
        let mut balance = self.raw();
        let poor: Vec<NodeId> =
            balance.iter().filter(|(_, parts)| **parts < 0).map(|(node, _)| *node).collect();
        for giver in self.in_order_of_giving(&poor) {
            let mut lack = (-balance[&giver]).max(0);
            *balance.entry(giver).or_default() += lack;
            for (subject, parts) in self.net.get_mut(&giver).into_iter().flat_map(|to| to.iter_mut().rev()) {
                let waits = lack.min(*parts);
                *parts -= waits;
                lack -= waits;
                *balance.entry(*subject).or_default() -= waits;
            }
        }
        balance.into_iter().map(|(node, parts)| (node, Share(u64::try_from(parts).unwrap_or(0)))).collect()
    }

    fn flow(&mut self, from: NodeId, to: NodeId, parts: i128) {
        if from == to {
            return;
        }
        let back = self.reduce(to, from, parts);
        if parts > back {
            *self.net.entry(from).or_default().entry(to).or_default() += parts - back;
        }
    }

    /// Takes up to so much off one flow; gives back how much.
    fn reduce(&mut self, from: NodeId, to: NodeId, parts: i128) -> i128 {
        let Some(subjects) = self.net.get_mut(&from) else { return 0 };
        let Some(known) = subjects.get_mut(&to) else { return 0 };
        let less = parts.min(*known);
        *known -= less;
        if *known == 0 {
            subjects.remove(&to);
        }
        less
    }

    /// Everybody's balance, were all gifts covered.
    fn raw(&self) -> BTreeMap<NodeId, i128> {
        let mut balance: BTreeMap<NodeId, i128> = self.members.iter().map(|node| (*node, 0)).collect();
        for (node, parts) in &self.founded {
            *balance.entry(*node).or_default() += parts;
        }
        for (from, subjects) in &self.net {
            for (to, parts) in subjects {
                *balance.entry(*from).or_default() -= parts;
                *balance.entry(*to).or_default() += parts;
            }
        }
        balance
    }

    /// Those whom gifts of these reach, and these themselves, everybody before those whom it gave to. Circles of gifts
    /// among them are gone then.
    fn in_order_of_giving(&mut self, first: &[NodeId]) -> Vec<NodeId> {
        let mut order = Vec::new();
        let mut done = BTreeSet::new();
        for first in first {
            let mut path: Vec<NodeId> = if done.contains(first) { Vec::new() } else { vec![*first] };
            while let Some(last) = path.last().copied() {
                let next = self.net.get(&last).and_then(|to| to.keys().find(|to| !done.contains(*to)));
                let Some(next) = next.copied() else {
                    done.insert(last);
                    order.push(last);
                    path.pop();
                    continue;
                };
                match path.iter().position(|node| *node == next) {
                    Some(start) => self.cancel_circle(&mut path, start),
                    None => path.push(next),
                }
            }
        }
        order.reverse();
        order
    }

    /// Cancels the circle from `path[start]` to the end of the path and back, and cuts the path where a flow is gone.
    fn cancel_circle(&mut self, path: &mut Vec<NodeId>, start: usize) {
        let steps: Vec<(NodeId, NodeId)> =
            (start..path.len()).map(|at| (path[at], *path.get(at + 1).unwrap_or(&path[start]))).collect();
        let least = steps.iter().map(|(from, to)| self.net[from][to]).min().unwrap_or(0);
        for (from, to) in &steps {
            self.reduce(*from, *to, least);
        }
        let is_gone = |(from, to): &(NodeId, NodeId)| !self.net[from].contains_key(to);
        let gone = steps.iter().position(is_gone).expect("BUG! a circle without its least flow is still one");
        path.truncate(start + gone + 1);
    }
}
