//! The command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

mod acquire;
mod ask;
mod check;
mod demo;
mod exec;
mod exit;
mod ledger;
mod operate;
mod output;
mod pause;
mod peers;
mod queue;
mod status;
mod token;
mod up;

use crate::client::{Client, default_socket};

/// Shares one rate limit between machines, with no server in the middle.
#[derive(Debug, Parser)]
#[command(name = "aquifer", version, arg_required_else_help = true, max_term_width = 110, after_help = HELP)]
struct Cli {
    #[arg(
        long, global = true, help = SOCKET, value_name = "PATH", env = "AQUIFER_SOCKET", hide_env_values = true,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

const SOCKET: &str = "The daemon's Unix socket [default: \
                      $XDG_RUNTIME_DIR/aquifer/aquifer.sock, else /run/aquifer/aquifer.sock]";

const HELP: &str = "\
To begin, on the first machine:
  aquifer up --pool api:rpm=500        runs a node and prints a line for other machines to join with
  aquifer acquire api                  waits until one request may be made
  aquifer exec api -- CMD…             runs CMD when it may be made

Exit status: 0 admitted or fine; 64 usage; 69 no daemon; 75 limited; 77 not permitted; 78 bad configuration; 70 a bug.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node in the foreground
    Up(up::Args),
    /// Print the command that lets another machine join
    Token(Listing),
    /// Ask for a permit, and wait for it
    Acquire(acquire::Args),
    /// Run a command under a permit
    Exec(exec::Args),
    /// Show this node, its pools and the guarantee in force
    Status(status::Args),
    /// List the other members of the swarm
    Peers(peers::Args),
    /// List every limit and who holds it
    Limits(Listing),
    /// List who waits on this node
    Queue(Listing),
    /// Say what would become of a request now, and why
    Explain(queue::Explain),
    /// Show who founded, who vouched for whom, and who has how much
    Ledger(Listing),
    /// Give a peer base share of this node, with a weight
    Vouch(ledger::Vouch),
    /// Take back what this node gave to a member
    Forget(ledger::Forget),
    /// Stop admitting requests to a pool, on all nodes
    Pause(pause::Pause),
    /// Admit requests to a paused pool again, on all nodes
    Resume(pause::Resume),
    /// Give everything back to the other members, and end the daemon
    Leave(operate::Leave),
    /// Read the configuration again, and take up what can be
    Reload(operate::Reload),
    /// Check a configuration file
    Check(check::Args),
    /// Watch several real nodes on this machine share one limit
    Demo(demo::Args),
    /// Print a completion script
    Completion {
        /// The shell to complete for
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// Options of commands that only show something.
#[derive(Clone, Debug, clap::Args)]
struct Listing {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads to its end is no failure.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    // As elsewhere, an empty variable is as good as none.
    let named = cli.socket.filter(|socket| !socket.as_os_str().is_empty());
    let client = || Client::new(named.clone().unwrap_or_else(default_socket));
    match cli.command {
        Command::Up(args) => up::run(args, named),
        Command::Token(args) => exit::block_on(token::run(client(), &args)),
        Command::Acquire(args) => exit::block_on(acquire::run(client(), args)),
        Command::Exec(args) => exit::block_on(exec::run(client(), args)),
        Command::Status(args) => exit::block_on(status::run(client(), &args)),
        Command::Peers(args) => exit::block_on(peers::peers(client(), &args)),
        Command::Limits(args) => exit::block_on(peers::limits(client(), &args)),
        Command::Queue(args) => exit::block_on(queue::queue(client(), &args)),
        Command::Explain(args) => exit::block_on(queue::explain(client(), &args)),
        Command::Ledger(args) => exit::block_on(ledger::ledger(client(), &args)),
        Command::Vouch(args) => exit::block_on(ledger::vouch(client(), args)),
        Command::Forget(args) => exit::block_on(ledger::forget(client(), args)),
        Command::Pause(args) => exit::block_on(pause::pause(client(), args)),
        Command::Resume(args) => exit::block_on(pause::resume(client(), args)),
        Command::Leave(args) => exit::block_on(operate::leave(client(), args)),
        Command::Reload(args) => exit::block_on(operate::reload(client(), args)),
        Command::Check(args) => check::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Completion { shell } => completion(shell),
        Command::Version => output::print(&format!("aquifer {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

fn completion(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "aquifer", &mut script);
    // Whoever closes the pipe has had enough of it.
    let _ = io::stdout().write_all(&script);
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }
}
