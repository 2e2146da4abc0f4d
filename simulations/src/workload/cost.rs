//! What requests take.

use serde::{Deserialize, Serialize};

use crate::random::Stream;

/// What a request takes of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "cost must be a number of units, or { median, sigma, max }")]
pub enum Cost {
    /// Always so many units.
    Units(u64),
    /// Sizes like those of LLM calls.
    Sizes(Sizes),
}

/// Log-normal sizes, as measured of prompts and answers of LLMs, cut off at the top as a maximum of tokens does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Half of all requests take less, in units.
    pub median: f64,
    /// The deviation of the size's natural logarithm: at 1, one request of six takes over 2.7 times the median.
    pub sigma: f64,
    /// The most that a request takes, as a part of the burst.
    pub max: f64,
}

impl Cost {
    /// The most that one request takes under a limit with this burst, in units; at least 1.
    pub fn max(&self, burst: f64) -> u64 {
        match self {
            Self::Units(units) => *units,
            Self::Sizes(sizes) => ((sizes.max * burst).floor() as u64).max(1),
        }
    }

    /// The mean under a limit with this burst, in units.
    pub fn mean(&self, burst: f64) -> f64 {
        let sizes = match self {
            Self::Units(units) => return *units as f64,
            Self::Sizes(sizes) => sizes,
        };
        // Integrated over the normal distribution: what is cut off and rounded has no closed form.
        let max = self.max(burst);
        let steps = (-8_000..=8_000).map(|step| f64::from(step) / 1_000.0);
        let (sum, weight) = steps.fold((0.0, 0.0), |(sum, weight), z| {
            let density = (-z * z / 2.0).exp();
            (sum + density * sizes.at(z, max) as f64, weight + density)
        });
        sum / weight
    }

    /// One request's, under a limit with this burst, in units.
    pub fn draw(&self, burst: f64, stream: &mut Stream) -> u64 {
        match self {
            Self::Units(units) => *units,
            Self::Sizes(sizes) => sizes.at(stream.normal(), self.max(burst)),
        }
    }
}

impl Sizes {
    /// The size `z` deviations above the median.
    fn at(&self, z: f64, max: u64) -> u64 {
        ((self.median * (self.sigma * z).exp()).round() as u64).clamp(1, max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn the_mean_is_the_mean_of_what_is_drawn_and_the_cut_holds() {
        let cost = Cost::Sizes(Sizes { median: 100.0, sigma: 1.2, max: 0.5 });
        let mut stream = Stream::new(3, Purpose::Workload, 0);
        let draws: Vec<u64> = (0..200_000).map(|_| cost.draw(1_000.0, &mut stream)).collect();
        let mean = draws.iter().sum::<u64>() as f64 / draws.len() as f64;
        assert!((mean / cost.mean(1_000.0) - 1.0).abs() < 0.01, "{mean} against {}", cost.mean(1_000.0));
        assert_eq!(draws.iter().max(), Some(&500));
        let below = draws.iter().filter(|units| **units < 100).count() as f64 / draws.len() as f64;
        assert!((below - 0.5).abs() < 0.01, "{below} are below the median");
    }

    #[test]
    fn a_cost_is_a_number_or_a_table_and_nothing_else() {
        #[derive(Debug, Deserialize)]
        struct File {
            cost: Cost,
        }
        let read = |text: &str| toml::from_str::<File>(text).map(|file| file.cost);
        assert_eq!(read("cost = 3").unwrap(), Cost::Units(3));
        let sizes = read("cost = { median = 5, sigma = 1, max = 0.5 }").unwrap();
        assert_eq!(sizes, Cost::Sizes(Sizes { median: 5.0, sigma: 1.0, max: 0.5 }));
        let error = read("cost = { mean = 5 }").unwrap_err().to_string();
        assert!(error.contains("{ median, sigma, max }"), "{error}");
    }
}
