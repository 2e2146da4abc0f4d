//! What each lie says to a peer at a tick.

use aquifer::protocol::bucket::Level;
use aquifer::protocol::gossip::{Record, Summary};
use aquifer::protocol::id::{Incarnation, LedgerId, NodeId};
use aquifer::protocol::lease::Grant;
use aquifer::protocol::ledger::{Gift, GiftLevels};
use aquifer::protocol::limit::Fingerprint;
use aquifer::protocol::loans::{Book, Line};
use aquifer::protocol::message::{Digest, Message};
use aquifer::protocol::pause::{PauseMark, PauseReason};
use aquifer::protocol::record::{Key, Row, Value};
use aquifer::protocol::share::{ONE, Share};
use aquifer::protocol::signature::Signature;
use aquifer::protocol::time::Instant;

use super::{Liar, Link};
use crate::lie::Lie;

/// In how many ticks whoever floods does so once: else runs would take hours.
const FLOOD_EVERY: u64 = 10;
/// Messages of one tick to one peer, by whoever floods, and values in each: about as many as fit.
const FLOOD: u64 = 2;
const FLOOD_VALUES: u64 = 100;
/// How often whoever lends twice begins another loan: once the last has ended.
const LOAN_TICKS: u64 = 40;
/// Records that are forged or said again in one message.
const MANY: usize = 16;

impl Liar {
    /// The messages for the peer at this `place` among its links.
    pub(super) fn says(&mut self, to: NodeId, place: usize, now: Instant) -> Vec<Message> {
        let limit = self.known.limit.0;
        let row = Row { base: self.known.base, held: self.known.base, ..Row::default() };
        let with = |row: Row| vec![(Key::Row(limit), Value::Row(row))];
        // The first that it spoke to: links come and go, and who is first among them changes.
        let only = *self.only.get_or_insert(to) == to;
        match self.lie {
            Lie::Inflate => {
                let values = with(Row { used: u64::MAX - self.ticks % 2, ..row });
                vec![self.message(to, values, now)]
            }
            Lie::UnderReport => {
                let wants = Row { demand: ONE, waiting: 1, need: 1, weight: 1, ..row };
                let values = with(Row { base: Share::ZERO, held: Share::ZERO, ..wants });
                vec![self.message(to, values, now)]
            }
            Lie::Demand => {
                let values = with(endless(row));
                vec![self.message(to, values, now)]
            }
            Lie::LendTwice | Lie::BookTwice | Lie::HideLoans | Lie::Overdraw => {
                vec![self.lends_twice(to, now)]
            }
            Lie::EndlessLevel if only => {
                // A little more each time: every grant brings all the level again.
                let all = self.known.base;
                let part = all.scale(self.ticks.min(100), 100);
                let level = self.depth(ONE).0.wrapping_mul(u128::from(self.ticks));
                vec![self.lends(to, part, Level(level), now)]
            }
            Lie::EmptyGrant if only => vec![self.lends(to, ONE, self.depth(ONE), now)],
            Lie::Flood if self.ticks % FLOOD_EVERY == 1 => self.floods(to, now),
            Lie::EndlessLevel | Lie::EmptyGrant | Lie::Flood => vec![self.honest(to, now)],
            Lie::Forge => self.forges(to, now),
            Lie::Replay => self.says_again(to, now),
            Lie::Equivocate => self.equivocates(to, place, now),
            Lie::Future => self.comes_from_the_future(to, only, now),
            Lie::Found | Lie::Usurp => self.founds(to, now),
            Lie::Reclaim => {
                let victims: Vec<NodeId> = self.links.keys().copied().collect();
                let values = victims.into_iter().map(|victim| (Key::Reclaimed(victim), Value::Share(ONE)));
                let values = values.collect();
                vec![self.message(to, values, now)]
            }
            Lie::Overgive => self.overgives(to, now),
            Lie::Cycle => {
                let more = Share(self.ticks << 20);
                let gift = Gift { share: more, levels: None, weight: 0 };
                let gifts =
                    self.known.accomplices.iter().map(|to| (Key::Given(*to), Value::Gift(gift.clone())));
                let values = gifts.collect();
                vec![self.message(to, values, now)]
            }
        }
    }

    fn depth(&self, share: Share) -> Level {
        let whole = Level::of(self.known.limit.1.capacity(), &self.known.limit.1).0 / u128::from(ONE.0);
        Level(whole * u128::from(share.0))
    }

    fn lends(&mut self, to: NodeId, share: Share, level: Level, now: Instant) -> Message {
        let mut message = self.honest(to, now);
        if let Some(Link { clock: echo, .. }) = self.links.get(&to) {
            // Never closed, never ended: every word prolongs it.
            let grant = Grant { sequence: 1, version: self.ticks, share, level: level.0, echo: *echo };
            message.grants.push((self.known.limit.0, grant));
        }
        message
    }

    /// Its whole base share, again and again: as soon as one loan has ended there is the next.
    fn lends_twice(&mut self, to: NodeId, now: Instant) -> Message {
        let base = self.known.base;
        let begun = *self.lends_since.get_or_insert(now);
        let time = now.since(begun).as_nanos();
        let mut message = self.lends(to, base, Level::ZERO, now);
        let sequence = 1 + self.ticks / LOAN_TICKS;
        for (_, grant) in &mut message.grants {
            grant.sequence = sequence;
            grant.level = if sequence == 1 { self.depth(base).0 } else { 0 };
        }
        let worth = |share: Share| u128::from(share.0) * time;
        let own = if self.lie == Lie::Overdraw { ONE } else { base };
        let named = if self.lie == Lie::HideLoans { 1 } else { usize::MAX };
        let line = |borrower: &NodeId| Line { borrower: *borrower, number: 1, lent: worth(base) };
        let lent = self.links.keys().take(named).map(line).collect();
        if self.lie != Lie::LendTwice {
            let book = Book { clock: now, own: worth(own), closed: 0, lent };
            let entry = self.entry(Key::Loans(self.known.limit.0), &Value::Loans(book));
            if let Some(news) = &mut message.news {
                news.upto = entry.version;
                news.entries.push(entry);
            }
            message.version = self.version;
        }
        message
    }

    /// Whatever a forger could try with what it has heard.
    fn forges(&mut self, to: NodeId, now: Instant) -> Vec<Message> {
        let mut message = self.honest(to, now);
        // One kind each time, as the first that is found out ends the message.
        let kind = self.stream.below(7);
        let mut forged = Vec::new();
        for _ in 0..MANY.min(self.records.len()) {
            let (mut author, mut record) = self.any_record();
            let (_, other) = self.any_record();
            match kind {
                0 => record.signature = Signature { r: [7; 32], s: [9; 32] },
                1 => record.signature.r[(self.stream.below(8)) as usize] ^= 1 << self.stream.below(8),
                2 => (record.version, record.value) = (record.version + 1, more(&record.value)),
                3 => record.incarnation = Incarnation(record.incarnation.0 + 1),
                4 => (record.key, record.version) = (other.key, other.version + 1),
                5 => author = to,
                // Signed by itself, in another's name.
                _ => {
                    let (key, value, me) = (record.key, more(&record.value), self.known.id);
                    let life = record.incarnation.0;
                    record = self.sign(me, life, record.version + 1, key, &value);
                }
            }
            if author != self.known.id {
                forged.push((author, record));
            }
        }
        message.deltas = Self::pass_on(forged);
        vec![message]
    }

    /// Records and messages, its own and others', of all ages.
    fn says_again(&mut self, to: NodeId, now: Instant) -> Vec<Message> {
        let mut message = self.honest(to, now);
        let again: Vec<_> = (0..MANY.min(self.records.len())).map(|_| self.any_record()).collect();
        message.deltas = Self::pass_on(again);
        if self.messages.is_empty() {
            return vec![message];
        }
        let place = self.stream.below(self.messages.len() as u64) as usize;
        let others = self.messages[place].clone();
        let former =
            Message { incarnation: Incarnation(self.known.life.saturating_sub(1)), ..others.clone() };
        // What another said of itself, as if it were one's own; in this life and in one before.
        let as_own = Message { incarnation: message.incarnation, ..others };
        vec![as_own, former, message]
    }

    /// Another row, and another gift of all it has, to each; with the same versions.
    fn equivocates(&mut self, to: NodeId, place: usize, now: Instant) -> Vec<Message> {
        let told = self.version;
        let base = self.known.base;
        let row = Row { base, held: base, used: 1_000 * place as u64, tag: place as u64, ..Row::default() };
        let gift = Gift { share: base, levels: None, weight: 0 };
        let values =
            vec![(Key::Row(self.known.limit.0), Value::Row(row)), (Key::Given(to), Value::Gift(gift))];
        let message = self.message(to, values, now);
        if place + 1 < self.links.len() {
            self.version = told;
        }
        vec![message]
    }

    fn comes_from_the_future(&mut self, to: NodeId, only: bool, now: Instant) -> Vec<Message> {
        let far = u64::MAX - 1_000 + self.ticks.min(1_000);
        let mut message = match self.stream.below(4) {
            0 => {
                self.known.life = far;
                self.honest(to, now)
            }
            1 => {
                self.version = self.version.max(far - 100);
                self.honest(to, now)
            }
            2 => Message { clock: Instant::from_nanos(far), ..self.honest(to, now) },
            _ => Message { version: u64::MAX, ..self.honest(to, now) },
        };
        self.known.life = self.known.life.saturating_add(self.ticks % 2);
        self.version = self.version.min(u64::MAX - 100);
        message.silence_ms = u32::MAX;
        if let Some(echo) = &mut message.echo {
            (echo.clock, echo.version) = (Instant::from_nanos(u64::MAX), u64::MAX);
        }
        if !only {
            // Level for several would be lent twice.
            return vec![message];
        }
        let echo = Instant::from_nanos(u64::MAX);
        let grant =
            Grant { sequence: u64::MAX, version: u64::MAX, share: Share::ZERO, level: u128::MAX, echo };
        message.grants.push((self.known.limit.0, grant));
        vec![message]
    }

    /// Messages near their greatest size, of names that nobody has heard of.
    fn floods(&mut self, to: NodeId, now: Instant) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..FLOOD {
            let kind = self.stream.below(5);
            let values = (0..FLOOD_VALUES).map(|_| self.any_value(kind)).collect();
            let mut message = self.message(to, values, now);
            if kind == 0 {
                let limits = (0..FLOOD_VALUES).map(|_| Fingerprint(self.stream.draw()));
                let grant =
                    |limit| (limit, Grant { sequence: 1, version: 1, share: ONE, level: 1, echo: now });
                message.grants = limits.map(grant).collect();
                message.digest =
                    Digest::Full(u64::MAX, (0..FLOOD_VALUES).map(|_| self.any_summary()).collect());
            }
            messages.push(message);
        }
        messages
    }

    /// A second founding of this ledger, and another ledger: a higher one, which nobody should care for, or a lower.
    fn founds(&mut self, to: NodeId, now: Instant) -> Vec<Message> {
        let founding = self.message(to, vec![(Key::Founded, Value::Share(ONE))], now);
        let name = if self.lie == Lie::Usurp { 0 } else { u8::MAX };
        let other = Message { ledger: Some(LedgerId(NodeId([name; 32]))), ..self.honest(to, now) };
        if self.lie == Lie::Usurp { vec![other] } else { vec![founding, other] }
    }

    fn overgives(&mut self, to: NodeId, now: Instant) -> Vec<Message> {
        let Some(link) = self.links.get(&to).copied() else { return Vec::new() };
        // A part more each time: every gift brings level again.
        let share = Share(ONE.0.saturating_add(self.ticks));
        let (from, life) = (Incarnation(self.known.life), link.incarnation);
        let atoms = self.depth(ONE).0.wrapping_mul(u128::from(self.ticks));
        let levels = GiftLevels { from, to: life, atoms: vec![(self.known.limit.0, atoms)] };
        let gift = Gift { share, levels: Some(levels), weight: 0 };
        vec![self.message(to, vec![(Key::Given(to), Value::Gift(gift))], now)]
    }

    fn any_record(&mut self) -> (NodeId, Record) {
        let place = self.stream.below(self.records.len() as u64) as usize;
        self.records[place].clone()
    }

    fn any_id(&mut self) -> NodeId {
        NodeId(self.stream.seed())
    }

    fn any_summary(&mut self) -> Summary {
        let author = self.any_id();
        Summary { author, incarnation: Incarnation(self.stream.draw()), version: self.stream.draw(), sum: 1 }
    }

    fn any_value(&mut self, kind: u64) -> (Key, Value) {
        let limit = Fingerprint(self.stream.draw());
        match kind {
            0 | 1 => (Key::Row(limit), Value::Row(endless(Row::default()))),
            2 => {
                let mark = PauseMark { stamp: 1, paused: true, until: None, reason: PauseReason::Operator };
                (Key::Pause(limit, PauseReason::Operator), Value::Pause(mark))
            }
            3 => (Key::Given(self.any_id()), Value::Gift(Gift { share: Share(1), levels: None, weight: 0 })),
            _ => (Key::Reclaimed(self.any_id()), Value::Share(Share(1))),
        }
    }
}

/// Claims all there is and more.
fn endless(row: Row) -> Row {
    let all = Share(u64::MAX);
    Row {
        demand: all,
        classes: [all, Share::ZERO, Share::ZERO],
        weights: [u32::MAX; 4],
        waiting: u64::MAX,
        class: 0,
        need: u64::MAX,
        weight: u32::MAX,
        tag: 0,
        turn_end: u64::MAX,
        ..row
    }
}

/// Another value of the same kind, worth more to somebody.
fn more(value: &Value) -> Value {
    match value {
        Value::Share(_) => Value::Share(ONE),
        Value::Gift(gift) => Value::Gift(Gift { share: ONE, ..gift.clone() }),
        Value::Row(row) => Value::Row(Row { used: u64::MAX, ..*row }),
        other => other.clone(),
    }
}
