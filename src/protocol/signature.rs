//! What an author proves of a value on its page, so that others may pass it on.
//!
//! A link proves who is at its other end, so what a node says of itself over its own links needs no signature. What is
//! passed on does: whoever passes it on could say anything. The core says *what* is signed, a [`Statement`]; how it
//! becomes bytes and a signature is the business of the [`Keys`] that the core is handed.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{Incarnation, LedgerId, NodeId};
use super::record::{Key, Value};

/// An Ed25519 signature (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signature {
    /// Its first half, the encoded point R.
    pub r: [u8; 32],
    /// Its second half, the scalar S.
    pub s: [u8; 32],
}

impl Signature {
    /// A number that differs between any two signatures but by chance.
    pub fn short(&self) -> u32 {
        u32::from_le_bytes(self.r[..4].try_into().expect("BUG! four bytes are four"))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", self.short())
    }
}

/// What a signature is of. Whoever would use it for another ledger, author, life, place or value must sign anew; the keys
/// add which swarm it is for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Statement<'a> {
    /// The book that it belongs to.
    pub ledger: LedgerId,
    /// Who says so.
    pub author: NodeId,
    /// In which of its lives.
    pub incarnation: Incarnation,
    /// The version of the author's page at which it was written.
    pub version: u64,
    /// Which value of the page.
    pub key: &'a Key,
    /// The value.
    pub value: &'a Value,
}

/// Signs for one node and checks the signatures of all.
pub trait Keys: fmt::Debug + Send + Sync {
    /// Signs what this node itself states.
    fn sign(&self, statement: &Statement) -> Signature;

    /// Whether the author of the statement has signed it.
    fn verify(&self, statement: &Statement, signature: &Signature) -> bool;
}
