//! What was admitted lately, so that it can be given back.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::permit::PermitId;

/// How many admissions are remembered, of all rules and keys together; the oldest cannot be given back any more.
const REMEMBERED: usize = 16_384;

/// Admissions that can be given back.
#[derive(Default)]
pub struct Refunds {
    taken: BTreeMap<Of, VecDeque<(u64, Taken)>>,
    /// In the order of admission; what was given back is still here.
    order: VecDeque<(u64, Of)>,
    next: u64,
}

/// Whose admissions: the place of the rule, who asked, and the key or nothing.
pub type Of = (usize, u32, String);

/// One admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its permit.
    pub permit: PermitId,
    /// What it took.
    pub hits: u64,
}

impl Refunds {
    /// Notes an admission, and forgets the oldest if there are too many.
    pub fn note(&mut self, of: Of, taken: Taken) {
        if self.order.len() >= REMEMBERED
            && let Some((serial, of)) = self.order.pop_front()
        {
            self.forget(serial, &of);
        }
        let serial = self.next;
        self.next += 1;
        self.order.push_back((serial, of.clone()));
        self.taken.entry(of).or_default().push_back((serial, taken));
    }

    /// Takes out the newest that took as many hits, else the newest.
    pub fn take(&mut self, of: &Of, hits: u64) -> Option<Taken> {
        let all = self.taken.get_mut(of)?;
        let same = all.iter().rposition(|(_, taken)| taken.hits == hits);
        let taken = all.remove(same.unwrap_or_else(|| all.len() - 1));
        if all.is_empty() {
            self.taken.remove(of);
        }
        taken.map(|(_, taken)| taken)
    }

    /// Forgets the oldest, unless it was given back.
    fn forget(&mut self, serial: u64, of: &Of) {
        let Some(taken) = self.taken.get_mut(of) else { return };
        if taken.front().is_some_and(|(oldest, _)| *oldest == serial) {
            taken.pop_front();
        }
        if taken.is_empty() {
            self.taken.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_back_first_and_the_oldest_is_forgotten() {
        let taken = |hits| Taken { permit: "00000000000000000000000000000000".parse().unwrap(), hits };
        let of = |key: &str| (0, 1_000, key.to_owned());
        let mut refunds = Refunds::default();
        refunds.note(of("a"), taken(1));
        refunds.note(of("b"), taken(2));
        refunds.note(of("a"), taken(3));
        assert_eq!(refunds.take(&of("a"), 9), Some(taken(3)));
        assert_eq!(refunds.take(&of("c"), 3), None);
        for hits in 0..REMEMBERED as u64 - 2 {
            refunds.note(of("c"), taken(hits));
        }
        assert_eq!(refunds.take(&of("c"), 7), Some(taken(7)), "the same is not the newest");
        assert_eq!(refunds.take(&(0, 1_001, "b".to_owned()), 2), None, "another user's");
        assert_eq!(refunds.take(&of("a"), 1), None, "forgotten");
        assert_eq!(refunds.take(&of("b"), 2), Some(taken(2)));
        assert_eq!(refunds.order.len(), REMEMBERED);
    }
}
