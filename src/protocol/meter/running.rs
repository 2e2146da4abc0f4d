//! Leases with every peer's life, those that run kept apart: most that ever were have ended, and nothing that happens
//! often looks at them.

use std::collections::BTreeMap;

use crate::protocol::bucket::Level;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::lease::{Borrowed, Lent};
use crate::protocol::share::Share;

/// One side of a lease.
pub(super) trait Lease {
    /// Whether anything is out under it that comes back, or may still be on its way.
    fn runs(&self) -> bool;
}

impl Lease for Lent {
    fn runs(&self) -> bool {
        self.out() > Share::ZERO || self.overfull() > Level::ZERO
    }
}

impl Lease for Borrowed {
    fn runs(&self) -> bool {
        self.held() > Share::ZERO
    }
}

/// All leases of one side.
#[derive(Clone, Debug)]
pub(super) struct Leases<L> {
    running: BTreeMap<Replica, L>,
    /// Remembered, so that word that comes late is understood.
    ended: BTreeMap<Replica, L>,
}

impl<L: Lease> Leases<L> {
    pub(super) fn new() -> Self {
        Self { running: BTreeMap::new(), ended: BTreeMap::new() }
    }

    pub(super) fn get(&self, with: &Replica) -> Option<&L> {
        self.running.get(with).or_else(|| self.ended.get(with))
    }

    /// All of them, those that run first.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Replica, &L)> {
        self.running.iter().chain(&self.ended)
    }

    /// Those that run, in order.
    pub(super) fn running(&self) -> impl DoubleEndedIterator<Item = (&Replica, &L)> {
        self.running.iter()
    }

    /// Those that run with any life of a node, in order.
    pub(super) fn running_with(&self, node: NodeId) -> impl Iterator<Item = (&Replica, &L)> {
        self.running.range(Replica::lives_of(node))
    }

    /// Changes the lease with this life, if there is one.
    pub(super) fn change<T>(&mut self, with: &Replica, change: impl FnOnce(&mut L) -> T) -> Option<T> {
        if let Some(lease) = self.running.get_mut(with) {
            let done = change(lease);
            if !lease.runs() {
                self.ended.extend(self.running.remove_entry(with));
            }
            return Some(done);
        }
        let lease = self.ended.get_mut(with)?;
        let done = change(lease);
        if lease.runs() {
            self.running.extend(self.ended.remove_entry(with));
        }
        Some(done)
    }

    /// Changes each of those that run, in order.
    pub(super) fn change_running(&mut self, mut change: impl FnMut(&Replica, &mut L)) {
        let mut over = Vec::new();
        for (with, lease) in &mut self.running {
            change(with, lease);
            over.extend((!lease.runs()).then_some(*with));
        }
        self.ended.extend(over.iter().filter_map(|with| self.running.remove_entry(with)));
    }

    /// Puts a lease in the place of the one with this life, if there is one.
    pub(super) fn insert(&mut self, with: Replica, lease: L) {
        self.running.remove(&with);
        self.ended.remove(&with);
        let place = if lease.runs() { &mut self.running } else { &mut self.ended };
        place.insert(with, lease);
    }

    /// Forgets those that have ended and are not to be kept.
    pub(super) fn retain_ended(&mut self, keep: impl Fn(&Replica) -> bool) {
        self.ended.retain(|with, _| keep(with));
    }
}

impl<L: Lease> FromIterator<(Replica, L)> for Leases<L> {
    fn from_iter<I: IntoIterator<Item = (Replica, L)>>(leases: I) -> Self {
        let mut all = Self::new();
        leases.into_iter().for_each(|(with, lease)| all.insert(with, lease));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::replica;
    use super::*;
    use crate::protocol::lease::Moved;
    use crate::protocol::time::Instant;

    #[test]
    fn leases_go_to_and_fro_as_they_begin_to_run_and_end() {
        let mut leases: Leases<Lent> = [3, 1, 2].map(|id| (replica(id), Lent::new(1))).into_iter().collect();
        let running = |leases: &Leases<Lent>| leases.running().map(|(with, _)| *with).collect::<Vec<_>>();
        assert_eq!((running(&leases), leases.all().count()), (vec![], 3));
        let moved = Moved { share: Share(5), level: Level::ZERO };
        for id in [3, 1] {
            leases.change(&replica(id), |lent| lent.raise(moved, Level::ZERO, Instant::ZERO)).unwrap();
        }
        assert_eq!(running(&leases), [replica(1), replica(3)]);
        assert_eq!(leases.running_with(replica(3).node).count(), 1);
        assert!(leases.change(&replica(4), |_| ()).is_none());
        let over = leases.get(&replica(1)).unwrap().until();
        let mut home = Share::ZERO;
        leases.change_running(|_, lent| home += lent.expire(over).unwrap_or_default());
        assert_eq!((home, running(&leases), leases.all().count()), (Share(10), vec![], 3));
        leases.retain_ended(|with| *with == replica(1));
        leases.insert(replica(1), Lent::new(2));
        assert_eq!(leases.all().count(), 1);
    }
}
