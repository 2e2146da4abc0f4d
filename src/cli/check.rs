//! `aquifer check`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::exit::{BAD_CONFIG, fail};
use super::output::{plain, print};
use crate::daemon::config::{Config, Overrides, PoolConfig, show_duration};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    file: PathBuf,
}

pub fn run(args: &Args) -> ExitCode {
    match Config::load(Some(&args.file), &Overrides::default()) {
        Ok(config) => print(&listing(args, &config)),
        Err(errors) => fail(&errors.to_string(), BAD_CONFIG),
    }
}

fn listing(args: &Args, config: &Config) -> String {
    let count = config.pools.len();
    let s = if count == 1 { "" } else { "s" };
    let head = format!("{}: ok, {count} pool{s}\n", args.file.display());
    [head].into_iter().chain(config.pools.iter().map(pool)).collect()
}

fn pool(config: &PoolConfig) -> String {
    let limits = config.pool.limits().iter().map(|limit| {
        let (amount, per) = (limit.kind.amount(), show_duration(limit.kind.per()));
        format!("{} {amount} {} per {per}, burst {}", limit.name, limit.unit, limit.kind.capacity())
    });
    let limits = limits.collect::<Vec<_>>();
    plain(&format!("  {}: {}", config.pool.name(), limits.join("; "))) + "\n"
}
