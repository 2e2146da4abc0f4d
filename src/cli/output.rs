//! What commands print: text, JSON and tables, with colour where somebody looks.

use std::env;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::exit::{BUG, fail};
use crate::daemon::config::show_duration;

/// Writes `text` to standard output. A reader that closed the pipe has had enough, which is no failure.
pub fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(&format!("cannot print: {error}"), BUG),
        _ => ExitCode::SUCCESS,
    }
}

/// Whether standard output still has a reader, after writing `text` to it.
pub fn print_on(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// `value` as indented JSON with a line feed after it.
pub fn json(value: &impl Serialize) -> String {
    // Maps with other keys than texts are all that cannot be written, and no answer has any.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

/// `text` without control characters: names come from other machines and must not drive the terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// Colour if standard output is a terminal that has any and `NO_COLOR` is not set.
    pub fn of_stdout() -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colour: io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Good news.
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Something to look at.
    pub fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// `word` of a node's, peer's or pool's state.
    pub fn state(self, padded: &str) -> String {
        match padded.trim() {
            "open" | "ready" | "connected" => self.green(padded),
            "waiting" | "paused" | "broken" | "joining" | "settling" | "leaving" | "lost" => {
                self.yellow(padded)
            }
            _ => padded.to_owned(),
        }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Columns of text under headings.
#[derive(Debug)]
pub struct Table {
    headings: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// The head of a column.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Of words, which begin below each other.
    Text(&'static str),
    /// Of numbers, which end below each other.
    Number(&'static str),
    /// Of states, which have colours.
    State(&'static str),
}

impl Table {
    /// A table without rows.
    pub fn new(headings: &[Column]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, one cell for each column.
    pub fn row<const N: usize>(&mut self, cells: &[String; N]) {
        self.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }

    /// Whether there is nothing below the headings.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table's lines.
    pub fn show(&self, style: Style) -> String {
        let titles: Vec<_> = self.headings.iter().map(|heading| heading.title().to_owned()).collect();
        let width = |index: usize| {
            let cells = self.rows.iter().chain([&titles]).filter_map(|row| row.get(index));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..titles.len()).map(width).collect();
        let line = |row: &[String], head: bool| {
            let cells = row.iter().zip(&self.headings).zip(&widths).map(|((cell, heading), width)| {
                let padded = match heading {
                    Column::Number(_) => format!("{cell:>width$}"),
                    Column::Text(_) | Column::State(_) => format!("{cell:<width$}"),
                };
                match heading {
                    _ if head => style.bold(&padded),
                    Column::State(_) => style.state(&padded),
                    _ => padded,
                }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        let rows = self.rows.iter().map(|row| line(row, false));
        [line(&titles, true)].into_iter().chain(rows).collect()
    }
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Text(title) | Self::Number(title) | Self::State(title) => title,
        }
    }
}

/// A part of a whole: `33.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A short time with two digits that matter, a long one in whole seconds: `4 ms`, `0.84 s`, `3.2 s`, `2m5s`.
pub fn millis(time: u64) -> String {
    let seconds = time as f64 / 1_000.0;
    match time {
        0..10 => format!("{time} ms"),
        10..1_000 => format!("{seconds:.2} s"),
        1_000..60_000 => format!("{seconds:.1} s"),
        _ => show_duration(Duration::from_secs(time / 1_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false };

    #[test]
    fn columns_line_up_and_names_cannot_drive_the_terminal() {
        let mut table = Table::new(&[Column::Text("POOL"), Column::Number("USED"), Column::State("STATE")]);
        table.row(&["a".to_owned(), "12345".to_owned(), "open".to_owned()]);
        table.row(&["lönger\x1b[2J".to_owned(), "7".to_owned(), "waiting".to_owned()]);
        let lines = "POOL         USED  STATE\na           12345  open\nlönger\u{fffd}[2J      7  waiting\n";
        assert_eq!(table.show(PLAIN), lines);
        let coloured = table.show(Style { colour: true });
        assert!(coloured.contains("\x1b[32mopen   \x1b[0m"), "{coloured:?}");
    }

    #[test]
    fn times_have_two_digits_that_matter() {
        for (time, text) in [(0, "0 ms"), (840, "0.84 s"), (3_200, "3.2 s"), (125_900, "2m5s")] {
            assert_eq!(millis(time), text);
        }
    }
}
