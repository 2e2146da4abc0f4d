//! Servers, as the kernel sees them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// The process that is the server.
pub struct Process {
    id: i32,
    /// Where it ran when it was first looked at.
    cores: CpuSet,
}

impl Process {
    /// The one whose id is in the file.
    ///
    /// # Errors
    ///
    /// There is no such file or process.
    pub fn of_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let id = text.trim().parse().with_context(|| format!("{} holds no process id", path.display()))?;
        let cores = sched_getaffinity(Pid::from_raw(id)).with_context(|| format!("no process {id}"))?;
        Ok(Self { id, cores })
    }

    /// Processor time that its threads took so far, of those that are still there. From `schedstat`, which counts
    /// nanoseconds; `stat` counts hundredths of a second.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let mut total = 0;
        for thread in self.threads()? {
            let path = format!("/proc/{}/task/{thread}/schedstat", self.id);
            // A thread can end while it is looked at.
            let text = fs::read_to_string(path).unwrap_or_default();
            total += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(total))
    }

    /// Moves it to one core, or lets it run where it ran.
    ///
    /// # Errors
    ///
    /// It has ended, or belongs to somebody else; or there is no such core.
    pub fn run_on(&self, core: Option<usize>) -> Result<()> {
        let cores = core.map_or(self.cores, only);
        for thread in self.threads()? {
            sched_setaffinity(Pid::from_raw(thread), &cores)
                .with_context(|| format!("cannot move process {}", self.id))?;
        }
        Ok(())
    }

    fn threads(&self) -> Result<Vec<i32>> {
        let entries = fs::read_dir(format!("/proc/{}/task", self.id))
            .with_context(|| format!("process {} has ended", self.id))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }
}

/// Moves the calling thread to one core.
///
/// # Errors
///
/// There is no such core.
pub fn run_here_on(core: usize) -> Result<()> {
    sched_setaffinity(None, &only(core)).with_context(|| format!("cannot move to core {core}"))
}

fn only(core: usize) -> CpuSet {
    let mut cores = CpuSet::new();
    cores.set(core);
    cores
}
