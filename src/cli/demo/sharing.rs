//! The first act: five nodes share one limit on calls; then the same load without sharing.

mod agents;
mod central;
mod phases;
mod picture;
mod provider;
mod script;
mod summary;
mod table;
mod watch;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::protocol::limit::Rate;

use super::screen::Screen;
use super::{Outcome, TIME_SCALE};

use self::phases::{Lone, Shared};
use self::picture::Picture;
use self::script::{KILLED, NODES};
use self::summary::System;
use self::watch::Event;

/// The one pool of every node.
const POOL: &str = "provider";
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

/// Runs the act: each system is under load for `length`, and the nodes' files go below `dir`.
///
/// # Errors
/// A node does not start or does not become ready.
pub async fn act(dir: &Path, length: Duration, screen: &mut Screen) -> Result<Outcome, String> {
    let (limit, pool) = (rate(AMOUNT, BURST)?, rate(AMOUNT, pool_burst())?);
    let fifth = rate(AMOUNT / NODES as u64, pool_burst() / NODES as u64)?;
    screen.say(&introduction());
    screen.say("");

    let shared = phases::share(&dir.join("shared"), &limit, &pool, length, screen).await?;
    screen.say("\nThe same load without sharing: each alone with the whole limit; a fifth each.");
    let lone = [
        Lone { name: "each alone", dir: &dir.join("alone"), pool: &pool },
        Lone { name: "a fifth each", dir: &dir.join("fifth"), pool: &fifth },
    ];
    let [alone, divided] = phases::compare(lone, &limit, length, screen).await?;
    let system = System::new("Aquifer, shared", &limit, NODES, &shared.calls, &shared.hits, length);
    let systems = [system, alone, divided];

    let lateness = shared.calls.iter().filter_map(|call| call.way).max().unwrap_or_default();
    conclude(screen, &systems, lateness);
    let picture = picture::draw(&Picture {
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
    let figures = figures(&systems, &shared, lateness);
    Ok(Outcome { picture, figures, verdict: verdict(&shared, &systems[0], lateness) })
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

/// How long it takes, without starting processes.
#[cfg(test)]
pub fn planned(length: Duration) -> Duration {
    length + phases::change(length) + length + 2 * phases::SETTLE
}

/// The one pool of the nodes, as their configuration has it.
fn config(limit: &Rate) -> String {
    format!(
        "[[pool]]\nname = \"{POOL}\"\n[[pool.limit]]\nname = \"calls\"\namount = {}\nper = \"{}ms\"\nburst = {}\n",
        limit.amount(),
        limit.per().as_millis(),
        limit.burst()
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
}
