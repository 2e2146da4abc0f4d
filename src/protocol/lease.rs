//! Leases: timed loans of share, safe under any loss, delay, duplication and reordering, with no common clock.
//!
//! A lease of one limit between one lender and one borrower is a pair of single-writer, cumulative records. The
//! lender alone writes how much it has *granted*, the borrower alone how much it has *returned*; what is out is the
//! difference. Each side reads the other's newest record, so hearing one twice, late or never costs nothing but
//! time. That is the bounded counter of Balegas et al. (2015), with an end.
//!
//! **Why the borrower always stops first** (after Gray and Cheriton 1989). A grant names a moment of the borrower's
//! own clock, the *echo*, that the lender had heard before it sent the grant. The borrower stops at `echo + ttl` on its
//! clock, the lender takes back at `hearing + ttl + drift allowance` on its own, counted from when it heard the echo. The
//! echo happened before it was heard, and the allowance exceeds what two clocks can drift apart in one `ttl`; no two
//! clocks are ever compared. Sending a grant again without a newer echo prolongs nothing on either side.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bucket::Level;
use super::share::Share;
use super::time::Instant;

/// How long a loan lives without word from its lender: about eight round trips of 250 ms, so that an ordinary
/// intercontinental link keeps its loans, while a dead borrower's share is back after two seconds.
pub const TTL: Duration = Duration::from_secs(2);

/// How much longer than [`TTL`] a lender waits: 1,000 ppm, more than twice the 200 ppm by which each of the two
/// clocks may be wrong.
pub const DRIFT_ALLOWANCE: Duration = Duration::from_millis(2);

const _: () = assert!(DRIFT_ALLOWANCE.as_nanos() * 1_000_000 > TTL.as_nanos() * 2 * 200);

/// After this long a node that restarted knows that no lease of its former life can still run.
pub const SETTLE: Duration = Duration::from_nanos((TTL.as_nanos() + DRIFT_ALLOWANCE.as_nanos()) as u64);

/// What a lender says of one lease; only ever written by the lender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Which lease between the two: a new one begins when the last one ran out.
    pub sequence: u64,
    /// Grows with every change of this record.
    pub version: u64,
    /// Share lent under this sequence so far, returned or not.
    pub share: Share,
    /// Level lent with it so far, in atoms. Wraps: only differences are used.
    pub level: u128,
    /// A moment of the borrower's clock; the lease ends at `echo + TTL` on it.
    pub echo: Instant,
}

/// What a borrower says of one lease; only ever written by the borrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// The lease that it is about.
    pub sequence: u64,
    /// The version of the grant that the borrower acts on.
    pub heard: u64,
    /// Grows with every return.
    pub version: u64,
    /// Share given back under this sequence so far.
    pub share: Share,
    /// Level given back with it so far, in atoms. Wraps: only differences are used.
    pub level: u128,
}

/// A share and the level that goes with it, on its way from one bucket to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Parts.
    pub share: Share,
    /// Atoms.
    pub level: Level,
}

/// The lender's side of a lease.
#[derive(Clone, Debug)]
pub struct Lent {
    grant: Grant,
    returned: Share,
    returned_level: u128,
    returned_version: u64,
    closed: bool,
    heard: u64,
    until: Instant,
    sent: Instant,
    unheard: Share,
    overfull: Level,
}

impl Lent {
    /// A lease of nothing yet. `sequence` must exceed every earlier one between the two.
    pub fn new(sequence: u64) -> Self {
        Self {
            grant: Grant { sequence, version: 0, share: Share::ZERO, level: 0, echo: Instant::ZERO },
            returned: Share::ZERO,
            returned_level: 0,
            returned_version: 0,
            closed: false,
            heard: 0,
            until: Instant::ZERO,
            sent: Instant::ZERO,
            unheard: Share::ZERO,
            overfull: Level::ZERO,
        }
    }

    /// Share that the borrower may be running on.
    pub fn out(&self) -> Share {
        self.grant.share.saturating_sub(self.returned)
    }

    /// Share that the borrower has not yet said it heard of.
    pub fn unheard(&self) -> Share {
        self.unheard.min(self.out())
    }

    /// Level that may still be on its way to the borrower, beyond what the share on its way could hold.
    pub fn overfull(&self) -> Level {
        self.overfull
    }

    /// When the share comes back without word; meaningful while something is [`out`](Self::out).
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Lends more, `overfull` of it beyond what the share lent now can hold. The caller has taken it from its own
    /// bucket and will [`send`](Self::send) the grant.
    pub fn raise(&mut self, moved: Moved, overfull: Level, now: Instant) {
        if self.grant.version == 0 {
            self.until = now + TTL + DRIFT_ALLOWANCE;
        }
        self.unheard += moved.share;
        self.overfull = Level(self.overfull.0.saturating_add(overfull.0));
        self.grant.share += moved.share;
        self.grant.level = self.grant.level.wrapping_add(moved.level.0);
        self.grant.version += 1;
    }

    /// When it would end if the grant were sent with this echo.
    pub fn end_with(&self, echo: (Instant, Instant)) -> Instant {
        let (echo, heard_at) = echo;
        let end = heard_at + TTL + DRIFT_ALLOWANCE;
        match () {
            () if self.is_closed() || self.grant.echo == Instant::ZERO => end,
            () if echo > self.grant.echo => self.until.max(end),
            () => self.until,
        }
    }

    /// The grant to send at `now`, prolonged if `echo` is news: the newest moment of the borrower's clock that the lender
    /// knows, and when it heard it on its own.
    pub fn send(&mut self, echo: (Instant, Instant), now: Instant) -> Grant {
        let (echo, heard_at) = echo;
        if echo > self.grant.echo {
            let end = heard_at + TTL + DRIFT_ALLOWANCE;
            self.until = if self.grant.echo == Instant::ZERO { end } else { self.until.max(end) };
            self.grant.echo = echo;
            self.grant.version += 1;
        }
        self.sent = now;
        self.grant
    }

    /// The grant as it was sent last, with what was lent since, and not prolonged.
    pub fn send_again(&mut self, now: Instant) -> Grant {
        self.sent = now;
        self.grant
    }

    /// Whether the borrower has said that it heard all there is to hear, if anything was sent yet.
    pub fn is_confirmed(&self) -> bool {
        self.heard == self.grant.version || self.grant.echo == Instant::ZERO
    }

    /// Whether to send the grant again at `now`: a quarter of its life is over and the borrower, last heard at `echo`
    /// on its own clock, is known to have lived since the last sending; or it has not said that it heard the grant.
    pub fn is_due(&self, echo: Instant, now: Instant) -> bool {
        let age = now.since(self.sent);
        let renew = self.out() > Share::ZERO && age >= TTL / 4 && echo > self.grant.echo;
        !self.is_closed()
            && (renew || (self.heard < self.grant.version && age >= TTL / 16 && now < self.until))
    }

    /// Hears the borrower: gives back what came home. Word of another sequence, or older word, changes nothing, nor does
    /// word of more than was granted. Once the lease is over its share is home; its word then tells only the level that
    /// the borrower let go of.
    pub fn hear(&mut self, word: &Return) -> Moved {
        if word.sequence != self.grant.sequence {
            return Moved::default();
        }
        self.heard = self.heard.max(word.heard.min(self.grant.version));
        if self.heard == self.grant.version {
            self.unheard = Share::ZERO;
            self.overfull = Level::ZERO;
        }
        if word.version <= self.returned_version
            || word.share > self.grant.share
            || (word.share < self.returned && !self.closed)
        {
            return Moved::default();
        }
        let moved = Moved {
            share: word.share.saturating_sub(self.returned),
            level: Level(word.level.wrapping_sub(self.returned_level)),
        };
        let moved = if self.closed { Moved { share: Share::ZERO, ..moved } } else { moved };
        self.returned = if self.closed { self.returned } else { word.share };
        self.returned_level = word.level;
        self.returned_version = word.version;
        moved
    }

    /// Takes back whatever is out once its time is over: the share comes home, its level is gone. The lease is then
    /// closed; lend again under a new sequence.
    pub fn expire(&mut self, now: Instant) -> Option<Share> {
        if now < self.until {
            return None;
        }
        let out = self.out();
        if out == Share::ZERO && self.overfull == Level::ZERO {
            return None;
        }
        // What is still on its way comes too late to be taken up, and must not come again with the next grant either.
        self.overfull = Level::ZERO;
        self.returned = self.grant.share;
        self.closed = true;
        (out > Share::ZERO).then_some(out)
    }

    /// Whether nothing is out under it, nor can be on its way any more.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.out() == Share::ZERO && self.overfull == Level::ZERO && now >= self.until
    }

    /// Whether the lease has run out and a new sequence is needed to lend again.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// The borrower's side of a lease.
#[derive(Clone, Debug)]
pub struct Borrowed {
    sequence: u64,
    heard: u64,
    granted: Share,
    granted_level: u128,
    word: Return,
    until: Instant,
}

impl Borrowed {
    /// Nothing borrowed yet.
    pub fn new() -> Self {
        Self {
            sequence: 0,
            heard: 0,
            granted: Share::ZERO,
            granted_level: 0,
            word: Return { sequence: 0, heard: 0, version: 0, share: Share::ZERO, level: 0 },
            until: Instant::ZERO,
        }
    }

    /// Nothing borrowed, and nothing taken up of this sequence or an earlier one.
    pub fn after(sequence: u64) -> Self {
        let mut borrowed = Self { sequence, heard: u64::MAX, ..Self::new() };
        borrowed.word.sequence = sequence;
        borrowed
    }

    /// The sequence that it is about.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Share that the node runs on by this lease.
    pub fn held(&self) -> Share {
        self.granted - self.word.share
    }

    /// When it must be dropped; meaningful while something is [`held`](Self::held).
    pub fn until(&self) -> Instant {
        self.until
    }

    /// What to tell the lender.
    pub fn word(&self) -> Return {
        self.word
    }

    /// Hears the lender: gives back what the bucket gains. A grant that is over already is returned untouched, and one
    /// that is older than what was heard changes nothing.
    ///
    /// Must be called only after what is [`expired`](Self::expired) at the same `now` was given back.
    pub fn hear(&mut self, grant: &Grant, now: Instant) -> Moved {
        if grant.sequence < self.sequence || (grant.sequence == self.sequence && grant.version <= self.heard)
        {
            return Moved::default();
        }
        if grant.sequence > self.sequence {
            if self.held() > Share::ZERO {
                // The lender closes a sequence only after the borrower's own end, so this lender broke the rules.
                // Its new grant is left alone until the old one is over.
                return Moved::default();
            }
            *self = Self { sequence: grant.sequence, ..Self::new() };
            self.word.sequence = grant.sequence;
        }
        if grant.share < self.granted {
            return Moved::default();
        }
        let moved = Moved {
            share: grant.share - self.granted,
            level: Level(grant.level.wrapping_sub(self.granted_level)),
        };
        self.granted = grant.share;
        self.granted_level = grant.level;
        self.heard = grant.version;
        self.word.heard = grant.version;
        // An echo from the future would prolong the lease for ever; an honest lender never has one.
        self.until = self.until.max(grant.echo.min(now) + TTL);
        if self.until > now {
            return moved;
        }
        self.give_back(moved);
        Moved::default()
    }

    /// Gives share back. The caller has dropped it from its own bucket before.
    ///
    /// # Panics
    /// If it is more than is held.
    pub fn give_back(&mut self, moved: Moved) {
        assert!(moved.share <= self.held(), "BUG! returned more share than was borrowed");
        self.word.share += moved.share;
        self.word.level = self.word.level.wrapping_add(moved.level.0);
        self.word.version += 1;
    }

    /// The share to drop because the lease is over: the caller drops it and says so with
    /// [`give_back`](Self::give_back).
    pub fn expired(&self, now: Instant) -> Option<Share> {
        (self.held() > Share::ZERO && now >= self.until).then(|| self.held())
    }
}

impl Default for Borrowed {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn parts(share: u64) -> Moved {
        Moved { share: Share(share), level: Level(u128::from(share) * 10) }
    }

    #[test]
    fn a_loan_goes_out_and_comes_home_once() {
        let (mut lent, mut borrowed) = (Lent::new(1), Borrowed::new());
        lent.raise(parts(100), Level::ZERO, at(0));
        let grant = lent.send((at(5), at(10)), at(10));
        assert_eq!(borrowed.hear(&grant, at(12)), parts(100));
        assert_eq!(borrowed.hear(&grant, at(13)), Moved::default(), "heard twice");

        borrowed.give_back(parts(40));
        let word = borrowed.word();
        assert_eq!(lent.hear(&word), parts(40));
        assert_eq!(lent.hear(&word), Moved::default(), "heard twice");
        assert_eq!((lent.out(), borrowed.held()), (Share(60), Share(60)));
    }

    #[test]
    fn the_borrower_stops_first_and_its_late_word_brings_nothing() {
        let (mut lent, mut borrowed) = (Lent::new(1), Borrowed::new());
        lent.raise(parts(100), Level::ZERO, at(0));
        let grant = lent.send((at(0), at(0)), at(0));
        borrowed.hear(&grant, at(1));
        assert_eq!(borrowed.expired(at(1_999)), None);
        assert_eq!(lent.expire(at(2_001)), None, "the lender waits longer than the borrower");
        assert_eq!(borrowed.expired(at(2_000)), Some(Share(100)));
        borrowed.give_back(parts(100));

        assert_eq!(lent.expire(at(2_002)), Some(Share(100)));
        assert_eq!(lent.expire(at(2_003)), None);
        let word = lent.hear(&borrowed.word());
        assert_eq!(
            word,
            Moved { share: Share::ZERO, ..parts(100) },
            "home already, but its level was not spent"
        );
        assert_eq!(lent.hear(&borrowed.word()), Moved::default(), "heard twice");
        assert!(lent.is_closed());
    }

    #[test]
    fn a_grant_that_arrives_too_late_is_returned_untouched() {
        let (mut lent, mut borrowed) = (Lent::new(1), Borrowed::new());
        lent.raise(parts(100), Level::ZERO, at(0));
        let grant = lent.send((at(0), at(0)), at(0));
        assert_eq!(borrowed.hear(&grant, at(2_000)), Moved::default());
        assert_eq!(lent.hear(&borrowed.word()), parts(100));
        // A renewal that was sent before the return was heard must not bring it back.
        let renewal = lent.send((at(1_999), at(2_000)), at(2_000));
        assert_eq!(borrowed.hear(&renewal, at(2_001)), Moved::default());
        assert_eq!(borrowed.held(), Share::ZERO);
    }

    #[test]
    fn level_that_was_not_heard_of_in_time_does_not_come_with_the_next_grant() {
        let (mut lent, mut borrowed) = (Lent::new(1), Borrowed::new());
        let level = Moved { share: Share::ZERO, level: Level(7) };
        lent.raise(level, level.level, at(0));
        lent.send((at(1), at(0)), at(0));
        assert_eq!(lent.overfull(), Level(7));
        assert_eq!(lent.expire(at(2_002)), None);
        assert_eq!(lent.overfull(), Level::ZERO);
        assert!(lent.is_closed(), "the next grant is of a new sequence");

        let mut next = Lent::new(2);
        next.raise(parts(10), Level::ZERO, at(3_000));
        assert_eq!(borrowed.hear(&next.send((at(3_000), at(3_000)), at(3_000)), at(3_000)), parts(10));
    }

    #[test]
    fn an_old_sequence_is_never_taken_up_again() {
        let (mut first, mut borrowed) = (Lent::new(1), Borrowed::new());
        first.raise(parts(100), Level::ZERO, at(0));
        let old = first.send((at(0), at(0)), at(0));
        let mut second = Lent::new(2);
        second.raise(parts(30), Level::ZERO, at(0));
        let new = second.send((at(0), at(0)), at(0));
        assert_eq!(borrowed.hear(&new, at(1)), parts(30));
        assert_eq!(borrowed.hear(&old, at(1)), Moved::default());
        assert_eq!(second.hear(&borrowed.word()), Moved::default());
        assert_eq!(first.hear(&borrowed.word()), Moved::default());
    }

    #[test]
    fn word_of_more_than_was_lent_is_not_believed() {
        let mut lent = Lent::new(1);
        lent.raise(parts(10), Level::ZERO, at(0));
        lent.send((at(0), at(0)), at(0));
        let word = Return { sequence: 1, heard: 1, version: 1, share: Share(11), level: 0 };
        assert_eq!(lent.hear(&word), Moved::default());
        assert_eq!(lent.out(), Share(10));
    }
}
