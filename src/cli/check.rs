//! `aquifer check`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use super::exit::{BAD_CONFIG, fail};
use super::output::{plain, print};
use crate::daemon::config::{
    AccessConfig, AgentConfig, Config, ListenConfig, Overrides, PoolConfig, RlsEntry, RlsRule, RlsValue,
    show_duration,
};
use crate::protocol::limit::{Kind, Limit};

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
    let sections = config.pools.iter().map(pool).chain(config.agents.iter().map(agent));
    let sections = sections.chain(config.rls.iter().map(|rule| rls(rule, &config.pools)));
    let sections = access(&config.access).into_iter().chain(listen(&config.listen)).chain(sections);
    let lines = sections.flat_map(|(head, body)| {
        let body = body.into_iter().map(|line| format!("    {}\n", plain(&line)));
        [format!("  {}\n", plain(&head))].into_iter().chain(body).collect::<Vec<_>>()
    });
    [head].into_iter().chain(lines).collect()
}

/// Which users may do what, by number as it was looked up; nothing if only the owner and root may anything.
fn access(config: &AccessConfig) -> Option<(String, Vec<String>)> {
    if *config == AccessConfig::default() {
        return None;
    }
    let numbers = |ids: &BTreeSet<u32>| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let mut lines = vec![match config.group {
        Some(group) => format!("may connect: the owner, root, group {group}"),
        None => "may connect: the owner, root".to_owned(),
    }];
    let named = [("user", &config.operators), ("group", &config.operator_groups)];
    let named = named.iter().filter(|(_, ids)| !ids.is_empty());
    let named: String = named.map(|(what, ids)| format!(", {what} {}", numbers(ids))).collect();
    lines.push(format!("operators: the owner, root{named}"));
    if config.observe_needs_operator {
        lines.push("observe: operators only".to_owned());
    }
    Some(("access".to_owned(), lines))
}

/// Where callers are answered besides the socket; nothing if nowhere.
fn listen(config: &ListenConfig) -> Option<(String, Vec<String>)> {
    let grpc = config.grpc.iter().map(|at| format!("grpc: {at}"));
    let lines: Vec<String> = grpc.chain(config.resp.iter().map(|at| format!("resp: {at}"))).collect();
    (!lines.is_empty()).then(|| ("listen".to_owned(), lines))
}

/// The heading of a pool and the lines under it.
fn pool(config: &PoolConfig) -> (String, Vec<String>) {
    let mut lines: Vec<_> = config.pool.limits().iter().map(limit).collect();
    if let Some(keys) = config.keyed {
        lines.push(format!("keyed: all of it for each key, up to {keys} keys"));
    }
    let unsaid =
        if config.overflow_wait { show_duration(config.queue_timeout) } else { "no time".to_owned() };
    lines.push(format!(
        "queue: up to {} requests, for {unsaid} unless they say; up a class after {}",
        config.pool.max_queue,
        show_duration(config.ageing)
    ));
    if let Some(breaker) = config.breaker {
        let (open_for, window) = (show_duration(breaker.open_for), show_duration(breaker.window));
        let (rate, count) = (percent(breaker.failure_rate), breaker.min_count);
        lines.push(format!(
            "breaker: opens for {open_for} if {rate} of at least {count} calls fail in {window}"
        ));
    }
    (format!("pool {}", config.pool.name()), lines)
}

/// The heading of an agent and the lines under it.
fn agent(config: &AgentConfig) -> (String, Vec<String>) {
    let mut lines = vec![format!("weight: {}", f64::from(config.weight_thousandths) / 1e3)];
    if let Some(share) = config.max_share_millionths {
        lines.push(format!("share: at most {} of each limit", percent(f64::from(share) / 1e6)));
    }
    lines.extend(config.limits.iter().map(limit));
    (format!("agent {}", config.matches), lines)
}

/// The heading of a rule of Envoy's service and the lines under it.
fn rls(rule: &RlsRule, pools: &[PoolConfig]) -> (String, Vec<String>) {
    let entry = |entry: &RlsEntry| match &entry.value {
        RlsValue::Any => entry.key.clone(),
        RlsValue::Exactly(value) => format!("{}={value}", entry.key),
        RlsValue::Prefix(prefix) => format!("{}={prefix}*", entry.key),
    };
    let entries: Vec<String> = rule.entries.iter().map(entry).collect();
    let (pool, unit) = (pools[rule.pool].pool.name(), &rule.unit);
    let how = if rule.charge { "charged to" } else { "asked of" };
    let key = rule.key.map(|place| format!(", each {} for itself", rule.entries[place].key));
    let line = format!("{unit} {how} pool {pool}{}", key.unwrap_or_default());
    (format!("rls {}: {}", rule.domain, entries.join(", ")), vec![line])
}

fn limit(limit: &Limit) -> String {
    let (amount, per, unit) = (limit.kind.amount(), show_duration(limit.kind.per()), &limit.unit);
    let rule = match &limit.kind {
        Kind::Rate(rate) => format!("{amount} {unit} per {per}, burst {}", rate.burst()),
        Kind::Window(_) => format!("{amount} {unit} in any {per}"),
        Kind::Calendar(calendar) => {
            format!("{amount} {unit} each {} of {}", calendar.every(), calendar.zone())
        }
        Kind::Concurrency(_) => format!("{amount} {unit} at once, each for at most {per}"),
    };
    format!("{}: {rule}", limit.name)
}

fn percent(part: f64) -> String {
    // Parts are whole millionths, which binary fractions only nearly are.
    format!("{} %", (part * 1e6).round() / 1e4)
}
