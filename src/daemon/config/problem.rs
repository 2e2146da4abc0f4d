//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;

use super::units::{list, nearest, show_duration};

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigError {
    /// Where: `FILE:LINE`, or the name of the flag.
    pub place: String,
    /// The key, with its section: `pool.rpm`. Empty if it is about the whole file.
    pub key: String,
    /// Why it is wrong, and what to write instead.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.place, &self.key, &self.reason];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
        f.write_str(&parts.join(": "))
    }
}

/// Every mistake of a configuration, in the order of the file; the flags' come after it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// A value and where it was set.
#[derive(Clone, Debug)]
pub(super) struct Set<T> {
    pub value: T,
    pub place: Place,
}

/// Where something was set.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// `FILE:LINE`, or the name of the flag.
    pub source: String,
    /// The key, with its section.
    pub key: String,
}

impl Place {
    pub fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError { place: self.source.clone(), key: self.key.clone(), reason: reason.into() }
    }

    /// `word` is none of `choices`.
    pub fn choice(&self, word: &str, choices: &[&str]) -> ConfigError {
        let hint = nearest(word, choices).map(|near| format!("; did you mean {near:?}?"));
        self.error(format!("is {word:?}, must be {}{}", list(choices), hint.unwrap_or_default()))
    }

    /// The same place, at a key of the table that is there.
    pub fn at(&self, key: &str) -> Self {
        Self { source: self.source.clone(), key: format!("{}.{key}", self.key) }
    }
}

impl<T: Copy + PartialOrd + Show> Set<T> {
    /// The value, if it is in `range`.
    pub fn within(&self, range: &RangeInclusive<T>) -> Result<T, ConfigError> {
        if range.contains(&self.value) {
            return Ok(self.value);
        }
        let [is, least, most] = [self.value, *range.start(), *range.end()].map(Show::show);
        Err(self.place.error(format!("is {is}, must be from {least} to {most}")))
    }
}

/// The value that is `written`, if any is and it is in `range`; else the `default`.
pub(super) fn within_or<T: Copy + PartialOrd + Show>(
    written: Option<&Set<T>>,
    range: &RangeInclusive<T>,
    default: T,
    errors: &mut Vec<ConfigError>,
) -> T {
    let value = written.map_or(Ok(default), |written| written.within(range));
    value.map_err(|error| errors.push(error)).unwrap_or(default)
}

/// What errors write for a value.
pub(super) trait Show {
    fn show(self) -> String;
}

impl Show for Duration {
    fn show(self) -> String {
        show_duration(self)
    }
}

impl Show for u64 {
    fn show(self) -> String {
        self.to_string()
    }
}

impl Show for f64 {
    fn show(self) -> String {
        self.to_string()
    }
}
