//! The Unix socket's file: made private, taken over only from the dead.
//!
//! Only the owner (and root) can connect, or with a group its members: 0600 in a directory of 0700, or 0660 in one of
//! 0750. Nothing is ever open for longer than that: the file is made private and opened to the group afterwards, the lock
//! comes before everything else that two starters could do to each other, and no symbolic link is followed at the places
//! of the lock and of the socket. What is not this program's to change, such as a directory that was there, is looked at
//! and said.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown,
};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{geteuid, umask};
use thiserror::Error;
use tokio::net::UnixListener;

/// A bound socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    warnings: Vec<String>,
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
    /// Something that this daemon would not have made is where it keeps its lock.
    #[error("{} is there and is {what}; remove it, or choose another --socket", path.display())]
    NoLock {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// Anybody could put another socket in its place.
    #[error(
        "every user may write to {shown}, and could put another socket in the place of this one; \
         `chmod o-w {shown}`, or choose another --socket",
        shown = directory.display()
    )]
    OpenToAll {
        /// Where the socket would be.
        directory: PathBuf,
    },
    /// The path is longer than the system allows.
    #[error("{} is too long for a socket ({} bytes, at most 107); choose a shorter --socket", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// The group could not be let in.
    #[error(
        "cannot give {} to group {group}: {source}; run as root or as a member of it, or leave out [access] group",
        path.display()
    )]
    Group {
        /// The socket or its directory.
        path: PathBuf,
        /// The group's id.
        group: u32,
        /// What the system said.
        source: io::Error,
    },
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

/// The bit that lets only its owner remove a file from a directory.
const STICKY: u32 = 0o1000;

impl Socket {
    /// Binds `path` for its owner alone, or for the group with this id besides, and makes its directory if it is not
    /// there. A socket that a dead daemon left is replaced: the lock beside it tells the dead from the living.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, SocketError> {
        if path.as_os_str().len() > 107 {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        make_directory(directory, group)?;
        let warnings = check_directory(directory, group)?;
        let lock = lock(path)?;
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
        let socket = Self { listener, path: path.to_owned(), inode, warnings, _lock: lock };
        if let Some(group) = group {
            // In this order, or the owner's own group would be let in for a moment.
            let opened = lchown(path, None, Some(group));
            let opened = opened.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o660)));
            opened.map_err(|source| SocketError::Group { path: path.to_owned(), group, source })?;
        }
        Ok(socket)
    }

    /// To accept from.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// What people should know of the place that they chose.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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

/// Makes what is missing of a directory, for the owner and the group alone.
fn make_directory(directory: &Path, group: Option<u32>) -> Result<(), SocketError> {
    let missing: Vec<&Path> =
        directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            // Another daemon starts beside this one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(source) => return Err(failed("make", path, source)),
        }
        if let Some(group) = group {
            let opened = chown(path, None, Some(group));
            let opened = opened.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o750)));
            opened.map_err(|source| SocketError::Group { path: path.to_owned(), group, source })?;
        }
    }
    Ok(())
}

/// What is to be said of a directory, which may have been there.
fn check_directory(directory: &Path, group: Option<u32>) -> Result<Vec<String>, SocketError> {
    let there = fs::metadata(directory).map_err(|source| failed("look at", directory, source))?;
    let (mode, shown) = (there.mode(), directory.display());
    let mut warnings = Vec::new();
    if mode & 0o002 != 0 {
        if mode & STICKY == 0 {
            return Err(SocketError::OpenToAll { directory: directory.to_owned() });
        }
        warnings.push(format!(
            "every user may write to {shown}: whoever is faster can put a socket at the place of this one \
             while it does not run; keep it in a directory of its own"
        ));
    }
    if there.uid() != 0 && there.uid() != geteuid().as_raw() {
        let uid = there.uid();
        warnings.push(format!(
            "{shown} belongs to user {uid}, who can put another socket in the place of this one"
        ));
    }
    if let Some(group) = group
        && mode & 0o001 == 0
        && (there.gid() != group || mode & 0o010 == 0)
    {
        warnings.push(format!(
            "group {group} cannot reach the socket: {shown} was there and is closed to it; \
             `chgrp {group} {shown} && chmod g+x {shown}`"
        ));
    }
    Ok(warnings)
}

/// Holds the lock beside the socket, which is never removed: two starters would come to hold two different ones.
fn lock(path: &Path) -> Result<File, SocketError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let wrong = |what: String| SocketError::NoLock { path: lock_path.clone(), what };
    // Without NONBLOCK a planted pipe would hold up the start for ever.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits() as i32);
    let lock = options.open(&lock_path).map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::LOOP) => wrong("a symbolic link".to_owned()),
        Some(Errno::NXIO | Errno::ISDIR) => wrong("no file".to_owned()),
        _ => failed("open", &lock_path, source),
    })?;
    let there = lock.metadata().map_err(|source| failed("look at", &lock_path, source))?;
    if !there.is_file() {
        return Err(wrong("no file".to_owned()));
    }
    if there.uid() != geteuid().as_raw() && there.uid() != 0 && !geteuid().is_root() {
        return Err(wrong(format!("a file of user {}", there.uid())));
    }
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed("lock", &lock_path, source)),
    }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> SocketError {
    SocketError::Io { doing, path: path.to_owned(), source }
}
