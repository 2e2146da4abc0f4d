//! The protocol.
pub mod id;
pub mod limit;
pub mod share;
pub mod time;
