//! One daemon as the programs meet it that ask before each call: what is taken, settled, bound and refused.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use aquifer::daemon::api::{AllowAnswer, Limits, Problem, Reason, SettleAnswer};
use process::{Daemon, Http, Reply, Setup, post, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// What a model allows: nothing comes back while a test runs.
const MODEL: &str = "model:rph=10,tph=1000,max_concurrent=2";

fn founder(dir: &TempDir, pools: &[&str]) -> Daemon {
    Setup::new(dir.path(), "n", pools).start()
}

fn permit(node: &Daemon, body: &str) -> String {
    let answer = node.acquire(body).acquired();
    answer.permit.unwrap_or_else(|| panic!("{body}: {:?}", answer.reason))
}

fn settle(node: &Daemon, permit: &str, verb: &str, body: &str) -> Reply {
    node.http().post(&format!("/v1/permits/{permit}/{verb}"), body)
}

/// What is left of each limit of the first pool.
fn left(node: &Daemon) -> BTreeMap<String, u64> {
    let pools = node.status().pools;
    pools[0].limits.iter().map(|limit| (limit.now.name.clone(), limit.now.remaining)).collect()
}

fn amounts(named: &[(&str, u64)]) -> BTreeMap<String, u64> {
    named.iter().map(|(name, units)| ((*name).to_owned(), *units)).collect()
}

#[test]
fn limits_of_a_pool_are_all_taken_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &[MODEL]);
    let refused = |body: &str, by: &str| {
        let before = left(&node);
        let answer = node.acquire(body).acquired();
        assert_eq!((answer.allowed, answer.limited_by.as_deref()), (false, Some(by)), "{body}");
        assert_eq!(left(&node), before, "{body}");
    };
    assert!(node.acquire(r#"{"pool":"model","tokens":600}"#).acquired().allowed);
    assert_eq!(left(&node), amounts(&[("rph", 9), ("tph", 400), ("max_concurrent", 1)]));
    refused(r#"{"pool":"model","tokens":401,"wait_ms":0}"#, "tph");
    assert!(node.acquire(r#"{"pool":"model","tokens":1}"#).acquired().allowed);
    refused(r#"{"pool":"model","tokens":1,"wait_ms":0}"#, "max_concurrent");
    refused(r#"{"pool":"model","tokens":1,"wait_ms":60}"#, "max_concurrent");
    let never = node.acquire(r#"{"pool":"model","requests":3}"#).acquired();
    assert_eq!((never.reason, never.limited_by.as_deref()), (Some(Reason::Never), Some("max_concurrent")));
    let limits: Limits = node.limits();
    let kinds: Vec<_> = limits.limits.iter().map(|limit| (limit.kind.as_str(), limit.in_use)).collect();
    assert_eq!(kinds, [("rate", None), ("rate", None), ("concurrency", Some(2))]);
}

#[test]
fn a_permit_is_settled_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &[MODEL]);
    let one = permit(&node, r#"{"pool":"model","tokens":500}"#);
    let reply = settle(&node, &one, "commit", r#"{"tokens":120}"#);
    let answer: SettleAnswer = reply.json();
    assert_eq!((reply.status, answer.refunded, answer.debt), (200, amounts(&[("tph", 380)]), amounts(&[])));
    assert_eq!((answer.ended.as_str(), answer.repeated), ("committed", false));
    assert_eq!(left(&node), amounts(&[("rph", 9), ("tph", 880), ("max_concurrent", 2)]));
    for (verb, body) in [("commit", r#"{"tokens":900}"#), ("commit", ""), ("release", "")] {
        let again: SettleAnswer = settle(&node, &one, verb, body).json();
        assert_eq!((again.refunded, again.repeated), (amounts(&[("tph", 380)]), true), "{verb}");
    }
    assert_eq!(left(&node)["tph"], 880);

    let two = permit(&node, r#"{"pool":"model","tokens":80}"#);
    let answer: SettleAnswer = settle(&node, &two, "commit", r#"{"cost":{"tph":980}}"#).json();
    assert_eq!((answer.refunded, answer.debt), (amounts(&[]), amounts(&[("tph", 900)])));
    // 800 were left: what is owed is paid before anything more is admitted, even what costs no tokens.
    let answer = node.acquire(r#"{"pool":"model","wait_ms":0}"#).acquired();
    assert_eq!((answer.allowed, answer.limited_by.as_deref()), (false, Some("tph")));
    assert_eq!((left(&node)["tph"], left(&node)["rph"]), (0, 8));
}

#[test]
fn a_released_permit_gives_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &[MODEL]);
    let before = left(&node);
    let one = permit(&node, r#"{"pool":"model","tokens":500}"#);
    let answer: SettleAnswer = settle(&node, &one, "release", "").json();
    assert_eq!((answer.refunded, answer.ended.as_str()), (amounts(&[("rph", 1), ("tph", 500)]), "released"));
    assert_eq!(left(&node), before);
}

#[test]
fn what_an_agent_with_limits_of_its_own_did_not_use_comes_back_to_both() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), "n", &[MODEL]);
    let node = setup.config("[[agent]]\nmatch = \"x-*\"\ntpm = 600\n").start();
    let ask = r#"{"pool":"model","tokens":500,"agent":"x-1","wait_ms":0}"#;
    let one = permit(&node, ask);
    assert!(!node.acquire(ask).acquired().allowed, "its own limit has no room for twice");
    let reply = settle(&node, &one, "commit", r#"{"tokens":120}"#);
    let answer: SettleAnswer = reply.json();
    assert_eq!((reply.status, answer.refunded.len()), (200, 2), "{reply:?}");
    assert!(answer.refunded.values().all(|units| *units == 380), "{reply:?}");
    assert_eq!(left(&node)["tph"], 880);
    assert!(node.acquire(&ask.replace("500", "480")).acquired().allowed);
    let settled = settle(&node, &permit(&node, r#"{"pool":"model","agent":"x-2"}"#), "release", "");
    assert_eq!(settled.status, 200, "{settled:?}");
}

#[test]
fn what_cannot_be_settled_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = founder(&dir, &[MODEL]);
    let short = permit(&node, r#"{"pool":"model","tokens":5,"ttl_ms":50}"#);
    let long = permit(&node, r#"{"pool":"model","tokens":5}"#);
    wait_until("its slot is free", || left(&node)["max_concurrent"] == 1);
    let never = format!("{}{}", &long[..24], "00ffffff");
    let cases = [
        (short.as_str(), "commit", "", 410, "time to live"),
        (&never, "release", "", 404, "never issued"),
        ("01J", "commit", "", 400, "hexadecimal"),
        (&long, "commit", "[]", 400, "object"),
        (&long, "commit", r#"{"token":1}"#, 400, "\"tokens\""),
        (&long, "commit", r#"{"cost":{"tpm":1}}"#, 400, "\"tph\""),
        (&long, "commit", r#"{"tokens":-1}"#, 400, "whole number"),
        (&long, "release", r#"{"tokens":1}"#, 400, "no member"),
    ];
    for (permit, verb, body, status, words) in cases {
        let reply = settle(&node, permit, verb, body);
        assert_eq!((reply.status, &*reply.headers["content-type"]), (status, "application/problem+json"));
        assert!(reply.json::<Problem>().detail.contains(words), "{body}: {}", reply.body);
    }
    assert_eq!(left(&node), amounts(&[("rph", 8), ("tph", 990), ("max_concurrent", 1)]));
    assert_eq!(node.http().get(&format!("/v1/permits/{long}/commit")).status, 405);

    let setup = node.setup.clone();
    assert_eq!(node.stop(), 0);
    let node = setup.start();
    let reply = settle(&node, &long, "commit", "");
    assert!(reply.status == 410 && reply.body.contains("restarted"), "{reply:?}");
}

#[test]
fn bound_permits_end_with_their_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["slots:max_concurrent=2"]);
    let ask = r#"{"pool":"slots","bind":"connection","wait_ms":20000}"#;
    let (mut one, mut two, mut three) = (node.http(), node.http(), node.http());
    let first = one.post("/v1/acquire", ask).acquired().permit.unwrap();
    assert!(two.post("/v1/acquire", ask).acquired().allowed);
    three.send(post("/v1/acquire", ask));
    wait_until("the third waits", || node.waiting() == 1);
    drop(two);
    assert!(three.reply().unwrap().acquired().allowed);
    // Who hangs up without reading the answer holds nothing either.
    let mut deaf = node.http();
    deaf.send(post("/v1/acquire", ask));
    wait_until("the deaf one waits", || node.waiting() == 1);
    let slots = |free| wait_until("slots are free", || left(&node)["max_concurrent"] == free);
    drop(three);
    wait_until("nobody waits", || node.waiting() == 0);
    drop(deaf);
    slots(1);
    drop(one);
    slots(2);
    let ended: SettleAnswer = settle(&node, &first, "commit", "").json();
    assert_eq!((ended.ended.as_str(), ended.repeated), ("closed", true));
    // One that is not bound outlives its connection.
    assert!(node.acquire(r#"{"pool":"slots"}"#).acquired().allowed);
    thread::sleep(Duration::from_millis(100));
    slots(1);
}

#[test]
fn items_of_several_pools_are_all_taken_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["a:few=2/1h", "b:tph=100"]);
    let both = r#"{"items":[{"pool":"a"},{"pool":"b","tokens":60}],"wait_ms":0}"#;
    let answer = node.acquire(both).acquired();
    assert!(answer.allowed);
    let names: Vec<_> = answer.limits.iter().map(|limit| (limit.name.as_str(), limit.remaining)).collect();
    assert_eq!((answer.pool.as_str(), &names[..]), ("a", &[("a/few", 1), ("b/tph", 40)][..]));
    let reply = node.acquire(both);
    let refused = reply.acquired();
    assert_eq!((refused.allowed, refused.limited_by.as_deref()), (false, Some("b/tph")));
    assert!(reply.headers["ratelimit"].contains("\"b/tph\";r=40"), "{reply:?}");
    assert_eq!(left(&node)["few"], 1, "the request of a is not taken");
    let settled: SettleAnswer = settle(&node, &answer.permit.unwrap(), "release", "{}").json();
    assert_eq!(settled.refunded, amounts(&[("a/few", 1), ("b/tph", 60)]));
    assert!(node.acquire(both).acquired().allowed);
}

#[test]
fn the_first_of_several_pools_that_admits_counts() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["large:few=1/1h", "small:few=1/1s", "tiny:few=1/10s"]);
    let ask = |wait: u64| {
        let body = format!(r#"{{"pool":["large","tiny","small"],"wait_ms":{wait}}}"#);
        let answer = node.acquire(&body).acquired();
        (answer.allowed, answer.pool)
    };
    assert_eq!(ask(0), (true, "large".to_owned()));
    assert_eq!(ask(0), (true, "tiny".to_owned()));
    assert_eq!(ask(0), (true, "small".to_owned()));
    assert_eq!(ask(20_000), (true, "small".to_owned()), "the one that is soonest");
    assert_eq!(ask(0), (false, "small".to_owned()));
    let pools = node.status().pools;
    assert_eq!(pools[0].limits[0].admitted, 1, "asking elsewhere takes nothing");
}

#[test]
fn the_simple_coordinator_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["api:few=3/1h", "words:tph=100"]);
    let allow = |body: &str| -> AllowAnswer {
        let reply = node.http().post("/allow", body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    let expected = |allowed, count, max| AllowAnswer { allowed, count, max, retry_after: 0.0 };
    assert_eq!(allow(""), expected(true, 1, 3));
    assert_eq!(allow(r#"{"pool":"api","cost":2}"#), expected(true, 3, 3));
    let refused = allow("{}");
    assert_eq!((refused.allowed, refused.count), (false, 3));
    assert!((1_000.0..1_500.0).contains(&refused.retry_after), "{refused:?}");
    assert_eq!(allow(r#"{"pool":"words","cost":70}"#), expected(true, 70, 100));
    assert!(allow(r#"{"pool":"words","cost":700}"#).retry_after < 0.0);
    assert_eq!(node.http().get("/allow").status, 405);
    assert_eq!(node.http().post("/allow", r#"{"pools":"api"}"#).status, 400);
}

/// A caller that tells where its answer stands among those of all.
fn waits(node: &Daemon, body: &str) -> Http {
    let waiting = node.waiting();
    let mut http = node.http();
    http.send(post("/v1/acquire", body));
    wait_until("it waits", || node.waiting() == waiting + 1);
    http
}

/// Callers in the order in which they are answered, by the place at which they asked.
fn order(callers: Vec<Http>) -> Vec<usize> {
    let threads = callers.into_iter().enumerate().map(|(place, mut http)| {
        thread::spawn(move || {
            assert!(http.reply().unwrap().acquired().allowed);
            (Instant::now(), place)
        })
    });
    let threads: Vec<_> = threads.collect();
    let mut answers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    answers.sort();
    answers.into_iter().map(|(_, place)| place).collect()
}

#[test]
fn urgent_requests_overtake_and_agents_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["api:calls=10/1s,burst=1"]);
    assert_eq!(node.http().post("/v1/pause", r#"{"pool":"api"}"#).status, 204);
    let ask = |agent: &str, priority: &str| {
        format!(r#"{{"pool":"api","agent":"{agent}","priority":"{priority}","wait_ms":25000}}"#)
    };
    let bodies = [
        ask("busy", "low"),
        ask("busy", "normal"),
        ask("busy", "normal"),
        ask("busy", "normal"),
        ask("quiet", "normal"),
        ask("pager", "critical"),
    ];
    let callers: Vec<Http> = bodies.iter().map(|body| waits(&node, body)).collect();
    let classes = node.status().pools[0].waiting_by_class;
    assert_eq!((classes.critical, classes.high, classes.normal, classes.low), (1, 0, 4, 1));
    assert_eq!(node.http().post("/v1/resume", r#"{"pool":"api"}"#).status, 204);
    assert_eq!(order(callers), [5, 1, 4, 2, 3, 0]);
    let top: Vec<_> =
        node.status().pools[0].top_agents.iter().map(|top| (top.agent.clone(), top.admitted)).collect();
    assert_eq!(top[0], ("busy".to_owned(), 4));
}

#[test]
fn a_script_of_the_standard_library_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &[MODEL]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/caller.py");
    let output = std::process::Command::new("python3").arg(script).arg(node.socket()).output();
    let output = output.expect("this test needs python3, with its standard library alone");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["refunded"]["tph"], 188);
    assert_eq!((said["refused"].as_str(), said["retry"].as_bool()), (Some("limit"), Some(true)));
    node.signal(Signal::TERM);
}
