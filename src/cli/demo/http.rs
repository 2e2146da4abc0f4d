//! As much of HTTP as a provider and its callers need.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet, spawn_local};

/// An answer: it has no body.
pub type Answer = Response<Empty<Bytes>>;

/// A running server. It ends with the value, and so do its connections.
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on a free port of this machine. Must run inside a [`tokio::task::LocalSet`]. The future of an answer is
    /// dropped when its caller hangs up.
    ///
    /// # Errors
    /// There is no port to be had.
    pub async fn start<F>(answer: impl Fn(HeaderMap) -> F + Clone + 'static) -> io::Result<Self>
    where
        F: Future<Output = Answer> + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { address, task: spawn_local(serve(listener, answer)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<F>(listener: TcpListener, answer: impl Fn(HeaderMap) -> F + Clone + 'static)
where
    F: Future<Output = Answer> + 'static,
{
    // Ends its connections when it is dropped itself.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        connections.spawn_local(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.into_parts().0.headers);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An answer that is only a status.
pub fn answer(status: StatusCode) -> Answer {
    let mut answer = Response::new(Empty::new());
    *answer.status_mut() = status;
    answer
}

/// The number in a header.
pub fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// One connection to a server, kept between calls. Dropping it hangs up.
pub struct Caller {
    sender: client::SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Caller {
    /// Connects.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let handshake = client::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| error.to_string())?;
        let driver = spawn_local(async move { connection.await.unwrap_or_default() });
        Ok(Self { sender, driver })
    }

    /// Makes one call with these numbers as headers.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn call(&mut self, headers: &[(HeaderName, u64)]) -> Result<(StatusCode, HeaderMap), String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri("/call")
            .header(HOST, HeaderValue::from_static("provider"))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        for (name, number) in headers {
            request.headers_mut().insert(name, HeaderValue::from(*number));
        }
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let answer = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        // Without reading the body to its end the connection could not be used again.
        body.collect().await.map_err(|error| error.to_string())?;
        Ok((head.status, head.headers))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
