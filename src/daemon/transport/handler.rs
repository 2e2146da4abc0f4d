//! One connection: our stream to write on, the peer's stream to read from.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, FullyNegotiatedInbound,
    FullyNegotiatedOutbound, SubstreamProtocol,
};
use libp2p::swarm::{Stream, StreamProtocol};
use tokio::time::{Instant, Sleep};

use super::counters::Tally;
use super::frame::Decoder;
use super::mailbox::Mailbox;

/// What both sides must speak.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/aquifer/gossip/1");
/// How long a stream may take to be accepted.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a write may make no progress. A lost waker or a peer that stopped reading looks the same.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Frames are joined into writes of about this many bytes.
const BATCH: usize = 32 * 1024;
/// Bytes that one read takes.
const CHUNK: usize = 8 * 1024;
/// A write buffer above this size is given back when the link falls idle.
const IDLE_BUFFER: usize = 1024;

/// What a connection tells the behaviour.
#[derive(Debug)]
pub(super) enum Report {
    /// Frames that arrived, in order. Never empty.
    Frames(Vec<Vec<u8>>),
    /// The connection is of no more use and must be closed. Said once, and last.
    Broken(Broken),
}

/// Why a connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The peer broke the framing, or opened a second stream.
    Malformed,
    /// The peer read nothing for too long.
    Stalled,
    /// The peer does not speak our protocol, or a stream ended.
    Ended,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Handler {
    tally: Arc<Tally>,
    mailbox: Arc<Mailbox>,
    outbound: Outbound,
    /// Encoded frames; those before `written` are gone.
    buffer: Vec<u8>,
    written: usize,
    flushing: bool,
    stall: Option<Pin<Box<Sleep>>>,
    inbound: Option<Stream>,
    decoder: Decoder,
    broken: Option<Broken>,
    reported: bool,
}

#[derive(Debug)]
enum Outbound {
    Unopened,
    Opening,
    Open(Stream),
}

impl Handler {
    pub(super) fn new(mailbox: Arc<Mailbox>, tally: Arc<Tally>) -> Self {
        Handler {
            tally,
            mailbox,
            outbound: Outbound::Unopened,
            buffer: Vec::new(),
            written: 0,
            flushing: false,
            stall: None,
            inbound: None,
            decoder: Decoder::default(),
            broken: None,
            reported: false,
        }
    }

    /// Writes what waits. Ready only with the reason why that cannot go on.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let Outbound::Open(stream) = &mut self.outbound else { return Poll::Pending };
        let mut stream = Pin::new(stream);
        let mut progress = false;
        loop {
            if self.written == self.buffer.len() {
                self.buffer.clear();
                self.written = 0;
                if self.mailbox.poll_take(cx, &mut self.buffer, BATCH).is_pending() {
                    break;
                }
                self.flushing = true;
            }
            match stream.as_mut().poll_write(cx, &self.buffer[self.written..]) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Broken::Ended),
                Poll::Ready(Ok(n)) => {
                    self.written += n;
                    progress = true;
                }
                Poll::Pending => return self.poll_stall(cx, progress),
            }
        }
        if self.flushing {
            match stream.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flushing = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Broken::Ended),
                Poll::Pending => return self.poll_stall(cx, progress),
            }
        }
        self.stall = None;
        if self.buffer.capacity() > IDLE_BUFFER {
            self.buffer = Vec::new();
        }
        Poll::Pending
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>, progress: bool) -> Poll<Broken> {
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_TIMEOUT)));
        if progress {
            stall.as_mut().reset(Instant::now() + STALL_TIMEOUT);
        }
        stall.as_mut().poll(cx).map(|()| Broken::Stalled)
    }

    /// Reads until a frame is complete.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Vec<u8>>, Broken>> {
        let Some(stream) = &mut self.inbound else { return Poll::Pending };
        let mut chunk = [0; CHUNK];
        loop {
            let n = match ready!(Pin::new(&mut *stream).poll_read(cx, &mut chunk)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Broken::Ended)),
                Ok(n) => n,
            };
            let mut frames = Vec::new();
            if self.decoder.feed(&chunk[..n], &mut frames).is_err() {
                return Poll::Ready(Err(Broken::Malformed));
            }
            if !frames.is_empty() {
                self.tally.frames_in.add(frames.len());
                self.tally.bytes_in.add(frames.iter().map(Vec::len).sum());
                return Poll::Ready(Ok(frames));
            }
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Report;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if matches!(self.outbound, Outbound::Unopened) {
            self.outbound = Outbound::Opening;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        if self.broken.is_none()
            && let Poll::Ready(broken) = self.poll_write(cx)
        {
            self.broken = Some(broken);
        }
        if self.broken.is_none()
            && let Poll::Ready(read) = self.poll_read(cx)
        {
            match read {
                Ok(frames) => {
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Report::Frames(frames)));
                }
                Err(broken) => self.broken = Some(broken),
            }
        }
        match self.broken {
            Some(broken) if !self.reported => {
                self.reported = true;
                Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Report::Broken(broken)))
            }
            _ => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                if self.inbound.is_some() {
                    self.broken.get_or_insert(Broken::Malformed);
                } else {
                    self.inbound = Some(protocol);
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                self.outbound = Outbound::Open(protocol);
                self.mailbox.set_ready();
            }
            ConnectionEvent::DialUpgradeError(_) => {
                self.broken.get_or_insert(Broken::Ended);
            }
            _ => {}
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
