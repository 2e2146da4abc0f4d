//! The configuration: read from a file and flags, checked as a whole, and only then a [`Config`].
//!
//! Every mistake is reported, each with its place, its key, the reason and what to write instead.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libp2p::Multiaddr;

use crate::client::default_socket;
use crate::protocol::limit::{NAME_MAX, Pool};
pub use crate::protocol::node::Policy;

mod address;
mod file;
mod flags;
mod pool;
mod problem;
mod source;
mod units;

pub use flags::Overrides;
pub use problem::{ConfigError, ConfigErrors};
pub use units::{parse_duration, show_duration};

use file::ConfigFile;
use problem::{Place, Set};

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
    /// Whether peers are looked for on the local network.
    pub mdns: bool,
    /// What callers can ask for, in the order of the configuration; one [default pool](DEFAULT_POOL) if none
    /// is configured.
    pub pools: Vec<PoolConfig>,
}

/// A pool and how this node queues for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The limits, with the headroom taken off.
    pub pool: Pool,
    /// Whether a caller that names no wait waits (for `queue_timeout`) or is refused at once.
    pub overflow_wait: bool,
    /// How long such a caller waits.
    pub queue_timeout: Duration,
}

/// What becomes of a lost peer's share unless said.
pub const POLICY_DEFAULT: Policy = Policy::Available;
/// Where a node listens for peers unless said.
pub const GOSSIP_DEFAULT: &str = "/ip4/0.0.0.0/tcp/4160";
/// How long a lost peer's share stays reserved unless said.
pub const FORGET_AFTER_DEFAULT: Duration = Duration::from_secs(60);
/// How long a caller that names no wait waits unless said.
pub const QUEUE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The pool of a node that is given none, in the form of a `--pool` flag, so that `aquifer up` alone is
/// something to try: one request per second, up to 60 at once.
pub const DEFAULT_POOL: &str = "default:rpm=60,burst=60";

const FILE_MAX: u64 = 1 << 20;
const FORGET_AFTER_MIN: Duration = Duration::from_millis(100);
const FORGET_AFTER_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);

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
    let ConfigFile { node, swarm, pools } = file;
    let mut keep = |error: ConfigError| errors.push(error);
    let name = node.name.map_or_else(|| Ok(host_name()), node_name);
    let policy = swarm.policy.as_ref().map_or(Ok(POLICY_DEFAULT), policy);
    let forget_after = swarm.forget_after.as_ref().map_or(Ok(FORGET_AFTER_DEFAULT), forget_after);
    let mdns = swarm.discover.as_ref().map_or(Ok(true), discover);
    let gossip = swarm.gossip.as_ref().map_or_else(default_gossip, address::listening);
    let seeds =
        swarm.seeds.iter().filter_map(|seed| address::dialled(seed).map_err(&mut keep).ok()).collect();
    Config {
        name: name.map_err(&mut keep).unwrap_or_default(),
        data_dir: node.data_dir.unwrap_or_else(default_data_dir),
        socket: node.socket.unwrap_or_else(default_socket),
        gossip: gossip.map_err(&mut keep).unwrap_or_else(|()| Multiaddr::empty()),
        seeds,
        key_file: swarm.key_file,
        policy: policy.map_err(&mut keep).unwrap_or(POLICY_DEFAULT),
        forget_after: forget_after.map_err(&mut keep).unwrap_or_default(),
        mdns: mdns.map_err(&mut keep).unwrap_or_default(),
        pools: pool::validate(pools, errors),
    }
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
        "majority" => Err(policy.place.error(
            "\"majority\" is not supported yet by this version; write \"strict\" or \"available\"".to_owned(),
        )),
        other => Err(policy.place.choice(other, &["strict", "available"])),
    }
}

fn forget_after(time: &Set<Duration>) -> Result<Duration, ConfigError> {
    if (FORGET_AFTER_MIN..=FORGET_AFTER_MAX).contains(&time.value) {
        return Ok(time.value);
    }
    Err(time.place.error(format!(
        "is {}, must be from {} to {}",
        show_duration(time.value),
        show_duration(FORGET_AFTER_MIN),
        show_duration(FORGET_AFTER_MAX)
    )))
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
