//! One client: what it sent and was not answered yet, what it was answered and has not read yet, and how long it may take.

use std::io;
use std::mem;
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, read, write};

use super::answer::{Next, Session, answer};
use super::command::{COMMAND_MAX, parse};
use super::reply::Replies;
use super::throttle::throttle;
use crate::daemon::engine::{Batch, Engine};
use crate::daemon::sidecar::Place;

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
}

impl Scratch {
    /// With nothing in it.
    pub fn new() -> Self {
        Self { input: vec![0; READ_MAX], replies: Replies::default() }
    }
}

impl Connection {
    /// A client that has just connected, over a stream that does not block. `id` names it.
    pub fn new(stream: OwnedFd, id: u64, place: Place) -> Self {
        Self {
            stream,
            session: Session::new(id),
            version3: false,
            input: Vec::new(),
            output: Vec::new(),
            owed: Some((Owed::Word, Instant::now())),
            ends: false,
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
        if self.output.is_empty() { Waits::ToRead } else { Waits::ToWrite }
    }

    /// Something came. None if the connection is over.
    pub fn on_readable(&mut self, engine: &Engine, scratch: &mut Scratch) -> Option<Waits> {
        let length = match read(&self.stream, &mut scratch.input[..]) {
            Ok(0) => return None,
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Some(Waits::ToRead),
            Err(_) => return None,
        };
        let Scratch { input, replies } = scratch;
        if self.input.is_empty() {
            let answered = self.answer(&input[..length], engine, replies);
            self.input.extend_from_slice(&input[answered..length]);
            self.flush(replies)
        } else {
            self.input.extend_from_slice(&input[..length]);
            self.go_on(engine, replies)
        }
    }

    /// There is room for replies. None if the connection is over.
    pub fn on_writable(&mut self, engine: &Engine, scratch: &mut Scratch) -> Option<Waits> {
        let output = mem::take(&mut self.output);
        match self.send(&output) {
            Ok(sent) if sent == output.len() => {
                self.owed = None;
                if self.ends { None } else { self.go_on(engine, &mut scratch.replies) }
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

    /// Answers what is kept.
    fn go_on(&mut self, engine: &Engine, replies: &mut Replies) -> Option<Waits> {
        let input = mem::take(&mut self.input);
        let answered = self.answer(&input, engine, replies);
        self.input = input;
        self.input.drain(..answered);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        self.flush(replies)
    }

    /// Answers the commands in `input`, and tells how many bytes these were.
    fn answer(&mut self, input: &[u8], engine: &Engine, replies: &mut Replies) -> usize {
        replies.clear();
        replies.version3 = self.version3;
        let mut batch: Option<Batch<'_>> = None;
        let mut at = 0;
        while replies.bytes().len() < REPLIES_MAX && !self.ends {
            match parse(&input[at..]) {
                Ok(Some((args, length))) => {
                    at += length;
                    if args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"cl.throttle")) {
                        throttle(&args, batch.get_or_insert_with(|| engine.batch()), replies);
                    } else if !args.is_empty() {
                        batch = None;
                        self.ends = answer(&args, &mut self.session, replies) == Next::Close;
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
        if self.input.is_empty() {
            self.owed = None;
        } else if !bytes.is_empty() || !matches!(self.owed, Some((Owed::Rest, _))) {
            self.owed = Some((Owed::Rest, Instant::now()));
        }
        Some(Waits::ToRead)
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
