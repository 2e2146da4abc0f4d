//! The command as scripts see it: what it prints and how it ends.
#![cfg(feature = "daemon")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

/// The command without what the environment would add.
fn aquifer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aquifer"));
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"AQUIFER_"))
    {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    ended(aquifer(arguments).output().unwrap())
}

fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Answers one request at `socket` with `answer`, and gives back what was asked.
fn daemon(socket: &Path, status: &str, body: &str) -> thread::JoinHandle<String> {
    let listener = UnixListener::bind(socket).unwrap();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut byte = [0];
        // Head, then as much body as it says, one byte at a time: the client keeps the connection.
        let complete = |asked: &[u8]| {
            let text = String::from_utf8_lossy(asked).to_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
        };
        while !complete(&asked) {
            assert_eq!(stream.read(&mut byte).unwrap(), 1);
            asked.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    })
}

#[test]
fn usage_errors_end_with_64_and_help_with_0() {
    for wrong in [
        &[][..],
        &["frobnicate"],
        &["acquire"],
        &["acquire", "p", "--wait", "30"],
        &["acquire", "p", "--wait", "1s", "--no-wait"],
        &["acquire", "p", "--cost", "otpm"],
        &["acquire", "p", "--cost", "a=1", "--cost", "a=2"],
        &["acquire", "p", "--priority", "urgent"],
        &["up", "--join", "aq1short"],
        &["up", "--join", "@/nonexistent/token"],
    ] {
        let (status, out, error) = run(wrong);
        assert_eq!((status, out.as_str()), (64, ""), "{wrong:?}: {error}");
        assert!(!error.is_empty(), "{wrong:?}");
    }
    for help in [&["--help"][..], &["up", "--help"], &["acquire", "-h"], &["--version"]] {
        let (status, out, _) = run(help);
        assert_eq!(status, 0, "{help:?}");
        assert!(!out.is_empty(), "{help:?}");
    }
    assert!(run(&["up", "--help"]).1.contains("--pool api:rpm=500,burst=50"));
}

#[test]
fn a_good_file_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aquifer.toml");
    let text = r#"
        [[pool]]
        name = "api"
        rpm = 50
        tpd = { amount = 5_000, zone = "europe/berlin" }
        max_concurrent = 8
        breaker = { failure_rate = 0.07 }
        [[pool.limit]]
        name = "spike"
        kind = "window"
        amount = 3
        per = "1s"
        [[pool]]
        name = "users"
        rps = { amount = 2, burst = 9 }
        keyed = true
        overflow = "refuse"
        [[agent]]
        match = "researcher-*"
        weight = 2.5
        max_share = 0.4
        rpm = 10
    "#;
    fs::write(&file, text).unwrap();
    let (status, out, error) = run(&["check", file.to_str().unwrap()]);
    assert_eq!((status, error.as_str()), (0, ""));
    let listing = "\
: ok, 2 pools
  pool api
    rpm: 50 requests per 1m, burst 50
    tpd: 5000 tokens each day of Europe/Berlin
    max_concurrent: 8 requests at once, each for at most 10m
    spike: 3 requests in any 1s
    queue: up to 1000 requests, for 30s unless they say; up a class after 10s
    breaker: opens for 15s if 7 % of at least 20 calls fail in 30s
  pool users
    rps: 2 requests per 1s, burst 9
    keyed: all of it for each key, up to 1000000 keys
    queue: up to 1000 requests, for no time unless they say; up a class after 10s
  agent researcher-*
    weight: 2.5
    share: at most 40 % of each limit
    rpm: 10 requests per 1m, burst 10
";
    assert_eq!(out, format!("{}{listing}", file.display()));
}

#[test]
fn check_and_up_say_the_same_of_a_bad_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aquifer.toml");
    fs::write(&file, "[swarm]\npolcy = \"strict\"\n[[pool]]\nname = \"api\"\nrpm = 0\n").unwrap();
    let file = file.to_str().unwrap();
    let checked = run(&["check", file]);
    assert_eq!((checked.0, checked.1.as_str()), (78, ""));
    let lines: Vec<_> = checked.2.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], format!("aquifer: {file}:2: swarm.polcy: unknown key; did you mean \"policy\"?"));
    assert_eq!(run(&["up", "--config", file]), checked);
    let (status, _, error) = run(&["check", "/nonexistent/aquifer.toml"]);
    assert_eq!(status, 78);
    assert!(error.contains("/nonexistent/aquifer.toml: cannot be read"), "{error}");
}

#[test]
fn a_flag_beats_the_environment() {
    let mut command = aquifer(&["up", "--policy", "lax"]);
    let (status, _, error) = ended(command.env("AQUIFER_POLICY", "loose").output().unwrap());
    assert_eq!(status, 78);
    assert!(error.contains("lax") && !error.contains("loose"), "{error}");
    let (_, _, error) = ended(aquifer(&["up"]).env("AQUIFER_POLICY", "loose").output().unwrap());
    assert!(error.contains("loose"), "{error}");
}

#[test]
fn without_a_daemon_commands_end_with_69_and_say_how_to_start_one() {
    for command in [&["status"][..], &["acquire", "p"], &["peers"], &["limits"], &["token"]] {
        let (status, out, error) = run(&[&["--socket", "/nonexistent/a.sock"], command].concat());
        assert_eq!((status, out.as_str()), (69, ""), "{command:?}");
        assert!(
            error.contains("no daemon answers at /nonexistent/a.sock; start one with `aquifer up`"),
            "{error}"
        );
    }
    let mut command = aquifer(&["status"]);
    let (status, _, error) = ended(command.env("AQUIFER_SOCKET", "/nonexistent/b.sock").output().unwrap());
    assert_eq!(status, 69);
    assert!(error.contains("/nonexistent/b.sock"), "{error}");
}

#[test]
fn a_permit_is_asked_for_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let body = r#"{"allowed":true,"permit":"01J","pool":"api","waited_ms":840,"expires_in_ms":120000,
        "guarantee":"strict","worst_case_factor":1.0,"limits":[{"name":"rpm","limit":50,"used":37,"remaining":13,"held":9,
        "reset_in_ms":9600}],"retry_after_ms":null}"#;
    let asked = daemon(&socket, "200 OK", body);
    let arguments =
        ["acquire", "api", "--tokens", "1200", "--cost", "otpm=800", "--wait", "30s", "--priority", "high"];
    let (status, out, error) = run(&[&["--socket", socket.to_str().unwrap()][..], &arguments].concat());
    assert_eq!((status, error.as_str()), (0, ""));
    assert_eq!(out, "admitted after 0.84 s; 13 of 50 rpm left in the swarm; permit 01J\n");
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("POST /v1/acquire HTTP/1.1\r\n"), "{asked}");
    let body = r#"{"pool":"api","tokens":1200,"cost":{"otpm":800},"priority":"high","wait_ms":30000}"#;
    assert!(asked.ends_with(body), "{asked}");
}

#[test]
fn a_refusal_ends_with_75_and_says_why_and_when() {
    let dir = tempfile::tempdir().unwrap();
    let body = r#"{"allowed":false,"permit":null,"pool":"api","waited_ms":0,"expires_in_ms":null,"guarantee":"strict","worst_case_factor":1.0,
        "limits":[],"retry_after_ms":3200,"reason":"limit","limited_by":"rpm","detail":"…","status":429}"#;
    for (name, json) in [("a", &[][..]), ("b", &["--json"])] {
        let socket = dir.path().join(name);
        let asked = daemon(&socket, "429 Too Many Requests", body);
        let (status, out, error) =
            run(&[&["acquire", "api", "--no-wait", "--socket", socket.to_str().unwrap()][..], json].concat());
        assert_eq!(status, 75);
        assert!(asked.join().unwrap().ends_with(r#"{"pool":"api","wait_ms":0}"#));
        if json.is_empty() {
            assert_eq!(
                (out.as_str(), error.as_str()),
                ("", "aquifer: refused: rpm has no room now; ask again in 3.2 s\n")
            );
        } else {
            assert!(out.contains(r#""reason": "limit""#) && error.is_empty(), "{out}{error}");
        }
    }
}

#[test]
fn a_problem_is_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let body =
        r#"{"title":"unknown pool","status":404,"detail":"there is no pool \"apy\"; did you mean \"api\"?"}"#;
    daemon(&socket, "404 Not Found", body);
    let (status, out, error) = run(&["acquire", "apy", "--socket", socket.to_str().unwrap()]);
    assert_eq!((status, out.as_str()), (64, ""));
    assert_eq!(error, "aquifer: there is no pool \"apy\"; did you mean \"api\"?\n");
}

#[test]
fn a_daemon_that_hangs_up_is_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let hanging_up = thread::spawn(move || drop(listener.accept().unwrap()));
    let (status, _, error) = run(&["status", "--socket", socket.to_str().unwrap()]);
    hanging_up.join().unwrap();
    assert_eq!(status, 69);
    assert!(error.contains("hung up"), "{error}");
}

#[test]
fn completions_and_the_version_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let (status, out, _) = run(&["completion", shell]);
        assert_eq!(status, 0);
        assert!(out.contains("aquifer") && out.contains("acquire"), "{shell}");
    }
    assert_eq!(run(&["version"]).1, format!("aquifer {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for command in [&["completion", "bash"][..], &["version"], &["up", "--help"]] {
        let output =
            aquifer(command).stdout(writer.try_clone().unwrap()).stderr(Stdio::piped()).output().unwrap();
        let (status, _, error) = ended(output);
        assert_eq!((status, error.as_str()), (0, ""), "{command:?}");
    }
}
