//! Answers as HTTP says them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;

use super::events::EventStream;
use super::patience::Answering;
use super::route;
use crate::api::{Denial, Problem};

/// An answer.
pub type Answer = Response<Body>;

/// The body of an answer.
pub enum Body {
    /// All of it, until it is handed over.
    Whole(Bytes),
    /// Events, one after the other.
    Events(EventStream),
}

impl Body {
    /// All of it; nothing of events.
    pub fn whole(self) -> Bytes {
        match self {
            Self::Whole(body) => body,
            Self::Events(_) => Bytes::new(),
        }
    }

    /// The request is being answered while `answering` is there: until a body that is whole is handed over, or as long as
    /// events are read.
    pub fn answers(&mut self, answering: Answering) {
        if let Self::Events(stream) = self {
            stream.answers(answering);
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) if body.is_empty() => Poll::Ready(None),
            Self::Whole(body) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(body))))),
            Self::Events(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(body) if body.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// A body in JSON; a problem's (RFC 9457) if the status is not of success.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    // Room for what most answers are.
    let mut bytes = Vec::with_capacity(512);
    if let Err(error) = serde_json::to_writer(&mut bytes, body) {
        bytes = format!("\"BUG! {error}\"").into_bytes();
    }
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    with_body(status, kind, Body::Whole(bytes.into()))
}

/// A line of text.
pub fn text(status: StatusCode, body: &str) -> Answer {
    document("text/plain", status, body.to_owned())
}

/// A text of some media type.
pub fn document(kind: &'static str, status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_body(status, kind, Body::Whole(body.into()))
}

/// Events, as long as they are read.
pub fn events(stream: EventStream) -> Answer {
    let mut response = with_body(StatusCode::OK, "text/event-stream", Body::Events(stream));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn with_body(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // Room for what most answers have.
    response.headers_mut().reserve(5);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What came of a request that may have been wrong.
pub fn json_or_problem(answer: Result<impl Serialize, Problem>) -> Answer {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(problem) => problem_answer(&problem),
    }
}

/// What came of a command that has no answer but that it was done.
pub fn done_or_problem(done: Result<(), Problem>) -> Answer {
    match done {
        Ok(()) => {
            let mut response = Response::new(Body::Whole(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(problem) => problem_answer(&problem),
    }
}

/// A problem that is about no member of a body.
pub fn problem(status: u16, title: &str, detail: String) -> Problem {
    Problem { title: title.to_owned(), status, detail, field: None, reason: None }
}

/// A problem with who asks.
pub fn refusal(status: u16, title: &str, detail: String, reason: Denial) -> Problem {
    Problem { reason: Some(reason), ..problem(status, title, detail) }
}

/// A problem.
pub fn problem_answer(problem: &Problem) -> Answer {
    json(StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), problem)
}

/// There is no such endpoint.
pub fn not_found(path: &str) -> Answer {
    let path: String = path.chars().take(100).collect();
    problem_answer(&problem(
        404,
        "no such endpoint",
        format!("there is no {path}; there are {}", route::endpoints()),
    ))
}

/// The endpoint is asked otherwise.
pub fn wrong_method(path: &str, expected: &Method) -> Answer {
    let path: String = path.chars().take(100).collect();
    let mut response = problem_answer(&problem(405, "wrong method", format!("{path} takes {expected}")));
    if let Ok(value) = HeaderValue::from_str(expected.as_str()) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}
