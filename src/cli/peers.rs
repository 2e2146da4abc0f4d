//! `aquifer peers` and `aquifer limits`: who holds what.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use super::Listing;
use super::output::{
    Column::{Number, State, Text},
    Style, Table, json, millis, percent, print,
};
use crate::api::{LimitListing, LimitStatus, PeerStatus};
use crate::client::{Client, ClientError};
use crate::daemon::config::show_duration;

/// What to show of the peers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Say what is held against each peer, and why
    #[arg(long)]
    why: bool,
}

pub async fn peers(client: Client, args: &Args) -> Result<ExitCode, ClientError> {
    let answer = client.peers().await?;
    if args.json {
        return Ok(print(&json(&answer)));
    }
    if args.why {
        return Ok(print(&reasons(&answer.peers)));
    }
    let table = peer_table(&answer.peers);
    if table.is_empty() {
        return Ok(print("No peers yet; `aquifer token` prints how another machine joins.\n"));
    }
    Ok(print(&table.show(Style::of_stdout())))
}

pub async fn limits(client: Client, args: &Listing) -> Result<ExitCode, ClientError> {
    let answer = client.limits().await?;
    Ok(print(&if args.json { json(&answer) } else { limit_table(&answer.limits).show(Style::of_stdout()) }))
}

/// Everything that is held against somebody, a line each.
fn reasons(peers: &[PeerStatus]) -> String {
    let of_peer = |peer: &PeerStatus| {
        let id: String = peer.id.chars().take(8).collect();
        let line = |reason: &String| format!("{} ({id}) {reason}\n", peer.name);
        peer.evidence.iter().map(line).collect::<String>()
    };
    let all: String = peers.iter().map(of_peer).collect();
    if all.is_empty() { "Nothing is held against any peer.\n".to_owned() } else { all }
}

fn peer_table(peers: &[PeerStatus]) -> Table {
    let mut table = Table::new(&[
        Text("PEER"),
        Text("ID"),
        State("STATE"),
        Number("BASE"),
        Number("HELD"),
        Number("LAG"),
        Number("RTT"),
        Text("ADDRESS"),
    ]);
    for peer in peers {
        let rtt = peer.rtt_ms.map(|rtt| format!("{rtt:.1} ms"));
        table.row(&[
            peer.name.clone(),
            peer.id.chars().take(8).collect(),
            peer.state.clone(),
            percent(peer.base_share),
            range(&peer.held_shares),
            peer.lag_ms.map_or_else(|| "-".to_owned(), millis),
            rtt.unwrap_or_else(|| "-".to_owned()),
            peer.address.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}

/// What a peer holds of its limits, from the least to the most.
fn range(shares: &BTreeMap<String, f64>) -> String {
    let least = shares.values().copied().reduce(f64::min).map(percent);
    let most = shares.values().copied().reduce(f64::max).map(percent);
    match (least, most) {
        (Some(least), Some(most)) if least == most => least,
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => "-".to_owned(),
    }
}

fn limit_table(limits: &[LimitListing]) -> Table {
    let mut table = Table::new(&[
        Text("POOL"),
        Text("LIMIT"),
        Text("RULE"),
        Number("BURST"),
        Number("USED"),
        Number("LEFT"),
        Number("HELD"),
        Number("TARGET"),
        Number("DEMAND"),
        Number("ADMITTED"),
        Text("HELD BY"),
    ]);
    for limit in limits {
        let status = &limit.status;
        let by = limit.held_by.iter().map(|(node, share)| format!("{node} {}", percent(*share)));
        table.row(&[
            limit.pool.clone(),
            status.now.name.clone(),
            rule(limit),
            status.now.limit.to_string(),
            status.now.used.to_string(),
            status.now.remaining.to_string(),
            percent(status.held_share),
            percent(status.target_share),
            format!("{:.1}/s", status.demand_per_second),
            status.admitted_by_all.to_string(),
            by.collect::<Vec<_>>().join(", "),
        ]);
    }
    table
}

/// What a limit allows.
fn rule(limit: &LimitListing) -> String {
    let LimitStatus { amount, unit, per_ms, .. } = &limit.status;
    let per = show_duration(Duration::from_millis(*per_ms));
    match (limit.kind.as_str(), &limit.every, &limit.zone) {
        ("window", ..) => format!("{amount} {unit} in any {per}"),
        ("calendar", Some(every), Some(zone)) => format!("{amount} {unit} each {every} of {zone}"),
        ("concurrency", ..) => format!("{amount} {unit} at once, each for at most {per}"),
        _ => format!("{amount} {unit} per {per}"),
    }
}
