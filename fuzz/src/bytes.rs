//! Decoders of bytes from peers and from people, alone.

use aquifer::daemon::token::Token;
use aquifer::daemon::transport::FRAME_MAX;
use aquifer::daemon::transport::frame::{Decoder, HEADER, encode};
use aquifer::wire::{decode_message, encode_message};

use super::bound::{Bound, DECODER};

/// Frames of a stream that arrives in pieces; the first byte says how long those are. What comes out is what went in.
pub fn frame(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let mut frames = Vec::new();
    let read = DECODER.of(stream.len(), || {
        let mut decoder = Decoder::default();
        stream.chunks(usize::from(*cut).max(1)).try_for_each(|piece| decoder.feed(piece, &mut frames))
    });
    let mut again = Vec::new();
    for frame in &frames {
        assert!((1..=FRAME_MAX).contains(&frame.len()));
        encode(frame, &mut again);
    }
    assert!(stream.starts_with(&again), "frames are not what came");
    if read.is_ok() {
        // What was not cut off is a frame that has not come whole.
        let rest = &stream[again.len()..];
        let length = rest.first_chunk::<HEADER>().map(|header| u32::from_be_bytes(*header) as usize);
        assert!(length.is_none_or(|length| rest.len() < HEADER + length), "a whole frame was held back");
    }
}

/// Numbers take up to eight times as much memory as in a message, and small values as much as great ones; how many values
/// there may be is bounded.
pub const MESSAGE: Bound = Bound(16, 128 << 10);

/// A message. Whatever is understood can be said again, and means the same.
pub fn message(bytes: &[u8]) {
    let Ok(message) = MESSAGE.of(bytes.len(), || decode_message(bytes)) else { return };
    // Numbers may have been written with more bytes than they take, never with fewer.
    let again = encode_message(&message).expect("what came as a message fits one");
    assert!(again.len() <= bytes.len());
    assert_eq!(decode_message(&again).expect("what was just written is well formed"), message);
}

/// A join token.
pub fn token(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(token) = DECODER.of(bytes.len(), || text.parse::<Token>()) {
        let again = token.to_string().parse::<Token>().expect("what was just written is well formed");
        assert!(again.swarm_key == token.swarm_key && again.founder == token.founder);
    }
}
