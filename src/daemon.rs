//! The daemon.
pub mod api;
pub mod transport;
pub mod config;
pub mod identity;
pub mod token;
