//! Keys on disk: lines of hexadecimal with a checksum, those that must not be lost in two files.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{IdentityError, PRIVATE, damaged, failed, write_atomically};

/// The second file of a secret that is kept twice.
fn copy_of(path: &Path) -> PathBuf {
    let mut copy = path.as_os_str().to_owned();
    copy.push(".copy");
    copy.into()
}

/// A secret that is kept twice; none if it never was. A file that is damaged or gone is written anew from the other one.
/// If they differ, the one that `is_right` counts.
pub(super) fn read_kept(
    path: &Path,
    advice: &str,
    is_right: impl Fn(&[u8; 32]) -> bool,
) -> Result<Option<[u8; 32]>, IdentityError> {
    let copy = copy_of(path);
    let good = |read: Result<Option<[u8; 32]>, IdentityError>| match read {
        Err(IdentityError::Damaged { .. }) => Ok(None),
        read => read,
    };
    let (first, second) = (read_secret(path, advice), read_secret(&copy, advice));
    let (bad, known) = match (good(first)?, good(second)?) {
        // Nothing is there, or nothing that is whole: that is what was found first.
        (None, None) => return Ok(read_secret(path, advice)?.or(read_secret(&copy, advice)?)),
        (Some(one), Some(other)) if one == other => return Ok(Some(one)),
        (Some(one), None) => (copy.as_path(), one),
        (None, Some(other)) => (path, other),
        (Some(one), Some(_)) if is_right(&one) => (copy.as_path(), one),
        (Some(_), Some(other)) if is_right(&other) => (path, other),
        (Some(_), Some(_)) => {
            let what = format!("{} holds another key; remove the one that is wrong", copy.display());
            return Err(damaged(path, what));
        }
    };
    tracing::warn!("{} was damaged or gone; it is written anew from its copy", bad.display());
    if let Err(error) = write_secret(bad, &known) {
        tracing::warn!("{error}");
    }
    Ok(Some(known))
}

pub(super) fn make_kept(path: &Path) -> Result<[u8; 32], IdentityError> {
    let secret = make_secret(path)?;
    write_secret(&copy_of(path), &secret)?;
    Ok(secret)
}

pub(super) fn write_kept(path: &Path, secret: &[u8; 32]) -> Result<(), IdentityError> {
    write_secret(path, secret)?;
    write_secret(&copy_of(path), secret)
}

pub(super) fn make_secret(path: &Path) -> Result<[u8; 32], IdentityError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| failed("find random bytes for", path, error.into()))?;
    write_secret(path, &secret)?;
    Ok(secret)
}

/// A line of the secret and a word by which to see that it is whole, both in hexadecimal.
fn write_secret(path: &Path, secret: &[u8; 32]) -> Result<(), IdentityError> {
    let line = format!("{} {}\n", to_hex(secret), check_of(secret));
    write_atomically(path, line.as_bytes(), PRIVATE).map_err(|source| failed("write", path, source))
}

/// Of what is short and must be whole: four bytes of its SHA-256.
pub(super) fn check_of(text: &[u8]) -> String {
    to_hex(&Sha256::new().chain_update("aquifer ").chain_update(text).finalize()[..4])
}

pub(super) fn read_secret(path: &Path, advice: &str) -> Result<Option<[u8; 32]>, IdentityError> {
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
    let (secret, check) = text.trim_ascii().split_at_checked(64).unwrap_or((&text, &[]));
    // Keys that people wrote have no check.
    let is_whole = |secret: &[u8; 32]| {
        check.is_empty() || check.strip_prefix(b" ").is_some_and(|check| check == check_of(secret).as_bytes())
    };
    let secret = from_hex(secret).filter(is_whole);
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

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
