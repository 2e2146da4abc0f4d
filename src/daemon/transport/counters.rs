//! What the transport has done since it started.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the transport has done since it started. Bytes are those of frames, without the cost of carrying them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that arrived.
    pub frames_in: u64,
    /// Bytes of the frames that arrived.
    pub bytes_in: u64,
    /// Frames that were handed to a connection. The peer need not have read them.
    pub frames_out: u64,
    /// Bytes of the frames that were handed to a connection.
    pub bytes_out: u64,
    /// Frames that were given to `send` and not sent: no link, a full mailbox, a bad length, a link that ended.
    pub dropped_frames: u64,
    /// Connections that were closed because the peer broke the protocol.
    pub malformed: u64,
    /// Connections that were closed because the peer read nothing for ten seconds.
    pub stalled: u64,
    /// Dials and name look-ups that failed.
    pub failed_dials: u64,
    /// Incoming connections that were refused: failed handshakes, limits, unusable identities.
    pub rejected: u64,
}

/// [`Counters`] as the connections' tasks count them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) frames_in: Count,
    pub(super) bytes_in: Count,
    pub(super) frames_out: Count,
    pub(super) bytes_out: Count,
    pub(super) dropped_frames: Count,
    pub(super) malformed: Count,
    pub(super) stalled: Count,
    pub(super) failed_dials: Count,
    pub(super) rejected: Count,
}

impl Tally {
    pub(super) fn counters(&self) -> Counters {
        Counters {
            frames_in: self.frames_in.get(),
            bytes_in: self.bytes_in.get(),
            frames_out: self.frames_out.get(),
            bytes_out: self.bytes_out.get(),
            dropped_frames: self.dropped_frames.get(),
            malformed: self.malformed.get(),
            stalled: self.stalled.get(),
            failed_dials: self.failed_dials.get(),
            rejected: self.rejected.get(),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
