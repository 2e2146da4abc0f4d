//! `forge`: records that nobody signed, in great numbers.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::COMMAND;
use super::output::{FAILED, print};
use crate::forge::{Scheme, forge};
use crate::parallel;

/// Records that one job tries, so that all cores are busy and the result is the same with any number of them.
const JOB: u64 = 100_000;

/// Options of `forge`.
#[derive(Clone, Debug, Args)]
pub struct Forge {
    /// How many records
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    records: u64,
    /// Whose signatures
    #[arg(long, value_enum, default_value = "ideal")]
    signatures: Scheme,
    /// The seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

impl Forge {
    /// Runs the command.
    pub fn run(&self) -> ExitCode {
        let began = Instant::now();
        let jobs = self.records.div_ceil(JOB);
        let job = |number: u64| {
            let records = JOB.min(self.records - number * JOB);
            forge(records, self.signatures, self.seed.wrapping_add(number))
        };
        let mut sums: Vec<crate::forge::Tried> = Vec::new();
        for tried in parallel::all(jobs, job, |_| {}) {
            if sums.is_empty() {
                sums = tried;
                continue;
            }
            for (sum, tried) in sums.iter_mut().zip(tried) {
                sum.records += tried.records;
                sum.accepted += tried.accepted;
                sum.refused += tried.refused;
            }
        }
        let took = began.elapsed().as_secs_f64();
        let mut text = format!(
            "seed {}\n\n{:<10} {:>10} {:>10} {:>9}\n",
            self.seed, "kind", "records", "found out", "accepted"
        );
        for tried in &sums {
            let kind = format!("{:?}", tried.kind).to_lowercase();
            let _ = writeln!(
                text,
                "{kind:<10} {:>10} {:>10} {:>9}",
                tried.records, tried.refused, tried.accepted
            );
        }
        let records: u64 = sums.iter().map(|tried| tried.records).sum();
        let accepted: u64 = sums.iter().map(|tried| tried.accepted).sum();
        let signatures = format!("{:?}", self.signatures).to_lowercase();
        let _ = writeln!(
            text,
            "{records} records, {accepted} accepted, {took:.1} s, {:.0} records a second\n\nreplay: {COMMAND} forge --records {} --signatures {signatures} --seed {}",
            records as f64 / took.max(f64::MIN_POSITIVE),
            self.records,
            self.seed,
        );
        match print(&text) {
            ExitCode::SUCCESS if accepted > 0 => FAILED.into(),
            status => status,
        }
    }
}
