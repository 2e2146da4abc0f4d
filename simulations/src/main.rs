//! `aquifer-simulations`: see the [library](aquifer_simulations).

use std::process::ExitCode;

fn main() -> ExitCode {
    aquifer_simulations::cli::main()
}
