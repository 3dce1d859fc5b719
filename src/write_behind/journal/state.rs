//! What the journal should hold, and what of it is not written yet. Held under one lock, for moments.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;
use futures_channel::oneshot;

use super::medium::Medium;
use super::record::{Notes, Record};
use super::store::Batch;
use super::{JournalReport, JournalStatus, JournalSync, WhenFull};
use crate::backend::Scope;
use crate::error::{Error, Result};
use crate::key::{CacheKey, KeyHash};
use crate::planted::{Plant, planted};
use crate::runtime::{Instant, RuntimeHandle};
use crate::value::Stamp;

/// What is forgotten is written with what is put; alone, after this long or this much of it.
const FORGET_AFTER: Duration = Duration::from_secs(1);
const FORGET_AT: usize = 1024;

pub(super) type Reply = oneshot::Sender<Result<()>>;

/// Between callers and the writer.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) changed: Event,
    pub(super) sync: JournalSync,
    pub(super) runtime: RuntimeHandle,
    pub(super) store: Arc<Medium>,
    report: Mutex<JournalReport>,
    pub(super) disk_bytes: AtomicU64,
    syncs: AtomicU64,
    reopened: AtomicU64,
}

pub(super) struct State {
    live: HashMap<CacheKey, (u64, Record), KeyHash>,
    /// The numbers of what is live.
    numbers: BTreeSet<u64>,
    bytes: u64,
    next: u64,
    /// Records with lower numbers are of earlier processes: older than whatever comes, though their clocks may have
    /// been ahead.
    first: u64,
    /// Keys of which the store holds something else than this does.
    dirty: HashSet<CacheKey, KeyHash>,
    settled: Vec<(u64, u64)>,
    /// Since when something is dirty.
    dirty_since: Option<Instant>,
    /// Since when something that was acknowledged is not synced.
    unsynced_since: Option<Instant>,
    /// The same of what is being synced.
    syncing_since: Option<Instant>,
    /// Whether a change was put that is not written.
    put: bool,
    waiters: Vec<(WhenFull, Reply)>,
    /// What was cleared, and up to when.
    cleared: HashMap<Scope, Stamp>,
    failing: Option<Failing>,
    /// Whether what is written next has to be synced, whoever waits: a failure may have undone earlier syncs.
    owed: bool,
    closing: bool,
    closed: bool,
    writes: u64,
}

/// Why writing failed last, and when it is tried again.
struct Failing {
    error: Error,
    retry_at: Instant,
}

/// What the writer does next.
pub(super) enum Step {
    Write(Taken),
    /// The store failed: it is opened anew first.
    Reopen,
    Wait(Option<Instant>),
    End,
}

/// What was taken out to be written, and goes back if that fails.
pub(super) struct Taken {
    pub(super) batch: Arc<Batch>,
    waiters: Vec<(WhenFull, Reply)>,
    unsynced_since: Option<Instant>,
}

impl State {
    pub(super) fn new(next: u64, settled: Vec<(u64, u64)>) -> Self {
        Self {
            live: HashMap::default(),
            numbers: BTreeSet::new(),
            bytes: 0,
            next,
            first: next,
            dirty: HashSet::default(),
            owed: !settled.is_empty(),
            settled,
            dirty_since: None,
            unsynced_since: None,
            syncing_since: None,
            put: false,
            waiters: Vec::new(),
            cleared: HashMap::new(),
            failing: None,
            closing: false,
            closed: false,
            writes: 0,
        }
    }

    /// Takes a recovered record over. `rewrite`: the store does not hold it.
    pub(super) fn adopt(&mut self, number: u64, record: Record, rewrite: bool) {
        if rewrite {
            self.dirty.insert(record.key.clone());
            self.put = true;
            self.owed = true;
        }
        self.numbers.insert(number);
        self.bytes += record.weight();
        self.live.insert(record.key.clone(), (number, record));
    }

    /// All records, in the order in which they were put.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records: Vec<_> = self.live.values().collect();
        records.sort_unstable_by_key(|(number, _)| *number);
        records.into_iter().map(|(_, record)| record.clone()).collect()
    }

    fn insert(&mut self, record: &Record) {
        self.remove(&record.key);
        let number = self.next;
        self.next += 1;
        self.numbers.insert(number);
        self.bytes += record.weight();
        self.live.insert(record.key.clone(), (number, record.clone()));
        self.dirty.insert(record.key.clone());
        self.put = true;
    }

    fn remove(&mut self, key: &CacheKey) -> Option<u64> {
        let (number, record) = self.live.remove(key)?;
        self.numbers.remove(&number);
        self.bytes = self.bytes.saturating_sub(record.weight());
        Some(number)
    }

    /// Forgets `key`, with a note for whoever reads the store's bytes without the store.
    fn forget(&mut self, key: &CacheKey, now: Instant) {
        if let Some(number) = self.remove(key) {
            self.settled.push((key.fingerprint(), number));
            self.dirty.insert(key.clone());
            self.dirty_since.get_or_insert(now);
        }
    }

    /// Whether what the journal has of a key is not newer than `stamp`.
    fn is_covered(&self, number: u64, record: &Record, stamp: Stamp) -> bool {
        record.stamp <= stamp || number < self.first
    }

    fn is_cleared(&self, record: &Record) -> bool {
        self.cleared.iter().any(|(scope, stamp)| record.stamp <= *stamp && scope.covers(record.key.prefix()))
    }

    fn take(&mut self, sync: bool) -> Taken {
        let changes = self.dirty.drain().map(|key| {
            let record = self.live.get(&key).cloned();
            (key, record)
        });
        let changes = changes.collect();
        let floor = self.numbers.first().copied().unwrap_or(self.next);
        let notes = Notes { floor, settled: std::mem::take(&mut self.settled) };
        self.dirty_since = None;
        self.put = false;
        self.owed &= !sync;
        let unsynced_since = if sync { self.unsynced_since.take() } else { None };
        self.syncing_since = unsynced_since;
        let waiters = if sync { std::mem::take(&mut self.waiters) } else { Vec::new() };
        Taken { batch: Arc::new(Batch { changes, notes, sync }), waiters, unsynced_since }
    }
}

impl Shared {
    pub(super) fn new(
        state: State,
        sync: JournalSync,
        runtime: RuntimeHandle,
        store: Medium,
        report: JournalReport,
    ) -> Self {
        Self {
            state: Mutex::new(state),
            changed: Event::new(),
            sync,
            runtime,
            store: Arc::new(store),
            report: Mutex::new(report),
            disk_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, record: &Record, full: WhenFull) -> Option<oneshot::Receiver<Result<()>>> {
        let now = self.runtime.now();
        let mut state = self.lock();
        let (reply, answer) = oneshot::channel();
        if state.closed {
            return Some(answer);
        }
        let known = state.live.get(&record.key);
        let newest = known.is_none_or(|(number, known)| state.is_covered(*number, known, record.stamp));
        if newest && !state.is_cleared(record) {
            state.insert(record);
        }
        if full == WhenFull::Refuse
            && let Some(failing) = &state.failing
        {
            // Taken in all the same: it is pending in place of an older one, which is forgotten when this is settled and
            // no sooner.
            let _ = reply.send(Err(failing.error.clone()));
            return Some(answer);
        }
        state.writes += 1;
        state.dirty_since.get_or_insert(now);
        let since = *state.unsynced_since.get_or_insert(now);
        let waits = match self.sync {
            JournalSync::Always => !planted(Plant::JournalAcksUnsynced),
            // A promise of "no longer than the interval" is kept by not promising while that cannot be kept.
            JournalSync::Interval(interval) => {
                state.failing.is_some() || state.closing || now.since(since) > interval.saturating_mul(2)
            }
        };
        let answer = waits.then(|| {
            state.waiters.push((full, reply));
            answer
        });
        drop(state);
        self.changed.notify(1);
        answer
    }

    pub(super) fn settled(&self, key: &CacheKey, stamp: Stamp) {
        let now = self.runtime.now();
        let mut state = self.lock();
        let known = state.live.get(key);
        if known.is_some_and(|(number, record)| state.is_covered(*number, record, stamp)) {
            let first = state.dirty.is_empty();
            state.forget(key, now);
            let much = state.dirty.len() == FORGET_AT;
            drop(state);
            if first || much {
                self.changed.notify(1);
            }
        }
    }

    /// Where the journal has what it holds of `key` up to `stamp`.
    pub(super) fn number(&self, key: &CacheKey, stamp: Stamp) -> Option<u64> {
        let state = self.lock();
        let (number, record) = state.live.get(key)?;
        state.is_covered(*number, record, stamp).then_some(*number)
    }

    /// As [`settled`](Self::settled), unless it was put anew since it had this number.
    pub(super) fn settled_at(&self, key: &CacheKey, number: u64) {
        let now = self.runtime.now();
        let mut state = self.lock();
        if state.live.get(key).is_some_and(|(known, _)| *known == number) {
            state.forget(key, now);
            drop(state);
            self.changed.notify(1);
        }
    }

    pub(super) fn forget(&self, scope: &Scope, stamp: Stamp) {
        let now = self.runtime.now();
        let mut state = self.lock();
        let known = state.cleared.entry(scope.clone()).or_default();
        *known = stamp.max(*known);
        let covered: Vec<_> = state
            .live
            .values()
            .filter(|(number, record)| {
                state.is_covered(*number, record, stamp) && scope.covers(record.key.prefix())
            })
            .map(|(_, record)| record.key.clone())
            .collect();
        for key in covered {
            state.forget(&key, now);
        }
    }

    pub(super) fn sync(&self) -> oneshot::Receiver<Result<()>> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.lock();
        if !state.closed {
            state.waiters.push((WhenFull::Wait, reply));
        }
        drop(state);
        self.changed.notify(1);
        answer
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify(1);
    }

    pub(super) fn status(&self) -> JournalStatus {
        let now = self.runtime.now();
        let state = self.lock();
        let lag =
            state.syncing_since.or(state.unsynced_since).map_or(Duration::ZERO, |since| now.since(since));
        JournalStatus {
            records: state.live.len(),
            bytes: state.bytes,
            disk_bytes: self.disk_bytes.load(Ordering::Relaxed),
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
            writes: state.writes,
            syncs: self.syncs.load(Ordering::Relaxed),
            failing: state.failing.as_ref().map(|failing| failing.error.to_string()),
            reopened: self.reopened.load(Ordering::Relaxed),
        }
    }

    /// What is to be done at `now`.
    pub(super) fn step(&self, now: Instant) -> Step {
        let mut state = self.lock();
        if let Some(failing) = &state.failing {
            return if failing.retry_at <= now || state.closing {
                Step::Reopen
            } else {
                Step::Wait(Some(failing.retry_at))
            };
        }
        let sync_at = match (self.sync, state.unsynced_since) {
            (JournalSync::Interval(interval), Some(since)) => Some(since.after(interval)),
            _ => None,
        };
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let unfinished = state.unsynced_since.is_some() || !state.dirty.is_empty();
        let sync = !state.waiters.is_empty() || state.owed || due(sync_at) || (state.closing && unfinished);
        let forget_at = state.dirty_since.map(|since| since.after(FORGET_AFTER));
        if sync || state.put || due(forget_at) || state.dirty.len() >= FORGET_AT {
            return Step::Write(state.take(sync));
        }
        if state.closing {
            return Step::End;
        }
        Step::Wait(sync_at.into_iter().chain(forget_at).min())
    }

    /// A batch was written.
    pub(super) fn written(&self, taken: Taken) {
        if taken.batch.sync {
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        self.lock().syncing_since = None;
        for (_, reply) in taken.waiters {
            // Its caller may have gone.
            let _ = reply.send(Ok(()));
        }
    }

    /// A batch could not be written: it goes back, and with it everything that was ever written, since a failed sync may
    /// have lost any of it.
    pub(super) fn not_written(&self, taken: Taken, error: &Error, retry_at: Instant) {
        let mut state = self.lock();
        let State { dirty, live, .. } = &mut *state;
        dirty.extend(taken.batch.changes.iter().map(|(key, _)| key.clone()));
        dirty.extend(live.keys().cloned());
        state.settled.extend_from_slice(&taken.batch.notes.settled);
        state.unsynced_since = taken.unsynced_since.or(state.unsynced_since);
        state.syncing_since = None;
        state.waiters.extend(taken.waiters);
        state.put = true;
        state.owed = true;
        let refused = fail(&mut state, error, retry_at);
        drop(state);
        refuse(refused, error);
    }

    /// Opening the store anew failed, too.
    pub(super) fn not_reopened(&self, error: &Error, retry_at: Instant) {
        let refused = fail(&mut self.lock(), error, retry_at);
        refuse(refused, error);
    }

    /// The store was opened anew; `report` says in what state it was.
    pub(super) fn reopened(&self, report: JournalReport) {
        self.reopened.fetch_add(1, Ordering::Relaxed);
        let mut told = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        told.moved_aside.extend(report.moved_aside);
        told.problems.extend(report.problems);
        drop(told);
        self.lock().failing = None;
    }

    /// What opening it found, and opening it anew since.
    pub(super) fn report(&self) -> JournalReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// There is no writer any more.
    pub(super) fn ended(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        // Dropped, they say that the journal was closed.
        drop(waiters);
    }

    /// Whether the writer has taken everything.
    #[cfg(test)]
    pub(super) fn is_taken(&self) -> bool {
        self.lock().dirty.is_empty()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }
}

/// Notes a failure. Returns the waiters that want to hear of it, and lets go of those whose callers have gone.
fn fail(state: &mut State, error: &Error, retry_at: Instant) -> Vec<Reply> {
    state.failing = Some(Failing { error: error.clone(), retry_at });
    let mut refused = Vec::new();
    for (full, reply) in std::mem::take(&mut state.waiters) {
        match full {
            _ if reply.is_canceled() => {}
            WhenFull::Refuse => refused.push(reply),
            WhenFull::Wait => state.waiters.push((full, reply)),
        }
    }
    refused
}

fn refuse(refused: Vec<Reply>, error: &Error) {
    for reply in refused {
        let _ = reply.send(Err(error.clone()));
    }
}
