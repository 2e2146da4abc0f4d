//! Real daemons in processes of their own, and callers that replay a run's requests against them in real time.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use aquifer_simulations::record::{Answer, Arrival};
use aquifer_simulations::scenario::{PolicySpec, Scenario};
use aquifer_simulations::time::{MS, Nanos};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Ends what hangs; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Every request is a thread, and needs little.
const STACK: usize = 128 * 1024;

/// A swarm of daemons on loopback. They are killed with the value.
pub struct Daemons {
    dir: TempDir,
    children: Vec<Child>,
}

/// What came of one request.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    /// The request, as it was really sent: a busy machine sends late.
    pub arrival: Arrival,
    /// Its answer, on the same clock.
    pub answer: Answer,
}

impl Daemons {
    /// Starts the scenario's swarm, and waits until all are linked and have equal base shares.
    pub fn start(scenario: &Scenario) -> Self {
        let program = program();
        let dir = tempfile::tempdir().expect("there is a folder");
        let mut swarm = Self { dir, children: Vec::new() };
        for node in 0..scenario.nodes {
            let token = (node > 0).then(|| swarm.get(0, "/v1/token")["token"].as_str().map(str::to_owned));
            let child = swarm.command(&program, scenario, node, token.flatten()).spawn();
            swarm.children.push(child.expect("the daemon starts"));
            swarm.wait_until("it answers", |swarm| swarm.ask(node, "GET /livez", "").is_some());
        }
        let (peers, part) = (scenario.nodes - 1, 1.0 / scenario.nodes as f64);
        swarm.wait_until("all are linked and equal", |swarm| {
            (0..scenario.nodes).all(|node| {
                let status = swarm.get(node, "/v1/status");
                let base = status["node"]["base_share"].as_f64().unwrap_or(0.0);
                status["peers_connected"] == peers && (base - part).abs() < 0.1 * part
            })
        });
        swarm
    }

    /// Sends every request when it is due, whatever became of those before; and waits for all answers.
    pub fn replay(&self, arrivals: &[Arrival]) -> Vec<Replayed> {
        // Its first callers must not be late.
        let start = Instant::now() + Duration::from_millis(100);
        let now = || start.elapsed().as_nanos() as Nanos;
        let one = |arrival: Arrival| {
            let (node, units, wait) = (arrival.node, arrival.units, arrival.wait);
            let body = json!({ "pool": "units", "requests": units, "wait_ms": wait / MS }).to_string();
            let sent = now();
            let (status, answer) = self.ask(node, "POST /v1/acquire", &body).expect("an answer");
            let admitted = status == 200;
            assert!(admitted || status == 429, "{status} {answer}");
            let at = now();
            let arrival = Arrival { at: sent, ..arrival };
            Replayed {
                arrival,
                answer: Answer { at, node, units, waited: at - sent, class: arrival.class, admitted },
            }
        };
        thread::scope(|scope| {
            let mut callers = Vec::with_capacity(arrivals.len());
            for arrival in arrivals {
                let due = start + Duration::from_nanos(arrival.at);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let caller = Builder::new().stack_size(STACK).spawn_scoped(scope, || one(*arrival));
                callers.push(caller.expect("a thread"));
            }
            callers.into_iter().map(|caller| caller.join().expect("an answer")).collect()
        })
    }

    /// All that was ever admitted, by the daemons' own logs: moments of one clock, and units, in order of time.
    pub fn admissions(&self) -> Vec<(Nanos, u64)> {
        let mut all = Vec::new();
        for node in 0..self.children.len() {
            let log = fs::read_to_string(self.file(node, "admissions")).unwrap_or_default();
            all.extend(log.lines().map(|line| {
                let mut fields = line.split('\t').map(str::parse::<u64>);
                let (at, units) = (fields.next(), fields.nth(1));
                let number = |field: Option<Result<u64, _>>| field.and_then(Result::ok).expect("a number");
                (number(at), number(units))
            }));
        }
        all.sort_unstable();
        all
    }

    fn command(&self, program: &Path, scenario: &Scenario, node: usize, token: Option<String>) -> Command {
        let output = File::create(self.file(node, "out")).expect("a file");
        let mut command = Command::new(program);
        // What somebody set up for a daemon of their own is not for these.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"AQUIFER_") {
                command.env_remove(name);
            }
        }
        let limit = &scenario.limit;
        let policy = match scenario.policy {
            PolicySpec::Strict => "strict",
            PolicySpec::Majority => "majority",
            PolicySpec::Available => "available",
        };
        command
            .args(["up", "--no-mdns", "--gossip", "/ip4/127.0.0.1/tcp/0", "--policy", policy])
            .args(["--name", &format!("node-{node}")])
            .args(["--pool", &format!("units:units={}/1000ms,burst={}", limit.per_second, limit.burst)])
            .arg("--data-dir")
            .arg(self.file(node, "data"))
            .arg("--socket")
            .arg(self.file(node, "sock"))
            .env("AQUIFER_ADMISSION_LOG", self.file(node, "admissions"))
            .envs(token.map(|token| ("AQUIFER_JOIN", token)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output);
        command
    }

    fn file(&self, node: usize, what: &str) -> PathBuf {
        self.dir.path().join(format!("{node}.{what}"))
    }

    fn wait_until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "waited for {PATIENCE:?} until {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn get(&self, node: usize, path: &str) -> Value {
        let (status, body) = self.ask(node, &format!("GET {path}"), "").expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("it is JSON")
    }

    /// One question over a connection of its own, as `curl` asks it: status and body; nothing if nobody answers.
    fn ask(&self, node: usize, line: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.file(node, "sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nhost: aquifer\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes()).ok()?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut length = 0;
        while line.trim() != "" {
            line.clear();
            stream.read_line(&mut line).ok()?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some((status, String::from_utf8(body).ok()?))
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for (node, child) in self.children.iter_mut().enumerate() {
            let _ = child.kill();
            let _ = child.wait();
            if thread::panicking() {
                let output = fs::read_to_string(self.dir.path().join(format!("{node}.out")));
                eprintln!("node-{node} said:\n{}", output.unwrap_or_default());
            }
        }
    }
}

/// The daemon's program: what `AQUIFER_BIN` names, or built here. Cargo does not build it for this package's tests,
/// which have only the core; and what an earlier build left behind may be older than the core that is simulated.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("AQUIFER_BIN") {
        return program.into();
    }
    // Of the profile's folder beside this package's own program, the target directory.
    let target = Path::new(env!("CARGO_BIN_EXE_aquifer-simulations")).ancestors().nth(2);
    let target = target.expect("a target directory");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--package", "aquifer", "--bin", "aquifer", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the daemon cannot be built; see above");
    target.join("debug/aquifer")
}
