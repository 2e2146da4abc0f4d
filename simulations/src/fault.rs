//! What can go wrong, as values.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::network::{LinkError, LinkSpec};
use crate::random::Stream;

/// Some nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nodes {
    /// Every node.
    All,
    /// One of so many equal parts of all nodes: `part = [2, 0]` is the first half.
    Part(usize, usize),
    /// So many nodes, drawn from the seed when it happens, of those to which it can happen.
    Some(usize),
    /// This one, counted from 0.
    One(usize),
}

/// One thing that happens to the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// `kill -9`; what was on disk is still there.
    Crash(Nodes),
    /// `kill -9` at the worst moment: after so many more outputs were carried out.
    CrashAfter {
        /// Who is killed.
        nodes: Nodes,
        /// Outputs that each of them still carries out: saves, messages, answers.
        outputs: usize,
    },
    /// `kill -9`, and the disk is gone too, with the identity that was on it: who starts there again is somebody new, and
    /// the base share of the one who was there stays reserved.
    Wipe(Nodes),
    /// Starts whoever is down, again or for the first time.
    Start(Nodes),
    /// Starts to leave gracefully.
    Leave(Nodes),
    /// Stands still, as under SIGSTOP: what is sent to it waits.
    Pause {
        /// Who stands still.
        nodes: Nodes,
        /// For how many seconds.
        seconds: f64,
    },
    /// Is suspended: stands still, what is sent to it is lost, and as it sees it its clock steps forward by all of it.
    Step {
        /// Who is suspended.
        nodes: Nodes,
        /// For how many seconds.
        seconds: f64,
    },
    /// Somebody sets these wall clocks forward by so many seconds, or back if that is negative.
    WallStep {
        /// Whose.
        nodes: Nodes,
        /// By how many seconds.
        seconds: f64,
    },
    /// What these say does not reach those, silently.
    CutOneWay {
        /// Who is not heard.
        from: Nodes,
        /// By whom.
        to: Nodes,
    },
    /// Cuts these off from all others, both ways, silently.
    Partition(Nodes),
    /// Cuts these off and heals again, until healed for good.
    Flap {
        /// Who is cut off.
        nodes: Nodes,
        /// How many seconds one cut and the time until the next take together; each is a half.
        seconds: f64,
    },
    /// All cuts heal and flapping stops; links come up anew.
    Heal,
    /// From here on links are like this.
    Links(LinkSpec),
}

/// A fault that cannot happen.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FaultError {
    /// It names a node that there is not.
    #[error("one = {0} names a node that there is not; nodes are counted from 0 to {last}", last = .1 - 1)]
    NoSuchNode(usize, usize),
    /// It names a part that there is not.
    #[error("part = [{0}, {1}] names a part that there is not; write [parts, which], counted from 0")]
    NoSuchPart(usize, usize),
    /// It lasts no time.
    #[error("seconds = {0} is no time; write more than 0 and at most 86400")]
    Seconds(f64),
    /// Its links cannot be.
    #[error(transparent)]
    Links(#[from] LinkError),
}

impl Nodes {
    /// Who it is, of so many nodes. Only those that are `eligible` are drawn, if some are drawn; the others of those
    /// that are named are left out.
    pub fn resolve(&self, nodes: usize, stream: &mut Stream, eligible: impl Fn(usize) -> bool) -> Vec<usize> {
        let named = match self {
            Self::All | Self::Some(_) => 0..nodes,
            Self::Part(parts, which) => nodes * which / parts..nodes * (which + 1) / parts,
            Self::One(node) => *node..node + 1,
        };
        let mut chosen: Vec<usize> = named.filter(|node| *node < nodes && eligible(*node)).collect();
        if let Self::Some(count) = self {
            let count = (*count).min(chosen.len());
            // Fisher and Yates, as far as needed.
            for place in 0..count {
                let other = place + stream.below((chosen.len() - place) as u64) as usize;
                chosen.swap(place, other);
            }
            chosen.truncate(count);
            chosen.sort_unstable();
        }
        chosen
    }

    pub(crate) fn check(&self, nodes: usize) -> Result<(), FaultError> {
        match self {
            Self::Part(parts, which) if which >= parts => Err(FaultError::NoSuchPart(*parts, *which)),
            Self::One(node) if *node >= nodes => Err(FaultError::NoSuchNode(*node, nodes)),
            _ => Ok(()),
        }
    }
}

impl Fault {
    /// Checks that it can happen to a swarm of so many nodes.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self, nodes: usize) -> Result<(), FaultError> {
        match self {
            Self::Crash(who)
            | Self::Wipe(who)
            | Self::Start(who)
            | Self::Leave(who)
            | Self::Partition(who)
            | Self::CrashAfter { nodes: who, .. } => who.check(nodes),
            Self::Pause { nodes: who, seconds }
            | Self::Step { nodes: who, seconds }
            | Self::Flap { nodes: who, seconds } => {
                if !(*seconds > 0.0 && *seconds <= 86_400.0) {
                    return Err(FaultError::Seconds(*seconds));
                }
                who.check(nodes)
            }
            Self::WallStep { nodes: who, seconds } => {
                if !(seconds.abs() > 0.0 && seconds.abs() <= 86_400.0) {
                    return Err(FaultError::Seconds(seconds.abs()));
                }
                who.check(nodes)
            }
            Self::CutOneWay { from, to } => from.check(nodes).and(to.check(nodes)),
            Self::Heal => Ok(()),
            Self::Links(spec) => Ok(spec.check()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn resolve(nodes: &Nodes, of: usize) -> Vec<usize> {
        nodes.resolve(of, &mut Stream::new(1, Purpose::Faults, 0), |node| node != 3)
    }

    #[test]
    fn nodes_are_who_they_say() {
        assert_eq!(resolve(&Nodes::All, 5), [0, 1, 2, 4]);
        assert_eq!(resolve(&Nodes::Part(2, 1), 5), [2, 4]);
        assert!(resolve(&Nodes::One(3), 5).is_empty());
        let some = resolve(&Nodes::Some(3), 10);
        assert!(some.len() == 3 && some.is_sorted() && !some.contains(&3));
        assert_eq!(some, resolve(&Nodes::Some(3), 10), "the same from the same seed");
        assert_eq!(resolve(&Nodes::Some(9), 4), [0, 1, 2], "no more than there are");
        let parts: Vec<usize> = (0..3).flat_map(|which| resolve(&Nodes::Part(3, which), 10)).collect();
        assert_eq!(parts, [0, 1, 2, 4, 5, 6, 7, 8, 9], "parts cover everybody once");
    }

    #[test]
    fn faults_are_written_by_people() {
        #[derive(Deserialize)]
        struct Step {
            #[serde(rename = "do")]
            fault: Fault,
        }
        let fault = |text: &str| toml::from_str::<Step>(&format!("do = {text}")).map(|step| step.fault);
        assert_eq!(fault("{ crash = { some = 2 } }").unwrap(), Fault::Crash(Nodes::Some(2)));
        assert_eq!(fault("{ partition = { part = [2, 0] } }").unwrap(), Fault::Partition(Nodes::Part(2, 0)));
        assert_eq!(fault("'heal'").unwrap(), Fault::Heal);
        let pause = fault("{ pause = { nodes = 'all', seconds = 2 } }").unwrap();
        assert_eq!(pause, Fault::Pause { nodes: Nodes::All, seconds: 2.0 });
        assert!(fault("{ pause = { nodes = 'all', second = 2 } }").is_err(), "a misspelt field is refused");
    }

    #[test]
    fn what_cannot_happen_is_named() {
        let wrong = |fault: Fault| fault.check(4).unwrap_err().to_string();
        assert!(wrong(Fault::Crash(Nodes::One(4))).contains("from 0 to 3"));
        assert!(wrong(Fault::Leave(Nodes::Part(2, 2))).starts_with("part = [2, 2]"));
        assert!(wrong(Fault::Pause { nodes: Nodes::All, seconds: f64::NAN }).starts_with("seconds = NaN"));
        let links = LinkSpec { loss: Some(-1.0), ..LinkSpec::default() };
        assert!(wrong(Fault::Links(links)).starts_with("loss of links is -1"));
        assert_eq!(Fault::Heal.check(4), Ok(()));
    }
}
