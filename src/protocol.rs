//! What is true: the protocol as a state machine without IO.
//!
//! Nothing here reads a clock or entropy, waits, or iterates over anything without an order; time, randomness and
//! messages are handed in.

pub mod agents;
pub mod audit;
mod bounded;
pub mod breaker;
pub mod bucket;
pub mod calendar;
pub mod counter;
pub mod demand;
mod flat;
pub mod gossip;
pub mod id;
pub mod keyed;
pub mod lease;
pub mod ledger;
pub mod lending;
pub mod limit;
pub mod loans;
pub mod message;
pub mod meter;
pub mod node;
pub mod pause;
pub mod permit;
pub mod policy;
pub mod provider;
pub mod queue;
mod recency;
pub mod record;
pub mod share;
pub mod signature;
pub mod target;
pub mod time;
pub mod wall;
