//! Where nodes listen and are reached: multiaddrs over TCP.

use std::net::SocketAddr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::problem::{ConfigError, Set};

/// An address to listen at: `/ip4/0.0.0.0/tcp/4160`. Port 0 takes any.
pub(super) fn listening(text: &Set<String>) -> Result<Multiaddr, ConfigError> {
    let address = parse(text)?;
    match address.iter().collect::<Vec<_>>()[..] {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)] => Ok(address),
        _ => Err(text.place.error(format!(
            "is {:?}, must be an IP address and a TCP port, such as \"/ip4/0.0.0.0/tcp/4160\"",
            text.value
        ))),
    }
}

/// An address to dial: `/dns4/agents.internal/tcp/4160`, with or without `/p2p/…` after it.
pub(super) fn dialled(text: &Set<String>) -> Result<Multiaddr, ConfigError> {
    let address = parse(text)?;
    let parts = address.iter().collect::<Vec<_>>();
    let ([host, Protocol::Tcp(port)] | [host, Protocol::Tcp(port), Protocol::P2p(_)]) = &parts[..] else {
        return Err(not_dialled(text));
    };
    match host {
        Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)
            if *port != 0 =>
        {
            Ok(address)
        }
        _ => Err(not_dialled(text)),
    }
}

fn not_dialled(text: &Set<String>) -> ConfigError {
    let value = &text.value;
    text.place
        .error(format!("is {value:?}, must be a host and a TCP port, such as \"/ip4/10.0.0.11/tcp/4160\""))
}

fn parse(text: &Set<String>) -> Result<Multiaddr, ConfigError> {
    text.value.parse().map_err(|_| {
        let meant = from_host_and_port(&text.value);
        let meant = meant.unwrap_or_else(|| "/ip4/10.0.0.11/tcp/4160".to_owned());
        text.place.error(format!("{:?} is not a multiaddr; write one such as {meant:?}", text.value))
    })
}

/// What `10.0.0.11:4160` and `agents.internal:4160` are as multiaddrs.
fn from_host_and_port(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        let kind = if address.is_ipv4() { "ip4" } else { "ip6" };
        return Some(format!("/{kind}/{}/tcp/{}", address.ip(), address.port()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let plain = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    plain.then(|| format!("/dns4/{host}/tcp/{port}"))
}
