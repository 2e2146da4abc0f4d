//! Members that lie: which, and how.
//!
//! A liar is a program of its own that knows the whole protocol and keeps to none of it but what its lie needs. What it
//! says goes over links that prove who it is, and it signs with its own key alone. Everything else is up to it.

use aquifer::protocol::policy::Trust;
use serde::{Deserialize, Serialize};

use crate::fault::Nodes;
use crate::random::{Purpose, Stream};
use crate::scenario::Scenario;

/// What a liar does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// Says that it has used as much as can be counted.
    Inflate,
    /// Borrows what it can, spends or wastes it, says that it used nothing, and gives nothing back.
    UnderReport,
    /// Claims endless critical demand, the greatest weight, and to be the least served.
    Demand,
    /// Lends its whole base share to every peer at once, and signs no books.
    LendTwice,
    /// Lends as often, and writes it in its books.
    BookTwice,
    /// Lends as often, and names one borrower only.
    HideLoans,
    /// Lends as often, and writes that it has all there is.
    Overdraw,
    /// Lends one peer its base share with level without end.
    EndlessLevel,
    /// Lends one peer share that it has not.
    EmptyGrant,
    /// Passes on records that others never signed.
    Forge,
    /// Says again whatever it ever heard or said.
    Replay,
    /// Tells and signs something else to each peer.
    Equivocate,
    /// Lives in future lives, at future versions and moments.
    Future,
    /// Says much, of many things, again and again.
    Flood,
    /// Founds the ledger a second time, and other ledgers.
    Found,
    /// Claims that the swarm belongs to a ledger with a lower name.
    Usurp,
    /// Reclaims the base shares of all others.
    Reclaim,
    /// Gives more base share than it has, to everybody, with level.
    Overgive,
    /// Gives in a circle with other liars, ever more.
    Cycle,
}

/// Some nodes that lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiarSpec {
    /// Which.
    pub nodes: Nodes,
    /// How.
    pub does: Lie,
}

/// How far what others say of their demand counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustSpec {
    /// In full.
    #[default]
    Members,
    /// As far as a node does not use its own base share.
    Weight,
}

impl From<TrustSpec> for Trust {
    fn from(trust: TrustSpec) -> Self {
        match trust {
            TrustSpec::Members => Self::Members,
            TrustSpec::Weight => Self::Weight,
        }
    }
}

impl Lie {
    /// All that `liars = …` draws from. Not [`Usurp`](Self::Usurp): nodes believe whoever names a lower ledger, which is
    /// how swarms that were founded apart become one; where trust weighs, those do that have no ledger yet.
    pub const DRAWN: [Self; 18] = [
        Self::Inflate,
        Self::UnderReport,
        Self::Demand,
        Self::LendTwice,
        Self::BookTwice,
        Self::HideLoans,
        Self::Overdraw,
        Self::EndlessLevel,
        Self::EmptyGrant,
        Self::Forge,
        Self::Replay,
        Self::Equivocate,
        Self::Future,
        Self::Flood,
        Self::Found,
        Self::Reclaim,
        Self::Overgive,
        Self::Cycle,
    ];

    /// Whether several honest nodes may hold the liar's base share at once, until they hear of one another. Nobody who
    /// sees only one of its gifts or loans can tell.
    pub fn spends_twice(self) -> bool {
        self.lends_twice() || matches!(self, Self::Equivocate | Self::Overgive)
    }

    /// Whether it does so by loans, which its books should show.
    pub fn lends_twice(self) -> bool {
        matches!(self, Self::LendTwice | Self::BookTwice | Self::HideLoans | Self::Overdraw)
    }
}

/// What each node does, by place; none where it is honest. The first node is honest: it founds.
pub fn lies(scenario: &Scenario, seed: u64) -> Vec<Option<Lie>> {
    let nodes = scenario.nodes;
    let mut lies = vec![None; nodes];
    let mut stream = Stream::new(seed, Purpose::Liars, 0);
    for spec in &scenario.liar {
        for node in spec.nodes.resolve(nodes, &mut stream, |node| node > 0 && lies[node].is_none()) {
            lies[node] = Some(spec.does);
        }
    }
    let drawn = Nodes::Some((nodes as f64 * scenario.liars).round() as usize);
    for node in drawn.resolve(nodes, &mut stream, |node| node > 0 && lies[node].is_none()) {
        lies[node] = Some(Lie::DRAWN[stream.below(Lie::DRAWN.len() as u64) as usize]);
    }
    lies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_nodes_lie_in_all_ways_and_never_the_first() {
        let scenario = Scenario { liars: 0.3, ..Scenario::default() };
        let mut told = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let lies = lies(&scenario, seed);
            assert_eq!(lies.iter().flatten().count(), 3);
            assert_eq!(lies[0], None);
            told.extend(lies.into_iter().flatten());
        }
        assert_eq!(told.len(), Lie::DRAWN.len());
    }

    #[test]
    fn whoever_is_named_lies_as_it_says() {
        let spec = LiarSpec { nodes: Nodes::Part(2, 0), does: Lie::Forge };
        let scenario = Scenario { liar: vec![spec], ..Scenario::default() };
        let expected: Vec<_> = (0..10).map(|node| (1..5).contains(&node).then_some(Lie::Forge)).collect();
        assert_eq!(lies(&scenario, 1), expected);
        assert!(lies(&Scenario::default(), 1).iter().all(Option::is_none));
    }
}
