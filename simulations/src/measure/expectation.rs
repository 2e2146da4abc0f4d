//! What a scenario says must come out.

use super::Measures;
use crate::scenario::Expect;

/// The expectations that a run did not meet, in words and numbers. A figure that the run does not have does not meet
/// any.
pub fn unmet(expect: &Expect, measures: &Measures) -> Vec<String> {
    let least = |name: &str, bound: Option<f64>, value: Option<f64>| {
        let bound = bound?;
        let told = told(value);
        (!value.is_some_and(|value| value >= bound))
            .then(|| format!("{name} is {told}, expected at least {bound}"))
    };
    let most = |name: &str, bound: Option<f64>, value: Option<f64>| {
        let bound = bound?;
        let told = told(value);
        (!value.is_some_and(|value| value <= bound))
            .then(|| format!("{name} is {told}, expected at most {bound}"))
    };
    let never = (expect.reaction.is_some() && measures.unreached > 0)
        .then(|| format!("the optimum was not reached after {} of the steps", measures.unreached));
    // Nobody who did not ask has starved.
    let starved = expect.starved.and(Some(measures.starved.unwrap_or(0.0)));
    [
        least("utilisation", expect.utilisation, measures.utilisation),
        least("jain", expect.jain, measures.jain),
        most("reaction", expect.reaction, measures.reaction_max),
        never,
        most("bytes", expect.bytes, Some(measures.bytes)),
        most("starved", expect.starved, starved),
        least("floor", expect.floor, measures.floor),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn told(value: Option<f64>) -> String {
    value.map_or_else(|| "not there".to_owned(), |value| format!("{value:.4}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_expected_may_be_anything() {
        assert_eq!(unmet(&Expect::default(), &Measures::default()), Vec::<String>::new());
    }

    #[test]
    fn every_expectation_is_compared_with_its_figure() {
        let expect = Expect {
            utilisation: Some(0.9),
            jain: Some(0.99),
            reaction: Some(0.2),
            bytes: Some(100.0),
            starved: Some(1.0),
            floor: Some(0.95),
        };
        let good = Measures {
            utilisation: Some(0.9),
            jain: Some(1.0),
            reaction_max: Some(0.2),
            bytes: 100.0,
            floor: Some(0.95),
            ..Measures::default()
        };
        assert_eq!(unmet(&expect, &good), Vec::<String>::new());
        let bad = Measures {
            utilisation: Some(0.89),
            jain: None,
            reaction_max: Some(0.3),
            unreached: 2,
            bytes: 100.5,
            starved: Some(f64::NAN),
            floor: Some(0.94),
            ..good
        };
        let expected = [
            "utilisation is 0.8900, expected at least 0.9",
            "jain is not there, expected at least 0.99",
            "reaction is 0.3000, expected at most 0.2",
            "the optimum was not reached after 2 of the steps",
            "bytes is 100.5000, expected at most 100",
            "starved is NaN, expected at most 1",
            "floor is 0.9400, expected at least 0.95",
        ];
        assert_eq!(unmet(&expect, &bad), expected);
    }
}
