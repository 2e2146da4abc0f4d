//! A hash of all that happens in a run.

use super::agenda::Event;
use crate::time::Nanos;

/// FNV-1a over 64-bit words: a few nanoseconds for each event; it need not withstand anybody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn hash(self) -> u64 {
        self.0
    }

    pub(super) fn event(&mut self, now: Nanos, event: &Event) {
        let kind = match event {
            Event::Deliver { .. } => 1,
            Event::Timer { .. } => 2,
            Event::Up(_) => 3,
            Event::Down(_) => 4,
            Event::Dial { .. } => 5,
            Event::Start(_) => 6,
            Event::Sample => 7,
            Event::Probe => 8,
            Event::Step(_) => 9,
            Event::Wall { .. } => 10,
            Event::Settle { .. } => 11,
            Event::Lie { .. } => 12,
        };
        self.fold(&[kind, now, event.node().unwrap_or(usize::MAX) as u64]);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(&[u64::from_le_bytes(word)]);
        }
        self.fold(&[bytes.len() as u64]);
    }

    pub(super) fn fold(&mut self, words: &[u64]) {
        for word in words {
            // Multiplication carries only upwards; the rotation brings high bits down again.
            self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_history_has_another_hash() {
        let hash = |histories: &[&[u8]]| {
            let mut trace = Trace::default();
            histories.iter().for_each(|bytes| trace.bytes(bytes));
            trace.hash()
        };
        assert_eq!(hash(&[b"abc", b"d"]), hash(&[b"abc", b"d"]));
        for other in [&[b"abd".as_slice(), b"d"], &[b"ab", b"cd"], &[b"d", b"abc"], &[b"abc\0", b"d"]] {
            assert_ne!(hash(&[b"abc", b"d"]), hash(other));
        }
    }
}
