//! A record of every admission, for whoever wants to check the limit from outside.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The variable that names the file.
pub const VARIABLE: &str = "AQUIFER_ADMISSION_LOG";

/// Lines of `nanoseconds<TAB>limit<TAB>units` on `CLOCK_MONOTONIC`, in the order admitted, each written before the
/// caller has its answer. What permits give back or overdraw later is not in it.
#[derive(Debug)]
pub struct AdmissionLog {
    file: File,
    path: PathBuf,
    broken: bool,
}

impl AdmissionLog {
    /// Appends to the file that [`VARIABLE`] names, if it names one.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn from_environment() -> io::Result<Option<Self>> {
        match std::env::var_os(VARIABLE) {
            Some(path) if !path.is_empty() => Self::open(Path::new(&path)).map(Some),
            _ => Ok(None),
        }
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, path: path.to_owned(), broken: false })
    }

    /// Writes one admission: all its limits in one write, so that logs of several nodes can share a file.
    pub fn write<'a>(&mut self, nanos: u64, taken: impl Iterator<Item = (&'a str, u64)>) {
        let lines: String = taken.map(|(limit, units)| format!("{nanos}\t{limit}\t{units}\n")).collect();
        if let Err(error) = self.file.write_all(lines.as_bytes())
            && !self.broken
        {
            self.broken = true;
            tracing::error!("{} cannot be written, admissions go unrecorded: {error}", self.path.display());
        }
    }
}
