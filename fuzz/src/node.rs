//! A node hears messages: any bytes at all, or such as a lying member could say.

use aquifer::wire::{decode_message, encode_message};
use arbitrary::Unstructured;

use super::bound::Bound;
use super::statements;
use super::swarm::Fuzzed;

/// What a node of a few limits and members holds, whatever it hears: pages of at most some thousand values.
const NODE: Bound = Bound(64, 512 << 10);
/// Messages of one run.
const MESSAGES_MAX: usize = 24;

/// Messages as bytes, each behind two bytes of length and one of time that passes, in hundredths of a second.
pub fn raw(bytes: &[u8]) {
    NODE.of(bytes.len(), || {
        let mut fuzzed = Fuzzed::member();
        let mut rest = bytes;
        for _ in 0..MESSAGES_MAX {
            let Some(([high, low, time], after)) = rest.split_first_chunk() else { break };
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
            let (body, after) = after.split_at(length);
            rest = after;
            if let Ok(message) = decode_message(body) {
                fuzzed.hear(message);
            }
            fuzzed.pass(u64::from(*time) * 10);
        }
    });
}

/// Messages made of the bytes: well formed, signed by whoever is named as the author or not, from the mouth of the peer.
pub fn structured(bytes: &[u8]) {
    NODE.of(16 * bytes.len(), || {
        let mut fuzzed = Fuzzed::member();
        let mut source = Unstructured::new(bytes);
        for _ in 0..MESSAGES_MAX {
            if source.is_empty() || fuzzed.closed {
                break;
            }
            let Ok(message) = statements::message(&mut source, fuzzed.said.as_ref()) else { break };
            if encode_message(&message).is_ok() {
                fuzzed.hear(message);
            }
            match source.arbitrary::<u8>().unwrap_or(0) {
                asked @ 0..8 => fuzzed.ask(u64::from(asked) + 1),
                time => fuzzed.pass(u64::from(time) * 10),
            }
        }
    });
}
