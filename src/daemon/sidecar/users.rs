//! What each user of the machine takes of this daemon: connections, places in queues, permits.
//!
//! The quotas see to it that one user cannot take it all, by accident or otherwise. They count by the user id that the
//! kernel names, since everything else can be made up. Only users who are here are known, so that connections bound all
//! that is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::api::{CallersStatus, UserStatus};
use crate::daemon::access::{Access, Peer, Right};
use crate::daemon::config::{Config, PoolConfig};
use crate::daemon::engine::Engine;
use crate::protocol::permit::PermitId;

/// Connections that operators may have beyond every quota: a crowd must not keep them from looking and acting.
const OPERATORS_EXTRA: usize = 16;
/// Connections of one user that are told at once that they are too many; more are closed without a word.
const TURNED_AWAY_MAX: usize = 8;
/// From so many permits on, those that have ended are looked for.
const PRUNE_FROM: usize = 1_024;
/// The most users that the status page names.
const USERS_SHOWN: usize = 16;

/// How much there is for all, and for one.
#[derive(Clone, Debug)]
pub struct Quotas {
    /// Connections of all users.
    pub connections: usize,
    /// Connections of one.
    pub user_connections: usize,
    /// Requests of one that wait for one pool, by the pool's place.
    pub user_waiting: Vec<usize>,
}

/// The users that are here.
pub struct Users {
    terms: RwLock<Arc<Terms>>,
    here: Mutex<Here>,
    permits: Mutex<Permits>,
}

struct Terms {
    access: Access,
    quotas: Quotas,
}

#[derive(Default)]
struct Here {
    users: BTreeMap<u32, User>,
    connections: usize,
    counters: Counters,
}

#[derive(Default)]
struct User {
    connections: usize,
    turned_away: usize,
    /// Requests that wait, by the place of a pool that they name.
    waiting: BTreeMap<usize, usize>,
}

/// Who got the permits that are out; those of the owner and of root, whom nobody else can be taken for, are not here.
#[derive(Default)]
struct Permits {
    issued_to: BTreeMap<PermitId, u32>,
    prune_from: usize,
}

#[derive(Clone, Copy, Default)]
struct Counters {
    turned_away: u64,
    not_queued: u64,
    denied: u64,
    timed_out: u64,
}

/// Whether a connection may stay.
pub enum Admittance {
    /// It may, and counts until this is dropped.
    Welcome(Place),
    /// It may not, but be told so while this is kept.
    TurnedAway(Place, Crowd),
    /// It may not, and is not worth an answer.
    Ignored,
}

/// Why a connection may not stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// Its user has this many already, as many as one may.
    User(usize),
    /// All users together have this many.
    All(usize),
}

/// Something of a user that is given back when this is dropped.
pub struct Place {
    users: Arc<Users>,
    uid: u32,
    held: Held,
}

enum Held {
    Connection,
    Answer,
    Queue(Vec<usize>),
}

impl Quotas {
    /// What the configuration says where there is room for so many connections. Where only the owner and root can connect,
    /// one user may have everything unless it says otherwise.
    pub fn of(config: &Config, connections: usize) -> Self {
        let shared = config.access.group.is_some();
        let most = if shared { (connections / 4).max(1) } else { connections };
        let waiting = |pool: &PoolConfig| {
            let most = if shared { pool.pool.max_queue.div_ceil(2) } else { usize::MAX };
            config.access.max_waiting_per_user.unwrap_or(most)
        };
        Self {
            connections,
            user_connections: config.access.max_connections_per_user.unwrap_or(most),
            user_waiting: config.pools.iter().map(waiting).collect(),
        }
    }
}

impl Users {
    /// Nobody is here yet.
    pub fn new(access: Access, quotas: Quotas) -> Arc<Self> {
        let terms = RwLock::new(Arc::new(Terms { access, quotas }));
        Arc::new(Self { terms, here: Mutex::default(), permits: Mutex::default() })
    }

    /// Other rights and quotas from now on. Nobody who is here has to go.
    pub fn set_terms(&self, access: Access, quotas: Quotas) {
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Terms { access, quotas });
    }

    /// Whether a caller has a right.
    pub fn allows(&self, peer: Peer, right: Right) -> bool {
        self.look_at_terms(|terms| terms.access.allows(peer, right))
    }

    /// How many connections there may be.
    pub fn connections_max(&self) -> usize {
        self.terms().quotas.connections
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.here().connections
    }

    /// Whether there is no connection left for anybody at all.
    pub fn is_full(&self) -> bool {
        self.connections() >= self.connections_max() + OPERATORS_EXTRA
    }

    /// Somebody connected.
    pub fn connect(self: &Arc<Self>, peer: Peer) -> Admittance {
        let Terms { access, quotas } = &*self.terms();
        let extra = if access.is_operator(peer) { OPERATORS_EXTRA } else { 0 };
        let Here { users, connections, counters } = &mut *self.here();
        let user = users.entry(peer.uid).or_default();
        let (of_user, all) = (user.connections, *connections);
        let crowd = if all >= quotas.connections + extra {
            Some(Crowd::All(all))
        } else {
            (of_user >= quotas.user_connections.saturating_add(extra)).then_some(Crowd::User(of_user))
        };
        let place = |held| Place { users: self.clone(), uid: peer.uid, held };
        let Some(crowd) = crowd else {
            user.connections += 1;
            *connections += 1;
            return Admittance::Welcome(place(Held::Connection));
        };
        counters.turned_away += 1;
        if user.turned_away >= TURNED_AWAY_MAX {
            return Admittance::Ignored;
        }
        user.turned_away += 1;
        Admittance::TurnedAway(place(Held::Answer), crowd)
    }

    /// How many requests of a user may wait, if as many wait for one of these pools already.
    pub fn queue_is_full(&self, uid: u32, pools: impl IntoIterator<Item = usize>) -> Option<usize> {
        let terms = self.terms();
        let here = self.here();
        let waiting = &here.users.get(&uid)?.waiting;
        let full = |pool: usize| {
            let most = terms.quotas.user_waiting[pool];
            (waiting.get(&pool).is_some_and(|waiting| *waiting >= most)).then_some(most)
        };
        pools.into_iter().find_map(full)
    }

    /// A request of a user waits for these pools until the place is dropped.
    pub fn wait(self: &Arc<Self>, uid: u32, mut pools: Vec<usize>) -> Place {
        pools.sort_unstable();
        pools.dedup();
        let mut here = self.here();
        let waiting = &mut here.users.entry(uid).or_default().waiting;
        pools.iter().for_each(|pool| *waiting.entry(*pool).or_default() += 1);
        Place { users: self.clone(), uid, held: Held::Queue(pools) }
    }

    /// Notes who got a permit.
    pub fn issued(&self, permit: PermitId, uid: u32, engine: &Engine) {
        if self.look_at_terms(|terms| terms.access.is_owner(uid)) {
            return;
        }
        let Permits { issued_to, prune_from } = &mut *self.permits();
        issued_to.insert(permit, uid);
        if issued_to.len() >= PRUNE_FROM.max(*prune_from) {
            engine.look(|node, _| issued_to.retain(|permit, _| node.permit_pools(*permit).is_some()));
            *prune_from = 2 * issued_to.len();
        }
    }

    /// Whether a caller may settle a permit. What has ended can be asked for by anybody: it changes nothing any more.
    pub fn may_settle(&self, permit: PermitId, peer: Peer, engine: &Engine) -> bool {
        let issued_to = self.permits().issued_to.get(&permit).copied();
        self.terms().access.may_settle(peer, issued_to)
            || engine.look(|node, _| node.permit_pools(permit).is_none())
    }

    /// A request was not let wait, because its user has enough that do.
    pub fn count_not_queued(&self) {
        self.count(|counters| counters.not_queued += 1);
    }

    /// A request was for others than its caller.
    pub fn count_denied(&self) {
        self.count(|counters| counters.denied += 1);
    }

    /// A connection was closed because its caller was too slow.
    pub fn count_timed_out(&self) {
        self.count(|counters| counters.timed_out += 1);
    }

    /// For the status page.
    pub fn status(&self) -> CallersStatus {
        let user = |(uid, user): (&u32, &User)| UserStatus {
            uid: *uid,
            connections: user.connections,
            waiting: user.waiting.values().sum(),
        };
        let quotas = &self.terms().quotas;
        let here = self.here();
        let mut users: Vec<UserStatus> = here.users.iter().map(user).collect();
        users.sort_by_key(|user| std::cmp::Reverse((user.connections, user.waiting)));
        users.truncate(USERS_SHOWN);
        let Counters { turned_away, not_queued, denied, timed_out } = here.counters;
        CallersStatus {
            connections: here.connections,
            max_connections: quotas.connections,
            max_connections_per_user: quotas.user_connections,
            users,
            turned_away,
            not_queued,
            denied,
            timed_out,
        }
    }

    fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut self.here().counters);
    }

    fn terms(&self) -> Arc<Terms> {
        self.look_at_terms(Arc::clone)
    }

    fn look_at_terms<T>(&self, look: impl FnOnce(&Arc<Terms>) -> T) -> T {
        look(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permits(&self) -> MutexGuard<'_, Permits> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Here { users, connections, .. } = &mut *self.users.here();
        let Some(user) = users.get_mut(&self.uid) else { return };
        match &self.held {
            Held::Connection => {
                user.connections -= 1;
                *connections -= 1;
            }
            Held::Answer => user.turned_away -= 1,
            Held::Queue(pools) => {
                for pool in pools {
                    let left = user.waiting.get(pool).map_or(0, |waiting| waiting - 1);
                    if left == 0 {
                        user.waiting.remove(pool);
                    } else {
                        user.waiting.insert(*pool, left);
                    }
                }
            }
        }
        if user.connections == 0 && user.turned_away == 0 && user.waiting.is_empty() {
            users.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: u32 = 990;

    fn users(connections: usize, user_connections: usize) -> Arc<Users> {
        let access = Access {
            owner: OWNER,
            operators: [].into(),
            operator_groups: [].into(),
            observe_needs_operator: false,
        };
        Users::new(access, Quotas { connections, user_connections, user_waiting: vec![2, 3] })
    }

    fn peer(uid: u32) -> Peer {
        Peer { uid, gid: 100 }
    }

    fn connect(users: &Arc<Users>, uid: u32, count: usize) -> Vec<Place> {
        let place = |_| match users.connect(peer(uid)) {
            Admittance::Welcome(place) => Some(place),
            Admittance::TurnedAway(..) | Admittance::Ignored => None,
        };
        (0..count).filter_map(place).collect()
    }

    #[test]
    fn nobody_takes_more_connections_than_one_may() {
        let users = users(10, 4);
        let mut one = connect(&users, 1, 9);
        assert_eq!(one.len(), 4);
        assert!(matches!(users.connect(peer(1)), Admittance::TurnedAway(_, Crowd::User(4))));
        assert_eq!(connect(&users, 2, 4).len(), 4);
        one.pop();
        assert_eq!(connect(&users, 1, 2).len(), 1);
    }

    #[test]
    fn a_crowd_leaves_room_for_operators() {
        let users = users(10, 4);
        let crowd: Vec<_> = (1..=3).map(|uid| connect(&users, uid, 4)).collect();
        assert_eq!(crowd.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert!(matches!(users.connect(peer(4)), Admittance::TurnedAway(_, Crowd::All(10))));
        assert!(!users.is_full());
        let operators = [connect(&users, OWNER, 99), connect(&users, 0, 99)];
        assert_eq!(operators.iter().map(Vec::len).sum::<usize>(), OPERATORS_EXTRA);
        assert!(users.is_full());
    }

    #[test]
    fn few_of_those_turned_away_are_told() {
        let users = users(10, 1);
        let _one = connect(&users, 1, 1);
        let answers: Vec<_> = (0..20).map(|_| users.connect(peer(1))).collect();
        let told = answers.iter().filter(|answer| matches!(answer, Admittance::TurnedAway(..))).count();
        assert_eq!((told, users.status().turned_away), (TURNED_AWAY_MAX, 20));
    }

    #[test]
    fn places_in_queues_are_counted_for_each_pool() {
        let users = users(10, 10);
        assert_eq!(users.queue_is_full(1, [0, 1]), None);
        let mut waiting = vec![users.wait(1, vec![0]), users.wait(1, vec![1, 0, 1])];
        assert_eq!((users.queue_is_full(1, [0]), users.queue_is_full(1, [1])), (Some(2), None));
        assert_eq!((users.queue_is_full(1, [1, 0]), users.queue_is_full(2, [0])), (Some(2), None));
        waiting.pop();
        assert_eq!(users.queue_is_full(1, [0, 1]), None);
    }

    #[test]
    fn nothing_is_kept_of_users_who_left() {
        let users = users(10, 2);
        for uid in 0..100 {
            let _connections = connect(&users, uid, 3);
            let _waiting = users.wait(uid, vec![0, 1]);
        }
        assert!(users.here().users.is_empty());
        assert_eq!((users.connections(), users.status().users), (0, Vec::new()));
    }
}
