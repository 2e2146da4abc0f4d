//! How commands end: a status for scripts and a line for people.

use std::io::{self, Write};
use std::process::ExitCode;

use tokio::runtime::Builder;

use super::output::plain;
use crate::client::ClientError;

/// The command line is wrong.
pub const USAGE: u8 = 64;
/// No daemon answers.
pub const NO_DAEMON: u8 = 69;
/// A bug, of this program or of the system.
pub const BUG: u8 = 70;
/// The limit said no.
pub const LIMITED: u8 = 75;
/// This user may not.
pub const NOT_PERMITTED: u8 = 77;
/// The configuration is wrong.
pub const BAD_CONFIG: u8 = 78;

/// Says `message` and ends with `status`.
pub fn fail(message: &str, status: u8) -> ExitCode {
    for line in message.lines() {
        let _ = writeln!(io::stderr(), "aquifer: {}", plain(line));
    }
    status.into()
}

/// Runs a command that talks to the daemon.
pub fn block_on(command: impl Future<Output = Result<ExitCode, ClientError>>) -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("there is no runtime: {error}"), BUG),
    };
    runtime.block_on(command).unwrap_or_else(|error| fail(&words(&error), status(&error)))
}

fn status(error: &ClientError) -> u8 {
    match error {
        ClientError::NotPermitted { .. } | ClientError::Problem(_, 401 | 403) => NOT_PERMITTED,
        ClientError::Problem(_, 400..=499) => USAGE,
        ClientError::NoDaemon { .. } | ClientError::Broken { .. } | ClientError::Problem(_, 503) => NO_DAEMON,
        ClientError::Limited(_) => LIMITED,
        ClientError::Problem(..) => BUG,
    }
}

fn words(error: &ClientError) -> String {
    match error {
        ClientError::Problem(problem, _) => match &problem.field {
            Some(field) if !problem.detail.contains(field.as_str()) => format!("{field}: {}", problem.detail),
            _ => problem.detail.clone(),
        },
        other => other.to_string(),
    }
}
