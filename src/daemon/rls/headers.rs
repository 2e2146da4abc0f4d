//! What is left, as headers for the one who asked Envoy.

use crate::daemon::proto::envoy::config::core::v3::HeaderValue;
use crate::daemon::proto::envoy::service::ratelimit::v3::rate_limit_response::{
    DescriptorStatus, RateLimit, rate_limit::Unit,
};

/// The headers of draft-polli-ratelimit-headers-03, named and written as Envoy's own (`DRAFT_VERSION_03`). The descriptor of
/// which the least is left decides; all limits are listed.
pub fn draft_03(statuses: &[DescriptorStatus]) -> Vec<HeaderValue> {
    let limited = statuses.iter().filter_map(|status| Some((status, status.current_limit.as_ref()?)));
    let Some((least, limit)) = limited.clone().min_by_key(|(status, _)| status.limit_remaining) else {
        return Vec::new();
    };
    let policies = limited.filter_map(|(_, limit)| Some(policy(limit, window(limit.unit())?)));
    let limits: Vec<String> = [limit.requests_per_unit.to_string()].into_iter().chain(policies).collect();
    let reset = least.duration_until_reset.map_or(0, |reset| reset.seconds + i64::from(reset.nanos > 0));
    let header = |key: &str, value: String| HeaderValue { key: key.to_owned(), value };
    vec![
        header("x-ratelimit-limit", limits.join(", ")),
        header("x-ratelimit-remaining", least.limit_remaining.to_string()),
        header("x-ratelimit-reset", reset.to_string()),
    ]
}

fn policy(limit: &RateLimit, seconds: u64) -> String {
    let name = limit.name.replace(['"', '\\'], "");
    format!("{};w={seconds};name=\"{name}\"", limit.requests_per_unit)
}

/// As long as Envoy says that they are.
fn window(unit: Unit) -> Option<u64> {
    const DAY: u64 = 24 * 60 * 60;
    match unit {
        Unit::Unknown => None,
        Unit::Second => Some(1),
        Unit::Minute => Some(60),
        Unit::Hour => Some(60 * 60),
        Unit::Day => Some(DAY),
        Unit::Week => Some(7 * DAY),
        Unit::Month => Some(30 * DAY),
        Unit::Year => Some(365 * DAY),
    }
}
