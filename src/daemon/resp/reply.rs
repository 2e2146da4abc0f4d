//! Replies to bytes, in RESP2 or RESP3.

/// Replies that are not sent yet.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
    /// RESP3, which the client asked for.
    pub version3: bool,
}

impl Replies {
    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets them, for a client that speaks RESP3 or does not.
    pub fn begin(&mut self, version3: bool) {
        self.bytes.clear();
        self.version3 = version3;
    }

    /// `+OK`, or another word.
    pub fn word(&mut self, word: &str) {
        self.line(b'+', word);
    }

    /// An error: its kind in capital letters, and what is wrong.
    pub fn error(&mut self, text: &str) {
        // Whatever a caller sent and is quoted must not end the line.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line(b'-', &text);
    }

    /// A number.
    pub fn integer(&mut self, number: i64) {
        self.number(b':', number);
    }

    /// A text of any bytes.
    pub fn bulk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.number(b'$', bytes.len() as i64);
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Nothing.
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(if self.version3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// So many replies follow as one.
    pub fn array(&mut self, count: usize) {
        self.number(b'*', count as i64);
    }

    /// So many pairs follow; in RESP2 they are an array.
    pub fn map(&mut self, pairs: usize) {
        let (kind, count) = if self.version3 { (b'%', pairs) } else { (b'*', 2 * pairs) };
        self.number(kind, count as i64);
    }

    fn number(&mut self, kind: u8, number: i64) {
        match number {
            // Most, and four bytes are one store.
            0..=9 => self.bytes.extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']),
            // There is no time to come back after.
            -1 => self.bytes.extend_from_slice(&[kind, b'-', b'1', b'\r', b'\n']),
            _ => self.line(kind, itoa::Buffer::new().format(number)),
        }
    }

    fn line(&mut self, kind: u8, text: &str) {
        self.bytes.reserve(text.len() + 3);
        self.bytes.push(kind);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_as_the_protocol_says() {
        let all = |version3| {
            let mut replies = Replies { version3, ..Replies::default() };
            replies.word("OK");
            replies.error("ERR no\r\nsuch");
            replies.integer(-1);
            replies.integer(9);
            replies.integer(10);
            replies.bulk("ab");
            replies.null();
            replies.array(1);
            replies.map(2);
            String::from_utf8(replies.bytes).unwrap()
        };
        assert_eq!(all(false), "+OK\r\n-ERR no  such\r\n:-1\r\n:9\r\n:10\r\n$2\r\nab\r\n$-1\r\n*1\r\n*4\r\n");
        assert_eq!(all(true), "+OK\r\n-ERR no  such\r\n:-1\r\n:9\r\n:10\r\n$2\r\nab\r\n_\r\n*1\r\n%2\r\n");
    }
}
