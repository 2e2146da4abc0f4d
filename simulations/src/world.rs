//! The core in a world of clocks, links and faults.
//!
//! One thread, one heap of events in order of true time. Cores are driven as the daemon drives them: every call is
//! followed by its outputs, carried out in order, and by one timer for the one deadline. Messages and saved states are
//! bytes. Checkers look at what happens after every event.

mod agenda;
mod calls;
mod faults;
mod liars;
mod links;
mod machine;
mod start;
mod trace;
mod watch;

use aquifer::protocol::id::NodeId;
use aquifer::protocol::limit::{Kind, QUEUE_DEFAULT};
use aquifer::protocol::message::Message;
use aquifer::protocol::node::{Input, Node, Outcome, Output, ROUND};
use aquifer::protocol::record::Value;
use aquifer::protocol::share::Share;
use aquifer::protocol::time::Instant;
use aquifer::wire;

use crate::checker::{Bounded, Conservation, Counters, Liveness, NeverOver, NoStarvation, Violation};
use crate::lie::{self, Lie};
use crate::network::Network;
use crate::random::{Purpose, Stream};
use crate::record::{Record, Traffic};
use crate::scenario::{PolicySpec, Scenario};
use crate::time::{Nanos, SEC, nanos};
use crate::workload::callers::Requests;
use agenda::{Agenda, Event};
use machine::{Machine, Party, node_id, party_of};
use trace::Trace;
use watch::Watch;

/// Runs a scenario with real cores.
///
/// # Errors
/// The first violation that a checker finds.
///
/// # Panics
/// If the scenario was not [checked](Scenario::check), or a core does.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Record, Violation> {
    run_with(scenario, seed, Requests::new(scenario, seed))
}

/// Runs a scenario with requests of one's own, in order of time, in place of its workloads'.
///
/// # Errors
/// The first violation that a checker finds.
///
/// # Panics
/// If the scenario was not [checked](Scenario::check), or a core does.
pub fn run_with(scenario: &Scenario, seed: u64, requests: Requests) -> Result<Record, Violation> {
    run_as_far_as_it_goes(scenario, seed, requests).map_err(|failed| failed.0)
}

/// As [`run_with`], and if something is violated what happened until then.
///
/// # Errors
/// The first violation that a checker finds, and the record up to it.
///
/// # Panics
/// If the scenario was not [checked](Scenario::check), or a core does.
pub fn run_as_far_as_it_goes(
    scenario: &Scenario,
    seed: u64,
    requests: Requests,
) -> Result<Record, Box<(Violation, Record)>> {
    let mut world = World::new(scenario, seed, requests);
    let told = world.told_of_liars();
    let run = world.begin().and_then(|()| world.run()).and_then(|()| world.check_end());
    if run.is_err() {
        let now = world.now;
        world.record.marks.retain(|mark| mark.at <= now);
    }
    let record = world.into_record();
    match run {
        Ok(()) => Ok(record),
        Err(violation) => Err(Box::new((Violation { what: violation.what + &told, ..violation }, record))),
    }
}

/// How often nodes read their wall clocks.
const READ_WALL: Nanos = 10 * SEC;

struct World<'a> {
    scenario: &'a Scenario,
    limit: Kind,
    seed: u64,
    now: Nanos,
    machines: Vec<Machine>,
    /// What each machine does; none where it is honest.
    lies: Vec<Option<Lie>>,
    agenda: Agenda,
    network: Network,
    /// Lateness of timers.
    timers: Stream,
    faults: Stream,
    dials: Stream,
    checks: Checks,
    watch: Watch,
    trace: Trace,
    requests: Requests,
    record: Record,
    /// Links are numbered, and the end of an old one ends no newer one.
    links: u64,
}

/// The checkers that look at the whole swarm.
struct Checks {
    never_over: NeverOver,
    conservation: Conservation,
    counters: Counters,
    starvation: NoStarvation,
    liveness: Liveness,
    bounded: Bounded,
    /// Whether T1 is promised, and T2 for what nodes run on, if all are honest. Base shares are conserved under every policy.
    strict: bool,
    /// Whether somebody may lend or give the same twice.
    twice: bool,
    /// Whether everybody is honest: liars keep others waiting, and say of themselves what they like.
    honest: bool,
    /// Whether the whole limit can be had in calm times: it cannot once a member lost its identity with its share.
    whole: bool,
    /// Whether what waits the longest must be served at some time: not where urgent calls may pass it for ever.
    in_turn: bool,
    /// How much later than a fault what it costs may come back.
    back: Nanos,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64, requests: Requests) -> Self {
        let nodes = scenario.nodes;
        let mut lies = lie::lies(scenario, seed);
        let sybils = scenario.sybils * lies.iter().filter(|lie| lie.is_none()).count();
        lies.extend((0..sybils).map(|_| Some(Lie::Demand)));
        let all = lies.len();
        let limit = scenario.limit();
        let largest = requests.largest();
        let weights: Vec<u32> = (0..nodes).map(|node| scenario.weight(node)).collect();
        let ratio = weights.iter().max().unwrap_or(&1) / weights.iter().min().unwrap_or(&1).max(&1);
        let pace = (limit.amount(), limit.per().as_nanos() as Nanos);
        // Where units come back one by one, what a fault costs counts as spent, and comes back as that does.
        let (reach, back) = match &limit {
            Kind::Rate(rate) => {
                let late = scenario.clocks.timers_late();
                ((Liveness::within_reach(rate.amount(), rate.burst(), late), SEC), 0)
            }
            _ => (pace, pace.1),
        };
        let checks = Checks {
            never_over: NeverOver::new(&limit, scenario.clocks.drift_ppm),
            conservation: Conservation::new(all),
            counters: Counters::new(all),
            starvation: NoStarvation::new(all, largest, pace, back, u64::from(ratio)),
            liveness: Liveness::new(all, largest, reach),
            bounded: Bounded::new(all, QUEUE_DEFAULT),
            strict: scenario.policy != PolicySpec::Available,
            twice: lies.iter().flatten().any(|lie| lie.spends_twice()),
            honest: lies.iter().all(Option::is_none),
            // What a period had is used up before it ends, and then everybody waits.
            whole: !matches!(limit, Kind::Calendar(_)),
            in_turn: scenario.workload.iter().all(|workload| workload.classes == [0; 4]),
            back,
        };
        let record = Record {
            scheme: "aquifer",
            nodes,
            weights,
            rate: scenario.per_second(),
            burst: limit.capacity() as f64,
            begin: scenario.begin(),
            end: scenario.end(),
            arrivals: Vec::new(),
            closed_loop: scenario.is_closed_loop(),
            answers: Vec::new(),
            samples: Vec::new(),
            marks: Vec::new(),
            spreads: Vec::new(),
            round: nanos(ROUND.as_secs_f64()),
            traffic: Traffic::default(),
            overshoot: 0.0,
            floors: Vec::new(),
            trace_hash: 0,
        };
        Self {
            scenario,
            limit,
            seed,
            now: 0,
            machines: (0..all).map(|node| Machine::new(node, &scenario.clocks, seed)).collect(),
            lies,
            agenda: Agenda::default(),
            network: Network::new(&scenario.links, seed),
            timers: Stream::new(seed, Purpose::Clocks, 0),
            faults: Stream::new(seed, Purpose::Faults, 0),
            dials: Stream::new(seed, Purpose::Network, 1),
            checks,
            watch: Watch::new(seed),
            trace: Trace::default(),
            requests,
            record,
            links: 0,
        }
    }

    /// Puts on the agenda what the scenario says.
    fn begin(&mut self) -> Result<(), Violation> {
        for (place, step) in self.scenario.step.iter().enumerate() {
            self.agenda.push(self.scenario.begin() + nanos(step.at), Event::Step(place));
        }
        self.record.marks = self.scenario.marks();
        self.agenda.push(0, Event::Sample);
        self.plan_probe(self.scenario.begin());
        self.begin_swarm()
    }

    fn run(&mut self) -> Result<(), Violation> {
        let end = self.scenario.end();
        loop {
            let arrival = self.requests.next_at();
            let event = self.agenda.next_at().unwrap_or(Nanos::MAX);
            if arrival.min(event) > end {
                return Ok(());
            }
            self.now = self.now.max(arrival.min(event));
            if arrival <= event {
                let number = self.requests.take();
                self.arrive(number)?;
            } else if let Some(event) = self.agenda.pop() {
                self.happen(event)?;
            }
        }
    }

    fn check_end(&mut self) -> Result<(), Violation> {
        self.now = self.scenario.end();
        (0..self.machines.len()).try_for_each(|place| self.check_overdue(place))
    }

    fn into_record(mut self) -> Record {
        self.end_watch();
        self.record.arrivals = self.requests.into_asked();
        self.record.overshoot = self.checks.never_over.overshoot();
        self.record.trace_hash = self.trace.hash();
        self.record
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        self.trace.event(self.now, &event);
        let Some(event) = self.not_while_it_stands_still(event) else { return Ok(()) };
        match event {
            Event::Deliver { to, from, bytes } => self.deliver(to, from, &bytes),
            Event::Timer { node, life } => self.timer(node, life),
            Event::Up(end) => self.link_up(end),
            Event::Down(end) => self.link_down(end),
            Event::Dial { node, peer, life } => {
                self.redial(node, peer, life);
                Ok(())
            }
            Event::Wall { node, life } => self.read_wall(node, life),
            Event::Settle { node, life, permit, used, expires } => {
                self.settle_permit(node, life, permit, used, expires)
            }
            Event::Lie { node, life } => {
                self.tell_lies(node, life);
                Ok(())
            }
            Event::Start(node) => self.start(node),
            Event::Sample => self.sample(),
            Event::Probe => self.probe(),
            Event::Step(place) => self.step(place),
        }
    }

    /// What happens to a node that stands still happens when it goes on; what is said to a suspended one is lost.
    fn not_while_it_stands_still(&mut self, event: Event) -> Option<Event> {
        let Some(place) = event.node() else { return Some(event) };
        let machine = &mut self.machines[place];
        if machine.paused_until <= self.now {
            return Some(event);
        }
        let mut at = machine.paused_until;
        match &event {
            Event::Deliver { .. } if machine.suspended => return None,
            Event::Timer { .. } => {
                at += self.scenario.clocks.lateness(&mut self.timers);
                machine.timer = Some(at);
            }
            _ => {}
        }
        self.agenda.push(at, event);
        None
    }

    fn deliver(&mut self, to: Party, from: Party, bytes: &[u8]) -> Result<(), Violation> {
        let machine = &self.machines[to.node()];
        if !machine.is_up() || machine.party() != to {
            return Ok(());
        }
        let message = match wire::decode_message(bytes) {
            Ok(message) => message,
            // What it takes to read is bounded more narrowly than what it takes to write.
            Err(_) if self.lie(from.node()).is_some() => return Ok(()),
            Err(error) => return Err(self.malformed(&error)),
        };
        let news = self.watch.news_in(to.node(), from, &message);
        self.input(to.node(), Input::Message(node_id(from), Box::new(message)))?;
        self.watch.heard(to.node(), &news, &self.machines, self.now);
        Ok(())
    }

    fn timer(&mut self, place: usize, life: u64) -> Result<(), Violation> {
        let machine = &mut self.machines[place];
        if machine.lives != life || machine.timer != Some(self.now) {
            return Ok(());
        }
        machine.timer = None;
        let Some(node) = &machine.node else { return Ok(()) };
        if node.next_deadline() > machine.clock.local(self.now) {
            self.set_timer(place);
            return Ok(());
        }
        self.input(place, Input::Timeout)
    }

    fn input(&mut self, place: usize, input: Input) -> Result<(), Violation> {
        if self.lie(place).is_some() {
            self.input_to_liar(place, &input);
            return Ok(());
        }
        let local = self.local(place);
        let Some(node) = &mut self.machines[place].node else { return Ok(()) };
        node.handle(input, local);
        self.checks.bounded.deadline(node.next_deadline().as_nanos(), local.as_nanos(), self.now)?;
        self.settle(place)
    }

    /// Carries out what came of a call, and looks whether all is well.
    fn settle(&mut self, place: usize) -> Result<(), Violation> {
        let mut outputs = 0;
        while let Some(output) = self.machines[place].node.as_mut().and_then(Node::poll_output) {
            outputs += 1;
            if self.machines[place].dies_now() {
                self.kill(place);
                break;
            }
            self.carry_out(place, output)?;
        }
        self.checks.bounded.outputs(outputs, self.now)?;
        self.set_timer(place);
        self.look_at(place)
    }

    fn carry_out(&mut self, place: usize, output: Output) -> Result<(), Violation> {
        match output {
            Output::Save(saved) => {
                let bases: Share = saved.ledger().bases(self.scenario.policy.into()).into_values().sum();
                Conservation::check_bases(place, bases, self.now)?;
                let bytes = wire::encode_saved(&saved).map_err(|error| self.malformed(&error))?;
                self.checks.bounded.saved(bytes.len(), self.now)?;
                self.trace.fold(&[bytes.len() as u64]);
                self.machines[place].saved = Some(bytes);
            }
            Output::Send(to, message) => self.send(place, to, &message)?,
            Output::Answer(ticket, outcome) => {
                let local = self.local(place).as_nanos();
                let admitted = matches!(outcome, Outcome::Admitted { .. });
                if admitted && self.machines[place].requests.is_oldest(ticket.0) {
                    self.checks.starvation.served(place, self.now);
                }
                let request = self.machines[place].requests.answer(ticket.0, admitted, local, self.now)?;
                self.trace.fold(&[ticket.0, u64::from(admitted)]);
                self.answered(place, request.number, request.asked, outcome)?;
            }
            Output::Close(peer) => self.close(place, party_of(peer)),
            Output::Reach(peer, _) => self.reach(place, party_of(peer)),
            Output::Forget(peer) => self.forget(place, party_of(peer)),
            Output::Left => {
                self.machines[place].requests.left(self.now)?;
                self.leave_for_good(place);
            }
            Output::Notice(_) => {}
        }
        Ok(())
    }

    fn send(&mut self, place: usize, to: NodeId, message: &Message) -> Result<(), Violation> {
        self.check_counters(place, message)?;
        let bytes = wire::encode_message(message).map_err(|error| self.malformed(&error))?;
        self.checks.bounded.message(bytes.len(), self.now)?;
        self.trace.bytes(&bytes);
        if self.now >= self.record.begin {
            self.record.traffic.messages += 1;
            self.record.traffic.bytes += bytes.len() as u64;
        }
        self.transmit(place, to, bytes);
        Ok(())
    }

    /// Nobody says of anybody that it admitted more than it did.
    fn check_counters(&mut self, place: usize, message: &Message) -> Result<(), Violation> {
        let me = self.machines[place].party();
        let own = message.news.iter().flat_map(|news| &news.entries);
        let own = own.map(|entry| (me, message.incarnation, &entry.value, true));
        let passed_on = message.deltas.iter().flat_map(|delta| {
            delta
                .records
                .iter()
                .map(|record| (party_of(delta.author), record.incarnation, &record.value, false))
        });
        for (author, life, value, is_news) in own.chain(passed_on) {
            let Value::Row(row) = value else { continue };
            if self.lies.get(author.node()).is_some_and(Option::is_some) {
                continue;
            }
            // What was signed is older than what was said since.
            if is_news && author == me && life.0 == self.machines[place].lives {
                self.checks.counters.say(place, row.used, self.now)?;
            } else {
                self.checks.counters.pass_on(author.node(), life.0, row.used, self.now)?;
            }
        }
        Ok(())
    }

    /// Sees to it that there is a timer at the deadline or before; one that goes off early is set anew.
    fn set_timer(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        let Some(node) = &machine.node else { return };
        let due = machine.clock.true_time(node.next_deadline()).max(self.now);
        if machine.timer.is_some_and(|at| at <= due) {
            return;
        }
        let at = due + self.scenario.clocks.lateness(&mut self.timers);
        // One that is late already goes off no later for being set again.
        if machine.timer.is_none_or(|known| at < known) {
            machine.timer = Some(at);
            self.agenda.push(at, Event::Timer { node: place, life: machine.lives });
        }
    }

    /// Tells the checkers how a node stands after a call.
    fn look_at(&mut self, place: usize) -> Result<(), Violation> {
        let machine = &mut self.machines[place];
        let held = machine.node.as_ref().map_or(Share::ZERO, |node| node.held(0));
        let waits = machine.requests.waiting() > 0;
        if waits != machine.waits {
            machine.waits = waits;
            self.checks.starvation.waits(place, waits, self.now);
            self.checks.liveness.waits(place, waits, self.now);
        }
        if let Some(node) = &machine.node {
            let (own, all) = (node.admitted(0), node.admitted_by_all(0));
            let all = if self.checks.honest { all } else { u128::from(own) };
            self.checks.counters.see(place, own, all, self.now)?;
        }
        self.checks.conservation.hold(place, held);
        if self.checks.strict && !self.checks.twice {
            let (machines, now) = (&self.machines, self.now);
            self.checks.conservation.check(now, |node| machines[node].is_due(now))?;
        }
        Ok(())
    }

    /// What a node's clock shows.
    fn local(&self, place: usize) -> Instant {
        self.machines[place].clock.local(self.now)
    }

    fn malformed(&self, error: &wire::WireError) -> Violation {
        Bounded::malformed(error, self.now)
    }
}

#[cfg(test)]
mod tests;
