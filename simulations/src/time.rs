//! True time, which no node knows: nanoseconds since the run began.

/// Nanoseconds of true time.
pub type Nanos = u64;

/// A millisecond.
pub const MS: Nanos = 1_000_000;
/// A second.
pub const SEC: Nanos = 1_000 * MS;

/// True time as seconds, for people.
pub fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SEC as f64
}

/// Seconds as true time; negative ones are zero.
pub fn nanos(seconds: f64) -> Nanos {
    (seconds.max(0.0) * SEC as f64).round() as Nanos
}
