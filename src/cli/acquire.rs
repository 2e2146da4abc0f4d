//! `aquifer acquire`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::exit::{LIMITED, USAGE, fail};
use super::output::{json, millis, plain, print};
use crate::client::{Client, ClientError};
use crate::daemon::api::{AcquireAnswer, AcquireRequest, LimitState, Priority, Reason};
use crate::daemon::config::parse_duration;

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The pool to pass
    pool: String,
    /// Requests to take [default: 1]
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Tokens to take [default: 0]
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Units to take of one limit, or of another unit; may be repeated
    #[arg(long = "cost", value_name = "LIMIT=N", value_parser = parse_cost)]
    costs: Vec<(String, u64)>,
    /// How long to wait, such as 30s or 500ms [default: as the pool's configuration says]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Ask and do not wait
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// How urgent it is
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(["critical", "high", "normal", "low"])
            .try_map(|word| serde_json::from_value::<Priority>(word.into()))
    )]
    priority: Option<Priority>,
    /// Who asks, for people
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Print the daemon's answer as JSON, also when it is a refusal
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  aquifer acquire api && curl https://api.example/v1/search
      waits until one request may be made, then makes it
  aquifer acquire api --tokens 1200 --wait 30s
      asks for one request and 1200 tokens, and waits for up to 30 seconds
  aquifer acquire api --cost otpm=800 --no-wait
      asks for one request and 800 units of the limit otpm, and does not wait

Exit status: 0 admitted; 75 limited; 64 an unknown pool or limit; 69 no daemon; 77 not permitted.";

pub async fn run(mut client: Client, args: Args) -> Result<ExitCode, ClientError> {
    let mut cost = BTreeMap::new();
    for (limit, units) in args.costs {
        if cost.insert(limit.clone(), units).is_some() {
            return Ok(fail(&format!("--cost {limit}=… is there twice; give the sum once"), USAGE));
        }
    }
    let wait = if args.no_wait { Some(Duration::ZERO) } else { args.wait };
    let ask = AcquireRequest {
        pool: args.pool,
        requests: args.requests,
        tokens: args.tokens,
        cost,
        agent: args.agent,
        priority: args.priority,
        wait_ms: wait.map(|wait| wait.as_millis() as u64),
        ttl_ms: None,
    };
    let answer = client.acquire(&ask).await?;
    let printed = if args.json {
        print(&json(&answer))
    } else if answer.allowed {
        print(&(plain(&admitted(&answer)) + "\n"))
    } else {
        return Ok(fail(&refused(&answer), LIMITED));
    };
    Ok(if answer.allowed { printed } else { LIMITED.into() })
}

fn parse_cost(text: &str) -> Result<(String, u64), String> {
    let cost = text.rsplit_once('=').filter(|(limit, _)| !limit.is_empty());
    let (limit, units) = cost.ok_or("must be LIMIT=N, such as otpm=800")?;
    let units = units.replace('_', "").parse().map_err(|_| "must be LIMIT=N with a whole number N")?;
    Ok((limit.to_owned(), units))
}

fn admitted(answer: &AcquireAnswer) -> String {
    let waited = match answer.waited_ms {
        0 => "at once".to_owned(),
        waited => format!("after {}", millis(waited)),
    };
    let left = |limit: &LimitState| format!("{} of {} {}", limit.remaining, limit.limit, limit.name);
    let left: Vec<_> = answer.limits.iter().map(left).collect();
    let permit = answer.permit.as_ref().map(|permit| format!("; permit {permit}")).unwrap_or_default();
    format!("admitted {waited}; {} left in the swarm{permit}", left.join(", "))
}

fn refused(answer: &AcquireAnswer) -> String {
    let limit = answer.limited_by.as_deref().unwrap_or("a limit");
    let why = match answer.reason {
        Some(Reason::Limit) => format!("{limit} has no room now"),
        Some(Reason::Deadline) => {
            format!("{limit} had no room within the wait of {}", millis(answer.waited_ms))
        }
        Some(Reason::QueueFull) => "as many requests wait for the pool as may".to_owned(),
        Some(Reason::Paused) => "the pool is paused".to_owned(),
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
