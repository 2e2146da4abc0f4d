//! Frames on a stream: a length of four bytes, big-endian, then as many bytes.

/// The longest frame in bytes.
pub const FRAME_MAX: usize = 64 * 1024;

/// Bytes in front of every frame.
pub const HEADER: usize = 4;
/// What a body allocates before any of it has arrived.
const FIRST_ALLOCATION: usize = 4 * 1024;

/// A length that is zero or above [`FRAME_MAX`]. The stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Appends one frame to `out`. The caller has checked its length.
pub fn encode(frame: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!frame.is_empty() && frame.len() <= FRAME_MAX);
    out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    out.extend_from_slice(frame);
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER],
    have: usize,
    want: usize,
    body: Vec<u8>,
}

impl Decoder {
    /// Takes the next bytes of the stream and appends the frames that they complete to `out`.
    ///
    /// # Errors
    /// A length that no frame has.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Vec<u8>>) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            if self.have < HEADER {
                let (taken, rest) = bytes.split_at(bytes.len().min(HEADER - self.have));
                self.header[self.have..self.have + taken.len()].copy_from_slice(taken);
                self.have += taken.len();
                bytes = rest;
                if self.have == HEADER {
                    self.want = u32::from_be_bytes(self.header) as usize;
                    if self.want == 0 || self.want > FRAME_MAX {
                        return Err(Malformed);
                    }
                    let here = bytes.len().max(FIRST_ALLOCATION);
                    self.body = Vec::with_capacity(self.want.min(here));
                }
                continue;
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(self.want - self.body.len()));
            self.body.extend_from_slice(taken);
            bytes = rest;
            if self.body.len() == self.want {
                out.push(std::mem::take(&mut self.body));
                self.have = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            cuts in proptest::collection::vec(1usize..50, 1..50),
        ) {
            let mut bytes = Vec::new();
            for frame in &frames {
                encode(frame, &mut bytes);
            }
            let mut decoder = Decoder::default();
            let mut out = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                decoder.feed(now, &mut out).unwrap();
                rest = later;
            }
            prop_assert_eq!(out, frames);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut out = Vec::new();
            let _ = Decoder::default().feed(&bytes, &mut out);
            prop_assert!(out.iter().map(|frame| frame.len() + HEADER).sum::<usize>() <= bytes.len());
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_allocated() {
        for length in [0, FRAME_MAX as u32 + 1, u32::MAX] {
            let mut decoder = Decoder::default();
            assert_eq!(decoder.feed(&length.to_be_bytes(), &mut Vec::new()), Err(Malformed));
            assert_eq!(decoder.body.capacity(), 0);
        }
        let mut decoder = Decoder::default();
        decoder.feed(&(FRAME_MAX as u32).to_be_bytes(), &mut Vec::new()).unwrap();
        assert!(decoder.body.capacity() <= FIRST_ALLOCATION);
    }
}
