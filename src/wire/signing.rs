//! Statements as bytes, and their signatures.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::encode;
use crate::protocol::id::NodeId;
use crate::protocol::signature::{Keys, Signature, Statement};

/// Keeps statements apart from all else that the key may sign (Noise handshakes, statements of later versions).
const DOMAIN: &str = "aquifer statement";
/// The version of the bytes that are signed.
const STATEMENT_VERSION: u8 = 1;
/// The most bytes of a statement: more than any value of a message or a saved state.
const STATEMENT_MAX: usize = super::SAVED_MAX;

/// Ed25519 with a node's own key; [`NodeId`]s are the public keys.
pub struct Ed25519 {
    key: SigningKey,
    swarm: [u8; 32],
}

impl Ed25519 {
    /// Keys of the node with this secret, in the swarm with this name: the same on all its nodes, and on those of no
    /// other. It is public: give a hash where it is made of a secret.
    pub fn new(secret: &[u8; 32], swarm: [u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(secret), swarm }
    }

    /// Who signs.
    pub fn id(&self) -> NodeId {
        NodeId(self.key.verifying_key().to_bytes())
    }
}

impl std::fmt::Debug for Ed25519 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ed25519({})", self.id().short())
    }
}

impl Keys for Ed25519 {
    fn sign(&self, statement: &Statement) -> Signature {
        let signature = self.key.sign(&bytes_of(&self.swarm, statement));
        Signature { r: *signature.r_bytes(), s: *signature.s_bytes() }
    }

    fn verify(&self, statement: &Statement, signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_components(signature.r, signature.s);
        let key = VerifyingKey::from_bytes(&statement.author.0);
        // Strictly: with keys of small order one signature could be of many statements.
        key.is_ok_and(|key| key.verify_strict(&bytes_of(&self.swarm, statement), &signature).is_ok())
    }
}

/// Perfect signatures, as proofs about protocols assume them: a hash that simulations agree not to compute for others.
/// Worth nothing on a network.
#[derive(Clone, Copy, Debug)]
pub struct Ideal;

impl Keys for Ideal {
    fn sign(&self, statement: &Statement) -> Signature {
        // FNV-1a (Fowler, Noll, Vo), with 64 bits: enough where nobody looks for collisions.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = bytes_of(&[0; 32], statement).iter().fold(0xcbf2_9ce4_8422_2325, step);
        // The last bits are the best mixed.
        let mut r = [0; 32];
        r[..8].copy_from_slice(&hash.swap_bytes().to_le_bytes());
        Signature { r, s: [0; 32] }
    }

    fn verify(&self, statement: &Statement, signature: &Signature) -> bool {
        self.sign(statement) == *signature
    }
}

/// The name of the swarm with this pre-shared key; who knows the name does not know the key.
pub fn swarm_of(key: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(b"aquifer swarm").chain_update(key).finalize().into()
}

fn bytes_of(swarm: &[u8; 32], statement: &Statement) -> Vec<u8> {
    #[derive(Serialize)]
    struct Signed<'a>(&'a str, &'a [u8; 32], &'a Statement<'a>);
    let signed = encode::<_, STATEMENT_MAX>(&Signed(DOMAIN, swarm, statement), STATEMENT_VERSION);
    signed.expect("BUG! a value that was read from a message, or written for one, does not fit one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::{Incarnation, LedgerId};
    use crate::protocol::record::{Key, Value};
    use crate::protocol::share::Share;

    fn keys(id: u8) -> Ed25519 {
        Ed25519::new(&[id; 32], [9; 32])
    }

    fn statement<'a>(author: &Ed25519, key: &'a Key, value: &'a Value) -> Statement<'a> {
        let ledger = LedgerId(keys(7).id());
        Statement { ledger, author: author.id(), incarnation: Incarnation(3), version: 4, key, value }
    }

    #[test]
    fn a_signature_is_of_one_statement_in_one_swarm() {
        let (one, other) = (keys(1), keys(2));
        let (key, value) = (Key::Given(other.id()), Value::Share(Share(5)));
        let made = statement(&one, &key, &value);
        let signature = one.sign(&made);
        assert!(other.verify(&made, &signature) && one.verify(&made, &signature));
        let elsewhere = Ed25519::new(&[2; 32], [8; 32]);
        assert!(!elsewhere.verify(&made, &signature), "another swarm");
        let (wrong_key, wrong_value) = (Key::Reclaimed(other.id()), Value::Share(Share(6)));
        let wrongs = [
            Statement { ledger: LedgerId(one.id()), ..made },
            Statement { author: other.id(), ..made },
            Statement { incarnation: Incarnation(4), ..made },
            Statement { version: 5, ..made },
            Statement { key: &wrong_key, ..made },
            Statement { value: &wrong_value, ..made },
        ];
        for wrong in wrongs {
            assert!(!other.verify(&wrong, &signature), "{wrong:?}");
        }
        assert!(!other.verify(&made, &Signature { r: signature.s, s: signature.r }));
    }

    #[test]
    fn no_bit_of_a_signature_can_be_another() {
        let one = keys(1);
        let (key, value) = (Key::Founded, Value::Share(Share(5)));
        let made = statement(&one, &key, &value);
        let signature = one.sign(&made);
        for bit in 0..512 {
            let mut wrong = signature;
            let half = if bit < 256 { &mut wrong.r } else { &mut wrong.s };
            half[bit % 256 / 8] ^= 1 << (bit % 8);
            assert!(!one.verify(&made, &wrong), "bit {bit}");
        }
    }

    #[test]
    fn keys_of_small_order_sign_nothing() {
        // The neutral element as key and R, zero as S: plain verification accepts it for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let (key, value) = (Key::Founded, Value::Share(Share(5)));
        let made = Statement { author: NodeId(neutral), ..statement(&keys(1), &key, &value) };
        assert!(!keys(1).verify(&made, &Signature { r: neutral, s: [0; 32] }));
    }

    #[test]
    fn ideal_signatures_tell_statements_apart_too() {
        let (one, key, value) = (keys(1), Key::Founded, Value::Share(Share(5)));
        let made = statement(&one, &key, &value);
        let signature = Ideal.sign(&made);
        assert!(Ideal.verify(&made, &signature));
        assert!(!Ideal.verify(&Statement { version: 5, ..made }, &signature));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", keys(1)).len(), "Ed25519(01234567)".len());
    }
}
