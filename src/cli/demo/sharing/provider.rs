//! The strict provider: a small HTTP server with one central bucket. Beyond the limit it answers 429.

use std::cell::RefCell;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::cli::demo::bucket::Bucket;
use crate::cli::demo::http::{self, Answer, Server};
use crate::protocol::limit::Rate;

/// Says to the provider which node a call comes from.
const NODE_HEADER: HeaderName = HeaderName::from_static("x-node");

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
    book: Rc<Book>,
    server: Server,
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
        let bucket = RefCell::new(Bucket::new(limit));
        let book = Rc::new(Book { start: Instant::now(), bucket, hits: RefCell::default() });
        let serving = Rc::clone(&book);
        let server = Server::start(move |headers| ready(answer(&serving, &headers))).await?;
        Ok(Self { book, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
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

fn answer(book: &Book, headers: &HeaderMap) -> Answer {
    let Some(node) = http::number(headers, &NODE_HEADER) else {
        return http::answer(StatusCode::BAD_REQUEST);
    };
    let at = book.start.elapsed();
    let mut bucket = book.bucket.borrow_mut();
    let admitted = bucket.take(1, at);
    book.hits.borrow_mut().push(Hit { at, node: node as usize, admitted });
    if admitted {
        return http::answer(StatusCode::OK);
    }
    // `Retry-After` has whole seconds only.
    let wait = bucket.opens(at).saturating_sub(at).as_millis().div_ceil(1_000) as u64;
    let mut answer = http::answer(StatusCode::TOO_MANY_REQUESTS);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait));
    answer
}

/// One connection to the provider, kept between calls.
pub struct Caller(http::Caller);

impl Caller {
    /// Connects.
    ///
    /// # Errors
    /// The provider is gone.
    pub async fn connect(address: SocketAddr) -> Result<Self, String> {
        http::Caller::connect(address).await.map(Self)
    }

    /// Makes one call for `node` and says whether the provider admitted it.
    ///
    /// # Errors
    /// The provider is gone.
    pub async fn call(&mut self, node: usize) -> Result<bool, String> {
        match self.0.call(&[(NODE_HEADER, node as u64)]).await? {
            (StatusCode::OK, _) => Ok(true),
            (StatusCode::TOO_MANY_REQUESTS, _) => Ok(false),
            (other, _) => Err(format!("the provider answered {other}")),
        }
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
