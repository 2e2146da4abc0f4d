//! Bodies of `POST /json`: Envoy's rate limit service in the JSON of protobuf.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::body::{Members, object};
use super::response::{Answer, json as json_answer};
use crate::daemon::api::Problem;
use crate::daemon::proto::envoy::extensions::common::ratelimit::v3::{
    RateLimitDescriptor, rate_limit_descriptor::Entry,
};
use crate::daemon::proto::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use crate::daemon::rls::{RateLimitRequest, RateLimitResponse};

const EXAMPLE: &str =
    r#"{"domain":"gateway","descriptors":[{"entries":[{"key":"path","value":"/search"}]}]}"#;
/// The longest text of a request: no longer than a header may be.
const TEXT_MAX: usize = 16 * 1024;

/// Reads a request.
///
/// # Errors
/// 400.
pub fn parse(body: &[u8]) -> Result<RateLimitRequest, Problem> {
    let body = object(body, false, EXAMPLE)?;
    let members = Members::new(&body, "", &["domain", "descriptors", "hitsAddend", "hits_addend"])?;
    let descriptors = list(&members, "descriptors")?.enumerate().map(|(place, descriptor)| {
        let place = format!("descriptors[{place}]");
        let known = ["entries", "limit", "hitsAddend", "hits_addend", "isNegativeHits", "is_negative_hits"];
        let members = Members::new(members_of(descriptor, &members, &place)?, format!("{place}."), &known)?;
        let entries = list(&members, "entries")?.enumerate().map(|(entry, value)| {
            let place = format!("{place}.entries[{entry}].");
            let entry = Members::new(members_of(value, &members, "entries")?, place, &["key", "value"])?;
            let text = |member| Ok(entry.text(member, TEXT_MAX)?.unwrap_or_default().to_owned());
            Ok(Entry { key: text("key")?, value: text("value")? })
        });
        Ok(RateLimitDescriptor {
            entries: entries.collect::<Result<_, Problem>>()?,
            hits_addend: hits(&members, u64::MAX)?,
            is_negative_hits: negative(&members)?,
        })
    });
    Ok(RateLimitRequest {
        domain: members.text("domain", TEXT_MAX)?.unwrap_or_default().to_owned(),
        descriptors: descriptors.collect::<Result<_, Problem>>()?,
        hits_addend: hits(&members, u32::MAX.into())?.map_or(0, |hits| hits as u32),
    })
}

/// An answer: 200, or 429 if it is over the limit.
pub fn answer(response: &RateLimitResponse) -> Answer {
    let over = response.overall_code() == Code::OverLimit;
    let mut body = json!({
        "overallCode": response.overall_code().as_str_name(),
        "statuses": response.statuses.iter().map(status).collect::<Vec<_>>(),
    });
    if !response.response_headers_to_add.is_empty() {
        let headers = response.response_headers_to_add.iter();
        body["responseHeadersToAdd"] =
            headers.map(|header| json!({ "key": header.key, "value": header.value })).collect();
    }
    let mut answer = json_answer(StatusCode::OK, &body);
    if over {
        *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    }
    answer
}

/// As protobuf has it, what is zero is left out.
fn status(status: &DescriptorStatus) -> Value {
    let mut members = Map::new();
    members.insert("code".to_owned(), status.code().as_str_name().into());
    if let Some(limit) = &status.current_limit {
        let (amount, unit) = (limit.requests_per_unit, limit.unit().as_str_name());
        let limit = json!({ "name": limit.name, "requestsPerUnit": amount, "unit": unit });
        members.insert("currentLimit".to_owned(), limit);
    }
    if status.limit_remaining > 0 {
        members.insert("limitRemaining".to_owned(), status.limit_remaining.into());
    }
    if let Some(reset) = &status.duration_until_reset {
        let text = if reset.nanos == 0 {
            format!("{}s", reset.seconds)
        } else {
            format!("{}.{:09}s", reset.seconds, reset.nanos)
        };
        members.insert("durationUntilReset".to_owned(), text.into());
    }
    Value::Object(members)
}

fn list<'a>(members: &Members<'a>, member: &str) -> Result<std::slice::Iter<'a, Value>, Problem> {
    match members.get(member) {
        None => Ok([].iter()),
        Some(Value::Array(values)) => Ok(values.iter()),
        Some(_) => Err(members.bad(member, format!("{member} must be a list of objects"))),
    }
}

fn members_of<'a>(
    value: &'a Value,
    around: &Members<'_>,
    place: &str,
) -> Result<&'a Map<String, Value>, Problem> {
    value.as_object().ok_or_else(|| around.bad(place, format!("{place} must be an object")))
}

/// Hits, which protobuf writes as a number or, as it has 64 bits, as a text.
fn hits(members: &Members<'_>, most: u64) -> Result<Option<u64>, Problem> {
    let member = if members.get("hitsAddend").is_some() { "hitsAddend" } else { "hits_addend" };
    let Some(value) = members.get(member) else { return Ok(None) };
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok()).filter(|hits| *hits <= most);
    let wrong = || members.bad(member, format!("{member} must be a whole number from 0 to {most}"));
    number.map(Some).ok_or_else(wrong)
}

fn negative(members: &Members<'_>) -> Result<bool, Problem> {
    let member = if members.get("isNegativeHits").is_some() { "isNegativeHits" } else { "is_negative_hits" };
    match members.get(member) {
        None => Ok(false),
        Some(Value::Bool(negative)) => Ok(*negative),
        Some(_) => Err(members.bad(member, format!("{member} must be true or false"))),
    }
}
