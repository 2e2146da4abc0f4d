//! Real daemons in real processes, a caller that speaks raw HTTP, load, and the checker of theorem T1.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aquifer::client::Client;
use aquifer::daemon::api::{AcquireAnswer, AcquireRequest, Limits, Peers, Status, TokenAnswer};
use aquifer::protocol::limit::Rate;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;

/// No test measures speed; this only ends the ones that hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done`; panics with `what` if that takes forever.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited for {PATIENCE:?} until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// How to start one daemon, again and again.
#[derive(Clone, Debug)]
pub struct Setup {
    dir: PathBuf,
    name: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    files: Option<u32>,
    /// The network namespace it runs in, if not in ours.
    namespace: Option<PathBuf>,
    /// A command that runs the daemon's, if one does.
    wrapper: Vec<String>,
}

impl Setup {
    /// A daemon with its files in `dir`, on loopback alone.
    pub fn new(dir: &Path, name: &str, pools: &[&str]) -> Self {
        let setup = Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            files: None,
            namespace: None,
            wrapper: Vec::new(),
        };
        let setup = setup.arguments(&["--name", name, "--no-mdns"]);
        let setup =
            setup.environment("AQUIFER_GOSSIP", "/ip4/127.0.0.1/tcp/0").environment("AQUIFER_LOG", "info");
        pools.iter().fold(setup, |setup, pool| setup.arguments(&["--pool", pool]))
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the process open so many files at most.
    pub fn files(mut self, most: u32) -> Self {
        self.files = Some(most);
        self
    }

    /// Writes the daemon's configuration file.
    pub fn config(self, text: &str) -> Self {
        let path = self.dir.join(format!("{}.toml", self.name));
        fs::write(&path, text).unwrap();
        self.arguments(&["--config", path.to_str().unwrap()])
    }

    /// Runs it by this command, whose last arguments are then the daemon's.
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    pub fn join(self, token: &str) -> Self {
        self.environment("AQUIFER_JOIN", token)
    }

    /// Runs it in this network namespace; its socket is reached from everywhere all the same.
    pub fn namespace(self, namespace: &Path) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!("{}.sock", self.name))
    }

    pub fn admission_log(&self) -> PathBuf {
        self.dir.join(format!("{}.admissions", self.name))
    }

    /// All that its lives have printed.
    pub fn output(&self) -> String {
        fs::read_to_string(self.dir.join(format!("{}.out", self.name))).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let mut command = match (&self.namespace, self.files, self.wrapper.split_first()) {
            (Some(namespace), ..) => {
                let mut command = without_our_environment(Command::new("nsenter"));
                // It becomes the daemon, so that signals reach it.
                command.arg(format!("--net={}", namespace.display())).args([PROGRAM, "up"]);
                command
            }
            (_, Some(files), _) => limited(files, &["up"]),
            (_, _, Some((program, words))) => {
                let mut command = without_our_environment(Command::new(program));
                command.args(words).args([PROGRAM, "up"]);
                command
            }
            (None, None, None) => aquifer(&["up"]),
        };
        command
            .args(&self.arguments)
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--socket")
            .arg(self.socket());
        command.env("AQUIFER_ADMISSION_LOG", self.admission_log()).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null());
        command
    }

    /// Starts the process and waits until it answers.
    pub fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        wait_until(&format!("{} answers", self.name), || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended at its start with {ended:?}", self.name);
            Http::connect(&self.socket()).is_some_and(|mut http| http.get("/livez").status == 200)
        });
        daemon
    }

    /// Starts the process.
    pub fn spawn(&self) -> Daemon {
        let path = self.dir.join(format!("{}.out", self.name));
        let output = File::options().append(true).create(true).open(path).unwrap();
        let mut command = self.command();
        let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Daemon { setup: self.clone(), child }
    }

    /// Starts a daemon that must not come up: its exit status and what it says of the reason.
    pub fn start_in_vain(&self) -> (i32, String) {
        let mut child = self.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let said = thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).map(|_| said).unwrap()
        });
        let start = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
                None => {
                    let _ = child.kill();
                    panic!("{} runs, and should not: {}", self.name, said.join().unwrap());
                }
            }
        };
        (status.code().unwrap_or(-1), said.join().unwrap())
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_aquifer");

/// The command, without what the environment would add.
pub fn aquifer(arguments: &[&str]) -> Command {
    let mut command = without_our_environment(Command::new(PROGRAM));
    command.args(arguments);
    command
}

fn without_our_environment(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"AQUIFER_"))
    {
        command.env_remove(name);
    }
    command
}

/// The same in a process that can open so many files at most.
fn limited(files: u32, arguments: &[&str]) -> Command {
    let script = format!("ulimit -n {files} && exec \"$@\"");
    let unlimited = aquifer(arguments);
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(unlimited.get_program()).args(unlimited.get_args());
    for (name, value) in unlimited.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// A running daemon. It is killed with the value; if a test fails, the end of its output is shown.
pub struct Daemon {
    pub setup: Setup,
    child: Child,
}

impl Daemon {
    pub fn name(&self) -> &str {
        self.setup.name()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kibibytes of it that are in memory.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it without a chance to say goodbye.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended: its exit status.
    pub fn ended(&mut self) -> i32 {
        let mut status = None;
        let Self { setup, child } = self;
        wait_until(&format!("{} has ended", setup.name), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// Tells it to stop, and waits until it has: its exit status.
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.ended()
    }

    pub fn socket(&self) -> PathBuf {
        self.setup.socket()
    }

    pub fn http(&self) -> Http {
        Http::connect(&self.socket()).expect("a daemon at its socket")
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.http().get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    pub fn status(&self) -> Status {
        self.get("/v1/status")
    }

    pub fn peers(&self) -> Peers {
        self.get("/v1/peers")
    }

    pub fn limits(&self) -> Limits {
        self.get("/v1/limits")
    }

    pub fn token(&self) -> String {
        self.get::<TokenAnswer>("/v1/token").token
    }

    pub fn acquire(&self, body: &str) -> Reply {
        self.http().post("/v1/acquire", body)
    }

    /// How many requests wait here.
    pub fn waiting(&self) -> usize {
        self.status().pools.iter().map(|pool| pool.waiting).sum()
    }

    /// Runs the command against it: exit status, standard output, standard error.
    pub fn cli(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = aquifer(arguments).arg("--socket").arg(self.socket()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    pub fn admissions(&self) -> Vec<Admission> {
        admissions([&self.setup])
    }
}

/// Waits until every node is linked to every other and all have equal base shares, which make the whole.
pub fn wait_until_whole(nodes: &[Daemon]) {
    let mut seen = Vec::new();
    let is_whole = |seen: &mut Vec<(String, usize, f64)>| {
        let statuses = nodes.iter().map(Daemon::status);
        *seen = statuses.map(|now| (now.node.state, now.peers_connected, now.node.base_share)).collect();
        let bases = seen.iter().map(|(_, _, base)| base);
        let equal = bases.clone().all(|base| (base * nodes.len() as f64 - 1.0).abs() < 0.2);
        equal
            && (bases.sum::<f64>() - 1.0).abs() < 1e-6
            && seen.iter().all(|(state, links, _)| state == "ready" && *links == nodes.len() - 1)
    };
    let start = Instant::now();
    while !is_whole(&mut seen) {
        assert!(start.elapsed() < PATIENCE, "never whole: {seen:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let output = self.setup.output();
            let lines: Vec<&str> = output.lines().collect();
            eprintln!(
                "the end of the output of {}:\n  {}",
                self.name(),
                lines[lines.len().saturating_sub(20)..].join("\n  ")
            );
        }
    }
}

/// A caller's connection, used as `curl` would.
pub struct Http {
    stream: BufReader<UnixStream>,
}

/// What a daemon answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl From<UnixStream> for Http {
    fn from(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }
}

impl Http {
    pub fn connect(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        Some(Self::from(stream))
    }

    /// Sends bytes as they are. That the daemon hung up already is no failure: it may have read enough.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: aquifer\r\n\r\n"));
        self.reply().expect("an answer")
    }

    pub fn post(&mut self, path: &str, body: &str) -> Reply {
        self.send(post(path, body));
        self.reply().expect("an answer")
    }

    /// The next answer; none if the daemon hung up.
    pub fn reply(&mut self) -> Option<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {line:?}"));
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        Some(Reply { status, headers, body: String::from_utf8(body).unwrap() })
    }

    /// Whether the daemon has nothing more to say and hung up.
    pub fn is_over(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

pub fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: aquifer\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

impl Reply {
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn acquired(&self) -> AcquireAnswer {
        self.json()
    }
}

/// A line of an admission log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admission {
    pub nanos: u64,
    pub limit: String,
    pub units: u64,
}

/// What these daemons admitted in all their lives, in the order of time.
pub fn admissions<'a>(setups: impl IntoIterator<Item = &'a Setup>) -> Vec<Admission> {
    let mut all = Vec::new();
    for setup in setups {
        let text = fs::read_to_string(setup.admission_log()).unwrap_or_default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [nanos, limit, units] = fields[..] else { panic!("an admission log says {line:?}") };
            let (nanos, units) = (nanos.parse().unwrap(), units.parse().unwrap());
            all.push(Admission { nanos, limit: limit.to_owned(), units });
        }
    }
    all.sort();
    all
}

/// Theorem T1 for one limit: in every interval `[s, t]` at most `burst + rate × (t − s)` units were admitted. That is so
/// exactly if a leaky bucket that starts full and gives every unit never runs dry; all in whole numbers.
pub fn never_over(admissions: &[Admission], limit: &str, rate: &Rate) -> Result<(), String> {
    // One unit is as many atoms as the period has nanoseconds; then `amount` atoms come back each nanosecond.
    let per = rate.per().as_nanos();
    let full = u128::from(rate.burst()) * per;
    let (mut level, mut last) = (full, 0);
    for (place, Admission { nanos, units, .. }) in
        admissions.iter().filter(|admission| admission.limit == limit).enumerate()
    {
        let elapsed = nanos.checked_sub(last).ok_or("the log is not sorted by time")?;
        level = full.min(level + u128::from(rate.amount()) * u128::from(elapsed));
        last = *nanos;
        level = level.checked_sub(u128::from(*units) * per).ok_or_else(|| {
            format!("admission {place} of {limit}, {units} units at {nanos} ns, is more than {rate:?} allows")
        })?;
    }
    Ok(())
}

/// Asserts T1, and gives back what part of what one central limiter would have admitted was admitted in `[from, to]`.
pub fn checked(setups: &[&Setup], limit: &str, rate: &Rate, (from, to): (u64, u64)) -> f64 {
    let all = admissions(setups.iter().copied());
    never_over(&all, limit, rate).unwrap();
    let during = all.iter().filter(|one| one.limit == limit && (from..=to).contains(&one.nanos));
    let central = rate.burst() as f64 + rate.per_second() * (to - from) as f64 / 1e9;
    during.map(|one| one.units).sum::<u64>() as f64 / central
}

/// Now, on the clock of the admission logs.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// Callers that ask again as soon as they are answered, in a thread of their own.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
    from: u64,
}

/// What a load has come to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests that were admitted, by node.
    pub admitted: Vec<u64>,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// When it ran, as [`monotonic`] says.
    pub time: (u64, u64),
}

impl Load {
    /// `callers` on each of these sockets ask for one request of `pool`, and wait for up to a second; at each moment only
    /// those of the nodes that are `busy`.
    pub fn start(
        sockets: Vec<PathBuf>,
        pool: &str,
        callers: usize,
        busy: impl Fn(usize, Duration) -> bool + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, pool) = (stop.clone(), pool.to_owned());
        let from = monotonic();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let busy: Arc<dyn Fn(usize) -> bool> = {
                let start = Instant::now();
                Arc::new(move |node| busy(node, start.elapsed()))
            };
            let mut tally = Tally { admitted: vec![0; sockets.len()], ..Tally::default() };
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let mut tasks = Vec::new();
                for (node, socket) in sockets.iter().enumerate() {
                    for _ in 0..callers {
                        let task =
                            caller(Client::new(socket), pool.clone(), node, busy.clone(), stopped.clone());
                        tasks.push((node, tokio::task::spawn_local(task)));
                    }
                }
                for (node, task) in tasks {
                    let [admitted, refused, failed] = task.await.unwrap();
                    tally.admitted[node] += admitted;
                    tally.refused += refused;
                    tally.failed += failed;
                }
            });
            tally
        });
        Self { stop, thread, from }
    }

    /// Lets it run on for so long.
    #[must_use]
    pub fn run(self, time: Duration) -> Self {
        thread::sleep(time);
        self
    }

    /// Ends it; whoever waits still waits for the answer.
    pub fn finish(self) -> Tally {
        let to = monotonic();
        self.stop.store(true, Ordering::Relaxed);
        Tally { time: (self.from, to), ..self.thread.join().unwrap() }
    }
}

async fn caller(
    client: Client,
    pool: String,
    node: usize,
    busy: Arc<dyn Fn(usize) -> bool>,
    stop: Arc<AtomicBool>,
) -> [u64; 3] {
    let ask = AcquireRequest { pool: pool.into(), wait_ms: Some(1_000), ..AcquireRequest::default() };
    let mut counts = [0; 3];
    while !stop.load(Ordering::Relaxed) {
        if !busy(node) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, client.acquire(&ask)).await {
            counts[usize::from(!answer.allowed)] += 1;
            // A node that leaves refuses at once.
            if !answer.allowed {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        } else {
            counts[2] += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    counts
}

#[test]
fn the_checker_of_t1_catches_one_unit_too_many() {
    let rate = Rate::new(3, Duration::from_secs(1), 2).unwrap();
    let log = |lines: &[(u64, u64)]| -> Vec<Admission> {
        lines.iter().map(|&(nanos, units)| Admission { nanos, limit: "l".to_owned(), units }).collect()
    };
    // Two at once, and then one after each third of a second; one nanosecond earlier is too early.
    let good = [(5, 1), (5, 1), (333_333_339, 1), (666_666_672, 1), (5_000_000_000, 2)];
    never_over(&log(&good), "l", &rate).unwrap();
    never_over(&log(&[(5, 3)]), "other", &rate).unwrap();
    for place in 0..good.len() {
        let mut more = good;
        more[place].1 += 1;
        assert!(never_over(&log(&more), "l", &rate).is_err(), "{more:?}");
    }
    assert!(never_over(&log(&[(5, 2), (333_333_338, 1)]), "l", &rate).is_err());
}
