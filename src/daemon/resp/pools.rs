//! `AQ.*`: pools and permits, as the HTTP socket has them, for whoever has a Redis client at hand.
//!
//! Arguments become the members of the HTTP request of the same name, so that bounds, defaults and errors are the same.

use serde_json::{Map, Value};

use super::command::Args;
use super::reply::Replies;
use crate::api::{AcquireAnswer, Problem, SettleAnswer};
use crate::daemon::digits::digits;
use crate::daemon::sidecar::{Caller, Sidecar};

/// What is asked for.
pub enum Ask {
    /// The body of `POST /v1/acquire`.
    Acquire(Vec<u8>),
    /// A permit and the body of its `commit`.
    Commit(String, Vec<u8>),
    /// A permit.
    Release(String),
    /// `GET /v1/status`.
    Status,
}

/// What came of it.
pub enum Answered {
    /// Admitted or refused.
    Acquired(Box<AcquireAnswer>),
    /// What came back, and what is owed.
    Settled(SettleAnswer),
    /// A document.
    Text(Vec<u8>),
    /// Nothing was done.
    Problem(Problem),
}

impl Ask {
    /// The command's, if it is one of these.
    ///
    /// # Errors
    /// What is wrong with its arguments.
    pub fn parse(args: &Args<'_>) -> Option<Result<Self, String>> {
        let name = args[0].to_ascii_lowercase();
        Some(match &name[..] {
            b"aq.acquire" => acquire(&args[1..]).map(Self::Acquire),
            b"aq.commit" => commit(&args[1..]),
            b"aq.release" => match args[1..] {
                [permit] => text("permit", permit).map(Self::Release),
                _ => Err(super::answer::wrong_count("aq.release")),
            },
            b"aq.status" if args.len() == 1 => Ok(Self::Status),
            b"aq.status" => Err(super::answer::wrong_count("aq.status")),
            _ => return None,
        })
    }

    /// Does it. Only [`Ask::Acquire`] can take time.
    pub async fn answer(self, sidecar: &Sidecar, caller: &Caller) -> Answered {
        let settled = |settled: Result<_, _>| settled.map_or_else(Answered::Problem, Answered::Settled);
        match self {
            Self::Acquire(body) => match sidecar.acquired(&body, caller).await {
                Ok(answer) => Answered::Acquired(Box::new(answer)),
                Err(problem) => Answered::Problem(problem),
            },
            Self::Commit(permit, body) => settled(sidecar.committed(&permit, &body, caller)),
            Self::Release(permit) => settled(sidecar.released(&permit, b"", caller)),
            Self::Status => {
                Answered::Text(serde_json::to_vec(&sidecar.status()).expect("BUG! an answer that is no JSON"))
            }
        }
    }
}

impl Answered {
    /// Replies.
    pub fn reply(&self, replies: &mut Replies) {
        match self {
            Self::Acquired(answer) => acquired(answer, replies),
            Self::Settled(answer) => {
                replies.map(2);
                for (name, units) in [("refunded", &answer.refunded), ("debt", &answer.debt)] {
                    replies.bulk(name);
                    replies.map(units.len());
                    for (limit, units) in units {
                        replies.bulk(limit);
                        replies.integer(*units as i64);
                    }
                }
            }
            Self::Text(text) => replies.bulk(text),
            Self::Problem(problem) => {
                let kind = if problem.status == 403 { "NOPERM" } else { "ERR" };
                replies.error(&format!("{kind} {}", problem.detail));
            }
        }
    }
}

/// Four replies: 1, the permit, milliseconds waited and until it ends; or 0, why, the limit in the way if it is one, and
/// milliseconds until asking again makes sense, −1 if never.
fn acquired(answer: &AcquireAnswer, replies: &mut Replies) {
    let millis = |millis: Option<u64>| millis.map_or(-1, |millis| i64::try_from(millis).unwrap_or(i64::MAX));
    replies.array(4);
    replies.integer(i64::from(answer.allowed));
    if answer.allowed {
        replies.bulk(answer.permit.as_deref().unwrap_or_default());
        replies.integer(millis(Some(answer.waited_ms)));
        replies.integer(millis(answer.expires_in_ms));
    } else {
        let reason = answer.reason.and_then(|reason| serde_json::to_value(reason).ok());
        replies.bulk(reason.as_ref().and_then(Value::as_str).unwrap_or_default());
        match &answer.limited_by {
            Some(limit) => replies.bulk(limit),
            None => replies.null(),
        }
        replies.integer(millis(answer.retry_after_ms));
    }
}

fn acquire(args: &[&[u8]]) -> Result<Vec<u8>, String> {
    let [pool, rest @ ..] = args else { return Err(super::answer::wrong_count("aq.acquire")) };
    let mut body = Map::new();
    body.insert("pool".to_owned(), text("pool", pool)?.into());
    options(rest, &mut body, |option| {
        Some(match option {
            "key" | "agent" | "priority" => Kind::Text,
            "wait" => Kind::Number("wait_ms"),
            "ttl" => Kind::Number("ttl_ms"),
            "bind" => Kind::Bind,
            _ => return None,
        })
    })?;
    Ok(Value::from(body).to_string().into_bytes())
}

fn commit(args: &[&[u8]]) -> Result<Ask, String> {
    let [permit, rest @ ..] = args else { return Err(super::answer::wrong_count("aq.commit")) };
    let mut body = Map::new();
    options(rest, &mut body, |_| None)?;
    Ok(Ask::Commit(text("permit", permit)?, Value::from(body).to_string().into_bytes()))
}

/// What follows an option's name, and what the member is called.
enum Kind {
    Text,
    Number(&'static str),
    Bind,
}

fn options(
    mut rest: &[&[u8]],
    body: &mut Map<String, Value>,
    more: impl Fn(&str) -> Option<Kind>,
) -> Result<(), String> {
    while let [option, after @ ..] = rest {
        let name = text("option", option)?.to_lowercase();
        rest = match (&name[..], after) {
            ("cost", [limit, units, after @ ..]) => {
                let cost = body.entry("cost").or_insert_with(|| Map::new().into());
                let limits = cost.as_object_mut().expect("BUG! a cost that is no object");
                limits.insert(text("COST", limit)?, number("COST", units)?.into());
                after
            }
            ("requests" | "tokens", [units, after @ ..]) => {
                let units = number(&name, units)?;
                body.insert(name, units.into());
                after
            }
            _ => match (more(&name), after) {
                (Some(Kind::Bind), after) => {
                    body.insert(name, "connection".into());
                    after
                }
                (Some(Kind::Text), [value, after @ ..]) => {
                    let value = text(&name, value)?;
                    body.insert(name, value.into());
                    after
                }
                (Some(Kind::Number(member)), [value, after @ ..]) => {
                    body.insert(member.to_owned(), number(&name, value)?.into());
                    after
                }
                (None, _) => return Err(format!("syntax error: unknown option '{name}'")),
                (Some(_), []) => return Err(format!("syntax error: {} needs a value", name.to_uppercase())),
            },
        };
    }
    Ok(())
}

fn text(what: &str, bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("{} is no UTF-8 text", what.to_uppercase()))
}

fn number(what: &str, bytes: &[u8]) -> Result<u64, String> {
    digits(bytes).ok_or_else(|| {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(32)]);
        format!("{} is '{text}', must be a whole number", what.to_uppercase())
    })
}
