//! Who should hold how much of one limit: weighted max-min over demand, and turns where shares are too small.
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
    /// Fairness weight, at least 1.
    pub weight: u32,
    /// Share that its arrivals and its backlog would use; may exceed the whole.
    pub demand: Share,
    /// The least share that can hold its largest waiting request; zero if none waits.
    pub lot: Share,
    /// Service received, per weight; the start tag of start-time fair queueing (Goyal et al. 1996).
    pub tag: u64,
    /// The tag up to which its present turn lasts.
    pub turn_end: u64,
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

    fn wants(&self) -> Share {
        self.demand.max(self.lot)
    }
}

/// The share that each claim should have of `total`. The targets sum to at most `total`; what nobody claims is left
/// unassigned, so that it stays where it is.
///
/// As long as every waiting request fits into its node's fair share, the targets are the weighted max-min of the
/// claims. Where one does not, fractions are useless: whole-request lots take turns, those in a turn first, then the
/// least served for its weight. A turn lasts a quantum, so that handing over costs little.
pub fn targets(total: Share, claims: &[Claim]) -> Vec<Share> {
    let wants: Vec<_> = claims.iter().map(|claim| (claim.wants().min(total), claim.weight)).collect();
    let fair = max_min(total, &wants);
    // A lot beyond the total (the rest is out of reach) cannot be served in any way: such a claim gets its fraction.
    let lumpy = |i: usize| claims[i].waits() && claims[i].lot > fair[i] && claims[i].lot <= total;
    if !(0..claims.len()).any(lumpy) {
        return fair;
    }
    take_turns(total, claims, &wants, &fair, lumpy)
}

fn take_turns(
    total: Share,
    claims: &[Claim],
    wants: &[(Share, u32)],
    fair: &[Share],
    lumpy: impl Fn(usize) -> bool,
) -> Vec<Share> {
    let least = claims.iter().filter(|claim| claim.waits()).map(|claim| claim.tag).min().unwrap_or(0);
    let mut queue: Vec<usize> = (0..claims.len())
        .filter(|i| {
            let claim = &claims[*i];
            lumpy(*i) && (claim.is_in_turn() || claim.tag <= least.saturating_add(claim.quantum))
        })
        .collect();
    queue.sort_by_key(|i| (!claims[*i].is_in_turn(), claims[*i].tag, claims[*i].node));

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
                (0..claims.len()).map(|j| if lumpy(j) { (Share::ZERO, 1) } else { wants[j] }).collect();
            shares = max_min(total - lot, &others);
            shares[i] = lot;
            left = total - shares.iter().copied().sum();
        }
    }
    let more: Vec<_> = (0..claims.len())
        .map(|i| if shares[i] > Share::ZERO { wants[i].0.saturating_sub(shares[i]) } else { Share::ZERO })
        .zip(wants.iter().map(|(_, weight)| *weight))
        .collect();
    let more = max_min(left, &more);
    shares.iter().zip(more).map(|(share, more)| *share + more).collect()
}

/// Weighted max-min: everybody gets what it wants, up to a common level per weight. Exact: if the wants exceed
/// `total`, the shares sum to `total`.
pub fn max_min(total: Share, wants: &[(Share, u32)]) -> Vec<Share> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    let per_weight = |i: usize| {
        let (want, weight) = wants[i];
        (u128::from(want.0) << 32) / u128::from(weight.max(1))
    };
    order.sort_by_key(|i| (per_weight(*i), *i));
    let mut weights: u64 = wants.iter().map(|(_, weight)| u64::from((*weight).max(1))).sum();
    let mut left = total;
    let mut shares = vec![Share::ZERO; wants.len()];
    for i in order {
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
        Claim { node, weight: 1, demand: Share(demand), lot: Share(lot), tag, turn_end: 0, quantum: 10 }
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
        heavy.weight = 3;
        assert_eq!(targets(Share(100), &[heavy, claim(1, 1_000, 1, 0)]), [Share(75), Share(25)]);
    }

    #[test]
    fn where_a_lot_does_not_fit_the_least_served_go_first() {
        // Burst of two requests, three nodes: two lots.
        let claims = [claim(0, 1_000, 50, 5), claim(1, 1_000, 50, 3), claim(2, 1_000, 50, 4)];
        assert_eq!(targets(Share(100), &claims), [Share(0), Share(50), Share(50)]);
    }

    #[test]
    fn a_turn_is_finished_before_the_next_begins() {
        let mut holder = claim(0, 1_000, 100, 5);
        holder.turn_end = 6;
        let claims = [holder, claim(1, 1_000, 100, 3)];
        assert_eq!(targets(Share(100), &claims), [Share(100), Share(0)]);
        let done = Claim { tag: 6, ..holder };
        assert_eq!(targets(Share(100), &[done, claims[1]]), [Share(0), Share(100)]);
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
                weight: *weight, turn_end: *end, ..claim(i as u8, *demand, *lot, *tag)
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
