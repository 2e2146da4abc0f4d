//! The commands that work on a running daemon: holding permits, running programs under them, and asking why one waits.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use aquifer::daemon::api::{Explanation, Problem, Queues};
use process::{Daemon, Http, Setup, aquifer, post, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const SLOT: &str = "slot:max_concurrent=1,few=50/1h";

fn founder(dir: &TempDir, pools: &[&str]) -> Daemon {
    Setup::new(dir.path(), "n", pools).start()
}

fn at(node: &Daemon, arguments: &[&str]) -> Command {
    let mut command = aquifer(&["--socket", node.socket().to_str().unwrap()]);
    command.args(arguments);
    command
}

/// Exit status, standard output and standard error.
fn run(node: &Daemon, arguments: &[&str]) -> (i32, String, String) {
    let output = at(node, arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn free(node: &Daemon) -> u64 {
    node.status().pools[0].limits[0].now.remaining
}

fn holder(node: &Daemon) -> Child {
    let mut command = at(node, &["acquire", "slot", "--hold"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("admitted at once; 0 of 1 max_concurrent"), "{line}");
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits for a file that a command makes when it is ready.
fn appears(file: &Path) {
    wait_until("the command runs", || file.exists());
}

#[test]
fn a_held_permit_lasts_until_its_holder_has_had_enough() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &[SLOT]);
    let mut holding = holder(&node);
    assert_eq!((free(&node), run(&node, &["acquire", "slot", "--no-wait"]).0), (0, 75));
    drop(holding.stdin.take());
    assert_eq!((holding.wait().unwrap().code(), free(&node)), (Some(0), 1));

    let mut interrupted = holder(&node);
    signal(&interrupted, Signal::INT);
    assert_eq!((interrupted.wait().unwrap().code(), free(&node)), (Some(0), 1));

    let mut killed = holder(&node);
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_until("the slot is free", || free(&node) == 1);

    let mut command = at(&node, &["acquire", "slot", "--hold", "--ttl", "200ms"]);
    let mut late = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Waiting closes standard input, which would end it, too.
    let open = late.stdin.take();
    assert_eq!(late.wait().unwrap().code(), Some(75));
    drop(open);
    // What was used stays used.
    assert_eq!(node.status().pools[0].limits[1].now.used, 4);
}

#[test]
fn a_command_runs_under_its_permit() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &[SLOT]);
    let shown =
        run(&node, &["exec", "slot", "--", "sh", "-c", r#"echo "$AQUIFER_POOL $AQUIFER_PERMIT"; exit 7"#]);
    let permit = shown.1.trim().strip_prefix("slot ").unwrap_or_default().to_owned();
    assert_eq!((shown.0, permit.len(), shown.2.as_str()), (7, 32, ""));
    assert_eq!((free(&node), node.status().pools[0].limits[1].now.used), (1, 1));
    let again = node.http().post(&format!("/v1/permits/{permit}/commit"), "");
    assert!(again.status == 200 && again.body.contains("committed"), "{again:?}");

    assert_eq!(run(&node, &["exec", "slot", "--", "sh", "-c", "kill -KILL $$"]).0, 128 + 9);
    let used = node.status().pools[0].limits[1].now.used;
    let (status, _, error) = run(&node, &["exec", "slot", "--", "/nonexistent/command"]);
    assert!(status == 127 && error.contains("/nonexistent/command"), "{status} {error}");
    assert_eq!(run(&node, &["exec", "slot", "--", "/"]).0, 126);
    assert_eq!((free(&node), node.status().pools[0].limits[1].now.used), (1, used), "nothing was used");

    let mut holding = holder(&node);
    let made = dir.path().join("made");
    let touch = ["exec", "slot", "--no-wait", "--", "touch", made.to_str().unwrap()];
    let (status, out, error) = run(&node, &touch);
    assert!((status, out.as_str()) == (75, "") && error.contains("max_concurrent has no room"), "{error}");
    let json = [&touch[..3], &["--json"], &touch[3..]].concat();
    assert!(run(&node, &json).1.contains(r#""limited_by": "max_concurrent""#));
    assert!(!made.exists());
    drop(holding.stdin.take());
    holding.wait().unwrap();
    for wrong in [&["exec", "slot"][..], &["exec", "slot", "touch"], &["exec", "slut", "--", "true"]] {
        assert_eq!(run(&node, wrong).0, 64, "{wrong:?}");
    }
}

#[test]
fn signals_reach_the_command_and_a_dead_runner_frees_the_slot() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &[SLOT]);
    let ready = dir.path().join("ready");
    let script = format!(
        "trap 'exit 3' TERM; trap 'exit 4' USR1; touch {}; while :; do sleep 0.05; done",
        ready.display()
    );
    for (sent, status) in [(Signal::TERM, 3), (Signal::USR1, 4)] {
        let mut running = at(&node, &["exec", "slot", "--", "sh", "-c", &script]).spawn().unwrap();
        appears(&ready);
        assert_eq!(free(&node), 0);
        signal(&running, sent);
        assert_eq!((running.wait().unwrap().code(), free(&node)), (Some(status), 1));
        fs::remove_file(&ready).unwrap();
    }
    let script = format!("touch {}; exec sleep 5", ready.display());
    let mut command = at(&node, &["exec", "slot", "--", "sh", "-c", &script]);
    // The command outlives its runner: it must not keep what reads this test's output.
    let mut killed =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    appears(&ready);
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_until("the slot is free", || free(&node) == 1);
}

#[test]
fn a_fallback_is_taken_where_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["large:few=1/1h", "small:few=9/1h"]);
    for pool in ["large", "small"] {
        let (status, out, _) = run(&node, &["acquire", "large", "--or", "small", "--json"]);
        assert!(status == 0 && out.contains(&format!(r#""pool": "{pool}""#)), "{out}");
    }
    let (status, _, error) = run(&node, &["acquire", "large", "--key", "user-1"]);
    assert!(status == 64 && error.contains("not keyed"), "{status} {error}");
}

/// A caller of the pool `dry`, which waits when this returns.
fn waiter(node: &Daemon, members: &str) -> Http {
    let waiting = node.waiting();
    let mut http = node.http();
    http.send(post("/v1/acquire", &format!(r#"{{"pool":"a/dry",{members},"wait_ms":60000}}"#)));
    wait_until("it waits", || node.waiting() == waiting + 1);
    http
}

#[test]
fn who_waits_and_why_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["a/dry:few=1/1h,tph=1000"]);
    assert_eq!(run(&node, &["queue"]).1, "Nobody waits on this node.\n");
    let open: Explanation = node.get("/v1/explain/a/dry");
    assert_eq!((open.admitted, open.opens_in_ms, open.limited_by), (true, Some(0), None));
    assert!(node.acquire(r#"{"pool":"a/dry"}"#).acquired().allowed);
    let _waiters = [
        waiter(&node, r#""agent":"nightly","priority":"low","tokens":7"#),
        waiter(&node, r#""agent":"pager\u001b[2J","priority":"critical""#),
    ];
    let queues: Queues = node.get("/v1/queue");
    let [pool] = &queues.pools[..] else { panic!("{queues:?}") };
    let seen: Vec<_> = pool
        .requests
        .iter()
        .map(|waiter| (waiter.position, waiter.agent.as_str(), waiter.class.name()))
        .collect();
    assert_eq!(seen, [(1, "pager\u{1b}[2J", "critical"), (2, "nightly", "low")]);
    assert_eq!((pool.waiting, pool.requests[1].units["tph"], pool.requests[1].units["few"]), (2, 7, 1));
    assert!((50_000..=60_000).contains(&pool.requests[0].deadline_in_ms), "{pool:?}");
    let (status, out, error) = run(&node, &["queue"]);
    assert!(status == 0 && error.is_empty() && out.contains("nightly") && !out.contains('\u{1b}'), "{out}");
    let json: Queues = serde_json::from_str(&run(&node, &["queue", "--json"]).1).unwrap();
    assert_eq!(json.pools[0].waiting, 2);

    let (status, out, _) = run(&node, &["explain", "a/dry"]);
    assert_eq!(status, 0);
    for words in
        ["would have to wait: few stands in the way", "1 critical, 1 low", "0 of 1 are left", "guarantee"]
    {
        assert!(out.contains(words), "{words}: {out}");
    }
    let json = run(&node, &["explain", "a/dry", "--json"]).1;
    let why: Explanation = serde_json::from_str(&json).unwrap();
    assert_eq!((why.admitted, why.limited_by.as_deref(), why.waiting.critical), (false, Some("few"), 1));
    assert!(why.opens_in_ms.is_some_and(|time| time > 3_000_000), "{json}");
    let (status, _, error) = run(&node, &["explain", "a/try"]);
    assert!(status == 64 && error.contains("\"a/dry\""), "{status} {error}");
    let out = run(&node, &["status"]).1;
    assert!(out.contains("waiting for a/dry: 1 critical, 1 low"), "{out}");
}

#[test]
fn a_pool_is_paused_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["api:few=9/1h"]);
    let (status, out, _) = run(&node, &["pause", "api", "--for", "20m"]);
    assert_eq!((status, out.as_str()), (0, "api is paused on all nodes for 20m\n"));
    let (status, _, error) = run(&node, &["acquire", "api", "--no-wait"]);
    assert!(status == 75 && error.contains("the pool is paused; ask again in 2"), "{status} {error}");
    assert_eq!(node.status().pools[0].state, "paused");
    let words = run(&node, &["explain", "api"]).1;
    assert!(words.contains("the pool is paused"), "{words}");
    let waiting = thread::spawn({
        let mut http = node.http();
        move || http.post("/v1/acquire", r#"{"pool":"api","wait_ms":1300000}"#).acquired()
    });
    wait_until("somebody waits", || node.waiting() == 1);
    let (status, out, _) = run(&node, &["resume", "api", "--json"]);
    assert!(status == 0 && out.contains(r#""paused": false"#), "{out}");
    assert!(waiting.join().unwrap().allowed);
    assert_eq!(run(&node, &["pause", "apy"]).0, 64);

    let observe = |body: &str| node.http().post("/v1/observe", body);
    assert_eq!(observe(r#"{"pool":"api","outcome":"throttled","retry_after_ms":300000}"#).status, 204);
    wait_until("the pool is paused", || node.status().pools[0].state == "paused");
    assert_eq!(node.status().pools[0].paused.as_ref().unwrap().reason, "throttled");
    for (body, field, words) in [
        (r#"{"pool":"api"}"#, "outcome", "throttled"),
        (r#"{"pool":"api","outcome":"bad"}"#, "outcome", "throttled"),
        (r#"{"pool":"api","remaining":5}"#, "limit", "remaining means nothing"),
        (r#"{"pool":"api","limit":"few"}"#, "outcome", "missing"),
        (r#"{"pool":"api","limit":"fwe","remaining":5}"#, "limit", "\"few\""),
        (r#"{"pool":"api","outcome":"ok","limit_value":5}"#, "limit_value", "means nothing"),
        (r#"{"pool":"api","outcomes":"ok"}"#, "outcomes", "\"outcome\""),
    ] {
        let reply = observe(body);
        let problem: Problem = reply.json();
        assert_eq!((reply.status, problem.field.as_deref()), (400, Some(field)), "{body}");
        assert!(problem.detail.contains(words), "{body}: {}", problem.detail);
    }
    assert_eq!(observe(r#"{"pool":"api","limit":"few","remaining":5,"limit_value":9}"#).status, 204);
}

#[test]
fn a_breaker_opens_and_lets_one_probe_through() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aquifer.toml");
    let breaker = "[[pool]]\nname = \"api\"\nrpm = 600\n\
                   breaker = { failure_rate = 0.5, window = \"30s\", min_count = 4, open_for = \"300ms\" }\n";
    fs::write(&file, breaker).unwrap();
    let node = Setup::new(dir.path(), "n", &[]).arguments(&["--config", file.to_str().unwrap()]).start();
    let observe = |outcome: &str| {
        node.http().post("/v1/observe", &format!(r#"{{"pool":"api","outcome":"{outcome}"}}"#)).status
    };
    for _ in 0..4 {
        assert_eq!(observe("error"), 204);
    }
    let reply = node.acquire(r#"{"pool":"api"}"#);
    assert!(reply.status == 429 && reply.body.contains(r#""reason":"breaker""#), "{reply:?}");
    assert_eq!(node.status().pools[0].breaker.as_deref(), Some("open"));
    wait_until("one is let through", || node.acquire(r#"{"pool":"api","wait_ms":0}"#).status == 200);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(node.acquire(r#"{"pool":"api"}"#).status, 429, "only one");
    assert_eq!(observe("ok"), 204);
    wait_until("it is closed", || node.acquire(r#"{"pool":"api"}"#).status == 200);
}

#[test]
fn a_node_leaves_and_says_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = founder(&dir, &["api:rph=60"]);
    let peer = Setup::new(dir.path(), "peer", &["api:rph=60"]).join(&node.token());
    let mut other = peer.start();
    wait_until("it has a share", || other.status().node.base_share > 0.4);
    assert_eq!(run(&node, &["leave", "--wait", "61s"]).0, 64);
    let (status, out, error) = run(&node, &["leave", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{status} {out}{error}"));
    assert_eq!((status, &answer["left"], &answer["base_share"]), (0, &json!(true), &json!(0.0)), "{out}");
    assert_eq!(node.ended(), 0);
    wait_until("the other has all", || (other.status().node.base_share - 1.0).abs() < 1e-9);
    // Nobody is there to take it.
    let (status, out, _) = run(&other, &["leave"]);
    assert!(status == 0 && out.contains("100.0 % of every limit stays its own"), "{status} {out}");
    assert_eq!(other.ended(), 0);
    let (status, _, error) = run(&other, &["leave"]);
    assert!(status == 69, "{status} {error}");
}

#[test]
fn a_configuration_is_reloaded_as_far_as_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[pool]]\nname = \"api\"\nrpm = 5\n";
    let node = Setup::new(dir.path(), "n", &[]).config(text).start();
    let reload = |text: &str, more: &[&str]| {
        fs::write(dir.path().join("n.toml"), text).unwrap();
        run(&node, &[&["reload"], more].concat())
    };
    let all = (0, "the node runs with the whole configuration\n".to_owned(), String::new());
    assert_eq!(reload(&format!("{text}max_queue = 7\n"), &[]), all);
    let partly = format!("{text}max_queue = 8\n").replace("rpm = 5", "rpm = 6");
    let (status, out, _) = reload(&partly, &[]);
    let expected = "in force now: pool \"api\".max_queue\nneeds a restart: pool \"api\".limits\n";
    assert_eq!((status, out.as_str()), (78, expected));
    let (status, out, _) = reload(&partly, &["--json"]);
    assert!(status == 78 && out.contains("\"applied\": []"), "what is in force is not told again: {out}");
    let (status, out, error) = reload("[[pool]]\nname = \"api\"\nrpm = 0\n", &[]);
    assert!(
        (status, out.as_str()) == (78, "") && error.contains("n.toml:3") && error.contains("rpm"),
        "{error}"
    );
}
