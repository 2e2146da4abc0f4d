//! The protocol stack under the streams: TCP, the swarm key, Noise, Yamux.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{PeerId, Transport as _, noise, tcp, yamux};
use rustix::net::{AddressFamily, SocketType, sockopt};
use thiserror::Error;

use super::refused::RefusedWhy;

/// Mixed into the handshake, so that another version of the protocol fails there and cleanly.
const PROLOGUE: &[u8] = b"aquifer/1";
/// How long a TCP connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the peer may take to send its first bytes; less than the whole, so that silence has a name.
const NONCE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long TCP connection and handshake may take together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged. Also bounds how long closing a dead connection takes.
const UNACKNOWLEDGED_MAX_MS: u32 = 10_000;
/// Streams that one connection may have. We need two; every one more can hold 256 KiB of unread bytes.
const STREAMS_MAX: usize = 16;
/// Connections that the kernel keeps for us before we accept them.
const BACKLOG: u32 = 128;

/// Composes the stack.
#[expect(clippy::redundant_closure_for_method_calls, reason = "libp2p does not export its Either")]
pub(super) fn build(
    keypair: &Keypair,
    swarm_key: [u8; 32],
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let private = PnetConfig::new(PreSharedKey::new(swarm_key));
    let noise = noise::Config::new(keypair)?.with_prologue(PROLOGUE.to_vec());
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_MAX);

    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true).listen_backlog(BACKLOG));
    let stack = TransportTimeout::with_outgoing_timeout(tcp, CONNECT_TIMEOUT)
        .map_err(|_| Fault(Stage::Connect))
        .and_then(move |socket: tcp::tokio::TcpStream, _| async move {
            limit_silence(&socket);
            match tokio::time::timeout(NONCE_TIMEOUT, private.handshake(socket)).await {
                Ok(Ok(output)) => Ok(output),
                Ok(Err(_)) | Err(_) => Err(Fault(Stage::Nonce)),
            }
        })
        .map_err(|either| either.into_inner())
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux)
        .timeout(HANDSHAKE_TIMEOUT)
        .boxed();
    Ok(stack)
}

/// How far a connection came before it failed.
pub(super) fn why(error: &io::Error) -> RefusedWhy {
    let mut cause: Option<&(dyn Error + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(error) = cause {
        match error.downcast_ref::<Stage>() {
            Some(Stage::Connect) => return RefusedWhy::Unreachable,
            Some(Stage::Nonce) => return RefusedWhy::Silent,
            None => cause = error.source(),
        }
    }
    RefusedWhy::Handshake
}

/// Fails when another socket listens on `address`.
///
/// libp2p listens with `SO_REUSEPORT`, with which the kernel lets two processes of one user share a port and
/// deals connections out between them; without it the second one is told.
pub(super) fn probe(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    Ok(())
}

/// TCP alone would resend into a silent cut for a quarter of an hour.
fn limit_silence(socket: &tcp::tokio::TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = sockopt::set_tcp_user_timeout(&socket.0, UNACKNOWLEDGED_MAX_MS) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT was not set");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, UNACKNOWLEDGED_MAX_MS);
}

/// An error of the lower layers. Its source is the stage: combinators show sources, never the error itself.
#[derive(Clone, Copy, Debug, Error)]
#[error("the connection failed")]
struct Fault(#[source] Stage);

#[derive(Clone, Copy, Debug, Error)]
enum Stage {
    #[error("no TCP connection")]
    Connect,
    #[error("no bytes from the peer")]
    Nonce,
}
