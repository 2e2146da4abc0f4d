//! The Python client: its own tests, against a daemon.
#![cfg(feature = "daemon")]

#[path = "support/process.rs"]
mod process;

use std::path::Path;
use std::process::Command;

use process::Setup;

/// A pool for each test that takes of one, so that they do not meet.
const POOLS: [&str; 11] = [
    "settled:rph=10,tph=1000",
    "failed:rph=10,tph=1000",
    "few:rph=1",
    "spare:rph=100",
    "paused:rph=100",
    "slots:max_concurrent=1",
    "slot:max_concurrent=1",
    "async:tph=1000",
    "async-slot:max_concurrent=1",
    "fast:rps=100000",
    "decorated:tph=1000",
];

#[test]
fn the_python_client_passes_its_tests() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path(), "n", &POOLS).start();
    let output = Command::new("python3")
        .args(["-X", "dev", "-B", "-m", "unittest", "-v"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python"))
        .env("AQUIFER_SOCKET", node.socket())
        .env("AQUIFER_PROGRAM", env!("CARGO_BIN_EXE_aquifer"))
        .output()
        .expect("this test needs python3, with its standard library alone");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("ResourceWarning"), "{said}");
    // Of tests that are not found none fails.
    assert!(said.contains("test_a_daemon_that_comes_back_is_asked_again"), "{said}");
}
