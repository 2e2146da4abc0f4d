//! Shares follow demand: targets, turns, leases; and the rounds that keep them fresh.

use std::time::Duration;

use super::peers::Peer;
use super::rows::{Neighbour, WEIGHT_MAX};
use super::{FEW_LINKS, IDLE_SILENCE, Node, Phase, ROUND, Trust};
use crate::protocol::bucket::Level;
use crate::protocol::id::{NodeId, Replica};
use crate::protocol::lending::{FINE_GRAIN, GRAIN, Plan, Position, plan};
use crate::protocol::meter::{Meter, TAG_SCALE};
use crate::protocol::record::Row;
use crate::protocol::share::{ONE, Share};
use crate::protocol::target::{CLASSES, Claim, in_units, targets as targets_of};
use crate::protocol::time::Instant;

/// How often small deviations are evened out and base shares drift.
pub(super) const SLOW_ROUND: Duration = Duration::from_secs(1);
/// A turn lasts at least this long, so that handing over (a round trip) costs a few per cent, …
const TURN_MIN: Duration = Duration::from_millis(100);
/// … or this many round trips, where those are long, …
const TURN_ROUND_TRIPS: u32 = 48;
/// … but no longer than this, because everybody else waits for its end.
const TURN_MAX: Duration = Duration::from_secs(4);
/// What is more urgent elsewhere waits for so many round trips of a turn.
const URGENT_ROUND_TRIPS: u32 = 8;

/// Rounds of a busy node in which nothing changes come less and less often, down to one in so many …
const STILL_ROUNDS_MAX: u32 = 2;
/// … and with leases out, which rounds prolong, to one in two to the power of this.
const STILL_ROUNDS_MAX_WITH_LEASES: u32 = 1;
/// A node that has lacked more than three quarters of an equal part for so long tells everybody.
const LACK_PATIENCE: Duration = Duration::from_millis(50);
/// Where each has no more than so many units that come back one by one, shares are whole units.
const UNITS_EACH: u64 = 64;

impl Node {
    /// Moves shares of every limit one step towards the targets, and publishes what changed.
    pub(super) fn share_out(&mut self, now: Instant) {
        self.move_shares(GRAIN, now);
    }

    fn move_shares(&mut self, grain: u64, now: Instant) {
        self.return_to_leavers(now);
        for place in 0..self.meters.len() {
            if !self.is_vacant(place) {
                self.move_share(place, grain, now);
            }
        }
    }

    fn move_share(&mut self, place: usize, grain: u64, now: Instant) {
        let neighbours = self.neighbours(place);
        self.meters[place].refill(now);
        self.meters[place].offer(now);
        self.meters[place].end_turn_in_time(now);
        let mut row = self.row(place, now);
        if row.waiting > 0 {
            row.tag = self.forgive(place, &neighbours);
        }
        // Who claims more of a base share than there is moves nobody's target beyond all there is.
        let total = (row.base + neighbours.iter().map(|neighbour| neighbour.row.base).sum()).min(ONE);
        let mut claims = Vec::with_capacity(neighbours.len() + 1);
        claims.push(self.claim(place, self.config.id, &row));
        // Most wait for the same, with the same weight.
        let mut like: Option<((u64, u32), Claim)> = None;
        for Neighbour { replica, row, .. } in &**neighbours {
            let kind = (row.waiting, row.weight);
            let like = match like {
                Some((known, claim)) if known == kind => claim,
                _ => like.insert((kind, self.claim(place, replica.node, row))).1,
            };
            claims.push(Claim {
                lot: like.lot,
                quantum: like.quantum,
                ..Self::plain_claim(replica.node, row)
            });
        }
        let leaves = matches!(self.phase, Phase::Leaving(_) | Phase::Left);
        if leaves {
            claims[0] = Claim { demand: [Share::ZERO; CLASSES], lot: Share::ZERO, ..claims[0] };
        }
        if self.should_end_turn(place, &row, &claims) {
            (self.meters[place].turn_end, claims[0].turn_end) = (row.tag, row.tag);
        }
        let mut targets = match self.left_by_rest[place] {
            Some(left) if !leaves => targets_of(left, &claims),
            _ => targets_of(total, &claims),
        };
        if self.left_by_rest[place].is_some()
            && claims.iter().zip(&targets).any(|(claim, target)| claim.lot > *target)
        {
            // Turns are taken among neighbours: the lots of others are out of sight.
            targets = targets_of(total, &claims);
        }
        let units = self.meters[place].bucket().counted().is_some()
            && claims.len() as u64 * UNITS_EACH >= self.meters[place].limit.kind.amount();
        if units {
            let own_held = std::iter::once(row.held);
            let held: Vec<Share> = own_held.chain(neighbours.iter().map(|peer| peer.row.held)).collect();
            let unit = self.meters[place].bucket().lot(1);
            in_units(total, unit, &claims, &held, &mut targets);
        }
        let own = row.demand.min(row.base);
        if self.config.vouching.trust == Trust::Weight && !leaves {
            // Others' claims get what this node leaves of its own. Who was lent more before does not have it prolonged.
            targets[0] = targets[0].max(own);
            self.meters[place].recalls = row.held + own.scale(1, GRAIN) < own;
        }
        // Where somebody waits for a turn, one begins when the lot is held and the last turn is over.
        let lot = claims[0].lot;
        let turns = claims.iter().zip(&targets).any(|(claim, target)| claim.lot > *target);
        let begins = turns && lot > Share::ZERO && targets[0] >= lot && row.held >= lot;
        let turn = self.turn();
        let service = if begins { self.quantum(place, &row, turn) } else { 0 };
        let meter = &mut self.meters[place];
        meter.target = targets[0];
        if begins && meter.tag >= meter.turn_end {
            meter.begin_turn(service, turn, now);
        } else if lot == Share::ZERO {
            // Nobody waits here any more: the rest of the turn is forfeit, or the next request would cut into another's.
            meter.turn_end = meter.turn_end.min(meter.tag);
        }

        let own = Position {
            held: row.held,
            target: targets[0],
            free: row.free,
            exact: targets[0] == Share::ZERO,
            waits: row.waiting > 0,
        };
        let few = neighbours.len() <= FEW_LINKS;
        let mut positions = Vec::with_capacity(claims.len());
        for (neighbour, (target, claim)) in neighbours.iter().zip(targets.iter().zip(&claims).skip(1)) {
            let held = neighbour.row.held + meter.unheard_by(&neighbour.replica);
            // Among many, whoever should have far more than the lot has that before it has all.
            let is_tight = few || *target < claim.lot + claim.lot.scale(1, 4);
            let completes = is_tight && claim.lot > Share::ZERO && *target >= claim.lot && held < claim.lot;
            let exact = completes || (units && claim.lot > Share::ZERO);
            let (free, waits) = (neighbour.row.free, neighbour.row.waiting > 0);
            positions.push(Position { held, target: *target, free, exact, waits });
        }
        // All nodes plan over the same list.
        let me = neighbours.partition_point(|neighbour| neighbour.replica.node < self.config.id);
        positions.insert(me, own);
        let mut plan = plan(me, &positions, meter.borrowed(), grain);
        positions.remove(me);
        plan.lend.iter_mut().for_each(|(place, _)| *place -= usize::from(*place > me));
        let concerned =
            if turns { None } else { Some(Self::concerned(&neighbours, &positions, &own, row.need)) };
        if leaves {
            // A loan would keep the base here until it ends; it goes to an heir as a whole.
            plan.lend.clear();
        }
        let before = self.meters[place].held();
        let spare: Share = positions.iter().map(Position::can_spare).sum();
        // Share that nobody lacks is given back slowly, so that a borrower whose demand wavers does not send it to and
        // fro; unless it needs none at all.
        if plan.wanted || targets[0] == Share::ZERO || grain == FINE_GRAIN {
            let lacks = |lender: &NodeId| {
                // Few see it at once, and lend it on themselves.
                if few {
                    return Share::ZERO;
                }
                let found = neighbours.binary_search_by_key(lender, |neighbour| neighbour.replica.node);
                found.map_or(Share::ZERO, |at| positions[at].target.saturating_sub(positions[at].held))
            };
            self.give_back(place, plan.give_back, &row, lacks, now);
        }
        let reached = self.lend(place, &plan, &row, &neighbours, now);
        let meter = &mut self.meters[place];
        // Where spent units come back to the share, a node with a queue would spend them again before the share can move.
        let moved = before.saturating_sub(meter.held());
        let counted = meter.bucket().counted().is_some();
        let due = counted && reached && !leaves;
        meter.due = if due { plan.due.saturating_sub(moved) } else { Share::ZERO };
        if row.waiting > 0 {
            self.widen(targets[0], row.held, spare, now);
        }
        self.spare_level(place, &row, &neighbours, now);
        row = self.row(place, now);
        self.publish_row(place, row, false, concerned.as_deref(), now);
        if !few {
            self.tell_of_lack(place, &positions, own.target, now);
        }
    }

    /// Whoever lacks much for longer than those whom it concerned needed to answer tells everybody: others may lack as much,
    /// which is not known here, nor this there, so that whoever has share believes that little of it is wanted.
    fn tell_of_lack(&mut self, place: usize, others: &[Position], target: Share, now: Instant) {
        let meter = &mut self.meters[place];
        let held = meter.held() + others.iter().map(|position| position.held).sum();
        if target.saturating_sub(meter.held()) <= held.scale(3, 4 * (others.len() as u64 + 1)) {
            meter.lacks_since = None;
        } else if now >= *meter.lacks_since.get_or_insert(now) + LACK_PATIENCE {
            meter.lacks_since = Some(now);
            self.peers_should_hear_what_is_new(now);
        }
    }

    fn give_back(
        &mut self,
        place: usize,
        share: Share,
        row: &Row,
        lacks: impl Fn(&NodeId) -> Share,
        now: Instant,
    ) {
        if share == Share::ZERO {
            return;
        }
        let meter = &mut self.meters[place];
        let level = if row.need > 0 { Level::ZERO } else { meter.part_of_level(share) };
        for lender in meter.give_back(share, level, lacks, now) {
            if let Some(peer) = self.peers.get_mut(&lender.node) {
                peer.owes(place);
            }
        }
    }

    /// False if somebody could not be lent to because its clock was not heard lately.
    fn lend(&mut self, place: usize, plan: &Plan, row: &Row, neighbours: &[Neighbour], now: Instant) -> bool {
        let meter = &mut self.meters[place];
        let (mut lent, mut stale) = (Vec::new(), Vec::new());
        for (peer, share) in &plan.lend {
            let borrower = &neighbours[*peer];
            // What went back just now may have been all that was unspent.
            let share = (*share).min(meter.free());
            if share == Share::ZERO {
                break;
            }
            let peer = self.peers.get(&borrower.replica.node);
            if !peer.is_some_and(Peer::is_in_reach) || !meter.opens_line(borrower.replica.node, now) {
                continue;
            }
            let lasts = |peer: &Peer| meter.would_last(&borrower.replica, (peer.clock, peer.clock_at), now);
            if !peer.is_some_and(lasts) {
                stale.push(borrower.replica.node);
                continue;
            }
            let level = if row.need > 0 || row.waiting > 0 {
                Level::ZERO
            } else {
                let spare = Level::of(row.spare, &meter.limit.kind);
                let need = Level::of(borrower.row.need, &meter.limit.kind);
                meter.part_of_level(share).max(need).min(spare)
            };
            meter.lend(borrower.replica, share, level, now);
            lent.push(borrower.replica.node);
        }
        let few = self.peers.len() <= FEW_LINKS;
        for node in lent {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.is_lent(place, few);
            }
        }
        for node in &stale {
            // It answers with a moment of its clock, which a lease needs.
            if let Some(peer) = self.peers.get_mut(node) {
                peer.beat |= peer.sent_at.is_none_or(|at| now >= at + ROUND);
            }
        }
        stale.is_empty()
    }

    /// Gives level that nobody asks for here to nodes where requests wait, without any share.
    fn spare_level(&mut self, place: usize, row: &Row, neighbours: &[Neighbour], now: Instant) {
        let needs: u64 = neighbours.iter().map(|peer| peer.row.need).fold(0, u64::saturating_add);
        if row.spare == 0 || needs == 0 || self.meters[place].free() == Share::ZERO {
            return;
        }
        let spare = neighbours.iter().map(|peer| peer.row.spare).fold(row.spare, u64::saturating_add);
        let mut left =
            Level::of(row.spare, &self.meters[place].limit.kind).min(self.meters[place].bucket().level());
        let few = self.peers.len() <= FEW_LINKS;
        for neighbour in neighbours.iter().filter(|peer| peer.row.need > 0) {
            let meter = &self.meters[place];
            let lasts = |peer: &&mut Peer| {
                peer.is_in_reach() && meter.would_last(&neighbour.replica, (peer.clock, peer.clock_at), now)
            };
            let Some(peer) = self.peers.get_mut(&neighbour.replica.node).filter(lasts) else { continue };
            // Once per row: the next row tells whether it still lacks something.
            if peer.levelled.insert(place, neighbour.version) == Some(neighbour.version) {
                continue;
            }
            let need = u128::from(neighbour.row.need);
            let part = (need * u128::from(row.spare)).div_ceil(u128::from(spare.max(needs)));
            let part = u64::try_from(part).unwrap_or(u64::MAX).min(neighbour.row.need);
            let level = Level::of(part, &self.meters[place].limit.kind).min(left);
            if level == Level::ZERO {
                break;
            }
            left = left.saturating_sub(level);
            peer.is_lent(place, few);
            self.meters[place].lend(neighbour.replica, Share::ZERO, level, now);
        }
    }

    /// Peers that leave get back at once what they have lent.
    fn return_to_leavers(&mut self, now: Instant) {
        if self.leaving.is_empty() {
            return;
        }
        let leavers: Vec<Replica> = self.linked().filter(|replica| self.is_leaving(&replica.node)).collect();
        for lender in leavers {
            for place in 0..self.meters.len() {
                if self.meters[place].give_back_to(&lender, Share::ZERO, now)
                    && let Some(peer) = self.peers.get_mut(&lender.node)
                {
                    peer.owes(place);
                }
            }
        }
    }

    /// Looks around: at the clock, at peers that fell silent, at what should be said again.
    pub(super) fn round(&mut self, now: Instant) {
        let slow = now >= self.next_slow;
        if slow {
            self.next_slow = now + SLOW_ROUND;
            self.look_after_members(now);
            self.look_at_books(now);
            self.look_at_rest(now);
            self.settle_unreported(now);
            self.carry_pauses(now);
            self.reserve_less();
            self.look_after_keys(now);
            self.publish_profile(now);
        }
        if slow || self.stale || self.peers.len() <= FEW_LINKS {
            self.stale = false;
            self.move_shares(if slow { FINE_GRAIN } else { GRAIN }, now);
        }
        for place in 0..self.meters.len() {
            if !self.is_vacant(place) {
                let row = self.row(place, now);
                self.publish_row(place, row, true, Some(&[]), now);
            }
        }
        if slow {
            self.sign_rows(now);
        }
        self.expire_permits(now);
        self.tell_outcomes(now);
        self.busy = self.is_busy();
        self.look_after_peers(now);
        let still = self.version_at_round == self.pages.own_version();
        self.version_at_round = self.pages.own_version();
        self.still_rounds = if still { (self.still_rounds + 1).min(6) } else { 0 };
        let most = match (self.busy, self.next_expiry < Instant::from_nanos(u64::MAX)) {
            (false, _) => u32::MAX,
            (true, false) => STILL_ROUNDS_MAX,
            (true, true) => STILL_ROUNDS_MAX_WITH_LEASES,
        };
        let interval = (ROUND * (1 << self.still_rounds.min(most))).min(IDLE_SILENCE);
        // Spread by a tenth, so that the rounds of a swarm do not fall on one moment.
        let spread = self.random(interval.as_nanos() as u64 / 10);
        self.next_round = now + interval - Duration::from_nanos(spread);
        // What the last messages promised holds even when this node has become idle since, and share that nobody asks for
        // any more is noticed as soon as it can be.
        let promised = self.peers.values().filter_map(Peer::due_at);
        let ceases = self.meters.iter_mut().filter_map(|meter| meter.demand.ceases_at(now));
        let earliest = promised.chain(ceases).fold(self.next_round, Instant::min);
        self.next_round = earliest.max(now + ROUND / 2).min(self.next_round);
    }

    /// A request came in while rounds were far apart.
    pub(super) fn wake(&mut self, now: Instant) {
        self.busy = true;
        self.still_rounds = 0;
        self.next_round = self.next_round.min(now + ROUND);
    }

    fn is_busy(&mut self) -> bool {
        let moving = |meter: &Meter| {
            meter.lent() > Share::ZERO || meter.borrowed() > Share::ZERO || meter.demand.largest() > 0
        };
        matches!(self.phase, Phase::Joining | Phase::Leaving(_))
            || self.pools.iter().any(|state| !state.queue.is_empty())
            || self.meters.iter().any(moving)
    }

    /// The queue of a pool is about to fill. A node that returns earns no credit for the time it asked for nothing
    /// (start-time fair queueing): it starts where the least served of those who wait stands.
    pub(super) fn begin_backlog(&mut self, pool: usize) {
        for place in self.pools[pool].meters() {
            let neighbours = self.neighbours(place);
            let waiting =
                neighbours.iter().filter(|peer| peer.row.waiting > 0).map(|peer| peer.row.tag).min();
            let virtual_time =
                waiting.or_else(|| neighbours.iter().map(|peer| peer.row.tag).max()).unwrap_or(0);
            let meter = &mut self.meters[place];
            meter.tag = meter.tag.max(virtual_time);
        }
    }

    /// Whether this node's turn at one of the pool's limits is over and others wait for theirs.
    pub(super) fn turn_is_over(&mut self, pool: usize) -> bool {
        self.pools[pool].meters().any(|place| {
            let meter = &self.meters[place];
            // What is its own nobody else's turn can stop.
            let is_own = self.config.vouching.trust == Trust::Weight && meter.held() <= meter.base();
            let is_over = meter.turn_end > 0 && meter.tag >= meter.turn_end && !is_own;
            is_over && self.neighbours(place).iter().any(|peer| peer.row.waiting > 0)
        })
    }

    /// Whether requests wait where less is held than should be, or where not everybody could hold what the first of them
    /// needs, so that turns are taken.
    pub(super) fn waits_for_share(&self) -> bool {
        let nodes = self.peers.len() as u64 + 1;
        (0..self.pools.len()).filter(|pool| !self.pools[*pool].queue.is_empty()).any(|pool| {
            self.pools[pool].meters().any(|place| {
                let meter = &self.meters[place];
                let (head, _) = self.head_of(pool, place).unwrap_or_default();
                let lacks = meter.held() + meter.target.scale(1, GRAIN) < meter.target;
                lacks || meter.bucket().lot(head) > ONE.scale(1, nodes)
            })
        })
    }

    /// Who should hear at once what is urgent: those who hold more than their targets, and could lend or must give back,
    /// if share is lacking here; those who can spare level, if level is. Each of them covers its own part of what is
    /// lacking, so all must hear.
    fn concerned(neighbours: &[Neighbour], positions: &[Position], own: &Position, need: u64) -> Vec<NodeId> {
        let held: Share = positions.iter().map(|position| position.held).sum();
        let little = (held + own.held).scale(1, 16 * (positions.len() as u64 + 1));
        let lacks = own.target.saturating_sub(own.held) > little;
        let has_something = |(neighbour, position): &(&Neighbour, &Position)| {
            let share = lacks && position.held.saturating_sub(position.target) > little;
            share || (need > 0 && neighbour.row.spare > 0)
        };
        let told = neighbours.iter().zip(positions).filter(has_something);
        told.map(|(neighbour, _)| neighbour.replica.node).collect()
    }

    pub(super) fn claim(&self, place: usize, node: NodeId, row: &Row) -> Claim {
        let lot = if row.waiting > 0 { self.meters[place].bucket().lot(row.waiting) } else { Share::ZERO };
        Claim { lot, quantum: self.quantum(place, row, TURN_MIN), ..Self::plain_claim(node, row) }
    }

    /// A claim without what depends on the limit.
    fn plain_claim(node: NodeId, row: &Row) -> Claim {
        Claim {
            node,
            weights: row.weights.map(|weight| weight.clamp(1, WEIGHT_MAX)),
            demand: row.by_class(),
            lot: Share::ZERO,
            class: usize::from(row.class).min(CLASSES - 1),
            tag: row.tag,
            turn_end: row.turn_end,
            held: row.held,
            quantum: 0,
        }
    }

    /// How long a turn lasts.
    fn turn(&self) -> Duration {
        (self.longest_round_trip() * TURN_ROUND_TRIPS).clamp(TURN_MIN, TURN_MAX)
    }

    /// Whether something more urgent waits elsewhere for this node's turn to end, which has lasted long enough to be worth its
    /// handing over. The first of the claims is this node's.
    fn should_end_turn(&self, place: usize, row: &Row, claims: &[Claim]) -> bool {
        let own = claims[0];
        let waits = |claim: &Claim| claim.lot > claim.held && claim.class < own.class;
        let least = self.longest_round_trip() * URGENT_ROUND_TRIPS;
        own.lot > Share::ZERO
            && own.tag < own.turn_end
            && claims.iter().any(waits)
            && own.tag >= self.meters[place].turn_began.saturating_add(self.quantum(place, row, least))
    }

    fn longest_round_trip(&self) -> Duration {
        self.peers.values().filter_map(|peer| peer.round_trip).max().unwrap_or_default()
    }

    /// Whoever waited where it could not be served, behind a cut, say, is further behind than turns alone would leave it.
    /// Were all of that made up for, those who were served meanwhile would now wait as long: it forgets what is more than
    /// two of the longest turns. Returns its tag.
    fn forgive(&mut self, place: usize, neighbours: &[Neighbour]) -> u64 {
        let waiting = neighbours.iter().map(|peer| &peer.row).filter(|row| row.waiting > 0);
        let lead = |row: &Row| self.quantum(place, row, TURN_MAX).saturating_mul(2);
        let least = waiting.map(|row| row.tag.saturating_sub(lead(row))).max().unwrap_or(0);
        let meter = &mut self.meters[place];
        meter.tag = meter.tag.max(least);
        meter.tag
    }

    /// The service that a turn of this length gives with one lot of share, at least one waiting request.
    fn quantum(&self, place: usize, row: &Row, turn: Duration) -> u64 {
        let meter = &self.meters[place];
        let lot = meter.bucket().lot(row.waiting.max(1)).fraction().min(1.0);
        let units = meter.limit.kind.per_second() * lot * turn.as_secs_f64();
        let units = (units as u64).max(row.waiting).max(1);
        (units.saturating_mul(TAG_SCALE) / u64::from(row.weight.clamp(1, 16))).max(1)
    }
}
