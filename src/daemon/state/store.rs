//! A thread that writes, so that nothing else waits for the disk.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::Notify;

use super::disk::Disk;
use super::{Stamp, StateFile};
use crate::protocol::id::Incarnation;
use crate::protocol::node::Saved;
use crate::wire::encode_saved;

/// How often saving is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where to leave what is to be saved. What was left last is all that is written: it holds all that came before.
///
/// Dropping it waits until that was tried.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    /// There is something to write.
    left: Condvar,
    /// Something was tried.
    tried: Condvar,
    news: Notify,
}

#[derive(Debug)]
struct Desk {
    /// What was left last, if it was not taken up yet, and its serial.
    next: Option<(u64, Option<Box<Saved>>)>,
    last: u64,
    saved: u64,
    tries: u64,
    error: Option<String>,
    closes: bool,
}

impl Store {
    /// Starts the thread. `stamp` is that of the record that was loaded, except that the life is the present one.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start<D: Disk>(file: StateFile<D>, stamp: Stamp) -> io::Result<Self> {
        let Stamp { incarnation, serial } = stamp;
        let desk = Desk { next: None, last: serial, saved: serial, tries: 0, error: None, closes: false };
        let shared = Arc::new(Shared {
            desk: Mutex::new(desk),
            left: Condvar::new(),
            tried: Condvar::new(),
            news: Notify::new(),
        });
        let work = shared.clone();
        let writer = thread::Builder::new().name("state".to_owned());
        let writer = writer.spawn(move || work.write(&file, incarnation))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Leaves what is to be saved, or that there is no ledger yet. Gives back its serial.
    pub fn save(&self, saved: Option<Box<Saved>>) -> u64 {
        let mut desk = self.shared.desk();
        desk.last += 1;
        desk.next = Some((desk.last, saved));
        self.shared.left.notify_one();
        desk.last
    }

    /// Up to which serial everything is on disk.
    pub fn saved(&self) -> u64 {
        self.shared.desk().saved
    }

    /// Why what was tried last is not on disk, if it is not.
    pub fn error(&self) -> Option<String> {
        self.shared.desk().error.clone()
    }

    /// Waits until something was tried. Cancel-safe.
    pub async fn tried(&self) {
        self.shared.news.notified().await;
    }

    /// Blocks until all that was left so far is on disk.
    ///
    /// # Errors
    /// Why it is not, after one try.
    pub fn flush(&self) -> Result<(), String> {
        let mut desk = self.shared.desk();
        let (last, tries) = (desk.last, desk.tries);
        // A try that had begun may have been for what was left before.
        while desk.saved < last && (desk.error.is_none() || desk.tries < tries + 2) {
            desk = self.shared.tried.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
        if desk.saved >= last { Ok(()) } else { Err(desk.error.clone().unwrap_or_default()) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.desk().closes = true;
        self.shared.left.notify_one();
        if let Some(Err(panic)) = self.writer.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<D: Disk>(&self, file: &StateFile<D>, incarnation: Incarnation) {
        let mut desk = self.desk();
        loop {
            let Some((serial, saved)) = desk.next.take() else {
                if desk.closes {
                    return;
                }
                desk = self.left.wait(desk).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(desk);
            let body = saved.as_ref().map_or(Ok(Vec::new()), |saved| encode_saved(saved));
            let written = body
                .map_err(io::Error::other)
                .and_then(|body| file.save(Stamp { incarnation, serial }, &body));
            desk = self.desk();
            desk.tries += 1;
            match written {
                Ok(()) => {
                    desk.saved = serial;
                    desk.error = None;
                }
                Err(error) => {
                    desk.error = Some(error.to_string());
                    // Unless there is something newer. After an error it is written anew as a whole.
                    desk.next.get_or_insert((serial, saved));
                }
            }
            self.tried.notify_all();
            self.news.notify_one();
            if desk.error.is_some() {
                if desk.closes {
                    return;
                }
                // Not sooner for what comes meanwhile: a broken disk is not asked all the time.
                let until_closed = |desk: &mut Desk| !desk.closes;
                let waited = self.left.wait_timeout_while(desk, AGAIN, until_closed);
                desk = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}
