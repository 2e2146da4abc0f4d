//! What is fuzzed: for each decoder a function that takes any bytes, and panics if anything does not hold that must.
//!
//! One place for both who runs them: libFuzzer (`targets/`, by `scripts/fuzz`, with the nightly toolchain), and an ordinary
//! test of the main package over the seeds and everything that was ever found (`tests/corpus.rs`, which includes this file).
//!
//! Every function says how much it may allocate. A pure decoder of n bytes may hold `2n + 64 KiB` at once, so that a
//! message costs its receiver about what it costs its sender; where more is allowed, the reason stands beside it.

mod bound;
mod bytes;
mod configuration;
mod daemon;
mod node;
mod resp;
mod saved;
pub mod seeds;
mod statements;
mod swarm;

/// Takes any bytes, and panics if something does not hold.
pub type Target = fn(&[u8]);

/// All targets, each with its name: the name of its binary in `targets/`, and of its directory in `seeds/`.
pub const TARGETS: [(&str, Target); 13] = [
    ("frame", bytes::frame),
    ("message", bytes::message),
    ("node", node::raw),
    ("records", node::structured),
    ("pages", statements::pages),
    ("saved", saved::saved),
    ("token", bytes::token),
    ("config", configuration::config),
    ("duration", configuration::duration),
    ("ask", daemon::ask),
    ("http", daemon::http),
    ("command", resp::command),
    ("resp", resp::resp),
];

/// Runs one target on some bytes.
///
/// # Panics
/// If there is no such target, or if something does not hold.
pub fn run(target: &str, bytes: &[u8]) {
    let known = TARGETS.iter().find(|(name, _)| *name == target);
    known.expect("there is no such target").1(bytes);
}
