//! What the admission logs and a watch over the links say of one run, and the table of all.

use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

use aquifer::protocol::limit::Rate;

use crate::process::{Admission, Daemon, admissions, monotonic, never_over, used};

/// How long links must stay up to count as up again.
const STEADY: Duration = Duration::from_secs(3);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// This only ends a run that would never end.
const PATIENCE: Duration = Duration::from_secs(120);
/// A node has its share when it admitted nine tenths of it in so long.
const SHARE_WINDOW: u64 = 500_000_000;

/// What one run of a scenario came to.
pub struct Run {
    /// Theorem T1, for the whole run.
    pub never_over: Result<(), String>,
    /// From the healing until all links were up, and stayed so.
    pub linked: Option<Duration>,
    /// From the healing until each busy node admitted its share, in their order.
    pub share: Vec<Option<Duration>>,
    /// What was used before the fault, during it, and in the ten seconds after the healing.
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

/// Reads the logs of a run whose fault lasted over `fault` and which was watched from `from`.
pub fn judge(
    nodes: &[Daemon],
    busy: &[usize],
    limit: &str,
    rate: &Rate,
    from: u64,
    fault: (u64, u64),
    linked: Option<Duration>,
) -> Run {
    let all = admissions(nodes.iter().map(|node| &node.setup));
    let after = (fault.1, monotonic().min(fault.1 + 10_000_000_000));
    let fair = rate.per_second() / busy.len() as f64;
    let share = busy.iter().map(|place| regained(&nodes[*place].admissions(), limit, fair, fault.1));
    Run {
        never_over: never_over(&all, limit, rate),
        linked,
        share: share.collect(),
        used: [(from, fault.0), fault, after].map(|time| used(&all, limit, rate, time)),
    }
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
    let mut text = format!(
        "{:<13}  {:>4}  {:<13}  {:>19}  {:>19}  {:>19}  {:>7} {:>7} {:>7}\n",
        "scenario",
        "runs",
        "never over",
        "links up again",
        "share: small side",
        "share: large side",
        "before",
        "fault",
        "10 s on"
    );
    for (name, runs) in rows {
        let over = runs.iter().filter(|run| run.never_over.is_err()).count();
        let over = if over == 0 { "holds".to_owned() } else { format!("VIOLATED x {over}") };
        let times = |time: &dyn Fn(&Run) -> Option<Duration>| spread(runs.iter().map(time).collect());
        let used = |place: usize| {
            let mut used: Vec<f64> = runs.iter().map(|run| run.used[place]).collect();
            used.sort_by(f64::total_cmp);
            format!("{:.1} %", used[used.len() / 2] * 100.0)
        };
        writeln!(
            text,
            "{name:<13}  {:>4}  {over:<13}  {:>19}  {:>19}  {:>19}  {:>7} {:>7} {:>7}",
            runs.len(),
            times(&|run| run.linked),
            times(&|run| run.share[0]),
            times(&|run| run.share[1]),
            used(0),
            used(1),
            used(2)
        )
        .expect("BUG! text");
    }
    text
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
    assert_eq!(at(100.0), Some(1_450));
    assert_eq!(at(200.0), None);
}
