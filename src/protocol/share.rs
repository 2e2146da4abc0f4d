//! Shares: the right to spend, as a whole number of parts.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// A part of a limit, in parts of [`ONE`]. Integers, so that cutting and lending neither mints nor loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Share(pub u64);

/// The whole of every limit: 720,720 × 2¹² parts, a little less than 2³². It divides by every number up to 16, so that a
/// small limit splits into as many whole-request lots as its burst has; 10,000 nodes have 295,206 parts each, so that
/// the coarsest rounding of a fair share is 0.0004 %; and `amount × ONE × per` of the largest limit fits 128 bits (see
/// [`Rate`](super::limit::Rate)).
pub const ONE: Share = Share(720_720 << 12);

impl Share {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `self × numerator / denominator`, rounded down; zero if the denominator is zero.
    #[must_use]
    pub fn scale(self, numerator: u64, denominator: u64) -> Self {
        if denominator == 0 {
            return Self::ZERO;
        }
        // Divisions of 64 bits are several times as fast, and nearly all fit.
        if let Some(product) = self.0.checked_mul(numerator) {
            return Self(product / denominator);
        }
        let scaled = u128::from(self.0) * u128::from(numerator) / u128::from(denominator);
        Self(u64::try_from(scaled).unwrap_or(u64::MAX))
    }

    /// The difference, or zero if `other` is the greater.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// As a fraction of [`ONE`], for people.
    pub fn fraction(self) -> f64 {
        self.0 as f64 / ONE.0 as f64
    }
}

impl Add for Share {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Share {
    type Output = Self;

    /// # Panics
    /// If `other` is greater: a share that went below zero would be a right that exists twice.
    fn sub(self, other: Self) -> Self {
        Self(self.0.checked_sub(other.0).expect("BUG! more share taken than there is"))
    }
}

impl SubAssign for Share {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Share {
    fn sum<I: Iterator<Item = Self>>(shares: I) -> Self {
        shares.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.fraction() * 100.0)
    }
}
