//! What fuzzing knows, without a fuzzer: its targets run on their seeds, and on every input that was once found to fail.
//! `scripts/fuzz` looks for more.

#[path = "../fuzz/src/lib.rs"]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};

/// Set to have [`seeds_are_what_the_generator_makes`] write them instead.
const WRITE: &str = "AQUIFER_WRITE_SEEDS";

fn seeds_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

/// The inputs of a target, by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(seeds_of(target)).expect("every target has seeds");
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("it can be listed");
        let bytes = fs::read(entry.path()).expect("it can be read");
        (entry.file_name().into_string().expect("its name is plain"), bytes)
    };
    let mut inputs: Vec<_> = files.map(file).collect();
    inputs.sort();
    inputs
}

/// Seeds are numbered; what was found is named after what it did.
#[test]
fn seeds_are_what_the_generator_makes() {
    let mut places = std::collections::BTreeMap::new();
    let mut made = std::collections::BTreeSet::new();
    for (target, bytes) in harness::seeds::all() {
        let place = places.entry(target).and_modify(|place| *place += 1).or_insert(1);
        let file = seeds_of(target).join(format!("{place:02}"));
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(seeds_of(target)).expect("there is room");
            fs::write(&file, &bytes).expect("there is room");
        }
        let written = fs::read(&file).unwrap_or_default();
        assert!(written == bytes, "{} is stale; run with {WRITE}=1", file.display());
        made.insert((target, format!("{place:02}")));
    }
    for (target, _) in harness::TARGETS {
        for (name, _) in inputs(target) {
            let is_seed = name.parse::<u32>().is_ok();
            assert!(!is_seed || made.contains(&(target, name.clone())), "nobody makes {target}/{name}");
        }
    }
}

#[test]
fn every_target_takes_its_inputs_cut_anywhere_and_changed_anywhere() {
    for (target, _) in harness::TARGETS {
        for (name, bytes) in inputs(target) {
            println!("{target}/{name}: {} bytes", bytes.len());
            harness::run(target, &bytes);
            // Some hundred of each, however long it is.
            for place in (0..bytes.len()).step_by(bytes.len() / 100 + 1) {
                harness::run(target, &bytes[..place]);
                let mut changed = bytes.clone();
                changed[place] ^= 1 << (place % 8);
                harness::run(target, &changed);
            }
        }
    }
}
