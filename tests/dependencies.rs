//! Minimum safe versions of what parses bytes from the network. The advisory database has no entries for several of
//! these (libp2p publishes its advisories elsewhere), so that a check against it alone stays green on vulnerable ones.

/// Package, least safe version, why.
const LEAST: &[(&str, [u64; 3], &str)] = &[
    ("libp2p", [0, 57, 1], "older ones link yamux 0.12, whose remote panics have no fix"),
    ("libp2p-pnet", [0, 27, 0], "older ones print the swarm key in debug output"),
    ("yamux", [0, 13, 10], "GHSA-vxx9-2994-q338, GHSA-4w32-2493-32g7, GHSA-3999-5ffv-wp2r"),
    ("snow", [0, 9, 5], "RUSTSEC-2024-0011"),
    ("hickory-proto", [0, 26, 1], "RUSTSEC-2026-0118, RUSTSEC-2026-0119"),
    ("tracing-subscriber", [0, 3, 20], "RUSTSEC-2025-0055"),
    ("hyper", [1, 0, 0], "request smuggling in 0.14 and before"),
];

fn locked() -> Vec<(String, [u64; 3])> {
    let lock = include_str!("../Cargo.lock");
    let value = |line: &str, key: &str| {
        line.strip_prefix(key).and_then(|rest| rest.strip_suffix('"')).map(ToOwned::to_owned)
    };
    let lines: Vec<&str> = lock.lines().collect();
    lines
        .windows(2)
        .filter_map(|pair| Some((value(pair[0], "name = \"")?, value(pair[1], "version = \"")?)))
        .map(|(name, version)| {
            let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
            (name, std::array::from_fn(|_| numbers.next().unwrap_or(0)))
        })
        .collect()
}

#[test]
fn everything_that_parses_network_bytes_is_new_enough() {
    let locked = locked();
    assert!(locked.len() > 100, "the lock file was not understood");
    for (name, least, why) in LEAST {
        for (_, version) in locked.iter().filter(|(locked, _)| locked == name) {
            assert!(version >= least, "{name} {version:?} is older than {least:?}: {why}");
        }
    }
}
