//! HTTP/1.1 as nearly every program writes it, answered without a library in between.
//!
//! Hyper does all that HTTP is, and for that needs more time than the rest of a decision: a map of headers, a stream of
//! body parts, a channel between the two. A request is *plain* if it is a `GET` or `POST` with a path of ordinary characters,
//! its body, if it has one, has a length and is there with its head in the same few kilobytes, and no header changes how the
//! connection goes on. Plain requests are answered here, one after the other, with one write for all that came together.
//! The first that is not plain is not looked at any further: it, and all that follows on its connection, is hyper's.
//! So nothing is refused here, and whatever is malformed is refused by one parser; which requests are plain is a matter of
//! speed alone. What is asked and answered is the same: both call `Sidecar::answer`.

use std::fmt::Write;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httparse::{EMPTY_HEADER, Status};
use hyper::Method;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::connection::Caller;
use super::patience::{Conversation, Patient};
use super::response::{Answer, problem_answer};
use super::route::EVENTS;
use super::{Asked, BODY_TIMEOUT, Content, Sidecar, too_slow};
use crate::daemon::digits::digits;

/// The longest plain request, with its body.
const REQUEST_MAX: usize = 16 * 1024;
/// So much is read at once.
const READ_MAX: usize = 4 * 1024;
/// With so many bytes of answers unsent, no more requests are looked at.
const ANSWERS_MAX: usize = 16 * 1024;
/// The end of the year 9999: a date has four digits of years, whatever the clock says.
const LAST_SECOND: u64 = 253_402_300_799;
/// The most headers of a plain request.
const HEADERS_MAX: usize = 32;

/// Answers plain requests. Gives back what came that is not answered, for hyper; none if the connection is over.
///
/// # Errors
/// The caller is gone, or patience with it is.
pub async fn serve<S>(
    sidecar: &Sidecar,
    stream: &mut Patient<S>,
    conversation: &Rc<Conversation>,
    caller: &Caller,
) -> io::Result<Option<Vec<u8>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut input, mut answers, mut date) = (Vec::new(), Vec::new(), Date::default());
    let mut at = 0;
    loop {
        match plain(&input[at..]) {
            Found::Plain(request) => {
                let answering = conversation.answering().await;
                let asked = Asked {
                    method: &request.method,
                    path: request.path,
                    accept: request.accept,
                    content: Content::Here(request.body),
                };
                let mut ahead = Vec::new();
                let room = REQUEST_MAX.saturating_sub(input.len() - at);
                let answer = {
                    // Whoever hangs up takes nothing: the future ends here.
                    let answer = pin!(sidecar.answer(asked, caller));
                    answered(answer, stream, &mut ahead, room, &mut answers).await?
                };
                let Some(answer) = answer else { return Ok(None) };
                at += request.length;
                write(answer, &mut date, &mut answers);
                input.extend_from_slice(&ahead);
                if at >= REQUEST_MAX {
                    input.drain(..at);
                    at = 0;
                }
                drop(answering);
                if answers.len() >= ANSWERS_MAX {
                    flush(stream, &mut answers).await?;
                }
                tokio::task::coop::consume_budget().await;
            }
            Found::Part => {
                flush(stream, &mut answers).await?;
                input.drain(..at);
                at = 0;
                if !input.is_empty() {
                    conversation.heard();
                }
                if read(stream, &mut input).await? == 0 {
                    // What is cut off in the middle is nothing.
                    return Ok(None);
                }
            }
            Found::Head(length) => {
                flush(stream, &mut answers).await?;
                let _answering = conversation.answering().await;
                let until = Instant::now() + BODY_TIMEOUT;
                while input.len() < at + length {
                    let Ok(read) = timeout_at(until, read(stream, &mut input)).await else {
                        write(problem_answer(&too_slow()), &mut date, &mut answers);
                        flush(stream, &mut answers).await?;
                        return Ok(None);
                    };
                    if read? == 0 {
                        return Ok(None);
                    }
                }
            }
            Found::Other => {
                flush(stream, &mut answers).await?;
                input.drain(..at);
                return Ok(Some(input));
            }
        }
    }
}

/// What the bytes that came begin with.
enum Found<'a> {
    Plain(Plain<'a>),
    /// Perhaps a plain request, of which not even the head is whole.
    Part,
    /// A plain request of so many bytes, whose body is not whole.
    Head(usize),
    Other,
}

struct Plain<'a> {
    method: Method,
    path: &'a str,
    accept: &'a str,
    body: &'a [u8],
    /// How many bytes it takes.
    length: usize,
}

fn plain(input: &[u8]) -> Found<'_> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(input) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) if input.len() < REQUEST_MAX => return Found::Part,
        Ok(Status::Partial) | Err(_) => return Found::Other,
    };
    let method = match request.method {
        Some("GET") => Method::GET,
        Some("POST") => Method::POST,
        _ => return Found::Other,
    };
    let path = request.path.unwrap_or_default();
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.%~".contains(&byte);
    if request.version != Some(1) || !path.starts_with('/') || !path.bytes().all(ordinary) {
        return Found::Other;
    }
    let (mut length, mut accept) = (None, "");
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            if length.is_some() {
                return Found::Other;
            }
            length = digits(header.value).and_then(|length| usize::try_from(length).ok());
            if length.is_none_or(|length| length > REQUEST_MAX - head.min(REQUEST_MAX)) {
                return Found::Other;
            }
        } else if is("accept") {
            accept = std::str::from_utf8(header.value).unwrap_or_default();
        } else if is("connection") {
            if !header.value.eq_ignore_ascii_case(b"keep-alive") {
                return Found::Other;
            }
        } else if ["transfer-encoding", "expect", "upgrade"].into_iter().any(is) {
            return Found::Other;
        }
    }
    // A stream of events has no end.
    if path == EVENTS {
        return Found::Other;
    }
    let length = head + length.unwrap_or(0);
    match input.get(head..length) {
        Some(body) => Found::Plain(Plain { method, path, accept, body, length }),
        None => Found::Head(length),
    }
}

/// The answer, while it is watched whether the caller hangs up: none then. What else comes meanwhile is put `ahead`, about
/// `room` bytes of it. An answer that takes time does not hold up those before it.
async fn answered<S>(
    mut answer: Pin<&mut impl Future<Output = Answer>>,
    stream: &mut Patient<S>,
    ahead: &mut Vec<u8>,
    room: usize,
    answers: &mut Vec<u8>,
) -> io::Result<Option<Answer>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
        return Ok(Some(answer));
    }
    flush(stream, answers).await?;
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(Some(answer)));
        }
        while ahead.len() < room {
            match poll_read(stream, ahead, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    })
    .await
}

async fn read<S: AsyncRead + Unpin>(stream: &mut Patient<S>, input: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| poll_read(stream, input, cx)).await
}

fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut Patient<S>,
    input: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut bytes = [std::mem::MaybeUninit::uninit(); READ_MAX];
    let mut buffer = ReadBuf::uninit(&mut bytes);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    input.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

async fn flush<S: AsyncWrite + Unpin>(stream: &mut S, answers: &mut Vec<u8>) -> io::Result<()> {
    if !answers.is_empty() {
        stream.write_all(answers).await?;
        answers.clear();
    }
    Ok(())
}

/// Writes an answer as hyper would.
fn write(answer: Answer, date: &mut Date, out: &mut Vec<u8>) {
    let (head, body) = answer.into_parts();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in &head.headers {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    let body = body.whole();
    // Of no content there is no length (RFC 9110, section 8.6).
    if head.status != hyper::StatusCode::NO_CONTENT {
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\ndate: ");
    out.extend_from_slice(date.now().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(&body);
}

/// The date of answers (RFC 9110, section 5.6.7), written once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            let date = UNIX_EPOCH + Duration::from_secs(second.min(LAST_SECOND));
            let _ = write!(self.text, "{}", httpdate::HttpDate::from(date));
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(&str, &str, &str, usize)> {
        match plain(text.as_bytes()) {
            Found::Plain(Plain { path, accept, body, length, .. }) => {
                Some((path, accept, std::str::from_utf8(body).unwrap(), length))
            }
            Found::Part | Found::Head(_) => None,
            Found::Other => Some(("other", "", "", 0)),
        }
    }

    #[test]
    fn what_programs_write_is_plain() {
        let text = "POST /v1/acquire HTTP/1.1\r\nhost: a\r\nAccept: */*\r\nConnection: Keep-Alive\r\ncontent-length: 2\r\n\r\n{}GET";
        let whole = text.len() - 3;
        assert_eq!(found(text), Some(("/v1/acquire", "*/*", "{}", whole)));
        for cut in 0..whole {
            assert_eq!(found(&text[..cut]), None, "{cut}");
        }
        let text = "GET /v1/explain/a%2Fb HTTP/1.1\r\n\r\n";
        assert_eq!(found(text), Some(("/v1/explain/a%2Fb", "", "", text.len())));
    }

    #[test]
    fn whatever_else_there_is_is_not() {
        let long = "x".repeat(REQUEST_MAX);
        for (line, headers) in [
            ("GET /livez HTTP/1.0", ""),
            ("HEAD /livez HTTP/1.1", ""),
            ("GET /livez?a HTTP/1.1", ""),
            ("GET http://a/livez HTTP/1.1", ""),
            ("GET /v1/events HTTP/1.1", ""),
            ("GET /livez", ""),
            ("GET /livez HTTP/1.1", "connection: close\r\n"),
            ("GET /livez HTTP/1.1", "connection: keep-alive, upgrade\r\n"),
            ("GET /livez HTTP/1.1", "content-length : 2\r\n"),
            ("POST /allow HTTP/1.1", "content-length: +2\r\n"),
            ("POST /allow HTTP/1.1", "content-length: 2\r\ncontent-length: 2\r\n"),
            ("POST /allow HTTP/1.1", "content-length: 20000\r\n"),
            ("POST /allow HTTP/1.1", "content-length: 2\r\ntransfer-encoding: chunked\r\n"),
            ("POST /allow HTTP/1.1", "expect: 100-continue\r\ncontent-length: 2\r\n"),
            ("GET /livez HTTP/1.1", &format!("a: {long}")),
            ("GET /livez HTTP/1.1", &"a: b\r\n".repeat(HEADERS_MAX + 1)),
        ] {
            let text = format!("{line}\r\n{headers}\r\n{{}}");
            assert_eq!(found(&text).map(|found| found.0), Some("other"), "{line} {headers:.40}");
        }
    }
}
