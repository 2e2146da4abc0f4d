//! The Redis protocol, as clients of other people's making speak it: redis-cli, redis-benchmark, redis-py and the crate
//! `redis`. `scripts/clients.sh` installs those that are no crates.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use aquifer::protocol::limit::Rate;
use process::{Daemon, Setup, checked, monotonic, wait_until, wait_until_whole};
use tempfile::TempDir;

fn setup(dir: &Path, name: &str) -> Setup {
    let socket = resp(dir, name);
    let config = format!(
        "[listen]\nresp = [\"unix:{}\", \"127.0.0.1:0\"]\n[[agent]]\nmatch = \"x-*\"\nrpm = 20\n",
        socket.display()
    );
    Setup::new(dir, name, &["p:rpm=60,tpm=1000", "slots:max_concurrent=2"]).config(&config)
}

fn resp(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.resp"))
}

fn one() -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = setup(dir.path(), "a").start();
    (dir, daemon)
}

/// What a program of another package prints.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?} does not run ({error}): scripts/clients.sh installs what the tests need")
    });
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn redis_cli(dir: &Path, arguments: &str) -> Vec<String> {
    let mut command = Command::new("redis-cli");
    command.arg("-s").arg(resp(dir, "a")).args(arguments.split(' '));
    printed(&mut command).lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

/// The TCP address that the daemon says it serves.
fn tcp_port(setup: &Setup) -> u16 {
    let output = setup.output();
    let line =
        output.lines().find_map(|line| line.strip_prefix("redis    127.0.0.1:")).expect("it says where");
    line.parse().unwrap()
}

/// Bytes on the socket, without any client.
struct Raw(UnixStream);

impl Raw {
    fn connect(dir: &Path) -> Self {
        let stream = UnixStream::connect(resp(dir, "a")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(stream)
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    fn hears(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        self.0.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    fn hears_the_end(&mut self) -> String {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }
}

#[test]
fn redis_cli_throttles_as_with_redis_cell() {
    let (dir, _daemon) = one();
    let cli = |arguments| redis_cli(dir.path(), arguments);
    // The example of redis-cell's own page: 30 a minute, up to 16 at once.
    assert_eq!(cli("cl.throttle user123 15 30 60 1"), ["0", "16", "15", "-1", "2"]);
    assert_eq!(cli("CL.THROTTLE user123 15 30 60"), ["0", "16", "14", "-1", "4"]);
    assert_eq!(cli("CL.THROTTLE user123 15 30 60 14"), ["0", "16", "0", "-1", "32"]);
    assert_eq!(cli("CL.THROTTLE user123 15 30 60"), ["1", "16", "0", "2", "32"]);
    assert_eq!(cli("CL.THROTTLE user123 15 30 60 0"), ["0", "16", "0", "-1", "32"]);
    assert_eq!(cli("CL.THROTTLE user123 15 30 60 17"), ["1", "16", "0", "-1", "32"]);
    assert_eq!(cli("CL.THROTTLE another 15 30 60 16"), ["0", "16", "0", "-1", "32"]);
    for (arguments, error) in [
        ("cl.throttle user 15 30", "ERR wrong number of arguments for 'cl.throttle' command"),
        ("cl.throttle user x 30 60", "ERR max_burst is 'x', must be a whole number from 0"),
        ("cl.throttle user 15 0 60", "ERR count is '0', must be a whole number from 1"),
        (
            "cl.throttle user 15 30 99999999",
            "ERR period is '99999999', must be a whole number from 1 to 2678400",
        ),
        ("cl.throttle user 15 30 60 -1", "ERR quantity is '-1', must be a whole number"),
        ("cl.throtle user 15 30 60", "ERR unknown command 'cl.throtle', did you mean cl.throttle?"),
        ("get user", "ERR unknown command 'get'; this is no Redis"),
        ("select 1", "ERR DB index is out of range"),
    ] {
        let said = cli(arguments).join(" ");
        assert!(said.starts_with(error), "{arguments}: {said}");
    }
}

#[test]
fn what_clients_say_first_is_answered() {
    let (dir, _daemon) = one();
    let cli = |arguments| redis_cli(dir.path(), arguments);
    assert_eq!(cli("ping"), ["PONG"]);
    assert_eq!(cli("ping hello"), ["hello"]);
    assert!(cli("info").iter().any(|line| line.starts_with("aquifer_version:")));
    assert_eq!(cli("client setinfo lib-name x"), ["OK"]);
    assert!(cli("command docs cl.throttle").join(" ").contains("CL.THROTTLE key max_burst"));
    assert_eq!(cli("command list").len().to_string(), cli("command count")[0]);
    assert!(cli("-3 hello 3").join(" ").contains("server aquifer"));
    assert!(cli("hello 4").join(" ").starts_with("NOPROTO"));
    assert_eq!(cli("-3 cl.throttle user 1 1 1"), ["0", "2", "1", "-1", "1"]);
    assert_eq!(cli("reset"), ["RESET"]);
    let port = tcp_port(&setup(dir.path(), "a"));
    let mut over_tcp = Command::new("redis-cli");
    over_tcp.args(["-h", "127.0.0.1", "-p", &port.to_string(), "cl.throttle", "user", "1", "1", "1", "0"]);
    assert!(printed(&mut over_tcp).starts_with("0\n2\n"));
}

#[test]
fn pools_are_asked_settled_and_looked_at() {
    let (dir, daemon) = one();
    let cli = |arguments: &str| redis_cli(dir.path(), arguments);
    let admitted = cli("aq.acquire p TOKENS 100 WAIT 1000 AGENT a PRIORITY high TTL 5000");
    assert_eq!((&*admitted[0], &*admitted[3], admitted.len()), ("1", "5000", 4), "{admitted:?}");
    assert_eq!(cli(&format!("aq.commit {} TOKENS 40", admitted[1])), ["refunded", "tpm", "60", "debt"]);
    let own = cli("aq.acquire p TOKENS 100 AGENT x-1");
    assert_eq!(cli(&format!("aq.commit {} TOKENS 30", own[1])), ["refunded", "tpm", "70", "debt"]);
    let refused = cli("aq.acquire p TOKENS 990 WAIT 0");
    assert_eq!((&*refused[0], &*refused[1], &*refused[2]), ("0", "limit", "tpm"), "{refused:?}");
    assert_eq!(cli("aq.acquire p TOKENS 1001 WAIT 5000")[..3], ["0", "never", "tpm"]);
    let second = cli("aq.acquire p");
    assert!(cli(&format!("aq.release {}", second[1])).contains(&"rpm".to_owned()));
    let status: serde_json::Value = serde_json::from_str(&cli("aq.status").join("\n")).unwrap();
    assert_eq!(status["node"]["name"], "a");
    for (arguments, error) in [
        ("aq.acquire q", "ERR there is no pool \"q\""),
        ("aq.acquire p TOKENS x", "ERR TOKENS is 'x', must be a whole number"),
        ("aq.acquire p WAIT", "ERR syntax error: WAIT needs a value"),
        ("aq.acquire p HURRY 1", "ERR syntax error: unknown option 'hurry'"),
        ("aq.commit nonsense", "ERR"),
    ] {
        let said = cli(arguments).join(" ");
        assert!(said.starts_with(error), "{arguments}: {said}");
    }
    assert_eq!(daemon.waiting(), 0);
}

#[test]
fn who_waits_holds_nobody_up_and_hangs_up_without_a_trace() {
    let (dir, daemon) = one();
    let mut holder = Raw::connect(dir.path());
    holder.say("AQ.ACQUIRE slots BIND\r\nAQ.ACQUIRE slots BIND\r\n");
    wait_until("both slots are taken", || redis_cli(dir.path(), "aq.acquire slots")[0] == "0");
    let mut waiter = Raw::connect(dir.path());
    // What follows is answered after it, in order.
    waiter.say("AQ.ACQUIRE slots WAIT 30000\r\nPING\r\n");
    let mut gone = Raw::connect(dir.path());
    gone.say("AQ.ACQUIRE slots WAIT 30000\r\n");
    wait_until("two wait", || daemon.waiting() == 2);
    assert_eq!(redis_cli(dir.path(), "ping"), ["PONG"]);
    drop(gone);
    wait_until("one wait", || daemon.waiting() == 1);
    // The slots end with the connection that they are bound to.
    drop(holder);
    waiter.hears("*4\r\n:1\r\n$");
    let mut rest = [0; 4_096];
    let mut text = String::new();
    while !text.contains("+PONG\r\n") {
        let length = waiter.0.read(&mut rest).unwrap();
        assert!(length > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&rest[..length]));
    }
    assert_eq!(daemon.waiting(), 0);
}

#[test]
fn throttles_are_counted_for_metrics_and_events() {
    let (dir, daemon) = one();
    let mut events = UnixStream::connect(daemon.socket()).unwrap();
    events.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    events.write_all(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut events = BufReader::new(events).lines().map(Result::unwrap);
    events.find(|line| line == "event: status").expect("it begins");
    let mut raw = Raw::connect(dir.path());
    // In one batch, after one that the node knows and before one that it does not.
    raw.say(format!("PING\r\n{}CL.THROTTLE key 2 1\r\nNO\r\n", "CL.THROTTLE key 2 1 60\r\n".repeat(5)));
    raw.hears("+PONG\r\n*5\r\n:0\r\n:3\r\n");
    let summary = events.find(|line| line.contains("\"throttles\"")).expect("it tells");
    assert!(summary.contains(r#""throttles":{"admitted":3,"refused":2,"failed":1}"#), "{summary}");
    assert!(summary.contains(r#""pools":[]"#), "{summary}");
    let metrics = daemon.http().get("/metrics").body;
    for (result, count) in [("admitted", 3), ("refused", 2), ("error", 1)] {
        let line = format!("aquifer_throttles_total{{result=\"{result}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[test]
fn redis_benchmark_finds_nothing_to_complain_about() {
    let (dir, daemon) = one();
    for more in [&["-P", "1"][..], &["-P", "16"], &["-P", "16", "-3"]] {
        let mut command = Command::new("redis-benchmark");
        command
            .arg("-s")
            .arg(resp(dir.path(), "a"))
            .args(["-q", "-c", "20", "-n", "4000", "-r", "100"])
            .args(more);
        command.args(["cl.throttle", "key:__rand_int__", "9", "10", "1"]);
        let text = printed(&mut command);
        assert!(text.contains("requests per second") && !text.to_lowercase().contains("err"), "{text}");
    }
    assert_eq!(daemon.status().warnings, [""; 0]);
}

#[test]
fn redis_py_pipelines_and_speaks_both_versions() {
    let (dir, _daemon) = one();
    let script = r#"
import sys, redis
for protocol in (2, 3):
    client = redis.Redis(unix_socket_path=sys.argv[1], protocol=protocol, client_name="test")
    assert client.ping() and client.echo("x") == b"x"
    key = f"key{protocol}"
    first = client.execute_command("CL.THROTTLE", key, 4, 1, 60)
    assert first == [0, 5, 4, -1, 60], first
    pipe = client.pipeline(transaction=False)
    for _ in range(6):
        pipe.execute_command("CL.THROTTLE", key, 4, 1, 60)
    replies = pipe.execute()
    assert [reply[0] for reply in replies] == [0, 0, 0, 0, 1, 1], replies
    try:
        client.get("x")
        raise SystemExit("GET is not there")
    except redis.exceptions.ResponseError as error:
        assert "this is no Redis" in str(error), error
    assert client.client_getname() in (b"test", "test"), client.client_getname()
    client.close()
print("fine")
"#;
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/bin/python");
    let mut command = Command::new(python);
    command.arg("-c").arg(script).arg(resp(dir.path(), "a"));
    assert_eq!(printed(&mut command), "fine\n");
}

#[test]
fn the_redis_crate_gets_typed_answers() {
    let (dir, _daemon) = one();
    let client = redis::Client::open(format!("unix://{}", resp(dir.path(), "a").display())).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut throttle = |quantity: u64| -> (bool, u64, u64, i64, u64) {
        let mut command = redis::cmd("CL.THROTTLE");
        command.arg("crate").arg(9).arg(10).arg(100).arg(quantity).query(&mut connection).unwrap()
    };
    assert_eq!(throttle(4), (false, 10, 6, -1, 40));
    assert_eq!(throttle(7), (true, 10, 6, 10, 40));
    let answers: Vec<(bool, u64, u64, i64, u64)> = {
        let mut pipe = redis::pipe();
        for _ in 0..200 {
            pipe.cmd("CL.THROTTLE").arg("piped").arg(99).arg(1).arg(3600);
        }
        pipe.query(&mut connection).unwrap()
    };
    assert_eq!(answers.iter().filter(|answer| !answer.0).count(), 100);
}

#[test]
fn no_key_is_over_its_limit_on_three_nodes_that_all_want_it() {
    let dir = tempfile::tempdir().unwrap();
    let setups: Vec<Setup> = ["a", "b", "c"].map(|name| setup(dir.path(), name)).into();
    let mut nodes = vec![setups[0].start()];
    let token = nodes[0].token();
    let setups: Vec<Setup> = setups.into_iter().map(|setup| setup.join(&token)).collect();
    nodes.extend(setups[1..].iter().map(Setup::start));
    wait_until_whole(&nodes);
    let rate = Rate::new(200, Duration::from_secs(1), 50).unwrap();
    let ask = |name: &'static str, time: Duration| {
        let client = redis::Client::open(format!("unix://{}", resp(dir.path(), name).display())).unwrap();
        thread::spawn(move || {
            let mut connection = client.get_connection().unwrap();
            let until = Instant::now() + time;
            while Instant::now() < until {
                let mut command = redis::cmd("CL.THROTTLE");
                command.arg("hot").arg(49).arg(200).arg(1);
                let _: Vec<i64> = command.query(&mut connection).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        })
    };
    // First by all, then by one alone, which then needs what the others have.
    for names in [&["a", "b", "c"][..], &["b"]] {
        let from = monotonic();
        let callers: Vec<_> = names.iter().map(|name| ask(name, Duration::from_secs(4))).collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        let part = checked(&setups.iter().collect::<Vec<_>>(), "hot", &rate, (from, monotonic()));
        // What each node's own third alone would admit is a third of it.
        assert!(part > 0.6, "{names:?} used {part} of the limit");
    }
    // The same key with other numbers is reported.
    let mut other = redis::cmd("CL.THROTTLE");
    let client = redis::Client::open(format!("unix://{}", resp(dir.path(), "b").display())).unwrap();
    let _: Vec<i64> =
        other.arg("hot").arg(9).arg(1).arg(1).query(&mut client.get_connection().unwrap()).unwrap();
    let warnings = nodes[1].status().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("with other numbers")), "{warnings:?}");
}

#[test]
fn wrong_bytes_are_named_and_end_the_connection() {
    let (dir, _daemon) = one();
    for (bytes, error) in [
        (&b"*1\r\n:4\r\n"[..], "-ERR Protocol error: expected '$', got ':'\r\n"),
        (b"*100\r\n", "-ERR Protocol error: invalid multibulk length, at most 64 arguments are read\r\n"),
        (b"*1\r\n$99999\r\n", "-ERR Protocol error: invalid bulk length, at most 16384 bytes are read\r\n"),
    ] {
        let mut raw = Raw::connect(dir.path());
        raw.say(b"PING\r\n");
        raw.hears("+PONG\r\n");
        raw.say(bytes);
        assert_eq!(raw.hears_the_end(), error);
    }
    let mut raw = Raw::connect(dir.path());
    raw.say(vec![b'x'; 5_000]);
    assert_eq!(
        raw.hears_the_end(),
        "-ERR Protocol error: too big inline request, at most 4096 bytes are read\r\n"
    );
}

#[test]
fn commands_may_come_in_any_pieces_and_in_any_number() {
    let (dir, _daemon) = one();
    let mut raw = Raw::connect(dir.path());
    for byte in b"*2\r\n$4\r\nECHO\r\n$3\r\nabc\r\n" {
        raw.say([*byte]);
    }
    raw.hears("$3\r\nabc\r\n");
    // More than is read at once, and more replies than are kept: while one side writes, the other reads.
    let count = 40_000;
    let mut writer = raw.0.try_clone().unwrap();
    let writing = thread::spawn(move || writer.write_all("INFO\r\n".repeat(count).as_bytes()).unwrap());
    thread::sleep(Duration::from_millis(300));
    let mut one = Raw::connect(dir.path());
    one.say("INFO\r\n");
    let mut reply = vec![0; 4_096];
    let length = one.0.read(&mut reply).unwrap();
    let expected = String::from_utf8_lossy(&reply[..length]).into_owned();
    for _ in 0..count {
        raw.hears(&expected);
    }
    writing.join().unwrap();
    raw.say("QUIT\r\n");
    assert_eq!(raw.hears_the_end(), "+OK\r\n");
}

#[test]
fn who_does_not_read_holds_little_memory_and_nobody_up() {
    let (dir, daemon) = one();
    let memory = || daemon.resident_kib();
    let before = memory();
    let mut silent: Vec<Raw> = (0..20).map(|_| Raw::connect(dir.path())).collect();
    for raw in &mut silent {
        raw.0.set_nonblocking(true).unwrap();
        // It asks on and on, and never reads, until the kernel takes no more.
        let flood = "COMMAND\r\n".repeat(10_000);
        while raw.0.write(flood.as_bytes()).is_ok() {}
    }
    assert_eq!(redis_cli(dir.path(), "ping"), ["PONG"]);
    let more = memory() - before;
    assert!(more < 20 * 1_024, "{more} KiB for 20 callers");
    wait_until("those who do not read are cut off", || daemon.status().callers.timed_out >= 20);
}
