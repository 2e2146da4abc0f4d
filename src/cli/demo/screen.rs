//! Where people see progress: a table that is drawn over on a terminal, else a line a second.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

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

    /// Shows how it is at `now`: the lines that `live` gives (told whether in colour) over those before, or once a second
    /// the line that `plain` gives.
    pub fn show(
        &mut self,
        now: Duration,
        live: impl FnOnce(bool) -> Vec<String>,
        plain: impl FnOnce() -> String,
    ) {
        if self.live {
            self.draw(&live(self.colour));
        } else if self.second.replace(now.as_secs()) != Some(now.as_secs()) && now.as_secs() > 0 {
            self.write(&format!("{}\n", plain()));
        }
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

/// Text in a colour of a terminal of 256, filled up to `width`.
pub fn paint(text: &str, width: usize, colour: Option<u8>) -> String {
    let padded = format!("{text:<width$}");
    match colour {
        Some(colour) => format!("\x1b[38;5;{colour}m{padded}\x1b[39m"),
        None => padded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_does_not_change_what_is_read() {
        assert_eq!(paint("node-1", 8, None), "node-1  ");
        let painted = paint("node-1", 8, Some(68));
        assert!(painted.starts_with("\x1b[38;5;68m") && painted.contains("node-1  "));
    }
}
