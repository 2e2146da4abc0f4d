//! What is looked at now and then: samples and news for the record, and what checkers look at in turn.

use std::collections::BTreeMap;

use aquifer::protocol::gossip::Record;
use aquifer::protocol::gossip::Summary;
use aquifer::protocol::id::NodeId;
use aquifer::protocol::message::Message;
use aquifer::protocol::share::{ONE, Share};

use super::World;
use super::agenda::Event;
use super::machine::{Machine, Party, node_id, party_of};
use super::start::address;
use crate::checker::{Conservation, Liveness, VIEWS_MAX, Version, Violation};
use crate::clock::timers_allowance;
use crate::random::{Purpose, Stream};
use crate::record::{Sample, Spread, sample_every};
use crate::time::{Nanos, SEC, nanos};

/// News is put out no later than so long before the end: what had less time was not missed.
const SPREADS_FOR: Nanos = 5 * SEC;

/// What is watched.
pub(super) struct Watch {
    probes: Stream,
    /// News that not everybody knows, by the machine that put it out, the life in which it did, and the version of its page
    /// since then.
    news: BTreeMap<Key, News>,
    spreads: Vec<Spread>,
    put_out: u64,
    /// Since when nothing is wrong.
    calm: Option<Nanos>,
    /// Whose turn it is to be looked at.
    turn: usize,
    /// How things were at a moment since which nothing went wrong.
    then: Option<Then>,
    /// What everybody counts of all by now, if nothing went wrong for long enough.
    total: Option<u128>,
}

struct Then {
    at: Nanos,
    /// How far everybody's own page was.
    versions: Vec<Option<Version>>,
    /// The most that anybody counted of all.
    total: u128,
}

type Key = (usize, Version);

struct News {
    at: Nanos,
    /// Who could hear of it and does not know it.
    lacking: Vec<bool>,
    reached_after: Vec<Nanos>,
}

impl Watch {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            probes: Stream::new(seed, Purpose::Probes, 0),
            news: BTreeMap::new(),
            spreads: Vec::new(),
            put_out: 0,
            calm: None,
            turn: 0,
            then: None,
            total: None,
        }
    }

    /// The news in a message that its recipient does not know: of the sender's own page, and of pages passed on.
    pub(super) fn news_in(&self, to: usize, from: Party, message: &Message) -> Vec<Key> {
        let mut told = Vec::new();
        if !self.news.is_empty() {
            let own = message.news.iter().map(|news| (from, message.incarnation.0, news.upto));
            let others = message.deltas.iter().flat_map(|delta| {
                let record = |record: &Record| (party_of(delta.author), record.incarnation.0, record.version);
                delta.records.iter().map(record)
            });
            for (author, life, upto) in own.chain(others) {
                let author = author.node();
                let news = self.news.range((author, (life, 0))..=(author, (life, upto)));
                told.extend(news.filter(|(_, news)| news.lacking[to]).map(|(key, _)| *key));
            }
        }
        told
    }

    /// A node heard a message with these news in it. It knows what it took in.
    pub(super) fn heard(&mut self, to: usize, told: &[Key], machines: &[Machine], now: Nanos) {
        let Some(node) = machines[to].node.as_ref().filter(|_| !told.is_empty()) else { return };
        for key in told {
            let author = node_id(machines[key.0].party());
            let Some(news) = self.news.get_mut(key).filter(|news| news.lacking[to]) else { continue };
            let known = node.page_version(&author).map(|(life, version)| (life.0, version));
            if known >= Some(key.1) {
                news.lacking[to] = false;
                news.reached_after.push(now - news.at);
                if !news.lacking.contains(&true) {
                    let news = self.news.remove(key).expect("BUG! it was just there");
                    self.spreads.push(Spread { at: news.at, reached_after: news.reached_after, missed: 0 });
                }
            }
        }
    }
}

impl World<'_> {
    /// Something goes wrong, or right again.
    pub(super) fn disturbed(&mut self) {
        (self.watch.calm, self.watch.then, self.watch.total) = (None, None, None);
    }

    /// Writes down how the limit is divided, and looks at what is too dear to look at after every event.
    pub(super) fn sample(&mut self) -> Result<(), Violation> {
        self.agenda.push(self.now + sample_every(self.scenario.nodes, self.scenario.end()), Event::Sample);
        let held = |machine: &Machine| machine.node.as_ref().map_or(Share::ZERO, |node| node.held(0));
        self.note_floors();
        let shares: Vec<Share> = self.machines.iter().take(self.scenario.nodes).map(held).collect();
        let in_flight = ONE.saturating_sub(shares.iter().copied().sum()).fraction() as f32;
        let held = shares.iter().map(|share| share.fraction() as f32).collect();
        self.record.samples.push(Sample { at: self.now, held, in_flight });

        self.watch.turn = (self.watch.turn + 1) % self.machines.len();
        self.look_closely_at(self.watch.turn)?;
        self.check_progress()
    }

    /// Has news put out, if there is time for it to spread.
    pub(super) fn plan_probe(&mut self, at: Nanos) {
        if self.scenario.probe_every > 0.0 && at + SPREADS_FOR <= self.scenario.end() {
            self.agenda.push(at, Event::Probe);
        }
    }

    /// Puts out news at a random node: it is reached at one more address.
    pub(super) fn probe(&mut self) -> Result<(), Violation> {
        self.plan_probe(self.now + nanos(self.scenario.probe_every));
        let hears = |machine: &Machine| machine.is_up() && machine.paused_until <= self.now;
        let live: Vec<usize> =
            (0..self.machines.len()).filter(|place| hears(&self.machines[*place])).collect();
        if live.is_empty() {
            return Ok(());
        }
        let place = live[self.watch.probes.below(live.len() as u64) as usize];
        self.watch.put_out += 1;
        let addresses = vec![address(place), format!("{}/news/{}", address(place), self.watch.put_out)];
        self.command(place, |node, now| node.set_addresses(addresses, now))?;
        let Some(node) = &self.machines[place].node else { return Ok(()) };
        let Some(version) = known(&node.knowledge(), node.id()) else { return Ok(()) };
        let lacking: Vec<bool> =
            (0..self.machines.len()).map(|other| other != place && self.machines[other].is_up()).collect();
        if lacking.contains(&true) {
            let news = News { at: self.now, lacking, reached_after: Vec::new() };
            self.watch.news.insert((place, version), news);
        }
        Ok(())
    }

    /// Writes down what is left of the news.
    pub(super) fn end_watch(&mut self) {
        for news in std::mem::take(&mut self.watch.news).into_values() {
            let still_there = |place: &usize| news.lacking[*place] && self.machines[*place].is_up();
            let missed = (0..self.machines.len()).filter(still_there).count();
            self.watch.spreads.push(Spread { at: news.at, reached_after: news.reached_after, missed });
        }
        self.watch.spreads.sort_by_key(|spread| spread.at);
        self.record.spreads = std::mem::take(&mut self.watch.spreads);
    }

    /// Looks whether everybody at a node had an answer in time.
    pub(super) fn check_overdue(&self, place: usize) -> Result<(), Violation> {
        let machine = &self.machines[place];
        let allowance = timers_allowance(&self.scenario.clocks);
        if !machine.is_up() || machine.paused_until + allowance > self.now {
            return Ok(());
        }
        let then = machine.clock.local(self.now.saturating_sub(allowance));
        machine.requests.overdue(then.as_nanos(), self.now)
    }

    fn look_closely_at(&mut self, place: usize) -> Result<(), Violation> {
        self.check_overdue(place)?;
        self.check_pages(place)?;
        self.check_cases(place)?;
        let (now, local) = (self.now, self.local(place));
        let machine = &mut self.machines[place];
        let Some(node) = machine.node.as_mut().filter(|_| machine.paused_until <= now) else { return Ok(()) };
        Conservation::check_bases(place, node.bases().values().copied().sum(), now)?;
        self.checks.bounded.pages(node.knowledge().len(), now)?;
        // A view ends what is over; then there would be something to carry out.
        if node.next_deadline() > local {
            let limit = node.pool_view(0, local).limits.remove(0);
            let all = if self.checks.honest { limit.admitted_by_all } else { u128::from(limit.admitted) };
            self.checks.counters.see(place, limit.admitted, all, now)?;
            if let Some(should) = self.watch.total.filter(|_| self.checks.honest) {
                self.checks.liveness.check_total(place, limit.admitted_by_all, should, now)?;
            }
        }
        Ok(())
    }

    /// Looks whether things go on while nothing is wrong.
    fn check_progress(&mut self) -> Result<(), Violation> {
        let wrong = |machine: &Machine| {
            machine.paused_until > self.now || (machine.lives > 0 && !machine.is_up() && !machine.left)
        };
        if self.network.cuts.any() || self.machines.iter().any(wrong) {
            self.disturbed();
        } else if self.watch.calm.is_none() {
            self.watch.calm = Some(self.now);
        }
        // Until links are up, which many nodes need no more time for than few, nothing need go on.
        let settled = self
            .watch
            .calm
            .map(|calm| calm + Liveness::bound(0) + self.checks.back)
            .filter(|at| *at <= self.now);
        let Some(settled) = settled else {
            self.checks.liveness.start_over(self.now);
            return self.check_views();
        };
        if self.checks.whole && self.checks.honest {
            if self.checks.in_turn {
                self.checks.starvation.check(settled, self.now)?;
            }
            self.checks.liveness.check_work(self.now)?;
        }
        self.check_views()
    }

    /// Looks whether everybody knows everybody's page as it was a while ago, if nothing went wrong since then; and from now
    /// on also whether everybody counts what anybody counted then.
    fn check_views(&mut self) -> Result<(), Violation> {
        if self.machines.len() > VIEWS_MAX || self.watch.calm.is_none() {
            return Ok(());
        }
        if self
            .watch
            .then
            .as_ref()
            .is_some_and(|then| then.at + Liveness::bound(self.machines.len()) > self.now)
        {
            return Ok(());
        }
        let knowledge: Vec<Option<Vec<Summary>>> =
            self.machines.iter().map(|machine| Some(machine.node.as_ref()?.knowledge())).collect();
        let id = |place: usize| node_id(self.machines[place].party());
        let then = self.watch.then.take();
        self.watch.total = then.as_ref().map(|then| then.total);
        for (author, should) in then.into_iter().flat_map(|then| then.versions).enumerate() {
            let Some(should) = should.filter(|_| knowledge[author].is_some()) else { continue };
            for (place, knowledge) in knowledge.iter().enumerate() {
                if let Some(knowledge) = knowledge {
                    let known = known(knowledge, id(author));
                    self.checks.liveness.check_view(place, author, known, should, self.now)?;
                }
            }
        }
        let own = |(place, knowledge): (usize, &Option<Vec<Summary>>)| known(knowledge.as_ref()?, id(place));
        let versions = knowledge.iter().enumerate().map(own).collect();
        let up = (0..self.machines.len()).filter(|place| self.machines[*place].is_up());
        let total = up.map(|place| self.checks.counters.seen(place)).max().unwrap_or(0);
        self.watch.then = Some(Then { at: self.now, versions, total });
        Ok(())
    }
}

/// How far the latest life of an author is known.
fn known(knowledge: &[Summary], author: NodeId) -> Option<Version> {
    let from = knowledge.partition_point(|summary| summary.author < author);
    let lives = knowledge[from..].iter().take_while(|summary| summary.author == author);
    lives.map(|summary| (summary.incarnation.0, summary.version)).max()
}
