//! `aquifer queue` and `aquifer explain`: who waits, and why.

use std::process::ExitCode;

use super::Listing;
use super::output::{
    Column::{Number, Text},
    Style, Table, json, millis, plain, print,
};
use crate::api::Queues;
use crate::client::{Client, ClientError};

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Explain {
    /// The pool
    pool: String,
    #[command(flatten)]
    listing: Listing,
}

const HELP: &str = "\
Example:
  aquifer explain api
      says whether a request to the pool api would be admitted now, which limit stands in the way and for how long,
      who waits before it, and what share of each limit this node holds";

pub async fn queue(client: Client, args: &Listing) -> Result<ExitCode, ClientError> {
    let queues = client.queue().await?;
    if args.json {
        return Ok(print(&json(&queues)));
    }
    if queues.pools.is_empty() {
        return Ok(print("Nobody waits on this node.\n"));
    }
    Ok(print(&page(&queues, Style::of_stdout())))
}

pub async fn explain(client: Client, args: &Explain) -> Result<ExitCode, ClientError> {
    let explanation = client.explain(&args.pool).await?;
    if args.listing.json {
        return Ok(print(&json(&explanation)));
    }
    let lines = explanation.words.iter().map(|line| plain(line) + "\n");
    Ok(print(&lines.collect::<String>()))
}

fn page(queues: &Queues, style: Style) -> String {
    let mut table = Table::new(&[
        Text("POOL"),
        Number("PLACE"),
        Text("CLASS"),
        Text("AGENT"),
        Number("WAITED"),
        Number("GIVES UP IN"),
        Text("TAKES"),
    ]);
    let mut hidden = 0;
    for pool in &queues.pools {
        hidden += pool.waiting - pool.requests.len().min(pool.waiting);
        for waiter in &pool.requests {
            let units = waiter.units.iter().map(|(limit, units)| format!("{units} {limit}"));
            table.row(&[
                pool.pool.clone(),
                waiter.position.to_string(),
                waiter.class.to_string(),
                if waiter.agent.is_empty() { "-".to_owned() } else { waiter.agent.clone() },
                millis(waiter.waited_ms),
                millis(waiter.deadline_in_ms),
                units.collect::<Vec<_>>().join(", "),
            ]);
        }
    }
    let more = if hidden == 0 { String::new() } else { format!("and {hidden} more\n") };
    table.show(style) + &more
}
