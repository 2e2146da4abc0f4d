//! A client of the daemon's Unix socket, for programs that ask before they spend.
//!
//! [`Client`] is async, on Tokio; [`blocking::Client`] needs no runtime. With the feature `tower`, `PermitLayer` asks
//! before each call of a service.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), aquifer::client::ClientError> {
//! use std::time::Duration;
//!
//! use aquifer::api::{AcquireRequest, CommitRequest};
//! use aquifer::client::{Client, ClientError, default_socket};
//!
//! let client = Client::new(default_socket());
//! let ask = AcquireRequest::new("anthropic/sonnet").tokens(1_200).agent("researcher-7");
//! match client.permit(&ask.wait(Duration::from_secs(30))).await {
//!     Ok(permit) => {
//!         // … the call …
//!         permit.commit(&CommitRequest::default().tokens(812)).await?;
//!     }
//!     Err(ClientError::Limited(refusal)) => println!("not now: {:?}", refusal.retry_after_ms),
//!     Err(error) => return Err(error),
//! }
//! # Ok(()) }
//! ```

pub mod blocking;
mod calls;
mod codec;
mod connection;
mod error;
mod idle;
#[cfg(feature = "tower")]
mod layer;
mod permit;

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::calls::{Call, NoAnswer};
pub use self::codec::ANSWER_MAX;
use self::codec::Answer;
use self::connection::Connection;
pub use self::error::ClientError;
use self::error::Failure;
use self::idle::Idle;
#[cfg(feature = "tower")]
pub use self::layer::{PermitError, PermitLayer, Permitted};
pub use self::permit::Permit;
use crate::api::{
    AcquireAnswer, AcquireRequest, Bind, CommitRequest, Explanation, ForgetRequest, LeaveAnswer,
    LeaveRequest, LedgerListing, Limits, ObserveRequest, PauseRequest, Peers, Queues, ReloadAnswer,
    ResumeRequest, SettleAnswer, Status, TokenAnswer, VouchRequest,
};

/// The socket where neither a flag nor the configuration names one: `$AQUIFER_SOCKET`, else
/// `$XDG_RUNTIME_DIR/aquifer/aquifer.sock`, else `/run/aquifer/aquifer.sock`.
pub fn default_socket() -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("AQUIFER_SOCKET").unwrap_or_else(|| {
        variable("XDG_RUNTIME_DIR").unwrap_or_else(|| "/run".into()).join("aquifer/aquifer.sock")
    })
}

/// Asks the daemon at a Unix socket, from any number of tasks; clones share their connections.
///
/// Each request has a connection to itself, which is made when it is needed and kept for those after it. A kept
/// connection may turn out to be closed, by a daemon that was restarted say: then the request is made again on another one,
/// unless the daemon may have read it and doing it twice would matter. So no request for a permit is made twice.
///
/// Dropping the future of a request closes its connection, so that the daemon stops to wait for a caller that is gone.
#[derive(Clone, Debug)]
pub struct Client {
    socket: Arc<Path>,
    idle: Arc<Idle<Connection>>,
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

    /// Asks for a permit, and waits for it as `ask` says. It is bound to a connection of its own, whatever
    /// [`bind`](AcquireRequest::bind) says.
    ///
    /// # Errors
    /// [`ClientError::Limited`] if it is refused; an unknown pool is a [`ClientError::Problem`] that names the nearest one.
    /// See [`ClientError`] for the others.
    pub async fn permit(&self, ask: &AcquireRequest) -> Result<Permit, ClientError> {
        let call = calls::acquire(&bound(ask));
        let (answer, connection) = self.exchange(&call, None).await?;
        let answer = finished(&self.socket, &call, &answer)?;
        if !answer.allowed {
            self.idle.put(connection);
            return Err(ClientError::Limited(Box::new(answer)));
        }
        Ok(Permit { client: self.clone(), connection, answer })
    }

    /// Asks for a permit that the caller settles by its name. A refusal is an answer too: see [`AcquireAnswer::allowed`].
    ///
    /// The answer may take as long as the request says that it waits, and 10 s more; if it does not say, as long as the daemon
    /// takes.
    ///
    /// # Errors
    /// See [`ClientError`]; an unknown pool is a [`ClientError::Problem`] that names the nearest one.
    pub async fn acquire(&self, ask: &AcquireRequest) -> Result<AcquireAnswer, ClientError> {
        self.run(&calls::acquire(ask)).await
    }

    /// Tells what the call of a permit really used: what was reserved beyond it comes back, what was used beyond what was
    /// reserved is owed. Saying it again changes nothing and gives the same answer.
    ///
    /// # Errors
    /// See [`ClientError`]; a permit whose time is over is a [`ClientError::Problem`] with status 410.
    pub async fn commit(&self, permit: &str, used: &CommitRequest) -> Result<SettleAnswer, ClientError> {
        self.run(&calls::commit(permit, used)).await
    }

    /// Tells that the call of a permit used nothing. Saying it again changes nothing and gives the same answer.
    ///
    /// # Errors
    /// See [`ClientError`]; a permit whose time is over is a [`ClientError::Problem`] with status 410.
    pub async fn release(&self, permit: &str) -> Result<SettleAnswer, ClientError> {
        self.run(&calls::release(permit)).await
    }

    /// The node, its pools and what deserves a look.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.run(&calls::get("/v1/status")).await
    }

    /// All members that the node knows of, but itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn peers(&self) -> Result<Peers, ClientError> {
        self.run(&calls::get("/v1/peers")).await
    }

    /// Every limit and who holds it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn limits(&self) -> Result<Limits, ClientError> {
        self.run(&calls::get("/v1/limits")).await
    }

    /// Who founded, who gave to whom, and who has how much.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ledger(&self) -> Result<LedgerListing, ClientError> {
        self.run(&calls::get("/v1/ledger")).await
    }

    /// Vouches for a peer of the node.
    ///
    /// # Errors
    /// See [`ClientError`]; an unknown peer, or one that cannot be vouched for, is a [`ClientError::Problem`].
    pub async fn vouch(&self, ask: &VouchRequest) -> Result<(), ClientError> {
        self.run(&calls::order("/v1/vouch", ask)).await
    }

    /// Takes back what the node gave to a member.
    ///
    /// # Errors
    /// See [`ClientError`]; an unknown member, or one that was given nothing, is a [`ClientError::Problem`].
    pub async fn forget(&self, ask: &ForgetRequest) -> Result<(), ClientError> {
        self.run(&calls::order("/v1/forget", ask)).await
    }

    /// Who waits on the node, by pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn queue(&self) -> Result<Queues, ClientError> {
        self.run(&calls::get("/v1/queue")).await
    }

    /// What would become of a request to this pool now, and why.
    ///
    /// # Errors
    /// See [`ClientError`]; an unknown pool is a [`ClientError::Problem`] that names the nearest one.
    pub async fn explain(&self, pool: &str) -> Result<Explanation, ClientError> {
        self.run(&calls::explain(pool)).await
    }

    /// Pauses a pool on all nodes of the swarm.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pause(&self, ask: &PauseRequest) -> Result<(), ClientError> {
        self.run(&calls::order("/v1/pause", ask)).await
    }

    /// Ends every pause of a pool on all nodes of the swarm.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resume(&self, ask: &ResumeRequest) -> Result<(), ClientError> {
        self.run(&calls::order("/v1/resume", ask)).await
    }

    /// Tells how a call ended, or what the provider says is left.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn observe(&self, seen: &ObserveRequest) -> Result<(), ClientError> {
        self.run(&calls::observe(seen)).await
    }

    /// What another machine needs to join the swarm: a secret.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn token(&self) -> Result<TokenAnswer, ClientError> {
        self.run(&calls::get("/v1/token")).await
    }

    /// Any path of the socket, as it answers: the HTTP status and the body.
    ///
    /// # Errors
    /// See [`ClientError`]; a status other than 200 is not an error here.
    pub async fn get(&self, path: &str) -> Result<(u16, Vec<u8>), ClientError> {
        self.run(&calls::anything(path)).await
    }

    /// Tells the node to give everything back and to end.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn leave(&self) -> Result<(), ClientError> {
        self.run(&calls::order("/v1/leave", &LeaveRequest::default())).await
    }

    /// Tells the node to give everything back and to end, and waits until it has left or for `wait`, up to a minute. Says
    /// what is left.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn leave_within(&self, wait: Duration) -> Result<LeaveAnswer, ClientError> {
        self.run(&calls::leave(wait)).await
    }

    /// Has the node read its configuration again and take up what it can. Says what needs a restart; where nothing does, not
    /// what was taken up.
    ///
    /// # Errors
    /// See [`ClientError`]; a configuration that is wrong is a [`ClientError::Problem`] with status 409.
    pub async fn reload(&self) -> Result<ReloadAnswer, ClientError> {
        self.run(&calls::reload()).await
    }

    async fn run<T>(&self, call: &Call<T>) -> Result<T, ClientError> {
        self.run_on(call, None).await
    }

    /// Makes a request on this connection if there is one.
    async fn run_on<T>(&self, call: &Call<T>, on: Option<Connection>) -> Result<T, ClientError> {
        let (answer, connection) = self.exchange(call, on).await?;
        if answer.reusable {
            self.idle.put(connection);
        }
        finished(&self.socket, call, &answer)
    }

    async fn exchange<T>(
        &self,
        call: &Call<T>,
        on: Option<Connection>,
    ) -> Result<(Answer, Connection), ClientError> {
        let mut connection = on.or_else(|| self.idle.take());
        loop {
            let mut one = match connection {
                Some(connection) => connection,
                None => Connection::connect(&self.socket).await?,
            };
            let is_new = one.is_new;
            match one.exchange(&call.bytes, call.patience).await {
                Ok(answer) => return Ok((answer, one)),
                Err(failure) => given_up(&self.socket, call, failure, is_new)?,
            }
            connection = self.idle.take();
        }
    }
}

/// The same, bound to its connection.
fn bound(ask: &AcquireRequest) -> AcquireRequest {
    AcquireRequest { bind: Some(Bind::Connection), ..ask.clone() }
}

/// What an answer means.
fn finished<T>(socket: &Path, call: &Call<T>, answer: &Answer) -> Result<T, ClientError> {
    (call.read)(answer.status, &answer.body).map_err(|error| match error {
        NoAnswer::Problem(problem, status) => ClientError::Problem(problem, status),
        NoAnswer::Broken(what) => ClientError::broken(socket, what),
    })
}

/// Whether a request may be made again after this failure. It ends, because each round uses up a kept connection.
fn given_up<T>(socket: &Path, call: &Call<T>, failure: Failure, is_new: bool) -> Result<(), ClientError> {
    match failure {
        Failure::Lost { unread, .. } if !is_new && (unread || call.repeatable) => Ok(()),
        Failure::Lost { what, .. } | Failure::Broken(what) => Err(ClientError::broken(socket, what)),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::time::timeout;

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
        let (_dir, listener, client) = listen();
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
        let (_dir, listener, client) = listen();
        let answers = [answer("200 OK", NO_LIMITS)];
        for _ in 0..2 {
            let (stream, limits) = tokio::join!(serve(&listener, &answers), client.limits());
            limits.unwrap();
            drop(stream);
        }
    }

    #[tokio::test]
    async fn a_permit_is_not_asked_for_twice() {
        let (_dir, listener, client) = listen();
        let answers = [answer("200 OK", NO_LIMITS)];
        let (mut stream, limits) = tokio::join!(serve(&listener, &answers), client.limits());
        limits.unwrap();
        let swallow = async {
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            drop(stream);
        };
        let ask = AcquireRequest::new("p");
        let ((), asked) = tokio::join!(swallow, client.acquire(&ask));
        assert!(matches!(asked, Err(ClientError::Broken { .. })), "{asked:?}");

        // What was not read was not done. Whoever closes a connection with something in it says so.
        let (stream, limits) = tokio::join!(serve(&listener, &answers), client.limits());
        limits.unwrap();
        let ignore = async {
            stream.readable().await.unwrap();
            drop(stream);
            serve(&listener, &[answer("404 Not Found", "{}")]).await
        };
        let (_stream, asked) = tokio::join!(ignore, client.acquire(&ask));
        assert!(matches!(asked, Err(ClientError::Broken { what, .. }) if what.contains("404")));
    }

    #[tokio::test]
    async fn giving_up_closes_the_connection() {
        let (_dir, listener, client) = listen();
        let ask = AcquireRequest::new("p");
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
            let (_dir, listener, client) = listen();
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
        let client = Client::new("/nowhere");
        movable(client.status());
        movable(client.acquire(&AcquireRequest::default()));
    }
}
