//! Connections that did not come about, and how often that is worth saying.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use thiserror::Error;

use super::address;

/// Why a connection did not come about. Shown as text, it says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum RefusedWhy {
    /// No TCP connection.
    #[error("no connection: nobody listens there, or a firewall is in between; it is tried again")]
    Unreachable,
    /// The name of a seed has no address.
    #[error("the name does not resolve: check the seed's name and DNS; it is tried again")]
    Unresolved,
    /// A TCP connection, and then nothing.
    #[error("no handshake: not an Aquifer node, or one that is busy or full")]
    Silent,
    /// The handshake was garbage to one of the two.
    #[error("handshake failed: most likely another swarm key; compare it on both machines")]
    Handshake,
    /// The address is our own.
    #[error("the address is this node's own; it is not dialled again")]
    Own,
    /// Another node than the expected one answered.
    #[error("another node answers there: correct the /p2p/ part of the seed, or leave it out")]
    OtherPeer,
    /// The peer's identity is not an Ed25519 key.
    #[error("the peer's identity is not an Ed25519 key: only those can be members")]
    Identity,
    /// As many peers are connected as may be.
    #[error("too many peers, and none with less base share than this one: let fewer nodes connect here")]
    Full,
    /// The peer has two connections already.
    #[error("the peer has two connections already; the older one is closed")]
    Surplus,
    /// Too many handshakes at once.
    #[error("too many handshakes at once; peers try again by themselves")]
    Busy,
}

/// How long the same refusal of the same address stays unsaid.
const SAME_AGAIN: Duration = Duration::from_secs(60);
/// How many different refusals are said in that time.
const REMEMBERED_MAX: usize = 32;

/// Lets each refusal through once a minute, and 32 different ones in a minute.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    said: HashMap<(Whence, RefusedWhy), Instant>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Whence {
    /// Whatever the port: an incoming connection has another one each time.
    From(Option<IpAddr>),
    To(Option<Multiaddr>),
}

impl Throttle {
    /// Whether to say that an incoming connection was refused.
    pub(super) fn incoming(&mut self, from: &Multiaddr, why: RefusedWhy, now: Instant) -> bool {
        self.admit(Whence::From(address::ip_of(from)), why, now)
    }

    /// Whether to say that a dial failed.
    pub(super) fn outgoing(&mut self, to: Option<&Multiaddr>, why: RefusedWhy, now: Instant) -> bool {
        self.admit(Whence::To(to.cloned()), why, now)
    }

    fn admit(&mut self, whence: Whence, why: RefusedWhy, now: Instant) -> bool {
        if self.said.len() >= REMEMBERED_MAX {
            self.said.retain(|_, said| now < *said + SAME_AGAIN);
        }
        let key = (whence, why);
        let known = self.said.get(&key);
        if known.is_some_and(|said| now < *said + SAME_AGAIN)
            || (known.is_none() && self.said.len() >= REMEMBERED_MAX)
        {
            return false;
        }
        self.said.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_said_once_a_minute() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        let said = |throttle: &mut Throttle, port: u16, now| {
            let from = format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap();
            throttle.incoming(&from, RefusedWhy::Handshake, now)
        };
        assert!(said(&mut throttle, 1, start));
        assert!((2..1000).all(|port| !said(&mut throttle, port, start)));
        assert!(said(&mut throttle, 1, start + SAME_AGAIN));
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        let said = (0..10_000u32).filter(|n| {
            let from = address::from_socket((IpAddr::from(n.to_be_bytes()), 1).into());
            throttle.incoming(&from, RefusedWhy::Silent, start)
        });
        assert_eq!(said.count(), REMEMBERED_MAX);
        assert_eq!(throttle.said.len(), REMEMBERED_MAX);
    }
}
