//! One daemon as callers, operators and accidents meet it: the real process on a real socket.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use aquifer::client::{Client, ClientError};
use aquifer::daemon::api::{AcquireAnswer, AcquireRequest, Limits, Peers, Problem, Reason, Status};
use aquifer::protocol::limit::Rate;
use process::{Daemon, Http, PATIENCE, Setup, aquifer, never_over, post, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

/// One request at once and then none for as long as any test takes.
const DRY: &str = "dry:few=1/1h,burst=1,max_queue=20";

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn founder(dir: &TempDir, pools: &[&str]) -> Daemon {
    Setup::new(dir.path(), "n", pools).start()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("no hang") })
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Waiters for the pool `dry`, which is spent; they are in the queue when this returns.
fn waiters(node: &Daemon, count: usize) -> Vec<Http> {
    let ask = |_| {
        let mut http = node.http();
        http.send(post("/v1/acquire", r#"{"pool":"dry","wait_ms":86400000}"#));
        http
    };
    let waiters = (0..count).map(ask).collect();
    wait_until("all of them wait", || node.waiting() == count);
    waiters
}

#[test]
fn raw_http_the_client_and_the_command_get_the_same_permits() {
    let dir = dir();
    let node = founder(&dir, &["api:calls=3/1h,tph=900,burst=500"]);

    let raw = node.acquire(r#"{"pool":"api","tokens":200,"agent":"a","priority":"high","ttl_ms":5000}"#);
    assert_eq!((raw.status, raw.headers["content-type"].as_str()), (200, "application/json"));
    let one = raw.acquired();
    assert!(one.allowed && one.permit.is_some() && one.reason.is_none() && one.retry_after_ms.is_none());
    assert_eq!((one.pool.as_str(), one.waited_ms, one.expires_in_ms), ("api", 0, Some(5_000)));
    let seen = |answer: &AcquireAnswer| -> Vec<(String, u64, u64, u64, u64)> {
        let limits = answer.limits.iter();
        limits
            .map(|limit| (limit.name.clone(), limit.limit, limit.used, limit.remaining, limit.held))
            .collect()
    };
    assert_eq!(seen(&one), [("calls".to_owned(), 3, 1, 2, 2), ("tph".to_owned(), 500, 200, 300, 300)]);

    let ask = AcquireRequest { pool: "api".into(), tokens: Some(100), ..AcquireRequest::default() };
    let two = block_on(Client::new(node.socket()).acquire(&ask)).unwrap();
    assert_eq!(seen(&two), [("calls".to_owned(), 3, 2, 1, 1), ("tph".to_owned(), 500, 300, 200, 200)]);
    let (status, out, _) = node.cli(&["acquire", "api", "--cost", "tph=50", "--json"]);
    let three: AcquireAnswer = serde_json::from_str(&out).unwrap();
    assert_eq!(status, 0);
    assert_eq!(seen(&three), [("calls".to_owned(), 3, 3, 0, 0), ("tph".to_owned(), 500, 350, 150, 150)]);
    let permits: BTreeSet<_> = [&one, &two, &three].map(|answer| answer.permit.clone().unwrap()).into();
    assert_eq!(permits.len(), 3);

    let logged: Vec<_> = node.admissions().into_iter().map(|line| (line.limit, line.units)).collect();
    let expected = [("calls", 1), ("tph", 200), ("calls", 1), ("tph", 100), ("calls", 1), ("tph", 50)];
    assert_eq!(logged, expected.map(|(limit, units)| (limit.to_owned(), units)));
    // All or nothing: the tokens of a refused request are not taken.
    assert_eq!(
        node.acquire(r#"{"pool":"api","tokens":150,"wait_ms":0}"#).acquired().limits[1].remaining,
        150
    );
    assert_eq!(node.status().pools[0].limits[1].admitted_by_all, 350);
}

#[test]
fn commands_end_with_the_status_that_scripts_expect() {
    let dir = dir();
    let node = founder(&dir, &[DRY]);
    let (status, out, _) = node.cli(&["acquire", "dry"]);
    assert!(status == 0 && out.starts_with("admitted at once; 0 of 1 few left"), "{status} {out}");
    let (status, out, error) = node.cli(&["acquire", "dry", "--no-wait"]);
    assert!((status, out.as_str()) == (75, "") && error.contains("few has no room now"), "{status} {error}");
    let (status, out, _) = node.cli(&["acquire", "dry", "--wait", "50ms", "--json"]);
    let answer: AcquireAnswer = serde_json::from_str(&out).unwrap();
    assert_eq!((status, answer.allowed, answer.reason), (75, false, Some(Reason::Deadline)));
    let (status, _, error) = node.cli(&["acquire", "dri"]);
    assert!(status == 64 && error.contains("\"dry\""), "{status} {error}");
    let (status, _, error) = node.cli(&["acquire", "dry", "--cost", "fw=1"]);
    assert!(status == 64 && error.contains("\"few\""), "{status} {error}");

    let parsed = |arguments: &[&str]| {
        let (status, out, error) = node.cli(arguments);
        assert_eq!((status, error.as_str()), (0, ""), "{arguments:?}");
        out
    };
    let status: Status = serde_json::from_str(&parsed(&["status", "--json"])).unwrap();
    assert_eq!((status.version, status.node.state.as_str(), status.members), (1, "ready", 1));
    let limits: Limits = serde_json::from_str(&parsed(&["limits", "--json"])).unwrap();
    assert_eq!((limits.limits[0].pool.as_str(), limits.limits[0].held_by["n"]), ("dry", 1.0));
    let peers: Peers = serde_json::from_str(&parsed(&["peers", "--json"])).unwrap();
    assert_eq!(peers.peers, []);
    assert_eq!(parsed(&["token"]), format!("aquifer up --join {}\n", node.token()));
    for text in [&["status"][..], &["limits"], &["peers"]] {
        assert!(!parsed(text).is_empty());
    }

    drop(node);
    for command in [&["acquire", "dry"][..], &["status"], &["limits"], &["peers"], &["token"]] {
        let nobody = aquifer(command).arg("--socket").arg(dir.path().join("n.sock")).output().unwrap();
        assert_eq!(nobody.status.code(), Some(69), "{command:?}");
    }
}

#[test]
fn a_request_waits_until_there_is_room_and_is_answered_once() {
    let dir = dir();
    let node = founder(&dir, &["api:calls=4/1s,burst=1"]);
    let mut http = node.http();
    let waited: Vec<u64> = (0..4)
        .map(|_| {
            let answer = http.post("/v1/acquire", r#"{"pool":"api","wait_ms":20000}"#).acquired();
            assert!(answer.allowed, "{answer:?}");
            answer.waited_ms
        })
        .collect();
    assert!(waited[0] == 0 && waited.iter().sum::<u64>() > 0, "{waited:?}");
    let log = node.admissions();
    assert_eq!(log.iter().map(|line| line.units).collect::<Vec<_>>(), [1; 4]);
    never_over(&log, "calls", &Rate::new(4, Duration::from_secs(1), 1).unwrap()).unwrap();
}

#[test]
fn two_hundred_waiters_are_each_answered_once() {
    let dir = dir();
    let node = founder(&dir, &["api:calls=200/1s,burst=1"]);
    let mut waiters: Vec<Http> = (0..200).map(|_| node.http()).collect();
    for waiter in &mut waiters {
        waiter.send(post("/v1/acquire", r#"{"pool":"api","wait_ms":25000}"#));
    }
    let mut permits = BTreeSet::new();
    for waiter in &mut waiters {
        permits.insert(waiter.reply().unwrap().acquired().permit.expect("an admission"));
        // The next answer on the connection is that of the next request.
        assert_eq!(waiter.get("/livez").body, "ok\n");
    }
    assert_eq!((permits.len(), node.admissions().len(), node.waiting()), (200, 200, 0));
    never_over(&node.admissions(), "calls", &Rate::new(200, Duration::from_secs(1), 1).unwrap()).unwrap();
}

#[test]
fn refusals_say_why_and_when_to_come_back() {
    let dir = dir();
    let node = founder(&dir, &[DRY, "refuse:few=1/1h,burst=1,overflow=refuse", "two:a=5/1h,b=7/1m,burst=2"]);
    assert!(node.acquire(r#"{"pool":"dry"}"#).acquired().allowed);

    let reply = node.acquire(r#"{"pool":"dry","wait_ms":0}"#);
    let answer = reply.acquired();
    assert_eq!((reply.status, reply.headers["content-type"].as_str()), (429, "application/problem+json"));
    assert_eq!((answer.reason, answer.limited_by.as_deref()), (Some(Reason::Limit), Some("few")));
    assert_eq!((answer.allowed, answer.permit, answer.status), (false, None, Some(429)));
    let after = answer.retry_after_ms.unwrap();
    // An hour, up to a tenth more, and less what has passed.
    assert!((3_500_000..=3_960_000).contains(&after), "{after}");
    assert_eq!(reply.headers["retry-after-ms"], after.to_string());
    assert_eq!(reply.headers["retry-after"], after.div_ceil(1_000).to_string());
    assert_eq!(reply.headers["ratelimit-policy"], r#""few";q=1;w=3600"#);
    assert!(reply.headers["ratelimit"].starts_with(r#""few";r=0;t=3"#), "{reply:?}");

    let reply = node.acquire(r#"{"pool":"dry","wait_ms":40}"#);
    let answer = reply.acquired();
    assert_eq!((reply.status, answer.reason, answer.allowed), (429, Some(Reason::Deadline), false));
    assert!(answer.waited_ms >= 40 && answer.retry_after_ms.is_some(), "{answer:?}");

    let reply = node.acquire(r#"{"pool":"two","cost":{"b":3},"wait_ms":20000}"#);
    let answer = reply.acquired();
    assert_eq!((reply.status, answer.reason), (429, Some(Reason::Never)));
    assert_eq!((answer.limited_by.as_deref(), answer.retry_after_ms), (Some("b"), None));
    assert!(!reply.headers.contains_key("retry-after") && !reply.headers.contains_key("retry-after-ms"));
    assert_eq!(answer.limits[0].remaining, 5);

    assert!(node.acquire(r#"{"pool":"refuse"}"#).acquired().allowed);
    assert_eq!(node.acquire(r#"{"pool":"refuse"}"#).acquired().reason, Some(Reason::Limit));

    let _queue = waiters(&node, 20);
    let answer = node.acquire(r#"{"pool":"dry","wait_ms":600000}"#).acquired();
    assert_eq!(answer.reason, Some(Reason::QueueFull));
    assert_eq!(node.admissions().len(), 2);
}

#[test]
fn mistakes_are_named_and_the_daemon_goes_on() {
    let dir = dir();
    let node = founder(&dir, &["api/one:rpm=500,itpm=4000", "two:tpm=90"]);
    let acquire = |body: &str| post("/v1/acquire", body);
    let huge = format!(r#"{{"pool":"{}"}}"#, "x".repeat(70_000));
    let deep = "[".repeat(300);
    let cases: [(String, u16, Option<&str>, &str); 22] = [
        (acquire("{"), 400, None, "no JSON"),
        (acquire(""), 400, None, "no JSON"),
        (acquire(&deep), 400, None, "no JSON"),
        (acquire("[]"), 400, None, "object"),
        (acquire("{}"), 400, Some("pool"), "api/one"),
        (acquire(r#"{"pool":"api/on"}"#), 404, Some("pool"), "did you mean \"api/one\""),
        (acquire(r#"{"pool":"api/one","request":1}"#), 400, Some("request"), "\"requests\""),
        (acquire(r#"{"pool":"api/one","requests":-1}"#), 400, Some("requests"), "not -1"),
        (acquire(r#"{"pool":"api/one","requests":1.5}"#), 400, Some("requests"), "whole number"),
        (acquire(r#"{"pool":"api/one","requests":1e300}"#), 400, Some("requests"), "whole number"),
        (
            acquire(r#"{"pool":"api/one","requests":18446744073709551615}"#),
            400,
            Some("requests"),
            "whole number",
        ),
        (
            acquire(r#"{"pool":"api/one","cost":{"itpm":99999999999999999999}}"#),
            400,
            Some("cost.itpm"),
            "whole",
        ),
        (acquire(r#"{"pool":"api/one","cost":{"otpm":1}}"#), 400, Some("cost.otpm"), "\"itpm\""),
        (acquire(r#"{"pool":"api/one","cost":3}"#), 400, Some("cost"), "object"),
        (acquire(r#"{"pool":"api/one","wait_ms":"1"}"#), 400, Some("wait_ms"), "whole number"),
        (acquire(r#"{"pool":"api/one","priority":"urgent"}"#), 400, Some("priority"), "critical"),
        (acquire(r#"{"pool":"two"}"#), 400, Some("cost"), "tokens"),
        (acquire(&huge), 413, None, "65536"),
        ("GET /v1/acquire HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 405, None, "POST"),
        (post("/v1/status", ""), 405, None, "GET"),
        (post("/v2/acquire", "{}"), 404, None, "/v1/acquire"),
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 404, None, "/v1/status"),
    ];
    for (request, status, field, words) in cases {
        let mut http = node.http();
        http.send(&request);
        let request: String = request.chars().take(200).collect();
        let reply = http.reply().unwrap_or_else(|| panic!("no answer to {request}"));
        assert_eq!(
            (reply.status, reply.headers["content-type"].as_str()),
            (status, "application/problem+json")
        );
        let problem: Problem = reply.json();
        assert_eq!((problem.status, problem.field.as_deref()), (status, field), "{request}");
        assert!(problem.detail.contains(words), "{request}: {}", problem.detail);
        assert_eq!(node.http().get("/livez").status, 200);
    }
    let mut http = node.http();
    http.send("GET /v1/acquire HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(http.reply().unwrap().headers["allow"], "POST");

    let long_head = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let garbage: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"POST /v1/acquire HTTP/1.1\r\ncontent-length: -3\r\n\r\n{}",
        b"POST /v1/acquire HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        long_head.as_bytes(),
    ];
    for bytes in garbage {
        let mut http = node.http();
        http.send(bytes);
        if let Some(reply) = http.reply() {
            assert!((400..500).contains(&reply.status), "{reply:?}");
        }
        assert!(http.is_over());
    }
    // Callers that say nothing, half a head, or half a body.
    for half in ["", "GET /li", "POST /v1/acquire HTTP/1.1\r\ncontent-length: 100\r\n\r\n{\"pool\""] {
        node.http().send(half);
    }
    assert!(node.acquire(r#"{"pool":"api/one"}"#).acquired().allowed);
    assert_eq!(node.admissions().len(), 1);
    let error = block_on(Client::new(node.socket()).acquire(&AcquireRequest::default())).unwrap_err();
    assert!(matches!(error, ClientError::Problem(_, 400)), "{error}");
}

#[test]
fn a_caller_that_hangs_up_takes_nothing() {
    let dir = dir();
    let node = founder(&dir, &[DRY, "soon:few=2/1s,burst=1"]);
    assert!(node.acquire(r#"{"pool":"dry"}"#).acquired().allowed);
    drop(waiters(&node, 20));
    wait_until("nobody waits", || node.waiting() == 0);
    // The same where there will be room: who stays is served, who left took nothing.
    let ask = r#"{"pool":"soon","wait_ms":20000}"#;
    for _ in 0..3 {
        assert!(node.acquire(ask).acquired().allowed);
        let mut gone = node.http();
        gone.send(post("/v1/acquire", ask));
    }
    wait_until("nobody waits", || node.waiting() == 0);
    assert!(node.acquire(ask).acquired().allowed);
    let log = node.admissions();
    assert_eq!(log.iter().filter(|line| line.limit == "few").count() as u64, {
        let status = node.status();
        status.pools.iter().map(|pool| pool.limits[0].admitted).sum::<u64>()
    });
    assert_eq!(node.status().pools[0].limits[0].admitted, 1);
}

#[test]
fn one_connection_carries_many_requests_in_order() {
    let dir = dir();
    let node = founder(&dir, &["api:calls=3/1h,burst=3", DRY]);
    let mut http = node.http();
    for left in [2, 1] {
        assert_eq!(http.post("/v1/acquire", r#"{"pool":"api"}"#).acquired().limits[0].remaining, left);
        assert_eq!(http.get("/livez").body, "ok\n");
    }
    // Pipelined: all at once, one of them a mistake and one that has to wait for its deadline.
    assert!(node.acquire(r#"{"pool":"dry"}"#).acquired().allowed);
    let requests = [
        post("/v1/acquire", r#"{"pool":"dry","wait_ms":60}"#),
        post("/v1/acquire", r#"{"pool":"nil"}"#),
        post("/v1/acquire", r#"{"pool":"api"}"#),
        "HEAD /v1/status HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
    ];
    http.send(requests.concat());
    assert_eq!(http.reply().unwrap().acquired().reason, Some(Reason::Deadline));
    assert_eq!(http.reply().unwrap().status, 404);
    assert_eq!(http.reply().unwrap().acquired().limits[0].remaining, 0);
    let mut old = node.http();
    old.send("GET /livez HTTP/1.0\r\n\r\n");
    assert_eq!(old.reply().unwrap().body, "ok\n");
    assert!(old.is_over());
}

#[test]
fn a_node_that_is_told_to_stop_answers_its_waiters_first() {
    for signals in [&[Signal::TERM][..], &[Signal::TERM, Signal::TERM], &[Signal::INT]] {
        let dir = dir();
        let mut node = founder(&dir, &[DRY]);
        assert!(node.acquire(r#"{"pool":"dry"}"#).acquired().allowed);
        let mut waiters = waiters(&node, 20);
        signals.iter().for_each(|signal| node.signal(*signal));
        for waiter in &mut waiters {
            let reply = waiter.reply().expect("an answer");
            assert_eq!((reply.status, reply.acquired().reason), (429, Some(Reason::Paused)));
        }
        drop(waiters);
        assert_eq!(node.ended(), 0);
        assert!(!node.socket().exists());
        assert_eq!(node.admissions().len(), 1);
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let dir = dir();
    let mut node = founder(&dir, &[DRY]);
    let other = |name: &str| Setup::new(dir.path(), name, &[DRY]);
    let (status, said) = node.setup.start_in_vain();
    assert!(status == 78 && said.contains("another daemon uses"), "{status} {said}");
    let socket = node.socket().display().to_string();
    let (status, said) = other("b").arguments(&["--socket", &socket]).start_in_vain();
    assert!(status != 0, "{status} {said}");
    let same_socket = other("c").environment("AQUIFER_SOCKET", "");
    let (status, said) = in_vain_at(&same_socket, &socket);
    assert!(
        status == 78 && said.contains("another daemon serves") && said.contains(&socket),
        "{status} {said}"
    );
    assert!(node.acquire(r#"{"pool":"dry"}"#).acquired().allowed);

    // What a crash leaves behind is replaced.
    node.kill();
    assert!(node.socket().exists());
    drop(node);
    let node = founder(&dir, &[DRY]);
    assert_eq!(node.http().get("/livez").status, 200);

    let taken = Setup::new(dir.path(), "d", &[DRY]);
    fs::write(taken.socket(), "precious").unwrap();
    let (status, said) = taken.start_in_vain();
    assert!(status == 78 && said.contains("is no socket"), "{status} {said}");
    assert_eq!(fs::read_to_string(taken.socket()).unwrap(), "precious");
    // A socket whose owner is dead, and that never was a daemon's.
    let stale = Setup::new(dir.path(), "e", &[DRY]);
    drop(UnixListener::bind(stale.socket()).unwrap());
    stale.start();

    let occupied = node.status().node.addresses[0].split("/p2p/").next().unwrap().to_owned();
    let (status, said) = other("f").environment("AQUIFER_GOSSIP", &occupied).start_in_vain();
    assert!(status == 78 && said.contains(&occupied), "{status} {said}");
    assert!(!other("f").socket().exists());
}

/// Starts a daemon at another's socket in vain.
fn in_vain_at(setup: &Setup, socket: &str) -> (i32, String) {
    let mut command = aquifer(&["up", "--no-mdns", "--gossip", "/ip4/127.0.0.1/tcp/0", "--socket", socket]);
    let output = command.arg("--data-dir").arg(setup.data_dir()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn files_are_private() {
    let dir = dir();
    let node = founder(&dir, &[DRY]);
    let data = node.setup.data_dir();
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&node.socket()), 0o600);
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn empty_variables_are_as_good_as_none() {
    let dir = dir();
    let names = ["AQUIFER_CONFIG", "AQUIFER_POLICY", "AQUIFER_NAME", "AQUIFER_JOIN", "AQUIFER_ADMISSION_LOG"];
    let setup = Setup::new(dir.path(), "n", &[DRY]);
    let node = names.iter().fold(setup, |setup, name| setup.environment(name, "")).start();
    assert!(node.acquire(r#"{"pool":"dry"}"#).acquired().allowed);
    assert!(node.admissions().is_empty());
}

#[test]
fn a_restart_keeps_the_identity_and_settles_only_after_a_crash() {
    let dir = dir();
    let mut node = founder(&dir, &["api:calls=50/1s,burst=5"]);
    let ask = r#"{"pool":"api","requests":5,"wait_ms":20000}"#;
    let first = node.status().node;
    assert!(node.acquire(ask).acquired().allowed);
    assert_eq!(node.stop(), 0);

    let mut node = node.setup.clone().start();
    let second = node.status().node;
    assert_eq!((second.state.as_str(), second.base_share), ("ready", 1.0));
    assert_eq!((&second.id, &second.ledger), (&first.id, &first.ledger));
    assert!(second.incarnation > first.incarnation);
    assert!(node.acquire(ask).acquired().allowed);
    node.kill();

    let node = node.setup.clone().start();
    // Its own clock says that nothing was admitted before leases of the former life were over.
    assert!(node.acquire(ask).acquired().allowed);
    let third = node.status().node;
    assert!(third.state == "ready" && third.uptime_ms >= 2_000, "{third:?}");
    assert!(third.incarnation > second.incarnation);
    assert_eq!((third.id, third.base_share), (first.id, 1.0));
    never_over(&node.admissions(), "calls", &Rate::new(50, Duration::from_secs(1), 5).unwrap()).unwrap();
}

#[test]
fn a_crashed_node_says_that_it_settles_and_refuses_meanwhile() {
    let dir = dir();
    let mut node = founder(&dir, &["api:calls=50/1s,burst=5"]);
    node.kill();
    let node = node.setup.clone().start();
    let mut seen = Vec::new();
    wait_until("it is ready", || {
        // In this order: what is refused while it settles cannot be blamed on the time after it.
        let refused = !node.acquire(r#"{"pool":"api","wait_ms":0}"#).acquired().allowed;
        let Status { node: now, .. } = node.status();
        let probe = node.http().get("/readyz");
        if now.state == "settling" {
            assert!(refused && now.uptime_ms < 2_100);
            assert!(probe.status == 503 || probe.body == "ready\n", "{probe:?}");
        }
        seen.push(now.state.clone());
        now.state == "ready" && node.http().get("/readyz").status == 200
    });
    assert!(seen.iter().all(|state| ["settling", "ready"].contains(&state.as_str())), "{seen:?}");
}

#[test]
fn wrong_tokens_and_other_swarms_are_refused() {
    let (dir, elsewhere) = (dir(), dir());
    let node = founder(&dir, &[DRY]);
    let mut other = founder(&elsewhere, &[DRY]);
    assert_eq!(other.stop(), 0);
    let keys = ["swarm.key", "ledger.state"].map(|file| fs::read(other.setup.data_dir().join(file)).unwrap());
    let (status, said) = other.setup.clone().join(&node.token()).start_in_vain();
    assert!(
        status == 78 && said.contains("key of another swarm") && said.contains("swarm.key"),
        "{status} {said}"
    );
    assert_eq!(
        keys,
        ["swarm.key", "ledger.state"].map(|file| fs::read(other.setup.data_dir().join(file)).unwrap())
    );

    let token = node.token();
    let cut = &token[..token.len() - 3];
    let changed = format!("{}x{}", &token[..20], &token[21..]);
    for wrong in [cut, &changed, "aq1", "secret"] {
        let newcomer = Setup::new(dir.path(), "m", &[DRY]).join(wrong);
        let (status, said) = newcomer.start_in_vain();
        assert!(status == 64 && said.contains("--join"), "{status} {said}");
        assert!(!said.contains(wrong) || wrong == "aq1", "{said}");
        assert!(!newcomer.data_dir().exists());
    }
}

#[test]
fn probes_tell_alive_from_ready() {
    let dir = dir();
    let node = founder(&dir, &[DRY]);
    let probes = |node: &Daemon| ["/livez", "/readyz"].map(|path| node.http().get(path).status);
    wait_until("it is ready", || probes(&node) == [200, 200]);
    // Nobody is at the seed, so it never joins: alive, of no use, and it says so.
    let key = fs::read_to_string(node.setup.data_dir().join("swarm.key")).unwrap();
    let lonely = Setup::new(dir.path(), "m", &[DRY]).arguments(&["--seed", "/ip4/127.0.0.1/tcp/9"]);
    let (status, said) = lonely.start_in_vain();
    assert!(status == 78 && said.contains("swarm.key") && said.contains("--join"), "{status} {said}");
    let key_file = lonely.data_dir().join("swarm.key");
    fs::write(&key_file, key).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let lonely = lonely.start();
    assert_eq!(probes(&lonely), [200, 503]);
    assert_eq!((lonely.status().node.state.as_str(), lonely.status().node.ledger), ("joining", None));
    assert_eq!(lonely.acquire(r#"{"pool":"dry","wait_ms":0}"#).acquired().reason, Some(Reason::Limit));
    let reply = lonely.http().get("/v1/token");
    assert!(reply.status == 503 && reply.body.contains("not joined"), "{reply:?}");
    assert_eq!(lonely.cli(&["token"]).0, 69);
    assert!(node.acquire(r#"{"pool":"dry"}"#).acquired().allowed);
}

#[test]
fn secrets_are_told_to_no_log_and_no_process_list() {
    let dir = dir();
    let verbose =
        |name: &str| Setup::new(dir.path(), name, &["api:rpm=60"]).environment("AQUIFER_LOG", "trace");
    let one = verbose("one").start();
    let token = one.token();
    let mut two = verbose("two").join(&token).start();
    wait_until("the second is a member", || two.status().node.state == "ready");
    assert!(two.acquire(r#"{"pool":"api"}"#).acquired().allowed);
    let command_line = fs::read(format!("/proc/{}/cmdline", two.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&command_line).contains("aq1"));
    assert_eq!(two.stop(), 0);
    let secret = |node: &Daemon, file: &str| {
        let hex = fs::read_to_string(node.setup.data_dir().join(file)).unwrap();
        hex.trim().to_owned()
    };
    let secrets =
        [token, secret(&one, "swarm.key"), secret(&one, "identity.key"), secret(&two, "identity.key")];
    for node in [&one, &two] {
        let output = node.setup.output().to_lowercase();
        assert!(output.contains("listening on") && output.contains("aquifer token prints"), "{output}");
        for secret in &secrets {
            assert!(!output.contains(&secret.to_lowercase()), "{} tells a secret", node.name());
        }
    }
}
