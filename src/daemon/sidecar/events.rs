//! `GET /v1/events`: Server-Sent Events (WHATWG HTML, section 9.2), one stream for each reader.
//!
//! One task looks at the core a few times a second, as long as somebody reads, and tells what is different: nothing in the
//! core or on the path of a request knows of events. What comes and goes between two looks is not told. Each reader has
//! room for some events; one that is slower misses the newest, and is told how many when it has room again. Numbers of
//! events (`id:`) count up without gaps but for what was missed; a stream cannot be resumed.

mod changes;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::changes::Changes;
use super::patience::Answering;
use crate::api::{Event, LaggedEvent, Status};
use crate::daemon::engine::Engine;
use crate::daemon::tally::Tally;

/// The most readers at a time.
pub const READERS_MAX: usize = 64;
/// The most events that wait for one reader.
const BUFFER: usize = 64;
/// How often the core is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often what was answered is told.
const SUMMARY_EVERY: Duration = Duration::from_secs(1);
/// A stream on which nothing happens says so this often, so that both ends see whether the other is there.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Who reads, and what they are told.
#[derive(Default)]
pub struct Events {
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    readers: Vec<Reader>,
    /// The number of the last event.
    last: u64,
    /// Whether a task looks at the core.
    watched: bool,
}

struct Reader {
    sender: mpsc::Sender<Bytes>,
    missed: u64,
}

/// The body of an answer: events as long as somebody reads.
pub struct EventStream {
    events: mpsc::Receiver<Bytes>,
    /// The answer goes on while this is there.
    answering: Option<Answering>,
}

impl Events {
    /// A reader's stream, which begins with how things stand. None if there are as many readers as may be.
    pub fn subscribe(
        self: &Arc<Self>,
        status: Status,
        engine: &Engine,
        tally: &Arc<Tally>,
    ) -> Option<EventStream> {
        let (stream, first) = self.told().add(status)?;
        if first {
            // From now on, not from when the task first runs.
            let changes = Changes::new(engine, tally);
            tokio::spawn(watch(self.clone(), engine.clone(), tally.clone(), changes));
        }
        Some(stream)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// A new reader, and whether nobody looks at the core for it yet.
    fn add(&mut self, status: Status) -> Option<(EventStream, bool)> {
        self.readers.retain(|reader| !reader.sender.is_closed());
        if self.readers.len() >= READERS_MAX {
            return None;
        }
        let (sender, events) = mpsc::channel(BUFFER);
        let mut reader = Reader { sender, missed: 0 };
        // Not an event of its own: what follows is what came after the last that others were told.
        reader.tell(&text(self.last, &Event::Status(Box::new(status))), self.last);
        self.readers.push(reader);
        Some((EventStream { events, answering: None }, !std::mem::replace(&mut self.watched, true)))
    }

    fn tell(&mut self, event: &Event) {
        self.last += 1;
        let bytes = text(self.last, event);
        let last = self.last;
        self.readers.retain_mut(|reader| reader.tell(&bytes, last));
    }

    /// Whether anybody reads; if not, nobody looks any more.
    fn is_read(&mut self) -> bool {
        self.readers.retain(|reader| !reader.sender.is_closed());
        self.watched = !self.readers.is_empty();
        self.watched
    }
}

impl Reader {
    /// Whether the reader is still there.
    fn tell(&mut self, event: &Bytes, id: u64) -> bool {
        if self.missed > 0 {
            let lagged = Event::Lagged(LaggedEvent { missed: self.missed });
            match self.sender.try_send(text(id - 1, &lagged)) {
                Ok(()) => self.missed = 0,
                Err(TrySendError::Full(_)) => {
                    self.missed += 1;
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        match self.sender.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.missed += 1;
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

/// Tells of changes until nobody reads.
async fn watch(events: Arc<Events>, engine: Engine, tally: Arc<Tally>, mut changes: Changes) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut summed, mut alive) = (Instant::now(), Instant::now());
    loop {
        look.tick().await;
        let mut told = events.told();
        if !told.is_read() {
            return;
        }
        changes.since_last_look(&engine).iter().for_each(|event| told.tell(event));
        if summed.elapsed() >= SUMMARY_EVERY {
            let summary = changes.summary(&engine, &tally, summed.elapsed());
            summed = Instant::now();
            summary.iter().for_each(|event| told.tell(event));
        }
        if alive.elapsed() >= ALIVE_EVERY {
            alive = Instant::now();
            // Who has no room has enough to read.
            told.readers.iter().for_each(|reader| {
                let _ = reader.sender.try_send(Bytes::from_static(b": still here\n\n"));
            });
        }
    }
}

/// An event as the stream has it. JSON holds no line breaks.
fn text(id: u64, event: &Event) -> Bytes {
    let data = serde_json::to_string(event).unwrap_or_else(|error| format!("\"BUG! {error}\""));
    format!("event: {}\nid: {id}\ndata: {data}\n\n", event.name()).into()
}

impl EventStream {
    /// The request is being answered for as long as the stream is read.
    pub fn answers(&mut self, answering: Answering) {
        self.answering = Some(answering);
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NodeEvent;

    fn reader(room: usize) -> (Told, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(room);
        (Told { readers: vec![Reader { sender, missed: 0 }], last: 0, watched: true }, receiver)
    }

    fn node(state: &str) -> Event {
        Event::Node(NodeEvent { state: state.to_owned() })
    }

    fn read(receiver: &mut mpsc::Receiver<Bytes>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed() {
        let (mut told, mut receiver) = reader(2);
        (0..5).for_each(|_| told.tell(&node("ready")));
        let first = read(&mut receiver);
        assert_eq!(first.len(), 2);
        assert_eq!(first[1], "event: node\nid: 2\ndata: {\"state\":\"ready\"}\n\n");
        told.tell(&node("leaving"));
        let next = read(&mut receiver);
        assert_eq!(next[0], "event: lagged\nid: 5\ndata: {\"missed\":3}\n\n");
        assert_eq!(next[1], "event: node\nid: 6\ndata: {\"state\":\"leaving\"}\n\n");
        told.tell(&node("leaving"));
        assert_eq!(read(&mut receiver).len(), 1, "nothing was missed since");
    }

    #[test]
    fn who_is_gone_is_not_told() {
        let (mut told, receiver) = reader(2);
        assert!(told.is_read());
        drop(receiver);
        told.tell(&node("ready"));
        assert!(told.readers.is_empty() && !told.is_read() && !told.watched);
    }
}
