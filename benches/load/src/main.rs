//! Puts load on servers that decide, and compares them: `scripts/bench.sh` is what runs it.
//!
//! ```text
//! aquifer-load echo SOCKET                 a bare server that sends back what it gets: the floor
//! aquifer-load background PLAN             the plan's background load, until killed
//! aquifer-load compare PLAN ROUNDS [TEXT]  every measurement (with TEXT in its title), as tables in Markdown
//! ```
//!
//! `plan` says what a plan is. `sockets` sends and receives what a `codec` spells, `grpc` does the same for gRPC; `tally`
//! counts, `process` looks at the servers, `compare` runs the rounds and prints.

mod codec;
mod compare;
mod echo;
mod grpc;
mod plan;
mod process;
mod run;
mod sockets;
mod tally;

use std::path::Path;

use anyhow::{Context, Result, bail};
use plan::Plan;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["echo", socket] => echo::serve(Path::new(socket)),
        ["background", plan] => run::background(&Plan::read(Path::new(plan))?),
        ["compare", plan, rounds] => compare::compare(&Plan::read(Path::new(plan))?, number(rounds)?, ""),
        ["compare", plan, rounds, only] => {
            compare::compare(&Plan::read(Path::new(plan))?, number(rounds)?, only)
        }
        _ => bail!("say `echo SOCKET`, `background PLAN` or `compare PLAN ROUNDS [TEXT]`"),
    }
}

fn number(rounds: &str) -> Result<usize> {
    match rounds.parse().with_context(|| format!("{rounds:?} is no number of rounds"))? {
        0 => bail!("there must be a round"),
        rounds => Ok(rounds),
    }
}
