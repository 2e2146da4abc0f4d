//! `aquifer pause` and `aquifer resume`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::output::{json as show, millis, plain, print};
use crate::api::{API_VERSION, PauseRequest, ResumeRequest};
use crate::client::{Client, ClientError};
use crate::daemon::config::parse_duration;

#[derive(Debug, clap::Args)]
#[command(after_help = PAUSE_HELP)]
pub struct Pause {
    /// The pool
    pool: String,
    /// For how long, up to 7 days, such as 20m [default: until it is resumed]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    length: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = RESUME_HELP)]
pub struct Resume {
    /// The pool
    pool: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const PAUSE_HELP: &str = "\
Example:
  aquifer pause api --for 20m
      no node of the swarm admits anything to the pool api for 20 minutes; who asks waits, or is told to come back";

const RESUME_HELP: &str = "\
Example:
  aquifer resume api
      ends every pause of the pool api, also one that is there because the provider throttled a call";

pub async fn pause(client: Client, args: Pause) -> Result<ExitCode, ClientError> {
    let for_ms = args.length.map(|length| length.as_millis() as u64);
    let ask = PauseRequest { pool: args.pool, for_ms };
    client.pause(&ask).await?;
    if args.json {
        return Ok(print(&show(
            &json!({ "version": API_VERSION, "pool": ask.pool, "paused": true, "for_ms": for_ms }),
        )));
    }
    let until =
        for_ms.map_or_else(|| "until it is resumed".to_owned(), |time| format!("for {}", millis(time)));
    Ok(print(&format!("{} is paused on all nodes {until}\n", plain(&ask.pool))))
}

pub async fn resume(client: Client, args: Resume) -> Result<ExitCode, ClientError> {
    let ask = ResumeRequest { pool: args.pool };
    client.resume(&ask).await?;
    if args.json {
        return Ok(print(&show(&json!({ "version": API_VERSION, "pool": ask.pool, "paused": false }))));
    }
    Ok(print(&format!("{} is resumed on all nodes\n", plain(&ask.pool))))
}
