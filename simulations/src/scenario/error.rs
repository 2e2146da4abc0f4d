//! Why there is no such scenario.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::workload::TraceError;

/// Why there is no such scenario.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// No scenario of the library has this name.
    #[error("there is no scenario {name:?}{}; `list` shows all", hint(similar.as_ref()))]
    Name {
        /// What was asked for.
        name: String,
        /// The name that it may have meant.
        similar: Option<String>,
    },
    /// A file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The scenario, or a trace that it names.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not a scenario.
    #[error("{origin}: {source}")]
    Parse {
        /// The file, or the scenario's name.
        origin: String,
        /// The field and what it must be.
        source: Box<toml::de::Error>,
    },
    /// A line of a trace is not a request.
    #[error("{file}, {source}")]
    Trace {
        /// The trace.
        file: String,
        /// The line.
        source: TraceError,
    },
    /// A field is out of bounds.
    #[error("{origin}: {invalid}")]
    Invalid {
        /// The file, or the scenario's name.
        origin: String,
        /// The field and its bound.
        invalid: Invalid,
    },
    /// Nothing of this name can be set.
    #[error("there is no {key:?} to set{}; there are {}, and any field by its path such as links.loss",
        hint(similar.as_ref()), super::set::names())]
    Key {
        /// What was to be set.
        key: String,
        /// The name that it may have meant.
        similar: Option<String>,
    },
}

/// A field that is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Its path in the file, such as `workload[0].load`.
    pub field: String,
    /// What it is, and what it must be.
    pub problem: String,
}

fn hint(similar: Option<&String>) -> String {
    similar.map(|similar| format!(", did you mean {similar:?}?")).unwrap_or_default()
}

/// The name among `known` that `name` is most like, if it is like any.
pub(super) fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(score, _)| *score > 0.75).map(|(_, known)| known.to_owned())
}
