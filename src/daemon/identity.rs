//! What a node keeps of itself on disk: its key, the swarm's key, and which life it is in.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::identity::{Keypair, ed25519};
use thiserror::Error;

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

    /// The node's key pair, made at the first start.
    ///
    /// # Errors
    /// The file is readable by others or damaged: another identity is never made in its place.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        let path = self.path.join("identity.key");
        let advice = "restore it from a backup, or remove it to become a new node, whose share must be vouched \
                      for anew";
        let seed = read_or_make_secret(&path, advice)?;
        let secret = ed25519::SecretKey::try_from_bytes(seed);
        let secret = secret.map_err(|error| damaged(&path, format!("{error}; {advice}")))?;
        let pair = ed25519::Keypair::from(secret);
        Ok(Identity { id: NodeId(pair.public().to_bytes()), keypair: pair.into() })
    }

    /// The swarm's key. Where there is none, one is made if `make` says so: the node founds a swarm.
    ///
    /// # Errors
    /// There is none and none is made, or the file is readable by others or damaged.
    pub fn swarm_key(&self, make: bool) -> Result<SwarmKey, IdentityError> {
        SwarmKey::read_or_make(&self.path.join("swarm.key"), make)
    }

    /// Keeps the key of a swarm that the node joins.
    ///
    /// # Errors
    /// The directory has another swarm's key, which is never replaced.
    pub fn keep_swarm_key(&self, key: &SwarmKey) -> Result<(), IdentityError> {
        let path = self.path.join("swarm.key");
        match read_secret(&path, SWARM_KEY_ADVICE)? {
            Some(known) if known == key.0 => Ok(()),
            Some(_) => Err(IdentityError::OtherSwarm(path)),
            None => write_secret(&path, &key.0),
        }
    }

    /// Whether a node has run with this directory before.
    pub fn has_lived(&self) -> bool {
        self.path.join(INCARNATION).exists()
    }

    /// A number greater than that of every life before, on disk before it is returned.
    ///
    /// It is the wall clock's microseconds where they are greater, so that a directory restored from an old
    /// backup still does not repeat a life.
    ///
    /// # Errors
    /// The file is damaged, or cannot be written.
    pub fn next_incarnation(&self) -> Result<Incarnation, IdentityError> {
        let path = self.path.join(INCARNATION);
        let last = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                damaged(
                    &path,
                    "it must hold one whole number; remove it, and the clock says which life it is",
                )
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0_u64,
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(damaged(&path, "it must hold one whole number; remove it"));
            }
            Err(source) => return Err(failed("read", &path, source)),
        };
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        let after = last.checked_add(1).ok_or_else(|| damaged(&path, "no number is greater; remove it"))?;
        let next = after.max(clock);
        let written = write_atomically(&path, format!("{next}\n").as_bytes(), PRIVATE);
        written.map_err(|source| failed("write", &path, source))?;
        Ok(Incarnation(next))
    }
}

impl SwarmKey {
    /// Reads a key file, 32 bytes in hexadecimal; where there is none, makes it if `make` says so.
    ///
    /// # Errors
    /// It is not there and none is made, readable by others, or damaged.
    pub fn read_or_make(path: &Path, make: bool) -> Result<Self, IdentityError> {
        match read_secret(path, SWARM_KEY_ADVICE)? {
            Some(key) => Ok(Self(key)),
            None if make => read_or_make_secret(path, SWARM_KEY_ADVICE).map(Self),
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

const SWARM_KEY_ADVICE: &str = "copy the key from another node of the swarm";

fn read_or_make_secret(path: &Path, advice: &str) -> Result<[u8; 32], IdentityError> {
    if let Some(secret) = read_secret(path, advice)? {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| failed("find random bytes for", path, error.into()))?;
    write_secret(path, &secret)?;
    Ok(secret)
}

fn write_secret(path: &Path, secret: &[u8; 32]) -> Result<(), IdentityError> {
    let mut line: String = secret.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_digit).collect();
    line.push('\n');
    write_atomically(path, line.as_bytes(), PRIVATE).map_err(|source| failed("write", path, source))
}

fn read_secret(path: &Path, advice: &str) -> Result<Option<[u8; 32]>, IdentityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("open", path, source)),
    };
    let mode = file.metadata().map_err(|source| failed("read", path, source))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Readable { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.take(SECRET_FILE_MAX).read_to_end(&mut text).map_err(|source| failed("read", path, source))?;
    let secret = from_hex(text.trim_ascii());
    secret.map(Some).ok_or_else(|| damaged(path, format!("it must hold 64 hexadecimal digits; {advice}")))
}

const SECRET_FILE_MAX: u64 = 1 << 10;

fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |letter: u8| char::from(letter).to_digit(16);
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
}

fn hex_digit(value: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(value)])
}

fn damaged(path: &Path, what: impl Into<String>) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), what: what.into() }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
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
        let first = dir.identity().unwrap();
        assert_eq!(dir.identity().unwrap().id, first.id);
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.path().join("identity.key")), 0o600);
        let text = fs::read_to_string(dir.path().join("identity.key")).unwrap();
        assert_eq!(text.len(), 65, "32 bytes in hexadecimal and a line feed");
        assert_ne!(open().1.identity().unwrap().id, first.id);
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
        dir.identity().unwrap();
        let path = dir.path().join("identity.key");
        for open_to_others in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open_to_others)).unwrap();
            let error = dir.identity().unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
    }

    #[test]
    fn a_damaged_identity_is_never_replaced() {
        let (_temporary, dir) = open();
        dir.identity().unwrap();
        let path = dir.path().join("identity.key");
        let good = fs::read_to_string(&path).unwrap();
        for bad in ["", "00", &good[1..], &good.replace(&good[..1], "x"), &format!("{}0", good.trim())] {
            fs::write(&path, bad).unwrap();
            let error = dir.identity().unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("restore it from a backup"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        fs::write(&path, [0xff; 65]).unwrap();
        assert!(matches!(dir.identity(), Err(IdentityError::Damaged { .. })));
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
        let first = dir.next_incarnation().unwrap();
        let second = dir.next_incarnation().unwrap();
        assert!(second > first);
        let path = dir.path().join("incarnation");
        let far = u64::MAX - 1;
        fs::write(&path, format!("{far}\n")).unwrap();
        assert_eq!(dir.next_incarnation().unwrap(), Incarnation(u64::MAX), "a clock that was set back");
        assert!(matches!(dir.next_incarnation(), Err(IdentityError::Damaged { .. })));
        fs::write(&path, "twelve").unwrap();
        assert!(dir.next_incarnation().unwrap_err().to_string().contains("remove it"));
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
