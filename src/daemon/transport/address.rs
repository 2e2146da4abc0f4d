//! Addresses: what seeds, hints and listeners may look like.

use std::net::{IpAddr, SocketAddr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// A seed that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seed {
    pub(super) host: Host,
    pub(super) port: u16,
    /// Who must answer there; anybody unless said.
    pub(super) peer: Option<PeerId>,
}

/// Where a seed is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    /// Looked up again in every dial round.
    Name {
        name: String,
        family: Family,
    },
}

/// Which addresses of a name count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    pub(super) fn admits(self, ip: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        }
    }
}

/// Reads `/ip4|ip6|dns|dns4|dns6/…/tcp/N`, with or without `/p2p/ID` behind it.
pub(super) fn parse_seed(address: &Multiaddr) -> Option<Seed> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => Host::Ip(ip.into()),
        Protocol::Ip6(ip) => Host::Ip(ip.into()),
        Protocol::Dns(name) => Host::Name { name: name.into(), family: Family::Any },
        Protocol::Dns4(name) => Host::Name { name: name.into(), family: Family::V4 },
        Protocol::Dns6(name) => Host::Name { name: name.into(), family: Family::V6 },
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else { return None };
    let peer = match parts.next() {
        None => None,
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(_) => return None,
    };
    let unspecified = matches!(host, Host::Ip(ip) if ip.is_unspecified() || ip.is_multicast());
    (parts.next().is_none() && port != 0 && !unspecified).then_some(Seed { host, port, peer })
}

/// A hint as it is kept: literal, dialable, without the peer's id; `None` for any other.
pub(super) fn hint(address: &Multiaddr) -> Option<Multiaddr> {
    match parse_seed(address)? {
        Seed { host: Host::Ip(ip), port, .. } => Some(from_socket(SocketAddr::new(ip, port))),
        Seed { .. } => None,
    }
}

/// Reads `/ip4|ip6/…/tcp/N`; the port may be 0 and the address unspecified.
pub(super) fn to_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else { return None };
    parts.next().is_none().then_some(SocketAddr::new(ip, port))
}

/// The inverse of [`to_socket`].
pub(super) fn from_socket(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}

/// The address without the peer's id behind it.
pub(super) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    while matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// The literal address in front, if that is what the address begins with.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(text: &str) -> Option<Seed> {
        parse_seed(&text.parse().unwrap())
    }

    #[test]
    fn seeds_are_hosts_with_a_port() {
        let peer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        assert!(seed("/ip4/10.0.0.1/tcp/4160").is_some());
        assert!(seed("/ip6/::1/tcp/4160").is_some());
        assert_eq!(seed(&format!("/dns4/a.example/tcp/1/p2p/{peer}")).unwrap().peer, peer.parse().ok());
        for bad in ["/ip4/0.0.0.0/tcp/1", "/ip4/1.2.3.4/tcp/0", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/1/ws"]
        {
            assert_eq!(seed(bad), None, "{bad}");
        }
    }

    #[test]
    fn hints_are_literal() {
        assert_eq!(hint(&"/dns/a.example/tcp/1".parse().unwrap()), None);
        let literal: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        assert_eq!(hint(&literal), Some(literal.clone()));
        assert_eq!(to_socket(&literal).map(from_socket), Some(literal));
    }
}
