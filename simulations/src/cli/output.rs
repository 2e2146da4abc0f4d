//! What commands print, and how they end.

use std::borrow::Cow;
use std::env;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use terminal_size::{Width, terminal_size_of};

use crate::report::Terminal;

/// A property was violated, or an expectation not met.
pub const FAILED: u8 = 1;
/// The command line or a file is wrong.
pub const USAGE: u8 = 2;

/// Lines are not made longer than this where nobody says how wide it is.
const WIDTH: usize = 110;

/// Writes `text` to standard output. A reader that closed the pipe has had enough, which is no failure.
pub fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(&format!("cannot print: {error}")),
        _ => ExitCode::SUCCESS,
    }
}

/// Says what is wrong with the command line or a file.
pub fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {}", message.trim_end());
    USAGE.into()
}

/// Standard output as a terminal.
pub fn terminal() -> Terminal {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let width = terminal_size_of(io::stdout()).map(|(Width(width), _)| usize::from(width));
    Terminal { width: width.unwrap_or(WIDTH), colour: io::stdout().is_terminal() && !set("NO_COLOR") }
}

/// A progress bar on standard error, if that is a terminal; unbounded without a `length`.
pub fn progress(length: Option<u64>, quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{elapsed_precise} {bar:40} {pos}/{len}, {eta} left {msg}")
        }
        None => (ProgressBar::no_length(), "{elapsed_precise} {pos} {msg}"),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("BUG! a template that is wrong"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A word as a shell takes it.
pub fn shell(word: &str) -> Cow<'_, str> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=,:+@%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''")).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_if_a_shell_would_cut_them() {
        assert_eq!(shell("links.loss=5"), "links.loss=5");
        assert_eq!(shell("my file's"), r"'my file'\''s'");
        assert_eq!(shell(""), "''");
    }
}
