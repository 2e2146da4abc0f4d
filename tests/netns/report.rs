//! What the admission logs and a watch over the links say of one run, and the table of all.

use std::thread;
use std::time::{Duration, Instant};

use aquifer::protocol::limit::Rate;

use crate::process::{Admission, Daemon, admissions, never_over};

/// How long links must stay up to count as up again.
const STEADY: Duration = Duration::from_secs(3);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// This only ends a run that would never end.
const PATIENCE: Duration = Duration::from_secs(120);
/// For so long after the healing use is counted.
pub const AFTERWARDS: Duration = Duration::from_secs(10);
/// A node has its share when it admitted nine tenths of it in so long.
const SHARE_WINDOW: u64 = 500_000_000;

/// What one run of a scenario came to.
pub struct Run {
    /// Theorem T1, for the whole run.
    pub never_over: Result<(), String>,
    /// The most links that nodes which were not hit themselves missed at once during the fault.
    pub missing: usize,
    /// From the healing until all links were up, and stayed so.
    pub linked: Option<Duration>,
    /// From the healing until each busy node admitted its share, in their order.
    pub share: Vec<Option<Duration>>,
    /// What part of `rate × time` was used before the fault, during it, and in the ten seconds after the healing.
    pub used: [f64; 3],
}

/// Waits until all nodes have links to all others that stay: how long after `healed` that was.
pub fn until_linked(nodes: &[Daemon], healed: Instant) -> Option<Duration> {
    let mut since: Option<Instant> = None;
    loop {
        let now = Instant::now();
        let whole = nodes.iter().all(|node| node.status().peers_connected == nodes.len() - 1);
        since = if whole { since.or(Some(now)) } else { None };
        match since {
            Some(since) if now - since >= STEADY => return Some(since - healed),
            None if now - healed >= PATIENCE => return None,
            _ => thread::sleep(LOOK),
        }
    }
}

/// When things happened in a run, on the clock of the admission logs.
pub struct Times {
    /// The nodes were watched from then on.
    pub watched: u64,
    pub broken: u64,
    pub healed: u64,
}

/// Reads the logs of a run: theorem T1, when each busy node had its share again, and what was used.
pub fn judge(
    nodes: &[Daemon],
    busy: &[usize],
    limit: &str,
    rate: &Rate,
    times: &Times,
) -> (Result<(), String>, Vec<Option<Duration>>, [f64; 3]) {
    let all = admissions(nodes.iter().map(|node| &node.setup));
    let fair = rate.per_second() / busy.len() as f64;
    let share = busy.iter().map(|place| regained(&nodes[*place].admissions(), limit, fair, times.healed));
    let used = |from: u64, to: u64| {
        let during = all.iter().filter(|one| one.limit == limit && (from..to).contains(&one.nanos));
        during.map(|one| one.units).sum::<u64>() as f64 / (rate.per_second() * (to - from) as f64 / 1e9)
    };
    let used = [
        used(times.watched, times.broken),
        used(times.broken, times.healed),
        used(times.healed, times.healed + AFTERWARDS.as_nanos() as u64),
    ];
    (never_over(&all, limit, rate), share.collect(), used)
}

/// How long after `healed` the first [`SHARE_WINDOW`] began in which a node admitted nine tenths of `fair` units a second.
fn regained(log: &[Admission], limit: &str, fair: f64, healed: u64) -> Option<Duration> {
    let needed = (fair * 0.9 * SHARE_WINDOW as f64 / 1e9).ceil() as u64;
    let after: Vec<_> = log.iter().filter(|one| one.limit == limit && one.nanos >= healed).collect();
    let (mut end, mut units) = (0, 0);
    // A window that is full begins with an admission, or with the healing.
    for (place, first) in after.iter().enumerate() {
        let begin = if place == 0 { healed } else { first.nanos };
        while end < after.len() && after[end].nanos < begin + SHARE_WINDOW {
            units += after[end].units;
            end += 1;
        }
        if units >= needed {
            return Some(Duration::from_nanos(begin - healed));
        }
        units -= first.units;
    }
    None
}

/// One line for each scenario with all its runs: medians, and the slowest in brackets.
pub fn table(rows: &[(&str, Vec<Run>)]) -> String {
    let mut text = line([
        "scenario",
        "runs",
        "never over",
        "links missed",
        "links up again",
        "share, hit side",
        "share, other side",
        "before",
        "fault",
        "10 s on",
    ]);
    for (name, runs) in rows {
        let over = runs.iter().filter(|run| run.never_over.is_err()).count();
        let over = if over == 0 { "holds".to_owned() } else { format!("{over} BROKEN") };
        let times = |time: &dyn Fn(&Run) -> Option<Duration>| spread(runs.iter().map(time).collect());
        let used = |place: usize| {
            let mut used: Vec<f64> = runs.iter().map(|run| run.used[place]).collect();
            used.sort_by(f64::total_cmp);
            format!("{:.1} %", used[used.len() / 2] * 100.0)
        };
        let count = runs.len().to_string();
        let missing = runs.iter().map(|run| run.missing).max().unwrap_or(0).to_string();
        let (linked, hit, other) =
            (times(&|run| run.linked), times(&|run| run.share[0]), times(&|run| run.share[1]));
        text += &line([name, &count, &over, &missing, &linked, &hit, &other, &used(0), &used(1), &used(2)]);
    }
    text
}

fn line(cells: [&str; 10]) -> String {
    let [name, rest @ ..] = cells;
    let cells = rest.iter().zip([4, 10, 12, 17, 17, 17, 7, 7, 7]);
    format!("{name:<14}{}\n", cells.map(|(cell, width)| format!("  {cell:>width$}")).collect::<String>())
}

fn spread(mut times: Vec<Option<Duration>>) -> String {
    // What never happened is the slowest.
    times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
    let said =
        |time: Option<Duration>| time.map_or("never".to_owned(), |t| format!("{:.2} s", t.as_secs_f64()));
    match times.as_slice() {
        [] => "-".to_owned(),
        [one] => said(*one),
        more => format!("{} ({})", said(more[(more.len() - 1) / 2]), said(more[more.len() - 1])),
    }
}

#[test]
fn a_share_is_regained_where_the_first_full_window_begins() {
    let line = |millis: u64| Admission { nanos: millis * 1_000_000, limit: "l".to_owned(), units: 1 };
    // Ten a second until 2 s, then a hundred a second.
    let log: Vec<_> = (0..20).map(|n| line(n * 100)).chain((200..400).map(|n| line(n * 10))).collect();
    let at = |fair| regained(&log, "l", fair, 500_000_000).map(|time| time.as_millis());
    assert_eq!(at(10.0), Some(0));
    assert_eq!(at(100.0), Some(1_500));
    assert_eq!(at(200.0), None);
}
