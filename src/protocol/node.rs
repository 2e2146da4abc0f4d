//! One participant: the state machine that joins everything else. It does no IO.
//!
//! # How to drive it
//!
//! Methods come in four families: *commands*, what an application wants ([`acquire`](Node::acquire),
//! [`cancel`](Node::cancel), [`leave`](Node::leave), …); *inputs*, what the world does
//! ([`handle`](Node::handle)); *outputs*, what the driver must do ([`poll_output`](Node::poll_output),
//! [`next_deadline`](Node::next_deadline)); and getters.
//!
//! **The single-deadline contract.** After every command or input:
//! 1. drain [`poll_output`](Node::poll_output) until it gives nothing, and carry the outputs out *in order*: what is
//!    to be saved must be on disk before the message behind it is sent;
//! 2. read [`next_deadline`](Node::next_deadline) and call [`handle`](Node::handle) with [`Input::Timeout`] then, or
//!    soon after.
//!
//! Time is the driver's monotonic clock; a `now` that goes back counts as standing still.

mod accusing;
mod admission;
mod books;
mod calendars;
mod drift;
mod durable;
mod dynamic;
mod forgetting;
mod gates;
mod hearing;
mod interface;
mod keys;
mod left;
mod listing;
mod majority;
mod membership;
mod mesh;
mod peers;
mod pools;
mod promoted;
mod rows;
mod settling;
mod sharing;
mod telling;
mod tuning;
mod unreported;
mod view;
mod vouching;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub use super::policy::{Policy, Trust, Vouching};
pub use admission::{Acquired, Ask, Item, Outcome, PERMIT_TTL, Reason, Refusal, WAIT_MAX};
pub use durable::Missing;
pub use dynamic::{Conflict, DYNAMIC_KEYS_MAX, RATES_MAX, ThrottleError, Throttled};
pub use forgetting::{ForgetError, Forgotten};
pub use interface::{Input, NodeConfig, Output, Phase, Saved, Start};
pub use left::Left;
pub use listing::WaiterView;
pub use mesh::MESH_MAX;
pub use settling::{SettleError, Settling};
pub use tuning::Tuning;
pub use view::{LimitView, NodeView, PeerView, PoolView, Standing};
pub use vouching::VouchError;

use super::agents::Agents;
use super::audit::Audit;
use super::bucket::Level;
use super::gossip::Pages;
use super::id::{Incarnation, LedgerId, NodeId, Replica};
use super::keyed::History;
use super::lease::SETTLE;
use super::ledger::Ledger;
use super::limit::{Fingerprint, Limit, Pool};
use super::meter::{FormerLeases, Meter};
use super::pause::Pauses;
use super::permit::{PERMITS_DEFAULT, Permits};
use super::queue::Ticket;
use super::record::{Key, PROFILE_ADDRESSES_MAX, PROFILE_LIMITS_MAX, PROFILE_NAME_MAX, Profile, Value};
use super::share::{ONE, Share};
use super::time::Instant;
use super::wall::Wall;
use admission::Request;
use books::Heights;
use dynamic::Dynamic;
use gates::Gate;
use majority::Quorum;
use peers::Peers;
use pools::{PoolState, Scope};
use rows::Neighbour;
use waiting::Waiter;

/// How often a node looks around while something changes.
pub const ROUND: Duration = Duration::from_millis(100);
/// How often at least it says something to each peer while something changes.
pub const BUSY_SILENCE: Duration = Duration::from_secs(1);
/// How often at least it says something to each peer when nothing does. A peer is silent, and its link is closed,
/// after twice this and a half second.
pub const IDLE_SILENCE: Duration = Duration::from_secs(5);
/// The longest silence that is believed. More than ten links are greeted less often than every [`IDLE_SILENCE`] each.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Up to so many links a node tells all of them all of its news at once; beyond, those whom it concerns.
pub const FEW_LINKS: usize = 16;
/// How far apart a node with many links looks at its shares.
const SHARE_SPACING: Duration = Duration::from_millis(5);
/// How long leaving may take: borrowers give back within a round trip, or their leases end.
pub const LEAVE_MAX: Duration = Duration::from_secs(3);

/// The most limits of all pools of a node together, those of contended keys counted for each: what it says of them to one peer must fit a message.
pub const METERS_MAX: usize = 128;

/// One participant. See the [module](self) for how to drive it.
pub struct Node {
    config: NodeConfig,
    replica: Replica,
    phase: Phase,
    /// Leases of the former life may run until then; the base share is not used before.
    settles_at: Option<Instant>,
    started: Instant,
    /// The latest moment that was handed in.
    seen: Instant,
    ledger_id: Option<LedgerId>,
    ledger: Ledger,
    bases: BTreeMap<NodeId, Share>,
    heights: Heights,
    quorum: Quorum,
    /// Level of gifts already taken, by voucher and its life, per meter.
    gifts_taken: BTreeMap<Replica, Vec<u128>>,
    pages: Pages,
    /// When rows are signed next, so that others may pass them on.
    sign_at: Instant,
    /// What is held against peers.
    audit: Audit,
    /// Another life of this node runs.
    doubled: bool,
    peers: Peers,
    /// The latest life of every node that was ever heard first-hand in this life.
    lives: BTreeMap<NodeId, Incarnation>,
    /// Who says that it leaves.
    leaving: BTreeSet<NodeId>,
    /// When the last link to a member went down over which something was heard.
    down_at: BTreeMap<NodeId, Instant>,
    addresses: Vec<String>,
    /// Where peers are reached, by their own word; at most as many as there are pages.
    reached_at: BTreeMap<NodeId, Vec<String>>,
    pools: Vec<PoolState>,
    meters: Vec<Meter>,
    former_leases: FormerLeases,
    dynamic: Dynamic,
    rng: ChaCha8Rng,
    outputs: VecDeque<Output>,
    pauses: Pauses,
    /// What the former life left missing, until it was taken up.
    former: Vec<Missing>,
    /// What a former life gave away is not known, so that the base share is not used; see [`durable`].
    forfeits: bool,
    has_slow_limits: bool,
    /// What is believed of wall time, once the driver has told it.
    wall: Option<Wall>,
    /// When the first calendar period ends.
    period_ends: Instant,
    agents: Agents,
    /// The last request, whose lists the next uses again.
    spare: Request,
    waiters: BTreeMap<Ticket, Waiter>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    tickets: u64,
    permits: Permits,
    /// Permits out that hold a slot of a concurrency limit.
    slots_out: usize,
    next_round: Instant,
    next_slow: Instant,
    /// When rows are published next even if little changed.
    rows_due: Instant,
    /// No lease ends before this moment.
    next_expiry: Instant,
    /// When the next peer may be asked to vouch for this node.
    join_at: Instant,
    /// Requests came lately, or leases run.
    busy: bool,
    /// How many rounds have passed in which nothing changed, and what the page was at the last.
    still_rounds: u32,
    version_at_round: u64,
    /// There is news about members that not everybody may have heard.
    members_changed: bool,
    /// When to compare what is known with some peer.
    compare_at: Instant,
    /// How many full digests of peers were answered.
    digests_answered: u64,
    /// The neighbours that it chose, best first, where not everybody has a link to everybody.
    chosen: BTreeSet<(u64, NodeId)>,
    /// Since when news about how many members was passed on.
    passed_on: (Instant, u32),
    /// When to ask for more links again.
    widen_at: Instant,
    /// What those without a link leave of each limit to the others; none where everybody has a link.
    left_by_rest: Vec<Option<Share>>,
    /// The rows that the targets are made of, by meter; none if they must be looked up again.
    near: Vec<Option<Arc<Vec<Neighbour>>>>,
    /// Shares should be looked at, before the present call returns or as soon after as this.
    stale: bool,
    share_at: Instant,
    /// Ledger news of others that is not on disk yet, and when it will be.
    save_at: Option<Instant>,
}

impl Node {
    /// A node at `now`. `seed` is all the randomness that it will ever use.
    ///
    /// # Panics
    /// If a keyed pool has a limit that is no rate.
    pub fn new(config: NodeConfig, start: Start, seed: [u8; 32], now: Instant) -> Self {
        let replica = Replica { node: config.id, incarnation: config.incarnation };
        let mut meters = Vec::new();
        let mut pools = Vec::new();
        for pool in &config.pools {
            let first = meters.len();
            if pool.keyed.is_none() {
                meters.extend(pool.limits().iter().map(|limit| Meter::new(limit.clone(), pool.name(), now)));
            }
            let probe = pool.breaker.map(|_| meters.len());
            meters.extend(probe.map(|_| Meter::new(Gate::probe_limit(), pool.name(), now)));
            let gate = Gate::new(pool, replica, probe, now);
            pools.push(PoolState::new(pool, first, gate, now));
        }
        let mut node = Self {
            replica,
            phase: Phase::Joining,
            settles_at: None,
            started: now,
            seen: now,
            ledger_id: None,
            ledger: Ledger::default(),
            bases: BTreeMap::new(),
            heights: Heights::default(),
            quorum: Quorum::new(!matches!(start, Start::Join), now),
            gifts_taken: BTreeMap::new(),
            pages: Pages::new(config.id, config.incarnation, Arc::clone(&config.keys), now),
            audit: Audit::default(),
            doubled: false,
            sign_at: now,
            peers: Peers::default(),
            lives: BTreeMap::new(),
            leaving: BTreeSet::new(),
            down_at: BTreeMap::new(),
            addresses: Vec::new(),
            reached_at: BTreeMap::new(),
            pools,
            chosen: BTreeSet::new(),
            passed_on: (now, 0),
            widen_at: now,
            left_by_rest: vec![None; meters.len()],
            has_slow_limits: meters.iter().any(Meter::is_slow),
            near: vec![None; meters.len()],
            meters,
            former_leases: FormerLeases::default(),
            dynamic: Dynamic::new(now),
            rng: ChaCha8Rng::from_seed(seed),
            outputs: VecDeque::new(),
            pauses: Self::no_pauses(&config.pools),
            former: Vec::new(),
            forfeits: false,
            wall: None,
            period_ends: Instant::from_nanos(u64::MAX),
            agents: config.agents.clone(),
            spare: Request::default(),
            waiters: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            tickets: 0,
            permits: Permits::new(config.incarnation, PERMITS_DEFAULT),
            slots_out: 0,
            next_round: now,
            next_slow: now,
            rows_due: now,
            next_expiry: Instant::from_nanos(u64::MAX),
            join_at: now,
            busy: true,
            still_rounds: 0,
            version_at_round: 0,
            members_changed: false,
            compare_at: now,
            digests_answered: 0,
            stale: true,
            share_at: now,
            save_at: None,
            config,
        };
        node.publish_profile(now);
        node.begin(start, now);
        node
    }

    fn begin(&mut self, start: Start, now: Instant) {
        let founders = self.config.vouching.ledger();
        if matches!(start, Start::Resume(_) | Start::Rejoin) && self.config.vouching.trust == Trust::Weight {
            // Among members lenders are believed.
            self.former_leases.credited_since = Some(now);
            self.meters.iter_mut().for_each(|meter| meter.credited_since = Some(now));
        }
        match start {
            // What was saved of another ledger than the configured one is void.
            start if founders.is_some_and(|id| !matches!(&start, Start::Resume(saved) if saved.id == id)) => {
                self.ledger = Ledger::founded_by(&self.config.vouching.founders);
                founders.into_iter().for_each(|id| self.set_ledger(id));
                if matches!(start, Start::Rejoin) {
                    self.forfeit();
                }
                self.begin_founded(now);
            }
            Start::Join => {}
            Start::Rejoin => self.forfeit(),
            Start::Found => {
                self.set_ledger(LedgerId(self.config.id));
                self.ledger = Ledger::found(self.config.id);
                self.begin_founded(now);
            }
            Start::Resume(saved) => {
                self.set_ledger(saved.id);
                self.resume_ledger(saved.records, now);
                self.reached_at = saved.reached_at;
                self.former = saved.missing;
                if saved.forfeits {
                    self.forfeit();
                }
                let member = self.ledger.is_member(&self.config.id);
                self.phase = match (member, saved.clean) {
                    (false, _) => Phase::Joining,
                    (true, true) => Phase::Ready,
                    (true, false) => Phase::Settling(now + SETTLE),
                };
                self.settles_at = matches!(self.phase, Phase::Settling(_)).then(|| now + SETTLE);
                self.rebase(now);
                for (peer, addresses) in self.reached_at.clone() {
                    self.reach(peer, addresses);
                }
                // From now on this life may lend.
                self.save(false);
            }
        }
    }

    fn set_ledger(&mut self, ledger: LedgerId) {
        self.ledger_id = Some(ledger);
        self.pages.set_ledger(ledger);
    }

    /// Begins in a ledger of which nothing was ever spent.
    fn begin_founded(&mut self, now: Instant) {
        if self.ledger_id == Some(LedgerId(self.config.id)) {
            self.pages.publish(Key::Founded, Value::Share(ONE), now);
        }
        if self.ledger.is_member(&self.config.id) {
            self.phase = Phase::Ready;
        }
        self.rebase(now);
        let base = self.usable_base();
        for meter in &mut self.meters {
            // So the whole burst is there.
            let full = meter.bucket().depth_of(base);
            meter.set_base(base, full, now);
        }
        self.all_keys().for_each(|keys| keys.start_full(base, now));
        self.dynamic.history = History::full(base, now);
        self.save(false);
    }

    /// Tells where this node is reached, as multiaddresses; the first eight travel.
    pub fn set_addresses(&mut self, addresses: Vec<String>, now: Instant) {
        self.expire(now);
        self.addresses = addresses;
        self.addresses.truncate(PROFILE_ADDRESSES_MAX);
        self.publish_profile(now);
        self.finish(now);
    }

    /// Something happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.expire(now);
        match input {
            Input::Up(peer) => self.link_up(peer, now),
            Input::Down(peer) => self.link_down(peer, now),
            Input::Message(from, message) => self.hear(from, &message, now),
            Input::Timeout => {}
        }
        // Before what is due by the clock, which `finish` does not wait for.
        let changed = self.serve_all(now) | self.run_clock(now);
        self.finish_after(changed, now);
    }

    /// The next thing to do, if there is one.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle`](Self::handle) with [`Input::Timeout`].
    pub fn next_deadline(&self) -> Instant {
        let mut next = self.next_round.min(self.next_expiry);
        for pool in &self.pools {
            // Of a gate that is shut only the gate's own times count.
            let times = [pool.head_ready, pool.queue.next_ageing(), pool.gate.next_change(self.seen)];
            next = times.into_iter().flatten().fold(next, Instant::min);
        }
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        next = deadline
            .into_iter()
            .chain(self.next_permit_expiry())
            .chain([self.period_ends])
            .fold(next, Instant::min);
        if let Phase::Leaving(until) = self.phase {
            next = next.min(until);
        }
        next = next.min(self.quorum_ends());
        let share_at = self.stale.then_some(self.share_at);
        let times = self.save_at.into_iter().chain(self.settles_at).chain(share_at);
        self.peers.send_at().into_iter().chain(times).fold(next, Instant::min)
    }

    /// What is due by the clock. False if nothing was.
    fn run_clock(&mut self, now: Instant) -> bool {
        let mut changed = false;
        if self.settles_at.is_some_and(|at| now >= at) {
            self.settles_at = None;
            if matches!(self.phase, Phase::Settling(_)) {
                self.phase = Phase::Ready;
            }
            self.rebase(now);
            changed = true;
        }
        if self.save_at.is_some_and(|at| now >= at) {
            self.save(false);
        }
        changed |= self.look_at_gates(now);
        if now >= self.next_round {
            self.round(now);
            changed = true;
        }
        changed
    }

    /// Ends the leases whose time is over. Must come before anything that reads a bucket at `now`.
    fn expire(&mut self, now: Instant) {
        self.seen = self.seen.max(now);
        if self.next_permit_expiry().is_some_and(|at| now >= at) {
            self.expire_permits(now);
        }
        if now >= self.period_ends {
            self.turn_periods(now);
        }
        if now >= self.quorum_ends() {
            self.look_at_quorum(now);
        }
        if now < self.next_expiry {
            return;
        }
        for place in 0..self.meters.len() {
            let (told, changed) = self.meters[place].expire(now);
            for lender in told {
                self.peer_is_owed(lender.node);
            }
            self.stale |= changed;
        }
        self.look_at_expiries();
    }

    fn look_at_expiries(&mut self) {
        let never = Instant::from_nanos(u64::MAX);
        self.next_expiry = self.meters.iter_mut().filter_map(Meter::next_expiry).fold(never, Instant::min);
    }

    /// Leaves the node consistent after a call: shares follow demand, waiters are served, messages are out.
    fn finish(&mut self, now: Instant) {
        self.finish_after(true, now);
    }

    /// … where nothing may have changed since the waiters were last served, which is the dearest part.
    fn finish_after(&mut self, changed: bool, now: Instant) {
        // Before shares move: whoever can be served with what is here does not want it elsewhere.
        let mut changed = changed && self.serve_all(now);
        // With many links much of the news comes at once, and is better looked at together.
        if self.stale && (now >= self.share_at || self.peers.len() <= FEW_LINKS) {
            self.stale = false;
            self.share_at = now + SHARE_SPACING;
            self.share_out(now);
            changed = true;
        }
        if changed {
            self.serve_all(now);
        }
        self.look_at_expiries();
        // Leases live for less than idle rounds are apart.
        if !self.busy && self.next_expiry < Instant::from_nanos(u64::MAX) {
            self.wake(now);
        }
        self.leave_if_done(now);
        // On disk before it is lent or answered for.
        self.reserve_ahead();
        if self.stale {
            self.share_at = if self.share_at > now { self.share_at } else { now + SHARE_SPACING };
        }
        self.flush(now);
    }

    /// Applies what the ledger says of this node's base share to its buckets.
    fn rebase(&mut self, now: Instant) {
        let bases = self.ledger.bases(self.config.policy);
        let before = std::mem::replace(&mut self.bases, bases);
        self.note_gains(&before, now);
        self.heights.note(&self.bases);
        self.count_majority(now);
        for member in self.pages.set_members(self.bases.keys().copied()) {
            self.count_signed(member);
        }
        self.look_at_forfeit();
        let base = self.usable_base();
        for meter in &mut self.meters {
            if meter.base() != base {
                meter.set_base(base, Level::ZERO, now);
            }
        }
        self.resume_levels(now);
        self.all_keys().for_each(|keys| keys.set_base(base, now));
        self.dynamic.history.set_base(base, now);
        self.give_back_beyond(now);
        self.stale = true;
    }

    /// This node's base share by the ledger, usable or not.
    fn base(&self) -> Share {
        self.bases.get(&self.config.id).copied().unwrap_or_default()
    }

    fn usable_base(&self) -> Share {
        let usable = self.settles_at.is_none()
            && !self.doubled
            && !self.forfeits
            && matches!(self.phase, Phase::Ready | Phase::Leaving(_));
        if usable && self.has_quorum() { self.base() } else { Share::ZERO }
    }

    fn save(&mut self, clean: bool) {
        self.save_at = None;
        if let Some(id) = self.ledger_id {
            let records = self.pages.records().map(|(author, record)| (author, record.clone())).collect();
            let reached_at = self.reached_at.clone();
            let (missing, forfeits) = (self.missing(), self.forfeits);
            let saved = Saved { id, records, reached_at, clean, missing, forfeits };
            self.outputs.push_back(Output::Save(Box::new(saved)));
        }
    }

    fn save_soon(&mut self, now: Instant) {
        self.save_at.get_or_insert(now + Duration::from_secs(1));
    }

    fn publish_profile(&mut self, now: Instant) {
        let lost = self.lost_members(now);
        let mut limits = self.limit_names();
        limits.truncate(PROFILE_LIMITS_MAX);
        let profile = Profile {
            name: self.config.name.chars().take(64).collect(),
            addresses: self.addresses.clone(),
            limits,
            leaving: matches!(self.phase, Phase::Leaving(_) | Phase::Left),
            unlinked: self.unlinked(now),
            lost,
        };
        if self.pages.publish(Key::Profile, Value::Profile(profile), now) {
            self.peers_should_hear(now);
        }
    }

    /// What peers call each limit, `pool/limit` cut to [`PROFILE_NAME_MAX`] characters, with its fingerprint.
    fn limit_names(&self) -> Vec<(String, Fingerprint)> {
        let name = |pool: &Pool, limit: &Limit| {
            let name = format!("{}/{}", pool.name(), limit.name).chars().take(PROFILE_NAME_MAX).collect();
            (name, limit.fingerprint(pool.name()))
        };
        let names = |pool| Pool::limits(pool).iter().map(move |limit| name(pool, limit));
        self.config.pools.iter().flat_map(names).collect()
    }

    pub(super) fn notice(&mut self, text: String) {
        self.outputs.push_back(Output::Notice(text));
    }

    /// A random number below `bound`.
    fn random(&mut self, bound: u64) -> u64 {
        // The bias of the remainder is below 2⁻³² for every bound used here.
        self.rng.next_u64() % bound.max(1)
    }
}
