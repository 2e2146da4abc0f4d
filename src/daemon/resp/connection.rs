//! One client: what it sent and was not answered yet, what it was answered and has not read yet, and how long it may take.

use std::io;
use std::mem;
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, read, write};

use super::answer::{Next, Session, answer};
use super::command::{Args, COMMAND_MAX, parse};
use super::later::{Later, Mailbox};
use super::pools::Ask;
use super::reply::Replies;
use super::throttle::{Known, throttle};
use crate::api::ThrottleSummary;
use crate::daemon::access::Peer;
use crate::daemon::engine::{Batch, Binding};
use crate::daemon::sidecar::{Caller, Place, Sidecar};

/// So much is read at once.
const READ_MAX: usize = COMMAND_MAX;
/// With so many bytes of replies unsent, no more commands are answered.
const REPLIES_MAX: usize = 256 * 1024;
/// The first byte must come within this.
const SILENCE: Duration = Duration::from_secs(20);
/// The rest of a command must follow within this.
const REST: Duration = Duration::from_secs(10);
/// Replies must be read within this.
const STALL: Duration = Duration::from_secs(10);

/// What all connections use one after the other, so that one that is idle costs next to nothing.
pub struct Scratch {
    input: Vec<u8>,
    replies: Replies,
}

/// What the answers come from.
pub struct Source {
    /// What decides.
    pub sidecar: Sidecar,
    /// Where answers arrive that take time.
    pub mailbox: Mailbox,
}

/// A client.
pub struct Connection {
    stream: OwnedFd,
    session: Session,
    version3: bool,
    /// Commands that are not answered, the last perhaps not whole.
    input: Vec<u8>,
    /// Replies that the client has not read.
    output: Vec<u8>,
    /// Since when something is owed, and what.
    owed: Option<(Owed, Instant)>,
    /// It ends when its replies are read.
    ends: bool,
    /// A command that waits for its answer; those after it are not looked at.
    later: Option<Later>,
    /// Its place among the connections, for answers that come later.
    key: usize,
    peer: Peer,
    /// Permits that end with it, once it has asked for one.
    binding: Option<Binding>,
    /// A place among the callers.
    _place: Place,
}

/// What a client has to do next, and soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// Say something.
    Word,
    /// Send the rest of a command.
    Rest,
    /// Read replies.
    Reading,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Commands.
    ToRead,
    /// Room for replies.
    ToWrite,
    /// An answer, or that the client hangs up.
    Answer,
}

impl Default for Scratch {
    /// With nothing in it.
    fn default() -> Self {
        Self { input: vec![0; READ_MAX], replies: Replies::default() }
    }
}

impl Connection {
    /// A client that has just connected, over a stream that does not block. `id` names it, `key` is its place among the
    /// connections.
    pub fn new(stream: OwnedFd, id: u64, key: usize, peer: Peer, place: Place) -> Self {
        Self {
            stream,
            session: Session::new(id),
            version3: false,
            input: Vec::new(),
            output: Vec::new(),
            owed: Some((Owed::Word, Instant::now())),
            ends: false,
            later: None,
            key,
            peer,
            binding: None,
            _place: place,
        }
    }

    /// Whether its client has had all the time that there is.
    pub fn is_too_slow(&self, now: Instant) -> bool {
        self.owed.is_some_and(|(owed, since)| {
            let most = match owed {
                Owed::Word => SILENCE,
                Owed::Rest => REST,
                Owed::Reading => STALL,
            };
            now.duration_since(since) > most
        })
    }

    /// What it waits for.
    pub fn waits(&self) -> Waits {
        match (&self.later, self.output.is_empty()) {
            (_, false) => Waits::ToWrite,
            (Some(_), true) => Waits::Answer,
            (None, true) => Waits::ToRead,
        }
    }

    /// Something came. None if the connection is over.
    pub fn on_readable(&mut self, source: &Source, scratch: &mut Scratch) -> Option<Waits> {
        let length = match read(&self.stream, &mut scratch.input[..]) {
            Ok(0) => return None,
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Some(Waits::ToRead),
            Err(_) => return None,
        };
        let Scratch { input, replies } = scratch;
        if self.input.is_empty() {
            replies.begin(self.version3);
            let answered = self.answer(&input[..length], source, replies);
            self.input.extend_from_slice(&input[answered..length]);
            self.flush(replies)
        } else {
            self.input.extend_from_slice(&input[..length]);
            replies.begin(self.version3);
            self.go_on(source, replies)
        }
    }

    /// The answer to a command has come that waited; `id` names the connection that asked. None if the connection is over.
    pub fn on_answer(&mut self, id: u64, source: &Source, scratch: &mut Scratch) -> Option<Waits> {
        if !self.session.is(id) {
            // Of one that was here before.
            return Some(self.waits());
        }
        let Some(answered) = self.later.take().and_then(Later::answered) else { return Some(self.waits()) };
        let replies = &mut scratch.replies;
        replies.begin(self.version3);
        answered.reply(replies);
        if self.output.is_empty() {
            return self.go_on(source, replies);
        }
        self.output.extend_from_slice(replies.bytes());
        Some(Waits::ToWrite)
    }

    /// There is room for replies. None if the connection is over.
    pub fn on_writable(&mut self, source: &Source, scratch: &mut Scratch) -> Option<Waits> {
        let output = mem::take(&mut self.output);
        match self.send(&output) {
            Ok(sent) if sent == output.len() => {
                self.owed = None;
                if self.ends {
                    return None;
                }
                scratch.replies.begin(self.version3);
                self.go_on(source, &mut scratch.replies)
            }
            Ok(sent) => {
                self.output = output;
                self.output.drain(..sent);
                if sent > 0 {
                    self.owed = Some((Owed::Reading, Instant::now()));
                }
                Some(Waits::ToWrite)
            }
            Err(_) => None,
        }
    }

    /// Answers what is kept, after what `replies` holds already.
    fn go_on(&mut self, source: &Source, replies: &mut Replies) -> Option<Waits> {
        let input = mem::take(&mut self.input);
        let answered = self.answer(&input, source, replies);
        self.input = input;
        self.input.drain(..answered);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        self.flush(replies)
    }

    /// Answers the commands in `input`, and tells how many bytes these were.
    fn answer(&mut self, input: &[u8], source: &Source, replies: &mut Replies) -> usize {
        let mut batch: Option<Batch<'_>> = None;
        let mut throttles = ThrottleSummary::default();
        let (mut args, mut known, mut at) = (Args::new(), Known::default(), 0);
        while replies.bytes().len() < REPLIES_MAX && !self.ends && self.later.is_none() {
            match parse(&input[at..], &mut args) {
                Ok(Some(length)) => {
                    at += length;
                    if args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"cl.throttle")) {
                        throttle(
                            &args,
                            &mut known,
                            batch.get_or_insert_with(|| source.sidecar.engine().batch()),
                            replies,
                            &mut throttles,
                        );
                    } else if !args.is_empty() {
                        batch = None;
                        match Ask::parse(&args) {
                            Some(Ok(ask)) => self.ask(ask, source, replies),
                            Some(Err(why)) => replies.error(&format!("ERR {why}")),
                            None => self.ends = answer(&args, &mut self.session, replies) == Next::Close,
                        }
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    replies.error(&format!("ERR Protocol error: {error}"));
                    self.ends = true;
                }
            }
        }
        drop(batch);
        source.sidecar.tally().throttled(throttles);
        self.version3 = replies.version3;
        if self.ends { input.len() } else { at }
    }

    /// Sends replies. None if the connection is over.
    fn flush(&mut self, replies: &Replies) -> Option<Waits> {
        let bytes = replies.bytes();
        let sent = self.send(bytes).ok()?;
        if sent < bytes.len() {
            self.output.extend_from_slice(&bytes[sent..]);
            self.owed = Some((Owed::Reading, Instant::now()));
            return Some(Waits::ToWrite);
        }
        if self.ends {
            return None;
        }
        if self.input.is_empty() || self.later.is_some() {
            self.owed = None;
        } else if !bytes.is_empty() || !matches!(self.owed, Some((Owed::Rest, _))) {
            self.owed = Some((Owed::Rest, Instant::now()));
        }
        Some(self.waits())
    }

    /// Asks on behalf of the client, and replies at once if that is possible.
    fn ask(&mut self, ask: Ask, source: &Source, replies: &mut Replies) {
        let binding = self.binding.get_or_insert_with(|| Binding::new(source.sidecar.engine()));
        let caller = Caller { peer: self.peer, bound: binding.name() };
        let sidecar = source.sidecar.clone();
        let answer = async move { ask.answer(&sidecar, &caller).await };
        match Later::begin(answer, source.mailbox.clone(), self.key, self.session.id()) {
            Ok(answered) => answered.reply(replies),
            Err(later) => self.later = Some(later),
        }
    }

    /// How many of the bytes could be sent at once.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match write(&self.stream, bytes) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
