//! The second act: agents of three priorities share two models, each with requests and tokens a minute and calls at the
//! same time; one agent crashes, then a node is killed.

mod agents;
mod phases;
mod picture;
mod provider;
mod script;
mod summary;
mod table;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::screen::Screen;
use super::{Outcome, TIME_SCALE};

use self::script::{MODELS, Model, NODES, Plan};
use self::summary::Summary;

/// A minute of the labels.
const PER: Duration = Duration::from_secs(60 / TIME_SCALE as u64);
/// Each call is held up by up to this much on its way to the provider, at random.
const JITTER: Duration = Duration::from_millis(20);
/// How unevenly calls may be late in all, as in the first act.
const LATENESS: Duration = Duration::from_millis(72);
/// How long nodes that are ready get to fill their buckets and to even out their shares.
const SETTLE: Duration = Duration::from_secs(1);

/// The classes' colours, on the picture and by their number on a terminal of 256.
const COLOURS: [(&str, u8); 3] = [("#d64545", 167), ("#e0a030", 179), ("#4c78d0", 68)];

/// Runs the act, in proportion to the first one, whose systems are under load for `length`. The nodes' files go to `dir`.
///
/// # Errors
/// A node does not start or does not become ready.
pub async fn act(dir: &Path, length: Duration, screen: &mut Screen) -> Result<Outcome, String> {
    screen.say(&introduction());
    let plan = Plan::new(length);
    let seen = phases::play(dir, plan, screen).await?;
    let summary = Summary::new(&seen);
    screen.say("");
    for line in summary.lines() {
        screen.say(&line);
    }
    Ok(Outcome {
        picture: picture::draw(&seen, &summary),
        figures: summary.json(),
        verdict: summary.verdict(),
    })
}

/// How long it takes, without starting processes.
#[cfg(test)]
pub fn planned(length: Duration) -> Duration {
    SETTLE + Plan::new(length).end + phases::AFTERMATH
}

fn introduction() -> String {
    let mut text = format!("{NODES} nodes share two models; time runs {TIME_SCALE} times as fast:\n");
    for model in &MODELS {
        let _ = writeln!(text, "  {}: {}", model.name, limits(model));
    }
    text
}

fn limits(model: &Model) -> String {
    format!(
        "{} requests and {} tokens a minute, {} calls at the same time",
        model.rpm, model.tpm, model.max_concurrent
    )
}
