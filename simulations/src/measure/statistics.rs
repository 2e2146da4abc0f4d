//! Means, quantiles and spreads of plain numbers.

use serde::Serialize;

/// A figure over several seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many seeds had the figure.
    pub runs: usize,
    /// The least.
    pub min: f64,
    /// A quarter of the runs is below.
    pub lower: f64,
    /// Half of the runs is below.
    pub median: f64,
    /// Three quarters of the runs are below.
    pub upper: f64,
    /// The most.
    pub max: f64,
}

impl Summary {
    /// The spread of `values`; nothing if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values = sorted(values);
        let at = |part| quantile(&values, part);
        Some(Self {
            runs: values.len(),
            min: at(0.0)?,
            lower: at(0.25)?,
            median: at(0.5)?,
            upper: at(0.75)?,
            max: at(1.0)?,
        })
    }
}

/// `values` in ascending order.
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The arithmetic mean; nothing of no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The value below which `part` (0 to 1) of the `ascending` values are, with straight lines between them (definition 7
/// of Hyndman and Fan 1996); nothing of no values.
pub fn quantile(ascending: &[f64], part: f64) -> Option<f64> {
    let place = part.clamp(0.0, 1.0) * ascending.len().checked_sub(1)? as f64;
    let (below, above) = (ascending[place.floor() as usize], ascending[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// The median; nothing of no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_nothing_there_is_nothing() {
        assert_eq!(mean(&[]), None);
        assert_eq!(median([]), None);
        assert_eq!(quantile(&[], 0.99), None);
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn of_one_value_all_are_that_value() {
        assert_eq!(mean(&[3.0]), Some(3.0));
        assert_eq!(quantile(&[3.0], 0.0), Some(3.0));
        assert_eq!(quantile(&[3.0], 0.99), Some(3.0));
        let all = Summary { runs: 1, min: 3.0, lower: 3.0, median: 3.0, upper: 3.0, max: 3.0 };
        assert_eq!(Summary::of([3.0]), Some(all));
    }

    #[test]
    fn of_several_they_differ_from_one_another() {
        assert_eq!(mean(&[1.0, 2.0, 9.0]), Some(4.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([9.0, 1.0, 2.0, 4.0]), Some(3.0));
        // 0, 10, 20, 30, 40: a quarter of the way along is 10, and 0.9 of the way is at place 3.6.
        let summary = Summary { runs: 5, min: 0.0, lower: 10.0, median: 20.0, upper: 30.0, max: 40.0 };
        assert_eq!(Summary::of([40.0, 0.0, 30.0, 10.0, 20.0]), Some(summary));
        let tenths = quantile(&[0.0, 10.0, 20.0, 30.0, 40.0], 0.9).unwrap();
        assert!((tenths - 36.0).abs() < 1e-9);
    }
}
