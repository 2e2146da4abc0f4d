//! `aquifer leave` and `aquifer reload`: what an operator asks of this node alone.

use std::process::ExitCode;
use std::time::Duration;

use super::exit::{BAD_CONFIG, LIMITED, fail};
use super::output::{json as show, percent, plain, print};
use crate::api::{LeaveAnswer, ReloadAnswer};
use crate::client::{Client, ClientError};
use crate::daemon::config::parse_duration;

#[derive(Debug, clap::Args)]
#[command(after_help = LEAVE_HELP)]
pub struct Leave {
    /// How long to wait for it, up to a minute
    #[arg(long, value_name = "TIME", value_parser = parse_wait, default_value = "10s")]
    wait: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = RELOAD_HELP)]
pub struct Reload {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const LEAVE_HELP: &str = "\
Example:
  aquifer leave
      answers who waits, gives leases and base share back to the other members, and ends the daemon; a few seconds at most

The node's identity stays in its data directory: started again it joins again. SIGTERM does the same, unheard.
Exit status: 0 if everything was given back, or nobody else was there to take it; 75 if something is left, which is said.";

const RELOAD_HELP: &str = "\
Example:
  aquifer reload
      reads the configuration that the daemon was started with again; `kill -HUP` does the same, and writes to its log

At once: [access] but for group, [[rls]], [[agent]] but for limits, node.name, swarm.auto_vouch and trust, and of pools overflow,
queue_timeout, max_queue, ageing, max_keys and the numbers of a breaker. The rest, limits above all, needs a restart.
A file that is wrong changes nothing; `aquifer check FILE` says the same about it.
Exit status: 0 if the node runs with all of it; 78 if it is wrong, or something needs a restart, which is said.";

fn parse_wait(text: &str) -> Result<Duration, String> {
    let wait = parse_duration(text)?;
    if wait <= Duration::from_secs(60) { Ok(wait) } else { Err("must be at most 60s".to_owned()) }
}

pub async fn leave(client: Client, args: Leave) -> Result<ExitCode, ClientError> {
    let answer = client.leave_within(args.wait).await?;
    let shown = print(&if args.json { show(&answer) } else { format!("{}\n", said(&answer)) });
    Ok(if is_all_back(&answer) { shown } else { LIMITED.into() })
}

/// Whether nothing of the node's is left that another member could have.
fn is_all_back(answer: &LeaveAnswer) -> bool {
    let alone = answer.peers_connected == 0 && answer.lent.is_empty() && answer.borrowed.is_empty();
    answer.left && (answer.base_share == 0.0 || alone)
}

fn said(answer: &LeaveAnswer) -> String {
    let base = percent(answer.base_share);
    let mut left = Vec::new();
    if answer.base_share > 0.0 && answer.peers_connected > 0 {
        left.push(format!("{base} of every limit as its own"));
    }
    for (limits, how) in [(&answer.lent, "lent out"), (&answer.borrowed, "borrowed")] {
        if !limits.is_empty() {
            left.push(format!("share of {} {how}", plain(&limits.join(", "))));
        }
    }
    let left = left.join(", and ");
    match (answer.left, left.is_empty()) {
        (true, true) if answer.base_share > 0.0 => {
            format!(
                "left; no other member is linked to take its share, so {base} of every limit stays its own"
            )
        }
        (true, true) => "left; everything was given back".to_owned(),
        (true, false) => format!(
            "left, but has still {left}; what is lent comes back when the loans end, what is its own when it is started \
             again, or when whoever gave it says `aquifer forget`"
        ),
        (false, true) => "is still leaving".to_owned(),
        (false, false) => format!("is still leaving, and has {left}"),
    }
}

pub async fn reload(client: Client, args: Reload) -> Result<ExitCode, ClientError> {
    let answer = match client.reload().await {
        // It is the file that is wrong, not the command.
        Err(ClientError::Problem(problem, 409)) => return Ok(fail(&problem.detail, BAD_CONFIG)),
        answer => answer?,
    };
    let shown = print(&if args.json { show(&answer) } else { taken_up(&answer) });
    Ok(if answer.needs_restart.is_empty() { shown } else { BAD_CONFIG.into() })
}

fn taken_up(answer: &ReloadAnswer) -> String {
    if answer.needs_restart.is_empty() {
        return "the node runs with the whole configuration\n".to_owned();
    }
    let applied = if answer.applied.is_empty() { "nothing".to_owned() } else { answer.applied.join(", ") };
    let waits = answer.needs_restart.join(", ");
    format!("in force now: {}\nneeds a restart: {}\n", plain(&applied), plain(&waits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said() {
        let answer = |left, base_share, peers_connected, lent: &[&str]| LeaveAnswer {
            version: 1,
            left,
            base_share,
            peers_connected,
            lent: lent.iter().map(|limit| (*limit).to_owned()).collect(),
            borrowed: Vec::new(),
        };
        let cases = [
            (answer(true, 0.0, 1, &[]), true, "everything was given back"),
            (answer(true, 1.0, 0, &[]), true, "100.0 % of every limit stays its own"),
            (answer(true, 0.2, 1, &[]), false, "20.0 % of every limit as its own"),
            (answer(true, 0.2, 0, &["api/rpm"]), false, "share of api/rpm lent out"),
            (answer(false, 0.0, 1, &[]), false, "still leaving"),
        ];
        for (answer, back, words) in cases {
            assert_eq!(is_all_back(&answer), back, "{answer:?}");
            assert!(said(&answer).contains(words), "{answer:?}: {}", said(&answer));
        }
    }
}
