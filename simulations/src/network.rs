//! Links, and what they do to messages.
//!
//! The contract is the weakest: a message may be lost, doubled, late, or overtake another. Every link has a base latency
//! of its own, drawn once from the seed; every message takes at least a part of that, and waits in queues for the rest.

mod cuts;
mod links;

pub use cuts::{Cuts, Group};
pub use links::{LinkError, LinkSpec, Preset};

use crate::random::{Purpose, Stream};
use crate::time::{MS, Nanos};
use links::Link;

/// What becomes of one copy of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It never arrives.
    Drop,
    /// It arrives after so long.
    Deliver(Nanos),
}

/// All links of a run.
#[derive(Clone, Debug)]
pub struct Network {
    link: Link,
    /// What of it is cut.
    pub cuts: Cuts,
    seed: u64,
    stream: Stream,
}

impl Network {
    /// Links like these between all nodes.
    pub fn new(spec: &LinkSpec, seed: u64) -> Self {
        let stream = Stream::new(seed, Purpose::Network, 0);
        Self { link: spec.link(), cuts: Cuts::default(), seed, stream }
    }

    /// From here on links are like this. Which are long and which are short stays as it is.
    pub fn set_links(&mut self, spec: &LinkSpec) {
        self.link = spec.link();
    }

    /// What becomes of a message that is sent at `now`: of itself, and of a copy if there is one.
    pub fn judge(&mut self, from: usize, to: usize, now: Nanos) -> [Verdict; 2] {
        if self.cuts.is_cut(from, to, now) || self.happens(self.link.loss) {
            return [Verdict::Drop; 2];
        }
        let reordered = self.happens(self.link.reorder);
        let copy = if self.happens(self.link.duplicate) {
            Verdict::Deliver(self.delay(from, to, true))
        } else {
            Verdict::Drop
        };
        [Verdict::Deliver(self.delay(from, to, reordered)), copy]
    }

    /// How long something takes from one node to another.
    pub fn hop(&mut self, from: usize, to: usize) -> Nanos {
        self.delay(from, to, false)
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.stream.chance(probability)
    }

    fn delay(&mut self, from: usize, to: usize, detour: bool) -> Nanos {
        let base = self.base(from, to);
        let mut delay = base * (1.0 - self.link.jitter);
        if self.link.jitter > 0.0 {
            delay += self.stream.exponential(base * self.link.jitter);
        }
        if detour {
            delay += base * (1.0 + 3.0 * self.stream.unit());
        }
        delay as Nanos
    }

    /// The mean latency of a link, in nanoseconds: the same both ways and for the whole run, without being stored.
    fn base(&self, one: usize, other: usize) -> f64 {
        let pair = (one.min(other) as u64) << 32 | one.max(other) as u64;
        let unit = (mix(pair ^ mix(self.seed)) >> 11) as f64 / (1_u64 << 53) as f64;
        self.link.hop_ms * MS as f64 * (1.0 + self.link.spread * (2.0 * unit - 1.0))
    }
}

/// The finalizer of `SplitMix64` (Steele et al. 2014).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(spec: &LinkSpec, messages: usize) -> Vec<Option<Nanos>> {
        let mut network = Network::new(spec, 5);
        let delay = |verdict: Verdict| match verdict {
            Verdict::Drop => None,
            Verdict::Deliver(delay) => Some(delay),
        };
        (0..messages).map(|_| delay(network.judge(0, 1, 0)[0])).collect()
    }

    #[test]
    fn messages_take_the_hop_on_average_and_never_less_than_its_fixed_part() {
        let spec =
            LinkSpec { hop_ms: Some(20.0), jitter: Some(0.25), spread: Some(0.0), ..LinkSpec::default() };
        let delays: Vec<Nanos> = delays(&spec, 20_000).into_iter().flatten().collect();
        assert_eq!(delays.len(), 20_000);
        let mean = delays.iter().sum::<Nanos>() / delays.len() as u64;
        assert!((19 * MS..21 * MS).contains(&mean), "{mean}");
        assert!(delays.iter().all(|delay| *delay >= 15 * MS));
        assert!(delays.iter().any(|delay| *delay > 30 * MS), "the tail is long");
    }

    #[test]
    fn loss_and_duplication_come_as_often_as_said() {
        let spec = LinkSpec { loss: Some(10.0), duplicate: Some(20.0), ..LinkSpec::default() };
        let mut network = Network::new(&spec, 5);
        let verdicts: Vec<_> = (0..10_000).map(|_| network.judge(3, 4, 0)).collect();
        let lost = verdicts.iter().filter(|verdicts| verdicts[0] == Verdict::Drop).count();
        let doubled = verdicts.iter().filter(|verdicts| verdicts[1] != Verdict::Drop).count();
        assert!((900..1_100).contains(&lost), "{lost}");
        assert!((1_650..1_950).contains(&doubled), "{doubled}");
    }

    #[test]
    fn links_differ_from_one_another_and_stay_as_they_are() {
        let spec =
            LinkSpec { jitter: Some(0.0), spread: Some(0.5), hop_ms: Some(10.0), ..LinkSpec::default() };
        let mut network = Network::new(&spec, 1);
        let hop = |network: &mut Network, one, other| network.hop(one, other);
        let first = hop(&mut network, 1, 2);
        assert_ne!(first, hop(&mut network, 1, 3));
        assert_eq!(first, hop(&mut network, 2, 1), "both ways");
        assert!((5 * MS..=15 * MS).contains(&first));
        assert_ne!(first, hop(&mut Network::new(&spec, 2), 1, 2), "another seed");
    }

    #[test]
    fn reordered_messages_take_a_detour() {
        let spec =
            LinkSpec { jitter: Some(0.0), spread: Some(0.0), reorder: Some(50.0), ..LinkSpec::default() };
        let delays = delays(&spec, 1_000);
        let shortest = delays.iter().flatten().min().copied().unwrap();
        let detours = delays.iter().flatten().filter(|delay| **delay > shortest).count();
        assert!((400..600).contains(&detours), "{detours}");
    }
}
