//! One load on one server, for as long as it is measured; and the background, for as long as there is somebody.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::codec::Echo;
use crate::plan::{Figure, Load, Plan, Protocol, Target};
use crate::process::{self, Process};
use crate::tally::{Tally, Window};
use crate::{grpc, sockets};

/// A server that does not answer any more is given up so much later.
const GRACE: Duration = Duration::from_secs(10);

/// What one run showed.
pub struct Measured {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
    /// Answers that were anything but "allowed".
    pub not_allowed: u64,
}

impl Measured {
    /// One of its figures; no number if it is not known.
    pub fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Rate => self.rate,
            Figure::P50 => self.p50,
            Figure::P99 => self.p99,
            Figure::Cpu => self.cpu,
        }
    }
}

/// Puts the load on the server, and looks at both.
///
/// # Errors
///
/// The server cannot be reached or has ended, or does not answer.
pub fn measure(target: &Target, load: &Load) -> Result<Measured> {
    let process = target.pid.as_deref().map(Process::of_file).transpose()?;
    if let (Some(process), Some(core)) = (&process, load.core) {
        process.run_on(Some(core))?;
    }
    let measured = Duration::from_secs_f64(load.seconds);
    let window = Window::begin(measured);
    let driver = thread::spawn({
        let (target, load) = (target.clone(), load.clone());
        move || {
            load.core.map_or(Ok(()), process::run_here_on)?;
            drive(&target, &load, window)
        }
    });
    let sleep_until = |then: Instant| thread::sleep(then.saturating_duration_since(Instant::now()));
    let spent = || process.as_ref().map(Process::processor_time).transpose();
    sleep_until(window.from);
    let (before, since) = (spent()?, Instant::now());
    sleep_until(window.end);
    let (after, elapsed) = (spent()?, since.elapsed());
    while !driver.is_finished() {
        if window.end.elapsed() > GRACE {
            bail!("{} does not answer", target.name);
        }
        thread::sleep(Duration::from_millis(2));
    }
    let tally =
        driver.join().map_err(|_| anyhow!("the generator panicked"))?.with_context(|| target.name.clone())?;
    if let (Some(process), Some(_)) = (&process, load.core) {
        process.run_on(None)?;
    }
    let rate = tally.answers() as f64 / measured.as_secs_f64();
    let cpu = match (before, after) {
        (Some(before), Some(after)) => {
            after.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64() / rate * 1e6
        }
        _ => f64::NAN,
    };
    let (p50, p99) = (tally.quantile(0.5), tally.quantile(0.99));
    Ok(Measured { rate, p50, p99, cpu, not_allowed: tally.not_allowed })
}

/// Whether there is somebody.
///
/// # Errors
///
/// Nobody listens there.
pub fn probe(target: &Target) -> Result<()> {
    sockets::connect(&target.address).map(drop)
}

/// Runs the plan's background load until killed.
///
/// # Errors
///
/// A server cannot be reached, or has ended.
pub fn background(plan: &Plan) -> Result<()> {
    let (report, reports) = mpsc::channel();
    for background in &plan.background {
        let target = plan.targets[&background.target].clone();
        let (connections, seconds) = (background.connections, background.seconds);
        let load = Load { connections, depth: 1, rate: None, core: None, seconds };
        let (turn, report) = (Duration::from_secs_f64(seconds), report.clone());
        thread::spawn(move || {
            let error = loop {
                match drive(&target, &load, Window::begin(turn)) {
                    Ok(_) => thread::sleep(turn),
                    Err(error) => break error.context(target.name),
                }
            };
            // Nobody is left to be told when the process ends.
            let _ = report.send(error);
        });
    }
    Err(reports.recv()?)
}

fn drive(target: &Target, load: &Load, window: Window) -> Result<Tally> {
    match &target.protocol {
        Protocol::Echo => sockets::drive(&target.address, &Echo, load, window),
        Protocol::Resp(command) => sockets::drive(&target.address, command, load, window),
        Protocol::Http(call) => sockets::drive(&target.address, call, load, window),
        Protocol::Grpc(service) => grpc::drive(&target.address, *service, load, window),
    }
}
