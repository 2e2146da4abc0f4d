//! The strict provider: a small HTTP server with one central bucket. Beyond the limit it answers 429.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::{HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet, spawn_local};

use crate::protocol::limit::Rate;

/// Says to the provider which node a call comes from.
const NODE_HEADER: HeaderName = HeaderName::from_static("x-node");

/// One central leaky bucket in whole numbers: the level is counted in units × `per` nanoseconds, so that what
/// leaks in a nanosecond is exactly `amount`.
pub struct Bucket {
    leak: u128,
    unit: u128,
    depth: u128,
    level: u128,
    last: Duration,
}

impl Bucket {
    /// An empty bucket: the whole burst is free.
    pub fn new(rate: &Rate) -> Self {
        let unit = rate.per().as_nanos();
        Self {
            leak: u128::from(rate.amount()),
            unit,
            depth: unit * u128::from(rate.burst()),
            level: 0,
            last: Duration::ZERO,
        }
    }

    /// Takes one unit at `now` (since any fixed moment) if there is room. A time before the last one counts as
    /// the last one.
    pub fn take(&mut self, now: Duration) -> bool {
        self.leak_until(now);
        let fits = self.level + self.unit <= self.depth;
        if fits {
            self.level += self.unit;
        }
        fits
    }

    /// The first moment, `now` or later, at which one unit fits.
    pub fn opens(&mut self, now: Duration) -> Duration {
        self.leak_until(now);
        let over = (self.level + self.unit).saturating_sub(self.depth);
        self.last + Duration::from_nanos(over.div_ceil(self.leak) as u64)
    }

    fn leak_until(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.last);
        self.level = self.level.saturating_sub(passed.as_nanos() * self.leak);
        self.last = self.last.max(now);
    }
}

/// One call that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// When, since the provider's start.
    pub at: Duration,
    /// From which node; counted from 0.
    pub node: usize,
    /// Whether the limit had room.
    pub admitted: bool,
}

/// The running server. It ends with the value.
pub struct Provider {
    address: SocketAddr,
    book: Rc<Book>,
    server: JoinHandle<()>,
}

struct Book {
    start: Instant,
    bucket: RefCell<Bucket>,
    hits: RefCell<Vec<Hit>>,
}

impl Provider {
    /// Listens on a free port of this machine. Must run inside a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// There is no port to be had.
    pub async fn start(limit: &Rate) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let bucket = RefCell::new(Bucket::new(limit));
        let book = Rc::new(Book { start: Instant::now(), bucket, hits: RefCell::default() });
        let server = spawn_local(serve(listener, Rc::clone(&book)));
        Ok(Self { address, book, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When it started; the zero of [`Hit::at`].
    pub fn started(&self) -> Instant {
        self.book.start
    }

    /// All calls so far, in the order of their arrival.
    pub fn hits(&self) -> Vec<Hit> {
        self.book.hits.borrow().clone()
    }

    /// How many calls were admitted and how many refused.
    pub fn totals(&self) -> (usize, usize) {
        let hits = self.book.hits.borrow();
        let admitted = hits.iter().filter(|hit| hit.admitted).count();
        (admitted, hits.len() - admitted)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, book: Rc<Book>) {
    // Ends its connections when it is dropped itself.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let book = Rc::clone(&book);
        connections.spawn_local(async move {
            let service = service_fn(move |request| {
                let answer = answer(&book, &request);
                async move { answer }
            });
            let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(book: &Book, request: &Request<Incoming>) -> Result<Response<Empty<Bytes>>, hyper::http::Error> {
    let node = request.headers().get(NODE_HEADER).and_then(|node| node.to_str().ok()?.parse().ok());
    let Some(node) = node else {
        return Response::builder().status(StatusCode::BAD_REQUEST).body(Empty::new());
    };
    let at = book.start.elapsed();
    let mut bucket = book.bucket.borrow_mut();
    let admitted = bucket.take(at);
    book.hits.borrow_mut().push(Hit { at, node, admitted });
    if admitted {
        return Response::builder().body(Empty::new());
    }
    // `Retry-After` has whole seconds only.
    let wait = bucket.opens(at).saturating_sub(at).as_millis().div_ceil(1_000);
    Response::builder()
        .status(StatusCode::TOO_MANY_REQUESTS)
        .header(RETRY_AFTER, wait.to_string())
        .body(Empty::new())
}

/// One connection to the provider, kept between calls.
pub struct Caller {
    sender: client::SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Caller {
    /// Connects.
    ///
    /// # Errors
    /// The provider is gone.
    pub async fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let handshake = client::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| error.to_string())?;
        let driver = spawn_local(async move { connection.await.unwrap_or_default() });
        Ok(Self { sender, driver })
    }

    /// Makes one call for `node` and says whether the provider admitted it.
    ///
    /// # Errors
    /// The provider is gone.
    pub async fn call(&mut self, node: usize) -> Result<bool, String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/call")
            .header(HOST, HeaderValue::from_static("provider"))
            .header(NODE_HEADER, node)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let answer = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        // Without reading the body to its end the connection could not be used again.
        answer.into_body().collect().await.map_err(|error| error.to_string())?;
        match status {
            StatusCode::OK => Ok(true),
            StatusCode::TOO_MANY_REQUESTS => Ok(false),
            other => Err(format!("the provider answered {other}")),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    fn rate(amount: u64, per_ms: u64, burst: u64) -> Rate {
        Rate::new(amount, Duration::from_millis(per_ms), burst).unwrap()
    }

    #[test]
    fn the_bucket_admits_its_burst_and_then_its_rate_to_the_nanosecond() {
        let mut bucket = Bucket::new(&rate(3, 1_000, 2));
        let at = Duration::from_nanos;
        assert!(bucket.take(at(0)) && bucket.take(at(0)));
        assert!(!bucket.take(at(0)));
        // A third of a second is not a whole number of nanoseconds: one early is too early.
        assert_eq!(bucket.opens(at(0)), at(333_333_334));
        assert!(!bucket.take(at(333_333_333)));
        assert!(bucket.take(at(333_333_334)));
        assert!(!bucket.take(at(333_333_334)));
    }

    #[test]
    fn the_bucket_never_admits_more_than_burst_and_rate_allow() {
        let mut bucket = Bucket::new(&rate(500, 6_000, 50));
        let admitted = (0..10_000).filter(|step| bucket.take(Duration::from_millis(*step))).count();
        assert_eq!(admitted, 50 + 833);
    }

    #[test]
    fn a_clock_that_stands_still_or_runs_back_gives_nothing() {
        let mut bucket = Bucket::new(&rate(1, 1_000, 1));
        assert!(bucket.take(Duration::from_secs(5)));
        assert!(!bucket.take(Duration::from_secs(3)));
        assert!(!bucket.take(Duration::from_millis(5_999)));
        assert!(bucket.take(Duration::from_secs(6)));
    }

    #[test]
    fn the_server_counts_by_node_and_refuses_beyond_the_limit() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let provider = Provider::start(&rate(1, 60_000, 3)).await.unwrap();
            let mut caller = Caller::connect(provider.address()).await.unwrap();
            let mut answers = Vec::new();
            for node in [0, 1, 0, 1] {
                answers.push(caller.call(node).await.unwrap());
            }
            assert_eq!(answers, [true, true, true, false]);
            assert_eq!(provider.totals(), (3, 1));
            let nodes: Vec<_> = provider.hits().iter().map(|hit| hit.node).collect();
            assert_eq!(nodes, [0, 1, 0, 1]);
        });
    }
}
