//! `aquifer token`.

use std::process::ExitCode;

use super::Listing;
use super::output::{json, plain, print};
use crate::client::{Client, ClientError};

pub async fn run(client: Client, args: &Listing) -> Result<ExitCode, ClientError> {
    let answer = client.token().await?;
    Ok(print(&if args.json { json(&answer) } else { plain(&answer.command) + "\n" }))
}
