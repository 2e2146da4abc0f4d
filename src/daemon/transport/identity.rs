//! Node ids and libp2p peer ids: two spellings of one Ed25519 public key.

use libp2p::PeerId;
use libp2p::identity::PublicKey;
use libp2p::multihash::Multihash;

use crate::protocol::id::NodeId;

/// The protobuf envelope of an Ed25519 public key: type 1, then 32 bytes.
const ENVELOPE: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
/// The multihash code of an id that is the key itself and not its digest.
const IDENTITY: u64 = 0;

/// The node id of a public key; `None` unless the key is an Ed25519 key.
pub fn node_id(key: &PublicKey) -> Option<NodeId> {
    key.clone().try_into_ed25519().ok().map(|key| NodeId(key.to_bytes()))
}

/// The peer id of a node: the inverse of [`node_id`]. Whether the bytes are a point of the curve is not
/// checked here; nobody can prove to own an id that is none.
#[expect(clippy::missing_panics_doc, reason = "36 bytes always fit into an identity multihash")]
pub fn peer_id(node: NodeId) -> PeerId {
    let mut key = [0; 36];
    key[..4].copy_from_slice(&ENVELOPE);
    key[4..].copy_from_slice(&node.0);
    let hash = Multihash::wrap(IDENTITY, &key).expect("36 bytes fit into 64");
    PeerId::from_multihash(hash).expect("36 bytes are short enough to be inlined")
}

/// The node behind a peer id; `None` unless the id is an inlined Ed25519 key.
pub(super) fn node_of(peer: &PeerId) -> Option<NodeId> {
    let hash: &Multihash<64> = peer.as_ref();
    if hash.code() != IDENTITY {
        return None;
    }
    let key = hash.digest().strip_prefix(&ENVELOPE)?;
    key.try_into().ok().map(NodeId)
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn ids_convert_both_ways() {
        for _ in 0..16 {
            let key = Keypair::generate_ed25519().public();
            let node = node_id(&key).unwrap();
            assert_eq!(peer_id(node), key.to_peer_id());
            assert_eq!(node_of(&key.to_peer_id()), Some(node));
        }
    }

    #[test]
    fn other_kinds_of_peer_id_have_no_node() {
        let digest = Multihash::wrap(0x12, &[7; 32]).unwrap();
        assert_eq!(node_of(&PeerId::from_multihash(digest).unwrap()), None);
        let short = Multihash::wrap(IDENTITY, &[7; 20]).unwrap();
        assert_eq!(node_of(&PeerId::from_multihash(short).unwrap()), None);
        let mut longer = ENVELOPE.to_vec();
        longer.extend([1; 33]);
        let longer = Multihash::wrap(IDENTITY, &longer).unwrap();
        assert_eq!(node_of(&PeerId::from_multihash(longer).unwrap()), None);
    }
}
