//! What people and tests may see of a node.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Left, Node, Phase, Policy, PoolState, Scope};
use crate::protocol::breaker::BreakerState;
use crate::protocol::gossip::{Page, Summary};
use crate::protocol::id::{Incarnation, LedgerId, NodeId, Replica};
use crate::protocol::limit::{Fingerprint, Kind, Limit, Pool, Rate};
use crate::protocol::pause::PauseReason;
use crate::protocol::record::{Key, Profile, Row, Value};
use crate::protocol::share::{ONE, Share};
use crate::protocol::time::Instant;
use crate::protocol::wall::Wall;

/// Clocks that differ by less are as good as clocks are.
const SKEW_SHOWN: Duration = Duration::from_secs(1);

/// A node that joins says so when it has found nobody for so long.
const LONELY: Duration = Duration::from_secs(5);

/// A node as a whole.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Which life of which node.
    pub replica: Replica,
    /// What it is doing.
    pub phase: Phase,
    /// Its ledger; none while joining.
    pub ledger: Option<LedgerId>,
    /// Its base share by the ledger.
    pub base: Share,
    /// Members of the ledger, itself included, that have not left.
    pub members: usize,
    /// For members that vanish.
    pub policy: Policy,
    /// By what factor the swarm can exceed the limit at worst as things stand.
    pub worst_case_factor: f64,
    /// By how much the clock of some linked peer differs; none while no peer's was heard.
    pub skew: Option<Duration>,
    /// What people should look at.
    pub warnings: Vec<String>,
}

/// One pool of a node.
#[derive(Clone, Debug)]
pub struct PoolView {
    /// Its definition.
    pub pool: Pool,
    /// Requests that wait here, by the [index](crate::protocol::queue::Class::index) of the class that they asked for.
    pub waiting: [usize; 4],
    /// When a request of one unit of everything could be admitted, behind those who wait; none if not with what is held.
    pub opens: Option<Instant>,
    /// For how much longer it is paused, if that is known, and why; none if it is not.
    pub paused: Option<(Option<Duration>, PauseReason)>,
    /// What its circuit breaker does; none if it has none.
    pub breaker: Option<BreakerState>,
    /// Its limits.
    pub limits: Vec<LimitView>,
}

/// One limit of a node.
#[derive(Clone, Debug)]
pub struct LimitView {
    /// Its definition.
    pub limit: Limit,
    /// Its identity in the swarm.
    pub fingerprint: Fingerprint,
    /// Units that this node may spend now.
    pub held_units: u64,
    /// Units that the whole swarm may spend now, by the newest rows.
    pub remaining: u64,
    /// When a request of one unit could be admitted, behind those who wait; none if not with what is held.
    pub opens: Option<Instant>,
    /// When the whole limit would be full again if nobody spent. Of a calendar limit: when its period ends; of what else is
    /// spent elsewhere, the latest that it can be.
    pub reset_in: Duration,
    /// When the period of a calendar limit ends, once the wall clock is known.
    pub period_ends: Option<Instant>,
    /// Share that this node runs on.
    pub held: Share,
    /// Its base share out on loan.
    pub lent: Share,
    /// Share on loan from others.
    pub borrowed: Share,
    /// Share that it should have.
    pub target: Share,
    /// The part that is kept out of all shares because somebody uses as much without reporting it.
    pub unreported: Share,
    /// Units per second that its callers ask for.
    pub demand: u64,
    /// Units admitted here in this life.
    pub admitted: u64,
    /// Units admitted by everybody, ever.
    pub admitted_by_all: u128,
    /// What each member holds by its newest row.
    pub held_by: BTreeMap<NodeId, Share>,
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is a link to it.
    Connected,
    /// There is none, but it was heard of lately through others.
    Distant,
    /// There is none.
    Lost,
    /// Its base share was reclaimed.
    Reclaimed,
    /// It has left.
    Left,
}

/// A peer.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Who.
    pub node: NodeId,
    /// What it calls itself.
    pub name: String,
    /// How it stands.
    pub standing: Standing,
    /// Its base share by the ledger.
    pub base: Share,
    /// What it holds of each limit, by `pool/limit`.
    pub held: BTreeMap<String, Share>,
    /// How long ago it was last heard, first-hand or through others; none if never in this life.
    pub lag: Option<Duration>,
    /// Round trip to it.
    pub round_trip: Option<Duration>,
    /// What is held against it, in words; empty of an honest peer.
    pub evidence: Vec<String>,
}

impl Node {
    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// What its configuration calls it.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        self.config.policy
    }

    /// The pool at this place.
    ///
    /// # Panics
    /// If there is none.
    pub fn pool_at(&self, pool: usize) -> &Pool {
        &self.pools[pool].pool
    }

    /// How many pools there are.
    pub fn pools(&self) -> usize {
        self.config.pools.len()
    }

    /// By what factor the swarm can exceed a limit at worst as things stand: 1 under `strict` and `majority`, and under
    /// `available` while every member is linked; else one for each side that the missing members could form.
    pub fn worst_case_factor(&self) -> f64 {
        if self.config.policy != Policy::Available {
            return 1.0;
        }
        let members = self.bases.keys().filter(|node| **node != self.config.id);
        let missing = |node: &&NodeId| {
            matches!(self.standing(node), Standing::Lost | Standing::Distant | Standing::Reclaimed)
        };
        1.0 + members.filter(missing).count() as f64
    }

    /// The whole, at `now`.
    pub fn view(&self, now: Instant) -> NodeView {
        let peers = self.peers(now);
        let left = peers.iter().filter(|peer| peer.standing == Standing::Left).count();
        let mut warnings = self.mismatches();
        if self.doubled {
            warnings.push(
                "another node runs with a copy of this node's directory; this one uses no base share until one of \
                 the two is stopped and this one is started again"
                    .to_owned(),
            );
        }
        warnings.extend(self.audit.accused().map(|node| {
            format!("{} is caught lying: see `aquifer peers --why`; nothing is lent to it", node.short())
        }));
        for peer in &peers {
            if peer.standing == Standing::Lost && peer.base > Share::ZERO {
                let lag = peer.lag.unwrap_or(now.since(self.started));
                warnings.push(format!(
                    "{} is lost for {} s; its {} of every limit is {}",
                    peer.name,
                    lag.as_secs(),
                    peer.base,
                    match self.config.policy {
                        Policy::Strict => "reserved until it returns",
                        Policy::Majority =>
                            "reclaimed after forget_after by members that hold more than half",
                        Policy::Available => "reclaimed after forget_after",
                    }
                ));
            }
        }
        for conflict in self.conflicts() {
            let numbers =
                |rate: &Rate| format!("{} per {:?} and burst {}", rate.amount(), rate.per(), rate.burst());
            let by = conflict.peer.map(|peer| format!(" by {}", peer.short())).unwrap_or_default();
            warnings.push(format!(
                "a key is used with {} here and with other numbers, {}{by}: these are two limits; use the same \
                 numbers everywhere",
                numbers(&conflict.ours),
                numbers(&conflict.theirs),
            ));
        }
        if self.forfeits {
            warnings.push(format!(
                "what this node knew of its swarm is lost, also what it gave away; its former {} of every limit is \
                 not used until another member has taken it back, and it lives on what others lend",
                self.base()
            ));
        }
        if self.phase == Phase::Joining && self.linked().next().is_none() && now.since(self.started) >= LONELY
        {
            warnings.push(
                "no member is reached: start with --join, or name seeds in the configuration".to_owned(),
            );
        }
        if self.ledger_id.is_some()
            && !self.bases.is_empty()
            && self.bases.values().all(|base| *base == Share::ZERO)
        {
            warnings.push(
                "nobody is known to have founded this swarm; write the same [[swarm.founder]] on all nodes"
                    .to_owned(),
            );
        }
        let skew = self.wall.as_ref().and_then(Wall::skew);
        if let Some(skew) = skew.filter(|skew| *skew >= SKEW_SHOWN) {
            warnings.push(format!(
                "the clocks of this machine and a peer differ by {} ms; calendar limits count what is spent that \
                 near to a boundary on both sides of it. Check the time service of both",
                skew.as_millis()
            ));
        }
        NodeView {
            replica: self.replica,
            phase: self.phase,
            ledger: self.ledger_id,
            base: self.base(),
            members: self.bases.len().saturating_sub(left),
            policy: self.config.policy,
            worst_case_factor: self.worst_case_factor(),
            skew,
            warnings,
        }
    }

    /// Share of the limit at this place, counted through all pools, that the node runs on.
    ///
    /// # Panics
    /// If there is none.
    pub fn held(&self, limit: usize) -> Share {
        self.meters[limit].held()
    }

    /// Every member with its base share, by what is known of the ledger here.
    pub fn bases(&self) -> &BTreeMap<NodeId, Share> {
        &self.bases
    }

    /// How far everybody's pages are known.
    pub fn knowledge(&self) -> Vec<Summary> {
        self.pages.digest()
    }

    /// Which life of a node is known here, and up to which version its page is, be it from itself or through others.
    pub fn page_version(&self, node: &NodeId) -> Option<(Incarnation, u64)> {
        self.pages.get(node).map(|page| (page.incarnation(), page.version().max(page.signed_version())))
    }

    /// Units of the limit at this place that were admitted here in this life.
    ///
    /// # Panics
    /// If there is none.
    pub fn admitted(&self, limit: usize) -> u64 {
        self.meters[limit].used.of(&self.replica)
    }

    /// Units of the limit at this place that everybody admitted, ever, as far as known here.
    ///
    /// # Panics
    /// If there is none.
    pub fn admitted_by_all(&self, limit: usize) -> u128 {
        self.meters[limit].used.total()
    }

    /// All pools, at `now`.
    pub fn pool_views(&mut self, now: Instant) -> Vec<PoolView> {
        self.expire(now);
        (0..self.pools()).map(|pool| self.pool_view(pool, now)).collect()
    }

    /// One pool, at `now`.
    ///
    /// # Panics
    /// If there is no such pool.
    pub fn pool_view(&mut self, pool: usize, now: Instant) -> PoolView {
        self.expire(now);
        if matches!(self.pools[pool].scope, Scope::Keyed(_)) {
            return self.keyed_view(pool, now);
        }
        let meters = self.pools[pool].meters();
        let limits: Vec<LimitView> = meters.map(|place| self.limit_view(place, now)).collect();
        let state = &self.pools[pool];
        let ready = limits.iter().map(|limit| limit.opens);
        PoolView {
            pool: state.pool.clone(),
            waiting: state.queue.waiting(),
            opens: ready.into_iter().try_fold(now, |latest, at| at.map(|at| latest.max(at))),
            paused: self.paused(pool, now),
            breaker: self.breaker(pool, now),
            limits,
        }
    }

    /// A keyed pool, as a key finds it that was never used.
    fn keyed_view(&mut self, pool: usize, now: Instant) -> PoolView {
        let of_pool = |state: &&PoolState| matches!(&state.scope, Scope::Key(key) if key.template == pool);
        let mut waiting = [0; 4];
        for state in self.pools.iter().filter(of_pool) {
            waiting.iter_mut().zip(state.queue.waiting()).for_each(|(sum, here)| *sum += here);
        }
        let (paused, breaker) = (self.paused(pool, now), self.breaker(pool, now));
        let state = &mut self.pools[pool];
        let mut limits = Vec::new();
        if let Scope::Keyed(keys) = &mut state.scope {
            for (place, limit) in state.pool.limits().iter().enumerate() {
                let units = keys.units(place, now);
                limits.push(LimitView {
                    limit: limit.clone(),
                    fingerprint: limit.fingerprint(state.pool.name()),
                    held_units: units,
                    remaining: units,
                    opens: Some(now),
                    period_ends: None,
                    unreported: Share::ZERO,
                    reset_in: Duration::ZERO,
                    held: keys.base(),
                    lent: Share::ZERO,
                    borrowed: Share::ZERO,
                    target: keys.base(),
                    demand: 0,
                    admitted: keys.admitted(place),
                    admitted_by_all: keys.admitted(place).into(),
                    held_by: BTreeMap::new(),
                });
            }
        }
        PoolView { pool: state.pool.clone(), waiting, opens: Some(now), paused, breaker, limits }
    }

    fn limit_view(&mut self, place: usize, now: Instant) -> LimitView {
        self.meters[place].refill(now);
        let demand = self.meters[place].demand.recent(now);
        let (pool, limit) = self.pool_of(place);
        let unreported = self.unreported(pool, limit, now);
        let meter = &self.meters[place];
        let mut held_by: BTreeMap<NodeId, Share> =
            self.rows(place).map(|(node, row)| (node, row.held)).collect();
        held_by.insert(self.config.id, meter.held());
        let Left { held, remaining, reset_in } = self.left_of(place, now);
        LimitView {
            limit: meter.limit.clone(),
            fingerprint: meter.fingerprint,
            held_units: held,
            remaining,
            opens: meter.ready_at(meter.backlog.iter().sum::<u64>().saturating_add(1)),
            reset_in,
            period_ends: meter.bucket().period().map(|period| period.until),
            held: meter.held(),
            lent: meter.lent(),
            borrowed: meter.borrowed(),
            target: meter.target,
            unreported,
            demand,
            admitted: meter.used.of(&self.replica),
            admitted_by_all: meter.used.total(),
            held_by,
        }
    }

    pub(super) fn reset_in(&self, place: usize, remaining: u64, now: Instant) -> Duration {
        let meter = &self.meters[place];
        let kind = &meter.limit.kind;
        let used = kind.capacity() - remaining;
        match kind {
            Kind::Rate(rate) => Duration::from_secs_f64(used as f64 / rate.per_second()),
            _ if used == 0 => Duration::ZERO,
            Kind::Window(_) | Kind::Concurrency(_) => {
                // All that this node can know of is back then; what others have spent is back after the whole time.
                let here = meter.held() == ONE;
                let back = here.then(|| meter.ready_at(kind.capacity())).flatten();
                back.map_or(kind.per(), |at| at.since(now))
            }
            Kind::Calendar(_) => {
                let period = meter.bucket().period();
                period.map_or(kind.per(), |period| period.until.since(now))
            }
        }
    }

    /// All members that were ever heard of, but this node.
    pub fn peers(&self, now: Instant) -> Vec<PeerView> {
        let mut nodes: Vec<NodeId> =
            self.bases.keys().chain(self.pages.iter().map(|(node, _)| node)).copied().collect();
        nodes.sort();
        nodes.dedup();
        nodes
            .into_iter()
            .filter(|node| *node != self.config.id)
            .map(|node| self.peer_view(node, now))
            .collect()
    }

    fn profile(&self, node: &NodeId) -> Option<&Profile> {
        match self.pages.get(node)?.get(&Key::Profile)? {
            Value::Profile(profile) => Some(profile),
            _ => None,
        }
    }

    fn standing(&self, node: &NodeId) -> Standing {
        let base = self.bases.get(node).copied().unwrap_or_default();
        let reclaimed = || self.bases.keys().any(|by| self.ledger.reclaimed(by, node) > Share::ZERO);
        match () {
            () if base == Share::ZERO && self.is_leaving(node) => Standing::Left,
            () if self.peers.contains_key(node) => Standing::Connected,
            () if base == Share::ZERO && reclaimed() => Standing::Reclaimed,
            () if self.is_heard_of(node) => Standing::Distant,
            () => Standing::Lost,
        }
    }

    fn peer_view(&self, node: NodeId, now: Instant) -> PeerView {
        let page = self.pages.get(&node);
        let peer = self.peers.get(&node);
        let heard = peer.map(|peer| peer.heard_at).or_else(|| page.map(Page::news_at));
        let mut held = BTreeMap::new();
        for state in &self.pools[..self.pools()] {
            for meter in &self.meters[state.meters()] {
                if let Some((row, _)) = page.and_then(|page| page.row(meter.fingerprint)) {
                    held.insert(format!("{}/{}", state.pool.name(), meter.limit.name), row.held);
                }
            }
        }
        PeerView {
            node,
            name: self.profile(&node).map_or_else(|| node.short(), |profile| profile.name.clone()),
            standing: self.standing(&node),
            base: self.bases.get(&node).copied().unwrap_or_default(),
            held,
            lag: heard.map(|at| now.since(at)),
            round_trip: peer.and_then(|peer| peer.round_trip),
            evidence: self.audit.reasons(&node),
        }
    }

    /// Whether some linked peer still has news of it.
    fn is_heard_of(&self, node: &NodeId) -> bool {
        let mut linked = self.linked().peekable();
        linked.peek().is_some()
            && linked.any(|peer| {
                let profile = self.profile(&peer.node);
                profile
                    .is_some_and(|profile| !profile.unlinked.contains(node) && !profile.lost.contains(node))
            })
    }

    /// The newest rows of members with a link.
    pub(super) fn rows(&self, place: usize) -> impl Iterator<Item = (NodeId, Row)> + '_ {
        let fingerprint = self.meters[place].fingerprint;
        self.linked().filter_map(move |peer| {
            let (row, _) = self.pages.get(&peer.node)?.row(fingerprint)?;
            Some((peer.node, *row))
        })
    }

    /// Limits that a peer calls the same but defines otherwise: they are not shared.
    fn mismatches(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let ours: BTreeMap<String, Fingerprint> = self.limit_names().into_iter().collect();
        for (node, _) in self.pages.iter().filter(|(node, _)| **node != self.config.id) {
            let Some(profile) = self.profile(node) else { continue };
            for (name, theirs) in &profile.limits {
                if ours.get(name).is_some_and(|ours| ours != theirs) {
                    warnings.push(format!(
                        "{} ({}) defines {name} otherwise; the two do not share it. Give both the same numbers",
                        profile.name,
                        node.short()
                    ));
                }
            }
        }
        warnings
    }
}
