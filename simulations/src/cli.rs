//! The command line.

mod forge;
mod output;
mod run;
mod swarm;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, value_parser};

use crate::scenario::{Scenario, ScenarioError};
use crate::scheme::Scheme;

use self::output::{fail, print};

/// How people call the program.
const COMMAND: &str = "cargo run --release -p aquifer-simulations --";

/// Simulates swarms of Aquifer nodes that share one limit, and measures them beside what others do.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 110, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
To begin:
  list                                      the scenarios that are built in
  run steady                                one swarm, its figures
  run steady --nodes 100 --loss 5 --seeds 20 --html report.html
                                            20 seeds: the median and the spread, and a page of pictures
  compare steady                            the same requests under every scheme
  sweep steady --over nodes --values 2,10,100
                                            how figures grow with one parameter
  swarm --seeds 1000                        hunts for faults in swarms drawn from the seed
  swarm --seeds 1000 --liars 0.3            the same, with members that lie
  forge --records 10000000                  records that nobody signed: none may be taken up
  replay 17                                 one of those again, with all that happened

A scenario is the name of one that is built in, or the path of a .toml file. The same command with the same seed does
the same. The seed is printed first, and the command to run it again last.

Exit status: 0 fine; 1 a property was violated or an expectation of the scenario not met; 2 wrong usage or a bad file.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario and measure it
    Run(Options),
    /// Run a scenario under all schemes, side by side
    Compare(Options),
    /// Run a scenario with one value after the other of a parameter
    Sweep(Sweep),
    /// Hunt for faults: swarms, networks and faults drawn from the seed, every property checked
    Swarm(swarm::Swarm),
    /// Run one seed of `swarm` again and tell what it is like and what happened
    Replay(swarm::Replay),
    /// Hand a node records that nobody signed, in great numbers, and count what it takes up
    Forge(forge::Forge),
    /// List the scenarios that are built in
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What is run, how often, and what is made of it.
#[derive(Clone, Debug, Args)]
struct Options {
    /// The name of a built-in scenario, or the path of a .toml file
    scenario: String,
    /// How many nodes
    #[arg(long)]
    nodes: Option<usize>,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How many seeds, from the first on
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = value_parser!(u64).range(1..=100_000))]
    seeds: u64,
    /// How long the measured span is, in simulated seconds
    #[arg(long, value_name = "T")]
    seconds: Option<f64>,
    /// Messages that are lost, in percent
    #[arg(long, value_name = "P")]
    loss: Option<f64>,
    /// The mean time that a message takes one way, in milliseconds
    #[arg(long, value_name = "MS")]
    hop: Option<f64>,
    /// Any other field of the scenario, such as burst=20 or links.jitter=0.5; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Only under this scheme; can be repeated
    #[arg(long, value_enum, value_name = "NAME")]
    scheme: Vec<Scheme>,
    /// Print JSON: see the library's documentation of `Report` for its shape
    #[arg(long)]
    json: bool,
    /// Write a row for each run into this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a page of tables and pictures into this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print only what failed
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Debug, Args)]
struct Sweep {
    #[command(flatten)]
    options: Options,
    /// The parameter: nodes, loss, burst, load, or any field by its path such as links.jitter
    #[arg(long, value_name = "KEY")]
    over: String,
    /// Its values
    #[arg(long, value_delimiter = ',', required = true)]
    values: Vec<String>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(options) => run::run(&options, None, &[Scheme::Aquifer], "run"),
        Command::Compare(options) => run::run(&options, None, &Scheme::ALL, "compare"),
        Command::Sweep(Sweep { options, over, values }) => {
            run::run(&options, Some((&over, &values)), &[Scheme::Aquifer], "sweep")
        }
        Command::Swarm(swarm) => swarm.run(),
        Command::Replay(replay) => replay.run(),
        Command::Forge(forge) => forge.run(),
        Command::List { json } => list(json),
    }
}

fn list(json: bool) -> ExitCode {
    let all: Result<Vec<Scenario>, ScenarioError> = Scenario::library().map(Scenario::named).collect();
    let all = match all {
        Ok(all) => all,
        Err(error) => return fail(&error.to_string()),
    };
    if json {
        let entry = |scenario: &Scenario| {
            let Scenario { name, nodes, seconds, about, .. } = scenario;
            serde_json::json!({ "name": name, "nodes": nodes, "seconds": seconds, "about": about })
        };
        let entries: Vec<_> = all.iter().map(entry).collect();
        return print(&format!("{:#}\n", serde_json::Value::from(entries)));
    }
    let width = all.iter().map(|scenario| scenario.name.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  nodes  seconds  about\n", "name");
    for Scenario { name, nodes, seconds, about, .. } in &all {
        let _ = writeln!(text, "{name:width$}  {nodes:>5}  {seconds:>7}  {about}");
    }
    print(&text)
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or_else(|| format!("{text:?} is not key=value, such as burst=20"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn pairs_are_cut_at_the_first_equals_sign() {
        assert_eq!(key_value("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(key_value("=x").is_err() && key_value("x").unwrap_err().contains("\"x\" is not key=value"));
    }
}
