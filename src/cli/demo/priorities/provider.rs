//! The strict provider: for each model it counts requests and tokens a minute and calls at the same time, and answers
//! 429 beyond any of them.
//!
//! Of tokens it takes what a call reserves when it arrives, and puts it right when the call has ended. A call whose
//! caller hangs up is broken off: its slot is free, and its tokens count as reserved.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::sleep;

use crate::cli::demo::bucket::Bucket;
use crate::cli::demo::http::{self, Answer, Server};
use crate::protocol::limit::LimitError;

use super::script::Model;

const MODEL: HeaderName = HeaderName::from_static("x-model");
const AGENT: HeaderName = HeaderName::from_static("x-agent");
const RESERVED: HeaderName = HeaderName::from_static("x-tokens-reserved");
const USED: HeaderName = HeaderName::from_static("x-tokens-used");
const TAKES: HeaderName = HeaderName::from_static("x-takes-ms");

/// What is asked of the provider. What an agent cannot know beforehand, it is told to draw.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The place of the model.
    pub model: usize,
    /// The place of the agent.
    pub agent: usize,
    /// Tokens that the caller reserved.
    pub reserved: u64,
    /// Tokens that it will really use.
    pub used: u64,
    /// How long it takes.
    pub takes: Duration,
}

/// One call that arrived. Times count from the provider's start.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// The place of the model.
    pub model: usize,
    /// The place of the agent.
    pub agent: usize,
    /// When it arrived.
    pub at: Duration,
    /// When it ended or was broken off; absent while it runs.
    pub until: Option<Duration>,
    /// The limit that it was refused for.
    pub refused_by: Option<&'static str>,
    /// Tokens that count for it.
    pub tokens: u64,
}

/// The running server. It ends with the value.
pub struct Provider {
    book: Rc<Book>,
    server: Server,
}

struct Book {
    start: Instant,
    models: RefCell<Vec<State>>,
    visits: RefCell<Vec<Visit>>,
}

struct State {
    requests: Bucket,
    tokens: Bucket,
    running: u64,
    max_concurrent: u64,
}

impl Provider {
    /// Listens on a free port of this machine. Must run inside a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// There is no port to be had, or a limit is out of bounds.
    pub async fn start(models: &[Model]) -> io::Result<Self> {
        let state = |model: &Model| {
            let [requests, tokens] = model.rates()?.map(|rate| Bucket::new(&rate));
            Ok(State { requests, tokens, running: 0, max_concurrent: model.max_concurrent })
        };
        let models: Result<_, LimitError> = models.iter().map(state).collect();
        let models = RefCell::new(models.map_err(io::Error::other)?);
        let book = Rc::new(Book { start: Instant::now(), models, visits: RefCell::default() });
        let serving = Rc::clone(&book);
        let server = Server::start(move |headers| answer(Rc::clone(&serving), headers)).await?;
        Ok(Self { book, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// When it started; the zero of the times of its visits.
    pub fn started(&self) -> Instant {
        self.book.start
    }

    /// All calls so far, in the order of their arrival.
    pub fn visits(&self) -> Vec<Visit> {
        self.book.visits.borrow().clone()
    }
}

async fn answer(book: Rc<Book>, headers: HeaderMap) -> Answer {
    let Some(order) = order(&headers).filter(|order| order.model < book.models.borrow().len()) else {
        return http::answer(StatusCode::BAD_REQUEST);
    };
    let Some(running) = Running::begin(book, order) else {
        return http::answer(StatusCode::TOO_MANY_REQUESTS);
    };
    sleep(order.takes).await;
    running.end();
    let mut answer = http::answer(StatusCode::OK);
    answer.headers_mut().insert(USED, HeaderValue::from(order.used));
    answer
}

fn order(headers: &HeaderMap) -> Option<Order> {
    let number = |name: &HeaderName| http::number(headers, name);
    Some(Order {
        model: number(&MODEL)? as usize,
        agent: number(&AGENT)? as usize,
        reserved: number(&RESERVED)?,
        used: number(&USED)?,
        takes: Duration::from_millis(number(&TAKES)?),
    })
}

/// A call that was admitted and takes a slot until it is dropped.
struct Running {
    book: Rc<Book>,
    order: Order,
    visit: usize,
}

impl Running {
    /// None if a limit has no room.
    fn begin(book: Rc<Book>, order: Order) -> Option<Self> {
        let Order { model, agent, reserved, .. } = order;
        let at = book.start.elapsed();
        let visit = book.visits.borrow().len();
        let refused_by = book.models.borrow_mut()[model].admit(reserved, at);
        let (until, tokens) = (refused_by.map(|_| at), if refused_by.is_some() { 0 } else { reserved });
        book.visits.borrow_mut().push(Visit { model, agent, at, until, refused_by, tokens });
        refused_by.is_none().then(|| Self { book, order, visit })
    }

    /// The call has come to its end: what it really used is known.
    fn end(self) {
        let Order { model, reserved, used, .. } = self.order;
        self.book.models.borrow_mut()[model].tokens.correct(reserved, used, self.book.start.elapsed());
        self.book.visits.borrow_mut()[self.visit].tokens = used;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.book.models.borrow_mut()[self.order.model].running -= 1;
        self.book.visits.borrow_mut()[self.visit].until = Some(self.book.start.elapsed());
    }
}

impl State {
    /// Takes all of it, or names the limit that has no room.
    fn admit(&mut self, tokens: u64, now: Duration) -> Option<&'static str> {
        if self.running >= self.max_concurrent {
            return Some("max_concurrent");
        }
        if !self.requests.fits(1, now) {
            return Some("rpm");
        }
        if !self.tokens.take(tokens, now) {
            return Some("tpm");
        }
        self.requests.take(1, now);
        self.running += 1;
        None
    }
}

/// One connection to the provider, kept between calls. Dropping it hangs up.
pub struct Caller(http::Caller);

impl Caller {
    /// Connects.
    ///
    /// # Errors
    /// The provider is gone.
    pub async fn connect(address: SocketAddr) -> Result<Self, String> {
        http::Caller::connect(address).await.map(Self)
    }

    /// Makes a call and waits for its end: the tokens that it used, or none if it was refused.
    ///
    /// # Errors
    /// The provider is gone.
    pub async fn call(&mut self, order: Order) -> Result<Option<u64>, String> {
        let headers = [
            (MODEL, order.model as u64),
            (AGENT, order.agent as u64),
            (RESERVED, order.reserved),
            (USED, order.used),
            (TAKES, order.takes.as_millis() as u64),
        ];
        let (status, headers) = self.0.call(&headers).await?;
        match (status, http::number(&headers, &USED)) {
            (StatusCode::OK, Some(used)) => Ok(Some(used)),
            (StatusCode::TOO_MANY_REQUESTS, _) => Ok(None),
            (other, _) => Err(format!("the provider answered {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::MODELS;
    use super::*;
    use tokio::task::{LocalSet, spawn_local};

    fn order(reserved: u64, takes_ms: u64) -> Order {
        Order { model: 0, agent: 3, reserved, used: reserved / 2, takes: Duration::from_millis(takes_ms) }
    }

    #[test]
    fn every_limit_refuses_in_its_name_and_a_refusal_takes_nothing() {
        let model =
            Model { rpm: 1, requests_burst: 3, tpm: 1, tokens_burst: 10, max_concurrent: 2, ..MODELS[0] };
        let [requests, tokens] = model.rates().unwrap().map(|rate| Bucket::new(&rate));
        let mut state = State { requests, tokens, running: 0, max_concurrent: 2 };
        let now = Duration::from_secs(1);
        assert_eq!(state.admit(11, now), Some("tpm"));
        assert_eq!([state.admit(5, now), state.admit(5, now)], [None, None]);
        assert_eq!(state.admit(0, now), Some("max_concurrent"));
        state.running = 0;
        assert_eq!(state.admit(1, now), Some("tpm"));
        assert_eq!([state.admit(0, now), state.admit(0, now)], [None, Some("rpm")]);
    }

    #[test]
    fn the_truth_counts_at_the_end_and_a_caller_that_hangs_up_frees_its_slot() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let provider = Provider::start(&MODELS).await.unwrap();
            let mut caller = Caller::connect(provider.address()).await.unwrap();
            assert_eq!(caller.call(order(1_000, 1)).await.unwrap(), Some(500));
            let hangs_up = spawn_local(async move { caller.call(order(800, 60_000)).await });
            while provider.visits().len() < 2 {
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(provider.visits()[1].until, None);
            hangs_up.abort();
            while provider.visits()[1].until.is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            let tokens: Vec<_> = provider.visits().iter().map(|visit| visit.tokens).collect();
            assert_eq!(tokens, [500, 800]);
            assert_eq!(provider.book.models.borrow()[0].running, 0);
        });
    }
}
