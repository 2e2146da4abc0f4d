//! How requests are spelled and answers read, where a connection is a plain stream of bytes.

use std::fmt::Write as _;

use serde::Deserialize;

/// Different keys that are asked for.
const KEYS: usize = 1_000;

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Go on.
    Allowed,
    /// Not now.
    Refused,
    /// An error, or what cannot be understood.
    Failed,
}

/// A protocol, with what is asked.
pub trait Codec {
    /// The request for a key.
    fn request(&self, key: &str) -> Vec<u8>;

    /// The first whole reply: its length, and what it says. None while it is not all there.
    fn reply(&self, bytes: &[u8]) -> Option<(usize, Outcome)>;

    /// A request for each key, so that none is spelled while time runs.
    fn requests(&self) -> Vec<Vec<u8>> {
        keys().map(|key| self.request(&key)).collect()
    }
}

/// All keys: `key:000` and so on.
pub fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!("key:{number:03}"))
}

/// 32 bytes there and back, for a server that only echoes.
pub struct Echo;

impl Codec for Echo {
    fn request(&self, key: &str) -> Vec<u8> {
        format!("{key:32}").into_bytes()
    }

    fn reply(&self, bytes: &[u8]) -> Option<(usize, Outcome)> {
        (bytes.len() >= 32).then_some((32, Outcome::Allowed))
    }
}

/// The Redis protocol (RESP2).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Words with blanks between them; `{key}` is the key.
    command: String,
    /// The first integer of the reply that means allowed. Any reply but an error, unless said.
    allowed: Option<i64>,
}

impl Codec for Command {
    fn request(&self, key: &str) -> Vec<u8> {
        let words: Vec<String> = self.command.split(' ').map(|word| word.replace("{key}", key)).collect();
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(request, "${}\r\n{word}\r\n", word.len());
        }
        request.into_bytes()
    }

    fn reply(&self, bytes: &[u8]) -> Option<(usize, Outcome)> {
        let mut value = Value::default();
        let length = value.read(bytes)?;
        let allowed = self.allowed.is_none() || value.integer == self.allowed;
        let outcome = match (value.failed, allowed) {
            (true, _) => Outcome::Failed,
            (false, true) => Outcome::Allowed,
            (false, false) => Outcome::Refused,
        };
        Some((length, outcome))
    }
}

/// What is of interest in a RESP value.
#[derive(Default)]
struct Value {
    /// The first one there is.
    integer: Option<i64>,
    failed: bool,
}

impl Value {
    /// Reads one value: its length, or none while it is not all there.
    fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let end = line(bytes)?;
        let number = || std::str::from_utf8(&bytes[1..end - 2]).ok()?.parse::<i64>().ok();
        match bytes[0] {
            b'+' => {}
            b':' => self.integer = self.integer.or_else(number),
            b'$' => {
                // Null has a negative length, and nothing behind it.
                let whole = match number().and_then(|length| usize::try_from(length).ok()) {
                    Some(length) => end + length + 2,
                    None => end,
                };
                return (bytes.len() >= whole).then_some(whole);
            }
            b'*' => {
                let mut length = end;
                for _ in 0..number().unwrap_or(0) {
                    length += self.read(&bytes[length..])?;
                }
                return Some(length);
            }
            _ => self.failed = true,
        }
        Some(end)
    }
}

/// HTTP/1.1, connections kept. Answers without `Content-Length` have no body.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Where to POST.
    path: String,
    /// What; `{key}` is the key.
    body: String,
    /// What the body of a 200 holds if it means allowed. Any 200, unless said.
    allowed: Option<String>,
}

impl Codec for Call {
    fn request(&self, key: &str) -> Vec<u8> {
        let body = self.body.replace("{key}", key);
        format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.path,
            body.len()
        )
        .into_bytes()
    }

    fn reply(&self, bytes: &[u8]) -> Option<(usize, Outcome)> {
        let first = line(bytes)?;
        let (mut at, mut body) = (first, 0);
        loop {
            let next = at + line(&bytes[at..])?;
            let header = &bytes[at..next - 2];
            at = next;
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) =
                std::str::from_utf8(header).ok().and_then(|text| text.split_once(':'))
                && name.eq_ignore_ascii_case("content-length")
            {
                body = value.trim().parse().unwrap_or(0);
            }
        }
        let body = bytes.get(at..at + body)?;
        let outcome = match (bytes.get(9..12), &self.allowed) {
            (Some(b"200"), None) => Outcome::Allowed,
            (Some(b"200"), Some(text)) if contains(body, text.as_bytes()) => Outcome::Allowed,
            (Some(b"200" | b"429"), _) => Outcome::Refused,
            _ => Outcome::Failed,
        };
        Some((at + body.len(), outcome))
    }
}

/// Where the line that begins there ends, CR LF included.
fn line(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|window| window == b"\r\n").map(|at| at + 2)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every prefix is not all there; with something behind it, the length is that of the first reply.
    fn reads(codec: &impl Codec, reply: &[u8], outcome: Outcome) {
        for end in 0..reply.len() {
            assert_eq!(codec.reply(&reply[..end]), None, "{end} bytes");
        }
        let two = [reply, reply].concat();
        assert_eq!(codec.reply(&two), Some((reply.len(), outcome)));
    }

    #[test]
    fn resp() {
        let throttle = Command { command: "CL.THROTTLE {key} 1".into(), allowed: Some(0) };
        assert_eq!(throttle.request("k"), b"*3\r\n$11\r\nCL.THROTTLE\r\n$1\r\nk\r\n$1\r\n1\r\n");
        reads(&throttle, b"*3\r\n:0\r\n:16\r\n:-1\r\n", Outcome::Allowed);
        reads(&throttle, b"*3\r\n:1\r\n:16\r\n:-1\r\n", Outcome::Refused);
        reads(&throttle, b"-ERR no\r\n", Outcome::Failed);
        let ping = Command { command: "PING".into(), allowed: None };
        reads(&ping, b"+PONG\r\n", Outcome::Allowed);
        reads(&ping, b"*2\r\n$3\r\na\r\n\r\n$-1\r\n", Outcome::Allowed);
    }

    #[test]
    fn http() {
        let call = Call { path: "/t".into(), body: "{}".into(), allowed: Some("true".into()) };
        reads(&call, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue", Outcome::Allowed);
        reads(&call, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse", Outcome::Refused);
        reads(&call, b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", Outcome::Refused);
        reads(&call, b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", Outcome::Failed);
    }
}
