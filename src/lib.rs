//! One quota shared by many machines, with no server in the middle.
//!
//! # A map of the code
//!
//! * [`protocol`] is what is true: a state machine without IO. Start at [`protocol::node`], which says how to drive it.
//! * [`wire`] is how it is spelled: values to bytes and back, bounded.
//! * `api` is what programs say to a daemon and what it answers, `client` says it over the Unix socket.
//! * `daemon` is how it happens: the clock, the Unix socket, libp2p, files. Start at `daemon::run`.
//! * `cli` is the command line.
//!
//! Imports go one way: `protocol` knows nobody, `wire` knows `protocol`, `daemon` knows both. Everything but `protocol`
//! and `wire` is behind features. Without any there is neither Tokio nor libp2p; programs that ask a daemon need the
//! feature `client` alone, which has Tokio, and `tower` for a layer of services. `daemon`, the default, has all but that.

pub mod protocol;
pub mod wire;

#[cfg(feature = "client")]
pub mod api;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "daemon")]
pub mod daemon;
