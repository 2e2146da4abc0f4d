//! Members that lie, in the world: they speak over the same links, and nothing that they do themselves is checked.

use aquifer::protocol::id::{LedgerId, NodeId};
use aquifer::protocol::limit::Limit;
use aquifer::protocol::node::Input;
use aquifer::protocol::share::{ONE, Share};
use aquifer::wire;

use super::World;
use super::agenda::Event;
use super::machine::{node_id, party_of};
use crate::checker::{Property, Violation};
use crate::liar::{Known, Liar, Said, TICK};
use crate::lie::Lie;
use crate::network::Verdict;
use crate::random::{Purpose, Stream};
use crate::scenario::StartSpec;
use crate::time::{MS, Nanos, SEC};

/// The longest for which loans that no book shows are held: patience of four times as long as books are apart, a little
/// more for clocks, two seconds until it is looked at, and a lease's time.
fn believed(nodes: usize) -> Nanos {
    (8 * SEC).max(400 * MS * nodes as Nanos) + 5 * SEC
}

impl World<'_> {
    /// What a node does, if it lies.
    pub(super) fn lie(&self, place: usize) -> Option<Lie> {
        self.lies[place]
    }

    /// Nodes that are no made-up identities.
    pub(super) fn is_node(&self, place: usize) -> bool {
        place < self.scenario.nodes
    }

    /// Who lies, and how, to tell with what went wrong.
    pub(super) fn told_of_liars(&self) -> String {
        let nodes = self.lies.iter().take(self.scenario.nodes).enumerate();
        let liars: Vec<String> =
            nodes.filter_map(|(node, lie)| lie.map(|lie| format!("node {node} {lie:?}"))).collect();
        if liars.is_empty() { String::new() } else { format!("; liars: {}", liars.join(", ")) }
    }

    /// Who vouches for made-up identities.
    pub(super) fn voucher(&self) -> Option<usize> {
        self.lies.iter().take(self.scenario.nodes).position(Option::is_some)
    }

    /// Begins the life of a liar.
    pub(super) fn start_liar(&mut self, place: usize, lie: Lie, limit: &Limit) {
        let machine = &self.machines[place];
        let life = machine.lives;
        let formed = self.scenario.start == StartSpec::Formed && machine.is_first_identity();
        let nodes = self.scenario.nodes;
        let base = if formed && self.is_node(place) { ONE.scale(1, nodes as u64) } else { Share::ZERO };
        let others = (0..nodes).filter(|other| *other != place && self.lies[*other].is_some());
        let known = Known {
            id: node_id(machine.party()),
            life,
            ledger: formed.then(|| LedgerId(node_id(self.machines[0].party()))),
            limit: (limit.fingerprint("pool"), limit.kind.clone()),
            base,
            accomplices: others.map(|other| node_id(self.machines[other].party())).collect(),
        };
        let stream = Stream::new(self.seed, Purpose::Liars, (place as u64 + 1) << 24 | life);
        self.machines[place].liar = Some(Box::new(Liar::new(known, lie, stream)));
        // Not all at the same moment.
        let wait = TICK * (place as u64 % 16) / 16;
        self.agenda.push(self.now + wait, Event::Lie { node: place, life });
        for other in 0..nodes {
            if other != place && self.lies[other].is_none() {
                self.reach(place, self.machines[other].party());
            }
        }
    }

    /// A liar's time has come.
    pub(super) fn tell_lies(&mut self, place: usize, life: u64) {
        let local = self.local(place);
        let machine = &mut self.machines[place];
        if machine.lives != life {
            return;
        }
        let Some(liar) = &mut machine.liar else { return };
        let said = liar.tick(local);
        self.say(place, said);
        self.agenda.push(self.now + TICK, Event::Lie { node: place, life });
    }

    /// Something happens to a liar.
    pub(super) fn input_to_liar(&mut self, place: usize, input: &Input) {
        let local = self.local(place);
        let Some(liar) = &mut self.machines[place].liar else { return };
        let said = match input {
            Input::Up(peer) => liar.up(*peer, local),
            Input::Down(peer) => {
                liar.down(*peer);
                return;
            }
            Input::Message(from, message) => liar.hear(*from, message, local),
            Input::Timeout => return,
        };
        self.say(place, said);
    }

    fn say(&mut self, place: usize, said: Said) {
        for (to, message) in said {
            // What does not fit a message cannot be said, even by a liar.
            if let Ok(bytes) = wire::encode_message(&message) {
                self.trace.bytes(&bytes);
                self.transmit(place, to, bytes);
            }
        }
    }

    /// Hands bytes to the network.
    pub(super) fn transmit(&mut self, place: usize, to: NodeId, bytes: Vec<u8>) {
        let (from, to) = (self.machines[place].party(), party_of(to));
        if to.node() >= self.machines.len() {
            return;
        }
        let [first, copy] = self.network.judge(place, to.node(), self.now);
        if let Verdict::Deliver(delay) = copy {
            self.agenda.push(self.now + delay, Event::Deliver { to, from, bytes: bytes.clone() });
        }
        if let Verdict::Deliver(delay) = first {
            self.agenda.push(self.now + delay, Event::Deliver { to, from, bytes });
        }
    }

    /// The most units by which honest nodes may have exceeded the limit by now, in any interval: what the base shares of
    /// those who lend or give them twice are worth, for each honest node but the one that has them by right. Loans are
    /// believed without books for so long only.
    pub(super) fn may_exceed_by(&self) -> f64 {
        let honest = self.lies.iter().filter(|lie| lie.is_none()).count() as f64;
        let nodes = self.scenario.nodes as f64;
        let worth = |lie: Lie| {
            let time = if lie.lends_twice() { self.now.min(believed(self.scenario.nodes)) } else { self.now };
            let periods = 2.0 + time as f64 / self.limit.per().as_nanos() as f64;
            self.limit.capacity() as f64 + self.limit.amount() as f64 * periods
        };
        let twice = self.lies.iter().flatten().filter(|lie| lie.spends_twice());
        let worth: f64 = twice.map(|lie| worth(*lie)).sum();
        worth / nodes * (honest - 1.0).max(0.0)
    }

    /// Checks that nobody moved the page of an honest node but itself: no other honest node knows more of it than there is.
    pub(super) fn check_pages(&self, place: usize) -> Result<(), Violation> {
        let Some(node) = &self.machines[place].node else { return Ok(()) };
        for (other, machine) in self.machines.iter().enumerate() {
            let Some(author) = machine.node.as_ref().filter(|_| other != place) else { continue };
            let id = node_id(machine.party());
            let version = |known: Option<(aquifer::protocol::id::Incarnation, u64)>| {
                known.map(|(life, version)| (life.0, version))
            };
            let known = version(node.page_version(&id));
            self.checks.counters.page(place, other, known, version(author.page_version(&id)), self.now)?;
        }
        Ok(())
    }

    /// Checks that an honest node holds nothing against another, and does not doubt it either.
    pub(super) fn check_cases(&self, place: usize) -> Result<(), Violation> {
        let honest = (0..self.lies.len()).filter(|other| self.lies[*other].is_none());
        for other in honest.filter(|_| self.lies[place].is_none()) {
            let node = self.machines[place].node.as_ref();
            let party = self.machines[other].party();
            let reasons = node.map(|node| node.reasons(&node_id(party))).unwrap_or_default();
            if !reasons.is_empty() {
                let reasons = reasons.join("; ");
                let what = format!("node {place} holds against node {other}, which is honest: {reasons}");
                return Err(Violation { property: Property::Innocence, at: self.now, what });
            }
        }
        Ok(())
    }

    /// Writes down what the base share of every honest node is worth when the measured span begins.
    pub(super) fn note_floors(&mut self) {
        if !self.lies.iter().any(Option::is_some)
            || self.now < self.record.begin
            || !self.record.floors.is_empty()
        {
            return;
        }
        let base = |machine: &super::Machine| {
            let node = machine.node.as_ref()?;
            node.bases().get(&node.id()).map(|base| base.fraction())
        };
        let bases =
            self.machines.iter().take(self.scenario.nodes).map(|machine| base(machine).unwrap_or(0.0));
        // In a formed swarm what all began with, even if it was stolen meanwhile.
        let part = 1.0 / self.scenario.nodes as f64;
        let formed = self.scenario.start == StartSpec::Formed;
        let honest = self.lies.iter().map(Option::is_none);
        let floor = |(base, honest): (f64, bool)| match (honest, formed) {
            (false, _) => 0.0,
            (true, true) => part,
            (true, false) => base,
        };
        self.record.floors = bases.zip(honest).map(|it| floor(it) * self.record.rate).collect();
    }
}
