//! How it is spelled: values to bytes and back, bounded.
//!
//! An envelope is one version byte and a body in bincode (its standard configuration: varints, little endian). The
//! format belongs to this module: bincode is no longer developed, and nothing else depends on it.

pub mod signing;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::protocol::message::Message;
use crate::protocol::node::Saved;

/// The most bytes of one message.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// The most bytes of a saved state: 1,024 members that all gave to one another a few times.
pub const SAVED_MAX: usize = 16 * 1024 * 1024;

/// Room that is made at once for what is encoded: most messages fit.
const USUAL: usize = 256;

/// The version of messages that this program speaks. Version 1 named the author of every delta.
pub const MESSAGE_VERSION: u8 = 6;
/// The version of saved states that this program reads and writes.
pub const SAVED_VERSION: u8 = 4;

/// Bytes that are not what they should be. Nothing was taken from them.
#[derive(Debug, Error)]
pub enum WireError {
    /// More bytes than allowed.
    #[error("{0} bytes are more than the allowed {1}")]
    TooLong(usize, usize),
    /// No bytes at all.
    #[error("it is empty")]
    Empty,
    /// Another version, perhaps of a newer program.
    #[error("it has version {0}, this program speaks version {1}")]
    Version(u8, u8),
    /// The body is not what the version says.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// Something follows the body.
    #[error("{0} bytes too many follow it")]
    Trailing(usize),
}

/// A message as bytes.
///
/// # Errors
/// If it would be longer than [`MESSAGE_MAX`].
pub fn encode_message(message: &Message) -> Result<Vec<u8>, WireError> {
    encode::<_, MESSAGE_MAX>(message, MESSAGE_VERSION)
}

/// A message from bytes; allocates no more than a small multiple of them.
///
/// # Errors
/// Bytes that are not exactly one message of this version.
pub fn decode_message(bytes: &[u8]) -> Result<Message, WireError> {
    decode::<_, MESSAGE_MAX>(bytes, MESSAGE_VERSION)
}

/// A saved state as bytes.
///
/// # Errors
/// If it would be longer than [`SAVED_MAX`].
pub fn encode_saved(saved: &Saved) -> Result<Vec<u8>, WireError> {
    encode::<_, SAVED_MAX>(saved, SAVED_VERSION)
}

/// A saved state from bytes.
///
/// # Errors
/// Bytes that are not exactly one saved state of this version.
pub fn decode_saved(bytes: &[u8]) -> Result<Saved, WireError> {
    // bincode makes room for a text before its bytes are there, as long as the limit allows: that of a small state is low.
    match bytes.len() {
        length if length <= SMALL => decode::<_, { SMALL * WIDEST }>(bytes, SAVED_VERSION),
        length if length <= MIDDLING => decode::<_, { MIDDLING * WIDEST }>(bytes, SAVED_VERSION),
        length if length <= LARGE => decode::<_, { LARGE * WIDEST }>(bytes, SAVED_VERSION),
        length if length <= SAVED_MAX => decode::<_, { SAVED_MAX * WIDEST }>(bytes, SAVED_VERSION),
        length => Err(WireError::TooLong(length, SAVED_MAX)),
    }
}

/// What a number of one byte may count against bincode's limit: as much as the widest of its type, a `u128`.
const WIDEST: usize = 16;
/// Saved states of up to so many bytes are small, …
const SMALL: usize = 4 * 1024;
/// … of up to so many middling, …
const MIDDLING: usize = 64 * 1024;
/// … and of up to so many large.
const LARGE: usize = 1024 * 1024;

const fn config<const MAX: usize>() -> Configuration<LittleEndian, Varint, Limit<MAX>> {
    bincode::config::standard().with_limit::<MAX>()
}

fn encode<T: Serialize, const MAX: usize>(value: &T, version: u8) -> Result<Vec<u8>, WireError> {
    let mut bytes = Bytes(Vec::with_capacity(USUAL));
    bytes.0.push(version);
    bincode::serde::encode_into_writer(value, &mut bytes, config::<MAX>())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    let Bytes(bytes) = bytes;
    if bytes.len() > MAX {
        return Err(WireError::TooLong(bytes.len(), MAX));
    }
    Ok(bytes)
}

/// Bytes in the making. Ids and signatures come byte by byte, which is slow through [`std::io::Write`].
struct Bytes(Vec<u8>);

impl Writer for Bytes {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        match bytes {
            [byte] => self.0.push(*byte),
            bytes => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }
}

fn decode<T: DeserializeOwned, const MAX: usize>(bytes: &[u8], version: u8) -> Result<T, WireError> {
    if bytes.len() > MAX {
        return Err(WireError::TooLong(bytes.len(), MAX));
    }
    let (theirs, body) = bytes.split_first().ok_or(WireError::Empty)?;
    if *theirs != version {
        return Err(WireError::Version(*theirs, version));
    }
    let (value, used) = bincode::serde::decode_from_slice(body, config::<MAX>())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    if used < body.len() {
        return Err(WireError::Trailing(body.len() - used));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::gossip::{Entry, News, Record};
    use crate::protocol::id::{Incarnation, LedgerId, NodeId};
    use crate::protocol::ledger::{Gift, GiftLevels};
    use crate::protocol::limit::Fingerprint;
    use crate::protocol::message::Digest;
    use crate::protocol::record::{Key, Value};
    use crate::protocol::share::{ONE, Share};
    use crate::protocol::signature::Statement;
    use crate::protocol::time::Instant;

    fn message() -> Message {
        Message {
            incarnation: Incarnation(7),
            ledger: Some(LedgerId(NodeId([3; 32]))),
            join: true,
            clock: Instant::from_nanos(1 << 40),
            wall: None,
            echo: None,
            silence_ms: 1_000,
            digest: Digest::Hash(9),
            version: 5,
            news: None,
            deltas: Vec::new(),
            grants: Vec::new(),
            returns: Vec::new(),
        }
    }

    #[test]
    fn messages_and_states_come_back_as_they_were() {
        let bytes = encode_message(&message()).unwrap();
        assert_eq!(decode_message(&bytes).unwrap(), message());
        let node = NodeId([3; 32]);
        let reached_at = [(node, vec!["/ip4/10.0.0.1/tcp/4160".to_owned()])].into();
        let (key, value) = (Key::Founded, Value::Share(ONE));
        let statement = Statement {
            ledger: LedgerId(node),
            author: node,
            incarnation: Incarnation(7),
            version: 1,
            key: &key,
            value: &value,
        };
        let record = Record::sign(&statement, &signing::Ideal);
        let saved = Saved {
            id: LedgerId(node),
            records: vec![(node, record)],
            reached_at,
            clean: false,
            missing: Vec::new(),
            forfeits: false,
        };
        assert_eq!(decode_saved(&encode_saved(&saved).unwrap()).unwrap(), saved);
    }

    #[test]
    fn states_of_all_sizes_come_back() {
        // Whoever gives in ever smaller steps writes many small numbers.
        let gift = |place: u64| {
            let mut node = [0; 32];
            node[..8].copy_from_slice(&place.to_le_bytes());
            let (author, key) = (NodeId(node), Key::Given(NodeId(node)));
            let atoms = vec![(Fingerprint(1), 1); 8];
            let levels = Some(GiftLevels { from: Incarnation(1), to: Incarnation(1), atoms });
            let value = Value::Gift(Gift { share: Share(1), levels, weight: 0 });
            let (ledger, incarnation) = (LedgerId(author), Incarnation(1));
            let statement = Statement { ledger, author, incarnation, version: 1, key: &key, value: &value };
            (author, Record::sign(&statement, &signing::Ideal))
        };
        for count in [1, 20, 300, 400, 1_200, 8_000] {
            let id = LedgerId(NodeId([3; 32]));
            let records = (0..count).map(gift).collect();
            let (reached_at, missing) = (BTreeMap::new(), Vec::new());
            let saved = Saved { id, records, reached_at, clean: false, missing, forfeits: false };
            let bytes = encode_saved(&saved).unwrap();
            assert_eq!(decode_saved(&bytes).unwrap(), saved, "{} bytes", bytes.len());
        }
    }

    #[test]
    fn golden_bytes_pin_the_format() {
        let bytes = encode_message(&message()).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let author = "03".repeat(32);
        assert_eq!(hex, format!("060701{author}01fd00000000000100000000fbe80301090500000000"));
    }

    #[test]
    fn each_kind_of_bad_bytes_is_named() {
        let good = encode_message(&message()).unwrap();
        assert!(matches!(decode_message(&[]), Err(WireError::Empty)));
        assert!(matches!(decode_message(&[9, 0]), Err(WireError::Version(9, MESSAGE_VERSION))));
        assert!(matches!(decode_message(&good[..good.len() - 1]), Err(WireError::Malformed(_))));
        assert!(matches!(decode_message(&[&good[..], &[0]].concat()), Err(WireError::Trailing(1))));
        assert!(matches!(decode_message(&vec![1; MESSAGE_MAX + 1]), Err(WireError::TooLong(..))));
    }

    /// The length of a list comes before its items, and says nothing of the bytes that follow.
    #[test]
    fn lists_take_memory_as_their_items_come() {
        let good = encode_message(&message()).unwrap();
        // Behind everything else: news, deltas, grants, returns.
        let (head, lists) = good.split_at(good.len() - 4);
        assert_eq!(lists, [0; 4]);
        let longest = [&[0xfb, 0xff, 0xff][..], &[0xfb, 96, 0], &[0xfb, 0, 1], &[200]];
        for length in longest {
            for tail in [&[0, 0][..], &[0], &[]] {
                let news = [&[1, 0, 9], length].concat();
                for said in
                    [[&[0], length, tail].concat(), [&news[..], tail].concat(), [tail, length].concat()]
                {
                    let bytes = [head, &said[..]].concat();
                    let mut decoded = None;
                    let held =
                        allocation_counter::measure(|| decoded = Some(decode_message(&bytes))).bytes_max;
                    assert!(decoded.unwrap().is_err() && held < 8 * 1024, "{held} bytes for {said:?}");
                }
            }
        }
    }

    #[test]
    fn texts_longer_than_the_state_take_no_memory() {
        // A member that was reached at one address, which says that it is 16 MB long.
        let length = [0xfc, 0, 0, 0xf0, 0];
        let bytes = [&[SAVED_VERSION][..], &[3; 32], &[0, 1], &[4; 32], &[1], &length, b"/ip4"].concat();
        let mut decoded = None;
        let held = allocation_counter::measure(|| decoded = Some(decode_saved(&bytes))).bytes_max;
        assert!(decoded.unwrap().is_err() && held < 8 * 1024, "{held} bytes");
    }

    #[test]
    fn lists_longer_than_any_honest_one_are_refused() {
        let entry = |version| Entry { key: Key::Founded, version, value: Value::Share(ONE), signature: None };
        let with = |count: u64| {
            let news = News { since: 0, upto: count, entries: (1..=count).map(entry).collect() };
            encode_message(&Message { news: Some(news), ..message() }).unwrap()
        };
        assert!(decode_message(&with(220)).is_ok());
        assert!(matches!(decode_message(&with(221)), Err(WireError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in any::<usize>()) {
            let _ = decode_message(&bytes);
            let _ = decode_saved(&bytes);
            let mut good = encode_message(&message()).unwrap();
            let place = cut % good.len();
            good[place] ^= bytes.first().copied().unwrap_or(1);
            let _ = decode_message(&good);
        }
    }
}
