//! `[listen]`: where callers are answered besides the socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeTable;

use super::problem::{ConfigError, Set};
use super::source::Source;

/// Where callers are answered besides the Unix socket. Nowhere unless said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenConfig {
    /// For gRPC.
    pub grpc: Option<Listen>,
}

/// An address to accept callers at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket. The kernel names its callers, and its file's permissions say who can be one.
    Unix(PathBuf),
    /// A TCP address; port 0 takes any. Its callers are nobody in particular. Other machines reach it only with
    /// `remote = true`.
    Tcp(SocketAddr),
}

impl fmt::Display for Listen {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct ListenSection {
    grpc: Option<Set<String>>,
    remote: Option<Set<bool>>,
}

const KEYS: [&str; 2] = ["grpc", "remote"];

impl Source<'_> {
    pub fn listen(&mut self, table: &DeTable) -> ListenSection {
        let mut listen = ListenSection::default();
        for entry in self.entries(table, "listen") {
            match entry.key {
                "grpc" => listen.grpc = self.string(&entry),
                "remote" => listen.remote = self.boolean(&entry),
                _ => self.unknown(&entry, &KEYS),
            }
        }
        listen
    }
}

/// Leaves out what is wrong.
pub(super) fn validate(section: &ListenSection, errors: &mut Vec<ConfigError>) -> ListenConfig {
    let remote = section.remote.as_ref().is_some_and(|remote| remote.value);
    let mut address = |written: &Option<Set<String>>| {
        let address = written.as_ref().map(|written| address(written, remote)).transpose();
        address.map_err(|error| errors.push(error)).ok().flatten()
    };
    ListenConfig { grpc: address(&section.grpc) }
}

/// `unix:` and a path, or an IP address and a port.
fn address(written: &Set<String>, remote: bool) -> Result<Listen, ConfigError> {
    let text = written.value.as_str();
    // Both `unix:/path` and `unix:///path` are in use.
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.starts_with('/') {
            return Ok(Listen::Unix(path.into()));
        }
        let reason =
            format!("{text:?} has no absolute path; write one such as \"unix:/run/aquifer/grpc.sock\"");
        return Err(written.place.error(reason));
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        let reason = format!(
            "is {text:?}, must be a Unix socket or an IP address and a port, such as \
             \"unix:/run/aquifer/grpc.sock\" or \"127.0.0.1:8081\""
        );
        return Err(written.place.error(reason));
    };
    if !address.ip().is_loopback() && !remote {
        let reason = format!(
            "{text:?} is reached by other machines, and whoever reaches it may take permits; write \
             \"127.0.0.1:{port}\", or add remote = true",
            port = address.port()
        );
        return Err(written.place.error(reason));
    }
    Ok(Listen::Tcp(address))
}
