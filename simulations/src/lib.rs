//! Deterministic simulations of swarms: the daemon's own core, in one thread, on clocks and networks that misbehave.
//!
//! A run goes one way. A [`scenario`] and a seed give the [`workload`]: every request that will ever arrive. A
//! [`scheme`] answers them: the core itself in a [`world`] of clocks, links and [`fault`]s with [`checker`]s behind every
//! event, or one of the [`rival`]s. What happened is a [`record`]; [`measure`] makes figures of it and [`report`] makes
//! tables and pictures of those. [`swarm`] draws scenarios from the seed to hunt for faults.

pub mod checker;
pub mod cli;
pub mod clock;
pub mod fault;
pub mod forge;
pub mod liar;
pub mod lie;
pub mod measure;
pub mod network;
pub mod parallel;
pub mod random;
pub mod record;
pub mod report;
pub mod rival;
pub mod scenario;
pub mod scheme;
pub mod swarm;
pub mod time;
pub mod workload;
pub mod world;
