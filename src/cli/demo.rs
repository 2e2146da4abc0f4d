//! `aquifer demo`: five real nodes share one limit against a strict provider, on screen; then the same load without
//! sharing, a summary and a picture.
//!
//! Time runs ten times as fast: the limit of 500 a minute is one of 500 in 6 seconds.

mod agents;
mod central;
mod nodes;
mod phases;
mod picture;
mod provider;
mod script;
mod summary;
mod svg;
mod table;
mod watch;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;
use std::time::Duration;

use clap::value_parser;
use serde_json::{Value, json};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::exit::{BUG, fail};
use crate::protocol::limit::Rate;

use self::nodes::Workdir;
use self::phases::{Lone, Shared};
use self::picture::Picture;
use self::script::{KILLED, NODES};
use self::summary::System;
use self::table::Screen;
use self::watch::Event;

/// The one pool of every node.
const POOL: &str = "provider";
/// How much faster time runs than on the labels.
const TIME_SCALE: u32 = 10;
const AMOUNT: u64 = 500;
const PER: Duration = Duration::from_secs(60 / TIME_SCALE as u64);
/// What the provider admits at once.
const BURST: u64 = 50;

/// How long an agent waits for a permit.
const PATIENCE: Duration = Duration::from_secs(1);
/// Each call is held up by up to this much on its way to the provider, at random.
const JITTER: Duration = Duration::from_millis(20);
/// How unevenly calls may be late in all, with what a busy machine adds. Late calls meet those after them at the
/// provider, `rate × lateness` more than were admitted together; so much of the burst the pool leaves unused.
const LATENESS: Duration = Duration::from_millis(72);

/// Less than this part of what one central limiter would admit is a failure of the demo, not just a bad day.
const USED_MIN: f64 = 0.5;

/// The nodes' colours, on the picture and by their number on a terminal of 256.
const COLOURS: [(&str, u8); 6] =
    [("#4c78d0", 68), ("#f2a93b", 215), ("#e4572e", 203), ("#76b7a5", 115), ("#8a6fbf", 97), ("#5fa845", 71)];

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
    /// How long each system is under load; the kill and the join take about half as long again
    #[arg(long, value_name = "SECONDS", default_value_t = 14, value_parser = value_parser!(u64).range(4..=600))]
    seconds: u64,
    /// Keep the nodes' files and logs, and say where they are
    #[arg(long)]
    keep: bool,
}

const HELP: &str = "\
Five node processes share 500 calls a minute against a server that refuses whatever is beyond, while their agents
want twice as much; then one is killed and another joins. The same agents then run on nodes that do not share.
It takes less than a minute, needs no network, and leaves nothing behind but the picture.

Exit status: 0 if the server refused nothing to the nodes that shared, else 1.";

/// Runs the demo. The exit status is 0 only if the provider refused nothing to the nodes that share.
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
    let Args { headless, json, svg, seconds, keep } = args;
    let svg = absolute(&svg).unwrap_or(svg);
    if !svg.parent().is_some_and(Path::is_dir) {
        return Err(format!("there is no directory for the picture {}", svg.display()));
    }
    let (limit, pool) = (rate(AMOUNT, BURST)?, rate(AMOUNT, pool_burst())?);
    let fifth = rate(AMOUNT / NODES as u64, pool_burst() / NODES as u64)?;
    let length = Duration::from_secs(seconds);
    let work = Workdir::new(keep)?;
    let mut screen = Screen::new(headless || json, json);
    screen.say(&introduction());
    if keep {
        screen.say(&format!("The nodes' files stay in {}.", work.path().display()));
    }
    screen.say("");

    let shared = phases::share(&work.path().join("shared"), &limit, &pool, length, &mut screen).await?;
    screen.say("\nThe same load without sharing: each alone with the whole limit; a fifth each.");
    let lone = [
        Lone { name: "each alone", dir: &work.path().join("alone"), pool: &pool },
        Lone { name: "a fifth each", dir: &work.path().join("fifth"), pool: &fifth },
    ];
    let [alone, divided] = phases::compare(lone, &limit, length, &mut screen).await?;
    let system = System::new("Aquifer, shared", &limit, NODES, &shared.calls, &shared.hits, length);
    let systems = [system, alone, divided];

    let lateness = shared.calls.iter().filter_map(|call| call.way).max().unwrap_or_default();
    conclude(&mut screen, &systems, lateness);
    let drawn = picture::draw(&Picture {
        limit: &caption(),
        per_second: limit.per_second(),
        burst: pool.burst(),
        length: shared.length,
        hits: &shared.hits,
        samples: &shared.samples,
        events: &shared.events,
        gone: Some((shared.killed_at, KILLED)),
        systems: &systems,
    });
    fs::write(&svg, drawn).map_err(|error| format!("cannot write {}: {error}", svg.display()))?;

    let verdict = verdict(&shared, &systems[0], lateness);
    if json {
        let mut figures = figures(&systems, &shared, lateness);
        figures["passed"] = verdict.is_empty().into();
        figures["seconds"] = seconds.into();
        figures["svg"] = svg.display().to_string().into();
        let _ = writeln!(io::stdout(), "{figures:#}");
    }
    screen.say(&format!("\nThe picture: {}", svg.display()));
    Ok(verdict)
}

fn conclude(screen: &mut Screen, systems: &[System; 3], lateness: Duration) {
    screen.say("");
    for line in summary::table(systems) {
        screen.say(&line);
    }
    screen.say("\nused: in parts of what one central limiter would have admitted of the same requests");
    screen.say(&format!(
        "Calls were up to {} ms late at the provider; the pool leaves room for {} ms.\n",
        lateness.as_millis(),
        LATENESS.as_millis()
    ));
    screen.say(&summary::sentence(systems));
}

/// What is wrong with the result, in words; empty if nothing is.
fn verdict(shared: &Shared, system: &System, lateness: Duration) -> String {
    let refused = shared.hits.iter().filter(|hit| !hit.admitted).count();
    if refused > 0 {
        let refused = format!("the provider refused {refused} calls of the nodes that share");
        if lateness <= LATENESS {
            return refused;
        }
        return format!(
            "{refused}; this machine was too busy: calls were up to {} ms late, the pool leaves room for {} ms",
            lateness.as_millis(),
            LATENESS.as_millis()
        );
    }
    if let Some(complaint) = &shared.complaint {
        return format!("a request of the nodes that share broke off: {complaint}");
    }
    if system.utilisation() < USED_MIN {
        let used = system.utilisation() * 100.0;
        return format!(
            "the nodes that share used only {used:.0} % of what one central limiter would have given"
        );
    }
    String::new()
}

fn figures(systems: &[System], shared: &Shared, lateness: Duration) -> Value {
    let after: Vec<_> = shared.hits.iter().filter(|hit| hit.at >= shared.killed_at).collect();
    let admitted = after.iter().filter(|hit| hit.admitted).count();
    let keys = ["shared", "alone", "divided"];
    let system = |(key, system): (&str, &System)| {
        let mut json = system.json();
        json["system"] = key.into();
        json
    };
    let event = |event: &Event| json!({ "at_ms": event.at.as_millis() as u64, "what": event.what });
    json!({
        "version": 1,
        "time_scale": TIME_SCALE,
        "limit": { "amount": AMOUNT, "per_ms": PER.as_millis() as u64, "burst": BURST },
        "pool_burst": pool_burst(),
        "lateness_ms": { "allowed": LATENESS.as_millis() as u64, "seen": lateness.as_millis() as u64 },
        "systems": keys.into_iter().zip(systems).map(system).collect::<Vec<_>>(),
        "events": shared.events.iter().map(event).collect::<Vec<_>>(),
        "after_the_kill": { "admitted": admitted, "refused_by_provider": after.len() - admitted },
    })
}

fn rate(amount: u64, burst: u64) -> Result<Rate, String> {
    Rate::new(amount, PER, burst).map_err(|error| error.to_string())
}

/// The burst of the nodes' pool: the provider's, less what late calls need.
fn pool_burst() -> u64 {
    let late = u128::from(AMOUNT) * LATENESS.as_nanos();
    BURST - late.div_ceil(PER.as_nanos()) as u64
}

fn node_name(node: usize) -> String {
    format!("node-{}", node + 1)
}

fn caption() -> String {
    format!("{AMOUNT} calls a minute, burst {BURST}; time runs {TIME_SCALE} times as fast")
}

fn introduction() -> String {
    format!(
        "{NODES} nodes share {}.\n\
         Calls may be up to {} ms late at the provider, {} ms of that on purpose: late calls\n\
         meet those after them, so the pool leaves {} of the burst unused.",
        caption(),
        LATENESS.as_millis(),
        JITTER.as_millis(),
        BURST - pool_burst()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_leaves_rate_times_lateness_of_the_burst() {
        // 500 in 6 s is 83.3 a second; in 72 ms that is 6.
        assert_eq!(pool_burst(), BURST - 6);
    }

    #[test]
    fn the_whole_demo_is_planned_to_end_in_time() {
        let length = Duration::from_secs(14);
        let planned = length + phases::change(length) + length + 2 * phases::SETTLE;
        assert!(planned <= Duration::from_secs(40), "the rest of 55 s is for starting 16 processes");
    }
}
