//! What can be asked, and what answers mean: shared by the clients, without any IO.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{encoded, request};
use crate::api::{
    API_VERSION, AcquireAnswer, AcquireRequest, CommitRequest, LeaveAnswer, LeaveRequest, ObserveRequest,
    Problem, ReloadAnswer, SettleAnswer,
};

/// How long an answer may take, beyond what a request waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request and how its answer is read.
pub(super) struct Call<T> {
    pub bytes: Vec<u8>,
    /// Whether it may be asked again if its answer was lost: that it was carried out twice changes nothing.
    pub repeatable: bool,
    /// How long the answer may take; none if the daemon alone knows.
    pub patience: Option<Duration>,
    pub read: fn(u16, &[u8]) -> Result<T, NoAnswer>,
}

/// What came is not what was asked for.
pub(super) enum NoAnswer {
    Problem(Problem, u16),
    /// As the end of a sentence.
    Broken(String),
}

pub(super) fn acquire(ask: &AcquireRequest) -> Call<AcquireAnswer> {
    let patience = ask.wait_ms.map(|wait| PATIENCE + Duration::from_millis(wait));
    let read = |status, body: &[u8]| match status {
        200 | 429 => parsed(body),
        _ => Err(problem(status, body)),
    };
    Call { bytes: post("/v1/acquire", ask), repeatable: false, patience, read }
}

pub(super) fn commit(permit: &str, used: &CommitRequest) -> Call<SettleAnswer> {
    listing(post(&format!("/v1/permits/{}/commit", encoded(permit)), used))
}

pub(super) fn release(permit: &str) -> Call<SettleAnswer> {
    listing(request("POST", &format!("/v1/permits/{}/release", encoded(permit)), b""))
}

pub(super) fn get<T: DeserializeOwned>(path: &str) -> Call<T> {
    listing(request("GET", path, b""))
}

pub(super) fn explain<T: DeserializeOwned>(pool: &str) -> Call<T> {
    get(&format!("/v1/explain/{}", encoded(pool)))
}

/// A command that has no answer but that it was done; to do it twice is to do it once.
pub(super) fn order(path: &str, body: &impl Serialize) -> Call<()> {
    Call { bytes: post(path, body), repeatable: true, patience: Some(PATIENCE), read: done }
}

pub(super) fn leave(wait: Duration) -> Call<LeaveAnswer> {
    let ask = LeaveRequest { wait_ms: Some(wait.as_millis() as u64) };
    Call { patience: Some(PATIENCE + wait), ..listing(post("/v1/leave", &ask)) }
}

pub(super) fn reload() -> Call<ReloadAnswer> {
    let read = |status, body: &[u8]| match status {
        204 => Ok(ReloadAnswer { version: API_VERSION, applied: Vec::new(), needs_restart: Vec::new() }),
        200 => parsed(body),
        _ => Err(problem(status, body)),
    };
    // Names of users may come from a slow directory.
    Call { read, patience: None, ..listing(request("POST", "/v1/reload", b"")) }
}

/// What is seen counts as often as it is told.
pub(super) fn observe(seen: &ObserveRequest) -> Call<()> {
    Call { repeatable: false, ..order("/v1/observe", seen) }
}

/// Whatever is at a path.
pub(super) fn anything(path: &str) -> Call<(u16, Vec<u8>)> {
    let read = |status, body: &[u8]| Ok((status, body.to_vec()));
    Call { bytes: request("GET", path, b""), repeatable: true, patience: Some(PATIENCE), read }
}

fn listing<T: DeserializeOwned>(bytes: Vec<u8>) -> Call<T> {
    let read = |status, body: &[u8]| match status {
        200 => parsed(body),
        _ => Err(problem(status, body)),
    };
    Call { bytes, repeatable: true, patience: Some(PATIENCE), read }
}

fn done(status: u16, body: &[u8]) -> Result<(), NoAnswer> {
    if status == 204 { Ok(()) } else { Err(problem(status, body)) }
}

fn post(path: &str, body: &impl Serialize) -> Vec<u8> {
    let body = serde_json::to_vec(body).expect("BUG! a request that is no JSON");
    request("POST", path, &body)
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, NoAnswer> {
    serde_json::from_slice(body)
        .map_err(|error| NoAnswer::Broken(format!("answered something else: {error}")))
}

fn problem(status: u16, body: &[u8]) -> NoAnswer {
    match serde_json::from_slice(body) {
        Ok(problem) => NoAnswer::Problem(problem, status),
        Err(_) => NoAnswer::Broken(format!("answered with HTTP status {status} and no reason")),
    }
}
