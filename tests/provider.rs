//! Real daemons in front of a provider that counts truly, with and without somebody who spends behind their backs.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use aquifer::daemon::api::{Explanation, LimitStatus};
use aquifer::protocol::limit::Rate;
use process::{Daemon, Load, Setup, monotonic, never_over, wait_until};
use tempfile::TempDir;

const LIMIT: &str = "calls";

/// A provider with a bucket of its own, filled by the clock: what it says remains is the truth.
struct Provider {
    rate: Rate,
    level: Mutex<(f64, u64, Instant)>,
}

impl Provider {
    fn new(rate: Rate) -> Self {
        Self { rate, level: Mutex::new((rate.burst() as f64, 0, Instant::now())) }
    }

    /// A call of one unit: whether it was let through, and how many remain.
    fn call(&self) -> (bool, u64) {
        let (level, calls, filled) = &mut *self.level.lock().unwrap();
        let now = Instant::now();
        let refill = self.rate.per_second() * now.duration_since(*filled).as_secs_f64();
        *level = (*level + refill).min(self.rate.burst() as f64);
        *filled = now;
        let passes = *level >= 1.0;
        if passes {
            *level -= 1.0;
            *calls += 1;
        }
        (passes, *level as u64)
    }

    fn calls(&self) -> u64 {
        self.level.lock().unwrap().1
    }
}

fn swarm(dir: &TempDir, pool: &str) -> [Daemon; 3] {
    let start = |name: &str, token: Option<&str>| {
        let setup = Setup::new(dir.path(), name, &[pool]);
        token.into_iter().fold(setup, Setup::join).start()
    };
    let one = start("one", None);
    let token = one.token();
    let nodes = [one, start("two", Some(&token)), start("three", Some(&token))];
    for node in &nodes {
        wait_until("all are linked", || node.status().peers_connected == 2);
        wait_until("it has a share", || node.status().node.base_share > 0.0);
    }
    nodes
}

/// An honest caller asks for a permit, makes the call, and says how it ended and what the provider says is left. A call that
/// was refused used nothing, and its caller stays away for a moment.
fn honest_call(node: &Daemon, provider: &Provider) {
    let mut http = node.http();
    let answer = http.post("/v1/acquire", r#"{"pool":"api","wait_ms":1000}"#).acquired();
    let Some(permit) = answer.permit else { return };
    let (passed, remaining) = provider.call();
    let verb = if passed { "commit" } else { "release" };
    assert_eq!(http.post(&format!("/v1/permits/{permit}/{verb}"), "").status, 200);
    let rate = provider.rate;
    let said = format!(
        r#"{{"pool":"api","outcome":"{}","limit":"{LIMIT}","remaining":{remaining},"limit_value":{}}}"#,
        if passed { "ok" } else { "error" },
        rate.amount()
    );
    assert_eq!(http.post("/v1/observe", &said).status, 204);
    if !passed {
        thread::sleep(Duration::from_millis(300));
    }
}

fn limit(node: &Daemon) -> LimitStatus {
    node.status().pools.swap_remove(0).limits.swap_remove(0)
}

/// What each node believes is used behind their backs.
fn believed(nodes: &[Daemon]) -> Vec<f64> {
    nodes.iter().map(|node| limit(node).unreported_share).collect()
}

fn held(nodes: &[Daemon]) -> f64 {
    nodes.iter().map(|node| limit(node).held_share).sum()
}

/// Calls from every node, each `pause` after the last, and where there is one a spender who reports nothing, with its own
/// pause; until `done`. Gives back the greatest share that was ever believed to be used unreported.
fn run(
    nodes: &[Daemon],
    provider: &Provider,
    (pause, spends): (Duration, Option<Duration>),
    mut done: impl FnMut(&[f64]) -> bool,
) -> f64 {
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
    thread::scope(|scope| {
        for node in nodes {
            scope.spawn(move || {
                while !is_over() {
                    honest_call(node, provider);
                    thread::sleep(pause);
                }
            });
        }
        if let Some(every) = spends {
            scope.spawn(move || {
                while !is_over() {
                    provider.call();
                    thread::sleep(every);
                }
            });
        }
        let mut most = 0.0_f64;
        let start = Instant::now();
        loop {
            let believed = believed(nodes);
            most = believed.iter().copied().fold(most, f64::max);
            if done(&believed) {
                break;
            }
            if start.elapsed() > Duration::from_secs(90) {
                over.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("waited in vain; believed {believed:?}");
            }
            thread::sleep(Duration::from_millis(200));
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        most
    })
}

/// Units per second that all nodes admit while they are asked for more, of which nothing is given back; from when what
/// they had in store is spent.
fn admitted_per_second(nodes: &[Daemon]) -> f64 {
    let from = monotonic() + 3_000_000_000;
    let load = Load::start(nodes.iter().map(Daemon::socket).collect(), "api", 8, |_, _| true);
    thread::sleep(Duration::from_secs(9));
    load.finish();
    let mut all: Vec<_> = nodes.iter().flat_map(Daemon::admissions).collect();
    all.retain(|one| one.limit == LIMIT && one.nanos >= from);
    all.sort();
    let (first, last) = (all[0].nanos, all[all.len() - 1].nanos);
    (all.len() - 1) as f64 / (last - first) as f64 * 1e9
}

#[test]
fn a_silent_spender_is_seen_shown_and_made_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let rate = Rate::new(20, Duration::from_secs(1), 100).unwrap();
    let nodes = swarm(&dir, "api:calls=20/1s,burst=100");
    let provider = Provider::new(rate);
    // The nodes would take all of the 20 a second, and the spender twice as many.
    let pace = (Duration::from_millis(10), Some(Duration::from_millis(25)));
    run(&nodes, &provider, pace, |believed| believed.iter().all(|share| *share > 0.15));
    let least = believed(&nodes).into_iter().fold(1.0, f64::min);
    wait_until("as much is held by nobody", || held(&nodes) <= 1.0 - 0.9 * least);
    for node in &nodes {
        let why: Explanation = node.get("/v1/explain/api");
        let words = why.words.join("\n");
        assert!(words.contains("nobody reports") && why.limits[0].unreported_share > 0.0, "{words}");
        let status = node.cli(&["status"]).1;
        assert!(status.contains("unreported use of api"), "{status}");
    }
    let admitted = admitted_per_second(&nodes);
    assert!(admitted < 0.95 * 20.0, "{admitted} a second");
}

#[test]
fn an_honest_swarm_is_never_lowered() {
    let dir = tempfile::tempdir().unwrap();
    // Its bucket is a little larger than the swarm's, for calls that come late.
    let rate = Rate::new(20, Duration::from_secs(1), 106).unwrap();
    let nodes = swarm(&dir, "api:calls=20/1s,burst=100");
    let provider = Provider::new(rate);
    let mut looks = 0;
    let start = Instant::now();
    let most = run(&nodes, &provider, (Duration::from_millis(10), None), |_| {
        looks += 1;
        start.elapsed() > Duration::from_secs(25)
    });
    assert!(most <= 0.0, "a false flag in {looks} looks: {most}");
    let setups: Vec<&Setup> = nodes.iter().map(|node| &node.setup).collect();
    let all = process::admissions(setups);
    assert_eq!(
        all.iter().map(|one| one.units).sum::<u64>(),
        provider.calls(),
        "the provider refused nothing"
    );
    never_over(&all, LIMIT, &rate).unwrap();
}

#[test]
fn a_window_that_somebody_else_uses_is_made_smaller_and_grows_back() {
    let dir = tempfile::tempdir().unwrap();
    let pool = "[[pool]]\nname = \"api\"\n[[pool.limit]]\nname = \"calls\"\nkind = \"window\"\namount = 1000\n\
                per = \"10s\"\n";
    let one = Setup::new(dir.path(), "one", &[]).config(pool).start();
    let two = Setup::new(dir.path(), "two", &[]).config(pool).join(&one.token()).start();
    let nodes = [one, two];
    wait_until("both are linked", || nodes.iter().all(|node| node.status().peers_connected == 1));
    wait_until("both have a share", || nodes.iter().all(|node| node.status().node.base_share > 0.0));
    let say = |remaining: u64| {
        let said = format!(r#"{{"pool":"api","limit":"{LIMIT}","remaining":{remaining}}}"#);
        for node in &nodes {
            assert_eq!(node.http().post("/v1/observe", &said).status, 204);
        }
    };
    // Nobody here uses anything, and yet half of it is gone, by the word of the provider.
    wait_until("both believe it", || {
        say(500);
        believed(&nodes).iter().all(|share| *share > 0.2)
    });
    assert!(believed(&nodes).iter().all(|share| *share <= 0.5), "never more than is gone");
    wait_until("so much is held by nobody", || held(&nodes) < 0.81);
    // A single lie to the contrary, more than the limit, raises nothing.
    say(1_000_000);
    wait_until("it is given back", || {
        say(1_000);
        believed(&nodes).iter().all(|share| *share == 0.0)
    });
    wait_until("all of it is held again", || held(&nodes) > 0.999);
    assert!(held(&nodes) <= 1.0 + 1e-9);
}
