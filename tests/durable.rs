//! What a node keeps outlives `kill -9`, damaged files and full disks: real daemons, in swarms and alone.
//!
//! `AQUIFER_KILLS=1000` makes the loop of kills longer; `scripts/kill-loop.sh` does it.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aquifer::protocol::limit::Rate;
use process::{Daemon, Http, Load, Setup, admissions, never_over, wait_until};
use tempfile::TempDir;

/// Comes back within a fifth of a second; and within ten minutes, which outlives a restart on disk.
const POOLS: [&str; 2] = ["fast:fast=500/1s,burst=100", "slow:slow=36_000/1h,burst=6_000"];
const COPIES: [&str; 2] = ["ledger.state", "ledger.state.copy"];

fn rates() -> [(&'static str, Rate); 2] {
    [
        ("fast", Rate::new(500, Duration::from_secs(1), 100).unwrap()),
        ("slow", Rate::new(36_000, Duration::from_secs(3_600), 6_000).unwrap()),
    ]
}

fn ask(node: &Daemon, pool: &str, units: u64) -> bool {
    node.acquire(&format!(r#"{{"pool":"{pool}","requests":{units},"wait_ms":0}}"#)).acquired().allowed
}

fn warns(node: &Daemon, what: &str) -> bool {
    node.status().warnings.iter().any(|warning| warning.contains(what))
}

fn is_one(share: f64) -> bool {
    (share - 1.0).abs() < 1e-9
}

fn is_ready(node: &Daemon) -> bool {
    node.status().node.state == "ready"
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn one_damaged_file_is_put_aside_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Setup::new(dir.path(), "n", &POOLS).start();
    let id = node.status().node.id;
    assert!(ask(&node, "slow", 3_000));
    let data = node.setup.data_dir();
    let wreck: [fn(Vec<u8>) -> Vec<u8>; 4] = [
        |_| Vec::new(),
        |bytes| bytes[..bytes.len().min(150) / 2].to_vec(),
        |mut bytes| {
            bytes[50] ^= 1;
            bytes
        },
        |bytes| vec![0; bytes.len()],
    ];
    let files = [
        "ledger.state",
        "ledger.state.copy",
        "identity.key",
        "identity.key.copy",
        "swarm.key",
        "incarnation",
    ];
    for (number, file) in files.iter().enumerate() {
        let before = node.status().node.incarnation;
        node.kill();
        let path = data.join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, wreck[number % wreck.len()](bytes)).unwrap();
        node = node.setup.clone().start();
        let now = node.status().node;
        assert!(now.id == id && now.incarnation > before && is_one(now.base_share), "{file}: {now:?}");
        assert_eq!(
            warns(&node, "is damaged"),
            file.starts_with("ledger"),
            "{file}: {:?}",
            node.status().warnings
        );
        if file.starts_with("ledger") {
            assert!(data.join(format!("{file}.corrupt-1")).exists());
        }
    }
    wait_until("its share is its own again", || is_ready(&node));
    assert!(!ask(&node, "slow", 3_500), "what was spent stays spent");
    assert!(ask(&node, "slow", 1_500), "what was left is there");
    // The next start finds nothing wrong.
    assert_eq!(node.stop(), 0);
    let node = node.setup.clone().start();
    assert_eq!(node.status().warnings, [] as [String; 0]);
}

#[test]
fn secrets_that_others_can_read_or_that_are_lost_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Setup::new(dir.path(), "n", &POOLS).start();
    assert_eq!(node.stop(), 0);
    let setup = node.setup.clone();
    for file in ["identity.key", "swarm.key"] {
        let paths = [setup.data_dir().join(file), setup.data_dir().join(format!("{file}.copy"))];
        for path in &paths {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
            let (status, said) = setup.start_in_vain();
            assert_eq!(status, 78, "{file}: {said}");
            assert!(said.contains(&path.display().to_string()) && said.contains("chmod 600"), "{said}");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let good = fs::read(&paths[0]).unwrap();
        paths.iter().for_each(|path| fs::write(path, "nonsense\n").unwrap());
        let (status, said) = setup.start_in_vain();
        assert!(status == 78 && said.contains(&paths[0].display().to_string()), "{status} {said}");
        assert!(said.contains("damaged") && !setup.socket().exists(), "{said}");
        paths.iter().for_each(|path| assert_eq!(fs::read(path).unwrap(), b"nonsense\n"));
        paths.iter().for_each(|path| fs::write(path, &good).unwrap());
    }
    assert!(is_ready(&setup.start()));
}

#[test]
fn who_lost_both_copies_starts_cold_and_never_founds_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Setup::new(dir.path(), "n", &POOLS).start();
    let first = node.status().node;
    let token = node.token();
    assert_eq!(node.stop(), 0);
    let copies = COPIES.map(|file| node.setup.data_dir().join(file));
    let good = copies.clone().map(|path| fs::read(path).unwrap());
    let old = |setup: &Setup| {
        // A life whose records are gone: those of the life before come back.
        setup.start().stop();
        copies.iter().zip(&good).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    };
    let losses: [&dyn Fn(&Setup); 3] = [
        &|_| copies.iter().for_each(|path| fs::write(path, "nonsense").unwrap()),
        &|_| copies.iter().for_each(|path| fs::remove_file(path).unwrap()),
        &old,
    ];
    for (number, lose) in losses.iter().enumerate() {
        lose(&node.setup);
        for _ in 0..2 {
            let mut node = node.setup.start();
            let status = node.status();
            assert_eq!((status.node.state.as_str(), status.members), ("joining", 0), "{number}");
            assert_eq!((&status.node.id, &status.node.ledger), (&first.id, &None));
            assert!(warns(&node, "what this node knew of its swarm is lost"), "{:?}", status.warnings);
            assert!(!ask(&node, "fast", 1) && !ask(&node, "slow", 1));
            node.kill();
        }
        copies.iter().zip(&good).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        fs::remove_file(node.setup.data_dir().join("incarnation")).unwrap();
        assert!(is_one(node.setup.start().status().node.base_share), "restored from a backup");
        let again = node.setup.start();
        wait_until("it is ready", || is_ready(&again));
        drop(again);
    }

    // Nor does one that set out to join and has not got there; but it has nothing to lose.
    let lonely = Setup::new(dir.path(), "m", &POOLS);
    assert_eq!(lonely.clone().join(&token).start().status().node.state, "joining");
    let lonely = lonely.start();
    assert_eq!(lonely.status().node.state, "joining");
    wait_until("it says what to do", || warns(&lonely, "--join"));
}

#[test]
fn who_lost_both_copies_learns_its_ledger_back_and_lives_on_loans() {
    let dir = tempfile::tempdir().unwrap();
    let strict = ["--policy", "strict"];
    let mut founder = Setup::new(dir.path(), "n0", &POOLS).arguments(&strict).start();
    let member = Setup::new(dir.path(), "n1", &POOLS).arguments(&strict).join(&founder.token()).start();
    wait_until("base shares are even", || (member.status().node.base_share - 0.5).abs() < 0.05);
    let sockets = vec![founder.socket(), member.socket()];
    let load = Load::start(sockets, "fast", 10, |_, _| true).run(Duration::from_secs(1));
    founder.kill();
    for file in COPIES {
        fs::remove_file(founder.setup.data_dir().join(file)).unwrap();
    }
    founder = founder.setup.clone().join(&member.token()).start();
    wait_until("it is a member again", || is_ready(&founder));
    let tally = load.run(Duration::from_secs(2)).finish();
    let status = founder.status();
    assert!(warns(&founder, "not used until another member has taken it back"), "{:?}", status.warnings);
    assert_eq!(status.members, 2);
    let limit = &status.pools[0].limits[0];
    assert!((limit.held_share - limit.borrowed_share).abs() < 1e-9, "{limit:?}");
    assert!(limit.admitted > 0, "{limit:?}");
    println!("{tally:?}");
    check(&[&founder.setup, &member.setup]);
}

#[test]
fn files_of_another_node_are_not_taken_for_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = ["a", "b"].map(|name| {
        let mut node = Setup::new(dir.path(), name, &POOLS).start();
        let id = node.status().node.id;
        node.kill();
        (node.setup.clone(), id)
    });
    let [a, b] = nodes.each_ref().map(|(setup, _)| setup.data_dir());
    let swap = |file: &str| {
        fs::rename(a.join(file), dir.path().join("x")).unwrap();
        fs::rename(b.join(file), a.join(file)).unwrap();
        fs::rename(dir.path().join("x"), b.join(file)).unwrap();
    };
    swap("identity.key");
    for (setup, id) in &nodes {
        assert_eq!(&setup.start().status().node.id, id, "its other files say whose they are");
    }
    COPIES.iter().for_each(|file| swap(file));
    for (setup, id) in &nodes {
        let node = setup.start();
        assert_eq!(&node.status().node.id, id);
        assert!(warns(&node, "belongs to another node") && !ask(&node, "fast", 1));
    }
}

/// A tmpfs of the data directories' own, in a namespace that lives as long as this.
struct SmallDisk {
    holder: Child,
    path: PathBuf,
}

impl SmallDisk {
    /// None where the system does not let users have namespaces.
    fn new(dir: &TempDir) -> Option<Self> {
        let path = dir.path().join("n");
        fs::create_dir(&path).unwrap();
        let script = r#"mount -t tmpfs -o size=128k,mode=700 none "$0" && echo ready && exec sleep 600"#;
        let mut holder = Command::new("unshare");
        holder.args(["-Urm", "sh", "-c", script]).arg(&path);
        let mut holder = holder.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut said = [0; 5];
        let ready = std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said);
        let disk = Self { holder, path };
        ready.is_ok().then_some(disk)
    }

    fn enter(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        ["nsenter", "-t", &target, "-U", "-m", "--preserve-credentials", "--"].map(str::to_owned).into()
    }

    fn run(&self, command: &[&str]) -> bool {
        let enter = self.enter();
        let mut command_line = Command::new(&enter[0]);
        command_line.args(&enter[1..]).args(command).arg(&self.path).stderr(Stdio::null());
        command_line.status().unwrap().success()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_full_disk_stops_nothing_and_a_broken_one_only_what_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&dir) else {
        println!("NOT TESTED: this system has no user namespaces for us");
        return;
    };
    let enter = disk.enter();
    let wrapper: Vec<&str> = enter.iter().map(String::as_str).collect();
    let setup = Setup::new(dir.path(), "n", &POOLS).wrapped(&wrapper);
    let mut node = setup.start();
    assert!(ask(&node, "slow", 1_000));
    assert!(!disk.run(&["sh", "-c", r#"cat /dev/zero > "$0/fill""#]), "the disk is full");
    assert!(!disk.run(&["sh", "-c", r#"echo more > "$0/more""#]));
    // Much more than was put on disk before.
    assert!(ask(&node, "slow", 1_000) && ask(&node, "fast", 1));
    assert_eq!(node.status().warnings, [] as [String; 0]);
    // It even starts.
    node.kill();
    node = setup.start();
    wait_until("it is ready", || is_ready(&node));
    assert!(!ask(&node, "slow", 4_100) && ask(&node, "slow", 2_000));

    let breaks = r#"rm "$0/fill" && mv "$0/ledger.state" "$0/away" && mkdir "$0/ledger.state""#;
    assert!(disk.run(&["sh", "-c", breaks]));
    assert!(ask(&node, "slow", 10), "so much was put on disk before");
    assert!(!ask(&node, "slow", 500), "and this was not");
    wait_until("it says what is wrong", || warns(&node, "cannot be saved"));
    assert!(ask(&node, "slow", 10) && !ask(&node, "slow", 500));
    for _ in 0..20 {
        let answer = node.acquire(r#"{"pool":"fast","wait_ms":2000}"#).acquired();
        assert!(answer.allowed, "what a restart leaves nothing of needs no disk");
    }
    let asked = Instant::now();
    assert!(!node.acquire(r#"{"pool":"slow","requests":500,"wait_ms":500}"#).acquired().allowed);
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert!(disk.run(&["sh", "-c", r#"rmdir "$0/ledger.state""#]));
    wait_until("it is well again", || node.status().warnings.is_empty());
    assert!(ask(&node, "slow", 500));
    node.kill();
    let spent =
        node.admissions().iter().filter(|line| line.limit == "slow").map(|line| line.units).sum::<u64>();
    assert_eq!(spent, 1_000 + 1_000 + 2_000 + 10 + 10 + 500, "what was refused is in no log");
    check(&[&setup]);
}

/// T1 of both pools, over all lives of these nodes.
fn check(setups: &[&Setup]) -> [u64; 2] {
    let all = admissions(setups.iter().copied());
    rates().map(|(limit, rate)| {
        never_over(&all, limit, &rate).unwrap();
        all.iter().filter(|line| line.limit == limit).map(|line| line.units).sum()
    })
}

/// Waits, looking often, and says how long it took since `start`.
fn time(start: Instant, mut done: impl FnMut() -> bool) -> Duration {
    while !done() {
        assert!(start.elapsed() < process::PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms", at(50), at(99), at(100));
}

#[test]
fn kills_at_any_moment_under_load_never_exceed_the_limit() {
    let kills =
        std::env::var("AQUIFER_KILLS").map_or(20, |kills| kills.parse().expect("AQUIFER_KILLS is a number"));
    let dir = tempfile::tempdir().unwrap();
    // Those who come back must be found again.
    let setup = |name: &str| {
        let gossip = format!("/ip4/127.0.0.1/tcp/{}", free_port());
        let pools = [POOLS[0], POOLS[1], "calm:calm=500/1s,burst=100"];
        Setup::new(dir.path(), name, &pools).arguments(&["--policy", "strict", "--gossip", &gossip])
    };
    let mut nodes = vec![setup("n0").start()];
    let token = nodes[0].token();
    nodes.extend(["n1", "n2"].map(|name| setup(name).join(&token).start()));
    let is_whole = |nodes: &[Daemon]| {
        let bases: Vec<f64> = nodes.iter().map(|node| node.status().node.base_share).collect();
        (bases.iter().sum::<f64>() - 1.0).abs() < 1e-6
            && bases.iter().all(|base| (base - 1.0 / 3.0).abs() < 0.1)
            && nodes.iter().all(|node| is_ready(node) && node.status().peers_connected == 2)
    };
    wait_until("base shares are even", || is_whole(&nodes));
    let ids: Vec<String> = nodes.iter().map(|node| node.status().node.id).collect();
    let sockets = || nodes.iter().map(Daemon::socket).collect::<Vec<_>>();
    let loads =
        [Load::start(sockets(), "fast", 5, |_, _| true), Load::start(sockets(), "slow", 2, |_, _| true)];

    let (mut answers, mut admits, mut contended) = (Vec::new(), Vec::new(), Vec::new());
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |bound: u64| {
        // SplitMix64: any instants will do.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % bound
    };
    for kill in 0..kills {
        thread::sleep(Duration::from_millis(random(300)));
        // Most kills come before anybody is whole again; of every tenth the others are, and have something to lend.
        let in_peace = kill % 10 == 9;
        if in_peace {
            wait_until("all are ready", || nodes.iter().all(is_ready));
        }
        let node = &mut nodes[random(3) as usize];
        node.kill();
        let start = Instant::now();
        *node = node.setup.clone().spawn();
        let answers_now = || {
            Http::connect(&node.socket()).and_then(|mut http| {
                http.send("GET /v1/status HTTP/1.1\r\nhost: aquifer\r\n\r\n");
                http.reply()
            })
        };
        answers.push(time(start, || answers_now().is_some_and(|reply| reply.status == 200)));
        if in_peace {
            let admitted = |pool: &str| {
                let ask = format!(r#"{{"pool":"{pool}","wait_ms":50}}"#);
                time(start, || node.acquire(&ask).acquired().allowed)
            };
            // What nobody else asks for is lent at once; where all want more than there is, it waits for its own.
            admits.push(admitted("calm"));
            contended.push(admitted("fast"));
        }
    }
    wait_until("the swarm is whole again", || is_whole(&nodes));
    let tallies = loads.map(Load::finish);
    let now: Vec<String> = nodes.iter().map(|node| node.status().node.id).collect();
    assert_eq!(now, ids);
    for node in &nodes {
        assert_eq!(node.status().warnings, [] as [String; 0]);
    }
    let setups: Vec<&Setup> = nodes.iter().map(|node| &node.setup).collect();
    let units = check(&setups);
    println!("{kills} kills, {units:?} units of {POOLS:?} admitted, never more than the limit: {tallies:?}");
    print("answers again", &mut answers);
    if !admits.is_empty() {
        print("admits again what others can spare", &mut admits);
        print("admits again what all want more of", &mut contended);
    }
}
