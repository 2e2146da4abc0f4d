//! The transport over real sockets of the loopback interface.
#![cfg(feature = "daemon")]

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use aquifer::daemon::transport::{
    Counters, Event, FRAME_MAX, RefusedWhy, Transport, TransportConfig, TransportError, node_id, peer_id,
};
use aquifer::protocol::id::NodeId;
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{Multiaddr, Transport as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No test measures speed; this only ends the ones that hang.
const PATIENCE: Duration = Duration::from_secs(60);
const KEY: [u8; 32] = [7; 32];

fn config(seeds: &[Multiaddr]) -> TransportConfig {
    TransportConfig {
        keypair: Keypair::generate_ed25519(),
        swarm_key: KEY,
        listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
        seeds: seeds.to_vec(),
        mdns: false,
        max_peers: 8,
    }
}

fn id(config: &TransportConfig) -> NodeId {
    node_id(&config.keypair.public()).unwrap()
}

async fn start(config: &TransportConfig) -> Transport {
    Transport::start(config.clone()).await.unwrap()
}

fn address(transport: &Transport) -> Multiaddr {
    transport.addresses().remove(0)
}

fn socket(address: &Multiaddr) -> SocketAddr {
    let mut parts = address.iter();
    let (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else {
        panic!("{address} is no socket address")
    };
    (ip, port).into()
}

/// A port that is free now, for nodes that must know each other's before they start.
fn free_address() -> Multiaddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap()
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes too long")
}

/// Polls both until `done` has seen what it waits for.
async fn drive(a: &mut Transport, b: &mut Transport, mut done: impl FnMut(Side, &Event) -> bool) {
    patiently(async {
        loop {
            let (side, event) = tokio::select! {
                event = a.next() => (Side::A, event),
                event = b.next() => (Side::B, event),
            };
            if done(side, &event) {
                return;
            }
        }
    })
    .await;
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    A,
    B,
}

/// Polls both until each has said that the other is up.
async fn until_up(a: &mut Transport, b: &mut Transport) {
    let mut up = BTreeSet::new();
    drive(a, b, |side, event| {
        if matches!(event, Event::Up { .. }) {
            up.insert(side);
        }
        up.len() == 2
    })
    .await;
}

async fn drive_for(a: &mut Transport, b: &mut Transport, time: Duration) {
    let _ = tokio::time::timeout(time, drive(a, b, |_, _| false)).await;
}

async fn linked() -> (Transport, NodeId, Transport, NodeId) {
    let a_config = config(&[]);
    let mut a = start(&a_config).await;
    let b_config = config(&[address(&a)]);
    let mut b = start(&b_config).await;
    until_up(&mut a, &mut b).await;
    (a, id(&a_config), b, id(&b_config))
}

/// One frame each way.
async fn exchange(a: &mut Transport, a_id: NodeId, b: &mut Transport, b_id: NodeId) {
    a.send(b_id, b"from a".to_vec());
    b.send(a_id, b"from b".to_vec());
    let mut left = BTreeSet::from([Side::A, Side::B]);
    drive(a, b, |side, event| {
        if let Event::Frame { from, bytes } = event {
            let expected = match side {
                Side::A => (b_id, &b"from b"[..]),
                Side::B => (a_id, &b"from a"[..]),
            };
            if (*from, &bytes[..]) == expected {
                left.remove(&side);
            }
        }
        left.is_empty()
    })
    .await;
}

#[tokio::test]
async fn frames_go_both_ways() {
    let (mut a, a_id, mut b, b_id) = linked().await;
    exchange(&mut a, a_id, &mut b, b_id).await;
    let (links, counters) = (a.links(), a.counters());
    assert_eq!(links.len(), 1);
    assert_eq!((links[0].peer, links[0].connections), (b_id, 1));
    assert_eq!((counters.frames_in, counters.frames_out, counters.bytes_in), (1, 1, 6));
}

#[tokio::test]
async fn ten_thousand_frames_of_all_sizes_arrive_in_order() {
    const FRAMES: usize = 10_000;
    let size = |n: usize| match n % 100 {
        0 => FRAME_MAX,
        k if k < 10 => 4_000 + k * 111,
        k => 1 + k * 3,
    };
    let frame = |n: usize| (0..size(n)).map(|at| (n + at) as u8).collect::<Vec<u8>>();
    let (mut a, _, mut b, b_id) = linked().await;
    let (mut sent, mut got) = (0, 0);
    patiently(async {
        while got < FRAMES {
            while sent < FRAMES && sent < got + 4 {
                a.send(b_id, frame(sent));
                sent += 1;
            }
            tokio::select! {
                _ = a.next() => {}
                event = b.next() => if let Event::Frame { bytes, .. } = event {
                    assert!(bytes == frame(got), "frame {got} is damaged");
                    got += 1;
                }
            }
        }
    })
    .await;
    assert_eq!(a.counters().dropped_frames, 0);
    assert_eq!(b.counters().frames_in, FRAMES as u64);
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_a_mailbox_and_no_more() {
    let (mut a, _, mut b, b_id) = linked().await;
    for _ in 0..1000 {
        a.send(b_id, vec![1; 10_000]);
    }
    let dropped = a.counters().dropped_frames;
    assert!(dropped >= 1000 - 256 * 1024 / 10_000, "{dropped}");
    let mut got = 0;
    drive(&mut a, &mut b, |_, event| {
        got += u64::from(matches!(event, Event::Frame { .. }));
        got == 1000 - dropped
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_never_reads_is_given_up() {
    let (mut a, _, b, b_id) = linked().await;
    let frames = async {
        loop {
            // Unread, `b` takes no more once the buffers in between are full.
            a.send(b_id, vec![1; FRAME_MAX]);
            let event = tokio::time::timeout(Duration::from_millis(5), a.next()).await;
            if matches!(event, Ok(Event::Down { .. })) {
                return;
            }
        }
    };
    patiently(frames).await;
    assert_eq!(a.counters().stalled, 1);
    drop(b);
}

#[tokio::test]
async fn frames_that_are_too_long_or_empty_or_for_nobody_are_not_sent() {
    let (mut a, a_id, mut b, b_id) = linked().await;
    a.send(b_id, vec![0; FRAME_MAX + 1]);
    a.send(b_id, Vec::new());
    a.send(NodeId([9; 32]), vec![0]);
    exchange(&mut a, a_id, &mut b, b_id).await;
    assert_eq!(a.counters().dropped_frames, 3);
    assert_eq!(b.counters().frames_in, 1);
}

#[tokio::test]
async fn crossed_dials_leave_one_link() {
    for _ in 0..3 {
        let (at_a, at_b) = (free_address(), free_address());
        let a_config = TransportConfig { listen: at_a.clone(), ..config(std::slice::from_ref(&at_b)) };
        let b_config = TransportConfig { listen: at_b, ..config(&[at_a]) };
        let (mut a, mut b) = (start(&a_config).await, start(&b_config).await);
        until_up(&mut a, &mut b).await;
        let mut down = false;
        let watch = drive(&mut a, &mut b, |_, event| {
            down |= matches!(event, Event::Down { .. });
            false
        });
        let _ = tokio::time::timeout(Duration::from_secs(4), watch).await;
        assert!(!down);
        for transport in [&a, &b] {
            assert_eq!(transport.links().iter().map(|link| link.connections).collect::<Vec<_>>(), [1]);
        }
        exchange(&mut a, id(&a_config), &mut b, id(&b_config)).await;
    }
}

#[tokio::test]
async fn another_swarm_key_is_refused_and_said_so() {
    let mut a = start(&config(&[])).await;
    let mut b = start(&TransportConfig { swarm_key: [8; 32], ..config(&[address(&a)]) }).await;
    let at_a = address(&a);
    let mut said = BTreeSet::new();
    drive(&mut a, &mut b, |side, event| {
        assert!(!matches!(event, Event::Up { .. }));
        if let Event::Refused { address: Some(address), why: RefusedWhy::Handshake } = event {
            assert!(side == Side::A || *address == at_a);
            said.insert(side);
        }
        said.len() == 2
    })
    .await;
    assert!(RefusedWhy::Handshake.to_string().contains("swarm key"));
}

#[tokio::test]
async fn strangers_do_not_disturb_a_link() {
    let (mut a, a_id, mut b, b_id) = linked().await;
    let target = socket(&address(&a));
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(target).await.unwrap());
    }
    let mut garbage = Vec::new();
    for n in 0..40_u32 {
        let mut stream = TcpStream::connect(target).await.unwrap();
        let noise: Vec<u8> =
            (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> (n % 24)) as u8).collect();
        let _ = stream.write_all(&noise).await;
        garbage.push(stream);
    }
    exchange(&mut a, a_id, &mut b, b_id).await;
    let hung_up = tokio::spawn(async move {
        for mut stream in silent.into_iter().chain(garbage) {
            let mut sink = Vec::new();
            let _ = stream.read_to_end(&mut sink).await;
        }
    });
    patiently(async {
        while !hung_up.is_finished() {
            drive_for(&mut a, &mut b, Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(a.counters().rejected >= 80, "{:?}", a.counters());
    exchange(&mut a, a_id, &mut b, b_id).await;
    assert_eq!(a.links().len(), 1);
}

#[tokio::test]
async fn a_restarted_node_is_dialled_again() {
    let at_a = free_address();
    let a_config = TransportConfig { listen: at_a.clone(), ..config(&[]) };
    let b_config = config(&[at_a]);
    let (mut a, mut b) = (start(&a_config).await, start(&b_config).await);
    let (a_id, b_id) = (id(&a_config), id(&b_config));
    until_up(&mut a, &mut b).await;
    for _ in 0..2 {
        drop(a);
        patiently(async { while !matches!(b.next().await, Event::Down { peer } if peer == a_id) {} }).await;
        assert!(b.links().is_empty());
        a = start(&a_config).await;
        until_up(&mut a, &mut b).await;
        exchange(&mut a, a_id, &mut b, b_id).await;
    }
}

#[tokio::test]
async fn learned_peers_are_dialled_and_forgotten_ones_are_not() {
    let (a_config, b_config) = (config(&[]), config(&[]));
    let (mut a, mut b) = (start(&a_config).await, start(&b_config).await);
    let (a_id, b_id) = (id(&a_config), id(&b_config));
    a.learn(b_id, vec![address(&b)]);
    b.learn(a_id, vec![address(&a)]);
    until_up(&mut a, &mut b).await;
    exchange(&mut a, a_id, &mut b, b_id).await;

    a.close(b_id);
    assert_eq!(a.next().await, Event::Down { peer: b_id });
    until_up(&mut a, &mut b).await;
    exchange(&mut a, a_id, &mut b, b_id).await;

    a.forget(b_id);
    b.forget(a_id);
    drive_for(&mut a, &mut b, Duration::from_secs(4)).await;
    assert!(a.links().is_empty() && b.links().is_empty());
}

#[tokio::test]
async fn an_own_address_among_the_seeds_is_harmless() {
    let at = free_address();
    let other = start(&config(&[])).await;
    let mut seeds = vec![at.clone(), address(&other)];
    seeds.push(at.clone().with(Protocol::P2p(peer_id(NodeId([3; 32])))));
    let mut transport = start(&TransportConfig { listen: at, ..config(&seeds) }).await;
    let mut other = other;
    let (mut said, mut up) = (false, false);
    drive(&mut transport, &mut other, |side, event| {
        said |= matches!(event, Event::Refused { why: RefusedWhy::Own, .. });
        up |= side == Side::A && matches!(event, Event::Up { .. });
        up && said
    })
    .await;
    drive_for(&mut transport, &mut other, Duration::from_secs(1)).await;
    let failed = transport.counters().failed_dials;
    drive_for(&mut transport, &mut other, Duration::from_secs(3)).await;
    assert_eq!(transport.counters().failed_dials, failed, "it is dialled again");
    assert_eq!(transport.links().len(), 1);
}

#[tokio::test]
async fn an_address_in_use_has_a_name() {
    let first = start(&config(&[])).await;
    let taken = TransportConfig { listen: address(&first), ..config(&[]) };
    let error = Transport::start(taken).await.err().unwrap();
    assert!(matches!(&error, TransportError::InUse(at) if *at == address(&first)), "{error}");
    assert!(error.to_string().contains(&address(&first).to_string()));
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    let bad_listen = TransportConfig { listen: "/ip4/127.0.0.1/udp/1".parse().unwrap(), ..config(&[]) };
    assert!(matches!(Transport::start(bad_listen).await, Err(TransportError::ListenForm(_))));
    let bad_seed = config(&["/ip4/127.0.0.1/udp/1".parse().unwrap()]);
    assert!(matches!(Transport::start(bad_seed).await, Err(TransportError::Seed(_))));
    let elsewhere = TransportConfig { listen: "/ip4/192.0.2.1/tcp/1".parse().unwrap(), ..config(&[]) };
    assert!(matches!(Transport::start(elsewhere).await, Err(TransportError::Listen { .. })));
}

#[tokio::test]
async fn unspecified_addresses_are_expanded_and_names_are_looked_up() {
    let a_config = TransportConfig { listen: "/ip4/0.0.0.0/tcp/0".parse().unwrap(), ..config(&[]) };
    let mut a = start(&a_config).await;
    let loopback = patiently(async {
        loop {
            if let Some(at) = a.addresses().into_iter().find(|at| at.to_string().contains("/127.0.0.1/")) {
                return at;
            }
            a.next().await;
        }
    })
    .await;
    let port = socket(&loopback).port();
    let mut b = start(&config(&[format!("/dns4/localhost/tcp/{port}").parse().unwrap()])).await;
    until_up(&mut a, &mut b).await;
}

/// A member by its keys that keeps to no protocol above Yamux.
struct Hostile {
    muxer: StreamMuxerBox,
}

impl Hostile {
    async fn dial(at: Multiaddr) -> Self {
        let private = PnetConfig::new(PreSharedKey::new(KEY));
        let noise = libp2p::noise::Config::new(&Keypair::generate_ed25519()).unwrap();
        let mut stack = libp2p::tcp::tokio::Transport::new(libp2p::tcp::Config::new())
            .and_then(move |socket, _| private.handshake(socket))
            .upgrade(libp2p::core::upgrade::Version::V1Lazy)
            .authenticate(noise.with_prologue(b"aquifer/1".to_vec()))
            .multiplex(libp2p::yamux::Config::default())
            .boxed();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let (_, muxer) = patiently(stack.dial(at, opts).unwrap()).await.unwrap();
        Hostile { muxer }
    }

    /// Opens a stream as if the other side had accepted the protocol, and says `bytes` on it.
    async fn open(&mut self, bytes: &[u8]) -> SubstreamBox {
        let mut stream = patiently(poll_fn(|cx| self.muxer.poll_outbound_unpin(cx))).await.unwrap();
        let mut said = b"\x13/multistream/1.0.0\n\x12/aquifer/gossip/1\n".to_vec();
        said.extend_from_slice(bytes);
        // The connection may end meanwhile, which is what is hoped for.
        let _ = futures::AsyncWriteExt::write_all(&mut stream, &said).await;
        stream
    }

    /// Keeps the connection running until the other side ends it.
    async fn until_closed(mut self, _streams: Vec<SubstreamBox>) {
        patiently(poll_fn(|cx| {
            while let Poll::Ready(stream) = self.muxer.poll_inbound_unpin(cx) {
                if stream.is_err() {
                    return Poll::Ready(());
                }
            }
            self.muxer.poll_unpin(cx).map(|_| ())
        }))
        .await;
    }
}

/// Runs `attack` against a node that has an honest link, and returns the node's counters.
async fn attacked<F: Future<Output = ()>>(attack: impl FnOnce(Multiaddr) -> F) -> Counters {
    let (mut a, a_id, mut b, b_id) = linked().await;
    let attack = Box::pin(attack(address(&a)));
    tokio::select! {
        () = attack => {}
        () = drive(&mut a, &mut b, |side, event| matches!((side, event), (Side::B, Event::Down { .. }))) => {
            panic!("the honest link went down");
        }
    }
    exchange(&mut a, a_id, &mut b, b_id).await;
    assert_eq!(a.links().len(), 1);
    a.counters()
}

#[tokio::test]
async fn members_that_break_the_framing_are_hung_up_on() {
    for length in [0, FRAME_MAX as u32 + 1, u32::MAX] {
        let counters = attacked(async |at| {
            let mut hostile = Hostile::dial(at).await;
            let stream = hostile.open(&length.to_be_bytes()).await;
            hostile.until_closed(vec![stream]).await;
        })
        .await;
        assert_eq!(counters.malformed, 1);
        assert_eq!(counters.frames_in, 1);
    }
}

#[tokio::test]
async fn members_that_open_a_second_stream_are_hung_up_on() {
    let counters = attacked(async |at| {
        let mut hostile = Hostile::dial(at).await;
        let first = hostile.open(&[0, 0, 0, 9, 1]).await;
        let second = hostile.open(&[]).await;
        hostile.until_closed(vec![first, second]).await;
    })
    .await;
    assert_eq!(counters.malformed, 1);
    assert_eq!(counters.frames_in, 1);
}

#[tokio::test]
async fn members_that_do_not_accept_our_stream_are_hung_up_on() {
    attacked(async |at| Hostile::dial(at).await.until_closed(Vec::new()).await).await;
}
