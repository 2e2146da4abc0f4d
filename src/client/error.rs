//! Why there is no permit, or no answer.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::api::{AcquireAnswer, Problem};

/// Why there is no permit, or no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The daemon refused: the call must not be made now. [`AcquireAnswer::reason`] says why, and
    /// [`AcquireAnswer::retry_after_ms`] when to ask again. Only where a permit is asked for, not by
    /// [`Client::acquire`](super::Client::acquire).
    #[error("{}: {}", .0.pool, .0.detail.as_deref().unwrap_or("refused"))]
    Limited(Box<AcquireAnswer>),
    /// Nobody listens at the socket.
    #[error("no daemon answers at {}; start one with `aquifer up` ({source})", socket.display())]
    NoDaemon {
        /// Where it was looked for.
        socket: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// The socket's permissions keep this user out.
    #[error(
        "this user may not use {}; ask the daemon's owner, or name another socket with --socket",
        socket.display()
    )]
    NotPermitted {
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// The daemon understood and said no; with the HTTP status.
    #[error("{}", .0.detail)]
    Problem(Problem, u16),
    /// The daemon hung up, was silent for too long, or answered what no daemon answers.
    #[error("the daemon at {} {what}", socket.display())]
    Broken {
        /// Who was asked.
        socket: PathBuf,
        /// What was wrong, as the end of a sentence.
        what: String,
    },
}

/// Why an exchange on one connection failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection ended first. If `unread`, the daemon certainly did not read all of the request, and did nothing.
    Lost { what: String, unread: bool },
    /// It answered what no daemon answers, or not in time.
    Broken(String),
}

impl ClientError {
    pub(super) fn connecting(socket: &Path, source: io::Error) -> Self {
        let socket = socket.to_owned();
        match source.kind() {
            ErrorKind::PermissionDenied => Self::NotPermitted { socket, source },
            _ => Self::NoDaemon { socket, source },
        }
    }

    pub(super) fn broken(socket: &Path, what: String) -> Self {
        Self::Broken { socket: socket.to_owned(), what }
    }
}

impl Failure {
    /// A part of a request is none: the daemon did nothing.
    pub fn sending(error: &io::Error) -> Self {
        Self::Lost { what: format!("hung up: {error}"), unread: true }
    }

    /// A Unix socket is reset when it is closed with something in it that was not read.
    pub fn receiving(error: &io::Error, began: bool) -> Self {
        let unread = error.kind() == ErrorKind::ConnectionReset && !began;
        Self::Lost { what: format!("hung up: {error}"), unread }
    }

    /// The daemon closed the connection.
    pub fn hung_up() -> Self {
        Self::Lost { what: "hung up before it had answered".to_owned(), unread: false }
    }
}
