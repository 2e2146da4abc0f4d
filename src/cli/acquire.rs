//! `aquifer acquire`.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::ask::{Ask, TTL_HELD, admitted, refused};
use super::exit::{BUG, LIMITED, USAGE, fail};
use super::output::{json, plain, print};
use crate::api::{AcquireAnswer, Bind, CommitRequest};
use crate::client::{Client, ClientError};

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    ask: Ask,
    /// Keep the permit until standard input closes or ctrl-c, then settle it: frees a slot of a concurrency limit
    #[arg(long)]
    hold: bool,
    /// Print the daemon's answer as JSON, also when it is a refusal
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  aquifer acquire api && curl https://api.example/v1/search
      waits until one request may be made, then makes it
  aquifer acquire api --tokens 1200 --wait 30s --agent researcher-7 --priority high
      asks for one request and 1200 tokens, and waits for up to 30 seconds, before whoever is less urgent
  aquifer acquire api --cost otpm=800 --no-wait
      asks for one request and 800 units of the limit otpm, and does not wait
  aquifer acquire large --or small
      passes the pool small if large has no room now and small has
  aquifer acquire gpu --hold < fifo
      keeps a slot until whoever holds the other end of the fifo closes it; `aquifer exec` does it for one command

Exit status: 0 admitted; 75 limited; 64 an unknown pool or limit; 69 no daemon; 77 not permitted.";

pub async fn run(client: Client, args: Args) -> Result<ExitCode, ClientError> {
    let mut ask = match args.ask.request() {
        Ok(ask) => ask,
        Err(wrong) => return Ok(fail(&wrong, USAGE)),
    };
    if args.hold {
        ask.bind = Some(Bind::Connection);
        ask.ttl_ms.get_or_insert(TTL_HELD.as_millis() as u64);
    }
    let answer = client.acquire(&ask).await?;
    // Before anybody hears that the permit is held: from then on a signal is the wish to settle it.
    let stop = match args.hold.then(Stop::new).transpose() {
        Ok(stop) => stop,
        Err(error) => return Ok(fail(&format!("the system refused to tell of signals: {error}"), BUG)),
    };
    let printed = if args.json {
        print(&json(&answer))
    } else if answer.allowed {
        print(&(plain(&admitted(&answer)) + "\n"))
    } else {
        return Ok(fail(&refused(&answer), LIMITED));
    };
    match (answer.allowed, stop) {
        (true, Some(stop)) => hold(client, &answer, stop).await,
        (true, None) => Ok(printed),
        (false, _) => Ok(LIMITED.into()),
    }
}

/// Keeps the permit until there is no more need of it. What it reserved was used; its slots are free.
async fn hold(client: Client, answer: &AcquireAnswer, mut stop: Stop) -> Result<ExitCode, ClientError> {
    let over = Duration::from_millis(answer.expires_in_ms.unwrap_or_default());
    tokio::select! {
        () = input_closes() => {}
        _ = stop.interrupt.recv() => {}
        _ = stop.terminate.recv() => {}
        _ = stop.hangup.recv() => {}
        () = sleep(over) => return Ok(fail("the permit's time to live is over; its slots are free", LIMITED)),
    }
    let permit = answer.permit.as_deref().unwrap_or_default();
    client.commit(permit, &CommitRequest::default()).await?;
    Ok(ExitCode::SUCCESS)
}

/// The wish that the permit is held no longer.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits until standard input is at its end. In a thread, which a read that never returns does not keep from ending with
/// the process.
async fn input_closes() {
    let (closed, heard) = oneshot::channel();
    thread::spawn(move || {
        // An input that cannot be read is as good as closed.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = closed.send(());
    });
    let _ = heard.await;
}
