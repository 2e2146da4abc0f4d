//! What a million keys cost one node. In a process of its own, so that what the process grows by is theirs.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant as Clock};

use aquifer::protocol::keyed::{KEYS_MAX_DEFAULT, KeyHash, Keys, Taken};
use aquifer::protocol::limit::Rate;
use aquifer::protocol::share::ONE;
use aquifer::protocol::time::Instant;

/// Kibibytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has VmRSS");
    line.trim().trim_end_matches("kB").trim().parse().expect("it is a number")
}

/// Nanoseconds that `acquire` takes for each of the keys, in order of size. Each must be admitted.
fn time(keys: &mut Keys, at: Instant, names: impl Iterator<Item = usize>, times: &mut [u32]) {
    for (name, time) in names.zip(&mut *times) {
        let key = KeyHash::of("pool", format!("user-{name}"));
        let begin = Clock::now();
        assert_eq!(keys.acquire(key, &[1, 100], at), Taken::Admitted);
        *time = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
    }
    times.sort_unstable();
}

/// The time that so many in a thousand calls do not exceed.
fn permille(times: &[u32], permille: usize) -> u32 {
    times[(times.len() - 1) * permille / 1_000]
}

#[test]
fn a_million_active_keys_of_two_limits_take_less_than_400_mib() {
    let rate =
        |amount| Rate::new(amount, Duration::from_secs(60), amount).expect("the numbers are in bounds");
    let now = Instant::ZERO;
    // Touched before anything is measured.
    let mut times = [vec![1; KEYS_MAX_DEFAULT], vec![1; KEYS_MAX_DEFAULT]];
    let before = resident();
    let mut keys = Keys::new(vec![rate(500), rate(80_000)], KEYS_MAX_DEFAULT, now);
    keys.start_full(ONE, now);

    time(&mut keys, now, 0..KEYS_MAX_DEFAULT, &mut times[0]);
    // A stride that shares no factor with the number of keys visits all, in an order that no cache foresees.
    let scattered = (0..KEYS_MAX_DEFAULT).map(|step| step * 611_953 % KEYS_MAX_DEFAULT);
    time(&mut keys, now + Duration::from_millis(1), scattered, &mut times[1]);
    let grown = resident() - before;

    println!("{grown} KiB for {} keys", keys.len());
    for (what, times) in ["new", "known"].iter().zip(&times) {
        let [half, most, nearly] = [500, 990, 999].map(|part| permille(times, part));
        println!("{what} keys: acquire with reading the clock {half} ns, p99 {most} ns, p99.9 {nearly} ns");
    }
    assert_eq!(keys.len(), KEYS_MAX_DEFAULT, "a key was forgotten that is not full");
    assert!(grown < 400 * 1024, "{grown} KiB");
    assert!(keys.bytes() < 400 << 20, "{} bytes allocated", keys.bytes());
    assert_eq!(keys.acquire(KeyHash::of("pool", "stranger"), &[1, 1], now), Taken::Full);
}
