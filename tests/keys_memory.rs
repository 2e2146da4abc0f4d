//! What a million keys cost one node. In a process of its own, so that what the process grows by is theirs.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant as Clock};

use aquifer::protocol::keyed::{KEYS_MAX_DEFAULT, KeyHash, Keys, Taken};
use aquifer::protocol::limit::{Limit, Rate};
use aquifer::protocol::share::ONE;
use aquifer::protocol::time::Instant;

/// Kibibytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has VmRSS");
    line.trim().trim_end_matches("kB").trim().parse().expect("it is a number")
}

/// How long `acquire` takes for each of the keys: on average, and at most. Each must be admitted.
fn time(keys: &mut Keys, at: Instant, names: impl Iterator<Item = usize>) -> (f64, Duration) {
    let (mut longest, mut count) = (Duration::ZERO, 0_u32);
    let mut spent = Duration::ZERO;
    for name in names {
        let key = KeyHash::of("pool", &format!("user-{name}"));
        let begin = Clock::now();
        assert_eq!(keys.acquire(key, &[1, 100], at), Taken::Admitted);
        let took = begin.elapsed();
        (spent, longest, count) = (spent + took, longest.max(took), count + 1);
    }
    (spent.as_nanos() as f64 / f64::from(count), longest)
}

#[test]
fn a_million_active_keys_of_two_limits_take_less_than_400_mib() {
    let limit = |name: &str, amount| Limit {
        name: name.to_owned(),
        unit: name.to_owned(),
        rate: Rate::new(amount, Duration::from_secs(60), amount).expect("the numbers are in bounds"),
    };
    let now = Instant::ZERO;
    let before = resident();
    let mut keys = Keys::new(vec![limit("requests", 500), limit("tokens", 80_000)], KEYS_MAX_DEFAULT, now);
    keys.start_full(ONE, now);

    let (new, new_longest) = time(&mut keys, now, 0..KEYS_MAX_DEFAULT);
    // A stride that shares no factor with the number of keys visits all, in an order that no cache foresees.
    let scattered = (0..KEYS_MAX_DEFAULT).map(|step| step * 611_953 % KEYS_MAX_DEFAULT);
    let (known, known_longest) = time(&mut keys, now + Duration::from_millis(1), scattered);
    let grown = resident() - before;

    println!(
        "{grown} KiB for {} keys; acquire, with reading the clock twice: new {new:.0} ns (longest {new_longest:?}), \
         known {known:.0} ns (longest {known_longest:?})",
        keys.len(),
    );
    assert_eq!(keys.len(), KEYS_MAX_DEFAULT, "a key was forgotten that is not full");
    assert!(grown < 400 * 1024, "{grown} KiB");
    assert!(keys.bytes() < 400 << 20, "{} bytes allocated", keys.bytes());
    assert_eq!(keys.acquire(KeyHash::of("pool", "stranger"), &[1, 1], now), Taken::Full);
}
