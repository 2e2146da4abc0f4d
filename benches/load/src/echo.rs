//! The floor: a server that does nothing but send back what it receives, with one epoll and one thread.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;

/// So many bytes are read at once.
const READ_MAX: usize = 1 << 16;
/// So many events are taken at once.
const EVENTS_MAX: usize = 256;
/// The token of the listener's events; connections have their place.
const LISTENER: u64 = u64::MAX;

/// Serves until killed.
///
/// # Errors
///
/// The socket is there already, or cannot be made.
pub fn serve(socket: &Path) -> Result<()> {
    let listener =
        UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut connections: Vec<Option<UnixStream>> = Vec::new();
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; READ_MAX];
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            if event.data.u64() == LISTENER {
                let (connection, _) = listener.accept()?;
                let place = epoll::EventData::new_u64(connections.len() as u64);
                epoll::add(&epoll, &connection, place, epoll::EventFlags::IN)?;
                connections.push(Some(connection));
                continue;
            }
            let place = &mut connections[event.data.u64() as usize];
            // Something is there to read, and generators read what they are sent: neither call waits.
            if let Some(connection) = place
                && !matches!(connection.read(&mut buffer), Ok(read) if read > 0 && connection.write_all(&buffer[..read]).is_ok())
            {
                *place = None;
            }
        }
    }
}
