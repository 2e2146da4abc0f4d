//! The few calls to the file system that what a node keeps goes through, so that tests can have each of them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// A file system, or something that fails like one.
pub trait Disk: Send + 'static {
    /// A file that is open for writing.
    type File;

    /// What a file holds, at most `most` bytes of it; none if there is no such file.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &Path, most: usize) -> io::Result<Option<Vec<u8>>>;

    /// Opens a file for writing. It is made, readable by its owner only, if it is not there; what it holds stays.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Finds room for `length` bytes, before any of them is written. A file system that cannot tell has it.
    ///
    /// # Errors
    /// There is no room, or what else the system says. The file is as it was.
    fn reserve(&self, file: &mut Self::File, length: u64) -> io::Result<()>;

    /// Writes some of `bytes` at `offset`, and says how many.
    ///
    /// # Errors
    /// What the system says.
    fn write(&self, file: &mut Self::File, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Returns once all that was written to a file would survive the machine's crash. After an error nothing is known of
    /// it: it must be written anew, for a second call may succeed without having tried (Rebello et al., ATC 2020).
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self, file: &mut Self::File) -> io::Result<()>;

    /// The same for the names of the files in a directory.
    ///
    /// # Errors
    /// What the system says.
    fn sync_names(&self, directory: &Path) -> io::Result<()>;

    /// Gives a file another name, whatever had it before.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Whether there is something of this name.
    fn exists(&self, path: &Path) -> bool;
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn read(&self, path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    fn reserve(&self, file: &mut File, length: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            reserved => Ok(reserved?),
        }
    }

    fn write(&self, file: &mut File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    fn sync(&self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_names(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }
}
