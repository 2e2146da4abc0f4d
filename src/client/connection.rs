//! One connection of the async client, with one request at a time.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::codec::{Answer, Incoming};
use super::error::{ClientError, Failure};

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// Whether nothing was asked on it yet.
    pub is_new: bool,
}

impl Connection {
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).await;
        let stream = stream.map_err(|error| ClientError::connecting(socket, error))?;
        Ok(Self { stream, is_new: true })
    }

    /// Sends a request and reads its answer. If this future is dropped half-way, so must be the connection, whose answer
    /// would otherwise be taken for the next request's.
    pub async fn exchange(&mut self, request: &[u8], patience: Option<Duration>) -> Result<Answer, Failure> {
        self.is_new = false;
        let Some(patience) = patience else { return self.unbounded(request).await };
        let late = |_| Failure::Broken(format!("did not answer within {} s", patience.as_secs_f64()));
        timeout(patience, self.unbounded(request)).await.map_err(late)?
    }

    async fn unbounded(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        self.stream.write_all(request).await.map_err(|error| Failure::sending(&error))?;
        let mut incoming = Incoming::default();
        let mut buffer = [0; 4096];
        loop {
            let read = self.stream.read(&mut buffer).await;
            match read.map_err(|error| Failure::receiving(&error, !incoming.is_empty()))? {
                0 => return Err(Failure::hung_up()),
                read => {
                    if let Some(answer) = incoming.add(&buffer[..read]).map_err(Failure::Broken)? {
                        return Ok(answer);
                    }
                }
            }
        }
    }
}
