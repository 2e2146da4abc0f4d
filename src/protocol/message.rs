//! What one node says to another, as a value.

use serde::{Deserialize, Serialize};

use super::bounded;
use super::calendar::UnixNanos;
use super::gossip::{BUCKETS, Delta, FORMER_MAX, News, PAGES_MAX, Summary};
use super::id::{Incarnation, LedgerId};
use super::lease::{Grant, Return};
use super::limit::Fingerprint;
use super::share::Share;
use super::time::Instant;

/// The most leases of one direction between two nodes: more than one for each of a node's
/// [limits](super::node::METERS_MAX).
const LEASES_MAX: usize = 256;
/// The most summaries of a digest: two of each author, of its life and of its ledger records, and the former lives.
const SUMMARIES_MAX: usize = 2 * PAGES_MAX + FORMER_MAX;

/// One message, sent over a link that proves who sent it. It may be lost, doubled, late or out of order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender's life.
    pub incarnation: Incarnation,
    /// The sender's ledger; none while it has none.
    pub ledger: Option<LedgerId>,
    /// The sender asks the recipient to vouch for it.
    pub join: bool,
    /// The sender's clock at sending.
    pub clock: Instant,
    /// What it believes wall time to be then, if it has a calendar limit.
    pub wall: Option<UnixNanos>,
    /// The newest word from the recipient that the sender had heard.
    pub echo: Option<Echo>,
    /// The sender will say something again within so many milliseconds.
    pub silence_ms: u32,
    /// What the sender knows of pages.
    pub digest: Digest,
    /// The version of the sender's own page, so that a recipient which knows less notices.
    pub version: u64,
    /// News of the sender's own page.
    pub news: Option<News>,
    /// News of other pages, passed on.
    #[serde(deserialize_with = "bounded::list::<_, _, PAGES_MAX>")]
    pub deltas: Vec<Delta>,
    /// Leases that the sender has out to the recipient.
    #[serde(deserialize_with = "bounded::list::<_, _, LEASES_MAX>")]
    pub grants: Vec<(Fingerprint, Grant)>,
    /// Leases that the sender has from the recipient.
    #[serde(deserialize_with = "bounded::list::<_, _, LEASES_MAX>")]
    pub returns: Vec<(Fingerprint, Return)>,
}

/// What the sender last heard of the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The recipient's life. Grants and returns are meant for this life and no other.
    pub incarnation: Incarnation,
    /// The newest moment of the recipient's clock.
    pub clock: Instant,
    /// How long ago it was heard, in nanoseconds on the sender's clock.
    pub age: u64,
    /// How far the sender knows the recipient's page.
    pub version: u64,
    /// The base share with which the sender confirms that it hears the recipient, where a majority is asked for (policy
    /// `majority`); none if others hold the recipient to be lost and it does not know that yet.
    pub weight: Share,
}

/// How much of what it knows the sender tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Digest {
    /// Nothing.
    None,
    /// Enough to see whether both know the same; a recipient that does not answers with its full digest.
    Hash(u64),
    /// A hash for each bucket of pages: the recipient answers with how far it knows those in which it differs.
    Buckets(#[serde(deserialize_with = "bounded::list::<_, _, BUCKETS>")] Vec<u32>),
    /// Everything in these buckets, a bit for each: the recipient answers with what the sender lacks.
    Full(u64, #[serde(deserialize_with = "bounded::list::<_, _, SUMMARIES_MAX>")] Vec<Summary>),
}
