//! What cannot hear what: cuts as rules over groups of nodes, so that they cost nothing per pair.

use crate::time::Nanos;

/// Some of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(Vec<bool>);

/// All cuts that are in force.
#[derive(Clone, Debug, Default)]
pub struct Cuts(Vec<Cut>);

#[derive(Clone, Debug)]
enum Cut {
    /// What these say does not reach those.
    OneWay(Group, Group),
    /// Nothing passes between these and all others.
    Split(Group),
    /// A split that begins at a moment, lasts for half a period, is gone for the other half, and so on.
    Flap { group: Group, since: Nanos, period: Nanos },
}

impl Group {
    /// These of so many nodes.
    pub fn new(nodes: usize, members: &[usize]) -> Self {
        let mut group = vec![false; nodes];
        members.iter().for_each(|member| group[*member] = true);
        Self(group)
    }

    fn has(&self, node: usize) -> bool {
        self.0[node]
    }
}

impl Cuts {
    /// From here on nothing that `from` say reaches `to`.
    pub fn one_way(&mut self, from: Group, to: Group) {
        self.0.push(Cut::OneWay(from, to));
    }

    /// From here on nothing passes between the group and all others.
    pub fn split(&mut self, group: Group) {
        self.0.push(Cut::Split(group));
    }

    /// From `since` on nothing passes between the group and all others in the first half of every period.
    pub fn flap(&mut self, group: Group, since: Nanos, period: Nanos) {
        self.0.push(Cut::Flap { group, since, period: period.max(2) });
    }

    /// Everything passes again.
    pub fn heal(&mut self) {
        self.0.clear();
    }

    /// Whether any cut is in force.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether what one node says at `now` does not reach another.
    pub fn is_cut(&self, from: usize, to: usize, now: Nanos) -> bool {
        self.0.iter().any(|cut| match cut {
            Cut::OneWay(these, those) => these.has(from) && those.has(to),
            Cut::Split(group) => group.has(from) != group.has(to),
            Cut::Flap { group, since, period } => {
                group.has(from) != group.has(to) && (now.saturating_sub(*since)) % period < period / 2
            }
        })
    }

    /// Whether there is any cut between two nodes, be it that it flaps and lets everything pass just now.
    pub fn is_severed(&self, one: usize, other: usize) -> bool {
        self.0.iter().any(|cut| match cut {
            Cut::OneWay(these, those) => {
                these.has(one) && those.has(other) || these.has(other) && those.has(one)
            }
            Cut::Split(group) | Cut::Flap { group, .. } => group.has(one) != group.has(other),
        })
    }

    /// Whether two nodes can talk at `now`: a connection needs both ways.
    pub fn is_broken(&self, one: usize, other: usize, now: Nanos) -> bool {
        self.is_cut(one, other, now) || self.is_cut(other, one, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_cut_cuts_what_it_says() {
        let mut cuts = Cuts::default();
        cuts.one_way(Group::new(4, &[0]), Group::new(4, &[1]));
        assert!(cuts.is_cut(0, 1, 0) && !cuts.is_cut(1, 0, 0) && cuts.is_broken(1, 0, 0));
        cuts.heal();
        assert!(!cuts.any());

        cuts.split(Group::new(4, &[0, 1]));
        assert!(cuts.is_cut(0, 2, 0) && cuts.is_cut(2, 0, 0));
        assert!(!cuts.is_cut(0, 1, 0) && !cuts.is_cut(2, 3, 0));
        cuts.heal();

        cuts.flap(Group::new(4, &[3]), 100, 10);
        let cut: Vec<bool> = (100..120).map(|now| cuts.is_cut(3, 0, now)).collect();
        assert_eq!(cut[..10], [[true; 5], [false; 5]].concat());
        assert_eq!(cut[..10], cut[10..]);
        assert!(cuts.is_severed(0, 3) && !cuts.is_severed(0, 1));
    }
}
