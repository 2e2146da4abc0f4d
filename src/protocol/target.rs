//! Who should hold how much of one limit: weighted max-min over demand, the urgent classes first, and turns where shares
//! are too small.
//!
//! Pure arithmetic on what the nodes say of themselves. Every node computes it from its own view; views that differ
//! for a moment cost fairness and utilisation, never the limit, because share moves only by leases.

use super::id::NodeId;
use super::share::Share;

/// What one node claims of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose claim; breaks ties.
    pub node: NodeId,
    /// Fairness weights by class, at least 1.
    pub weights: [u32; CLASSES],
    /// Share that its arrivals and its backlog would use, by class; may exceed the whole.
    pub demand: [Share; CLASSES],
    /// The least share that can hold its largest waiting request; zero if none waits.
    pub lot: Share,
    /// The class of that request.
    pub class: usize,
    /// Service received, per weight; the start tag of start-time fair queueing (Goyal et al. 1996).
    pub tag: u64,
    /// The tag up to which its present turn lasts.
    pub turn_end: u64,
    /// Share that it runs on.
    pub held: Share,
    /// How far ahead of the least served its tag may be when its turn begins. The same in everybody's view: views that
    /// disagree on who is next scatter the lots.
    pub quantum: u64,
}

impl Claim {
    fn waits(&self) -> bool {
        self.lot > Share::ZERO
    }

    fn is_in_turn(&self) -> bool {
        self.tag < self.turn_end
    }

    /// Whoever has its lot keeps it to the end of its turn, whatever grows or is urgent elsewhere, or lots would push one another
    /// out before they have served anybody. Its holder ends the turn sooner where something urgent waits for it.
    fn has_its_turn(&self) -> bool {
        self.is_in_turn() && self.held >= self.lot
    }

    /// By class, with what is missing to the lot.
    fn wants(&self) -> [Share; CLASSES] {
        let mut wants = self.demand;
        wants[self.class] += self.lot.saturating_sub(self.asks());
        wants
    }

    /// Share that is asked for in all classes.
    pub fn asks(&self) -> Share {
        self.demand.iter().copied().sum()
    }
}

/// Classes of urgency, the most urgent first.
pub const CLASSES: usize = 4;
/// A class keeps this part of the whole, if it asks for it, however much more urgent ones ask for.
const FLOOR: u64 = 32;

/// The share that each claim should have of `total`. The targets sum to at most `total`; what nobody claims is left
/// unassigned, so that it stays where it is.
///
/// As long as every waiting request fits into its node's fair share, the targets are the weighted max-min of the
/// claims. Where one does not, fractions are useless: whole-request lots take turns: those that are held first, then the
/// least served for its weight. A turn lasts a quantum, so that handing over costs little.
pub fn targets(total: Share, claims: &[Claim]) -> Vec<Share> {
    let wants: Vec<_> = claims.iter().map(|claim| claim.wants().map(|want| want.min(total))).collect();
    let fair = by_class(total, claims, &wants);
    // A lot beyond the total (the rest is out of reach) cannot be served in any way: such a claim gets its fraction.
    let lumpy = |i: usize| claims[i].waits() && claims[i].lot > fair[i] && claims[i].lot <= total;
    if !(0..claims.len()).any(lumpy) {
        return fair;
    }
    take_turns(total, claims, &wants, &fair, lumpy)
}

/// The most urgent class first, weighted max-min inside it; the classes below keep their floors.
fn by_class(total: Share, claims: &[Claim], wants: &[[Share; CLASSES]]) -> Vec<Share> {
    let mut wanted = [Share::ZERO; CLASSES];
    for wants in wants {
        wanted.iter_mut().zip(wants).for_each(|(sum, want)| *sum += *want);
    }
    let mut left = total;
    let mut shares = vec![Share::ZERO; claims.len()];
    for class in (0..CLASSES).filter(|class| wanted[*class] > Share::ZERO) {
        let below: Share = wanted[class + 1..].iter().map(|want| (*want).min(total.scale(1, FLOOR))).sum();
        let weighed: Vec<_> =
            claims.iter().zip(wants).map(|(claim, wants)| (wants[class], claim.weights[class])).collect();
        for (share, part) in shares.iter_mut().zip(max_min(left.saturating_sub(below), &weighed)) {
            *share += part;
            left -= part;
        }
    }
    shares
}

fn take_turns(
    total: Share,
    claims: &[Claim],
    wants: &[[Share; CLASSES]],
    fair: &[Share],
    lumpy: impl Fn(usize) -> bool,
) -> Vec<Share> {
    let least_of = |class: usize| {
        let waiting = claims.iter().filter(|claim| claim.waits() && claim.class == class);
        waiting.map(|claim| claim.tag).min()
    };
    let least: [Option<u64>; CLASSES] = std::array::from_fn(least_of);
    // Whoever is passed over for long by more urgent ones has one turn as if it were the most urgent: the floor of its class.
    let rank = |claim: &Claim| {
        let lag = claim.quantum.saturating_mul(FLOOR);
        let passed_over = |tag: &Option<u64>| tag.is_some_and(|tag| tag >= claim.tag.saturating_add(lag));
        if least[..claim.class].iter().any(passed_over) { 0 } else { claim.class }
    };
    let mut queue: Vec<usize> = (0..claims.len())
        .filter(|i| {
            let claim = &claims[*i];
            let least = least[claim.class].unwrap_or(0);
            lumpy(*i) && (claim.is_in_turn() || claim.tag <= least.saturating_add(claim.quantum))
        })
        .collect();
    // In steps, or whoever is served something small while its lot comes together would no longer be first.
    let step = queue.iter().map(|i| claims[*i].quantum).max().unwrap_or(0).max(1);
    queue.sort_by_key(|i| {
        let claim = &claims[*i];
        (!claim.has_its_turn(), rank(claim), claim.tag / step, claim.node)
    });

    let mut shares: Vec<Share> =
        (0..claims.len()).map(|i| if lumpy(i) { Share::ZERO } else { fair[i] }).collect();
    let mut left = total - shares.iter().copied().sum();
    for (place, i) in queue.into_iter().enumerate() {
        let lot = claims[i].lot;
        if lot <= left {
            shares[i] = lot;
            left -= lot;
        } else if place == 0 {
            // The first in line is served even if the others' fractions must make room for it.
            let others: Vec<_> =
                (0..claims.len()).map(|j| if lumpy(j) { [Share::ZERO; CLASSES] } else { wants[j] }).collect();
            shares = by_class(total - lot, claims, &others);
            shares[i] = lot;
            left = total - shares.iter().copied().sum();
        }
    }
    let more: Vec<_> = (0..claims.len())
        .map(|i| if shares[i] > Share::ZERO { without(wants[i], shares[i]) } else { [Share::ZERO; CLASSES] })
        .collect();
    let more = by_class(left, claims, &more);
    shares.iter().zip(more).map(|(share, more)| *share + more).collect()
}

/// Rounds shares of `total` to whole units of `unit` each, where a fraction of a unit serves nobody. What the fractions add
/// up to goes, a unit each, to those who want more than was rounded down: to the least served by at least some turns, then
/// to those who have it already, so that it does not go to and fro. `held` is what each claim runs on now.
pub fn in_units(total: Share, unit: Share, claims: &[Claim], held: &[Share], shares: &mut [Share]) {
    // Parts that were lost in divisions must not cost a unit.
    let units = |share: Share| share.0.saturating_add(unit.0 / 1_024) / unit.0;
    let whole: Vec<u64> = shares.iter().map(|share| units(*share)).collect();
    let mut left = units(total).saturating_sub(whole.iter().sum());
    let mut more: Vec<usize> = (0..claims.len())
        .filter(|i| shares[*i].0.saturating_sub(whole[*i] * unit.0) > unit.0 / 1_024)
        .collect();
    more.sort_by_key(|i| {
        let served = claims[*i].tag / claims[*i].quantum.saturating_mul(TURNS_AHEAD).max(1);
        (claims[*i].class, served, held[*i].0 <= whole[*i] * unit.0, claims[*i].node)
    });
    for (share, whole) in shares.iter_mut().zip(&whole) {
        *share = Share(whole * unit.0);
    }
    for i in more {
        let one = left.min(1);
        shares[i] += Share(one * unit.0);
        left -= one;
    }
}

/// Whoever has a unit that others want as much keeps it until it is so many turns ahead.
const TURNS_AHEAD: u64 = 40;

/// What is still wanted by somebody who has `share`, which serves the most urgent first.
fn without(mut wants: [Share; CLASSES], mut share: Share) -> [Share; CLASSES] {
    for want in &mut wants {
        let served = share.min(*want);
        *want -= served;
        share -= served;
    }
    wants
}

/// Weighted max-min: everybody gets what it wants, up to a common level per weight. Exact: if the wants exceed
/// `total`, the shares sum to `total`.
pub fn max_min(total: Share, wants: &[(Share, u32)]) -> Vec<Share> {
    // Of equal weights the wants themselves are in order.
    let equal = wants.iter().all(|(_, weight)| *weight == wants[0].1);
    let per_weight = |(want, weight): (Share, u32)| {
        if equal { u128::from(want.0) } else { (u128::from(want.0) << 32) / u128::from(weight.max(1)) }
    };
    let mut order: Vec<(u128, usize)> =
        wants.iter().enumerate().map(|(i, want)| (per_weight(*want), i)).collect();
    order.sort_unstable();
    let mut weights: u64 = wants.iter().map(|(_, weight)| u64::from((*weight).max(1))).sum();
    let mut left = total;
    let mut shares = vec![Share::ZERO; wants.len()];
    for (_, i) in order {
        let (want, weight) = (wants[i].0, u64::from(wants[i].1.max(1)));
        shares[i] = want.min(left.scale(weight, weights));
        left -= shares[i];
        weights -= weight;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::share::ONE;
    use super::*;

    fn claim(node: u8, demand: u64, lot: u64, tag: u64) -> Claim {
        let node = NodeId([node; 32]);
        let demand = [Share::ZERO, Share::ZERO, Share(demand), Share::ZERO];
        let (lot, held) = (Share(lot), Share::ZERO);
        Claim { node, weights: [1; 4], demand, lot, class: 2, tag, turn_end: 0, held, quantum: 10 }
    }

    #[test]
    fn totals_that_only_liars_name_overflow_nothing() {
        let total = Share(u64::MAX);
        let claims = [claim(0, u64::MAX, 1, 0), claim(1, u64::MAX, u64::MAX, 0)];
        let mut shares = targets(total, &claims);
        assert!(shares.iter().map(|share| u128::from(share.0)).sum::<u128>() <= u128::from(total.0));
        in_units(total, Share(ONE.0 / 3), &claims, &[Share::ZERO; 2], &mut shares);
        assert!(shares.iter().all(|share| share.0 % (ONE.0 / 3) == 0), "{shares:?}");
    }

    #[test]
    fn a_greedy_claim_gets_what_the_others_leave() {
        let shares = targets(Share(100), &[claim(0, 1_000, 1, 0), claim(1, 10, 1, 0), claim(2, 20, 0, 0)]);
        assert_eq!(shares, [Share(70), Share(10), Share(20)]);
    }

    #[test]
    fn unclaimed_share_is_left_where_it_is() {
        assert_eq!(targets(Share(100), &[claim(0, 10, 0, 0), claim(1, 0, 0, 0)]), [Share(10), Share(0)]);
    }

    #[test]
    fn weights_divide_what_all_want() {
        let mut heavy = claim(0, 1_000, 1, 0);
        heavy.weights = [3; 4];
        assert_eq!(targets(Share(100), &[heavy, claim(1, 1_000, 1, 0)]), [Share(75), Share(25)]);
    }

    #[test]
    fn fractions_of_units_make_whole_ones_for_some() {
        let claims = [claim(0, 250, 0, 0), claim(1, 250, 0, 900), claim(2, 250, 0, 0), claim(3, 250, 0, 0)];
        let held = [Share(200), Share(300), Share(200), Share(300)];
        let mut shares = [Share(250); 4];
        in_units(Share(1_000), Share(100), &claims, &held, &mut shares);
        assert_eq!(shares, [Share(300), Share(200), Share(200), Share(300)]);
        let mut shares = [Share(30), Share(0), Share(0), Share(0)];
        in_units(Share(1_000), Share(100), &claims, &held, &mut shares);
        assert_eq!(shares[0], Share(100), "what is asked for is served by no less than a unit");
    }

    #[test]
    fn urgent_classes_are_filled_first_but_for_a_floor() {
        let mut urgent = claim(0, 0, 0, 0);
        urgent.demand = [Share(1_000), Share::ZERO, Share::ZERO, Share::ZERO];
        let mut background = claim(1, 0, 0, 0);
        background.demand = [Share::ZERO, Share::ZERO, Share::ZERO, Share(1_000)];
        let shares = targets(Share(3_200), &[urgent, background, claim(2, 900, 0, 0)]);
        assert_eq!(shares, [Share(1_000), Share(1_000), Share(900)], "enough for all");
        let shares = targets(Share(640), &[urgent, background, claim(2, 900, 0, 0)]);
        assert_eq!(shares, [Share(600), Share(20), Share(20)]);
    }

    #[test]
    fn an_urgent_lot_cuts_into_a_turn_until_the_other_was_passed_over_for_long() {
        let mut holder = claim(0, 1_000, 100, 5);
        holder.turn_end = 6;
        let mut urgent = claim(1, 1_000, 100, 20);
        urgent.class = 0;
        assert_eq!(targets(Share(100), &[holder, urgent]), [Share(0), Share(100)]);
        let has_it = Claim { held: Share(100), ..holder };
        assert_eq!(targets(Share(100), &[has_it, urgent]), [Share(100), Share(0)], "it ends its turn itself");
        urgent.tag = 5 + 32 * 10;
        assert_eq!(targets(Share(100), &[holder, urgent]), [Share(100), Share(0)]);
    }

    #[test]
    fn where_a_lot_does_not_fit_the_least_served_go_first() {
        // Burst of two requests, three nodes: two lots.
        let claims = [claim(0, 1_000, 50, 19), claim(1, 1_000, 50, 9), claim(2, 1_000, 50, 8)];
        assert_eq!(targets(Share(100), &claims), [Share(0), Share(50), Share(50)]);
    }

    #[test]
    fn whoever_is_served_something_small_while_its_lot_comes_is_still_the_next() {
        let claims = |served: u64| [claim(0, 1_000, 80, 2 + served), claim(1, 1_000, 80, 3)];
        assert_eq!(targets(Share(100), &claims(0)), [Share(100), Share(0)]);
        assert_eq!(targets(Share(100), &claims(5)), [Share(100), Share(0)]);
        assert_eq!(targets(Share(100), &claims(8)), [Share(0), Share(100)]);
    }

    #[test]
    fn a_turn_is_finished_before_the_next_begins() {
        let mut holder = claim(0, 1_000, 100, 19);
        (holder.turn_end, holder.held) = (20, Share(100));
        let claims = [holder, claim(1, 1_000, 100, 3)];
        assert_eq!(targets(Share(100), &claims), [Share(100), Share(0)]);
        let done = Claim { tag: 20, ..holder };
        assert_eq!(targets(Share(100), &[done, claims[1]]), [Share(0), Share(100)]);
    }

    #[test]
    fn whoever_has_its_lot_is_not_pushed_out_of_its_turn_by_one_that_grew() {
        let in_turn = |node, lot, tag, held| Claim { turn_end: 9, held, ..claim(node, 1_000, lot, tag) };
        let claims = [in_turn(0, 60, 5, Share(60)), in_turn(1, 60, 3, Share(40)), claim(2, 0, 0, 0)];
        assert_eq!(targets(Share(100), &claims), [Share(100), Share(0), Share(0)]);
    }

    #[test]
    fn one_large_request_makes_room_but_only_until_it_is_ahead() {
        let mut large = claim(0, 1_000, 90, 0);
        let small = [claim(1, 1_000, 5, 0), claim(2, 1_000, 5, 0)];
        let shares = targets(Share(100), &[large, small[0], small[1]]);
        assert_eq!(shares, [Share(90), Share(5), Share(5)]);
        large.tag = 11;
        let shares = targets(Share(100), &[large, small[0], small[1]]);
        assert_eq!(shares, [Share(0), Share(50), Share(50)]);
    }

    proptest! {
        #[test]
        fn targets_never_exceed_the_total_and_serve_someone_who_waits(
            claims in proptest::collection::vec((0u64..1 << 34, 0u64..=ONE.0, 0u64..100, 1u32..5, 0u64..120), 1..13),
        ) {
            let claims: Vec<_> = claims.iter().enumerate().map(|(i, (demand, lot, tag, weight, end))| Claim {
                weights: [*weight; 4], turn_end: *end, ..claim(i as u8, *demand, *lot, *tag)
            }).collect();
            let shares = targets(ONE, &claims);
            prop_assert!(shares.iter().copied().sum::<Share>() <= ONE);
            let waits = claims.iter().any(Claim::waits);
            let served = claims.iter().zip(&shares).any(|(claim, share)| claim.waits() && *share >= claim.lot);
            prop_assert_eq!(waits, served);
        }

        #[test]
        fn max_min_gives_away_everything_that_is_wanted(
            wants in proptest::collection::vec((0u64..1 << 34, 1u32..9), 1..20),
        ) {
            let wants: Vec<_> = wants.iter().map(|(want, weight)| (Share(*want), *weight)).collect();
            let shares = max_min(ONE, &wants);
            let sum: Share = shares.iter().copied().sum();
            let wanted: Share = wants.iter().map(|(want, _)| *want).sum();
            prop_assert_eq!(sum, wanted.min(ONE));
            for (i, (want, weight)) in wants.iter().enumerate() {
                for (j, (_, other)) in wants.iter().enumerate() {
                    // Whoever has less than it wants has no less per weight than anybody else.
                    let (mine, theirs) = (shares[i].0 * u64::from(*other), shares[j].0 * u64::from(*weight));
                    prop_assert!(shares[i] == *want || mine + 64 >= theirs);
                }
            }
        }
    }
}
