//! Base shares drift to parts of what is at hand by weight, equal ones unless somebody said otherwise, so that who joined
//! through whom does not decide who is rich.

use std::ops::Range;

use super::Node;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::Instant;

/// Base shares within this part of the fair one are left alone …
const GRAIN: u64 = 16;
/// … and of more members than so many, who lacks less than a quarter of an equal one.
const MANY: usize = 16;

impl Node {
    /// Gives of what this node has too much, in proportion to what others lack.
    pub(super) fn drift(&mut self, now: Instant) {
        let me = self.config.id;
        let mut group = self.evens_out_with();
        group.retain(|node| *node == me || self.may_give_to(node));
        group.sort_unstable();
        let Ok(own) = group.binary_search(&me) else { return };
        let parts = self.fair_parts(&group, &self.weights_heeded());
        let bases: Vec<Share> =
            group.iter().map(|node| self.bases.get(node).copied().unwrap_or_default()).collect();
        for (place, share) in gifts(own, &bases, &parts) {
            let subject = self.linked().find(|peer| peer.node == group[place]);
            if let Some(subject) = subject {
                self.give(subject, share.min(self.auto_room()), now);
            }
        }
    }

    /// This node, and the members with which it evens out base shares.
    pub(super) fn evens_out_with(&self) -> Vec<NodeId> {
        let auto_room = self.auto_room();
        // Where trust weighs, a node evens out with those alone whom it vouched for.
        let concerns = |peer: &Replica| {
            let is_open = auto_room == ONE || self.ledger.gift(&self.config.id, &peer.node).is_some();
            is_open && !self.is_forgotten(&peer.node)
        };
        let members = self.linked().filter(|peer| {
            self.bases.contains_key(&peer.node) && self.may_be_given(&peer.node) && concerns(peer)
        });
        std::iter::once(self.config.id).chain(members.map(|peer| peer.node)).collect()
    }
}

/// What the member at place `me` gives to which others, all of whom have these base shares and should have these parts.
///
/// Laid end to end, what the rich have too much covers what the poor lack. So all who see the same give the poor what they
/// lack once, together in fewer gifts than there are members: each gift is a record that everybody keeps for good.
fn gifts(me: usize, bases: &[Share], parts: &[Share]) -> Vec<(usize, Share)> {
    let all: Share = bases.iter().copied().sum();
    let equal = all.scale(1, bases.len().max(1) as u64);
    let much = if bases.len() > MANY { equal.scale(1, 4) } else { Share::ZERO };
    let beyond = |more: Share, less: Share, ignored: Share| {
        let difference = more.saturating_sub(less);
        if difference > ignored { difference } else { Share::ZERO }
    };
    let pairs = || bases.iter().zip(parts);
    let extra: Vec<Share> = pairs().map(|(base, part)| beyond(*base, *part, part.scale(1, GRAIN))).collect();
    let lack: Vec<Share> =
        pairs().map(|(base, part)| beyond(*part, *base, part.scale(1, GRAIN).max(much))).collect();
    let moves = extra.iter().copied().sum::<Share>().min(lack.iter().copied().sum());
    let (from, to) = (laid_out(&extra, moves), laid_out(&lack, moves));
    let own = &from[me];
    let overlap = |(place, lack): (usize, &Range<Share>)| {
        let share = own.end.min(lack.end).saturating_sub(own.start.max(lack.start));
        (share > Share::ZERO).then_some((place, share))
    };
    to.iter().enumerate().filter_map(overlap).collect()
}

/// These amounts end to end, so that all of them are as long as `length`.
fn laid_out(amounts: &[Share], length: Share) -> Vec<Range<Share>> {
    let all: Share = amounts.iter().copied().sum();
    let mut sum = Share::ZERO;
    let ranges = amounts.iter().map(|amount| {
        let start = sum;
        sum += *amount;
        let place = |at: Share| length.scale(at.0, all.0.max(1));
        place(start)..place(sum)
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hundredths of an equal part that a hundred real nodes had when the last one had joined, and kept for ten minutes.
    const FROZEN: [u64; 100] = [
        21, 36, 41, 43, 44, 45, 49, 51, 52, 62, 64, 66, 68, 73, 78, 80, 82, 83, 84, 85, 87, 88, 89, 90, 91,
        93, 94, 94, 97, 97, 97, 97, 97, 97, 104, 105, 106, 107, 107, 107, 107, 107, 107, 107, 108, 108, 108,
        108, 109, 109, 109, 109, 109, 109, 109, 109, 110, 111, 111, 111, 111, 111, 111, 112, 112, 112, 112,
        112, 113, 113, 113, 114, 115, 115, 115, 115, 116, 116, 116, 117, 117, 117, 117, 117, 119, 119, 119,
        120, 120, 120, 120, 120, 121, 121, 121, 122, 122, 123, 124, 124,
    ];

    /// Lets everybody give until nobody does. The least and the most that anybody has then, in parts of an equal one, and the
    /// number of gifts.
    fn settle(mut bases: Vec<Share>) -> (f64, f64, usize) {
        let all: Share = bases.iter().copied().sum();
        let parts = vec![all.scale(1, bases.len() as u64); bases.len()];
        let mut count = 0;
        for _ in 0..100 {
            let given: Vec<_> = (0..bases.len()).map(|me| gifts(me, &bases, &parts)).collect();
            let moved = given.iter().map(Vec::len).sum::<usize>();
            count += moved;
            for (me, gifts) in given.into_iter().enumerate() {
                for (place, share) in gifts {
                    bases[me] -= share;
                    bases[place] += share;
                }
            }
            if moved == 0 {
                let part = |base: &Share| base.0 as f64 / parts[0].0 as f64;
                let least = bases.iter().map(part).fold(f64::MAX, f64::min);
                assert_eq!(bases.iter().copied().sum::<Share>(), all);
                return (least, bases.iter().map(part).fold(0.0, f64::max), count);
            }
        }
        panic!("they give for ever");
    }

    #[test]
    fn nobody_stays_poor_where_what_each_has_too_much_is_little() {
        // In no order, as ids are in none.
        let bases: Vec<Share> = (0..100).map(|place| ONE.scale(FROZEN[place * 37 % 100], 10_000)).collect();
        let (least, most, count) = settle(bases);
        assert!(least > 0.7 && most < 1.3, "from {least} to {most}");
        assert!(count <= 100, "{count} gifts");
    }

    #[test]
    fn whoever_has_all_gives_to_all() {
        for nodes in [2_u64, 5, 16, 17, 50, 128] {
            let mut bases = vec![Share::ZERO; nodes as usize];
            bases[nodes as usize / 2] = ONE;
            let (least, most, count) = settle(bases);
            assert!(least > 0.7 && most < 1.3, "of {nodes}: from {least} to {most}");
            assert!(count < nodes as usize, "{count} gifts of {nodes}");
        }
    }
}
