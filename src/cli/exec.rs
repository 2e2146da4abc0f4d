//! `aquifer exec`: a command that runs under a permit.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;

use super::ask::{Ask, TTL_HELD, refused};
use super::exit::{BUG, LIMITED, USAGE, fail};
use super::output::{json, print};
use crate::api::{Bind, CommitRequest};
use crate::client::{Client, ClientError};

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    ask: Ask,
    /// Print a refusal as JSON
    #[arg(long)]
    json: bool,
    /// The command to run, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

const HELP: &str = "\
Examples:
  aquifer exec api --wait 1m -- curl https://api.example/v1/search
      waits for up to a minute until one request may be made, then makes it
  aquifer exec gpu --priority low --agent nightly -- ./train.sh
      keeps a slot of the pool gpu as long as train.sh runs

The command finds the permit in AQUIFER_PERMIT and the pool in AQUIFER_POOL. It may settle the permit itself with what it
really used:
  curl --unix-socket \"$AQUIFER_SOCKET\" http://aquifer/v1/permits/$AQUIFER_PERMIT/commit -d '{\"tokens\":1012}'
Otherwise what was reserved counts as used. Its slots are free when it ends, and also if this process is killed.

Exit status: that of CMD, or 128 and the number of the signal that ended it; 75 if limited, and CMD was not run;
126 or 127 if CMD cannot be run or is not there, and nothing counts as used; 64, 69 and 77 as everywhere.";

/// The command is there but cannot be run.
const NOT_RUNNABLE: u8 = 126;
/// The command is not there.
const NOT_FOUND: u8 = 127;

pub async fn run(client: Client, args: Args) -> Result<ExitCode, ClientError> {
    let mut ask = match args.ask.request() {
        Ok(ask) => ask,
        Err(wrong) => return Ok(fail(&wrong, USAGE)),
    };
    ask.bind = Some(Bind::Connection);
    ask.ttl_ms.get_or_insert(TTL_HELD.as_millis() as u64);
    let answer = client.acquire(&ask).await?;
    let Some(permit) = answer.permit.as_deref().filter(|_| answer.allowed) else {
        if args.json {
            print(&json(&answer));
            return Ok(LIMITED.into());
        }
        return Ok(fail(&refused(&answer), LIMITED));
    };
    // From here on signals are the command's; before, they end this process, and so the request.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return Ok(fail(&format!("the system refused to tell of signals: {error}"), BUG)),
    };
    let (program, arguments) = args.command.split_first().expect("BUG! clap requires a command");
    let mut command = Command::new(program);
    command.args(arguments).env("AQUIFER_PERMIT", permit).env("AQUIFER_POOL", &answer.pool);
    command.env("AQUIFER_SOCKET", client.socket());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            client.release(permit).await?;
            let status = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
            return Ok(fail(&format!("cannot run {}: {error}", program.display()), status));
        }
    };
    let ended = match wait(&mut child, &mut signals).await {
        Ok(ended) => status(ended),
        Err(error) => fail(&format!("cannot wait for {}: {error}", program.display()), BUG),
    };
    if let Err(error) = client.commit(permit, &CommitRequest::default()).await {
        // The command has run, and how it ended is what the caller wants to know.
        fail(&format!("the permit was not settled: {error}"), 0);
    }
    Ok(ended)
}

/// Waits for the end of the command, and hands signals on to it.
async fn wait(child: &mut Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    loop {
        tokio::select! {
            ended = child.wait() => return ended,
            Some(signal) = signals.heard.recv() => {
                if let Some(pid) = pid.filter(|_| !(is_of_terminal(signal) && has_terminal())) {
                    // It may have ended meanwhile.
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }
}

fn status(ended: ExitStatus) -> ExitCode {
    let status = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    status.and_then(|status| u8::try_from(status).ok()).unwrap_or(BUG).into()
}

/// Signals that can be handed on.
struct Signals {
    heard: mpsc::Receiver<Signal>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (tell, heard) = mpsc::channel(16);
        for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2] {
            let mut signals = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
            let tell = tell.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() && tell.send(signal).await.is_ok() {}
            });
        }
        Ok(Self { heard })
    }
}

/// Whether a terminal sends it to all processes in its foreground.
fn is_of_terminal(signal: Signal) -> bool {
    [Signal::INT, Signal::QUIT, Signal::HUP].contains(&signal)
}

/// Whether this process is in the foreground of its terminal, and the command with it: it hears ctrl-c without our help,
/// and a second one would be taken for impatience.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}
