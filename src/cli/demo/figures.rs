//! Numbers as both acts show them.

use std::time::Duration;

/// The smallest of `sorted` that at least `percent` of a hundred of them do not exceed.
pub fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// A number with so many decimal digits.
pub fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// A wait in milliseconds, for tables.
pub fn milliseconds(wait: Option<Duration>) -> String {
    wait.map_or_else(|| "-".to_owned(), |wait| format!("{:.0}", wait.as_secs_f64() * 1e3))
}

/// A wait in milliseconds, for JSON.
pub fn json_milliseconds(wait: Option<Duration>) -> Option<f64> {
    wait.map(|wait| round(wait.as_secs_f64() * 1e3, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<_> = (1..=100).map(|wait| wait * MS).collect();
        assert_eq!(percentile(&hundred, 50), Some(50 * MS));
        assert_eq!(percentile(&hundred, 99), Some(99 * MS));
        assert_eq!(percentile(&hundred[..1], 50), Some(MS));
        assert_eq!(percentile(&hundred[..3], 50), Some(2 * MS));
        assert_eq!(percentile(&[], 99), None);
    }
}
