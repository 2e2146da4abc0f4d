//! What people see while it runs.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::demo::nodes::node_name;
use crate::cli::demo::screen::{Screen, paint};

use super::watch::Sight;
use super::{COLOURS, script};

/// Cells of the bar that shows a node's share.
const BAR: usize = 24;
const BAR_EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
const SPARKS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
/// How many seconds the line of past rates shows.
const SPARK_SECONDS: usize = 22;

/// What stays the same while the table is shown.
pub struct Caption {
    /// The limit in words.
    pub limit: String,
    /// The limit in calls per second.
    pub per_second: f64,
    /// How long the load lasts.
    pub length: Duration,
}

/// Shows the shared system as it is now.
pub fn show(screen: &mut Screen, sight: &Sight, caption: &Caption) {
    screen.show(sight.now(), |colour| live(sight, caption, colour), || plain(sight));
}

/// Shows two systems that do not share as they are now.
pub fn compare(screen: &mut Screen, names: [&str; 2], sights: [&Sight; 2]) {
    let part = |(name, sight): (&str, &Sight)| {
        let (admitted, refused) = sight.totals();
        format!("{name}: {admitted} admitted, {refused} refused")
    };
    let line = || {
        let parts = names.into_iter().zip(sights).map(part).collect::<Vec<_>>().join("; ");
        format!("{:>4} s  {parts}", sights[0].now().as_secs())
    };
    screen.show(sights[0].now(), |_| vec![line()], line);
}

fn live(sight: &Sight, caption: &Caption, colour: bool) -> Vec<String> {
    let (now, (admitted, refused)) = (sight.now(), sight.totals());
    let mut lines = vec![
        format!("{:<62}{:>5.1} / {:.0} s", caption.limit, now.as_secs_f64(), caption.length.as_secs_f64()),
        String::new(),
        format!(
            "  {:<8}{:<13}{:>8}{:>8}   {:<33}{:>7}",
            "node", "agent", "wants/s", "gets/s", "holds", "waiting"
        ),
    ];
    for (node, habit) in script::HABITS.iter().enumerate() {
        let name = paint(&node_name(node), 8, hue(node, colour));
        let Some(sample) = sight.latest(node).filter(|sample| sample.held > 0.0 || sample.demand > 0.0)
        else {
            lines.push(format!("  {name}{:<13}{:>8}{:>8}", habit.name(), "-", "-"));
            continue;
        };
        lines.push(format!(
            "  {name}{:<13}{:>8.1}{:>8.1}   {}{:>7.1} %{:>7}",
            habit.name(),
            sample.demand,
            sight.admitted_rate(Some(node)),
            paint(&bar(sample.held), BAR, hue(node, colour)),
            sample.held * 100.0,
            sample.waiting,
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "  provider: {admitted} admitted, {refused} refused; {:.1} of {:.1}/s  {}",
        sight.admitted_rate(None),
        caption.per_second,
        sparks(sight, caption.per_second)
    ));
    let last = sight.events().pop().map(|event| format!("  {:.1} s: {}", event.at.as_secs_f64(), event.what));
    lines.push(last.unwrap_or_default());
    lines
}

fn plain(sight: &Sight) -> String {
    let (admitted, refused) = sight.totals();
    let mut line = format!(
        "{:>4} s  {admitted} admitted ({:.0}/s), {refused} refused; held:",
        sight.now().as_secs(),
        sight.admitted_rate(None)
    );
    for node in 0..script::HABITS.len() {
        if let Some(sample) = sight.latest(node).filter(|sample| sample.held > 0.0) {
            let _ = write!(line, " {} {:.0} %,", node_name(node), sample.held * 100.0);
        }
    }
    line.truncate(line.trim_end_matches(',').len());
    line
}

/// A node's colour, if in colour.
fn hue(node: usize, colour: bool) -> Option<u8> {
    colour.then(|| COLOURS[node % COLOURS.len()].1)
}

/// A bar for a fraction, exact to an eighth of a cell.
fn bar(fraction: f64) -> String {
    let filled = fraction * BAR as f64 * 8.0;
    let eighths = (1..=BAR * 8).take_while(|eighth| *eighth as f64 - 0.5 <= filled).count();
    "█".repeat(eighths / 8) + BAR_EIGHTHS[eighths % 8]
}

/// The admitted rate of the last seconds, each second one cell; the limit is nearly as high as a cell.
fn sparks(sight: &Sight, per_second: f64) -> String {
    let now = sight.now().as_secs() as usize;
    let mut seconds = vec![0_u32; now];
    for hit in sight.hits().iter().filter(|hit| hit.admitted) {
        if let Some(count) = seconds.get_mut(hit.at.as_secs() as usize) {
            *count += 1;
        }
    }
    let shown = &seconds[now.saturating_sub(SPARK_SECONDS)..];
    let cell = |count: &u32| {
        let height = f64::from(*count) / per_second * 6.0;
        SPARKS[(1..SPARKS.len()).take_while(|step| *step as f64 - 0.5 <= height).count()]
    };
    shown.iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_fraction() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(0.5), "█".repeat(BAR / 2));
        assert_eq!(bar(7.0), "█".repeat(BAR));
        assert_eq!(bar(1.0 / (BAR as f64 * 8.0)), "▏");
    }
}
