//! What links are like, as people write it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Links that people know. Times are one way and means; every link has its own mean, evenly spread around the hop.
///
/// | preset | hop | spread of links | jitter | loss | doubled | reordered |
/// | --- | --- | --- | --- | --- | --- | --- |
/// | `loopback` | 0.2 ms | none | 50 % | 0 | 0 | 0 |
/// | `lan` | 0.5 ms | ±50 % | 50 % | 0 | 0 | 0 |
/// | `wan` | 20 ms | ±50 % | 10 % | 0.1 % | 0 | 0 |
/// | `intercontinental` | 75 ms | ±60 % | 10 % | 0.5 % | 0 | 0 |
/// | `satellite` | 300 ms | ±5 % | 5 % | 1 % | 0 | 0 |
/// | `lossy` | 20 ms | ±50 % | 50 % | 10 % | 1 % | 5 % |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Processes on one machine; most of the time goes by in the scheduler.
    Loopback,
    /// One building or one cloud zone.
    #[default]
    Lan,
    /// One continent.
    Wan,
    /// Round trips of 60 to 240 ms.
    Intercontinental,
    /// By a geostationary satellite.
    Satellite,
    /// Bad radio: far worse than what people put up with.
    Lossy,
}

/// What a link does to messages: a [`Preset`], and whatever is otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSpec {
    /// Where all that is not said here comes from; `lan` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The mean time that a message takes one way, in milliseconds, from 0 to 60,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop_ms: Option<f64>,
    /// By which part of the hop the links' own means differ from it at most, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Which part of a link's mean is spent in queues, from 0 to 1: the rest is fixed, this part is exponentially
    /// distributed, as the wait in an M/M/1 queue is. So there is a floor, and a long tail to the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// Messages that never arrive, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Messages that arrive once more, one to four hops later, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<f64>,
    /// Messages that take one to four hops longer, so that later ones overtake them, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<f64>,
}

/// Links that cannot be.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{field} of links is {value}; write a number from 0 to {most}")]
pub struct LinkError {
    /// Which field.
    pub field: &'static str,
    /// What it is.
    pub value: f64,
    /// What it may be at most.
    pub most: f64,
}

/// A [`LinkSpec`] with nothing left open; probabilities are of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Link {
    pub(super) hop_ms: f64,
    pub(super) spread: f64,
    pub(super) jitter: f64,
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    pub(super) reorder: f64,
}

impl LinkSpec {
    /// The links of a preset.
    pub fn preset(preset: Preset) -> Self {
        Self { preset: Some(preset), ..Self::default() }
    }

    /// The mean time that a message takes one way over all links, in milliseconds.
    pub fn mean_hop_ms(&self) -> f64 {
        self.link().hop_ms
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), LinkError> {
        let fields = [
            ("hop_ms", self.hop_ms, 60_000.0),
            ("spread", self.spread, 1.0),
            ("jitter", self.jitter, 1.0),
            ("loss", self.loss, 100.0),
            ("duplicate", self.duplicate, 100.0),
            ("reorder", self.reorder, 100.0),
        ];
        let wrong = fields.into_iter().find_map(|(field, value, most)| {
            let value = value.filter(|value| !(0.0..=most).contains(value))?;
            Some(LinkError { field, value, most })
        });
        wrong.map_or(Ok(()), Err)
    }

    pub(super) fn link(&self) -> Link {
        let known = self.preset.unwrap_or_default().link();
        let part = |percent: Option<f64>, known| percent.map_or(known, |percent| percent / 100.0);
        Link {
            hop_ms: self.hop_ms.unwrap_or(known.hop_ms),
            spread: self.spread.unwrap_or(known.spread),
            jitter: self.jitter.unwrap_or(known.jitter),
            loss: part(self.loss, known.loss),
            duplicate: part(self.duplicate, known.duplicate),
            reorder: part(self.reorder, known.reorder),
        }
    }
}

impl Preset {
    fn link(self) -> Link {
        let clean = |hop_ms, spread, jitter, loss| Link {
            hop_ms,
            spread,
            jitter,
            loss,
            duplicate: 0.0,
            reorder: 0.0,
        };
        match self {
            Self::Loopback => clean(0.2, 0.0, 0.5, 0.0),
            Self::Lan => clean(0.5, 0.5, 0.5, 0.0),
            Self::Wan => clean(20.0, 0.5, 0.1, 0.001),
            Self::Intercontinental => clean(75.0, 0.6, 0.1, 0.005),
            Self::Satellite => clean(300.0, 0.05, 0.05, 0.01),
            Self::Lossy => Link { duplicate: 0.01, reorder: 0.05, ..clean(20.0, 0.5, 0.5, 0.1) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_beats_the_preset() {
        let spec: LinkSpec = toml::from_str("preset = 'satellite'\nloss = 25").unwrap();
        assert_eq!(spec.check(), Ok(()));
        let link = spec.link();
        assert_eq!((link.hop_ms, link.loss, link.spread), (300.0, 0.25, 0.05));
        assert!(toml::from_str::<LinkSpec>("los = 25").is_err(), "a misspelt field is refused");
    }

    #[test]
    fn a_field_out_of_its_range_is_named() {
        let spec = LinkSpec { loss: Some(101.0), ..LinkSpec::default() };
        assert_eq!(
            spec.check().unwrap_err().to_string(),
            "loss of links is 101; write a number from 0 to 100"
        );
        let spec = LinkSpec { hop_ms: Some(f64::NAN), ..LinkSpec::default() };
        assert_eq!(spec.check().unwrap_err().field, "hop_ms");
    }
}
