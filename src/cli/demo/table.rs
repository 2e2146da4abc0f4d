//! What people see while it runs: a live table on a terminal, else a line a second.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::watch::Sight;
use super::{COLOURS, node_name, script};

/// Cells of the bar that shows a node's share.
const BAR: usize = 24;
const BAR_EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
const SPARKS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
/// How many seconds the line of past rates shows.
const SPARK_SECONDS: usize = 22;

/// Where progress is shown.
pub struct Screen {
    /// Standard output may be for the figures alone.
    to_stderr: bool,
    live: bool,
    colour: bool,
    /// Lines of the table that is on the screen and will be drawn over.
    drawn: usize,
    /// The last whole second that a plain line was written for.
    second: Option<u64>,
}

/// What stays the same while the table is shown.
pub struct Caption {
    /// The limit in words.
    pub limit: String,
    /// The limit in calls per second.
    pub per_second: f64,
    /// How long the load lasts.
    pub length: Duration,
}

impl Screen {
    /// A live table if there is a terminal, unless `plain`. With `to_stderr` nothing goes to standard output.
    pub fn new(plain: bool, to_stderr: bool) -> Self {
        let terminal = if to_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = terminal && !plain && !dumb;
        let colour = live && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { to_stderr, live, colour, drawn: 0, second: None }
    }

    /// Writes one line below everything.
    pub fn say(&mut self, line: &str) {
        self.drawn = 0;
        self.second = None;
        self.write(&format!("{line}\n"));
    }

    /// Shows the shared system as it is now.
    pub fn show(&mut self, sight: &Sight, caption: &Caption) {
        if self.live {
            self.draw(&live(sight, caption, self.colour));
        } else if self.is_new_second(sight) {
            self.write(&format!("{}\n", plain(sight)));
        }
    }

    /// Shows two systems that do not share as they are now.
    pub fn compare(&mut self, names: [&str; 2], sights: [&Sight; 2]) {
        let part = |(name, sight): (&str, &Sight)| {
            let (admitted, refused) = sight.totals();
            format!("{name}: {admitted} admitted, {refused} refused")
        };
        let parts = names.into_iter().zip(sights).map(part).collect::<Vec<_>>().join("; ");
        let line = format!("{:>4} s  {parts}", sights[0].now().as_secs());
        if self.live {
            self.draw(&[line]);
        } else if self.is_new_second(sights[0]) {
            self.write(&format!("{line}\n"));
        }
    }

    fn is_new_second(&mut self, sight: &Sight) -> bool {
        let second = sight.now().as_secs();
        self.second.replace(second) != Some(second) && second > 0
    }

    /// Draws over what was drawn last.
    fn draw(&mut self, lines: &[String]) {
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        for line in lines {
            let _ = writeln!(text, "\r{line}\x1b[K");
        }
        self.drawn = lines.len();
        self.write(&text);
    }

    fn write(&self, text: &str) {
        // Nobody who reads any more is no reason to stop: the exit status still tells.
        let _ = if self.to_stderr {
            io::stderr().write_all(text.as_bytes())
        } else {
            io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush())
        };
    }
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
        let name = paint(&node_name(node), 8, node, colour);
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
            paint(&bar(sample.held), BAR, node, colour),
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

/// Text in a node's colour, filled up to `width`.
fn paint(text: &str, width: usize, node: usize, colour: bool) -> String {
    let padded = format!("{text:<width$}");
    if !colour {
        return padded;
    }
    let (_, index) = COLOURS[node % COLOURS.len()];
    format!("\x1b[38;5;{index}m{padded}\x1b[39m")
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

    #[test]
    fn colour_does_not_change_what_is_read() {
        assert_eq!(paint("node-1", 8, 0, false), "node-1  ");
        let painted = paint("node-1", 8, 0, true);
        assert!(painted.starts_with("\x1b[38;5;") && painted.contains("node-1  "));
    }
}
