//! What authors signed in former lives, and of which of these lives it is remembered.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::page::Signed;
use crate::protocol::id::{Incarnation, NodeId};

/// The most former lives of which the rows are remembered: the latest of each author before the second latest of any.
pub const FORMER_MAX: usize = 128;

/// A life of an author.
type Life = (Incarnation, NodeId);

/// Rows of former lives.
#[derive(Clone, Debug, Default)]
pub(super) struct FormerLives {
    signed: BTreeMap<Life, Signed>,
}

/// In the order in which lives are worth keeping, the first most: how many later ones of the same author are kept, then how
/// early it is. A member that makes up one life after the other, as late as it likes, crowds out its own and nobody else's.
type Rank = (usize, Reverse<Life>);

impl FormerLives {
    pub fn len(&self) -> usize {
        self.signed.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Life, &Signed)> {
        self.signed.iter()
    }

    pub fn get(&self, life: Life) -> Option<&Signed> {
        self.signed.get(&life)
    }

    pub fn remove(&mut self, life: Life) -> Option<Signed> {
        self.signed.remove(&life)
    }

    /// Keeps what was signed in a life, if it is worth it. Gives back whose life was forgotten for it.
    pub fn keep(&mut self, life: Life, signed: Signed) -> Option<NodeId> {
        if signed.is_empty() || !self.keeps(life) {
            return None;
        }
        self.signed.insert(life, signed);
        if self.signed.len() <= FORMER_MAX {
            return None;
        }
        let (_, Reverse(least)) = self.least()?;
        self.signed.remove(&least);
        Some(least.1)
    }

    /// Whether the rows of a life that is not an author's latest are kept: all nodes decide alike.
    pub fn keeps(&self, life: Life) -> bool {
        let later = || self.signed.keys().filter(|known| known.1 == life.1 && known.0 > life.0).count();
        self.signed.len() < FORMER_MAX || self.least().is_some_and(|least| (later(), Reverse(life)) <= least)
    }

    /// The one that is forgotten next.
    fn least(&self) -> Option<Rank> {
        let mut lives = BTreeMap::<NodeId, usize>::new();
        let ranks = self.signed.keys().rev().map(|life| {
            let known = lives.entry(life.1).or_default();
            *known += 1;
            (*known - 1, Reverse(*life))
        });
        ranks.max()
    }
}
