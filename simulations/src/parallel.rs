//! Independent runs on all cores of this machine.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

/// Does the jobs numbered from 0 up to but not including `count`, and calls `done` with each result, on this thread and
/// in the order in which they are finished, until it returns false. Jobs begin in the order of their numbers: when one
/// is finished, all before it have begun, and are finished and told of before this returns.
///
/// # Panics
/// If a job panics.
pub fn run<R: Send>(count: u64, job: impl Fn(u64) -> R + Sync, mut done: impl FnMut(u64, R) -> bool) {
    let (next, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    let threads = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    thread::scope(|scope| {
        // So few that memory is bounded if `done` is slow.
        let (sender, receiver) = mpsc::sync_channel(1);
        for _ in 0..threads.min(count) {
            let (sender, job, next, stopped) = (sender.clone(), &job, &next, &stopped);
            scope.spawn(move || {
                while !stopped.load(Ordering::SeqCst) {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count || sender.send((number, job(number))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (number, result) in receiver {
            if !done(number, result) {
                stopped.store(true, Ordering::SeqCst);
            }
        }
    });
}

/// The same without an end before the last; the results in order of their numbers.
///
/// # Panics
/// If a job panics.
pub fn all<R: Send>(count: u64, job: impl Fn(u64) -> R + Sync, mut each: impl FnMut(&R)) -> Vec<R> {
    let mut results = Vec::with_capacity(count as usize);
    run(count, job, |number, result| {
        each(&result);
        results.push((number, result));
        true
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        let mut seen = 0;
        assert_eq!(all(100, |number| number * 2, |_| seen += 1), (0..200).step_by(2).collect::<Vec<_>>());
        assert_eq!(seen, 100);
        assert!(all(0, |number| number, |_| ()).is_empty());
    }

    #[test]
    fn all_before_the_one_that_stops_it_are_done() {
        let mut seen = Vec::new();
        run(
            u64::MAX,
            |number| number,
            |number, _| {
                seen.push(number);
                number != 50
            },
        );
        seen.sort_unstable();
        assert!(seen.len() < 1_000, "it stopped");
        assert!(seen.iter().zip(0..).all(|(seen, number)| *seen == number), "no gap: {seen:?}");
    }
}
