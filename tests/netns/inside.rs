//! Running this test again in namespaces of its own: user (unless we are root), network, mount and process.
//!
//! They need no cleaning up: when the process ends, however it ends, the kernel kills all that run in its process
//! namespace and takes down its networks and its file system in memory.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

const VARIABLE: &str = "AQUIFER_NETNS_INSIDE";
/// What is needed: a file system of our own over /run, a bridge, a veth pair, a named network namespace.
const PROBE: &str = "mount -t tmpfs tmpfs /run && ip netns add probe && nsenter --net=/run/netns/probe true \
                     && ip link add probe type bridge && ip link add one type veth peer name two";

/// Whether this is the process inside. If so its life is bound to that of the one outside.
pub fn is_inside() -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    thread::spawn(|| {
        // Ends with the one outside, which never writes.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    true
}

/// Mounts a file system in memory over /run, for named namespaces and the daemons' files.
pub fn mount() {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status().unwrap();
    assert!(mounted.success(), "cannot mount over /run");
}

/// Runs one test of this program inside.
///
/// # Errors
/// Why that is not possible here.
pub fn run(test: &str) -> Result<ExitStatus, String> {
    let mut said = String::new();
    // Root needs no user namespace, but may need one in a container.
    for user in [&[][..], &["--user", "--map-root-user"]] {
        let probe = unshare(user).args(["sh", "-c", PROBE]).stdin(Stdio::null()).output();
        match probe {
            Ok(output) if output.status.success() => {
                let program = std::env::current_exe().expect("BUG! this program");
                let mut command = unshare(user);
                command.arg(program).args([test, "--exact", "--nocapture"]);
                command.env(VARIABLE, "1").stdin(Stdio::piped());
                let mut child = command.spawn().map_err(|error| error.to_string())?;
                // Waiting with the pipe still in the child would close it.
                let _life = child.stdin.take();
                return child.wait().map_err(|error| error.to_string());
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().clone_into(&mut said),
            Err(error) => said = format!("cannot run unshare (util-linux): {error}"),
        }
    }
    Err(said)
}

fn unshare(user: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(user).args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--"]);
    command
}
