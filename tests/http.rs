//! The HTTP socket as tools meet it: kept and pipelined connections, metrics, events, leaving and reloading.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use aquifer::daemon::api::{AllowAnswer, Problem, Reason, Status};
use process::{Daemon, PATIENCE, Setup, post, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

fn founder(dir: &TempDir, pools: &[&str]) -> Daemon {
    Setup::new(dir.path(), "n", pools).start()
}

#[test]
fn curl_keeps_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["api:rph=10"]);
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--unix-socket"])
        .arg(node.socket())
        .args(["--write-out", "\n%{http_code} %{num_connects}\n", "--json", r#"{"pool":"api"}"#])
        .args(["http://aquifer/v1/acquire", "http://aquifer/allow", "http://aquifer/v1/observe"])
        .output()
        .expect("this test needs curl");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let codes: Vec<&str> = said.lines().filter(|line| line.starts_with(char::is_numeric)).collect();
    assert_eq!(codes, ["200 1", "200 0", "400 0"], "{said}");
}

#[test]
fn however_a_request_is_written_it_is_answered_alike() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["api:rph=1000"]);
    let body = r#"{"pool":"api"}"#;
    let request = |headers: &str, body: &str| {
        format!("POST /allow HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{headers}\r\n{body}")
    };
    let length = format!("content-length: {}\r\n", body.len());
    let plain = request(&length, body);
    // The others are not plain: from them on the connection is served otherwise.
    let others = [
        request("transfer-encoding: chunked\r\n", &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())),
        request(&format!("{length}connection: keep-alive, x\r\n"), body),
        plain.replace("/allow", "/allow?x=1"),
    ];
    let mut count = 0;
    for other in others {
        let mut http = node.http();
        let mut replies = Vec::new();
        http.send(plain.repeat(2) + &other + &plain);
        for _ in 0..4 {
            replies.push(http.reply().unwrap());
        }
        let names: Vec<Vec<&String>> = replies.iter().map(|reply| reply.headers.keys().collect()).collect();
        assert!(names.iter().all(|of| of == &names[0]), "{names:?} after {other}");
        for reply in replies {
            count += 1;
            let answer: AllowAnswer = reply.json();
            assert_eq!((reply.status, answer.count), (200, count), "{other}");
        }
    }
    // In any pieces.
    let mut http = node.http();
    for byte in plain.chars() {
        http.send(byte.to_string());
    }
    assert_eq!(http.reply().unwrap().status, 200);
    // And what waits is given up when its caller hangs up, though more has come meanwhile.
    let mut waits = node.http();
    waits.send(post("/v1/acquire", r#"{"pool":"api","requests":1000,"wait_ms":3600000}"#) + &plain);
    wait_until("it waits", || node.waiting() == 1);
    drop(waits);
    wait_until("nobody waits", || node.waiting() == 0);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["api:rph=1000", "slot:max_concurrent=1"]);
    let mut http = node.http();
    let pair = post("/allow", r#"{"pool":"api"}"#) + "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    http.send(pair.repeat(100));
    for count in 1..=100 {
        let answer: AllowAnswer = http.reply().unwrap().json();
        assert_eq!((answer.allowed, answer.count), (true, count));
        assert_eq!(http.reply().unwrap().body, "ok\n");
    }
    // What comes after a request that waits waits too, and is answered after it.
    let holder = node.acquire(r#"{"pool":"slot"}"#).acquired().permit.unwrap();
    let mut waiting = node.http();
    let wait = post("/v1/acquire", r#"{"pool":"slot","wait_ms":20000}"#);
    waiting.send(wait + "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n");
    wait_until("it waits", || node.waiting() == 1);
    assert_eq!(node.http().post(&format!("/v1/permits/{holder}/release"), "").status, 200);
    assert!(waiting.reply().unwrap().acquired().allowed);
    assert_eq!(waiting.reply().unwrap().body, "ok\n");
}

#[test]
fn who_pipelines_on_and_on_while_requests_wait_is_not_read_on_and_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["slot:max_concurrent=1"]);
    let _holder = node.acquire(r#"{"pool":"slot"}"#).acquired().permit.unwrap();
    let wait = post("/v1/acquire", r#"{"pool":"slot","wait_ms":1}"#);
    let many = wait.repeat(1_000);
    let stream = UnixStream::connect(node.socket()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut answered) = (0, 0);
    wait_until("many are answered", || {
        while let Ok(wrote) = (&stream).write(&many.as_bytes()[sent % wait.len()..]) {
            sent += wrote;
        }
        let mut answers = [0; 4 * 1_024];
        while let Ok(read) = (&stream).read(&mut answers) {
            // Each has one status line, of which a part may be in the next piece.
            answered += answers[..read].windows(8).filter(|bytes| bytes == b"HTTP/1.1").count();
        }
        answered >= 300
    });
    let ahead = sent - answered * wait.len();
    assert!(ahead < 1_000_000, "{ahead} bytes were taken beyond {answered} requests that were answered");
}

/// The samples of a page in `OpenMetrics` by name and labels, if it is one.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.pop(), text.ends_with('\n')), (Some("# EOF"), true));
    let (mut family, mut kind) = (String::new(), String::new());
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    for line in lines {
        if let Some(help) = line.strip_prefix("# HELP ") {
            help.split_once(' ').expect("a name and a text").0.clone_into(&mut family);
            assert!(family.starts_with("aquifer_") && families.insert(family.clone()), "{line}");
            kind.clear();
            continue;
        }
        if let Some(said) = line.strip_prefix("# TYPE ") {
            let (name, said) = said.split_once(' ').unwrap();
            assert_eq!((name, kind.as_str()), (family.as_str(), ""), "{line}");
            said.clone_into(&mut kind);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(labels.ends_with('}'), "{line}");
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_count", "_sum"],
            other => panic!("{other:?}: {line}"),
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line} in {family}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(kind != "counter" || value >= 0.0, "{line}");
        assert_eq!(samples.insert(series.to_owned(), value), None, "{line} is there twice");
    }
    samples
}

#[test]
fn metrics_tell_what_was_answered_and_how_things_stand() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), "n", &["api/one:rph=3,tph=100", "two:rps=1000"]);
    let node = setup.config("[[agent]]\nmatch = \"x-*\"\nrpm = 20\n").start();
    let mut http = node.http();
    let mut scrape = || {
        http.send("GET /metrics HTTP/1.1\r\nhost: a\r\naccept: application/openmetrics-text\r\n\r\n");
        let reply = http.reply().unwrap();
        assert!(reply.headers["content-type"].starts_with("application/openmetrics-text; version=1.0.0"));
        samples(&reply.body)
    };
    let before = scrape();
    let ask = |tokens: u64| node.acquire(&format!(r#"{{"pool":"api/one","tokens":{tokens},"wait_ms":0}}"#));
    assert_eq!([ask(60), ask(60), ask(200), ask(40)].map(|reply| reply.status), [200, 429, 429, 200]);
    assert_eq!(node.http().post("/allow", r#"{"pool":"two"}"#).status, 200);
    assert_eq!(node.http().post("/v1/pause", r#"{"pool":"two"}"#).status, 204);
    let after = scrape();
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>(),
        "series do not come and go"
    );
    let expected = [
        (r#"aquifer_acquires_total{pool="api/one",result="admitted",reason=""}"#, 0.0, 2.0),
        (r#"aquifer_acquires_total{pool="api/one",result="refused",reason="limit"}"#, 0.0, 1.0),
        (r#"aquifer_acquires_total{pool="api/one",result="refused",reason="never"}"#, 0.0, 1.0),
        (r#"aquifer_acquires_total{pool="two",result="admitted",reason=""}"#, 0.0, 1.0),
        (r#"aquifer_acquire_wait_seconds_bucket{pool="api/one",le="0.001"}"#, 0.0, 2.0),
        (r#"aquifer_acquire_wait_seconds_bucket{pool="api/one",le="+Inf"}"#, 0.0, 2.0),
        (r#"aquifer_acquire_wait_seconds_count{pool="api/one"}"#, 0.0, 2.0),
        (r#"aquifer_admitted_units_total{pool="api/one",limit="tph"}"#, 0.0, 100.0),
        (r#"aquifer_remaining_units{pool="api/one",limit="tph"}"#, 100.0, 0.0),
        (r#"aquifer_held_units{pool="api/one",limit="rph"}"#, 3.0, 1.0),
        (r#"aquifer_limit_units{pool="api/one",limit="rph"}"#, 3.0, 3.0),
        (r#"aquifer_held_share_ratio{pool="two",limit="rps"}"#, 1.0, 1.0),
        (r#"aquifer_paused{pool="two"}"#, 0.0, 1.0),
        (r#"aquifer_node_state{state="ready"}"#, 1.0, 1.0),
        (r#"aquifer_peers{state="connected"}"#, 0.0, 0.0),
        ("aquifer_worst_case_factor", 1.0, 1.0),
    ];
    for (series, first, then) in expected {
        assert_eq!((before.get(series), after.get(series)), (Some(&first), Some(&then)), "{series}");
    }
    let plain = node.http().get("/metrics");
    assert!(plain.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    assert!(plain.body.contains("# TYPE aquifer_acquires_total counter\n") && !plain.body.contains("# EOF"));
}

/// A reader of events.
struct Reader(BufReader<UnixStream>);

impl Reader {
    fn connect(node: &Daemon) -> Self {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: aquifer\r\n\r\n").unwrap();
        let mut reader = Self(BufReader::new(stream));
        let head: Vec<String> =
            std::iter::from_fn(|| reader.line()).take_while(|line| !line.is_empty()).collect();
        assert_eq!(head[0], "HTTP/1.1 200 OK");
        assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
        reader
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| line.trim_end_matches("\r\n").to_owned())
    }

    /// The next event: its name, number and data. None at the end of the stream.
    fn event(&mut self) -> Option<(String, u64, Value)> {
        let length = usize::from_str_radix(&self.line()?, 16).unwrap();
        let mut chunk = vec![0; length + 2];
        self.0.read_exact(&mut chunk).unwrap();
        if length == 0 {
            return None;
        }
        let text = String::from_utf8(chunk).unwrap();
        let mut fields = text.lines().map(|line| line.split_once(": "));
        let mut field = |name: &str| {
            let (found, value) = fields.next().flatten().unwrap_or_else(|| panic!("{text:?}"));
            assert_eq!(found, name, "{text:?}");
            value.to_owned()
        };
        let (event, id) = (field("event"), field("id").parse().unwrap());
        Some((event, id, serde_json::from_str(&field("data")).unwrap()))
    }

    /// The next event of this name.
    fn next(&mut self, name: &str) -> Value {
        loop {
            let (event, _, data) = self.event().unwrap_or_else(|| panic!("the end, and no {name}"));
            if event == name {
                return data;
            }
        }
    }
}

#[test]
fn events_tell_what_changes() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), "n", &["api:rph=2", "quiet:rph=2"]);
    let mut node = setup.config("[[agent]]\nmatch = \"x-*\"\nrpm = 20\n").start();
    let mut reader = Reader::connect(&node);
    let (name, mut last, data) = reader.event().unwrap();
    let status: Status = serde_json::from_value(data).unwrap();
    assert_eq!((name.as_str(), status.pools[0].name.as_str()), ("status", "api"));

    let answers: Vec<_> =
        (0..3).map(|_| node.acquire(r#"{"pool":"api","wait_ms":0}"#).acquired().allowed).collect();
    assert_eq!(answers, [true, true, false]);
    // It may fall into two seconds.
    let (mut admitted, mut refused) = (0, 0);
    while admitted + refused < 3 {
        let (name, id, data) = reader.event().unwrap();
        assert_eq!((name.as_str(), id), ("summary", last + 1));
        last = id;
        assert_eq!(data["pools"].as_array().unwrap().len(), 1, "only what was asked for: {data}");
        assert_eq!(data["pools"][0]["pool"], "api");
        admitted += data["pools"][0]["admitted"].as_u64().unwrap();
        refused += data["pools"][0]["refused"]["limit"].as_u64().unwrap_or(0);
    }
    assert_eq!((admitted, refused), (2, 1));

    assert_eq!(node.http().post("/v1/pause", r#"{"pool":"quiet","for_ms":60000}"#).status, 204);
    let data = reader.next("pause");
    assert_eq!((&data["pool"], &data["paused"]["reason"]), (&json!("quiet"), &json!("operator")));
    assert_eq!(node.http().post("/v1/resume", r#"{"pool":"quiet"}"#).status, 204);
    let data = reader.next("pause");
    assert_eq!(data, json!({"pool": "quiet", "paused": null}), "and none while the pause ran on");

    let peer = Setup::new(dir.path(), "peer", &["api:rph=2", "quiet:rph=2"]).join(&node.token());
    let mut peer = peer.start();
    while reader.next("peer")["state"] != "connected" {}
    assert_eq!(peer.stop(), 0);
    let data = reader.next("peer");
    assert_eq!((&data["name"], &data["state"]), (&json!("peer"), &json!("left")));

    let callers = || node.status().callers.connections;
    let with_two = Reader::connect(&node);
    wait_until("two read", || callers() == 3);
    drop(with_two);
    wait_until("one reads", || callers() == 2);
    assert_eq!(node.http().post("/v1/leave", "").status, 204);
    assert_eq!(reader.next("node"), json!({"state": "leaving"}));
    assert_eq!(node.ended(), 0);
}

#[test]
fn there_is_an_end_of_readers() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["api:rph=2"]);
    let mut readers: Vec<_> = (0..64).map(|_| Reader::connect(&node)).collect();
    let reply = node.http().get("/v1/events");
    assert_eq!((reply.status, reply.json::<Problem>().title.as_str()), (503, "too many readers"));
    readers.pop();
    wait_until("there is room", || {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: aquifer\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        &head == b"HTTP/1.1 200"
    });
}

#[test]
fn a_node_that_is_told_to_leave_gives_everything_back_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let node = founder(&dir, &["api:rph=60"]);
    let mut peer = Setup::new(dir.path(), "peer", &["api:rph=60"]).join(&node.token()).start();
    wait_until("it has a share", || peer.status().node.base_share > 0.4);
    assert_eq!(peer.http().post("/v1/leave", r#"{"now":true}"#).status, 400);
    assert_eq!(peer.http().post("/v1/leave", "{}").status, 204);
    assert_eq!(peer.ended(), 0);
    wait_until("the share is back", || (node.status().node.base_share - 1.0).abs() < 1e-9);
}

/// A node with this file, and what reloading says: the status, and what is in the answer.
struct Reloaded {
    node: Daemon,
    file: std::path::PathBuf,
}

impl Reloaded {
    fn start(dir: &TempDir, text: &str) -> Self {
        let node = Setup::new(dir.path(), "n", &[]).config(text).start();
        Self { node, file: dir.path().join("n.toml") }
    }

    fn reload(&self, text: &str) -> (u16, Value) {
        fs::write(&self.file, text).unwrap();
        let reply = self.node.http().post("/v1/reload", "");
        (reply.status, if reply.status == 204 { Value::Null } else { reply.json() })
    }
}

const RELOADED: &str = r#"
[access]
max_connections_per_user = 71
[[pool]]
name = "api"
rph = 5
overflow = "refuse"
"#;

#[test]
fn reloading_says_what_needs_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let it = Reloaded::start(&dir, RELOADED);
    assert_eq!(it.reload(RELOADED), (204, Value::Null));
    assert_eq!(it.reload(&format!("# other words for it\n{RELOADED}")).0, 204);
    // What can be is taken up beside it, and both are said.
    let (status, answer) = it.reload(&RELOADED.replace("rph = 5", "rph = 6").replace("71", "72"));
    assert_eq!(status, 200);
    assert_eq!(
        (&answer["applied"], &answer["needs_restart"]),
        (&json!(["access.max_connections_per_user"]), &json!(["pool \"api\".limits"]))
    );
    let status = it.node.status();
    assert_eq!((status.callers.max_connections_per_user, status.pools[0].limits[0].amount), (72, 5));
    // Of what is wrong nothing is.
    let (status, answer) = it.reload(&RELOADED.replace("rph = 5", "rpn = 6").replace("71", "73"));
    let detail = answer["detail"].as_str().unwrap();
    assert!(status == 409 && detail.contains("n.toml:6") && detail.contains("rpn"), "{status}: {detail}");
    assert_eq!(it.node.status().callers.max_connections_per_user, 72, "it runs on as it did");
}

#[test]
fn what_is_reloaded_is_in_force_with_the_next_request() {
    let dir = tempfile::tempdir().unwrap();
    let it = Reloaded::start(&dir, RELOADED);
    let ask = |body: &str| it.node.acquire(body);
    assert_eq!((0..6).filter(|_| ask(r#"{"pool":"api"}"#).status == 200).count(), 5);
    // Who waits, and for how long.
    let text = RELOADED.replace("overflow = \"refuse\"", "queue_timeout = \"1s\"\nmax_queue = 1");
    assert_eq!(it.reload(&text), (204, Value::Null));
    // It would be refused at once still, as its turn comes far later than that; who names a longer wait waits.
    let mut waits = it.node.http();
    waits.send(post("/v1/acquire", r#"{"pool":"api","wait_ms":3600000}"#));
    wait_until("it waits", || it.node.waiting() == 1);
    let full = ask(r#"{"pool":"api","wait_ms":3600000}"#).acquired();
    assert_eq!(full.reason, Some(Reason::QueueFull), "room for one");
    assert_eq!(it.node.status().pools[0].limits[0].now.used, 5, "what was used stays used");
    // What Envoy's rules say.
    let descriptors = r#"{"domain":"d","descriptors":[{"entries":[{"key":"k","value":"v"}]}]}"#;
    assert_eq!(it.node.http().post("/json", descriptors).status, 200);
    let rules = "[[rls]]\ndomain = \"d\"\nentries = [{ key = \"k\" }]\npool = \"api\"\n";
    assert_eq!(it.reload(&format!("{text}{rules}")), (204, Value::Null));
    assert_eq!(it.node.http().post("/json", descriptors).status, 429);
}

#[test]
fn agents_weigh_as_the_reloaded_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[pool]]\nname = \"api\"\nrps = { amount = 20, burst = 1 }\n";
    let it = Reloaded::start(&dir, text);
    // Both are known, and have the same weight.
    for agent in ["small", "great"] {
        it.node.acquire(&format!(r#"{{"pool":"api","agent":"{agent}","wait_ms":5000}}"#));
    }
    let heavy = format!("{text}[[agent]]\nmatch = \"great\"\nweight = 4.0\n");
    assert_eq!(it.reload(&heavy), (204, Value::Null));
    let served = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for place in 0..40 {
            let (served, node) = (&served, &it.node);
            let agent = ["small", "great"][place % 2];
            scope.spawn(move || {
                let ask = format!(r#"{{"pool":"api","agent":"{agent}","wait_ms":20000}}"#);
                assert_eq!(node.acquire(&ask).status, 200);
                served.lock().unwrap().push(agent);
            });
        }
    });
    // Four to one until the great have had theirs, give or take those that came first.
    let served = served.into_inner().unwrap();
    let great = served[..20].iter().filter(|agent| **agent == "great").count();
    assert!((14..=18).contains(&great), "{great} of the first 20: {served:?}");
}

#[test]
fn a_hangup_reloads() {
    let dir = tempfile::tempdir().unwrap();
    let it = Reloaded::start(&dir, RELOADED);
    let hang_up = || {
        let pid = rustix::process::Pid::from_raw(it.node.pid() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    };
    fs::write(&it.file, RELOADED.replace("71", "72")).unwrap();
    hang_up();
    let most = || it.node.status().callers.max_connections_per_user;
    wait_until("it has other quotas", || most() == 72);
    fs::write(&it.file, "what is this").unwrap();
    hang_up();
    assert_eq!(it.node.http().post("/v1/reload", "").status, 409);
    assert_eq!(most(), 72, "it runs on");
}
