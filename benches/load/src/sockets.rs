//! Load over plain sockets, from one thread: closed loop or open loop.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::Timespec;

use crate::codec::Codec;
use crate::plan::{Address, Load};
use crate::tally::{Tally, Window};

/// The longest answers that are not read yet.
const UNREAD_MAX: usize = 1 << 16;
/// So many events are taken at once.
const EVENTS_MAX: usize = 256;

/// Puts the load on the server until the window ends.
///
/// # Errors
///
/// No connection, or one that ended.
pub fn drive(address: &Address, codec: &impl Codec, load: &Load, window: Window) -> Result<Tally> {
    // Waits of microseconds should not be rounded up to 50, the kernel's default.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let requests = codec.requests();
    let connections: Result<Vec<_>> =
        (0..load.connections).map(|seed| Connection::open(address, codec, &requests, seed as u64)).collect();
    let mut tally = Tally::new(window);
    match (connections?, load.rate) {
        (connections, Some(rate)) => open_loop(connections, rate, window, &mut tally)?,
        (mut connections, None) if connections.len() == 1 => {
            one_connection(&mut connections[0], load.depth, window, &mut tally)?;
        }
        (connections, None) => closed_loop(connections, load.depth, window, &mut tally)?,
    }
    Ok(tally)
}

/// Connects.
///
/// # Errors
///
/// Nobody listens there.
pub fn connect(address: &Address) -> Result<OwnedFd> {
    Ok(match address {
        Address::Unix(path) => {
            UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?.into()
        }
        Address::Tcp(address) => {
            let stream =
                TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
            stream.set_nodelay(true)?;
            stream.into()
        }
    })
}

struct Connection<'a, C> {
    /// Blocks: nothing is received but where an event says that something is there, and servers read what they are sent.
    socket: OwnedFd,
    codec: &'a C,
    requests: &'a [Vec<u8>],
    random: fastrand::Rng,
    /// When those were sent, or due, that have no answer yet.
    asked: VecDeque<Instant>,
    outgoing: Vec<u8>,
    /// The beginning of an answer is in the first `unread` bytes.
    incoming: Box<[u8]>,
    unread: usize,
}

impl<'a, C: Codec> Connection<'a, C> {
    fn open(address: &Address, codec: &'a C, requests: &'a [Vec<u8>], seed: u64) -> Result<Self> {
        Ok(Self {
            socket: connect(address)?,
            codec,
            requests,
            random: fastrand::Rng::with_seed(seed),
            asked: VecDeque::new(),
            outgoing: Vec::new(),
            incoming: vec![0; UNREAD_MAX].into_boxed_slice(),
            unread: 0,
        })
    }

    /// Sends so many requests in one write. Their latency counts from `asked`.
    fn send(&mut self, count: usize, asked: Instant) -> Result<()> {
        self.outgoing.clear();
        for _ in 0..count {
            self.outgoing.extend_from_slice(&self.requests[self.random.usize(..self.requests.len())]);
            self.asked.push_back(asked);
        }
        let mut rest = &self.outgoing[..];
        while !rest.is_empty() {
            let sent = retry_on_intr(|| send(&self.socket, rest, SendFlags::NOSIGNAL))
                .context("the server closed a connection")?;
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Receives once, and tells the tally of all answers that are there.
    fn receive(&mut self, tally: &mut Tally) -> Result<()> {
        let (received, _) =
            retry_on_intr(|| recv(&self.socket, &mut self.incoming[self.unread..], RecvFlags::empty()))?;
        if received == 0 {
            bail!("the server closed a connection, or sent an answer of more than {UNREAD_MAX} bytes");
        }
        let now = Instant::now();
        let end = self.unread + received;
        let mut start = 0;
        while start < end
            && let Some((length, outcome)) = self.codec.reply(&self.incoming[start..end])
        {
            let asked = self.asked.pop_front().context("the server answered what it was not asked")?;
            tally.answered(asked, now, outcome);
            start += length;
        }
        self.incoming.copy_within(start..end, 0);
        self.unread = end - start;
        Ok(())
    }
}

/// Without an epoll: it would cost the generator a call more, of which the server knows nothing.
fn one_connection(
    connection: &mut Connection<'_, impl Codec>,
    depth: usize,
    window: Window,
    tally: &mut Tally,
) -> Result<()> {
    loop {
        let now = Instant::now();
        if now >= window.end {
            return Ok(());
        }
        connection.send(depth, now)?;
        while !connection.asked.is_empty() {
            connection.receive(tally)?;
        }
    }
}

fn closed_loop(
    mut connections: Vec<Connection<'_, impl Codec>>,
    depth: usize,
    window: Window,
    tally: &mut Tally,
) -> Result<()> {
    let mut poll = Poll::new(&connections)?;
    for connection in &mut connections {
        connection.send(depth, Instant::now())?;
    }
    loop {
        let now = Instant::now();
        if now >= window.end {
            return Ok(());
        }
        for index in poll.wait(window.end - now)? {
            let connection = &mut connections[index];
            connection.receive(tally)?;
            if connection.asked.is_empty() {
                connection.send(depth, Instant::now())?;
            }
        }
    }
}

fn open_loop(
    mut connections: Vec<Connection<'_, impl Codec>>,
    rate: f64,
    window: Window,
    tally: &mut Tally,
) -> Result<()> {
    let mut poll = Poll::new(&connections)?;
    let mut random = fastrand::Rng::with_seed(0);
    let mut due = window.start;
    let mut turn = (0..connections.len()).cycle();
    loop {
        let now = Instant::now();
        if now >= window.end {
            break;
        }
        while due <= now {
            let next = turn.next().context("an open loop needs a connection")?;
            connections[next].send(1, due)?;
            // Times between arrivals are exponential; 1 − [0, 1) is never 0.
            due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
        }
        for index in poll.wait(due.min(window.end).saturating_duration_since(Instant::now()))? {
            connections[index].receive(tally)?;
        }
    }
    for asked in connections.iter().flat_map(|connection| &connection.asked) {
        tally.unanswered(*asked);
    }
    Ok(())
}

/// Which connections have something to read.
struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    fn new<C>(connections: &[Connection<'_, C>]) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, connection) in connections.iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &connection.socket, data, epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    fn wait(&mut self, at_most: Duration) -> Result<impl Iterator<Item = usize>> {
        let timeout = Timespec::try_from(at_most)?;
        self.events.clear();
        retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)))?;
        Ok(self.events.iter().map(|event| event.data.u64() as usize))
    }
}
