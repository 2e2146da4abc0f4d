//! `aquifer up`.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use tracing_subscriber::EnvFilter;

use super::exit::{BAD_CONFIG, BUG, USAGE, fail};
use crate::daemon;
use crate::daemon::config::{Config, ConfigSource, Overrides};
use crate::daemon::token::{TOKEN_MAX, Token};

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The configuration file; flags beat the environment, which beats the file
    #[arg(long, value_name = "FILE", env = "AQUIFER_CONFIG", value_parser = any_path())]
    config: Option<PathBuf>,
    #[arg(long, value_name = "DIR", env = "AQUIFER_DATA_DIR", help = DATA_DIR, value_parser = any_path())]
    data_dir: Option<PathBuf>,
    /// What people call the node [default: the host's name]
    #[arg(long, env = "AQUIFER_NAME")]
    name: Option<String>,
    /// Where to listen for peers [default: /ip4/0.0.0.0/tcp/4160]
    #[arg(long, value_name = "ADDR", env = "AQUIFER_GOSSIP")]
    gossip: Option<String>,
    /// A peer to begin with; may be repeated
    #[arg(long = "seed", value_name = "ADDR")]
    seeds: Vec<String>,
    /// The swarm to join: what `aquifer token` prints, @FILE to read it from a file, - from standard input
    #[arg(long, value_name = "TOKEN", env = "AQUIFER_JOIN", hide_env_values = true)]
    join: Option<String>,
    /// A pool and its limits; may be repeated
    #[arg(long = "pool", value_name = "NAME:LIMIT=N,…")]
    pools: Vec<String>,
    /// What becomes of the share of a peer that is lost: strict keeps it reserved, available takes it over
    #[arg(long, value_name = "POLICY", env = "AQUIFER_POLICY")]
    policy: Option<String>,
    /// Do not look for peers on the local network
    #[arg(long)]
    no_mdns: bool,
}

const DATA_DIR: &str = "Where the node's identity and state are kept [default: $STATE_DIRECTORY, else \
                        $XDG_STATE_HOME/aquifer, else ~/.local/state/aquifer]";

const HELP: &str = "\
Pools:
  --pool api:rpm=500                      500 requests a minute, up to 500 at once
  --pool api:rpm=500,burst=50             up to 50 at once; burst belongs to the limit before it
  --pool api:rpm=50,tpm=80_000            both limits must have room
  --pool api:rpm=50,max_concurrent=8      no more than eight at once besides
  --pool api:calls=5000/10s               a limit of your own on requests, with its period
  Limits: rps rpm rph on requests, tps tpm tph on tokens, itpm otpm on input and output tokens.
  Also headroom=0.1, overflow=wait or refuse, queue_timeout=30s, max_queue=1000.
  With no pool at all there is one to try: default:rpm=60,burst=60.

Examples:
  aquifer up
      founds a swarm, and prints how to use it and how to join it
  aquifer up --join @/run/secrets/join
      joins one; other users of the machine can see a token that is on the command line
  aquifer up --config aquifer.toml
      `aquifer check aquifer.toml` says what is wrong with the file

AQUIFER_LOG sets what is logged: error, warn, info, debug, or module=level pairs.";

/// An empty one, too, where clap's own parser takes none.
fn any_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

pub fn run(args: Args, socket: Option<PathBuf>) -> ExitCode {
    // As elsewhere, an empty variable is as good as none.
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let path = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
    let overrides = Overrides {
        name: text(args.name),
        data_dir: path(args.data_dir),
        socket,
        gossip: text(args.gossip),
        seeds: args.seeds,
        pools: args.pools,
        policy: text(args.policy),
        no_mdns: args.no_mdns,
    };
    let source = ConfigSource { file: path(args.config), overrides };
    let config = match source.load() {
        Ok(config) => config,
        Err(errors) => return fail(&errors.to_string(), BAD_CONFIG),
    };
    match text(args.join).map(|join| token(&join)).transpose() {
        Ok(join) => {
            start_log();
            run_daemon(config, source, join)
        }
        Err(reason) => fail(&reason, USAGE),
    }
}

/// Runs the node until it is told to stop.
fn run_daemon(config: Config, source: ConfigSource, join: Option<Token>) -> ExitCode {
    match daemon::run(config, source, join) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), if error.is_bug() { BUG } else { BAD_CONFIG }),
    }
}

fn token(join: &str) -> Result<Token, String> {
    let text = match join.strip_prefix('@') {
        None if join == "-" => read(io::stdin()).map_err(|error| format!("--join -: {error}"))?,
        None => join.to_owned(),
        Some(path) => {
            let file = File::open(path).and_then(read);
            file.map_err(|error| format!("--join @{path}: cannot be read: {error}"))?
        }
    };
    text.parse().map_err(|error| format!("--join: {error}"))
}

/// The first words of `source`: all of any token, and enough of anything longer to see that it is none.
fn read(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(2 * TOKEN_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

fn start_log() {
    let filter =
        EnvFilter::try_from_env("AQUIFER_LOG").unwrap_or_else(|_| EnvFilter::new("warn,aquifer=info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let log = log.with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    // Only a second log would fail, and there is one.
    let _ = log.try_init();
}
