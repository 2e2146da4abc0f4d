//! HTTP/1.1 as bytes, no further than the daemon speaks it: answers with a length, never chunked.

/// The largest answer that is read: 8 MiB.
pub const ANSWER_MAX: usize = 8 << 20;
/// The largest head of an answer.
const HEAD_MAX: usize = 64 << 10;
/// The most headers of an answer.
const HEADERS_MAX: usize = 64;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// Whether the connection may carry another request.
    pub reusable: bool,
}

/// The bytes of an answer that have come so far.
#[derive(Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    head: Option<Head>,
}

#[derive(Clone, Copy)]
struct Head {
    status: u16,
    bytes: usize,
    length: usize,
    reusable: bool,
}

/// A request in one piece.
pub(super) fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let kind = "content-type: application/json";
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: aquifer\r\n{kind}\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// `text` as a part of a path: all but what never needs it is percent-encoded (RFC 3986, section 2.3), and slashes.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(byte);
    let encode = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

impl Incoming {
    /// Whether anything has come.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// More bytes; the answer once it is whole.
    ///
    /// # Errors
    /// Why it is none of a daemon's, as the end of a sentence.
    pub fn add(&mut self, bytes: &[u8]) -> Result<Option<Answer>, String> {
        self.bytes.extend_from_slice(bytes);
        let head = match self.head {
            Some(head) => head,
            None => match parse(&self.bytes)? {
                Some(head) => *self.head.insert(head),
                None if self.bytes.len() > HEAD_MAX => {
                    return Err("answered with a head without an end".into());
                }
                None => return Ok(None),
            },
        };
        let end = head.bytes + head.length;
        if self.bytes.len() < end {
            return Ok(None);
        }
        // What nobody asked for belongs to no request: such a connection is not used again.
        let reusable = head.reusable && self.bytes.len() == end;
        Ok(Some(Answer { status: head.status, body: self.bytes[head.bytes..end].to_vec(), reusable }))
    }
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|error| format!("answered what is no HTTP: {error}"))?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    let status = response.code.unwrap_or_default();
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let length = match header("content-length") {
        Some(length) => length.parse().map_err(|_| format!("answered with a length of {length:?}"))?,
        None if status == 204 => 0,
        None => return Err("answered without saying how long the answer is".to_owned()),
    };
    if length > ANSWER_MAX {
        return Err(format!("answered with {length} bytes, more than {ANSWER_MAX}"));
    }
    let closes = header("connection").is_some_and(|said| said.eq_ignore_ascii_case("close"));
    Ok(Some(Head { status, bytes: head, length, reusable: response.version == Some(1) && !closes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_may_come_in_any_pieces() {
        let whole = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\nRetry-After: 3\r\n\r\n{}";
        let expected = Answer { status: 429, body: b"{}".to_vec(), reusable: true };
        for cut in 1..whole.len() {
            let mut incoming = Incoming::default();
            assert_eq!(incoming.add(&whole[..cut]), Ok(None));
            assert_eq!(incoming.add(&whole[cut..]).unwrap().as_ref(), Some(&expected));
        }
        let reusable = |bytes: &[u8]| Incoming::default().add(bytes).unwrap().unwrap().reusable;
        assert!(reusable(b"HTTP/1.1 204 No Content\r\n\r\n"));
        assert!(!reusable(&[whole.as_slice(), b"HTTP/1.1"].concat()));
        assert!(!reusable(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
    }

    #[test]
    fn what_is_not_the_daemons_is_refused() {
        for bytes in [
            b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\ncontent-length: 8388609\r\n\r\n".to_vec(),
            [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &vec![b'y'; HEAD_MAX]].concat(),
        ] {
            assert!(Incoming::default().add(&bytes).is_err(), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn names_are_encoded_in_paths() {
        assert_eq!(encoded("a/b é?"), "a/b%20%C3%A9%3F");
    }
}
