//! What `acquire` and `exec` ask for, and how they say what became of it.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::output::millis;
use crate::api::{AcquireAnswer, AcquireRequest, LimitState, PoolNames, Priority, Reason};
use crate::daemon::config::parse_duration;
use crate::protocol::node::WAIT_MAX;

/// What to ask for.
#[derive(Clone, Debug, clap::Args)]
pub struct Ask {
    /// The pool to pass
    pool: String,
    /// A pool to fall back on; may be repeated. The first that admits now counts, else the one likely to admit first
    #[arg(long = "or", value_name = "POOL")]
    others: Vec<String>,
    /// Requests to take [default: 1]
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Tokens to take [default: 0]
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Units to take of one limit, or of another unit; may be repeated
    #[arg(long = "cost", value_name = "LIMIT=N", value_parser = parse_cost)]
    costs: Vec<(String, u64)>,
    /// Whose limits they are, in a pool that has them for each key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// How long to wait, such as 30s or 500ms [default: as the pool's configuration says]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Ask and do not wait
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// How urgent it is [default: normal]
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(Priority::ALL.map(Priority::name))
            .try_map(|word| serde_json::from_value::<Priority>(word.into()))
    )]
    priority: Option<Priority>,
    /// Who asks: agents of a class are served in turn, by weight
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// How long the permit lives at most, such as 10m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
}

/// How long a permit lives that is settled by this process, or by its end: as long as any can.
pub const TTL_HELD: Duration = WAIT_MAX;

impl Ask {
    /// As the daemon is asked.
    ///
    /// # Errors
    /// What is wrong with the command line.
    pub fn request(self) -> Result<AcquireRequest, String> {
        let mut cost = BTreeMap::new();
        for (limit, units) in self.costs {
            if cost.insert(limit.clone(), units).is_some() {
                return Err(format!("--cost {limit}=… is there twice; give the sum once"));
            }
        }
        let wait = if self.no_wait { Some(Duration::ZERO) } else { self.wait };
        let millis = |time: Duration| time.as_millis() as u64;
        let pool = if self.others.is_empty() {
            PoolNames::One(self.pool)
        } else {
            PoolNames::FirstOf([self.pool].into_iter().chain(self.others).collect())
        };
        Ok(AcquireRequest {
            pool,
            requests: self.requests,
            tokens: self.tokens,
            cost,
            key: self.key,
            agent: self.agent,
            priority: self.priority,
            wait_ms: wait.map(millis),
            ttl_ms: self.ttl.map(millis),
            ..AcquireRequest::default()
        })
    }
}

fn parse_cost(text: &str) -> Result<(String, u64), String> {
    let cost = text.rsplit_once('=').filter(|(limit, _)| !limit.is_empty());
    let (limit, units) = cost.ok_or("must be LIMIT=N, such as otpm=800")?;
    let units = units.replace('_', "").parse().map_err(|_| "must be LIMIT=N with a whole number N")?;
    Ok((limit.to_owned(), units))
}

pub fn admitted(answer: &AcquireAnswer) -> String {
    let waited = match answer.waited_ms {
        0 => "at once".to_owned(),
        waited => format!("after {}", millis(waited)),
    };
    let left = |limit: &LimitState| format!("{} of {} {}", limit.remaining, limit.limit, limit.name);
    let left: Vec<_> = answer.limits.iter().map(left).collect();
    let permit = answer.permit.as_ref().map(|permit| format!("; permit {permit}")).unwrap_or_default();
    format!("admitted {waited}; {} left in the swarm{permit}", left.join(", "))
}

pub fn refused(answer: &AcquireAnswer) -> String {
    let limit = answer.limited_by.as_deref().unwrap_or("a limit");
    let why = match answer.reason {
        Some(Reason::Limit) => format!("{limit} has no room now"),
        Some(Reason::Deadline) => {
            format!("{limit} had no room within the wait of {}", millis(answer.waited_ms))
        }
        Some(Reason::QueueFull) => "as many requests wait for the pool as may".to_owned(),
        Some(Reason::UserQueueFull) => {
            "as many requests of this user wait for the pool as one user may have".to_owned()
        }
        Some(Reason::Paused) => "the pool is paused".to_owned(),
        Some(Reason::Breaker) => "calls to the pool failed lately, so none are made for a while".to_owned(),
        Some(Reason::TooManyKeys) => "as many keys are in use as may be".to_owned(),
        Some(Reason::Never) => {
            let detail = answer.detail.clone();
            detail.unwrap_or_else(|| format!("the cost is more than {limit} can ever hold; ask for less"))
        }
        None => answer.detail.clone().unwrap_or_else(|| "the daemon did not say why".to_owned()),
    };
    let when = answer.retry_after_ms.map(|after| format!("; ask again in {}", millis(after)));
    format!("refused: {why}{}", when.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(allowed: bool) -> AcquireAnswer {
        let limit = |name: &str, limit, remaining| LimitState {
            name: name.to_owned(),
            limit,
            used: limit - remaining,
            remaining,
            held: 9,
            reset_in_ms: 9_600,
        };
        AcquireAnswer {
            allowed,
            permit: allowed.then(|| "01J".to_owned()),
            pool: "api".to_owned(),
            waited_ms: 840,
            expires_in_ms: None,
            worst_case_factor: 1.0,
            guarantee: "strict".to_owned(),
            limits: vec![limit("rpm", 50, 13), limit("tpm", 80_000, 31_000)],
            retry_after_ms: (!allowed).then_some(3_200),
            reason: (!allowed).then_some(Reason::Limit),
            limited_by: (!allowed).then(|| "rpm".to_owned()),
            detail: None,
            title: None,
            status: None,
        }
    }

    #[test]
    fn an_admission_is_one_line() {
        assert_eq!(
            admitted(&answer(true)),
            "admitted after 0.84 s; 13 of 50 rpm, 31000 of 80000 tpm left in the swarm; permit 01J"
        );
    }

    #[test]
    fn a_refusal_says_why_and_when() {
        assert_eq!(refused(&answer(false)), "refused: rpm has no room now; ask again in 3.2 s");
        let never = AcquireAnswer { reason: Some(Reason::Never), retry_after_ms: None, ..answer(false) };
        assert_eq!(refused(&never), "refused: the cost is more than rpm can ever hold; ask for less");
    }

    #[test]
    fn costs_name_a_limit_and_a_whole_number() {
        assert_eq!(parse_cost("a=b=1_000"), Ok(("a=b".to_owned(), 1_000)));
        assert!(parse_cost("otpm").is_err() && parse_cost("=3").is_err() && parse_cost("a=-1").is_err());
    }
}
