//! The client for threads: the same without a runtime.
//!
//! ```no_run
//! use aquifer::api::{AcquireRequest, CommitRequest};
//! use aquifer::client::{blocking::Client, default_socket};
//!
//! let client = Client::new(default_socket());
//! let permit = client.permit(&AcquireRequest::new("anthropic/sonnet").tokens(1_200))?;
//! // … the call …
//! permit.commit(&CommitRequest::default().tokens(812))?;
//! # Ok::<(), aquifer::client::ClientError>(())
//! ```

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::calls::{self, Call};
use super::codec::{Answer, Incoming};
use super::error::{ClientError, Failure};
use super::idle::Idle;
use super::{bound, finished, given_up};
use crate::api::{
    AcquireAnswer, AcquireRequest, CommitRequest, Explanation, Limits, ObserveRequest, Peers, SettleAnswer,
    Status,
};

/// Asks the daemon at a Unix socket, from any number of threads; clones share their connections.
///
/// Each request has a connection to itself, which is kept for those after it. See [`super::Client`] for what is asked
/// again and what is not.
#[derive(Clone, Debug)]
pub struct Client {
    socket: Arc<Path>,
    idle: Arc<Idle<Connection>>,
}

/// An admitted call: see [`super::Permit`].
#[derive(Debug)]
#[must_use = "dropping a permit counts as having used what was reserved"]
pub struct Permit {
    client: Client,
    connection: Connection,
    answer: AcquireAnswer,
}

impl Client {
    /// A client of the daemon at `socket`. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into().into(), idle: Arc::default() }
    }

    /// Where the daemon is looked for.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// As [`super::Client::permit`].
    ///
    /// # Errors
    /// [`ClientError::Limited`] if it is refused; see [`ClientError`] for the others.
    pub fn permit(&self, ask: &AcquireRequest) -> Result<Permit, ClientError> {
        let call = calls::acquire(&bound(ask));
        let (answer, connection) = self.exchange(&call, None)?;
        let answer = finished(&self.socket, &call, &answer)?;
        if !answer.allowed {
            self.idle.put(connection);
            return Err(ClientError::Limited(Box::new(answer)));
        }
        Ok(Permit { client: self.clone(), connection, answer })
    }

    /// As [`super::Client::acquire`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn acquire(&self, ask: &AcquireRequest) -> Result<AcquireAnswer, ClientError> {
        self.run(&calls::acquire(ask))
    }

    /// As [`super::Client::commit`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn commit(&self, permit: &str, used: &CommitRequest) -> Result<SettleAnswer, ClientError> {
        self.run(&calls::commit(permit, used))
    }

    /// As [`super::Client::release`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn release(&self, permit: &str) -> Result<SettleAnswer, ClientError> {
        self.run(&calls::release(permit))
    }

    /// As [`super::Client::observe`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn observe(&self, seen: &ObserveRequest) -> Result<(), ClientError> {
        self.run(&calls::observe(seen))
    }

    /// As [`super::Client::status`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&self) -> Result<Status, ClientError> {
        self.run(&calls::get("/v1/status"))
    }

    /// As [`super::Client::limits`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn limits(&self) -> Result<Limits, ClientError> {
        self.run(&calls::get("/v1/limits"))
    }

    /// As [`super::Client::peers`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn peers(&self) -> Result<Peers, ClientError> {
        self.run(&calls::get("/v1/peers"))
    }

    /// As [`super::Client::explain`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn explain(&self, pool: &str) -> Result<Explanation, ClientError> {
        self.run(&calls::explain(pool))
    }

    fn run<T>(&self, call: &Call<T>) -> Result<T, ClientError> {
        let (answer, connection) = self.exchange(call, None)?;
        if answer.reusable {
            self.idle.put(connection);
        }
        finished(&self.socket, call, &answer)
    }

    fn exchange<T>(
        &self,
        call: &Call<T>,
        on: Option<Connection>,
    ) -> Result<(Answer, Connection), ClientError> {
        let mut connection = on.or_else(|| self.idle.take());
        loop {
            let mut one = match connection {
                Some(connection) => connection,
                None => Connection::connect(&self.socket)?,
            };
            let is_new = one.is_new;
            match one.exchange(&call.bytes, call.patience) {
                Ok(answer) => return Ok((answer, one)),
                Err(failure) => given_up(&self.socket, call, failure, is_new)?,
            }
            connection = self.idle.take();
        }
    }
}

impl Permit {
    /// What the daemon answered.
    pub fn answer(&self) -> &AcquireAnswer {
        &self.answer
    }

    /// As [`super::Permit::commit`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn commit(self, used: &CommitRequest) -> Result<SettleAnswer, ClientError> {
        let call = calls::commit(self.id(), used);
        self.settle(&call)
    }

    /// As [`super::Permit::release`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn release(self) -> Result<SettleAnswer, ClientError> {
        let call = calls::release(self.id());
        self.settle(&call)
    }

    fn id(&self) -> &str {
        self.answer.permit.as_deref().unwrap_or_default()
    }

    fn settle(self, call: &Call<SettleAnswer>) -> Result<SettleAnswer, ClientError> {
        let (answer, connection) = self.client.exchange(call, Some(self.connection))?;
        if answer.reusable {
            self.client.idle.put(connection);
        }
        finished(&self.client.socket, call, &answer)
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    is_new: bool,
}

impl Connection {
    fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).map_err(|error| ClientError::connecting(socket, error))?;
        Ok(Self { stream, is_new: true })
    }

    fn exchange(&mut self, request: &[u8], patience: Option<Duration>) -> Result<Answer, Failure> {
        self.is_new = false;
        let deadline = patience.map(|patience| Instant::now() + patience);
        let late = || {
            Failure::Broken(format!("did not answer within {} s", patience.unwrap_or_default().as_secs_f64()))
        };
        self.stream.set_write_timeout(patience).map_err(|error| Failure::sending(&error))?;
        self.stream.write_all(request).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => late(),
            _ => Failure::sending(&error),
        })?;
        let mut incoming = Incoming::default();
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(late());
            }
            let read = self.stream.set_read_timeout(left).and_then(|()| self.stream.read(&mut buffer));
            match read {
                Ok(0) => return Err(Failure::hung_up()),
                Ok(read) => {
                    if let Some(answer) = incoming.add(&buffer[..read]).map_err(Failure::Broken)? {
                        return Ok(answer);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(Failure::receiving(&error, !incoming.is_empty())),
            }
        }
    }
}
