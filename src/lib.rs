//! One quota shared by many machines with no server in the middle.
pub mod protocol;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod client;
#[cfg(feature = "daemon")]
pub mod daemon;
