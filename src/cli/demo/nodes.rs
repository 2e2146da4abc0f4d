//! The node processes: real daemons, each with its own data directory, socket and identity.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::client::Client;

/// How long a node may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(15);
const READY_POLL: Duration = Duration::from_millis(50);
/// How much of a node's log is shown when it fails.
const TAIL_LINES: usize = 15;

/// A directory for the nodes' files, removed with the value unless it is to be kept. Nobody else may read it: the
/// nodes' keys are in it.
pub struct Workdir {
    path: PathBuf,
    keep: bool,
}

impl Workdir {
    /// Makes a new directory where temporary files belong.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(keep: bool) -> Result<Self, String> {
        let mut tag = [0; 4];
        getrandom::fill(&mut tag).map_err(|error| format!("there is no randomness: {error}"))?;
        let path = env::temp_dir().join(format!("aquifer-demo-{:08x}", u32::from_ne_bytes(tag)));
        make_dir(&path)?;
        Ok(Self { path, keep })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        // A node that was killed a moment ago may still write a last file.
        for _ in 0..10 {
            if self.keep || fs::remove_dir_all(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn make_dir(path: &Path) -> Result<(), String> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| format!("cannot make the directory {}: {error}", path.display()))
}

/// What comes before the pools. A dead node's part of a limit goes to the others soon, so that the demo can show it.
const CONFIG: &str = "[swarm]\npolicy = \"available\"\nforget_after = \"3s\"\n";

/// A node process. It is killed with the value.
pub struct Node {
    name: String,
    socket: PathBuf,
    log: PathBuf,
    child: Child,
}

impl Node {
    /// Starts a node with these pools, in TOML; with a token it joins, without one it founds a swarm of its own.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(dir: &Path, name: &str, pools: &str, token: Option<&str>) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot start {name}: {error}");
        if !dir.is_dir() {
            make_dir(dir)?;
        }
        let socket = dir.join(format!("{name}.sock"));
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).map_err(failed)?;
        // Its own: another node may be reading while this is written.
        let config = dir.join(format!("{name}.toml"));
        fs::write(&config, format!("{CONFIG}{pools}")).map_err(failed)?;
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        // What the user set up for a daemon of their own is not for these.
        for (variable, _) in env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"AQUIFER_") {
                command.env_remove(variable);
            }
        }
        if let Some(token) = token {
            // Not as an argument: everybody on the machine can read those.
            command.env("AQUIFER_JOIN", token);
        }
        let child = command
            .arg("up")
            .arg("--config")
            .arg(&config)
            .args(["--name", name, "--gossip", "/ip4/127.0.0.1/tcp/0", "--no-mdns"])
            .arg("--data-dir")
            .arg(dir.join(name))
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self { name: name.to_owned(), socket, log, child })
    }

    /// Where its daemon listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until the node admits and has links to `peers` others.
    ///
    /// # Errors
    /// It ended, or took too long; with the end of its log.
    pub async fn ready(&mut self, peers: usize) -> Result<(), String> {
        let start = Instant::now();
        let client = Client::new(&self.socket);
        let mut last = "it never answered at its socket".to_owned();
        while start.elapsed() < READY_TIMEOUT {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failure(&format!("ended with {status}")));
            }
            // Before the socket is there, every question fails: not worth a word.
            if let Ok(status) = client.status().await {
                if status.node.state == "ready" && status.peers_connected >= peers {
                    return Ok(());
                }
                last =
                    format!("it is {} with {} of {peers} peers", status.node.state, status.peers_connected);
            }
            sleep(READY_POLL).await;
        }
        Err(self.failure(&format!("was not ready after {} s ({last})", READY_TIMEOUT.as_secs())))
    }

    /// What another node needs to join this one's swarm.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn token(&self) -> Result<String, String> {
        let answer = Client::new(&self.socket).token().await;
        answer.map(|answer| answer.token).map_err(|error| format!("{} gave no token: {error}", self.name))
    }

    /// The node's part of its first limit now; `None` while it does not answer.
    pub async fn held_share(&self) -> Option<f64> {
        let status = Client::new(&self.socket).status().await.ok()?;
        Some(status.pools.first()?.limits.first()?.held_share)
    }

    /// Kills the process, without a chance to say goodbye, and waits until it is gone.
    ///
    /// # Errors
    /// The system does not let it be killed.
    pub async fn kill(&mut self) -> Result<(), String> {
        self.child.kill().await.map_err(|error| format!("cannot kill {}: {error}", self.name))
    }

    fn failure(&self, what: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
        format!("{} {what}; the end of its log:\n  {tail}", self.name)
    }
}

/// What the nodes are called; counted from 0.
pub fn node_name(node: usize) -> String {
    format!("node-{}", node + 1)
}

/// Starts nodes that share: the first founds a swarm, the others join it. They get `settle` to fill their buckets and to
/// even out their shares.
///
/// # Errors
/// A node does not start or does not become ready.
pub async fn swarm(dir: &Path, pools: &str, count: usize, settle: Duration) -> Result<Vec<Node>, String> {
    let mut founder = Node::start(dir, &node_name(0), pools, None)?;
    founder.ready(0).await?;
    let token = founder.token().await?;
    let mut nodes = vec![founder];
    for index in 1..count {
        nodes.push(Node::start(dir, &node_name(index), pools, Some(&token))?);
    }
    try_join_all(nodes.iter_mut().map(|node| node.ready(count - 1))).await?;
    // Some of the limit may still be on its way from the founder.
    let start = Instant::now();
    sleep(settle).await;
    while start.elapsed() < 3 * settle {
        let mut held = 0.0;
        for node in &nodes {
            held += node.held_share().await.unwrap_or(0.0);
        }
        if held > 0.98 {
            break;
        }
        sleep(settle / 10).await;
    }
    Ok(nodes)
}

/// Kills them all.
///
/// # Errors
/// The system does not let one be killed.
pub async fn stop(mut nodes: Vec<Node>) -> Result<(), String> {
    for node in &mut nodes {
        node.kill().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_private_and_goes_unless_it_is_kept() {
        use std::os::unix::fs::PermissionsExt;
        let path = {
            let dir = Workdir::new(false).unwrap();
            assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
            fs::write(dir.path().join("file"), "").unwrap();
            dir.path().to_owned()
        };
        assert!(!path.exists());
        let kept = Workdir::new(true).unwrap().path().to_owned();
        assert!(kept.exists());
        fs::remove_dir(kept).unwrap();
    }
}
