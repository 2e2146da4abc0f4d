//! Who may do what: a policy over what the kernel says of a caller (`SO_PEERCRED`), never over what the caller says.
//!
//! Whoever can connect may ask for permits and read what goes on; the files' permissions decide who can
//! ([`Socket`](super::socket::Socket)). What changes the node or the swarm is for operators. The kernel's word is about the
//! process that connected, at that moment: a process that hands its open connection to another hands over its rights. Process
//! ids are not looked at, since they are used again.

use std::collections::BTreeSet;
use std::io;

use rustix::process::geteuid;
use tokio::net::UnixStream;

use super::config::Config;

/// The user id that Linux shows for every user that a container does not know: no one user in particular.
pub const OVERFLOW_ID: u32 = 65_534;

/// A process that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group; the kernel does not tell the supplementary ones.
    pub gid: u32,
}

impl Peer {
    /// Whoever connected over a network, where the kernel tells nothing. No system gives out these ids; such callers have
    /// their quotas together, and no right but to use.
    pub const UNKNOWN: Self = Self { uid: u32::MAX, gid: u32::MAX };

    /// Whoever connected to a socket of this machine.
    ///
    /// # Errors
    /// The kernel's, if it does not tell.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        Ok(Self { uid: peer.uid(), gid: peer.gid() })
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To ask for permits, to settle one's own, to read: for whoever can connect.
    Use,
    /// To tell how calls ended: as `[access] observe` says.
    Observe,
    /// To change the node or the swarm, or to read its secrets: for operators.
    Operate,
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The user that the daemon runs as.
    pub owner: u32,
    /// Users that operate besides the owner and root; the members of operating groups are here too, as far as the system
    /// listed them.
    pub operators: BTreeSet<u32>,
    /// Groups that operate. [`Peer`] says why their members are among `operators` too.
    pub operator_groups: BTreeSet<u32>,
    /// Whether [`Right::Observe`] is for operators.
    pub observe_needs_operator: bool,
}

impl Access {
    /// What the configuration of this process says.
    pub fn of(config: &Config) -> Self {
        Self {
            owner: geteuid().as_raw(),
            operators: config.access.operators.clone(),
            operator_groups: config.access.operator_groups.clone(),
            observe_needs_operator: config.access.observe_needs_operator,
        }
    }

    /// Whether this is an operator: root, the owner, or whom the configuration names.
    pub fn is_operator(&self, peer: Peer) -> bool {
        self.is_owner(peer.uid)
            || (peer.uid != OVERFLOW_ID && self.operators.contains(&peer.uid))
            || (peer.gid != OVERFLOW_ID && self.operator_groups.contains(&peer.gid))
    }

    /// Whether this is root or the user that the daemon runs as.
    pub fn is_owner(&self, uid: u32) -> bool {
        uid == 0 || uid == self.owner
    }

    /// Whether a caller has a right.
    pub fn allows(&self, peer: Peer, right: Right) -> bool {
        match right {
            Right::Use => true,
            Right::Observe if !self.observe_needs_operator => true,
            Right::Observe | Right::Operate => self.is_operator(peer),
        }
    }

    /// Whether a caller may settle a permit that `issued_to` got; none stands for the owner.
    pub fn may_settle(&self, peer: Peer, issued_to: Option<u32>) -> bool {
        issued_to == Some(peer.uid) || self.is_operator(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: u32 = 990;
    const ALICE: u32 = 1_000;
    const BOB: u32 = 1_001;
    const AGENTS: u32 = 2_000;
    const WHEEL: u32 = 10;

    fn access() -> Access {
        Access {
            owner: OWNER,
            operators: [ALICE].into(),
            operator_groups: [WHEEL].into(),
            observe_needs_operator: false,
        }
    }

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid, gid }
    }

    #[test]
    fn every_user_has_the_rights_that_are_written_down() {
        let strict = Access { observe_needs_operator: true, ..access() };
        let cases = [
            (peer(0, 0), true),
            (peer(OWNER, AGENTS), true),
            (peer(ALICE, AGENTS), true),
            (peer(BOB, WHEEL), true),
            (peer(BOB, AGENTS), false),
            // Ids of users are no ids of groups.
            (peer(WHEEL, ALICE), false),
            (peer(u32::MAX, u32::MAX), false),
            (peer(OVERFLOW_ID, OVERFLOW_ID), false),
        ];
        for (peer, operates) in cases {
            let rights = |access: &Access| {
                [Right::Use, Right::Observe, Right::Operate].map(|right| access.allows(peer, right))
            };
            assert_eq!(rights(&access()), [true, true, operates], "{peer:?}");
            assert_eq!(rights(&strict), [true, operates, operates], "{peer:?}");
        }
    }

    #[test]
    fn users_that_a_container_does_not_know_never_operate() {
        let access =
            Access { operators: [OVERFLOW_ID].into(), operator_groups: [OVERFLOW_ID].into(), ..access() };
        assert!(!access.is_operator(peer(OVERFLOW_ID, OVERFLOW_ID)));
    }

    #[test]
    fn a_permit_is_settled_by_its_user_or_an_operator() {
        for (who, issued_to, may) in [
            (peer(BOB, AGENTS), Some(BOB), true),
            (peer(BOB, AGENTS), Some(ALICE), false),
            (peer(BOB, AGENTS), None, false),
            (peer(OWNER, AGENTS), Some(BOB), true),
            (peer(ALICE, AGENTS), None, true),
        ] {
            assert_eq!(access().may_settle(who, issued_to), may, "{who:?} {issued_to:?}");
        }
    }
}
