//! What a node keeps of itself on disk: its key, the swarm's key, and which life it is in.
//!
//! Each key is there twice, with a checksum: one of the two files may be damaged, gone or another's, and the node is
//! still the one that it was. It is never another one.

mod secret;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::identity::{Keypair, ed25519};
use thiserror::Error;

use self::secret::{check_of, make_kept, make_secret, read_kept, read_secret, write_kept};
use crate::protocol::id::{Incarnation, NodeId};
use crate::wire::signing::{Ed25519, swarm_of};

/// A node's directory, locked: no second daemon can be the same node at the same time.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock until it is dropped; the kernel gives it back even after a crash.
    _lock: File,
}

/// Who the node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its public key.
    pub id: NodeId,
    /// What it proves that with. Its `Debug` form shows the public half only.
    pub keypair: Keypair,
    /// Nobody was it before.
    pub is_new: bool,
}

impl Identity {
    /// What the node signs with in the swarm with this key, and checks what others signed.
    pub fn signing(&self, swarm: &SwarmKey) -> Ed25519 {
        let pair = self.keypair.clone().try_into_ed25519().expect("BUG! an identity is an Ed25519 key");
        let secret = pair.secret();
        let secret = secret.as_ref().try_into().expect("BUG! an Ed25519 secret has 32 bytes");
        Ed25519::new(secret, swarm_of(&swarm.0))
    }
}

/// The key that every node of a swarm knows and nobody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SwarmKey(pub [u8; 32]);

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Another daemon runs with it.
    #[error("another daemon uses {}; stop it, or give this one another --data-dir", .0.display())]
    Locked(PathBuf),
    /// A file that holds a secret can be read by others.
    #[error("{} holds a secret and other users can read it (mode {mode:03o}); run `chmod 600 {0}`", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// There is no swarm key yet.
    #[error("there is no swarm key at {}; join with `aquifer up --join TOKEN`, or name one in key_file", .0.display())]
    NoSwarmKey(PathBuf),
    /// A swarm key is there already, and it is another one.
    #[error("{} holds the key of another swarm; use another --data-dir to join this one", .0.display())]
    OtherSwarm(PathBuf),
    /// The system said no.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

const PRIVATE: u32 = 0o600;
const DIR_PRIVATE: u32 = 0o700;
/// The file that says which life a node is in.
const INCARNATION: &str = "incarnation";
const SWARM_KEY: &str = "swarm.key";
const SWARM_KEY_ADVICE: &str = "copy the key from another node of the swarm";

impl DataDir {
    /// Opens `path`, makes it if it is not there, and locks it.
    ///
    /// # Errors
    /// Another daemon has it, or the system says no.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, IdentityError> {
        let path = path.into();
        let make = DirBuilder::new().recursive(true).mode(DIR_PRIVATE).create(&path);
        make.map_err(|source| failed("make", &path, source))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE).open(&lock_path);
        let lock = lock.map_err(|source| failed("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(IdentityError::Locked(path)),
            Err(TryLockError::Error(source)) => Err(failed("lock", &lock_path, source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's key pair, made at the first start. `owner` tells whose the directory is, where its other files say.
    ///
    /// # Errors
    /// A file is readable by others, or both are damaged: another identity is never made in their place.
    pub fn identity(&self, owner: impl Fn() -> Option<NodeId>) -> Result<Identity, IdentityError> {
        let path = self.path.join("identity.key");
        let advice = "restore it from a backup, or start with another --data-dir as a new node, whose share must be \
                      vouched anew";
        let owns = |seed: &[u8; 32]| {
            let pair = ed25519::SecretKey::try_from_bytes(*seed).map(ed25519::Keypair::from);
            pair.is_ok_and(|pair| owner() == Some(NodeId(pair.public().to_bytes())))
        };
        let known = read_kept(&path, advice, owns)?;
        let seed = known.map_or_else(|| make_kept(&path), Ok)?;
        let secret = ed25519::SecretKey::try_from_bytes(seed);
        let secret = secret.map_err(|error| damaged(&path, format!("{error}; {advice}")))?;
        let pair = ed25519::Keypair::from(secret);
        let id = NodeId(pair.public().to_bytes());
        Ok(Identity { id, keypair: pair.into(), is_new: known.is_none() })
    }

    /// The swarm's key. Where there is none, one is made if `make` says so: the node founds a swarm.
    ///
    /// # Errors
    /// There is none and none is made, or a file is readable by others or both are damaged.
    pub fn swarm_key(&self, make: bool) -> Result<SwarmKey, IdentityError> {
        let path = self.path.join(SWARM_KEY);
        match read_kept(&path, SWARM_KEY_ADVICE, |_| false)? {
            Some(key) => Ok(SwarmKey(key)),
            None if make => make_kept(&path).map(SwarmKey),
            None => Err(IdentityError::NoSwarmKey(path)),
        }
    }

    /// Keeps the key of a swarm that the node joins.
    ///
    /// # Errors
    /// The directory has another swarm's key, which is never replaced.
    pub fn keep_swarm_key(&self, key: &SwarmKey) -> Result<(), IdentityError> {
        let path = self.path.join(SWARM_KEY);
        match read_kept(&path, SWARM_KEY_ADVICE, |known| *known == key.0)? {
            Some(known) if known == key.0 => Ok(()),
            Some(_) => Err(IdentityError::OtherSwarm(path)),
            None => write_kept(&path, &key.0),
        }
    }

    /// The latest life of a node that ran with this directory, if one did. A file that holds no number tells that one
    /// ran; which life it was then is for others to say.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last_life(&self) -> Result<Option<Incarnation>, IdentityError> {
        let path = self.path.join(INCARNATION);
        match fs::read(&path) {
            Ok(bytes) => {
                let text = str::from_utf8(&bytes).ok().and_then(|text| text.trim().split_once(' '));
                let number = text.filter(|(number, check)| check_of(number.as_bytes()) == *check);
                let number = number.and_then(|(number, _)| number.parse().ok());
                Ok(Some(Incarnation(number.unwrap_or(0))))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path, source)),
        }
    }

    /// Notes that a node runs in this life, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note_life(&self, life: Incarnation) -> Result<(), IdentityError> {
        let path = self.path.join(INCARNATION);
        let number = life.0.to_string();
        let line = format!("{number} {}\n", check_of(number.as_bytes()));
        let written = write_atomically(&path, line.as_bytes(), PRIVATE);
        written.map_err(|source| failed("write", &path, source))
    }
}

/// A life after `last`: the wall clock's microseconds where they are greater, so that a directory restored from an old
/// backup still does not repeat one.
pub fn next_life(last: Incarnation) -> Incarnation {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    // The clock says a number for which there is a greater one until the year 586,000.
    Incarnation(last.0.saturating_add(1).max(clock))
}

impl SwarmKey {
    /// Reads a key file, 32 bytes in hexadecimal; where there is none, makes it if `make` says so.
    ///
    /// # Errors
    /// It is not there and none is made, readable by others, or damaged.
    pub fn read_or_make(path: &Path, make: bool) -> Result<Self, IdentityError> {
        match read_secret(path, SWARM_KEY_ADVICE)? {
            Some(key) => Ok(Self(key)),
            None if make => make_secret(path).map(Self),
            None => Err(IdentityError::NoSwarmKey(path.to_owned())),
        }
    }
}

impl fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmKey(secret)")
    }
}

/// Replaces the file at `path` by `bytes`, all or nothing even if the power fails, with the permissions `mode`
/// from the first moment on. One writer at a time.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    // A draft that is there was left by a crash.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(directory)?.sync_all()
}

fn damaged(path: &Path, what: impl Into<String>) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), what: what.into() }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn open() -> (tempfile::TempDir, DataDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path().join("a/b")).unwrap();
        (temporary, dir)
    }

    #[test]
    fn an_identity_is_made_once_and_kept_private() {
        let (_temporary, dir) = open();
        let first = dir.identity(|| None).unwrap();
        assert_eq!(dir.identity(|| None).unwrap().id, first.id);
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.path().join("identity.key")), 0o600);
        let text = fs::read_to_string(dir.path().join("identity.key")).unwrap();
        assert_eq!(text.len(), 74, "32 bytes and 4 of a checksum in hexadecimal, a blank and a line feed");
        assert_ne!(open().1.identity(|| None).unwrap().id, first.id);
    }

    #[test]
    fn a_second_daemon_is_told_which_directory_is_taken() {
        let (_temporary, dir) = open();
        let second = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(second, IdentityError::Locked(_)));
        assert!(second.to_string().contains(&dir.path().display().to_string()));
        let path = dir.path().to_owned();
        drop(dir);
        DataDir::open(path).unwrap();
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let (_temporary, dir) = open();
        dir.identity(|| None).unwrap();
        let path = dir.path().join("identity.key");
        for open_to_others in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open_to_others)).unwrap();
            let error = dir.identity(|| None).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
    }

    #[test]
    fn one_damaged_file_does_not_change_who_a_node_is() {
        let (_temporary, dir) = open();
        let Identity { id, is_new, .. } = dir.identity(|| None).unwrap();
        assert!(is_new);
        let files = ["identity.key", "identity.key.copy"].map(|file| dir.path().join(file));
        let good = fs::read(&files[0]).unwrap();
        let flips = (0..8 * good.len()).map(|bit| {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            bad
        });
        let cuts = (0..good.len()).map(|length| good[..length].to_vec());
        for (number, bad) in flips.chain(cuts).enumerate() {
            fs::write(&files[number % 2], bad).unwrap();
            let found = dir.identity(|| None).unwrap();
            assert_eq!((found.id, found.is_new), (id, false), "{number}");
            fs::remove_file(&files[number % 2]).unwrap();
            assert_eq!(dir.identity(|| None).unwrap().id, id, "{number}");
        }

        // Another node's file in the place of one of them: whose the directory is counts.
        let (_other, elsewhere) = open();
        elsewhere.identity(|| None).unwrap();
        for file in &files {
            fs::copy(elsewhere.path().join("identity.key"), file).unwrap();
            let error = dir.identity(|| None).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert_eq!(dir.identity(|| Some(id)).unwrap().id, id);
        }
    }

    #[test]
    fn an_identity_that_is_lost_is_never_replaced() {
        let (_temporary, dir) = open();
        dir.identity(|| None).unwrap();
        let files = ["identity.key", "identity.key.copy"].map(|file| dir.path().join(file));
        let good = fs::read_to_string(&files[0]).unwrap();
        for bad in ["", "00", &good[1..], &good.replace(&good[..1], "x"), &format!("{}0", good.trim())] {
            files.iter().for_each(|file| fs::write(file, bad).unwrap());
            let error = dir.identity(|| None).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("restore it from a backup"), "{error}");
            files.iter().for_each(|file| assert_eq!(fs::read_to_string(file).unwrap(), bad));
        }
        files.iter().for_each(|file| fs::write(file, [0xff; 65]).unwrap());
        assert!(matches!(dir.identity(|| None), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn a_swarm_key_is_made_by_founders_only_and_never_replaced() {
        let (_temporary, dir) = open();
        assert!(matches!(dir.swarm_key(false), Err(IdentityError::NoSwarmKey(_))));
        let key = dir.swarm_key(true).unwrap();
        assert_eq!(dir.swarm_key(false).unwrap(), key);
        assert_eq!(SwarmKey::read_or_make(&dir.path().join("swarm.key"), false).unwrap(), key);
        dir.keep_swarm_key(&key).unwrap();
        let other = dir.keep_swarm_key(&SwarmKey([7; 32])).unwrap_err();
        assert!(matches!(other, IdentityError::OtherSwarm(_)));
        assert_eq!(format!("{key:?}"), "SwarmKey(secret)");

        let (_temporary, joiner) = open();
        joiner.keep_swarm_key(&key).unwrap();
        assert_eq!(joiner.swarm_key(false).unwrap(), key);
        assert_eq!(mode(&joiner.path().join("swarm.key")), 0o600);
    }

    #[test]
    fn every_life_has_a_greater_number() {
        let (_temporary, dir) = open();
        assert_eq!(dir.last_life().unwrap(), None);
        let first = next_life(Incarnation(0));
        assert!(next_life(first) > first);
        let far = Incarnation(u64::MAX - 1);
        assert_eq!(next_life(far), Incarnation(u64::MAX), "a clock that was set back");
        dir.note_life(far).unwrap();
        assert_eq!(dir.last_life().unwrap(), Some(far));
        // That a life was is known whatever the file holds; which one is not, if it is not whole.
        let path = dir.path().join("incarnation");
        let good = fs::read(&path).unwrap();
        for place in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(dir.last_life().unwrap(), Some(Incarnation(0)), "{place}");
        }
    }

    #[test]
    fn a_draft_that_a_crash_left_is_no_obstacle() {
        let (_temporary, dir) = open();
        let path = dir.path().join("state");
        fs::write(dir.path().join("state.new"), "half").unwrap();
        write_atomically(&path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert!(!dir.path().join("state.new").exists());
        assert_eq!(mode(&path), 0o600);
    }
}
