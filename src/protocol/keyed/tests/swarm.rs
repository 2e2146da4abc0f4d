//! Several nodes that share the limits of a few keys, while base share moves between them.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// One thing that happens in a swarm whose nodes share the limits of a few keys. Nodes and keys are counted modulo how
/// many there are.
#[derive(Clone, Debug)]
enum Step {
    Ask(usize, u128, [u64; 2]),
    /// Takes one by one whatever is there.
    Drain(usize, u128),
    Refund(usize, u128, u64),
    Owe(usize, u128, u64),
    /// So many per cent of the giver's base share leave it now, and come to the receiver later.
    Give(usize, usize, u64),
    Arrive,
    /// So many changes of base share at once, which end where they began.
    Flap(usize, usize),
    Sweep(usize),
    Promote(usize, u128),
    Demote(usize, u128),
    /// A moment of before is handed in.
    Back(usize, u64),
    /// The node loses everything but its base share.
    Restart(usize),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let (node, key) = (0..4_usize, 0..3_u128);
    let step = prop_oneof![
        4 => (node.clone(), key.clone(), [1..8_u64, 0..8_u64]).prop_map(|(node, key, units)| Step::Ask(node, key, units)),
        4 => (node.clone(), key.clone()).prop_map(|(node, key)| Step::Drain(node, key)),
        1 => (node.clone(), key.clone(), 1..20_u64).prop_map(|(node, key, units)| Step::Refund(node, key, units)),
        1 => (node.clone(), key.clone(), 1..9_u64).prop_map(|(node, key, units)| Step::Owe(node, key, units)),
        5 => (node.clone(), node.clone(), 1..=100_u64).prop_map(|(from, to, percent)| Step::Give(from, to, percent)),
        4 => Just(Step::Arrive),
        1 => (node.clone(), 0..=CHANGES_MAX).prop_map(|(node, times)| Step::Flap(node, times)),
        2 => node.clone().prop_map(Step::Sweep),
        1 => (node.clone(), key.clone()).prop_map(|(node, key)| Step::Promote(node, key)),
        1 => (node.clone(), key.clone()).prop_map(|(node, key)| Step::Demote(node, key)),
        1 => (node.clone(), 1..9 * SEC).prop_map(|(node, nanos)| Step::Back(node, nanos)),
        1 => node.prop_map(Step::Restart),
    ];
    vec((prop_oneof![2 => Just(0), 2 => 0..SEC / 2, 1 => 0..5 * SEC], step), 1..60)
}

struct Member {
    keys: Keys,
    base: Share,
    /// What promoted keys run on.
    meters: BTreeMap<KeyHash, Vec<LeakyBucket>>,
    /// The last admission: when, its place among all of the key, and its units of the first limit.
    last: BTreeMap<KeyHash, (u64, usize, u64)>,
}

struct Swarm {
    rates: Vec<Rate>,
    members: Vec<Member>,
    in_flight: VecDeque<(usize, Share)>,
    now: u64,
    /// By key: when, and units of each limit that were not given back.
    admitted: BTreeMap<KeyHash, Vec<(u64, [i128; 2])>>,
}

impl Swarm {
    fn new(rates: Vec<Rate>, size: usize) -> Self {
        let member = |_| Member {
            keys: Keys::new(rates.clone(), 8, at(0)),
            base: Share::ZERO,
            meters: BTreeMap::new(),
            last: BTreeMap::new(),
        };
        let mut members: Vec<Member> = (0..size).map(member).collect();
        members[0].keys.start_full(ONE, at(0));
        members[0].base = ONE;
        Self { rates, members, in_flight: VecDeque::new(), now: 0, admitted: BTreeMap::new() }
    }

    fn ask(&mut self, node: usize, key: KeyHash, units: [u64; 2]) -> bool {
        let (now, member) = (at(self.now), &mut self.members[node]);
        let admitted = match member.keys.acquire(key, &units, now) {
            Taken::Admitted => true,
            Taken::Promoted => {
                let meters = member.meters.get_mut(&key).expect("a promoted key has meters");
                meters.iter_mut().for_each(|meter| meter.refill(now));
                let has = |(meter, units): (&LeakyBucket, u64)| {
                    meter.level() >= LeakyBucket::level_of(units, meter.rate())
                };
                let has = meters.iter().zip(units).all(has);
                if has {
                    meters.iter_mut().zip(units).for_each(|(meter, units)| meter.take(units));
                }
                has
            }
            Taken::Lacking { .. } | Taken::Full => false,
        };
        if admitted {
            let admitted = self.admitted.entry(key).or_default();
            member.last.insert(key, (self.now, admitted.len(), units[0]));
            admitted.push((self.now, units.map(i128::from)));
        }
        admitted
    }

    fn drain(&mut self, node: usize, key: KeyHash) {
        while self.ask(node, key, [1, 0]) {}
        while self.ask(node, key, [0, 1]) {}
    }

    fn set_base(&mut self, node: usize, base: Share) {
        let (now, member) = (at(self.now), &mut self.members[node]);
        member.keys.set_base(base, now);
        for meter in member.meters.values_mut().flatten() {
            meter.refill(now);
            if base > member.base {
                meter.grow(base - member.base, Level::ZERO);
            } else {
                meter.shrink(member.base - base, Level::ZERO);
            }
        }
        member.base = base;
    }

    fn arrive(&mut self) {
        if let Some((node, share)) = self.in_flight.pop_front() {
            self.set_base(node, self.members[node].base + share);
        }
    }

    fn take(&mut self, step: &Step) {
        let now = at(self.now);
        let size = self.members.len();
        match *step {
            Step::Ask(node, key, units) => {
                self.ask(node % size, KeyHash(key), units);
            }
            Step::Drain(node, key) => self.drain(node % size, KeyHash(key)),
            Step::Refund(node, key, units) => {
                let (key, member) = (KeyHash(key), &mut self.members[node % size]);
                if let Some((since, place, most)) = member.last.remove(&key) {
                    let units = units.min(most);
                    if member.keys.refund(key, &[units, 0], at(since), now) {
                        // As if it had never been taken.
                        self.admitted.get_mut(&key).expect("it was admitted")[place].1[0] -=
                            i128::from(units);
                    }
                }
            }
            Step::Owe(node, key, units) => {
                self.members[node % size].keys.owe(KeyHash(key), &[units, units], now);
            }
            Step::Give(from, to, percent) => {
                let (from, to) = (from % size, to % size);
                let share = self.members[from].base.scale(percent, 100);
                self.set_base(from, self.members[from].base - share);
                self.in_flight.push_back((to, share));
            }
            Step::Arrive => self.arrive(),
            Step::Flap(node, times) => {
                let node = node % size;
                let base = self.members[node].base;
                for time in 0..times {
                    self.set_base(node, base - Share(time as u64).min(base));
                }
                self.set_base(node, base);
            }
            Step::Sweep(node) => {
                self.members[node % size].keys.sweep(10, now);
            }
            Step::Promote(node, key) => {
                let (key, member) = (KeyHash(key), &mut self.members[node % size]);
                if let Some(balances) = member.keys.promote(key, now) {
                    let meter = |(balance, rate): (&Balance, &Rate)| {
                        let mut meter = LeakyBucket::new(*rate, now);
                        meter.grow(member.base, balance.level());
                        meter
                    };
                    member.meters.insert(key, balances.iter().zip(&self.rates).map(meter).collect());
                }
            }
            Step::Demote(node, key) => {
                let (key, member) = (KeyHash(key), &mut self.members[node % size]);
                if let Some(meters) = member.meters.get_mut(&key) {
                    meters.iter_mut().for_each(|meter| meter.refill(now));
                    let balance = |meter: &LeakyBucket| Balance::new(meter.level(), Level::ZERO);
                    let balances: Vec<Balance> = meters.iter().map(balance).collect();
                    if member.keys.demote(key, member.base, &balances, now) {
                        member.meters.remove(&key);
                    }
                }
            }
            Step::Back(node, nanos) => {
                let before = at(self.now.saturating_sub(nanos));
                let member = &mut self.members[node % size];
                member.keys.sweep(0, now);
                member.keys.sweep(1, before);
            }
            Step::Restart(node) => {
                let member = &mut self.members[node % size];
                member.keys = Keys::new(self.rates.clone(), 8, now);
                member.keys.set_base(member.base, now);
                member.meters.clear();
                member.last.clear();
            }
        }
    }

    /// Every interval that begins and ends with an admission, by the definition of the limit.
    fn check(&self) -> Result<(), TestCaseError> {
        for (key, admitted) in &self.admitted {
            for (place, rate) in self.rates.iter().enumerate() {
                let (amount, per) = (i128::from(rate.amount()), i128::from(rate.per_nanos()));
                for (first, (from, _)) in admitted.iter().enumerate() {
                    let mut units = 0;
                    for (to, more) in &admitted[first..] {
                        units += more[place];
                        let allowed = i128::from(rate.burst()) * per + amount * i128::from(to - from);
                        prop_assert!(
                            units * per <= allowed,
                            "{key:?}: {units} of {rate:?} from {from} to {to}"
                        );
                    }
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_key_is_ever_over_its_limit_on_all_nodes_together(
        size in 2..=4_usize, amounts in [1..20_u64, 1..20_u64], bursts in [4..24_u64, 4..24_u64], steps in steps(),
    ) {
        let rates = vec![rate(amounts[0], bursts[0]), rate(amounts[1], bursts[1])];
        let mut swarm = Swarm::new(rates, size);
        for (wait, step) in &steps {
            swarm.now += wait;
            swarm.take(step);
        }
        while !swarm.in_flight.is_empty() {
            swarm.arrive();
        }
        for (node, key) in (0..size).flat_map(|node| (0..3).map(move |key| (node, KeyHash(key)))) {
            swarm.drain(node, key);
        }
        swarm.check()?;
    }
}
