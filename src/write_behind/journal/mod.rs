//! The journal: what a tier has accepted and not yet applied, on the local disk, so that a crash does not lose it.
//!
//! One record per key, the newest; it is forgotten when it has been applied. A single writer gathers what callers put
//! meanwhile and writes it as one batch (group commit), so that many acknowledged writes share one sync.
//!
//! **What a crash loses.** [`Always`](JournalSync::Always): nothing that was acknowledged. [`Interval`]
//! (JournalSync::Interval): what was acknowledged in the last interval and the sync after it, and that only when the
//! machine dies: what a killed process had written, the system keeps. What survives is a beginning of what was put:
//! never a later change of a key without the earlier ones.
//!
//! **Damage** never keeps a journal from opening. What fjall cannot read is moved aside and searched for sound
//! records; a [`JournalReport`] says what was found. **A full disk** does not lose what is pending either: it stays in
//! memory, new changes wait (or are refused, see [`WhenFull`]), and the store is opened anew, with growing pauses,
//! until it can be written again.
//!
//! **What it takes.** On disk up to three times the bytes that are pending, and fjall's log: up to about 128 MiB. In
//! memory, beside what the queue holds anyway, up to 24 MiB of write buffers, and while it opens as much as its log.

mod medium;
mod record;
mod recovery;
#[cfg(feature = "testing")]
mod simulated;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::FutureExt as _;

pub(crate) use record::Record;
pub use recovery::JournalReport;
pub(crate) use recovery::Recovery;

#[cfg(feature = "testing")]
pub use simulated::SimulatedLog;

use medium::Medium;
use state::{Shared, State};

use crate::backend::Scope;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::runtime::{RuntimeHandle, TaskError, TaskHandle};
use crate::tier::message::Change;
use crate::value::{Payload, Stamp};

/// When a journal is synced to its medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalSync {
    /// Before a change is acknowledged; changes that arrive during a sync share the next. Costs each `set` a sync or
    /// two, milliseconds on most disks.
    Always,
    /// This long after a change was acknowledged, at the latest. The process dying loses nothing that had reached the
    /// operating system (microseconds after the acknowledgement, usually); the machine dying loses what was
    /// acknowledged in the last interval and during the sync after it.
    Interval(Duration),
}

/// Where a journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Directory(PathBuf),
    #[cfg(feature = "testing")]
    Simulated(SimulatedLog),
}

/// What becomes of a change that the journal cannot take at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// It waits until it has been written, for as long as its caller does.
    Wait,
    /// It is refused as soon as writing has failed.
    Refuse,
}

/// How a journal is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct JournalStatus {
    /// Records that are pending.
    pub records: usize,
    /// What they take, in bytes.
    pub bytes: u64,
    /// What the journal's files take, in bytes, as of the last sync or second.
    pub disk_bytes: u64,
    /// How long ago the oldest change that is not yet synced was put, in ms; 0 if all are.
    pub lag_ms: u64,
    /// Changes put since it was opened.
    pub writes: u64,
    /// Syncs since it was opened.
    pub syncs: u64,
    /// Why it cannot be written at the moment, if it cannot.
    pub failing: Option<String>,
    /// How often it could not be written and was opened anew.
    pub reopened: u64,
}

/// An open journal. Dropped without [`close`](Self::close), it writes what it has in the background and closes.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    writer: Mutex<Option<TaskHandle<Result<()>>>>,
}

impl Journal {
    /// Opens or creates the journal in `place`, which no other journal, of this process or another, may use.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the directory is in use, or cannot be created, read or written. Damage is no error.
    pub(crate) async fn open(
        place: &Place,
        sync: JournalSync,
        runtime: &RuntimeHandle,
    ) -> Result<(Self, Recovery)> {
        let place = place.clone();
        let opened = runtime.spawn_blocking(move || Medium::open(&place)).await;
        let (store, found) = opened.map_err(|error| aborted(&error)).flatten()?;
        let mut state = State::new(found.next, found.settled);
        let mut report = found.report;
        let now = runtime.wall();
        for (number, mut record) in found.records {
            if record.is_expired(now) {
                // What it replaced may have a longer life, and be in the store still.
                record.change = Change::Remove;
                report.expired += 1;
            }
            state.adopt(number, record, found.rewrite);
        }
        let records = state.records();
        let shared = Arc::new(Shared::new(state, sync, runtime.clone(), store, report.clone()));
        let writer = runtime.spawn(writer::run(Arc::clone(&shared)));
        Ok((Self { shared, writer: Mutex::new(Some(writer)) }, Recovery { records, report }))
    }

    /// Puts a change down. `None`: it may be acknowledged. Otherwise when the answer comes; whoever does not wait for
    /// it, or gets an error, says [`settled`](Self::settled), or it will be replayed.
    pub(crate) fn put(&self, record: &Record, full: WhenFull) -> Option<Written> {
        if record.key.as_str().len() > usize::from(u16::MAX) {
            let message =
                format!("a key of {} bytes: the journal takes {}", record.key.as_str().len(), u16::MAX);
            return Some(Written::refused(Error::new(ErrorKind::TooLarge, message).for_key(&record.key)));
        }
        if matches!(&record.change, Change::Set(entry) if matches!(entry.payload, Payload::Object(..))) {
            let message = "the journal keeps bytes, not objects";
            return Some(Written::refused(Error::new(ErrorKind::Unsupported, message).for_key(&record.key)));
        }
        self.shared.put(record, full).map(Written::from)
    }

    /// The change of `key` up to `stamp` is applied, superseded or dead: it is forgotten, lazily. After a crash it may be
    /// pending once more.
    pub(crate) fn settled(&self, key: &CacheKey, stamp: Stamp) {
        self.shared.settled(key, stamp);
    }

    /// Where it has the change of `key` up to `stamp`, for [`settled_at`](Self::settled_at).
    pub(crate) fn number(&self, key: &CacheKey, stamp: Stamp) -> Option<u64> {
        self.shared.number(key, stamp)
    }

    /// As [`settled`](Self::settled), unless the change was put down anew meanwhile.
    pub(crate) fn settled_at(&self, key: &CacheKey, number: u64) {
        self.shared.settled_at(key, number);
    }

    /// As [`settled`](Self::settled), and gone from the medium when this resolves: for a change that was overtaken by
    /// one that the journal does not hold, which a replay would undo.
    pub(crate) fn settled_durably(&self, key: &CacheKey, stamp: Stamp) -> Written {
        self.shared.settled(key, stamp);
        Written::from(self.shared.sync())
    }

    /// Everything in `scope` up to `stamp` is cleared, whether it was put before this or comes after. Gone from the
    /// medium when this resolves.
    pub(crate) fn forget(&self, scope: &Scope, stamp: Stamp) -> Written {
        self.shared.forget(scope, stamp);
        Written::from(self.shared.sync())
    }

    /// Resolves when everything put and settled before this is on the medium.
    pub(crate) fn sync(&self) -> Written {
        Written::from(self.shared.sync())
    }

    /// How it is doing.
    pub(crate) fn status(&self) -> JournalStatus {
        self.shared.status()
    }

    /// What opening it found.
    pub(crate) fn report(&self) -> JournalReport {
        self.shared.report()
    }

    /// Writes and syncs what there is, and closes: the directory is free when this returns.
    ///
    /// # Errors
    /// If that failed: what was not on the medium by then is lost with the process.
    pub(crate) async fn close(&self) -> Result<()> {
        self.shared.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        match writer {
            Some(writer) => writer.await.map_err(|error| aborted(&error)).flatten(),
            None => Ok(()),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("status", &self.status()).finish_non_exhaustive()
    }
}

fn aborted(error: &TaskError) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the write-behind journal's {error}"))
}

/// The answer to a change that was put down. Dropping it changes nothing.
#[derive(Debug)]
pub(crate) struct Written(Answer);

#[derive(Debug)]
enum Answer {
    Refused(Option<Error>),
    Pending(oneshot::Receiver<Result<()>>),
}

impl Written {
    fn refused(error: Error) -> Self {
        Self(Answer::Refused(Some(error)))
    }
}

impl From<oneshot::Receiver<Result<()>>> for Written {
    fn from(answer: oneshot::Receiver<Result<()>>) -> Self {
        Self(Answer::Pending(answer))
    }
}

impl Future for Written {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(match &mut self.0 {
            Answer::Refused(error) => error.take().map_or(Ok(()), Err),
            Answer::Pending(answer) => ready!(answer.poll_unpin(cx)).unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Closed,
                    "the write-behind journal was closed before it was written",
                ))
            }),
        })
    }
}
