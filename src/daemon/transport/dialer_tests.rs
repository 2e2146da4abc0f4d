use std::collections::BTreeSet;

use libp2p::identity::Keypair;

use super::*;

/// Who has a link, and if there is no place left, above which rank others get one.
#[derive(Default)]
struct Up(BTreeSet<PeerId>, Option<Rank>);

impl Linked for Up {
    fn is_linked(&self, peer: &PeerId) -> bool {
        self.0.contains(peer)
    }

    fn bar(&self) -> Option<Rank> {
        self.1
    }

    fn rank(&self, _: &PeerId) -> Rank {
        Rank::Stranger
    }
}

/// Ids in ascending order.
fn ids<const N: usize>() -> [PeerId; N] {
    let mut ids = [(); N].map(|()| Keypair::generate_ed25519().public().to_peer_id());
    ids.sort();
    ids
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn seed(text: &str) -> Seed {
    address::parse_seed(&address(text)).unwrap()
}

fn dial(
    dialer: &mut Dialer,
    up: &Up,
    now: Instant,
) -> Option<(ConnectionId, Option<PeerId>, Vec<Multiaddr>)> {
    match dialer.due(up, now)? {
        Action::Dial { target, peer, addresses } => {
            // Numbers need only differ; the ones of libp2p are for connections that exist.
            let id = ConnectionId::new_unchecked(dialer.dials.len() + 1);
            dialer.dialling(id, target);
            Some((id, peer, addresses))
        }
        Action::Resolve { .. } => None,
    }
}

#[test]
fn a_dead_seed_is_dialled_for_ever_and_rarely() {
    let [own] = ids();
    let start = Instant::now();
    let mut dialer = Dialer::new(own, 4, vec![seed("/ip4/10.0.0.1/tcp/1")], start);
    let up = Up::default();
    let mut now = start;
    let mut dials = 0;
    while now < start + Duration::from_secs(3600) {
        let (id, peer, _) = dial(&mut dialer, &up, now).unwrap();
        assert_eq!(peer, None);
        assert_eq!(dialer.deadline(&up), None);
        dialer.failed(id, &Failure::Failed, &up, now);
        now = dialer.deadline(&up).unwrap();
        dials += 1;
    }
    assert!((120..300).contains(&dials), "{dials}");
}

#[test]
fn the_greater_id_waits() {
    let [small, great] = ids();
    let now = Instant::now();
    let hints = vec![address("/ip4/10.0.0.1/tcp/1")];
    let up = Up::default();
    let mut dialer = Dialer::new(small, 4, Vec::new(), now);
    dialer.learn(great, hints.clone(), Origin::Gossip, now);
    assert!(dial(&mut dialer, &up, now).is_some());
    let mut dialer = Dialer::new(great, 4, Vec::new(), now);
    dialer.learn(small, hints.clone(), Origin::Gossip, now);
    assert_eq!(dialer.due(&up, now), None);
    assert!(dialer.deadline(&up).unwrap() >= now + Duration::from_secs(1));
    assert!(dial(&mut dialer, &up, now + COURTESY).is_some());
}

#[test]
fn own_addresses_are_not_dialled_again() {
    let [own, other] = ids();
    let now = Instant::now();
    let up = Up::default();
    let mut dialer = Dialer::new(own, 4, vec![seed("/ip4/10.0.0.1/tcp/1")], now);
    let (id, ..) = dial(&mut dialer, &up, now).unwrap();
    dialer.failed(id, &Failure::Own(address("/ip4/10.0.0.1/tcp/1")), &up, now);
    assert_eq!(dialer.deadline(&up), None);
    dialer.learn(other, vec![address("/ip4/10.0.0.1/tcp/1")], Origin::Gossip, now);
    assert_eq!(dialer.deadline(&up), None);
    dialer.forget_own();
    assert!(dialer.deadline(&up).is_some());
}

#[test]
fn a_wrong_peers_address_is_dropped_and_the_next_one_tried() {
    let [own, peer] = ids();
    let now = Instant::now();
    let up = Up::default();
    let mut dialer = Dialer::new(own, 4, Vec::new(), now);
    let (wrong, right) = (address("/ip4/10.0.0.1/tcp/1"), address("/ip4/10.0.0.2/tcp/1"));
    dialer.learn(peer, vec![wrong.clone(), right.clone()], Origin::Gossip, now);
    let (id, ..) = dial(&mut dialer, &up, now).unwrap();
    dialer.failed(id, &Failure::OtherPeer(wrong), &up, now);
    let (id, _, addresses) = dial(&mut dialer, &up, now).unwrap();
    assert_eq!(addresses, std::slice::from_ref(&right));
    dialer.failed(id, &Failure::OtherPeer(right), &up, now);
    assert!(dialer.peers.is_empty());
}

#[test]
fn links_end_dialling_until_they_are_lost() {
    let [own, peer] = ids();
    let now = Instant::now();
    let mut up = Up::default();
    let at = address("/ip4/10.0.0.1/tcp/1");
    let mut dialer = Dialer::new(own, 4, vec![seed("/ip4/10.0.0.1/tcp/1")], now);
    let (id, ..) = dial(&mut dialer, &up, now).unwrap();
    dialer.connected(id, peer, &at);
    up.0.insert(peer);
    assert_eq!(dialer.deadline(&up), None);
    up.0.clear();
    dialer.lost(peer, true, now);
    let again = dialer.deadline(&up).unwrap();
    assert!(again < now + Duration::from_secs(1));
    let (_, expected, _) = dial(&mut dialer, &up, again).unwrap();
    assert_eq!(expected, Some(peer));
    dialer.forget(peer, now);
}

/// Dials in vain until then: how often.
fn dials_in_vain(dialer: &mut Dialer, up: &Up, end: Instant) -> usize {
    let mut dials = 0;
    while let Some(now) = dialer.deadline(up).filter(|at| *at < end) {
        let (id, ..) = dial(dialer, up, now).unwrap();
        dialer.failed(id, &Failure::Failed, up, now);
        dials += 1;
    }
    dials
}

/// What a healed network waits for: the longest wait for a member grows with the number that is missing, not with the
/// time that they are.
#[test]
fn few_members_that_are_missing_are_looked_for_often() {
    let [own, peer] = ids();
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    let up = Up::default();
    let hints = |n: u8| vec![address(&format!("/ip4/10.0.0.{n}/tcp/1"))];
    let mut dialer = Dialer::new(own, 128, Vec::new(), start);
    dialer.learn(peer, hints(1), Origin::Gossip, start);
    dials_in_vain(&mut dialer, &up, start + minute);
    let dials = dials_in_vain(&mut dialer, &up, start + 2 * minute);
    assert!((20..=40).contains(&dials), "{dials}");

    for n in 2..=100 {
        let [peer] = ids();
        dialer.learn(peer, hints(n), Origin::Gossip, start + 2 * minute);
    }
    dials_in_vain(&mut dialer, &up, start + 4 * minute);
    let dials = dials_in_vain(&mut dialer, &up, start + 5 * minute);
    assert!((200..=400).contains(&dials), "{dials}");
}

#[test]
fn a_link_that_comes_up_gives_hope_for_those_that_failed() {
    let [own, peer] = ids();
    let start = Instant::now();
    let up = Up::default();
    let mut dialer = Dialer::new(own, 4, vec![seed("/ip4/10.0.0.1/tcp/1")], start);
    dialer.learn(peer, vec![address("/ip4/10.0.0.2/tcp/1")], Origin::Gossip, start);
    let linked = start + Duration::from_secs(300);
    let later = linked + HOPE;
    dials_in_vain(&mut dialer, &up, later);
    assert!(dialer.seeds[0].retry.at > later);
    dialer.hope(linked);
    let retries = [dialer.seeds[0].retry, dialer.peers[&peer].retry];
    assert!(retries.iter().all(|retry| retry.at <= later && retry.at >= linked));
}

#[test]
fn links_that_end_at_once_are_dialled_ever_more_rarely() {
    let [own, peer] = ids();
    let mut now = Instant::now();
    let up = Up::default();
    let at = address("/ip4/10.0.0.1/tcp/1");
    let mut dialer = Dialer::new(own, 4, vec![seed("/ip4/10.0.0.1/tcp/1")], now);
    for _ in 0..12 {
        let (id, ..) = dial(&mut dialer, &up, now).unwrap();
        dialer.connected(id, peer, &at);
        dialer.lost(peer, false, now);
        now = dialer.deadline(&up).unwrap();
    }
    let before = now;
    let (id, ..) = dial(&mut dialer, &up, now).unwrap();
    dialer.connected(id, peer, &at);
    dialer.lost(peer, false, now);
    assert!(dialer.deadline(&up).unwrap() > before + Duration::from_secs(10));
}

#[test]
fn names_are_looked_up_in_every_round() {
    let [own] = ids();
    let mut now = Instant::now();
    let up = Up::default();
    let mut dialer = Dialer::new(own, 4, vec![seed("/dns4/a.example/tcp/7")], now);
    for _ in 0..3 {
        assert!(matches!(dialer.due(&up, now), Some(Action::Resolve { seed: 0, port: 7, .. })));
        let found = ["10.0.0.1:7", "[::1]:7", "10.0.0.2:7"].map(|text| text.parse().unwrap());
        assert!(dialer.resolved(0, &found, now));
        for expected in ["/ip4/10.0.0.1/tcp/7", "/ip4/10.0.0.2/tcp/7"] {
            let (id, _, addresses) = dial(&mut dialer, &up, now).unwrap();
            assert_eq!(addresses, [address(expected)]);
            dialer.failed(id, &Failure::Failed, &up, now);
        }
        now = dialer.deadline(&up).unwrap();
    }
    assert!(!dialer.resolved(0, &[], now));
}

#[test]
fn what_is_learned_is_bounded() {
    let [own] = ids();
    let now = Instant::now();
    let mut dialer = Dialer::new(own, 4, Vec::new(), now);
    let hints: Vec<_> = (0..20).map(|n| address(&format!("/ip4/10.0.0.{n}/tcp/1"))).collect();
    for _ in 0..40 {
        let [peer] = ids();
        dialer.learn(peer, hints.clone(), Origin::Mdns, now);
    }
    assert_eq!(dialer.peers.len(), 4 * LEARNED_FACTOR / 2);
    for _ in 0..40 {
        let [peer] = ids();
        dialer.learn(peer, hints.clone(), Origin::Gossip, now);
    }
    assert_eq!(dialer.peers.len(), 4 * LEARNED_FACTOR);
    assert!(dialer.peers.values().all(|l| l.origin == Origin::Gossip && l.addresses.len() == ADDRESSES_MAX));
}

#[test]
fn mdns_does_not_bring_back_who_left() {
    let [own, peer] = ids();
    let now = Instant::now();
    let hints = vec![address("/ip4/10.0.0.1/tcp/1")];
    let mut dialer = Dialer::new(own, 4, Vec::new(), now);
    dialer.learn(peer, hints.clone(), Origin::Gossip, now);
    dialer.forget(peer, now);
    dialer.learn(peer, hints.clone(), Origin::Mdns, now);
    assert!(dialer.peers.is_empty());
    dialer.learn(peer, hints.clone(), Origin::Gossip, now);
    dialer.learn(peer, hints.clone(), Origin::Mdns, now);
    assert_eq!(dialer.peers.len(), 1);
}

#[test]
fn while_no_place_is_left_only_who_would_get_one_is_dialled() {
    let [small, great] = ids();
    let now = Instant::now();
    let mut up = Up::default();
    let mut dialer = Dialer::new(small, 4, Vec::new(), now);
    dialer.learn(great, vec![address("/ip4/10.0.0.1/tcp/1")], Origin::Gossip, now);
    up.1 = Some(Rank::Stranger);
    assert!(dial(&mut dialer, &up, now).is_none() && dialer.deadline(&up).is_none());
    up.1 = Some(Rank::Outstayed);
    assert!(dial(&mut dialer, &up, now).is_some());
    // Whoever answers at a seed may become a member.
    let mut dialer = Dialer::new(small, 4, vec![seed("/ip4/10.0.0.1/tcp/1")], now);
    up.1 = Some(Rank::Seed);
    assert!(dial(&mut dialer, &up, now).is_none());
    up.1 = Some(Rank::Stranger);
    assert!(dial(&mut dialer, &up, now).is_some());
}
