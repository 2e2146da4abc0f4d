//! One quota shared by many machines, with no server in the middle.
//!
//! # A map of the code
//!
//! * [`protocol`] is what is true: a state machine without IO. Start at [`protocol::node`], which says how to drive it.
//! * [`wire`] is how it is spelled: values to bytes and back, bounded.
//! * `daemon` is how it happens: the clock, the Unix socket, libp2p, files. Start at `daemon::run`.
//! * `client` asks a daemon over its Unix socket.
//! * `cli` is the command line.
//!
//! Imports go one way: `protocol` knows nobody, `wire` knows `protocol`, `daemon` knows both. Everything but `protocol`
//! and `wire` is behind the feature `daemon`, which is on by default; without it there is neither Tokio nor libp2p.

pub mod protocol;
pub mod wire;

#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod client;
#[cfg(feature = "daemon")]
pub mod daemon;
