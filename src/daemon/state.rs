//! What of the core survives a restart, on disk.
//!
//! It is *stable storage* (Lampson and Sturgis, 1979): two copies of one record, each with a checksum, written one after
//! the other in place. A record counts as saved once both hold it.
//!
//! **Why no single fault loses anything.** At any moment at most one copy is being written. A crash can tear that one
//! only: if it was the first, the second still holds the record before, and nobody was told that the new one is saved;
//! if it was the second, the first holds the new one. Of two whole copies the later is taken. So the record that is
//! found is the last one that counted as saved, or one after it. A copy that rots, is cut short, replaced by an older
//! one or by another node's fails its check or is the earlier of the two: the other one is all that is needed. And
//! writing in place asks for no new blocks (there is [slack](SLACK)), so that a full disk does not stop it.
//!
//! **When both copies are gone**, what the node gave away is not known, and it must not act as if it had given nothing:
//! [`Kept::Lost`].

pub mod disk;
pub mod store;

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use self::disk::Disk;
use crate::protocol::id::{Incarnation, NodeId};
use crate::protocol::node::Saved;
use crate::wire::{SAVED_MAX, decode_saved};

/// The two copies, in the data directory.
const COPIES: [&str; 2] = ["ledger.state", "ledger.state.copy"];
/// How many damaged files are kept for whoever wants to look at them; then the last is replaced.
const QUARANTINED_MAX: usize = 4;
/// A record may grow up to the next multiple of so many bytes before its files do.
pub const SLACK: usize = 16 * 1024;

const MAGIC: [u8; 8] = *b"aquifer\x01";
const CHECKSUM: usize = 32;
/// Magic, checksum; owner, incarnation, serial and length, all covered by the checksum as the body is.
const HEAD: usize = MAGIC.len() + CHECKSUM + 32 + 8 + 8 + 4;
const READ_MAX: usize = (HEAD + SAVED_MAX).next_multiple_of(SLACK);

/// The files with the ledger.
#[derive(Debug)]
pub struct StateFile<D> {
    directory: PathBuf,
    owner: NodeId,
    disk: D,
}

/// One record as it stands in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The life that wrote it.
    pub incarnation: Incarnation,
    /// Grows with every record.
    pub serial: u64,
}

/// What the files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: no node ran with this directory.
    Nothing,
    /// A node ran, and never had a ledger.
    NoLedger,
    /// What the node knew.
    Ledger(Box<Saved>),
    /// A node ran, and what it knew is lost.
    Lost,
}

/// What was found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What the node knew.
    pub kept: Kept,
    /// Of the record that was found; of nothing if there was none.
    pub stamp: Stamp,
    /// What people should know of the files.
    pub warnings: Vec<String>,
}

/// Why the state cannot be read. The files are left as they are.
#[derive(Debug, Error)]
#[error("cannot read {}: {source}; its owner must be able to read and write it", path.display())]
pub struct StateError {
    path: PathBuf,
    source: io::Error,
}

/// What one copy turned out to be.
enum Copy {
    Missing,
    Unreadable(io::Error),
    Damaged(String),
    Whole(Stamp, Option<Box<Saved>>),
}

/// What stands before the body of a record.
struct Head {
    owner: NodeId,
    stamp: Stamp,
}

impl<D: Disk> StateFile<D> {
    /// The state of the node `owner` whose data directory this is.
    pub fn new(directory: &Path, owner: NodeId, disk: D) -> Self {
        Self { directory: directory.to_owned(), owner, disk }
    }

    /// What was saved last. `last_life` is the latest life that is known to have run with a ledger or without, from
    /// elsewhere than these files: a record of a life before is older than what was saved. Damaged copies are put aside.
    ///
    /// # Errors
    /// There is a file, the system does not let it be read, and no other tells what it says.
    pub fn load(&self, last_life: Option<Incarnation>) -> Result<Loaded, StateError> {
        let copies = [0, 1].map(|place| self.look(place));
        let mut warnings = Vec::new();
        let existed = copies.iter().any(|copy| !matches!(copy, Copy::Missing));
        let mut best: Option<(Stamp, Option<Box<Saved>>)> = None;
        let mut unreadable = None;
        for (place, copy) in copies.into_iter().enumerate() {
            match copy {
                Copy::Missing => {}
                Copy::Unreadable(source) => unreadable = Some((place, source)),
                Copy::Damaged(what) => warnings.push(self.put_aside(place, &what)),
                Copy::Whole(stamp, saved) => {
                    if best.as_ref().is_none_or(|(known, _)| known.serial < stamp.serial) {
                        best = Some((stamp, saved));
                    }
                }
            }
        }
        match (&best, unreadable) {
            (None, Some((place, source))) => return Err(StateError { path: self.path(place), source }),
            (Some(_), Some((place, error))) => {
                warnings
                    .push(format!("{} cannot be read ({error}); its copy was", self.path(place).display()));
            }
            _ => {}
        }
        let is_old = |stamp: &Stamp| last_life.is_some_and(|last| stamp.incarnation < last);
        if let Some((stamp, _)) = best.take_if(|(stamp, _)| is_old(stamp)) {
            let what = format!("it is older than what was saved last (life {})", stamp.incarnation.0);
            for place in 0..COPIES.len() {
                if self.disk.exists(&self.path(place)) {
                    warnings.push(self.put_aside(place, &what));
                }
            }
        }
        let nothing = Stamp { incarnation: Incarnation(0), serial: 0 };
        let (kept, stamp) = match best {
            Some((stamp, Some(saved))) => (Kept::Ledger(saved), stamp),
            Some((stamp, None)) => (Kept::NoLedger, stamp),
            None if existed || last_life.is_some() => (Kept::Lost, nothing),
            None => (Kept::Nothing, nothing),
        };
        Ok(Loaded { kept, stamp, warnings })
    }

    /// Whose the directory is, by its later copy.
    pub fn owner(directory: &Path, disk: &D) -> Option<NodeId> {
        let copies =
            COPIES.iter().filter_map(|name| disk.read(&directory.join(name), READ_MAX).ok().flatten());
        let heads = copies.filter_map(|bytes| Head::parse(&bytes).map(|(head, _)| head).ok());
        heads.max_by_key(|head| head.stamp.serial).map(|head| head.owner)
    }

    /// Writes a record durably, `body` an encoded [`Saved`] or nothing. When this returns, a crash of the machine finds
    /// it; if it failed, it or the one before.
    ///
    /// # Errors
    /// The disk is broken, or full and the record has outgrown its files.
    pub fn save(&self, stamp: Stamp, body: &[u8]) -> io::Result<()> {
        let mut record = self.record(stamp, body);
        record.resize(record.len().next_multiple_of(SLACK), 0);
        for place in 0..COPIES.len() {
            let path = self.path(place);
            let is_new = !self.disk.exists(&path);
            let mut file = self.disk.open(&path)?;
            // A full disk says so here, before anything of this copy is lost.
            self.disk.reserve(&mut file, record.len() as u64)?;
            let mut done = 0;
            while done < record.len() {
                match self.disk.write(&mut file, &record[done..], done as u64) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(bytes) => done += bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.disk.sync(&mut file)?;
            if is_new {
                self.disk.sync_names(&self.directory)?;
            }
        }
        Ok(())
    }

    fn path(&self, place: usize) -> PathBuf {
        self.directory.join(COPIES[place])
    }

    fn look(&self, place: usize) -> Copy {
        match self.disk.read(&self.path(place), READ_MAX) {
            Ok(Some(bytes)) => match self.parse(&bytes) {
                Ok((stamp, saved)) => Copy::Whole(stamp, saved),
                Err(what) => Copy::Damaged(what),
            },
            Ok(None) => Copy::Missing,
            Err(error) => Copy::Unreadable(error),
        }
    }

    fn record(&self, stamp: Stamp, body: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(HEAD + body.len());
        record.extend(MAGIC);
        record.extend([0; CHECKSUM]);
        record.extend(self.owner.0);
        record.extend(stamp.incarnation.0.to_le_bytes());
        record.extend(stamp.serial.to_le_bytes());
        record.extend((body.len() as u32).to_le_bytes());
        record.extend(body);
        let checked = MAGIC.len() + CHECKSUM;
        let checksum = Sha256::digest(&record[checked..]);
        record[MAGIC.len()..checked].copy_from_slice(&checksum);
        record
    }

    /// What a copy says, or what is wrong with it.
    fn parse(&self, bytes: &[u8]) -> Result<(Stamp, Option<Box<Saved>>), String> {
        let (head, body) = Head::parse(bytes)?;
        if head.owner != self.owner {
            return Err("it belongs to another node".to_owned());
        }
        let saved = match body {
            [] => None,
            body => Some(Box::new(decode_saved(body).map_err(|error| error.to_string())?)),
        };
        Ok((head.stamp, saved))
    }

    /// Puts a copy out of the way for people to look at, and says so. Failing that it stays, and is written over.
    fn put_aside(&self, place: usize, what: &str) -> String {
        let path = self.path(place);
        let aside = |number: usize| {
            let mut name = path.clone().into_os_string();
            name.push(format!(".corrupt-{number}"));
            PathBuf::from(name)
        };
        let free = (1..QUARANTINED_MAX).find(|number| !self.disk.exists(&aside(*number)));
        let aside = aside(free.unwrap_or(QUARANTINED_MAX));
        let (path, kept) = (path.display(), aside.display());
        match self.disk.rename(&self.path(place), &aside) {
            Ok(()) => format!("{path} is damaged: {what}; it is kept as {kept}"),
            Err(error) => format!("{path} is damaged: {what}; it cannot be kept as {kept} ({error})"),
        }
    }
}

impl Head {
    /// The head and the body of a record. What follows it is of a longer one before, or slack.
    fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), String> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Err(format!("it has {} bytes, fewer than the {HEAD} of its head", bytes.len()));
        };
        let (magic, head) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err("it does not begin as a state file of this version does".to_owned());
        }
        let (checksum, covered) = head.split_at(CHECKSUM);
        let (owner, numbers) = covered.split_first_chunk().expect("BUG! a head without an owner");
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let length = number(&numbers[16..]) as usize;
        let body = rest.get(..length);
        let body = body.ok_or_else(|| format!("it is cut short: {length} bytes were to follow its head"))?;
        if Sha256::new().chain_update(covered).chain_update(body).finalize().as_slice() != checksum {
            return Err("its checksum is wrong".to_owned());
        }
        let stamp =
            Stamp { incarnation: Incarnation(number(&numbers[..8])), serial: number(&numbers[8..16]) };
        Ok((Self { owner: NodeId(*owner), stamp }, body))
    }
}

#[cfg(test)]
mod tests;
