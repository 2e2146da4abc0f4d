//! Closed loop: callers who wait for an answer, make their call, and ask again only then, as agents do.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::vec;

use super::{Workload, arrivals, chosen};
use crate::random::{Purpose, Stream};
use crate::record::Arrival;
use crate::scenario::Scenario;
use crate::time::{MS, Nanos, nanos};

/// The shortest mean time between an answer and the next request, in milliseconds: what a socket takes at least.
pub const THINK_MS_MIN: f64 = 0.1;

/// Who was refused, or was told nothing (the node is down), tries again so much later.
pub(super) const TRY_AGAIN: Nanos = 50 * MS;

/// All requests of a run: those that are drawn before it begins, and those of callers, who depend on the answers.
#[derive(Debug)]
pub struct Requests {
    drawn: vec::IntoIter<Arrival>,
    callers: Vec<Caller>,
    /// Which caller asks when.
    due: BTreeSet<(Nanos, usize)>,
    /// Who waits for the answer to a request.
    whose: HashMap<usize, usize>,
    asked: Vec<Arrival>,
    largest: u64,
}

/// The draws of each are its own: whatever the answers, its third request is the same.
#[derive(Debug)]
struct Caller {
    workload: Rc<Workload>,
    burst: f64,
    node: usize,
    agent: u32,
    /// When it asks at all, in order of time.
    busy: Rc<[(Nanos, Nanos)]>,
    stream: Stream,
}

impl Requests {
    /// Those of a scenario's workloads.
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let mut all = Self::from(arrivals(scenario, seed));
        for (number, workload) in scenario.workload.iter().enumerate().filter(|(_, it)| it.callers > 0) {
            all.add_callers(scenario, workload, seed, number);
        }
        all
    }

    fn add_callers(&mut self, scenario: &Scenario, workload: &Workload, seed: u64, number: usize) {
        let burst = scenario.limit().capacity() as f64;
        let mut stream = Stream::new(seed, Purpose::Workload, number as u64);
        let nodes = chosen(&workload.nodes, scenario.nodes, &mut stream);
        if nodes.is_empty() {
            return;
        }
        self.largest = self.largest.max(workload.cost.max(burst));
        let shape = workload.shape(scenario, nodes.len(), &mut stream);
        let workload = Rc::new(workload.clone());
        for (position, node) in nodes.into_iter().enumerate() {
            let segments = shape.segments(position, &mut stream).into_iter();
            let true_time = |seconds: f64| nanos(scenario.warmup + seconds);
            let times = segments.map(|segment| (true_time(segment.from), true_time(segment.until)));
            // Short ones can be nothing in whole nanoseconds.
            let busy: Rc<[_]> = times.filter(|(from, until)| from < until).collect();
            for agent in 0..workload.callers {
                let own = (number as u64) << 32 | self.callers.len() as u64;
                self.callers.push(Caller {
                    workload: Rc::clone(&workload),
                    burst,
                    node,
                    agent: agent % workload.agents,
                    busy: Rc::clone(&busy),
                    stream: Stream::new(seed, Purpose::Callers, own),
                });
                self.asks_next(self.callers.len() - 1, 0);
            }
        }
    }

    /// When the next one comes; never if that is the greatest number.
    pub fn next_at(&self) -> Nanos {
        let drawn = self.drawn.as_slice().first().map_or(Nanos::MAX, |arrival| arrival.at);
        drawn.min(self.due.first().map_or(Nanos::MAX, |(at, _)| *at))
    }

    /// The next one comes: its number.
    ///
    /// # Panics
    /// If none comes any more.
    pub fn take(&mut self) -> usize {
        let number = self.asked.len();
        let called = self.due.first().filter(|(at, _)| *at == self.next_at()).copied();
        let arrival = match called {
            Some((at, caller)) => {
                self.due.pop_first();
                self.whose.insert(number, caller);
                self.callers[caller].ask(at)
            }
            None => self.drawn.next().expect("BUG! no more requests"),
        };
        self.asked.push(arrival);
        number
    }

    /// One that came.
    pub fn get(&self, number: usize) -> &Arrival {
        &self.asked[number]
    }

    /// It has its answer, or will get none, which is as if it was refused.
    pub fn answered(&mut self, number: usize, admitted: bool, now: Nanos) {
        if let Some(caller) = self.whose.remove(&number) {
            let pause = if admitted { self.asked[number].call.hold } else { TRY_AGAIN };
            self.asks_next(caller, now + pause);
        }
    }

    /// The most units that any of them takes.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// Those that came, in order of time.
    pub fn into_asked(self) -> Vec<Arrival> {
        self.asked
    }

    fn asks_next(&mut self, caller: usize, after: Nanos) {
        if let Some(at) = self.callers[caller].next_after(after) {
            self.due.insert((at, caller));
        }
    }
}

/// Requests in order of time, whatever becomes of them.
impl From<Vec<Arrival>> for Requests {
    fn from(drawn: Vec<Arrival>) -> Self {
        Self {
            largest: drawn.iter().map(|arrival| arrival.units).max().unwrap_or(1),
            asked: Vec::with_capacity(drawn.len()),
            drawn: drawn.into_iter(),
            callers: Vec::new(),
            due: BTreeSet::new(),
            whose: HashMap::new(),
        }
    }
}

impl Caller {
    /// When it asks next if it could from `after` on; none if its workload is over by then.
    fn next_after(&mut self, after: Nanos) -> Option<Nanos> {
        let think = (self.stream.exponential(self.workload.think_ms) * MS as f64) as Nanos;
        let at = after + think;
        let (from, until) = *self.busy.get(self.busy.partition_point(|(_, until)| *until <= at))?;
        // Not all of a node's at the moment when it becomes busy.
        Some(if at < from { from + think.min(until - from - 1) } else { at })
    }

    fn ask(&mut self, at: Nanos) -> Arrival {
        let units = self.workload.cost.draw(self.burst, &mut self.stream);
        let arrival = Arrival::new(at, self.node, units, self.workload.wait_ms * MS);
        let mut arrival = Arrival { agent: self.agent, ..arrival };
        self.workload.draw_calls(&mut self.stream, std::slice::from_mut(&mut arrival));
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::LimitSpec;
    use crate::time::SEC;
    use crate::workload::Kind;

    fn scenario(workload: Workload) -> Scenario {
        let limit = LimitSpec::rate(1_000, 100);
        Scenario {
            nodes: 2,
            seconds: 10.0,
            warmup: 0.0,
            limit,
            workload: vec![workload],
            ..Scenario::default()
        }
    }

    /// All that is asked for if each answer takes so long.
    fn asked(workload: Workload, answer: Nanos) -> Vec<Arrival> {
        let mut requests = Requests::new(&scenario(workload), 1);
        while requests.next_at() < Nanos::MAX {
            let number = requests.take();
            let at = requests.get(number).at;
            requests.answered(number, true, at + answer);
        }
        requests.into_asked()
    }

    #[test]
    fn callers_ask_again_once_they_were_answered_their_call_is_over_and_they_thought() {
        let workload = Workload { callers: 3, think_ms: 10.0, ..Workload::default() };
        let all = asked(workload.clone(), 40 * MS);
        assert!(
            all.is_sorted_by_key(|arrival| arrival.at) && all.iter().all(|arrival| arrival.at < 10 * SEC)
        );
        // Six callers, one request in 50 ms each.
        assert!((1_100..1_300).contains(&all.len()), "{}", all.len());
        let longer = asked(Workload { hold_ms: 50.0, ..workload.clone() }, 40 * MS);
        assert!((540..660).contains(&longer.len()), "{}", longer.len());
        let slower = asked(workload, 190 * MS);
        assert!((280..320).contains(&slower.len()), "{}", slower.len());
    }

    #[test]
    fn callers_ask_only_while_their_node_is_busy() {
        let kind = Kind::Rotating { period: 1.0 };
        let workload = Workload { kind, callers: 2, think_ms: 10.0, ..Workload::default() };
        let all = asked(workload, 10 * MS);
        assert!(all.iter().all(|arrival| arrival.at / SEC % 2 == arrival.node as u64));
        assert!((900..1_100).contains(&all.len()), "{}", all.len());
    }

    #[test]
    fn who_gets_no_answer_tries_again_and_who_waits_for_one_does_not() {
        let workload = Workload { callers: 1, ..Workload::default() };
        let mut requests = Requests::new(&scenario(workload), 1);
        let (first, second) = (requests.take(), requests.take());
        assert_eq!(requests.next_at(), Nanos::MAX);
        let (at, other) = (requests.get(first).at, requests.get(second).node);
        requests.answered(first, false, at);
        assert!(requests.next_at() >= at + TRY_AGAIN);
        let again = requests.take();
        assert_eq!(requests.get(again).node, 1 - other);
        // Twice is once.
        requests.answered(first, false, at);
        requests.answered(first, true, at);
        assert_eq!(requests.next_at(), Nanos::MAX);
        requests.answered(second, false, at);
        assert!(requests.next_at() >= at + TRY_AGAIN, "refused at once is not asked again at once");
    }

    #[test]
    fn who_thinks_across_pieces_of_a_day_is_not_moved_to_the_end_of_one() {
        // Pieces of a tenth of a second, which follow one another.
        let kind = Kind::Diurnal { period: 9.6 };
        let all = asked(Workload { kind, callers: 20, think_ms: 300.0, ..Workload::default() }, MS);
        assert!(all.len() > 1_000 && all.iter().all(|arrival| (arrival.at + 1) % (100 * MS) > 0));
    }
}
