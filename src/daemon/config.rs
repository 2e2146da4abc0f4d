//! The configuration: read from a file and flags, checked as a whole, and only then a [`Config`].
//!
//! Every mistake is reported, each with its place, its key, the reason and what to write instead.

use std::env;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libp2p::Multiaddr;

use crate::client::default_socket;
use crate::protocol::limit::{Limit, NAME_MAX, Pool};
pub use crate::protocol::node::{Policy, Trust, Vouching};

mod access;
mod address;
mod agent;
mod changes;
mod file;
mod flags;
mod limit;
mod listen;
mod pool;
mod problem;
mod rls;
mod shorthand;
mod source;
mod units;
mod vouching;

pub use access::AccessConfig;
pub use changes::{Changes, ConfigSource};
pub use flags::Overrides;
pub use listen::{Listen, ListenConfig};
pub use problem::{ConfigError, ConfigErrors};
pub use rls::{RlsEntry, RlsRule, RlsValue};
pub use units::{parse_duration, show_duration};

use file::ConfigFile;
use problem::{Place, Set, within_or};

/// What a node runs with. Everything in it is valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// What people call the node; the host's name unless said.
    pub name: String,
    /// Where its identity and state are kept.
    pub data_dir: PathBuf,
    /// Where it answers callers.
    pub socket: PathBuf,
    /// Where it listens for peers.
    pub gossip: Multiaddr,
    /// Where it looks for peers at the start.
    pub seeds: Vec<Multiaddr>,
    /// The swarm's key, if not the one in the data directory.
    pub key_file: Option<PathBuf>,
    /// What happens to the share of a peer that is not heard of.
    pub policy: Policy,
    /// How long a lost peer's share stays reserved; [`FORGET_AFTER_DEFAULT`] unless said.
    pub forget_after: Duration,
    /// Who founds, what is vouched for by itself, and how far members are believed.
    pub vouching: Vouching,
    /// Whether peers are looked for on the local network.
    pub mdns: bool,
    /// Which users of the machine may do what.
    pub access: AccessConfig,
    /// Where it answers callers besides, in other protocols.
    pub listen: ListenConfig,
    /// What callers can ask for, in the order of the configuration; one [default pool](DEFAULT_POOL) if none
    /// is configured.
    pub pools: Vec<PoolConfig>,
    /// What holds for the agents that ask, by their name: the first that matches counts. At most 256.
    pub agents: Vec<AgentConfig>,
    /// What Envoy's rate limit service counts: the first rule that a descriptor matches. At most 256.
    pub rls: Vec<RlsRule>,
}

/// A pool and how this node queues for it.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// The limits, with the headroom taken off.
    pub pool: Pool,
    /// Whether a caller that names no wait waits (for `queue_timeout`) or is refused at once.
    pub overflow_wait: bool,
    /// How long such a caller waits.
    pub queue_timeout: Duration,
    /// After how long a waiting request moves up a class: 100 ms to a day; [`AGEING_DEFAULT`] unless said. A
    /// day, as long as `queue_timeout` can be, is in effect never.
    pub ageing: Duration,
    /// If every key has the limits for itself, how many keys this node keeps at a time: 1 to 10,000,000;
    /// [`KEYS_DEFAULT`] unless said. All limits are rates then.
    pub keyed: Option<usize>,
    /// When calls stop because the provider fails; never unless said.
    pub breaker: Option<BreakerSettings>,
}

/// When a pool's circuit breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// It opens when at least this part of the calls in a window failed: 0.000001 to 1.0.
    pub failure_rate: f64,
    /// How far back calls count: 1 s to 1 h.
    pub window: Duration,
    /// It stays closed with fewer calls in the window: 1 to 1,000,000.
    pub min_count: u32,
    /// How long it refuses calls before it tries one: 100 ms to 1 h.
    pub open_for: Duration,
}

impl Default for BreakerSettings {
    /// Half of at least 20 calls in 30 seconds; open for 15 seconds.
    fn default() -> Self {
        let (window, open_for) = (Duration::from_secs(30), Duration::from_secs(15));
        Self { failure_rate: 0.5, window, min_count: 20, open_for }
    }
}

/// What holds for the agents whose names match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// The names, as a glob: `*` is any text, `?` any one character. 1 to [`NAME_MAX`] bytes.
    pub matches: String,
    /// What an agent gets when several want more, beside one of weight 1,000: 1 to 1,000,000; 1,000 unless
    /// said.
    pub weight_thousandths: u32,
    /// The part of a limit that one agent may use while others want it: 1 to 1,000,000. None is no bound.
    pub max_share_millionths: Option<u32>,
    /// Rates that each agent has for itself, beside those of the pools.
    pub limits: Vec<Limit>,
}

/// What becomes of a lost peer's share unless said.
pub const POLICY_DEFAULT: Policy = Policy::Available;
/// Where a node listens for peers unless said.
pub const GOSSIP_DEFAULT: &str = "/ip4/0.0.0.0/tcp/4160";
/// How long a lost peer's share stays reserved unless said.
pub const FORGET_AFTER_DEFAULT: Duration = Duration::from_secs(60);
/// How long a caller that names no wait waits unless said.
pub const QUEUE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// After how long a waiting request moves up a class unless said.
pub const AGEING_DEFAULT: Duration = Duration::from_secs(10);
/// How many keys a keyed pool has at a time at most unless said.
pub const KEYS_DEFAULT: usize = 1_000_000;
/// The pool of a node that is given none, in the form of a `--pool` flag, so that `aquifer up` alone is
/// something to try: one request per second, up to 60 at once.
pub const DEFAULT_POOL: &str = "default:rpm=60,burst=60";

/// The shortest `forget_after` under policy `majority`: a node must have time to be heard before it stops.
pub const MAJORITY_FORGET_AFTER_MIN: Duration = Duration::from_secs(10);

const FILE_MAX: u64 = 1 << 20;
const FORGET_AFTER: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(31 * 24 * 60 * 60);

impl Config {
    /// Reads `file`, if there is one, and what the caller says over it.
    ///
    /// # Errors
    /// Everything that is wrong with either.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigErrors> {
        let Some(path) = file else {
            return Self::parse("", "", overrides);
        };
        let name = path.display().to_string();
        match read(path) {
            Ok(text) => Self::parse(&text, &name, overrides),
            Err(reason) => {
                let place = Place { source: name, key: String::new() };
                Err(ConfigErrors(vec![place.error(format!("cannot be read: {reason}"))]))
            }
        }
    }

    /// Reads the `text` of a file that errors call `name`, and what the caller says over it.
    ///
    /// # Errors
    /// Everything that is wrong with either.
    pub fn parse(text: &str, name: &str, overrides: &Overrides) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let mut file = ConfigFile::parse(text, name, &mut errors);
        flags::apply(overrides, &mut file, &mut errors);
        let config = validate(file, &mut errors);
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }
}

/// Puts a default in the place of whatever is wrong, so that the rest is checked too.
fn validate(file: ConfigFile, errors: &mut Vec<ConfigError>) -> Config {
    let ConfigFile { node, swarm, access, listen, pools, agents, rls } = file;
    let forget_after = within_or(swarm.forget_after.as_ref(), &FORGET_AFTER, FORGET_AFTER_DEFAULT, errors);
    let policy = swarm.policy.as_ref().map_or(Ok(POLICY_DEFAULT), policy);
    if let (Ok(Policy::Majority), Some(after)) = (&policy, &swarm.forget_after)
        && after.value < MAJORITY_FORGET_AFTER_MIN
    {
        let reason =
            "must be at least 10s under policy \"majority\": a node that is not heard stops that long before";
        errors.push(after.place.error(reason.to_owned()));
    }
    let vouching = vouching::validate(&swarm, errors);
    let mut keep = |error: ConfigError| errors.push(error);
    let name = node.name.map_or_else(|| Ok(host_name()), node_name);
    let mdns = swarm.discover.as_ref().map_or(Ok(true), discover);
    let gossip = swarm.gossip.as_ref().map_or_else(default_gossip, address::listening);
    let seeds =
        swarm.seeds.iter().filter_map(|seed| address::dialled(seed).map_err(&mut keep).ok()).collect();
    let mut config = Config {
        name: name.map_err(&mut keep).unwrap_or_default(),
        data_dir: node.data_dir.unwrap_or_else(default_data_dir),
        socket: node.socket.unwrap_or_else(default_socket),
        gossip: gossip.map_err(&mut keep).unwrap_or_else(|()| Multiaddr::empty()),
        seeds,
        key_file: swarm.key_file,
        policy: policy.map_err(&mut keep).unwrap_or(POLICY_DEFAULT),
        forget_after,
        mdns: mdns.map_err(&mut keep).unwrap_or_default(),
        access: access::validate(access, errors),
        listen: listen::validate(&listen, errors),
        vouching,
        pools: pool::validate(pools, errors),
        agents: agent::validate(agents, errors),
        rls: Vec::new(),
    };
    config.rls = rls::validate(rls, &config.pools, errors);
    config
}

fn node_name(name: Set<String>) -> Result<String, ConfigError> {
    if (1..=NAME_MAX).contains(&name.value.len()) && !name.value.chars().any(char::is_control) {
        return Ok(name.value);
    }
    Err(name.place.error(format!("must be 1 to {NAME_MAX} bytes without control characters")))
}

fn policy(policy: &Set<String>) -> Result<Policy, ConfigError> {
    match policy.value.as_str() {
        "strict" => Ok(Policy::Strict),
        "available" => Ok(Policy::Available),
        "majority" => Ok(Policy::Majority),
        other => Err(policy.place.choice(other, &["strict", "majority", "available"])),
    }
}

fn discover(discover: &Set<String>) -> Result<bool, ConfigError> {
    match discover.value.as_str() {
        "mdns" => Ok(true),
        "none" => Ok(false),
        other => Err(discover.place.choice(other, &["mdns", "none"])),
    }
}

fn default_gossip() -> Result<Multiaddr, ConfigError> {
    let place = Place { source: "default".to_owned(), key: "swarm.gossip".to_owned() };
    address::listening(&Set { value: GOSSIP_DEFAULT.to_owned(), place })
}

/// What systemd prepared, else what XDG says.
fn default_data_dir() -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd separates several directories by colons; the first is the unit's own.
    let systemd = env::var("STATE_DIRECTORY").ok();
    let systemd = systemd.as_deref().and_then(|list| list.split(':').next()).filter(|path| !path.is_empty());
    systemd
        .map(PathBuf::from)
        .or_else(|| variable("XDG_STATE_HOME").map(|home| home.join("aquifer")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/aquifer")))
        .unwrap_or_else(|| "/var/lib/aquifer".into())
}

fn host_name() -> String {
    let read = |path| fs::read_to_string(path).ok();
    let known = read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname"));
    let known = known.or_else(|| env::var("HOSTNAME").ok()).unwrap_or_default();
    let name: String =
        known.trim().chars().filter(|letter| !letter.is_control()).take(NAME_MAX / 4).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

fn read(path: &Path) -> Result<String, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_MAX {
        return Err(format!("it has {length} bytes, more than the {FILE_MAX} of any configuration"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}
