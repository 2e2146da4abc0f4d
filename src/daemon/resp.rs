//! The Redis protocol: `CL.THROTTLE` for every client of redis-cell, and pools for whoever has a Redis client at hand.
//!
//! A thread of its own, an epoll of its own, and no task per connection: what came in one read is answered by one write,
//! under one lock of the core and by one reading of the clock. A runtime's task costs a quarter of what the exchange of two
//! small messages over a Unix socket costs, which for a decision of less than a microsecond is the better part; and a flood
//! of requests here does not keep gossip waiting.
//!
//! `command` parses, `throttle`, `pools` and `answer` reply, `connection` holds what one client has left, `later` what waits.

mod answer;
pub mod command;
mod connection;
mod later;
mod pools;
mod reply;
mod throttle;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, read, write};
use rustix::net::sockopt::{set_tcp_nodelay, socket_peercred};
use rustix::net::{SocketFlags, accept_with};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use slab::Slab;
use thiserror::Error;

pub use self::connection::{Connection, Scratch, Source, Waits};
pub use self::later::Mailbox;
use super::access::Peer;
use super::config::Listen;
use super::sidecar::{Admittance, Sidecar, Users};
use super::socket::{Socket, SocketError};

/// How often it is looked at who is too slow; and how long nobody is accepted after that has failed.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// So many events are taken at once.
const EVENTS_MAX: usize = 256;
/// Tokens of events that are no connection's.
const STOP: u64 = u64::MAX;
const ANSWERS: u64 = u64::MAX - 1;
const LOOK: u64 = u64::MAX - 2;
const LISTENERS: u64 = u64::MAX - 1_024;

/// Why the Redis protocol cannot be spoken there.
#[derive(Debug, Error)]
pub enum RespError {
    /// The Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TCP address.
    #[error("cannot listen on {address}: {error}; choose another [listen] resp")]
    Tcp {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The system lacks something that every system has.
    #[error("the system refused {0}: {1}")]
    System(&'static str, io::Error),
}

/// The server, which ends when this is dropped.
pub struct Resp {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the sockets' files.
    sockets: Vec<Socket>,
    addresses: Vec<Listen>,
}

impl Resp {
    /// Serves these addresses, the Unix sockets among them for the owner and, if there is one, a group. Inside a runtime: it
    /// keeps what waits.
    ///
    /// # Errors
    /// See [`RespError`].
    pub fn start(addresses: &[Listen], group: Option<u32>, sidecar: Sidecar) -> Result<Self, RespError> {
        let system = |what| move |error: Errno| RespError::System(what, error.into());
        let mut sockets = Vec::new();
        let mut listeners = Vec::new();
        let mut bound = Vec::new();
        for address in addresses {
            let listener = match address {
                Listen::Unix(path) => {
                    let socket = Socket::bind(path, group)?;
                    let listener = socket.listener().as_fd().try_clone_to_owned();
                    sockets.push(socket);
                    bound.push(address.clone());
                    Listener {
                        fd: listener.map_err(|error| RespError::System("a socket", error))?,
                        is_unix: true,
                    }
                }
                Listen::Tcp(address) => {
                    let listener = TcpListener::bind(address)
                        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
                    let listener = listener.map_err(|error| RespError::Tcp { address: *address, error })?;
                    bound.push(Listen::Tcp(listener.local_addr().unwrap_or(*address)));
                    Listener { fd: listener.into(), is_unix: false }
                }
            };
            listeners.push(listener);
        }
        let stop =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(system("an eventfd"))?;
        let stop = Arc::new(stop);
        let answers = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let mailbox = Mailbox::new(answers.map_err(system("an eventfd"))?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system("an epoll"))?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)
            .map_err(system("an epoll"))?;
        epoll::add(&epoll, mailbox.bell(), epoll::EventData::new_u64(ANSWERS), epoll::EventFlags::IN)
            .map_err(system("an epoll"))?;
        // A wait that may take so long at most would set a timer each time, which costs as much as a decision.
        let looks = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(system("a timer"))?;
        let every = Itimerspec { it_interval: LOOK_EVERY, it_value: LOOK_EVERY };
        timerfd_settime(&looks, TimerfdTimerFlags::empty(), &every).map_err(system("a timer"))?;
        epoll::add(&epoll, &looks, epoll::EventData::new_u64(LOOK), epoll::EventFlags::IN)
            .map_err(system("an epoll"))?;
        let mut server = Server {
            epoll,
            looks,
            listeners,
            connections: Slab::new(),
            serial: 0,
            users: sidecar.users().clone(),
            source: Source { sidecar, mailbox },
            scratch: Scratch::default(),
            resting: true,
            _stop: stop.clone(),
        };
        server.listen().map_err(system("an epoll"))?;
        let thread = thread::Builder::new().name("resp".to_owned()).spawn(move || server.run());
        let thread = Some(thread.map_err(|error| RespError::System("a thread", error))?);
        Ok(Self { stop, thread, sockets, addresses: bound })
    }

    /// Where it is served: a port that was left open is known here.
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// What people should know of the places of its sockets.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.sockets.iter().flat_map(Socket::warnings)
    }
}

impl Drop for Resp {
    fn drop(&mut self) {
        // It cannot be full: nothing else is ever written.
        let _ = write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Listener {
    fd: OwnedFd,
    is_unix: bool,
}

struct Server {
    epoll: OwnedFd,
    /// When to look around.
    looks: OwnedFd,
    listeners: Vec<Listener>,
    connections: Slab<Connection>,
    /// How many clients there ever were.
    serial: u64,
    source: Source,
    users: Arc<Users>,
    scratch: Scratch,
    /// Nobody is accepted for now.
    resting: bool,
    _stop: Arc<OwnedFd>,
}

impl Server {
    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return tracing::error!("BUG! the Redis protocol is no longer spoken: {error}"),
            }
            let mut looks = false;
            for event in &events {
                match event.data.u64() {
                    STOP => return,
                    ANSWERS => self.on_answers(),
                    // Behind the events of connections that it may close: a later one may have the same number.
                    LOOK => looks = true,
                    listener if listener >= LISTENERS => self.accept((listener - LISTENERS) as usize),
                    connection => self.on_ready(connection as usize, event.flags),
                }
            }
            if looks {
                self.look_around();
            }
        }
    }

    /// Accepts clients from now on.
    fn listen(&mut self) -> Result<(), Errno> {
        if self.resting {
            for (token, listener) in (LISTENERS..).zip(&self.listeners) {
                let data = epoll::EventData::new_u64(token);
                epoll::add(&self.epoll, &listener.fd, data, epoll::EventFlags::IN)?;
            }
            self.resting = false;
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) {
        loop {
            let Listener { fd, is_unix } = &self.listeners[listener];
            match accept_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(stream) => {
                    let is_unix = *is_unix;
                    self.welcome(stream, is_unix);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    tracing::warn!("cannot accept a caller: {error}");
                    self.listeners.iter().for_each(|listener| {
                        let _ = epoll::delete(&self.epoll, &listener.fd);
                    });
                    self.resting = true;
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: OwnedFd, is_unix: bool) {
        let peer = if is_unix {
            match socket_peercred(&stream) {
                Ok(peer) => Peer { uid: peer.uid.as_raw(), gid: peer.gid.as_raw() },
                Err(error) => {
                    return tracing::warn!("a caller that the kernel does not name was closed: {error}");
                }
            }
        } else {
            // Answers must not wait for the next request (Nagle's algorithm).
            let _ = set_tcp_nodelay(&stream, true);
            Peer::UNKNOWN
        };
        let place = match self.users.connect(peer) {
            Admittance::Welcome(place) => place,
            Admittance::TurnedAway(..) | Admittance::Ignored => {
                let _ = write(&stream, b"-ERR max number of clients reached\r\n");
                return;
            }
        };
        self.serial += 1;
        let entry = self.connections.vacant_entry();
        let data = epoll::EventData::new_u64(entry.key() as u64);
        if let Err(error) = epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN) {
            return tracing::warn!("a caller was closed: {error}");
        }
        let key = entry.key();
        entry.insert(Connection::new(stream, self.serial, key, peer, place));
    }

    /// Answers have come to commands that waited.
    fn on_answers(&mut self) {
        for (key, id) in self.source.mailbox.take() {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            let before = connection.waits();
            let waits = connection.on_answer(id, &self.source, &mut self.scratch);
            self.settle(key, before, waits);
        }
    }

    fn on_ready(&mut self, key: usize, flags: epoll::EventFlags) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let before = connection.waits();
        let waits = match before {
            Waits::ToWrite => connection.on_writable(&self.source, &mut self.scratch),
            Waits::ToRead if flags.contains(epoll::EventFlags::IN) => {
                connection.on_readable(&self.source, &mut self.scratch)
            }
            // Whoever hangs up does not want the answer any more.
            Waits::ToRead | Waits::Answer => None,
        };
        self.settle(key, before, waits);
    }

    /// Has the kernel tell what a connection waits for now; without anything it is over.
    fn settle(&mut self, key: usize, before: Waits, waits: Option<Waits>) {
        let Some(waits) = waits else {
            self.connections.remove(key);
            return;
        };
        if waits == before {
            return;
        }
        let interest = match waits {
            Waits::ToRead => epoll::EventFlags::IN,
            Waits::ToWrite => epoll::EventFlags::OUT,
            Waits::Answer => epoll::EventFlags::RDHUP,
        };
        let data = epoll::EventData::new_u64(key as u64);
        if epoll::modify(&self.epoll, &self.connections[key], data, interest).is_err() {
            self.connections.remove(key);
        }
    }

    /// Closes the connections of clients that are too slow.
    fn look_around(&mut self) {
        let _ = read(&self.looks, &mut [0; 8]);
        let now = Instant::now();
        let before = self.connections.len();
        self.connections.retain(|_, connection| !connection.is_too_slow(now));
        for _ in self.connections.len()..before {
            self.users.count_timed_out();
        }
        if let Err(error) = self.listen() {
            tracing::warn!("cannot accept callers: {error}");
        }
    }
}
