//! The scenarios that are part of the program, so that it runs from anywhere.

use std::io;

use super::ScenarioError;

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),*]
    };
}

/// Names and texts, in alphabetical order. A test compares them with the folder.
pub(super) const FILES: &[(&str, &str)] = files![
    "callers"
    "churn"
    "concurrency"
    "concurrency-crash"
    "concurrency-scarce"
    "crash"
    "day-boundary"
    "day-boundary-step"
    "diurnal"
    "drift"
    "flapping"
    "flash-crowd"
    "greedy"
    "greedy-beside-intermittent"
    "halves-swap"
    "hard-times"
    "idle"
    "joining"
    "lending-twice"
    "liars"
    "loss-30"
    "lumpy"
    "mixed-priorities"
    "mixed-sizes"
    "on-off"
    "one-way-cut"
    "partition"
    "partition-available"
    "pauses"
    "priorities"
    "refunds"
    "rotating"
    "satellite"
    "small-burst"
    "smoke-10000"
    "steady"
    "steady-100"
    "steady-1000"
    "steady-2"
    "suspended-laptop"
    "sybils"
    "trace"
    "weights"
    "window"
    "window-lumpy"
    "wipe"
    "zipf"
];

/// The traces that they replay.
const TRACES: &[(&str, &str)] = &[("trace.csv", include_str!("../../scenarios/trace.csv"))];

/// The text of a trace.
pub(super) fn trace(file: &str) -> Result<String, ScenarioError> {
    let found = TRACES.iter().find(|(known, _)| *known == file);
    let missing = || ScenarioError::Read { file: file.into(), source: io::ErrorKind::NotFound.into() };
    found.map(|(_, text)| (*text).to_owned()).ok_or_else(missing)
}
