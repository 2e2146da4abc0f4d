//! The `aquifer` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    aquifer::cli::run()
}
