//! What clients send in the Redis protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use aquifer::daemon::access::Peer;
use aquifer::daemon::resp::command::{ARG_MAX, ARGS_MAX, Args, ProtocolError, parse};
use aquifer::daemon::resp::{Connection, Mailbox, Scratch, Source, Waits};
use aquifer::daemon::sidecar::Admittance;

use super::bound::{Bound, DECODER};
use super::daemon::{OWNER, RUNTIME, sidecar};

/// Replies may be longer than what they answer: of `COMMAND` by a hundred times and more. As many as are kept unsent, and
/// what a node keeps of the calls.
const CONNECTION: Bound = Bound(16, 768 << 10);
/// Of numbers that no `CL.THROTTLE` brought before a node keeps a table for as many keys as may be, four bytes each; it is
/// touched, and so costs memory, only where there are keys.
const TABLE: u64 = 4 << 20;

/// Commands, one after the other, as long as they are any.
pub fn command(bytes: &[u8]) {
    let (mut at, mut args, mut rest) = (0, Args::new(), Args::new());
    loop {
        let input = &bytes[at..];
        let parsed = DECODER.of(input.len(), || parse(input, &mut args));
        // What has begun wrongly does not become right by what follows, nor a whole command another one.
        let part = &input[..input.len() / 2];
        match (parse(part, &mut rest), &parsed) {
            (Ok(Some(first)), parsed) => assert_eq!((parsed, &rest), (&Ok(Some(first)), &args)),
            (Err(error), parsed) => assert_eq!(parsed, &Err(error)),
            (Ok(None), _) => {}
        }
        match parsed {
            Ok(Some(length)) => {
                assert!(length > 0 && length <= input.len() && args.len() <= ARGS_MAX);
                assert!(args.iter().all(|arg| arg.len() <= ARG_MAX));
                assert!(args.iter().map(|arg| arg.len()).sum::<usize>() < length);
                at += length;
            }
            Err(ProtocolError::TooLong) => panic!("a fuzzer's input is not as long as that"),
            Ok(None) | Err(_) => return,
        }
    }
}

/// All that one client ever says: the first byte says who it is, the second in pieces of what length it comes. Whatever it
/// says is answered with whole replies, until the connection ends or a request waits.
pub fn resp(bytes: &[u8]) {
    let [who, piece, said @ ..] = bytes else { return };
    let peer = Peer { uid: OWNER + u32::from(who % 2), gid: 100 };
    let heard = RUNTIME.with(|runtime| {
        let _inside = runtime.enter();
        let sidecar = sidecar();
        let (bell, _) = UnixStream::pair().expect("there are sockets");
        let source = Source { sidecar, mailbox: Mailbox::new(bell.into()) };
        let numbers = said.windows(8).filter(|word| word.eq_ignore_ascii_case(b"throttle")).count() as u64;
        let Bound(each, more) = CONNECTION;
        // The keyed pool of the configuration has a table, too, from its first key on.
        let bound = Bound(each, more + TABLE + numbers * (TABLE + (8 << 10)));
        bound.of(said.len(), || converse(&source, said, usize::from(*piece).max(1), peer))
    });
    let mut rest = &heard[..];
    while !rest.is_empty() {
        rest = reply(rest).unwrap_or_else(|| panic!("no whole reply: {}", heard.escape_ascii()));
    }
}

fn converse(source: &Source, said: &[u8], piece: usize, peer: Peer) -> Vec<u8> {
    let (mut ours, theirs) = UnixStream::pair().expect("there are sockets");
    ours.set_nonblocking(true).and_then(|()| theirs.set_nonblocking(true)).expect("they need not block");
    let Admittance::Welcome(place) = source.sidecar.users().connect(peer) else { panic!("there is room") };
    let mut connection = Connection::new(theirs.into(), 1, 0, peer, place);
    let (mut scratch, mut heard) = (Scratch::default(), Vec::new());
    let mut pieces = said.chunks(piece);
    loop {
        let waits = match connection.waits() {
            Waits::Answer => break,
            Waits::ToWrite => connection.on_writable(source, &mut scratch),
            Waits::ToRead => {
                match pieces.next() {
                    Some(piece) => ours.write_all(piece).expect("all before it was read"),
                    None => ours.shutdown(Shutdown::Write).expect("it is open"),
                }
                connection.on_readable(source, &mut scratch)
            }
        };
        listen(&mut ours, &mut heard);
        if waits.is_none() {
            break;
        }
    }
    heard
}

fn listen(stream: &mut UnixStream, heard: &mut Vec<u8>) {
    match stream.read_to_end(heard) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        // Whoever is cut off with something unread is told so by the system.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => _ = read.expect("it can be read"),
    }
}

/// What follows the first reply.
fn reply(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let (line, rest) = (&bytes[1..end], &bytes[end + 2..]);
    let number = || str::from_utf8(line).ok()?.parse::<i64>().ok();
    let replies = |count: i64| (0..count).try_fold(rest, |rest, _| reply(rest));
    match bytes[0] {
        b'+' | b'-' => line.iter().all(|byte| !byte.is_ascii_control()).then_some(rest),
        b':' => number().map(|_| rest),
        b'_' => line.is_empty().then_some(rest),
        b'$' => match number()? {
            -1 => Some(rest),
            length => {
                let length = usize::try_from(length).ok()?;
                rest.get(length..)?.strip_prefix(b"\r\n")
            }
        },
        b'*' => replies(number()?),
        b'%' => replies(2 * number()?),
        _ => None,
    }
}
