//! Calls: asked for, admitted, settled; and the wall clocks that some of them depend on.

use std::time::Duration;

use aquifer::protocol::limit::{Cost, Kind};
use aquifer::protocol::node::{Acquired, Ask, Item, Outcome, PERMIT_TTL};
use aquifer::protocol::permit::PermitId;
use aquifer::protocol::time::Instant;

use super::agenda::Event;
use super::{READ_WALL, World};
use crate::checker::{OneAnswer, Violation, Waiting};
use crate::record::Answer;
use crate::time::Nanos;

impl World<'_> {
    /// A request arrives. On a machine that is down or stands still there is nobody to ask.
    pub(super) fn arrive(&mut self, number: usize) -> Result<(), Violation> {
        let arrival = *self.requests.get(number);
        let place = arrival.node;
        let local = self.local(place);
        let machine = &mut self.machines[place];
        let Some(node) = machine.node.as_mut().filter(|_| machine.paused_until <= self.now) else {
            self.requests.answered(number, false, self.now);
            return Ok(());
        };
        self.trace.fold(&[self.now, place as u64, arrival.units]);
        let wait = Duration::from_nanos(arrival.wait);
        let units = node.pool_at(0).units(&Cost::requests(arrival.units));
        let items = &[Item { pool: 0, units: &units, key: None }];
        let ask = Ask { items, agent: "", class: arrival.class, wait, ttl: PERMIT_TTL };
        match node.ask(&ask, local) {
            Acquired::Now(outcome) => self.answered(place, number, self.now, outcome)?,
            Acquired::Waiting(ticket) => {
                let deadline = (local + wait).as_nanos();
                let waiting = Waiting { units: arrival.units, asked: self.now, deadline, number };
                machine.requests.wait(ticket.0, waiting)?;
                self.checks.bounded.queue(machine.requests.waiting(), self.now)?;
            }
        }
        self.settle(place)
    }

    /// A request has its answer.
    pub(super) fn answered(
        &mut self,
        place: usize,
        number: usize,
        asked: Nanos,
        outcome: Outcome,
    ) -> Result<(), Violation> {
        let arrival = *self.requests.get(number);
        let (units, class, waited) = (arrival.units, arrival.class, self.now - asked);
        let admitted = matches!(outcome, Outcome::Admitted { .. });
        self.record.answers.push(Answer { at: self.now, node: place, units, waited, class, admitted });
        self.requests.answered(number, admitted, self.now);
        let Outcome::Admitted { permit, ttl, .. } = outcome else { return Ok(()) };
        let call = arrival.call;
        let machine = &self.machines[place];
        let expires = machine.clock.local(self.now) + ttl;
        let over_at = call.over_at(self.now, ttl).max(self.now);
        // The node and its caller count the permit's time by the same clock.
        let until = if call.settles { over_at } else { Nanos::MAX }.min(machine.clock.true_time(expires));
        if call.settles && (call.hold > 0 || call.used < units) {
            let (node, life, used) = (place, machine.lives, call.used);
            self.agenda.push(over_at, Event::Settle { node, life, permit, used, expires });
        }
        let bound = self.may_exceed_by();
        let is_permit = matches!(self.limit, Kind::Concurrency(_));
        let checks = &mut self.checks;
        checks.counters.admit(place, units, if is_permit { units } else { units - call.used });
        checks.liveness.admit(units);
        let outcome = checks.never_over.admit(call.used, until, self.now);
        let over = checks.never_over.overshoot();
        match outcome {
            Err(violation) if checks.strict && (!checks.twice || over > bound) => Err(violation),
            _ => Ok(()),
        }
    }

    /// A call is over and its caller says what it used. Nobody does for a node that has died meanwhile.
    pub(super) fn settle_permit(
        &mut self,
        place: usize,
        life: u64,
        permit: PermitId,
        used: u64,
        expires: Instant,
    ) -> Result<(), Violation> {
        let local = self.local(place);
        let machine = &mut self.machines[place];
        let Some(node) = machine.node.as_mut().filter(|_| machine.lives == life) else { return Ok(()) };
        let settled = node.commit(permit, &Cost::requests(used), local);
        OneAnswer::check_settled(&settled, local < expires, self.now)?;
        self.settle(place)
    }

    /// A node reads its wall clock.
    pub(super) fn read_wall(&mut self, place: usize, life: u64) -> Result<(), Violation> {
        let machine = &self.machines[place];
        if machine.lives != life {
            return Ok(());
        }
        let wall = machine.wall(self.now);
        self.agenda.push(self.now + READ_WALL, Event::Wall { node: place, life });
        self.command(place, |node, now| node.set_wall(wall, now))
    }
}
