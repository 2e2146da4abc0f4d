//! The Unix socket's file: made private, taken over only from the dead.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::umask;
use thiserror::Error;
use tokio::net::UnixListener;

/// A bound socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    _lock: File,
}

/// Why the socket could not be bound. Nothing that somebody uses was touched.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another daemon serves it.
    #[error("another daemon serves {}; stop it, or give this one another --socket", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{} is there and is no socket; remove it, or choose another --socket", .0.display())]
    NoSocket(PathBuf),
    /// The path is longer than the system allows.
    #[error("{} is too long for a socket ({} bytes, at most 107); choose a shorter --socket", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// The system said no.
    #[error("cannot {doing} {}: {source}; choose another --socket", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Socket {
    /// Binds `path`, readable and writable by its owner alone, and makes its directory (0700) if it is not there. A
    /// socket that a dead daemon left is replaced: the lock beside it tells the dead from the living.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |doing, path: &Path, source| SocketError::Io { doing, path: path.to_owned(), source };
        if path.as_os_str().len() > 107 {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|source| failed("make", directory, source))?;
        }
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|source| failed("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SocketError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &lock_path, source)),
        }
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(SocketError::NoSocket(path.to_owned()));
            }
            Ok(_) => fs::remove_file(path).map_err(|source| failed("replace", path, source))?,
            Err(_) => {}
        }
        // Private from the first moment: a chmod after the bind would leave a gap (CVE-2023-45145 of Redis).
        let before = umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(|source| failed("listen on", path, source))?;
        let inode = fs::symlink_metadata(path).map_or(0, |there| there.ino());
        Ok(Self { listener, path: path.to_owned(), inode, _lock: lock })
    }

    /// To accept from.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Only what this daemon made: somebody may have put another file there.
        if fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
