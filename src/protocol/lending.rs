//! What one node does towards the targets: give back, lend. Local and sticky.
//!
//! Every node plans for itself. A lender covers of each deficit only its own part of all that could be lent, so that
//! lenders who see the same deficit together cover it once; small deviations are left alone.

use super::share::Share;

/// Where one node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Share that it runs on, with what was just lent to it.
    pub held: Share,
    /// Share that it should run on.
    pub target: Share,
    /// Base share that it could lend.
    pub free: Share,
    /// It needs its target to the part: a whole-request lot, or all that it claims is nothing.
    pub exact: bool,
    /// Requests wait there.
    pub waits: bool,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Borrowed share to give back.
    pub give_back: Share,
    /// Share to lend, by place in the positions; never zero.
    pub lend: Vec<(usize, Share)>,
    /// Share that this node should part with, whether or not it can now: what it has beyond its target, as far as others lack
    /// it and nobody else can spare it.
    pub due: Share,
    /// Somebody lacks share.
    pub wanted: bool,
}

/// Deviations below `target / GRAIN` are left alone between slow rounds, and told at once to nobody …
pub const GRAIN: u64 = 64;
/// … and below this in slow rounds, so that equal claims end with equal shares.
pub const FINE_GRAIN: u64 = 1_024;

impl Position {
    /// What it holds beyond its target and could lend.
    pub fn can_spare(&self) -> Share {
        self.held.saturating_sub(self.target).min(self.free)
    }

    fn excess(&self, grain: u64, floor: Share) -> Share {
        self.beyond(self.held, self.target, grain, floor)
    }

    fn deficit(&self, grain: u64, floor: Share) -> Share {
        self.beyond(self.target, self.held, grain, if self.waits { Share::ZERO } else { floor })
    }

    fn beyond(&self, more: Share, less: Share, grain: u64, floor: Share) -> Share {
        let difference = more.saturating_sub(less);
        let ignored = if self.exact { Share::ZERO } else { self.target.scale(1, grain).max(floor) };
        if difference > ignored { difference } else { Share::ZERO }
    }
}

/// So many nodes are many.
const MANY: usize = 16;
/// A lender covers parts of at most so many deficits at a time: more leases would cost more messages than they gain.
const BORROWERS_MAX: usize = 8;

/// What the node at place `me` should do, which has `borrowed` of what it holds on loan. All nodes list the positions in
/// the same order.
pub fn plan(me: usize, positions: &[Position], borrowed: Share, grain: u64) -> Plan {
    // Where there are many, what is small beside an equal part of all is left alone, too.
    let held: Share = positions.iter().map(|position| position.held).sum();
    let floor =
        if positions.len() > MANY { held.scale(4, grain * positions.len() as u64) } else { Share::ZERO };
    // Less is not lent but where it completes a lot: it would cost its messages and serve nobody, and whoever lends a part
    // of what is left again and again never comes to an end.
    let crumb = floor.scale(1, 8);
    let deficits: Vec<Share> = positions
        .iter()
        .enumerate()
        .map(|(place, position)| if place == me { Share::ZERO } else { position.deficit(grain, floor) })
        .collect();
    let deficit: Share = deficits.iter().copied().sum();
    // But after a step all that is small together is much of what lacks.
    let floor = if deficit > held.scale(1, 8) { floor.scale(1, 4) } else { floor };
    let own = positions[me];
    // Exactness is the needy one's: a lender must not keep the crumbs that complete a lot.
    let needed_exactly =
        deficits.iter().zip(positions).any(|(deficit, position)| *deficit > Share::ZERO && position.exact);
    let excess = if needed_exactly { own.held.saturating_sub(own.target) } else { own.excess(grain, floor) };
    let give_back = excess.min(borrowed);
    let lendable = (excess - give_back).min(own.free);
    let wanted = deficit > Share::ZERO;
    let others: Share = positions
        .iter()
        .enumerate()
        .filter(|(place, _)| *place != me)
        .map(|(_, position)| position.can_spare())
        .sum();
    let due = excess.min(deficit.saturating_sub(others));
    if lendable == Share::ZERO || !wanted {
        return Plan { give_back, lend: Vec::new(), due, wanted };
    }
    let mut left = Offer { own: lendable, all: lendable + others };
    let mut lend = Vec::new();
    // Whole-request lots first, and one after the other, the one that lacks least first: two halves of a lot serve
    // nobody.
    let mut lots: Vec<usize> = (0..positions.len())
        .filter(|place| deficits[*place] > Share::ZERO && positions[*place].exact)
        .collect();
    lots.sort_by_key(|place| deficits[*place]);
    for place in lots {
        lend.push((place, left.take_part_of(deficits[place])));
    }
    let needy: Vec<usize> = (0..positions.len())
        .filter(|place| deficits[*place] > Share::ZERO && !positions[*place].exact)
        .collect();
    let lack: Share = needy.iter().map(|place| deficits[*place]).sum();
    let rest = left;
    let (chosen, spread) = part_of_needy(me, positions, &needy);
    let mut crumbs = Share::ZERO;
    for place in chosen {
        let wanted =
            if rest.all < lack { ceil_scale(rest.all, deficits[place].0, lack.0) } else { deficits[place] };
        let part = ceil_scale(ceil_scale(wanted, rest.own.0, rest.all.0), spread.0, spread.1);
        let part = (crumbs + part).min(left.own).min(deficits[place]);
        if part < crumb {
            crumbs = part;
            continue;
        }
        crumbs = Share::ZERO;
        left.own -= part;
        lend.push((place, part));
    }
    lend.retain(|(_, part)| *part > Share::ZERO);
    Plan { give_back, lend, due, wanted }
}

/// Those of many needy whom this lender covers, and by how much more than its part of all as it leaves the others to other
/// lenders: lenders take stretches of the list that lie as far apart as they do themselves (systematic sampling), so that
/// everybody is covered by about as many.
fn part_of_needy(me: usize, positions: &[Position], needy: &[usize]) -> (Vec<usize>, (u64, u64)) {
    if needy.len() <= 2 * BORROWERS_MAX {
        return (needy.to_vec(), (1, 1));
    }
    let can_lend = |place: &usize| *place == me || positions[*place].can_spare() > Share::ZERO;
    let lenders = (0..positions.len()).filter(can_lend).count();
    let rank = (0..me).filter(can_lend).count();
    let first = rank * needy.len() / lenders;
    let chosen = (first..first + BORROWERS_MAX).map(|place| needy[place % needy.len()]).collect();
    (chosen, (needy.len() as u64, BORROWERS_MAX as u64))
}

/// What is left to lend: here, and by all who could lend.
#[derive(Clone, Copy)]
struct Offer {
    own: Share,
    all: Share,
}

impl Offer {
    /// Takes this node's part of a deficit that all lenders cover together. Rounded up, so that lots are completed.
    fn take_part_of(&mut self, deficit: Share) -> Share {
        let covered = deficit.min(self.all);
        let part = ceil_scale(covered, self.own.0, self.all.0).min(self.own).min(deficit);
        self.all -= covered;
        self.own -= part;
        part
    }
}

fn ceil_scale(share: Share, numerator: u64, denominator: u64) -> Share {
    let product = u128::from(share.0) * u128::from(numerator);
    Share(u64::try_from(product.div_ceil(u128::from(denominator.max(1)))).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(held: u64, target: u64) -> Position {
        Position { held: Share(held), target: Share(target), free: Share(held), exact: false, waits: false }
    }

    #[test]
    fn lenders_cover_a_deficit_together_and_once() {
        let positions = [position(200, 0), position(200, 100), position(100, 400)];
        let first = plan(0, &positions, Share::ZERO, GRAIN);
        let second = plan(1, &positions, Share::ZERO, GRAIN);
        assert_eq!(first.lend, [(2, Share(200))]);
        assert_eq!(second.lend, [(2, Share(100))]);
    }

    #[test]
    fn what_was_borrowed_goes_back_before_own_is_lent() {
        let mut own = position(300, 100);
        own.free = Share(150);
        let plan = plan(0, &[own, position(100, 400)], Share(150), GRAIN);
        let lend = vec![(1, Share(50))];
        assert_eq!(plan, Plan { give_back: Share(150), lend, due: Share(200), wanted: true });
    }

    #[test]
    fn small_deviations_are_left_alone_unless_a_lot_is_at_stake() {
        let mut positions = [position(1_010, 1_000), position(990, 1_000)];
        assert_eq!(plan(0, &positions, Share::ZERO, GRAIN), Plan::default());
        assert_eq!(plan(0, &positions, Share::ZERO, FINE_GRAIN).lend, [(1, Share(10))]);
        positions[1].exact = true;
        assert_eq!(plan(0, &positions, Share::ZERO, GRAIN).lend, [(1, Share(10))]);
    }

    #[test]
    fn one_lot_is_completed_before_the_next_is_begun() {
        let mut positions = [position(100, 0), position(100, 0), position(50, 200), position(100, 200)];
        (positions[2].exact, positions[3].exact) = (true, true);
        assert_eq!(plan(0, &positions, Share::ZERO, GRAIN).lend, [(3, Share(50)), (2, Share(50))]);
        assert_eq!(plan(1, &positions, Share::ZERO, GRAIN).lend, [(3, Share(50)), (2, Share(50))]);
    }

    #[test]
    fn many_lenders_and_many_needy_find_one_another_with_few_leases() {
        let (lenders, needy) = (40, 60);
        let mut positions: Vec<Position> = (0..lenders + needy).map(|_| position(0, 300)).collect();
        positions[..lenders].fill(position(450, 0));
        // Mixed up, as ids are.
        let order: Vec<usize> = (0..100).map(|place| place * 37 % 100).collect();
        let positions: Vec<Position> = order.iter().map(|place| positions[*place]).collect();
        let mut got = vec![0; 100];
        for me in (0..100).filter(|place| positions[*place].held > Share::ZERO) {
            let plan = plan(me, &positions, Share::ZERO, GRAIN);
            assert!(plan.lend.len() <= BORROWERS_MAX);
            plan.lend.iter().for_each(|(place, part)| got[*place] += part.0);
        }
        let covered: u64 = got.iter().map(|got| *got.min(&300)).sum();
        assert!(covered >= 300 * 60 * 95 / 100, "{covered} {got:?}");
        assert!(got.iter().all(|got| *got <= 400), "{got:?}");
    }

    #[test]
    fn small_excess_counts_where_much_is_lacking() {
        let some_have_little_more = |lacking: u64| {
            let mut positions = vec![position(104, 100); 20];
            positions[19] = position(500 - lacking, 500);
            plan(0, &positions, Share(100), GRAIN).give_back
        };
        assert_eq!(some_have_little_more(200), Share::ZERO);
        assert_eq!(some_have_little_more(400), Share(4));
    }

    #[test]
    fn nobody_lends_what_is_not_needed() {
        assert_eq!(plan(0, &[position(500, 0), position(100, 100)], Share::ZERO, GRAIN), Plan::default());
    }
}
