//! How long a caller may keep the daemon waiting: a stream that ends with an error when it is over.
//!
//! A caller that says nothing, says it byte by byte, or does not take its answers costs a connection and at most what is
//! buffered for it, and for so long at most. The wait for an admission is no part of it: whoever is being answered has all
//! the time that it asked for. One timer serves all deadlines; it is set anew only when it went off too early or would go
//! off too late, so that a request costs no timer.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::daemon::engine::Binding;

/// The first byte must come within this.
const SILENCE: Duration = Duration::from_secs(20);
/// The rest of a request's head must follow its first byte within this.
const HEAD: Duration = Duration::from_secs(10);
/// An answer that cannot be written because its caller does not read must be taken within this.
const STALL: Duration = Duration::from_secs(10);
/// A connection on which no request has been answered for this long is closed, unless a permit is bound to it: its holder
/// need not say anything.
const IDLE: Duration = Duration::from_secs(300);

/// What is known of a connection's conversation.
pub struct Conversation {
    stage: Cell<Stage>,
    /// Requests that are being answered; pipelined ones come one after the other.
    answering: Cell<usize>,
    /// Since when an answer cannot be written.
    stalled: Cell<Option<Instant>>,
    written: Notify,
    timed_out: Cell<bool>,
    binding: Binding,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Nothing was ever said.
    Silent(Instant),
    /// A part of a request's head has come.
    Head(Instant),
    /// The daemon's turn.
    Answering,
    /// All that was asked is answered.
    Idle(Instant),
}

impl Conversation {
    /// It begins now; the permits of `binding` keep it alive.
    pub fn new(binding: Binding) -> Self {
        let stage = Cell::new(Stage::Silent(Instant::now()));
        Self {
            stage,
            answering: Cell::new(0),
            stalled: Cell::new(None),
            written: Notify::new(),
            timed_out: Cell::new(false),
            binding,
        }
    }

    /// Whether it ended because patience did.
    pub fn timed_out(&self) -> bool {
        self.timed_out.get()
    }

    /// A request has come and is answered until the value is dropped; not before the answers before it could be written,
    /// or they would pile up for a caller that asks on and on and never reads.
    pub async fn answering(self: &Rc<Self>) -> Answering {
        self.answering.set(self.answering.get() + 1);
        self.stage.set(Stage::Answering);
        let answering = Answering(self.clone());
        while self.stalled.get().is_some() {
            self.written.notified().await;
        }
        answering
    }

    /// A part of a request is there.
    pub fn heard(&self) {
        if let Stage::Silent(_) | Stage::Idle(_) = self.stage.get() {
            self.stage.set(Stage::Head(Instant::now()));
        }
    }

    fn stalls(&self, stalls: bool) {
        let before = self.stalled.get();
        self.stalled.set(stalls.then(|| before.unwrap_or_else(Instant::now)));
        if before.is_some() && !stalls {
            self.written.notify_one();
        }
    }

    /// When patience ends as things stand.
    fn deadline(&self) -> Option<Instant> {
        let stalled = self.stalled.get().map(|since| since + STALL);
        let turn = match self.stage.get() {
            Stage::Silent(since) => Some(since + SILENCE),
            Stage::Head(since) => Some(since + HEAD),
            Stage::Answering => None,
            Stage::Idle(since) if self.binding.is_empty() => Some(since + IDLE),
            Stage::Idle(_) => Some(Instant::now() + IDLE),
        };
        stalled.into_iter().chain(turn).min()
    }
}

/// A request that is being answered.
pub struct Answering(Rc<Conversation>);

impl Drop for Answering {
    fn drop(&mut self) {
        let left = self.0.answering.get() - 1;
        self.0.answering.set(left);
        if left == 0 {
            self.0.stage.set(Stage::Idle(Instant::now()));
        }
    }
}

/// A caller's stream, as long as there is patience with it; then reading or writing fails with [`ErrorKind::TimedOut`].
pub struct Patient<S> {
    stream: S,
    /// What was read already, and comes first.
    unread: Vec<u8>,
    conversation: Rc<Conversation>,
    timer: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    /// A stream on which this conversation is held.
    pub fn new(stream: S, conversation: Rc<Conversation>) -> Self {
        let first = conversation.deadline().unwrap_or_else(Instant::now);
        Self { stream, unread: Vec::new(), conversation, timer: Box::pin(sleep_until(first)) }
    }

    /// Has this read once more, before what comes.
    pub fn unread(&mut self, bytes: Vec<u8>) {
        self.unread = bytes;
    }

    /// Pending as long as there is patience. Its task is woken when that may have ended.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let Some(deadline) = self.conversation.deadline() else { return Poll::Pending };
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if deadline <= Instant::now() {
                self.conversation.timed_out.set(true);
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    fn wrote(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.conversation.stalls(wrote.is_pending());
        if wrote.is_pending() { self.wait(cx) } else { wrote }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread[..length]);
            self.unread.drain(..length);
            self.conversation.heard();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() {
            return self.wait(cx);
        }
        if buffer.filled().len() > before {
            self.conversation.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
