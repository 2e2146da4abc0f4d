//! Bytes to commands: RESP arrays of bulk strings, and inline commands, parsed in place.
//!
//! Clients send nothing else in RESP2 and RESP3 alike (<https://redis.io/docs/latest/develop/reference/protocol-spec/>). The
//! crates that parse RESP make a value of every frame; here a command costs no allocation and no copy, which is most of what
//! a decision costs.

use smallvec::SmallVec;
use thiserror::Error;

/// The most arguments of one command, its name among them.
pub const ARGS_MAX: usize = 64;
/// The longest argument, in bytes.
pub const ARG_MAX: usize = 16 * 1024;
/// The longest inline command, in bytes.
pub const INLINE_MAX: usize = 4 * 1024;
/// The longest command, in bytes: whoever has sent so much and no whole command is cut off.
pub const COMMAND_MAX: usize = 64 * 1024;

/// A command's name and arguments.
pub type Args<'a> = SmallVec<[&'a [u8]; 8]>;

/// Bytes that are no command. Where the next would begin is not known, so that the connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Not the byte that begins a string, or a line without its end.
    #[error("expected '{}', got '{}'", *expected as char, got.escape_ascii())]
    Unexpected {
        /// What should be there.
        expected: u8,
        /// What is.
        got: u8,
    },
    /// A count of arguments that is no number, or too large.
    #[error("invalid multibulk length, at most {ARGS_MAX} arguments are read")]
    Count,
    /// A length that is no number, or too large.
    #[error("invalid bulk length, at most {ARG_MAX} bytes are read")]
    Length,
    /// An inline command that does not end.
    #[error("too big inline request, at most {INLINE_MAX} bytes are read")]
    Inline,
    /// A command that is too long in all.
    #[error("too big command, at most {COMMAND_MAX} bytes are read")]
    TooLong,
}

/// Reads the first command in `input` into `args`, and tells how many bytes it takes; none if it is not whole yet, and then
/// what is in `args` means nothing. A command without a name (an empty line or array) has no arguments.
///
/// # Errors
/// Bytes that no command begins with.
pub fn parse<'a>(input: &'a [u8], args: &mut Args<'a>) -> Result<Option<usize>, ProtocolError> {
    args.clear();
    let parsed = match input.first() {
        None => return Ok(None),
        Some(b'*') => array(input, args)?,
        Some(_) => inline(input, args)?,
    };
    if parsed.is_none() && input.len() >= COMMAND_MAX {
        return Err(ProtocolError::TooLong);
    }
    Ok(parsed)
}

fn array<'a>(input: &'a [u8], args: &mut Args<'a>) -> Result<Option<usize>, ProtocolError> {
    let Some((count, mut at)) = number(input, 1).map_err(|()| ProtocolError::Count)? else { return Ok(None) };
    if count > ARGS_MAX {
        return Err(ProtocolError::Count);
    }
    for _ in 0..count {
        match input.get(at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(got) => return Err(ProtocolError::Unexpected { expected: b'$', got: *got }),
        }
        let Some((length, begin)) = number(input, at + 1).map_err(|()| ProtocolError::Length)? else {
            return Ok(None);
        };
        if length > ARG_MAX {
            return Err(ProtocolError::Length);
        }
        let end = begin + length;
        let Some(arg) = input.get(begin..end) else { return Ok(None) };
        match input.get(end..end + 2) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(other) => return Err(ProtocolError::Unexpected { expected: b'\r', got: other[0] }),
        }
        args.push(arg);
        at = end + 2;
    }
    Ok(Some(at))
}

/// The number in the line that begins at `at`, and where the next line begins.
fn number(input: &[u8], at: usize) -> Result<Option<(usize, usize)>, ()> {
    // Most are of one digit.
    if let Some([digit @ b'0'..=b'9', b'\r', b'\n']) = input.get(at..at + 3) {
        return Ok(Some((usize::from(digit - b'0'), at + 3)));
    }
    let mut number = 0;
    for (place, byte) in input[at.min(input.len())..].iter().enumerate() {
        match byte {
            b'0'..=b'9' if place < 7 => number = number * 10 + usize::from(byte - b'0'),
            b'\r' if place > 0 => {
                return match input.get(at + place + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some((number, at + place + 2))),
                    Some(_) => Err(()),
                };
            }
            _ => return Err(()),
        }
    }
    Ok(None)
}

/// Words between blanks, up to the end of the line.
fn inline<'a>(input: &'a [u8], args: &mut Args<'a>) -> Result<Option<usize>, ProtocolError> {
    let window = &input[..input.len().min(INLINE_MAX)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if input.len() >= INLINE_MAX { Err(ProtocolError::Inline) } else { Ok(None) };
    };
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    args.extend(line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()));
    if args.len() > ARGS_MAX {
        return Err(ProtocolError::Count);
    }
    Ok(Some(end + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(args: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            bytes.extend_from_slice(arg);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    fn words(input: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
        let mut args = Args::new();
        parse(input, &mut args).unwrap().map(|length| (args.to_vec(), length))
    }

    #[test]
    fn a_command_is_what_it_says_and_needs_all_of_its_bytes() {
        let bytes = b"*2\r\n$4\r\nPING\r\n$3\r\na\r\n\r\n*1\r\n";
        assert_eq!(words(bytes), Some((vec![&b"PING"[..], b"a\r\n"], 23)));
        for cut in 0..23 {
            assert_eq!(words(&bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn inline_commands_are_words() {
        assert_eq!(words(b"PING  hello\r\nPI"), Some((vec![&b"PING"[..], b"hello"], 13)));
        assert_eq!(words(b"\r\n"), Some((vec![], 2)));
        assert_eq!(words(b"PING"), None);
        assert_eq!(parse(&[b'x'; INLINE_MAX], &mut Args::new()), Err(ProtocolError::Inline));
    }

    #[test]
    fn what_is_no_command_is_refused_at_the_first_wrong_byte() {
        let wrong = [
            (&b"*x"[..], ProtocolError::Count),
            (b"*-1\r\n", ProtocolError::Count),
            (b"*99999999", ProtocolError::Count),
            (b"*65\r\n", ProtocolError::Count),
            (b"*1\r\n:", ProtocolError::Unexpected { expected: b'$', got: b':' }),
            (b"*1\r\n$99999999", ProtocolError::Length),
            (b"*1\r\n$-1\r\n", ProtocolError::Length),
            (b"*1\r\n$1\r\nabc", ProtocolError::Unexpected { expected: b'\r', got: b'b' }),
        ];
        for (bytes, error) in wrong {
            assert_eq!(parse(bytes, &mut Args::new()), Err(error), "{}", bytes.escape_ascii());
        }
        let mut long = b"*60\r\n".to_vec();
        for _ in 0..5 {
            long.extend_from_slice(b"$16000\r\n");
            long.extend_from_slice(&[b'x'; 16_000]);
            long.extend_from_slice(b"\r\n");
        }
        assert_eq!(parse(&long, &mut Args::new()), Err(ProtocolError::TooLong));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(args in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12)) {
            let bytes = encode(&args);
            let mut read = Args::new();
            read.push(b"of the command before");
            let length = parse(&bytes, &mut read).unwrap().expect("it is whole");
            prop_assert_eq!(read.to_vec(), args.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(length, bytes.len());
        }

        #[test]
        fn no_bytes_make_it_panic_or_read_beyond_their_end(bytes in proptest::collection::vec(prop_oneof![
            Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'3'), Just(b'x'), any::<u8>()
        ], 0..200)) {
            if let Ok(Some(length)) = parse(&bytes, &mut Args::new()) {
                prop_assert!(length > 0 && length <= bytes.len());
            }
        }
    }
}
