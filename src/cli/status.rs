//! `aquifer status`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::sleep;

use super::output::{Column, Style, Table, json, millis, percent, plain, print, print_on};
use crate::api::{ByClass, CallersStatus, PoolStatus, Status, UserStatus};
use crate::client::{Client, ClientError};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show it anew each second until interrupted
    #[arg(long)]
    watch: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const WATCH_EVERY: Duration = Duration::from_secs(1);

pub async fn run(client: Client, args: &Args) -> Result<ExitCode, ClientError> {
    let style = Style::of_stdout();
    let text = |status: &Status| if args.json { json(status) } else { page(status, style) };
    if !args.watch {
        return Ok(print(&text(&client.status().await?)));
    }
    let redraws = !args.json && io::stdout().is_terminal();
    loop {
        let text = text(&client.status().await?);
        if !print_on(&if redraws { redraw(&text) } else { text }) {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(WATCH_EVERY).await;
    }
}

/// `text` from the top of the screen, over what was there: clearing first would flicker.
fn redraw(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    format!("\x1b[H{}\x1b[K\n\x1b[J", lines.join("\x1b[K\n"))
}

fn page(status: &Status, style: Style) -> String {
    let Status { node, guarantee, .. } = status;
    let id: String = node.id.chars().take(8).collect();
    let (name, program) = (plain(&node.name), plain(&node.program));
    let (state, uptime) = (style.state(&plain(&node.state)), millis(node.uptime_ms));
    let mut lines = vec![format!("{} {name} ({id}), {state}, up {uptime}, {program}", style.bold("node"))];

    let (policy, detail) = (plain(&guarantee.policy), plain(&guarantee.detail));
    let worst = match guarantee.worst_case_factor {
        factor if factor > 1.0 => format!(" (at worst {factor:.2} times the limit)"),
        _ => String::new(),
    };
    lines.push(format!("{} {policy}: {detail}{worst}", style.bold("guarantee")));
    let (peers, members, share) = (status.peers_connected, status.members, percent(node.base_share));
    lines.push(format!("{} {peers} connected; {members} members; base share {share}", style.bold("peers")));
    lines.push(format!("{} {}", style.bold("callers"), callers(&status.callers)));
    let addresses = node.addresses.iter();
    lines.extend(addresses.map(|address| format!("{} {}", style.bold("address"), plain(address))));
    if !status.pools.is_empty() {
        lines.push(format!("\n{}", pools(&status.pools).show(style).trim_end()));
        lines.extend(status.pools.iter().filter_map(|pool| waiting(pool, style)));
        lines.extend(status.pools.iter().filter_map(|pool| agents(pool, style)));
        lines.extend(status.pools.iter().filter_map(|pool| unreported(pool, style)));
    }
    let warnings = status.warnings.iter();
    lines.extend(warnings.map(|warning| format!("{} {}", style.yellow("warning"), plain(warning))));
    lines.join("\n") + "\n"
}

/// Who is connected, by user where there are several, and what was refused to whom.
fn callers(callers: &CallersStatus) -> String {
    let user = |user: &UserStatus| {
        let waiting = if user.waiting > 0 { format!(", {} waiting", user.waiting) } else { String::new() };
        format!("user {} has {}{waiting}", user.uid, user.connections)
    };
    let users = callers.users.iter().filter(|_| callers.users.len() > 1).map(user);
    let counts = [
        (callers.turned_away, "turned away"),
        (callers.not_queued, "not queued"),
        (callers.denied, "denied"),
        (callers.timed_out, "too slow"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts = counts.map(|(count, what)| format!("{count} {what}"));
    let head = format!("{} of {} connected", callers.connections, callers.max_connections);
    [head].into_iter().chain(users).chain(counts).collect::<Vec<_>>().join("; ")
}

/// Who waits for a pool, by class.
fn waiting(pool: &PoolStatus, style: Style) -> Option<String> {
    let ByClass { critical, high, normal, low } = pool.waiting_by_class;
    let classes = [(critical, "critical"), (high, "high"), (normal, "normal"), (low, "low")];
    let those = classes.iter().filter(|(count, _)| *count > 0);
    let those: Vec<String> = those.map(|(count, class)| format!("{count} {class}")).collect();
    let line = || format!("{} for {}: {}", style.bold("waiting"), plain(&pool.name), those.join(", "));
    (!those.is_empty()).then(line)
}

/// Who used most of a pool lately.
fn agents(pool: &PoolStatus, style: Style) -> Option<String> {
    let named = pool.top_agents.iter().filter(|top| !top.agent.is_empty());
    let named: Vec<String> =
        named.map(|top| format!("{} {}", plain(&top.agent), percent(top.share))).collect();
    let line = || format!("{} of {}: {}", style.bold("agents"), plain(&pool.name), named.join(", "));
    (!named.is_empty()).then(line)
}

/// What of a pool's limits is used by somebody who does not report it.
fn unreported(pool: &PoolStatus, style: Style) -> Option<String> {
    let limits = pool.limits.iter().filter(|limit| limit.unreported_share > 0.0);
    let limits: Vec<String> = limits
        .map(|limit| format!("{} {}", percent(limit.unreported_share), plain(&limit.now.name)))
        .collect();
    let head = style.bold("unreported");
    let line = || {
        let (pool, limits) = (plain(&pool.name), limits.join(", "));
        format!("{head} use of {pool}, by the provider's count: {limits}; kept out of all shares")
    };
    (!limits.is_empty()).then(line)
}

fn pools(pools: &[PoolStatus]) -> Table {
    use Column::{Number, State, Text};
    let mut table = Table::new(&[
        Text("POOL"),
        Text("LIMIT"),
        Number("USED"),
        Number("OF"),
        Number("LEFT"),
        Number("HELD"),
        Number("SHARE"),
        Number("OPENS"),
        Number("QUEUE"),
        State("STATE"),
    ]);
    for pool in pools {
        let opens = match pool.opens_in_ms {
            Some(0) => "now".to_owned(),
            Some(time) => format!("in {}", millis(time)),
            None => "-".to_owned(),
        };
        let mut of_pool = [pool.name.clone(), opens, pool.waiting.to_string(), pool.state.clone()];
        for limit in &pool.limits {
            // What is the pool's stands beside its first limit only.
            let [name, opens, queue, state] = std::mem::take(&mut of_pool);
            let now = &limit.now;
            table.row(&[
                name,
                now.name.clone(),
                now.used.to_string(),
                now.limit.to_string(),
                now.remaining.to_string(),
                now.held.to_string(),
                percent(limit.held_share),
                opens,
                queue,
                state,
            ]);
        }
    }
    table
}
