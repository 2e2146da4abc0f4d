//! What of the core survives a restart, on disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::identity::write_atomically;
use crate::protocol::node::Saved;
use crate::wire::{WireError, decode_saved, encode_saved};

/// The file with the ledger, in the data directory.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

/// Why the state cannot be used. The file is left as it is.
#[derive(Debug, Error)]
pub enum StateError {
    /// The system said no.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not hold a state.
    #[error(
        "{} is damaged: {source}. Restore it from a backup; or, to come back as a member without a share, remove it \
         and start with --join. The share that it recorded stays reserved until the others forget this node",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WireError,
    },
    /// A node that ran before has no state, and nobody to join.
    #[error(
        "{} is not there, although this node ran before. Restore it from a backup; or start with --join to come back as \
         a member without a share; or found a new swarm with another --data-dir. To found one here would give out the \
         whole limit twice",
        .0.display()
    )]
    Missing(PathBuf),
}

impl StateFile {
    /// The state of the node whose data directory this is.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join("ledger.state") }
    }

    /// The error that a node must not start without it.
    pub fn missing(&self) -> StateError {
        StateError::Missing(self.path.clone())
    }

    /// What was saved, if anything was.
    ///
    /// # Errors
    /// The file is unreadable or damaged.
    pub fn load(&self) -> Result<Option<Saved>, StateError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { path: self.path.clone(), source }),
        };
        match decode_saved(&bytes) {
            Ok(saved) => Ok(Some(saved)),
            Err(source) => Err(StateError::Damaged { path: self.path.clone(), source }),
        }
    }

    /// Saves durably: when this returns, a crash of the machine finds the new state or, if it failed, the old one.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn save(&self, saved: &Saved) -> io::Result<()> {
        let bytes = encode_saved(saved).map_err(io::Error::other)?;
        write_atomically(&self.path, &bytes, 0o600)
    }
}
