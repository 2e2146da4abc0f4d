//! A copy of the workspace with the bugs in it, built once for all of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bank::Bank;

/// The variable that tells the copy which of its bugs is switched on.
pub const SWITCH: &str = "AQUIFER_PLANTED";

const SWITCHES: &str = r#"
mod planted {
    /// Whether this bug is switched on.
    pub fn is(bug: u32) -> bool {
        static PLANTED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        let read = || std::env::var("AQUIFER_PLANTED").ok()?.parse().ok();
        *PLANTED.get_or_init(|| read().unwrap_or(0)) == bug
    }
}
"#;

/// Builds the simulator with all bugs in its core, and says where its program is. What is built is kept for the next time.
pub fn build(bank: &Bank) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
    let (copy, target) = (folder.join("workspace"), folder.join("target"));
    let planted = planted(bank, workspace);
    fs::create_dir_all(&copy).expect("a folder can be made");
    for name in ["Cargo.toml", "Cargo.lock", "src", "benches", "simulations"] {
        copy_changed(&workspace.join(name), &copy.join(name), &planted);
    }
    let cargo = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--quiet", "-p", "aquifer-simulations", "--target-dir"])
        .arg(&target)
        .current_dir(&copy)
        .env("RUSTFLAGS", "--allow=warnings")
        .status()
        .expect("cargo can be run");
    assert!(cargo.success(), "the copy with the bugs, {}, does not build", copy.display());
    target.join("release/aquifer-simulations")
}

/// The files that are others than in the workspace.
fn planted(bank: &Bank, workspace: &Path) -> BTreeMap<PathBuf, String> {
    let read = |file: &Path| {
        fs::read_to_string(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
    };
    let root = workspace.join("src/lib.rs");
    let mut planted = BTreeMap::from([(root.clone(), read(&root) + SWITCHES)]);
    for edit in bank.bug.iter().flat_map(|bug| &bug.edit) {
        let file = workspace.join("src/protocol").join(&edit.file);
        planted.entry(file.clone()).or_insert_with(|| bank.plant(&edit.file, &read(&file)));
    }
    planted
}

/// Copies a file or folder. What is there already and has not changed keeps its time, so that it is not built again.
fn copy_changed(from: &Path, to: &Path, planted: &BTreeMap<PathBuf, String>) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder can be made");
        for entry in fs::read_dir(from).expect("the folder can be read") {
            let name = entry.expect("the folder can be read").file_name();
            copy_changed(&from.join(&name), &to.join(&name), planted);
        }
        return;
    }
    let bytes = match planted.get(from) {
        Some(text) => text.clone().into_bytes(),
        None => fs::read(from).expect("the file can be read"),
    };
    if fs::read(to).ok().as_ref() != Some(&bytes) {
        fs::write(to, bytes).expect("the file can be written");
    }
}
