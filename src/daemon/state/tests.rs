use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::disk::RealDisk;
use super::store::Store;
use super::*;
use crate::protocol::agents::Agents;
use crate::protocol::node::{Node, NodeConfig, Output, Policy, Start, Vouching};
use crate::protocol::time::Instant;
use crate::wire::encode_saved;
use crate::wire::signing::Ideal;

const OWNER: NodeId = NodeId([7; 32]);

/// What a founder of this id saves first.
fn saved(id: u8) -> Saved {
    let config = NodeConfig {
        id: NodeId([id; 32]),
        incarnation: Incarnation(1),
        name: String::new(),
        pools: Vec::new(),
        policy: Policy::Strict,
        forget_after: Duration::from_secs(60),
        weight: 1,
        agents: Agents::default(),
        keys: Arc::new(Ideal),
        vouching: Vouching::default(),
    };
    let mut node = Node::new(config, Start::Found, [0; 32], Instant::ZERO);
    let save = |output| if let Output::Save(saved) = output { Some(*saved) } else { None };
    std::iter::from_fn(|| node.poll_output()).find_map(save).expect("a founder saves")
}

fn body(id: u8) -> Vec<u8> {
    encode_saved(&saved(id)).unwrap()
}

fn stamp(incarnation: u64, serial: u64) -> Stamp {
    Stamp { incarnation: Incarnation(incarnation), serial }
}

fn kept(id: u8) -> Kept {
    Kept::Ledger(Box::new(saved(id)))
}

/// A disk in memory, of which one call fails.
#[derive(Clone, Debug, Default)]
struct Faulty {
    files: RefCell<BTreeMap<PathBuf, Pages>>,
    calls: Cell<usize>,
    fails: Cell<Option<(usize, Fault)>>,
}

/// What was written, and what of it is safe. A file whose name is not safe is not there after a crash.
#[derive(Clone, Debug, Default)]
struct Pages {
    cached: Vec<u8>,
    safe: Vec<u8>,
    named: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The call does nothing and says so.
    Error,
    /// A write takes only a few bytes; no other call can.
    Short,
    /// A write takes a few bytes, and the next call fails.
    Torn,
}

/// What a crash leaves of what was written and is not safe.
const CRASHES: [fn(&Pages) -> Vec<u8>; 5] = [
    |pages| pages.safe.clone(),
    |pages| pages.cached.clone(),
    |pages| [&pages.cached[..pages.cached.len().min(100)], pages.safe.get(100..).unwrap_or(&[])].concat(),
    |pages| [&pages.safe[..pages.safe.len().min(100)], pages.cached.get(100..).unwrap_or(&[])].concat(),
    |pages| vec![0; pages.cached.len()],
];

impl Faulty {
    fn call(&self) -> io::Result<Option<Fault>> {
        let call = self.calls.replace(self.calls.get() + 1);
        match self.fails.get() {
            Some((place, Fault::Error)) if place == call => Err(io::ErrorKind::Other.into()),
            Some((place, Fault::Torn)) if place + 1 == call => Err(io::ErrorKind::StorageFull.into()),
            Some((place, fault)) if place == call => Ok(Some(fault)),
            _ => Ok(None),
        }
    }

    /// The disk after a crash that treated what was not safe like this, with or without names that were not.
    fn crashed(&self, crash: fn(&Pages) -> Vec<u8>, with_names: bool) -> Self {
        let files = self.files.borrow();
        let named = files.iter().filter(|(_, pages)| pages.named || with_names);
        let after = named.map(|(path, pages)| {
            let bytes = if pages.cached == pages.safe { pages.safe.clone() } else { crash(pages) };
            (path.clone(), Pages { cached: bytes.clone(), safe: bytes, named: true })
        });
        Self { files: RefCell::new(after.collect()), ..Self::default() }
    }
}

impl Disk for Faulty {
    type File = PathBuf;

    fn read(&self, path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
        self.call()?;
        let files = self.files.borrow();
        Ok(files.get(path).map(|pages| pages.cached[..pages.cached.len().min(most)].to_vec()))
    }

    fn open(&self, path: &Path) -> io::Result<PathBuf> {
        self.call()?;
        self.files.borrow_mut().entry(path.to_owned()).or_default();
        Ok(path.to_owned())
    }

    fn reserve(&self, file: &mut PathBuf, length: u64) -> io::Result<()> {
        self.call()?;
        let mut files = self.files.borrow_mut();
        let cached = &mut files.get_mut(file).unwrap().cached;
        cached.resize(cached.len().max(length as usize), 0);
        Ok(())
    }

    fn write(&self, file: &mut PathBuf, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let taken = if self.call()?.is_some() { bytes.len().min(90) } else { bytes.len() };
        let mut files = self.files.borrow_mut();
        let cached = &mut files.get_mut(file).unwrap().cached;
        let (from, to) = (offset as usize, offset as usize + taken);
        cached.resize(cached.len().max(to), 0);
        cached[from..to].copy_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn sync(&self, file: &mut PathBuf) -> io::Result<()> {
        self.call()?;
        let mut files = self.files.borrow_mut();
        let pages = files.get_mut(file).unwrap();
        pages.safe.clone_from(&pages.cached);
        Ok(())
    }

    fn sync_names(&self, _: &Path) -> io::Result<()> {
        self.call()?;
        self.files.borrow_mut().values_mut().for_each(|pages| pages.named = true);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        let mut files = self.files.borrow_mut();
        let pages = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), pages);
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.borrow().contains_key(path)
    }
}

fn file<D: Disk>(disk: D) -> StateFile<D> {
    StateFile::new(Path::new("/data"), OWNER, disk)
}

/// Whatever call fails, in whatever way, and whatever a crash then leaves: what is found is what was saved last or what
/// was about to be; once saving has succeeded, only that.
#[test]
fn every_call_may_fail_and_the_machine_crash_after_it() {
    let mut outcomes = [0; 3];
    for first in [None, Some(1)] {
        let before = file(Faulty::default());
        if let Some(id) = first {
            before.save(stamp(1, 1), &body(id)).unwrap();
        }
        let old = first.map_or(Kept::Nothing, kept);
        let calls = before.disk.calls.get();
        // One more than there are: the last of them does not fail.
        for place in calls..calls + 15 {
            for fault in [Fault::Error, Fault::Short, Fault::Torn] {
                let disk = before.disk.clone();
                disk.fails.set(Some((place, fault)));
                let state = file(disk);
                let done = state.save(stamp(1, 2), &body(2));
                outcomes[usize::from(done.is_ok())] += 1;
                for (crash, with_names) in
                    CRASHES.into_iter().flat_map(|crash| [(crash, false), (crash, true)])
                {
                    let after = file(state.disk.crashed(crash, with_names));
                    // That a node ran here is known from elsewhere once anything was saved.
                    let found = after.load(first.map(|_| Incarnation(1))).unwrap();
                    let is_new = found.kept == kept(2);
                    // Of a node that had not saved anything yet a torn first copy may be left.
                    let torn_start = first.is_none() && found.kept == Kept::Lost;
                    let is_old = done.is_err() && (found.kept == old || torn_start);
                    assert!(is_new || is_old, "call {place} {fault:?} {done:?}: {found:?}");
                    outcomes[2] += usize::from(torn_start);
                    after.save(stamp(2, 3), &body(3)).unwrap();
                    assert_eq!(after.load(Some(Incarnation(2))).unwrap().kept, kept(3));
                }
                // Without a crash it is tried again, and succeeds.
                state.disk.fails.set(None);
                state.save(stamp(1, 2), &body(2)).unwrap();
                assert_eq!(state.load(Some(Incarnation(1))).unwrap().kept, kept(2));
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// Reading and putting aside may fail as well.
#[test]
fn every_call_of_the_start_may_fail() {
    let good = file(Faulty::default());
    good.save(stamp(1, 1), &body(1)).unwrap();
    let calls = good.disk.calls.get();
    good.disk.files.borrow_mut().get_mut(&good.path(0)).unwrap().cached[80] ^= 1;
    for place in calls..calls + 5 {
        let disk = good.disk.clone();
        disk.fails.set(Some((place, Fault::Error)));
        match file(disk).load(Some(Incarnation(1))) {
            Ok(loaded) => assert_eq!(loaded.kept, kept(1), "call {place}"),
            // The good copy could not be read: to go on without it would be to lose what it says.
            Err(error) => assert!(place == calls + 1 && error.to_string().contains("cannot read"), "{error}"),
        }
    }
}

/// A directory with a record of life 3 in both copies.
fn on_disk() -> (tempfile::TempDir, StateFile<RealDisk>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateFile::new(dir.path(), OWNER, RealDisk);
    state.save(stamp(3, 1), &body(1)).unwrap();
    let bytes = fs::read(state.path(0)).unwrap();
    (dir, state, bytes)
}

fn names(dir: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_copy_with_any_byte_changed_or_cut_anywhere_is_put_aside_and_the_other_one_used() {
    let (dir, state, good) = on_disk();
    let record = HEAD + body(1).len();
    assert!(record < good.len() && good.len() == SLACK);
    let flips = (0..good.len()).filter(|place| *place < record || place % 1_000 == 0).map(|place| {
        let mut bad = good.clone();
        bad[place] ^= 1 << (place % 8);
        (place < record, bad)
    });
    let cuts = (0..=record).map(|length| (length < record, good[..length].to_vec()));
    for (number, (is_bad, bytes)) in flips.chain(cuts).enumerate() {
        let place = number % 2;
        fs::write(state.path(place), &bytes).unwrap();
        let loaded = state.load(Some(Incarnation(3))).unwrap();
        assert_eq!((loaded.kept, loaded.stamp), (kept(1), stamp(3, 1)), "{number}");
        assert_eq!(
            (loaded.warnings.len(), state.path(place).exists()),
            (usize::from(is_bad), !is_bad),
            "{number}"
        );
        // What both copies share is lost, and is known to be.
        if is_bad && number % 40 == 0 {
            fs::write(state.path(0), &bytes).unwrap();
            fs::write(state.path(1), &bytes).unwrap();
            let loaded = state.load(Some(Incarnation(3))).unwrap();
            assert_eq!((loaded.kept, loaded.warnings.len()), (Kept::Lost, 2), "{number}");
        }
        fs::write(state.path(0), &good).unwrap();
        fs::write(state.path(1), &good).unwrap();
    }
    assert_eq!(names(&dir).len(), 2 + 2 * QUARANTINED_MAX, "what is put aside is bounded: {:?}", names(&dir));
}

#[test]
fn files_of_another_node_and_of_former_times_are_never_taken() {
    let (_dir, state, old) = on_disk();
    let other = StateFile::new(&state.directory, NodeId([8; 32]), RealDisk);
    let loaded = other.load(None).unwrap();
    assert!(loaded.kept == Kept::Lost && loaded.warnings[0].contains("another node"), "{loaded:?}");

    state.save(stamp(4, 2), &body(2)).unwrap();
    let new = fs::read(state.path(0)).unwrap();
    for place in 0..2 {
        fs::write(state.path(place), &old).unwrap();
        assert_eq!(state.load(Some(Incarnation(4))).unwrap().kept, kept(2), "one older copy harms nothing");
        fs::write(state.path(place), &new).unwrap();
        fs::remove_file(state.path(place)).unwrap();
        assert_eq!(state.load(Some(Incarnation(4))).unwrap().kept, kept(2), "nor does one that is gone");
        fs::write(state.path(place), &new).unwrap();
    }
    for place in 0..2 {
        fs::write(state.path(place), &old).unwrap();
    }
    let loaded = state.load(Some(Incarnation(4))).unwrap();
    assert!(loaded.kept == Kept::Lost && loaded.warnings[0].contains("older"), "{loaded:?}");
    // A life that ended before anything else knew of it.
    fs::write(state.path(0), &new).unwrap();
    assert_eq!(state.load(Some(Incarnation(3))).unwrap().kept, kept(2));
}

#[test]
fn no_ledger_is_not_a_lost_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateFile::new(dir.path(), OWNER, RealDisk);
    assert_eq!(state.load(None).unwrap().kept, Kept::Nothing);
    assert_eq!(state.load(Some(Incarnation(1))).unwrap().kept, Kept::Lost, "somebody removed both");
    state.save(stamp(1, 1), &[]).unwrap();
    assert_eq!(state.load(Some(Incarnation(1))).unwrap().kept, Kept::NoLedger);
    fs::remove_file(state.path(0)).unwrap();
    fs::create_dir(state.path(0)).unwrap();
    assert_eq!(state.load(None).unwrap().kept, Kept::NoLedger, "one copy cannot be read");
    fs::remove_file(state.path(1)).unwrap();
    let error = state.load(None).unwrap_err().to_string();
    assert!(error.contains("ledger.state") && error.contains("cannot read"), "{error}");
}

#[test]
fn the_store_writes_the_latest_says_what_fails_and_tries_again() {
    let (dir, state, _) = on_disk();
    let (broken, path) = (state.path(1), dir.path().to_owned());
    fs::remove_file(&broken).unwrap();
    fs::create_dir(&broken).unwrap();
    let store = Store::start(state, stamp(5, 1)).unwrap();
    assert_eq!((store.saved(), store.error()), (1, None));
    assert_eq!(store.save(Some(Box::new(saved(2)))), 2);
    assert!(store.flush().is_err());
    assert_eq!(store.save(Some(Box::new(saved(3)))), 3);
    assert!(store.error().is_some() && store.saved() == 1);
    fs::remove_dir(&broken).unwrap();
    while store.saved() < 3 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((store.flush(), store.error()), (Ok(()), None));
    // What is left at the end is written before the end.
    store.save(Some(Box::new(saved(4))));
    drop(store);
    let loaded = StateFile::new(&path, OWNER, RealDisk).load(None).unwrap();
    assert_eq!((loaded.kept, loaded.stamp, loaded.warnings.len()), (kept(4), stamp(5, 4), 0));
}
