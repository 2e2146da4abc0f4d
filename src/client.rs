//! A client of the daemon's Unix socket: the JSON contract of [`api`](crate::daemon::api) over HTTP/1.1.

use std::env;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::daemon::api::{
    AcquireAnswer, AcquireRequest, CommitRequest, Explanation, ForgetRequest, LedgerListing, Limits,
    ObserveRequest, PauseRequest, Peers, Problem, Queues, ResumeRequest, SettleAnswer, Status, TokenAnswer,
    VouchRequest,
};

/// The largest answer that is read: 8 MiB.
pub const ANSWER_MAX: usize = 8 << 20;

/// How long a listing may take. An `acquire` may take as long as the caller waits for.
const LISTING_TIMEOUT: Duration = Duration::from_secs(10);

/// The socket where neither a flag nor the configuration names one: `$AQUIFER_SOCKET`, else
/// `$XDG_RUNTIME_DIR/aquifer/aquifer.sock`, else `/run/aquifer/aquifer.sock`.
pub fn default_socket() -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("AQUIFER_SOCKET").unwrap_or_else(|| {
        variable("XDG_RUNTIME_DIR").unwrap_or_else(|| "/run".into()).join("aquifer/aquifer.sock")
    })
}

/// A connection to a daemon, made when it is first needed and kept for the requests after it.
///
/// One request runs at a time; a second client runs beside it. Dropping the future of a request, or the client,
/// closes the connection, so the daemon stops to wait for a caller that is gone.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    connection: Option<Connection>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
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

impl Client {
    /// A client of the daemon at `socket`. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), connection: None }
    }

    /// Where the daemon is looked for.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for a permit. A refusal is an answer too: see [`AcquireAnswer::allowed`].
    ///
    /// There is no time-out of its own: the daemon answers when the request's wait is over at the latest.
    ///
    /// # Errors
    /// See [`ClientError`]; an unknown pool is a [`ClientError::Problem`] that names the nearest one.
    pub async fn acquire(&mut self, ask: &AcquireRequest) -> Result<AcquireAnswer, ClientError> {
        let body = self.json(ask)?;
        let (status, body) = self.send(Method::POST, "/v1/acquire", body).await?;
        if status == StatusCode::OK.as_u16() || status == StatusCode::TOO_MANY_REQUESTS.as_u16() {
            return self.parse(&body);
        }
        Err(self.problem(status, &body))
    }

    /// Tells what the call of a permit really used: what was reserved beyond it comes back, what was used beyond what was
    /// reserved is owed. Saying it again changes nothing and gives the same answer.
    ///
    /// # Errors
    /// See [`ClientError`]; a permit whose time is over is a [`ClientError::Problem`] with status 410.
    pub async fn commit(&mut self, permit: &str, used: &CommitRequest) -> Result<SettleAnswer, ClientError> {
        let body = self.json(used)?;
        self.command(&format!("/v1/permits/{permit}/commit"), body).await
    }

    /// Tells that the call of a permit used nothing. Saying it again changes nothing and gives the same answer.
    ///
    /// # Errors
    /// See [`ClientError`]; a permit whose time is over is a [`ClientError::Problem`] with status 410.
    pub async fn release(&mut self, permit: &str) -> Result<SettleAnswer, ClientError> {
        self.command(&format!("/v1/permits/{permit}/release"), Bytes::new()).await
    }

    /// The node, its pools and what deserves a look.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        self.listing("/v1/status").await
    }

    /// All members that the node knows of, but itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn peers(&mut self) -> Result<Peers, ClientError> {
        self.listing("/v1/peers").await
    }

    /// Every limit and who holds it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn limits(&mut self) -> Result<Limits, ClientError> {
        self.listing("/v1/limits").await
    }

    /// Who founded, who gave to whom, and who has how much.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ledger(&mut self) -> Result<LedgerListing, ClientError> {
        self.listing("/v1/ledger").await
    }

    /// Vouches for a peer of the node.
    ///
    /// # Errors
    /// See [`ClientError`]; an unknown peer, or one that cannot be vouched for, is a [`ClientError::Problem`].
    pub async fn vouch(&mut self, ask: &VouchRequest) -> Result<(), ClientError> {
        let body = self.json(ask)?;
        self.order("/v1/vouch", body).await
    }

    /// Takes back what the node gave to a member.
    ///
    /// # Errors
    /// See [`ClientError`]; an unknown member, or one that was given nothing, is a [`ClientError::Problem`].
    pub async fn forget(&mut self, ask: &ForgetRequest) -> Result<(), ClientError> {
        let body = self.json(ask)?;
        self.order("/v1/forget", body).await
    }

    /// Who waits on the node, by pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn queue(&mut self) -> Result<Queues, ClientError> {
        self.listing("/v1/queue").await
    }

    /// What would become of a request to this pool now, and why.
    ///
    /// # Errors
    /// See [`ClientError`]; an unknown pool is a [`ClientError::Problem`] that names the nearest one.
    pub async fn explain(&mut self, pool: &str) -> Result<Explanation, ClientError> {
        self.listing(&format!("/v1/explain/{}", encoded(pool))).await
    }

    /// Pauses a pool on all nodes of the swarm.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pause(&mut self, ask: &PauseRequest) -> Result<(), ClientError> {
        let body = self.json(ask)?;
        self.order("/v1/pause", body).await
    }

    /// Ends every pause of a pool on all nodes of the swarm.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resume(&mut self, ask: &ResumeRequest) -> Result<(), ClientError> {
        let body = self.json(ask)?;
        self.order("/v1/resume", body).await
    }

    /// Tells how a call ended, or what the provider says is left.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn observe(&mut self, seen: &ObserveRequest) -> Result<(), ClientError> {
        let body = self.json(seen)?;
        self.order("/v1/observe", body).await
    }

    /// What another machine needs to join the swarm: a secret.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn token(&mut self) -> Result<TokenAnswer, ClientError> {
        self.listing("/v1/token").await
    }

    /// Any path of the socket, as it answers: the HTTP status and the body.
    ///
    /// # Errors
    /// See [`ClientError`]; a status other than 200 is not an error here.
    pub async fn get(&mut self, path: &str) -> Result<(u16, Vec<u8>), ClientError> {
        if let Ok(answer) = timeout(LISTING_TIMEOUT, self.send(Method::GET, path, Bytes::new())).await {
            return answer.map(|(status, body)| (status, body.into()));
        }
        Err(self.broken(format!("was silent for {} s", LISTING_TIMEOUT.as_secs())))
    }

    async fn command<T: DeserializeOwned>(&mut self, path: &str, body: Bytes) -> Result<T, ClientError> {
        match self.post(path, body).await? {
            (200, body) => self.parse(&body),
            (status, body) => Err(self.problem(status, &body)),
        }
    }

    /// A command that has no answer but that it was done.
    async fn order(&mut self, path: &str, body: Bytes) -> Result<(), ClientError> {
        match self.post(path, body).await? {
            (204, _) => Ok(()),
            (status, body) => Err(self.problem(status, &body)),
        }
    }

    async fn post(&mut self, path: &str, body: Bytes) -> Result<(u16, Bytes), ClientError> {
        if let Ok(answer) = timeout(LISTING_TIMEOUT, self.send(Method::POST, path, body)).await {
            return answer;
        }
        Err(self.broken(format!("was silent for {} s", LISTING_TIMEOUT.as_secs())))
    }

    async fn listing<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        match self.get(path).await? {
            (200, body) => self.parse(&body),
            (status, body) => Err(self.problem(status, &body)),
        }
    }

    /// Sends one request and reads the whole answer. The connection is kept only when both went well.
    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<(u16, Bytes), ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "aquifer")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(format!("cannot be asked for {path:?}: {error}")))?;
        // Out of `self` while in use: if this future is dropped half-way, so is the connection, whose answer
        // would otherwise be taken for the next request's.
        if let Some(mut connection) = self.connection.take() {
            // A daemon that was restarted has closed the connection, which shows only now. Asking again is safe:
            // at worst a permit was given that nobody heard of.
            if let Ok(response) = connection.sender.send_request(request.clone()).await {
                return self.finish(connection, response).await;
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.sender.send_request(request).await;
        let response = response.map_err(|error| self.broken(format!("hung up: {error}")))?;
        self.finish(connection, response).await
    }

    async fn finish(
        &mut self,
        connection: Connection,
        response: Response<Incoming>,
    ) -> Result<(u16, Bytes), ClientError> {
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| self.broken(format!("broke off its answer: {error}")))?;
        self.connection = Some(connection);
        Ok((status, body.to_bytes()))
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let socket = self.socket.clone();
            match source.kind() {
                ErrorKind::PermissionDenied => ClientError::NotPermitted { socket, source },
                _ => ClientError::NoDaemon { socket, source },
            }
        })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| self.broken(format!("hung up: {error}")))?;
        // A failure of the driver reaches the request that waits on it.
        let driver = tokio::spawn(async move { driver.await.unwrap_or_default() });
        Ok(Connection { sender, driver })
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(body);
        body.map(Bytes::from).map_err(|error| self.broken(format!("cannot be asked: {error}")))
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.broken(format!("answered something else: {error}")))
    }

    fn problem(&self, status: u16, body: &[u8]) -> ClientError {
        match serde_json::from_slice(body) {
            Ok(problem) => ClientError::Problem(problem, status),
            Err(_) => self.broken(format!("answered with HTTP status {status} and no reason")),
        }
    }

    fn broken(&self, what: String) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), what }
    }
}

/// `text` as a part of a path: all but what never needs it is percent-encoded (RFC 3986, section 2.3), and slashes.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(byte);
    let encode = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    const NO_LIMITS: &str = r#"{"version":1,"limits":[]}"#;

    fn answer(status: &str, body: &str) -> String {
        let mut answer = String::new();
        let _ = write!(answer, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        answer
    }

    fn listen() -> (tempfile::TempDir, UnixListener, Client) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("a.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        (dir, listener, Client::new(socket))
    }

    /// Accepts one connection and answers whatever comes with one of `answers` after the other.
    async fn serve(listener: &UnixListener, answers: &[String]) -> UnixStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in answers {
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        stream
    }

    #[tokio::test]
    async fn one_connection_serves_many_requests() {
        let (_dir, listener, mut client) = listen();
        let answers =
            [answer("200 OK", NO_LIMITS), answer("404 Not Found", "{}"), answer("200 OK", NO_LIMITS)];
        let daemon = serve(&listener, &answers);
        let requests = async {
            client.limits().await.unwrap();
            assert_eq!(client.get("/v2").await.unwrap(), (404, b"{}".to_vec()));
            client.limits().await.unwrap();
        };
        tokio::join!(daemon, requests);
    }

    #[tokio::test]
    async fn a_daemon_that_was_restarted_is_connected_anew() {
        let (_dir, listener, mut client) = listen();
        let answers = [answer("200 OK", NO_LIMITS)];
        for _ in 0..2 {
            let (stream, limits) = tokio::join!(serve(&listener, &answers), client.limits());
            limits.unwrap();
            drop(stream);
        }
    }

    #[tokio::test]
    async fn giving_up_closes_the_connection() {
        let (_dir, listener, mut client) = listen();
        let ask = AcquireRequest { pool: "p".into(), ..AcquireRequest::default() };
        let patience = Duration::from_millis(50);
        let (mut stream, gave_up) =
            tokio::join!(serve(&listener, &[]), timeout(patience, client.acquire(&ask)));
        assert!(gave_up.is_err());
        let mut asked = Vec::new();
        let read = stream.read_to_end(&mut asked).await;
        assert!(read.is_ok() && asked.starts_with(b"POST /v1/acquire"));
    }

    #[tokio::test]
    async fn what_no_daemon_answers_is_broken() {
        let long = " ".repeat(ANSWER_MAX + 1);
        for bad in [
            "hello\r\n\r\n".to_owned(),
            answer("200 OK", "{}"),
            answer("500 Bad", "?"),
            answer("200 OK", &long),
        ] {
            let (_dir, listener, mut client) = listen();
            // The client does not read all of a long answer.
            let daemon = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                let _ = stream.write_all(bad.as_bytes()).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                limits = client.limits() => assert!(matches!(limits, Err(ClientError::Broken { .. })), "{limits:?}"),
                () = daemon => {}
            }
        }
    }

    #[test]
    fn requests_can_move_between_threads() {
        fn movable(_: impl Send) {}
        let mut client = Client::new("/nowhere");
        movable(client.status());
        movable(client.acquire(&AcquireRequest::default()));
    }
}
