//! The event loop that serves all rivals.

use std::collections::{BTreeMap, VecDeque};

use super::{Rule, Verdict};
use crate::checker::NeverOver;
use crate::fault::{Fault, Nodes};
use crate::network::{Group, Network, Verdict as Fate};
use crate::random::{Purpose, Stream};
use crate::record::{Answer, Arrival, Record, Sample, Traffic, sample_every};
use crate::scenario::{Scenario, StartSpec};
use crate::scheme::Scheme;
use crate::time::{MS, Nanos, nanos};
use crate::workload::callers::Requests;

/// What a rule wants said.
pub(super) struct Outbox<M>(Vec<Letter<M>>);

struct Letter<M> {
    from: usize,
    to: usize,
    bytes: u64,
    /// How long until it is sent again if it was lost; not at all if that is none.
    again: Option<Nanos>,
    message: M,
}

impl<M> Outbox<M> {
    /// Sends as a datagram: it may be lost.
    pub fn datagram(&mut self, from: usize, to: usize, bytes: u64, message: M) {
        self.0.push(Letter { from, to, bytes, again: None, message });
    }

    /// Sends over a connection: what is lost is sent again, after what TCP takes for it at the least (200 ms on Linux)
    /// and longer each time.
    pub fn reliable(&mut self, from: usize, to: usize, bytes: u64, message: M) {
        self.0.push(Letter { from, to, bytes, again: Some(200 * MS), message });
    }
}

/// The longest pause before something is sent again, so that a healed connection is soon in use.
const AGAIN_MAX: Nanos = 3_200 * MS;

enum Event<M> {
    Deliver(Letter<M>),
    Send(Letter<M>),
    Tick(usize),
    /// The first in a queue may be admitted now.
    Serve(usize),
    /// A request has waited long enough.
    Expire(usize),
    /// A step of the scenario.
    Step(usize),
    Sample,
}

struct Engine<'a, R: Rule> {
    rule: R,
    scenario: &'a Scenario,
    network: Network,
    faults: Stream,
    machines: Vec<Machine>,
    events: BTreeMap<(Nanos, u64), Event<R::Message>>,
    numbers: u64,
    requests: Requests,
    answered: Vec<bool>,
    /// Requests that wait, by their numbers; those answered meanwhile are dropped when they come to the front.
    queues: Vec<VecDeque<usize>>,
    /// When each queue's first is tried next.
    serve_at: Vec<Nanos>,
    outbox: Outbox<R::Message>,
    check: NeverOver,
    answers: Vec<Answer>,
    samples: Vec<Sample>,
    traffic: Traffic,
    hash: u64,
}

/// Whether requests reach a node.
#[derive(Clone, Copy, Default)]
struct Machine {
    is_up: bool,
    was_up: bool,
    paused_until: Nanos,
}

/// Runs a scenario under a rule.
pub(super) fn run<R: Rule>(rule: R, scheme: Scheme, scenario: &Scenario, seed: u64) -> Record {
    let limit = scenario.limit();
    let queues = if R::ONE_QUEUE { 1 } else { scenario.nodes };
    let mut engine = Engine {
        rule,
        scenario,
        network: Network::new(&scenario.links, seed),
        faults: Stream::new(seed, Purpose::Faults, 0),
        machines: vec![Machine::default(); scenario.nodes],
        events: BTreeMap::new(),
        numbers: 0,
        requests: Requests::new(scenario, seed),
        answered: Vec::new(),
        queues: vec![VecDeque::new(); queues],
        serve_at: vec![Nanos::MAX; queues],
        outbox: Outbox(Vec::new()),
        check: NeverOver::new(&limit, 0),
        answers: Vec::new(),
        samples: Vec::new(),
        traffic: Traffic::default(),
        hash: 0xcbf2_9ce4_8422_2325,
    };
    engine.plan(seed);
    engine.go();
    Record {
        scheme: scheme.name(),
        nodes: scenario.nodes,
        weights: (0..scenario.nodes).map(|node| scenario.weight(node)).collect(),
        rate: scenario.per_second(),
        burst: limit.capacity() as f64,
        begin: scenario.begin(),
        end: scenario.end(),
        arrivals: engine.requests.into_asked(),
        closed_loop: scenario.is_closed_loop(),
        answers: engine.answers,
        samples: engine.samples,
        marks: scenario.marks(),
        spreads: Vec::new(),
        round: R::TICK.unwrap_or(0),
        traffic: engine.traffic,
        overshoot: engine.check.overshoot(),
        floors: Vec::new(),
        trace_hash: engine.hash,
    }
}

impl<R: Rule> Engine<'_, R> {
    /// What happens anyway: steps, samples, and the first tick of every node.
    fn plan(&mut self, seed: u64) {
        for (index, step) in self.scenario.step.iter().enumerate() {
            self.at(nanos(self.scenario.warmup + step.at), Event::Step(index));
        }
        let first = if self.scenario.start == StartSpec::Alone { 1 } else { self.scenario.nodes };
        self.machines[..first].fill(Machine { is_up: true, was_up: true, paused_until: 0 });
        if !self.rule.held().is_empty() {
            self.at(0, Event::Sample);
        }
        if let Some(every) = R::TICK {
            let mut phases = Stream::new(seed, Purpose::Rivals, 1);
            (0..self.scenario.nodes).for_each(|node| self.at(phases.below(every), Event::Tick(node)));
        }
    }

    fn go(&mut self) {
        let end = self.scenario.end();
        loop {
            let arrival = self.requests.next_at();
            let event = self.events.first_key_value().map_or(Nanos::MAX, |((at, _), _)| *at);
            if arrival.min(event) >= end {
                return;
            }
            if arrival < event {
                let number = self.requests.take();
                self.answered.push(false);
                self.trace(arrival, 1, number);
                self.arrive(number, arrival);
            } else {
                let ((now, _), event) = self.events.pop_first().expect("BUG! it was there");
                self.happen(event, now);
            }
        }
    }

    fn arrive(&mut self, index: usize, now: Nanos) {
        let arrival = *self.requests.get(index);
        let machine = self.machines[arrival.node];
        if !machine.is_up || machine.paused_until > now {
            self.requests.answered(index, false, now);
            return;
        }
        self.rule.arrived(&arrival);
        let queue = Self::queue_of(arrival.node);
        self.queues[queue].push_back(index);
        // Those before it had their chance.
        if self.queues[queue].len() == 1 {
            self.serve(queue, now);
        }
        if !self.answered[index] {
            if arrival.wait == 0 {
                self.answer(index, false, now);
            } else {
                self.at(now + arrival.wait, Event::Expire(index));
            }
        }
    }

    fn happen(&mut self, event: Event<R::Message>, now: Nanos) {
        match event {
            Event::Deliver(Letter { from, to, message, .. }) => {
                self.trace(now, 2, to);
                self.rule.hear(to, from, message, now, &mut self.outbox);
                self.post(now);
                self.serve_node(to, now);
            }
            Event::Send(letter) => {
                self.outbox.0.push(letter);
                self.post(now);
            }
            Event::Tick(node) => {
                self.trace(now, 3, node);
                self.rule.tick(node, now, &mut self.outbox);
                self.post(now);
                self.serve_node(node, now);
                self.at(now + R::TICK.unwrap_or(Nanos::MAX / 2), Event::Tick(node));
            }
            Event::Serve(queue) => {
                // An earlier attempt may have replaced it.
                if self.serve_at[queue] == now {
                    self.serve_at[queue] = Nanos::MAX;
                    self.serve(queue, now);
                }
            }
            Event::Expire(index) => {
                if !self.answered[index] {
                    self.answer(index, false, now);
                    self.serve(Self::queue_of(self.requests.get(index).node), now);
                }
            }
            Event::Step(index) => self.step(index, now),
            Event::Sample => {
                self.samples.push(Sample { at: now, held: self.rule.held(), in_flight: 0.0 });
                self.at(now + sample_every(self.scenario.nodes, self.scenario.end()), Event::Sample);
            }
        }
    }

    fn queue_of(node: usize) -> usize {
        if R::ONE_QUEUE { 0 } else { node }
    }

    fn serve_node(&mut self, node: usize, now: Nanos) {
        if node < self.scenario.nodes {
            self.serve(Self::queue_of(node), now);
        }
    }

    /// Answers from the front of a queue what can be answered.
    fn serve(&mut self, queue: usize, now: Nanos) {
        while let Some(index) = self.queues[queue].front().copied() {
            if self.answered[index] {
                self.queues[queue].pop_front();
                continue;
            }
            let verdict = self.rule.admit(self.requests.get(index), now, &mut self.outbox);
            self.post(now);
            match verdict {
                Verdict::Admitted | Verdict::Never => {
                    self.queues[queue].pop_front();
                    self.answer(index, verdict == Verdict::Admitted, now);
                }
                Verdict::At(at) => {
                    let at = at.max(now + 1);
                    if at < self.serve_at[queue] {
                        self.serve_at[queue] = at;
                        self.at(at, Event::Serve(queue));
                    }
                    return;
                }
                Verdict::Later => return,
            }
        }
    }

    fn answer(&mut self, index: usize, admitted: bool, now: Nanos) {
        let Arrival { at, node, units, class, call, .. } = *self.requests.get(index);
        self.answered[index] = true;
        self.requests.answered(index, admitted, now);
        if admitted {
            // Whoever goes over the limit goes on; the record says by how much.
            let until = call.over_at(now, self.scenario.limit().per());
            let _ = self.check.admit(call.used, until, now);
        }
        self.trace(now, 4 + u64::from(admitted), index);
        self.answers.push(Answer { at: now, node, units, waited: now - at, class, admitted });
    }

    /// Hands the outbox to the network.
    fn post(&mut self, now: Nanos) {
        for letter in std::mem::take(&mut self.outbox.0) {
            if (self.scenario.begin()..self.scenario.end()).contains(&now) {
                self.traffic.messages += 1;
                self.traffic.bytes += letter.bytes;
            }
            // Copies are thrown away: a connection does, and merging them twice changes nothing.
            match (self.network.judge(letter.from, letter.to, now)[0], letter.again) {
                (Fate::Deliver(delay), _) => self.at(now + delay, Event::Deliver(letter)),
                (Fate::Drop, Some(pause)) => {
                    let again = Some((2 * pause).min(AGAIN_MAX));
                    self.at(now + pause, Event::Send(Letter { again, ..letter }));
                }
                (Fate::Drop, None) => {}
            }
        }
    }

    /// A step of the scenario. Whoever is down or stands still gets no requests; it loses nothing else.
    fn step(&mut self, index: usize, now: Nanos) {
        match &self.scenario.step[index].fault {
            Fault::Crash(nodes) | Fault::CrashAfter { nodes, .. } | Fault::Leave(nodes) => {
                self.those(nodes, |machine| machine.is_up).for_each(|node| self.stop(node, now));
            }
            Fault::Wipe(nodes) => {
                self.those(nodes, |machine| machine.was_up).for_each(|node| self.stop(node, now));
            }
            Fault::Start(nodes) => {
                let up = Machine { is_up: true, was_up: true, paused_until: 0 };
                self.those(nodes, |machine| !machine.is_up).for_each(|node| self.machines[node] = up);
            }
            Fault::Pause { nodes, seconds } | Fault::Step { nodes, seconds } => {
                let until = now + nanos(*seconds);
                self.those(nodes, |machine| machine.is_up)
                    .for_each(|node| self.machines[node].paused_until = until);
            }
            Fault::CutOneWay { from, to } => {
                let (from, to) = (self.group(from), self.group(to));
                self.network.cuts.one_way(from, to);
            }
            Fault::Partition(nodes) => {
                let group = self.group(nodes);
                self.network.cuts.split(group);
            }
            Fault::Flap { nodes, seconds } => {
                let group = self.group(nodes);
                self.network.cuts.flap(group, now, nanos(*seconds));
            }
            // Rivals have no use for wall clocks.
            Fault::WallStep { .. } => {}
            Fault::Heal => self.network.cuts.heal(),
            Fault::Links(spec) => self.network.set_links(spec),
        }
    }

    fn those(&mut self, nodes: &Nodes, eligible: impl Fn(&Machine) -> bool) -> std::vec::IntoIter<usize> {
        let machines = &self.machines;
        nodes.resolve(machines.len(), &mut self.faults, |node| eligible(&machines[node])).into_iter()
    }

    fn group(&mut self, nodes: &Nodes) -> Group {
        let members: Vec<usize> = self.those(nodes, |_| true).collect();
        // One more than the nodes: the store, which is in no group.
        Group::new(self.scenario.nodes + 1, &members)
    }

    /// A node goes down; the requests that wait at it have failed.
    fn stop(&mut self, node: usize, now: Nanos) {
        self.machines[node].is_up = false;
        let queue = self.queues[Self::queue_of(node)].clone();
        for index in queue {
            if self.requests.get(index).node == node && !self.answered[index] {
                self.answer(index, false, now);
            }
        }
    }

    fn at(&mut self, at: Nanos, event: Event<R::Message>) {
        self.events.insert((at, self.numbers), event);
        self.numbers += 1;
    }

    /// FNV-1a over what happens, word by word.
    fn trace(&mut self, now: Nanos, what: u64, which: usize) {
        for word in [now, what, which as u64] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
