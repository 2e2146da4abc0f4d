//! What is limited: limits of four kinds, and the pools of them that one call must pass together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use thiserror::Error;

use super::breaker::BreakerConfig;
use super::calendar::Calendar;

/// A leaky-bucket limit: at most `burst + amount × t / per` units in any interval of length `t`.
///
/// The bounds on the fields keep every product of the exact bucket arithmetic (`amount × ONE × per`, in
/// [`bucket`](super::bucket)) inside 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    amount: u64,
    per_nanos: u64,
    burst: u64,
}

/// A sliding window: at most `amount` units in any interval of length `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    amount: u64,
    per_nanos: u64,
}

/// At most `amount` permits at once, none of which outlives `ttl`: then the slots of a caller that vanished, or of a node
/// that did, are free again, because nobody can still be using them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    amount: u64,
    ttl_nanos: u64,
}

/// The numbers of a limit, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A leaky bucket.
    Rate(Rate),
    /// At most so many in any interval of a length.
    Window(Window),
    /// At most so many in each minute, hour, day or month of a time zone.
    Calendar(Calendar),
    /// At most so many at once.
    Concurrency(Concurrency),
}

/// What is left of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Units that this node may spend now.
    pub held: u64,
    /// Units that the whole swarm may spend now, as far as is known here.
    pub remaining: u64,
    /// In how long it is full again if nobody spends.
    pub reset_in: Duration,
}

/// The largest `amount` and `burst`: 10¹² units.
pub const AMOUNT_MAX: u64 = 1_000_000_000_000;
/// The longest `per`: 31 days.
pub const PER_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// Why a limit or a pool was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// The amount is outside 1 to [`AMOUNT_MAX`].
    #[error("amount is {0}, must be from 1 to {AMOUNT_MAX}")]
    Amount(u64),
    /// The burst is outside 1 to [`AMOUNT_MAX`].
    #[error("burst is {0}, must be from 1 to {AMOUNT_MAX}")]
    Burst(u64),
    /// The period is outside 1 ms to [`PER_MAX`].
    #[error("per is {0:?}, must be from 1ms to 31 days")]
    Per(Duration),
    /// The pool's name is empty, too long, or holds a control character.
    #[error("pool name {0:?} must be 1 to {NAME_MAX} bytes without control characters")]
    PoolName(String),
    /// The limit's name is empty, too long, or holds a control character.
    #[error("limit name {0:?} must be 1 to {NAME_MAX} bytes without control characters")]
    LimitName(String),
    /// Two limits of a pool have the same name.
    #[error("limit {0:?} is there twice")]
    Duplicate(String),
    /// A pool without a limit admits everything, which nobody means.
    #[error("a pool needs from 1 to {LIMITS_MAX} limits, this has {0}")]
    Count(usize),
}

/// The longest name of a pool or limit, in bytes. Names travel in gossip.
pub const NAME_MAX: usize = 128;
/// The most limits that one pool can have.
pub const LIMITS_MAX: usize = 16;

impl Rate {
    /// `amount` units per `per`, and up to `burst` at once after a pause.
    ///
    /// # Errors
    /// A number outside its bounds: see [`LimitError`].
    pub fn new(amount: u64, per: Duration, burst: u64) -> Result<Self, LimitError> {
        if !(1..=AMOUNT_MAX).contains(&amount) {
            return Err(LimitError::Amount(amount));
        }
        if !(1..=AMOUNT_MAX).contains(&burst) {
            return Err(LimitError::Burst(burst));
        }
        if per < Duration::from_millis(1) || per > PER_MAX {
            return Err(LimitError::Per(per));
        }
        Ok(Self { amount, per_nanos: per.as_nanos() as u64, burst })
    }

    /// Units that come back every [`per`](Self::per).
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// The period in which `amount` units come back.
    pub fn per(&self) -> Duration {
        Duration::from_nanos(self.per_nanos)
    }

    pub(crate) fn per_nanos(&self) -> u64 {
        self.per_nanos
    }

    /// The most units that can be spent at once: the bucket's depth.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Units that come back per second.
    pub fn per_second(&self) -> f64 {
        self.amount as f64 * 1e9 / self.per_nanos as f64
    }
}

impl Window {
    /// At most `amount` units in any interval of length `per`.
    ///
    /// # Errors
    /// A number outside its bounds: see [`LimitError`].
    pub fn new(amount: u64, per: Duration) -> Result<Self, LimitError> {
        Rate::new(amount, per, 1)?;
        Ok(Self { amount, per_nanos: per.as_nanos() as u64 })
    }

    /// The most units in any interval of length [`per`](Self::per).
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// How long a spent unit stays spent.
    pub fn per(&self) -> Duration {
        Duration::from_nanos(self.per_nanos)
    }
}

/// How long a permit of a concurrency limit lives at most where the configuration does not say.
pub const PERMIT_TTL_MAX: Duration = Duration::from_secs(600);

impl Concurrency {
    /// At most `amount` permits at once, each for at most `ttl`.
    ///
    /// # Errors
    /// A number outside its bounds: see [`LimitError`].
    pub fn new(amount: u64, ttl: Duration) -> Result<Self, LimitError> {
        Rate::new(amount, ttl, 1)?;
        Ok(Self { amount, ttl_nanos: ttl.as_nanos() as u64 })
    }

    /// The most permits at once.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// The longest life of a permit.
    pub fn ttl(&self) -> Duration {
        Duration::from_nanos(self.ttl_nanos)
    }
}

impl Kind {
    /// `rate`, `window`, `calendar` or `concurrency`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rate(_) => "rate",
            Self::Window(_) => "window",
            Self::Calendar(_) => "calendar",
            Self::Concurrency(_) => "concurrency",
        }
    }

    /// The most units that can be spent at once: no request can take more.
    pub fn capacity(&self) -> u64 {
        match self {
            Self::Rate(rate) => rate.burst(),
            Self::Window(window) => window.amount,
            Self::Calendar(calendar) => calendar.amount(),
            Self::Concurrency(concurrency) => concurrency.amount,
        }
    }

    /// Units that come back in the time of [`per`](Self::per); for a concurrency limit those that may be held at once.
    pub fn amount(&self) -> u64 {
        match self {
            Self::Rate(rate) => rate.amount,
            _ => self.capacity(),
        }
    }

    /// The time in which [`amount`](Self::amount) units come back: the nominal length of a calendar period; for a
    /// concurrency limit the longest that a permit lives.
    pub fn per(&self) -> Duration {
        match self {
            Self::Rate(rate) => rate.per(),
            Self::Window(window) => window.per(),
            Self::Calendar(calendar) => calendar.every().nominal(),
            Self::Concurrency(concurrency) => concurrency.ttl(),
        }
    }

    /// Units that come back per second in the long run. Permits of a concurrency limit come back when their holders are
    /// done: nobody knows when, and one second stands for it.
    pub fn per_second(&self) -> f64 {
        match self {
            Self::Concurrency(concurrency) => concurrency.amount as f64,
            _ => self.amount() as f64 / self.per().as_secs_f64(),
        }
    }
}

impl From<Rate> for Kind {
    fn from(rate: Rate) -> Self {
        Self::Rate(rate)
    }
}

/// Names a limit across the swarm: a digest of its pool, its name and its numbers. Two nodes whose
/// configurations differ have different fingerprints, so their rows are shown as a mismatch and never merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

/// One rule of a pool: what it is called, what it counts, and its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Shown to people and used in `cost`, for example `rpm`.
    pub name: String,
    /// What part of a call's cost it takes: `requests`, `tokens`, or any other name.
    pub unit: String,
    /// Its numbers.
    pub kind: Kind,
}

impl Fingerprint {
    /// Names a pool across the swarm, whatever its limits.
    pub fn of_pool(name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update("pool");
        hash.update(name);
        Self::first_of(hash)
    }

    fn first_of(hash: Sha256) -> Self {
        Self(hash.finalize()[..8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

impl Limit {
    /// The limit's identity in the swarm, as a limit of `pool`.
    pub fn fingerprint(&self, pool: &str) -> Fingerprint {
        let mut hash = Sha256::new();
        let (texts, numbers) = match &self.kind {
            Kind::Rate(rate) => ([String::new(), String::new()], [rate.amount, rate.per_nanos, rate.burst]),
            Kind::Window(window) => ([String::new(), String::new()], [window.amount, window.per_nanos, 0]),
            Kind::Calendar(calendar) => {
                ([calendar.every().to_string(), calendar.zone().name().to_owned()], [calendar.amount(), 0, 0])
            }
            Kind::Concurrency(concurrency) => {
                ([String::new(), String::new()], [concurrency.amount, concurrency.ttl_nanos, 0])
            }
        };
        let named = [pool, &self.name, &self.unit, self.kind.name()];
        for text in named.into_iter().chain(texts.iter().map(String::as_str)) {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        for number in numbers {
            hash.update(number.to_be_bytes());
        }
        Fingerprint::first_of(hash)
    }
}

/// The limits that one call must pass together, all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    name: String,
    limits: Vec<Limit>,
    /// The most requests that may wait in this node's queue for the pool.
    pub max_queue: usize,
    /// After so long a waiting request moves up one class; nothing becomes critical by it.
    pub ageing: Duration,
    /// When calls are refused because too many failed, and for how long; never, if there is none.
    pub breaker: Option<BreakerConfig>,
    /// The limits hold once for each key, and so many keys are written down at most (see
    /// [`keyed`](super::keyed)); none if they hold for all callers together. Only rates can be keyed.
    pub keyed: Option<usize>,
}

/// After how long a waiting request moves up where the configuration does not say.
pub const AGEING_DEFAULT: Duration = Duration::from_secs(10);

/// How many requests may wait for a pool where the configuration does not say.
pub const QUEUE_DEFAULT: usize = 1_000;

impl Pool {
    /// A pool of these limits, with room for [`QUEUE_DEFAULT`] waiting requests.
    ///
    /// # Errors
    /// Bad names, no limits or too many, or the same name twice.
    pub fn new(name: impl Into<String>, limits: Vec<Limit>) -> Result<Self, LimitError> {
        let name = name.into();
        if !is_name(&name) {
            return Err(LimitError::PoolName(name));
        }
        if limits.is_empty() || limits.len() > LIMITS_MAX {
            return Err(LimitError::Count(limits.len()));
        }
        for (index, limit) in limits.iter().enumerate() {
            if !is_name(&limit.name) || !is_name(&limit.unit) {
                return Err(LimitError::LimitName(limit.name.clone()));
            }
            if limits[..index].iter().any(|other| other.name == limit.name) {
                return Err(LimitError::Duplicate(limit.name.clone()));
            }
        }
        Ok(Self {
            name,
            limits,
            max_queue: QUEUE_DEFAULT,
            ageing: AGEING_DEFAULT,
            breaker: None,
            keyed: None,
        })
    }

    /// What callers ask for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its limits, in the order of the configuration.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// What a call of this cost takes of each limit, in their order.
    pub fn units(&self, cost: &Cost) -> Units {
        self.limits.iter().map(|limit| cost.of(limit)).collect()
    }

    /// The numbers of its limits, if all are rates.
    pub fn rates(&self) -> Option<Vec<Rate>> {
        let rate = |limit: &Limit| match limit.kind {
            Kind::Rate(rate) => Some(rate),
            _ => None,
        };
        self.limits.iter().map(rate).collect()
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Units of each limit of a pool, in their order. Names are looked up once, where a request comes in.
pub type Units = SmallVec<[u64; LIMITS_MAX]>;

/// What a call takes: units by unit name (`requests`, `tokens`) and, where a limit is named itself, by limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Units by what they count. Absent means none, except `requests`, which is one.
    pub units: BTreeMap<String, u64>,
    /// Units by the limit's own name; beats `units`.
    pub limits: BTreeMap<String, u64>,
}

impl Default for Cost {
    /// One request and nothing else.
    fn default() -> Self {
        Self::requests(1)
    }
}

impl Cost {
    /// So many requests and nothing else.
    pub fn requests(requests: u64) -> Self {
        Self { units: BTreeMap::from([("requests".to_owned(), requests)]), limits: BTreeMap::new() }
    }

    /// What the call takes of `limit`.
    pub fn of(&self, limit: &Limit) -> u64 {
        self.said(limit).unwrap_or(0)
    }

    /// What is said of `limit`, if anything.
    pub fn said(&self, limit: &Limit) -> Option<u64> {
        let named = self.limits.get(&limit.name);
        named.or_else(|| self.units.get(&limit.unit)).copied()
    }

    /// The first name in `limits` that `pool` does not have: a caller's mistake.
    pub fn unknown_limit<'a>(&'a self, pool: &Pool) -> Option<&'a str> {
        let known = |name: &str| pool.limits.iter().any(|limit| limit.name == name);
        self.limits.keys().map(String::as_str).find(|name| !known(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, amount: u64) -> Limit {
        let kind = Kind::Rate(Rate::new(amount, Duration::from_secs(60), 50).unwrap());
        Limit { name: name.to_owned(), unit: "requests".to_owned(), kind }
    }

    #[test]
    fn fingerprints_differ_with_every_field_and_with_the_pool() {
        let one = limit("rpm", 500);
        assert_eq!(one.fingerprint("a"), limit("rpm", 500).fingerprint("a"));
        assert_ne!(one.fingerprint("a"), one.fingerprint("b"));
        assert_ne!(one.fingerprint("a"), limit("rpm", 501).fingerprint("a"));
        assert_ne!(limit("ab", 1).fingerprint("c"), limit("b", 1).fingerprint("ca"));
    }

    #[test]
    fn a_cost_named_by_limit_beats_one_named_by_unit() {
        let mut cost = Cost::requests(2);
        assert_eq!(cost.of(&limit("rpm", 1)), 2);
        cost.limits.insert("rpm".to_owned(), 7);
        assert_eq!(cost.of(&limit("rpm", 1)), 7);
        let pool = Pool::new("p", vec![limit("rps", 1)]).unwrap();
        assert_eq!(cost.unknown_limit(&pool), Some("rpm"));
    }

    #[test]
    fn numbers_outside_their_bounds_are_named() {
        assert_eq!(Rate::new(0, Duration::from_secs(1), 1), Err(LimitError::Amount(0)));
        assert_eq!(Rate::new(1, Duration::from_secs(1), 0), Err(LimitError::Burst(0)));
        assert_eq!(Rate::new(1, Duration::ZERO, 1), Err(LimitError::Per(Duration::ZERO)));
        assert_eq!(Pool::new("", vec![limit("a", 1)]), Err(LimitError::PoolName(String::new())));
        assert_eq!(Pool::new("p", vec![limit("a", 1); 2]), Err(LimitError::Duplicate("a".to_owned())));
    }
}
