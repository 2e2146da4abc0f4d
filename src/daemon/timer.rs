//! One deadline, to the microsecond.
//!
//! Tokio's timers round up to a millisecond, which at 5,000 a second would leave four of five tokens of a small bucket
//! to overflow. A timer of the kernel does not.

use std::io;

use rustix::fd::OwnedFd;
use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::protocol::time::Instant;

/// A timer on the clock of [`Clock`](super::clock::Clock).
#[derive(Debug)]
pub struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// A timer that is not armed.
    ///
    /// # Errors
    /// If the system has no timers left.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // Its successor is unsafe for types whose descriptor can change under it; an OwnedFd's cannot.
        #[expect(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    /// Arms it for `at`, whatever it was armed for before. A moment that is over fires at once.
    ///
    /// # Errors
    /// If the system refuses; it has no reason to.
    pub fn arm(&self, at: Instant) -> io::Result<()> {
        // All zeros would disarm it.
        let nanos = i64::try_from(at.as_nanos().max(1)).unwrap_or(i64::MAX);
        let value = Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    /// Waits until it fires. Cancel-safe.
    pub async fn fired(&self) {
        loop {
            let Ok(mut ready) = self.fd.readable().await else { return };
            let mut count = [0; 8];
            match ready.try_io(|fd| read(fd.get_ref(), &mut count).map_err(Errno::into)) {
                Ok(_) => return,
                Err(_not_yet) => {}
            }
        }
    }
}
