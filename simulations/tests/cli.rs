//! The program from outside: what it prints, what it writes, how it ends.

use std::fs;
use std::io::Read;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A run of less than a second, also in an unoptimised build.
const SHORT: [&str; 2] = ["run", "tests/small.toml"];

fn aquifer(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_aquifer-simulations");
    Command::new(program).args(args).env("NO_COLOR", "1").output().expect("the program runs")
}

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    args.iter().chain(more).copied().collect()
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = aquifer(args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?} ended with {}: {complaint}", output.status);
    String::from_utf8(output.stdout).expect("it prints text")
}

/// What it says when it refuses; nothing goes to standard output.
#[track_caller]
fn refuses(args: &[&str]) -> String {
    let output = aquifer(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?} printed something");
    String::from_utf8(output.stderr).expect("it prints text")
}

#[test]
fn the_library_is_listed() {
    let text = succeeds(&["list"]);
    assert!(text.starts_with("name "), "{text}");
    assert!(text.lines().any(|line| line.starts_with("steady ")), "{text}");
    let json: Value = serde_json::from_str(&succeeds(&["list", "--json"])).expect("it is JSON");
    let entries = json.as_array().expect("it is a list");
    assert_eq!(entries.len(), text.lines().count() - 1);
    assert!(entries.iter().all(|entry| entry["name"].is_string() && entry["nodes"].is_u64()));
}

#[test]
fn help_teaches_with_examples() {
    let text = succeeds(&["--help"]);
    for part in ["compare steady", "sweep steady --over nodes", "swarm --seeds", "Exit status"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn a_run_prints_the_seed_first_and_the_command_last_and_is_the_same_again() {
    let args = with(&SHORT, &["--seed", "7"]);
    let text = succeeds(&args);
    assert!(text.starts_with("seed 7\n"), "{text}");
    assert!(text.contains("used of ideal"), "{text}");
    let last = text.lines().last().expect("it prints something");
    let command = last.strip_prefix("replay: ").expect("the last line is the command");
    // What it says does the same.
    let (_, again) = command.split_once(" -- ").expect("the program's arguments follow two dashes");
    assert_eq!(succeeds(&again.split(' ').collect::<Vec<_>>()), text);
}

#[test]
fn json_has_the_figures_of_every_run() {
    let text = succeeds(&with(&SHORT, &["--seeds", "2", "--json"]));
    let json: Value = serde_json::from_str(&text).expect("it is JSON");
    assert!(text.starts_with("{\n  \"seed\": 1,"));
    let runs = json["runs"].as_array().expect("runs are a list");
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().all(|run| run["measures"]["utilisation"].is_number()), "{text}");
    assert_eq!(json["groups"][0]["figures"]["utilisation"]["runs"], 2);
    assert_ne!(runs[0]["trace_hash"], runs[1]["trace_hash"]);
}

#[test]
fn all_schemes_are_compared() {
    let text = succeeds(&with(&["compare"], &SHORT[1..]));
    for scheme in ["aquifer", "ideal", "alone", "division", "estimate", "proportional", "batches"] {
        assert!(text.contains(scheme), "{scheme} is not in {text}");
    }
}

#[test]
fn files_hold_all_runs_and_refer_to_nothing_outside() {
    let folder = tempfile::tempdir().expect("there is a folder");
    let [csv, html] = ["runs.csv", "report.html"].map(|name| folder.path().join(name));
    let [csv_arg, html_arg] = [&csv, &html].map(|file| file.to_str().expect("a plain path"));
    let sweep = with(&["sweep"], &SHORT[1..2]);
    let values =
        ["--over", "nodes", "--values", "2,3", "--seeds", "2", "--seconds", "2", "--set", "warmup=1"];
    succeeds(&with(&with(&sweep, &values), &["--csv", csv_arg, "--html", html_arg]));
    let csv = fs::read_to_string(&csv).expect("it was written");
    assert_eq!(csv.lines().count(), 1 + 4, "{csv}");
    assert!(csv.lines().nth(1).is_some_and(|line| line.starts_with("aquifer,2,2,1,")), "{csv}");
    let page = fs::read_to_string(&html).expect("it was written");
    assert!(page.contains("<svg") && page.ends_with("</html>\n"));

    succeeds(&with(&SHORT, &["--html", html_arg]));
    let page = fs::read_to_string(&html).expect("it was written");
    assert!(page.contains("share of the limit that each node holds"));
    for outside in ["http://", "https://", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} is in the page");
    }
}

#[test]
fn what_is_wrong_is_named() {
    assert!(refuses(&["run", "stedy"]).contains("did you mean \"steady\""));
    assert!(refuses(&["run", "nowhere.toml"]).contains("nowhere.toml"));
    assert!(refuses(&["run", "steady", "--nodes", "0"]).contains("nodes"));
    assert!(refuses(&["run", "steady", "--set", "lose=1"]).contains("\"lose\""));
    assert!(refuses(&["run", "steady", "--set", "loss"]).contains("not key=value"));
    assert!(refuses(&["run", "steady", "--scheme", "magic"]).contains("magic"));
    assert!(refuses(&["sweep", "steady", "--over", "nodes", "--values", "2,many"]).contains("many"));

    let folder = tempfile::tempdir().expect("there is a folder");
    let file = folder.path().join("mine.toml");
    fs::write(&file, "about = \"x\"\nnodes = 2\nsecnods = 1\n").expect("it can be written");
    let complaint = refuses(&["run", file.to_str().expect("a plain path")]);
    assert!(complaint.contains("mine.toml") && complaint.contains("secnods"), "{complaint}");
}

#[test]
fn an_expectation_that_is_not_met_fails_and_is_named_with_its_numbers() {
    let output = aquifer(&with(&SHORT, &["--set", "expect.utilisation=2"]));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).expect("it prints text");
    assert!(text.contains("FAILED with seed 1: utilisation is ") && text.contains("at least 2"), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("replay: cargo run ")), "{text}");
}

#[test]
fn a_swarm_is_hunted_and_one_of_it_replayed() {
    let text = succeeds(&["swarm", "--seeds", "2", "--from", "5"]);
    assert!(text.starts_with("seed 5\n") && text.contains("2 seeds, "), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("replay: ")), "{text}");
    let text = succeeds(&["replay", "5"]);
    assert!(text.starts_with("seed 5\n") && text.contains("per_second = "), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.ends_with(" -- replay 5")), "{text}");
    let json: Value = serde_json::from_str(&succeeds(&["replay", "5", "--json"])).expect("it is JSON");
    assert_eq!((json["seed"].as_u64(), &json["violation"]), (Some(5), &Value::Null));
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let program = env!("CARGO_BIN_EXE_aquifer-simulations");
    let mut child = Command::new(program)
        .args(SHORT)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
    let mut complaint = String::new();
    child.stderr.take().expect("it was piped").read_to_string(&mut complaint).expect("it is text");
    assert_eq!(complaint, "");
}
