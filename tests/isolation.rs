//! Users of one machine who share a daemon, and callers that are silent, slow, greedy or out of order: what each may do,
//! what each may take, and that the others are served.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aquifer::daemon::api::{CallersStatus, Denial, Problem, Reason, SettleAnswer};
use process::{Daemon, Http, Reply, Setup, post, wait_until};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tempfile::TempDir;

/// Ids that no system gives out.
const AGENTS: u32 = 2_000_000_100;
const WHEEL: u32 = 2_000_000_200;
const ALICE: u32 = 2_000_000_001;
const BOB: u32 = 2_000_000_002;
const OPERATOR: u32 = 2_000_000_003;
const STRANGER: u32 = 2_000_000_004;

const POOLS: &str = "[[pool]]\nname = \"dry\"\nmax_queue = 20\n\
                     [[pool.limit]]\nname = \"few\"\namount = 1\nper = \"1h\"\n\
                     [[pool]]\nname = \"wet\"\nrph = 1000000\n";

/// Whether this test runs as root, who alone can be other users.
fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("NOT TESTED: only root can connect as other users");
    }
    is_root
}

/// Does something as another user, in a thread of its own: the kernel keeps these ids for each thread.
fn as_user<T: Send + 'static>((uid, gid): (u32, u32), act: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        set_thread_groups(&[]).unwrap();
        set_thread_gid(Gid::from_raw(gid)).unwrap();
        set_thread_uid(Uid::from_raw(uid)).unwrap();
        act()
    });
    thread.join().unwrap()
}

/// A daemon that the group of agents may use.
fn shared(dir: &TempDir, access: &str) -> Daemon {
    chown(dir.path(), None, Some(AGENTS)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let access = format!("[access]\ngroup = {AGENTS}\n{access}\n{POOLS}");
    Setup::new(dir.path(), "n", &[]).config(&access).start()
}

fn connect(node: &Daemon, user: (u32, u32)) -> Option<Http> {
    let socket = node.socket();
    as_user(user, move || Http::connect(&socket))
}

fn asks(node: &Daemon, user: (u32, u32), request: &str) -> Reply {
    let mut http = connect(node, user).expect("a connection");
    http.send(request);
    http.reply().expect("an answer")
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

fn callers(node: &Daemon) -> CallersStatus {
    node.status().callers
}

fn files(node: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count()
}

/// The most memory that a daemon ever had, in KiB.
fn memory(node: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn each_user_may_do_what_is_written_down() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let access = format!("operators = [{OPERATOR}]\noperator_groups = [{WHEEL}]");
    let node = shared(&dir, &access);
    let everybody = [
        post("/v1/acquire", r#"{"pool":"wet"}"#),
        post("/allow", r#"{"pool":"wet"}"#),
        get("/v1/status"),
        get("/v1/peers"),
        get("/v1/limits"),
        get("/v1/queue"),
        get("/v1/explain/wet"),
        get("/livez"),
        get("/readyz"),
        get("/metrics"),
        get("/openapi.json"),
    ];
    let observe = post("/v1/observe", r#"{"pool":"wet","outcome":"ok"}"#);
    let operators = [
        post("/v1/pause", r#"{"pool":"dry"}"#),
        post("/v1/resume", r#"{"pool":"dry"}"#),
        post("/v1/reload", ""),
        get("/v1/token"),
    ];
    let users = [((ALICE, AGENTS), false), ((OPERATOR, AGENTS), true), ((0, 0), true), ((0, AGENTS), true)];
    let mut denied = 0;
    for (user, operates) in users {
        for request in everybody.iter().chain([&observe]) {
            let reply = asks(&node, user, request);
            assert!((200..300).contains(&reply.status), "{user:?} {request}: {reply:?}");
        }
        for request in &operators {
            let reply = asks(&node, user, request);
            if operates {
                assert!((200..300).contains(&reply.status), "{user:?} {request}: {reply:?}");
                continue;
            }
            let problem: Problem = reply.json();
            assert_eq!((reply.status, problem.reason), (403, Some(Denial::OperatorsOnly)), "{request}");
            assert!(problem.detail.contains(&format!("user {ALICE}")), "{problem:?}");
            assert!(problem.detail.contains("operators"), "{problem:?}");
            denied += 1;
        }
    }
    assert_eq!(asks(&node, (ALICE, AGENTS), &post("/v1/leave", "")).status, 403);
    assert_eq!((denied, callers(&node).denied), (4, 5));
    assert_ne!(node.status().pools[0].state, "paused");
    // Whom the files keep out does not come to ask; nor does a group that operates, unless it can connect.
    assert!(connect(&node, (STRANGER, STRANGER)).is_none());
    assert!(connect(&node, (STRANGER, WHEEL)).is_none());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&node.socket()), 0o660);
    assert_eq!(mode(&node.setup.data_dir()), 0o700);
}

#[test]
fn observing_can_be_kept_for_operators() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = shared(&dir, "observe = \"operators\"");
    let throttled = post("/v1/observe", r#"{"pool":"wet","outcome":"throttled","retry_after_ms":600000}"#);
    let reply = asks(&node, (ALICE, AGENTS), &throttled);
    assert_eq!((reply.status, reply.json::<Problem>().reason), (403, Some(Denial::OperatorsOnly)));
    assert_eq!(asks(&node, (ALICE, AGENTS), &post("/v1/acquire", r#"{"pool":"wet"}"#)).status, 200);
    assert_eq!(asks(&node, (0, 0), &throttled).status, 204);
}

#[test]
fn a_permit_is_settled_by_the_user_that_got_it_or_an_operator() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = shared(&dir, &format!("operators = [{OPERATOR}]"));
    let [alice, bob, operator, owner] = [(ALICE, AGENTS), (BOB, AGENTS), (OPERATOR, AGENTS), (0, 0)];
    let permit = |user| {
        let acquired = asks(&node, user, &post("/v1/acquire", r#"{"pool":"wet","requests":2}"#)).acquired();
        acquired.permit.expect("a permit")
    };
    let settle = |user, permit: &str, verb: &str| {
        asks(&node, user, &post(&format!("/v1/permits/{permit}/{verb}"), ""))
    };
    for (of, by, may) in [
        (alice, alice, true),
        (alice, bob, false),
        (alice, operator, true),
        (alice, owner, true),
        (operator, alice, false),
        (operator, owner, true),
        (owner, alice, false),
        (owner, operator, true),
    ] {
        for verb in ["commit", "release"] {
            let permit = permit(of);
            let reply = settle(by, &permit, verb);
            if may {
                assert_eq!(reply.status, 200, "{of:?} {by:?} {verb}: {reply:?}");
                // What has ended changes nothing any more: everybody has the same answer.
                assert!(settle(bob, &permit, verb).json::<SettleAnswer>().repeated);
            } else {
                let problem: Problem = reply.json();
                assert_eq!((reply.status, problem.reason), (403, Some(Denial::NotYourPermit)));
                assert_eq!(settle(of, &permit, verb).status, 200, "it is there as before");
            }
        }
    }
    assert_eq!(callers(&node).denied, 6);
}

#[test]
fn one_user_leaves_connections_and_places_for_others() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = shared(&dir, "max_connections_per_user = 12\nmax_waiting_per_user = 5");
    let (greedy, other) = ((ALICE, AGENTS), (BOB, AGENTS));
    assert!(node.acquire(r#"{"pool":"dry"}"#).acquired().allowed);
    let ask = post("/v1/acquire", r#"{"pool":"dry","wait_ms":86400000}"#);
    let wait = |user, count: usize| -> Vec<Http> {
        let before = node.waiting();
        let waiter = |_| {
            let mut http = connect(&node, user).unwrap();
            http.send(&ask);
            http
        };
        let waiters = (0..count).map(waiter).collect();
        wait_until("they wait", || node.waiting() == before + count);
        waiters
    };
    let mut waiters = wait(greedy, 5);
    let reply = asks(&node, greedy, &ask);
    let refused = reply.acquired();
    assert_eq!((reply.status, refused.reason), (429, Some(Reason::UserQueueFull)));
    assert!(refused.retry_after_ms.is_some() && refused.detail.unwrap().contains("max_waiting_per_user"));
    assert_eq!(refused.limited_by.as_deref(), Some("few"));
    // What has room is admitted all the same, and others may wait.
    assert_eq!(asks(&node, greedy, &post("/v1/acquire", r#"{"pool":"wet"}"#)).status, 200);
    let _others = wait(other, 3);
    waiters.pop();
    wait_until("it has left", || node.waiting() == 7);
    waiters.extend(wait(greedy, 1));

    let mut idle: Vec<Http> = (0..7).map(|_| connect(&node, greedy).unwrap()).collect();
    assert_eq!(idle[0].get("/livez").status, 200);
    let reply = asks(&node, greedy, &get("/livez"));
    let problem: Problem = reply.json();
    assert_eq!((reply.status, problem.reason), (503, Some(Denial::UserConnections)));
    assert_eq!((&*reply.headers["retry-after"], &*reply.headers["connection"]), ("1", "close"));
    assert!(problem.detail.contains("max_connections_per_user"), "{problem:?}");
    assert_eq!(asks(&node, other, &get("/livez")).status, 200);
    let seen = callers(&node);
    assert_eq!((seen.turned_away, seen.not_queued, seen.max_connections_per_user), (1, 1, 12));
    let users = || -> Vec<_> {
        callers(&node).users.iter().map(|user| (user.uid, user.connections, user.waiting)).collect()
    };
    // Connections that were closed are over a moment later.
    wait_until("only these are here", || users() == [(ALICE, 12, 5), (BOB, 3, 3), (0, 1, 0)]);
    let status = node.cli(&["status"]).1;
    assert!(status.contains(&format!("user {ALICE} has 12, 5 waiting")), "{status}");
    assert!(status.contains("1 turned away; 1 not queued"), "{status}");

    // A flood of connections that nobody reads is closed, and does not keep the other out.
    let flood: Vec<Http> = (0..200).filter_map(|_| connect(&node, greedy)).collect();
    assert_eq!(asks(&node, other, &get("/livez")).status, 200);
    drop(flood);
    drop(idle);
    wait_until("there is room again", || {
        connect(&node, greedy).is_some_and(|mut http| http.get("/livez").status == 200)
    });
    drop(waiters);
    wait_until("nobody of it is left", || callers(&node).users.iter().all(|user| user.uid != ALICE));
}

#[test]
fn quotas_hold_for_the_owner_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[access]\nmax_connections_per_user = 4\nmax_waiting_per_user = 2\n{POOLS}");
    let node = Setup::new(dir.path(), "n", &[]).config(&config).start();
    let ask = post("/v1/acquire", r#"{"pool":"dry","wait_ms":86400000}"#);
    assert!(node.acquire(r#"{"pool":"dry"}"#).acquired().allowed);
    wait_until("those of the start are gone", || callers(&node).connections == 1);
    // An operator has sixteen more, so that a crowd of its own processes cannot keep it from looking.
    let mut held: Vec<Http> = (0..20).map(|_| node.http()).collect();
    for http in &mut held[2..] {
        assert_eq!(http.get("/livez").status, 200);
    }
    let mut late = node.http();
    assert_eq!(late.get("/livez").json::<Problem>().reason, Some(Denial::UserConnections));
    assert!(late.is_over());
    let (mut two, rest) = (held.split_off(18), held);
    let mut looker = rest.into_iter().nth(2).unwrap();
    let waiting = |looker: &mut Http| -> CallersStatus {
        looker.get("/v1/status").json::<aquifer::daemon::api::Status>().callers
    };
    two.iter_mut().for_each(|http| http.send(&ask));
    wait_until("two wait", || waiting(&mut looker).users[0].waiting == 2);
    wait_until("the others have gone", || waiting(&mut looker).connections == 3);
    assert_eq!(node.http().post("/v1/acquire", r#"{"pool":"dry"}"#).acquired().reason, {
        Some(Reason::UserQueueFull)
    });
    let never = node.acquire(r#"{"pool":"dry","requests":2}"#).acquired();
    assert_eq!(never.reason, Some(Reason::Never), "waiting would not help");
    assert_eq!(waiting(&mut looker).not_queued, 1);
}

/// Asks on and on without reading a single answer, until the daemon hangs up: how many bytes it took.
fn asks_and_never_reads(socket: &Path, request: &str) -> usize {
    let mut stream = UnixStream::connect(socket).unwrap();
    let requests = request.repeat(64);
    let mut taken = 0;
    while let Ok(wrote) = stream.write(requests.as_bytes()) {
        taken += wrote;
        assert!(taken < 64 << 20, "the daemon takes requests without an end: {request}");
    }
    taken
}

#[test]
fn callers_that_stall_are_cut_off_and_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path(), "n", &[]).config(POOLS).start();
    wait_until("those of the start are gone", || callers(&node).connections == 1);
    let (files_before, memory_before) = (files(&node), memory(&node));

    let half_body = "POST /v1/acquire HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{\"pool\"";
    let openings = ["", "G", "GET /livez HTTP/1.1\r\nhost: a\r\nx: ", half_body];
    let mut stalled: Vec<(usize, Http)> = Vec::new();
    for _ in 0..10 {
        for (kind, opening) in openings.iter().enumerate() {
            let mut http = node.http();
            http.send(opening);
            stalled.push((kind, http));
        }
    }
    // Those that trickle go on to: a byte is no progress where a request is due.
    let done = AtomicBool::new(false);
    let mut trickling: Vec<UnixStream> =
        (0..5).map(|_| UnixStream::connect(node.socket()).unwrap()).collect();
    let requests =
        [get("/v1/status"), get("/livez"), post("/v1/observe", r#"{"pool":"wet","outcome":"ok"}"#)];
    thread::scope(|scope| {
        let mut cut_off = Vec::new();
        for stream in &mut trickling {
            cut_off.push(scope.spawn(|| {
                let mut bytes = 0;
                while stream.write_all(b"G").is_ok() {
                    bytes += 1;
                    thread::sleep(std::time::Duration::from_millis(20));
                }
                bytes
            }));
        }
        for request in requests.iter().cycle().take(12) {
            let socket = node.socket();
            cut_off.push(scope.spawn(move || asks_and_never_reads(&socket, request)));
        }
        // All the while an honest caller is served.
        let honest = scope.spawn(|| {
            let mut served = 0;
            while !done.load(Ordering::Relaxed) {
                // Nothing that the daemon remembers, or that would be what grows: a settled permit takes 160 bytes.
                assert_eq!(node.http().get("/v1/explain/wet").status, 200);
                served += 1;
            }
            served
        });
        for thread in cut_off {
            assert!(thread.join().unwrap() > 0);
        }
        for (kind, http) in &mut stalled {
            match (*kind, http.reply()) {
                (3, Some(reply)) => assert_eq!(reply.status, 408, "{reply:?}"),
                (3, None) => panic!("no answer to half a body"),
                (_, reply) => assert!(reply.is_none(), "{reply:?}"),
            }
            assert!(http.is_over());
        }
        done.store(true, Ordering::Relaxed);
        assert!(honest.join().unwrap() > 0);
    });
    wait_until("all of them are gone", || callers(&node).connections == 1);
    let seen = callers(&node);
    // Half a body is answered; the others are just closed: three times ten, five that trickle, twelve that never read.
    assert_eq!((seen.timed_out, seen.turned_away, seen.denied), (47, 0, 0), "{seen:?}");
    wait_until("their files are closed", || files(&node) <= files_before);
    assert!(node.acquire(r#"{"pool":"wet"}"#).acquired().allowed);
    // At most 64 KiB for each, and what the rest of the program needs meanwhile.
    let grown = memory(&node) - memory_before;
    assert!(grown <= 64 * 67 + 4_096, "{grown} KiB");
}

#[test]
fn whoever_reads_late_gets_every_answer_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path(), "n", &[]).config(POOLS).start();
    let stream = UnixStream::connect(node.socket()).unwrap();
    let mut http = Http::from(stream.try_clone().unwrap());
    // More than the daemon and the kernel hold between them, so that it has to pause and to go on.
    let count = 3_000;
    let asking = thread::spawn(move || {
        let mut stream = stream;
        for number in 0..count {
            let path = if number % 2 == 0 { "/livez" } else { "/v1/explain/wet" };
            stream.write_all(get(path).as_bytes()).unwrap();
        }
    });
    wait_until("it pauses", || callers(&node).connections == 2);
    for number in 0..count {
        let reply = http.reply().expect("an answer");
        assert_eq!((reply.status, reply.body == "ok\n"), (200, number % 2 == 0), "{number}");
    }
    asking.join().unwrap();
}

#[test]
fn what_is_no_request_closes_its_connection_alone() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path(), "n", &[]).config(POOLS).start();
    wait_until("those of the start are gone", || callers(&node).connections == 1);
    let before = files(&node);
    let mut steady = node.http();
    let long = "x".repeat(1 << 20);
    let many: String = (0..2_000).map(|number| format!("x{number}: y\r\n")).collect();
    let garbage = [
        ("\0\0\0\0".to_owned(), 400),
        ("\r\n".repeat(40_000), 0),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 0),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 414),
        (format!("GET /livez HTTP/1.1\r\nx: {long}\r\n\r\n"), 431),
        (format!("GET /livez HTTP/1.1\r\n{many}\r\n"), 431),
        (format!("POST /v1/acquire HTTP/1.1\r\ncontent-length: {}\r\n\r\n{long}", long.len()), 413),
        ("POST /v1/acquire HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n\r\n".to_owned(), 400),
        ("POST /v1/acquire HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}".to_owned(), 400),
        (format!("POST /v1/acquire HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n{long}"), 413),
        (
            "POST /v1/acquire HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n".to_owned(),
            400,
        ),
    ];
    for (bytes, status) in &garbage {
        let shown: String = bytes.chars().take(60).collect();
        let mut http = node.http();
        http.send(bytes);
        match http.reply() {
            Some(reply) => assert!((400..500).contains(&reply.status), "{shown:?}: {reply:?}"),
            None => assert!(*status == 0 || bytes.len() > 1 << 19, "no answer to {shown:?}"),
        }
        drop(http);
        assert_eq!(steady.get("/livez").status, 200, "{shown:?}");
    }
    // The same frames with bytes turned over, each by a caller that then goes away.
    let frame = post("/v1/acquire", r#"{"pool":"wet","cost":{"rph":1},"wait_ms":0}"#).into_bytes();
    for place in 0..frame.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut bytes = frame.clone();
            bytes[place] ^= flip;
            node.http().send(bytes);
        }
    }
    assert_eq!(steady.get("/livez").status, 200);
    drop(steady);
    wait_until("their files are closed", || files(&node) <= before);
}

#[test]
fn a_storm_of_short_connections_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path(), "n", &[]).config(POOLS).start();
    wait_until("those of the start are gone", || callers(&node).connections == 1);
    let before = files(&node);
    let mut steady = node.http();
    thread::scope(|scope| {
        for kind in 0..4 {
            let socket = node.socket();
            scope.spawn(move || {
                for _ in 0..1_000 {
                    let Some(mut http) = Http::connect(&socket) else { continue };
                    match kind {
                        0 => {}
                        1 => http.send("GET /li"),
                        2 => http.send(post("/v1/acquire", r#"{"pool":"dry","wait_ms":86400000}"#)),
                        _ => assert_eq!(http.get("/livez").status, 200),
                    }
                }
            });
        }
        for _ in 0..200 {
            assert!(steady.post("/v1/acquire", r#"{"pool":"wet"}"#).acquired().allowed);
        }
    });
    drop(steady);
    wait_until("nobody waits", || node.waiting() == 0);
    wait_until("their files are closed", || files(&node) <= before);
    assert_eq!(callers(&node).turned_away, 0);
}

#[test]
fn a_daemon_out_of_files_serves_who_is_there_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path(), "n", &[]).config(POOLS).files(64).start();
    let mut steady = node.http();
    assert_eq!(steady.get("/livez").status, 200);
    let crowd: Vec<UnixStream> = (0..500).filter_map(|_| UnixStream::connect(node.socket()).ok()).collect();
    assert!(crowd.len() > 64);
    for _ in 0..50 {
        assert!(steady.post("/v1/acquire", r#"{"pool":"wet"}"#).acquired().allowed);
    }
    drop(crowd);
    assert!(node.acquire(r#"{"pool":"wet"}"#).acquired().allowed);
    wait_until("only those who ask are there", || callers(&node).connections == 2);
}
