//! The texts that configurations are made of: times, whole numbers, and words that may be misspelt.

use std::time::Duration;

use strsim::damerau_levenshtein;

/// Units of time, longest first.
const UNITS: [(&str, Duration); 5] = [
    ("d", Duration::from_secs(24 * 60 * 60)),
    ("h", Duration::from_secs(60 * 60)),
    ("m", Duration::from_secs(60)),
    ("s", Duration::from_secs(1)),
    ("ms", Duration::from_millis(1)),
];

/// Reads a time such as `30s`, `500ms`, `1.5s` or `1h30m`.
///
/// # Errors
/// What to write instead, as the end of a sentence.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad =
        || format!("is {text:?}, must be a time with its unit, such as \"30s\", \"500ms\", \"2m\" or \"1h\"");
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let part = number.parse().ok().map(|number: f64| number * unit.as_secs_f64());
        let part = part.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(bad)?;
        sum = sum.checked_add(part).ok_or_else(bad)?;
        rest = after;
    }
    // Fractions are binary inside: 0.1 s must be 100 ms, not a nanosecond more.
    Ok(Duration::from_micros(u64::try_from((sum.as_nanos() + 500) / 1_000).map_err(|_| bad())?))
}

/// A time as people write it: `1m`, `1h30m`, `500ms`, `0s`.
pub fn show_duration(time: Duration) -> String {
    let mut rest = time.as_millis();
    let mut parts = Vec::new();
    for (name, unit) in UNITS {
        let count = rest / unit.as_millis();
        rest %= unit.as_millis();
        if count > 0 {
            parts.push(format!("{count}{name}"));
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// Reads a whole number such as `80000` or `80_000`.
pub(super) fn parse_whole(text: &str) -> Result<u64, String> {
    let digits: String = text.chars().filter(|letter| *letter != '_').collect();
    digits.parse().map_err(|_| format!("is {text:?}, must be a whole number, such as 80_000"))
}

/// The one of `choices` that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, choices: &[&'a str]) -> Option<&'a str> {
    let distance = |choice: &str| damerau_levenshtein(&word.to_lowercase(), choice);
    let near = choices.iter().copied().min_by_key(|choice| distance(choice))?;
    (distance(near) <= 1.max(near.len() / 3)).then_some(near)
}

/// `"a", "b" or "c"`.
pub(super) fn list(choices: &[&str]) -> String {
    let quoted: Vec<_> = choices.iter().map(|choice| format!("{choice:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        for (text, millis) in
            [("500ms", 500), ("60s", 60_000), ("0.1s", 100), ("2m", 120_000), ("1h30m", 5_400_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "60", "s", "1x", "1.2.3s", "-1s", "1e9999s", "99999999999999999999d", "1 s", "ms5"] {
            assert!(parse_duration(text).unwrap_err().contains("must be a time"), "{text}");
        }
        for text in ["0s", "500ms", "1m", "1h30m", "1d", "1s250ms"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn the_nearest_word_is_offered_only_if_it_is_near() {
        assert_eq!(nearest("polcy", &["gossip", "policy"]), Some("policy"));
        assert_eq!(nearest("RPM", &["rpm", "tpm"]), Some("rpm"));
        assert_eq!(nearest("colour", &["gossip", "policy"]), None);
    }

    #[test]
    fn whole_numbers_may_have_separators() {
        assert_eq!(parse_whole("80_000"), Ok(80_000));
        assert!(parse_whole("1.5").is_err() && parse_whole("").is_err() && parse_whole("-1").is_err());
    }
}
