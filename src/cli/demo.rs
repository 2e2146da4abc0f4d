//! `aquifer demo`: five real nodes on this machine, on screen, in two acts, with a summary and a picture of each.
//!
//! First they share one limit against a strict provider, beside the same load without sharing; then agents of three
//! priorities share two models. Time runs ten times as fast: a limit of 500 a minute is one of 500 in 6 seconds.

mod bucket;
mod chance;
mod chart;
mod figures;
mod http;
mod nodes;
mod priorities;
mod screen;
mod sharing;
mod svg;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ValueEnum, value_parser};
use serde_json::{Value, json};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::exit::{BUG, fail};

use self::nodes::Workdir;
use self::screen::Screen;
use self::svg::Svg;

/// How much faster time runs than on the labels.
const TIME_SCALE: u32 = 10;

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Print plain lines instead of a live table, as without a terminal
    #[arg(long)]
    headless: bool,
    /// Print the figures as JSON to standard output, and everything else to standard error
    #[arg(long)]
    json: bool,
    /// Where to write the picture
    #[arg(long, value_name = "PATH", default_value = "aquifer-demo.svg")]
    svg: PathBuf,
    /// Which act to run
    #[arg(long, value_enum, default_value_t = Act::All)]
    act: Act,
    /// How long the systems of the first act are under load; the rest is in proportion, but has a least length
    #[arg(long, value_name = "SECONDS", default_value_t = 14, value_parser = value_parser!(u64).range(4..=600))]
    seconds: u64,
    /// Keep the nodes' files and logs, and say where they are
    #[arg(long)]
    keep: bool,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Act {
    /// Five nodes share one limit; then the same load without sharing
    #[value(name = "1")]
    Sharing,
    /// Agents of three priorities share two models; one crashes, then a node is killed
    #[value(name = "2")]
    Priorities,
    /// Both, one after the other
    All,
}

const HELP: &str = "\
Act 1: five node processes share 500 calls a minute against a server that refuses whatever is beyond, while their
agents want twice as much; then one is killed and another joins. The same agents then run on nodes that do not share.

Act 2: five node processes share two models, each with requests and tokens a minute and so many calls at the same time,
which the server counts, too. `critical` agents ask now and then, `normal` ones keep asking, and `low` ones take what
they can get. One of these crashes with calls under way: its connections close, which gives its slots back. Then a
node is killed with slots held: the others cannot know what became of its calls, so they leave those slots alone until
the permits' time to live is over.

Both take little more than a minute, need no network, and leave nothing behind but the picture.

Exit status: 0 if the server refused nothing to the nodes that shared and critical calls did not wait longer than low
ones (p95), else 1.";

/// What an act leaves behind.
struct Outcome {
    picture: Svg,
    /// A JSON object.
    figures: Value,
    /// What is wrong with the result, in words; empty if nothing is.
    verdict: String,
}

/// Runs the demo. The exit status is 0 only if all went as promised.
pub fn run(args: Args) -> ExitCode {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("there is no runtime: {error}"), BUG),
    };
    let local = LocalSet::new();
    let outcome = local.block_on(&runtime, async {
        tokio::select! {
            outcome = demo(args) => outcome.map(Some),
            signal = interrupted() => signal.map(|()| None),
        }
    });
    match outcome {
        Ok(Some(verdict)) if verdict.is_empty() => ExitCode::SUCCESS,
        Ok(Some(verdict)) => fail(&verdict, 1),
        Ok(None) => fail("interrupted; all nodes are stopped", 130),
        Err(error) => fail(&error, 1),
    }
}

async fn interrupted() -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Everything from the first node to the last figure. An empty answer means that all went well.
async fn demo(args: Args) -> Result<String, String> {
    let Args { headless, json, svg, act, seconds, keep } = args;
    let svg = absolute(&svg).unwrap_or(svg);
    if !svg.parent().is_some_and(Path::is_dir) {
        return Err(format!("there is no directory for the picture {}", svg.display()));
    }
    let length = Duration::from_secs(seconds);
    let work = Workdir::new(keep)?;
    let mut screen = Screen::new(headless || json, json);
    if keep {
        screen.say(&format!("The nodes' files stay in {}.\n", work.path().display()));
    }

    let mut figures = json!({ "version": 1, "time_scale": TIME_SCALE, "seconds": seconds });
    let (mut picture, mut verdicts) = (None::<Svg>, Vec::new());
    if act != Act::Priorities {
        let outcome = sharing::act(work.path(), length, &mut screen).await?;
        if let (Some(figures), Value::Object(first)) = (figures.as_object_mut(), outcome.figures) {
            figures.extend(first);
        }
        verdicts.push(outcome.verdict);
        picture = Some(outcome.picture);
    }
    if act != Act::Sharing {
        if picture.is_some() {
            screen.say("");
        }
        let outcome = priorities::act(&work.path().join("priorities"), length, &mut screen).await?;
        figures["priorities"] = outcome.figures;
        verdicts.push(outcome.verdict);
        match &mut picture {
            Some(picture) => picture.below(&outcome.picture),
            None => picture = Some(outcome.picture),
        }
    }

    if let Some(picture) = picture {
        let drawn = picture.finish("Machines that share limits, no server in the middle");
        fs::write(&svg, drawn).map_err(|error| format!("cannot write {}: {error}", svg.display()))?;
    }
    verdicts.retain(|verdict| !verdict.is_empty());
    if json {
        figures["passed"] = verdicts.is_empty().into();
        figures["svg"] = svg.display().to_string().into();
        let _ = writeln!(io::stdout(), "{figures:#}");
    }
    screen.say(&format!("\nThe picture: {}", svg.display()));
    Ok(verdicts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_acts_are_planned_to_end_in_time() {
        let length = Duration::from_secs(14);
        let planned = sharing::planned(length) + priorities::planned(length);
        assert!(planned <= Duration::from_secs(66), "the rest of 75 s is for starting 21 processes");
        let short = Duration::from_secs(4);
        assert!(priorities::planned(short) <= Duration::from_secs(20), "a check has no more time");
    }
}
