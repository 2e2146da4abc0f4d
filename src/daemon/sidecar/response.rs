//! Answers as HTTP says them.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;

use super::route::ENDPOINTS;
use crate::daemon::api::{Denial, Problem};

/// An answer with all of its body.
pub type Answer = Response<Full<Bytes>>;

/// A body in JSON; a problem's (RFC 9457) if the status is not of success.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(body).unwrap_or_else(|error| format!("\"BUG! {error}\"").into_bytes());
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let mut response = Response::new(Full::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A line of text.
pub fn text(status: StatusCode, body: &str) -> Answer {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
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
            let mut response = Response::new(Full::default());
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
    problem_answer(&problem(404, "no such endpoint", format!("there is no {path}; there are {ENDPOINTS}")))
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
