//! The bounded queue of frames in front of one connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::counters::Tally;
use super::frame::{self, HEADER};

/// The most frames that wait for one connection.
pub(super) const FRAMES_MAX: usize = 64;
/// The most bytes that wait for one connection.
pub(super) const BYTES_MAX: usize = 256 * 1024;

/// Frames on their way from the daemon to one connection's task. When it is full the oldest go first: gossip
/// says the same again, newer.
#[derive(Debug)]
pub(super) struct Mailbox {
    tally: Arc<Tally>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    ready: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        Mailbox { tally, inner: Mutex::default() }
    }

    /// Puts a frame in. Frames that find no room, or that it pushes out, are counted as dropped.
    pub(super) fn push(&self, frame: Vec<u8>) {
        let mut inner = self.lock();
        if inner.closed {
            self.tally.dropped_frames.add(1);
            return;
        }
        while inner.frames.len() >= FRAMES_MAX || inner.bytes + frame.len() > BYTES_MAX {
            let Some(oldest) = inner.frames.pop_front() else { break };
            inner.bytes -= oldest.len();
            self.tally.dropped_frames.add(1);
        }
        inner.bytes += frame.len();
        inner.frames.push_back(frame);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the peer has accepted our stream.
    pub(super) fn is_ready(&self) -> bool {
        self.lock().ready
    }

    /// Says that the peer has accepted our stream.
    pub(super) fn set_ready(&self) {
        self.lock().ready = true;
    }

    /// Moves frames into `out`, encoded, until it holds `limit` bytes or more; pending while there is none.
    pub(super) fn poll_take(&self, cx: &Context<'_>, out: &mut Vec<u8>, limit: usize) -> Poll<()> {
        let mut inner = self.lock();
        if inner.frames.is_empty() {
            if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                inner.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        out.reserve(limit.min(inner.bytes + inner.frames.len() * HEADER));
        while out.len() < limit {
            let Some(frame) = inner.frames.pop_front() else { break };
            inner.bytes -= frame.len();
            frame::encode(&frame, out);
            self.tally.frames_out.add(1);
            self.tally.bytes_out.add(frame.len());
        }
        Poll::Ready(())
    }

    /// Drops what waits and everything that comes later.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        self.tally.dropped_frames.add(inner.frames.len());
        *inner = Inner { closed: true, ..Inner::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FRAME_MAX;
    use super::*;

    fn take(mailbox: &Mailbox, limit: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let cx = Context::from_waker(Waker::noop());
        mailbox.poll_take(&cx, &mut out, limit).is_ready().then_some(out)
    }

    #[test]
    fn the_oldest_frames_make_room() {
        let tally = Arc::new(Tally::default());
        let mailbox = Mailbox::new(Arc::clone(&tally));
        for n in 0..=FRAMES_MAX as u8 {
            mailbox.push(vec![n]);
        }
        assert_eq!(tally.counters().dropped_frames, 1);
        assert_eq!(take(&mailbox, 1), Some(vec![0, 0, 0, 1, 1]));
        for _ in 0..BYTES_MAX / FRAME_MAX {
            mailbox.push(vec![0; FRAME_MAX]);
        }
        assert_eq!(tally.counters().dropped_frames, FRAMES_MAX as u64);
        let left = take(&mailbox, usize::MAX).map(|out| out.len());
        assert_eq!(left, Some(BYTES_MAX / FRAME_MAX * (FRAME_MAX + HEADER)));
        assert_eq!(take(&mailbox, usize::MAX), None);
    }

    #[test]
    fn what_waits_at_the_end_is_counted_as_dropped() {
        let tally = Arc::new(Tally::default());
        let mailbox = Mailbox::new(Arc::clone(&tally));
        mailbox.push(vec![1]);
        mailbox.close();
        mailbox.push(vec![2]);
        assert_eq!(tally.counters().dropped_frames, 2);
        assert_eq!(take(&mailbox, 1), None);
    }
}
